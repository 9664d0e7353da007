"""Batches under fire: the results of one by one, whatever is broken and however often it is killed.

    python benchmarks/batch.py [--recordings 300] [--broken 20] [--kills 20] [--out FOLDER]

Short ABF files are simulated and mixed with broken ones. They are searched one by one by `quantal
detect`; by a `quantal batch` in the same folder, which finds them done and writes the tables; and
by one in another folder that is killed (SIGKILL) at random moments and started again until it is
done. Every file is compared byte by byte. Then two Dask workers, one of which is killed, search a
smaller lot. batch.md has what came out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from quantal.runtime import cores, processor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from lots import done_in, files_in, half_written, results_in, write_lot

_PROGRAM = [sys.executable, "-c", "from quantal.cli import main; main()"]
_DASK = [sys.executable, "-m", "dask"]
_DASK_LOT = 16  # recordings for two workers


def main() -> None:
    """Simulate, search in all ways, compare, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recordings", type=int, default=300)
    parser.add_argument("--broken", type=int, default=20)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each recording")
    parser.add_argument("--seed", type=int, default=1, help="of the moments of the kills")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    lines = [
        "# Batches",
        "",
        f"{processor()}, {cores()} cores, {platform.system()}, other programs running beside. "
        f"{options.recordings} simulated ABF files of {options.seconds:g} s at 20 kHz and "
        f"{options.broken} broken ones (cut off, empty, without header, noise), pictures drawn.",
        "",
        "| | searched | came out |",
        "| --- | --- | --- |",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for row in _rows(Path(folder), options):
            lines.append("| " + " | ".join(map(str, row)) + " |")
            print(lines[-1], flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "batch.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _rows(folder: Path, options: argparse.Namespace) -> Iterator[tuple[Any, ...]]:
    lot, files = folder / "lot", options.recordings + options.broken
    write_lot(lot, options.recordings, options.broken, options.seconds)
    one_by_one(lot, folder / "single")
    single = results_in(folder / "single")
    yield "`quantal detect`, one by one", files, f"{len(single)} files"

    code = batch(lot, folder / "single")
    whole = results_in(folder / "single")
    same = compared({name: whole.get(name) for name in single}, single)
    said = f"exit code {code}; {same} as before, and {len(whole) - len(single)} tables"
    yield "`quantal batch` of what is done", options.broken, said

    told = killed_and_resumed(lot, folder / "killed", options)
    said = f"{told}; {compared(results_in(folder / 'killed'), whole)} as one by one"
    yield f"`quantal batch`, killed {options.kills} times", files, said

    if find_spec("distributed") is not None:
        yield "two Dask workers on 127.0.0.1", _DASK_LOT + 2, one_killed(folder)


def one_by_one(lot: Path, out: Path) -> None:
    """Search every recording by `quantal detect`, folder by folder."""
    for place in sorted({path.parent for path in lot.rglob("*.abf")}):
        paths = [str(path) for path in sorted(place.glob("*.abf"))]
        to = ["--out", str(out / place.relative_to(lot)), "--quiet"]
        subprocess.run([*_PROGRAM, "detect", *paths, *to], check=False, stderr=subprocess.DEVNULL)


def batch(lot: Path, out: Path, *more: str) -> int:
    """Search a folder by `quantal batch`; returns the exit code."""
    call = [*_PROGRAM, "batch", str(lot), "--out", str(out), "--quiet", *more]
    return subprocess.run(call, check=False, stderr=subprocess.DEVNULL).returncode


def compared(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """How many files are the same in both, and whether any is missing or too many."""
    names = set(found) | set(expected)
    different = sorted(name for name in names if found.get(name) != expected.get(name))
    if different:
        return f"{len(different)} OF {len(names)} FILES DIFFER ({different[0]})"
    return f"all {len(names)} files the same"


def killed_and_resumed(lot: Path, out: Path, options: argparse.Namespace) -> str:
    """Start a batch and kill it until it was killed often enough, then let it finish.

    After every kill all files must be whole, and what was done stay as it was.
    """
    rng = np.random.default_rng(options.seed)
    done: dict[str, int] = {}
    half, twice = 0, 0
    at: list[int] = []
    for kill in range(options.kills):
        share = (kill + rng.uniform(0.2, 1.0)) / (options.kills + 1)
        with started(*_PROGRAM, "batch", lot, "--out", out, "--quiet") as process:
            while process.poll() is None and len(done_in(out)) < share * options.recordings:
                time.sleep(0.05)
            time.sleep(rng.uniform(0, 1))
            if kill % 2:
                os.killpg(process.pid, signal.SIGKILL)  # its workers too
        half += len(half_written(out))
        now = done_in(out)
        twice += sum(now.get(name) != written for name, written in done.items())
        done = now
        at.append(len(done))
    code = batch(lot, out)
    now = done_in(out)
    twice += sum(now.get(name) != written for name, written in done.items())
    left = [path for path in files_in(out) if ".quantal" in str(path.relative_to(out))]
    return (
        f"exit code {code}; killed when {', '.join(map(str, at))} were done; {half} half-written "
        f"files, {twice} recordings done twice or lost, {len(left)} temporary files left"
    )


def one_killed(folder: Path) -> str:
    """Search a small lot with two Dask workers, kill one in the middle, and compare."""
    lot, out, file = folder / "few", folder / "dask", folder / "scheduler.json"
    write_lot(lot, _DASK_LOT, 2)
    scheduler = [*_DASK, "scheduler", "--host", "127.0.0.1", "--port", 0, "--no-dashboard"]
    worker = [*_DASK, "worker", "--nthreads", 1, "--no-nanny", "--no-dashboard"]
    shared = ["--scheduler-file", file]
    with (
        started(*scheduler, *shared),
        started(*worker, *shared, "--local-directory", folder / "a") as first,
        started(*worker, *shared, "--local-directory", folder / "b"),
    ):
        while not file.exists():
            time.sleep(0.1)
        address = json.loads(file.read_text())["address"]
        call = [*_PROGRAM, "batch", lot, "--out", out, "--quiet", "--dask", address]
        with started(*call) as process:
            while process.poll() is None and len(done_in(out)) < _DASK_LOT // 2:
                time.sleep(0.05)
            first.kill()
            at = len(done_in(out))
            code = process.wait()
    batch(lot, folder / "here")
    same = compared(results_in(out), results_in(folder / "here"))
    return f"exit code {code}; one killed when {at} were done; {same} as by processes here"


@contextmanager
def started(*command: object) -> Iterator[subprocess.Popen[bytes]]:
    """A program in a session of its own, which is killed at the end."""
    process = subprocess.Popen(
        [str(part) for part in command], stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()

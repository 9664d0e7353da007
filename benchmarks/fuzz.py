"""Fuzzing: broken files of every kind that is read, guided by the branches that they reach.

    python benchmarks/fuzz.py [--targets abf1,csv,...] [--inputs 1000000] [--seconds S] [--seed K]
                              [--out FOLDER] [--work FOLDER] [--fresh]

Needs atheris (python -m pip install "quantal[fuzz]": Linux, CPython 3.11 to 3.13). Each target runs
in a process of its own with a limit to its memory and its time, so that what ends it is counted and
does not end the run. Targets take turns until together they have had so many inputs or the time is
over; fuzz.md and fuzz.json in FOLDER (benchmarks/results) are written after every turn. A further
run goes on from the inputs kept in --work and adds to the counts; --fresh begins at 0. An input is
a finding if it is not answered by one of the project's own errors or by a result that keeps its
promises; it is kept in --work, and `python benchmarks/fuzz_child.py TARGET FILE` tries it again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from fuzz_child import COUNTERS, MEMORY_BYTES, PROCESSOR_S, WALL_S, Counters
from fuzz_targets import TARGETS

from quantal.runtime import processor

FEWEST = 3_000  # inputs of each target before quick ones carry on alone
_TURN_S = 60
_TURN_INPUTS = 20_000
_REACHED = re.compile(r"(INITED|DONE|pulse|NEW|REDUCE)\s+cov: (\d+) ft: (\d+) corp: (\d+)/")
_CHILD = Path(__file__).with_name("fuzz_child.py")
_LIBRARIES = ("numpy", "h5py", "pyabf", "neo", "tifffile", "onnxruntime", "pyarrow", "openpyxl")
Row = dict[str, Any]


def main() -> None:
    """Fuzz the targets in turn and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--inputs", type=int, default=1_000_000, help="of all targets together")
    parser.add_argument("--seconds", type=float, default=86_400.0, help="of all targets together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "quantal-fuzz")
    parser.add_argument("--fresh", action="store_true", help="forget earlier runs")
    options = parser.parse_args()
    names = options.targets.split(",")
    if unknown := sorted(set(names) - set(TARGETS)):
        parser.error(f"no target {unknown[0]!r}; there are {', '.join(TARGETS)}")
    if options.fresh:
        shutil.rmtree(options.work, ignore_errors=True)
        (options.out / "fuzz.json").unlink(missing_ok=True)
    for folder in (options.work, options.out):
        folder.mkdir(parents=True, exist_ok=True)
    results = _results(options.out / "fuzz.json")
    began, turn = time.monotonic(), results["turns"]
    before = _total(results)
    while (name := _next(names, results)) and _total(results) - before < options.inputs:
        left_s = options.seconds - (time.monotonic() - began)
        if left_s < 1:
            break
        turn += 1
        results["turns"] = turn
        left = options.inputs - (_total(results) - before)
        inputs = min(left, _TURN_INPUTS, -(-options.inputs // len(names)))
        _take_turn(name, options, results, inputs, left_s, options.seed + turn)
        _write(options.out, results)
    print(table(results))


def _results(path: Path) -> Row:
    if path.exists():
        kept: Row = json.loads(path.read_text(encoding="utf-8"))
        return kept
    versions = {name: metadata.version(name) for name in ("atheris", *_LIBRARIES)}
    return {
        "machine": f"{processor()}, one core, {platform.system()}, Python "
        f"{platform.python_version()}, other programs running beside",
        "versions": versions,
        "turns": 0,
        "targets": {},
    }


def _total(results: Row) -> int:
    return sum(row["inputs"] for row in results["targets"].values())


def _next(names: list[str], results: Row) -> str | None:
    """The target with the fewest inputs while one lacks some, then quick ones by processor time."""
    rows = results["targets"]
    few = [name for name in names if rows.get(name, {"inputs": 0})["inputs"] < FEWEST]
    if few:
        return min(few, key=lambda name: rows.get(name, {"inputs": 0})["inputs"])
    quick = [name for name in names if TARGETS[name].quick] or names
    return min(quick, key=lambda name: rows[name]["processor_s"])


def _take_turn(
    name: str, options: argparse.Namespace, results: Row, inputs: int, left_s: float, seed: int
) -> None:
    """Run one target for a while and add what came of it."""
    folder = options.work / name
    folder.mkdir(exist_ok=True)
    row = results["targets"].setdefault(
        name,
        {
            "about": TARGETS[name].about,
            **dict.fromkeys(COUNTERS, 0),
            "processor_s": 0.0,
            "edges": [],
            "features": [],
            "kept": 0,
            "restarts": 0,
            "found": [],
        },
    )
    (folder / "counters").unlink(missing_ok=True)
    call = [sys.executable, str(_CHILD), name, str(folder), str(inputs)]
    call += [str(int(min(_TURN_S, left_s)) or 1), str(seed)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(call, stdout=log, stderr=log, env=_environment())
        status, used = _waited(process, min(_TURN_S, left_s) + 2 * WALL_S)
    said = (folder / "log").read_text(errors="replace")
    counted = Counters(folder / "counters").all()
    for key, count in counted.items():
        row[key] += count
    row["processor_s"] += used
    reached = _REACHED.findall(said)
    if reached:
        for key, at in (("edges", 1), ("features", 2)):
            row[key] = [row[key][0] if row[key] else int(reached[0][at]), int(reached[-1][at])]
        row["kept"] = int(reached[-1][3])
    if not counted["inputs"]:
        sys.exit(f"{name} did not start: {said[-2_000:]}")
    _add_findings(row, folder)
    if status not in (0, 1):
        row["restarts"] += 1
        _add_ending(row, folder, status)


def _environment() -> dict[str, str]:
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ARROW_NUM_THREADS"), "1")
    return {**os.environ, **one, "PYTHONHASHSEED": "0"}


def _waited(process: subprocess.Popen[bytes], most_s: float) -> tuple[int, float]:
    """How the process ended (a negative signal), and the processor seconds that it used."""
    stop = time.monotonic() + most_s
    while True:
        pid, status, used = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode, used.ru_utime + used.ru_stime
        if time.monotonic() > stop:
            process.kill()
        time.sleep(0.05)


def _add_findings(row: Row, folder: Path) -> None:
    path = folder / "findings.jsonl"
    if not path.exists():
        return
    known = {finding["key"] for finding in row["found"]}
    for line in path.read_text(encoding="utf-8").splitlines():
        finding = json.loads(line)
        if finding["key"] not in known:
            row["found"].append({key: finding[key] for key in ("key", "kind", "where", "said")})


def _add_ending(row: Row, folder: Path, status: int) -> None:
    """An input that ended the process is a finding too: told by its signal and where it was."""
    if status == -signal.SIGPROF:
        kind = f"over {PROCESSOR_S:g} s"
    elif status < 0:
        kind = signal.Signals(-status).name
    else:
        kind = f"exit code {status}"
    trace = (folder / "traceback").read_text(errors="replace")
    where = ", ".join(re.findall(r'/([\w.]+)", line (\d+)', trace)[0]) if "line" in trace else ""
    key = re.sub(r"\W+", "-", f"{kind} {where}")
    row["findings"] += 1
    shutil.copy(folder / "input", folder / f"finding-{key}")
    if key not in {finding["key"] for finding in row["found"]}:
        row["found"].append({"key": key, "kind": kind, "where": where, "said": ""})


def _write(out: Path, results: Row) -> None:
    (out / "fuzz.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (out / "fuzz.md").write_text(table(results), encoding="utf-8")


def table(results: Row) -> str:
    """What was tried and found, one line a target."""
    rows = results["targets"].values()
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    findings = sum(row["findings"] for row in rows)
    lines = [
        "# Fuzzing",
        "",
        f"{_total(results):,} broken files and settings, {findings:,} of them not answered by a "
        "clear error or a result that keeps its promises (a crash, another exception, more than "
        f"{PROCESSOR_S:g} s of processor time, more than {MEMORY_BYTES / (1 << 30):g} GB of memory "
        "or a wrong result). Several runs add up.",
        "",
        f"{results['machine']}. {versions}.",
        "",
        "| target | inputs | answered with a result | refused with an error | findings "
        "| branches, first and last | features, first and last | inputs kept | inputs per "
        "processor second |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        speed = row["inputs"] / max(row["processor_s"], 1e-9)
        lines.append(
            f"| {row['about']} | {row['inputs']:,} | {row['answers']:,} | {row['refusals']:,} "
            f"| {row['findings']:,} | {' to '.join(map(str, row['edges']))} "
            f"| {' to '.join(map(str, row['features']))} | {row['kept']:,} | {speed:,.0f} |"
        )
    found = [(row["about"], finding) for row in rows for finding in row["found"]]
    if found:
        about = "Of each kind the first; several runs add up, so what was mended since stays here."
        lines += ["", "## What was found", "", about, ""]
        lines += [
            f"- {target}: {one['kind']} at {one['where']}: {one['said'][:200]}"
            for target, one in found
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

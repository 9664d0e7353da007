"""Folders of short simulated recordings, some of them broken, and how results are compared."""

from __future__ import annotations

import json
import os
from concurrent.futures import Executor, Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from quantal.simulate import Rig, simulate_recording
from readers.abf_files import abf2_bytes

_RIG = Rig(rate_hz=20_000.0)
_COUNTS_PER_UNIT, _OFFSET = 10, 1.0  # of the ABF writer
GROUPS = ("wt", "ko")


class Here(Executor):
    """Works in this very process."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The result at once."""
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def abf_recording(seed: int, seconds: float = 1.0, frequency_hz: float = 5.0) -> bytes:
    """An ABF file of a simulated recording at 20 kHz."""
    trace, _ = simulate_recording(
        seconds=seconds, frequency_hz=frequency_hz, amplitude=-20, seed=seed, rig=_RIG
    )
    counts = np.round((trace.samples - _OFFSET) * _COUNTS_PER_UNIT)
    return abf2_bytes(np.clip(counts, -32_768, 32_767).astype(np.int16))


def write_lot(folder: Path, recordings: int, broken: int = 0, seconds: float = 1.0) -> None:
    """Recordings in wt/ and ko/, every tenth without events, and files that cannot be read."""
    for k in range(recordings):
        frequency_hz = 0.0 if k % 10 == 9 else 4.0 + 2 * (k % 2)
        place = folder / GROUPS[k % 2] / f"day{k // 4 % 3}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"cell{k:03d}.abf").write_bytes(abf_recording(k, seconds, frequency_hz))
    for k in range(broken):
        place = folder / GROUPS[k % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"broken{k:03d}.abf").write_bytes(_damaged(abf_recording(k), k))


def _damaged(whole: bytes, how: int) -> bytes:
    """Cut off, empty, without its header, or with noise after it."""
    noise = np.random.default_rng(how).bytes(2_000)
    return (whole[: len(whole) // 2], b"", bytes(512) + whole[512:], whole[:512] + noise)[how % 4]


def files_in(out: Path) -> list[Path]:
    """All files of a folder and below; others may be at work there."""
    return sorted(Path(folder) / name for folder, _, names in os.walk(out) for name in names)


def done_in(out: Path) -> dict[str, int]:
    """The recordings that are done, and when each was written."""
    done = {}
    for path in files_in(out):
        if path.name.endswith(".summary.json") and ".quantal-batch" not in path.parts:
            with suppress(FileNotFoundError):
                done[str(path)] = path.stat().st_mtime_ns
    return done


def results_in(out: Path) -> dict[str, Any]:
    """All files of a folder of results; summaries without the folder's own path and the threads."""
    found: dict[str, Any] = {}
    for path in files_in(out):
        name = path.relative_to(out).as_posix()
        found[name] = path.read_bytes()
        if path.suffix == ".json":
            text = path.read_text(encoding="utf-8").replace(str(out), "OUT")
            found[name] = _without_threads(json.loads(text))
    return found


def _without_threads(summary: dict[str, Any]) -> dict[str, Any]:
    summary.pop("threads", None)
    summary.get("settings", {}).pop("threads", None)
    return summary


def half_written(out: Path) -> list[str]:
    """Files among the results that are not whole."""
    return [
        path.relative_to(out).as_posix()
        for path in files_in(out)
        if ".quantal-batch" not in path.parts and not _is_whole(path)
    ]


def _is_whole(path: Path) -> bool:
    content = path.read_bytes()
    if path.suffix == ".png":
        return content.startswith(b"\x89PNG") and content.endswith(b"IEND\xaeB`\x82")
    if path.suffix == ".json":
        try:
            return isinstance(json.loads(content), dict)
        except ValueError:
            return False
    if path.suffix == ".csv":
        rows = content.decode().splitlines()
        return content.endswith(b"\n") and len({row.count(",") for row in rows}) == 1
    return False  # no other kind was asked for

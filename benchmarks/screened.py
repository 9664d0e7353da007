"""Events of screened scans against those of dense ones, and what a screened scan costs.

    python benchmarks/screened.py [--shared ../shared] [--model NAME|FOLDER] [--minutes 60]

Simulated recordings of 10 s over kinetics, sizes, rates, rigs and thresholds, until the minutes are
full, and every real recording that can be read. Events are the same if every column of the two
tables is, to the last bit. "read" is the share of the windows that the network reads; times are
those of all of `detect`. Writes screened.md, which says on how many cores it ran.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from conformance import REAL

from quantal.detect import analyse, settle
from quantal.errors import QuantalError
from quantal.events import COLUMNS, Events
from quantal.model import Model, load_model
from quantal.readers import read
from quantal.runtime import Session, cores
from quantal.simulate import Rig, simulate_recording
from quantal.trace import Trace

SECONDS = 10.0
WINDOW_MS = 12.0  # for real recordings whose events are not known
THRESHOLDS = (0.25, 0.5, 0.75, 0.975)
# Kinds of simulated recordings: events/s, amplitude in noise SD, rise and decay (ms), window (ms).
KINDS: dict[str, tuple[float, float, float, float, float]] = {
    "none": (0.0, 1, 0.2, 1.0, 12),
    "few": (0.7, 12, 0.2, 1.0, 12),
    "few, small": (0.7, 4, 0.2, 1.0, 12),
    "fast": (2.0, 8, 0.1, 0.5, 6),
    "slow": (2.0, 8, 0.6, 4.5, 54),
    "busy": (10.0, 8, 0.2, 1.0, 12),
    "very busy": (60.0, 8, 0.2, 1.0, 12),
    "window too short": (2.0, 8, 0.6, 4.5, 12),
    "window too long": (2.0, 8, 0.1, 0.5, 24),
}
RIGS = (
    Rig(),
    Rig(cutoff_hz=10_000, hum=0.5),
    Rig(corner_hz=300, drift=2.0),
    Rig(rate_hz=20_000, cutoff_hz=2_000, order=8),
)


@dataclass(kw_only=True)
class Row:
    """Recordings of one kind, added up."""

    name: str
    seconds: float = 0.0
    events: int = 0
    differing: int = 0
    windows: int = 0
    read: int = 0
    dense_s: float = 0.0
    screened_s: float = 0.0
    notes: list[str] = field(default_factory=list)

    def line(self) -> str:
        """As a row of the table."""
        share = 100 * self.read / max(self.windows, 1)
        return (
            f"| {self.name} | {self.seconds:.0f} | {self.events} | {self.differing} | "
            f"{share:.1f} % | {self.dense_s:.1f} | {self.screened_s:.2f} | "
            f"{self.dense_s / max(self.screened_s, 1e-9):.1f} |"
        )


class Counted:
    """Counts windows that the network reads while it is in use."""

    def __init__(self) -> None:
        self.windows = 0
        self._run = Session.run_windows

    def __enter__(self) -> Counted:
        def run(session: Session, windows: Any) -> Any:
            self.windows += len(windows)
            return self._run(session, windows)

        Session.run_windows = run  # type: ignore[assignment, method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        Session.run_windows = self._run  # type: ignore[method-assign]


def main() -> None:
    """Compare, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path)
    parser.add_argument("--model", default="cnn-lstm")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--sweeps", type=int, default=4, help="of a real recording, at most")
    parser.add_argument("--seed", type=int, default=1_000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    model = load_model(options.model)
    compare(model, simulate_recording(seconds=1)[0], Row(name="warm-up"))
    rows = list(simulated(model, options.minutes, options.seed))
    real = list(recorded(model, options.shared, options.sweeps)) if options.shared else []
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "screened.md"
    path.write_text(table(model, rows, real), encoding="utf-8")
    print(path.read_text(encoding="utf-8"))


def simulated(model: Model, minutes: float, seed: int) -> Iterator[Row]:
    """A row for every kind of simulated recording and threshold in turn."""
    rows = {name: Row(name=name) for name in KINDS}
    chosen = cycle([(name, rig, t) for t in THRESHOLDS for rig in RIGS for name in KINDS])
    for k, (name, rig, threshold) in enumerate(chosen):
        if k >= 60 * minutes / SECONDS:
            break
        rate, amplitude, rise, decay, window_ms = KINDS[name]
        trace, _ = simulate_recording(
            seconds=SECONDS,
            frequency_hz=rate,
            amplitude=-amplitude,
            tau_rise_s=rise / 1e3,
            tau_decay_s=decay / 1e3,
            rig=rig,
            seed=seed + k,
        )
        compare(model, trace, rows[name], window_ms=window_ms, threshold=threshold)
        print(rows[name].line(), flush=True)
    yield from rows.values()


def recorded(model: Model, shared: Path, sweeps: int) -> Iterator[Row]:
    """A row for every real recording, first channel, that can be read and is long enough."""
    for path in sorted((shared / "data").glob("*/*")):
        known = REAL.get(path.stem)
        row = Row(name=path.name)
        try:
            for trace in read(path, sweeps=known.sweeps if known else "all")[:sweeps]:
                if known:
                    trace = trace.exclude(known.excluded)
                compare(model, trace, row, window_ms=known.window_ms if known else WINDOW_MS)
        except QuantalError as error:
            said = str(error).splitlines()[0].replace(str(path), "it")
            row.notes.append(said if len(said) < 90 else f"{said[:86]} ...")
        print(row.line(), flush=True)
        yield row


def compare(model: Model, trace: Trace, row: Row, **options: Any) -> None:
    """Search a trace both ways and add to a row."""
    seconds, found = {}, {}
    for method in ("dense", "screened"):
        settings = settle(model, method=method, direction="negative", **options)
        with Counted() as counted:
            begin = time.perf_counter()
            found[method], scores = analyse(trace, model, settings)
            seconds[method] = time.perf_counter() - begin
    row.read += counted.windows
    row.windows += len(scores["negative"])
    row.seconds += trace.duration_s
    row.events += len(found["dense"])
    row.differing += differing(found["dense"], found["screened"])
    row.dense_s += seconds["dense"]
    row.screened_s += seconds["screened"]


def differing(a: Events, b: Events) -> int:
    """Events of either table that the other has not, in every column."""
    left, right = ({tuple(map(repr, row)) for row in rows_of(e)} for e in (a, b))
    return len(left ^ right)


def rows_of(events: Events) -> Iterator[tuple[object, ...]]:
    """The values of each event, without its number."""
    names = [name for name in COLUMNS if name != "event"]
    return zip(*(np.asarray(getattr(events, name)).tolist() for name in names), strict=True)


HEAD = (
    "| recordings | s | events | differing | read | dense, s | screened, s | times faster |",
    "| --- | --- | --- | --- | --- | --- | --- | --- |",
)


def table(model: Model, rows: list[Row], real: list[Row]) -> str:
    """Both tables, in Markdown."""
    lines = [
        f"# Screened against dense scans: `{model.card.name}`",
        "",
        f"By `python benchmarks/screened.py`, on {cores()} cores. Thresholds of simulated "
        f"recordings: {', '.join(f'{t:g}' for t in THRESHOLDS)} in turn.",
        "",
        *HEAD,
        *(row.line() for row in rows if row.seconds),
        total(rows).line(),
    ]
    if real:
        read_ = [row for row in real if row.seconds]
        lines += ["", *HEAD, *(row.line() for row in read_), total(read_).line(), ""]
        lines += [f"Not read: {row.name} ({row.notes[0]})  " for row in real if not row.seconds]
    return "\n".join(lines) + "\n"


def total(rows: list[Row]) -> Row:
    """All rows added up."""
    names = ("seconds", "events", "differing", "windows", "read", "dense_s", "screened_s")
    return Row(name="all", **{name: sum(getattr(row, name) for row in rows) for name in names})


if __name__ == "__main__":
    main()

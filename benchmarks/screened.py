"""Events of screened scans against those of dense ones, and what a screened scan costs.

    python benchmarks/screened.py [--shared ../shared] [--model NAME|FOLDER] [--minutes 60]

Every real recording that can be read, and short simulated ones: every kinetics, rate, noise and
sampling rate of the accuracy benchmark and some of its own, again and again with other seeds until
the minutes are full. Events are the same if every column of the two tables is, to the last bit. A
recording is read at one threshold, the next at another. At all thresholds, and as if it began at
any of its first few windows, screening is also repeated on the scores of the dense scan, and
stretches are compared. "read" is the share of the windows that the network reads; times are CPU
seconds of all of `detect` by one thread. Writes screened_MODEL.md as it goes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from itertools import cycle, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from accuracy_parts import (
    APART,
    CONDITIONS,
    DECAY,
    FALSE,
    OVERLAP,
    RATE,
    RATES,
    RISE,
    SNR,
    SPECTRA,
    Rows,
    decays,
)
from conformance import REAL
from scenes import Recipe, simulate

from quantal.detect import analyse, settle
from quantal.disk import replacing
from quantal.errors import QuantalError
from quantal.events import COLUMNS, Events
from quantal.model import Model, load_model
from quantal.peaks import Peaks, find_stretches
from quantal.readers import read
from quantal.runtime import Session, processor
from quantal.scan import Scores, on_grid, window_samples
from quantal.scout import open_scout
from quantal.screen import evenly, read_screened, scouted
from quantal.trace import Trace

WINDOW_MS = 12.0  # for real recordings whose events are not known
COMPARED = tuple(name for name in COLUMNS if name != "event")
THRESHOLDS = (0.5, 0.25, 0.75, 0.975)
BUSY = {
    "60 a second": Recipe(frequency_hz=60, amplitude=8),
    "300 a second": Recipe(frequency_hz=300, amplitude=8, closest_s=0.0),
}
TOO_SHORT, TOO_LONG = "window too short", "window too long"
ILL_FITTING = {TOO_SHORT: decays(4.5, amplitude=8), TOO_LONG: decays(0.5, amplitude=8)}
WINDOW_OVER_DECAY = {TOO_SHORT: 3.0, TOO_LONG: 48.0}  # of others 12
GROUPS: dict[str, Rows] = {
    "amplitude": SNR,
    "decay": DECAY,
    "rise": RISE,
    "events a second": RATE,
    "pairs": OVERLAP,
    "conditions": CONDITIONS,
    "spectra": SPECTRA,
    "sampling rate": RATES,
    "unlike what models learn from": APART,
    "no events": FALSE,
    "busy": BUSY,
    "ill-fitting window": ILL_FITTING,
}


@dataclass(kw_only=True)
class Row:
    """Recordings of one kind, added up."""

    name: str
    seconds: float = 0.0
    events: int = 0
    differing: int = 0
    repeated: int = 0
    repeated_differing: int = 0
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
            f"{self.repeated} | {self.repeated_differing} | {share:.1f} % | {self.dense_s:.1f} | "
            f"{self.screened_s:.2f} | {self.dense_s / max(self.screened_s, 1e-9):.2f} |"
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
    """Compare, and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path)
    parser.add_argument("--model", default="cnn-lstm")
    parser.add_argument("--minutes", type=float, default=60.0, help="of simulated recordings")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each of these")
    parser.add_argument("--sweeps", type=int, default=4, help="of a real recording, at most")
    parser.add_argument("--seed", type=int, default=1_000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    model = load_model(options.model)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"screened_{model.card.name}.md"
    compare(model, simulate(Recipe(seconds=1)).trace, Row(name="warm-up"))
    tables: dict[str, dict[str, Row]] = {"Real": {}, "Simulated": {}}
    sources = {
        "Real": recorded(options.shared, options.sweeps) if options.shared else (),
        "Simulated": simulated(60 * options.minutes, options.seed, options.seconds),
    }
    for title, recordings in sources.items():
        for name, make, chosen in recordings:
            row = tables[title].setdefault(name, Row(name=name))
            try:
                for trace in make():
                    compare(model, trace, row, **chosen)
            except QuantalError as error:
                said = str(error).splitlines()[0].replace(str(options.shared), "..")
                row.notes.append(said if len(said) < 120 else f"{said[:116]} ...")
            print(row.line(), flush=True)
            with replacing(path) as scratch:
                scratch.write_text(written(model, tables, options.minutes), encoding="utf-8")
    print(path.read_text(encoding="utf-8"))


Recordings = Iterator[tuple[str, Callable[[], Iterable[Trace]], dict[str, Any]]]


def simulated(whole_s: float, seed: int, seconds: float) -> Recordings:
    """A recipe of each group in turn; at every turn its threshold and its seed are others."""
    turns = zip_longest(*([(g, *item) for item in rows.items()] for g, rows in GROUPS.items()))
    every = [item for turn in turns for item in turn if item is not None]
    for k, (group, row, recipe) in enumerate(cycle(every)):
        if k >= whole_s / seconds:
            break
        drawn = replace(recipe, seconds=seconds, seed=seed + k)
        window_ms = WINDOW_OVER_DECAY.get(row, 12.0) * 1000 * recipe.tau_decay_s
        threshold = THRESHOLDS[(k + k // len(every)) % len(THRESHOLDS)]
        options = {"window_ms": window_ms, "threshold": threshold}
        yield group, partial(lambda recipe: [simulate(recipe).trace], drawn), options


def recorded(shared: Path, sweeps: int) -> Recordings:
    """Every real recording: the first channel, so many sweeps."""
    for path in sorted((shared / "data").glob("*/*")):
        known = REAL.get(path.stem)
        window_ms = known.window_ms if known else WINDOW_MS
        yield path.name, partial(first_sweeps, path, sweeps), {"window_ms": window_ms}


def first_sweeps(path: Path, sweeps: int) -> Iterator[Trace]:
    """Sweeps of a real recording, without what is known to be no synaptic event."""
    known = REAL.get(path.stem)
    for trace in read(path, sweeps=known.sweeps if known else "all")[:sweeps]:
        yield trace.exclude(known.excluded) if known else trace


def compare(model: Model, trace: Trace, row: Row, **options: Any) -> None:
    """Search a trace both ways and add to a row."""
    seconds, found, scores = {}, {}, {}
    for method in ("dense", "screened"):
        settings = settle(model, method=method, direction="negative", threads=1, **options)
        with Counted() as counted:
            begin = time.process_time()
            by_direction: dict[str, Scores] = {}
            found[method] = analyse(trace, model, settings, kept=by_direction)
            seconds[method] = time.process_time() - begin
        scores[method] = by_direction["negative"]
    row.read += counted.windows
    row.windows += len(scores["dense"])
    row.seconds += trace.duration_s
    row.events += len(found["dense"])
    row.differing += differing(found["dense"], found["screened"])
    row.dense_s += seconds["dense"]
    row.screened_s += seconds["screened"]
    repeats = list(repeated(model, trace, settings.window_ms, scores["dense"]))
    row.repeated += len(repeats)
    row.repeated_differing += repeats.count(False)


def repeated(model: Model, trace: Trace, window_ms: float, dense: Scores) -> Iterator[bool]:
    """Whether screening finds all stretches again, for every threshold and beginning."""
    card = model.card
    width, stride = card.window_samples, dense.stride
    scout = open_scout(model, threads=1)
    sign = -1 if card.polarity == "positive" else 1
    grid = on_grid(trace, card, window_samples(trace, card, window_ms), sign)
    starts = dense.first_sample - card.reference_sample + dense.stride * np.arange(len(dense))
    for first in range(4):
        values, begin = dense.values[first:], starts[first:]
        without = evenly(grid.samples, begin, stride, width)
        for threshold in THRESHOLDS:
            level = scout.level(threshold) if scout is not None else None
            beginning = (
                scouted(scout, level, grid.samples, begin, stride, width)
                if scout is not None and level is not None
                else without
            )
            screened, _ = read_screened(
                values.__getitem__, len(values), beginning, threshold=threshold
            )
            a, b = (find_stretches(v, threshold) for v in (values, screened))
            yield all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(Peaks))


def differing(a: Events, b: Events, names: Sequence[str] = COMPARED) -> int:
    """Events of either table that the other has not, by these columns."""
    left, right = ({tuple(map(repr, row)) for row in rows_of(e, names)} for e in (a, b))
    return len(left ^ right)


def rows_of(events: Events, names: Sequence[str]) -> Iterator[tuple[object, ...]]:
    """The values of each event in some columns."""
    return zip(*(np.asarray(getattr(events, name)).tolist() for name in names), strict=True)


HEAD = (
    "| recordings | s | events | differing | repeated | differing | read | dense, s | "
    "screened, s | times faster |",
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
)


def written(model: Model, tables: dict[str, dict[str, Row]], minutes: float) -> str:
    """Both tables, in Markdown."""
    done = sum(row.seconds for row in tables["Simulated"].values()) / 60
    thresholds = ", ".join(f"{threshold:g}" for threshold in sorted(THRESHOLDS))
    lines = [
        f"# Screened against dense scans: `{model.card.name}`",
        "",
        f"By `python benchmarks/screened.py`: {done:.1f} of {minutes:g} minutes of simulated "
        f"recordings, thresholds {thresholds} in turn; CPU seconds of one thread, {processor()}.",
        "",
        "Windows that are read first: "
        + ("one in four." if open_scout(model) is None else "those that its scout suspects."),
    ]
    for title, rows in tables.items():
        searched = [row for row in rows.values() if row.seconds]
        if searched:
            lines += ["", f"## {title}", "", *HEAD]
            lines += [row.line() for row in [*searched, total(searched)]]
        lines += [""] * any(row.notes for row in rows.values())
        lines += [f"{row.name}: {row.notes[0]}  " for row in rows.values() if row.notes]
    return "\n".join(lines) + "\n"


def total(rows: list[Row]) -> Row:
    """All rows added up."""
    names = [f.name for f in fields(Row) if f.name not in ("name", "notes")]
    return Row(name="all", **{name: sum(getattr(row, name) for row in rows) for name in names})


if __name__ == "__main__":
    main()

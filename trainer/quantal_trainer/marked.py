"""Recordings whose events are all listed -> labelled pieces, as a trace network is trained on."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quantal.errors import ReadError, UsageError
from quantal.events import FOUND, REJECTED, known_status
from quantal.filters import fill_missing
from quantal.kinetics import fitting_window_ms, measure
from quantal.locate import slope_weights, steepest_rises
from quantal.model import Card
from quantal.noise import scaled
from quantal.save import load_events
from quantal.scan import SIGNS, on_grid, window_samples
from quantal.tables import text_column
from quantal.trace import Trace
from quantal_trainer.datasets import EVENT, Dataset, polarity
from quantal_trainer.simulated_traces import (
    PIECE,
    Pieces,
    Stretch,
    draw_gain,
    joined,
    label_hops,
    reach_of,
)
from quantal_trainer.trace_network import HOP

Floats = NDArray[np.float64]
Array = NDArray[np.float32]

STEEPEST = "location_s"
_TIMES = (STEEPEST, "time_s", "peak_s", "onset_s", "time")  # the first of these that is there
_FEWEST = 5  # events in all, or nothing can be learnt
_SHORTEST = 40  # samples in which an event is looked at
_BEFORE = 0.25  # of a look lies before the event
_NEAR = 0.25  # of a window: how far a mark may lie from the steepest rise


@dataclass(frozen=True, eq=False, kw_only=True)
class Marks:
    """Times of events as a file lists them, and which recording, channel and sweep each is of.

    recordings, channels: "" and sweeps: -1 where the file does not say. steepest: whether times are
    those of the steepest rise.
    """

    times_s: Floats
    recordings: NDArray[np.str_]
    channels: NDArray[np.str_]
    sweeps: NDArray[np.int64]
    steepest: bool


@dataclass(frozen=True, eq=False, kw_only=True)
class Marked:
    """A trace and the times of all its events outside of what is excluded, in order.

    steepest: whether times are those of the steepest rise, or only near it.
    """

    trace: Trace
    times_s: Floats
    steepest: bool = True

    @property
    def at(self) -> NDArray[np.int64]:
        """The samples of the trace that are marked."""
        positions = np.rint((self.times_s - self.trace.start_s) * self.trace.rate_hz)
        return np.asarray(np.clip(positions, 0, len(self.trace) - 1), np.int64)


# Files -------------------------------------------------------------------------------------------


def read_marks(path: str | Path) -> Marks:
    """The events of a table that `quantal detect` wrote, or of any with a column of times.

    The column is location_s, time_s, peak_s, onset_s or time, in seconds on the sweep's clock, or
    the only one; recording, channel and sweep may be told too. Rows of status rejected are no
    events, and there is no other status but found. Raises ReadError if the file cannot be read or
    holds no times.
    """
    path = Path(path)
    if path.suffix.lower() in (".h5", ".hdf5"):
        columns = {name: column.tolist() for name, column in load_events(path).columns().items()}
    else:
        columns = _table(path)
    name = next((name for name in _TIMES if name in columns), None)
    if name is None and len(columns) == 1:
        name = next(iter(columns))
    if name is None:
        raise ReadError(
            f"{path} holds no column of times; it needs one of {', '.join(_TIMES)} (seconds), "
            f"and has {', '.join(columns) or 'nothing'}."
        )
    count = len(columns[name])
    try:
        times = np.array(columns[name], np.float64)
        sweeps = np.array([int(float(s)) for s in columns.get("sweep", ["-1"] * count)], np.int64)
        texts = {
            key: text_column(columns.get(key, [""] * count)) for key in ("recording", "channel")
        }
        status = known_status(columns.get("status", [FOUND] * count))
    except (ValueError, OverflowError) as error:
        raise ReadError(
            f"{path} holds a time or a sweep that is no number, or a name or status that is none: "
            f"{error}."
        ) from None
    if not np.isfinite(times).all():
        raise ReadError(f"{path} holds times that are missing.")
    kept = status != REJECTED
    return Marks(
        times_s=times[kept],
        recordings=texts["recording"][kept],
        channels=texts["channel"][kept],
        sweeps=sweeps[kept],
        steepest=name == STEEPEST,
    )


def _table(path: Path) -> dict[str, list[str]]:
    """The columns of a CSV by name; a column of numbers alone needs no header."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if any(map(str.strip, row))]
    except (OSError, ValueError, csv.Error) as error:
        raise ReadError(f"{path} cannot be read as a table of events: {error}.") from None
    if not rows:
        raise ReadError(f"{path} is empty; a recording without events needs a header at least.")
    header = [name.strip() for name in rows[0]]
    if len(header) == 1 and _is_number(header[0]):
        return {"time_s": [row[0] for row in rows]}
    if any(len(row) != len(header) for row in rows):
        raise ReadError(f"{path} has rows with more or fewer fields than its header.")
    return {name: [row[i].strip() for row in rows[1:]] for i, name in enumerate(header)}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def marked_traces(recordings: Iterable[Sequence[Trace]], tables: Sequence[Marks]) -> list[Marked]:
    """Every trace with its own events.

    recordings: the sweeps of each. tables: one for all where it names recordings, else one for each
    in the same order. Raises UsageError where events cannot be assigned, a recording has none in a
    table that names others, or a time lies outside its sweep.
    """
    recordings = list(recordings)
    whole = tables[0] if len(tables) == 1 else None
    if whole is None and len(tables) != len(recordings):
        raise UsageError(
            f"{len(tables)} tables of events for {len(recordings)} recordings: give one for each, "
            "in the same order, or a single one with a column recording."
        )
    if whole is not None and len(recordings) > 1 and not whole.recordings.astype(bool).all():
        raise UsageError(
            f"one table without a column recording for {len(recordings)} recordings: give a table "
            "for each, in the same order."
        )
    marked = []
    for k, traces in enumerate(recordings):
        table = tables[k] if whole is None else whole
        found = [_of_trace(table, trace, len(traces)) for trace in traces]
        if len(table.times_s) and not sum(len(one.times_s) for one in found):
            raise UsageError(
                f"none of the {len(table.times_s)} events listed is of {traces[0].recording}, "
                f"channel {traces[0].channel}: the table names "
                f"{', '.join(sorted(set(table.recordings.tolist()))[:5])}."
            )
        marked += found
    return marked


def _of_trace(table: Marks, trace: Trace, sweeps: int) -> Marked:
    if sweeps > 1 and (table.sweeps < 0).any():
        raise UsageError(
            f"{trace.recording} has {sweeps} sweeps, and the table of events no column sweep: add "
            'one, or choose a sweep, such as --sweeps "0".'
        )
    own = np.ones(len(table.times_s), np.bool_)
    for column, value in ((table.recordings, trace.recording), (table.channels, trace.channel)):
        own &= (column == "") | (column == value)
    own &= (table.sweeps < 0) | (table.sweeps == trace.sweep)
    times = np.sort(table.times_s[own])
    outside = times[(times < trace.start_s) | (times > trace.stop_s)]
    if len(outside):
        raise UsageError(
            f"{trace.recording}, sweep {trace.sweep}: an event at {outside[0]:g} s lies outside "
            f"{trace.start_s:g} to {trace.stop_s:g} s; times are seconds on the sweep's clock."
        )
    return Marked(trace=trace, times_s=times, steepest=table.steepest)


# What the events are like ------------------------------------------------------------------------


def marked_polarity(marked: Sequence[Marked], window_ms: float) -> str:
    """Which way marked events point: "positive" or "negative", from the average event."""
    trace = marked[0].trace
    alike = [one for one in marked if one.trace.rate_hz == trace.rate_hz]
    windows = np.concatenate([_looks(one, _look_samples(trace, window_ms)) for one in alike])
    return polarity(
        Dataset(
            windows=windows,
            scores=np.full(len(windows), EVENT, np.int8),
            rate_hz=trace.rate_hz,
            unit=trace.unit,
        )
    )


def _look_samples(trace: Trace, window_ms: float) -> int:
    return max(round(window_ms * trace.rate_hz / 1e3), _SHORTEST)


def _looks(one: Marked, width: int) -> Array:
    """Windows (n, width) around the events of a trace, as far as they lie in it."""
    starts = one.at - round(_BEFORE * width)
    starts = starts[(starts >= 0) & (starts + width <= len(one.trace))]
    windows: Array = one.trace.samples[starts[:, None] + np.arange(width)]
    return windows


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What marked events have in common: the window that fits them (ms), onset to peak and width
    at half height (ms)."""

    fitting_ms: float
    rise_ms: float
    half_width_ms: float


def settled(marked: Sequence[Marked], sign: int, window_ms: float) -> tuple[list[Marked], Shape]:
    """The same with times moved to the steepest rises, and what the events have in common.

    sign: by which events are turned upward. window_ms: a first guess of what fits an event. Raises
    UsageError for fewer than five events, or where none can be measured.
    """
    count = sum(len(one.times_s) for one in marked)
    if count < _FEWEST:
        raise UsageError(f"{count} events are listed; {_FEWEST} at least are needed, better fifty.")
    for _ in range(2):  # the first look may be through too short or too long a window
        moved = [at_steepest(one, sign, window_ms) for one in marked]
        parts = [_measured(one, sign, window_ms) for one in moved if len(one.times_s)]
        half_decay, half_width, rise, disturbed = map(np.concatenate, zip(*parts, strict=True))
        fitting = fitting_window_ms(half_decay, disturbed)
        if fitting is None:
            raise UsageError(
                f"none of the {count} events listed can be measured: are times in seconds, and do "
                f"events point {'up' if sign > 0 else 'down'}? Give --direction or --window-ms."
            )
        window_ms = fitting
    shape = Shape(
        fitting_ms=window_ms,
        rise_ms=float(np.nanmedian(rise)),
        half_width_ms=float(np.nanmedian(half_width)),
    )
    return moved, shape


def at_steepest(one: Marked, sign: int, window_ms: float) -> Marked:
    """Times of the steepest rise near each mark, nearer to it than to any other mark."""
    if one.steepest:
        return one
    trace, width = one.trace, _look_samples(one.trace, window_ms)
    at, reach = one.at, round(_NEAR * width)
    middles = (at[1:] + at[:-1]) // 2
    firsts = np.maximum(at - reach, np.r_[0, middles])
    lasts = np.minimum(at + reach + 1, np.r_[middles, len(trace)])
    weights = sign * slope_weights(width)
    found, _ = steepest_rises(fill_missing(trace.samples), weights, firsts, lasts)
    times_s = trace.start_s + found / trace.rate_hz
    return replace(one, times_s=times_s, steepest=True)


def _measured(
    one: Marked, sign: int, window_ms: float
) -> tuple[Floats, Floats, Floats, NDArray[np.bool_]]:
    """Half-decay, width at half height and time from onset to peak (ms), and whether disturbed."""
    trace, upward = one.trace, np.float32(sign) * one.trace.samples
    found = measure(upward, trace.rate_hz, one.at, _look_samples(trace, window_ms))
    rise_ms = 1e3 * (found.peak - found.onset) / trace.rate_hz
    return found.half_decay_ms, found.half_width_ms, rise_ms, found.overlap | found.edge


# Pieces ------------------------------------------------------------------------------------------


def marked_pieces(
    marked: Sequence[Marked],
    card: Card,
    shape: Shape,
    *,
    window_ms: float,
    direction: str,
    copies: int,
    seed: int,
) -> Pieces:
    """Labelled pieces that cover every trace `copies` times, each time cut and scaled anew.

    marked: as `settled` gives them. Labels are the class of the events, as far from each steepest
    rise as the events' own rise and width say; weights are 0 a little farther, in what is excluded
    or missing, and beyond the ends.
    """
    rng = np.random.default_rng((seed, copies))
    sign = SIGNS[direction] * SIGNS[card.polarity]
    parts = [
        _cut(*labelled, rng)
        for labelled in (_labelled(one, card, shape, window_ms, sign) for one in marked)
        for _ in range(copies)
    ]
    return joined(parts)


def _labelled(
    one: Marked, card: Card, shape: Shape, window_ms: float, sign: int
) -> tuple[Array, NDArray[np.uint8], NDArray[np.uint8]]:
    """Samples on the network's grid, and a label and a weight for each whole hop of them."""
    trace = one.trace
    grid = on_grid(trace, card, window_samples(trace, card, window_ms), sign)
    rises = (one.times_s - trace.start_s) * grid.rate_hz
    per_ms = 1e-3 * grid.rate_hz
    reach = reach_of(shape.rise_ms * per_ms, shape.half_width_ms * per_ms)
    count = len(rises)
    stretch = Stretch(
        samples=grid.samples,
        rises=np.rint(rises).astype(np.int64),
        detectability=np.full(count, np.inf),
        reach=np.full(count, reach),
        size=np.ones(count),
        width=np.full(count, 1e-3 * shape.half_width_ms * grid.rate_hz),
    )
    labels, weights = label_hops(stretch)
    middles = (HOP * np.arange(len(labels)) + HOP / 2) * trace.rate_hz / grid.rate_hz
    weights[~trace.wanted()[np.minimum(middles.astype(np.int64), len(trace) - 1)]] = 0
    return grid.samples, labels, weights


def _cut(
    samples: Array,
    labels: NDArray[np.uint8],
    weights: NDArray[np.uint8],
    rng: np.random.Generator,
) -> Pieces:
    """A trace in pieces from a random hop on; its mirror image, without weight, fills them up."""
    hops = len(labels)
    read = scaled(samples, draw_gain(rng))[: HOP * hops].astype(np.float16)
    wide = np.pad(read, PIECE, mode="symmetric")
    beyond = PIECE // HOP
    known, counted = (np.pad(column, beyond) for column in (labels, weights))
    step = beyond - beyond // 8  # ends of a piece do not count
    firsts = range(int(rng.integers(beyond // 2, beyond)), hops + step, step)
    pieces = Pieces(
        np.stack([wide[HOP * f : HOP * f + PIECE] for f in firsts]),
        np.stack([known[f : f + beyond] for f in firsts]),
        np.stack([counted[f : f + beyond] for f in firsts]),
    )
    return pieces.at(pieces.weights.any(axis=1))


def held_back(marked: Sequence[Marked], share: float) -> tuple[list[Marked], list[Marked]]:
    """Every trace in two parts: what comes first, and the last `share` of it."""
    first, last = [], []
    for one in marked:
        cut_s = one.trace.stop_s - share * one.trace.duration_s
        before = one.times_s < cut_s
        first.append(
            replace(one, trace=one.trace.between(None, cut_s), times_s=one.times_s[before])
        )
        last.append(
            replace(one, trace=one.trace.between(cut_s, None), times_s=one.times_s[~before])
        )
    return first, last

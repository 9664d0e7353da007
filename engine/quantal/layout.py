"""What a report shows: the traces of one channel end to end, and stretches worth a closer look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.errors import UsageError
from quantal.events import REJECTED, Events
from quantal.trace import Trace

Floats = NDArray[np.float64]
Levels = NDArray[np.floating[Any]]

_STRETCHES = 3
PER_STRETCH = 14  # events that an eye takes in at once
_NARROWEST, _WIDEST = 60, 400  # a stretch in half-widths of an event: so wide is one still seen
_FAINT = 0.05  # the part of events that is looked at because they are the least certain
LEAST_CERTAIN = "least certain (with scores)"


@dataclass(frozen=True, eq=False, kw_only=True)
class Piece:
    """A trace, its events in order of time, and what to add to its clock in the overview."""

    trace: Trace
    events: Events
    shift_s: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Strip:
    """The traces of one channel end to end, their events, and the levels between which they lie.

    others: traces that are not drawn, being of other channels.
    """

    pieces: tuple[Piece, ...]
    events: Events
    others: int
    limits: tuple[float, float]

    @property
    def found(self) -> Events:
        """The events that are not rejected."""
        return self.events[self.events.status != REJECTED]

    @property
    def unit(self) -> str:
        """What to write at the axes."""
        return legible(self.pieces[0].trace.unit) or "unknown unit"

    @property
    def span(self) -> tuple[float, float]:
        """Where the strip begins and ends (s)."""
        first, last = self.pieces[0], self.pieces[-1]
        return first.trace.start_s + first.shift_s, last.trace.stop_s + last.shift_s


@dataclass(frozen=True, eq=False, kw_only=True)
class Stretch:
    """A part of one piece to look at closely, and why."""

    piece: Piece
    start_s: float
    stop_s: float
    why: str


def lay_out(traces: Sequence[Trace], events: Events) -> Strip:
    """Put the traces of the first one's channel end to end; raises UsageError if all are empty."""
    filled = [trace for trace in traces if len(trace)]
    if not filled:
        raise UsageError("there is nothing to draw: give at least one trace that holds samples.")
    channel, unit = filled[0].channel, filled[0].unit
    drawn = [trace for trace in filled if (trace.channel, trace.unit) == (channel, unit)]
    rows_of = _rows_by_sweep(events)
    pieces: list[Piece] = []
    chosen: list[NDArray[np.int64]] = []
    stop_s = drawn[0].start_s  # a single sweep keeps its own clock
    for trace in drawn:
        rows = rows_of.get((trace.recording, trace.channel, trace.sweep), np.empty(0, np.int64))
        rows = rows[np.argsort(events.location_s[rows], kind="stable")]
        times = events.location_s[rows]
        rows = rows[(times >= trace.start_s) & (times <= trace.stop_s)]
        chosen.append(rows)
        pieces.append(Piece(trace=trace, events=events[rows], shift_s=stop_s - trace.start_s))
        stop_s += trace.duration_s
    together = events[np.concatenate(chosen)]
    return Strip(
        pieces=tuple(pieces),
        events=together,
        others=len(filled) - len(drawn),
        limits=limits_of(drawn, together),
    )


def _rows_by_sweep(events: Events) -> dict[tuple[str, str, int], NDArray[np.int64]]:
    rows: dict[tuple[str, str, int], list[int]] = {}
    keys = zip(
        events.recording.tolist(), events.channel.tolist(), events.sweep.tolist(), strict=True
    )
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    return {key: np.array(values, np.int64) for key, values in rows.items()}


def limits_of(traces: Sequence[Trace], events: Events) -> tuple[float, float]:
    """Levels between which the signal lies; a test pulse or an artefact must not flatten it."""
    step = max(sum(map(len, traces)) // 200_000, 1)
    samples = np.concatenate([trace.samples[::step][_wanted(trace, step)] for trace in traces])
    peaks = events.baseline + events.amplitude
    ranges = [fenced(samples, 8.0), fenced(events.baseline, 12.0), fenced(peaks, 12.0)]
    low = min((low for low, _ in ranges if np.isfinite(low)), default=0.0)
    high = max((high for _, high in ranges if np.isfinite(high)), default=0.0)
    if not high > low:
        return low - 1.0, low + 1.0
    height = high - low
    extremes = _extremes(traces)
    if low > extremes[0] > low - 0.5 * height:
        low = extremes[0]
    if high < extremes[1] < high + 0.5 * height:
        high = extremes[1]
    return low - 0.08 * height, high + 0.08 * height


def _extremes(traces: Sequence[Trace]) -> tuple[float, float]:
    """The lowest and highest wanted sample, inf and -inf if there is none."""
    low, high = np.inf, -np.inf
    for trace in traces:
        wanted = trace.unwanted().rest(len(trace))
        for start, stop in zip(wanted.starts, wanted.stops, strict=True):
            part = trace.samples[start:stop]
            low, high = min(low, float(part.min())), max(high, float(part.max()))
    return low, high


def _wanted(trace: Trace, step: int) -> NDArray[np.bool_]:
    """Whether every step-th sample can hold an event."""
    return ~trace.unwanted().hold(np.arange(0, len(trace), step))


def fenced(values: Levels, quartiles: float) -> tuple[float, float]:
    """The range of values less those beyond so many quartile distances; nan if there are none."""
    finite = values[np.isfinite(values)].astype(np.float64)
    if not len(finite):
        return np.nan, np.nan
    q25, q50, q75 = np.quantile(finite, [0.25, 0.5, 0.75])
    if q75 > q25:
        finite = finite[np.abs(finite - q50) <= quartiles * (q75 - q25)]
        return float(finite.min()), float(finite.max())
    # mostly one and the same level, as where a sweep was filled up
    low, high = fenced(finite[finite != q50], quartiles)
    return float(np.fmin(low, q50)), float(np.fmax(high, q50))


def median(values: Floats) -> float:
    """The median of what could be measured, nan if nothing could."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else np.nan


# Which stretches are looked at


@dataclass(frozen=True, eq=False, kw_only=True)
class _Candidates:
    """Stretches of equal length: their piece, start, number of events and of the faintest ones."""

    piece: NDArray[np.int64]
    start_s: Floats
    events: NDArray[np.int64]
    faint: NDArray[np.int64]

    def near(self, chosen: int, span_s: float) -> NDArray[np.bool_]:
        """Which of them overlap one of them."""
        apart_s = np.abs(self.start_s - self.start_s[chosen])
        near: NDArray[np.bool_] = (self.piece == self.piece[chosen]) & (apart_s < 0.99 * span_s)
        return near


def choose_stretches(strip: Strip) -> list[Stretch]:
    """The busiest stretch, a typical one, and the one with most of the least certain events."""
    span_s = _span(strip)
    candidates = _candidates(strip, span_s)
    free = np.ones(len(candidates.start_s), np.bool_)
    chosen: list[tuple[int, int, Stretch]] = []
    for place, why, cost in _wishes(strip, candidates):
        if not free.any():
            break
        best = int(np.argmin(np.where(free, cost, np.inf)))
        free &= ~candidates.near(best, span_s)
        piece = strip.pieces[candidates.piece[best]]
        start_s = float(candidates.start_s[best])
        stop_s = min(start_s + span_s, piece.trace.stop_s)
        empty = not candidates.events[best]
        stretch = Stretch(
            piece=piece, start_s=start_s, stop_s=stop_s, why="without events" if empty else why
        )
        chosen.append((int(empty), place, stretch))
    chosen.sort(key=lambda entry: entry[:2])
    return [stretch for *_, stretch in chosen]


def _wishes(strip: Strip, candidates: _Candidates) -> list[tuple[int, str, Floats]]:
    """What the stretches are to show, most wanted first: row, name, and each candidate's cost."""
    order = np.arange(len(candidates.start_s)) / len(candidates.start_s)
    if not len(strip.found):
        return [(k, "", np.abs(order - (2 * k + 1) / 6)) for k in range(_STRETCHES)]
    filled = candidates.events[candidates.events > 0]
    usual = np.median(filled) if len(filled) else 0.0
    unusual = np.abs(candidates.events - usual) + 0.5 * np.abs(order - 0.5)
    name = LEAST_CERTAIN if _by_score(strip.found) else "smallest events"
    return [
        (2, name, -candidates.faint.astype(np.float64)),
        (0, "busiest", -candidates.events.astype(np.float64)),
        (1, "typical", unusual),
    ]


def _by_score(events: Events) -> bool:
    """Whether scores can tell certain events from others."""
    return bool(np.isfinite(events.score).all()) and len(np.unique(events.score)) > 1


def _span(strip: Strip) -> float:
    """Seconds that show some events, each wide enough to be seen."""
    longest = max(piece.trace.duration_s for piece in strip.pieces)
    width_s = median(strip.found.half_width_ms) / 1000
    if not width_s > 0:
        return min(longest, 20_000 / strip.pieces[0].trace.rate_hz)
    interval_s = median(strip.found.interval_s)
    wanted_s = PER_STRETCH * interval_s if interval_s > 0 else np.inf
    return float(min(longest, np.clip(wanted_s, _NARROWEST * width_s, _WIDEST * width_s)))


def _candidates(strip: Strip, span_s: float) -> _Candidates:
    """Stretches of all pieces, each half overlapping the next, without those mostly unsearched."""
    by_score = _by_score(strip.found)
    certainty = strip.found.score if by_score else np.abs(strip.found.amplitude)
    faint_below = np.sort(certainty)[: max(round(_FAINT * len(certainty)), 1)].max(initial=-np.inf)
    parts, searched = [], []
    for k, piece in enumerate(strip.pieces):
        first_s, last_s = piece.trace.start_s, piece.trace.stop_s - span_s
        start_s = np.arange(first_s, max(last_s, first_s + 1e-9 * span_s), span_s / 2)
        found = piece.events[piece.events.status != REJECTED]
        certainty = found.score if by_score else np.abs(found.amplitude)
        faint_s = found.location_s[certainty <= faint_below]
        parts.append(
            (
                np.full(len(start_s), k),
                start_s,
                _count(found.location_s, start_s, span_s),
                _count(faint_s, start_s, span_s),
            )
        )
        searched.append(_searched(piece.trace, start_s, span_s))
    piece_of, start_s, events, faint = (np.concatenate(p) for p in zip(*parts, strict=True))
    use = np.concatenate(searched) >= 0.8
    use = use if use.any() else np.ones_like(use)
    return _Candidates(
        piece=piece_of[use], start_s=start_s[use], events=events[use], faint=faint[use]
    )


def _count(times_s: Floats, start_s: Floats, span_s: float) -> NDArray[np.int64]:
    counts = np.searchsorted(times_s, start_s + span_s) - np.searchsorted(times_s, start_s)
    return np.asarray(counts, np.int64)


def _searched(trace: Trace, start_s: Floats, span_s: float) -> Floats:
    """The part of every stretch that is recorded and not excluded, 0 to 1, coarsely."""
    step = max(int(span_s * trace.rate_hz / 64), 1)
    seen = np.concatenate([[0], np.cumsum(_wanted(trace, step))])
    position = (start_s - trace.start_s) * trace.rate_hz / step
    first = np.clip(np.round(position), 0, len(seen) - 1).astype(np.int64)
    last = np.round(position + span_s * trace.rate_hz / step)
    last = np.clip(last, 0, len(seen) - 1).astype(np.int64)
    return np.asarray((seen[last] - seen[first]) / np.maximum(last - first, 1), np.float64)


def legible(text: str, longest: int = 90) -> str:
    """Text for one line: a name may hold anything."""
    line = "".join(c if c.isprintable() else " " for c in text).strip()
    return line if len(line) <= longest else line[: longest - 3] + "..."

"""What reads one channel while it is recorded: a lane for each direction of its events.

A lane takes samples and scores in pieces, and carries on from piece to piece what is not decided
yet; a channel puts the events of its lanes in order of time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.blocks import Blocks, core_samples
from quantal.detect import Settings, event_columns
from quantal.events import FOUND, Events, make_events
from quantal.kinetics import Chain
from quantal.locate import rises, slope_weights
from quantal.model import Card
from quantal.noise import WAIT, Gaps
from quantal.peaks import PointFinder, Points
from quantal.scan import SIGNS, window_at
from quantal.tail import Tail
from quantal.trace import refuse_offset
from quantal.waveform import AHEAD, BEHIND

Samples = NDArray[np.float32]
Columns = dict[str, NDArray[Any]]
_REMEMBERED = 14  # windows for which the decay of an event may matter to those after it
_FAR = 1 << 60  # a sample that no trace reaches


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What all lanes share: lengths in samples of the trace."""

    card: Card
    settings: Settings
    rate_hz: float
    unit: str
    start_s: float
    window: int
    measured: int
    core: int
    weights: NDArray[np.float64] = field(repr=False)

    @classmethod
    def of(
        cls,
        card: Card,
        settings: Settings,
        rate_hz: float,
        block_ms: float,
        unit: str,
        start_s: float,
    ) -> Plan:
        """From the settings; raises UsageError if the window has too few samples."""
        window = window_at(rate_hz, card, settings.window_ms)
        told = settings.measure_ms
        smoothing = None if settings.smooth_ms is None else settings.smooth_ms * rate_hz / 1000
        grid_hz = rate_hz * card.window_samples / window
        return cls(
            card=card,
            settings=settings,
            rate_hz=rate_hz,
            unit=unit,
            start_s=start_s,
            window=window,
            measured=window if told is None else round(told * rate_hz / 1000),
            core=core_samples(card, round(block_ms * grid_hz / 1000)),
            weights=slope_weights(window, smoothing),
        )

    @property
    def per_sample(self) -> float:
        """Samples of the trace to one of the network's grid."""
        return self.window / self.card.window_samples

    @property
    def search(self) -> float:
        """How far from a peak of the scores its event may rise steepest."""
        return self.card.search_samples * self.per_sample

    @property
    def begun_s(self) -> float:
        """What must have come after an event's rise for it to be expected: half a window."""
        return self.window / 2 / self.rate_hz

    @property
    def delay_s(self) -> float:
        """From an event to its report, at most."""
        reached = self.core + self.card.margin_samples + WAIT + 25  # and the resampling filter
        ahead = 2 * self.search + AHEAD * self.measured
        return (reached * self.per_sample + ahead) / self.rate_hz


@dataclass(frozen=True, kw_only=True)
class _Rise:
    """An event before it is measured: where it rises steepest, how steeply, and its score."""

    location: int
    slope: float
    score: float


class Lane:
    """One channel searched one way, with all that is carried from piece to piece.

    missing: samples so far. starts: of gaps, and how many there have been. settled: the sample
    before which nothing more is to come.
    """

    def __init__(self, plan: Plan, sign: int) -> None:
        self.missing = 0
        self.starts: Tail[np.int64] = Tail(np.int64)
        self.settled = 0
        self._plan, self._sign = plan, sign
        card = plan.card
        self._blocks = Blocks(card, plan.window, sign * SIGNS[card.polarity], plan.core)
        self._finder = PointFinder(plan.settings.threshold)
        self._raw: Tail[np.float32] = Tail(np.float32)
        self._gaps = Gaps()
        self._filled: Tail[np.float32] = Tail(np.float32)
        self._lost_last = False
        self._scored = 0
        self._points: list[tuple[float, float]] = []  # position and height of scores' peaks
        self._rises: list[_Rise] = []
        self._held: _Rise | None = None  # the last one, which a steeper one close by would replace
        self._score: list[float] = []
        self._chain = Chain(
            plan.rate_hz, plan.measured, sign=sign, smooth_ms=plan.settings.smooth_ms
        )

    def push(self, samples: Samples) -> Iterator[Samples | None]:
        """The blocks that these samples complete; None for one of which nothing is there."""
        lost = ~np.isfinite(samples)
        if lost.any():
            begins = np.flatnonzero(lost & ~np.r_[self._lost_last, lost[:-1]])
            self.starts.add(self._raw.stop + begins)
            self.missing += int(lost.sum())
        self._lost_last = bool(lost[-1]) if len(lost) else self._lost_last
        self._raw.add(samples)
        self._filled.add(self._gaps.push(samples)[0])
        for block in self._blocks.push(samples):
            yield None if self._blocks.is_missing else block

    def finish(self) -> Iterator[Samples]:
        """The last blocks."""
        self._filled.add(self._gaps.finish()[0])
        return self._blocks.finish()

    def take(self, scores: Samples) -> None:
        """The scores of the next block."""
        values = self._blocks.kept(scores, self._scored)
        self._scored += len(values)
        self._add_points(self._finder.push(values))

    def decided(self, *, ended: bool) -> Columns | None:
        """Columns of the events that are decided by what has come; None if there is no event.

        `location` is where they rise steepest, in samples.
        """
        if ended:
            self._add_points(self._finder.finish())
        frontier = self._locate(ended)
        self._tell_apart(frontier)
        settled = self._held.location if self._held else frontier
        columns = self._measure(settled)
        waiting = self._chain.waiting
        self.settled = min(settled, int(waiting[0])) if len(waiting) else settled
        self._forget(settled)
        return columns

    def _add_points(self, points: Points) -> None:
        self._points += zip(points.position.tolist(), points.height.tolist(), strict=True)

    def _around(self, position: float) -> tuple[int, int]:
        """Samples from and to which the event of a score is sought, as far as there are any."""
        plan, card = self._plan, self._plan.card
        middle = (card.reference_sample % card.stride + card.stride * position) * plan.per_sample
        start, stop = math.floor(middle - plan.search), math.ceil(middle + plan.search) + 1
        return max(start, 0), min(stop, self._raw.stop)

    def _locate(self, ended: bool) -> int:
        """Locate what has its samples; the sample before which nothing more is to come."""
        half = len(self._plan.weights) // 2
        reached = _FAR if ended else self._filled.stop - half
        ready = 0
        while ready < len(self._points) and self._around(self._points[ready][0])[1] <= reached:
            ready += 1
        if ready:
            positions, heights = zip(*self._points[:ready], strict=True)
            starts, stops = np.array([self._around(p) for p in positions], np.int64).T
            at, slopes = rises(
                self._filled.values,
                self._sign * self._plan.weights,
                np.ascontiguousarray(starts),
                np.ascontiguousarray(stops),
                self._filled.first,
            )
            self._rises += [
                _Rise(location=a, slope=b, score=c)
                for a, b, c, full in zip(
                    at.tolist(), slopes.tolist(), heights, stops > starts, strict=True
                )
                if full
            ]
            del self._points[:ready]
        if self._points:
            return self._around(self._points[0][0])[0]
        return _FAR if ended else self._around(self._finder.settled)[0]

    def _tell_apart(self, frontier: int) -> None:
        """Of rises that are close keep the steeper, as far as no other can come between."""
        closest = max(self._plan.window // 100, 1)
        self._rises.sort(key=lambda rise: rise.location)
        while self._rises and self._rises[0].location < frontier:
            rise = self._rises.pop(0)
            if self._held is None or rise.location - self._held.location >= closest:
                self._keep(self._held)
                self._held = rise
            elif rise.slope > self._held.slope:
                self._held = rise
        if self._held is not None and frontier - self._held.location >= closest:
            self._keep(self._held)
            self._held = None

    def _keep(self, rise: _Rise | None) -> None:
        if rise is not None and np.isfinite(self._raw.part(rise.location)[0]):
            self._chain.add(np.array([rise.location]))
            self._score.append(rise.score)

    def _measure(self, settled: int) -> Columns | None:
        """Columns of the events around which nothing more is to come."""
        plan = self._plan
        reach = int(AHEAD * plan.measured)
        waiting = self._chain.waiting
        count = int(np.searchsorted(waiting, settled - reach, side="right"))
        if not count:
            return None
        location = waiting[:count]
        measures = self._chain.measure(self._raw.values, count, self._raw.first)
        score, self._score = self._score[:count], self._score[count:]
        columns = event_columns(measures, plan.start_s, plan.rate_hz, self._sign)
        return {
            **{name: np.asarray(values) for name, values in columns.items()},
            "location": self._steepest(measures.steepest, location),
            "score": np.array(score),
        }

    def _steepest(
        self, steepest: NDArray[np.float64], location: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        inside = (steepest >= 0) & (steepest <= self._raw.stop - 1)
        nearest = np.rint(np.where(inside, steepest, location)).astype(np.int64)
        there = np.isfinite(self._raw.values[nearest - self._raw.first])
        return np.where(inside & there, steepest, location)

    def _forget(self, settled: int) -> None:
        """Keep no more samples than the events that are still to come need."""
        plan = self._plan
        waiting = self._chain.waiting
        first = min(settled, self._raw.stop, int(waiting[0]) if len(waiting) else _FAR)
        self._raw.forget(first - int(BEHIND * plan.measured) - 2)
        self._chain.forget(first - _REMEMBERED * plan.measured)
        pending = [start for start, _ in (self._around(p) for p, _ in self._points[:1])]
        first = min([self._around(self._finder.settled)[0], *pending])
        self._filled.forget(first - len(plan.weights))


class Channel:
    """One channel: what is found one way, or both ways, as one line of events."""

    def __init__(self, plan: Plan, name: str, signs: Sequence[int]) -> None:
        self.name = name
        self.lanes = [Lane(plan, sign) for sign in signs]
        self._plan = plan
        self._held: list[Columns] = []  # measured, and before them others may still come
        self._found = 0
        self._last: tuple[float, int] | None = None  # location, and gaps before, of the last event
        self._low, self._high = math.inf, -math.inf

    def look_at(self, samples: Samples, *, telling: bool) -> None:
        """Raise UsageError if these and those before, once they are telling, lie too far from 0."""
        known = samples[np.isfinite(samples)]
        if len(known):
            self._low = min(self._low, float(known.min()))
            self._high = max(self._high, float(known.max()))
        if telling:
            refuse_offset(self._low, self._high)

    def decided(self, *, ended: bool) -> Events | None:
        """The next events, in order of time; None if there is none yet."""
        parts = [lane.decided(ended=ended) for lane in self.lanes]
        self._held += [part for part in parts if part is not None]
        if not self._held:
            return None
        columns = {name: np.concatenate([p[name] for p in self._held]) for name in self._held[0]}
        order = np.argsort(columns["location"], kind="stable")
        columns = {name: values[order] for name, values in columns.items()}
        count = len(order)
        if len(self.lanes) > 1 and not ended:
            settled = min(lane.settled for lane in self.lanes) - self._plan.search
            count = int(np.searchsorted(columns["location"], settled))
        self._held = [{name: values[count:] for name, values in columns.items()}]
        if not count:
            return None
        return self._table({name: values[:count] for name, values in columns.items()}, count)

    def _table(self, columns: Columns, count: int) -> Events:
        location = columns.pop("location")
        self._found += count
        return make_events(
            {
                **columns,
                "event": np.arange(self._found - count, self._found),
                "location_s": self._plan.start_s + location / self._plan.rate_hz,
                "interval_s": self._intervals(location) / self._plan.rate_hz,
                "recording": "",
                "channel": self.name,
                "sweep": 0,
                "unit": self._plan.unit,
                "status": FOUND,
            },
            [],
        )

    def _intervals(self, location: NDArray[np.float64]) -> NDArray[np.float64]:
        """Samples since the event before; nan for the first, and across what is missing."""
        starts = self.lanes[0].starts
        gaps = starts.first + np.searchsorted(starts.values, np.rint(location), side="right")
        before, seen = (math.nan, 0) if self._last is None else self._last
        intervals = np.diff(location, prepend=before)
        intervals[np.diff(gaps, prepend=seen) > 0] = np.nan
        self._last = float(location[-1]), int(gaps[-1])
        for lane in self.lanes:
            lane.starts.forget(int(gaps[-1]))
        return intervals

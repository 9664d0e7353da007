"""Events while they are recorded: those of `detect`, each as soon as it can be decided."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal.blocks import Blocks, core_samples
from quantal.detect import Settings, event_columns, settle
from quantal.errors import UsageError
from quantal.events import FOUND, Events, Sweep, join, make_events, no_events
from quantal.kinetics import AHEAD, BEHIND, Chain
from quantal.locate import rises, slope_weights
from quantal.model import Card, Model, load_model
from quantal.noise import WAIT, Gaps
from quantal.peaks import PointFinder
from quantal.runtime import open_session
from quantal.scan import SIGNS, window_at
from quantal.tail import Tail
from quantal.trace import is_finite, refuse_offset

Samples = NDArray[np.float32]
Columns = dict[str, NDArray[Any]]
_BLOCK_MS = 25.0
_TOGETHER = 1 << 16  # samples, about, that the network reads at once: more needs only more memory
_REMEMBERED = 14  # windows for which the decay of an event may matter to those after it
_FAR = 1 << 60  # a sample that no trace reaches


class OnlineDetector:
    """Finds and measures events in samples as they come, in pieces of any size.

    The events are those that `detect` finds in the whole trace with the same settings, measure_ms
    among them; a trace shorter than the window, which it refuses, holds none. model: a trace
    network. rate_hz: of the samples. channels: how many are recorded at once, or their names; with
    more than one, a piece has shape (channels, n). window_ms, direction, threshold, smooth_ms,
    device, threads: as for `detect`. measure_ms: the window by which events are measured; None is
    window_ms. block_ms: the network reads so much at a time; shorter blocks answer sooner and cost
    more. start_s: time of the first sample.

    Raises UsageError, ModelError or MissingRuntimeError; each says what is allowed.
    """

    def __init__(
        self,
        model: str | Path | Model | None = None,
        *,
        rate_hz: float,
        unit: str = "pA",
        channels: int | Sequence[str] = 1,
        window_ms: float | None = None,
        direction: str | None = None,
        threshold: float | None = None,
        smooth_ms: float | None = None,
        measure_ms: float | None = None,
        block_ms: float = _BLOCK_MS,
        device: str = "auto",
        threads: int | None = 1,
        start_s: float = 0.0,
    ) -> None:
        loaded = load_model(model)
        if loaded.card.kind != "trace":
            raise UsageError(
                f"{loaded.card.name} reads windows; online detection needs a network that reads "
                "traces, such as minis."
            )
        settings = settle(
            loaded,
            window_ms=window_ms,
            direction=direction,
            threshold=threshold,
            smooth_ms=smooth_ms,
            measure_ms=measure_ms,
            device=device,
            threads=threads,
        )
        for name, value in (("rate_hz", rate_hz), ("block_ms", block_ms)):
            if not (is_finite(value) and value > 0):
                raise UsageError(f"{name} must be a positive number, got {value!r}.")
        names = _channel_names(channels)
        plan = _Plan.of(loaded.card, settings, float(rate_hz), block_ms, unit, start_s)
        ways = tuple(SIGNS) if settings.direction == "both" else (settings.direction,)
        self.settings = settings
        self._plan = plan
        self._session = open_session(loaded, settings.device, settings.threads)
        threads = self._session.threads
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._channels = [_Channel(plan, name, [SIGNS[way] for way in ways]) for name in names]
        self._samples = 0
        self._ended = False

    @property
    def delay_s(self) -> float:
        """The longest time from an event to its report, but for the first one and a half seconds.

        Events that follow each other without a gap may wait for one another.
        """
        return self._plan.delay_s

    def push(self, samples: ArrayLike) -> Events:
        """The events that these samples decide, those of one channel in order of time."""
        if self._ended:
            raise UsageError("the trace has ended: make another OnlineDetector for the next one.")
        pieces = self._checked(samples)
        self._samples += pieces.shape[1]
        if np.asarray(samples).dtype != np.float32:
            for channel, piece in zip(self._channels, pieces, strict=True):
                channel.look_at(piece, telling=self._samples > self._plan.rate_hz)
        self._score(
            (lane, block)
            for channel, piece in zip(self._channels, pieces, strict=True)
            for lane in channel.lanes
            for block in lane.push(piece)
        )
        return _events(self._channels, ended=False)

    @property
    def now_s(self) -> float:
        """The time at which the samples end that have been pushed."""
        return self._plan.start_s + self._samples / self._plan.rate_hz

    def provisional(self) -> Events:
        """The events that `finish` would add if the trace ended now; nothing is changed by it.

        Each is here long before `push` reports it, half a window after its rise, when little of it
        has been seen: some will not be reported, and numbers and measures still change. A call
        costs as much as pushing about 0.4 s.
        """
        if self._ended:
            return no_events([])
        channels = deepcopy(self._channels, {id(self._plan): self._plan})
        self._end(channels)
        events = _events(channels, ended=True)
        return events[events.location_s < self.now_s - self._plan.begun_s]

    def finish(self) -> Events:
        """The events that waited for more; `sweeps` says what was searched."""
        if not self._ended:
            self._ended = True
            self._end(self._channels)
            if self._pool is not None:
                self._pool.shutdown()
        sweeps = [
            Sweep(
                recording="",
                channel=channel.name,
                sweep=0,
                unit=self._plan.unit,
                analysed_s=(self._samples - channel.lanes[0].missing) / self._plan.rate_hz,
            )
            for channel in self._channels
        ]
        return join([_events(self._channels, ended=True), no_events(sweeps)])

    def _end(self, channels: Sequence[_Channel]) -> None:
        for lane in chain.from_iterable(channel.lanes for channel in channels):
            for block in lane.finish():  # these are of another length, and cannot share a batch
                self._score(iter([(lane, block)]))

    def _checked(self, samples: ArrayLike) -> Samples:
        pieces = np.asarray(samples)
        if pieces.dtype.kind not in "iuf":
            raise UsageError(f"samples must be real numbers, got {pieces.dtype}.")
        if pieces.ndim == 1 and len(self._channels) == 1:
            pieces = pieces[None]
        if pieces.ndim != 2 or len(pieces) != len(self._channels):
            wanted = "(n,)" if len(self._channels) == 1 else f"({len(self._channels)}, n)"
            raise UsageError(f"a piece must have shape {wanted}, got {np.shape(samples)}.")
        with np.errstate(over="ignore", invalid="ignore"):
            return np.ascontiguousarray(pieces, np.float32)

    def _score(self, blocks: Iterator[tuple[_Lane, Samples | None]]) -> None:
        """Run the network on blocks, of all channels together, and hand each lane its scores."""
        plan, threads = self._plan, self._session.threads
        size = plan.core + 2 * plan.card.margin_samples
        unseen = np.zeros(size // plan.card.stride, np.float32)
        few = max(_TOGETHER // size, 1) * threads
        while together := list(islice(blocks, few)):
            seen = [block for _, block in together if block is not None]
            share = math.ceil(len(seen) / threads) or 1
            parts = [np.stack(seen[k : k + share]) for k in range(0, len(seen), share)]
            scores = chain.from_iterable(
                (map if self._pool is None else self._pool.map)(self._run, parts)
            )
            for lane, block in together:
                lane.take(unseen if block is None else next(scores))

    def _run(self, blocks: Samples) -> Samples:
        return self._session.run_blocks(blocks, self._plan.card.stride)


@dataclass(frozen=True, kw_only=True)
class _Plan:
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
    ) -> _Plan:
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


class _Channel:
    """One channel: what is found one way, or both ways, as one line of events."""

    def __init__(self, plan: _Plan, name: str, signs: Sequence[int]) -> None:
        self.name = name
        self.lanes = [_Lane(plan, sign) for sign in signs]
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


def _events(channels: Sequence[_Channel], *, ended: bool) -> Events:
    """What the channels have decided."""
    decided = [channel.decided(ended=ended) for channel in channels]
    return join([events for events in decided if events is not None])


class _Lane:
    """One channel searched one way, with all that is carried from piece to piece.

    missing: samples so far. starts: of gaps, and how many there have been. settled: the sample
    before which nothing more is to come.
    """

    def __init__(self, plan: _Plan, sign: int) -> None:
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

    def _add_points(self, points: Any) -> None:
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
        pending = [start for start, _ in (self._around(p) for p, _ in self._points[:1])]
        first = min([self._around(self._finder.settled)[0], *pending])
        self._filled.forget(first - len(plan.weights))
        self._chain.forget(settled - _REMEMBERED * plan.measured)


def _channel_names(channels: int | Sequence[str]) -> list[str]:
    if isinstance(channels, int):
        if channels < 1:
            raise UsageError(f"channels must be 1 or more, got {channels}.")
        return [""] if channels == 1 else [str(k) for k in range(channels)]
    names = list(channels)
    if not names or len(set(names)) < len(names):
        raise UsageError(f"channels must have names of their own, got {names}.")
    return names

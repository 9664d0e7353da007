"""Events while they are recorded: those of `detect`, each as soon as it can be decided."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from itertools import chain, islice
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal.detect import settle
from quantal.errors import UsageError
from quantal.events import Events, Sweep, join, no_events
from quantal.lanes import Channel, Lane, Plan
from quantal.model import Model, load_model
from quantal.runtime import open_session
from quantal.scan import SIGNS, directions_of
from quantal.trace import is_finite

Samples = NDArray[np.float32]
_BLOCK_MS = 25.0
_TOGETHER = 1 << 16  # samples, about, that the network reads at once: more needs only more memory


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
        plan = Plan.of(loaded.card, settings, float(rate_hz), block_ms, unit, start_s)
        signs = [SIGNS[way] for way in directions_of(settings.direction)]
        self.settings = settings
        self._plan = plan
        self._session = open_session(loaded, settings.device, settings.threads)
        threads = self._session.threads
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._channels = [Channel(plan, name, signs) for name in names]
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

    def _end(self, channels: Sequence[Channel]) -> None:
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

    def _score(self, blocks: Iterator[tuple[Lane, Samples | None]]) -> None:
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


def _events(channels: Sequence[Channel], *, ended: bool) -> Events:
    """What the channels have decided."""
    decided = [channel.decided(ended=ended) for channel in channels]
    return join([events for events in decided if events is not None])


def _channel_names(channels: int | Sequence[str]) -> list[str]:
    if isinstance(channels, int):
        if channels < 1:
            raise UsageError(f"channels must be 1 or more, got {channels}.")
        return [""] if channels == 1 else [str(k) for k in range(channels)]
    names = list(channels)
    if not names or len(set(names)) < len(names):
        raise UsageError(f"channels must have names of their own, got {names}.")
    return names

"""The time scale of a recording, read from the recording itself: `window_ms="auto"`.

A trace network sees events of a wide range of durations at once. It is run over a part of the
recording at several time scales, each four times the one before, and both ways up; where the scores
add up to most, less those of the other way, for noise points either way, the events are of its
kind, and their decays say which window fits them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from quantal.errors import UsageError
from quantal.kinetics import DECAYS_IN_WINDOW, Measures, fitting_window_ms, measure
from quantal.model import Card, Model, load_model
from quantal.peaks import find_points
from quantal.runtime import cores
from quantal.scan import FEWEST, SIGNS, directions_of, scan, shortest_ms
from quantal.trace import Trace

log = logging.getLogger(__name__)

AUTO = "auto"
_GUIDE = "minis"  # looks for models that read windows
_SEARCHED = 1_500_000  # samples: half a minute at 50 kHz
_SEARCHED_OF_MANY = 200_000  # samples of the liveliest traces, where there are many
_EXTREME = 0.005  # of the samples of a trace, either side, tell how lively it is
_STEP = 4.0  # from one time scale to the next
_LARGEST_SHARE = 1 / 8  # of the trace, that a window may take
_SURE = 0.7  # score of an event that is counted
_MOST = 8.0  # that one event adds to the evidence, in units of the logit
_NEARLY = 0.9  # of the most evidence is as good
_ENOUGH = 5  # events, to say anything
_CLEAR = 2.2  # SDs by which events must outnumber what points the other way, or all are noise


@dataclass(frozen=True, kw_only=True)
class TimeScale:
    """A window (ms) and, in a sentence, why it was chosen."""

    window_ms: float
    why: str


@dataclass(frozen=True, kw_only=True)
class _Look:
    """What a trace network sees at one time scale: evidence, events and their decay (ms)."""

    window_ms: float
    evidence: float
    events: int
    decay_ms: float

    def less(self, other: _Look) -> _Look:
        """What is left once what points the other way is taken off: noise points either way."""
        more = self.events - other.events
        clear = more >= _CLEAR * math.sqrt(self.events + other.events)
        return replace(self, evidence=self.evidence - other.evidence, events=more if clear else 0)

    @property
    def misfit(self) -> float:
        """How far the window is from twelve decay constants, as a logarithm."""
        if not self.decay_ms > 0:
            return math.inf
        return abs(math.log(DECAYS_IN_WINDOW * self.decay_ms / self.window_ms))


@dataclass(frozen=True, eq=False, kw_only=True)
class _Seen:
    """What a trace network sees in one trace: the evidence of each event, and the sure ones."""

    evidence: NDArray[np.float64]
    events: int
    measures: Measures


def time_scale(
    traces: Trace | Sequence[Trace],
    model: Model | None,
    direction: str,
    device: str = "auto",
    threads: int | None = None,
    *,
    usual_ms: float | None = None,
) -> TimeScale:
    """The window for this model, or for a method without one, that fits the events of a trace.

    traces: one, or many of equal length and rate, whose events are pooled: the liveliest are read.
    direction: which way events point; with "both", the way with more evidence counts. A trace
    network keeps its own time scale where that is nearly as good as any. With fewer than five
    sure events it is usual_ms, or if that is None the card's window, or at low rates the shortest.

    Raises UsageError if the traces are too short for any window.
    """
    keeps = model is not None and model.card.kind == "trace"
    guide = model if model is not None and keeps else load_model(_GUIDE)
    own_ms = guide.card.window_ms if model is None else model.card.window_ms
    many = not isinstance(traces, Trace)
    parts = _liveliest(traces, direction) if not isinstance(traces, Trace) else [_part(traces)]
    windows = _windows(parts[0], guide.card)
    see = partial(_look, parts, guide, device=device, threads=threads)
    ways = directions_of(direction)
    seen = {(w, way): see(w, way) for w in windows for way in SIGNS}
    looks = [
        seen[window, way].less(seen[window, other])
        for window in windows
        for way, other in (tuple(SIGNS), tuple(SIGNS)[::-1])
        if way in ways
    ]
    for look in looks:
        log.debug("%s", look)
    most = max(look.evidence for look in looks)
    good = [look for look in looks if look.evidence >= _NEARLY * most and look.events >= _ENOUGH]
    if not good:
        return _untold(own_ms if usual_ms is None else usual_ms, parts[0].rate_hz)
    best = min(good, key=lambda look: look.misfit)
    if keeps:
        own = [look for look in good if look.window_ms == own_ms]
        best = own[0] if own else best
        window_ms = best.window_ms
    else:
        window_ms = float(np.clip(DECAYS_IN_WINDOW * best.decay_ms, windows[0], windows[-1]))
        window_ms = float(f"{window_ms:.2g}")
    where = f"{len(parts)} traces" if many else f"{parts[0].duration_s:.3g} s"
    why = f"{best.events} sure events of {best.decay_ms:.3g} ms decay in {where}"
    return TimeScale(window_ms=window_ms, why=why)


def _untold(usual_ms: float, rate_hz: float) -> TimeScale:
    """The window where events do not tell it: the usual one, if that has enough samples."""
    least_ms = shortest_ms(rate_hz)
    which = "the usual one" if usual_ms >= least_ms else f"the shortest one at {rate_hz:g} Hz"
    why = f"too few sure events to tell; {which}"
    return TimeScale(window_ms=max(usual_ms, least_ms), why=why)


def _liveliest(traces: Sequence[Trace], direction: str) -> list[Trace]:
    """As many traces as are searched, those first that reach furthest the way events point."""
    most = max(_SEARCHED_OF_MANY // max(len(traces[0]), 1), 1)
    if len(traces) <= most:
        return [_part(trace) for trace in traces]
    lively = [_liveliness(trace, direction) for trace in traces]
    chosen = np.sort(np.argsort(lively, kind="stable")[-most:])
    return [_part(traces[k]) for k in chosen]


def _liveliness(trace: Trace, direction: str) -> float:
    """How much further the samples reach one way (with "both", either way) than the other."""
    known = trace.samples[trace.wanted()]
    count = int(_EXTREME * len(known))
    if count < 1:
        return 0.0
    ordered = np.partition(known, (count, len(known) // 2, len(known) - 1 - count))
    down, up = (
        ordered[len(known) // 2] - ordered[count],
        ordered[-1 - count] - ordered[len(known) // 2],
    )
    if not (down > 0 and up > 0):
        return 0.0
    further = math.log(float(up) / float(down))
    return abs(further) if direction == "both" else SIGNS[direction] * further


def _part(trace: Trace) -> Trace:
    if len(trace) <= _SEARCHED:
        return trace
    return trace.between(trace.start_s, trace.start_s + _SEARCHED / trace.rate_hz)


def _windows(trace: Trace, card: Card) -> list[float]:
    """The windows (ms) to try: the card's own and those a power of four from it."""
    shortest = shortest_ms(trace.rate_hz)
    longest = _LARGEST_SHARE * trace.duration_s * 1e3
    low = math.ceil(math.log(shortest / card.window_ms, _STEP) - 1e-9)
    high = math.floor(math.log(max(longest, 1e-9) / card.window_ms, _STEP) + 1e-9)
    if high < low:
        raise UsageError(
            f"the trace ({1e3 * trace.duration_s:g} ms, {len(trace)} samples) is too short to tell "
            "the time scale of its events; give window_ms."
        )
    return [card.window_ms * _STEP**k for k in range(low, high + 1)]


def _look(
    parts: Sequence[Trace],
    model: Model,
    window_ms: float,
    direction: str,
    *,
    device: str,
    threads: int | None,
) -> _Look:
    workers = min(threads or cores(), len(parts))
    each = max((threads or cores()) // workers, 1)
    see = partial(
        _seen, model=model, window_ms=window_ms, direction=direction, device=device, threads=each
    )
    with ThreadPoolExecutor(workers) as pool:
        seen = list(pool.map(see, parts))
    measures = [one.measures for one in seen]
    fitting_ms = fitting_window_ms(
        np.concatenate([m.half_decay_ms for m in measures]),
        np.concatenate([m.overlap | m.edge for m in measures]),
    )
    return _Look(
        window_ms=window_ms,
        evidence=float(np.concatenate([one.evidence for one in seen]).sum()),
        events=sum(one.events for one in seen),
        decay_ms=math.nan if fitting_ms is None else fitting_ms / DECAYS_IN_WINDOW,
    )


def _seen(
    trace: Trace, *, model: Model, window_ms: float, direction: str, device: str, threads: int
) -> _Seen:
    scores = scan(
        trace, model, window_ms=window_ms, direction=direction, device=device, threads=threads
    )
    peaks = find_points(scores.values, model.card.threshold)
    at = (scores.first_sample + scores.stride * peaks.position) * trace.rate_hz / scores.rate_hz
    at = np.clip(np.rint(at), 0, len(trace) - 1).astype(np.int64)
    wanted = ~trace.unwanted().hold(at)
    height = np.clip(peaks.height[wanted], 1e-6, 1 - 1e-6)
    sure = at[wanted][height >= _SURE]
    window = max(round(window_ms * trace.rate_hz / 1e3), FEWEST)
    return _Seen(
        evidence=np.clip(np.log(height / (1 - height)), 0, _MOST),
        events=len(sure),
        measures=measure(
            trace.samples, trace.rate_hz, np.unique(sure), window, sign=SIGNS[direction]
        ),
    )

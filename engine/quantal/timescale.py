"""The time scale of a recording, read from the recording itself: `window_ms="auto"`.

A trace network sees events of a wide range of durations at once. It is run over a part of the
recording at several time scales, each four times the one before, and both ways up; where the scores
add up to most, less those of the other way, for noise points either way, the events are of its
kind, and their decays say which window fits them.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from quantal.errors import UsageError
from quantal.kinetics import DECAYS_IN_WINDOW, fitting_window_ms, measure
from quantal.model import Card, Model, load_model
from quantal.peaks import find_points
from quantal.scan import SIGNS, scan
from quantal.trace import Trace

log = logging.getLogger(__name__)

AUTO = "auto"
_GUIDE = "minis"  # looks for models that read windows
_SEARCHED = 1_500_000  # samples: half a minute at 50 kHz
_STEP = 4.0  # from one time scale to the next
_FEWEST, _LARGEST_SHARE = 20, 1 / 8  # samples in a window, and part of the trace that one may take
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


def time_scale(
    trace: Trace,
    model: Model | None,
    direction: str,
    device: str = "auto",
    threads: int | None = None,
) -> TimeScale:
    """The window for this model, or for a method without one, that fits the events of a trace.

    direction: which way events point; with "both", the way with more evidence counts. A trace
    network keeps its own time scale where that is nearly as good as any. With fewer than five
    sure events the card's window stays.

    Raises UsageError if the trace is too short for any window.
    """
    keeps = model is not None and model.card.kind == "trace"
    guide = model if model is not None and keeps else load_model(_GUIDE)
    own_ms = guide.card.window_ms if model is None else model.card.window_ms
    part = _part(trace)
    windows = _windows(part, guide.card)
    see = partial(_look, part, guide, device=device, threads=threads)
    ways = tuple(SIGNS) if direction == "both" else (direction,)
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
        return TimeScale(window_ms=own_ms, why="too few sure events to tell; the usual one")
    best = min(good, key=lambda look: look.misfit)
    if keeps:
        own = [look for look in good if look.window_ms == own_ms]
        best = own[0] if own else best
        window_ms = best.window_ms
    else:
        window_ms = float(np.clip(DECAYS_IN_WINDOW * best.decay_ms, windows[0], windows[-1]))
        window_ms = float(f"{window_ms:.2g}")
    why = f"{best.events} sure events of {best.decay_ms:.3g} ms decay in {part.duration_s:.3g} s"
    return TimeScale(window_ms=window_ms, why=why)


def _part(trace: Trace) -> Trace:
    if len(trace) <= _SEARCHED:
        return trace
    return trace.between(trace.start_s, trace.start_s + _SEARCHED / trace.rate_hz)


def _windows(trace: Trace, card: Card) -> list[float]:
    """The windows (ms) to try: the card's own and those a power of four from it."""
    shortest = _FEWEST / trace.rate_hz * 1e3
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
    trace: Trace,
    model: Model,
    window_ms: float,
    direction: str,
    *,
    device: str,
    threads: int | None,
) -> _Look:
    scores = scan(
        trace, model, window_ms=window_ms, direction=direction, device=device, threads=threads
    )
    peaks = find_points(scores.values, model.card.threshold)
    at = (scores.first_sample + scores.stride * peaks.position) * trace.rate_hz / scores.rate_hz
    at = np.clip(np.rint(at), 0, len(trace) - 1).astype(np.int64)
    wanted = ~trace.unwanted().hold(at)
    height = np.clip(peaks.height[wanted], 1e-6, 1 - 1e-6)
    sure = at[wanted][height >= _SURE]
    return _Look(
        window_ms=window_ms,
        evidence=float(np.clip(np.log(height / (1 - height)), 0, _MOST).sum()),
        events=len(sure),
        decay_ms=_decay_ms(trace, sure, window_ms, SIGNS[direction]),
    )


def _decay_ms(trace: Trace, at: NDArray[np.int64], window_ms: float, sign: int) -> float:
    """The decay constant of the events at these samples; nan without any that can be measured."""
    window = max(round(window_ms * trace.rate_hz / 1e3), _FEWEST)
    measures = measure(trace.samples, trace.rate_hz, np.unique(at), window, sign=sign)
    fitting_ms = fitting_window_ms(measures.half_decay_ms, measures.overlap | measures.edge)
    return math.nan if fitting_ms is None else fitting_ms / DECAYS_IN_WINDOW

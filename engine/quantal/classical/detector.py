"""What all detectors without a network share: the shape of an event, and the way to Scores."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from quantal.classical.stretches import bridged, find_stretches
from quantal.errors import UsageError
from quantal.filters import resample
from quantal.model import Card
from quantal.scan import SIGNS, Progress, Scores
from quantal.trace import Trace, is_finite

Samples = NDArray[np.float32]
Floats = NDArray[np.float64]

_RISES, _DECAYS = 60, 12  # time constants in a window
_LOOKED_AT = 10_000  # samples that tell how large they are
_REACH = 2**20  # of their median deviations: more than the steps of a converter
_SINGLE = (float(np.finfo(np.float32).min), float(np.finfo(np.float32).max))
_FAR = 40  # powers of two from 1, beyond which no unit of a laboratory lies


@dataclass(frozen=True, kw_only=True)
class Shape:
    """An event, (1 - exp(-t / rise)) exp(-t / decay) from its onset on; times in samples."""

    rise: float
    decay: float

    @property
    def level(self) -> int:
        """Samples whose mean says where the trace is, before or after an end."""
        return max(round(0.5 * self.decay), 1)

    @property
    def peak(self) -> float:
        """Samples from onset to peak."""
        return float(self.rise * np.log1p(self.decay / self.rise))

    def values(self, before: int, after: int) -> Floats:
        """The event with unit peak, from `before` samples before its onset to `after` after it."""
        return self._at(np.arange(-before, after, dtype=np.float64)) / self._highest()

    def spectrum(self, cycles: NDArray[np.floating]) -> NDArray[np.complex128]:
        """Fourier transform of the event of unit peak, its onset at 0; cycles per sample."""
        slow = 1 / self.decay + 2j * np.pi * cycles
        whole = 1 / slow - 1 / (slow + 1 / self.rise)
        return np.asarray(whole / self._highest(), np.complex128)

    def _highest(self) -> float:
        return float(self._at(np.array([self.peak]))[0])

    def _at(self, t: Floats) -> Floats:
        t = np.maximum(t, 0.0)
        return np.asarray(-np.expm1(-t / self.rise) * np.exp(-t / self.decay), np.float64)


def _moderate(samples: Samples) -> Samples:
    """The samples as sums can bear them: no score knows the unit, nor more than that one is huge.

    All are multiplied by a power of two where they are far from 1, and one that no converter could
    give beside the others is held at what it could; what is missing stays so.
    """
    some = samples[:: max(len(samples) // _LOOKED_AT, 1)]
    some = some[np.isfinite(some)].astype(np.float64)
    middle = float(np.median(some)) if len(some) else 0.0
    spread = float(np.median(np.abs(some - middle))) if len(some) else 0.0
    if not spread:
        return samples
    low, high = np.clip(middle + _REACH * spread * np.array([-1, 1]), *_SINGLE).astype(np.float32)
    beyond = ((samples < low) | (samples > high)) & np.isfinite(samples)
    if beyond.any():
        samples = np.where(beyond, np.clip(samples, low, high), samples)
    exponent = math.frexp(spread)[1]
    return samples if abs(exponent) < _FAR else np.ldexp(samples, -exponent).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Detector(ABC):
    """A way to score a trace for events of a known shape, without a network.

    tau_rise_ms, tau_decay_ms: time constants of the event, (1 - exp(-t / tau_rise)) exp(-t /
    tau_decay). None fits the window: tau_rise is 1/60 and tau_decay 1/12 of it.
    """

    name: ClassVar[str]
    threshold: ClassVar[float]  # that of the paper, in the unit of the scores
    highest: ClassVar[float] = np.inf  # a threshold lies below this
    resolution: ClassVar[int | None] = (
        None  # samples per tau_decay of its clock, if not the trace's
    )

    tau_rise_ms: float | None = None
    tau_decay_ms: float | None = None

    def fitted(self, window_ms: float) -> Self:
        """The detector with its time constants settled; raises UsageError if they make no sense."""
        rise = window_ms / _RISES if self.tau_rise_ms is None else self.tau_rise_ms
        decay = window_ms / _DECAYS if self.tau_decay_ms is None else self.tau_decay_ms
        for name, tau in (("tau_rise_ms", rise), ("tau_decay_ms", decay)):
            if not (is_finite(tau) and 0 < tau <= window_ms / 2):
                raise UsageError(
                    f"{name} must be above 0 and at most {window_ms / 2:g} ms (half the window), "
                    f"got {tau!r}; about {window_ms / _DECAYS:g} ms of decay suit this window."
                )
        return replace(self, tau_rise_ms=float(rise), tau_decay_ms=float(decay))

    @property
    def card(self) -> Card:
        """What a network's card would say of it."""
        return Card(name=f"the {self.name} detector", kind="trace", stride=1)

    def checked_threshold(self, threshold: float | None) -> float:
        """The threshold to use; raises UsageError if no score could be told by it."""
        threshold = self.threshold if threshold is None else threshold
        if not (is_finite(threshold) and 0 < threshold < self.highest):
            allowed = "be above 0" if self.highest == np.inf else f"lie in 0 to {self.highest:g}"
            raise UsageError(
                f"threshold must {allowed} for the {self.name} detector, got {threshold!r}; "
                f"try {self.threshold:g}."
            )
        return float(threshold)

    @property
    def search_ms(self) -> float:
        """How far the steepest rise of an event can lie from the peak of its score."""
        return self._taus()[0] + 0.5 * self._taus()[1]

    def scan(self, trace: Trace, direction: str, progress: Progress | None = None) -> Scores:
        """Score a trace for events that point one way, "negative" or "positive".

        What is missing scores nan and a flat stretch 0. Raises UsageError if the events are
        shorter than a sample.
        """
        shape = self._shape(trace.rate_hz)
        upward = _moderate(trace.samples) * np.float32(SIGNS[direction])
        flat = max(round(_DECAYS / 2 * shape.decay), 20)
        stretches = find_stretches(upward, max(round(shape.rise), 2), flat)
        up, down = self._clock(shape)
        parts = [resample(bridged(upward[a:b]), up, down) for a, b in stretches]
        values = np.zeros(-(-len(upward) * up // down), np.float32)
        rate_hz = trace.rate_hz * up / down
        scored = self._scored(parts, self._shape(rate_hz), progress or silent)
        for (start, _), part in zip(stretches, scored, strict=True):
            first = -(-start * up // down)
            kept = part[: len(values) - first]
            values[first : first + len(kept)] = kept
        values[np.flatnonzero(~np.isfinite(upward)) * up // down] = np.nan
        return Scores(
            values=values, first_sample=0, stride=1, rate_hz=rate_hz, start_s=trace.start_s
        )

    def _clock(self, shape: Shape) -> tuple[int, int]:
        """How many of its samples there are for how many of the trace's; never more."""
        up, down = _DECAYS * (self.resolution or 0), round(_DECAYS * shape.decay)
        return (up, down) if 0 < up < down else (1, 1)

    def _scored(self, parts: Sequence[Samples], shape: Shape, progress: Progress) -> list[Samples]:
        scored = self._score(parts, shape)
        progress(1, 1)
        return scored

    @abstractmethod
    def _score(self, parts: Sequence[Samples], shape: Shape) -> list[Samples]:
        """Scores of upward stretches without gaps or offset, a value for an onset at each sample.

        What is noise is judged by all of them.
        """

    def _taus(self) -> tuple[float, float]:
        if self.tau_rise_ms is None or self.tau_decay_ms is None:
            raise UsageError(f"fit the {self.name} detector to a window first: .fitted(window_ms).")
        return self.tau_rise_ms, self.tau_decay_ms

    def _shape(self, rate_hz: float) -> Shape:
        rise, decay = (tau * rate_hz / 1000 for tau in self._taus())
        if decay < 1:
            raise UsageError(
                f"a decay time constant of {1000 * decay / rate_hz:g} ms is shorter than a sample "
                f"at {rate_hz:g} Hz; give a longer tau_decay_ms or window_ms."
            )
        return Shape(rise=rise, decay=decay)


def silent(_done: int, _all: int) -> None:
    """In the place of progress that nobody wants to see."""


def settings_of(detector: type[Detector]) -> tuple[str, ...]:
    """The names of what can be set of a detector."""
    return tuple(f.name for f in fields(detector))

"""Optimal filtering: the shape of an event against the noise's own spectrum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from quantal.classical.detector import Detector, Samples, Shape
from quantal.classical.stretches import filtered, in_sds
from quantal.noise import robust_sd

Floats = NDArray[np.float64]

_WIDTH = 40  # decay time constants in a segment whose spectrum is taken
_SEGMENTS = 4_000  # that the spectrum is taken from, at most, spread over the recording
_FEWEST = 8  # segments without an event that make a spectrum of the noise alone
_EVENT = 4.0  # SDs of the filtered noise: a segment that reaches this may hold an event
_SOFTEST = 1e-6  # power, relative to the noise where events have theirs, that no noise falls below


@dataclass(frozen=True, kw_only=True)
class Matched(Detector):
    """Optimal filter, in the manner of MOD (Zhang et al. 2021, J Neurosci Methods 357:109194).

    MOD learns its Wiener filter from events that an expert marked; here the event's shape is known
    and the noise is learned, from the stretches of the recording that hold no event: the filter is
    the shape over the power spectrum of the noise. The score is in robust SD of the filtered
    trace. MOD's threshold comes with its marks; at 4.5, noise alone gives about one false event a
    minute where decays are of 1 ms.
    """

    name: ClassVar[str] = "matched"
    threshold: ClassVar[float] = 4.5

    def _score(self, parts: Sequence[Samples], shape: Shape) -> list[Samples]:
        width = 2 * (round(_WIDTH * shape.decay) // 2)
        segments = _segments(parts, width)
        power = noise_power(segments) if len(segments) else np.ones(width // 2 + 1)
        quiet = _without_events(segments, matched_weights(power, shape))
        if len(quiet) >= _FEWEST:
            power = noise_power(quiet)
        weights = matched_weights(power, shape)
        found = [filtered(part, weights, width // 2, shape.level) for part in parts]
        sd = robust_sd(np.concatenate([*found, np.empty(0, np.float32)]))
        return [in_sds(part, 0.0, sd) for part in found]


def noise_power(segments: Floats) -> Floats:
    """Power spectrum of segments (n, width): the median over them, at the rfft frequencies.

    Hann windows after each segment's mean is taken off; relative units.
    """
    from scipy.fft import rfft

    window = np.hanning(segments.shape[1] + 2)[1:-1]
    centred = segments - segments.mean(axis=1, keepdims=True)
    power = np.abs(rfft(centred * window, axis=1)) ** 2
    return np.asarray(np.median(power, axis=0), np.float64)


def matched_weights(power: Floats, shape: Shape) -> Floats:
    """Weights that find an event in noise of this power spectrum; the middle is its onset.

    Above the frequencies of the event the noise falls off as the recording's low-pass lets it; the
    events passed that too, which keeps frequencies out that hold neither. An offset counts nothing.
    """
    width = 2 * (len(power) - 1)
    event = shape.spectrum(np.fft.rfftfreq(width))
    energy = np.abs(event[1:]) ** 2
    level = float((power[1:] * energy).sum() / energy.sum())
    if not level > 0:
        level, power = 1.0, np.ones_like(power)
    relative = np.maximum(power / level, _SOFTEST)
    gain = np.conj(event) * np.sqrt(np.minimum(relative, 1.0)) / relative
    gain[0] = 0.0
    weights = np.roll(np.fft.irfft(gain, width), width // 2) * np.hanning(width + 1)[:-1]
    return np.asarray(weights - weights.mean(), np.float64)


def _segments(parts: Sequence[Samples], width: int) -> Floats:
    """Half-overlapping segments (n, width), evenly spread if there are more than needed."""
    starts = [
        (part, first) for part in parts for first in range(0, len(part) - width + 1, width // 2)
    ]
    step = max(-(-len(starts) // _SEGMENTS), 1)
    chosen = [part[first : first + width] for part, first in starts[::step]]
    return np.array(chosen, np.float64).reshape(-1, width)


def _without_events(segments: Floats, weights: Floats) -> Floats:
    """The segments in which the filter finds nothing."""
    from scipy.fft import irfft, rfft

    if not len(segments):
        return segments
    size = segments.shape[1]
    centred = segments - segments.mean(axis=1, keepdims=True)
    found = np.roll(irfft(rfft(centred, axis=1) * rfft(weights), size, axis=1), size // 2, axis=1)
    inner = found[:, size // 8 : -size // 8]
    sd = robust_sd(inner.ravel().astype(np.float32))
    return np.asarray(segments[np.abs(inner).max(axis=1) <= _EVENT * sd], np.float64)

"""The ideal observer: a whitened matched filter that is told the events and the noise.

Told the mean waveform of the events and the power spectrum of the noise, nothing does better in
Gaussian noise at telling where an event begins. What it has found it takes away before it looks
on, so that neither the flanks of a large event nor its neighbours count as events.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.simulate import fast_length, matched

Floats = NDArray[np.float64]

LOWEST = 2.5  # SD of the filtered noise below which nothing is looked at
CLOSEST_S = 0.5e-3  # between two events
SEPARATIONS_S = (CLOSEST_S, 2e-3, 5e-3)  # of which the best is chosen, like the threshold
_BLOCK = 4_096  # samples whose maximum is kept at hand
_TRIALS = 600  # thresholds, at most, among which the best one is chosen


@dataclass(frozen=True, eq=False, kw_only=True)
class Spectrum:
    """One-sided power density (unit^2/Hz) of a noise, at frequencies in Hz."""

    frequencies_hz: Floats
    density: Floats

    def at(self, frequencies_hz: Floats) -> Floats:
        """The density at other frequencies, between those known on straight lines."""
        return np.asarray(np.interp(frequencies_hz, self.frequencies_hz, self.density), np.float64)


def spectrum(pieces: Sequence[NDArray[Any]], rate_hz: float, segment: int) -> Spectrum:
    """Welch's estimate from stretches of noise alone, each at least a segment (samples) long."""
    from scipy.signal import welch

    total, weight, frequencies = np.zeros(segment // 2 + 1), 0, np.empty(0)
    for piece in pieces:
        frequencies, density = welch(np.asarray(piece, np.float64), rate_hz, nperseg=segment)
        total, weight = total + len(piece) * density, weight + len(piece)
    return Spectrum(frequencies_hz=frequencies, density=total / weight)


def filtered(
    samples: NDArray[Any], rate_hz: float, waveform: Floats, noise: Spectrum
) -> tuple[Floats, Floats]:
    """How likely the waveform starts at each sample, in SD of the noise; and an event's own trace.

    The latter, for an event of height 1, reaches a waveform's length to either side of its start.
    What is slower than the spectrum tells is left out.
    """
    n = fast_length(len(samples) + 2 * len(waveform))
    frequencies = np.asarray(np.fft.rfftfreq(n, 1 / rate_hz), np.float64)
    gain = np.conj(np.fft.rfft(waveform, n)) / noise.at(frequencies)
    gain[frequencies < noise.frequencies_hz[1]] = 0.0
    own = np.fft.irfft(np.fft.rfft(waveform, n) * gain, n)
    centred = np.asarray(samples, np.float64) - np.median(samples)
    found = np.fft.irfft(np.fft.rfft(centred, n) * gain, n)[: len(samples)]
    reach = len(waveform)
    response = np.r_[own[-reach:], own[: reach + 1]] / own[0]
    return found / np.sqrt(own[0] * rate_hz / 2), response


def explain(heights: Floats, response: Floats, closest: int) -> tuple[NDArray[np.int64], Floats]:
    """Starts and heights of events, the highest first, each taken away before the next is sought.

    What stays within `closest` samples of an event is no other event.
    """
    left = _Blocks(heights)
    reach = len(response) // 2
    starts: list[int] = []
    found: list[float] = []
    taken = np.zeros(len(heights), np.bool_)
    for _ in range(len(heights)):
        at, height = left.highest()
        if height < LOWEST:
            break
        first, last = max(at - reach, 0), min(at + reach + 1, len(heights))
        if taken[at]:  # the rest of an event unlike the mean
            left.lower(at, at + 1, np.array([height]))
            continue
        left.lower(first, last, height * response[first - at + reach : last - at + reach])
        taken[max(at - closest, 0) : at + closest + 1] = True
        starts.append(at)
        found.append(height)
    return np.array(starts, np.int64), np.array(found, np.float64)


class _Blocks:
    """Values whose largest is quickly found again after some of them were lowered."""

    def __init__(self, values: Floats) -> None:
        self.size = len(values)
        blocks = max(-(-len(values) // _BLOCK), 1)
        self.values = np.full((blocks, _BLOCK), -np.inf)
        self.values.ravel()[: len(values)] = values
        self.largest = self.values.max(axis=1)

    def highest(self) -> tuple[int, float]:
        """Where the largest value is, and how large."""
        block = int(self.largest.argmax())
        at = int(self.values[block].argmax())
        return block * _BLOCK + at, float(self.values[block, at])

    def lower(self, first: int, last: int, by: Floats) -> None:
        """Subtract from the values of a stretch."""
        self.values.ravel()[first:last] -= by
        blocks = slice(first // _BLOCK, (last - 1) // _BLOCK + 1)
        self.largest[blocks] = self.values[blocks].max(axis=1)


def apart(found_s: Floats, closest_s: float) -> NDArray[np.bool_]:
    """Which of events in falling order of height have no higher one within so many seconds."""
    kept = np.zeros(len(found_s), np.bool_)
    taken: list[float] = []  # in order of time
    for k, time_s in enumerate(found_s):
        i = bisect_left(taken, float(time_s))
        near = taken[max(i - 1, 0) : i + 1]
        if all(abs(time_s - other) >= closest_s for other in near):
            taken.insert(i, float(time_s))
            kept[k] = True
    return kept


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How the observer decides: height from which, and distance (s) at which events count."""

    threshold: float
    closest_s: float
    f1: float

    def of(self, found_s: Floats, heights: Floats, percent: float = 100.0) -> Floats:
        """The events (s) that it takes, in order, at so many per cent of the threshold."""
        kept = apart(found_s, self.closest_s) & (heights >= self.threshold * percent / 100)
        return np.sort(found_s[kept])


def best_choice(true_s: Floats, found_s: Floats, heights: Floats, *, tolerance_s: float) -> Choice:
    """The threshold and the distance that give the best F1; found events in falling height."""
    choices = []
    for closest_s in SEPARATIONS_S:
        kept = apart(found_s, closest_s)
        threshold, f1 = best_threshold(
            true_s, found_s[kept], heights[kept], tolerance_s=tolerance_s
        )
        choices.append(Choice(threshold=threshold, closest_s=closest_s, f1=f1))
    return max(choices, key=lambda choice: choice.f1)


def best_threshold(
    true_s: Floats, found_s: Floats, heights: Floats, *, tolerance_s: float
) -> tuple[float, float]:
    """The height from which events count that gives the best F1, and that; inf if none helps."""
    order = np.argsort(-heights)
    most = min(len(order), 6 * len(true_s) + 20)
    best, threshold = 0.0, np.inf
    for count in np.unique(np.linspace(1, most, min(most, _TRIALS)).astype(int)):
        kept = order[:count]
        hits = matched(true_s, found_s[kept], tolerance_s=tolerance_s)
        f1 = 2 * hits / (len(true_s) + count)
        if f1 > best:
            best, threshold = f1, float(heights[kept[-1]])
    return threshold, best

"""Samples -> multiples of the trace's own noise, less its slow baseline: how a trace network reads.

All is computed from means of ten samples on a fixed grid that starts with the trace, and a stretch
of noise is judged by those before it, so that a trace fed piece by piece is scaled as a whole one.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from quantal.filters import BRIDGE, fill_missing
from quantal.kernel import kernel
from quantal.tail import Tail

Samples = NDArray[np.float32]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

BIN = 10  # samples in a mean: 0.4 ms on the network's usual grid
_KNOT = 4  # bins from one value of the baseline to the next
_REACH = 50  # knots either side of one that its running median takes in: 80 ms
SEGMENT = 1_000  # bins in a segment, whose noise is one number: 0.4 s
_FIRST = 3  # segments that the trace's beginning is judged by
_BEFORE = 12  # segments that the next one is judged by
_TELLING = 0.25  # of a segment must be there for its noise to count
_SD_PER_MAD = 1.4826  # of a normal distribution
WAIT = 2_100  # samples, at most, that must follow one before it is scaled
_LINEAR = 4.0  # noise SDs up to which a sample stays nearly as it is; beyond, its logarithm counts


def scaled(samples: Samples, gain: float = 1.0, noise_sd: float | None = None) -> Samples:
    """Samples less a running median of 160 ms, in SDs of the noise, large ones compressed.

    (Times are those of the network's usual grid, 25 kHz.) The noise is that of the last five
    seconds, in means of ten samples; events and artefacts hardly change it, for it comes from
    medians. What is missing is bridged; a flat trace becomes 0. gain: multiplies the result before
    large values are compressed; a training draws it by chance. noise_sd: the noise, where samples
    are too few to tell it.
    """
    scaler = Scaler(gain, noise_sd)
    return np.concatenate([scaler.push(samples), scaler.finish()])


def own_noise(samples: Samples) -> float:
    """SD of the noise of a short stretch, in means of ten samples; 0 where nothing tells it."""
    drift = Drift()
    return _spread(np.concatenate([drift.push(samples), drift.finish()]))


class Scaler:
    """`scaled` for a trace that comes in pieces: what they decide comes out, the rest waits.

    A sample waits for the 80 ms after it, those of the first 1.2 s for the end of these, and what
    is missing for what comes after it.
    """

    def __init__(self, gain: float = 1.0, noise_sd: float | None = None) -> None:
        self._gain = gain
        self._drift = Drift()
        self._noise = SegmentNoise() if noise_sd is None else ToldNoise(noise_sd)

    def push(self, samples: Samples) -> Samples:
        """The scaled samples that these and those before them decide."""
        self._noise.push(self._drift.push(samples))
        return self._scaled(min(self._drift.known, self._noise.stop * BIN * SEGMENT))

    def finish(self) -> Samples:
        """The scaled samples that waited for more of the trace."""
        self._noise.push(self._drift.finish())
        self._noise.finish()
        return self._scaled(self._drift.known)

    def _scaled(self, stop: int) -> Samples:
        samples, baseline, noise = self._drift.samples, self._drift.baseline, self._noise.values
        first = samples.first
        out: Samples = _scaled(
            samples.part(first, max(stop, first)),
            first,
            baseline.values,
            baseline.first,
            noise / self._gain,
            self._noise.first,
            _LINEAR,
        )
        np.arcsinh(out, out=out)  # NumPy's is many times faster than a kernel's
        out *= _LINEAR
        self._drift.forget(stop)
        self._noise.forget(stop // (BIN * SEGMENT))
        return out


class Drift:
    """The slow baseline of a trace that comes in pieces.

    samples: without gaps. baseline: its values at the knots. known: samples whose level it tells.
    """

    def __init__(self) -> None:
        self.samples: Tail[np.float32] = Tail(np.float32)
        self.baseline: Tail[np.float64] = Tail(np.float64)
        self.known = 0
        self._gaps = Gaps()
        self._missing: Tail[np.bool_] = Tail(np.bool_)  # samples that are bridged
        self._means: Tail[np.float64] = Tail(np.float64)  # of bins; nan where samples are missing
        self._median = RunningMedian(_REACH)

    def push(self, samples: Samples) -> Floats:
        """The means of bins less the baseline (nan where samples are missing), as far as known."""
        self._take(*self._gaps.push(samples))
        self._average(self.samples.stop // (BIN * _KNOT) * BIN * _KNOT)
        self.known = _told(self.baseline.stop, BIN * _KNOT)
        return self._residuals(_told(self.baseline.stop, _KNOT))

    def finish(self) -> Floats:
        """The same of what waited for more of the trace."""
        self._take(*self._gaps.finish())
        self._average(self.samples.stop)
        self.baseline.add(self._median.finish())
        self.known = self.samples.stop
        return self._residuals(self._means.stop)

    def forget(self, before: int) -> None:
        """Keep no more than what samples from here on need."""
        self.samples.forget(before)
        self.baseline.forget(before // (BIN * _KNOT) - 1)

    def _take(self, filled: Samples, missing: Flags) -> None:
        self.samples.add(filled)
        self._missing.add(missing)

    def _average(self, stop: int) -> None:
        start = self._means.stop * BIN
        if stop <= start:
            return
        means = _means(self.samples.part(start, stop), BIN)
        self.baseline.add(self._median.push(_means(means, _KNOT)))
        means[np.flatnonzero(self._missing.part(start, stop)) // BIN] = np.nan
        self._missing.forget(stop)
        self._means.add(means)

    def _residuals(self, stop: int) -> Floats:
        first = self._means.first
        means = self._means.part(first, max(stop, first))
        residuals: Floats = _residuals(
            means, first, self.baseline.values, self.baseline.first, _KNOT
        )
        self._means.forget(stop)
        return residuals


class Gaps:
    """Bridges what is missing (not finite) in a trace that comes in pieces, as `fill_missing`."""

    def __init__(self) -> None:
        self._last = np.empty(0, np.float32)  # the last sample that was there
        self._open = 0  # missing ones since, BRIDGE at most

    def push(self, samples: Samples) -> tuple[Samples, Flags]:
        """Samples as far as they are known, and which of them were missing."""
        good = np.isfinite(samples)
        if good.all() and not self._open:
            self._last = samples[-1:].copy() if len(samples) else self._last
            return samples, ~good
        there = np.flatnonzero(good)
        filled, missing = np.empty(0, np.float32), np.empty(0, np.bool_)
        if len(there):
            whole = np.concatenate([self._waiting(), samples[: there[-1] + 1]])
            filled = fill_missing(whole)[len(self._last) :]
            missing = ~np.isfinite(whole)[len(self._last) :]
            self._last, self._open = filled[-1:], 0
            samples = samples[there[-1] + 1 :]
        held = max(self._open + len(samples) - BRIDGE, 0)
        self._open += len(samples) - held
        level = self._last if len(self._last) else np.zeros(1, np.float32)
        return (
            np.concatenate([filled, np.repeat(level, held)]),
            np.concatenate([missing, np.ones(held, np.bool_)]),
        )

    def finish(self) -> tuple[Samples, Flags]:
        """What is missing at the end: the last sample goes on; 0 where there never was one."""
        filled = fill_missing(self._waiting())[len(self._last) :]
        return filled, np.ones(len(filled), np.bool_)

    def _waiting(self) -> Samples:
        return np.concatenate([self._last, np.full(self._open, np.nan, np.float32)])


class RunningMedian:
    """Of a line of values that comes in pieces: the median of those up to `reach` either side."""

    def __init__(self, reach: int) -> None:
        self._values: Tail[np.float64] = Tail(np.float64)
        self._window = np.empty(0)  # in order, those around the value before the next
        self._next = -reach
        self._reach = reach

    def push(self, values: Floats) -> Floats:
        """The medians that these values and those before them decide."""
        self._values.add(values)
        return self._medians(self._values.stop - self._reach)

    def finish(self) -> Floats:
        """The medians of the last values, from fewer of them."""
        return self._medians(self._values.stop)

    def _medians(self, stop: int) -> Floats:
        stop = max(stop, self._next)
        medians: Floats
        medians, self._window = _running_median(
            self._values.values, self._values.first, self._window, self._next, stop, self._reach
        )
        self._values.forget(stop - self._reach - 1)
        self._next = stop
        return medians


class SegmentNoise:
    """SD of the noise in each segment of bins, from the segments before it.

    The median of up to twelve; the first ones are judged by the first three. A segment that is
    flat or mostly missing tells nothing; 0 where no segment does.
    """

    def __init__(self) -> None:
        self._residuals: Tail[np.float64] = Tail(np.float64)
        self._own: Tail[np.float64] = Tail(np.float64)  # SD of each segment by itself
        self._told: Tail[np.float64] = Tail(np.float64)

    @property
    def values(self) -> Floats:
        """SDs of the segments from `first` on."""
        return self._told.values

    @property
    def first(self) -> int:
        """The first segment whose SD is kept."""
        return self._told.first

    @property
    def stop(self) -> int:
        """Segments whose noise is told."""
        return self._told.stop

    def push(self, residuals: Floats) -> None:
        """Take the residuals of the next bins (nan where missing)."""
        self._residuals.add(residuals)
        whole = self._residuals.stop // SEGMENT
        if whole >= _FIRST:
            self._tell(np.arange(self._own.stop, whole + 1) * SEGMENT)

    def finish(self) -> None:
        """A trace of fewer than three segments is judged by what there is."""
        if not self._own.stop:
            whole = max(self._residuals.stop // SEGMENT, 1)
            self._tell(np.r_[np.arange(whole) * SEGMENT, self._residuals.stop])

    def forget(self, before: int) -> None:
        """Keep no noise of segments before this one."""
        self._told.forget(min(before, self.stop - 1))

    def _tell(self, edges: NDArray[np.int64]) -> None:
        spreads = [_spread(self._residuals.part(a, b)) for a, b in pairwise(edges)]
        self._residuals.forget(int(edges[-1]))
        self._own.add(np.array(spreads))
        while self._told.stop <= max(self._own.stop, _FIRST - 1):
            k = self._told.stop
            past = self._own.part(max(k - _BEFORE, 0), k) if k >= _FIRST else self._own.values
            past = past[: max(k, _FIRST)]
            past = past[past > 0]
            self._told.add(np.array([np.median(past) if len(past) else 0.0]))
        self._own.forget(self._told.stop - _BEFORE)


class ToldNoise:
    """Noise of one SD throughout, known from elsewhere; the face is that of SegmentNoise."""

    def __init__(self, sd: float) -> None:
        self.values = np.array([sd])
        self.first, self.stop = 0, 1 << 40

    def push(self, residuals: Floats) -> None:
        """Nothing is to be learnt."""

    def finish(self) -> None:
        """Nothing waits."""

    def forget(self, before: int) -> None:
        """One value serves all."""


def _told(knots: int, size: int) -> int:
    """Positions, `size` of them to a knot, whose level is told by so many knots."""
    return int((knots - 0.5) * size + 0.5) if knots else 0


def _spread(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return robust_sd(known) if len(known) >= _TELLING * len(values) else 0.0


def robust_sd(values: NDArray[np.floating]) -> float:
    """SD of the noise from the median absolute deviation, or if that is 0, of all; 0 of nothing."""
    if not len(values):
        return 0.0
    robust = _SD_PER_MAD * float(np.median(np.abs(values - np.median(values))))
    return robust or float(values.std(dtype=np.float64))


@kernel
def _means(values, size):
    """Means of `size` values each; the last one of what is left."""
    count = (len(values) + size - 1) // size
    out = np.empty(count, np.float64)
    for k in range(count):
        last = min((k + 1) * size, len(values))
        total = 0.0
        for i in range(k * size, last):
            total += values[i]
        out[k] = total / (last - k * size)
    return out


@kernel
def _running_median(values, first, before, begin, stop, reach):
    """Medians around positions begin to stop, and the ordered window around the last of them.

    values: from position `first` on. before: the ordered window around the position before begin.
    """
    window = np.empty(2 * reach + 2, np.float64)
    window[: len(before)] = before
    size = len(before)
    last = first + len(values)
    out = np.empty(stop - max(begin, 0) if stop > 0 else 0, np.float64)
    for i in range(begin, stop):
        if i + reach < last:
            size = _insert(window, size, values[i + reach - first])
        if i - reach - 1 >= 0:
            size = _remove(window, size, values[i - reach - 1 - first])
        if i >= 0:
            half = size // 2
            middle = window[half] if size % 2 else 0.5 * (window[half - 1] + window[half])
            out[i - max(begin, 0)] = middle
    return out, window[:size]


@kernel
def _place(window, size, value):
    """The first place in a sorted window whose value is not below this one."""
    low, high = 0, size
    while low < high:
        middle = (low + high) // 2
        if window[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def _insert(window, size, value):
    at = _place(window, size, value)
    for i in range(size, at, -1):
        window[i] = window[i - 1]
    window[at] = value
    return size + 1


@kernel
def _remove(window, size, value):
    for i in range(_place(window, size, value), size - 1):
        window[i] = window[i + 1]
    return size - 1


@kernel
def _level(baseline, first, knot, position):
    """The baseline (from knot `first` on) between its knots; held beyond the first and the last."""
    at = (position + 0.5) / knot - 0.5
    if at <= 0.0:
        return baseline[0]
    i = int(at) - first
    if i >= len(baseline) - 1:
        return baseline[-1]
    return baseline[i] + (at - int(at)) * (baseline[i + 1] - baseline[i])


@kernel
def _residuals(means, start, baseline, first, knot):
    out = np.empty(len(means), np.float64)
    for i in range(len(means)):
        out[i] = means[i] - _level(baseline, first, knot, start + i)
    return out


@kernel
def _scaled(samples, start, baseline, first, noise, segment, linear):
    """Samples from `start` on; baseline from knot `first`, noise from `segment`."""
    out = np.empty(len(samples), np.float32)
    for i in range(len(samples)):
        sd = noise[min((start + i) // (BIN * SEGMENT) - segment, len(noise) - 1)]
        if sd == 0.0:
            out[i] = 0.0
            continue
        level = _level(baseline, first, BIN * _KNOT, start + i)
        out[i] = (samples[i] - level) / (linear * sd)
    return out

"""Samples -> multiples of the trace's own noise, less its slow baseline: how a trace network reads.

All is computed from means of ten samples on a fixed grid that starts with the trace, and a stretch
of noise is judged by those before it, so that a trace fed piece by piece is scaled as a whole one.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from quantal.filters import fill_missing
from quantal.kernel import kernel

Samples = NDArray[np.float32]
Floats = NDArray[np.float64]

BIN = 10  # samples in a mean: 0.4 ms on the network's usual grid
_KNOT = 4  # bins from one value of the baseline to the next
_REACH = 50  # knots either side of one that its running median takes in: 80 ms
SEGMENT = 1_000  # bins in a segment, whose noise is one number: 0.4 s
_FIRST = 3  # segments that the trace's beginning is judged by
_BEFORE = 12  # segments that the next one is judged by
_TELLING = 0.25  # of a segment must be there for its noise to count
_SD_PER_MAD = 1.4826  # of a normal distribution
_LINEAR = 4.0  # noise SDs up to which a sample stays nearly as it is; beyond, its logarithm counts


def scaled(samples: Samples, gain: float = 1.0, noise_sd: float | None = None) -> Samples:
    """Samples less a running median of 160 ms, in SDs of the noise, large ones compressed.

    (Times are those of the network's usual grid, 25 kHz.) The noise is that of the last five
    seconds, in means of ten samples; events and artefacts hardly change it, for it comes from
    medians. What is missing is bridged; a flat trace becomes 0. gain: multiplies the result before
    large values are compressed; a training draws it by chance. noise_sd: the noise, where samples
    are too few to tell it.
    """
    if not len(samples):
        return samples
    filled, baseline, residuals = _baselined(samples)
    noise = segment_noise(residuals) if noise_sd is None else np.array([noise_sd])
    out: Samples = _scaled(filled, baseline, noise / gain, _LINEAR)
    np.arcsinh(out, out=out)  # NumPy's is many times faster than a kernel's
    out *= _LINEAR
    return out


def own_noise(samples: Samples) -> float:
    """SD of the noise of a short stretch, in means of ten samples; 0 where nothing tells it."""
    return _spread(_baselined(samples)[2]) if len(samples) else 0.0


def _baselined(samples: Samples) -> tuple[Samples, Floats, Floats]:
    """The samples without gaps, the knots of their baseline, and the means less it (gaps nan)."""
    filled = np.ascontiguousarray(fill_missing(samples), np.float32)
    means = _means(filled, BIN)
    baseline = _running_median(_means(means, _KNOT), _REACH)
    residuals = _residuals(means, baseline, _KNOT)
    residuals[np.flatnonzero(~np.isfinite(samples)) // BIN] = np.nan
    return filled, baseline, residuals


def segment_noise(residuals: Floats) -> Floats:
    """SD of the noise in each segment of bins (nan where missing), from the segments before it.

    The median of up to twelve; the first ones are judged by the first three. A segment that is
    flat or mostly missing tells nothing; 0 where no segment does.
    """
    count = max(len(residuals) // SEGMENT, 1)
    edges = np.r_[np.arange(count) * SEGMENT, len(residuals)]
    own = np.array([_spread(residuals[a:b]) for a, b in pairwise(edges)])
    noise = np.empty(count)
    for k in range(count):
        past = own[:_FIRST] if k < _FIRST else own[max(k - _BEFORE, 0) : k]
        past = past[past > 0]
        noise[k] = np.median(past) if len(past) else 0.0
    return noise


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
def _running_median(values, reach):
    """The median of the values up to `reach` either side; fewer at the ends."""
    n = len(values)
    out = np.empty(n, np.float64)
    window = np.empty(2 * reach + 1, np.float64)
    size = 0
    for i in range(-reach, n):
        if i + reach < n:
            size = _insert(window, size, values[i + reach])
        if i - reach - 1 >= 0:
            size = _remove(window, size, values[i - reach - 1])
        if i >= 0:
            half = size // 2
            out[i] = window[half] if size % 2 else 0.5 * (window[half - 1] + window[half])
    return out


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
def _level(baseline, knot, position):
    """The baseline between its knots; held beyond the first and the last."""
    at = (position + 0.5) / knot - 0.5
    i = int(at)
    if at <= 0.0:
        return baseline[0]
    if i >= len(baseline) - 1:
        return baseline[-1]
    return baseline[i] + (at - i) * (baseline[i + 1] - baseline[i])


@kernel
def _residuals(means, baseline, knot):
    out = np.empty(len(means), np.float64)
    for i in range(len(means)):
        out[i] = means[i] - _level(baseline, knot, i)
    return out


@kernel
def _scaled(samples, baseline, noise, linear):
    out = np.empty(len(samples), np.float32)
    for i in range(len(samples)):
        sd = noise[min(i // (BIN * SEGMENT), len(noise) - 1)]
        if sd == 0.0:
            out[i] = 0.0
            continue
        out[i] = (samples[i] - _level(baseline, BIN * _KNOT, i)) / (linear * sd)
    return out

"""A trace as detectors without a network read it: stretch by stretch, and in multiples of noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quantal.filters import fill_missing
from quantal.kernel import kernel

Samples = NDArray[np.float32]
Floats = NDArray[np.float64]

_BLOCK = 1 << 17  # samples that are filtered at a time
_LARGEST = 1e30  # what a score may reach: single precision holds it, and its square in double


def find_stretches(samples: Samples, gap: int, flat: int) -> list[tuple[int, int]]:
    """Stretches (start, stop) that hold a recording, in order.

    They are parted by gaps of at least `gap` missing samples, and by runs of at least `flat` equal
    ones: an amplifier that is saturated or off shows nothing.
    """
    missing = ~np.isfinite(samples)
    dead = _runs_of(missing, gap) | _runs_of_equal(samples, flat)
    edges = np.flatnonzero(np.diff(np.r_[True, dead, True]))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def bridged(samples: Samples) -> Samples:
    """A stretch without its offset, what is missing replaced by straight lines."""
    filled = fill_missing(samples)
    return np.asarray(filled - filled.mean(dtype=np.float64), np.float32)


def held(samples: Samples, before: int, after: int, level: int) -> Samples:
    """The samples continued beyond both ends by the mean of the last `level` there.

    A mirror image would turn the decay of an event that an end cuts off into another event's rise.
    """
    if not before + after:
        return samples
    return np.pad(samples, (before, after), mode="mean", stat_length=min(level, len(samples)))


def filtered(samples: Samples, weights: Floats, centre: int, level: int) -> Samples:
    """Convolve with weights, of which weights[centre] falls on the sample itself; float32.

    Done by Fourier transforms of one block after the other; beyond its ends the trace is held at
    the mean of the last `level` samples.
    """
    from scipy.fft import irfft, next_fast_len, rfft

    n, width = len(samples), len(weights)
    padded = held(samples, width - 1 - centre, centre, level)
    block = min(max(_BLOCK, 4 * width), n)
    size = next_fast_len(block + width - 1, real=True)
    gain = rfft(weights, size)
    out = np.empty(n, np.float32)
    for first in range(0, n, block):
        last = min(first + block, n)
        part = padded[first : last + width - 1].astype(np.float64)
        whole = irfft(rfft(part, size) * gain, size)
        values = whole[width - 1 : width - 1 + last - first]
        out[first:last] = np.clip(values, -_LARGEST, _LARGEST)
    return out


def in_sds(values: Samples, centre: float, sd: float) -> Samples:
    """Values less their centre as multiples of an SD; 0 where there is no noise to compare with."""
    if not sd > 0:
        return np.zeros_like(values)
    scaled = (values.astype(np.float64) - centre) / sd
    return np.clip(scaled, -_LARGEST, _LARGEST).astype(np.float32)


@kernel
def _runs_of(mask, shortest):
    """Where a mask is true for at least `shortest` samples in a row."""
    out = np.zeros(len(mask), np.bool_)
    start = 0
    for i in range(len(mask) + 1):
        if i < len(mask) and mask[i]:
            continue
        if i - start >= shortest:
            out[start:i] = True
        start = i + 1
    return out


@kernel
def _runs_of_equal(samples, shortest):
    """Where at least `shortest` samples in a row are equal."""
    out = np.zeros(len(samples), np.bool_)
    start = 0
    for i in range(1, len(samples) + 1):
        if i < len(samples) and samples[i] == samples[i - 1]:
            continue
        if i - start >= shortest:
            out[start:i] = True
        start = i
    return out

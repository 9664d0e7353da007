"""Smoothing, gradient and resampling of samples."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
from numpy.typing import NDArray

from quantal.errors import UsageError

Samples = NDArray[np.float32]


def odd_width(samples: float) -> int:
    """The odd number of samples nearest above a width, at least 3: an odd filter has a middle."""
    return max(2 * (round(samples) // 2) + 1, 3)


def smooth(samples: Samples, width: int) -> Samples:
    """Convolve with a Hann window of `width` samples (odd) and unit area; ends are held.

    None of the samples has weight 0, so that a width of 3 smooths.
    """
    from scipy.ndimage import convolve1d

    if width < 1 or width % 2 == 0:
        raise UsageError(f"the smoothing width must be an odd number of samples, got {width}.")
    weights = np.hanning(width + 2)[1:-1]
    return cast(Samples, convolve1d(samples, weights / weights.sum(), mode="nearest"))


def gradient(samples: Samples) -> Samples:
    """Central difference per sample; one-sided at the ends, 0 for a single sample."""
    if len(samples) < 2:
        return np.zeros_like(samples)
    return cast(Samples, np.gradient(samples))


def fill_missing(samples: Samples) -> Samples:
    """The samples with nan and infinity replaced by straight lines between their neighbours."""
    good = np.isfinite(samples)
    if good.all():
        return samples
    filled = samples.copy()
    if not good.any():
        filled[:] = 0.0
        return filled
    filled[~good] = np.interp(np.flatnonzero(~good), np.flatnonzero(good), samples[good])
    return filled


def resample(samples: Samples, up: int, down: int) -> Samples:
    """Samples at up/down times their rate, with a linear-phase filter against aliasing.

    Output sample k lies at input position k * down / up. A nan spreads over the filter's length
    only. Raises UsageError if up or down is not positive.
    """
    if up < 1 or down < 1:
        raise UsageError(f"cannot resample by {up}/{down}.")
    common = math.gcd(up, down)
    up, down = up // common, down // common
    if up == down or not len(samples):
        return samples
    from scipy.signal import resample_poly

    return np.ascontiguousarray(resample_poly(samples, up, down, padtype="edge"), np.float32)

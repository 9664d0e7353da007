"""Smoothing and resampling of samples."""

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
    """Convolve with a Hann window of `width` samples (odd) and unit area; ends are held."""
    from scipy.ndimage import convolve1d

    if width < 1 or width % 2 == 0:
        raise UsageError(f"the smoothing width must be an odd number of samples, got {width}.")
    return cast(Samples, convolve1d(samples, hann(width), mode="nearest"))


def hann(width: int) -> NDArray[np.float64]:
    """A Hann window of unit area, none of whose samples is 0."""
    weights = np.hanning(width + 2)[1:-1]
    return np.asarray(weights / weights.sum())


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

    Output sample k lies at input position k * down / up. A constant stays what it is. A nan spreads
    over the filter's length only. Raises UsageError if up or down is not positive.
    """
    if up < 1 or down < 1:
        raise UsageError(f"cannot resample by {up}/{down}.")
    common = math.gcd(up, down)
    up, down = up // common, down // common
    if up == down or not len(samples):
        return samples
    from scipy.signal import resample_poly

    weights = _low_pass(up, down)
    resampled = resample_poly(samples, up, down, window=weights, padtype="edge")
    return np.ascontiguousarray(resampled, np.float32)


def _low_pass(up: int, down: int) -> Samples:
    """SciPy's filter for up/down, but each output sample's share of its weights adds up to 1.

    Without that an offset comes out as a ripple of 0.07 % of it, which a window's scaling enlarges.
    """
    from scipy.signal import firwin

    longest = max(up, down)
    weights = firwin(20 * longest + 1, 1 / longest, window=("kaiser", 5.0))
    for phase in range(up):
        weights[phase::up] /= up * weights[phase::up].sum()
    return np.asarray(weights, np.float32)

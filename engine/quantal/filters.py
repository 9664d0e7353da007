"""Smoothing and resampling of samples."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import cast

import numpy as np
from numpy.typing import NDArray

from quantal.errors import UsageError
from quantal.kernel import kernel
from quantal.tail import Tail

Samples = NDArray[np.float32]
BRIDGE = 10_000  # samples: more than any filter reaches


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
    """The samples with nan and infinity replaced by straight lines between their neighbours.

    In a gap of more than BRIDGE samples the last one goes on, and the line bridges the rest, so
    that a trace that comes in pieces need not wait for the end of a gap. Before the first sample
    it is as there, or 0 where that is more than BRIDGE away.
    """
    if _all_finite(samples):
        return samples
    good = np.isfinite(samples)
    filled = samples.copy()
    if not good.any():
        filled[:] = 0.0
        return filled
    at = np.flatnonzero(good)
    long = np.flatnonzero(np.diff(at) > BRIDGE)
    knots = np.insert(at, long + 1, at[long + 1] - BRIDGE)
    levels = np.insert(samples[at], long + 1, samples[at[long]])
    filled[~good] = np.interp(np.flatnonzero(~good), knots, levels)
    filled[: max(at[0] - BRIDGE, 0)] = 0.0
    return filled


@kernel
def _all_finite(samples):
    finite = True
    for i in range(len(samples)):
        finite &= math.isfinite(samples[i])
    return finite


def resample(samples: Samples, up: int, down: int) -> Samples:
    """Samples at up/down times their rate, with a linear-phase filter against aliasing.

    Output sample k lies at input position k * down / up. A constant stays what it is. A nan spreads
    over the filter's length only; beyond its ends the trace goes on as it is there. Raises
    UsageError if up or down is not positive.
    """
    resampler = Resampler(up, down)
    if resampler.same or not len(samples):
        return samples
    return np.concatenate([resampler.push(samples), resampler.finish()])


class Resampler:
    """`resample` for a trace that comes in pieces; `same` where nothing is to be done."""

    def __init__(self, up: int, down: int) -> None:
        if up < 1 or down < 1:
            raise UsageError(f"cannot resample by {up}/{down}.")
        common = math.gcd(up, down)
        self._up, self._down = up // common, down // common
        self.same = self._up == self._down
        self._weights = np.ones((1, 1), np.float32) if self.same else _phases(self._up, self._down)
        self._reach = 10 * max(self._up, self._down) // self._up  # input samples either side
        self._kept: Tail[np.float32] = Tail(np.float32)
        self._done = 0  # output samples

    def push(self, samples: Samples) -> Samples:
        """The output samples that these and those before them decide."""
        if self.same:
            return samples
        if not self._kept.stop and len(samples):  # before its beginning the trace is as it begins
            self._kept.add(np.full(self._reach + 1, samples[0]))
            self._kept.first = -self._reach - 1
        self._kept.add(samples)
        return self._up_to(-(-(self._kept.stop - self._reach - 1) * self._up // self._down))

    def finish(self) -> Samples:
        """The output samples that waited for more input."""
        if self.same or not self._kept.stop:
            return np.empty(0, np.float32)
        n = self._kept.stop
        self._kept.add(np.full(self._reach + 1, self._kept.part(n - 1)[0]))
        return self._up_to(-(-n * self._up // self._down))

    def _up_to(self, stop: int) -> Samples:
        count = max(stop - self._done, 0)
        kept = self._kept
        out: Samples = _filtered(
            kept.values, kept.first, self._weights, self._up, self._down, self._done, count
        )
        self._done += count
        kept.forget(self._done * self._down // self._up - self._reach - 1)
        return out


@lru_cache(maxsize=32)
def _phases(up: int, down: int) -> Samples:
    """The weights of each phase of the filter for up/down, (up, taps): each row adds up to 1.

    Row p, tap j weighs the sample `taps // 2 - j` before the one at or before an output sample that
    lies p / up beyond it. It is SciPy's filter for resample_poly but for the sums of its rows:
    without that an offset comes out as a ripple of 0.07 % of it, which a window's scaling enlarges.
    """
    longest = max(up, down)
    half = 10 * longest
    reach = half // up
    at = (
        np.arange(up)[:, None] - (np.arange(2 * reach + 2)[None, :] - reach) * up
    )  # from the middle
    weights = np.sinc(at / longest) * np.kaiser(2 * half + 1, 5.0)[np.clip(at + half, 0, 2 * half)]
    weights[np.abs(at) > half] = 0.0
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


@kernel
def _filtered(samples, first, weights, up, down, start, count):
    """Output samples from start on; samples[0] is input sample `first`."""
    taps = weights.shape[1]
    reach = taps // 2 - 1
    fours = taps // 4 * 4
    out = np.empty(count, np.float32)
    phase = start * down % up
    i = start * down // up - reach - first
    for k in range(count):
        a = b = c = d = np.float32(0.0)  # four sums side by side, which processors do at once
        for j in range(0, fours, 4):
            a += weights[phase, j] * samples[i + j]
            b += weights[phase, j + 1] * samples[i + j + 1]
            c += weights[phase, j + 2] * samples[i + j + 2]
            d += weights[phase, j + 3] * samples[i + j + 3]
        for j in range(fours, taps):
            a += weights[phase, j] * samples[i + j]
        out[k] = (a + b) + (c + d)
        phase += down
        while phase >= up:
            phase -= up
            i += 1
    return out

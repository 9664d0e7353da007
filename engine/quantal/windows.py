"""Samples -> scaled windows, as a window network wants them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quantal.errors import UsageError
from quantal.kernel import kernel

SCORED, FLAT, MISSING = 0, 1, 2
# Of the largest sample: what rounding leaves of a flat stretch when a trace is resampled.
ROUNDING = np.float32(2.0**-20)


def cut_windows(
    samples: NDArray[np.float32], first: int, stride: int, count: int, width: int
) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Windows of `width` samples, each scaled to 0..1, and the state of each.

    Window k starts at sample first + k * stride. Returns float32 (count, width) and int8 (count,):
    SCORED, FLAT (all samples equal but for rounding, a millionth: the window is 0) or MISSING (a
    sample is nan or infinite: the window is 0 and must not be scored). Beyond the trace's ends the
    samples continue as its mirror image, which has no step and looks like no event.

    Raises UsageError if stride or width is not positive or there are no samples.
    """
    if stride < 1 or width < 1 or count < 0 or not len(samples):
        raise UsageError(
            f"cannot cut {count} windows of {width} samples every {stride} from {len(samples)}."
        )
    return cut_windows_at(samples, first + stride * np.arange(count), width)


def cut_windows_at(
    samples: NDArray[np.float32], starts: NDArray[np.int64], width: int
) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Windows of `width` samples as `cut_windows` gives them, that start at these samples."""
    out = np.empty((len(starts), width), np.float32)
    states = np.empty(len(starts), np.int8)
    _cut_and_scale(samples, starts, out, states)
    return out, states


def missing_windows(
    samples: NDArray[np.float32], starts: NDArray[np.int64], width: int
) -> NDArray[np.bool_]:
    """Which windows of `width` samples that start at these samples are MISSING; shape (n,)."""
    missing = ~np.isfinite(samples)
    if not missing.any():
        return np.zeros(len(starts), np.bool_)
    touching: NDArray[np.bool_] = _touching(missing, starts, width)
    return touching


def window_ranges(
    samples: NDArray[np.float32], starts: NDArray[np.int64], width: int
) -> NDArray[np.float32]:
    """Highest less lowest sample of windows that start at these samples; nan of MISSING ones."""
    ranges: NDArray[np.float32] = _ranges(samples, starts, width)
    return ranges


@kernel
def _ranges(samples, starts, width):
    last = len(samples)
    out = np.empty(len(starts), np.float32)
    for k in range(len(starts)):
        start = starts[k]
        inside = start >= 0 and start + width <= last
        low, high = np.float32(np.inf), np.float32(-np.inf)
        finite = True
        for j in range(start, start + width):
            value = samples[j] if inside else samples[mirrored(j, last)]
            finite = finite and np.isfinite(value)
            low, high = min(low, value), max(high, value)
        out[k] = high - low if finite else np.float32(np.nan)
    return out


@kernel
def _cut_and_scale(samples, starts, out, states):
    count, width = out.shape
    last = len(samples)
    for k in range(count):
        start = starts[k]
        inside = start >= 0 and start + width <= last
        low, high = np.float32(np.inf), np.float32(-np.inf)
        finite = True
        for j in range(width):
            i = start + j if inside else mirrored(start + j, last)
            value = samples[i]
            finite = finite and np.isfinite(value)
            low, high = min(low, value), max(high, value)
            out[k, j] = value
        if not finite or high - low <= ROUNDING * max(abs(low), abs(high)):
            states[k] = FLAT if finite else MISSING
            out[k, :] = np.float32(0.0)
            continue
        states[k] = SCORED
        span = high - low
        for j in range(width):
            out[k, j] = (out[k, j] - low) / span


@kernel
def _touching(missing, starts, width):
    n = len(missing)
    before = np.zeros(n + 1, np.int64)
    for i in range(n):
        before[i + 1] = before[i] + missing[i]
    out = np.zeros(len(starts), np.bool_)
    for k in range(len(starts)):
        start, stop = starts[k], starts[k] + width
        if start >= 0 and stop <= n:
            out[k] = before[stop] > before[start]
        else:
            for i in range(start, stop):
                out[k] = out[k] or missing[mirrored(i, n)]
    return out


@kernel
def mirrored(i, n):
    """The sample that stands for position i of a trace of n samples continued by its mirror."""
    i = i % (2 * n)
    return i if i < n else 2 * n - 1 - i

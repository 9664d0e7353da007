"""Samples -> scaled windows, as a window network wants them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quantal.errors import UsageError
from quantal.kernel import kernel

SCORED, FLAT, MISSING = 0, 1, 2
# Of the largest sample: what rounding leaves of a flat stretch when a trace is resampled.
_ROUNDING = np.float32(2.0**-20)


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
    out = np.empty((count, width), np.float32)
    states = np.empty(count, np.int8)
    _cut_and_scale(samples, first, stride, out, states)
    return out, states


@kernel
def _cut_and_scale(samples, first, stride, out, states):
    count, width = out.shape
    last = len(samples)
    for k in range(count):
        start = first + k * stride
        inside = start >= 0 and start + width <= last
        low, high = np.float32(np.inf), np.float32(-np.inf)
        finite = True
        for j in range(width):
            i = start + j if inside else _mirrored(start + j, last)
            value = samples[i]
            finite = finite and np.isfinite(value)
            low, high = min(low, value), max(high, value)
            out[k, j] = value
        if not finite or high - low <= _ROUNDING * max(abs(low), abs(high)):
            states[k] = FLAT if finite else MISSING
            out[k, :] = np.float32(0.0)
            continue
        states[k] = SCORED
        span = high - low
        for j in range(width):
            out[k, j] = (out[k, j] - low) / span


@kernel
def _mirrored(i, n):
    """The sample that stands for position i of a trace of n samples continued by its mirror."""
    i = i % (2 * n)
    return i if i < n else 2 * n - 1 - i


def kernels_are_compiled() -> bool:
    """Whether machine code from an earlier run is there, so that the first call will not wait."""
    folder = getattr(getattr(_cut_and_scale, "stats", None), "cache_path", None)
    return folder is not None and any(Path(folder).glob("windows._cut_and_scale-*.nbi"))

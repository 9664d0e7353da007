"""Slow oracles: what the kernels compute, said again in plain NumPy and SciPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def local_mean(y: Floats, i: int, half_width: float) -> float:
    """Mean of y around i with weights (1 - (d / h)^2)^2, h cut so that the ends are not passed."""
    h = min(half_width, i + 1, len(y) - i)
    d = np.arange(len(y)) - i
    weights = np.where(np.abs(d) < h, (1 - (d / h) ** 2) ** 2, 0.0)
    return float(np.average(y, weights=weights))


def rise_crossing(y: Floats, start: int, stop: int, level: float) -> float:
    """The last position from start to stop at which straight lines through y rise to level."""
    found = np.nan
    for i in range(start + 1, stop + 1):
        if y[i - 1] < level <= y[i]:
            found = float(np.interp(level, y[i - 1 : i + 1], [i - 1, i]))
    return found


def fall_crossing(y: Floats, start: int, stop: int, level: float) -> float:
    """The first position from start to before stop at which lines through y fall to level."""
    for i in range(start + 1, stop):
        if y[i - 1] > level >= y[i]:
            return float(np.interp(level, [y[i], y[i - 1]], [i, i - 1]))
    return float("nan")


def integral(y: Floats, start: float, stop: float, base: float) -> float:
    """Area of straight lines through y, less base, between two positions."""
    inner = np.arange(np.floor(start) + 1, np.ceil(stop))
    x = np.concatenate([[start], inner, [stop]])
    return float(np.trapezoid(np.interp(x, np.arange(len(y)), y) - base, x))


def highest_before_half(y: Floats, start: int, stop: int, base: float) -> int:
    """Position of the highest of y[start:stop] up to where it has first fallen to half its best."""
    end = stop
    for i in range(start, stop):
        best = max(y[start : i + 1])
        if best > base and y[i] - base < 0.5 * (best - base):
            end = i
            break
    return start + int(np.argmax(y[start:end]))


def event_shape(
    t: Floats, start: float, scale: float, rise: float, fall: float, power: float
) -> Floats:
    """scale (1 - exp(-s / rise))^power exp(-s / fall) with s = t - start, 0 before it."""
    s = np.clip(np.asarray(t, float) - start, 0, None)
    return scale * (1 - np.exp(-s / rise)) ** power * np.exp(-s / fall)

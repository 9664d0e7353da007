"""Slow oracles: what the kernels compute, said again in plain NumPy and SciPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import find_peaks

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


def scaled_windows(
    samples: NDArray[np.float32], first: int, stride: int, count: int, width: int
) -> NDArray[np.float32]:
    """Windows of samples continued by their mirror image, each mapped to 0..1 in float32.

    A window whose range is no more than a millionth of its samples is nan.
    """
    before = max(0, -first)
    after = max(0, first + (count - 1) * stride + width - len(samples))
    whole = np.pad(samples, (before, after), mode="symmetric")
    starts = before + first + stride * np.arange(count)
    windows = whole[starts[:, None] + np.arange(width)]
    low, high = windows.min(axis=1, keepdims=True), windows.max(axis=1, keepdims=True)
    rounding = np.float32(2**-20) * np.maximum(np.abs(low), np.abs(high))
    return np.where(high - low > rounding, (windows - low) / (high - low), np.nan)


def steepest_rises(
    slope: Floats, starts: list[int], stops: list[int], noise_sd: float, closest: int
) -> list[tuple[int, int]]:
    """Locations and their stretches: peaks of the gradient, high and prominent enough."""
    steep = 4.5 * noise_sd
    found = []
    for k, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        part = np.asarray(slope[start:stop], np.float64)
        if not len(part):
            continue
        peaks, of_peaks = find_peaks(part, height=steep, prominence=0.0)
        prominence = of_peaks["prominences"]
        enough = (prominence >= steep) & (prominence >= 0.25 * max(prominence, default=0.0))
        chosen = peaks[enough] if enough.any() else [int(np.argmax(part))]
        found += [(start + int(i), k) for i in chosen]
    return one_of_close(slope, sorted(found, key=lambda pair: pair[0]), closest)


def one_of_close(
    slope: Floats, found: list[tuple[int, int]], closest: int
) -> list[tuple[int, int]]:
    """In order of time: of locations less than `closest` apart, the steeper (or first)."""
    kept: list[tuple[int, int]] = []
    for pair in found:
        if kept and pair[0] - kept[-1][0] < max(closest, 1):
            if slope[pair[0]] > slope[kept[-1][0]]:
                kept[-1] = pair
        else:
            kept.append(pair)
    return kept


def most_matches(true: list[float], found: list[float], tolerance: float) -> int:
    """The most pairs, no time used twice, that are within the tolerance: every way is tried."""
    if not true:
        return 0
    first, rest = true[0], true[1:]
    best = most_matches(rest, found, tolerance)
    for j, other in enumerate(found):
        if abs(other - first) <= tolerance:
            best = max(best, 1 + most_matches(rest, found[:j] + found[j + 1 :], tolerance))
    return best

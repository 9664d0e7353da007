"""Slow oracles: what the kernels compute, said again in plain NumPy and SciPy."""

from __future__ import annotations

from itertools import groupby

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


def held_filter(samples: Floats, weights: Floats, centre: int, level: int) -> Floats:
    """Convolution of samples that go on at the mean of the last few at either end."""
    y = np.asarray(samples, np.float64)
    before = np.full(len(weights) - 1 - centre, y[:level].mean())
    after = np.full(centre, y[-level:].mean())
    return np.convolve(np.r_[before, y, after], weights, mode="valid")


def long_runs(values: list[object], shortest: int) -> list[bool]:
    """Which values belong to a run of at least `shortest` equal ones."""
    out: list[bool] = []
    for value, run in groupby(values):
        size = len(list(run))
        out += [size >= shortest] * size if value is not None else [False] * size
    return out


def rises_above_baseline(samples: Floats, before: int, lag: int, around: int) -> Floats:
    """Means of `around` values that begin `lag` after an onset, less those of `before` up to it."""
    onsets = range(before, len(samples) - lag - around + 1)
    means = [
        samples[i + lag : i + lag + around].mean() - samples[i - before : i].mean() for i in onsets
    ]
    return np.array(means)


def innovations(values: Floats, coefficients: Floats) -> Floats:
    """What autoregressive noise could not foretell; 0 for the first samples."""
    order = len(coefficients)
    out = np.zeros(len(values))
    for i in range(order, len(values)):
        out[i] = values[i] - sum(c * values[i - 1 - j] for j, c in enumerate(coefficients))
    return out


def event_counts(y: Floats, shapes: Floats, frequency: float, step: float, top: float) -> Floats:
    """Posterior probability of 0, 1 and 2 events, by sums over all onsets and amplitudes.

    shapes: (onsets, n), the event at onsets `step` samples apart. White noise of unknown SD (flat
    in its logarithm) on a flat baseline, amplitudes flat from 0 to top: the baseline and the SD are
    integrated by hand, which leaves the sum of squares to the power -(n - 1) / 2.
    """
    n = len(y)
    y, shapes = y - y.mean(), shapes - shapes.mean(axis=1, keepdims=True)
    size = np.linspace(0, top, 61)
    weight = np.full(61, frequency * step * (size[1] / top))
    weight[[0, -1]] /= 2
    squares = y @ y
    along, inner = shapes @ y, shapes @ shapes.T

    def density(left: Floats) -> Floats:
        return (left / squares) ** (-(n - 1) / 2)

    one = squares - 2 * np.outer(along, size) + np.outer(np.diag(inner), size**2)
    total = [1.0, float((density(one) * weight).sum()), 0.0]
    for a in range(len(shapes)):
        for b in range(a, len(shapes)):
            both = one[a][:, None] + one[b][None, :] - squares
            both = both + 2 * inner[a, b] * np.outer(size, size)
            pair = float((density(both) * np.outer(weight, weight)).sum())
            total[2] += pair if a < b else pair / 2  # the two have no order
    return np.array(total) / sum(total)


def running_median(values: Floats, reach: int) -> Floats:
    """The median of the values up to `reach` either side of each."""
    n = len(values)
    return np.array([np.median(values[max(i - reach, 0) : i + reach + 1]) for i in range(n)])

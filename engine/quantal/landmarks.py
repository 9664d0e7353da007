"""What a line of values shows: its means, crossings, foot, steepest rise, peak and area.

Positions are in values from the first, also between two of them.
"""

from __future__ import annotations

import math

import numpy as np

from quantal.kernel import kernel

_AT_A_TIME = 32  # samples that are smoothed when some are looked at in turn


@kernel
def recorded(samples, at, behind, ahead):
    """The stretch of samples around at, no further than behind and ahead, that holds no nan."""
    first = at
    while first > max(0, at - behind) and math.isfinite(samples[first - 1]):
        first -= 1
    last = at
    while last < min(len(samples), at + ahead) and math.isfinite(samples[last]):
        last += 1
    return first, last


@kernel
def mean_of(y, start, stop):
    """The mean of samples from start to stop."""
    total = 0.0
    for i in range(start, stop):
        total += y[i]
    return total / (stop - start)


@kernel
def local_mean(y, i, half_width):
    """Weighted mean around i; weights fall to 0 at half_width, which shrinks near the ends."""
    h = min(half_width, i + 1.0, float(len(y) - i))
    reach = math.ceil(h) - 1
    if reach < 1:
        return y[i]
    total = y[i]
    weight = 1.0
    narrow = 1.0 / (h * h)
    for d in range(1, reach + 1):
        w = 1.0 - d * d * narrow
        w *= w
        total += w * (y[i - d] + y[i + d])
        weight += 2.0 * w
    return total / weight


@kernel
def smoothed(y, start, stop, half_width):
    """The local means around samples start to stop, side by side where none is near an end of y."""
    out = np.empty(max(stop - start, 0))
    reach = math.ceil(half_width) - 1
    first = min(max(reach - start, 0), len(out))
    last = max(min(len(y) - reach - start, len(out)), first)
    inner = out[first:last]
    inner[:] = y[start + first : start + last]
    weight = 1.0
    narrow = 1.0 / (half_width * half_width)
    for d in range(1, reach + 1):
        w = 1.0 - d * d * narrow
        w *= w
        before = y[start + first - d : start + last - d]
        after = y[start + first + d : start + last + d]
        for i in range(len(inner)):
            inner[i] += w * (before[i] + after[i])
        weight += 2.0 * w
    for i in range(len(inner)):
        inner[i] /= weight
    for i in range(first):
        out[i] = local_mean(y, start + i, half_width)
    for i in range(last, len(out)):
        out[i] = local_mean(y, start + i, half_width)
    return out


@kernel
def smoothed_to_half(y, start, at, stop, base, half_width):
    """The smoothed samples from start until, past at, they have fallen to half; at most to stop."""
    smooth = np.empty(max(stop - start, 0))
    best, known = -np.inf, 0
    for i in range(len(smooth)):
        if i == known:
            known = min(i + 4 * _AT_A_TIME, len(smooth))
            smooth[i:known] = smoothed(y, start + i, start + known, half_width)
        if start + i >= at:
            best = max(best, smooth[i])
            if 0.0 < best - base > 2.0 * (smooth[i] - base):
                return smooth[: i + 1]
    return smooth


@kernel
def rise_crossing(y, start, stop, level):
    """Where y last rises through level, followed back from stop to start; nan if it does not."""
    for i in range(stop, start, -1):
        if y[i - 1] < level <= y[i]:
            return i - (y[i] - level) / (y[i] - y[i - 1])
    return np.nan


@kernel
def fall_crossing(y, start, stop, level):
    """Where y first falls to level after start and before stop; nan if it does not."""
    for i in range(start + 1, stop):
        if y[i] <= level < y[i - 1]:
            return i - (level - y[i]) / (y[i - 1] - y[i])
    return np.nan


@kernel
def crossings(curve, base, peak, top):
    """Positions at 10, 50 and 90 % of the rise and at half the decay."""
    height = top - base
    t10 = t90 = np.nan
    t50 = rise_crossing(curve, 0, peak, base + 0.5 * height)
    if not math.isnan(t50):
        t10 = rise_crossing(curve, 0, int(t50) + 1, base + 0.1 * height)
        t90 = rise_crossing(curve, int(t50), peak, base + 0.9 * height)
    half = fall_crossing(curve, peak, len(curve), base + 0.5 * height)
    return t10, t50, t90, half


@kernel
def foot_before(y, at, first, half_width):
    """Where the smoothed trace stops falling, followed back from the steepest rise."""
    here, stop = np.inf, at + 1
    while stop > first:
        start = max(stop - _AT_A_TIME, first)
        smooth = smoothed(y, start, stop, half_width)
        for i in range(stop - 1, start - 1, -1):
            if smooth[i - start] >= here:
                return i + 1
            here = smooth[i - start]
        stop = start
    return min(first, at)


@kernel
def steepest_near(y, at, first, stop, half_width):
    """The steepest rise of the smoothed trace within two half widths of a location."""
    reach = int(2 * half_width)
    start = max(at - reach, first, 1)
    stop = min(at + reach + 1, stop - 1, len(y) - 1)
    smooth = smoothed(y, start - 1, max(stop, start) + 1, half_width)
    best, where = 0.0, at
    for i in range(start, stop):
        rise = smooth[i + 2 - start] - smooth[i - start]
        if rise > best:
            best, where = rise, i
    return where


@kernel
def steepest_rise(curve, start, stop):
    """The steepest rise between two values, and where it is."""
    slope, where = np.nan, np.nan
    for j in range(max(start, 0), min(stop, len(curve) - 1)):
        rise = curve[j + 1] - curve[j]
        if not slope > rise:
            slope, where = rise, j + 0.5
    return slope, where


@kernel
def highest_before_half(y, start, stop, base):
    """The highest sample from start on, before y has fallen to half."""
    best = start
    for i in range(start, stop):
        if y[i] > y[best]:
            best = i
        elif 0.0 < y[best] - base > 2.0 * (y[i] - base):
            break
    return best


@kernel
def summit_at(y, j):
    """Position and height of the top of a parabola through a peak sample and its neighbours."""
    if 0 < j < len(y) - 1:
        bend = y[j - 1] - 2.0 * y[j] + y[j + 1]
        if bend < 0.0:
            shift = 0.5 * (y[j - 1] - y[j + 1]) / bend
            return j + shift, y[j] - 0.25 * (y[j - 1] - y[j + 1]) * shift
    return float(j), y[j]


@kernel
def integral(y, start, stop, base):
    """Area above base between two positions, by trapezia whose ends may lie between samples."""
    total = 0.0
    for i in range(math.floor(start), min(math.ceil(stop), len(y) - 1)):
        a = max(start - i, 0.0)
        b = min(stop - i, 1.0)
        middle = y[i] + 0.5 * (a + b) * (y[i + 1] - y[i])
        total += (b - a) * (middle - base)
    return total

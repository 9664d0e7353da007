"""One event after the other, read from its waveform.

An event is read from a smooth curve, not from its noisy samples. The curve is a rise and decay,
a (1 - exp(-t / rise))^power exp(-t / decay), fitted to the event, plus a running mean of what the
fit leaves over. The fit takes the noise away where smoothing would widen a fast rise; the running
mean lets the curve follow events of another shape, and is the narrower the less noise there is.
"""

from __future__ import annotations

import math

import numpy as np

from quantal.fitting import (
    FALLING,
    POWER,
    RISING,
    START,
    fit_shape,
    shape_along,
    shape_integral,
)
from quantal.kernel import kernel
from quantal.landmarks import (
    crossings,
    foot_before,
    highest_before_half,
    integral,
    local_mean,
    mean_of,
    recorded,
    smoothed_to_half,
    steepest_near,
    steepest_rise,
    summit_at,
)

# Baseline before the onset, and how far an event is followed either side, in windows.
BASELINE, BEHIND, AHEAD = 0.3, 1.0, 2.0
# First smoothing, from which each event's own time scale is read: half width in windows.
COARSE = 1 / 60
# Half width of the running mean over what the fit leaves: in rise times at the rise, and its growth
# with the time since then. Full width is reached where the noise is this fraction of the amplitude.
RISE_WIDTH, DECAY_WIDTH, FULL_WIDTH_NOISE = 0.8, 0.7, 0.05
# The fit and the area reach this many half-decays past the peak.
DECAYS = 4.0
# Bins of the fit in a rise time, and by which part of the time since the rise they grow beyond it.
BINS, GROWTH = 8, 0.12
# A fit, rough or fine, has ended when a step lowers its squares by no more than this part of them.
ROUGH, FINE = 1e-2, 1e-4
# A rise starts as an exponential or, filtered by cable or amplifier, as its square; the former has
# a time constant so many times longer where both look alike.
SLOWER = 1.6

# Rows of the table that the kernel fills: positions and times in samples.
ONSET, STEEPEST, PEAK, BASE, HEIGHT, RISE, SLOPE, HALF, WIDTH, TAU, AREA, OVERLAP, EDGE = range(13)
T10, T50, T90 = 13, 14, 15  # positions on the rise, kept while an event is measured
_KEPT, _ALL = 13, 16
SHAPE = 5  # entries of a fitted rise and decay


@kernel
def _growing_bins(y, start, stop, size, rise):
    """Means of samples, `size` of them up to a rise, and ever more of them beyond it; the times of
    their middles, and how many times `size` each of them holds."""
    most = max((stop - start) // size, 0)
    t, v, weight = np.empty(most), np.empty(most), np.empty(most)
    count, first = 0, start
    while first + size <= stop:
        own = min(max(size, int(GROWTH * (first - rise))), stop - first)
        v[count] = mean_of(y, first, first + own)
        t[count] = first + 0.5 * (own - 1)
        weight[count] = own / size
        first += own
        count += 1
    return t[:count], v[:count], weight[:count]


@kernel
def _curve(y, shape, x0, dx, count, t50, rise, width, fixed):
    """The smooth curve at count positions from x0 on: the fit and the mean of what it leaves."""
    first = int(x0)
    step = 1 if fixed >= 0.0 else max(1, int(rise / 8))
    count_left = min(int((x0 + dx * count - first) / step) + 2, (len(y) - 1 - first) // step + 1)
    final = first + (count_left - 1) * step
    reach = int(max(fixed, width * (RISE_WIDTH * rise + DECAY_WIDTH * max(0.0, final - t50)))) + 2
    low, high = max(first - reach, 0), min(final + reach + 1, len(y))
    left = y[low:high] - shape_along(float(low), 1.0, high - low, shape)
    at, smooth = np.empty(final - first + 1), np.empty(final - first + 1)
    known = 0
    i = first
    while True:
        own = width * (RISE_WIDTH * rise + DECAY_WIDTH * max(0.0, i - t50))
        own = fixed if fixed >= 0.0 else own
        at[known], smooth[known] = i, local_mean(left, i - low, own)
        known += 1
        if i == final:
            break
        i = min(i + (1 if fixed >= 0.0 else max(step, int(own / 6))), final)
    curve = shape_along(x0, dx, count, shape)
    g, slope = -1, 0.0
    for j in range(count):
        x = x0 + j * dx
        while g < 0 or (g + 2 < known and at[g + 1] <= x):
            g += 1
            slope = (smooth[g + 1] - smooth[g]) / (at[g + 1] - at[g]) if g + 1 < known else 0.0
        curve[j] += smooth[g] + (x - at[g]) * slope
    return curve


@kernel
def _baseline(y, clear, foot, length, least):
    """Mean before the foot, not reaching back beyond where the event before it is accounted for."""
    start = max(clear, foot - length, 0)
    if foot - start < 3:
        start = max(foot - least, 0)
    return mean_of(y, start, foot), start


@kernel
def _without_earlier(samples, sign, origin, first, last, shapes, peaks, locations, k):
    """Samples less the fitted decays of earlier events, each from its peak on."""
    y = np.empty(last - first)
    for i in range(len(y)):
        y[i] = sign * samples[first - origin + i]
    for j in range(k - 1, -1, -1):
        since = first - locations[j]
        if since > 4 * len(y):
            break
        if math.isnan(peaks[j]) or since > 12.0 * shapes[j, FALLING]:
            continue
        begin = min(max(math.ceil(peaks[j]) - first, 0), len(y))
        y[begin:] -= shape_along(float(first + begin), 1.0, len(y) - begin, shapes[j])
    return y


@kernel
def _first_look(y, at, lowest, clear, stop, window):
    """Measures from the smoothed samples, with half a decay and rise of sensible length."""
    look = np.full(_ALL, np.nan)
    coarse = max(1.5, COARSE * window)
    at = steepest_near(y, at, lowest, stop, coarse)
    foot = max(foot_before(y, at, lowest, coarse), 1)
    base, start = _baseline(y, clear, foot, int(BASELINE * window), max(3, int(coarse)))
    start = max(start, foot - int(2 * coarse))
    smooth = smoothed_to_half(y, start, at, min(stop, at + window // 2), base, coarse)
    j = highest_before_half(smooth, at - start, len(smooth), base)
    t10, t50, t90, half = crossings(smooth, base, j, smooth[j])
    if not smooth[j] > base or math.isnan(t50) or math.isnan(t90):
        return look
    if math.isnan(t10):
        t10 = t50 - 0.6 * (t90 - t50)
    if math.isnan(half):
        half = float(len(smooth))
    rise = max(t90 - t10, 0.5)
    # the smoothing has widened the rise
    rise = math.sqrt(max(rise**2 - 0.9 * coarse**2, 0.1 * rise**2))
    look[HEIGHT] = smooth[j] - base
    look[T10], look[T50], look[PEAK] = start + t10, start + t50, float(start + j)
    look[RISE], look[HALF] = rise, max(half - j, rise)
    return look


@kernel
def _first_guess(look):
    """Where the fits start."""
    return np.array(
        [look[T10] - 0.2 * look[RISE], 1.5 * look[HEIGHT], 0.6 * look[RISE], 1.4 * look[HALF], 2.0]
    )


@kernel
def _with_power_one(shape):
    """Nearly the same rise and decay, rising as an exponential instead of its square."""
    guess = shape.copy()
    guess[RISING] *= SLOWER
    guess[START] += 0.4 * (guess[RISING] - shape[RISING])
    guess[POWER] = 1.0
    return guess


@kernel
def _best_fit(y, start, stop, base, look, guess, longest, close):
    """The fit from a guess, and its noise; nan where too few samples are left.

    Roughly, it is the better of the two powers; finely, that of the guess.
    """
    size = max(1, int(look[RISE] / BINS))
    t, v, weight = _growing_bins(y, start, stop, size, look[T50])
    if len(t) < 6:
        return np.full(5, np.nan), np.inf
    v -= base
    fit, squares = fit_shape(t, v, weight, guess, look[RISE], longest, close)
    if close == ROUGH:
        other, more = fit_shape(t, v, weight, _with_power_one(fit), look[RISE], longest, close)
        if more < squares:
            fit, squares = other, more
    return fit, math.sqrt(squares / len(t))


@kernel
def _read(curve, x0, dx, base, look):
    """Measures from the smooth curve whose first value is at x0; False if it holds no event."""
    count = len(curve)
    j = highest_before_half(curve, min(max(int((look[T50] - x0) / dx), 0), count - 1), count, base)
    where, top = summit_at(curve, j)
    t10, t50, t90, half = crossings(curve, base, j, top)
    seen = np.full(_ALL, np.nan)
    if not top > base or math.isnan(t50):
        return seen
    seen[HEIGHT] = top - base
    seen[T10], seen[T50], seen[T90] = x0 + t10 * dx, x0 + t50 * dx, x0 + t90 * dx
    seen[PEAK] = x0 + where * dx
    seen[RISE] = (t90 - t10) * dx
    if half <= where:  # the top of the parabola lies past a one-sample peak
        half = np.nan
    seen[HALF] = (half - where) * dx
    seen[WIDTH] = (half - t50) * dx
    if not math.isnan(seen[RISE]):
        slope, steepest = steepest_rise(curve, int(t10), int(t90) + 1)
        seen[SLOPE], seen[STEEPEST] = slope / dx, x0 + steepest * dx
    return seen


@kernel
def _closer_look(look, seen):
    """What the second pass starts from: the measures just seen, the older ones where nan."""
    closer = seen.copy()
    if math.isnan(seen[T10]):
        closer[T10] = look[T10]
    closer[RISE] = max(seen[RISE], 0.5) if not math.isnan(seen[RISE]) else look[RISE]
    closer[HALF] = max(seen[HALF], 0.5) if not math.isnan(seen[HALF]) else 2.0 * look[HALF]
    return closer


@kernel
def _measure_event(y, at, lowest, clear, stop, window, fixed):
    """Measures of one event in its own stretch y, and its fitted rise and decay.

    lowest: first sample after the location before. clear: first that may hold baseline.
    stop: end of what belongs to the event.
    """
    shape = np.full(5, np.nan)
    look = _first_look(y, at, lowest, clear, stop, window)
    if math.isnan(look[HEIGHT]):
        return look, shape
    guess = _first_guess(look)
    seen = look
    base, start, foot = 0.0, 0, 0
    length = int(BASELINE * window)
    # twice, because the foot and the scale seen at first are smeared; roughly at first
    for close in (ROUGH, FINE):
        rise = look[RISE]
        foot = max(min(int(look[T10] - 0.4 * rise), at), 1)
        base, start = _baseline(y, clear, foot, length, max(3, int(rise)))
        end = min(stop, int(look[PEAK] + DECAYS * look[HALF]) + 2)
        begin = max(start, int(look[T10] - 2 * rise))
        best, noise = _best_fit(y, begin, end, base, look, guess, 4.0 * window, close)
        guide = np.array([0.0, 0.0, 1.0, 1.0, 1.0])
        if not math.isnan(best[START]):
            shape = best
            guess = best
            if fixed < 0.0:
                guide = best
        width = min(1.0, noise / (FULL_WIDTH_NOISE * look[HEIGHT]))
        x0 = max(look[T10] - 3.0 * rise, min(start, foot - int(2 * rise)), 0.0)
        x1 = min(look[PEAK] + 3.0 * look[HALF], stop - 1.0)
        dx = max(rise / 20, (x1 - x0) / 4000)
        count = int((x1 - x0) / dx) + 1
        if count < 3:
            return np.full(_ALL, np.nan), np.full(5, np.nan)
        curve = _curve(y[:stop], guide, x0, dx, count, look[T50], rise, width, fixed)
        seen = _read(curve, x0, dx, base, look)
        if math.isnan(seen[HEIGHT]) or seen[PEAK] > at + window // 2:
            return np.full(_ALL, np.nan), np.full(5, np.nan)
        look = _closer_look(look, seen)
    if seen[WIDTH] < 1.0:  # a fit between two samples
        return np.full(_ALL, np.nan), np.full(5, np.nan)
    seen[BASE] = base
    seen[ONSET] = min(look[T10] - 0.25 * (look[T50] - look[T10]), float(at))
    seen[EDGE] = 1.0 if start == 0 and foot < length else 0.0
    if not math.isnan(seen[HALF]):
        seen[AREA] = _area(y, seen, base, stop, shape)
        if shape[FALLING] < 2.0 * window:
            seen[TAU] = shape[FALLING]
    return seen, shape


@kernel
def _area(y, seen, base, stop, shape):
    """Area from onset to four half-decays past the peak, by the fit where samples end before."""
    finish = seen[PEAK] + DECAYS * seen[HALF]
    whole = min(finish, stop - 1.0)
    area = integral(y, max(seen[ONSET], 0.0), whole, base)
    if whole < finish and not math.isnan(shape[START]):
        area += shape_integral(whole, finish, shape)
    return area


@kernel
def measure_all(samples, sign, origin, locations, shapes, peaks, begin, stop, window, fixed):
    """Events begin to stop in turn, each on what the decays of the earlier ones leave; (13, n).

    samples: of the trace from sample `origin` on, times sign. locations: of all events, as far as
    they matter. shapes, peaks: fitted to them and where they are highest, nan where not known;
    these two are written.
    """
    table = np.full((_KEPT, stop - begin), np.nan)
    table[OVERLAP] = table[EDGE] = 0.0
    coarse = max(1.5, COARSE * window)
    behind, ahead = int(BEHIND * window), int(AHEAD * window)
    for k in range(begin, stop):
        column = table[:, k - begin]
        first, last = recorded(samples, locations[k] - origin, behind, ahead)
        first, last = first + origin, last + origin
        at = locations[k] - first
        if at < 2 or last - locations[k] < 4:
            column[EDGE] = 1.0
            continue
        y = _without_earlier(samples, sign, origin, first, last, shapes, peaks, locations, k)
        lowest, clear = 0, 0
        if k > 0 and locations[k - 1] >= first:
            lowest = min(locations[k - 1] - first + 1, at)
            clear = at if math.isnan(peaks[k - 1]) else int(peaks[k - 1]) + 1 - first
        end = len(y)
        followed = k + 1 < len(locations) and locations[k + 1] < last
        if followed:
            # the smoothing spreads the next rise over some samples before its foot
            foot = foot_before(y, locations[k + 1] - first, at, coarse) - int(coarse / 2)
            end = min(max(foot, at + 2), end)
        seen, shape = _measure_event(y, at, lowest, clear, end, window, fixed)
        if math.isnan(seen[HEIGHT]):
            continue
        if not seen[PEAK] + DECAYS * seen[HALF] <= end - 1:
            if followed:
                column[OVERLAP] = 1.0
            elif last < locations[k] + ahead:
                seen[EDGE] = 1.0
        top = first + int(seen[PEAK] + 0.5)
        seen[BASE] += sign * samples[top - origin] - y[top - first]
        seen[ONSET] += first
        seen[STEEPEST] += first
        seen[PEAK] += first
        column[:OVERLAP] = seen[:OVERLAP]
        column[EDGE] = seen[EDGE]
        if not math.isnan(shape[START]):
            shapes[k] = shape
            shapes[k, START] += first
            peaks[k] = seen[PEAK]
    return table

"""The measures of every event: baseline, amplitude, rise, decay, width and area.

An event is read from a smooth curve, not from its noisy samples. The curve is a rise and decay,
a (1 - exp(-t / rise))^power exp(-t / decay), fitted to the event, plus a running mean of what the
fit leaves over. The fit takes the noise away where smoothing would widen a fast rise; the running
mean lets the curve follow events of another shape, and is the narrower the less noise there is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal.errors import UsageError
from quantal.fitting import (
    FALLING,
    POWER,
    RISING,
    START,
    fit_shape,
    shape_along,
    shape_integral,
)
from quantal.kernel import kernel, notice

Floats = NDArray[np.float64]

DECAYS_IN_WINDOW = 12.0  # decay constants in a window that fits
_SHORTEST = 8  # samples in a window
_ENOUGH = 5  # events that tell how long they are
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
_SHAPE = 5  # entries of a fitted rise and decay


@dataclass(frozen=True, eq=False, kw_only=True)
class Measures:
    """What is measured of each event: one value per location, nan what cannot be measured.

    onset, steepest (of the rise), peak: positions in samples, also between samples. baseline:
    level under the peak, with what earlier events leave there. amplitude: peak less baseline.
    slope_per_ms: steepest rise. area: from onset to four half-decays past the peak, unit x s; where
    the next event or the end of the sweep cuts it, the fitted decay completes it. overlap: another
    event lies within its decay. edge: baseline or decay are cut by the end of the sweep or by
    missing samples.
    """

    onset: Floats
    steepest: Floats
    peak: Floats
    baseline: Floats
    amplitude: Floats
    rise_10_90_ms: Floats
    slope_per_ms: Floats
    half_decay_ms: Floats
    half_width_ms: Floats
    tau_decay_ms: Floats
    area: Floats
    overlap: NDArray[np.bool_]
    edge: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.onset)


def measure(
    samples: ArrayLike,
    rate_hz: float,
    locations: ArrayLike,
    window: int,
    *,
    sign: int = 1,
    smooth_ms: float | None = None,
) -> Measures:
    """Measure events at their locations (samples of the steepest rise, in order).

    window: samples in a stretch that fits an event, about twelve decay constants; within a factor
    of two or three it changes little. sign: -1 for downward events, which are measured as if the
    trace were turned over.
    smooth_ms: width of a fixed smoothing, in place of the curve fitted to each event.

    Raises UsageError if locations are not whole numbers in order and within the samples, or rate,
    window or smoothing are out of range.
    """
    y = np.ascontiguousarray(samples, dtype=np.float32)
    chain = Chain(rate_hz, window, sign=sign, smooth_ms=smooth_ms)
    chain.add(_as_locations(locations, len(y)))
    return chain.measure(y, len(chain.waiting))


class Chain:
    """Events that are measured in turn, each on what the decays of the earlier ones leave.

    For a trace that comes in pieces; options and errors are those of `measure`.
    """

    def __init__(
        self, rate_hz: float, window: int, *, sign: int = 1, smooth_ms: float | None = None
    ) -> None:
        self._rate_hz, self._sign = rate_hz, sign
        self._window, self._half_width = _sizes(rate_hz, window, smooth_ms)
        self._locations = np.empty(0, np.int64)
        self._shapes, self._peaks = np.empty((0, _SHAPE)), np.empty(0)
        self._measured = 0

    @property
    def waiting(self) -> NDArray[np.int64]:
        """Locations that are not measured yet, in order."""
        return self._locations[self._measured :]

    def add(self, locations: NDArray[np.int64]) -> None:
        """The next locations, in order."""
        count = len(locations)
        self._locations = np.concatenate([self._locations, locations])
        self._shapes = np.concatenate([self._shapes, np.full((count, _SHAPE), np.nan)])
        self._peaks = np.concatenate([self._peaks, np.full(count, np.nan)])

    def measure(self, samples: NDArray[np.float32], count: int, first: int = 0) -> Measures:
        """Measure the next `count` of those that wait.

        samples: of the trace from sample `first` on, from a window before to two windows after
        each. Locations up to two windows after the last of them must have been added.
        """
        begin, end = self._measured, self._measured + count
        self._measured = end
        table = _measure_all(
            samples,
            self._sign,
            first,
            self._locations,
            self._shapes,
            self._peaks,
            begin,
            end,
            self._window,
            self._half_width,
        )
        return _as_measures(table, self._rate_hz)

    def forget(self, before: int) -> None:
        """Of those that are measured keep the last one, and those that lie from this sample on."""
        gone = int(np.searchsorted(self._locations, before))
        gone = max(min(gone, self._measured - 1), 0)
        self._locations, self._measured = self._locations[gone:], self._measured - gone
        self._shapes, self._peaks = self._shapes[gone:], self._peaks[gone:]


def _sizes(rate_hz: float, window: int, smooth_ms: float | None) -> tuple[int, float]:
    """Window and fixed half width (samples; -1 if fitted), once they are found to make sense."""
    if not (math.isfinite(rate_hz) and rate_hz > 0):
        raise UsageError(f"rate_hz must be a positive number, got {rate_hz!r}.")
    if window < _SHORTEST:
        raise UsageError(
            f"window must be at least {_SHORTEST} samples, got {window}; try a longer one."
        )
    if smooth_ms is not None and not (math.isfinite(smooth_ms) and smooth_ms >= 0):
        raise UsageError(f"smooth_ms must be 0 or more milliseconds, or None, got {smooth_ms!r}.")
    return int(window), -1.0 if smooth_ms is None else 0.5e-3 * smooth_ms * rate_hz


def _as_measures(table: Floats, rate_hz: float) -> Measures:
    """Measures from the rows that the kernel fills."""
    ms = 1e3 / rate_hz
    return Measures(
        onset=table[ONSET],
        steepest=table[STEEPEST],
        peak=table[PEAK],
        baseline=table[BASE],
        amplitude=table[HEIGHT],
        rise_10_90_ms=table[RISE] * ms,
        slope_per_ms=table[SLOPE] / ms,
        half_decay_ms=table[HALF] * ms,
        half_width_ms=table[WIDTH] * ms,
        tau_decay_ms=table[TAU] * ms,
        area=table[AREA] / rate_hz,
        overlap=table[OVERLAP] > 0,
        edge=table[EDGE] > 0,
    )


def fitting_window(measures: Measures, window: int, rate_hz: float) -> int:
    """The window (samples) that fits events measured with another one.

    The window stays as it is within a factor of 1.5, and moves by a factor of eight at most.
    """
    fitting_ms = fitting_window_ms(measures.half_decay_ms, measures.overlap | measures.edge)
    if fitting_ms is None:
        return window
    ratio = min(max(1e-3 * fitting_ms * rate_hz / window, 1 / 8), 8.0)
    return window if 1 / 1.5 < ratio < 1.5 else max(round(ratio * window), _SHORTEST)


def fitting_window_ms(half_decay_ms: Floats, disturbed: NDArray[np.bool_]) -> float | None:
    """Twelve decay constants of events, from their median half-decay; None without any.

    disturbed: those that overlap or are cut; they count only where fewer than five are left.
    """
    measured = np.isfinite(half_decay_ms)
    alone = measured & ~disturbed
    chosen = alone if alone.sum() >= _ENOUGH else measured
    if not chosen.any():
        return None
    return DECAYS_IN_WINDOW * float(np.median(half_decay_ms[chosen])) / math.log(2)


def _as_locations(locations: ArrayLike, n: int) -> NDArray[np.int64]:
    given = np.asarray(locations)
    if given.size == 0:
        return np.empty(0, np.int64)
    if given.ndim != 1 or given.dtype.kind not in "iu":
        raise UsageError(
            "locations must be whole sample positions in one dimension, "
            f"got {given.dtype} of shape {given.shape}."
        )
    at = np.ascontiguousarray(given, dtype=np.int64)
    if at.min() < 0 or at.max() >= n:
        raise UsageError(f"locations must be within 0 to {n - 1}, got {at.min()} to {at.max()}.")
    if (np.diff(at) < 0).any():
        raise UsageError("locations must be in order; sort them first.")
    return at


@kernel
def _local_mean(y, i, half_width):
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
def mean_of(y, start, stop):
    """The mean of samples from start to stop."""
    total = 0.0
    for i in range(start, stop):
        total += y[i]
    return total / (stop - start)


@kernel
def _rise_crossing(y, start, stop, level):
    """Where y last rises through level, followed back from stop to start; nan if it does not."""
    for i in range(stop, start, -1):
        if y[i - 1] < level <= y[i]:
            return i - (y[i] - level) / (y[i] - y[i - 1])
    return np.nan


@kernel
def _fall_crossing(y, start, stop, level):
    """Where y first falls to level after start and before stop; nan if it does not."""
    for i in range(start + 1, stop):
        if y[i] <= level < y[i - 1]:
            return i - (level - y[i]) / (y[i - 1] - y[i])
    return np.nan


@kernel
def _foot(y, at, first, half_width):
    """Where the smoothed trace stops falling, followed back from the steepest rise."""
    here = _local_mean(y, at, half_width)
    for i in range(at - 1, first - 1, -1):
        before = _local_mean(y, i, half_width)
        if before >= here:
            return i + 1
        here = before
    return min(first, at)


@kernel
def _steepest_near(y, at, first, stop, half_width):
    """The steepest rise of the smoothed trace within two half widths of a location."""
    reach = int(2 * half_width)
    best, where = 0.0, at
    for i in range(max(at - reach, first, 1), min(at + reach + 1, stop - 1, len(y) - 1)):
        rise = _local_mean(y, i + 1, half_width) - _local_mean(y, i - 1, half_width)
        if rise > best:
            best, where = rise, i
    return where


@kernel
def _peak(y, start, stop, base):
    """The highest sample from start on, before y has fallen to half."""
    best = start
    for i in range(start, stop):
        if y[i] > y[best]:
            best = i
        elif 0.0 < y[best] - base > 2.0 * (y[i] - base):
            break
    return best


@kernel
def _integral(y, start, stop, base):
    """Area above base between two positions, by trapezia whose ends may lie between samples."""
    total = 0.0
    for i in range(math.floor(start), min(math.ceil(stop), len(y) - 1)):
        a = max(start - i, 0.0)
        b = min(stop - i, 1.0)
        middle = y[i] + 0.5 * (a + b) * (y[i + 1] - y[i])
        total += (b - a) * (middle - base)
    return total


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
        at[known], smooth[known] = i, _local_mean(left, i - low, own)
        known += 1
        if i == final:
            break
        i = min(i + (1 if fixed >= 0.0 else max(step, int(own / 6))), final)
    curve = shape_along(x0, dx, count, shape)
    g = 0
    for j in range(count):
        x = x0 + j * dx
        while g + 2 < known and at[g + 1] <= x:
            g += 1
        curve[j] += smooth[g]
        if g + 1 < known:
            curve[j] += (x - at[g]) / (at[g + 1] - at[g]) * (smooth[g + 1] - smooth[g])
    return curve


@kernel
def _summit(y, j):
    """Position and height of the top of a parabola through a peak sample and its neighbours."""
    if 0 < j < len(y) - 1:
        bend = y[j - 1] - 2.0 * y[j] + y[j + 1]
        if bend < 0.0:
            shift = 0.5 * (y[j - 1] - y[j + 1]) / bend
            return j + shift, y[j] - 0.25 * (y[j - 1] - y[j + 1]) * shift
    return float(j), y[j]


@kernel
def _crossings(curve, base, peak, top):
    """Positions at 10, 50 and 90 % of the rise and at half the decay."""
    height = top - base
    t10 = t90 = np.nan
    t50 = _rise_crossing(curve, 0, peak, base + 0.5 * height)
    if not math.isnan(t50):
        t10 = _rise_crossing(curve, 0, int(t50) + 1, base + 0.1 * height)
        t90 = _rise_crossing(curve, int(t50), peak, base + 0.9 * height)
    half = _fall_crossing(curve, peak, len(curve), base + 0.5 * height)
    return t10, t50, t90, half


@kernel
def _steepest(curve, start, stop):
    """The steepest rise between two values, and where it is."""
    slope, where = np.nan, np.nan
    for j in range(max(start, 0), min(stop, len(curve) - 1)):
        rise = curve[j + 1] - curve[j]
        if not slope > rise:
            slope, where = rise, j + 0.5
    return slope, where


@kernel
def _baseline(y, clear, foot, length, least):
    """Mean before the foot, not reaching back beyond where the event before it is accounted for."""
    start = max(clear, foot - length, 0)
    if foot - start < 3:
        start = max(foot - least, 0)
    return mean_of(y, start, foot), start


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
def _smooth_to_half(y, start, at, stop, base, half_width):
    """The smoothed samples from start until, past at, they have fallen to half; at most to stop."""
    smooth = np.empty(stop - start)
    best = -np.inf
    for i in range(stop - start):
        smooth[i] = _local_mean(y, start + i, half_width)
        if start + i >= at:
            best = max(best, smooth[i])
            if 0.0 < best - base > 2.0 * (smooth[i] - base):
                return smooth[: i + 1]
    return smooth


@kernel
def _first_look(y, at, lowest, clear, stop, window):
    """Measures from the smoothed samples, with half a decay and rise of sensible length."""
    look = np.full(_ALL, np.nan)
    coarse = max(1.5, COARSE * window)
    at = _steepest_near(y, at, lowest, stop, coarse)
    foot = max(_foot(y, at, lowest, coarse), 1)
    base, start = _baseline(y, clear, foot, int(BASELINE * window), max(3, int(coarse)))
    start = max(start, foot - int(2 * coarse))
    smooth = _smooth_to_half(y, start, at, min(stop, at + window // 2), base, coarse)
    j = _peak(smooth, at - start, len(smooth), base)
    t10, t50, t90, half = _crossings(smooth, base, j, smooth[j])
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
    j = _peak(curve, min(max(int((look[T50] - x0) / dx), 0), count - 1), count, base)
    where, top = _summit(curve, j)
    t10, t50, t90, half = _crossings(curve, base, j, top)
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
        slope, steepest = _steepest(curve, int(t10), int(t90) + 1)
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
    area = _integral(y, max(seen[ONSET], 0.0), whole, base)
    if whole < finish and not math.isnan(shape[START]):
        area += shape_integral(whole, finish, shape)
    return area


@kernel
def _measure_all(samples, sign, origin, locations, shapes, peaks, begin, stop, window, fixed):
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
            foot = _foot(y, locations[k + 1] - first, at, coarse) - int(coarse / 2)
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


def compiling() -> str | None:
    """What to tell a user who will wait for kernels to be compiled; None if nobody will.

    These here are compiled last, whatever scores a trace.
    """
    return notice(_measure_all)

"""Stretches -> event locations: the steepest rise, with overlapping events told apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quantal.filters import hann, odd_width
from quantal.kernel import kernel
from quantal.noise import robust_sd
from quantal.peaks import local_maxima, prominences_of

Samples = NDArray[np.float32]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
_NOISE_SDS = 4.5  # a rise must be this steep, in SD of the gradient where there is no event
_RELATIVE = 0.25  # and this prominent beside the most prominent rise of its stretch
_LOOKED_AT = 200_000  # samples, at most, evenly spread, that the noise of the gradient is told from


def slope_weights(window: float, smoothing: float | None = None) -> Floats:
    """Weights, odd in number, of the smoothed gradient in which events are located.

    A Hann window, a central difference and a wider Hann window in one. window: samples that fit an
    event; the Hann windows are 1/30 of it (or `smoothing` samples) and 1/15.
    """
    first = hann(odd_width(window / 30 if smoothing is None else smoothing))
    return np.convolve(np.convolve(first, [-0.5, 0.0, 0.5]), hann(odd_width(window / 15)))


def steepest_rises(
    samples: Samples,
    weights: Floats,
    starts: Integers,
    stops: Integers,
    closest: int = 1,
) -> tuple[Integers, Integers]:
    """Samples of the steepest rise in stretches that hold one event each, and their stretches.

    In order of time. Beyond the ends of the samples the last one goes on. weights: of the gradient,
    negative for downward events. Rises less than `closest` samples apart are one event, the
    steeper. An empty stretch holds none.
    """
    location, slope = rises(samples, weights, starts, stops)
    stretch = np.flatnonzero(stops > starts)
    return _told_apart(location[stretch], slope[stretch], stretch, closest)


def rises(
    samples: Samples, weights: Floats, starts: Integers, stops: Integers, first: int = 0
) -> tuple[Integers, Floats]:
    """Where each stretch rises steepest and the gradient there; the start of an empty one.

    samples: of the trace from sample `first` on; beyond their ends the last one goes on.
    """
    location, slope = _steepest(samples, weights, starts - first, stops - first)
    return location + first, slope


def locate_events(
    samples: Samples,
    weights: Floats,
    starts: Integers,
    stops: Integers,
    noise_sd: float,
    closest: int,
) -> tuple[Integers, Integers]:
    """Samples of the steepest rises in stretches that hold one event or several, as above.

    noise_sd: SD of the gradient where there is no event. In each stretch every peak of the
    gradient that is high and prominent enough is an event; if none is, its maximum.
    """
    location, slope, stretch = _locate(samples, weights, starts, stops, _NOISE_SDS * noise_sd)
    return _told_apart(location, slope, stretch, closest)


def _told_apart(
    location: Integers, slope: Floats, stretch: Integers, closest: int
) -> tuple[Integers, Integers]:
    """Locations in order of time, and their stretches; of those that are close, the steeper."""
    order = np.argsort(location, kind="stable")
    location, stretch = location[order], stretch[order]
    keep = _steepest_of_close(slope[order], location, closest)
    return location[keep], stretch[keep]


def noise_level(
    samples: Samples,
    weights: Floats,
    quiet: NDArray[np.bool_],
    starts: Integers,
    stops: Integers,
) -> float:
    """SD of the gradient outside the stretches, where quiet (recorded, wanted); 0 if nowhere.

    From the median absolute deviation where that is not 0: the transient of one test pulse must
    not hide the events of a whole sweep.
    """
    outside = quiet.copy()
    clear(outside, starts, stops)
    counted = outside if outside.any() else quiet
    step = max(np.count_nonzero(counted) // _LOOKED_AT, 1)
    return robust_sd(_slope_at_some(samples, weights, counted, step))


@kernel
def clear(mask, starts, stops):
    """Takes stretches out of a mask, which is changed."""
    for k in range(len(starts)):
        mask[starts[k] : stops[k]] = False


@kernel
def _slope_at(samples, weights, i):
    """The weighted sum around a sample; samples at the ends go on beyond them."""
    n, half = len(samples), len(weights) // 2
    total = 0.0
    if i >= half and i + half < n:
        for j in range(len(weights)):
            total += weights[j] * samples[i - half + j]
    else:
        for j in range(len(weights)):
            total += weights[j] * samples[min(max(i - half + j, 0), n - 1)]
    return total


@kernel
def _slopes(samples, weights, start, stop):
    """The gradient from start to stop: many samples side by side, as far as none is at an end."""
    out = np.zeros(max(stop - start, 0), np.float64)
    half = len(weights) // 2
    first = min(max(half - start, 0), len(out))
    last = max(min(len(samples) - half - start, len(out)), first)
    inner = out[first:last]
    begin = start + first - half
    for j in range(len(weights)):
        weight = weights[j]
        shifted = samples[begin + j : begin + j + len(inner)]
        for i in range(len(inner)):
            inner[i] += weight * shifted[i]
    for i in range(first):
        out[i] = _slope_at(samples, weights, start + i)
    for i in range(last, len(out)):
        out[i] = _slope_at(samples, weights, start + i)
    return out


@kernel
def _steepest(samples, weights, starts, stops):
    """Where the gradient of each stretch is highest, and how high; the start of an empty one."""
    location = starts.copy()
    highest = np.full(len(starts), -np.inf)
    for k in range(len(starts)):
        part = _slopes(samples, weights, starts[k], stops[k])
        for i in range(len(part)):
            if part[i] > highest[k]:
                location[k], highest[k] = starts[k] + i, part[i]
    return location, highest


@kernel
def _slope_at_some(samples, weights, counted, step):
    """The gradient at every `step`-th of the samples that count."""
    out = np.empty((counted.sum() + step - 1) // step, np.float32)
    seen = 0
    for i in range(len(counted)):
        if counted[i]:
            if seen % step == 0:
                out[seen // step] = _slope_at(samples, weights, i)
            seen += 1
    return out


@kernel
def _locate(samples, weights, starts, stops, steep):
    size = len(starts)
    for k in range(len(starts)):
        size += max(stops[k] - starts[k], 0) // 2
    location = np.empty(size, np.int64)
    slope = np.empty(size, np.float64)
    stretch = np.empty(size, np.int64)
    count = 0
    for k in range(len(starts)):
        part = _slopes(samples, weights, starts[k], stops[k])
        if not len(part):
            continue
        peaks = local_maxima(part)
        prominences, _, _ = prominences_of(part, peaks)
        highest = 0.0
        for j in range(len(peaks)):
            if part[peaks[j]] >= steep:
                highest = max(highest, prominences[j])
        first = count
        for j in range(len(peaks)):
            prominent = prominences[j] >= steep and prominences[j] >= _RELATIVE * highest
            if part[peaks[j]] >= steep and prominent:
                location[count], slope[count] = starts[k] + peaks[j], part[peaks[j]]
                count += 1
        if count == first:
            top = np.argmax(part)
            location[count], slope[count] = starts[k] + top, part[top]
            count += 1
        stretch[first:count] = k
    return location[:count], slope[:count], stretch[:count]


@kernel
def _steepest_of_close(slope, location, closest):
    keep = np.ones(len(location), np.bool_)
    last = 0
    for k in range(1, len(location)):
        if location[k] - location[last] >= max(closest, 1):
            last = k
        elif slope[k] > slope[last]:
            keep[last] = False
            last = k
        else:
            keep[k] = False
    return keep

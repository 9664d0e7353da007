"""Stretches -> event locations: the steepest rise, with overlapping events told apart."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from quantal.filters import hann, odd_width
from quantal.kernel import kernel
from quantal.noise import robust_sd
from quantal.peaks import _local_maxima, _prominences

Floats = NDArray[np.float64]
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


def slope_within(
    samples: NDArray[np.float32],
    weights: Floats,
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
) -> NDArray[np.float32]:
    """The gradient by these weights in stretches that are in order, and 0 elsewhere: (n,).

    Beyond the trace's ends its first and last sample go on.
    """
    slope = np.zeros(len(samples), np.float32)
    _fill_slope(slope, samples, weights, starts, stops)
    return slope


def locate_events(
    slope: NDArray[np.float32],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    noise_sd: float,
    closest: int,
    *,
    single: bool = False,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Samples of steepest rise and the stretch that each lies in, in order of time.

    slope: the smoothed gradient of the upward trace. starts, stops: stretches of it, in order.
    noise_sd: SD of the gradient where there is no event. In each stretch every peak of the
    gradient that is high and prominent enough is an event; if none is, its maximum. single: only
    the maximum is, for stretches that hold one event each; the noise is of no matter. Locations
    less than `closest` samples apart are one event, the steeper.
    """
    steep = math.inf if single else _NOISE_SDS * noise_sd
    location, stretch = _locate(slope, starts, stops, steep)
    order = np.argsort(location, kind="stable")
    location, stretch = location[order], stretch[order]
    keep = _steepest_of_close(slope, location, closest)
    return location[keep], stretch[keep]


def noise_level(
    samples: NDArray[np.float32],
    weights: Floats,
    quiet: NDArray[np.bool_],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
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
def _fill_slope(slope, samples, weights, starts, stops):
    """Writes the first argument."""
    done = 0
    for k in range(len(starts)):
        for i in range(max(starts[k], done), stops[k]):
            slope[i] = _slope_at(samples, weights, i)
        done = max(done, stops[k])


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
def _locate(slope, starts, stops, steep):
    size = len(starts)
    for k in range(len(starts)):
        size += max(stops[k] - starts[k], 0) // 2
    location = np.empty(size, np.int64)
    stretch = np.empty(size, np.int64)
    count = 0
    for k in range(len(starts)):
        part = slope[starts[k] : stops[k]]
        if not len(part):
            continue
        first = count
        peaks = _local_maxima(part)
        prominences, _, _ = _prominences(part, peaks)
        highest = 0.0
        for j in range(len(peaks)):
            if part[peaks[j]] >= steep:
                highest = max(highest, prominences[j])
        for j in range(len(peaks)):
            prominent = prominences[j] >= steep and prominences[j] >= _RELATIVE * highest
            if part[peaks[j]] >= steep and prominent:
                location[count], stretch[count] = starts[k] + peaks[j], k
                count += 1
        if count == first:
            location[count], stretch[count] = starts[k] + np.argmax(part), k
            count += 1
    return location[:count], stretch[:count]


@kernel
def _steepest_of_close(slope, location, closest):
    keep = np.ones(len(location), np.bool_)
    last = 0
    for k in range(1, len(location)):
        if location[k] - location[last] >= max(closest, 1):
            last = k
        elif slope[location[k]] > slope[location[last]]:
            keep[last] = False
            last = k
        else:
            keep[k] = False
    return keep

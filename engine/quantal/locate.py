"""Stretches -> event locations: the steepest rise, with overlapping events told apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quantal.kernel import kernel
from quantal.noise import robust_sd
from quantal.peaks import _local_maxima, _prominences

_NOISE_SDS = 4.5  # a rise must be this steep, in SD of the gradient where there is no event
_RELATIVE = 0.25  # and this prominent beside the most prominent rise of its stretch


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
    the most prominent is, for stretches that hold one event each. Locations less than `closest`
    samples apart are one event, the steeper.
    """
    relative = 1.0 if single else _RELATIVE
    location, stretch = _locate(slope, starts, stops, _NOISE_SDS * noise_sd, relative)
    order = np.argsort(location, kind="stable")
    location, stretch = location[order], stretch[order]
    keep = _steepest_of_close(slope, location, closest)
    return location[keep], stretch[keep]


def noise_level(
    slope: NDArray[np.float32],
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
    values = slope[outside] if outside.any() else slope[quiet]
    return robust_sd(values)


@kernel
def clear(mask, starts, stops):
    """Takes stretches out of a mask, which is changed."""
    for k in range(len(starts)):
        mask[starts[k] : stops[k]] = False


@kernel
def _locate(slope, starts, stops, steep, relative):
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
            prominent = prominences[j] >= steep and prominences[j] >= relative * highest
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

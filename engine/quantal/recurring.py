"""Events that recur at one time of nearly every sweep: a stimulus, or what it evokes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from quantal.events import Events

_TOGETHER_S = (5e-4, 2e-3, 5e-3)  # how close events lie that recur; what is evoked has some jitter
_CHANCE = 0.01  # how often chance may make a recording seem to recur
_NEARLY, _FEWEST = 0.9, 4  # of the sweeps, and sweeps

Floats = NDArray[np.float64]


def repeated_times(events: Events) -> list[tuple[float, int, int]]:
    """Times (s) at which nearly every sweep of a channel has an event, in how many, of how many.

    Nearly every is nine of ten, of four or more; and chance would hardly do it at the rate of these
    events.
    """
    found = []
    for channel in dict.fromkeys(sweep.channel for sweep in events.sweeps):
        searched = [sweep.analysed_s for sweep in events.sweeps if sweep.channel == channel]
        own = events[events.channel == channel]
        repeated = _repeated(own.location_s, own.sweep, sum(searched), len(searched))
        found += [(time_s, hits, len(searched)) for time_s, hits in repeated]
    return found


def _repeated(
    times: Floats, sweeps: NDArray[np.int64], searched_s: float, count: int
) -> list[tuple[float, int]]:
    """The same of one channel: times and in how many sweeps."""
    if count < _FEWEST or not len(times) or not searched_s > 0:
        return []
    order = np.argsort(times)
    times, sweeps = times[order], sweeps[order]
    needed = math.ceil(_NEARLY * count)
    for within_s in _TOGETHER_S:
        one = -math.expm1(-len(times) / searched_s * within_s)
        by_chance = _at_least(needed - 1, count - 1, one)  # in the other sweeps, after an event
        if by_chance * len(times) > _CHANCE:
            continue
        stops = np.searchsorted(times, times + within_s, side="right")
        found = _separate(times, stops, _sweeps_within(times, stops, sweeps), needed)
        if found:
            return found
    return []


def _sweeps_within(
    times: Floats, stops: NDArray[np.int64], sweeps: NDArray[np.int64]
) -> NDArray[np.int64]:
    """How many sweeps have an event among the events k to stops[k], for each k."""
    hits = np.zeros(len(times), np.int64)
    for sweep in np.unique(sweeps):
        before = np.concatenate([[0], np.cumsum(sweeps == sweep)])
        hits += before[stops] > before[:-1]
    return hits


def _at_least(hits: int, tries: int, chance: float) -> float:
    """How probable so many hits are at most (Chernoff's bound, exact where every try is one)."""
    share = hits / tries
    if chance >= share:
        return 1.0
    misses = 0.0 if hits == tries else (1 - share) * math.log((1 - chance) / (1 - share))
    return math.exp(tries * (share * math.log(chance / share) + misses))


def _separate(
    times: NDArray[np.float64],
    stops: NDArray[np.int64],
    in_sweeps: NDArray[np.int64],
    needed: int,
) -> list[tuple[float, int]]:
    """Of stretches of events that overlap, the one with events in most sweeps: median time, sweeps.

    Stretch k holds the events k to stops[k].
    """
    found: list[tuple[float, int]] = []
    begin = 0
    enough = np.flatnonzero(in_sweeps >= needed)
    while begin < len(enough):
        first = enough[begin]
        overlapping = enough[begin:][enough[begin:] < stops[first]]
        best = overlapping[np.argmax(in_sweeps[overlapping])]
        found.append((float(np.median(times[best : stops[best]])), int(in_sweeps[best])))
        begin = int(np.searchsorted(enough, stops[best]))
    return found

"""Which windows a network must read, so that its events are those of reading all of them.

Events come from runs of scores: those that are not quiet (a part QUIET of the threshold or more),
with no more than four quiet ones in between. A run that reaches the threshold must be read whole.
All other scores change nothing and may as well be 0. A network feels an event well before and after
its score is high, so few windows are read at first and more where it feels anything. Only where
something large enters or leaves a window, and its scale jumps, a score can rise and fall at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantal.peaks import BRIDGED, QUIET
from quantal.scout import Scout, look
from quantal.windows import window_ranges

Array = NDArray[np.float32]
Numbers = NDArray[np.int64]

# Of the threshold, of the window's length, and of its range. With cnn-lstm, on 625 simulated
# stretches of many kinds and beginning at any of four windows, they lost none of 77,000 runs that
# reached thresholds from LOWEST on. At lower ones they lost four of 104,000, and there a network
# feels something nearly everywhere: all windows are read.
FELT = 0.005
SPARSE = 2 / 15
JUMP = 2.0
LOWEST = 0.25
_BLOCK = 262_144  # windows that are settled before the next ones


@dataclass(frozen=True, eq=False, kw_only=True)
class Reading:
    """Scores of windows, 0 where they are not read, and how others are read, by their numbers."""

    values: Array
    known: NDArray[np.bool_]
    read: Callable[[Numbers], Array]

    def look(self, numbers: Numbers) -> None:
        """Read these windows, unless they are known."""
        new = numbers[~self.known[numbers]]
        self.values[new] = self.read(new)
        self.known[new] = True

    def around(self, numbers: Numbers, level: float, reach: NDArray[np.int64]) -> Numbers:
        """Unknown windows so far from those of these that score at least level, in order."""
        high = numbers[self.values[numbers] >= level]
        near = (high[:, None] + reach).ravel()
        near = near[(near >= 0) & (near < len(self.values))]
        unknown: Numbers = np.unique(near[~self.known[near]])
        return unknown


def read_all(
    read: Callable[[Numbers], Array], count: int, told: Callable[[int], None], block: int = 4_096
) -> Array:
    """Scores (count,) of all windows."""
    values = np.empty(count, np.float32)
    for first in range(0, count, block):
        numbers = np.arange(first, min(first + block, count))
        values[numbers] = read(numbers)
        told(first + len(numbers))
    return values


@dataclass(frozen=True, eq=False, kw_only=True)
class Beginning:
    """Windows that are read first, in order, and what follows from them.

    felt: part of the threshold from which a window leads to others. reach: how many of these,
    either side.
    """

    numbers: Numbers
    felt: float
    reach: int


def read_screened(
    read: Callable[[Numbers], Array],
    count: int,
    beginning: Beginning,
    *,
    threshold: float,
    told: Callable[[int], None] = lambda _: None,
) -> tuple[Array, NDArray[np.bool_]]:
    """Scores (count,), 0 where no event of this threshold depends on them, and which were read.

    read: the scores of windows, by their numbers in order. told: how many are settled.
    """
    reading = Reading(
        values=np.zeros(count, np.float32), known=np.zeros(count, np.bool_), read=read
    )
    for first in range(0, count, _BLOCK):
        begin, end = np.searchsorted(beginning.numbers, (first, first + _BLOCK))
        _settle(reading, beginning, beginning.numbers[begin:end], threshold)
        told(min(first + _BLOCK, count))
    return reading.values, reading.known


def evenly(samples: Array, starts: Numbers, stride: int, width: int) -> Beginning:
    """One window in every SPARSE of a window's length, and all where their range jumps."""
    reach = int(SPARSE * width / stride)
    looked = spread(len(starts), reach)
    jumps = at_jumps(looked, window_ranges(samples, starts[looked], width))
    return Beginning(numbers=np.union1d(looked, jumps), felt=FELT, reach=reach)


def scouted(
    scout: Scout, level: float, samples: Array, starts: Numbers, stride: int, width: int
) -> Beginning:
    """The windows that a scout suspects from a level on, and all where their range jumps.

    The last is always read: a score that rises at the end of a trace need not fall again.
    """
    looked = np.arange(0, len(starts), scout.hop // stride)
    values, ranges = look(scout, samples, int(starts[0]), len(looked), width)
    found = np.union1d(looked[values >= level], at_jumps(looked, ranges))
    found = np.union1d(found, np.arange(len(starts))[-1:])
    return Beginning(numbers=found, felt=scout.felt, reach=BRIDGED)


def spread(count: int, reach: int) -> Numbers:
    """The first of every `reach` numbers below count, and the last of all."""
    return np.union1d(np.arange(0, count, reach), np.arange(count)[-1:])


def at_jumps(looked: Numbers, ranges: Array) -> Numbers:
    """Windows from one of those looked at to the next, where the range doubles or halves at once.

    ranges: of the samples of each window looked at; 0 of flat ones, nan where samples are missing.
    """
    ranges = np.nan_to_num(ranges.astype(np.float64), nan=0.0)  # their double may not fit single
    high, low = np.maximum(ranges[1:], ranges[:-1]), np.minimum(ranges[1:], ranges[:-1])
    jumps = np.flatnonzero((high >= JUMP * low) & (high > 0))
    between = [np.arange(looked[k], looked[k + 1] + 1) for k in jumps]
    return np.concatenate([np.empty(0, np.int64), *between])


def _settle(reading: Reading, beginning: Beginning, numbers: Numbers, threshold: float) -> None:
    """Read these windows, and all that belong to events which they feel."""
    reading.look(numbers)
    level, reach = beginning.felt * threshold, beginning.reach
    near = reading.around(numbers, level, np.arange(-reach, reach + 1))
    reading.look(near)
    numbers = np.union1d(numbers[reading.values[numbers] >= level], near)
    while len(numbers):
        numbers = reading.around(numbers, QUIET * threshold, np.arange(-BRIDGED, BRIDGED + 1))
        reading.look(numbers)

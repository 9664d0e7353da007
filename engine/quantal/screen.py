"""Which windows a network must read, so that its events are those of reading all of them.

Events come from runs of scores: those that are not quiet (a part QUIET of the threshold or more),
with no more than four quiet ones in between. A run that reaches the threshold must be read whole.
All other scores change nothing and may as well be 0. A network feels an event well before and after
its score is high, so few windows are read at first and more where it feels anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantal.peaks import BRIDGED, QUIET

Array = NDArray[np.float32]
Numbers = NDArray[np.int64]

# Of 4,000 runs that reached the threshold, on simulated recordings of many kinds, the narrowest
# scored FELT (of the threshold) or more over a sixth of the window: so one window is read at least
# in every SPARSE of a window's length.
FELT = 0.01
SPARSE = 2 / 15
_BLOCK = 65_536  # windows that are settled before the next ones


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


def read_screened(
    read: Callable[[Numbers], Array],
    count: int,
    *,
    spacing: float,
    threshold: float,
    suspects: Numbers | None = None,
    told: Callable[[int], None] = lambda _: None,
) -> tuple[Array, NDArray[np.bool_]]:
    """Scores (count,), 0 where no event of this threshold depends on them, and which were read.

    read: the scores of windows, by their numbers in order. spacing: windows that start within the
    length of one. suspects: windows in order to begin with, one of them within SPARSE of wherever
    an event is felt; None where nothing is known. told: how many are settled.
    """
    step = max(int(SPARSE * spacing), 1)
    reading = Reading(
        values=np.zeros(count, np.float32), known=np.zeros(count, np.bool_), read=read
    )
    if suspects is None:
        suspects = np.arange(0, count, step)
    for first in range(0, count, _BLOCK):
        begin, end = np.searchsorted(suspects, (first, first + _BLOCK))
        _settle(reading, suspects[begin:end], threshold, step)
        told(min(first + _BLOCK, count))
    return reading.values, reading.known


def _settle(reading: Reading, numbers: Numbers, threshold: float, step: int) -> None:
    """Read these windows, and all that belong to events which they feel."""
    reading.look(numbers)
    near = reading.around(numbers, FELT * threshold, np.arange(-step, step + 1))
    reading.look(near)
    numbers = np.union1d(numbers, near)
    while len(numbers):
        numbers = reading.around(numbers, QUIET * threshold, np.arange(-BRIDGED, BRIDGED + 1))
        reading.look(numbers)

"""Scores -> where events are: maximum filter, peaks by height, prominence and width."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantal.errors import UsageError
from quantal.kernel import kernel
from quantal.tail import Tail

BRIDGED = 5  # strides of the maximum filter, which bridges single low scores inside an event
QUIET = 0.05  # of the threshold: a lower score is as good as 0
_PIECE = 65_536  # scores that are looked at at a time
_WIDTH = 5.0  # strides that a peak must be wide at half its prominence


@dataclass(frozen=True, eq=False, kw_only=True)
class Peaks:
    """Peaks of a signal, each array (n,): sample, height, prominence and where it is half as high.

    left and right are where the signal falls to half the prominence, between samples.
    """

    position: NDArray[np.int64]
    height: NDArray[np.float64]
    prominence: NDArray[np.float64]
    left: NDArray[np.float64]
    right: NDArray[np.float64]


def find_stretches(values: NDArray[np.float32], threshold: float) -> Peaks:
    """Peaks of the maximum-filtered scores; positions and edges are in scores, not samples.

    A peak needs the threshold in height and prominence and five strides in width. Scores below a
    twentieth of the threshold count as 0, so do unscored (nan) stretches and what lies beyond the
    ends, so that an event there is a peak too. Raises UsageError unless threshold lies between 0
    and 1.
    """
    if not 0 < threshold < 1:
        raise UsageError(f"threshold must lie between 0 and 1, got {threshold!r}; try 0.5.")
    margin = BRIDGED  # more than the filter can fill
    heard = np.where(values >= QUIET * threshold, values, np.float32(0.0))
    scores = np.pad(heard.astype(np.float64), margin)
    filtered = maximum_filter(scores, BRIDGED)
    peaks = find_peaks(filtered, height=threshold, prominence=threshold, width=_WIDTH)
    return Peaks(
        position=peaks.position - margin,
        height=peaks.height,
        prominence=peaks.prominence,
        left=peaks.left - margin,
        right=peaks.right - margin,
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class Points:
    """Peaks of scores that rise anew at every event, each array (n,): score, and how high it is."""

    position: NDArray[np.int64]
    height: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.position)


def find_points(values: NDArray[np.float32], threshold: float) -> Points:
    """Peaks of scores that rise anew at every event.

    A peak needs the threshold in height and half of it in prominence, so that two events are told
    apart where the score falls between them. nan and what lies beyond the ends count as 0. Raises
    UsageError unless the threshold is positive.
    """
    return points_of((values[a : a + _PIECE] for a in range(0, len(values), _PIECE)), threshold)


def points_of(pieces: Iterable[NDArray[np.float32]], threshold: float) -> Points:
    """The same of scores that come in pieces."""
    finder = PointFinder(threshold)
    found = [*map(finder.push, pieces), finder.finish()]
    return Points(
        position=np.concatenate([one.position for one in found]),
        height=np.concatenate([one.height for one in found]),
    )


class PointFinder:
    """`find_points` for scores that come in pieces.

    Where scores fall to half the threshold, nothing that follows matters to the peaks before.
    settled: no peak that is still to come lies before this score.
    """

    def __init__(self, threshold: float) -> None:
        if not threshold > 0:
            raise UsageError(f"threshold must be positive, got {threshold!r}.")
        self._threshold = threshold
        self._open: Tail[np.float32] = Tail(np.float32)  # scores from the last low one on
        self._open.add(np.zeros(1, np.float32))
        self._open.first = -1

    @property
    def settled(self) -> int:
        """Score from which on peaks may still come."""
        return self._open.first + 1

    def push(self, values: NDArray[np.float32]) -> Points:
        """The peaks that these scores settle."""
        self._open.add(values)
        lows = np.flatnonzero(~(self._open.values > np.float64(0.5 * self._threshold)))
        return self._up_to(self._open.first + int(lows[-1]))

    def finish(self) -> Points:
        """The peaks that waited for more scores."""
        self._open.add(np.zeros(1, np.float32))
        return self._up_to(self._open.stop - 1)

    def _up_to(self, low: int) -> Points:
        start = self._open.first
        position, height = _points(self._open.part(start, low + 1), self._threshold)
        self._open.forget(low)
        return Points(position=position + start, height=height)


def maximum_filter(values: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """The largest value within a window of `size`, centred (the mirror image beyond the ends).

    Equals scipy.ndimage.maximum_filter1d(values, size, mode="reflect"). Raises UsageError if size
    is not positive.
    """
    if size < 1:
        raise UsageError(f"the maximum filter's size must be positive, got {size}.")
    values = np.ascontiguousarray(values, np.float64)
    if size == 1 or not len(values):
        return values.copy()
    filtered: NDArray[np.float64] = _running_maximum(values, size)
    return filtered


def find_peaks(
    values: NDArray[np.float64], *, height: float, prominence: float, width: float
) -> Peaks:
    """Local maxima (the middle of flat ones) of at least this height, prominence and width.

    Equals scipy.signal.find_peaks(values, height=, prominence=, width=), the width being that at
    half the prominence.
    """
    values = np.ascontiguousarray(values, np.float64)
    position = local_maxima(values)
    position = position[values[position] >= height]
    prominences, left_base, right_base = prominences_of(values, position)
    keep = prominences >= prominence
    position, prominences = position[keep], prominences[keep]
    left, right = _half_edges(values, position, prominences, left_base[keep], right_base[keep])
    keep = right - left >= width
    return Peaks(
        position=position[keep],
        height=values[position[keep]],
        prominence=prominences[keep],
        left=left[keep],
        right=right[keep],
    )


@kernel
def _running_maximum(values, size):
    """Richard Harter's ascending-maxima ring: each value enters and leaves once."""
    n = len(values)
    before = size // 2
    ring = np.empty(size, np.float64)
    death = np.empty(size, np.int64)
    out = np.empty(n, np.float64)
    head, tail = 0, 0
    ring[0] = values[_reflected(-before, n)]
    death[0] = size
    for k in range(1, n + size - 1):
        value = values[_reflected(k - before, n)]
        if death[head] == k:
            head = (head + 1) % size
        if value >= ring[head]:
            ring[head], death[head] = value, k + size
            tail = head
        else:
            while ring[tail] <= value:
                tail = (tail - 1) % size
            tail = (tail + 1) % size
            ring[tail], death[tail] = value, k + size
        if k >= size - 1:
            out[k - size + 1] = ring[head]
    return out


@kernel
def _reflected(i, n):
    i = i % (2 * n)
    return i if i < n else 2 * n - 1 - i


@kernel
def local_maxima(values):
    """Samples above both neighbours; of a flat top, the middle one."""
    n = len(values)
    found = np.empty(n // 2 + 1, np.int64)
    count = 0
    i = 1
    while i < n - 1:
        if values[i - 1] < values[i]:
            ahead = i + 1
            while ahead < n - 1 and values[ahead] == values[i]:
                ahead += 1
            if values[ahead] < values[i]:
                found[count] = (i + ahead - 1) // 2
                count += 1
                i = ahead
        i += 1
    return found[:count]


@kernel
def prominences_of(values, positions):
    """How far each peak stands above the higher of the two lows that part it from higher ground."""
    count = len(positions)
    prominence = np.empty(count, np.float64)
    left_base = np.empty(count, np.int64)
    right_base = np.empty(count, np.int64)
    for k in range(count):
        peak = positions[k]
        left_base[k] = _base(values, peak, -1)
        right_base[k] = _base(values, peak, 1)
        prominence[k] = values[peak] - max(values[left_base[k]], values[right_base[k]])
    return prominence, left_base, right_base


@kernel
def _base(values, peak, step):
    """The lowest sample on one side before the signal rises above the peak."""
    low = peak
    i = peak
    while 0 <= i < len(values) and values[i] <= values[peak]:
        if values[i] < values[low]:
            low = i
        i += step
    return low


@kernel
def _points(values, threshold):
    """Positions and heights of peaks between low scores, of which the first and the last is one."""
    low = 0.5 * threshold
    position = np.empty(len(values) // 2 + 1, np.int64)
    height = np.empty(len(values) // 2 + 1, np.float64)
    count = 0
    start = 0
    while start < len(values):
        stop = start + 1
        highest = 0.0
        while stop < len(values) and values[stop] > low:
            highest = max(highest, values[stop])
            stop += 1
        if highest >= threshold:
            run = np.zeros(stop - start + 1)
            for i in range(len(run)):
                if values[start + i] > 0.0:  # not nan
                    run[i] = values[start + i]
            peaks = local_maxima(run)
            peaks = peaks[run[peaks] >= threshold]
            prominences, _, _ = prominences_of(run, peaks)
            for k in range(len(peaks)):
                if prominences[k] >= low:
                    position[count], height[count] = start + peaks[k], run[peaks[k]]
                    count += 1
        start = stop
    return position[:count], height[:count]


@kernel
def _half_edges(values, positions, prominences, left_base, right_base):
    count = len(positions)
    left = np.empty(count, np.float64)
    right = np.empty(count, np.float64)
    for k in range(count):
        level = values[positions[k]] - 0.5 * prominences[k]
        left[k] = _crossing(values, positions[k], left_base[k], level, -1)
        right[k] = _crossing(values, positions[k], right_base[k], level, 1)
    return left, right


@kernel
def _crossing(values, peak, base, level, step):
    """Where the signal falls through a level between a peak and its base, between samples."""
    i = peak
    while i != base and level < values[i]:
        i += step
    if values[i] < level:
        return i - step * (level - values[i]) / (values[i - step] - values[i])
    return np.float64(i)

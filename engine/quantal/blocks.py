"""A trace -> blocks that a trace network reads: on its grid, scaled, overlapping by its margin."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from quantal.filters import Resampler
from quantal.model import Card
from quantal.noise import Scaler
from quantal.tail import Tail

Samples = NDArray[np.float32]
_LAST = 16_000  # samples that are read at once, at least, when no more are to come


class Blocks:
    """The blocks of a trace that comes in pieces, in order, each as soon as it is complete.

    A block scores `core` samples of the grid and has the margin either side of them, so that no
    score depends on where blocks are cut. They start on a fixed grid, and the last one is filled up
    to whole units of the network: the same sample has the same score wherever a longer trace ends.
    Beyond its ends the trace is continued by its mirror image.

    window: samples of the trace that become the network's window. sign: -1 turns the trace over.
    """

    def __init__(self, card: Card, window: int, sign: int, core: int) -> None:
        self.core = core
        # Hops that hold samples not there, in order, none twice.
        self._missing: deque[NDArray[np.int64]] = deque()
        self._margin, self._stride, self._sign = card.margin_samples, card.stride, sign
        self._unit = _unit(card)
        self._resampler = Resampler(card.window_samples, window)
        self._scaler = Scaler()
        self._scaled: Tail[np.float32] = Tail(np.float32)
        self._taken = 0  # samples of the grid
        self._start = self._stop = 0  # of the latest block, without its margins

    def push(self, samples: Samples) -> Iterator[Samples]:
        """The blocks that these samples complete."""
        self._scaled.add(self._scaler.push(self._on_grid(self._resampler.push(samples))))
        while self._stop + self.core + self._margin <= self._scaled.stop:
            yield self._block(self._stop + self.core)

    def finish(self) -> Iterator[Samples]:
        """The blocks that are left when the trace has ended."""
        self._scaled.add(self._scaler.push(self._on_grid(self._resampler.finish())))
        self._scaled.add(self._scaler.finish())
        end = -(-self._scaled.stop // self._unit) * self._unit
        while self._stop < self._scaled.stop:
            yield self._block(min(self._stop + max(self.core, _LAST), end))

    def kept(self, scores: Samples, first: int) -> Samples:
        """The scores of a block less those of its margins, and of what lies beyond the trace's end.

        nan where samples are missing. first: number of the first one that is kept.
        """
        margin = self._margin // self._stride
        hops = -(-self._taken // self._stride)
        values = scores[margin : min(len(scores) - margin, margin + hops - first)].copy()
        while self._missing and self._missing[0][0] < first + len(values):
            lost = self._missing.popleft()
            inside = lost < first + len(values)
            values[lost[inside] - first] = np.nan
            if not inside.all():
                self._missing.appendleft(lost[~inside])
        return values

    @property
    def is_missing(self) -> bool:
        """Whether nothing is there of all that the latest block scores, so that all becomes nan."""
        edges = np.array([self._start, self._stop]) // self._stride
        reaching = takewhile(lambda lost: lost[0] < edges[1], self._missing)
        lost = sum(int(np.diff(np.searchsorted(lost, edges))[0]) for lost in reaching)
        return lost == int(edges[1] - edges[0])

    def _on_grid(self, samples: Samples) -> Samples:
        lost = np.flatnonzero(~np.isfinite(samples))
        if len(lost):
            hops = np.unique((self._taken + lost) // self._stride)
            known = self._missing[-1][-1] if self._missing else -1
            if hops[-1] > known:
                self._missing.append(hops[hops > known])
        self._taken += len(samples)
        return -samples if self._sign < 0 else samples

    def _block(self, stop: int) -> Samples:
        """The next block, which scores the samples before `stop`."""
        self._start, self._stop = self._stop, stop
        block = _mirrored(self._scaled, self._start - self._margin, stop + self._margin)
        self._scaled.forget(self._start - self.core - self._margin)  # the end's mirror image
        return block


def core_samples(card: Card, longest: int) -> int:
    """Samples that a block scores: no more than `longest`, but at least a unit of the network."""
    return max(longest // _unit(card), 1) * _unit(card)


def _unit(card: Card) -> int:
    """Samples in which blocks begin and end."""
    return card.unit_samples or card.margin_samples or card.stride


def _mirrored(samples: Tail[np.float32], start: int, stop: int) -> Samples:
    """A copy from start to stop; beyond the trace's ends it is the trace's mirror image."""
    n = samples.stop
    if start >= 0 and stop <= n:
        return samples.part(start, stop).copy()
    if -n <= start < n and 0 < stop <= 2 * n:
        before = samples.part(0, max(-start, 0))[::-1]
        after = samples.part(n - max(stop - n, 0), n)[::-1]
        return np.concatenate([before, samples.part(max(start, 0), min(stop, n)), after])
    at = np.arange(start, stop) % (2 * n)  # more than once there and back
    at = np.where(at < n, at, 2 * n - 1 - at)
    return samples.values[at - samples.first]

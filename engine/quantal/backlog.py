"""What has come from a rig and was not searched yet, between the reader and the detector."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantal.errors import QuantalError, ReadError
from quantal.sources import Piece, Signal

Samples = NDArray[np.float32]

LATE_S = 1.0  # from which on it is told that samples wait
_AT_ONCE_S = 1.0  # of samples that are looked at at a time
_MOST_MISSED_S = 600.0  # a longer gap is none: the publisher began anew


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A stretch of the recording that was not searched, and why."""

    from_s: float
    to_s: float
    why: str


@dataclass(frozen=True, eq=False, kw_only=True)
class Batch:
    """Samples (channels, n) to search next; those that are missing are nan.

    arrived: when the first of them came (time.perf_counter). missing: what has become known since
    the batch before.
    """

    samples: Samples
    arrived: float
    missing: tuple[Missing, ...] = ()


@dataclass(eq=False)
class _Waiting:
    """Samples that wait; None where they are missing."""

    samples: Samples | None
    count: int
    arrived: float


class Backlog:
    """Samples that have come and were not searched yet: the reader's end and the detector's.

    longest_s: how much may wait. when_late: what happens then: "wait" lets the reader, and so the
    sender, wait; "drop" takes the whole seconds that have waited longest out, for samples that are
    missing, so that what follows keeps its time.
    """

    def __init__(self, signal: Signal, longest_s: float, when_late: str) -> None:
        self._signal, self._when_late = signal, when_late
        self._longest = longest_s * signal.rate_hz
        self._waiting: deque[_Waiting] = deque()
        self._missing: list[Missing] = []
        self._changed = threading.Condition()
        self._count = 0  # samples that wait and are there
        self._first = 0  # number of the first sample of all
        self._taken = self._come = 0  # numbers of the next sample out and in
        self._begun = self._ended = False
        self._since = 0.0  # when the first sample came
        self.error: QuantalError | None = None

    @property
    def rule(self) -> str:
        """What happens when too much waits, in words."""
        longest_s = self._longest / self._signal.rate_hz
        then = {"wait": "the sender waits", "drop": "the whole seconds among them are dropped"}
        return f"when {longest_s:g} s wait, {then[self._when_late]}"

    @property
    def start_s(self) -> float:
        """The time of the first sample, by the numbers that the sender gives them."""
        return self._first / self._signal.rate_hz

    @property
    def waiting_s(self) -> float:
        """Seconds of samples that wait."""
        return self._count / self._signal.rate_hz

    @property
    def is_live(self) -> bool:
        """Whether samples come as they are recorded, and not faster."""
        come_s = (self._come - self._first) / self._signal.rate_hz
        return come_s < time.perf_counter() - self._since + LATE_S

    @property
    def taken_s(self) -> float:
        """Seconds that were taken out."""
        return (self._taken - self._first) / self._signal.rate_hz

    def put(self, piece: Piece) -> bool:
        """Samples that have come; False once nobody wants more. Raises ReadError."""
        count = piece.samples.shape[1]
        with self._changed:
            if self._ended:
                return False
            if not count:
                return True
            self._begin(piece)
            self._lose(piece)
            self._waiting.append(_Waiting(piece.samples, count, time.perf_counter()))
            self._count += count
            self._come += count
            self._changed.notify_all()
            if self._count > self._longest and self._when_late == "drop":
                self._drop()
            while self._count > self._longest and not self._ended:
                self._changed.wait()
            return not self._ended

    def end(self, error: QuantalError | None = None) -> None:
        """Nothing more comes, or is wanted."""
        with self._changed:
            if not self._ended:
                self._ended, self.error = True, error
                self._changed.notify_all()

    def take(self, timeout_s: float) -> Batch | None:
        """What waits, up to a second of it; empty after so long a wait, None at the end."""
        with self._changed:
            if not self._waiting and not self._ended:
                self._changed.wait(timeout_s)
            missing, self._missing = tuple(self._missing), []
            if not self._waiting:
                if self._ended and not missing:
                    return None
                return Batch(samples=self._none(0), arrived=time.perf_counter(), missing=missing)
            arrived = self._waiting[0].arrived
            samples = self._out(round(_AT_ONCE_S * self._signal.rate_hz) or 1)
            self._changed.notify_all()
        return Batch(samples=samples, arrived=arrived, missing=missing)

    def _begin(self, piece: Piece) -> None:
        if not self._begun:
            self._begun, self._since = True, time.perf_counter()
            self._first = self._taken = self._come = piece.first or 0

    def _lose(self, piece: Piece) -> None:
        """Put in what, by the piece's number, was lost before it."""
        lost = 0 if piece.first is None else piece.first - self._come
        if lost < 0 or lost > _MOST_MISSED_S * self._signal.rate_hz:
            raise ReadError(
                f"after sample {self._come - 1} comes number {piece.first}: the publisher began "
                "anew, or its numbers are not those of samples. Start quantal stream again."
            )
        if lost:
            self._waiting.append(_Waiting(None, lost, time.perf_counter()))
            self._tell(self._come, self._come + lost, "lost on the way")
            self._come += lost

    def _drop(self) -> None:
        """Take out the whole seconds that have waited longest."""
        second = round(self._signal.rate_hz) or 1
        left = min(max(self._count // second, 1) * second, self._count)
        at, arrived = self._taken, self._waiting[0].arrived
        self._count -= left
        while left:
            oldest = self._waiting.popleft()
            taken = oldest.count if oldest.samples is None else min(oldest.count, left)
            if oldest.samples is not None:
                self._tell(at, at + taken, "dropped: detection fell behind")
                left -= taken
                if taken < oldest.count:
                    rest = oldest.samples[:, taken:]
                    self._waiting.appendleft(_Waiting(rest, rest.shape[1], oldest.arrived))
            at += taken
        self._waiting.appendleft(_Waiting(None, at - self._taken, arrived))

    def _tell(self, start: int, stop: int, why: str) -> None:
        from_s, to_s = start / self._signal.rate_hz, stop / self._signal.rate_hz
        if self._missing and (self._missing[-1].to_s, self._missing[-1].why) == (from_s, why):
            from_s = self._missing.pop().from_s
        self._missing.append(Missing(from_s=from_s, to_s=to_s, why=why))

    def _out(self, most: int) -> Samples:
        parts = []
        while most and self._waiting:
            oldest = self._waiting[0]
            count = min(oldest.count, most)
            if oldest.samples is None:
                parts.append(self._none(count))
            else:
                parts.append(oldest.samples[:, :count])
                oldest.samples = oldest.samples[:, count:]
                self._count -= count
            oldest.count -= count
            most -= count
            self._taken += count
            if not oldest.count:
                self._waiting.popleft()
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _none(self, count: int) -> Samples:
        return np.full((len(self._signal.channels), count), np.nan, np.float32)

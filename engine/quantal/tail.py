"""Arrays that grow at the end and are forgotten at the beginning: traces that come in pieces."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)


class Tail(Generic[T]):
    """The last part of a line of values whose positions count from the line's beginning.

    first: position of the first value that is kept. stop: position after the last value.
    """

    def __init__(self, dtype: type[T]) -> None:
        self._room: NDArray[T] = np.empty(1_024, dtype)
        self._begin = self._end = 0
        self.first = 0

    def __deepcopy__(self, memo: Any) -> Tail[T]:
        copy: Tail[T] = Tail(self._room.dtype.type)
        copy.first = self.first
        copy.add(self.values)
        return copy

    @property
    def stop(self) -> int:
        """Position after the last value."""
        return self.first + self._end - self._begin

    @property
    def values(self) -> NDArray[T]:
        """All values that are kept."""
        return self._room[self._begin : self._end]

    def part(self, start: int, stop: int | None = None) -> NDArray[T]:
        """Values from one position to another, which must be kept; to the end if stop is None."""
        return self.values[start - self.first : None if stop is None else stop - self.first]

    def add(self, values: NDArray[Any]) -> None:
        """Put values at the end."""
        count = len(values)
        if self._end + count > len(self._room):
            kept = self.values
            size = max(2 * (len(kept) + count), 1_024)
            room = np.empty(size, self._room.dtype) if size > len(self._room) else self._room
            room[: len(kept)] = kept.copy() if room is self._room else kept
            self._room, self._begin, self._end = room, 0, len(kept)
        self._room[self._end : self._end + count] = values
        self._end += count

    def forget(self, before: int) -> None:
        """Keep nothing before this position."""
        gone = min(max(before - self.first, 0), self._end - self._begin)
        self._begin += gone
        self.first += gone

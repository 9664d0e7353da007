"""Which way time runs in a two-dimensional array."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quantal.errors import ReadError
from quantal.readers.recording import Samples

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Layout:
    """How an array holds sweeps: a 1-D array is one (time_axis None), a 2-D array holds several."""

    shape: tuple[int, ...]
    time_axis: int | None

    @property
    def sweep_samples(self) -> tuple[int, ...]:
        """The number of samples in every sweep."""
        if self.time_axis is None:
            return self.shape
        return (self.shape[self.time_axis],) * self.shape[1 - self.time_axis]

    def note(self, name: str) -> tuple[str, ...]:
        """What was decided about a 2-D array, for the user to check."""
        if self.time_axis is None:
            return ()
        lying = ("columns", "rows")[self.time_axis]
        size = " x ".join(f"{n:,}" for n in self.shape)
        return (f"{name} is {size}: its {lying} are sweeps, as the longer axis is taken for time",)

    def sweeps(self, array: Any, wanted: Sequence[int], copies: int) -> Iterator[Sequence[Samples]]:
        """Yields copies of each sweep wanted, from an array or a data set of this layout."""
        for sweep in wanted:
            if self.time_axis is None:
                row = array[:]
            else:
                row = array[sweep, :] if self.time_axis == 1 else array[:, sweep]
            yield [np.array(row) for _ in range(copies)]


def layout(path: Path, name: str, shape: tuple[int, ...]) -> Layout:
    """Decide which axis is time: the longer one.

    Raises ReadError if both are equally long.
    """
    if len(shape) == 1:
        return Layout(shape, None)
    if shape[0] == shape[1]:
        raise ReadError(
            f"{path}: {name} has {shape[0]:,} rows and as many columns, so it does not show which "
            "way time runs (the longer axis is taken for time). Save every sweep on its own."
        )
    if shape[0] > shape[1]:
        _log.warning(
            "%s: %s is read as %d sweeps of %d samples, as the longer axis is taken for time",
            path.name,
            name,
            shape[1],
            shape[0],
        )
    return Layout(shape, int(np.argmax(shape)))

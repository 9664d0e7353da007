"""What every reader of ROIs hands over: a matrix, and what its file says about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

ACCEPTED, ALL = "accepted", "all"


@dataclass(frozen=True, eq=False, kw_only=True)
class Field:
    """Samples (rois, samples) and what is known of them; None is what the file does not say.

    number: of each ROI in the file; empty where they are just counted. position: centres in
    pixels, x and y. rate_missing, kind_missing: why these are not known. notes: what the reader
    decided.
    """

    samples: NDArray[Any]
    rate_hz: float | None = None
    kind: str | None = None
    number: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    position: NDArray[np.float64] | None = None
    notes: tuple[str, ...] = ()
    rate_missing: str = "it does not state its sampling rate"
    kind_missing: str = "it does not say whether its values are raw fluorescence, dF/F or z-scores"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What of a file is wanted, where it holds more than one thing.

    dataset: a data set or series by name. rois_in: "rows" or "columns" of a matrix. neuropil: the
    part of the neuropil signal to take off. cells: "accepted" ROIs or "all". labels: label image.
    """

    dataset: str | None = None
    rois_in: str | None = None
    neuropil: float = 0.7
    cells: str = ACCEPTED
    labels: Any = None


def owners(stops: NDArray[np.integer], count: int) -> NDArray[np.int64] | None:
    """The ROI of each of `count` pixels, listed ROI by ROI up to these stops; None if they lie."""
    ends = np.concatenate([[0], stops.astype(np.int64)])
    steps: NDArray[np.int64] = ends[1:] - ends[:-1]
    if (steps < 0).any() or ends[-1] != count:
        return None
    return np.repeat(np.arange(len(stops)), steps)


def centres(
    rows: NDArray[Any], x: NDArray[Any], y: NDArray[Any], weight: NDArray[Any], count: int
) -> NDArray[np.float64]:
    """Weighted centres (count, 2) of pixels that belong to ROIs by row; nan without any weight."""
    weight = np.asarray(weight, np.float64)
    total = np.bincount(rows, weight, count)
    with np.errstate(invalid="ignore"):
        return np.stack([np.bincount(rows, weight * at, count) / total for at in (x, y)], axis=1)

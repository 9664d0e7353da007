"""Fluorescence of many regions of interest (ROIs) on one clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal.errors import UsageError
from quantal.trace import Trace, is_finite

RAW, DFF, ZSCORED = "raw", "dff", "zscored"
_UNITS = {RAW: "a.u.", DFF: "dF/F", ZSCORED: "SD"}
KINDS = tuple(_UNITS)


@dataclass(frozen=True, eq=False, kw_only=True)
class Rois:
    """One trace per ROI, all recorded at the same time.

    samples: one row per ROI, kept as float32 (rois, samples); nan where nothing was recorded.
    rate_hz: frames per second. kind: what the samples are, "raw" fluorescence, "dff" (dF/F) or
    "zscored". number: of each ROI in its file, (rois,); None counts from 0.
    position: centre of each ROI in pixels, x and y, (rois, 2); nan, or None, where it is not known.
    recording: where they are from. notes: what the reader of a file had to decide.
    excluded: stretches (start_s, stop_s) in which no event is wanted.

    Raises UsageError if the samples are no matrix of numbers, or the rest does not fit them.
    """

    samples: NDArray[np.float32]
    rate_hz: float
    kind: str
    number: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    position: NDArray[np.float64] | None = None
    recording: str = ""
    notes: tuple[str, ...] = ()
    excluded: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        samples = _as_matrix(self.samples)
        number = np.asarray(self.number)
        number = number if len(number) else np.arange(len(samples))
        if self.kind not in KINDS:
            raise UsageError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}.")
        if not (is_finite(self.rate_hz) and self.rate_hz > 0):
            raise UsageError(f"rate_hz must be a positive number, got {self.rate_hz!r}.")
        if number.shape != (len(samples),) or number.dtype.kind not in "iu":
            raise UsageError(f"number must hold a whole number for each of {len(samples)} ROIs.")
        if len(np.unique(number)) < len(number):
            raise UsageError("every ROI must have a number of its own.")
        if self.position is not None:
            position = np.asarray(self.position, np.float64)
            if position.shape != (len(samples), 2):
                raise UsageError(
                    f"position must hold x and y of {len(samples)} ROIs, got {position.shape}."
                )
            object.__setattr__(self, "position", position)
        object.__setattr__(self, "samples", samples)
        object.__setattr__(self, "number", number.astype(np.int64))
        object.__setattr__(self, "rate_hz", float(self.rate_hz))

    def __len__(self) -> int:
        return len(self.samples)

    def __repr__(self) -> str:
        return (
            f"Rois({self.recording or 'no name'}: {len(self)} ROIs x {self.samples.shape[1]} "
            f"samples at {self.rate_hz:g} Hz, {self.kind})"
        )

    @property
    def unit(self) -> str:
        """The unit of the samples."""
        return _UNITS[self.kind]

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return float(self.samples.shape[1] / self.rate_hz)

    def trace(self, row: int) -> Trace:
        """One ROI as a trace: a channel of its recording, named after its number."""
        return Trace(
            samples=self.samples[row],
            rate_hz=self.rate_hz,
            unit=self.unit,
            recording=self.recording,
            channel=f"roi {self.number[row]}",
            excluded=self.excluded,
        )

    def exclude(self, stretches: Iterable[tuple[float, float]]) -> Rois:
        """The same ROIs with more stretches (start_s, stop_s) in which no event is wanted.

        One that lies outside the recording is told as a warning of the log. Raises UsageError if
        one is not a pair of times that runs forward.
        """
        stretches = tuple(stretches)
        self.trace(0).exclude(stretches)  # which checks them, and warns
        return replace(self, excluded=(*self.excluded, *stretches))


def checked_rois(rois: object) -> Rois:
    """The ROIs themselves; raises UsageError for anything else, such as a bare matrix."""
    if isinstance(rois, Rois):
        return rois
    raise UsageError(
        f"Rois are wanted, got {type(rois).__name__}: read them with quantal.read_rois, or make "
        "them of a matrix (ROIs x time) with quantal.Rois(samples=x, rate_hz=100.0, kind='dff')."
    )


def _as_matrix(values: ArrayLike) -> NDArray[np.float32]:
    array = np.asarray(values)
    if array.ndim != 2 or not array.size:
        raise UsageError(
            f"samples must be a matrix, one row per ROI, got shape {array.shape}; a single trace "
            "is for quantal.detect."
        )
    if array.dtype.kind not in "iufb":
        raise UsageError(f"samples must be real numbers, got dtype {array.dtype}.")
    with np.errstate(over="ignore"):  # what is too large counts as missing
        return np.ascontiguousarray(array, np.float32)

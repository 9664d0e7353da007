"""Plain matrices of ROIs and time: NumPy, text tables, HDF5. Which is which must be known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.errors import ReadError
from quantal.readers.field import Choice, Field
from quantal.readers.hdf5 import _attributes, _named, _only, _rate, refuse_empty_promises
from quantal.readers.npy import _mapped
from quantal.readers.table import COUNTERS, open_table

ROWS, COLUMNS = "rows", "columns"


def open_npy_matrix(path: Path, choice: Choice) -> Field:
    """A matrix that numpy.save wrote; never a pickle. Raises ReadError."""
    array = _mapped(path)
    return Field(
        samples=_upright(array, path, "the array", choice.rois_in),
        rate_missing="a NumPy file states no sampling rate",
    )


def open_table_matrix(path: Path, choice: Choice) -> Field:
    """A text table; with a time column every other column is a ROI. Raises ReadError."""
    table = open_table(path)
    for channel in table.channels:
        if channel.name.lower() in COUNTERS:
            raise ReadError(
                f"{path}: the column {channel.name!r} does not count evenly, so frames are missing "
                "or doubled. Put rows of nan in their places, or take the column out."
            )
    (columns,) = table.load([0], range(len(table.channels)))
    values = np.stack(columns, axis=1)
    timed = table.rate_hz is not None
    if timed and choice.rois_in == ROWS:
        raise ReadError(f"{path} has a time column, so its ROIs are columns: --rois-in columns.")
    return Field(
        samples=_upright(values, path, "the table", COLUMNS if timed else choice.rois_in),
        rate_hz=table.rate_hz,
        notes=table.notes,
        rate_missing=table.rate_missing,
    )


def open_hdf5_matrix(file: Any, path: Path, choice: Choice) -> Field:
    """One data set of an HDF5 file, with its rate as an attribute. Raises ReadError."""
    data = _only(file, path) if choice.dataset is None else _named(file, path, choice.dataset)
    refuse_empty_promises(data, path)
    rate_hz, rate_missing = _rate(_attributes(file, data.name.strip("/")))
    return Field(
        samples=_upright(data[()], path, data.name, choice.rois_in),
        rate_hz=rate_hz,
        rate_missing=rate_missing,
    )


def _upright(
    values: NDArray[Any], path: Path, name: str, rois_in: str | None
) -> NDArray[np.float32]:
    """The matrix with one row per ROI; a single row or column, or one dimension, is one ROI."""
    if values.dtype.kind not in "iuf" or values.ndim not in (1, 2) or not values.size:
        raise ReadError(
            f"{path}: {name} has shape {values.shape} and type {values.dtype}; a matrix of numbers "
            "is wanted, ROIs and time."
        )
    if values.ndim == 1:
        values = values[None]
    elif 1 in values.shape:
        values = values.reshape(1, -1)
    elif rois_in is None:
        rows, columns = values.shape
        raise ReadError(
            f"{path}: {name} is {rows:,} x {columns:,} and does not say which of them are ROIs. "
            "Say so: rois_in='rows' (--rois-in rows) if each row is a ROI, or "
            "rois_in='columns' (--rois-in columns)."
        )
    elif rois_in == COLUMNS:
        values = values.T
    return np.ascontiguousarray(values, np.float32)

"""Files and folders -> Rois. Nothing is guessed: what a file does not say must be given."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from quantal.errors import ReadError, UsageError
from quantal.imaging import KINDS, Rois
from quantal.readers import checked_positive, clear_answers, refuse_no_file
from quantal.readers.caiman import ESTIMATES, open_caiman
from quantal.readers.field import ACCEPTED, ALL, Choice, Field
from quantal.readers.hdf5 import opened
from quantal.readers.info import otherwise
from quantal.readers.matrix import (
    COLUMNS,
    ROWS,
    open_hdf5_matrix,
    open_npy_matrix,
    open_table_matrix,
)
from quantal.readers.nwb_rois import open_nwb_rois
from quantal.readers.stack import open_stack
from quantal.readers.suite2p import FLUORESCENCE, open_suite2p, session_name
from quantal.trace import is_finite

_HDF5 = b"\x89HDF\r\n\x1a\n"
_BY_SUFFIX = {
    ".npy": open_npy_matrix,
    ".csv": open_table_matrix,
    ".tsv": open_table_matrix,
    ".txt": open_table_matrix,
    ".tif": open_stack,
    ".tiff": open_stack,
}
_SUPPORTED = (
    "suite2p folders, CaImAn and plain HDF5 (.hdf5, .h5), NWB (.nwb), NumPy (.npy), text tables "
    "(.csv, .tsv, .txt) and TIFF stacks with a label image (.tif)"
)


def read_rois(
    path: str | os.PathLike[str],
    *,
    kind: str | None = None,
    rate_hz: float | None = None,
    dataset: str | None = None,
    rois_in: str | None = None,
    neuropil: float = 0.7,
    cells: str = ACCEPTED,
    labels: str | os.PathLike[str] | None = None,
) -> Rois:
    """The traces of all ROIs of an imaging session.

    kind: "raw", "dff" or "zscored"; needed where the file does not say, where it does it is
    overruled. rate_hz: frames per second, in the same way.
    dataset: which traces of an HDF5 or NWB file. rois_in: "rows" or "columns", of a plain matrix.
    neuropil: the part of the neuropil signal that is taken off (suite2p). cells: "accepted" ROIs,
    by suite2p or CaImAn, or "all". labels: a label image (.tif, .npy), for a TIFF stack.

    Raises ReadError if the file cannot be read or does not say enough, UsageError if an argument
    is outside what is allowed.
    """
    rate_hz = checked_positive("rate_hz", rate_hz)
    _one_of("kind", kind, KINDS)
    _one_of("rois_in", rois_in, (ROWS, COLUMNS))
    _one_of("cells", cells, (ACCEPTED, ALL))
    if not (is_finite(neuropil) and 0 <= neuropil <= 1):
        raise UsageError(f"neuropil must be 0 to 1, got {neuropil!r}; 0.7 is usual.")
    path = Path(path)
    choice = Choice(
        dataset=dataset, rois_in=rois_in, neuropil=float(neuropil), cells=cells, labels=labels
    )
    # What is too large for single precision counts as missing.
    with clear_answers(path), np.errstate(all="ignore"):
        field = _open(path, choice)
    if (kind or field.kind) is None:
        raise ReadError(
            f"{path}: {field.kind_missing}. Say what they are: kind='raw' (--input raw) for "
            "fluorescence, kind='dff' (--input dff) or kind='zscored' (--input zscored)."
        )
    if (rate_hz or field.rate_hz) is None:
        raise ReadError(
            f"{path}: {field.rate_missing}. Give the frames per second: rate_hz=100 "
            "(--rate-hz 100)."
        )
    return Rois(
        samples=field.samples,
        rate_hz=rate_hz or field.rate_hz or 0.0,
        kind=kind or field.kind or "",
        number=field.number,
        position=field.position,
        recording=_name(path.resolve()),
        notes=(*field.notes, *_overruled(field, kind, rate_hz)),
    )


def _overruled(field: Field, kind: str | None, rate_hz: float | None) -> list[str]:
    """In words, what the file states and the arguments overrule."""
    said = []
    if kind is not None and field.kind not in (None, kind):
        said.append(otherwise(f"{field.kind}", kind))
    if rate_hz is not None and field.rate_hz not in (None, rate_hz):
        said.append(otherwise(f"{field.rate_hz:.9g} Hz", f"{rate_hz:.9g} Hz"))
    return said


def _name(path: Path) -> str:
    """What the session is called, and its results."""
    own = path.is_dir() or path.name == FLUORESCENCE
    return session_name(path) if own else path.stem


def _open(path: Path, choice: Choice) -> Field:
    if path.is_dir():
        return open_suite2p(path, choice)
    refuse_no_file(path)
    with path.open("rb") as file:
        start = file.read(len(_HDF5))
    if start == _HDF5:
        return _open_hdf5(path, choice)
    if path.suffix.lower() not in _BY_SUFFIX:
        raise ReadError(
            f"{path}: files ending in {path.suffix!r} are not known. Read are {_SUPPORTED}."
        )
    return _BY_SUFFIX[path.suffix.lower()](path, choice)


def _open_hdf5(path: Path, choice: Choice) -> Field:
    with opened(path) as file:
        if "nwb_version" in file.attrs:
            return open_nwb_rois(file, path, choice)
        if ESTIMATES in file:
            return open_caiman(file, path, choice)
        return open_hdf5_matrix(file, path, choice)


def _one_of(name: str, value: str | None, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        raise UsageError(f"{name} must be one of {', '.join(allowed)}, got {value!r}.")

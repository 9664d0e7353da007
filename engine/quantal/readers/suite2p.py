"""suite2p folders: plain arrays only. Its pickles (ops.npy, stat.npy) are never opened."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.errors import ReadError
from quantal.imaging import RAW
from quantal.readers.field import ALL, Choice, Field
from quantal.readers.npy import _mapped

FLUORESCENCE, _NEUROPIL, _CELLS = "F.npy", "Fneu.npy", "iscell.npy"
_OWN = "suite2p"  # the folder that it makes in that of a session, with one for each plane


def open_suite2p(folder: Path, choice: Choice) -> Field:
    """Fluorescence of the accepted cells, less a part of the neuropil around each.

    A folder that holds folders of planes is one of them, if there is only one. Raises ReadError if
    arrays are missing, or do not fit each other.
    """
    folder = _plane(folder)
    fluorescence = _matrix(folder / FLUORESCENCE)
    notes = []
    rows = np.arange(len(fluorescence))
    if choice.cells != ALL and (folder / _CELLS).exists():
        rows = _accepted(folder / _CELLS, len(rows))
        notes.append(f"{len(rows)} of {len(fluorescence)} ROIs are cells ({_CELLS})")
    samples = np.asarray(fluorescence[rows], np.float32)
    if choice.neuropil and (folder / _NEUROPIL).exists():
        neuropil = _matrix(folder / _NEUROPIL)
        if neuropil.shape != fluorescence.shape:
            raise ReadError(
                f"{folder}: {_NEUROPIL} is {neuropil.shape} and {FLUORESCENCE} "
                f"{fluorescence.shape}; they are not from the same run. Leave the neuropil out: "
                "neuropil=0 (--neuropil 0)."
            )
        samples -= np.float32(choice.neuropil) * np.asarray(neuropil[rows], np.float32)
        notes.append(f"{choice.neuropil:g} of the neuropil ({_NEUROPIL}) is taken off")
    return Field(
        samples=samples,
        kind=RAW,
        number=rows,
        notes=tuple(notes),
        rate_missing="suite2p keeps the frame rate in ops.npy, a pickle, which quantal never opens",
    )


def session_name(folder: Path) -> str:
    """What a folder, or an F.npy, is called: as the session's folder, and the plane if it is one.

    The names that suite2p gives, such as plane0, are the same in every session.
    """
    if folder.name == FLUORESCENCE:
        folder = folder.parent
    plane = ""
    if folder.parent.name == _OWN or re.fullmatch(r"plane\d+", folder.name):
        plane, folder = f"_{folder.name}", folder.parent
    if folder.name == _OWN:
        folder = folder.parent
    return (folder.name or "session") + plane


def _plane(folder: Path) -> Path:
    """The folder that holds F.npy: this one, or its only plane, also that of its suite2p folder."""
    for place in (folder, folder / _OWN):
        if (place / FLUORESCENCE).is_file():
            return place
        planes = sorted(path.parent for path in place.glob(f"plane*/{FLUORESCENCE}"))
        if len(planes) == 1:
            return planes[0]
        if planes:
            listed = ", ".join(path.name for path in planes)
            raise ReadError(f"{place} holds several planes: {listed}. Name one: {planes[0]}.")
    raise ReadError(
        f"{folder} is a folder without {FLUORESCENCE}; name a suite2p folder, or a file in it."
    )


def _matrix(path: Path) -> NDArray[Any]:
    array = _mapped(path)
    if array.ndim != 2 or array.dtype.kind not in "iuf":
        raise ReadError(
            f"{path} holds {array.dtype} of shape {array.shape}, not a matrix of ROIs x frames."
        )
    return array


def _accepted(path: Path, count: int) -> NDArray[np.int64]:
    """Rows that suite2p, or whoever looked at them, calls cells."""
    cells = _mapped(path)
    fits = cells.ndim in (1, 2) and len(cells) == count and cells.size
    if not fits or cells.dtype.kind not in "iufb":
        raise ReadError(
            f"{path} holds {cells.dtype} of shape {cells.shape}, but there are {count} ROIs; take "
            "them all: cells='all' (--cells all)."
        )
    chosen = np.asarray(cells[:, 0] if cells.ndim == 2 else cells)
    if not np.isin(chosen, (0, 1)).all():  # such as the probabilities of its second column
        raise ReadError(
            f"{path} must hold 1 for each cell and 0 for other ROIs, in its first column if it has "
            "several; it holds other numbers there. Take all ROIs: cells='all' (--cells all)."
        )
    rows = np.flatnonzero(chosen)
    if not len(rows):
        raise ReadError(f"{path} calls none of {count} ROIs a cell; cells='all' (--cells all).")
    return rows

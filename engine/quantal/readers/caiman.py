"""CaImAn's HDF5 files: the traces of its components among `estimates`, ROIs x frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.errors import ReadError
from quantal.imaging import DFF
from quantal.readers.field import ALL, Choice, Field, centres

ESTIMATES = "estimates"
_DFF, _DENOISED, _RESIDUAL, _SPIKES = "F_dff", "C", "YrA", "S"
_WITH_NOISE = "C+YrA"  # what the model of a component leaves over belongs to its trace


def open_caiman(file: Any, path: Path, choice: Choice) -> Field:
    """The traces named: F_dff (the default), C (denoised) or C+YrA (with its noise).

    Raises ReadError if they are not there, or for the deconvolved S, which has no events left.
    """
    estimates = file[ESTIMATES]
    held = _held(estimates)
    name = _chosen(path, held, choice.dataset)
    samples = _matrix(estimates, _DENOISED if name == _WITH_NOISE else name)
    if name == _WITH_NOISE:
        samples = samples + _matrix(estimates, _RESIDUAL)
    rows = np.arange(len(samples))
    notes = [f"traces are {name}; there are {', '.join(held)}"]
    accepted = estimates.get("idx_components")
    if choice.cells != ALL and accepted is not None and accepted.shape and len(accepted):
        rows = np.sort(np.asarray(accepted[()], np.int64))
        notes.append(f"{len(rows)} of {len(samples)} components are accepted (idx_components)")
    position = _positions(file, estimates, len(samples))
    return Field(
        samples=samples[rows],
        rate_hz=_rate(file),
        kind=DFF if name == _DFF else None,
        number=rows,
        position=None if position is None else position[rows],
        notes=tuple(notes),
        rate_missing="it has no frame rate (params/data/fr)",
        kind_missing=f"{name} of CaImAn may be in any unit",
    )


def _held(estimates: Any) -> list[str]:
    """Names of what can be read here; what CaImAn did not compute is stored as a word."""
    there = [
        name
        for name in (_DFF, _DENOISED, _RESIDUAL)
        if name in estimates and _is_matrix(estimates[name])
    ]
    if _RESIDUAL in there:
        there.remove(_RESIDUAL)
        there += [_WITH_NOISE] if _DENOISED in there else []
    return there


def _is_matrix(item: Any) -> bool:
    import h5py

    return isinstance(item, h5py.Dataset) and item.ndim == 2 and item.dtype.kind in "iuf"


def _chosen(path: Path, held: list[str], asked: str | None) -> str:
    name = None if asked is None else asked.removeprefix(f"{ESTIMATES}/").strip("/")
    if name == _SPIKES:
        raise ReadError(
            f"{path}: {_SPIKES} is deconvolved, its events are gone. Name one of {', '.join(held)}."
        )
    if name is not None and name not in held:
        raise ReadError(f"{path} has no traces {asked!r}. It has: {', '.join(held) or 'none'}.")
    if name is None and _DFF not in held:
        if not held:
            raise ReadError(f"{path} holds no traces: neither F_dff nor C among its estimates.")
        raise ReadError(
            f"{path} has no F_dff. Name others: dataset={held[-1]!r} (--dataset {held[-1]}) "
            f"of {', '.join(held)}."
        )
    return name or _DFF


def _matrix(estimates: Any, name: str) -> NDArray[np.float32]:
    return np.asarray(estimates[name][()], np.float32)


def _rate(file: Any) -> float | None:
    stored = file.get("params/data/fr")
    if stored is None or stored.dtype.kind not in "iuf" or stored.size != 1:
        return None
    rate = float(np.ravel(stored[()])[0])
    return rate if rate > 0 else None


def _positions(file: Any, estimates: Any, count: int) -> NDArray[np.float64] | None:
    """Centres of the footprints A, a sparse matrix of pixels (first axis fastest) x components."""
    footprints = estimates.get("A")
    dims = next(
        (file[p] for p in ("estimates/dims", "params/data/dims", "dims") if p in file), None
    )
    parts = ("data", "indices", "indptr")
    if dims is None or np.shape(dims) != (2,) or footprints is None:
        return None
    if not all(part in footprints and len(footprints[part].shape or ()) == 1 for part in parts):
        return None
    weight, pixel, starts = (footprints[part][()] for part in parts)
    if len(starts) != count + 1:
        return None
    rows = np.repeat(np.arange(count), np.diff(starts))
    height = int(dims[0])
    return centres(rows, pixel // height, pixel % height, weight, count)

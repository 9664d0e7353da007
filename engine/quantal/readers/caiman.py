"""CaImAn's HDF5 files: the traces of its components among `estimates`, ROIs x frames."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.errors import ReadError
from quantal.imaging import DFF
from quantal.readers.field import ALL, Choice, Field, centres, owners
from quantal.readers.hdf5 import refuse_empty_promises

ESTIMATES = "estimates"
_DFF, _DENOISED, _RESIDUAL, _SPIKES = "F_dff", "C", "YrA", "S"
_WITH_NOISE = "C+YrA"  # what the model of a component leaves over belongs to its trace


def open_caiman(file: Any, path: Path, choice: Choice) -> Field:
    """The traces named: F_dff (the default), C (denoised) or C+YrA (with its noise).

    Raises ReadError if they are not there, or for the deconvolved S, which has no events left.
    """
    import h5py

    estimates = file[ESTIMATES]
    if not isinstance(estimates, h5py.Group):
        raise ReadError(f"{path}: {ESTIMATES} is no group of traces, as CaImAn saves it.")
    held = _held(estimates)
    name = _chosen(path, held, choice.dataset)
    samples = _matrix(estimates, _DENOISED if name == _WITH_NOISE else name, path)
    if name == _WITH_NOISE:
        residual = _matrix(estimates, _RESIDUAL, path)
        if residual.shape != samples.shape:
            raise ReadError(
                f"{path}: {_DENOISED} is {samples.shape} and {_RESIDUAL} {residual.shape}; they "
                f"are not of the same run. Name another: dataset={_DENOISED!r}."
            )
        samples = samples + residual
    rows = np.arange(len(samples))
    notes = [f"traces are {name}; there are {', '.join(held)}"]
    if choice.cells != ALL and (accepted := _accepted(estimates, len(samples), path)) is not None:
        rows = accepted
        notes.append(f"{len(rows)} of {len(samples)} components are accepted (idx_components)")
    position = _positions(file, estimates, len(samples), path)
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


def _matrix(estimates: Any, name: str, path: Path) -> NDArray[np.float32]:
    refuse_empty_promises(estimates[name], path)
    return np.asarray(estimates[name][()], np.float32)


def _accepted(estimates: Any, count: int, path: Path) -> NDArray[np.int64] | None:
    """Rows of the accepted components; None where CaImAn did not choose among them."""
    import h5py

    item = estimates.get("idx_components")
    if not isinstance(item, h5py.Dataset) or item.shape == ():
        return None  # a word
    every = "take them all: cells='all' (--cells all)."
    if not item.size:
        raise ReadError(
            f"{path}: none of {count} components are accepted (idx_components); {every}"
        )
    named = _numbers(estimates, "idx_components", path)
    rows = np.unique(np.asarray([] if named is None else named, np.int64))
    if named is None or rows[0] < 0 or rows[-1] >= count or len(rows) < len(named):
        raise ReadError(
            f"{path}: idx_components names components that are not among the {count}, or one "
            f"twice; {every}"
        )
    return rows


def _numbers(group: Any, name: str, path: Path) -> NDArray[Any] | None:
    """A list of whole numbers; None where it is anything else."""
    import h5py

    item = group.get(name)
    if not isinstance(item, h5py.Dataset) or item.ndim != 1 or item.dtype.kind not in "iu":
        return None
    refuse_empty_promises(item, path)
    return np.asarray(item[()])


def _rate(file: Any) -> float | None:
    import h5py

    stored = file.get("params/data/fr")
    if not isinstance(stored, h5py.Dataset) or stored.dtype.kind not in "iuf" or stored.size != 1:
        return None
    rate = float(np.ravel(stored[()])[0])
    return rate if math.isfinite(rate) and rate > 0 else None


def _positions(file: Any, estimates: Any, count: int, path: Path) -> NDArray[np.float64] | None:
    """Centres of the footprints A, a sparse matrix of pixels (first axis fastest) x components.

    None where there are none, or they contradict themselves.
    """
    import h5py

    footprints = estimates.get("A")
    places = ("estimates/dims", "params/data/dims", "dims")
    dims = next((n for p in places if (n := _numbers(file, p, path)) is not None), None)
    if dims is None or dims.shape != (2,) or not isinstance(footprints, h5py.Group):
        return None
    weight = footprints.get("data")
    pixel, starts = (_numbers(footprints, part, path) for part in ("indices", "indptr"))
    if not isinstance(weight, h5py.Dataset) or weight.dtype.kind not in "iuf":
        return None
    if pixel is None or starts is None or weight.shape != pixel.shape or len(starts) != count + 1:
        return None
    height, rows = int(dims[0]), owners(starts[1:], len(pixel))
    if height < 1 or starts[0] != 0 or rows is None:
        return None
    refuse_empty_promises(weight, path)
    return centres(rows, pixel // height, pixel % height, weight[()], count)

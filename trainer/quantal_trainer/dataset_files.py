"""Datasets in files: one HDF5 layout, the field's, with rate, unit and origin as attributes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from quantal.errors import ReadError, UsageError
from quantal.readers.hdf5 import (
    attribute,
    is_text,
    refuse_damaged_texts,
    refuse_empty_promises,
)
from quantal.save import as_json, hdf5_bytes, replacing
from quantal.trace import is_finite
from quantal_trainer.datasets import Dataset

_LONGEST_FACTS = 1 << 20
_LARGEST = 4_000_000_000  # bytes of windows in one file


def read_dataset(
    path: str | Path, *, rate_hz: float | None = None, unit: str | None = None
) -> Dataset:
    """A dataset from HDF5: `events` (n, length) and `scores` (n,), `cell_label` and `raw_indices`.

    rate_hz, unit: for files of other programs, which do not say; where the file says something
    else, it is an error. Raises ReadError if the file cannot be read, lacks a column or the rate
    or the unit is neither in it nor given, and UsageError if its columns make no sense.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ReadError(f"there is no file {path}.")
    try:
        refuse_damaged_texts(path)
        with h5py.File(path, "r") as file:
            columns = {name: _column(file, path, name) for name in ("events", "scores")}
            n = max(len(np.atleast_1d(column)) for column in columns.values())
            labels = _texts(file, path, "cell_label", n) if "cell_label" in file else None
            kinds = _texts(file, path, "kind", n) if "kind" in file else np.empty(0, np.str_)
            indices: Any = (
                _column(file, path, "raw_indices") if "raw_indices" in file else np.empty(0)
            )
            stated = {name: _said(file, name) for name in ("rate_hz", "unit", "provenance")}
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise ReadError(f"{path} cannot be read as a dataset: {_one_line(error)}.") from None
    rate, known_unit = _stated(path, "rate_hz", stated["rate_hz"], rate_hz), stated["unit"]
    try:
        return Dataset(
            windows=columns["events"],
            scores=columns["scores"],
            rate_hz=float(rate),
            unit=str(_stated(path, "unit", known_unit, unit)),
            cells=_one_cell(path, len(columns["events"])) if labels is None else labels,
            raw_indices=indices,
            kinds=kinds,
            provenance=_facts(stated["provenance"]) or {"file": path.name},
        )
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def save_dataset(dataset: Dataset, path: str | Path) -> None:
    """Write a dataset as HDF5, whole or not at all; raises SaveError if that fails."""
    text = h5py.string_dtype()
    columns = {"cell_label": dataset.cells, "kind": dataset.kinds}

    def fill(file: h5py.File) -> None:
        file.create_dataset("events", data=dataset.windows, compression="gzip", shuffle=True)
        file.create_dataset("scores", data=dataset.scores)
        file.create_dataset("raw_indices", data=dataset.raw_indices)
        for name, texts in columns.items():
            file.create_dataset(name, data=[_storable(t) for t in texts.tolist()], dtype=text)
        file.attrs["rate_hz"] = dataset.rate_hz
        file.attrs["unit"] = dataset.unit
        file.attrs["provenance"] = as_json(dataset.provenance)

    content = hdf5_bytes(fill)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def _storable(text: str) -> str:
    """A text that HDF5 can hold, whatever a file was called."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def _column(file: h5py.File, path: Path, name: str) -> NDArray[Any]:
    if name not in file or not isinstance(file[name], h5py.Dataset):
        there = ", ".join(file) or "nothing"
        raise ReadError(
            f"{path} holds no {name!r}; a dataset of windows has events (n, length) and "
            f"scores (n,). It holds: {there}."
        )
    column = file[name]
    if column.dtype.kind not in "iufb":
        raise ReadError(f"{name!r} in {path} holds {column.dtype}, not numbers.")
    refuse_empty_promises(column, path)
    if column.size * 4 > _LARGEST:
        raise ReadError(f"{name!r} in {path} has {column.size:,} values, more than can be trained.")
    return np.asarray(column[()])


def _texts(file: h5py.File, path: Path, name: str, most: int) -> NDArray[np.str_]:
    """A column of at most so many texts."""
    column = file[name]
    if not isinstance(column, h5py.Dataset) or not (is_text(column) or column.dtype.kind in "iuf"):
        raise ReadError(f"{name!r} in {path} holds no texts.")
    if column.size > most:
        raise ReadError(f"{name!r} in {path} has {column.size:,} texts for {most:,} windows.")
    refuse_empty_promises(column, path)
    flat = np.atleast_1d(np.asarray(column[()])).ravel()
    return np.array(
        [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in flat], np.str_
    )


def _said(file: h5py.File, name: str) -> Any:
    """A number or a text that the file states of itself; None where it does not."""
    value = attribute(file, name, _LONGEST_FACTS)
    return None if np.size(value) != 1 or value == "" else np.ravel(value)[0]


def _one_cell(path: Path, n: int) -> NDArray[np.str_]:
    path = path.resolve()
    return np.full(n, f"{path.parent.name}/{path.stem}")  # files of several folders share names


def _stated(path: Path, name: str, stated: Any, given: Any) -> Any:
    option = "--" + name.replace("_", "-")
    if isinstance(stated, bytes):
        stated = stated.decode("utf-8", "replace")
    if stated is None and given is None:
        raise ReadError(f"{path} does not say its {name}, which is never assumed: give {option}.")
    if name == "rate_hz" and not is_finite(given if stated is None else stated):
        raise ReadError(f"{path} has a rate_hz that is no number: {stated!r}.")
    if stated is None or given is None:
        return given if stated is None else stated
    same = stated == given if name == "unit" else np.isclose(float(stated), float(given), rtol=1e-6)
    if not same:
        raise UsageError(f"{path} has {name} {stated}, not {given}: leave out {option}.")
    return stated


def _facts(text: Any) -> dict[str, Any]:
    try:
        facts = json.loads(text)
    except (TypeError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__

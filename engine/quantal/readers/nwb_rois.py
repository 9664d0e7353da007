"""NWB: RoiResponseSeries, stored time x ROIs, with the masks of their PlaneSegmentation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.errors import ReadError
from quantal.imaging import DFF
from quantal.readers.clock import NoRateError, rate_from_times
from quantal.readers.field import Choice, Field, centres, owners
from quantal.readers.hdf5 import attribute, number, refuse_empty_promises, word

_SERIES, _DFF_CONTAINER = "RoiResponseSeries", "DfOverF"


def open_nwb_rois(file: Any, path: Path, choice: Choice) -> Field:
    """One series of ROI responses, in its own unit.

    Raises ReadError if there is none, several and none named, or its shape fits no ROIs.
    """
    series = _chosen(file, path, choice.dataset)
    data = series["data"]
    refuse_empty_promises(data, path)
    rois, times = _list(series, "rois", "iu", path), _list(series, "timestamps", "iuf", path)
    samples, notes = _rois_by_time(data, series.name, rois, times, path)
    factor, offset = _number(data, "conversion", 1.0), _number(data, "offset", 0.0)
    if (factor, offset) != (1.0, 0.0):
        samples = samples * np.float32(factor) + np.float32(offset)
    rate_hz, rate_missing = _rate(series, times)
    numbers, position, remarks = _table(file, series, rois, path)
    return Field(
        samples=samples,
        rate_hz=rate_hz,
        kind=DFF if _type(series.parent) == _DFF_CONTAINER else None,
        number=numbers,
        position=position,
        notes=notes + remarks,
        rate_missing=rate_missing,
        kind_missing=f"{series.name} lies in no {_DFF_CONTAINER}, so it may be anything",
    )


def _list(group: Any, name: str, kinds: str, path: Path) -> NDArray[Any] | None:
    """A list of numbers of these kinds, None where there is no such thing."""
    import h5py

    item = group.get(name)
    if not isinstance(item, h5py.Dataset) or item.ndim != 1 or item.dtype.kind not in kinds:
        return None
    refuse_empty_promises(item, path)
    return np.asarray(item[()])


def _type(item: Any) -> str:
    return word(attribute(item, "neurodata_type"))


def _number(item: Any, name: str, otherwise: float) -> float:
    """An attribute that is a number; `otherwise` where it is not there."""
    value = number(attribute(item, name))
    return otherwise if np.isnan(value) else value


def _chosen(file: Any, path: Path, asked: str | None) -> Any:
    import h5py

    found: list[str] = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Group) and isinstance(item.get("data"), h5py.Dataset):
            found.extend([name] if _type(item) == _SERIES else [])

    file.visititems(visit)
    if not found:
        raise ReadError(f"{path} holds no {_SERIES}: there are no traces of ROIs in it.")
    if asked is not None:
        wanted = asked.strip("/")
        named = [name for name in found if name == wanted] or [
            name for name in found if f"/{name}".endswith(f"/{wanted}")
        ]
        if len(named) == 1:
            return file[named[0]]
        raise ReadError(f"{path} has no one series {asked!r}. It has: {', '.join(found)}.")
    if len(found) > 1:
        raise ReadError(
            f"{path} holds {len(found)} series of ROI responses: {', '.join(found)}. "
            f"Name one: dataset={found[0]!r} (--dataset {found[0]})."
        )
    return file[found[0]]


def _rois_by_time(
    data: Any, name: str, rois: NDArray[Any] | None, times: NDArray[Any] | None, path: Path
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """The matrix with one row per ROI; files that break the standard, ROIs x time, are told by
    the number of their ROIs and times."""
    shape = data.shape or ()
    if len(shape) not in (1, 2) or not data.size or data.dtype.kind not in "iuf":
        raise ReadError(
            f"{path}: {name} has shape {shape} of {data.dtype}; numbers, time x ROIs, are wanted."
        )
    if len(shape) == 1:
        return np.asarray(data[()], np.float32)[None], ()
    many, ticks = None if rois is None else len(rois), None if times is None else len(times)
    fits = [
        (many is None or shape[1 - time] == many) and (ticks is None or shape[time] == ticks)
        for time in (0, 1)
    ]
    if not any(fits):
        raise ReadError(
            f"{path}: {name} has shape {shape}, but {many} ROIs and {ticks or 'unknown'} times; "
            "the file contradicts itself."
        )
    samples = np.asarray(data[()], np.float32)
    if fits[0]:
        return np.ascontiguousarray(samples.T), ()
    return samples, (f"{name} is stored ROIs x time, against the standard; it was read so",)


def _rate(series: Any, times: NDArray[Any] | None) -> tuple[float | None, str]:
    start = series.get("starting_time")
    rate = 0.0 if start is None else _number(start, "rate", 0.0)
    if math.isfinite(rate) and rate > 0:
        return rate, ""
    if times is None:
        return None, f"{series.name} has neither a rate nor timestamps"
    try:
        return rate_from_times(np.asarray(times, np.float64), "s", "its timestamps"), ""
    except NoRateError as reason:
        return None, str(reason)


def _table(
    file: Any, series: Any, rois: NDArray[Any] | None, path: Path
) -> tuple[NDArray[np.int64], NDArray[np.float64] | None, tuple[str, ...]]:
    """Number and centre of each ROI, from the table of the segmentation that the series names.

    Returns also what is to be said of them. Raises ReadError for ROIs that the table does not hold.
    """
    import h5py

    said = None if rois is None else series["rois"].attrs
    if rois is None or said is None or "table" not in said:
        return np.empty(0, np.int64), None, ()
    if said.get_id("table").get_type().get_class() != h5py.h5t.REFERENCE:
        return np.empty(0, np.int64), None, ()  # HDF5 does not survive a damaged type
    table = file[said["table"]]
    rows = rois.astype(np.int64)
    lost = ReadError(f"{path}: {series.name} names ROIs that no table holds; it is damaged.")
    if not isinstance(table, h5py.Group):
        raise lost
    listed = _list(table, "id", "iu", path)
    if rows.min(initial=0) < 0 or (listed is not None and rows.max(initial=-1) >= len(listed)):
        raise lost
    numbers = rows if listed is None else listed.astype(np.int64)[rows]
    remarks: tuple[str, ...] = ()
    if len(np.unique(numbers)) < len(numbers) or numbers.min(initial=0) < 0:
        numbers = np.arange(len(numbers))
        remarks = (f"{table.name} does not number its ROIs once each; they are counted from 0",)
    position = _centres(table, path)
    if position is None or len(position) <= rows.max(initial=-1):
        return numbers, None, remarks
    return numbers, position[rows], remarks


def _centres(table: Any, path: Path) -> NDArray[np.float64] | None:
    """The centre of each ROI of a segmentation; None without masks, or where these are none."""
    import h5py

    for name, read in (
        ("pixel_mask", _by_pixels),
        ("voxel_mask", _by_pixels),
        ("image_mask", _by_image),
    ):
        masks = table.get(name)
        if isinstance(masks, h5py.Dataset):
            refuse_empty_promises(masks, path)
            return read(masks, _list(table, f"{name}_index", "iu", path))
    return None


def _by_pixels(masks: Any, stops: NDArray[Any] | None) -> NDArray[np.float64] | None:
    """Centres from lists of pixels (x, y, weight), cut into ROIs by their index."""
    fields = ("x", "y", "weight")
    if stops is None or masks.ndim != 1 or not set(fields) <= set(masks.dtype.names or ()):
        return None
    if any(masks.dtype[field].kind not in "iuf" for field in fields):
        return None
    pixels, rows = masks[()], owners(stops, len(masks))
    if rows is None:
        return None
    return centres(rows, pixels["x"], pixels["y"], pixels["weight"], len(stops))


def _by_image(masks: Any, stops: NDArray[Any] | None) -> NDArray[np.float64] | None:  # noqa: ARG001
    """Centres from one image for each ROI, x along its first axis; one at a time in memory."""
    if masks.ndim != 3 or masks.dtype.kind not in "iufb":
        return None
    found = np.empty((len(masks), 2))
    for row in range(len(masks)):
        mask = np.asarray(masks[row], np.float64)
        x, y = np.nonzero(mask)
        found[row] = centres(np.zeros(len(x), np.int64), x, y, mask[x, y], 1)[0]
    return found

"""TIFF stacks with a label image: the mean of every label in every frame."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.errors import QuantalError, ReadError
from quantal.imaging import RAW
from quantal.readers.clock import NoRateError, rate_from_interval
from quantal.readers.field import Choice, Field, centres
from quantal.readers.hdf5 import refuse_more_than_packed
from quantal.readers.npy import _mapped

_TIFF = (".tif", ".tiff")
_TIMES = "TIQ"  # tifffile's letters: time, a sequence, not known
_OTHER_AXES = {"Z": "slices in depth (Z)", "C": "channels (C)"}


def open_stack(path: Path, choice: Choice) -> Field:
    """Raw fluorescence of each label but 0, the background.

    Raises ReadError if tifffile is not installed, no labels are given, or they do not fit.
    """
    if choice.labels is None:
        raise ReadError(
            f"{path} is a stack of images; give the image whose labels are the ROIs: "
            "labels='labels.tif' (--labels labels.tif)."
        )
    labels = _labels(Path(choice.labels))
    number, rows = np.unique(labels, return_inverse=True)
    rows = rows.ravel()
    with _opened(path) as tiff:
        series = tiff.series[0]
        if len(series.shape) != 3 or series.shape[1:] != labels.shape:
            raise ReadError(
                f"{path} has shape {series.shape} ({series.axes}) and its labels {labels.shape}; "
                "frames of the size of the label image are wanted, in one channel."
            )
        _refuse_other_axes(series.axes[0], path)
        refuse_more_than_packed(series.nbytes, "its stack", path)
        rate_hz = _rate(tiff)
        count = np.bincount(rows)
        means = [np.bincount(rows, frame.ravel()) / count for frame in _frames(series)]
        if not means:
            raise ReadError(f"{path} holds no frames; copy it again.")
    y, x = np.indices(labels.shape).reshape(2, -1)
    position = centres(rows, x, y, np.ones(labels.size), len(number))
    kept = number != 0
    if not kept.any():
        raise ReadError(f"{choice.labels} holds no label but 0, the background.")
    return Field(
        samples=np.ascontiguousarray(np.stack(means, axis=1)[kept], np.float32),
        rate_hz=rate_hz,
        kind=RAW,
        number=number[kept].astype(np.int64),
        position=position[kept],
        rate_missing="it has no frame interval",
    )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file, with whatever tifffile raises over a damaged one turned into a ReadError."""
    try:
        import tifffile
    except ImportError:
        raise ReadError(
            f'{path}: TIFF needs tifffile. Type: python -m pip install "quantal[imaging]", or '
            "python -m pip install tifffile"
        ) from None
    try:
        with tifffile.TiffFile(path) as tiff:
            _refuse_circle(tiff, path)
            yield tiff
    except (QuantalError, MemoryError):
        raise
    except Exception as error:  # damaged tags are met wherever they are used
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ReadError(f"{path} cannot be read as TIFF: {reason}.") from error


def _refuse_circle(tiff: Any, path: Path) -> None:
    """Refuse a chain of pages that comes back to itself: tifffile would follow it for ever."""
    form, file, seen = tiff.tiff, tiff.filehandle, set()
    offset = tiff.pages.first.offset
    while 0 < offset < file.size:
        if offset in seen:
            raise ReadError(f"{path} cannot be read as TIFF: its pages run in a circle.")
        seen.add(offset)
        file.seek(offset)
        count = file.read(form.tagnosize)
        if len(count) < form.tagnosize:
            return
        file.seek(struct.unpack(form.tagnoformat, count)[0] * form.tagsize, 1)
        following = file.read(form.offsetsize)
        if len(following) < form.offsetsize:
            return
        offset = struct.unpack(form.offsetformat, following)[0]


def _refuse_other_axes(first: str, path: Path) -> None:
    """Raises ReadError if the images follow each other in depth, colour or anything but time."""
    if first not in _TIMES:
        raise ReadError(
            f"{path} says that its images are {_OTHER_AXES.get(first, f'along {first}')}, and not "
            "frames in time. If they are frames, say so in the file: in ImageJ by Image > "
            "Properties, in Python by tifffile.imwrite(path, movie, metadata={'axes': 'TYX'})."
        )


def _frames(series: Any) -> Iterator[NDArray[Any]]:
    """One frame after the other; large ImageJ stacks have a single page for all of them."""
    if len(series.pages) == series.shape[0]:
        for page in series.pages:
            yield page.asarray()
    else:
        yield from series.asarray(out="memmap")


def _rate(tiff: Any) -> float | None:
    """Frames per second from ImageJ's frame interval (s)."""
    interval = (tiff.imagej_metadata or {}).get("finterval", 0.0)
    try:
        return rate_from_interval(float(interval), "s", "its frame interval")
    except (NoRateError, TypeError, ValueError):
        return None


def _labels(path: Path) -> NDArray[Any]:
    if not path.is_file():
        raise ReadError(f"there is no label image {path}.")
    if path.suffix.lower() in _TIFF:
        with _opened(path) as tiff:
            refuse_more_than_packed(tiff.series[0].nbytes, "its image", path)
            labels = np.asarray(tiff.asarray())
    else:
        labels = np.asarray(_mapped(path))
    if labels.ndim != 2 or labels.dtype.kind not in "iub":
        raise ReadError(
            f"{path} has shape {labels.shape} and type {labels.dtype}; one image of whole numbers "
            "is wanted, 0 for the background and a number for each ROI."
        )
    return labels

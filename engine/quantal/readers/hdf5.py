"""Plain HDF5: one data set of samples, with rate and unit in attributes."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np

from quantal.errors import ReadError
from quantal.readers.clock import NoRateError, rate_from_interval
from quantal.readers.recording import (
    Channel,
    Recording,
    Samples,
    SeveralDatasetsError,
    shortened,
)
from quantal.readers.sweeps2d import layout

# Without case, spaces and punctuation, as "Sampling rate (Hz)" is samplingratehz.
_RATES = {
    f"{name}{unit}": factor
    for name in (
        "rate",
        "samplerate",
        "samplingrate",
        "samplefrequency",
        "samplingfrequency",
        "fs",
        "framerate",
    )
    for unit, factor in (("", 1.0), ("hz", 1.0), ("khz", 1e3))
} | {"fps": 1.0, "hz": 1.0}
_INTERVALS = {
    f"{name}{unit}": unit or None
    for name in (
        "dt",
        "sampleinterval",
        "samplinginterval",
        "sampleperiod",
        "samplingperiod",
        "frameinterval",
    )
    for unit in ("", "s", "sec", "ms", "us")
}
_UNITS = ("unit", "units", "yunit", "yunits", "dataunit", "dataunits", "signalunit", "sampleunit")

_COMPANIONS = {name + end for name in (*_RATES, *_INTERVALS) for end in ("unit", "units")}
_NAMES = {*_RATES, *_INTERVALS, *_UNITS, *_COMPANIONS}
_LONGEST = 1024  # bytes; a number or the name of a unit

# Where HDF5 keeps texts of variable length; in larger files they are not checked beforehand.
_HEAP = b"GCOL\x01\0\0\0"
_LARGEST_CHECKED = 1 << 30
# The type of texts of an attribute; looked for by its end, which is the same in all, and so fast.
_TEXT_TYPE = re.compile(rb"\x10\0\0\0(?<=[\x19\x39][\x01\x11\x21][\0\x01]\0\x10\0\0\0)")
_REFERENCE = np.dtype([("length", "<u4"), ("heap", "<u8"), ("index", "<u4")])  # a text in a heap

# Compression does not pack tighter; a file that promises more holds nothing of it.
_TIGHTEST_PACKING = 2000


def open_hdf5(path: Path, dataset: str | None = None) -> Recording:
    """Open one data set of an HDF5 file: 1-D, or 2-D with the longer axis as time.

    Rate and unit come from attributes of the data set, or else of the groups around it. The
    channel takes the data set's name. dataset may be left out where only one can be meant.

    Raises ReadError if there is no such data set, more than one, or its shape is ambiguous.
    """
    with opened(path) as file:
        data = _named(file, path, dataset) if dataset is not None else _only(file, path)
        name = data.name.strip("/")
        refuse_empty_promises(data, path)
        form = layout(path, name, data.shape)
        levels = _attributes(file, name)

    def load(sweeps: Sequence[int], channels: Sequence[int]) -> Iterator[Sequence[Samples]]:
        with opened(path) as file:
            data = file[name]
            # Chunks may run across sweeps: reading all at once unpacks each of them once.
            yield from form.sweeps(data[()] if len(sweeps) > 1 else data, sweeps, len(channels))

    rate_hz, rate_missing = _rate(levels)
    return Recording(
        path=path,
        format="HDF5",
        channels=(Channel(name, _unit(levels)),),
        sweep_samples=form.sweep_samples,
        load=load,
        rate_hz=rate_hz,
        notes=form.note(name),
        rate_missing=rate_missing,
    )


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The file, with what h5py raises over a damaged one turned into a ReadError."""
    import h5py

    refuse_damaged_texts(path)
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, LookupError, ValueError, TypeError) as error:
        raise ReadError(
            f"{path} cannot be read as HDF5 ({error}); it may be damaged or still open elsewhere."
        ) from error


def refuse_damaged_texts(path: Path) -> None:
    """Raise ReadError over texts on which HDF5 itself would hang, before it opens the file."""
    state = path.stat()
    if not _texts_are_whole(path, state.st_size, state.st_mtime_ns):
        raise ReadError(f"{path} cannot be read as HDF5 (its texts are damaged); copy it again.")


@lru_cache(maxsize=64)
def _texts_are_whole(path: Path, size: int, changed: int) -> bool:  # noqa: ARG001
    """Whether all heaps of texts of a file add up: HDF5 searches a damaged one for ever.

    size, changed: a file that was written anew is looked at anew.
    """
    if not len(_HEAP) < size <= _LARGEST_CHECKED:
        return True
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as stored:
        heaps = set()
        at = stored.find(_HEAP)
        while at >= 0:
            if not _heap_is_whole(stored, at, size):
                return False
            heaps.add(at)
            at = stored.find(_HEAP, at + len(_HEAP))
        return _lengths_are_possible(stored, heaps, size)


def _heap_is_whole(stored: mmap, at: int, size: int) -> bool:
    """Whether the objects of a heap, and the free space that ends it, fill it exactly."""
    if at + 16 > size:
        return False
    stop: int = at + struct.unpack_from("<Q", stored, at + 8)[0]
    if stop > size:
        return False
    position = at + 16
    while position + 16 <= stop:
        index, length = struct.unpack_from("<H6xQ", stored, position)
        if index == 0:
            whole: bool = position + length == stop
            return whole
        position += 16 + -(-length // 8) * 8
    return position <= stop


def _lengths_are_possible(stored: mmap, heaps: set[int], size: int) -> bool:
    """Whether no attribute states a text longer than the file: HDF5 makes room for any length.

    An attribute has its type, its shape, and for each text a length and the place of its heap.
    """
    for found in _TEXT_TYPE.finditer(stored):
        nearest = range(found.end() + 12, min(found.end() + 64, size - 8))
        at = next((at for at in nearest if _heap_at(stored, at) in heaps), size)
        while at + 8 <= size and _heap_at(stored, at) in heaps:
            if struct.unpack_from("<I", stored, at - 4)[0] > size:
                return False
            at += _REFERENCE.itemsize
    return True


def _heap_at(stored: mmap, at: int) -> int:
    place: int = struct.unpack_from("<Q", stored, at)[0]
    return place


def _candidates(file: Any) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all data sets that could be traces, the largest first."""
    import h5py

    found: dict[str, tuple[int, ...]] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and _is_trace(item):
            found[name] = item.shape

    file.visititems(visit)
    return dict(sorted(found.items(), key=lambda item: -math.prod(item[1])))


def _is_trace(item: Any) -> bool:
    shape = item.shape or ()
    return item.dtype.kind in "iuf" and len(shape) in (1, 2) and max(shape) > 1 and min(shape) > 0


def _only(file: Any, path: Path) -> Any:
    found = _candidates(file)
    if len(found) == 1:
        return file[next(iter(found))]
    if not found:
        raise ReadError(
            f"{path} holds no data set of numbers with one or two dimensions; "
            "quantal reads a trace (samples) or sweeps (sweeps x samples)."
        )
    raise SeveralDatasetsError(path, "HDF5", _lines(found), next(iter(found)))


def _named(file: Any, path: Path, name: str) -> Any:
    import h5py

    try:
        item = file[name]
    except (KeyError, ValueError):
        item = None
    if isinstance(item, h5py.Dataset) and _is_trace(item):
        return item
    if isinstance(item, h5py.Dataset):
        what = f"{name!r} has shape {item.shape} and type {item.dtype}, not one or two dimensions"
        what += " of numbers"
    else:
        what = f"it has no data set {name!r}"
    raise ReadError(f"{path}: {what}. There is: {_listed(_candidates(file)) or 'none'}.")


def _listed(found: Mapping[str, tuple[int, ...]]) -> str:
    return shortened(_lines(found))


def _lines(found: Mapping[str, tuple[int, ...]]) -> list[str]:
    return [f"{name} ({' x '.join(f'{n:,}' for n in shape)})" for name, shape in found.items()]


def refuse_empty_promises(data: Any, path: Path) -> None:
    """Refuse a data set that declares far more samples than the file can hold."""
    if data.external or data.is_virtual:
        raise ReadError(
            f"{path}: {data.name} keeps its samples in other files, which are not opened; save "
            "them in this one."
        )
    refuse_more_than_packed(data.nbytes, data.name, path)
    start = data.id.get_offset()  # None where it does not lie in one piece
    if start is not None and _is_list_of_texts(data):
        texts = np.fromfile(path, _REFERENCE, count=data.size, offset=start)
        longest, size = int(texts["length"].max(initial=0)), path.stat().st_size
        if longest > size:
            raise ReadError(
                f"{path}: {data.name} declares a text of {longest:,} bytes, but the file has "
                f"{size:,}; it is damaged, copy it again."
            )


def _is_list_of_texts(data: Any) -> bool:
    """Whether texts are of variable length."""
    import h5py

    text = h5py.check_string_dtype(data.dtype)
    return text is not None and text.length is None


def refuse_more_than_packed(declared: int, name: str, path: Path) -> None:
    """Refuse an array of more bytes than any compression could have packed into the file."""
    if declared > _TIGHTEST_PACKING * path.stat().st_size:
        raise ReadError(
            f"{path}: {name} declares {declared:,} bytes of samples, but the file has "
            f"{path.stat().st_size:,}; the recording was not written."
        )


def _attributes(file: Any, name: str) -> list[dict[str, Any]]:
    """Attributes of the data set, then of the groups around it, with plain names."""
    parts = name.split("/")
    places = ["/".join(parts[:depth]) or "/" for depth in range(len(parts), -1, -1)]
    return [{_plain(key): value for key, value in _readable(file[place])} for place in places]


def _readable(item: Any) -> Iterator[tuple[str, Any]]:
    """Single values among the attributes that have a name of ours; others are left unread."""
    for key in item.attrs:
        if _plain(str(key)) in _NAMES and np.size(value := attribute(item, key)) and value != "":
            yield str(key), value


def attribute(item: Any, name: str, most: int = _LONGEST) -> Any:
    """An attribute that is numbers or text of at most so many bytes, else ''.

    Other types are not touched: HDF5 does not survive a damaged one.
    """
    import h5py

    if name not in item.attrs:
        return ""
    stored = item.attrs.get_id(name)
    kinds = (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING)
    if stored.get_type().get_class() not in kinds or stored.get_storage_size() > most:
        return ""
    return item.attrs[name]


def is_text(data: Any) -> bool:
    """Whether a data set holds texts; other types of variable length are not to be read."""
    import h5py

    return h5py.check_string_dtype(data.dtype) is not None


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower())


def number(value: Any) -> float:
    """A number that may be stored as text or as an array of one; nan for all else."""
    try:
        return float(np.ravel(value)[0]) if np.size(value) == 1 else math.nan
    except (TypeError, ValueError):
        return math.nan


def word(value: Any) -> str:
    """A text that may be stored as bytes or as an array of one; '' for several."""
    value = np.ravel(value)[0] if np.size(value) == 1 else ""
    return (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)).strip()


def _unit(levels: Sequence[Mapping[str, Any]]) -> str | None:
    """The nearest attribute that names a unit."""
    found = (word(level[key]) for level in levels for key in _UNITS if key in level)
    return next((word for word in found if word), None)


def _rate(levels: Sequence[Mapping[str, Any]]) -> tuple[float | None, str]:
    """The rate of the nearest level that states one, or None and why there is none."""
    for level in levels:
        try:
            stated = _stated_rates(level)
        except NoRateError as reason:
            return None, str(reason)
        rates = list(stated.values())
        if rates and max(rates) - min(rates) > 1e-6 * max(rates):
            listed = ", ".join(f"{key} = {rate:g} Hz" for key, rate in stated.items())
            return None, f"its attributes disagree about the sampling rate: {listed}"
        if rates:
            return rates[0], ""
    return None, "it has no attribute for the sampling rate (such as rate_hz or sample_interval_s)"


def _stated_rates(level: Mapping[str, Any]) -> dict[str, float]:
    rates = {}
    for key, value in level.items():
        if key in _RATES:
            rates[key] = number(value) * _frequency_factor(level, key)
            if not (math.isfinite(rates[key]) and rates[key] > 0):
                raise NoRateError(f"its attribute {key} = {value} is not a sampling rate")
        elif key in _INTERVALS:
            unit = _INTERVALS[key] or _companion(level, key)
            rates[key] = rate_from_interval(number(value), unit, f"its attribute {key}")
    return rates


def _companion(level: Mapping[str, Any], key: str) -> str | None:
    """The unit stated beside an attribute, as dt_unit stands beside dt."""
    found = [word(level[key + end]) for end in ("unit", "units") if key + end in level]
    return found[0] if found else None


def _frequency_factor(level: Mapping[str, Any], key: str) -> float:
    unit = _companion(level, key)
    if unit is None:
        return _RATES[key]
    factors = {"hz": 1.0, "khz": 1e3, "mhz": 1e6, "1/s": 1.0}
    if unit.lower() not in factors:
        raise NoRateError(f"its attribute {key} is in an unknown unit of frequency, {unit!r}")
    return factors[unit.lower()]

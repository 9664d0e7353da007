"""Results -> files: every file is written whole or not at all."""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal import __version__
from quantal.errors import ReadError, SaveError, UsageError
from quantal.events import COLUMNS, Events, Sweep, column_type, make_events
from quantal.fits import Fits
from quantal.scan import Scores

_FORMAT, _SCHEMA = "quantal events", 1
SCRATCH = ".quantal-*.tmp"  # names of what is not complete yet
_SWEEP_COLUMNS = tuple(field.name for field in fields(Sweep))
# A sample of a two-hour sweep is a tenth digit of its time; nine digits outlast single precision.
_TIME_DIGITS, _DIGITS = 12, 9
_MISSING = ("", "nan", "NaN", "NA")
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}


def save_events(events: Events, path: str | Path, *, fits: Fits | None = None) -> None:
    """Write the table of events; the suffix says how: .csv or .h5.

    A CSV holds one row per event and cannot hold `sweeps` (what was searched); HDF5 holds all, and
    the fits, if there are any, as a group `fits`. Raises UsageError for another suffix, SaveError
    if the file cannot be written.
    """
    content = _by_suffix(path, _WRITERS)(events, fits)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def save_fits(fits: Fits, path: str | Path) -> None:
    """Write the table of fits, one row per event; the suffix says how: .csv or .h5.

    Raises UsageError for another suffix, SaveError if the file cannot be written.
    """
    content = _by_suffix(path, _FIT_WRITERS)(fits)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def load_events(path: str | Path) -> Events:
    """The table of events in a .csv or .h5 file that `save_events` wrote.

    HDF5 gives back what was saved; a CSV gives numbers as printed and no `sweeps`, so frequencies
    cannot be had from it. Raises UsageError for another suffix, ReadError for another content.
    """
    reader = _by_suffix(path, _READERS)
    try:
        events: Events = reader(Path(path))
    except FileNotFoundError:
        raise ReadError(f"there is no file {path}.") from None
    except (OSError, ValueError, KeyError, TypeError, csv.Error, MemoryError) as error:
        raise ReadError(f"{path} cannot be read as a table of events: {error}.") from None
    return events


def save_summary(summary: Mapping[str, Any], path: str | Path) -> None:
    """Write a summary as JSON, keys in order; what is not a finite number is null."""
    content = (as_json(summary) + "\n").encode("utf-8", "replace")
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def as_json(value: Any) -> str:
    """JSON text of dicts, lists, dataclasses, paths, NumPy numbers and arrays; nan is null."""
    return json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False)


def save_scores(scores: Mapping[str, Scores], path: str | Path) -> None:
    """Write scores as HDF5: one group per name, with `values` and the clock as attributes.

    The value k speaks for the time start_s + (first_sample + k * stride) / rate_hz.
    """
    content = _hdf5(lambda file: _put_scores(file, scores))
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place if all goes well and else vanishes.

    Missing folders are made. Raises SaveError if the file cannot be written; any other error of
    the caller passes through, and what was there before stays as it was.
    """
    target = Path(os.path.realpath(path))  # through a link, which is not to be replaced by a file
    temporary = target.with_name(_scratch_name())
    try:
        _prepare(target)
        yield temporary
        _flush(temporary)
        os.replace(temporary, target)
    except OSError as error:
        raise SaveError(f"{path} cannot be written: {reason(error)}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def scratch_folder(parent: str | Path) -> Iterator[Path]:
    """A hidden temporary folder in `parent`, gone at the end unless it was renamed.

    What is left in it is gone too. Missing folders are made. Raises SaveError if something cannot
    be written; any other error of the caller passes through.
    """
    folder = Path(parent) / _scratch_name()
    try:
        folder.mkdir(parents=True)
        yield folder
    except OSError as error:
        raise SaveError(f"{parent} cannot be written: {reason(error)}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _scratch_name() -> str:
    return SCRATCH.replace("*", secrets.token_hex(6))


def _prepare(target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder")
    if target.exists() and not target.is_file():  # a device must not be replaced by a file
        raise OSError(errno.EINVAL, "it is not a plain file; give the name of one")


def _flush(path: Path) -> None:
    """Bring a file to the disk: after a power cut the new name must not hold an empty file."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def reason(error: OSError) -> str:
    """Why the system could not write, and what to do."""
    remedies = {
        errno.ENOSPC: "the disk is full; free some space or save elsewhere.",
        errno.EDQUOT: "your disk quota is used up; free some space or save elsewhere.",
        errno.EROFS: "the disk is read-only; save elsewhere.",
        errno.EACCES: "access is denied; close the file in other programs, or save elsewhere.",
        errno.EPERM: "access is denied; close the file in other programs, or save elsewhere.",
        errno.EISDIR: "it is a folder; give the name of a file.",
        errno.ENOTDIR: "a part of its path is a file, not a folder.",
        errno.EEXIST: "a part of its path is a file, not a folder.",
        errno.ENAMETOOLONG: "the name is too long.",
    }
    return remedies.get(error.errno or 0, f"{error.strerror or error}.")


def _by_suffix(path: str | Path, known: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    suffix = Path(path).suffix.lower()
    if suffix not in known:
        raise UsageError(
            f"{Path(path).name!r} has suffix {suffix!r}; a table of events is one of "
            f"{', '.join(known)}."
        )
    return known[suffix]


# CSV


def _csv(events: Events, fits: Fits | None = None) -> bytes:
    del fits  # a table of their own
    return _csv_table(events.columns())


def table_rows(events: Events) -> list[str]:
    """The rows of the table as a CSV has them, without its header."""
    return _rows(events.columns())


def _csv_table(table: dict[str, NDArray[Any]]) -> bytes:
    return ("\n".join([",".join(table), *_rows(table)]) + "\n").encode()


def _rows(table: dict[str, NDArray[Any]]) -> list[str]:
    columns = [_printed(name, values) for name, values in table.items()]
    return list(map(",".join, zip(*columns, strict=True)))


def _printed(name: str, values: NDArray[Any]) -> list[str]:
    kind = values.dtype.kind
    if kind == "U":
        return _each(values, lambda text: _quoted(_clean(text)))
    if kind == "b":
        return ["true" if value else "false" for value in values.tolist()]
    if kind == "i":
        return list(map(str, values.tolist()))
    pattern = f"%.{_TIME_DIGITS if name.endswith('_s') else _DIGITS}g"
    return ["" if math.isnan(value) else pattern % value for value in values.tolist()]


def _each(texts: NDArray[Any], change: Callable[[str], str]) -> list[str]:
    """Changed texts; equal ones, of which columns are full, are changed once."""
    changed = {text: change(text) for text in set(texts.tolist())}
    return [changed[text] for text in texts.tolist()]


def _clean(text: str) -> str:
    """Text that UTF-8 and HDF5 can hold: without half characters (odd file names) and NUL."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def _quoted(text: str) -> str:
    if any(character in text for character in ',"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text


def _read_csv(path: Path) -> Events:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, strict=True)
        header = next(rows, [])
        missing = [name for name in COLUMNS if name not in header]
        if missing:
            raise ValueError(f"it lacks the columns {', '.join(missing)}")
        table = [row for row in rows if row]
    for row in table:
        if len(row) != len(header):
            raise ValueError(f"a row has {len(row)} fields and the header {len(header)}")
    columns = dict(zip(header, zip(*table, strict=True), strict=True)) if table else {}
    return make_events({name: _parsed(name, columns.get(name, ())) for name in COLUMNS}, [])


def _parsed(name: str, texts: tuple[str, ...]) -> NDArray[Any]:
    kind = column_type(name)
    try:
        if kind is np.str_:
            return np.array(texts, np.str_)
        if kind is np.bool_:
            return np.array([_BOOLEANS[text.lower()] for text in texts], np.bool_)
        if kind is np.int64:
            return np.array([_whole(text) for text in texts], np.int64)
        return np.array([math.nan if t in _MISSING else float(t) for t in texts], np.float64)
    except (ValueError, KeyError, OverflowError) as error:
        raise ValueError(f"column {name} holds what it cannot hold ({error})") from None


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        number = float(text)  # other programs write 3 as 3.0
        if number != int(number):
            raise
        return int(number)


# HDF5


def _hdf5(fill: Callable[[Any], None]) -> bytes:
    """The bytes of an HDF5 file: a full disk must be one clear error and not the library's."""
    import h5py

    with h5py.File("memory", "w", driver="core", backing_store=False) as file:
        file.attrs["quantal"] = __version__
        fill(file)
        file.flush()
        return bytes(file.id.get_file_image())


def _events_hdf5(events: Events, fits: Fits | None = None) -> bytes:
    def fill(file: Any) -> None:
        _put_events(file, events)
        if fits is not None:
            _put_table(file, "fits", fits.columns(), fits.unit)

    return _hdf5(fill)


def _fits_hdf5(fits: Fits) -> bytes:
    def fill(file: Any) -> None:
        file.attrs["format"] = "quantal fits"
        file.attrs["schema"] = _SCHEMA
        _put_table(file, "fits", fits.columns(), fits.unit)

    return _hdf5(fill)


def _put_table(file: Any, name: str, table: dict[str, NDArray[Any]], units: ArrayLike) -> None:
    """A group of columns, each with its unit; units: those that the samples have."""
    known = set(np.asarray(units).tolist())
    own = _clean(known.pop()) if len(known) == 1 else "unit"
    group = file.create_group(name)
    for column, values in table.items():
        _put_column(group, column, values).attrs["unit"] = _unit_of(column, own)


def _put_events(file: Any, events: Events) -> None:
    file.attrs["format"] = _FORMAT
    file.attrs["schema"] = _SCHEMA
    units = [sweep.unit for sweep in events.sweeps] + events.unit.tolist()
    _put_table(file, "events", events.columns(), units)
    group = file.create_group("sweeps")
    for name in _SWEEP_COLUMNS:
        kind = np.float64 if name == "analysed_s" else column_type(name)
        _put_column(group, name, np.array([getattr(s, name) for s in events.sweeps], kind))
    group["analysed_s"].attrs["unit"] = "s"


def _put_column(group: Any, name: str, values: NDArray[Any]) -> Any:
    import h5py

    if values.dtype.kind == "U":
        return group.create_dataset(
            name, data=np.array(_each(values, _clean), object), dtype=h5py.string_dtype()
        )
    return group.create_dataset(name, data=values)


def _unit_of(name: str, own: str) -> str:
    """Unit of a column; `own` stands for the trace's unit."""
    special = {
        "amplitude": own,
        "amplitude_se": own,
        "baseline": own,
        "slope_per_ms": f"{own}/ms",
        "area": f"{own} s",
    }
    if name in special:
        return special[name]
    return "ms" if name.endswith("_ms") else "s" if name.endswith("_s") else ""


def _read_hdf5(path: Path) -> Events:
    import h5py

    with h5py.File(path, "r") as file:
        if file.attrs.get("format") != _FORMAT:
            raise ValueError(f"it is not a file of {_FORMAT}")
        if int(file.attrs["schema"]) > _SCHEMA:
            raise ValueError("it is of a newer kind; update quantal")
        columns: dict[str, ArrayLike] = {name: _column(file["events"], name) for name in COLUMNS}
        searched = [_column(file["sweeps"], name).tolist() for name in _SWEEP_COLUMNS]
    sweeps = [
        Sweep(**dict(zip(_SWEEP_COLUMNS, row, strict=True))) for row in zip(*searched, strict=True)
    ]
    return make_events(columns, sweeps)


def _column(group: Any, name: str) -> NDArray[Any]:
    dataset = group[name]
    if dataset.ndim != 1:
        raise ValueError(f"{name} is not a column")
    kind = np.float64 if name == "analysed_s" else column_type(name)
    if kind is np.str_:
        return np.array(dataset.asstr()[()].tolist(), np.str_)
    return np.array(dataset[()], kind)


def _put_scores(file: Any, scores: Mapping[str, Scores]) -> None:
    file.attrs["format"] = "quantal scores"
    file.attrs["schema"] = _SCHEMA
    for name, part in scores.items():
        group = file.create_group(_clean(name))
        group.create_dataset("values", data=part.values, compression="gzip", compression_opts=1)
        for key in ("first_sample", "stride", "rate_hz", "start_s"):
            group.attrs[key] = getattr(part, key)


# JSON


def plain(value: Any) -> Any:
    """A value in JSON's own types."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


_WRITERS: dict[str, Callable[[Events, Fits | None], bytes]] = {".csv": _csv, ".h5": _events_hdf5}
_FIT_WRITERS: dict[str, Callable[[Fits], bytes]] = {
    ".csv": lambda fits: _csv_table(fits.columns()),
    ".h5": _fits_hdf5,
}
_READERS: dict[str, Callable[[Path], Events]] = {".csv": _read_csv, ".h5": _read_hdf5}

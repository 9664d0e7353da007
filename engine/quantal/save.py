"""Results -> files: every file is written whole or not at all."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal import __version__
from quantal.disk import replacing
from quantal.errors import ReadError, UsageError
from quantal.events import (
    COLUMNS,
    NO_ROI,
    ROI_COLUMNS,
    Events,
    Sweep,
    column_type,
    known_status,
    make_events,
)
from quantal.fits import Fits
from quantal.readers.hdf5 import (
    attribute,
    is_text,
    number,
    refuse_damaged_texts,
    refuse_empty_promises,
    word,
)
from quantal.scan import Scores
from quantal.tables import (
    Table,
    clean,
    each,
    nwb_bytes,
    parquet_bytes,
    read_nwb,
    read_parquet,
    read_xlsx,
    refuse_unequal,
    text_column,
    unit_of,
    xlsx_bytes,
)
from quantal.trace import Trace

_FORMAT, _SCHEMA = "quantal events", 1
_SWEEP_COLUMNS = tuple(field.name for field in fields(Sweep) if field.name != "roi")
# A sample of a two-hour sweep is a tenth digit of its time; nine digits outlast single precision.
_TIME_DIGITS, _DIGITS = 12, 9
_MISSING = ("", "nan", "NaN", "NA")
# What libraries raise over a file that is damaged, or of another kind.
_UNREADABLE = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, MemoryError),
    csv.Error,
)
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}


def save_events(events: Events, path: str | Path, *, fits: Fits | None = None) -> None:
    """Write the table of events; the suffix says how: .csv, .h5, .parquet, .xlsx or .nwb.

    A CSV holds one row per event and cannot hold `sweeps` (what was searched); the others hold all.
    The fits, if there are any, are a group, sheet or table `fits` of .h5, .xlsx and .nwb. Raises
    UsageError for another suffix, MissingLibraryError, and SaveError if the file cannot be written.
    """
    content = _by_suffix(path, _WRITERS)(events, fits)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def save_fits(fits: Fits, path: str | Path) -> None:
    """Write the table of fits, one row per event; the suffix says how, as for events.

    Raises UsageError for another suffix, MissingLibraryError, and SaveError if the file cannot be
    written.
    """
    content = _by_suffix(path, _FIT_WRITERS)(fits)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def save_table(table: Mapping[str, NDArray[Any]], path: str | Path) -> None:
    """Write columns of equal length by name; the suffix says how: .csv or .parquet.

    Raises UsageError for another suffix or where pyarrow is missing, SaveError if the file cannot
    be written.
    """
    content = _by_suffix(path, _TABLE_WRITERS)(dict(table))
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def load_table(path: str | Path) -> dict[str, list[str]]:
    """The columns of a table that `save_table` wrote, as texts, empty where nothing is known.

    Raises UsageError for another suffix or where pyarrow is missing, ReadError for what cannot be
    read.
    """
    reader = _by_suffix(path, _TABLE_READERS)
    try:
        table: dict[str, list[str]] = reader(Path(path))
    except (OSError, ValueError, csv.Error) as error:
        raise ReadError(f"{path} cannot be read as a table: {error}.") from None
    return table


def load_events(path: str | Path) -> Events:
    """The table of events in a file that `save_events` wrote.

    All but a CSV give back what was saved (a workbook, to 16 digits); a CSV gives numbers as
    printed and no `sweeps`, so frequencies cannot be had from it. Raises UsageError for another
    suffix, ReadError for another content or a status that is none, MissingLibraryError.
    """
    reader = _by_suffix(path, _READERS)
    try:
        events: Events = reader(Path(path))
        return replace(events, status=known_status(events.status.tolist()))
    except FileNotFoundError:
        raise ReadError(f"there is no file {path}.") from None
    except _UNREADABLE as error:
        raise ReadError(f"{path} cannot be read as a table of events: {error}.") from None


def results_name(recording: PurePath) -> str:
    """What results are told apart by: the recording's name without its suffix.

    To some disks names that differ in case alone are one, so they are here.
    """
    return recording.stem.casefold()


def file_name(path: str) -> str:
    """The last part of a path, of whichever system."""
    return path.replace("\\", "/").rpartition("/")[2]


def save_summary(summary: Mapping[str, Any], path: str | Path) -> None:
    """Write a summary as JSON, keys in order; what is not a finite number is null."""
    content = (as_json(summary) + "\n").encode("utf-8", "replace")
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def load_summary(path: str | Path) -> dict[str, Any] | None:
    """A summary that `save_summary` wrote; None where there is none, or something else."""
    try:
        summary = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return summary if isinstance(summary, dict) else None


def as_json(value: Any) -> str:
    """JSON text of dicts, lists, dataclasses, paths, NumPy numbers and arrays; nan is null."""
    return json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False)


def save_scores(scores: Mapping[str, Scores], path: str | Path) -> None:
    """Write scores as HDF5: one group per name, with `values` and the clock as attributes.

    The value k speaks for the time start_s + (first_sample + k * stride) / rate_hz.
    """
    content = hdf5_bytes(lambda file: _put_scores(file, scores))
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def save_recording(trace: Trace, path: str | Path) -> None:
    """Write the samples of a trace as HDF5 that `read` understands; raises SaveError."""

    def fill(file: Any) -> None:
        data = file.create_dataset(
            clean(trace.channel) or "samples", data=trace.samples, compression="gzip"
        )
        data.attrs.update({"rate_hz": trace.rate_hz, "unit": clean(trace.unit)})

    content = hdf5_bytes(fill)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


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
        return each(values, lambda text: _quoted(clean(text)))
    if kind == "b":
        return ["true" if value else "false" for value in values.tolist()]
    if kind == "i":
        return list(map(str, values.tolist()))
    pattern = f"%.{_TIME_DIGITS if name.endswith('_s') else _DIGITS}g"
    return ["" if math.isnan(value) else pattern % value for value in values.tolist()]


def _quoted(text: str) -> str:
    if any(character in text for character in ',"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text


def _read_csv(path: Path) -> Events:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, strict=True)
        header = next(rows, [])
        _refuse_lacking(header)
        table = [row for row in rows if row]
    for row in table:
        if len(row) != len(header):
            raise ValueError(f"a row has {len(row)} fields and the header {len(header)}")
    columns = dict(zip(header, zip(*table, strict=True), strict=True)) if table else {}
    return make_events(
        {name: _parsed(name, columns.get(name, ())) for name in _names_in(header)}, []
    )


def _refuse_lacking(header: Iterable[str]) -> None:
    """Raise ValueError over a table that lacks columns, or has them as a spreadsheet saves them."""
    names = list(header)
    for mark, kind in ((";", "semicolons"), ("\t", "tabs")):
        if len(set(",".join(names).split(mark)) & set(COLUMNS)) > 1:
            raise ValueError(
                f"its columns are separated by {kind}; save it with commas between them, and with "
                "points in numbers"
            )
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise ValueError(f"it lacks the columns {', '.join(missing)}")


def _parsed(name: str, texts: tuple[str, ...]) -> NDArray[Any]:
    kind = column_type(name)
    try:
        if kind is np.str_:
            return text_column(texts)
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


def _read_csv_table(path: Path) -> dict[str, list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        header, *rows = [row for row in csv.reader(file, strict=True) if row] or [[]]
    if any(len(row) != len(header) for row in rows):
        raise ValueError("its rows are not of equal length")
    return {name: [row[k] for row in rows] for k, name in enumerate(header)}


# Parquet


def _parquet_table(table: dict[str, NDArray[Any]]) -> bytes:
    return parquet_bytes(Table(name="table", columns=table, unit=""), {})


def _read_parquet_table(path: Path) -> dict[str, list[str]]:
    columns, _ = read_parquet(path)
    return {n: ["" if v is None else str(v) for v in values] for n, values in columns.items()}


# HDF5


def hdf5_bytes(fill: Callable[[Any], None]) -> bytes:
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

    return hdf5_bytes(fill)


def _fits_hdf5(fits: Fits) -> bytes:
    def fill(file: Any) -> None:
        file.attrs["format"] = "quantal fits"
        file.attrs["schema"] = _SCHEMA
        _put_table(file, "fits", fits.columns(), fits.unit)

    return hdf5_bytes(fill)


def _put_table(file: Any, name: str, table: dict[str, NDArray[Any]], units: ArrayLike) -> None:
    """A group of columns, each with its unit; units: those that the samples have."""
    own = _own_unit(units)
    group = file.create_group(name)
    for column, values in table.items():
        _put_column(group, column, values).attrs["unit"] = unit_of(column, own)


def _own_unit(units: ArrayLike) -> str:
    """The unit that all samples have, or the word for it where they have several."""
    known = set(np.asarray(units).tolist())
    return clean(known.pop()) if len(known) == 1 else "unit"


def _put_events(file: Any, events: Events) -> None:
    file.attrs["format"] = _FORMAT
    file.attrs["schema"] = _SCHEMA
    _put_table(file, "events", events.columns(), _units(events))
    group = file.create_group("sweeps")
    for name, values in _sweep_columns(events).items():
        _put_column(group, name, values)
    group["analysed_s"].attrs["unit"] = "s"


def _units(events: Events) -> list[str]:
    return [*(sweep.unit for sweep in events.sweeps), *events.unit.tolist()]


def _sweep_columns(events: Events) -> dict[str, NDArray[Any]]:
    """What was searched, as columns."""
    columns = {}
    for name in _SWEEP_COLUMNS if events.roi is None else (*_SWEEP_COLUMNS, "roi"):
        values = [getattr(sweep, name) for sweep in events.sweeps]
        values = [NO_ROI if value is None else value for value in values]
        columns[name] = np.array(values, _sweep_type(name))
    return columns


def _sweep_type(name: str) -> type[np.generic]:
    return np.float64 if name == "analysed_s" else column_type(name)


def _put_column(group: Any, name: str, values: NDArray[Any]) -> Any:
    import h5py

    if values.dtype.kind == "U":
        return group.create_dataset(
            name, data=np.array(each(values, clean), object), dtype=h5py.string_dtype()
        )
    return group.create_dataset(name, data=values)


def _read_hdf5(path: Path) -> Events:
    import h5py

    refuse_damaged_texts(path)
    with h5py.File(path, "r") as file:
        if word(attribute(file, "format")) != _FORMAT:
            raise ValueError(f"it is not a file of {_FORMAT}")
        if not number(attribute(file, "schema")) <= _SCHEMA:
            raise ValueError("it is of a newer kind; update quantal")
        events, sweeps = _group(file, "events", _names_in), _group(file, "sweeps", _told)
        columns: dict[str, ArrayLike] = {
            name: _column(events, name, path) for name in _names_in(events)
        }
        searched = {name: _column(sweeps, name, path).tolist() for name in _told(sweeps)}
    return make_events(columns, _sweeps(searched))


def _group(file: Any, name: str, names: Callable[[Container[str]], tuple[str, ...]]) -> Any:
    """A group and its columns, asked for by name: listing damaged ones can end the program."""
    import h5py

    group = file.get(name)
    if not isinstance(group, h5py.Group):
        raise ValueError(f"its {name} are no group of columns")
    refuse_unequal(group, names(group))
    return group


def _names_in(table: Container[str]) -> tuple[str, ...]:
    """The columns of events that a table must have: `roi` only where it is there."""
    return ROI_COLUMNS if "roi" in table else COLUMNS


def _told(table: Container[str]) -> tuple[str, ...]:
    """The columns of sweeps that a table must have."""
    return (*_SWEEP_COLUMNS, "roi") if "roi" in table else _SWEEP_COLUMNS


def _sweeps(searched: Mapping[str, list[Any]]) -> list[Sweep]:
    """Sweeps from their columns."""
    rows = [dict(zip(searched, row, strict=True)) for row in zip(*searched.values(), strict=True)]
    return [Sweep(**{**row, "roi": _known_roi(row.get("roi", NO_ROI))}) for row in rows]


def _known_roi(number: int) -> int | None:
    return None if number == NO_ROI else number


def _column(group: Any, name: str, path: Path) -> NDArray[Any]:
    dataset = group[name]
    kind = _sweep_type(name)
    fits = is_text(dataset) if kind is np.str_ else dataset.dtype.kind in "iufb"
    if dataset.ndim != 1 or not fits:
        raise ValueError(f"{name} is not a column of {'texts' if kind is np.str_ else 'numbers'}")
    refuse_empty_promises(dataset, path)
    if kind is np.str_:
        return text_column(dataset.asstr()[()].tolist())
    return np.array(dataset[()], kind)


def _put_scores(file: Any, scores: Mapping[str, Scores]) -> None:
    file.attrs["format"] = "quantal scores"
    file.attrs["schema"] = _SCHEMA
    for name, part in scores.items():
        group = file.create_group(clean(name))
        group.create_dataset("values", data=part.values, compression="gzip", compression_opts=1)
        for key in ("first_sample", "stride", "rate_hz", "start_s"):
            group.attrs[key] = getattr(part, key)


# Parquet, Excel, NWB


def _tables(events: Events, fits: Fits | None) -> list[Table]:
    """The tables that a file of several holds."""
    unit = _own_unit(_units(events))
    tables = [
        Table(
            name="events",
            columns=events.columns(),
            unit=unit,
            description="synaptic events, times on the clock of each sweep",
        ),
        Table(name="sweeps", columns=_sweep_columns(events), unit=unit, description="all searched"),
    ]
    return tables if fits is None else [*tables, _fits_table(fits)]


def _fits_table(fits: Fits) -> Table:
    return Table(
        name="fits",
        columns=fits.columns(),
        unit=_own_unit(fits.unit),
        description="a biexponential fitted to each row of events",
    )


def _parquet(events: Events, fits: Fits | None = None) -> bytes:
    del fits  # a table of their own
    sweeps = {name: values.tolist() for name, values in _sweep_columns(events).items()}
    said = {"format": _FORMAT, "schema": str(_SCHEMA), "quantal": __version__}
    return parquet_bytes(_tables(events, None)[0], {**said, "sweeps": json.dumps(sweeps)})


def _read_parquet(path: Path) -> Events:
    columns, said = read_parquet(path)
    return _from_lists(columns, json.loads(said.get("sweeps", "{}")))


def _xlsx(events: Events, fits: Fits | None = None) -> bytes:
    return xlsx_bytes(_tables(events, fits))


def _read_xlsx(path: Path) -> Events:
    sheets = read_xlsx(path)
    return _from_lists(sheets["events"], sheets.get("sweeps", {}))


def _nwb(events: Events, fits: Fits | None = None) -> bytes:
    names = ", ".join(sorted({sweep.recording for sweep in events.sweeps}))
    return nwb_bytes(_tables(events, fits), f"synaptic events in {names}, by quantal {__version__}")


def _read_nwb(path: Path) -> Events:
    tables = read_nwb(path)
    return _from_lists(tables["events"], tables.get("sweeps", {}))


def _from_lists(columns: Mapping[str, list[Any]], sweeps: Mapping[str, list[Any]]) -> Events:
    """Events from columns in which None stands for what is missing."""
    _refuse_lacking(columns)
    searched = {
        name: _filled(sweeps[name], _sweep_type(name)).tolist() if sweeps else []
        for name in _told(sweeps)
    }
    return make_events(
        {name: _filled(columns[name], column_type(name)) for name in _names_in(columns)},
        _sweeps(searched),
    )


def _filled(values: list[Any], kind: type[np.generic]) -> NDArray[Any]:
    """A column of one kind: no number is nan, no text is empty."""
    if kind is np.str_:
        return text_column(["" if value is None else str(value) for value in values])
    if kind is np.float64:
        return np.array([math.nan if value is None else value for value in values], np.float64)
    if kind is np.bool_:  # to NumPy the text "false" is true
        return np.array([_BOOLEANS[str(value).lower()] for value in values], np.bool_)
    return np.array(values, kind)


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


_WRITERS: dict[str, Callable[[Events, Fits | None], bytes]] = {
    ".csv": _csv,
    ".h5": _events_hdf5,
    ".parquet": _parquet,
    ".xlsx": _xlsx,
    ".nwb": _nwb,
}
_FIT_WRITERS: dict[str, Callable[[Fits], bytes]] = {
    ".csv": lambda fits: _csv_table(fits.columns()),
    ".h5": _fits_hdf5,
    ".parquet": lambda fits: parquet_bytes(_fits_table(fits), {"format": "quantal fits"}),
    ".xlsx": lambda fits: xlsx_bytes([_fits_table(fits)]),
    ".nwb": lambda fits: nwb_bytes([_fits_table(fits)], "fits of synaptic events"),
}
_TABLE_WRITERS: dict[str, Callable[[dict[str, NDArray[Any]]], bytes]] = {
    ".csv": _csv_table,
    ".parquet": _parquet_table,
}
_TABLE_READERS = {".csv": _read_csv_table, ".parquet": _read_parquet_table}
_READERS: dict[str, Callable[[Path], Events]] = {
    ".csv": _read_csv,
    ".h5": _read_hdf5,
    ".parquet": _read_parquet,
    ".xlsx": _read_xlsx,
    ".nwb": _read_nwb,
}
READABLE = tuple(_READERS)  # suffixes of the tables that `load_events` gives back
# Formats of a single table: fits go into a file of their own.
SINGLE_TABLES = (".csv", ".parquet")

"""Tables in the formats of other programs: Parquet, Excel workbooks, NWB."""

from __future__ import annotations

import io
import math
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.errors import MissingLibraryError, TooLongError
from quantal.readers.hdf5 import is_text, refuse_damaged_texts, refuse_empty_promises

Columns = dict[str, NDArray[Any]]

# What each format needs beyond the base installation: the module, and what to install.
_NEEDED = {
    ".parquet": ("pyarrow", "pyarrow"),
    ".xlsx": ("openpyxl", "openpyxl"),
    ".nwb": ("pynwb", '"pynwb>=4"'),
}
_LONGEST_TEXT = 4_096  # characters; the longest path of a file
_MOST_ROWS = 1_048_575  # of a sheet, below its header
_MODULE = "quantal"  # where tables lie in an NWB file: processing/quantal


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns of equal length, and what to say of them.

    unit: what samples and what is measured in them are in, where all are in one.
    """

    name: str
    columns: Columns
    unit: str
    description: str = ""


def require_library(suffix: str) -> None:
    """Raise MissingLibraryError if files of this suffix need what is not installed."""
    module, name = _NEEDED.get(suffix, ("", ""))
    if module and find_spec(module) is None:
        raise MissingLibraryError(
            f"{suffix} files need {module}, which is not installed. "
            f"Type: python -m pip install {name}"
        )


def clean(text: str) -> str:
    """Text that UTF-8 and HDF5 can hold: without half characters (odd file names) and NUL."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def each(texts: NDArray[Any], change: Callable[[str], str]) -> list[str]:
    """Changed texts; equal ones, of which columns are full, are changed once."""
    changed = {text: change(text) for text in set(texts.tolist())}
    return [changed[text] for text in texts.tolist()]


def text_column(texts: Sequence[str]) -> NDArray[np.str_]:
    """Texts as an array, in which each takes the room of the longest.

    Raises ValueError if one is longer than any name or path.
    """
    longest = max(map(len, texts), default=0)
    if longest > _LONGEST_TEXT:
        raise ValueError(f"a text of {longest:,} characters is no name")
    return np.array(texts, np.str_)


def unit_of(name: str, own: str) -> str:
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


# Parquet


def parquet_bytes(table: Table, said: Mapping[str, str]) -> bytes:
    """A Parquet file: nan is null, units are in the columns' metadata, `said` in the file's."""
    require_library(".parquet")
    import pyarrow
    from pyarrow import parquet

    fields, arrays = [], []
    for name, values in table.columns.items():
        stored = each(values, clean) if values.dtype.kind == "U" else values
        array = pyarrow.array(stored, _arrow_type(values), from_pandas=True)
        unit = unit_of(name, table.unit)
        fields.append(pyarrow.field(name, array.type, metadata={"unit": unit} if unit else None))
        arrays.append(array)
    schema = pyarrow.schema(fields, metadata=dict(said))
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.Table.from_arrays(arrays, schema=schema), sink)
    return bytes(sink.getvalue())


def _arrow_type(values: NDArray[Any]) -> Any:
    import pyarrow

    kinds = {"U": pyarrow.string(), "i": pyarrow.int64(), "b": pyarrow.bool_()}
    return kinds.get(values.dtype.kind, pyarrow.float64())


def read_parquet(path: Path) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """Columns of a Parquet file, null as None, and what is said of it.

    Raises ValueError if it is no Parquet file.
    """
    require_library(".parquet")
    import pyarrow
    from pyarrow import parquet

    try:
        with pyarrow.OSFile(str(path)) as file:
            table = parquet.read_table(file)
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from None
    said = {key.decode(): text.decode() for key, text in (table.schema.metadata or {}).items()}
    return {name: table.column(name).to_pylist() for name in table.column_names}, said


# Excel


def xlsx_bytes(tables: Sequence[Table]) -> bytes:
    """A workbook with a sheet for each table; nan is an empty cell, numbers have 16 digits.

    Raises TooLongError if a table has more rows than a sheet.
    """
    require_library(".xlsx")
    from openpyxl import Workbook

    book = Workbook(write_only=True)
    longest = max(len(values) for table in tables for values in table.columns.values())
    if longest > _MOST_ROWS:
        raise TooLongError(
            f"a sheet of a workbook holds {_MOST_ROWS:,} rows, the table has {longest:,}; "
            "save it as .parquet or .csv."
        )
    for table in tables:
        _fill_sheet(book.create_sheet(table.name), table)
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def _fill_sheet(sheet: Any, table: Table) -> None:
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.styles import Font

    sheet.freeze_panes = "A2"
    head = [WriteOnlyCell(sheet, name) for name in table.columns]
    for cell in head:
        cell.font = Font(bold=True)
    sheet.append(head)

    def text(value: str) -> Any:
        cell = WriteOnlyCell(sheet, value)
        cell.data_type = "s"  # a recording called =A1 is no formula
        return cell

    columns: list[list[Any]] = []
    for values in table.columns.values():
        if values.dtype.kind == "U":
            columns.append([text(value) if value else None for value in each(values, _legal)])
        elif values.dtype.kind == "f":
            columns.append([v if math.isfinite(v) else None for v in values.tolist()])
        else:
            columns.append(values.tolist())
    for row in zip(*columns, strict=True):
        sheet.append(row)


def _legal(text: str) -> str:
    """Text that a sheet can hold: no character that XML forbids or changes."""
    return "".join("\ufffd" if _is_illegal(c) else c for c in clean(text))


def _is_illegal(character: str) -> bool:
    return (character < " " and character not in "\t\n") or character in "\ufffe\uffff"


def read_xlsx(path: Path) -> dict[str, dict[str, list[Any]]]:
    """Sheets of a workbook: columns by the names in their first row, an empty cell as None.

    Raises ValueError if it is no workbook.
    """
    require_library(".xlsx")
    from openpyxl import load_workbook

    try:
        with path.open("rb") as file:
            book = load_workbook(file, read_only=True, data_only=True)
            return {sheet.title: _columns(list(sheet.values)) for sheet in book.worksheets}
    except OSError:
        raise
    except Exception as error:  # whatever unpacking and parsing stumble over
        raise ValueError(f"it is no workbook ({error})") from None


def _columns(rows: list[tuple[Any, ...]]) -> dict[str, list[Any]]:
    """Columns of a sheet; rows that are empty altogether, as below a table, are none."""
    if not rows:
        return {}
    filled = [row for row in rows[1:] if any(value is not None for value in row)]
    return {
        str(name): [row[i] if i < len(row) else None for row in filled]
        for i, name in enumerate(rows[0])
        if name is not None
    }


# NWB


def nwb_bytes(tables: Sequence[Table], session: str) -> bytes:
    """An NWB file with a DynamicTable for each table under processing/quantal.

    Times are on the clock of each sweep, which an events table of the standard, on that of the
    session, could not hold. When the session began is not known here: 1970 stands for it.
    """
    require_library(".nwb")
    import h5py
    from hdmf.common import DynamicTable
    from pynwb import NWBHDF5IO, NWBFile, get_manager

    content = NWBFile(
        session_description=clean(session),
        identifier=secrets.token_hex(16),
        session_start_time=datetime(1970, 1, 1, tzinfo=UTC),
    )
    module = content.create_processing_module(_MODULE, "events found and measured by quantal")
    for table in tables:
        rows = max(map(len, table.columns.values()), default=0)
        module.add(
            DynamicTable(
                name=table.name,
                description=table.description or table.name,
                columns=[_vector(table, name) for name in table.columns],
                id=list(range(rows)),
            )
        )
    with (
        h5py.File("memory", "w", driver="core", backing_store=False) as file,
        NWBHDF5IO(file=file, mode="w", manager=get_manager()) as writer,
    ):
        writer.write(content)
        file.flush()
        return bytes(file.id.get_file_image())


def _vector(table: Table, name: str) -> Any:
    import h5py
    from hdmf.common import VectorData

    values = table.columns[name]
    unit = unit_of(name, table.unit)
    stored: Any = values
    if values.dtype.kind == "U":
        stored = each(values, clean) if len(values) else np.empty(0, h5py.string_dtype())
    return VectorData(name=name, description=f"in {unit}" if unit else name, data=stored)


def read_nwb(path: Path) -> dict[str, dict[str, list[Any]]]:
    """The tables that `nwb_bytes` wrote, by name; h5py is enough to read them.

    Raises ValueError or OSError if there are none.
    """
    import h5py

    refuse_damaged_texts(path)
    with h5py.File(path, "r") as file:
        module = file.get(f"processing/{_MODULE}")
        if not isinstance(module, h5py.Group):
            raise ValueError(f"it has no tables under processing/{_MODULE}")
        return {name: _nwb_columns(module, name, path) for name in module}


def refuse_unequal(group: Any, names: Iterable[str]) -> None:
    """Raise ValueError over columns of different length, before any of them is read."""
    shapes = {getattr(group[name], "shape", None) for name in names if name in group}
    if len(shapes) > 1:
        raise ValueError(f"{group.name} has columns of different length")


def _nwb_columns(module: Any, table: str, path: Path) -> dict[str, list[Any]]:
    """All columns; the list of them that the standard asks for is left empty without rows."""
    import h5py

    group = module[table]
    if not isinstance(group, h5py.Group):
        raise ValueError(f"{table} is not a table")
    refuse_unequal(group, group)
    columns = {}
    for name, data in group.items():
        if name != "id":
            if not (is_text(data) or data.dtype.kind in "iufb"):
                raise ValueError(f"{data.name} is not a column of numbers or texts")
            refuse_empty_promises(data, path)
            values = data.asstr()[()] if data.dtype.kind in "SO" else data[()]
            columns[name] = np.ravel(values).tolist()
    return columns

"""Tables of numbers as text: one column per channel, a time column if the header names one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quantal.errors import ReadError
from quantal.readers.clock import SECONDS, NoRateError, rate_from_times
from quantal.readers.recording import Channel, Recording, Samples

_TIMES = ("time", "times", "t")
COUNTERS = ("frame", "frames", "index", "row")  # titles of columns that count rows
_SIGNAL_UNITS = ("fA", "pA", "nA", "uA", "µA", "uV", "µV", "mV", "V", "nS", "pS", "dF/F", "a.u.")
_BEFORE_UNITS = " \t_/,"
_LONGEST_HEAD = 1 << 20


@dataclass(frozen=True)
class _Style:
    """How a table is written: what separates cells, and its columns if a header names them.

    skip: lines before the numbers; comma: whether numbers have a decimal comma.
    """

    encoding: str
    separator: str | None
    comma: bool
    skip: int
    columns: tuple[str, ...]


def open_table(path: Path, dataset: str | None = None) -> Recording:  # noqa: ARG001
    """Open a .csv, .tsv or .txt file of numbers: one sweep, a column a channel.

    Commas, semicolons, tabs or spaces separate; a decimal comma goes with semicolons or tabs. A
    header such as "time_s, Im (pA)" names columns and units, and a time column gives the rate.
    A lone row without a header is one trace. Columns that count rows are left out, with a note.

    Raises ReadError if a line does not hold numbers, or lines differ in length.
    """
    style = _style(path)
    values = _values(path, style)
    if len(values) == 1 and not style.columns:
        values = values.T
    labels = [_label(name) for name in style.columns or [""] * values.shape[1]]
    timed = next((i for i, (name, _) in enumerate(labels) if name.lower() in _TIMES), None)
    counters = _counters(values, labels)
    signals = [i for i in range(len(labels)) if i != timed and i not in counters]
    if not signals:
        raise ReadError(
            f"{path} holds nothing but times or numbers of rows; a column of samples is missing."
        )

    def load(sweeps: Sequence[int], channels: Sequence[int]) -> Iterator[Sequence[Samples]]:
        for _ in sweeps:
            yield [values[:, signals[channel]] for channel in channels]

    rate_hz, rate_missing = _rate(values, style.columns, labels, timed)
    notes = [] if rate_hz is None else [f"rate from the column {style.columns[timed or 0]!r}"]
    for i in counters:
        title = repr(style.columns[i]) if style.columns[i] else "without a title"
        notes.append(f"the column {title} counts rows and is left out")
    return Recording(
        path=path,
        format="text table",
        channels=tuple(
            Channel(labels[i][0] or f"column {i}", labels[i][1] or None) for i in signals
        ),
        sweep_samples=(len(values),),
        load=load,
        rate_hz=rate_hz,
        notes=tuple(notes),
        rate_missing=rate_missing,
    )


def _counters(values: NDArray[np.float64], labels: Sequence[tuple[str, str]]) -> list[int]:
    """Columns that merely count rows: those titled so, and as pandas writes it, an untitled one."""
    names = [name.lower() for name, _ in labels]
    found = [i for i, name in enumerate(names) if name in COUNTERS and _is_even(values[:, i])]
    untitled = not names[0] and any(names)
    return [0, *found] if untitled and (values[:, 0] == np.arange(len(values))).all() else found


def _is_even(column: NDArray[np.float64]) -> bool:
    """Whether numbers are whole and rise in equal steps."""
    if not np.isfinite(column).all():
        return False
    steps = np.diff(column)
    return bool((column % 1 == 0).all() and (steps > 0).all() and len(np.unique(steps)) == 1)


def _style(path: Path) -> _Style:
    """Find out how the table is written from its first lines."""
    encoding = _encoding(path)
    header, above = "", 0
    with path.open(encoding=encoding, errors="replace") as file:
        while line := file.readline(_LONGEST_HEAD):
            cells = _cells(line)
            if cells and not _commented(line) and all(map(_is_number, cells)):
                return _finished(path, encoding, line, header, above)
            if cells and (header and not _commented(header)):
                raise _not_numbers(path, above, line)
            header = line if cells else header
            above += 1
    raise _not_numbers(path, 0, header)


def _finished(path: Path, encoding: str, line: str, header: str, above: int) -> _Style:
    separator = _separator(line)
    cells = _cells(line)
    names = tuple(_cells(header.lstrip("# "), separator)) if header else ()
    if len(names) != len(cells):
        if header and not _commented(header):
            raise ReadError(
                f"{path}: the header names {len(names)} columns, but the first row has "
                f"{len(cells)}; give both the same number of cells."
            )
        names = ()
    comma = separator != "," and any("," in cell for cell in cells)
    return _Style(encoding, separator, comma, above, names)


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(1 << 16)
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    try:
        start[: start.rfind(b"\n") + 1].decode("utf-8")
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8-sig"


def _commented(line: str) -> bool:
    return line.lstrip().startswith("#")


def _separator(line: str) -> str | None:
    """What separates the cells of a line; None for spaces."""
    return next((mark for mark in "\t;," if mark in line), None)


def _cells(line: str, separator: str | None = None) -> list[str]:
    line = line.strip(" \r\n")
    return [cell.strip(' "') for cell in line.split(separator or _separator(line))] if line else []


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", ".", 1))
    except ValueError:
        return False
    return "_" not in cell


def _not_numbers(path: Path, above: int, line: str) -> ReadError:
    shown = line.strip()
    shown = shown if len(shown) <= 60 else f"{shown[:60]}..."
    found = f"line {above + 1} reads {shown!r}" if shown else "it has no line with numbers"
    return ReadError(
        f"{path} is not a table of numbers: {found}. Allowed are one header line, then rows of "
        "numbers, as many in each, separated by commas, semicolons, tabs or spaces; write nan "
        "where nothing was recorded."
    )


def _values(path: Path, style: _Style) -> NDArray[np.float64]:
    """The numbers, one row a line."""
    with path.open(encoding=style.encoding, errors="replace") as file:
        lines: Iterator[str] = islice(file, style.skip, None)
        if style.comma:
            lines = (line.replace(",", ".") for line in lines)
        try:
            return np.loadtxt(
                lines, delimiter=style.separator, ndmin=2, comments="#", quotechar='"'
            )
        except (ValueError, OverflowError):
            raise _first_bad_line(path, style) from None


def _first_bad_line(path: Path, style: _Style) -> ReadError:
    width = 0
    with path.open(encoding=style.encoding, errors="replace") as file:
        for number, line in enumerate(islice(file, style.skip, None), start=style.skip):
            cells = _cells(line.split("#")[0], style.separator)
            width = width or len(cells)
            if cells and (len(cells) != width or not all(map(_is_number, cells))):
                return _not_numbers(path, number, line)
    return _not_numbers(path, 0, "")


def _label(title: str) -> tuple[str, str]:
    """Name and unit of a column titled like "Im (pA)", "time_s" or "Vm [mV]"; unit may be ''."""
    if title.endswith(("]", ")")):
        inside = title[:-1]
        closed = max(inside.rfind("]"), inside.rfind(")"))  # of brackets before the last
        opened = [at for at in (inside.find(mark, closed + 1) for mark in "[(") if at >= 0]
        if opened:
            name = inside[: min(opened)].rstrip()
            return name or title, inside[min(opened) + 1 :].strip()
    for unit in (*_SIGNAL_UNITS, *SECONDS):
        name, found = title[: -len(unit)], title[-len(unit) :]
        bare = name.rstrip(_BEFORE_UNITS)
        if not bare or bare == name:
            continue
        if found == unit in _SIGNAL_UNITS or (found.lower() == unit and bare.lower() in _TIMES):
            return bare, found
    return title, ""


def _rate(
    values: NDArray[np.float64],
    columns: Sequence[str],
    labels: Sequence[tuple[str, str]],
    timed: int | None,
) -> tuple[float | None, str]:
    """The rate from the time column, or None and why there is none."""
    if timed is None:
        return None, "it has no time column (such as time_s) and so states no sampling rate"
    try:
        named = f"its column {columns[timed]!r}"
        return rate_from_times(values[:, timed], labels[timed][1] or None, named), ""
    except NoRateError as reason:
        return None, str(reason)

"""What a batch searches: folders, globs and lists -> recordings, their groups and their places."""

from __future__ import annotations

import csv
import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

from quantal.errors import ReadError, UsageError
from quantal.readers import FORMATS
from quantal.save import results_name

FOLDER = "folder"  # group by it
FILE, GROUP = "file", "group"  # columns of lists and of tables
REPORT = "batch.json"
_LISTS = (".csv", ".tsv", ".txt")
_OWN_RESULT = re.compile(r"\.(events|fits|scores|summary|rois|miniml(_individual|_avgs)?)\.\w+$")
_OWN_TABLE = re.compile(r"(events|recordings|stats)\.\w+$")  # in a folder that holds a report
_CLOSED = "cannot be entered: ask whoever owns it for permission, or leave it out"
_NOBODY_S = ("lost+found", "System Volume Information", "$RECYCLE.BIN")  # on whole disks
_STATS = ("stats.csv", "stats.png")  # in any folder, but together


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A recording of a batch.

    file: its name in the tables, with folders, the same wherever the batch is started from.
    place: the folder of its results within that of the batch.
    more: what a list says about it in columns of its own.
    closed: why it cannot be looked into, of a folder; "" of a recording.
    """

    path: Path
    file: str
    place: str
    group: str = ""
    more: Mapping[str, str] = field(default_factory=dict)
    closed: str = ""


def find_recordings(asked: Sequence[str], group: str | None = None) -> list[Entry]:
    """The recordings of folders and globs, or of one list, in order of their names.

    Folders below that cannot be entered are among them, for what is in one is not searched.

    group: "folder" for the first folder of a name, or a column of the list; None for the column
    "group" where there is one, and else the first folder. Raises UsageError, and ReadError for
    what is not there, a list that cannot be read, or folders none of which can be entered.
    """
    if not asked:
        raise UsageError("name a folder, a glob in quotes, or a list of recordings.")
    for one in asked:
        _refuse_absent(one)
    lists = [one for one in asked if _is_list(one)]
    if lists and len(asked) > 1:
        raise UsageError(
            f"{lists[0]} is taken for a list of recordings, which stands alone. Text tables to be "
            f'searched are given by their folder, or by a glob in quotes such as "data/*.csv".'
        )
    entries = _listed(Path(lists[0]), group) if lists else _found(asked, group)
    if not entries:
        raise UsageError(
            f"there is no recording in {', '.join(asked)}; files that end in "
            f"{', '.join(suffixes())} are searched."
        )
    if all(entry.closed for entry in entries):
        raise ReadError(" ".join(f"{entry.path}: {entry.closed}" for entry in entries))
    return sorted(_placed(entries), key=lambda entry: entry.file)


def _refuse_absent(asked: str) -> None:
    """Raise ReadError if what is named is not there, or in a folder that cannot be entered."""
    if glob.has_magic(asked):
        return
    try:
        os.stat(asked)
    except PermissionError:
        raise ReadError(f"{asked}: its folder {_CLOSED}.") from None
    except (OSError, ValueError):
        here = Path.cwd()
        raise ReadError(
            f"there is no folder, list or recording {asked} (here is {here})."
        ) from None


def suffixes() -> tuple[str, ...]:
    """Of all files that can be read."""
    return tuple(suffix for one in FORMATS for suffix in one.suffixes)


def is_result(name: str) -> bool:
    """Whether a file is called as those are that quantal writes for a recording."""
    return _OWN_RESULT.search(name) is not None


# Folders and globs


def _found(asked: Sequence[str], group: str | None) -> list[Entry]:
    if group not in (None, FOLDER):
        raise UsageError(
            f"--group takes {FOLDER!r}, or a column where a list is given, got {group!r}."
        )
    tops = [_top(one) for one in asked]
    root = _common(tops)
    closed: dict[Path, str] = {}
    paths = _once(path for one in asked for path in _search(one, closed))
    named = [(path, _name(path, root)) for path in paths]
    found = [_entry(path, name, _first_folder(name)) for path, name in named]
    return found + [_no_entry(path, _name(path, root), why) for path, why in closed.items()]


def _no_entry(path: Path, name: str, why: str) -> Entry:
    """A folder that cannot be entered, as what is listed among the recordings."""
    name = f"{path.name if name == '.' else name}/"
    return replace(_entry(path, name, _first_folder(name)), closed=why)


def _once(paths: Iterable[Path]) -> list[Path]:
    """Every file once, under its own name rather than that of a link to it."""
    known: dict[str, Path] = {}
    for path in paths:
        real = os.path.realpath(path)
        if real not in known or real == str(path):
            known[real] = path
    return list(known.values())


def _top(asked: str) -> Path:
    """The folder below which names are told: of a file or a glob, where its pattern begins."""
    path = Path(os.path.abspath(asked))
    while glob.has_magic(str(path)) and not os.path.exists(path):
        path = path.parent
    return path if os.path.isdir(path) else path.parent


def _common(folders: Sequence[Path]) -> Path:
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:  # they lie on several drives
        return folders[0]


def _search(asked: str, closed: dict[Path, str]) -> Iterator[Path]:
    """Recordings in a folder and all below it, or that a glob finds; a file that is named.

    closed: gets the folders that cannot be entered, and why.
    """
    if os.path.isdir(asked):
        yield from _below(Path(os.path.abspath(asked)), closed)
    elif os.path.exists(asked):
        yield Path(os.path.abspath(asked))  # whatever it is: reading it says what is wrong
    else:
        _look_on_the_way(asked, closed)
        for match in sorted(glob.glob(asked, recursive=True)):
            path = Path(os.path.abspath(match))
            if not os.path.isdir(path):
                yield from _recordings(path.parent, [path.name])
            elif "**" not in asked:
                yield from _below(path, closed)


def _look_on_the_way(pattern: str, closed: dict[Path, str]) -> None:
    """Try the folders that a glob goes through, for it passes over those it cannot enter."""
    above = [_top(pattern)]
    for part in Path(pattern).parents:
        if glob.has_magic(str(part)):
            above += [Path(os.path.abspath(one)) for one in glob.glob(str(part), recursive=True)]
    for folder in dict.fromkeys(above):
        if os.path.isdir(folder) and folder.name not in _NOBODY_S:
            try:
                os.scandir(folder).close()
            except OSError as error:
                closed[folder] = _why_closed(error)


def _why_closed(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return f"this folder {_CLOSED}."
    return f"this folder cannot be looked into: {error.strerror or error}."


def _below(top: Path, closed: dict[Path, str]) -> Iterator[Path]:
    """Recordings in a folder and all below it; those of linked folders last, each folder once."""

    def note(error: OSError) -> None:
        closed[Path(error.filename)] = _why_closed(error)

    seen: set[str] = set()
    waiting = [top]
    while waiting:
        for parent, folders, files in os.walk(waiting.pop(0), onerror=note):
            real = os.path.realpath(parent)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(name for name in folders if not _is_passed_over(name))
            waiting += [path for name in folders if (path := Path(parent, name)).is_symlink()]
            yield from _recordings(Path(parent), sorted(files))


def _is_passed_over(folder: str) -> bool:
    return folder.startswith(".") or folder in _NOBODY_S


def _recordings(folder: Path, names: Iterable[str]) -> Iterator[Path]:
    """The files that can be read, without the results of quantal."""
    has_tables = os.path.exists(folder / REPORT)
    has_stats = all(os.path.exists(folder / name) for name in _STATS)
    for name in names:
        own = (
            is_result(name)
            or (has_tables and _OWN_TABLE.fullmatch(name))
            or (has_stats and name in _STATS)
        )
        if name.lower().endswith(suffixes()) and not name.startswith(".") and not own:
            yield folder / name


# Lists


def _is_list(asked: str) -> bool:
    return asked.lower().endswith(_LISTS) and not glob.has_magic(asked)


def _listed(path: Path, group: str | None) -> list[Entry]:
    rows = _rows(path)
    root = Path(os.path.abspath(path)).parent
    columns = list(rows[0]) if rows else []
    by = group or (GROUP if GROUP in columns else FOLDER)
    if by != FOLDER and by not in columns:
        raise UsageError(
            f"{path} has no column {by!r} to group by; it has {', '.join(columns)}, and "
            f"{FOLDER!r} groups by folders."
        )
    entries = []
    for row in rows:
        file = Path(os.path.abspath(root / row[FILE]))
        name = _name(file, root)
        if name == ".":
            raise UsageError(f"{path} lists {row[FILE]!r}, which names no recording.")
        label = _first_folder(name) if by == FOLDER else row[by]
        more = {key: value for key, value in row.items() if key not in (FILE, GROUP)}
        entries.append(_entry(file, name, label, more))
    twice = [path for path, count in Counter(entry.path for entry in entries).items() if count > 1]
    if twice:
        raise UsageError(f"{path} lists {twice[0]} twice; each recording may be there once.")
    return entries


def _rows(path: Path) -> list[dict[str, str]]:
    """The rows of a list by column: a table with a column `file`, or in a .txt one path a line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise ReadError(f"{path} cannot be read as a list of recordings: {reason}.") from None
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if path.suffix.lower() == ".txt":
        return [{FILE: line.strip()} for line in lines]
    head = lines[0] if lines else ""
    delimiter = next((mark for mark in ("\t", ";") if mark in head and "," not in head), ",")
    reader = csv.DictReader(lines, delimiter=delimiter, restval="", skipinitialspace=True)
    try:
        return _table_rows(path, reader)
    except csv.Error as error:
        raise ReadError(f"{path} cannot be read as a list of recordings: {error}.") from None


def _table_rows(path: Path, reader: csv.DictReader[str]) -> list[dict[str, str]]:
    columns = [name.strip() for name in reader.fieldnames or ()]
    if FILE not in columns or len(set(columns)) < len(columns):
        raise UsageError(
            f"{path} is taken for a list of recordings: a table with the column {FILE!r} and, for "
            f"example, {GROUP!r}, each once; it has {', '.join(columns) or 'no columns'}."
        )
    reader.fieldnames = columns
    rows = []
    for row in reader:
        if None in row:
            raise UsageError(f"{path}, line {reader.line_num}: more fields than columns.")
        rows.append({name: value.strip() for name, value in row.items()})
    return rows


# Names and places


def _name(path: Path, root: Path) -> str:
    """A recording's name: its path below the root, or the whole path where it lies elsewhere."""
    if path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    drive = path.drive.strip("\\/").replace(":", "")
    return PurePath(drive, *path.parts[1:]).as_posix()


def _first_folder(name: str) -> str:
    first, slash, _ = name.partition("/")
    return first if slash else ""


def _entry(path: Path, name: str, group: str, more: Mapping[str, str] | None = None) -> Entry:
    place = PurePath(name).parent.as_posix()
    return Entry(path=path, file=name, place=place, group=group, more=more or {})


def _placed(entries: Sequence[Entry]) -> list[Entry]:
    """The entries, those of equal stem in a folder of their own each (cell.abf and cell.h5)."""
    closed = [entry for entry in entries if entry.closed]  # they get no results
    entries = [entry for entry in entries if not entry.closed]
    alike = Counter(_results(entry) for entry in entries)
    placed = [
        replace(entry, place=_own_place(entry)) if alike[_results(entry)] > 1 else entry
        for entry in entries
    ]
    results = Counter(_results(entry) for entry in placed)
    for entry in placed:
        if results[_results(entry)] > 1:
            raise UsageError(
                f"{entry.path} and another recording would write the same files; rename one."
            )
    return placed + closed


def _own_place(entry: Entry) -> str:
    name = PurePath(entry.file)
    return (name.parent / name.name.replace(".", "_")).as_posix()


def _results(entry: Entry) -> tuple[str, str]:
    """Where results are, and what they are told apart by there."""
    return entry.place.casefold(), results_name(entry.path)

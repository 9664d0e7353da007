"""Which recordings a batch finds, what they are called, and where their results go."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantal.errors import ReadError, UsageError
from quantal.lot import Entry, find_recordings


def touch(folder: Path, *names: str) -> None:
    """Files that hold something."""
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")


def files(entries: Sequence[Entry]) -> list[str]:
    """Their names, in order."""
    return [entry.file for entry in entries]


def test_a_folder_is_searched_for_all_that_can_be_read(tmp_path: Path) -> None:
    touch(tmp_path, "b.abf", "a.H5", "notes.pdf", "deep/er/c.npy", "deep/table.csv")
    touch(tmp_path, ".hidden.abf", ".trash/d.abf", "cell.png")
    found = find_recordings([str(tmp_path)])
    assert files(found) == ["a.H5", "b.abf", "deep/er/c.npy", "deep/table.csv"]
    assert [entry.place for entry in found] == [".", ".", "deep/er", "deep"]
    assert [entry.group for entry in found] == ["", "", "deep", "deep"]
    assert all(entry.path.is_absolute() for entry in found)


def test_results_of_quantal_are_no_recordings(tmp_path: Path) -> None:
    touch(tmp_path, "cell.abf", "cell.events.csv", "cell.fits.csv", "cell.scores.h5")
    touch(tmp_path, "old/batch.json", "old/events.csv", "old/recordings.csv", "old/stats.csv")
    touch(tmp_path, "old/own.csv", "other/events.csv", "cell.rois.csv", "cell.miniml.h5")
    touch(tmp_path, "cell.miniml_individual.csv", "cell.miniml_avgs.csv")
    touch(tmp_path, "compared/stats.csv", "compared/stats.png")
    assert files(find_recordings([str(tmp_path)])) == [
        "cell.abf",
        "old/own.csv",
        "other/events.csv",
    ]


def test_links_are_followed_and_no_file_is_found_twice(tmp_path: Path) -> None:
    touch(tmp_path, "rec/day1/a.abf", "elsewhere/b.abf", "elsewhere/deep/c.abf")
    (tmp_path / "rec" / "day0").symlink_to(tmp_path / "rec" / "day1")
    (tmp_path / "rec" / "day2").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "rec" / "a-link.abf").symlink_to(tmp_path / "rec" / "day1" / "a.abf")
    (tmp_path / "elsewhere" / "round").symlink_to(tmp_path / "rec")
    expected = ["day1/a.abf", "day2/b.abf", "day2/deep/c.abf"]
    assert files(find_recordings([str(tmp_path / "rec")])) == expected
    assert files(find_recordings([f"{tmp_path}/rec/day*"])) == expected


def test_equal_stems_have_places_of_their_own(tmp_path: Path) -> None:
    touch(tmp_path, "a/cell.abf", "b/cell.abf", "b/cell.h5", "b/Cell.npy", "b/other.abf")
    found = {entry.file: entry.place for entry in find_recordings([str(tmp_path)])}
    assert found == {
        "a/cell.abf": "a",
        "b/Cell.npy": "b/Cell_npy",
        "b/cell.abf": "b/cell_abf",
        "b/cell.h5": "b/cell_h5",
        "b/other.abf": "b",
    }


def test_no_two_recordings_of_any_tree_share_a_result(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parts = ["a", "b", "a_abf", "A"]
    for k in range(20):
        tree = tmp_path / str(k)
        for _ in range(12):
            folder = "/".join(rng.choice(parts, rng.integers(0, 3)))
            touch(tree, f"{folder or '.'}/{rng.choice(parts)}.{rng.choice(['abf', 'h5'])}")
        try:
            found = find_recordings([str(tree)])
        except UsageError:
            continue  # a folder a_abf beside a.abf and a.h5: said, not overwritten
        results = {(entry.place.casefold(), entry.path.stem.casefold()) for entry in found}
        assert len(results) == len(found)


def test_a_glob_names_from_where_its_pattern_begins(tmp_path: Path) -> None:
    touch(tmp_path, "day1/wt/a.abf", "day1/ko/b.abf", "day2/wt/c.abf", "day2/wt/c.txt")
    found = find_recordings([f"{tmp_path}/day*/wt/*.abf"])
    assert files(found) == ["day1/wt/a.abf", "day2/wt/c.abf"]
    assert files(find_recordings([f"{tmp_path}/day1/*"])) == ["ko/b.abf", "wt/a.abf"]
    assert files(find_recordings([f"{tmp_path}/**/*.abf"])) == [
        "day1/ko/b.abf",
        "day1/wt/a.abf",
        "day2/wt/c.abf",
    ]


def test_several_folders_and_files_are_named_from_what_they_share(tmp_path: Path) -> None:
    touch(tmp_path, "wt/a.abf", "ko/b.abf", "ko/c.abf")
    asked = [str(tmp_path / "wt"), str(tmp_path / "ko" / "b.abf"), str(tmp_path / "ko")]
    found = find_recordings(asked)
    assert files(found) == ["ko/b.abf", "ko/c.abf", "wt/a.abf"]
    assert [entry.group for entry in found] == ["ko", "ko", "wt"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cells.csv", "file,group,age\nx/a.abf,wt,12\n\nb.abf, ko ,\n"),
        ("cells.csv", "\ufeffage;file;group\r\n12;x/a.abf;wt\r\n;b.abf;ko\r\n"),
        ("cells.tsv", "# mine\ngroup\tfile\tage\nwt\tx/a.abf\t12\nko\tb.abf\n"),
    ],
)
def test_a_list_brings_groups_and_columns(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    found = find_recordings([str(tmp_path / name)])
    assert [(entry.file, entry.group, entry.more) for entry in found] == [
        ("b.abf", "ko", {"age": ""}),
        ("x/a.abf", "wt", {"age": "12"}),
    ]
    assert found[1].path == tmp_path / "x" / "a.abf"
    assert [entry.group for entry in find_recordings([str(tmp_path / name)], "age")] == ["", "12"]
    assert [entry.group for entry in find_recordings([str(tmp_path / name)], "folder")] == ["", "x"]


def test_a_text_lists_one_path_a_line_wherever_it_lies(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    far = tmp_path / "far, away" / "a b.abf"
    (tmp_path / "lists" / "cells.txt").write_text(f"{far}\nnear.abf\n")
    found = find_recordings([str(tmp_path / "lists" / "cells.txt")])
    assert [entry.path for entry in found] == [tmp_path / "lists" / "near.abf", far] or [
        entry.path for entry in found
    ] == [far, tmp_path / "lists" / "near.abf"]
    names = {entry.path.name: entry for entry in found}
    assert names["near.abf"].file == "near.abf"
    assert names["a b.abf"].file == far.as_posix().lstrip("/")
    assert names["a b.abf"].place == far.parent.as_posix().lstrip("/")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("recording,group\na.abf,wt\n", "a table with the column 'file'"),
        ("", "it has no columns"),
        ("file,file\na.abf,b.abf\n", "each once"),
        ("file,group\na.abf,wt,3\n", "more fields than columns"),
        ("file\na.abf\n./a.abf\n", "twice"),
        ("file\n", "there is no recording in"),
    ],
)
def test_what_is_wrong_with_a_list_is_said(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "cells.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=words):
        find_recordings([str(path)])


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    touch(tmp_path, "a.abf", "cells.csv", "notes.pdf")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="name a folder"):
        find_recordings([])
    with pytest.raises(ReadError, match="there is no folder, list or recording"):
        find_recordings([str(tmp_path / "none")])
    with pytest.raises(UsageError, match=r"files that end in \.abf"):
        find_recordings([f"{tmp_path}/*.pdf"])
    with pytest.raises(UsageError, match="--group takes 'folder'"):
        find_recordings([str(tmp_path)], "age")
    with pytest.raises(UsageError, match="stands alone"):
        find_recordings([str(tmp_path / "cells.csv"), str(tmp_path / "a.abf")])
    with pytest.raises(ReadError, match="not text in UTF-8"):
        find_recordings([str(tmp_path / "binary.csv")])
    (tmp_path / "cells.csv").write_text("file\na.abf\n")
    with pytest.raises(UsageError, match="no column 'age' to group by"):
        find_recordings([str(tmp_path / "cells.csv")], "age")


@pytest.fixture
def locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that may not be entered, not even by an administrator."""
    folder = tmp_path / "rec" / "ko" / "locked"
    touch(tmp_path, "rec/wt/a.abf", "rec/ko/locked.abf", "rec/ko/locked/b.abf")
    scandir, stat = os.scandir, os.stat

    def no_scandir(path: Any = ".") -> Any:
        if str(path) == str(folder):
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return scandir(path)

    def no_stat(path: Any, **options: Any) -> Any:
        if str(path).startswith(f"{folder}/"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr(os, "scandir", no_scandir)
    monkeypatch.setattr(os, "stat", no_stat)
    return folder


@pytest.mark.parametrize(
    "asked",
    ["rec", "rec/**/*.abf", "rec/*/*/*.abf", "rec/*/l*", "rec/*/locked/*.abf"],
)
def test_a_folder_that_cannot_be_entered_is_among_what_is_found(
    locked: Path, tmp_path: Path, asked: str
) -> None:
    found = find_recordings([str(tmp_path / asked), str(tmp_path / "rec" / "wt")])
    told = [(entry.path, entry.file, entry.group) for entry in found if entry.closed]
    assert told == [(locked, "ko/locked/", "ko")]
    assert "this folder cannot be entered" in next(e.closed for e in found if e.closed)
    whole = {entry.file: entry.place for entry in found if not entry.closed}
    assert whole["wt/a.abf"] == "wt"
    assert whole.get("ko/locked.abf", "ko") == "ko"  # the folder wants no place for results


def test_a_folder_that_cannot_be_entered_is_told_where_there_is_nothing_else(locked: Path) -> None:
    for asked in (locked, locked / "*.abf"):
        with pytest.raises(ReadError, match="locked: this folder cannot be entered: ask whoever"):
            find_recordings([str(asked)])
    with pytest.raises(ReadError, match=r"b\.abf: its folder cannot be entered"):
        find_recordings([str(locked / "b.abf")])


def test_a_folder_without_permissions_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "a.abf", "locked/b.abf")
    (tmp_path / "locked").chmod(0)
    if os.access(tmp_path / "locked", os.R_OK):
        pytest.skip("an administrator may enter any folder")
    try:
        found = find_recordings([str(tmp_path)])
    finally:
        (tmp_path / "locked").chmod(0o700)
    assert [(entry.file, bool(entry.closed)) for entry in found] == [
        ("a.abf", False),
        ("locked/", True),
    ]


@pytest.mark.parametrize("file", ["", ".", "/", "sub/.."])
def test_a_row_without_a_recording_is_told(tmp_path: Path, file: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text(f"file,group\ncell.abf,wt\n{file},ko\n")
    with pytest.raises(UsageError, match="names no recording"):
        find_recordings([str(path)])

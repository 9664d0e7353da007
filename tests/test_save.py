"""Results on disk: they come back as they were, and a failure leaves what was there."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantal import save
from quantal.disk import move_together, replacing
from quantal.errors import MissingLibraryError, QuantalError, ReadError, SaveError, UsageError
from quantal.events import (
    COLUMNS,
    FOUND,
    REJECTED,
    Events,
    Sweep,
    column_type,
    make_events,
    no_events,
)
from quantal.save import (
    as_json,
    load_events,
    load_table,
    save_events,
    save_scores,
    save_summary,
    save_table,
)
from quantal.scan import Scores
from quantal.tables import require_library

# NumPy drops NUL at the end of a text, and a lone surrogate is no character.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    np.str_: TEXT,
    np.int64: st.integers(-(2**63), 2**63 - 1),
    np.bool_: st.booleans(),
    np.float64: st.floats(),
}
STATUS = st.sampled_from([FOUND, REJECTED])
SWEEPS = st.builds(
    Sweep,
    recording=TEXT,
    channel=TEXT,
    sweep=st.integers(0, 1000),
    unit=TEXT,
    analysed_s=st.floats(0, 1e6),
)


@st.composite
def tables(draw: st.DrawFn) -> Events:
    """A table of a few rows of anything that a column can hold."""
    n = draw(st.integers(0, 5))
    columns = {
        name: draw(st.lists(values, min_size=n, max_size=n))
        for name in COLUMNS
        for values in [STATUS if name == "status" else VALUES[column_type(name)]]
    }
    return make_events(columns, draw(st.lists(SWEEPS, max_size=3)))


def needs(suffix: str) -> None:
    """Skip where the library for files of this suffix is not installed."""
    try:
        require_library(suffix)
    except MissingLibraryError as error:
        pytest.skip(str(error))


def three_events() -> Events:
    numbers = {name: [1.5, -2.25, np.nan] for name in COLUMNS if column_type(name) is np.float64}
    return make_events(
        {
            **numbers,
            "recording": 'cell "7", left\nslice',
            "channel": "IN 0",
            "sweep": 0,
            "event": [0, 1, 2],
            "unit": "pA",
            "polarity": -1,
            "overlap": [True, False, False],
            "edge": False,
            "status": ["found", "rejected", "found"],
        },
        [Sweep(recording="cell", channel="IN 0", sweep=0, unit="pA", analysed_s=10.0)],
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


@given(events=tables())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_hdf5_gives_back_what_was_saved(events: Events, folder: Path) -> None:
    save_events(events, folder / "any.h5")
    back = load_events(folder / "any.h5")
    for name, values in events.columns().items():
        np.testing.assert_array_equal(getattr(back, name), values)
        assert getattr(back, name).dtype.kind == values.dtype.kind
    assert back.sweeps == events.sweeps


@given(events=tables())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_csv_gives_back_what_was_printed(events: Events, folder: Path) -> None:
    save_events(events, folder / "any.csv")
    back = load_events(folder / "any.csv")
    for name, values in events.columns().items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(getattr(back, name), values, rtol=1e-8)
        else:
            np.testing.assert_array_equal(getattr(back, name), values)
    assert back.sweeps == ()


def test_a_csv_knows_the_unit_of_its_events_but_not_what_was_searched(tmp_path: Path) -> None:
    save_events(three_events(), tmp_path / "cell.csv")
    back = load_events(tmp_path / "cell.csv")
    assert (back.summary()["unit"], back.summary()["frequency_hz"]) == ("pA", None)
    assert repr(back) == "Events(3 events, pA)"


def test_csv_is_tidy(tmp_path: Path) -> None:
    save_events(three_events(), tmp_path / "cell.csv")
    text = (tmp_path / "cell.csv").read_text(encoding="utf-8")
    assert text.splitlines()[0] == ",".join(COLUMNS)
    last = text.splitlines()[-1]
    assert last.startswith('slice",IN 0,0,2,,,,,,pA,')  # nan is an empty field
    assert last.endswith(",-1,false,false,found")
    assert '"cell ""7"", left' in text


def test_a_csv_keeps_the_sample_of_a_late_event(tmp_path: Path) -> None:
    time_s = 7199.99998  # the last sample but one of two hours at 50 kHz
    events = make_events({**three_events().columns(), "location_s": [time_s] * 3}, [])
    save_events(events, tmp_path / "late.csv")
    assert load_events(tmp_path / "late.csv").location_s[0] == pytest.approx(time_s, abs=1e-7)


@pytest.mark.parametrize("suffix", [".csv", ".h5", ".parquet", ".xlsx", ".nwb"])
def test_an_empty_table_keeps_its_columns(suffix: str, tmp_path: Path) -> None:
    needs(suffix)
    save_events(no_events(three_events().sweeps), tmp_path / f"none{suffix}")
    back = load_events(tmp_path / f"none{suffix}")
    assert len(back) == 0
    assert back.amplitude.dtype == np.float64
    assert len(back.sweeps) == (0 if suffix == ".csv" else 1)


def test_a_csv_that_other_programs_wrote_is_read(tmp_path: Path) -> None:
    save_events(three_events(), tmp_path / "cell.csv")
    text = (tmp_path / "cell.csv").read_text(encoding="utf-8")
    text = text.replace("false", "FALSE").replace("true", "True").replace(",,", ",NA,")
    text = text.replace(",IN 0,0,", ",IN 0,0.0,").replace(COLUMNS[-1] + "\n", "status,mine\n")
    text = text.replace(",found\n", ",found,7\n").replace(",rejected\n", ",rejected,8\n")
    (tmp_path / "other.csv").write_text("\ufeff" + text, encoding="utf-8")
    back = load_events(tmp_path / "other.csv")
    assert back.overlap.tolist() == [True, False, False]
    assert back.sweep.tolist() == [0, 0, 0]
    assert back.status.tolist() == ["found", "rejected", "found"]
    assert np.isnan(back.amplitude[2])


@pytest.mark.parametrize("suffix", save.READABLE)
def test_a_status_is_read_as_people_type_it(tmp_path: Path, suffix: str) -> None:
    needs(suffix)
    path = tmp_path / f"cell{suffix}"
    typed = replace(three_events(), status=np.array(["Found", " Rejected ", "REJECTED"]))
    save_events(typed, path)
    back = load_events(path)
    assert back.status.tolist() == [FOUND, REJECTED, REJECTED]
    assert back.summary()["rejected"] == 2
    for word in ("reject", "", "no"):
        save_events(replace(typed, status=np.array(["found", "found", word])), path)
        with pytest.raises(
            ReadError, match=f"row 4 .* status '{word}'; allowed are found and rejected"
        ):
            load_events(path)


@pytest.mark.parametrize(("mark", "kind"), [(";", "semicolons"), ("\t", "tabs")])
def test_a_table_that_a_spreadsheet_saved_without_commas_is_told(
    tmp_path: Path, mark: str, kind: str
) -> None:
    path = tmp_path / "cell.csv"
    save_events(three_events()[[2]], path)
    text = path.read_text(encoding="utf-8").replace('"', "").replace("cell 7, left\n", "")
    path.write_text("\ufeff" + text.replace(",", mark).replace("1.5", "1,5"), encoding="utf-8")
    with pytest.raises(ReadError, match=f"separated by {kind}; save it with commas between"):
        load_events(path)


def test_hdf5_carries_units(tmp_path: Path) -> None:
    save_events(three_events(), tmp_path / "cell.h5")
    with h5py.File(tmp_path / "cell.h5") as file:
        units = {name: file["events"][name].attrs["unit"] for name in COLUMNS}
        assert file.attrs["quantal"]
    assert units["amplitude"] == "pA"
    assert units["area"] == "pA s"
    assert units["slope_per_ms"] == "pA/ms"
    assert units["onset_s"] == "s"
    assert units["half_width_ms"] == "ms"


@pytest.mark.parametrize("suffix", [".csv", ".h5", ".parquet", ".xlsx", ".nwb"])
def test_odd_characters_do_not_lose_the_table(suffix: str, tmp_path: Path) -> None:
    needs(suffix)
    odd = make_events({**three_events().columns(), "recording": "a\0b \udcff é"}, [])
    save_events(odd, tmp_path / f"odd{suffix}")
    assert load_events(tmp_path / f"odd{suffix}").recording[0] == "a\ufffdb ? é"


@pytest.mark.parametrize("name", ["cell.xls", "cell", "cell.CSV.gz"])
def test_an_unknown_suffix_is_told(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.csv, \.h5"):
        save_events(three_events(), tmp_path / name)
    with pytest.raises(UsageError, match=r"\.csv, \.h5"):
        load_events(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.csv", b""),
        ("other.csv", b"a,b\n1,2\n"),
        ("binary.csv", bytes(range(256))),
        ("short.csv", ",".join(COLUMNS).encode() + b"\n1,2\n"),
        ("words.csv", ",".join(COLUMNS).encode() + b"\n" + b",".join([b"x"] * len(COLUMNS))),
        ("quote.csv", ",".join(COLUMNS).encode() + b'\n"abc'),
        ("empty.h5", b""),
        ("text.h5", b"not HDF5"),
    ],
)
def test_another_content_is_told(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ReadError, match="cannot be read as a table of events"):
        load_events(tmp_path / name)


def test_a_cut_or_foreign_hdf5_is_told(tmp_path: Path) -> None:
    save_events(three_events(), tmp_path / "cell.h5")
    content = (tmp_path / "cell.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(content[: len(content) // 2])
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["events"] = np.zeros(3)
    with h5py.File(tmp_path / "cell.h5", "a") as file:
        del file["events/amplitude"]
        file["events/amplitude"] = np.zeros((3, 3))
    for name in ("cut.h5", "foreign.h5", "cell.h5"):
        with pytest.raises(ReadError):
            load_events(tmp_path / name)
    with pytest.raises(ReadError, match="no file"):
        load_events(tmp_path / "nothing.h5")


# Writing whole or not at all


def test_replacing_puts_the_file_in_place(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "result.txt"
    with replacing(target) as temporary:
        assert temporary.parent == target.parent
        temporary.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert [path.name for path in target.parent.iterdir()] == ["result.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_file(error: type[BaseException], tmp_path: Path) -> None:
    target = tmp_path / "result.txt"
    target.write_text("old")

    def write() -> None:
        with replacing(target) as temporary:
            temporary.write_text("half")
            raise error("stopped")

    with pytest.raises(error, match="stopped"):
        write()
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["result.txt"]


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "access is denied"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_a_disk_that_refuses_is_told(
    number: int, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    target = tmp_path / "cell.csv"
    target.write_text("old")
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(SaveError, match=word) as caught:
        save_events(three_events(), target)
    assert isinstance(caught.value, QuantalError)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["cell.csv"]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match="not a folder"):
        save_summary({}, tmp_path / "file" / "summary.json")
    with pytest.raises(SaveError, match="it is a folder"):
        save_summary({}, tmp_path)
    with pytest.raises(SaveError, match="name is too long"):
        save_summary({}, tmp_path / ("x" * 300))


@pytest.mark.skipif(os.name != "posix", reason="needs a device file and links")
def test_devices_are_refused_and_links_followed(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match="not a plain file"):
        save_summary({}, os.devnull)
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to("real.json")
    save_summary({"a": 1}, tmp_path / "link.json")
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "real.json").read_text()) == {"a": 1}


# Summaries and scores


def test_a_summary_is_plain_json_in_order(tmp_path: Path) -> None:
    summary = {
        "z": np.float32(0.5),
        "a": np.nan,
        "n": np.int64(3),
        "flag": np.bool_(True),
        "deep": {"values": np.array([1.0, np.inf]), "path": Path("x"), "pair": (1, "µA")},
        "sweep": three_events().sweeps[0],
        "none": None,
    }
    save_summary(summary, tmp_path / "summary.json")
    text = (tmp_path / "summary.json").read_text(encoding="utf-8")
    back = json.loads(text)
    assert list(back) == list(summary)
    assert back["a"] is None
    assert back["z"] == 0.5
    assert back["n"] == 3
    assert back["flag"] is True
    assert back["deep"] == {"values": [1.0, None], "path": "x", "pair": [1, "µA"]}
    assert back["sweep"]["analysed_s"] == 10.0
    assert "µA" in text


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
@settings(max_examples=25, deadline=None)
def test_whatever_is_said_is_json(value: Any) -> None:
    json.loads(as_json(value), parse_constant=pytest.fail)


def test_a_summary_of_events_can_be_saved(tmp_path: Path) -> None:
    save_summary(three_events().summary(), tmp_path / "summary.json")
    assert json.loads((tmp_path / "summary.json").read_text())["events"] == 2


def test_scores_carry_their_clock(tmp_path: Path) -> None:
    values = np.array([0.0, np.nan, 1.0], np.float32)
    scores = Scores(values=values, first_sample=5, stride=20, rate_hz=5e4, start_s=1.5)
    save_scores({"sweep 0/negative": scores}, tmp_path / "scores.h5")
    with h5py.File(tmp_path / "scores.h5") as file:
        group = file["sweep 0/negative"]
        np.testing.assert_array_equal(group["values"][()], values)
        assert group.attrs["first_sample"] == 5
        assert group.attrs["stride"] == 20
        assert group.attrs["rate_hz"] == 5e4
        assert group.attrs["start_s"] == 1.5
    with pytest.raises(SaveError):
        save_scores({"a": scores}, tmp_path)


def test_empty_scores_can_be_saved(tmp_path: Path) -> None:
    none = Scores(values=np.empty(0, np.float32), first_sample=0, stride=20, rate_hz=100.0)
    save_scores({"a": none}, tmp_path / "scores.h5")
    save_scores({}, tmp_path / "nothing.h5")
    with h5py.File(tmp_path / "scores.h5") as file:
        assert file["a/values"].shape == (0,)


def test_all_suffixes_are_written_and_read() -> None:
    assert list(save._WRITERS) == list(save._READERS)


def _finished(folder: Path, *names: str) -> list[Path]:
    """Files to be moved, each holding its name."""
    folder.mkdir()
    for name in names:
        (folder / name).write_text(name)
    return [folder / name for name in names]


def test_files_are_moved_together_and_through_links(tmp_path: Path) -> None:
    files = _finished(tmp_path / "desk", "a", "b", "last")
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "elsewhere").write_text("old")
    (out / "a").symlink_to(tmp_path / "elsewhere")
    (out / "last").write_text("old")
    move_together(files, out)
    assert {path.name: path.read_text() for path in out.iterdir()} == {
        name: name for name in ("a", "b", "last")
    }
    assert (out / "a").is_symlink()
    assert list((tmp_path / "desk").iterdir()) == []


def test_a_link_to_another_disk_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = os.replace

    def replace(source: Path, target: Path) -> None:
        if Path(source).parent != Path(target).parent:
            raise OSError(errno.EXDEV, "another disk")
        whole(source, target)

    monkeypatch.setattr(os, "replace", replace)
    move_together(_finished(tmp_path / "desk", "a", "last"), tmp_path / "out")
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {
        "a": "a",
        "last": "last",
    }


def test_what_vouches_for_the_rest_is_gone_as_long_as_they_are_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = _finished(tmp_path / "desk", "a", "b", "last")
    out = tmp_path / "out"
    out.mkdir()
    for name in ("a", "b", "last"):
        (out / name).write_text("old")
    whole, moved = os.replace, []

    def replace(source: Path, target: Path) -> None:
        if moved:
            raise OSError(errno.ENOSPC, "full")
        moved.append(target)
        whole(source, target)

    (out / "outdated").write_text("old")
    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(SaveError, match="the disk is full"):
        move_together(files, out, [out / "outdated"])
    there = {path.name: path.read_text() for path in out.iterdir()}
    assert there == {"a": "a", "b": "old", "outdated": "old"}
    monkeypatch.undo()
    move_together(files[1:], out, [out / "outdated"])
    assert {path.name for path in out.iterdir()} == {"a", "b", "last"}


def test_nothing_is_moved_where_a_folder_is_in_the_way(tmp_path: Path) -> None:
    files = _finished(tmp_path / "desk", "a", "last")
    (tmp_path / "out" / "last").mkdir(parents=True)
    with pytest.raises(SaveError, match="it is a folder"):
        move_together(files, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["last"]


_TABLE = {
    "file": np.array(["a, b.abf", 'c"d.abf', ""]),
    "n": np.array([1, 2, 3]),
    "median": np.array([1.5, np.nan, -3.0]),
}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_comes_back_as_texts(tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="needs the extra [tables]")
    path = tmp_path / f"table{suffix}"
    save_table(_TABLE, path)
    back = load_table(path)
    assert list(back) == list(_TABLE)
    assert back["file"] == _TABLE["file"].tolist()
    assert [float(text or "nan") for text in back["median"]] == pytest.approx(
        _TABLE["median"].tolist(), nan_ok=True
    )
    save_table({name: column[:0] for name, column in _TABLE.items()}, path)
    assert load_table(path) == {"file": [], "n": [], "median": []}


def test_a_table_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    for name, content in (("a.csv", b"x,y\n1\n"), ("b.csv", b"\xff\xfe"), ("c.parquet", b"no")):
        if name.endswith("parquet"):
            pytest.importorskip("pyarrow", reason="needs the extra [tables]")
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ReadError, match="cannot be read as a table"):
            load_table(tmp_path / name)
    with pytest.raises(UsageError, match="suffix"):
        save_table(_TABLE, tmp_path / "table.doc")


def test_samples_in_place_of_a_table_are_refused_and_not_searched(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    save_events(three_events(), path)
    with h5py.File(path, "a") as file:
        del file["events"]
        file["events"] = np.zeros(1000)
    with pytest.raises(ReadError, match="its events are no group of columns"):
        load_events(path)


def test_what_is_no_table_is_not_gone_through(tmp_path: Path) -> None:
    needs(".nwb")
    path = tmp_path / "a.nwb"
    save_events(three_events(), path)
    with h5py.File(path, "a") as file:
        del file["processing/quantal/sweeps"]
        file["processing/quantal/sweeps"] = np.zeros(2_000_000)  # each would be read by itself
    with pytest.raises(ReadError, match="sweeps is not a table"):
        load_events(path)


@pytest.mark.parametrize("suffix", [".h5", ".nwb"])
def test_a_column_that_was_never_written_is_not_made_room_for(tmp_path: Path, suffix: str) -> None:
    needs(suffix)
    path = tmp_path / f"a{suffix}"
    save_events(three_events(), path)
    with h5py.File(path, "a") as file:
        table = file["events"] if suffix == ".h5" else file["processing/quantal/events"]
        del table["amplitude"]
        table.create_dataset("amplitude", (2**40,), "f8", chunks=(4096,))
    with pytest.raises(ReadError, match="columns of different length"):
        load_events(path)
    with h5py.File(path, "a") as file:
        for table in file.values() if suffix == ".h5" else file["processing/quantal"].values():
            for name in list(table):
                del table[name]
                table.create_dataset(name, (2**40,), "f8", chunks=(4096,))
    with pytest.raises(
        ReadError, match=r"declares 8,796,093,022,208 bytes|is not a column of texts"
    ):
        load_events(path)


def test_one_long_text_does_not_make_every_row_as_long(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    save_events(three_events(), path)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("IN 0", "x" * 100_000, 1), encoding="utf-8")
    with pytest.raises(ReadError, match="a text of 100,000 characters is no name"):
        load_events(path)

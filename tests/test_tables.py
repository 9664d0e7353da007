"""Parquet, Excel and NWB: what was saved comes back, and other programs can read it."""

from __future__ import annotations

import zipfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantal import tables
from quantal.errors import MissingLibraryError, ReadError, SaveError
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
from quantal.fits import Fits
from quantal.save import load_events, save_events, save_fits

SUFFIXES = (".parquet", ".xlsx", ".nwb")
# What XML and a sheet cannot hold is replaced there, so names are drawn from what they can.
TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), max_size=8
)
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    np.str_: TEXT,
    np.int64: st.integers(-(2**53), 2**53),
    np.bool_: st.booleans(),
    np.float64: st.floats(-1e300, 1e300) | st.just(np.nan),
}


@pytest.fixture(params=SUFFIXES)
def suffix(request: pytest.FixtureRequest) -> str:
    """Each suffix whose library is installed."""
    try:
        tables.require_library(request.param)
    except MissingLibraryError as error:
        pytest.skip(str(error))
    return str(request.param)


STATUS = st.sampled_from([FOUND, REJECTED])


@st.composite
def any_events(draw: st.DrawFn) -> Events:
    """A table of a few rows of anything that a column can hold."""
    n = draw(st.integers(0, 4))
    columns = {
        name: draw(st.lists(values, min_size=n, max_size=n))
        for name in COLUMNS
        for values in [STATUS if name == "status" else VALUES[column_type(name)]]
    }
    sweep = st.builds(
        Sweep,
        recording=TEXT,
        channel=TEXT,
        sweep=st.integers(0, 1000),
        unit=TEXT,
        analysed_s=st.floats(0, 1e6),
    )
    return make_events(columns, draw(st.lists(sweep, max_size=3)))


def some_events(n: int = 3) -> Events:
    numbers = {
        name: np.where(np.arange(n) == 1, np.nan, np.arange(n) / 3)
        for name in COLUMNS
        if column_type(name) is np.float64
    }
    return make_events(
        {
            **numbers,
            "recording": "=1+1",
            "channel": "IN 0",
            "sweep": 0,
            "event": np.arange(n),
            "unit": "pA",
            "polarity": -1,
            "overlap": np.arange(n) % 2 == 0,
            "edge": False,
            "status": "found",
        },
        [Sweep(recording="=1+1", channel="IN 0", sweep=0, unit="pA", analysed_s=10.25)],
    )


def some_fits(n: int = 3) -> Fits:
    events = some_events(n)
    shared = {name: getattr(events, name) for name in ("recording", "channel", "sweep", "event")}
    return Fits(
        **{
            name: shared.get(name, np.full(n, "pA") if name == "unit" else np.arange(n, dtype=kind))
            for name, kind in (
                (field, np.int64 if field == "together" else np.float64)
                for field in Fits.__dataclass_fields__
            )
        }
    )


def assert_equal(back: Events, events: Events, rtol: float = 0.0) -> None:
    for name, values in events.columns().items():
        column = getattr(back, name)
        assert column.dtype.kind == values.dtype.kind
        if values.dtype.kind == "f":
            np.testing.assert_allclose(column, values, rtol=rtol, atol=0, err_msg=name)
        else:
            np.testing.assert_array_equal(column, values, err_msg=name)
    assert len(back.sweeps) == len(events.sweeps)
    for sweep, expected in zip(back.sweeps, events.sweeps, strict=True):
        assert replace(sweep, analysed_s=0) == replace(expected, analysed_s=0)
        assert sweep.analysed_s == pytest.approx(expected.analysed_s, rel=rtol, abs=0)


@given(events=any_events())
@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
def test_what_was_saved_comes_back(events: Events, suffix: str, tmp_path: Path) -> None:
    save_events(events, tmp_path / f"any{suffix}")
    rtol = 1e-15 if suffix == ".xlsx" else 0.0  # numbers in a workbook have 16 digits
    assert_equal(load_events(tmp_path / f"any{suffix}"), events, rtol)


def test_events_save_by_suffix(suffix: str, tmp_path: Path) -> None:
    some_events().save(tmp_path / f"cell{suffix.upper()}")
    assert_equal(load_events(tmp_path / f"cell{suffix.upper()}"), some_events(), rtol=1e-15)


def test_a_table_without_events_knows_what_was_searched(suffix: str, tmp_path: Path) -> None:
    empty = no_events(some_events().sweeps)
    save_events(empty, tmp_path / f"none{suffix}")
    assert_equal(load_events(tmp_path / f"none{suffix}"), empty)
    assert load_events(tmp_path / f"none{suffix}").summary()["frequency_hz"] == 0.0


def test_parquet_has_units_and_null_for_what_was_not_measured(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    save_events(some_events(), tmp_path / "cell.parquet")
    table = parquet.read_table(tmp_path / "cell.parquet")
    assert table.column_names == list(COLUMNS)
    assert table.column("amplitude").null_count == 1
    units = {field.name: (field.metadata or {}).get(b"unit") for field in table.schema}
    assert (units["amplitude"], units["area"], units["onset_s"]) == (b"pA", b"pA s", b"s")
    assert units["overlap"] is None


def test_a_workbook_holds_text_as_text(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl", reason="needs openpyxl")
    save_events(some_events(), tmp_path / "cell.xlsx", fits=some_fits())
    book = openpyxl.load_workbook(tmp_path / "cell.xlsx")
    assert book.sheetnames == ["events", "sweeps", "fits"]
    sheet = book["events"]
    assert [cell.value for cell in sheet[1]] == list(COLUMNS)
    assert (sheet["A2"].value, sheet["A2"].data_type) == ("=1+1", "s")  # not a formula
    assert sheet.freeze_panes == "A2"
    amplitude = COLUMNS.index("amplitude") + 1
    assert [sheet.cell(row, amplitude).value for row in (2, 3, 4)] == [0, None, 2 / 3]


def test_a_workbook_that_was_edited_is_read(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl", reason="needs openpyxl")
    save_events(some_events(), tmp_path / "cell.xlsx")
    book = openpyxl.load_workbook(tmp_path / "cell.xlsx")
    book["events"].cell(2, COLUMNS.index("status") + 1).value = "rejected"
    book["events"].cell(2, COLUMNS.index("overlap") + 1).value = "FALSE"
    book["events"].cell(1, len(COLUMNS) + 1).value = "mine"
    book["events"].cell(9, len(COLUMNS) + 3).value = None
    del book["sweeps"]
    book.save(tmp_path / "cell.xlsx")
    back = load_events(tmp_path / "cell.xlsx")
    assert back.status.tolist() == ["rejected", "found", "found"]
    assert back.overlap.tolist() == [False, False, True]
    assert back.sweeps == ()


def test_a_sheet_that_is_too_long_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openpyxl", reason="needs openpyxl")
    monkeypatch.setattr(tables, "_MOST_ROWS", 2)
    with pytest.raises(SaveError, match=r"holds 2 rows, the table has 3; save it as \.parquet"):
        save_events(some_events(), tmp_path / "cell.xlsx")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_nwb_is_read_and_found_valid_by_pynwb(tmp_path: Path) -> None:
    pynwb = pytest.importorskip("pynwb", reason="needs pynwb")
    path = tmp_path / "cell.nwb"
    save_events(some_events(), path, fits=some_fits())
    assert pynwb.validate(path=str(path)) == []
    with pynwb.NWBHDF5IO(str(path), "r") as io:
        module = io.read().processing["quantal"]
        table = module["events"].to_dataframe()
        assert list(table.columns) == list(COLUMNS)
        np.testing.assert_array_equal(table["amplitude"], some_events().amplitude)
        assert module["events"]["area"].description == "in pA s"
        assert len(module["fits"]) == 3
        assert module["sweeps"]["analysed_s"].data[:].tolist() == [10.25]


@pytest.mark.parametrize("suffix_of_fits", [".csv", ".h5", *SUFFIXES])
def test_fits_alone_can_be_saved(suffix_of_fits: str, tmp_path: Path) -> None:
    try:
        save_fits(some_fits(), tmp_path / f"fits{suffix_of_fits}")
    except MissingLibraryError as error:
        pytest.skip(str(error))
    assert (tmp_path / f"fits{suffix_of_fits}").stat().st_size > 100


def test_a_missing_library_is_named_with_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "find_spec", lambda name: None)  # noqa: ARG005
    for suffix, name in ((".parquet", "pyarrow"), (".xlsx", "openpyxl"), (".nwb", '"pynwb>=4"')):
        with pytest.raises(MissingLibraryError, match=f"python -m pip install {name}"):
            save_events(some_events(), tmp_path / f"cell{suffix}")
    assert not list(tmp_path.iterdir())


def test_what_is_no_table_of_events_is_told(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"cell{suffix}"
    save_fits(some_fits(), path)
    with pytest.raises(ReadError, match="cannot be read as a table of events"):
        load_events(path)
    path.write_bytes(b"hello world")
    with pytest.raises(ReadError, match="cannot be read as a table of events"):
        load_events(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/workbook.xml", "<a>")
    with pytest.raises(ReadError, match="cannot be read as a table of events"):
        load_events(path)


@given(data=st.data())
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
def test_broken_tables_give_the_project_s_own_error(
    suffix: str, tmp_path: Path, data: st.DataObject
) -> None:
    path = tmp_path / f"cell{suffix}"
    if not (tmp_path / "whole").exists():
        save_events(some_events(), path)
        (tmp_path / "whole").write_bytes(path.read_bytes())
    stored = bytearray((tmp_path / "whole").read_bytes())
    if data.draw(st.booleans()):
        del stored[data.draw(st.integers(0, len(stored) - 1)) :]
    for _ in range(data.draw(st.integers(0, 6)) if stored else 0):
        at = data.draw(st.integers(0, len(stored) - 1))
        stored[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(stored)
    with suppress(ReadError):
        load_events(path)

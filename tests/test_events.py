"""Events: columns that are cut, rejected, joined and summarised together."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantal.errors import UsageError
from quantal.events import (
    COLUMNS,
    FOUND,
    REJECTED,
    Events,
    Sweep,
    column_type,
    join,
    make_events,
    no_events,
)

MEASURES = [
    *("amplitude", "rise_10_90_ms", "slope_per_ms", "half_decay_ms"),
    *("half_width_ms", "tau_decay_ms", "area", "interval_s"),
]


def sweep(**changes: Any) -> Sweep:
    origin = {"recording": "cell", "channel": "0", "sweep": 0, "unit": "pA", "analysed_s": 10.0}
    return Sweep(**{**origin, **changes})


def table(n: int, **columns: Any) -> Events:
    """A table whose every column tells the rows apart."""
    rows = np.arange(n)
    filled: dict[str, Any] = {}
    for name in COLUMNS:
        kind = column_type(name)
        filled[name] = [f"{name}{i}" for i in rows] if kind is np.str_ else rows.astype(kind)
    filled["status"] = FOUND
    return make_events({**filled, **columns}, [sweep()])


def assert_same_rows(found: Events, whole: Events, rows: list[int]) -> None:
    assert len(found) == len(rows)
    for name, values in found.columns().items():
        np.testing.assert_array_equal(values, whole.columns()[name][rows], err_msg=name)
    assert found.sweeps == whole.sweeps


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (slice(1, 3), [1, 2]),
        (slice(None, None, -1), [3, 2, 1, 0]),
        (slice(5, 9), []),
        ([3, 0], [3, 0]),
        ([2, 2], [2, 2]),
        ([-1], [3]),
        (np.array([1], np.uint8), [1]),
        (2, [2]),
        (np.int64(-1), [3]),
        ([], []),
        (np.array([]), []),
        (np.array([], np.int64), []),
        ([True, False, False, True], [0, 3]),
        (np.zeros(4, np.bool_), []),
    ],
)
def test_indexing_cuts_every_column_at_once(rows: Any, expected: list[int]) -> None:
    whole = table(4)
    assert_same_rows(whole[rows], whole, expected)


def test_a_mask_made_of_a_column_chooses_its_rows() -> None:
    whole = table(4, score=[0.9, 0.1, 0.85, 0.8])
    assert_same_rows(whole[whole.score > 0.8], whole, [0, 2])


def test_a_table_of_no_events_can_be_cut_and_rejected() -> None:
    empty = table(0)
    for rows in (slice(3), [], np.zeros(0, np.bool_), empty.score > 0.5):
        assert len(empty[rows]) == 0
        assert len(empty.reject(rows)) == 0
        assert empty[rows].sweeps == (sweep(),)


def test_a_table_can_be_walked_through_row_by_row() -> None:
    assert [row.location_s[0] for row in table(3)] == [0, 1, 2]


@pytest.mark.parametrize("mask", [[True], [True] * 5, np.ones((4, 1), np.bool_), np.zeros(0, bool)])
def test_a_mask_of_another_length_is_refused(mask: Any) -> None:
    with pytest.raises(UsageError, match=r"one value per event \(4\)"):
        table(4)[mask]
    with pytest.raises(UsageError, match=r"one value per event \(4\)"):
        table(4).reject(mask)


@pytest.mark.parametrize("rows", [[0.0, 1.0], "first", [[0, 1]], None, ["a"]])
def test_rows_that_are_no_positions_are_refused(rows: Any) -> None:
    with pytest.raises(UsageError, match="events are chosen by a slice, a mask or whole positions"):
        table(4)[rows]


@pytest.mark.parametrize("rows", [4, [0, 4], [-5]])
def test_rows_that_are_not_there_are_refused(rows: Any) -> None:
    with pytest.raises(IndexError):
        table(4)[rows]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([1, 3], [1, 3]),
        (2, [2]),
        ([], []),
        (slice(1, 3), [1, 2]),
        (np.array([True, False, False, True]), [0, 3]),
        ([0, 0], [0]),
    ],
)
def test_rejecting_sets_the_status_and_removes_nothing(rows: Any, expected: list[int]) -> None:
    whole = table(4)
    found = whole.reject(rows)
    status = [REJECTED if i in expected else FOUND for i in range(4)]
    assert found.status.tolist() == status  # the whole word, though "found" is shorter
    assert whole.status.tolist() == [FOUND] * 4
    unchanged = replace(found, status=whole.status)
    assert_same_rows(unchanged, whole, [0, 1, 2, 3])


def test_events_can_be_rejected_twice() -> None:
    found = table(4).reject([0]).reject([2])
    assert found.status.tolist() == [REJECTED, FOUND, REJECTED, FOUND]
    assert found[found.status != REJECTED].event.tolist() == [1, 3]


def test_the_columns_are_those_of_the_table_in_their_order() -> None:
    documented = (
        "recording, channel, sweep, event, onset_s, location_s, peak_s, score, amplitude, unit, "
        "baseline, rise_10_90_ms, slope_per_ms, half_decay_ms, half_width_ms, tau_decay_ms, area, "
        "interval_s, polarity, overlap, edge, status"
    )
    assert ", ".join(COLUMNS) == documented
    assert tuple(table(2).columns()) == COLUMNS


@pytest.mark.parametrize("events", [table(3), table(0), no_events(), join([]), table(3)[[]]])
def test_every_column_keeps_its_kind_even_without_rows(events: Events) -> None:
    for name, values in events.columns().items():
        assert values.shape == (len(events),)
        kind = column_type(name)
        assert values.dtype == kind if kind is not np.str_ else values.dtype.kind == "U", (
            f"{name}: {values.dtype}"
        )


def test_one_text_or_number_fills_its_column() -> None:
    found = table(3, unit="mV", sweep=7)
    assert found.unit.tolist() == ["mV"] * 3
    assert found.sweep.tolist() == [7] * 3
    found.sweep[0] = 1  # a column of its own, not one number seen three times
    assert found.sweep.tolist() == [1, 7, 7]


@pytest.mark.parametrize("values", [[1.0, 2.0], [], [[1.0], [2.0], [3.0]]])
def test_columns_of_unequal_length_are_refused(values: Any) -> None:
    with pytest.raises(UsageError, match=r"column amplitude has shape .*3 events"):
        table(3, amplitude=values)
    with pytest.raises(UsageError, match="columns of an event table must be of equal length"):
        replace(table(3), amplitude=np.zeros(2))


def test_joining_keeps_the_order_and_adds_up_what_was_searched() -> None:
    first = table(2)
    second = replace(table(3), sweeps=(sweep(sweep=1, analysed_s=5.0),))
    found = join(part for part in (first, no_events([sweep(sweep=2)]), second))
    assert found.event.tolist() == [0, 1, 0, 1, 2]
    assert [s.sweep for s in found.sweeps] == [0, 2, 1]
    assert found.summary()["analysed_s"] == 25.0


def test_joining_keeps_the_longer_words() -> None:
    found = join([table(1, recording="a"), table(1, recording="a long name").reject([0])])
    assert found.recording.tolist() == ["a", "a long name"]
    assert found.status.tolist() == [FOUND, REJECTED]


def test_nothing_joined_is_a_table_of_nothing() -> None:
    assert len(join([])) == 0
    assert join([]).summary()["frequency_hz"] is None


NUMBERS = st.one_of(st.floats(-1e3, 1e3), st.sampled_from([np.nan, np.inf, 0.0]))


@settings(max_examples=100, deadline=None)
@given(values=st.lists(NUMBERS, max_size=12), seed=st.integers(0, 99))
def test_the_summary_equals_numpys_statistics(values: list[float], seed: int) -> None:
    n = len(values)
    rejected = np.random.default_rng(seed).random(n) < 0.3
    events = table(n, amplitude=values).reject(rejected)
    summary = events.summary()
    assert summary["events"] == n - rejected.sum()
    assert summary["rejected"] == rejected.sum()
    assert summary["frequency_hz"] == (n - rejected.sum()) / 10
    kept = np.array(values, np.float64)[~rejected]
    kept = kept[np.isfinite(kept)]
    found = summary["amplitude"]
    assert found["n"] == len(kept)
    if not len(kept):
        assert (found["mean"], found["median"], found["sd"], found["cv"]) == (None,) * 4
        return
    assert found["mean"] == pytest.approx(np.mean(kept))
    assert found["median"] == np.median(kept)
    assert found["sd"] == (pytest.approx(np.std(kept, ddof=1)) if len(kept) > 1 else None)
    if len(kept) > 1 and found["mean"]:
        assert found["cv"] == pytest.approx(abs(found["sd"] / found["mean"]))


def test_a_summary_of_nothing_is_full_of_none_and_never_zero() -> None:
    summary = no_events([sweep()]).summary()
    assert (summary["events"], summary["frequency_hz"], summary["unit"]) == (0, 0.0, "pA")
    for name in MEASURES:
        assert summary[name] == {"n": 0, "mean": None, "median": None, "sd": None, "cv": None}


def test_the_frequency_of_what_was_not_searched_is_none() -> None:
    assert replace(table(2), sweeps=()).summary()["frequency_hz"] is None
    assert no_events([sweep(analysed_s=0.0)]).summary()["frequency_hz"] is None


def test_a_summary_of_two_units_names_both() -> None:
    found = no_events([sweep(unit="pA"), sweep(unit="mV"), sweep(unit="pA")]).summary()
    assert found["unit"] == ["mV", "pA"]


def test_a_summary_is_plain_enough_for_json() -> None:
    summary = table(3, tau_decay_ms=np.nan).reject([1]).summary()
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary

"""Datasets: what is read, refused, merged and split, and what a network gets to see of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from quantal.errors import ReadError, UsageError
from quantal.filters import resample
from quantal.simulate import biexponential
from quantal.windows import cut_windows
from quantal_trainer.dataset_files import read_dataset, save_dataset
from quantal_trainer.datasets import (
    EVENT,
    EXCLUDED,
    NOISE,
    UNKNOWN,
    Dataset,
    balanced,
    folds,
    imbalance,
    merge,
    opposed,
    polarity,
    resized,
    scaled,
    split,
    training_arrays,
)
from quantal_trainer.preparations import PREPARATIONS, simulate_dataset

COLUMNS = ("windows", "scores", "cells", "raw_indices", "kinds")


def dataset(
    counts: dict[str, tuple[int, int, int]] | None = None,
    *,
    length: int = 60,
    sign: float = -1.0,
    seed: int = 0,
) -> Dataset:
    """Windows per cell: so many of noise, so many events, so many excluded; unlike one another."""
    counts = counts or {"a": (6, 6, 1), "b": (6, 6, 1), "c": (6, 6, 1), "d": (6, 6, 1)}
    rng = np.random.default_rng(seed)
    scores = np.concatenate([np.repeat([NOISE, EVENT, EXCLUDED], n) for n in counts.values()])
    n = len(scores)
    windows = rng.normal(-20, 1, (n, length))
    shape = biexponential(1.0, 2.0, length / 12)[: length - length // 4]
    windows[scores == EVENT, length // 4 : length // 4 + len(shape)] += sign * 12 * shape
    return Dataset(
        windows=windows.astype(np.float32),
        scores=scores.astype(np.int8),
        rate_hz=5_000.0,
        unit="pA",
        cells=np.repeat(list(counts), [sum(c) for c in counts.values()]),
        raw_indices=np.arange(n) * 1_000,
        kinds=np.array(["noise", "clear", "unclear"])[scores],
        provenance={"made_by": "a test"},
    )


def assert_same(found: Dataset, expected: Dataset) -> None:
    for name in COLUMNS:
        assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    assert (found.rate_hz, found.unit) == (expected.rate_hz, expected.unit)


# Columns


def test_columns_are_cut_together() -> None:
    whole = dataset()
    chosen = whole.scores == EVENT
    part = whole[chosen]
    for name in COLUMNS:
        assert_array_equal(getattr(part, name), getattr(whole, name)[chosen])
    assert_same(whole[3:9], whole[np.arange(3, 9)])
    assert_same(whole[[5, 2]][[1, 0]], whole[[2, 5]])
    assert len(whole[[]]) == 0
    assert whole[[]].length == whole.length


def test_columns_that_are_not_given_say_that_nothing_is_known() -> None:
    one = Dataset(windows=np.eye(8), scores=np.zeros(8), rate_hz=100, unit="pA")
    assert one.raw_indices.tolist() == [UNKNOWN] * 8
    assert one.cells.tolist() == one.kinds.tolist() == [""] * 8
    assert one.windows.dtype == np.float32
    assert one.scores.dtype == np.int8
    assert one.window_ms == 80


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"windows": np.zeros((4, 7))}, r"at least 8 samples.*\(4, 7\)"),
        ({"windows": np.zeros(4)}, r"numbers \(n, length\)"),
        ({"windows": np.zeros((4, 8, 2))}, r"\(4, 8, 2\)"),
        ({"windows": np.full((4, 8), "a")}, "must be numbers"),
        ({"windows": np.zeros((4, 8), complex)}, "complex128"),
        ({"scores": [0, 1, 2]}, r"4 windows but scores of shape \(3,\)"),
        ({"scores": [0, 1, 2, 3]}, "0 .noise., 1 .event. or 2 .excluded., got 3"),
        ({"scores": [0, 1, 2, -1]}, "got -1"),
        ({"scores": [0, 1, 1, 0.5]}, "got 0.5"),
        ({"scores": [0, 1, 1, np.nan]}, "got nan"),
        ({"scores": ["0", "1", "1", "yes"]}, "0 .noise., 1 .event. or 2 .excluded."),
        ({"cells": ["a", "b"]}, r"4 windows but cells of shape \(2,\)"),
        ({"raw_indices": [1, 2, 3, 4, 5]}, r"4 windows but raw_indices of shape \(5,\)"),
        ({"kinds": ["clear"]}, "kinds of shape"),
        ({"rate_hz": 0.0}, "rate_hz must be a positive number, got 0.0"),
        ({"rate_hz": float("nan")}, "rate_hz must be a positive number"),
        ({"rate_hz": "fast"}, "got 'fast'"),
    ],
)
def test_columns_that_make_no_sense_are_refused(wrong: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"windows": np.ones((4, 8)), "scores": [0, 1, 2, 1], "rate_hz": 100.0}
    Dataset(**good, unit="pA")
    with pytest.raises(UsageError, match=message):
        Dataset(**{**good, **wrong}, unit="pA")


def test_a_column_of_columns_is_taken_as_it_is_meant() -> None:
    one = Dataset(windows=np.ones((3, 8, 1)), scores=[[0], [1], [2]], rate_hz=1.0, unit="")
    assert one.windows.shape == (3, 8)
    assert one.scores.tolist() == [0, 1, 2]


def test_the_summary_counts_what_is_there() -> None:
    facts = dataset({"a": (3, 2, 1), "b": (1, 4, 0)}).summary()
    assert (facts["windows"], facts["noise"], facts["events"], facts["excluded"]) == (11, 4, 6, 1)
    assert facts["cells"] == {"a": 6, "b": 5}
    assert facts["kinds"] == {"clear": 6, "noise": 4, "unclear": 1}
    assert (facts["length_samples"], facts["window_ms"], facts["unit"]) == (60, 12.0, "pA")
    assert (
        "6 events, 4 noise, 1 excluded, from 2 cells"
        in dataset({"a": (3, 2, 1), "b": (1, 4, 0)}).describe()
    )
    assert dataset()[[]].summary()["median_range"] is None


def test_what_is_excluded_flat_or_missing_is_not_learnt_from() -> None:
    whole = dataset({"a": (2, 2, 1)})
    windows = whole.windows.copy()
    windows[0] = 3.0
    windows[1, 5] = np.nan
    usable = replace(whole, windows=windows).labelled()
    assert_same(usable, whole[[2, 3]])


# Files


def test_a_dataset_comes_back_as_it_was_written(tmp_path: Path) -> None:
    whole = replace(dataset(), cells=np.array(["Zelle ä", *["b"] * 51]), unit="µV")
    save_dataset(whole, tmp_path / "whole.h5")
    found = read_dataset(tmp_path / "whole.h5")
    assert_same(found, whole)
    assert found.provenance == {"made_by": "a test"}
    assert_same(read_dataset(tmp_path / "whole.h5", rate_hz=5_000, unit="µV"), whole)
    save_dataset(whole[[]], tmp_path / "empty.h5")
    assert len(read_dataset(tmp_path / "empty.h5")) == 0


def test_a_written_dataset_has_the_layout_of_the_field(tmp_path: Path) -> None:
    whole = dataset()
    save_dataset(whole, tmp_path / "whole.h5")
    with h5py.File(tmp_path / "whole.h5") as file:
        assert {"events", "scores", "raw_indices", "cell_label"} <= set(file)
        assert file["events"].shape == (52, 60)
        assert file["scores"][()].tolist() == whole.scores.tolist()
        assert file["cell_label"].asstr()[()].tolist() == whole.cells.tolist()


def foreign(path: Path, **other: Any) -> Path:
    """A file as miniML's scoring leaves it, with columns replaced or (None) left out."""
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {
        "events": rng.normal(0, 1, (4, 600)),
        "scores": np.array([0, 1, 2, 1], np.int64),
        "raw_indices": np.array([10, 20, 30, 40], np.int64),
        "cell_label": np.array([b"one", b"one", b"two", b"two"], "S40"),
        **other,
    }
    with h5py.File(path, "w") as file:
        for name, values in columns.items():
            if values is not None:
                file[name] = values
    return path


def test_a_file_of_another_program_is_read_once_told_its_rate_and_unit(tmp_path: Path) -> None:
    path = foreign(tmp_path / "other.h5")
    found = read_dataset(path, rate_hz=50_000, unit="pA")
    assert found.windows.shape == (4, 600)
    assert found.windows.dtype == np.float32
    assert found.scores.tolist() == [0, 1, 2, 1]
    assert found.cells.tolist() == ["one", "one", "two", "two"]
    assert found.raw_indices.tolist() == [10, 20, 30, 40]
    assert found.window_ms == 12.0
    assert found.provenance == {"file": "other.h5"}


@pytest.mark.parametrize(
    ("given", "option"), [({"rate_hz": 50_000.0}, "--unit"), ({"unit": "pA"}, "--rate-hz")]
)
def test_rate_and_unit_are_never_assumed(
    tmp_path: Path, given: dict[str, Any], option: str
) -> None:
    with pytest.raises(ReadError, match=f"never assumed: give {option}"):
        read_dataset(foreign(tmp_path / "other.h5"), **given)


@pytest.mark.parametrize("given", [{"rate_hz": 20_000.0}, {"unit": "mV"}])
def test_what_contradicts_the_file_is_refused(tmp_path: Path, given: dict[str, Any]) -> None:
    save_dataset(dataset(), tmp_path / "whole.h5")
    with pytest.raises(UsageError, match="leave out --"):
        read_dataset(tmp_path / "whole.h5", **given)


def test_windows_without_labels_are_of_one_cell_named_after_the_file(tmp_path: Path) -> None:
    path = foreign(tmp_path / "monday.h5", cell_label=None, raw_indices=None)
    found = read_dataset(path, rate_hz=50_000, unit="pA")
    assert found.cells.tolist() == [f"{tmp_path.name}/monday"] * 4
    assert found.raw_indices.tolist() == [UNKNOWN] * 4


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"events": None}, "holds no 'events'.*It holds: cell_label, raw_indices, scores"),
        ({"scores": None}, "holds no 'scores'"),
        ({"events": np.array([b"a", b"b", b"c", b"d"])}, "not numbers"),
        ({"scores": np.array([b"0", b"1", b"1", b"0"])}, "not numbers"),
        ({"raw_indices": np.array([b"a", b"b", b"c", b"d"])}, "raw_indices"),
        ({"raw_indices": np.array([0.5, 1, 2, 3])}, "raw_indices"),
        ({"raw_indices": np.array([np.nan, 1, 2, 3])}, "raw_indices"),
        ({"raw_indices": np.arange(3)}, r"4 windows but raw_indices of shape \(3,\)"),
        ({"cell_label": np.array([b"one"])}, r"4 windows but cells of shape \(1,\)"),
        ({"scores": np.array([0, 1])}, r"4 windows but scores of shape \(2,\)"),
        ({"scores": np.array([0, 1, 5, 1])}, "got 5"),
        ({"events": np.zeros((2, 3, 4, 600))}, r"\(2, 3, 4, 600\)"),
        ({"events": np.zeros(())}, r"numbers \(n, length\)"),
    ],
)
def test_a_file_whose_columns_make_no_sense_is_refused_by_name(
    tmp_path: Path, other: dict[str, Any], message: str
) -> None:
    path = foreign(tmp_path / "other.h5", **other)
    with pytest.raises((ReadError, UsageError), match=message) as caught:
        read_dataset(path, rate_hz=50_000, unit="pA")
    assert "other.h5" in str(caught.value)


@pytest.mark.parametrize("rate", ["fast", -5.0, np.zeros(3)])
def test_a_rate_in_the_file_that_is_none_is_refused(tmp_path: Path, rate: Any) -> None:
    path = foreign(tmp_path / "other.h5")
    with h5py.File(path, "a") as file:
        file.attrs["rate_hz"] = rate
    with pytest.raises((ReadError, UsageError), match="rate_hz"):
        read_dataset(path, unit="pA")


def test_a_group_where_a_column_should_be_is_refused(tmp_path: Path) -> None:
    path = foreign(tmp_path / "other.h5", events=None)
    with h5py.File(path, "a") as file:
        file.create_group("events")
    with pytest.raises(ReadError, match="holds no 'events'"):
        read_dataset(path, rate_hz=1.0, unit="pA")


def test_what_is_no_dataset_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="there is no file"):
        read_dataset(tmp_path / "nowhere.h5")
    (tmp_path / "text.h5").write_text("event,score\n")
    with pytest.raises(ReadError, match=r"text\.h5 cannot be read as a dataset"):
        read_dataset(tmp_path / "text.h5")
    save_dataset(dataset(), tmp_path / "whole.h5")
    whole = (tmp_path / "whole.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ReadError, match=r"cut\.h5 cannot be read as a dataset"):
        read_dataset(tmp_path / "cut.h5")


def test_damage_within_a_file_is_noticed(tmp_path: Path) -> None:
    whole = dataset({"a": (200, 200, 0)}, length=600)
    save_dataset(whole, tmp_path / "whole.h5")
    content = bytearray((tmp_path / "whole.h5").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2_000] = bytes(2_000)
    (tmp_path / "damaged.h5").write_bytes(content)
    with pytest.raises(ReadError, match="cannot be read as a dataset"):
        read_dataset(tmp_path / "damaged.h5")


def test_real_windows_of_another_program_are_read_as_they_are(shared: Path) -> None:
    path = shared / "miniml" / "B_2020-06-09_002_example_training_data.h5"
    if not path.is_file():
        pytest.skip("needs miniML's example windows in shared/miniml")
    found = read_dataset(path, rate_hz=50_000, unit="pA")
    facts = found.summary()
    assert (facts["events"], facts["noise"], facts["excluded"]) == (86, 86, 358)
    assert facts["window_ms"] == 12.0
    assert len(facts["cells"]) == 1
    assert polarity(found) == "negative"


# Many and parts


def test_merging_keeps_every_window_once() -> None:
    whole = dataset()
    merged = merge([whole[:30], whole[20:], whole[[0, 51]]])
    assert_same(merged, whole)


def test_windows_of_unknown_place_are_the_same_if_their_samples_are() -> None:
    whole = replace(dataset(), raw_indices=np.full(52, UNKNOWN))
    assert_same(merge([whole, whole[10:20]]), whole)


def test_the_same_place_in_another_cell_is_another_window() -> None:
    first, second = dataset({"a": (2, 2, 0)}), dataset({"b": (2, 2, 0)}, seed=1)
    assert first.raw_indices.tolist() == second.raw_indices.tolist()
    assert len(merge([first, second])) == 8


def test_two_recordings_of_one_name_lose_nothing() -> None:
    first, second = dataset({"a": (2, 2, 0)}), dataset({"a": (2, 2, 0)}, seed=1)
    assert first.raw_indices.tolist() == second.raw_indices.tolist()
    assert len(merge([first, second])) == 8


def test_of_a_window_and_its_scored_copy_the_scored_one_stays() -> None:
    scored = dataset({"a": (3, 3, 0)})
    waiting = replace(scored, scores=np.full(6, 2))
    assert_same(merge([waiting, scored]), scored)


def test_a_window_flat_but_for_rounding_is_not_labelled() -> None:
    whole = dataset({"a": (2, 2, 0)})
    windows = whole.windows.copy()
    windows[0] = 20_000.0
    windows[0, 5] = np.nextafter(np.float32(20_000), np.float32(np.inf))
    usable = replace(whole, windows=windows).labelled()
    assert len(usable) == 3
    assert scaled(usable.windows, 600).shape == (3, 600)


def test_events_that_oppose_the_average_are_counted() -> None:
    whole = simulate_dataset(PREPARATIONS["epsp"], windows=120, cells=2, seed=4)
    assert opposed(whole) < 0.1
    windows = whole.windows.copy()
    events = np.flatnonzero(whole.scores == 1)
    windows[events[: len(events) // 3]] *= -1
    assert opposed(replace(whole, windows=windows)) == pytest.approx(1 / 3, abs=0.1)


def test_windows_of_equal_duration_and_other_length_are_merged() -> None:
    coarse = dataset({"a": (3, 3, 0)}, length=60)
    fine = replace(dataset({"b": (3, 3, 0)}, length=600, seed=1), rate_hz=50_000.0)
    merged = merge([coarse, fine])
    assert merged.windows.shape == (12, 60)
    assert (merged.rate_hz, merged.window_ms) == (5_000.0, 12.0)
    assert_array_equal(merged.windows[:6], coarse.windows)
    assert_array_equal(merged.windows[6:], resized(fine.windows, 60))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"rate_hz": 4_000.0}, "15 ms do not go with windows of 12 ms"), ({"unit": "nA"}, "'nA'")],
)
def test_windows_that_do_not_go_together_are_not_merged(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        merge([dataset(), replace(dataset(), **change)])


def test_merging_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="no dataset"):
        merge([])


def test_balancing_thins_the_more_frequent_kind_and_leaves_out_the_excluded() -> None:
    whole = dataset({"a": (30, 8, 5)})
    found = balanced(whole, seed=1)
    assert np.bincount(found.scores).tolist() == [8, 8]
    assert set(whole.raw_indices[whole.scores == EVENT]) <= set(found.raw_indices)
    assert len(set(found.raw_indices)) == 16
    assert_same(balanced(whole, seed=1), found)
    assert balanced(whole, seed=2).raw_indices.tolist() != found.raw_indices.tolist()
    with pytest.raises(UsageError, match="cannot be balanced"):
        balanced(whole[whole.scores == NOISE])


MANY = {f"cell {i}": (5 + 3 * i, 4 + 2 * i, i) for i in range(8)}


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_a_split_by_cell_never_shares_a_cell(share: float, seed: int) -> None:
    whole = dataset(MANY)
    training, held = split(whole, validation=share, seed=seed)
    assert not set(training.cells) & set(held.cells)
    assert set(training.cells) | set(held.cells) == set(MANY)
    assert len(training) + len(held) == len(whole)
    for part in (training, held):
        assert {NOISE, EVENT} <= set(part.scores.tolist())
    assert len(held) / len(whole) == pytest.approx(share, abs=0.05)


def test_a_split_is_drawn_by_its_seed() -> None:
    whole = dataset(MANY)
    first, again = split(whole, seed=1)[1], split(whole, seed=1)[1]
    assert_same(first, again)
    drawn = {tuple(sorted(set(split(whole, seed=s)[1].cells.tolist()))) for s in range(8)}
    assert len(drawn) > 1


def test_both_sides_of_a_split_get_events_and_noise_where_only_one_division_allows_it() -> None:
    whole = dataset({"a": (5, 0, 0), "b": (0, 5, 0), "c": (5, 5, 0)})
    training, held = split(whole, validation=0.5)
    for part in (training, held):
        assert {NOISE, EVENT} <= set(part.scores.tolist())


def test_a_split_by_window_takes_its_share_of_every_score() -> None:
    whole = dataset({"a": (40, 20, 8)})
    training, held = split(whole, validation=0.25, by="window", seed=3)
    assert np.bincount(held.scores).tolist() == [10, 5, 2]
    places = [*training.raw_indices, *held.raw_indices]
    assert sorted(places) == whole.raw_indices.tolist()


@pytest.mark.parametrize(
    ("counts", "how", "message"),
    [
        ({"a": (9, 9, 0)}, {}, r"of one cell \(a\).*another recording, or split by window"),
        ({"a": (9, 0, 0), "b": (0, 9, 0)}, {}, "part would hold no events or no noise"),
        ({"a": (9, 1, 0)}, {"by": "window"}, "would hold no events or no noise"),
        (MANY, {"validation": 0.0}, "share between 0 and 1, got 0.0"),
        (MANY, {"validation": 1.0}, "share between 0 and 1"),
        (MANY, {"validation": float("nan")}, "share between 0 and 1"),
        (MANY, {"by": "sweep"}, "cell or window, got 'sweep'"),
    ],
)
def test_a_split_that_cannot_be_is_refused(
    counts: dict[str, tuple[int, int, int]], how: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        split(dataset(counts), **how)


def test_no_window_at_all_cannot_be_split() -> None:
    with pytest.raises(UsageError, match=r"0 windows are of one cell \(none\)"):
        split(dataset()[[]])


@pytest.mark.parametrize("by", ["cell", "window"])
def test_folds_hold_every_window_once(by: str) -> None:
    whole = dataset(MANY)
    held_out: list[int] = []
    for training, held in folds(whole, 4, by=by, seed=1):
        assert len(training) + len(held) == len(whole)
        assert not set(training.raw_indices) & set(held.raw_indices)
        assert {NOISE, EVENT} <= set(held.scores.tolist())
        if by == "cell":
            assert not set(training.cells) & set(held.cells)
        held_out += held.raw_indices.tolist()
    assert sorted(held_out) == whole.raw_indices.tolist()


@pytest.mark.parametrize(
    ("counts", "count", "by", "message"),
    [
        (MANY, 1, "cell", "at least 2 folds, got 1"),
        (MANY, 9, "cell", "at least 9 cells, there are 8"),
        (MANY, 3, "sweep", "cell or window"),
        ({"a": (2, 2, 0)}, 5, "window", "at least 5 windows, there are 4"),
        ({"a": (9, 3, 0)}, 4, "window", "events"),
        ({"a": (3, 9, 0)}, 4, "window", "noise"),
        ({"a": (9, 9, 0), "b": (9, 0, 0), "c": (9, 0, 0)}, 3, "cell", "events"),
    ],
)
def test_folds_that_cannot_be_are_refused(
    counts: dict[str, tuple[int, int, int]], count: int, by: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        list(folds(dataset(counts), count, by=by))


def test_a_few_excluded_windows_do_not_hinder_folds() -> None:
    assert len(list(folds(dataset({"a": (9, 9, 1)}), 3, by="window"))) == 3


@pytest.mark.parametrize(
    ("counts", "warned"),
    [
        ((30, 30, 0), ""),
        ((30, 10, 50), ""),
        ((31, 10, 0), "24 % of the windows are events"),
        ((10, 90, 0), "10 % of the windows are noise"),
        ((10, 0, 0), "0 % of the windows are events"),
    ],
)
def test_a_rare_kind_is_warned_of(counts: tuple[int, int, int], warned: str) -> None:
    text = imbalance(dataset({"a": counts}))
    assert warned in text
    assert bool(text) == bool(warned)


# What a network reads


def test_a_network_reads_windows_from_0_to_1() -> None:
    whole = dataset()
    found = scaled(whole.windows, 60)
    assert found.dtype == np.float32
    assert_array_equal(found.min(axis=1), 0)
    assert_array_equal(found.max(axis=1), 1)
    assert_allclose(scaled(whole.windows, 60, -1), 1 - found, atol=1e-6)
    assert scaled(whole.windows[:0], 60).shape == (0, 60)


@pytest.mark.parametrize("spoil", [np.nan, np.inf])
def test_what_cannot_be_scaled_is_refused(spoil: float) -> None:
    windows = dataset().windows.copy()
    windows[3, 7] = spoil
    windows[4] = 2.0
    with pytest.raises(UsageError, match="2 windows are flat or hold missing samples"):
        scaled(windows, 60)


def test_training_reads_a_window_as_detection_does() -> None:
    """Cut first and resampled then, or the other way round: the same, away from the ends."""
    rng = np.random.default_rng(0)
    samples = resample(rng.normal(-20, 3, 500).astype(np.float32), 2, 1)
    trace = resample(samples, 600, 60)
    starts = np.arange(0, 900, 45)
    windows = samples[starts[:, None] + np.arange(60)]
    seen = trace[10 * starts[:, None] + np.arange(600)]
    middle = slice(150, 450)
    assert_allclose(resized(windows, 600)[:, middle], seen[:, middle], atol=1e-3)


@pytest.mark.parametrize(("old", "new"), [(60, 600), (600, 60), (3_000, 600), (80, 600), (7, 600)])
def test_a_resized_window_has_its_length_and_keeps_a_constant(old: int, new: int) -> None:
    found = resized(np.full((3, old), -70.0, np.float32), new)
    assert found.shape == (3, new)
    assert_allclose(found, -70.0, rtol=1e-6)


def test_training_arrays_are_those_of_the_labelled_windows() -> None:
    whole = dataset({"a": (4, 3, 2)})
    windows, labels = training_arrays(whole, 600, -1)
    assert windows.shape == (7, 600)
    assert labels.dtype == np.float32
    assert labels.tolist() == [0] * 4 + [1] * 3
    expected, _ = cut_windows(-resized(whole.windows[:1], 600)[0], 0, 1, 1, 600)
    assert_array_equal(windows[0], expected[0])


@pytest.mark.parametrize(("sign", "word"), [(1.0, "positive"), (-1.0, "negative")])
@pytest.mark.parametrize("offset", [-70.0, 0.0, 300.0])
def test_polarity_is_where_the_events_point(sign: float, word: str, offset: float) -> None:
    whole = dataset(sign=sign)
    assert polarity(replace(whole, windows=whole.windows + np.float32(offset))) == word


def test_polarity_needs_an_event() -> None:
    whole = dataset()
    with pytest.raises(UsageError, match="no window is scored as an event"):
        polarity(whole[whole.scores != EVENT])

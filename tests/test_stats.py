"""Group statistics: against SciPy's own tests and formulas, in groups of known difference."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from scipy import stats as scipy_stats

from quantal import stats
from quantal.cli import main
from quantal.errors import UsageError
from quantal.stats import MEASURES, cohens_d, compare, render

ONES = np.ones(3)


def run(*arguments: object) -> Result:
    """One command, with stdout and stderr apart."""
    return CliRunner().invoke(main, [str(a) for a in arguments])


def one(first: Any, second: Any, **options: Any) -> Any:
    """The comparison of two groups."""
    groups = {"a": np.asarray(first, float), "b": np.asarray(second, float)}
    (row,) = compare({"frequency_hz": groups}, **options).rows
    return row


def test_a_case_that_fits_in_the_head() -> None:
    row = one([1, 2, 3], [11, 12, 13])
    assert (row.mean_control, row.mean, row.difference) == (2, 12, 10)
    assert row.cohens_d == pytest.approx(10)  # both SDs are 1
    assert row.p == pytest.approx(2 / 20)  # of the 20 ways to part six numbers, two are so extreme
    assert row.control == "a"
    assert (row.n_control, row.n) == (3, 3)


def test_p_is_that_of_a_permuted_t_test_and_near_the_t_test() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 1, 12), rng.normal(0.9, 1, 15)
    row = one(first, second)
    assert row.p == pytest.approx(scipy_stats.ttest_ind(first, second).pvalue, abs=0.01)
    assert 0.001 < row.p < 0.2
    assert one(first, second, seed=1).p == pytest.approx(row.p, abs=0.02)
    assert one(first, second) == row


def test_d_is_the_difference_in_pooled_sds() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(0, 1, 9), rng.normal(1, 2, 14)
    pooled = math.sqrt((8 * np.var(first, ddof=1) + 13 * np.var(second, ddof=1)) / 21)
    row = one(first, second)
    assert row.cohens_d == pytest.approx((second.mean() - first.mean()) / pooled)
    assert row.d_low < row.cohens_d < row.d_high
    back = one(second, first)
    assert back.cohens_d == pytest.approx(-row.cohens_d)
    assert math.isnan(cohens_d(np.ones(3), np.full(3, 2.0)))


def test_the_unit_does_not_matter() -> None:
    rng = np.random.default_rng(2)
    first, second = rng.normal(-20, 3, 8), rng.normal(-24, 3, 8)
    in_pa, in_amperes = one(first, second), one(1e-12 * first, 1e-12 * second)
    for name in ("cohens_d", "d_low", "d_high", "p"):
        assert getattr(in_amperes, name) == pytest.approx(getattr(in_pa, name), rel=1e-6)


@pytest.mark.slow
def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for seed in range(200):
        row = one(rng.normal(0, 1, 25), rng.normal(0.8, 1, 25), resamples=1000, seed=seed)
        hits += row.d_low <= 0.8 <= row.d_high
    assert 0.9 <= hits / 200 <= 0.99


@pytest.mark.slow
def test_p_is_uniform_where_groups_do_not_differ() -> None:
    rng = np.random.default_rng(4)
    p = [one(rng.normal(size=8), rng.normal(size=8), resamples=999).p for _ in range(200)]
    assert scipy_stats.kstest(p, "uniform").pvalue > 0.01


@pytest.mark.parametrize(
    ("first", "second", "n"),
    [([], [1, 2, 3], (0, 3)), ([1, 2], [3, 4, 5], (2, 3)), ([1, math.nan, 2], [3, 4, 5], (2, 3))],
)
def test_too_few_recordings_have_no_test(first: Any, second: Any, n: tuple[int, int]) -> None:
    row = one(first, second)
    assert (row.n_control, row.n) == n
    for name in ("cohens_d", "d_low", "d_high", "p"):
        assert math.isnan(getattr(row, name))


def test_equal_values_have_no_effect_size_but_a_p() -> None:
    row = one([2, 2, 2, 2], [2, 2, 2])
    assert math.isnan(row.cohens_d)
    assert row.p == 1
    row = one([0, 0, 0, 0], [0, 0, 0, 5])  # silent cells
    assert row.cohens_d > 0
    assert row.p == pytest.approx(1)


@pytest.mark.parametrize("n", [3, 4, 5, 6])
def test_small_groups_have_an_interval(n: int) -> None:
    rng = np.random.default_rng(n)
    for _ in range(5):
        row = one(rng.normal(0, 1, n), rng.normal(1, 1, n))
        assert row.d_low < row.cohens_d < row.d_high
        assert not row.note


@pytest.mark.parametrize(
    ("first", "second", "has_interval", "words"),
    [
        ([0, 0, 0, 0], [0, 0, 4, 5], True, r"^\d+ of 5000 resamples left out, nothing scatters"),
        ([0, 0, 0, 0], [0, 0, 0, 5], False, "^too few different values for an interval$"),
        ([0.1, 0.1, 0.1], [0.3, 0.3, 0.3], False, "^nothing scatters$"),  # nor does rounding
        ([1, 2], [1, 2, 3], False, "^fewer than 3 recordings in a group$"),
    ],
)
def test_why_there_is_no_interval_is_said(
    first: list[float], second: list[float], has_interval: bool, words: str
) -> None:
    row = one(first, second)
    assert math.isfinite(row.d_low) == math.isfinite(row.d_high) == has_interval
    assert re.search(words, row.note)
    found = compare({"x": {"a": np.asarray(first, float), "b": np.asarray(second, float)}})
    assert row.note in render(found)


def test_the_means_show_which_way_a_difference_points() -> None:
    smaller = {"amplitude_median": {"control": np.array([-15, -15.5, -16]), "drug": -7.7 * ONES}}
    found = compare(smaller, control="control", resamples=100)
    title, line, *_ = render(found).splitlines()
    assert line[title.index("means") :].startswith("-15.5 -> -7.7  ")
    (silent,) = compare({"x": {"a": ONES, "b": np.array([np.nan])}}, resamples=100).rows
    assert " 1 -> - " in stats._lines(silent)[0]


def test_all_pairs_or_each_with_the_control() -> None:
    values = {"x": {name: np.arange(4.0) for name in ("c", "a", "b")}}
    pairs = [(row.control, row.group) for row in compare(values, resamples=100).rows]
    assert pairs == [("c", "a"), ("c", "b"), ("a", "b")]
    pairs = [(row.control, row.group) for row in compare(values, control="a", resamples=100).rows]
    assert pairs == [("a", "c"), ("a", "b")]
    with pytest.raises(UsageError, match="there is no group 'd'; there are c, a, b"):
        compare(values, control="d")
    with pytest.raises(UsageError, match="resamples must be 100 or more"):
        compare(values, resamples=10)
    with pytest.raises(UsageError, match="two groups"):
        compare({"x": {"a": np.arange(3.0)}})


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A table of recordings in which ko has twice the frequency, one failed and one is silent."""
    rng = np.random.default_rng(5)
    names = ["file", "group", "status", "unit", "sex", *MEASURES]
    rows = [",".join(names)]
    for k in range(20):
        group = ("wt", "ko")[k % 2]
        measures = [f"{rng.normal(2 + 2 * (k % 2), 0.5):.6g}" for _ in MEASURES]
        rows.append(",".join([f"{group}/{k}.abf", group, "done", "pA", "mf"[k // 10], *measures]))
    rows.append(",".join(["wt/x.abf", "wt", "failed", "", "m", *[""] * len(MEASURES)]))
    rows.append(",".join(["wt/y.abf", "wt", "done", "pA", "m", "0", *[""] * (len(MEASURES) - 1)]))
    rows.append(",".join(["z.abf", "", "done", "pA", "m", *["9"] * len(MEASURES)]))
    (tmp_path / "recordings.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_the_command_writes_a_table_and_a_picture(results: Path) -> None:
    result = run("stats", results, "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    with (results / "stats.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["measure"] for row in rows] == list(MEASURES)
    assert {(row["control"], row["group"]) for row in rows} == {("ko", "wt")}
    frequency, amplitude = rows[0], rows[1]
    assert (frequency["n_control"], frequency["n"]) == ("10", "11")  # the silent one counts
    assert amplitude["n"] == "10"  # and has no amplitude
    assert float(frequency["cohens_d"]) < -1
    assert float(frequency["p"]) < 0.01
    assert answer["comparisons"][0]["p"] == pytest.approx(float(frequency["p"]))
    assert (results / "stats.png").read_bytes().startswith(b"\x89PNG")
    text = run("stats", results, "--control", "wt", "--measure", "frequency_hz").stdout
    assert "wt -> ko" in text
    assert len(text.splitlines()) == 3


def test_another_column_groups_and_another_folder_takes_it(results: Path, tmp_path: Path) -> None:
    table, out = results / "recordings.csv", tmp_path / "out"
    call = ("stats", table, "--group", "sex", "--out", out, "--measure", "frequency_hz", "--json")
    result = run(*call)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["comparisons"][0]["control"] == "f"
    assert {path.name for path in out.iterdir()} == {"stats.csv", "stats.png"}


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--measure", "charge"], 2, "has no column 'charge'"),
        (["--group", "colour"], 2, "has no column 'colour'"),
        (["--group", "unit"], 2, "there must be two groups to compare, got pA"),
        (["--measure", "unit"], 2, "unit holds no numbers"),
        (["--control", "het"], 2, "there is no group 'het'; there are ko, wt"),
    ],
)
def test_what_is_wrong_is_said(results: Path, options: list[str], code: int, words: str) -> None:
    result = run("stats", results, *options)
    assert result.exit_code == code
    assert words in result.stderr
    assert not (results / "stats.csv").exists()


def test_units_are_not_mixed(results: Path) -> None:
    table = results / "recordings.csv"
    table.write_text(table.read_text().replace("done,pA", "done,mV", 1))
    result = run("stats", results)
    assert result.exit_code == 2
    assert "amplitude_median cannot be compared: recordings have the units mV, pA" in result.stderr
    assert run("stats", results, "--measure", "frequency_hz").exit_code == 0


def test_a_folder_without_a_batch_is_said(tmp_path: Path) -> None:
    result = run("stats", tmp_path)
    assert result.exit_code == 3
    assert "quantal batch FOLDER" in result.stderr


def test_the_control_is_drawn_on_the_left_and_units_are_named() -> None:
    values = {"amplitude_median": {"ko": np.arange(4.0), "wt": np.arange(4.0) + 1}}
    found = compare(values, control="wt", resamples=100)
    assert list(stats._control_first(found, "amplitude_median")) == ["wt", "ko"]
    assert stats._titled("amplitude_median", "pA") == "amplitude_median (pA)"
    assert stats._titled("negative_area_median", "pA") == "negative_area_median (pA s)"
    assert stats._titled("slope_per_ms_mean", "mV") == "slope_per_ms_mean (mV/ms)"
    for without in ("frequency_hz", "amplitude_cv", "half_decay_ms_median"):
        assert stats._titled(without, "pA") == without

"""Peaks: SciPy's answers to the last bit, and stretches of scores drawn by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import ndimage, signal

from quantal.errors import UsageError
from quantal.peaks import PointFinder, find_peaks, find_points, find_stretches, maximum_filter

Floats = NDArray[np.float64]

LEVELS = st.integers(-2, 3).map(float)  # many ties and flat tops
ODD = st.sampled_from([0.0, 1.0, np.nan, np.inf, -np.inf])
SIGNALS = st.one_of(
    arrays(np.float64, st.integers(0, 60), elements=st.floats(-1e3, 1e3)),
    arrays(np.float64, st.integers(0, 60), elements=LEVELS),
    arrays(np.float64, st.integers(0, 60), elements=st.one_of(LEVELS, ODD)),
)


@settings(max_examples=200, deadline=None)
@given(values=SIGNALS, size=st.integers(1, 9))
@example(values=np.zeros(0), size=5)
@example(values=np.array([1.0]), size=9)
def test_the_maximum_filter_equals_scipys(values: Floats, size: int) -> None:
    found = maximum_filter(values, size)
    if not len(values):
        assert found.shape == (0,)
        return
    np.testing.assert_array_equal(
        found, ndimage.maximum_filter1d(values, size, mode="reflect") if size > 1 else values
    )


@settings(max_examples=200, deadline=None)
@given(
    values=SIGNALS,
    height=st.floats(-2, 3),
    prominence=st.floats(0, 3),
    width=st.floats(0, 8),
)
def test_peaks_equal_scipys(values: Floats, height: float, prominence: float, width: float) -> None:
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # an infinite peak has no width
        expected, properties = signal.find_peaks(
            values, height=height, prominence=prominence, width=width
        )
        found = find_peaks(values, height=height, prominence=prominence, width=width)
    np.testing.assert_array_equal(found.position, expected)
    np.testing.assert_array_equal(found.height, properties["peak_heights"])
    np.testing.assert_array_equal(found.prominence, properties["prominences"])
    np.testing.assert_array_equal(found.left, properties["left_ips"])
    np.testing.assert_array_equal(found.right, properties["right_ips"])
    np.testing.assert_array_equal(found.right - found.left, properties["widths"])


def test_peaks_of_a_long_random_walk_equal_scipys() -> None:
    walk = np.cumsum(np.random.default_rng(1).normal(size=3_000)) + 40
    expected, properties = signal.find_peaks(walk, height=0, prominence=2, width=3)
    found = find_peaks(walk, height=0, prominence=2, width=3)
    assert len(expected) > 10
    np.testing.assert_array_equal(found.position, expected)
    np.testing.assert_array_equal(found.left, properties["left_ips"])
    np.testing.assert_array_equal(found.right, properties["right_ips"])


def test_a_hand_drawn_peak() -> None:
    found = find_peaks([0.0, 1.0, 4.0, 4.0, 4.0, 2.0, 0.0], height=1, prominence=1, width=1)
    assert found.position.tolist() == [3]  # the middle of the flat top
    assert found.height.tolist() == [4]
    assert found.prominence.tolist() == [4]
    assert found.left.tolist() == [pytest.approx(1 + 1 / 3)]
    assert found.right.tolist() == [5]


def test_neither_filter_nor_peaks_write_their_input() -> None:
    values = np.random.default_rng(2).normal(size=50)
    values.setflags(write=False)
    filtered = maximum_filter(values, 1)
    filtered[0] = 99
    assert values[0] != 99
    find_peaks(values, height=0, prominence=0, width=0)


def test_a_filter_without_a_size_is_refused() -> None:
    with pytest.raises(UsageError, match="size must be positive, got 0"):
        maximum_filter(np.ones(3), 0)


def scores(*parts: tuple[float, int]) -> NDArray[np.float32]:
    """Scores drawn as (value, how often)."""
    return np.concatenate([np.full(n, value, np.float32) for value, n in parts])


def test_a_stretch_of_high_scores_is_one_stretch_with_its_edges() -> None:
    found = find_stretches(scores((0, 20), (0.9, 10), (0, 20)), 0.5)
    assert found.position.tolist() == [24]  # the filter widens 20..29 to 18..31
    assert found.height.tolist() == [np.float32(0.9)]
    assert found.left.tolist() == [17.5]
    assert found.right.tolist() == [31.5]


def test_a_single_low_score_does_not_break_a_stretch() -> None:
    found = find_stretches(scores((0, 10), (1, 6), (0, 1), (1, 6), (0, 10)), 0.5)
    assert len(found.position) == 1


def test_a_long_gap_makes_two_stretches() -> None:
    found = find_stretches(scores((0, 10), (1, 6), (0, 8), (1, 6), (0, 10)), 0.5)
    assert len(found.position) == 2
    assert (found.right[0], found.left[1]) == (17.5, 21.5)


def test_scores_below_the_threshold_hold_nothing() -> None:
    assert len(find_stretches(scores((0, 10), (0.49, 10), (0, 10)), 0.5).position) == 0
    assert len(find_stretches(scores((0, 10), (0.5, 10), (0, 10)), 0.5).position) == 1


def test_scores_below_a_twentieth_of_the_threshold_are_as_good_as_0() -> None:
    silent = find_stretches(scores((0, 9), (0.9, 10), (0.024, 20), (0.95, 10), (0, 9)), 0.5)
    assert silent.prominence.tolist() == [np.float32(0.9), np.float32(0.95)]
    heard = find_stretches(scores((0, 9), (0.9, 10), (0.026, 20), (0.95, 10), (0, 9)), 0.5)
    assert heard.prominence[0] == np.float32(0.9) - np.float64(np.float32(0.026))


def test_a_bump_on_a_high_pedestal_is_not_prominent_enough() -> None:
    found = find_stretches(scores((0, 10), (0.6, 10), (0.9, 10), (0.6, 10), (0, 10)), 0.5)
    assert found.position.tolist() == [24]
    assert found.left.tolist() == [pytest.approx(7.5 + 0.25)]  # 0.45 on the way to 0.6


@pytest.mark.parametrize("n", [1, 3, 10])
def test_a_stretch_at_either_end_is_kept(n: int) -> None:
    at_start = find_stretches(scores((0.9, n), (0, 40)), 0.5)
    at_end = find_stretches(scores((0, 40), (0.9, n)), 0.5)
    inside = find_stretches(scores((0, 40), (0.9, n), (0, 40)), 0.5)
    assert at_start.position.tolist() == [(n - 1) // 2]
    assert at_start.right.tolist() == [n + 1.5]
    assert at_end.position.tolist() == inside.position.tolist()
    assert at_end.left.tolist() == inside.left.tolist()


def test_scores_that_are_high_all_along_are_one_stretch() -> None:
    found = find_stretches(scores((0.9, 30)), 0.5)
    assert len(found.position) == 1
    assert found.left[0] <= 0
    assert found.right[0] >= 29


def test_unscored_stretches_count_as_zero() -> None:
    gap = scores((0, 10), (0.9, 8), (np.nan, 6), (0.9, 8), (0, 10))
    found = find_stretches(gap, 0.5)
    expected = find_stretches(np.nan_to_num(gap), 0.5)
    assert len(found.position) == 2
    np.testing.assert_array_equal(found.left, expected.left)
    assert np.isnan(gap).sum() == 6
    assert len(find_stretches(scores((np.nan, 20)), 0.5).position) == 0


def test_no_scores_hold_no_stretch() -> None:
    assert len(find_stretches(np.empty(0, np.float32), 0.5).position) == 0


@pytest.mark.parametrize("threshold", [0, 1, -0.1, 1.5, float("nan"), float("inf")])
def test_a_threshold_outside_0_to_1_is_refused(threshold: float) -> None:
    with pytest.raises(UsageError, match=r"threshold must lie between 0 and 1, got .*try 0\.5"):
        find_stretches(np.zeros(5, np.float32), threshold)


SCORES = st.integers(-1, 16).map(lambda i: np.nan if i < 0 else i / 16)  # with ties and gaps


def settled_points(values: NDArray[np.float32], threshold: float) -> list[tuple[int, float]]:
    """By SciPy, with zeros beyond the ends."""
    scores = np.pad(np.nan_to_num(values, nan=0.0).astype(np.float64), 1)
    at, _ = signal.find_peaks(scores, height=threshold, prominence=0.5 * threshold)
    return [(int(i) - 1, float(scores[i])) for i in at]


@settings(max_examples=300, deadline=None)
@given(
    values=arrays(np.float32, st.integers(0, 60), elements=SCORES),
    threshold=st.sampled_from([0.0625, 0.25, 0.5, 0.75]),
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=4),
)
def test_points_are_peaks_as_scipy_finds_them_whole_or_in_pieces(
    values: NDArray[np.float32], threshold: float, sizes: list[int]
) -> None:
    expected = settled_points(values, threshold)
    whole = find_points(values, threshold)
    assert list(zip(whole.position.tolist(), whole.height.tolist(), strict=True)) == expected
    finder, found, at = PointFinder(threshold), [], 0
    while at < len(values):
        settled = finder.settled
        some = finder.push(values[at : at + sizes[at % len(sizes)]])
        assert (some.position >= settled).all()
        found += some.position.tolist()
        at += sizes[at % len(sizes)]
    assert [*found, *finder.finish().position.tolist()] == [i for i, _ in expected]


@pytest.mark.parametrize("threshold", [0.0, -1.0, np.nan])
def test_points_need_a_positive_threshold(threshold: float) -> None:
    with pytest.raises(UsageError, match="must be positive"):
        find_points(np.zeros(5, np.float32), threshold)

"""Windows: scaled as NumPy scales them, mirrored beyond the ends, flat and missing told apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

import naive
from quantal import windows
from quantal.errors import UsageError
from quantal.windows import (
    FLAT,
    MISSING,
    SCORED,
    cut_windows,
    cut_windows_at,
    missing_windows,
)

FLOATS = st.floats(-1e6, 1e6, width=32)


def noise(n: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(-60, 5, n).astype(np.float32)


@settings(max_examples=150, deadline=None)
@given(
    samples=arrays(np.float32, st.integers(1, 40), elements=FLOATS),
    first=st.integers(-100, 100),
    stride=st.integers(1, 30),
    count=st.integers(0, 6),
    width=st.integers(1, 25),
)
def test_windows_equal_those_of_numpy_to_the_last_bit(
    samples: NDArray[np.float32], first: int, stride: int, count: int, width: int
) -> None:
    found, states = cut_windows(samples, first, stride, count, width)
    assert found.shape == (count, width)
    assert found.dtype == np.float32
    if not count:
        return
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = naive.scaled_windows(samples, first, stride, count, width)
    flat = np.isnan(expected).any(axis=1)
    np.testing.assert_array_equal(states, np.where(flat, FLAT, SCORED))
    np.testing.assert_array_equal(found[~flat], expected[~flat])
    assert (found[flat] == 0).all()


def test_a_long_random_trace_is_cut_as_numpy_cuts_it() -> None:
    samples = noise(3_000)
    found, states = cut_windows(samples, -225, 20, 150, 600)
    np.testing.assert_array_equal(found, naive.scaled_windows(samples, -225, 20, 150, 600))
    assert (states == SCORED).all()
    assert found.min() == 0
    assert found.max() == 1


def test_a_hand_drawn_window() -> None:
    found, states = cut_windows(np.array([0, 1, 4, 2], np.float32), -1, 2, 2, 3)
    np.testing.assert_array_equal(found, [[0, 0, 1], [0, 1, 1 / np.float32(3)]])
    assert states.tolist() == [SCORED, SCORED]


def test_a_flat_window_is_zero_and_says_so() -> None:
    samples = np.full(50, -70.25, np.float32)
    samples[30] = -70
    found, states = cut_windows(samples, 0, 10, 4, 10)
    assert states.tolist() == [FLAT, FLAT, FLAT, SCORED]
    assert not found[:3].any()
    assert found[3].tolist() == [1] + 9 * [0]


def test_a_window_that_is_flat_but_for_rounding_is_flat() -> None:
    level = np.float32(-70)
    samples = np.array([level, np.nextafter(level, np.float32(0)), level, level], np.float32)
    assert cut_windows(samples, 0, 1, 1, 4)[1].tolist() == [FLAT]
    samples[1] = level + np.float32(1e-3)  # less than any amplifier resolves
    assert cut_windows(samples, 0, 1, 1, 4)[1].tolist() == [SCORED]


@pytest.mark.parametrize("missing", [np.nan, np.inf, -np.inf])
def test_a_window_with_one_missing_sample_is_zero_and_says_so(missing: float) -> None:
    samples = noise(60)
    for at in (20, 24, 29):
        gap = samples.copy()
        gap[at] = missing
        found, states = cut_windows(gap, 0, 10, 6, 10)
        assert states.tolist() == [SCORED, SCORED, MISSING, SCORED, SCORED, SCORED]
        assert not found[2].any()
        assert np.isfinite(found).all()


def test_a_window_of_nothing_but_missing_samples_is_missing_and_not_flat() -> None:
    _, states = cut_windows(np.full(10, np.nan, np.float32), 0, 5, 2, 5)
    assert states.tolist() == [MISSING, MISSING]


@settings(max_examples=80, deadline=None)
@given(
    samples=arrays(np.float32, st.integers(1, 40), elements=st.one_of(FLOATS, st.just(np.nan))),
    starts=st.lists(st.integers(-100, 100), max_size=6),
    width=st.integers(1, 25),
)
def test_windows_can_start_anywhere(
    samples: NDArray[np.float32], starts: list[int], width: int
) -> None:
    found, states = cut_windows_at(samples, np.array(starts, np.int64), width)
    for k, start in enumerate(starts):
        one, state = cut_windows(samples, start, 1, 1, width)
        np.testing.assert_array_equal(found[k], one[0])
        assert states[k] == state[0]
    missing = missing_windows(samples, np.array(starts, np.int64), width)
    np.testing.assert_array_equal(missing, states == MISSING)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("beyond", [1, 5, 50])
def test_beyond_the_ends_a_trace_goes_on_as_its_mirror_image(n: int, beyond: int) -> None:
    samples = np.arange(n, dtype=np.float32)
    mirrored = [windows.mirrored(i, n) for i in range(-beyond, n + beyond)]
    np.testing.assert_array_equal(samples[mirrored], np.pad(samples, beyond, mode="symmetric"))


def test_the_samples_may_be_read_only_and_stay_as_they_are() -> None:
    samples = noise(100)
    before = samples.copy()
    samples.setflags(write=False)
    found, _ = cut_windows(samples, -10, 7, 20, 30)
    np.testing.assert_array_equal(samples, before)
    np.testing.assert_array_equal(found, cut_windows(before, -10, 7, 20, 30)[0])


def test_scaling_does_not_depend_on_the_unit() -> None:
    samples = noise(200)
    found, _ = cut_windows(samples, 0, 50, 3, 100)
    for factor in (2.0**-20, 2.0**20):
        scaled, _ = cut_windows(samples * np.float32(factor), 0, 50, 3, 100)
        np.testing.assert_array_equal(scaled, found)


@pytest.mark.parametrize(
    ("n", "stride", "count", "width"),
    [(0, 1, 1, 5), (10, 0, 1, 5), (10, -1, 1, 5), (10, 1, 1, 0), (10, 1, -1, 5)],
)
def test_windows_that_cannot_be_cut_are_refused(
    n: int, stride: int, count: int, width: int
) -> None:
    with pytest.raises(UsageError, match=f"cannot cut {count} windows of {width} samples"):
        cut_windows(np.zeros(n, np.float32), 0, stride, count, width)

"""Filters: smoothing, gradient and resampling keep time, level and gaps where they were."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import signal

from quantal.errors import UsageError
from quantal.filters import BRIDGE, Resampler, fill_missing, odd_width, resample, smooth
from quantal.noise import Gaps

Samples = NDArray[np.float32]

RATIOS = [(600, 560), (600, 1200), (600, 60), (600, 557), (1, 3), (3, 1), (600, 601)]


def noise(n: int, seed: int = 0) -> Samples:
    return np.random.default_rng(seed).normal(size=n).astype(np.float32)


@pytest.mark.parametrize("width", [1, 3, 5, 21])
def test_smoothing_equals_a_direct_convolution_with_held_ends(width: int) -> None:
    samples = noise(60)
    weights = np.sin(np.pi * np.arange(1, width + 1) / (width + 1)) ** 2
    held = np.pad(samples.astype(np.float64), width // 2, mode="edge")
    expected = np.convolve(held, weights / weights.sum(), mode="valid")
    found = smooth(samples, width)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_smoothing_keeps_a_constant() -> None:
    np.testing.assert_allclose(smooth(np.full(50, -65.5, np.float32), 9), -65.5, rtol=1e-6)


@pytest.mark.parametrize("width", [3, 7, 31])
def test_a_smoothed_impulse_keeps_its_place_and_area(width: int) -> None:
    impulse = np.zeros(101, np.float32)
    impulse[50] = 1
    found = smooth(impulse, width)
    assert found.argmax() == 50
    assert found.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(found, found[::-1])
    assert np.count_nonzero(found) == width  # a width of 3 smooths


def test_a_trace_may_be_shorter_than_the_filter_and_may_be_empty() -> None:
    assert smooth(np.array([1, 3], np.float32), 21) == pytest.approx([2, 2], abs=0.1)
    assert smooth(np.array([5], np.float32), 21) == pytest.approx([5])
    assert smooth(np.empty(0, np.float32), 5).shape == (0,)


@pytest.mark.parametrize("width", [0, 2, 10, -1])
def test_a_filter_without_a_middle_is_refused(width: int) -> None:
    with pytest.raises(UsageError, match=f"odd number of samples, got {width}"):
        smooth(noise(20), width)


@given(st.floats(0, 1e6))
def test_odd_widths_are_odd_and_at_most_a_sample_and_a_half_away(samples: float) -> None:
    width = odd_width(samples)
    assert width % 2 == 1
    assert width >= 3
    assert abs(width - max(samples, 3)) <= 1.5


def test_missing_samples_are_bridged_by_straight_lines() -> None:
    samples = np.array([np.nan, 1, np.nan, np.inf, 4, -np.inf], np.float32)
    assert fill_missing(samples).tolist() == [1, 1, 2, 3, 4, 4]
    assert np.isnan(samples[0])  # the samples themselves are kept


def test_a_long_gap_is_bridged_at_its_end_alone() -> None:
    gap = np.full(3 * BRIDGE, np.nan, np.float32)
    filled = fill_missing(np.r_[gap, np.float32(4), gap, np.float32(8), gap])
    first, middle, last = filled[: 3 * BRIDGE], filled[3 * BRIDGE + 1 : 6 * BRIDGE + 1], filled[-1]
    assert set(first[: 2 * BRIDGE].tolist()) == {0.0}
    assert set(first[2 * BRIDGE :].tolist()) == {4.0}
    assert set(middle[: 2 * BRIDGE].tolist()) == {4.0}
    np.testing.assert_allclose(middle[2 * BRIDGE :], 4 + 4 * np.arange(BRIDGE) / BRIDGE, rtol=1e-6)
    assert last == 8


@settings(deadline=None)
@given(
    lengths=st.lists(st.tuples(st.booleans(), st.integers(1, 3 * BRIDGE)), min_size=1, max_size=6),
    sizes=st.lists(st.integers(100, 4 * BRIDGE), min_size=1, max_size=4),
)
def test_gaps_are_bridged_alike_in_pieces(
    lengths: list[tuple[bool, int]], sizes: list[int]
) -> None:
    samples = np.concatenate([noise(n) if there else np.full(n, np.nan) for there, n in lengths])
    samples = samples.astype(np.float32)
    gaps, parts, at = Gaps(), [], 0
    while at < len(samples):
        size = sizes[len(parts) % len(sizes)]
        parts.append(gaps.push(samples[at : at + size]))
        at += size
    filled, missing = (np.concatenate(both) for both in zip(*parts, gaps.finish(), strict=True))
    np.testing.assert_array_equal(filled, fill_missing(samples))
    np.testing.assert_array_equal(missing, np.isnan(samples))


def test_a_trace_of_missing_samples_only_becomes_zero() -> None:
    assert fill_missing(np.full(4, np.nan, np.float32)).tolist() == [0, 0, 0, 0]


def test_a_trace_without_gaps_is_given_back_as_it_is() -> None:
    samples = noise(10)
    assert fill_missing(samples) is samples
    assert fill_missing(np.empty(0, np.float32)).shape == (0,)


@pytest.mark.parametrize(("up", "down"), RATIOS)
def test_resampled_sample_k_lies_at_k_down_over_up(up: int, down: int) -> None:
    n, period = 4_000, 200 * max(1, down / up)
    samples = np.sin(2 * np.pi * np.arange(n) / period).astype(np.float32)
    found = resample(samples, up, down)
    assert found.dtype == np.float32
    assert len(found) == math.ceil(n * up / down)
    expected = np.sin(2 * np.pi * np.arange(len(found)) * down / up / period)
    inside = slice(len(found) // 10, -len(found) // 10)
    np.testing.assert_allclose(found[inside], expected[inside], atol=2e-4)


@pytest.mark.parametrize(("up", "down"), RATIOS)
def test_resampling_keeps_a_constant(up: int, down: int) -> None:
    # SciPy's own filter leaves a ripple of 0.07 % of a holding current or resting potential.
    found = resample(np.full(500, 10_000, np.float32), up, down)
    np.testing.assert_allclose(found, 10_000, rtol=1e-6)


@pytest.mark.parametrize(("up", "down"), [(600, 560), (600, 1200)])
def test_an_offset_does_not_change_what_is_resampled(up: int, down: int) -> None:
    samples = noise(500)
    expected = resample(samples, up, down)
    np.testing.assert_allclose(resample(samples + 1_000, up, down) - 1_000, expected, atol=2e-3)


@pytest.mark.parametrize(("up", "down"), RATIOS)
def test_a_missing_sample_spreads_over_the_filter_only(up: int, down: int) -> None:
    samples = noise(600)
    gap = samples.copy()
    gap[300] = np.nan
    found, whole = resample(gap, up, down), resample(samples, up, down)
    lost = np.flatnonzero(np.isnan(found)) * down / up
    reach = 11 * max(1, down / up)
    assert len(lost)
    assert lost.min() >= 300 - reach
    assert lost.max() <= 300 + reach
    np.testing.assert_array_equal(found[~np.isnan(found)], whole[~np.isnan(found)])


def test_what_is_beyond_the_new_rate_is_filtered_out() -> None:
    fast = np.sin(2 * np.pi * 0.4 * np.arange(1_000)).astype(np.float32)
    assert np.abs(resample(fast, 1, 4)[20:-20]).max() < 0.01


def test_resampling_turns_with_the_sign() -> None:
    samples = noise(300)
    np.testing.assert_array_equal(resample(-samples, 600, 557), -resample(samples, 600, 557))


def test_the_same_rate_and_no_samples_are_given_back() -> None:
    samples = noise(10)
    assert resample(samples, 600, 600) is samples
    assert resample(samples, 7, 7) is samples
    assert resample(np.empty(0, np.float32), 3, 2).shape == (0,)


@settings(max_examples=50, deadline=None)
@given(
    samples=arrays(np.float32, st.integers(1, 30), elements=st.floats(-100, 100, width=32)),
    up=st.integers(1, 12),
    down=st.integers(1, 12),
)
def test_traces_of_any_length_can_be_resampled(samples: Samples, up: int, down: int) -> None:
    found = resample(samples, up, down)
    assert len(found) == math.ceil(len(samples) * up / down)
    assert np.isfinite(found).all()


@pytest.mark.parametrize(("up", "down"), [(0, 1), (1, 0), (-1, 2)])
def test_a_rate_that_is_not_positive_is_refused(up: int, down: int) -> None:
    with pytest.raises(UsageError, match=f"cannot resample by {up}/{down}"):
        resample(noise(10), up, down)


@pytest.mark.parametrize(("up", "down"), RATIOS)
def test_resampling_is_that_of_scipy_with_its_weights_evened(up: int, down: int) -> None:
    samples = noise(700)
    common = math.gcd(up, down)
    up, down = up // common, down // common
    longest = max(up, down)
    weights = signal.firwin(20 * longest + 1, 1 / longest, window=("kaiser", 5.0))
    for phase in range(up):
        weights[phase::up] /= up * weights[phase::up].sum()
    expected = signal.resample_poly(samples, up, down, window=weights, padtype="edge")
    np.testing.assert_allclose(resample(samples, up, down), expected, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    ratio=st.sampled_from([*RATIOS, (5, 5)]),
    n=st.integers(1, 400),
    sizes=st.lists(st.integers(1, 90), min_size=1, max_size=6),
)
def test_a_trace_resampled_in_pieces_is_that_of_the_whole(
    ratio: tuple[int, int], n: int, sizes: list[int]
) -> None:
    samples, resampler = noise(n), Resampler(*ratio)
    found, at = [], 0
    while at < n:
        size = sizes[at % len(sizes)]
        found.append(resampler.push(samples[at : at + size]))
        at += size
    found.append(resampler.finish())
    np.testing.assert_array_equal(np.concatenate(found), resample(samples, *ratio))

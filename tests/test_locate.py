"""Locations: gradients drawn by hand, a slow oracle, and independence of the unit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

import naive
from quantal.filters import odd_width, smooth
from quantal.locate import (
    _slopes,
    locate_events,
    noise_level,
    rises,
    slope_weights,
    steepest_rises,
)

ITSELF = np.ones(1)  # the weights of a trace that is a gradient already


def locate(
    slope: NDArray[np.float32],
    stretches: list[tuple[int, int]],
    noise_sd: float = 1.0,
    closest: int = 1,
) -> list[tuple[int, int]]:
    starts = np.array([start for start, _ in stretches], np.int64)
    stops = np.array([stop for _, stop in stretches], np.int64)
    location, stretch = locate_events(slope, ITSELF, starts, stops, noise_sd, closest)
    return list(zip(location.tolist(), stretch.tolist(), strict=True))


def bumps(n: int, *peaks: tuple[int, float]) -> NDArray[np.float32]:
    """A gradient of 0 with triangular bumps of five samples."""
    slope = np.zeros(n, np.float32)
    for at, height in peaks:
        slope[at - 2 : at + 3] += np.float32(height) * np.array([1, 2, 3, 2, 1], np.float32) / 3
    return slope


def test_one_rise_is_one_event_at_its_steepest_sample() -> None:
    assert locate(bumps(50, (20, 10)), [(10, 40)]) == [(20, 0)]


def test_two_overlapping_rises_are_two_events_of_one_stretch() -> None:
    assert locate(bumps(60, (20, 10), (28, 8)), [(10, 50)]) == [(20, 0), (28, 0)]


def test_of_a_trace_with_one_ramp_on_another_both_are_found() -> None:
    trace = np.cumsum(bumps(60, (20, 10), (27, 20)))
    slope = np.gradient(trace).astype(np.float32)
    found = [at for at, _ in locate(slope, [(10, 50)])]
    assert found == pytest.approx([20, 27], abs=1)  # a running sum lies half a sample early


def test_a_rise_within_the_noise_is_not_an_event_beside_a_steep_one() -> None:
    assert locate(bumps(60, (20, 10), (40, 4.4)), [(10, 55)]) == [(20, 0)]
    assert locate(bumps(60, (20, 10), (40, 4.6)), [(10, 55)]) == [(20, 0), (40, 0)]


def test_of_a_stretch_that_holds_one_event_only_the_steepest_rise_is() -> None:
    slope = bumps(60, (20, 100), (40, 90))
    starts, stops = np.array([10, 38]), np.array([55, 60])
    location, stretch = steepest_rises(slope, ITSELF, starts, stops)
    assert location.tolist() == [20, 40]
    assert stretch.tolist() == [0, 1]


def test_downward_events_of_a_part_of_a_trace_are_located_by_weights_turned_over() -> None:
    slope = -bumps(60, (20, 100), (40, 90))
    starts, stops = np.array([1_010, 1_015, 1_030]), np.array([1_030, 1_015, 1_055])
    location, height = rises(slope, -ITSELF, starts, stops, first=1_000)
    assert location.tolist() == [1_020, 1_015, 1_040]
    assert height.tolist() == [100, -np.inf, 90]


def test_a_rise_of_a_quarter_of_the_most_prominent_is_the_least_that_counts() -> None:
    assert locate(bumps(60, (20, 100), (40, 24)), [(10, 55)]) == [(20, 0)]
    assert locate(bumps(60, (20, 100), (40, 26)), [(10, 55)]) == [(20, 0), (40, 0)]


def test_prominence_is_judged_within_each_stretch() -> None:
    found = locate(bumps(80, (20, 100), (60, 10)), [(10, 30), (50, 70)])
    assert found == [(20, 0), (60, 1)]


def test_where_nothing_is_steep_the_maximum_is_the_event() -> None:
    assert locate(bumps(50, (20, 1), (30, 2)), [(10, 40)], noise_sd=100) == [(30, 0)]
    ramp = np.arange(50, dtype=np.float32)  # its steepest sample is the last
    assert locate(ramp, [(10, 40)]) == [(39, 0)]


def test_a_flat_gradient_still_gives_one_event_a_stretch() -> None:
    assert locate(np.zeros(50, np.float32), [(10, 20), (30, 40)], noise_sd=0) == [(10, 0), (30, 1)]


@pytest.mark.parametrize(
    ("closest", "expected"),
    [(1, [20, 26]), (6, [20, 26]), (7, [26])],
)
def test_of_locations_closer_than_allowed_the_steeper_is_kept(
    closest: int, expected: list[int]
) -> None:
    slope = bumps(60, (20, 10), (26, 12))
    assert [at for at, _ in locate(slope, [(10, 50)], closest=closest)] == expected


def test_a_chain_of_close_locations_keeps_those_that_are_far_enough_apart() -> None:
    slope = bumps(80, (20, 10), (26, 8), (32, 9))
    assert [at for at, _ in locate(slope, [(10, 60)], closest=7)] == [20, 32]


def test_an_event_in_two_overlapping_stretches_is_one_event() -> None:
    assert locate(bumps(60, (25, 10)), [(10, 30), (20, 50)], closest=0) == [(25, 0)]


def test_no_stretch_and_empty_stretches_hold_no_event() -> None:
    slope = bumps(50, (20, 10))
    assert locate(slope, []) == []
    assert locate(slope, [(20, 20), (15, 30), (50, 50)]) == [(20, 1)]
    assert locate(slope, [(40, 5), (15, 30)]) == [(20, 1)]


EIGHTHS = st.integers(-40, 80).map(lambda i: i / 8)  # exact in single precision, with ties


@settings(max_examples=200, deadline=None)
@given(
    slope=arrays(np.float32, st.integers(1, 80), elements=EIGHTHS),
    cuts=st.lists(st.tuples(st.integers(0, 80), st.integers(0, 30)), max_size=4),
    noise_sd=st.sampled_from([0.0, 0.125, 0.5, 1.0, 10.0]),
    closest=st.integers(0, 9),
)
def test_locations_equal_those_of_the_oracle(
    slope: NDArray[np.float32], cuts: list[tuple[int, int]], noise_sd: float, closest: int
) -> None:
    n = len(slope)
    stretches = [(min(a, n), min(a + length, n)) for a, length in sorted(cuts)]
    starts, stops = [a for a, _ in stretches], [b for _, b in stretches]
    expected = naive.steepest_rises(slope, starts, stops, noise_sd, closest)
    assert locate(slope, stretches, noise_sd, closest) == expected


@pytest.mark.parametrize("seed", range(5))
def test_locations_in_noise_equal_those_of_the_oracle(seed: int) -> None:
    rng = np.random.default_rng(seed)
    slope = np.convolve(rng.normal(size=2_000), np.hanning(9), "same").astype(np.float32)
    starts = list(range(0, 2_000, 100))
    stops = [start + 90 for start in starts]
    expected = naive.steepest_rises(slope, starts, stops, 0.3, 5)
    assert len(expected) > 40
    assert locate(slope, list(zip(starts, stops, strict=True)), 0.3, 5) == expected


@pytest.mark.parametrize("factor", [1e-12, 1e-3, 1e6])
def test_locations_do_not_depend_on_the_unit(factor: float) -> None:
    # A threshold cut to a whole number would be 0 for small units and lose nothing, or all.
    rng = np.random.default_rng(7)
    slope = np.convolve(rng.normal(size=1_000), np.hanning(9), "same").astype(np.float32)
    stretches = [(start, start + 200) for start in range(0, 1_000, 200)]
    expected = locate(slope, stretches, 0.5, 5)
    assert len(expected) > len(stretches)
    assert locate(slope * np.float32(factor), stretches, 0.5 * factor, 5) == expected


def test_the_gradient_is_not_written() -> None:
    slope = bumps(50, (20, 10))
    slope.setflags(write=False)
    assert locate(slope, [(10, 40)]) == [(20, 0)]


def test_the_noise_is_that_of_the_gradient_where_no_event_is_wanted_or_found() -> None:
    slope = np.random.default_rng(0).normal(size=200).astype(np.float32)
    quiet = np.ones(200, np.bool_)
    quiet[150:] = False
    slope[150:] = 1e6
    slope[50:80] = 1e6
    found = noise_level(slope, ITSELF, quiet, np.array([50]), np.array([80]))
    rest = np.r_[slope[:50], slope[80:150]].astype(np.float64)
    deviation = np.median(np.abs(rest - np.median(rest)))
    assert found == pytest.approx(1.4826 * deviation, rel=1e-6)
    assert quiet.sum() == 150  # the mask is not written


def test_where_stretches_cover_all_the_noise_is_that_of_all_quiet_samples() -> None:
    slope = np.array([0, 2, 0, 2], np.float32)
    everywhere = np.ones(4, np.bool_)
    assert noise_level(slope, ITSELF, everywhere, np.array([0]), np.array([4])) == 1.4826
    nowhere = np.zeros(4, np.bool_)
    assert noise_level(slope, ITSELF, nowhere, np.array([0]), np.array([4])) == 0.0


def test_one_test_pulse_does_not_raise_the_noise_of_a_whole_sweep() -> None:
    slope = np.random.default_rng(0).normal(0, 1, 100_000).astype(np.float32)
    nothing = np.empty(0, np.int64)
    quiet = np.ones(len(slope), np.bool_)
    calm = noise_level(slope, ITSELF, quiet, nothing, nothing)
    slope[500:600] = 5_000
    assert calm == pytest.approx(1.0, rel=0.02)
    assert noise_level(slope, ITSELF, quiet, nothing, nothing) == pytest.approx(calm, rel=0.01)


def test_where_most_samples_are_equal_the_sd_is_taken() -> None:
    slope = np.zeros(100, np.float32)
    slope[:10] = 1.0
    nothing = np.empty(0, np.int64)
    assert noise_level(slope, ITSELF, np.ones(100, np.bool_), nothing, nothing) == pytest.approx(
        0.3
    )


@pytest.mark.parametrize("window", [20, 300, 1_001])
@pytest.mark.parametrize("smoothing", [None, 0.0, 12.0])
def test_the_gradient_is_smoothed_before_and_after(window: int, smoothing: float | None) -> None:
    samples = np.random.default_rng(3).normal(size=2_000).cumsum().astype(np.float32)
    first = odd_width(window / 30 if smoothing is None else smoothing)
    expected = smooth(np.gradient(smooth(samples, first)), odd_width(window / 15))
    found = _slopes(samples, slope_weights(window, smoothing), 100, 1_900)
    np.testing.assert_allclose(found, expected[100:1_900], atol=1e-5 * np.abs(expected).max())


def test_beyond_its_ends_a_trace_goes_on_as_it_is_there() -> None:
    level = np.full(50, 7, np.float32)
    np.testing.assert_allclose(_slopes(level, slope_weights(300), 0, 50), 0.0, atol=1e-6)


def test_the_noise_of_a_long_gradient_is_told_from_some_of_it() -> None:
    slope = np.random.default_rng(0).normal(0, 2, 1_500_000).astype(np.float32)
    nothing = np.empty(0, np.int64)
    quiet = np.ones(len(slope), np.bool_)
    assert noise_level(slope, ITSELF, quiet, nothing, nothing) == pytest.approx(2.0, rel=0.01)

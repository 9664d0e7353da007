"""Scaling by the trace's own noise: what it removes, what it keeps, and that it looks only back."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

import naive
from quantal.noise import BIN, SEGMENT, RunningMedian, Scaler, SegmentNoise, own_noise, scaled
from quantal.simulate import add_at, biexponential

Samples = NDArray[np.float32]
STRETCH = BIN * SEGMENT  # samples whose noise is one number


def white(n: int, seed: int = 0) -> Samples:
    """Noise without any correlation from bin to bin, and none within one."""
    bins = np.random.default_rng(seed).standard_normal(-(-n // BIN))
    return np.repeat(bins, BIN)[:n].astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    values=arrays(np.float64, st.integers(1, 60), elements=st.floats(-5, 5, width=16)),
    reach=st.integers(0, 12),
)
def test_the_running_median_is_that_of_numpy(values: NDArray[np.float64], reach: int) -> None:
    median = RunningMedian(reach)
    found = np.concatenate([median.push(values[:7]), median.push(values[7:]), median.finish()])
    np.testing.assert_allclose(found, naive.running_median(values, reach))


def test_white_noise_becomes_noise_whose_bins_have_unit_sd() -> None:
    bins = scaled(3.7 * white(5 * STRETCH)).reshape(-1, BIN).mean(axis=1)
    assert bins.std() == pytest.approx(1.0, rel=0.05)


@settings(max_examples=15, deadline=None)
@given(factor=st.floats(1e-3, 1e3), offset=st.floats(-100, 100))
def test_unit_and_offset_do_not_matter(factor: float, offset: float) -> None:
    x = white(STRETCH)
    again = scaled((factor * (x + offset)).astype(np.float32))
    np.testing.assert_allclose(again, scaled(x), atol=2e-3)


def test_a_slow_drift_is_removed_and_a_fast_event_is_kept() -> None:
    n = 4 * STRETCH
    quiet = white(n)
    drift = 300 * np.sin(2 * np.pi * np.arange(n) / (20 * STRETCH)).astype(np.float32)
    event = np.zeros(n)
    add_at(event, 2 * STRETCH, 6 * biexponential(25_000.0, 2e-4, 2e-3))
    with_event = (quiet + event).astype(np.float32)
    inner = slice(STRETCH // 2, -STRETCH // 2)  # the running median is lopsided at the ends
    assert np.abs(scaled(quiet + drift) - scaled(quiet))[inner].max() < 1.0
    around = slice(2 * STRETCH, 2 * STRETCH + 50)
    kept = scaled(with_event)[around] - scaled(quiet)[around]
    assert kept.max() > 3.0  # of 6, less what compression takes


def test_large_values_are_compressed_and_small_ones_are_not() -> None:
    x = white(4 * STRETCH)
    at = 2 * STRETCH + 3
    for size, low, high in ((1.0, 0.8, 1.2), (1_000.0, 20.0, 30.0)):
        peaked = x.copy()
        peaked[at] = size
        assert low < scaled(peaked)[at] < high


def test_events_hardly_change_the_noise_that_is_seen() -> None:
    n = 10 * STRETCH
    x = white(n).astype(np.float64)
    busy = x.copy()
    for start in range(0, n, 2_500):  # ten events a second
        add_at(busy, start, 30 * biexponential(25_000.0, 2e-4, 3e-3))
    calm = slice(2_300, 2_450)  # before the second event
    ratio = scaled(busy.astype(np.float32))[calm].std() / scaled(x.astype(np.float32))[calm].std()
    assert 0.7 < ratio < 1.05


def test_a_stretch_is_scaled_by_what_came_before_it() -> None:
    x = white(20 * STRETCH)
    whole = scaled(x)
    begun = scaled(x[: 12 * STRETCH])
    settled = 11 * STRETCH  # the running median looks 80 ms ahead
    np.testing.assert_array_equal(begun[:settled], whole[:settled])
    x[15 * STRETCH :] *= 5
    np.testing.assert_array_equal(scaled(x)[: 14 * STRETCH], whole[: 14 * STRETCH])


def test_noise_that_grows_is_followed_within_five_seconds() -> None:
    x = white(40 * STRETCH)
    x[20 * STRETCH :] *= 4
    y = scaled(x)
    late = y[34 * STRETCH :].reshape(-1, BIN).mean(axis=1)
    assert late.std() == pytest.approx(1.0, rel=0.1)


def test_gaps_are_bridged_and_do_not_count_as_quiet() -> None:
    x = white(6 * STRETCH)
    gap = x.copy()
    gap[STRETCH : 4 * STRETCH] = np.nan
    y = scaled(gap)
    assert np.isfinite(y).all()
    assert y[5 * STRETCH :].std() == pytest.approx(scaled(x)[5 * STRETCH :].std(), rel=0.1)


@pytest.mark.parametrize("n", [1, 2, 9, 10, 11, 39, 41, 500])
def test_short_traces_are_scaled_too(n: int) -> None:
    y = scaled(white(n))
    assert len(y) == n
    assert np.isfinite(y).all()


def test_a_flat_or_empty_trace_stays_flat_or_empty() -> None:
    np.testing.assert_array_equal(scaled(np.full(1_000, 7, np.float32)), np.zeros(1_000))
    assert len(scaled(np.empty(0, np.float32))) == 0


def segment_noise(residuals: NDArray[np.float64]) -> list[float]:
    noise = SegmentNoise()
    noise.push(residuals)
    noise.finish()
    return noise.values.tolist()


def test_the_first_three_segments_share_their_noise_and_flat_ones_do_not_count() -> None:
    rng = np.random.default_rng(1)
    sds = np.array([1.0, 4.0, 2.0, 8.0, 0.0, 2.0])
    noise = segment_noise(np.repeat(sds, SEGMENT) * rng.standard_normal(6 * SEGMENT))
    expected = [2.0, 2.0, 2.0, 2.0, 3.0, 3.0, 2.0]  # the last is that of what may follow
    np.testing.assert_allclose(noise, expected, rtol=0.1)
    assert segment_noise(np.zeros(50))[0] == 0.0


def pieces(samples: Samples, sizes: list[int]) -> Iterator[Samples]:
    at = 0
    while at < len(samples):
        size = sizes[at % len(sizes)]
        yield samples[at : at + size]
        at += size


@settings(max_examples=25, deadline=None)
@given(
    n=st.sampled_from([1, 39, 500, STRETCH - 1, 3 * STRETCH, 3 * STRETCH + 7, 5 * STRETCH + 3]),
    sizes=st.lists(st.integers(1, 20_000), min_size=1, max_size=5),
    gaps=st.lists(st.tuples(st.integers(0, 40_000), st.integers(1, 15_000)), max_size=3),
    seed=st.integers(0, 99),
)
def test_a_trace_fed_in_pieces_is_scaled_as_a_whole_one(
    n: int, sizes: list[int], gaps: list[tuple[int, int]], seed: int
) -> None:
    x = white(n, seed)
    for start, length in gaps:
        x[start : start + length] = np.nan
    scaler = Scaler()
    sizes = sizes if n < STRETCH else [*sizes, 7_001]
    found = [scaler.push(piece) for piece in pieces(x, sizes)]
    np.testing.assert_array_equal(np.concatenate([*found, scaler.finish()]), scaled(x))


def test_samples_of_a_trace_in_pieces_wait_for_less_than_a_tenth_of_a_second() -> None:
    scaler = Scaler()
    done = sum(len(scaler.push(piece)) for piece in pieces(white(5 * STRETCH), [250]))
    assert 5 * STRETCH - done < 2_200  # 88 ms at 25 kHz


def test_gain_multiplies_before_compression() -> None:
    x = white(2 * STRETCH)
    small = np.abs(scaled(x)) < 0.3
    np.testing.assert_allclose(scaled(x, 2.0)[small], 2 * scaled(x)[small], rtol=0.02)


def test_a_short_stretch_can_be_scaled_by_noise_known_from_elsewhere() -> None:
    x = white(3 * STRETCH)
    assert own_noise(x) == pytest.approx(1.0, rel=0.05)
    assert own_noise(x[:0]) == 0.0
    short = x[:600]
    twice = scaled(short, noise_sd=2.0)
    np.testing.assert_allclose(twice, scaled(short, gain=0.5, noise_sd=1.0), atol=1e-6)
    np.testing.assert_allclose(scaled(short, noise_sd=0.0), 0.0)

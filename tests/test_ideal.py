"""The ideal observer of the accuracy benchmark: what it hears, tells apart and decides."""

from __future__ import annotations

import numpy as np
import pytest
from ideal import Choice, Spectrum, apart, best_choice, best_threshold, explain, filtered, spectrum

RATE_HZ = 10_000.0
EVENT = np.exp(-np.arange(300) / 30.0)


def white(sd: float) -> Spectrum:
    """The spectrum of white noise."""
    flat = np.full(1_001, 2 * sd**2 / RATE_HZ)
    return Spectrum(frequencies_hz=np.linspace(0, RATE_HZ / 2, 1_001), density=flat)


def with_events(*starts: int, size: float = 1.0, n: int = 20_000) -> np.ndarray:
    """A trace without noise that holds these events."""
    samples = np.zeros(n)
    for start in starts:
        samples[start : start + len(EVENT)] += size * EVENT
    return samples


def test_the_spectrum_of_white_noise_is_flat_and_holds_its_power() -> None:
    noise = 3 * np.random.default_rng(0).standard_normal(200_000)
    found = spectrum([noise[:100_000], noise[100_000:]], RATE_HZ, 1_000)
    assert np.trapezoid(found.density, found.frequencies_hz) == pytest.approx(9, rel=0.02)
    assert found.at(np.array([1_005.0, 4_003.0])) == pytest.approx(18 / RATE_HZ, rel=0.2)


def test_noise_alone_is_heard_as_one_sd() -> None:
    noise = 3 * np.random.default_rng(1).standard_normal(200_000)
    heights, _ = filtered(noise, RATE_HZ, EVENT, white(3.0))
    assert heights.std() == pytest.approx(1, rel=0.05)


def test_an_event_in_white_noise_is_as_high_as_its_norm() -> None:
    heights, response = filtered(with_events(5_000, size=2.0), RATE_HZ, EVENT, white(0.5))
    norm = 2.0 * np.sqrt((EVENT**2).sum()) / 0.5
    assert heights.argmax() == 5_000
    assert heights.max() == pytest.approx(norm, rel=0.04)  # what is slowest is left out
    around = heights[5_000 - 300 : 5_000 + 301]
    np.testing.assert_allclose(around, norm * response, atol=0.04 * norm)


def test_close_events_are_told_apart_and_their_flanks_are_none() -> None:
    heights, response = filtered(
        with_events(5_000, size=3.0) + with_events(5_040), RATE_HZ, EVENT, white(0.05)
    )
    starts, found = explain(heights, response, 20)
    both = found > 0.2 * found.max()
    np.testing.assert_allclose(starts[both], [5_000, 5_040], atol=2)


def test_what_stays_close_to_an_event_is_no_other_event() -> None:
    heights, response = filtered(
        with_events(5_000, size=3.0) + with_events(5_015), RATE_HZ, EVENT, white(0.05)
    )
    starts, _ = explain(heights, response, 20)
    assert (np.abs(starts - starts[0]) > 20).sum() == len(starts) - 1


def test_the_best_threshold_is_between_events_and_noise() -> None:
    true_s = np.array([1.0, 2.0, 3.0])
    found_s, heights = np.array([2.001, 0.4, 1.0, 3.0, 0.2]), np.array([9.0, 3, 8, 5, 2])
    assert best_threshold(true_s, found_s, heights, tolerance_s=0.003) == (5, 1)
    assert best_threshold(true_s, np.array([0.4]), np.array([3.0]), tolerance_s=0.003)[0] == np.inf


def test_of_close_events_the_highest_stays() -> None:
    found_s = np.array([1.0, 1.004, 0.996, 2.0, 1.009])
    assert apart(found_s, 0.005).tolist() == [True, False, False, True, True]
    choice = Choice(threshold=4.0, closest_s=0.005, f1=1.0)
    heights = np.array([9.0, 8, 7, 5, 3])
    assert choice.of(found_s, heights).tolist() == [1.0, 2.0]
    assert choice.of(found_s, heights, 50.0).tolist() == [1.0, 1.009, 2.0]


def test_the_best_distance_leaves_out_what_follows_an_event() -> None:
    true_s = np.array([1.0, 2.0])
    found_s, heights = np.array([1.0, 1.0035, 2.0]), np.array([9.0, 7, 5])
    choice = best_choice(true_s, found_s, heights, tolerance_s=0.003)
    assert (choice.closest_s, choice.threshold, choice.f1) == (0.005, 5, 1)

"""The recordings of the accuracy benchmark: their truth is that of what is in the samples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scenes import (
    OtherRig,
    Recipe,
    alpha,
    as_recorded,
    butterworth,
    draw_amplitudes,
    falls,
    gaussian,
    onset_times,
    rises,
    simulate,
    swelling,
)

from quantal.simulate import Rig


def test_crossings_lie_between_samples() -> None:
    y = np.array([0.0, 0.0, 1.0, 2.0, 1.0, 0.0])
    assert rises(y, 3, 0.5) == pytest.approx(1.5)
    assert falls(y, 3, 0.25) == pytest.approx(4.75)


def test_filters_halve_the_power_at_their_cutoff() -> None:
    relative = np.array([0.0, 1.0])
    for gain in (butterworth(relative, 8), gaussian(relative, 8)):
        np.testing.assert_allclose(np.abs(gain) ** 2, [1.0, 0.5], rtol=1e-6)


def test_an_event_of_a_wide_rig_is_as_it_was_made() -> None:
    event = as_recorded(Rig(rate_hz=100_000, cutoff_hz=50_000), 1e-3, 1e-2)
    t = np.arange(0, 0.12, 1e-6)
    y = -np.expm1(-t / 1e-3) * np.exp(-t / 1e-2)
    y /= y.max()
    peak = int(y.argmax())
    assert event.half_decay_ms == pytest.approx(1e-3 * (falls(y, peak, 0.5) - peak), rel=0.01)
    assert event.rise_10_90_ms == pytest.approx(
        1e-3 * (rises(y, peak, 0.9) - rises(y, peak, 0.1)), rel=0.02
    )
    assert event.area == pytest.approx(y.sum() * 1e-6, rel=0.01)
    assert 0 < event.steepest_s < 5e-5  # it rises fastest at once; the filter delays a little


def test_a_filter_delays_and_slows_an_event() -> None:
    sharp = as_recorded(Rig(cutoff_hz=10_000), 2e-4, 1e-3)
    dull = as_recorded(Rig(cutoff_hz=1_000), 2e-4, 1e-3)
    assert dull.steepest_s > sharp.steepest_s
    assert dull.rise_10_90_ms > 1.5 * sharp.rise_10_90_ms


def test_an_alpha_function_peaks_at_its_time_constant() -> None:
    t = np.arange(1_000) / 1e5
    assert t[alpha(t, 0.0, 2e-3).argmax()] == pytest.approx(2e-3)


@pytest.mark.parametrize("rig", [Rig(), OtherRig(family="gaussian"), OtherRig(rate_hz=12_500.0)])
def test_the_truth_is_that_of_the_samples(rig: Rig) -> None:
    quiet = replace(rig, drift=0.0, hum=0.0)
    scene = simulate(Recipe(seconds=4, amplitude=1_000, rig=quiet, frequency_hz=3, closest_s=0.05))
    samples, ms = -scene.trace.samples, rig.rate_hz / 1000
    assert scene.measures is not None
    assert len(scene.true_s) > 3
    for k, location_s in enumerate(scene.true_s):
        at = round(location_s * rig.rate_hz)
        around = samples[at - round(ms) : at + round(3 * ms)]
        assert np.diff(around).argmax() == pytest.approx(round(ms), abs=2)
        assert around.max() - samples[at - round(4 * ms)] == pytest.approx(
            -scene.measures["amplitude"][k], rel=0.05
        )


@pytest.mark.parametrize("kind", ["lognormal", "gamma"])
def test_amplitudes_have_mean_and_variance(kind: str) -> None:
    drawn = draw_amplitudes(kind, 200_000, np.random.default_rng(0))
    assert drawn.mean() == pytest.approx(1, rel=0.01)
    assert drawn.var() == pytest.approx(0.4, rel=0.05)


def test_pairs_are_as_far_apart_as_wanted_and_from_other_pairs() -> None:
    recipe = Recipe(pair_s=2e-3, frequency_hz=10, seconds=60)
    times = onset_times(recipe, np.random.default_rng(0))
    assert len(times) > 200
    assert np.diff(times)[0::2] == pytest.approx(2e-3)
    assert np.diff(times)[1::2].min() > 0.03 - 2e-3


@pytest.mark.parametrize("how", ["slowly", "at once"])
def test_noise_doubles(how: str) -> None:
    swell = swelling(Recipe(doubling=how), 1_001)
    assert swell[0] == 1
    assert swell[-1] == 2
    assert (np.diff(swell) >= 0).all()


def test_the_beginning_of_a_scene_has_its_own_events_only() -> None:
    scene = simulate(Recipe(seconds=5, frequency_hz=4, doubling="slowly"))
    part = scene.first(2.0)
    assert part.trace.duration_s == pytest.approx(2.0)
    assert 0 < len(part.true_s) < len(scene.true_s)
    assert part.true_s.max() < 2.0
    assert part.measures is not None
    assert part.swell is not None
    assert len(part.measures["area"]) == len(part.true_s)
    assert len(part.swell) == len(part.trace)


def test_a_scene_without_events_has_a_twin_with_them() -> None:
    scene = simulate(Recipe(seconds=10, frequency_hz=0))
    assert len(scene.true_s) == 0
    assert scene.twin is not None
    assert len(scene.twin().true_s) > 3

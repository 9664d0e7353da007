"""Simulation: shapes, filters and noise with the properties they are said to have."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal as scipy_signal

import naive
from quantal.simulate import (
    Rig,
    add_at,
    bessel_response,
    biexponential,
    drift,
    mains_hum,
    matched,
    record,
    simulate_recording,
)

QUIET = Rig(drift=0.0, hum=0.0, digitiser=0.0)


@pytest.mark.parametrize(("rise_s", "decay_s"), [(2e-4, 1e-3), (1e-3, 1e-2), (5e-4, 5e-4)])
def test_an_event_has_unit_peak_at_the_right_time(rise_s: float, decay_s: float) -> None:
    rate_hz = 1e6
    found = biexponential(rate_hz, rise_s, decay_s)
    assert found[0] == 0
    assert found.max() == pytest.approx(1, abs=1e-5)
    peak_s = rise_s * np.log(1 + decay_s / rise_s)
    assert found.argmax() / rate_hz == pytest.approx(peak_s, abs=2e-6)
    assert found[-1] < 1e-3
    late = int((peak_s + 6 * rise_s) * rate_hz)
    decay = -1 / np.polyfit(np.arange(1_000) / rate_hz, np.log(found[late : late + 1_000]), 1)[0]
    assert decay == pytest.approx(decay_s, rel=0.02)


def test_an_event_of_any_rate_has_samples() -> None:
    assert len(biexponential(10.0, 1e-4, 1e-3)) == 2


@pytest.mark.parametrize("order", [2, 4, 8])
def test_a_bessel_filter_halves_the_power_at_its_cutoff(order: int) -> None:
    gain = np.abs(bessel_response(order, np.array([0.0, 0.5, 1.0, 10.0])))
    assert gain[0] == pytest.approx(1)
    assert 20 * np.log10(gain[2]) == pytest.approx(-3.01, abs=0.01)
    assert gain[0] > gain[1] > gain[2] > gain[3]
    assert 20 * np.log10(gain[3]) < -10 * order


def test_a_rig_filters_as_scipys_bessel_filter_does() -> None:
    rate_hz, n = 1e6, 4_000
    step = np.zeros(n)
    step[1_000:3_000] = 1
    rig = Rig(rate_hz=rate_hz, cutoff_hz=10_000, drift=0, hum=0)
    found = record(step, rig, 0.0, np.random.default_rng(0))
    sos = scipy_signal.bessel(4, 10_000, fs=rate_hz, output="sos", norm="mag")
    np.testing.assert_allclose(found, scipy_signal.sosfilt(sos, step), atol=0.01)


def test_nothing_is_seen_before_an_event_begins() -> None:
    clean = np.zeros(4_000)
    add_at(clean, 2_000, biexponential(50_000, 2e-4, 1e-3))
    found = record(clean, QUIET, 0.0, np.random.default_rng(0))
    assert np.abs(found[:1_998]).max() < 2e-3
    assert found.max() > 0.8


@pytest.mark.parametrize("rig", [QUIET, Rig(drift=0, hum=0, band_hz=5_000.0)])
@pytest.mark.parametrize("n", [1_000, 1_024, 4_096])
def test_what_is_at_the_end_does_not_come_back_at_the_start(rig: Rig, n: int) -> None:
    clean = np.zeros(n)
    clean[-40:] = 1
    found = record(clean, rig, 0.0, np.random.default_rng(0))
    assert len(found) == n
    assert np.abs(found[: n // 2]).max() < 1e-3
    assert found[-1] > 0.9


@pytest.mark.parametrize(
    "rig",
    [
        Rig(),
        Rig(corner_hz=500.0, slope=1.5),
        Rig(rising_hz=1_000.0),
        Rig(cutoff_hz=10_000.0, order=8, band_hz=6_000.0),
        Rig(rate_hz=10_000.0),
        Rig(rate_hz=10_000.0, cutoff_hz=20_000.0),
    ],
)
def test_noise_has_the_sd_that_was_asked_for(rig: Rig) -> None:
    rng = np.random.default_rng(1)
    found = record(np.zeros(200_000), rig, 3.0, rng)
    assert found.std() == pytest.approx(3.0, rel=0.15)
    assert found.mean() == pytest.approx(0, abs=0.5)


def test_noise_is_that_of_its_filter() -> None:
    found = record(np.zeros(200_000), QUIET, 1.0, np.random.default_rng(2))
    frequency, power = scipy_signal.welch(found, 50_000, nperseg=4_096)
    passed = power[(frequency > 100) & (frequency < 500)].mean()
    cut = power[np.abs(frequency - 2_900) < 100].mean()
    assert cut / passed == pytest.approx(0.5, rel=0.15)
    assert power[frequency > 15_000].mean() < 1e-4 * passed


def test_drift_and_hum_have_unit_size() -> None:
    rng = np.random.default_rng(3)
    walks = [drift(100_000, 10_000.0, rng).std() for _ in range(10)]
    assert np.mean(walks) == pytest.approx(1, abs=0.25)
    hum = mains_hum(10_000, 10_000.0, 50.0, rng)
    assert np.abs(hum).max() == pytest.approx(1)
    power = np.abs(np.fft.rfft(hum))
    assert set(np.flatnonzero(power > 0.01 * power.max())) <= {50, 100, 150, 250}
    for n in (1, 2, 5):
        assert len(drift(n, 10_000.0, rng)) == len(mains_hum(n, 10_000.0, 50.0, rng)) == n


@pytest.mark.parametrize("start", [-30, -3, 0, 5, 18, 20, 99])
def test_a_shape_is_added_where_it_falls_within_the_signal(start: int) -> None:
    found, shape = np.ones(20), np.arange(1.0, 11)
    add_at(found, start, shape)
    expected = np.ones(20)
    for k, value in enumerate(shape):
        if 0 <= start + k < 20:
            expected[start + k] += value
    assert found.tolist() == expected.tolist()


def test_the_same_seed_gives_the_same_recording() -> None:
    first, truth = simulate_recording(seconds=1.0, frequency_hz=10, seed=5)
    second, same = simulate_recording(seconds=1.0, frequency_hz=10, seed=5)
    other, _ = simulate_recording(seconds=1.0, frequency_hz=10, seed=6)
    np.testing.assert_array_equal(first.samples, second.samples)
    np.testing.assert_array_equal(truth.amplitude, same.amplitude)
    assert not np.array_equal(first.samples, other.samples)


@pytest.mark.parametrize("amplitude", [-30.0, 30.0])
def test_the_amplitudes_of_the_truth_are_in_the_trace(amplitude: float) -> None:
    rig = Rig(cutoff_hz=20_000.0, drift=0, hum=0)
    trace, truth = simulate_recording(
        seconds=5.0,
        frequency_hz=5,
        amplitude=amplitude,
        noise_sd=0.01,
        tau_rise_s=5e-4,
        tau_decay_s=3e-3,
        rig=rig,
        offset=-20.0,
        seed=1,
    )
    alone = np.diff(truth.onset_s, prepend=-1, append=6).clip(max=1)
    alone = np.minimum(alone[:-1], alone[1:]) > 0.06
    assert alone.sum() > 8
    onset_s, sizes = truth.onset_s[alone], truth.amplitude[alone]
    for start_s, size in zip(onset_s, sizes, strict=True):
        part = trace.between(start_s, start_s + 0.01).samples + 20
        extremum = part[np.abs(part).argmax()]
        assert extremum == pytest.approx(size, rel=0.02)
    assert (np.sign(truth.amplitude) == np.sign(amplitude)).all()


def test_the_truth_is_what_was_asked_for_on_average() -> None:
    trace, truth = simulate_recording(
        seconds=400.0, frequency_hz=3, rig=Rig(rate_hz=2_000.0, cutoff_hz=500.0), seed=2
    )
    assert trace.duration_s == 400
    assert len(truth.onset_s) == pytest.approx(1_200, rel=0.1)
    assert truth.amplitude.mean() == pytest.approx(-12, rel=0.1)
    assert truth.tau_decay_s.mean() == pytest.approx(1e-3, rel=0.05)
    assert np.diff(truth.onset_s).min() > 3e-3
    assert (np.diff(truth.onset_s) > 0).all()


def test_a_recording_may_hold_no_events() -> None:
    trace, truth = simulate_recording(seconds=0.5, frequency_hz=0, seed=0)
    assert len(truth.onset_s) == len(truth.amplitude) == 0
    assert trace.samples.mean() == pytest.approx(-20, abs=1)
    assert np.isfinite(trace.samples).all()


TIMES = st.lists(st.integers(0, 20), max_size=6).map(lambda times: [t / 2 for t in times])


@settings(max_examples=200, deadline=None)
@given(true=TIMES, found=TIMES, tolerance=st.sampled_from([0.0, 0.5, 1.0, 3.0]))
def test_no_other_way_of_matching_finds_more(
    true: list[float], found: list[float], tolerance: float
) -> None:
    expected = naive.most_matches(true, found, tolerance)
    assert matched(true, found, tolerance_s=tolerance) == expected


def test_times_that_are_not_known_match_nothing() -> None:
    assert matched([1.0, np.nan], [np.nan, 1.0], tolerance_s=0.1) == 1
    assert matched([], [1.0], tolerance_s=1) == matched([1.0], [], tolerance_s=1) == 0

"""Simulated windows: seeded, scaled, and labelled by what is in them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from quantal.errors import UsageError
from quantal.simulate import Rig, biexponential
from quantal_trainer.simulated import (
    Labels,
    Stretch,
    _unit_detectability,
    label_windows,
    random_rig,
    simulate_stretch,
    simulate_windows,
)

LABELS = Labels(positive=(100, 300), negative=(50, 350), seen=6, unseen=3, buried=0.1)


def stretch(onset: int, size: float = 10.0, detectability: float = 20.0) -> Stretch:
    """A flat stretch with one event marked in it."""
    samples = np.zeros(4000)
    samples[onset] = size
    return Stretch(samples, np.array([onset]), np.array([size]), np.array([detectability]))


@pytest.mark.parametrize(
    ("onset", "label"),
    [(49, 0), (50, -1), (99, -1), (100, 1), (300, 1), (301, -1), (350, -1), (351, 0), (599, 0)],
)
def test_a_label_says_where_in_the_window_an_event_starts(onset: int, label: int) -> None:
    found = label_windows(stretch(1000 + onset), np.array([1000]), LABELS, 600)
    assert found.tolist() == [label]


@pytest.mark.parametrize(("detectability", "label"), [(2.9, 0), (3.0, -1), (5.9, -1), (6.0, 1)])
def test_an_event_counts_once_an_ideal_observer_would_see_it(
    detectability: float, label: int
) -> None:
    one = stretch(1200, detectability=detectability)
    assert label_windows(one, np.array([1000]), LABELS, 600).tolist() == [label]


def test_an_event_buried_beside_something_larger_is_left_out() -> None:
    one = stretch(1200)
    one.samples[1500] = 101.0
    assert label_windows(one, np.array([1000]), LABELS, 600).tolist() == [-1]


@pytest.mark.parametrize("where", ["landmarks", "anywhere"])
def test_windows_are_scaled_labelled_and_the_same_for_the_same_seed(where: str) -> None:
    windows, labels = simulate_windows(300, seed=5, where=where)
    again, same = simulate_windows(300, seed=5, where=where)
    other, _ = simulate_windows(300, seed=6, where=where)
    np.testing.assert_array_equal(windows, again)
    np.testing.assert_array_equal(labels, same)
    assert not np.array_equal(windows, other)
    assert windows.shape == (300, 600)
    assert windows.dtype == np.float32
    assert (windows.min(axis=1) == 0).all()
    assert (windows.max(axis=1) == 1).all()
    assert set(labels.tolist()) == {0.0, 1.0}


def test_landmarks_hold_more_events_than_random_places() -> None:
    _, landmarks = simulate_windows(2000, seed=1)
    _, anywhere = simulate_windows(2000, seed=1, where="anywhere")
    assert anywhere.mean() < landmarks.mean() < 0.5


def test_an_unknown_place_is_refused() -> None:
    with pytest.raises(UsageError, match="landmarks, anywhere"):
        simulate_windows(10, seed=0, where="elsewhere")


def test_detectability_is_that_of_a_whitened_matched_filter() -> None:
    """Told waveform and noise, the filter's output has SD 1 in noise and d' at the event."""
    rng = np.random.default_rng(3)
    n, shape = 4096, biexponential(1.0, 10.0, 50.0)
    for rig in (Rig(), replace(random_rig(rng), digitiser=0.1)):
        gain = rig.noise_gain(n)
        whitened = np.fft.rfft(shape, n) * rig.response(n) / gain
        whitened[0] = 0.0  # the observer knows no baseline
        template = np.fft.irfft(whitened, n)
        template /= np.linalg.norm(template)

        def observed(recorded: np.ndarray, gain=gain, template=template) -> float:  # type: ignore[no-untyped-def]
            return float(template @ np.fft.irfft(np.fft.rfft(recorded) / gain, n))

        noise = [np.fft.irfft(np.fft.rfft(rng.standard_normal(n)) * gain, n) for _ in range(300)]
        event = np.fft.irfft(np.fft.rfft(shape, n) * rig.response(n), n)
        assert np.std([observed(x) for x in noise]) == pytest.approx(1.0, abs=0.15)
        assert observed(event) == pytest.approx(_unit_detectability(shape, rig), rel=1e-6)


def test_a_stretch_states_every_event_in_order() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        one = simulate_stretch(rng)
        assert len(one.onsets) == len(one.sizes) == len(one.detectability)
        assert (np.diff(one.onsets) >= 0).all()
        assert np.isfinite(one.samples).all()


def test_rigs_reach_around_the_usual_patch_clamp_one() -> None:
    rng = np.random.default_rng(0)
    rigs = [random_rig(rng) for _ in range(200)]
    assert min(r.cutoff_hz for r in rigs) < Rig().cutoff_hz < max(r.cutoff_hz for r in rigs)
    assert any(np.isfinite(r.band_hz) for r in rigs)
    assert any(r.corner_hz > 0 for r in rigs)
    assert any(np.isfinite(r.rising_hz) for r in rigs)

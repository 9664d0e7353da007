"""Simulated windows: seeded, scaled, and labelled by what is in them."""

from __future__ import annotations

import numpy as np
import pytest

from quantal.errors import UsageError
from quantal_trainer import simulated_traces
from quantal_trainer.simulated import (
    Labels,
    Stretch,
    _prominent,
    _suitable_window,
    label_windows,
    simulate_stretch,
    simulate_windows,
)
from quantal_trainer.simulated_traces import CROWDED, STRETCH, USUAL

LABELS = Labels(positive=(100, 300), negative=(50, 350), seen=6, unseen=3, buried=0.1)


def stretch(onset: int, size: float = 10.0, detectability: float = 20.0) -> Stretch:
    """A flat stretch with one event marked in it."""
    samples = np.zeros(4000, np.float32)
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
    assert not np.array_equal(
        windows, simulate_windows(300, seed=5, where=where, family=CROWDED)[0]
    )
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


def whole(widths: list[float]) -> simulated_traces.Stretch:
    """A flat stretch as trace networks see it, with events of these half-widths (samples)."""
    n = len(widths)
    return simulated_traces.Stretch(
        samples=np.zeros(STRETCH, np.float32),
        rises=np.arange(n, dtype=np.int64),
        detectability=np.ones(n),
        reach=np.ones(n),
        size=np.ones(n),
        width=np.array(widths),
    )


@pytest.mark.parametrize(("decay", "rise"), [(50.0, 5.0), (125.0, 10.0), (300.0, 40.0)])
def test_a_window_is_chosen_by_eye_around_twelve_decays(decay: float, rise: float) -> None:
    """Biexponential events, in samples; half-width measured on the curve."""
    t = np.arange(3_000)
    shape = np.exp(-t / decay) - np.exp(-t / (rise * decay / (rise + decay)))
    width = float(np.count_nonzero(shape > shape.max() / 2))
    rng = np.random.default_rng(0)
    chosen = np.log([_suitable_window(whole([width] * 3), rng) for _ in range(500)])
    assert np.exp(np.median(chosen)) == pytest.approx(12 * decay, rel=0.2)
    assert chosen.std() == pytest.approx(0.35, abs=0.05)


def test_windows_stay_within_what_a_stretch_can_fill() -> None:
    rng = np.random.default_rng(0)
    none, fast, slow = (
        [_suitable_window(whole(widths), rng) for _ in range(300)] for widths in ([], [2.0], [5e3])
    )
    assert set(fast) == {90}
    assert set(slow) == {7_500}
    assert 90 <= min(none) < 120
    assert 5_500 < max(none) <= 7_500


def test_stretches_are_those_that_trace_networks_see() -> None:
    """The same seed gives events of the same sizes, and samples rise where events are stated."""
    steeper = total = 0
    for seed in range(60):
        one = simulate_stretch(np.random.default_rng(seed), CROWDED)
        origin = simulated_traces.simulate_stretch(np.random.default_rng(seed), CROWDED)
        assert len(one.onsets) == len(one.sizes) == len(one.detectability)
        assert set(one.sizes) <= set(origin.size)
        assert one.samples.dtype == np.float32
        assert np.isfinite(one.samples).all()
        assert ((one.onsets >= 0) & (one.onsets <= len(one.samples))).all()
        for at in one.onsets[one.detectability > 25]:
            if 30 < at < len(one.samples) - 30:
                total += 1
                steeper += one.samples[at : at + 12].mean() > one.samples[at - 12 : at].mean()
    assert total > 100
    assert steeper > 0.9 * total


def test_a_stretch_without_events_is_looked_at_too() -> None:
    one = stretch(1000)
    none = Stretch(one.samples, np.empty(0, np.int64), np.empty(0), np.empty(0))
    assert label_windows(none, np.array([700, 900]), LABELS, 600).tolist() == [0, 0]


def test_what_stands_out_is_looked_at_though_it_is_no_event() -> None:
    rng = np.random.default_rng(0)
    samples = rng.standard_normal(6_000).astype(np.float32)
    samples[3_010:3_020] += 50.0
    one = Stretch(samples, np.empty(0, np.int64), np.empty(0), np.empty(0))
    found = _prominent(one, rng)
    assert len(found) == 6
    assert np.abs(found - 3_015).min() <= 100


@pytest.mark.parametrize("family", [USUAL, CROWDED])
def test_windows_of_noise_come_from_large_signals_too(family: simulated_traces.Family) -> None:
    """In noise alone the median lies near the middle of the range, beside a transient at an end."""
    windows, labels = simulate_windows(1_000, seed=2, family=family)
    away = np.abs(windows - np.median(windows, axis=1, keepdims=True)).max(axis=1)
    assert 0.1 < (away[labels == 0] > 0.7).mean() < 0.9

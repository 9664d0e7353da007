"""Bayesian sampling: the draws are those of the posterior, however it is computed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import kstest, truncnorm

import naive
from quantal.classical import bayesian
from quantal.classical.bayesian import Bayesian, Draws, sample_events
from quantal.classical.detector import Shape
from quantal.simulate import add_at, simulate_recording
from quantal.trace import Trace

Floats = NDArray[np.float64]

SHAPE = Shape(rise=2.0, decay=10.0)
FREQUENCY = 1e-3  # events per sample


def autoregressive(n: int, coefficients: list[float], sd: float = 1.0, seed: int = 0) -> Floats:
    rng = np.random.default_rng(seed)
    y = np.zeros(n + 200)
    for i in range(len(coefficients), len(y)):
        y[i] = sd * rng.normal() + sum(c * y[i - 1 - j] for j, c in enumerate(coefficients))
    return y[200:]


def draw(y: Floats, seed: int = 0, **changes: Any) -> Draws:
    options: dict[str, Any] = {"frequency": FREQUENCY, "ar_order": 0, "sweeps": 200} | changes
    rng = np.random.default_rng(seed)
    return sample_events(y.astype(np.float32), options.pop("shape", SHAPE), rng=rng, **options)


@pytest.mark.parametrize(("size", "frequency"), [(2.0, 0.01), (2.6, 0.01), (0.0, 0.02)])
def test_counts_are_those_of_the_posterior_summed_over_all_onsets_and_amplitudes(
    size: float, frequency: float
) -> None:
    n, step, shape = 40, 0.5, Shape(rise=1.0, decay=5.0)
    y = np.random.default_rng(4).normal(0, 1, n)
    add_at(y, 15, size * shape.values(0, n))
    y = y.astype(np.float32).astype(np.float64)
    scale = 1.4826 * np.median(np.abs(y - np.median(y)))
    onsets = np.arange(step / 2, n, step)
    peak = naive.event_shape(np.array([shape.peak]), 0.0, 1.0, shape.rise, shape.decay, 1.0)
    t = np.arange(n, dtype=np.float64)
    shapes = np.array([naive.event_shape(t, o, 1.0, 1.0, 5.0, 1.0) for o in onsets]) / peak
    top = (y.max() - np.median(y)) / scale + 3
    expected = naive.event_counts(y / scale, shapes, frequency, step, float(top))
    draws = draw(y, frequency=frequency, shape=shape, spread=1.0, sweeps=30_000, births=6)
    found = np.bincount(draws.counts, minlength=3)[:3] / len(draws.counts)
    assert found == pytest.approx(expected, abs=0.03)


def test_events_and_noise_are_recovered_with_the_trace_in_its_own_unit() -> None:
    coefficients = [0.9, -0.3]
    y = 7.0 + 0.2 * autoregressive(2_000, coefficients)
    sizes, onsets = [3.0, 5.0, 2.0], [300, 900, 930]
    for size, at in zip(sizes, onsets, strict=True):
        add_at(y, at, size * SHAPE.values(0, 200))
    draws = draw(y, ar_order=2, sweeps=500, frequency=1e-4)
    assert np.mean(draws.counts == 3) > 0.8
    whole = draws.events[np.repeat(draws.counts == 3, draws.counts)].reshape(-1, 3, 5)
    rows = np.take_along_axis(whole, np.argsort(whole[:, :, 1], axis=1)[:, :, None], axis=1)
    _, onset, size, rise, decay = rows.mean(axis=0).T
    assert onset == pytest.approx(onsets, abs=1)
    assert size == pytest.approx(sizes, rel=0.2)
    assert rise[:2] == pytest.approx([2, 2], rel=0.4)
    assert decay[:2] == pytest.approx([10, 10], rel=0.3)
    baseline, sd, *found = draws.noise.mean(axis=0)
    assert baseline == pytest.approx(7, abs=0.1)
    assert sd == pytest.approx(0.2, rel=0.1)
    assert found[:2] == pytest.approx(coefficients, abs=0.08)
    assert found[2:] == [0, 0]


def test_time_constants_are_those_of_each_event() -> None:
    y = np.random.default_rng(1).normal(0, 1, 1_500)
    for at, decay in ((400, 6.0), (1_000, 18.0)):
        add_at(y, at, 20 * Shape(rise=2.0, decay=decay).values(0, 300))
    draws = draw(y, sweeps=400)
    early = draws.events[:, 1] < 700
    large = draws.events[:, 2] > 10
    assert draws.events[early & large, 4].mean() == pytest.approx(6, rel=0.15)
    assert draws.events[~early & large, 4].mean() == pytest.approx(18, rel=0.15)


@pytest.mark.parametrize("order", [0, 1, 2, 4])
def test_noise_alone_holds_hardly_an_event(order: int) -> None:
    y = autoregressive(2_000, [0.7] if order else [], seed=order)
    draws = draw(y, ar_order=order, frequency=1e-4)
    assert draws.counts.mean() < 1
    assert draws.noise[:, 1].mean() == pytest.approx(1, rel=0.07)
    if order:
        assert draws.noise[:, 2].mean() == pytest.approx(0.7, abs=0.08)


def test_the_probability_counts_a_draw_once_where_an_event_is_near() -> None:
    events = np.array([[0, 5.2, 1, 2, 10], [0, 6.0, 1, 2, 10], [2, 8.9, 1, 2, 10]], np.float64)
    draws = Draws(events=events, noise=np.zeros((4, 6)), samples=12)
    assert draws.counts.tolist() == [2, 0, 1, 0]
    expected = [0, 0, 0, 0, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0]
    assert draws.probability(1.5).tolist() == expected
    assert Draws(events=events[:0], noise=np.zeros((1, 6)), samples=3).probability(2).sum() == 0


@pytest.mark.parametrize("y", [np.zeros(200), np.full(200, 3e4), np.arange(39.0), np.empty(0)])
def test_what_shows_no_noise_holds_no_event(y: Floats) -> None:
    draws = draw(y)
    assert draws.counts.tolist() == [0]
    assert not draws.probability(3).any()


@pytest.mark.parametrize("coefficients", [[], [0.6], [0.9, -0.4]])
@pytest.mark.parametrize("onset", [20.0, 31.7, 195.4])
def test_the_fit_of_an_event_is_that_of_its_innovations(
    coefficients: list[float], onset: float
) -> None:
    n, order = 200, len(coefficients)
    noise = np.array([0.0, 0.5, *coefficients, *[0.0] * (4 - order)])
    white = np.random.default_rng(0).normal(size=n)
    peak = naive.event_shape(np.array([SHAPE.peak]), 0.0, 1.0, 2.0, 10.0, 1.0)
    event = naive.event_shape(np.arange(float(n)), onset, 1.0, 2.0, 10.0, 1.0) / peak
    expected = naive.innovations(event, np.array(coefficients))
    along, energy, _ = bayesian._fit(white, np.empty(n), onset, 2.0, 10.0, noise, order)
    assert energy == pytest.approx((expected**2).sum() / 0.25, rel=1e-3)
    assert along == pytest.approx((white * expected).sum() / 0.25, rel=0.02, abs=0.05)


def test_taking_an_event_out_keeps_residual_and_innovations_in_step() -> None:
    n, order = 150, 2
    noise = np.array([0.0, 1.0, 0.8, -0.2, 0.0, 0.0])
    residual = autoregressive(n, [0.8, -0.2])
    white = naive.innovations(residual, noise[2:4])
    events = np.array([[60.3, 4.0, 2.0, 10.0], [140.8, 7.0, 1.0, 20.0], [0.0, 2.0, 1.0, 5.0]])
    before, shape = residual.copy(), np.empty(n)
    for k in range(3):
        bayesian._add(residual, white, shape, events, k, -1.0, noise, order)
    np.testing.assert_allclose(white, naive.innovations(residual, noise[2:4]), atol=1e-9)
    assert np.abs(residual - before).max() == pytest.approx(7, rel=0.05)
    for k in range(3):
        bayesian._add(residual, white, shape, events, k, 1.0, noise, order)
    np.testing.assert_allclose(residual, before, atol=1e-9)


@pytest.mark.parametrize(("along", "energy"), [(3.0, 1.0), (-2.0, 0.5), (40.0, 3.0), (0.0, 1e-3)])
def test_the_evidence_is_the_mean_likelihood_ratio_over_amplitudes(
    along: float, energy: float
) -> None:
    size = np.linspace(0, 12, 200_001)
    ratio = np.exp(along * size - 0.5 * energy * size**2)
    expected = math.log(np.trapezoid(ratio, size) / 12)
    assert bayesian._log_evidence(along, energy, 12.0) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("mean", "sd", "largest"),
    [(3.0, 1.0, 10.0), (-2.0, 1.0, 10.0), (0.1, 5.0, 2.0), (14.0, 1.0, 10.0), (-20.0, 2.0, 1.0)],
)
def test_amplitudes_are_drawn_from_their_cut_normal(mean: float, sd: float, largest: float) -> None:
    rng = np.random.default_rng(1)
    energy = sd**-2
    found = [bayesian._amplitude(mean * energy, energy, largest, rng) for _ in range(1_500)]
    exact = truncnorm(-mean / sd, (largest - mean) / sd, loc=mean, scale=sd)
    assert kstest(found, exact.cdf).pvalue > 0.01


@pytest.mark.parametrize("seed", range(5))
def test_stationary_noise_is_that_whose_roots_lie_inside_the_unit_circle(seed: int) -> None:
    rng = np.random.default_rng(seed)
    seen = set()
    for _ in range(200):
        coefficients = rng.uniform(-1.5, 1.5, rng.integers(1, 5))
        roots = np.roots(np.r_[1.0, -coefficients])
        expected = bool((np.abs(roots) < 1).all())
        assert bayesian._is_stationary(coefficients) == expected
        seen.add(expected)
    assert seen == {True, False}


def test_equal_seeds_give_equal_scores_and_others_much_the_same() -> None:
    trace, _ = simulate_recording(seconds=2, frequency_hz=5, amplitude=-10, seed=2)
    first, again, other = (
        Bayesian(seed=seed).fitted(12).scan(trace, "negative").values for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.mean((first > 0.5) == (other > 0.5)) > 0.99


def test_its_clock_has_ten_samples_a_decay_and_never_more_than_the_trace() -> None:
    rng = np.random.default_rng(0)
    fast = Trace(samples=rng.normal(size=50_000), rate_hz=50_000.0, unit="pA", start_s=3.0)
    seen: list[tuple[int, int]] = []
    scores = Bayesian().fitted(12).scan(fast, "negative", lambda *step: seen.append(step))
    assert (scores.rate_hz, len(scores), scores.start_s) == (10_000.0, 10_000, 3.0)
    assert seen[-1] == (10_000, 10_000)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    slow = Trace(samples=rng.normal(size=500), rate_hz=4_000.0, unit="pA")
    scores = Bayesian().fitted(12).scan(slow, "negative")
    assert (scores.rate_hz, len(scores)) == (4_000.0, 500)
    assert ((scores.values >= 0) & (scores.values <= 1)).all()

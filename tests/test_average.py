"""The average event and its decay constant."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize

import naive
from quantal.average import _exponential, average_event
from quantal.errors import UsageError
from quantal.trace import Stretches

NOWHERE = Stretches.merged(np.empty((0, 2), np.int64))


def trace(
    at: list[int], n: int = 20_000, sd: float = 0.0, decay: float = 50.0
) -> NDArray[np.float64]:
    """Events of unit scale, decay in samples, on an offset."""
    y = 7.0 + sd * np.random.default_rng(0).standard_normal(n)
    t = np.arange(float(n))
    for start in at:
        y += naive.event_shape(t, start, 1.0, 5.0, decay, 1.0)
    return y


def test_isolated_events_alone_are_averaged() -> None:
    isolated = [2000, 5000, 8000, 11_000, 14_000]
    y = trace([*isolated, 17_000, 17_200])
    a = average_event([(y, [p + 5 for p in [*isolated, 17_000, 17_200]], NOWHERE)], 50_000.0, 600)
    assert a.n == 5
    assert a.isolated
    assert a.time_ms[0] == pytest.approx(-4)
    assert a.time_ms[-1] == pytest.approx(12)
    assert a.waveform[a.time_ms < -0.2] == pytest.approx(0, abs=1e-4)
    expected = naive.event_shape(a.time_ms * 50 + 5, 0.0, 1.0, 5.0, 50.0, 1.0)
    assert a.waveform == pytest.approx(expected, abs=1e-4)


def test_the_decay_constant_is_found_in_noise() -> None:
    at = list(range(1000, 59_000, 1000))
    y = trace(at, 60_000, sd=0.2)
    a = average_event([(y, np.array(at) + 5, NOWHERE)], 50_000.0, 600)
    assert a.n == 58
    assert a.tau_decay_ms == pytest.approx(1.0, rel=0.05)
    fitted = np.isfinite(a.fit)
    assert a.fit[fitted] == pytest.approx(a.waveform[fitted], abs=0.15)
    assert not fitted[a.time_ms <= 0].any()


def test_positions_between_samples_align_better() -> None:
    starts = [2000.5, 5000.5, 8000.5, 11_000.5, 14_000.5]
    y = trace([])
    for start in starts:
        y += naive.event_shape(np.arange(20_000.0), start, 1.0, 5.0, 50.0, 1.0)
    a = average_event([(y, np.array(starts) + 5, NOWHERE)], 50_000.0, 600)
    expected = naive.event_shape(a.time_ms * 50 + 5, 0.0, 1.0, 5.0, 50.0, 1.0)
    assert a.waveform == pytest.approx(expected, abs=0.05)


def test_a_few_events_that_are_not_isolated_still_give_an_average() -> None:
    at = [2000, 2300, 2600, 2900]
    a = average_event([(trace(at), np.array(at) + 5, NOWHERE)], 50_000.0, 600)
    assert a.n == 4
    assert not a.isolated


def test_events_at_edges_and_gaps_are_left_out() -> None:
    at = [50, 3000, 6000, 9000, 12_000, 15_000, 19_950]
    y = trace(at)
    y[9100] = np.nan
    missing = Stretches.merged(np.array([[9_100, 9_101]]))
    a = average_event([(y, np.array(at) + 5, missing)], 50_000.0, 600)
    assert a.n == 4
    assert np.isfinite(a.waveform).all()


@pytest.mark.parametrize("at", [[], [10]])
def test_nothing_to_average(at: list[int]) -> None:
    a = average_event([(trace([]), at, NOWHERE)], 50_000.0, 600)
    assert a.n == 0
    assert len(a.waveform) == len(a.time_ms) == len(a.fit) == 0
    assert np.isnan(a.tau_decay_ms)


def test_a_flat_trace_has_no_decay() -> None:
    a = average_event([(np.full(5000, -70.0), [1000, 2500], NOWHERE)], 50_000.0, 600)
    assert a.n == 2
    assert np.isnan(a.tau_decay_ms)
    assert np.isnan(a.fit).all()


def test_the_unit_does_not_matter() -> None:
    at = [2000, 5000, 8000]
    y = trace(at, sd=0.02)
    once = average_event([(y, at, NOWHERE)], 50_000.0, 600)
    again = average_event([((y - 7) * 1e-12, at, NOWHERE)], 50_000.0, 600)
    assert again.tau_decay_ms == pytest.approx(once.tau_decay_ms, rel=1e-3)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(UsageError, match="rate_hz"):
        average_event([(np.zeros(100), [50], NOWHERE)], -1.0, 60)
    with pytest.raises(UsageError, match="window"):
        average_event([(np.zeros(100), [50], NOWHERE)], 1.0, 2)


def test_the_decay_is_that_of_scipys_least_squares() -> None:
    rng = np.random.default_rng(0)
    t = np.linspace(0, 30, 400)
    v = 0.9 * np.exp(-t / 4.2) + 0.07 + rng.normal(0, 0.02, 400)
    tau, linear = _exponential(t, v, 0.01, 300.0)
    found = optimize.curve_fit(lambda t, a, tau, c: a * np.exp(-t / tau) + c, t, v, (1, 10, 0))[0]
    assert (linear[0], tau, linear[1]) == pytest.approx(tuple(found), rel=1e-4)


def test_downward_events_are_averaged_as_they_are() -> None:
    at = [3_000, 6_000, 9_000, 12_000, 15_000]
    up = average_event([(trace(at), np.array(at) + 5, NOWHERE)], 50_000.0, 600)
    down = average_event([(-trace(at), np.array(at) + 5, NOWHERE)], 50_000.0, 600, sign=-1)
    np.testing.assert_allclose(down.waveform, -up.waveform, atol=1e-5)
    assert down.tau_decay_ms == pytest.approx(up.tau_decay_ms)


def test_events_whose_stretch_meets_what_is_not_wanted_are_left_out() -> None:
    at = [2_000, 4_000, 6_000, 8_000, 10_000, 12_000, 14_000]
    gap = Stretches.merged(np.array([[6_300, 6_301]]))
    found = average_event([(trace(at), np.array(at) + 5, gap)], 50_000.0, 600)
    assert found.n == 6

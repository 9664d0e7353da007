"""Where quantal differs from miniML 1.1 on purpose: one test for each known fault there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from quantal.detect import detect
from quantal.events import Events
from quantal.kinetics import measure
from quantal.simulate import biexponential, matched, simulate_recording
from quantal.trace import Trace
from quantal.windows import FLAT, cut_windows

RATE_HZ = 50_000.0


def upward(
    onsets: list[int],
    n: int = 6000,
    *,
    tau_rise_s: float = 2e-4,
    tau_decay_s: float = 1e-3,
    rate_hz: float = RATE_HZ,
) -> NDArray[np.float32]:
    """Noiseless upward events of amplitude 10 on -70."""
    samples = np.full(n, -70.0)
    event = 10 * biexponential(rate_hz, tau_rise_s, tau_decay_s)
    for onset in onsets:
        part = event[: n - onset]
        samples[onset : onset + len(part)] += part
    return samples.astype(np.float32)


@pytest.fixture(scope="module")
def clear() -> tuple[Trace, NDArray[np.float64]]:
    """Two seconds with clear events, and their onsets."""
    trace, truth = simulate_recording(seconds=2, frequency_hz=8, amplitude=-25, seed=2)
    return trace, truth.onset_s


def scaled(trace: Trace, factor: float) -> Trace:
    """The same recording in another unit."""
    return replace(trace, samples=(trace.samples.astype(float) * factor).astype(np.float32))


@pytest.mark.parametrize("factor", [1e-12, 1e-3, 1e6])
def test_results_do_not_depend_on_the_unit(
    clear: tuple[Trace, NDArray[np.float64]], factor: float
) -> None:
    """miniML truncates its gradient threshold to a whole number."""
    trace, _ = clear
    events, other = detect(trace), detect(scaled(trace, factor))
    np.testing.assert_allclose(events.location_s, other.location_s, rtol=0, atol=1e-8)
    np.testing.assert_allclose(other.amplitude, events.amplitude * factor, rtol=1e-3)


def test_rise_and_half_decay_are_not_quantised_or_smeared() -> None:
    """miniML measures them in whole samples of a smoothed trace: rises read 22 to 32 % too slow."""
    measures = [
        measure(upward([2000], tau_rise_s=rise), RATE_HZ, [2010], 600) for rise in (2.0e-4, 2.02e-4)
    ]
    rises = [float(m.rise_10_90_ms[0]) for m in measures]
    t = np.arange(0, 3, 1e-5)
    shape = (1 - np.exp(-t / 0.2)) * np.exp(-t)
    peak = shape.argmax()
    true = np.interp([0.1, 0.9], shape[: peak + 1] / shape.max(), t[: peak + 1])
    assert rises[0] == pytest.approx(true[1] - true[0], rel=0.02)
    assert 0 < rises[1] - rises[0] < 0.02  # less than a sample apart, and told apart


def test_an_event_that_never_decays_has_no_half_decay() -> None:
    """miniML gives 0."""
    samples = np.full(6000, -70.0, np.float32)
    samples[2000:] += np.float32(10) * (1 - np.exp(-np.arange(4000) / 10)).astype(np.float32)
    assert np.isnan(measure(samples, RATE_HZ, [2005], 600).half_decay_ms[0])


def test_a_second_event_does_not_stretch_the_half_width_of_the_first() -> None:
    """miniML's half-width ends at the last sample above half, wherever that is."""
    alone = measure(upward([2000]), RATE_HZ, [2010], 600).half_width_ms[0]
    pair = measure(upward([2000, 2250]), RATE_HZ, [2010, 2260], 600).half_width_ms[0]
    assert pair == pytest.approx(alone, rel=0.02)


def test_a_flat_window_is_a_score_of_0_and_no_division_by_zero() -> None:
    windows, states = cut_windows(np.full(1000, 3.0, np.float32), 0, 100, 4, 600)
    assert (states == FLAT).all()
    assert (windows == 0).all()


def test_events_in_the_first_and_the_last_window_are_found() -> None:
    """miniML drops those of the first window and of the last 1.3 windows."""
    trace, truth = simulate_recording(seconds=2, frequency_hz=8, amplitude=-25, seed=2)
    first, last = truth.onset_s[0], truth.onset_s[-1]
    cut = trace.between(first - 2e-3, last + 4e-3)
    events = detect(cut)
    assert matched([first, last], events.location_s, tolerance_s=1e-3) == 2
    assert events.edge[[0, -1]].all()


def test_rates_are_not_rounded() -> None:
    trace = Trace(samples=np.zeros(4, np.float32), rate_hz=403.226, unit="pA")
    assert trace.rate_hz == 403.226
    assert trace.duration_s == 4 / 403.226


def test_a_baseline_is_found_at_100_hz() -> None:
    """miniML fails with an exception at a window of 60 samples."""
    samples = upward([300], 1000, tau_rise_s=0.012, tau_decay_s=0.06, rate_hz=100.0)
    found = measure(samples, 100.0, [301], 60)
    assert found.baseline[0] == pytest.approx(-70, abs=0.1)
    assert found.amplitude[0] == pytest.approx(10, rel=0.05)


def test_removing_events_cuts_every_column(clear: tuple[Trace, NDArray[np.float64]]) -> None:
    """miniML's columns are then of different length, and saving fails."""
    events = detect(clear[0])
    kept: Events = events[np.arange(len(events)) != 3]
    assert {len(column) for column in kept.columns().values()} == {len(events) - 1}

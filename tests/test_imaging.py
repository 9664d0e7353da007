"""Matrices of ROIs, and their resting fluorescence."""

from __future__ import annotations

import numpy as np
import pytest

from quantal.baseline import EXPONENTIAL, Baseline, delta_f, resting
from quantal.errors import UsageError
from quantal.imaging import Rois


def rois(samples: object, kind: str = "dff", **more: object) -> Rois:
    return Rois(samples=samples, rate_hz=100.0, kind=kind, **more)  # type: ignore[arg-type]


def test_a_row_is_a_trace_of_its_own_channel() -> None:
    matrix = np.arange(12.0).reshape(3, 4)
    one = rois(matrix, number=[7, 2, 9], recording="cell").exclude([(0.01, 0.02)])
    trace = one.trace(1)
    np.testing.assert_array_equal(trace.samples, matrix[1])
    assert (trace.channel, trace.recording, trace.unit) == ("roi 2", "cell", "dF/F")
    assert trace.excluded == ((0.01, 0.02),)
    assert (len(one), one.duration_s) == (3, 0.04)
    assert rois(matrix).number.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"samples": np.zeros(5)}, "a single trace is for quantal.detect"),
        ({"samples": np.zeros((0, 5))}, "one row per ROI"),
        ({"samples": np.array([["a"]])}, "real numbers"),
        ({"kind": "df"}, "raw, dff, zscored"),
        ({"rate_hz": 0}, "positive"),
        ({"number": np.array([1, 1])}, "a number of its own"),
        ({"number": np.array([1])}, "each of 2 ROIs"),
        ({"position": np.zeros((2, 3))}, "x and y of 2 ROIs"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, object], said: str) -> None:
    fine: dict[str, object] = {"samples": np.zeros((2, 5)), "rate_hz": 100.0, "kind": "dff"}
    with pytest.raises(UsageError, match=said):
        Rois(**{**fine, **given})  # type: ignore[arg-type]


def test_a_median_of_a_straight_line_is_the_line() -> None:
    ramp = np.linspace(100, 200, 2_001).astype(np.float32)
    f0 = resting(ramp, 100.0, Baseline(window_s=4.0, percentile=50))
    np.testing.assert_allclose(f0[250:-250], ramp[250:-250], rtol=1e-3)


def test_the_running_percentile_is_that_of_the_window_at_its_knots() -> None:
    noise = np.random.default_rng(0).normal(10, 1, 5_000).astype(np.float32)
    f0 = resting(noise, 100.0, Baseline(window_s=10.0, percentile=20))
    count = 50  # 5,000 samples at ten knots a window of 1,000
    for knot in np.rint(np.linspace(0, 4_999, count)).astype(int)[::7]:
        window = noise[max(knot - 500, 0) : knot + 501]
        assert f0[knot] == pytest.approx(np.percentile(window, 20), abs=0.02)


def test_events_hardly_move_the_resting_fluorescence() -> None:
    quiet = np.full(6_000, 50.0, np.float32)
    busy = quiet.copy()
    busy[np.arange(100, 6_000, 300)[:, None] + np.arange(30)] += 40
    for how in (Baseline(), Baseline(method=EXPONENTIAL)):
        np.testing.assert_allclose(resting(busy, 100.0, how), 50.0, rtol=0.02)


@pytest.mark.parametrize("tau", [0.1, 0.5, 2.0])
def test_bleaching_is_fitted(tau: float) -> None:
    t = np.arange(6_000) / 6_000
    f0 = 200 * (0.6 + 0.4 * np.exp(-t / tau))
    noisy = f0 * np.random.default_rng(1).normal(1, 0.05, len(t))
    noisy[::600] *= 1.8
    fitted = resting(noisy.astype(np.float32), 100.0, Baseline(method=EXPONENTIAL))
    assert np.abs(fitted / f0 - 1).max() < 0.03


def test_a_trace_that_brightens_has_a_level_baseline() -> None:
    rising = np.linspace(50, 80, 1_000).astype(np.float32)
    assert np.ptp(resting(rising, 100.0, Baseline(method=EXPONENTIAL))) < 1e-6


def test_relative_change_has_the_scale_of_the_resting_fluorescence() -> None:
    t = np.arange(3_000)
    shape = np.where(t % 500 == 100, 0.5, 0.0)
    brightness = np.array([[80.0], [400.0]])
    found = delta_f(rois(brightness * (1 + shape), kind="raw"), Baseline(percentile=50), 2)
    np.testing.assert_allclose(found.samples, np.stack([shape, shape]), atol=1e-5)
    assert (found.kind, found.unit) == ("dff", "dF/F")
    with pytest.raises(UsageError, match="raw fluorescence, got dff"):
        delta_f(found, Baseline())


def test_without_positive_fluorescence_there_is_no_relative_change() -> None:
    matrix = np.stack([np.full(500, 20.0), np.full(500, -3.0)])
    found = delta_f(rois(matrix, kind="raw"), Baseline())
    assert np.isfinite(found.samples[0]).all()
    assert np.isnan(found.samples[1]).all()


def test_missing_samples_stay_missing() -> None:
    matrix = np.full((1, 500), 20.0)
    matrix[0, 40:60] = np.nan
    found = delta_f(rois(matrix, kind="raw"), Baseline()).samples[0]
    assert np.flatnonzero(np.isnan(found)).tolist() == list(range(40, 60))


@pytest.mark.parametrize(
    "given", [{"method": "mean"}, {"window_s": 0}, {"percentile": 101}, {"window_s": np.nan}]
)
def test_a_baseline_out_of_range_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Baseline(**given)  # type: ignore[arg-type]


def test_a_stretch_outside_the_recording_is_told(caplog: pytest.LogCaptureFixture) -> None:
    matrix = np.zeros((2, 100), np.float32)
    assert rois(matrix).exclude([(100, 450)]).excluded == ((100, 450),)
    assert "nothing is excluded from 100 to 450 s" in caplog.messages[0]
    with pytest.raises(UsageError, match="must be pairs of times"):
        rois(matrix).exclude([(1, 2, 3)])  # type: ignore[list-item]

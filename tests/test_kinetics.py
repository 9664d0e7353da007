"""Measures of single events: hand-drawn cases, analytic truth, oracles and a reference program."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import signal

import naive
from quantal import fitting, kinetics
from quantal.errors import UsageError
from quantal.kinetics import Measures, fitting_window, measure
from quantal.simulate import add_at, biexponential

Floats = NDArray[np.float64]

MEASURED = (
    "onset",
    "steepest",
    "peak",
    "baseline",
    "amplitude",
    "rise_10_90_ms",
    "slope_per_ms",
    "half_decay_ms",
    "half_width_ms",
    "tau_decay_ms",
    "area",
)
TIMES = (
    "onset",
    "steepest",
    "peak",
    "rise_10_90_ms",
    "half_decay_ms",
    "half_width_ms",
    "tau_decay_ms",
)


def event(
    rate_hz: float, rise_s: float, decay_s: float, low_pass_hz: float | None = None
) -> tuple[Floats, dict[str, float]]:
    """A noiseless event of unit height and its measures, read from a grid of a microsecond."""
    finer = max(1, round(1e6 / rate_hz))
    fine_hz = rate_hz * finer
    t = np.arange(int(14 * decay_s * fine_hz)) / fine_hz
    y = naive.event_shape(t, 0.0, 1.0, rise_s, decay_s, 1.0)
    if low_pass_hz is not None:
        y = signal.sosfilt(signal.bessel(4, low_pass_hz, fs=fine_hz, output="sos"), y)
    y /= y.max()
    p = int(y.argmax())
    up = [float(np.interp(q, y[: p + 1], t[: p + 1])) for q in (0.1, 0.5, 0.9)]
    half = float(np.interp(-0.5, -y[p:], t[p:]))
    last = int((t[p] + 4 * (half - t[p])) * fine_hz)
    return y[::finer], {
        "amplitude": 1.0,
        "peak_s": float(t[p]),
        "rise_10_90_ms": 1e3 * (up[2] - up[0]),
        "slope_per_ms": float(np.diff(y).max() * fine_hz / 1e3),
        "half_decay_ms": 1e3 * (half - t[p]),
        "half_width_ms": 1e3 * (half - up[1]),
        "area": float(y[:last].sum() / fine_hz),
    }


def placed(shape: Floats, at: int, n: int, height: float = 1.0, offset: float = 0.0) -> Floats:
    y = np.full(n, offset)
    y[at : at + len(shape)] += height * shape[: n - at]
    return y


def location(shape: Floats, at: int) -> int:
    """The sample of the steepest rise."""
    return at + int(np.argmax(np.diff(shape[: int(shape.argmax()) + 1]))) + 1


def noisy(seed: int, n: int, events: list[int], sd: float = 0.05) -> NDArray[np.float32]:
    """Events of unit height at 50 kHz, decay 1 ms, in low-passed noise."""
    shape, _ = event(50_000.0, 2e-4, 1e-3, 2_900.0)
    white = np.random.default_rng(seed).standard_normal(n)
    y = signal.sosfilt(signal.bessel(4, 2_900.0, fs=50_000.0, output="sos"), white)
    y *= sd / y.std()
    for at in events:
        y += placed(shape, at, n)
    return y.astype(np.float32)


# hand-drawn cases


def test_a_triangle_reads_as_drawn() -> None:
    """Up by 10 in 20 samples, down in 40: with no smoothing at all, crossings lie where drawn."""
    y = np.full(400, 5.0)
    y[100:121] += np.arange(21) / 2
    y[120:161] = 5 + np.arange(40, -1, -1) / 4
    m = measure(y, 1000.0, [110], 120, smooth_ms=0)
    assert m.baseline[0] == 5
    assert m.peak[0] == pytest.approx(120, abs=0.5)
    assert m.amplitude[0] == pytest.approx(10, rel=0.005)
    assert m.rise_10_90_ms[0] == pytest.approx(16, rel=0.005)
    assert m.slope_per_ms[0] == pytest.approx(0.5)
    assert m.half_decay_ms[0] == pytest.approx(20, abs=0.5)
    assert m.half_width_ms[0] == pytest.approx(30, rel=0.005)
    assert m.onset[0] == pytest.approx(100, abs=0.5)
    assert m.area[0] == pytest.approx(0.3, rel=0.01)
    assert not m.overlap[0]
    assert not m.edge[0]


def test_what_is_narrower_than_a_sample_has_no_measures() -> None:
    """As where a detector calls the flank before a large event of the other polarity an event."""
    y = np.random.default_rng(0).normal(0, 0.4, 3_000)
    add_at(y, 1_700, -25 * biexponential(10_000.0, 2e-4, 1e-3))
    found = measure(y, 10_000.0, np.arange(1_640, 1_760), 120)
    known = np.isfinite(found.amplitude)
    assert not (found.half_width_ms[known] < 0.1).any()


def test_crossings_of_a_hand_drawn_line() -> None:
    y = np.array([0.0, 0.0, 2.0, 4.0, 3.0, 1.0, 1.0])
    assert kinetics._rise_crossing(y, 0, 3, 1.0) == 1.5
    assert kinetics._fall_crossing(y, 3, 7, 2.0) == 4.5
    assert np.isnan(kinetics._fall_crossing(y, 3, 7, 0.5))
    assert np.isnan(kinetics._rise_crossing(y, 0, 3, 5.0))
    assert kinetics._integral(y, 1.5, 3.0, 0.0) == pytest.approx(0.75 + 3.0)


def test_the_peak_is_sought_until_half_is_lost() -> None:
    y = np.array([0.0, 3.0, 5.0, 4.0, 6.0, 2.0, 9.0])
    assert kinetics._peak(y, 1, 7, 0.0) == 4


# analytic truth


@pytest.mark.parametrize(
    ("rate_hz", "rise_s", "decay_s", "low_pass_hz", "window"),
    [
        (50_000.0, 2e-4, 1e-3, None, 600),
        (50_000.0, 2e-4, 1e-3, 2_900.0, 600),
        (50_000.0, 4e-4, 2e-3, 2_900.0, 1200),
        (50_000.0, 1e-3, 3e-3, 2_900.0, 1800),
        (50_000.0, 2e-3, 2.5e-3, 2_900.0, 1800),
        (50_000.0, 1.2e-3, 8e-3, 2_900.0, 3000),
        (20_000.0, 5e-4, 1e-2, 9_000.0, 2400),
        (20_000.0, 1e-3, 6e-3, 4_000.0, 1440),
        (10_123.4, 1e-3, 5e-3, None, 600),
        (100.0, 0.2, 0.6, 45.0, 600),
    ],
)
def test_a_noiseless_event_is_measured_within_one_percent(
    rate_hz: float, rise_s: float, decay_s: float, low_pass_hz: float | None, window: int
) -> None:
    shape, truth = event(rate_hz, rise_s, decay_s, low_pass_hz)
    y = placed(shape, 2 * window, 5 * window + len(shape), offset=-70.0).astype(np.float32)
    m = measure(y, rate_hz, [location(shape, 2 * window)], window)
    for name in ("amplitude", "rise_10_90_ms", "half_decay_ms", "half_width_ms", "area"):
        assert getattr(m, name)[0] == pytest.approx(truth[name], rel=0.01), name
    assert m.slope_per_ms[0] == pytest.approx(truth["slope_per_ms"], rel=0.05)
    assert m.tau_decay_ms[0] == pytest.approx(1e3 * decay_s, rel=0.025)
    assert m.baseline[0] == pytest.approx(-70.0, abs=1e-4)
    late = (m.peak[0] - 2 * window) / rate_hz - truth["peak_s"]
    assert abs(late) < 0.01 * 1e-3 * truth["half_decay_ms"] + 0.1 / rate_hz


def test_an_event_of_few_samples_is_measured() -> None:
    """At 100 Hz and a window of 60 samples the rise takes less than two samples."""
    shape, truth = event(100.0, 0.012, 0.06, 45.0)
    m = measure(placed(shape, 100, 400, offset=3.0), 100.0, [102], 60)
    assert m.amplitude[0] == pytest.approx(1.0, rel=0.02)
    assert m.rise_10_90_ms[0] == pytest.approx(truth["rise_10_90_ms"], rel=0.05)
    assert m.half_decay_ms[0] == pytest.approx(truth["half_decay_ms"], rel=0.02)
    assert m.baseline[0] == pytest.approx(3.0)


@pytest.mark.parametrize("factor", [0.4, 0.7, 1.5, 3.0])
def test_the_window_need_not_fit_exactly(factor: float) -> None:
    shape, truth = event(50_000.0, 4e-4, 2e-3)
    m = measure(placed(shape, 6000, 15_000), 50_000.0, [6015], int(1200 * factor))
    for name in ("amplitude", "rise_10_90_ms", "half_decay_ms", "area"):
        assert getattr(m, name)[0] == pytest.approx(truth[name], rel=0.02), name


@pytest.mark.parametrize("late", [-10, 0, 10])
def test_a_location_some_samples_off_changes_nothing(late: int) -> None:
    y = noisy(1, 4000, [2000])
    m = measure(y, 50_000.0, [2014 + late], 600)
    exact = measure(y, 50_000.0, [2014], 600)
    for name in MEASURED:
        assert getattr(m, name) == pytest.approx(getattr(exact, name), rel=0.02), name


@pytest.mark.parametrize("decay_ms", [1.0, 3.0, 10.0])
def test_the_steepest_rise_is_found_in_noise_wherever_the_slope_peaks(decay_ms: float) -> None:
    rng = np.random.default_rng(5)
    shape, _ = event(50_000.0, decay_ms / 5e3, decay_ms / 1e3, low_pass_hz=3_000.0)
    n, window = len(shape) + 4_000, round(600 * decay_ms)
    true = 2_000 + int(np.argmax(np.diff(shape[: int(shape.argmax()) + 1]))) + 0.5
    errors = []
    for _ in range(15):
        noise = np.convolve(rng.normal(0, 1, n), np.hanning(20), "same")
        y = placed(shape, 2_000, n) + 0.08 * noise / noise.std()
        off = int(rng.integers(-10, 11) * decay_ms / 2)
        errors.append(measure(y, 50_000.0, [round(true) + off], window).steepest[0] - true)
    assert np.median(np.abs(errors)) < 2.5 * max(decay_ms, 2)  # samples: a twentieth of the decay
    assert abs(np.median(errors)) < 2.5 * max(decay_ms, 2)


# events close together


@pytest.mark.parametrize("gap_ms", [2.0, 3.0, 5.0])
def test_a_second_event_on_the_decay_of_the_first(gap_ms: float) -> None:
    shape, truth = event(50_000.0, 2e-4, 2e-3)
    second = 2000 + int(50 * gap_ms)
    y = placed(shape, 2000, 6000, offset=4.0) + placed(shape, second, 6000, height=0.5)
    m = measure(y, 50_000.0, [2006, second + 6], 1200)
    assert m.amplitude == pytest.approx([1.0, 0.5], rel=0.02)
    assert m.rise_10_90_ms == pytest.approx([truth["rise_10_90_ms"]] * 2, rel=0.03)
    assert m.half_decay_ms[1] == pytest.approx(truth["half_decay_ms"], rel=0.03)
    rest = float(np.interp(m.peak[1], np.arange(6000), placed(shape, 2000, 6000, offset=4.0)))
    assert m.baseline == pytest.approx([4.0, rest], rel=0.01)
    assert m.overlap.tolist() == [True, False]
    assert not m.edge.any()


def test_a_decay_cut_before_half_is_not_measured() -> None:
    shape, _ = event(50_000.0, 2e-4, 2e-3)
    y = placed(shape, 2000, 6000) + placed(shape, 2060, 6000, height=3.0)
    m = measure(y, 50_000.0, [2006, 2066], 1200)
    assert np.isnan([m.half_decay_ms[0], m.half_width_ms[0], m.area[0], m.tau_decay_ms[0]]).all()
    assert m.amplitude[0] == pytest.approx(1.0, rel=0.05)
    assert m.overlap[0]


def test_many_events_at_one_place_still_give_an_answer() -> None:
    y = noisy(2, 3000, [1500])
    m = measure(y, 50_000.0, [1510, 1510, 1511, 1514, 1520], 600)
    assert len(m) == 5


# what cannot be measured


def test_the_end_of_the_sweep_cuts_a_decay() -> None:
    shape, _ = event(50_000.0, 2e-4, 1e-3)
    y = placed(shape, 2000, 2040)
    m = measure(y, 50_000.0, [2006], 600)
    assert m.edge[0]
    assert np.isnan([m.half_decay_ms[0], m.half_width_ms[0], m.area[0], m.tau_decay_ms[0]]).all()
    assert m.amplitude[0] == pytest.approx(1.0, rel=0.01)


def test_an_event_at_the_first_samples_is_kept_and_flagged() -> None:
    shape, _ = event(50_000.0, 2e-4, 1e-3)
    y = placed(shape, 60, 2000)
    m = measure(y, 50_000.0, [66], 600)
    assert m.edge[0]
    assert m.amplitude[0] == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize("at", [0, 1, 997, 999])
def test_a_location_on_the_edge_gives_nan_and_a_flag(at: int) -> None:
    m = measure(np.linspace(0, 1, 1000), 50_000.0, [at], 600)
    assert m.edge[0]
    assert np.isnan(m.half_decay_ms[0])


def test_a_step_never_decays() -> None:
    y = np.zeros(4000)
    y[2000:] = 1.0
    m = measure(y, 50_000.0, [2000], 600)
    assert m.amplitude[0] == pytest.approx(1.0, rel=0.1)
    assert np.isnan([m.half_decay_ms[0], m.half_width_ms[0], m.area[0]]).all()


def test_a_flat_trace_has_nothing_to_measure() -> None:
    m = measure(np.full(2000, -70.0), 50_000.0, [700, 1400], 600)
    for name in MEASURED:
        assert np.isnan(getattr(m, name)).all(), name


def test_missing_samples_cut_like_the_end_of_the_sweep() -> None:
    y = noisy(3, 6000, [2000, 4000]).astype(np.float64)
    y[2040:2300] = np.nan
    m = measure(y, 50_000.0, [2014, 4014], 600)
    assert m.edge.tolist() == [True, False]
    assert np.isnan(m.half_decay_ms[0])
    assert m.amplitude == pytest.approx([1.0, 1.0], rel=0.15)
    y[4014] = np.nan
    m = measure(y, 50_000.0, [4014], 600)
    assert np.isnan(m.amplitude[0])
    assert m.edge[0]


def test_no_locations_no_measures() -> None:
    m = measure(np.zeros(100), 50_000.0, [], 600)
    assert len(m) == 0
    assert m.edge.dtype == np.bool_


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"locations": [5, 3]}, "in order"),
        ({"locations": [100]}, "within 0 to 99"),
        ({"locations": [-1]}, "within 0 to 99"),
        ({"locations": [1.5]}, "whole"),
        ({"rate_hz": 0.0}, "rate_hz"),
        ({"window": 3}, "window"),
        ({"smooth_ms": -1.0}, "smooth_ms"),
    ],
)
def test_a_wrong_argument_is_named(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"rate_hz": 1000.0, "locations": [50], "window": 60}
    with pytest.raises(UsageError, match=message):
        measure(np.zeros(100), **{**arguments, **change})  # type: ignore[arg-type]


# what must not matter


@pytest.fixture(scope="module")
def three() -> tuple[NDArray[np.float32], Measures]:
    y = noisy(4, 6000, [1500, 1620, 3500])
    return y, measure(y, 50_000.0, [1514, 1634, 3514], 600)


@pytest.mark.parametrize("factor", [1e-12, 1e-3, 64.0])
def test_the_unit_changes_levels_and_not_times(
    three: tuple[NDArray[np.float32], Measures], factor: float
) -> None:
    y, once = three
    m = measure(y * np.float32(factor), 50_000.0, [1514, 1634, 3514], 600)
    for name in MEASURED:
        scale = 1.0 if name in TIMES else factor
        assert getattr(m, name) / scale == pytest.approx(
            getattr(once, name), rel=1e-3, abs=1e-6, nan_ok=True
        ), name


def test_an_offset_changes_the_baseline_alone(
    three: tuple[NDArray[np.float32], Measures],
) -> None:
    y, once = three
    m = measure(y.astype(np.float64) - 64.0, 50_000.0, [1514, 1634, 3514], 600)
    assert m.baseline + 64.0 == pytest.approx(once.baseline, abs=1e-4)
    for name in set(MEASURED) - {"baseline"}:
        assert getattr(m, name) == pytest.approx(getattr(once, name), rel=1e-3, nan_ok=True), name


def test_the_rate_only_scales_the_clock(three: tuple[NDArray[np.float32], Measures]) -> None:
    y, once = three
    m = measure(y, 25_000.0, [1514, 1634, 3514], 600)
    assert m.rise_10_90_ms == pytest.approx(2 * once.rise_10_90_ms)
    assert m.area == pytest.approx(2 * once.area, nan_ok=True)
    assert m.slope_per_ms == pytest.approx(once.slope_per_ms / 2)


def test_inputs_are_read_only_and_stay_as_they_are() -> None:
    y = noisy(5, 3000, [1500])
    at = np.array([1514])
    before = y.copy()
    y.setflags(write=False)
    at.setflags(write=False)
    measure(y, 50_000.0, at, 600)
    assert (y == before).all()


# oracles

values = st.floats(-8, 8, width=16).map(float)
lines = arrays(np.float64, st.integers(3, 40), elements=values)


@settings(max_examples=60, deadline=None)
@given(y=lines, level=values)
def test_crossings_agree_with_the_oracle(y: Floats, level: float) -> None:
    n = len(y)
    rise = kinetics._rise_crossing(y, 0, n - 1, level)
    fall = kinetics._fall_crossing(y, 0, n, level)
    assert rise == pytest.approx(naive.rise_crossing(y, 0, n - 1, level), nan_ok=True)
    assert fall == pytest.approx(naive.fall_crossing(y, 0, n, level), nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(y=lines, base=values)
def test_the_peak_agrees_with_the_oracle(y: Floats, base: float) -> None:
    assert kinetics._peak(y, 1, len(y), base) == naive.highest_before_half(y, 1, len(y), base)


@settings(max_examples=60, deadline=None)
@given(y=lines, data=st.data(), half_width=st.floats(0.1, 20))
def test_the_local_mean_agrees_with_the_oracle(
    y: Floats, data: st.DataObject, half_width: float
) -> None:
    i = data.draw(st.integers(0, len(y) - 1))
    mean = kinetics._local_mean(y, i, half_width)
    assert mean == pytest.approx(naive.local_mean(y, i, half_width), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(y=lines, base=values, a=st.floats(0, 1), b=st.floats(0, 1))
def test_the_area_agrees_with_the_oracle(y: Floats, base: float, a: float, b: float) -> None:
    start, stop = sorted((a * (len(y) - 1), b * (len(y) - 1)))
    area = kinetics._integral(y, start, stop, base)
    assert area == pytest.approx(naive.integral(y, start, stop, base), abs=1e-9)


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_the_fit_finds_the_shape_it_was_given(power: float) -> None:
    t = np.arange(-10.0, 80.0)
    truth = (2.3, 5.0, 4.0, 15.0, power)
    v = naive.event_shape(t, *truth)
    start = np.array([0.0, 3.0, 7.0, 25.0, power])
    found, squares = fitting.fit_shape(t, v, np.ones(len(t)), start, 8.0, 1000.0, 1e-4)
    assert found == pytest.approx(truth, rel=1e-4)
    assert squares < 1e-6


def test_the_step_of_the_fit_follows_the_numerical_gradient() -> None:
    t = np.arange(60.0)
    shape = np.array([5.3, 2.0, 4.0, 11.0, 2.0])
    v = naive.event_shape(t, 6.0, 1.7, 5.0, 10.0, 2.0)
    weight = np.linspace(0.5, 4.0, len(t))
    right = np.empty(4)
    squares = fitting.normal_equations(np.empty((4, 4)), right, t, v, weight, shape)
    left = v - naive.event_shape(t, *shape)
    assert squares == pytest.approx((weight * left**2).sum())
    for c in range(4):
        up, down = shape.copy(), shape.copy()
        up[c] += 1e-5 if c == 0 else 1e-5 * shape[c]
        down[c] -= 1e-5 if c == 0 else 1e-5 * shape[c]
        below = (weight * (v - naive.event_shape(t, *down)) ** 2).sum()
        above = (weight * (v - naive.event_shape(t, *up)) ** 2).sum()
        gradient = (below - above) / 4e-5
        assert right[c] == pytest.approx(gradient, rel=1e-4), c


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_a_shape_along_even_times_is_that_at_each_of_them(power: float) -> None:
    shape = np.array([5.3, 2.0, 4.0, 11.0, power])
    for first, step, count in ((-3.0, 0.25, 400), (5.3, 1.0, 90), (40.0, 2.0, 5), (-9.0, 1.0, 3)):
        expected = naive.event_shape(first + step * np.arange(count), *shape)
        np.testing.assert_allclose(
            fitting.shape_along(first, step, count, shape), expected, rtol=1e-9, atol=1e-12
        )


def test_bins_grow_beyond_the_rise_and_cover_every_sample_once() -> None:
    y = np.random.default_rng(0).normal(size=500)
    t, v, weight = kinetics._growing_bins(y, 20, 477, 3, 60.0)
    held = np.rint(3 * weight).astype(int)
    edges = 20 + np.r_[0, np.cumsum(held)]
    assert edges[-1] > 477 - 3
    assert (held[edges[1:] <= 60] == 3).all()
    assert (np.diff(held[:-1]) >= 0).all()
    assert held.max() > 30
    for k in range(len(t)):
        assert v[k] == pytest.approx(y[edges[k] : edges[k + 1]].mean())
        assert t[k] == pytest.approx(0.5 * (edges[k] + edges[k + 1] - 1))


@settings(max_examples=40, deadline=None)
@given(
    y=arrays(np.float32, 300, elements=st.floats(-100, 100, width=32) | st.just(np.nan)),
    at=st.lists(st.integers(0, 299), max_size=6).map(sorted),
    window=st.sampled_from([8, 60, 600]),
)
def test_whatever_comes_in_nothing_breaks(
    y: NDArray[np.float32], at: list[int], window: int
) -> None:
    m = measure(y, 1000.0, at, window)
    assert not (m.amplitude <= 0).any()
    for name in ("rise_10_90_ms", "half_decay_ms", "half_width_ms", "tau_decay_ms"):
        assert not (getattr(m, name) <= 0).any(), name


# against miniML 1.1, on its own locations

REFERENCE = {
    "amplitude": ("amplitude", "amplitudes"),
    "rise_10_90_ms": ("rise_10_90_s", "risetimes_s"),
    "half_decay_ms": ("half_decay_s", "half_decays_s"),
    "half_width_ms": ("half_width_s", "halfwidths_s"),
    "area": ("area", "charges"),
}


def matched(found_s: Floats, true_s: Floats, within_s: float) -> tuple[list[int], list[int]]:
    """Pairs of nearest events, each used once."""
    distance = np.abs(found_s[:, None] - true_s)
    pairs = []
    while distance.size and distance.min() <= within_s:
        i, j = np.unravel_index(int(distance.argmin()), distance.shape)
        pairs.append((int(i), int(j)))
        distance[i, :] = distance[:, j] = np.inf
    return [i for i, _ in pairs], [j for _, j in pairs]


def recording(shared: Path, name: str) -> tuple[Floats, dict[str, Floats], dict[str, Floats]]:
    import pyabf

    folder = shared / "conformance"
    if not (folder / f"{name}.abf").is_file():
        pytest.skip(f"needs {name}.abf of the reference recordings")
    samples = pyabf.ABF(str(folder / f"{name}.abf")).sweepY
    with (
        np.load(folder / f"{name}.truth.npz") as truth,
        np.load(folder / f"{name}.miniml.npz") as found,
    ):
        return samples, dict(truth), dict(found)


@pytest.mark.parametrize("name", ["gc_minis", "busy_calyx", "low_snr", "slow_golgi", "gc_epsp"])
def test_medians_are_at_least_as_good_as_the_reference_program(shared: Path, name: str) -> None:
    samples, truth, found = recording(shared, name)
    upward = samples if name == "gc_epsp" else -samples
    fs, at = float(truth["fs"]), found["event_locations"]
    m = measure(upward, fs, at, int(found["window"]))
    rows, true_rows = matched(at / fs, truth["onset_s"], 3e-3)
    for ours, (true_name, theirs) in REFERENCE.items():
        expected = np.abs(truth[true_name][true_rows])
        ms = 1e3 if ours.endswith("_ms") else 1.0
        error = np.abs(getattr(m, ours)[rows]) / ms / expected - 1
        reference = np.abs(found[theirs][rows])
        reference = np.where(reference > 0, reference, np.nan) / expected - 1
        assert np.isfinite(error).mean() > 0.95, ours
        assert np.nanmedian(np.abs(error)) <= np.nanmedian(np.abs(reference)), ours
    rise = np.nanmedian(m.rise_10_90_ms[rows] / 1e3 / truth["rise_10_90_s"][true_rows]) - 1
    assert abs(rise) < 0.08


def test_optical_events_are_measured_where_the_reference_program_fails(shared: Path) -> None:
    samples, truth, found = recording(shared, "optical_minis")
    at = found["event_locations"]
    m = measure(samples, 100.0, at, int(found["window"]))
    rows, true_rows = matched(at / 100.0, truth["onset_s"], 0.1)
    for ours, limit in (("amplitude", 0.08), ("half_decay_ms", 0.13), ("half_width_ms", 0.1)):
        ms = 1e3 if ours.endswith("_ms") else 1.0
        error = getattr(m, ours)[rows] / ms / truth[REFERENCE[ours][0]][true_rows] - 1
        assert np.nanmedian(np.abs(error)) < limit, ours


@settings(max_examples=40, deadline=None)
@given(
    gaps=st.lists(st.integers(1, 120), min_size=1, max_size=12),
    seed=st.integers(0, 1_000),
    window=st.sampled_from([60, 600]),
)
def test_locations_however_close_are_measured(gaps: list[int], seed: int, window: int) -> None:
    samples = np.random.default_rng(seed).normal(size=3_000).cumsum()
    locations = 500 + np.cumsum(gaps)
    assert len(measure(samples, 50_000.0, locations, window)) == len(gaps)


def test_the_window_that_fits_is_twelve_decays_of_the_events() -> None:
    t = np.arange(2_000) / 50.0  # ms
    event = -np.expm1(-t / 0.5) * np.exp(-t / 4.0)
    samples = np.zeros(60_000)
    locations = np.arange(5_000, 55_000, 5_000)
    for at in locations:
        samples[at - 20 : at + 1_980] += event
    samples += 1e-3 * np.random.default_rng(0).standard_normal(len(samples))
    for window in (600, 1_200, 2_000):
        fitted = fitting_window(measure(samples, 50_000.0, locations, window), window, 50_000.0)
        assert fitted == window if window == 2_000 else fitted == pytest.approx(2_600, rel=0.15)


def test_without_events_the_window_stays() -> None:
    nothing = measure(np.zeros(1_000), 50_000.0, np.empty(0, np.int64), 600)
    assert fitting_window(nothing, 600, 50_000.0) == 600


def test_who_will_wait_for_kernels_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stats = SimpleNamespace(cache_path=str(tmp_path))
    kept = SimpleNamespace(stats=stats, signatures=[], py_func=measure)
    line = measure.__code__.co_firstlineno
    monkeypatch.setattr(kinetics, "_measure_all", kept)
    (tmp_path / f"kinetics._read-{line}.py311.nbi").touch()  # another one: it was interrupted
    (tmp_path / f"kinetics.measure-{line + 1}.py311.nbi").touch()  # of an older version
    assert "happens once" in str(kinetics.compiling())
    (tmp_path / f"kinetics.measure-{line}.py311.nbi").touch()
    assert kinetics.compiling() is None
    stats.cache_path = None
    assert "quantal doctor" in str(kinetics.compiling())
    kept.signatures = ["compiled"]  # in this process, for the recording before
    assert kinetics.compiling() is None
    monkeypatch.setattr(kinetics, "_measure_all", len)  # as where compiling is switched off
    assert kinetics.compiling() is None

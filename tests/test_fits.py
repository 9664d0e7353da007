"""Fits of events: simulated truth, close pairs, honest errors, oracles, and what has no fit."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import toeplitz
from scipy.optimize import curve_fit

import naive
from quantal import fits, groups, joint
from quantal.cli import main
from quantal.errors import UsageError
from quantal.events import Events, make_events
from quantal.fits import Fits, fit_events
from quantal.kinetics import measure
from quantal.save import load_events, save_events, save_fits
from quantal.simulate import Rig, Truth, add_at, biexponential, record, simulate_recording
from quantal.trace import Trace

Floats = NDArray[np.float64]
RATE_HZ = 50_000.0
PAIRS = {  # a column: its standard error, and the truth in its unit
    "onset_s": ("onset_se_s", "onset_s", 1.0),
    "amplitude": ("amplitude_se", "amplitude", 1.0),
    "tau_rise_ms": ("tau_rise_se_ms", "tau_rise_s", 1e3),
    "tau_decay_ms": ("tau_decay_se_ms", "tau_decay_s", 1e3),
}
NUMBERS = [name for name in Fits.__dataclass_fields__ if name.endswith(("_ms", "_s", "_se"))]
NUMBERS += ["amplitude", "r2", "reduced_chi2"]


def events_at(trace: Trace, onset_s: ArrayLike, window_ms: float = 12.0, sign: int = -1) -> Events:
    """Events where they are known to be, 0.2 ms after their onsets, measured as ever."""
    since = np.asarray(onset_s, np.float64) + 2e-4 - trace.start_s
    location = np.round(since * trace.rate_hz).astype(np.int64)
    window = round(1e-3 * window_ms * trace.rate_hz)
    m = measure(sign * trace.samples, trace.rate_hz, location, window)
    names = "rise_10_90_ms", "half_decay_ms", "half_width_ms", "tau_decay_ms", "overlap", "edge"
    return make_events(
        {
            **{name: getattr(m, name) for name in names},
            **{name: getattr(trace, name) for name in ("recording", "channel", "sweep", "unit")},
            "event": np.arange(len(location)),
            "onset_s": trace.start_s + m.onset / trace.rate_hz,
            "location_s": trace.start_s + location / trace.rate_hz,
            "peak_s": trace.start_s + m.peak / trace.rate_hz,
            "amplitude": sign * m.amplitude,
            "baseline": sign * m.baseline,
            "slope_per_ms": sign * m.slope_per_ms,
            "area": sign * m.area,
            "score": 1.0,
            "interval_s": np.nan,
            "polarity": sign,
            "status": "found",
        },
        [],
    )


def recording(
    onsets: list[int],
    *,
    n: int = 20_000,
    heights: ArrayLike = -10.0,
    rise_s: float = 3e-4,
    decay_s: float = 1.5e-3,
    rig: Rig | None = None,
    noise_sd: float = 0.0,
    seed: int = 0,
) -> Trace:
    """Events of one shape at samples of choice, as a rig records them."""
    clean = np.zeros(n)
    for at, height in zip(onsets, np.broadcast_to(heights, len(onsets)), strict=True):
        add_at(clean, at, height * biexponential(RATE_HZ, rise_s, decay_s))
    if rig is not None:
        clean = record(clean, rig, noise_sd, np.random.default_rng(seed))
    return Trace(samples=(clean - 20).astype(np.float32), rate_hz=RATE_HZ, unit="pA")


QUIET = Rig(hum=0.0, drift=0.0, digitiser=0.0)


# known truth


@pytest.mark.parametrize("lowpass_hz", [None, 2_900.0, 6_000.0])
@pytest.mark.parametrize(("rise_s", "decay_s"), [(2e-4, 1e-3), (5e-4, 4e-3), (1e-3, 2e-3)])
def test_without_noise_the_fit_is_the_truth(
    lowpass_hz: float | None, rise_s: float, decay_s: float
) -> None:
    rig = None if lowpass_hz is None else replace(QUIET, cutoff_hz=lowpass_hz)
    trace = recording([4000, 12_000], rise_s=rise_s, decay_s=decay_s, rig=rig)
    f = events_at(trace, [0.08, 0.24], 12e3 * decay_s).fit(trace, lowpass_hz=lowpass_hz)
    assert f.amplitude == pytest.approx([-10, -10], rel=0.01)
    assert f.tau_rise_ms == pytest.approx([1e3 * rise_s] * 2, rel=0.03)
    assert f.tau_decay_ms == pytest.approx([1e3 * decay_s] * 2, rel=0.015)
    assert f.onset_s == pytest.approx([0.08, 0.24], abs=4e-6)
    assert f.r2 == pytest.approx([1, 1], abs=1e-4)
    assert f.together.tolist() == [1, 1]


def test_durations_are_those_of_the_waveform_before_the_filter() -> None:
    trace = recording([4000], rise_s=3e-4, decay_s=1.5e-3, rig=QUIET)
    f = events_at(trace, [0.08], 18).fit(trace, lowpass_hz=2_900.0)
    t = np.arange(20_000) * 1e-6
    y = naive.event_shape(t, 0.0, 1.0, 3e-4, 1.5e-3, 1.0)
    peak = int(y.argmax())
    t10, t50, t90 = (naive.rise_crossing(y, 0, peak, x * y.max()) for x in (0.1, 0.5, 0.9))
    half = naive.fall_crossing(y, peak, len(y), 0.5 * y.max())
    assert f.rise_10_90_ms[0] == pytest.approx(1e-3 * (t90 - t10), rel=0.02)
    assert f.half_decay_ms[0] == pytest.approx(1e-3 * (half - peak), rel=0.02)
    assert f.half_width_ms[0] == pytest.approx(1e-3 * (half - t50), rel=0.02)


@pytest.fixture(scope="module")
def minis() -> tuple[Trace, Truth, Fits]:
    """A minute of events of 12 noise SD at 5 Hz, with hum and drift, fitted."""
    trace, truth = simulate_recording(seconds=60, frequency_hz=5, amplitude=-12, seed=3)
    return trace, truth, events_at(trace, truth.onset_s).fit(trace, lowpass_hz=2_900.0)


@pytest.mark.parametrize(
    ("name", "bias", "error"),
    [("amplitude", 0.015, 0.05), ("tau_decay_ms", 0.03, 0.1), ("tau_rise_ms", 0.08, 0.3)],
)
def test_in_noise_the_fits_are_unbiased_and_near_the_truth(
    minis: tuple[Trace, Truth, Fits], name: str, bias: float, error: float
) -> None:
    _, truth, f = minis
    _, true_name, unit = PAIRS[name]
    off = getattr(f, name) / (unit * getattr(truth, true_name)) - 1
    assert np.isfinite(off).mean() > (0.9 if name == "tau_rise_ms" else 0.98)
    assert abs(np.nanmedian(off)) < bias
    assert np.nanmedian(np.abs(off)) < error


@pytest.mark.parametrize("name", list(PAIRS))
def test_two_thirds_of_the_fits_lie_within_a_standard_error(
    minis: tuple[Trace, Truth, Fits], name: str
) -> None:
    _, truth, f = minis
    error, true_name, unit = PAIRS[name]
    z = (getattr(f, name) - unit * getattr(truth, true_name)) / getattr(f, error)
    z = z[np.isfinite(z)]
    assert 0.55 <= np.mean(np.abs(z) < 1) <= 0.80
    assert np.mean(np.abs(z) < 3) > 0.95
    assert abs(np.median(z)) < 0.25


def test_what_is_left_over_is_as_much_as_the_noise(minis: tuple[Trace, Truth, Fits]) -> None:
    _, _, f = minis
    assert np.nanmedian(f.reduced_chi2) == pytest.approx(1, abs=0.07)


def test_another_shape_leaves_more_than_the_noise() -> None:
    trace = recording([9000], heights=-60.0, rig=QUIET, noise_sd=1.0)
    samples = trace.samples.copy()
    samples[9100:9160] -= 8
    bumpy = Trace(samples=samples, rate_hz=RATE_HZ, unit="pA")
    alone, with_bump = (events_at(t, [0.18], 18).fit(t, lowpass_hz=2_900.0) for t in (trace, bumpy))
    assert alone.reduced_chi2[0] < 1.6
    assert with_bump.reduced_chi2[0] > 3
    assert with_bump.amplitude_se[0] > 1.4 * alone.amplitude_se[0]


@pytest.mark.parametrize("gap_ms", [2.0, 3.0])
@pytest.mark.parametrize("decay_s", [1e-3, 2e-3])
def test_a_close_pair_is_told_apart(gap_ms: float, decay_s: float) -> None:
    first = list(range(5000, 195_000, 5000))
    second = [at + int(50 * gap_ms) for at in first]
    onsets = sorted(first + second)
    heights = np.where(np.isin(onsets, first), -20.0, -12.0)
    trace = recording(
        onsets, n=200_000, heights=heights, rise_s=2e-4, decay_s=decay_s, rig=Rig(), noise_sd=1.0
    )
    events = events_at(trace, np.array(onsets) / RATE_HZ, 12e3 * decay_s)
    f = events.fit(trace, lowpass_hz=2_900.0)
    assert np.mean(f.together == 2) > 0.9
    for height in (-20.0, -12.0):
        mine = heights == height
        assert np.nanmedian(f.amplitude[mine]) == pytest.approx(height, rel=0.06)
        assert np.nanmedian(f.tau_decay_ms[mine]) == pytest.approx(1e3 * decay_s, rel=0.12)
        z = (f.amplitude[mine] - height) / f.amplitude_se[mine]
        assert np.nanmean(np.abs(z) < 2) > 0.85


def test_a_long_chain_is_fitted_in_parts() -> None:
    onsets = [4000 + 200 * k + (80 if k > 4 else 0) for k in range(9)]
    trace = recording(onsets, decay_s=2e-3, rig=QUIET, noise_sd=0.2)
    f = events_at(trace, np.array(onsets) / RATE_HZ, 24).fit(trace, lowpass_hz=2_900.0)
    assert f.together.max() <= fits.LARGEST
    assert (f.together > 0).all()
    assert f.amplitude == pytest.approx([-10] * 9, rel=0.12)


def test_a_chain_is_cut_where_it_overlaps_least() -> None:
    location = np.array([0.0, 10, 20, 60, 70, 80, 200])
    wanted = np.ones(300, np.bool_)
    assert fits._groups(location, np.full(7, 12.0), wanted).tolist() == [0, 3, 6, 7]
    wanted[15] = False
    assert fits._groups(location, np.full(7, 12.0), wanted).tolist() == [0, 2, 6, 7]


def test_a_sloping_baseline_is_fitted_where_there_is_one() -> None:
    trace = recording([9000], heights=-30.0, rig=QUIET, noise_sd=1.0)
    tilted = replace(trace, samples=(trace.samples + np.arange(20_000) / 25).astype(np.float32))
    level, sloped = (events_at(t, [0.18], 18).fit(t, lowpass_hz=2_900.0) for t in (trace, tilted))
    assert sloped.amplitude[0] == pytest.approx(level.amplitude[0], rel=0.08)
    assert sloped.tau_decay_ms[0] == pytest.approx(level.tau_decay_ms[0], rel=0.15)


def test_a_rise_faster_than_the_filter_is_uncertain_or_missing() -> None:
    onsets = list(range(4000, 96_000, 4000))
    trace = recording(onsets, n=100_000, rise_s=2e-6, rig=Rig(cutoff_hz=1_000), noise_sd=1.0)
    f = events_at(trace, np.array(onsets) / RATE_HZ, 18).fit(trace, lowpass_hz=1_000.0)
    unsure = np.isnan(f.tau_rise_ms) | (f.tau_rise_se_ms > 0.3 * f.tau_rise_ms)
    assert np.mean(unsure) > 0.9
    z = (f.tau_decay_ms - 1.5) / f.tau_decay_se_ms
    assert np.nanmean(np.abs(z) < 2) > 0.8


# what must not matter


@pytest.fixture(scope="module")
def pair() -> tuple[Trace, Events, Fits]:
    trace = recording([4000, 4120, 12_000], rig=Rig(), noise_sd=0.5, seed=5)
    events = events_at(trace, [0.08, 0.0824, 0.24], 18)
    return trace, events, events.fit(trace, lowpass_hz=2_900.0)


def assert_same(found: Fits, expected: Fits, factors: dict[str, float] | None = None) -> None:
    assert (found.together == expected.together).all()
    for name in NUMBERS:
        factor = (factors or {}).get(name, 1.0)
        assert getattr(found, name) == pytest.approx(
            factor * getattr(expected, name), rel=5e-3, nan_ok=True
        ), name


@pytest.mark.parametrize("factor", [-1.0, 64.0, 1e-12])
def test_unit_and_polarity_change_amplitudes_alone(
    pair: tuple[Trace, Events, Fits], factor: float
) -> None:
    trace, events, once = pair
    other = replace(trace, samples=(trace.samples.astype(np.float64) * factor).astype(np.float32))
    turned = replace(events, polarity=events.polarity * int(np.sign(factor)))
    found = turned.fit(other, lowpass_hz=2_900.0)
    assert_same(found, once, {"amplitude": factor, "amplitude_se": abs(factor)})


def test_an_offset_changes_nothing(pair: tuple[Trace, Events, Fits]) -> None:
    trace, events, once = pair
    assert_same(events.fit(replace(trace, samples=trace.samples - 64), lowpass_hz=2_900.0), once)


def test_the_clock_shifts_onsets_alone(pair: tuple[Trace, Events, Fits]) -> None:
    trace, events, once = pair
    late = {name: getattr(events, name) + 3.0 for name in ("onset_s", "location_s", "peak_s")}
    found = replace(events, **late).fit(replace(trace, start_s=3.0), lowpass_hz=2_900.0)
    assert found.onset_s - 3 == pytest.approx(once.onset_s, abs=1e-8)
    assert_same(found, replace(once, onset_s=once.onset_s + 3))


def test_half_the_rate_doubles_all_times(pair: tuple[Trace, Events, Fits]) -> None:
    trace, events, once = pair
    slower = {
        name: 2 * values
        for name, values in events.columns().items()
        if name.endswith(("_s", "_ms")) and name != "slope_per_ms"
    }
    found = replace(events, **slower).fit(replace(trace, rate_hz=25_000.0), lowpass_hz=1_450.0)
    doubled = {name: 2.0 for name in NUMBERS if name.endswith(("_s", "_ms"))}
    assert_same(found, once, doubled)


def test_rows_stay_with_their_events(pair: tuple[Trace, Events, Fits]) -> None:
    trace, events, once = pair
    assert_same(events[[2, 0, 1]].fit([trace], lowpass_hz=2_900.0), once[[2, 0, 1]])
    assert len(once[once.together == 2]) == 2


# what has no fit


def test_events_that_are_cut_or_missing_have_no_fit() -> None:
    trace = recording([-8, 4000, 8000, 12_000, 19_980], rig=QUIET, noise_sd=0.2)
    samples = trace.samples.copy()
    samples[8020:8060] = np.nan
    trace = replace(trace, samples=samples).exclude([(0.2402, 0.241)])
    f = events_at(trace, [6e-5, 0.08, 0.16, 0.24, 0.3996], 18).fit(trace, lowpass_hz=2_900.0)
    assert f.together.tolist() == [0, 1, 0, 0, 0]
    for name in NUMBERS:
        assert np.isfinite(getattr(f, name)).tolist() == [False, True, False, False, False], name


def test_rejected_events_and_those_of_other_traces_have_no_fit(
    pair: tuple[Trace, Events, Fits],
) -> None:
    trace, events, _ = pair
    assert events.reject([2]).fit(trace).together.tolist() == [2, 2, 0]
    assert not events.fit(replace(trace, sweep=7)).together.any()
    assert len(events[:0].fit(trace)) == 0


def test_noise_alone_gives_no_nonsense() -> None:
    trace = recording([], rig=Rig(), noise_sd=1.0)
    f = events_at(trace, np.arange(0.01, 0.39, 0.01)).fit(trace, lowpass_hz=2_900.0)
    fitted = f.together > 0
    assert (f.amplitude[fitted] < 0).all()
    assert (f.tau_decay_se_ms[fitted] > 0.1 * f.tau_decay_ms[fitted]).mean() > 0.8


def test_a_flat_trace_has_no_fit() -> None:
    trace = Trace(samples=np.full(20_000, -20.0), rate_hz=RATE_HZ, unit="pA")
    f = events_at(trace, [0.08, 0.24]).fit(trace)
    assert not f.together.any()
    assert np.isnan(f.amplitude).all()


@pytest.mark.parametrize("lowpass_hz", [0, -2900.0, np.nan, "2900", True])
def test_a_wrong_low_pass_is_named(lowpass_hz: object) -> None:
    trace = recording([4000])
    with pytest.raises(UsageError, match="lowpass_hz must be a positive frequency"):
        fit_events(trace, events_at(trace, [0.08]), lowpass_hz=lowpass_hz)  # type: ignore[arg-type]


def test_something_else_than_a_trace_is_named() -> None:
    trace = recording([4000])
    with pytest.raises(UsageError, match="a Trace is wanted, got ndarray"):
        fit_events([trace.samples], events_at(trace, [0.08]))  # type: ignore[list-item]


# oracles


def test_the_waveform_is_that_of_the_rig() -> None:
    """The closed form against the Fourier transform of the rig's filter."""
    fine = Rig(rate_hz=1e6, cutoff_hz=2_900.0, hum=0.0, drift=0.0)
    clean = np.zeros(30_000)
    add_at(clean, 1000, biexponential(1e6, 2e-4, 1.5e-3))
    expected = record(clean, fine, 0.0, np.random.default_rng(0))
    poles, weights, _, _ = fits._low_pass(2_900.0, 1e6)
    found = joint.wave(0.0, 1.0, 30_000, np.array([1000.0, 200.0, 1500.0]), poles, weights)
    assert found == pytest.approx(expected, abs=2e-5)
    nothing = np.empty(0, np.complex128)
    bare = joint.wave(5.0, 3.0, 200, np.array([20.3, 10.0, 60.0]), nothing, nothing)
    t = 5.0 + 3.0 * np.arange(200)
    shape = naive.event_shape(t, 20.3, 1.0, 10.0, 60.0, 1.0)
    top = naive.event_shape(np.array([joint.peak_time(10.0, 60.0)]), 0, 1.0, 10.0, 60.0, 1.0)[0]
    assert bare == pytest.approx(shape / top, abs=1e-12)
    assert joint.unit_peak(10.0, 60.0) == pytest.approx(top)


@pytest.mark.parametrize("shapes", [[[40.0, 8.0, 50.0]], [[40.0, 8.0, 50.0], [110.0, 5.0, 30.0]]])
def test_one_event_and_a_pair_agree_with_scipy(shapes: list[list[float]]) -> None:
    """Values and, in white noise, standard errors are those of curve_fit."""
    poles, weights, _, _ = fits._low_pass(2_900.0, RATE_HZ)
    truth, events, step = np.array(shapes), len(shapes), 2.0
    sizes = np.array([10.0, 7.0])[:events]
    rows = joint.waves(0.0, step, 250, truth, 0, poles, weights)
    v = np.r_[sizes, 1.5] @ rows + 0.3 * np.random.default_rng(1).standard_normal(250)

    def curve(t: Floats, *p: float) -> Floats:
        given = np.array(p[: 3 * events]).reshape(events, 3)
        assert len(t) == 250
        out: Floats = np.array(p[3 * events :]) @ joint.waves(
            0.0, step, 250, given, 0, poles, weights
        )
        return out

    start = np.r_[truth.ravel() * 1.1, sizes, 0.0]
    expected, spread = curve_fit(curve, np.arange(250), v, p0=start)
    low, high = np.full((events, 3), 0.2), np.full((events, 3), 400.0)
    found, levels, left, settled = joint.fit_joint(
        v, 0.0, step, truth * 1.2, low, high, 0, poles, weights
    )
    assert settled
    assert np.r_[found.ravel(), levels] == pytest.approx(expected, rel=2e-2, abs=0.05)
    assert left @ left == pytest.approx(np.sum((v - curve(np.arange(250), *expected)) ** 2), 1e-4)
    slopes = joint.tangents(
        *(0.0, step, found, levels),
        *(joint.waves(0.0, step, 250, found, 0, poles, weights), poles, weights),
    )
    white = np.zeros(250)
    white[0] = left @ left / (250 - len(expected))
    stuck = np.zeros(len(slopes), np.bool_)
    variance = np.diag(joint.covariance(slopes, white, stuck)[0]).copy()
    unit = np.ones((events, 3))
    unit[:, 1:] = found[:, 1:]
    errors = np.sqrt(variance) * np.r_[unit.ravel(), np.ones(events + 1)]
    assert errors == pytest.approx(np.sqrt(np.diag(spread)), rel=0.05)


def test_errors_in_coloured_noise_agree_with_matrices() -> None:
    rng = np.random.default_rng(2)
    slopes = rng.standard_normal((5, 60)).cumsum(axis=1)
    slopes[4] = 1.0
    noise = np.exp(-np.arange(60) / 7)
    inverse = np.linalg.inv(slopes @ slopes.T)
    expected = inverse @ slopes @ toeplitz(noise) @ slopes.T @ inverse
    nothing = np.zeros(5, np.bool_)
    found, _, taken = joint.covariance(slopes, noise, nothing)
    assert found == pytest.approx(expected, rel=1e-8)
    shifted, _, taken_then = joint.covariance(slopes, noise - 3.0, nothing)
    assert shifted[:4, :4] == pytest.approx(expected[:4, :4], rel=1e-6)  # a constant is baseline
    assert taken - taken_then == pytest.approx(3.0 * 60)
    stuck = np.array([False, True, False, False, False])
    rest = slopes[~stuck]
    inverse = np.linalg.inv(rest @ rest.T)
    expected = inverse @ rest @ toeplitz(noise) @ rest.T @ inverse
    found, _, _ = joint.covariance(slopes, noise, stuck)
    assert found[np.ix_(~stuck, ~stuck)] == pytest.approx(expected, rel=1e-8)
    assert not found[1].any()


def test_the_noise_is_read_between_the_events() -> None:
    """White noise of SD 2 has no covariance but at lag 0, whatever the events are like."""
    samples = np.random.default_rng(0).normal(0, 2, 50_000)
    samples[20_000:20_100] += 500
    guesses = np.array([[19_998.0, 10.0, 50.0]])
    noise = fits._noise(samples.astype(np.float32), guesses)
    assert noise[0] == 0
    assert -noise[1:] == pytest.approx(4, rel=0.2)
    joined = groups._binned_noise(noise, 4, 5)
    assert joined[0] - joined[4] == pytest.approx(4 / 4, rel=0.25)


def test_kernels_give_the_same_without_compilation() -> None:
    code = (
        "import numpy as np, test_fits as t\n"
        "trace = t.recording([600], n=1600, rig=t.Rig(), noise_sd=0.3, decay_s=1e-3)\n"
        "f = t.events_at(trace, [0.012]).fit(trace, lowpass_hz=2900.0)\n"
        "print(*(repr(float(v[0])) for v in (f.amplitude, f.tau_decay_ms, f.amplitude_se)))"
    )
    answers = []
    for flag in ("0", "1"):
        env = {**os.environ, "NUMBA_DISABLE_JIT": flag}
        env["PYTHONPATH"] = os.pathsep.join([*sys.path, str(Path(__file__).parent)])
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False
        )
        assert done.returncode == 0, done.stderr
        answers.append([float(word) for word in done.stdout.split()])
    assert answers[0] == pytest.approx(answers[1], rel=1e-4)


# files and command line


def test_fits_are_saved_beside_the_events(pair: tuple[Trace, Events, Fits], tmp_path: Path) -> None:
    _, events, found = pair
    save_fits(found, tmp_path / "cell.fits.csv")
    lines = (tmp_path / "cell.fits.csv").read_text().splitlines()
    assert lines[0].split(",") == list(found.columns())
    assert len(lines) == 4
    save_events(events, tmp_path / "cell.events.h5", fits=found)
    assert len(load_events(tmp_path / "cell.events.h5")) == 3
    found.save(tmp_path / "alone.h5")
    for name in ("cell.events.h5", "alone.h5"):
        with h5py.File(tmp_path / name) as file:
            assert set(file["fits"]) == set(found.columns())
            assert file["fits/amplitude"][()] == pytest.approx(found.amplitude)
            assert file["fits/amplitude_se"].attrs["unit"] == "pA"
            assert file["fits/tau_rise_se_ms"].attrs["unit"] == "ms"
    with pytest.raises(UsageError, match="suffix"):
        found.save(tmp_path / "cell.doc")


def test_detect_fits_when_asked(tmp_path: Path) -> None:
    trace, _ = simulate_recording(seconds=3, frequency_hz=4, amplitude=-20, seed=3)
    path = tmp_path / "cell.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("current", data=trace.samples)
        data.attrs.update({"rate_hz": trace.rate_hz, "unit": trace.unit})
    arguments = ["detect", str(path), "--out", str(tmp_path), "--json"]
    options = ["--fit", "--lowpass-hz", "2900", "--format", "csv,h5"]
    result = CliRunner().invoke(main, arguments + options)
    assert result.exit_code == 0, result.output
    events = load_events(tmp_path / "cell.events.csv")
    rows = np.genfromtxt(tmp_path / "cell.fits.csv", delimiter=",", names=True)
    assert len(rows) == len(events) > 5
    assert np.nanmedian(rows["tau_decay_ms"]) == pytest.approx(1, rel=0.2)
    with h5py.File(tmp_path / "cell.events.h5") as file:
        assert len(file["fits/onset_s"]) == len(events)
    assert '"lowpass_hz": 2900.0' in result.stdout
    refused = CliRunner().invoke(main, [*arguments, "--lowpass-hz", "2900"])
    assert refused.exit_code == 2
    assert "add --fit" in refused.stderr
    refused = CliRunner().invoke(main, [*arguments, "--fit", "--lowpass-hz", "-1"])
    assert refused.exit_code == 2
    assert "lowpass_hz must be" in refused.stderr

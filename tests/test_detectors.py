"""Detectors that need no network: the same road to events, whatever gives the scores."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from quantal import Events, Trace, detect, load_events
from quantal.classical import (
    DETECTORS,
    Bayesian,
    Deconvolution,
    Detector,
    Matched,
    Template,
    Threshold,
    make_detector,
)
from quantal.cli import _DETECTORS, main
from quantal.detect import analyse, settle
from quantal.errors import UsageError
from quantal.scan import Scores
from quantal.simulate import add_at, biexponential, matched, simulate_recording

Samples = NDArray[np.float32]

RATE_HZ = 10_000.0
ONSETS = [500, 1_000, 1_700, 2_400]
ALL = sorted(DETECTORS)
QUICK = sorted(set(DETECTORS) - {"bayesian"})
SIGNED = ("amplitude", "baseline", "slope_per_ms", "area", "polarity")
LARGE = 5.0  # SDs of the noise: beyond doubt for every detector


def recording(
    *onsets: int, n: int = 3_000, size: float = 25.0, noise: float = 0.4, seed: int = 0
) -> Trace:
    """Downward events that begin at these samples, on white noise."""
    y = np.random.default_rng(seed).normal(0, noise, n)
    for at in onsets:
        add_at(y, at, -size * biexponential(RATE_HZ, 2e-4, 1e-3))
    return Trace(samples=y.astype(np.float32), rate_hz=RATE_HZ, unit="pA")


def find(trace: Trace, name: str, **options: Any) -> Events:
    """Events beyond doubt: those of noise, which each detector has some of, are another matter."""
    threshold = options.pop("threshold", 0.5 if name == "bayesian" else LARGE)
    return detect(trace, detector=name, threshold=threshold, **options)


def positions(events: Events, trace: Trace) -> list[int]:
    return np.round((events.location_s - trace.start_s) * trace.rate_hz).astype(int).tolist()


def assert_near(events: Events, trace: Trace, onsets: list[int]) -> None:
    assert positions(events, trace) == pytest.approx([at + 1 for at in onsets], abs=3)


@pytest.mark.parametrize("name", ALL)
def test_events_are_found_where_they_begin_and_measured(name: str) -> None:
    trace = recording(*ONSETS)
    events = find(trace, name)
    assert_near(events, trace, ONSETS)
    assert events.amplitude == pytest.approx([-25] * 4, rel=0.1)
    assert events.half_decay_ms == pytest.approx([0.8] * 4, rel=0.35)
    assert (events.score >= DETECTORS[name].threshold).all()


@pytest.mark.parametrize("name", ALL)
def test_most_events_of_a_simulated_recording_are_found_and_little_else(name: str) -> None:
    trace, truth = simulate_recording(seconds=10, frequency_hz=4, amplitude=-12, seed=5)
    events = detect(trace, detector=name, window_ms=12)
    hits = matched(truth.onset_s, events.location_s, tolerance_s=1.5e-3)
    assert hits >= 0.85 * len(truth.onset_s)
    assert len(events) - hits <= 5


@pytest.mark.parametrize("name", ALL)
def test_a_trace_turned_over_gives_the_mirrored_table(name: str) -> None:
    trace = recording(*ONSETS)
    turned = replace(trace, samples=-trace.samples)
    expected, found = find(trace, name), find(turned, name, direction="positive")
    assert len(found) == 4
    for column, values in expected.columns().items():
        sign = -1 if column in SIGNED else 1
        if values.dtype.kind in "fi":
            np.testing.assert_array_equal(found.columns()[column], sign * values, err_msg=column)


@pytest.mark.parametrize("name", ALL)
def test_events_of_both_polarities_are_found_in_one_pass(name: str) -> None:
    down, up = recording(500, 1_700), recording(1_000, 2_400, noise=0.0)
    trace = replace(down, samples=down.samples - up.samples)
    events = find(trace, name, direction="both")
    large = events[np.abs(events.amplitude) > 15]
    assert_near(large, trace, ONSETS)
    assert large.polarity.tolist() == [-1, 1, -1, 1]


@pytest.mark.parametrize("name", ALL)
def test_two_events_close_together_are_told_apart(name: str) -> None:
    trace = recording(500, 530, 1_700)
    assert_near(find(trace, name), trace, [500, 530, 1_700])


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("missing", [np.nan, np.inf])
def test_gaps_hold_no_events_and_those_beside_them_are_kept(name: str, missing: float) -> None:
    trace = recording(500, 1_000, 1_300, 2_400)
    samples = trace.samples.copy()
    samples[1_150:1_200] = missing
    samples[1_250] = samples[700] = missing
    gap = replace(trace, samples=samples)
    assert_near(find(gap, name), gap, [500, 1_000, 1_300, 2_400])


@pytest.mark.parametrize("name", ALL)
def test_gaps_that_part_two_levels_hold_no_event(name: str) -> None:
    trace = recording(500)
    samples = trace.samples.copy()
    samples[1_500:] -= 500
    samples[1_450:1_550] = np.nan
    assert_near(find(replace(trace, samples=samples), name), trace, [500])


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("level", [0.0, -70.0, 1e30])
def test_a_flat_trace_holds_no_event_and_scores_0(name: str, level: float) -> None:
    trace = Trace(samples=np.full(2_000, level, np.float32), rate_hz=RATE_HZ, unit="mV")
    settled = settle(DETECTORS[name](), direction="both")
    scores: dict[str, Scores] = {}
    events = analyse(trace, DETECTORS[name](), settled, kept=scores)
    assert len(events) == 0
    assert not scores["negative"].values.any()
    assert events.sweeps[0].analysed_s == pytest.approx(0.2)


@pytest.mark.parametrize("name", ALL)
def test_a_flat_stretch_scores_0_and_what_lies_beside_it_is_searched(name: str) -> None:
    trace = recording(500, 2_400)
    samples = trace.samples.copy()
    samples[1_000:2_000] = 1_000
    flat = replace(trace, samples=samples)
    assert_near(find(flat, name), flat, [500, 2_400])
    source = DETECTORS[name]().fitted(12)
    scores = source.scan(flat, "negative")
    inside = (scores.time_s > 0.1002) & (scores.time_s < 0.1998)
    assert inside.any()
    assert not scores.values[inside].any()


@pytest.mark.parametrize("name", ALL)
def test_a_trace_of_missing_samples_only_holds_no_event(name: str) -> None:
    trace = Trace(samples=np.full(2_000, np.nan), rate_hz=RATE_HZ, unit="mV")
    assert len(find(trace, name)) == 0
    assert np.isnan(DETECTORS[name]().fitted(12).scan(trace, "negative").values).all()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("n", [0, 1, 119])
def test_a_trace_shorter_than_a_window_is_refused(name: str, n: int) -> None:
    trace = Trace(samples=np.zeros(n), rate_hz=RATE_HZ, unit="pA")
    with pytest.raises(UsageError, match="longer than the trace"):
        find(trace, name)


@pytest.mark.parametrize("name", ALL)
def test_events_at_both_ends_are_found_and_flagged(name: str) -> None:
    trace = recording(40, 1_000, 2_975)
    events = find(trace, name)
    assert_near(events, trace, [40, 1_000, 2_975])
    assert events.edge.tolist()[1:] == [False, True]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("factor", "offset"), [(1e-12, 0), (2.0**20, 0), (1e-3, -0.065)])
def test_what_is_found_depends_on_neither_unit_nor_offset(
    name: str, factor: float, offset: float
) -> None:
    trace = recording(*ONSETS)
    scaled = replace(trace, samples=trace.samples.astype(np.float64) * factor + offset)
    assert_near(find(scaled, name), trace, ONSETS)


@pytest.mark.parametrize("name", ALL)
def test_times_are_on_the_sweeps_own_clock_and_excluded_stretches_hold_nothing(name: str) -> None:
    trace = replace(recording(*ONSETS), start_s=5.0).exclude([(5.095, 5.11)])
    assert_near(find(trace, name), trace, [500, 1_700, 2_400])


@pytest.mark.parametrize("name", ALL)
def test_samples_beyond_all_reason_do_not_stop_the_search(name: str) -> None:
    samples = recording(*ONSETS).samples.copy()
    samples[100:110], samples[110:120] = 3e38, -3e38
    with np.errstate(over="ignore", invalid="ignore"):
        events = find(Trace(samples=samples, rate_hz=RATE_HZ, unit="pA"), name)
    assert np.isfinite(events.location_s).all()


@pytest.mark.parametrize("name", ALL)
def test_slow_recordings_with_few_samples_an_event_are_searched(name: str) -> None:
    rate_hz, onsets = 100.0, [200, 500, 800]
    y = np.random.default_rng(2).normal(0, 0.1, 1_000)
    for at in onsets:
        add_at(y, at, 3 * biexponential(rate_hz, 0.01, 0.05))
    trace = Trace(samples=y, rate_hz=rate_hz, unit="dF/F")
    events = find(trace, name, direction="positive", window_ms=600)
    assert positions(events, trace) == pytest.approx([at + 1 for at in onsets], abs=2)


@settings(max_examples=40, deadline=None)
@given(
    samples=arrays(
        np.float32,
        st.integers(120, 300),
        elements=st.one_of(
            st.integers(-3, 3).map(float), st.sampled_from([np.nan, np.inf, 1e6, -1e6])
        ),
    ),
    name=st.sampled_from(QUICK),
    window_ms=st.sampled_from([2.0, 9.1, 12.0]),
)
def test_any_trace_gives_a_sound_table(samples: Samples, name: str, window_ms: float) -> None:
    trace = Trace(samples=samples, rate_hz=RATE_HZ, unit="pA")
    settled = settle(DETECTORS[name](), window_ms=window_ms, direction="both")
    scores: dict[str, Scores] = {}
    events = analyse(trace, DETECTORS[name](), settled, kept=scores)
    assert trace.wanted()[positions(events, trace)].all()
    assert (events.score >= settled.threshold).all()
    for values in (scores["negative"].values, scores["positive"].values):
        np.testing.assert_array_equal(np.isnan(values), ~np.isfinite(samples))
        assert values.dtype == np.float32
        assert not np.isinf(values).any()


@pytest.mark.parametrize("name", ALL)
def test_the_trace_is_not_written(name: str) -> None:
    trace = recording(*ONSETS)
    samples = trace.samples.copy()
    samples[700:710] = np.nan
    before = samples.copy()
    samples.setflags(write=False)
    find(replace(trace, samples=samples), name, direction="both")
    np.testing.assert_array_equal(samples, before)


@pytest.mark.parametrize("kind", [Deconvolution, Threshold, Matched])
def test_scores_are_in_sds_of_the_noise(kind: type[Detector]) -> None:
    trace = recording(n=60_000)
    values = kind().fitted(12).scan(trace, "negative").values
    assert values.std() == pytest.approx(1, abs=0.05)
    assert abs(values.mean()) < 0.05


@pytest.mark.parametrize("kind", [Deconvolution, Threshold, Matched])
def test_a_huge_artefact_does_not_change_what_counts_as_noise(kind: type[Detector]) -> None:
    trace = recording(n=60_000)
    samples = trace.samples.copy()
    samples[30_000:30_040] += 1e5
    clean = kind().fitted(12).scan(trace, "negative").values
    found = kind().fitted(12).scan(replace(trace, samples=samples), "negative").values
    np.testing.assert_allclose(found[:20_000], clean[:20_000], atol=0.3)


@pytest.mark.parametrize("name", ALL)
def test_time_constants_follow_the_window_unless_given(name: str) -> None:
    fitted = DETECTORS[name]().fitted(24.0)
    assert (fitted.tau_rise_ms, fitted.tau_decay_ms) == pytest.approx((0.4, 2.0))
    own = DETECTORS[name](tau_rise_ms=0.5, tau_decay_ms=3.0)
    assert own.fitted(24.0) == own


def test_a_template_of_the_right_shape_scores_higher() -> None:
    y = np.random.default_rng(0).normal(0, 0.4, 3_000)
    add_at(y, 1_000, -10 * biexponential(RATE_HZ, 1e-3, 3e-3))
    trace = Trace(samples=y, rate_hz=RATE_HZ, unit="pA")
    shaped = Template(tau_rise_ms=1.0, tau_decay_ms=3.0).fitted(12).scan(trace, "negative")
    fitted = Template().fitted(12).scan(trace, "negative")
    assert shaped.values.max() > 2 * fitted.values.max()
    assert shaped.values.argmax() == pytest.approx(1_000, abs=3)


def test_what_was_set_is_recorded() -> None:
    given = Bayesian(tau_decay_ms=2.0, seed=3)
    settled = settle(given, threshold=0.7, window_ms=24)
    assert settled.detector == "bayesian"
    assert settled.threshold == 0.7
    assert settled.detector_settings == replace(given, tau_rise_ms=0.4)
    assert asdict(settled)["detector_settings"] == {
        "tau_rise_ms": 0.4,
        "tau_decay_ms": 2.0,
        "frequency_hz": 1.0,
        "ar_order": 2,
        "sweeps": 500,
        "seed": 3,
    }
    assert settle(Template()).threshold == 4
    assert settle(Template()).direction == "negative"
    assert settle(Template()).window_ms == 12


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"detector": "sliding"}, "detector must be one of network, template, .*'sliding'"),
        ({"detector": 3}, "detector must be one of"),
        ({"detector": "template", "model": "cnn-lstm"}, "template detector needs no model"),
        ({"detector": "template", "device": "cuda"}, "runs on the CPU"),
        ({"detector": "template", "stride": 5}, "score every 1 samples, got stride 5"),
        ({"detector": "template", "threshold": 0}, "threshold must be above 0 .* try 4"),
        ({"detector": "matched", "threshold": np.inf}, "threshold must be above 0"),
        ({"detector": "bayesian", "threshold": 1}, "threshold must lie in 0 to 1 .* try 0.5"),
        ({"detector": "template", "threshold": "high"}, "threshold must be above 0"),
        ({"detector": "template", "direction": "up"}, "direction must be one of"),
        ({"detector": "template", "window_ms": 1.0}, "it needs at least 20"),
        ({"detector": "template", "window_ms": -1}, "window_ms must be a positive number"),
        ({"detector": Template(tau_decay_ms=7.0)}, r"tau_decay_ms must be .* at most 6 ms"),
        ({"detector": Template(tau_rise_ms=0.0)}, "tau_rise_ms must be above 0"),
        ({"detector": Template(tau_rise_ms=np.nan)}, "tau_rise_ms must be above 0"),
        ({"detector": Template(tau_decay_ms=0.05)}, "shorter than a sample at 10000 Hz"),
        ({"detector": Bayesian(frequency_hz=0.0)}, "frequency_hz must be above 0"),
        ({"detector": Bayesian(ar_order=5)}, "ar_order must be 0 to 4, got 5"),
        ({"detector": Bayesian(sweeps=0)}, "sweeps must be 4 to"),
        ({"detector": Bayesian(seed=-1)}, "seed must be 0 to"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        detect(recording(*ONSETS), **options)


def test_settings_that_a_detector_lacks_are_refused() -> None:
    with pytest.raises(UsageError, match="template detector has no seed; it has tau_rise_ms"):
        make_detector("template", seed=3)
    with pytest.raises(UsageError, match="a network learned its events and takes no shape"):
        make_detector("network", tau_decay_ms=2.0)
    assert make_detector("network") is None
    assert make_detector("template", tau_rise_ms=None, tau_decay_ms=2.0) == Template(
        tau_decay_ms=2.0
    )


def test_a_detector_that_is_not_fitted_says_so() -> None:
    with pytest.raises(UsageError, match="fit the template detector to a window first"):
        Template().scan(recording(), "negative")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    trace, _ = simulate_recording(seconds=3, frequency_hz=4, amplitude=-20, seed=3)
    path = tmp_path_factory.mktemp("recorded") / "cell.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("current", data=trace.samples)
        data.attrs.update({"rate_hz": trace.rate_hz, "unit": trace.unit})
    return path


def test_the_command_line_offers_every_detector() -> None:
    assert set(_DETECTORS) == {"network", *DETECTORS}
    assert _DETECTORS[0] == "network"


@pytest.mark.parametrize("name", QUICK)
def test_the_command_line_detects_without_a_model(
    recorded: Path, tmp_path: Path, name: str
) -> None:
    arguments = ["detect", recorded, "--detector", name, "--tau-decay-ms", 1.5]
    done = CliRunner().invoke(
        main, [str(a) for a in (*arguments, "--out", tmp_path, "--save-scores", "--json")]
    )
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)["recordings"][0]
    assert summary == json.loads((tmp_path / "cell.summary.json").read_text())
    assert summary["settings"]["detector"] == name
    assert summary["settings"]["detector_settings"] == {"tau_rise_ms": 0.2, "tau_decay_ms": 1.5}
    assert summary["settings"]["threshold"] == DETECTORS[name].threshold
    assert summary["model"] is None
    assert summary["device"] == "cpu"
    events = load_events(tmp_path / "cell.events.csv")
    assert len(events) == summary["events"] > 5
    with h5py.File(tmp_path / "cell.scores.h5") as file:
        group = file["current/sweep_0/negative"]
        assert len(group["values"]) == 150_000
        assert group.attrs["rate_hz"] == 50_000
        assert group["values"][:].max() == pytest.approx(events.score.max(), rel=1e-5)


def test_the_command_line_refuses_a_model_beside_a_detector(recorded: Path) -> None:
    arguments = ["detect", str(recorded), "--detector", "template", "--model", "cnn-lstm"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert "needs no model" in done.stderr

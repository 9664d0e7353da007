"""Detection as a whole, with a plain function in the network's place."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from quantal.detect import Settings, analyse, detect, settle
from quantal.errors import ModelError, UsageError
from quantal.events import COLUMNS, FOUND, Events
from quantal.model import Card, Model
from quantal.runtime import cores
from quantal.scan import Scores
from quantal.simulate import add_at, biexponential
from quantal.trace import Trace

Samples = NDArray[np.float32]
scan_room = import_module("quantal.scan")

RATE_HZ = 10_000.0
CARD = Card(
    name="stub",
    window_samples=120,
    window_ms=12.0,
    rate_hz=RATE_HZ,
    reference_sample=45,
    search_samples=15,
    stride=4,
    polarity="positive",
    direction="positive",
)
MODEL = Model(card=CARD, folder=Path("nowhere"))

MEASURES = (
    *("onset_s", "location_s", "peak_s", "score", "rise_10_90_ms", "half_decay_ms"),
    *("half_width_ms", "tau_decay_ms", "interval_s"),
)
SIGNED = ("amplitude", "baseline", "slope_per_ms", "area")


class Rises:
    """In the network's place: windows with a fast rise near their reference sample score high."""

    cutting = None

    def run_windows(self, windows: Samples) -> Samples:
        three = np.lib.stride_tricks.sliding_window_view(windows, 3, axis=1).mean(axis=-1)
        rise = three[:, 5:] - three[:, :-5]
        near = rise[:, 45 - 18 : 45 + 12].max(axis=1)
        return (1 / (1 + np.exp(-30 * (near - 0.65)))).astype(np.float32)


class Drawn:
    """In the network's place: the next of some scores drawn beforehand."""

    def __init__(self, scores: list[float]) -> None:
        self.scores = scores

    cutting = None

    def run_windows(self, windows: Samples) -> Samples:
        return np.resize(np.asarray(self.scores, np.float32), len(windows))


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_room, "open_session", lambda *_: Rises())


def recording(
    *onsets: int, n: int = 3_000, size: float = 25.0, noise: float = 0.4, **changes: Any
) -> Trace:
    """Upward events that begin at these samples, on white noise."""
    y = np.random.default_rng(0).normal(0, noise, n)
    for at in onsets:
        add_at(y, at, size * biexponential(RATE_HZ, 3e-4, 1e-3))
    return Trace(samples=y.astype(np.float32), rate_hz=RATE_HZ, unit="pA", **changes)


def positions(events: Events, trace: Trace) -> list[int]:
    return np.round((events.location_s - trace.start_s) * trace.rate_hz).astype(int).tolist()


def find(trace: Trace, **options: Any) -> Events:
    return detect(trace, model=MODEL, **options)


def assert_near(events: Events, trace: Trace, onsets: list[int]) -> None:
    assert positions(events, trace) == pytest.approx([at + 1 for at in onsets], abs=2)


ONSETS = [500, 1_000, 1_700, 2_400]


def test_events_are_found_where_they_begin_and_measured() -> None:
    trace = recording(*ONSETS, recording="cell", channel="IN 0", sweep=3)
    events = find(trace)
    assert_near(events, trace, ONSETS)
    assert events.amplitude == pytest.approx([25] * 4, rel=0.1)
    assert (events.onset_s <= events.location_s + 1e-4).all()
    assert (events.location_s < events.peak_s).all()
    assert (events.score > 0.5).all()
    assert events.event.tolist() == [0, 1, 2, 3]
    assert set(events.status) == {FOUND}
    assert set(events.polarity) == {1}
    assert set(zip(events.recording, events.channel, events.sweep, events.unit, strict=True)) == {
        ("cell", "IN 0", 3, "pA")
    }
    assert not events.edge.any()
    assert not events.overlap.any()
    np.testing.assert_allclose(events.interval_s[1:], np.diff(events.location_s))
    assert np.isnan(events.interval_s[0])
    assert events.summary()["frequency_hz"] == pytest.approx(4 / 0.3)


@pytest.mark.parametrize("window_ms", [10.0, 12.0, 17.3])
@pytest.mark.parametrize("stride", [1, 4, 10])
def test_events_are_found_with_other_windows_and_strides(window_ms: float, stride: int) -> None:
    trace = recording(*ONSETS)
    assert_near(find(trace, window_ms=window_ms, stride=stride), trace, ONSETS)


@pytest.mark.parametrize("direction", ["negative", "both"])
def test_a_trace_turned_over_gives_the_mirrored_table(direction: str) -> None:
    trace = recording(*ONSETS)
    turned = replace(trace, samples=-trace.samples)
    expected, found = find(trace), find(turned, direction=direction)
    assert len(found) == len(expected) == 4
    for name in MEASURES:
        np.testing.assert_array_equal(found.columns()[name], expected.columns()[name])
    for name in SIGNED:
        np.testing.assert_array_equal(found.columns()[name], -expected.columns()[name])
    assert set(found.polarity) == {-1}
    np.testing.assert_array_equal(found.edge, expected.edge)
    np.testing.assert_array_equal(found.overlap, expected.overlap)


def test_events_of_both_polarities_are_found_in_one_pass_in_order_of_time() -> None:
    up, down = recording(500, 1_700), recording(1_000, 2_400, noise=0.0)
    trace = replace(up, samples=up.samples - down.samples)
    events = find(trace, direction="both")
    assert_near(events, trace, ONSETS)
    assert events.polarity.tolist() == [1, -1, 1, -1]
    assert np.sign(events.amplitude).tolist() == [1, -1, 1, -1]
    assert events.event.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(events.interval_s[1:], np.diff(events.location_s))
    assert len(events.sweeps) == 1  # searched twice, but the same seconds
    assert_near(find(trace, direction="negative"), trace, [1_000, 2_400])


def test_overlapping_events_are_told_apart_and_flagged() -> None:
    trace = recording(500, 515, 1_700)
    events = find(trace)
    assert_near(events, trace, [500, 515, 1_700])
    assert events.overlap.tolist()[2] is False
    assert events.overlap[:2].any()


@pytest.mark.parametrize("missing", [np.nan, np.inf])
def test_gaps_hold_no_events_and_those_beside_them_are_kept(missing: float) -> None:
    trace = recording(500, 1_000, 1_300, 2_400)
    samples = trace.samples.copy()
    samples[1_150:1_200] = missing
    gap = replace(trace, samples=samples)
    events = find(gap)
    assert_near(events, gap, [500, 1_000, 1_300, 2_400])
    assert np.isnan(events.interval_s).tolist() == [True, False, True, False]
    assert events.sweeps[0].analysed_s == pytest.approx(0.295)
    assert np.isfinite(events.amplitude).all()


def test_an_event_within_a_gap_is_not_made_up() -> None:
    trace = recording(500, 1_000)
    samples = trace.samples.copy()
    samples[990:1_100] = np.nan
    assert_near(find(replace(trace, samples=samples)), trace, [500])


def test_gaps_that_part_two_levels_hold_no_event() -> None:
    trace = recording(500)
    samples = trace.samples.copy()
    samples[1_500:] += 500
    samples[1_450:1_550] = np.nan
    assert_near(find(replace(trace, samples=samples)), trace, [500])


@pytest.mark.parametrize("level", [0.0, -70.0, 3.3e4])
@pytest.mark.parametrize("window_ms", [12.0, 9.1])
@pytest.mark.parametrize("direction", ["both", "positive"])
def test_a_flat_trace_holds_no_event(level: float, window_ms: float, direction: str) -> None:
    trace = Trace(samples=np.full(2_000, level), rate_hz=RATE_HZ, unit="mV")
    events = find(trace, window_ms=window_ms, direction=direction)
    assert len(events) == 0
    assert events.sweeps[0].analysed_s == pytest.approx(0.2)


def test_a_trace_of_missing_samples_only_holds_no_event_and_was_not_searched() -> None:
    trace = Trace(samples=np.full(2_000, np.nan), rate_hz=RATE_HZ, unit="mV")
    events = find(trace)
    assert len(events) == 0
    assert events.sweeps[0].analysed_s == 0
    assert events.summary()["frequency_hz"] is None


def test_events_of_a_saturated_trace_are_kept_with_the_amplitude_that_is_there() -> None:
    trace = recording(*ONSETS)
    clipped = replace(trace, samples=trace.samples.clip(-1, 10))
    events = find(clipped)
    assert_near(events, trace, ONSETS)
    assert events.amplitude == pytest.approx([10] * 4, rel=0.1)


def test_an_amplifier_that_saturates_for_a_while_is_no_reason_to_stop() -> None:
    trace = recording(500, 2_400)
    samples = trace.samples.copy()
    samples[1_000:2_000] = 1_000
    events = find(replace(trace, samples=samples))
    found = positions(events, trace)
    assert found[0] == pytest.approx(501, abs=2)
    assert found[-1] == pytest.approx(2_401, abs=2)
    assert not [at for at in found if 1_050 < at < 1_990]


@pytest.mark.parametrize("n", [0, 1, 2, 119])
def test_a_trace_shorter_than_a_window_is_refused(n: int) -> None:
    trace = Trace(samples=np.zeros(n), rate_hz=RATE_HZ, unit="pA")
    with pytest.raises(UsageError, match="longer than the trace"):
        find(trace)


def test_a_trace_of_one_window_is_searched() -> None:
    trace = recording(60, n=120)
    assert_near(find(trace), trace, [60])


def test_excluded_stretches_hold_no_events_and_intervals_and_frequency_know_it() -> None:
    trace = recording(*ONSETS, start_s=5.0).exclude([(5.095, 5.11), (5.15, 5.16)])
    events = find(trace)
    assert_near(events, trace, [500, 1_700, 2_400])
    assert np.isnan(events.interval_s).tolist() == [True, True, False]
    assert events.sweeps[0].analysed_s == pytest.approx(0.3 - 0.015 - 0.01)
    assert events.summary()["frequency_hz"] == pytest.approx(3 / 0.275)


def test_a_trace_that_is_excluded_as_a_whole_holds_nothing() -> None:
    events = find(recording(*ONSETS).exclude([(0, 10)]))
    assert len(events) == 0
    assert events.sweeps[0].analysed_s == 0


@pytest.mark.parametrize("at", [3, 10, 40])
def test_an_event_near_the_start_is_kept_and_flagged(at: int) -> None:
    trace = recording(at, 1_000)
    events = find(trace)
    assert_near(events, trace, [at, 1_000])
    assert events.edge.tolist() == [at < 20, False]


@pytest.mark.parametrize("before", [8, 15, 30])
def test_an_event_near_the_end_is_kept_and_flagged(before: int) -> None:
    trace = recording(1_000, 3_000 - before)
    events = find(trace)
    assert_near(events, trace, [1_000, 3_000 - before])
    assert events.edge.tolist() == [False, True]


@pytest.mark.parametrize("end", ["start", "end"])
def test_scores_that_are_high_at_an_end_are_an_event(
    monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    scores = np.zeros(750)
    scores[:8] = 1
    drawn = Drawn((scores if end == "start" else scores[::-1]).tolist())
    monkeypatch.setattr(scan_room, "open_session", lambda *_: drawn)
    trace = recording()
    (found,) = positions(find(trace, method="dense"), trace)  # scores are given in turn
    assert found < 60 if end == "start" else found > 2_940


@pytest.mark.parametrize(
    ("factor", "offset"),
    [(1e-3, 0), (1e6, 0), (1e-12, 0), (2.0**20, 0), (1, 300), (1e-3, -0.065), (1e6, 1e8)],
)
@pytest.mark.parametrize("window_ms", [12.0, 9.1])
def test_where_events_are_depends_on_neither_unit_nor_offset(
    factor: float, offset: float, window_ms: float
) -> None:
    # miniML's gradient threshold is cut to a whole number, and so is 0 in small units.
    trace = recording(500, 515, 1_700, 2_400)
    expected = find(trace, window_ms=window_ms)
    scaled = replace(trace, samples=trace.samples.astype(np.float64) * factor + offset)
    found = find(scaled, window_ms=window_ms)
    assert positions(found, trace) == positions(expected, trace)
    np.testing.assert_allclose(found.amplitude, expected.amplitude * factor, rtol=0.02)
    np.testing.assert_allclose(found.baseline - offset, expected.baseline * factor, atol=factor)


def test_times_are_on_the_sweeps_own_clock() -> None:
    trace = recording(*ONSETS)
    expected = find(trace)
    found = find(replace(trace, start_s=100.0))
    for name in ("onset_s", "location_s", "peak_s"):
        np.testing.assert_allclose(found.columns()[name], expected.columns()[name] + 100)
    np.testing.assert_allclose(found.interval_s, expected.interval_s)


def test_a_part_of_a_trace_gives_the_events_of_that_part_at_the_same_times() -> None:
    trace = recording(*ONSETS, start_s=2.0)
    found = find(trace.between(2.08, 2.2))
    np.testing.assert_allclose(found.location_s, find(trace).location_s[1:3])


def test_samples_beyond_all_reason_do_not_stop_the_search() -> None:
    samples = recording(*ONSETS).samples.copy()
    samples[100:110] = 3e38
    samples[110:120] = -3e38
    with np.errstate(over="ignore", invalid="ignore"):
        events = find(Trace(samples=samples, rate_hz=RATE_HZ, unit="pA"))
    assert len(events.columns()) == len(COLUMNS)


@settings(max_examples=60, deadline=None)
@given(
    samples=arrays(
        np.float32,
        st.integers(120, 300),
        elements=st.one_of(
            st.integers(-3, 3).map(float), st.sampled_from([np.nan, np.inf, 1e6, -1e6])
        ),
    ),
    scores=st.lists(st.sampled_from([0.0, 0.3, 0.9, 1.0, np.nan]), min_size=1, max_size=40),
    direction=st.sampled_from(["negative", "positive", "both"]),
    window_ms=st.sampled_from([2.0, 9.1, 12.0]),
    excluded=st.lists(st.tuples(st.floats(-0.01, 0.02), st.floats(0.021, 0.03)), max_size=1),
)
def test_any_trace_and_any_scores_give_a_sound_table(
    samples: Samples,
    scores: list[float],
    direction: str,
    window_ms: float,
    excluded: list[tuple[float, float]],
) -> None:
    trace = Trace(samples=samples, rate_hz=RATE_HZ, unit="pA", excluded=tuple(excluded))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan_room, "open_session", lambda *_: Drawn(scores))
        events = find(trace, direction=direction, window_ms=window_ms)
    found = positions(events, trace)
    assert found == sorted(found)
    assert trace.wanted()[found].all()
    for polarity in (-1, 1):
        own = np.array(found)[events.polarity == polarity]
        assert (np.diff(own) > 0).all()
    assert (events.score >= 0.5).all()
    assert np.isin(
        events.polarity, {"negative": -1, "positive": 1, "both": [-1, 1]}[direction]
    ).all()
    assert events.sweeps[0].analysed_s == trace.wanted().sum() / RATE_HZ
    assert not (events.interval_s < 0).any()


def test_the_trace_is_not_written() -> None:
    trace = recording(*ONSETS)
    samples = trace.samples.copy()
    samples[700:710] = np.nan
    before = samples.copy()
    samples.setflags(write=False)
    find(replace(trace, samples=samples), direction="both")
    np.testing.assert_array_equal(samples, before)


@pytest.mark.parametrize("smooth_ms", [0, 0.3, 1.0])
def test_a_fixed_smoothing_leaves_events_where_they_are(smooth_ms: float) -> None:
    trace = recording(*ONSETS)
    assert_near(find(trace, smooth_ms=smooth_ms), trace, ONSETS)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("threshold", 0, r"threshold must lie between 0 and 1, got 0; try 0\.5"),
        ("threshold", 1.2, r"threshold must lie between 0 and 1, got 1\.2"),
        ("threshold", np.nan, "threshold must lie between 0 and 1, got nan"),
        ("threshold", "high", "threshold must lie between 0 and 1, got 'high'"),
        ("stride", 0, "stride must be 1 to 120 samples"),
        ("stride", 121, "stride must be 1 to 120 samples"),
        ("stride", "4", "stride must be 1 to 120 samples"),
        ("direction", "up", "direction must be one of negative, positive, both, got 'up'"),
        ("method", "sparse", "method must be one of .*dense"),
        ("window_ms", 0, "window_ms must be a positive number of milliseconds, got 0"),
        ("window_ms", "wide", "window_ms must be a positive number of milliseconds, got 'wide'"),
        ("window_ms", 1.0, "it needs at least 20, so at least 2 ms"),
        ("window_ms", 1e6, r"longer than the trace \(300 ms, 3000 samples\)"),
        ("smooth_ms", -1, r"smooth_ms must be 0 to 12 ms \(the window\), or None, got -1"),
        ("smooth_ms", np.nan, "smooth_ms must be 0 to 12 ms"),
        ("smooth_ms", np.inf, "smooth_ms must be 0 to 12 ms"),
        ("smooth_ms", 1e9, "smooth_ms must be 0 to 12 ms"),
        ("smooth_ms", "1", "smooth_ms must be 0 to 12 ms"),
    ],
)
def test_an_option_out_of_range_is_refused_and_the_error_says_what_is_allowed(
    option: str, value: Any, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        find(recording(*ONSETS), **{option: value})


def test_a_model_that_is_not_there_is_refused() -> None:
    with pytest.raises(ModelError, match="there is no model 'no-such-model'"):
        detect(recording(), model="no-such-model")


def test_numbers_may_be_numpys() -> None:
    trace = recording(*ONSETS)
    options: dict[str, Any] = {
        "threshold": np.float32(0.5),
        "stride": np.int64(4),
        "window_ms": np.float32(12),
        "smooth_ms": np.float64(0.5),
    }
    assert len(find(trace, **options)) == 4


def test_what_is_not_given_is_what_the_card_says() -> None:
    card = replace(CARD, threshold=0.7, stride=6, direction="both", window_ms=9.0)
    assert settle(card) == Settings(
        window_ms=9.0,
        direction="both",
        threshold=0.7,
        stride=6,
        method=settle(CARD).method,
        smooth_ms=None,
        measure_ms=None,
        device="auto",
        threads=cores(),
    )
    given = {"threshold": 0.2, "stride": 3, "direction": "negative", "device": "cpu", "threads": 3}
    assert settle(card, **given) == replace(settle(card), **given)


@pytest.mark.parametrize("threads", [0, -1, 1.5, np.nan, "2"])
def test_threads_that_cannot_be_are_refused(threads: Any) -> None:
    with pytest.raises(UsageError, match="threads must be a whole number of 1 or more"):
        settle(CARD, threads=threads)


def test_a_higher_threshold_finds_a_part_of_the_same_events() -> None:
    trace = recording(*ONSETS, noise=2.5)
    few, many = find(trace, threshold=0.99), find(trace, threshold=0.1)
    assert len(few) < len(many)
    assert set(few.score) <= set(many.score)


def test_the_scores_behind_the_events_come_by_direction() -> None:
    trace = recording(*ONSETS)
    seen: list[tuple[int, int]] = []
    settled = settle(CARD, direction="both")
    scores: dict[str, Scores] = {}
    events = analyse(trace, MODEL, settled, lambda *step: seen.append(step), scores)
    assert sorted(scores) == ["negative", "positive"]
    assert len(events) == 4
    for found in scores.values():
        assert (found.stride, found.rate_hz, len(found)) == (4, RATE_HZ, 750)
    assert seen[-1] == (750, 750)


def test_a_network_trained_the_other_way_up_finds_the_same() -> None:
    trace = recording(*ONSETS)
    turned = replace(trace, samples=-trace.samples)
    other = Model(card=replace(CARD, polarity="negative", direction="positive"), folder=Path("no"))

    class Falls(Rises):
        cutting = None

        def run_windows(self, windows: Samples) -> Samples:
            return super().run_windows(1 - windows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan_room, "open_session", lambda *_: Falls())
        assert_near(detect(trace, model=other), trace, ONSETS)
        assert_near(detect(turned, model=other, direction="negative"), trace, ONSETS)

"""Screened scans: the events of a dense scan, from few of its windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from quantal.detect import analyse, settle
from quantal.errors import UsageError
from quantal.events import COLUMNS, Events
from quantal.model import Card, Model, load_model
from quantal.peaks import QUIET, find_stretches
from quantal.runtime import Session
from quantal.scan import scan
from quantal.screen import (
    FELT,
    JUMP,
    LOWEST,
    Beginning,
    at_jumps,
    read_all,
    read_screened,
    spread,
)
from quantal.simulate import simulate_recording
from quantal.trace import Trace

Array = NDArray[np.float32]
Numbers = NDArray[np.int64]
scan_room = import_module("quantal.scan")  # the module: quantal.scan itself is the function
REACH = 4  # windows, as at the usual stride


class Drawn:
    """Scores drawn beforehand, and which of them were read."""

    def __init__(self, scores: Array) -> None:
        self.scores = scores
        self.asked: list[int] = []

    def __call__(self, numbers: Numbers) -> Array:
        self.asked += numbers.tolist()
        return self.scores[numbers]


def screened(
    scores: Array,
    threshold: float,
    begin_with: Numbers | None = None,
    felt: float = FELT,
    **options: Any,
) -> tuple[Array, Drawn]:
    drawn = Drawn(np.asarray(scores, np.float32))
    count = len(scores)
    if begin_with is None:
        begin_with = spread(count, REACH)
    beginning = Beginning(numbers=begin_with, felt=felt, reach=REACH)
    values, known = read_screened(drawn, count, beginning, threshold=threshold, **options)
    assert len(set(drawn.asked)) == len(drawn.asked)  # none is read twice
    assert sorted(drawn.asked) == np.flatnonzero(known).tolist()
    np.testing.assert_array_equal(values, np.where(known, drawn.scores, 0))
    return values, drawn


def assert_same_stretches(found: Array, expected: Array, threshold: float) -> None:
    a, b = find_stretches(found, threshold), find_stretches(expected, threshold)
    for name in ("position", "height", "prominence", "left", "right"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def bumps(n: int, at: list[int], logit: list[float], width: float, floor: float) -> Array:
    """Scores that rise to peaks and fall again: straight lines in logits, on a floor."""
    k = np.arange(n)
    logits = np.full(n, floor)
    for centre, top in zip(at, logit, strict=False):
        logits = np.maximum(logits, top - (top - floor) * np.abs(k - centre) / width)
    return (1 / (1 + np.exp(-logits))).astype(np.float32)


@settings(max_examples=150, deadline=None)
@given(
    n=st.integers(1, 2_000),
    at=st.lists(st.integers(0, 1_999), max_size=12),
    logit=st.lists(st.floats(-4, 9), min_size=12, max_size=12),
    width=st.floats(18, 40),
    threshold=st.sampled_from([0.25, 0.5, 0.9, 0.975]),
    gap=st.tuples(st.integers(0, 2_000), st.integers(0, 200)),
)
def test_scores_that_rise_and_fall_smoothly_give_the_same_stretches(
    n: int, at: list[int], logit: list[float], width: float, threshold: float, gap: tuple[int, int]
) -> None:
    scores = bumps(n, at, logit, width, floor=-11.0)
    scores[gap[0] : gap[0] + gap[1]] = np.nan
    whole = scores.copy()
    whole[np.isnan(whole)] = 0.0  # a run may be cut so short that it is not felt
    values, _ = screened(whole, threshold)
    assert_same_stretches(values, whole, threshold)


@settings(max_examples=150, deadline=None)
@given(
    scores=st.lists(st.sampled_from([0.0, 0.01, 0.02, 0.03, 0.2, 0.6, 0.9]), max_size=120),
    stretch=st.integers(1, 12),
    data=st.data(),
)
def test_a_run_in_which_one_window_is_suspected_is_read_whole(
    scores: list[float], stretch: int, data: st.DataObject
) -> None:
    threshold = 0.5
    values = np.repeat(np.array(scores, np.float32), stretch)
    heard = np.flatnonzero(values >= QUIET * threshold)
    runs = np.split(heard, np.flatnonzero(np.diff(heard) > 5) + 1) if len(heard) else []
    suspects = np.array(sorted(int(data.draw(st.sampled_from(list(run)))) for run in runs), int)
    found, _ = screened(values, threshold, begin_with=suspects)
    np.testing.assert_array_equal(found[heard], values[heard])
    assert_same_stretches(found, values, threshold)


def test_a_window_that_feels_an_event_leads_to_it() -> None:
    scores = np.zeros(200, np.float32)
    scores[100:110] = 0.9
    scores[100 - REACH] = 1.1 * FELT * 0.5
    found, drawn = screened(scores, 0.5, begin_with=np.array([100 - REACH]))
    assert_same_stretches(found, scores, 0.5)
    assert len(drawn.asked) < 40


def test_a_window_that_feels_too_little_leads_nowhere() -> None:
    scores = np.full(200, 0.03, np.float32)
    found, drawn = screened(scores, 0.5, begin_with=np.array([50, 100]), felt=0.1)
    assert drawn.asked == [50, 100]
    assert np.count_nonzero(found) == 2


def test_nothing_is_read_where_nothing_is_suspected() -> None:
    found, drawn = screened(np.ones(500, np.float32), 0.5, begin_with=np.empty(0, np.int64))
    assert not found.any()
    assert not drawn.asked


def test_silence_needs_one_window_in_four() -> None:
    _, drawn = screened(np.full(7_000, 1e-4, np.float32), 0.5)
    assert len(drawn.asked) == 1_750 + 1  # and the last


def test_events_everywhere_need_all_windows_once() -> None:
    _, drawn = screened(np.full(7_000, 0.9, np.float32), 0.5)
    assert sorted(drawn.asked) == list(range(7_000))


def test_where_the_range_jumps_all_windows_are_suspect() -> None:
    looked = np.array([0, 4, 8, 12, 16, 20, 23])
    ranges = np.array([1, 1.9, 1.9, 3.8, 0, 0, np.nan], np.float32)
    assert at_jumps(looked, ranges).tolist() == [8, 9, 10, 11, 12, 12, 13, 14, 15, 16]
    assert not len(at_jumps(looked[:1], ranges[:1]))
    assert not len(at_jumps(looked, np.full(7, np.nan, np.float32)))
    assert len(at_jumps(looked[:2], np.array([1, JUMP], np.float32)))


@pytest.mark.parametrize("n", [0, 1, 5])
def test_few_windows_or_none(n: int) -> None:
    told: list[int] = []
    values, _ = screened(np.full(n, 0.8, np.float32), 0.5, told=told.append)
    np.testing.assert_array_equal(values, np.full(n, 0.8, np.float32))
    np.testing.assert_array_equal(read_all(Drawn(values), n, told.append), values)


def test_a_score_that_a_spike_cuts_short_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    # A stub that answers to the two windows before a spike comes in, and to nothing else.
    samples = np.random.default_rng(0).normal(size=1_500).astype(np.float32)
    samples[1_000] = 100.0

    class Cut:
        cutting = None

        def run_windows(self, windows: Array) -> Array:
            numbers = len(windows) and np.argmax(windows, axis=1)
            return np.where((numbers == 599) | (numbers == 598), 0.9, 0.0).astype(np.float32)

    monkeypatch.setattr(scan_room, "open_session", lambda *_, **__: Cut())
    model = Model(card=Card(name="cut", stride=1, direction="negative"), folder=Path("nowhere"))
    trace = Trace(samples=samples, rate_hz=50_000.0, unit="pA")
    dense, found = (
        scan(trace, model, method=m, direction="negative").values for m in ("dense", "screened")
    )
    assert (dense > 0).any()
    np.testing.assert_array_equal(found[dense > 0], dense[dense > 0])


# The network itself ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("cnn-lstm")


def recording(seed: int, seconds: float = 1.2, **changes: Any) -> Trace:
    given: dict[str, Any] = {"frequency_hz": 4.0, "amplitude": -8.0} | changes
    return simulate_recording(seconds=seconds, seed=seed, **given)[0]


def events(trace: Trace, model: Model, method: str, **options: Any) -> Events:
    return analyse(trace, model, settle(model, method=method, **options))


def assert_same_events(trace: Trace, model: Model, **options: Any) -> Events:
    dense, found = (events(trace, model, m, **options) for m in ("dense", "screened"))
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(found, name), getattr(dense, name), err_msg=name)
    return found


KINDS: dict[str, Callable[[], tuple[Trace, dict[str, Any]]]] = {
    "usual": lambda: (recording(1), {}),
    "fast": lambda: (recording(2, tau_decay_s=5e-4, tau_rise_s=1e-4), {"window_ms": 6}),
    "slow": lambda: (recording(3, seconds=3, tau_decay_s=4.5e-3), {"window_ms": 48}),
    "busy": lambda: (recording(4, frequency_hz=60), {}),
    "weak": lambda: (recording(5, amplitude=-2.5), {}),
    "no events": lambda: (recording(6, frequency_hz=0), {}),
    "both ways": lambda: (recording(7, amplitude=8.0), {"direction": "both"}),
    "low threshold": lambda: (recording(8, amplitude=-4.0), {"threshold": 0.025}),
    "high threshold": lambda: (recording(9), {"threshold": 0.975}),
    "other stride": lambda: (recording(10, seconds=0.5), {"stride": 7}),
    "long stride": lambda: (recording(11), {"stride": 150}),
    "short": lambda: (recording(12, seconds=0.05, frequency_hz=40), {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_events_are_those_of_a_dense_scan(model: Model, kind: str) -> None:
    trace, options = KINDS[kind]()
    assert_same_events(trace, model, **options)


def test_events_beside_gaps_and_flat_stretches_are_those_of_a_dense_scan(model: Model) -> None:
    trace = recording(20, frequency_hz=20)
    samples = trace.samples.copy()
    samples[20_000:21_000] = np.nan
    samples[35_000:38_000] = samples[35_000]
    samples[50_000] = np.inf
    gappy = replace(trace, samples=samples)
    assert len(assert_same_events(gappy, model)) > 5
    dense, found = (scan(gappy, model, method=m).values for m in ("dense", "screened"))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(dense))


@pytest.mark.parametrize("level", [0.0, -70.0, np.nan])
def test_a_flat_or_empty_trace_has_no_events(model: Model, level: float) -> None:
    trace = Trace(samples=np.full(5_000, level, np.float32), rate_hz=50_000.0, unit="pA")
    assert len(assert_same_events(trace, model)) == 0


def test_a_score_does_not_depend_on_the_windows_beside_it(model: Model) -> None:
    trace = recording(21, seconds=0.6)
    dense = scan(trace, model, method="dense").values
    values = scan(trace, model, method="screened").values
    read = values > 0
    assert 0.05 < read.mean() < 0.9
    np.testing.assert_array_equal(values[read], dense[read])


def test_few_windows_are_read(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0
    run = Session.run_windows

    def counted(session: Session, windows: Array) -> Array:
        nonlocal count
        count += len(windows)
        return run(session, windows)

    monkeypatch.setattr(Session, "run_windows", counted)
    scores = scan(recording(22, seconds=2, frequency_hz=1), model, method="screened")
    assert count < 0.4 * len(scores)


# What cannot be ----------------------------------------------------------------------------------


def test_below_the_lowest_threshold_all_windows_are_read(model: Model) -> None:
    trace = recording(32, seconds=0.1)
    found = scan(trace, model, method="screened", threshold=LOWEST - 0.01).values
    np.testing.assert_array_equal(found, scan(trace, model, method="dense").values)


def test_a_trace_network_has_only_dense() -> None:
    trace, minis = recording(30), load_model("minis")
    with pytest.raises(UsageError, match="reads the whole trace once, so its method is 'dense'"):
        scan(trace, minis, method="screened")
    assert settle(minis).method == "dense"
    assert settle(load_model("cnn-lstm")).method == "screened"


@pytest.mark.parametrize("threshold", [0, 1, -1, np.nan, "0.5", True])
def test_a_threshold_outside_0_to_1_is_refused(model: Model, threshold: Any) -> None:
    with pytest.raises(UsageError, match=r"threshold must lie between 0 and 1, got .*try 0\.5"):
        scan(recording(31), model, method="screened", threshold=threshold)

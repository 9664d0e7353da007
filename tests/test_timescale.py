"""The time scale of a recording: which window is chosen, and when none can be told."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantal import timescale as room
from quantal.detect import detect
from quantal.errors import UsageError
from quantal.model import Card, Model, load_model
from quantal.scan import scan
from quantal.simulate import Rig, simulate_recording
from quantal.timescale import _Look, time_scale
from quantal.trace import Trace

GUIDE = Model(card=Card(name="guide", kind="trace", scaling="noise"), folder=Path("nowhere"))
WINDOWS = Model(card=Card(name="windows"), folder=Path("nowhere"))


def trace(seconds: float = 10.0, rate_hz: float = 50_000.0) -> Trace:
    samples = np.zeros(round(seconds * rate_hz), np.float32)
    return Trace(samples=samples, rate_hz=rate_hz, unit="pA", recording="cell")


def sees(
    monkeypatch: pytest.MonkeyPatch,
    seen: dict[float, tuple[float, int, float]],
    upward: dict[float, tuple[float, int, float]] = {},  # noqa: B006
) -> list[float]:
    """Let the guide see (evidence, events, decay) at these windows, downward and upward.

    Returns the windows that it looked at.
    """
    looked: list[float] = []

    def look(_: Trace, __: Model, window_ms: float, direction: str, **___: Any) -> _Look:
        looked.append(window_ms)
        nothing = (0.0, 0, math.nan)
        evidence, events, decay_ms = (
            seen.get(window_ms, nothing)
            if direction == "negative"
            else upward.get(window_ms, nothing)
        )
        return _Look(window_ms=window_ms, evidence=evidence, events=events, decay_ms=decay_ms)

    monkeypatch.setattr(room, "_look", look)
    monkeypatch.setattr(room, "load_model", lambda _: GUIDE)
    return looked


def test_a_trace_network_keeps_its_scale_where_that_is_as_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sees(monkeypatch, {12.0: (95.0, 30, 4.0), 48.0: (100.0, 31, 4.0)})
    assert time_scale(trace(), GUIDE, "negative").window_ms == 12.0


def test_a_trace_network_takes_the_scale_with_more_evidence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sees(monkeypatch, {12.0: (20.0, 6, 30.0), 192.0: (100.0, 31, 28.0)})
    found = time_scale(trace(), GUIDE, "negative")
    assert found.window_ms == 192.0
    assert "31 sure events of 28 ms decay in 10 s" in found.why


@pytest.mark.parametrize("model", [WINDOWS, None])
def test_a_window_is_twelve_decays_of_the_events_that_the_guide_sees(
    monkeypatch: pytest.MonkeyPatch, model: Model | None
) -> None:
    sees(monkeypatch, {12.0: (95.0, 30, 4.1), 48.0: (100.0, 31, 4.0)})
    assert time_scale(trace(), model, "negative").window_ms == 48.0
    sees(monkeypatch, {12.0: (95.0, 30, 1.5)})
    assert time_scale(trace(), model, "negative").window_ms == 18.0


def test_with_too_few_events_the_usual_window_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    sees(monkeypatch, {48.0: (30.0, 4, 4.0)})
    for model in (GUIDE, WINDOWS, None):
        found = time_scale(trace(), model, "negative")
        assert found.window_ms == 12.0
        assert "too few" in found.why


def test_where_the_usual_window_is_too_short_for_the_rate_it_is_the_shortest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sees(monkeypatch, {})
    slow = trace(seconds=10, rate_hz=1_000)
    for model in (GUIDE, WINDOWS, None):
        found = time_scale(slow, model, "negative")
        assert found.window_ms == 20.0
        assert found.why == "too few sure events to tell; the shortest one at 1000 Hz"
    assert time_scale(slow, GUIDE, "negative", usual_ms=600.0).window_ms == 600.0


def test_windows_have_twenty_samples_and_leave_room_in_the_trace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked = sees(monkeypatch, {})
    time_scale(trace(seconds=60, rate_hz=100), GUIDE, "negative")
    assert looked == [
        768.0,
        768.0,
        3_072.0,
        3_072.0,
    ]  # 20 samples are 200 ms, an eighth of the trace 7.5 s
    with pytest.raises(UsageError, match=r"too short to tell .* give window_ms"):
        time_scale(trace(seconds=1, rate_hz=100), GUIDE, "negative")


def test_both_directions_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = sees(monkeypatch, {})
    time_scale(trace(seconds=0.1), GUIDE, "both")
    assert looked == [0.75, 0.75, 3.0, 3.0, 12.0, 12.0]


def test_what_points_either_way_is_noise_and_no_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {3.0: (300.0, 90, 0.3), 12.0: (60.0, 20, 1.0)}
    sees(monkeypatch, seen, upward={3.0: (310.0, 95, 0.3), 12.0: (3.0, 0, 1.0)})
    found = time_scale(trace(), GUIDE, "negative")
    assert found.window_ms == 12.0
    assert "20 sure events" in found.why
    assert time_scale(trace(), GUIDE, "positive").why.startswith("too few")


def test_a_few_more_one_way_than_the_other_are_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    sees(monkeypatch, {0.75: (40.0, 18, 0.3)}, upward={0.75: (23.0, 8, 0.4)})
    assert time_scale(trace(), GUIDE, "negative").why.startswith("too few")
    sees(monkeypatch, {0.75: (40.0, 18, 0.3)}, upward={0.75: (3.0, 2, 0.4)})
    assert time_scale(trace(), GUIDE, "negative").window_ms == 0.75


def test_no_more_threads_are_used_than_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []

    def counted(*given: Any, **named: Any) -> Any:
        used.append(named["threads"])
        return scan(*given, **named)

    monkeypatch.setattr(room, "scan", counted)
    recorded, _ = simulate_recording(seconds=1, seed=6)
    detect(recorded, window_ms="auto", threads=1)
    assert set(used) == {1}


def test_what_is_excluded_tells_nothing() -> None:
    recorded, _ = simulate_recording(seconds=4, frequency_hz=8, amplitude=-15, seed=6)
    found = time_scale(recorded, load_model("cnn-lstm"), "negative")
    assert "sure events" in found.why
    nothing = recorded.exclude([(0.0, 4.0)])
    assert "too few" in time_scale(nothing, load_model("cnn-lstm"), "negative").why


@pytest.mark.slow
@pytest.mark.parametrize(
    ("decay_ms", "low", "high"), [(1.0, 8, 25), (4.0, 30, 80), (12.0, 90, 250)]
)
def test_the_window_of_simulated_events_is_found(decay_ms: float, low: float, high: float) -> None:
    recorded, _ = simulate_recording(
        seconds=20, amplitude=-10, tau_rise_s=decay_ms / 5e3, tau_decay_s=decay_ms / 1e3, seed=6
    )
    assert low < time_scale(recorded, load_model("cnn-lstm"), "negative").window_ms < high


@pytest.mark.slow
def test_imaging_is_searched_at_its_own_time_scale() -> None:
    recorded, truth = simulate_recording(
        seconds=200,
        frequency_hz=0.3,
        amplitude=0.5,
        noise_sd=0.05,
        tau_rise_s=0.012,
        tau_decay_s=0.06,
        rig=Rig(rate_hz=100.0, cutoff_hz=200.0, hum=0.0, drift=0.1),
        offset=0.0,
        unit="dF/F",
    )
    events = detect(recorded, model="minis", window_ms="auto", direction="positive")
    assert len(events) == pytest.approx(len(truth.onset_s), rel=0.15)

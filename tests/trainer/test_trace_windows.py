"""Labelled windows as a trace network reads them: scaled by their cell, judged by their maximum."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from quantal.errors import UsageError
from quantal.model import Card, load_model
from quantal_trainer.backend import keras
from quantal_trainer.datasets import EVENT, NOISE, Dataset
from quantal_trainer.preparations import PREPARATIONS, simulate_dataset
from quantal_trainer.trace_network import HOP, UNIT, trace_network
from quantal_trainer.trace_windows import framed, framing, judge, time_scale_ms

CARD = Card(name="t", kind="trace", scaling="noise", window_samples=300, window_ms=12.0)


def hand_drawn(noise: float = 1.0, count: int = 40, sign: int = 1) -> Dataset:
    """Windows of 24 ms at 25 kHz: noise, and events of eight SD that rise at a third of them."""
    rng = np.random.default_rng(0)
    windows = rng.normal(5, noise, (count, 600)).astype(np.float32)
    scores = (np.arange(count) % 2).astype(np.int8)
    t = np.arange(400) / 25.0
    windows[scores == EVENT, 200:] += sign * 8 * noise * np.exp(-t).astype(np.float32)
    return Dataset(
        windows=windows,
        scores=scores,
        rate_hz=25_000.0,
        unit="pA",
        cells=np.repeat(["a", "b"], count // 2),
    )


@pytest.mark.parametrize(
    ("fitting_ms", "expected"), [(12.0, 12.0), (6.0, 12.0), (190.0, 12.0), (600.0, 600.0), (2, 2)]
)
def test_the_time_scale_changes_only_for_events_that_the_network_does_not_know(
    fitting_ms: float, expected: float
) -> None:
    assert time_scale_ms(fitting_ms, CARD) == expected


def test_windows_lie_on_the_grid_and_their_events_between_the_hops() -> None:
    frame = framing(hand_drawn(), CARD)
    assert (frame.window_ms, frame.width, frame.length % UNIT) == (12.0, 600, 0)
    rise = (frame.inside.start + 200) / HOP
    assert frame.first < rise < frame.last
    assert frame.last - frame.first < 10
    other = framing(hand_drawn(), CARD, window_ms=24.0)
    assert other.width == 300


def test_a_cell_is_scaled_by_its_own_noise_whatever_the_unit() -> None:
    quiet = hand_drawn()
    loud = quiet.windows.copy()
    loud[quiet.cells == "b"] *= 7
    frame = framing(quiet, CARD)
    one, labels = framed(quiet, frame)
    two, _ = framed(replace(quiet, windows=1e-3 * loud), frame)
    np.testing.assert_allclose(two, one, atol=0.02)
    assert labels.sum() == len(quiet) / 2
    # noise of SD 1 has means of ten of SD 0.32, in which it is counted
    inside = one[labels == 0][:, frame.inside]
    assert np.median(np.abs(inside)) * 1.48 == pytest.approx(np.sqrt(10), rel=0.25)


def test_events_point_up_and_margins_are_mirror_images() -> None:
    down = hand_drawn(sign=-1)
    frame = framing(down, CARD, sign=-1)
    samples, labels = framed(down, frame)
    start, stop = frame.inside.start, frame.inside.stop
    peak = samples[labels == 1].mean(axis=0)[start : start + 300].argmax()
    assert peak == pytest.approx(200, abs=5)
    np.testing.assert_allclose(samples[:, start - 9], samples[:, start + 8], atol=1e-5)
    assert samples.shape == (len(down), frame.length)
    assert stop < frame.length


def test_a_cell_without_noise_windows_is_scaled_by_all_of_them() -> None:
    whole = hand_drawn()
    events = whole[(whole.scores == EVENT) | (whole.cells == "a")]
    samples, _ = framed(events, framing(events, CARD))
    assert np.isfinite(samples).all()
    assert 0.5 < samples[-1].max() / samples[1].max() < 2


def test_windows_scaled_one_by_one_are_refused() -> None:
    whole = hand_drawn()
    low = whole.windows.min(axis=1, keepdims=True)
    spans = np.ptp(whole.windows, axis=1)[:, None]
    scaled = replace(whole, windows=(whole.windows - low) / spans)
    with pytest.raises(UsageError, match="--base cnn-lstm"):
        framed(scaled, framing(scaled, CARD))


def test_without_an_event_nobody_knows_where_to_look() -> None:
    whole = hand_drawn()
    with pytest.raises(UsageError, match="where events lie cannot be told"):
        framing(whole[whole.scores == NOISE], CARD)


def test_a_window_is_judged_by_its_highest_score_between_the_hops() -> None:
    keras.utils.set_random_seed(1)
    network = trace_network((4, 4, 4), norms=False)
    dataset = hand_drawn(count=8)
    frame = framing(dataset, CARD)
    samples, _ = framed(dataset, frame)
    hops = np.asarray(network(samples[..., None]))[..., 0]
    found = np.asarray(judge(network, frame)(samples[..., None]))[:, 0]
    np.testing.assert_allclose(found, hops[:, frame.first : frame.last].max(axis=1), atol=1e-6)


def test_the_shipped_model_tells_windows_of_events_from_noise() -> None:
    from quantal_trainer.evaluate import evaluate

    dataset = simulate_dataset(PREPARATIONS["epsp"], windows=60, cells=3, seed=7010)
    found, scored = evaluate(load_model("minis"), dataset)
    assert found.auc > 0.97
    assert found.accuracy > 0.9
    assert scored.windows.shape == (60, 1_500)
    with pytest.raises(UsageError, match="leave place out"):
        evaluate(load_model("minis"), dataset, place="reference")

"""The shipped minis, the default: it is told no window and reads any rate."""

from __future__ import annotations

import numpy as np
import pytest

from quantal.detect import detect
from quantal.model import DEFAULT_MODEL, Model, load_model
from quantal.scan import scan
from quantal.simulate import Rig, matched, simulate_recording


@pytest.fixture(scope="module")
def model() -> Model:
    """The model that ships."""
    return load_model("minis")


def test_it_is_the_default() -> None:
    assert DEFAULT_MODEL == "minis"
    assert load_model().card.kind == "trace"


@pytest.mark.parametrize(
    ("decay_s", "rate_hz"), [(0.7e-3, 50_000.0), (3e-3, 20_000.0), (12e-3, 10_000.0)]
)
def test_events_of_any_decay_at_any_rate_are_found_without_a_window(
    decay_s: float, rate_hz: float
) -> None:
    trace, truth = simulate_recording(
        seconds=20,
        amplitude=-15,
        tau_rise_s=decay_s / 5,
        tau_decay_s=decay_s,
        rig=Rig(rate_hz=rate_hz),
        seed=8,
    )
    events = detect(trace)
    hits = matched(truth.onset_s, events.location_s, tolerance_s=3e-3)
    assert hits >= 0.9 * len(truth.onset_s)
    assert len(events) - hits <= 1
    assert np.nanmedian(events.half_decay_ms) == pytest.approx(0.75e3 * decay_s, rel=0.25)


@pytest.mark.parametrize("name", ["minis", "cnn-lstm"])
def test_threads_change_no_event(name: str) -> None:
    trace, _ = simulate_recording(seconds=3, frequency_hz=8, seed=4)
    one, more = (detect(trace, model=name, device="cpu", threads=n) for n in (1, 3))
    assert len(one) > 10
    for column in ("location_s", "amplitude", "half_decay_ms", "area"):
        np.testing.assert_array_equal(getattr(one, column), getattr(more, column))


def test_a_part_has_the_scores_of_the_whole(model: Model) -> None:
    trace, _ = simulate_recording(seconds=20, seed=9)
    whole, part = scan(trace, model), scan(trace.between(0, 15), model)
    settled = part.time_s < 14.7
    np.testing.assert_allclose(part.values[settled], whole.values[: len(part)][settled], atol=1e-5)

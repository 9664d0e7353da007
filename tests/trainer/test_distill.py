"""Scouts: what they learn from, calibrated so that one that misses is noticed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from quantal.detect import detect
from quantal.errors import ModelError, UsageError
from quantal.events import COLUMNS
from quantal.model import GRAPH, SCOUT, Card, Model, load_model, sha256_of, write_card
from quantal.scan import scan
from quantal.scout import open_scout
from quantal.simulate import simulate_recording
from quantal_trainer import distill as room
from quantal_trainer.backend import keras
from quantal_trainer.cli import main
from quantal_trainer.distill import (
    BINS,
    THRESHOLDS,
    Plan,
    distill,
    leading,
    lessons,
    marked,
    runs_of,
)
from quantal_trainer.export import export_model

PLAN = Plan(stretches=40, epochs=15, calibration=20)
Array = NDArray[np.float32]


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A network that scores how far a window's middle stands above its beginning."""
    windows = keras.Input((600, 1))
    dense = keras.layers.Dense(1, activation="sigmoid")
    network = keras.Model(windows, dense(keras.layers.Flatten()(windows)))
    weights = np.zeros((600, 1), np.float32)
    weights[100:200], weights[220:320] = -0.18, 0.18
    dense.set_weights([weights, np.array([-6.0], np.float32)])
    card = Card(name="blank", reference_sample=210, polarity="positive", direction="negative")
    return export_model(network, tmp_path_factory.mktemp("m") / "blank", card=card)


@pytest.fixture(scope="module", autouse=True)
def small_steps() -> Iterator[None]:
    """More steps from few windows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "_BATCH", 128)
        yield


@pytest.fixture(scope="module")
def guided(blank: Model, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The same network with a scout."""
    return distill(blank, tmp_path_factory.mktemp("m") / "guided", PLAN)


def test_lessons_are_averaged_windows_and_their_scores(blank: Model) -> None:
    inputs, targets, weights = lessons(blank, replace(PLAN, stretches=3))
    assert inputs.shape == (len(targets), BINS)
    assert targets.shape == weights.shape
    assert 600 < len(targets) <= 3 * 2 * 256
    assert inputs.min() >= 0
    assert inputs.max() <= 1
    assert 0 <= targets.min() < targets.max() <= 1
    assert weights.min() >= 1
    again, *_ = lessons(blank, replace(PLAN, stretches=3))
    np.testing.assert_array_equal(inputs, again)


def test_a_model_gets_its_scout_and_stays_what_it_is(blank: Model, guided: Model) -> None:
    assert guided.card.graphs[GRAPH] == blank.card.graphs[GRAPH]
    assert guided.card.test_scores == blank.card.test_scores
    facts = guided.card.scout
    assert (facts["hop_samples"], facts["bin_samples"]) == (80, 5)
    assert [reached for reached, _ in facts["levels"]] == list(THRESHOLDS)
    calibration = facts["calibration"]
    assert min(map(min, calibration["runs"])) > 10
    assert np.max(calibration["unseen"]) <= 1
    assert min(calibration["margins"]) >= PLAN.margin
    lowest = np.min(calibration["lowest"], axis=0)
    assert all(level <= low for (_, level), low in zip(facts["levels"], lowest, strict=True))
    assert max(calibration["suspect"]) < 0.5


def test_events_are_those_of_a_dense_scan_from_fewer_windows(guided: Model) -> None:
    trace, _ = simulate_recording(seconds=4, frequency_hz=3, amplitude=-10, seed=5)
    dense, screened = (detect(trace, model=guided, method=m) for m in ("dense", "screened"))
    assert len(dense) > 5
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(dense, name), getattr(screened, name))
    alone = replace(guided.card, graphs={GRAPH: guided.card.graphs[GRAPH]}, scout={})
    read = [
        np.count_nonzero(scan(trace, m, method="screened").values)
        for m in (guided, Model(card=alone, folder=guided.folder))
    ]
    assert read[0] < read[1]


def test_a_scout_put_in_place_of_another_is_refused(guided: Model, tmp_path: Path) -> None:
    for name in (GRAPH, SCOUT, "card.json"):
        (tmp_path / name).write_bytes((guided.folder / name).read_bytes())
    load_model(tmp_path)
    (tmp_path / SCOUT).write_bytes(b"spy")
    with pytest.raises(ModelError, match=r"scout\.onnx is not the file that its card describes"):
        load_model(tmp_path)


def test_a_model_written_anew_has_no_old_scout(guided: Model, tmp_path: Path) -> None:
    windows = keras.Input((600, 1))
    network = keras.Model(
        windows, keras.layers.Dense(1, activation="sigmoid")(keras.layers.Flatten()(windows))
    )
    other = export_model(network, tmp_path / "other", card=guided.card)
    assert other.card.scout == {}
    assert open_scout(other) is None


# Marks and levels --------------------------------------------------------------------------------


def run_of(*scores: float) -> Array:
    """Scores of a run among silence, windows 40 and later."""
    values = np.zeros(100, np.float32)
    values[40 : 40 + len(scores)] = scores
    return values


def led(value: Callable[[int], float], every: int = 4) -> Array:
    """Values of a scout by the number of the window; where it does not look, -inf."""
    values = np.full(100, -np.inf, np.float32)
    values[::every] = [value(k) for k in range(0, 100, every)]
    return values


def test_a_scout_must_see_the_height_of_a_run_and_may_say_what_it_likes_elsewhere_in_it() -> None:
    scores = run_of(0.02, 0.1, 0.3, 0.6, 0.9, 0.6, 0.3, 0.1, 0.02)
    targets, weights = marked(scores)
    assert targets[42:47].tolist() == [np.float32(0.9)] * 5
    assert weights[42:47].min() > 5
    assert not weights[[40, 41, 47, 48]].any()
    np.testing.assert_array_equal(weights[:40], 1)
    np.testing.assert_array_equal(targets[:40], 0)


def test_a_run_that_reaches_no_threshold_counts_as_it_scores() -> None:
    scores = run_of(0.02, 0.1, 0.2, 0.1, 0.02)
    targets, weights = marked(scores)
    np.testing.assert_array_equal(targets, scores)
    assert set(weights) == {1}


def test_the_value_that_leads_to_a_run_is_the_highest_of_windows_that_are_followed() -> None:
    scores = run_of(0.1, 0.6, 0.9, 0.6, 0.1, 0.06, 0.03, 0.03, 0.03)  # 48 scores too little
    runs = runs_of(scores, 0.5)
    assert leading(scores, led(float), runs, 0.5).tolist() == [[44.0], [48.0], [48.0]]
    blind = leading(scores, led(lambda _: -20.0), runs, 0.5)
    assert blind.tolist() == [[-20.0]] * 3


def test_a_run_between_two_looks_is_lost_unless_it_is_felt_or_the_range_jumps() -> None:
    scores = run_of(0.0, 0.9, 0.9, 0.0)
    runs = runs_of(scores, 0.5)
    values = led(float)
    assert leading(scores, values, runs, 0.5).tolist() == [[-np.inf]] * 3
    scores[44] = 0.005
    assert leading(scores, values, runs, 0.5).tolist() == [[-np.inf], [-np.inf], [44.0]]
    values[40:45] = np.inf
    assert leading(scores, values, runs, 0.5).tolist() == [[np.inf]] * 3


def test_a_scout_that_cannot_see_is_refused(
    blank: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It learns from windows that are mixed up, so its level must be so low that it spares nothing.
    def mixed(model: Model, plan: Plan) -> tuple[Any, Array, Array]:
        inputs, targets, weights = lessons(model, plan)
        return np.random.default_rng(0).permutation(inputs), targets, weights

    monkeypatch.setattr(room, "lessons", mixed)
    with pytest.raises(ModelError, match="of all windows so as to miss no event, and is of no use"):
        distill(blank, tmp_path / "m", replace(PLAN, stretches=10, epochs=4, calibration=6))
    assert not (tmp_path / "m").exists()


def test_a_trace_network_needs_no_scout() -> None:
    with pytest.raises(UsageError, match="minis needs no scout"):
        distill("minis", None, PLAN)


def test_a_shipped_model_is_not_written_over() -> None:
    with pytest.raises(UsageError, match="came with quantal and stays as it is; give --out"):
        distill("cnn-lstm", None, PLAN)


def test_a_folder_with_other_things_is_left_alone(blank: Model, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other things than a model"):
        distill(blank, tmp_path, PLAN)


# The command -------------------------------------------------------------------------------------


def test_the_command_writes_into_the_models_own_folder(blank: Model, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in (GRAPH, "card.json"):
        (folder / name).write_bytes((blank.folder / name).read_bytes())
    options: list[Any] = ["--stretches", 20, "--epochs", 20, "--calibration", 8, "--json"]
    result = CliRunner().invoke(main, ["distill", str(folder), *map(str, options)])
    assert result.exit_code == 0, result.output
    assert '"unseen"' in result.output
    assert load_model(folder).card.graphs[SCOUT] == sha256_of(folder / SCOUT)
    write_card(load_model(folder).card, folder)
    assert load_model(folder).card.scout["levels"]

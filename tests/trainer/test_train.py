"""From labelled windows to a model folder that detection takes as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantal.detect import detect
from quantal.errors import ModelError, UsageError
from quantal.model import load_model, sha256_of
from quantal.simulate import matched
from quantal_trainer.backend import keras
from quantal_trainer.datasets import EXCLUDED, Dataset
from quantal_trainer.evaluate import evaluate, known_shift
from quantal_trainer.fit import FitSettings
from quantal_trainer.preparations import PREPARATIONS, simulate_cells, simulate_dataset
from quantal_trainer.profile import profile_of
from quantal_trainer.restore import base_network
from quantal_trainer.train import Plan, Trained, cross_validate, fingerprint, train
from quantal_trainer.transfer import CONVOLUTIONS, TRANSFER, freeze, frozen_layers


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return simulate_dataset(PREPARATIONS["epsp"], windows=240, cells=4, seed=3)


QUICK = replace(TRANSFER, epochs=3)


@pytest.fixture(scope="module")
def transferred(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("transfer") / "epsp"
    return train(dataset, folder, Plan(base="cnn-lstm", settings=QUICK))


def test_a_transferred_card_tells_detection_everything(
    transferred: Trained, dataset: Dataset
) -> None:
    card = transferred.model.card
    assert (card.name, card.polarity, card.direction) == ("epsp", "positive", "positive")
    assert card.window_ms == pytest.approx(dataset.window_ms)
    assert card.rate_hz == pytest.approx(600e3 / dataset.window_ms)
    assert 110 <= card.reference_sample <= 320
    training = card.training
    assert training["base"]["graphs"] == load_model("cnn-lstm").card.graphs
    assert training["data"]["sha256"] == fingerprint(dataset)
    assert training["plan"]["settings"]["seed"] == 0
    assert len(training["history"]["loss"]) == 3
    assert training["windows"]["training"] + training["windows"]["validation"] == 240


def test_a_transferred_model_finds_events_with_no_option_given(transferred: Trained) -> None:
    [(trace, truth)] = simulate_cells(PREPARATIONS["epsp"], cells=1, seconds=15.0, seed=77)
    events = detect(trace, model=transferred.model)
    hits = matched(truth.onset_s, events.location_s, tolerance_s=5e-3)
    assert hits >= 0.7 * len(truth.onset_s)
    assert len(events) - hits <= 0.2 * len(events)


def test_scores_are_shifted_for_a_scan_and_judged_without_the_shift(
    transferred: Trained, dataset: Dataset
) -> None:
    card = transferred.model.card
    assert known_shift(card) == pytest.approx(np.log(19), abs=1e-3)
    found, _ = evaluate(transferred.model, dataset)
    strict, _ = evaluate(transferred.model, dataset, threshold=0.5)
    assert found.threshold == pytest.approx(0.05, abs=1e-3)
    assert found.recall > strict.recall
    assert found.accuracy > 0.9


def test_frozen_convolutions_stay_as_they_were(transferred: Trained) -> None:
    before, _ = base_network("cnn-lstm")
    after, _ = base_network(transferred.model)
    x = np.random.default_rng(0).random((4, 600, 1), np.float32)

    def last_convolution(network: keras.Model) -> np.ndarray:  # type: ignore[type-arg]
        return np.asarray(keras.Model(network.inputs[0], network.get_layer("relu_4").output)(x))

    np.testing.assert_allclose(last_convolution(after), last_convolution(before), atol=1e-4)
    dense = [network.get_layer("dense").get_weights()[0] for network in (before, after)]
    assert np.abs(dense[0] - dense[1]).max() > 1e-3


@pytest.mark.slow
def test_the_same_seed_and_data_give_the_same_graph(dataset: Dataset, tmp_path: Path) -> None:
    plan = Plan(base="cnn-lstm", settings=replace(QUICK, epochs=1))
    few = dataset[np.arange(0, 240, 2)]
    one, other = (train(few, tmp_path / name, plan, name="m").model for name in "ab")
    assert sha256_of(one.graph) == sha256_of(other.graph)
    another = replace(plan, settings=replace(plan.settings, seed=1))
    assert sha256_of(train(few, tmp_path / "c", another, name="m").model.graph) != sha256_of(
        one.graph
    )


@pytest.mark.slow
def test_windows_pointing_down_train_a_fresh_network_that_sees_them_upright(
    tmp_path: Path,
) -> None:
    down = simulate_dataset(PREPARATIONS["mepsc"], windows=80, cells=2, seed=1)
    settings = FitSettings(epochs=1, learning_rate=1e-3)
    trained = train(down, tmp_path / "fresh", Plan(settings=settings, by="window"))
    card = trained.model.card
    assert (card.polarity, card.direction) == ("positive", "negative")
    assert card.training["base"] is None
    assert 110 <= card.reference_sample <= 320


@pytest.mark.slow
def test_cross_validation_scores_every_window_once(dataset: Dataset) -> None:
    plan = Plan(base="cnn-lstm", settings=replace(QUICK, epochs=1))
    parts = cross_validate(dataset, plan, 2)
    assert len(parts) == 2
    labels = np.concatenate([part.labels for part in parts])
    assert len(labels) == 240
    assert labels.sum() == (dataset.scores == 1).sum()
    assert all(len(part.scores) == len(part.windows) == len(part.labels) for part in parts)


@pytest.mark.slow
def test_what_looks_unlike_the_base_is_told_before_training(
    dataset: Dataset, transferred: Trained, tmp_path: Path
) -> None:
    late = replace(dataset, windows=np.roll(dataset.windows, dataset.length // 3, axis=1))
    said: list[str] = []
    plan = Plan(base=transferred.model.folder, settings=replace(QUICK, epochs=1))
    trained = train(late, tmp_path / "late", plan, warn=said.append)
    assert any("events rise at" in text for text in said)
    assert trained.model.card.training["warnings"] == said


def test_a_single_cell_must_be_split_by_window(dataset: Dataset, tmp_path: Path) -> None:
    one = dataset[dataset.cells == dataset.cells[0]]
    with pytest.raises(UsageError, match="split by window"):
        train(one, tmp_path / "one", Plan(base="cnn-lstm", settings=QUICK))


def test_windows_nobody_scored_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    unscored = replace(dataset, scores=np.full(len(dataset), EXCLUDED))
    with pytest.raises(UsageError, match="score them first"):
        train(unscored, tmp_path / "none", Plan())


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["positive", "negative"])
def test_a_keras_base_is_asked_which_way_it_sees_events(
    direction: str, dataset: Dataset, tmp_path: Path
) -> None:
    network, _ = base_network("cnn-lstm")
    if direction == "negative":
        dataset = replace(dataset, windows=-dataset.windows)
    network.save(tmp_path / "base.keras")
    plan = Plan(base=tmp_path / "base.keras", settings=replace(QUICK, epochs=1))
    card = train(dataset, tmp_path / "mine", plan).model.card
    assert (card.polarity, card.direction) == ("positive", direction)
    assert card.training["base"]["imported_from"] == "base.keras"


@pytest.mark.slow
def test_contradictions_in_the_windows_are_told(dataset: Dataset, tmp_path: Path) -> None:
    mixed = dataset.windows.copy()
    mixed[::3] *= -1
    said: list[str] = []
    plan = Plan(settings=FitSettings(epochs=1), direction="negative", by="window")
    train(replace(dataset, windows=mixed), tmp_path / "mixed", plan, warn=said.append)
    assert any("said to be negative, but seem positive" in text for text in said)
    assert any("point the other way" in text for text in said)


def test_a_folder_of_other_things_is_refused_before_training(
    dataset: Dataset, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other things"):
        train(dataset, tmp_path, Plan())
    with pytest.raises(ModelError, match="cannot be a model's name"):
        train(dataset, tmp_path / "new", Plan(), name="../new")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"balance": "thinned"}, "balance must be one of keep, thin"),
        ({"by": "sweep"}, "by must be one of cell, window"),
        ({"direction": "up"}, "direction must be one of negative, positive"),
        ({"validation": "0.3"}, "validation must lie between 0 and 1"),
        ({"threshold": 2.0}, "threshold must lie between 0 and 1"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Plan(**options)


def test_the_shipped_model_knows_what_its_windows_looked_like() -> None:
    known = profile_of(load_model("cnn-lstm").card.training)
    assert set(known) == {"noise_roughness", "event_roughness", "event_place", "event_width"}


def test_layers_to_freeze_are_named() -> None:
    assert frozen_layers("convolutions") == CONVOLUTIONS
    assert frozen_layers("none") == ()
    assert frozen_layers("conv_1, lstm") == ("conv_1", "lstm")
    with pytest.raises(UsageError, match="no layer conv_9: give convolutions, none, or some of"):
        frozen_layers("conv_9")


def test_a_frozen_convolution_takes_its_norm_with_it() -> None:
    network, _ = base_network("cnn-lstm")
    freeze(network, ("conv_1", "dense"))
    still = [layer.name for layer in network.layers if layer.weights and not layer.trainable]
    assert still == ["conv_1", "norm_1", "dense"]

"""A model folder becomes the Keras network that it came from."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from quantal.errors import ModelError
from quantal.model import CARD, Model, load_model, read_card, write_card
from quantal_trainer.backend import keras
from quantal_trainer.export import export_model, keras_scores
from quantal_trainer.restore import adapt_norms, base_network, restore

Array = NDArray[np.float32]


def test_a_restored_network_scores_as_the_one_it_came_from(
    network: Any, exported: Model, windows: Array
) -> None:
    again = restore(exported)
    np.testing.assert_allclose(
        keras_scores(again, windows), keras_scores(network, windows), atol=2e-6
    )


def test_every_weight_but_the_norms_statistics_comes_back(network: Any, exported: Model) -> None:
    again = restore(exported)
    for layer, other in zip(network.layers, again.layers, strict=True):
        if layer.name.startswith(("both_ways", "dense", "score")):
            for weight, found in zip(layer.get_weights(), other.get_weights(), strict=True):
                np.testing.assert_allclose(found, weight, atol=1e-6)


def test_the_shipped_model_can_be_trained_further() -> None:
    network, card = base_network("cnn-lstm", dropout=0.5)
    assert card.name == "cnn-lstm"
    assert network.get_layer("dropout").rate == 0.5
    assert network.count_params() == 191_361  # 190,913 of them trainable


def test_a_keras_file_is_a_base_too(network: Any, windows: Array, tmp_path: Path) -> None:
    network.save(tmp_path / "mine.keras")
    again, card = base_network(tmp_path / "mine.keras")
    assert (card.name, card.polarity) == ("mine", "negative")
    np.testing.assert_allclose(
        keras_scores(again, windows), keras_scores(network, windows), atol=2e-6
    )


def test_adapted_norms_leave_the_scores_and_have_the_statistics(
    exported: Model, windows: Array
) -> None:
    network = restore(exported)
    before = keras_scores(network, windows)
    adapt_norms(network, windows)
    np.testing.assert_allclose(keras_scores(network, windows), before, atol=1e-5)
    first = network.get_layer("norm_1")
    values = keras.Model(network.inputs, first.input).predict(windows[..., None], verbose=0)
    np.testing.assert_allclose(first.get_weights()[2], values.mean(axis=(0, 1)), atol=1e-5)
    np.testing.assert_allclose(first.get_weights()[3], values.var(axis=(0, 1)), atol=1e-5)


def test_in_training_mode_an_adapted_network_starts_where_it_was(
    exported: Model, windows: Array
) -> None:
    network, _ = base_network(exported, dropout=0.0)
    untouched, _ = base_network(exported, dropout=0.0)
    adapt_norms(network, windows)
    wanted = keras_scores(network, windows)

    def off(one: Any) -> float:
        batch = one(windows[..., None], training=True).numpy()[:, 0]
        return float(np.abs(batch - wanted).mean())

    assert off(network) < 0.5 * off(untouched)


def test_a_card_that_does_not_fit_the_graph_is_refused(exported: Model, tmp_path: Path) -> None:
    folder = tmp_path / "wrong"
    shutil.copytree(exported.folder, folder)
    card = read_card(folder)
    write_card(replace(card, test_scores=[1 - s for s in card.test_scores]), folder)
    with pytest.raises(ModelError, match="does not give its card's scores"):
        restore(load_model(folder))


def test_another_network_is_refused(tmp_path: Path, exported: Model) -> None:
    keras.utils.set_random_seed(0)
    dense = keras.Sequential(
        [
            keras.Input((600, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    card = replace(read_card(exported.folder), name="other", test_inputs=[], test_scores=[])
    other = export_model(dense, tmp_path / "other", card=card)
    assert (other.folder / CARD).is_file()
    with pytest.raises(ModelError, match="another network than the CNN-LSTM"):
        restore(other)


def test_a_trace_network_is_a_base_too() -> None:
    network, card = base_network("minis")
    assert (card.name, card.kind) == ("minis", "trace")
    inputs = np.asarray(card.test_inputs, np.float32)
    scores = keras_scores(network, inputs)
    np.testing.assert_allclose(scores.ravel(), card.test_scores, atol=1e-5)

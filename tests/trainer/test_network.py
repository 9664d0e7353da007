"""The network against Table 1 of the paper."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from quantal.errors import UsageError
from quantal_trainer.network import cnn_lstm

TABLE = {  # layer -> what comes out of it, from the paper
    "conv_1": (600, 32),
    "pool_1": (200, 32),
    "conv_2": (200, 48),
    "pool_2": (100, 48),
    "conv_3": (100, 64),
    "pool_3": (50, 64),
    "conv_4": (50, 80),
    "both_ways": (96,),
    "dense": (128,),
    "score": (1,),
}


def test_it_has_the_papers_number_of_parameters(network: Any) -> None:
    trainable = sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)
    assert trainable == 190_913


@pytest.mark.parametrize("name", TABLE)
def test_layers_give_the_papers_shapes(network: Any, name: str) -> None:
    assert network.get_layer(name).output.shape[1:] == TABLE[name]


def test_each_block_is_convolution_norm_relu_pooling(network: Any) -> None:
    names = [layer.name.split("_")[0] for layer in network.layers]
    assert names[:12] == ["conv", "norm", "relu", "pool"] * 3
    assert names[12:] == ["conv", "norm", "relu", "both", "dense", "relu", "dropout", "score"]


def test_scores_are_probabilities(network: Any) -> None:
    scores = network(np.random.default_rng(0).random((3, 600, 1), np.float32)).numpy()
    assert scores.shape == (3, 1)
    assert ((scores > 0) & (scores < 1)).all()


def test_dropout_reaches_the_lstm_and_the_dense_layer() -> None:
    network = cnn_lstm(dropout=0.5)
    assert network.get_layer("both_ways").forward_layer.dropout == 0.5
    assert network.get_layer("both_ways").backward_layer.dropout == 0.5
    assert network.get_layer("dropout").rate == 0.5


@pytest.mark.parametrize("settings", [{"window_samples": 11}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_impossible_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="must be"):
        cnn_lstm(**settings)

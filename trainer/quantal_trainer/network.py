"""The CNN-LSTM of O'Neill et al. (Table 1), layer by layer."""

from __future__ import annotations

from typing import NamedTuple

from quantal.errors import UsageError
from quantal_trainer.backend import keras


class Block(NamedTuple):
    """Convolution, batch norm, leaky ReLU and, unless `pool` is 1, average pooling."""

    filters: int
    kernel: int
    pool: int


BLOCKS = (Block(32, 9, 3), Block(48, 7, 2), Block(64, 5, 2), Block(80, 3, 1))
SLOPE = 0.3  # of every leaky ReLU
EPSILON = 1e-3  # of every batch norm
LSTM_UNITS = 96
DENSE_UNITS = 128
WINDOW_SAMPLES = 600
_SHORTEST = 3 * 2 * 2  # the samples that the pooling turns into one


def cnn_lstm(window_samples: int = WINDOW_SAMPLES, dropout: float = 0.2) -> keras.Model:
    """The paper's network with fresh weights: windows (n, window_samples, 1) to scores (n, 1).

    dropout: the fraction dropped, while training, of the LSTM's inputs and of the dense layer's
    outputs; the paper trains with 0.2 and transfers with 0.5.

    Raises UsageError if the window is shorter than 12 samples or dropout is not 0 to below 1.
    """
    if window_samples < _SHORTEST:
        raise UsageError(
            f"window_samples must be at least {_SHORTEST}, got {window_samples}; "
            f"the paper's network takes {WINDOW_SAMPLES}."
        )
    if not 0 <= dropout < 1:
        raise UsageError(f"dropout must be 0 to below 1, got {dropout}; the paper's is 0.2.")
    return keras.Sequential(
        [
            keras.Input((window_samples, 1), name="windows"),
            *(layer for i, block in enumerate(BLOCKS, start=1) for layer in _block(i, block)),
            *_head(dropout),
        ],
        name="cnn_lstm",
    )


def _block(number: int, block: Block) -> list[keras.Layer]:
    layers = [
        keras.layers.Conv1D(block.filters, block.kernel, padding="same", name=f"conv_{number}"),
        keras.layers.BatchNormalization(epsilon=EPSILON, name=f"norm_{number}"),
        keras.layers.LeakyReLU(negative_slope=SLOPE, name=f"relu_{number}"),
    ]
    if block.pool > 1:
        layers.append(keras.layers.AveragePooling1D(block.pool, name=f"pool_{number}"))
    return layers


def _head(dropout: float) -> list[keras.Layer]:
    lstm = keras.layers.LSTM(LSTM_UNITS, dropout=dropout, name="lstm")
    return [
        keras.layers.Bidirectional(lstm, merge_mode="sum", name="both_ways"),
        keras.layers.Dense(DENSE_UNITS, name="dense"),
        keras.layers.LeakyReLU(negative_slope=SLOPE, name="relu_dense"),
        keras.layers.Dropout(dropout, name="dropout"),
        keras.layers.Dense(1, activation="sigmoid", name="score"),
    ]

"""The trace network: fully convolutional, one score every ten samples of a scaled trace.

A first layer turns every ten samples, with those around them, into features; three levels, each a
quarter of the rate of the one before, then look wider and wider, and what they see is added back
on the way up. No level computes anything twice, and there is no window to choose. At the end stand
the probabilities of noise and of events of several half-widths; the score is the sum of the latter,
for a network that must tell fast from slow events learns both sooner.
"""

from __future__ import annotations

import numpy as np

from quantal_trainer.backend import keras
from quantal_trainer.simulated_traces import CLASSES

HOP = 10  # samples between scores
LOGITS = "logits"  # the layer of noise and the classes of events
FILTERS = (40, 56, 88)  # of the levels
_FIRST = 2  # times the filters of the first level look at the samples
_DOWN = 4  # from one level to the next
UNIT = HOP * _DOWN ** (len(FILTERS) - 1)  # the input's length is a multiple of this
_KERNEL = 5
_BLOCKS = ((1, 1), (2, 1), (4, 0))  # on the way down and on the way up
_STEM = 4 * HOP


def trace_network(filters: tuple[int, int, int] = FILTERS, *, norms: bool = True) -> keras.Model:
    """A network with fresh weights: scaled samples (n, length, 1) to scores (n, length / 10, 1).

    length is any multiple of 160. A score depends on samples up to `margin()` away. norms: whether
    convolutions are followed by batch norms, or have a bias instead.
    """
    samples = keras.Input((None, 1), name="samples")
    x = _convolved(samples, _FIRST * filters[0], _STEM, "stem", norms, strides=HOP)
    x = _convolved(x, filters[0], 1, "stem_mix", norms)
    kept = []
    for level, width in enumerate(filters):
        if level:
            kept.append(x)
            x = _convolved(x, width, _DOWN, f"down_{level}", norms, strides=_DOWN)
        for i in range(_BLOCKS[level][0]):
            x = _residual(x, width, f"down_{level}_{i}", norms)
    for level in reversed(range(len(filters) - 1)):
        width = filters[level]
        up = keras.layers.Conv1DTranspose(width, _DOWN, strides=_DOWN, name=f"up_{level}")(x)
        x = keras.layers.Add(name=f"join_{level}")([up, kept[level]])
        for i in range(_BLOCKS[level][1]):
            x = _residual(x, width, f"up_{level}_{i}", norms)
    logits = keras.layers.Conv1D(1 + CLASSES, 1, name=LOGITS)(x)
    shares = keras.layers.Softmax(name="classes")(logits)
    score = keras.layers.Conv1D(1, 1, use_bias=False, trainable=False, name="score")
    network = keras.Model(samples, score(shares), name="trace_network")
    score.set_weights([np.r_[0.0, np.ones(CLASSES)].reshape(1, -1, 1)])  # the sum of all events
    return network


def with_classes(network: keras.Model) -> keras.Model:
    """The same network, giving noise and the classes of events their shares: (n, hops, 9)."""
    return keras.Model(network.input, network.get_layer("classes").output)


def margin() -> int:
    """Samples, a multiple of 160, beyond which nothing changes a score."""
    reach = _STEM
    for level, (down, up) in enumerate(_BLOCKS):
        rate = HOP * _DOWN**level
        reach += (down + up) * (_KERNEL // 2) * rate + (_DOWN * rate if level else 0)
    return int(-(-reach // UNIT) * UNIT)


def _convolved(
    x: keras.KerasTensor, width: int, kernel: int, name: str, norms: bool, strides: int = 1
) -> keras.KerasTensor:
    """Convolution, batch norm and ReLU."""
    x = keras.layers.Conv1D(
        width, kernel, strides=strides, padding="same", use_bias=not norms, name=name
    )(x)
    if norms:
        x = keras.layers.BatchNormalization(name=f"{name}_norm")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def _residual(x: keras.KerasTensor, width: int, name: str, norms: bool) -> keras.KerasTensor:
    """What a convolution and a mixture of its features add; nothing at first."""
    y = _convolved(x, width, _KERNEL, name, norms)
    y = keras.layers.Conv1D(width, 1, use_bias=not norms, name=f"{name}_mix")(y)
    if norms:
        y = keras.layers.BatchNormalization(gamma_initializer="zeros", name=f"{name}_mix_norm")(y)
    return keras.layers.ReLU(name=f"{name}_out")(keras.layers.Add(name=f"{name}_add")([x, y]))

"""The trace network: fully convolutional, one score every ten samples of a scaled trace.

A first layer turns every ten samples, with those around them, into features; three levels, each a
quarter of the rate of the one before, then look wider and wider, and what they see is added back
on the way up. No level computes anything twice, and there is no window to choose.
"""

from __future__ import annotations

from quantal_trainer.backend import keras

HOP = 10  # samples between scores
FILTERS = (32, 56, 80)  # of the levels
_DOWN = 4  # from one level to the next
UNIT = HOP * _DOWN ** (len(FILTERS) - 1)  # the input's length is a multiple of this
_KERNEL = 5
_BLOCKS = ((1, 1), (2, 1), (4, 0))  # on the way down and on the way up
_STEM = 4 * HOP


def trace_network(filters: tuple[int, int, int] = FILTERS) -> keras.Model:
    """A network with fresh weights: scaled samples (n, length, 1) to scores (n, length / 10, 1).

    length is any multiple of 160. A score depends on samples up to `margin()` away.
    """
    samples = keras.Input((None, 1), name="samples")
    x = _convolved(samples, filters[0], _STEM, "stem", strides=HOP)
    kept = []
    for level, width in enumerate(filters):
        if level:
            kept.append(x)
            x = _convolved(x, width, _DOWN, f"down_{level}", strides=_DOWN)
        for i in range(_BLOCKS[level][0]):
            x = _residual(x, width, f"down_{level}_{i}")
    for level in reversed(range(len(filters) - 1)):
        width = filters[level]
        up = keras.layers.Conv1DTranspose(width, _DOWN, strides=_DOWN, name=f"up_{level}")(x)
        x = keras.layers.Add(name=f"join_{level}")([up, kept[level]])
        for i in range(_BLOCKS[level][1]):
            x = _residual(x, width, f"up_{level}_{i}")
    scores = keras.layers.Conv1D(1, 1, activation="sigmoid", name="score")(x)
    return keras.Model(samples, scores, name="trace_network")


def margin() -> int:
    """Samples, a multiple of 160, beyond which nothing changes a score."""
    reach = _STEM
    for level, (down, up) in enumerate(_BLOCKS):
        rate = HOP * _DOWN**level
        reach += (down + up) * (_KERNEL // 2) * rate + (_DOWN * rate if level else 0)
    return int(-(-reach // UNIT) * UNIT)


def _convolved(x: keras.KerasTensor, width: int, kernel: int, name: str, strides: int = 1):  # type: ignore[no-untyped-def]
    x = keras.layers.Conv1D(
        width, kernel, strides=strides, padding="same", use_bias=False, name=name
    )(x)
    x = keras.layers.BatchNormalization(name=f"{name}_norm")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def _residual(x: keras.KerasTensor, width: int, name: str):  # type: ignore[no-untyped-def]
    y = _convolved(x, width, _KERNEL, name)
    y = keras.layers.Conv1D(width, 1, use_bias=False, name=f"{name}_mix")(y)
    y = keras.layers.BatchNormalization(gamma_initializer="zeros", name=f"{name}_mix_norm")(y)
    return keras.layers.ReLU(name=f"{name}_out")(keras.layers.Add(name=f"{name}_add")([x, y]))

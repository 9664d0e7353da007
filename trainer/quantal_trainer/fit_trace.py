"""Training of trace networks: pieces of scaled traces in, a label for every hop, seeded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal_trainer.backend import keras
from quantal_trainer.simulated_traces import PIECE, Pieces
from quantal_trainer.trace_network import HOP

Array = NDArray[np.float32]
_NEAR = 3  # hops from an event within which a high score is no mistake
_RIM = PIECE // HOP // 16  # hops at the ends of a piece that lack what is beside them


class _Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of pieces in an order drawn anew for every epoch."""

    def __init__(self, pieces: Pieces, batch: int, seed: int) -> None:
        super().__init__()
        self.pieces, self.batch, self.seed, self.epoch = pieces, batch, seed, 0
        self._shuffle()

    def __len__(self) -> int:
        return len(self.pieces.samples) // self.batch

    def __getitem__(self, index: int) -> tuple[Array, Array, Array]:
        rows = np.sort(self.order[index * self.batch : (index + 1) * self.batch])
        return batch_of(self.pieces, rows)

    def on_epoch_end(self) -> None:
        self.epoch += 1
        self._shuffle()

    def _shuffle(self) -> None:
        rng = np.random.default_rng((self.seed, self.epoch))
        self.order = rng.permutation(len(self.pieces.samples))


def batch_of(pieces: Pieces, rows: NDArray[np.intp]) -> tuple[Array, Array, Array]:
    """Samples (n, PIECE, 1), labels (n, hops, 1) and weights (n, hops) for Keras."""
    weights = pieces.weights[rows].astype(np.float32)
    weights[:, :_RIM] = weights[:, -_RIM:] = 0.0
    return (
        pieces.samples[rows].astype(np.float32)[..., None],
        pieces.labels[rows].astype(np.float32)[..., None],
        weights,
    )


def compile_trace(network: keras.Model, learning_rate: float, steps: int) -> None:
    """Adam with a cosine decay to 0 over so many steps, on binary cross-entropy of every hop."""
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps, warmup_target=learning_rate, warmup_steps=min(200, steps // 10)
    )
    network.compile(
        optimizer=keras.optimizers.Adam(rate, clipnorm=1.0),
        loss="binary_crossentropy",
        jit_compile=False,
    )


def fit_trace(
    network: keras.Model,
    pieces: Pieces,
    *,
    batch: int,
    epochs: int,
    seed: int,
    progress: Callable[[int, dict[str, float]], None] | None = None,
) -> None:
    """Train a compiled network on pieces; the optimizer goes on from where it was."""
    batches = _Batches(pieces, batch, seed)
    for epoch in range(epochs):
        history: Any = network.fit(batches, epochs=1, shuffle=False, verbose=0).history
        if progress is not None:
            progress(epoch + 1, {name: float(values[-1]) for name, values in history.items()})


def piece_scores(network: keras.Model, pieces: Pieces, batch: int = 32) -> Array:
    """Scores float32 (n, hops) of pieces."""
    parts = []
    for first in range(0, len(pieces.samples), batch):
        x = pieces.samples[first : first + batch].astype(np.float32)[..., None]
        parts.append(np.asarray(network.predict_on_batch(x))[..., 0])
    return np.concatenate(parts)


def cross_entropy(scores: Array, pieces: Pieces) -> float:
    """Binary cross-entropy (nats) of the hops that have a label, away from the ends of pieces."""
    inner = (slice(None), slice(_RIM, -_RIM))
    counted = pieces.weights[inner] > 0
    right = np.where(pieces.labels[inner] > 0, scores[inner], 1 - scores[inner])[counted]
    return float(-np.log(np.maximum(right, 1e-7)).mean())


def mistaken(scores: Array, pieces: Pieces) -> NDArray[np.bool_]:
    """Which pieces have a score above a half where there is no event nearby: (n,)."""
    around = np.lib.stride_tricks.sliding_window_view(
        np.pad((pieces.labels > 0) | (pieces.weights == 0), ((0, 0), (_NEAR, _NEAR))),
        2 * _NEAR + 1,
        axis=1,
    ).any(axis=2)
    wrong = (scores > 0.5) & ~around
    return np.asarray(wrong[:, _RIM:-_RIM].any(axis=1))

"""Training of trace networks: pieces of scaled traces in, a label for every hop, seeded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quantal_trainer.backend import keras
from quantal_trainer.simulated_traces import PIECE, Pieces
from quantal_trainer.trace_network import HOP

Array = NDArray[np.float32]
_NEAR = 3  # hops from an event within which a high score is no mistake
_RIM = PIECE // HOP // 16  # hops at the ends of a piece that lack what is beside them


def batch_of(
    pieces: Pieces, rows: NDArray[np.intp], *, classes: bool = False
) -> tuple[Array, Array, Array]:
    """Samples (n, PIECE, 1), labels or classes (n, hops, 1) and weights (n, hops) for Keras."""
    labels = pieces.labels[rows]
    weights = pieces.weights[rows].astype(np.float32)
    weights[:, :_RIM] = weights[:, -_RIM:] = 0.0
    return (
        pieces.samples[rows].astype(np.float32)[..., None],
        (labels if classes else labels > 0).astype(np.float32)[..., None],
        weights,
    )


def compile_trace(network: keras.Model, learning_rate: float, steps: int) -> None:
    """Adam with a cosine decay to 0 over so many steps, on cross-entropy of every hop.

    Of its label, or of its class where the network is one `with_classes`.
    """
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps, warmup_target=learning_rate, warmup_steps=min(200, steps // 10)
    )
    network.compile(
        optimizer=keras.optimizers.Adam(rate, clipnorm=1.0),
        loss="sparse_categorical_crossentropy" if _tells(network) else "binary_crossentropy",
        jit_compile=False,
    )


def fit_trace(
    network: keras.Model, pieces: Pieces, *, batch: int, epochs: int, seed: int
) -> list[float]:
    """Train a compiled network on pieces, in an order drawn anew for every epoch.

    The optimizer goes on from where it was. Returns the mean loss of each epoch.
    """
    losses = []
    for epoch in range(1, epochs + 1):
        order = np.random.default_rng((seed, epoch)).permutation(len(pieces.samples))
        each = []
        for first in range(0, len(order) - batch + 1, batch):
            rows = np.sort(order[first : first + batch])
            x, y, weights = batch_of(pieces, rows, classes=_tells(network))
            each.append(network.train_on_batch(x, y, sample_weight=weights))
        losses.append(float(np.mean(each)))
    return losses


def _tells(network: keras.Model) -> bool:
    """Whether a network tells classes of events apart."""
    return bool(network.output_shape[-1] > 1)


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
    return entropy(scores[inner][counted], pieces.labels[inner][counted] > 0)


def entropy(scores: Array, events: NDArray[np.bool_]) -> float:
    """Mean binary cross-entropy (nats) of scores of what is an event and what is none."""
    right = np.where(events, scores, 1 - scores)
    return float(-np.log(np.maximum(right, 1e-7)).mean())


def false_logits(network: keras.Model, pieces: Pieces) -> Array:
    """Logits, float32, of all hops without an event, away from the ends of pieces."""
    inner = (slice(None), slice(_RIM, -_RIM))
    without = (pieces.weights[inner] > 0) & (pieces.labels[inner] == 0)
    scores = np.clip(piece_scores(network, pieces)[inner][without], 1e-7, 1 - 1e-7)
    return np.asarray(np.log(scores / (1 - scores)), np.float32)


def mistaken(scores: Array, pieces: Pieces) -> NDArray[np.bool_]:
    """Which pieces have a score above a half where there is no event nearby: (n,)."""
    around = np.lib.stride_tricks.sliding_window_view(
        np.pad((pieces.labels > 0) | (pieces.weights == 0), ((0, 0), (_NEAR, _NEAR))),
        2 * _NEAR + 1,
        axis=1,
    ).any(axis=2)
    wrong = (scores > 0.5) & ~around
    return np.asarray(wrong[:, _RIM:-_RIM].any(axis=1))

"""Further training of a trace network on a lab's own data, with simulated pieces in every step.

The simulated pieces hold it where it was: what it knew of noise, artefacts and events of other
kinds is not forgotten for a few hundred examples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.errors import UsageError
from quantal_trainer.backend import keras
from quantal_trainer.fit import FitSettings, History, Progress, network_scores
from quantal_trainer.fit_trace import batch_of, cross_entropy, entropy, piece_scores
from quantal_trainer.simulated_traces import Pieces, joined

Array = NDArray[np.float32]
_BESIDE = 8  # simulated pieces beside every batch of windows
_WARM_UP = 0.1  # of all steps


def fit_windows(
    network: keras.Model,
    judge: keras.Model,
    training: tuple[Array, Array],
    validation: tuple[Array, Array],
    simulated: Pieces,
    settings: FitSettings,
    progress: Progress | None = None,
) -> History:
    """Train a trace network until its highest scores tell windows of events from those of noise.

    judge: the same network as it judges a window. training, validation: samples (n, length) and
    labels (n,), 1 an event. Every step takes a batch of windows and eight simulated pieces, and
    both count alike. Of all epochs, and of the network as it came, the one of the least loss on the
    windows held out is kept. Returns loss and accuracy of every epoch, by Keras' names.
    """
    windows, labels = training
    steps = -(-len(windows) // settings.batch)
    both = keras.Model([judge.input, network.input], [judge.output, network.output])
    _compile(both, settings, steps, ["binary_crossentropy"] * 2)

    def epoch(rng: np.random.Generator) -> dict[str, float]:
        order, losses = rng.permutation(len(windows)), []
        for first in range(0, len(order), settings.batch):
            rows = np.sort(order[first : first + settings.batch])
            beside = np.sort(rng.permutation(len(simulated.samples))[:_BESIDE])
            x, y, weights = batch_of(simulated, beside)
            total = both.train_on_batch(
                [windows[rows, :, None], x],
                [labels[rows, None], y],
                sample_weight=[np.ones(len(rows), np.float32), weights],
            )
            losses.append(float(np.ravel(total)[0]))
        return {"loss": float(np.mean(losses))}

    def held_out() -> dict[str, float]:
        scores = network_scores(judge, validation[0])
        return {
            "val_accuracy": float(((scores > 0.5) == validation[1]).mean()),
            "val_loss": entropy(scores, validation[1] == 1),
        }

    return _best_epoch(network, epoch, held_out, settings, progress)


def fit_pieces(
    network: keras.Model,
    training: Pieces,
    validation: Pieces,
    simulated: Pieces,
    settings: FitSettings,
    progress: Progress | None = None,
) -> History:
    """Train a trace network on labelled pieces of recordings, mixed with as many simulated ones.

    The epoch is chosen as in `fit_windows`, by the hops of the pieces held out. Returns the loss of
    every epoch.
    """
    count = len(training.samples)
    _compile(network, settings, -(-2 * count // settings.batch), "binary_crossentropy")

    def epoch(rng: np.random.Generator) -> dict[str, float]:
        beside = rng.permutation(len(simulated.samples))[:count]
        mixed = joined([training, simulated.at(beside)])
        order, losses = rng.permutation(len(mixed.samples)), []
        for first in range(0, len(order), settings.batch):
            x, y, weights = batch_of(mixed, np.sort(order[first : first + settings.batch]))
            losses.append(float(network.train_on_batch(x, y, sample_weight=weights)))
        return {"loss": float(np.mean(losses))}

    def held_out() -> dict[str, float]:
        return {"val_loss": cross_entropy(piece_scores(network, validation), validation)}

    return _best_epoch(network, epoch, held_out, settings, progress)


def _compile(network: keras.Model, settings: FitSettings, steps: int, loss: Any) -> None:
    rate: Any = settings.learning_rate
    if settings.decay == "cosine":
        whole = settings.epochs * steps
        rate = keras.optimizers.schedules.CosineDecay(
            0.0, whole, warmup_target=rate, warmup_steps=round(_WARM_UP * whole)
        )
    network.compile(
        optimizer=keras.optimizers.Adam(rate, clipnorm=1.0), loss=loss, jit_compile=False
    )


def _best_epoch(
    network: keras.Model,
    epoch: Callable[[np.random.Generator], dict[str, float]],
    held_out: Callable[[], dict[str, float]],
    settings: FitSettings,
    progress: Progress | None,
) -> History:
    """Train until the held-out loss has not fallen for `patience` epochs; keep the best weights."""
    best, least, since = network.get_weights(), held_out()["val_loss"], 0
    history: History = {"base_loss": [least]}
    for number in range(settings.epochs):
        if since >= settings.patience:
            break
        values = {**epoch(np.random.default_rng((settings.seed, number))), **held_out()}
        if not np.isfinite(list(values.values())).all():
            raise UsageError(
                f"the loss is no longer a number after epoch {number + 1}: try a lower "
                "learning_rate."
            )
        for name, value in values.items():
            history.setdefault(name, []).append(value)
        since += 1
        if values["val_loss"] < least:
            best, least, since = network.get_weights(), values["val_loss"], 0
        if progress is not None:
            progress(number + 1, values)
    network.set_weights(best)
    return history

"""Training: Adam with AMSGrad on binary cross-entropy, early stopping, a seed for everything."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.errors import UsageError
from quantal_trainer.backend import keras

Array = NDArray[np.float32]


def fit(
    network: keras.Model,
    windows: Array,
    labels: Array,
    *,
    validation: tuple[Array, Array],
    learning_rate: float = 2e-5,
    decay: str = "constant",
    batch: int = 128,
    epochs: int = 100,
    patience: int = 8,
    seed: int = 0,
    verbose: int = 2,
) -> dict[str, list[float]]:
    """Train a network on scaled windows (n, window_samples) and labels (n,), 1 an event.

    The defaults are the paper's. decay: "constant", or "cosine" from the learning rate to 0 over
    all epochs. Training ends when the validation loss has not improved for `patience` epochs, and
    the best weights are kept. Returns loss and accuracy of every epoch, by Keras' names.

    Raises UsageError if windows and labels do not fit each other or hold what cannot be learnt.
    """
    for name, (x, y) in {"training": (windows, labels), "validation": validation}.items():
        _check(x, y, name, network.input_shape[1])
    keras.utils.set_random_seed(seed)
    rate: Any = learning_rate
    if decay == "cosine":
        steps = epochs * -(-len(windows) // batch)
        rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    elif decay != "constant":
        raise UsageError(f"decay must be constant or cosine, got {decay!r}.")
    network.compile(
        optimizer=keras.optimizers.Adam(rate, amsgrad=True),
        loss="binary_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,  # XLA's LSTM is a third slower on a CPU
    )
    stop = keras.callbacks.EarlyStopping(
        monitor="val_loss", patience=patience, restore_best_weights=True
    )
    history = network.fit(
        windows[..., None],
        labels,
        batch_size=batch,
        epochs=epochs,
        validation_data=(validation[0][..., None], validation[1]),
        callbacks=[stop],
        verbose=verbose,
    )
    return {name: [float(v) for v in values] for name, values in history.history.items()}


def _check(windows: Array, labels: Array, name: str, width: int) -> None:
    if windows.ndim != 2 or windows.shape[1] != width or labels.shape != (len(windows),):
        raise UsageError(
            f"{name} windows must be (n, {width}) with labels (n,), "
            f"got {windows.shape} with {labels.shape}."
        )
    if not np.isfinite(windows).all():
        raise UsageError(f"{name} windows hold nan or infinity.")
    if not np.isin(labels, (0, 1)).all() or len(np.unique(labels)) < 2:
        raise UsageError(f"{name} labels must be 0 and 1, and both must occur.")

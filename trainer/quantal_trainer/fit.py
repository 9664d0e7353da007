"""Training: Adam with AMSGrad on binary cross-entropy, early stopping, a seed for everything.

The same seed, data and versions give the same weights on a CPU, also when training was killed and
taken up again from its checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.disk import replacing
from quantal.errors import ReadError, UsageError
from quantal.trace import is_finite
from quantal_trainer.backend import keras

Array = NDArray[np.float32]
History = dict[str, list[float]]
Progress = Callable[[int, dict[str, float]], None]
DECAYS = ("constant", "cosine")
_BATCH = 512  # windows scored at a time
_LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How a network is trained; the defaults are the paper's for a full training.

    decay: of the learning rate, "constant" or "cosine" from it to 0 over all epochs.
    patience: epochs without a better validation loss after which training ends.
    dropout: fraction dropped of the LSTM's inputs and of the dense layer's outputs.

    Raises UsageError for what is out of range.
    """

    learning_rate: float = 2e-5
    decay: str = "constant"
    batch: int = 128
    epochs: int = 100
    patience: int = 8
    dropout: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.decay not in DECAYS:
            raise UsageError(f"decay must be {' or '.join(DECAYS)}, got {self.decay!r}.")
        if not (is_finite(self.learning_rate) and 0 < self.learning_rate < 1):
            raise UsageError(f"learning_rate must lie between 0 and 1, got {self.learning_rate!r}.")
        if not (is_finite(self.dropout) and 0 <= self.dropout < 1):
            raise UsageError(f"dropout must be 0 to below 1, got {self.dropout!r}.")
        for name, least in (("batch", 1), ("epochs", 1), ("patience", 1), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise UsageError(f"{name} must be a whole number from {least}, got {value!r}.")
        if self.seed > _LARGEST_SEED:
            raise UsageError(f"seed must be at most {_LARGEST_SEED}, got {self.seed}.")


# "short" gets nearly as far as the paper's settings do, in a tenth of the time.
SCHEDULES = {
    "paper": FitSettings(),
    "short": FitSettings(learning_rate=1e-3, decay="cosine", batch=64, epochs=16, patience=16),
}


@dataclass(eq=False, kw_only=True)
class _State:
    """Where a training stands after an epoch: what a checkpoint holds."""

    epoch: int
    history: History
    best: list[NDArray[Any]]
    best_epoch: int


def fit(
    network: keras.Model,
    windows: Array,
    labels: Array,
    *,
    validation: tuple[Array, Array],
    settings: FitSettings = FitSettings(),
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> History:
    """Train a network on scaled windows (n, window_samples) and labels (n,), 1 an event.

    Training ends when the validation loss has not improved for `patience` epochs, and the best
    weights are kept; the validation windows choose the epoch, so they flatter a little.
    checkpoint: a file that holds the state after every epoch; where it is of the same data,
    settings and network, training goes on from it. progress is called with (epochs done, the last
    epoch's loss and accuracy). Returns loss and accuracy of every epoch, by Keras' names.

    Raises UsageError if windows and labels do not fit each other or hold what cannot be learnt, or
    the loss stops being a number.
    """
    for name, (x, y) in {"training": (windows, labels), "validation": validation}.items():
        _check(x, y, name, network.input_shape[1])
    _compile(network, settings, len(windows))
    mark = _fingerprint(network, windows, labels, validation, settings)
    state = _resumed(checkpoint, mark, network) or _State(
        epoch=0, history={}, best=network.get_weights(), best_epoch=0
    )
    held = (validation[0][..., None], validation[1])
    while state.epoch < settings.epochs and state.epoch - state.best_epoch < settings.patience:
        order = np.random.default_rng((settings.seed, state.epoch)).permutation(len(windows))
        epoch = network.fit(
            windows[order][..., None],
            labels[order],
            batch_size=settings.batch,
            validation_data=held,
            shuffle=False,
            verbose=0,
        ).history
        _note(state, {name: float(values[0]) for name, values in epoch.items()}, network)
        if checkpoint is not None:
            _write(checkpoint, mark, state, network)
        if progress is not None:
            progress(state.epoch, {name: values[-1] for name, values in state.history.items()})
    network.set_weights(state.best)
    return state.history


def network_scores(network: keras.Model, windows: Array) -> Array:
    """What a network gives for scaled windows (n, samples): scores float32 (n,)."""
    parts = [
        np.asarray(network.predict_on_batch(windows[i : i + _BATCH, :, None]))[:, 0]
        for i in range(0, len(windows), _BATCH)
    ]
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def _compile(network: keras.Model, settings: FitSettings, count: int) -> None:
    keras.utils.set_random_seed(settings.seed)
    rate: Any = settings.learning_rate
    if settings.decay == "cosine":
        steps = settings.epochs * -(-count // settings.batch)
        rate = keras.optimizers.schedules.CosineDecay(rate, steps)
    network.compile(
        optimizer=keras.optimizers.Adam(rate, amsgrad=True),
        loss="binary_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,  # XLA's LSTM is a third slower on a CPU
    )
    network.optimizer.build(network.trainable_variables)
    for i, generator in enumerate(_seeds(network)):  # the same dropout whatever ran before
        generator.assign(np.array([settings.seed, i], generator.dtype))


def _note(state: _State, epoch: dict[str, float], network: keras.Model) -> None:
    """Put an epoch into the state, and its weights where they are the best so far."""
    state.epoch += 1
    for name, value in epoch.items():
        state.history.setdefault(name, []).append(value)
    losses = state.history["val_loss"]
    if not np.isfinite(losses[-1]):
        raise UsageError(
            f"the loss is no longer a number after epoch {state.epoch}: try a lower learning_rate."
        )
    if losses[-1] < min(losses[:-1], default=np.inf):
        state.best, state.best_epoch = network.get_weights(), state.epoch


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


# The checkpoint ----------------------------------------------------------------------------------


def _seeds(network: keras.Model) -> list[Any]:
    """The states of the random generators that dropout draws from."""
    return [v for v in network.variables if v.path.endswith("seed_generator_state")]


def _all_variables(network: keras.Model) -> list[Any]:
    """Weights, batch statistics, random states and the optimizer's moments, in a fixed order."""
    return [*network.variables, *network.optimizer.variables]


def _fingerprint(
    network: keras.Model,
    windows: Array,
    labels: Array,
    validation: tuple[Array, Array],
    settings: FitSettings,
) -> str:
    """A hash of everything that decides what training gives."""
    mark = hashlib.sha256(json.dumps(asdict(settings), sort_keys=True).encode())
    for array in (windows, labels, *validation, *network.get_weights()):
        mark.update(np.ascontiguousarray(array).data)
    mark.update(repr([layer.trainable for layer in network.layers]).encode())
    return mark.hexdigest()


def _write(path: Path, mark: str, state: _State, network: keras.Model) -> None:
    arrays: dict[str, Any] = {
        f"now_{i}": np.asarray(v) for i, v in enumerate(_all_variables(network))
    }
    arrays |= {f"best_{i}": weight for i, weight in enumerate(state.best)}
    facts = {
        "mark": mark,
        "history": state.history,
        "epoch": state.epoch,
        "best_epoch": state.best_epoch,
    }
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, facts=np.array(json.dumps(facts)), **arrays)


def _resumed(path: Path | None, mark: str, network: keras.Model) -> _State | None:
    """The state in a checkpoint of the same training, with the network put into it; else None."""
    if path is None or not path.is_file():
        return None
    variables = _all_variables(network)
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            facts = json.loads(str(file["facts"]))
            if facts["mark"] != mark:
                return None
            now = [file[f"now_{i}"] for i in range(len(variables))]
            best = [file[f"best_{i}"] for i in range(len(network.get_weights()))]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ReadError(
            f"the checkpoint {path} cannot be read ({error}): delete it to begin anew."
        ) from None
    for variable, value in zip(variables, now, strict=True):
        variable.assign(value)
    return _State(
        epoch=facts["epoch"],
        history=facts["history"],
        best=best,
        best_epoch=facts["best_epoch"],
    )


def settings_from(table: dict[str, Any], defaults: FitSettings) -> FitSettings:
    """Settings from a table of options over defaults; raises UsageError for an unknown name."""
    known = [f.name for f in fields(FitSettings)]
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise UsageError(f"[fit] knows {', '.join(known)}, not {', '.join(unknown)}.")
    return FitSettings(**{**asdict(defaults), **table})

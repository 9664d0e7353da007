"""Training learns, stops, keeps the best, and repeats exactly; calibration moves the threshold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from quantal.errors import ReadError, UsageError
from quantal_trainer.backend import keras
from quantal_trainer.calibrate import _evaluate, calibrate
from quantal_trainer.fit import FitSettings, fit, settings_from
from quantal_trainer.simulated import Labels, Stretch

Array = NDArray[np.float32]


def small_network(width: int = 40) -> keras.Model:
    """A network that learns in a second."""
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((width, 1)),
            keras.layers.Conv1D(4, 5, activation="relu"),
            keras.layers.GlobalMaxPooling1D(),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )


def bumps(count: int, seed: int, width: int = 40) -> tuple[Array, Array]:
    """Noise, and noise with a bump."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    windows = rng.normal(0, 0.1, (count, width))
    windows[labels == 1, 15:25] += 1.0
    return windows.astype(np.float32), labels.astype(np.float32)


def test_a_network_learns_and_the_same_seed_gives_the_same_weights() -> None:
    weights = []
    for _ in range(2):
        network = small_network()
        history = fit(
            network,
            *bumps(256, 0),
            validation=bumps(64, 1),
            settings=FitSettings(learning_rate=0.02, epochs=6, seed=4),
        )
        weights.append(network.get_weights())
    assert history["val_accuracy"][-1] > 0.95
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_training_stops_when_validation_gets_no_better_and_keeps_the_best() -> None:
    network = small_network()
    windows, labels = bumps(128, 0)
    held_windows, held_labels = bumps(64, 1)
    misleading = (held_windows, 1 - held_labels)  # the better it learns, the worse this gets
    history = fit(
        network,
        windows,
        labels,
        validation=misleading,
        settings=FitSettings(learning_rate=0.05, epochs=30, patience=3),
    )
    assert len(history["val_loss"]) < 30
    kept = network.evaluate(misleading[0][..., None], misleading[1], verbose=0)[0]
    assert kept == pytest.approx(min(history["val_loss"]), rel=1e-3)


def test_the_cosine_ends_at_rest() -> None:
    network = small_network()
    fit(
        network,
        *bumps(64, 0),
        validation=bumps(32, 1),
        settings=FitSettings(learning_rate=0.02, decay="cosine", batch=32, epochs=3),
    )
    assert float(network.optimizer.learning_rate) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x, y: (x[:, :30], y), "windows must be"),
        (lambda x, y: (x, y[:-1]), "with labels"),
        (lambda x, y: (x, y * 2), "labels must be 0 and 1"),
        (lambda x, y: (x, np.zeros_like(y)), "both must occur"),
        (lambda x, y: (x * np.nan, y), "nan or infinity"),
    ],
)
def test_data_that_cannot_be_learnt_is_refused(change, words: str) -> None:  # type: ignore[no-untyped-def]
    windows, labels = change(*bumps(32, 0))
    with pytest.raises(UsageError, match=words):
        fit(small_network(), windows, labels, validation=bumps(32, 1))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"decay": "linear"}, "constant or cosine"),
        ({"learning_rate": 0.0}, "learning_rate must lie between 0 and 1"),
        ({"dropout": 1.0}, "dropout must be 0 to below 1"),
        ({"epochs": 2.5}, "epochs must be a whole number from 1"),
        ({"momentum": 0.9}, "not momentum"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        settings_from(options, FitSettings())


class KilledError(Exception):
    """What a kill is to a training."""


def dropping_network() -> keras.Model:
    """A network with dropout, whose random state must survive too."""
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((40, 1)),
            keras.layers.Conv1D(4, 5),
            keras.layers.BatchNormalization(),
            keras.layers.GlobalMaxPooling1D(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    data = {"validation": bumps(64, 1), "settings": FitSettings(learning_rate=0.01, epochs=5)}
    whole, killed, resumed = (dropping_network() for _ in range(3))
    history = fit(whole, *bumps(128, 0), **data)
    checkpoint = tmp_path / "state.npz"
    epochs = []

    def kill(epoch: int, _: dict[str, float]) -> None:
        epochs.append(epoch)
        if epoch == 2:
            raise KilledError

    with pytest.raises(KilledError):
        fit(killed, *bumps(128, 0), **data, checkpoint=checkpoint, progress=kill)
    assert checkpoint.is_file()
    again = fit(resumed, *bumps(128, 0), **data, checkpoint=checkpoint, progress=kill)
    assert epochs == [1, 2, 3, 4, 5]
    assert again == history
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert checkpoint.is_file()  # whoever keeps the weights removes it


def test_a_checkpoint_of_another_training_is_not_taken(tmp_path: Path) -> None:
    checkpoint = tmp_path / "state.npz"

    def kill(_: int, __: dict[str, float]) -> None:
        raise KilledError

    data = {"validation": bumps(64, 1), "checkpoint": checkpoint}
    with pytest.raises(KilledError):
        fit(dropping_network(), *bumps(128, 0), **data, progress=kill)
    settings = FitSettings(epochs=2, seed=9)
    history = fit(dropping_network(), *bumps(128, 0), **data, settings=settings)
    assert len(history["loss"]) == 2


def test_a_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    checkpoint = tmp_path / "state.npz"
    checkpoint.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ReadError, match="delete it to begin anew"):
        fit(small_network(), *bumps(32, 0), validation=bumps(32, 1), checkpoint=checkpoint)


def test_calibration_shifts_the_last_bias_by_what_it_reports() -> None:
    network = small_network(600)
    bias = network.layers[-1].get_weights()[1].copy()
    result = calibrate(network, labels=Labels(), stretches=2, seed=0)
    moved = network.layers[-1].get_weights()[1]
    np.testing.assert_allclose(moved, bias - result.shift, rtol=1e-5)
    assert 0 <= result.precision <= 1
    assert 0 <= result.recall <= 1
    assert result.seconds > 0


def few_and_many() -> tuple[list[tuple[Stretch, np.ndarray]], Labels]:
    """A stretch of noise where a network fires once, and one of 20 events, all found."""
    labels = Labels()
    found = np.full(1_200, -10.0, np.float32)
    found[20:1_200:50] = 10.0
    onsets = 20 * np.flatnonzero(found > 0)[:20] + sum(labels.positive) // 2
    found[20 + 20 * 50 :] = -10.0
    many = Stretch(np.zeros(24_600, np.float32), onsets, np.ones(20), np.full(20, 10.0))
    one = np.full(1_200, -10.0, np.float32)
    one[600] = 3.0
    few = Stretch(many.samples, np.empty(0, np.int64), np.empty(0), np.empty(0))
    return [(few, one), (many, found)], labels


def test_a_busy_stretch_counts_no_more_than_ten_events() -> None:
    scored, labels = few_and_many()
    result = _evaluate(scored, 0.0, labels)
    assert result.events == 20
    assert result.recall == pytest.approx(1.0)
    assert result.precision == pytest.approx(10 / 11)
    assert result.seconds == pytest.approx(2 * 24_000 / 50_000)


def test_a_shift_leaves_out_what_is_less_sure() -> None:
    scored, labels = few_and_many()
    result = _evaluate(scored, 5.0, labels)
    assert (result.precision, result.recall) == (1.0, 1.0)

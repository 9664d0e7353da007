"""Networks that several tests share; each takes seconds to build, so each is built once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from quantal.model import Card, Model
from quantal_trainer.export import export_model, simulated_windows
from quantal_trainer.importer import import_keras
from quantal_trainer.network import cnn_lstm


@pytest.fixture(scope="session")
def network() -> Any:
    """A CNN-LSTM that has learnt nothing, with batch norms and biases unlike fresh ones."""
    fresh = cnn_lstm()
    rng = np.random.default_rng(3)
    for layer in fresh.layers:
        layer.set_weights(
            [
                np.abs(w) + rng.uniform(0.1, 0.5, w.shape) if w.ndim == 1 else w
                for w in layer.get_weights()
            ]
        )
    return fresh


@pytest.fixture(scope="session")
def windows() -> NDArray[np.float32]:
    return simulated_windows(600, count=64)


@pytest.fixture(scope="session")
def exported(
    network: Any, windows: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory
) -> Model:
    """The network as a model folder; tests read it and leave it as it is."""
    folder = tmp_path_factory.mktemp("models") / "untrained"
    return export_model(network, folder, card=Card(name="untrained"), windows=windows)


@pytest.fixture(scope="session")
def reference(shared: Path) -> dict[str, NDArray[np.float32]]:
    """Real windows, and what each public miniML model gives for them in its own TensorFlow."""
    with np.load(shared / "miniml" / "scores.npz", allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="session")
def imported(
    shared: Path,
    reference: dict[str, NDArray[np.float32]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Model]:
    """A public miniML model by its file's name, as a model folder."""
    root = tmp_path_factory.mktemp("imported")

    @cache
    def build(file: str) -> Model:
        stem = Path(file).stem
        return export_model(
            import_keras(shared / "miniml" / "models" / file),
            root / stem,
            card=Card(name=stem, licence="MIT"),
            windows=reference["windows"],
        )

    return build

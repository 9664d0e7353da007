"""Make the shipped models from nothing: simulate, train, learn from mistakes, calibrate, export.

    python tools/make_models.py [cnn-lstm ...] [--out models] [--quick]

Everything is seeded. On two cores it takes under 30 minutes; --quick makes a poor model in one.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quantal.model import Card
from quantal_trainer.backend import keras
from quantal_trainer.calibrate import calibrate
from quantal_trainer.export import export_model
from quantal_trainer.fit import FitSettings, fit, network_scores
from quantal_trainer.network import cnn_lstm
from quantal_trainer.profile import profile
from quantal_trainer.simulated import Labels, simulate_windows

Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Sizes and rates of the training of `cnn-lstm`."""

    seed: int = 11
    windows: int = 160_000
    validation: int = 20_000
    first_epochs: int = 1
    pool: int = 240_000
    epochs: int = 4
    batch: int = 256
    learning_rate: float = 1e-3
    stretches: int = 200


QUICK = Recipe(windows=4_000, validation=1_000, first_epochs=1, pool=2_000, epochs=1, stretches=4)


def make_cnn_lstm(folder: Path, recipe: Recipe) -> None:
    """The paper's network, trained on simulated windows only."""
    begin = time.perf_counter()
    labels = Labels()
    windows, truth = simulate_windows(recipe.windows, seed=recipe.seed, labels=labels)
    validation = simulate_windows(recipe.validation, seed=recipe.seed + 1, labels=labels)
    keras.utils.set_random_seed(recipe.seed)
    network = cnn_lstm()
    settings = FitSettings(
        learning_rate=recipe.learning_rate,
        batch=recipe.batch,
        epochs=recipe.first_epochs,
        seed=recipe.seed,
    )
    fit(network, windows, truth, validation=validation, settings=settings, progress=tell)
    hard, hard_truth = mistakes(network, recipe, labels)
    print(f"{len(hard)} windows from places where it went wrong", flush=True)
    history = fit(
        network,
        np.concatenate([windows, hard]),
        np.concatenate([truth, hard_truth]),
        validation=validation,
        settings=replace(settings, epochs=recipe.epochs, decay="cosine", seed=recipe.seed + 1),
        progress=tell,
    )
    calibration = calibrate(
        network, labels=labels, stretches=recipe.stretches, seed=recipe.seed + 3
    )
    print(calibration, flush=True)
    card = Card(
        name="cnn-lstm",
        polarity="positive",
        direction="negative",
        reference_sample=sum(labels.positive) // 2,
        search_samples=20,
        output="probability that an event starts near the window's reference sample",
        training={
            "data": "simulated windows (quantal_trainer.simulated); no recording was used",
            "made_by": "tools/make_models.py",
            "recipe": asdict(recipe),
            "labels": asdict(labels),
            "history": {name: [round(v, 5) for v in values] for name, values in history.items()},
            "calibration": calibration.to_dict(),
            "profile": profile(*validation),
            "minutes": round((time.perf_counter() - begin) / 60, 1),
        },
        licence="MIT",
        citation="Architecture: O'Neill et al., miniML, eLife (2025), doi:10.7554/eLife.98485",
    )
    export_model(network, folder, card=card, windows=validation[0][:200])
    print(f"{folder} after {(time.perf_counter() - begin) / 60:.1f} minutes")


def tell(epoch: int, values: dict[str, float]) -> None:
    """Print how an epoch went."""
    print(f"epoch {epoch}: " + ", ".join(f"{k} {v:.4f}" for k, v in values.items()), flush=True)


def mistakes(network: keras.Model, recipe: Recipe, labels: Labels) -> tuple[Array, Array]:
    """Windows from random places that the network gets wrong, and half as many it gets right."""
    windows, truth = simulate_windows(
        recipe.pool, seed=recipe.seed + 2, where="anywhere", labels=labels
    )
    wrong = np.abs(network_scores(network, windows) - truth) > 0.2
    right = np.flatnonzero(~wrong)[: wrong.sum() // 2]
    chosen = np.r_[np.flatnonzero(wrong), right]
    return windows[chosen], truth[chosen]


def main() -> None:
    """Make the models that are named, or all."""
    makers = {"cnn-lstm": make_cnn_lstm}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *makers], help="models to make; all")
    parser.add_argument("--out", type=Path, default=Path("models"))
    parser.add_argument("--quick", action="store_true", help="a poor model in a minute")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    options = parser.parse_args()
    recipe = replace(QUICK if options.quick else Recipe(), seed=options.seed)
    for name in options.names or makers:
        makers[name](options.out / name, recipe)


if __name__ == "__main__":
    main()

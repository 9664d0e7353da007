"""Make the shipped models from nothing: simulate, train, learn from mistakes, calibrate, export.

    python tools/make_models.py [minis] [cnn-lstm] [optical-minis] [--out models] [--quick]

Everything is seeded. `minis` took 112 minutes on one core and `cnn-lstm` 61, beside other work;
`optical-minis`, which starts from `minis`, takes three. --quick makes poor models in one or two.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.model import Card
from quantal.runtime import cores
from quantal_trainer.backend import keras
from quantal_trainer.calibrate import calibrate
from quantal_trainer.calibrate_trace import calibrate_trace
from quantal_trainer.distill import Plan as ScoutPlan
from quantal_trainer.distill import distill
from quantal_trainer.export import export_model
from quantal_trainer.fit import FitSettings, fit, network_scores
from quantal_trainer.fit_trace import (
    compile_trace,
    cross_entropy,
    fit_trace,
    mistaken,
    piece_scores,
)
from quantal_trainer.marked import Marked
from quantal_trainer.network import cnn_lstm
from quantal_trainer.preparations import PREPARATIONS, simulate_cells
from quantal_trainer.profile import profile
from quantal_trainer.simulated import Labels, simulate_windows
from quantal_trainer.simulated_traces import (
    CROWDED,
    RATE_HZ,
    USUAL,
    Family,
    Pieces,
    joined,
    simulate_pieces,
)
from quantal_trainer.trace_graph import without_norms
from quantal_trainer.trace_network import HOP, UNIT, margin, trace_network, with_classes
from quantal_trainer.train import Plan
from quantal_trainer.transfer import MARKED_TRANSFER
from quantal_trainer.transfer_trace import transfer_marked

Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Sizes and rates of the training of `cnn-lstm`.

    scout: how it is given one; None for no scout.
    """

    seed: int = 11
    windows: int = 160_000
    validation: int = 20_000
    first_epochs: int = 1
    pool: int = 320_000
    epochs: int = 6
    batch: int = 256
    learning_rate: float = 1e-3
    stretches: int = 400
    precision: float = 0.975
    scout: ScoutPlan | None = field(default_factory=ScoutPlan)


QUICK = Recipe(
    windows=4_000, validation=1_000, first_epochs=1, pool=2_000, epochs=1, stretches=4, scout=None
)


def make_cnn_lstm(folder: Path, recipe: Recipe) -> None:
    """The paper's network, trained on simulated windows only."""
    begin = time.perf_counter()
    labels = Labels()
    windows, truth = of_both_families(recipe, labels)
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
        network,
        labels=labels,
        stretches=recipe.stretches,
        precision=recipe.precision,
        seed=recipe.seed + 4,
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
    model = export_model(network, folder, card=card, windows=validation[0][:200])
    if recipe.scout is not None:
        distill(model, folder, recipe.scout, partial(print, flush=True))
    print(f"{folder} after {(time.perf_counter() - begin) / 60:.1f} minutes")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the training of `minis`: rounds on one family of recordings at one learning rate.

    Each round is a training once through fresh pieces, and through the latest of those that earlier
    rounds got wrong.
    """

    family: Family
    rounds: int
    learning_rate: float


@dataclass(frozen=True, kw_only=True)
class TraceRecipe:
    """Sizes and rates of the training of `minis`.

    pieces: fresh ones in a round. replayed: those that earlier rounds got wrong, at most.
    """

    seed: int = 21
    stages: tuple[Stage, ...] = (
        Stage(family=CROWDED, rounds=50, learning_rate=1.5e-3),
        Stage(family=USUAL, rounds=36, learning_rate=1e-3),
    )
    pieces: int = 3_000
    replayed: int = 450
    batch: int = 16
    validation: int = 900
    stretches: int = 1_500


QUICK_TRACE = TraceRecipe(
    stages=(
        Stage(family=CROWDED, rounds=1, learning_rate=1.5e-3),
        Stage(family=USUAL, rounds=1, learning_rate=1e-3),
    ),
    pieces=300,
    replayed=60,
    validation=64,
    stretches=20,
)


def make_minis(folder: Path, recipe: TraceRecipe) -> None:
    """The trace network, trained on simulated recordings only."""
    begin = time.perf_counter()
    validation = simulate_pieces(recipe.validation, seed=recipe.seed + 500, workers=cores())
    keras.utils.set_random_seed(recipe.seed)
    network = trace_network()
    history = []
    for number, stage in enumerate(recipe.stages):
        done = sum(earlier.rounds for earlier in recipe.stages[:number])
        network = without_norms(network) if done else network  # means and variances stay as learnt
        history += train_stage(network, recipe, stage, done, validation)
    calibration = calibrate_trace(network, stretches=recipe.stretches, seed=recipe.seed + 700)
    print(calibration, flush=True)
    card = Card(
        name="minis",
        kind="trace",
        scaling="noise",
        window_samples=300,  # 12 ms at 25 kHz
        polarity="positive",
        direction="negative",
        stride=HOP,
        margin_samples=margin(),
        unit_samples=UNIT,
        reference_sample=HOP // 2,
        search_samples=25,
        rate_hz=RATE_HZ,
        output="probability that an event rises steepest here",
        training={
            "data": "simulated stretches (quantal_trainer.simulated_traces); no recording was used",
            "made_by": "tools/make_models.py",
            "recipe": asdict(recipe),
            "history": history,
            "calibration": calibration.to_dict(),
            "minutes": round((time.perf_counter() - begin) / 60, 1),
        },
        licence="MIT",
        citation="quantal's own; trained and described in its repository",
    )
    export_model(network, folder, card=card, windows=examples(validation))
    print(f"{folder} after {(time.perf_counter() - begin) / 60:.1f} minutes")


def train_stage(
    network: keras.Model, recipe: TraceRecipe, stage: Stage, done: int, validation: Pieces
) -> list[dict[str, float]]:
    """Train a network by one stage, after so many rounds of others; how each round went."""
    learner = with_classes(network)
    steps = stage.rounds * (recipe.pieces + recipe.replayed) // recipe.batch
    compile_trace(learner, stage.learning_rate, steps)
    history = []
    wrong = validation.at(slice(0, 0))
    for number in range(done, done + stage.rounds):
        fresh = simulate_pieces(
            recipe.pieces,
            seed=recipe.seed + 1_000 * (number + 1),
            family=stage.family,
            workers=cores(),
        )
        fit_trace(
            learner, joined([fresh, wrong]), batch=recipe.batch, epochs=1, seed=recipe.seed + number
        )
        missed = fresh.at(mistaken(piece_scores(network, fresh), fresh))
        wrong = joined([missed, wrong]).at(slice(0, recipe.replayed))
        scores = piece_scores(network, validation)
        history.append(
            {
                "loss": round(cross_entropy(scores, validation), 5),
                "mistaken": round(float(mistaken(scores, validation).mean()), 4),
            }
        )
        print(f"round {number + 1}: {history[-1]}", flush=True)
    return history


def examples(pieces: Pieces) -> Array:
    """The beginnings of some pieces, which show events and noise: float32 (64, 1600)."""
    return pieces.samples[:64, :1_600].astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class OpticalRecipe:
    """Sizes of the further training of `minis` on imaging.

    cells: simulated recordings of seconds each at 100 Hz, whose events are all told.
    frequency_hz: of these, more than real ones have, so that there is more to learn from.
    """

    seed: int = 31
    cells: int = 200
    seconds: float = 60.0
    frequency_hz: float = 0.5
    epochs: int | None = None


QUICK_OPTICAL = OpticalRecipe(cells=12, epochs=1)


def make_optical_minis(folder: Path, recipe: OpticalRecipe) -> None:
    """`minis` trained further on simulated recordings of a glutamate sensor."""
    begin = time.perf_counter()
    kind = replace(PREPARATIONS["optical"], frequency_hz=recipe.frequency_hz)
    cells = simulate_cells(kind, cells=recipe.cells, seconds=recipe.seconds, seed=recipe.seed)
    marked = [
        Marked(trace=trace, times_s=np.sort(truth.onset_s + 0.8 * kind.tau_rise_s), steepest=False)
        for trace, truth in cells
    ]
    fitting = replace(MARKED_TRANSFER, seed=recipe.seed)
    if recipe.epochs is not None:
        fitting = replace(fitting, epochs=recipe.epochs)
    beside = folder.parent / "minis"
    base = beside if beside.is_dir() else "minis"
    made = transfer_marked(
        marked,
        folder,
        Plan(base=base, settings=fitting, frozen=(), direction="positive"),
        window_ms=kind.window_ms,
        name="optical-minis",
        progress=tell,
    )
    print(f"{made.to_dict()} on what was held out")
    print(f"{folder} after {(time.perf_counter() - begin) / 60:.1f} minutes")


def tell(epoch: int, values: dict[str, float]) -> None:
    """Print how an epoch went."""
    print(f"epoch {epoch}: " + ", ".join(f"{k} {v:.4f}" for k, v in values.items()), flush=True)


def of_both_families(recipe: Recipe, labels: Labels) -> tuple[Array, Array]:
    """Windows and truth, one half from usual recordings and one from crowded ones."""
    usual, crowded = (
        simulate_windows(
            recipe.windows // 2, seed=recipe.seed + 10 * number, labels=labels, family=family
        )
        for number, family in enumerate((USUAL, CROWDED))
    )
    return np.concatenate([usual[0], crowded[0]]), np.concatenate([usual[1], crowded[1]])


def mistakes(network: keras.Model, recipe: Recipe, labels: Labels) -> tuple[Array, Array]:
    """Windows that the network gets wrong, and half as many that it gets right.

    They come from random places of usual recordings, and from what stands out in crowded ones.
    """
    drawn = [
        simulate_windows(
            recipe.pool // 2, seed=recipe.seed + 2 + k, where=where, labels=labels, family=family
        )
        for k, (where, family) in enumerate((("anywhere", USUAL), ("landmarks", CROWDED)))
    ]
    windows, truth = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    wrong = np.abs(network_scores(network, windows) - truth) > 0.2
    right = np.flatnonzero(~wrong)[: wrong.sum() // 2]
    chosen = np.r_[np.flatnonzero(wrong), right]
    return windows[chosen], truth[chosen]


# How each is made: the maker, its recipe, and one that is quick and poor.
MODELS: dict[str, tuple[Callable[[Path, Any], None], Any, Any]] = {
    "minis": (make_minis, TraceRecipe(), QUICK_TRACE),
    "cnn-lstm": (make_cnn_lstm, Recipe(), QUICK),
    "optical-minis": (make_optical_minis, OpticalRecipe(), QUICK_OPTICAL),
}


def main() -> None:
    """Make the models that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *MODELS], help="models to make; all")
    parser.add_argument("--out", type=Path, default=Path("models"))
    parser.add_argument("--quick", action="store_true", help="a poor model in a minute")
    parser.add_argument("--seed", type=int, help="another than the shipped models' own")
    options = parser.parse_args()
    for name in options.names or MODELS:
        make, *recipes = MODELS[name]
        recipe = recipes[options.quick]
        if options.seed is not None:
            recipe = replace(recipe, seed=options.seed)
        make(options.out / name, recipe)


if __name__ == "__main__":
    main()

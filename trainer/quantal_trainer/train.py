"""The whole story: a dataset in, a model folder out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal import __version__
from quantal.errors import UsageError
from quantal.model import Card, Model
from quantal.packs import plain_name
from quantal.scan import SIGNS
from quantal.trace import is_finite
from quantal_trainer.augment import Augmentation, augment
from quantal_trainer.backend import keras
from quantal_trainer.calibrate import scan_shift, shift_scores
from quantal_trainer.datasets import (
    EXCLUDED,
    Dataset,
    balanced,
    folds,
    imbalance,
    opposed,
    polarity,
    split,
    training_arrays,
)
from quantal_trainer.evaluate import Evaluation, evaluate_scores, known_shift
from quantal_trainer.export import check_replaceable, export_model
from quantal_trainer.fit import FitSettings, History, Progress, fit, network_scores
from quantal_trainer.network import WINDOW_SAMPLES, cnn_lstm
from quantal_trainer.profile import profile, profile_of, speaks_for, unlike
from quantal_trainer.restore import adapt_norms, base_network
from quantal_trainer.transfer import CONVOLUTIONS, freeze

Array = NDArray[np.float32]
Arrays = tuple[Array, Array]
_GUESSED_FROM = 400  # windows that tell which way a base sees events
_OPPOSED = 0.25  # of the events may point against the average before it is told


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything beside the data that decides what a training gives.

    base: a model's name or folder, or a Keras file, to start from; None for fresh weights.
    frozen: layers of the base that stay as they are.
    direction: which way events point in the windows; None reads it from them.
    validation, by: share that is held out, and whether whole cells or single windows are.
    balance: "keep" all windows or "thin" the more frequent kind.
    augmentation: what is added to the windows that are trained on; None adds nothing.
    threshold: of the card.
    """

    settings: FitSettings = field(default_factory=FitSettings)
    base: str | Path | None = None
    frozen: tuple[str, ...] = CONVOLUTIONS
    direction: str | None = None
    validation: float = 0.25
    by: str = "cell"
    balance: str = "keep"
    augmentation: Augmentation | None = None
    threshold: float = 0.5

    def __post_init__(self) -> None:
        allowed = {
            "direction": (None, *SIGNS),
            "by": ("cell", "window"),
            "balance": ("keep", "thin"),
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                known = ", ".join(value for value in values if value)
                raise UsageError(f"{name} must be one of {known}, got {getattr(self, name)!r}.")
        for name in ("validation", "threshold"):
            value = getattr(self, name)
            if not (is_finite(value) and 0 < value < 1):
                raise UsageError(f"{name} must lie between 0 and 1, got {value!r}.")

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values, for a card."""
        fresh = {"base": None, "frozen": ()}
        return asdict(self) | (fresh if self.base is None else {"base": str(self.base)})


@dataclass(frozen=True, eq=False, kw_only=True)
class HeldOut:
    """Windows (n, samples) that were not trained on, scaled, with their labels and scores (n,)."""

    windows: Array
    labels: Array
    scores: Array


@dataclass(frozen=True, eq=False, kw_only=True)
class Trained:
    """A model folder, how its training went, and how it does on the windows held out."""

    model: Model
    history: History
    held_out: HeldOut
    evaluation: Evaluation
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Start:
    """A network before training, the card that it came with, and which way it sees events."""

    network: keras.Model
    base: Card | None
    direction: str
    sign: int

    @property
    def width(self) -> int:
        """Samples of a window."""
        return int(self.network.input_shape[1])


def train(
    dataset: Dataset,
    folder: str | Path,
    plan: Plan,
    *,
    name: str | None = None,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> Trained:
    """Train a network on labelled windows and write it as a model folder.

    Windows are resampled to the network's length, turned over where their events point the other
    way than the network's, and scaled. progress: called after every epoch. checkpoint: a file from
    which a killed training goes on, removed once the model is written. warn: called with what is
    doubtful before training begins. The held-out windows also choose the epoch, so what the card
    says of them flatters a little. Scores are then shifted to suit a scan, in which events are
    rarer than among the windows.

    Raises UsageError where the data cannot be learnt or the plan makes no sense, ModelError for a
    base that cannot be trained further.
    """
    check_replaceable(Path(folder).expanduser().resolve())
    called = plain_name(name or Path(folder).resolve().name)
    usable = usable_windows(dataset, plan)
    start = _start(usable, plan)
    training, held = split(usable, validation=plan.validation, by=plan.by, seed=plan.settings.seed)
    arrays, validation = _arrays(training, held, plan, start)
    warnings = _doubts(usable, arrays, start)
    for warning in warnings:
        warn(warning)
    _ready(start, plan, arrays[0])
    history = fit(
        start.network,
        *arrays,
        validation=validation,
        settings=plan.settings,
        checkpoint=checkpoint,
        progress=progress,
    )
    held_out = _held_out(start.network, validation)
    evaluation = evaluate_scores(held_out.scores, held_out.labels, threshold=plan.threshold)
    card = _card(called, dataset, plan, start, arrays)
    figures = evaluation.to_dict()
    facts = {
        "history": {key: [round(v, 5) for v in values] for key, values in history.items()},
        "windows": {"training": len(arrays[0]), "validation": len(validation[0])},
        "validation": {key: figures[key] for key in ("accuracy", "auc", "f1", "best_threshold")},
        "warnings": warnings,
        "calibration": {"shift": round(scan_shift(), 4)},
    }
    shift_scores(start.network, scan_shift())
    card = replace(card, training={**card.training, **facts})
    model = export_model(start.network, folder, card=card, windows=validation[0][:256])
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return Trained(
        model=model,
        history=history,
        held_out=held_out,
        evaluation=evaluation,
        warnings=warnings,
    )


def cross_validate(
    dataset: Dataset,
    plan: Plan,
    count: int,
    *,
    progress: Callable[[int, int, dict[str, float]], None] | None = None,
) -> list[HeldOut]:
    """What was held out in each fold, scored by a network that was trained on the others.

    progress is called with (fold, epochs done, loss and accuracy). Raises UsageError as `folds`
    and `train` do.
    """
    results = []
    usable = usable_windows(dataset, plan)
    parts = folds(usable, count, by=plan.by, seed=plan.settings.seed)
    for fold, (training, held) in enumerate(parts, start=1):
        start = _start(usable, plan)
        arrays, validation = _arrays(training, held, plan, start)
        _ready(start, plan, arrays[0])

        def tell(epoch: int, values: dict[str, float], fold: int = fold) -> None:
            if progress is not None:
                progress(fold, epoch, values)

        fit(
            start.network,
            *arrays,
            validation=validation,
            settings=plan.settings,
            progress=tell,
        )
        results.append(_held_out(start.network, validation))
    return results


def _held_out(network: keras.Model, validation: Arrays) -> HeldOut:
    windows, labels = validation
    return HeldOut(windows=windows, labels=labels, scores=network_scores(network, windows))


def usable_windows(dataset: Dataset, plan: Plan) -> Dataset:
    """The labelled windows, thinned if the plan says so; raises UsageError if there are none."""
    usable = dataset.labelled()
    if not len(usable):
        excluded = int((dataset.scores == EXCLUDED).sum())
        raise UsageError(
            f"none of the {len(dataset)} windows is scored 0 or 1 ({excluded} are scored 2, not "
            "used): score them first."
        )
    return balanced(usable, seed=plan.settings.seed) if plan.balance == "thin" else usable


def _start(usable: Dataset, plan: Plan) -> _Start:
    """The network to train: fresh, seeing upward events, or the base, seeing what it knows."""
    direction = plan.direction or polarity(usable)
    keras.utils.set_random_seed(plan.settings.seed)
    if plan.base is None:
        network = cnn_lstm(WINDOW_SAMPLES, dropout=plan.settings.dropout)
        return _Start(network=network, base=None, direction=direction, sign=SIGNS[direction])
    network, card = base_network(plan.base, dropout=plan.settings.dropout)
    if not card.graphs:  # a Keras file
        card = replace(card, polarity=_seen_polarity(network, usable, direction))
    shift_scores(network, -known_shift(card))  # as it was when it was trained
    sign = SIGNS[direction] * SIGNS[card.polarity]
    return _Start(network=network, base=card, direction=direction, sign=sign)


def _seen_polarity(network: keras.Model, usable: Dataset, direction: str) -> str:
    """Which way a network without a card of ours sees events: that which parts them from noise."""
    some = usable[:: max(len(usable) // _GUESSED_FROM, 1)]

    def parts(polarity: str) -> float:
        sign = SIGNS[direction] * SIGNS[polarity]
        windows, labels = training_arrays(some, int(network.input_shape[1]), sign)
        scores = network_scores(network, windows)
        return float(scores[labels == 1].mean() - scores[labels == 0].mean())

    return max(SIGNS, key=parts)


def _arrays(training: Dataset, held: Dataset, plan: Plan, start: _Start) -> tuple[Arrays, Arrays]:
    """Scaled windows and labels of both parts; only what is trained on is augmented."""
    if plan.augmentation is not None:
        training = augment(
            training, plan.augmentation, direction=start.direction, seed=plan.settings.seed
        )
    return (
        training_arrays(training, start.width, start.sign),
        training_arrays(held, start.width, start.sign),
    )


def _ready(start: _Start, plan: Plan, windows: Array) -> None:
    """Freeze what the plan keeps; layers that are trained get batch norms of these windows."""
    if start.base is None:
        return
    adapt_norms(start.network, windows)
    freeze(start.network, plan.frozen)


def _upward(windows: Array, start: _Start) -> Array:
    """Windows as they would be if events pointed upward."""
    seen = "positive" if start.base is None else start.base.polarity
    return windows if seen == "positive" else np.float32(1) - windows


def _doubts(usable: Dataset, arrays: Arrays, start: _Start) -> list[str]:
    """What a user should know before waiting for a training."""
    doubts = data_doubts(usable, start.direction)
    if start.base is not None:
        base = profile_of(start.base.training)
        doubts += unlike(base, profile(_upward(arrays[0], start), arrays[1]))
    return doubts


def data_doubts(usable: Dataset, direction: str) -> list[str]:
    """What of labelled windows a user should know, whatever is trained on them."""
    doubts = [imbalance(usable)]
    seems, against = polarity(usable), opposed(usable)
    if direction != seems:
        doubts.append(f"events are said to be {direction}, but seem {seems} here.")
    if against > _OPPOSED:
        doubts.append(
            f"{100 * against:.0f} % of the events point the other way than the average one: are "
            "recordings of both polarities mixed, or artefacts scored as events?"
        )
    return [doubt for doubt in doubts if doubt]


def _card(name: str, dataset: Dataset, plan: Plan, start: _Start, arrays: Arrays) -> Card:
    """The card of a trained network: how to use it, and what is needed to make it again."""
    upward, labels = _upward(arrays[0], start), arrays[1]
    reference, search = speaks_for(upward[labels == 1])
    base = start.base
    return Card(
        name=name,
        window_samples=start.width,
        window_ms=dataset.window_ms,
        rate_hz=1e3 * start.width / dataset.window_ms,
        polarity="positive" if base is None else base.polarity,
        direction=start.direction,
        threshold=plan.threshold,
        stride=20 if base is None else base.stride,
        reference_sample=reference,
        search_samples=search,
        output="probability that the window holds an event",
        training={
            **origin(plan, base),
            "data": data_facts(dataset),
            "profile": profile(upward, labels),
        },
        licence="" if base is None else base.licence,
        citation="" if base is None else base.citation,
    )


def origin(plan: Plan, base: Card | None) -> dict[str, Any]:
    """What a card says of how a network was made."""
    return {
        "made_by": "quantal-train " + ("fit" if base is None else "transfer"),
        "quantal": __version__,
        "plan": plan.to_dict(),
        "base": None if base is None else _identity(base),
    }


def data_facts(dataset: Dataset) -> dict[str, Any]:
    """What a card says of the windows that a network was trained on."""
    return {
        "sha256": fingerprint(dataset),
        **dataset.summary(),
        "provenance": dataset.provenance,
    }


def _identity(base: Card) -> dict[str, Any]:
    """What is needed to find a base again: the hashes of its graphs, or of the Keras file."""
    facts: dict[str, Any] = {"name": base.name, "graphs": base.graphs}
    return facts if base.graphs else {**facts, **base.training}


def fingerprint(dataset: Dataset) -> str:
    """The hash by which a card knows the windows, scores and cells that it was trained on."""
    mark = hashlib.sha256()
    for column in (dataset.windows, dataset.scores):
        mark.update(np.ascontiguousarray(column).data)
    mark.update("\n".join(dataset.cells.tolist()).encode())
    return mark.hexdigest()

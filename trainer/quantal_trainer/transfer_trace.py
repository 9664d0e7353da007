"""Transfer of a trace network: from labelled windows, or from recordings with all events listed.

A network is trained with its shift for detection undone, so that its scores become probabilities
on the lab's data, and shifted again as far as it takes for it to fire no more often than its base
where simulated recordings of many rigs hold no event.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.detect import detect
from quantal.errors import UsageError
from quantal.model import Card, Model
from quantal.packs import plain_name
from quantal.scan import SIGNS, checked_window_ms
from quantal.simulate import matched
from quantal_trainer.augment import augment
from quantal_trainer.backend import keras
from quantal_trainer.calibrate import shift_scores
from quantal_trainer.datasets import Dataset, polarity, split
from quantal_trainer.evaluate import evaluate_scores, known_shift
from quantal_trainer.export import check_replaceable, export_model
from quantal_trainer.fit import History, Progress, network_scores
from quantal_trainer.fit_further import fit_pieces, fit_windows
from quantal_trainer.fit_trace import false_logits
from quantal_trainer.marked import (
    Marked,
    at_steepest,
    held_back,
    marked_pieces,
    marked_polarity,
    settled,
)
from quantal_trainer.restore import base_network
from quantal_trainer.simulated_traces import Pieces, simulate_pieces
from quantal_trainer.trace_windows import framed, framing, judge, time_scale_ms
from quantal_trainer.train import (
    HeldOut,
    Plan,
    Trained,
    data_doubts,
    data_facts,
    origin,
    usable_windows,
)

Array = NDArray[np.float32]

_SIMULATED = 240  # pieces, three minutes, that are trained on besides
_JUDGED = 240  # others by which scores are shifted
_SEEDS = (500_000, 600_000)  # added to a training's own, far from those of the shipped models
_COPIES = 2  # of every recording, cut and scaled differently
_EXAMPLE = 1_600  # samples, at most, of one in the card's test vector
_TOLERANCE = 75  # samples on the network's grid, 3 ms, between a listed event and the one found


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainedOnMarks:
    """A model folder, how its training went, and how it does on the recordings held out.

    listed, found, hits: events listed there, those that detection finds, and those that are both.
    """

    model: Model
    history: History
    listed: int
    found: int
    hits: int
    warnings: list[str] = field(default_factory=list)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall on what was held out; nan without any event."""
        both = self.listed + self.found
        return 2 * self.hits / both if both else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """The figures of what was held out, for a card."""
        return {"listed": self.listed, "found": self.found, "hits": self.hits, "f1": self.f1}


def transfer_windows(
    dataset: Dataset,
    folder: str | Path,
    plan: Plan,
    *,
    window_ms: float | None = None,
    name: str | None = None,
    progress: Progress | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> Trained:
    """Train a trace network further on labelled windows and write it as a model folder.

    window_ms: the time scale at which it is to read; None keeps its own unless the events are too
    slow or too fast for it. Otherwise as `train`, which says what is raised.
    """
    called = _checked_target(folder, name)
    network, base = _base(plan)
    usable = usable_windows(dataset, plan)
    direction = plan.direction or polarity(usable)
    frame = framing(
        usable,
        base,
        window_ms=None if window_ms is None else checked_window_ms(window_ms, base),
        sign=SIGNS[direction] * SIGNS[base.polarity],
    )
    training, held = split(usable, validation=plan.validation, by=plan.by, seed=plan.settings.seed)
    if plan.augmentation is not None:
        training = augment(
            training, plan.augmentation, direction=direction, seed=plan.settings.seed
        )
    arrays, validation = framed(training, frame), framed(held, frame)
    warnings = data_doubts(usable, direction)
    for warning in warnings:
        warn(warning)
    judging = judge(network, frame)
    simulated, judged = _simulated(plan)
    allowed = _false_share(network, judged, known_shift(base))
    history = fit_windows(network, judging, arrays, validation, simulated, plan.settings, progress)
    scores = network_scores(judging, validation[0])
    evaluation = evaluate_scores(scores, validation[1], threshold=plan.threshold)
    figures = evaluation.to_dict()
    card = _card(base, called, plan, frame.window_ms, direction)
    facts = {
        "data": data_facts(dataset),
        "history": _rounded(history),
        "windows": {"training": len(arrays[0]), "validation": len(validation[0])},
        "validation": {key: figures[key] for key in ("accuracy", "auc", "f1", "best_threshold")},
        "warnings": warnings,
        "calibration": _calibrated(network, judged, allowed),
    }
    card = replace(card, training={**card.training, **facts})
    model = export_model(network, folder, card=card, windows=_examples(arrays[0]))
    return Trained(
        model=model,
        history=history,
        held_out=HeldOut(windows=validation[0], labels=validation[1], scores=scores),
        evaluation=evaluation,
        warnings=warnings,
    )


def transfer_marked(
    marked: Sequence[Marked],
    folder: str | Path,
    plan: Plan,
    *,
    window_ms: float | None = None,
    name: str | None = None,
    progress: Progress | None = None,
) -> TrainedOnMarks:
    """Train a trace network further on recordings whose events are all listed.

    What is excluded counts neither way. Whole recordings are held out, or, where plan.by is
    "window", the last part of every sweep. window_ms: as in `transfer_windows`.
    Raises UsageError where events are too few or there is nothing to hold out, ModelError for a
    base that cannot be trained further.
    """
    called = _checked_target(folder, name)
    network, base = _base(plan)
    training, held = _parted(marked, plan)
    guess_ms = checked_window_ms(window_ms, base)
    direction = plan.direction or marked_polarity(training, guess_ms)
    training, shape = settled(training, SIGNS[direction], guess_ms)
    held = [at_steepest(one, SIGNS[direction], shape.fitting_ms) for one in held]
    scale_ms = guess_ms if window_ms is not None else time_scale_ms(shape.fitting_ms, base)
    cut = partial(
        marked_pieces,
        card=base,
        shape=shape,
        window_ms=scale_ms,
        direction=direction,
        seed=plan.settings.seed,
    )
    pieces, validation = cut(training, copies=_COPIES), cut(held, copies=1)
    simulated, judged = _simulated(plan)
    allowed = _false_share(network, judged, known_shift(base))
    history = fit_pieces(network, pieces, validation, simulated, plan.settings, progress)
    card = _card(base, called, plan, scale_ms, direction)
    facts = {
        "data": _marked_facts(marked, held),
        "history": _rounded(history),
        "pieces": {"training": len(pieces.samples), "validation": len(validation.samples)},
        "calibration": _calibrated(network, judged, allowed),
    }
    card = replace(card, training={**card.training, **facts})
    model = export_model(
        network, folder, card=card, windows=_examples(pieces.samples.astype(np.float32))
    )
    listed, found, hits = _found_again(held, model)
    return TrainedOnMarks(model=model, history=history, listed=listed, found=found, hits=hits)


def _checked_target(folder: str | Path, name: str | None) -> str:
    """The name of the model to write; raises before anybody waits."""
    check_replaceable(Path(folder).expanduser().resolve())
    return plain_name(name or Path(folder).resolve().name)


def _base(plan: Plan) -> tuple[keras.Model, Card]:
    """The network as it was trained, with its shift undone, and its card."""
    if plan.base is None:
        raise UsageError("a trace network is only trained further: give a base, such as minis.")
    keras.utils.set_random_seed(plan.settings.seed)
    network, card = base_network(plan.base)
    if card.kind != "trace":
        raise UsageError(
            f"{card.name} reads windows; event times train a network that reads traces, such as "
            "minis."
        )
    shift_scores(network, -known_shift(card))
    return network, card


def _parted(marked: Sequence[Marked], plan: Plan) -> tuple[list[Marked], list[Marked]]:
    """What is trained on, and what is held out: whole recordings or the end of each sweep."""
    if plan.by == "window":
        training, held = held_back(marked, plan.validation)
    else:
        names = np.unique([one.trace.recording for one in marked])
        if len(names) < 2:
            raise UsageError(
                f"all is of one recording ({names[0]}): add another, or split by window, which "
                "holds out the last part of every sweep."
            )
        order = np.random.default_rng(plan.settings.seed).permutation(len(names))
        count = min(max(round(plan.validation * len(names)), 1), len(names) - 1)
        chosen = set(names[order[:count]].tolist())
        training = [one for one in marked if one.trace.recording not in chosen]
        held = [one for one in marked if one.trace.recording in chosen]
    if not sum(len(one.times_s) for one in held):
        raise UsageError(
            "the part held out would hold no event: give more recordings, another --seed, or "
            "split by window."
        )
    return training, held


def _simulated(plan: Plan) -> tuple[Pieces, Pieces]:
    """Simulated pieces to train on besides, and others to judge by."""
    first, second = (plan.settings.seed + more for more in _SEEDS)
    return simulate_pieces(_SIMULATED, seed=first), simulate_pieces(_JUDGED, seed=second)


def _false_share(network: keras.Model, judged: Pieces, shift: float) -> float:
    """Of the hops without an event the share that scores above a half once shifted."""
    return float((false_logits(network, judged) > shift).mean())


def _calibrated(network: keras.Model, judged: Pieces, allowed: float) -> dict[str, float]:
    """Shift the scores down until a share of no more than `allowed` is false; facts for a card."""
    logits = false_logits(network, judged)
    shift = max(float(np.quantile(logits, 1 - allowed)), 0.0)
    share = float((logits > shift).mean())
    shift_scores(network, shift)
    return {"shift": round(shift, 4), "false_share": share, "false_share_of_base": allowed}


def _card(base: Card, name: str, plan: Plan, window_ms: float, direction: str) -> Card:
    return replace(
        base,
        name=name,
        window_ms=window_ms,
        rate_hz=1e3 * base.window_samples / window_ms,
        direction=direction,
        threshold=plan.threshold,
        training=origin(plan, base),
    )


def _examples(samples: Array) -> Array:
    return samples[:64, :_EXAMPLE]


def _rounded(history: History) -> History:
    return {key: [round(v, 5) for v in values] for key, values in history.items()}


def _marked_facts(marked: Sequence[Marked], held: Sequence[Marked]) -> dict[str, Any]:
    """What a card says of recordings and their events."""
    mark = hashlib.sha256()
    for one in marked:
        mark.update(one.trace.samples.data)
        mark.update(np.ascontiguousarray(one.times_s).data)
    held_out = {one.trace.recording for one in held}
    return {
        "sha256": mark.hexdigest(),
        "recordings": sorted({one.trace.recording for one in marked}),
        "held_out": sorted(held_out),
        "events": sum(len(one.times_s) for one in marked),
        "seconds": round(sum(one.trace.wanted().sum() / one.trace.rate_hz for one in marked), 3),
        "unit": marked[0].trace.unit,
    }


def _found_again(held: Sequence[Marked], model: Model) -> tuple[int, int, int]:
    """Events listed, found and both, in what was held out."""
    listed = found = hits = 0
    tolerance_s = _TOLERANCE / model.card.rate_hz
    for one in held:
        times = one.times_s[one.trace.wanted()[one.at]]
        events = detect(one.trace, model=model)
        hits += matched(times, events.location_s, tolerance_s=tolerance_s)
        listed, found = listed + len(times), found + len(events)
    return listed, found, hits

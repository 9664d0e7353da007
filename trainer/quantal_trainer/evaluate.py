"""Scores beside labels: how good a model is on windows that somebody scored by eye.

A window counts as an event where its score reaches the threshold. What the labels cannot tell
(a ROC curve needs events and noise) is nan, and null in JSON; it is never 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal.errors import UsageError
from quantal.model import Card, Model
from quantal.runtime import open_session
from quantal.save import as_json
from quantal.trace import is_finite
from quantal_trainer.datasets import Dataset, polarity, scaled, training_arrays
from quantal_trainer.profile import rise_place

Array = NDArray[np.float32]
Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

_NAN = float("nan")
PLACES = ("as-is", "reference")
_DIRECTIONS = ("negative", "positive")
_CLIP = 1e-7  # as Keras does, so that the loss is the one that training shows
_BINS = 10  # of the calibration
_POINTS = 200  # of a curve in JSON
_WORST = 24  # windows in the picture
_AT_ONCE = 64  # windows that a trace network reads at a time


class Confusion(NamedTuple):
    """Windows by what they hold and what they were taken for."""

    true_negatives: int
    false_positives: int
    false_negatives: int
    true_positives: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Curves:
    """What every threshold that makes a difference would give, from the highest down.

    The first threshold is inf, where no window is an event and precision is nan. `recall` over
    `false_positive_rate` is the ROC curve, `precision` over `recall` the precision-recall curve.
    """

    threshold: Floats
    false_positive_rate: Floats
    recall: Floats
    precision: Floats
    accuracy: Floats
    f1: Floats

    def thinned(self, points: int) -> Curves:
        """At most this many of the points, both ends among them."""
        n = len(self.threshold)
        kept = np.linspace(0, n - 1, min(n, points)).round().astype(np.intp)
        return replace(self, **{f.name: getattr(self, f.name)[kept] for f in fields(self)})


@dataclass(frozen=True, eq=False, kw_only=True)
class Calibration:
    """Whether of the windows scored 0.8 four in five are events; in ten bins of the score.

    mean_score, event_share: of the windows of a bin, nan where there are none.
    expected_error: their mean distance, weighted by count (Naeini et al. 2015).
    brier: mean squared distance of scores from labels (Brier 1950).
    """

    edges: Floats
    mean_score: Floats
    event_share: Floats
    count: NDArray[np.int64]
    expected_error: float
    brier: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Evaluation:
    """How scores agree with labels, at a threshold and over all of them.

    loss: binary cross-entropy, in nats. best_threshold: where F1 is largest, in the middle of the
    widest stretch of thresholds that are equally good; accuracy and F1 there.
    """

    n_events: int
    n_noise: int
    threshold: float
    accuracy: float
    loss: float
    precision: float
    recall: float
    f1: float
    auc: float
    average_precision: float
    best_threshold: float
    best_accuracy: float
    best_f1: float
    confusion: Confusion
    calibration: Calibration
    curves: Curves

    def to_dict(self) -> dict[str, Any]:
        """The same as plain numbers, nan as None, curves thinned to 200 points."""
        facts = {f.name: getattr(self, f.name) for f in fields(self)}
        facts["confusion"] = self.confusion._asdict()
        facts["calibration"] = vars(self.calibration)
        facts["curves"] = vars(self.curves.thinned(_POINTS))
        plain: dict[str, Any] = _plain(facts)
        return plain

    def describe(self) -> str:
        """The main numbers in a line for people."""
        parts = [
            f"{self.n_events:,} events and {self.n_noise:,} noise windows",
            f"accuracy {in_percent(self.accuracy)}",
            f"precision {in_percent(self.precision)}",
            f"recall {in_percent(self.recall)}",
            f"F1 {in_digits(self.f1)}",
            f"AUC {in_digits(self.auc, 4)}",
        ]
        return f"{parts[0]}: {', '.join(parts[1:])} at threshold {self.threshold:.3g}"


@dataclass(frozen=True, eq=False, kw_only=True)
class Scored:
    """The labelled windows of a dataset as a network read them, and what it gave.

    windows: float32 (n, samples), scaled. labels: float32 (n,), 1 an event. scores: (n,).
    rows: the row of the dataset that each is from; excluded and flat windows have none.
    direction: which way events point in the dataset.
    """

    windows: Array
    labels: Array
    scores: Array
    rows: Rows
    direction: str


@dataclass(frozen=True, eq=False, kw_only=True)
class CrossValidation:
    """An evaluation of each fold, and one of all folds' scores together."""

    folds: tuple[Evaluation, ...]
    pooled: Evaluation

    def spread(self, name: str) -> tuple[float, float]:
        """Mean and SD over the folds of a number such as "accuracy"; nan where it cannot be had.

        Folds in which it is nan are left out; the SD is of the sample (n - 1), nan for one fold.
        """
        values = np.array([getattr(fold, name) for fold in self.folds], np.float64)
        values = values[np.isfinite(values)]
        mean = float(values.mean()) if len(values) else _NAN
        return mean, float(values.std(ddof=1)) if len(values) > 1 else _NAN

    def to_dict(self) -> dict[str, Any]:
        """Accuracy, AUC and F1 of each fold with mean and SD, and the pooled evaluation."""
        facts: dict[str, Any] = {}
        for name in ("accuracy", "auc", "f1"):
            mean, sd = self.spread(name)
            facts[name] = {"folds": [getattr(f, name) for f in self.folds], "mean": mean, "sd": sd}
        facts["pooled"] = self.pooled.to_dict()
        plain: dict[str, Any] = _plain(facts)
        return plain


# Numbers -----------------------------------------------------------------------------------------


def evaluate_scores(scores: ArrayLike, labels: ArrayLike, *, threshold: float = 0.5) -> Evaluation:
    """How well scores (n,) tell events (label 1) from noise (label 0).

    Raises UsageError if there are none, they do not fit each other, a score is not 0 to 1, a label
    not 0 or 1 or the threshold not between 0 and 1.
    """
    values, events = checked_scores(scores, labels)
    if not 0 < threshold < 1:
        raise UsageError(f"threshold must be between 0 and 1, got {threshold!r}; try 0.5.")
    curves = _curves(values, events)
    confusion = _confusion(values >= threshold, events)
    noise, false, missed, found = confusion
    both = 0 < events.sum() < len(events)
    best, best_accuracy, best_f1 = _best(curves) if both else (_NAN, _NAN, _NAN)
    auc, average_precision = _areas(values, events) if both else (_NAN, _NAN)
    return Evaluation(
        n_events=found + missed,
        n_noise=noise + false,
        threshold=float(threshold),
        accuracy=(found + noise) / len(events),
        loss=_cross_entropy(values, events),
        # Without noise every precision is 1, without events 0, whatever the scores.
        precision=_ratio(found, found + false) if both else _NAN,
        recall=_ratio(found, found + missed),
        f1=_ratio(2 * found, 2 * found + false + missed) if both else _NAN,
        auc=auc,
        average_precision=average_precision,
        best_threshold=best,
        best_accuracy=best_accuracy,
        best_f1=best_f1,
        confusion=confusion,
        calibration=_calibration(values, events),
        curves=curves,
    )


def evaluate(
    model: Model,
    dataset: Dataset,
    *,
    threshold: float | None = None,
    direction: str | None = None,
    place: str = "as-is",
    device: str = "cpu",
) -> tuple[Evaluation, Scored]:
    """How well a model tells a dataset's events from its noise, and what it gave for each window.

    threshold: None for the card's, less the shift by which its scores suit a scan: there, events
    are much rarer than among labelled windows. direction, place: as in `score_dataset`, which says
    what is raised.
    """
    scored = score_dataset(model, dataset, direction=direction, place=place, device=device)
    chosen = window_threshold(model.card) if threshold is None else threshold
    return evaluate_scores(scored.scores, scored.labels, threshold=chosen), scored


def known_shift(card: Card) -> float:
    """By how much the scores of a model were shifted for detection, as its card says; 0 if not."""
    calibration = card.training.get("calibration")
    shift = calibration.get("shift") if isinstance(calibration, dict) else 0.0
    return float(shift) if is_finite(shift) else 0.0


def window_threshold(card: Card) -> float:
    """The card's threshold with its shift undone, for windows of which half hold events."""
    logit = np.log(card.threshold / (1 - card.threshold)) - known_shift(card)
    return float(1 / (1 + np.exp(-logit)))


def score_dataset(
    model: Model,
    dataset: Dataset,
    *,
    direction: str | None = None,
    place: str = "as-is",
    device: str = "cpu",
) -> Scored:
    """What a model gives for the labelled windows, brought to it as detection brings a trace.

    direction: "negative" or "positive", which way events point in the windows; None reads it from
    them. They are turned over where the model was trained on the other.
    place: "as-is", or "reference" to move all windows by the same number of samples, so that their
    events rise where the model's score speaks for, as happens when detection slides along.
    A trace network's score of a window is the highest in the part in which events rise.
    Raises UsageError if no window is labelled, the direction cannot be told, or a trace network is
    to read windows without an event among them, or that were scaled already.
    """
    if place not in PLACES:
        raise UsageError(f"place must be {' or '.join(PLACES)}, got {place!r}.")
    if model.card.kind == "trace" and place == "reference":
        raise UsageError(
            f"{model.card.name} finds events wherever they lie in a window: leave place out."
        )
    numbered = replace(dataset, raw_indices=np.arange(len(dataset))).labelled()
    if not len(numbered):
        raise UsageError(
            f"none of the {len(dataset)} windows can be evaluated: score some of them 0 (noise) "
            "or 1 (event)."
        )
    pointing = _direction(numbered, direction)
    sign = 1 if pointing == model.card.polarity else -1
    if model.card.kind == "trace":
        windows, labels, scores = _highest(model, numbered, sign, device)
    else:
        windows, labels = training_arrays(numbered, model.card.window_samples, sign)
        if place == "reference" and labels.any():
            windows = _moved(windows, labels, model.card)
        scores = open_session(model, device).run_windows(windows)
    return Scored(
        windows=windows,
        labels=labels,
        scores=scores,
        rows=numbered.raw_indices.astype(np.intp),
        direction=pointing,
    )


def _highest(model: Model, usable: Dataset, sign: int, device: str) -> tuple[Array, Array, Array]:
    """Windows and labels as a trace network reads them, and its highest score in each."""
    from quantal_trainer.trace_windows import framed, framing  # needs TensorFlow

    frame = framing(usable, model.card, sign=sign)
    samples, labels = framed(usable, frame)
    session = open_session(model, device)
    hops = [session.run(samples[i : i + _AT_ONCE]) for i in range(0, len(samples), _AT_ONCE)]
    scores = np.concatenate(hops)[:, frame.first : frame.last].max(axis=1)
    return samples[:, frame.inside], labels, scores


def _moved(windows: Array, labels: Array, card: Card) -> Array:
    """Scaled windows shifted to where the card's score speaks for; their mirror image fills."""
    events = windows[labels == 1]
    upward = events if card.polarity == "positive" else np.float32(1) - events
    shift = card.reference_sample - int(np.median(rise_place(upward)))
    width = windows.shape[1]
    wide = np.pad(windows, ((0, 0), (max(shift, 0), max(-shift, 0))), mode="symmetric")
    first = max(-shift, 0)
    return scaled(wide[:, first : first + width], width)


def pooled(
    folds: Iterable[tuple[ArrayLike, ArrayLike]], *, threshold: float = 0.5
) -> CrossValidation:
    """An evaluation of each fold's (scores, labels) and of all together.

    Raises UsageError as `evaluate_scores` does, or if there is no fold.
    """
    pairs = [checked_scores(scores, labels) for scores, labels in folds]
    if not pairs:
        raise UsageError("there is no fold to evaluate.")
    scores, labels = (np.concatenate(column) for column in zip(*pairs, strict=True))
    return CrossValidation(
        folds=tuple(evaluate_scores(*pair, threshold=threshold) for pair in pairs),
        pooled=evaluate_scores(scores, labels, threshold=threshold),
    )


def worst(scores: ArrayLike, labels: ArrayLike, count: int = _WORST) -> Rows:
    """The windows whose scores are farthest from their labels, the farthest first."""
    values, events = checked_scores(scores, labels)
    return np.argsort(-np.abs(values - events), kind="stable")[: max(count, 0)]


def checked_scores(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats]:
    """Scores and labels as float64 (n,); raises UsageError as `evaluate_scores` does."""
    values, events = np.asarray(scores, np.float64), np.asarray(labels, np.float64)
    if values.ndim != 1 or values.shape != events.shape or not len(values):
        raise UsageError(
            "scores and labels must be one number a window each, "
            f"got shapes {values.shape} and {events.shape}."
        )
    if not ((values >= 0) & (values <= 1)).all():
        wrong = values[~((values >= 0) & (values <= 1))][0]
        raise UsageError(f"scores must be 0 to 1, got {wrong:g}.")
    if not np.isin(events, (0, 1)).all():
        wrong = events[~np.isin(events, (0, 1))][0]
        raise UsageError(
            f"labels must be 0 (noise) or 1 (event), got {wrong:g}; leave out excluded windows."
        )
    return values, events


def _direction(dataset: Dataset, direction: str | None) -> str:
    if direction is None:
        try:
            return polarity(dataset)
        except UsageError as error:
            raise UsageError(f"{error} Say whether events are negative or positive.") from None
    if direction not in _DIRECTIONS:
        raise UsageError(f"direction must be negative or positive, got {direction!r}.")
    return direction


def _curves(scores: Floats, labels: Floats) -> Curves:
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    last = np.flatnonzero(np.append(falling[1:] < falling[:-1], True))  # of each score's windows
    found = np.concatenate([[0.0], np.cumsum(labels[order])[last]])
    false = np.concatenate([[0.0], last + 1.0]) - found
    n_events = labels.sum()
    n_noise = len(labels) - n_events
    with np.errstate(invalid="ignore"):  # 0 / 0 is nan, as it should be
        return Curves(
            threshold=np.concatenate([[np.inf], falling[last]]),
            false_positive_rate=false / n_noise,
            recall=found / n_events,
            precision=found / (found + false),
            accuracy=(found + n_noise - false) / len(labels),
            f1=2 * found / (found + false + n_events),
        )


def _best(curves: Curves) -> tuple[float, float, float]:
    """The threshold of the largest F1, and accuracy and F1 there."""
    upper, lower = curves.threshold, np.append(curves.threshold[1:], 0.0)
    equal = np.flatnonzero(curves.f1 == curves.f1.max())
    plateaus = np.split(equal, np.flatnonzero(np.diff(equal) > 1) + 1)
    widest = max(plateaus, key=lambda p: float(upper[p[0]] - lower[p[-1]]))
    middle = 0.5 * (upper[widest[0]] + lower[widest[-1]])
    here = np.flatnonzero(upper >= middle)[-1]  # accuracy may differ within a plateau
    return float(middle), float(curves.accuracy[here]), float(curves.f1[here])


def _areas(scores: Floats, labels: Floats) -> tuple[float, float]:
    from sklearn.metrics import average_precision_score, roc_auc_score

    return float(roc_auc_score(labels, scores)), float(average_precision_score(labels, scores))


def _confusion(taken: NDArray[np.bool_], labels: Floats) -> Confusion:
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(labels.astype(np.int64), taken.astype(np.int64), labels=[0, 1])
    return Confusion(*counts.ravel().tolist())


def _cross_entropy(scores: Floats, labels: Floats) -> float:
    clipped = np.clip(scores, _CLIP, 1 - _CLIP)
    return float(-np.log(np.where(labels == 1, clipped, 1 - clipped)).mean())


def _calibration(scores: Floats, labels: Floats) -> Calibration:
    bins = np.minimum((scores * _BINS).astype(np.intp), _BINS - 1)
    count = np.bincount(bins, minlength=_BINS)
    sums = (np.bincount(bins, weights=x, minlength=_BINS) for x in (scores, labels))
    with np.errstate(invalid="ignore"):
        mean_score, share = (total / count for total in sums)
    gaps = np.abs(mean_score - share)[count > 0]
    return Calibration(
        edges=np.linspace(0, 1, _BINS + 1),
        mean_score=mean_score,
        event_share=share,
        count=count,
        expected_error=float((gaps * count[count > 0]).sum() / len(scores)),
        brier=float(np.square(scores - labels).mean()),
    )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else _NAN


def _plain(facts: Any) -> Any:
    """The same as JSON has it: plain numbers and lists, None for what is not finite."""
    return json.loads(as_json(facts))


def in_percent(value: float) -> str:
    """A share in words, as in 98.4 %; unknown where it is nan."""
    return f"{100 * value:.1f} %" if np.isfinite(value) else "unknown"


def in_digits(value: float, digits: int = 3) -> str:
    """A number with so many digits after the point; unknown where it is nan."""
    return f"{value:.{digits}f}" if np.isfinite(value) else "unknown"

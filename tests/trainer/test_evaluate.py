"""Metrics mean what they say, nothing is invented where labels do not tell, the page is drawn."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from quantal.errors import SaveError, UsageError
from quantal.model import Model, load_model
from quantal.save import save_summary
from quantal.simulate import biexponential
from quantal_trainer.datasets import Dataset, scaled
from quantal_trainer.evaluate import (
    Evaluation,
    evaluate,
    evaluate_scores,
    known_shift,
    pooled,
    score_dataset,
    window_threshold,
    worst,
)
from quantal_trainer.evaluation_page import draw_evaluation
from quantal_trainer.export import onnx_scores
from quantal_trainer.preparations import PREPARATIONS, simulate_dataset
from quantal_trainer.profile import rise_place

HAND_SCORES = [0.9, 0.8, 0.7, 0.4, 0.3, 0.1]
HAND_LABELS = [1, 0, 1, 1, 0, 0]


def simulated(n: int = 400, seed: int = 0, digits: int = 2) -> tuple[Any, Any]:
    """Scores of overlapping kinds, rounded so that many are equal, and their labels."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.4).astype(np.float32)
    logits = rng.normal(0, 1.5, n) + 2.4 * labels - 1.2
    return np.round(1 / (1 + np.exp(-logits)), digits), labels


def naive_f1(scores: Any, labels: Any, threshold: float) -> float:
    taken = scores >= threshold
    found = (taken & (labels == 1)).sum()
    return float(2 * found / (taken.sum() + labels.sum()))


def finite_numbers(value: Any) -> bool:
    """Whether a value holds plain numbers only, none of them nan."""
    if isinstance(value, dict):
        return all(map(finite_numbers, value.values()))
    if isinstance(value, list):
        return all(map(finite_numbers, value))
    return value is None or (type(value) in (int, float) and bool(np.isfinite(value)))


# Numbers -----------------------------------------------------------------------------------------


def test_a_case_worked_by_hand() -> None:
    result = evaluate_scores(HAND_SCORES, HAND_LABELS)
    assert result.confusion == (2, 1, 1, 2)  # 0.8 is a false event, 0.4 a missed one
    assert (result.n_events, result.n_noise) == (3, 3)
    for value in (result.accuracy, result.precision, result.recall, result.f1):
        assert value == pytest.approx(2 / 3)
    # Of nine pairs of an event and a noise window, 0.7 and 0.4 against 0.8 are the wrong way.
    assert result.auc == pytest.approx(7 / 9)
    assert result.average_precision == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert result.loss == pytest.approx(-np.log([0.9, 0.2, 0.7, 0.4, 0.7, 0.9]).mean())
    # From 0.3 to 0.4, three of the four that count as events are.
    assert result.best_f1 == pytest.approx(6 / 7)
    assert result.best_threshold == pytest.approx(0.35)
    assert result.best_accuracy == pytest.approx(5 / 6)


def test_a_score_at_the_threshold_is_an_event() -> None:
    assert evaluate_scores([0.7, 0.1], [1, 0], threshold=0.7).recall == 1.0


@pytest.mark.parametrize("digits", [1, 2, 6])
def test_curves_and_areas_are_scikit_learns(digits: int) -> None:
    from sklearn import metrics

    scores, labels = simulated(digits=digits)
    result = evaluate_scores(scores, labels, threshold=0.45)
    curves = result.curves
    false_rate, recall, thresholds = metrics.roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(curves.false_positive_rate, false_rate)
    np.testing.assert_allclose(curves.recall, recall)
    np.testing.assert_array_equal(curves.threshold, thresholds)
    precision, _, _ = metrics.precision_recall_curve(labels, scores)
    np.testing.assert_allclose(curves.precision[1:], precision[-2::-1])
    taken = scores >= 0.45
    assert result.precision == pytest.approx(metrics.precision_score(labels, taken))
    assert result.recall == pytest.approx(metrics.recall_score(labels, taken))
    assert result.f1 == pytest.approx(metrics.f1_score(labels, taken))
    assert result.accuracy == pytest.approx(metrics.accuracy_score(labels, taken))
    assert result.loss == pytest.approx(metrics.log_loss(labels, np.clip(scores, 1e-7, 1 - 1e-7)))
    assert result.calibration.brier == pytest.approx(metrics.brier_score_loss(labels, scores))


def test_areas_are_what_they_stand_for() -> None:
    """AUC is how often an event outscores noise; average precision the steps' area."""
    scores, labels = simulated(digits=1)
    events, noise = scores[labels == 1][:, None], scores[labels == 0]
    result = evaluate_scores(scores, labels)
    assert result.auc == pytest.approx(((events > noise) + 0.5 * (events == noise)).mean())
    steps = np.diff(result.curves.recall) * result.curves.precision[1:]
    assert result.average_precision == pytest.approx(steps.sum())


def test_accuracy_and_f1_along_the_curve_are_those_at_its_thresholds() -> None:
    scores, labels = simulated()
    curves = evaluate_scores(scores, labels).curves
    for i in range(1, len(curves.threshold), 7):
        here = evaluate_scores(scores, labels, threshold=float(curves.threshold[i]))
        assert curves.accuracy[i] == pytest.approx(here.accuracy)
        assert curves.f1[i] == pytest.approx(here.f1)


@pytest.mark.parametrize("seed", range(20))
def test_no_threshold_has_a_larger_f1_than_the_best(seed: int) -> None:
    scores, labels = simulated(60, seed, digits=2)
    result = evaluate_scores(scores, labels)
    tried = np.concatenate([np.unique(scores), np.linspace(0, 1, 501)])
    largest = max(naive_f1(scores, labels, t) for t in tried)
    assert naive_f1(scores, labels, result.best_threshold) == pytest.approx(largest)
    assert result.best_f1 == pytest.approx(largest)
    at_best = evaluate_scores(scores, labels, threshold=result.best_threshold)
    assert result.best_accuracy == pytest.approx(at_best.accuracy)


def test_of_equally_good_thresholds_the_middle_of_the_widest_stretch_is_best() -> None:
    assert evaluate_scores([0.9, 0.7, 0.3, 0.2], [1, 1, 0, 0]).best_threshold == pytest.approx(0.5)
    # F1 is 2/3 from 0.8 to 0.9, with one event found, and up to the lowest score, with both.
    for lowest, best in ((0.05, 0.85), (0.2, 0.1)):
        result = evaluate_scores([0.9, 0.8, 0.3, lowest], [1, 0, 0, 1])
        assert result.best_threshold == pytest.approx(best)


def test_a_perfect_and_a_random_classifier() -> None:
    labels = np.arange(4000) % 2
    perfect = evaluate_scores(labels.astype(float), labels)
    assert (perfect.accuracy, perfect.f1, perfect.auc, perfect.average_precision) == (1, 1, 1, 1)
    assert perfect.loss == pytest.approx(0, abs=1e-6)
    assert perfect.calibration.expected_error == 0
    chance = evaluate_scores(np.random.default_rng(1).random(4000), labels)
    assert chance.auc == pytest.approx(0.5, abs=0.03)  # SD 0.009
    assert chance.average_precision == pytest.approx(0.5, abs=0.04)
    assert chance.best_f1 == pytest.approx(2 / 3, abs=0.02)  # everything is an event


def test_scores_of_a_certain_network_lose_no_more_than_keras_says() -> None:
    wrong = evaluate_scores([0.0, 1.0], [1, 0])
    assert wrong.loss == pytest.approx(-np.log(1e-7))


# What labels do not tell -------------------------------------------------------------------------


@pytest.mark.parametrize("label", [0, 1])
def test_with_one_kind_of_label_the_rest_is_nan_and_nothing_warns(label: int) -> None:
    scores = np.array([0.2, 0.6, 0.9])
    result = evaluate_scores(scores, np.full(3, label))
    for name in ("auc", "average_precision", "best_threshold", "best_f1", "precision", "f1"):
        assert np.isnan(getattr(result, name)), name
    assert result.accuracy == pytest.approx((1 / 3, 2 / 3)[label])
    assert np.isnan(result.recall) if label == 0 else result.recall == pytest.approx(2 / 3)
    facts = result.to_dict()
    assert facts["auc"] is None
    assert facts["best_threshold"] is None
    assert finite_numbers(facts)


def test_precision_is_unknown_where_nothing_is_taken_for_an_event() -> None:
    result = evaluate_scores([0.1, 0.2], [0, 1])
    assert np.isnan(result.precision)
    assert result.recall == 0
    assert result.f1 == 0


@pytest.mark.parametrize(
    ("scores", "labels", "words"),
    [
        ([], [], "one number a window"),
        ([0.1, 0.2], [1], "got shapes"),
        ([[0.1]], [[1]], "one number a window"),
        ([0.1, 1.2], [0, 1], "scores must be 0 to 1, got 1.2"),
        ([0.1, np.nan], [0, 1], "got nan"),
        ([0.1, 0.2], [0, 2], "leave out excluded"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(scores: Any, labels: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        evaluate_scores(scores, labels)


@pytest.mark.parametrize("threshold", [0.0, 1.0, -1.0, float("nan")])
def test_a_threshold_lies_between_0_and_1(threshold: float) -> None:
    with pytest.raises(UsageError, match="threshold must be"):
        evaluate_scores([0.1, 0.9], [0, 1], threshold=threshold)


# Calibration -------------------------------------------------------------------------------------


def test_calibration_counts_every_window_once_and_keeps_the_means() -> None:
    scores, labels = simulated(1000, digits=6)
    bins = evaluate_scores(scores, labels).calibration
    assert bins.count.sum() == 1000
    full = bins.count > 0
    assert (bins.mean_score * bins.count)[full].sum() == pytest.approx(scores.sum())
    assert (bins.event_share * bins.count)[full].sum() == pytest.approx(labels.sum())
    inside = (bins.mean_score >= bins.edges[:-1]) & (bins.mean_score <= bins.edges[1:])
    assert inside[full].all()


def test_calibration_worked_by_hand() -> None:
    bins = evaluate_scores([0.05, 0.05, 0.95, 1.0], [0, 1, 1, 1]).calibration
    assert bins.count.tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    assert bins.mean_score[[0, -1]] == pytest.approx([0.05, 0.975])
    assert bins.event_share[[0, -1]] == pytest.approx([0.5, 1.0])
    assert np.isnan(bins.mean_score[1:-1]).all()
    assert bins.expected_error == pytest.approx(0.5 * 0.45 + 0.5 * 0.025)
    assert bins.brier == pytest.approx((0.05**2 + 0.95**2 + 0.05**2) / 4)


def test_honest_scores_are_calibrated_and_overconfident_ones_are_not() -> None:
    rng = np.random.default_rng(2)
    chance = rng.random(20_000)
    labels = rng.random(20_000) < chance
    assert evaluate_scores(chance, labels).calibration.expected_error < 0.02
    overconfident = np.where(chance > 0.5, 0.99, 0.01)
    assert evaluate_scores(overconfident, labels).calibration.expected_error > 0.2


# JSON --------------------------------------------------------------------------------------------


def test_an_evaluation_is_saved_as_plain_numbers_with_short_curves(tmp_path: Path) -> None:
    scores, labels = simulated(3000, digits=8)
    result = evaluate_scores(scores, labels)
    facts = result.to_dict()
    assert finite_numbers(facts)
    assert len(result.curves.threshold) > 2500
    for values in facts["curves"].values():
        assert len(values) <= 200
    assert facts["curves"]["recall"][0] == 0
    assert facts["curves"]["recall"][-1] == 1
    assert facts["confusion"]["true_positives"] == result.confusion.true_positives
    save_summary(facts, tmp_path / "evaluation.json")
    assert json.loads((tmp_path / "evaluation.json").read_text()) == facts


def test_the_line_for_people_says_what_is_unknown() -> None:
    assert "accuracy 66.7 %" in evaluate_scores(HAND_SCORES, HAND_LABELS).describe()
    assert "AUC unknown" in evaluate_scores([0.1], [0]).describe()


# Folds -------------------------------------------------------------------------------------------


def test_folds_have_mean_and_sd_and_are_pooled() -> None:
    folds = [simulated(80, seed) for seed in range(4)]
    result = pooled(folds)
    single = [evaluate_scores(*fold) for fold in folds]
    for name in ("accuracy", "auc", "f1"):
        values = [getattr(one, name) for one in single]
        mean, sd = result.spread(name)
        assert mean == pytest.approx(np.mean(values))
        assert sd == pytest.approx(np.std(values, ddof=1))
        assert result.to_dict()[name] == {"folds": values, "mean": mean, "sd": sd}
    together = evaluate_scores(*(np.concatenate(column) for column in zip(*folds, strict=True)))
    assert result.pooled.to_dict() == together.to_dict()
    assert finite_numbers(result.to_dict())


def test_a_fold_without_events_does_not_spoil_the_others() -> None:
    result = pooled([([0.1, 0.9], [0, 1]), ([0.2, 0.3], [0, 0])])
    assert result.spread("auc")[0] == 1.0
    assert np.isnan(result.spread("auc")[1])
    assert result.to_dict()["auc"] == {"folds": [1.0, None], "mean": 1.0, "sd": None}


def test_no_fold_is_refused() -> None:
    with pytest.raises(UsageError, match="no fold"):
        pooled([])


# Models and datasets -----------------------------------------------------------------------------


@pytest.fixture
def dataset(windows: NDArray[np.float32]) -> Dataset:
    """Windows in which events point down; two of them excluded and two that cannot be scaled."""
    raw = 30 * windows - 70
    scores = np.arange(len(raw)) % 2
    scores[[10, 11]] = 2
    raw[scores == 1, 250:300] -= 60
    raw[3, 7] = np.nan
    raw[5] = -70
    return Dataset(windows=raw, scores=scores, rate_hz=50_000.0, unit="pA")


def test_every_score_belongs_to_a_row_of_the_dataset(exported: Model, dataset: Dataset) -> None:
    result, scored = evaluate(exported, dataset)
    expected = np.setdiff1d(np.arange(len(dataset)), [3, 5, 10, 11])
    np.testing.assert_array_equal(scored.rows, expected)
    np.testing.assert_array_equal(scored.labels, dataset.scores[expected])
    assert scored.direction == "negative"
    own = onnx_scores(exported.graph, scaled(dataset.windows[expected], 600))
    np.testing.assert_allclose(scored.scores, own, atol=1e-6)
    assert result.threshold == pytest.approx(exported.card.threshold)
    assert result.to_dict() == evaluate_scores(scored.scores, scored.labels).to_dict()


def test_windows_are_turned_over_where_events_point_the_other_way(
    exported: Model, dataset: Dataset
) -> None:
    """The card says negative: windows turned over by hand must score as they did before."""
    turned = replace(dataset, windows=-dataset.windows)
    there, back = score_dataset(exported, dataset), score_dataset(exported, turned)
    assert back.direction == "positive"
    np.testing.assert_allclose(back.scores, there.scores, atol=1e-5)
    forced = score_dataset(exported, turned, direction="negative")
    np.testing.assert_allclose(forced.windows, 1 - there.windows, atol=1e-5)


def test_windows_of_another_length_are_resampled(exported: Model, dataset: Dataset) -> None:
    half = replace(dataset, windows=dataset.windows[:, ::2], rate_hz=25_000.0)
    assert score_dataset(exported, half).windows.shape[1] == 600


def test_a_threshold_may_be_given(exported: Model, dataset: Dataset) -> None:
    assert evaluate(exported, dataset, threshold=0.9)[0].threshold == 0.9


@pytest.mark.parametrize(
    ("change", "direction", "words"),
    [
        (lambda d: d[d.scores == 2], None, "none of the 2 windows"),
        (lambda d: d[:0], None, "none of the 0 windows"),
        (lambda d: d[d.scores == 0], None, "negative or positive"),
        (lambda d: d, "down", "direction must be"),
    ],
)
def test_a_dataset_that_cannot_be_evaluated_is_refused(
    exported: Model,
    dataset: Dataset,
    change: Callable[[Dataset], Dataset],
    direction: str | None,
    words: str,
) -> None:
    with pytest.raises(UsageError, match=words):
        evaluate(exported, change(dataset), direction=direction)


def test_noise_alone_is_evaluated_once_the_direction_is_given(
    exported: Model, dataset: Dataset
) -> None:
    result, _ = evaluate(exported, dataset[dataset.scores == 0], direction="negative")
    assert result.n_events == 0
    assert np.isfinite(result.accuracy)


# The page ----------------------------------------------------------------------------------------


def test_the_worst_windows_are_the_farthest_from_their_labels() -> None:
    assert worst([0.9, 0.2, 0.6, 0.05], [0, 1, 0, 0]).tolist() == [0, 1, 2, 3]
    scores, labels = simulated()
    order = worst(scores, labels, 10)
    off = np.abs(scores - labels)
    assert (np.diff(off[order]) <= 0).all()
    assert off[order].min() >= np.delete(off, order).max()
    assert len(worst([0.5], [1])) == 1


def picture(path: Path) -> tuple[int, int]:
    """Width and height in a PNG's header."""
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def drawn(n: int, path: Path, *, only: int | None = None, **options: Any) -> Evaluation:
    scores, labels = simulated(n)
    if only is not None:
        labels = np.full(n, only)
    result = evaluate_scores(scores, labels)
    windows = np.random.default_rng(0).random((n, 120), np.float32)
    draw_evaluation(result, windows, labels, scores, path, **options)
    return result


def test_the_page_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "new" / "evaluation.png"
    drawn(300, path, title="a cell for 5 $ and 6 $", rows=np.arange(300) + 1000)
    width, height = picture(path)
    assert width == 1600
    assert 1500 < height < 2200
    assert path.stat().st_size > 100_000
    assert [p.name for p in path.parent.iterdir()] == ["evaluation.png"]


@pytest.mark.parametrize("label", [0, 1])
def test_few_windows_of_one_kind_make_a_shorter_page(tmp_path: Path, label: int) -> None:
    drawn(3, tmp_path / "one.png", only=label)
    width, height = picture(tmp_path / "one.png")
    assert width == 1600
    assert 1000 < height < 1500


def test_windows_that_do_not_fit_are_not_drawn(tmp_path: Path) -> None:
    result = evaluate_scores(HAND_SCORES, HAND_LABELS)
    with pytest.raises(UsageError, match="2 windows but 6 scores"):
        draw_evaluation(
            result, np.zeros((2, 9), np.float32), HAND_LABELS, HAND_SCORES, tmp_path / "x.png"
        )
    assert not list(tmp_path.iterdir())


def test_a_page_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match="folder"):
        drawn(10, tmp_path)


def test_windows_moved_to_the_reference_are_scored_as_if_they_had_been_cut_there() -> None:
    model = load_model("cnn-lstm")
    early = simulated_events(place=60)
    there = simulated_events(place=model.card.reference_sample)
    as_is, _ = evaluate(model, early)
    moved, scored = evaluate(model, early, place="reference")
    right, _ = evaluate(model, there)
    assert as_is.loss > 2 * moved.loss
    assert moved.loss == pytest.approx(right.loss, abs=0.1)
    assert abs(np.median(rise_place(scored.windows[scored.labels == 1])) - 210) <= 10
    with pytest.raises(UsageError, match="as-is or reference"):
        evaluate(model, early, place="left")


def simulated_events(place: int) -> Dataset:
    """Windows of noise, half of them with an upward event that begins at a sample."""
    rng = np.random.default_rng(5)
    windows = np.cumsum(rng.normal(0, 0.3, (80, 600)), axis=1) * 0.1 + rng.normal(0, 1, (80, 600))
    shape = biexponential(1.0, 8.0, 50.0)
    scores = np.arange(80) % 2
    windows[scores == 1, place:] += 8 * shape[: 600 - place]
    return Dataset(windows=windows, scores=scores, rate_hz=50_000.0, unit="pA")


def test_windows_are_judged_without_the_shift_that_suits_a_scan() -> None:
    card = load_model("cnn-lstm").card
    assert known_shift(card) == card.training["calibration"]["shift"] > 1
    assert window_threshold(card) == pytest.approx(1 / (1 + np.exp(known_shift(card))))
    plain = replace(card, training={}, threshold=0.7)
    assert known_shift(plain) == 0
    assert window_threshold(plain) == pytest.approx(0.7)


def test_a_trace_network_scores_a_window_by_its_maximum() -> None:
    dataset = simulate_dataset(PREPARATIONS["mepsc"], windows=20, cells=2, seed=1)
    scored = score_dataset(load_model("minis"), dataset)
    assert scored.windows.shape == (20, 300)
    assert (scored.direction, len(scored.rows)) == ("negative", 20)
    assert scored.scores[scored.labels == 1].mean() > 0.5 > scored.scores[scored.labels == 0].mean()

"""An evaluation as one page: curves, histograms and the windows that were scored worst."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal.errors import UsageError
from quantal_trainer.evaluate import Evaluation, checked_scores, in_digits, in_percent, worst
from quantal_trainer.pages import (
    AS_READ,
    EVENT_COLOUR,
    GREY,
    INK,
    MARK_COLOUR,
    NOISE_COLOUR,
    PALE,
    new_page,
    save_page,
    small_legend,
    tidy,
    unit_square,
    window_grid,
    write_heading,
)

Array = NDArray[np.float32]
Floats = NDArray[np.float64]

_WIDTH = 10.0  # inches
_TOP, _PANEL, _CELL, _FOOT = 0.85, 2.85, 1.22, 0.25  # heights in inches
_ACROSS = 6  # worst windows in a row


def draw_evaluation(
    evaluation: Evaluation,
    windows: Array,
    labels: ArrayLike,
    scores: ArrayLike,
    path: str | Path,
    *,
    title: str = "",
    rows: ArrayLike | None = None,
) -> None:
    """Draw an evaluation and the worst-scored of its windows (n, samples) into a PNG.

    rows: a number for each window by which to find it again, such as its row in the dataset.
    Raises UsageError if windows, labels and scores do not fit each other, SaveError if the file
    cannot be written.
    """
    values, events = checked_scores(scores, labels)
    if len(windows) != len(values):
        raise UsageError(f"there are {len(windows)} windows but {len(values)} scores.")
    chosen = worst(values, events)
    lines = -(-len(chosen) // _ACROSS)
    height = _TOP + 2 * _PANEL + 0.2 + _CELL * lines + _FOOT
    figure = new_page(_WIDTH, height, title or "evaluation", evaluation.describe())
    panels = _panels(figure, height)
    _draw_roc(panels[0], evaluation)
    _draw_precision_recall(panels[1], evaluation)
    _draw_scores(panels[2], evaluation, values, events)
    _draw_confusion(panels[3], evaluation)
    _draw_calibration(panels[4], evaluation)
    _draw_thresholds(panels[5], evaluation)
    names = np.arange(len(values)) if rows is None else np.asarray(rows)
    cells = window_grid(figure, len(chosen), _ACROSS, bottom=_FOOT, cell=_CELL)
    for axes, i in zip(cells, chosen, strict=True):
        _draw_window(axes, windows[i], events[i], values[i], evaluation.threshold, names[i])
    wrong = int(((values[chosen] >= evaluation.threshold) != events[chosen]).sum())
    text = f"the {len(chosen)} windows scored worst, {wrong} of them on the wrong side, {AS_READ}"
    write_heading(figure, _FOOT + _CELL * lines + 0.12, text)
    save_page(figure, path)


def _panels(figure: Any, height: float) -> list[Any]:
    left, panel_width, gap, panel_height = 0.6, 2.6, 0.65, 2.15
    found = []
    for k in range(6):
        x = left + (k % 3) * (panel_width + gap)
        y = height - _TOP - panel_height - (k // 3) * _PANEL - 0.1
        found.append(
            figure.add_axes((x / _WIDTH, y / height, panel_width / _WIDTH, panel_height / height))
        )
    return found


def _say_why(axes: Any) -> None:
    axes.text(
        0.5,
        0.5,
        "needs events and noise",
        fontsize=8,
        color=GREY,
        ha="center",
        transform=axes.transAxes,
    )


def _draw_roc(axes: Any, evaluation: Evaluation) -> None:
    tidy(axes, f"ROC, AUC {in_digits(evaluation.auc, 4)}", "false positive rate", "recall")
    unit_square(axes)
    if not np.isfinite(evaluation.auc):
        _say_why(axes)
        return
    curves, (noise, false, *_) = evaluation.curves, evaluation.confusion
    axes.plot([0, 1], [0, 1], color=PALE, linewidth=0.8, linestyle="--")
    axes.plot(curves.false_positive_rate, curves.recall, color=INK, linewidth=1.3)
    _mark(axes, false / (noise + false), evaluation.recall, evaluation)
    small_legend(axes, "lower right")


def _draw_precision_recall(axes: Any, evaluation: Evaluation) -> None:
    average = in_digits(evaluation.average_precision, 4)
    tidy(axes, f"precision-recall, average precision {average}", "recall", "precision")
    unit_square(axes)
    if not np.isfinite(evaluation.average_precision):
        _say_why(axes)
        return
    share = evaluation.n_events / (evaluation.n_events + evaluation.n_noise)
    axes.axhline(share, color=PALE, linewidth=0.8, linestyle="--")
    axes.plot(evaluation.curves.recall, evaluation.curves.precision, color=INK, linewidth=1.3)
    _mark(axes, evaluation.recall, evaluation.precision, evaluation)
    small_legend(axes, "lower left")


def _mark(axes: Any, x: float, y: float, evaluation: Evaluation) -> None:
    axes.plot(
        x,
        y,
        linestyle="",
        marker="o",
        markersize=5.5,
        markerfacecolor="none",
        markeredgewidth=1.4,
        color=MARK_COLOUR,
        label=f"threshold {evaluation.threshold:.3g}",
        clip_on=False,
        zorder=3,
    )


def _draw_scores(axes: Any, evaluation: Evaluation, scores: Floats, labels: Floats) -> None:
    tidy(axes, "scores of both kinds", "score", "windows")
    for kind, name, colour in ((0, "noise", NOISE_COLOUR), (1, "event", EVENT_COLOUR)):
        counts, edges = np.histogram(scores[labels == kind], bins=25, range=(0, 1))
        axes.stairs(counts, edges, fill=True, facecolor=colour, alpha=0.25)
        axes.stairs(counts, edges, color=colour, linewidth=1.1, label=name)
    axes.axvline(evaluation.threshold, color=MARK_COLOUR, linewidth=1, linestyle="--")
    axes.set_xlim(-0.02, 1.02)
    axes.set_yscale("symlog", linthresh=1.0)  # a few windows among thousands are what matters
    axes.set_ylim(0, 3 * axes.get_ylim()[1])  # room for the legend
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.minorticks_off()
    small_legend(axes, "upper center", 2)


def _draw_confusion(axes: Any, evaluation: Evaluation) -> None:
    tidy(axes, f"windows at threshold {evaluation.threshold:.3g}", "scored as", "label")
    counts = np.array(evaluation.confusion).reshape(2, 2)
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.6, aspect="auto")
    for row, column in np.ndindex(2, 2):
        axes.text(
            column,
            row,
            f"{counts[row, column]:,}\n{in_percent(shares[row, column])}"
            if totals[row]
            else "none",
            fontsize=9,
            color=INK,
            ha="center",
            va="center",
        )
    axes.set_xticks([0, 1], ["noise", "event"])
    axes.set_yticks([0, 1], ["noise", "event"])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=8)


def _draw_calibration(axes: Any, evaluation: Evaluation) -> None:
    """Bins on the diagonal are honest; the larger a dot, the more windows are behind it."""
    calibration = evaluation.calibration
    title = f"calibration, expected error {calibration.expected_error:.3f}"
    tidy(axes, f"{title}, Brier {calibration.brier:.3f}", "mean score", "share of events")
    unit_square(axes)
    axes.plot([0, 1], [0, 1], color=PALE, linewidth=0.8, linestyle="--")
    there = calibration.count > 0
    x, y = calibration.mean_score[there], calibration.event_share[there]
    axes.plot(x, y, color=INK, linewidth=0.9)
    sizes = 12 + 120 * calibration.count[there] / calibration.count.max()
    axes.scatter(
        x, y, s=sizes, facecolor="white", edgecolor=INK, linewidth=1, zorder=3, clip_on=False
    )
    for score, share, count in zip(x, y, calibration.count[there], strict=True):
        below = share > 0.15
        axes.annotate(
            f"{count:,}",
            (score, share),
            xytext=(0, -8 if below else 8),
            textcoords="offset points",
            fontsize=6,
            color=GREY,
            ha="center",
            va="top" if below else "bottom",
        )


def _draw_thresholds(axes: Any, evaluation: Evaluation) -> None:
    best = evaluation.best_threshold
    title = "accuracy; F1 needs events and noise"
    if np.isfinite(best):
        title = f"best at {best:.3g}: F1 {in_digits(evaluation.best_f1)}"
        title += f", accuracy {in_percent(evaluation.best_accuracy)}"
    tidy(axes, title, "threshold", "accuracy, F1")
    curves = evaluation.curves
    x = np.concatenate([[1.0], curves.threshold[1:], [0.0]])
    for name, values, colour in (
        ("accuracy", curves.accuracy, NOISE_COLOUR),
        ("F1", curves.f1, EVENT_COLOUR),
    ):
        if name == "accuracy" or np.isfinite(best):
            y = np.append(values, values[-1])
            axes.plot(x, y, color=colour, linewidth=1.2, drawstyle="steps-pre", label=name)
    axes.axvline(evaluation.threshold, color=MARK_COLOUR, linewidth=1, linestyle="--", label="used")
    if np.isfinite(best):
        axes.axvline(best, color=INK, linewidth=1, linestyle=":", label="best")
    unit_square(axes)
    axes.set_ylim(-0.02, 1.16)  # room for the legend
    small_legend(axes, "upper center", 4)


def _draw_window(
    axes: Any, window: Array, label: float, score: float, threshold: float, name: Any
) -> None:
    wrong = (score >= threshold) != bool(label)
    kind, colour = ("event", EVENT_COLOUR) if label else ("noise", NOISE_COLOUR)
    axes.plot(window, color=colour, linewidth=0.6)
    axes.margins(x=0.01, y=0.08)
    head = {"fontsize": 7, "color": INK if wrong else GREY, "pad": 2.5}
    axes.set_title(f"{kind}, scored {score:.3f}", loc="left", **head)
    axes.set_title(f"#{name}", loc="right", **{**head, "fontsize": 6, "color": GREY})

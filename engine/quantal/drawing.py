"""What all pictures share: colours, a figure without a screen, labels, histograms, saving.

Nothing of matplotlib's global state is touched.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.disk import replacing
from quantal.layout import fenced

Floats = NDArray[np.float64]

DPI = 160  # 10 x 7.5 inches are 1600 x 1200 pixels
# Okabe and Ito's colours can be told apart by everyone.
INK, GREY, PALE = "#222222", "#808080", "#c9ced4"
PEAK, ONSET, FIT, BARS, SHADE = "#d55e00", "#0072b2", "#d55e00", "#56b4e9", "#f6efb0"


def blank(width: float, height: float, dpi: float = DPI) -> Any:
    """A Matplotlib figure of so many inches that needs no screen."""
    log = logging.getLogger("matplotlib")
    before = log.level
    log.setLevel(logging.ERROR)  # that nothing can be kept on disk is for the doctor to tell
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    finally:
        log.setLevel(before)
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, path: str | Path) -> None:
    """Write a figure as a PNG, whole or not at all; raises SaveError."""
    with replacing(path) as temporary, _unknown_letters():
        figure.savefig(temporary, format="png", dpi=figure.dpi)


@contextmanager
def _unknown_letters() -> Iterator[None]:
    """Without a warning of names in letters that the font lacks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def label_axes(axes: Any, x: str, y: str) -> None:
    """Axis labels; a dollar sign in a unit is not a formula."""
    axes.set_xlabel(x, fontsize=8, color=INK, parse_math=False, labelpad=2)
    axes.set_ylabel(y, fontsize=8, color=INK, parse_math=False)


def title_axes(axes: Any, text: str) -> None:
    """A title on the left that ends with its panel; a dollar sign in a name is not a formula."""
    title = axes.set_title(text, loc="left", fontsize=8, color=INK, pad=3, parse_math=False)
    with _unknown_letters():
        wide = title.get_window_extent().width / axes.get_window_extent().width
    title.set_fontsize(8 / max(wide, 1.0))


def write_corner(axes: Any, text: str) -> None:
    """A remark in the upper right corner, above the bars of a histogram."""
    axes.text(
        0.98,
        0.97,
        text,
        fontsize=7,
        color=INK,
        ha="right",
        va="top",
        transform=axes.transAxes,
    )


def say_none(axes: Any) -> None:
    """Axes in which there is nothing to draw."""
    axes.text(0.5, 0.5, "none", fontsize=9, color=GREY, ha="center", transform=axes.transAxes)
    axes.set_xticks([])
    axes.set_yticks([])


def draw_amplitudes(axes: Any, amplitude: Floats, unit: str) -> None:
    """The histogram of amplitudes, and their median, or one of each direction."""
    label_axes(axes, f"amplitude ({unit})", "events")
    amplitude = amplitude[np.isfinite(amplitude)]
    if not len(amplitude):
        say_none(axes)
        return
    _, beyond = draw_histogram(axes, amplitude, fenced(amplitude, 12.0))
    kinds = [kind for kind in (amplitude[amplitude < 0], amplitude[amplitude >= 0]) if len(kind)]
    middle = " and ".join(f"{np.median(kind):.3g}" for kind in kinds)
    n = f"n = {len(amplitude):,}"
    head = f"amplitude, {n}: median" if len(kinds) == 1 else f"{n}: medians"
    title_axes(axes, f"{head} {middle} {unit}")
    write_corner(axes, beyond)


def draw_histogram(axes: Any, values: Floats, limits: tuple[float, float]) -> tuple[Floats, str]:
    """Counts from 0 to the end of the limits; the bins' edges, and a word on values beyond."""
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    if not high > low:
        low, high = -1.0, 1.0
    inside = values[(values >= low) & (values <= high)]
    bins = int(np.clip(3 * np.cbrt(len(inside)), 8, 60))
    counts, edges = np.histogram(inside, bins=bins, range=(low, high))
    axes.stairs(counts, edges, fill=True, facecolor=BARS)
    axes.stairs(counts, edges, color=INK, linewidth=0.5)
    axes.set_xlim(low, high)
    axes.set_ylim(0, 1.18 * max(counts.max(), 1))
    axes.yaxis.get_major_locator().set_params(integer=True)
    beyond = len(values) - len(inside)
    return np.asarray(edges, np.float64), f"{beyond:,} off the axis" if beyond else ""

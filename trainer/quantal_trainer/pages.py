"""Pages of pictures: what the trainer's drawings share."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from quantal.layout import legible
from quantal.save import replacing

INK, GREY, PALE = "#222222", "#808080", "#c9ced4"
# Okabe and Ito's colours can be told apart by everyone.
EVENT_COLOUR, NOISE_COLOUR, MARK_COLOUR = "#d55e00", "#0072b2", "#009e73"
AS_READ = "as the network reads them (scaled, maybe turned over)"
_DPI = 160


def new_page(width: float, height: float, title: str, facts: str) -> Any:
    """An empty page of this many inches, with a title and a line of facts below it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    texts: dict[str, Any] = {"x": 0.4 / width, "color": INK, "va": "top", "parse_math": False}
    figure.text(y=1 - 0.17 / height, s=legible(title), fontsize=11, weight="bold", **texts)
    figure.text(y=1 - 0.42 / height, s=legible(facts, 160), fontsize=8, **texts)
    return figure


def save_page(figure: Any, path: str | Path) -> None:
    """Write a page as PNG; raises SaveError if that fails."""
    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a name in letters that the font lacks
        figure.savefig(temporary, format="png", dpi=_DPI)


def tidy(axes: Any, title: str, x: str, y: str) -> None:
    """Thin axes with a short title and labels."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(labelsize=7, colors=INK, color=GREY, length=2.5)
    axes.set_title(title, loc="left", fontsize=8, color=INK, pad=4)
    axes.set_xlabel(x, fontsize=8, color=INK, labelpad=2)
    axes.set_ylabel(y, fontsize=8, color=INK, labelpad=3)


def window_grid(figure: Any, count: int, across: int, *, bottom: float, cell: float) -> list[Any]:
    """Bare axes for windows, row by row from the top; bottom and cell (height) in inches."""
    width, height = figure.get_size_inches()
    left, right, gap_x, gap_y = 0.4, 0.15, 0.14, 0.26
    step = (width - left - right + gap_x) / across
    lines = -(-count // across)
    found = []
    for k in range(count):
        low = bottom + (lines - 1 - k // across) * cell
        box = (left + (k % across) * step, low, step - gap_x, cell - gap_y)
        axes = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_color(PALE)
        axes.spines[:].set_linewidth(0.6)
        found.append(axes)
    return found


def write_heading(figure: Any, y: float, text: str) -> None:
    width, height = figure.get_size_inches()
    figure.text(0.4 / width, y / height, text, fontsize=8, color=INK)


def unit_square(axes: Any) -> None:
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)


def small_legend(axes: Any, where: str, columns: int = 1) -> None:
    axes.legend(
        loc=where,
        ncols=columns,
        columnspacing=1.2,
        fontsize=7,
        framealpha=0.85,
        edgecolor="none",
        handlelength=1.6,
        labelcolor=INK,
        borderpad=0.2,
    )

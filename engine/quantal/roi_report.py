"""Rois and events -> one picture: traces to judge the detection by, average events, frequencies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.drawing import (
    BARS,
    GREY,
    INK,
    PEAK,
    blank,
    draw_amplitudes,
    label_axes,
    save_figure,
    say_none,
    title_axes,
)
from quantal.events import REJECTED, Events
from quantal.imaging import Rois
from quantal.layout import fenced, legible, median
from quantal.rois import RoiTable, rows_by_roi

Floats = NDArray[np.float64]

_INCHES = (10.0, 7.5)
_EXAMPLES = 7  # ROIs whose traces are drawn
_LONGEST_S = 60.0  # of a trace that is drawn
_BEFORE, _AFTER = 0.25, 0.75  # of the window, around the steepest rise, in average events
_HEIGHT = 600  # rows of the heat map that can be seen
_BARS_AT_MOST = 40


def draw_rois(
    rois: Rois, events: Events, table: RoiTable, path: str | Path, *, window_ms: float
) -> None:
    """Draw ROIs and their events into a PNG of 1600 x 1200 pixels.

    rois: dF/F or what else was searched. window_ms: how long an event is, about twelve decays.
    Raises SaveError if the file cannot be written.
    """
    figure = blank(*_INCHES)
    found = events[events.status != REJECTED]
    _write_header(figure, rois, found)
    boxes = {
        "examples": (0.065, 0.40, 0.555, 0.515),
        "heat": (0.70, 0.40, 0.235, 0.515),
        "raster": (0.065, 0.065, 0.255, 0.25),
        "frequency": (0.385, 0.065, 0.235, 0.25),
        "map": (0.70, 0.065, 0.235, 0.25),
    }
    axes = {name: figure.add_axes(box) for name, box in boxes.items()}
    for one in axes.values():
        one.spines[["top", "right"]].set_visible(False)
        one.spines[["left", "bottom"]].set_color(GREY)
        one.tick_params(labelsize=7, colors=INK, color=GREY, length=2.5)
    _draw_examples(axes["examples"], rois, found, table)
    _draw_heat(figure, axes["heat"], rois, found, window_ms)
    _draw_raster(axes["raster"], rois, found)
    _draw_frequencies(axes["frequency"], table)
    if np.isfinite(table.x_px).any():
        _draw_map(figure, axes["map"], table)
    else:
        draw_amplitudes(axes["map"], found.amplitude, rois.unit)
    save_figure(figure, path)


def average_events(
    rois: Rois, events: Events, window_ms: float
) -> tuple[Floats, NDArray[np.float64]]:
    """Time from the steepest rise (ms), and the average event of each ROI, (rois, times).

    Every event less its own baseline, at the nearest frame; nan for a ROI without any.
    """
    per_ms = rois.rate_hz / 1e3
    offsets = np.arange(
        -round(_BEFORE * window_ms * per_ms), round(_AFTER * window_ms * per_ms) + 1
    )
    average = np.full((len(rois), len(offsets)), np.nan)
    for row, chosen in enumerate(rows_by_roi(events, rois)):
        at = np.rint(events.location_s[chosen] * rois.rate_hz).astype(np.int64)
        base = events.baseline[chosen]
        inside = (at + offsets[0] >= 0) & (at + offsets[-1] < rois.samples.shape[1])
        inside &= np.isfinite(base)
        if inside.any():
            cut = rois.samples[row][at[inside, None] + offsets] - base[inside, None]
            average[row] = cut.mean(axis=0)
    return offsets / per_ms, average


def _write_header(figure: Any, rois: Rois, found: Events) -> None:
    name = legible(rois.recording) or "recording"
    active = sum(len(rows) > 0 for rows in rows_by_roi(found, rois))
    text = (
        f"{len(rois):,} ROIs, {rois.duration_s:,.4g} s at {rois.rate_hz:g} Hz, {len(found):,} "
        f"events in {active:,} of them"
    )
    figure.text(0.065, 0.975, name, fontsize=11, weight="bold", color=INK, parse_math=False)
    for y, line in ((0.957, text), (0.940, "; ".join(rois.notes))):
        figure.text(0.065, y, legible(line, 170), fontsize=8, color=INK, parse_math=False)


def _draw_examples(axes: Any, rois: Rois, found: Events, table: RoiTable) -> None:
    """Traces of ROIs from the most to the least active, every event marked at its peak."""
    order = np.argsort(-table.events, kind="stable")
    chosen = order[np.unique(np.linspace(0, len(rois) - 1, _EXAMPLES).astype(np.int64))]
    shown = min(rois.samples.shape[1], max(round(_LONGEST_S * rois.rate_hz), 2))
    time_s = np.arange(shown) / rois.rate_hz
    groups = rows_by_roi(found, rois)
    ticks = []
    limits = [fenced(rois.samples[row, :shown], 12.0) for row in chosen]
    step = float(np.nanmax([high - low for low, high in limits] + [1e-12]))
    for place, row in enumerate(chosen):
        middle = median(rois.samples[row, :shown].astype(np.float64))
        shift = -1.15 * place * step - (0.0 if np.isnan(middle) else middle)
        ticks.append(-1.15 * place * step)
        axes.plot(time_s, rois.samples[row, :shown] + shift, color=INK, linewidth=0.5)
        events = found[groups[row]]
        events = events[events.peak_s < time_s[-1]]
        axes.plot(
            events.peak_s,
            events.baseline + events.amplitude + shift,
            linestyle="",
            marker="o",
            markersize=3.5,
            markerfacecolor="none",
            color=PEAK,
        )
    axes.set_yticks(ticks, [str(rois.number[row]) for row in chosen])
    axes.set_xlim(0, time_s[-1])
    axes.set_ylim(ticks[-1] - 0.5 * step, 1.1 * step)
    label_axes(axes, "time (s)", "ROI")
    title_axes(
        axes,
        f"ROIs from most to least active{_how_much(rois, shown)}, steps of {1.15 * step:.2g} "
        f"{rois.unit}",
    )


def _how_much(rois: Rois, shown: int) -> str:
    """Which part of the traces is drawn; nothing where it is all."""
    if shown == rois.samples.shape[1]:
        return ""
    return f", the first {shown / rois.rate_hz:.3g} of {rois.duration_s:,.4g} s"


def _draw_heat(figure: Any, axes: Any, rois: Rois, found: Events, window_ms: float) -> None:
    """Average events, one row a ROI, those with the largest on top; more ROIs than rows share."""
    time_ms, average = average_events(rois, found, window_ms)
    average = average[np.isfinite(average).all(axis=1)]
    label_axes(axes, "time from the steepest rise (ms)", "ROIs with events")
    if not len(average):
        say_none(axes)
        return
    average = average[np.argsort(-np.abs(average).max(axis=1), kind="stable")]
    rows = np.array_split(average, min(len(average), _HEIGHT))
    image = np.stack([part.mean(axis=0) for part in rows])
    top = float(np.quantile(np.abs(image), 0.995)) or 1.0
    low = -top if image.min() < -0.5 * top else 0.0
    drawn = axes.imshow(
        image,
        aspect="auto",
        interpolation="nearest",
        cmap="RdBu_r" if low < 0 else "viridis",
        vmin=low,
        vmax=top,
        extent=(time_ms[0], time_ms[-1], len(average), 0),
    )
    axes.yaxis.get_major_locator().set_params(integer=True)
    title_axes(axes, f"average event of {len(average):,} ROI{'s' if len(average) > 1 else ''}")
    _colour_bar(figure, axes, drawn, rois.unit)


def _colour_bar(figure: Any, axes: Any, drawn: Any, label: str) -> None:
    box = axes.get_position()
    bar = figure.colorbar(drawn, cax=figure.add_axes((box.x1 + 0.008, box.y0, 0.01, box.height)))
    bar.ax.tick_params(labelsize=6, length=2)
    bar.outline.set_visible(False)
    bar.set_label(label, fontsize=7)


def _draw_raster(axes: Any, rois: Rois, found: Events) -> None:
    """Every event of every ROI: what is at one time in many of them is movement, or the network."""
    label_axes(axes, "time (s)", "ROI, in order")
    row = np.searchsorted(np.sort(rois.number), found.roi if found.roi is not None else [])
    size = float(np.clip(300 / len(rois), 1.0, 5.0))
    axes.plot(found.location_s, row, linestyle="", marker="|", markersize=size, color=INK)
    axes.set_xlim(0, rois.duration_s)
    axes.set_ylim(len(rois), -1)
    axes.yaxis.get_major_locator().set_params(integer=True)
    title_axes(axes, "all events")


def _draw_frequencies(axes: Any, table: RoiTable) -> None:
    """How many ROIs have which frequency, those without events apart."""
    known = table.frequency_hz[np.isfinite(table.frequency_hz)]
    label_axes(axes, "frequency (Hz)", "ROIs")
    if not len(known):
        say_none(axes)
        return
    active = known[known > 0]
    edges = _bins_of_whole_counts(table)
    counts, _ = np.histogram(active, edges)
    axes.stairs(counts, edges, fill=True, facecolor=BARS)
    axes.stairs(counts, edges, color=INK, linewidth=0.5)
    axes.set_ylim(0, 1.15 * max(counts.max(), 1))
    axes.set_xlim(0, edges[-1])
    axes.yaxis.get_major_locator().set_params(integer=True)
    silent = len(known) - len(active)
    middle = f"median {np.median(active):.2g} Hz, " if len(active) else ""
    title_axes(axes, f"{len(active):,} active ROIs: {middle}{silent:,} without")


def _bins_of_whole_counts(table: RoiTable) -> Floats:
    """Edges halfway between the frequencies of whole numbers of events: others look ragged."""
    longest_s = float(table.analysed_s.max())
    most = float(np.nanmax(table.frequency_hz)) * longest_s
    width = max(int(np.ceil(most / _BARS_AT_MOST)), 1)
    edges = 0.5 + width * np.arange(int(np.ceil(max(most, 1) / width)) + 1)
    return np.asarray(edges / longest_s, np.float64)


def _draw_map(figure: Any, axes: Any, table: RoiTable) -> None:
    """Every ROI where it lies, coloured by its frequency."""
    order = np.argsort(np.nan_to_num(table.frequency_hz), kind="stable")
    drawn = axes.scatter(
        table.x_px[order],
        table.y_px[order],
        c=np.nan_to_num(table.frequency_hz[order]),
        s=float(np.clip(3_000 / len(table), 2, 30)),
        cmap="viridis",
        linewidths=0,
    )
    axes.set_aspect("equal", adjustable="datalim")
    axes.invert_yaxis()
    label_axes(axes, "x (pixels)", "y (pixels)")
    title_axes(axes, "where they lie")
    _colour_bar(figure, axes, drawn, "Hz")

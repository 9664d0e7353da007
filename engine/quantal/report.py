"""Traces and events -> one picture, from which the eye can judge the detection.

On top the whole recording, below it stretches of it in which every event is marked, at the bottom
the average event and the distributions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.average import AverageEvent
from quantal.drawing import (
    FIT,
    GREY,
    INK,
    ONSET,
    PALE,
    PEAK,
    SHADE,
    blank,
    draw_amplitudes,
    draw_histogram,
    label_axes,
    save_figure,
    say_none,
    title_axes,
    write_corner,
)
from quantal.events import REJECTED, Events
from quantal.layout import (
    LEAST_CERTAIN,
    Piece,
    Stretch,
    Strip,
    choose_stretches,
    lay_out,
    legible,
    limits_of,
    median,
)
from quantal.trace import Trace

Floats = NDArray[np.float64]
Levels = NDArray[np.floating[Any]]

_INCHES = (10.0, 7.5)
_COLUMNS = 1_460  # pixels across a trace: more points than two each cannot be seen
_SCORES, _SCORE_WIDTH = 6, 0.025  # written at most, and the part of a stretch that one takes
_ALIGNED, _AVERAGED = 100, 2_000  # events drawn one by one; and at most averaged here


def draw_report(
    traces: Sequence[Trace],
    events: Events,
    path: str | Path,
    *,
    average: AverageEvent | None = None,
    title: str = "",
) -> None:
    """Draw a recording and its events into a PNG of 1600 x 1200 pixels.

    The traces of one channel (the first trace's) are drawn, end to end. average: the average event,
    pointing as the events do; None draws a mean without a fit. title: empty for the recording's.
    Raises UsageError if no trace holds samples, SaveError if the file cannot be written.
    """
    strip = lay_out(traces, events)
    stretches = choose_stretches(strip)
    figure = blank(*_INCHES)
    top, rows, bottom = _make_axes(figure, len(stretches))
    _write_header(figure, strip, title)
    _draw_overview(top, strip)
    for axes, stretch in zip(rows, stretches, strict=True):
        _draw_stretch(axes, strip, stretch)
        label_axes(axes, "time (s)" if axes is rows[-1] else "", strip.unit)
    _draw_average(bottom[0], strip, average)
    draw_amplitudes(bottom[1], strip.found.amplitude, strip.unit)
    _draw_intervals(bottom[2], strip)
    save_figure(figure, path)


def _make_axes(figure: Any, stretches: int) -> tuple[Any, list[Any], list[Any]]:
    """The overview, the stretches below it, and three panels at the bottom."""
    left, width = 0.065, 0.915
    top = figure.add_axes((left, 0.803, width, 0.108))
    low, high, gap = 0.36, 0.737, 0.043
    height = (high - low + gap) / stretches - gap
    rows = [
        figure.add_axes((left, high - (k + 1) * height - k * gap, width, height))
        for k in range(stretches)
    ]
    third, space = 0.258, 0.073
    bottom = [figure.add_axes((left + k * (third + space), 0.06, third, 0.225)) for k in range(3)]
    for axes in (top, *rows, *bottom):
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(GREY)
        axes.tick_params(labelsize=7, colors=INK, color=GREY, length=2.5)
        axes.ticklabel_format(useOffset=False)
        axes.yaxis.get_offset_text().set(x=-0.065 if axes in bottom else -0.04, fontsize=7)
    return top, rows, bottom


def _write_header(figure: Any, strip: Strip, title: str) -> None:
    trace = strip.pieces[0].trace
    name = legible(title) or legible(trace.recording) or "recording"
    figure.text(0.065, 0.968, name, fontsize=11, weight="bold", color=INK, parse_math=False)
    many = len(strip.pieces)
    seconds = sum(piece.trace.duration_s for piece in strip.pieces)
    parts = [
        f"channel {legible(trace.channel, 30)}" if trace.channel else "",
        f"{many} sweeps" if many > 1 else "",
        f"{seconds:,.4g} s at {_rate(trace.rate_hz)}",
        _how_many(strip),
        f"{strip.others} traces of other channels are not drawn" if strip.others else "",
    ]
    text = ", ".join(part for part in parts if part)
    figure.text(0.065, 0.945, text, fontsize=8, color=INK, parse_math=False)
    _draw_legend(figure, strip)


def _rate(rate_hz: float) -> str:
    return f"{rate_hz / 1000:.6g} kHz" if rate_hz >= 1000 else f"{rate_hz:.6g} Hz"


def _how_many(strip: Strip) -> str:
    found = len(strip.found)
    rejected = len(strip.events) - found
    searched_s = sum(
        (len(piece.trace) - piece.trace.unwanted().total) / piece.trace.rate_hz
        for piece in strip.pieces
    )
    text = f"{found:,} event{'' if found == 1 else 's'}" if found else "no events"
    if found and searched_s > 0:
        text += f" ({found / searched_s:.3g} per searched second)"
    return text + (f", {rejected:,} rejected" if rejected else "")


def _draw_legend(figure: Any, strip: Strip) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = []
    if len(strip.found):
        handles += [
            Line2D([], [], **_ONSET_MARK, label="onset, baseline"),
            Line2D([], [], **_PEAK_MARK, label="peak"),
        ]
    if not np.isfinite(strip.found.peak_s).all():
        handles.append(Line2D([], [], **_UNMEASURED_MARK, label="not measured"))
    if len(strip.found) < len(strip.events):
        handles.append(Line2D([], [], **_REJECTED_MARK, label="rejected"))
    if any(piece.trace.excluded for piece in strip.pieces):
        handles.append(Patch(facecolor=SHADE, label="excluded"))
    if handles:
        figure.legend(
            handles=handles,
            loc="upper right",
            bbox_to_anchor=(0.99, 0.99),
            ncols=len(handles),
            fontsize=7.5,
            frameon=False,
            handletextpad=0.3,
            columnspacing=1.2,
        )


_ONSET_MARK: dict[str, Any] = {
    "linestyle": "",
    "marker": "|",
    "markersize": 6,
    "markeredgewidth": 1.2,
    "color": ONSET,
}
_PEAK_MARK: dict[str, Any] = {
    "linestyle": "",
    "marker": "o",
    "markersize": 4.2,
    "markeredgewidth": 0.9,
    "markerfacecolor": "none",
    "color": PEAK,
}
_UNMEASURED_MARK: dict[str, Any] = {
    "linestyle": "",
    "marker": "D",
    "markersize": 3.6,
    "markeredgewidth": 0.9,
    "markerfacecolor": "none",
    "color": ONSET,
}
_REJECTED_MARK: dict[str, Any] = {
    "linestyle": "",
    "marker": "x",
    "markersize": 4.5,
    "markeredgewidth": 0.9,
    "color": GREY,
}


def _draw_overview(axes: Any, strip: Strip) -> None:
    """The whole recording: between what levels each pixel's samples lie, and the events' peaks."""
    start_s, stop_s = strip.span
    per_s = _COLUMNS / (stop_s - start_s)
    for piece in strip.pieces:
        shift_s = piece.shift_s
        columns = max(round(piece.trace.duration_s * per_s), 2)
        _draw_samples(axes, piece.trace, shift_s, columns, GREY)
        _shade(axes, piece.trace, shift_s)
        found = piece.events[piece.events.status != REJECTED]
        found = _largest_per_pixel(found, per_s)
        axes.plot(
            found.peak_s + shift_s,
            _peaks(found),
            linestyle="",
            marker=".",
            markersize=3,
            markeredgewidth=0,
            color=PEAK,
            zorder=3,
        )
    _draw_sweeps(axes, strip)
    axes.set_xlim(start_s, stop_s)
    axes.set_ylim(strip.limits)
    several = len(strip.pieces) > 1
    label_axes(axes, "time (s), sweeps end to end" if several else "time (s)", strip.unit)
    if not several:
        title_axes(axes, "whole recording")


def _largest_per_pixel(events: Events, per_s: float) -> Events:
    """Of the events that would be drawn over each other, the largest."""
    if not len(events):
        return events
    pixel = np.floor(np.nan_to_num(events.peak_s) * per_s)
    order = np.lexsort((-np.abs(events.amplitude), pixel))
    return events[order[np.unique(pixel[order], return_index=True)[1]]]


def _draw_sweeps(axes: Any, strip: Strip) -> None:
    """Where each sweep begins and which it is, as long as that can be read."""
    if not 1 < len(strip.pieces) <= 60:
        return
    starts = [piece.trace.start_s + piece.shift_s for piece in strip.pieces]
    across = axes.get_xaxis_transform()
    axes.vlines(starts[1:], 0, 1, color=INK, linewidth=0.5, transform=across)
    above = {"fontsize": 6, "color": INK, "ha": "center"}
    axes.text(-0.004, 1.02, "sweep", transform=axes.transAxes, **{**above, "ha": "right"})
    for start_s, piece in zip(starts, strip.pieces, strict=True):
        middle_s = start_s + piece.trace.duration_s / 2
        axes.text(middle_s, 1.02, str(piece.trace.sweep), transform=across, **above)


def _shade(axes: Any, trace: Trace, shift_s: float) -> None:
    spans = [(start + shift_s, stop - start) for start, stop in trace.excluded]
    if spans:
        axes.broken_barh(
            spans, (0, 1), transform=axes.get_xaxis_transform(), facecolor=SHADE, zorder=0
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class _Pixels:
    """Samples binned to pixels: their middle (s), lowest, highest and mean."""

    time_s: Levels
    low: Levels
    high: Levels
    mean: Levels


def _pixels(trace: Trace, columns: int) -> _Pixels:
    samples = trace.samples
    if not np.isfinite(samples).all():
        samples = np.where(np.isfinite(samples), samples, np.float32(np.nan))
    edges = np.linspace(0, len(samples), columns + 1).astype(np.int64)
    first = edges[:-1]
    return _Pixels(
        time_s=trace.start_s + 0.5 * (first + edges[1:] - 1) / trace.rate_hz,
        low=np.fmin.reduceat(samples, first),
        high=np.fmax.reduceat(samples, first),
        mean=np.add.reduceat(samples, first) / np.diff(edges).astype(np.float32),
    )


def _draw_samples(axes: Any, trace: Trace, shift_s: float, columns: int, colour: str) -> None:
    """Every sample, or where there are more than pixels the range of each pixel's."""
    if len(trace) <= 2 * columns:
        time_s = trace.start_s + shift_s + np.arange(len(trace)) / trace.rate_hz
        axes.plot(time_s, trace.samples, color=colour, linewidth=0.6)
        return
    pixels = _pixels(trace, columns)
    levels = np.stack([pixels.low, pixels.high], axis=1).ravel()
    axes.plot(np.repeat(pixels.time_s + shift_s, 2), levels, color=colour, linewidth=0.5)


def _draw_stretch(axes: Any, strip: Strip, stretch: Stretch) -> None:
    """A stretch of the trace with the onset and peak of every event."""
    trace = stretch.piece.trace
    part = trace.between(stretch.start_s, stretch.stop_s)
    if len(part) > 2 * _COLUMNS:
        axes.set_title(
            "grey: samples; black: their mean", loc="right", fontsize=7, color=GREY, pad=3
        )
        _draw_samples(axes, part, 0.0, _COLUMNS, PALE)
        pixels = _pixels(part, _COLUMNS)
        axes.plot(pixels.time_s, pixels.mean, color=INK, linewidth=0.7)
    else:
        _draw_samples(axes, part, 0.0, _COLUMNS, INK)
    _shade(axes, part, 0.0)
    events = stretch.piece.events
    inside = (events.location_s >= stretch.start_s) & (events.location_s < stretch.stop_s)
    shown = events[inside]
    found, rejected = shown[shown.status != REJECTED], shown[shown.status == REJECTED]
    axes.plot(found.onset_s, found.baseline, **_ONSET_MARK, zorder=3)
    axes.plot(found.peak_s, _peaks(found), **_PEAK_MARK, zorder=4)
    axes.plot(rejected.peak_s, _peaks(rejected), **_REJECTED_MARK, zorder=4)
    unknown = found[~np.isfinite(found.peak_s)]
    at = np.clip(np.rint((unknown.location_s - part.start_s) * part.rate_hz), 0, len(part) - 1)
    axes.plot(unknown.location_s, part.samples[at.astype(int)], **_UNMEASURED_MARK, zorder=4)
    axes.set_xlim(stretch.start_s, stretch.stop_s)
    axes.set_ylim(limits_of([part], shown))
    if stretch.why == LEAST_CERTAIN:
        _write_scores(axes, found, f"{np.median(strip.found.score):.2f}")
    several = f"sweep {trace.sweep}, " if len(strip.pieces) > 1 else ""
    count = f", {len(found)} event{'' if len(found) == 1 else 's'}" if len(found) else ""
    title_axes(axes, f"{stretch.why}: {several}{_seconds(stretch.stop_s - stretch.start_s)}{count}")


def _write_scores(axes: Any, events: Events, usual: str) -> None:
    """The lowest scores, beside the peaks, where they are not the usual one; none over another."""
    measured = events[np.isfinite(events.peak_s)]
    low, high = axes.get_xlim()
    apart = _SCORE_WIDTH * (high - low)
    written: list[float] = []
    for k in np.argsort(measured.score, kind="stable")[:_SCORES]:
        x, text = float(measured.peak_s[k]), f"{measured.score[k]:.2f}"
        if text == usual or any(abs(x - other) < apart for other in written):
            continue
        written.append(x)
        up = measured.polarity[k] > 0
        axes.annotate(
            text,
            (np.clip(x, low + apart / 2, high - apart / 2), _peaks(measured)[k]),
            xytext=(0, 4 if up else -4),
            textcoords="offset points",
            fontsize=6,
            color=PEAK,
            ha="center",
            va="bottom" if up else "top",
        )


def _peaks(events: Events) -> Floats:
    """Levels of the peaks."""
    peaks: Floats = events.baseline + events.amplitude
    return peaks


def _seconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _draw_intervals(axes: Any, strip: Strip) -> None:
    """Intervals beside what they would be if events came independently of each other."""
    interval = strip.found.interval_s
    interval = interval[np.isfinite(interval)]
    if not len(interval):
        label_axes(axes, "interval (s)", "events")
        say_none(axes)
        return
    longest = float(np.quantile(interval, 0.99)) if len(interval) > 20 else float(interval.max())
    scale, unit = (1000.0, "ms") if longest < 1 else (1.0, "s")
    edges, beyond = draw_histogram(axes, scale * interval, (0.0, scale * longest))
    mean = scale * float(interval.mean())
    if len(interval) > 20:
        expected = len(interval) * -np.diff(np.exp(-edges / mean))
        axes.plot(0.5 * (edges[1:] + edges[:-1]), expected, color=INK, linewidth=1, linestyle="--")
        axes.set_ylim(0, max(axes.get_ylim()[1], 1.18 * expected.max()))
        write_corner(axes, f"dashed: exponential of the same mean\n{beyond}")
    label_axes(axes, f"interval ({unit})", "events")
    title_axes(axes, f"interval, n = {len(interval):,}: mean {mean:.3g} {unit}")


def _draw_average(axes: Any, strip: Strip, average: AverageEvent | None) -> None:
    """The average event and the exponential of its decay, over some of the events behind it."""
    label_axes(axes, "time from the steepest rise (ms)", strip.unit)
    if average is not None and not average.n:
        average = None
    time_ms, rows = _aligned(strip, average)
    if not len(rows) and average is None:
        say_none(axes)
        return
    _draw_aligned(axes, time_ms, rows)
    if average is None:
        mean = rows.mean(axis=0)
        axes.plot(time_ms, mean, color=INK, linewidth=1.6)
        title_axes(axes, f"mean of {len(rows):,} event{'' if len(rows) == 1 else 's'}")
    else:
        time_ms, mean = average.time_ms, average.waveform
        axes.plot(time_ms, mean, color=INK, linewidth=1.6)
        _draw_fit(axes, average)
        kind = " isolated" if average.isolated else ""
        plural = "" if average.n == 1 else "s"
        grey = min(len(rows), _ALIGNED)
        title_axes(axes, f"average of {average.n:,}{kind} event{plural}, {grey} in grey")
    levels = np.concatenate([mean, np.quantile(rows, [0.005, 0.995]) if rows.size else mean])
    margin = 0.08 * float(np.ptp(levels)) or 1.0
    axes.set_xlim(time_ms[0], time_ms[-1])
    axes.set_ylim(levels.min() - margin, levels.max() + margin)


def _draw_aligned(axes: Any, time_ms: Floats, rows: Levels) -> None:
    from matplotlib.collections import LineCollection

    lines = [np.column_stack([time_ms, row]) for row in rows[_spread(len(rows), _ALIGNED)]]
    axes.add_collection(LineCollection(lines, colors=PALE, linewidths=0.4, alpha=0.6))


def _spread(n: int, most: int) -> NDArray[np.int64]:
    """Some positions out of n, evenly spread."""
    return np.linspace(0, n - 1, min(n, most)).astype(np.int64)


def _draw_fit(axes: Any, average: AverageEvent) -> None:
    if not np.isfinite(average.tau_decay_ms):
        return
    axes.plot(average.time_ms, average.fit, color=FIT, linewidth=1.4, linestyle=(0, (4, 2)))
    upward = average.waveform[np.argmax(np.abs(average.waveform))] > 0
    axes.text(
        0.97,
        0.93 if upward else 0.07,
        f"fit: τ = {average.tau_decay_ms:.3g} ms",
        fontsize=8,
        color=FIT,
        ha="right",
        va="top" if upward else "bottom",
        bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 1.5},
        transform=axes.transAxes,
    )


def _aligned(strip: Strip, average: AverageEvent | None) -> tuple[Floats, Levels]:
    """Time (ms) and samples (events, times), aligned at the steepest rise, less their baseline.

    Events of the average's direction (without it, of the commoner one) that are clear of others.
    """
    rate_hz = strip.pieces[0].trace.rate_hz
    if average is None:
        width_s = median(strip.found.half_width_ms) / 1000
        width_s = width_s if width_s > 0 else 50 / rate_hz
        sign = 1 if strip.found.polarity.sum() > 0 else -1
        before, after = round(2 * width_s * rate_hz), round(6 * width_s * rate_hz)
    else:
        sign = int(np.sign(average.waveform[np.argmax(np.abs(average.waveform))]))
        ends_s = average.time_ms[[0, -1]] / 1000
        before, after = (round(float(abs(end_s)) * rate_hz) for end_s in ends_s)
    window = np.arange(-before, after + 1)
    pieces = [piece for piece in strip.pieces if piece.trace.rate_hz == rate_hz]
    most = -(-_AVERAGED // len(pieces))
    rows = [_cut(piece, window, sign, most) for piece in pieces]
    return 1000 * window / rate_hz, np.concatenate(rows)


def _cut(piece: Piece, window: NDArray[np.int64], sign: int, most: int) -> Levels:
    """The samples around events of one direction that lie alone, less their baselines."""
    trace, events = piece.trace, piece.events
    at = np.round((events.location_s - trace.start_s) * trace.rate_hz).astype(np.int64)
    whole = (at + window[0] >= 0) & (at + window[-1] < len(trace))
    gaps = np.diff(at, prepend=-len(trace), append=2 * len(trace))
    alone = np.minimum(gaps[:-1], gaps[1:]) > window[-1]
    clear = whole & alone & (events.polarity == sign) & (events.status != REJECTED)
    chosen = np.flatnonzero(clear)
    chosen = chosen[_spread(len(chosen), most)]
    rows = trace.samples[at[chosen][:, None] + window] - events.baseline[chosen][:, None]
    return np.asarray(rows[np.isfinite(rows).all(axis=1)])

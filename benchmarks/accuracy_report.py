"""Tables and picture of the accuracy benchmark, from whatever results are there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from accuracy_parts import FIXED_MS, HIGH, LOW, PARTS, PERCENTS
from detectors import IDEAL, MINIML, SLOW
from reference_scenes import MODEL_CELL, shared_folder
from scenes import MEASURES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Result = dict[str, Any]
Grouped = dict[str, dict[str, dict[str, list[Result]]]]  # part, row, detector: one for each seed

_LAST = (IDEAL, MINIML)  # columns after those of the detectors that are compared
_PLAIN = ("snr", "decay", "rise", "rate", "conditions", "spectra", "rates", "apart", "real")
_LOCATED = ("snr", "decay", "rise", "rates", "apart")

ABOUT = """
Precision and recall stand in brackets behind F1; ± is the standard error over recordings. A found
event is true if it lies within 3 ms (or the decay constant, where that is longer; half the
distance in pairs) of a true event's steepest rise as recorded, one to one. Amplitudes are
log-normal (variance 0.4), decays scatter by 25 %, rises by 10 %. Every detector has its default
threshold. Those that read windows or have a template are told the time scale, a window of 12 mean
decay constants; trace networks are told nothing. The ideal observer is told the mean waveform and
the spectrum of the noise, and has the threshold and the least distance of events that are best in
each recording; in noise that is not Gaussian, among artefacts or where events differ from their
mean it is no upper bound.
MiniAnalysis, which the paper compares too, is closed software and cannot be run here.
"""


def grouped(results: dict[str, Result]) -> Grouped:
    """Results by part, row and detector, in the order in which the benchmark has them."""
    shared = shared_folder()
    parts: Grouped = {}
    for part, plan in PARTS.items():
        there = [r for r in results.values() if r["part"] == part and len(r) > len(_EMPTY)]
        rows = dict.fromkeys(case.row for case in plan.cases(shared, 1)) or dict.fromkeys(
            r["row"] for r in there
        )
        for row in rows:
            for result in sorted((r for r in there if r["row"] == row), key=lambda r: r["seed"]):
                by_detector = parts.setdefault(part, {}).setdefault(row, {})
                by_detector.setdefault(result["detector"], []).append(result)
    return parts


_EMPTY = ("part", "row", "seed", "detector", "stamp", "miniml_f1", "ideal_f1")


def columns(rows: dict[str, dict[str, list[Result]]]) -> list[str]:
    """The detectors of a part, the ideal observer and miniML last."""
    names = dict.fromkeys(name for by_detector in rows.values() for name in by_detector)
    return sorted(names, key=lambda name: _LAST.index(name) + 1 if name in _LAST else 0)


def tables(results: dict[str, Result]) -> list[str]:
    """All tables of what is there, as lines of Markdown."""
    parts = grouped(results)
    lines = [*ABOUT.splitlines(), *slow_note(parts)]
    if "sweep" in parts:
        lines += sweep_table(parts["sweep"])
    for part in filter(parts.__contains__, _PLAIN):
        lines += table(PARTS[part].title, "", parts[part], f1_cell)
    if "overlap" in parts:
        lines += table(PARTS["overlap"].title, "share with both found; F1", parts["overlap"], pair)
    if "false" in parts:
        what = "false events a minute (of the model cell: all that were found)"
        lines += table(PARTS["false"].title, what, parts["false"], false_cell)
    located = {
        f"{part}: {row}": found
        for part in filter(parts.__contains__, _LOCATED)
        for row, found in parts[part].items()
    }
    if located:
        what = "median distance of found events from the steepest rise, ms"
        lines += table("Location", what, located, off_cell)
    if "auto" in parts:
        what = "F1; in brackets at the best of the fixed windows, and which that is"
        lines += table(PARTS["auto"].title, what, parts["auto"], auto_cell)
    if "threshold" in parts:
        lines += threshold_table(parts["threshold"])
    if "kinetics" in parts:
        lines += kinetics_table(parts["kinetics"])
    return lines


def slow_note(parts: Grouped) -> list[str]:
    """Which detectors were given less."""
    there = {name for rows in parts.values() for found in rows.values() for name in found}
    return [
        f"The {name} detector is slow: it was given the first {seconds:g} s of each recording, but "
        "the whole of those in the first table."
        for name, seconds in SLOW.items()
        if name in there
    ]


def table(
    title: str,
    what: str,
    rows: dict[str, dict[str, list[Result]]],
    cell: Callable[[list[Result]], str],
) -> list[str]:
    """A table with a row for each kind of recording and a column for each detector."""
    names = columns(rows)
    head = f"{title}: {what}" if what else title
    lines = ["", f"## {head}", "", f"| | {' | '.join(names)} |", "| --- |" + " --- |" * len(names)]
    for row, found in rows.items():
        cells = [cell(found[name]) if name in found else "-" for name in names]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return lines


def mean_sem(values: Iterable[float]) -> tuple[float, float]:
    """Mean and its standard error (nan of a single value), without what is nan."""
    kept = np.array([value for value in values if np.isfinite(value)], np.float64)
    if not len(kept):
        return np.nan, np.nan
    sem = kept.std(ddof=1) / np.sqrt(len(kept)) if len(kept) > 1 else np.nan
    return float(kept.mean()), float(sem)


def f1(result: Result) -> float:
    """F1 of a recording; nan where there is no event, true or found."""
    return ratio(2 * result["hits"], result["true"] + result["found"])


def ratio(part: float, whole: float) -> float:
    """A share; nan of nothing."""
    return part / whole if whole else np.nan


def precision_of(found: list[Result]) -> float:
    """The share of all found events that are true ones."""
    return ratio(sum(r["hits"] for r in found), sum(r["found"] for r in found))


def recall_of(found: list[Result]) -> float:
    """The share of all true events that were found."""
    return ratio(sum(r["hits"] for r in found), sum(r["true"] for r in found))


def number(value: float, digits: int = 2) -> str:
    """A number, or a dash where there is none."""
    return f"{value:.{digits}f}" if np.isfinite(value) else "-"


def with_error(mean: float, sem: float, digits: int = 2) -> str:
    """A mean with its standard error, where there is one."""
    return number(mean, digits) + (f" ± {sem:.{digits}f}" if np.isfinite(sem) else "")


def f1_cell(found: list[Result]) -> str:
    """F1 (precision, recall)."""
    both = f"({number(precision_of(found))}, {number(recall_of(found))})"
    return f"{with_error(*mean_sem(map(f1, found)))} {both}"


def both_found(result: Result) -> float:
    """The share of pairs of which both events were found."""
    return ratio(result["both"], result["pairs"])


def pair(found: list[Result]) -> str:
    """Share of pairs with both found; F1."""
    return f"{with_error(*mean_sem(map(both_found, found)))}; {number(mean_sem(map(f1, found))[0])}"


def false_cell(found: list[Result]) -> str:
    """False events a minute; of the model cell their number."""
    if found[0]["row"] == MODEL_CELL:
        return f"{sum(r['found'] for r in found)} in {len(found)} sweeps"
    return with_error(*mean_sem(60 * r["found"] / r["recorded_s"] for r in found), 1)


def off_cell(found: list[Result]) -> str:
    """Location error of a detector in a kind of recording, ms."""
    return number(mean_sem(r["off_ms"] for r in found if r["off_ms"] is not None)[0], 3)


def auto_cell(found: list[Result]) -> str:
    """F1 with `--window-ms auto`, the best mean F1 of a fixed window, and that window."""
    fixed = [
        mean_sem(f1({**r, "found": r["fixed"][k][0], "hits": r["fixed"][k][1]}) for r in found)[0]
        for k in range(len(FIXED_MS))
    ]
    best = int(np.nanargmax(fixed))
    return f"{with_error(*mean_sem(map(f1, found)))} ({fixed[best]:.2f} at {FIXED_MS[best]:g} ms)"


def share(result: Result) -> float:
    """How far F1 has come from miniML's to the ideal observer's."""
    miniml, ideal = float(result["miniml_f1"]), float(result["ideal_f1"])
    return (f1(result) - miniml) / (ideal - miniml)


def sweep_table(rows: dict[str, dict[str, list[Result]]]) -> list[str]:
    """F1 of the reference's eleven recordings, and the share of the way to the ideal."""
    names = [name for name in columns(rows) if name != MINIML]
    head = " | ".join(names)
    lines = [
        "",
        f"## {PARTS['sweep'].title}",
        "",
        "miniML 1.1 (at the better of two windows chosen by hand) and the ideal are those of the "
        "reference's table. In brackets: the share of the way from one to the other, (F1 - "
        "miniML) / (ideal - miniML). The ideal observer of this benchmark takes away what it has "
        "found before it looks on, and so does a little better than the reference's where events "
        "are slow. Matched within 3 ms of the onset.",
        "",
        f"| decay, amplitude/SD | true | miniML 1.1 | ideal, reference | {head} |",
        "| --- | --- | --- | --- |" + " --- |" * len(names),
    ]
    for row, found in rows.items():
        about = next(iter(found.values()))[0]
        cells = [
            f"{f1(found[n][0]):.3f} ({share(found[n][0]):.2f})" if n in found else "-"
            for n in names
        ]
        lines.append(
            f"| {row} | {about['true']} | {about['miniml_f1']:.3f} | {about['ideal_f1']:.3f} | "
            f"{' | '.join(cells)} |"
        )
    every = [next(iter(found.values()))[0] for found in rows.values()]
    means = []
    for name in names:
        own = [found[name][0] for found in rows.values() if name in found]
        means.append(f"{np.mean([*map(f1, own)]):.3f} ({np.mean([*map(share, own)]):.2f})")
    miniml, ideal = (np.mean([one[k] for one in every]) for k in ("miniml_f1", "ideal_f1"))
    lines.append(f"| mean | | {miniml:.3f} | {ideal:.3f} | {' | '.join(means)} |")
    return lines


def f1_at(result: Result, percent: int) -> float:
    """F1 at so many per cent of the default threshold."""
    found, hits = result["thresholds"][PERCENTS.index(percent)]
    return ratio(2 * hits, result["true"] + found)


def end_f1(result: Result, end: str) -> float:
    """F1 of a network at the low or the high end of its thresholds."""
    found, hits = result[end]
    return ratio(2 * hits, result["true"] + found)


def loss(result: Result) -> float:
    """What F1 differs by between the two ends."""
    return abs(end_f1(result, "high") - end_f1(result, "low"))


def threshold_table(rows: dict[str, dict[str, list[Result]]]) -> list[str]:
    """F1 over the threshold, and what networks lose between 0.1 and 0.9."""
    (found,) = rows.values()
    names = columns(rows)
    lines = [
        "",
        f"## {PARTS['threshold'].title}: F1 by threshold, in % of each detector's own",
        "",
        "Thresholds of networks are kept within 0.02 and 0.98.",
        "",
        f"| % | {' | '.join(names)} |",
        "| --- |" + " --- |" * len(names),
    ]
    for percent in PERCENTS:
        cells = [with_error(*mean_sem(f1_at(r, percent) for r in found[name])) for name in names]
        lines.append(f"| {percent} | {' | '.join(cells)} |")
    lines += [
        "",
        f"| network | F1 at {LOW} | at {HIGH} | difference |",
        "| --- | --- | --- | --- |",
    ]
    for name in names:
        if "low" in found[name][0]:
            cells = [
                with_error(*mean_sem(value(r) for r in found[name]))
                for value in (lambda r: end_f1(r, "low"), lambda r: end_f1(r, "high"), loss)
            ]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def kinetics_table(rows: dict[str, dict[str, list[Result]]]) -> list[str]:
    """Errors of every measure."""
    lines = [
        "",
        f"## {PARTS['kinetics'].title}: median relative error (signed; absolute) of true events "
        "that were found",
        "",
        "All but miniML 1.1 are measured by the same means; they differ in the events that they "
        "find and in where they put them.",
        "",
        f"| recording | detector | F1 (precision, recall) | {' | '.join(MEASURES)} |",
        "| --- | --- | --- |" + " --- |" * len(MEASURES),
    ]
    names = columns(rows)
    for row, found in rows.items():
        for name in filter(found.__contains__, names):
            cells = [errors(found[name], measure) for measure in MEASURES]
            lines.append(f"| {row} | {name} | {f1_cell(found[name])} | {' | '.join(cells)} |")
    return lines


def errors(found: list[Result], measure: str) -> str:
    """Signed and absolute error of a measure, averaged over recordings."""
    known = [r["errors"][measure] for r in found if r.get("errors", {}).get(measure)]
    if not known:
        return "-"
    signed, absolute = np.mean(known, axis=0)
    return f"{signed:+.2f}; {absolute:.2f}"


# The picture -------------------------------------------------------------------------------------

_COLOURS = {IDEAL: "#000000", MINIML: "#999999", "cnn-lstm": "#0072b2", "minis": "#d55e00"}
_OTHERS = ("#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#7f3fbf")


def draw(results: dict[str, Result], path: Path) -> None:
    """Recall, precision and F1 over amplitude, F1 over kinetics, rate, pairs and threshold."""
    from matplotlib.figure import Figure

    parts = grouped(results)
    figure = Figure(figsize=(15, 7.5), layout="constrained")
    axes = figure.subplots(2, 4)
    colours = colours_of(parts)
    snr, decay, rate, overlap = (parts.get(p, {}) for p in ("snr", "decay", "rate", "overlap"))
    lines(axes[0, 0], snr, colours, one_by_one(recall_of), "mean amplitude / noise SD", "recall")
    lines(
        axes[0, 1], snr, colours, one_by_one(precision_of), "mean amplitude / noise SD", "precision"
    )
    lines(axes[0, 2], snr, colours, f1, "mean amplitude / noise SD", "F1")
    draw_sweep(axes[0, 3], parts.get("sweep", {}), colours)
    lines(axes[1, 0], decay, colours, f1, "decay constant (ms)", "F1")
    lines(axes[1, 1], rate, colours, f1, "events a second", "F1")
    lines(axes[1, 2], overlap, colours, both_found, "distance of pairs (ms)", "both found")
    draw_thresholds(axes[1, 3], parts.get("threshold", {}), colours)
    handles = [
        axes[0, 0].plot([], [], color=colour, marker="o", ms=4, label=name)[0]
        for name, colour in colours.items()
    ]
    figure.legend(handles=handles, frameon=False, ncols=len(handles), loc="outside upper center")
    figure.savefig(path, dpi=110)


def one_by_one(of_many: Callable[[list[Result]], float]) -> Callable[[Result], float]:
    """The same of one recording."""
    return lambda result: of_many([result])


def colours_of(parts: Grouped) -> dict[str, str]:
    """A colour for each detector, always the same for those that are known."""
    names = columns({part: {name: [] for name in columns(rows)} for part, rows in parts.items()})
    others = iter(_OTHERS * 3)
    return {name: _COLOURS.get(name) or next(others) for name in names}


def lines(
    axes: Axes,
    rows: dict[str, dict[str, list[Result]]],
    colours: dict[str, str],
    value: Callable[[Result], float],
    xlabel: str,
    ylabel: str,
) -> None:
    """A value over what the rows are named after, a line for each detector."""
    for name, colour in colours.items():
        own = [row for row in rows if name in rows[row]]
        if own:
            means, sems = zip(
                *(mean_sem(value(r) for r in rows[row][name]) for row in own), strict=True
            )
            line(axes, [float(row) for row in own], means, sems, name, colour)
    axes.set_xscale("log")
    axes.set_xticks([float(row) for row in rows], list(rows))
    axes.minorticks_off()
    axes.set_ylim(-0.03, 1.05)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)


def line(
    axes: Axes,
    x: list[float],
    means: tuple[float, ...],
    sems: tuple[float, ...],
    name: str,
    colour: str,
) -> None:
    """Means with their standard errors; the ideal observer's are dashed."""
    bars = [sem if np.isfinite(sem) else 0.0 for sem in sems]
    style = "--" if name == IDEAL else "-"
    axes.errorbar(x, means, bars, color=colour, ls=style, marker="o", ms=3.5, lw=1.3, capsize=2)


def draw_sweep(
    axes: Axes, rows: dict[str, dict[str, list[Result]]], colours: dict[str, str]
) -> None:
    """F1 of the reference's recordings, one column each."""
    places = range(len(rows))
    for name, colour in colours.items():
        own = [(i, f1(found[name][0])) for i, found in enumerate(rows.values()) if name in found]
        if own:
            axes.plot(*zip(*own, strict=True), "_" if name == IDEAL else "o", color=colour, ms=5)
    first = [next(iter(found.values()))[0] for found in rows.values()]
    axes.plot(places, [r["miniml_f1"] for r in first], "s", color=_COLOURS[MINIML], ms=6)
    axes.set_xticks(places, list(rows), rotation=60, ha="right", fontsize=7)
    axes.set_ylim(-0.03, 1.05)
    axes.set_xlabel("decay, amplitude/SD (squares: miniML 1.1)")
    axes.set_ylabel("F1, reference recordings")


def draw_thresholds(
    axes: Axes, rows: dict[str, dict[str, list[Result]]], colours: dict[str, str]
) -> None:
    """F1 over the threshold."""
    for found in rows.values():
        for name in filter(found.__contains__, colours):
            pairs = [mean_sem(f1_at(r, percent) for r in found[name]) for percent in PERCENTS]
            means, sems = zip(*pairs, strict=True)
            line(axes, [float(p) for p in PERCENTS], means, sems, name, colours[name])
    axes.axvline(100, color="0.8", lw=0.8, zorder=0)
    axes.set_ylim(-0.03, 1.05)
    axes.set_xlabel("threshold (% of the default)")
    axes.set_ylabel("F1")

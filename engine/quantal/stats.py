"""Groups of recordings compared, in the manner of O'Neill et al. (2025), eLife 13:RP98485.

Each recording counts once, by its frequency and the medians of its events. Two groups are compared
by a permutation test of their means and by Cohen's d with a bootstrapped interval that is corrected
for bias and acceleration (Ho et al. 2019, Nature Methods 16:565).
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.batch import DONE, STATUS, TABLES
from quantal.disk import move_together, scratch_folder
from quantal.drawing import GREY, INK, blank, save_figure
from quantal.errors import ReadError, UsageError
from quantal.lot import GROUP
from quantal.readers.recording import shortened
from quantal.save import load_table, save_table
from quantal.tables import unit_of

Floats = NDArray[np.float64]

MEASURES = (
    "frequency_hz",
    "amplitude_median",
    "rise_10_90_ms_median",
    "half_decay_ms_median",
    "half_width_ms_median",
    "area_median",
)
RESAMPLES = 5_000
_OF_UNIT, _IN_UNIT = ("amplitude", "area", "slope"), ("_mean", "_median", "_sd")
_FEWEST = 3  # recordings of a group: with fewer nothing can be said of its scatter
_MANY = 1 / 20  # part of the resamples
_RED = "#d55e00"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One measure in two groups. What cannot be had, as with too few recordings, is nan.

    difference: mean of the group less that of the control. cohens_d: the difference in units of the
    pooled SD. d_low, d_high: its 95 % interval, of the resamples in which anything scatters.
    p: two-sided, of the permutation test; it knows nothing of other comparisons. note: why there
    is no interval, or how much of the resamples it leaves out if that is a twentieth or more.
    """

    measure: str
    control: str
    group: str
    n_control: int
    n: int
    mean_control: float
    sd_control: float
    mean: float
    sd: float
    difference: float
    cohens_d: float
    d_low: float
    d_high: float
    p: float
    note: str


@dataclass(frozen=True, eq=False, kw_only=True)
class Comparisons:
    """All comparisons; of each measure the values by group, and of each row the bootstrapped d."""

    rows: tuple[Comparison, ...]
    values: dict[str, dict[str, Floats]]
    bootstrapped: tuple[Floats, ...]

    def columns(self) -> dict[str, NDArray[Any]]:
        """The comparisons as columns of a table."""
        return {
            f.name: np.array([getattr(row, f.name) for row in self.rows])
            for f in fields(Comparison)
        }


def compare(
    values: Mapping[str, Mapping[str, Floats]],
    *,
    control: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparisons:
    """Compare groups, each with the control, or all pairs of them if that is None.

    values: of each measure and group, one number per recording; nan ones are left out. resamples:
    reshuffles of the permutation test, which tries all where there are fewer, and samples of the
    bootstrap. Raises UsageError.
    """
    groups = list(dict.fromkeys(name for by_group in values.values() for name in by_group))
    if len(groups) < 2:
        raise UsageError(f"there must be two groups to compare, got {', '.join(groups) or 'none'}.")
    if control is not None and control not in groups:
        raise UsageError(f"there is no group {control!r}; there are {', '.join(groups)}.")
    if resamples < 100:
        raise UsageError(f"resamples must be 100 or more, got {resamples}; try {RESAMPLES}.")
    pairs = (
        list(combinations(groups, 2))
        if control is None
        else [(control, group) for group in groups if group != control]
    )
    known = {
        measure: {name: np.asarray(v)[np.isfinite(v)] for name, v in by_group.items()}
        for measure, by_group in values.items()
    }
    compared = [
        _compare(measure, pair, by_group, resamples, seed)
        for measure, by_group in known.items()
        for pair in pairs
    ]
    return Comparisons(
        rows=tuple(row for row, _ in compared),
        values=known,
        bootstrapped=tuple(sample for _, sample in compared),
    )


def _compare(
    measure: str, pair: tuple[str, str], by_group: Mapping[str, Floats], resamples: int, seed: int
) -> tuple[Comparison, Floats]:
    first, second = (by_group.get(name, np.empty(0)) for name in pair)
    enough = min(len(first), len(second)) >= _FEWEST
    low, high, sample, note = _interval(first, second, resamples, seed) if enough else _NO_INTERVAL
    mean_control, sd_control = _mean_and_sd(first)
    mean, sd = _mean_and_sd(second)
    row = Comparison(
        measure=measure,
        control=pair[0],
        group=pair[1],
        n_control=len(first),
        n=len(second),
        mean_control=mean_control,
        sd_control=sd_control,
        mean=mean,
        sd=sd,
        difference=mean - mean_control,
        cohens_d=float(cohens_d(first, second)) if enough else math.nan,
        d_low=low,
        d_high=high,
        p=_permuted(first, second, resamples, seed) if enough else math.nan,
        note=note,
    )
    return row, sample


_NO_INTERVAL = (math.nan, math.nan, np.empty(0), f"fewer than {_FEWEST} recordings in a group")


def _mean_and_sd(values: Floats) -> tuple[float, float]:
    mean = float(values.mean()) if len(values) else math.nan
    return mean, float(values.std(ddof=1)) if len(values) > 1 else math.nan


def cohens_d(first: Floats, second: Floats, axis: int = -1) -> Any:
    """Mean of the second less that of the first, over their pooled SD; nan if nothing scatters."""
    n, m = first.shape[axis], second.shape[axis]
    squares = (n - 1) * first.var(axis=axis, ddof=1) + (m - 1) * second.var(axis=axis, ddof=1)
    pooled = np.sqrt(squares / (n + m - 2))
    difference = second.mean(axis=axis) - first.mean(axis=axis)
    # The SD of equal values is often not quite 0, and d by it would be huge.
    scatters = (np.ptp(first, axis=axis) > 0) | (np.ptp(second, axis=axis) > 0)
    known = scatters & (pooled > 0)
    return np.divide(difference, pooled, out=np.full_like(pooled, np.nan), where=known)


def _permuted(first: Floats, second: Floats, resamples: int, seed: int) -> float:
    from scipy.stats import permutation_test

    def difference(a: Floats, b: Floats, axis: int) -> Floats:
        return np.asarray(b.mean(axis=axis) - a.mean(axis=axis))

    found = permutation_test(
        (first, second),
        difference,
        n_resamples=resamples,
        vectorized=True,
        random_state=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def _interval(
    first: Floats, second: Floats, resamples: int, seed: int
) -> tuple[float, float, Floats, str]:
    """The 95 % interval of Cohen's d, its bootstrap distribution, and what is to be said of it.

    In small groups some resamples hold one recording again and again: there is no d in them, and
    they are left out.
    """
    from scipy.stats import bootstrap

    def of(resamples: int, known: Any = None) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # where values do not scatter, nan says all
            return bootstrap(
                (first, second),
                cohens_d,
                n_resamples=resamples,
                bootstrap_result=known,
                vectorized=True,
                method="BCa",
                random_state=np.random.default_rng(seed),
            )

    found = of(resamples)
    sample = found.bootstrap_distribution[np.isfinite(found.bootstrap_distribution)]
    if not len(sample):
        return math.nan, math.nan, sample, "nothing scatters"
    left_out = resamples - len(sample)
    if left_out:
        found = of(0, replace(found, bootstrap_distribution=sample))
    low, high = map(float, found.confidence_interval)
    if not (math.isfinite(low) and math.isfinite(high)):
        return math.nan, math.nan, sample, "too few different values for an interval"
    many = left_out >= _MANY * resamples
    note = f"{left_out} of {resamples} resamples left out, nothing scatters in them" if many else ""
    return low, high, sample, note


# From and to files


def run_stats(
    results: Path,
    *,
    measures: Sequence[str] = (),
    column: str = GROUP,
    control: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    out: Path | None = None,
) -> tuple[Comparisons, dict[str, str]]:
    """Compare the groups of a batch and write stats.csv and stats.png; returns also their paths.

    results: the folder of a batch, or its table of recordings. column: what groups them.
    Raises UsageError, ReadError or SaveError.
    """
    table = _table_of(results)
    texts = load_table(table)
    values = values_by_group(texts, table, measures or MEASURES, column)
    found = compare(values, control=control, resamples=resamples, seed=seed)
    folder = out or table.parent
    names = {"table": "stats.csv", "picture": "stats.png"}
    with scratch_folder(folder) as desk:
        save_table(found.columns(), desk / names["table"])
        draw_stats(found, desk / names["picture"], unit=_unit_of_all(texts))
        move_together([desk / name for name in names.values()], folder)
    return found, {key: str(folder / name) for key, name in names.items()}


def _table_of(results: Path) -> Path:
    if results.is_file():
        return results
    for suffix in TABLES:
        table = results / f"recordings.{suffix}"
        if table.is_file():
            return table
    raise ReadError(f"{results} holds no recordings.csv; make it with: quantal batch FOLDER")


def values_by_group(
    table: Mapping[str, Sequence[str]], path: Path, measures: Sequence[str], column: str
) -> dict[str, dict[str, Floats]]:
    """Of each measure and group, one number per recording that is done; nan where there is none.

    Recordings without a group are left out. Raises UsageError for a column that is not there or
    that holds no numbers.
    """
    for name in (STATUS, column, *measures):
        if name not in table:
            raise UsageError(f"{path} has no column {name!r}; it has {shortened([*table], 40)}.")
    kept = [
        row
        for row, (status, group) in enumerate(zip(table[STATUS], table[column], strict=True))
        if status == DONE and group
    ]
    _refuse_mixed_units({table["unit"][row] for row in kept if "unit" in table}, measures)
    groups = sorted({table[column][row] for row in kept})
    return {
        measure: {
            group: _numbers([table[measure][r] for r in kept if table[column][r] == group], measure)
            for group in groups
        }
        for measure in measures
    }


def _unit_of_all(table: Mapping[str, Sequence[str]]) -> str:
    """The unit of all recordings; nothing where they have several."""
    units = set(table.get("unit", ())) - {""}  # of one that failed
    return units.pop() if len(units) == 1 else ""


def _in_unit(measure: str) -> bool:
    """Whether a measure is in the trace's unit."""
    return measure.endswith(_IN_UNIT) and any(part in measure for part in _OF_UNIT)


def _refuse_mixed_units(units: set[str], measures: Sequence[str]) -> None:
    """Raises UsageError for a measure that is in the trace's unit where these are several."""
    for measure in measures:
        if _in_unit(measure) and len(units) > 1:
            raise UsageError(
                f"{measure} cannot be compared: recordings have the units "
                f"{', '.join(sorted(units))}. Choose others, such as --measure frequency_hz, or "
                "make a batch of each unit."
            )


def _numbers(texts: Sequence[str], measure: str) -> Floats:
    try:
        return np.array([float(text) if text else math.nan for text in texts])
    except ValueError:
        raise UsageError(f"{measure} holds no numbers, and cannot be compared.") from None


def render(found: Comparisons) -> str:
    """The comparisons as lines of text."""
    lines = [
        _line("measure", "control -> group", "n", "means", "d [95 %]", "p"),
        *(text for row in found.rows for text in _lines(row)),
    ]
    return "\n".join(lines)


def _lines(row: Comparison) -> list[str]:
    """A comparison, and what is to be said of it."""
    means = " -> ".join("-" if math.isnan(m) else f"{m:.3g}" for m in (row.mean_control, row.mean))
    d = f"{row.cohens_d:+.2f} [{row.d_low:+.2f}, {row.d_high:+.2f}]".replace("+nan", "-")
    pair, n = f"{row.control} -> {row.group}", f"{row.n_control}, {row.n}"
    line = _line(row.measure, pair, n, means, d, _p(row))
    return [line, f"{'':22} {row.note}"] if row.note else [line]


def _line(measure: str, pair: str, n: str, means: str, d: str, p: str) -> str:
    return f"{measure:22} {pair:20} {n:>7}  {means:18}  {d:20}  {p}".rstrip()


def _p(row: Comparison) -> str:
    return "-" if math.isnan(row.p) else f"{row.p:.2g}"


# The picture


def draw_stats(found: Comparisons, path: Path, *, unit: str = "") -> None:
    """Every recording by group with mean and SD, and below Cohen's d as it was bootstrapped.

    unit: of the traces, to be written beside what is in it.
    """
    measures = list(found.values)
    across = min(len(measures), 3)
    down = -(-len(measures) // across)
    figure = blank(1.0 + 3.0 * across, 0.4 + 4.2 * down)
    grid = figure.add_gridspec(2 * down, across, height_ratios=[3, 2] * down)
    for k, measure in enumerate(measures):
        row, column = divmod(k, across)
        above = figure.add_subplot(grid[2 * row, column])
        below = figure.add_subplot(grid[2 * row + 1, column])
        chosen = [i for i, one in enumerate(found.rows) if one.measure == measure]
        _draw_values(above, _control_first(found, measure), _titled(measure, unit))
        _draw_effects(below, [(found.rows[i], found.bootstrapped[i]) for i in chosen])
        for axes in (above, below):
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=7, colors=INK, color=GREY, length=2.5)
    figure.set_layout_engine("constrained")
    save_figure(figure, path)


def _control_first(found: Comparisons, measure: str) -> dict[str, Floats]:
    """The values by group, those of a control that all are compared with first."""
    controls = {row.control for row in found.rows}
    by_group = found.values[measure]
    return {k: by_group[k] for k in sorted(by_group, key=lambda k: {k} != controls)}


def _titled(measure: str, unit: str) -> str:
    """A measure with its unit, where its name has none."""
    if not _in_unit(measure):
        return measure
    column = re.sub(r"_[a-z]+$", "", measure.removeprefix("negative_").removeprefix("positive_"))
    own = unit_of(column, unit) if unit else ""
    return f"{measure} ({own})" if own else measure


def _draw_values(axes: Any, by_group: Mapping[str, Floats], title: str) -> None:
    rng = np.random.default_rng(0)
    for k, values in enumerate(by_group.values()):
        spread = rng.uniform(-0.12, 0.12, len(values))
        axes.plot(
            k + spread, values, linestyle="", marker="o", markersize=3.5, alpha=0.6, color=GREY
        )
        if len(values):
            mean, sd = _mean_and_sd(values)
            axes.errorbar(k + 0.28, mean, yerr=sd, marker="o", markersize=4, color=INK, capsize=2)
    labels = [f"{name}\nn = {len(values)}" for name, values in by_group.items()]
    axes.set_xticks(range(len(labels)), labels, parse_math=False)
    axes.set_xlim(-0.5, len(labels) - 0.3)
    axes.set_title(title, loc="left", fontsize=8, color=INK, parse_math=False)


def _draw_effects(axes: Any, rows: Sequence[tuple[Comparison, Floats]]) -> None:
    axes.axhline(0, color=GREY, linewidth=0.6)
    for k, (row, sample) in enumerate(rows):
        if len(sample) and np.ptp(sample) > 0:
            low, high = np.quantile(sample, [0.005, 0.995])
            counts, edges = np.histogram(sample, bins=40, range=(low, high))
            middle = 0.5 * (edges[1:] + edges[:-1])
            axes.fill_betweenx(
                middle, k, k + 0.35 * counts / counts.max(), facecolor=_RED, alpha=0.35, linewidth=0
            )
        axes.plot([k, k], [row.d_low, row.d_high], color=INK, linewidth=1.4)
        axes.plot([k], [row.cohens_d], marker="o", markersize=4.5, color=INK)
    labels = [f"{row.group} - {row.control}\np = {row.p:.2g}" for row, _ in rows]
    axes.set_xticks(range(len(labels)), labels, parse_math=False)
    axes.set_xlim(-0.5, len(labels) - 0.3)
    axes.set_ylabel("Cohen's d", fontsize=8, color=INK)

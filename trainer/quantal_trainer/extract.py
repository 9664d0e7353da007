"""Recordings -> candidate windows for scoring: clear events, unclear ones, and pure noise.

A template is slid along each recording (Clements and Bekkers 1997), and where it fits is measured
against the SD that the fit has by chance in that recording, so that the same thresholds serve
quiet and noisy ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal import __version__
from quantal.classical import template_criterion
from quantal.errors import UsageError
from quantal.filters import resample
from quantal.noise import robust_sd
from quantal.scan import SIGNS
from quantal.simulate import biexponential
from quantal.trace import Trace, checked_trace, is_finite
from quantal_trainer.datasets import EVENT, EXCLUDED, NOISE, Dataset, polarity, resized

Array = NDArray[np.float32]
Floats = NDArray[np.float64]
Places = NDArray[np.int64]
Mask = NDArray[np.bool_]

KINDS = {"clear": EVENT, "unclear": EXCLUDED, "noise": NOISE}  # and the score before a look at it

# In windows: a window of 600 samples stands for about twelve decay time constants.
_RISE, _DECAY = 1 / 60, 1 / 12
_BASELINE, _TEMPLATE = 0.06, 0.5  # of a template: before its onset, and in all
_ONSET, _JITTER = 0.35, 0.12  # where in its window an event begins, and how far from there at most
_CLOSEST = 0.25  # candidates closer than this are one
_TRACES = (0.1, 0.75)  # before and after the onset of a candidate there is no pure noise
_HINTS = (0.1, 0.2)  # nor before and after what might be a beginning
_BRIEFER = 3  # so many times shorter is the shortest event that pure noise must not hold
_SHORTEST = 30  # samples in a window
_ENOUGH = 1_000_000  # values tell their SD


@dataclass(frozen=True, kw_only=True)
class Template:
    """An event as it is looked for: pointing up, of unit peak, beginning at sample `onset`."""

    shape: Floats
    onset: int


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """What fits how well, in SD that the criterion has by chance in the recording.

    high: from here on a candidate is clear. middle: from here to high it is unclear.
    low: all through a stretch of pure noise it stays below this.
    """

    high: float = 6.0
    middle: float = 3.5
    low: float = 2.5

    def __post_init__(self) -> None:
        if not all(is_finite(v) for v in (self.high, self.middle, self.low)) or not (
            self.high > self.middle >= self.low > 0
        ):
            raise UsageError(
                "thresholds must be high > middle >= low > 0 SD, such as 6, 3.5 and 2.5, "
                f"got {self.high!r}, {self.middle!r} and {self.low!r}."
            )


def extract(
    traces: Sequence[Trace],
    *,
    window_ms: float,
    direction: str = "negative",
    per_cell: int = 200,
    template: Template | Dataset | ArrayLike | None = None,
    high: float = 6.0,
    middle: float = 3.5,
    low: float = 2.5,
    seed: int = 0,
    cell_of: Callable[[Trace], str] | None = None,
) -> Dataset:
    """Candidate windows of recordings, to be scored: clear, unclear and noise, a third each.

    window_ms: about twelve decay time constants of the events. direction: which way they point.
    per_cell: windows of each cell at most, spread over its sweeps; fewer where it has fewer.
    template: None derives it from window_ms; or events, as `template_from` takes them.
    high, middle, low: see Thresholds. cell_of: the cell of a trace; None is its recording, so that
    recordings of the same name in different folders need it.

    Clear windows come with score 1, noise with 0, unclear ones with 2 until somebody looks. An
    event begins at 0.23 to 0.47 of its window. Windows are in the trace's own unit and direction,
    at the rate of the first trace, to which others are resampled; none holds missing or excluded
    samples. raw_indices count along all traces of a cell laid end to end in the order given (at
    that rate), so that a cell and an index are one place.

    Raises UsageError if traces differ in unit or too much in rate, if a cell has no stretch as
    long as a window, and if there is no candidate at all.
    """
    thresholds = Thresholds(high=high, middle=middle, low=low)
    sign, share = _sign(direction), _share(per_cell)
    sweeps = _same_clock(traces)
    rate_hz, unit = sweeps[0].rate_hz, sweeps[0].unit
    width = _width(window_ms, rate_hz)
    search = _Search(
        template=_as_template(template, width, rate_hz),
        width=width,
        sign=sign,
        thresholds=thresholds,
        share=share,
    )
    rng = np.random.default_rng(seed)
    found = [_search_cell(cell, of, search, rng) for cell, of in _by_cell(sweeps, cell_of).items()]
    _refuse_nothing(found, thresholds, direction)
    return Dataset(
        windows=np.concatenate([part.windows for part in found]),
        scores=np.concatenate([[KINDS[kind] for kind in part.kinds] for part in found]),
        rate_hz=rate_hz,
        unit=unit,
        cells=np.concatenate([np.full(len(part.kinds), part.cell) for part in found]),
        raw_indices=np.concatenate([part.places for part in found]),
        kinds=np.concatenate([part.kinds for part in found]),
        provenance={
            "extracted_from": sorted({_name(trace) for trace in traces}),
            "window_ms": float(window_ms),
            "direction": direction,
            "per_cell": int(per_cell),
            "template": "window" if template is None else "events",
            "thresholds_sd": asdict(thresholds),
            "seed": seed,
            "quantal": __version__,
        },
    )


# Templates ---------------------------------------------------------------------------------------


def window_template(width: int) -> Template:
    """The event that a window of this many samples is made for: biexponential, decay a twelfth."""
    onset = round(_BASELINE * width)
    event = biexponential(1.0, _RISE * width, _DECAY * width)
    shape = np.concatenate([np.zeros(onset), event])[: max(round(_TEMPLATE * width), 8)]
    return Template(shape=np.asarray(shape, np.float64), onset=onset)


def template_from(events: Dataset | ArrayLike, *, rate_hz: float | None = None) -> Template:
    """A template from chosen events: the average of a dataset's windows scored 1, or a waveform.

    The windows are aligned first, and of their average the part from a little baseline to half a
    window is taken. rate_hz: the rate to have it at; None is the dataset's own. A waveform is
    taken whole and at the rate that it has; which way it points does not matter.

    Raises UsageError if there is no event, or nothing that begins and peaks.
    """
    if not isinstance(events, Dataset):
        return _normalised(np.asarray(events, np.float64))
    chosen = events.labelled()
    chosen = chosen[chosen.scores == EVENT]
    sign = SIGNS[polarity(chosen)]
    average = _aligned_average(sign * chosen.windows.astype(np.float64))
    if rate_hz is not None:
        length = round(len(average) * rate_hz / events.rate_hz)
        average = resized(average[None].astype(np.float32), length)[0].astype(np.float64)
    whole = _normalised(average)
    first = max(whole.onset - round(_BASELINE * len(average)), 0)
    return _normalised(average[first : first + round(_TEMPLATE * len(average))])


def _aligned_average(upward: Floats, rounds: int = 4) -> Floats:
    """The mean of windows, each moved by up to a quarter to fit the mean of the round before."""
    rows = upward - np.median(upward, axis=1, keepdims=True)
    rows /= np.maximum(rows.std(axis=1, keepdims=True), 1e-12)
    n = rows.shape[1]
    reach = n // 4
    lags = np.arange(-reach, reach + 1)
    spectra = np.fft.rfft(rows, 2 * n)
    moved = rows
    for _ in range(rounds):
        mean = moved.mean(axis=0)
        fits = np.fft.irfft(spectra * np.conj(np.fft.rfft(mean - mean.mean(), 2 * n)), 2 * n)
        lag = lags[fits[:, lags].argmax(axis=1)]
        lag -= int(np.median(lag))  # the mean must not wander off
        places = np.clip(np.arange(n) + lag[:, None], 0, n - 1)
        moved = np.take_along_axis(rows, places, axis=1)
    found = np.take_along_axis(upward, places, axis=1).mean(axis=0)
    return np.asarray(found, np.float64)


def _normalised(waveform: Floats) -> Template:
    """A waveform as a template: its start at 0, its largest deflection from there at 1."""
    if waveform.ndim != 1 or len(waveform) < 12 or not np.isfinite(waveform).all():
        raise UsageError(
            "a template must be at least 12 finite samples in one dimension, "
            f"got shape {waveform.shape}."
        )
    start = float(np.median(waveform[: max(len(waveform) // 20, 1)]))
    shape = waveform - start
    peak = int(np.abs(shape).argmax())
    if not 0 < peak < 0.8 * len(shape):
        raise UsageError(
            "a template must begin before its peak and fall after it: give it some baseline "
            "before the onset, and most of the decay."
        )
    shape = shape / shape[peak]
    before = np.flatnonzero(shape[:peak] < 0.1)
    return Template(shape=shape, onset=int(before[-1]) if len(before) else 0)


def _as_template(
    template: Template | Dataset | ArrayLike | None, width: int, rate_hz: float
) -> Template:
    if template is None:
        return window_template(width)
    if not isinstance(template, Template):
        return _as_template(template_from(template, rate_hz=rate_hz), width, rate_hz)
    if len(template.shape) > width:
        raise UsageError(
            f"the template has {len(template.shape)} samples, more than a window of {width}: give "
            "a longer window_ms or cut the template's end."
        )
    return template


# Recordings --------------------------------------------------------------------------------------


def _sign(direction: str) -> int:
    if direction not in SIGNS:
        raise UsageError(f"direction must be one of {', '.join(SIGNS)}, got {direction!r}.")
    return SIGNS[direction]


def _share(per_cell: int) -> int:
    """Windows of each kind from one cell."""
    least = len(KINDS)
    if not (is_finite(per_cell) and per_cell % 1 == 0 and per_cell >= least):
        raise UsageError(f"per_cell must be at least {least} windows, got {per_cell!r}; try 200.")
    return int(per_cell) // len(KINDS)


def _width(window_ms: float, rate_hz: float) -> int:
    """Samples in a window."""
    if not (is_finite(window_ms) and window_ms > 0):
        raise UsageError(f"window_ms must be a positive number of milliseconds, got {window_ms!r}.")
    width = round(window_ms * rate_hz / 1000)
    if width < _SHORTEST:
        raise UsageError(
            f"a window of {window_ms:g} ms has {width} samples at {rate_hz:g} Hz; it needs at "
            f"least {_SHORTEST}, so at least {1000 * _SHORTEST / rate_hz:g} ms. A window should "
            "span about 12 decay time constants of the events."
        )
    return width


def _same_clock(traces: Sequence[Trace]) -> list[Trace]:
    """The traces, those of another rate resampled to the first one's."""
    if isinstance(traces, Trace) or not len(traces):
        raise UsageError("give a list of at least one trace, such as quantal.read('cell.abf').")
    first = checked_trace(traces[0])
    for trace in traces:
        if checked_trace(trace).unit != first.unit:
            raise UsageError(
                f"{_name(trace)} is in {trace.unit!r}, {_name(first)} in {first.unit!r}: extract "
                "from recordings of one unit at a time."
            )
    return [_at_rate(trace, first.rate_hz) for trace in traces]


def _at_rate(trace: Trace, rate_hz: float) -> Trace:
    ratio = Fraction(rate_hz / trace.rate_hz).limit_denominator(200)
    if ratio == 1 and abs(trace.rate_hz / rate_hz - 1) < 1e-3:
        return trace
    exact = ratio > 0 and abs(float(ratio) * trace.rate_hz / rate_hz - 1) < 1e-3
    if not exact or max(ratio, 1 / ratio) > 20:
        raise UsageError(
            f"{_name(trace)} was sampled at {trace.rate_hz:g} Hz, the first recording at "
            f"{rate_hz:g} Hz: they are too far apart for one dataset; extract from each alone."
        )
    samples = resample(trace.samples, ratio.numerator, ratio.denominator)
    return replace(trace, samples=samples, rate_hz=rate_hz)


def _name(trace: Trace) -> str:
    return trace.recording or "recording"


def _by_cell(
    traces: Sequence[Trace], cell_of: Callable[[Trace], str] | None
) -> dict[str, list[Trace]]:
    cells: dict[str, list[Trace]] = {}
    for trace in traces:
        label = _name(trace) if cell_of is None else str(cell_of(trace))
        cells.setdefault(label, []).append(trace)
    return cells


# Candidates of one cell --------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Search:
    """What is looked for: template, samples in a window, which way, and windows of each kind."""

    template: Template
    width: int
    sign: int
    thresholds: Thresholds
    share: int


@dataclass(frozen=True, eq=False, kw_only=True)
class _Strip:
    """All sweeps of a cell end to end.

    fit: how well an event that begins at a sample fits, in SD; nan where that cannot be said.
    brief: the same of a much shorter event. open: whether a window that starts at a sample lies
    in one sweep and in what is usable of it.
    """

    samples: Array
    fit: Array
    brief: Array
    open: Mask


@dataclass(frozen=True, eq=False, kw_only=True)
class _Found:
    """Windows of one cell in order of place, and the best fit that there was anywhere."""

    cell: str
    windows: Array
    kinds: NDArray[np.str_]
    places: Places
    best: float


def _search_cell(
    cell: str, sweeps: Sequence[Trace], search: _Search, rng: np.random.Generator
) -> _Found:
    strip = _lay_out(cell, sweeps, search)
    onsets, fits = _candidates(strip.fit, search)
    starts = _around(onsets, search.width, rng)
    whole = _inside(strip.open, starts)
    clear = fits >= search.thresholds.high
    picked = [_spread(starts[whole & some], search.share, rng) for some in (clear, ~clear)]
    quiet = strip.open & _quiet(strip, onsets, np.concatenate(picked), search)
    picked.append(_spread(_tiles(quiet, search.width, rng), search.share, rng))
    places = np.concatenate(picked)
    order = np.argsort(places, kind="stable")
    return _Found(
        cell=cell,
        windows=strip.samples[places[order, None] + np.arange(search.width)],
        kinds=np.repeat(list(KINDS), [len(some) for some in picked])[order],
        places=places[order],
        best=float(np.max(strip.fit, initial=-np.inf, where=np.isfinite(strip.fit))),
    )


def _lay_out(cell: str, sweeps: Sequence[Trace], search: _Search) -> _Strip:
    """The sweeps end to end; raises UsageError if there is no room for a window."""
    usable = [_usable(trace, search.width) for trace in sweeps]
    opened = [_windows_in(part, search.width) for part in usable]
    if not any(part.any() for part in opened):
        longest_s = max(trace.duration_s for trace in sweeps)
        raise UsageError(
            f"{cell} has no stretch as long as a window "
            f"({1e3 * search.width / sweeps[0].rate_hz:g} ms) that is recorded, not excluded and "
            f"not constant; its longest sweep has {1e3 * longest_s:g} ms. Try a shorter "
            "window_ms, or leave the recording out."
        )
    fit, brief = (
        [_fit(t.samples, part, shape, search.sign) for t, part in zip(sweeps, usable, strict=True)]
        for shape in (search.template, _briefer(search.template))
    )
    return _Strip(
        samples=np.concatenate([trace.samples for trace in sweeps]),
        fit=_in_sd(np.concatenate(fit)),
        brief=_in_sd(np.concatenate(brief)),
        open=np.concatenate(opened),
    )


def _briefer(template: Template) -> Template:
    """The template in a third of the time."""
    n = len(template.shape)
    at = np.linspace(0, n - 1, max(n // _BRIEFER, 4))
    return Template(
        shape=np.interp(at, np.arange(n), template.shape), onset=template.onset // _BRIEFER
    )


def _fit(samples: Array, usable: Mask, template: Template, sign: int) -> Array:
    """The criterion of an event that begins at each sample; nan where it cannot be said."""
    upward = np.where(usable, np.float32(sign) * samples, np.float32(np.nan))
    at_onset = np.full(len(samples), np.nan, np.float32)
    criterion = template_criterion(upward, template.shape)
    at_onset[template.onset :] = criterion[: max(len(samples) - template.onset, 0)]
    return at_onset


def _in_sd(fit: Array) -> Array:
    """The fit in SD that it has by chance: by MAD, twice more without what stands out."""
    known = fit[np.isfinite(fit)]
    known = known[:: max(len(known) // _ENOUGH, 1)]
    if not len(known):
        return fit
    middle, sd = 0.0, np.inf
    for _ in range(3):
        known = known[np.abs(known - middle) <= 3 * sd]
        middle = float(np.median(known))
        sd = robust_sd(known) or np.inf
    return np.asarray((fit - np.float32(middle)) / np.float32(sd), np.float32)


def _usable(trace: Trace, width: int) -> Mask:
    """Samples that are recorded, wanted, and not stuck at one value for a quarter of a window."""
    usable = trace.wanted()
    stuck = max(width // 4, 2)
    same = _running(trace.samples[1:] == trace.samples[:-1])
    starts = np.flatnonzero(same[stuck:] - same[:-stuck] == stuck)
    return usable & ~_covered(starts, starts + stuck + 1, len(usable))


def _windows_in(usable: Mask, width: int) -> Mask:
    """At which samples a window can start: all of it there and usable."""
    out = np.zeros(len(usable), np.bool_)
    if len(usable) >= width:
        missed = _running(~usable)
        out[: len(usable) - width + 1] = missed[width:] == missed[:-width]
    return out


def _running(mask: Mask) -> NDArray[np.int32]:
    """How many are true before each place, and in all."""
    return np.concatenate([np.zeros(1, np.int32), np.cumsum(mask, dtype=np.int32)])


def _candidates(fit: Array, search: _Search) -> tuple[Places, Array]:
    """Onsets of what fits best around it, and how well; of close ones the best."""
    from scipy.signal import find_peaks

    known = np.where(np.isfinite(fit), fit, np.float32(0.0))
    closest = max(math.ceil(_CLOSEST * search.width), 1)
    onsets, _ = find_peaks(known, height=search.thresholds.middle, distance=closest)
    return onsets.astype(np.int64), known[onsets]


def _around(onsets: Places, width: int, rng: np.random.Generator) -> Places:
    """Starts of windows in which these onsets lie near the usual place, jittered by chance."""
    reach = int(_JITTER * width)
    return onsets - round(_ONSET * width) + rng.integers(-reach, reach, len(onsets), endpoint=True)


def _inside(opened: Mask, starts: Places) -> Mask:
    valid = (starts >= 0) & (starts < len(opened))
    return np.asarray(valid & opened[np.where(valid, starts, 0)], np.bool_)


def _spread(places: Places, most: int, rng: np.random.Generator) -> Places:
    """Some of the places, one by chance from each of as many stretches of equal number."""
    if len(places) <= most:
        return places
    edges = np.linspace(0, len(places), most + 1).astype(np.int64)
    return places[rng.integers(edges[:-1], edges[1:])]


def _quiet(strip: _Strip, onsets: Places, taken: Places, search: _Search) -> Mask:
    """Starts of windows of pure noise: no candidate shows in them, no taken window, no hint."""
    n, width = len(strip.samples), search.width
    hints = (strip.fit >= search.thresholds.low) | (strip.brief >= search.thresholds.middle)
    busy = np.isnan(strip.fit)
    for places, (before, after) in (
        (onsets, _TRACES),
        (np.flatnonzero(hints), _HINTS),
        (taken, (0, 1)),
    ):
        busy |= _covered(places - round(before * width), places + round(after * width), n)
    return _windows_in(~busy, width)


def _covered(starts: Places, stops: Places, n: int) -> Mask:
    """Which of n samples lie in one of the stretches."""
    begun = np.bincount(np.clip(starts, 0, n), minlength=n + 1)
    ended = np.bincount(np.clip(stops, 0, n), minlength=n + 1)
    return np.cumsum(begun - ended)[:n] > 0


def _tiles(allowed: Mask, width: int, rng: np.random.Generator) -> Places:
    """Starts of windows side by side in every run of allowed starts, shifted by chance."""
    edges = np.diff(np.concatenate([[0], allowed.astype(np.int8), [0]]))
    first, last = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    counts = -(-(last - first) // width)
    slack = last - first - 1 - (counts - 1) * width
    shifted = first + rng.integers(0, slack, endpoint=True)
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.asarray(np.repeat(shifted, counts) + width * number, np.int64)


def _refuse_nothing(found: Sequence[_Found], thresholds: Thresholds, direction: str) -> None:
    if any((part.kinds != "noise").any() for part in found):
        return
    best = max(part.best for part in found)
    other = next(known for known in SIGNS if known != direction)
    raise UsageError(
        f"no candidate was found: the template fits at most {best:.2g} SD better than by chance, "
        f"and {thresholds.middle:g} is needed. Try direction={other!r}, a window_ms of twelve "
        "decay time constants, or a lower middle threshold."
    )

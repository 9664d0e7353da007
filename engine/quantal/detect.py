"""The whole story: scan a trace, find the stretches that hold events, locate and measure them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal.classical import NETWORK, Detector, make_detector
from quantal.errors import UsageError
from quantal.events import FOUND, Events, Sweep, make_events, no_events
from quantal.filters import fill_missing
from quantal.kinetics import Measures, fitting_window, measure
from quantal.locate import locate_events, noise_level, slope_weights, steepest_rises
from quantal.model import Card, Model, load_model
from quantal.peaks import find_stretches, points_of
from quantal.runtime import checked_device, cores
from quantal.scan import (
    SIGNS,
    Progress,
    Scores,
    checked_direction,
    checked_method,
    checked_stride,
    checked_threshold,
    checked_window_ms,
    directions_of,
    joined_scores,
    scan_parts,
    window_samples,
)
from quantal.timescale import AUTO, TimeScale, time_scale
from quantal.trace import Stretches, Trace, checked_trace, is_finite

DIRECTIONS = (*SIGNS, "both")
_ORIGIN = ("recording", "channel", "sweep", "roi", "unit")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides what is found, with nothing left to a default."""

    window_ms: float
    direction: str
    threshold: float
    stride: int
    method: str
    smooth_ms: float | None
    measure_ms: float | None
    device: str
    threads: int
    detector: str = NETWORK
    detector_settings: Detector | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class _Candidates:
    """Stretches of a trace (samples from starts to stops) that hold one event each, or several."""

    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    score: NDArray[np.float64]
    single: bool


@dataclass(frozen=True, eq=False, kw_only=True)
class Found:
    """What was searched, and what was found there: columns by name."""

    sweep: Sweep
    columns: dict[str, NDArray[Any]]


def detect(
    trace: Trace,
    *,
    model: str | Path | Model | None = None,
    detector: str | Detector = NETWORK,
    window_ms: float | str | None = None,
    direction: str | None = None,
    threshold: float | None = None,
    stride: int | None = None,
    method: str | None = None,
    smooth_ms: float | None = None,
    measure_ms: float | None = None,
    device: str = "auto",
    threads: int | None = None,
) -> Events:
    """Find and measure the synaptic events of one trace.

    model: a shipped model's name, a model folder, or a Model; None is the default model.
    detector: "network", or a method that needs no model: one of quantal.classical.DETECTORS
    ("template", "deconvolution", ...), by name or as made there with settings of its own.
    window_ms: the stretch that the network sees at a time, about twelve decay time constants; to a
    trace network only its time scale. "auto" reads it from the trace.
    direction: "negative" (inward currents), "positive" or "both".
    threshold: the score from which a stretch holds an event, 0 to 1; of other detectors in the
    unit of their scores, and that of their papers if None.
    stride: samples of the network's input between scores.
    method: "screened" lets a window network read only what events depend on, "dense" everything;
    the events are the same. None is "screened" where the network reads windows.
    smooth_ms: width of the Hann window that smooths the trace before events are located and
    measured; None fits it to the window, and to each event.
    measure_ms: the window by which events are measured, about twelve decay time constants, within a
    factor of two or three; None is window_ms or, with a trace network, read from the events.
    device: "auto", "cpu", "cuda", "tensorrt", or the name of another provider of ONNX Runtime.
    threads: of the CPU, that the network uses; None means all cores that may be used.
    Where None is given the model's card decides; without a model it is 12 ms, and "negative".

    Raises UsageError, ModelError or MissingRuntimeError; each says what is allowed. The method is
    that of O'Neill et al. (2025), eLife 13:RP98485.
    """
    trace, source = checked_trace(trace), choose(model, detector)
    settings = settle(
        source,
        window_ms=None if window_ms == AUTO else window_ms,
        direction=direction,
        threshold=threshold,
        stride=stride,
        method=method,
        smooth_ms=smooth_ms,
        measure_ms=measure_ms,
        device=device,
        threads=threads,
    )
    if window_ms == AUTO:
        settings, _ = on_own_time_scale(trace, source, settings)
    return analyse(trace, source, settings)


def on_own_time_scale(
    traces: Trace | Sequence[Trace],
    source: Model | Detector,
    settings: Settings,
    usual_ms: float | None = None,
) -> tuple[Settings, TimeScale]:
    """The settings with the window that fits the events of one trace or many, and why it does.

    usual_ms: the window where too few events tell; None is the model's own. Raises UsageError if
    the traces are too short to tell.
    """
    model = source if isinstance(source, Model) else None
    found = time_scale(
        traces, model, settings.direction, settings.device, settings.threads, usual_ms=usual_ms
    )
    detector = settings.detector_settings
    if isinstance(source, Detector):
        detector = source.fitted(found.window_ms)
    return replace(settings, window_ms=found.window_ms, detector_settings=detector), found


def choose(
    model: str | Path | Model | None, detector: str | Detector, **settings: Any
) -> Model | Detector:
    """What is to score traces: a network, or a detector with these settings that needs none.

    Raises UsageError or ModelError.
    """
    made = make_detector(detector, **settings)
    if made is None:
        return load_model(model)
    if model is not None:
        raise UsageError(
            f"the {made.name} detector needs no model: leave out the model, or the detector."
        )
    return made


def settle(source: Card | Model | Detector, **options: Any) -> Settings:
    """Options of `detect`; those that are None are as the network's card or the detector has it.

    Raises UsageError.
    """
    card = source if isinstance(source, Card) else source.card
    detector = source if isinstance(source, Detector) else None
    threshold = options.get("threshold")
    if detector is None:
        threshold = checked_threshold(threshold, card)
    else:
        threshold = detector.checked_threshold(threshold)
    device = checked_device(options.get("device") or "auto")
    if detector is not None and device not in ("auto", "cpu"):
        raise UsageError(f"the {detector.name} detector runs on the CPU; leave the device out.")
    window_ms = checked_window_ms(options.get("window_ms"), card)
    smooth_ms = options.get("smooth_ms")
    if smooth_ms is not None and not (is_finite(smooth_ms) and 0 <= smooth_ms <= window_ms):
        raise UsageError(
            f"smooth_ms must be 0 to {window_ms:g} ms (the window), or None, got {smooth_ms!r}."
        )
    measure_ms = options.get("measure_ms")
    if measure_ms is not None and not (is_finite(measure_ms) and measure_ms > 0):
        raise UsageError(
            f"measure_ms must be a positive number of milliseconds, or None, got {measure_ms!r}."
        )
    threads = options.get("threads")
    if threads is not None and not (is_finite(threads) and threads % 1 == 0 and threads >= 1):
        raise UsageError(f"threads must be a whole number of 1 or more, or None, got {threads!r}.")
    return Settings(
        window_ms=window_ms,
        direction=checked_direction(options.get("direction"), card, DIRECTIONS),
        threshold=float(threshold),
        stride=checked_stride(options.get("stride"), card),
        method=checked_method(options.get("method"), card),
        smooth_ms=smooth_ms,
        measure_ms=measure_ms,
        device=device if detector is None else "cpu",
        threads=int(threads or cores()) if detector is None else 1,
        detector=NETWORK if detector is None else detector.name,
        detector_settings=None if detector is None else detector.fitted(window_ms),
    )


def analyse(
    trace: Trace,
    source: Model | Detector,
    settings: Settings,
    progress: Progress | None = None,
    kept: dict[str, Scores] | None = None,
) -> Events:
    """The events of one trace; kept: where to put the scores, by direction, if they are wanted."""
    scores = begin(trace, source, settings, progress)
    return as_events([find(trace, scores, source, settings, kept)])


def begin(
    trace: Trace,
    source: Model | Detector,
    settings: Settings,
    progress: Progress | None = None,
    pool: Executor | None = None,
) -> dict[str, Iterator[Scores]]:
    """The scores of one trace by direction, part by part; pool: threads that begin with them."""
    return {
        way: _scores(trace, source, settings, way, progress, pool)
        for way in directions_of(settings.direction)
    }


def find(
    trace: Trace,
    scores: Mapping[str, Iterator[Scores]],
    source: Model | Detector,
    settings: Settings,
    kept: dict[str, Scores] | None = None,
) -> Found:
    """What the scores say is in one trace, before it is made a table; kept: as in `analyse`."""
    unwanted = trace.unwanted()
    sweep = Sweep(
        recording=trace.recording,
        channel=trace.channel,
        sweep=trace.sweep,
        unit=trace.unit,
        analysed_s=(len(trace) - unwanted.total) / trace.rate_hz,
    )
    columns = []
    for direction, parts in scores.items():
        if kept is not None:
            kept[direction] = joined_scores(parts)
            parts = iter([kept[direction]])
        columns.append(_events_of(trace, unwanted, parts, source.card, settings, SIGNS[direction]))
    return Found(sweep=sweep, columns=_in_order(columns, trace, unwanted))


def _scores(
    trace: Trace,
    source: Model | Detector,
    settings: Settings,
    direction: str,
    progress: Progress | None,
    pool: Executor | None,
) -> Iterator[Scores]:
    if isinstance(source, Detector):
        window_samples(trace, source.card, settings.window_ms)  # or there is nothing to search
        return iter([source.fitted(settings.window_ms).scan(trace, direction, progress)])
    return scan_parts(
        trace,
        source,
        window_ms=settings.window_ms,
        direction=direction,
        stride=settings.stride,
        method=settings.method,
        threshold=settings.threshold,
        device=settings.device,
        threads=settings.threads,
        progress=progress,
        pool=pool,
    )


def _events_of(
    trace: Trace,
    unwanted: Stretches,
    scores: Iterator[Scores],
    card: Card,
    settings: Settings,
    sign: int,
) -> dict[str, ArrayLike]:
    """Columns of the events that point one way, in order of time."""
    window = window_samples(trace, card, settings.window_ms)
    found = _candidates(trace, scores, card, settings)
    location, stretch = _located(trace, found, window, settings.smooth_ms, sign)
    keep = ~unwanted.hold(location)
    location, stretch = location[keep], stretch[keep]
    measured = partial(
        measure, trace.samples, trace.rate_hz, location, sign=sign, smooth_ms=settings.smooth_ms
    )
    told = settings.measure_ms
    measures = measured(window if told is None else round(told * trace.rate_hz / 1000))
    if card.kind == "trace" and told is None:  # its window is only a time scale: the events tell
        longer = fitting_window(measures, window, trace.rate_hz)
        measures = measures if longer == window else measured(longer)
    return {
        "location": _steepest(measures, location, unwanted, len(trace)),
        "score": found.score[stretch],
        **event_columns(measures, trace.start_s, trace.rate_hz, sign),
    }


def _candidates(
    trace: Trace, parts: Iterator[Scores], card: Card, settings: Settings
) -> _Candidates:
    """Where the scores say that events are, in samples of the trace.

    Scores of a window stay high as long as an event is in it, those of a trace peak at each event.
    """
    single = card.kind == "trace"
    scores = next(parts) if single else joined_scores(parts)
    left: NDArray[np.float64]
    if single:
        points = points_of(
            chain([scores.values], (part.values for part in parts)), settings.threshold
        )
        left = right = points.position.astype(np.float64)
        height = points.height
    else:
        peaks = find_stretches(scores.values, settings.threshold)
        left, right, height = peaks.left, peaks.right, peaks.height
    per_sample = trace.rate_hz / scores.rate_hz
    per_score, origin = scores.stride * per_sample, scores.first_sample * per_sample
    search = card.search_samples * per_sample
    if settings.detector_settings is not None:
        search = settings.detector_settings.search_ms * trace.rate_hz / 1000
    return _Candidates(
        starts=_within(np.floor(origin + left * per_score - search), trace),
        stops=_within(np.ceil(origin + right * per_score + search) + 1, trace),
        score=height,
        single=single,
    )


def _located(
    trace: Trace, found: _Candidates, window: int, smooth_ms: float | None, sign: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Samples at which events rise steepest, and the candidate that each comes from.

    Where each candidate is one event, nothing need be known of the noise.
    """
    smoothing = None if smooth_ms is None else smooth_ms * trace.rate_hz / 1000
    weights = sign * slope_weights(window, smoothing)
    samples, within = fill_missing(trace.samples), (found.starts, found.stops)
    if found.single:
        return steepest_rises(samples, weights, *within, window // 100)
    noise_sd = noise_level(samples, weights, trace.wanted(), *within)
    return locate_events(samples, weights, *within, noise_sd, window // 100)


def _steepest(
    measures: Measures, location: NDArray[np.int64], unwanted: Stretches, length: int
) -> NDArray[np.float64]:
    """Steepest rises, between samples, of the curves that events were measured by.

    Where there is none, or where it lies in what is not wanted, that of the slope stays.
    """
    inside = (measures.steepest >= 0) & (measures.steepest <= length - 1)
    nearest = np.rint(np.where(inside, measures.steepest, location)).astype(np.int64)
    return np.where(inside & ~unwanted.hold(nearest), measures.steepest, location)


def _within(samples: NDArray[np.float64], trace: Trace) -> NDArray[np.int64]:
    return np.clip(samples, 0, len(trace)).astype(np.int64)


def event_columns(
    measures: Measures, start_s: float, rate_hz: float, sign: int
) -> dict[str, ArrayLike]:
    """Measures as columns: back in the trace's own direction and on the sweep's clock."""
    return {
        "onset_s": start_s + measures.onset / rate_hz,
        "peak_s": start_s + measures.peak / rate_hz,
        "amplitude": sign * measures.amplitude,
        "baseline": sign * measures.baseline,
        "rise_10_90_ms": measures.rise_10_90_ms,
        "slope_per_ms": sign * measures.slope_per_ms,
        "half_decay_ms": measures.half_decay_ms,
        "half_width_ms": measures.half_width_ms,
        "tau_decay_ms": measures.tau_decay_ms,
        "area": sign * measures.area,
        "overlap": measures.overlap,
        "edge": measures.edge,
        "polarity": np.full(len(measures), sign),
    }


def _in_order(
    parts: Sequence[dict[str, ArrayLike]], trace: Trace, unwanted: Stretches
) -> dict[str, NDArray[Any]]:
    """The events of all directions in order of time, with their numbers and intervals."""
    columns = {name: np.concatenate([np.asarray(p[name]) for p in parts]) for name in parts[0]}
    order = np.argsort(columns["location"], kind="stable")
    columns = {name: values[order] for name, values in columns.items()}
    location = columns.pop("location")
    return {
        **columns,
        "event": np.arange(len(location)),
        "location_s": trace.start_s + location / trace.rate_hz,
        "interval_s": _intervals(location, unwanted) / trace.rate_hz,
    }


def as_events(parts: Sequence[Found]) -> Events:
    """One table of what was found in several traces, in the order given."""
    sweeps = [part.sweep for part in parts]
    counts = [len(part.columns["location_s"]) for part in parts]
    if not sum(counts):
        return no_events(sweeps)
    names = [name for name in _ORIGIN if getattr(sweeps[0], name) is not None]
    origin = {name: np.repeat([getattr(s, name) for s in sweeps], counts) for name in names}
    columns = {n: np.concatenate([p.columns[n] for p in parts]) for n in parts[0].columns}
    return make_events({**columns, **origin, "status": FOUND}, sweeps)


def _intervals(location: NDArray[np.float64], unwanted: Stretches) -> NDArray[np.float64]:
    """Samples since the event before; nan for the first, and across what was not searched."""
    intervals = np.full(len(location), np.nan)
    intervals[1:] = np.diff(location)
    across = np.diff(unwanted.before(np.rint(location).astype(np.int64))) > 0
    intervals[1:][across] = np.nan
    return intervals

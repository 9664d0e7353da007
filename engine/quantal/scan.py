"""Trace x Model -> Scores: how likely it is, all along a trace, that an event is there."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quantal.blocks import Blocks, core_samples
from quantal.errors import UsageError
from quantal.filters import resample
from quantal.model import Card, Model, load_model
from quantal.runtime import Reader, Session, open_session
from quantal.scout import Scout, open_scout
from quantal.screen import LOWEST, SPARSE, Beginning, evenly, read_all, read_screened, scouted
from quantal.trace import Trace, checked_trace, is_finite
from quantal.windows import MISSING, SCORED, cut_windows_at, missing_windows

FEWEST = 20  # samples in a window
METHODS = {"windows": ("screened", "dense"), "trace": ("dense",)}  # the first is the usual one
SIGNS = {"negative": -1, "positive": 1}
Progress = Callable[[int, int], None]
_CHUNK = 4_096  # windows that are cut at a time: 10 MB
_ON_DEVICE = 262_144  # windows that a device reads before it is waited for
_BLOCK = 64_000  # samples, at most, that a trace network reads at a time beside its margins
_PIECE = 65_536  # samples of the trace that are taken at a time: what becomes of them stays cached


@dataclass(frozen=True, eq=False, kw_only=True)
class Scores:
    """Model confidence along a trace, with its own clock.

    values: float32 (n,), 0 to 1; nan where samples are missing. Of a screened scan, 0 where no
    event can be.
    first_sample: the sample that the first value speaks for.
    stride: samples between values.
    rate_hz: rate of those samples: the trace's own, times window_samples of the network over the
    window asked for.
    start_s: time of sample 0 on the sweep's clock.
    """

    values: NDArray[np.float32]
    first_sample: int
    stride: int
    rate_hz: float
    start_s: float = 0.0

    def __len__(self) -> int:
        return len(self.values)

    @property
    def time_s(self) -> NDArray[np.float64]:
        """When each value speaks, on the sweep's clock."""
        samples = self.first_sample + self.stride * np.arange(len(self.values))
        return self.start_s + samples / self.rate_hz


@dataclass(frozen=True, eq=False, kw_only=True)
class _Screen:
    """The threshold of events that must be as if all windows were read, and what may help."""

    threshold: float
    scout: Scout | None


@dataclass(frozen=True, eq=False, kw_only=True)
class Grid:
    """A trace as the network reads it: at its rate and polarity."""

    samples: NDArray[np.float32]
    rate_hz: float


def scan(
    trace: Trace,
    model: str | Path | Model | None = None,
    *,
    window_ms: float | None = None,
    direction: str | None = None,
    stride: int | None = None,
    method: str = "dense",
    threshold: float | None = None,
    device: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Score a trace with a model.

    window_ms: the stretch of the trace that fills the network's window; None means the card's.
    direction: which way events point, "negative" or "positive"; None means the card's.
    stride: samples of the network's input between scores; None means the card's.
    method: "dense" scores every stride; "screened" of a window network only what events depend on
    that reach the threshold (None means the card's), and leaves 0 elsewhere.
    threads: of the CPU; None means all cores that may be used. progress is called with (done, all).
    Raises UsageError, ModelError or MissingRuntimeError; each says what is allowed.
    """
    parts = scan_parts(
        trace,
        model,
        window_ms=window_ms,
        direction=direction,
        stride=stride,
        method=method,
        threshold=threshold,
        device=device,
        threads=threads,
        progress=progress,
    )
    return joined_scores(parts)


def joined_scores(parts: Iterable[Scores]) -> Scores:
    """One line of scores from parts that follow each other."""
    parts = list(parts)
    if len(parts) == 1:
        return parts[0]
    return replace(parts[0], values=np.concatenate([part.values for part in parts]))


def scan_parts(
    trace: Trace,
    model: str | Path | Model | None = None,
    *,
    window_ms: float | None = None,
    direction: str | None = None,
    stride: int | None = None,
    method: str = "dense",
    threshold: float | None = None,
    device: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
    pool: Executor | None = None,
) -> Iterator[Scores]:
    """The scores of `scan` part by part, so that those of a long trace need not be kept.

    All options are checked at once, and nothing is read before the first part is asked for. pool:
    for many short traces, threads that they share: then all is read at once, and scored there.
    """
    trace, model = checked_trace(trace), load_model(model)
    card = model.card
    method, threshold = checked_method(method, card), checked_threshold(threshold, card)
    step = checked_stride(stride, card)
    sign = SIGNS[checked_direction(direction, card, tuple(SIGNS))] * SIGNS[card.polarity]
    window = window_samples(trace, card, window_ms)
    session = open_session(model, device, threads)
    clock = Scores(
        values=np.empty(0, np.float32),
        first_sample=card.reference_sample % step,
        stride=step,
        rate_hz=trace.rate_hz * card.window_samples / window,
        start_s=trace.start_s,
    )
    if card.kind == "trace":
        return _clocked(_read_trace(trace, card, session, window, sign, progress, pool), clock)
    all_needed = threshold < LOWEST or step > SPARSE * card.window_samples
    screen = None
    if method == "screened" and not all_needed:
        # It is calibrated for this stride alone, and on the CPU it would hold up a faster device.
        useful = step == card.stride and session.cutting is None
        scout = open_scout(model, threads) if useful else None
        screen = _Screen(threshold=threshold, scout=scout)
    parts = _read_windows(trace, card, session, window, sign, step, screen, progress)
    return _clocked(parts if pool is None else _awaited(pool.submit(list, parts)), clock)


def _clocked(parts: Iterator[NDArray[np.float32]], clock: Scores) -> Iterator[Scores]:
    """Parts that know which samples they speak for."""
    for values in parts:
        yield replace(clock, values=values)
        clock = replace(clock, first_sample=clock.first_sample + clock.stride * len(values))


def _read_windows(
    trace: Trace,
    card: Card,
    session: Session,
    window: int,
    sign: int,
    stride: int,
    screen: _Screen | None,
    progress: Progress | None,
) -> Iterator[NDArray[np.float32]]:
    """One score per window; the first speaks for the first sample that a stride reaches.

    screen: None reads all windows.
    """
    samples = on_grid(trace, card, window, sign).samples
    width, reference = card.window_samples, card.reference_sample
    first = reference % stride
    count = max(-(-(len(samples) - first) // stride), 0)
    starts = first - reference + stride * np.arange(count)

    scored = _scorer(samples, width, session)

    def read(numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        return scored(starts[numbers])

    def told(done: int) -> None:
        if progress is not None:
            progress(done, count)

    if screen is None:
        yield read_all(read, count, told, _CHUNK if session.cutting is None else _ON_DEVICE)
        return
    beginning = _beginning(samples, starts, stride, width, screen)
    values, known = read_screened(read, count, beginning, threshold=screen.threshold, told=told)
    values[~known & missing_windows(samples, starts, width)] = np.nan
    yield values


def _beginning(
    samples: NDArray[np.float32],
    starts: NDArray[np.int64],
    stride: int,
    width: int,
    screen: _Screen,
) -> Beginning:
    """The windows that the scout suspects, or without one that knows the threshold some evenly."""
    level = None if screen.scout is None else screen.scout.level(screen.threshold)
    if screen.scout is None or level is None or not len(starts):
        return evenly(samples, starts, stride, width)
    return scouted(screen.scout, level, samples, starts, stride, width)


def _scorer(samples: NDArray[np.float32], width: int, session: Session) -> Reader:
    """What scores windows by their first samples: 0 of FLAT ones, nan of MISSING ones."""
    if session.cutting is None:
        return partial(_scored, samples, width=width, session=session)
    on_device = session.lay_out(samples, width)

    def read(starts: NDArray[np.int64]) -> NDArray[np.float32]:
        values = on_device(starts)
        values[missing_windows(samples, starts, width)] = np.nan
        return values

    return read


def _scored(
    samples: NDArray[np.float32], starts: NDArray[np.int64], width: int, session: Session
) -> NDArray[np.float32]:
    """Scores of the windows that start at these samples, cut here."""
    values = np.empty(len(starts), np.float32)
    for k in range(0, len(starts), _CHUNK):
        part = slice(k, k + _CHUNK)
        windows, states = cut_windows_at(samples, starts[part], width)
        scores = session.run_windows(windows)
        scores[states != SCORED] = 0.0
        scores[states == MISSING] = np.nan
        values[part] = scores
    return values


def _read_trace(
    trace: Trace,
    card: Card,
    session: Session,
    window: int,
    sign: int,
    progress: Progress | None,
    pool: Executor | None,
) -> Iterator[NDArray[np.float32]]:
    """A score every stride. The trace is read once, in pieces, while blocks of it are scored."""
    blocks = Blocks(card, window, sign, core_samples(card, _BLOCK))
    whole = math.ceil(math.ceil(len(trace) * card.window_samples / window) / card.stride)
    read = _blocks_of(trace, blocks)
    if pool is not None:
        scores = _scored_in(pool, read, session, card.stride)
    elif whole * card.stride <= blocks.core:  # a pool for it would take a tenth of the time
        scores = (session.run_block(block, card.stride) for block in read if block is not None)
    else:
        scores = _scored_beside(read, session, card.stride)
    return _kept(scores, blocks, whole, progress)


def _kept(
    scores: Iterable[NDArray[np.float32]], blocks: Blocks, whole: int, progress: Progress | None
) -> Iterator[NDArray[np.float32]]:
    """The scores of blocks without those of their margins."""
    done = 0
    for one in scores:
        values = blocks.kept(one, done)
        done += len(values)
        yield values
        if progress is not None:
            progress(done, whole)


def _scored_in(
    pool: Executor, blocks: Iterable[NDArray[np.float32] | None], session: Session, stride: int
) -> Iterator[NDArray[np.float32]]:
    """The scores of each block, by threads that begin with them now."""
    running = [pool.submit(session.run_block, b, stride) for b in blocks if b is not None]
    return (future.result() for future in running)


def _awaited(parts: Future[list[NDArray[np.float32]]]) -> Iterator[NDArray[np.float32]]:
    yield from parts.result()


def _scored_beside(
    blocks: Iterator[NDArray[np.float32] | None], session: Session, stride: int
) -> Iterator[NDArray[np.float32]]:
    """The scores of each block, by other threads, while this one reads on."""
    workers = session.threads if session.device == "cpu" else 1
    with ThreadPoolExecutor(workers) as pool:
        running: deque[Future[NDArray[np.float32]]] = deque()
        for block in blocks:
            if block is not None:
                running.append(pool.submit(session.run_block, block, stride))
            while running and (len(running) > workers or block is None):
                yield running.popleft().result()


def _blocks_of(trace: Trace, blocks: Blocks) -> Iterator[NDArray[np.float32] | None]:
    """The blocks of a whole trace, and None once there are no more."""
    for start in range(0, len(trace), _PIECE):
        yield from blocks.push(trace.samples[start : start + _PIECE])
    yield from blocks.finish()
    yield None


def window_samples(trace: Trace, card: Card, window_ms: float | None) -> int:
    """The user's window in samples of the trace; raises UsageError if it makes no sense there."""
    samples = window_at(trace.rate_hz, card, window_ms)
    if samples > len(trace):
        raise UsageError(
            f"a window of {checked_window_ms(window_ms, card):g} ms is longer than the trace "
            f"({1000 * trace.duration_s:g} ms, {len(trace)} samples); try a shorter window_ms "
            "(--window-ms) or a longer stretch of the recording."
        )
    return samples


def window_at(rate_hz: float, card: Card, window_ms: float | None) -> int:
    """The user's window in samples at a rate; raises UsageError if these are too few."""
    window_ms = checked_window_ms(window_ms, card)
    samples = round(window_ms * rate_hz / 1000)
    if samples < FEWEST:
        shortest = f"{shortest_ms(rate_hz):g}"
        usual = f" (the usual one of {card.name})" if window_ms == card.window_ms else ""
        raise UsageError(
            f"a window of {window_ms:g} ms{usual} has {samples} samples at {rate_hz:g} Hz; it "
            f"needs at least {FEWEST}, so at least {shortest} ms. Give window_ms={shortest} "
            f"(--window-ms {shortest}) or more: about 12 decay time constants of the events."
        )
    return samples


def shortest_ms(rate_hz: float) -> float:
    """The shortest window (ms) that a trace of this rate can be searched with."""
    return 1000 * FEWEST / rate_hz


def on_grid(trace: Trace, card: Card, window: int, sign: int) -> Grid:
    """The trace resampled so that `window` samples become the network's, times sign."""
    samples = trace.samples
    if not np.isfinite(samples).all():
        samples = np.where(np.isfinite(samples), samples, np.float32(np.nan))
    samples = resample(samples, card.window_samples, window)
    rate_hz = trace.rate_hz * card.window_samples / window
    return Grid(samples=-samples if sign < 0 else samples, rate_hz=rate_hz)


def checked_window_ms(window_ms: float | None, card: Card) -> float:
    """The window to use; raises UsageError if it is not a positive time."""
    window_ms = card.window_ms if window_ms is None else window_ms
    if not (is_finite(window_ms) and window_ms > 0):
        raise UsageError(f"window_ms must be a positive number of milliseconds, got {window_ms!r}.")
    return float(window_ms)


def checked_stride(stride: int | None, card: Card) -> int:
    """The stride to use; raises UsageError if the network cannot have it."""
    if stride is None:
        return card.stride
    if card.kind == "trace" and stride != card.stride:
        raise UsageError(
            f"{card.name} gives a score every {card.stride} samples, got stride {stride!r}; "
            "leave the stride out."
        )
    if not (is_finite(stride) and stride % 1 == 0 and 1 <= stride <= card.window_samples):
        raise UsageError(
            f"stride must be 1 to {card.window_samples} samples (the model's window), "
            f"got {stride!r}; try {card.stride}."
        )
    return int(stride)


def checked_method(method: str | None, card: Card) -> str:
    """The method to use; None is the usual one. Raises UsageError if the network has no such."""
    allowed = METHODS[card.kind]
    if method is None:
        return allowed[0]
    if method not in allowed:
        raise UsageError(
            f"method must be one of {', '.join(METHODS['windows'])}, got {method!r}."
            if method not in METHODS["windows"]
            else f"{card.name} reads the whole trace once, so its method is {allowed[0]!r}, not "
            f"{method!r}; leave the method out."
        )
    return method


def checked_threshold(threshold: float | None, card: Card) -> float:
    """The score that an event needs; raises UsageError unless it lies between 0 and 1."""
    threshold = card.threshold if threshold is None else threshold
    if not (is_finite(threshold) and 0 < threshold < 1):
        raise UsageError(f"threshold must lie between 0 and 1, got {threshold!r}; try 0.5.")
    return float(threshold)


def directions_of(direction: str) -> tuple[str, ...]:
    """The directions that are searched in turn: one, or both."""
    return tuple(SIGNS) if direction == "both" else (direction,)


def checked_direction(direction: str | None, card: Card, allowed: tuple[str, ...]) -> str:
    """The direction to use; raises UsageError if it is none of those allowed."""
    direction = card.direction if direction is None else direction
    if direction not in allowed:
        raise UsageError(f"direction must be one of {', '.join(allowed)}, got {direction!r}.")
    return direction

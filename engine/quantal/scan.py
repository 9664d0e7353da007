"""Trace x Model -> Scores: how likely it is, all along a trace, that an event is there."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quantal.errors import UsageError
from quantal.filters import resample
from quantal.model import Card, Model, load_model
from quantal.noise import scaled
from quantal.runtime import Session, open_session
from quantal.trace import Trace, checked_trace, is_finite
from quantal.windows import MISSING, SCORED, cut_windows

METHODS = ("dense",)
SIGNS = {"negative": -1, "positive": 1}
Progress = Callable[[int, int], None]
_CHUNK = 4_096  # windows that are cut at a time: 10 MB
_BLOCK = 32_000  # samples, at most, that a trace network reads at a time beside its margins


@dataclass(frozen=True, eq=False, kw_only=True)
class Scores:
    """Model confidence along a trace, with its own clock.

    values: float32 (n,), 0 to 1; nan where samples are missing.
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
    device: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Score a trace with a model.

    window_ms: the stretch of the trace that fills the network's window; None means the card's.
    direction: which way events point, "negative" or "positive"; None means the card's.
    stride: samples of the network's input between scores; None means the card's.
    method: "dense" scores every stride. threads: of the CPU; None means all cores that may be used.
    progress is called with (done, all).
    Raises UsageError, ModelError or MissingRuntimeError; each says what is allowed.
    """
    trace, model = checked_trace(trace), load_model(model)
    card = model.card
    if method not in METHODS:
        raise UsageError(f"method must be one of {', '.join(METHODS)}, got {method!r}.")
    step = checked_stride(stride, card)
    sign = SIGNS[checked_direction(direction, card, tuple(SIGNS))] * SIGNS[card.polarity]
    grid = on_grid(trace, card, window_samples(trace, card, window_ms), sign)
    session = open_session(model, device, threads)
    reader = _READERS[card.kind]
    values, first = reader(grid.samples, card, session, step, progress)
    return Scores(
        values=values,
        first_sample=first,
        stride=step,
        rate_hz=grid.rate_hz,
        start_s=trace.start_s,
    )


def _read_windows(
    samples: NDArray[np.float32],
    card: Card,
    session: Session,
    stride: int,
    progress: Progress | None,
) -> tuple[NDArray[np.float32], int]:
    """One score per window; the first speaks for the first sample that a stride reaches."""
    width, reference = card.window_samples, card.reference_sample
    first = reference % stride
    count = max(-(-(len(samples) - first) // stride), 0)
    values = np.empty(count, np.float32)
    for start in range(0, count, _CHUNK):
        size = min(_CHUNK, count - start)
        origin = first - reference + start * stride
        windows, states = cut_windows(samples, origin, stride, size, width)
        scores = session.run_windows(windows)
        scores[states != SCORED] = 0.0
        scores[states == MISSING] = np.nan
        values[start : start + size] = scores
        if progress is not None:
            progress(start + size, count)
    return values, first


def _read_trace(
    samples: NDArray[np.float32],
    card: Card,
    session: Session,
    stride: int,
    progress: Progress | None,
) -> tuple[NDArray[np.float32], int]:
    """A score every stride, from blocks that overlap by all that a score depends on.

    Blocks start on a fixed grid, and the last one is filled up: the same sample has the same
    score wherever a longer trace ends. Beyond its ends the trace is continued by its mirror image.
    """
    n, margin = len(samples), card.margin_samples
    core = max(_BLOCK // margin, 1) * margin if margin else _BLOCK // stride * stride
    count = -(-n // stride)
    blocks = -(-n // core)
    whole = scaled(samples)
    values = np.empty(blocks * core // stride, np.float32)
    kept = slice(margin // stride, (margin + core) // stride)

    def read(block: int) -> int:
        stretch = _mirrored(whole, block * core - margin, (block + 1) * core + margin)
        scores = session.run_block(stretch, stride)[kept]
        values[block * len(scores) : (block + 1) * len(scores)] = scores
        return min((block + 1) * len(scores), count)

    with ThreadPoolExecutor(session.threads if session.device == "cpu" else 1) as pool:
        for done in pool.map(read, range(blocks)):
            if progress is not None:
                progress(done, count)
    values = values[:count]
    missing = np.flatnonzero(~np.isfinite(samples)) // stride
    values[missing] = np.nan
    return values, card.reference_sample


def _mirrored(samples: NDArray[np.float32], start: int, stop: int) -> NDArray[np.float32]:
    """Samples from start to stop; beyond the trace's ends they are its mirror image."""
    n = len(samples)
    if start >= 0 and stop <= n:
        return samples[start:stop]
    at = np.arange(start, stop) % (2 * n)
    return samples[np.where(at < n, at, 2 * n - 1 - at)]


_READERS = {"windows": _read_windows, "trace": _read_trace}


def window_samples(trace: Trace, card: Card, window_ms: float | None) -> int:
    """The user's window in samples of the trace; raises UsageError if it makes no sense there."""
    window_ms = checked_window_ms(window_ms, card)
    samples = round(window_ms * trace.rate_hz / 1000)
    shortest = 20
    if samples < shortest:
        raise UsageError(
            f"a window of {window_ms:g} ms has {samples} samples at {trace.rate_hz:g} Hz; it needs "
            f"at least {shortest}, so at least {1000 * shortest / trace.rate_hz:g} ms. A window "
            "should span about 12 decay time constants of the events."
        )
    if samples > len(trace):
        raise UsageError(
            f"a window of {window_ms:g} ms is longer than the trace "
            f"({1000 * trace.duration_s:g} ms, {len(trace)} samples); try a shorter window_ms or a "
            "longer stretch of the recording."
        )
    return samples


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


def checked_direction(direction: str | None, card: Card, allowed: tuple[str, ...]) -> str:
    """The direction to use; raises UsageError if it is none of those allowed."""
    direction = card.direction if direction is None else direction
    if direction not in allowed:
        raise UsageError(f"direction must be one of {', '.join(allowed)}, got {direction!r}.")
    return direction

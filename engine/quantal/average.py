"""The average event and the time constant of its decay."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal.errors import UsageError
from quantal.trace import Stretches

Floats = NDArray[np.float64]

# Stretch around a location, in windows: baseline before it, the event after it.
BEFORE, AFTER = 1 / 3, 1.0
# With fewer isolated events than this, all events go into the average.
ENOUGH = 5
# The decay is fitted from this fraction of the peak on, and to the end of the waveform.
DECAY_FROM = 0.8
# The peak is sought in this part of the stretch after the location.
PEAK_WITHIN = 0.4


@dataclass(frozen=True, eq=False, kw_only=True)
class AverageEvent:
    """The mean of events aligned at their locations, less its baseline.

    time_ms: 0 at the location. waveform: in the unit of the samples; empty if no event lies far
    enough from the ends of the sweep and from missing samples. n: events averaged.
    isolated: whether no other event lies in any of their stretches. tau_decay_ms: time constant
    of the exponential fitted to the decay, nan if none fits. fit: that exponential, nan before its
    first sample.
    """

    time_ms: Floats
    waveform: Floats
    n: int
    isolated: bool
    tau_decay_ms: float
    fit: Floats

    def __repr__(self) -> str:
        return f"AverageEvent(n={self.n}, tau_decay_ms={self.tau_decay_ms:.3g})"


def average_event(
    sweeps: Iterable[tuple[ArrayLike, ArrayLike, Stretches]],
    rate_hz: float,
    window: int,
    *,
    sign: int = 1,
) -> AverageEvent:
    """Average events over sweeps, each of samples, locations and where nothing is wanted.

    Locations are in samples, between samples too; window is as for measure; sign: -1 for downward
    events. Isolated events alone are averaged: none other from a window before to a window after.
    Where there are fewer than five, all are averaged that have their stretch of samples.

    Raises UsageError if rate or window are out of range.
    """
    if not (math.isfinite(rate_hz) and rate_hz > 0):
        raise UsageError(f"rate_hz must be a positive number, got {rate_hz!r}.")
    if window < 8:
        raise UsageError(f"window must be at least 8 samples, got {window}; try a longer one.")
    offsets = np.arange(-math.ceil(BEFORE * window), math.ceil(AFTER * window) + 1)
    alone, every = [np.empty((0, len(offsets)))], [np.empty((0, len(offsets)))]
    for samples, locations, unwanted in sweeps:
        y = np.asarray(samples, dtype=np.float32)
        at = np.sort(np.asarray(locations, dtype=np.float64).ravel())
        alone.append(_stretches(y, at[_gap(at) >= window], offsets, unwanted))
        every.append(_stretches(y, at, offsets, unwanted))
    stretches, total = np.concatenate(alone), sum(map(len, every))
    isolated = len(stretches) >= min(ENOUGH, max(total, 1))
    if not isolated:
        stretches = np.concatenate(every)
    time_ms: Floats = np.asarray(offsets * (1e3 / rate_hz), dtype=np.float64)
    if not len(stretches):
        nothing = np.empty(0)
        return AverageEvent(
            time_ms=nothing, waveform=nothing, n=0, isolated=False, tau_decay_ms=np.nan, fit=nothing
        )
    waveform = sign * stretches.mean(axis=0)
    # the last part before the location is left out: it may hold the rise
    waveform -= np.median(waveform[: max(3, int(0.2 * window))])
    tau_ms, fit = _fitted_decay(time_ms, waveform)
    return AverageEvent(
        time_ms=time_ms,
        waveform=sign * waveform,
        n=len(stretches),
        isolated=isolated,
        tau_decay_ms=tau_ms,
        fit=sign * fit,
    )


def _gap(at: Floats) -> Floats:
    """Samples to the nearest other event."""
    gaps = np.diff(at, prepend=-np.inf, append=np.inf)
    nearest: Floats = np.minimum(gaps[:-1], gaps[1:])
    return nearest


def _stretches(
    y: NDArray[np.float32], at: Floats, offsets: NDArray[np.int64], unwanted: Stretches
) -> Floats:
    """Samples around each location, interpolated between samples; shape (events, offsets).

    Left out are events whose stretch leaves the sweep or meets what is missing or excluded.
    """
    whole = np.floor(at).astype(np.int64)
    stops = whole + offsets[-1] + np.where(at > whole, 2, 1)
    inside = (whole + offsets[0] >= 0) & (whole + offsets[-1] + 1 < len(y))
    inside &= ~unwanted.meet(whole + offsets[0], stops)
    whole, part = whole[inside], (at - np.floor(at))[inside, None]
    index = whole[:, None] + offsets
    if not len(whole):
        return np.empty((0, len(offsets)))
    # the next sample counts only where a location lies between samples
    found: Floats = (1 - part) * y[index] + np.where(part > 0, part * y[index + 1], 0.0)
    return found


def _fitted_decay(time_ms: Floats, waveform: Floats) -> tuple[float, Floats]:
    """Time constant and curve of an exponential through the decay; nan if none fits."""
    nothing = np.full(len(waveform), np.nan)
    location = int(np.searchsorted(time_ms, 0.0))
    # a later event or artefact may be higher than the event itself
    soon = int(np.searchsorted(time_ms, PEAK_WITHIN * time_ms[-1]))
    peak = location + int(waveform[location:soon].argmax())
    below = np.flatnonzero(waveform[peak:] < DECAY_FROM * waveform[peak])
    if not waveform[peak] > 0 or not len(below):
        return np.nan, nothing
    start = peak + int(below[0])
    # in units of the peak
    t, v = time_ms[start:] - time_ms[start], waveform[start:] / waveform[peak]
    if len(t) < 5:
        return np.nan, nothing
    span, step = float(t[-1]), float(t[1])
    tau, (height, rest) = _exponential(t, v, 0.1 * step, 10 * span)
    if not height > 0.1 or tau > span:
        return np.nan, nothing
    curve = nothing.copy()
    curve[start:] = waveform[peak] * (height * np.exp(-t / tau) + rest)
    return tau, curve


def _exponential(t: Floats, v: Floats, shortest: float, longest: float) -> tuple[float, Floats]:
    """Time constant, height and rest of the exponential of least squares.

    Height and rest are linear and follow from the time constant, whose logarithm is searched: first
    on a grid, then around the best place by golden sections.
    """

    def fitted(log_tau: float) -> tuple[float, Floats]:
        shape = np.column_stack([np.exp(-t / np.exp(log_tau)), np.ones_like(t)])
        linear = np.linalg.lstsq(shape, v, rcond=None)[0]
        return float(((shape @ linear - v) ** 2).sum()), linear

    grid = np.linspace(np.log(shortest), np.log(longest), 30)
    best = int(np.argmin([fitted(x)[0] for x in grid]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    golden = (np.sqrt(5.0) - 1) / 2
    while high - low > 1e-6:
        left, right = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, right) if fitted(left)[0] < fitted(right)[0] else (left, high)
    middle = 0.5 * (low + high)
    return float(np.exp(middle)), fitted(middle)[1]

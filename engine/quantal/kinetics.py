"""The measures of every event: baseline, amplitude, rise, decay, width and area.

Each is read from its waveform, by the kernels of waveform.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal.errors import UsageError
from quantal.kernel import notice
from quantal.waveform import (
    AREA,
    BASE,
    EDGE,
    HALF,
    HEIGHT,
    ONSET,
    OVERLAP,
    PEAK,
    RISE,
    SHAPE,
    SLOPE,
    STEEPEST,
    TAU,
    WIDTH,
    measure_all,
)

Floats = NDArray[np.float64]

DECAYS_IN_WINDOW = 12.0  # decay constants in a window that fits
_SHORTEST = 8  # samples in a window
_ENOUGH = 5  # events that tell how long they are


@dataclass(frozen=True, eq=False, kw_only=True)
class Measures:
    """What is measured of each event: one value per location, nan what cannot be measured.

    onset, steepest (of the rise), peak: positions in samples, also between samples. baseline:
    level under the peak, with what earlier events leave there. amplitude: peak less baseline.
    slope_per_ms: steepest rise. area: from onset to four half-decays past the peak, unit x s; where
    the next event or the end of the sweep cuts it, the fitted decay completes it. overlap: another
    event lies within its decay. edge: baseline or decay are cut by the end of the sweep or by
    missing samples.
    """

    onset: Floats
    steepest: Floats
    peak: Floats
    baseline: Floats
    amplitude: Floats
    rise_10_90_ms: Floats
    slope_per_ms: Floats
    half_decay_ms: Floats
    half_width_ms: Floats
    tau_decay_ms: Floats
    area: Floats
    overlap: NDArray[np.bool_]
    edge: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.onset)


def measure(
    samples: ArrayLike,
    rate_hz: float,
    locations: ArrayLike,
    window: int,
    *,
    sign: int = 1,
    smooth_ms: float | None = None,
) -> Measures:
    """Measure events at their locations (samples of the steepest rise, in order).

    window: samples in a stretch that fits an event, about twelve decay constants; within a factor
    of two or three it changes little. sign: -1 for downward events, which are measured as if the
    trace were turned over.
    smooth_ms: width of a fixed smoothing, in place of the curve fitted to each event.

    Raises UsageError if locations are not whole numbers in order and within the samples, or rate,
    window or smoothing are out of range.
    """
    y = np.ascontiguousarray(samples, dtype=np.float32)
    chain = Chain(rate_hz, window, sign=sign, smooth_ms=smooth_ms)
    chain.add(_as_locations(locations, len(y)))
    return chain.measure(y, len(chain.waiting))


class Chain:
    """Events that are measured in turn, each on what the decays of the earlier ones leave.

    For a trace that comes in pieces; options and errors are those of `measure`.
    """

    def __init__(
        self, rate_hz: float, window: int, *, sign: int = 1, smooth_ms: float | None = None
    ) -> None:
        self._rate_hz, self._sign = rate_hz, sign
        self._window, self._half_width = _sizes(rate_hz, window, smooth_ms)
        self._locations = np.empty(0, np.int64)
        self._shapes, self._peaks = np.empty((0, SHAPE)), np.empty(0)
        self._measured = 0

    @property
    def waiting(self) -> NDArray[np.int64]:
        """Locations that are not measured yet, in order."""
        return self._locations[self._measured :]

    def add(self, locations: NDArray[np.int64]) -> None:
        """The next locations, in order."""
        count = len(locations)
        self._locations = np.concatenate([self._locations, locations])
        self._shapes = np.concatenate([self._shapes, np.full((count, SHAPE), np.nan)])
        self._peaks = np.concatenate([self._peaks, np.full(count, np.nan)])

    def measure(self, samples: NDArray[np.float32], count: int, first: int = 0) -> Measures:
        """Measure the next `count` of those that wait.

        samples: of the trace from sample `first` on, from a window before to two windows after
        each. Locations up to two windows after the last of them must have been added.
        """
        begin, end = self._measured, self._measured + count
        self._measured = end
        table = measure_all(
            samples,
            self._sign,
            first,
            self._locations,
            self._shapes,
            self._peaks,
            begin,
            end,
            self._window,
            self._half_width,
        )
        return _as_measures(table, self._rate_hz)

    def forget(self, before: int) -> None:
        """Of those that are measured keep the last one, and those that lie from this sample on."""
        gone = int(np.searchsorted(self._locations, before))
        gone = max(min(gone, self._measured - 1), 0)
        self._locations, self._measured = self._locations[gone:], self._measured - gone
        self._shapes, self._peaks = self._shapes[gone:], self._peaks[gone:]


def _sizes(rate_hz: float, window: int, smooth_ms: float | None) -> tuple[int, float]:
    """Window and fixed half width (samples; -1 if fitted), once they are found to make sense."""
    if not (math.isfinite(rate_hz) and rate_hz > 0):
        raise UsageError(f"rate_hz must be a positive number, got {rate_hz!r}.")
    if window < _SHORTEST:
        raise UsageError(
            f"window must be at least {_SHORTEST} samples, got {window}; try a longer one."
        )
    if smooth_ms is not None and not (math.isfinite(smooth_ms) and smooth_ms >= 0):
        raise UsageError(f"smooth_ms must be 0 or more milliseconds, or None, got {smooth_ms!r}.")
    return int(window), -1.0 if smooth_ms is None else 0.5e-3 * smooth_ms * rate_hz


def _as_measures(table: Floats, rate_hz: float) -> Measures:
    """Measures from the rows that the kernel fills."""
    ms = 1e3 / rate_hz
    return Measures(
        onset=table[ONSET],
        steepest=table[STEEPEST],
        peak=table[PEAK],
        baseline=table[BASE],
        amplitude=table[HEIGHT],
        rise_10_90_ms=table[RISE] * ms,
        slope_per_ms=table[SLOPE] / ms,
        half_decay_ms=table[HALF] * ms,
        half_width_ms=table[WIDTH] * ms,
        tau_decay_ms=table[TAU] * ms,
        area=table[AREA] / rate_hz,
        overlap=table[OVERLAP] > 0,
        edge=table[EDGE] > 0,
    )


def fitting_window(measures: Measures, window: int, rate_hz: float) -> int:
    """The window (samples) that fits events measured with another one.

    The window stays as it is within a factor of 1.5, and moves by a factor of eight at most.
    """
    fitting_ms = fitting_window_ms(measures.half_decay_ms, measures.overlap | measures.edge)
    if fitting_ms is None:
        return window
    ratio = min(max(1e-3 * fitting_ms * rate_hz / window, 1 / 8), 8.0)
    return window if 1 / 1.5 < ratio < 1.5 else max(round(ratio * window), _SHORTEST)


def fitting_window_ms(half_decay_ms: Floats, disturbed: NDArray[np.bool_]) -> float | None:
    """Twelve decay constants of events, from their median half-decay; None without any.

    disturbed: those that overlap or are cut; they count only where fewer than five are left.
    """
    measured = np.isfinite(half_decay_ms)
    alone = measured & ~disturbed
    chosen = alone if alone.sum() >= _ENOUGH else measured
    if not chosen.any():
        return None
    return DECAYS_IN_WINDOW * float(np.median(half_decay_ms[chosen])) / math.log(2)


def _as_locations(locations: ArrayLike, n: int) -> NDArray[np.int64]:
    given = np.asarray(locations)
    if given.size == 0:
        return np.empty(0, np.int64)
    if given.ndim != 1 or given.dtype.kind not in "iu":
        raise UsageError(
            "locations must be whole sample positions in one dimension, "
            f"got {given.dtype} of shape {given.shape}."
        )
    at = np.ascontiguousarray(given, dtype=np.int64)
    if at.min() < 0 or at.max() >= n:
        raise UsageError(f"locations must be within 0 to {n - 1}, got {at.min()} to {at.max()}.")
    if (np.diff(at) < 0).any():
        raise UsageError("locations must be in order; sort them first.")
    return at


def compiling() -> str | None:
    """What to tell a user who will wait for kernels to be compiled; None if nobody will.

    These here are compiled last, whatever scores a trace.
    """
    return notice(measure_all)

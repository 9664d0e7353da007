"""Kinetics by fitting: what each event was before noise, neighbours and low-pass blurred it.

A biexponential is fitted to every event, together with those whose decays reach into each other.
Standard errors are those of least squares in the trace's own noise, whose covariance is read from
the stretches without events.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal.errors import UsageError
from quantal.events import REJECTED, Events, chosen_rows, statistics
from quantal.groups import (
    AFTER,
    BEFORE,
    CHI2,
    COLUMNS,
    LEVEL,
    LEVEL_SE,
    R2,
    SHAPE,
    SHAPE_SE,
    TOGETHER,
    differences,
    fit_groups,
)
from quantal.joint import DECAY, durations
from quantal.locate import clear
from quantal.trace import Trace, checked_trace, is_finite

Floats = NDArray[np.float64]
Complex = NDArray[np.complex128]

# Events are fitted together if one begins within so many decay constants of the one before.
REACH = 4.0
# More than this many are fitted in parts, cut where they overlap least.
LARGEST = 4
_QUIET = 8.0  # decay constants after which nothing of an event is left

_SUMMARISED = (
    *("amplitude", "tau_rise_ms", "tau_decay_ms", "rise_10_90_ms", "half_decay_ms"),
    *("half_width_ms", "reduced_chi2"),
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Fits:
    """The fit of every event: one row per row of the events, nan where none could be had.

    What is fitted is the event alone, before the low-pass if that was given, else as recorded:
    amplitude (1 - exp(-t / tau_rise)) exp(-t / tau_decay), scaled to a peak of 1.

    amplitude: signed peak, in unit. rise_10_90_ms, half_decay_ms, half_width_ms: of the fitted
    waveform. *_se: standard errors. r2: the part of the variance in the fitted stretch that the fit
    explains. reduced_chi2: what the fit leaves over what noise would leave; near 1 where the event
    has this shape. together: how many events were fitted at once, 0 without a fit.

    tau_rise_ms is nan, and its error with it, where it is too short for the sampling or the
    low-pass or too long for the decay to be told; the other errors then hold for that rise.
    """

    recording: NDArray[np.str_]
    channel: NDArray[np.str_]
    sweep: NDArray[np.int64]
    event: NDArray[np.int64]
    onset_s: Floats
    onset_se_s: Floats
    amplitude: Floats
    amplitude_se: Floats
    unit: NDArray[np.str_]
    tau_rise_ms: Floats
    tau_rise_se_ms: Floats
    tau_decay_ms: Floats
    tau_decay_se_ms: Floats
    rise_10_90_ms: Floats
    half_decay_ms: Floats
    half_width_ms: Floats
    r2: Floats
    reduced_chi2: Floats
    together: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.onset_s)

    def __repr__(self) -> str:
        return f"Fits({len(self)} events, {int((self.together > 0).sum())} fitted)"

    def __getitem__(self, rows: slice | ArrayLike) -> Fits:
        """The chosen rows of every column, by the same means as of events."""
        chosen = chosen_rows(rows, len(self))
        return replace(self, **{name: values[chosen] for name, values in self.columns().items()})

    def columns(self) -> dict[str, NDArray[Any]]:
        """The columns by name, in the order of the table."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def summary(self) -> dict[str, Any]:
        """How many events have a fit, and the statistics of what was fitted."""
        measured = statistics({name: getattr(self, name) for name in _SUMMARISED})
        return {"fitted": int((self.together > 0).sum()), **measured}

    def save(self, path: str | Path) -> None:
        """Write the table; the suffix says how (.csv or .h5)."""
        from quantal.save import save_fits

        save_fits(self, path)


def fit_events(
    traces: Trace | Iterable[Trace], events: Events, *, lowpass_hz: float | None = None
) -> Fits:
    """Fit a biexponential to every event, and to neighbours that overlap all at once.

    traces: what the events were found in, one or several; events of other traces have no fit, nor
    have rejected ones. lowpass_hz: -3 dB frequency of the recording's filter, taken as a Bessel
    low-pass of four poles, which widens what is fitted and delays it; None fits events as recorded,
    with the rise that the filter left.

    Excluded and missing samples are not fitted; an event that they or the end of the sweep cut
    before it has decayed by one time constant has no fit. The baseline is level, or a slope where
    the samples ask for one. Standard errors take the noise's correlation into account, and are
    widened where more is left over than noise.

    Raises UsageError if lowpass_hz is not a positive number or no Trace is given.
    """
    lowpass_hz = checked_lowpass_hz(lowpass_hz)
    table = np.full((len(events), COLUMNS), np.nan)
    scale_ms, start_s = np.full(len(events), np.nan), np.full(len(events), np.nan)
    for trace in [traces] if isinstance(traces, Trace) else traces:
        rows = np.flatnonzero(
            (events.recording == checked_trace(trace).recording)
            & (events.channel == trace.channel)
            & (events.sweep == trace.sweep)
            & (events.status != REJECTED)
            & (events.location_s >= trace.start_s)
            & (events.location_s < trace.stop_s)
        )
        rows = rows[np.argsort(events.location_s[rows], kind="stable")]
        scale_ms[rows], start_s[rows] = 1e3 / trace.rate_hz, trace.start_s
        if len(rows):
            table[rows] = _fit_trace(trace, events[rows], lowpass_hz)
    return _as_fits(table, events, scale_ms, start_s)


def checked_lowpass_hz(lowpass_hz: float | None) -> float | None:
    """The frequency of a low-pass, or None; raises UsageError if it is anything else."""
    if lowpass_hz is not None and not (is_finite(lowpass_hz) and lowpass_hz > 0):
        raise UsageError(
            "lowpass_hz must be a positive frequency (the filter's -3 dB point, such as 2900), "
            f"or None, got {lowpass_hz!r}."
        )
    return lowpass_hz


def _as_fits(table: Floats, events: Events, scale_ms: Floats, start_s: Floats) -> Fits:
    onset, rise, decay = table[:, SHAPE].T
    onset_se, rise_se, decay_se = table[:, SHAPE_SE].T
    rise_10_90, half_decay, half_width = durations(table[:, SHAPE], rise_se).T * scale_ms
    return Fits(
        recording=events.recording,
        channel=events.channel,
        sweep=events.sweep,
        event=events.event,
        onset_s=start_s + 1e-3 * scale_ms * onset,
        onset_se_s=1e-3 * scale_ms * onset_se,
        amplitude=table[:, LEVEL],
        amplitude_se=table[:, LEVEL_SE],
        unit=events.unit,
        tau_rise_ms=np.where(np.isnan(rise_se), np.nan, scale_ms * rise),
        tau_rise_se_ms=scale_ms * rise_se,
        tau_decay_ms=scale_ms * decay,
        tau_decay_se_ms=scale_ms * decay_se,
        rise_10_90_ms=rise_10_90,
        half_decay_ms=half_decay,
        half_width_ms=half_width,
        r2=table[:, R2],
        reduced_chi2=table[:, CHI2],
        together=np.nan_to_num(table[:, TOGETHER]).astype(np.int64),
    )


def _fit_trace(trace: Trace, events: Events, lowpass_hz: float | None) -> Floats:
    """The table of a trace's events, which are in order of time."""
    wanted = trace.wanted()
    samples = np.where(wanted, trace.samples, np.float32(np.nan))
    location = (events.location_s - trace.start_s) * trace.rate_hz
    poles, weights, delay, width = _low_pass(lowpass_hz, trace.rate_hz)
    guesses = _guesses(trace, events, location, delay, width)
    if not len(guesses):
        return np.full((len(events), COLUMNS), np.nan)
    starts = _groups(location, guesses[:, DECAY], wanted)
    noise = _noise(samples, guesses)
    sign = events.polarity.astype(np.float64)
    table: Floats = fit_groups(
        samples, location, guesses, sign, starts, noise, poles, weights, delay, width
    )
    return table


@cache
def _bessel() -> tuple[Complex, Complex]:
    """Poles of a four-pole Bessel low-pass of -3 dB at 1 rad/s, one of each pair; residues."""
    from scipy.signal import besselap

    _, poles, gain = besselap(4, norm="mag")
    others = poles[:, None] - poles + np.eye(4)
    residues = gain / others.prod(axis=1)
    upper = poles.imag > 0
    return np.ascontiguousarray(poles[upper]), np.ascontiguousarray(residues[upper])


def _low_pass(lowpass_hz: float | None, rate_hz: float) -> tuple[Complex, Complex, float, float]:
    """Poles and residues per sample, delay and SD of the impulse response in samples."""
    if lowpass_hz is None:
        nothing = np.empty(0, np.complex128)
        return nothing, nothing, 0.0, 0.0
    turn = 2 * math.pi * lowpass_hz / rate_hz
    poles, weights = _bessel()
    poles, weights = poles * turn, weights * turn
    delay = float((-2 / poles).real.sum())
    return poles, weights, delay, math.sqrt(float((2 / poles**2).real.sum()))


def _guesses(trace: Trace, events: Events, location: Floats, delay: float, width: float) -> Floats:
    """Onset, rise and decay (samples) to start from, by the measures or those of most events."""
    per_ms = trace.rate_hz / 1000
    steep, half = events.rise_10_90_ms * per_ms, events.half_decay_ms * per_ms
    if not (np.isfinite(steep).any() and np.isfinite(half).any()):
        return np.empty((0, 3))
    steep = np.where(np.isfinite(steep), steep, np.nanmedian(steep))
    usual = float(np.nanmedian(np.where(events.overlap, np.nan, half)))
    usual = usual if math.isfinite(usual) else float(np.nanmedian(half))
    half = np.where(np.isfinite(half), np.clip(half, usual / 5, usual * 5), usual)
    onset = (events.onset_s - trace.start_s) * trace.rate_hz
    onset = np.where(np.isfinite(onset), onset, location - 0.6 * steep)
    # the low-pass has widened the rise, as it has the step of which 10 to 90 % are 2.56 SD
    sharp = np.sqrt(np.maximum(steep**2 - (2.56 * width) ** 2, (0.3 * steep) ** 2))
    return np.column_stack([onset - delay, 0.6 * sharp, 1.4 * half])


def _groups(location: Floats, decay: Floats, wanted: NDArray[np.bool_]) -> NDArray[np.int64]:
    """First rows of the groups that are fitted together, and the number of rows."""
    gap = np.diff(location) / decay[:-1]
    missed = np.cumsum(~wanted)[location.astype(np.int64)]
    gap[np.diff(missed) > 0] = np.inf
    edges = [0, *(np.flatnonzero(gap > REACH) + 1).tolist(), len(location)]
    starts: list[int] = []
    for first, stop in pairwise(edges):
        starts += _parts(gap, first, stop)
    return np.array([*starts, len(location)], np.int64)


def _parts(gap: Floats, first: int, stop: int) -> Sequence[int]:
    """First rows of the parts of a chain: it is cut at its widest gap until they are small."""
    if stop - first <= LARGEST:
        return [first]
    cut = first + 1 + int(np.argmax(gap[first : stop - 1]))
    return [*_parts(gap, first, cut), *_parts(gap, cut, stop)]


def _noise(samples: NDArray[np.float32], guesses: Floats) -> Floats:
    """Covariance of the noise at lags from 0 on, less a constant: half the mean squared difference.

    It is the median over parts of the trace, from pairs of samples in which no event is; where
    those are too few, it stays at the level of the last lag that has some.
    """
    quiet = np.isfinite(samples)
    onset, rise, decay = guesses.T
    first, stop = onset - 2 * rise - 2, onset + _QUIET * (decay + rise)
    clear(quiet, *(np.clip(x, 0, len(quiet)).astype(np.int64) for x in (first, stop)))
    longest = math.ceil((BEFORE + AFTER + LARGEST * REACH) * float(guesses[:, DECAY].max())) * 2
    longest = min(longest, max(len(samples) - 1, 1))
    lags = np.unique(np.r_[0, np.geomspace(1, longest, 120)].astype(np.int64))
    found = differences(samples, quiet, lags)
    if np.isnan(found[:, 1]).all():
        found = differences(samples, np.isfinite(samples), lags)
    known = ~np.isnan(found).all(axis=0)
    level = np.nanmedian(found[:, known], axis=0)
    noise: Floats = -np.interp(np.arange(longest + 1), lags[known], level)
    return noise

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
from quantal.joint import (
    DECAY,
    ONSET,
    RISE,
    covariance,
    fit_joint,
    held,
    peak_time,
    slope_row,
    spread,
    tangents,
    unit_peak,
    wave,
    waves,
)
from quantal.kernel import kernel
from quantal.landmarks import mean_of, recorded
from quantal.locate import clear
from quantal.trace import Trace, checked_trace, is_finite

Floats = NDArray[np.float64]
Complex = NDArray[np.complex128]

# Events are fitted together if one begins within so many decay constants of the one before.
REACH = 4.0
# More than this many are fitted in parts, cut where they overlap least.
LARGEST = 4
# Stretch that is fitted, in decay constants: baseline before the onset, and from the onset on.
_BEFORE, _AFTER = 3.0, 6.0
# A fit is repeated where its stretch was so much shorter or longer than the decay asks for.
_SHORTER, _LONGER = 0.7, 1.6
_PER_RISE = 8  # bins in a rise from 10 to 90 %
_LEAST = 12  # bins in a fit
_STEEP = 9.0  # chi-square of a baseline's slope from which the fit has one
_BLOCKS = 128  # of bins, in which the noise that a fit feels is added up
_QUIET = 8.0  # decay constants after which nothing of an event is left
_SEGMENTS, _PAIRS = 24, 2_000  # of the trace, and of samples in each, that tell the noise
_RESOLVED = 0.1  # of a bin, or of the low-pass's width: no rise is told that is faster

_SUMMARISED = (
    *("amplitude", "tau_rise_ms", "tau_decay_ms", "rise_10_90_ms", "half_decay_ms"),
    *("half_width_ms", "reduced_chi2"),
)

# Columns of the table that the kernel fills; times in samples.
_SHAPE, _SHAPE_SE = slice(0, 3), slice(3, 6)
_LEVEL, _LEVEL_SE, _R2, _CHI2, _TOGETHER = range(6, 11)
_WIDTH = 11


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
    table = np.full((len(events), _WIDTH), np.nan)
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
    onset, rise, decay = table[:, _SHAPE].T
    onset_se, rise_se, decay_se = table[:, _SHAPE_SE].T
    rise_10_90, half_decay, half_width = _durations(table[:, _SHAPE], rise_se).T * scale_ms
    return Fits(
        recording=events.recording,
        channel=events.channel,
        sweep=events.sweep,
        event=events.event,
        onset_s=start_s + 1e-3 * scale_ms * onset,
        onset_se_s=1e-3 * scale_ms * onset_se,
        amplitude=table[:, _LEVEL],
        amplitude_se=table[:, _LEVEL_SE],
        unit=events.unit,
        tau_rise_ms=np.where(np.isnan(rise_se), np.nan, scale_ms * rise),
        tau_rise_se_ms=scale_ms * rise_se,
        tau_decay_ms=scale_ms * decay,
        tau_decay_se_ms=scale_ms * decay_se,
        rise_10_90_ms=rise_10_90,
        half_decay_ms=half_decay,
        half_width_ms=half_width,
        r2=table[:, _R2],
        reduced_chi2=table[:, _CHI2],
        together=np.nan_to_num(table[:, _TOGETHER]).astype(np.int64),
    )


def _fit_trace(trace: Trace, events: Events, lowpass_hz: float | None) -> Floats:
    """The table of a trace's events, which are in order of time."""
    wanted = trace.wanted()
    samples = np.where(wanted, trace.samples, np.float32(np.nan))
    location = (events.location_s - trace.start_s) * trace.rate_hz
    poles, weights, delay, width = _low_pass(lowpass_hz, trace.rate_hz)
    guesses = _guesses(trace, events, location, delay, width)
    if not len(guesses):
        return np.full((len(events), _WIDTH), np.nan)
    starts = _groups(location, guesses[:, DECAY], wanted)
    noise = _noise(samples, guesses)
    sign = events.polarity.astype(np.float64)
    table: Floats = _fit_all(
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
    longest = math.ceil((_BEFORE + _AFTER + LARGEST * REACH) * float(guesses[:, DECAY].max())) * 2
    longest = min(longest, max(len(samples) - 1, 1))
    lags = np.unique(np.r_[0, np.geomspace(1, longest, 120)].astype(np.int64))
    found = _differences(samples, quiet, lags)
    if np.isnan(found[:, 1]).all():
        found = _differences(samples, np.isfinite(samples), lags)
    known = ~np.isnan(found).all(axis=0)
    level = np.nanmedian(found[:, known], axis=0)
    noise: Floats = -np.interp(np.arange(longest + 1), lags[known], level)
    return noise


@kernel
def _binned(y, start, stop, size):
    """Means of size samples each, and the times of their middles."""
    count = max((stop - start) // size, 0)
    t = np.empty(count)
    v = np.empty(count)
    for j in range(count):
        v[j] = mean_of(y, start + j * size, start + (j + 1) * size)
        t[j] = start + j * size + 0.5 * (size - 1)
    return t, v


@kernel
def _differences(samples, use, lags):
    """Half the mean squared difference at each lag, in each part of the trace; nan of few pairs."""
    parts = max(min(_SEGMENTS, len(samples) // 1_000), 1)
    found = np.full((parts, len(lags)), np.nan)
    length = len(samples) // parts
    for p in range(parts):
        for k in range(len(lags)):
            m = lags[k]
            step = max(length // _PAIRS, 1)
            total, pairs = 0.0, 0
            for i in range(p * length, min((p + 1) * length, len(samples) - m), step):
                if use[i] and use[i + m]:
                    d = samples[i + m] - samples[i]
                    total += 0.5 * d * d
                    pairs += 1
            if pairs >= 100:
                found[p, k] = total / pairs
    return found


@kernel
def _binned_noise(noise, size, count):
    """Covariance of means of `size` samples at lags of so many; beyond what is known it is held."""
    out = np.zeros(count)
    last = len(noise) - 1
    for m in range(count):
        for d in range(1 - size, size):
            out[m] += (size - abs(d)) * noise[min(abs(m * size + d), last)] / size**2
    return out


@kernel
def _bounds(location, guesses, size, span, delay, width):
    """Within which a fit keeps onset, rise and decay of each event."""
    low, high = np.empty((len(guesses), 3)), np.empty((len(guesses), 3))
    for e in range(len(guesses)):
        reach = 5.0 * guesses[e, RISE] + 3.0 * width + 3.0 * size
        low[e, ONSET] = min(location[e] - delay - reach, guesses[e, ONSET])
        high[e, ONSET] = max(location[e] - delay + 0.5 * reach, guesses[e, ONSET])
        low[e, RISE] = _RESOLVED * max(size, width)
        # a longer one makes the same waveform as a somewhat longer decay
        high[e, RISE] = max(guesses[e, DECAY], 3.0 * guesses[e, RISE])
        low[e, DECAY] = 0.5 * max(size, width)
        high[e, DECAY] = span
    return low, high


@kernel
def _inside(shapes, low, high):
    out = shapes.copy()
    for e in range(len(shapes)):
        for c in range(3):
            out[e, c] = min(max(shapes[e, c], low[e, c]), high[e, c])
    return out


@kernel
def _doubtful(shapes, levels, sign, low, high):
    """The event that cannot be one, pointing the wrong way or being at a bound; -1 if all can."""
    for e in range(len(shapes)):
        if not levels[e] * sign[e] > 0.0:
            return e
    for e in range(len(shapes)):
        for c in (ONSET, DECAY):
            if not low[e, c] < shapes[e, c] < high[e, c]:
                return e
    return -1


@kernel
def _stretch(samples, location, shapes, clear, limit, delay):
    """First sample and stop of what is fitted to a group, between clear and limit."""
    begin = max(int(shapes[0, ONSET] + delay - _BEFORE * shapes[0, DECAY]), clear)
    finish = 0
    for e in range(len(shapes)):
        finish = max(finish, int(shapes[e, ONSET] + delay + _AFTER * shapes[e, DECAY]))
    at = int(location[0])
    return recorded(samples, at, max(at - begin, 0), max(min(finish, limit) - at, 0))


@kernel
def _less_earlier(v, first, size, table, k, poles, weights):
    """Takes the fitted decays of the events before row k from v."""
    for j in range(k - 1, max(k - 20, 0) - 1, -1):
        if math.isnan(table[j, _LEVEL]) or first - table[j, ONSET] > 15.0 * table[j, DECAY]:
            continue
        v -= table[j, _LEVEL] * wave(first, size, len(v), table[j, :3], poles, weights)


@kernel
def _means(rows, block):
    """Rows with every `block` values replaced by their mean."""
    count = rows.shape[1] // block
    out = np.empty((len(rows), count))
    for p in range(len(rows)):
        for j in range(count):
            out[p, j] = rows[p, j * block : (j + 1) * block].mean()
    return out


@kernel
def _slope_wanted(slopes, inverse, left, noise, scale):
    """Whether what a fit leaves has a slope that noise would rarely give."""
    row = np.empty((1, slopes.shape[1]))
    row[0] = slope_row(slopes.shape[1])
    row[0] -= (inverse @ (slopes @ row[0])) @ slopes
    variance = scale * (spread(row, noise) @ row.T)[0, 0]
    return (row @ left.T)[0, 0] ** 2 > _STEEP * variance


@kernel
def _judged(slopes, left, stuck, noise, size):
    """Variances of what is fitted, reduced chi-square, and whether the baseline wants a slope."""
    count = slopes.shape[1]
    block = _block(count)
    coarse, coarse_left = _means(slopes, block), _means(left.reshape(1, count), block)
    felt = _binned_noise(noise, size * block, coarse.shape[1])
    found, inverse, taken = covariance(coarse, felt, stuck)
    expected = count * _binned_noise(noise, size, 1)[0] - block * taken
    chi2 = (left @ left) / expected if expected > 0.0 else np.nan
    scale = chi2 if chi2 > 1.0 else 1.0
    sloped = _slope_wanted(coarse, inverse, coarse_left, felt, scale)
    return scale * np.diag(found), chi2, sloped


@kernel
def _block(count):
    """Bins that are joined where a finer grid tells no more of the noise."""
    return max(1, count // _BLOCKS)


@kernel
def _fit_group(samples, location, guesses, sign, table, k, clear, limit, noise, filtered):
    """Rows of the table for one group of events, the first of which is row k."""
    poles, weights, delay, width = filtered
    out = np.full((len(guesses), _WIDTH), np.nan)
    shapes = guesses.copy()
    rows = np.arange(len(guesses))
    line = np.int64(0)  # not a literal, for which all would be compiled twice
    for attempt in range(len(guesses) + 4):
        if len(rows) == 0:
            break
        now = shapes[rows]
        first, stop = _stretch(samples, location[rows], now, clear, limit, delay)
        size = max(1, int(_sharpest(guesses[rows], width) / _PER_RISE))
        count = (stop - first) // size
        count -= count % _block(count)
        last = len(rows) - 1
        cut = stop < now[last, ONSET] + delay + now[last, DECAY]
        if count < _LEAST or cut or first > now[0, ONSET] + delay - 5 * size:
            rows = rows[:last] if cut else rows[:0]
            continue
        t, v = _binned(samples, first, first + count * size, size)
        step = float(size)
        _less_earlier(v, t[0], step, table, k, poles, weights)
        v -= v.mean()
        low, high = _bounds(location[rows], guesses[rows], size, 2.0 * (stop - first), delay, width)
        now, levels, left, settled = fit_joint(
            v, t[0], step, _inside(now, low, high), low, high, line, poles, weights
        )
        bad = _doubtful(now, levels, sign[rows], low, high)
        if bad < 0 and not settled:
            bad = _faintest(levels, len(rows))
        if bad >= 0:
            rows = np.concatenate((rows[:bad], rows[bad + 1 :]))
            continue
        other = _other_length(shapes[rows], now)
        shapes[rows] = now
        if other and attempt < 3:
            continue
        basis = waves(t[0], step, count, now, line, poles, weights)
        slopes = tangents(t[0], step, now, levels, basis, poles, weights)
        stuck = held(now, np.zeros(len(slopes)), low, high)
        variances, chi2, sloped = _judged(slopes, left, stuck, noise, size)
        if sloped and line == 0:
            line = np.int64(1)
            continue
        _report(out, rows, now, levels, variances, stuck)
        for r in rows:
            out[r, _R2] = 1.0 - (left @ left) / (v @ v)
            out[r, _CHI2] = chi2
            out[r, _TOGETHER] = len(rows)
        break
    return out


@kernel
def _sharpest(shapes, width):
    """The shortest rise from 10 to 90 % (samples) as recorded."""
    shortest = np.inf
    for e in range(len(shapes)):
        shortest = min(shortest, shapes[e, RISE] / 0.6)
    return math.hypot(shortest, 2.56 * width)


@kernel
def _faintest(levels, events):
    faintest = 0
    for e in range(events):
        if abs(levels[e]) < abs(levels[faintest]):
            faintest = e
    return faintest


@kernel
def _other_length(before, after):
    """Whether decays came out so different that they ask for another stretch."""
    for e in range(len(before)):
        ratio = after[e, DECAY] / before[e, DECAY]
        if not _SHORTER < ratio < _LONGER:
            return True
    return False


@kernel
def _report(out, rows, shapes, levels, variances, stuck):
    """Puts shapes, levels and standard errors into the group's rows."""
    for e in range(len(rows)):
        r = rows[e]
        for c in range(3):
            se = math.sqrt(max(variances[3 * e + c], 0.0))
            if c != ONSET:
                se *= shapes[e, c]
            out[r, c] = shapes[e, c]
            out[r, 3 + c] = np.nan if stuck[3 * e + c] else se
        out[r, _LEVEL] = levels[e]
        out[r, _LEVEL_SE] = math.sqrt(max(variances[3 * len(rows) + e], 0.0))


@kernel
def _fit_all(samples, location, guesses, sign, starts, noise, poles, weights, delay, width):
    """Every group in turn, each on what the decays of the earlier ones leave."""
    table = np.full((len(location), _WIDTH), np.nan)
    for g in range(len(starts) - 1):
        a, b = starts[g], starts[g + 1]
        limit = len(samples)
        if b < len(location):
            limit = int(guesses[b, ONSET] + delay - 0.5 * guesses[b, RISE])
        clear = 0
        if a > 0:
            before = guesses[a - 1]
            clear = int(before[ONSET] + delay + peak_time(before[RISE], before[DECAY])) + 1
        table[a:b] = _fit_group(
            samples,
            location[a:b],
            guesses[a:b],
            sign[a:b],
            table,
            a,
            clear,
            limit,
            noise,
            (poles, weights, delay, width),
        )
    return table


@kernel
def _value(t, rise, decay):
    return (1.0 - math.exp(-t / rise)) * math.exp(-t / decay)


@kernel
def _crossing(level, start, stop, rise, decay):
    """When the waveform crosses a level between two times, by halving."""
    rising = _value(start, rise, decay) < _value(stop, rise, decay)
    for _ in range(50):
        middle = 0.5 * (start + stop)
        if (_value(middle, rise, decay) < level) == rising:
            start = middle
        else:
            stop = middle
    return 0.5 * (start + stop)


@kernel
def _durations(shapes, rise_se):
    """Rise from 10 to 90 %, half-decay and half-width (samples) of each fitted waveform."""
    out = np.full((len(shapes), 3), np.nan)
    for k in range(len(shapes)):
        rise, decay = shapes[k, RISE], shapes[k, DECAY]
        if math.isnan(rise):
            continue
        top, at = unit_peak(rise, decay), peak_time(rise, decay)
        t50 = _crossing(0.5 * top, 0.0, at, rise, decay)
        half = _crossing(0.5 * top, at, at + 2.0 * (at + decay), rise, decay)
        if not math.isnan(rise_se[k]) or rise > decay:
            start = _crossing(0.1 * top, 0.0, at, rise, decay)
            out[k, 0] = _crossing(0.9 * top, 0.0, at, rise, decay) - start
        out[k, 1] = half - at
        out[k, 2] = half - t50
    return out

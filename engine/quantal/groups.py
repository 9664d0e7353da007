"""Groups of events that reach into each other, each group fitted together and judged in the noise.

Here a group gets the stretch, the bins and the bounds of its fit; doubtful events are left out, and
standard errors and chi-square come from the covariance of the noise. The fit itself is in joint.py.
"""

from __future__ import annotations

import math

import numpy as np

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
    wave,
    waves,
)
from quantal.kernel import kernel
from quantal.landmarks import mean_of, recorded

# Stretch that is fitted, in decay constants: baseline before the onset, and from the onset on.
BEFORE, AFTER = 3.0, 6.0
# A fit is repeated where its stretch was so much shorter or longer than the decay asks for.
_SHORTER, _LONGER = 0.7, 1.6
_PER_RISE = 8  # bins in a rise from 10 to 90 %
_LEAST = 12  # bins in a fit
_STEEP = 9.0  # chi-square of a baseline's slope from which the fit has one
_BLOCKS = 128  # of bins, in which the noise that a fit feels is added up
_SEGMENTS, _PAIRS = 24, 2_000  # of the trace, and of samples in each, that tell the noise
_RESOLVED = 0.1  # of a bin, or of the low-pass's width: no rise is told that is faster

# Columns of the table that the kernel fills; times in samples.
SHAPE, SHAPE_SE = slice(0, 3), slice(3, 6)
LEVEL, LEVEL_SE, R2, CHI2, TOGETHER = range(6, 11)
COLUMNS = 11


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
def differences(samples, use, lags):
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
    begin = max(int(shapes[0, ONSET] + delay - BEFORE * shapes[0, DECAY]), clear)
    finish = 0
    for e in range(len(shapes)):
        finish = max(finish, int(shapes[e, ONSET] + delay + AFTER * shapes[e, DECAY]))
    at = int(location[0])
    return recorded(samples, at, max(at - begin, 0), max(min(finish, limit) - at, 0))


@kernel
def _less_earlier(v, first, size, table, k, poles, weights):
    """Takes the fitted decays of the events before row k from v."""
    for j in range(k - 1, max(k - 20, 0) - 1, -1):
        if math.isnan(table[j, LEVEL]) or first - table[j, ONSET] > 15.0 * table[j, DECAY]:
            continue
        v -= table[j, LEVEL] * wave(first, size, len(v), table[j, :3], poles, weights)


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
        out[r, LEVEL] = levels[e]
        out[r, LEVEL_SE] = math.sqrt(max(variances[3 * len(rows) + e], 0.0))


@kernel
def _fit_group(samples, location, guesses, sign, table, k, clear, limit, noise, filtered):
    """Rows of the table for one group of events, the first of which is row k."""
    poles, weights, delay, width = filtered
    out = np.full((len(guesses), COLUMNS), np.nan)
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
            out[r, R2] = 1.0 - (left @ left) / (v @ v)
            out[r, CHI2] = chi2
            out[r, TOGETHER] = len(rows)
        break
    return out


@kernel
def fit_groups(samples, location, guesses, sign, starts, noise, poles, weights, delay, width):
    """Every group in turn, each on what the decays of the earlier ones leave."""
    table = np.full((len(location), COLUMNS), np.nan)
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

"""Several events fitted together, each as the recording's low-pass leaves it.

An event is its amplitude times (1 - exp(-s / rise)) exp(-s / decay), s = t - onset, scaled to unit
peak and then filtered. Amplitudes and baseline, in which the curve is linear, are solved for at
every step; Levenberg and Marquardt's method steps in onset, ln rise and ln decay (variable
projection: Golub and Pereyra 1973, SIAM J Numer Anal 10:413; Kaufman 1975, BIT 15:49).
"""

from __future__ import annotations

import math

import numpy as np

from quantal.fitting import solved
from quantal.kernel import kernel

# Entries of an event's shape, in samples.
ONSET, RISE, DECAY = range(3)
_TINY = 1e-30  # what is smaller counts as nothing, and would be slow to multiply
_STEP = 1e-5  # of onset (in rise times), ln rise and ln decay, for derivatives
_ITERATIONS = 60
_SETTLED = 3e-6  # the part of the squares that a step must still take away


@kernel
def unit_peak(rise, decay):
    """The peak of (1 - exp(-t / rise)) exp(-t / decay)."""
    part = rise / (rise + decay)
    return (1.0 - part) * part ** (rise / decay)


@kernel
def peak_time(rise, decay):
    """When that peak is reached, from the onset."""
    return rise * math.log1p(decay / rise)


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
def durations(shapes, rise_se):
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


@kernel
def _gain(rate, poles, weights):
    """How a low-pass changes exp(-rate t) once its transient is over."""
    gain = 1.0 if len(poles) == 0 else 0.0
    for i in range(len(poles)):
        gain -= 2.0 * (weights[i] / (poles[i] + rate)).real
    return gain


@kernel
def wave(first, size, count, shape, poles, weights):
    """An event of unit peak, filtered, at `count` times `size` apart.

    poles, weights: one of each conjugate pair of the low-pass and its residue; none, no filter.
    Each of the exponentials that add up is multiplied on from one time to the next.
    """
    out = np.zeros(count)
    onset, rise, decay = shape[ONSET], shape[RISE], shape[DECAY]
    begin = max(math.floor((onset - first) / size) + 1, 0)
    if begin >= count:
        return out
    s = first + begin * size - onset
    slow, fast = 1.0 / decay, 1.0 / decay + 1.0 / rise
    scale = 1.0 / unit_peak(rise, decay)
    a = scale * _gain(slow, poles, weights) * math.exp(-slow * s)
    b = scale * _gain(fast, poles, weights) * math.exp(-fast * s)
    a_on, b_on = math.exp(-slow * size), math.exp(-fast * size)
    z = np.empty(len(poles), np.complex128)
    z_on = np.exp(poles * size)
    for i in range(len(poles)):
        start = 1.0 / (poles[i] + slow) - 1.0 / (poles[i] + fast)
        z[i] = 2.0 * scale * weights[i] * start * np.exp(poles[i] * s)
    for j in range(begin, count):
        value = a - b
        for i in range(len(z)):
            value += z[i].real
            z[i] = z[i] * z_on[i]
            if abs(z[i].real) + abs(z[i].imag) < _TINY:
                z[i] = 0.0
        out[j] = value
        a *= a_on
        b *= b_on
        if abs(a) < _TINY:
            a = 0.0
        if abs(b) < _TINY:
            b = 0.0
    return out


@kernel
def waves(first, size, count, shapes, line, poles, weights):
    """What the curve is a sum of, one row each: events, baseline and, if wanted, its slope."""
    events = len(shapes)
    rows = np.empty((events + 1 + line, count))
    for e in range(events):
        rows[e] = wave(first, size, count, shapes[e], poles, weights)
    rows[events] = 1.0
    if line > 0:
        rows[events + 1] = slope_row(count)
    return rows


@kernel
def slope_row(count):
    """A straight line from -1 to 1."""
    return np.linspace(-1.0, 1.0, count)


@kernel
def tangents(first, size, shapes, levels, rows, poles, weights):
    """What the curve changes by, per unit of onset, ln rise, ln decay of each event and of levels.

    rows: those of `waves`. Shape (3 events + rows, count).
    """
    events, count = len(shapes), rows.shape[1]
    out = np.empty((3 * events + len(rows), count))
    for e in range(events):
        for c in range(3):
            moved = shapes[e].copy()
            step = _STEP
            if c == ONSET:
                step *= moved[RISE]
                moved[c] += step
            else:
                moved[c] *= math.exp(step)
            changed = wave(first, size, count, moved, poles, weights)
            out[3 * e + c] = (levels[e] / step) * (changed - rows[e])
    out[3 * events :] = rows
    return out


@kernel
def _levels(rows, v):
    return solved(rows @ rows.T, rows @ v)


@kernel
def held(shapes, right, low, high):
    """Which entries of the shapes lie at a bound and are pushed against it; right is changed."""
    stuck = np.zeros(len(right), np.bool_)
    for e in range(len(shapes)):
        for c in range(3):
            push = right[3 * e + c]
            stuck[3 * e + c] = (shapes[e, c] <= low[e, c] and push <= 0.0) or (
                shapes[e, c] >= high[e, c] and push >= 0.0
            )
    return stuck


@kernel
def _without(matrix, right, stuck):
    """The equations with those entries taken out whose step is to be 0."""
    matrix, right = matrix.copy(), right.copy()
    for c in range(len(right)):
        if stuck[c]:
            matrix[c, :] = 0.0
            matrix[:, c] = 0.0
            matrix[c, c] = 1.0
            right[c] = 0.0
    return matrix, right


@kernel
def _moved(shapes, step, low, high):
    """Shapes after a step, kept within bounds, half a decay and a factor of two."""
    new = shapes.copy()
    for e in range(len(shapes)):
        reach = 0.5 * shapes[e, DECAY]
        new[e, ONSET] += min(max(step[3 * e], -reach), reach)
        for c in (RISE, DECAY):
            new[e, c] *= math.exp(min(max(step[3 * e + c], -0.7), 0.7))
        for c in range(3):
            new[e, c] = min(max(new[e, c], low[e, c]), high[e, c])
    return new


@kernel
def fit_joint(v, first, size, guesses, low, high, line, poles, weights):
    """Shapes (events, 3) and levels of least squares, what they leave, and whether it settled.

    v: values at times `size` apart from `first` on. low, high: bounds of the shapes.
    line: 1 for a baseline with a slope, else 0.
    """
    shapes = guesses.copy()
    rows = waves(first, size, len(v), shapes, line, poles, weights)
    levels = _levels(rows, v)
    left = v - levels @ rows
    best = left @ left
    damping = 1e-2
    for _ in range(_ITERATIONS):
        slopes = tangents(first, size, shapes, levels, rows, poles, weights)
        right = slopes @ left
        stuck = held(shapes, right, low, high)
        matrix, right = _without(slopes @ slopes.T, right, stuck)
        better = False
        while not better and damping < 1e7:
            damped = matrix.copy()
            for c in range(3 * len(shapes)):
                damped[c, c] *= 1.0 + damping
            trial = _moved(shapes, solved(damped, right), low, high)
            trial_rows = waves(first, size, len(v), trial, line, poles, weights)
            trial_levels = _levels(trial_rows, v)
            trial_left = v - trial_levels @ trial_rows
            squares = trial_left @ trial_left
            better = squares <= best
            damping = max(0.1 * damping, 1e-8) if better else 8.0 * damping
        if not better:
            return shapes, levels, left, True
        gain = best - squares
        shapes, rows, levels = trial, trial_rows, trial_levels
        left, best = trial_left, squares
        if gain <= _SETTLED * best:
            return shapes, levels, left, True
    return shapes, levels, left, False


@kernel
def spread(rows, noise):
    """Rows times the covariance of the noise, given by lag."""
    count = rows.shape[1]
    out = noise[0] * rows
    for p in range(len(rows)):
        for m in range(1, count):
            c = noise[m]
            for i in range(count - m):
                out[p, i] += c * rows[p, i + m]
            for i in range(count - m):
                out[p, i + m] += c * rows[p, i]
    return out


@kernel
def covariance(slopes, noise, stuck):
    """Covariance of a least-squares fit in coloured noise, its normal equations' inverse, and the
    expected squares of noise that the fit takes up.

    slopes: rows of `tangents`; those that are stuck have none. noise: covariance by lag, up to a
    constant, which a baseline takes away.
    """
    size = len(slopes)
    nothing = np.zeros(size)
    inner, _ = _without(slopes @ slopes.T, nothing, stuck)
    outer, _ = _without(slopes @ spread(slopes, noise).T, nothing, stuck)
    inverse = np.empty((size, size))
    for c in range(size):
        unit = np.zeros(size)
        unit[c] = 1.0
        inverse[c] = solved(inner, unit)
    half = inverse @ outer
    taken = 0.0
    for c in range(size):
        if stuck[c]:
            half[c, c] = 0.0
        taken += half[c, c]
    return half @ inverse, inverse, taken

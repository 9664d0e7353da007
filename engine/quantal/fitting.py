"""A rise and decay fitted to one event by least squares: Levenberg and Marquardt's method.

The shape is scale (1 - exp(-t / rising))^power exp(-t / falling) from its start on; power is fixed.
"""

from __future__ import annotations

import math

import numpy as np

from quantal.kernel import kernel

# Entries of a fitted rise and decay.
START, SCALE, RISING, FALLING, POWER = range(5)


@kernel
def shape_at(t, shape):
    """The fitted rise and decay at time t."""
    s = t - shape[START]
    if s <= 0.0:
        return 0.0
    rise = 1.0 - math.exp(-s / shape[RISING])
    if shape[POWER] == 2.0:
        rise *= rise
    return shape[SCALE] * rise * math.exp(-s / shape[FALLING])


@kernel
def shape_integral(start, stop, shape):
    """Area of the fitted rise and decay between two times, by the midpoint rule."""
    parts = 200
    total = 0.0
    for j in range(parts):
        total += shape_at(start + (j + 0.5) * (stop - start) / parts, shape)
    return total * (stop - start) / parts


@kernel
def squares_left(t, v, shape):
    """The sum of the squares that a shape leaves of values v at times t."""
    total = 0.0
    for j in range(len(t)):
        total += (v[j] - shape_at(t[j], shape)) ** 2
    return total


@kernel
def normal_equations(t, v, shape):
    """Matrix and right side for a step in start and in the logarithms of scale, rise and decay."""
    matrix = np.zeros((4, 4))
    right = np.zeros(4)
    d = np.empty(4)
    for j in range(len(t)):
        s = t[j] - shape[START]
        if s <= 0.0:
            continue
        e = math.exp(-s / shape[RISING])
        value = shape_at(t[j], shape)
        bend = shape[POWER] * value * e / max(1.0 - e, 1e-12) / shape[RISING]
        d[0] = value / shape[FALLING] - bend
        d[1] = value
        d[2] = -bend * s
        d[3] = value * s / shape[FALLING]
        for r in range(4):
            right[r] += d[r] * (v[j] - value)
            for c in range(4):
                matrix[r, c] += d[r] * d[c]
    return matrix, right


@kernel
def solved(matrix, right):
    """Solution of symmetric positive equations by elimination; zeros if they have none."""
    n = len(right)
    m = matrix.copy()
    x = right.copy()
    for c in range(n):
        if not m[c, c] > 0.0:
            return np.zeros(n)
        for r in range(c + 1, n):
            f = m[r, c] / m[c, c]
            for q in range(c, n):
                m[r, q] -= f * m[c, q]
            x[r] -= f * x[c]
    for c in range(n - 1, -1, -1):
        for q in range(c + 1, n):
            x[c] -= m[c, q] * x[q]
        x[c] /= m[c, c]
    return x


@kernel
def _stepped(shape, step, rise, longest):
    """The shape after a step, kept within a rise time, a factor of two and sensible constants."""
    new = shape.copy()
    new[START] += min(max(step[0], -rise), rise)
    new[SCALE] *= math.exp(min(max(step[1], -0.7), 0.7))
    new[RISING] *= math.exp(min(max(step[2], -0.7), 0.7))
    new[FALLING] *= math.exp(min(max(step[3], -0.7), 0.7))
    new[RISING] = min(max(new[RISING], 0.1 * rise), longest)
    new[FALLING] = min(max(new[FALLING], 0.1 * rise), longest)
    return new


@kernel
def fit_shape(t, v, shape, rise, longest):
    """Rise and decay of least squares, by Levenberg and Marquardt's method, and its squares."""
    best = squares_left(t, v, shape)
    matrix, right = normal_equations(t, v, shape)
    damping = 1e-3
    for _ in range(40):
        damped = matrix.copy()
        for c in range(4):
            damped[c, c] *= 1.0 + damping
        trial = _stepped(shape, solved(damped, right), rise, longest)
        squares = squares_left(t, v, trial)
        if squares <= best:
            settled = best - squares <= 1e-4 * best
            shape, best = trial, squares
            if settled:
                break
            matrix, right = normal_equations(t, v, shape)
            damping = max(0.2 * damping, 1e-9)
        else:
            damping *= 6.0
            if damping > 1e6:
                break
    return shape, best

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
def normal_equations(t, v, weight, shape):
    """Matrix and right side for a step in start and in the logarithms of scale, rise and decay.

    Of values v at times t, whose squares count by their weights. And the sum of the squares that
    the shape leaves.
    """
    matrix = np.zeros((4, 4))
    right = np.zeros(4)
    d = np.empty(4)
    squares = 0.0
    for j in range(len(t)):
        s = t[j] - shape[START]
        if s <= 0.0:
            squares += weight[j] * v[j] ** 2
            continue
        e = math.exp(-s / shape[RISING])
        part = shape[SCALE] * math.exp(-s / shape[FALLING])
        if shape[POWER] == 2.0:
            part *= 1.0 - e
        value = part * (1.0 - e)
        bend = shape[POWER] * part * e / shape[RISING]
        d[0] = value / shape[FALLING] - bend
        d[1] = value
        d[2] = -bend * s
        d[3] = value * s / shape[FALLING]
        left = v[j] - value
        squares += weight[j] * left**2
        for r in range(4):
            right[r] += weight[j] * d[r] * left
            for c in range(r, 4):
                matrix[r, c] += weight[j] * d[r] * d[c]
    for r in range(4):
        for c in range(r):
            matrix[r, c] = matrix[c, r]
    return matrix, right, squares


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
def fit_shape(t, v, weight, shape, rise, longest, close):
    """Rise and decay of least squares, by Levenberg and Marquardt's method, and its squares.

    It is found when a step lowers the squares by no more than this part of them.
    """
    matrix, right, best = normal_equations(t, v, weight, shape)
    damping = 1e-3
    for _ in range(40):
        damped = matrix.copy()
        for c in range(4):
            damped[c, c] *= 1.0 + damping
        trial = _stepped(shape, solved(damped, right), rise, longest)
        found = normal_equations(t, v, weight, trial)
        if found[2] <= best:
            settled = best - found[2] <= close * best
            shape = trial
            matrix, right, best = found
            if settled:
                break
            damping = max(0.2 * damping, 1e-9)
        else:
            damping *= 6.0
            if damping > 1e6:
                break
    return shape, best

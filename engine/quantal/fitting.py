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
def shape_along(first, step, count, shape):
    """The fitted rise and decay at count times from first on, `step` apart."""
    out = np.zeros(count)
    begin = max(math.floor((shape[START] - first) / step) + 1, 0)
    s = first + begin * step - shape[START]
    e, f = math.exp(-s / shape[RISING]), shape[SCALE] * math.exp(-s / shape[FALLING])
    e_step, f_step = math.exp(-step / shape[RISING]), math.exp(-step / shape[FALLING])
    for j in range(begin, count):
        rise = 1.0 - e
        if shape[POWER] == 2.0:
            rise *= rise
        out[j] = rise * f
        e *= e_step
        f *= f_step
    return out


@kernel
def shape_integral(start, stop, shape):
    """Area of the fitted rise and decay between two times, by the midpoint rule."""
    parts = 200
    step = (stop - start) / parts
    return shape_along(start + 0.5 * step, step, parts, shape).sum() * step


@kernel
def normal_equations(matrix, right, t, v, weight, shape):
    """Fills matrix (4, 4) and right side (4,) for a step in start and in the logarithms of scale,
    rise and decay, and gives the sum of the squares that the shape leaves.

    Of values v at times t, whose squares count by their weights. Of the matrix only the upper half
    is filled.
    """
    m00 = m01 = m02 = m03 = m11 = m12 = m13 = m22 = m23 = m33 = 0.0
    r0 = r1 = r2 = r3 = squares = 0.0
    e = f = e_step = f_step = step = 0.0
    for j in range(len(t)):
        s = t[j] - shape[START]
        if s <= 0.0:
            squares += weight[j] * v[j] ** 2
            continue
        if j and t[j] - t[j - 1] == step:  # as far from the last as that from the one before
            if e_step == 0.0:
                e_step, f_step = math.exp(-step / shape[RISING]), math.exp(-step / shape[FALLING])
            e *= e_step
            f *= f_step
        else:
            e, f = math.exp(-s / shape[RISING]), math.exp(-s / shape[FALLING])
            e_step, step = 0.0, t[j] - t[j - 1] if j else 0.0
        part = shape[SCALE] * f
        if shape[POWER] == 2.0:
            part *= 1.0 - e
        value = part * (1.0 - e)
        bend = shape[POWER] * part * e / shape[RISING]
        d0, d1, d2, d3 = value / shape[FALLING] - bend, value, -bend * s, value * s / shape[FALLING]
        left, w = v[j] - value, weight[j]
        squares += w * left**2
        r0, r1, r2, r3 = (
            r0 + w * d0 * left,
            r1 + w * d1 * left,
            r2 + w * d2 * left,
            r3 + w * d3 * left,
        )
        m00, m01, m02, m03 = (
            m00 + w * d0 * d0,
            m01 + w * d0 * d1,
            m02 + w * d0 * d2,
            m03 + w * d0 * d3,
        )
        m11, m12, m13 = m11 + w * d1 * d1, m12 + w * d1 * d2, m13 + w * d1 * d3
        m22, m23, m33 = m22 + w * d2 * d2, m23 + w * d2 * d3, m33 + w * d3 * d3
    matrix[0, 0], matrix[0, 1], matrix[0, 2], matrix[0, 3] = m00, m01, m02, m03
    matrix[1, 1], matrix[1, 2], matrix[1, 3] = m11, m12, m13
    matrix[2, 2], matrix[2, 3], matrix[3, 3] = m22, m23, m33
    right[0], right[1], right[2], right[3] = r0, r1, r2, r3
    return squares


@kernel
def solved(matrix, right):
    """Solution of symmetric positive equations, of which the upper half counts; zeros if none."""
    m, x = matrix.copy(), right.copy()
    _solve(m, x)
    return x


@kernel
def _solve(m, x):
    """Elimination in place: the right side x becomes the solution, the matrix is used up."""
    n = len(x)
    for c in range(n):
        if not m[c, c] > 0.0:
            x[:] = 0.0
            return
        for r in range(c + 1, n):
            f = m[c, r] / m[c, c]
            for q in range(r, n):
                m[r, q] -= f * m[c, q]
            x[r] -= f * x[c]
    for c in range(n - 1, -1, -1):
        for q in range(c + 1, n):
            x[c] -= m[c, q] * x[q]
        x[c] /= m[c, c]


@kernel
def _step(shape, step, rise, longest, out):
    """Fills out with the shape after a step: within a rise time, a factor of two, and sense."""
    out[START] = shape[START] + min(max(step[0], -rise), rise)
    out[SCALE] = shape[SCALE] * math.exp(min(max(step[1], -0.7), 0.7))
    rising = shape[RISING] * math.exp(min(max(step[2], -0.7), 0.7))
    falling = shape[FALLING] * math.exp(min(max(step[3], -0.7), 0.7))
    out[RISING] = min(max(rising, 0.1 * rise), longest)
    out[FALLING] = min(max(falling, 0.1 * rise), longest)
    out[POWER] = shape[POWER]


@kernel
def fit_shape(t, v, weight, shape, rise, longest, close):
    """Rise and decay of least squares, by Levenberg and Marquardt's method, and its squares.

    It is found when a step lowers the squares by no more than this part of them.
    """
    shape, trial = shape.copy(), np.empty(5)
    matrix, right, damped, step = np.empty((4, 4)), np.empty(4), np.empty((4, 4)), np.empty(4)
    new_matrix, new_right = np.empty((4, 4)), np.empty(4)
    best = normal_equations(matrix, right, t, v, weight, shape)
    damping = 1e-3
    for _ in range(40):
        damped[:] = matrix
        step[:] = right
        for c in range(4):
            damped[c, c] *= 1.0 + damping
        _solve(damped, step)
        _step(shape, step, rise, longest, trial)
        squares = normal_equations(new_matrix, new_right, t, v, weight, trial)
        if squares <= best:
            settled = best - squares <= close * best
            shape, trial = trial, shape
            matrix, new_matrix = new_matrix, matrix
            right, new_right = new_right, right
            best = squares
            if settled:
                break
            damping = max(0.2 * damping, 1e-9)
        else:
            damping *= 6.0
            if damping > 1e6:
                break
    return shape, best

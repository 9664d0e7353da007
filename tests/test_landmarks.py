"""What a line of values shows: hand-drawn cases and oracles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

import naive
from quantal import landmarks

Floats = NDArray[np.float64]

values = st.floats(-8, 8, width=16).map(float)
lines = arrays(np.float64, st.integers(3, 40), elements=values)


def test_crossings_of_a_hand_drawn_line() -> None:
    y = np.array([0.0, 0.0, 2.0, 4.0, 3.0, 1.0, 1.0])
    assert landmarks.rise_crossing(y, 0, 3, 1.0) == 1.5
    assert landmarks.fall_crossing(y, 3, 7, 2.0) == 4.5
    assert np.isnan(landmarks.fall_crossing(y, 3, 7, 0.5))
    assert np.isnan(landmarks.rise_crossing(y, 0, 3, 5.0))
    assert landmarks.integral(y, 1.5, 3.0, 0.0) == pytest.approx(0.75 + 3.0)


def test_the_peak_is_sought_until_half_is_lost() -> None:
    y = np.array([0.0, 3.0, 5.0, 4.0, 6.0, 2.0, 9.0])
    assert landmarks.highest_before_half(y, 1, 7, 0.0) == 4


@settings(max_examples=60, deadline=None)
@given(y=lines, level=values)
def test_crossings_agree_with_the_oracle(y: Floats, level: float) -> None:
    n = len(y)
    rise = landmarks.rise_crossing(y, 0, n - 1, level)
    fall = landmarks.fall_crossing(y, 0, n, level)
    assert rise == pytest.approx(naive.rise_crossing(y, 0, n - 1, level), nan_ok=True)
    assert fall == pytest.approx(naive.fall_crossing(y, 0, n, level), nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(y=lines, base=values)
def test_the_peak_agrees_with_the_oracle(y: Floats, base: float) -> None:
    assert landmarks.highest_before_half(y, 1, len(y), base) == naive.highest_before_half(
        y, 1, len(y), base
    )


@settings(max_examples=60, deadline=None)
@given(y=lines, data=st.data(), half_width=st.floats(0.1, 20))
def test_the_local_mean_agrees_with_the_oracle(
    y: Floats, data: st.DataObject, half_width: float
) -> None:
    i = data.draw(st.integers(0, len(y) - 1))
    mean = landmarks.local_mean(y, i, half_width)
    assert mean == pytest.approx(naive.local_mean(y, i, half_width), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(y=lines, base=values, a=st.floats(0, 1), b=st.floats(0, 1))
def test_the_area_agrees_with_the_oracle(y: Floats, base: float, a: float, b: float) -> None:
    start, stop = sorted((a * (len(y) - 1), b * (len(y) - 1)))
    area = landmarks.integral(y, start, stop, base)
    assert area == pytest.approx(naive.integral(y, start, stop, base), abs=1e-9)

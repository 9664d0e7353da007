"""Sampling rates from what files say about time."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

SECONDS = {
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "seconds": 1.0,
    "ms": 1e-3,
    "msec": 1e-3,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "usec": 1e-6,
    "min": 60.0,
}

# No rig samples faster, so a bare interval that would mean more in ms must be in seconds.
_FASTEST_HZ = 1e6
# Beyond a quarter of a step, a sample may be missing or time may have been rounded too coarsely.
_LARGEST_JITTER = 0.25
_LATEST = 1e300


class NoRateError(Exception):
    """Time is stated, but no rate follows from it; the message says why."""


def rate_from_interval(interval: float, unit: str | None, named: str) -> float:
    """Rate in Hz from the time between two samples.

    unit: s, ms, us, min, or None where none is stated: then seconds, if milliseconds would mean
        more than 1 MHz. named: what the interval is called in an error.

    Raises NoRateError if the interval is not positive, or could be seconds or milliseconds.
    """
    if not (math.isfinite(interval) and interval > 0):
        raise NoRateError(f"{named} = {interval:g} is not a time between samples")
    if unit is None and interval * _FASTEST_HZ * SECONDS["ms"] >= 1:
        raise NoRateError(f"{named} = {interval:g} could be seconds or milliseconds")
    if unit is not None and unit.lower() not in SECONDS:
        raise NoRateError(f"{named} is in an unknown unit of time, {unit!r}")
    # As decimals: 1 / 2e-5 in binary is not quite 50,000.
    seconds = Fraction(str(float(interval))) * Fraction(str(SECONDS[(unit or "s").lower()]))
    try:
        return float(1 / seconds)
    except OverflowError:
        raise NoRateError(f"{named} = {interval:g} is not a time between samples") from None


def rate_from_times(times: NDArray[np.float64], unit: str | None, named: str) -> float:
    """Rate in Hz from a column of times, one per sample.

    Raises NoRateError if the times are not evenly spaced to a quarter of a step.
    """
    if len(times) < 2:
        raise NoRateError(f"{named} holds a single time")
    if not (np.isfinite(times).all() and np.abs(times).max() < _LATEST):
        raise NoRateError(f"{named} holds times that are not numbers, or absurdly large ones")
    interval = float(times[-1] - times[0]) / (len(times) - 1)
    even = times[0] + interval * np.arange(len(times))
    if interval > 0 and np.abs(times - even).max() > _LARGEST_JITTER * interval:
        steps = np.diff(times)
        raise NoRateError(
            f"{named} is not evenly spaced (steps from {steps.min():g} to {steps.max():g})"
        )
    return rate_from_interval(interval, unit, f"the step of {named}")

"""A stretch of one channel, with its clock and its origin."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import TypeGuard

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal.errors import UsageError

log = logging.getLogger(__name__)

# Below this ratio of range to offset, single precision would round the signal itself away.
SMALLEST_RANGE = 1e-4
_LOOKED_AT = 1 << 20  # samples at a time, so that no mask is as long as the trace


def _no_rate() -> float:
    raise UsageError("a trace needs its samples per second, such as rate_hz=50_000.0.")


def _no_unit() -> str:
    raise UsageError("a trace needs the unit of its samples: 'pA', or 'a.u.' if it is not known.")


@dataclass(frozen=True, eq=False, kw_only=True)
class Trace:
    """Samples of one channel in one sweep.

    samples: one value per tick, kept as float32; nan where nothing was recorded.
    rate_hz: samples per second, exactly as the file has it.
    unit: the unit of the samples, such as pA, mV or dF/F.
    start_s: time of the first sample on the sweep's own clock.
    recording, channel, sweep: where the samples came from.
    excluded: stretches (start_s, stop_s) in which no event is wanted, on the sweep's clock.

    Raises UsageError if rate or unit are left out, the samples are not one-dimensional numbers, the
    rate is not positive, the start is not finite, or an offset is so large that single precision
    would lose the signal.
    """

    samples: NDArray[np.float32]
    rate_hz: float = field(default_factory=_no_rate)
    unit: str = field(default_factory=_no_unit)
    start_s: float = 0.0
    recording: str = ""
    channel: str = ""
    sweep: int = 0
    excluded: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "samples", _as_samples(self.samples))
        if not (is_finite(self.rate_hz) and self.rate_hz > 0):
            raise UsageError(f"rate_hz must be a positive number, got {self.rate_hz!r}.")
        if not is_finite(self.start_s):
            raise UsageError(f"start_s must be a time in seconds, got {self.start_s!r}.")
        object.__setattr__(self, "rate_hz", float(self.rate_hz))
        object.__setattr__(self, "start_s", float(self.start_s))
        object.__setattr__(self, "excluded", _merged(self.excluded))

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.rate_hz

    @property
    def stop_s(self) -> float:
        """Time just after the last sample, on the sweep's clock."""
        return self.start_s + self.duration_s

    def index(self, time_s: float) -> int:
        """The first sample at or after a time on the sweep's clock, within 0 and len(self)."""
        if math.isnan(time_s):
            raise UsageError("a time must be a number of seconds, got nan.")
        position = (time_s - self.start_s) * self.rate_hz
        return math.ceil(min(max(position - 1e-6, 0.0), len(self.samples)))

    def between(self, start_s: float | None = None, stop_s: float | None = None) -> Trace:
        """The part from start_s up to stop_s; it keeps the sweep's clock and shares the samples.

        Raises UsageError if nothing is left.
        """
        first = 0 if start_s is None else self.index(start_s)
        last = len(self) if stop_s is None else self.index(stop_s)
        if last <= first:
            begin = self.start_s if start_s is None else start_s
            end = self.stop_s if stop_s is None else stop_s
            raise UsageError(
                f"nothing lies between {begin:g} and {end:g} s: sweep {self.sweep} spans "
                f"{self.start_s:g} to {self.stop_s:g} s."
            )
        start = self.start_s + first / self.rate_hz
        return replace(self, samples=self.samples[first:last], start_s=start)

    def exclude(self, stretches: Iterable[tuple[float, float]]) -> Trace:
        """The same trace with more stretches (start_s, stop_s) in which no event is wanted.

        One that lies outside the trace is told as a warning of the log. Raises UsageError if a
        stretch is not a pair of times that runs forward.
        """
        stretches = tuple(stretches)
        more = replace(self, excluded=(*self.excluded, *stretches))
        for warning in outside(stretches, self.start_s, self.stop_s):
            log.warning("%s", warning)
        return more

    def __repr__(self) -> str:
        where = " ".join(filter(None, (self.recording, self.channel, f"sweep {self.sweep}")))
        return f"Trace({where}: {len(self)} samples at {self.rate_hz:g} Hz, {self.unit})"

    def wanted(self) -> NDArray[np.bool_]:
        """Which samples can hold an event: recorded (finite) and not excluded; shape (len,)."""
        keep = np.ones(len(self), np.bool_)
        unwanted = self.unwanted()
        for start, stop in zip(unwanted.starts, unwanted.stops, strict=True):
            keep[start:stop] = False
        return keep

    def unwanted(self) -> Stretches:
        """Where no event can be, for samples are missing or excluded; in order, apart."""
        runs = [_missing(self.samples, a) for a in range(0, len(self), _LOOKED_AT)]
        runs += [
            np.array([[self.index(start_s), self.index(stop_s)]])
            for start_s, stop_s in self.excluded
        ]
        return Stretches.merged(np.concatenate([np.empty((0, 2), np.int64), *runs]))


@dataclass(frozen=True, eq=False, kw_only=True)
class Stretches:
    """Stretches of samples from starts to stops, each array (n,), in order and apart."""

    starts: NDArray[np.int64]
    stops: NDArray[np.int64]

    @classmethod
    def merged(cls, pairs: NDArray[np.int64]) -> Stretches:
        """From pairs (n, 2) in any order; empty ones are left out, those that touch are joined."""
        pairs = pairs[pairs[:, 1] > pairs[:, 0]]
        pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
        reached = np.maximum.accumulate(pairs[:, 1])
        begins = np.r_[True, pairs[1:, 0] > reached[:-1]][: len(pairs)]
        ends = np.r_[begins[1:], True][: len(pairs)]
        return cls(starts=pairs[begins, 0], stops=reached[ends])

    @property
    def total(self) -> int:
        """Samples in all of them."""
        return int((self.stops - self.starts).sum())

    def rest(self, length: int) -> Stretches:
        """What they leave of so many samples."""
        edges = np.r_[0, np.c_[self.starts, self.stops].ravel(), length].reshape(-1, 2)
        return Stretches.merged(edges)

    def meet(self, starts: NDArray[np.integer], stops: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Which stretches from starts to stops share a sample with one of them."""
        return self.hold(starts) | (self.before(stops - 1) > self.before(starts))

    def before(self, samples: NDArray[np.integer]) -> NDArray[np.int64]:
        """How many of them begin at or before these samples."""
        return np.searchsorted(self.starts, samples, side="right")

    def hold(self, samples: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Which of these samples lie in one of them."""
        stops = np.r_[np.int64(np.iinfo(np.int64).min), self.stops]
        held: NDArray[np.bool_] = samples < stops[self.before(samples)]
        return held


def _missing(samples: NDArray[np.float32], start: int) -> NDArray[np.int64]:
    """Runs (n, 2) of samples that are not finite in the part that is looked at from start on."""
    bad = ~np.isfinite(samples[start : start + _LOOKED_AT])
    if not bad.any():
        return np.empty((0, 2), np.int64)
    edges = np.flatnonzero(np.diff(np.r_[False, bad, False]))
    return start + edges.reshape(-1, 2)


def outside(stretches: Iterable[tuple[float, float]], start_s: float, stop_s: float) -> list[str]:
    """Of every stretch that shares nothing with a recording from start_s to stop_s, a warning."""
    return [
        f"nothing is excluded from {first:g} to {last:g} s: the recording spans {start_s:g} to "
        f"{stop_s:g} s, and times are in seconds"
        for first, last in stretches
        if first >= stop_s or last <= start_s
    ]


def is_finite(value: object) -> TypeGuard[float]:
    """Whether something is a finite real number, of Python's or NumPy's."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def checked_trace(trace: object) -> Trace:
    """The trace itself; raises UsageError for anything else, such as a list of traces."""
    if isinstance(trace, Trace):
        return trace
    if isinstance(trace, list | tuple) and trace and isinstance(trace[0], Trace):
        raise UsageError(
            f"one Trace is wanted, got {len(trace)} of them: take one after the other, as in "
            "quantal.join(quantal.detect(trace) for trace in traces)."
        )
    raise UsageError(
        f"a Trace is wanted, got {type(trace).__name__}: make one with "
        "quantal.Trace(samples=x, rate_hz=50_000.0, unit='pA')."
    )


def _as_samples(values: ArrayLike) -> NDArray[np.float32]:
    if isinstance(values, np.ma.MaskedArray):
        values = np.where(values.mask, np.nan, values.data)
    array = np.asarray(values)
    if array.ndim != 1:
        raise UsageError(
            f"samples must be one-dimensional, got shape {array.shape}; "
            "make one Trace per channel and sweep."
        )
    if array.dtype.kind not in "iufb":
        raise UsageError(f"samples must be real numbers, got dtype {array.dtype}.")
    if array.dtype == np.float32:
        return np.ascontiguousarray(array)
    with np.errstate(over="ignore", invalid="ignore"):
        samples = np.ascontiguousarray(array, dtype=np.float32)
    _refuse_lost_precision(array, samples)
    return samples


def _refuse_lost_precision(array: NDArray[np.generic], samples: NDArray[np.float32]) -> None:
    finite = np.asarray(array[np.isfinite(array)], dtype=np.float64)
    if not len(finite):
        return
    low, high = float(finite.min()), float(finite.max())
    if not np.isfinite(samples[np.isfinite(array)]).all():
        raise UsageError(f"samples up to {max(-low, high):.3g} do not fit single precision.")
    refuse_offset(low, high)


def refuse_offset(low: float, high: float) -> None:
    """Raise UsageError if what lies between is lost in single precision."""
    if 0 < high - low < SMALLEST_RANGE * max(-low, high):
        raise UsageError(
            f"samples span {high - low:.3g} on an offset of {low:.6g}: subtract the offset first, "
            "or single precision would lose the signal."
        )


def _merged(stretches: Iterable[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Stretches in order, with overlapping ones joined."""
    merged: list[tuple[float, float]] = []
    try:
        pairs = sorted((float(a), float(b)) for a, b in stretches)
    except (TypeError, ValueError):
        raise UsageError(
            "excluded stretches must be pairs of times in seconds, such as [(0.14, 0.42)], "
            f"got {stretches!r}."
        ) from None
    for start, stop in pairs:
        if not (math.isfinite(start) and math.isfinite(stop) and start < stop):
            raise UsageError(
                f"an excluded stretch must run forward in time, got {start} to {stop} s."
            )
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return tuple(merged)

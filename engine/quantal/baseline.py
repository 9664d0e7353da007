"""Raw fluorescence -> dF/F: the resting fluorescence F0 of every ROI, all along."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from quantal.errors import UsageError
from quantal.filters import fill_missing
from quantal.imaging import DFF, RAW, Rois
from quantal.runtime import cores
from quantal.trace import is_finite

Floats = NDArray[np.float64]

PERCENTILE, EXPONENTIAL = "percentile", "exponential"
METHODS = (PERCENTILE, EXPONENTIAL)
_KNOTS = 10  # in a window, at which the running percentile is computed; straight lines between
_BINS = 100  # of a trace, whose medians the exponential is fitted to
_TIMES = 60  # time constants that are tried


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """How the resting fluorescence F0 is read.

    method: "percentile" is a running percentile over window_s seconds around each sample (fewer at
    the ends); "exponential" is a decaying exponential and a constant, fitted to the medians of a
    hundredth of the trace each, for bleaching in traces without slow signals.

    Raises UsageError if something is out of range.
    """

    method: str = PERCENTILE
    window_s: float = 30.0
    percentile: float = 20.0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"the baseline is one of {', '.join(METHODS)}, got {self.method!r}.")
        if not (is_finite(self.window_s) and self.window_s > 0):
            raise UsageError(f"the baseline's window must be positive, got {self.window_s!r} s.")
        if not (is_finite(self.percentile) and 0 <= self.percentile <= 100):
            raise UsageError(f"the percentile must be 0 to 100, got {self.percentile!r}; try 20.")

    def __str__(self) -> str:
        if self.method == EXPONENTIAL:
            return "F0 is an exponential fitted to each ROI"
        return f"F0 is the running {self.percentile:g}th percentile over {self.window_s:g} s"


def delta_f(rois: Rois, baseline: Baseline, threads: int | None = None) -> Rois:
    """dF/F of raw fluorescence, (F - F0) / F0.

    A ROI whose F0 is not positive all along (its neuropil was too bright) has none: all nan. How F0
    was read is noted.
    Raises UsageError if it is not raw.
    """
    if rois.kind != RAW:
        raise UsageError(f"dF/F is taken of raw fluorescence, got {rois.kind}.")

    def normalised(samples: NDArray[np.float32]) -> NDArray[np.float32]:
        f0 = resting(samples, rois.rate_hz, baseline)
        if not (f0 > 0).all():
            return np.full(len(samples), np.nan, np.float32)
        return np.asarray((samples - f0) / f0, np.float32)

    with ThreadPoolExecutor(threads or cores()) as pool:
        samples = np.stack(list(pool.map(normalised, rois.samples)))
    return replace(rois, samples=samples, kind=DFF, notes=(*rois.notes, str(baseline)))


def resting(samples: NDArray[np.float32], rate_hz: float, baseline: Baseline) -> Floats:
    """F0 of one ROI at every sample; what is missing is bridged."""
    filled = fill_missing(samples)
    if baseline.method == EXPONENTIAL:
        return _exponential(filled)
    width = max(round(baseline.window_s * rate_hz), 1)
    return _running_percentile(filled, width, baseline.percentile)


def _running_percentile(samples: NDArray[np.float32], width: int, percentile: float) -> Floats:
    """Percentiles of the samples within half a width, at knots; straight lines between them."""
    n, half = len(samples), (width + 1) // 2
    count = max(-(-_KNOTS * n // width), 2)
    at = np.unique(np.rint(np.linspace(0, n - 1, count)).astype(np.int64))
    levels = [_ranked(samples[max(i - half, 0) : i + half + 1], percentile) for i in at.tolist()]
    return np.interp(np.arange(n), at, levels)


def _ranked(values: NDArray[np.float32], percentile: float) -> float:
    """The value nearest in rank to a percentile: without numpy.percentile's many checks."""
    rank = round(percentile / 100 * (len(values) - 1))
    return float(np.partition(values, rank)[rank])


def _exponential(samples: NDArray[np.float32]) -> Floats:
    """a exp(-t / tau) + c, by least squares of the medians of bins; a is 0 where it would grow."""
    n = len(samples)
    edges = np.unique(np.linspace(0, n, min(_BINS, n) + 1).astype(np.int64))
    level = np.array([np.median(part) for part in np.split(samples, edges[1:-1])], np.float64)
    middle = np.asarray(0.5 * (edges[1:] + edges[:-1] - 1), np.float64)
    tries = [_fit_decay(middle, level, tau) for tau in n * np.geomspace(0.02, 5.0, _TIMES)]
    best = min(range(_TIMES), key=lambda k: tries[k][0])
    _, height, constant, tau = tries[best]
    return np.asarray(height * np.exp(-np.arange(n) / tau) + constant, np.float64)


def _fit_decay(t: Floats, level: Floats, tau: float) -> tuple[float, float, float, float]:
    """Squared error, height and constant for one time constant, and that constant."""
    shape = np.exp(-t / tau)
    centred = shape - shape.mean()
    height = max(float(centred @ level) / float(centred @ centred or 1.0), 0.0)
    constant = float(level.mean()) - height * float(shape.mean())
    left = level - height * shape - constant
    return float(left @ left), height, constant, tau

"""Deconvolution by the shape of an event (Pernia-Andrade et al. 2012, Biophys J 103:1429)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from quantal.classical.detector import Detector, Samples, Shape
from quantal.classical.stretches import filtered, in_sds
from quantal.noise import robust_sd

Floats = NDArray[np.float64]

_LOW = 0.005  # cycles per decay time constant; the band passed begins here
_HIGH = 0.5  # and ends here: half power at both
_REACH = 5.0  # SDs of the Gaussian of the lower edge that its weights extend to
_BINS, _RANGE = 120, 6.0  # of the all-points histogram; robust SDs either side
_ABOVE = 0.1  # of the histogram's peak: bins that the Gaussian is fitted to


@dataclass(frozen=True, kw_only=True)
class Deconvolution(Detector):
    """Deconvolution (Pernia-Andrade et al. 2012): every event becomes a short peak at its onset.

    The trace is divided by the event in the frequency domain and band-passed with Gaussian edges.
    The score is in SD of the noise: of a Gaussian fitted to the histogram of all points. 4 is the
    paper's threshold.
    """

    name: ClassVar[str] = "deconvolution"
    threshold: ClassVar[float] = 4.0

    def _score(self, parts: Sequence[Samples], shape: Shape) -> list[Samples]:
        weights, centre = deconvolving_weights(shape)
        peaked = [filtered(part, weights, centre, shape.level) for part in parts]
        middle, sd = fitted_gaussian(np.concatenate([*peaked, np.empty(0, np.float32)]))
        return [in_sds(part, middle, sd) for part in peaked]


def deconvolving_weights(shape: Shape) -> tuple[Floats, int]:
    """Weights that turn an event into a Gaussian at its onset, and which of them is its middle."""
    low, high = _LOW / shape.decay, min(_HIGH / shape.decay, 0.25)
    reach = int(np.ceil(_REACH * np.sqrt(np.log(2)) / (2 * np.pi * low)))
    cycles = np.fft.rfftfreq(2 * reach + 1)
    gain = _half_power(cycles, high) * (1 - _half_power(cycles, low)) / shape.spectrum(cycles)
    weights = np.roll(np.fft.irfft(gain, 2 * reach + 1), reach)
    return np.asarray(weights - weights.mean(), np.float64), reach


def _half_power(cycles: NDArray[np.floating], edge: float) -> Floats:
    """A Gaussian whose square is one half at the edge."""
    return np.asarray(np.exp(-0.5 * np.log(2) * (cycles / edge) ** 2), np.float64)


def fitted_gaussian(values: Samples) -> tuple[float, float]:
    """Mean and SD of a Gaussian fitted to the histogram of values; robust ones if none fits.

    The logarithm of its counts is fitted by a parabola, each weighted by the count, above a tenth
    of the highest: where noise makes the histogram, not events.
    """
    if not len(values):
        return 0.0, 0.0
    middle, sd = float(np.median(values)), robust_sd(values)
    if not sd > 0:
        return middle, sd
    edges = np.linspace(-_RANGE, _RANGE, _BINS + 1)
    counts, _ = np.histogram((values - np.float32(middle)) / np.float32(sd), edges)
    x = 0.5 * (edges[1:] + edges[:-1])
    used = counts > max(_ABOVE * counts.max(), 5)
    if np.count_nonzero(used) < 5:
        return middle, sd
    square, slope, _ = np.polyfit(x[used], np.log(counts[used]), 2, w=np.sqrt(counts[used]))
    if not square < 0:
        return middle, sd
    spread = float(np.sqrt(-0.5 / square))
    if not 0.5 < spread < 2:
        return middle, sd
    return middle - sd * float(slope / (2 * square)), sd * spread

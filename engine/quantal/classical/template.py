"""Template matching (Clements and Bekkers 1997, Biophys J 73:220)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal.classical.detector import Detector, Samples, Shape
from quantal.classical.stretches import held
from quantal.errors import UsageError

Floats = NDArray[np.float64]

_BEFORE, _AFTER = 0.5, 3  # decay time constants of the template before and after the onset
_BLOCK = 65_536  # positions at once: fits the cache, and each block loses its own offset
_SHORTEST = 3  # samples: a scale, an offset and something left over
# Of the sum of squares that a block runs up: what rounding may leave of a difference of two sums.
_ROUNDING = 2.0**-44


@dataclass(frozen=True, kw_only=True)
class Template(Detector):
    """Optimally scaled template (Clements and Bekkers 1997): scale over standard error of the fit.

    The score is the paper's detection criterion, about the amplitude of an event over the SD of
    the noise around it; 4 is the paper's threshold.
    """

    name: ClassVar[str] = "template"
    threshold: ClassVar[float] = 4.0

    def _score(self, parts: Sequence[Samples], shape: Shape) -> list[Samples]:
        before, after = round(_BEFORE * shape.decay) + 1, round(_AFTER * shape.decay) + 3
        template = shape.values(before, after)
        scored = []
        for part in parts:
            whole = held(part, before, after, shape.level)
            scored.append(template_criterion(whole, template)[: len(part)])
        return scored


def template_criterion(samples: ArrayLike, template: ArrayLike) -> NDArray[np.float32]:
    """Detection criterion of optimally scaled template matching (Clements and Bekkers 1997).

    At every position the template, which starts there, is scaled and offset to fit the samples
    best; the criterion is that scale over the standard error of the fit. It is positive where the
    samples point as the template does, and in the terms of the paper for a template of unit peak.
    nan where the template does not fit into the samples or meets a missing one; 0 where the
    samples are constant.

    Raises UsageError if the template is too short, constant or not finite.
    """
    y = np.asarray(samples)
    centred = _centred(template)
    out = np.full(len(y), np.nan, np.float32)
    positions = len(y) - len(centred) + 1
    block = max(_BLOCK, 4 * len(centred))
    for first in range(0, max(positions, 0), block):
        last = min(first + block, positions)
        out[first:last] = _criterion(y[first : last + len(centred) - 1], centred)
    return out


def _centred(template: ArrayLike) -> Floats:
    """The template less its mean, so that an offset of the samples does not matter."""
    shape = np.asarray(template, np.float64)
    if shape.ndim != 1 or len(shape) < _SHORTEST:
        raise UsageError(
            f"a template needs at least {_SHORTEST} samples in one dimension, "
            f"got shape {shape.shape}."
        )
    if not np.isfinite(shape).all():
        raise UsageError("a template must not hold missing samples; average events without gaps.")
    if np.ptp(shape) <= _ROUNDING * np.abs(shape).max():
        raise UsageError("a template must not be constant: it has to have the shape of an event.")
    return np.asarray(shape - shape.mean(), np.float64)


def _criterion(samples: NDArray[Any], centred: Floats) -> Floats:
    """The criterion at every position of a block that holds whole templates."""
    from scipy.signal import oaconvolve

    n = len(centred)
    y, missing = _without_offset(samples)
    sums, squares = _sums(y, n), _sums(y**2, n)
    energy = float(centred @ centred)
    scale = oaconvolve(y, centred[::-1], mode="valid") / energy
    spread = squares - sums**2 / n
    rounding = _ROUNDING * float(y @ y)
    left = np.maximum(spread - scale**2 * energy, rounding)
    varied = spread > rounding
    criterion = np.zeros(len(scale))
    np.divide(scale, np.sqrt(left / (n - 1)), out=criterion, where=varied)
    if missing.any():
        criterion[_sums(missing, n) > 0] = np.nan
    return criterion


def _without_offset(samples: NDArray[Any]) -> tuple[Floats, NDArray[np.bool_]]:
    """Samples less their mean, 0 where they are missing, and where that is."""
    missing = ~np.isfinite(samples)
    y = np.where(missing, 0.0, samples).astype(np.float64)
    y -= y.sum() / max(len(y) - np.count_nonzero(missing), 1)
    y[missing] = 0.0
    return y, missing


def _sums(values: NDArray[np.generic], n: int) -> Floats:
    """Sums of n values in a row, from every position at which there are as many."""
    running = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    return np.asarray(running[n:] - running[:-n], np.float64)

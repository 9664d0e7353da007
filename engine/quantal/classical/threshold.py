"""A finite threshold on amplitude (Kudoh and Taguchi 2002, Biosens Bioelectron 17:773)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from quantal.classical.detector import Detector, Samples, Shape
from quantal.classical.stretches import held, in_sds
from quantal.kernel import kernel
from quantal.noise import robust_sd

Floats = NDArray[np.float64]

_PEAK = 0.5  # decay time constants that the mean around the peak spans
_BASELINE = 2.0  # and the mean before the onset


@dataclass(frozen=True, kw_only=True)
class Threshold(Detector):
    """Finite threshold (Kudoh and Taguchi 2002): the mean around a peak less that before its onset.

    The score is in robust SD of this difference. The paper leaves the threshold to the user and
    gives it as an amplitude; at 4.5, noise alone gives one or two false events in a minute where
    decays are of 1 ms.
    """

    name: ClassVar[str] = "threshold"
    threshold: ClassVar[float] = 4.5

    def _score(self, parts: Sequence[Samples], shape: Shape) -> list[Samples]:
        before = max(round(_BASELINE * shape.decay), 1)
        around = max(round(_PEAK * shape.decay), 1)
        lag = max(round(shape.peak - around / 2), 0)
        rises = []
        for part in parts:
            whole = held(part, before, lag + around, shape.level)
            rises.append(amplitudes(whole, before, lag, around)[: len(part)])
        sd = robust_sd(np.concatenate([*rises, np.empty(0, np.float32)]))
        return [in_sds(rise, 0.0, sd) for rise in rises]


def amplitudes(samples: Samples, before: int, lag: int, around: int) -> Samples:
    """Mean of `around` samples that begin `lag` after an onset, less that of `before` up to it.

    Value i is for an onset at sample before + i; there are as many as fit.
    """
    count = max(len(samples) - before - lag - around + 1, 0)
    out: Samples = _amplitudes(samples, before, lag, around, count)
    return out


@kernel
def _amplitudes(samples, before, lag, around, count):
    out = np.empty(count, np.float32)
    for first in range(0, count, 4_096):  # a running sum starts anew before rounding adds up
        base, peak = 0.0, 0.0
        for i in range(first, first + before):
            base += samples[i]
        for i in range(first + before + lag, first + before + lag + around):
            peak += samples[i]
        for i in range(first, min(first + 4_096, count)):
            out[i] = peak / around - base / before
            if i + 1 < count:
                base += np.float64(samples[i + before]) - samples[i]
                start = i + before + lag
                peak += np.float64(samples[start + around]) - samples[start]
    return out

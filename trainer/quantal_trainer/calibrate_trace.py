"""Calibration of trace networks: the shift of the logit at which 0.5 is a good threshold."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.noise import scaled
from quantal.peaks import find_points
from quantal.simulate import matched
from quantal_trainer.backend import keras
from quantal_trainer.calibrate import shift_scores
from quantal_trainer.simulated_traces import Stretch, simulate_stretch
from quantal_trainer.trace_network import HOP, UNIT

Array = NDArray[np.float32]
_SHIFTS = np.arange(-2.0, 4.01, 0.1)
_SEEN = 2.5  # detectability (d') from which an event should be found
_BUSY = 10  # events; a stretch that holds more counts as if it held these
_TOLERANCE = 75  # samples, 3 ms, between an event's steepest rise and the peak of the scores
_RIM = 2_000  # samples at the ends of a stretch that are not judged
_BATCH = 8


@dataclass(frozen=True, kw_only=True)
class TraceCalibration:
    """How a network does, at threshold 0.5, on stretches that it has not seen."""

    shift: float
    f1: float
    precision: float
    recall: float
    stretches: int

    def to_dict(self) -> dict[str, Any]:
        """The same as plain numbers, for a card."""
        return asdict(self)


def calibrate_trace(
    network: keras.Model, *, stretches: int = 600, precision: float = 0.95, seed: int = 0
) -> TraceCalibration:
    """Shift the last layer's bias to this precision, or the best F1 above it, on new stretches.

    Precision is that of all stretches together, those without any event among them; busy ones
    count no more than others. If no shift is that precise, the most precise is taken.
    """
    rng = np.random.default_rng(seed)
    known = [simulate_stretch(rng) for _ in range(stretches)]
    logits = _logits(network, [stretch.samples for stretch in known])
    results = [_judged(known, logits, float(shift)) for shift in _SHIFTS]
    enough = [result for result in results if result.precision >= precision]
    if enough:
        best = max(enough, key=lambda result: result.f1)
    else:
        best = max(results, key=lambda result: result.precision)
    shift_scores(network, best.shift)
    return best


def _logits(network: keras.Model, traces: list[Array]) -> list[Array]:
    found: list[Array] = []
    for first in range(0, len(traces), _BATCH):
        part = [scaled(x)[: len(x) // UNIT * UNIT] for x in traces[first : first + _BATCH]]
        scores = np.asarray(network.predict_on_batch(np.stack(part)[..., None]))[..., 0]
        scores = np.clip(scores, 1e-7, 1 - 1e-7)
        found += list(np.log(scores / (1 - scores)))
    return found


def _judged(known: list[Stretch], logits: list[Array], shift: float) -> TraceCalibration:
    hits = false = true = 0.0
    for stretch, logit in zip(known, logits, strict=True):
        last = len(logit) * HOP - _RIM
        values = (1 / (1 + np.exp(shift - logit))).astype(np.float32)
        found = HOP * find_points(values, 0.5).position + HOP / 2
        found = found[(found >= _RIM) & (found < last)]
        inside = (stretch.rises >= _RIM) & (stretch.rises < last)
        seen = stretch.rises[inside & (stretch.detectability >= _SEEN)]
        unclear = stretch.rises[inside & (stretch.detectability < _SEEN)]
        hit = matched(seen, found, tolerance_s=_TOLERANCE)
        neither = min(matched(unclear, found, tolerance_s=_TOLERANCE), len(found) - hit)
        weight = min(_BUSY / max(len(seen), 1), 1.0)
        hits, true = hits + weight * hit, true + weight * len(seen)
        false += weight * (len(found) - hit - neither)
    return TraceCalibration(
        shift=shift,
        f1=2 * hits / max(hits + false + true, 1e-9),
        precision=hits / max(hits + false, 1e-9),
        recall=hits / max(true, 1e-9),
        stretches=len(known),
    )

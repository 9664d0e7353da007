"""Calibration: shift a network's logit so that 0.5 is the threshold of a stated precision."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.peaks import find_stretches
from quantal.windows import SCORED, cut_windows
from quantal_trainer.backend import keras
from quantal_trainer.fit import network_scores
from quantal_trainer.simulated import Labels, Stretch, simulate_stretch
from quantal_trainer.trace_network import LOGITS

Array = NDArray[np.float32]
_STRIDE = 20
_SCANNED = 0.05  # of the windows of a scan hold an event: 0.4 to 8 % in the simulated preparations
_SHIFTS = np.arange(-2.0, 8.01, 0.25)
_BUSY = 10  # events; a stretch that holds more counts as if it held these


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How a network does on simulated stretches once its logit is shifted down by `shift`."""

    shift: float
    precision: float
    recall: float
    events: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """The same as plain numbers, for a card."""
        return asdict(self)


def calibrate(
    network: keras.Model,
    *,
    labels: Labels,
    stretches: int = 400,
    precision: float = 0.93,
    seed: int = 0,
) -> Calibration:
    """Shift the last layer's bias to this precision on simulated stretches it has not seen.

    Precision is that of all stretches together, those without any event among them; busy ones
    count no more than others. Events between `unseen` and `seen` count neither way. Of all shifts
    that are precise enough the one that finds most is taken; if none is, the most precise.
    """
    rng = np.random.default_rng(seed)
    scored = []
    for _ in range(stretches):
        stretch = simulate_stretch(rng)
        scored.append((stretch, _dense_logits(network, stretch.samples)))
    results = [_evaluate(scored, float(shift), labels) for shift in _SHIFTS]
    enough = [result for result in results if result.precision >= precision]
    if enough:
        best = max(enough, key=lambda result: result.recall)
    else:
        best = max(results, key=lambda result: result.precision)
    shift_scores(network, best.shift)
    return best


def shift_scores(network: keras.Model, shift: float) -> None:
    """Lower the logit of every score by `shift`: move the last bias, or that of noise."""
    layer = next((layer for layer in network.layers if layer.name == LOGITS), network.layers[-1])
    kernel, bias = layer.get_weights()
    if layer.name == LOGITS:
        bias[0] += np.float32(shift)
    else:
        bias -= np.float32(shift)
    layer.set_weights([kernel, bias])


def scan_shift() -> float:
    """The shift that suits a scan for a network that was trained on half events, half noise.

    By Bayes' rule: what is one window in two there is one in twenty in a scan.
    """
    return float(np.log((1 - _SCANNED) / _SCANNED))


def _dense_logits(network: keras.Model, samples: Array) -> Array:
    width = network.input_shape[1]
    count = (len(samples) - width) // _STRIDE + 1
    windows, states = cut_windows(samples, 0, _STRIDE, count, width)
    scores = np.clip(network_scores(network, windows), 1e-7, 1 - 1e-7)
    logits = np.log(scores / (1 - scores))
    logits[states != SCORED] = -np.inf
    return np.asarray(logits, np.float32)


def _evaluate(scored: list[tuple[Stretch, Array]], shift: float, labels: Labels) -> Calibration:
    hits = false = expected = seconds = 0.0
    events = 0
    for stretch, logits in scored:
        values = 1 / (1 + np.exp(shift - logits))
        found = find_stretches(values.astype(np.float32), 0.5)
        some_hits, some_false, some_events = _count(found.left, found.right, stretch, labels)
        weight = min(_BUSY / max(some_events, 1), 1.0)
        hits, false = hits + weight * some_hits, false + weight * some_false
        events, expected = events + some_events, expected + weight * some_events
        seconds += len(logits) * _STRIDE / stretch.rate_hz
    return Calibration(
        shift=shift,
        precision=hits / max(hits + false, 1e-9),
        recall=hits / max(expected, 1e-9),
        events=events,
        seconds=seconds,
    )


def _count(
    left: NDArray[np.float64], right: NDArray[np.float64], stretch: Stretch, labels: Labels
) -> tuple[int, int, int]:
    """Events inside a found stretch, found stretches with no event at all, and events."""
    starts, stops = left * _STRIDE + labels.positive[0], right * _STRIDE + labels.positive[1]
    inside = (stretch.onsets[:, None] >= starts) & (stretch.onsets[:, None] <= stops)
    seen = stretch.detectability >= labels.seen
    visible = stretch.detectability >= labels.unseen
    hits = int((inside.any(axis=1) & seen).sum())
    false = int((~inside[visible].any(axis=0)).sum())
    return hits, false, int(seen.sum())

"""A small network beside a window network that says where the large one must look at all.

It reads the same windows averaged, each scaled by its own lowest and highest sample, so that unit
and offset are as little to it as to the large network. Its levels were calibrated on recordings
that it had not seen: below them, the large network felt none of the events that reach a threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantal.kernel import kernel
from quantal.model import SCOUT, Model
from quantal.runtime import Session, open_session
from quantal.windows import mirrored

Samples = NDArray[np.float32]

_BLOCK = 512  # averaged windows that are scored at a time: they stay in the processor's cache


@dataclass(frozen=True, eq=False, kw_only=True)
class Scout:
    """An open scout.

    hop: samples of the large network's input between windows that are looked at.
    bin: samples in an average. felt: part of a threshold that a suspect must score to lead to
    others. levels: for each threshold, in order, the value of a suspect.
    """

    session: Session
    hop: int
    bin: int
    felt: float
    levels: tuple[tuple[float, float], ...]

    def level(self, threshold: float) -> float | None:
        """The value from which a window is suspect for events of a threshold; None if not known."""
        known = [level for reached, level in self.levels if reached <= threshold]
        return known[-1] if known else None


def open_scout(model: Model, threads: int | None = None) -> Scout | None:
    """The scout of a model, on the CPU; None if it has none."""
    if SCOUT not in model.card.graphs:
        return None
    facts = model.card.scout
    return Scout(
        session=open_session(model, "cpu", threads, graph=SCOUT),
        hop=facts["hop_samples"],
        bin=facts["bin_samples"],
        felt=facts["felt"],
        levels=tuple((reached, level) for reached, level in facts["levels"]),
    )


def look(
    scout: Scout, samples: Samples, start: int, count: int, width: int
) -> tuple[Samples, Samples]:
    """What a scout gives for `count` windows, one every hop from a sample on, and their ranges."""
    values, ranges = np.empty((2, count), np.float32)
    for first in range(0, count, _BLOCK):
        part = slice(first, min(first + _BLOCK, count))
        windows, ranges[part] = averaged_windows(
            samples, start + first * scout.hop, scout.hop, part.stop - first, width, scout.bin
        )
        values[part] = scout.session.run(windows)[:, 0]
    return values, ranges


def averaged_windows(
    samples: Samples, start: int, hop: int, count: int, width: int, size: int
) -> tuple[Samples, Samples]:
    """Windows averaged over `size` samples each, as a part of the range of all their samples.

    They start every `hop` samples from `start`; hop and width are multiples of size. Returns
    float32 (count, width / size) and the ranges (count,): 0 of flat windows, nan of those that lack
    a sample, both of which are 0. Beyond its ends the trace goes on as its mirror image.
    """
    bins = ((count - 1) * hop + width) // size
    out = np.zeros((count, width // size), np.float32)
    means, lows, highs = _bins(samples, start, size, bins)
    ranges: Samples = _scale(means, lows, highs, hop // size, out)
    return out, ranges


@kernel
def _bins(samples, start, size, count):
    """Mean, lowest and highest of the samples of each bin; nan where one is missing."""
    n = len(samples)
    means, lows, highs = np.empty((3, count), np.float32)
    for b in range(count):
        first = start + b * size
        inside = first >= 0 and first + size <= n
        total, low, high = np.float32(0.0), np.float32(np.inf), np.float32(-np.inf)
        for j in range(first, first + size):
            value = samples[j] if inside else samples[mirrored(j, n)]
            total += value
            low, high = min(low, value), max(high, value)
        means[b] = total / np.float32(size)
        lows[b], highs[b] = low, high
        if not np.isfinite(total):
            means[b] = np.nan
    return means, lows, highs


@kernel
def _scale(means, lows, highs, step, out):
    """Writes the last argument; returns the ranges."""
    count, width = out.shape
    ranges = np.empty(count, np.float32)
    for k in range(count):
        first = k * step
        low, high, finite = np.float32(np.inf), np.float32(-np.inf), True
        for j in range(first, first + width):
            low, high = min(low, lows[j]), max(high, highs[j])
            finite = finite and np.isfinite(means[j])
        ranges[k] = high - low if finite else np.float32(np.nan)
        if finite and high > low:
            for j in range(width):
                out[k, j] = (means[first + j] - low) / (high - low)
    return ranges

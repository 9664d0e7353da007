"""What in the samples themselves should be looked at twice: flat, clipped, or in another unit."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantal.trace import SMALLEST_RANGE, Trace

_LOOKED_AT = 20_000  # samples, spread over all traces
_OFTEN, _TIMES = 2e-3, 5  # the part of them at one end that is clipped, and of the level beside it
_SPREAD = (1.0, 99.0)  # percentiles
_ELECTRICAL = re.compile(r"(?P<prefix>[fpnuµμm]?)(?P<kind>[AV])")
_PREFIXES = {"f": 1e-15, "p": 1e-12, "n": 1e-9, "µ": 1e-6, "m": 1e-3, "": 1.0}
_OTHERS = {
    "df/f",
    "df/f0",
    "δf/f",
    "δf/f0",
    "%",
    "f",
    "z",
    "z-score",
    "a.u.",
    "au",
    "arb",
    "counts",
}


@dataclass(frozen=True)
class _Usual:
    """How far (A or V) samples spread in recordings: at least, as a rule, at most."""

    least: float
    typical: float
    most: float


_USUAL = {"A": _Usual(5e-14, 2e-11, 1e-4), "V": _Usual(5e-6, 2e-3, 0.5)}


def suspicions(traces: Sequence[Trace]) -> list[str]:
    """What speaks against traces of one unit being what they are said to be, in words."""
    samples = _some_of(traces)
    unit = traces[0].unit
    if not len(samples):
        return []
    if samples[0] == samples[-1]:
        return [
            f"all samples are {samples[0]:g} {unit}: nothing was recorded here, or another "
            "channel is wanted (--channel)"
        ]
    found = [_clipped(values, unit, which) for which, values in _ends(samples)]
    found += [_offset_doubt(samples, unit), _unit_doubt(samples, unit)]
    return [text for text in found if text]


def _some_of(traces: Sequence[Trace]) -> NDArray[np.float64]:
    """Samples from everywhere, in order of size, without those that are missing."""
    step = max(sum(map(len, traces)) // _LOOKED_AT, 1)
    some = np.concatenate([trace.samples[::step] for trace in traces])
    return np.sort(some[np.isfinite(some)].astype(np.float64))


def _ends(samples: NDArray[np.float64]) -> list[tuple[str, NDArray[np.float64]]]:
    """The samples from the highest down and from the lowest up."""
    return [("highest", samples[::-1]), ("lowest", samples)]


def _clipped(samples: NDArray[np.float64], unit: str, which: str) -> str:
    """Whether far more samples have the outermost level than the one beside it."""
    at_end = int(np.argmax(samples != samples[0]))
    beside = int(np.count_nonzero(samples == samples[at_end]))
    if at_end < max(_OFTEN * len(samples), _TIMES * beside):
        return ""
    return (
        f"{at_end / len(samples):.1%} of the samples have the {which} value, {samples[0]:g} "
        f"{unit}: where the amplifier was saturated, events are missed or too small"
    )


def _offset_doubt(samples: NDArray[np.float64], unit: str) -> str:
    """Whether samples lie so far from 0 that single precision has rounded them."""
    low, high = samples[0], samples[-1]
    if high - low >= SMALLEST_RANGE * max(-low, high):
        return ""
    return (
        f"samples span {high - low:.3g} {unit} on an offset of {low:.6g}: single precision rounds "
        "them, so subtract the offset first"
    )


def _unit_doubt(samples: NDArray[np.float64], unit: str) -> str:
    found = _ELECTRICAL.fullmatch(unit)
    if found is None:
        if unit.casefold() in _OTHERS:
            return ""
        return (
            f"the unit {unit!r} is not known (known are such as pA, mV, dF/F, a.u.): results carry "
            "it as it is; --unit names another"
        )
    kind, usual = found["kind"], _USUAL[found["kind"]]
    spread = float(np.subtract(*np.percentile(samples, _SPREAD[::-1])))
    real = spread * _PREFIXES[found["prefix"].translate({ord("u"): "µ", ord("μ"): "µ"})]
    if not spread or usual.least <= real <= usual.most:
        return ""
    prefix = min(_PREFIXES, key=lambda p: abs(math.log(spread * _PREFIXES[p] / usual.typical)))
    return (
        f"the samples spread over {spread:.2g} {unit}, which is far "
        f"{'less' if real < usual.least else 'more'} than recordings do: if they are in {prefix}"
        f"{kind}, add --unit {prefix}{kind}; if the gain is wrong, --scale"
    )

"""The table of events: columns of equal length that are cut, joined and summarised together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal.errors import UsageError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
Texts = NDArray[np.str_]

FOUND, REJECTED = "found", "rejected"

_MEASURES = (
    "amplitude",
    "rise_10_90_ms",
    "slope_per_ms",
    "half_decay_ms",
    "half_width_ms",
    "tau_decay_ms",
    "area",
    "interval_s",
)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What was searched for events: one sweep of one channel, events or none.

    analysed_s: seconds searched, without excluded or missing samples.
    """

    recording: str
    channel: str
    sweep: int
    unit: str
    analysed_s: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Events:
    """One row per event; indexing with a mask, a slice or positions cuts every column at once.

    Times (_s) are on the sweep's own clock. Amplitudes and slopes keep their sign. What cannot be
    measured is nan.

    onset_s: start of the rise. location_s: steepest rise. peak_s: extremum.
    score: the model's confidence, 0 to 1. amplitude: peak less baseline, in unit.
    rise_10_90_ms: time from 10 to 90 % of the amplitude. slope_per_ms: steepest slope, unit/ms.
    half_decay_ms: from the peak to half the amplitude. half_width_ms: between the half amplitudes.
    tau_decay_ms: time constant of the decay. area: from onset to four half-decays past the peak,
    unit x s. interval_s: since the event before it in the same sweep; nan for the first, and
    across a stretch that was not searched. polarity: 1 or -1. overlap: another event lies within
    its decay. edge: its measures touch the end of the sweep. status: found or rejected.
    sweeps: all that was searched, whether or not it holds events.
    """

    recording: Texts
    channel: Texts
    sweep: Integers
    event: Integers
    onset_s: Floats
    location_s: Floats
    peak_s: Floats
    score: Floats
    amplitude: Floats
    unit: Texts
    baseline: Floats
    rise_10_90_ms: Floats
    slope_per_ms: Floats
    half_decay_ms: Floats
    half_width_ms: Floats
    tau_decay_ms: Floats
    area: Floats
    interval_s: Floats
    polarity: Integers
    overlap: Flags
    edge: Flags
    status: Texts
    sweeps: tuple[Sweep, ...] = ()

    def __post_init__(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in COLUMNS}
        if len(set(lengths.values())) > 1:
            raise UsageError(f"columns of an event table must be of equal length, got {lengths}.")

    def __len__(self) -> int:
        return len(self.location_s)

    def __getitem__(self, rows: slice | ArrayLike) -> Events:
        """The chosen rows of every column: events[events.score > 0.8], events[:10], events[[3]]."""
        chosen = rows if isinstance(rows, slice) else np.atleast_1d(np.asarray(rows))
        if not isinstance(chosen, slice) and chosen.dtype == bool and len(chosen) != len(self):
            raise UsageError(
                f"a mask must have one value per event ({len(self)}), got {len(chosen)}."
            )
        if not isinstance(chosen, slice) and not len(chosen):
            chosen = slice(0, 0)
        return replace(self, **{name: getattr(self, name)[chosen] for name in COLUMNS})

    def reject(self, rows: ArrayLike) -> Events:
        """The same table with the status of these rows set to rejected; nothing is removed."""
        status = self.status.copy()
        status[np.asarray(rows)] = REJECTED
        return replace(self, status=status)

    def columns(self) -> dict[str, NDArray[Any]]:
        """The columns by name, in the order of the events table."""
        return {name: getattr(self, name) for name in COLUMNS}

    def summary(self) -> dict[str, Any]:
        """Statistics of the events that are not rejected, with units in the names.

        Frequency is events per second of searched recording; each measure has n, mean, median, sd
        (n - 1) and cv over the events in which it could be measured (None where none could).
        """
        found = self[self.status != REJECTED]
        analysed_s = float(sum(sweep.analysed_s for sweep in self.sweeps))
        units = sorted({sweep.unit for sweep in self.sweeps})
        result: dict[str, Any] = {
            "events": len(found),
            "rejected": len(self) - len(found),
            "sweeps": len(self.sweeps),
            "analysed_s": analysed_s,
            "frequency_hz": len(found) / analysed_s if analysed_s > 0 else None,
            "unit": units[0] if len(units) == 1 else units,
        }
        for name in _MEASURES:
            result[name] = _statistics(getattr(found, name))
        return result

    def save(self, path: str) -> None:
        """Write the table; the suffix says how (.csv or .h5)."""
        from quantal.save import save_events

        save_events(self, path)


COLUMNS = tuple(field.name for field in fields(Events) if field.name != "sweeps")
_TEXT = ("recording", "channel", "unit", "status")
_WHOLE = ("sweep", "event", "polarity")
_FLAG = ("overlap", "edge")


def column_type(name: str) -> type[np.generic]:
    """The kind of number or text that a column holds."""
    if name in _TEXT:
        return np.str_
    if name in _WHOLE:
        return np.int64
    return np.bool_ if name in _FLAG else np.float64


def make_events(columns: dict[str, ArrayLike], sweeps: Sequence[Sweep]) -> Events:
    """A table from columns by name; a column of one text or number holds it in every row."""
    n = len(np.atleast_1d(np.asarray(columns["location_s"])))
    whole = {
        name: np.array(np.broadcast_to(np.asarray(columns[name], column_type(name)), n))
        for name in COLUMNS
    }
    return Events(**whole, sweeps=tuple(sweeps))


def no_events(sweeps: Sequence[Sweep] = ()) -> Events:
    """An empty table that still knows what was searched."""
    return Events(
        **{name: np.empty(0, column_type(name)) for name in COLUMNS}, sweeps=tuple(sweeps)
    )


def join(tables: Iterable[Events]) -> Events:
    """One table from many, in the order given; what was searched adds up."""
    parts = list(tables)
    if not parts:
        return no_events()
    sweeps = tuple(sweep for part in parts for sweep in part.sweeps)
    joined = {name: np.concatenate([getattr(p, name) for p in parts]) for name in COLUMNS}
    return Events(**joined, sweeps=sweeps)


def _statistics(values: Floats) -> dict[str, float | int | None]:
    measured = values[np.isfinite(values)]
    n = len(measured)
    if n == 0:
        return {"n": 0, "mean": None, "median": None, "sd": None, "cv": None}
    mean = float(measured.mean())
    sd = float(measured.std(ddof=1)) if n > 1 else None
    cv = abs(sd / mean) if sd is not None and mean != 0 else None
    return {"n": n, "mean": mean, "median": float(np.median(measured)), "sd": sd, "cv": cv}

"""The table of events: columns of equal length that are cut, joined and summarised together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal.errors import UsageError

if TYPE_CHECKING:
    from quantal.average import AverageEvent
    from quantal.fits import Fits
    from quantal.trace import Trace

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

    analysed_s: seconds searched, without excluded or missing samples. roi: number of the region of
    interest that it is, None elsewhere.
    """

    recording: str
    channel: str
    sweep: int
    unit: str
    analysed_s: float
    roi: int | None = None


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
    sweeps: all that was searched, whether or not it holds events. roi: number of the region of
    interest, in tables of imaging; None in others.
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
    roi: Integers | None = None

    def __repr__(self) -> str:
        where = f" in {len(self.sweeps)} sweeps" if self.sweeps else ""
        return f"Events({len(self)} events{where}, {', '.join(self._units()) or 'no unit'})"

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in self.columns().items()}
        if len(set(lengths.values())) > 1:
            raise UsageError(f"columns of an event table must be of equal length, got {lengths}.")

    def __len__(self) -> int:
        return len(self.location_s)

    def __getitem__(self, rows: slice | ArrayLike) -> Events:
        """The chosen rows of every column: events[events.score > 0.8], events[:10], events[[3]]."""
        chosen = chosen_rows(rows, len(self))
        cut: dict[str, Any] = {name: column[chosen] for name, column in self.columns().items()}
        return replace(self, **cut)

    def reject(self, rows: slice | ArrayLike) -> Events:
        """The same table with the status of these rows set to rejected; nothing is removed."""
        rejected = np.zeros(len(self), np.bool_)
        rejected[chosen_rows(rows, len(self))] = True
        # Not assigned in place: a column of shorter words would cut the new one short.
        return replace(self, status=np.where(rejected, REJECTED, self.status))

    def columns(self) -> dict[str, NDArray[Any]]:
        """The columns by name, in the order of the events table; `roi`, if any, after `sweep`."""
        names = COLUMNS if self.roi is None else ROI_COLUMNS
        return {name: getattr(self, name) for name in names}

    def summary(self) -> dict[str, Any]:
        """Statistics of the events that are not rejected, with units in the names.

        Frequency is events per second of searched recording; each measure has n, mean, median, sd
        (n - 1) and cv over the events in which it could be measured (None where none could). Where
        there are events of both polarities, "negative" and "positive" hold the same for each kind.
        """
        found = self[self.status != REJECTED]
        analysed_s = float(sum(sweep.analysed_s for sweep in self.sweeps))
        units = self._units()
        result: dict[str, Any] = {
            "events": len(found),
            "rejected": len(self) - len(found),
            "sweeps": len(self.sweeps),
            "analysed_s": analysed_s,
            "frequency_hz": len(found) / analysed_s if analysed_s > 0 else None,
            "unit": units[0] if len(units) == 1 else units,
        }
        result |= _measures(found)
        if len(np.unique(found.polarity)) > 1:
            for name, sign in (("negative", -1), ("positive", 1)):
                kind = found[found.polarity == sign]
                result[name] = {"events": len(kind), **_measures(kind)}
        return result

    def average(
        self, traces: Trace | Sequence[Trace], *, window_ms: float | None = None
    ) -> AverageEvent:
        """The average of isolated events, pointing their own way, with the fit of its decay.

        traces: what the events were found in, one or several. window_ms: how long events are, about
        twelve decay time constants; None reads it from their half-decays. Of events of both
        polarities, the more frequent kind is averaged. Events whose stretch reaches into what is
        excluded or missing are left out.
        """
        from quantal.trace import Trace

        traces = [traces] if isinstance(traces, Trace) else traces
        from quantal.average import average_event
        from quantal.kinetics import fitting_window_ms

        found = self[self.status != REJECTED]
        sign = -1 if (found.polarity < 0).sum() > (found.polarity > 0).sum() else 1
        found = found[found.polarity == sign]
        rate_hz = traces[0].rate_hz
        if window_ms is None:
            window_ms = fitting_window_ms(found.half_decay_ms, found.overlap | found.edge) or 12.0
        sweeps = [(t.samples, found._positions_in(t), t.unwanted()) for t in traces]
        window = max(round(window_ms * rate_hz / 1000), 8)
        return average_event(sweeps, rate_hz, window, sign=sign)

    def fit(self, traces: Trace | Sequence[Trace], *, lowpass_hz: float | None = None) -> Fits:
        """A biexponential fitted to every event, to those that overlap together; row by row.

        traces: what the events were found in, one or several. lowpass_hz: -3 dB frequency of the
        recording's filter, so that rise and decay are those before it; None fits what was recorded.
        Other columns and what nan means: `quantal.fits.Fits`. Raises UsageError.
        """
        from quantal.fits import fit_events

        return fit_events(traces, self, lowpass_hz=lowpass_hz)

    def _units(self) -> list[str]:
        """Units of what was searched or, where that is not known, of the events."""
        return sorted({sweep.unit for sweep in self.sweeps} or set(self.unit.tolist()))

    def _positions_in(self, trace: Trace) -> Floats:
        """Locations, in samples, of the events that lie in a trace."""
        own = (self.recording == trace.recording) & (self.channel == trace.channel)
        own &= self.sweep == trace.sweep
        positions: Floats = (self.location_s[own] - trace.start_s) * trace.rate_hz
        return positions

    def save(self, path: str | Path) -> None:
        """Write the table; the suffix says how (.csv, .h5, .parquet, .xlsx or .nwb)."""
        from quantal.save import save_events

        save_events(self, path)


COLUMNS = tuple(field.name for field in fields(Events) if field.name not in ("sweeps", "roi"))
_AFTER_SWEEP = COLUMNS.index("sweep") + 1
ROI_COLUMNS = (*COLUMNS[:_AFTER_SWEEP], "roi", *COLUMNS[_AFTER_SWEEP:])
NO_ROI = -1  # in the column `roi`, where tables with and without it are joined
_TEXT = ("recording", "channel", "unit", "status")
_WHOLE = ("sweep", "roi", "event", "polarity")
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
    whole = {}
    for name in ROI_COLUMNS if "roi" in columns else COLUMNS:
        column = np.asarray(columns[name], column_type(name))
        if column.shape not in ((), (1,), (n,)):
            raise UsageError(f"column {name} has shape {column.shape}, but there are {n} events.")
        whole[name] = np.array(np.broadcast_to(column, n))
    return Events(**whole, sweeps=tuple(sweeps))


def no_events(sweeps: Sequence[Sweep] = ()) -> Events:
    """An empty table that still knows what was searched."""
    names = ROI_COLUMNS if any(sweep.roi is not None for sweep in sweeps) else COLUMNS
    return Events(**{name: np.empty(0, column_type(name)) for name in names}, sweeps=tuple(sweeps))


def known_status(words: Sequence[str]) -> Texts:
    """The column status as people type it: case and spaces around a word do not matter.

    Raises ValueError over a word that is none, naming its row.
    """
    known = {word: word.strip().lower() for word in set(words)}
    unknown = {word for word, status in known.items() if status not in (FOUND, REJECTED)}
    if unknown:
        row = next(row for row, word in enumerate(words) if word in unknown)
        raise ValueError(
            f"row {row + 2} (the header is row 1) has the status {words[row]!r}; "
            f"allowed are {FOUND} and {REJECTED}"
        )
    return np.array([known[word] for word in words], np.str_)


def join(tables: Iterable[Events]) -> Events:
    """One table from many, in the order given; what was searched adds up.

    Where only some have a column `roi`, it is -1 for the events of the others.
    """
    parts = list(tables)
    if not parts:
        return no_events()
    sweeps = tuple(sweep for part in parts for sweep in part.sweeps)
    if any(part.roi is not None for part in parts):
        parts = [_with_roi(part) for part in parts]
    columns = [part.columns() for part in parts]
    joined = {name: np.concatenate([table[name] for table in columns]) for name in columns[0]}
    return Events(**joined, sweeps=sweeps)


def _with_roi(events: Events) -> Events:
    if events.roi is not None:
        return events
    return replace(events, roi=np.full(len(events), NO_ROI, np.int64))


def chosen_rows(rows: slice | ArrayLike, n: int) -> slice | NDArray[Any]:
    """Rows of a table of n as a slice, a mask or positions; raises UsageError for other things."""
    if isinstance(rows, slice):
        return rows
    chosen = np.atleast_1d(np.asarray(rows))
    if chosen.dtype == bool and chosen.shape != (n,):
        raise UsageError(f"a mask must have one value per event ({n}), got {chosen.shape}.")
    if chosen.ndim == 1 and not len(chosen):
        return np.empty(0, np.int64)
    if chosen.ndim != 1 or chosen.dtype.kind not in "biu":
        raise UsageError(
            "events are chosen by a slice, a mask or whole positions in one dimension, "
            f"got {chosen.dtype} of shape {chosen.shape}."
        )
    return chosen


def _measures(events: Events) -> dict[str, Any]:
    return statistics({name: getattr(events, name) for name in _MEASURES})


def statistics(columns: dict[str, Floats]) -> dict[str, Any]:
    """n, mean, median, sd (n - 1) and cv of what could be measured in each column."""
    return {name: _statistics(values) for name, values in columns.items()}


def _statistics(values: Floats) -> dict[str, float | int | None]:
    measured = values[np.isfinite(values)]
    n = len(measured)
    if n == 0:
        return {"n": 0, "mean": None, "median": None, "sd": None, "cv": None}
    mean = float(measured.mean())
    sd = float(measured.std(ddof=1)) if n > 1 else None
    cv = abs(sd / mean) if sd is not None and mean != 0 else None
    return {"n": n, "mean": mean, "median": float(np.median(measured)), "sd": sd, "cv": cv}

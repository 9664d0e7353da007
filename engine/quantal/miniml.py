"""Results in the layout of miniML (O'Neill et al. 2025), for scripts that read its files.

The names are those of its HDF5 and CSV files: times in seconds, positions in samples of all sweeps
end to end, as miniML joins them when it loads a recording.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.errors import UsageError
from quantal.events import REJECTED, Events, statistics
from quantal.save import hdf5_bytes, replacing
from quantal.tables import clean
from quantal.trace import Trace

Floats = NDArray[np.float64]

# miniML cuts an event from a third of a window before its location to four thirds after.
_BEFORE, _AFTER = 1 / 3, 4 / 3


def save_miniml(
    events: Events,
    traces: Sequence[Trace],
    base: str | Path,
    *,
    window_ms: float,
    tau_decay_ms: float = math.nan,
    source: str = "",
    model: str = "",
    threshold: float = 0.5,
    stride: int = 0,
) -> dict[str, Path]:
    """Write BASE.miniml.h5, BASE.miniml_individual.csv and BASE.miniml_avgs.csv; paths by kind.

    traces: what was searched, in the order in which sweeps are joined. window_ms: how much of the
    trace goes with each event. tau_decay_ms: of the average event. stride: samples between scores.
    Rejected events are left out. event_direction is 0 where there are events of both polarities;
    what a trace does not hold of an event's stretch is nan.

    Raises UsageError if the traces differ in rate or unit, SaveError.
    """
    rate_hz, unit = _one_clock(traces)
    rows, positions, intervals, cut = _in_order(events, traces, window_ms)
    found = events[rows]
    searched_s = sum(sweep.analysed_s for sweep in events.sweeps)
    columns = _columns(found, positions, intervals)
    frequency_hz = len(found) / searched_s if searched_s else math.nan
    averages = _averages(columns, tau_decay_ms, frequency_hz)
    said = {
        "amplitude_unit": clean(unit),
        "recording_time": sum(map(len, traces)) / rate_hz,
        "source_filename": clean(source),
        "miniml_model": clean(model),
        "miniml_model_threshold": threshold,
        "stride": stride,
        "window": _samples(window_ms, rate_hz),
        "event_direction": int(found.polarity[0]) if len(set(found.polarity.tolist())) == 1 else 0,
        "deleted_events": int((events.status == REJECTED).sum()),
    }
    files = {
        "h5": Path(f"{base}.miniml.h5"),
        "individual": Path(f"{base}.miniml_individual.csv"),
        "avgs": Path(f"{base}.miniml_avgs.csv"),
    }
    contents = {
        "h5": hdf5_bytes(
            lambda file: _fill(file, cut - found.baseline[:, None], found, columns, averages, said)
        ),
        "individual": _individual(columns),
        "avgs": _rows([[label, averages[name]] for label, name in _AVERAGES]),
    }
    for name, path in files.items():
        with replacing(path) as temporary:
            temporary.write_bytes(contents[name])
    return files


def _one_clock(traces: Sequence[Trace]) -> tuple[float, str]:
    """Rate and unit of all traces; raises UsageError if they are not of one channel."""
    kinds = {(trace.channel, trace.rate_hz, trace.unit) for trace in traces}
    if len(kinds) != 1:
        raise UsageError(
            f"miniML's files hold one channel at one rate, got {len(kinds)}; "
            "give the traces of one channel."
        )
    _, rate_hz, unit = kinds.pop()
    return rate_hz, unit


def _samples(window_ms: float, rate_hz: float) -> int:
    return max(round(window_ms * rate_hz / 1000), 1)


def _in_order(
    events: Events, traces: Sequence[Trace], window_ms: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats, Floats]:
    """Rows of the events not rejected, sweep by sweep, their positions, intervals and samples."""
    window = _samples(window_ms, traces[0].rate_hz)
    around = np.arange(-int(window * _BEFORE), int(window * _AFTER))
    rows: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    positions: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    intervals: list[Floats] = [np.empty(0)]
    cuts: list[Floats] = [np.empty((0, len(around)))]
    offset = 0
    for trace in traces:
        own = (events.recording == trace.recording) & (events.channel == trace.channel)
        own &= events.sweep == trace.sweep
        chosen = np.flatnonzero(own & (events.status != REJECTED))
        seconds = events.location_s[chosen] - trace.start_s
        at = np.rint(seconds * trace.rate_hz).astype(np.int64)
        places = at[:, None] + around
        inside = (places >= 0) & (places < len(trace))
        samples = trace.samples[np.clip(places, 0, len(trace) - 1)]
        rows.append(chosen)
        positions.append(at + offset)
        intervals.append(_intervals(events[own]))
        cuts.append(np.where(inside, samples, np.nan).astype(np.float64))
        offset += len(trace)
    return (
        np.concatenate(rows),
        np.concatenate(positions),
        np.concatenate(intervals),
        np.concatenate(cuts),
    )


def _intervals(sweep: Events) -> Floats:
    """Seconds from peak to peak, as miniML counts, of the events of a sweep that are not rejected.

    nan for the first, and across a stretch that was not searched, as in `interval_s`.
    """
    kept = sweep.status != REJECTED
    stretch = np.cumsum(np.isnan(sweep.interval_s))[kept]
    seconds: Floats = np.diff(sweep.peak_s[kept], prepend=np.nan)
    return np.where(np.diff(stretch, prepend=-1) == 0, seconds, np.nan)


def _columns(
    found: Events, positions: NDArray[np.int64], intervals: Floats
) -> dict[str, NDArray[Any]]:
    """What is known of every event, by the names of the table of individual events."""
    return {
        "location": positions,
        "score": found.score,
        "amplitude": found.amplitude,
        "charge": found.area,
        "risetime": found.rise_10_90_ms / 1000,
        "decaytime": found.half_decay_ms / 1000,
        "halfwidth": found.half_width_ms / 1000,
        "interval": intervals,
    }


_DATASETS = {
    "location": "event_locations",
    "score": "event_scores",
    "amplitude": "event_amplitudes",
    "charge": "event_charges",
    "risetime": "event_risetimes",
    "decaytime": "event_halfdecays",
    "halfwidth": "event_halfwidths",
    "interval": "event_intervals",
}
_AVERAGES = (
    ("amplitude mean", "amplitude_average"),
    ("amplitude std", "amplitude_stdev"),
    ("amplitude median", "amplitude_median"),
    ("charge mean", "charge_mean"),
    ("risetime mean", "risetime_mean"),
    ("decaytime mean", "decaytime_mean"),
    ("halfwidth mean", "halfwidth_mean"),
    ("tau_avg", "decay_from_fit"),
    ("frequency", "frequency"),
    ("iei mean", "iei_mean"),
)


def _averages(
    columns: dict[str, NDArray[Any]], tau_decay_ms: float, frequency_hz: float
) -> dict[str, float]:
    """The statistics of a file, by the names of the group event_statistics; nan if not known."""
    known: dict[str, dict[str, float | None]] = statistics(columns)
    averages = {
        "amplitude_average": known["amplitude"]["mean"],
        "amplitude_stdev": known["amplitude"]["sd"],
        "amplitude_median": known["amplitude"]["median"],
        "decay_from_fit": tau_decay_ms / 1000,
        "frequency": frequency_hz,
    }
    names = {name: name for name in ("charge", "risetime", "decaytime", "halfwidth")}
    for name, column in {**names, "iei": "interval"}.items():
        for kind in ("mean", "median"):
            averages[f"{name}_{kind}"] = known[column][kind]
    return {name: math.nan if value is None else value for name, value in averages.items()}


def _fill(
    file: Any,
    stretches: Floats,
    found: Events,
    columns: dict[str, NDArray[Any]],
    averages: dict[str, float],
    said: dict[str, Any],
) -> None:
    file["events"] = stretches
    for name, dataset in _DATASETS.items():
        file[f"event_params/{dataset}"] = columns[name]
    file["event_params/event_bsls"] = found.baseline
    for name, value in averages.items():
        file[f"event_statistics/{name}"] = value
    for name, value in said.items():
        file.attrs[name] = np.int64(value) if isinstance(value, int) else value


def _individual(columns: dict[str, NDArray[Any]]) -> bytes:
    """A row for each measure and a column for each event."""
    count = len(columns["location"])
    head = ["", *(f"event_{i}" for i in range(count))]
    return _rows([head, *([name, *values.astype(float)] for name, values in columns.items())])


def _rows(rows: Sequence[Sequence[Any]]) -> bytes:
    """Lines of a CSV; numbers in full, nan an empty cell."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    for row in rows:
        writer.writerow([cell if isinstance(cell, str) else _printed(cell) for cell in row])
    return stream.getvalue().encode()


def _printed(value: float) -> str:
    return "" if math.isnan(value) else repr(float(value))

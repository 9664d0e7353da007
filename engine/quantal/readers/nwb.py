"""NWB, intracellular: current and voltage clamp series, each one channel of one sweep.

h5py is enough: conversion, offset, clock and electrode are attributes and links with fixed names,
and a library that builds every object of a file costs seconds and stops at unknown extensions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.errors import ReadError
from quantal.readers.clock import NoRateError, rate_from_times
from quantal.readers.hdf5 import attribute, is_text, number, opened, refuse_empty_promises, word
from quantal.readers.parts import Part, PartSweep, choose_parts, joined, sweep_notes
from quantal.readers.recording import Channel, Recording, shortened

_CLAMPS = ("VoltageClampSeries", "CurrentClampSeries", "IZeroClampSeries")
# The standard stores amperes and volts; read as what a bench speaks of.
_BENCH_UNITS = {
    **dict.fromkeys(("a", "amp", "amps", "ampere", "amperes"), ("pA", 1e12)),
    **dict.fromkeys(("v", "volt", "volts"), ("mV", 1e3)),
}
_LONGEST_TEXT = 1 << 16  # bytes of a description that is read
_MOST_SERIES = 100_000


def is_nwb(path: Path) -> bool:
    """Whether an HDF5 file says that it is NWB, of version 1 or 2."""
    try:
        with opened(path) as file:
            return "nwb_version" in file.attrs or "nwb_version" in file
    except ReadError:
        return False


@dataclass(frozen=True, kw_only=True)
class _Series:
    """One series of the file: name of its group, what it is of, and its clock.

    sweep: its sweep number, nan if it states none; start_s: on the clock of the session.
    """

    name: str
    kind: str
    electrode: str
    unit: str | None
    factor: float
    offset: float
    samples: int
    rate_hz: float | None
    rate_missing: str
    sweep: float
    start_s: float
    protocol: str

    @property
    def order(self) -> tuple[float, float, list[tuple[int, str]]]:
        """By sweep number, then time, then name, in which 10 comes after 9."""
        digits = re.split(r"(\d{1,18})", self.name)
        natural = [(int(part), "") if part.isdecimal() else (-1, part) for part in digits]
        return _last_if_nan(self.sweep), _last_if_nan(self.start_s), natural


def open_nwb(path: Path, dataset: str | None = None) -> Recording:
    """Open the intracellular series of an NWB file: currents in pA, voltages in mV.

    A data set is an electrode's series of one kind, or one series by its place in the file. Series
    of several electrodes are channels where they have the same sweeps.

    Raises ReadError if the file is damaged or holds none.
    """
    with opened(path) as file:
        one = None if dataset is None else _one(file, dataset)
        found = _all_series(file, path) if one is None else [one]
        recorded = _moment(file)
        session = _text_of(file.get("session_description"))
    chosen = choose_parts(path, "NWB", _parts(found), dataset if one is None else None)
    sweep_samples, load = joined(chosen, lambda source: _samples(path, source))
    sources = [source for part in chosen for sweep in part.sweeps for source in sweep.sources]
    return Recording(
        path=path,
        format="NWB",
        channels=chosen[0].channels,
        sweep_samples=sweep_samples,
        load=load,
        rate_hz=chosen[0].rate_hz,
        protocol=shortened(list(dict.fromkeys(s.protocol for s in sources if s.protocol)), 4),
        recorded=recorded,
        comment=session,
        notes=sweep_notes(chosen),
        rate_missing=chosen[0].rate_missing,
    )


def _all_series(file: Any, path: Path) -> list[_Series]:
    """All clamp series under acquisition, in the order of their sweeps.

    Raises ReadError if there is none.
    """
    import h5py

    names: list[str] = []
    others: dict[str, None] = {}

    def visit(name: str, item: Any) -> bool | None:
        if isinstance(item, h5py.Group) and isinstance(item.get("data"), h5py.Dataset):
            kind = _kind(item)
            if kind in _CLAMPS:
                names.append(item.name)
            else:
                others[kind or name] = None
        return True if len(names) + len(others) > _MOST_SERIES else None

    if isinstance(file.get("acquisition"), h5py.Group):
        file["acquisition"].visititems(visit)
    if not names:
        there = f"; under acquisition there is: {shortened(list(others), 6)}" if others else ""
        raise ReadError(
            f"{path} holds no intracellular series ({', '.join(_CLAMPS)}){there}. "
            "A series of another kind can be named: dataset='acquisition/NAME'. ROIs of imaging "
            "are for quantal rois."
        )
    found = [_series(file[name], path) for name in names]
    return sorted((one for one in found if one.samples), key=lambda one: one.order)


def _one(file: Any, name: str) -> _Series | None:
    """The series at a place in the file, None if there is none."""
    import h5py

    item = file.get(name)
    if not (isinstance(item, h5py.Group) and isinstance(item.get("data"), h5py.Dataset)):
        return None
    return _series(item, Path(file.filename))


def _kind(group: Any) -> str:
    """What a group is; NWB 1 lists it last among its ancestors."""
    kind = word(_attribute(group, "neurodata_type"))
    ancestry = [word(one) for one in np.ravel(_attribute(group, "ancestry"))]
    return next((one for one in reversed(ancestry) if one in _CLAMPS), kind)


def _attribute(item: Any, name: str) -> Any:
    return attribute(item, name, _LONGEST_TEXT)


def _series(group: Any, path: Path) -> _Series:
    data = group["data"]
    if data.dtype.kind not in "iuf" or data.ndim != 1:
        raise ReadError(
            f"{path}: {data.name} is of shape {data.shape} and type {data.dtype}; an "
            "intracellular series has real numbers in one dimension."
        )
    refuse_empty_promises(data, path)
    stated = word(_attribute(data, "unit"))
    unit, factor = _BENCH_UNITS.get(stated.lower(), (stated, 1.0))
    conversion, offset = (
        _or(number(_attribute(data, "conversion")), 1.0),
        _attribute(data, "offset"),
    )
    rate_hz, start_s, rate_missing = _clock(group, path)
    return _Series(
        name=group.name.strip("/"),
        kind=_kind(group),
        electrode=_electrode(group),
        unit=unit or None,
        factor=conversion * factor,
        offset=_or(number(offset), 0.0) * factor,
        samples=int(data.shape[0]),
        rate_hz=rate_hz,
        rate_missing=rate_missing,
        sweep=number(_attribute(group, "sweep_number")),
        start_s=start_s,
        protocol=word(_attribute(group, "stimulus_description")),
    )


def _or(value: float, fallback: float) -> float:
    return fallback if math.isnan(value) else value


def _last_if_nan(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _electrode(group: Any) -> str:
    """The name of the electrode; NWB 1 has it as a text, and it may be missing."""
    import h5py

    link = group.get("electrode", getlink=True)
    if isinstance(link, h5py.SoftLink | h5py.ExternalLink):
        return str(link.path).rpartition("/")[2]
    return _text_of(group.get("electrode_name"))


def _clock(group: Any, path: Path) -> tuple[float | None, float, str]:
    """Rate, start on the session's clock, and why there is no rate."""
    import h5py

    start = group.get("starting_time")
    if isinstance(start, h5py.Dataset) and start.size == 1 and start.dtype.kind in "iuf":
        rate_hz = _exact(_attribute(start, "rate"))
        if math.isfinite(rate_hz) and rate_hz > 0:
            return rate_hz, number(start[()]), ""
        return None, number(start[()]), f"the rate of {group.name} is {rate_hz:g} Hz"
    times = group.get("timestamps")
    if not isinstance(times, h5py.Dataset) or times.ndim != 1 or times.dtype.kind not in "iuf":
        return None, math.nan, f"{group.name} has neither starting_time nor timestamps"
    refuse_empty_promises(times, path)
    values = np.asarray(times[()], np.float64)
    try:
        rate_hz = rate_from_times(values, "s", f"the timestamps of {group.name}")
    except NoRateError as reason:
        return None, number(values[:1]), str(reason)
    return rate_hz, float(values[0]), ""


def _exact(value: Any) -> float:
    """A rate as it was meant: in single precision, 403.226 is stored as 403.2260131835938."""
    return float(str(value)) if isinstance(value, np.float32) else number(value)


def _text_of(item: Any) -> str:
    import h5py

    if not isinstance(item, h5py.Dataset) or item.size != 1 or not is_text(item):
        return ""
    if item.nbytes > _LONGEST_TEXT:
        return ""
    refuse_empty_promises(item, Path(item.file.filename))
    return word(item[()])


def _moment(file: Any) -> datetime | None:
    """The start of the session on the rig's own clock."""
    try:
        return datetime.fromisoformat(_text_of(file.get("session_start_time"))).replace(
            tzinfo=None, microsecond=0
        )
    except ValueError:
        return None


# Sweeps and channels


def _parts(found: Sequence[_Series]) -> list[Part]:
    """Series by electrode and kind; electrodes with the same sweeps are channels of one part."""
    groups: dict[tuple[str, str, str | None, float | None], list[_Series]] = {}
    for one in found:
        groups.setdefault((one.electrode, one.kind, one.unit, one.rate_hz), []).append(one)
    columns = list(groups.values())
    if len(columns) > 1 and len({tuple(map(_moment_of, column)) for column in columns}) == 1:
        return [_part("all", columns)]
    electrodes = {column[0].electrode for column in columns}
    kinds = {column[0].kind for column in columns}
    names = []
    for column in columns:
        electrode, kind = column[0].electrode, column[0].kind
        if len(electrodes) == 1:
            names.append(kind)
        else:
            names.append(electrode if len(kinds) == 1 else f"{electrode}/{kind}")
    parts = [_part(name, [column]) for name, column in zip(names, columns, strict=True)]
    return [
        part if names.count(part.name) == 1 else replace(part, name=f"{part.name}#{n}")
        for n, part in enumerate(parts, start=1)
    ]


def _moment_of(one: _Series) -> tuple[float, float, int]:
    """What series recorded at the same time share."""
    return _last_if_nan(one.sweep), _last_if_nan(one.start_s), one.samples


def _part(name: str, columns: Sequence[Sequence[_Series]]) -> Part:
    first = columns[0][0]
    return Part(
        name=name,
        label="",
        channels=tuple(Channel(_channel_name(column[0]), column[0].unit) for column in columns),
        rate_hz=first.rate_hz,
        rate_missing=first.rate_missing,
        sweeps=tuple(PartSweep(row[0].samples, tuple(row)) for row in zip(*columns, strict=True)),
    )


def _channel_name(one: _Series) -> str:
    return one.electrode or one.name.rpartition("/")[2]


def _samples(path: Path, one: _Series) -> NDArray[np.float32]:
    if not (math.isfinite(one.factor) and one.factor and math.isfinite(one.offset)):
        raise ReadError(
            f"{path}: {one.name} states no usable conversion; write it again, or name another."
        )
    with opened(path) as file:
        stored = file[one.name]["data"][()]
    with np.errstate(all="ignore"):  # damaged floats become inf, which Trace speaks of
        return np.asarray(stored.astype(np.float64) * one.factor + one.offset, np.float32)

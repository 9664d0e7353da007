"""WaveSurfer: HDF5 with a header, and for each sweep the counts of every active input."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.errors import ReadError
from quantal.readers.hdf5 import is_text, number, opened, refuse_empty_promises, word
from quantal.readers.recording import Channel, Recording, Samples, shortened

_log = logging.getLogger(__name__)

_SWEEP = re.compile(r"(?:sweep|trial)_(\d{1,9})")
_MOST_CHANNELS = 4096
_LARGEST_ENTRY = 1 << 20  # bytes of the header that are read at once
_TIMEBASE_HZ = 100e6  # of the boards that WaveSurfer drives
_COERCED_SINCE = (0, 913)  # from this version on the header has the rate of the board
# What WaveSurfer itself assumed before it stored the calibration of a board: +-10 V in 16 bits.
_NOMINAL = (0.0, 10 / 2**15)


def is_wavesurfer(path: Path) -> bool:
    """Whether an HDF5 file has a header of WaveSurfer and a sweep."""
    try:
        with opened(path) as file:
            return _is_group(file, "header") and bool(_sweep_names(file))
    except ReadError:
        return False


def _is_group(file: Any, name: str) -> bool:
    import h5py

    return file.get(name, getclass=True) is h5py.Group


def _sweep_names(file: Any) -> list[str]:
    """Groups of sweeps by their number."""
    found = [name for name in file if _SWEEP.fullmatch(name) and _is_group(file, name)]
    return sorted(
        (name for name in found if "analogScans" in file[name]),
        key=lambda name: int(name.rpartition("_")[2]),
    )


@dataclass(frozen=True)
class _Input:
    """How the counts of one active input become its unit: polynomial in volts, over scale."""

    channel: Channel
    coefficients: tuple[float, ...]
    scale: float


def open_wavesurfer(path: Path, dataset: str | None = None) -> Recording:  # noqa: ARG001
    """Open a WaveSurfer file: a channel for every active analog input, in the unit set there.

    Raises ReadError if it is damaged, or its header does not fit its sweeps.
    """
    with opened(path) as file:
        header = _Header(file["header"])
        inputs, notes = _inputs(header, path)
        listed = _sweep_names(file)
        lengths = [_length(file[name]["analogScans"], len(inputs), path) for name in listed]
        recorded, rate_hz = _moment(header), _rate_hz(header)
    sweeps = [(name, length) for name, length in zip(listed, lengths, strict=True) if length]
    if len(sweeps) < len(listed):
        notes = (*notes, f"left out, being without samples: {len(listed) - len(sweeps)} sweep(s)")

    def load(numbers: Sequence[int], channels: Sequence[int]) -> Iterator[Sequence[Samples]]:
        _refuse_no_scale([inputs[i] for i in channels], path)
        with opened(path) as file:
            for n in numbers:
                data = file[sweeps[n][0]]["analogScans"]
                yield [_scaled(data[i, :], inputs[i]) for i in channels]

    return Recording(
        path=path,
        format=f"WaveSurfer {header.version}".strip(),
        channels=tuple(one.channel for one in inputs),
        sweep_samples=tuple(length for _, length in sweeps),
        load=load,
        rate_hz=rate_hz,
        recorded=recorded,
        notes=notes,
        rate_missing="its header has no usable sampling rate",
    )


class _Header:
    """The header, whose entries changed their names: each is asked for by all it has had."""

    def __init__(self, group: Any) -> None:
        self._group = group
        self.version = next(iter(self.texts("VersionString")), "")

    def _value(self, *names: str) -> Any:
        import h5py

        for name in names:
            item = self._group.get(name)
            if isinstance(item, h5py.Dataset) and item.size is not None:
                known = item.dtype.kind in "biuf" or is_text(item)
                if not known or item.nbytes > _LARGEST_ENTRY:
                    return None
                refuse_empty_promises(item, Path(item.file.filename))
                return item[()]
        return None

    def numbers(self, *names: str) -> NDArray[np.float64] | None:
        """All numbers of the first entry that there is."""
        value = self._value(*names)
        if value is None or np.asarray(value).dtype.kind not in "biuf":
            return None
        return np.asarray(value, np.float64)

    def texts(self, *names: str) -> list[str]:
        """All texts of the first entry that there is."""
        value = self._value(*names)
        if value is None or np.asarray(value).dtype.kind not in "SO":
            return []
        return [word(one) for one in np.ravel(value)]


def _inputs(header: _Header, path: Path) -> tuple[list[_Input], tuple[str, ...]]:
    """The active inputs, in the order of the rows of a sweep."""
    scales = header.numbers("AIChannelScales", "Acquisition/AnalogChannelScales")
    if scales is None or not 1 <= scales.size <= _MOST_CHANNELS:
        raise ReadError(f"{path}: the WaveSurfer header lists no inputs; it may be damaged.")
    scales = scales.ravel()
    names = header.texts("AIChannelNames", "Acquisition/AnalogChannelNames")
    units = header.texts("AIChannelUnits", "Acquisition/AnalogChannelUnits")
    flags = header.numbers("IsAIChannelActive", "Acquisition/IsAnalogChannelActive")
    active = np.arange(scales.size)
    if flags is not None and flags.size == scales.size:
        active = np.flatnonzero(flags.ravel())
    stored = header.numbers("AIScalingCoefficients", "Acquisition/AnalogScalingCoefficients")
    polynomials, notes = _polynomials(stored, active, scales.size, path)
    return [
        _Input(
            Channel(
                (names[i] if i < len(names) else "") or f"channel {i}",
                (units[i] if i < len(units) else "") or None,
            ),
            polynomials[row],
            float(scales[i]),
        )
        for row, i in enumerate(active.tolist())
    ], notes


def _polynomials(
    stored: NDArray[np.float64] | None, active: NDArray[np.intp], count: int, path: Path
) -> tuple[list[tuple[float, ...]], tuple[str, ...]]:
    """Volts from counts for every active input, lowest power first, and a word if assumed."""
    if stored is None:
        note = (
            "states no scaling coefficients: taken as 10 V in 32,768 counts, as WaveSurfer did "
            "then; the board's own may differ by some percent"
        )
        _log.warning("%s %s", path.name, note)
        return [_NOMINAL] * len(active), (f"the header {note}",)
    rows = {len(active): np.arange(len(active)), count: active}
    if stored.ndim != 2 or stored.shape[0] not in rows or not stored.shape[1]:
        raise ReadError(
            f"{path}: the scaling coefficients are of shape {stored.shape}, but {len(active)} "
            "inputs are active; the WaveSurfer header may be damaged."
        )
    return [tuple(row) for row in stored[rows[stored.shape[0]]].tolist()], ()


def _length(data: Any, inputs: int, path: Path) -> int:
    """Samples of a sweep; raises ReadError if its rows are not the active inputs."""
    import h5py

    if not isinstance(data, h5py.Dataset):
        raise ReadError(f"{path}: {data.name} holds no counts; the file may be damaged.")
    if data.ndim != 2 or data.dtype.kind not in "iuf" or data.shape[0] != inputs:
        raise ReadError(
            f"{path}: {data.name} is of shape {data.shape} and type {data.dtype}; there should be "
            f"one row of counts for each of {inputs} active inputs."
        )
    refuse_empty_promises(data, path)
    return int(data.shape[1])


def _refuse_no_scale(inputs: Sequence[_Input], path: Path) -> None:
    bad = [
        one.channel.name
        for one in inputs
        if not (math.isfinite(one.scale) and one.scale and np.isfinite(one.coefficients).all())
    ]
    if bad:
        raise ReadError(
            f"{path}: the header states no usable scale for {shortened(bad)}; "
            "ask for another channel."
        )


def _scaled(counts: NDArray[Any], one: _Input) -> NDArray[np.float32]:
    with np.errstate(all="ignore"):  # damaged numbers become inf, which Trace speaks of
        volts = np.polynomial.polynomial.polyval(counts.astype(np.float64), one.coefficients)
        return np.asarray(volts / one.scale, np.float32)


def _rate_hz(header: _Header) -> float | None:
    """The rate at which the board sampled; early versions wrote down the one asked for."""
    rate = number(header.numbers("AcquisitionSampleRate", "Acquisition/SampleRate"))
    if not (math.isfinite(rate) and 0 < rate <= _TIMEBASE_HZ):
        return None
    ticks = _TIMEBASE_HZ / rate
    if _decimal(header.version) < _COERCED_SINCE and abs(ticks - round(ticks)) > 1e-6:
        return _TIMEBASE_HZ / math.floor(ticks)
    return rate


def _decimal(version: str) -> tuple[int, int]:
    """0.913 as (0, 913) and 0.97 as (0, 970): up to 1.0 versions count as decimals."""
    match = re.match(r"(\d{1,6})\.(\d{1,9})", version)
    if match is None:
        return (0, 0)
    return int(match[1]), int(match[2][:3].ljust(3, "0"))


def _moment(header: _Header) -> datetime | None:
    clock = header.numbers("ClockAtRunStart")
    if clock is None or clock.size != 6 or not np.isfinite(clock).all():
        return None
    try:
        return datetime(*(int(part) for part in clock.ravel()))  # type: ignore[arg-type]
    except (ValueError, OverflowError):
        return None

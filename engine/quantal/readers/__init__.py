"""Files -> traces. The one door to all formats: the table below says who reads what."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quantal.errors import QuantalError, ReadError, UsageError
from quantal.readers.abf import open_abf
from quantal.readers.choose import ChannelChoice, SweepChoice, choose_channels, choose_sweeps
from quantal.readers.hdf5 import open_hdf5
from quantal.readers.heka import SIGNATURES, open_heka
from quantal.readers.info import (
    ChannelInfo,
    FileInfo,
    catalogue,
    describe,
    overruled,
    summarise,
)
from quantal.readers.neo import neo_reads, open_neo
from quantal.readers.npy import open_npy
from quantal.readers.nwb import is_nwb, open_nwb
from quantal.readers.recording import Format, Recording, Samples, SeveralDatasetsError, Tag
from quantal.readers.table import open_table
from quantal.readers.wavesurfer import is_wavesurfer, open_wavesurfer
from quantal.trace import Trace

__all__ = ["ChannelInfo", "FileInfo", "Tag", "describe", "inspect", "read"]

_log = logging.getLogger(__name__)

_HDF5 = (b"\x89HDF\r\n\x1a\n",)
FORMATS = (
    Format("ABF", (".abf",), (b"ABF ", b"ABF2"), open_abf),
    Format("HEKA PatchMaster", (".dat",), SIGNATURES, open_heka, has_datasets=True),
    Format("NWB", (".nwb",), _HDF5, open_nwb, has_datasets=True, recognises=is_nwb),
    Format("WaveSurfer", (), _HDF5, open_wavesurfer, recognises=is_wavesurfer),
    Format("HDF5", (".h5", ".hdf5", ".hdf"), _HDF5, open_hdf5, has_datasets=True),
    Format("NumPy", (".npy",), (b"\x93NUMPY",), open_npy),
    Format("text table", (".csv", ".tsv", ".txt"), (), open_table),
)
_OTHERS = Format("other formats", (), (), open_neo, has_datasets=True)


def read(
    path: str | os.PathLike[str],
    channel: ChannelChoice = None,
    sweeps: SweepChoice = "all",
    rate_hz: float | None = None,
    scale: float | None = None,
    unit: str | None = None,
    dataset: str | None = None,
) -> list[Trace]:
    """Traces of a recording, one per sweep and channel asked for, sweep by sweep.

    channel: index or name, a list of them, or "all"; None is channel 0.
    sweeps: "all", a text such as "0,2-5", or numbers; the first sweep is 0.
    rate_hz, unit: needed where the file does not state them; where it does, they overrule it.
    scale: multiplies the samples, for a file with a wrong gain.
    dataset: which data set of an HDF5 file, which series of a HEKA file (1.2 is the second of the
        first group), which series of an NWB file; needed where there are several that differ.

    Every trace starts at 0 s: the sweep's own clock.

    Raises ReadError if the file cannot be read or does not hold what was asked for, UsageError if
    an argument is outside what is allowed.
    """
    reading = read_all_told(path, channel, sweeps, rate_hz, scale, unit, dataset)
    for text in reading.overruled:
        _log.info("%s: %s", path, text)
    return reading.traces


@dataclass(frozen=True, eq=False, kw_only=True)
class Reading:
    """Traces of a recording, and what its reader was not asked for or was told otherwise.

    others: channels that were not read since none was asked for. overruled: in words, what the file
    states and the arguments overrule.
    """

    traces: list[Trace]
    others: int
    overruled: tuple[str, ...]


def read_all_told(
    path: str | os.PathLike[str],
    channel: ChannelChoice = None,
    sweeps: SweepChoice = "all",
    rate_hz: float | None = None,
    scale: float | None = None,
    unit: str | None = None,
    dataset: str | None = None,
) -> Reading:
    """What `read` gives, and what a user should be told of it; it raises the same."""
    rate_hz, factor, unit = checked_positive("rate_hz", rate_hz), _factor(scale), _given(unit)
    path = Path(path)
    with clear_answers(path):
        recording = _open(path, dataset)
        wanted = choose_channels(recording, channel)
        numbers = choose_sweeps(recording, sweeps)
        rate = _rate(recording, rate_hz)
        units = [unit or _unit(recording, i) for i in wanted]
        traces = [
            _trace(recording, samples, rate, one_unit, factor, number, i)
            for number, arrays in zip(numbers, recording.load(numbers, wanted), strict=True)
            for i, one_unit, samples in zip(wanted, units, arrays, strict=True)
        ]
    return Reading(
        traces=traces,
        others=len(recording.channels) - len(wanted) if channel is None else 0,
        overruled=overruled(recording, rate_hz, unit, wanted),
    )


def inspect(
    path: str | os.PathLike[str],
    rate_hz: float | None = None,
    scale: float | None = None,
    unit: str | None = None,
    dataset: str | None = None,
) -> FileInfo:
    """What a recording holds: channels, units, sweeps, rate, range, protocol, date, tags.

    The arguments are those of `read`; a rate or unit that the file does not state may stay out.

    Raises ReadError if the file cannot be read, UsageError if an argument is not allowed.
    """
    rate_hz, factor, unit = checked_positive("rate_hz", rate_hz), _factor(scale), _given(unit)
    path = Path(path)
    with clear_answers(path):
        try:
            return summarise(_open(path, dataset), rate_hz, factor, unit)
        except SeveralDatasetsError as several:
            return catalogue(several)


def checked_positive(name: str, value: float | None) -> float | None:
    """The number, or None where none is given; raises UsageError unless it is positive."""
    if value is not None and not (math.isfinite(value) and value > 0):
        raise UsageError(f"{name} must be a positive number, got {value!r}.")
    return value


def _factor(scale: float | None) -> float:
    if scale is not None and not (math.isfinite(scale) and scale != 0):
        raise UsageError(f"scale must be a number other than 0, got {scale!r}.")
    return 1.0 if scale is None else float(scale)


def _given(unit: str | None) -> str | None:
    if unit is not None and not unit.strip():
        raise UsageError("unit must not be blank; say 'a.u.' where the unit is not known.")
    return None if unit is None else unit.strip()


@contextmanager
def clear_answers(path: Path) -> Iterator[None]:
    """Turn what a library or the system reports into a ReadError that names the file."""
    try:
        yield
    except QuantalError:
        raise
    except MemoryError as error:
        raise ReadError(
            f"{path} does not fit into memory; ask for fewer sweeps or channels."
        ) from error
    except OSError as error:
        raise ReadError(
            f"{path} cannot be read: {error.strerror or error}; check the drive and permissions."
        ) from error


def _open(path: Path, dataset: str | None) -> Recording:
    refuse_no_file(path)
    kind = _format(path)
    if dataset is not None and not kind.has_datasets:
        raise UsageError(
            f"dataset is for HDF5, HEKA and NWB files; {path} is read as {kind.name}, leave it out."
        )
    recording = kind.open(path, dataset)
    if min(recording.sweep_samples, default=0) < 1:
        raise ReadError(f"{path} holds no samples.")
    return recording


def refuse_no_file(path: Path) -> None:
    """Raise ReadError for what is no file, or an empty one."""
    if path.is_dir():
        raise ReadError(
            f"{path} is a folder. All recordings in it are for quantal batch, a suite2p folder is "
            f"for quantal rois; or name a file in it. Supported are {_supported()}."
        )
    if not path.exists():
        raise ReadError(f"{path} does not exist; check its name and folder (here is {Path.cwd()}).")
    if not path.is_file():
        raise ReadError(f"{path} is not a regular file; copy the recording to a disk first.")
    if not path.stat().st_size:
        raise ReadError(f"{path} is empty (0 bytes); copy it again from the rig.")


def _format(path: Path) -> Format:
    """The format by what the file holds, or else by the suffix, or else whatever neo reads."""
    with path.open("rb") as file:
        start = file.read(16)
    suffix = path.suffix.lower()
    by_content = next(
        (one for one in FORMATS if start.startswith(one.magic) and one.recognises(path)), None
    )
    by_suffix = next((one for one in FORMATS if suffix in one.suffixes), None)
    kind = by_content or by_suffix
    if kind is None:
        return _other(path)
    if by_content and by_content is not by_suffix:
        _log.info("%s is read as %s, whatever its suffix says", path, kind.name)
    return kind


def _other(path: Path) -> Format:
    if neo_reads(path):
        return _OTHERS
    suffix = path.suffix.lower()
    named = f"files ending in {suffix!r}" if suffix else "files without a suffix"
    raise ReadError(
        f"{path}: {named} are not supported; supported are {_supported()}, "
        'and with neo (python -m pip install "neo>=0.14") what it reads.'
    )


def _supported() -> str:
    return ", ".join(
        f"{kind.name} ({', '.join(kind.suffixes)})" if kind.suffixes else kind.name
        for kind in FORMATS
    )


def _rate(recording: Recording, asked: float | None) -> float:
    if asked is not None:
        return asked
    if recording.rate_hz is None:
        raise ReadError(
            f"{recording.path}: {recording.rate_missing}. "
            "Give the samples per second: rate_hz=20000 (--rate-hz 20000)."
        )
    return recording.rate_hz


def _unit(recording: Recording, channel: int) -> str:
    unit, name = recording.channels[channel].unit, recording.channels[channel].name
    if unit is None:
        raise ReadError(
            f"{recording.path}: {name} has no unit. Give it: unit='pA' (--unit pA), "
            "or 'a.u.' where it is not known."
        )
    return unit


def _trace(
    recording: Recording,
    samples: Samples,
    rate_hz: float,
    unit: str,
    scale: float,
    sweep: int,
    channel: int,
) -> Trace:
    try:
        return Trace(
            samples=np.asarray(samples if scale == 1 else samples * scale),
            rate_hz=rate_hz,
            unit=unit,
            recording=recording.path.stem,
            channel=recording.channels[channel].name,
            sweep=sweep,
        )
    except UsageError as error:
        raise ReadError(f"{recording.path}, sweep {sweep}: {error}") from error

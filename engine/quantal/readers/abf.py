"""Axon Binary Format 1 and 2: pCLAMP, AxoScope, Clampfit.

pyabf parses the tables of the header. Rates, sweep lengths and samples are taken from the file
itself, because pyabf rounds rates to whole hertz, takes the sweeps of an ABF1 file as equally
long, and reads past the end of short ABF1 headers.
"""

from __future__ import annotations

import io
import math
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PureWindowsPath
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from quantal.errors import ReadError
from quantal.readers.recording import Channel, Recording, Tag, shortened

_BLOCK = 512
_GAP_FREE = 3
_DTYPES: dict[int, np.dtype[Any]] = {0: np.dtype("<i2"), 1: np.dtype("<f4")}
_LARGEST = float(np.finfo(np.float32).max)
_TAG = np.dtype([("ticks", "<i4"), ("text", "S56"), ("kind", "<i2"), ("index", "<i2")])
_SYNCH = np.dtype([("start", "<i4"), ("length", "<i4")])

_ABF1_HEADER = 6144
_ABF1_SHORTEST_HEADER = 2048
_ABF1_CHANNELS = 16
_ABF1_START_DATE = 20
_ABF1_TAG_COUNT = 48
_ABF1_NAMES_AND_UNITS = slice(442, 730)

# Where ABF2 lists a section, and the fewest bytes that one entry of it needs.
_ABF2_SECTIONS = {
    "protocol": (76, 208),
    "adc": (92, 82),
    "data": (236, 2),
    "strings": (220, 1),
    "tags": (252, _TAG.itemsize),
    "synch": (316, _SYNCH.itemsize),
}
_ABF2_SECTION_TABLE = 512
_ABF2_MOST_CHANNELS = 64
_ABF2_MOST_TEXT = 1 << 20


@dataclass(frozen=True)
class _Section:
    """A stretch of the file: count entries of itemsize bytes from byte start on."""

    start: int
    itemsize: int
    count: int


@dataclass(frozen=True)
class _Scaling:
    """From counts to the channel's unit: gain * counts + offset."""

    gain: float
    offset: float

    @property
    def usable(self) -> bool:
        """Whether every 16-bit count becomes a number that single precision can hold."""
        return self.gain != 0 and abs(self.gain) * 2**15 + abs(self.offset) < _LARGEST


@dataclass(frozen=True, kw_only=True)
class _Header:
    """What ABF1 and ABF2 both state, in one form.

    interval_us: time between two samples of one channel; tick_us: unit of the tags' times.
    data: the section of samples, channels interleaved; sweeps: as many as the header counts.
    synch, tags: tables of sweep lengths and of remarks.
    """

    version: str
    channels: tuple[Channel, ...]
    scaling: tuple[_Scaling, ...]
    interval_us: float
    tick_us: float
    data_format: int
    data: _Section
    sweeps: int
    synch: _Section
    tags: _Section
    protocol: str
    comment: str
    recorded: datetime | None
    raw_date: int


def open_abf(path: Path, dataset: str | None = None) -> Recording:  # noqa: ARG001
    """Open an ABF file of either version.

    Raises ReadError if it is truncated, damaged, or no ABF file.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        magic = file.read(4)
        if magic not in (b"ABF ", b"ABF2"):
            raise ReadError(
                f"{path} is not an ABF file: it begins with {magic!r} instead of 'ABF ' or 'ABF2'."
            )
        try:
            header = (_abf1 if magic == b"ABF " else _abf2)(file, size)
            _refuse_missing_samples(header, size)
            lengths, notes = _sweep_lengths(file, header)
            tags = _tags(file, header)
        except _Unreadable as reason:
            raise ReadError(f"{path}: {reason}") from None
        except Exception as error:  # pyabf raises whatever its parsing stumbles over
            raise ReadError(
                f"{path}: the ABF header is damaged ({error}); copy the file again from the rig."
            ) from error
    return Recording(
        path=path,
        format=f"ABF {header.version}",
        channels=header.channels,
        sweep_samples=tuple(length // len(header.channels) for length in lengths),
        load=_Loader(path, header, lengths),
        rate_hz=_rate(header),
        protocol=header.protocol,
        recorded=header.recorded,
        comment=header.comment,
        tags=tags,
        notes=(*notes, *_date_notes(header)),
        rate_missing="its header holds no usable sampling interval",
    )


class _Unreadable(Exception):  # noqa: N818
    """Why the file cannot be read; open_abf adds the path."""


def _ends_early(needed: int, size: int) -> _Unreadable:
    return _Unreadable(
        f"the file ends early: its header speaks of {needed:,} bytes and {size:,} are there; "
        "copy it again from the rig (an unfinished recording must be stopped first)."
    )


def _refuse_outside(section: _Section, size: int) -> None:
    """Check a section against the size of the file before anything is read or allocated."""
    if section.count < 0 or section.start < 0:
        raise _Unreadable("the ABF header is damaged (a negative size or position).")
    needed = section.start + section.itemsize * section.count
    if section.count and needed > size:
        raise _ends_early(needed, size)


def _refuse_missing_samples(header: _Header, size: int) -> None:
    if header.data_format not in _DTYPES:
        raise _Unreadable(
            f"samples are stored as format {header.data_format}; "
            "ABF knows 0 (16-bit integers) and 1 (32-bit floats)."
        )
    if not header.data.count:
        raise _Unreadable("the header counts no samples; was the recording stopped and saved?")
    if header.data.itemsize != _DTYPES[header.data_format].itemsize:
        raise _Unreadable(f"the ABF header is damaged ({header.data.itemsize} bytes a sample).")
    if header.data.start < _BLOCK:
        raise _Unreadable("the ABF header is damaged (the samples overlap the header).")
    for section in (header.data, header.synch, header.tags):
        _refuse_outside(section, size)


# ABF1


def _abf1(file: BinaryIO, size: int) -> _Header:
    if size < _ABF1_SHORTEST_HEADER:
        raise _ends_early(_ABF1_SHORTEST_HEADER, size)
    from pyabf.abf1.headerV1 import HeaderV1

    raw_date, data_start, tag_start, tag_count = _abf1_places(file)
    table = HeaderV1(io.BytesIO(_abf1_bytes(file, data_start)))
    count = table.nADCNumChannels
    if not 1 <= count <= _ABF1_CHANNELS:
        raise _Unreadable(f"the ABF header is damaged ({count} channels).")
    if table.nDataFormat not in _DTYPES:
        raise _Unreadable(f"the ABF header is damaged (data format {table.nDataFormat}).")
    itemsize = _DTYPES[table.nDataFormat].itemsize
    used = [table.nADCSamplingSeq[i] for i in range(count)]
    interval = _shortest_decimal(table.fADCSampleInterval)
    return _Header(
        version=f"{table.fFileVersionNumber:.2f}",
        channels=tuple(
            _channel(table.sADCChannelName[i], table.sADCUnits[i], n) for n, i in enumerate(used)
        ),
        scaling=tuple(_scaling(table, i, table.fADCRange, table.lADCResolution) for i in used),
        interval_us=interval * count,
        tick_us=table.fSynchTimeUnit or interval,
        data_format=table.nDataFormat,
        data=_Section(
            data_start + table.nNumPointsIgnored * itemsize, itemsize, table.lActualAcqLength
        ),
        sweeps=1 if table.nOperationMode == _GAP_FREE else max(table.lActualEpisodes, 1),
        synch=_Section(
            table.lSynchArrayPtr * _BLOCK, _SYNCH.itemsize, max(table.lSynchArraySize, 0)
        ),
        tags=_Section(tag_start, _TAG.itemsize, max(tag_count, 0) if tag_start else 0),
        protocol=_protocol(table.sProtocolPath),
        comment=_text(table.sFileCommentNew) or _text(table.sFileCommentOld),
        recorded=_moment(table),
        raw_date=raw_date,
    )


def _abf1_places(file: BinaryIO) -> tuple[int, int, int, int]:
    """The date as stored, byte positions of samples and tags, and the number of tags."""
    file.seek(_ABF1_START_DATE)
    date, data_block, tag_block, tag_count = struct.unpack("<i16x3i", file.read(32))
    return date, data_block * _BLOCK, tag_block * _BLOCK, tag_count


def _abf1_bytes(file: BinaryIO, data_start: int) -> bytes:
    """The header as pyabf can read it.

    Old headers are shorter than pyabf expects, and it would take samples for settings: what
    lies past the header is zero here. A micro sign would be dropped, and uA become A. Without
    a date pyabf would report the file's own; without tags it leaves them to this module.
    """
    file.seek(0)
    header = bytearray(file.read(max(min(data_start, _ABF1_HEADER), 0)).ljust(_ABF1_HEADER, b"\0"))
    header[_ABF1_NAMES_AND_UNITS] = header[_ABF1_NAMES_AND_UNITS].replace(b"\xb5", b"u")
    struct.pack_into("<i", header, _ABF1_TAG_COUNT, 0)
    if struct.unpack_from("<i", header, _ABF1_START_DATE) == (0,):
        struct.pack_into("<i", header, _ABF1_START_DATE, -1)
    return bytes(header)


# ABF2


def _abf2(file: BinaryIO, size: int) -> _Header:
    places = _abf2_sections(file, size)
    from pyabf.abf2.adcSection import ADCSection
    from pyabf.abf2.headerV2 import HeaderV2
    from pyabf.abf2.protocolSection import ProtocolSection
    from pyabf.abf2.stringsSection import StringsSection

    table, protocol, adc = HeaderV2(file), ProtocolSection(file), ADCSection(file)
    texts = StringsSection(file)._indexedStrings
    count = places["adc"].count
    interval = _shortest_decimal(protocol.fADCSequenceInterval)
    return _Header(
        version=".".join(table.abfVersionString.split(".")[:2]),
        channels=tuple(
            _channel(_pick(texts, name), _pick(texts, unit), n)
            for n, (name, unit) in enumerate(
                zip(adc.lADCChannelNameIndex, adc.lADCUnitsIndex, strict=True)
            )
        ),
        scaling=tuple(
            _scaling(adc, i, protocol.fADCRange, protocol.lADCResolution) for i in range(count)
        ),
        interval_us=interval,
        tick_us=protocol.fSynchTimeUnit or interval / count,
        data_format=table.nDataFormat,
        data=places["data"],
        sweeps=1 if protocol.nOperationMode == _GAP_FREE else max(table.lActualEpisodes, 1),
        synch=places["synch"],
        tags=places["tags"],
        protocol=_protocol(_pick(texts, table.uProtocolPathIndex)),
        comment=_text(_pick(texts, protocol.lFileCommentIndex)),
        recorded=_moment(table),
        raw_date=table.uFileStartDate,
    )


def _abf2_sections(file: BinaryIO, size: int) -> dict[str, _Section]:
    """Where the parts of the file lie, each one checked against the size of the file."""
    file.seek(0)
    head = file.read(_ABF2_SECTION_TABLE)
    if len(head) < _ABF2_SECTION_TABLE:
        raise _ends_early(_ABF2_SECTION_TABLE, size)
    places = {}
    for name, (position, smallest) in _ABF2_SECTIONS.items():
        block, itemsize, count = struct.unpack_from("<IIq", head, position)
        section = _Section(block * _BLOCK, itemsize, count)
        _refuse_outside(section, size)
        if count and itemsize < smallest:
            raise _Unreadable(f"the ABF header is damaged ({name} entries of {itemsize} bytes).")
        places[name] = section
    if not 1 <= places["adc"].count <= _ABF2_MOST_CHANNELS:
        raise _Unreadable(f"the ABF header is damaged ({places['adc'].count} channels).")
    if places["strings"].itemsize * places["strings"].count > _ABF2_MOST_TEXT:
        raise _Unreadable("the ABF header is damaged (more than 1 MiB of names).")
    return places


def _pick(texts: Sequence[str], index: int) -> str:
    return texts[index] if 0 <= index < len(texts) else ""


# both


def _shortest_decimal(single: float) -> float:
    """The interval that was typed in: single precision makes 12.800000190734863 of 12.8."""
    return float(str(np.float32(single)))


def _text(stored: str) -> str:
    return stored.split("\0")[0].strip()


def _channel(name: str, unit: str, number: int) -> Channel:
    return Channel(_text(name) or f"channel {number}", _text(unit) or None)


def _protocol(path: str) -> str:
    return PureWindowsPath(_text(path)).stem if _text(path).lower().endswith(".pro") else ""


def _moment(table: Any) -> datetime | None:
    """The start of the recording; pyabf marks an impossible date as ERROR."""
    return None if table.abfDateTimeString == "ERROR" else table.abfDateTime


def _date_notes(header: _Header) -> tuple[str, ...]:
    if header.recorded is not None or header.raw_date == 0:
        return ()
    return (f"the date in the header, {header.raw_date}, is impossible",)


def _rate(header: _Header) -> float | None:
    interval = header.interval_us
    rate_hz = 1e6 / interval if interval > 0 else math.nan
    return rate_hz if math.isfinite(rate_hz) and rate_hz > 0 else None


def _scaling(table: Any, i: int, span: float, steps: int) -> _Scaling:
    """Gain and offset of one channel, from the settings of amplifier and digitiser."""
    divisors = [
        table.fInstrumentScaleFactor[i],
        table.fSignalGain[i],
        table.fADCProgrammableGain[i],
        *([table.fTelegraphAdditGain[i]] if table.nTelegraphEnable[i] == 1 else []),
    ]
    gain = 1.0
    for divisor in divisors:
        gain = gain / divisor if divisor else math.nan
    gain = gain * span / steps if steps else math.nan
    return _Scaling(gain, table.fInstrumentOffset[i] - table.fSignalOffset[i])


def _sweep_lengths(file: BinaryIO, header: _Header) -> tuple[list[int], tuple[str, ...]]:
    """Samples in every sweep, all channels together, and what was odd about them.

    The table of sweep lengths counts where it agrees with the number of samples; without it
    sweeps are equally long.
    """
    width, points = len(header.channels), header.data.count
    listed = [int(length) for length in _entries(file, header.synch, _SYNCH)["length"]]
    notes: tuple[str, ...] = ()
    if header.sweeps == 1:
        lengths = [points]
    elif listed and min(listed) > 0 and sum(listed) == points:
        lengths = listed
    elif points % (header.sweeps * width) == 0:
        lengths = [points // header.sweeps] * header.sweeps
        notes = ("sweeps are taken as equally long: the file does not list their lengths",)
    else:
        raise _Unreadable(
            f"the ABF header is damaged ({points:,} samples do not divide into "
            f"{header.sweeps:,} sweeps of {width} channels)."
        )
    if min(lengths) < width:
        raise _Unreadable("the ABF header is damaged (a sweep without samples).")
    return lengths, notes


def _entries(file: BinaryIO, section: _Section, dtype: np.dtype[Any]) -> NDArray[Any]:
    """A table of the file; the section has been checked against the size of the file."""
    if not section.count:
        return np.empty(0, dtype)
    file.seek(section.start)
    rows = np.frombuffer(file.read(section.itemsize * section.count), np.uint8)
    rows = rows.reshape(section.count, section.itemsize)[:, : dtype.itemsize]
    return np.ascontiguousarray(rows).view(dtype)[:, 0]


def _tags(file: BinaryIO, header: _Header) -> tuple[Tag, ...]:
    return tuple(
        Tag(
            time_s=round(float(row["ticks"]) * header.tick_us / 1e6, 6),
            text=_text(row["text"].replace(b"\xb5", b"u").decode("ascii", errors="ignore")),
        )
        for row in _entries(file, header.tags, _TAG)
    )


@dataclass(frozen=True)
class _Loader:
    """Reads sweeps one at a time, so that no more than one sweep of all channels is in memory."""

    path: Path
    header: _Header
    lengths: list[int]

    def __call__(
        self, sweeps: Sequence[int], channels: Sequence[int]
    ) -> Iterator[Sequence[NDArray[np.float32]]]:
        self._refuse_no_gain(channels)
        width = len(self.header.channels)
        dtype = _DTYPES[self.header.data_format]
        starts = np.cumsum([0, *self.lengths])
        for sweep in sweeps:
            length = self.lengths[sweep] // width * width
            raw = np.fromfile(
                self.path,
                dtype,
                count=length,
                offset=self.header.data.start + int(starts[sweep]) * dtype.itemsize,
            )
            if len(raw) < length:
                raise ReadError(f"{self.path} became shorter while it was read; try again.")
            yield [self._scaled(raw[channel::width], channel) for channel in channels]

    def _scaled(self, raw: NDArray[Any], channel: int) -> NDArray[np.float32]:
        samples = np.ascontiguousarray(raw, dtype=np.float32)
        if self.header.data_format == 0:
            samples *= np.float32(self.header.scaling[channel].gain)
            samples += np.float32(self.header.scaling[channel].offset)
        return samples

    def _refuse_no_gain(self, channels: Sequence[int]) -> None:
        """Integers without a gain cannot be turned into pA or mV; floats need none."""
        bad = [self.header.channels[i].name for i in channels if not self.header.scaling[i].usable]
        if bad and self.header.data_format == 0:
            raise ReadError(
                f"{self.path}: the header states no usable gain for {shortened(bad)}; "
                "export the recording again from Clampfit, or ask for another channel."
            )

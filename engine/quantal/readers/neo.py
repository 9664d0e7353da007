"""Whatever neo reads: the last resort, for formats that have no room of their own here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.errors import ReadError
from quantal.readers.clock import rate_from_interval
from quantal.readers.parts import Part, PartSweep, choose_parts, joined, sweep_notes
from quantal.readers.recording import Channel, Recording

# They take any bytes for samples, or need to be told what is in them.
_GUESSERS = ("RawBinarySignalRawIO", "ExampleRawIO", "RawMCSRawIO")


def neo_reads(path: Path) -> bool:
    """Whether neo is installed and knows files of this suffix."""
    return bool(_readers(path))


def _readers(path: Path) -> list[Callable[..., Any]]:
    try:
        from neo import rawio
    except ImportError:
        return []
    suffix = path.suffix.lower().lstrip(".")
    return [
        one
        for one in rawio.rawiolist
        if suffix and one.__name__ not in _GUESSERS and suffix in map(str.lower, one.extensions)
    ]


@dataclass(frozen=True)
class _Source:
    """A channel of a stream in a segment."""

    block: int
    segment: int
    stream: int
    channel: int


def open_neo(path: Path, dataset: str | None = None) -> Recording:
    """Open a file through neo: a data set is one of its streams (channels of the same clock).

    Every segment is a sweep. Raises ReadError if no reader of neo can open it.
    """
    failures = []
    for reader_class in _readers(path):
        try:
            reader = _opened(reader_class, path)
            parts = _parts(reader)
        except Exception as error:  # neo's readers raise whatever they stumble over
            failures.append(f"{reader_class.__name__}: {_line(error)}")
            continue
        chosen = choose_parts(path, f"neo {reader_class.__name__}", parts, dataset)
        return _recording(path, reader, chosen)
    raise ReadError(
        f"{path} cannot be read through neo ({'; '.join(failures)}); it may be damaged."
    )


def _line(error: Exception) -> str:
    text = str(error).strip().split("\n")[0][:200]
    return text or type(error).__name__


def _opened(reader_class: Callable[..., Any], path: Path) -> Any:
    by_folder = getattr(reader_class, "rawmode", "") == "one-dir"
    reader = reader_class(str(path.parent) if by_folder else str(path))
    reader.parse_header()
    return reader


def _parts(reader: Any) -> list[Part]:
    """The streams of a file, with every segment of every block as a sweep."""
    parts = []
    for stream in range(reader.signal_streams_count()):
        signals = _channels(reader, stream)
        sweeps = tuple(
            PartSweep(
                int(reader.get_signal_size(block, segment, stream)),
                tuple(_Source(block, segment, stream, i) for i in range(len(signals))),
            )
            for block in range(reader.block_count())
            for segment in range(reader.segment_count(block))
        )
        rate_hz = _exact(float(reader.get_signal_sampling_rate(stream)))
        parts.append(
            Part(
                name=str(stream),
                label=str(reader.header["signal_streams"][stream]["name"]),
                channels=signals,
                rate_hz=rate_hz if np.isfinite(rate_hz) and rate_hz > 0 else None,
                sweeps=tuple(sweep for sweep in sweeps if sweep.samples > 0),
            )
        )
    return [part for part in parts if part.sweeps]


def _exact(rate_hz: float) -> float:
    """The rate that was meant: of an interval in single precision, 5e-5 s, neo makes 20000.0005."""
    if not (np.isfinite(rate_hz) and rate_hz > 0):
        return rate_hz
    single = np.float32(1 / rate_hz)
    if abs(float(single) * rate_hz - 1) > 1e-15:
        return rate_hz
    return rate_from_interval(float(str(single)), "s", "the interval")


def _channels(reader: Any, stream: int) -> tuple[Channel, ...]:
    listed = reader.header["signal_channels"]
    own = listed[listed["stream_id"] == reader.header["signal_streams"][stream]["id"]]
    return tuple(
        Channel(str(row["name"]).strip() or f"channel {i}", str(row["units"]).strip() or None)
        for i, row in enumerate(own)
    )


def _recording(path: Path, reader: Any, chosen: tuple[Part, ...]) -> Recording:
    def samples(source: _Source) -> NDArray[np.float32]:
        try:
            raw = reader.get_analogsignal_chunk(
                block_index=source.block,
                seg_index=source.segment,
                stream_index=source.stream,
                channel_indexes=[source.channel],
            )
            scaled = reader.rescale_signal_raw_to_float(
                raw,
                dtype="float64",
                stream_index=source.stream,
                channel_indexes=[source.channel],
            )
        except Exception as error:
            raise ReadError(f"{path} cannot be read through neo: {_line(error)}") from error
        with np.errstate(all="ignore"):
            return np.asarray(scaled[:, 0], np.float32)

    sweep_samples, load = joined(chosen, samples)
    return Recording(
        path=path,
        format=f"{type(reader).__name__.removesuffix('RawIO')}, through neo",
        channels=chosen[0].channels,
        sweep_samples=sweep_samples,
        load=load,
        rate_hz=chosen[0].rate_hz,
        recorded=_moment(reader),
        notes=sweep_notes(chosen),
    )


def _moment(reader: Any) -> datetime | None:
    try:
        moment = reader.raw_annotations["blocks"][0].get("rec_datetime")
    except (AttributeError, KeyError, IndexError, TypeError):
        return None
    return moment if isinstance(moment, datetime) else None

"""What a file holds, to print or to save."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from quantal.readers.recording import Recording, Samples, SeveralDatasetsError, Tag

# More samples do not move a percentile that is read off a terminal.
_MOST_SAMPLES = 1_000_000
_MOST_LINES = 12


@dataclass(frozen=True)
class ChannelInfo:
    """Name and unit of a channel, and the 1st and 99th percentile of its finite samples.

    unit is None where none is stated; low and high are nan where no sample is finite.
    """

    name: str
    unit: str | None
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class FileInfo:
    """What a recording holds; `describe` shows it.

    sweep_samples: samples per channel in every sweep. rate_hz and recorded are None where the
    file does not state them. datasets: where the file holds several that differ, what to choose
    from; nothing else is known then.
    """

    path: str
    format: str
    channels: tuple[ChannelInfo, ...]
    sweep_samples: tuple[int, ...]
    rate_hz: float | None
    protocol: str
    recorded: datetime | None
    comment: str
    tags: tuple[Tag, ...]
    notes: tuple[str, ...]
    datasets: tuple[str, ...] = ()

    @property
    def sweeps(self) -> int:
        """The number of sweeps."""
        return len(self.sweep_samples)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values that JSON can hold; what is unknown is None."""
        rate_hz = self.rate_hz
        return {
            "path": self.path,
            "format": self.format,
            "recorded": self.recorded.isoformat() if self.recorded else None,
            "protocol": self.protocol or None,
            "comment": self.comment or None,
            "rate_hz": rate_hz,
            "sweeps": self.sweeps,
            "sweep_samples": list(self.sweep_samples),
            "sweep_s": [n / rate_hz for n in self.sweep_samples] if rate_hz else None,
            "channels": [
                {
                    "name": channel.name,
                    "unit": channel.unit,
                    "percentile_1": _finite(channel.low),
                    "percentile_99": _finite(channel.high),
                }
                for channel in self.channels
            ],
            "tags": [{"time_s": tag.time_s, "text": tag.text} for tag in self.tags],
            "notes": list(self.notes),
            "datasets": list(self.datasets),
        }

    def __str__(self) -> str:
        return describe(self)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def summarise(
    recording: Recording, rate_hz: float | None, scale: float, unit: str | None
) -> FileInfo:
    """Read a recording through and say what it holds, with the user's rate, scale and unit."""
    ranges = _ranges(recording)
    return FileInfo(
        path=str(recording.path),
        format=recording.format,
        channels=tuple(
            ChannelInfo(channel.name, unit or channel.unit, *sorted((low * scale, high * scale)))
            for channel, (low, high) in zip(recording.channels, ranges, strict=True)
        ),
        sweep_samples=recording.sweep_samples,
        rate_hz=rate_hz or recording.rate_hz,
        protocol=recording.protocol,
        recorded=recording.recorded,
        comment=recording.comment,
        tags=recording.tags,
        notes=(
            *recording.notes,
            *overruled(recording, rate_hz, unit, range(len(recording.channels))),
        ),
    )


def overruled(
    recording: Recording, rate_hz: float | None, unit: str | None, channels: Sequence[int]
) -> tuple[str, ...]:
    """In words, what the file states of these channels and the user's rate and unit overrule."""
    said = []
    if rate_hz is not None and recording.rate_hz not in (None, rate_hz):
        said.append(otherwise(f"{recording.rate_hz:.9g} Hz", f"{rate_hz:.9g} Hz"))
    stated = dict.fromkeys(recording.channels[i].unit for i in channels)
    others = [one for one in stated if one not in (None, unit)]
    if unit is not None and others:
        said.append(otherwise(", ".join(map(str, others)), unit))
    return tuple(said)


def otherwise(stated: str, taken: str) -> str:
    """That a file states one thing and the user another, in words."""
    return f"the file says {stated}; {taken} was taken"


def catalogue(several: SeveralDatasetsError) -> FileInfo:
    """What a file holds of which one data set must be named first."""
    return FileInfo(
        path=str(several.path),
        format=several.kind,
        channels=(),
        sweep_samples=(),
        rate_hz=None,
        protocol="",
        recorded=None,
        comment="",
        tags=(),
        notes=(several.hint,),
        datasets=several.listed,
    )


def _ranges(recording: Recording) -> list[tuple[float, float]]:
    """1st and 99th percentile of every channel, from evenly picked samples of a long recording."""
    step = -(-sum(recording.sweep_samples) // _MOST_SAMPLES)
    picked: list[list[Samples]] = [[] for _ in recording.channels]
    everything = range(len(recording.sweep_samples)), range(len(recording.channels))
    for sweep in recording.load(*everything):
        for kept, samples in zip(picked, sweep, strict=True):
            kept.append(samples[::step].copy())
    return [_range(kept) for kept in picked]


def _range(parts: Sequence[Samples]) -> tuple[float, float]:
    values = np.concatenate(parts)
    values = values[np.isfinite(values)].astype(np.float64)
    if not len(values):
        return math.nan, math.nan
    low, high = np.percentile(values, [1, 99])
    return float(low), float(high)


def describe(info: FileInfo) -> str:
    """The contents of a recording as aligned text for a terminal."""
    lines = [info.path]
    for title, texts in _rows(info):
        for i, text in enumerate(texts):
            lines.append(f"  {title if i == 0 else '':<10}{_printable(text)}".rstrip())
    return "\n".join(lines)


def _rows(info: FileInfo) -> list[tuple[str, list[str]]]:
    """What is known of a recording, each with its title."""
    if info.datasets:
        return [
            ("format", [info.format]),
            ("data sets", _few(list(info.datasets))),
            ("note", list(info.notes)),
        ]
    return [
        ("format", [info.format]),
        ("recorded", [f"{info.recorded:%Y-%m-%d %H:%M:%S}" if info.recorded else "not known"]),
        ("protocol", [info.protocol] if info.protocol else []),
        ("comment", [info.comment] if info.comment else []),
        ("rate", [f"{info.rate_hz:.9g} Hz" if info.rate_hz else "not stated: give --rate-hz"]),
        ("sweeps", _sweep_lines(info)),
        ("channels", _channel_lines(info)),
        ("tags", _few([f"{tag.time_s:>10.3f} s  {tag.text}".rstrip() for tag in info.tags])),
        ("note", list(info.notes)),
    ]


def _printable(text: str) -> str:
    """Text from a file without control characters, which could rewrite a terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def _few(lines: list[str]) -> list[str]:
    left_out = len(lines) - _MOST_LINES
    return lines if left_out <= 0 else [*lines[:_MOST_LINES], f"and {left_out} more"]


def _length(samples: int, rate_hz: float | None) -> str:
    counted = f"{samples:,} samples"
    return f"{samples / rate_hz:,.4g} s ({counted})" if rate_hz else counted


def _sweep_lines(info: FileInfo) -> list[str]:
    lengths = info.sweep_samples
    if len(set(lengths)) == 1:
        each = _length(lengths[0], info.rate_hz)
        return [f"1 of {each}" if len(lengths) == 1 else f"{len(lengths)} of {each} each"]
    lines = [f"{i:>2}  {_length(n, info.rate_hz)}" for i, n in enumerate(lengths)]
    return [f"{len(lengths)} of different length", *_few(lines)]


def _channel_lines(info: FileInfo) -> list[str]:
    """One line a channel: number, name, unit and where most of its samples lie."""
    spans = [_span(channel) for channel in info.channels]
    names = [channel.name for channel in info.channels]
    units = [channel.unit or "?" for channel in info.channels]
    rows = zip(_padded(["name", *names]), _padded(["unit", *units]), strict=True)
    heads = ["  ", *(f"{i:>2}" for i in range(len(names)))]
    texts = ["1st to 99th percentile", *spans]
    lines = [
        f"{head}  {name}  {unit}  {text}"
        for head, (name, unit), text in zip(heads, rows, texts, strict=True)
    ]
    if None in [channel.unit for channel in info.channels]:
        lines.append("    unit not stated: give --unit")
    return lines


def _padded(words: list[str]) -> list[str]:
    width = max(map(len, words))
    return [word.ljust(width) for word in words]


def _span(channel: ChannelInfo) -> str:
    """Both percentiles, with as many decimals as it takes to tell them apart."""
    if not math.isfinite(channel.low):
        return "no finite sample"
    width = channel.high - channel.low
    decimals = 3 - math.ceil(math.log10(width)) if width > 0 else 3
    if not 0 <= decimals <= 6:
        return f"{channel.low:.7g} to {channel.high:.7g}"
    return f"{channel.low:.{decimals}f} to {channel.high:.{decimals}f}"

"""What every reader hands over: an opened file, its samples not yet loaded."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from quantal.errors import ReadError

Samples = NDArray[Any]


@dataclass(frozen=True)
class Channel:
    """One input of the amplifier, or one column of a table; unit is None where none is stated."""

    name: str
    unit: str | None = None


@dataclass(frozen=True)
class Tag:
    """A remark typed in during the recording; time_s runs from the start of the recording."""

    time_s: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A file whose header has been understood.

    sweep_samples: the number of samples per channel in every sweep.
    rate_hz: samples per second of one channel; None where the file does not state it.
    load: given sweeps and channels, yields for each sweep one array per channel, in the file's
        own units; it may raise ReadError or OSError.
    recorded: the start on the rig's own clock; None where not stated or impossible.
    notes: what the reader had to decide, or found odd.
    rate_missing: why rate_hz is None.
    """

    path: Path
    format: str
    channels: tuple[Channel, ...]
    sweep_samples: tuple[int, ...]
    load: Callable[[Sequence[int], Sequence[int]], Iterator[Sequence[Samples]]]
    rate_hz: float | None = None
    protocol: str = ""
    recorded: datetime | None = None
    comment: str = ""
    tags: tuple[Tag, ...] = ()
    notes: tuple[str, ...] = ()
    rate_missing: str = "it does not state its sampling rate"


@dataclass(frozen=True)
class Format:
    """A kind of file: how it is recognised and how it is opened.

    open: takes the path and the name of a data set (None where the user gave none).
    has_datasets: whether a data set within the file can be named.
    recognises: looks into a file that begins with the magic bytes, where other kinds do too.
    """

    name: str
    suffixes: tuple[str, ...]
    magic: tuple[bytes, ...]
    open: Callable[[Path, str | None], Recording]
    has_datasets: bool = False
    recognises: Callable[[Path], bool] = lambda path: True  # noqa: ARG005


class SeveralDatasetsError(ReadError):
    """A file holds several data sets, of which one must be named; listed says what they are."""

    def __init__(self, path: Path, kind: str, listed: Sequence[str], first: str) -> None:
        hint = f"Name one: dataset={first!r} (--dataset {shlex.quote(first)})."
        super().__init__(f"{path} holds {len(listed)} data sets: {shortened(listed)}. {hint}")
        self.path = path
        self.hint = hint
        self.kind = kind
        self.listed = tuple(listed)
        self.first = first

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors travel between processes, where pickle would hand over the message alone.
        return type(self), (self.path, self.kind, self.listed, self.first)


def shortened(items: Sequence[Any], most: int = 20) -> str:
    """Items joined by commas, the tail of a long list replaced by its count."""
    shown = ", ".join(str(item) for item in items[:most])
    return shown if len(items) <= most else f"{shown} and {len(items) - most} more"

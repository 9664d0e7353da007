"""Several recordings in one file: which one is meant, and whether all can be read as one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantal.errors import ReadError
from quantal.readers.recording import Channel, Samples, SeveralDatasetsError, shortened

_MOST_NOTED = 8


@dataclass(frozen=True)
class PartSweep:
    """A sweep within a file: its samples per channel, and where the reader finds each channel."""

    samples: int
    sources: tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Part:
    """Sweeps of the same channels and rate: a series, a cell, a mode of the amplifier.

    name: what tells it from others in a call; label: what it is called on the rig.
    """

    name: str
    label: str
    channels: tuple[Channel, ...]
    rate_hz: float | None
    sweeps: tuple[PartSweep, ...]
    rate_missing: str = "it does not state its sampling rate"

    def __str__(self) -> str:
        rate = f"{self.rate_hz:.9g} Hz" if self.rate_hz else "rate not stated"
        count = len(self.sweeps)
        names = shortened([f"{one.name} ({one.unit or 'no unit'})" for one in self.channels], 4)
        sweeps = "1 sweep" if count == 1 else f"{count} sweeps"
        label = f" {self.label!r}" if self.label and self.label != self.name else ""
        return f"{self.name}{label}: {sweeps} of {names} at {rate}"


def choose_parts(
    path: Path, kind: str, parts: Sequence[Part], wanted: str | None
) -> tuple[Part, ...]:
    """The parts to read: the one that is named, or all where they agree in channels and rate.

    kind: the format of the file. Raises ReadError if there is none of that name, or no sweep at
    all; SeveralDatasetsError if the parts differ and none is named.
    """
    if not parts:
        raise ReadError(f"{path} holds no sweep; was the recording stopped and saved?")
    if wanted is not None:
        found = [part for part in parts if wanted == part.name] or [
            part for part in parts if wanted.casefold() == part.label.casefold()
        ]
        if len(found) == 1:
            return (found[0],)
        what = f"{len(found)} data sets are called" if found else "it has no data set"
        raise ReadError(f"{path}: {what} {wanted!r}. There is: {shortened(parts)}.")
    if len({(part.channels, part.rate_hz) for part in parts}) > 1:
        raise SeveralDatasetsError(path, kind, [str(part) for part in parts], parts[0].name)
    return tuple(parts)


def joined(
    parts: Sequence[Part], read: Callable[[Any], Samples]
) -> tuple[tuple[int, ...], Callable[[Sequence[int], Sequence[int]], Iterator[list[Samples]]]]:
    """Lengths of all sweeps of the parts one after the other, and what loads them.

    read: the samples that a source speaks of.
    """
    sweeps = [sweep for part in parts for sweep in part.sweeps]

    def load(numbers: Sequence[int], channels: Sequence[int]) -> Iterator[list[Samples]]:
        for number in numbers:
            yield [read(sweeps[number].sources[channel]) for channel in channels]

    return tuple(sweep.samples for sweep in sweeps), load


def sweep_notes(parts: Sequence[Part]) -> tuple[str, ...]:
    """Which sweeps are of which part, where several are read as one."""
    if len(parts) < 2:
        return ()
    notes, first = [], 0
    for part in parts:
        last = first + len(part.sweeps) - 1
        which = f"sweep {first} is" if first == last else f"sweeps {first} to {last} are"
        label = f" {part.label!r}" if part.label and part.label != part.name else ""
        notes.append(f"{which} {part.name}{label}")
        first = last + 1
    hint = f"--dataset {parts[0].name} reads the first alone"
    if len(notes) > _MOST_NOTED:
        notes[_MOST_NOTED:] = [f"and {len(notes) - _MOST_NOTED} more"]
    return (*notes, hint)

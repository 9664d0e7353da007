"""HEKA PatchMaster: raw samples, and a tree of series, sweeps and traces that says what they are.

No library for these files is kept, installs and reads interleaved samples, so this room reads the
part of the published format that samples, units and clocks need. Every position and every count
is checked against the size of the file before it is used.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from quantal.errors import ReadError
from quantal.readers.clock import NoRateError, rate_from_interval
from quantal.readers.parts import Part, PartSweep, choose_parts, joined, sweep_notes
from quantal.readers.recording import Channel, Recording, shortened

SIGNATURES = (b"DAT2", b"DAT1", b"DATA")  # a bundle; samples alone, with the tree in a .pul file
_BUNDLE_HEADER = 256
_BUNDLE_ITEMS = 12

# The tree: root, groups, series, sweeps, traces; the fewest bytes of each that are read here.
_SMALLEST_RECORD = (528, 36, 36, 36, 128)
_LARGEST_RECORD = 1 << 16
_TRACES = 4
_INTERLEAVED_SINCE = 300  # bytes of a record; shorter ones are of before interleaving
_VERSIONS = range(9, 2000)  # of the tree: PatchMaster 2x73 has 9, 2x90 has 1000

_DTYPES = ("i2", "i4", "f4", "f8")
_LITTLE_ENDIAN, _LEAK, _CLIPPED = 1, 2, 32
# Stored in A and V; read as what a bench speaks of, and what single precision shows well.
_BENCH_UNITS = {"A": ("pA", 1e12), "V": ("mV", 1e3)}
_EPOCH = datetime(1601, 1, 1) + timedelta(seconds=9_561_652_096 - 1_580_970_496)


def open_heka(path: Path, dataset: str | None = None) -> Recording:
    """Open a PatchMaster file: a data set is a series, named as group.series from 1 on (1.2).

    Where all series have the same channels and rate, their sweeps follow each other. Currents are
    in pA, voltages in mV.

    Raises ReadError if the file is truncated, damaged, or of another program.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            root = _tree(_pulse(file, path, size))
            parts, notes = _series(root, size)
            recorded = _moment(root)
        except _Unreadable as reason:
            raise ReadError(f"{path}: {reason}") from None
    chosen = choose_parts(path, "HEKA PatchMaster", parts, dataset)
    sweep_samples, load = joined(chosen, lambda source: _samples(path, source))
    return Recording(
        path=path,
        format=f"HEKA PatchMaster {_text(root.record, 8, 32).split(',')[0]}".strip(),
        channels=chosen[0].channels,
        sweep_samples=sweep_samples,
        load=load,
        rate_hz=chosen[0].rate_hz,
        protocol=", ".join(dict.fromkeys(part.label for part in chosen if part.label)),
        recorded=recorded,
        notes=(*sweep_notes(chosen), *notes),
        rate_missing=chosen[0].rate_missing,
    )


class _Unreadable(Exception):  # noqa: N818
    """Why the file cannot be read; open_heka adds the path."""


def _damaged(what: str) -> _Unreadable:
    return _Unreadable(
        f"the HEKA file is damaged or ends early ({what}); copy it again from the rig "
        "(a running experiment must be closed in PatchMaster first)."
    )


# The tree


@dataclass(frozen=True)
class _Node:
    """A record of the tree and those below it; order: < or >, how its numbers are stored."""

    record: bytes
    order: str
    below: tuple[_Node, ...]

    def number(self, form: str, position: int) -> Any:
        """The number of that form at that byte of the record."""
        return struct.unpack_from(self.order + form, self.record, position)[0]


def _pulse(file: BinaryIO, path: Path, size: int) -> bytes:
    """The tree as stored: within the bundle, or in the file of the same name ending in .pul."""
    head = file.read(_BUNDLE_HEADER)
    if not head.startswith(SIGNATURES):
        raise _Unreadable(
            f"it is no HEKA PatchMaster file: it begins with {head[:4]!r} instead of 'DAT2'."
        )
    if not head.startswith(b"DAT2"):
        return _beside(path)
    if len(head) < _BUNDLE_HEADER:
        raise _damaged(f"{size:,} bytes")
    order = "<" if head[52] else ">"
    for i in range(_BUNDLE_ITEMS):
        start, length, extension = struct.unpack_from(f"{order}ii8s", head, 64 + 16 * i)
        if extension.rstrip(b"\0") == b".pul":
            if start < 0 or length < 0 or start + length > size:
                raise _damaged(f"its tree ends at byte {start + length:,} of {size:,}")
            file.seek(start)
            return file.read(length)
    raise _damaged("it holds no .pul part")


def _beside(path: Path) -> bytes:
    companion = path.with_suffix(".pul")
    if not companion.is_file():
        raise _Unreadable(
            f"its samples are described in {companion.name}, which is not beside it; copy both."
        )
    return companion.read_bytes()


def _tree(stored: bytes) -> _Node:
    order = {b"eerT": "<", b"Tree": ">"}.get(stored[:4])
    if order is None or len(stored) < 28:
        raise _damaged("no tree of sweeps")
    levels, *sizes = struct.unpack_from(f"{order}6i", stored, 4)
    if levels != len(_SMALLEST_RECORD):
        raise _damaged(f"a tree of {levels} levels")
    for size, smallest in zip(sizes, _SMALLEST_RECORD, strict=True):
        if not smallest <= size <= _LARGEST_RECORD:
            raise _Unreadable(
                f"its records of {size} bytes are not those of PatchMaster; "
                "export the recording from PatchMaster 2x73 to 2x90."
            )
    root, _ = _node(stored, order, sizes, 0, 28)
    version = root.number("i", 0)
    if version not in _VERSIONS:
        raise _Unreadable(
            f"it is of version {version}; versions {_VERSIONS[0]} to {_VERSIONS[-1]} "
            "(PatchMaster 2x73 to 2x90) can be read. Export it from PatchMaster as one of them."
        )
    return root


def _node(
    stored: bytes, order: str, sizes: Sequence[int], level: int, start: int
) -> tuple[_Node, int]:
    """The record at a byte with all below it, and the byte after them."""
    stop = start + sizes[level]
    if stop + 4 > len(stored):
        raise _damaged("a tree that is cut short")
    count = struct.unpack_from(f"{order}i", stored, stop)[0]
    room = len(stored) - stop - 4
    fits = 0 if level == _TRACES else room // (sizes[level + 1] + 4)
    if not 0 <= count <= fits:
        raise _damaged(f"a record of the tree counts {count} below it")
    record, position, below = stored[start:stop], stop + 4, []
    for _ in range(count):
        child, position = _node(stored, order, sizes, level + 1, position)
        below.append(child)
    return _Node(record, order, tuple(below)), position


def _text(record: bytes, start: int, length: int) -> str:
    return record[start : start + length].split(b"\0")[0].decode("cp1252", "replace").strip()


def _moment(root: _Node) -> datetime | None:
    seconds = root.number("d", 520)
    try:
        return (_EPOCH + timedelta(seconds=seconds)).replace(microsecond=0)
    except (OverflowError, ValueError):
        return None


# Series, sweeps, traces


@dataclass(frozen=True, kw_only=True)
class _Trace:
    """Where samples lie, what they are in and how they become the channel's unit.

    block, skip: bytes of a block of this trace, and from its start to the start of the next; equal
        where the samples are not interleaved with those of other traces.
    """

    channel: Channel
    start: int
    samples: int
    dtype: np.dtype[Any]
    block: int
    skip: int
    gain: float
    interval: float
    interval_unit: str
    clipped: bool
    zero: float

    @property
    def stop(self) -> int:
        """The byte after the last sample."""
        length = self.samples * self.dtype.itemsize
        blocks = -(-length // self.block)
        return self.start + (blocks - 1) * self.skip + length - (blocks - 1) * self.block

    @property
    def clock(self) -> tuple[int, float, str]:
        """What traces must share to be channels of one sweep."""
        return self.samples, self.interval, self.interval_unit


def _series(root: _Node, size: int) -> tuple[list[Part], list[str]]:
    """All series that hold samples, and what was odd about them."""
    parts: list[Part] = []
    odd = _Oddities()
    for g, group in enumerate(root.below, start=1):
        for s, series in enumerate(group.below, start=1):
            name = f"{g}.{s}"
            sweeps = [
                [_trace(trace) for trace in sweep.below]
                for sweep in series.below
                if any(trace.number("i", 44) for trace in sweep.below)
            ]
            odd.empty += len(series.below) - len(sweeps)
            part = _part(name, _text(series.record, 4, 32), sweeps, odd)
            parts += [part] if part is not None else []
    _refuse_outside([t for part in parts for sweep in part.sweeps for t in sweep.sources], size)
    return parts, odd.notes()


class _Oddities:
    """What a user should know of sweeps and traces that are not like the others."""

    def __init__(self) -> None:
        self.empty = 0
        self.left_out: list[str] = []
        self.clipped: list[str] = []
        self.zeroed: list[str] = []

    def notes(self) -> list[str]:
        """One line for each thing that there is to say."""
        found = []
        if self.empty:
            found.append(f"left out, being without samples: {self.empty} sweep(s)")
        if self.left_out:
            found.append(f"left out, being unlike the first sweep: {shortened(self.left_out, 6)}")
        if self.clipped:
            found.append(f"PatchMaster marks as clipped: {shortened(self.clipped, 6)}")
        if self.zeroed:
            found.append(
                f"PatchMaster's zero offset is not subtracted from: {shortened(self.zeroed, 6)}"
            )
        return found


def _part(name: str, label: str, sweeps: list[list[_Trace]], odd: _Oddities) -> Part | None:
    """A series, with the sweeps and traces that have the channels and clock of its first sweep."""
    kept: list[PartSweep] = []
    channels: tuple[Channel, ...] = ()
    first: _Trace | None = None
    for number, traces in enumerate(sweeps):
        same = [trace for trace in traces if trace.clock == traces[0].clock]
        first = first or same[0]
        names = tuple(trace.channel for trace in same)
        if kept and (names != channels or same[0].interval != first.interval):
            odd.left_out.append(f"sweep {number} of {name}")
            continue
        channels = names
        odd.left_out += [
            f"{trace.channel.name} in sweep {number} of {name}"
            for trace in traces
            if trace.clock != traces[0].clock
        ]
        odd.clipped += [f"{t.channel.name} in sweep {number} of {name}" for t in same if t.clipped]
        odd.zeroed += [f"{t.channel.name} of {name}" for t in same if t.zero and not kept]
        kept.append(PartSweep(same[0].samples, tuple(same)))
    if first is None:
        return None
    rate_hz, rate_missing = _rate(first)
    return Part(
        name=name,
        label=label,
        channels=channels,
        rate_hz=rate_hz,
        rate_missing=rate_missing,
        sweeps=tuple(kept),
    )


def _trace(node: _Node) -> _Trace:
    kind, form = node.number("H", 64), node.record[70]
    if form >= len(_DTYPES):
        raise _damaged(f"samples of format {form}")
    dtype = np.dtype(("<" if kind & _LITTLE_ENDIAN else ">") + _DTYPES[form])
    start, samples = node.number("i", 40), node.number("i", 44)
    if start < 0 or samples < 0:
        raise _damaged("a negative position or count of samples")
    block, skip = 0, 0
    if len(node.record) >= _INTERLEAVED_SINCE:
        block, skip = node.number("i", 292), node.number("i", 296)
    if block < 0 or skip < 0 or (skip and (block % dtype.itemsize or skip < block)):
        raise _damaged(f"samples in blocks of {block} bytes, {skip} apart")
    if not (block and skip):
        block = skip = max(samples * dtype.itemsize, 1)
    unit = _text(node.record, 96, 8)
    unit, factor = _BENCH_UNITS.get(unit, (unit, 1.0))
    name = _text(node.record, 4, 32) or "trace"
    return _Trace(
        channel=Channel(f"{name} leak" if kind & _LEAK else name, unit or None),
        start=start,
        samples=samples,
        dtype=dtype,
        block=block,
        skip=skip,
        gain=node.number("d", 72) * factor,
        interval=node.number("d", 104),
        interval_unit=_text(node.record, 120, 8) or "s",
        clipped=bool(kind & _CLIPPED),
        zero=node.number("d", 88),
    )


def _refuse_outside(traces: Sequence[_Trace], size: int) -> None:
    """Check all samples against the size of the file; no two traces may share a byte of it."""
    last = max((trace.stop for trace in traces), default=0)
    if last > size:
        raise _damaged(f"samples reach to byte {last:,} of {size:,}")
    together = sum(trace.samples * trace.dtype.itemsize for trace in traces)
    if together > size:
        raise _damaged(f"{together:,} bytes of samples in a file of {size:,}")


def _rate(trace: _Trace) -> tuple[float | None, str]:
    try:
        return rate_from_interval(trace.interval, trace.interval_unit, "its interval"), ""
    except NoRateError as reason:
        return None, str(reason)


def _samples(path: Path, trace: _Trace) -> NDArray[np.float32]:
    if not (math.isfinite(trace.gain) and trace.gain):
        raise ReadError(
            f"{path}: the file states no usable gain for {trace.channel.name}; "
            "export the recording again from PatchMaster, or ask for another channel."
        )
    length = trace.samples * trace.dtype.itemsize
    with path.open("rb") as file:
        file.seek(trace.start)
        stored = file.read(trace.stop - trace.start)
    if len(stored) < trace.stop - trace.start:
        raise ReadError(f"{path} became shorter while it was read; try again.")
    if trace.block < length:
        blocks = -(-length // trace.block)
        filled = np.zeros(blocks * trace.skip, np.uint8)
        filled[: len(stored)] = np.frombuffer(stored, np.uint8)
        own = filled.reshape(blocks, trace.skip)[:, : trace.block]
        stored = np.ascontiguousarray(own).tobytes()[:length]
    with np.errstate(all="ignore"):  # damaged floats become inf, which Trace speaks of
        scaled = np.frombuffer(stored, trace.dtype).astype(np.float64) * trace.gain
        return scaled.astype(np.float32)

"""A writer of small HEKA PatchMaster bundles, in the layout that HEKA publishes."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

SIZES = (640, 144, 1728, 352, 512)  # of the records of PatchMaster 2x90
OLD_SIZES = (640, 144, 1408, 288, 424)  # and of 2x73
_CODES = {"i2": 0, "i4": 1, "f4": 2, "f8": 3}


@dataclass(frozen=True)
class Wave:
    """A trace as PatchMaster stores it: counts, and what they mean."""

    counts: NDArray[np.generic]
    label: str = "Imon-1"
    unit: str = "A"
    scale: float = 1e-13
    interval: float = 2e-5
    kind: int = 0
    zero: float = 0.0


@dataclass(frozen=True)
class _Place:
    """Where a trace was put: first byte, bytes of a block and from block to block (0: whole)."""

    start: int
    block: int = 0
    skip: int = 0


Series = Sequence[Sequence[Wave]]  # sweeps of traces


def heka_bytes(
    *series: Series,
    labels: Sequence[str] = (),
    order: str = "<",
    sizes: Sequence[int] = SIZES,
    version: int = 1000,
    block: int = 0,
    signature: bytes = b"DAT2",
) -> bytes:
    """A file of one group of series; block: bytes of a block where traces are interleaved."""
    samples = bytearray(256)
    places = [_put(samples, sweep, order, block) for one in series for sweep in one]
    tree = _tree(series, labels, places, order, sizes, version)
    head = bytearray(256)
    struct.pack_into(
        f"{order}8s32sdiB",
        head,
        0,
        signature,
        b"v2x90.5, 09-Apr-2019",
        5223432019.5,
        12,
        order == "<",
    )
    items = ((b".dat", 256, len(samples) - 256), (b".pul", len(samples), len(tree)))
    for i, (extension, start, length) in enumerate(items):
        struct.pack_into(f"{order}ii8s", head, 64 + 16 * i, start, length, extension)
    samples[:256] = head
    return bytes(samples) + tree


def _put(samples: bytearray, sweep: Sequence[Wave], order: str, block: int) -> list[_Place]:
    stored = [wave.counts.astype(wave.counts.dtype.newbyteorder(order)).tobytes() for wave in sweep]
    if not block:
        starts = np.cumsum([len(samples), *map(len, stored)]).tolist()
        samples += b"".join(stored)
        return [_Place(start) for start in starts[:-1]]
    first, skip = len(samples), block * len(sweep)
    for at in range(0, max(map(len, stored)), block):
        samples += b"".join(one[at : at + block].ljust(block, b"\xee") for one in stored)
    return [_Place(first + i * block, block, skip) for i in range(len(sweep))]


def _tree(
    series: Sequence[Series],
    labels: Sequence[str],
    places: list[list[_Place]],
    order: str,
    sizes: Sequence[int],
    version: int,
) -> bytes:
    root, group = bytearray(sizes[0]), bytearray(sizes[1])
    struct.pack_into(f"{order}i4x32s", root, 0, version, b"v2x90.5, 09-Apr-2019")
    struct.pack_into(f"{order}d", root, 520, 5223432019.5)
    group[4:7] = b"E-1"
    magic = b"eerT" if order == "<" else b"Tree"
    tree = magic + struct.pack(f"{order}i5i", 5, *sizes)
    tree += root + struct.pack(f"{order}i", 1) + group + struct.pack(f"{order}i", len(series))
    remaining = iter(places)
    for n, sweeps in enumerate(series):
        label = labels[n] if n < len(labels) else f"protocol {n}"
        tree += struct.pack("4x32s", label.encode()).ljust(sizes[2], b"\0")
        tree += struct.pack(f"{order}i", len(sweeps))
        for sweep in sweeps:
            tree += bytes(sizes[3]) + struct.pack(f"{order}i", len(sweep))
            for wave, place in zip(sweep, next(remaining), strict=True):
                tree += _record(wave, place, order, sizes[4]) + struct.pack(f"{order}i", 0)
    return tree


def _record(wave: Wave, place: _Place, order: str, size: int) -> bytes:
    record = bytearray(size)
    form = _CODES[wave.counts.dtype.str[1:]]
    record[4 : 4 + len(wave.label)] = wave.label.encode()
    struct.pack_into(f"{order}ii", record, 40, place.start, len(wave.counts))
    struct.pack_into(f"{order}H", record, 64, wave.kind | (order == "<"))
    record[70] = form
    struct.pack_into(f"{order}d8xd", record, 72, wave.scale, wave.zero)
    struct.pack_into("8s", record, 96, wave.unit.encode())
    struct.pack_into(f"{order}d8x8s", record, 104, wave.interval, b"s")
    struct.pack_into(f"{order}ii", record, 292, place.block, place.skip)
    return bytes(record)


def bundle_items(stored: bytes) -> dict[bytes, tuple[int, int]]:
    """Where the parts of a little-endian bundle lie: start and length by extension."""
    listed = [struct.unpack_from("<ii8s", stored, 64 + 16 * i) for i in range(12)]
    return {extension.rstrip(b"\0"): (start, length) for start, length, extension in listed}


def boundaries(stored: bytes) -> list[int]:
    """Lengths at which a copy that breaks off is cut in every part of the bundle."""
    ends = [0, 8, 64, 256, *(start + n for start, n in bundle_items(stored).values()), len(stored)]
    middles = [(a + b) // 2 for a, b in pairwise(sorted(set(ends)))]
    return sorted({*ends, *middles} - {len(stored)})

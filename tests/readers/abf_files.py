"""Small ABF files, written byte by byte."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

_BLOCK = 512


def abf1_bytes(
    counts: np.ndarray,
    *,
    interval_us: float = 50.0,
    header_blocks: int = 12,
    names: Sequence[str] = ("Im",),
    units: Sequence[bytes] = (b"pA",),
    lengths: Sequence[int] = (),
    sweeps: int = 1,
    tags: Sequence[tuple[int, bytes]] = (),
    date: int = 20240229,
    ignored: int = 0,
) -> bytes:
    """An ABF1 file: counts are interleaved; ten counts are one unit, and the offset is 1.

    interval_us: between two neighbouring samples of the file, whatever their channel.
    """
    head = bytearray(header_blocks * _BLOCK)
    stored = (
        bytes(2 * ignored) + counts.astype("<i2" if counts.dtype.kind == "i" else "<f4").tobytes()
    )
    data = stored.ljust(-(-len(stored) // _BLOCK) * _BLOCK, b"\0")
    table = b"".join(struct.pack("<ii", 0, length) for length in lengths).ljust(_BLOCK, b"\0")
    remarks = b"".join(struct.pack("<i56shh", tick, text, 1, 0) for tick, text in tags)
    blocks = header_blocks + len(data) // _BLOCK
    put = struct.pack_into
    put("<4sfh", head, 0, b"ABF ", 1.83, 5)
    put("<ihi", head, 10, len(counts), ignored, sweeps)
    put("<ii", head, 20, date, 3600)
    put("<iii", head, 40, header_blocks, blocks + 1 if tags else 0, len(tags))
    put("<ii", head, 92, blocks if lengths else 0, len(lengths))
    put("<h", head, 100, 0 if counts.dtype.kind == "i" else 1)
    put("<hf", head, 120, len(names), interval_us)
    put("<f", head, 244, 10.0)
    put("<i", head, 252, 1000)
    for i in range(16):
        put("<h", head, 410 + 2 * i, i)
        for position in (730, 1050):
            put("<f", head, position + 4 * i, 1.0)
        put("<f", head, 922 + 4 * i, 0.1)
        put("<f", head, 986 + 4 * i, 1.0)
    for i, (name, unit) in enumerate(zip(names, units, strict=True)):
        put("<10s", head, 442 + 10 * i, name.encode().ljust(10))
        put("<8s", head, 602 + 8 * i, unit.ljust(8))
    return bytes(head) + data + table + remarks


def abf2_bytes(
    counts: np.ndarray,
    *,
    interval_us: float = 50.0,
    names: Sequence[str] = ("Im",),
    units: Sequence[bytes] = (b"pA",),
    lengths: Sequence[int] = (),
    sweeps: int = 1,
    mode: int = 5,
    tags: Sequence[tuple[int, bytes]] = (),
    date: int = 20240229,
) -> bytes:
    """An ABF2 file; counts as in abf1_bytes, interval_us between samples of one channel."""
    floats = counts.dtype.kind == "f"
    texts = [b"Clampex", b"C:\\lab\\minis.pro", b"a comment"]
    for name, unit in zip(names, units, strict=True):
        texts += [name.encode(), unit]
    strings = b"SSCH".ljust(44, b"\0") + b"\0" + b"\0".join(texts) + b"\0"
    protocol = bytearray(_BLOCK)
    struct.pack_into("<hf", protocol, 0, mode, interval_us)
    struct.pack_into("<f", protocol, 110, 10.0)
    struct.pack_into("<i", protocol, 118, 1000)
    struct.pack_into("<i", protocol, 132, 3)
    adc = b""
    for i in range(len(names)):
        entry = bytearray(128)
        struct.pack_into("<f", entry, 28, 1.0)
        struct.pack_into("<ffff", entry, 40, 0.1, 1.0, 1.0, 0.0)
        struct.pack_into("<ii", entry, 74, 4 + 2 * i, 5 + 2 * i)
        adc += bytes(entry)
    parts = {
        76: (bytes(protocol), _BLOCK, 1),
        92: (adc, 128, len(names)),
        220: (strings, len(strings), 1),
        236: (counts.astype("<f4" if floats else "<i2").tobytes(), 4 if floats else 2, len(counts)),
        252: (b"".join(struct.pack("<i56shh", t, x, 1, 0) for t, x in tags), 64, len(tags)),
        316: (b"".join(struct.pack("<ii", 0, n) for n in lengths), 8, len(lengths)),
    }
    head = bytearray(_BLOCK)
    struct.pack_into("<4s4BIIII", head, 0, b"ABF2", 0, 0, 6, 2, _BLOCK, sweeps, date, 3_600_500)
    struct.pack_into("<H", head, 30, 1 if floats else 0)
    struct.pack_into("<I", head, 60, 1)
    struct.pack_into("<I", head, 72, 2)
    body = b""
    for position, (stored, size, count) in parts.items():
        block = 1 + len(body) // _BLOCK
        struct.pack_into("<IIq", head, position, block if count else 0, size if count else 0, count)
        body += stored.ljust(-(-len(stored) // _BLOCK) * _BLOCK, b"\0") if count else b""
    return bytes(head) + body

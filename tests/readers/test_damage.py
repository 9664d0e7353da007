"""Broken copies of every format: cut short or with bits turned, they give one clear error."""

from __future__ import annotations

import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
from abf_files import abf1_bytes, abf2_bytes
from hdf5_files import COUNTS, nwb_bytes, wavesurfer_bytes
from heka_files import Wave, boundaries, bundle_items, heka_bytes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantal.errors import QuantalError, ReadError
from quantal.readers import describe, inspect, read

_QUICK = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
_MOST_BYTES = 64 << 20


def heka() -> bytes:
    two = [Wave(COUNTS), Wave(COUNTS, label="Vmon-1", unit="V", scale=3e-5)]
    return heka_bytes([two, two], [two], block=48)


def hdf5(folder: Path) -> bytes:
    with h5py.File(folder / "made.h5", "w") as file:
        file.create_dataset("Im", data=COUNTS, compression="gzip")
        file["Im"].attrs.update({"rate_hz": 2e4, "unit": "pA"})
    return (folder / "made.h5").read_bytes()


def npy(folder: Path) -> bytes:
    np.save(folder / "made.npy", COUNTS)
    return (folder / "made.npy").read_bytes()


def table() -> bytes:
    return b"time_s,Im (pA)\n" + b"".join(b"%g,%d\n" % (k / 1e4, k - 60) for k in range(120))


MAKERS: dict[str, Callable[[Path], bytes]] = {
    "cell.abf": lambda folder: abf1_bytes(COUNTS),  # noqa: ARG005
    "cell2.abf": lambda folder: abf2_bytes(COUNTS),  # noqa: ARG005
    "cell.dat": lambda folder: heka(),  # noqa: ARG005
    "cell.nwb": nwb_bytes,
    "cell.h5": wavesurfer_bytes,
    "plain.h5": hdf5,
    "cell.npy": npy,
    "cell.csv": lambda folder: table(),  # noqa: ARG005
}


@pytest.fixture(params=MAKERS)
def whole(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, bytes]:
    """A place for broken copies, and the bytes of a good file."""
    stored = MAKERS[request.param](tmp_path)
    path = tmp_path / request.param
    path.write_bytes(stored)
    assert read(path, rate_hz=1e4, unit="pA")
    return path, stored


def try_to_read(path: Path) -> None:
    """Whatever is in it: traces, a description, or one of the project's own errors."""
    with suppress(QuantalError):
        describe(inspect(path))
    with suppress(QuantalError):
        read(path, channel="all", rate_hz=1e4, unit="pA")


@given(data=st.data())
@_QUICK
def test_bits_turned(whole: tuple[Path, bytes], data: st.DataObject) -> None:
    path, stored = whole
    changed = bytearray(stored)
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(changed)
    try_to_read(path)


@given(data=st.data())
@_QUICK
def test_bytes_and_numbers_put_in(whole: tuple[Path, bytes], data: st.DataObject) -> None:
    path, stored = whole
    at = data.draw(st.integers(0, len(stored) - 1))
    put = data.draw(
        st.sampled_from([b"\xff\xff\xff\x7f", b"\xff" * 8, b"\0" * 8, b"\0\0\0\x80", b"\0" * 64])
    )
    path.write_bytes(stored[:at] + put + stored[at + len(put) :])
    try_to_read(path)


@given(share=st.floats(0, 1, exclude_max=True))
@_QUICK
def test_cut_anywhere(whole: tuple[Path, bytes], share: float) -> None:
    path, stored = whole
    path.write_bytes(stored[: int(share * len(stored))])
    try_to_read(path)


@pytest.mark.parametrize("name", ["cell.abf", "cell2.abf"])
def test_an_abf_file_cut_at_every_block_is_refused(tmp_path: Path, name: str) -> None:
    stored, path = MAKERS[name](tmp_path), tmp_path / name
    for length in range(0, len(stored) - 512, 512):
        path.write_bytes(stored[:length])
        with pytest.raises(ReadError, match=path.name):
            read(path)


def test_zeros_that_were_packed_beyond_reason_are_not_unpacked(tmp_path: Path) -> None:
    path, chunk = tmp_path / "bomb.h5", 1 << 22
    with h5py.File(path, "w") as file:
        data = file.create_dataset("Im", (1 << 34,), "i2", chunks=(chunk,), compression="gzip")
        data.id.write_direct_chunk((0,), zlib.compress(bytes(2 * chunk), 9))
        data.attrs.update({"rate_hz": 2e4, "unit": "pA"})
    tracemalloc.start()
    with pytest.raises(ReadError, match="declares 34,359,738,368 bytes"):
        read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < _MOST_BYTES


def test_a_heka_file_cut_at_every_part_is_refused(tmp_path: Path) -> None:
    stored, path = heka(), tmp_path / "cell.dat"
    for length in boundaries(stored):
        path.write_bytes(stored[:length])
        with pytest.raises(ReadError, match=r"cell\.dat"):
            read(path)


@pytest.mark.parametrize("name", ["cell.nwb", "cell.h5"])
def test_an_hdf5_file_cut_short_is_refused(tmp_path: Path, name: str) -> None:
    stored, path = MAKERS[name](tmp_path), tmp_path / name
    for sixteenth in range(16):
        path.write_bytes(stored[: sixteenth * len(stored) // 16])
        with pytest.raises(ReadError):
            read(path)


def test_no_number_in_the_tree_makes_heka_take_much_memory(tmp_path: Path) -> None:
    stored, path = heka(), tmp_path / "cell.dat"
    start, length = bundle_items(stored)[b".pul"]
    tracemalloc.start()
    for at in range(start, start + length, 101):
        path.write_bytes(stored[:at] + b"\xff\xff\xff\x7f" + stored[at + 4 :])
        try_to_read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < _MOST_BYTES


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["heka", "nwb", "wavesurfer"])
def test_broken_copies_of_real_files(shared: Path, tmp_path: Path, folder: str) -> None:
    random = np.random.default_rng(1)
    for original in sorted((shared / "data" / folder).iterdir()):
        stored = original.read_bytes()
        path = tmp_path / original.name
        cuts = boundaries(stored) if folder == "heka" else []
        # What comes after the tree of a HEKA file is not needed.
        needed = sum(bundle_items(stored)[b".pul"]) if folder == "heka" else len(stored)
        for length in [*cuts, *random.integers(0, len(stored), 20).tolist()]:
            if length >= needed:
                continue
            path.write_bytes(stored[:length])
            with pytest.raises(ReadError):
                read(path)
        for _ in range(60):
            changed = bytearray(stored)
            # Half of them where the tree of a HEKA file lies, which is a small part of it.
            first = max(cuts[-4:-3], default=0) if random.random() < 0.5 else 0
            for at in random.integers(first, len(changed), 12):
                changed[at] ^= 1 << random.integers(0, 8)
            path.write_bytes(changed)
            try_to_read(path)

"""HEKA PatchMaster: where samples lie, what they mean, and what is refused."""

from __future__ import annotations

import pickle
import struct
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from heka_files import OLD_SIZES, SIZES, Wave, bundle_items, heka_bytes

from quantal.errors import ReadError
from quantal.readers import describe, inspect, read

RAMP = np.arange(-300, 300, dtype=np.int16)
CURRENT = Wave(RAMP)
VOLTAGE = Wave(RAMP[::-1].copy(), label="Vmon-1", unit="V", scale=3.125e-5)


def write(folder: Path, stored: bytes, name: str = "cell.dat") -> Path:
    path = folder / name
    path.write_bytes(stored)
    return path


def test_currents_come_in_pa_and_voltages_in_mv(tmp_path: Path) -> None:
    path = write(tmp_path, heka_bytes([[CURRENT, VOLTAGE]]))
    current, voltage = read(path, channel="all")
    np.testing.assert_allclose(current.samples, RAMP * 0.1, rtol=1e-6)
    np.testing.assert_allclose(voltage.samples, RAMP[::-1] * 0.03125, rtol=1e-6)
    assert [(t.unit, t.channel, t.rate_hz) for t in (current, voltage)] == [
        ("pA", "Imon-1", 50_000.0),
        ("mV", "Vmon-1", 50_000.0),
    ]
    found = inspect(path)
    assert (found.format, found.protocol) == ("HEKA PatchMaster v2x90.5", "protocol 0")
    assert str(found.recorded) == "2019-06-04 09:20:19"


@pytest.mark.parametrize("dtype", ["<i2", "<i4", "<f4", "<f8"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("sizes", [SIZES, OLD_SIZES])
def test_every_number_format(
    tmp_path: Path, dtype: str, order: str, sizes: tuple[int, ...]
) -> None:
    wave = Wave(RAMP.astype(dtype))
    path = write(tmp_path, heka_bytes([[wave]], order=order, sizes=sizes))
    np.testing.assert_allclose(read(path)[0].samples, RAMP * 0.1, rtol=1e-6)


@pytest.mark.parametrize("block", [2, 64, 1200, 4096])
@pytest.mark.parametrize("samples", [600, 599])
def test_interleaved_traces_are_taken_apart(tmp_path: Path, block: int, samples: int) -> None:
    waves = [Wave((RAMP[:samples] + 7 * i).astype(np.int16), label=f"Imon-{i}") for i in range(3)]
    path = write(tmp_path, heka_bytes([waves, waves], block=block))
    for n, trace in enumerate(read(path, channel="all")):
        np.testing.assert_allclose(trace.samples, waves[n % 3].counts * 0.1, rtol=1e-6, atol=1e-9)
    assert len(read(path)) == 2


def test_sweeps_are_kept_apart_and_series_follow_each_other(tmp_path: Path) -> None:
    longer = replace(CURRENT, counts=np.zeros(900, np.int16))
    path = write(tmp_path, heka_bytes([[CURRENT], [CURRENT]], [[longer]], labels=("IV", "minis")))
    assert [len(trace) for trace in read(path)] == [600, 600, 900]
    assert [len(trace) for trace in read(path, dataset="1.2")] == [900]
    assert [len(trace) for trace in read(path, dataset="iv")] == [600, 600]
    assert "sweeps 0 to 1 are 1.1 'IV'" in inspect(path).notes
    with pytest.raises(ReadError, match=r"no data set '1.3'. There is: 1.1 'IV': 2 sweeps of"):
        read(path, dataset="1.3")


def test_series_that_differ_must_be_chosen(tmp_path: Path) -> None:
    path = write(tmp_path, heka_bytes([[CURRENT]], [[VOLTAGE]], labels=("VC", "CC")))
    with pytest.raises(ReadError, match=r"holds 2 data sets: 1.1 'VC'.*--dataset 1.1"):
        read(path)
    with pytest.raises(ReadError) as caught:
        read(path)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert read(path, dataset="1.2")[0].unit == "mV"
    found = inspect(path)
    assert found.datasets == (
        "1.1 'VC': 1 sweep of Imon-1 (pA) at 50000 Hz",
        "1.2 'CC': 1 sweep of Vmon-1 (mV) at 50000 Hz",
    )
    assert "1.2 'CC': 1 sweep of Vmon-1 (mV) at 50000 Hz" in describe(found)
    assert "dataset='1.1'" in describe(found)


def test_what_is_odd_is_told(tmp_path: Path) -> None:
    clipped = replace(CURRENT, kind=32, zero=1e-12)
    short = replace(VOLTAGE, counts=RAMP[:10].copy())
    sweeps = [[clipped, short], [], [CURRENT], [replace(CURRENT, label="other")]]
    path = write(tmp_path, heka_bytes(sweeps))
    assert [len(trace) for trace in read(path, channel="all")] == [600, 600]
    notes = " ".join(inspect(path).notes)
    assert "left out, being without samples: 1 sweep(s)" in notes
    assert "Vmon-1 in sweep 0 of 1.1, sweep 2 of 1.1" in notes
    assert "clipped: Imon-1 in sweep 0 of 1.1" in notes
    assert "zero offset is not subtracted from: Imon-1 of 1.1" in notes


def test_leak_traces_are_channels_of_their_own(tmp_path: Path) -> None:
    path = write(tmp_path, heka_bytes([[CURRENT, replace(CURRENT, kind=2)]]))
    assert [one.name for one in inspect(path).channels] == ["Imon-1", "Imon-1 leak"]


def test_a_tree_beside_the_samples(tmp_path: Path) -> None:
    stored = heka_bytes([[CURRENT]], signature=b"DAT1")
    start, length = bundle_items(stored)[b".pul"]
    path = write(tmp_path, stored[:start])
    with pytest.raises(ReadError, match=r"described in cell.pul, which is not beside it"):
        read(path)
    write(tmp_path, stored[start : start + length], "cell.pul")
    np.testing.assert_allclose(read(path)[0].samples, RAMP * 0.1, rtol=1e-6)


def test_the_suffix_does_not_matter(tmp_path: Path) -> None:
    assert len(read(write(tmp_path, heka_bytes([[CURRENT]]), "cell.abf"))) == 1


@pytest.mark.parametrize("interval", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_is_never_assumed(tmp_path: Path, interval: float) -> None:
    path = write(tmp_path, heka_bytes([[replace(CURRENT, interval=interval)]]))
    with pytest.raises(ReadError, match=r"rate_hz=20000"):
        read(path)
    assert read(path, rate_hz=1000)[0].rate_hz == 1000.0


@pytest.mark.parametrize("scale", [0.0, float("nan"), float("inf")])
def test_a_gain_is_never_assumed(tmp_path: Path, scale: float) -> None:
    with pytest.raises(ReadError, match="no usable gain for Imon-1"):
        read(write(tmp_path, heka_bytes([[replace(CURRENT, scale=scale)]])))


def patched(stored: bytes, position: int, form: str, value: Any) -> bytes:
    changed = bytearray(stored)
    struct.pack_into(form, changed, position, value)
    return bytes(changed)


# Bytes of the tree: magic, levels, sizes; then root, group, series, sweep and the first trace.
ROOT = 28
TRACE = ROOT + sum(SIZES[:4]) + 4 * 4


@pytest.mark.parametrize(
    ("position", "form", "value", "why"),
    [
        (4, "<i", 6, "6 levels"),
        (8, "<i", -1, "records of -1 bytes"),
        (24, "<i", 64, "records of 64 bytes"),
        (24, "<i", 2**31 - 1, "records of 2147483647 bytes"),
        (ROOT, "<i", 8, "version 8"),
        (ROOT, "<i", 2000, "version 2000"),
        (ROOT + SIZES[0], "<i", -1, "counts -1"),
        (ROOT + SIZES[0], "<i", 2**31 - 1, "counts 2147483647"),
        (TRACE + SIZES[4], "<i", 1, "counts 1"),
        (TRACE + 40, "<i", -1, "negative position"),
        (TRACE + 40, "<i", 2**31 - 1, r"samples reach to byte 2,147,484,847 of"),
        (TRACE + 44, "<i", 2**31 - 1, "samples reach to byte"),
        (TRACE + 70, "B", 9, "format 9"),
        (TRACE + 292, "<q", 3 + (64 << 32), "blocks of 3 bytes, 64 apart"),
        (TRACE + 292, "<q", 64 + (2 << 32), "blocks of 64 bytes, 2 apart"),
        (TRACE + 292, "<q", 64 + ((2**31 - 2) << 32), "samples reach to byte"),
    ],
)
def test_hostile_numbers_are_refused(
    tmp_path: Path, position: int, form: str, value: int, why: str
) -> None:
    stored = heka_bytes([[CURRENT]])
    start = bundle_items(stored)[b".pul"][0]
    with pytest.raises(ReadError, match=why):
        read(write(tmp_path, patched(stored, start + position, form, value)))


def test_samples_that_all_traces_share_are_refused(tmp_path: Path) -> None:
    stored = heka_bytes([[CURRENT] for _ in range(40)], sizes=(528, 36, 36, 36, 128 + 172))
    start, length = bundle_items(stored)[b".pul"]
    tree = stored[start : start + length].replace(struct.pack("<i", 600), struct.pack("<i", 12000))
    with pytest.raises(ReadError, match="bytes of samples in a file of"):
        read(write(tmp_path, stored[:start] + tree + bytes(40 * 24000 // 2)))


# Where a hex dump of the tree says that traces lie: first byte, samples, and the unit of a count.
DUMPED = [
    ("load-heka-1", 0, 0, 256, 7900, 0.0625),
    ("load-heka-1", 0, 1, 16_056, 7900, 0.03125),
    ("load-heka-1", 10, 0, 316_256, 7900, 0.0625),
    ("190604s1c2r1", 0, 7, 210_956, 15_050, 0.03130030417223891),
    ("190604s1c2r1", 1, 7, 487_456, 17_600, 0.03130030417223891),
    ("test_singleFP", 0, 0, 256, 25_000, 0.03126413331388561),
    ("test_singleFP", 8, 0, 400_256, 25_000, 0.03126413331388561),
]


@pytest.mark.parametrize(("name", "sweep", "channel", "start", "samples", "step"), DUMPED)
def test_real_values_agree_with_the_bytes(
    shared: Path, name: str, sweep: int, channel: int, start: int, samples: int, step: float
) -> None:
    path = shared / "data" / "heka" / f"{name}.dat"
    (trace,) = read(path, channel=channel, sweeps=sweep)
    counts = np.fromfile(path, "<i2", samples, offset=start)
    np.testing.assert_allclose(trace.samples, counts * step, rtol=1e-6)


@pytest.mark.parametrize("name", ["190604s1c2r1", "load-heka-1", "test_singleFP"])
def test_real_files_agree_with_myokit(shared: Path, name: str) -> None:
    heka = pytest.importorskip("myokit.formats.heka", reason="compares with myokit: pip install it")
    path = shared / "data" / "heka" / f"{name}.dat"
    factors = {"[A]": 1e12, "[V]": 1e3}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with heka.PatchMasterFile(str(path)) as file:
            expected = [
                [
                    (
                        t.label(),
                        t.values() * factors[str(t.value_unit())],
                        1 / (t.times()[1] - t.times()[0]),
                    )
                    for t in sweep
                ]
                for group in file
                for series in group
                for sweep in series
            ]
    traces = read(path, channel="all")
    flat = [one for sweep in expected for one in sweep]
    assert len(traces) == len(flat)
    for trace, (label, values, rate_hz) in zip(traces, flat, strict=True):
        assert trace.channel == label
        assert trace.rate_hz == pytest.approx(rate_hz, rel=1e-6)
        np.testing.assert_allclose(trace.samples, values, rtol=1e-6, atol=1e-9)

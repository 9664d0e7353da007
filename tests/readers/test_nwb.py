"""NWB: which series are channels and which are sweeps, in which unit and at which rate."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from quantal.errors import ReadError
from quantal.readers import inspect, read

COUNTS = np.arange(-50, 50, dtype=np.int16)
VC, CC = "VoltageClampSeries", "CurrentClampSeries"


def series(file: h5py.File, name: str, kind: str = VC, **options: Any) -> h5py.Group:
    """A clamp series as the standard lays it out; options that are None are left out."""
    said = {
        "place": "acquisition",
        "samples": COUNTS,
        "unit": "amperes" if kind == VC else "volts",
        "conversion": 1e-13 if kind == VC else 1e-5,
        "offset": None,
        "rate": 20_000.0,
        "start": 0.0,
        "sweep": None,
        "electrode": "electrode0",
    } | options
    group = file.create_group(f"{said['place']}/{name}")
    group.attrs["neurodata_type"] = kind
    group["data"] = said["samples"]
    for key in ("unit", "conversion", "offset"):
        if said[key] is not None:
            group["data"].attrs[key] = said[key]
    if said["rate"] is not None:
        group["starting_time"] = said["start"]
        group["starting_time"].attrs["rate"] = said["rate"]
    if said["sweep"] is not None:
        group.attrs["sweep_number"] = np.uint32(said["sweep"])
    if said["electrode"]:
        home = file.require_group(f"general/intracellular_ephys/{said['electrode']}")
        group["electrode"] = h5py.SoftLink(home.name)
    return group


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Writes an NWB file with what a function puts into it."""

    def write(fill: Callable[[h5py.File], Any], name: str = "cell.nwb") -> Path:
        with h5py.File(tmp_path / name, "w") as file:
            file.attrs["nwb_version"] = "2.4.0"
            file["session_start_time"] = "2021-03-04T05:06:07.5+01:00"
            fill(file)
        return tmp_path / name

    return write


def test_conversion_offset_and_unit(make: Callable[..., Path]) -> None:
    path = make(lambda file: series(file, "a", offset=2e-12))
    (trace,) = read(path)
    np.testing.assert_allclose(trace.samples, COUNTS * 0.1 + 2, rtol=1e-6)
    assert (trace.unit, trace.rate_hz, trace.channel) == ("pA", 20_000.0, "electrode0")
    assert str(inspect(path).recorded) == "2021-03-04 05:06:07"


@pytest.mark.parametrize(
    ("unit", "shown", "factor"),
    [
        ("volts", "mV", 1e3),
        ("V", "mV", 1e3),
        ("Amps", "pA", 1e12),
        (b"amperes", "pA", 1e12),
        ("mV", "mV", 1.0),
        ("counts", "counts", 1.0),
    ],
)
def test_units(make: Callable[..., Path], unit: Any, shown: str, factor: float) -> None:
    path = make(lambda file: series(file, "a", CC, unit=unit, conversion=None))
    (trace,) = read(path)
    assert trace.unit == shown
    np.testing.assert_allclose(trace.samples, COUNTS * factor)


def test_a_unit_is_never_assumed(make: Callable[..., Path]) -> None:
    with pytest.raises(ReadError, match="electrode0 has no unit"):
        read(make(lambda file: series(file, "a", unit=None)))


def test_sweeps_follow_each_other_in_time_and_not_by_name(make: Callable[..., Path]) -> None:
    def fill(file: h5py.File) -> None:
        for n in range(1, 13):
            series(file, f"sweep_{n}", samples=np.full(5, n, np.int16), start=float(n))

    values = [trace.samples[0] for trace in read(make(fill))]
    np.testing.assert_allclose(values, np.arange(1, 13) * 0.1, rtol=1e-6)


@pytest.mark.parametrize("key", ["sweep", "name"])
def test_sweeps_by_number_or_name_where_time_does_not_tell(
    make: Callable[..., Path], key: str
) -> None:
    def fill(file: h5py.File) -> None:
        for n in (11, 2, 1):
            sweep = n if key == "sweep" else None
            name = f"a{20 - n}" if key == "sweep" else f"a{n}"
            series(file, name, samples=np.full(5, n, np.int16), sweep=sweep)

    values = [trace.samples[0] for trace in read(make(fill))]
    np.testing.assert_allclose(values, [0.1, 0.2, 1.1], rtol=1e-6)


def test_electrodes_recorded_together_are_channels(make: Callable[..., Path]) -> None:
    def fill(file: h5py.File) -> None:
        for n in range(3):
            series(file, f"a{n}", start=float(n), electrode="left")
            series(file, f"b{n}", CC, start=float(n), electrode="right")

    path = make(fill)
    assert [(t.sweep, t.channel, t.unit) for t in read(path, channel="all", sweeps="0-1")] == [
        (0, "left", "pA"),
        (0, "right", "mV"),
        (1, "left", "pA"),
        (1, "right", "mV"),
    ]


def test_kinds_that_take_turns_must_be_chosen(make: Callable[..., Path]) -> None:
    def fill(file: h5py.File) -> None:
        for n in range(4):
            series(file, f"a{n}", VC if n < 3 else CC, start=float(n))

    path = make(fill)
    with pytest.raises(ReadError, match=r"holds 2 data sets.*--dataset VoltageClampSeries"):
        read(path)
    assert len(read(path, dataset=VC)) == 3
    assert read(path, dataset=CC)[0].unit == "mV"
    assert len(read(path, dataset="acquisition/a1")) == 1
    assert len(inspect(path).datasets) == 2
    with pytest.raises(ReadError, match="no data set 'left'"):
        read(path, dataset="left")


def test_cells_and_rates_must_be_chosen(make: Callable[..., Path]) -> None:
    def fill(file: h5py.File) -> None:
        series(file, "a", electrode="left")
        series(file, "b", electrode="right", start=1.0)
        series(file, "c", CC, electrode="right", start=2.0)

    assert inspect(make(fill)).datasets == (
        "left/VoltageClampSeries: 1 sweep of left (pA) at 20000 Hz",
        "right/VoltageClampSeries: 1 sweep of right (pA) at 20000 Hz",
        "right/CurrentClampSeries: 1 sweep of right (mV) at 20000 Hz",
    )

    def two_rates(file: h5py.File) -> None:
        series(file, "a")
        series(file, "b", rate=10_000.0, start=1.0)

    path = make(two_rates, "rates.nwb")
    assert read(path, dataset="VoltageClampSeries#2")[0].rate_hz == 10_000.0


def test_a_rate_in_single_precision_is_that_meant(make: Callable[..., Path]) -> None:
    path = make(lambda file: series(file, "a", rate=np.float32(403.226)))
    assert read(path)[0].rate_hz == 403.226


def test_timestamps_give_the_rate(make: Callable[..., Path]) -> None:
    def fill(file: h5py.File) -> None:
        series(file, "a", rate=None)["timestamps"] = 7 + np.arange(100) / 12_500

    assert read(make(fill))[0].rate_hz == pytest.approx(12_500, rel=1e-9)

    def uneven(file: h5py.File) -> None:
        series(file, "a", rate=None)["timestamps"] = np.arange(100.0) ** 2

    path = make(uneven, "uneven.nwb")
    with pytest.raises(ReadError, match=r"not evenly spaced.*rate_hz=20000"):
        read(path)
    assert read(path, rate_hz=5.0)[0].rate_hz == 5.0


@pytest.mark.parametrize("rate", [0.0, np.nan, -1.0, "fast", None])
def test_a_rate_is_never_assumed(make: Callable[..., Path], rate: Any) -> None:
    with pytest.raises(ReadError, match="rate_hz=20000"):
        read(make(lambda file: series(file, "a", rate=rate)))


def test_nwb_1_has_its_series_elsewhere(make: Callable[..., Path]) -> None:
    def fill(file: h5py.File) -> None:
        del file.attrs["nwb_version"]
        file["nwb_version"] = "NWB-1.0.5"
        group = series(file, "Sweep_1", place="acquisition/timeseries", electrode="", unit="Amps")
        group.attrs["neurodata_type"] = "TimeSeries"
        group.attrs["ancestry"] = np.array([b"TimeSeries", b"PatchClampSeries", VC.encode()])
        group["electrode_name"] = "Electrode 1"

    (trace,) = read(make(fill, "cell.h5"))
    assert (trace.unit, trace.channel) == ("pA", "Electrode 1")


def test_stimuli_are_no_recordings(make: Callable[..., Path]) -> None:
    def fill(file: h5py.File) -> None:
        series(file, "a")
        series(file, "b", CC, place="stimulus/presentation")

    path = make(fill)
    assert len(read(path)) == 1
    assert read(path, dataset="stimulus/presentation/b")[0].unit == "mV"


def test_without_a_clamp_series(make: Callable[..., Path]) -> None:
    path = make(lambda file: series(file, "lick", "TimeSeries", unit="a.u.", conversion=2.0))
    with pytest.raises(ReadError, match=r"no intracellular series.*there is: TimeSeries.*dataset="):
        read(path)
    np.testing.assert_allclose(read(path, dataset="acquisition/lick")[0].samples, 2 * COUNTS)
    with pytest.raises(ReadError, match="no intracellular series"):
        read(make(len, "empty.nwb"))


def test_what_is_no_trace(make: Callable[..., Path]) -> None:
    path = make(lambda file: series(file, "a", samples=np.zeros((3, 4))))
    with pytest.raises(ReadError, match=r"shape \(3, 4\)"):
        read(path)
    with pytest.raises(ReadError, match="no usable conversion"):
        read(make(lambda file: series(file, "a", conversion=0.0), "zero.nwb"))


def test_samples_that_were_never_written(make: Callable[..., Path]) -> None:
    def fill(file: h5py.File) -> None:
        group = series(file, "a")
        del group["data"]
        group.create_dataset("data", shape=(10**10,), chunks=(10**6,), dtype="f4")

    with pytest.raises(ReadError, match="declares 40,000,000,000 bytes"):
        read(make(fill))


def test_damaged_texts_are_refused_before_hdf5_hangs_over_them(make: Callable[..., Path]) -> None:
    path = make(lambda file: series(file, "a"))
    stored = bytearray(path.read_bytes())
    heap = stored.index(b"GCOL")
    stored[heap + 16 + 8] = 255  # the length of the first text; the next one is never found
    path.write_bytes(stored)
    with pytest.raises(ReadError, match="its texts are damaged"):
        read(path)


def test_real_values_agree_with_the_bytes(shared: Path) -> None:
    path = shared / "data" / "nwb" / "99111002.nwb"
    with h5py.File(path) as file:
        for trace in read(path):
            data = file[f"acquisition/ic__Step__{trace.sweep + 1}/data"]
            stored = np.asarray(data[()]) * data.attrs["conversion"]
            assert data.attrs["unit"] == "volts"
            np.testing.assert_allclose(trace.samples, 1e3 * stored, rtol=1e-5)


@pytest.mark.slow
def test_real_values_agree_with_pynwb(shared: Path) -> None:
    pynwb = pytest.importorskip("pynwb", reason="compares with pynwb: pip install pynwb")
    path = shared / "data" / "nwb" / "99111002.nwb"
    traces = read(path)
    with warnings.catch_warnings(), pynwb.NWBHDF5IO(str(path), "r", load_namespaces=True) as io:
        warnings.simplefilter("ignore")  # the file is of an older version of the standard
        recorded = io.read().acquisition.values()
        expected = sorted(recorded, key=lambda one: one.starting_time)
        assert len(traces) == len(expected)
        for trace, one in zip(traces, expected, strict=True):
            assert (one.unit, trace.unit) == ("volts", "mV")
            assert trace.rate_hz == one.rate
            volts = one.get_data_in_units()
            np.testing.assert_allclose(trace.samples, 1e3 * volts, rtol=1e-5)

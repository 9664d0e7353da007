"""WaveSurfer: active inputs, calibration, sweeps by number, and the rate of the board."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from quantal.errors import ReadError, UsageError
from quantal.readers import inspect, read

COUNTS = np.arange(-10, 10, dtype=np.int16)
CUBIC = (-0.005, 3.2e-4, -1e-14, 7e-18)


def write(path: Path, sweeps: dict[str, Any] | None = None, **header: Any) -> Path:
    """Three inputs of which the second is switched off."""
    entries = {
        "VersionString": np.array([b"0.97"]),
        "AIChannelNames": np.array([b"Im", b"off", b"Vm"]),
        "AIChannelUnits": np.array([b"pA", b"V", b"mV"]),
        "AIChannelScales": np.array([[0.5], [1.0], [0.01]]),
        "IsAIChannelActive": np.array([[1.0], [0.0], [1.0]]),
        "AIScalingCoefficients": np.array([CUBIC, CUBIC]),
        "AcquisitionSampleRate": np.array([[20_000.0]]),
        "ClockAtRunStart": np.array([[2018.0], [9.0], [13.0], [16.0], [25.0], [8.5]]),
    } | header
    with h5py.File(path, "w") as file:
        for name, value in entries.items():
            if value is not None:
                file[f"header/{name}"] = value
        for name, value in (sweeps or {"sweep_0001": [COUNTS, COUNTS[::-1]]}).items():
            file[f"{name}/analogScans"] = np.array(value, np.int16)
    return path


def volts(counts: np.ndarray, row: tuple[float, ...] = CUBIC) -> np.ndarray:
    return sum(factor * counts.astype(float) ** power for power, factor in enumerate(row))


def test_only_active_inputs_each_in_its_unit(tmp_path: Path) -> None:
    current, voltage = read(write(tmp_path / "cell.h5"), channel="all")
    np.testing.assert_allclose(current.samples, volts(COUNTS) / 0.5, rtol=1e-6)
    np.testing.assert_allclose(voltage.samples, volts(COUNTS[::-1]) / 0.01, rtol=1e-6)
    assert [(t.channel, t.unit) for t in (current, voltage)] == [("Im", "pA"), ("Vm", "mV")]
    found = inspect(tmp_path / "cell.h5")
    assert (found.format, str(found.recorded)) == ("WaveSurfer 0.97", "2018-09-13 16:25:08")


def test_coefficients_may_be_listed_for_all_inputs(tmp_path: Path) -> None:
    rows = np.array([CUBIC, (9.0, 9.0, 9.0, 9.0), (0.0, 1.0, 0.0, 0.0)])
    path = write(tmp_path / "cell.h5", AIScalingCoefficients=rows)
    np.testing.assert_allclose(read(path, channel="Vm")[0].samples, COUNTS[::-1] / 0.01)


def test_sweeps_by_number_and_of_any_length(tmp_path: Path) -> None:
    sweeps = {f"sweep_{n:04d}": [np.full(n, n, np.int16)] * 2 for n in (9999, 10_000, 2, 1)} | {
        "sweep_0003": [COUNTS[:0]] * 2
    }
    path = write(tmp_path / "cell.h5", sweeps)
    assert [len(trace) for trace in read(path)] == [1, 2, 9999, 10_000]
    assert [len(trace) for trace in read(path, sweeps="2")] == [9999]
    assert "left out, being without samples: 1 sweep(s)" in inspect(path).notes


def test_names_of_older_versions(tmp_path: Path) -> None:
    path = tmp_path / "cell.h5"
    with h5py.File(path, "w") as file:
        header = file.create_group("header/Acquisition")
        header["AnalogChannelNames"] = np.array([b"Im"])
        header["AnalogChannelUnits"] = np.array([b"pA"])
        header["AnalogChannelScales"] = [[2.0]]
        header["IsAnalogChannelActive"] = [[1.0]]
        header["AnalogScalingCoefficients"] = [[1.0, 0.5]]
        header["SampleRate"] = [[1e4]]
        file["trial_0001/analogScans"] = COUNTS[None]
    (trace,) = read(path)
    np.testing.assert_allclose(trace.samples, (1 + 0.5 * COUNTS) / 2)
    assert (trace.channel, trace.unit, trace.rate_hz) == ("Im", "pA", 1e4)


@pytest.mark.parametrize(
    ("version", "stated", "rate_hz"),
    [
        (b"0.912", 29_997.0, 1e8 / 3333),  # what the board did, not what was asked for
        (b"0.9", 29_997.0, 1e8 / 3333),
        (b"0.912", 20_000.0, 20_000.0),
        (b"0.912", 1e8 / 3333, 1e8 / 3333),
        (b"0.913", 29_997.0, 29_997.0),
        (b"0.97", 29_997.0, 29_997.0),
        (b"1.0.6", 29_997.0, 29_997.0),
    ],
)
def test_the_rate_is_that_of_the_board(
    tmp_path: Path, version: bytes, stated: float, rate_hz: float
) -> None:
    header = {"VersionString": np.array([version]), "AcquisitionSampleRate": [[stated]]}
    assert read(write(tmp_path / "cell.h5", **header))[0].rate_hz == rate_hz


@pytest.mark.parametrize("rate", [None, [[0.0]], [[np.nan]], [[-1.0]], [[1e300]], [[1.0, 2.0]]])
def test_a_rate_is_never_assumed(tmp_path: Path, rate: Any) -> None:
    path = write(tmp_path / "cell.h5", AcquisitionSampleRate=rate)
    with pytest.raises(ReadError, match="rate_hz=20000"):
        read(path)


def test_without_coefficients_the_nominal_ones_are_taken_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "cell.h5", AIScalingCoefficients=None)
    np.testing.assert_allclose(read(path)[0].samples, COUNTS * (10 / 32768) / 0.5, rtol=1e-6)
    assert "no scaling coefficients" in caplog.text
    assert any("may differ by some percent" in note for note in inspect(path).notes)


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ({"AIChannelScales": None}, "lists no inputs"),
        ({"AIChannelScales": np.zeros((3, 1))}, "no usable scale for Im"),
        ({"AIScalingCoefficients": np.full((2, 4), np.nan)}, "no usable scale for Im"),
        ({"AIScalingCoefficients": np.ones((5, 4))}, r"shape \(5, 4\), but 2 inputs"),
        ({"IsAIChannelActive": np.ones((3, 1))}, "3 inputs are active"),
    ],
)
def test_a_header_that_does_not_fit(tmp_path: Path, header: dict[str, Any], why: str) -> None:
    with pytest.raises(ReadError, match=why):
        read(write(tmp_path / "cell.h5", **header))


def test_sweeps_that_do_not_fit(tmp_path: Path) -> None:
    path = write(tmp_path / "cell.h5", {"sweep_0001": [COUNTS]})
    with pytest.raises(ReadError, match="one row of counts for each of 2 active inputs"):
        read(path)


def test_there_is_no_data_set_to_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="read as WaveSurfer"):
        read(write(tmp_path / "cell.h5"), dataset="sweep_0001")


def test_the_unit_may_be_missing(tmp_path: Path) -> None:
    path = write(tmp_path / "cell.h5", AIChannelUnits=None, AIChannelNames=None)
    assert inspect(path).channels[1].name == "channel 2"
    with pytest.raises(ReadError, match="channel 0 has no unit"):
        read(path)


def test_real_values_agree_with_the_bytes(shared: Path) -> None:
    path = shared / "data" / "wavesurfer" / "multiple_sweeps_multiple_channels_0001-0009.h5"
    traces = read(path, channel="all")
    with h5py.File(path) as file:
        rows = file["header/AIScalingCoefficients"][()]
        for trace in traces:
            channel = ("AI0", "AI1").index(trace.channel)
            data = file[f"sweep_{trace.sweep + 1:04d}/analogScans"]
            # HDF5 is told where the samples lie, not what they are.
            stored = _stored(path, data)[channel]
            np.testing.assert_allclose(
                trace.samples, volts(stored, tuple(rows[channel])), rtol=1e-5, atol=1e-7
            )


def _stored(path: Path, data: Any) -> np.ndarray:
    """The counts of a sweep from the file's bytes, where they are not packed."""
    offset = data.id.get_offset()
    if offset is None:
        return np.asarray(data[()])
    return np.fromfile(path, "<i2", data.size, offset=offset).reshape(data.shape)


def test_real_values_agree_with_pywavesurfer(shared: Path) -> None:
    ws = pytest.importorskip("pywavesurfer.ws", reason="compares with pywavesurfer: pip install it")
    path = shared / "data" / "wavesurfer" / "multiple_sweeps_multiple_channels_0001-0009.h5"
    expected = ws.loadDataFile(str(path))
    for trace in read(path, channel="all"):
        row = ("AI0", "AI1").index(trace.channel)
        values = expected[f"sweep_{trace.sweep + 1:04d}"]["analogScans"][row]
        np.testing.assert_allclose(trace.samples, values, rtol=1e-6, atol=1e-7)


def test_a_group_in_place_of_counts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        del file["sweep_0001/analogScans"]
        file.create_group("sweep_0001/analogScans")
    with pytest.raises(ReadError, match="holds no counts"):
        read(path)

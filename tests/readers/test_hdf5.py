"""Plain HDF5: which data set, which axis, which rate and unit."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from quantal.errors import ReadError
from quantal.readers import inspect, read

WAVE = np.linspace(-5, 5, 50)


def write(path: Path, attributes: dict[str, Any] | None = None, **datasets: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name] = values
        file.attrs.update(attributes or {})
    return path


def test_the_only_data_set_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "cell.h5", {"rate_hz": 25_000.5, "unit": "pA"}, Im=WAVE)
    (trace,) = read(path)
    np.testing.assert_array_equal(trace.samples, WAVE.astype(np.float32))
    assert (trace.rate_hz, trace.unit, trace.channel) == (25_000.5, "pA", "Im")
    assert (trace.recording, trace.sweep) == ("cell", 0)


def test_scalars_and_text_are_no_candidates(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", {"fs": 1e4, "unit": "pA"}, Im=WAVE, n=3.0, who="me", one=[1.0])
    assert read(path)[0].channel == "Im"


def test_several_data_sets_are_listed_and_one_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", {"fs": 1e4, "unit": "pA"}, Im=WAVE, sweeps=np.ones((3, 40)))
    with pytest.raises(ReadError, match=r"sweeps \(3 x 40\), Im \(50\).*--dataset sweeps"):
        read(path)
    assert inspect(path).datasets == ("sweeps (3 x 40)", "Im (50)")
    assert inspect(path).to_dict()["datasets"] == ["sweeps (3 x 40)", "Im (50)"]
    assert "sweeps (3 x 40)" in str(inspect(path))
    assert len(read(path, dataset="sweeps")) == 3
    with pytest.raises(ReadError, match=r"no data set 'Vm'.*Im \(50\)"):
        read(path, dataset="Vm")


def test_a_group_or_text_cannot_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", {"fs": 1e4, "unit": "pA"}, **{"g/Im": WAVE, "who": "me"})
    with pytest.raises(ReadError, match="no data set 'g'"):
        read(path, dataset="g")
    with pytest.raises(ReadError, match="'who' has shape"):
        read(path, dataset="who")


def test_the_longer_axis_is_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = np.arange(30.0).reshape(3, 10)
    for name, stored in (("rows", values), ("columns", values.T)):
        path = write(tmp_path / f"{name}.h5", {"fs": 1e4, "unit": "pA"}, Im=stored)
        np.testing.assert_array_equal([trace.samples for trace in read(path)], values)
        np.testing.assert_array_equal(read(path, sweeps=1)[0].samples, values[1])
        assert any(f"its {name} are sweeps" in note for note in inspect(path).notes)
    assert "3 sweeps of 10 samples" in caplog.text
    assert caplog.records[0].levelno == logging.WARNING


def test_a_square_array_is_ambiguous(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", {"fs": 1e4, "unit": "pA"}, Im=np.eye(8))
    with pytest.raises(ReadError, match="which way time runs"):
        read(path)


@pytest.mark.parametrize(
    ("attributes", "rate_hz"),
    [
        ({"rate_hz": 20_000}, 20_000),
        ({"Sampling Rate (Hz)": 403.226}, 403.226),
        ({"sampling_frequency": np.array([20_000.0])}, 20_000),
        ({"samplerate": "20000"}, 20_000),
        ({"fs": 20.0, "fs_unit": "kHz"}, 20_000),
        ({"rate_khz": 20}, 20_000),
        ({"sample_interval_s": 5e-5}, 20_000),
        ({"sampling_interval_ms": 0.05}, 20_000),
        ({"dt_us": 50}, 20_000),
        ({"dt": 0.05, "dt_units": "ms"}, 20_000),
        ({"dt": 5e-5}, 20_000),  # as milliseconds it would be 20 MHz
        ({"frame_rate": 30.3}, 30.3),
        ({"dt": 5e-5, "fs": 20_000}, 20_000),
    ],
)
def test_spellings_of_the_rate(tmp_path: Path, attributes: dict[str, Any], rate_hz: float) -> None:
    path = write(tmp_path / "a.h5", {**attributes, "units": b"nA"}, Im=WAVE)
    assert read(path)[0].rate_hz == pytest.approx(rate_hz, rel=1e-12)
    assert read(path)[0].unit == "nA"


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ({}, "no attribute for the sampling rate"),
        ({"dt": 0.05}, "seconds or milliseconds"),
        ({"fs": -1.0}, "not a sampling rate"),
        ({"fs": "fast"}, "not a sampling rate"),
        ({"fs": 20.0, "fs_unit": "rpm"}, "unknown unit of frequency"),
        ({"dt_s": 0.0}, "not a time between samples"),
        ({"dt_s": 1e-4, "fs": 20_000.0}, "disagree"),
    ],
)
def test_a_rate_is_never_assumed(tmp_path: Path, attributes: dict[str, Any], why: str) -> None:
    path = write(tmp_path / "a.h5", {**attributes, "unit": "pA"}, Im=WAVE)
    with pytest.raises(ReadError, match=f"{why}.*rate_hz=20000"):
        read(path)
    assert inspect(path).rate_hz is None
    assert read(path, rate_hz=1000)[0].rate_hz == 1000.0


def test_a_unit_is_never_assumed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", {"fs": 1e4, "unit": "  "}, Im=WAVE)
    with pytest.raises(ReadError, match="Im has no unit"):
        read(path)
    assert inspect(path).channels[0].unit is None
    assert read(path, unit="dF/F")[0].unit == "dF/F"


def test_the_nearest_attribute_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["cell/Im"] = WAVE
        file.attrs.update({"fs": 1.0, "unit": "V"})
        file["cell"].attrs["fs"] = 2.0
        file["cell/Im"].attrs["unit"] = "pA"
    assert (read(path)[0].rate_hz, read(path)[0].unit) == (2.0, "pA")


def test_nan_stays_nan(tmp_path: Path) -> None:
    values = np.array([1.0, np.nan, 3.0])
    path = write(tmp_path / "a.h5", {"fs": 1e4, "unit": "pA"}, Im=values)
    np.testing.assert_array_equal(read(path)[0].samples, values)


@pytest.mark.parametrize("content", [{"who": ["a", "b"]}, {}, {"cube": np.zeros((2, 3, 4))}])
def test_without_a_trace(tmp_path: Path, content: dict[str, Any]) -> None:
    with pytest.raises(ReadError, match="no data set of numbers"):
        read(write(tmp_path / "a.h5", **content))


def test_a_damaged_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", {"fs": 1e4, "unit": "pA"}, Im=WAVE)
    whole = path.read_bytes()
    for length in (8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ReadError, match="cannot be read as HDF5"):
            read(path)


def test_a_huge_empty_promise(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("Im", shape=(10**12,), dtype="f8", chunks=(1000,))
        file.attrs.update({"fs": 1e4, "unit": "pA"})
    with pytest.raises(ReadError, match=r"declares 8,000,000,000,000 bytes"):
        read(path)


def test_an_offset_that_would_drown_the_signal(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", {"fs": 1e4, "unit": "pA"}, Im=1e9 + WAVE)
    with pytest.raises(ReadError, match=r"a\.h5, sweep 0: .*subtract the offset"):
        read(path)


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("which", [0, 1])
def test_a_text_longer_than_its_file_is_refused_before_hdf5_makes_room_for_it(
    tmp_path: Path, libver: str, which: int
) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver=libver) as file:
        file["Im"] = WAVE
        file["Im"].attrs.update({"fs": 1e4, "unit": "pA"})
        file["Im"].attrs["other"] = np.array(["a", "b"], h5py.string_dtype())
    stored = path.read_bytes()
    places = references_to_texts(stored)
    assert read(path)
    at = places[-1 if which else 0] - 4
    path.write_bytes(stored[:at] + b"\xf0\xff\xff\xff" + stored[at + 4 :])
    with pytest.raises(ReadError, match="its texts are damaged"):
        read(path)


def references_to_texts(stored: bytes) -> list[int]:
    """Where the heap of texts is named; the length of each text stands before."""
    heap = stored.index(b"GCOL").to_bytes(8, "little")
    found = [at for at in range(len(stored) - 8) if stored[at : at + 8] == heap]
    return [at for at in found if 0 < int.from_bytes(stored[at - 4 : at], "little") < 100]


def test_samples_that_lie_in_other_files_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(np.arange(100.0).tobytes())
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("Im", (100,), "f8", external=[(tmp_path / "secret", 0, 800)])
        file["Im"].attrs.update({"fs": 1e4, "unit": "pA"})
    with pytest.raises(ReadError, match="keeps its samples in other files"):
        read(path)

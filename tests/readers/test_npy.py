"""NumPy arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quantal.errors import ReadError
from quantal.readers import inspect, read


def save(path: Path, values: object) -> Path:
    np.save(path, values, allow_pickle=True)  # type: ignore[arg-type]
    return path


def test_one_trace(tmp_path: Path) -> None:
    values = np.array([1.0, np.nan, -3.0, 4.5])
    (trace,) = read(save(tmp_path / "roi.npy", values), rate_hz=30.3, unit="dF/F")
    np.testing.assert_array_equal(trace.samples, values)
    assert (trace.rate_hz, trace.unit, trace.recording) == (30.3, "dF/F", "roi")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f8", ">i2", "f2", "u1"])
def test_sweeps(tmp_path: Path, dtype: str, order: str) -> None:
    values = np.asarray(np.arange(30).reshape(3, 10), dtype=dtype, order=order)  # type: ignore[call-overload]
    traces = read(save(tmp_path / "a.npy", values), sweeps="2,0", rate_hz=1e4, unit="pA")
    assert [trace.sweep for trace in traces] == [2, 0]
    np.testing.assert_array_equal([trace.samples for trace in traces], values[[2, 0]])


def test_a_column_is_one_trace(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npy", np.arange(9.0)[:, np.newaxis])
    assert [len(trace) for trace in read(path, rate_hz=1e4, unit="pA")] == [9]


def test_rate_and_unit_must_be_stated(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npy", np.arange(9.0))
    with pytest.raises(ReadError, match=r"states no sampling rate.*--rate-hz 20000"):
        read(path, unit="pA")
    with pytest.raises(ReadError, match=r"no unit.*--unit pA"):
        read(path, rate_hz=1e4)
    assert inspect(path).rate_hz is None


@pytest.mark.parametrize(
    "values",
    [
        np.array([{"a": 1}], dtype=object),
        np.array(["a", "b"]),
        np.array([1j, 2j]),
        np.zeros((2, 3, 4)),
        np.array(3.0),
        np.zeros(4, dtype=[("a", "f4")]),
        np.empty(0),
        np.empty((0, 5)),
        np.eye(4),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, values: object) -> None:
    with pytest.raises(ReadError):
        read(save(tmp_path / "a.npy", values), rate_hz=1e4, unit="pA")


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    import pickle

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "sprung",))  # type: ignore[return-value]

    for content in (pickle.dumps(Trap()), None):
        if content is None:
            save(tmp_path / "a.npy", np.array([Trap()], dtype=object))
        else:
            (tmp_path / "a.npy").write_bytes(content)
        with pytest.raises(ReadError, match="not a plain array"):
            read(tmp_path / "a.npy", rate_hz=1e4, unit="pA")
    assert not (tmp_path / "sprung").exists()


def test_truncated_or_lying(tmp_path: Path) -> None:
    whole = save(tmp_path / "a.npy", np.arange(100.0)).read_bytes()
    for length in (3, 9, 60, 128, len(whole) - 1):
        (tmp_path / "a.npy").write_bytes(whole[:length])
        with pytest.raises(ReadError):
            read(tmp_path / "a.npy", rate_hz=1e4, unit="pA")
    (tmp_path / "a.npy").write_bytes(whole.replace(b"(100,)", b"(10**9,)"))
    with pytest.raises(ReadError):
        read(tmp_path / "a.npy", rate_hz=1e4, unit="pA")
    (tmp_path / "a.npy").write_bytes(whole.replace(b"(100,), }   ", b"(999999999,)}"[:12] + b"}"))
    with pytest.raises(ReadError):
        read(tmp_path / "a.npy", rate_hz=1e4, unit="pA")


@pytest.mark.parametrize("header", [b"{'descr': (", b"(" * 200, b"  x", b"'''", b"9" * 5000])
def test_a_header_that_is_no_python(tmp_path: Path, header: bytes) -> None:
    length = len(header).to_bytes(2, "little")
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\1\0" + length + header + bytes(80))
    with pytest.raises(ReadError, match="not a plain array"):
        read(tmp_path / "a.npy", rate_hz=1e4, unit="pA")

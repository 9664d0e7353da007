"""Tables of numbers as text."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from quantal.errors import ReadError
from quantal.readers import inspect, read


def save(folder: Path, text: str, name: str = "a.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    "text",
    [
        "1\n2\n-3.5\n",
        "1\r\n2\r\n-3.5",
        "Im\n1\n2\n-3.5\n",
        "# exported\n# by hand\n1\n2\n-3.5\n",
        "1,2,-3.5\n",
        "1;2;-3,5\n",
        "1\t2\t-3.5\n",
        "\n1\n\n2\n-3.5e0\n\n",
    ],
)
def test_one_trace(tmp_path: Path, text: str) -> None:
    (trace,) = read(save(tmp_path, text), rate_hz=1e4, unit="pA")
    np.testing.assert_array_equal(trace.samples, [1, 2, -3.5])


@pytest.mark.parametrize(
    "header",
    ["time_s,Im (pA)", "Time (s),Im_pA", '"t [s]","Im [pA]"', "Time / s,Im / pA", "# time_s,Im_pA"],
)
def test_the_time_column_gives_the_rate(tmp_path: Path, header: str) -> None:
    path = save(tmp_path, f"{header}\n0,1\n0.0025,2\n0.005,nan\n")
    (trace,) = read(path)
    np.testing.assert_array_equal(trace.samples, [1, 2, np.nan])
    assert trace.rate_hz == pytest.approx(400.0, rel=1e-12)
    assert (trace.unit, trace.channel) == ("pA", "Im")
    assert any("rate from the column" in note for note in inspect(path).notes)


@pytest.mark.parametrize(
    ("unit", "rate_hz"), [("s", 4.0), ("ms", 4000.0), ("µs", 4e6), ("min", 4 / 60)]
)
def test_units_of_time(tmp_path: Path, unit: str, rate_hz: float) -> None:
    path = save(tmp_path, f"Time ({unit}),Im (pA)\n1,1\n1.25,2\n1.5,3\n")
    assert read(path)[0].rate_hz == pytest.approx(rate_hz, rel=1e-12)


def test_rounded_times_give_the_rate_over_the_whole(tmp_path: Path) -> None:
    rows = "".join(f"{i / 30_000:.6f},{i}\n" for i in range(30_001))
    path = save(tmp_path, "time_s,Im_pA\n" + rows)
    assert read(path)[0].rate_hz == pytest.approx(30_000.0, rel=1e-6)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("time,Im_pA\n0,1\n0.05,2\n0.1,3\n", "seconds or milliseconds"),
        ("time (furlong),Im_pA\n0,1\n1,2\n", "unknown unit of time"),
        ("time_s,Im_pA\n0,1\n1,2\n3,3\n", "not evenly spaced"),
        ("time_s,Im_pA\n0,1\n0,2\n0,3\n", "not a time between samples"),
        ("time_s,Im_pA\n0,1\nnan,2\n2,3\n", "times that are not numbers"),
        ("time_s,Im_pA\n0,1\n", "single time"),
        ("Im_pA\n0\n1\n", "no time column"),
    ],
)
def test_a_rate_is_never_assumed(tmp_path: Path, text: str, why: str) -> None:
    path = save(tmp_path, text)
    with pytest.raises(ReadError, match=f"{why}.*rate_hz=20000"):
        read(path)
    (trace,) = read(path, rate_hz=500)
    assert (trace.rate_hz, trace.channel) == (500.0, "Im")


def test_columns_are_channels(tmp_path: Path) -> None:
    path = save(tmp_path, "Vm [mV];time_ms;Im (pA)\n-70,5;0;1\n-71;0,5;2\n")
    traces = read(path, channel="all")
    assert [(t.channel, t.unit) for t in traces] == [("Vm", "mV"), ("Im", "pA")]
    np.testing.assert_array_equal(traces[0].samples, [-70.5, -71])
    assert traces[0].rate_hz == 2000.0


def test_the_row_numbers_of_pandas_are_no_channel(tmp_path: Path) -> None:
    path = save(tmp_path, ",Im (pA)\n0,5\n1,6\n2,7\n")
    (trace,) = read(path, rate_hz=1e4)
    np.testing.assert_array_equal(trace.samples, [5, 6, 7])
    assert "the column without a title counts rows and is left out" in inspect(path).notes


@pytest.mark.parametrize("title", ["frame", "Frames", "index"])
def test_a_column_that_counts_frames_is_no_channel(tmp_path: Path, title: str) -> None:
    path = save(tmp_path, f"time_s,{title},Im (pA)\n0,10,5\n0.1,12,6\n0.2,14,7\n")
    (trace,) = read(path)
    np.testing.assert_array_equal(trace.samples, [5, 6, 7])
    assert f"the column {title!r} counts rows and is left out" in inspect(path).notes
    path = save(tmp_path, f"{title},Im (pA)\n1,5\ninf,6\n3,7\n")
    assert len(read(path, rate_hz=1e4, channel="Im")) == 1  # it is a channel
    path = save(tmp_path, f"{title}\n1\n2\n3\n")
    with pytest.raises(ReadError, match="nothing but times or numbers of rows"):
        read(path, rate_hz=1e4)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    path = save(tmp_path, "time_s\tIm (µA)\n0\t1\n1\t2\n", "a.txt", encoding)
    assert read(path)[0].unit == "µA"


@pytest.mark.parametrize(
    "text",
    [
        "hello\nworld\n",
        "Im\n1\n2\nabc\n",
        "1,2\n3\n",
        "1,2\n3,\n",
        "a,b,c\n1,2\n",
        "\n\n\n",
        "Im\n",
        "# nothing\n",
        "time_s\n0\n1\n",
        "1\n1_000\n",
        "1\n\0\0\n",
    ],
)
def test_other_text_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ReadError, match=r"a\.csv"):
        read(save(tmp_path, text), rate_hz=1e4, unit="pA")


def test_the_line_at_fault_is_named(tmp_path: Path) -> None:
    path = save(tmp_path, "Im\n1\n2\nabc\n4\n")
    with pytest.raises(ReadError, match=r"line 4 reads 'abc'.*write nan"):
        read(path, rate_hz=1e4, unit="pA")


def test_random_bytes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(np.random.default_rng(2).bytes(5000))
    with pytest.raises(ReadError, match="not a table of numbers"):
        read(tmp_path / "a.csv", rate_hz=1e4, unit="pA")


@pytest.mark.parametrize(
    ("title", "name", "unit"),
    [
        ("Im_left_pA", "Im_left", "pA"),
        ("cell 7/dF/F", "cell 7", "dF/F"),
        ("Im [nA]", "Im", "nA"),
        ("a (b) c [mV]", "a (b) c", "mV"),
        ("Im (pA", "Im (pA", None),
        ("pA", "pA", None),
        ("mS_V", "mS", "V"),
    ],
)
def test_units_in_titles(tmp_path: Path, title: str, name: str, unit: str | None) -> None:
    path = save(tmp_path, f"time_s;{title}\n0;1\n0.1;2\n0.2;3\n")
    (channel,) = inspect(path).channels
    assert (channel.name, channel.unit) == (name, unit)


@pytest.mark.parametrize("title", ["_" * 200_000 + "\u00a0", "[" * 200_000, "[ " * 100_000 + "x)"])
def test_a_long_title_is_read_at_once(tmp_path: Path, title: str) -> None:
    path = save(tmp_path, f"time_s;{title}\n0;1\n0.1;2\n0.2;3\n")
    began = time.process_time()
    assert len(inspect(path).channels) == 1
    assert time.process_time() - began < 2

"""The door: which reader, which channels and sweeps, what overrules what."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from abf_files import abf1_bytes, abf2_bytes

from quantal.errors import ReadError, UsageError
from quantal.readers import describe, inspect, read

COUNTS = np.arange(-30, 30, dtype=np.int16)


@pytest.fixture
def cell(tmp_path: Path) -> Path:
    """Five sweeps of two channels, six samples each; the names differ in case only."""
    path = tmp_path / "cell.abf"
    path.write_bytes(
        abf2_bytes(COUNTS, names=("Im", "IM"), units=(b"pA", b"mV"), sweeps=5, lengths=(12,) * 5)
    )
    return path


def test_channel_0_of_all_sweeps_is_the_default(cell: Path) -> None:
    traces = read(cell)
    assert [(t.sweep, t.channel, len(t)) for t in traces] == [(i, "Im", 6) for i in range(5)]
    assert read(str(cell))[0].recording == "cell"


@pytest.mark.parametrize(
    ("channel", "names"),
    [
        (0, ["Im"]),
        (np.int64(1), ["IM"]),
        ("1", ["IM"]),
        ("IM", ["IM"]),
        ([1, "Im", 0], ["IM", "Im"]),
        ("all", ["Im", "IM"]),
        (None, ["Im"]),
    ],
)
def test_channels_by_number_and_name(cell: Path, channel: object, names: list[str]) -> None:
    assert [t.channel for t in read(cell, channel=channel, sweeps=0)] == names  # type: ignore[arg-type]


@pytest.mark.parametrize("channel", [2, -1, "Vm", "7", "im-pA"])
def test_a_wrong_channel_lists_what_there_is(cell: Path, channel: object) -> None:
    with pytest.raises(ReadError, match=r"It has: 0 'Im' \(pA\), 1 'IM' \(mV\).*channel=0"):
        read(cell, channel=channel)  # type: ignore[arg-type]


def test_a_name_that_two_channels_have(cell: Path) -> None:
    with pytest.raises(ReadError, match=r"2 channels named 'im' \(0, 1\).*channel=0"):
        read(cell, channel="im")


@pytest.mark.parametrize(
    ("sweeps", "numbers"),
    [
        ("all", [0, 1, 2, 3, 4]),
        ("0,2-4", [0, 2, 3, 4]),
        (" 3 , 1-2, 2 ", [3, 1, 2]),
        ([4, 0, 4], [4, 0]),
        (range(2), [0, 1]),
        (np.array([1]), [1]),
        (3, [3]),
    ],
)
def test_sweeps_as_text_and_numbers(cell: Path, sweeps: object, numbers: list[int]) -> None:
    traces = read(cell, sweeps=sweeps)  # type: ignore[arg-type]
    assert [t.sweep for t in traces] == numbers
    np.testing.assert_allclose(
        [t.samples[0] for t in traces], [(COUNTS[12 * n]) / 10 + 1 for n in numbers], atol=1e-6
    )


@pytest.mark.parametrize("sweeps", [5, -1, "5", "2-99999999999999", [0, 7]])
def test_a_wrong_sweep_says_how_many_there_are(cell: Path, sweeps: object) -> None:
    with pytest.raises(ReadError, match=r"it has 5, numbered 0 to 4.*sweeps='0-4'"):
        read(cell, sweeps=sweeps)  # type: ignore[arg-type]


@pytest.mark.parametrize("sweeps", ["", "a", "1-", "-1", "3-1", "1;2", "9" * 5000, [], [0.5], None])
def test_sweeps_that_cannot_be_read(cell: Path, sweeps: object) -> None:
    with pytest.raises(UsageError, match="sweep"):
        read(cell, sweeps=sweeps)  # type: ignore[arg-type]


@pytest.mark.parametrize("channel", [[], 1.5, [None]])
def test_channels_that_cannot_be_read(cell: Path, channel: object) -> None:
    with pytest.raises(UsageError, match="channel"):
        read(cell, channel=channel)  # type: ignore[arg-type]


def test_the_user_overrules_the_file(cell: Path) -> None:
    (stated,), (mended,) = (
        read(cell, sweeps=1),
        read(cell, sweeps=1, rate_hz=10_000, scale=-2, unit=" nA "),
    )
    assert (stated.rate_hz, stated.unit) == (20_000.0, "pA")
    assert (mended.rate_hz, mended.unit) == (10_000.0, "nA")
    np.testing.assert_allclose(mended.samples, -2 * stated.samples)


@pytest.mark.parametrize(
    "options",
    [
        {"rate_hz": 0},
        {"rate_hz": -5},
        {"rate_hz": float("nan")},
        {"rate_hz": float("inf")},
        {"scale": 0},
        {"scale": float("nan")},
        {"unit": " "},
        {"dataset": "Im"},
    ],
)
def test_options_outside_what_is_allowed(cell: Path, options: dict[str, object]) -> None:
    (name,) = options
    with pytest.raises(UsageError, match=name):
        read(cell, **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=name):
        inspect(cell, **options)  # type: ignore[arg-type]


def test_first_bytes_count_more_than_the_suffix(tmp_path: Path) -> None:
    for name in ("a.txt", "a.dat", "a", "a.h5", "a.ABF"):
        (tmp_path / name).write_bytes(abf1_bytes(COUNTS))
        assert inspect(tmp_path / name).format == "ABF 1.83"
    with h5py.File(tmp_path / "b.abf", "w") as file:
        file["Im"] = COUNTS
    assert inspect(tmp_path / "b.abf").format == "HDF5"


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.abf", b"", "empty"),
        ("a.npy", b"", "empty"),
        ("a.abf", b"hello world", "not an ABF file"),
        ("a.h5", b"hello world", "cannot be read as HDF5"),
        ("a.npy", b"hello world", "not a plain array"),
        ("a.dat", b"DAT2....", "the HEKA file is damaged or ends early"),
        ("a.dat", b"hello world", "no HEKA PatchMaster file"),
        ("a.nwb", b"\x89HDF\r\n\x1a\n", "cannot be read as HDF5"),
        ("a.jpg", b"\xff\xd8", r"files ending in '\.jpg' are not supported; supported are ABF"),
        ("a", b"12", "without a suffix are not supported"),
    ],
)
def test_wrong_files(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    (tmp_path / name).write_bytes(content)
    for door in (read, inspect):
        with pytest.raises(ReadError, match=why):
            door(tmp_path / name)


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="does not exist"):
        read(tmp_path / "a.abf")
    (tmp_path / "a.abf").mkdir()
    with pytest.raises(ReadError, match=r"is a folder.*quantal batch.*quantal rois"):
        read(tmp_path / "a.abf")


@pytest.mark.skipif(os.name != "posix", reason="needs a named pipe")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.abf")
    with pytest.raises(ReadError, match="not a regular file"):
        read(tmp_path / "a.abf")


def test_what_a_file_holds(cell: Path) -> None:
    info = inspect(cell)
    assert (info.format, info.sweeps, info.sweep_samples) == ("ABF 2.6", 5, (6,) * 5)
    assert (info.rate_hz, info.protocol, info.comment) == (20_000.0, "minis", "a comment")
    assert str(info.recorded) == "2024-02-29 01:00:00.500000"
    values = COUNTS[::2] / 10 + 1
    assert (info.channels[0].low, info.channels[0].high) == pytest.approx(
        tuple(np.percentile(values, [1, 99])), abs=1e-6
    )
    assert (info.channels[1].name, info.channels[1].unit) == ("IM", "mV")


def test_the_range_leaves_out_what_is_not_finite(tmp_path: Path) -> None:
    (tmp_path / "a.abf").write_bytes(abf2_bytes(np.array([np.nan, 2, np.inf, 2], np.float32)))
    (channel,) = inspect(tmp_path / "a.abf").channels
    assert (channel.low, channel.high) == (2.0, 2.0)
    assert inspect(tmp_path / "a.abf", scale=-3).channels[0].low == -6.0


def test_as_json(tmp_path: Path, cell: Path) -> None:
    known = json.loads(json.dumps(inspect(cell).to_dict(), allow_nan=False))
    assert known["recorded"] == "2024-02-29T01:00:00.500000"
    assert known["sweep_s"] == [0.0003] * 5
    np.save(tmp_path / "a.npy", np.full(9, np.nan))
    unknown = json.loads(json.dumps(inspect(tmp_path / "a.npy").to_dict(), allow_nan=False))
    assert unknown["rate_hz"] is unknown["sweep_s"] is unknown["recorded"] is None
    assert unknown["channels"][0]["percentile_1"] is None


def test_as_text(tmp_path: Path, cell: Path) -> None:
    assert describe(inspect(cell)).splitlines() == [
        str(cell),
        "  format    ABF 2.6",
        "  recorded  2024-02-29 01:00:00",
        "  protocol  minis",
        "  comment   a comment",
        "  rate      20000 Hz",
        "  sweeps    5 of 0.0003 s (6 samples) each",
        "  channels      name  unit  1st to 99th percentile",
        "             0  Im    pA    -1.94 to 3.74",
        "             1  IM    mV    -1.84 to 3.84",
    ]
    np.save(tmp_path / "a.npy", np.full(9, np.nan))
    text = str(inspect(tmp_path / "a.npy"))
    assert "not stated: give --rate-hz" in text
    assert "no finite sample" in text
    assert "unit not stated: give --unit" in text


def test_text_from_a_file_cannot_steer_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "a.abf").write_bytes(abf1_bytes(COUNTS, names=("I\x1b[2Jm",)))
    assert "\x1b" not in describe(inspect(tmp_path / "a.abf"))


def test_sweeps_of_different_length_as_text(tmp_path: Path) -> None:
    (tmp_path / "a.abf").write_bytes(abf1_bytes(COUNTS, sweeps=3, lengths=(10, 20, 30)))
    lines = describe(inspect(tmp_path / "a.abf")).splitlines()
    assert "  sweeps    3 of different length" in lines
    assert "             2  0.0015 s (30 samples)" in lines


def test_format_libraries_are_imported_only_when_needed() -> None:
    code = (
        "import sys, quantal.readers\n"
        "print([m for m in ('pyabf', 'h5py', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"

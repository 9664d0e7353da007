"""What neo reads: segments are sweeps, streams are data sets, and its failures are one error."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from quantal.errors import ReadError
from quantal.readers import inspect, read

VALUES = np.arange(-100, 100, dtype="<i2")


def brain_vision(folder: Path) -> Path:
    """A recording of two channels at 2,500 Hz in a format that has no room of its own."""
    (folder / "cell.vhdr").write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n\n[Common Infos]\nCodepage=UTF-8\n"
        "DataFile=cell.eeg\nMarkerFile=cell.vmrk\nDataFormat=BINARY\nDataOrientation=MULTIPLEXED\n"
        "NumberOfChannels=2\nSamplingInterval=400\n\n[Binary Infos]\nBinaryFormat=INT_16\n\n"
        "[Channel Infos]\nCh1=Im,,0.5,pA\nCh2=Vm,,0.1,mV\n",
        encoding="utf-8",
    )
    (folder / "cell.vmrk").write_text(
        "Brain Vision Data Exchange Marker File, Version 1.0\n\n[Common Infos]\nCodepage=UTF-8\n"
        "DataFile=cell.eeg\n\n[Marker Infos]\nMk1=New Segment,,1,1,0,20200102030405000000\n",
        encoding="utf-8",
    )
    np.column_stack([VALUES, VALUES[::-1]]).tofile(folder / "cell.eeg")
    return folder / "cell.vhdr"


def test_other_formats_come_through_neo(tmp_path: Path) -> None:
    pytest.importorskip("neo", reason='needs neo: pip install "neo>=0.14"')
    path = brain_vision(tmp_path)
    current, voltage = read(path, channel="all")
    np.testing.assert_allclose(current.samples, VALUES * 0.5)
    np.testing.assert_allclose(voltage.samples, VALUES[::-1] * 0.1, rtol=1e-6)
    assert [(t.channel, t.unit, t.rate_hz) for t in (current, voltage)] == [
        ("Im", "pA", 2500.0),
        ("Vm", "mV", 2500.0),
    ]
    assert inspect(path).format == "BrainVision, through neo"
    with pytest.raises(ReadError, match="no data set '7'"):
        read(path, dataset="7")


def win_wcp(folder: Path) -> Path:
    """Three records of two channels at 20 kHz, whose interval is stored in single precision."""
    lines = ["VER=9", "NC=2", "NR=3", "NBH=2", "NBA=2", "NBD=4", "ADCMAX=32767", "DT=0.00005"]
    lines += ["RTIME=02/01/2020 03:04:05"]
    for c, (name, unit) in enumerate((("Im", "pA"), ("Vm", "mV"))):
        lines += [f"YN{c}={name}", f"YU{c}={unit}", f"YG{c}=0.5", f"YZ{c}=0", f"YO{c}={c}"]
    stored = "\r\n".join([*lines, ""]).encode().ljust(1024, b"\0")
    for record in range(3):
        analysis = b"ACCEPTEDTEST" + struct.pack("<5f", 1.0, record, 5e-5, 10.0, 10.0)
        counts = np.column_stack([np.arange(512) + record, np.full(512, record)])
        stored += analysis.ljust(1024, b"\0") + counts.astype("<i2").tobytes()
    (folder / "cell.wcp").write_bytes(stored)
    return folder / "cell.wcp"


def test_segments_are_sweeps_and_rates_are_those_meant(tmp_path: Path) -> None:
    pytest.importorskip("neo", reason='needs neo: pip install "neo>=0.14"')
    path = win_wcp(tmp_path)
    traces = read(path)
    assert [(len(t), t.unit, t.rate_hz) for t in traces] == [(512, "pA", 20_000.0)] * 3
    step = 10 / 32767 / 0.5
    for n, trace in enumerate(traces):
        np.testing.assert_allclose(trace.samples, (np.arange(512) + n) * step, rtol=1e-5)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(ReadError, match="cannot be read through neo"):
        read(path)


def test_what_neo_stumbles_over_is_one_error(tmp_path: Path) -> None:
    pytest.importorskip("neo", reason='needs neo: pip install "neo>=0.14"')
    path = brain_vision(tmp_path)
    path.write_text(path.read_text().replace("INT_16", "INT_77"))
    with pytest.raises(ReadError, match=r"cannot be read through neo.*BrainVisionRawIO"):
        read(path)


def test_without_neo_the_error_says_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "neo", None)
    with pytest.raises(ReadError, match=r"not supported.*python -m pip install .neo"):
        read(brain_vision(tmp_path))

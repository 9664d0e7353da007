"""Small files of formats that are read through neo."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

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

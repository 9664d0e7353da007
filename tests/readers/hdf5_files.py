"""Small HDF5 files as NWB and WaveSurfer lay them out."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

COUNTS = np.arange(-60, 60, dtype=np.int16)


def nwb_bytes(folder: Path) -> bytes:
    """An NWB file of three sweeps in voltage clamp, made in a folder."""
    with h5py.File(folder / "made.nwb", "w") as file:
        file.attrs["nwb_version"] = "2.4.0"
        for n in range(3):
            group = file.create_group(f"acquisition/sweep_{n}")
            group.attrs["neurodata_type"] = "VoltageClampSeries"
            group["data"] = COUNTS
            group["data"].attrs.update({"conversion": 1e-13, "unit": "amperes"})
            group["starting_time"] = float(n)
            group["starting_time"].attrs["rate"] = 2e4
    return (folder / "made.nwb").read_bytes()


def wavesurfer_bytes(folder: Path) -> bytes:
    """A WaveSurfer file of one input and three sweeps, made in a folder."""
    with h5py.File(folder / "made.h5", "w") as file:
        file["header/VersionString"] = np.array([b"0.97"])
        file["header/AIChannelNames"] = np.array([b"Im"])
        file["header/AIChannelUnits"] = np.array([b"pA"])
        file["header/AIChannelScales"] = [[1.0]]
        file["header/IsAIChannelActive"] = [[1.0]]
        file["header/AIScalingCoefficients"] = [[0.0, 3e-4]]
        file["header/AcquisitionSampleRate"] = [[2e4]]
        for n in range(3):
            file[f"sweep_{n + 1:04d}/analogScans"] = COUNTS[None]
    return (folder / "made.h5").read_bytes()

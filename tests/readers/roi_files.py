"""Small files and folders of ROIs, as the programs that make them write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

MATRIX = np.random.default_rng(0).normal(100, 5, (4, 30)).astype(np.float32)


def suite2p_plane(folder: Path) -> Path:
    """A folder of one plane: four ROIs, of which three are cells."""
    folder.mkdir(parents=True)
    np.save(folder / "F.npy", MATRIX)
    np.save(folder / "Fneu.npy", MATRIX / 2)
    np.save(folder / "iscell.npy", np.array([[1, 0.9], [0, 0.1], [1, 0.8], [1, 0.7]]))
    return folder


def caiman(path: Path, **estimates: Any) -> Path:
    """A file as CaImAn saves it: what was not computed is the word NoneType."""
    from scipy.sparse import csc_matrix

    footprints = np.zeros((4, 6, 5))  # of 6 x 5 pixels
    for roi, (y, x) in enumerate([(1, 2), (4, 0), (5, 4), (0, 3)]):
        footprints[roi, y, x] = 2.0
    a = csc_matrix(np.stack([one.ravel(order="F") for one in footprints], axis=1))
    with h5py.File(path, "w") as file:
        for name, value in {"C": MATRIX, "S": MATRIX * 0, **estimates}.items():
            file[f"estimates/{name}"] = "NoneType" if value is None else value
        for name in ("data", "indices", "indptr", "shape"):
            file[f"estimates/A/{name}"] = getattr(a, name)
        file["params/data/fr"] = 30
        file["params/data/dims"] = (6, 5)
    return path


def nwb(path: Path, *, masks: str = "pixel_mask", upright: bool = True, **series: str) -> Path:
    """A file by the NWB standard: series (name -> container's type) of three of four ROIs."""
    with h5py.File(path, "w") as file:
        file.attrs["nwb_version"] = "2.6.0"
        table = file.create_group("processing/ophys/ImageSegmentation/Plane")
        table.attrs["neurodata_type"] = "PlaneSegmentation"
        table["id"] = [10, 11, 12, 13]
        if masks == "image_mask":
            images = np.zeros((4, 5, 6))
            images[np.arange(4), [0, 1, 2, 3], [5, 4, 3, 2]] = 1
            table["image_mask"] = images
        else:
            kind = [("x", "u4"), ("y", "u4"), ("weight", "f4")]
            pixels = [(0, 5, 1), (1, 3, 1), (1, 5, 1), (2, 3, 0.5), (3, 2, 1)]
            table["pixel_mask"] = np.array(pixels, kind)
            table["pixel_mask_index"] = np.array([1, 3, 4, 5], "u1")
        for number, (name, container) in enumerate((series or {"Trace": "Fluorescence"}).items()):
            group = file.create_group(f"processing/ophys/{container}")
            group.attrs["neurodata_type"] = container
            one = group.create_group(name)
            one.attrs["neurodata_type"] = "RoiResponseSeries"
            values = (number + 1) * MATRIX[:3]
            one["data"] = values.T if upright else values
            one["data"].attrs.update({"conversion": 0.5, "unit": "n.a."})
            one["rois"] = [3, 0, 1]
            one["rois"].attrs["table"] = table.ref
            one["starting_time"] = 7.5
            one["starting_time"].attrs["rate"] = 29.97
    return path

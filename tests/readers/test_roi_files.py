"""Files and folders of ROIs, as the programs that make them write them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from roi_files import MATRIX, caiman, nwb, suite2p_plane

from quantal.errors import ReadError, UsageError
from quantal.readers.rois import read_rois

# suite2p -----------------------------------------------------------------------------------------


@pytest.fixture
def suite2p(tmp_path: Path) -> Path:
    folder = suite2p_plane(tmp_path / "session" / "suite2p" / "plane0")
    for name in ("ops.npy", "stat.npy"):  # a pickle that must not be opened
        (folder / name).write_bytes(pickle.dumps(Bomb()))
    return folder


class Bomb:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return pytest.fail, ("a pickle was opened",)


def test_suite2p(suite2p: Path) -> None:
    rois = read_rois(suite2p, rate_hz=100)
    np.testing.assert_allclose(rois.samples, (MATRIX - 0.7 * (MATRIX / 2))[[0, 2, 3]], rtol=1e-6)
    assert rois.number.tolist() == [0, 2, 3]
    assert (rois.kind, rois.rate_hz, rois.recording) == ("raw", 100.0, "session_plane0")
    assert "3 of 4 ROIs are cells" in rois.notes[0]
    assert "0.7 of the neuropil" in rois.notes[1]


@pytest.mark.parametrize("up", [0, 1, 2])
def test_the_folders_above_a_plane_will_do(suite2p: Path, up: int) -> None:
    folder = [suite2p, *suite2p.parents][up]
    rois = read_rois(folder, rate_hz=100, cells="all", neuropil=0)
    np.testing.assert_array_equal(rois.samples, MATRIX)


@pytest.mark.parametrize(
    ("named", "name"),
    [
        ("2024.05.01", "2024.05.01"),
        ("2024.05.01/suite2p", "2024.05.01"),
        ("2024.05.01/suite2p/plane0", "2024.05.01_plane0"),
        ("2024.05.01/suite2p/plane0/F.npy", "2024.05.01_plane0"),
        ("2024.05.02", "2024.05.02"),
        ("own", "own"),
        ("own/F.npy", "own"),
    ],
)
def test_a_session_is_called_as_its_folder(tmp_path: Path, named: str, name: str) -> None:
    for folder in ("2024.05.01/suite2p/plane0", "2024.05.02/suite2p/plane0", "own"):
        suite2p_plane(tmp_path / folder)
    rois = read_rois(tmp_path / named, kind="raw", rate_hz=100, rois_in="rows")
    assert rois.recording == name


def test_what_overrules_a_file_is_noted(suite2p: Path, tmp_path: Path) -> None:
    rois = read_rois(suite2p, rate_hz=100, kind="dff")
    assert rois.notes[-1] == "the file says raw; dff was taken"
    path = tmp_path / "traces.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("traces", data=MATRIX).attrs["rate_hz"] = 30.0
    rois = read_rois(path, rate_hz=100, kind="raw", rois_in="rows")
    assert rois.notes == ("the file says 30 Hz; 100 Hz was taken",)
    assert read_rois(path, rate_hz=30, kind="raw", rois_in="rows").notes == ()


def test_one_of_several_planes_must_be_named(suite2p: Path) -> None:
    other = suite2p.parent / "plane1"
    other.mkdir()
    np.save(other / "F.npy", MATRIX)
    with pytest.raises(ReadError, match=r"several planes: plane0, plane1. Name one"):
        read_rois(suite2p.parent, rate_hz=100)
    assert len(read_rois(other, rate_hz=100)) == 4  # without neuropil and choice


def test_suite2p_says_what_it_lacks(suite2p: Path, tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"ops.npy, a pickle.*--rate-hz 100"):
        read_rois(suite2p)
    np.save(suite2p / "Fneu.npy", MATRIX[:2])
    with pytest.raises(ReadError, match=r"not from the same run.*--neuropil 0"):
        read_rois(suite2p, rate_hz=100)
    np.save(suite2p / "iscell.npy", np.zeros((4, 2)))
    with pytest.raises(ReadError, match=r"none of 4 ROIs a cell.*--cells all"):
        read_rois(suite2p, rate_hz=100)
    np.save(suite2p / "iscell.npy", np.ones((3, 2)))
    with pytest.raises(ReadError, match="there are 4 ROIs"):
        read_rois(suite2p, rate_hz=100)
    (suite2p / "F.npy").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ReadError, match=r"not a plain array"):
        read_rois(suite2p, rate_hz=100)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ReadError, match=r"folder without F.npy"):
        read_rois(empty, rate_hz=100)


# CaImAn ------------------------------------------------------------------------------------------


def test_caiman(tmp_path: Path) -> None:
    path = caiman(tmp_path / "a.hdf5", F_dff=MATRIX / 100, YrA=MATRIX, idx_components=[3, 1])
    rois = read_rois(path)
    np.testing.assert_allclose(rois.samples, MATRIX[[1, 3]] / 100)
    assert (rois.kind, rois.rate_hz, rois.number.tolist()) == ("dff", 30.0, [1, 3])
    assert rois.position is not None
    np.testing.assert_array_equal(rois.position, [[0, 4], [3, 0]])
    assert len(read_rois(path, cells="all")) == 4


def test_traces_of_caiman_without_a_unit_need_a_word(tmp_path: Path) -> None:
    path = caiman(tmp_path / "a.hdf5", F_dff=None, YrA=MATRIX, idx_components=None)
    with pytest.raises(ReadError, match=r"no F_dff.*--dataset C\+YrA"):
        read_rois(path)
    with pytest.raises(ReadError, match=r"C of CaImAn may be in any unit.*--input raw"):
        read_rois(path, dataset="C")
    rois = read_rois(path, dataset="estimates/C", kind="zscored", rate_hz=50)
    np.testing.assert_array_equal(rois.samples, MATRIX)
    assert (rois.kind, rois.rate_hz) == ("zscored", 50.0)
    both = read_rois(path, dataset="C+YrA", kind="raw")
    np.testing.assert_allclose(both.samples, 2 * MATRIX)
    with pytest.raises(ReadError, match="S is deconvolved"):
        read_rois(path, dataset="S", kind="raw")
    with pytest.raises(ReadError, match=r"no traces 'D'. It has: C, C\+YrA"):
        read_rois(path, dataset="D")


# NWB ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("masks", ["pixel_mask", "image_mask"])
def test_nwb_is_time_by_roi(tmp_path: Path, masks: str) -> None:
    rois = read_rois(nwb(tmp_path / "a.nwb", masks=masks), kind="raw")
    np.testing.assert_allclose(rois.samples, MATRIX[:3] / 2)
    assert (rois.rate_hz, rois.number.tolist(), rois.notes) == (29.97, [13, 10, 11], ())
    assert rois.position is not None
    np.testing.assert_allclose(rois.position, [[3, 2], [0, 5], [1, 4]])


def test_nwb_the_wrong_way_round_is_turned_and_said(tmp_path: Path) -> None:
    rois = read_rois(nwb(tmp_path / "a.nwb", upright=False), kind="raw")
    np.testing.assert_allclose(rois.samples, MATRIX[:3] / 2)
    assert "against the standard" in rois.notes[0]


def test_nwb_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    path = nwb(tmp_path / "a.nwb")
    with h5py.File(path, "a") as file:
        series = file["processing/ophys/Fluorescence/Trace"]
        table = series["rois"].attrs["table"]
        del series["rois"]
        series["rois"] = [0, 1]
        series["rois"].attrs["table"] = table
    with pytest.raises(ReadError, match=r"shape \(30, 3\), but 2 ROIs"):
        read_rois(path, kind="raw")


def test_one_of_several_series_must_be_named(tmp_path: Path) -> None:
    path = nwb(tmp_path / "a.nwb", Trace="Fluorescence", Relative="DfOverF")
    with pytest.raises(ReadError, match=r"2 series.*--dataset processing/ophys/"):
        read_rois(path)
    assert read_rois(path, dataset="DfOverF/Relative").kind == "dff"
    np.testing.assert_allclose(read_rois(path, dataset="Relative").samples, MATRIX[:3])
    with pytest.raises(ReadError, match=r"Trace lies in no DfOverF.*--input raw"):
        read_rois(path, dataset="Trace")
    with pytest.raises(ReadError, match=r"no one series 'Other'"):
        read_rois(path, dataset="Other")


@pytest.mark.parametrize("jitter", [0.0, 0.2])
def test_nwb_with_times(tmp_path: Path, jitter: float) -> None:
    path = nwb(tmp_path / "a.nwb")
    times = 3 + np.arange(30) / 50
    times[5] += jitter
    with h5py.File(path, "a") as file:
        series = file["processing/ophys/Fluorescence/Trace"]
        del series["starting_time"]
        series["timestamps"] = times
    if jitter:
        with pytest.raises(ReadError, match=r"not evenly spaced.*--rate-hz"):
            read_rois(path, kind="raw")
    else:
        assert read_rois(path, kind="raw").rate_hz == pytest.approx(50)


def test_nwb_without_rois(tmp_path: Path) -> None:
    path = tmp_path / "a.nwb"
    with h5py.File(path, "w") as file:
        file.attrs["nwb_version"] = "2.6.0"
    with pytest.raises(ReadError, match="no RoiResponseSeries"):
        read_rois(path)


def test_nwb_agrees_with_its_own_library(tmp_path: Path) -> None:
    pynwb = pytest.importorskip("pynwb", reason="needs pynwb, which reads NWB independently")
    from datetime import UTC, datetime

    file = pynwb.NWBFile(
        session_description="test", identifier="id", session_start_time=datetime.now(UTC)
    )
    device = file.create_device(name="scope")
    channel = pynwb.ophys.OpticalChannel(
        name="green", description="emission", emission_lambda=510.0
    )
    plane = file.create_imaging_plane(
        name="plane",
        optical_channel=channel,
        description="a plane",
        device=device,
        excitation_lambda=920.0,
        indicator="iGluSnFR",
        location="slice",
    )
    module = file.create_processing_module(name="ophys", description="imaging")
    segmentation, relative = pynwb.ophys.ImageSegmentation(), pynwb.ophys.DfOverF()
    module.add(segmentation)
    module.add(relative)
    table = segmentation.create_plane_segmentation(
        description="cells", imaging_plane=plane, name="cells"
    )
    for row in range(4):
        table.add_roi(pixel_mask=[(row, 9 - row, 1.0), (row + 2, 9 - row, 1.0)])
    region = table.create_roi_table_region(description="some", region=[0, 2, 3])
    relative.create_roi_response_series(
        name="dff", data=MATRIX[:3].T, unit="n.a.", rois=region, rate=80.0
    )
    path = tmp_path / "a.nwb"
    with pynwb.NWBHDF5IO(path, mode="w") as stream:
        stream.write(file)
    rois = read_rois(path)
    np.testing.assert_array_equal(rois.samples, MATRIX[:3])
    assert (rois.kind, rois.rate_hz, rois.number.tolist()) == ("dff", 80.0, [0, 2, 3])
    np.testing.assert_allclose(rois.position, [[1, 9], [3, 7], [4, 6]])  # type: ignore[arg-type]


# Matrices ----------------------------------------------------------------------------------------


def save_hdf5(path: Path, values: Any) -> None:
    with h5py.File(path, "w") as file:
        file["traces"] = values


WRITERS: dict[str, Callable[[Path, Any], None]] = {
    "a.npy": np.save,
    "a.csv": lambda path, values: np.savetxt(path, values, delimiter=","),
    "a.h5": save_hdf5,
}


@pytest.mark.parametrize("name", WRITERS)
def test_which_axis_is_time_must_be_said(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path, MATRIX)
    with pytest.raises(ReadError, match=r"is 4 x 30 and does not say.*--rois-in rows"):
        read_rois(path, kind="dff", rate_hz=100)
    rois = read_rois(path, kind="dff", rate_hz=100, rois_in="rows")
    np.testing.assert_allclose(rois.samples, MATRIX, rtol=1e-6)
    WRITERS[name](path, MATRIX.T)
    rois = read_rois(path, kind="dff", rate_hz=100, rois_in="columns")
    np.testing.assert_allclose(rois.samples, MATRIX, rtol=1e-6)


def test_a_time_column_says_it_all(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    table = np.column_stack([np.arange(30) / 60, MATRIX.T])
    np.savetxt(path, table, delimiter=",", header="time_s,a,b,c,d", comments="")
    rois = read_rois(path, kind="raw")
    np.testing.assert_allclose(rois.samples, MATRIX, rtol=1e-6)
    assert rois.rate_hz == pytest.approx(60)
    with pytest.raises(ReadError, match="so its ROIs are columns"):
        read_rois(path, kind="raw", rois_in="rows")


def test_a_column_of_frames_is_no_roi(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for title, frames in (("", np.arange(30)), ("frame", np.arange(1, 31))):
        table, header = np.column_stack([frames, MATRIX.T]), f"{title},a,b,c,d"
        np.savetxt(path, table, delimiter=",", header=header, comments="")
        rois = read_rois(path, kind="raw", rate_hz=60, rois_in="columns")
        np.testing.assert_allclose(rois.samples, MATRIX, rtol=1e-6)
        assert "counts rows and is left out" in rois.notes[0]
    table[9:, 0] += 1  # a frame is missing
    np.savetxt(path, table, delimiter=",", header="frame,a,b,c,d", comments="")
    with pytest.raises(ReadError, match="'frame' does not count evenly"):
        read_rois(path, kind="raw", rate_hz=60, rois_in="columns")


def test_a_single_trace_is_one_roi(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    for values in (MATRIX[0], MATRIX[:1], MATRIX[:1].T):
        np.save(path, values)
        rois = read_rois(path, kind="dff", rate_hz=100)
        np.testing.assert_array_equal(rois.samples, MATRIX[:1])


def test_the_rate_of_an_hdf5_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["traces"] = MATRIX
        file["traces"].attrs["frame_rate_hz"] = 123.5
        file["other"] = MATRIX
    rois = read_rois(path, kind="dff", rois_in="rows", dataset="traces")
    assert rois.rate_hz == 123.5
    with pytest.raises(ReadError, match=r"2 data sets"):
        read_rois(path, kind="dff", rois_in="rows")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "df/f"}, "kind must be one of raw, dff, zscored"),
        ({"rate_hz": -1}, "rate_hz must be a positive"),
        ({"rois_in": "0"}, "rois_in must be one of rows, columns"),
        ({"neuropil": 1.5}, "neuropil must be 0 to 1"),
        ({"cells": "some"}, "cells must be one of accepted, all"),
    ],
)
def test_options_out_of_range_are_refused(
    tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        read_rois(tmp_path, **options)


def test_what_is_no_file_of_rois(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="does not exist"):
        read_rois(tmp_path / "none.npy")
    (tmp_path / "a.mat").write_bytes(b"MATLAB 5.0 MAT-file")
    with pytest.raises(ReadError, match=r"'.mat' are not known. Read are suite2p folders"):
        read_rois(tmp_path / "a.mat")
    (tmp_path / "b.h5").write_bytes(b"\x89HDF\r\n\x1a\n and no more")
    with pytest.raises(ReadError, match="cannot be read as HDF5"):
        read_rois(tmp_path / "b.h5")
    np.save(tmp_path / "c.npy", np.zeros((2, 3, 4)))
    with pytest.raises(ReadError, match=r"shape \(2, 3, 4\)"):
        read_rois(tmp_path / "c.npy", rois_in="rows")


# Stacks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("imagej", [False, True])
def test_a_stack_with_labels(tmp_path: Path, imagej: bool) -> None:
    tifffile = pytest.importorskip("tifffile", reason="needs the imaging extra")
    labels = np.zeros((8, 9), np.uint8)
    labels[1:3, 2:5], labels[6, 7] = 5, 9
    movie = np.random.default_rng(1).integers(0, 4_000, (12, 8, 9)).astype(np.uint16)
    metadata = {"axes": "TYX", "finterval": 0.02} if imagej else {"axes": "TYX"}
    tifffile.imwrite(tmp_path / "a.tif", movie, imagej=imagej, metadata=metadata)
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    given = {"rate_hz": None if imagej else 50.0}
    rois = read_rois(tmp_path / "a.tif", labels=tmp_path / "labels.tif", **given)  # type: ignore[arg-type]
    expected = [movie[:, 1:3, 2:5].mean(axis=(1, 2)), movie[:, 6, 7]]
    np.testing.assert_allclose(rois.samples, expected, rtol=1e-6)
    assert (rois.number.tolist(), rois.kind, rois.rate_hz) == ([5, 9], "raw", 50.0)
    np.testing.assert_allclose(rois.position, [[3, 1.5], [7, 6]])  # type: ignore[arg-type]
    with pytest.raises(ReadError, match=r"--labels labels.tif"):
        read_rois(tmp_path / "a.tif", rate_hz=50)
    np.save(tmp_path / "small.npy", labels[:4])
    with pytest.raises(ReadError, match=r"size of the label image"):
        read_rois(tmp_path / "a.tif", labels=tmp_path / "small.npy", rate_hz=50)
    np.save(tmp_path / "blank.npy", labels * 0)
    with pytest.raises(ReadError, match="no label but 0"):
        read_rois(tmp_path / "a.tif", labels=tmp_path / "blank.npy", rate_hz=50)
    np.save(tmp_path / "real.npy", labels / 2)
    with pytest.raises(ReadError, match="whole numbers"):
        read_rois(tmp_path / "a.tif", labels=tmp_path / "real.npy", rate_hz=50)


@pytest.mark.parametrize("imagej", [False, True])
@pytest.mark.parametrize(
    ("axes", "said"), [("ZYX", r"slices in depth \(Z\)"), ("CYX", r"channels \(C\)")]
)
def test_depth_and_colour_are_not_taken_for_time(
    tmp_path: Path, axes: str, said: str, imagej: bool
) -> None:
    tifffile = pytest.importorskip("tifffile", reason="needs the imaging extra")
    movie, path = np.ones((5, 8, 9), np.uint16), tmp_path / "a.tif"
    np.save(tmp_path / "labels.npy", np.ones((8, 9), np.uint8))
    given = {"labels": tmp_path / "labels.npy", "rate_hz": 50}
    tifffile.imwrite(path, movie, imagej=imagej, ome=not imagej, metadata={"axes": axes})
    with pytest.raises(ReadError, match=said):
        read_rois(path, **given)
    tifffile.imwrite(path, movie)  # it does not say
    assert read_rois(path, **given).samples.shape == (1, 5)


def test_a_file_that_is_no_tiff(tmp_path: Path) -> None:
    pytest.importorskip("tifffile", reason="needs the imaging extra")
    np.save(tmp_path / "labels.npy", np.ones((2, 2), int))
    (tmp_path / "a.tif").write_bytes(b"not a picture")
    with pytest.raises(ReadError, match="cannot be read as TIFF"):
        read_rois(tmp_path / "a.tif", labels=tmp_path / "labels.npy", rate_hz=50)


# Damage ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accepted", [[-1, 2], [2, 4], [1, 1], [1.0, 2.0], [[1], [2]], [b"one"]])
def test_components_that_are_not_there_are_not_others(tmp_path: Path, accepted: list[Any]) -> None:
    path = caiman(tmp_path / "a.hdf5", F_dff=MATRIX, idx_components=accepted)
    with pytest.raises(ReadError, match=r"idx_components names components.*--cells all"):
        read_rois(path)


@pytest.mark.parametrize("accepted", [np.empty(0, np.int64), np.empty(0)])
def test_where_no_component_is_accepted_not_all_are_taken(tmp_path: Path, accepted: Any) -> None:
    path = caiman(tmp_path / "a.hdf5", F_dff=MATRIX, idx_components=accepted)
    with pytest.raises(ReadError, match=r"none of 4 components are accepted.*--cells all"):
        read_rois(path)
    assert len(read_rois(path, cells="all")) == 4


def test_traces_and_noise_of_different_shape_are_not_added(tmp_path: Path) -> None:
    path = caiman(tmp_path / "a.hdf5", YrA=MATRIX[:1], idx_components=None)
    with pytest.raises(ReadError, match=r"C is \(4, 30\) and YrA \(1, 30\)"):
        read_rois(path, kind="raw", dataset="C+YrA")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("estimates/A/indptr", [0, 2**40, 2**40, 2**40, 2**40]),
        ("estimates/A/indptr", [0, 3, 2, 4, 4]),
        ("estimates/A/indptr", [0.0, 1.0, 2.0, 3.0, 4.0]),
        ("params/data/dims", [0, 5]),
        ("params/data/dims", [-6, 5]),
    ],
)
def test_footprints_that_contradict_themselves_give_no_positions(
    tmp_path: Path, name: str, value: list[int]
) -> None:
    path = caiman(tmp_path / "a.hdf5", F_dff=MATRIX, idx_components=None)
    with h5py.File(path, "a") as file:
        del file[name]
        file[name] = value
    rois = read_rois(path)
    np.testing.assert_array_equal(rois.samples, MATRIX)
    assert rois.position is None


def test_a_matrix_that_was_never_written(tmp_path: Path) -> None:
    path = caiman(tmp_path / "a.hdf5", F_dff=None, idx_components=None)
    with h5py.File(path, "a") as file:
        del file["estimates/F_dff"]
        file.create_dataset("estimates/F_dff", (2**20, 2**20), "f4", chunks=(64, 64))
    with pytest.raises(ReadError, match="declares 4,398,046,511,104 bytes"):
        read_rois(path)


@pytest.mark.parametrize("stops", [[1, 3, 4, 2**31], [3, 1, 4, 5], [1, 3, 4, 4]])
def test_nwb_masks_that_contradict_themselves_give_no_positions(
    tmp_path: Path, stops: list[int]
) -> None:
    path = nwb(tmp_path / "a.nwb")
    with h5py.File(path, "a") as file:
        table = file["processing/ophys/ImageSegmentation/Plane"]
        del table["pixel_mask_index"]
        table["pixel_mask_index"] = np.array(stops, "u8")
    rois = read_rois(path, kind="raw")
    assert rois.number.tolist() == [13, 10, 11]
    assert rois.position is None


@pytest.mark.parametrize("ids", [[10, 10, 11, 12], [-1, 10, 11, 12]])
def test_nwb_numbers_that_are_not_the_rois_own_are_told(tmp_path: Path, ids: list[int]) -> None:
    path = nwb(tmp_path / "a.nwb")
    with h5py.File(path, "a") as file:
        table = file["processing/ophys/ImageSegmentation/Plane"]
        assert len(table["id"]) == len(ids)
        table["id"][:] = ids
    rois = read_rois(path, kind="raw")
    assert rois.number.tolist() == [0, 1, 2]
    assert "counted from 0" in rois.notes[-1]


@pytest.mark.parametrize("region", [[-1, 0, 1], [0, 1, 4]])
def test_nwb_rois_that_no_table_holds_are_not_others(tmp_path: Path, region: list[int]) -> None:
    path = nwb(tmp_path / "a.nwb")
    with h5py.File(path, "a") as file:
        series = file["processing/ophys/Fluorescence/Trace"]
        table = series["rois"].attrs["table"]
        del series["rois"]
        series["rois"] = region
        series["rois"].attrs["table"] = table
    with pytest.raises(ReadError, match="names ROIs that no table holds"):
        read_rois(path, kind="raw")


@pytest.mark.parametrize("cells", [np.zeros((4, 0)), np.zeros(4, "c8"), np.zeros(4, "S1")])
def test_a_choice_of_cells_that_is_none(suite2p: Path, cells: np.ndarray) -> None:
    np.save(suite2p / "iscell.npy", cells)
    with pytest.raises(ReadError, match=r"there are 4 ROIs.*--cells all"):
        read_rois(suite2p, rate_hz=100)


@pytest.mark.parametrize("first", [[1.0, np.nan, 1.0, 0.0], [0.9, 0.1, 0.8, 0.7], [1, 2, 0, 1]])
def test_what_is_neither_a_cell_nor_none_is_refused(suite2p: Path, first: list[float]) -> None:
    for cells in (np.array(first), np.column_stack([first, np.ones(4)])):
        np.save(suite2p / "iscell.npy", cells)
        with pytest.raises(ReadError, match=r"must hold 1 for each cell and 0.*--cells all"):
            read_rois(suite2p, rate_hz=100)


def test_numbers_beyond_single_precision_count_as_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.array([[1.0, 1e300, 3.0]]))
    (samples,) = read_rois(path, kind="dff", rate_hz=100).samples
    assert np.isfinite(samples).tolist() == [True, False, True]


def test_a_picture_that_declares_more_than_its_file_holds(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile", reason="needs the imaging extra")
    np.save(tmp_path / "labels.npy", np.ones((2, 3), int))
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((4, 2, 3), np.uint16))
    stored = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):  # the tags are most of so small a file
        at = int(rng.integers(0, len(stored) - 4))
        put = [b"\xff\xff\xff\x7f", b"\0" * 4, b"\xff" * 4][rng.integers(3)]
        path.write_bytes(stored[:at] + put + stored[at + 4 :])
        for given in ({"labels": tmp_path / "labels.npy"}, {"labels": path}):
            with suppress(ReadError):
                read_rois(path, rate_hz=50, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("pages", [1, 3, 200])
def test_pages_that_run_in_a_circle_are_not_followed_for_ever(tmp_path: Path, pages: int) -> None:
    tifffile = pytest.importorskip("tifffile", reason="needs the imaging extra")
    np.save(tmp_path / "labels.npy", np.ones((2, 3), int))
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for _ in range(pages):
            writer.write(np.zeros((2, 3), np.uint16), contiguous=False)
    with tifffile.TiffFile(path) as tiff:
        first, last = tiff.pages[0].offset, tiff.pages[pages - 1].offset
    stored = bytearray(path.read_bytes())
    tags = int.from_bytes(stored[last : last + 2], "little")
    stored[last + 2 + 12 * tags : last + 6 + 12 * tags] = first.to_bytes(4, "little")
    path.write_bytes(stored)
    with pytest.raises(ReadError, match="run in a circle"):
        read_rois(path, rate_hz=50, labels=tmp_path / "labels.npy")

"""What is fuzzed: every reader, with good files to begin from and what must be true of an answer.

An attempt reads one broken file. It may raise a QuantalError, which is the clear answer that a user
is to get; it may give a result, which must keep its promises and agree with what else is known of
it (WrongResultError if not). Whatever else it raises is a finding.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import fuzz_recipes as recipes
import numpy as np
from numpy.typing import NDArray

from quantal.errors import QuantalError

_PROJECT = Path(__file__).resolve().parents[1]
_SHARED = _PROJECT.parent / "shared"
sys.path.insert(0, str(_PROJECT / "tests"))

_RATE_HZ = 10_000.0
_LONGEST_SEED = 100_000  # bytes of a real file
_TOLERANCE = 1e-5  # of the largest sample, between two ways to read in single precision


class WrongResultError(AssertionError):
    """An answer that breaks a promise or contradicts the file."""


def require(true: object, said: str) -> None:
    """Raise WrongResultError unless it is true."""
    if not true:
        raise WrongResultError(said)


@dataclass(frozen=True, kw_only=True)
class Target:
    """One reader.

    about: what is read, for the table. attempt: takes the bytes of an input and a scratch folder.
    seeds: bytes of good files, made in a folder. known: samples that the first seed must give.
    watched: the modules whose branches count as coverage; tokens: what is put into files.
    recipe: builds a file from a fuzzer's choices and the seeds.
    """

    name: str
    about: str
    attempt: Callable[[bytes, Path], Any]
    seeds: Callable[[Path], list[bytes]]
    watched: tuple[str, ...] = ("quantal.readers",)
    tokens: tuple[bytes, ...] = ()
    recipe: Callable[[Any, Sequence[bytes]], bytes] | None = None
    known: Callable[[], list[NDArray[Any]]] | None = None
    real: tuple[str, str] | None = None
    quick: bool = True


# Recordings --------------------------------------------------------------------------------------


def recording(data: bytes, folder: Path, *, name: str, second: Any = None) -> list[Any]:
    """Read a recording in several ways, which must agree."""
    from quantal.readers import describe, hdf5, inspect, read
    from quantal.readers.recording import SeveralDatasetsError

    path = folder / name
    path.write_bytes(data)
    hdf5._texts_are_whole.cache_clear()  # a file that is written anew within a tick of the clock
    info, dataset = None, None
    try:
        traces = read(path, channel="all", rate_hz=_RATE_HZ, unit="pA")
    except SeveralDatasetsError as several:
        dataset = several.first
        traces = read(path, channel="all", rate_hz=_RATE_HZ, unit="pA", dataset=dataset)
    finally:
        with suppress(QuantalError):
            info = inspect(path, dataset=dataset)
            describe(info)
            json.dumps(info.to_dict())
    with suppress(QuantalError):
        for trace in read(path):  # as it comes, with the file's own rate and unit
            _check_trace(trace)
    _check_recording(traces, info)
    _check_one_alone(partial(read, path, dataset=dataset, rate_hz=_RATE_HZ, unit="pA"), traces)
    if second is not None:
        second(path, traces, dataset)
    return [trace.samples for trace in traces]


def _check_trace(trace: Any) -> None:
    samples = trace.samples
    require(samples.dtype == np.float32 and samples.ndim == 1, "samples are not float32")
    require(len(samples) > 0, "a trace without samples")
    require(math.isfinite(trace.rate_hz) and trace.rate_hz > 0, f"rate {trace.rate_hz}")
    require(isinstance(trace.unit, str) and trace.unit.strip(), f"unit {trace.unit!r}")
    require(trace.start_s == 0.0, "a sweep does not start at 0 s")
    missing = int(trace.unwanted().total)
    require(missing == np.count_nonzero(~np.isfinite(samples)), "what is missing is not told")


def _check_recording(traces: Sequence[Any], info: Any) -> None:
    for trace in traces:
        _check_trace(trace)
    if info is None or info.datasets:
        return
    channels = len(info.channels)
    require(len(traces) == channels * info.sweeps, "not as many traces as sweeps x channels")
    for n, trace in enumerate(traces):
        sweep, channel = divmod(n, channels)
        require(trace.sweep == sweep, "sweeps in another order")
        require(trace.channel == info.channels[channel].name, "channels in another order")
        require(len(trace) == info.sweep_samples[sweep], "a sweep of another length")


def _check_one_alone(read: Callable[..., list[Any]], traces: Sequence[Any]) -> None:
    """The last trace read by itself is what it is among all."""
    last = traces[-1]
    channels = sum(trace.sweep == last.sweep for trace in traces)
    (alone,) = read(channel=channels - 1, sweeps=[last.sweep])
    require(alone.samples.tobytes() == last.samples.tobytes(), "a sweep alone is another")


def _same(read: NDArray[Any], stored: NDArray[Any], said: str) -> None:
    """Samples agree with what was read in another way, to single precision."""
    require(read.shape == stored.shape, f"{said}: {read.shape} and {stored.shape}")
    with np.errstate(all="ignore"):
        expected = np.asarray(stored, np.float32)
        both = np.isfinite(expected)
        require((np.isfinite(read) == both).all(), f"{said}: missing samples differ")
        near = np.abs(expected[both]).max(initial=0.0) * _TOLERANCE
        moved = np.abs(read[both].astype(np.float64) - expected[both]).max(initial=0.0)
    require(moved <= near, f"{said}: samples differ by {moved:g}")


def numpy_again(path: Path, traces: Sequence[Any], dataset: str | None) -> None:  # noqa: ARG001
    """NumPy's own reader gives the same samples."""
    _sweeps_again(np.load(path, allow_pickle=False), traces)


def hdf5_again(path: Path, traces: Sequence[Any], dataset: str | None) -> None:
    """The data set as h5py gives it."""
    import h5py

    with h5py.File(path, "r") as file:
        name = dataset or traces[0].channel
        _sweeps_again(file[name][()], traces)


def _sweeps_again(array: NDArray[Any], traces: Sequence[Any]) -> None:
    rows = array[None] if array.ndim == 1 else array if array.shape[0] < array.shape[1] else array.T
    require(len(rows) == len(traces), "not as many sweeps as rows")
    for row, trace in zip(rows, traces, strict=True):
        _same(trace.samples, row, "the array read by its own library")


_PLAIN_CELL = re.compile(rb"[ +\-0-9.eE]+")


def table_again(path: Path, traces: Sequence[Any], dataset: str | None) -> None:  # noqa: ARG001
    """A plain table of commas or semicolons as the csv module reads it."""
    lines = [line for line in path.read_bytes().replace(b"\r\n", b"\n").split(b"\n") if line]
    separator = b";" if b";" in lines[-1] else b","
    cells = [line.split(separator) for line in lines[1:]]
    if not cells or any(not _PLAIN_CELL.fullmatch(c) for row in cells for c in row):
        return
    with path.open(newline="", encoding="latin-1") as file:
        rows = list(csv.reader(file, delimiter=separator.decode()))[1:]
    with suppress(ValueError):
        values = np.array([[float(c) for c in row] for row in rows if row])
        columns = list(values.T)
        for trace in traces:
            require(
                any(np.array_equal(trace.samples, column.astype(np.float32)) for column in columns)
                or len(values) != len(trace),
                f"{trace.channel} is no column of the table",
            )


def abf_again(path: Path, traces: Sequence[Any], dataset: str | None) -> None:  # noqa: ARG001
    """Counts as they lie in the file are what was read, up to a gain and an offset."""
    import struct

    stored = path.read_bytes()
    if stored.startswith(b"ABF2"):
        block, itemsize, count = struct.unpack_from("<IIq", stored, 236)
        floats, start = struct.unpack_from("<H", stored, 30)[0], block * 512
    else:
        ignored, count = struct.unpack_from("<h", stored, 14)[0], 0
        (count,) = struct.unpack_from("<i", stored, 10)
        (block,) = struct.unpack_from("<i", stored, 40)
        (floats,) = struct.unpack_from("<h", stored, 100)
        itemsize = 4 if floats else 2
        start = block * 512 + ignored * itemsize
    counts = np.frombuffer(stored, "<f4" if floats else "<i2", count, start)
    channels = sum(trace.sweep == 0 for trace in traces)
    first = counts[: len(traces[0]) * channels : channels]
    if floats:
        _same(traces[0].samples, first, "samples as they lie in the file")
        return
    x, y = first.astype(np.float64), traces[0].samples.astype(np.float64)
    if np.ptp(x) > 0:
        gain = np.ptp(y) / np.ptp(x)
        straight = np.abs(np.abs(y - y.mean()) - gain * np.abs(x - x.mean())).max()
        require(straight <= 1e-4 * np.abs(y).max(initial=0) + 1e-30, "samples are no scaled counts")


# Imaging -----------------------------------------------------------------------------------------


def rois(data: bytes, folder: Path, *, name: str, **given: Any) -> list[Any]:
    """Read ROIs as the file says and as the user says."""
    path = folder / name
    path.write_bytes(data)
    return _rois(path, **given)


def _rois(path: Path, **given: Any) -> list[Any]:
    from quantal.readers import hdf5
    from quantal.readers.rois import read_rois

    hdf5._texts_are_whole.cache_clear()
    plain = None
    with suppress(QuantalError):
        plain = read_rois(path, **given)
        _check_rois(plain)
    told = {"kind": "dff", "rate_hz": 100.0, "rois_in": "rows", **given}
    found = read_rois(path, **told)
    _check_rois(found)
    if plain is not None:
        require(np.array_equal(found.samples, plain.samples, equal_nan=True), "read twice, differs")
    return list(found.samples)


def _check_rois(found: Any) -> None:
    samples = found.samples
    require(samples.dtype == np.float32 and samples.ndim == 2 and samples.size, "no matrix")
    require(math.isfinite(found.rate_hz) and found.rate_hz > 0, f"rate {found.rate_hz}")
    require(len(set(found.number.tolist())) == len(samples), "numbers are not unique")
    require((found.number >= 0).all(), "a negative number of a ROI")
    if found.position is not None:
        require(found.position.shape == (len(samples), 2), "positions do not fit")
        require(not np.isinf(found.position).any(), "a ROI at infinity")
    _check_trace(found.trace(0))


_PART = b"\xffPART\xff"  # between the files of a folder in one input
_PLANE = ("F.npy", "Fneu.npy", "iscell.npy")


def suite2p(data: bytes, folder: Path) -> list[Any]:
    """A folder of up to three arrays."""
    plane = folder / "plane0"
    shutil.rmtree(plane, ignore_errors=True)
    plane.mkdir()
    for name, content in zip(_PLANE, data.split(_PART), strict=False):
        (plane / name).write_bytes(content)
    return _rois(plane)


def stack(data: bytes, folder: Path) -> list[Any]:
    """A stack of images with a good label image, and a label image with a good stack."""
    import tifffile

    labels, good = folder / "labels.npy", folder / "good.tif"
    if not good.exists():
        np.save(labels, np.array([[0, 1, 1], [2, 2, 0]], np.uint16))
        tifffile.imwrite(good, np.arange(24, dtype=np.uint16).reshape(4, 2, 3))
    (folder / "any.tif").write_bytes(data)
    with suppress(QuantalError):
        _rois(good, labels=folder / "any.tif")
    return _rois(folder / "any.tif", labels=labels)


# Tables ------------------------------------------------------------------------------------------


def events(data: bytes, folder: Path, *, suffix: str) -> None:
    """A table of events: columns of equal length and kind, which a copy gives back."""
    from quantal.events import column_type
    from quantal.save import load_events, save_events

    path = folder / f"any{suffix}"
    path.write_bytes(data)
    found = load_events(path)
    columns = found.columns()
    for name, values in columns.items():
        require(len(values) == len(found), f"{name} is not as long as the table")
        require(np.dtype(column_type(name)).kind == values.dtype.kind, f"{name} is {values.dtype}")
    found.summary()
    if suffix != ".csv":
        return
    save_events(found, folder / "copy.csv")
    again = load_events(folder / "copy.csv").columns()
    for name, values in columns.items():
        same = values == again[name]
        if values.dtype.kind == "f":
            same = np.isclose(values, again[name], rtol=1e-6, equal_nan=True)
        require(np.all(same), f"{name} is another after it was saved")


def table(data: bytes, folder: Path, *, suffix: str) -> None:
    """A table of `quantal batch`: texts, as many in each column."""
    from quantal.save import load_table

    path = folder / f"any{suffix}"
    path.write_bytes(data)
    columns = load_table(path)
    require(len({len(column) for column in columns.values()}) <= 1, "columns of different length")
    require(all(isinstance(one, str) for c in columns.values() for one in c), "no text")


def marks(data: bytes, folder: Path) -> None:
    """Times of events for the trainer."""
    from quantal_trainer.marked import read_marks

    path = folder / "any.csv"
    path.write_bytes(data)
    found = read_marks(path)
    count = len(found.times_s)
    require(np.isfinite(found.times_s).all(), "a time that is no number")
    require(len(found.recordings) == len(found.channels) == len(found.sweeps) == count, "lengths")


def dataset(data: bytes, folder: Path) -> None:
    """Windows and labels for the trainer."""
    from quantal_trainer.dataset_files import read_dataset

    path = folder / "any.h5"
    path.write_bytes(data)
    found = read_dataset(path)
    require(found.windows.ndim == 2 and len(found.windows) == len(found.scores), "lengths differ")
    require(math.isfinite(found.rate_hz) and found.rate_hz > 0, f"rate {found.rate_hz}")
    require(len(found.cells) == len(found.windows), "labels of cells")


def lots(data: bytes, folder: Path) -> None:
    """A list of recordings: results stay in the folder of the batch."""
    from pathlib import PurePath

    from quantal.lot import find_recordings

    path = folder / "list.csv"
    path.write_bytes(data)
    for entry in find_recordings([str(path)]):
        place = PurePath(entry.place)
        require(not place.is_absolute() and ".." not in place.parts, f"writes to {place}")


def settings(data: bytes, folder: Path) -> None:
    """Settings of `quantal batch`: known ones of the right kind, or one clear line."""
    import click

    from quantal.cli import batch

    path = folder / "any.toml"
    path.write_bytes(data)
    try:
        with batch.make_context("batch", ["--config", str(path), "folder"]) as context:
            given = context.params
    except click.ClickException:
        return
    require(isinstance(given["threads"], int | None), f"threads {given['threads']!r}")
    require(isinstance(given["threshold"], float | None), f"threshold {given['threshold']!r}")


# Models ------------------------------------------------------------------------------------------


_CANARY = b"what lies outside of a model"


def _known_card() -> dict[str, Any]:
    from quantal.model import Card

    return asdict(
        Card(
            name="mine",
            graphs={"model.onnx": _sha256(_graph())},
            test_inputs=[[0.5] * 600],
            test_scores=[0.5],
        )
    )


def _sha256(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()


def _graph() -> bytes:
    from graphs import graph_bytes

    return graph_bytes()


def model(data: bytes, folder: Path) -> Any:
    """A folder with a good card and any graph: whatever loads gives a number for a window."""
    place = _model_folder(folder, _known_card() | {"graphs": {"model.onnx": _sha256(data)}}, data)
    return _run_model(place)


def card(data: bytes, folder: Path) -> Any:
    """A folder with any card and a good graph."""
    place = _model_folder(folder, {}, _graph())
    (place / "card.json").write_bytes(data)
    return _run_model(place)


def _model_folder(folder: Path, card: dict[str, Any], graph: bytes) -> Path:
    place = folder / "model"
    place.mkdir(exist_ok=True)
    for name in ("weights.bin", "model/weights.bin"):
        (folder / name).write_bytes(np.full(600, 7, np.float32).tobytes())
    (place / "card.json").write_text(json.dumps(card))
    (place / "model.onnx").write_bytes(graph)
    return place


def _run_model(place: Path) -> None:
    from quantal import runtime
    from quantal.doctor import verify_model
    from quantal.model import load_model

    loaded = load_model(place)
    runtime._open.cache_clear()
    session = runtime.open_session(loaded, "cpu", threads=1)
    width = loaded.card.window_samples
    scores = session.run_windows(np.linspace(0, 1, width, dtype=np.float32)[None])
    require(scores.shape == (1,) and scores.dtype == np.float32, f"scores of {scores.shape}")
    graph = (place / "model.onnx").read_bytes()
    require(b"weights.bin" not in graph, "weights that no hash vouches for")
    with suppress(QuantalError):
        verify_model(loaded)


def archive(data: bytes, folder: Path) -> None:
    """Add a packed model: it lands in the user's folder, whole, and nothing lands elsewhere."""
    from quantal.packs import add_model

    home = folder / "home"
    os.environ["QUANTAL_MODELS"] = str(home)
    shutil.rmtree(home, ignore_errors=True)
    path = folder / "any.quantal"
    path.write_bytes(data)
    before = sorted(os.listdir(folder))
    try:
        added = add_model(path)
        require(added.folder.parent == home, f"{added.folder} is not in the user's folder")
        files = {one.name for one in added.folder.iterdir()}
        require(files == {"card.json", *added.card.graphs}, f"it holds {files}")
        require(os.listdir(home) == [added.folder.name], "something is left beside it")
    finally:
        there = sorted(set(os.listdir(folder)) - {"home"})
        require(there == [name for name in before if name != "home"], "written elsewhere")


# Good files to begin with ------------------------------------------------------------------------


def _counts() -> NDArray[np.int16]:
    return np.arange(-60, 60, dtype=np.int16)


def _abf1(folder: Path) -> list[bytes]:  # noqa: ARG001
    from readers.abf_files import abf1_bytes

    two = {"names": ("Im", "Vm"), "units": (b"pA", b"mV")}
    tags = [(10, b"drug on")]
    return [
        abf1_bytes(_counts()),
        abf1_bytes(_counts(), sweeps=2, lengths=(80, 40), tags=tags, header_blocks=4, **two),
        abf1_bytes(_counts().astype(np.float32), ignored=20),
    ]


def _abf2(folder: Path) -> list[bytes]:  # noqa: ARG001
    from lots import abf_recording
    from readers.abf_files import abf2_bytes

    two = {"names": ("Im", "Vm"), "units": (b"pA", b"mV")}
    return [
        abf2_bytes(_counts()),
        abf2_bytes(_counts(), sweeps=2, lengths=(80, 40), tags=[(10, b"drug on")], **two),
        abf2_bytes(_counts().astype(np.float32), mode=3),
        abf_recording(seed=1, seconds=0.05),
    ]


def _known_abf() -> list[NDArray[Any]]:
    return [_counts() * 0.1 + 1]


def _heka(folder: Path) -> list[bytes]:  # noqa: ARG001
    from readers.heka_files import OLD_SIZES, Wave, heka_bytes

    counts = _counts()
    two = [Wave(counts), Wave(counts, label="Vmon-1", unit="V", scale=3e-5)]
    return [
        heka_bytes([[Wave(counts)]]),
        heka_bytes([two, two], [two], block=48),
        heka_bytes([[Wave(counts.astype(np.float64))]], order=">", sizes=OLD_SIZES, version=9),
    ]


def _npy_bytes(values: Any) -> bytes:
    import io

    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def _npy(folder: Path) -> list[bytes]:  # noqa: ARG001
    rows = np.arange(120, dtype=np.float32).reshape(3, 40)
    return [
        _npy_bytes(_counts()),
        _npy_bytes(rows),
        _npy_bytes(np.asfortranarray(rows.astype(">f8"))),
        _npy_bytes(np.array([("a", 1)], [("x", "S1"), ("y", "i4")])),
    ]


_TABLES = (
    "time_s,Im (pA)\n" + "".join(f"{k / 1000},{k - 3.5}\n" for k in range(12)),
    "# remark\nIm (pA);Vm [mV]\n" + "".join(f"{k},5;-{k},25\n" for k in range(8)),
    "1 2 3\n4 5 6\n\n7 8 9\n",
    ",Im\n0,1.5\n1,2.5\n2,-3\n",
    "1\t2\t3\t4\n",
)


def _csv(folder: Path) -> list[bytes]:  # noqa: ARG001
    return [*(text.encode() for text in _TABLES), _TABLES[0].encode("utf-16")]


def _known_csv() -> list[NDArray[Any]]:
    return [np.arange(12) - 3.5]


def _hdf5(folder: Path) -> list[bytes]:
    import h5py

    path = folder / "seed.h5"
    with h5py.File(path, "w") as file:
        file["trace"] = _counts()
        file["trace"].attrs.update({"rate_hz": 20_000.0, "unit": "pA"})
    one = path.read_bytes()
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs["dt"] = "0.05"
        file.attrs["dt_unit"] = "ms"
        group = file.create_group("cell/sweeps")
        group.create_dataset("im", data=np.arange(120.0).reshape(3, 40), compression="gzip")
        group["vm"] = np.arange(60, dtype=">f4")
        group.attrs["units"] = np.array([b"mV"])
    return [one, path.read_bytes()]


def _nwb(folder: Path) -> list[bytes]:
    from readers.hdf5_files import nwb_bytes

    return [nwb_bytes(folder)]


def _known_nwb() -> list[NDArray[Any]]:
    return [_counts() * 0.1] * 3


def _wavesurfer(folder: Path) -> list[bytes]:
    from readers.hdf5_files import wavesurfer_bytes

    return [wavesurfer_bytes(folder)]


def _known_wavesurfer() -> list[NDArray[Any]]:
    return [_counts() * 3e-4] * 3


def _wcp(folder: Path) -> list[bytes]:
    from readers.neo_files import win_wcp

    return [win_wcp(folder).read_bytes()]


def brain_vision(data: bytes, folder: Path) -> list[Any]:
    """A header of any content beside good samples and markers."""
    if not (folder / "cell.eeg").exists():
        from readers.neo_files import brain_vision as write

        write(folder)
    return recording(data, folder, name="cell.vhdr")


def _vhdr(folder: Path) -> list[bytes]:
    from readers.neo_files import brain_vision as write

    return [write(folder).read_bytes()]


_NEO_SUFFIXES = (
    *("wcp", "axgd", "axgx", "edf", "nex", "plx", "smr", "ncs", "nse", "nev", "ns5", "trc"),
    *("bdf", "mcd", "rhd", "rhs", "xml", "nix", "tbk", "oebin", "maxwell", "medx"),
)


def other(data: bytes, folder: Path) -> list[Any]:
    """Any bytes under the suffixes of other formats; the first byte chooses the suffix."""
    suffix = _NEO_SUFFIXES[data[0] % len(_NEO_SUFFIXES)] if data else "wcp"
    found = recording(data[1:], folder, name=f"cell.{suffix}")
    (folder / f"cell.{suffix}").unlink()
    return found


def _others(folder: Path) -> list[bytes]:
    magics = {"wcp": _wcp(folder)[0], "axgd": b"axgx\0\0\0\x06" + bytes(600)}
    magics |= {"edf": b"0".ljust(256), "nex": b"NEX1".ljust(544, b"\0"), "plx": b"PLEX" * 300}
    magics |= {"smr": bytes(512), "ncs": b"######## Neuralynx".ljust(16_384, b"\0")}
    magics |= {"nev": b"NEURALEV".ljust(336, b"\0"), "ns5": b"NEURALCD".ljust(400, b"\0")}
    magics |= {"rhd": struct_rhd(), "trc": bytes(640)}
    return [bytes([_NEO_SUFFIXES.index(suffix)]) + one for suffix, one in magics.items()]


def struct_rhd() -> bytes:
    """The first bytes of an Intan file."""
    return b"\x02\x69\x91\xc6\x01\0\x05\0" + bytes(400)


def _plane(folder: Path) -> list[bytes]:
    from readers.roi_files import suite2p_plane

    place = folder / "seed"
    shutil.rmtree(place, ignore_errors=True)
    suite2p_plane(place)
    return [_PART.join((place / name).read_bytes() for name in _PLANE)]


def _caiman(folder: Path) -> list[bytes]:
    from readers.roi_files import MATRIX, caiman

    path = folder / "seed.hdf5"
    caiman(path, F_dff=MATRIX / 100, YrA=MATRIX, idx_components=[3, 1])
    one = path.read_bytes()
    caiman(path, F_dff=None, YrA=MATRIX, idx_components=None)
    return [one, path.read_bytes()]


def _nwb_rois(folder: Path) -> list[bytes]:
    from readers.roi_files import nwb

    path = folder / "seed.nwb"
    found = [nwb(path, masks=masks).read_bytes() for masks in ("pixel_mask", "image_mask")]
    return [*found, nwb(path, A="Fluorescence", B="DfOverF").read_bytes()]


def _tiff(folder: Path) -> list[bytes]:
    import tifffile

    path = folder / "seed.tif"
    images = np.arange(24, dtype=np.uint16).reshape(4, 2, 3)
    tifffile.imwrite(path, images, imagej=True, metadata={"finterval": 0.01, "axes": "TYX"})
    found = [path.read_bytes()]
    tifffile.imwrite(path, images.astype(np.float32), compression="zlib")
    found.append(path.read_bytes())
    tifffile.imwrite(path, np.array([[0, 1, 1], [2, 2, 0]], np.uint8))
    return [*found, path.read_bytes()]


def _matrix_hdf5(folder: Path) -> list[bytes]:
    return [*_hdf5(folder), *_caiman(folder)[:1]]


def _some_events() -> Any:
    from quantal.events import COLUMNS, Sweep, column_type, make_events

    numbers = {name: [1.5, -2.25, np.nan] for name in COLUMNS if column_type(name) is np.float64}
    words = {"recording": 'cell "7"', "channel": "IN 0", "sweep": 0, "event": [0, 1, 2]}
    said = {"unit": "pA", "polarity": -1, "overlap": [True, False, False], "edge": False}
    return make_events(
        {**numbers, **words, **said, "status": ["found", "rejected", "found"]},
        [Sweep(recording="cell", channel="IN 0", sweep=0, unit="pA", analysed_s=10.0)],
    )


def _events(folder: Path, *, suffix: str) -> list[bytes]:
    from quantal.save import save_events

    path = folder / f"seed{suffix}"
    save_events(_some_events(), path)
    return [path.read_bytes()]


def _table(folder: Path, *, suffix: str) -> list[bytes]:
    from quantal.save import save_table

    path = folder / f"seed{suffix}"
    save_table({"file": np.array(["a.abf", "b, c.abf"]), "amplitude": np.array([1.5, -2])}, path)
    return [path.read_bytes()]


def _marks(folder: Path) -> list[bytes]:
    plain = "recording,channel,sweep,location_s,status\n" + "".join(
        f"cell,IN 0,0,{k / 7:g},{('found', 'rejected')[k % 2]}\n" for k in range(8)
    )
    return [plain.encode(), b"0.1\n0.2\n0.35\n", *_events(folder, suffix=".csv")]


def _dataset(folder: Path) -> list[bytes]:
    from quantal_trainer.dataset_files import save_dataset
    from quantal_trainer.datasets import Dataset

    windows = np.random.default_rng(0).normal(size=(6, 40)).astype(np.float32)
    made = Dataset(
        windows=windows,
        scores=np.array([0, 1, 1, 0, 1, 0]),
        rate_hz=20_000.0,
        unit="pA",
        cells=np.array(["a", "a", "b", "b", "c", "c"]),
    )
    save_dataset(made, folder / "seed.h5")
    return [(folder / "seed.h5").read_bytes()]


def _lists(folder: Path) -> list[bytes]:  # noqa: ARG001
    return [
        b"file,group\ncell0.abf,wt\nday 1/cell1.abf,ko\n../elsewhere/cell2.abf,ko\n",
        b"file;genotype;age\nA.abf;wt;12\na.h5;ko;14\n",
    ]


_SETTINGS = """model = "minis"
channel = 0
sweeps = "0,2-5"
rate-hz = 20000.0
window-ms = "auto"
direction = "negative"
threshold = 0.5
exclude-s = ["0.1-0.2", "1-2"]
format = "csv,h5"
workers = 2
threads = 1
save-scores = true
recordings = ["data", "*.abf"]
out = "results"
"""


def _settings(folder: Path) -> list[bytes]:  # noqa: ARG001
    return [_SETTINGS.encode(), b"threads = 1e9\nfit = false\n[table]\na = 1\n"]


def _graphs(folder: Path) -> list[bytes]:  # noqa: ARG001
    from graphs import graph_bytes

    return [graph_bytes(), graph_bytes(("n", 600), keep=1), graph_bytes(("n", 600), keep=2)]


def _cards(folder: Path) -> list[bytes]:  # noqa: ARG001
    return [json.dumps(_known_card(), indent=1).encode()]


def _archives(folder: Path) -> list[bytes]:
    from quantal.packs import pack_model

    card = _known_card()
    place = _model_folder(folder / "seeds", card, _graph()) if _made(folder / "seeds") else folder
    return [pack_model(place, folder / "seed.quantal").read_bytes()]


def _made(folder: Path) -> bool:
    folder.mkdir(exist_ok=True)
    return True


# All of them -------------------------------------------------------------------------------------

_BINARY = recipes.packed_numbers()
_TEXT = tuple(
    text.encode()
    for text in (
        *("nan", "inf", "-1", "1e999", "1e-320", "0", '"', "#", ";", ",", "\t", "\n", "\r", "\0"),
        *(
            "time_s",
            "Im (pA)",
            "[mV]",
            "\ufeff",
            "\u2028",
            "1,5",
            "1_000",
            "0x10",
            "true",
            "x" * 99,
        ),
        *("file", "../..", "C:\\", "location_s", "rejected", "99999999999999999999", "\x1b[31m"),
    )
)
_TOML = tuple(
    text.encode()
    for text in (
        *("nan", "inf", "-1", "1e999", "[", "]", "[[a]]", "{a = 1}", "= ", '"""', "true", "0x7f"),
        *(
            "1979-05-27T07:32:00Z",
            '["a"]',
            "[1, 2]",
            "threads = ",
            "exclude-s = ",
            "model = ",
            "\n",
        ),
        *("9" * 30, "9" * 5000, '"\\uD800"', "'", "recordings = ", "quiet = ", "config = ", "json"),
    )
)
_JSON = tuple(
    text.encode()
    for text in (
        *("NaN", "Infinity", "-1", "1e999", "[" * 3000, "{", "}", "null", "true", '"', "\\u0000"),
        *('"model.onnx"', '"../x"', "9" * 30, "9" * 5000, '"kind"', '"trace"', "[[]]", "{}", "0.5"),
    )
)


def _with_numbers(recipe: Callable[[Any], bytes]) -> Callable[[Any, Sequence[bytes]], bytes]:
    return lambda draw, wholes: recipe(draw)  # noqa: ARG005


def _all() -> Iterator[Target]:
    binary, hdf5 = {"tokens": _BINARY}, {"tokens": _BINARY, "recipe": recipes.hdf5, "quick": False}
    read = partial(recording)
    yield Target(
        name="abf1",
        about="ABF 1",
        attempt=partial(read, name="cell.abf", second=abf_again),
        seeds=_abf1,
        known=_known_abf,
        watched=("quantal.readers", "pyabf"),
        real=("abf", "*.abf"),
        **binary,
    )
    yield Target(
        name="abf2",
        about="ABF 2",
        attempt=partial(read, name="cell.abf", second=abf_again),
        seeds=_abf2,
        known=_known_abf,
        watched=("quantal.readers", "pyabf"),
        real=("abf", "*.abf"),
        **binary,
    )
    yield Target(
        name="heka",
        about="HEKA PatchMaster",
        attempt=partial(read, name="cell.dat"),
        seeds=_heka,
        known=_known_heka,
        real=("heka", "*.dat"),
        **binary,
    )
    yield Target(
        name="npy",
        about="NumPy arrays",
        attempt=partial(read, name="cell.npy", second=numpy_again),
        seeds=_npy,
        known=lambda: [_counts()],
        **binary,
    )
    yield Target(
        name="csv",
        about="text tables",
        attempt=partial(read, name="cell.csv", second=table_again),
        seeds=_csv,
        known=_known_csv,
        tokens=_TEXT,
    )
    yield Target(
        name="hdf5",
        about="plain HDF5",
        attempt=partial(read, name="cell.h5", second=hdf5_again),
        seeds=_hdf5,
        known=lambda: [_counts()],
        **hdf5,
    )
    yield Target(
        name="nwb",
        about="NWB, intracellular",
        attempt=partial(read, name="cell.nwb"),
        seeds=_nwb,
        known=_known_nwb,
        **hdf5,
    )
    yield Target(
        name="wavesurfer",
        about="WaveSurfer",
        attempt=partial(read, name="cell.h5"),
        seeds=_wavesurfer,
        known=_known_wavesurfer,
        **hdf5,
    )
    yield Target(
        name="wcp",
        about="WinWCP, through neo",
        attempt=partial(read, name="cell.wcp"),
        seeds=_wcp,
        watched=("quantal.readers", "neo.rawio.winwcprawio"),
        **binary,
    )
    yield Target(
        name="vhdr",
        about="BrainVision, through neo",
        attempt=brain_vision,
        seeds=_vhdr,
        watched=("quantal.readers", "neo.rawio.brainvisionrawio"),
        tokens=_TEXT,
    )
    yield Target(
        name="neo",
        about="any bytes under suffixes of neo",
        attempt=other,
        seeds=_others,
        watched=("quantal.readers", "neo.rawio"),
        quick=False,
        **binary,
    )
    yield Target(
        name="suite2p",
        about="suite2p folders",
        attempt=suite2p,
        seeds=_plane,
        watched=("quantal.readers.rois", "quantal.imaging"),
        **binary,
    )
    imaging = {"watched": ("quantal.readers.rois", "quantal.imaging")}
    yield Target(
        name="caiman",
        about="CaImAn",
        attempt=partial(rois, name="a.hdf5"),
        seeds=_caiman,
        **imaging,
        **hdf5,
    )
    yield Target(
        name="nwb-rois",
        about="NWB, ROIs",
        attempt=partial(rois, name="a.nwb"),
        seeds=_nwb_rois,
        **imaging,
        **hdf5,
    )
    yield Target(
        name="matrix-hdf5",
        about="HDF5 matrices of ROIs",
        attempt=partial(rois, name="a.h5"),
        seeds=_matrix_hdf5,
        **imaging,
        **hdf5,
    )
    yield Target(
        name="matrix-npy",
        about="NumPy matrices of ROIs",
        attempt=partial(rois, name="a.npy"),
        seeds=_npy,
        **imaging,
        **binary,
    )
    yield Target(
        name="matrix-csv",
        about="text tables of ROIs",
        attempt=partial(rois, name="a.csv"),
        seeds=_csv,
        tokens=_TEXT,
        **imaging,
    )
    yield Target(
        name="tiff",
        about="TIFF stacks and label images",
        attempt=stack,
        seeds=_tiff,
        quick=False,
        watched=("quantal.readers.rois", "quantal.imaging", "tifffile"),
        **binary,
    )
    for suffix in (".csv", ".h5", ".parquet", ".xlsx", ".nwb"):
        is_hdf5 = suffix in (".h5", ".nwb")
        yield Target(
            name=f"events-{suffix[1:]}",
            about=f"tables of events, {suffix}",
            attempt=partial(events, suffix=suffix),
            seeds=partial(_events, suffix=suffix),
            watched=("quantal.save", "quantal.tables", "quantal.events"),
            tokens=_TEXT if suffix == ".csv" else _BINARY,
            recipe=recipes.hdf5 if is_hdf5 else None,
            quick=suffix == ".csv",
        )
    for suffix in (".csv", ".parquet"):
        yield Target(
            name=f"table-{suffix[1:]}",
            about=f"tables of `quantal batch`, {suffix}",
            attempt=partial(table, suffix=suffix),
            seeds=partial(_table, suffix=suffix),
            watched=("quantal.save", "quantal.tables"),
            tokens=_TEXT if suffix == ".csv" else _BINARY,
        )
    yield Target(
        name="marks",
        about="event times for the trainer",
        attempt=marks,
        seeds=_marks,
        watched=("quantal_trainer.marked", "quantal.save", "quantal.events"),
        tokens=_TEXT,
    )
    yield Target(
        name="dataset",
        about="datasets of the trainer",
        attempt=dataset,
        seeds=_dataset,
        watched=("quantal_trainer.dataset_files", "quantal_trainer.datasets"),
        **hdf5,
    )
    yield Target(
        name="list",
        about="lists of recordings",
        attempt=lots,
        seeds=_lists,
        watched=("quantal.lot",),
        tokens=_TEXT,
    )
    yield Target(
        name="settings",
        about="settings of `quantal batch` (TOML)",
        attempt=settings,
        seeds=_settings,
        watched=("quantal.cli", "tomllib"),
        tokens=_TOML,
    )
    yield Target(
        name="card",
        about="model cards",
        attempt=card,
        seeds=_cards,
        watched=("quantal.model", "quantal.runtime", "quantal.doctor"),
        tokens=_JSON,
        recipe=_with_numbers(lambda draw: recipes.card(draw, _known_card())),
    )
    yield Target(
        name="graph",
        about="ONNX graphs of models",
        attempt=model,
        seeds=_graphs,
        watched=("quantal.model", "quantal.runtime", "quantal.doctor"),
        recipe=_with_numbers(recipes.graph),
        quick=False,
        **binary,
    )
    yield Target(
        name="pack",
        about="packed models",
        attempt=archive,
        seeds=_archives,
        watched=("quantal.packs", "quantal.model"),
        recipe=_with_numbers(lambda draw: recipes.pack(draw, _known_card(), _graph())),
        **binary,
    )


def _known_heka() -> list[NDArray[Any]]:
    return [_counts() * 0.1]


TARGETS = {target.name: target for target in _all()}


def real_seeds(target: Target) -> list[bytes]:
    """Real files kept beside the project, the longer ones cut short."""
    if target.real is None or not (_SHARED / "data").is_dir():
        return []
    folder, pattern = target.real
    found = []
    for path in sorted((_SHARED / "data" / folder).glob(pattern)):
        with path.open("rb") as file:
            start = file.read(_LONGEST_SEED)
        wanted = {"abf1": b"ABF ", "abf2": b"ABF2"}.get(target.name, b"")
        found += [start] if start.startswith(wanted) else []
    return found

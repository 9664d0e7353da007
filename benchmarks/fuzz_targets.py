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
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import fuzz_recipes as recipes
import fuzz_seeds as seeds
import numpy as np
from numpy.typing import NDArray

from quantal.errors import QuantalError

_SHARED = seeds.PROJECT.parent / "shared"

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
    recipe: builds a file from a fuzzer's choices and the seeds. real: folder and pattern of real
    files. quick: whether so little time goes into an input that many can be tried.
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


def brain_vision(data: bytes, folder: Path) -> list[Any]:
    """A header of any content beside good samples and markers."""
    if not (folder / "cell.eeg").exists():
        from readers.neo_files import brain_vision as write

        write(folder)
    return recording(data, folder, name="cell.vhdr")


def other(data: bytes, folder: Path) -> list[Any]:
    """Any bytes under the suffixes of other formats; the first byte chooses the suffix."""
    suffix = seeds.NEO_SUFFIXES[data[0] % len(seeds.NEO_SUFFIXES)] if data else "wcp"
    found = recording(data[1:], folder, name=f"cell.{suffix}")
    (folder / f"cell.{suffix}").unlink()
    return found


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


def suite2p(data: bytes, folder: Path) -> list[Any]:
    """A folder of up to three arrays."""
    plane = folder / "plane0"
    shutil.rmtree(plane, ignore_errors=True)
    plane.mkdir()
    for name, content in zip(seeds.PLANE, data.split(seeds.PART), strict=False):
        (plane / name).write_bytes(content)
    return _rois(plane)


def stack(data: bytes, folder: Path) -> list[Any]:
    """A stack of images with a good label image, and a label image with a good stack."""
    import tifffile

    labels, good = folder / "labels.npy", folder / "good.tif"
    if not good.exists():
        np.save(labels, np.array([[0, 1, 1], [2, 2, 0]], np.uint16))
        images = np.arange(24, dtype=np.uint16).reshape(4, 2, 3)
        tifffile.imwrite(good, images, photometric="minisblack")
    (folder / "any.tif").write_bytes(data)
    with suppress(QuantalError):
        _rois(good, labels=folder / "any.tif")
    return _rois(folder / "any.tif", labels=labels)


# Tables ------------------------------------------------------------------------------------------


def events(data: bytes, folder: Path, *, suffix: str) -> None:
    """A table of events: columns of equal length and kind, which a copy gives back."""
    from quantal.events import column_type
    from quantal.save import load_events, save_events
    from quantal.tables import clean, each

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
        same = again[name] == values
        if values.dtype.kind == "f":
            same = np.isclose(values, again[name], rtol=1e-6, equal_nan=True)
        if values.dtype.kind == "U":  # what no file of text can hold is replaced
            same = again[name] == np.array(each(values, clean), np.str_)
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


def model(data: bytes, folder: Path) -> Any:
    """A folder with a good card and any graph: whatever loads gives a number for a window."""
    place = seeds.model_folder(
        folder, seeds.known_card() | {"graphs": {"model.onnx": seeds.sha256(data)}}, data
    )
    return _run_model(place)


def card(data: bytes, folder: Path) -> Any:
    """A folder with any card and a good graph."""
    place = seeds.model_folder(folder, {}, seeds.graph())
    (place / "card.json").write_bytes(data)
    return _run_model(place)


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
    elsewhere = b"location" in graph and b"weights.bin" in graph
    require(not elsewhere, "weights that no hash vouches for")
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


# All of them -------------------------------------------------------------------------------------

_BINARY = recipes.packed_numbers()
_TEXT = (
    *b'nan inf -1 1e999 1e-320 0 " # ; , 1,5 1_000 0x10 true time_s [mV] file ../.. C:\\'.split(),
    *b"location_s rejected 99999999999999999999 xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx".split(),
    *(b"\t", b"\n", b"\r", b"\0", b"Im (pA)", b"\x1b[31m", "\ufeff".encode(), "\u2028".encode()),
)
_TOML = (
    *b"nan inf -1 1e999 [ ] [[a]] ''' true 0x7f 1979-05-27T07:32:00Z threads= exclude-s=".split(),
    *b"model= recordings= quiet= config= json= [1,2] {a=1}".split(),
    *(b"\n", b'["a"]', b'"\\uD800"', b"9" * 30, b"9" * 5000, b"[" * 3000),
)
_JSON = (
    *b'NaN Infinity -1 1e999 { } null true " \\u0000 "model.onnx" "../x" "kind" "trace"'.split(),
    *(b"[[]]", b"{}", b"0.5", b"9" * 30, b"9" * 5000, b"[" * 3000),
)


def _from_nothing(recipe: Callable[[Any], bytes]) -> Callable[[Any, Sequence[bytes]], bytes]:
    return lambda draw, wholes: recipe(draw)  # noqa: ARG005


def _all() -> Iterator[Target]:
    binary, hdf5 = {"tokens": _BINARY}, {"tokens": _BINARY, "recipe": recipes.hdf5, "quick": False}
    yield Target(
        name="abf1",
        about="ABF 1",
        attempt=partial(recording, name="cell.abf", second=abf_again),
        seeds=seeds.abf1,
        known=seeds.known_abf,
        watched=("quantal.readers", "pyabf"),
        real=("abf", "*.abf"),
        **binary,
    )
    yield Target(
        name="abf2",
        about="ABF 2",
        attempt=partial(recording, name="cell.abf", second=abf_again),
        seeds=seeds.abf2,
        known=seeds.known_abf,
        watched=("quantal.readers", "pyabf"),
        real=("abf", "*.abf"),
        **binary,
    )
    yield Target(
        name="heka",
        about="HEKA PatchMaster",
        attempt=partial(recording, name="cell.dat"),
        seeds=seeds.heka,
        known=seeds.known_heka,
        real=("heka", "*.dat"),
        **binary,
    )
    yield Target(
        name="npy",
        about="NumPy arrays",
        attempt=partial(recording, name="cell.npy", second=numpy_again),
        seeds=seeds.npy,
        known=lambda: [seeds.counts()],
        **binary,
    )
    yield Target(
        name="csv",
        about="text tables",
        attempt=partial(recording, name="cell.csv", second=table_again),
        seeds=seeds.csv,
        known=seeds.known_csv,
        tokens=_TEXT,
    )
    yield Target(
        name="hdf5",
        about="plain HDF5",
        attempt=partial(recording, name="cell.h5", second=hdf5_again),
        seeds=seeds.hdf5,
        known=lambda: [seeds.counts()],
        **hdf5,
    )
    yield Target(
        name="nwb",
        about="NWB, intracellular",
        attempt=partial(recording, name="cell.nwb"),
        seeds=seeds.nwb,
        known=seeds.known_nwb,
        **hdf5,
    )
    yield Target(
        name="wavesurfer",
        about="WaveSurfer",
        attempt=partial(recording, name="cell.h5"),
        seeds=seeds.wavesurfer,
        known=seeds.known_wavesurfer,
        **hdf5,
    )
    yield Target(
        name="wcp",
        about="WinWCP, through neo",
        attempt=partial(recording, name="cell.wcp"),
        seeds=seeds.wcp,
        watched=("quantal.readers", "neo.rawio.winwcprawio"),
        **binary,
    )
    yield Target(
        name="vhdr",
        about="BrainVision, through neo",
        attempt=brain_vision,
        seeds=seeds.vhdr,
        watched=("quantal.readers", "neo.rawio.brainvisionrawio"),
        tokens=_TEXT,
    )
    yield Target(
        name="neo",
        about="any bytes under suffixes of neo",
        attempt=other,
        seeds=seeds.others,
        watched=("quantal.readers", "neo.rawio"),
        quick=False,
        **binary,
    )
    yield Target(
        name="suite2p",
        about="suite2p folders",
        attempt=suite2p,
        seeds=seeds.plane,
        watched=("quantal.readers.rois", "quantal.imaging"),
        **binary,
    )
    imaging = {"watched": ("quantal.readers.rois", "quantal.imaging")}
    yield Target(
        name="caiman",
        about="CaImAn",
        attempt=partial(rois, name="a.hdf5"),
        seeds=seeds.caiman,
        **imaging,
        **hdf5,
    )
    yield Target(
        name="nwb-rois",
        about="NWB, ROIs",
        attempt=partial(rois, name="a.nwb"),
        seeds=seeds.nwb_rois,
        **imaging,
        **hdf5,
    )
    yield Target(
        name="matrix-hdf5",
        about="HDF5 matrices of ROIs",
        attempt=partial(rois, name="a.h5"),
        seeds=seeds.matrix_hdf5,
        **imaging,
        **hdf5,
    )
    yield Target(
        name="matrix-npy",
        about="NumPy matrices of ROIs",
        attempt=partial(rois, name="a.npy"),
        seeds=seeds.npy,
        **imaging,
        **binary,
    )
    yield Target(
        name="matrix-csv",
        about="text tables of ROIs",
        attempt=partial(rois, name="a.csv", rois_in="columns"),
        seeds=seeds.csv,
        tokens=_TEXT,
        **imaging,
    )
    yield Target(
        name="tiff",
        about="TIFF stacks and label images",
        attempt=stack,
        seeds=seeds.tiff,
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
            seeds=partial(seeds.events, suffix=suffix),
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
            seeds=partial(seeds.table, suffix=suffix),
            watched=("quantal.save", "quantal.tables"),
            tokens=_TEXT if suffix == ".csv" else _BINARY,
        )
    yield Target(
        name="marks",
        about="event times for the trainer",
        attempt=marks,
        seeds=seeds.marks,
        watched=("quantal_trainer.marked", "quantal.save", "quantal.events"),
        tokens=_TEXT,
    )
    yield Target(
        name="dataset",
        about="datasets of the trainer",
        attempt=dataset,
        seeds=seeds.dataset,
        watched=("quantal_trainer.dataset_files", "quantal_trainer.datasets"),
        **hdf5,
    )
    yield Target(
        name="list",
        about="lists of recordings",
        attempt=lots,
        seeds=seeds.lists,
        watched=("quantal.lot",),
        tokens=_TEXT,
    )
    yield Target(
        name="settings",
        about="settings of `quantal batch` (TOML)",
        attempt=settings,
        seeds=seeds.settings,
        watched=("quantal.cli", "tomllib"),
        tokens=_TOML,
    )
    yield Target(
        name="card",
        about="model cards",
        attempt=card,
        seeds=seeds.cards,
        watched=("quantal.model", "quantal.runtime", "quantal.doctor"),
        tokens=_JSON,
        recipe=_from_nothing(lambda draw: recipes.card(draw, seeds.known_card())),
    )
    yield Target(
        name="graph",
        about="ONNX graphs of models",
        attempt=model,
        seeds=seeds.graphs,
        watched=("quantal.model", "quantal.runtime", "quantal.doctor"),
        recipe=_from_nothing(recipes.graph),
        quick=False,
        **binary,
    )
    yield Target(
        name="pack",
        about="packed models",
        attempt=archive,
        seeds=seeds.archives,
        watched=("quantal.packs", "quantal.model"),
        recipe=_from_nothing(lambda draw: recipes.pack(draw, seeds.known_card(), seeds.graph())),
        **binary,
    )


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

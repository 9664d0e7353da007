"""Good files of every kind to begin fuzzing from, small ones that are written here."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "tests"))

PART = b"\xffPART\xff"  # between the files of a folder in one input
PLANE = ("F.npy", "Fneu.npy", "iscell.npy")


def counts() -> NDArray[np.int16]:
    return np.arange(-60, 60, dtype=np.int16)


def abf1(folder: Path) -> list[bytes]:  # noqa: ARG001
    from readers.abf_files import abf1_bytes

    two = {"names": ("Im", "Vm"), "units": (b"pA", b"mV")}
    tags = [(10, b"drug on")]
    return [
        abf1_bytes(counts()),
        abf1_bytes(counts(), sweeps=2, lengths=(80, 40), tags=tags, header_blocks=4, **two),
        abf1_bytes(counts().astype(np.float32), ignored=20),
    ]


def abf2(folder: Path) -> list[bytes]:  # noqa: ARG001
    from lots import abf_recording
    from readers.abf_files import abf2_bytes

    two = {"names": ("Im", "Vm"), "units": (b"pA", b"mV")}
    return [
        abf2_bytes(counts()),
        abf2_bytes(counts(), sweeps=2, lengths=(80, 40), tags=[(10, b"drug on")], **two),
        abf2_bytes(counts().astype(np.float32), mode=3),
        abf_recording(seed=1, seconds=0.05),
    ]


def known_abf() -> list[NDArray[Any]]:
    return [counts() * 0.1 + 1]


def heka(folder: Path) -> list[bytes]:  # noqa: ARG001
    from readers.heka_files import OLD_SIZES, Wave, heka_bytes

    wave = counts()
    two = [Wave(wave), Wave(wave, label="Vmon-1", unit="V", scale=3e-5)]
    return [
        heka_bytes([[Wave(wave)]]),
        heka_bytes([two, two], [two], block=48),
        heka_bytes([[Wave(wave.astype(np.float64))]], order=">", sizes=OLD_SIZES, version=9),
    ]


def npy_bytes(values: Any) -> bytes:

    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def npy(folder: Path) -> list[bytes]:  # noqa: ARG001
    rows = np.arange(120, dtype=np.float32).reshape(3, 40)
    return [
        npy_bytes(counts()),
        npy_bytes(rows),
        npy_bytes(np.asfortranarray(rows.astype(">f8"))),
        npy_bytes(np.array([("a", 1)], [("x", "S1"), ("y", "i4")])),
    ]


_TABLES = (
    "time_s,Im (pA)\n" + "".join(f"{k / 1000},{k - 3.5}\n" for k in range(12)),
    "# remark\nIm (pA);Vm [mV]\n" + "".join(f"{k},5;-{k},25\n" for k in range(8)),
    "1 2 3\n4 5 6\n\n7 8 9\n",
    ",Im\n0,1.5\n1,2.5\n2,-3\n",
    "1\t2\t3\t4\n",
)


def csv(folder: Path) -> list[bytes]:  # noqa: ARG001
    return [*(text.encode() for text in _TABLES), _TABLES[0].encode("utf-16")]


def known_csv() -> list[NDArray[Any]]:
    return [np.arange(12) - 3.5]


def hdf5(folder: Path) -> list[bytes]:
    import h5py

    path = folder / "seed.h5"
    with h5py.File(path, "w") as file:
        file["trace"] = counts()
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


def nwb(folder: Path) -> list[bytes]:
    from readers.hdf5_files import nwb_bytes

    return [nwb_bytes(folder)]


def known_nwb() -> list[NDArray[Any]]:
    return [counts() * 0.1] * 3


def wavesurfer(folder: Path) -> list[bytes]:
    from readers.hdf5_files import wavesurfer_bytes

    return [wavesurfer_bytes(folder)]


def known_wavesurfer() -> list[NDArray[Any]]:
    return [counts() * 3e-4] * 3


def wcp(folder: Path) -> list[bytes]:
    from readers.neo_files import win_wcp

    return [win_wcp(folder).read_bytes()]


def vhdr(folder: Path) -> list[bytes]:
    from readers.neo_files import brain_vision as write

    return [write(folder).read_bytes()]


NEO_SUFFIXES = (
    *("wcp", "axgd", "axgx", "edf", "nex", "plx", "smr", "ncs", "nse", "nev", "ns5", "trc"),
    *("bdf", "mcd", "rhd", "rhs", "xml", "nix", "tbk", "oebin", "maxwell", "medx"),
)


def others(folder: Path) -> list[bytes]:
    magics = {"wcp": wcp(folder)[0], "axgd": b"axgx\0\0\0\x06" + bytes(600)}
    magics |= {"edf": b"0".ljust(256), "nex": b"NEX1".ljust(544, b"\0"), "plx": b"PLEX" * 300}
    magics |= {"smr": bytes(512), "ncs": b"######## Neuralynx".ljust(16_384, b"\0")}
    magics |= {"nev": b"NEURALEV".ljust(336, b"\0"), "ns5": b"NEURALCD".ljust(400, b"\0")}
    magics |= {"rhd": rhd(), "trc": bytes(640)}
    return [bytes([NEO_SUFFIXES.index(suffix)]) + one for suffix, one in magics.items()]


def rhd() -> bytes:
    """The first bytes of an Intan file."""
    return b"\x02\x69\x91\xc6\x01\0\x05\0" + bytes(400)


def plane(folder: Path) -> list[bytes]:
    from readers.roi_files import suite2p_plane

    place = folder / "seed"
    shutil.rmtree(place, ignore_errors=True)
    suite2p_plane(place)
    return [PART.join((place / name).read_bytes() for name in PLANE)]


def caiman(folder: Path) -> list[bytes]:
    from readers.roi_files import MATRIX, caiman

    path = folder / "seed.hdf5"
    caiman(path, F_dff=MATRIX / 100, YrA=MATRIX, idx_components=[3, 1])
    one = path.read_bytes()
    caiman(path, F_dff=None, YrA=MATRIX, idx_components=None)
    return [one, path.read_bytes()]


def nwb_rois(folder: Path) -> list[bytes]:
    from readers.roi_files import nwb

    path = folder / "seed.nwb"
    found = [nwb(path, masks=masks).read_bytes() for masks in ("pixel_mask", "image_mask")]
    return [*found, nwb(path, A="Fluorescence", B="DfOverF").read_bytes()]


def tiff(folder: Path) -> list[bytes]:
    import tifffile

    path = folder / "seed.tif"
    images = np.arange(24, dtype=np.uint16).reshape(4, 2, 3)
    tifffile.imwrite(path, images, imagej=True, metadata={"finterval": 0.01, "axes": "TYX"})
    found = [path.read_bytes()]
    tifffile.imwrite(path, images.astype("f4"), compression="zlib", photometric="minisblack")
    found.append(path.read_bytes())
    tifffile.imwrite(path, np.array([[0, 1, 1], [2, 2, 0]], np.uint8))
    return [*found, path.read_bytes()]


def matrix_hdf5(folder: Path) -> list[bytes]:
    return [*hdf5(folder), *caiman(folder)[:1]]


def some_events() -> Any:
    from quantal.events import COLUMNS, Sweep, column_type, make_events

    numbers = {name: [1.5, -2.25, np.nan] for name in COLUMNS if column_type(name) is np.float64}
    words = {"recording": 'cell "7"', "channel": "IN 0", "sweep": 0, "event": [0, 1, 2]}
    said = {"unit": "pA", "polarity": -1, "overlap": [True, False, False], "edge": False}
    return make_events(
        {**numbers, **words, **said, "status": ["found", "rejected", "found"]},
        [Sweep(recording="cell", channel="IN 0", sweep=0, unit="pA", analysed_s=10.0)],
    )


def events(folder: Path, *, suffix: str) -> list[bytes]:
    from quantal.save import save_events

    path = folder / f"seed{suffix}"
    save_events(some_events(), path)
    return [path.read_bytes()]


def table(folder: Path, *, suffix: str) -> list[bytes]:
    from quantal.save import save_table

    path = folder / f"seed{suffix}"
    save_table({"file": np.array(["a.abf", "b, c.abf"]), "amplitude": np.array([1.5, -2])}, path)
    return [path.read_bytes()]


def marks(folder: Path) -> list[bytes]:
    plain = "recording,channel,sweep,location_s,status\n" + "".join(
        f"cell,IN 0,0,{k / 7:g},{('found', 'rejected')[k % 2]}\n" for k in range(8)
    )
    return [plain.encode(), b"0.1\n0.2\n0.35\n", *events(folder, suffix=".csv")]


def dataset(folder: Path) -> list[bytes]:
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


def lists(folder: Path) -> list[bytes]:  # noqa: ARG001
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


def settings(folder: Path) -> list[bytes]:  # noqa: ARG001
    return [_SETTINGS.encode(), b"threads = 1e9\nfit = false\n[table]\na = 1\n"]


def graphs(folder: Path) -> list[bytes]:  # noqa: ARG001
    from graphs import graph_bytes

    return [graph_bytes(), graph_bytes(("n", 600), keep=1), graph_bytes(("n", 600), keep=2)]


def cards(folder: Path) -> list[bytes]:  # noqa: ARG001
    return [json.dumps(known_card(), indent=1).encode()]


def archives(folder: Path) -> list[bytes]:
    """A packed model."""
    from quantal.packs import pack_model

    place = folder / "seeds"
    place.mkdir(exist_ok=True)
    model_folder(place, known_card(), graph())
    return [pack_model(place / "model", folder / "seed.quantal").read_bytes()]


def known_card() -> dict[str, Any]:
    from quantal.model import Card

    return asdict(
        Card(
            name="mine",
            graphs={"model.onnx": sha256(graph())},
            test_inputs=[[0.5] * 600],
            test_scores=[0.5],
        )
    )


def sha256(content: bytes) -> str:

    return hashlib.sha256(content).hexdigest()


def graph() -> bytes:
    from graphs import graph_bytes

    return graph_bytes()


def model_folder(folder: Path, card: dict[str, Any], graph: bytes) -> Path:
    place = folder / "model"
    place.mkdir(exist_ok=True)
    for name in ("weights.bin", "model/weights.bin"):
        (folder / name).write_bytes(np.full(600, 7, np.float32).tobytes())
    (place / "card.json").write_text(json.dumps(card))
    (place / "model.onnx").write_bytes(graph)
    return place


def known_heka() -> list[NDArray[Any]]:
    return [counts() * 0.1]

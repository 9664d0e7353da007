"""Broken files by recipe: a fuzzer's bytes say what is changed inside the container of a good file.

Bytes of a file that are turned at random seldom reach what lies behind a checksum, a hash or a
tree of objects. A recipe (it begins with RECIPE, as no file here does) is read with atheris'
FuzzedDataProvider, `draw` below, and gives the bytes of a file that its library itself has written.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import random
import struct
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np

RECIPE = b"\0"
_BLOCK = 512

NUMBERS = (
    *(0, 1, -1, 2, 127, 128, 255, 256, 32_767, 32_768, 65_535, 2**31 - 1, -(2**31), 2**32 - 1),
    *(2**40, 2**53, 2**63 - 1, -(2**63)),
)
FLOATS = (0.0, -1.0, 1e-300, 1e-45, 1e300, math.nan, math.inf, -math.inf, 5e-324, 3.4e38)
TEXTS = ("", " ", "pA", "mV", "amperes", "ms", "Hz", "0", "-1", "1e999", "nan", "\x1b[2J", "µ", "x")


def packed_numbers() -> tuple[bytes, ...]:
    """Numbers at the limits of what they may be, as files store them in either byte order."""
    values = [("h", NUMBERS), ("i", NUMBERS), ("q", NUMBERS), ("f", FLOATS), ("d", FLOATS)]
    found = []
    for order in "<>":
        for form, numbers in values:
            for one in numbers:
                with suppress(struct.error, OverflowError):  # it does not fit this form
                    found.append(struct.pack(order + form, one))
    return tuple(dict.fromkeys(found))


def mutator(tokens: Sequence[bytes], change: Callable[[bytes, int], bytes]) -> Any:
    """A mutator of bytes: the fuzzer's own `change`, tokens put in, parts cut off or repeated.

    Most tokens go to the first 4 kB, where headers are; cuts are at blocks and at ends of lines.
    """

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        chance = random.Random(seed)
        choice = chance.random()
        if choice < 0.45 or len(data) < 2:
            return change(data, most)
        at = chance.randrange(min(len(data), 4096) if chance.random() < 0.7 else len(data))
        if choice < 0.85:
            token = chance.choice(tokens)
            if chance.random() < 0.5 and at > 4:
                at -= at % 4
            over = len(token) if chance.random() < 0.7 else 0
            return (data[:at] + token + data[at + over :])[:most]
        if choice < 0.95:
            line = data.find(b"\n", at) + 1
            return data[: line if line and chance.random() < 0.5 else at - at % _BLOCK] or data[:at]
        stop = chance.randrange(at, len(data)) + 1
        to = chance.randrange(len(data))
        return (data[:to] + data[at:stop] + data[to:])[:most]

    return mutate


# HDF5


def hdf5(draw: Any, wholes: Sequence[bytes]) -> bytes:
    """An HDF5 file that was changed through h5py: attributes, shapes, types, links, promises."""
    import h5py

    image = draw.PickValueInList(list(wholes))
    store = h5py.h5f.open_file_image(image, flags=h5py.h5f.FILE_IMAGE_OPEN_RW)
    with h5py.File(store) as file:
        names: list[str] = []
        file.visit(names.append)
        for _ in range(draw.ConsumeIntInRange(1, 4)):
            edit = draw.PickValueInList(_HDF5_EDITS)
            name = draw.PickValueInList([*names, "/"])
            with suppress(Exception):  # what HDF5 itself refuses to write is no input
                edit(draw, file, name)
        file.flush()
        stored = store.get_file_image()
    return _poked(draw, stored)


def _poked(draw: Any, stored: bytes) -> bytes:
    """A few numbers put in anywhere."""
    for _ in range(draw.ConsumeIntInRange(0, 2)):
        token = draw.PickValueInList(list(packed_numbers()))
        at = draw.ConsumeIntInRange(0, max(len(stored) - len(token), 0))
        stored = stored[:at] + token + stored[at + len(token) :]
    return stored


def _odd_value(draw: Any) -> Any:
    import h5py

    kind = draw.ConsumeIntInRange(0, 13)
    plain: dict[int, Callable[[], Any]] = {
        0: lambda: draw.PickValueInList(list(FLOATS)),
        1: lambda: draw.PickValueInList(list(NUMBERS[:-4])),
        2: lambda: draw.PickValueInList(list(TEXTS)),
        3: lambda: np.bytes_(draw.ConsumeBytes(8) or b"\xff"),
        4: lambda: np.array([], np.float32),
        5: lambda: np.array([1.0, 2.0, 3.0]),
        6: lambda: h5py.Empty("f4"),
        7: lambda: "x" * 5000,
        8: lambda: np.array(["a", "b"], h5py.string_dtype()),
        9: lambda: np.complex128(1 + 2j),
        10: lambda: np.array((1, 2.0), [("a", "i4"), ("b", "f8")]),
        11: lambda: np.array([[draw.PickValueInList(list(FLOATS))]]),
        12: lambda: np.array([True, False]),
        13: lambda: np.float32(draw.ConsumeFloat()),
    }
    return plain[kind]()


_ATTRIBUTES = (
    *("rate_hz", "dt", "dt_unit", "unit", "conversion", "offset", "rate", "neurodata_type"),
    *("sweep_number", "format", "schema", "nwb_version", "table", "frame_rate_hz", "provenance"),
)
_TYPES = (
    *("f4", "f8", ">f8", "f2", "i1", "u1", ">i2", "i4", "i8", "u8", "?", "S5", "c8"),
    *([("x", "u4"), ("y", "u4"), ("weight", "f4")], "longdouble", "object", "reference", "vlen"),
)
_SHAPES = (
    *((), (0,), (1,), (2,), (3,), (4,), (5,), (120,), (1, 120), (120, 1), (3, 40), (40, 3)),
    *((30, 3), (3, 30), (4, 30), (30, 4), (7, 7), (0, 5), (2, 3, 4)),
)
_HUGE = ((2**31,), (2**40,), (2**62,), (3, 2**33), (2**31, 2**31), (2**24, 4))


def _set_attribute(draw: Any, file: Any, name: str) -> None:
    known = [*file[name].attrs, *_ATTRIBUTES]
    file[name].attrs[draw.PickValueInList(known)] = _odd_value(draw)


def _drop_attribute(draw: Any, file: Any, name: str) -> None:
    del file[name].attrs[draw.PickValueInList(list(file[name].attrs))]


def _odd_array(draw: Any) -> Any:
    import h5py

    shape, kind = draw.PickValueInList(list(_SHAPES)), draw.PickValueInList(list(_TYPES))
    if kind == "object":
        return np.full(shape, "word", h5py.string_dtype())
    if kind == "reference":
        return np.empty(shape, h5py.ref_dtype)
    if kind == "vlen":
        return np.full(shape, "word", h5py.string_dtype("ascii"))
    values = np.zeros(shape, kind)
    if values.dtype.kind in "iuf":
        values[...] = np.resize(np.arange(max(values.size, 1)), shape)
        if values.size and draw.ConsumeBool():
            odd = draw.PickValueInList([*NUMBERS, *FLOATS])
            with np.errstate(all="ignore"), suppress(OverflowError, ValueError):
                values.flat[draw.ConsumeIntInRange(0, values.size - 1)] = odd
    return values


def _other_data(draw: Any, file: Any, name: str) -> None:
    kept = dict(file[name].attrs)
    del file[name]
    file[name] = _odd_array(draw)
    for key, value in kept.items():
        file[name].attrs[key] = value


def _promise(draw: Any, file: Any, name: str) -> None:
    """A data set that declares far more than was ever written."""
    shape = draw.PickValueInList(list(_HUGE))
    dtype = draw.PickValueInList(["f4", "f8", "i2"])
    packed = draw.PickValueInList([None, "gzip"])
    kept = dict(file[name].attrs)
    del file[name]
    chunks = tuple(min(n, 4096) for n in shape)
    file.create_dataset(name, shape=shape, dtype=dtype, chunks=chunks, compression=packed)
    for key, value in kept.items():
        file[name].attrs[key] = value


_BOMB = 1 << 21  # samples of a chunk: 4 MB unpacked, 4 kB packed


@cache
def _packed_zeros() -> bytes:
    import zlib

    return zlib.compress(bytes(2 * _BOMB), 9)


def _bomb(draw: Any, file: Any, name: str) -> None:
    """Zeros that were packed a thousand times smaller, 4 to 16 MB of them."""
    chunks = draw.ConsumeIntInRange(1, 4)
    kept = dict(file[name].attrs)
    del file[name]
    data = file.create_dataset(
        name, shape=(chunks * _BOMB,), dtype="i2", chunks=(_BOMB,), compression="gzip"
    )
    for chunk in range(chunks):
        data.id.write_direct_chunk((chunk * _BOMB,), _packed_zeros())
    for key, value in kept.items():
        data.attrs[key] = value


def _drop(draw: Any, file: Any, name: str) -> None:  # noqa: ARG001
    del file[name]


def _link(draw: Any, file: Any, name: str) -> None:
    """A link to nowhere, to itself, around in a circle, or out of the file."""
    import h5py

    places = ["/", name, "/nowhere", name.rpartition("/")[0] or "/", "acquisition", "estimates"]
    soft = h5py.SoftLink(draw.PickValueInList(places))
    out = h5py.ExternalLink(draw.PickValueInList(["other.h5", "/etc/passwd", "..", ""]), "/")
    kind = draw.ConsumeIntInRange(0, 2)
    if kind == 2:
        file[f"{name}/round"] = file[draw.PickValueInList(["/", name])]
        return
    del file[name]
    file[name] = soft if kind == 0 else out


def _elsewhere(draw: Any, file: Any, name: str) -> None:
    """Samples that lie in another file, which there is not, or in a system's own."""
    shape = draw.PickValueInList([(120,), (1, 120), (30, 3), (2**40,)])
    where = draw.PickValueInList(["/dev/zero", "/etc/passwd", "../canary", "nothing"])
    del file[name]
    size = 4 * math.prod(shape)
    file.create_dataset(name, shape=shape, dtype="f4", external=[(where, 0, size)])


def _other_kind(draw: Any, file: Any, name: str) -> None:
    import h5py

    was_group = isinstance(file[name], h5py.Group)
    del file[name]
    if was_group:
        file[name] = _odd_array(draw)
    else:
        file.create_group(name)


def _more(draw: Any, file: Any, name: str) -> None:
    """One more data set or group, with a name that readers look for."""
    group = file[name].parent.require_group(draw.PickValueInList(["sweep_0002", "more", "rois"]))
    child = draw.PickValueInList(["data", "analogScans", "timestamps", "starting_time", "F_dff"])
    group[child] = _odd_array(draw)


_HDF5_EDITS = [
    *(_set_attribute, _set_attribute, _drop_attribute, _other_data, _other_data, _promise, _bomb),
    *(_drop, _link, _elsewhere, _other_kind, _more),
]


# Cards, graphs and packs


def card(draw: Any, known: dict[str, Any]) -> bytes:
    """A model card in which some fields hold what they should not."""
    changed = dict(known)
    for _ in range(draw.ConsumeIntInRange(1, 3)):
        changed[draw.PickValueInList(sorted(known))] = _odd_json(draw)
    return json.dumps(changed).encode()


def _odd_json(draw: Any) -> Any:
    kinds: list[Callable[[], Any]] = [
        lambda: draw.PickValueInList([*NUMBERS, *FLOATS]),
        lambda: draw.PickValueInList([*TEXTS, "../x", "windows", "trace", "minmax", "noise"]),
        lambda: draw.PickValueInList([None, True, [], {}, [[]], [[1.0]], [None], [["x"]], [1, 2]]),
        lambda: draw.ConsumeIntInRange(-3, 1_000),
        lambda: {draw.PickValueInList(["../x.onnx", "model.onnx", "/etc/passwd", ""]): "0" * 64},
        lambda: [[draw.ConsumeFloat()] * draw.ConsumeIntInRange(0, 9)],
    ]
    return draw.PickValueInList(kinds)()


_OPERATORS = (
    *("Add", "Identity", "Reshape", "Expand", "Tile", "Conv", "LSTM", "Gather", "Loop", "If"),
    *("ConstantOfShape", "Range", "Slice", "Split", "MatMul", "Pad", "Resize", "NoSuchThing"),
)
_DIMENSIONS = ("n", None, 0, 1, 2, 600, -1, 2**31, 2**40)


def graph(draw: Any) -> bytes:
    """The mean of a window, and up to three nodes that may not fit, not exist or want too much."""
    import onnx
    from onnx import helper

    def tensor(name: str) -> Any:
        kind = draw.ConsumeIntInRange(0, 3)
        values = (
            np.array(draw.PickValueInList([1, 600, 2**31, 2**40, -1, 0]), np.int64),
            np.array([draw.PickValueInList([1, 2**20, 2**33, 0, -1])] * 2, np.int64),
            np.ones(draw.PickValueInList([(), (1,), (600,), (0,), (3, 600)]), np.float32),
            np.full((2,), draw.PickValueInList(list(FLOATS)), np.float64).astype(np.float32),
        )
        made = onnx.numpy_helper.from_array(values[kind], name)
        if draw.ConsumeIntInRange(0, 5) == 0:  # weights that lie in another file
            made.ClearField("raw_data")
            made.data_location = onnx.TensorProto.EXTERNAL
            place = made.external_data.add()
            place.key = "location"
            place.value = draw.PickValueInList(
                ["weights.bin", "../weights.bin", "/etc/passwd", "/dev/zero", "card.json", ""]
            )
        return made

    weights = [tensor(f"w{k}") for k in range(draw.ConsumeIntInRange(0, 3))]
    known = ["x", *(weight.name for weight in weights)]
    nodes = []
    for k in range(draw.ConsumeIntInRange(0, 3)):
        inputs = [draw.PickValueInList(known) for _ in range(draw.ConsumeIntInRange(0, 3))]
        options = {}
        if draw.ConsumeBool():
            name = draw.PickValueInList(["axis", "axes", "perm", "keepdims", "to", "hidden_size"])
            options[name] = draw.PickValueInList([0, 1, -1, 2**40, [0], [1, 2], [2**40]])
        operator = draw.PickValueInList(list(_OPERATORS))
        domain = draw.PickValueInList(["", "", "", "ai.onnx.ml", "com.microsoft", "nobody"])
        nodes.append(helper.make_node(operator, inputs, [f"y{k}"], domain=domain, **options))
        known.append(f"y{k}")
    shape = [draw.PickValueInList(list(_DIMENSIONS)) for _ in range(draw.ConsumeIntInRange(0, 4))]
    shape = draw.PickValueInList([["n", 600], ["n", 600, 1], shape])
    axes = list(range(1, len(shape))) or [0]
    nodes.append(helper.make_node("ReduceMean", ["x"], ["mean"], axes=axes, keepdims=0))
    output = draw.PickValueInList(["mean", "mean", draw.PickValueInList(known)])
    made = helper.make_graph(
        nodes,
        "any",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(output, 1, None)],
        weights,
    )
    opsets = [helper.make_opsetid("", draw.PickValueInList([17, 17, 17, 13, 1, 0, 999]))]
    model = helper.make_model(made, opset_imports=opsets, ir_version=8)
    return _poked(draw, model.SerializeToString())


_MEMBERS = (
    *("card.json", "model.onnx", "../model.onnx", "/tmp/model.onnx", "sub/model.onnx", "CARD.JSON"),
    *("..", "", ".", "model.onnx\0.txt", "C:\\model.onnx", "..\\model.onnx", "weights.bin", "nul"),
)


def pack(draw: Any, known: dict[str, Any], content: bytes) -> bytes:
    """A zip file of a card and graphs: strange names, twice the same, lies and bombs."""
    stream = io.BytesIO()
    graphs: dict[str, str] = {}
    members: list[tuple[str, bytes]] = []
    for _ in range(draw.ConsumeIntInRange(0, 4)):
        name = draw.PickValueInList(list(_MEMBERS))
        size = draw.PickValueInList([0, 1, 1, 1, 2_000])
        stored = content * size
        if draw.ConsumeBool():
            graphs[name] = hashlib.sha256(stored).hexdigest()
        members.append((name, stored))
    if draw.ConsumeBool():
        graphs["model.onnx"] = hashlib.sha256(content).hexdigest()
        members.append(("model.onnx", content))
    changed = {**known, "graphs": graphs}
    for _ in range(draw.ConsumeIntInRange(0, 1)):
        changed[draw.PickValueInList(sorted(known))] = _odd_json(draw)
    members.append(("card.json", json.dumps(changed).encode()))
    method = draw.PickValueInList(
        [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
    )
    with zipfile.ZipFile(stream, "w", method) as file:
        for name, stored in members:
            entry = zipfile.ZipInfo(name or "x")
            entry.compress_type = method
            entry.external_attr = draw.PickValueInList([0o644 << 16, 0o120777 << 16, 0o40755 << 16])
            with suppress(Exception):
                file.writestr(entry, stored)
    return _poked(draw, stream.getvalue())

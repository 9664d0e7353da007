"""A Keras file of the CNN-LSTM, of Keras 2 or 3 -> our own network with its weights.

The file is read as data: its configuration as JSON, which must describe the CNN-LSTM, and its
arrays by name. Nothing in it is deserialised into objects or run.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from quantal.errors import ModelError
from quantal.model import sha256_of
from quantal_trainer.backend import keras
from quantal_trainer.network import (
    BLOCKS,
    DENSE_UNITS,
    EPSILON,
    LSTM_UNITS,
    SLOPE,
    WINDOW_SAMPLES,
    cnn_lstm,
)

Array = NDArray[np.float32]
Config = dict[str, Any]

_FILE_BYTES = 64_000_000  # with its optimizer's state, an honest file has 3 MB
_CONFIG_BYTES = 1_000_000
_ARRAY_BYTES = 4_000_000
_HDF5, _ZIP = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"
_DAMAGED = (
    OSError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    RuntimeError,  # RecursionError too
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)
_LEAVES = {
    "Conv1D": ("kernel", "bias"),
    "BatchNormalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "Bidirectional": ("kernel", "recurrent_kernel", "bias") * 2,  # forwards, then backwards
    "Dense": ("kernel", "bias"),
}
# Keras 3 numbers the arrays of a layer; those of the two LSTMs lie further down.
_KERAS3_PLACES = {
    "Bidirectional": [
        f"{way}_layer/cell/vars/{i}" for way in ("forward", "backward") for i in range(3)
    ]
}
_GROUPS = {
    "Conv1D": "conv1d",
    "BatchNormalization": "batch_normalization",
    "Bidirectional": "bidirectional",
    "Dense": "dense",
}


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer of the file: its place (from 1, inputs not counted), class, name and settings."""

    number: int
    kind: str
    name: str
    config: Config

    def __str__(self) -> str:
        return f"layer {self.number} ({self.name!r})"


@dataclass(frozen=True, eq=False, kw_only=True)
class KerasFile:
    """What a Keras file holds of the CNN-LSTM.

    weights: for each layer that has any, its arrays in Keras' order.
    dropout: the rate that it was last trained with.
    """

    path: Path
    sha256: str
    keras_version: str
    dropout: float
    weights: list[list[Array]]

    def facts(self) -> dict[str, Any]:
        """Where the weights are from, for a card."""
        return {
            "imported_from": self.path.name,
            "sha256": self.sha256,
            "keras": self.keras_version,
            "dropout": round(self.dropout, 6),
        }

    def network(self) -> keras.Model:
        """Our network with the file's weights; raises ModelError if an array does not fit."""
        network = cnn_lstm()
        weighted = [layer for layer in network.layers if layer.weights]
        for layer, arrays in zip(weighted, self.weights, strict=True):
            wanted, found = [tuple(w.shape) for w in layer.weights], [a.shape for a in arrays]
            if wanted != found:
                raise ModelError(
                    f"{self.path} cannot be imported: its weights for {layer.name!r} have the "
                    f"shapes {found}; the CNN-LSTM's have {wanted}."
                )
            layer.set_weights(arrays)
        return network


def import_keras(path: str | Path) -> keras.Model:
    """The CNN-LSTM with the weights of a Keras 2 (.h5) or Keras 3 (.keras, .h5) file.

    Raises ModelError if the file cannot be read or holds another architecture.
    """
    return read_keras(path).network()


def read_keras(path: str | Path) -> KerasFile:
    """Read and check a Keras file of the CNN-LSTM; raises ModelError as `import_keras` does."""
    path = Path(path).expanduser()
    start = _first_bytes(path)
    try:
        if start == _HDF5:
            with h5py.File(path, "r") as file:
                return _from_hdf5(path, file)
        if start.startswith(_ZIP):
            with zipfile.ZipFile(path) as archive:
                return _from_zip(path, archive)
    except _DAMAGED as error:
        raise ModelError(f"{path} is damaged or no Keras model: {_one_line(error)}.") from None
    raise ModelError(
        f"{path} is neither HDF5 (.h5) nor a Keras archive (.keras); save the network with "
        'model.save("name.h5") or model.save("name.keras").'
    )


def _first_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise ModelError(f"{path} is a folder; give the .h5 or .keras file of a saved network.")
    try:
        size = path.stat().st_size
        if size > _FILE_BYTES:
            raise ModelError(
                f"{path} has {size / 1e6:.0f} MB; a CNN-LSTM has about 3 MB, and more than "
                f"{_FILE_BYTES / 1e6:.0f} MB are not read."
            )
        with path.open("rb") as file:
            return file.read(len(_HDF5))
    except FileNotFoundError:
        raise ModelError(f"there is no file {path}.") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}.") from None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__


# The two containers ------------------------------------------------------------------------------


def _from_hdf5(path: Path, file: h5py.File) -> KerasFile:
    if "model_config" not in file.attrs:
        raise ModelError(
            f"{path} holds no network's configuration (weights alone, or no Keras file); "
            "save the whole network with model.save."
        )
    weights = file["model_weights"]
    version = file.attrs.get("keras_version", "unknown")

    def arrays_of(layer: Layer) -> list[Array]:
        group = _child(weights, layer.name)
        places = [_text(name) for name in group.attrs["weight_names"]]
        leaves = tuple(place.split("/")[-1].split(":")[0] for place in places)
        if leaves != _LEAVES[layer.kind]:
            raise ModelError(
                f"{path} cannot be imported: {layer} has the weights {leaves}, "
                f"not {_LEAVES[layer.kind]}."
            )
        return [_array(group, place) for place in places]

    return _assemble(path, _json(file.attrs["model_config"]), _text(version), arrays_of)


def _from_zip(path: Path, archive: zipfile.ZipFile) -> KerasFile:
    config = _json(_member(archive, "config.json", _CONFIG_BYTES))
    version = _json(_member(archive, "metadata.json", _CONFIG_BYTES)).get(
        "keras_version", "unknown"
    )
    content = io.BytesIO(_member(archive, "model.weights.h5", _FILE_BYTES))
    with h5py.File(content, "r") as file:
        # "layers" in Keras 3; the other in the first .keras files, of Keras 2.12 to 2.15
        top = "layers" if "layers" in file else "_layer_checkpoint_dependencies"
        layers = _child(file, top)
        seen: dict[str, int] = {}

        def arrays_of(layer: Layer) -> list[Array]:
            count = seen[layer.kind] = seen.get(layer.kind, -1) + 1
            group = _child(layers, _GROUPS[layer.kind] + (f"_{count}" if count else ""))
            name = _text(group["vars"].attrs.get("name", layer.name))
            if name != layer.name:
                raise ModelError(
                    f"{path} cannot be imported: where the weights of {layer} should be are "
                    f"those of {name!r}."
                )
            places = _KERAS3_PLACES.get(layer.kind)
            return [
                _array(group, place)
                for place in places or [f"vars/{i}" for i in range(len(_LEAVES[layer.kind]))]
            ]

        return _assemble(path, config, str(version), arrays_of)


def _assemble(
    path: Path, config: Config, version: str, arrays_of: Callable[[Layer], list[Array]]
) -> KerasFile:
    try:
        layers = check_architecture(config)
    except ModelError as error:
        raise ModelError(f"{path} cannot be imported: {error}") from None
    rates = [layer.config["rate"] for layer in layers if layer.kind == "Dropout"]
    return KerasFile(
        path=path,
        sha256=sha256_of(path),
        keras_version=version,
        dropout=float(rates[-1]) if rates else 0.0,
        weights=[arrays_of(layer) for layer in layers if layer.kind in _LEAVES],
    )


def _member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """One member by its exact name, at most `limit` bytes whatever its header says."""
    if archive.namelist().count(name) != 1:
        raise ValueError(f"the archive must hold one {name}")
    with archive.open(name) as member:
        content = member.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"{name} in the archive has more than {limit / 1e6:.0f} MB")
    return content


def _child(group: h5py.Group, path: str) -> Any:
    """What lies at a path inside the same file: links to other files are not followed."""
    for part in path.split("/"):
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise KeyError(f"there is no {part!r} in {group.name}")
        group = group[part]
    return group


def _array(group: h5py.Group, path: str) -> Array:
    data = _child(group, path)
    if not isinstance(data, h5py.Dataset) or data.dtype.kind != "f":
        raise ValueError(f"{data.name} is not an array of floating-point numbers")
    if data.nbytes > _ARRAY_BYTES:
        raise ValueError(f"{data.name} is larger than any array of the CNN-LSTM")
    if data.chunks or data.is_virtual or data.external:  # compressed, or from another file
        raise ValueError(f"{data.name} is not stored in one piece, as Keras does")
    values = np.asarray(data[()], np.float32)
    if not np.isfinite(values).all():
        raise ValueError(f"{data.name} holds numbers that are not finite")
    return values


def _json(text: str | bytes) -> Config:
    if len(text) > _CONFIG_BYTES:
        raise ValueError("its configuration is too long")
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("its configuration is not an object")
    return content


def _text(value: str | bytes) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


# The architecture --------------------------------------------------------------------------------


def check_architecture(config: Config) -> list[Layer]:
    """The layers that a Keras configuration names; raises ModelError at the first that differs."""
    if config.get("class_name") != "Sequential":
        raise ModelError(
            f"it is a {config.get('class_name')} model; the CNN-LSTM is a Sequential one, "
            "a chain of layers."
        )
    layers = list(_layers(config["config"]))
    found, expected = list(_steps(layers)), list(_expected())
    for (layer, kind, values), (wanted_kind, wanted) in zip(found, expected, strict=False):
        if kind != wanted_kind:
            raise ModelError(f"{layer} is a {kind} where the CNN-LSTM has a {wanted_kind}.")
        for name, value in wanted.items():
            if not _same(_setting(values, name), value):
                raise ModelError(
                    f"{layer} is a {kind} with {name} {_setting(values, name)!r}, "
                    f"the CNN-LSTM has {name} {value!r}."
                )
    if len(found) > len(expected):
        layer, kind, _ = found[len(expected)]
        raise ModelError(f"{layer} is a {kind} after the CNN-LSTM's last layer.")
    if len(found) < len(expected):
        raise ModelError(f"it ends where the CNN-LSTM has a {expected[len(found)][0]}.")
    return layers


def _layers(config: Config) -> Iterator[Layer]:
    shape: Any = config.get("build_input_shape")
    number = 0
    for entry in config["layers"]:
        settings = entry["config"]
        shape = settings.get("batch_shape") or settings.get("batch_input_shape") or shape
        if entry["class_name"] == "InputLayer":
            continue
        number += 1
        yield Layer(
            number=number,
            kind=str(entry["class_name"]),
            name=str(settings["name"]),
            config=settings,
        )
    if shape is None or list(shape)[1:] != [WINDOW_SAMPLES, 1]:
        raise ModelError(
            f"its input has the shape {shape}, the CNN-LSTM's is [None, {WINDOW_SAMPLES}, 1]."
        )


def _steps(layers: list[Layer]) -> Iterator[tuple[Layer, str, Config]]:
    """What the layers compute, one thing at a time: layers within layers follow one another.

    Dropout is left out: it does nothing but while training.
    """
    for layer in layers:
        settings = layer.config
        if layer.kind == "Dropout":
            continue
        if layer.kind == "Bidirectional":
            yield layer, layer.kind, settings
            forward = settings["layer"]
            mirrored = {**forward, "config": {**forward["config"], "go_backwards": True}}
            for inner in (forward, settings.get("backward_layer") or mirrored):
                yield layer, inner["class_name"], inner["config"]
            continue
        activation = settings.get("activation")
        if isinstance(activation, dict) and activation.get("class_name") != "function":
            yield layer, layer.kind, {**settings, "activation": "linear"}
            yield layer, activation["class_name"], activation["config"]
        else:
            yield layer, layer.kind, settings


def _expected() -> Iterator[tuple[str, Config]]:
    for filters, kernel, pool in BLOCKS:
        yield "Conv1D", _conv(filters, kernel)
        yield "BatchNormalization", {"axis": -1, "epsilon": EPSILON, "center": True, "scale": True}
        yield "LeakyReLU", {"negative_slope": SLOPE}
        if pool > 1:
            yield "AveragePooling1D", {"pool_size": pool, "strides": pool, "padding": "valid"}
    yield "Bidirectional", {"merge_mode": "sum"}
    yield "LSTM", {**_lstm(), "go_backwards": False}
    yield "LSTM", {**_lstm(), "go_backwards": True}
    yield "Dense", {"units": DENSE_UNITS, "activation": "linear", "use_bias": True}
    yield "LeakyReLU", {"negative_slope": SLOPE}
    yield "Dense", {"units": 1, "activation": "sigmoid", "use_bias": True}


def _conv(filters: int, kernel: int) -> Config:
    return {
        "filters": filters,
        "kernel_size": kernel,
        "strides": 1,
        "padding": "same",
        "dilation_rate": 1,
        "groups": 1,
        "activation": "linear",
        "use_bias": True,
    }


def _lstm() -> Config:
    return {
        "units": LSTM_UNITS,
        "activation": "tanh",
        "recurrent_activation": "sigmoid",
        "use_bias": True,
        "return_sequences": False,
        "return_state": False,
        "stateful": False,
        "time_major": False,
    }


_LATER = {"groups": 1, "time_major": False}  # settings that only some versions of Keras write
_OLDER = {"negative_slope": "alpha"}


def _setting(values: Config, name: str) -> Any:
    value = values.get(name, values.get(_OLDER.get(name, name), _LATER.get(name)))
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return -1 if name == "axis" and value == 2 else value  # samples, time, features


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, float):
        return isinstance(found, int | float) and bool(np.isclose(found, wanted, rtol=1e-5, atol=0))
    return type(found) is type(wanted) and bool(found == wanted)

"""Foreign files: the public miniML models come in exactly, everything else is refused clearly."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from quantal.errors import ModelError
from quantal.model import Model
from quantal_trainer.backend import keras
from quantal_trainer.export import keras_scores, onnx_scores
from quantal_trainer.importer import check_architecture, import_keras, read_keras

PUBLIC = {  # a public miniML model's file -> the name of its scores
    "GC_lstm_model.h5": "GC",
    "GC_mEPSP.h5": "GC_mEPSP",
    "NMJ_GluRIIA.h5": "NMJ_GluRIIA",
    "NMJ_wt.h5": "NMJ_wt",
    "iGluSnFR.h5": "iGluSnFR",
    "zebrafish.h5": "zebrafish",
}
Arrays = dict[str, NDArray[np.float32]]


@pytest.fixture(scope="session")
def saved(network: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Our own network as this version of Keras saves it; copy before changing."""
    folder = tmp_path_factory.mktemp("saved")
    files = {suffix: folder / f"network{suffix}" for suffix in (".h5", ".keras")}
    for file in files.values():
        network.save(file)
    return files


@pytest.fixture(scope="session")
def configuration(saved: dict[str, Path]) -> str:
    with zipfile.ZipFile(saved[".keras"]) as archive:
        return archive.read("config.json").decode()


def copied(file: Path, folder: Path) -> Path:
    return Path(shutil.copy(file, folder / file.name))


def repacked(file: Path, target: Path, **members: bytes) -> Path:
    """A .keras archive with some members (config, metadata, weights) replaced."""
    names = {"config.json": "config", "metadata.json": "metadata", "model.weights.h5": "weights"}
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name, short in names.items():
            new.writestr(name, members.get(short, old.read(name)))
    return target


# What comes in -----------------------------------------------------------------------------------


@pytest.mark.parametrize("file", PUBLIC)
def test_a_public_model_scores_as_in_its_own_tensorflow(
    imported: Callable[[str], Model], reference: Arrays, file: str
) -> None:
    scores = onnx_scores(imported(file).graph, reference["windows"])
    assert np.abs(scores - reference[PUBLIC[file]]).max() < 1e-5


def test_a_keras_3_file_scores_as_keras_3_itself(
    imported: Callable[[str], Model], reference: Arrays, shared: Path
) -> None:
    file = "GC_model_keras3.keras"
    scores = onnx_scores(imported(file).graph, reference["windows"])
    theirs = keras.models.load_model(shared / "miniml" / "models" / file, compile=False)
    assert np.abs(scores - keras_scores(theirs, reference["windows"])).max() < 1e-5
    # It was trained anew on the data of the GC model: the same labels, but not the same scores.
    assert np.mean((scores > 0.5) == (reference["GC"] > 0.5)) > 0.95


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_our_own_network_comes_back_unchanged(
    saved: dict[str, Path], network: Any, suffix: str
) -> None:
    read = read_keras(saved[suffix])
    assert read.keras_version == keras.__version__
    assert read.dropout == pytest.approx(0.2)
    for ours, theirs in zip(network.get_weights(), read.network().get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_file_is_known_by_its_content_not_its_name(
    saved: dict[str, Path], tmp_path: Path
) -> None:
    assert import_keras(shutil.copy(saved[".h5"], tmp_path / "network.keras"))


def test_layers_come_in_the_order_of_the_configuration(
    saved: dict[str, Path], network: Any, tmp_path: Path
) -> None:
    """Keras 2 counts layers on through a session, so conv1d_9 can come before conv1d_10."""
    path = copied(saved[".h5"], tmp_path)
    with h5py.File(path, "r+") as file:
        configuration = file.attrs["model_config"]
        for old, new in (("conv_1", "conv1d_9"), ("conv_2", "conv1d_10")):
            file.move(f"model_weights/{old}", f"model_weights/{new}")
            configuration = configuration.replace(f'"{old}"', f'"{new}"')
        file.attrs["model_config"] = configuration
    kernel = import_keras(path).get_layer("conv_1").get_weights()[0]
    np.testing.assert_array_equal(kernel, network.get_layer("conv_1").get_weights()[0])


def test_the_first_keras_archives_are_read(
    saved: dict[str, Path], network: Any, tmp_path: Path
) -> None:
    """Keras 2.12 to 2.15 keep the layers under another name and give no names with the arrays."""
    with zipfile.ZipFile(saved[".keras"]) as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(content, "r+") as file:
        file.move("layers", "_layer_checkpoint_dependencies")
        file.visititems(lambda _, item: item.attrs.pop("name", None) and None)
    path = repacked(saved[".keras"], tmp_path / "old.keras", weights=content.getvalue())
    for ours, theirs in zip(network.get_weights(), import_keras(path).get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


# Other architectures -----------------------------------------------------------------------------


def _other() -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((600, 1)),
            layers.Conv1D(64, 9, padding="same", name="first"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(1, activation="sigmoid"),
        ]
    )


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_another_network_is_refused_with_the_first_difference(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"other{suffix}"
    _other().save(path)
    with pytest.raises(ModelError) as caught:
        import_keras(path)
    assert str(caught.value) == (
        f"{path} cannot be imported: layer 1 ('first') is a Conv1D with filters 64, "
        "the CNN-LSTM has filters 32."
    )


def test_a_functional_model_is_refused(tmp_path: Path) -> None:
    inputs = keras.Input((600, 1))
    path = tmp_path / "functional.keras"
    keras.Model(inputs, keras.layers.Dense(1)(inputs)).save(path)
    with pytest.raises(ModelError, match="Functional model"):
        import_keras(path)


@pytest.mark.parametrize(
    ("layer", "setting", "value", "message"),
    [
        ("conv_2", "filters", 64, r"layer 5 \('conv_2'\) is a Conv1D with filters 64, .* 48"),
        ("conv_2", "kernel_size", [9], "kernel_size 9, the CNN-LSTM has kernel_size 7"),
        ("conv_3", "strides", [2], "strides 2"),
        ("conv_3", "padding", "causal", "padding 'causal'"),
        ("conv_4", "dilation_rate", [2], "dilation_rate 2"),
        ("conv_4", "activation", "relu", "activation 'relu'"),
        ("conv_4", "use_bias", False, "use_bias False"),
        ("norm_1", "epsilon", 1e-5, "epsilon 1e-05, the CNN-LSTM has epsilon 0.001"),
        ("norm_1", "axis", 1, "axis 1"),
        ("norm_1", "scale", False, "scale False"),
        (
            "relu_1",
            "negative_slope",
            0.2,
            "negative_slope 0.2, the CNN-LSTM has negative_slope 0.3",
        ),
        ("pool_3", "pool_size", [3], "pool_size 3"),
        ("both_ways", "merge_mode", "concat", "merge_mode 'concat'"),
        ("lstm", "units", 64, r"layer 16 \('both_ways'\) is a LSTM with units 64"),
        ("lstm", "recurrent_activation", "hard_sigmoid", "recurrent_activation 'hard_sigmoid'"),
        ("lstm", "return_sequences", True, "return_sequences True"),
        ("dense", "units", 64, "units 64"),
        ("dense", "activation", "relu", "activation 'relu'"),
        ("score", "activation", "linear", "activation 'linear'"),
        ("score", "units", 2, "units 2"),
    ],
)
def test_every_setting_that_matters_is_compared(
    configuration: str, layer: str, setting: str, value: Any, message: str
) -> None:
    changed = json.loads(configuration)
    for entry in changed["config"]["layers"]:
        if entry["config"]["name"] == layer:
            assert setting in entry["config"]
            entry["config"][setting] = value
        if layer == "lstm" and entry["class_name"] == "Bidirectional":
            entry["config"]["layer"]["config"][setting] = value
    with pytest.raises(ModelError, match=message):
        check_architecture(changed)


def test_layers_more_or_less_are_refused(configuration: str) -> None:
    changed = json.loads(configuration)
    layers = changed["config"]["layers"]
    last = layers.pop()
    with pytest.raises(ModelError, match="ends where the CNN-LSTM has a Dense"):
        check_architecture(changed)
    layers += [last, last]
    with pytest.raises(ModelError, match="after the CNN-LSTM's last layer"):
        check_architecture(changed)
    layers[:] = [entry for entry in layers if entry["config"]["name"] != "pool_2"]
    with pytest.raises(ModelError, match=r"layer 8 .* is a Conv1D where .* a AveragePooling1D"):
        check_architecture(changed)


def test_another_window_is_refused(configuration: str) -> None:
    with pytest.raises(ModelError, match=r"\[None, 300, 1\].*\[None, 600, 1\]"):
        check_architecture(json.loads(configuration.replace("[null, 600, 1]", "[null, 300, 1]")))


def test_a_gru_or_a_lambda_is_refused(configuration: str) -> None:
    with pytest.raises(ModelError, match="is a GRU where the CNN-LSTM has a LSTM"):
        check_architecture(json.loads(configuration.replace('"LSTM"', '"GRU"')))
    with pytest.raises(ModelError, match="is a Lambda where the CNN-LSTM has a Conv1D"):
        check_architecture(json.loads(configuration.replace('"Conv1D"', '"Lambda"')))


# Bad files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("part", [0.001, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(
    saved: dict[str, Path], tmp_path: Path, suffix: str, part: float
) -> None:
    path = copied(saved[suffix], tmp_path)
    os.truncate(path, int(part * path.stat().st_size))
    with pytest.raises(ModelError, match=r"damaged|holds no network"):
        read_keras(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"time,current\n0,1.5\n", b"\x80\x04\x95pickle", bytes(range(256)) * 40],
    ids=["empty", "text", "pickle", "bytes"],
)
def test_what_is_no_keras_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "network.h5"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"neither HDF5 .* nor a Keras archive"):
        read_keras(path)


@pytest.mark.parametrize("start", [b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"], ids=["hdf5", "zip"])
def test_noise_behind_a_good_signature_is_refused(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "network.h5"
    path.write_bytes(start + np.random.default_rng(0).bytes(5_000))
    with pytest.raises(ModelError, match="damaged"):
        read_keras(path)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no file"):
        read_keras(tmp_path / "network.h5")
    with pytest.raises(ModelError, match="is a folder"):
        read_keras(tmp_path)


def test_a_file_too_large_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "network.h5"
    with path.open("wb") as file:
        file.write(b"\x89HDF\r\n\x1a\n")
        file.truncate(100_000_000)
    with pytest.raises(ModelError, match="100 MB"):
        read_keras(path)


def test_weights_alone_are_refused(network: Any, tmp_path: Path) -> None:
    network.save_weights(tmp_path / "network.weights.h5")
    with pytest.raises(ModelError, match="save the whole network"):
        read_keras(tmp_path / "network.weights.h5")


@pytest.mark.parametrize(("member", "megabytes"), [("config", 2), ("metadata", 2), ("weights", 65)])
def test_a_zip_bomb_is_not_unpacked(
    saved: dict[str, Path], tmp_path: Path, member: str, megabytes: int
) -> None:
    path = repacked(
        saved[".keras"], tmp_path / "bomb.keras", **{member: bytes(megabytes * 1_000_000)}
    )
    with pytest.raises(ModelError, match="has more than"):
        read_keras(path)


@pytest.mark.parametrize("names", [("../config.json",), (), ("config.json", "config.json")])
@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_members_are_read_by_their_exact_name(tmp_path: Path, names: tuple[str, ...]) -> None:
    path = tmp_path / "strange.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("first", b"x")
        for name in names:
            archive.writestr(name, b"{}")
    with pytest.raises(ModelError, match=r"must hold one config\.json"):
        read_keras(path)


@pytest.mark.parametrize("text", [b"[1, 2]", b"{", b"[" * 500_000, b'{"class_name": "Sequential"}'])
def test_a_strange_configuration_is_refused(
    saved: dict[str, Path], tmp_path: Path, text: bytes
) -> None:
    with pytest.raises(ModelError, match="damaged"):
        read_keras(repacked(saved[".keras"], tmp_path / "strange.keras", config=text))


def _compressed(kernel: str, file: h5py.File) -> None:
    values = file[kernel][()]
    del file[kernel]
    file.create_dataset(kernel, data=values, compression="gzip")


def _elsewhere(kernel: str, file: h5py.File) -> None:
    del file[kernel]
    file[kernel] = h5py.ExternalLink("/etc/passwd", "/kernel")


def _huge(kernel: str, file: h5py.File) -> None:
    del file[kernel]
    file.create_dataset(kernel, shape=(40_000_000,), dtype="f4")


def _words(kernel: str, file: h5py.File) -> None:
    del file[kernel]
    file[kernel] = "kernel"


def _not_finite(kernel: str, file: h5py.File) -> None:
    file[kernel][0] = np.nan


def _absent(kernel: str, file: h5py.File) -> None:
    del file[kernel]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_compressed, "one piece"),
        (_elsewhere, "there is no"),
        (_huge, "larger than any array"),
        (_words, "not an array"),
        (_not_finite, "not finite"),
        (_absent, "there is no"),
    ],
)
def test_strange_arrays_are_refused(
    saved: dict[str, Path],
    tmp_path: Path,
    damage: Callable[[str, h5py.File], None],
    message: str,
) -> None:
    path = copied(saved[".h5"], tmp_path)
    with h5py.File(path, "r+") as file:
        damage("model_weights/conv_1/cnn_lstm/conv_1/kernel", file)
    with pytest.raises(ModelError, match=message):
        read_keras(path)


def test_an_array_of_another_shape_is_refused(saved: dict[str, Path], tmp_path: Path) -> None:
    path = copied(saved[".h5"], tmp_path)
    bias = "model_weights/conv_1/cnn_lstm/conv_1/bias"
    with h5py.File(path, "r+") as file:
        del file[bias]
        file[bias] = np.zeros(31, np.float32)
    with pytest.raises(ModelError, match=r"'conv_1' have the shapes .*\(31,\)"):
        import_keras(path)


def test_arrays_of_another_layer_are_refused(saved: dict[str, Path], tmp_path: Path) -> None:
    path = copied(saved[".h5"], tmp_path)
    with h5py.File(path, "r+") as file:
        names = file["model_weights/norm_1"].attrs["weight_names"]
        file["model_weights/norm_1"].attrs["weight_names"] = names[::-1]
    with pytest.raises(ModelError, match="has the weights"):
        read_keras(path)

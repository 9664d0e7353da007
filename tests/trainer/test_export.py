"""Model folders: the graph agrees with Keras, is always the same, and lands whole or not at all."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from quantal.errors import ModelError, SaveError, UsageError
from quantal.model import CARD, GRAPH, Card, Model, load_model, sha256_of, stored_test
from quantal.runtime import open_session
from quantal_trainer import export
from quantal_trainer.backend import keras, onnx
from quantal_trainer.export import (
    export_model,
    keras_scores,
    onnx_scores,
    simulated_windows,
    to_onnx,
)
from quantal_trainer.network import cnn_lstm

Windows = NDArray[np.float32]


@pytest.fixture(scope="session")
def small() -> Any:
    """A quick network without a recurrent layer."""
    return keras.Sequential(
        [
            keras.Input((600, 1)),
            keras.layers.AveragePooling1D(60),
            keras.layers.Flatten(),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )


# The graph ---------------------------------------------------------------------------------------


def test_onnx_runtime_scores_as_keras_does(exported: Model, network: Any, windows: Windows) -> None:
    scores = onnx_scores(exported.graph, windows)
    assert scores.shape == (len(windows),)
    assert np.abs(scores - keras_scores(network, windows)).max() < 1e-5


def test_the_graph_has_one_lstm_and_no_loop(exported: Model) -> None:
    kinds = [node.op_type for node in onnx.load(exported.graph).graph.node]
    assert kinds.count("LSTM") == 1
    assert not {"Loop", "Scan", "If"} & set(kinds)


def test_the_graph_loads_in_older_runtimes_and_has_stable_names(exported: Model) -> None:
    model = onnx.load(exported.graph)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    assert model.ir_version == 8
    assert [tensor.name for tensor in model.graph.input] == ["windows"]
    assert [tensor.name for tensor in model.graph.output] == ["scores"]
    dims = [d.dim_value or d.dim_param for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert dims == ["n", 600, 1]


def test_exporting_again_gives_the_same_bytes(
    exported: Model, network: Any, windows: Windows, tmp_path: Path
) -> None:
    again = export_model(network, tmp_path / "again", card=Card(name="untrained"), windows=windows)
    for name in (GRAPH, CARD):
        assert sha256_of(again.folder / name) == sha256_of(exported.folder / name)


def test_export_leaves_the_network_ready_to_train(exported: Model, network: Any) -> None:
    assert exported
    lstm = network.get_layer("both_ways").forward_layer
    assert (lstm.dropout, lstm.use_cudnn) == (0.2, "auto")


def test_a_machine_with_a_gpu_exports_the_same_graph(
    exported: Model, network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keras takes cuDNN, which ONNX does not have, as soon as it sees a GPU."""
    backend = sys.modules["keras.src.backend.tensorflow.rnn"]
    monkeypatch.setattr(backend, "_is_gpu_available", lambda: True)
    assert to_onnx(network) == onnx.load(exported.graph)
    monkeypatch.setattr(export, "_as_on_a_cpu", lambda _: contextlib.nullcontext())
    with pytest.raises(ModelError, match="left no LSTM"):
        to_onnx(cnn_lstm(dropout=0))


def test_a_loop_in_the_graph_is_refused(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_LOOPS", {"AveragePool"})
    with pytest.raises(ModelError, match="left AveragePool in the graph"):
        export_model(small, tmp_path / "small", card=Card(name="small"))


def test_a_recurrent_network_without_an_lstm_node_is_refused(small: Any) -> None:
    with pytest.raises(ModelError, match="left no LSTM"):
        export._check_nodes(to_onnx(small), recurrent=True)


def test_a_graph_that_scores_otherwise_is_refused(
    small: Any, windows: Windows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = keras_scores(small, windows)
    monkeypatch.setattr(export, "keras_scores", lambda *_: scores + np.float32(1e-4))
    with pytest.raises(ModelError, match=r"differ from Keras' by up to 0\.0001"):
        export_model(small, tmp_path / "small", card=Card(name="small"), windows=windows)
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_gives_nan_is_refused(windows: Windows, tmp_path: Path) -> None:
    broken = cnn_lstm()
    broken.get_layer("score").set_weights([np.full((128, 1), np.nan), np.zeros(1)])
    with pytest.raises(ModelError, match="differ from Keras' by up to nan"):
        export_model(broken, tmp_path / "broken", card=Card(name="broken"), windows=windows[:2])


def test_a_network_over_a_whole_trace_can_be_converted() -> None:
    network = keras.Sequential(
        [keras.Input((None, 1)), keras.layers.Conv1D(1, 9, strides=4, padding="same")]
    )
    output = to_onnx(network).graph.output[0].type.tensor_type.shape.dim
    assert len(output) == 2


# The card ----------------------------------------------------------------------------------------


def test_the_test_vector_holds(exported: Model) -> None:
    inputs, scores = stored_test(exported.card)
    assert inputs.shape == (8, 600)
    np.testing.assert_array_equal(np.round(inputs.astype(np.float64), 4).astype("f4"), inputs)
    found = open_session(exported, "cpu").run_windows(inputs)
    np.testing.assert_allclose(found, scores, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("n_high", "n_low", "chosen_high"),
    [(90, 10, 4), (50, 50, 4), (2, 98, 2), (98, 2, 6), (0, 3, 0)],
)
def test_half_the_test_vector_holds_events_where_it_can(
    n_high: int, n_low: int, chosen_high: int
) -> None:
    scores = np.r_[np.linspace(0.6, 0.9, n_high), np.linspace(0.1, 0.4, n_low)].astype("f4")
    chosen = export._varied(scores[:, None], scores)[:, 0]
    assert len(chosen) == min(8, n_high + n_low)
    assert (chosen > 0.5).sum() == chosen_high
    assert len(set(chosen)) == len(chosen)
    assert {scores.min(), scores.max()} <= set(chosen)


def test_the_card_says_what_made_the_model(exported: Model) -> None:
    assert exported.card.graphs == {GRAPH: sha256_of(exported.graph)}
    assert set(exported.card.versions) == {
        *("quantal", "keras", "tensorflow", "tf2onnx", "onnx", "onnxruntime", "opset", "ir")
    }
    assert exported.card.versions["keras"] == keras.__version__
    json.loads((exported.folder / CARD).read_text(encoding="utf-8"))


def test_a_changed_graph_is_not_loaded(small: Any, windows: Windows, tmp_path: Path) -> None:
    model = export_model(small, tmp_path / "small", card=Card(name="small"), windows=windows)
    assert load_model(tmp_path / "small").card == model.card
    content = bytearray(model.graph.read_bytes())
    content[len(content) // 2] ^= 1
    model.graph.write_bytes(content)
    with pytest.raises(ModelError, match="not the file that its card describes"):
        load_model(tmp_path / "small")


# The folder --------------------------------------------------------------------------------------


def test_a_model_folder_is_replaced_and_nothing_is_left_behind(
    small: Any, windows: Windows, tmp_path: Path
) -> None:
    for name in ("first", "second"):
        export_model(small, tmp_path / "a" / "small", card=Card(name=name), windows=windows)
    assert load_model(tmp_path / "a" / "small").card.name == "second"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["small"]


@pytest.mark.parametrize("content", [("notes.txt",), ("card.json", "notes.txt"), ("other.onnx",)])
def test_other_folders_are_left_as_they_are(
    small: Any, windows: Windows, tmp_path: Path, content: tuple[str, ...]
) -> None:
    for name in content:
        (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match="holds other things than a model"):
        export_model(small, tmp_path, card=Card(name="small"), windows=windows)
    assert {path.name for path in tmp_path.iterdir()} == set(content)


def test_a_file_is_not_overwritten(small: Any, windows: Windows, tmp_path: Path) -> None:
    (tmp_path / "small").write_text("mine")
    with pytest.raises(UsageError, match="is not a folder"):
        export_model(small, tmp_path / "small", card=Card(name="small"), windows=windows)


def test_a_failed_export_keeps_the_model_that_was_there(
    small: Any, windows: Windows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_model(small, tmp_path / "small", card=Card(name="first"), windows=windows)

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(export, "write_card", full)
    with pytest.raises(SaveError, match="no space"):
        export_model(small, tmp_path / "small", card=Card(name="second"), windows=windows)
    assert [path.name for path in tmp_path.iterdir()] == ["small"]
    assert load_model(tmp_path / "small").card.name == "first"


@pytest.mark.parametrize(
    "wrong", [np.zeros((3, 599)), np.zeros(600), np.zeros((0, 600)), np.full((2, 600), np.nan)]
)
def test_windows_that_do_not_fit_are_refused(small: Any, tmp_path: Path, wrong: Windows) -> None:
    with pytest.raises(UsageError, match="windows must"):
        export_model(small, tmp_path / "small", card=Card(name="small"), windows=wrong)


def test_a_card_for_another_window_is_refused(small: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="windows of 300 samples, the network takes 600"):
        export_model(small, tmp_path / "small", card=Card(name="small", window_samples=300))


# The simulated windows ---------------------------------------------------------------------------


@pytest.mark.parametrize("window_samples", [128, 600])
def test_simulated_windows_are_scaled_and_point_the_way_asked_for(window_samples: int) -> None:
    down = simulated_windows(window_samples, "negative", count=200)
    up = simulated_windows(window_samples, "positive", count=200)
    for windows in (down, up):
        assert windows.shape == (200, window_samples)
        assert (windows.min(axis=1) == 0).all()
        assert (windows.max(axis=1) == 1).all()
    assert np.median(down) > 0.5 > np.median(up)

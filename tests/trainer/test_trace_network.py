"""The trace network: its shape, how far it looks, and that ONNX Runtime gives what Keras does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quantal.detect import detect
from quantal.errors import ModelError, UsageError
from quantal.model import Card, Model, load_model
from quantal.scan import scan
from quantal.simulate import simulate_recording
from quantal_trainer.backend import keras, onnx
from quantal_trainer.calibrate import shift_scores
from quantal_trainer.export import export_model, onnx_scores
from quantal_trainer.simulated_traces import CLASSES
from quantal_trainer.trace_graph import from_graph, without_norms
from quantal_trainer.trace_network import HOP, UNIT, margin, trace_network, with_classes


@pytest.fixture(scope="module")
def network() -> keras.Model:
    """Fresh weights, and batch norms that are not all the same."""
    keras.utils.set_random_seed(3)
    network = trace_network()
    rng = np.random.default_rng(3)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return network


@pytest.fixture(scope="module")
def model(network: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Model:
    card = Card(
        name="fresh",
        kind="trace",
        scaling="noise",
        window_samples=300,
        polarity="positive",
        stride=HOP,
        margin_samples=margin(),
        reference_sample=HOP // 2,
        search_samples=25,
    )
    samples = np.random.default_rng(0).standard_normal((4, 4 * UNIT)).astype(np.float32)
    folder: Path = tmp_path_factory.mktemp("trace") / "fresh"
    return export_model(network, folder, card=card, windows=samples)


def test_a_score_stands_for_every_ten_samples(network: keras.Model) -> None:
    for length in (UNIT, 5 * UNIT):
        assert network(np.zeros((2, length, 1), np.float32)).shape == (2, length // HOP, 1)


def test_without_its_norms_a_network_gives_the_same_scores(network: keras.Model) -> None:
    lean = without_norms(network)
    assert not any("norm" in layer.name for layer in lean.layers)
    x = np.random.default_rng(2).standard_normal((2, 4 * UNIT, 1)).astype(np.float32)
    np.testing.assert_allclose(lean(x), network(x), atol=1e-5)
    assert network(x).numpy().std() > 1e-3


def test_nothing_beyond_the_margin_changes_a_score(network: keras.Model) -> None:
    n = 2 * margin() + UNIT
    x = np.random.default_rng(1).standard_normal((1, n, 1)).astype(np.float32)
    other = x.copy()
    other[0, : UNIT // 2] += 100
    before, after = (np.asarray(network(v))[0, :, 0] for v in (x, other))
    first = (UNIT // 2 + margin()) // HOP
    np.testing.assert_allclose(after[first:], before[first:], atol=1e-6)
    assert np.abs(after - before)[:first].max() > 1e-3


def test_scores_of_a_scan_do_not_depend_on_what_comes_much_later(model: Model) -> None:
    trace, _ = simulate_recording(seconds=8, seed=4)
    whole = scan(trace, model).values
    part = scan(trace.between(0, 6), model).values
    settled = int((6 - 0.1) * 2_500) - margin() // HOP  # the baseline looks 80 ms ahead
    np.testing.assert_allclose(part[:settled], whole[:settled], atol=1e-5)


def test_detection_runs_at_any_rate(model: Model) -> None:
    for rate_hz in (10_000.0, 20_000.0, 99_999.0):
        trace, _ = simulate_recording(seconds=1, seed=5)
        trace = type(trace)(samples=trace.samples, rate_hz=rate_hz, unit="pA")
        assert len(scan(trace, model)) == pytest.approx(trace.duration_s * 2_500, abs=2)
        detect(trace, model=model, direction="both")


def test_stretches_of_another_length_than_the_network_takes_are_refused(
    network: keras.Model, tmp_path: Path
) -> None:
    card = Card(name="x", window_samples=600)
    with pytest.raises((UsageError, ValueError)):
        export_model(network, tmp_path / "x", card=card, windows=np.zeros((2, 300), np.float32))


def test_the_graph_is_lean_and_its_weights_come_back(network: keras.Model, model: Model) -> None:
    graph = onnx.load(model.graph).graph
    kinds = {node.op_type for node in graph.node}
    softmax = {"Clip", "Exp", "ReduceSum", "Div"}
    assert kinds == {"Reshape", "Conv", "ConvTranspose", "Relu", "Add"} | softmax
    again = from_graph(graph)
    x = np.random.default_rng(2).standard_normal((2, 8 * UNIT, 1)).astype(np.float32)
    np.testing.assert_allclose(again(x), network(x), atol=1e-5)


def test_scores_of_absurd_logits_are_numbers(model: Model, tmp_path: Path) -> None:
    graph = onnx.load(model.graph)
    bias = next(c for c in graph.graph.initializer if c.name == "logits.bias")
    for sign, score in ((-1, 0.0), (1, 1.0)):
        absurd = sign * np.float32(1e4) * np.sign(np.arange(1 + CLASSES) - 0.5).astype(np.float32)
        bias.CopyFrom(onnx.numpy_helper.from_array(absurd, bias.name))
        (tmp_path / "absurd.onnx").write_bytes(graph.SerializeToString())
        scores = onnx_scores(tmp_path / "absurd.onnx", np.zeros((1, 4 * UNIT), np.float32))
        np.testing.assert_allclose(scores, score, atol=1e-6)


def test_a_score_is_the_sum_of_the_classes_of_events(network: keras.Model) -> None:
    x = np.random.default_rng(6).standard_normal((2, 4 * UNIT, 1)).astype(np.float32)
    shares = np.asarray(with_classes(network)(x))
    assert shares.shape[-1] == 1 + CLASSES
    np.testing.assert_allclose(shares.sum(axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(network(x)[..., 0], 1 - shares[..., 0], atol=1e-5)


@pytest.mark.parametrize("shift", [-0.7, 1.5])
def test_a_shift_lowers_the_logit_of_every_score(shift: float) -> None:
    keras.utils.set_random_seed(5)
    network = trace_network((8, 8, 8))
    x = np.random.default_rng(6).standard_normal((1, 4 * UNIT, 1)).astype(np.float32)
    before = np.asarray(network(x), np.float64)
    shift_scores(network, shift)
    after = np.asarray(network(x), np.float64)
    logits = [np.log(scores / (1 - scores)) for scores in (before, after)]
    np.testing.assert_allclose(logits[1], logits[0] - shift, atol=1e-4)


def test_another_network_is_no_trace_network() -> None:
    graph = onnx.load(load_model("cnn-lstm").graph).graph
    with pytest.raises(ModelError, match="is not a trace network"):
        from_graph(graph)

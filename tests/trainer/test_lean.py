"""Leaner graphs: fewer nodes, the same scores, and no hand laid on what has another form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from quantal.model import Model
from quantal.runtime import load_runtime
from quantal_trainer.backend import onnx
from quantal_trainer.lean import made_lean
from quantal_trainer.restore import restore

Samples = NDArray[np.float32]
CHANNELS, WIDTH = 3, 12


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def scores(model: onnx.ModelProto, x: Samples) -> Samples:
    session = load_runtime().InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": x})[0])


def graph(steps: list[tuple[str, Any]], seed: int = 0) -> onnx.ModelProto:
    """x (n, 1, 1, width) through a convolution and then these steps, each with its constant."""
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(CHANNELS, 1, 1, 3)).astype(np.float32)
    constants = [onnx.numpy_helper.from_array(kernel, "w")]
    nodes = [onnx.helper.make_node("Conv", ["x", "w"], ["y0"], pads=[0, 1, 0, 1])]
    for k, (kind, constant) in enumerate(steps):
        inputs = [f"y{k}"]
        if constant is not None:
            constants.append(onnx.numpy_helper.from_array(np.asarray(constant), f"c{k}"))
            inputs.append(f"c{k}")
        pool = {"kernel_shape": [1, 2]} if kind == "AveragePool" else {}
        nodes.append(onnx.helper.make_node(kind, inputs, [f"y{k + 1}"], **pool))
    float_ = onnx.TensorProto.FLOAT
    body = onnx.helper.make_graph(
        nodes,
        "steps",
        [onnx.helper.make_tensor_value_info("x", float_, ["n", 1, 1, WIDTH])],
        [onnx.helper.make_tensor_value_info(f"y{len(steps)}", float_, None)],
        constants,
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    return onnx.helper.make_model(body, opset_imports=opsets, ir_version=8)


def by_channel(*trailing: int, seed: int = 1) -> Samples:
    values = np.random.default_rng(seed).uniform(0.5, 2, CHANNELS)
    return values.reshape(1, CHANNELS, *trailing).astype(np.float32)


AXIS = np.array([2], np.int64)
LIKE_KERAS: list[tuple[str, Any]] = [
    ("Squeeze", AXIS),
    ("Add", by_channel(1)),
    ("Mul", by_channel(1, seed=2)),
    ("Add", by_channel(1, seed=3)),
    ("LeakyRelu", None),
    ("Unsqueeze", AXIS),
    ("AveragePool", None),
]


def assert_same_scores(steps: list[tuple[str, Any]]) -> onnx.ModelProto:
    x = np.random.default_rng(9).normal(size=(4, 1, 1, WIDTH)).astype(np.float32)
    before, lean = scores(graph(steps), x), made_lean(graph(steps))
    np.testing.assert_allclose(scores(lean, x), before, rtol=2e-6, atol=2e-6)
    return lean


def test_a_convolution_of_keras_becomes_three_nodes() -> None:
    lean = assert_same_scores(LIKE_KERAS)
    assert kinds(lean) == ["Conv", "LeakyRelu", "AveragePool"]
    assert len(lean.graph.initializer) == 2


def test_the_axis_is_dropped_later_where_nothing_puts_it_back() -> None:
    lean = assert_same_scores([*LIKE_KERAS[:5], ("Sigmoid", None)])
    assert kinds(lean) == ["Conv", "LeakyRelu", "Squeeze", "Sigmoid"]


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(st.tuples(st.sampled_from(["Add", "Mul"]), st.integers(0, 99)), max_size=5),
    dropped_after=st.integers(0, 5),
)
def test_sums_and_products_fold_in_any_order(
    steps: list[tuple[str, int]], dropped_after: int
) -> None:
    dropped_after = min(dropped_after, len(steps))
    chain: list[tuple[str, Any]] = [
        (kind, by_channel(*((1, 1) if k < dropped_after else (1,)), seed=seed))
        for k, (kind, seed) in enumerate(steps)
    ]
    chain.insert(dropped_after, ("Squeeze", AXIS))
    lean = assert_same_scores([*chain, ("LeakyRelu", None)])
    assert kinds(lean) == ["Conv", "LeakyRelu", "Squeeze"]


@pytest.mark.parametrize(
    "steps",
    [
        [("LeakyRelu", None)],
        [("Sigmoid", None), ("LeakyRelu", None)],
        [("Squeeze", AXIS), ("Mul", np.full((1, CHANNELS, WIDTH), 2, "f4")), ("LeakyRelu", None)],
        [("Mul", np.float32(2)), ("LeakyRelu", None)],
        [("Add", by_channel(1)), ("LeakyRelu", None)],  # along the wrong axis
        [("Mul", by_channel(1, 1))],
    ],
    ids=["nothing", "sigmoid", "by sample", "a number", "other axis", "no leaky ReLU"],
)
def test_what_has_another_form_stays_as_it_is(steps: list[tuple[str, Any]]) -> None:
    before = graph(steps)
    assert kinds(assert_same_scores(steps)) == kinds(before)


def test_a_convolution_that_two_nodes_read_stays_as_it_is() -> None:
    def branched() -> onnx.ModelProto:
        model = graph([("Mul", by_channel(1, 1)), ("LeakyRelu", None)])
        model.graph.node.append(onnx.helper.make_node("Add", ["y0", "y2"], ["sum"]))
        model.graph.output[0].name = "sum"
        return model

    x = np.random.default_rng(9).normal(size=(4, 1, 1, WIDTH)).astype(np.float32)
    np.testing.assert_array_equal(scores(made_lean(branched()), x), scores(branched(), x))


def test_the_exported_cnn_lstm_is_lean_and_comes_back(exported: Model, network: Any) -> None:
    found = kinds(onnx.load(exported.graph))
    before_lstm = found[: found.index("LSTM")]
    assert before_lstm.count("Conv") == before_lstm.count("LeakyRelu") == 4
    assert not {"Add", "Mul"} & set(before_lstm)
    again = restore(exported)
    x = np.random.default_rng(5).random((3, 600, 1)).astype(np.float32)
    np.testing.assert_allclose(again(x).numpy(), network(x).numpy(), atol=1e-5)

"""A writer of small ONNX graphs; they need onnx."""

from __future__ import annotations

from typing import Any

import numpy as np


def graph_bytes(
    shape: tuple[Any, ...] = ("n", 600, 1),
    *,
    keep: int = 0,
    opset: int = 17,
    ir: int = 8,
) -> bytes:
    """A network that gives the mean of each window; or of each channel, or the first `keep`."""
    import onnx

    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    axes = list(range(1, len(shape)))
    if keep:
        starts, ends, dims = (
            onnx.numpy_helper.from_array(np.array([value], np.int64), name)
            for name, value in (("starts", 0), ("ends", keep), ("dims", 1))
        )
        node = helper.make_node("Slice", ["x", "starts", "ends", "dims"], ["y"])
        weights = [starts, ends, dims]
    else:
        node = helper.make_node("ReduceMean", ["x"], ["y"], axes=axes, keepdims=0)
        weights = []
    graph = helper.make_graph(
        [node],
        "mean",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, None)],
        weights,
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir).SerializeToString()


def graph_without_inputs() -> bytes:
    """A network that gives a number whatever it is asked."""
    from onnx import helper, numpy_helper

    weight = numpy_helper.from_array(np.ones(1, np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["y"])],
        "constant",
        [],
        [helper.make_tensor_value_info("y", 1, [1])],
        [weight],
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def graph_with_weights_elsewhere(place: str) -> bytes:
    """A network whose weights lie in another file."""
    import onnx

    model = onnx.load_from_string(graph_without_inputs())
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", place
    return model.SerializeToString()

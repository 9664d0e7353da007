"""The trace network as a lean ONNX graph, and back: batch norms folded, nothing turned round.

Written node by node, for a general converter leaves a transposition around every convolution. So
does a Softmax node over channels, which takes six times as long as its parts.
Weights keep their layers' names, so that the graph can be trained further.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.errors import ModelError
from quantal_trainer.backend import keras, onnx
from quantal_trainer.trace_network import FILTERS, trace_network

Array = NDArray[np.float32]
Weights = dict[str, tuple[Array, Array]]

_LARGEST = 60.0  # of a logit: its exponential, and the sum of some, are single precision numbers


def is_trace_network(network: keras.Model) -> bool:
    """Whether this is the network that `trace_network` builds, of any width."""
    return bool(network.name == "trace_network")


def folded_weights(network: keras.Model) -> Weights:
    """Kernel and bias of every convolution, with the batch norm after it folded in."""
    weights: Weights = {}
    for layer in network.layers:
        if not isinstance(layer, keras.layers.Conv1D | keras.layers.Conv1DTranspose):
            continue
        kernel, *bias = (np.asarray(w, np.float32) for w in layer.get_weights())
        shift = bias[0] if bias else np.zeros(kernel.shape[-1], np.float32)
        norm = _layer(network, f"{layer.name}_norm")
        if norm is not None:
            gamma, beta, mean, variance = (np.asarray(w, np.float64) for w in norm.get_weights())
            scale = gamma / np.sqrt(variance + norm.epsilon)
            kernel, shift = kernel * scale, beta + scale * (shift - mean)
        weights[layer.name] = (kernel.astype(np.float32), shift.astype(np.float32))
    return weights


def to_graph(network: keras.Model, opset: int, ir_version: int) -> onnx.ModelProto:
    """The graph, from "samples" (n, length, 1) to "scores" (n, length / hop)."""
    weights = folded_weights(network)
    nodes: list[onnx.NodeProto] = []
    constants = [
        onnx.numpy_helper.from_array(np.array([0, 1, 1, -1], np.int64), "as_rows"),
        onnx.numpy_helper.from_array(np.array([0, -1], np.int64), "as_scores"),
        onnx.numpy_helper.from_array(np.array([1], np.int64), "channels"),
        onnx.numpy_helper.from_array(np.float32(-_LARGEST), "lowest"),
        onnx.numpy_helper.from_array(np.float32(_LARGEST), "highest"),
    ]

    def add(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(onnx.helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    values = {network.inputs[0].name: add("Reshape", ["samples", "as_rows"], "rows")}
    for layer in network.layers[1:]:
        name, inputs = layer.name, [values[x.name] for x in _inputs(layer)]
        if isinstance(layer, keras.layers.BatchNormalization):
            result = inputs[0]  # is in the convolution before it
        elif isinstance(layer, keras.layers.ReLU):
            result = add("Relu", inputs, name)
        elif isinstance(layer, keras.layers.Add):
            result = add("Add", inputs, name)
        elif isinstance(layer, keras.layers.Softmax):
            small = add("Clip", [*inputs, "lowest", "highest"], f"{name}_clipped")
            parts = add("Exp", [small], f"{name}_exp")
            total = add("ReduceSum", [parts, "channels"], f"{name}_total", keepdims=1)
            result = add("Div", [parts, total], name)
        else:
            constants += _constants(layer, weights[name])
            kind = "ConvTranspose" if _is_up(layer) else "Conv"
            given = [*inputs, f"{name}.kernel", f"{name}.bias"]
            result = add(kind, given, name, **_geometry(layer))
        values[layer.output.name] = result
    add("Reshape", [values[network.outputs[0].name], "as_scores"], "scores")
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "trace_network",
        [onnx.helper.make_tensor_value_info("samples", kind, ["n", "length", 1])],
        [onnx.helper.make_tensor_value_info("scores", kind, ["n", "hops"])],
        constants,
    )
    opsets = [onnx.helper.make_opsetid("", opset)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


def from_graph(graph: onnx.GraphProto) -> keras.Model:
    """The Keras network of such a graph, its batch norms folded away, to be trained further.

    Raises ModelError if the graph is another network.
    """
    stored = {c.name: onnx.numpy_helper.to_array(c) for c in graph.initializer}
    try:
        widths = (
            len(stored["stem_mix.bias"]),
            len(stored["down_1.bias"]),
            len(stored["down_2.bias"]),
        )
        weights = {
            name.removesuffix(".kernel"): (
                kernel[:, :, 0].transpose(2, 1, 0),
                stored[name.replace(".kernel", ".bias")],
            )
            for name, kernel in stored.items()
            if name.endswith(".kernel")
        }
        return _of_weights(weights, widths)
    except (KeyError, ValueError, IndexError) as error:
        raise ModelError(f"the graph is not a trace network of quantal's ({error}).") from None


def without_norms(network: keras.Model) -> keras.Model:
    """The same trace network, of the usual width, its batch norms folded into its convolutions."""
    return _of_weights(folded_weights(network), FILTERS)


def _of_weights(weights: Weights, widths: tuple[int, int, int]) -> keras.Model:
    network = trace_network(widths, norms=False)
    for layer in network.layers:
        if layer.weights:
            kernel, bias = weights[layer.name]
            layer.set_weights([kernel, bias] if layer.use_bias else [kernel])
    return network


def _layer(network: keras.Model, name: str) -> keras.Layer | None:
    return next((layer for layer in network.layers if layer.name == name), None)


def _inputs(layer: keras.Layer) -> list[Any]:
    return layer.input if isinstance(layer.input, list) else [layer.input]


def _is_up(layer: keras.Layer) -> bool:
    return isinstance(layer, keras.layers.Conv1DTranspose)


def _constants(layer: keras.Layer, weights: tuple[Array, Array]) -> list[onnx.TensorProto]:
    """Kernel and bias by the layer's name; Keras has (width, in, out), going up (width, out, in).

    ONNX wants (out, in, 1, width), going up (in, out, 1, width): the same turn for both.
    """
    kernel, bias = weights
    turned = np.ascontiguousarray(kernel.transpose(2, 1, 0)[:, :, None])
    return [
        onnx.numpy_helper.from_array(turned, f"{layer.name}.kernel"),
        onnx.numpy_helper.from_array(bias, f"{layer.name}.bias"),
    ]


def _geometry(layer: keras.Layer) -> dict[str, Any]:
    """Width, stride and the padding of "same" in Keras, where the stride divides the length."""
    (width,), (stride,) = layer.kernel_size, layer.strides
    padding = 0 if _is_up(layer) else max(width - stride, 0)
    before = padding // 2
    return {
        "kernel_shape": [1, width],
        "strides": [1, stride],
        "pads": [0, before, 0, padding - before],
    }

"""A converted graph, leaner: batch norms folded into convolutions, no axis dropped and put back.

Keras' convolutions in one dimension are converted to ones in two whose spare axis is dropped after
each; scale and shift of their batch norms stay nodes of their own, which cost as much as a
convolution. Scores stay what they are but for rounding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal_trainer.backend import onnx

Array = NDArray[np.float64]
Constants = dict[str, NDArray[Any]]


def made_lean(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network; what has another form than that of Keras' convolutions stays as it is."""
    nodes = list(model.graph.node)
    constants = {c.name: onnx.numpy_helper.to_array(c) for c in model.graph.initializer}
    for conv in [node for node in nodes if node.op_type == "Conv"]:
        _fold(conv, nodes, constants)
    _drop_pairs(nodes, constants)
    graph = model.graph
    used = {name for node in nodes for name in node.input} | {o.name for o in graph.output}
    kept = [onnx.numpy_helper.from_array(v, name) for name, v in constants.items() if name in used]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    return model


def _fold(conv: onnx.NodeProto, nodes: list[onnx.NodeProto], constants: Constants) -> None:
    """Put what is added to and multiplied with a convolution's channels into its weights.

    The axis that is dropped in between is dropped behind the leaky ReLU that must follow.
    """
    kernel = constants.get(conv.input[1])
    if kernel is None:
        return
    scale, shift = np.ones(len(kernel)), np.zeros(len(kernel))
    if len(conv.input) > 2:
        shift = shift + constants[conv.input[2]]
    passed: list[onnx.NodeProto] = []
    dropped: list[onnx.NodeProto] = []
    after = _only_reader(conv, nodes)
    while after is not None and after.op_type != "LeakyRelu":
        values = _by_channel(after, constants, (len(kernel), *[1] * (2 - len(dropped))))
        if after.op_type == "Squeeze" and not dropped:
            dropped.append(after)
        elif values is None:
            return
        elif after.op_type == "Mul":
            scale, shift = scale * values, shift * values
        else:
            shift = shift + values
        passed.append(after)
        after = _only_reader(after, nodes)
    if after is None or not passed:
        return
    folded = {"kernel": kernel * scale.reshape(-1, 1, 1, 1), "bias": shift}
    names = {part: f"{conv.output[0]}.{part}" for part in folded}
    constants.update({names[part]: v.astype(np.float32) for part, v in folded.items()})
    conv.input[:] = [conv.input[0], names["kernel"], names["bias"]]
    for node in passed:
        nodes.remove(node)
    after.input[0] = conv.output[0]
    if dropped:
        wide = f"{after.output[0]}.wide"
        dropped[0].input[0], dropped[0].output[0] = wide, after.output[0]
        after.output[0] = wide
        nodes.insert(nodes.index(after) + 1, dropped[0])


def _drop_pairs(nodes: list[onnx.NodeProto], constants: Constants) -> None:
    """Remove what drops an axis where the only reader puts it back."""
    for squeeze in [node for node in nodes if node.op_type == "Squeeze"]:
        back = _only_reader(squeeze, nodes)
        if back is None or back.op_type != "Unsqueeze" or len(squeeze.input) < 2:
            continue
        if np.array_equal(constants[squeeze.input[1]], constants[back.input[1]]):
            for node in nodes:
                node.input[:] = [
                    squeeze.input[0] if name == back.output[0] else name for name in node.input
                ]
            nodes.remove(squeeze)
            nodes.remove(back)


def _only_reader(node: onnx.NodeProto, nodes: list[onnx.NodeProto]) -> onnx.NodeProto | None:
    """The node that alone reads another's output."""
    readers = [other for other in nodes if node.output[0] in other.input]
    return readers[0] if len(readers) == 1 else None


def _by_channel(node: onnx.NodeProto, constants: Constants, shape: tuple[int, ...]) -> Array | None:
    """What a node adds or multiplies, a number for each channel; None of any other node."""
    values = [constants[name] for name in node.input if name in constants]
    if node.op_type not in ("Add", "Mul") or len(values) != 1:
        return None
    given = values[0].shape
    if given[-len(shape) :] != shape or values[0].size != shape[0]:
        return None
    return values[0].astype(np.float64).ravel()

"""A network's graph behind nodes that cut and scale its windows from a whole trace.

So a trace crosses to a device once, and not its windows, thirty times as much. Needs onnx.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from quantal.windows import ROUNDING

TRACE, STARTS, CUT_SCORES = "cut.trace", "cut.starts", "cut.scores"
_AXES_ARE_INPUT = 18  # the opset from which ReduceMin and ReduceMax take their axes as an input


def with_cutting(graph: Path, width: int) -> bytes:
    """The graph of a window network, from a trace and the first sample of each window to scores.

    Every window must lie inside the trace, whose samples must be finite. Windows are scaled, and
    flat ones score 0, as those of `quantal.windows.cut_windows`. Raises ImportError without onnx.
    """
    import onnx

    model = onnx.load(graph)
    network = model.graph
    given, result = network.input[0], network.output[0].name
    deep = len(given.type.tensor_type.shape.dim) == 3
    opset = next(o.version for o in model.opset_import if not o.domain)
    nodes: list[Any] = []
    constants = {
        "offsets": np.arange(width)[None],
        "first": np.array([1]),
        "last": np.array([2]),
        "flat_list": np.array([-1]),
        "rounding": np.array(ROUNDING, np.float32),
        "zero": np.array(0, np.float32),
        "one": np.array(1, np.float32),
    }

    def add(kind: str, *inputs: str, to: str = "", **attributes: Any) -> str:
        output = to or f"cut.{len(nodes)}"
        nodes.append(onnx.helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def extreme(kind: str, values: str) -> str:
        if opset >= _AXES_ARE_INPUT:
            return add(kind, values, "cut.first")
        return add(kind, values, axes=[1])

    at = add("Add", add("Unsqueeze", STARTS, "cut.first"), "cut.offsets")
    windows = add("Gather", TRACE, at)
    low, high = extreme("ReduceMin", windows), extreme("ReduceMax", windows)
    span = add("Sub", high, low)
    size = add("Max", add("Abs", low), add("Abs", high))
    flat = add("LessOrEqual", span, add("Mul", size, "cut.rounding"))
    scaled = add("Div", add("Sub", windows, low), add("Where", flat, "cut.one", span))
    zeroed = add("Where", flat, "cut.zero", scaled, to="" if deep else given.name)
    if deep:
        add("Unsqueeze", zeroed, "cut.last", to=given.name)
    nodes += network.node
    scores = add("Reshape", result, "cut.flat_list")
    add("Where", add("Squeeze", flat, "cut.first"), "cut.zero", scores, to=CUT_SCORES)
    kind = onnx.TensorProto
    whole = onnx.helper.make_graph(
        nodes,
        "cutting",
        [
            onnx.helper.make_tensor_value_info(TRACE, kind.FLOAT, ["samples"]),
            onnx.helper.make_tensor_value_info(STARTS, kind.INT64, ["n"]),
        ],
        [onnx.helper.make_tensor_value_info(CUT_SCORES, kind.FLOAT, ["n"])],
        [
            *network.initializer,
            *(onnx.numpy_helper.from_array(v, f"cut.{name}") for name, v in constants.items()),
        ],
    )
    composed = onnx.helper.make_model(
        whole, opset_imports=model.opset_import, ir_version=model.ir_version
    )
    content: bytes = composed.SerializeToString()
    return content

"""A Keras network -> a model folder: the ONNX graph, checked against Keras, beside its card."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import quantal
from quantal.disk import refuse_unwritable, scratch_folder
from quantal.errors import ModelError, UsageError
from quantal.model import CARD, GRAPH, Card, Model, load_model, sha256_of, write_card
from quantal.runtime import cores, load_runtime
from quantal.simulate import Rig, simulate_recording
from quantal.windows import cut_windows
from quantal_trainer.backend import keras, onnx, tf, tf2onnx
from quantal_trainer.lean import made_lean
from quantal_trainer.trace_graph import is_trace_network, to_graph

Array = NDArray[np.float32]

OPSET, IR_VERSION = 17, 8  # ONNX Runtime 1.12 and later
TOLERANCE = 1e-5  # between Keras and ONNX Runtime
INPUT, OUTPUT = "windows", "scores"
_TEST_WINDOWS = 8
_DECIMALS = 4
_BATCH = 64
_LOOPS = {"Loop", "Scan", "If"}


def export_model(
    network: keras.Model, folder: str | Path, *, card: Card, windows: Array | None = None
) -> Model:
    """Write a network as a model folder and load it back.

    card: what the network is for; the graph's hash, the software's versions and the test vector
    are filled in here (scores of several values a window one after the other).
    windows: scaled windows (n, window_samples) like those it was trained on, or stretches of scaled
    traces for a trace network, for the comparison with Keras and the test vector; None simulates
    some windows.

    A model folder that is already there is replaced. Raises UsageError if the folder holds
    anything else or the windows do not fit the network, ModelError if the graph does not score as
    Keras does.
    """
    target = Path(folder).expanduser().resolve()
    check_replaceable(target)
    if windows is None:
        windows = simulated_windows(card.window_samples, card.polarity)
    windows = _checked(windows, network, card)
    graph = to_onnx(network)
    with renamed_when_done(target) as fresh:
        path = fresh / GRAPH
        path.write_bytes(graph.SerializeToString(deterministic=True))
        _check_agreement(keras_scores(network, windows), onnx_scores(path, windows))
        write_card(_completed(card, path, windows), fresh)
    return load_model(target)


def to_onnx(network: keras.Model) -> onnx.ModelProto:
    """The network as an ONNX graph from its input to "scores", the same bytes every time.

    A last axis of one score is dropped: scores are (n,) for the CNN-LSTM.
    Raises ModelError if a recurrent layer did not become an ONNX LSTM.
    """
    if is_trace_network(network):
        return to_graph(network, OPSET, IR_VERSION)
    signature = [tf.TensorSpec((None, *network.input_shape[1:]), tf.float32, name=INPUT)]

    @tf.function(input_signature=signature)  # type: ignore[untyped-decorator]
    def score(windows: Any) -> dict[str, Any]:
        scores = network(windows, training=False)
        return {OUTPUT: tf.squeeze(scores, -1) if scores.shape[-1] == 1 else scores}

    with _as_on_a_cpu(network):
        graph, _ = tf2onnx.convert.from_function(score, input_signature=signature, opset=OPSET)
    graph = _with_plain_names(made_lean(graph))
    graph.ir_version = IR_VERSION
    _check_nodes(graph, recurrent=bool(_recurrent_layers(network.layers)))
    try:
        onnx.checker.check_model(graph, full_check=True)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"the network does not convert to plain ONNX: {error}") from None
    return graph


def keras_scores(network: keras.Model, windows: Array) -> Array:
    """What Keras gives for windows (n, window_samples), on the CPU: scores (n,) or (n, m)."""
    with _as_on_a_cpu(network):
        parts = [
            network(windows[i : i + _BATCH, :, None], training=False).numpy()
            for i in range(0, len(windows), _BATCH)
        ]
    scores = np.concatenate(parts)
    return scores[..., 0] if scores.shape[-1] == 1 else scores


def onnx_scores(path: Path, windows: Array) -> Array:
    """What ONNX Runtime gives for windows (n, window_samples), on the CPU."""
    runtime = load_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = cores()
    options.log_severity_level = 4
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0].name
    parts = [
        session.run([OUTPUT], {given: windows[i : i + _BATCH, :, None]})[0]
        for i in range(0, len(windows), _BATCH)
    ]
    return np.concatenate(parts)


def simulated_windows(
    window_samples: int, polarity: str = "negative", count: int = 256, seed: int = 1
) -> Array:
    """Scaled windows (count, window_samples) of simulated noise and events of many sizes.

    About every second window starts an event, whose decay fills a twelfth of the window.
    """
    stride = window_samples // 4
    rig = Rig()
    window_s = window_samples / rig.rate_hz
    trace, _ = simulate_recording(
        seconds=(count * stride + window_samples) / rig.rate_hz,
        frequency_hz=0.5 / window_s,
        amplitude=-8.0 if polarity == "negative" else 8.0,
        tau_rise_s=window_s / 60,
        tau_decay_s=window_s / 12,
        rig=rig,
        seed=seed,
    )
    windows, _ = cut_windows(trace.samples, 0, stride, count, window_samples)
    return windows


def _checked(windows: Array, network: keras.Model, card: Card) -> Array:
    windows = np.ascontiguousarray(windows, np.float32)
    if windows.ndim == 3 and windows.shape[2] == 1:
        windows = windows[:, :, 0]
    wanted = network.input_shape[1] or (
        card.window_samples if card.kind == "windows" else windows.shape[-1]
    )
    if card.kind == "windows" and wanted != card.window_samples:
        raise UsageError(
            f"the card says windows of {card.window_samples} samples, the network takes {wanted}."
        )
    if windows.ndim != 2 or windows.shape[1] != wanted or not len(windows):
        raise UsageError(f"windows must be (n, {wanted}), got {windows.shape}.")
    if not np.isfinite(windows).all():
        raise UsageError("windows must hold finite numbers; leave out those with nan.")
    return windows


# The graph ---------------------------------------------------------------------------------------


@contextmanager
def _as_on_a_cpu(network: keras.Model) -> Iterator[None]:
    """Let recurrent layers compute as they do for inference on a CPU.

    On a machine with a GPU they would become a cuDNN node, which ONNX does not have; and with
    dropout they leave a random number generator's state in the graph.
    """
    layers = _recurrent_layers(network.layers)
    before = [(x.use_cudnn, x.cell.dropout, x.cell.recurrent_dropout) for x in layers]
    try:
        for x in layers:
            x.use_cudnn, x.cell.dropout, x.cell.recurrent_dropout = False, 0.0, 0.0
        with tf.device("/CPU:0"):
            yield
    finally:
        for x, kept in zip(layers, before, strict=True):
            x.use_cudnn, x.cell.dropout, x.cell.recurrent_dropout = kept


def _recurrent_layers(layers: list[keras.Layer]) -> list[keras.Layer]:
    found = []
    for layer in layers:
        if hasattr(layer, "use_cudnn") and hasattr(layer, "cell"):
            found.append(layer)
        found += _recurrent_layers(getattr(layer, "layers", []))
        found += _recurrent_layers(
            [
                getattr(layer, side)
                for side in ("forward_layer", "backward_layer")
                if hasattr(layer, side)
            ]
        )
    return found


def _with_plain_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """Number nodes and tensors in order; tf2onnx's own counters never restart."""
    graph = model.graph
    names = {"": "", INPUT: INPUT, OUTPUT: OUTPUT}
    for i, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{i}"
        for tensor in (*node.input, *node.output):
            names.setdefault(tensor, f"t{len(names) - 3}")
        node.input[:] = [names[tensor] for tensor in node.input]
        node.output[:] = [names[tensor] for tensor in node.output]
    constants = sorted((names[c.name], c) for c in graph.initializer if c.name in names)
    kept = [
        onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(c), name) for name, c in constants
    ]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.value_info[:]
    for tensor in (*graph.input, *graph.output):
        for axis, dim in enumerate(tensor.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value"):
                dim.dim_param = "n" if axis == 0 else f"{tensor.name}_{axis}"
    domains = {node.domain for node in graph.node}
    used = [opset for opset in model.opset_import if opset.domain in domains]
    del model.opset_import[:]
    model.opset_import.extend(used)
    graph.name, graph.doc_string, model.doc_string = "quantal", "", ""
    return model


def _check_nodes(model: onnx.ModelProto, recurrent: bool) -> None:
    kinds = {node.op_type for node in model.graph.node}
    if kinds & _LOOPS or (recurrent and "LSTM" not in kinds):
        raise ModelError(
            f"the conversion left {', '.join(sorted(kinds & _LOOPS)) or 'no LSTM'} in the graph, "
            f"which would be slow: keras {keras.__version__} and tf2onnx {tf2onnx.__version__} do "
            "not fit together; the versions named in the cards of the shipped models do."
        )
    foreign = sorted({node.domain for node in model.graph.node} - {""})
    if foreign:
        raise ModelError(
            f"the conversion left nodes that are not plain ONNX: {', '.join(foreign)}."
        )


def _check_agreement(expected: Array, found: Array) -> None:
    if expected.shape != found.shape:
        raise ModelError(f"Keras gives scores {expected.shape}, the ONNX graph {found.shape}.")
    difference = float(np.abs(expected - found).max())
    if not difference <= TOLERANCE:
        raise ModelError(
            f"the ONNX graph's scores differ from Keras' by up to {difference:.2g}, more than "
            f"{TOLERANCE:.0e}; the network was not exported."
        )


# The card ----------------------------------------------------------------------------------------


def _completed(card: Card, graph: Path, windows: Array) -> Card:
    chosen = _varied(windows, onnx_scores(graph, windows))
    inputs = np.round(chosen.astype(np.float64), _DECIMALS)
    scores = onnx_scores(graph, inputs.astype(np.float32))
    return replace(
        card,
        graphs={GRAPH: sha256_of(graph)},
        scout={},  # of another network
        versions=_versions(),
        test_inputs=inputs.tolist(),
        test_scores=[float(score) for score in scores.ravel()],
    )


def _varied(windows: Array, scores: Array) -> Array:
    """At most eight windows whose scores span what there is, half of them above 0.5 if possible."""
    highest = scores.reshape(len(scores), -1).max(axis=1)
    order = np.argsort(highest, kind="stable")
    high = order[highest[order] > 0.5]
    low = order[highest[order] <= 0.5]
    half = _TEST_WINDOWS // 2
    n_high = min(len(high), max(half, _TEST_WINDOWS - len(low)))
    n_low = min(len(low), _TEST_WINDOWS - n_high)
    return windows[np.r_[_spread(low, n_low), _spread(high, n_high)]]


def _spread(indices: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    return (
        indices[np.linspace(0, len(indices) - 1, count).round().astype(int)]
        if count
        else indices[:0]
    )


def _versions() -> dict[str, str]:
    return {
        "quantal": quantal.__version__,
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "tf2onnx": tf2onnx.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": load_runtime().__version__,
        "opset": str(OPSET),
        "ir": str(IR_VERSION),
    }


# The folder --------------------------------------------------------------------------------------


def check_replaceable(target: Path) -> None:
    """Raise UsageError or SaveError unless a model folder can be written here.

    Nothing may be there, or an older model.
    """
    refuse_unwritable(target.parent)
    if not target.exists() and not target.is_symlink():
        return
    if not target.is_dir():
        raise UsageError(f"{target} is not a folder; give a new folder for the model.")
    strange = [
        entry.name for entry in target.iterdir() if entry.name != CARD and entry.suffix != ".onnx"
    ]
    if strange or (any(target.iterdir()) and not (target / CARD).is_file()):
        raise UsageError(
            f"{target} holds other things than a model "
            f"({', '.join(sorted(strange)[:3]) or 'no card'}) and is left as it is; "
            "give a new folder."
        )


@contextmanager
def renamed_when_done(target: Path) -> Iterator[Path]:
    """A folder beside the target that takes its place at the end, or vanishes with an error."""
    with scratch_folder(target.parent) as scratch:
        fresh, old = scratch / "new", scratch / "old"
        fresh.mkdir()
        yield fresh
        if target.exists():
            os.replace(target, old)
        try:
            os.replace(fresh, target)
        except OSError:
            if old.exists():
                os.replace(old, target)
            raise

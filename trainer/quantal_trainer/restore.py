"""A model folder -> the Keras network that it was exported from, to train further or to explain.

The graph holds every weight but one thing: batch norms of a CNN-LSTM come back as the scale and
shift that they are at inference, those of a trace network not at all. `adapt_norms` gives the
former the statistics of windows before they are trained.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quantal.errors import ModelError
from quantal.model import Card, Model, load_model, stored_test
from quantal_trainer.backend import keras, onnx
from quantal_trainer.export import keras_scores
from quantal_trainer.network import EPSILON, cnn_lstm
from quantal_trainer.trace_graph import from_graph

Array = NDArray[np.float32]
_TOLERANCE = 1e-4  # of stored scores, which another processor may have computed
_ADAPTED = 4_096  # windows are enough for the statistics of a batch norm


def base_network(source: str | Path | Model, dropout: float = 0.2) -> tuple[keras.Model, Card]:
    """The network and card of a shipped or installed model, a model folder or a Keras file.

    dropout: the fraction dropped in further training. A Keras file has no card; it gets the one
    that `import-keras` would write, and its polarity is a guess. Raises ModelError for what is
    neither a CNN-LSTM nor a trace network of quantal's.
    """
    if not isinstance(source, Model) and Path(source).suffix.lower() in (".h5", ".keras"):
        from quantal_trainer.importer import read_keras

        file = read_keras(source)
        network, card = file.network(), Card(name=Path(source).stem, training=file.facts())
    else:
        model = load_model(source)
        network, card = restore(model), model.card
    if card.kind == "trace":
        return network, card
    again = cnn_lstm(card.window_samples, dropout=dropout)
    again.set_weights(network.get_weights())
    return again, card


def restore(model: Model) -> keras.Model:
    """The network of a model folder in Keras, with its scores checked against the card's.

    Raises ModelError if the graph is another network or does not give the card's scores.
    """
    graph = onnx.load(model.graph).graph
    network = from_graph(graph) if model.card.kind == "trace" else _cnn_lstm(graph, model)
    inputs, expected = stored_test(model.card)
    if len(inputs) and np.abs(keras_scores(network, inputs).ravel() - expected).max() > _TOLERANCE:
        raise ModelError(f"{model.folder} does not give its card's scores once it is in Keras.")
    return network


def _cnn_lstm(graph: onnx.GraphProto, model: Model) -> keras.Model:
    constants = {c.name: onnx.numpy_helper.to_array(c) for c in graph.initializer}
    network = cnn_lstm(model.card.window_samples)
    try:
        _put(network, [*_convolutions(graph, constants), *_head(graph, constants)])
    except (KeyError, IndexError, StopIteration, ValueError) as error:
        raise ModelError(
            f"{model.folder} holds another network than the CNN-LSTM, which alone of those that "
            f"read windows can be trained further ({str(error) or 'it has no LSTM'})."
        ) from None
    return network


def adapt_norms(network: keras.Model, windows: Array) -> None:
    """Give batch norms the statistics of scaled windows (n, samples); scores stay as they are.

    A restored batch norm knows only its scale and shift; trained like that, it would start by
    normalising twice.
    """
    norms = [x for x in network.layers if isinstance(x, keras.layers.BatchNormalization)]
    inputs = keras.Model(network.inputs, [norm.input for norm in norms])
    values = inputs.predict(windows[:_ADAPTED, :, None], batch_size=128, verbose=0)
    for norm, value in zip(norms, values, strict=True):
        gamma, beta, mean, variance = (np.asarray(w) for w in norm.get_weights())
        scale = gamma / np.sqrt(variance + EPSILON)
        new_mean, new_variance = value.mean(axis=(0, 1)), value.var(axis=(0, 1))
        new_gamma = scale * np.sqrt(new_variance + EPSILON)
        norm.set_weights([new_gamma, beta + scale * (new_mean - mean), new_mean, new_variance])


def _convolutions(graph: onnx.GraphProto, constants: dict[str, Array]) -> list[list[Array]]:
    """Kernel and bias of each convolution and, after each, its batch norm as scale and shift."""
    weights = []
    nodes = list(graph.node)
    for i, node in enumerate(nodes):
        if node.op_type != "Conv":
            continue
        kernel = constants[node.input[1]]  # (filters, inputs, 1, width)
        filters = len(kernel)
        scale, shift = np.ones(filters, np.float32), np.zeros(filters, np.float32)
        if len(node.input) > 2:
            shift = constants[node.input[2]].ravel()
        for after in nodes[i + 1 :]:
            if after.op_type == "LeakyRelu":
                break
            values = [constants[name].ravel() for name in after.input if name in constants]
            if after.op_type == "Mul":
                scale, shift = scale * values[0], shift * values[0]
            elif after.op_type == "Add":
                shift = shift + values[0]
        weights.append([kernel[:, :, 0, :].transpose(2, 1, 0), np.zeros(filters, np.float32)])
        weights.append([scale, shift, np.zeros_like(shift), np.full_like(shift, 1 - EPSILON)])
    return weights


def _head(graph: onnx.GraphProto, constants: dict[str, Array]) -> list[list[Array]]:
    """The two LSTMs, forwards and backwards, and the two dense layers, as Keras orders them."""
    lstm = next(node for node in graph.node if node.op_type == "LSTM")
    inputs, recurrent, biases = (constants[name] for name in lstm.input[1:4])
    both = []
    for way in range(2):
        bias = biases[way].reshape(2, -1).sum(axis=0)
        both += [_gates(inputs[way]).T, _gates(recurrent[way]).T, _gates(bias)]
    dense = [constants[node.input[1]] for node in graph.node if node.op_type == "MatMul"]
    last = list(graph.node)[list(graph.node).index(lstm) :]
    sums = [
        constants[n] for node in last if node.op_type == "Add" for n in node.input if n in constants
    ]
    return [both, *([kernel, bias] for kernel, bias in zip(dense, sums, strict=True))]


def _gates(values: Array) -> Array:
    """Gates in Keras' order: ONNX has input, output, forget, cell; Keras has the output last."""
    i, o, f, c = np.split(values, 4)
    return np.concatenate([i, f, c, o])


def _put(network: keras.Model, weights: list[list[Array]]) -> None:
    weighted = [layer for layer in network.layers if layer.weights]
    for layer, arrays in zip(weighted, weights, strict=True):
        layer.set_weights(arrays)

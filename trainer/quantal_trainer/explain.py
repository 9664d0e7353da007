"""Why a network scores a window as it does, and how its windows lie to each other.

Saliency shows which samples a score hangs on; an embedding lays windows out in a plane, as they
are and as the network sees them just before it decides.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal.errors import MissingRuntimeError, UsageError
from quantal_trainer.backend import keras, tf
from quantal_trainer.datasets import EVENT, EXCLUDED, NOISE
from quantal_trainer.pages import (
    AS_READ,
    GREY,
    INK,
    PALE,
    new_page,
    save_page,
    tidy,
    window_grid,
)
from quantal_trainer.trace_graph import is_trace_network

Array = NDArray[np.float32]

METHODS = ("auto", "umap", "pca")
_BATCH = 512  # windows, noisy copies counted
_FEWEST, _FEWEST_UMAP = 3, 15
_INSTALL_UMAP = "python -m pip install umap-learn"
_ACROSS, _MOST = 4, 24  # windows in the picture of saliency
# In the order in which they are drawn over each other.
_MARKERS = ((EXCLUDED, "excluded", "^"), (NOISE, "noise", "x"), (EVENT, "event", "o"))


# Saliency ----------------------------------------------------------------------------------------


def smooth_grad(
    network: keras.Model,
    windows: Array,
    *,
    samples: int = 50,
    noise: float = 0.1,
    seed: int = 0,
) -> Array:
    """SmoothGrad of the score's logit: how much a rise of each sample would raise the score.

    windows: scaled, (n, window_samples), as is the result. The gradient is averaged over `samples`
    copies with Gaussian noise, whose SD is `noise` times the window's range. Every window meets
    the same noise, so its saliency does not hang on the others. A network that does not end in a
    sigmoid is differentiated as it is. Smilkov et al. 2017.

    Raises UsageError if the windows do not fit the network, samples is below 1 or noise below 0.
    """
    windows = _checked(network, windows)
    if samples < 1:
        raise UsageError(f"samples must be at least 1, got {samples}; 50 give a smooth picture.")
    if not (np.isfinite(noise) and noise >= 0):
        raise UsageError(f"noise must be 0 or more of a window's range, got {noise}; try 0.1.")
    logits = _logits(network)
    width = windows.shape[1]
    jitter = np.random.default_rng(seed).standard_normal((samples, width), np.float32)
    spread = np.float32(noise) * np.ptp(windows, axis=1)
    at_once = max(_BATCH // samples, 1)
    saliency = np.empty_like(windows)
    for first in range(0, len(windows), at_once):
        part = slice(first, first + at_once)
        noisy = windows[part, None] + spread[part, None, None] * jitter
        gradients = _gradients(logits, noisy.reshape(-1, width))
        saliency[part] = gradients.reshape(noisy.shape).mean(axis=1)
    return saliency


def magnitudes(saliency: ArrayLike) -> Array:
    """Sizes of saliency (n, window_samples) for drawing, 1 at each window's largest."""
    sizes: Array = np.abs(np.asarray(saliency, np.float32))
    largest = sizes.max(axis=1, keepdims=True, initial=0)
    return np.asarray(sizes / np.where(largest > 0, largest, 1), np.float32)


def last_layer_input(network: keras.Model, windows: Array) -> Array:
    """What the last dense layer reads: (n, units), from scaled windows (n, window_samples).

    Of a trace network that judges windows, the highest value of each feature in a window.
    Raises UsageError if the windows do not fit the network or it has no dense layer.
    """
    windows = _checked(network, windows)
    before = _before_the_last(network)
    parts = [
        np.asarray(before(windows[i : i + _BATCH, :, None], training=False))
        for i in range(0, max(len(windows), 1), _BATCH)
    ]
    return np.asarray(np.concatenate(parts), np.float32)


def _before_the_last(network: keras.Model) -> keras.Model:
    traces = next((layer for layer in network.layers if is_trace_network(layer)), None)
    if traces is not None:
        features = keras.Model(traces.input, traces.layers[-1].input)
        _, _, *pooling = network.layers
        x = features(network.input)
        for layer in pooling:
            x = layer(x)
        return keras.Model(network.input, x)
    dense = [layer for layer in network.layers if isinstance(layer, keras.layers.Dense)]
    if not dense:
        raise UsageError("the network has no dense layer whose input could be shown.")
    return keras.Model(network.inputs[0], dense[-1].input)


def _checked(network: keras.Model, windows: Array) -> Array:
    windows = np.ascontiguousarray(windows, np.float32)
    wanted = network.input_shape[1]
    if windows.ndim != 2 or windows.shape[1] != (wanted or windows.shape[1]):
        raise UsageError(
            f"windows must be (n, {wanted or 'samples'}), got {windows.shape}; resample and scale "
            "them as for training."
        )
    if not np.isfinite(windows).all():
        raise UsageError("windows must hold finite numbers; leave out those with nan.")
    return windows


def _logits(network: keras.Model) -> Any:
    """The network up to what its last sigmoid is applied to.

    A score near 0 or 1 hardly moves whatever the window does; its logit still does.
    """
    last = network.layers[-1]
    if not isinstance(last, keras.layers.Dense) or last.activation is not keras.activations.sigmoid:
        return lambda x: network(x, training=False)
    before = keras.Model(network.inputs[0], last.input)
    kernel, *bias = last.weights

    def logits(x: Any) -> Any:
        weighted = tf.linalg.matmul(before(x, training=False), kernel)
        return weighted + bias[0] if bias else weighted

    return logits


def _gradients(function: Any, windows: Array) -> Array:
    x = tf.convert_to_tensor(windows[:, :, None])
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(function(x))
    return np.asarray(tape.gradient(total, x), np.float32)[:, :, 0]


# Embedding ---------------------------------------------------------------------------------------


def embed(
    values: ArrayLike, *, method: str = "auto", seed: int = 0
) -> tuple[NDArray[np.float64], str]:
    """Places (n, 2) of rows (n, features) in a plane, like beside like, and the method that ran.

    method: "umap" (McInnes et al. 2018), "pca", or "auto" for UMAP where it is installed and there
    are 15 rows, PCA elsewhere. The same seed gives the same places.
    Raises UsageError for an unknown method, too few rows (3; UMAP 15) or features (2), or numbers
    that are not finite; MissingRuntimeError if UMAP was asked for and is not installed.
    """
    rows = np.asarray(values, np.float64)
    if method not in METHODS:
        raise UsageError(f"method must be one of {', '.join(METHODS)}, got {method!r}.")
    if rows.ndim != 2 or len(rows) < _FEWEST or rows.shape[1] < 2:
        raise UsageError(
            f"an embedding needs at least {_FEWEST} windows of 2 or more values, got {rows.shape}."
        )
    if not np.isfinite(rows).all():
        raise UsageError("an embedding needs finite numbers; leave out windows with nan.")
    if method == "umap" and len(rows) < _FEWEST_UMAP:
        raise UsageError(
            f"UMAP needs at least {_FEWEST_UMAP} windows, got {len(rows)}; use method pca."
        )
    if method == "pca" or len(rows) < _FEWEST_UMAP:
        return _pca(rows, seed), "pca"
    kind = _umap_class()
    if kind is None and method == "umap":
        raise MissingRuntimeError(f"UMAP is not installed; type: {_INSTALL_UMAP}, or use pca.")
    return (_pca(rows, seed), "pca") if kind is None else (_umap(kind, rows, seed), "umap")


def _pca(rows: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    from sklearn.decomposition import PCA

    if not np.ptp(rows, axis=0).any():  # no direction is the widest
        return np.zeros((len(rows), 2))
    return np.asarray(PCA(2, random_state=seed).fit_transform(rows), np.float64)


def _umap_class() -> Any:
    """UMAP's class, or None where it is not installed or does not load."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the packages that it imports
        try:
            return import_module("umap").UMAP
        except ImportError:
            return None


def _umap(kind: Any, rows: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    neighbours = min(15, len(rows) - 1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="n_jobs value")  # a seed means one thread
        places = kind(n_neighbors=neighbours, random_state=seed).fit_transform(rows)
    return np.asarray(places, np.float64)


# Pictures ----------------------------------------------------------------------------------------


def draw_saliency(
    windows: Array, saliency: Array, scores: ArrayLike, path: str | Path, *, title: str = ""
) -> None:
    """Draw windows (n, samples) over the size of their saliency into a PNG; the first 24 of them.

    Raises UsageError if there are none or the arrays do not fit each other, SaveError if the file
    cannot be written.
    """
    windows, values = np.asarray(windows), np.asarray(scores)
    if not len(windows) or windows.shape != np.shape(saliency) or len(values) != len(windows):
        raise UsageError(
            "windows and saliency must be of one shape, with a score each, "
            f"got {windows.shape}, {np.shape(saliency)} and {values.shape}."
        )
    count = min(len(windows), _MOST)
    bottom, cell, lines = 0.65, 1.5, -(-count // _ACROSS)
    shown = f"{count} of {len(windows)} windows" if count < len(windows) else f"{count} windows"
    facts = f"{shown} {AS_READ}; the darker, the more the score hangs on the sample (SmoothGrad)"
    figure = new_page(10.0, 0.7 + cell * lines + bottom, title or "saliency", facts)
    sizes = magnitudes(saliency)
    cells = window_grid(figure, count, _ACROSS, bottom=bottom, cell=cell)
    for axes, window, size, score in zip(cells, windows, sizes, values, strict=False):
        image = _draw_shaded(axes, window, size)
        axes.set_title(f"scored {score:.3f}", loc="left", fontsize=7, color=INK, pad=2.5)
    _draw_scale(figure, image)
    save_page(figure, path)


def draw_embedding(
    raw_xy: ArrayLike,
    layer_xy: ArrayLike,
    scores: ArrayLike,
    labels: ArrayLike,
    path: str | Path,
    method: str,
    *,
    title: str = "",
) -> None:
    """Draw two embeddings (n, 2) of the same windows side by side into a PNG.

    Left the windows themselves, right what the last layer reads of them; coloured by score, with a
    marker for each label (0, 1, 2 as in a dataset). method: the one that placed them.
    Raises UsageError if the arrays do not fit each other, SaveError if the file cannot be written.
    """
    values, kinds = np.asarray(scores, np.float64), np.asarray(labels)
    places = [np.asarray(xy, np.float64) for xy in (raw_xy, layer_xy)]
    if any(xy.shape != (len(values), 2) for xy in places) or kinds.shape != values.shape:
        shapes = ", ".join(str(array.shape) for array in (*places, values, kinds))
        raise UsageError(
            f"an embedding has two places (n, 2), a score and a label a window, got {shapes}."
        )
    facts = f"{len(values):,} windows in a plane ({method.upper()}), like beside like"
    figure = new_page(10.0, 5.6, title or "embedding", facts)
    heads = ("the windows themselves", "what the last layer reads of them")
    for left, head, xy in zip((0.04, 0.48), heads, places, strict=True):
        axes = figure.add_axes((left, 0.06, 0.415, 0.77))
        image = _draw_places(axes, xy, values, kinds)
        tidy(axes, head, "", "")
        axes.set_xticks([])
        axes.set_yticks([])
    _draw_score_scale(figure, image)
    _draw_kinds(figure, kinds)
    save_page(figure, path)


def _draw_shaded(axes: Any, window: Array, size: Array) -> Any:
    """A window over stripes as dark as its samples matter."""
    low, high = float(window.min()), float(window.max())
    margin = 0.08 * (high - low) or 1.0
    box = (-0.5, len(window) - 0.5, low - margin, high + margin)
    image = axes.imshow(
        size[None], extent=box, aspect="auto", cmap="Oranges", vmin=0, vmax=1.25, zorder=0
    )
    axes.plot(window, color=INK, linewidth=0.7)
    axes.set_xlim(box[:2])
    axes.set_ylim(box[2:])
    return image


def _draw_scale(figure: Any, image: Any) -> None:
    width, height = figure.get_size_inches()
    axes = figure.add_axes((0.4 / width, 0.4 / height, 3.0 / width, 0.1 / height))
    bar = figure.colorbar(image, cax=axes, orientation="horizontal", boundaries=_LEVELS)
    bar.set_ticks([0, 0.5, 1])
    _plain_bar(bar, "size of the gradient, of the window's largest")


def _draw_score_scale(figure: Any, image: Any) -> None:
    bar = figure.colorbar(image, cax=figure.add_axes((0.915, 0.06, 0.016, 0.5)))
    bar.set_ticks([0, 0.25, 0.5, 0.75, 1])
    _plain_bar(bar, "score")


_LEVELS = np.linspace(0, 1, 101)


def _plain_bar(bar: Any, label: str) -> None:
    bar.set_label(label, fontsize=7.5, color=INK)
    bar.ax.tick_params(labelsize=7, color=GREY, length=2.5, colors=INK)
    bar.outline.set_edgecolor(PALE)


def _draw_places(
    axes: Any, xy: NDArray[np.float64], scores: NDArray[np.float64], labels: NDArray[Any]
) -> Any:
    image = None
    for label, _, marker in _MARKERS:
        chosen = labels == label
        image = axes.scatter(
            xy[chosen, 0],
            xy[chosen, 1],
            c=scores[chosen],
            s=18 if len(xy) < 2_000 else 6,
            marker=marker,
            cmap="viridis",
            vmin=0,
            vmax=1,
            linewidths=0.9 if marker == "x" else 0,
            alpha=0.8,
        )
    axes.margins(0.05)
    return image


def _draw_kinds(figure: Any, labels: NDArray[Any]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], linestyle="", marker=marker, color=GREY, markersize=4.5, label=name)
        for label, name, marker in _MARKERS
        if (labels == label).any()
    ]
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.9, 0.83),
        fontsize=7.5,
        frameon=False,
        handletextpad=0.2,
        labelcolor=INK,
    )

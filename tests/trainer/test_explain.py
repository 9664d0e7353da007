"""Saliency is the gradient, the last layer's input gives the score, and like lies beside like."""

from __future__ import annotations

import struct
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from quantal.errors import MissingRuntimeError, UsageError
from quantal_trainer.backend import keras
from quantal_trainer.explain import (
    draw_embedding,
    draw_saliency,
    embed,
    last_layer_input,
    magnitudes,
    smooth_grad,
)
from quantal_trainer.export import keras_scores

Array = NDArray[np.float32]
WIDTH = 30


def linear_network(activation: str = "sigmoid", *, bias: bool = True) -> tuple[Any, Array]:
    """A network of one dense layer, and its weights."""
    rng = np.random.default_rng(5)
    network = keras.Sequential(
        [
            keras.Input((WIDTH, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(1, activation=activation, use_bias=bias),
        ]
    )
    weights = rng.normal(0, 1, (WIDTH, 1)).astype(np.float32)
    network.layers[-1].set_weights([weights, np.float32([0.3])] if bias else [weights])
    return network, weights[:, 0]


def some_windows(n: int = 4, width: int = WIDTH) -> Array:
    return np.random.default_rng(6).random((n, width), np.float32)


def clouds(n: int = 60, features: int = 8) -> tuple[Any, Any]:
    """Two clouds twenty SD apart, and which is which."""
    rng = np.random.default_rng(7)
    labels = np.arange(n) % 2
    return rng.normal(0, 1, (n, features)) + 20 * labels[:, None], labels


def apart(places: Any, labels: Any) -> bool:
    """Whether every point's nearest other point is of its own cloud."""
    distance = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    return bool((labels[distance.argmin(axis=1)] == labels).all())


# Saliency ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("activation", ["sigmoid", "linear"])
@pytest.mark.parametrize("bias", [True, False])
def test_of_a_linear_network_saliency_is_its_weights(
    noise: float, activation: str, bias: bool
) -> None:
    """The logit is linear in the window, so noise must change nothing."""
    network, weights = linear_network(activation, bias=bias)
    saliency = smooth_grad(network, some_windows(), samples=7, noise=noise)
    assert saliency.dtype == np.float32
    np.testing.assert_allclose(saliency, np.tile(weights, (4, 1)), rtol=1e-5, atol=1e-6)


def test_another_output_than_a_sigmoids_is_differentiated_as_it_is() -> None:
    network, weights = linear_network("tanh")
    windows = some_windows()
    z = windows @ weights + 0.3
    expected = (1 - np.tanh(z) ** 2)[:, None] * weights
    np.testing.assert_allclose(smooth_grad(network, windows, noise=0), expected, atol=1e-5)


def test_saliency_is_the_slope_of_the_mean_logit(network: Any, windows: Array) -> None:
    """Against a difference quotient of the network's own scores, uphill and without noise."""
    window = windows[:1]
    saliency = smooth_grad(network, window, samples=1, noise=0)[0]
    direction = saliency / np.abs(saliency).max()
    step = np.float32(2e-3)
    pair = np.concatenate([window - step * direction, window + step * direction])
    scores = keras_scores(network, pair).astype(np.float64)
    logits = np.log(scores / (1 - scores))
    assert saliency @ direction == pytest.approx((logits[1] - logits[0]) / (2 * step), rel=0.05)


def test_noise_averages_gradients_of_noisy_windows() -> None:
    """Of a square, whose slope is twice the sample, the mean slope is twice the mean sample."""
    network = keras.Sequential(
        [
            keras.Input((WIDTH, 1)),
            keras.layers.Flatten(),
            keras.layers.Lambda(lambda x: keras.ops.sum(x * x, axis=1, keepdims=True)),
        ]
    )
    windows = some_windows(1)
    rough = smooth_grad(network, windows, samples=1, noise=0.5)
    smooth = smooth_grad(network, windows, samples=2000, noise=0.5)
    assert np.abs(rough - 2 * windows).max() > 0.3
    np.testing.assert_allclose(smooth, 2 * windows, atol=0.1)  # four SD of the mean noise


def test_the_same_seed_gives_the_same_saliency(network: Any, windows: Array) -> None:
    first = smooth_grad(network, windows[:2], samples=2, seed=1)
    np.testing.assert_array_equal(first, smooth_grad(network, windows[:2], samples=2, seed=1))


def test_the_seed_decides_and_a_window_does_not_depend_on_its_neighbours() -> None:
    network, _ = linear_network("tanh")
    windows = some_windows()
    first = smooth_grad(network, windows, samples=2, seed=1)
    assert not np.allclose(first, smooth_grad(network, windows, samples=2, seed=2))
    alone = smooth_grad(network, windows[1:2], samples=2, seed=1)
    np.testing.assert_allclose(alone, first[1:2], rtol=1e-4, atol=1e-6)


def test_many_windows_go_through_in_batches() -> None:
    network, weights = linear_network()
    saliency = smooth_grad(network, some_windows(700), samples=2)
    np.testing.assert_allclose(saliency, np.tile(weights, (700, 1)), rtol=1e-4, atol=1e-6)
    assert smooth_grad(network, some_windows(0)).shape == (0, WIDTH)


def test_magnitudes_are_1_at_each_windows_largest() -> None:
    sizes = magnitudes([[1.0, -4.0, 2.0], [0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(sizes, [[0.25, 1.0, 0.5], [0, 0, 0]])


def test_on_real_windows_saliency_lies_around_the_event(
    shared: Path, reference: dict[str, Array]
) -> None:
    """The first 300 of 600 samples hold rise, peak and most of the decay."""
    from quantal_trainer.importer import import_keras

    network = import_keras(shared / "miniml" / "models" / "GC_lstm_model.h5")
    certain = reference["windows"][np.argsort(-reference["GC"])[:8]]
    saliency = np.abs(smooth_grad(network, certain, samples=15))
    assert np.median(saliency[:, :300].sum(axis=1) / saliency.sum(axis=1)) > 0.7


@pytest.mark.parametrize(
    ("options", "words"),
    [({"samples": 0}, "samples must be"), ({"noise": -0.1}, "noise must be"),
     ({"noise": float("nan")}, "noise must be")],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        smooth_grad(linear_network()[0], some_windows(), **options)


@pytest.mark.parametrize("function", [smooth_grad, last_layer_input])
def test_windows_that_do_not_fit_the_network_are_refused(function: Any) -> None:
    network, _ = linear_network()
    with pytest.raises(UsageError, match=r"windows must be \(n, 30\)"):
        function(network, some_windows(2, 40))
    with pytest.raises(UsageError, match="finite"):
        function(network, some_windows() * np.nan)


# The last layer ----------------------------------------------------------------------------------


def test_the_last_layers_input_gives_the_score(network: Any, windows: Array) -> None:
    values = last_layer_input(network, windows)
    assert values.shape == (len(windows), 128)
    kernel, bias = network.layers[-1].get_weights()
    scores = 1 / (1 + np.exp(-(values @ kernel + bias)))[:, 0]
    np.testing.assert_allclose(scores, keras_scores(network, windows), atol=1e-5)


def test_a_network_without_dense_layers_is_refused() -> None:
    pooling = keras.Sequential([keras.Input((WIDTH, 1)), keras.layers.GlobalMaxPooling1D()])
    with pytest.raises(UsageError, match="no dense layer"):
        last_layer_input(pooling, some_windows())


def test_no_windows_give_no_rows() -> None:
    assert last_layer_input(linear_network()[0], some_windows(0)).shape == (0, WIDTH)


# Embedding ---------------------------------------------------------------------------------------


def test_pca_keeps_two_clouds_apart_and_the_distances_of_a_plane() -> None:
    values, labels = clouds()
    places, method = embed(values, method="pca")
    assert method == "pca"
    assert places.shape == (60, 2)
    assert apart(places, labels)
    plane = np.random.default_rng(9).normal(0, 1, (20, 2))
    turned = plane @ np.linalg.qr(np.random.default_rng(10).normal(0, 1, (6, 2)))[0].T
    laid, _ = embed(turned, method="pca")
    for i, j in ((0, 1), (3, 7), (12, 19)):
        expected = np.linalg.norm(plane[i] - plane[j])
        assert np.linalg.norm(laid[i] - laid[j]) == pytest.approx(expected)


@pytest.mark.slow  # its compilation
def test_umap_keeps_two_clouds_apart_or_says_what_to_type() -> None:
    """Both ways are right: the package is an extra."""
    values, labels = clouds()
    if find_spec("umap") is None:
        with pytest.raises(MissingRuntimeError, match="pip install umap-learn"):
            embed(values, method="umap")
        return
    places, method = embed(values, method="umap", seed=3)
    assert method == "umap"
    assert apart(places, labels)
    np.testing.assert_array_equal(places, embed(values, method="umap", seed=3)[0])


def test_without_the_package_auto_takes_pca_and_umap_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)  # importing it raises ImportError
    values, _ = clouds()
    with pytest.raises(MissingRuntimeError, match="python -m pip install umap-learn"):
        embed(values, method="umap")
    places, method = embed(values)
    assert method == "pca"
    np.testing.assert_array_equal(places, embed(values, method="pca")[0])


def test_with_the_package_auto_takes_umap_from_15_windows_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[dict[str, Any]] = []

    class Umap:
        def __init__(self, **options: Any) -> None:
            asked.append(options)

        def fit_transform(self, rows: Any) -> Any:
            return rows[:, :2]

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Umap))
    values, _ = clouds(15)
    assert embed(values, seed=4)[1] == "umap"
    assert asked == [{"n_neighbors": 14, "random_state": 4}]  # fewer than there are windows
    assert embed(values[:14])[1] == "pca"
    with pytest.raises(UsageError, match="at least 15 windows, got 14"):
        embed(values[:14], method="umap")


@pytest.mark.parametrize(
    ("values", "method", "words"),
    [
        (np.zeros((2, 5)), "auto", "at least 3 windows"),
        (np.zeros((9, 1)), "pca", "2 or more values"),
        (np.zeros(9), "pca", "2 or more values"),
        (np.full((9, 3), np.nan), "pca", "finite"),
        (np.zeros((9, 3)), "tsne", "auto, umap, pca"),
    ],
)
def test_what_cannot_be_laid_out_is_refused(values: Any, method: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        embed(values, method=method)


def test_equal_windows_lie_on_each_other() -> None:
    places, _ = embed(np.ones((5, 3)), method="pca")
    np.testing.assert_array_equal(places, 0)


# Pictures ----------------------------------------------------------------------------------------


def picture(path: Path) -> tuple[int, int]:
    """Width and height in a PNG's header."""
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def test_saliency_is_drawn_and_more_windows_make_a_longer_page(tmp_path: Path) -> None:
    windows = some_windows(30)
    saliency = np.random.default_rng(0).normal(0, 1, windows.shape).astype(np.float32)
    heights = {}
    for n in (1, 25):
        path = tmp_path / f"{n}.png"
        draw_saliency(windows[:n], saliency[:n], np.linspace(0, 1, n), path, title="a $ sign $")
        width, heights[n] = picture(path)
        assert width == 1600
        assert path.stat().st_size > 10_000
    assert heights[1] < heights[25] < 1800  # 24 of them


def test_flat_windows_without_saliency_are_drawn(tmp_path: Path) -> None:
    draw_saliency(np.zeros((2, 9)), np.zeros((2, 9)), [0.1, 0.2], tmp_path / "flat.png")
    assert picture(tmp_path / "flat.png")[0] == 1600


def test_an_embedding_is_drawn(tmp_path: Path) -> None:
    values, labels = clouds()
    labels[:5] = 2
    places, method = embed(values, method="pca")
    path = tmp_path / "embedding.png"
    draw_embedding(places, -places, np.linspace(0, 1, 60), labels, path, method, title="cell 1")
    assert picture(path)[0] == 1600
    assert path.stat().st_size > 20_000


def test_pictures_of_what_does_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    with pytest.raises(UsageError, match="one shape"):
        draw_saliency(some_windows(2), some_windows(3), [0.1, 0.2], path)
    with pytest.raises(UsageError, match="one shape"):
        draw_saliency(some_windows(0), some_windows(0), [], path)
    with pytest.raises(UsageError, match=r"two places \(n, 2\)"):
        draw_embedding(np.zeros((3, 2)), np.zeros((4, 2)), np.zeros(3), np.zeros(3), path, "pca")
    assert not list(tmp_path.iterdir())

"""Windows cut by a graph: the scores of windows cut here, wherever they lie in the trace."""

from __future__ import annotations

import builtins
import logging
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from quantal import runtime
from quantal.model import GRAPH, Model, load_model
from quantal.runtime import Session, open_session
from quantal.scan import scan
from quantal.simulate import simulate_recording
from quantal.trace import Trace
from quantal.windows import cut_windows_at

onnx = pytest.importorskip("onnx", reason="needs onnx to compose graphs")
pytest.importorskip("onnxruntime", reason="needs onnxruntime")

from quantal.cutting import with_cutting  # noqa: E402

Samples = NDArray[np.float32]
scan_room = import_module("quantal.scan")  # the module: quantal.scan itself is the function
WIDTH = 600


def session_for(model: Model) -> Session:
    """A session on the CPU that cuts windows as one on a GPU does."""
    plain = open_session(model, "cpu", 1)
    return runtime._cutting_there(runtime.load_runtime(), replace(plain, batch=32), WIDTH)


@pytest.fixture(scope="module")
def model() -> Model:
    model = load_model("cnn-lstm")  # without its scout, which does not look on a device
    graphs = {GRAPH: model.card.graphs[GRAPH]}
    return replace(model, card=replace(model.card, graphs=graphs, scout={}))


@pytest.fixture(scope="module")
def session(model: Model) -> Session:
    return session_for(model)


def recording(seed: int, seconds: float = 0.2, **changes: Any) -> Trace:
    given: dict[str, Any] = {"frequency_hz": 20.0, "amplitude": 8.0} | changes
    return simulate_recording(seconds=seconds, seed=seed, **given)[0]


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 99),
    n=st.integers(1, 2_000),
    starts=st.lists(st.integers(-WIDTH, 2_000), min_size=0, max_size=40),
    offset=st.sampled_from([0.0, -70.0, 1e6]),
)
def test_scores_are_those_of_windows_cut_here(
    session: Session, seed: int, n: int, starts: list[int], offset: float
) -> None:
    samples = recording(seed).samples[:n] + np.float32(offset)
    at = np.array([min(start, n) for start in starts], np.int64)
    windows, states = cut_windows_at(samples, at, WIDTH)
    expected = np.where(states == 0, session.run_windows(windows), 0)
    found = session.lay_out(samples, WIDTH)(at)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", ["dense", "screened"])
def test_a_scan_with_gaps_and_flat_stretches_is_the_same(
    model: Model, session: Session, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = recording(3, seconds=0.4)
    samples = trace.samples.copy()
    samples[6_000:6_300] = np.nan
    samples[12_000:14_000] = samples[12_000]
    samples[17_000] = np.inf
    trace = replace(trace, samples=samples)
    here = scan(trace, model, method=method, direction="positive").values
    monkeypatch.setattr(scan_room, "open_session", lambda *_: session)
    there = scan(trace, model, method=method, direction="positive").values
    assert np.isnan(here).any()
    assert (here == 0).any()
    assert (here > 0.5).any()
    np.testing.assert_allclose(there, here, rtol=0, atol=1e-6)


def mean_graph(shape: tuple[Any, ...], opset: int) -> bytes:
    """A network that gives the mean of each window, in another form of input or opset."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    node = helper.make_node("GlobalAveragePool", ["x"], ["y"])
    pooled = [helper.make_node("Reshape", ["x", "wide"], ["x3"]), node]
    node.input[0] = "x3"
    wide = onnx.numpy_helper.from_array(np.array([-1, 1, WIDTH]), "wide")
    graph = helper.make_graph(
        pooled,
        "mean",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, None)],
        [wide],
    )
    opsets = [helper.make_opsetid("", opset)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


@pytest.mark.parametrize("shape", [("n", WIDTH), ("n", WIDTH, 1)])
@pytest.mark.parametrize("opset", [13, 17, 18])
def test_graphs_of_other_opsets_and_inputs_can_cut_too(
    tmp_path: Any, shape: tuple[Any, ...], opset: int
) -> None:
    path = tmp_path / "mean.onnx"
    path.write_bytes(mean_graph(shape, opset))
    ort = runtime.load_runtime()
    handle = runtime._create(ort, with_cutting(path, WIDTH), 1, "cpu")
    session = Session(graph=path, device="cpu", threads=1, batch=4, handle=handle, cutting=handle)
    samples, at = recording(5).samples, np.array([0, -30, 5_000, 9_900, 77])
    windows, _ = cut_windows_at(samples, at, WIDTH)
    found = session.lay_out(samples, WIDTH)(at)
    np.testing.assert_allclose(found, windows.mean(axis=1), rtol=1e-5)


def test_without_onnx_windows_are_cut_here(
    model: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name == "onnx":
            raise ImportError("No module named 'onnx'")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with caplog.at_level(logging.WARNING, logger="quantal"):
        assert session_for(model).cutting is None
    assert "cut on the CPU, which is slower: onnx is not installed" in caplog.text


def test_a_device_that_scores_otherwise_cuts_nothing(
    model: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("quantal.cutting.ROUNDING", np.float32(10.0))  # all windows are flat
    with caplog.at_level(logging.WARNING, logger="quantal"):
        assert session_for(model).cutting is None
    assert "scores would change by" in caplog.text

"""The doctor: it tells what is wrong and what to type, whatever is missing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantal import doctor, model, runtime
from quantal.doctor import diagnose, render, verify_model
from quantal.errors import MissingRuntimeError, ModelError
from quantal.model import DEFAULT_MODEL, GRAPH, Card, load_model, sha256_of, write_card
from quantal.save import as_json


@pytest.fixture(autouse=True)
def _forgotten_runtime() -> Iterator[None]:
    """The runtime is looked for anew in every test."""
    runtime.load_runtime.cache_clear()
    runtime._open.cache_clear()
    yield
    runtime.load_runtime.cache_clear()
    runtime._open.cache_clear()


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of shipped models, empty."""
    monkeypatch.setattr(model, "_models_folder", lambda: tmp_path)
    return tmp_path


@pytest.fixture
def _kept_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are compiled and kept, even where the suite runs without compiling them."""
    monkeypatch.setattr(doctor, "_numba_cache", lambda _: ("folder", True))


def write_model(models: Path, *, name: str = DEFAULT_MODEL, **changes: Any) -> Path:
    """A model that scores a window by its mean."""
    onnx = pytest.importorskip("onnx")
    kinds = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=0)],
        "mean",
        [onnx.helper.make_tensor_value_info("x", kinds, ["n", 600, 1])],
        [onnx.helper.make_tensor_value_info("y", kinds, ["n", 1])],
    )
    opset = onnx.helper.make_opsetid("", 17)
    folder = models / name
    folder.mkdir()
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), folder / GRAPH)
    windows = np.linspace(0, 1, 1200).reshape(2, 600)
    card = Card(
        name=name,
        graphs={GRAPH: sha256_of(folder / GRAPH)},
        test_inputs=windows.tolist(),
        test_scores=windows.mean(axis=1).tolist(),
    )
    write_card(replace(card, **changes), folder)
    return folder


@pytest.mark.usefixtures("_kept_kernels")
def test_a_sound_installation_is_well(models: Path) -> None:
    write_model(models)
    diagnosis = diagnose(seconds=0.02)
    assert diagnosis.problems == ()
    assert next(device.name for device in diagnosis.devices if device.works) == "cpu"
    assert diagnosis.models[0].passed
    assert diagnosis.speed is not None
    assert diagnosis.speed.windows_per_s > 0
    assert diagnosis.speed.times_real_time == pytest.approx(
        diagnosis.speed.windows_per_s * 20 / 50_000
    )
    assert diagnosis.telemetry_variable == "1"
    assert 1 <= diagnosis.threads <= diagnosis.cpu_count
    text = render(diagnosis)
    assert "All is well." in text
    assert "1 s at 50 kHz" in text
    assert "verified" in text


def test_a_diagnosis_is_json(models: Path) -> None:
    write_model(models, test_scores=[np.nan, 0.0])
    content = json.loads(as_json(diagnose(seconds=0).to_dict()))
    assert content["versions"]["numpy"] == np.__version__
    assert content["speed"] is None
    assert content["models"][0]["largest_deviation"] is None


@pytest.mark.usefixtures("_kept_kernels")
def test_no_runtime_is_told(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(models)
    monkeypatch.setattr(runtime, "installed_runtimes", list)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    diagnosis = diagnose(seconds=0.02)
    text = render(diagnosis)
    assert "none is installed" in text
    assert "python -m pip install onnxruntime" in text
    assert len(diagnosis.problems) == 1
    assert not any(device.works for device in diagnosis.devices)
    assert diagnosis.speed is None
    assert diagnosis.telemetry_events_off is None


def test_two_runtimes_are_told_with_what_mends_them(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(models)
    both = ["onnxruntime", "onnxruntime-gpu"]
    monkeypatch.setattr(runtime, "installed_runtimes", lambda: both)
    diagnosis = diagnose(seconds=0.02)
    assert list(diagnosis.runtimes) == both
    text = render(diagnosis)
    assert "conflict" in text
    assert "python -m pip uninstall -y onnxruntime onnxruntime-gpu" in text
    assert diagnosis.providers == ()


@pytest.mark.usefixtures("models")
def test_no_models_are_told() -> None:
    diagnosis = diagnose(seconds=0.02)
    assert diagnosis.models == ()
    assert "none is shipped" in render(diagnosis)
    assert any(DEFAULT_MODEL in problem for problem in diagnosis.problems)
    assert diagnosis.speed is None


def test_a_gpu_runtime_without_a_gpu_is_told(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(loaded: Any, device: str = "auto", threads: int | None = None) -> Any:
        if device == "cuda":
            raise MissingRuntimeError("CUDA was asked for and cannot be used: no driver.")
        return open_session(loaded, device, threads)

    write_model(models)
    open_session = runtime.open_session
    monkeypatch.setattr(runtime, "installed_runtimes", lambda: ["onnxruntime-gpu"])
    monkeypatch.setattr(runtime, "open_session", refuse)
    diagnosis = diagnose(seconds=0)
    assert [device.works for device in diagnosis.devices] == [True, False]
    assert any("no driver. See whether nvidia-smi" in p for p in diagnosis.problems)


def test_a_changed_graph_is_told(models: Path) -> None:
    folder = write_model(models)
    (folder / GRAPH).write_bytes((folder / GRAPH).read_bytes() + b"\0")
    diagnosis = diagnose(seconds=0.02)
    assert not diagnosis.models[0].sha256_ok
    assert any("sha256" in problem for problem in diagnosis.problems)
    assert not any(device.works for device in diagnosis.devices)
    assert "not verified" in render(diagnosis)
    with pytest.raises(ModelError):
        verify_model(folder)


def test_wrong_scores_are_told(models: Path) -> None:
    folder = write_model(models, test_scores=[0.25, 0.7])
    check = verify_model(folder)
    assert check.sha256_ok
    assert not check.passed
    assert check.largest_deviation == pytest.approx(0.05, abs=1e-3)
    assert any("scores differ" in problem for problem in diagnose(seconds=0).problems)


@pytest.mark.parametrize(
    "changes", [{"test_inputs": [], "test_scores": []}, {"test_scores": [0.5]}]
)
def test_a_card_without_a_test_is_not_verified(models: Path, changes: dict[str, Any]) -> None:
    check = verify_model(write_model(models, **changes))
    assert not check.passed
    assert "no test vector" in check.detail


def test_a_card_with_a_senseless_test_is_told(models: Path) -> None:
    folder = write_model(models, test_inputs=[[1.0, 2.0], [3.0]])
    with pytest.raises(ModelError, match="makes no sense"):
        verify_model(load_model(folder))


def test_kernels_that_cannot_be_kept_are_told(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(models)
    monkeypatch.setattr(doctor, "_writable", lambda _: False)
    diagnosis = diagnose(seconds=0)
    assert not diagnosis.numba_cache_writable
    assert any("NUMBA" in problem for problem in diagnosis.problems)


def test_a_folder_is_writable_or_not(tmp_path: Path) -> None:
    assert doctor._writable(tmp_path)
    assert not list(tmp_path.iterdir())
    assert not doctor._writable(tmp_path / "missing")


def test_telemetry_that_may_be_on_is_told(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(models)
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    diagnosis = diagnose(seconds=0)
    assert any("ORT_DISABLE_TELEMETRY=1" in problem for problem in diagnosis.problems)
    assert "not switched off" in render(diagnosis)


def test_a_missing_package_is_told(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(models)
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "pyabf" else "1.0")
    assert "pyabf is missing. Type: python -m pip install pyabf" in diagnose(seconds=0).problems

"""The doctor: it tells what is wrong and what to type, whatever is missing."""

from __future__ import annotations

import json
import subprocess
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
from quantal.model import (
    DEFAULT_MODEL,
    GRAPH,
    Card,
    load_model,
    read_card,
    sha256_of,
    write_card,
)
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
            raise MissingRuntimeError("CUDA cannot be used: no driver.")
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
    "changes",
    [
        {"test_inputs": [], "test_scores": []},
        {"test_scores": [0.5]},
        {"test_scores": [[], []]},
    ],
)
def test_a_card_without_a_test_is_not_verified(models: Path, changes: dict[str, Any]) -> None:
    check = verify_model(write_model(models, **changes))
    assert not check.passed
    assert "no test vector" in check.detail


def test_scores_that_do_not_fit_single_precision_are_no_scores(models: Path) -> None:
    check = verify_model(write_model(models, test_scores=[1e300, 0.5]))
    assert (check.passed, check.largest_deviation) == (False, np.inf)


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


# What the reference names, one by one -------------------------------------------------------------


def test_a_library_that_does_not_load_is_told_with_what_mends_it(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old processor without AVX, or Windows without the redistributable."""
    write_model(models)
    monkeypatch.setattr(runtime, "installed_runtimes", lambda: ["onnxruntime"])
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    said = "\n".join(diagnose(seconds=0).problems)
    assert "onnxruntime is installed but does not load" in said
    assert "Microsoft Visual C++ Redistributable" in said
    assert "AVX" in said


def test_a_graph_of_a_newer_kind_is_told_with_what_mends_it(models: Path) -> None:
    onnx = pytest.importorskip("onnx")
    folder = write_model(models)
    graph = onnx.load(folder / GRAPH)
    graph.opset_import[0].version = 999
    onnx.save(graph, folder / GRAPH)
    write_card(replace(read_card(folder), graphs={GRAPH: sha256_of(folder / GRAPH)}), folder)
    said = "\n".join(diagnose(seconds=0).problems)
    assert "opset" in said
    assert "python -m pip install -U onnxruntime" in said


@pytest.mark.parametrize(
    "reason",
    [
        "libcudnn.so.9: cannot open shared object file",
        "CUDA driver version is insufficient for CUDA runtime version",
        "no kernel image is available for execution on the device",
    ],
)
def test_cuda_that_does_not_work_is_told_with_its_reason(
    models: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    """A library that is missing or of another version; a GPU too old or too new for the wheel."""
    write_model(models)
    create, providers = runtime._create, runtime.available_providers

    def refuse(ort: Any, graph: Any, threads: int, device: str) -> Any:
        if device == "cuda":
            raise RuntimeError(reason)
        return create(ort, graph, threads, device)

    listed = ["CUDAExecutionProvider"]
    monkeypatch.setattr(runtime, "_create", refuse)
    monkeypatch.setattr(runtime, "installed_runtimes", lambda: ["onnxruntime-gpu"])
    monkeypatch.setattr(runtime, "available_providers", lambda: [*listed, *providers()])
    told = [problem for problem in diagnose(seconds=0).problems if reason in problem]
    assert len(told) == 1
    assert "nvidia-smi" in told[0]
    assert 'python -m pip install -U "onnxruntime-gpu[cuda,cudnn]"' in told[0]


def test_cores_that_may_not_be_used_are_told_with_who_says_so(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(models)
    monkeypatch.setattr(doctor.os, "cpu_count", lambda: 8)
    limits = {"the affinity mask": 8, "the control group": 8}
    monkeypatch.setattr(runtime, "core_limits", lambda: limits)
    assert "8 of 8 cores may be used\n" in render(diagnose(seconds=0))
    limits["the control group"] = 2
    assert "2 of 8 cores may be used (the control group)" in render(diagnose(seconds=0))


def test_kernels_that_are_not_compiled_are_told(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(models)
    monkeypatch.setattr(doctor.windows, "_cut_and_scale", len)
    assert any("NUMBA_DISABLE_JIT" in problem for problem in diagnose(seconds=0).problems)


def test_what_is_needed_for_an_extra_is_told_and_no_problem(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = [
        "numpy>=1.26",
        'pyzmq>=26; extra == "stream"',
        'tensorflow>=2.18; extra == "train"',
        'keras>=3.8; extra == "train"',
        'onnxruntime>=1.20; extra == "cpu"',
    ]
    version = doctor._version
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: needs)
    monkeypatch.setattr(
        doctor, "_version", lambda name: None if name == "tensorflow" else version("numpy")
    )
    write_model(models)
    diagnosis = diagnose(seconds=0)
    assert diagnosis.extras == {"stream": (), "train": ("tensorflow",)}
    assert "stream; not here: train (needs tensorflow)" in render(diagnosis)
    assert not any("tensorflow" in problem for problem in diagnosis.problems)


def test_pictures_that_take_long_each_time_are_told(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(models)
    monkeypatch.delenv("MPLCONFIGDIR", raising=False)
    monkeypatch.setattr(
        doctor, "blank", lambda *_: monkeypatch.setenv("MPLCONFIGDIR", "as Matplotlib does")
    )
    assert any("export MPLCONFIGDIR=" in problem for problem in diagnose(seconds=0).problems)


@pytest.mark.parametrize("hidden", ["numba", "numpy"])
def test_without_a_library_that_all_stands_on_there_is_one_line(hidden: str) -> None:
    code = f"""
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hide())
from quantal.cli import main
main(["doctor"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {hidden} is missing or does not load")
    assert f"python -m pip install -U --force-reinstall {hidden}\n" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_base_library_that_is_installed_but_does_not_load_is_told(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(models)
    monkeypatch.setitem(sys.modules, "pyabf", None)
    said = "\n".join(diagnose(seconds=0).problems)
    assert "pyabf is installed but does not load" in said
    assert "python -m pip install --force-reinstall pyabf" in said

"""ONNX Runtime: which is there, what it loads, how it says no, and that it keeps quiet."""

from __future__ import annotations

import builtins
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from graphs import graph_bytes, graph_without_inputs
from quantal import runtime
from quantal.errors import MissingRuntimeError, ModelError, UsageError
from quantal.model import GRAPH, Card, Model, load_model, sha256_of, write_card
from quantal.runtime import Session, open_session

pytest.importorskip("onnx", reason="needs onnx to make small graphs")
pytest.importorskip("onnxruntime", reason="needs onnxruntime")

Samples = NDArray[np.float32]
Make = Callable[..., Model]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A model folder with a small graph in it."""

    def folder(content: bytes | None = None, place: str = "mean") -> Model:
        path = tmp_path / place
        path.mkdir()
        (path / GRAPH).write_bytes(graph_bytes() if content is None else content)
        write_card(Card(name=place, graphs={GRAPH: sha256_of(path / GRAPH)}), path)
        return load_model(path)

    return folder


@pytest.fixture
def fresh() -> Iterator[None]:
    """No session and no runtime remembered, before or after."""
    runtime._open.cache_clear()
    runtime.load_runtime.cache_clear()
    yield
    runtime._open.cache_clear()
    runtime.load_runtime.cache_clear()


def noise(n: int, width: int = 600) -> Samples:
    return np.random.default_rng(0).random((n, width)).astype(np.float32)


@pytest.mark.parametrize("shape", [("n", 600, 1), ("n", 600), (None, None, 1)])
def test_a_graph_gives_one_score_for_each_window(make: Make, shape: tuple[Any, ...]) -> None:
    windows = noise(10)
    scores = open_session(make(graph_bytes(shape)), "cpu").run_windows(windows)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, windows.mean(axis=1), rtol=1e-5)


@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 200])
def test_a_padded_last_batch_gives_what_its_windows_give_one_by_one(make: Make, n: int) -> None:
    session = open_session(make(), "cpu")
    windows = noise(n)
    whole = session.run_windows(windows)
    one_by_one = [session.run_windows(windows[i : i + 1])[0] for i in range(n)]
    np.testing.assert_array_equal(whole, np.array(one_by_one, np.float32))


def test_the_network_only_ever_sees_batches_of_one_size() -> None:
    seen = []

    def run(_: Any, feed: dict[str, Samples]) -> list[Samples]:
        seen.append(feed["x"].shape)
        return [feed["x"].mean(axis=(1, 2))]

    node = SimpleNamespace(name="x", shape=[None, 600, 1])
    handle = SimpleNamespace(get_inputs=lambda: [node], run=run)
    session = Session(graph=Path("g"), device="cpu", threads=1, batch=32, handle=handle)
    windows = noise(70)
    np.testing.assert_allclose(session.run_windows(windows), windows.mean(axis=1), rtol=1e-5)
    assert seen == [(32, 600, 1)] * 3


@pytest.mark.usefixtures("fresh")
def test_a_session_is_kept_for_the_next_call(make: Make) -> None:
    model = make()
    first = open_session(model, "cpu", threads=1)
    assert open_session(model, "cpu", threads=1) is first
    assert open_session(load_model(model.folder), "cpu", threads=1) is first
    assert open_session(model, "cpu", threads=2) is not first


@pytest.mark.usefixtures("fresh")
def test_another_graph_in_the_same_place_is_another_session(make: Make) -> None:
    model = make()
    windows = noise(3)
    mean = open_session(model, "cpu").run_windows(windows)
    model.graph.write_bytes(graph_bytes(("n", 600), keep=1))
    write_card(replace(model.card, graphs={GRAPH: sha256_of(model.graph)}), model.folder)
    found = open_session(load_model(model.folder), "cpu").run_windows(windows)
    np.testing.assert_array_equal(found, windows[:, 0])
    assert not np.array_equal(found, mean)


@pytest.mark.parametrize("device", ["gpu", "CUDA", "", "cuda:0", None])
def test_an_unknown_device_is_refused(make: Make, device: Any) -> None:
    with pytest.raises(UsageError, match="must be one of auto, cpu, cuda, tensorrt or the"):
        open_session(make(), device)


@pytest.mark.parametrize("threads", [0, -2])
def test_threads_that_cannot_be_are_refused(make: Make, threads: int) -> None:
    with pytest.raises(UsageError, match="threads must be 1 or more, or None for all cores, got"):
        open_session(make(), "cpu", threads)


def without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime for the CPU alone on a computer with an NVIDIA GPU."""
    monkeypatch.setattr(runtime, "available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(runtime, "has_nvidia_driver", lambda: True)


@pytest.mark.usefixtures("fresh")
def test_cuda_that_is_not_there_is_an_error_that_says_what_to_type(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_cuda(monkeypatch)
    with pytest.raises(MissingRuntimeError, match=r"CUDA cannot be used.*onnxruntime-gpu\[cuda"):
        open_session(make(), "cuda")


@pytest.mark.usefixtures("fresh")
def test_without_an_nvidia_gpu_nobody_is_told_to_install_for_one(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_cuda(monkeypatch)
    monkeypatch.setattr(runtime, "has_nvidia_driver", lambda: False)
    with pytest.raises(MissingRuntimeError, match="no NVIDIA GPU here, or its driver") as told:
        open_session(make(), "cuda")
    assert "pip" not in str(told.value)


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("tensorrt", r"TensorRT cannot be used: .* has no TensorRT, only CPUEx.*onnxruntime-gpu"),
        ("NoneSuchExecutionProvider", r"has no NoneSuchExecutionProvider, only CPU\w+$"),
    ],
)
def test_a_provider_that_is_not_there_is_an_error_that_says_which_are(
    make: Make, monkeypatch: pytest.MonkeyPatch, device: str, said: str
) -> None:
    without_cuda(monkeypatch)
    with pytest.raises(MissingRuntimeError, match=said):
        open_session(make(), device)


@pytest.mark.usefixtures("fresh")
def test_a_provider_can_be_asked_for_by_its_own_name(make: Make) -> None:
    session = open_session(make(), "CPUExecutionProvider")
    assert session.device == "cpu"


@pytest.mark.usefixtures("fresh")
def test_auto_is_the_cpu_where_there_is_no_cuda(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_cuda(monkeypatch)
    session = open_session(make(), "auto")
    assert (session.device, session.threads) == ("cpu", runtime.cores())
    assert session.handle.get_providers() == ["CPUExecutionProvider"]


@pytest.mark.parametrize(
    ("provider", "said"),
    [
        ("CPUExecutionProvider", "its libraries do not load"),
        ("CUDAExecutionProvider", "no kernel image is available"),
    ],
)
def test_cuda_that_is_listed_but_does_not_work_is_an_error_if_asked_for_and_else_the_cpu(
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    provider: str,
    said: str,
) -> None:
    runtime._open.cache_clear()
    ort = runtime.load_runtime()
    with monkeypatch.context() as patch:
        if hasattr(ort, "preload_dlls"):
            patch.delattr(ort, "preload_dlls")
        real = runtime._create

        def create(ort: Any, graph: Path, threads: int, device: str) -> Any:
            return real(ort, graph, threads, device) if device == "cpu" else broken(provider)

        patch.setattr(runtime, "_create", create)
        patch.setattr(runtime, "available_providers", lambda: ["CUDAExecutionProvider"])
        model = make()
        with pytest.raises(MissingRuntimeError, match=f"CUDA cannot be used: .*{said}"):
            open_session(model, "cuda")
        with caplog.at_level(logging.WARNING, logger="quantal"):
            session = open_session(model, "auto")
        assert session.device == "cpu"
        assert said in caplog.text
    runtime._open.cache_clear()


def broken(provider: str) -> Any:
    """A session that opens and then cannot compute."""

    def run(*_: Any) -> Any:
        raise RuntimeError("CUDA error: no kernel image is available\nand more")

    node = SimpleNamespace(name="x", shape=[None, 600, 1])
    return SimpleNamespace(get_providers=lambda: [provider], get_inputs=lambda: [node], run=run)


@pytest.mark.parametrize(
    "content",
    [b"", b"not a graph", b"\0" * 1_000, graph_bytes()[:-40], b"<html>404</html>"],
    ids=["empty", "text", "zeros", "cut short", "page"],
)
def test_a_graph_that_is_none_is_a_model_error(make: Make, content: bytes) -> None:
    with pytest.raises(ModelError, match=r"cannot load .*model\.onnx"):
        open_session(make(content), "cpu").run_windows(noise(1))


@pytest.mark.parametrize(("opset", "ir"), [(999, 8), (17, 999)])
def test_a_graph_for_a_newer_runtime_is_refused_and_the_error_says_what_to_type(
    make: Make, opset: int, ir: int
) -> None:
    with pytest.raises(
        ModelError, match=r"ONNX Runtime [\d.]+ cannot load .*999.*pip install -U onnxruntime"
    ):
        open_session(make(graph_bytes(opset=opset, ir=ir)), "cpu")


def test_a_graph_without_inputs_is_a_model_error(make: Make) -> None:
    session = open_session(make(graph_without_inputs()), "cpu")
    with pytest.raises(ModelError, match="does not run on 1 inputs"):
        session.run(np.zeros((1, 600), np.float32))


@pytest.mark.parametrize("shape", [("n", 300, 1), (1, 600, 1), ("n", 600, 2)])
def test_a_graph_that_takes_other_windows_is_a_model_error(
    make: Make, shape: tuple[Any, ...]
) -> None:
    session = open_session(make(graph_bytes(shape)), "cpu")
    with pytest.raises(ModelError, match=r"does not run on 64 inputs of 600 samples"):
        session.run_windows(noise(3))


def test_a_graph_that_gives_more_than_one_number_a_window_is_a_model_error(make: Make) -> None:
    session = open_session(make(graph_bytes(("n", 600), keep=2)), "cpu")
    with pytest.raises(ModelError, match=r"gives 2 numbers for a window; it must give one"):
        session.run_windows(noise(3))


@pytest.mark.usefixtures("fresh")
def test_two_runtimes_are_one_too_many_and_the_error_says_what_to_type(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = ["onnxruntime", "onnxruntime-gpu"]
    monkeypatch.setattr(runtime, "installed_runtimes", lambda: both)
    with pytest.raises(
        MissingRuntimeError,
        match=r"both installed.*uninstall -y onnxruntime onnxruntime-gpu.*install onnxruntime",
    ):
        open_session(make(), "cpu")


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], r"not installed. Type: python -m pip install onnxruntime"),
        (["onnxruntime"], r"installed but does not load \(.*\)\. On Windows.*Redistributable"),
    ],
)
def test_a_runtime_that_is_missing_or_broken_is_an_error_that_says_what_to_do(
    make: Make, monkeypatch: pytest.MonkeyPatch, names: list[str], said: str
) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError("DLL load failed while importing onnxruntime_pybind11_state")
        return real(name, *rest, **more)

    model = make()
    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.setattr(runtime, "installed_runtimes", lambda: names)
    with pytest.raises(MissingRuntimeError, match=said):
        open_session(model, "cpu")


def test_installed_runtimes_are_found_by_their_distributions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def version(name: str) -> str:
        if name != "onnxruntime-gpu":
            raise metadata.PackageNotFoundError(name)
        return "1.31"

    monkeypatch.setattr(metadata, "version", version)
    assert runtime.installed_runtimes() == ["onnxruntime-gpu"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("max 100000", 8),
        ("150000 100000", 1),
        ("300000 100000", 3),
        ("50000 100000", 1),
        ("nonsense", 8),
        ("", 8),
        ("a b", 8),
        (None, 8),
    ],
)
def test_a_control_group_limits_the_threads(
    monkeypatch: pytest.MonkeyPatch, content: str | None, expected: int
) -> None:
    def read_text(_: Path) -> str:
        if content is None:
            raise FileNotFoundError
        return content

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(Path, "read_text", read_text)
    assert runtime.cores() == expected


def clean_environment() -> dict[str, str]:
    """The environment without what silences or steers ONNX Runtime, CI's own variables too."""
    silencers = ("ORT_", "CI", "GITHUB_", "GITLAB_", "TF_BUILD", "BUILD_", "JENKINS", "TEAMCITY")
    kept = {k: v for k, v in os.environ.items() if not k.upper().startswith(silencers)}
    folders = [str(Path(runtime.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, folders))}


def python(code: str, *arguments: str) -> str:
    """What a fresh Python prints when it runs some code."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs an affinity mask")
def test_threads_are_no_more_than_the_affinity_mask_allows() -> None:
    code = (
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "from quantal.runtime import cores; print(cores())"
    )
    assert python(code) == "1"


def test_telemetry_is_off_before_the_runtime_is_first_imported(make: Make) -> None:
    code = """
import os, sys
seen = {}
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            seen.setdefault("at import", os.environ.get("ORT_DISABLE_TELEMETRY"))
sys.meta_path.insert(0, Watch())
assert not any(name == "CI" or name.startswith("ORT_") for name in os.environ)
import numpy as np
from quantal.model import load_model
from quantal import runtime
session = runtime.open_session(load_model(sys.argv[1]), "cpu")
session.run_windows(np.zeros((3, 600), np.float32))
sockets = []
if os.path.isdir("/proc/self/fd"):
    for fd in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{fd}").startswith("socket:"):
                sockets.append(fd)
        except OSError:
            pass
print(seen["at import"], len(sockets))
"""
    assert python(code, str(make().folder)) == "1 0"


def test_telemetry_events_are_switched_off_as_well(
    fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    del fresh
    import onnxruntime

    calls = []
    monkeypatch.setattr(
        onnxruntime, "disable_telemetry_events", lambda: calls.append("off"), raising=False
    )
    runtime.load_runtime()
    assert calls == ["off"]


def test_a_users_own_choice_about_telemetry_is_respected() -> None:
    code = (
        "import os; os.environ['ORT_DISABLE_TELEMETRY'] = '0'; import quantal\n"
        "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    assert python(code) == "0"


def test_importing_quantal_imports_nothing_heavy() -> None:
    code = """
import sys
import quantal
heavy = {"tensorflow", "keras", "matplotlib", "onnxruntime", "numba", "scipy", "pyabf", "h5py"}
print(sorted(heavy & set(sys.modules)))
"""
    assert python(code) == "[]"


def test_the_rooms_that_find_events_import_neither_tensorflow_nor_matplotlib() -> None:
    code = """
import sys
import quantal
for name in quantal.__all__:
    getattr(quantal, name)
heavy = {"tensorflow", "keras", "matplotlib", "onnxruntime", "onnx", "quantal_trainer"}
print(sorted(heavy & set(sys.modules)))
"""
    assert python(code) == "[]"

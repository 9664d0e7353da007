"""ONNX Runtime: which one is installed, which devices really load, sessions and threads."""

from __future__ import annotations

import logging
import os
import platform
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.errors import MissingRuntimeError, ModelError, UsageError
from quantal.model import Model

log = logging.getLogger(__name__)

DEVICES = ("auto", "cpu", "cuda")
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_BATCH = {"cpu": 64, "cuda": 1024}  # small batches stay in a CPU's cache
_PROBE = 16_000  # samples of a trace in a first small inference
_CPU_NAMES, _GPU_NAMES = ("onnxruntime",), ("onnxruntime-gpu",)


@dataclass(frozen=True, eq=False, kw_only=True)
class Session:
    """A loaded graph on the device that really runs it.

    threads: of the CPU. A network that reads windows uses them all for each batch; one that reads
    traces uses one for each block, and as many blocks may run at the same time.
    """

    graph: Path
    device: str
    threads: int
    batch: int
    handle: Any

    def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """The graph's first output for a batch of inputs (n, samples): (n, values of each).

        Raises ModelError if the graph does not run on such inputs or gives not as many values for
        each.
        """
        node = self.handle.get_inputs()[0]
        shaped = inputs[:, :, None] if len(node.shape) == 3 else inputs
        try:
            output = np.asarray(self.handle.run(None, {node.name: shaped})[0], np.float32)
        except Exception as error:  # ONNX Runtime raises many kinds
            raise ModelError(
                f"{self.graph} does not run on {len(inputs)} inputs of {inputs.shape[1]} samples: "
                f"{_first_line(error)}"
            ) from None
        if not output.size or output.size % len(inputs):
            raise ModelError(
                f"{self.graph} gives an output of shape {output.shape} for {len(inputs)} inputs; "
                "it must give as many numbers for each."
            )
        return output.reshape(len(inputs), -1)

    def run_windows(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores (n,) of windows (n, samples), in batches of one size, the last one padded."""
        scores = np.empty(len(windows), np.float32)
        for first in range(0, len(windows), self.batch):
            part = windows[first : first + self.batch]
            output = self.run(_padded(part, self.batch))
            if output.shape[1] != 1:
                raise ModelError(
                    f"{self.graph} gives {output.shape[1]} numbers for a window; it must give one."
                )
            scores[first : first + len(part)] = output[: len(part), 0]
        return scores

    def run_block(self, samples: NDArray[np.float32], stride: int) -> NDArray[np.float32]:
        """Scores (n / stride,) of a stretch of a scaled trace (n,), a multiple of the stride."""
        scores: NDArray[np.float32] = self.run_blocks(samples[None], stride)[0]
        return scores

    def run_blocks(self, samples: NDArray[np.float32], stride: int) -> NDArray[np.float32]:
        """Scores (k, n / stride) of stretches of scaled traces (k, n)."""
        scores = self.run(samples)
        if scores.shape[1] * stride != samples.shape[1]:
            raise ModelError(
                f"{self.graph} gives {scores.shape[1]} scores for {samples.shape[1]} samples; its "
                f"card says one for every {stride}."
            )
        return scores


def open_session(model: Model, device: str = "auto", threads: int | None = None) -> Session:
    """The model's network, ready to run on a device; sessions are kept for the next call.

    device: "cpu", "cuda", or "auto" for CUDA where it truly works and the CPU elsewhere.
    threads: of the CPU; None means the cores that this process may use.
    Raises UsageError for an unknown device or fewer threads than 1, MissingRuntimeError if ONNX
    Runtime or the device asked for is not there, ModelError if this ONNX Runtime cannot load the
    graph.
    """
    if device not in DEVICES:
        raise UsageError(f"device must be one of {', '.join(DEVICES)}, got {device!r}.")
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be 1 or more, or None for all cores, got {threads!r}.")
    sha256 = model.card.graphs[model.graph.name]
    together = model.card.kind != "trace"
    return _open(model.graph, sha256, device, threads or cores(), together)


@lru_cache(maxsize=8)
def _open(graph: Path, sha256: str, device: str, threads: int, together: bool) -> Session:
    del sha256  # part of the key: another file of the same name is another session
    ort = load_runtime()
    if device == "cuda" or (device == "auto" and _PROVIDERS["cuda"] in available_providers()):
        session, reason = _try_cuda(ort, graph, threads)
        if session is not None:
            return session
        if device == "cuda":
            raise MissingRuntimeError(f"CUDA was asked for and cannot be used: {reason}")
        log.warning("CUDA is listed but cannot be used, so the CPU is: %s", reason)
    handle = _create(ort, graph, threads if together else 1, "cpu")
    return Session(graph=graph, device="cpu", threads=threads, batch=_BATCH["cpu"], handle=handle)


def _try_cuda(ort: Any, graph: Path, threads: int) -> tuple[Session | None, str]:
    """A session proven by one small inference on the GPU, or the reason why there is none."""
    if _PROVIDERS["cuda"] not in available_providers():
        return None, (
            "this ONNX Runtime has no CUDA; type: python -m pip uninstall -y onnxruntime && "
            'python -m pip install "onnxruntime-gpu[cuda,cudnn]"'
        )
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    try:
        handle = _create(ort, graph, threads, "cuda")
        if handle.get_providers()[0] != _PROVIDERS["cuda"]:
            return (
                None,
                "its libraries do not load (driver, CUDA or cuDNN missing or of another version)",
            )
        session = Session(
            graph=graph, device="cuda", threads=threads, batch=_BATCH["cuda"], handle=handle
        )
        samples = handle.get_inputs()[0].shape[1]
        free = not isinstance(samples, int)  # a trace network takes any length
        session.run(np.zeros((1, _PROBE) if free else (session.batch, samples), np.float32))
    except Exception as error:  # ONNX Runtime raises many kinds; each means: no GPU here
        return None, _first_line(error)
    return session, ""


def _create(ort: Any, graph: Path, threads: int, device: str) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if threads == 1 or device == "cuda":  # threads that wait must not take an acquisition's core
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    provider: Any = _PROVIDERS[device]
    if device == "cuda":
        provider = (provider, {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"})
    try:
        return ort.InferenceSession(os.fspath(graph), options, providers=[provider])
    except Exception as error:
        if device == "cuda":
            raise
        raise ModelError(
            f"ONNX Runtime {ort.__version__} cannot load {graph}: {_first_line(error)}. If that "
            "speaks of an opset or IR version, type: python -m pip install -U onnxruntime"
        ) from None


@cache
def load_runtime() -> Any:
    """The onnxruntime module, silenced; raises MissingRuntimeError if none or two are installed."""
    names = installed_runtimes()
    if set(names) & set(_CPU_NAMES) and set(names) & set(_GPU_NAMES):
        raise MissingRuntimeError(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other. Type: "
            "python -m pip uninstall -y onnxruntime onnxruntime-gpu, and then "
            'python -m pip install onnxruntime, or "onnxruntime-gpu[cuda,cudnn]"'
        )
    try:
        import onnxruntime
    except ImportError as error:
        if names:
            raise MissingRuntimeError(
                f"{names[0]} is installed but does not load ({_first_line(error)}). On Windows, "
                "install the Microsoft Visual C++ Redistributable; the processor must have AVX."
            ) from None
        raise MissingRuntimeError(
            "ONNX Runtime is not installed. Type: python -m pip install onnxruntime, or "
            'python -m pip install "onnxruntime-gpu[cuda,cudnn]" for an NVIDIA GPU.'
        ) from None
    onnxruntime.set_default_logger_severity(4)
    if hasattr(onnxruntime, "disable_telemetry_events"):
        onnxruntime.disable_telemetry_events()
    return onnxruntime


def installed_runtimes() -> list[str]:
    """The distributions that provide onnxruntime, by name, with nothing imported."""
    found = []
    for name in (*_CPU_NAMES, *_GPU_NAMES):
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        found.append(name)
    return found


def available_providers() -> list[str]:
    """What this ONNX Runtime was built with, whether or not it loads here."""
    return [str(name) for name in load_runtime().get_available_providers()]


def cores() -> int:
    """Cores that this process may use, by its affinity mask and its control group."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(allowed or 1, _cgroup_cores()))


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        named = (line for line in lines if line.startswith("model name"))
        return next(named).partition(":")[2].strip()
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _cgroup_cores() -> int:
    unlimited = 1 << 16
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return unlimited if quota == "max" else max(1, int(quota) // int(period))
    except (OSError, ValueError):
        return unlimited


def _padded(part: NDArray[np.float32], batch: int) -> NDArray[np.float32]:
    if len(part) == batch:
        return part
    whole = np.zeros((batch, *part.shape[1:]), np.float32)
    whole[: len(part)] = part
    return whole


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

"""ONNX Runtime: which one is installed, which devices really load, sessions and threads."""

from __future__ import annotations

import ctypes
import logging
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.cutting import CUT_SCORES, STARTS, TRACE, with_cutting
from quantal.errors import MissingRuntimeError, ModelError, UsageError
from quantal.model import GRAPH, Model
from quantal.windows import cut_windows_at

log = logging.getLogger(__name__)

DEVICES = ("auto", "cpu", "cuda")
_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_BATCH = {"cpu": 64, "cuda": 4_096}  # of others 1,024; small batches stay in a CPU's cache
_SPOKEN = {"cuda": "CUDA", "tensorrt": "TensorRT"}
_UNSYNCHRONISED = ("disable_synchronize_execution_providers", "1")
_CLOSE = 1e-4  # between scores of windows that are cut on a device and here
_PROBE = 16_000  # samples of a trace in a first small inference
_CPU_NAMES, _GPU_NAMES = ("onnxruntime",), ("onnxruntime-gpu",)


Reader = Callable[[NDArray[np.int64]], NDArray[np.float32]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Session:
    """A loaded graph on the device that really runs it.

    threads: of the CPU. A network that reads windows uses them all for each batch; one that reads
    traces uses one for each block, and as many blocks may run at the same time.
    cutting: the same network behind a graph that cuts windows on the device; None where the CPU
    cuts them.
    """

    graph: Path
    device: str
    threads: int
    batch: int
    handle: Any
    cutting: Any = None

    def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """The graph's first output for a batch of inputs (n, samples): (n, values of each).

        Raises ModelError if the graph does not run on such inputs or gives not as many values for
        each.
        """
        try:
            node = self.handle.get_inputs()[0]
            shaped = inputs[:, :, None] if len(node.shape) == 3 else inputs
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

    def lay_out(self, samples: NDArray[np.float32], width: int) -> Reader:
        """Put a trace on the device once; the result scores windows by their first samples.

        Windows reach as far as their width beyond the trace's ends, where it is its mirror image.
        Missing samples count as 0. Batches are not waited for one by one.
        """
        ort = load_runtime()
        place = "cuda" if self.device == "cuda" else "cpu"
        finite = np.where(np.isfinite(samples), samples, np.float32(0))
        trace = ort.OrtValue.ortvalue_from_numpy(np.pad(finite, width, mode="symmetric"), place, 0)
        options = ort.RunOptions()
        options.add_run_config_entry(*_UNSYNCHRONISED)

        def read(starts: NDArray[np.int64]) -> NDArray[np.float32]:
            padded = np.zeros(-(-len(starts) // self.batch) * self.batch, np.int64)
            padded[: len(starts)] = starts + width
            binding = self.cutting.io_binding()
            binding.bind_ortvalue_input(TRACE, trace)
            batches = []  # inputs and outputs, kept until all have run
            for first in range(0, len(padded), self.batch):
                part = padded[first : first + self.batch]
                at = ort.OrtValue.ortvalue_from_numpy(part, place, 0)
                scores = ort.OrtValue.ortvalue_from_shape_and_type([len(part)], "f4", place, 0)
                binding.bind_ortvalue_input(STARTS, at)
                binding.bind_ortvalue_output(CUT_SCORES, scores)
                self.cutting.run_with_iobinding(binding, options)
                batches.append((at, scores))
            binding.synchronize_outputs()
            values = [np.empty(0, np.float32), *(scores.numpy() for _, scores in batches)]
            return np.concatenate(values)[: len(starts)]

        return read

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


def open_session(
    model: Model, device: str = "auto", threads: int | None = None, *, graph: str = GRAPH
) -> Session:
    """A model's network, ready to run on a device; sessions are kept for the next call.

    device: "cpu", "cuda", "auto" for CUDA where it truly works and the CPU elsewhere, "tensorrt",
    or the name of any provider of ONNX Runtime.
    threads: of the CPU; None means the cores that this process may use.
    Raises UsageError for an unknown device or fewer threads than 1, MissingRuntimeError if ONNX
    Runtime or the device asked for is not there, ModelError if this ONNX Runtime cannot load the
    graph.
    """
    checked_device(device)
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be 1 or more, or None for all cores, got {threads!r}.")
    sha256 = model.card.graphs[graph]
    width = None if model.card.kind == "trace" else model.card.window_samples
    return _open(model.folder / graph, sha256, device, threads or cores(), width)


def checked_device(device: str) -> str:
    """The device; raises UsageError if it is neither one of ours nor a provider's name."""
    if device in DEVICES or device in _PROVIDERS or str(device).endswith("ExecutionProvider"):
        return device
    raise UsageError(
        f"device must be one of {', '.join(DEVICES)}, tensorrt or the name of a provider of ONNX "
        f"Runtime such as OpenVINOExecutionProvider, got {device!r}."
    )


@lru_cache(maxsize=8)
def _open(graph: Path, sha256: str, device: str, threads: int, width: int | None) -> Session:
    """A session; `width` is that of a network that reads windows."""
    del sha256  # part of the key: another file of the same name is another session
    ort = load_runtime()
    wanted = "cuda" if device == "auto" else device
    listed = _provider(wanted) in available_providers()
    if _provider(wanted) != _PROVIDERS["cpu"] and (device != "auto" or listed):
        session, reason = _try(ort, graph, threads, wanted, width)
        if session is not None:
            return session
        if device != "auto":
            raise MissingRuntimeError(f"{_SPOKEN.get(device, device)} cannot be used: {reason}")
        log.warning("CUDA is listed but cannot be used, so the CPU is: %s", reason)
    handle = _create(ort, graph, 1 if width is None else threads, "cpu")
    return Session(graph=graph, device="cpu", threads=threads, batch=_BATCH["cpu"], handle=handle)


def _provider(device: str) -> str:
    return _PROVIDERS.get(device, device)


def _try(
    ort: Any, graph: Path, threads: int, device: str, width: int | None
) -> tuple[Session | None, str]:
    """A session proven by one small inference on the device, or the reason why there is none."""
    there = available_providers()
    if _provider(device) not in there:
        if device in _SPOKEN and not has_nvidia_driver():
            return None, "there is no NVIDIA GPU here, or its driver does not load"
        install = (
            "; type: python -m pip uninstall -y onnxruntime && "
            'python -m pip install "onnxruntime-gpu[cuda,cudnn]"'
        )
        return None, (
            f"this ONNX Runtime has no {_SPOKEN.get(device, device)}, only {', '.join(there)}"
            f"{install if device in _SPOKEN else ''}"
        )
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    try:
        handle = _create(ort, graph, threads, device)
        if handle.get_providers()[0] != _provider(device):
            return None, "its libraries do not load (a driver or library missing or too old)"
        batch = _BATCH.get(device, 1_024)
        session = Session(graph=graph, device=device, threads=threads, batch=batch, handle=handle)
        session.run(np.zeros((batch, width) if width else (1, _PROBE), np.float32))
        if device == "cuda" and width is not None:
            session = _cutting_there(ort, session, width)
    except Exception as error:  # ONNX Runtime raises many kinds; each means: no such device here
        return None, _first_line(error)
    return session, ""


def _cutting_there(ort: Any, session: Session, width: int) -> Session:
    """The session with windows cut on its device, if they then score as windows cut here do."""
    samples = np.random.default_rng(0).standard_normal(2 * width, np.float32)
    starts = np.arange(0, width, max(width // 8, 1))
    windows, _ = cut_windows_at(samples, starts, width)
    try:
        content = with_cutting(session.graph, width)
        there = replace(session, cutting=_create(ort, content, session.threads, session.device))
        moved = np.abs(there.lay_out(samples, width)(starts) - session.run_windows(windows)).max()
        if moved <= _CLOSE:
            return there
        reason = f"scores would change by {moved:.1g}"
    except ImportError:
        reason = "onnx is not installed; type: python -m pip install onnx"
    except Exception as error:  # ONNX Runtime raises many kinds; the session works without
        reason = _first_line(error)
    log.warning("windows are cut on the CPU, which is slower: %s", reason)
    return session


def _create(ort: Any, graph: Path | bytes, threads: int, device: str) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if threads == 1 or device != "cpu":  # threads that wait must not take an acquisition's core
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers: list[Any] = [_provider(device)]
    if device in _SPOKEN:
        cuda = {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}
        providers = [(_PROVIDERS["cuda"], cuda)]
        if device == "tensorrt":  # what it cannot run stays on the GPU
            providers.insert(0, _PROVIDERS["tensorrt"])
    given, named = (os.fspath(graph), str(graph)) if isinstance(graph, Path) else (graph, "it")
    try:
        return ort.InferenceSession(given, options, providers=providers)
    except Exception as error:
        if device != "cpu":
            raise
        raise ModelError(
            f"ONNX Runtime {ort.__version__} cannot load {named}: {_first_line(error)}. If that "
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


def has_nvidia_driver() -> bool:
    """Whether the driver of an NVIDIA GPU loads, without which none can be used."""
    try:
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return False
    return True


def cores() -> int:
    """Cores that this process may use, by its affinity mask and its control group."""
    return max(1, min(core_limits().values()))


def core_limits() -> dict[str, int]:
    """How many cores this process may use, by who says so."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"the affinity mask": allowed or 1, "the control group": _cgroup_cores()}


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

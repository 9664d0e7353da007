"""What is installed here, what of it works, how fast it is, and what to type where it does not."""

from __future__ import annotations

import os
import platform
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np

from quantal import __version__, runtime, windows
from quantal.errors import ModelError, QuantalError
from quantal.model import (
    DEFAULT_MODEL,
    Model,
    known_models,
    load_model,
    shipped_models,
    stored_test,
)
from quantal.report import blank
from quantal.scan import scan
from quantal.trace import Trace

TOLERANCE = 1e-4
_PACKAGES = ("numpy", "numba", "scipy", "h5py", "pyabf", "matplotlib", "click")
_TELEMETRY = "ORT_DISABLE_TELEMETRY"
_OPTIONAL = re.compile(r"(?P<package>[\w.-]+).*\bextra == ['\"](?P<extra>[\w-]+)['\"]")
_OTHER_EXTRAS = ("cpu", "gpu", "test")  # a runtime is a matter of its own; tests are for developers


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Whether a model gives the scores that its card says it must.

    sha256_ok: its files are those that the card names. largest_deviation: of a score from the
    stored one; nan if none could be compared. detail: why it did not pass, or nothing.
    """

    name: str
    sha256_ok: bool
    largest_deviation: float
    passed: bool
    detail: str = ""

    def __str__(self) -> str:
        if not self.passed:
            return f"{self.name} not verified: {self.detail}"
        return (
            f"{self.name} verified: scores as its card says (within {self.largest_deviation:.1g})"
        )


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device and whether the default model really runs on it; detail says why not."""

    name: str
    works: bool
    detail: str


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How fast the default model reads a trace of its own rate and stride.

    times_real_time: seconds of trace read in a second.
    """

    model: str
    device: str
    windows_per_s: float
    rate_hz: float
    stride: int
    times_real_time: float


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """The state of an installation; `problems` says of each what to type.

    versions: of quantal, Python and packages. extras: what each extra needs and is not installed,
    which is no problem where the extra is not wanted. runtimes: distributions of ONNX Runtime, with
    versions. providers: what ONNX Runtime lists, whether or not it loads. threads: cores that may
    be used, of cpu_count; cores_limited_by: what allows no more. numba_cache: folder of the
    compiled kernels, None if there is none. telemetry_variable: the value of ORT_DISABLE_TELEMETRY.
    telemetry_events_off: None if no runtime loads or it knows no such events. speed: None if it was
    not or could not be measured.
    """

    versions: dict[str, str]
    extras: dict[str, tuple[str, ...]]
    system: str
    runtimes: dict[str, str]
    providers: tuple[str, ...]
    devices: tuple[Device, ...]
    cpu_count: int
    threads: int
    cores_limited_by: tuple[str, ...]
    memory_free_gb: float | None
    numba_cache: str | None
    numba_cache_writable: bool
    models: tuple[Verification, ...]
    speed: Speed | None
    telemetry_variable: str | None
    telemetry_events_off: bool | None
    problems: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The same as plain dicts and tuples."""
        return asdict(self)


def diagnose(seconds: float = 2.0) -> Diagnosis:
    """Look at the installation and measure its speed for some seconds (0: not at all)."""
    problems: list[str] = []
    ort = _attempt(runtime.load_runtime, problems)
    models = tuple(_verified(name, ort is not None) for name in known_models())
    problems += [f"{m.name}: {m.detail}" for m in models if not m.passed and ort is not None]
    model = _default_model(problems)
    devices = _devices(model, ort, problems)
    works = ort is not None and any(device.works for device in devices)
    folder, writable = _numba_cache(problems)
    _check_pictures(problems)
    return Diagnosis(
        versions=_versions(problems),
        extras=_extras(),
        system=f"{platform.platform()}, {platform.machine()}",
        runtimes={name: _version(name) or "?" for name in runtime.installed_runtimes()},
        providers=tuple(runtime.available_providers()) if ort is not None else (),
        devices=devices,
        cpu_count=os.cpu_count() or 1,
        threads=runtime.cores(),
        cores_limited_by=_limited_by(),
        memory_free_gb=_free_memory_gb(),
        numba_cache=folder,
        numba_cache_writable=writable,
        models=models,
        speed=_speed(model, seconds, problems) if model and works and seconds > 0 else None,
        telemetry_variable=_telemetry_variable(problems),
        telemetry_events_off=_telemetry_events_off(ort),
        problems=tuple(problems),
    )


def verify_model(model: str | Path | Model, device: str = "cpu") -> Verification:
    """Run the windows stored in a model's card and compare the scores.

    Raises ModelError if the folder is no intact model, MissingRuntimeError without the device.
    """
    loaded = load_model(model)
    name = loaded.card.name
    try:
        inputs, expected = stored_test(loaded.card)
    except (ValueError, TypeError, OverflowError):
        raise ModelError(f"the test vector in the card of {name!r} makes no sense.") from None
    if not inputs.size or not expected.size or len(expected) % len(inputs):
        return _failed(name, "its card holds no test vector; export the model again.")
    session = runtime.open_session(loaded, device)
    if loaded.card.kind == "windows":
        scores = session.run_windows(inputs)
    else:
        scores = np.concatenate([session.run_block(x, loaded.card.stride) for x in inputs])
    if len(scores) != len(expected):
        return _failed(name, "its card's test vector is not of this network; export it again.")
    deviation = float(np.abs(scores - expected).max())
    if not deviation <= TOLERANCE:  # nan too
        return _failed(
            name,
            f"on {device} its scores differ by {deviation:.2g} from those in its card "
            f"(at most {TOLERANCE:g}); update ONNX Runtime or fetch the model folder again.",
            deviation,
        )
    return Verification(name=name, sha256_ok=True, largest_deviation=deviation, passed=True)


def verify_models(device: str = "cpu") -> list[Verification]:
    """Verify every model that has a name here; a damaged one does not hide the others."""
    return [_verified(name, True, device) for name in known_models()]


def render(diagnosis: Diagnosis) -> str:
    """A diagnosis as text for a terminal: what there is first, what to do last."""
    rows = [
        ("versions", ", ".join(f"{name} {v}" for name, v in diagnosis.versions.items())),
        ("system", diagnosis.system),
        ("runtime", _runtime_text(diagnosis)),
        *(("device", _device_text(device)) for device in diagnosis.devices),
        ("threads", _threads_text(diagnosis)),
        ("memory", _memory_text(diagnosis.memory_free_gb)),
        ("kernels", _cache_text(diagnosis)),
        *(("model", str(model)) for model in diagnosis.models),
        *([] if diagnosis.models else [("model", "none is shipped with this installation")]),
        ("speed", _speed_text(diagnosis.speed)),
        ("telemetry", _telemetry_text(diagnosis)),
        ("extras", _extras_text(diagnosis.extras)),
    ]
    lines = [f"{label:<10} {text}" for label, text in rows]
    if not diagnosis.problems:
        return "\n".join([*lines, "", "All is well."])
    heading = (
        "1 problem:" if len(diagnosis.problems) == 1 else f"{len(diagnosis.problems)} problems:"
    )
    return "\n".join([*lines, "", heading, *(f"- {text}" for text in diagnosis.problems)])


# What there is


def _attempt(load: Callable[[], Any], problems: list[str]) -> Any:
    """What load gives; None where it fails, with the reason among the problems."""
    try:
        return load()
    except QuantalError as error:
        problems.append(str(error))
    return None


def _versions(problems: list[str]) -> dict[str, str]:
    versions = {"quantal": __version__, "Python": platform.python_version()}
    for name in _PACKAGES:
        versions[name] = _version(name) or "missing"
        if versions[name] == "missing":
            problems.append(f"{name} is missing. Type: python -m pip install {name}")
        elif reason := _why_not_loading(name):
            problems.append(
                f"{name} is installed but does not load ({reason}). Type: python -m pip install "
                f"--force-reinstall {name}"
            )
    return versions


def _why_not_loading(library: str) -> str:
    """What its import says; nothing where it loads."""
    try:
        import_module(library)
    except (ImportError, OSError) as error:
        return str(error)
    return ""


def _extras() -> dict[str, tuple[str, ...]]:
    """What each extra of quantal needs and is not installed, by the names that pip knows."""
    try:
        needs = metadata.requires("quantal") or []
    except metadata.PackageNotFoundError:
        return {}
    missing: dict[str, list[str]] = {}
    for need in needs:
        found = _OPTIONAL.match(need)
        if found and found["extra"] not in _OTHER_EXTRAS:
            own = missing.setdefault(found["extra"], [])
            own += [] if _version(found["package"]) else [found["package"]]
    return {extra: tuple(packages) for extra, packages in missing.items()}


def _limited_by() -> tuple[str, ...]:
    """What allows this process fewer cores than there are."""
    limits = runtime.core_limits()
    fewest = min(limits.values())
    few = fewest < (os.cpu_count() or 1)
    return tuple(who for who, count in limits.items() if few and count == fewest)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _default_model(problems: list[str]) -> Model | None:
    if DEFAULT_MODEL not in shipped_models():
        problems.append(
            f"the default model {DEFAULT_MODEL!r} is not in this installation. Type: python -m pip "
            "install --force-reinstall --no-deps . in the folder of quantal, or give --model FOLDER"
        )
        return None
    try:
        return load_model(DEFAULT_MODEL)
    except ModelError:  # already told of as one of the shipped models
        return None


def _verified(name: str, runtime_loads: bool, device: str = "cpu") -> Verification:
    """A model's verification; whatever is wrong becomes its detail."""
    try:
        model = load_model(name)
    except ModelError as error:
        return _failed(name, str(error), sha256_ok=False)
    if not runtime_loads:
        return _failed(name, "no ONNX Runtime loads.")
    try:
        return verify_model(model, device)
    except QuantalError as error:
        return _failed(name, str(error))


def _failed(
    name: str, detail: str, deviation: float = float("nan"), *, sha256_ok: bool = True
) -> Verification:
    return Verification(
        name=name, sha256_ok=sha256_ok, largest_deviation=deviation, passed=False, detail=detail
    )


def _devices(model: Model | None, ort: Any, problems: list[str]) -> tuple[Device, ...]:
    names = [name for name in runtime.DEVICES if name != "auto"]
    devices = tuple(_tried(name, model, ort) for name in names)
    has_gpu_runtime = any("gpu" in name for name in runtime.installed_runtimes())
    if ort is not None and model is not None and has_gpu_runtime:
        problems += [
            f"{device.detail.rstrip('.')}. See whether nvidia-smi shows a GPU; if it does, type: "
            'python -m pip install -U "onnxruntime-gpu[cuda,cudnn]"; if not, use --device cpu'
            for device in devices
            if device.name == "cuda" and not device.works
        ]
    return devices


def _tried(name: str, model: Model | None, ort: Any) -> Device:
    """A device, trusted only once the default model has given the right scores on it."""
    if ort is None:
        return Device(name=name, works=False, detail="no ONNX Runtime loads")
    if model is None:
        return Device(name=name, works=False, detail="not tried, as the default model is missing")
    try:
        verification = verify_model(model, name)
    except QuantalError as error:
        return Device(name=name, works=False, detail=str(error))
    return Device(name=name, works=verification.passed, detail=verification.detail)


def _numba_cache(problems: list[str]) -> tuple[str | None, bool]:
    """The folder of the compiled kernels and whether it can be written."""
    stats = getattr(windows._cut_and_scale, "stats", None)
    if stats is None:
        problems.append(
            "compiled kernels are switched off, so all is slow. Remove NUMBA_DISABLE_JIT from the "
            "environment"
        )
        return None, False
    folder = stats.cache_path
    writable = folder is not None and _writable(Path(folder))
    if not writable:
        problems.append(
            f"no folder for compiled kernels can be written ({folder or 'none found'}), so they "
            "are compiled anew at every start. Set the environment variable NUMBA_CACHE_DIR to a "
            "folder of yours. Type: export NUMBA_CACHE_DIR=~/.cache/numba (on Windows: "
            "setx NUMBA_CACHE_DIR %LOCALAPPDATA%\\numba)"
        )
    return folder, writable


def _check_pictures(problems: list[str]) -> None:
    """Tell where Matplotlib finds no folder for what it reads of fonts, and makes one each time."""
    before = os.environ.get("MPLCONFIGDIR")
    blank(1, 1)
    if os.environ.get("MPLCONFIGDIR") != before:
        problems.append(
            "matplotlib can keep nothing on disk, so that every command which draws a picture "
            "takes seconds longer. Type: export MPLCONFIGDIR=~/.cache/matplotlib, or another "
            "folder of yours (on Windows: setx MPLCONFIGDIR %LOCALAPPDATA%\\matplotlib)"
        )


def _writable(folder: Path) -> bool:
    probe = folder / f".quantal-{secrets.token_hex(6)}.tmp"
    try:
        probe.write_bytes(b"")
        probe.unlink()
    except OSError:
        return False
    return True


def _free_memory_gb() -> float | None:
    """Memory that can be had without swapping, where the system tells."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kilobytes = next(line.split()[1] for line in lines if line.startswith("MemAvailable"))
        return int(kilobytes) * 1024 / 1e9
    except (OSError, StopIteration, ValueError):
        return None


def _telemetry_variable(problems: list[str]) -> str | None:
    value = os.environ.get(_TELEMETRY)
    if value != "1":
        problems.append(
            f"ONNX Runtime may send telemetry: {_TELEMETRY} is {value!r}. Type: "
            f"export {_TELEMETRY}=1 (on Windows: setx {_TELEMETRY} 1)"
        )
    return value


def _telemetry_events_off(ort: Any) -> bool | None:
    """True where the runtime has such events: to load it is to switch them off."""
    return True if hasattr(ort, "disable_telemetry_events") else None


def _speed(model: Model, seconds: float, problems: list[str]) -> Speed | None:
    """Windows per second of a dense scan of noise, after one scan to warm up."""
    card = model.card
    n = max(round(card.rate_hz), card.window_samples)  # a second
    noise = np.random.default_rng(0).standard_normal(n, np.float32)
    trace = Trace(samples=noise, rate_hz=card.rate_hz, unit="")
    scored, elapsed = 0, 0.0
    try:
        device = runtime.open_session(model).device
        scan(trace, model, method="dense")
        start = time.perf_counter()
        while elapsed < seconds:
            scored += len(scan(trace, model, method="dense"))
            elapsed = time.perf_counter() - start
    except QuantalError as error:
        problems.append(str(error))
        return None
    return Speed(
        model=card.name,
        device=device,
        windows_per_s=scored / elapsed,
        rate_hz=card.rate_hz,
        stride=card.stride,
        times_real_time=scored / elapsed * card.stride / card.rate_hz,
    )


# How it reads


def _runtime_text(diagnosis: Diagnosis) -> str:
    if not diagnosis.runtimes:
        return "none is installed"
    names = " and ".join(f"{name} {version}" for name, version in diagnosis.runtimes.items())
    if not diagnosis.providers:
        return f"{names} does not load" if len(diagnosis.runtimes) == 1 else f"{names} conflict"
    short = [name.removesuffix("ExecutionProvider") for name in diagnosis.providers]
    return f"{names}, lists {', '.join(short)}"


def _device_text(device: Device) -> str:
    return f"{device.name} works" if device.works else f"{device.name} no: {device.detail}"


def _threads_text(diagnosis: Diagnosis) -> str:
    by = f" ({' and '.join(diagnosis.cores_limited_by)})" if diagnosis.cores_limited_by else ""
    return f"{diagnosis.threads} of {diagnosis.cpu_count} cores may be used{by}"


def _extras_text(extras: dict[str, tuple[str, ...]]) -> str:
    here = ", ".join(extra for extra, missing in extras.items() if not missing) or "none here"
    lacking = {extra: missing for extra, missing in extras.items() if missing}
    if not lacking:
        return here
    named = ", ".join(f"{extra} (needs {' and '.join(m)})" for extra, m in lacking.items())
    return (
        f"{here}; not here: {named}. Where one is wanted, type: python -m pip install, and what "
        "it needs"
    )


def _memory_text(free_gb: float | None) -> str:
    return "not known on this system" if free_gb is None else f"{free_gb:.1f} GB free"


def _cache_text(diagnosis: Diagnosis) -> str:
    if diagnosis.numba_cache is None:
        return "not kept on disk"
    state = "writable" if diagnosis.numba_cache_writable else "not writable"
    return f"kept in {diagnosis.numba_cache} ({state})"


def _speed_text(speed: Speed | None) -> str:
    if speed is None:
        return "not measured"
    return (
        f"{speed.windows_per_s:,.0f} scores/s with {speed.model} on {speed.device}: 1 s at "
        f"{speed.rate_hz / 1000:g} kHz and stride {speed.stride} takes "
        f"{1 / speed.times_real_time:.2g} s"
    )


def _telemetry_text(diagnosis: Diagnosis) -> str:
    state = "off" if diagnosis.telemetry_variable == "1" else "not switched off"
    events = ", events switched off" if diagnosis.telemetry_events_off else ""
    return f"{state} ({_TELEMETRY}={diagnosis.telemetry_variable or ''}){events}"

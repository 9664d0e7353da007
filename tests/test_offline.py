"""Without a network: nothing is asked of one, and all that is needed is there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

import offline
from lots import abf_recording
from quantal import shipped_models

ROOT = Path(__file__).resolve().parents[1]
_WHEEL_BYTES = 15_000_000


def watched(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A program that ends at its first socket; with nothing set that would keep telemetry quiet."""
    own = {k: v for k, v in os.environ.items() if k != "CI" and not k.startswith("ORT_")}
    return subprocess.run(
        [sys.executable, offline.__file__, *arguments],
        env={**own, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def codes_of(commands: Sequence[Sequence[object]]) -> list[int]:
    """The exit codes of quantal's commands, run one after the other in such a program."""
    done = watched(json.dumps([[str(word) for word in words] for words in commands]))
    assert done.returncode == 0, done.stderr
    codes: list[int] = json.loads(done.stdout.splitlines()[-1])
    return codes


@pytest.mark.parametrize(
    "how",
    [
        "python",
        pytest.param(
            "native",
            marks=pytest.mark.skipif(
                not offline.watched_by_kernel(), reason="only Linux watches native code"
            ),
        ),
    ],
)
def test_the_watch_sees_a_socket(how: str) -> None:
    assert watched(how).returncode in (offline.DIED, -31)  # by Python, or SIGSYS


def test_no_command_asks_for_a_socket(tmp_path: Path) -> None:
    cell, session = tmp_path / "cell.abf", tmp_path / "session.h5"
    cell.write_bytes(abf_recording(3))
    with h5py.File(session, "w") as file:
        traces = np.random.default_rng(0).normal(0, 0.1, (2, 900))
        file.create_dataset("traces", data=traces).attrs["rate_hz"] = 100.0
    imaging = ("--input", "dff", "--rois-in", "rows", "--window-ms", 600)
    commands = [
        ("models", "list"),
        ("doctor", "--seconds", 0.05),
        ("info", cell),
        ("detect", cell, "--out", tmp_path / "one", "--quiet", "--no-picture"),
        ("batch", cell, "--out", tmp_path / "lot", "--workers", 1, "--quiet", "--no-picture"),
        ("rois", session, *imaging, "--out", tmp_path / "rois", "--quiet"),
        ("bench", "--seconds", 1, "--runs", 1, "--threads", 1),
    ]
    codes = codes_of(commands)
    assert codes[1] in (0, 2)  # the doctor may find something else
    assert [*codes[:1], *codes[2:]] == [0] * 6


@pytest.mark.slow
@pytest.mark.skipif(not offline.watched_by_kernel(), reason="only Linux watches native code")
def test_the_watch_sees_the_telemetry_of_the_runtime() -> None:
    """What quantal switches off is there, and would be seen."""
    import onnxruntime

    if not hasattr(onnxruntime, "disable_telemetry_events"):
        pytest.skip("this ONNX Runtime has no telemetry")
    assert watched("telemetry", ORT_DISABLE_TELEMETRY="0").returncode == -31
    assert watched("telemetry", ORT_DISABLE_TELEMETRY="1").returncode == 0


@pytest.mark.slow
def test_the_wheel_is_small_and_holds_the_models(tmp_path: Path) -> None:
    source = tmp_path / "source"  # or pip would take a build folder that lies about
    keep = ("engine", "trainer", "models", "pyproject.toml", "README.md", "LICENSE")
    source.mkdir()
    for name in keep:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, source / name)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", tmp_path, source],
        capture_output=True,
        text=True,
    )
    if "hatchling" in done.stderr and done.returncode:
        pytest.skip("the package index does not answer, and building needs hatchling from it")
    assert done.returncode == 0, done.stderr
    wheel = next(tmp_path.glob("quantal-*.whl"))
    assert wheel.stat().st_size < _WHEEL_BYTES
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    for model in shipped_models():
        assert {f"quantal/models/{model}/{name}" for name in ("card.json", "model.onnx")} <= names
    assert {"quantal/cli.py", "quantal_trainer/cli.py"} <= names
    strange = [n for n in names if "__pycache__" in n or n.split("/")[0] in ("tests", "benchmarks")]
    assert strange == []

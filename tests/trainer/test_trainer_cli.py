"""quantal-train as it is typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from quantal.errors import UsageError
from quantal.model import load_model
from quantal_trainer.cli import main
from quantal_trainer.commands import window_and_rate


@pytest.fixture(scope="session")
def file(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keras") / "network.keras"
    network.save(path)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def started(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The command in a Python of its own, after a line of code."""
    return subprocess.run(
        [sys.executable, "-c", f"{code}\nfrom quantal_trainer.cli import main\nmain()"]
        + [str(argument) for argument in arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_import_keras_writes_a_model_that_loads(file: Path, tmp_path: Path) -> None:
    result = run(
        *("import-keras", file, "--out", tmp_path / "optical", "--window-ms", 600),
        *("--direction", "positive", "--licence", "MIT", "--citation", "A paper"),
    )
    assert (result.exit_code, result.stderr) == (0, "")
    assert "600 samples = 600 ms at 1000 Hz" in result.stdout
    card = load_model(tmp_path / "optical").card
    assert (card.name, card.licence, card.citation) == ("optical", "MIT", "A paper")
    assert (card.window_ms, card.rate_hz) == (600, 1000)
    assert (card.polarity, card.direction) == ("negative", "positive")
    assert card.training["imported_from"] == "network.keras"


def test_json_is_one_object_and_stderr_is_silent(file: Path, tmp_path: Path) -> None:
    done = started("", "import-keras", file, "--out", tmp_path / "m", "--name", "mine", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    content = json.loads(done.stdout)
    assert content["name"] == "mine"
    assert content["graphs"] == load_model(tmp_path / "m").card.graphs
    assert content["window_ms"] == 12


@pytest.mark.parametrize("content", [None, b"text", b"PK\x03\x04"])
def test_a_file_that_cannot_be_read_is_one_line_and_code_3(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "network.h5"
    if content is not None:
        path.write_bytes(content)
    result = run("import-keras", path, "--out", tmp_path / "model")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith("quantal-train: ")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "model").exists()


def test_wrong_usage_is_code_2(file: Path, tmp_path: Path) -> None:
    assert run("import-keras", file).exit_code == 2
    assert run("import-keras", file, "--out", tmp_path, "--threshold", 1).exit_code == 2
    (tmp_path / "notes.txt").write_text("mine")
    result = run("import-keras", file, "--out", tmp_path)
    assert result.exit_code == 2
    assert "notes.txt" in result.stderr
    result = run(
        "import-keras", file, "--out", tmp_path / "m", "--window-ms", 600, "--rate-hz", 100
    )
    assert result.exit_code == 2
    assert "leave out --rate-hz" in result.stderr


def test_a_folder_that_cannot_be_written_is_one_line(file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    result = run("import-keras", file, "--out", tmp_path / "file" / "model")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1


def test_without_tensorflow_the_error_says_what_to_type(tmp_path: Path) -> None:
    missing = "import sys; sys.modules['tensorflow'] = None"
    done = started(missing, "import-keras", tmp_path / "n.h5", "--out", tmp_path / "m")
    assert done.returncode == 2
    assert "python -m pip install tensorflow keras tf2onnx onnx" in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_needs_no_tensorflow() -> None:
    done = started(
        "import sys, atexit\n"
        "atexit.register(lambda: print('tensorflow' in sys.modules, 'scipy' in sys.modules))",
        "--help",
    )
    assert done.returncode == 0
    assert "import-keras" in done.stdout
    assert done.stdout.endswith("False False\n")


@pytest.mark.parametrize(
    ("window_ms", "rate_hz", "expected"),
    [
        (None, None, (12.0, 50_000.0)),
        (600.0, None, (600.0, 1_000.0)),
        (None, 100_000.0, (6.0, 100_000.0)),
        (11.98, 50_000.0, (11.98, 50_000.0)),
    ],
)
def test_window_and_rate_follow_from_each_other(
    window_ms: float | None, rate_hz: float | None, expected: tuple[float, float]
) -> None:
    assert window_and_rate(600, window_ms, rate_hz) == pytest.approx(expected)


def test_a_window_and_a_rate_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(UsageError, match="are 1000 Hz, not 100"):
        window_and_rate(600, 600.0, 100.0)

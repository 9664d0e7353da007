"""quantal-train on a full disk, in a folder that cannot be written, and after Ctrl-C."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from attacks import assert_told, content_of, small_disk, unwritable_folder
from quantal_trainer.cli import main


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def simulate(out: Path) -> Result:
    return run("simulate", "mepsc", "--out", out / "mine.h5", "--windows", 60, "--cells", 2)


def export_keras(out: Path) -> Result:
    return run("export", "cnn-lstm", "--out", out / "mine.keras")


def export_hdf5(out: Path) -> Result:
    return run("export", "cnn-lstm", "--out", out / "mine.h5")


def import_keras(out: Path) -> Result:
    """A model folder, from a file of the same folder."""
    source = out / "mine.keras"
    if not source.exists():
        assert export_keras(out).exit_code == 0
    return run("import-keras", source, "--out", out / "model")


SLOW = [pytest.param(w, marks=pytest.mark.slow) for w in (export_keras, export_hdf5, import_keras)]


@pytest.mark.parametrize("write", [simulate, *SLOW])
def test_a_full_disk_leaves_what_was_there_and_nothing_half(
    write: Callable[[Path], Result], tmp_path: Path
) -> None:
    assert write(tmp_path).exit_code == 0
    before = content_of(tmp_path)
    with small_disk(max(map(len, before.values())) // 3):
        result = write(tmp_path)
    assert result.exit_code == 3, result.output
    assert_told(result.stderr)
    assert content_of(tmp_path) == before


@pytest.mark.parametrize("words", [("fit",), ("transfer", "--base", "cnn-lstm")])
def test_a_folder_that_cannot_be_written_is_told_before_anybody_waits(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert simulate(tmp_path).exit_code == 0
    trained: list[Any] = []
    monkeypatch.setattr("quantal_trainer.train.train", lambda *_, **__: trained.append(1))
    folder = unwritable_folder(tmp_path)
    result = run(words[0], tmp_path / "mine.h5", *words[1:], "--out", folder / "new" / "model")
    assert result.exit_code == 3
    assert_told(result.stderr, "access is denied")
    assert trained == []


def test_ctrl_c_is_one_line_and_nothing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)

    monkeypatch.setattr("quantal_trainer.dataset_files.hdf5_bytes", press)
    result = simulate(tmp_path)
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr == "stopped; what was not finished is not written.\n"
    assert list(tmp_path.iterdir()) == []

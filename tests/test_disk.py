"""Full disks and folders that cannot be written: results are whole or not there, old ones stay."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import Result

from attacks import PROGRAM, assert_told, content_of, small_disk, typed, unwritable_folder
from lots import abf_recording
from quantal import batch, load_model
from quantal.packs import pack_model

_COUNTER = itertools.count(1)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording, the traces of an imaging session, and a packed model."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "cell.abf").write_bytes(abf_recording(3))
    rng = np.random.default_rng(0)
    with h5py.File(folder / "session.h5", "w") as file:
        data = file.create_dataset("traces", data=rng.normal(0, 0.1, (3, 900)))
        data.attrs.update({"rate_hz": 100.0, "unit": "dF/F"})
    pack_model(load_model("optical-minis"), folder)
    return folder


@pytest.fixture(autouse=True)
def _no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch works in this process, so that the disk is as full for it."""
    monkeypatch.setattr(batch, "processes", ThreadPoolExecutor)


def detect(inputs: Path, out: Path) -> Result:
    return typed("detect", inputs / "cell.abf", "--out", out, "--format", "csv,h5", "--quiet")


def miniml(inputs: Path, out: Path) -> Result:
    return typed("detect", inputs / "cell.abf", "--out", out, "--format", "miniml", "--no-picture")


def batched(inputs: Path, out: Path) -> Result:
    other = ("--threshold", 0.4 + 0.001 * next(_COUNTER))  # or it would be done before
    return typed("batch", inputs / "cell.abf", "--out", out, "--quiet", "--no-picture", *other)


def rois(inputs: Path, out: Path) -> Result:
    options = ("--input", "dff", "--rois-in", "rows", "--window-ms", 600, "--quiet")
    return typed("rois", inputs / "session.h5", "--out", out, *options)


def add(inputs: Path, out: Path) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTAL_MODELS", str(out))
        return typed("models", "add", inputs / "optical-minis.quantal", "--name", "mine")


def pack(inputs: Path, out: Path) -> Result:
    del inputs
    return typed("models", "pack", "optical-minis", "--out", out / "mine.quantal")


def bench(inputs: Path, out: Path) -> Result:
    del inputs
    short = ("--seconds", 1, "--runs", 1, "--threads", 1, "--device", "cpu")
    return typed("bench", *short, "--picture", out / "bench.png")


def demo(inputs: Path, out: Path) -> Result:
    del inputs
    return typed("demo", "--out", out)


def compared(inputs: Path, out: Path) -> Result:
    """Statistics of a batch."""
    table = inputs / "recordings.csv"
    rows = [f"c{k},{'ab'[k % 2]},done,,{k % 5 + 1}" for k in range(8)]
    if not table.exists():  # while there was room
        table.write_text("file,group,status,reason,frequency_hz\n" + "\n".join(rows) + "\n")
    options = ("--measure", "frequency_hz", "--resamples", 100)
    return typed("stats", inputs, "--out", out, *options)


QUICK = (detect, miniml, batched, rois, add, pack)
SLOW = [pytest.param(write, marks=pytest.mark.slow) for write in (bench, compared, demo)]
Write = Callable[[Path, Path], Result]


@pytest.mark.parametrize("write", [*QUICK, *SLOW])
def test_a_full_disk_leaves_what_was_there_and_nothing_half(
    write: Write, inputs: Path, tmp_path: Path
) -> None:
    assert write(inputs, tmp_path).exit_code == 0
    before = content_of(tmp_path)
    sizes = [len(raw) for raw in before.values()]
    for most_bytes in {min(sizes) // 2, 3 * max(sizes) // 4}:
        with small_disk(most_bytes):
            result = write(inputs, tmp_path)
        after = content_of(tmp_path)
        if write is batched:  # its tables say which recordings have failed, where there is room
            assert result.exit_code in (3, 4)
            assert "than this disk" in result.stderr
            assert ".quantal-" not in result.stderr
            assert set(after) == set(before)
            after |= {name: before[name] for name in after if not name.startswith("cell.")}
        else:
            assert result.exit_code == 3, result.output
            assert_told(result.stderr)
        assert after == before


@pytest.mark.parametrize("write", [*QUICK, compared, demo])
def test_a_folder_that_cannot_be_written_is_told(
    write: Write, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = unwritable_folder(tmp_path)
    searched = []
    monkeypatch.setattr(
        "quantal.commands.analyse", lambda *_: searched.append(1), raising=True
    )  # nothing is searched for nothing
    result = write(inputs, folder / "results")
    assert result.exit_code == 3 or (write is batched and result.exit_code == 4), result.output
    lines = 2 if write is batched else 1  # of the recording, and of the tables
    assert_told(result.stderr, "access is denied", lines)
    assert str(folder) in result.stderr
    assert searched == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_behind_stdout_is_told() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*PROGRAM, "models", "list"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 3
    said = "the output cannot be written: the disk is full; free some space or save elsewhere."
    assert done.stderr == f"error: {said}\n"


@pytest.mark.slow
def test_a_disk_that_is_really_full_is_told(inputs: Path, tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o size=40k tmpfs {tmp_path}"
    inside = ["unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh"]
    try:
        subprocess.run([*inside, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this user cannot mount a small disk")
    arguments = ("detect", str(inputs / "cell.abf"), "--quiet", "--out", str(tmp_path))
    look = f'"$@"; code=$?; ls -A {tmp_path}; exit $code'
    done = subprocess.run(
        [*inside, "sh", "-c", look, "sh", *PROGRAM, *arguments], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (3, "")
    picture = tmp_path / "cell.png"
    assert done.stderr.splitlines()[-1] == (
        f"error: {picture} cannot be written: the disk is full; free some space or save elsewhere."
    )

"""Ctrl-C: one line, exit code 130, no traceback, nothing half-written, and no process left."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from attacks import PROGRAM, content_of, typed
from lots import abf_recording, write_lot
from quantal.ending import interruptible

pytestmark = pytest.mark.skipif(
    os.name != "posix", reason="Windows has no way to send a Ctrl-C to one process"
)
SAID = "stopped; what was not finished is not written.\n"


def stop_here(*_: Any, **__: Any) -> None:
    """Press Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
    raise AssertionError("Ctrl-C was not heard")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording, and the traces of an imaging session."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "cell.abf").write_bytes(abf_recording(3))
    with h5py.File(folder / "session.h5", "w") as file:
        traces = np.random.default_rng(0).normal(0, 0.1, (3, 900))
        file.create_dataset("traces", data=traces).attrs["rate_hz"] = 100.0
    return folder


DETECT = ("detect", "cell.abf", "--quiet", "--save-scores")
ROIS = ("rois", "session.h5", "--input", "dff", "--rois-in", "rows", "--window-ms", 600, "--quiet")


@pytest.mark.parametrize(
    ("words", "place"),
    [
        (DETECT, "quantal.commands.read_all_told"),
        (DETECT, "quantal.commands.analyse"),
        (DETECT, "quantal.commands.draw_report"),
        (DETECT, "quantal.commands.save_summary"),
        (DETECT, "os.fsync"),
        (ROIS, "quantal.roi_job.read_rois"),
        (ROIS, "quantal.rois.find"),
        (ROIS, "quantal.roi_job.draw_rois"),
        (ROIS, "quantal.roi_job.save_summary"),
        (("demo",), "quantal.commands.analyse"),
        (("models", "pack", "minis", "--out", "old.quantal"), "zipfile.ZipFile.writestr"),
        (("bench", "--seconds", 1), "quantal.bench.simulate_recording"),
    ],
)
def test_wherever_it_is_pressed_nothing_half_is_left(
    words: tuple[object, ...],
    place: str,
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("cell.summary.json", "session.summary.json", "old.quantal"):
        (tmp_path / name).write_text("older")
    before = content_of(tmp_path)
    typed_words = [inputs / word if word in ("cell.abf", "session.h5") else word for word in words]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(place, stop_here)
    result = typed(*typed_words)
    assert result.exit_code == 130
    assert result.stderr.removeprefix("demo.h5\n") == SAID  # after the name of what was searched
    after = content_of(tmp_path)
    after.pop("quantal-demo/demo.h5", None)  # whole, and there before anything is searched
    assert after == before
    assert not list(tmp_path.rglob(".quantal*"))


def test_the_first_one_asks_and_the_second_ends() -> None:
    asked: list[int] = []
    with interruptible(lambda: asked.append(1)):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        assert asked == [1]
        with pytest.raises(KeyboardInterrupt):
            stop_here()
    assert asked == [1]


# As a terminal sends it: to the program and all processes that it has started ---------------------


@contextmanager
def running(folder: Path, *words: object) -> Iterator[subprocess.Popen[str]]:
    """A command in a session of its own, which is over in the end."""
    with subprocess.Popen(
        [*PROGRAM, *map(str, words)],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def pressed(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and stderr after Ctrl-C, once nothing is left of the session."""
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    until(lambda: not is_there(process.pid), 20)
    return process.returncode, stderr


def is_there(session: int) -> bool:
    """Whether a process of a session is still there."""
    try:
        os.killpg(session, 0)
    except ProcessLookupError:
        return False
    return True


def until(what: Callable[[], Any], seconds: float = 60) -> None:
    """Wait until something is true."""
    stop = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < stop, "it took too long"
        time.sleep(0.01)


def children_of(pid: int) -> list[str]:
    """The processes that a process has started, where the system tells."""
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_a_search_in_full_run_ends(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).normal(0, 1, 1_500_000).astype(np.float32)
    np.save(tmp_path / "cell.npy", samples)
    reading = ("--rate-hz", 50_000, "--unit", "pA")
    searching = ("--model", "cnn-lstm", "--window-ms", 12, "--method", "dense")
    with running(tmp_path, "detect", "cell.npy", *reading, *searching) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("cell.npy")  # the bar of its progress
        code, stderr = pressed(process)
    assert (code, stderr) == (130, SAID)
    assert list(content_of(tmp_path)) == ["cell.npy"]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to see processes")
@pytest.mark.parametrize("wait_s", [0.0, pytest.param(2.5, marks=pytest.mark.slow)])
def test_a_batch_ends_with_its_workers_however_young(tmp_path: Path, wait_s: float) -> None:
    write_lot(tmp_path / "lot", 8)
    batch = ("batch", "lot", "--workers", 2, "--out", "out", "--quiet")
    with running(tmp_path, *batch) as process:
        until(lambda: len(children_of(process.pid)) >= 3)  # the workers, and what tracks resources
        time.sleep(wait_s)
        code, stderr = pressed(process)
    assert (code, stderr) == (130, "stopped; the same command goes on from here.\n")
    at_work = tmp_path / "out" / ".quantal-batch"  # where the next run clears away
    assert all(at_work in path.parents for path in tmp_path.rglob(".quantal-*.tmp"))
    with running(tmp_path, *batch) as process:
        _, stderr = process.communicate(timeout=120)
    assert (process.returncode, stderr) == (0, "")
    assert not list(tmp_path.rglob(".quantal-*.tmp"))
    assert len(list(tmp_path.rglob("*.summary.json"))) == 8


@pytest.mark.slow
def test_a_stream_ends_while_it_warms_up(tmp_path: Path) -> None:
    source = ("stream", "-", "--rate-hz", 50_000, "--unit", "pA", "--csv", "events.csv")
    with running(tmp_path, *source) as process:
        assert process.stderr is not None
        assert "are reported up to" in process.stderr.readline()
        code, stderr = pressed(process)
    assert code in (0, 130)  # it had begun to read, or not yet
    assert stderr.splitlines()[-1] in (SAID.strip(), "0 events in 0 s of 1 channel.")
    assert (tmp_path / "events.csv").read_text().count("\n") == 1

"""Worker processes: one that dies costs its own task, and none outlives who started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from quantal.errors import UsageError
from quantal.workers import Processes, cluster, processes, spread

_PARENT = """
import os, time
from quantal.workers import processes
if __name__ == "__main__":
    with processes(1) as executor:
        print(executor.submit(os.getpid).result(), flush=True)
        executor.submit(time.sleep, 60).result()
"""


def note(folder: Path, task: int) -> int:
    """Ten times the task; 3 kills its process always, 5 the first time."""
    with (folder / str(task)).open("a") as file:
        file.write("x")
    if task == 3 or (task == 5 and len((folder / "5").read_text()) == 1):
        os._exit(9)
    if task == 7:
        raise ValueError("seven")
    return 10 * task


def test_a_process_that_dies_costs_its_own_task_one_retry(tmp_path: Path) -> None:
    with processes(2) as executor:
        found = dict(spread(executor, partial(note, tmp_path), range(10), at_once=2))
    assert sorted(found) == list(range(10))
    assert type(found[3]).__name__ == "BrokenProcessPool"
    assert isinstance(found[7], ValueError)
    assert all(found[task] == 10 * task for task in range(10) if task not in (3, 7))
    tried = {task: len((tmp_path / str(task)).read_text()) for task in range(10)}
    assert tried == {**dict.fromkeys(range(10), 1), 3: 2, 5: 2}


def test_an_error_outside_ends_what_is_running() -> None:
    begin = time.monotonic()
    executor = Processes(1)
    pid = executor.submit(os.getpid).result()
    executor.submit(time.sleep, 60)
    executor.shutdown(cancel_futures=True)
    assert time.monotonic() - begin < 30
    assert not _is_running(pid)


def test_no_worker_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(_PARENT)
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert _is_running(pid)
    parent.kill()
    parent.communicate()
    for _ in range(100):
        if not _is_running(pid):
            return
        time.sleep(0.1)
    pytest.fail("the worker is still there")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to see signals")
def test_a_worker_never_hears_a_ctrl_c_not_even_while_it_loads() -> None:
    with processes(1) as executor:
        born_deaf = executor.submit(_blocked_signals).result()
    assert signal.SIGINT in born_deaf
    assert signal.SIGINT not in _blocked_signals()


def _blocked_signals() -> set[int]:
    """What this process will not hear, by the mask that it was born with."""
    return {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())}


def _is_running(pid: int) -> bool:
    """Whether a process is there and not merely waited for."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
def test_a_scheduler_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="needs the extra [dask]")
    monkeypatch.setattr("quantal.workers._CONNECT_S", 1)
    with (
        pytest.raises(UsageError, match="no Dask scheduler answers at"),
        cluster("tcp://127.0.0.1:9"),
    ):
        pass

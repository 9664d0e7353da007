"""Claims: one process at a time, none of the dead, nothing left behind."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from quantal import claims
from quantal.claims import DESKS, claimed, clear_abandoned
from quantal.errors import SaveError
from quantal.save import refuse_unwritable

_HOLD = """
import sys, time
from pathlib import Path
from quantal.claims import claimed
with claimed(Path(sys.argv[1]), "cell") as desk:
    (desk / "half").write_text("half")
    print("mine", flush=True)
    time.sleep(60)
"""


def test_a_claim_keeps_others_away_and_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "not yet there"
    with claimed(out, "cell") as desk:
        assert desk is not None
        (desk / "result").write_text("x")
        with claimed(out, "cell") as second, claimed(out, "other cell") as other:
            assert second is None
            assert other is not None
            assert other != desk
        assert (desk / "result").read_text() == "x"
    assert list(out.iterdir()) == []


def test_an_error_ends_the_claim(tmp_path: Path) -> None:
    with pytest.raises(KeyError), claimed(tmp_path, "cell"):
        raise KeyError
    with claimed(tmp_path, "cell") as desk:
        assert desk is not None


def test_a_claim_ends_with_the_process_that_is_killed(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "mine\n"
        with claimed(tmp_path, "cell") as desk:
            assert desk is None
        clear_abandoned(tmp_path)
        assert list(tmp_path.rglob("half"))  # what is claimed is not taken away
    finally:
        holder.kill()
        holder.communicate()
    with claimed(tmp_path, "cell") as desk:
        assert desk is not None
        assert list(desk.iterdir()) == []
    assert list(tmp_path.iterdir()) == []


def test_what_the_killed_have_left_is_taken_away(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    holder.kill()
    holder.communicate()
    assert list(tmp_path.rglob("half"))
    clear_abandoned(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_of_many_only_one_at_a_time(tmp_path: Path) -> None:
    inside, most, granted = 0, 0, 0
    guard = threading.Lock()

    def race() -> None:
        nonlocal inside, most, granted
        stop = time.monotonic() + 30
        while granted < 50 and time.monotonic() < stop:
            with claimed(tmp_path, "cell") as desk:
                if desk is None:
                    time.sleep(0.0005)
                    continue
                with guard:
                    inside += 1
                    most, granted = max(most, inside), granted + 1
                time.sleep(0.0005)
                with guard:
                    inside -= 1

    threads = [threading.Thread(target=race) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert granted >= 50
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_locks_grants_all_but_not_the_same_desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handle: int) -> None:
        raise OSError(errno.ENOLCK, f"no locks available for {handle}")

    monkeypatch.setattr(claims, "_lock", refuse)
    with claimed(tmp_path, "cell") as first:
        assert first is not None
        with claimed(tmp_path, "cell") as second:
            assert second not in (None, first)
        assert first.is_dir()


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / DESKS).write_text("a file in the way")
    with pytest.raises(SaveError, match="cannot be written"), claimed(tmp_path, "cell"):
        pass


def test_a_link_to_what_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    out = tmp_path / "results"
    out.symlink_to(tmp_path / "gone")
    with (
        pytest.raises(SaveError, match="results is a link to what is not there"),
        claimed(out, "x"),
    ):
        pass
    with pytest.raises(SaveError, match="results is a link to what is not there"):
        refuse_unwritable(out)


def test_an_error_of_the_work_is_not_one_of_the_claim(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError, match="the drive is slow"), claimed(tmp_path, "cell"):
        raise TimeoutError("the drive is slow")
    assert list(tmp_path.iterdir()) == []

"""Machine code that is kept on disk: it never stops a program, nor stands for what it is not."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numba
import numpy as np
import pytest

from attacks import small_disk
from quantal.kernel import kernel

HOUSE = Path(__file__).resolve().parents[1] / "engine" / "quantal"
pytestmark = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT), reason="compiling is switched off, so nothing is kept"
)

SOURCE = """
from quantal.kernel import kernel

@kernel
def doubled(values):
    total = 0.0
    for value in values:
        total += 2 * value
    return total
"""
SINGLE, DOUBLE = np.ones(3, np.float32), np.arange(4.0)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module with a kernel, whose machine code is kept beside it."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    path = tmp_path / "room.py"
    path.write_text(SOURCE)
    return path


def begun(source: Path) -> ModuleType:
    """The module as a program that starts anew has it."""
    spec = importlib.util.spec_from_file_location("room", source)
    assert spec is not None
    assert spec.loader is not None
    room = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(room)
    return room


def kept(source: Path) -> list[Path]:
    """The files of machine code and their indices."""
    return sorted(source.parent.glob("__pycache__/*.nb?"))


def loaded(room: ModuleType) -> int:
    """How often machine code came from the disk."""
    return sum(room.doubled.stats.cache_hits.values())


def test_what_was_compiled_once_is_kept(source: Path) -> None:
    for hits in (0, 2):
        room = begun(source)
        assert (room.doubled(SINGLE), room.doubled(DOUBLE)) == (6.0, 12.0)
        assert loaded(room) == hits
    assert len(kept(source)) == 3


@pytest.mark.parametrize("left", [0, None])
@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_what_a_power_cut_left_of_it_is_made_anew(
    source: Path, suffix: str, left: int | None
) -> None:
    begun(source).doubled(SINGLE)
    for path in kept(source):
        if path.suffix == f".{suffix}":
            path.write_bytes(b"\xff" * 300 if left is None else path.read_bytes()[:left])
    for hits in (0, 1):
        room = begun(source)
        assert room.doubled(SINGLE) == 6.0
        assert loaded(room) == hits


def test_a_full_disk_keeps_nothing_and_stops_nothing(source: Path) -> None:
    room = begun(source)
    with small_disk(100):
        assert (room.doubled(SINGLE), room.doubled(DOUBLE)) == (6.0, 12.0)
    assert kept(source) == []


def test_machine_code_for_other_types_is_not_taken(source: Path) -> None:
    room = begun(source)
    room.doubled(SINGLE), room.doubled(DOUBLE)
    index, first, second = kept(source)[2], *kept(source)[:2]
    assert (index.suffix, first.suffix, second.suffix) == (".nbi", ".nbc", ".nbc")
    swapped = first.read_bytes()
    first.write_bytes(second.read_bytes())  # as two processes may leave it that compile at once
    second.write_bytes(swapped)
    room = begun(source)
    assert (room.doubled(SINGLE), room.doubled(DOUBLE)) == (6.0, 12.0)
    assert loaded(begun(source)) == 0


def test_kernels_work_where_nothing_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    njit = numba.njit

    def refuse(**flags: bool) -> object:
        if flags.pop("cache", False):
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**flags)

    monkeypatch.setattr(numba, "njit", refuse)
    assert kernel(lambda: 3)() == 3


# In processes of their own -----------------------------------------------------------------------

LOOK = """
import numpy as np
from quantal import kinetics, windows
print(kinetics.compiling())
samples = np.sin(np.arange(3000.0)).astype(np.float32)
found = windows.window_ranges(samples, np.arange(0, 2000, 7), 99)
print(windows._ranges.stats.cache_path, sum(windows._ranges.stats.cache_hits.values()), found.sum())
"""


def looking(house: Path, **environment: str) -> subprocess.Popen[str]:
    """A program that compiles a kernel and says whether it waited, where it is kept, and a sum."""
    return subprocess.Popen(
        [sys.executable, "-c", LOOK],
        env={**os.environ, "PYTHONPATH": str(house.parent), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_programs_may_compile_at_once_and_a_third_need_not(tmp_path: Path) -> None:
    place = {"NUMBA_CACHE_DIR": str(tmp_path)}
    both = [looking(HOUSE, **place) for _ in range(2)]
    said = [one.communicate(timeout=120) for one in both]
    said.append(looking(HOUSE, **place).communicate(timeout=120))
    assert [stderr for _, stderr in said] == ["", "", ""]
    sums = [stdout.splitlines()[1].split()[-1] for stdout, _ in said]
    assert len(set(sums)) == 1
    assert said[2][0].splitlines()[1].split()[1] == "1"
    assert not list(tmp_path.rglob("*.tmp.*"))


def test_without_a_writable_home_or_folder_it_works_and_says_so_in_a_line(tmp_path: Path) -> None:
    house = tmp_path / "engine" / "quantal"
    shutil.copytree(HOUSE, house, ignore=shutil.ignore_patterns("__pycache__"))
    (
        house / "__pycache__"
    ).touch()  # a file, where a folder would have to be, is closed to root too
    nowhere = os.devnull + "/nowhere"
    stdout, stderr = looking(
        house, HOME=nowhere, NUMBA_CACHE_DIR=nowhere, XDG_CACHE_HOME=nowhere, LOCALAPPDATA=nowhere
    ).communicate(timeout=120)
    assert stderr == ""
    notice, result = stdout.splitlines()
    assert "cannot be kept (why: type quantal doctor)" in notice
    assert result.startswith("None 0 ")

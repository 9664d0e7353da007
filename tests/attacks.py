"""Disks that are full, folders that cannot be written, and what must be left behind by both."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from quantal.cli import main

PROGRAM = (sys.executable, "-c", "from quantal.cli import main; main(prog_name='quantal')")


def typed(*arguments: object) -> Result:
    """A command in this process, with stdout and stderr apart."""
    return CliRunner().invoke(main, [str(a) for a in arguments])


def started(
    *arguments: object, text: bool = True, **options: object
) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own."""
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=text,
        timeout=300,
        **options,  # type: ignore[call-overload]
    )


@contextmanager
def small_disk(most_bytes: int) -> Iterator[None]:
    """While it lasts no file of this process can grow beyond a size: the system refuses the rest.

    Python ignores the signal that would end it, so writing fails half-way, as on a full disk.
    """
    resource = pytest.importorskip("resource", reason="Windows has no limit for the size of files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def unwritable_folder(parent: Path) -> Path:
    """A folder that is there and in which nothing can be made."""
    folder = parent / "read-only"
    folder.mkdir()
    folder.chmod(0o555)
    if os.access(folder, os.W_OK):  # root may do everything, but not there
        folder = Path("/sys")
    if not folder.is_dir() or os.name != "posix":
        pytest.skip("this user may write everywhere, and there is no file system that forbids it")
    return folder


def content_of(folder: Path) -> dict[str, bytes]:
    """All files of a folder and below, by name, with what is in them."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def assert_told(stderr: str, words: str = "cannot be written", lines: int = 1) -> None:
    """So many lines say what is wrong, with these words in them, and there is no traceback."""
    assert "Traceback" not in stderr
    assert ".quantal-" not in stderr  # a temporary name, which says nothing to a user
    errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == lines, stderr
    assert all(words in line for line in errors), stderr

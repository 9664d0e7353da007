"""Files and folders on a disk that may be full, locked or cut off: all is whole or not there."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from quantal.errors import SaveError

SCRATCH = ".quantal-*.tmp"  # names of what is not complete yet


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place if all goes well and else vanishes.

    Missing folders are made. Raises SaveError if the file cannot be written; any other error of
    the caller passes through, and what was there before stays as it was.
    """
    target = Path(os.path.realpath(path))  # through a link, which is not to be replaced by a file
    temporary = target.with_name(_scratch_name())
    try:
        _prepare(target)
        yield temporary
        _flush(temporary)
        os.replace(temporary, target)
    except OSError as error:
        raise SaveError(f"{path} cannot be written: {reason(error)}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def scratch_folder(parent: str | Path) -> Iterator[Path]:
    """A hidden temporary folder in `parent`, gone at the end unless it was renamed.

    What is left in it is gone too. Missing folders are made. Raises SaveError if something cannot
    be written; any other error of the caller passes through.
    """
    folder = Path(parent) / _scratch_name()
    try:
        folder.mkdir(parents=True)
        yield folder
    except SaveError as error:
        raise as_if_in(parent, folder, error) from error
    except OSError as error:
        raise SaveError(f"{parent} cannot be written: {reason(error)}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def as_if_in(folder: str | Path, scratch: Path, error: SaveError) -> SaveError:
    """The error with the name that a user knows for a file, in place of its temporary one."""
    return SaveError(str(error).replace(str(scratch), str(folder)))


def refuse_unwritable(folder: str | Path) -> None:
    """Raise SaveError where nothing can be written, before much work is done for nothing."""
    with scratch_folder(folder):
        pass


def move_together(files: Sequence[Path], folder: str | Path, outdated: Sequence[Path] = ()) -> None:
    """Move finished files into a folder of the same disk; the last one vouches for the others.

    What it replaces is taken away first, so that where it is found, the others are there and
    belong to it, whenever the program was ended. outdated: files that are taken away once what
    holds more is in its place. Raises SaveError.
    """
    places = [Path(os.path.realpath(Path(folder) / file.name)) for file in files]
    try:
        for place in places:
            _prepare(place)
        places[-1].unlink(missing_ok=True)
        for file, place in zip(files[:-1], places[:-1], strict=True):
            _move(file, place)
        for file in outdated:
            remove(file)
        _move(files[-1], places[-1])
    except OSError as error:
        raise SaveError(f"{folder} cannot be written: {reason(error)}") from error


def remove(path: Path) -> None:
    """Take a file away, if it is there; raises SaveError."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise SaveError(f"{path} cannot be removed: {reason(error)}") from error


def _move(file: Path, place: Path) -> None:
    """Rename a file; where its place is a link to another disk, copy it."""
    try:
        os.replace(file, place)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with replacing(place) as temporary:
            shutil.copyfile(file, temporary)


def _scratch_name() -> str:
    return SCRATCH.replace("*", secrets.token_hex(6))


def _prepare(target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder")
    if target.exists() and not target.is_file():  # a device must not be replaced by a file
        raise OSError(errno.EINVAL, "it is not a plain file; give the name of one")


def _flush(path: Path) -> None:
    """Bring a file to the disk: after a power cut the new name must not hold an empty file."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def reason(error: OSError) -> str:
    """Why the system could not write, and what to do."""
    remedies = {
        errno.ENOSPC: "the disk is full; free some space or save elsewhere.",
        errno.EDQUOT: "your disk quota is used up; free some space or save elsewhere.",
        errno.EFBIG: "it is larger than this disk or account allows; save elsewhere.",
        errno.EROFS: "the disk is read-only; save elsewhere.",
        errno.EACCES: "access is denied; close the file in other programs, or save elsewhere.",
        errno.EPERM: "access is denied; close the file in other programs, or save elsewhere.",
        errno.EISDIR: "it is a folder; give the name of a file.",
        errno.ENOTDIR: "a part of its path is a file, not a folder.",
        errno.EEXIST: "a part of its path is a file, not a folder.",
        errno.ENOENT: "there is no such place; save elsewhere.",
        errno.ENAMETOOLONG: "the name is too long.",
    }
    if error.errno == errno.EEXIST and os.path.islink(error.filename or ""):
        return f"{error.filename} is a link to what is not there."
    return remedies.get(error.errno or 0, f"{error.strerror or error}.")

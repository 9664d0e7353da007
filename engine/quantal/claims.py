"""Claims: of several processes that want to write the same results, one does.

A claim is a lock that the operating system keeps on a file. It ends with the process that holds it,
however that ends and on whichever machine, so there are no claims of the dead. Where a network
drive knows no locks every claim is granted: files are still whole, because they are made elsewhere
and renamed, but the same work may be done twice.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from quantal.errors import SaveError
from quantal.save import as_if_in, reason

DESKS = ".quantal-batch"  # the folder, within that of the results, where they are made
_LOCK = ".lock"
_TRIES = 1_000  # to make a folder that others may take away
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_TAKEN = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)


@dataclass(frozen=True)
class _Claim:
    """An open file; alone: whether a lock on it keeps others away."""

    file: Path
    handle: int
    alone: bool

    @property
    def desks(self) -> Path:
        """Where all who had this claim worked; only those that were killed have left something."""
        return self.file.with_suffix("")


@contextmanager
def claimed(out: Path, name: str) -> Iterator[Path | None]:
    """An empty folder to make results in while nobody else does; None if another process does.

    out: the folder of the results. name: what is claimed in it. What is left in the folder at the
    end is gone, as is what a process that was killed had left in its own. Raises SaveError if the
    folder cannot be made; any other error of the caller passes through.
    """
    file = out / DESKS / (hashlib.sha256(os.fsencode(name)).hexdigest()[:24] + _LOCK)
    with _writing(out):
        claim = _hold(file)
    if claim is None:
        yield None
        return
    desk = claim.desks / secrets.token_hex(4)  # own even where others cannot be kept away
    try:
        with _writing(out):
            desk.mkdir(parents=True)
        yield desk
    except SaveError as error:
        raise as_if_in(out, desk, error) from error
    finally:
        shutil.rmtree(desk, ignore_errors=True)
        _let_go(claim)
        _remove_if_empty(out)


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SaveError(f"{out} cannot be written: {reason(error)}") from error


def clear_abandoned(out: Path) -> None:
    """Take away what killed processes have left of their claims."""
    for lock in sorted((out / DESKS).glob(f"*{_LOCK}")):
        with suppress(OSError):
            claim = _hold(lock)
            if claim is not None:
                _let_go(claim)
    _remove_if_empty(out)


def _remove_if_empty(out: Path) -> None:
    with suppress(OSError):
        (out / DESKS).rmdir()


def _hold(file: Path) -> _Claim | None:
    """The claim that this file stands for, None where another process has it."""
    tries = 0
    while True:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        except (FileNotFoundError, FileExistsError):
            tries += 1
            if tries == _TRIES:
                raise
            continue  # the folder was just taken away by who was there last
        except PermissionError:
            if sys.platform == "win32":
                return None  # the file is just being taken away
            raise
        try:
            alone = lock(handle)
        except BlockingIOError:
            os.close(handle)
            return None
        except OSError:
            os.close(handle)
            raise
        if not alone or _is_at(handle, file):
            return _Claim(file, handle, alone)
        os.close(handle)  # who held it has taken the file away


def lock(handle: int) -> bool:
    """Keep others from an open file until it is closed; False where the disk knows no locks.

    Whoever does not lock it too can read and write it. Raises BlockingIOError if another has it.
    """
    try:
        _lock(handle)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        if error.errno in _TAKEN:
            raise BlockingIOError(error.errno, "another program has it") from None
        raise
    return True


def _let_go(claim: _Claim) -> None:
    """Take the claim's file away while it is held, so that none is left."""
    if claim.alone:
        shutil.rmtree(claim.desks, ignore_errors=True)
    if sys.platform == "win32":
        os.close(claim.handle)  # an open file cannot be removed, nor one that another has open
    with suppress(OSError):
        claim.file.unlink()
    if sys.platform != "win32":
        os.close(claim.handle)


def _is_at(handle: int, path: Path) -> bool:
    """Whether an open file is still the one at a path."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    _BEYOND = 1 << 40  # a byte that no file has: one that is locked cannot be read by others

    def _lock(handle: int) -> None:
        os.lseek(handle, _BEYOND, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

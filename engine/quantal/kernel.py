"""The one decorator for compiled code."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile with Numba; the machine code is kept on disk where a folder for it is writable.

    Kernels take arrays and numbers, never write their inputs and see upward events only.
    Division follows IEEE (a zero divisor gives inf or nan), as in NumPy.
    """
    flags = {"nogil": True, "error_model": "numpy"}
    try:
        compiled = numba.njit(cache=True, **flags)(function)
    except RuntimeError:  # Numba found no folder in which to keep machine code
        return cast(F, numba.njit(**flags)(function))
    if hasattr(compiled, "_cache"):  # not where compiling is switched off
        _forgive(compiled._cache)
    return cast(F, compiled)


def notice(compiled: Any) -> str | None:
    """What to tell a user who will wait until a kernel is compiled; None if nobody will."""
    stats = getattr(compiled, "stats", None)
    if stats is None or compiled.signatures:  # compiling is switched off, or it is here already
        return None
    if stats.cache_path is None:
        return (
            "compiling kernels, which takes a while and cannot be kept (why: type quantal doctor) "
            "..."
        )
    source = compiled.py_func
    room, line = source.__module__.rpartition(".")[2], source.__code__.co_firstlineno
    # On another line it is that of another version.
    if any(Path(stats.cache_path).glob(f"{room}.{source.__qualname__}-{line}.*.nbi")):
        return None
    return "compiling kernels, which happens once and takes a while ..."


def _forgive(cache: Any) -> None:
    """Let what is kept on disk never stop a program, nor stand for what it is not.

    Numba raises whatever the disk does, and whatever a full disk or a power cut has left of a file.
    Of two processes that compile one kernel for other types at once, it may keep the code of the
    one under the name of the other.
    """
    load, save = cache.load_overload, cache.save_overload

    def load_overload(types: Any, target: Any) -> Any:
        try:
            found = load(types, target)
        except Exception:  # unpickling raises many kinds
            with suppress(Exception):
                cache.flush()
            return None
        return found if found is None or tuple(found.signature.args) == tuple(types) else None

    def save_overload(types: Any, compiled: Any) -> None:
        with suppress(Exception):
            save(types, compiled)

    cache.load_overload, cache.save_overload = load_overload, save_overload

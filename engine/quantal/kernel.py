"""The one decorator for compiled code."""

from __future__ import annotations

from collections.abc import Callable
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
        return cast(F, numba.njit(cache=True, **flags)(function))
    except RuntimeError:  # Numba found no folder in which to keep machine code
        return cast(F, numba.njit(**flags)(function))

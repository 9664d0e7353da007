"""NumPy arrays: a trace, or several sweeps; they state neither rate nor unit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.errors import ReadError
from quantal.readers.recording import Channel, Recording, Samples
from quantal.readers.sweeps2d import layout


def open_npy(path: Path, dataset: str | None = None) -> Recording:  # noqa: ARG001
    """Open an array of numbers: 1-D, or 2-D with the longer axis as time; never a pickle.

    Raises ReadError if it is no such array, or shorter than it declares.
    """
    array = _mapped(path)
    if array.dtype.kind not in "iuf" or array.ndim not in (1, 2):
        raise ReadError(
            f"{path} holds an array of shape {array.shape} and type {array.dtype}; allowed are "
            "real numbers in one dimension (samples) or two (sweeps x samples)."
        )
    form = layout(path, "the array", array.shape)

    def load(sweeps: Sequence[int], channels: Sequence[int]) -> Iterator[Sequence[Samples]]:
        yield from form.sweeps(_mapped(path), sweeps, len(channels))

    return Recording(
        path=path,
        format="NumPy",
        channels=(Channel("channel 0"),),
        sweep_samples=form.sweep_samples,
        load=load,
        notes=form.note("the array"),
        rate_missing="a NumPy file states no sampling rate",
    )


def _mapped(path: Path) -> NDArray[Any]:
    """The array, mapped and not loaded, so that a declared size is checked against the file's."""
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:  # the header is parsed as Python, which raises whatever it meets
        raise ReadError(
            f"{path} is not a plain array of numbers ({error}); save it with numpy.save, "
            "whole and without objects."
        ) from error

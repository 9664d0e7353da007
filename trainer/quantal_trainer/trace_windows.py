"""Labelled windows as a trace network reads them: on its grid, in multiples of their cell's noise.

A label speaks of a window's maximum: of the highest score in the part in which events rise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantal.errors import UsageError
from quantal.model import Card
from quantal.noise import own_noise, scaled
from quantal_trainer.backend import keras
from quantal_trainer.datasets import EVENT, NOISE, Dataset, resized
from quantal_trainer.profile import rise_place
from quantal_trainer.trace_network import HOP, UNIT

Array = NDArray[np.float32]

_OWN_SCALE = (0.5, 16.0)  # windows of the network's usual ones: events that it knows as they are
_MARGIN = 4 * UNIT  # samples of the mirror image either side of a window
_ASIDE = 0.04  # of a window: how far beside its event the highest score may lie
_FEWEST = 5  # noise windows of a cell that tell its noise; with less, all its windows do
_QUIET = 1 / 3  # of them hold noise alone, at least, and no flank of an event or artefact
_EQUAL = 1e-3  # of a range: windows whose ranges differ less were scaled each by itself


@dataclass(frozen=True, kw_only=True)
class Framing:
    """How windows lie on a trace network's grid.

    window_ms: the time scale at which the network reads. sign: -1 where events point down.
    width: samples of a window on the grid. first, last: hops, from the window's margin on, between
    which events rise.
    """

    window_ms: float
    sign: int
    width: int
    first: int
    last: int

    @property
    def length(self) -> int:
        """Samples of a window with its margins, a multiple of what the network takes."""
        return int(-(-(self.width + 2 * _MARGIN) // UNIT) * UNIT)

    @property
    def inside(self) -> slice:
        """The samples of the window itself."""
        return slice(_MARGIN, _MARGIN + self.width)


def framing(
    dataset: Dataset, card: Card, *, window_ms: float | None = None, sign: int = 1
) -> Framing:
    """How the labelled windows of a dataset are brought to a trace network.

    window_ms: as in `scan`; None keeps the network's time scale where windows, which last about
    twelve decay constants, are half to 16 times its own, and takes theirs elsewhere.
    Raises UsageError if there is no event among them.
    """
    chosen = time_scale_ms(dataset.window_ms, card) if window_ms is None else window_ms
    width = max(round(card.window_samples * dataset.window_ms / chosen), HOP)
    usable = dataset.labelled()
    events = np.float32(sign) * usable.windows[usable.scores == EVENT]
    if not len(events):
        raise UsageError("no window is scored as an event, so where events lie cannot be told.")
    low, high = np.percentile(rise_place(events) / dataset.length, (5, 95))
    first, last = (low - _ASIDE) * width + _MARGIN, (high + _ASIDE) * width + _MARGIN
    return Framing(
        window_ms=chosen,
        sign=sign,
        width=width,
        first=int(max(first, _MARGIN) / HOP),
        last=int(np.ceil(min(last, width + _MARGIN) / HOP)),
    )


def time_scale_ms(fitting_ms: float, card: Card) -> float:
    """The window at which a trace network reads events whom windows of `fitting_ms` fit."""
    low, high = _OWN_SCALE
    return card.window_ms if low <= fitting_ms / card.window_ms <= high else fitting_ms


def framed(dataset: Dataset, frame: Framing) -> tuple[Array, Array]:
    """Samples (n, frame.length) as a trace network reads them, and labels (n,), 1 an event.

    Of what is labelled; each is continued by its mirror image. The noise is that of a cell, from
    its quieter windows of noise. Raises UsageError for windows that were scaled already.
    """
    usable = dataset.labelled()
    _refuse_scaled(usable)
    upward = np.float32(frame.sign) * resized(usable.windows, frame.width)
    margins = (_MARGIN, frame.length - frame.width - _MARGIN)
    wide = np.pad(upward, ((0, 0), margins), mode="symmetric")
    noise = _noise_of_cells(usable, wide)
    samples = [scaled(x, noise_sd=sd) for x, sd in zip(wide, noise, strict=True)]
    labels = (usable.scores == EVENT).astype(np.float32)
    return np.stack(samples) if samples else wide, labels


def judge(network: keras.Model, frame: Framing) -> keras.Model:
    """The network as it judges windows: samples (n, frame.length, 1) to a score each (n, 1)."""
    samples = keras.Input((frame.length, 1), name="windows")
    hops = network(samples)
    part = keras.layers.Cropping1D((frame.first, frame.length // HOP - frame.last))(hops)
    return keras.Model(samples, keras.layers.GlobalMaxPooling1D(name="highest")(part))


def _noise_of_cells(usable: Dataset, wide: Array) -> NDArray[np.float64]:
    """For each window the noise SD of its cell, in means of ten samples."""
    own = np.array([own_noise(x) for x in wide])
    noise = np.empty(len(wide))
    for cell in np.unique(usable.cells):
        here = usable.cells == cell
        quiet = here & (usable.scores == NOISE)
        noise[here] = np.quantile(own[quiet if quiet.sum() >= _FEWEST else here], _QUIET)
    return noise


def _refuse_scaled(usable: Dataset) -> None:
    """Raise UsageError for windows that all span the same range."""
    spans = np.ptp(usable.windows, axis=1)
    if len(spans) > 1 and np.ptp(spans) <= _EQUAL * spans.max():
        raise UsageError(
            f"all windows span the same range ({spans.max():.3g} {usable.unit}): they were scaled "
            "one by one, and what is left does not tell their noise, by which a trace network "
            "scales. Extract them again as they were recorded, or start from a model that reads "
            "windows: --base cnn-lstm."
        )

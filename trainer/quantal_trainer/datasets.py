"""Labelled windows of recordings, with clock and origin: merged, balanced, split and scaled."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal.errors import UsageError
from quantal.filters import odd_width, resample, smooth
from quantal.trace import is_finite
from quantal.windows import SCORED, cut_windows

Array = NDArray[np.float32]

NOISE, EVENT, EXCLUDED = 0, 1, 2
UNKNOWN = -1  # raw index of a window whose place in its recording is not known
_RARE = 0.25  # a class with less than this share of the windows is worth a warning
_COLUMNS = ("windows", "scores", "cells", "raw_indices", "kinds")


@dataclass(frozen=True, eq=False, kw_only=True)
class Dataset:
    """Windows as they were recorded, what each of them holds, and where it is from.

    windows: float32 (n, length), in `unit`, neither scaled nor turned over.
    scores: int8 (n,), 0 noise, 1 event, 2 excluded (unclear, a duplicate, not yet looked at).
    cells: text (n,), the cell or recording of each; one cell never lies on both sides of a split.
    raw_indices: int64 (n,), sample of the recording at which the window starts; -1 unknown.
    kinds: text (n,), how the window was come by (clear, unclear, noise, simulated ...); may be "".
    rate_hz: sampling rate of the windows. provenance: plain facts, kept as JSON.

    Raises UsageError if the columns do not fit each other or hold what they must not.
    """

    windows: Array
    scores: NDArray[np.int8]
    rate_hz: float
    unit: str
    cells: NDArray[np.str_] = field(default_factory=lambda: np.empty(0, np.str_))
    raw_indices: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    kinds: NDArray[np.str_] = field(default_factory=lambda: np.empty(0, np.str_))
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _set(self, "windows", _checked_windows(self.windows))
        n = len(self.windows)
        _set(self, "scores", _checked_scores(self.scores, n))
        for name, missing in (("cells", ""), ("raw_indices", UNKNOWN), ("kinds", "")):
            _set(self, name, _filled(getattr(self, name), n, missing, name))
        if not (is_finite(self.rate_hz) and self.rate_hz > 0):
            raise UsageError(f"rate_hz must be a positive number, got {self.rate_hz!r}.")
        _set(self, "rate_hz", float(self.rate_hz))

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, rows: slice | ArrayLike) -> Dataset:
        """The chosen windows: every column is cut at once."""
        chosen = rows if isinstance(rows, slice) else np.asarray(rows)
        if isinstance(chosen, np.ndarray) and not len(chosen):
            chosen = np.empty(0, np.int64)
        return replace(self, **{name: getattr(self, name)[chosen] for name in _COLUMNS})

    def __repr__(self) -> str:
        return f"Dataset({self.describe()})"

    @property
    def length(self) -> int:
        """Samples in a window."""
        return int(self.windows.shape[1])

    @property
    def window_ms(self) -> float:
        """How long a window is."""
        return 1e3 * self.length / self.rate_hz

    def labelled(self) -> Dataset:
        """The windows that are scored 0 or 1 and can be scaled: finite and not flat."""
        rows = np.flatnonzero(self.scores != EXCLUDED)
        return self[rows[_states(self.windows[rows]) == SCORED]]

    def summary(self) -> dict[str, Any]:
        """Counts, sizes and cells, as plain numbers with units in the names."""
        cells, counts = np.unique(self.cells, return_counts=True)
        kinds, of_kind = np.unique(self.kinds, return_counts=True)
        finite = self.windows[np.isfinite(self.windows).all(axis=1)]
        spans = np.ptp(finite, axis=1) if len(finite) else np.empty(0)
        return {
            "windows": len(self),
            "events": int((self.scores == EVENT).sum()),
            "noise": int((self.scores == NOISE).sum()),
            "excluded": int((self.scores == EXCLUDED).sum()),
            "length_samples": self.length,
            "window_ms": self.window_ms,
            "rate_hz": self.rate_hz,
            "unit": self.unit,
            "median_range": float(np.median(spans)) if len(spans) else None,
            "cells": {str(c): int(k) for c, k in zip(cells, counts, strict=True)},
            "kinds": {str(c): int(k) for c, k in zip(kinds, of_kind, strict=True) if c},
        }

    def describe(self) -> str:
        """The summary in a line for people."""
        facts = self.summary()
        return (
            f"{facts['windows']} windows of {facts['length_samples']} samples "
            f"({facts['window_ms']:g} ms at {facts['rate_hz']:g} Hz, {self.unit or 'no unit'}): "
            f"{facts['events']} events, {facts['noise']} noise, {facts['excluded']} excluded, "
            f"from {len(facts['cells'])} {'cell' if len(facts['cells']) == 1 else 'cells'}"
        )


# Many and parts ----------------------------------------------------------------------------------


def merge(datasets: Sequence[Dataset]) -> Dataset:
    """One dataset from several of the same window; a window that is in two of them is kept once.

    Lengths may differ where the windows last equally long: all are resampled to the first's.
    Raises UsageError if there are none, or they differ in window_ms (by over 1 %) or unit.
    """
    if not datasets:
        raise UsageError("there is no dataset to merge.")
    first = datasets[0]
    for other in datasets[1:]:
        if abs(other.window_ms / first.window_ms - 1) > 0.01:
            raise UsageError(
                f"windows of {other.window_ms:g} ms do not go with windows of "
                f"{first.window_ms:g} ms: extract them again with the same --window-ms."
            )
        if other.unit != first.unit:
            raise UsageError(f"windows in {other.unit!r} do not go with windows in {first.unit!r}.")
    whole = replace(
        first,
        windows=np.concatenate([resized(d.windows, first.length) for d in datasets]),
        scores=np.concatenate([d.scores for d in datasets]),
        cells=np.concatenate([d.cells for d in datasets]),
        raw_indices=np.concatenate([d.raw_indices for d in datasets]),
        kinds=np.concatenate([d.kinds for d in datasets]),
        provenance={"merged": [d.provenance for d in datasets]},
    )
    return whole[_first_of_each(whole)]


def balanced(dataset: Dataset, *, seed: int = 0) -> Dataset:
    """As many events as noise windows: the more frequent kind is thinned by chance.

    Excluded windows are left out. Raises UsageError if one of the two kinds is not there.
    """
    rng = np.random.default_rng(seed)
    places = [np.flatnonzero(dataset.scores == score) for score in (NOISE, EVENT)]
    fewest = min(map(len, places))
    if fewest == 0:
        raise UsageError("a dataset without events, or without noise, cannot be balanced.")
    kept = np.concatenate([rng.permutation(p)[:fewest] for p in places])
    return dataset[np.sort(kept)]


def split(
    dataset: Dataset, *, validation: float = 0.25, by: str = "cell", seed: int = 0
) -> tuple[Dataset, Dataset]:
    """Training and validation windows, about this share in validation.

    by: "cell" keeps every cell whole, on one side or the other; "window" shuffles windows, so that
    windows of one cell lie on both sides and validation flatters. Both sides get events and noise.
    Raises UsageError if that cannot be done, such as with a single cell.
    """
    if not 0 < validation < 1:
        raise UsageError(f"validation must be a share between 0 and 1, got {validation!r}.")
    if by not in ("cell", "window"):
        raise UsageError(f"by must be cell or window, got {by!r}.")
    rng = np.random.default_rng(seed)
    held_out = _some_cells(dataset, validation, rng) if by == "cell" else None
    if held_out is None:
        held_out = _some_windows(dataset, validation, rng)
    training, held = dataset[~held_out], dataset[held_out]
    for part, name in ((training, "training"), (held, "validation")):
        if not {NOISE, EVENT} <= set(part.scores.tolist()):
            raise UsageError(
                f"the {name} part would hold no events or no noise: give more windows, or "
                "split by window."
            )
    return training, held


def folds(
    dataset: Dataset, count: int, *, by: str = "cell", seed: int = 0
) -> Iterator[tuple[Dataset, Dataset]]:
    """Training and validation windows of each fold; every window is in validation once.

    Raises UsageError for less than two folds, fewer cells or windows of a kind than folds, and
    where a fold would have no events or no noise.
    """
    if count < 2:
        raise UsageError(f"cross-validation needs at least 2 folds, got {count}.")
    if by not in ("cell", "window"):
        raise UsageError(f"by must be cell or window, got {by!r}.")
    groups = dataset.cells if by == "cell" else np.arange(len(dataset)).astype(np.str_)
    n_groups = len(np.unique(groups))
    if n_groups < count:
        raise UsageError(
            f"{count} folds need at least {count} {by}s, there are {n_groups}: fewer folds, or "
            "split by window."
        )
    events, noise = (int((dataset.scores == score).sum()) for score in (EVENT, NOISE))
    if min(events, noise) < count:
        raise UsageError(
            f"{count} folds need at least {count} events and {count} noise windows, there are "
            f"{events} and {noise}: fewer folds, or more windows."
        )
    parts = _folded(dataset.scores, groups, count, seed)
    if any(_one_sided(dataset.scores, held) for held in parts):
        raise UsageError(
            f"one of {count} folds would hold no events or no noise: fewer folds, or split by "
            "window."
        )
    for held in parts:
        yield dataset[~held], dataset[held]


def _folded(
    scores: NDArray[np.int8], groups: NDArray[np.str_], count: int, seed: int
) -> list[NDArray[np.bool_]]:
    """What is in validation in each fold, groups kept whole and scores spread evenly."""
    from sklearn.model_selection import StratifiedGroupKFold

    kfold = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # excluded windows may be fewer than folds
        held = [held for _, held in kfold.split(scores, scores, groups)]
    return [np.isin(np.arange(len(scores)), rows) for rows in held]


def opposed(dataset: Dataset) -> float:
    """The share of event windows whose largest deflection points against the average event's."""
    usable = dataset.labelled()
    events = usable.windows[usable.scores == EVENT]
    if not len(events):
        return 0.0
    sign = 1.0 if polarity(dataset) == "positive" else -1.0
    smoothed = smooth(events, odd_width(events.shape[1] / 20))
    upward = sign * (smoothed - np.median(smoothed, axis=1, keepdims=True))
    return float((upward.max(axis=1) < -upward.min(axis=1)).mean())


def imbalance(dataset: Dataset) -> str:
    """A warning where one kind is rare, or an empty text."""
    events, noise = ((dataset.scores == s).sum() for s in (EVENT, NOISE))
    share = min(events, noise) / max(events + noise, 1)
    if share >= _RARE:
        return ""
    rare = "events" if events < noise else "noise"
    return (
        f"only {100 * share:.0f} % of the windows are {rare}: a network trained on them leans to "
        "the other kind; score more of them, or balance."
    )


def _first_of_each(dataset: Dataset) -> NDArray[np.intp]:
    """Rows without copies: the same samples, or nearly so at the same place of the same cell.

    Of a window and its copy, one that is scored 0 or 1 is kept, else the first.
    """
    seen: set[bytes] = set()
    places: dict[tuple[str, int], list[int]] = {}
    keep = []
    for i in np.argsort(dataset.scores == EXCLUDED, kind="stable").tolist():
        samples, index = dataset.windows[i].tobytes(), int(dataset.raw_indices[i])
        there = places.setdefault((str(dataset.cells[i]), index), []) if index != UNKNOWN else []
        if samples not in seen and not any(_alike(dataset.windows, i, j) for j in there):
            keep.append(i)
            there.append(i)
        seen.add(samples)
    return np.sort(np.array(keep, np.intp))


def _alike(windows: Array, i: int, j: int) -> bool:
    """Whether two windows are one and the same but for resampling."""
    one, other = (windows[k] - windows[k].mean(dtype=np.float64) for k in (i, j))
    return bool(one @ other > 0.99 * np.linalg.norm(one) * np.linalg.norm(other))


def _some_cells(dataset: Dataset, share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Whole cells that together hold about this share of the windows, as near as chance finds."""
    cells, inverse, counts = np.unique(dataset.cells, return_inverse=True, return_counts=True)
    if len(cells) < 2:
        raise UsageError(
            f"all {len(dataset)} windows are of one cell ({cells[0] if len(cells) else 'none'}): "
            "add another recording, or split by window."
        )
    best, distance = np.zeros(len(cells), np.bool_), np.inf
    for _ in range(200):
        order = rng.permutation(len(cells))
        last = max(int(np.searchsorted(np.cumsum(counts[order]), share * len(dataset))), 0)
        for size in (last, last + 1):
            chosen = np.isin(np.arange(len(cells)), order[: min(max(size, 1), len(cells) - 1)])
            off = abs(counts[chosen].sum() - share * len(dataset)) / len(dataset)
            off += _one_sided(dataset.scores, chosen[inverse])
            if off < distance - 1e-12:
                best, distance = chosen, off
    return best[inverse]


def _one_sided(scores: NDArray[np.int8], held_out: NDArray[np.bool_]) -> float:
    """2 for every side that lacks events or noise."""
    sides = (scores[held_out], scores[~held_out])
    return 2.0 * sum(not {NOISE, EVENT} <= set(np.unique(s).tolist()) for s in sides)


def _some_windows(dataset: Dataset, share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """This share of the windows of every score, by chance."""
    held_out = np.zeros(len(dataset), np.bool_)
    for score in (NOISE, EVENT, EXCLUDED):
        places = rng.permutation(np.flatnonzero(dataset.scores == score))
        held_out[places[: round(share * len(places))]] = True
    return held_out


# What a network reads ----------------------------------------------------------------------------


def resized(windows: Array, length: int) -> Array:
    """Windows (n, any) resampled to (n, length), by the filter that detection uses."""
    if windows.shape[1] == length or not len(windows):
        return windows.reshape(len(windows), length)
    out = np.empty((len(windows), length), np.float32)
    for i, window in enumerate(windows):
        out[i] = resample(window, length, windows.shape[1])[:length]
    return out


def scaled(windows: Array, length: int, sign: int = 1) -> Array:
    """Windows (n, any) as a network reads them: of this length, times sign, each scaled to 0..1.

    Raises UsageError if one of them is flat or not finite; `Dataset.labelled` leaves those out.
    """
    ready = np.ascontiguousarray(np.float32(sign) * resized(windows, length))
    if not len(ready):
        return ready
    out, states = cut_windows(ready.ravel(), 0, length, len(ready), length)
    if (states != SCORED).any():
        raise UsageError(f"{(states != SCORED).sum()} windows are flat or hold missing samples.")
    return out


def _states(windows: Array) -> NDArray[np.int8]:
    """Whether each window can be scaled: SCORED, FLAT or MISSING."""
    if not len(windows):
        return np.empty(0, np.int8)
    length = windows.shape[1]
    return cut_windows(windows.ravel(), 0, length, len(windows), length)[1]


def training_arrays(dataset: Dataset, length: int, sign: int = 1) -> tuple[Array, Array]:
    """Scaled windows (n, length) and labels float32 (n,), 1 an event, of what is labelled."""
    usable = dataset.labelled()
    return scaled(usable.windows, length, sign), (usable.scores == EVENT).astype(np.float32)


def polarity(dataset: Dataset) -> str:
    """Which way the events point: "positive" or "negative", from the average event.

    The average less its first tenth is larger in that direction. Raises UsageError without events.
    """
    usable = dataset.labelled()
    events = usable.windows[usable.scores == EVENT]
    if not len(events):
        raise UsageError("no window is scored as an event, so their polarity cannot be told.")
    height = _excursion(events.mean(axis=0, dtype=np.float64), dataset.length)
    return "positive" if height >= 0 else "negative"


def _excursion(average: NDArray[np.float64], length: int) -> float:
    """The larger of rise and fall from the start of an average event, with its sign."""
    from_start = average - np.median(average[: max(length // 10, 1)])
    return float(from_start[np.abs(from_start).argmax()])


# Columns -----------------------------------------------------------------------------------------


def _set(dataset: Dataset, name: str, value: Any) -> None:
    object.__setattr__(dataset, name, value)


def _checked_windows(values: ArrayLike) -> Array:
    windows = np.asarray(values)
    if windows.ndim == 3 and windows.shape[2] == 1:
        windows = windows[:, :, 0]
    if windows.ndim != 2 or windows.shape[1] < 8 or windows.dtype.kind not in "iuf":
        raise UsageError(
            "windows must be numbers (n, length) of at least 8 samples each, "
            f"got {windows.dtype} {windows.shape}."
        )
    return np.ascontiguousarray(windows, np.float32)


def _checked_scores(values: ArrayLike, n: int) -> NDArray[np.int8]:
    scores = np.asarray(values)
    if scores.shape == (n, 1):
        scores = scores[:, 0]
    if scores.shape != (n,):
        raise UsageError(f"there are {n} windows but scores of shape {scores.shape}.")
    if not np.isin(scores, (NOISE, EVENT, EXCLUDED)).all():
        wrong = sorted({str(s) for s in scores.tolist()} - {"0", "1", "2", "0.0", "1.0", "2.0"})
        raise UsageError(
            f"scores must be 0 (noise), 1 (event) or 2 (excluded), got {', '.join(wrong[:5])}."
        )
    return scores.astype(np.int8)


def _filled(values: ArrayLike, n: int, missing: str | int, name: str) -> NDArray[Any]:
    column = np.asarray(values)
    if not column.size:
        return np.full(n, missing)
    if isinstance(missing, str):
        column = column.astype(np.str_)
    elif not _whole(column):
        raise UsageError(f"{name} must be whole numbers of samples, got {column.dtype}.")
    else:
        column = column.astype(np.int64)
    if column.shape != (n,):
        raise UsageError(f"there are {n} windows but {name} of shape {column.shape}.")
    return column


def _whole(column: NDArray[Any]) -> bool:
    """Whether all are whole numbers; other programs write them as floats."""
    if column.dtype.kind == "f":
        return bool(np.isfinite(column).all() and (column == np.rint(column)).all())
    return column.dtype.kind in "iu"

"""Rois -> Events: every ROI as `detect` would search it, with the work of all of them shared."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.baseline import Baseline, delta_f
from quantal.classical import NETWORK, Detector
from quantal.detect import (
    Found,
    Settings,
    as_events,
    begin,
    choose,
    find,
    on_own_time_scale,
    settle,
)
from quantal.errors import UsageError
from quantal.events import REJECTED, Events
from quantal.imaging import RAW, Rois, checked_rois
from quantal.model import Model
from quantal.scan import Progress
from quantal.timescale import AUTO, TimeScale

UPWARD = "positive"  # a fluorescence that rises; cards know currents, which point down
USUAL_MS = 600.0  # glutamate indicators: decays of 50 ms or so
_AHEAD = 2  # ROIs to a thread that are being scored, so that none waits for work


def detect_rois(
    rois: Rois,
    *,
    model: str | Path | Model | None = None,
    detector: str | Detector = NETWORK,
    window_ms: float | str = AUTO,
    direction: str = UPWARD,
    threshold: float | None = None,
    baseline: Baseline | None = None,
    device: str = "auto",
    threads: int | None = None,
) -> Events:
    """Find and measure the events of all ROIs; the table has a column `roi`, the ROI's number.

    rois: from `read_rois`, or made of a matrix. Of raw fluorescence dF/F is taken first.
    window_ms: the time scale, about twelve decay time constants (600 ms for glutamate indicators);
    "auto" reads it from the events of all ROIs together. direction: "positive", as fluorescence
    rises, "negative" or "both".
    baseline: how F0 is read from raw fluorescence; None is a running percentile.
    threads: of the CPU; every one reads a ROI of its own. Other options are those of `detect`, and
    so is what is found in each ROI. ROIs without events are in `sweeps`, in the order of `rois`.

    Raises UsageError, ModelError or MissingRuntimeError; each says what is allowed.
    """
    rois, source = checked_rois(rois), choose(model, detector)
    settings = settle(
        source,
        window_ms=None if window_ms == AUTO else window_ms,
        direction=direction,
        threshold=threshold,
        device=device,
        threads=threads,
    )
    if rois.kind == RAW:
        rois = delta_f(rois, baseline or Baseline(), settings.threads)
    if window_ms == AUTO:
        settings, _ = on_time_scale_of(rois, source, settings)
    return search(rois, source, settings)


def on_time_scale_of(
    rois: Rois, source: Model | Detector, settings: Settings
) -> tuple[Settings, TimeScale]:
    """The settings with the window that fits the events of all ROIs, and why it does.

    Where too few tell it is that of a glutamate indicator. Raises UsageError if the traces are too
    short.
    """
    traces = [rois.trace(row) for row in range(len(rois))]
    return on_own_time_scale(traces, source, settings, USUAL_MS)


def search(
    rois: Rois, source: Model | Detector, settings: Settings, progress: Progress | None = None
) -> Events:
    """The events of all ROIs, as `detect` finds them in each; progress is called with (done, all).

    The threads score the ROIs, some of them ahead, while this one reads them and measures what is
    found: were every thread to do all, they would wait for each other. Raises UsageError if the
    window does not fit.
    """
    own = replace(settings, threads=1)  # of each ROI
    parts: list[Found] = []
    with ThreadPoolExecutor(settings.threads) as pool:
        ahead: deque[Callable[[], Found]] = deque()
        for row in range(len(rois)):
            trace = rois.trace(row)
            ahead.append(partial(find, trace, begin(trace, source, own, pool=pool), source, own))
            while len(ahead) > _AHEAD * settings.threads or (ahead and row == len(rois) - 1):
                parts.append(_numbered(ahead.popleft()(), int(rois.number[len(parts)])))
                if progress is not None:
                    progress(len(parts), len(rois))
    return as_events(parts)


def _numbered(found: Found, number: int) -> Found:
    return replace(found, sweep=replace(found.sweep, roi=number))


@dataclass(frozen=True, eq=False, kw_only=True)
class RoiTable:
    """One row per ROI, those without events too; rejected events do not count.

    x_px, y_px: centre in pixels, nan where it is not known. analysed_s: seconds searched.
    frequency_hz: events per second searched, nan if nothing was. amplitude, half_decay_ms: medians,
    nan where none could be measured.
    """

    recording: NDArray[np.str_]
    roi: NDArray[np.int64]
    x_px: NDArray[np.float64]
    y_px: NDArray[np.float64]
    analysed_s: NDArray[np.float64]
    events: NDArray[np.int64]
    frequency_hz: NDArray[np.float64]
    amplitude: NDArray[np.float64]
    unit: NDArray[np.str_]
    half_decay_ms: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.roi)

    def __repr__(self) -> str:
        active = int((self.events > 0).sum())
        return f"RoiTable({len(self)} ROIs, {int(self.events.sum())} events in {active} of them)"

    def columns(self) -> dict[str, NDArray[Any]]:
        """The columns by name, in order."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def per_roi(events: Events, rois: Rois) -> RoiTable:
    """Frequency, number and medians of the events of every ROI that was searched.

    Raises UsageError if the events are not of these ROIs.
    """
    if [sweep.roi for sweep in events.sweeps] != rois.number.tolist() or events.roi is None:
        raise UsageError("these events are not of these ROIs: give those that were searched.")
    found = events[events.status != REJECTED]
    groups = rows_by_roi(found, rois)
    counts = np.array([len(rows) for rows in groups], np.int64)
    analysed_s = np.array([sweep.analysed_s for sweep in events.sweeps])
    with np.errstate(invalid="ignore", divide="ignore"):
        frequency_hz = np.where(analysed_s > 0, counts / analysed_s, np.nan)
    position = np.full((len(rois), 2), np.nan) if rois.position is None else rois.position
    return RoiTable(
        recording=np.full(len(rois), rois.recording or ""),
        roi=rois.number,
        x_px=position[:, 0],
        y_px=position[:, 1],
        analysed_s=analysed_s,
        events=counts,
        frequency_hz=frequency_hz,
        amplitude=_medians(found.amplitude, groups),
        unit=np.array([sweep.unit for sweep in events.sweeps], np.str_),
        half_decay_ms=_medians(found.half_decay_ms, groups),
    )


def rows_by_roi(events: Events, rois: Rois) -> list[NDArray[np.int64]]:
    """Rows of the events of each ROI, in the order of the ROIs."""
    number = np.empty(0, np.int64) if events.roi is None else events.roi
    order = np.argsort(number, kind="stable")
    first = np.searchsorted(number[order], rois.number)
    last = np.searchsorted(number[order], rois.number, side="right")
    return [order[a:b] for a, b in zip(first, last, strict=True)]


def _medians(
    values: NDArray[np.float64], groups: Sequence[NDArray[np.int64]]
) -> NDArray[np.float64]:
    known = [values[rows][np.isfinite(values[rows])] for rows in groups]
    return np.array([np.median(part) if len(part) else np.nan for part in known])

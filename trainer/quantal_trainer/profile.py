"""What a network's windows look like: a few numbers to compare new windows with a base's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.filters import odd_width, smooth

Array = NDArray[np.float32]
Profile = dict[str, list[float]]  # name -> 5th percentile, median, 95th percentile

_FEWEST = 5  # windows of a kind from which a median says anything
_SMOOTHING = 1 / 15  # of a window: that of the gradient in which detection locates events
_SEARCH = (20, 75)  # samples around a stretch of high scores, of 600: the shipped model's, miniML's


@dataclass(frozen=True)
class _Feature:
    """A property of windows, how it reads, and what helps where it is unusual."""

    words: str
    advice: str


_FEATURES = {
    "noise_roughness": _Feature(
        "neighbouring samples of noise windows differ by {} of the window's range",
        "another filter or rate than the base knows; give more windows, or train in full",
    ),
    "event_roughness": _Feature(
        "neighbouring samples of event windows differ by {} of the window's range",
        "noisier or smoother events than the base knows; give more windows, or train in full",
    ),
    "event_place": _Feature(
        "events rise at {} of the window",
        "extract again, so that events lie about a third into their window",
    ),
    "event_width": _Feature(
        "events are above half their height for {} of the window",
        "extract again with a window of about twelve decay time constants",
    ),
}


def profile(windows: Array, labels: Array) -> Profile:
    """Percentiles 5, 50 and 95 of what scaled windows (n, samples) with upward events look like.

    Roughness is the median step between neighbouring samples, as part of the window's range; place
    and width are parts of the window. A kind of less than five windows is left out.
    """
    rough = np.median(np.abs(np.diff(windows, axis=1)), axis=1)
    events = windows[labels == 1]
    values = {"noise_roughness": rough[labels == 0], "event_roughness": rough[labels == 1]}
    if len(events):
        values["event_place"] = rise_place(events) / windows.shape[1]
        values["event_width"] = (_smoothed(events) > 0.5).mean(axis=1)
    return {
        name: [round(float(v), 5) for v in np.percentile(value, (5, 50, 95))]
        for name, value in values.items()
        if len(value) >= _FEWEST
    }


def unlike(base: Profile, new: Profile) -> list[str]:
    """What of new windows lies outside the middle 90 % of the base's, one sentence each."""
    sentences = []
    for name in base.keys() & new.keys() & _FEATURES.keys():
        low, _, high = base[name]
        median = new[name][1]
        if not low <= median <= high:
            feature = _FEATURES[name]
            sentences.append(
                f"{feature.words.format(f'{median:.2g}')}, the base was trained on {low:.2g} to "
                f"{high:.2g}: {feature.advice}."
            )
    return sorted(sentences)


def rise_place(events: Array) -> NDArray[np.int64]:
    """The sample of steepest rise of each window (n, samples) with an upward event."""
    slope = np.gradient(_smoothed(events), axis=1)
    return np.asarray(slope.argmax(axis=1), np.int64)


def speaks_for(events: Array) -> tuple[int, int]:
    """The reference and search samples of a card, from scaled windows with upward events.

    The reference is the median place of steepest rise; the search reaches as far as half of what
    nine tenths of the places span, but no less than the shipped model's and no more than miniML's.
    """
    places = rise_place(events)
    width = events.shape[1]
    spread = np.subtract(*np.percentile(places, (95, 5))) / 2
    low, high = (limit * width / 600 for limit in _SEARCH)
    return int(np.median(places)), round(float(np.clip(spread, low, high)))


def profile_of(training: dict[str, Any]) -> Profile:
    """The profile in a card's training facts; empty where there is none."""
    found = training.get("profile")
    return found if isinstance(found, dict) else {}


def _smoothed(windows: Array) -> Array:
    return smooth(windows, odd_width(_SMOOTHING * windows.shape[1]))

"""Events told before they are decided: each once, and withdrawn where nothing comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quantal.events import Events
from quantal.online import OnlineDetector


@dataclass(frozen=True, kw_only=True)
class Told:
    """An event that was told before it was decided."""

    channel: str
    polarity: int
    location_s: float


class Early:
    """What a detector expects, told once.

    Two events are one if they lie within a tenth of the window, in the same channel, and point the
    same way: where an event rises steepest moves a little while more of it comes.
    """

    def __init__(self, detector: OnlineDetector) -> None:
        self._detector = detector
        self._near_s = detector.settings.window_ms / 10_000
        self.told: list[Told] = []  # of which nothing has come yet

    def decided(self, events: Events) -> None:
        """Take what the detector has reported."""
        self.told = self._without(_each(events))

    def look(self) -> tuple[Events, list[Told]]:
        """Events that are expected and were not told yet, and those told of which nothing came."""
        expected = self._detector.provisional()
        known = _each(expected)
        seen_s = self._detector.now_s - self._detector.delay_s
        gone = [one for one in self._without(known) if one.location_s < seen_s]
        new = np.array([not self._is_told(one) for one in known], np.bool_)
        self.told = [one for one in self.told if one not in gone] + _each(expected[new])
        return expected[new], gone

    def _without(self, events: Sequence[Told]) -> list[Told]:
        return [one for one in self.told if not any(self._is_same(one, e) for e in events)]

    def _is_told(self, event: Told) -> bool:
        return any(self._is_same(one, event) for one in self.told)

    def _is_same(self, one: Told, other: Told) -> bool:
        return (
            abs(one.location_s - other.location_s) < self._near_s
            and one.channel == other.channel
            and one.polarity == other.polarity
        )


def _each(events: Events) -> list[Told]:
    columns = (events.channel, events.polarity, events.location_s)
    return [
        Told(channel=channel, polarity=polarity, location_s=location_s)
        for channel, polarity, location_s in zip(*(c.tolist() for c in columns), strict=True)
    ]

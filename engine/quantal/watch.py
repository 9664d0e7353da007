"""A folder into which recordings are written: each is searched once it is finished."""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.commands import DetectJob, counted, result_of
from quantal.ending import interruptible
from quantal.errors import QuantalError, UsageError
from quantal.events import Events, join, no_events
from quantal.lot import is_result, suffixes
from quantal.outlets import Outlets, Screen
from quantal.save import file_name, load_events, load_summary, results_name

_LOOK_S = 0.5
_SAME_S = 1e-4  # between places of one event, found again in a longer recording
_USUAL: dict[str, Any] = {
    **dict.fromkeys(("start_s", "stop_s", "lowpass_hz", "tau_rise_ms", "tau_decay_ms", "dataset")),
    "exclude_s": (),
    "formats": "csv",
    "save_scores": False,
    "fit": False,
    "detector": "network",
    "sweeps": "all",
}
_State = tuple[int, int]  # size and time of the last change
_Place = tuple[str, int, int]  # channel, sweep, polarity


@dataclass(kw_only=True)
class Finished:
    """Recordings of a folder whose size and time of change have stood still for still_s."""

    folder: Path
    still_s: float
    own: Path | None = None  # a table that is written to, and is no recording
    _seen: dict[Path, tuple[_State, float]] = field(default_factory=dict)
    _given: dict[Path, _State] = field(default_factory=dict)

    def now(self, now: float) -> list[Path]:
        """Those that have become finished, or were changed since, the oldest first."""
        states = {path: state for path, state in self._states() if state[0]}
        for path, state in states.items():
            if self._seen.get(path, (None,))[0] != state:
                self._seen[path] = state, now
        ready = [
            path
            for path, state in states.items()
            if now - self._seen[path][1] >= self.still_s and self._given.get(path) != state
        ]
        self._given |= {path: states[path] for path in ready}
        return sorted(ready, key=lambda path: (states[path][1], path))

    def _states(self) -> Iterator[tuple[Path, _State]]:
        with os.scandir(self.folder) as entries:
            for entry in entries:
                name = entry.name.lower()
                if name.startswith(".") or not name.endswith(suffixes()) or is_result(name):
                    continue
                path = Path(entry.path)
                try:
                    state = path.stat()  # on Windows an entry's own may be of before
                except OSError:
                    continue  # gone since
                if path.is_file() and path.resolve() != self.own:
                    yield path, (state.st_size, state.st_mtime_ns)


@dataclass(kw_only=True)
class WatchJob:
    """Recordings searched as `quantal detect` does, each as soon as it is finished.

    One that has grown or was replaced is searched again, and events that were told are not told
    twice. in_table: events that a table holds already; None where none is kept.
    """

    finished: Finished
    detection: DetectJob
    outlets: Outlets
    screen: Screen
    in_table: Events | None = None
    _told: dict[str, Events] = field(default_factory=dict)
    _searched: set[Path] = field(default_factory=set)
    _events: int = 0
    _failed: int = 0
    _stems: dict[str, Path] = field(default_factory=dict)
    _away: bool = False  # the folder

    @classmethod
    def of(
        cls,
        folder: Path,
        still_s: float,
        table: Path | None,
        outlets: Outlets,
        screen: Screen,
        **options: Any,
    ) -> WatchJob:
        """options: those of `quantal detect`; what is not given is as it has it.

        Raises QuantalError if one makes no sense.
        """
        if not still_s > 0:
            raise UsageError(f"--still-s must be a positive number of seconds, got {still_s!r}.")
        return cls(
            finished=Finished(folder=folder, still_s=still_s, own=table and table.resolve()),
            detection=DetectJob.from_options([], progress=False, **{**_USUAL, **options}),
            outlets=outlets,
            screen=screen,
            in_table=None if table is None else load_events(table),
        )

    def run(self) -> int:
        """Search what is finished until Ctrl-C; returns the exit code."""
        stop = threading.Event()
        self.screen.say(
            f"watching {self.finished.folder}; results go to {self.detection.out.resolve()}."
        )
        self.outlets.note("start", {"folder": str(self.finished.folder)})
        with interruptible(stop.set):
            try:
                while not stop.is_set():
                    for path in self._look():
                        if not stop.is_set():
                            self._search(path)
                    stop.wait(_LOOK_S)
            finally:
                count = len(self._searched)
                end = {"recordings": count, "events": self._events, "failed": self._failed}
                done = counted(count, "recording")
                self.screen.say(f"{counted(self._events, 'event')} in {done}.")
                self.outlets.note("end", end)
                self.outlets.close()
        return 3 if self._failed or self.outlets.lost else 0

    def _look(self) -> list[Path]:
        """What is finished; nothing while the folder cannot be looked into, which is told once."""
        folder = self.finished.folder
        try:
            paths = self.finished.now(time.monotonic())
        except OSError as error:
            if not self._away:
                why = error.strerror or error
                self.screen.warn(f"{folder} cannot be looked into ({why}); it is waited for.")
            self._away = True
            return []
        if self._away:
            self.screen.warn(f"{folder} is there again.")
        self._away = False
        return paths

    def _search(self, path: Path) -> None:
        """Search a recording, unless that was done, and tell what was not told of it yet."""
        try:
            self._refuse_other(path)
            before = result_of(self.detection.out, path, self.detection.fingerprint())
            summary = before or self.detection.run(path)
            events = load_events(self.detection.out / f"{path.stem}.events.csv")
        except QuantalError as error:
            self._failed += 1
            self.screen.warn(f"{path.name}: {error}")
            return
        told = self._told_of(path, events if before else no_events())
        new = events[~found_in(told, events)]
        self._told[path.stem] = join([told, new])
        if before and not len(new):
            self.screen.say(f"{path.name}: searched before.")
            return
        self._searched.add(path)
        self._events += len(new)
        if len(new):
            self.outlets.write(new)
        self._sum_up(path, summary, told, new, int((~found_in(events, told)).sum()))

    def _sum_up(
        self, path: Path, summary: dict[str, Any], told: Events, new: Events, lost: int
    ) -> None:
        """Say what came of a recording. lost: events that were told and are found no more."""
        one = {name: summary[name] for name in ("recording", "events", "analysed_s", "files")}
        self.outlets.note("recording", {**one, "new_events": len(new), "not_found_again": lost})
        self.screen.say(self.detection.line(summary))
        if len(told):
            self.screen.say(
                f"{path.name}: {len(told)} events were told before, {len(new)} are new."
            )
        if lost:
            self.screen.warn(
                f"{path.name}: {lost} of {len(told)} events that were told are not found any more; "
                "other settings, or another recording under this name? What was told stays."
            )

    def _told_of(self, path: Path, found_before: Events) -> Events:
        """Events of a recording that were told; without a table, all that were found before."""
        if path.stem in self._told:
            return self._told[path.stem]
        if self.in_table is None:
            return found_before
        return self.in_table[self.in_table.recording == path.stem]

    def _refuse_other(self, path: Path) -> None:
        """Raise UsageError where results of another recording of the folder would be replaced."""
        stem = results_name(path)
        summary = load_summary(self.detection.out / f"{path.stem}.summary.json") or {}
        owner = path.with_name(file_name(str(summary.get("recording") or path)))
        owner = self._stems.get(stem, owner)
        if owner != path and owner.exists():
            raise UsageError(f"its results would replace those of {owner.name}; rename it.")
        self._stems[stem] = path


def found_in(others: Events, events: Events) -> NDArray[np.bool_]:
    """Which events are among others: of the same channel, sweep and polarity, at the same time."""
    times: dict[_Place, list[float]] = {}
    for place, at_s in _places(others):
        insort(times.setdefault(place, []), at_s)
    found = [_is_near(at_s, times.get(place, [])) for place, at_s in _places(events)]
    return np.array(found, np.bool_)


def _places(events: Events) -> Iterator[tuple[_Place, float]]:
    columns = (events.channel, events.sweep, events.polarity, events.location_s)
    for channel, sweep, polarity, at_s in zip(*(c.tolist() for c in columns), strict=True):
        yield (channel, sweep, polarity), at_s


def _is_near(at_s: float, times: list[float]) -> bool:
    k = bisect_left(times, at_s - _SAME_S)
    return k < len(times) and times[k] <= at_s + _SAME_S

"""A folder into which recordings are written: each is searched once it is finished."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantal.commands import DetectJob
from quantal.errors import QuantalError, UsageError
from quantal.readers import FORMATS
from quantal.save import load_events
from quantal.stream import Outlets, Screen, interruptible

_LOOK_S = 0.5
_OWN = (".events.csv", ".events.h5", ".fits.csv", ".scores.h5")  # results, that are no recordings
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
        suffixes = tuple(suffix for one in FORMATS for suffix in one.suffixes)
        with os.scandir(self.folder) as entries:
            for entry in entries:
                name = entry.name.lower()
                if name.startswith(".") or not name.endswith(suffixes) or name.endswith(_OWN):
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
    """Recordings searched as `quantal detect` does, each as soon as it is finished."""

    finished: Finished
    detection: DetectJob
    outlets: Outlets
    screen: Screen
    _count: int = 0
    _events: int = 0
    _failed: int = 0
    _stems: dict[str, Path] = field(default_factory=dict)

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
                    for path in self.finished.now(time.monotonic()):
                        if not stop.is_set():
                            self._search(path)
                    stop.wait(_LOOK_S)
            finally:
                end = {"recordings": self._count, "events": self._events, "failed": self._failed}
                self.screen.say(f"{self._events} events in {self._count} recordings.")
                self.outlets.note("end", end)
                self.outlets.close()
        return 3 if self._failed or self.outlets.lost else 0

    def _search(self, path: Path) -> None:
        if self._is_done(path):
            self.screen.say(f"{path.name}: searched before.")
            return
        other = self._stems.setdefault(path.stem, path)
        try:
            if other != path:
                raise UsageError(f"its results would replace those of {other.name}; rename it.")
            summary = self.detection.run(path)
        except QuantalError as error:
            self._failed += 1
            self.screen.warn(f"{path.name}: {error}")
            return
        events = load_events(summary["files"]["csv"])
        self._count += 1
        self._events += len(events)
        if len(events):
            self.outlets.write(events)
        self.outlets.note(
            "recording",
            {name: summary[name] for name in ("recording", "events", "analysed_s", "files")},
        )
        self.screen.say(self.detection.line(summary))

    def _is_done(self, path: Path) -> bool:
        """Whether the results of an earlier run are there, and newer."""
        summary = self.detection.out / f"{path.stem}.summary.json"
        try:
            return summary.stat().st_mtime_ns > path.stat().st_mtime_ns
        except OSError:
            return False

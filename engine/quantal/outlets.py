"""All that is told while events are found: to sinks, and in words and figures on stderr."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np

from quantal.errors import SaveError
from quantal.events import Events
from quantal.sinks import CsvRows, JsonLines, Publisher, Sink

_RECENT_S = 10.0  # for the rate of events
_RECENT = 20  # amplitudes for their median


@dataclass(kw_only=True)
class Figures:
    """Live figures: events, their rate and amplitude, how late answers are, what waits."""

    unit: str
    events: int = 0
    missing_s: float = 0.0  # in the mean of all channels
    told_s: float = 0.0  # of these, what was lost or dropped
    _at: deque[float] = field(default_factory=deque)
    _amplitudes: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))
    _latencies: list[float] = field(default_factory=list)

    def add(self, events: Events, reached_s: float, latency_s: float) -> None:
        """What samples up to a time gave, and how long after their arrival."""
        self.events += len(events)
        self._amplitudes += events.amplitude[np.isfinite(events.amplitude)].tolist()
        self._at += [reached_s] * len(events)
        while self._at and self._at[0] < reached_s - _RECENT_S:
            self._at.popleft()
        self._latencies.append(latency_s)

    def line(self, reached_s: float, waiting_s: float) -> str:
        """One line; latencies are those since the line before."""
        rate = len(self._at) / min(max(reached_s, 1e-9), _RECENT_S)
        parts = [f"{reached_s:.1f} s", f"{self.events} events", f"{rate:.1f} Hz"]
        if self._amplitudes:
            median = float(np.median(self._amplitudes))
            parts.append(f"last {len(self._amplitudes)}: {median:.3g} {self.unit}")
        if self._latencies:
            took = 1e3 * np.array(self._latencies)
            parts.append(f"answered in {np.median(took):.1f} ms, at most {took.max():.0f}")
        else:
            parts.append("no samples come")
        self._latencies.clear()
        if self.missing_s:
            parts.append(f"{self.missing_s:.1f} s missing")
        return " | ".join([*parts, f"waiting {waiting_s:.2f} s"])


class Screen:
    """Words and live figures on stderr, from which warnings stand out.

    status_s: a line of figures so often; None is a live one where stderr is a terminal. quiet:
    nothing but warnings.
    """

    def __init__(self, *, status_s: float | None, quiet: bool) -> None:
        self._live = status_s is None and not quiet and sys.stderr.isatty()
        self._every_s = 0.5 if self._live else status_s
        self._quiet = quiet
        self._next = 0.0
        self._width = 0

    def say(self, text: str) -> None:
        """A line for whom does not want it quiet."""
        if not self._quiet:
            self._put(text)

    def warn(self, text: str) -> None:
        """A line for everybody."""
        self._put(f"warning: {text}")

    def show(self, line: Callable[[], str]) -> None:
        """The figures, where it is time for them."""
        now = time.monotonic()
        if self._every_s is None or now < self._next:
            return
        self._next = now + self._every_s
        if self._live:
            text = line()[:100]
            click.echo(f"\r{text:<{self._width}}", err=True, nl=False)
            self._width = len(text)
        else:
            click.echo(line(), err=True)

    def _put(self, text: str) -> None:
        clear = f"\r{'':<{self._width}}\r" if self._width else ""
        self._width = 0
        click.echo(clear + text, err=True)


class Outlets:
    """All sinks; one that fails is told of once and does not stop the others."""

    def __init__(self, sinks: Sequence[Sink], screen: Screen) -> None:
        self._sinks, self._screen = list(sinks), screen
        self._failing: set[int] = set()
        self.lost = False  # something could not be written in the end

    def write(self, events: Events) -> None:
        """Events to all of them."""
        for sink in self._sinks:
            self._attempt(sink, lambda sink=sink: sink.write(events))  # type: ignore[misc]

    def note(self, kind: str, what: dict[str, Any]) -> None:
        """A word to all of them."""
        for sink in self._sinks:
            self._attempt(sink, lambda sink=sink: sink.note(kind, what))  # type: ignore[misc]

    @property
    def nobody(self) -> bool:
        """Whether there is nobody left to tell: stdout alone, and its reader has gone."""
        return all(isinstance(sink, JsonLines) and sink.gone for sink in self._sinks)

    def close(self) -> None:
        """Close all; `lost` says whether something remains unwritten."""
        for sink in self._sinks:
            self._failing.discard(id(sink))
            self.lost |= not self._attempt(sink, sink.close)
        self._sinks = []

    def _attempt(self, sink: Sink, action: Callable[[], None]) -> bool:
        try:
            action()
        except SaveError as error:
            if id(sink) not in self._failing:
                self._failing.add(id(sink))
                self._screen.warn(str(error))
            return False
        self._failing.discard(id(sink))
        return True


@contextmanager
def open_outlets(table: Path | None, publish: str | None, screen: Screen) -> Iterator[Outlets]:
    """All sinks that are asked for, closed in the end."""
    sinks: list[Sink] = []
    if table is not None:
        rows = CsvRows(table)
        sinks.append(rows)
        if rows.repaired:
            screen.warn(rows.repaired)
    if publish is not None:
        publisher = Publisher(publish)
        sinks.append(publisher)
        screen.say(f"events are published at {publisher.endpoint}.")
    outlets = Outlets([*sinks, JsonLines()], screen)
    try:
        yield outlets
    finally:
        outlets.close()

"""What `quantal stream` does: samples in as they are recorded, events out as they are decided."""

from __future__ import annotations

import signal as signals
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from quantal.early import Early, Told
from quantal.errors import QuantalError, ReadError, SaveError, UsageError
from quantal.events import Events
from quantal.kinetics import compiling
from quantal.model import load_model
from quantal.online import OnlineDetector
from quantal.simulate import add_at, biexponential
from quantal.sinks import CsvRows, JsonLines, Publisher, Sink, event_notes
from quantal.sources import Piece, Signal, Source, find_source, names_or_count
from quantal.suspect import suspicions
from quantal.trace import Trace

Samples = NDArray[np.float32]

WHEN_LATE = ("wait", "drop")
_LATE_S = 1.0  # from which on it is told that samples wait
_AT_ONCE_S = 1.0  # of samples that are looked at at a time
_HURRIED_S = 0.1  # from which on nothing is told early
_LOOK_S = 0.5  # how long a wait lasts that a Ctrl-C must be able to end
_FIRST_S = 2.0  # of samples that are looked at before they are believed
_RECENT_S = 10.0  # for the rate of events
_RECENT = 20  # amplitudes for their median
_MOST_MISSED_S = 600.0  # a longer gap is none: the publisher began anew


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A stretch of the recording that was not searched, and why."""

    from_s: float
    to_s: float
    why: str


@dataclass(frozen=True, eq=False, kw_only=True)
class Batch:
    """Samples (channels, n) to search next; those that are missing are nan.

    arrived: when the first of them came (time.perf_counter). missing: what has become known since
    the batch before.
    """

    samples: Samples
    arrived: float
    missing: tuple[Missing, ...] = ()


@dataclass(eq=False)
class _Waiting:
    """Samples that wait; None where they are missing."""

    samples: Samples | None
    count: int
    arrived: float


class Backlog:
    """Samples that have come and were not searched yet: the reader's end and the detector's.

    longest_s: how much may wait. when_late: what happens then: "wait" lets the reader, and so the
    sender, wait; "drop" takes the whole seconds that have waited longest out, for samples that are
    missing, so that what follows keeps its time.
    """

    def __init__(self, signal: Signal, longest_s: float, when_late: str) -> None:
        self._signal, self._when_late = signal, when_late
        self._longest = longest_s * signal.rate_hz
        self._waiting: deque[_Waiting] = deque()
        self._missing: list[Missing] = []
        self._changed = threading.Condition()
        self._count = 0  # samples that wait and are there
        self._first = 0  # number of the first sample of all
        self._taken = self._come = 0  # numbers of the next sample out and in
        self._begun = self._ended = False
        self._since = 0.0  # when the first sample came
        self.error: QuantalError | None = None

    @property
    def rule(self) -> str:
        """What happens when too much waits, in words."""
        longest_s = self._longest / self._signal.rate_hz
        then = {"wait": "the sender waits", "drop": "the whole seconds among them are dropped"}
        return f"when {longest_s:g} s wait, {then[self._when_late]}"

    @property
    def start_s(self) -> float:
        """The time of the first sample, by the numbers that the sender gives them."""
        return self._first / self._signal.rate_hz

    @property
    def waiting_s(self) -> float:
        """Seconds of samples that wait."""
        return self._count / self._signal.rate_hz

    @property
    def is_live(self) -> bool:
        """Whether samples come as they are recorded, and not faster."""
        come_s = (self._come - self._first) / self._signal.rate_hz
        return come_s < time.perf_counter() - self._since + _LATE_S

    @property
    def taken_s(self) -> float:
        """Seconds that were taken out."""
        return (self._taken - self._first) / self._signal.rate_hz

    def put(self, piece: Piece) -> bool:
        """Samples that have come; False once nobody wants more. Raises ReadError."""
        count = piece.samples.shape[1]
        with self._changed:
            if self._ended:
                return False
            if not count:
                return True
            self._begin(piece)
            self._lose(piece)
            self._waiting.append(_Waiting(piece.samples, count, time.perf_counter()))
            self._count += count
            self._come += count
            self._changed.notify_all()
            if self._count > self._longest and self._when_late == "drop":
                self._drop()
            while self._count > self._longest and not self._ended:
                self._changed.wait()
            return not self._ended

    def end(self, error: QuantalError | None = None) -> None:
        """Nothing more comes, or is wanted."""
        with self._changed:
            if not self._ended:
                self._ended, self.error = True, error
                self._changed.notify_all()

    def take(self, timeout_s: float) -> Batch | None:
        """What waits, up to a second of it; empty after so long a wait, None at the end."""
        with self._changed:
            if not self._waiting and not self._ended:
                self._changed.wait(timeout_s)
            missing, self._missing = tuple(self._missing), []
            if not self._waiting:
                if self._ended and not missing:
                    return None
                return Batch(samples=self._none(0), arrived=time.perf_counter(), missing=missing)
            arrived = self._waiting[0].arrived
            samples = self._out(round(_AT_ONCE_S * self._signal.rate_hz) or 1)
            self._changed.notify_all()
        return Batch(samples=samples, arrived=arrived, missing=missing)

    def _begin(self, piece: Piece) -> None:
        if not self._begun:
            self._begun, self._since = True, time.perf_counter()
            self._first = self._taken = self._come = piece.first or 0

    def _lose(self, piece: Piece) -> None:
        """Put in what, by the piece's number, was lost before it."""
        lost = 0 if piece.first is None else piece.first - self._come
        if lost < 0 or lost > _MOST_MISSED_S * self._signal.rate_hz:
            raise ReadError(
                f"after sample {self._come - 1} comes number {piece.first}: the publisher began "
                "anew, or its numbers are not those of samples. Start quantal stream again."
            )
        if lost:
            self._waiting.append(_Waiting(None, lost, time.perf_counter()))
            self._tell(self._come, self._come + lost, "lost on the way")
            self._come += lost

    def _drop(self) -> None:
        """Take out the whole seconds that have waited longest."""
        second = round(self._signal.rate_hz) or 1
        left = min(max(self._count // second, 1) * second, self._count)
        at, arrived = self._taken, self._waiting[0].arrived
        self._count -= left
        while left:
            oldest = self._waiting.popleft()
            taken = oldest.count if oldest.samples is None else min(oldest.count, left)
            if oldest.samples is not None:
                self._tell(at, at + taken, "dropped: detection fell behind")
                left -= taken
                if taken < oldest.count:
                    rest = oldest.samples[:, taken:]
                    self._waiting.appendleft(_Waiting(rest, rest.shape[1], oldest.arrived))
            at += taken
        self._waiting.appendleft(_Waiting(None, at - self._taken, arrived))

    def _tell(self, start: int, stop: int, why: str) -> None:
        from_s, to_s = start / self._signal.rate_hz, stop / self._signal.rate_hz
        if self._missing and (self._missing[-1].to_s, self._missing[-1].why) == (from_s, why):
            from_s = self._missing.pop().from_s
        self._missing.append(Missing(from_s=from_s, to_s=to_s, why=why))

    def _out(self, most: int) -> Samples:
        parts = []
        while most and self._waiting:
            oldest = self._waiting[0]
            count = min(oldest.count, most)
            if oldest.samples is None:
                parts.append(self._none(count))
            else:
                parts.append(oldest.samples[:, :count])
                oldest.samples = oldest.samples[:, count:]
                self._count -= count
            oldest.count -= count
            most -= count
            self._taken += count
            if not oldest.count:
                self._waiting.popleft()
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _none(self, count: int) -> Samples:
        return np.full((len(self._signal.channels), count), np.nan, np.float32)


class FirstLook:
    """What in the first two seconds says that samples are not what they are said to be."""

    def __init__(self, signal: Signal) -> None:
        self._signal = signal
        self._pieces: list[Samples] = []
        self._left = round(_FIRST_S * signal.rate_hz)

    def at(self, samples: Samples) -> list[str]:
        """Look at the next samples (channels, n); what is wrong, once there are enough."""
        if self._left <= 0:
            return []
        self._pieces.append(samples[:, : self._left])
        self._left -= samples.shape[1]
        if self._left > 0:
            return []
        channels, self._pieces = np.concatenate(self._pieces, axis=1), []
        return [
            f"channel {name}: {text}" if name else text
            for name, one in zip(self._signal.channels, channels, strict=True)
            for text in suspicions(
                [Trace(samples=one, rate_hz=self._signal.rate_hz, unit=self._signal.unit)]
            )
        ]


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


@dataclass(kw_only=True)
class StreamJob:
    """A source to search, how, and where its events go.

    detection: options of OnlineDetector but for rate_hz, unit and channels. provisional: events are
    also told as soon as they are expected. when_late: see Backlog; None is "wait" where the source
    can, else "drop".
    """

    source: Source
    outlets: Outlets
    screen: Screen
    detection: dict[str, Any]
    recording: str
    provisional: bool = False
    when_late: str | None = None
    backlog_s: float = 10.0
    _asked: bool = False  # by the user, to end

    def __post_init__(self) -> None:
        if self.when_late == "wait" and not self.source.can_wait:
            raise UsageError(
                "--when-late wait: ZeroMQ and the Lab Streaming Layer cannot be made to wait, they "
                "would lose samples in silence. Leave it out: whole seconds are then dropped, and "
                "it is told which."
            )
        if not self.backlog_s >= _LATE_S:
            raise UsageError(f"--backlog-s must be 1 s or more, got {self.backlog_s!r}.")

    def run(self) -> int:
        """Search until the source ends or Ctrl-C; returns the exit code."""
        self._warm_up()
        signal = self.source.open()
        rule = self.when_late or ("wait" if self.source.can_wait else "drop")
        backlog = Backlog(signal, self.backlog_s, rule)
        reader = threading.Thread(target=_read, args=(self.source, backlog), daemon=True)
        figures = Figures(unit=signal.unit)
        with interruptible(self._ask):
            try:
                reader.start()
                self._search(signal, backlog, figures)
            finally:
                self.source.stop()
                backlog.end()
                reader.join(2 * _LOOK_S)
                self.outlets.close()
        if backlog.error:
            click.echo(f"error: {backlog.error}", err=True)
            return backlog.error.exit_code
        return SaveError.exit_code if self.outlets.lost else 0

    def _ask(self) -> None:
        self._asked = True  # and no more here: locks may be held

    def _search(self, signal: Signal, backlog: Backlog, figures: Figures) -> None:
        detector: OnlineDetector | None = None
        early: Early | None = None
        late, look = False, FirstLook(signal)
        while (batch := backlog.take(_LOOK_S)) is not None:
            if self._asked or self.outlets.nobody:
                self.source.stop()
                backlog.end()
            if detector is None and batch.samples.shape[1]:
                detector = self._begin(signal, backlog)
                early = Early(detector) if self.provisional else None
            self._tell_missing(batch.missing, figures)
            late = self._tell_late(late, batch, backlog)
            self._count_missing(batch.samples, signal, figures)
            for text in look.at(batch.samples):
                self.screen.warn(f"{text}.")
            if detector is not None and batch.samples.shape[1]:
                events = self._named(detector.push(batch.samples))
                if len(events):
                    self.outlets.write(events)
                if early is not None:
                    early.decided(events)
                    if backlog.waiting_s < _HURRIED_S:
                        self._tell_early(early)
                figures.add(events, backlog.taken_s, time.perf_counter() - batch.arrived)
            self.screen.show(lambda: figures.line(backlog.taken_s, backlog.waiting_s))
        self._finish(detector or self._begin(signal, backlog), early, backlog, figures)

    def _begin(self, signal: Signal, backlog: Backlog) -> OnlineDetector:
        detector = self._detector(signal, backlog.start_s)
        self.outlets.note(
            "start",
            {
                "recording": self.recording,
                "started": datetime.now().astimezone().isoformat(timespec="milliseconds"),
                "start_s": backlog.start_s,
                "delay_s": detector.delay_s,
                **asdict(signal),
                "model": load_model(self.detection.get("model")).card.name,
                "settings": asdict(detector.settings),
            },
        )
        return detector

    def _tell_early(self, early: Early) -> None:
        expected, gone = early.look()
        for one in event_notes(self._named(expected)):
            self.outlets.note("provisional", one)
        self._withdraw(gone)

    def _withdraw(self, gone: Sequence[Told]) -> None:
        for one in gone:
            self.outlets.note("withdrawn", asdict(one))

    def _finish(
        self,
        detector: OnlineDetector,
        early: Early | None,
        backlog: Backlog,
        figures: Figures,
    ) -> None:
        last = detector.finish()
        sweeps = last.sweeps
        last = self._named(last)
        if len(last):
            self.outlets.write(last)
        if early is not None:
            early.decided(last)
            self._withdraw(early.told)
        events = figures.events + len(last)
        searched_s = sum(sweep.analysed_s for sweep in sweeps)
        rate = f", {events / searched_s:.3g} Hz" if searched_s else ""
        missing = f", {figures.missing_s:g} s of it missing" if figures.missing_s else ""
        seconds = backlog.taken_s
        self.screen.say(
            f"{events} events in {seconds:.6g} s of {len(sweeps)} "
            f"channel{'' if len(sweeps) == 1 else 's'}{rate}{missing}."
        )
        self.outlets.note(
            "end",
            {
                "events": events,
                "seconds": seconds,
                "searched_s": searched_s,
                "missing_s": figures.missing_s,
                "frequency_hz": events / searched_s if searched_s else None,
                "ended_by": "error" if backlog.error else "user" if self._asked else "source",
                "error": str(backlog.error) if backlog.error else None,
            },
        )

    def _tell_missing(self, missing: Sequence[Missing], figures: Figures) -> None:
        for stretch in missing:
            figures.told_s += stretch.to_s - stretch.from_s
            self.screen.warn(
                f"samples from {stretch.from_s:.3f} to {stretch.to_s:.3f} s are missing: "
                f"{stretch.why}."
            )
            self.outlets.note("missing", asdict(stretch))

    def _count_missing(self, samples: Samples, signal: Signal, figures: Figures) -> None:
        """Count what is no number; the first time that it was sent so, say it."""
        known = figures.missing_s > figures.told_s
        figures.missing_s += float((~np.isfinite(samples)).mean(axis=0).sum()) / signal.rate_hz
        if not known and figures.missing_s > figures.told_s + 1e-9:
            self.screen.warn("samples come that are no numbers (nan, infinite): they are missing.")

    def _tell_late(self, late: bool, batch: Batch, backlog: Backlog) -> bool:
        """Say when detection falls behind a source that is live, and when it has caught up."""
        behind_s = time.perf_counter() - batch.arrived
        if not late and behind_s > _LATE_S and backlog.is_live:
            self.screen.warn(f"detection is {behind_s:.1f} s behind; {backlog.rule}.")
            return True
        if late and behind_s < _LATE_S / 4:
            self.screen.warn(f"detection has caught up at {backlog.taken_s:.1f} s.")
            return False
        return late

    def _named(self, events: Events) -> Events:
        """The events with the recording's name, by which runs in one table are told apart."""
        return replace(events, recording=np.full(len(events), self.recording))

    def _detector(self, signal: Signal, start_s: float = 0.0) -> OnlineDetector:
        return OnlineDetector(
            rate_hz=signal.rate_hz,
            unit=signal.unit,
            channels=names_or_count(signal.channels),
            start_s=start_s,
            **self.detection,
        )

    def _warm_up(self) -> None:
        """Compile or load all kernels, and check all options, while nothing waits for it."""
        signal = self.source.signal or Signal(rate_hz=50_000.0, unit="pA")
        detector = self._detector(signal)
        if notice := compiling():
            self.screen.say(notice)
        self.screen.say(
            f"events are reported up to {1000 * detector.delay_s:.0f} ms after they happen: what "
            "follows an event must be seen before it can be judged."
        )
        n = round(3 * signal.rate_hz)
        samples = np.random.default_rng(0).normal(0, 1, n)
        for start in range(n // 4, n, n // 8):
            add_at(samples, start, -20 * biexponential(signal.rate_hz, 2e-4, 1e-3))
        samples[n // 3 : n // 3 + 5] = np.nan
        channels = np.tile(samples, (len(signal.channels), 1))
        for half in np.array_split(channels, 2, axis=1):
            detector.push(half)
        detector.finish()


@contextmanager
def interruptible(stop: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C, or request to terminate, calls `stop`; the next one ends everything."""
    asked = 0

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        del number, frame
        asked += 1
        if asked > 1:
            raise KeyboardInterrupt
        stop()

    before = {one: signals.signal(one, ask) for one in (signals.SIGINT, signals.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signals.signal(one, handler)


def _read(source: Source, backlog: Backlog) -> None:
    """The reader thread: everything that comes, into the backlog."""
    try:
        for piece in source.pieces():
            if not backlog.put(piece):
                break
    except QuantalError as error:
        backlog.end(error)
    except Exception as error:
        backlog.end(ReadError(f"the source broke: {error}."))
    else:
        backlog.end()


def run_stream(
    address: str,
    *,
    table: Path | None,
    publish: str | None,
    status_s: float | None,
    quiet: bool,
    **options: Any,
) -> int:
    """What `quantal stream` does with its options; returns the exit code."""
    if status_s is not None and not status_s > 0:
        raise UsageError(f"--status-s must be a positive number of seconds, got {status_s!r}.")
    screen = Screen(status_s=status_s, quiet=quiet)
    signal = {name: options.pop(name) for name in ("rate_hz", "unit", "channels", "dtype", "scale")}
    told = {name: options.pop(name) for name in ("provisional", "when_late", "backlog_s")}
    files = {name: options.pop(name) for name in ("channel", "still_s", "out")}
    name = options.pop("recording") or datetime.now().isoformat(" ", "seconds")
    if Path(address).is_dir():
        return _watched(Path(address), signal, told, files, options, table, publish, screen)
    source = find_source(address, signal)
    with _outlets(table, publish, screen) as outlets:
        return StreamJob(
            source=source, outlets=outlets, screen=screen, detection=options, recording=name, **told
        ).run()


def _watched(
    folder: Path,
    signal: dict[str, Any],
    told: dict[str, Any],
    files: dict[str, Any],
    options: dict[str, Any],
    table: Path | None,
    publish: str | None,
    screen: Screen,
) -> int:
    from quantal.watch import WatchJob

    if signal["channels"] or told["when_late"] or told["provisional"]:
        raise UsageError(
            "--channels, --when-late and --provisional are for samples that come as they are "
            "recorded; of recordings in a folder, --channel says which is searched."
        )
    del options["block_ms"]
    reading = {name: signal[name] for name in ("rate_hz", "unit", "scale")}
    with _outlets(table, publish, screen) as outlets:
        return WatchJob.of(
            folder, table=table, outlets=outlets, screen=screen, **files, **reading, **options
        ).run()


@contextmanager
def _outlets(table: Path | None, publish: str | None, screen: Screen) -> Iterator[Outlets]:
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

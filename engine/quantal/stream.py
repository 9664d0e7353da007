"""What `quantal stream` does: samples in as they are recorded, events out as they are decided."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from quantal.backlog import LATE_S, Backlog, Batch, Missing
from quantal.early import Early, Told
from quantal.ending import interruptible
from quantal.errors import QuantalError, ReadError, SaveError, UsageError
from quantal.events import Events
from quantal.kinetics import compiling
from quantal.model import load_model
from quantal.online import OnlineDetector
from quantal.outlets import Figures, Outlets, Screen, open_outlets
from quantal.simulate import add_at, biexponential
from quantal.sinks import event_notes
from quantal.sources import Signal, Source, find_source, names_or_count
from quantal.suspect import suspicions
from quantal.trace import Trace

Samples = NDArray[np.float32]

_HURRIED_S = 0.1  # from which on nothing is told early
_LOOK_S = 0.5  # how long a wait lasts that a Ctrl-C must be able to end
_FIRST_S = 2.0  # of samples that are looked at before they are believed


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
        if not self.backlog_s >= LATE_S:
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
        if not late and behind_s > LATE_S and backlog.is_live:
            self.screen.warn(f"detection is {behind_s:.1f} s behind; {backlog.rule}.")
            return True
        if late and behind_s < LATE_S / 4:
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
    with open_outlets(table, publish, screen) as outlets:
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
    with open_outlets(table, publish, screen) as outlets:
        return WatchJob.of(
            folder, table=table, outlets=outlets, screen=screen, **files, **reading, **options
        ).run()

"""What `quantal detect` and `quantal demo` do, between the options and the files."""

from __future__ import annotations

import hashlib
import math
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from quantal import __version__
from quantal.classical import Detector
from quantal.detect import Settings, analyse, choose, on_own_time_scale, settle
from quantal.disk import move_together, refuse_unwritable, scratch_folder
from quantal.errors import QuantalError, SaveError, TooLongError, UsageError
from quantal.events import REJECTED, Events, Sweep, join, no_events
from quantal.fits import Fits, checked_lowpass_hz
from quantal.kinetics import compiling
from quantal.miniml import save_miniml
from quantal.model import Model, load_model
from quantal.readers import Reading, read_all_told
from quantal.recurring import repeated_times
from quantal.rejections import NOT_FOUND, Reviewed, carry_over, said_of
from quantal.report import draw_report
from quantal.runtime import open_session
from quantal.save import (
    SINGLE_TABLES,
    as_json,
    file_name,
    load_events,
    load_summary,
    plain,
    results_name,
    save_events,
    save_fits,
    save_recording,
    save_scores,
    save_summary,
)
from quantal.scan import Progress, Scores, directions_of, window_samples
from quantal.simulate import matched, simulate_recording
from quantal.suspect import suspicions
from quantal.tables import require_library
from quantal.timescale import AUTO
from quantal.trace import Trace, outside

_FORMATS = ("csv", "h5", "parquet", "xlsx", "nwb", "miniml")
_OWN = "the method's own, as none was given; --window-ms auto reads it from the recording"
_SOURCE = ("model", "detector", "tau_rise_ms", "tau_decay_ms")
_READING = ("channel", "sweeps", "rate_hz", "scale", "unit", "dataset")
# What a card says for people; the rest decides what is found.
_REMARKS = ("training", "licence", "citation", "versions", "test_inputs", "test_scores")
_LIBRARIES = ("numpy", "numba", "scipy", "h5py", "pyabf", "onnxruntime", "onnxruntime-gpu")


@dataclass(frozen=True, kw_only=True)
class DetectJob:
    """Recordings to search, and everything that decides how."""

    recordings: tuple[Path, ...]
    source: Model | Detector
    settings: Settings
    out: Path
    auto_window: bool = False  # every recording gets the window that fits its own events
    why_window: str | None = None
    reading: dict[str, Any] = field(default_factory=dict)
    start_s: float | None = None
    stop_s: float | None = None
    excluded: tuple[tuple[float, float], ...] = ()
    formats: tuple[str, ...] = ("csv",)
    save_scores: bool = False
    picture: bool = True
    fit: bool = False
    lowpass_hz: float | None = None
    progress: bool = True

    @classmethod
    def from_options(
        cls,
        recordings: Sequence[Path],
        *,
        start_s: float | None,
        stop_s: float | None,
        exclude_s: Sequence[str],
        out: Path,
        formats: str,
        save_scores: bool,
        fit: bool,
        lowpass_hz: float | None,
        progress: bool,
        picture: bool = True,
        **options: Any,
    ) -> DetectJob:
        """Check all options before any file is read.

        options: those of `choose` (_SOURCE), of `read` (_READING), and of `settle`.
        Raises UsageError, ModelError or MissingRuntimeError.
        """
        reading = {name: options.pop(name) for name in _READING}
        reading["channel"] = number_or_name(reading["channel"])
        chosen_formats = formats_of(formats)
        if "miniml" in chosen_formats and reading["channel"] == "all":
            raise UsageError("miniML's files hold one channel: name it with --channel.")
        _refuse_same_results(recordings)
        if lowpass_hz is not None and not fit:
            raise UsageError("--lowpass-hz is for the fits of events: add --fit, or leave it out.")
        source = choose(**{name: options.pop(name) for name in _SOURCE})
        auto = options.get("window_ms") == AUTO
        settings = settle(source, **{**options, "window_ms": None} if auto else options)
        assumed = options.get("window_ms") is None and _needs_window(source)
        if isinstance(source, Model):
            open_session(source, settings.device, settings.threads)
        return cls(
            recordings=tuple(recordings),
            source=source,
            settings=settings,
            auto_window=auto,
            why_window=_OWN if assumed else None,
            reading=reading,
            start_s=start_s,
            stop_s=stop_s,
            excluded=tuple(parse_stretch(text) for text in exclude_s),
            out=out,
            formats=chosen_formats,
            save_scores=save_scores,
            picture=picture,
            fit=fit,
            lowpass_hz=checked_lowpass_hz(lowpass_hz),
            progress=progress,
        )

    def run_all(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Every recording in turn; one that fails is told on stderr and does not stop the rest."""
        results, errors = [], []
        if self.why_window and self.progress:
            click.echo(f"a window of {self.settings.window_ms:g} ms ({self.why_window})", err=True)
        for path in self.recordings:
            try:
                results.append(self.run(path))
            except QuantalError as error:
                named = "" if str(error).startswith(str(path)) else f"{path}: "
                if len(self.recordings) == 1:
                    if named and isinstance(error, UsageError):
                        raise UsageError(f"{named}{error}") from error
                    raise
                click.echo(f"error: {named}{error}", err=True)
                errors.append(
                    {"recording": str(path), "error": str(error), "exit_code": error.exit_code}
                )
            else:
                tell_warnings(path.name, results[-1]["warnings"])
        return results, errors

    def run(self, path: Path, desk: Path | None = None) -> dict[str, Any]:
        """Search one recording and write its results; returns its summary.

        desk: a folder, on the disk of `out`, in which the results are made before they take their
        places; None makes one for as long as it is needed.
        """
        state = state_of(path)  # before it is read: what is written meanwhile is not in the results
        found = read_all_told(path, **self.reading)
        traces = self._cut(found.traces)
        job = self._timed(traces) if self.auto_window else self
        warnings = [*found.overruled, *self._beyond(found.traces), *job._check_lengths(traces)]
        origin = {
            "input": state,
            "settings_sha256": self.fingerprint(),
            "notes": self._notes(path, found),
        }
        if desk is None:
            refuse_unwritable(self.out)
        events, scores = job._search(path, traces)
        rate_hz = traces[0].rate_hz
        reviewed = carry_over(events, self.out, path.stem, recording=path, rate_hz=rate_hz)
        with scratch_folder(self.out) if desk is None else nullcontext(desk) as folder:
            return job._write(path, traces, reviewed, scores, warnings, origin, folder)

    def fingerprint(self) -> str:
        """A hash of all that decides what is written: settings, model, and the version of quantal.

        What is read from the recording, such as a window that is chosen for it, is no part of it.
        """
        settings = asdict(self.settings)
        del settings["threads"]
        card = self.source.card
        asked = {
            "quantal": __version__,
            "card": {f.name: getattr(card, f.name) for f in fields(card) if f.name not in _REMARKS},
            "settings": settings,
            "auto_window": self.auto_window,
            "start_s": self.start_s,
            "stop_s": self.stop_s,
            "excluded_s": self.excluded,
            "reading": self.reading,
            "formats": sorted(self.formats),
            "save_scores": self.save_scores,
            "picture": self.picture,
            "fit": self.fit,
            "lowpass_hz": self.lowpass_hz,
        }
        return hashlib.sha256(as_json(asked).encode("utf-8", "replace")).hexdigest()

    def _timed(self, traces: list[Trace]) -> DetectJob:
        """The job with the window that fits the events of the longest sweep."""
        longest = max(traces, key=len)
        settings, found = on_own_time_scale(longest, self.source, self.settings)
        if self.progress:
            click.echo(
                f"{longest.recording}: a window of {found.window_ms:g} ms ({found.why})", err=True
            )
        return replace(self, settings=settings, why_window=found.why)

    def _search(self, path: Path, traces: list[Trace]) -> tuple[Events, dict[str, Scores]]:
        """Events and scores of all sweeps."""
        with _progress_bar(path.name, len(traces), self) as progress:
            parts: list[Events] = []
            scores: dict[str, Scores] = {}
            for trace in traces:
                by_direction: dict[str, Scores] = {}
                parts.append(self._analyse(trace, progress, by_direction))
                scores |= {_score_name(trace, way): s for way, s in by_direction.items()}
        return join(parts), scores

    def _notes(self, path: Path, found: Reading) -> list[str]:
        """What of the recording was not asked for, also said on stderr."""
        if not found.others:
            return []
        verb = "was" if found.others == 1 else "were"
        note = f"{counted(found.others, 'other channel')} {verb} not searched: --channel all"
        if self.progress:
            click.echo(f"{path.name}: {note}", err=True)
        return [note]

    def _cut(self, whole: list[Trace]) -> list[Trace]:
        """The sweeps to search, cut and with their exclusions."""
        start_s, stop_s = self.start_s or 0.0, self.stop_s
        reached = [t for t in whole if t.stop_s > start_s]  # sweeps may differ in length
        cut = [t.between(start_s, stop_s) for t in reached or whole]
        # Not by `exclude`, which warns of each sweep: what lies beyond all of them is told once.
        return [replace(trace, excluded=self.excluded) for trace in cut]

    def _beyond(self, whole: list[Trace]) -> list[str]:
        """A warning for every time that no sweep reaches, which is often one in milliseconds."""
        end_s = max(trace.stop_s for trace in whole)
        warnings = outside(self.excluded, 0.0, end_s)
        if self.stop_s is not None and self.stop_s > end_s * (1 + 1e-9):
            warnings.append(
                f"it ends at {end_s:g} s, before --stop-s {self.stop_s:g}; times are in seconds"
            )
        start_s = self.start_s or 0.0
        missed = dict.fromkeys(str(t.sweep) for t in whole if t.stop_s <= start_s)
        if missed:
            warnings.append(
                f"not searched, ending before --start-s {start_s:g}: sweep {', '.join(missed)}."
            )
        return warnings

    def _check_lengths(self, traces: list[Trace]) -> list[str]:
        """A warning if some sweeps are shorter than the window; raises UsageError if all are."""
        window_samples(max(traces, key=len), self.source.card, self.settings.window_ms)
        short = [str(trace.sweep) for trace in traces if self._is_short(trace)]
        if not short:
            return []
        return [
            f"not searched, being shorter than the window ({self.settings.window_ms:g} ms): "
            f"sweep {', '.join(short)}."
        ]

    def _is_short(self, trace: Trace) -> bool:
        return trace.duration_s < self.settings.window_ms / 1000

    def _analyse(
        self, trace: Trace, progress: Progress | None, scores: dict[str, Scores]
    ) -> Events:
        """Events of a sweep, none of one shorter than the window; its scores if they are saved."""
        if not self._is_short(trace):
            kept = scores if self.save_scores or "miniml" in self.formats else None
            return analyse(trace, self.source, self.settings, progress, kept)
        origin = {name: getattr(trace, name) for name in ("recording", "channel", "sweep", "unit")}
        return no_events([Sweep(**origin, analysed_s=0.0)])

    def _write(
        self,
        path: Path,
        traces: list[Trace],
        reviewed: Reviewed,
        scores: dict[str, Scores],
        warnings: list[str],
        origin: dict[str, Any],
        desk: Path,
    ) -> dict[str, Any]:
        """Make all files on the desk, then put them in their places; returns the summary."""
        base = desk / path.stem
        events = reviewed.events
        told = None if self.source.card.kind == "trace" else self.settings.window_ms
        average = events.average(traces, window_ms=told)
        fits = self._fits(events, traces)
        files, left_out = self._tables(base, events, fits)
        if "miniml" in self.formats:
            files |= self._miniml(path, desk, traces, events, scores, average.tau_decay_ms)
        if self.picture:
            files["picture"] = Path(f"{base}.png")
            draw_report(traces, events, files["picture"], average=average)
        if self.save_scores:
            files["scores"] = Path(f"{base}.scores.h5")
            save_scores(scores, files["scores"])
        files["summary"] = Path(f"{base}.summary.json")
        summary = {
            "recording": str(path),
            **events.summary(),
            NOT_FOUND: len(reviewed.not_found),
            "average": {"n": average.n, "tau_decay_ms": average.tau_decay_ms},
            "fits": None if fits is None else fits.summary(),
            "warnings": [*warnings, *reviewed.warnings, *_suspicions(traces), *_doubts(events)],
            "channel": ", ".join(dict.fromkeys(trace.channel for trace in traces)),
            "rate_hz": traces[0].rate_hz,
            "settings": self.all_settings(),
            **provenance(self.source, self.settings),
            **origin,
            "left_out": left_out,
            "files": {name: str(self.out / file.name) for name, file in files.items()},
        }
        save_summary(summary, files["summary"])
        move_together(list(files.values()), self.out, self._outdated(path, summary))
        if left_out:  # now that everything else is safe
            raise SaveError(" ".join(left_out))
        return summary

    def _outdated(self, path: Path, summary: dict[str, Any]) -> list[Path]:
        """What an earlier search of the recording wrote, in formats not asked for now.

        Where that was of the same file, with the same settings, it is true still, and stays.
        """
        old = load_summary(self.out / f"{path.stem}.summary.json") or {}
        other = file_name(str(old.get("recording"))) != path.name
        if other or _search_of(old) == _search_of(plain(summary)):
            return []
        new = {file_name(file) for file in summary["files"].values()}
        gone = {file_name(str(file)) for file in _part(old, "files").values()} - new
        return [self.out / name for name in sorted(gone) if name.startswith(f"{path.stem}.")]

    def _tables(
        self, base: Path, events: Events, fits: Fits | None
    ) -> tuple[dict[str, Path], list[str]]:
        """Write the events in every format; returns the files, and what is too long for its format.

        Where there would be no table, or none that keeps what is rejected, a CSV takes its place.
        """
        files: dict[str, Path] = {}
        left_out = []
        for name in self.formats:
            try:
                files |= {} if name == "miniml" else self._table(name, base, events, fits)
            except TooLongError as error:
                left_out.append(f"{base.name}.events.{name} is not written: {error}")
        if not files and (left_out or REJECTED in events.status):
            files = self._table("csv", base, events, fits)
        return files, left_out

    @staticmethod
    def _table(name: str, base: Path, events: Events, fits: Fits | None) -> dict[str, Path]:
        """Write the events, and the fits where the format has no room for them."""
        files = {name: Path(f"{base}.events.{name}")}
        save_events(events, files[name], fits=fits)
        if fits is not None and f".{name}" in SINGLE_TABLES:
            key = "fits" if name == "csv" else f"fits_{name}"
            files[key] = Path(f"{base}.fits.{name}")
            save_fits(fits, files[key])
        return files

    def _miniml(
        self,
        path: Path,
        desk: Path,
        traces: list[Trace],
        events: Events,
        scores: dict[str, Scores],
        tau_decay_ms: float,
    ) -> dict[str, Path]:
        """Write the files that miniML would."""
        one = next(iter(scores.values()))
        written = save_miniml(
            events,
            traces,
            desk / path.stem,
            window_ms=self.settings.window_ms,
            tau_decay_ms=tau_decay_ms,
            source=path.name,
            model=self.source.card.name,
            threshold=self.settings.threshold,
            stride=round(one.stride * traces[0].rate_hz / one.rate_hz),
        )
        return {f"miniml_{name}": file for name, file in written.items()}

    def _fits(self, events: Events, traces: list[Trace]) -> Fits | None:
        """The fits, if they are asked for."""
        if not self.fit:
            return None
        if self.progress and len(events):
            click.echo("fitting events (at first use, compiling takes a while) ...", err=True)
        return events.fit(traces, lowpass_hz=self.lowpass_hz)

    def all_settings(self) -> dict[str, Any]:
        """What the results are told to be made with."""
        return {
            **asdict(self.settings),
            "why_window": self.why_window,
            "start_s": self.start_s,
            "stop_s": self.stop_s,
            "excluded_s": self.excluded,
            "fit": self.fit,
            "lowpass_hz": self.lowpass_hz,
            "reading": self.reading,
        }

    @staticmethod
    def line(summary: dict[str, Any]) -> str:
        """One recording in a line for people."""
        frequency = summary["frequency_hz"]
        rate = "" if frequency is None else f", {frequency:.3g} Hz"
        files = ", ".join(summary["files"].values())
        rejected = said_of(summary)
        named = summary["channel"].removeprefix("channel ")
        channel = f", channel {named}" if named else ""
        return (
            f"{Path(summary['recording']).name}{channel}: {counted(summary['events'], 'event')} in "
            f"{counted(summary['sweeps'], 'sweep')} ({summary['analysed_s']:g} s){rate}"
            f"{_size(summary)}{rejected} -> {files}"
        )


def _size(summary: dict[str, Any]) -> str:
    """The median amplitude, or one of each direction; of several units only which they are."""
    unit, amplitude = summary["unit"], summary["amplitude"]["median"]
    if not isinstance(unit, str):
        return f", in {' and '.join(unit)}" if unit else ""
    if "positive" in summary:
        median = {way: summary[way]["amplitude"]["median"] for way in ("negative", "positive")}
        return f", {summary['positive']['events']} of them positive, medians " + " and ".join(
            f"{value:.3g} {unit}" for value in median.values() if value is not None
        )
    return "" if amplitude is None else f", median {amplitude:.3g} {unit}"


def run_demo(out: Path, device: str) -> None:
    """Simulate a recording, search it as a user would, and say how it compares with the truth."""
    trace, truth = simulate_recording(seconds=20, frequency_hz=8, amplitude=-12, seed=1)
    path = out / "demo.h5"
    save_recording(replace(trace, channel="current"), path)
    model = load_model()
    job = DetectJob(
        recordings=(path,), source=model, settings=settle(model, device=device), out=out
    )
    click.echo(f"20 s at 50 kHz with {len(truth.onset_s)} simulated events: {path}")
    begin = time.perf_counter()
    summary = job.run(path)
    seconds = time.perf_counter() - begin
    tell_warnings(path.name, summary["warnings"])
    found = load_events(summary["files"]["csv"])
    hits = matched(truth.onset_s, found.location_s, tolerance_s=1.5e-3)
    click.echo(job.line(summary))
    click.echo(
        f"{hits} of {len(truth.onset_s)} true events found, {len(found) - hits} false, "
        f"in {seconds:.1f} s on {summary['device']} ({summary['threads']} threads)."
    )


@contextmanager
def _progress_bar(label: str, sweeps: int, job: DetectJob) -> Iterator[Progress | None]:
    """A bar on stderr over all scans of a recording, and a word about the first compilation."""
    if not job.progress:
        yield None
        return
    if notice := compiling():
        click.echo(notice, err=True)
    scans = sweeps * len(directions_of(job.settings.direction))
    with click.progressbar(length=1000 * scans, label=label, file=sys.stderr) as bar:
        finished = 0

        def progress(done: int, whole: int) -> None:
            nonlocal finished
            bar.update(1000 * finished + 1000 * done // whole - bar.pos)
            finished += done == whole

        yield progress


def _suspicions(traces: Sequence[Trace]) -> list[str]:
    """What speaks against the samples of each channel being what they are said to be."""
    channels = list(dict.fromkeys(trace.channel for trace in traces))
    if len(channels) == 1:
        return suspicions(traces)
    return [
        f"channel {name}: {text}"
        for name in channels
        for text in suspicions([trace for trace in traces if trace.channel == name])
    ]


def _doubts(events: Events) -> list[str]:
    """What in the results a user should look at twice."""
    doubts = []
    if not any(sweep.analysed_s for sweep in events.sweeps):
        doubts.append("everything is excluded or missing; nothing was searched.")
    doubts += [
        f"an event at {time_s:.3f} s in {hits} of {count} sweeps: a test pulse, a stimulus, or "
        "what it evokes; to leave it out, add --exclude-s "
        f"{max(time_s - 0.02, 0):.3f}-{time_s + 0.1:.3f}"
        for time_s, hits, count in repeated_times(events)
    ]
    return doubts


def tell_warnings(name: str, warnings: Sequence[str]) -> None:
    """Say on stderr what in a recording's results a user should look at twice."""
    for warning in warnings:
        click.echo(f"warning: {name}: {warning}", err=True)


def state_of(path: Path) -> dict[str, int] | None:
    """What changes when a file does: its size and when it was last written; None if it is gone."""
    try:
        state = os.stat(path)
    except OSError:
        return None
    return {"bytes": state.st_size, "modified_ns": state.st_mtime_ns}


def result_of(folder: Path, recording: Path, asked: str) -> dict[str, Any] | None:
    """The summary of a recording that was searched just as it is; None if it is to be searched.

    folder: where its results are. asked: the fingerprint of the job.
    """
    summary = load_summary(folder / f"{recording.stem}.summary.json")
    try:
        if summary is None or summary["settings_sha256"] != asked:
            return None
        same = summary["input"] == state_of(recording)
        there = all((folder / file_name(file)).is_file() for file in summary["files"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return summary if same and there else None


def _search_of(summary: dict[str, Any]) -> list[Any]:
    """What decides which events a summary tells of."""
    settings = {**_part(summary, "settings"), "threads": None}
    version = _part(summary, "versions").get("quantal")
    return [summary.get("input"), settings, summary.get("model"), version]


def _part(summary: dict[str, Any], name: str) -> dict[str, Any]:
    """A part of a summary; nothing where a file from elsewhere has something else there."""
    part = summary.get(name)
    return part if isinstance(part, dict) else {}


def counted(number: int, thing: str) -> str:
    """ "1 event", "2 events"."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _needs_window(source: Model | Detector) -> bool:
    """Whether what is found hangs on the window."""
    if isinstance(source, Detector):
        return source.tau_decay_ms is None
    return source.card.kind != "trace"


def _score_name(trace: Trace, direction: str) -> str:
    return f"{trace.channel or 'channel'}/sweep_{trace.sweep}/{direction}"


def number_or_name(channel: str | None) -> int | str | None:
    """A channel as `read` takes it: digits are its number, anything else its name."""
    return int(channel) if channel is not None and channel.isdecimal() else channel


def parse_stretch(text: str) -> tuple[float, float]:
    """ "0.14-0.42" as two times; raises UsageError."""
    first, _, last = text.partition("-")
    try:
        start, stop = float(first), float(last)
    except ValueError:
        start = stop = math.nan
    if not (math.isfinite(stop) and start >= 0):
        raise UsageError(
            f"--exclude-s takes two times in seconds, such as 0.14-0.42, got {text!r}."
        )
    if start >= stop:
        raise UsageError(f"--exclude-s takes the earlier time first, got {text!r}.")
    return start, stop


def formats_of(text: str) -> tuple[str, ...]:
    """The suffixes of tables in a text such as "csv,h5"; raises UsageError."""
    names = tuple(dict.fromkeys(name.strip().lower() for name in text.split(",")))
    for name in names:
        if name not in _FORMATS:
            raise UsageError(f"--format takes {', '.join(_FORMATS)}, got {name!r}.")
        require_library(f".{name}")
    return names


def _refuse_same_results(recordings: Sequence[Path]) -> None:
    first: dict[str, Path] = {}
    for path in recordings:
        name = results_name(path)
        if name in first:
            raise UsageError(
                f"{first[name]} and {path} would write the same files; "
                "search them one by one with another --out."
            )
        first[name] = path


def provenance(source: Model | Detector, settings: Settings) -> dict[str, Any]:
    """What scored the traces, by name and hash, where it ran, and the versions of all that did."""
    if isinstance(source, Detector):
        return {"model": None, "device": "cpu", "threads": 1, "versions": _versions()}
    session = open_session(source, settings.device, settings.threads)
    return {
        "model": {
            "name": source.card.name,
            "folder": str(source.folder),
            "sha256": source.card.graphs[source.graph.name],
        },
        "device": session.device,
        "threads": session.threads,
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    versions = {"quantal": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions

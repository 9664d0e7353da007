"""A batch: many recordings, each to its own results as `quantal detect` writes them, and tables.

A recording is done when its summary says that it was made from this very file, with these settings,
this model and this version. So a batch that was stopped goes on where it was, and what has changed
is done again. The tables are put together from the results on disk.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from quantal import __version__
from quantal.claims import claimed, clear_abandoned
from quantal.commands import DetectJob, counted, result_of, state_of, tell_warnings
from quantal.disk import move_together, remove
from quantal.errors import ModelError, QuantalError, ReadError, UsageError
from quantal.events import REJECTED, Events, Sweep, join, no_events
from quantal.lot import FILE, GROUP, REPORT, Entry, find_recordings
from quantal.model import Card, Model, load_model
from quantal.rejections import NOT_FOUND, said_of
from quantal.runtime import cores
from quantal.save import file_name, load_events, load_summary, save_summary, save_table
from quantal.scan import SIGNS
from quantal.workers import cluster, processes, spread

TABLES = ("csv", "parquet")
DONE, FAILED = "done", "failed"
STATUS, REASON = "status", "reason"
OTHERS = "not_in_this_batch"

_SUMMARY = ".summary.json"
_BUSY = "busy"
_CHANGED = "it changed while it was searched; once it is whole, give the same command again"
_PATIENCE_S = 0.5  # until one looks again whether another run has finished a recording
_MANY = 1_000_000  # tasks that a cluster may be given at once


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a recording: done, failed for a reason, or busy in another run."""

    status: str
    reason: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Recordings, the settings that all are searched with, and who searches them.

    job: its folder `out` is that of the whole batch. workers: processes, unless dask is the
    address of a scheduler. tables: the suffix of the tables.
    """

    entries: tuple[Entry, ...]
    job: DetectJob
    workers: int = 1
    dask: str | None = None
    tables: str = TABLES[0]
    progress: bool = True

    @classmethod
    def from_options(
        cls,
        recordings: Sequence[str],
        *,
        out: Path,
        group: str | None,
        workers: int | None,
        dask: str | None,
        tables: str,
        threads: int | None,
        progress: bool,
        **options: Any,
    ) -> Batch:
        """Find the recordings and check all options before any of them is read.

        options: those of `DetectJob.from_options`. Raises what that raises, and ReadError for a
        list that cannot be read.
        """
        if workers is not None and workers < 1:
            raise UsageError(f"--workers must be 1 or more, got {workers}.")
        if dask is not None and workers is not None:
            raise UsageError("--dask brings its own workers: leave out --workers, or --dask.")
        entries = find_recordings(recordings, group)
        _refuse_own_columns(entries)
        workers = min(workers or cores(), len(entries))
        if threads is None:
            threads = 1 if dask else max(1, cores() // workers)
        job = DetectJob.from_options(
            (), out=Path(os.path.abspath(out)), threads=threads, progress=False, **options
        )
        return cls(
            entries=tuple(entries),
            job=job,
            workers=workers,
            dask=dask,
            tables=tables,
            progress=progress,
        )

    def run(self) -> dict[str, Any]:
        """Search what is not done yet and write the tables; returns the report.

        Recordings that fail are told on stderr and do not stop the rest.
        """
        asked = self.job.fingerprint()
        todo = [entry for entry in self.entries if not _result_of(self.job, entry, asked)]
        reasons: dict[str, str] = {}
        with self._progress_bar() as advance, closing(self._search(todo)) as outcomes:
            advance(len(self.entries) - len(todo))
            for entry, outcome in outcomes:
                advance(1)
                self._tell(entry, outcome)
                if outcome.status == FAILED:
                    reasons[entry.file] = outcome.reason
        report = self._write_tables(asked, reasons)
        clear_abandoned(self.job.out)
        failed = {one[FILE]: one[REASON] for one in report[FAILED]}
        for entry in self.entries:
            if entry.file in failed and entry.file not in reasons:  # its results cannot be used
                self._tell(entry, Outcome(status=FAILED, reason=failed[entry.file]))
        looked_at = {entry.file for entry in todo} | set(failed)
        done_before = sum(entry.file not in looked_at for entry in self.entries)
        return {**report, "searched": len(todo), "done_before": done_before}

    def _tell(self, entry: Entry, outcome: Outcome) -> None:
        """Say on stderr what failed, and what should be looked at twice."""
        if outcome.status == DONE and not outcome.warnings:
            return
        if self.progress and sys.stderr.isatty():
            click.echo(err=True)  # not in the line of the bar
        tell_warnings(entry.file, outcome.warnings)
        if outcome.status == FAILED:
            click.echo(f"error: {entry.file}: {outcome.reason}", err=True)

    @contextmanager
    def _progress_bar(self) -> Iterator[Callable[[int], None]]:
        """A bar on stderr over all recordings, unless it is not wanted."""
        if not self.progress:
            yield lambda _: None
            return
        whole = len(self.entries)
        label = counted(whole, "recording")
        with click.progressbar(length=whole, label=label, file=sys.stderr) as bar:
            yield bar.update

    def _search(self, todo: list[Entry]) -> Generator[tuple[Entry, Outcome], None, None]:
        """What becomes of each recording; those busy in another run are come back to."""
        if not todo:
            return
        work = partial(search, _light(self.job), __version__)
        at_once = _MANY if self.dask else self.workers
        with self._executor() as executor:
            while todo:
                busy = []
                for entry, result in spread(executor, work, todo, at_once):
                    outcome = result if isinstance(result, Outcome) else _died(result)
                    if outcome.status == _BUSY:
                        busy.append(entry)
                    else:
                        yield entry, outcome
                todo = busy
                if busy:
                    time.sleep(_PATIENCE_S)

    def _executor(self) -> AbstractContextManager[Executor]:
        return processes(self.workers) if self.dask is None else cluster(self.dask)

    def _write_tables(self, asked: str, reasons: Mapping[str, str]) -> dict[str, Any]:
        """Both tables and the report, written by one run at a time; returns the report."""
        while True:
            with claimed(self.job.out, REPORT) as desk:
                if desk is not None:
                    return self._tables_from(desk, asked, reasons)
            time.sleep(_PATIENCE_S)

    def _tables_from(self, desk: Path, asked: str, reasons: Mapping[str, str]) -> dict[str, Any]:
        parts: list[tuple[Entry, Events]] = []
        rows: list[dict[str, Any]] = []
        for entry in self.entries:
            row, events = _row_of(self.job, entry, asked, reasons.get(entry.file))
            rows.append(row)
            parts.append((entry, events))
        files = [desk / f"{name}.{self.tables}" for name in ("events", "recordings")]
        save_table(events_table(parts), files[0])
        save_table(recordings_table(rows, self.job.settings.direction), files[1])
        report = {
            "recordings": len(rows),
            "events": _total(rows, "events"),
            REJECTED: _total(rows, REJECTED),
            NOT_FOUND: _total(rows, NOT_FOUND),
            FAILED: [{FILE: row[FILE], REASON: row[REASON]} for row in rows if row[REASON]],
            "groups": _groups(rows),
            OTHERS: _others_in(self.job.out, self.entries),
            "settings": self.job.all_settings(),
            "settings_sha256": asked,
            "quantal": __version__,
            "tables": [str(self.job.out / file.name) for file in files],
        }
        save_summary(report, desk / REPORT)
        move_together([*files, desk / REPORT], self.job.out)
        for other in set(TABLES) - {self.tables}:  # what is older must not be taken for this
            for file in files:
                remove(self.job.out / file.with_suffix(f".{other}").name)
        return report

    @staticmethod
    def line(report: Mapping[str, Any]) -> str:
        """The whole batch in a line for people."""
        return (
            f"{counted(report['recordings'], 'recording')}, {report['done_before']} of them done "
            f"before, {len(report[FAILED])} failed: {counted(report['events'], 'event')}"
            f"{said_of(report)} -> {', '.join(report['tables'])}{_said_of_others(report)}"
        )


def search(job: DetectJob, version: str, entry: Entry) -> Outcome:
    """Search one recording of a batch, in whichever process and on whichever computer this is."""
    try:
        if entry.closed:
            raise ReadError(entry.closed)
        if version != __version__:
            raise UsageError(f"this worker has quantal {__version__}, the batch {version}.")
        asked = job.fingerprint()
        with claimed(job.out, f"{entry.place}/{entry.path.stem}") as desk:
            if desk is None:
                return Outcome(status=_BUSY)
            summary = _result_of(job, entry, asked)  # another run may just have done it
            if summary is None:
                own = replace(job, source=_source_here(job.source), out=job.out / entry.place)
                summary = own.run(entry.path, desk)
        if summary["input"] != state_of(entry.path):
            return Outcome(status=FAILED, reason=_CHANGED)
    except QuantalError as error:
        return Outcome(status=FAILED, reason=str(error))
    except Exception as error:  # whatever it is, it is the trouble of this recording alone
        return Outcome(status=FAILED, reason=f"{type(error).__name__}: {error}")
    return Outcome(status=DONE, warnings=tuple(summary["warnings"]))


def _refuse_own_columns(entries: Sequence[Entry]) -> None:
    own = sorted({name for entry in entries for name in entry.more} & set(_NOTHING))
    if own:
        raise UsageError(
            f"the list has the columns {', '.join(own)}, which the table of recordings has of its "
            "own; rename them."
        )


def _result_of(job: DetectJob, entry: Entry, asked: str) -> dict[str, Any] | None:
    return result_of(job.out / entry.place, entry.path, asked)


def _died(error: BaseException) -> Outcome:
    kind = type(error).__name__
    what = {
        "BrokenProcessPool": "the process that searched it died, twice (out of memory?)",
        "KilledWorker": "the workers that searched it died (out of memory?)",
    }
    return Outcome(status=FAILED, reason=f"{what.get(kind, f'{kind}: {error}')}")


# The model on its way to a worker


def _light(job: DetectJob) -> DetectJob:
    """The job without the long parts of a model's card, which only verifying it needs."""
    if not isinstance(job.source, Model):
        return job
    card = replace(job.source.card, training={}, test_inputs=[], test_scores=[])
    return replace(job, source=replace(job.source, card=card))


def _source_here(source: Any) -> Any:
    """The model as it lies on this computer, or the detector."""
    if not isinstance(source, Model):
        return source
    return replace(
        source, folder=_folder_here(source.folder, source.card.name, _hashes(source.card))
    )


@lru_cache(maxsize=4)
def _folder_here(folder: Path, name: str, hashes: tuple[tuple[str, str], ...]) -> Path:
    found = load_model(folder if folder.is_dir() else name)
    if _hashes(found.card) != hashes:
        raise ModelError(
            f"{found.folder} on this worker is another model than {folder} of the batch; install "
            "the same one there."
        )
    return found.folder


def _hashes(card: Card) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(card.graphs.items()))


# Tables


def _row_of(
    job: DetectJob, entry: Entry, asked: str, reason: str | None
) -> tuple[dict[str, Any], Events]:
    """A row of the table of recordings, and the events; of one that failed, the reason."""
    row: dict[str, Any] = {FILE: entry.file, GROUP: entry.group, **entry.more}
    summary = _result_of(job, entry, asked)
    if summary is None:
        why = reason or _why_not_done(job, entry)
        return {**row, **_NOTHING, STATUS: FAILED, REASON: why}, no_events()
    try:
        events = _events_of(job.out / entry.place, summary)
    except QuantalError as error:
        return {**row, **_NOTHING, STATUS: FAILED, REASON: str(error)}, no_events()
    row |= {STATUS: DONE, REASON: " ".join(summary.get("left_out", ()))}
    row |= {"channel": summary["channel"], "unit": _unit(summary)}
    row |= {"rate_hz": summary["rate_hz"], **_numbers(events), "sweeps": summary["sweeps"]}
    row |= {NOT_FOUND: summary.get(NOT_FOUND, 0)}
    row |= {"average_tau_decay_ms": summary["average"]["tau_decay_ms"]}
    row |= _flat("fits", summary["fits"] or {})
    return row | _by_polarity(events), events


def _why_not_done(job: DetectJob, entry: Entry) -> str:
    """Why a recording has other results than those that were put there."""
    summary = load_summary(job.out / entry.place / f"{entry.path.stem}.summary.json")
    if summary is not None and summary.get("input") != state_of(entry.path):
        return _CHANGED
    return "another run has put results of other settings in its place"


def _groups(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many recordings of each group are done."""
    done = Counter(row[GROUP] for row in rows if row[STATUS] == DONE)
    return {group: done[group] for group in dict.fromkeys(row[GROUP] for row in rows)}


def _others_in(out: Path, entries: Sequence[Entry]) -> list[str]:
    """Results in the folder that are of no recording of the batch; those of other batches apart."""
    own = {_place_of(out / entry.place / entry.path.stem) for entry in entries}
    closed = tuple(entry.file for entry in entries if entry.closed)  # who knows what is in there
    others = [base for base in _bases_in(out) if _place_of(base) not in own]
    names = [base.relative_to(out).as_posix() for base in others]
    return sorted(name for name in names if not name.startswith(closed))


def _bases_in(out: Path) -> Iterator[Path]:
    """Where the results of each recording are, without the suffixes of their files."""
    for parent, folders, files in os.walk(out):
        if REPORT in files and Path(parent) != out:
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (
            Path(parent, name.removesuffix(_SUMMARY)) for name in files if name.endswith(_SUMMARY)
        )


def _place_of(base: Path) -> str:
    """Where results are; to some disks names that differ in case alone are one."""
    return os.path.normpath(base).casefold()


def _said_of_others(report: Mapping[str, Any]) -> str:
    """A line of its own about results that stay in the folder though they are of no recording."""
    count = len(report[OTHERS])
    which = "1 recording that is" if count == 1 else f"{count} recordings that are"
    return f"\nresults of {which} not in this batch lie there too, see {REPORT}" if count else ""


def _total(rows: Sequence[Mapping[str, Any]], name: str) -> int:
    """The sum of a column of numbers, of which recordings that failed have none."""
    return sum(row[name] or 0 for row in rows)


def _by_polarity(events: Events) -> dict[str, Any]:
    return {
        f"{kind}_{name}": value
        for kind, polarity in SIGNS.items()
        for name, value in _numbers(events[events.polarity == polarity]).items()
        if name not in ("sweeps", "analysed_s")
    }


# Formats that can be read back, best first.
_TABLES = ("csv", "h5", "parquet", "nwb", "xlsx")


def _events_of(folder: Path, summary: Mapping[str, Any]) -> Events:
    """The events on disk, with what was rejected there since; they know how long was searched."""
    files = summary["files"]
    table = next((files[name] for name in _TABLES if name in files), None)
    if table is None:
        raise UsageError(f"a batch needs the events in a format of {', '.join(_TABLES)} too.")
    events = load_events(folder / file_name(table))
    searched = Sweep(
        recording=Path(summary["recording"]).stem,
        channel=summary["channel"],
        sweep=0,
        unit=_unit(summary),
        analysed_s=summary["analysed_s"],
    )
    return replace(events, sweeps=(searched,))


def _unit(summary: Mapping[str, Any]) -> str:
    unit = summary["unit"]
    return unit if isinstance(unit, str) else ", ".join(unit)


def _numbers(events: Events) -> dict[str, Any]:
    """What the summary of some events says, without the unit and the parts by polarity."""
    return {
        name: value
        for key, part in events.summary().items()
        if key != "unit" and key not in SIGNS
        for name, value in (_flat(key, part) if isinstance(part, dict) else {key: part}).items()
    }


def _flat(name: str, part: Mapping[str, Any]) -> dict[str, Any]:
    """{"amplitude": {"median": 1}} as {"amplitude_median": 1}."""
    flat: dict[str, Any] = {}
    for key, value in part.items():
        full = f"{name}_{key}"
        flat |= _flat(full, value) if isinstance(value, Mapping) else {full: value}
    return flat


def events_table(parts: Sequence[tuple[Entry, Events]]) -> dict[str, NDArray[Any]]:
    """All events in one table: that of each recording, after its name and group."""
    lengths = [len(events) for _, events in parts]
    return {
        FILE: np.repeat(np.array([entry.file for entry, _ in parts], np.str_), lengths),
        GROUP: np.repeat(np.array([entry.group for entry, _ in parts], np.str_), lengths),
        **join(events for _, events in parts).columns(),
    }


def recordings_table(rows: Sequence[Mapping[str, Any]], direction: str) -> dict[str, NDArray[Any]]:
    """One row per recording; the parts by polarity where both were searched for."""
    longest = max(rows, key=len)
    names = [name for name in longest if direction == "both" or not name.startswith((*SIGNS,))]
    return {name: _column([row.get(name) for row in rows]) for name in names}


# The columns of a recording that failed.
_NOTHING: dict[str, Any] = {
    **dict.fromkeys([STATUS, REASON, "channel", "unit"], ""),
    **dict.fromkeys(["rate_hz", *_numbers(no_events()), NOT_FOUND, "average_tau_decay_ms"]),
    **dict.fromkeys(_by_polarity(no_events())),
}


def _column(values: list[Any]) -> NDArray[Any]:
    """Numbers where nothing else is there, missing ones as nan; or else texts."""
    if any(isinstance(value, str) for value in values):
        return np.array(["" if value is None else value for value in values], np.str_)
    return np.array([np.nan if value is None else value for value in values], np.float64)

"""What `quantal rois` does, between the options and the files."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from quantal.baseline import Baseline, delta_f
from quantal.commands import formats_of, parse_stretch, provenance
from quantal.detect import Settings, settle
from quantal.disk import move_together, refuse_unwritable, scratch_folder
from quantal.errors import UsageError
from quantal.events import Events
from quantal.imaging import RAW, Rois
from quantal.kinetics import compiling, fitting_window_ms
from quantal.model import Model, load_model
from quantal.readers.matrix import COLUMNS, ROWS
from quantal.readers.rois import read_rois
from quantal.rejections import NOT_FOUND, Reviewed, carry_over, said_of
from quantal.roi_report import draw_rois
from quantal.rois import RoiTable, on_time_scale_of, per_roi, search
from quantal.runtime import open_session
from quantal.save import load_summary, save_events, save_summary, save_table
from quantal.scan import Progress
from quantal.timescale import AUTO
from quantal.trace import outside

_READING = ("kind", "rate_hz", "dataset", "rois_in", "neuropil", "cells", "labels")
_FAR_MORE = 5  # times as many ROIs as samples
_TOGETHER, _AT_LEAST, _WITHIN_S = 0.2, 10, 0.05  # part of the ROIs, and of them, at one time


@dataclass(frozen=True, kw_only=True)
class RoiJob:
    """One imaging session to search, and everything that decides how."""

    path: Path
    reading: dict[str, Any]
    baseline: Baseline
    model: Model
    settings: Settings
    auto_window: bool
    excluded: tuple[tuple[float, float], ...]
    out: Path
    formats: tuple[str, ...]
    progress: bool

    @classmethod
    def from_options(
        cls,
        path: Path,
        *,
        baseline: Baseline,
        exclude_s: Sequence[str],
        out: Path,
        formats: str,
        progress: bool,
        model: str | None,
        **options: Any,
    ) -> RoiJob:
        """Check all options before the file is read.

        options: those of `read_rois` (_READING), and of `settle`. Raises UsageError, ModelError or
        MissingRuntimeError.
        """
        reading = {name: options.pop(name) for name in _READING}
        chosen_formats = formats_of(formats)
        if "miniml" in chosen_formats:
            raise UsageError("miniML's files hold one trace each: choose another --format.")
        loaded = load_model(model)
        auto = options["window_ms"] == AUTO
        settings = settle(loaded, **{**options, "window_ms": None} if auto else options)
        open_session(loaded, settings.device, settings.threads)
        return cls(
            path=path,
            reading=reading,
            baseline=baseline,
            model=loaded,
            settings=settings,
            auto_window=auto,
            excluded=tuple(parse_stretch(text) for text in exclude_s),
            out=out,
            formats=chosen_formats,
            progress=progress,
        )

    def run(self) -> dict[str, Any]:
        """Search all ROIs and write the results; returns the summary."""
        raw = replace(read_rois(self.path, **self.reading), excluded=self.excluded)
        refuse_unwritable(self.out)
        self._refuse_to_replace_others(raw.recording)
        self._say(repr(raw), *raw.notes)
        rois, settings, why = raw, self.settings, None
        if raw.kind == RAW:
            self._say(str(self.baseline))
            rois = delta_f(raw, self.baseline, settings.threads)
        with self._asking(self._which_are_rois(raw)):
            if self.auto_window:
                settings, found = on_time_scale_of(rois, self.model, settings)
                why = found.why
                self._say(f"a window of {settings.window_ms:g} ms ({why})")
            with self._bar(len(rois)) as progress:
                events = search(rois, self.model, settings, progress)
        reviewed = carry_over(
            events, self.out, rois.recording, recording=self.path, rate_hz=rois.rate_hz
        )
        with scratch_folder(self.out) as desk:
            return self._write(raw, rois, reviewed, settings, why, desk)

    @contextmanager
    def _asking(self, questions: list[str]) -> Iterator[None]:
        """If it ends with an error, that error asks these questions first."""
        try:
            yield
        except UsageError as error:
            if not questions:
                raise
            raise UsageError(f"{self.path}: {' '.join(questions)} If not: {error}") from error

    def _which_are_rois(self, raw: Rois) -> list[str]:
        """A question, where a matrix looks as if it were read the wrong way."""
        count, frames = raw.samples.shape
        others = {ROWS: COLUMNS, COLUMNS: ROWS}.get(self.reading["rois_in"])
        if others is None or count <= _FAR_MORE * frames:
            return []
        return [
            f"{count:,} ROIs of {frames:,} samples each: are the ROIs in its {others}? Then type "
            f"--rois-in {others}."
        ]

    def _refuse_to_replace_others(self, name: str) -> None:
        """Raises UsageError if the results of that name are those of another session."""
        summary = self.out / f"{name}.summary.json"
        other = (load_summary(summary) or {}).get("path")
        if other not in (None, str(self.path.resolve())):
            raise UsageError(
                f"{summary} is of another session, {other}: choose another --out, or remove it."
            )

    def _write(
        self,
        raw: Rois,
        rois: Rois,
        reviewed: Reviewed,
        settings: Settings,
        why: str | None,
        desk: Path,
    ) -> dict[str, Any]:
        """Make all files on the desk, then put them in their places; returns the summary."""
        events = reviewed.events
        table = per_roi(events, rois)
        asked = self._which_are_rois(raw)
        warnings = [*asked, *reviewed.warnings, *doubts(events, table, raw)]
        for warning in warnings:
            click.echo(f"warning: {self.path.name}: {warning}", err=True)
        base = desk / rois.recording
        files = {suffix: Path(f"{base}.events.{suffix}") for suffix in self.formats}
        for file in files.values():
            save_events(events, file)
        files |= {"rois": Path(f"{base}.rois.csv"), "picture": Path(f"{base}.png")}
        save_table(table.columns(), files["rois"])
        shown_ms = fitting_window_ms(events.half_decay_ms, events.overlap | events.edge)
        draw_rois(rois, events, table, files["picture"], window_ms=shown_ms or settings.window_ms)
        files["summary"] = Path(f"{base}.summary.json")
        active = table.frequency_hz[table.events > 0]
        summary = {
            "recording": str(self.path),
            "path": str(self.path.resolve()),
            **events.summary(),
            NOT_FOUND: len(reviewed.not_found),
            "rois": len(rois),
            "active_rois": len(active),
            "frequency_of_active_hz": {
                "median": float(np.median(active)) if len(active) else None,
                "mean": float(active.mean()) if len(active) else None,
            },
            "warnings": warnings,
            "rate_hz": rois.rate_hz,
            "input": raw.kind,
            "notes": rois.notes,
            "settings": {
                **asdict(settings),
                "why_window": why,
                "baseline": asdict(self.baseline) if raw.kind == RAW else None,
                "excluded_s": self.excluded,
                "reading": self.reading,
            },
            **provenance(self.model, settings),
            "files": {name: str(self.out / file.name) for name, file in files.items()},
        }
        save_summary(summary, files["summary"])
        move_together(list(files.values()), self.out)
        return summary

    def _say(self, *texts: str) -> None:
        for text in texts if self.progress else ():
            click.echo(text, err=True)

    @contextmanager
    def _bar(self, count: int) -> Iterator[Progress | None]:
        if not self.progress:
            yield None
            return
        if notice := compiling():
            click.echo(notice, err=True)
        with click.progressbar(length=count, label=self.path.name, file=sys.stderr) as bar:
            yield lambda done, _: bar.update(done - bar.pos)

    @staticmethod
    def line(summary: dict[str, Any]) -> str:
        """The session in a line for people."""
        median = summary["frequency_of_active_hz"]["median"]
        rate = "" if median is None else f", {median:.3g} Hz in the median active one"
        size = summary["amplitude"]["median"]
        amplitude = "" if size is None else f", median {size:.3g} {summary['unit']}"
        return (
            f"{Path(summary['recording']).name}: {summary['events']} events in "
            f"{summary['active_rois']} of {summary['rois']} ROIs{rate}{amplitude}"
            f"{said_of(summary)} -> {', '.join(summary['files'].values())}"
        )


def doubts(events: Events, table: RoiTable, raw: Rois) -> list[str]:
    """What in the results a user should look at twice."""
    found = outside(raw.excluded, 0.0, raw.duration_s)
    empty = table.roi[~(table.analysed_s > 0)]
    if len(empty):
        listed = ", ".join(map(str, empty[:10].tolist())) + (" ..." if len(empty) > 10 else "")
        why = f" ({_why_no_f0(raw)})" if raw.kind == RAW else ""
        found.append(f"nothing could be searched in {len(empty)} ROIs{why}: {listed}")
    time_s, count = busiest_moment(events)
    if count >= max(_TOGETHER * len(table), _AT_LEAST):
        stretch = f"{max(time_s - 0.1, 0):.2f}-{time_s + 0.5:.2f}"
        found.append(
            f"{count} of {len(table)} ROIs have an event at {time_s:.3f} s: movement, light or a "
            f"network event; --exclude-s {stretch} leaves it out"
        )
    return found


def _why_no_f0(raw: Rois) -> str:
    """Why dF/F cannot be taken, and what to type."""
    if any("neuropil" in note for note in raw.notes):  # some of it was taken off
        return "F0 is not positive; try a smaller --neuropil"
    return "F0 is not positive, as in samples that are dF/F already: then type --input dff"


def busiest_moment(events: Events) -> tuple[float, int]:
    """When most ROIs have an event within 50 ms (s), and how many do; nan and 0 without events."""
    if not len(events) or events.roi is None:
        return np.nan, 0
    order = np.argsort(events.location_s)
    times = events.location_s[order]
    stops = np.searchsorted(times, times + _WITHIN_S, side="right")
    first = int(np.argmax(stops - np.arange(len(times))))
    inside = order[first : stops[first]]
    return float(np.median(events.location_s[inside])), len(np.unique(events.roi[inside]))

"""Windows before a biologist's eyes: as numbered pictures on sheets, or one by one on the screen.

An event counts if it begins in the shaded part of its window.
"""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.errors import QuantalError, ReadError, UsageError
from quantal.filters import fill_missing, odd_width, smooth
from quantal.layout import legible
from quantal.save import replacing
from quantal_trainer.datasets import EVENT, EXCLUDED, NOISE, Dataset

Array = NDArray[np.float32]
Places = NDArray[np.int64]

WORDS = {EVENT: "event", NOISE: "noise", EXCLUDED: "left out"}
TABLE = "scores.csv"
_COLUMNS = ("window", "cell", "raw_index", "kind", "score")
_FIRST_KINDS = ("unclear", "clear", "noise")  # what needs a decision comes first
_BEGINS = (0.18, 0.52)  # of a window: where an event that counts begins

_INCHES, _DPI = (11.7, 8.3), 150  # a page of A4
# Okabe and Ito's colours can be told apart by everyone.
_COLOURS = {EVENT: "#0072b2", NOISE: "#808080", EXCLUDED: "#e69f00"}
_INK, _PALE, _SHADE = "#222222", "#c0c6cc", "#f6f1d5"
_SAVE_EVERY = 10  # scores


def scoring_order(dataset: Dataset, kinds: Sequence[str] | None = None) -> Places:
    """Windows in an order that is quick to score: unclear, clear, noise; in each, large first.

    kinds: only these; None takes all. Raises UsageError if there is no window of a kind.
    """
    there = set(dataset.kinds.tolist())
    wanted = there if kinds is None else set(kinds)
    if wanted - there or not wanted:
        raise UsageError(
            f"there are no windows of kind {', '.join(sorted(wanted - there)) or 'any'}; "
            f"there are: {', '.join(sorted(there)) or 'none'}."
        )
    known = [kind for kind in _FIRST_KINDS if kind in wanted]
    ranked = {kind: i for i, kind in enumerate([*known, *sorted(wanted - set(known))])}
    rank = np.array([ranked.get(kind, -1) for kind in dataset.kinds.tolist()], np.int64)
    order = np.lexsort((-np.ptp(_smoothed(dataset.windows), axis=1), rank))
    return np.asarray(order[rank[order] >= 0], np.int64)


def _smoothed(windows: Array) -> Array:
    """Windows as the eye sees them: without gaps and the fastest noise."""
    if not np.isfinite(windows).all():
        windows = np.stack([fill_missing(window) for window in windows])
    return smooth(windows, odd_width(windows.shape[1] / 60))


# Sheets and a table ------------------------------------------------------------------------------


def draw_sheets(
    dataset: Dataset,
    folder: str | Path,
    *,
    per_page: int = 48,
    kinds: Sequence[str] | None = None,
) -> list[Path]:
    """Pages of numbered pictures, framed by their scores, and a table of scores to edit.

    Writes sheet-001.png and so on (their paths are returned) and scores.csv, which holds every
    window, those on the sheets first and in their order. kinds: only these are drawn.

    Raises UsageError if scores.csv is there and holds scores that the dataset lacks.
    """
    folder = Path(folder).expanduser()
    if not 1 <= per_page <= 400:
        raise UsageError(f"per_page must be 1 to 400 pictures, got {per_page!r}; try 48.")
    order = scoring_order(dataset, kinds)
    _refuse_loss(dataset, folder / TABLE)
    groups = [order[i : i + per_page] for i in range(0, len(order), per_page)]
    paths = [folder / f"sheet-{number:03d}.png" for number in range(1, len(groups) + 1)]
    for number, (rows, path) in enumerate(zip(groups, paths, strict=True), 1):
        _draw_sheet(dataset, rows, path, per_page, f"sheet {number} of {len(groups)}")
    for old in folder.iterdir():  # of an earlier drawing: its numbers may be others
        if re.fullmatch(r"sheet-\d{3,}\.png", old.name) and old not in paths:
            old.unlink()
    rest = np.setdiff1d(np.arange(len(dataset)), order)
    _write_table(dataset, np.concatenate([order, rest]), folder / TABLE)
    return paths


def _refuse_loss(dataset: Dataset, table: Path) -> None:
    if not table.exists():
        return
    try:
        same = bool((apply_scores(dataset, table).scores == dataset.scores).all())
    except QuantalError:
        same = False
    if not same:
        raise UsageError(
            f"{table} holds scores that the dataset lacks: apply them first, delete the file, or "
            "draw into another folder."
        )


def _write_table(dataset: Dataset, order: Places, path: Path) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(_COLUMNS)
    columns = (dataset.cells, dataset.raw_indices, dataset.kinds, dataset.scores)
    writer.writerows(zip(order.tolist(), *(c[order].tolist() for c in columns), strict=True))
    with replacing(path) as temporary:
        # with a byte order mark, without which a spreadsheet garbles letters beyond ASCII
        temporary.write_bytes(text.getvalue().encode("utf-8-sig"))


def apply_scores(dataset: Dataset, path: str | Path) -> Dataset:
    """The dataset with the scores of an edited scores.csv.

    Commas, semicolons and tabs may separate its columns, rows may come in any order, and columns
    other than window, raw_index and score are not looked at.

    Raises ReadError if there is no such table, and UsageError, which names the line, for a window
    that is not in the dataset or comes twice, a score other than 0, 1 and 2, and missing windows.
    """
    path = Path(path).expanduser()
    given: dict[int, int] = {}
    for line, row in _rows(path):
        where = f"{path}, line {line}"
        window = _whole(row["window"])
        if window is None or not 0 <= window < len(dataset):
            raise UsageError(
                f"{where}: there is no window {row['window']!r}; the dataset has windows 0 to "
                f"{len(dataset) - 1}."
            )
        if window in given:
            raise UsageError(f"{where}: window {window} comes a second time; keep one row of it.")
        if _whole(row["raw_index"]) != dataset.raw_indices[window]:
            raise UsageError(
                f"{where}: window {window} begins at sample {dataset.raw_indices[window]} here, "
                f"not {row['raw_index']!r}; these scores belong to another dataset."
            )
        score = _whole(row["score"])
        if score not in WORDS:
            raise UsageError(
                f"{where}: the score of window {window} must be 0 (noise), 1 (event) or 2 (left "
                f"out), got {row['score']!r}."
            )
        given[window] = score
    _refuse_missing(dataset, given, path)
    scores = np.array([given[window] for window in range(len(dataset))], np.int8)
    return replace(dataset, scores=scores, provenance={**dataset.provenance, "scored": path.name})


def _refuse_missing(dataset: Dataset, given: dict[int, int], path: Path) -> None:
    missing = [str(window) for window in range(len(dataset)) if window not in given]
    if missing:
        some = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
        raise UsageError(
            f"{path} lacks {len(missing)} of {len(dataset)} windows ({some}): to leave a window "
            "out, score it 2 and keep its row."
        )


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line numbers and the three columns that count; blank lines are passed over."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror or error}.") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:  # a spreadsheet saved it anew in the encoding of its country
        text = content.decode("latin-1")
    head = text.split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count))
    try:
        names = [name.strip().lower() for name in next(reader, [])]
        at = {name: names.index(name) for name in ("window", "raw_index", "score")}
        for row in reader:
            if any(value.strip() for value in row):
                padded = [*row, *[""] * len(names)]
                yield reader.line_num, {name: padded[i].strip() for name, i in at.items()}
    except (ValueError, csv.Error):
        raise UsageError(
            f"{path} is no table of scores: its first line must name the columns "
            f"{', '.join(_COLUMNS)}."
        ) from None


def _whole(text: str) -> int | None:
    """A whole number, also where a spreadsheet wrote 1 as 1.0 or 1,0."""
    match = re.fullmatch(r"(-?\d{1,18})(?:[.,]0*)?", text)
    return int(match[1]) if match else None


# Drawing -----------------------------------------------------------------------------------------


def _draw_sheet(dataset: Dataset, rows: Places, path: Path, per_page: int, title: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_INCHES, dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.015, 0.015, 0.97, 0.93))
    across = int(np.ceil(np.sqrt(per_page * 4 / 3)))
    down = int(np.ceil(per_page / across))
    axes.set(xlim=(0, across), ylim=(down, 0))
    axes.axis("off")
    left = np.arange(len(rows)) % across + 0.04
    bottom = np.arange(len(rows)) // across + 0.94
    _draw_frames(axes, dataset.scores[rows], left, bottom)
    _draw_windows(axes, dataset.windows[rows], left, bottom)
    _write_captions(axes, dataset, rows, left, bottom, size=min(7.0, 56 / across))
    head = f"{title}: windows of {dataset.window_ms:g} ms at {dataset.rate_hz:g} Hz"
    figure.text(0.02, 0.97, head, fontsize=9, weight="bold", color=_INK, parse_math=False)
    figure.text(
        0.02,
        0.952,
        f"in {TABLE}: 1 where an event begins in the shaded part, 0 where none does, 2 where it "
        "cannot be said. Each picture has its own scale.",
        fontsize=7.5,
        color=_INK,
    )
    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a unit in letters that the font lacks
        figure.savefig(temporary, format="png", dpi=_DPI)


_WIDE, _HIGH, _CAPTION = 0.92, 0.86, 0.14  # of a picture's place on a sheet
_SHADED = (_BEGINS[1] - _BEGINS[0]) * _WIDE


def _draw_frames(axes: Any, scores: NDArray[np.int8], left: Any, bottom: Any) -> None:
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    corners = list(zip(left, bottom, strict=True))
    shades = [Rectangle((x + _BEGINS[0] * _WIDE, y), _SHADED, -_HIGH) for x, y in corners]
    frames = [Rectangle(corner, _WIDE, -_HIGH) for corner in corners]
    colours = [_COLOURS[int(score)] for score in scores]
    axes.add_collection(PatchCollection(shades, facecolors=_SHADE))
    axes.add_collection(
        PatchCollection(frames, facecolors="none", edgecolors=colours, linewidths=1.4)
    )


def _draw_windows(axes: Any, windows: Array, left: Any, bottom: Any) -> None:
    """Every window within its frame: its samples pale, and as the eye smooths them dark."""
    from matplotlib.collections import LineCollection

    smoothed = _smoothed(windows)
    low, high = smoothed.min(axis=1, keepdims=True), smoothed.max(axis=1, keepdims=True)
    middle, span = 0.5 * (low + high), np.maximum(high - low, 1e-30)
    x = left[:, None] + _WIDE * np.linspace(0.01, 0.99, windows.shape[1])
    room = _HIGH - _CAPTION
    for levels, colour, width in ((windows, _PALE, 0.4), (smoothed, _INK, 0.7)):
        part = np.clip((levels - middle) / span, -0.6, 0.6)
        y = bottom[:, None] - 0.5 * room - 0.78 * room * part
        lines = list(np.stack([x, y], axis=2))
        axes.add_collection(LineCollection(lines, colors=colour, linewidths=width))


def _write_captions(
    axes: Any, dataset: Dataset, rows: Places, left: Any, bottom: Any, size: float
) -> None:
    ranges = np.ptp(_smoothed(dataset.windows[rows]), axis=1)
    for row, x, y, span in zip(rows.tolist(), left, bottom, ranges, strict=True):
        score = int(dataset.scores[row])
        top = y - _HIGH + 0.03
        style = {"fontsize": size, "va": "top", "parse_math": False}
        axes.text(x + 0.02, top, str(row), weight="bold", color=_INK, **style)
        axes.text(x + 0.24, top, _word(score), color=_COLOURS[score], **style)
        axes.text(
            x + _WIDE - 0.02, top, f"{span:.3g} {dataset.unit}", ha="right", color=_INK, **style
        )


def _word(score: int) -> str:
    return f"{score} {WORDS[score]}"


# One by one --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, kw_only=True)
class ScoringSession:
    """Windows that are scored one by one; a key gives the session that follows.

    order: windows as they are shown. scores: of the dataset's windows, by now. at: place in the
    order. given: for undo, place and earlier score of every score given. ended: no more wanted.
    """

    dataset: Dataset
    order: Places
    scores: NDArray[np.int8]
    at: int = 0
    given: tuple[tuple[int, int], ...] = ()
    ended: bool = False

    @property
    def window(self) -> int:
        """The window that is shown."""
        return int(self.order[self.at])

    def press(self, key: str | None) -> ScoringSession:
        """What follows a key: 0, 1, 2 score and go on, left and right move, u undoes, q ends."""
        last = len(self.order) - 1
        if key in ("0", "1", "2"):
            before = (self.at, int(self.scores[self.window]))
            after = self._scored(self.at, int(key))
            return replace(after, at=min(self.at + 1, last), given=(*self.given, before))
        if key == "u" and self.given:
            place, score = self.given[-1]
            return replace(self._scored(place, score), at=place, given=self.given[:-1])
        if key in ("left", "right"):
            step = 1 if key == "right" else -1
            return replace(self, at=min(max(self.at + step, 0), last))
        return replace(self, ended=True) if key in ("q", "escape") else self

    def result(self) -> Dataset:
        """The dataset with the scores by now."""
        if (self.scores == self.dataset.scores).all():
            return self.dataset
        facts = {**self.dataset.provenance, "scored": "one by one"}
        return replace(self.dataset, scores=self.scores, provenance=facts)

    def _scored(self, place: int, score: int) -> ScoringSession:
        scores = self.scores.copy()
        scores[self.order[place]] = score
        return replace(self, scores=scores)


def begin_scoring(dataset: Dataset, kinds: Sequence[str] | None = None) -> ScoringSession:
    """A session over these kinds (None: all), at the first window that is scored 2."""
    order = scoring_order(dataset, kinds)
    undecided = np.flatnonzero(dataset.scores[order] == EXCLUDED)
    at = int(undecided[0]) if len(undecided) else 0
    return ScoringSession(dataset=dataset, order=order, scores=dataset.scores, at=at)


def score_interactively(
    dataset: Dataset, save: Callable[[Dataset], None], *, kinds: Sequence[str] | None = None
) -> Dataset:
    """Show one window at a time on the screen and take its score from the keyboard.

    Keys: 0, 1 and 2 score and go on, left and right move, u undoes, q or closing the window ends.
    save is called with the dataset after every ten scores and at the end; what it raises ends the
    session and is raised here. Returns the scored dataset.

    Raises UsageError if there is no screen.
    """
    session = begin_scoring(dataset, kinds)
    pyplot, figure = _window_on_screen()
    screen = _Screen(figure, session, save, close=lambda: pyplot.close(figure))
    pyplot.show(block=True)
    return screen.finish()


def _window_on_screen() -> tuple[Any, Any]:
    """pyplot and an empty window without matplotlib's own keys."""
    refusal = (
        "there is no screen to show windows on: draw sheets instead (--sheets FOLDER), edit their "
        "scores.csv and read it back (--table FOLDER/scores.csv). In Python draw_sheets and "
        "apply_scores."
    )
    from matplotlib import pyplot

    try:
        with pyplot.rc_context({"toolbar": "None"}):
            figure = pyplot.figure("quantal: scores", figsize=(9, 6))
    except Exception as error:  # each toolkit has an error of its own
        raise UsageError(refusal) from error
    if figure.canvas.required_interactive_framework is None:
        pyplot.close(figure)
        raise UsageError(refusal)
    figure.canvas.mpl_disconnect(figure.canvas.manager.key_press_handler_id)
    return pyplot, figure


class _Screen:
    """A session in a figure: draws it, passes keys to it and sees that scores are saved."""

    def __init__(
        self,
        figure: Any,
        session: ScoringSession,
        save: Callable[[Dataset], None],
        close: Callable[[], None],
    ) -> None:
        self.figure, self.session, self.save, self.close = figure, session, save, close
        self.saved = session.scores
        self.unsaved_keys = 0
        self.failure: Exception | None = None
        figure.canvas.mpl_connect("key_press_event", self.on_key)
        self.draw()

    def on_key(self, event: Any) -> None:
        """Let the session have the key; a score in ten is saved with those before it."""
        before, self.session = self.session, self.session.press(event.key)
        self.unsaved_keys += self.session.scores is not before.scores
        if self.unsaved_keys >= _SAVE_EVERY:
            self.save_scores()
        if self.session.ended or self.failure:
            self.close()
        else:
            self.draw()

    def save_scores(self) -> None:
        """Save if there is something new; a failure is kept, as toolkits swallow what is raised."""
        self.unsaved_keys = 0
        if (self.session.scores == self.saved).all():
            return
        try:
            self.save(self.session.result())
            self.saved = self.session.scores
        except Exception as error:
            self.failure = error

    def finish(self) -> Dataset:
        """Save what is not saved yet and give the scored dataset; raises what saving raised."""
        if self.failure is None:
            self.save_scores()
        if self.failure is not None:
            raise self.failure
        return self.session.result()

    def draw(self) -> None:
        """Draw the window at hand, framed by its score."""
        session, data = self.session, self.session.dataset
        score = int(session.scores[session.window])
        self.figure.clear()
        axes = self.figure.add_axes((0.09, 0.1, 0.88, 0.76))
        samples = data.windows[session.window]
        time_ms = 1e3 * np.arange(data.length) / data.rate_hz
        axes.axvspan(*(part * data.window_ms for part in _BEGINS), color=_SHADE, linewidth=0)
        axes.plot(time_ms, samples, color=_PALE, linewidth=0.8)
        axes.plot(time_ms, _smoothed(samples[None])[0], color=_INK, linewidth=1.2)
        axes.set_xlim(0, data.window_ms)
        axes.set_xlabel("time (ms)")
        axes.set_ylabel(data.unit, parse_math=False)
        for side in axes.spines.values():
            side.set(color=_COLOURS[score], linewidth=3)
        self._write_head(score)
        self.figure.canvas.draw_idle()

    def _write_head(self, score: int) -> None:
        session, data, window = self.session, self.session.dataset, self.session.window
        kind = f", {data.kinds[window]}" if data.kinds[window] else ""
        cell = legible(data.cells[window]) or "unknown cell"
        where = f"window {window} of {cell}{kind}"
        counted = f"{session.at + 1} of {len(session.order)}"
        style = {"color": _INK, "parse_math": False}
        self.figure.text(0.09, 0.95, f"{counted}: {where}", fontsize=11, **style)
        self.figure.text(
            0.97, 0.95, _word(score), fontsize=13, ha="right", weight="bold", color=_COLOURS[score]
        )
        keys = "1 event begins in the shaded part, 0 none does, 2 leave out"
        moves = "← → move, u undo, q save and quit"
        self.figure.text(0.09, 0.895, f"{keys};  {moves}", fontsize=9, **style)

"""Scoring: no score is lost, mixed up or taken for another, on sheets and on the screen."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backend_bases import KeyEvent
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread

from quantal.errors import ReadError, SaveError, UsageError
from quantal_trainer import score
from quantal_trainer.datasets import EVENT, EXCLUDED, NOISE, Dataset
from quantal_trainer.score import (
    ScoringSession,
    apply_scores,
    begin_scoring,
    draw_sheets,
    score_interactively,
    scoring_order,
)


def dataset(n: int = 30, length: int = 120) -> Dataset:
    """Windows of the three kinds in turn, of sizes that chance decides."""
    rng = np.random.default_rng(n)
    sizes = rng.permutation(np.linspace(5, 50, n))[:, None]
    event = np.where(np.arange(length) < 40, 0, np.exp(-(np.arange(length) - 40) / 10))
    return Dataset(
        windows=-70 - sizes * event + rng.normal(0, 0.1, (n, length)),
        scores=np.resize([EVENT, EXCLUDED, NOISE], n),
        rate_hz=10_000.0,
        unit="pA",
        cells=np.resize(["cell $1", "Zelle ä"], n),
        raw_indices=1_000 * np.arange(n),
        kinds=np.resize(["clear", "unclear", "noise"], n),
        provenance={"seed": 3},
    )


@pytest.fixture(scope="module")
def data() -> Dataset:
    return dataset()


# Order -------------------------------------------------------------------------------------------


def test_unclear_windows_come_first_and_large_ones_before_small(data: Dataset) -> None:
    order = scoring_order(data)
    assert sorted(order) == list(range(30))
    assert data.kinds[order].tolist() == ["unclear"] * 10 + ["clear"] * 10 + ["noise"] * 10
    for part in (order[:10], order[10:20], order[20:]):
        spans = np.ptp(data.windows[part], axis=1)
        assert (np.diff(spans) < 0.5).all()


def test_only_the_kinds_asked_for_are_shown(data: Dataset) -> None:
    assert set(data.kinds[scoring_order(data, ["noise"])]) == {"noise"}
    with pytest.raises(UsageError, match=r"no windows of kind loud; there are: clear, noise, uncl"):
        scoring_order(data, ["loud", "noise"])
    with pytest.raises(UsageError, match="there are: none"):
        scoring_order(data[[]])


# Sheets and the table ----------------------------------------------------------------------------


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def written(path: Path, rows: list[dict[str, str]], **options: Any) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), **options)
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def rows(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """The rows of the table that comes with the sheets."""
    folder = tmp_path_factory.mktemp("sheets")
    draw_sheets(data, folder, per_page=40)
    return rows_of(folder / "scores.csv")


def test_every_window_has_its_row_in_the_order_of_the_sheets(
    data: Dataset, rows: list[dict[str, str]]
) -> None:
    order = scoring_order(data)
    assert [int(row["window"]) for row in rows] == order.tolist()
    for row in rows:
        i = int(row["window"])
        assert row["cell"] == data.cells[i]
        assert int(row["raw_index"]) == data.raw_indices[i]
        assert row["kind"] == data.kinds[i]
        assert int(row["score"]) == data.scores[i]


def test_pages_hold_so_many_pictures_and_old_pages_go(data: Dataset, tmp_path: Path) -> None:
    first = draw_sheets(data, tmp_path / "new" / "folder", per_page=12)
    assert [path.name for path in first] == ["sheet-001.png", "sheet-002.png", "sheet-003.png"]
    other = tmp_path / "new" / "folder" / "sheet of mine.png"
    other.write_text("mine")
    second = draw_sheets(data, tmp_path / "new" / "folder", per_page=20)
    assert [path.exists() for path in first] == [True, True, False]
    assert second == first[:2]
    assert other.exists()


def colour_share(path: Path, colour: str) -> float:
    """Which part of a picture has this colour."""
    wanted = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return float((np.abs(imread(path)[:, :, :3] - wanted) < 0.02).all(axis=2).mean())


def test_pictures_are_framed_in_the_colour_of_their_score(data: Dataset, tmp_path: Path) -> None:
    for kind, own in (("clear", EVENT), ("unclear", EXCLUDED), ("noise", NOISE)):
        (path,) = draw_sheets(data, tmp_path / kind, kinds=[kind])
        shares = {value: colour_share(path, c) for value, c in score._COLOURS.items()}
        assert max(shares, key=lambda value: shares[value]) == own
        assert shares[own] > 0.001
        assert len(rows_of(tmp_path / kind / "scores.csv")) == len(data)  # all, so none is lost


@pytest.mark.parametrize("length", [8, 3_000])
def test_windows_with_gaps_flat_or_of_any_length_are_drawn(length: int, tmp_path: Path) -> None:
    windows = np.random.default_rng(0).normal(size=(5, length)).astype(np.float32)
    windows[0, 3:5], windows[1], windows[2] = np.nan, np.nan, 7.0
    strange = Dataset(windows=windows, scores=[0, 1, 2, 0, 1], rate_hz=1e4, unit="$\\alpha$")
    (path,) = draw_sheets(strange, tmp_path)
    assert imread(path).std() > 0.01


@pytest.mark.parametrize("per_page", [0, -4, 1_000])
def test_a_page_must_hold_some_pictures(data: Dataset, tmp_path: Path, per_page: int) -> None:
    with pytest.raises(UsageError, match="per_page must be 1 to 400"):
        draw_sheets(data, tmp_path, per_page=per_page)


def test_an_unedited_table_changes_nothing(
    data: Dataset, rows: list[dict[str, str]], tmp_path: Path
) -> None:
    after = apply_scores(data, written(tmp_path / "scores.csv", rows))
    np.testing.assert_array_equal(after.scores, data.scores)
    np.testing.assert_array_equal(after.windows, data.windows)
    assert after.provenance == {"seed": 3, "scored": "scores.csv"}


def commas(rows: list[dict[str, str]], path: Path) -> Path:
    return written(path, rows)


def semicolons(rows: list[dict[str, str]], path: Path) -> Path:
    return written(path, rows, delimiter=";")


def tabs(rows: list[dict[str, str]], path: Path) -> Path:
    return written(path, rows, delimiter="\t", lineterminator="\n")


def decimals(rows: list[dict[str, str]], path: Path) -> Path:
    return written(path, [{**row, "score": row["score"] + ".0"} for row in rows])


def blank_lines(rows: list[dict[str, str]], path: Path) -> Path:
    written(path, rows)
    path.write_text(path.read_text("utf-8") + "\n,,,,\n\n", "utf-8")
    return path


def latin(rows: list[dict[str, str]], path: Path) -> Path:
    written(path, rows)
    path.write_bytes(path.read_text("utf-8").encode("latin-1"))
    return path


def another_order(rows: list[dict[str, str]], path: Path) -> Path:
    names = ("Score", "note", "Raw_Index", "Window")
    return written(path, [{n: row.get(n.lower(), "?") for n in names} for row in rows[::-1]])


@pytest.mark.parametrize(
    "spreadsheet", [commas, semicolons, tabs, decimals, blank_lines, latin, another_order]
)
def test_scores_survive_what_spreadsheets_do(
    data: Dataset, rows: list[dict[str, str]], tmp_path: Path, spreadsheet: Callable[..., Path]
) -> None:
    wanted = np.random.default_rng(1).integers(0, 3, len(data))
    edited = [{**row, "score": str(wanted[int(row["window"])])} for row in rows]
    path = spreadsheet(edited, tmp_path / "scores.csv")
    np.testing.assert_array_equal(apply_scores(data, path).scores, wanted)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": "3"}, r"line 4: the score of window \d+ must be 0 .* got '3'"),
        ({"score": ""}, r"line 4: the score .* got ''"),
        ({"score": "0.5"}, r"line 4: the score .* got '0.5'"),
        ({"score": "yes"}, r"line 4: the score .* got 'yes'"),
        ({"window": "30"}, r"line 4: there is no window '30'; .* 0 to 29"),
        ({"window": "-1"}, r"line 4: there is no window '-1'"),
        ({"window": "x"}, r"line 4: there is no window 'x'"),
        ({"raw_index": "17"}, r"line 4: window \d+ begins at sample \d+ here, not '17'.*another"),
    ],
)
def test_a_wrong_row_is_refused_by_its_line(
    data: Dataset,
    rows: list[dict[str, str]],
    tmp_path: Path,
    change: dict[str, str],
    message: str,
) -> None:
    wrong = [*rows[:2], {**rows[2], **change}, *rows[3:]]
    with pytest.raises(UsageError, match=message):
        apply_scores(data, written(tmp_path / "scores.csv", wrong))


def test_a_row_that_comes_twice_or_not_at_all_is_refused(
    data: Dataset, rows: list[dict[str, str]], tmp_path: Path
) -> None:
    path = tmp_path / "scores.csv"
    with pytest.raises(UsageError, match=r"line 32: window \d+ comes a second time"):
        apply_scores(data, written(path, [*rows, rows[4]]))
    with pytest.raises(UsageError, match=r"lacks 28 of 30 windows \(.*\.\.\.\)"):
        apply_scores(data, written(path, rows[:2]))
    missing = rows[7]["window"]
    with pytest.raises(UsageError, match=rf"lacks 1 of 30 windows \({missing}\)"):
        apply_scores(data, written(path, rows[:7] + rows[8:]))


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\x89PNG\r\n\x1a\n\x00\x00", b"window\n"])
def test_another_file_is_no_table_of_scores(data: Dataset, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "scores.csv"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="must name the columns window, cell, raw_index"):
        apply_scores(data, path)


def test_a_table_that_is_not_there_cannot_be_read(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"scores\.csv cannot be read"):
        apply_scores(data, tmp_path / "scores.csv")


def test_drawing_again_does_not_lose_edited_scores(data: Dataset, tmp_path: Path) -> None:
    draw_sheets(data, tmp_path)
    table = tmp_path / "scores.csv"
    edited = rows_of(table)
    edited[5]["score"] = str((int(edited[5]["score"]) + 1) % 3)
    written(table, edited)
    before = table.read_bytes()
    with pytest.raises(UsageError, match="holds scores that the dataset lacks: apply them first"):
        draw_sheets(data, tmp_path)
    assert table.read_bytes() == before
    after = apply_scores(data, table)
    draw_sheets(after, tmp_path)  # nothing is lost now
    np.testing.assert_array_equal(apply_scores(after, table).scores, after.scores)
    with pytest.raises(UsageError, match="holds scores that the dataset lacks"):
        draw_sheets(data[3:], tmp_path)


# One by one --------------------------------------------------------------------------------------


def pressed(session: ScoringSession, keys: str) -> ScoringSession:
    names = {"<": "left", ">": "right"}
    for key in keys:
        session = session.press(names.get(key, key))
    return session


def test_a_session_begins_at_the_first_window_that_nobody_has_scored(data: Dataset) -> None:
    session = begin_scoring(data)
    assert data.scores[session.window] == EXCLUDED
    again = begin_scoring(pressed(session, "101").result())
    assert again.at == 3
    assert again.window == session.order[3]
    assert begin_scoring(data, ["noise"]).at == 0


def test_a_score_goes_to_the_window_shown_and_the_next_one_follows(data: Dataset) -> None:
    session = begin_scoring(data)
    after = pressed(session, "102")
    assert after.at == 3
    assert after.result().scores[session.order[:3]].tolist() == [1, 0, 2]
    others = np.setdiff1d(np.arange(30), session.order[:3])
    np.testing.assert_array_equal(after.result().scores[others], data.scores[others])
    assert data.scores[session.order[0]] == EXCLUDED  # the dataset itself stays as it was


def test_moving_changes_no_score_and_stops_at_the_ends(data: Dataset) -> None:
    session = begin_scoring(data)
    assert pressed(session, "<").at == 0
    assert pressed(session, ">><").at == 1
    assert pressed(session, ">" * 99).at == 29
    assert pressed(session, "<>" * 9).result() is data
    assert pressed(session, ">" * 99 + "1").at == 29


def test_undo_takes_back_scores_one_after_the_other(data: Dataset) -> None:
    session = begin_scoring(data)
    after = pressed(session, "1>0u")
    assert after.at == 2
    assert after.result().scores[session.order[[0, 2]]].tolist() == [1, EXCLUDED]
    everything = pressed(after, "uuuu")
    assert everything.at == 0
    assert everything.result() is data


def test_keys_without_a_meaning_do_nothing_and_q_ends(data: Dataset) -> None:
    session = begin_scoring(data)
    for key in ("3", "x", "enter", "ctrl+1", "", None):
        assert session.press(key) is session
    assert session.press("q").ended
    assert session.press("escape").ended


def test_many_keys_at_random_are_what_a_plain_list_says(data: Dataset) -> None:
    rng = np.random.default_rng(5)
    keys = rng.choice(list("012<>u"), 400)
    session = begin_scoring(data)
    scores, at, history = data.scores.tolist(), session.at, []
    for key in keys:
        if key in "012":
            history.append((at, scores[session.order[at]]))
            scores[session.order[at]] = int(key)
            at = min(at + 1, 29)
        elif key == "u" and history:
            at, before = history.pop()
            scores[session.order[at]] = before
        elif key in "<>":
            at = min(max(at + (1 if key == ">" else -1), 0), 29)
    after = pressed(session, "".join(keys))
    assert after.result().scores.tolist() == scores
    assert after.at == at


# On the screen -----------------------------------------------------------------------------------


class Desk:
    """A figure without a screen, whose keys are pressed by the test."""

    def __init__(self, data: Dataset, save: Callable[[Dataset], None] | None = None) -> None:
        self.saved: list[Dataset] = []
        self.closed = False
        self.figure = Figure()
        self.canvas = FigureCanvasAgg(self.figure)
        self.screen = score._Screen(
            self.figure, begin_scoring(data), save or self.saved.append, self.close
        )

    def close(self) -> None:
        self.closed = True

    def press(self, keys: str) -> None:
        for key in keys:
            event = KeyEvent("key_press_event", self.canvas, {"<": "left"}.get(key, key))
            self.canvas.callbacks.process("key_press_event", event)

    def texts(self) -> str:
        return " | ".join(text.get_text() for text in self.figure.texts)


def test_the_screen_shows_the_window_its_number_and_its_score(data: Dataset) -> None:
    desk = Desk(data)
    first = begin_scoring(data).window
    assert f"1 of 30: window {first} of {data.cells[first]}, unclear" in desk.texts()
    assert "2 left out" in desk.texts()
    lines = desk.figure.axes[0].get_lines()
    np.testing.assert_array_equal(lines[0].get_ydata(), data.windows[first])
    desk.press("1")
    assert "2 of 30" in desk.texts()
    desk.press("<")
    assert "1 event" in desk.texts()
    desk.canvas.draw()
    assert not desk.closed


def test_scores_are_saved_every_ten_and_at_the_end(data: Dataset) -> None:
    desk = Desk(data)
    desk.press("0" * 9)
    assert not desk.saved
    desk.press("0")
    assert len(desk.saved) == 1
    desk.press("0" * 4 + "q")
    assert desk.closed
    result = desk.screen.finish()
    assert len(desk.saved) == 2
    np.testing.assert_array_equal(desk.saved[-1].scores, result.scores)
    assert result.scores[begin_scoring(data).order[:14]].tolist() == [0] * 14
    assert result.provenance == {"seed": 3, "scored": "one by one"}


def test_nothing_new_is_not_saved(data: Dataset) -> None:
    desk = Desk(data)
    desk.press("0u<<q")
    assert desk.screen.finish() is data
    assert desk.saved == []


def test_where_saving_fails_the_session_ends_and_says_so(data: Dataset) -> None:
    def full(_: Dataset) -> None:
        raise SaveError("the disk is full")

    desk = Desk(data, full)
    desk.press("0" * 10)
    assert desk.closed
    with pytest.raises(SaveError, match="the disk is full"):
        desk.screen.finish()


def test_without_a_screen_the_sheets_are_named(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib import pyplot

    monkeypatch.setattr(pyplot, "figure", _agg_figure(pyplot))
    with pytest.raises(UsageError, match=r"no screen.*draw sheets"):
        score_interactively(data, lambda _: None)
    assert pyplot.get_fignums() == []

    def broken(*_: object, **__: object) -> None:
        raise ImportError("Cannot load backend 'TkAgg'")

    monkeypatch.setattr(pyplot, "figure", broken)
    with pytest.raises(UsageError, match=r"no screen.*draw sheets"):
        score_interactively(data, lambda _: None)


def _agg_figure(pyplot: Any) -> Callable[..., Any]:
    """pyplot.figure as it is without a screen, wherever the tests run."""
    pyplot.switch_backend("agg")
    real: Callable[..., Any] = pyplot.figure
    return real


def test_a_whole_session_on_a_screen(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib import pyplot

    monkeypatch.setattr(pyplot, "figure", _agg_figure(pyplot))
    monkeypatch.setattr(FigureCanvasAgg, "required_interactive_framework", "toolkit")

    def user(*, block: bool) -> None:
        assert block
        canvas = pyplot.gcf().canvas
        for key in ("1", "0", "q"):
            canvas.callbacks.process("key_press_event", KeyEvent("key_press_event", canvas, key))

    monkeypatch.setattr(pyplot, "show", user)
    saved: list[Dataset] = []
    after = score_interactively(data, saved.append)
    order = begin_scoring(data).order
    assert after.scores[order[:2]].tolist() == [1, 0]
    assert len(saved) == 1
    assert pyplot.get_fignums() == []

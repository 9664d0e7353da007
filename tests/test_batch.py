"""Batches: the results of one by one, tables of the lot, and nothing done twice or lost."""

from __future__ import annotations

import csv
import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from lots import Here, abf_recording, done_in, half_written, results_in, write_lot
from quantal import batch, commands, load_events, load_model
from quantal.claims import claimed
from quantal.cli import main
from quantal.commands import DetectJob
from quantal.detect import settle
from quantal.errors import ReadError
from quantal.events import COLUMNS
from quantal.lot import Entry, find_recordings

PROGRAM = [sys.executable, "-c", "from quantal.cli import main; main()"]


def run(*arguments: object) -> Result:
    """One command, with stdout and stderr apart."""
    return CliRunner().invoke(main, [str(a) for a in arguments])


def rows_of(path: Path) -> list[dict[str, str]]:
    """A table as rows by column."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No processes are started and no pictures drawn."""

    @contextmanager
    def here(workers: int) -> Iterator[Executor]:
        assert workers >= 1
        yield Here()

    def no_picture(_traces: object, _events: object, path: Path, **_: object) -> None:
        path.write_bytes(b"\x89PNG")

    monkeypatch.setattr(batch, "processes", here)
    monkeypatch.setattr(commands, "draw_report", no_picture)
    monkeypatch.setattr(batch, "_PATIENCE_S", 0.05)


@pytest.fixture(scope="module")
def lot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four recordings, one of them silent, and two that are broken."""
    folder = tmp_path_factory.mktemp("lot")
    write_lot(folder, 3, broken=2)
    (folder / "wt" / "silent.abf").write_bytes(abf_recording(7, frequency_hz=0))
    return folder


@pytest.fixture
def own_lot(lot: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(lot, tmp_path / "lot"))


def test_the_results_are_those_of_one_by_one(lot: Path, tmp_path: Path) -> None:
    result = run("batch", lot, "--out", tmp_path / "batch", "--workers", 2, "--json")
    assert result.exit_code == 4, result.output
    together = results_in(tmp_path / "batch")
    assert json.loads(result.stdout)["searched"] == 6
    paths = [*lot.rglob("cell*.abf"), lot / "wt" / "silent.abf"]
    for path in paths:
        place = tmp_path / "single" / path.parent.relative_to(lot)
        assert run("detect", path, "--out", place, "--quiet").exit_code == 0
    single = results_in(tmp_path / "single")
    assert len(single) == 3 * len(paths)
    tables = {"events.csv", "recordings.csv", "batch.json"}
    assert set(together) - set(single) == tables
    for name, content in single.items():
        assert together[name] == content, name


@pytest.mark.usefixtures("quick")
def test_the_tables_have_every_recording_and_every_event(lot: Path, tmp_path: Path) -> None:
    result = run("batch", lot, "--out", tmp_path, "--quiet")
    assert result.exit_code == 4, result.output
    assert result.stdout == ""
    rows = {row["file"]: row for row in rows_of(tmp_path / "recordings.csv")}
    assert len(rows) == 6
    assert [name for name, row in rows.items() if row["status"] == "failed"] == [
        "ko/broken001.abf",
        "wt/broken000.abf",
    ]
    assert "is empty" in rows["ko/broken001.abf"]["reason"]
    assert rows["ko/broken001.abf"]["events"] == ""
    assert "ko/broken001.abf" in result.stderr
    silent = rows["wt/silent.abf"]
    assert (silent["status"], silent["events"], silent["frequency_hz"]) == ("done", "0", "0")
    assert silent["amplitude_median"] == ""
    assert not any(name.startswith(("negative", "positive")) for name in silent)
    events = rows_of(tmp_path / "events.csv")
    assert list(events[0]) == ["file", "group", *COLUMNS]
    for path in sorted(lot.rglob("cell*.abf")):
        name = path.relative_to(lot)
        own = rows_of(tmp_path / name.with_suffix(".events.csv"))
        group = {"file": name.as_posix(), "group": name.parts[0]}
        assert own
        assert [row for row in events if row["file"] == name.as_posix()] == [
            {**group, **row} for row in own
        ]
        summary = json.loads((tmp_path / name.with_suffix(".summary.json")).read_text())
        row = rows[name.as_posix()]
        assert row["group"] == name.parts[0]
        assert int(row["events"]) == summary["events"] == len(own)
        assert float(row["amplitude_median"]) == pytest.approx(summary["amplitude"]["median"])
        assert float(row["frequency_hz"]) == pytest.approx(summary["frequency_hz"])
        assert float(row["rate_hz"]) == 20_000
    assert len(events) == sum(int(row["events"] or 0) for row in rows.values())
    report = json.loads((tmp_path / "batch.json").read_text())
    assert report["groups"] == {"ko": 1, "wt": 3}  # without those that failed
    assert report["not_in_this_batch"] == []
    assert [one["file"] for one in report["failed"]] == ["ko/broken001.abf", "wt/broken000.abf"]
    assert not (tmp_path / ".quantal-batch").exists()


def searched(*arguments: object) -> int:
    """How many recordings a batch did not find done."""
    result = run("batch", *arguments, "--json")
    assert result.exit_code in (0, 4), result.output
    number: int = json.loads(result.stdout)["searched"]
    return number


@pytest.mark.usefixtures("quick")
def test_what_is_done_is_passed_over_and_what_changed_is_done_again(
    own_lot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for broken in own_lot.rglob("broken*"):
        broken.unlink()
    call = (own_lot, "--out", tmp_path / "out")
    assert searched(*call) == 4
    before = results_in(tmp_path / "out")
    assert searched(*call) == 0
    assert searched(*call, "--threads", 1) == searched(*call, "--workers", 1) == 0
    assert results_in(tmp_path / "out") == before
    monkeypatch.chdir(own_lot.parent)
    assert searched("lot", "--out", "out") == 0

    (own_lot / "wt" / "silent.abf").write_bytes(abf_recording(8))
    assert searched(*call) == 1
    (own_lot / "wt" / "new.abf").write_bytes(abf_recording(9))
    assert searched(*call) == 1
    (tmp_path / "out" / "wt" / "new.png").unlink()
    assert searched(*call) == 1
    (tmp_path / "out" / "wt" / "new.summary.json").write_text('{"settings_sha256": ')
    assert searched(*call) == 1
    assert searched(*call, "--threshold", 0.6) == 5
    assert searched(*call, "--threshold", 0.6, "--format", "csv,h5") == 5
    assert searched(*call, "--threshold", 0.6, "--format", "h5,csv") == 0
    monkeypatch.setattr(commands, "__version__", "9.9")
    monkeypatch.setattr(batch, "__version__", "9.9")
    assert searched(*call, "--threshold", 0.6, "--format", "h5,csv") == 5


@pytest.mark.usefixtures("quick")
def test_another_model_of_the_same_name_is_another_setting() -> None:
    model = load_model()
    other = replace(model, card=replace(model.card, graphs={"model.onnx": "0" * 64}))
    said = replace(model, card=replace(model.card, licence="other", test_scores=[]))
    jobs = [
        DetectJob(recordings=(), source=one, settings=settle(one), out=Path())
        for one in (model, other, said)
    ]
    first, second, third = (job.fingerprint() for job in jobs)
    assert first != second
    assert first == third


@pytest.mark.usefixtures("quick")
def test_what_detect_has_done_is_done(own_lot: Path, tmp_path: Path) -> None:
    done = own_lot / "wt" / "silent.abf"
    assert run("detect", done, "--out", tmp_path / "out" / "wt").exit_code == 0
    assert searched(own_lot, "--out", tmp_path / "out") == 5


@pytest.mark.usefixtures("quick")
def test_no_result_of_any_kind_is_searched(tmp_path: Path) -> None:
    (tmp_path / "cell.abf").write_bytes(abf_recording(3))
    everything = ("--format", ",".join(commands._FORMATS), "--fit", "--save-scores")
    for _ in range(2):
        result = run("batch", tmp_path, "--out", tmp_path / "results", *everything, "--json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["recordings"] == 1
    written = {path.suffix for path in (tmp_path / "results").iterdir()}
    assert {".csv", ".h5", ".parquet", ".xlsx", ".nwb", ".png", ".json"} <= written


@pytest.mark.usefixtures("quick")
def test_events_that_were_rejected_by_hand_stay_rejected(own_lot: Path, tmp_path: Path) -> None:
    run("batch", own_lot, "--out", tmp_path)
    before = {row["file"]: row for row in rows_of(tmp_path / "recordings.csv")}
    name = "wt/day0/cell000"
    table = tmp_path / f"{name}.events.csv"
    lines = table.read_text().splitlines()
    lines[1] = lines[1].replace(",found", ",Rejected ")
    table.write_text("\n".join(lines) + "\n")
    assert searched(own_lot, "--out", tmp_path) == 2  # those that fail
    after = {row["file"]: row for row in rows_of(tmp_path / "recordings.csv")}
    one = f"{name}.abf"
    assert int(after[one]["events"]) == int(before[one]["events"]) - 1
    assert after[one]["rejected"] == "1"
    assert after[one]["frequency_hz"] != before[one]["frequency_hz"]
    statuses = [row["status"] for row in rows_of(tmp_path / "events.csv") if row["file"] == one]
    assert statuses.count("rejected") == 1
    table.write_text("not a table\n")
    result = run("batch", own_lot, "--out", tmp_path)
    assert f"error: {one}: {table} cannot be read as a table of events" in result.stderr
    assert result.stderr.count("error: ") == 3
    assert "6 recordings, 3 of them done before, 3 failed" in result.stdout
    after = {row["file"]: row for row in rows_of(tmp_path / "recordings.csv")}
    assert after[one]["status"] == "failed"
    assert "lacks the columns" in after[one]["reason"]


@pytest.mark.usefixtures("quick")
def test_an_unforeseen_error_is_the_trouble_of_its_own_recording(
    lot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = commands.read_all_told

    def read(path: Path, **options: Any) -> Any:
        if path.name == "silent.abf":
            raise MemoryError("too much")
        return whole(path, **options)

    monkeypatch.setattr(commands, "read_all_told", read)
    result = run("batch", lot / "wt", "--out", tmp_path, "--quiet")
    assert result.exit_code == 4
    rows = {row["file"]: row for row in rows_of(tmp_path / "recordings.csv")}
    assert rows["silent.abf"]["reason"] == "MemoryError: too much"
    assert rows["day0/cell000.abf"]["status"] == "done"


@pytest.mark.usefixtures("quick")
def test_a_recording_that_kills_its_process_twice_is_listed(
    lot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    class Deadly(Here):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            tried.append(args[0].file)
            if args[0].file != "silent.abf":
                return super().submit(fn, *args, **kwargs)
            future: Future[Any] = Future()
            future.set_exception(BrokenProcessPool("gone"))
            return future

    monkeypatch.setattr(batch, "processes", lambda _: nullcontext(Deadly()))
    result = run("batch", lot / "wt", "--out", tmp_path, "--quiet")
    assert result.exit_code == 4
    rows = {row["file"]: row for row in rows_of(tmp_path / "recordings.csv")}
    assert "the process that searched it died, twice" in rows["silent.abf"]["reason"]
    assert rows["day0/cell000.abf"]["status"] == "done"
    assert sorted(tried) == sorted([*rows, "silent.abf"])


@pytest.mark.usefixtures("quick")
def test_ctrl_c_loses_nothing(lot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, calls = batch.search, []

    def interrupted(*arguments: Any) -> batch.Outcome:
        calls.append(arguments)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return work(*arguments)

    monkeypatch.setattr(batch, "search", interrupted)
    result = run("batch", lot, "--out", tmp_path)
    assert result.exit_code == 130
    assert "goes on from here" in result.stderr
    assert not (tmp_path / "recordings.csv").exists()
    assert searched(lot, "--out", tmp_path) == 6 - 2  # of four that were looked at two are broken


@pytest.mark.usefixtures("quick")
def test_a_recording_that_another_run_has_is_waited_for(own_lot: Path, tmp_path: Path) -> None:
    taken, free = threading.Event(), threading.Event()

    def other() -> None:
        with claimed(tmp_path / "out", "wt/silent") as desk:
            assert desk is not None
            taken.set()
            free.wait(20)

    thread = threading.Thread(target=other)
    thread.start()
    taken.wait(20)
    threading.Timer(1.0, free.set).start()
    result = run("batch", own_lot, "--out", tmp_path / "out", "--quiet")
    assert free.is_set()
    thread.join()
    assert result.exit_code == 4
    rows = {row["file"]: row["status"] for row in rows_of(tmp_path / "out" / "recordings.csv")}
    assert rows["wt/silent.abf"] == "done"


@pytest.mark.usefixtures("quick")
def test_results_of_other_settings_are_not_mixed_in(
    lot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("batch", lot, "--out", tmp_path / "other", "--threshold", 0.9)
    tables = batch.Batch._write_tables

    def meanwhile(self: batch.Batch, *arguments: Any) -> dict[str, Any]:
        shutil.copytree(tmp_path / "other" / "wt", tmp_path / "out" / "wt", dirs_exist_ok=True)
        return tables(self, *arguments)

    monkeypatch.setattr(batch.Batch, "_write_tables", meanwhile)
    result = run("batch", lot, "--out", tmp_path / "out", "--quiet")
    assert result.exit_code == 4
    rows = {row["file"]: row for row in rows_of(tmp_path / "out" / "recordings.csv")}
    assert "results of other settings" in rows["wt/silent.abf"]["reason"]
    assert rows["ko/day0/cell001.abf"]["status"] == "done"


@pytest.mark.usefixtures("quick")
def test_a_recording_that_changes_meanwhile_is_said_to(
    lot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_lot = Path(shutil.copytree(lot / "wt", tmp_path / "wt"))
    tables, search = batch.Batch._write_tables, DetectJob._search

    def grow(self: DetectJob, path: Path, traces: Any) -> Any:
        if path.name == "cell000.abf":
            path.write_bytes(path.read_bytes() + bytes(512))
        return search(self, path, traces)

    def later(self: batch.Batch, *arguments: Any) -> dict[str, Any]:
        os.utime(own_lot / "silent.abf", (1, 1))
        return tables(self, *arguments)

    monkeypatch.setattr(DetectJob, "_search", grow)
    monkeypatch.setattr(batch.Batch, "_write_tables", later)
    result = run("batch", own_lot, "--out", tmp_path / "out", "--quiet")
    assert result.exit_code == 4
    rows = {row["file"]: row for row in rows_of(tmp_path / "out" / "recordings.csv")}
    for name in ("day0/cell000.abf", "silent.abf"):
        assert "it changed while it was searched" in rows[name]["reason"]
    assert "cell000.abf: it changed" in result.stderr


@pytest.mark.usefixtures("quick")
def test_both_directions_have_columns_of_their_own(lot: Path, tmp_path: Path) -> None:
    run("batch", lot / "ko", "--out", tmp_path, "--direction", "both")
    row = rows_of(tmp_path / "recordings.csv")[-1]
    assert row["file"] == "day0/cell001.abf"
    events = load_events(tmp_path / "day0" / "cell001.events.csv")
    inward = events[events.polarity < 0]
    assert int(row["negative_events"]) == len(inward) > 0
    assert int(row["positive_events"]) == len(events) - len(inward)
    assert float(row["negative_amplitude_median"]) == pytest.approx(np.median(inward.amplitude))


@pytest.mark.usefixtures("quick")
def test_parquet_holds_what_csv_holds(lot: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra [tables]")
    run("batch", lot, "--out", tmp_path)
    texts = {name: rows_of(tmp_path / f"{name}.csv") for name in ("events", "recordings")}
    run("batch", lot, "--out", tmp_path, "--tables", "parquet")
    assert not list(tmp_path.glob("*.csv"))  # what is older must not be taken for the latest
    for name, rows in texts.items():
        table = parquet.read_table(tmp_path / f"{name}.parquet").to_pylist()
        assert [list(row) for row in table] == [list(row) for row in rows]
        for new, old in zip(table, rows, strict=True):
            for column, text in old.items():
                value = new[column]
                if isinstance(value, str | bool) or value is None:
                    assert str("" if value is None else value).lower() == text.lower()
                else:
                    assert value == pytest.approx(float(text))


@pytest.mark.usefixtures("quick")
def test_a_list_says_which_and_in_what_groups(lot: Path, tmp_path: Path) -> None:
    table = tmp_path / "cells.csv"
    table.write_text(
        f"file,group,animal\n{lot}/wt/silent.abf,control,m1\n{lot}/ko/day0/cell001.abf,drug,m2\n"
        f"{lot}/none.abf,drug,m2\n"
    )
    result = run("batch", table, "--out", tmp_path / "out", "--quiet")
    assert result.exit_code == 4
    rows = rows_of(tmp_path / "out" / "recordings.csv")
    assert [(row["group"], row["animal"], row["status"]) for row in rows] == [
        ("drug", "m2", "done"),
        ("drug", "m2", "failed"),
        ("control", "m1", "done"),
    ]
    result = run("batch", table, "--out", tmp_path / "out", "--group", "animal", "--quiet")
    assert {row["group"] for row in rows_of(tmp_path / "out" / "recordings.csv")} == {"m1", "m2"}
    table.write_text(f"file,unit\n{lot}/wt/silent.abf,pA\n")
    result = run("batch", table, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "rename them" in result.stderr


@pytest.mark.usefixtures("quick")
def test_a_folder_that_cannot_be_entered_has_failed(
    lot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def no_scandir(path: Any = ".") -> Any:
        if str(path) == str(lot / "ko"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", no_scandir)
    result = run("batch", lot / "wt" / "silent.abf", lot / "ko", "--out", tmp_path)
    assert result.exit_code == 4
    assert "error: ko/: this folder cannot be entered" in result.stderr
    assert "2 recordings, 0 of them done before, 1 failed" in result.stdout
    rows = {row["file"]: row for row in rows_of(tmp_path / "recordings.csv")}
    assert (rows["ko/"]["status"], rows["wt/silent.abf"]["status"]) == ("failed", "done")
    result = run("batch", lot / "ko", "--out", tmp_path / "none")
    assert (result.exit_code, "ko: this folder cannot be entered" in result.stderr) == (3, True)
    assert not (tmp_path / "none").exists()


@pytest.mark.usefixtures("quick")
def test_results_of_what_is_not_there_any_more_are_told_and_stay(
    own_lot: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert "not in this batch" not in run("batch", own_lot, "--out", out).stdout
    run("batch", own_lot / "ko", "--out", out / "nested")  # a batch of its own
    (own_lot / "wt" / "silent.abf").unlink()
    (own_lot / "wt" / "day0" / "cell000.abf").rename(own_lot / "wt" / "renamed.abf")
    for broken in own_lot.glob("wt/broken*"):
        broken.unlink()
    result = run("batch", own_lot, "--out", out)
    assert "results of 2 recordings that are not in this batch lie there too" in result.stdout
    report = json.loads((out / "batch.json").read_text())
    assert report["not_in_this_batch"] == ["wt/day0/cell000", "wt/silent"]
    assert report["groups"] == {"ko": 1, "wt": 2}
    assert (out / "wt" / "silent.events.csv").exists()
    (own_lot / "ko" / "day0" / "cell001.abf").write_bytes(b"")  # what fails has results of before
    report = json.loads(run("batch", own_lot, "--out", out, "--json").stdout)
    assert report["not_in_this_batch"] == ["wt/day0/cell000", "wt/silent"]
    assert report["groups"] == {"ko": 0, "wt": 2}


# Settings in a file


@pytest.mark.usefixtures("quick")
def test_a_file_holds_settings_and_options_win(lot: Path, tmp_path: Path) -> None:
    config = tmp_path / "batch.toml"
    config.write_text(
        f'recordings = "{lot}/wt"\nout = "{tmp_path}/out"\nthreshold = 0.7\nwindow_ms = 20\n'
        'exclude-s = ["0.1-0.2"]\nsave_scores = true\nformat = "csv"\nworkers = 1\n'
    )
    result = run("batch", "--config", config, "--threshold", 0.6, "--json")
    assert result.exit_code == 4, result.output
    settings = json.loads(result.stdout)["settings"]
    assert settings["threshold"] == 0.6
    assert settings["excluded_s"] == [[0.1, 0.2]]
    assert settings["window_ms"] == 20
    assert (tmp_path / "out" / "silent.scores.h5").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('direktion = "both"', "sets 'direktion', which is not known; allowed are channel, dask"),
        ("threshold = ", "cannot be read as settings"),
        (f"threshold = 0x{'f' * 4_000}", "cannot be read as settings"),
        ("[detect]\nthreshold = 0.5", "sets 'detect', which is not known"),
        ("threshold = [0.5]", "threshold takes one value"),
        ("exclude-s = [[0.1, 0.2]]", "exclude-s takes one value"),
        ('threshold = "high"', "'high' is not a valid float"),
        ('direction = "up"', "'up' is not one of"),
        ("workers = 0", "--workers must be 1 or more"),
        ('exclude-s = "3"', "--exclude-s takes two times"),
        ('config = "other.toml"', "sets 'config', which is not known"),
        ("quiet = 99999999999", "quiet takes true or false, got 99999999999"),
        ("unit = true", "unit takes a number or text, got True"),
        ("threads = 1e999", "'inf' is not a valid int"),
    ],
)
def test_what_is_wrong_with_settings_is_said(
    lot: Path, tmp_path: Path, text: str, words: str
) -> None:
    config = tmp_path / "batch.toml"
    config.write_text(text)
    result = run("batch", lot, "--config", config, "--out", tmp_path / "out")
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, "name a folder"),
        (("nowhere",), 3, "there is no folder, list or recording nowhere"),
        ((".", "--workers", 2, "--dask", "tcp://127.0.0.1:1"), 2, "leave out --workers"),
        ((".", "--config", "nowhere.toml"), 2, "cannot be read as settings"),
        ((".", "--model", "nonsense"), 2, "there is no model 'nonsense'"),
        ((".", "--tables", "xlsx"), 2, "'xlsx' is not one of"),
    ],
)
def test_what_is_wrong_with_the_call_is_said(
    lot: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[Any, ...], code: int, words: str
) -> None:
    monkeypatch.chdir(lot)
    result = run("batch", *arguments)
    assert result.exit_code == code, result.output
    assert words in result.stderr
    assert not (lot / "quantal-batch").exists()


# Workers elsewhere


def a_job(out: Path) -> tuple[DetectJob, Entry]:
    """A job with the default model, and a recording that is not there."""
    model = load_model()
    job = DetectJob(recordings=(), source=model, settings=settle(model), out=out, progress=False)
    return job, Entry(path=out / "x.abf", file="x.abf", place=".")


def test_what_is_sent_to_workers_is_small_and_means_the_same(tmp_path: Path) -> None:
    job, _ = a_job(tmp_path)
    light = batch._light(job)
    sent = pickle.dumps(light)
    assert len(sent) < 10_000
    assert pickle.loads(sent).fingerprint() == job.fingerprint()


def test_a_worker_with_another_version_or_model_says_so(tmp_path: Path) -> None:
    job, entry = a_job(tmp_path)
    assert "the batch 0.0" in batch.search(job, "0.0", entry).reason
    card = replace(job.source.card, graphs={"model.onnx": "0" * 64})
    other = replace(job, source=replace(job.source, card=card))
    assert "is another model than" in batch.search(other, batch.__version__, entry).reason
    away = replace(job, source=replace(job.source, folder=tmp_path / "not here"))
    outcome = batch.search(away, batch.__version__, entry)
    assert "x.abf does not exist" in outcome.reason  # the model was found by its name
    assert list(tmp_path.iterdir()) in ([], [tmp_path / ".quantal-batch"])


def test_results_that_cannot_be_written_are_said(lot: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file in the way")
    result = run("batch", lot / "ko", "--out", tmp_path / "out", "--workers", 1)
    assert result.exit_code == 3
    assert "cannot be written" in result.stderr


def test_a_list_that_cannot_be_read_is_an_error_before_all(tmp_path: Path) -> None:
    with pytest.raises(ReadError):
        find_recordings([str(tmp_path / "cells.csv")])


# Killed in the middle


@contextmanager
def started(*arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """A program in a session of its own, which is gone at the end."""
    process = subprocess.Popen(
        [str(a) for a in arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_until(what: Any, seconds: float = 120) -> None:
    """Until something is true."""
    stop = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < stop, "it took too long"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_batch_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    lot, out = tmp_path / "lot", tmp_path / "out"
    write_lot(lot, 30, broken=2)
    call = [*PROGRAM, "batch", str(lot), "--quiet", "--workers", "2", "--out"]
    assert subprocess.run([*call, str(tmp_path / "whole")], check=False).returncode == 4
    whole = results_in(tmp_path / "whole")
    rng = np.random.default_rng(int(time.time()))
    for kill in range(3):
        before = len(done_in(out))
        with started(*call, out) as process:
            wait_until(lambda before=before: len(done_in(out)) > before)
            time.sleep(rng.uniform(0, 0.4))
            assert process.poll() is None  # it is killed with work left
            if kill == 1:
                os.killpg(process.pid, signal.SIGKILL)  # the workers too
        assert half_written(out) == []
    assert subprocess.run([*call, str(out)], check=False).returncode == 4
    assert results_in(out) == whole
    assert len(rows_of(out / "recordings.csv")) == 32


@pytest.mark.slow
def test_two_runs_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    lot, out = tmp_path / "lot", tmp_path / "out"
    write_lot(lot, 8, broken=1)
    call = [*PROGRAM, "batch", lot, "--quiet", "--workers", "1", "--out"]
    with started(*call, out) as first, started(*call, out) as second:
        assert first.wait(300) == second.wait(300) == 4
    with started(*call, tmp_path / "alone") as alone:
        assert alone.wait(300) == 4
    assert results_in(out) == results_in(tmp_path / "alone")


@pytest.mark.slow
def test_a_dask_worker_that_is_killed_changes_nothing(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="needs the extra [dask]")
    lot, out, file = tmp_path / "lot", tmp_path / "out", tmp_path / "scheduler.json"
    write_lot(lot, 10, broken=1)
    scheduler = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1"]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", file]
    with started(*scheduler, "--port", 0, "--no-dashboard", "--scheduler-file", file):
        wait_until(file.exists)
        address = json.loads(file.read_text())["address"]
        one = [*worker, "--nthreads", 1, "--no-nanny", "--no-dashboard"]
        with (
            started(*one, "--local-directory", tmp_path / "a") as first,
            started(*one, "--local-directory", tmp_path / "b"),
            started(*PROGRAM, "batch", lot, "--quiet", "--out", out, "--dask", address) as run_,
        ):
            wait_until(lambda: len(done_in(out)) >= 2)
            first.kill()
            assert len(done_in(out)) < 10
            assert run_.wait(300) == 4
    with started(*PROGRAM, "batch", lot, "--quiet", "--out", tmp_path / "here") as alone:
        assert alone.wait(300) == 4
    assert results_in(out) == results_in(tmp_path / "here")

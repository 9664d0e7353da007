"""The command line as a user meets it: files, messages, exit codes."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result

from quantal import Trace, load_events
from quantal.cli import main
from quantal.commands import _suspicions
from quantal.events import COLUMNS
from quantal.readers import Reading
from quantal.simulate import Truth, matched, simulate_recording


def run(*arguments: object) -> Result:
    """One command, with stdout and stderr apart."""
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Truth]:
    """Five seconds with clear events, as a file that states its rate and unit."""
    trace, truth = simulate_recording(seconds=5, frequency_hz=4, amplitude=-20, seed=3)
    path = tmp_path_factory.mktemp("recorded") / "cell 1.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("current", data=trace.samples)
        data.attrs.update({"rate_hz": trace.rate_hz, "unit": trace.unit})
    return path, truth


def noise(path: Path, seconds: float = 1.0, rate_hz: float = 20_000.0) -> Path:
    """A recording without events."""
    samples = np.random.default_rng(0).normal(-20, 1, int(seconds * rate_hz))
    np.save(path, samples.astype(np.float32))
    return path


def test_without_its_picture_a_recording_has_the_same_events(
    recorded: tuple[Path, Truth], tmp_path: Path
) -> None:
    path, _ = recorded
    with_it = run("detect", path, "--out", tmp_path / "with", "--quiet")
    without = run("detect", path, "--out", tmp_path / "without", "--quiet", "--no-picture")
    assert (with_it.exit_code, without.exit_code) == (0, 0)
    names = {file.name for file in (tmp_path / "without").iterdir()}
    assert names == {"cell 1.events.csv", "cell 1.summary.json"}
    table = (tmp_path / "without" / "cell 1.events.csv").read_bytes()
    assert table == (tmp_path / "with" / "cell 1.events.csv").read_bytes()


def test_detect_writes_table_summary_and_picture(
    recorded: tuple[Path, Truth], tmp_path: Path
) -> None:
    path, truth = recorded
    result = run("detect", path, "--out", tmp_path, "--format", "csv,h5", "--save-scores")
    assert result.exit_code == 0, result.output
    names = {p.name for p in tmp_path.iterdir()}
    suffixes = ("events.csv", "events.h5", "summary.json", "png", "scores.h5")
    assert names == {f"cell 1.{suffix}" for suffix in suffixes}
    events = load_events(tmp_path / "cell 1.events.csv")
    hits = matched(truth.onset_s, events.location_s, tolerance_s=1.5e-3)
    assert hits >= 0.9 * len(truth.onset_s)
    assert len(events) - hits <= 1
    header = (tmp_path / "cell 1.events.csv").read_text().splitlines()[0]
    assert header == ",".join(COLUMNS)
    assert (tmp_path / "cell 1.png").read_bytes().startswith(b"\x89PNG")


def test_every_format_holds_the_same_events(recorded: tuple[Path, Truth], tmp_path: Path) -> None:
    for module in ("pyarrow", "openpyxl", "pynwb"):
        pytest.importorskip(module, reason=f"needs {module}: pip install it")
    formats = "csv,h5,parquet,xlsx,nwb,miniml"
    result = run("detect", recorded[0], "--out", tmp_path, "--format", formats, "--json")
    assert result.exit_code == 0, result.output
    files = json.loads(result.stdout)["recordings"][0]["files"]
    events = load_events(files["h5"])
    for name in ("csv", "parquet", "xlsx", "nwb"):
        np.testing.assert_allclose(load_events(files[name]).location_s, events.location_s)
    with h5py.File(files["miniml_h5"]) as file:
        assert len(file["events"]) == len(events)
    assert Path(files["miniml_individual"]).name == "cell 1.miniml_individual.csv"


def test_tables_of_other_settings_do_not_stay_behind(
    recorded: tuple[Path, Truth], tmp_path: Path
) -> None:
    def detect(*options: object) -> set[str]:
        done = run("detect", recorded[0], "--out", tmp_path, "--no-picture", "--quiet", *options)
        assert done.exit_code == 0, done.output
        return {path.name.removeprefix("cell 1.") for path in tmp_path.iterdir()}

    (tmp_path / "cell 1.notes.txt").write_text("mine")
    mine = {"notes.txt", "summary.json", "events.csv"}
    assert detect("--format", "h5") == {"notes.txt", "summary.json", "events.h5"}
    assert detect("--format", "csv", "--threads", 1) == {*mine, "events.h5"}  # still true
    assert detect("--format", "csv,h5,parquet") == {*mine, "events.h5", "events.parquet"}
    assert detect("--threshold", 0.9) == mine
    path = tmp_path / "cell 1.summary.json"
    summary = json.loads(path.read_text())
    summary |= {"files": {"more": "cell 1.notes.txt"}, "recording": "cell 1.abf"}
    path.write_text(json.dumps(summary))
    assert detect("--threshold", 0.8) == mine  # what another recording has written is not touched
    path.write_text('{"recording": "cell 1.h5", "files": ["cell 1.notes.txt"]}')
    assert detect() == mine


def test_a_table_too_long_for_a_workbook_costs_no_other_result(
    recorded: tuple[Path, Truth], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quantal.tables._MOST_ROWS", 5)
    for formats in ("csv,xlsx", "xlsx"):  # a CSV takes the place of a workbook that stands alone
        out = tmp_path / formats
        result = run("detect", recorded[0], "--out", out, "--no-picture", "--format", formats)
        assert result.exit_code == 3
        said = "error: cell 1.events.xlsx is not written: a sheet of a workbook holds 5 rows"
        assert said in result.stderr
        names = {path.name for path in out.iterdir()}
        assert names == {"cell 1.events.csv", "cell 1.summary.json"}
        assert len(load_events(out / "cell 1.events.csv")) > 5
    options = ("--no-picture", "--format", "xlsx", "--json")
    result = run("batch", recorded[0], "--out", out, *options)
    assert result.exit_code == 4
    report = json.loads(result.stdout)
    assert (report["recordings"], report["done_before"]) == (1, 0)
    assert "is not written" in report["failed"][0]["reason"]


def test_a_window_that_nobody_gave_is_told(recorded: tuple[Path, Truth], tmp_path: Path) -> None:
    options = ("--out", tmp_path, "--detector", "matched", "--no-picture")
    result = run("detect", recorded[0], *options)
    assert "a window of 12 ms (the method's own, as none was given; --window" in result.stderr
    summary = json.loads((tmp_path / "cell 1.summary.json").read_text())
    assert "none was given" in summary["settings"]["why_window"]
    for given in (("--window-ms", 12), ("--tau-decay-ms", 1)):
        assert "none was given" not in run("detect", recorded[0], *options, *given).stderr


def test_at_a_low_rate_it_is_said_which_window_to_type(tmp_path: Path) -> None:
    path = noise(tmp_path / "slow.npy", seconds=20, rate_hz=1_000)
    options = ("--rate-hz", 1_000, "--unit", "pA", "--out", tmp_path, "--no-picture")
    result = run("detect", path, *options)
    assert (result.exit_code, result.stdout) == (2, "")
    (error,) = result.stderr.splitlines()
    assert error.startswith(f"error: {path}: a window of 12 ms (the usual one of minis) has 12")
    assert "(--window-ms 20) or more" in error
    assert "auto" not in error
    for window in (20, "auto"):
        result = run("detect", path, *options, "--window-ms", window)
        assert result.exit_code == 0, result.stderr
    assert "a window of 20 ms (too few sure events to tell; the shortest" in result.stderr
    summary = json.loads((tmp_path / "slow.summary.json").read_text())
    assert summary["settings"]["window_ms"] == 20


def test_the_channel_is_named(tmp_path: Path) -> None:
    path = tmp_path / "two.csv"
    two = np.random.default_rng(0).normal(0, 1, (2_000, 2))
    np.savetxt(path, two, delimiter=",", header="soma,dendrite", comments="")
    options = ("--rate-hz", 2_000, "--unit", "pA", "--out", tmp_path, "--no-picture")
    assert "two.csv, channel soma:" in run("detect", path, *options).stdout
    both = run("detect", path, *options, "--channel", "all").stdout
    assert "two.csv, channel soma, dendrite:" in both


def test_channels_that_were_not_searched_are_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "many.csv"
    table = np.column_stack([np.arange(4_000) / 20_000, rng.normal(-20, 1, (4_000, 3))])
    header = "time (s),soma (pA),dendrite (pA),room (mV)"
    np.savetxt(path, table, delimiter=",", header=header, comments="")
    options = (path, "--out", tmp_path, "--no-picture")
    note = "2 other channels were not searched: --channel all"
    result = run("detect", *options)
    assert f"many.csv: {note}\n" in result.stderr
    summary = json.loads((tmp_path / "many.summary.json").read_text())
    assert (summary["notes"], summary["left_out"]) == ([note], [])
    for channel in ("soma", 2, "all"):
        result = run("detect", *options, "--channel", channel)
        assert result.exit_code == 0, result.stderr
        assert "not searched" not in result.stderr
        assert json.loads((tmp_path / "many.summary.json").read_text())["notes"] == []
    assert ", in mV and pA -> " in result.stdout
    assert "or all" in run("batch", "--help").output


def test_the_samples_of_each_channel_are_looked_at() -> None:
    samples = np.random.default_rng(0).normal(0, 1, 20_000)
    one = Trace(samples=samples, rate_hz=20_000.0, unit="pA", channel="soma")
    other = Trace(samples=0 * samples, rate_hz=20_000.0, unit="mV", channel="room")
    assert _suspicions([one, one]) == []
    (told,) = _suspicions([one, other])
    assert told.startswith("channel room: all samples are 0 mV")


def test_what_overrules_the_file_is_told(recorded: tuple[Path, Truth], tmp_path: Path) -> None:
    said = ("--rate-hz", 1_000, "--unit", "mV", "--window-ms", 600)
    result = run("detect", recorded[0], "--out", tmp_path, "--no-picture", "--quiet", *said)
    assert result.exit_code == 0, result.stderr
    warnings = json.loads((tmp_path / "cell 1.summary.json").read_text())["warnings"]
    both = ["the file says 50000 Hz; 1000 Hz was taken", "the file says pA; mV was taken"]
    assert warnings[:2] == both
    assert all(f"warning: cell 1.h5: {text}\n" in result.stderr for text in both)
    told = run("info", recorded[0], "--rate-hz", 1_000, "--unit", "mV").output
    assert all(text in told for text in both)
    same = run("info", recorded[0], "--rate-hz", 50_000, "--unit", "pA").output
    assert "was taken" not in same


def test_miniml_s_files_hold_one_channel(recorded: tuple[Path, Truth], tmp_path: Path) -> None:
    result = run("detect", recorded[0], "--out", tmp_path, "--format", "miniml", "--channel", "all")
    assert result.exit_code == 2
    assert "name it with --channel" in result.output


def test_the_summary_echoes_settings_model_device_and_versions(
    recorded: tuple[Path, Truth], tmp_path: Path
) -> None:
    result = run("detect", recorded[0], "--out", tmp_path, "--json", "--threshold", 0.6)
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)["recordings"][0]
    assert summary == json.loads((tmp_path / "cell 1.summary.json").read_text())
    assert summary["settings"]["threshold"] == 0.6
    assert summary["settings"]["stride"] == 10
    assert summary["device"] == "cpu"
    assert len(summary["model"]["sha256"]) == 64
    assert {"quantal", "python", "numpy"} <= set(summary["versions"])
    assert summary["analysed_s"] == pytest.approx(5)
    assert summary["frequency_hz"] == pytest.approx(summary["events"] / 5)


def test_stretches_that_are_excluded_or_cut_hold_no_events(
    recorded: tuple[Path, Truth], tmp_path: Path
) -> None:
    result = run(
        *("detect", recorded[0], "--out", tmp_path, "--json", "--start-s", 1, "--stop-s", 4),
        *("--exclude-s", "2-2.5", "--exclude-s", "2.4-3"),
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["recordings"][0]["analysed_s"] == pytest.approx(2)
    at = load_events(tmp_path / "cell 1.events.csv").location_s
    assert len(at)
    assert ((at >= 1) & (at < 4) & ~((at >= 2) & (at < 3))).all()


def test_times_beyond_the_recording_are_told(recorded: tuple[Path, Truth], tmp_path: Path) -> None:
    beyond = ("--exclude-s", "100-450", "--exclude-s", "1-2", "--stop-s", 450)
    result = run("detect", recorded[0], "--out", tmp_path, "--json", "--quiet", *beyond)
    assert result.exit_code == 0, result.output
    warnings = json.loads(result.stdout)["recordings"][0]["warnings"]
    assert warnings == [
        "nothing is excluded from 100 to 450 s: the recording spans 0 to 5 s, and times are in "
        "seconds",
        "it ends at 5 s, before --stop-s 450; times are in seconds",
    ]
    assert result.stderr.splitlines() == [f"warning: cell 1.h5: {text}" for text in warnings]


def test_sweeps_that_end_before_the_start_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = simulate_recording(seconds=3)[0]
    sweeps = [whole.between(0, 1), replace(whole, sweep=1)]
    found = Reading(traces=sweeps, others=0, overruled=())
    monkeypatch.setattr("quantal.commands.read_all_told", lambda *_, **__: found)
    out = ("--out", tmp_path, "--no-picture")
    result = run("detect", "two.abf", *out, "--start-s", 2, "--exclude-s", "0.1-0.2")
    told = [line for line in result.stderr.splitlines() if line.startswith("warning")]
    assert told == ["warning: two.abf: not searched, ending before --start-s 2: sweep 0."], result


def test_both_polarities_in_one_pass(recorded: tuple[Path, Truth], tmp_path: Path) -> None:
    result = run("detect", recorded[0], "--out", tmp_path, "--direction", "both")
    assert result.exit_code == 0, result.output
    events = load_events(tmp_path / "cell 1.events.csv")
    assert (np.diff(events.location_s) >= 0).all()
    assert (np.sign(events.amplitude) == events.polarity).all()
    assert (events.polarity == -1).mean() > 0.8


def test_no_event_is_a_result(tmp_path: Path) -> None:
    path = noise(tmp_path / "quiet.npy")
    result = run("detect", path, "--rate-hz", 20_000, "--unit", "pA", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    events = load_events(tmp_path / "quiet.events.csv")
    summary = json.loads((tmp_path / "quiet.summary.json").read_text())
    assert len(events) == summary["events"] == 0
    assert summary["frequency_hz"] == 0
    assert (tmp_path / "quiet.png").exists()


def test_a_bad_file_among_good_ones_is_told_and_passed_over(
    recorded: tuple[Path, Truth], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.abf"
    bad.write_bytes(b"ABF2" + bytes(40))
    result = run("detect", bad, recorded[0], "--out", tmp_path, "--json")
    assert result.exit_code == 4
    answer = json.loads(result.stdout)
    assert [e["recording"] for e in answer["errors"]] == [str(bad)]
    assert len(answer["recordings"]) == 1
    assert "bad.abf" in result.stderr


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--window-ms", -1], 2, "window_ms must be a positive number"),
        (["--window-ms", 0.01], 2, "it needs at least 20"),
        (["--window-ms", 9000], 2, "longer than the trace"),
        (["--threshold", 2], 2, "threshold must lie between 0 and 1"),
        (["--stride", 700], 2, "gives a score every 10 samples, got stride 700"),
        (["--model", "cnn-lstm", "--stride", 700], 2, "stride must be 1 to 600 samples"),
        (["--model", "nonsense"], 2, "there is no model 'nonsense'"),
        (["--device", "cuda"], 2, "CUDA cannot be used"),
        (["--exclude-s", "3"], 2, "--exclude-s takes two times"),
        (["--exclude-s", "2-1"], 2, "--exclude-s takes the earlier time first, got '2-1'"),
        (["--format", "doc"], 2, "--format takes csv, h5, parquet"),
        (["--start-s", 99], 2, "nothing lies between"),
        (["--channel", "7"], 3, "channel"),
        (["--sweeps", "3-4"], 3, "sweep"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    recorded: tuple[Path, Truth], tmp_path: Path, options: list[object], code: int, words: str
) -> None:
    result = run("detect", recorded[0], "--out", tmp_path / "out", *options)
    assert result.exit_code == code, result.output
    assert words in result.stderr
    assert result.stderr.startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_a_missing_file_and_a_missing_rate(tmp_path: Path) -> None:
    assert run("detect", tmp_path / "none.abf").exit_code == 3
    path = noise(tmp_path / "quiet.npy")
    result = run("detect", path, "--unit", "pA")
    assert result.exit_code == 3
    assert "--rate-hz" in result.stderr


@pytest.mark.parametrize("name", ["x.npy", "X.npy"])  # which are one to some disks
def test_two_recordings_of_one_name_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "b").mkdir()
    first, second = noise(tmp_path / "x.npy"), noise(tmp_path / "b" / name)
    result = run("detect", first, second, "--rate-hz", 20_000, "--unit", "pA")
    assert result.exit_code == 2
    assert "would write the same files" in result.stderr


@pytest.mark.parametrize("command", ["info", "detect", "rois"])
def test_a_file_that_may_not_be_read_is_a_file_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    path, usual = noise(tmp_path / "locked.npy"), Path.open

    def refuse(one: Path, *given: Any, **more: Any) -> Any:
        if one == path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(one))
        return usual(one, *given, **more)

    # A test that runs as root may read everything.
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    monkeypatch.setattr(Path, "open", refuse)
    result = run(command, path)
    assert (result.exit_code, result.stdout) == (3, "")
    (error,) = result.stderr.splitlines()
    assert error.startswith(f"error: {path} cannot be read: {os.strerror(errno.EACCES)}")


def test_info_tells_what_is_inside(recorded: tuple[Path, Truth]) -> None:
    result = run("info", recorded[0])
    assert result.exit_code == 0
    assert "50" in result.stdout
    assert "pA" in result.stdout
    answer = json.loads(run("info", "--json", recorded[0]).stdout)["recordings"][0]
    assert answer["rate_hz"] == 50_000
    assert answer["channels"][0]["unit"] == "pA"


def test_models_are_listed_shown_and_verified(tmp_path: Path) -> None:
    assert "minis (default)" in run("models", "list").stdout
    card = json.loads(run("models", "show", "cnn-lstm").stdout)
    assert card["window_samples"] == 600
    assert "test_inputs" not in card
    assert run("models", "verify").exit_code == 0
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "card.json").write_text("{}")
    result = run("models", "verify", broken)
    assert result.exit_code == 2
    assert "broken" in result.stderr


def test_doctor_finds_nothing_wrong_here() -> None:
    result = run("doctor", "--seconds", 0.1)
    assert result.exit_code == 0, result.output
    assert "All is well." in result.stdout


def test_the_demo_finds_what_it_simulated(tmp_path: Path) -> None:
    result = run("demo", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    hits, true = (int(w) for w in result.stdout.splitlines()[-1].split(" true")[0].split(" of "))
    assert hits >= 0.9 * true
    assert (tmp_path / "demo.png").exists()

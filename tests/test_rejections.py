"""What was rejected by hand stays rejected, whatever replaces the table that says so."""

from __future__ import annotations

import csv
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from lots import Here, abf_recording
from quantal import batch, load_events
from quantal.cli import main
from quantal.errors import MissingLibraryError, ReadError, UsageError
from quantal.events import COLUMNS, REJECTED, Events, Sweep, make_events
from quantal.rejections import NOT_FOUND, Reviewed, carry_over
from quantal.save import save_events, save_summary
from quantal.simulate import simulate_recording
from quantal.tables import require_library

RATE_HZ = 20_000.0
NOW = "cell"


def run(*arguments: object) -> Result:
    """One command, with stdout and stderr apart."""
    return CliRunner().invoke(main, [str(a) for a in arguments])


def events_at(
    *times_s: float,
    sweep: int | list[int] = 0,
    channel: str = "IN 0",
    polarity: int | list[int] = -1,
    roi: list[int] | None = None,
) -> Events:
    """Events at these times, none of them rejected."""
    columns: dict[str, Any] = dict.fromkeys(COLUMNS, np.nan)
    columns |= {"recording": NOW, "channel": channel, "sweep": sweep, "polarity": polarity}
    columns |= {"event": np.arange(len(times_s)), "location_s": times_s, "unit": "pA"}
    columns |= {"overlap": False, "edge": False, "status": "found"}
    columns |= {} if roi is None else {"roi": roi}
    searched = Sweep(recording=NOW, channel=channel, sweep=0, unit="pA", analysed_s=10.0)
    return make_events(columns, [searched])


def reviewed(events: Events, folder: Path, rate_hz: float = RATE_HZ) -> Reviewed:
    """Events with the rejections that lie in a folder."""
    return carry_over(events, folder, NOW, recording=Path(f"{NOW}.abf"), rate_hz=rate_hz)


def rejected_in(events: Events) -> list[float]:
    """Times of the rejected events."""
    times: list[float] = events.location_s[events.status == REJECTED].tolist()
    return times


# The same event


def test_the_same_place_is_rejected_again_and_no_other(tmp_path: Path) -> None:
    old = events_at(1.0, 2.0, 3.0, 4.0, 5.0).reject([1, 3])
    save_events(old, tmp_path / "cell.events.csv")
    after = reviewed(events_at(1.0, 2.0004, 3.0, 4.0006, 5.0), tmp_path)
    assert rejected_in(after.events) == [2.0004]
    assert after.not_found.location_s.tolist() == [4.0]  # 0.6 ms from what is there now
    assert after.warnings[0].startswith(
        "an event that you had rejected is not found any more: 4.0000 s of sweep 0."
    )


@pytest.mark.parametrize(
    "other",
    [
        events_at(2.0, sweep=1),
        events_at(2.0, channel="IN 1"),
        events_at(2.0, polarity=1),
        events_at(),
    ],
)
def test_another_sweep_channel_or_polarity_is_another_event(tmp_path: Path, other: Events) -> None:
    save_events(events_at(2.0).reject([0]), tmp_path / "cell.events.csv")
    after = reviewed(other, tmp_path)
    assert rejected_in(after.events) == []
    assert len(after.not_found) == 1


def test_a_neighbour_does_not_take_the_rejection(tmp_path: Path) -> None:
    """Of two close events the rejected one is gone: the other was, and is, a good one."""
    save_events(events_at(1.0, 1.0004).reject([0]), tmp_path / "cell.events.csv")
    after = reviewed(events_at(1.0004), tmp_path)
    assert rejected_in(after.events) == []
    assert after.not_found.location_s.tolist() == [1.0]
    both = reviewed(events_at(1.0001, 1.0005), tmp_path)
    assert rejected_in(both.events) == [1.0001]


def test_in_slow_recordings_two_samples_are_the_same_place(tmp_path: Path) -> None:
    save_events(events_at(1.0).reject([0]), tmp_path / "cell.events.csv")
    assert rejected_in(reviewed(events_at(1.019), tmp_path, rate_hz=100.0).events) == [1.019]
    assert rejected_in(reviewed(events_at(1.021), tmp_path, rate_hz=100.0).events) == []


def test_regions_of_interest_are_told_apart(tmp_path: Path) -> None:
    save_events(events_at(1.0, 1.0, roi=[3, 4]).reject([1]), tmp_path / "cell.events.h5")
    after = reviewed(events_at(1.0, 1.0, 1.0, roi=[2, 4, 3]), tmp_path).events
    assert after.roi is not None
    assert after.roi[after.status == REJECTED].tolist() == [4]


_TIMES = st.lists(st.integers(0, 60), max_size=12, unique=True)


@given(old=_TIMES, new=_TIMES, chosen=st.sets(st.integers(0, 60)))
@settings(max_examples=60, deadline=None)
def test_each_rejection_is_that_of_one_event(
    tmp_path_factory: pytest.TempPathFactory, old: list[int], new: list[int], chosen: set[int]
) -> None:
    """Events every 0.2 ms: none is lost, none is doubled, and the same table stays the same."""
    folder = tmp_path_factory.mktemp("one")
    before = events_at(*(0.2e-3 * t for t in old))
    before = before.reject(np.array([t in chosen for t in old], np.bool_))
    save_events(before, folder / "cell.events.csv")
    after = reviewed(events_at(*(0.2e-3 * t for t in new)), folder)
    kept = rejected_in(after.events)
    assert len(kept) + len(after.not_found) == len(rejected_in(before))
    for t in sorted(chosen & set(old) & set(new)):
        assert any(abs(t * 0.2e-3 - at_s) < 1e-9 for at_s in kept)
    same = reviewed(before.reject([]), folder)
    assert rejected_in(same.events) == rejected_in(before)


# Tables that are there


@pytest.mark.parametrize("suffix", [".csv", ".h5", ".parquet", ".xlsx", ".nwb"])
def test_any_table_that_can_be_read_back_counts(tmp_path: Path, suffix: str) -> None:
    try:
        require_library(suffix)
    except MissingLibraryError as error:
        pytest.skip(str(error))
    save_events(events_at(1.0, 2.0).reject([1]), tmp_path / f"cell.events{suffix}")
    assert rejected_in(reviewed(events_at(1.0, 2.0), tmp_path).events) == [2.0]


def test_what_any_of_several_tables_rejects_is_rejected_and_counted_once(tmp_path: Path) -> None:
    table = events_at(1.0, 2.0, 3.0, 4.0)
    save_events(table.reject([0, 2]), tmp_path / "cell.events.csv")
    save_events(table.reject([1, 2, 3]), tmp_path / "cell.events.h5")
    after = reviewed(events_at(1.0, 2.0), tmp_path)
    assert rejected_in(after.events) == [1.0, 2.0]
    assert after.not_found.location_s.tolist() == [3.0, 4.0]


def test_a_table_that_cannot_be_read_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "cell.events.csv").write_text("not a table\n")
    with pytest.raises(ReadError, match="mend it, or move it away"):
        reviewed(events_at(1.0), tmp_path)


def test_rejections_of_another_recording_are_not_taken_for_its_own(tmp_path: Path) -> None:
    save_summary({"recording": r"C:\data\cell.h5"}, tmp_path / "cell.summary.json")
    save_events(events_at(1.0), tmp_path / "cell.events.csv")
    assert len(reviewed(events_at(1.0), tmp_path).events) == 1
    save_events(events_at(1.0).reject([0]), tmp_path / "cell.events.csv")
    with pytest.raises(UsageError, match=r"holds 1 rejected event of cell\.h5"):
        reviewed(events_at(1.0), tmp_path)


# From the command line


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds with clear events."""
    path = tmp_path_factory.mktemp("recorded") / "cell.abf"
    path.write_bytes(abf_recording(3, seconds=2, frequency_hz=5))
    return path


@pytest.fixture(autouse=True)
def _no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are searched in this process."""
    monkeypatch.setattr(batch, "processes", lambda _: nullcontext(Here()))


def reject_in(table: Path, *numbers: int) -> None:
    """What a scientist does in a spreadsheet."""
    with table.open(newline="") as file:
        header, *rows = list(csv.reader(file))
    for number in numbers:
        rows[number][header.index("status")] = REJECTED
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.mark.parametrize("command", ["detect", "batch"])
@pytest.mark.parametrize(
    ("changed", "suffix"),
    [
        (("--format", "h5"), "h5"),
        (("--threshold", 0.6, "--format", "csv,h5"), "h5"),
        (("--save-scores",), "csv"),
        (("--direction", "both", "--format", "miniml"), "csv"),
    ],
)
def test_they_are_kept_whatever_changes(
    recording: Path, tmp_path: Path, command: str, changed: tuple[object, ...], suffix: str
) -> None:
    call = (command, recording, "--out", tmp_path, "--no-picture")
    assert run(*call).exit_code == 0
    reject_in(tmp_path / "cell.events.csv", 1, 3)
    times = rejected_in(load_events(tmp_path / "cell.events.csv"))
    result = run(*call, *changed)
    assert result.exit_code == 0, result.output
    assert ", 2 stay rejected" in result.stdout
    kept = rejected_in(load_events(tmp_path / f"cell.events.{suffix}"))
    assert kept == pytest.approx(times, abs=5e-4)
    summary = json.loads((tmp_path / "cell.summary.json").read_text())
    assert (summary["rejected"], summary[NOT_FOUND]) == (2, 0)
    assert ", 2 stay rejected" in run(*call).stdout  # and back


def test_what_is_not_found_any_more_is_told(recording: Path, tmp_path: Path) -> None:
    call = ("--out", tmp_path, "--no-picture")
    run("batch", recording, *call)
    reject_in(tmp_path / "cell.events.csv", 0, 1)
    gone = load_events(tmp_path / "cell.events.csv").location_s[0]
    away = ("--exclude-s", f"{gone - 0.05}-{gone + 0.05}")
    result = run("batch", recording, *call, *away)
    assert (
        "warning: cell.abf: an event that you had rejected is not found any more" in result.stderr
    )
    assert f"{gone:.4f} s of sweep 0" in result.stderr
    assert "1 stays rejected, 1 rejected before not found any more" in result.stdout
    report = json.loads((tmp_path / "batch.json").read_text())
    assert (report["rejected"], report[NOT_FOUND]) == (1, 1)
    with (tmp_path / "recordings.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["rejected"], row[NOT_FOUND]) == ("1", "1")
    assert int(row["events"]) == report["events"]


def test_a_damaged_table_stops_its_recording_alone(recording: Path, tmp_path: Path) -> None:
    (tmp_path / "lot").mkdir()
    for name in ("a.abf", "b.abf"):
        (tmp_path / "lot" / name).write_bytes(recording.read_bytes())
    call = ("batch", tmp_path / "lot", "--out", tmp_path / "out", "--no-picture")
    assert run(*call).exit_code == 0
    damaged = tmp_path / "out" / "a.events.csv"
    damaged.write_text("recording,status\na,rejected\n")
    result = run(*call, "--save-scores")
    assert result.exit_code == 4
    assert "error: a.abf: " in result.stderr
    assert "mend it, or move it away" in result.stderr
    assert damaged.read_text() == "recording,status\na,rejected\n"
    assert (tmp_path / "out" / "b.scores.h5").exists()
    damaged.unlink()
    assert run(*call, "--save-scores").exit_code == 0


def test_rois_keep_them_too(tmp_path: Path) -> None:
    trace, _ = simulate_recording(seconds=20, frequency_hz=1, amplitude=20, seed=3)
    slow = trace.samples[::20] - trace.samples.mean()
    np.save(tmp_path / "session.npy", np.stack([slow, slow[::-1]]))
    call = (
        *("rois", tmp_path / "session.npy", "--input", "dff", "--rate-hz", 100),
        *("--rois-in", "rows", "--window-ms", 600, "--out", tmp_path),
    )
    assert run(*call).exit_code == 0
    table = tmp_path / "session.events.csv"
    assert len(load_events(table)) > 3
    reject_in(table, 2)
    result = run(*call, "--format", "csv,h5")
    assert ", 1 stays rejected" in result.stdout, result.output
    before, after = load_events(table), load_events(tmp_path / "session.events.h5")
    assert np.flatnonzero(after.status == REJECTED).tolist() == [2]
    assert rejected_in(before) == pytest.approx(rejected_in(after))

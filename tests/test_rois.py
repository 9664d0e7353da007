"""Many ROIs: the same as one by one, in one table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import quantal
from quantal import roi_report
from quantal.cli import main
from quantal.drawing import blank
from quantal.errors import SaveError, UsageError
from quantal.events import NO_ROI, Events
from quantal.imaging import Rois
from quantal.model import load_model
from quantal.roi_job import busiest_moment, doubts
from quantal.roi_report import average_events
from quantal.rois import detect_rois, per_roi
from quantal.simulate import Rig, matched, simulate_recording

RIG = Rig(rate_hz=100.0, cutoff_hz=45.0, hum=0.0, drift=0.1)  # frames, with the shot noise's band
TRUE: list[np.ndarray] = []


@pytest.fixture(scope="module")
def field() -> Rois:
    """Six ROIs of 30 s, the last one silent; numbered as if others had been left out."""
    rows = []
    TRUE.clear()
    for seed in range(6):
        frequency = 0.0 if seed == 5 else 0.4
        trace, truth = simulate_recording(
            seconds=30,
            frequency_hz=frequency,
            amplitude=0.5,
            noise_sd=0.05,
            tau_rise_s=0.012,
            tau_decay_s=0.06,
            rig=RIG,
            offset=0.0,
            unit="dF/F",
            seed=seed,
        )
        rows.append(trace.samples)
        TRUE.append(truth.onset_s)
    position = np.column_stack([np.arange(6.0), 10 + np.arange(6.0)])
    return Rois(
        samples=np.stack(rows),
        rate_hz=100.0,
        kind="dff",
        number=np.arange(10, 16),
        position=position,
        recording="slice",
    )


@pytest.fixture(scope="module")
def events(field: Rois) -> Events:
    return detect_rois(field, window_ms=600, threads=2)


def test_what_is_found_is_what_detect_finds_in_each(field: Rois, events: Events) -> None:
    alone = [
        quantal.detect(field.trace(row), window_ms=600, direction="positive") for row in range(6)
    ]
    together = quantal.join(alone)
    assert len(events) == len(together) > 20
    for name, column in together.columns().items():
        np.testing.assert_array_equal(getattr(events, name), column, err_msg=name)
    assert events.roi is not None
    assert events.roi.tolist() == np.repeat(field.number, [len(one) for one in alone]).tolist()
    assert [sweep.roi for sweep in events.sweeps] == field.number.tolist()
    assert [sweep.analysed_s for sweep in events.sweeps] == pytest.approx([30.0] * 6)


def test_the_number_of_threads_changes_nothing(field: Rois, events: Events) -> None:
    other = detect_rois(field, window_ms=600, threads=1)
    for name, column in events.columns().items():
        np.testing.assert_array_equal(getattr(other, name), column, err_msg=name)


def test_a_network_that_reads_windows_finds_what_it_finds_in_each(field: Rois) -> None:
    few = Rois(samples=field.samples[:2], rate_hz=100.0, kind="dff")
    model = load_model("cnn-lstm")
    found = detect_rois(few, model=model, window_ms=600, threads=2)
    alone = quantal.join(
        quantal.detect(few.trace(k), model=model, window_ms=600, direction="positive")
        for k in range(2)
    )
    np.testing.assert_array_equal(found.location_s, alone.location_s)
    np.testing.assert_allclose(found.score, alone.score, atol=1e-5)


def test_true_events_are_found(field: Rois, events: Events) -> None:
    hits = sum(
        matched(onset_s, events.location_s[events.roi == number], tolerance_s=0.05)
        for number, onset_s in zip(field.number, TRUE, strict=True)
    )
    true = sum(map(len, TRUE))
    assert 2 * hits / (true + len(events)) > 0.9


def test_the_time_scale_is_read_from_all_rois_together(field: Rois, events: Events) -> None:
    told = detect_rois(field, threads=1)
    assert abs(len(told) - len(events)) <= 2
    one = Rois(samples=field.samples[5:], rate_hz=100.0, kind="dff")  # nothing to read it from
    assert len(detect_rois(one, threads=1)) <= 1


def test_an_empty_table_knows_its_rois(field: Rois) -> None:
    none = detect_rois(
        Rois(samples=np.zeros((2, 600)), rate_hz=100.0, kind="dff", number=[4, 8]),  # type: ignore[arg-type]
        window_ms=600,
    )
    assert len(none) == 0
    assert none.roi is not None
    assert list(none.columns())[:5] == ["recording", "channel", "sweep", "roi", "event"]
    assert [sweep.roi for sweep in none.sweeps] == [4, 8]
    del field


def test_raw_fluorescence_becomes_relative_change_first(field: Rois) -> None:
    raw = Rois(samples=300 * (1 + field.samples), rate_hz=100.0, kind="raw", number=field.number)
    found = detect_rois(raw, window_ms=600, threads=1)
    table = per_roi(found, raw)
    assert set(found.unit) == set(table.unit) == {"dF/F"}
    assert 0.3 < np.nanmedian(table.amplitude) < 0.7


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"window_ms": 12},
            r"12 ms \(the usual one of minis\) has 1 samples at 100 Hz",
        ),
        ({"window_ms": 60_000}, "longer than the trace"),
        ({"direction": "up"}, "direction must be one of"),
        ({"threads": 0}, "threads must be"),
    ],
)
def test_what_makes_no_sense_is_refused(field: Rois, options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        detect_rois(field, **options)  # type: ignore[arg-type]


def test_a_bare_matrix_is_refused(field: Rois) -> None:
    with pytest.raises(UsageError, match=r"got ndarray.*quantal.Rois\(samples=x"):
        detect_rois(field.samples)  # type: ignore[arg-type]


def test_the_table_of_rois_counts_those_without_events(field: Rois, events: Events) -> None:
    table = per_roi(events.reject([0]), field)
    kept = events[1:]
    for row, number in enumerate(field.number):
        own = kept[kept.roi == number]
        assert table.events[row] == len(own)
        assert table.frequency_hz[row] == pytest.approx(len(own) / 30)
        if len(own):
            assert table.amplitude[row] == pytest.approx(np.nanmedian(own.amplitude))
    assert table.x_px.tolist() == [0, 1, 2, 3, 4, 5]
    assert len(table) == 6
    active = len(set(kept.roi.tolist()))  # type: ignore[union-attr]
    assert repr(table) == f"RoiTable(6 ROIs, {len(kept)} events in {active} of them)"
    with pytest.raises(UsageError, match="not of these ROIs"):
        per_roi(events, Rois(samples=field.samples, rate_hz=100.0, kind="dff"))


@pytest.mark.parametrize("suffix", ["csv", "h5", "parquet", "xlsx", "nwb"])
def test_a_saved_table_keeps_its_rois(events: Events, tmp_path: Path, suffix: str) -> None:
    for library in {"parquet": ["pyarrow"], "xlsx": ["openpyxl"], "nwb": ["pynwb"]}.get(suffix, []):
        pytest.importorskip(library, reason=f"needs {library}, of the extra for tables")
    path = tmp_path / f"a.events.{suffix}"
    events.save(path)
    again = quantal.load_events(path)
    assert again.roi is not None
    np.testing.assert_array_equal(again.roi, events.roi)
    np.testing.assert_array_equal(again.channel, events.channel)
    if suffix != "csv":
        assert again.sweeps == events.sweeps


def test_tables_with_and_without_rois_join(events: Events) -> None:
    trace, _ = simulate_recording(seconds=2, frequency_hz=5, seed=2)
    other = quantal.detect(trace)
    joined = quantal.join([other, events])
    assert joined.roi is not None
    assert joined.roi.tolist() == [NO_ROI] * len(other) + events.roi.tolist()  # type: ignore[union-attr]
    assert quantal.join([other]).roi is None
    assert len(joined[joined.roi >= 0]) == len(events)


def test_the_average_of_a_roi_is_that_of_its_events(field: Rois, events: Events) -> None:
    time_ms, average = average_events(field, events, window_ms=600.0)
    assert np.isnan(average[5]).all() == (not (events.roi == 15).any())
    own = events[events.roi == 10]
    at = np.rint(own.location_s * 100).astype(int)
    peak = int(np.argmin(np.abs(time_ms - 30)))
    inside = (at >= 15) & (at < 3_000 - 46) & np.isfinite(own.baseline)
    by_hand = np.mean(
        [field.samples[0][i + 3] - b for i, b in zip(at[inside], own.baseline[inside], strict=True)]
    )
    assert average[0, peak] == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize(("repeats", "said"), [(1, ""), (4, ", the first 60 of 120 s")])
def test_the_picture_says_which_part_is_drawn(
    field: Rois, events: Events, repeats: int, said: str
) -> None:
    long = replace(field, samples=np.tile(field.samples, repeats))
    axes = blank(5.0, 4.0).add_subplot()
    roi_report._draw_examples(axes, long, events, per_roi(events, field))
    title = axes.get_title(loc="left")
    assert title.startswith(f"ROIs from most to least active{said}, steps of ")


def test_many_rois_at_one_time_are_told(field: Rois, events: Events) -> None:
    moved = field.samples.copy()
    bump = np.zeros(3_000)
    bump[1_000:1_060] = 2 * np.exp(-np.arange(60) / 8)
    many = Rois(samples=np.tile(moved + bump, (3, 1)), rate_hz=100.0, kind="dff")
    found = detect_rois(many, window_ms=600, threads=2)
    time_s, count = busiest_moment(found)
    assert (round(time_s), count) == (10, 18)
    (warning,) = doubts(found, per_roi(found, many), many)
    assert "18 of 18 ROIs" in warning
    assert "--exclude-s 9.89-10.49" in warning
    assert doubts(events, per_roi(events, field), field) == []


def test_a_stretch_outside_the_recording_is_a_doubt(field: Rois, events: Events) -> None:
    excluded = replace(field, excluded=((100.0, 450.0),))
    (warning,) = doubts(events, per_roi(events, field), excluded)
    assert warning.startswith(
        "nothing is excluded from 100 to 450 s: the recording spans 0 to 30 s"
    )


def run(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, ["rois", *map(str, words)])
    return done.exit_code, done.stdout, done.stderr


def test_the_command_writes_its_tables_and_picture(
    field: Rois, events: Events, tmp_path: Path
) -> None:
    source = tmp_path / "slice.npy"
    np.save(source, field.samples.T)
    out = tmp_path / "out"
    code, text, told = run(
        source, *("--input", "dff", "--rate-hz", 100, "--rois-in", "columns"),
        *("--window-ms", 600, "--out", out, "--format", "csv,h5", "--threads", 2),
    )  # fmt: skip
    assert code == 0, told
    assert f"{len(events)} events in" in text
    table = quantal.load_events(out / "slice.events.csv")
    np.testing.assert_allclose(table.location_s, events.location_s, rtol=1e-11)
    lines = (out / "slice.rois.csv").read_text().splitlines()
    assert lines[0].startswith("recording,roi,x_px,y_px,analysed_s,events,frequency_hz")
    assert len(lines) == 7
    summary = json.loads((out / "slice.summary.json").read_text())
    assert (summary["events"], summary["rois"]) == (len(events), 6)
    assert summary["settings"]["reading"]["rois_in"] == "columns"
    assert summary["model"]["name"] == "minis"
    assert (out / "slice.png").stat().st_size > 20_000
    assert sorted(path.name for path in out.iterdir()) == [
        *("slice.events.csv", "slice.events.h5", "slice.png", "slice.rois.csv"),
        "slice.summary.json",
    ]


def test_the_command_says_what_it_needs(field: Rois, tmp_path: Path) -> None:
    source = tmp_path / "slice.npy"
    np.save(source, field.samples)
    code, _, told = run(source, "--rate-hz", 100)
    assert (code, "--rois-in rows" in told) == (3, True)
    code, _, told = run(source, "--rate-hz", 100, "--rois-in", "rows")
    assert (code, "--input raw" in told) == (3, True)
    code, _, told = run(source, "--input", "dff", "--rois-in", "rows")
    assert (code, "--rate-hz" in told) == (3, True)
    code, _, told = run(
        source, *("--input", "dff", "--rois-in", "rows", "--rate-hz", 100, "--format", "miniml")
    )
    assert (code, "choose another --format" in told) == (2, True)
    code, _, told = run(source, "--input", "dff", "--rois-in", "rows", "--rate-hz", 100,
                        "--window-ms", 12)  # fmt: skip
    assert (code, "at least 200 ms" in told) == (2, True)


def test_a_session_without_events_is_a_result(tmp_path: Path) -> None:
    source = tmp_path / "still.npy"
    np.save(source, np.zeros((3, 800), np.float32))
    code, text, told = run(
        source, *("--input", "raw", "--rate-hz", 100, "--rois-in", "rows", "--out", tmp_path)
    )
    assert code == 0, told
    assert "0 events in 0 of 3 ROIs" in text
    assert "nothing could be searched in 3 ROIs (F0 is not positive" in told
    assert "--input dff" in told
    assert "--neuropil" not in told
    assert (tmp_path / "still.events.csv").read_text().startswith("recording,channel,sweep,roi,")


def test_where_the_neuropil_was_too_bright_less_of_it_is_recommended(tmp_path: Path) -> None:
    bright = np.full((2, 800), 100.0, np.float32)
    for name, matrix in (("F.npy", bright), ("Fneu.npy", 2 * bright)):
        np.save(tmp_path / name, matrix)
    code, _, told = run(tmp_path, "--rate-hz", 100, "--out", tmp_path / "out")
    assert code == 0, told
    assert "(F0 is not positive; try a smaller --neuropil): 0, 1" in told


@pytest.mark.parametrize(("wrong", "right"), [("rows", "columns"), ("columns", "rows")])
def test_far_more_rois_than_samples_are_asked_about(tmp_path: Path, wrong: str, right: str) -> None:
    matrix = np.random.default_rng(0).normal(0, 0.1, (300, 40)).astype(np.float32)
    np.savetxt(tmp_path / "rois.csv", matrix if wrong == "rows" else matrix.T, delimiter=",")
    options = ("--input", "dff", "--rate-hz", 100, "--out", tmp_path / "out")
    question = f"300 ROIs of 40 samples each: are the ROIs in its {right}? Then type --rois-in"
    code, _, told = run(tmp_path / "rois.csv", *options, "--rois-in", wrong)
    assert code == 2
    assert f"error: {tmp_path / 'rois.csv'}: {question} {right}. If not: the trace (400 ms" in told
    code, _, told = run(tmp_path / "rois.csv", *options, "--rois-in", wrong, "--window-ms", 200)
    assert code == 0, told
    assert f"warning: rois.csv: {question}" in told
    code, _, told = run(tmp_path / "rois.csv", *options, "--rois-in", right, "--window-ms", 200)
    assert code == 0, told
    assert question not in told


def test_results_of_another_session_are_not_replaced(tmp_path: Path) -> None:
    options = ("--input", "dff", "--rate-hz", 100, "--rois-in", "rows", "--out", tmp_path / "out")
    for day, rois in (("monday", 2), ("tuesday", 3)):
        (tmp_path / day).mkdir()
        np.save(tmp_path / day / "traces.npy", np.zeros((rois, 800), np.float32))
    assert run(tmp_path / "monday" / "traces.npy", *options)[0] == 0
    assert run(tmp_path / "monday" / ".." / "monday" / "traces.npy", *options)[0] == 0
    code, _, told = run(tmp_path / "tuesday" / "traces.npy", *options)
    assert (code, "another session" in told, "choose another --out" in told) == (2, True, True)
    assert len((tmp_path / "out" / "traces.rois.csv").read_text().splitlines()) == 3
    (tmp_path / "out" / "traces.summary.json").unlink()
    assert run(tmp_path / "tuesday" / "traces.npy", *options)[0] == 0


def test_results_stay_together_where_some_cannot_be_written(
    field: Rois, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "slice.npy", tmp_path / "out"
    options = ("--input", "dff", "--rate-hz", 100, "--rois-in", "rows", "--window-ms", 600)
    np.save(source, np.zeros((3, 800), np.float32))
    assert run(source, *options, "--out", out)[0] == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    np.save(source, field.samples)

    def full(*_: object) -> None:
        raise SaveError("the disk is full.")

    monkeypatch.setattr("quantal.roi_job.save_table", full)
    code, _, told = run(source, *options, "--out", out)
    assert (code, "the disk is full" in told) == (SaveError.exit_code, True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before

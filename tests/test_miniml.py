"""miniML's layout: the names, units and shapes that scripts written for it expect."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from quantal import Trace
from quantal.errors import UsageError
from quantal.events import COLUMNS, Events, Sweep, column_type, make_events
from quantal.miniml import save_miniml


@pytest.fixture(scope="module")
def searched() -> tuple[list[Trace], Events]:
    """Three sweeps of 2 s, and events in each of them; one lies near the end of its sweep."""
    random = np.random.default_rng(1)
    location_s = np.array([0.5, 0.90001, 1.2, 1.999])
    sweeps = [
        Trace(
            samples=random.normal(-20, 3, 100_000).astype(np.float32),
            rate_hz=50_000.0,
            unit="pA",
            recording="cell",
            channel="Im",
            sweep=n,
        )
        for n in range(3)
    ]
    n = len(location_s)
    numbers = {
        name: random.normal(5, 1, 3 * n) for name in COLUMNS if column_type(name) is np.float64
    }
    numbers["amplitude"] *= -1
    numbers["peak_s"] = np.tile(location_s, 3) + random.uniform(0.001, 0.002, 3 * n)
    numbers["interval_s"] = np.diff(np.tile(location_s, 3), prepend=np.nan)
    numbers["interval_s"][::n] = np.nan
    events = make_events(
        {
            **numbers,
            "recording": "cell",
            "channel": "Im",
            "sweep": np.repeat(np.arange(3), n),
            "event": np.tile(np.arange(n), 3),
            "location_s": np.tile(location_s, 3),
            "unit": "pA",
            "polarity": -1,
            "overlap": False,
            "edge": False,
            "status": "found",
        },
        [Sweep(recording="cell", channel="Im", sweep=k, unit="pA", analysed_s=2) for k in range(3)],
    )
    return sweeps, events


def test_positions_run_over_all_sweeps_end_to_end(
    searched: tuple[list[Trace], Events], tmp_path: Path
) -> None:
    sweeps, events = searched
    files = save_miniml(events, sweeps, tmp_path / "cell", window_ms=12, stride=20)
    joined = np.concatenate([trace.samples for trace in sweeps])
    with h5py.File(files["h5"]) as file:
        at = file["event_params/event_locations"][()]
        np.testing.assert_array_equal(
            at, np.rint((events.sweep * 2 + events.location_s) * 50_000).astype(int)
        )
        assert file["events"].shape == (len(events), 1000)  # 600 samples and two thirds of that
        stretches = file["events"][()] + file["event_params/event_bsls"][()][:, None]
        whole = np.isfinite(stretches).all(axis=1)
        assert whole.tolist() == [True, True, True, False] * 3
        for row, position in zip(stretches[whole], at[whole], strict=True):
            np.testing.assert_allclose(row, joined[position - 200 : position + 800], rtol=1e-5)
        assert file.attrs["recording_time"] == pytest.approx(6.0)
        assert file["event_statistics/frequency"][()] == pytest.approx(len(events) / 6)
        assert (file.attrs["window"], file.attrs["stride"]) == (600, 20)
        assert file.attrs["event_direction"] == -1


def test_times_are_in_seconds_and_missing_ones_nan(
    searched: tuple[list[Trace], Events], tmp_path: Path
) -> None:
    sweeps, events = searched
    files = save_miniml(events, sweeps, tmp_path / "cell", window_ms=12, tau_decay_ms=1.5)
    with h5py.File(files["h5"]) as file:
        risetimes = file["event_params/event_risetimes"][()]
        np.testing.assert_allclose(risetimes, events.rise_10_90_ms / 1000)
        assert file["event_statistics/decay_from_fit"][()] == 0.0015
        assert file["event_statistics/risetime_mean"][()] == pytest.approx(np.mean(risetimes))


def test_intervals_run_from_peak_to_peak(
    searched: tuple[list[Trace], Events], tmp_path: Path
) -> None:
    sweeps, events = searched
    gap = events.interval_s.copy()
    gap[5] = np.nan  # between the first and the second of the second sweep nothing was searched
    events = replace(events, interval_s=gap).reject([1, 5, 8])
    files = save_miniml(events, sweeps, tmp_path / "cell", window_ms=12)
    peak_s = events.peak_s.reshape(3, 4)
    expected = [
        *(np.nan, peak_s[0, 2] - peak_s[0, 0], peak_s[0, 3] - peak_s[0, 2]),
        *(np.nan, np.nan, peak_s[1, 3] - peak_s[1, 2]),
        *(np.nan, peak_s[2, 2] - peak_s[2, 1], peak_s[2, 3] - peak_s[2, 2]),
    ]
    with h5py.File(files["h5"]) as file:
        np.testing.assert_array_equal(file["event_params/event_intervals"], expected)
        assert file["event_statistics/iei_mean"][()] == pytest.approx(np.nanmean(expected))
        assert file["event_statistics/iei_median"][()] == pytest.approx(np.nanmedian(expected))


def test_the_csv_files_have_rows_of_measures(
    searched: tuple[list[Trace], Events], tmp_path: Path
) -> None:
    sweeps, events = searched
    files = save_miniml(events, sweeps, tmp_path / "cell", window_ms=12)
    with files["individual"].open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["", *(f"event_{i}" for i in range(len(events)))]
    assert [row[0] for row in rows[1:]] == [
        "location",
        "score",
        "amplitude",
        "charge",
        "risetime",
        "decaytime",
        "halfwidth",
        "interval",
    ]
    np.testing.assert_array_equal([float(cell) for cell in rows[3][1:]], events.amplitude)
    assert rows[8][1] == ""  # the first event has no interval
    averages = dict(csv.reader(files["avgs"].read_text().splitlines()))
    assert float(averages["amplitude mean"]) == pytest.approx(np.mean(events.amplitude))
    assert averages["tau_avg"] == ""


def test_a_recording_of_the_same_name_stays(
    searched: tuple[list[Trace], Events], tmp_path: Path
) -> None:
    sweeps, events = searched
    (tmp_path / "cell.h5").write_bytes(b"the recording")
    files = save_miniml(events, sweeps, tmp_path / "cell", window_ms=12)
    assert [path.name for path in files.values()] == [
        "cell.miniml.h5",
        "cell.miniml_individual.csv",
        "cell.miniml_avgs.csv",
    ]
    assert (tmp_path / "cell.h5").read_bytes() == b"the recording"


def test_rejected_events_are_left_out(searched: tuple[list[Trace], Events], tmp_path: Path) -> None:
    sweeps, events = searched
    files = save_miniml(events.reject([0, 3]), sweeps, tmp_path / "cell", window_ms=12)
    with h5py.File(files["h5"]) as file:
        assert len(file["events"]) == len(events) - 2
        assert file.attrs["deleted_events"] == 2


def test_without_events_the_files_are_empty_and_whole(
    searched: tuple[list[Trace], Events], tmp_path: Path
) -> None:
    sweeps, events = searched
    files = save_miniml(events[:0], sweeps, tmp_path / "cell", window_ms=12)
    with h5py.File(files["h5"]) as file:
        assert file["events"].shape == (0, 1000)
        assert np.isnan(file["event_statistics/amplitude_average"][()])
        assert file["event_statistics/frequency"][()] == 0


def test_one_channel_at_a_time(searched: tuple[list[Trace], Events], tmp_path: Path) -> None:
    sweeps, events = searched
    other = Trace(samples=sweeps[0].samples, rate_hz=1e4, unit="pA", channel="Im")
    with pytest.raises(UsageError, match="one channel at one rate, got 2"):
        save_miniml(events, [*sweeps, other], tmp_path / "cell", window_ms=12)


def test_all_that_a_real_result_holds_is_there(
    searched: tuple[list[Trace], Events], shared: Path, tmp_path: Path
) -> None:
    sweeps, events = searched
    files = save_miniml(events, sweeps, tmp_path / "cell", window_ms=12)
    path = shared / "miniml" / "gc_mini_trace_results.h5"
    with h5py.File(path) as real, h5py.File(files["h5"]) as ours:
        assert set(real.attrs) <= set(ours.attrs)
        for name in real.attrs:
            assert (
                np.asarray(real.attrs[name]).dtype.kind == np.asarray(ours.attrs[name]).dtype.kind
            )
        seen: list[str] = []
        real.visit(seen.append)
        for name in seen:
            if isinstance(real[name], h5py.Dataset):
                assert ours[name].ndim == real[name].ndim, name
                assert ours[name].dtype == real[name].dtype, name
        assert ours["events"].shape[1] == real["events"].shape[1]

"""Extraction: clear windows hold true events, noise holds none, each window is in its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quantal
from quantal.errors import UsageError
from quantal.simulate import Rig, Truth, biexponential, simulate_recording
from quantal.trace import Trace
from quantal_trainer.dataset_files import read_dataset, save_dataset
from quantal_trainer.datasets import EVENT, EXCLUDED, NOISE, Dataset, merge, split
from quantal_trainer.extract import (
    Template,
    extract,
    template_from,
    window_template,
)

RATE, WINDOW_MS = 20_000.0, 12.0
WIDTH = round(WINDOW_MS * RATE / 1000)


def recording(seed: int = 0, **options: Any) -> tuple[Trace, Truth]:
    """A simulated sweep of 8 s with decays of 1 ms, named after its seed."""
    usual: dict[str, Any] = {"seconds": 8.0, "frequency_hz": 5.0, "amplitude": -10.0}
    usual["rig"] = Rig(rate_hz=RATE)
    trace, truth = simulate_recording(**{**usual, **options}, seed=seed)
    return replace(trace, recording=f"cell {seed}"), truth


@pytest.fixture(scope="module")
def sweep() -> tuple[Trace, Truth]:
    return recording(frequency_hz=12.0, seconds=12.0)


@pytest.fixture(scope="module")
def found(sweep: tuple[Trace, Truth]) -> Dataset:
    return extract([sweep[0]], window_ms=WINDOW_MS, per_cell=150)


def onsets_in_windows(
    dataset: Dataset, truth: Truth, rate_hz: float = RATE
) -> np.ndarray[Any, Any]:
    """Where in each window (n, events) every true event begins, in windows."""
    starts = dataset.raw_indices[:, None]
    return (truth.onset_s * rate_hz - starts) / dataset.length


def test_a_third_each_is_clear_unclear_and_noise_with_its_score(found: Dataset) -> None:
    counts = found.summary()["kinds"]
    assert set(counts) == {"clear", "unclear", "noise"}
    assert counts["clear"] == counts["noise"] == 50
    assert 5 < counts["unclear"] <= 50
    for kind, score in (("clear", EVENT), ("unclear", EXCLUDED), ("noise", NOISE)):
        assert (found.scores[found.kinds == kind] == score).all()


def test_clear_windows_hold_true_events_and_noise_holds_none(
    found: Dataset, sweep: tuple[Trace, Truth]
) -> None:
    at = onsets_in_windows(found, sweep[1])
    begins = ((at > 0.18) & (at < 0.52)).any(axis=1)
    assert begins[found.kinds == "clear"].all()
    shows = ((at > -0.3) & (at < 1) & (np.abs(sweep[1].amplitude) > 2)).any(axis=1)
    assert not shows[found.kinds == "noise"].any()


@pytest.mark.parametrize(
    ("amplitude", "frequency_hz", "corner_hz"), [(-6, 1.5, 0), (-4, 5, 400), (-8, 30, 0)]
)
def test_the_thresholds_serve_small_rare_and_crowded_events(
    amplitude: float, frequency_hz: float, corner_hz: float
) -> None:
    rig = Rig(rate_hz=RATE, corner_hz=corner_hz, drift=0.6)
    trace, truth = recording(3, amplitude=amplitude, frequency_hz=frequency_hz, rig=rig)
    dataset = extract([trace], window_ms=WINDOW_MS, per_cell=600)
    at = onsets_in_windows(dataset, truth)
    begins = ((at > 0.18) & (at < 0.52)).any(axis=1)
    clear, noise = dataset.kinds == "clear", dataset.kinds == "noise"
    assert clear.sum() >= 2
    assert begins[clear].mean() > 0.97
    assert noise.sum() >= 50
    assert begins[noise].mean() < 0.03


def test_windows_are_the_samples_at_their_place(found: Dataset, sweep: tuple[Trace, Truth]) -> None:
    assert found.length == WIDTH
    assert found.rate_hz == RATE
    assert found.unit == "pA"
    assert set(found.cells) == {"cell 0"}
    for start, window in zip(found.raw_indices, found.windows, strict=True):
        np.testing.assert_array_equal(window, sweep[0].samples[start : start + WIDTH])


def test_events_begin_near_the_usual_place_and_not_always_at_the_same(
    found: Dataset, sweep: tuple[Trace, Truth]
) -> None:
    at = onsets_in_windows(found, sweep[1])[found.kinds == "clear"]
    onset = at[np.arange(len(at)), np.abs(at - 0.35).argmin(axis=1)]
    assert onset.min() > 0.2
    assert onset.max() < 0.5
    assert np.std(onset) > 0.04
    assert abs(np.median(onset) - 0.35) < 0.05


def test_no_place_comes_twice_and_noise_overlaps_nothing(found: Dataset) -> None:
    starts = found.raw_indices
    assert (np.diff(starts) > 0).all()
    noise = found.kinds == "noise"
    for start in starts[noise]:
        assert (np.abs(starts - start) < WIDTH).sum() == 1  # itself


def test_candidates_closer_than_a_quarter_window_are_one() -> None:
    samples = np.random.default_rng(0).normal(size=40_000)
    event = -30 * biexponential(RATE, 2e-4, 1e-3)
    for onset in (10_000, 10_045, 20_000, 20_100):
        samples[onset : onset + len(event)] += event
    samples[10_045 : 10_045 + len(event)] += 0.5 * event  # the larger of the close ones
    trace = Trace(samples=samples, rate_hz=RATE, unit="pA", recording="pairs")
    dataset = extract([trace], window_ms=WINDOW_MS)
    events = dataset.raw_indices[dataset.kinds != "noise"] + 0.35 * WIDTH
    near = [sum(abs(events - onset) < 0.15 * WIDTH + 20) for onset in (10_022, 20_000, 20_100)]
    assert near == [1, 1, 1]


def test_the_direction_decides_what_an_event_is(sweep: tuple[Trace, Truth]) -> None:
    trace = sweep[0]
    turned = replace(trace, samples=-trace.samples)
    up = extract([turned], window_ms=WINDOW_MS, direction="positive", per_cell=150)
    down = extract([trace], window_ms=WINDOW_MS, per_cell=150)
    np.testing.assert_array_equal(up.raw_indices, down.raw_indices)
    np.testing.assert_array_equal(up.windows, -down.windows)
    with pytest.raises(UsageError, match=r"at most .* SD .* Try direction='positive'"):
        extract([turned.between(0, 2)], window_ms=WINDOW_MS, middle=8, high=9)


def test_the_same_seed_gives_the_same_windows_and_another_others(
    found: Dataset, sweep: tuple[Trace, Truth]
) -> None:
    again = extract([sweep[0]], window_ms=WINDOW_MS, per_cell=150)
    other = extract([sweep[0]], window_ms=WINDOW_MS, per_cell=150, seed=1)
    np.testing.assert_array_equal(found.windows, again.windows)
    assert not np.array_equal(found.raw_indices, other.raw_indices)
    assert found.provenance == again.provenance


def test_neither_offset_nor_unit_matters(found: Dataset, sweep: tuple[Trace, Truth]) -> None:
    trace = replace(sweep[0], samples=1e-3 * sweep[0].samples + 5, unit="nA")
    dataset = extract([trace], window_ms=WINDOW_MS, per_cell=150)
    same = np.intersect1d(dataset.raw_indices, found.raw_indices)
    assert len(same) > 0.9 * len(found)


# Cells, sweeps, rates ----------------------------------------------------------------------------


def test_no_cell_dominates_and_cells_can_be_split() -> None:
    busy, calm = recording(1, frequency_hz=20.0)[0], recording(2, frequency_hz=2.0)[0]
    dataset = extract([busy, calm], window_ms=WINDOW_MS, per_cell=60)
    counts = dataset.summary()["cells"]
    assert set(counts) == {"cell 1", "cell 2"}
    assert max(counts.values()) <= 60
    training, held_out = split(dataset, validation=0.5)
    assert set(training.cells).isdisjoint(held_out.cells)


def test_the_windows_of_a_cell_are_spread_over_its_sweeps_laid_end_to_end() -> None:
    sweeps = [replace(recording(s)[0], recording="cell", sweep=s) for s in range(4)]
    dataset = extract(sweeps, window_ms=WINDOW_MS, per_cell=90)
    assert set(dataset.cells) == {"cell"}
    of_sweep = dataset.raw_indices // len(sweeps[0])
    for kind in ("clear", "noise"):
        counts = np.bincount(of_sweep[dataset.kinds == kind], minlength=4)
        assert counts.sum() == 30
        assert counts.min() >= 3
    strip = np.concatenate([trace.samples for trace in sweeps])
    for start, window in zip(dataset.raw_indices, dataset.windows, strict=True):
        np.testing.assert_array_equal(window, strip[start : start + WIDTH])
        assert start % len(sweeps[0]) <= len(sweeps[0]) - WIDTH  # not across two sweeps
    assert len(merge([dataset, dataset])) == len(dataset)


def test_a_cell_may_be_what_the_caller_says() -> None:
    traces = [replace(recording(s)[0], recording="same name", channel=str(s)) for s in range(2)]
    dataset = extract(traces, window_ms=WINDOW_MS, cell_of=lambda trace: f"day {trace.channel}")
    assert set(dataset.cells) == {"day 0", "day 1"}


def test_windows_keep_clear_of_excluded_stretches_and_missing_samples() -> None:
    trace, _ = recording(4, frequency_hz=20.0)
    samples = trace.samples.copy()
    samples[50_000:50_400] = np.nan
    samples[90_000:93_000] = -500.0  # an amplifier that was stuck
    trace = replace(trace, samples=samples, excluded=((1.0, 1.5), (4.0, 4.1)))
    dataset = extract([trace], window_ms=WINDOW_MS, per_cell=600)
    wanted = trace.wanted()
    wanted[90_000:93_000] = False
    for start in dataset.raw_indices:
        assert wanted[start : start + WIDTH].all()
    assert np.ptp(dataset.windows, axis=1).min() > 1


def test_other_rates_are_resampled_to_the_first() -> None:
    first, _ = recording(5)
    trace, truth = recording(6, rig=Rig(rate_hz=50_000.0))
    dataset = extract([first, trace], window_ms=WINDOW_MS)
    assert dataset.rate_hz == RATE
    part = dataset[(dataset.cells == "cell 6") & (dataset.kinds == "clear")]
    assert len(part) > 10
    at = onsets_in_windows(part, truth)
    assert ((at > 0.18) & (at < 0.52)).any(axis=1).all()


def test_short_sweeps_are_passed_over_where_there_are_longer_ones() -> None:
    trace, _ = recording(7)
    short = trace.between(0, 0.005)
    dataset = extract([short, trace], window_ms=WINDOW_MS)
    alone = extract([trace], window_ms=WINDOW_MS)
    np.testing.assert_array_equal(dataset.raw_indices, alone.raw_indices + len(short))


def test_slow_sampling_of_imaging_will_do() -> None:
    rig = Rig(rate_hz=100.0, cutoff_hz=20.0, order=2, hum=0.0)
    trace, truth = recording(
        8, seconds=300, frequency_hz=0.4, amplitude=8, tau_decay_s=0.06, tau_rise_s=0.012, rig=rig
    )
    dataset = extract([trace], window_ms=600, direction="positive")
    assert dataset.length == 60
    clear = dataset[dataset.kinds == "clear"]
    at = onsets_in_windows(clear, truth, 100.0)
    assert len(clear) > 20
    assert ((at > 0.15) & (at < 0.55)).any(axis=1).mean() > 0.95


def test_what_was_extracted_how_is_kept_in_the_file(found: Dataset, tmp_path: Path) -> None:
    save_dataset(found, tmp_path / "a.h5")
    facts = read_dataset(tmp_path / "a.h5").provenance
    assert facts["extracted_from"] == ["cell 0"]
    assert facts["direction"] == "negative"
    assert facts["window_ms"] == WINDOW_MS
    assert facts["thresholds_sd"] == {"high": 6.0, "middle": 3.5, "low": 2.5}
    assert facts["seed"] == 0
    assert facts["quantal"] == quantal.__version__


# Templates ---------------------------------------------------------------------------------------


def test_the_template_of_a_window_peaks_at_1_after_its_onset() -> None:
    template = window_template(600)
    assert len(template.shape) == 300
    assert (template.shape[: template.onset + 1] == 0).all()
    assert template.shape.max() == pytest.approx(1, abs=1e-3)
    assert 0 < template.shape.argmax() - template.onset < 30


def test_a_template_from_events_has_their_shape_though_they_are_jittered() -> None:
    trace, truth = recording(9, seconds=20, tau_decay_s=2e-3, tau_rise_s=4e-4, amplitude=-20)
    dataset = extract([trace], window_ms=24, per_cell=300)
    for given in (dataset, replace(dataset, windows=-dataset.windows)):
        template = template_from(given)
        shape = np.r_[np.zeros(template.onset), biexponential(RATE, 4e-4, 2e-3)]
        offsets = range(-4, 5)  # the filter delays the onset
        errors = [
            np.abs(template.shape - np.roll(shape, k)[: len(template.shape)]).max() for k in offsets
        ]
        assert min(errors) < 0.15
        assert len(template.shape) == pytest.approx(0.5 * dataset.length, abs=1)
    again = extract([trace], window_ms=24, template=dataset, per_cell=300)
    at = onsets_in_windows(again, truth)[again.kinds == "clear"]
    assert len(at) > 50
    assert ((at > 0.18) & (at < 0.52)).any(axis=1).all()
    assert again.provenance["template"] == "events"


def test_a_template_from_events_follows_the_rate() -> None:
    dataset = extract([recording(9)[0]], window_ms=WINDOW_MS)
    slow, fast = template_from(dataset), template_from(dataset, rate_hz=2 * RATE)
    assert len(fast.shape) == pytest.approx(2 * len(slow.shape), abs=3)
    assert fast.onset == pytest.approx(2 * slow.onset, abs=3)


def test_an_average_waveform_of_either_direction_is_a_template(sweep: tuple[Trace, Truth]) -> None:
    waveform = np.r_[np.zeros(12), biexponential(RATE, 2e-4, 1e-3)[:110]]
    up, down = template_from(waveform), template_from(-60 - 20 * waveform)
    np.testing.assert_allclose(up.shape, down.shape, atol=1e-9)
    assert abs(up.onset - 12) <= 1
    by_hand = Template(shape=waveform, onset=12)
    one, other = (
        extract([sweep[0]], window_ms=WINDOW_MS, template=t) for t in (by_hand, -60 - 20 * waveform)
    )
    assert (one.kinds == "clear").sum() == (other.kinds == "clear").sum() == 66


# Bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window_ms": 0}, "window_ms must be a positive number"),
        ({"window_ms": float("nan")}, "window_ms must be a positive number"),
        ({"window_ms": 0.5}, "has 10 samples at 20000 Hz; it needs at least 30"),
        ({"window_ms": 9_000}, "no stretch as long as a window"),
        ({"direction": "both"}, "direction must be one of negative, positive, got 'both'"),
        ({"per_cell": 2}, "per_cell must be at least 3"),
        ({"per_cell": 9.5}, "per_cell must be at least 3"),
        ({"high": 3.0}, "high > middle >= low"),
        ({"low": 0.0}, "high > middle >= low"),
        ({"middle": float("nan")}, "high > middle >= low"),
        ({"template": np.zeros(50)}, "begin before its peak"),
        ({"template": np.exp(-np.arange(50) / 9)}, "begin before its peak"),
        ({"template": [1.0, 2.0]}, "at least 12 finite samples"),
        ({"template": np.sin(np.arange(999) / 300)}, "more than a window of 240"),
    ],
)
def test_what_makes_no_sense_is_refused(
    sweep: tuple[Trace, Truth], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        extract([sweep[0].between(0, 3)], **{"window_ms": WINDOW_MS, **options})


def test_recordings_that_do_not_go_together_are_refused(sweep: tuple[Trace, Truth]) -> None:
    trace = sweep[0].between(0, 2)
    with pytest.raises(UsageError, match=r"'mV'.*'pA'.*one unit"):
        extract([trace, replace(trace, unit="mV")], window_ms=WINDOW_MS)
    with pytest.raises(UsageError, match=r"100 Hz.*too far apart"):
        extract([trace, replace(trace, rate_hz=100.0)], window_ms=WINDOW_MS)
    with pytest.raises(UsageError, match="list of at least one trace"):
        extract([], window_ms=WINDOW_MS)
    with pytest.raises(UsageError, match="list of at least one trace"):
        extract(trace, window_ms=WINDOW_MS)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="a Trace is wanted"):
        extract(["cell.abf"], window_ms=WINDOW_MS)  # type: ignore[list-item]


@pytest.mark.parametrize("level", [-70.0, np.nan])
def test_a_recording_of_nothing_is_refused(level: float) -> None:
    trace = Trace(samples=np.full(9_000, level, np.float32), rate_hz=RATE, unit="pA")
    with pytest.raises(UsageError, match="no stretch as long as a window"):
        extract([trace], window_ms=WINDOW_MS)


def test_events_without_a_score_are_no_template(found: Dataset) -> None:
    with pytest.raises(UsageError, match="no window is scored as an event"):
        template_from(found[found.kinds == "noise"])


def test_a_silent_recording_beside_a_lively_one_gives_noise_only() -> None:
    silent = replace(recording(11, frequency_hz=0.0)[0], recording="silent")
    dataset = extract([recording(10)[0], silent], window_ms=WINDOW_MS)
    of_silent = dataset.kinds[dataset.cells == "silent"]
    assert (of_silent == "noise").sum() == 66
    assert (of_silent == "clear").sum() <= 1


# A real recording --------------------------------------------------------------------------------


def test_synaptic_currents_of_a_real_recording_are_found(shared: Path) -> None:
    traces = quantal.read(shared / "data" / "abf" / "17o05026_vc_stim.abf", sweeps="0,1")
    traces = [trace.exclude([(0.1, 0.45), (1.1, 1.35)]) for trace in traces]
    dataset = extract(traces, window_ms=24, per_cell=90)
    counts = dataset.summary()["kinds"]
    assert counts["clear"] == counts["noise"] == 30
    spans = np.ptp(dataset.windows, axis=1)
    clear, noise = (np.median(spans[dataset.kinds == kind]) for kind in ("clear", "noise"))
    assert clear > 2 * noise

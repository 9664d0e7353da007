"""Simulated preparations: what is said of their events is true of their samples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from quantal.errors import UsageError
from quantal.simulate import Rig, Truth, biexponential, matched
from quantal_trainer.datasets import EVENT, NOISE, Dataset, polarity
from quantal_trainer.preparations import (
    PREPARATIONS,
    Preparation,
    _detectability,
    _labelled_stretch,
    _places,
    artefact_shapes,
    event_shapes,
    simulate_cells,
    simulate_dataset,
)

NAMES = tuple(PREPARATIONS)
# A preparation of which a test can foretell the samples: every cell is alike and nothing disturbs.
CLEAN = replace(
    PREPARATIONS["nmj"],
    amplitude_cv=0.0,
    rise_scatter=0.0,
    decay_scatter=0.0,
    between_cells=0.0,
    artefacts_hz=0.0,
    noise_sd=1e-3,
    frequency_hz=2.0,
    rig=Rig(rate_hz=20_000.0, cutoff_hz=20_000.0, hum=0.0, drift=0.0),
)


@pytest.fixture(scope="module")
def datasets() -> dict[str, Dataset]:
    return {name: simulate_dataset(p, windows=240, cells=4, seed=5) for name, p in _quick().items()}


def _quick() -> dict[str, Preparation]:
    """The preparations, the slow one at a tenth of its rate so that tests stay fast."""
    epsp = PREPARATIONS["epsp"]
    return {**PREPARATIONS, "epsp": replace(epsp, rig=replace(epsp.rig, rate_hz=5_000.0))}


# Recordings


@pytest.mark.parametrize("name", NAMES)
def test_cells_are_named_and_differ(name: str) -> None:
    preparation = _quick()[name]
    cells = simulate_cells(preparation, cells=3, seconds=20 * preparation.window_ms / 1e3, seed=2)
    assert [trace.recording for trace, _ in cells] == ["cell_00", "cell_01", "cell_02"]
    for trace, truth in cells:
        assert (trace.rate_hz, trace.unit) == (preparation.rate_hz, preparation.unit)
        assert trace.duration_s == pytest.approx(20 * preparation.window_ms / 1e3)
        assert np.isfinite(trace.samples).all()
        assert (np.sign(truth.amplitude) == np.sign(preparation.amplitude)).all()
        assert (np.diff(truth.onset_s) > 0).all()
    spread = [trace.samples.std() for trace, _ in cells]
    assert len(set(spread)) == 3


def test_kinetics_amplitudes_and_frequencies_are_those_of_the_preparation_on_average() -> None:
    preparation = replace(_quick()["nmj"], rig=Rig(rate_hz=1_000.0, cutoff_hz=400.0))
    truths = [t for _, t in simulate_cells(preparation, cells=30, seconds=60.0, seed=1)]
    sizes = np.concatenate([t.amplitude for t in truths])
    decays = np.concatenate([t.tau_decay_s for t in truths])
    assert len(sizes) == pytest.approx(30 * 60 * 3, rel=0.25)
    assert np.median(decays) == pytest.approx(6e-3, rel=0.1)
    assert sizes.mean() == pytest.approx(-0.9, rel=0.15)
    assert np.mean(-sizes) > 1.15 * np.median(-sizes)  # skewed
    assert np.log(decays).std() > 0.35
    of_cells = [np.median(t.tau_decay_s) for t in truths]
    assert 0.03 < np.std(np.log(of_cells)) < 0.2


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_truth_is_in_the_trace(sign: float) -> None:
    preparation = replace(CLEAN, amplitude=2.0 * sign, offset=5.0)
    trace, truth = simulate_cells(preparation, cells=1, seconds=5.0, seed=3)[0]
    expected = np.full(len(trace), 5.0)
    t = np.arange(len(trace)) / trace.rate_hz
    for onset_s in truth.onset_s:
        expected += 2.0 * sign * event_shapes(t - onset_s, 1e-3, 6e-3)
    assert len(truth.onset_s) > 3
    late = t > 0.02  # the rig's filter has settled
    assert np.abs(trace.samples - expected)[late].max() < 0.1
    assert np.abs(trace.samples - expected)[late].std() < 0.01


def test_artefacts_are_added_that_are_no_events() -> None:
    """With the same seed, what artefacts add starts at least half a window from every onset."""
    quiet = replace(CLEAN, artefacts_hz=0.0)
    busy = replace(CLEAN, artefacts_hz=1.0)
    (_, truth), (disturbed, same) = (
        simulate_cells(p, cells=1, seconds=20.0, seed=4)[0] for p in (quiet, busy)
    )
    np.testing.assert_array_equal(truth.onset_s, same.onset_s)
    t = np.arange(len(disturbed)) / disturbed.rate_hz
    rest = disturbed.samples - CLEAN.offset
    for onset_s in truth.onset_s:
        rest = rest - CLEAN.amplitude * event_shapes(t - onset_s, 1e-3, 6e-3)
    assert (np.abs(rest) > 0.4 * abs(CLEAN.amplitude)).mean() > 0.02
    edges = t[1:][np.abs(np.diff(rest)) > 0.2 * abs(CLEAN.amplitude)]  # spikes and steps
    assert len(edges) > 3
    nearest = np.abs(edges[:, None] - truth.onset_s[None, :]).min(axis=1)
    assert nearest.min() > 0.45 * CLEAN.window_ms / 1e3


def test_a_seed_stands_for_its_recordings() -> None:
    def one(seed: int) -> tuple[NDArray[np.float32], Truth]:
        trace, truth = simulate_cells(CLEAN, cells=2, seconds=2.0, seed=seed)[1]
        return trace.samples, truth

    first, again, other = one(7), one(7), one(8)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1].onset_s, again[1].onset_s)
    assert not np.array_equal(first[0], other[0])


def test_more_cells_leave_the_first_ones_as_they_are() -> None:
    few = simulate_cells(CLEAN, cells=1, seconds=1.0, seed=7)
    many = simulate_cells(CLEAN, cells=3, seconds=1.0, seed=7)
    np.testing.assert_array_equal(few[0][0].samples, many[0][0].samples)
    assert not np.array_equal(many[0][0].samples, many[1][0].samples)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"cells": 0}, "at least 1 cell"),
        ({"seconds": 0.01}, r"at least a window \(80 ms\), got 0.01 s"),
        ({"seconds": float("nan")}, "at least a window"),
        ({"seed": -1}, "seed must be 0 or more"),
    ],
)
def test_recordings_that_cannot_be_are_refused(how: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        simulate_cells(CLEAN, **{"cells": 1, "seconds": 1.0, "seed": 0, **how})


@pytest.mark.parametrize(
    ("name", "value"),
    [("noise_sd", 0.0), ("window_ms", -1.0), ("tau_decay_s", float("nan")), ("amplitude", 0.0)],
)
def test_a_preparation_that_cannot_be_is_refused(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=name):
        replace(CLEAN, **{name: value})


# Windows


@pytest.mark.parametrize("name", NAMES)
def test_half_of_the_windows_are_events(datasets: dict[str, Dataset], name: str) -> None:
    found, preparation = datasets[name], _quick()[name]
    assert np.bincount(found.scores).tolist() == [120, 120]
    assert found.length == preparation.window_samples
    assert found.window_ms == pytest.approx(preparation.window_ms)
    assert (found.rate_hz, found.unit) == (preparation.rate_hz, preparation.unit)
    assert set(found.kinds[found.scores == EVENT]) == {"simulated event"}
    assert set(found.kinds[found.scores == NOISE]) == {"simulated noise"}
    cells, counts = np.unique(found.cells, return_counts=True)
    assert counts.tolist() == [60] * 4
    for cell in cells:
        assert set(found.scores[found.cells == cell].tolist()) == {NOISE, EVENT}
    assert found.provenance["simulated"]["name"] == name
    assert (found.provenance["seed"], found.provenance["windows"]) == (5, 240)


@pytest.mark.parametrize("name", NAMES)
def test_windows_keep_direction_offset_and_size(datasets: dict[str, Dataset], name: str) -> None:
    found, preparation = datasets[name], PREPARATIONS[name]
    assert polarity(found) == ("positive" if preparation.amplitude > 0 else "negative")
    level = np.median(found.windows)
    wide = max(abs(preparation.offset) * 0.4, 3 * abs(preparation.amplitude))
    assert abs(level - preparation.offset) < wide
    spans = np.ptp(found.windows[found.scores == EVENT], axis=1)
    assert 1.0 < np.median(spans) / abs(preparation.amplitude) < 4.0


def test_no_window_comes_twice(datasets: dict[str, Dataset]) -> None:
    for found in datasets.values():
        assert len({row.tobytes() for row in found.windows}) == len(found)


def test_an_event_begins_within_the_range_that_the_network_fires_for() -> None:
    """In nearly noiseless windows the onset is where the samples leave the baseline."""
    found = simulate_dataset(replace(CLEAN, artefacts_hz=0.0), windows=200, cells=2, seed=1)
    events = found.windows[found.scores == EVENT] - CLEAN.offset
    fall = np.diff(events, axis=1).min(axis=1)
    starts = np.diff(events, axis=1) < -0.02  # a fast fall: only an onset has that
    assert (fall < -0.02).all()
    places = starts & ~np.roll(starts, 1, axis=1)
    share = np.arange(1, found.length) / found.length
    inside = (share > 0.17) & (share < 0.53)
    assert (places & inside).any(axis=1).all()
    first = np.array([share[row & inside][0] for row in places])
    assert first.min() < 0.22
    assert first.max() > 0.48


@pytest.mark.parametrize("name", NAMES)
def test_windows_are_cut_where_the_truth_allows_their_score(name: str) -> None:
    cell = replace(_quick()[name], frequency_hz=3e2 / _quick()[name].window_ms, artefacts_hz=0.5)
    width, rng = cell.window_samples, np.random.default_rng(1)
    samples, stretch = _labelled_stretch(cell, 200 * width, rng)
    places = _places(stretch, width, rng)
    seen = stretch.onsets[stretch.detectability >= 6]
    visible = stretch.onsets[stretch.detectability >= 3.5]
    assert min(len(places[kind]) for kind in ("event", "flank", "quiet")) > 5
    for kind, starts in places.items():
        assert (starts >= 0).all()
        assert (starts + width <= len(samples)).all()
        for start in starts:
            if kind == "event":
                share = (seen - start) / width
                assert ((share > 0.17) & (share < 0.53)).any()
            else:
                share = (visible - start) / width
                assert not ((share > 0.11) & (share < 0.59)).any()
            if kind == "flank":
                assert ((share > -0.4) & (share < 1)).any()


def test_a_dataset_is_that_of_its_seed() -> None:
    def one(seed: int) -> Dataset:
        return simulate_dataset(PREPARATIONS["optical"], windows=60, cells=2, seed=seed)

    first, again, other = one(3), one(3), one(4)
    for name in ("windows", "scores", "cells", "kinds"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert not np.array_equal(first.windows, other.windows)
    assert not set(first.cells) & set(other.cells)


def test_odd_numbers_are_shared_out() -> None:
    found = simulate_dataset(PREPARATIONS["optical"], windows=31, cells=3, seed=0)
    assert len(found) == 31
    assert abs(int(np.bincount(found.scores)[EVENT]) - 15) <= 2
    assert len(np.unique(found.cells)) == 3


def test_events_are_larger_than_noise_alone(datasets: dict[str, Dataset]) -> None:
    """Averaged, event windows show an event and noise windows show none."""
    for name, found in datasets.items():
        sign = np.sign(PREPARATIONS[name].amplitude)
        level = sign * (found.windows - np.median(found.windows, axis=1, keepdims=True))
        third = slice(found.length // 6, found.length * 2 // 3)
        heights = [
            level[found.scores == score][:, third].mean(axis=0).max() for score in (NOISE, EVENT)
        ]
        assert heights[1] > 2 * heights[0], name


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"windows": 3}, "2 cells need at least 4 windows, got 3"),
        ({"cells": 0}, "at least 1 cell"),
        ({"seed": -3}, "seed must be 0 or more"),
    ],
)
def test_datasets_that_cannot_be_are_refused(how: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        simulate_dataset(CLEAN, **{"windows": 8, "cells": 2, "seed": 0, **how})


def test_events_that_no_one_can_see_are_not_sought_for_ever() -> None:
    hidden = replace(PREPARATIONS["optical"], noise_sd=50.0)
    with pytest.raises(UsageError, match=r"too few windows of event.*less noise"):
        simulate_dataset(hidden, windows=4, cells=2, seed=0)


# Shapes


def test_an_event_is_that_of_the_engines_simulation() -> None:
    expected = biexponential(10_000.0, 1e-3, 6e-3)
    t = (np.arange(len(expected) + 50) - 50) / 10_000
    found = event_shapes(t, 1e-3, 6e-3)
    np.testing.assert_allclose(found[50:], expected, atol=1e-12)
    assert (found[:50] == 0).all()


def test_detectability_is_that_of_a_matched_filter_in_the_rigs_noise() -> None:
    """The filter's output has SD 1 in noise and d' at the event, without its mean."""
    cell = replace(CLEAN, noise_sd=0.7, rig=Rig(rate_hz=20_000.0, corner_hz=200.0, drift=0, hum=0))
    truth = Truth(
        onset_s=np.zeros(1),
        amplitude=np.array([-2.0]),
        tau_rise_s=np.array([1e-3]),
        tau_decay_s=np.array([6e-3]),
    )
    n = 3_200  # two windows
    gain = cell.rig.noise_gain(n)
    shape = np.fft.rfft(event_shapes(np.arange(n) / 20_000, 1e-3, 6e-3)) * cell.rig.response(n)
    shape[0] = 0
    matched_filter = np.fft.irfft(shape / gain**2, n)
    rng = np.random.default_rng(0)
    noise = [
        0.7 * np.fft.irfft(np.fft.rfft(rng.standard_normal(n)) * gain, n) @ matched_filter
        for _ in range(400)
    ]
    event = 2.0 * np.fft.irfft(shape, n) @ matched_filter
    assert _detectability(truth, cell)[0] == pytest.approx(event / np.std(noise), rel=0.1)


def test_artefacts_are_spikes_symmetric_bumps_and_steps_up_and_down() -> None:
    rng = np.random.default_rng(0)
    t = np.tile(np.arange(2_000.0) - 100, (300, 1))
    shapes = artefact_shapes(t, 600, rng)
    assert (shapes[:, :100] == 0).all()
    heights = np.abs(shapes).max(axis=1)
    assert heights.min() > 0.7
    assert heights.max() < 1.001
    rows = np.arange(300)
    up = shapes[rows, np.abs(shapes).argmax(axis=1)] > 0
    assert 0.35 < up.mean() < 0.65
    lasts = (np.abs(shapes) > 0.5).sum(axis=1)
    spikes, bumps, steps = lasts <= 12, (lasts >= 90) & (lasts <= 460), lasts > 500
    assert (spikes.astype(int) + bumps + steps == 1).all()
    assert min(spikes.mean(), bumps.mean(), steps.mean()) > 0.2
    for shape in np.abs(shapes[bumps]):
        part = shape[np.flatnonzero(shape)]
        np.testing.assert_allclose(part, part[::-1], atol=1e-9)
    sharpest = np.abs(np.diff(shapes[steps], axis=1)).argmax(axis=1)
    assert (sharpest == 99).all()


def test_true_events_are_found_by_their_own_times() -> None:
    """What a benchmark relies on: a detector told the truth scores all of it."""
    _, truth = simulate_cells(_quick()["nmj"], cells=1, seconds=10.0, seed=0)[0]
    assert matched(truth.onset_s, truth.onset_s + 1e-4, tolerance_s=5e-4) == len(truth.onset_s) > 5

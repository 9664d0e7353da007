"""Augmentation: what is added, on what, how large, and that the originals stay as they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from quantal.errors import UsageError
from quantal_trainer.augment import Augmentation, _fitted, _kinetics, _read_at, augment
from quantal_trainer.datasets import (
    EVENT,
    EXCLUDED,
    NOISE,
    UNKNOWN,
    Dataset,
    polarity,
    split,
)
from quantal_trainer.preparations import event_shapes

Floats = NDArray[np.float64]
LENGTH, RATE = 300, 25_000.0
# Per cell: rise, decay (samples), amplitude, and the level of its baseline, by which one knows it.
CELLS = {"a": (4.0, 25.0, 10.0, 100.0), "b": (8.0, 50.0, 30.0, 200.0)}


def dataset(*, sign: float = -1.0, each: int = 40, noise_sd: float = 1.0) -> Dataset:
    """Events at 0.3 of the window, and noise, of two cells with kinetics of their own."""
    rng = np.random.default_rng(0)
    parts, t = [], np.arange(LENGTH, dtype=np.float64)
    for rise, decay, amplitude, level in CELLS.values():
        windows = level + rng.normal(0, noise_sd, (2 * each, LENGTH))
        at = 90 + rng.uniform(-8, 8, (each, 1))
        sizes = amplitude * rng.uniform(0.8, 1.2, (each, 1))
        windows[each:] += sign * sizes * event_shapes(t - at, rise, decay)
        parts.append(windows)
    return Dataset(
        windows=np.concatenate(parts).astype(np.float32),
        scores=np.tile(np.repeat([NOISE, EVENT], each), 2).astype(np.int8),
        rate_hz=RATE,
        unit="pA",
        cells=np.repeat(list(CELLS), 2 * each),
        raw_indices=np.arange(4 * each),
        kinds=np.full(4 * each, "clear"),
        provenance={"from": "a test"},
    )


def added(whole: Dataset, **config: Any) -> Dataset:
    return augment(whole, Augmentation(**config), seed=1)[len(whole) :]


def fitted(part: Dataset, sign: float, cell: str) -> tuple[Floats, Floats]:
    """Onsets and amplitudes of the windows of a cell."""
    rise, decay, *_ = CELLS[cell]
    windows = sign * part.windows[part.cells == cell].astype(np.float64)
    return _fitted(windows, rise, decay)[:2]


EVERYTHING = Augmentation(
    artefacts=0.5,
    events=1.0,
    copies=2,
    amplitude_jitter=0.3,
    time_jitter_ms=0.5,
    kinetics_stretch=0.2,
)


# Configuration


def test_a_table_gives_the_configuration() -> None:
    found = Augmentation.from_dict({"events": 1, "copies": 2, "time_jitter_ms": 0.5})
    assert found == Augmentation(events=1.0, copies=2, time_jitter_ms=0.5)
    assert Augmentation.from_dict({}) == Augmentation()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"artifacts": 0.5, "event": 1}, "no artifacts, event; it knows artefacts, events, "),
        ({"events": -0.1}, "events must be 0 to 10, got -0.1"),
        ({"artefacts": "many"}, "artefacts must be 0 to 10, got 'many'"),
        ({"events": True}, "events must be 0 to 10, got True"),
        ({"events": float("nan")}, "events must be"),
        ({"copies": 1, "amplitude_jitter": 1.0}, "amplitude_jitter must be 0 to 0.9"),
        ({"copies": 1, "kinetics_stretch": 2}, "kinetics_stretch must be 0 to 1, got 2"),
        ({"copies": 1, "time_jitter_ms": -1.0}, "time_jitter_ms must be 0 or more"),
        ({"copies": 1.5, "time_jitter_ms": 1.0}, "whole number, got 1.5"),
        ({"copies": 2}, "copies are what is jittered"),
        ({"amplitude_jitter": 0.2}, "give copies"),
    ],
)
def test_what_is_not_known_or_out_of_range_is_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Augmentation.from_dict(table)


# The whole


def test_originals_stay_and_come_first() -> None:
    whole = dataset()
    found = augment(whole, EVERYTHING, seed=3)
    for name in ("windows", "scores", "cells", "raw_indices", "kinds"):
        np.testing.assert_array_equal(getattr(found, name)[: len(whole)], getattr(whole, name))
    new = found[len(whole) :]
    kinds, counts = np.unique(new.kinds, return_counts=True)
    assert dict(zip(kinds.tolist(), counts.tolist(), strict=True)) == {
        "augmented artefact": 40,
        "augmented event": 80,
        "augmented copy": 320,
    }
    assert (new.raw_indices == UNKNOWN).all()
    assert np.isfinite(new.windows).all()
    assert found.provenance["from"] == "a test"
    assert found.provenance["augmented"]["events"] == 1.0
    assert found.provenance["augmented"]["seed"] == 3


def test_nothing_asked_for_is_nothing_added() -> None:
    whole = dataset()
    assert augment(whole, Augmentation()) is whole


def test_a_new_window_is_of_the_cell_of_its_origin() -> None:
    """The two cells differ in their baseline, which every new window must have kept."""
    whole = dataset()
    for config in (
        {"artefacts": 1.0},
        {"events": 1.0},
        {"copies": 1, "amplitude_jitter": 0.2, "time_jitter_ms": 1.0, "kinetics_stretch": 0.2},
    ):
        new = added(whole, **config)
        for cell, (_, _, amplitude, level) in CELLS.items():
            own = new.windows[new.cells == cell]
            assert len(own) > 20
            quietest = np.abs(own - level).min(axis=1)
            assert (quietest < 0.5).mean() > 0.9, (config, amplitude)


def test_augmenting_the_training_part_leaves_no_trace_of_validation() -> None:
    training, held = split(dataset(), validation=0.5)
    assert not set(augment(training, EVERYTHING).cells) & set(held.cells)


def test_the_same_seed_adds_the_same_windows_whatever_else_is_added() -> None:
    whole = dataset()
    first, again = (augment(whole, EVERYTHING, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.windows, again.windows)
    assert not np.array_equal(first.windows, augment(whole, EVERYTHING, seed=4).windows)
    alone = augment(whole, Augmentation(events=1.0), seed=3)[len(whole) :]
    np.testing.assert_array_equal(alone.windows, first.windows[first.kinds == "augmented event"])


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_everything_added_points_the_datasets_own_way(sign: float) -> None:
    new = added(dataset(sign=sign), events=1.0)
    assert polarity(new) == ("positive" if sign > 0 else "negative")
    for cell in CELLS:
        assert (fitted(new, sign, cell)[1] > 5).all()


def test_what_is_excluded_or_cannot_be_read_is_no_origin() -> None:
    whole = dataset()
    scores, windows = whole.scores.copy(), whole.windows.copy()
    scores[:5], windows[:5] = EXCLUDED, 1e6
    windows[5], windows[6, 3] = 1e6, np.nan  # flat, and with a gap
    found = augment(replace(whole, scores=scores, windows=windows), EVERYTHING)
    new = found[len(whole) :]
    assert np.abs(new.windows).max() < 1e4
    assert EXCLUDED not in new.scores
    assert (found.scores[: len(whole)] == scores).all()
    assert (new.kinds == "augmented copy").sum() == 2 * (len(whole) - 7)


@pytest.mark.parametrize(
    ("score", "config", "message"),
    [
        (EVENT, {"events": 1.0}, "nothing to put events on"),
        (EVENT, {"artefacts": 1.0}, "no window is scored as noise"),
        (NOISE, {"events": 1.0}, "no window is scored as an event"),
        (None, {"copies": 1, "time_jitter_ms": 4.0}, "at most 3, a quarter of the window, got 4"),
    ],
)
def test_a_dataset_that_lacks_what_is_needed_is_refused(
    score: int | None, config: dict[str, Any], message: str
) -> None:
    whole = dataset()
    part = whole if score is None else whole[whole.scores == score]
    with pytest.raises(UsageError, match=message):
        augment(part, Augmentation(**config))


def test_copies_need_no_noise_windows() -> None:
    whole = dataset()
    events = whole[whole.scores == EVENT]
    assert len(added(events, copies=3, time_jitter_ms=0.2)) == 3 * len(events)


# Artefacts and events


def test_artefacts_are_noise_of_the_events_size_on_noise() -> None:
    new = added(dataset(), artefacts=2.0)
    assert (new.scores == NOISE).all()
    for cell, (_, _, amplitude, level) in CELLS.items():
        largest = np.abs(new.windows[new.cells == cell] - level).max(axis=1)
        assert (largest < 4.5 * amplitude + 5).all()
        assert 0.5 * amplitude < np.median(largest) < 3 * amplitude
    ups = new.windows - np.median(new.windows, axis=1, keepdims=True)
    assert 0.25 < (ups.max(axis=1) > -ups.min(axis=1)).mean() < 0.75


def test_simulated_events_are_like_those_of_their_cell() -> None:
    new = added(dataset(), events=2.0)
    assert (new.scores == EVENT).all()
    for cell, (rise, decay, amplitude, _) in CELLS.items():
        onset, size = fitted(new, -1.0, cell)
        assert np.median(size) == pytest.approx(amplitude, rel=0.1)
        assert np.abs(onset / LENGTH - 0.3).max() < 0.08
        own = -new.windows[new.cells == cell].astype(np.float64)
        found = _kinetics(own)
        assert found[0] == pytest.approx(rise, rel=0.35)
        assert found[1] == pytest.approx(decay, rel=0.2)
        assert np.std(size) > 0.05 * amplitude


def test_events_are_put_on_every_noise_window_before_any_has_two() -> None:
    whole = dataset(noise_sd=1.0)
    new = added(whole, events=0.5)
    noise = whole.windows[whole.scores == NOISE]
    ends = {row[-20:].tobytes(): i for i, row in enumerate(noise)}  # the events are over there
    tails = new.windows[new.cells == "a"][:, -20:]
    nearest = [
        min(ends.values(), key=lambda i: float(np.abs(noise[i, -20:] - tail).sum()))
        for tail in tails
    ]
    assert len(set(nearest)) == len(nearest) > 10


def test_no_event_is_put_where_something_larger_hides_it() -> None:
    whole = dataset()
    windows = whole.windows.copy()
    loud = np.flatnonzero(whole.scores == NOISE)[:10]
    windows[loud, 150:] += 500.0
    new = added(replace(whole, windows=windows), events=1.0)
    assert np.ptp(new.windows, axis=1).max() < 200
    assert len(new) == 80


def test_a_cell_with_few_events_borrows_those_of_all() -> None:
    whole = dataset()
    few = np.flatnonzero((whole.cells == "b") & (whole.scores == EVENT))[3:]
    rest = whole[np.setdiff1d(np.arange(len(whole)), few)]
    new = added(rest, events=1.0)
    onset, size = fitted(new, -1.0, "b")
    assert len(onset) > 20
    assert np.median(size) < 20  # of cell a, whose events are nearly all there are


# Jittered copies


def test_amplitude_jitter_scales_the_event_and_leaves_the_noise() -> None:
    whole = dataset(noise_sd=0.2)
    new = added(whole, copies=1, amplitude_jitter=0.5)
    events = whole.scores == EVENT
    np.testing.assert_allclose(new.windows[~events], whole.windows[~events], atol=1e-3)
    change = np.abs(new.windows - whole.windows)[events]
    assert change[:, :75].max() < 1e-3  # before any event
    for cell in CELLS:
        factor = fitted(new[events], -1.0, cell)[1] / fitted(whole[events], -1.0, cell)[1]
        assert (np.abs(factor - 1) < 0.52).all()
        assert factor.min() < 0.7
        assert factor.max() > 1.3
    late = change[(whole.cells[events] == "a"), -30:]  # there nothing is left of cell a's events
    assert late.max() < 0.05


def test_time_jitter_shifts_whole_windows_and_mirrors_their_ends() -> None:
    whole = dataset()
    new = added(whole, copies=1, time_jitter_ms=0.4)  # 10 samples
    mirrored = np.concatenate(
        [whole.windows[:, :20][:, ::-1], whole.windows, whole.windows[:, -20:][:, ::-1]], axis=1
    )
    shifts = []
    for row, original in zip(new.windows, mirrored, strict=True):
        off = [np.abs(original[20 - s : 20 - s + LENGTH] - row).max() for s in range(-10, 11)]
        shifts.append(int(np.argmin(off)) - 10)
        assert min(off) < 1e-3
    assert set(shifts) == set(range(-10, 11))


def test_stretching_changes_decay_but_not_onset_amplitude_or_noise() -> None:
    whole = dataset(noise_sd=0.3)
    new = added(whole, copies=4, kinetics_stretch=0.5)
    events = new.scores == EVENT
    for cell, (rise, decay, amplitude, _) in CELLS.items():
        windows = -new.windows[events & (new.cells == cell)].astype(np.float64)
        onset, *_ = _fitted(windows, rise, decay)
        assert np.abs(onset - 90).max() < 20
        above = windows - windows[:, :60].mean(axis=1, keepdims=True)
        half_width = (above > 0.5 * above.max(axis=1, keepdims=True)).sum(axis=1)
        original = 1.1 * decay
        assert half_width.min() < 0.85 * original
        assert half_width.max() > 1.25 * original
        heights = np.ptp(windows, axis=1)
        assert np.median(heights) == pytest.approx(amplitude + 1.5, rel=0.12)
    quiet = new.windows[~events] - np.where(new.cells[~events] == "a", 100, 200)[:, None]
    assert quiet.std() == pytest.approx(0.3, rel=0.15)


def test_reading_between_samples_is_exact_at_samples_and_smooth_between() -> None:
    t = np.arange(60.0)
    windows = np.stack([np.sin(0.3 * t), -70 + 0.1 * np.cos(0.2 * t)])
    at = np.broadcast_to(t, (2, 60))
    np.testing.assert_allclose(_read_at(windows, at), windows, atol=1e-9)
    between = _read_at(windows, at[:, 10:50] + 0.37)
    u = t[10:50] + 0.37
    np.testing.assert_allclose(
        between, np.stack([np.sin(0.3 * u), -70 + 0.1 * np.cos(0.2 * u)]), atol=1e-4
    )
    outside = _read_at(windows, np.array([[-1.0, -3.0, 60.0, 62.0]] * 2))
    np.testing.assert_allclose(outside, windows[:, [0, 2, 59, 57]], atol=1e-9)


# What the dataset's own events are like


def test_an_event_is_fitted_where_it_is_and_as_large_as_it_is() -> None:
    rng = np.random.default_rng(2)
    t = np.arange(LENGTH, dtype=np.float64)
    onset, size = rng.uniform(40, 180, 50), rng.uniform(5, 30, 50)
    windows = -60 + size[:, None] * event_shapes(t - onset[:, None], 5.0, 25.0)
    found, amplitude, baseline = _fitted(windows + rng.normal(0, 0.2, windows.shape), 5.0, 25.0)
    np.testing.assert_allclose(found, onset, atol=1.5)
    np.testing.assert_allclose(amplitude, size, rtol=0.1)
    np.testing.assert_allclose(baseline, -60, atol=0.5)


@pytest.mark.parametrize(("rise", "decay"), [(1.5, 12.0), (5.0, 25.0), (12.0, 40.0)])
def test_the_average_event_tells_rise_and_decay(rise: float, decay: float) -> None:
    rng = np.random.default_rng(3)
    t = np.arange(LENGTH, dtype=np.float64)
    onset = rng.uniform(60, 150, 60)
    windows = 10 * event_shapes(t - onset[:, None], rise, decay)
    found = _kinetics(windows + rng.normal(0, 1.0, windows.shape))
    assert found[0] == pytest.approx(rise, rel=0.35)
    assert found[1] == pytest.approx(decay, rel=0.12)


def test_windows_without_any_event_still_give_time_constants_within_the_window() -> None:
    rng = np.random.default_rng(4)
    for windows in (np.zeros((6, 60)), rng.normal(0, 1, (6, 60)), np.ones((5, 8)) * np.arange(8)):
        rise, decay = _kinetics(windows)
        assert 0 < rise <= windows.shape[1]
        assert 0 < decay <= windows.shape[1]


def test_windows_of_few_samples_can_be_augmented() -> None:
    whole = dataset()
    short = replace(whole, windows=whole.windows[:, 80:140:6].copy(), rate_hz=RATE / 6)
    assert short.length == 10
    found = augment(short, replace(EVERYTHING, time_jitter_ms=0.3))
    assert np.isfinite(found.windows).all()

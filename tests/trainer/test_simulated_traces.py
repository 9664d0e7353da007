"""Simulated stretches for trace networks: seeded, and labelled where events rise steepest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from quantal.simulate import Rig, biexponential
from quantal_trainer.simulated_traces import (
    CLASSES,
    CROWDED,
    PIECE,
    RATE_HZ,
    STRETCH,
    USUAL,
    Family,
    Stretch,
    _kind,
    class_of,
    joined,
    label_hops,
    random_rig,
    simulate_pieces,
    simulate_stretch,
)


def stretch(rises: list[int], *, seen: float = 10.0, reach: float = 25.0) -> Stretch:
    n = len(rises)
    return Stretch(
        samples=np.zeros(1_000, np.float32),
        rises=np.array(rises, np.int64),
        detectability=np.full(n, seen),
        reach=np.full(n, reach),
        size=np.ones(n),
        width=np.full(n, 25.0),
    )


def test_the_same_seed_gives_the_same_pieces_whatever_the_workers() -> None:
    one, two = simulate_pieces(7, seed=3), simulate_pieces(7, seed=3, workers=2)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(one.samples, simulate_pieces(7, seed=4).samples)


def test_pieces_are_finite_and_of_one_shape() -> None:
    pieces = simulate_pieces(60, seed=1)
    assert len(pieces.samples) >= 60
    assert pieces.samples.shape[1:] == (PIECE,)
    assert pieces.labels.shape == pieces.weights.shape == (len(pieces.samples), PIECE // 10)
    assert np.isfinite(pieces.samples).all()
    assert 0.003 < (pieces.labels > 0).mean() < 0.1
    assert (pieces.weights[pieces.labels > 0] == 1).all()
    assert set(np.unique(pieces.labels)) == set(range(1 + CLASSES))


def test_a_family_says_how_common_artefacts_are() -> None:
    calm = replace(USUAL, artefacts=0.0, flicker=0.0)
    largest = {}
    for name, family in (("calm", calm), ("usual", USUAL), ("crowded", CROWDED)):
        made = [simulate_stretch(np.random.default_rng((1, k)), family) for k in range(60)]
        below = [-np.percentile(s.samples - np.median(s.samples), 0.1) for s in made]
        largest[name] = np.array(below)
    assert (largest["usual"] > 12).sum() > (largest["calm"] > 12).sum() + 3
    assert (largest["crowded"] > 12).sum() > (largest["usual"] > 12).sum()


def test_pieces_are_cut_and_joined_by_row() -> None:
    pieces = simulate_pieces(6, seed=1)
    again = joined([pieces.at(slice(0, 2)), pieces.at(np.arange(6) >= 2)])
    for a, b in zip(pieces, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_trace_rises_where_the_truth_says() -> None:
    rng = np.random.default_rng(5)
    steeper = total = 0
    for _ in range(60):
        found = simulate_stretch(rng)
        clear = found.rises[found.detectability > 25]
        clear = clear[(clear > 500) & (clear < STRETCH - 500)]
        for at in clear:
            total += 1
            steeper += found.samples[at : at + 12].mean() > found.samples[at - 12 : at].mean()
    assert total > 30
    assert steeper > 0.93 * total


def test_labels_lie_within_reach_and_nothing_is_said_around_them() -> None:
    labels, weights = label_hops(stretch([505]))
    assert np.flatnonzero(labels).tolist() == [48, 49, 50, 51, 52]  # 505 +- 25, middles at 4.5
    unsaid = np.flatnonzero(weights == 0)
    assert unsaid.min() >= (505 - 37.5 - 10) // 10
    assert unsaid.max() <= (505 + 37.5 + 10) // 10
    assert not set(unsaid) & {48, 49, 50, 51, 52}


def test_a_label_says_how_wide_its_event_is() -> None:
    widths = np.array([1.0, 14.0, 16.0, 50.0, 290.0, 310.0])  # samples; 15 and 300 part the last
    assert class_of(widths).tolist() == [1, 1, 2, 4, CLASSES - 1, CLASSES]
    both = stretch([300, 600])
    both.width[1] = 500.0
    labels, _ = label_hops(both)
    assert labels[30] == class_of(np.array([25.0]))[0]
    assert labels[60] == CLASSES


def test_between_two_events_three_milliseconds_apart_the_label_falls() -> None:
    labels, weights = label_hops(stretch([500, 575], reach=14.0))
    between = labels[50:58]
    assert labels[49:51].any()
    assert labels[57:59].any()
    assert ((between == 0) & (weights[50:58] == 1)).any()


@pytest.mark.parametrize("seen", [0.0, 2.4])
def test_of_an_event_that_cannot_be_seen_nothing_is_said(seen: float) -> None:
    labels, weights = label_hops(stretch([505], seen=seen))
    assert not labels.any()
    assert not weights[50]
    assert weights[:40].all()


def test_an_event_buried_under_a_larger_one_is_not_asked_for() -> None:
    both = stretch([500, 520])
    both.size[1] = 30.0
    labels, _ = label_hops(both)
    assert labels[51]
    assert not labels[47]


def test_detectability_is_that_of_a_whitened_matched_filter() -> None:
    """Told waveform and noise, the filter's output has SD 1 in noise and d' at the event."""
    rng = np.random.default_rng(3)
    n, shape = 4096, biexponential(1.0, 5.0, 25.0)
    for rig in (Rig(rate_hz=RATE_HZ), replace(random_rig(rng), digitiser=0.1)):
        gain = rig.noise_gain(n)
        whitened = np.fft.rfft(shape, n) * rig.response(n) / gain
        whitened[0] = 0.0  # the observer knows no baseline
        template = np.fft.irfft(whitened, n)
        template /= np.linalg.norm(template)

        def observed(recorded: np.ndarray, gain=gain, template=template) -> float:  # type: ignore[no-untyped-def]
            return float(template @ np.fft.irfft(np.fft.rfft(recorded) / gain, n))

        noise = [np.fft.irfft(np.fft.rfft(rng.standard_normal(n)) * gain, n) for _ in range(300)]
        event = np.fft.irfft(np.fft.rfft(shape, n) * rig.response(n), n)
        assert np.std([observed(x) for x in noise]) == pytest.approx(1.0, abs=0.15)
        assert observed(event) == pytest.approx(_kind(shape, rig).unit, rel=1e-4)


@pytest.mark.parametrize("family", [USUAL, CROWDED])
def test_rigs_reach_around_the_usual_patch_clamp_one(family: Family) -> None:
    rng = np.random.default_rng(0)
    rigs = [random_rig(rng, family) for _ in range(200)]
    assert min(r.cutoff_hz for r in rigs) < Rig().cutoff_hz < max(r.cutoff_hz for r in rigs)
    assert {r.rate_hz for r in rigs} == {RATE_HZ}
    assert any(np.isfinite(r.band_hz) for r in rigs)
    assert any(r.corner_hz > 0 for r in rigs)
    assert any(np.isfinite(r.rising_hz) for r in rigs)

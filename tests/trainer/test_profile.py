"""What windows look like, and what is told where they look unlike a base's."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from quantal_trainer.profile import profile, rise_place, speaks_for, unlike

Array = NDArray[np.float32]


def windows(place: float = 0.35, decay: float = 1 / 12, noise: float = 0.02) -> Array:
    """Scaled windows of 600 samples, each with an event that rises at a part of it."""
    rng = np.random.default_rng(0)
    t = (np.arange(600) - 600 * place) / 600
    shape = np.where(t > 0, -np.expm1(-t / 0.01) * np.exp(-t / decay), 0.0)
    raw = shape / shape.max() + rng.normal(0, noise, (40, 600))
    low, high = raw.min(axis=1, keepdims=True), raw.max(axis=1, keepdims=True)
    return np.asarray((raw - low) / (high - low), np.float32)


def noise_windows() -> Array:
    return np.random.default_rng(1).random((40, 600), np.float32)


def both(events: Array) -> tuple[Array, Array]:
    noise = noise_windows()
    labels = np.r_[np.ones(len(events)), np.zeros(len(noise))].astype(np.float32)
    return np.concatenate([events, noise]), labels


@pytest.mark.parametrize("place", [0.2, 0.35, 0.5])
def test_the_rise_is_where_it_was_put(place: float) -> None:
    found = rise_place(windows(place)) / 600
    np.testing.assert_allclose(found, place, atol=0.02)


def test_a_card_speaks_for_the_rise_and_searches_around_it() -> None:
    places = (0.25, 0.3, 0.35, 0.4, 0.45)
    reference, search = speaks_for(np.concatenate([windows(p) for p in places]))
    assert reference == pytest.approx(215, abs=12)
    assert search == pytest.approx(60, abs=12)
    assert speaks_for(windows(0.35))[1] == 20


def test_windows_are_like_themselves() -> None:
    known = profile(*both(windows()))
    assert set(known) == {"noise_roughness", "event_roughness", "event_place", "event_width"}
    assert unlike(known, known) == []


@pytest.mark.parametrize(
    ("strange", "words"),
    [
        (windows(place=0.7), "events rise at 0.7"),
        (windows(decay=1.0), "above half their height for"),
        (windows(noise=0.3), "event windows differ by"),
    ],
)
def test_what_differs_is_told_with_what_to_do(strange: Array, words: str) -> None:
    said = " ".join(unlike(profile(*both(windows())), profile(*both(strange))))
    assert words in said
    assert "the base was trained on" in said


def test_a_kind_of_few_windows_says_nothing() -> None:
    few = profile(windows()[:4], np.ones(4, np.float32))
    assert few == {}
    assert unlike(profile(*both(windows())), few) == []

"""Training of trace networks: what counts, what is a mistake, and that it learns."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from quantal_trainer import calibrate_trace as room
from quantal_trainer.backend import keras
from quantal_trainer.calibrate_trace import calibrate_trace
from quantal_trainer.fit_trace import (
    batch_of,
    compile_trace,
    cross_entropy,
    fit_trace,
    mistaken,
    piece_scores,
)
from quantal_trainer.simulated_traces import PIECE, Pieces, Stretch, simulate_pieces
from quantal_trainer.trace_network import HOP, trace_network, with_classes

HOPS = PIECE // HOP


def blank(count: int = 1) -> Pieces:
    return Pieces(
        np.zeros((count, PIECE), np.float16),
        np.zeros((count, HOPS), np.uint8),
        np.ones((count, HOPS), np.uint8),
    )


def test_the_ends_of_a_piece_do_not_count() -> None:
    x, y, weights = batch_of(blank(3), np.array([0, 2]))
    assert x.shape == (2, PIECE, 1)
    assert y.shape == (2, HOPS, 1)
    assert weights[:, :100].sum() == weights[:, -100:].sum() == 0
    assert weights[:, 200:-200].all()


def test_labels_say_whether_and_classes_what() -> None:
    pieces = blank()
    pieces.labels[0, 500] = 3
    for classes, expected in ((False, 1), (True, 3)):
        _, y, _ = batch_of(pieces, np.array([0]), classes=classes)
        assert y[0, 500, 0] == expected
        assert y.sum() == expected


def test_a_high_score_far_from_events_is_a_mistake() -> None:
    pieces = blank(4)
    pieces.labels[:, 500] = 1
    pieces.weights[3, 700] = 0
    scores = np.zeros((4, HOPS), np.float32)
    scores[0, 502] = 0.9  # close enough
    scores[1, 510] = 0.9
    scores[2, 510] = 0.4
    scores[3, 701] = 0.9  # nothing can be said there
    assert mistaken(scores, pieces).tolist() == [False, True, False, False]


def test_cross_entropy_is_that_of_hops_with_a_label() -> None:
    pieces = blank()
    scores = np.full((1, HOPS), 0.25, np.float32)
    assert cross_entropy(scores, pieces) == pytest.approx(-np.log(0.75))
    pieces.labels[:] = 1
    assert cross_entropy(scores, pieces) == pytest.approx(-np.log(0.25))
    pieces.weights[:, 300:] = 0
    scores[:, 300:] = 0.99
    assert cross_entropy(scores, pieces) == pytest.approx(-np.log(0.25))


@pytest.mark.parametrize("learns", [with_classes, lambda network: network])
def test_training_learns_and_the_same_seed_gives_the_same_weights(
    learns: Callable[[keras.Model], keras.Model],
) -> None:
    pieces = simulate_pieces(24, seed=2)
    results = []
    for _ in range(2):
        keras.utils.set_random_seed(1)
        network = trace_network((8, 8, 8))
        learner = learns(network)
        compile_trace(learner, 5e-3, 24)
        before = cross_entropy(piece_scores(network, pieces), pieces)
        fit_trace(learner, pieces, batch=4, epochs=4, seed=1)
        results.append(piece_scores(network, pieces))
    assert cross_entropy(results[0], pieces) < 0.5 * before
    np.testing.assert_array_equal(results[0], results[1])


@pytest.mark.parametrize("offset", [-1.0, 2.0])
def test_calibration_takes_a_known_shift_back(
    monkeypatch: pytest.MonkeyPatch, offset: float
) -> None:
    rises = np.arange(5_000, 60_000, 2_503)

    def known(_: object) -> Stretch:
        n = len(rises)
        return Stretch(
            samples=np.zeros(65_536, np.float32),
            rises=rises,
            detectability=np.full(n, 9.0),
            reach=np.full(n, 20.0),
            size=np.ones(n),
            width=np.full(n, 50.0),
        )

    def logits(_: object, traces: list[object]) -> list[np.ndarray]:
        x = np.full(6_400, -6.0 + offset, np.float32)
        x[rises // HOP] = 0.2 + offset  # an event is hardly above 0.5
        x[rises // HOP + 60] = -0.2 + offset  # what is none is hardly below
        return [x for _ in traces]

    shifts: list[float] = []
    monkeypatch.setattr(room, "simulate_stretch", known)
    monkeypatch.setattr(room, "_logits", logits)
    monkeypatch.setattr(room, "shift_scores", lambda _, shift: shifts.append(shift))
    result = calibrate_trace(object(), stretches=3)  # type: ignore[arg-type]
    assert result.f1 == 1.0
    assert shifts == [pytest.approx(offset, abs=0.21)]

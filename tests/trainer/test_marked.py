"""Recordings whose events are all listed: tables, what events look like, and labelled pieces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quantal.errors import ReadError, UsageError
from quantal.model import Card
from quantal.simulate import biexponential
from quantal.trace import Trace
from quantal_trainer.marked import (
    Marked,
    held_back,
    marked_pieces,
    marked_polarity,
    marked_traces,
    read_marks,
    settled,
)
from quantal_trainer.simulated_traces import PIECE
from quantal_trainer.trace_network import HOP

CARD = Card(
    name="t", kind="trace", scaling="noise", window_samples=300, rate_hz=25e3, polarity="positive"
)
ONSETS_S = np.array([0.2, 0.5, 0.9, 1.2, 1.31, 1.7])


def recording(sign: int = -1, name: str = "cell", **facts: object) -> Trace:
    """Two seconds at 50 kHz with events of 1 ms decay and 0.2 ms rise, 20 SD high."""
    rng = np.random.default_rng(0)
    samples = rng.standard_normal(100_000)
    shape = biexponential(50_000.0, 2e-4, 1e-3)
    for onset in ONSETS_S:
        first = round(onset * 50_000)
        samples[first : first + len(shape)] += sign * 20 * shape
    return Trace(samples=samples, rate_hz=50e3, unit="pA", recording=name, channel="0", **facts)  # type: ignore[arg-type]


def written(tmp_path: Path, text: str, name: str = "events.csv") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


# Tables ------------------------------------------------------------------------------------------


def test_a_column_of_times_needs_no_header(tmp_path: Path) -> None:
    for text in ("0.25\n0.75\n", "seconds\n0.25\n0.75\n", "time_s,note\n0.25,a\n0.75,\n"):
        marks = read_marks(written(tmp_path, text))
        assert marks.times_s.tolist() == [0.25, 0.75]
        assert not marks.steepest


def test_rejected_rows_are_no_events(tmp_path: Path) -> None:
    table = "recording,channel,sweep,location_s,peak_s,status\n"
    rows = "cell,0,0,0.5,0.6,found\ncell,0,1,0.7,0.8, Rejected\ncell,0,1,0.9,1,found\n"
    marks = read_marks(written(tmp_path, table + rows))
    assert marks.times_s.tolist() == [0.5, 0.9]
    assert marks.sweeps.tolist() == [0, 1]
    assert marks.steepest


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("a,b\n1,2\n", "no column of times"),
        ("time_s\nsoon\n", "no number"),
        ("time_s\nnan\n", "missing"),
        ("time_s,sweep\n1\n", "more or fewer fields"),
        ("time_s,status\n1,found\n2,reject\n", "row 3 .* 'reject'; allowed are found and rejected"),
    ],
)
def test_a_table_that_says_no_times_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ReadError, match=words):
        read_marks(written(tmp_path, text))
    with pytest.raises(ReadError, match="cannot be read"):
        read_marks(tmp_path / "nothing.csv")


def test_events_go_to_their_own_sweep(tmp_path: Path) -> None:
    table = "recording,sweep,location_s\none,0,0.5\none,1,0.25\nother,0,1.5\n"
    marks = read_marks(written(tmp_path, table))
    one = [recording(name="one", sweep=k) for k in range(2)]
    marked = marked_traces([one, [recording(name="other")]], [marks])
    assert [m.times_s.tolist() for m in marked] == [[0.5], [0.25], [1.5]]


def test_events_that_cannot_be_assigned_are_refused(tmp_path: Path) -> None:
    plain = read_marks(written(tmp_path, "0.5\n"))
    named = read_marks(written(tmp_path, "recording,location_s\nelse,0.5\n"))
    sweeps = [recording(sweep=k) for k in range(2)]
    with pytest.raises(UsageError, match="no column sweep"):
        marked_traces([sweeps], [plain])
    with pytest.raises(UsageError, match="without a column recording"):
        marked_traces([[recording()], [recording(name="b")]], [plain])
    with pytest.raises(UsageError, match="one for each"):
        marked_traces([[recording()]], [plain, plain])
    with pytest.raises(UsageError, match="the table names else"):
        marked_traces([[recording()]], [named])
    late = read_marks(written(tmp_path, "2.5\n"))
    with pytest.raises(UsageError, match=r"2\.5 s lies outside"):
        marked_traces([[recording()]], [late])


# Events ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sign", "way"), [(1, "positive"), (-1, "negative")])
def test_polarity_and_shape_come_from_the_events(sign: int, way: str) -> None:
    marked = [Marked(trace=recording(sign), times_s=ONSETS_S)]
    assert marked_polarity(marked, 12.0) == way
    _, shape = settled(marked, sign, 12.0)
    assert shape.fitting_ms == pytest.approx(12.0, rel=0.3)
    assert 0.1 < shape.rise_ms < 0.8
    with pytest.raises(UsageError, match="5 at least are needed"):
        settled([Marked(trace=recording(), times_s=ONSETS_S[:3])], -1, 12.0)


@pytest.mark.parametrize("steepest", [True, False])
def test_labels_lie_at_the_steepest_rise(steepest: bool) -> None:
    times = ONSETS_S + (1e-4 if steepest else 1.5e-3)
    marked = [Marked(trace=recording(), times_s=times, steepest=steepest)]
    marked, shape = settled(marked, -1, 12.0)
    np.testing.assert_allclose(marked[0].times_s, ONSETS_S + 1e-4, atol=2e-4)
    pieces = marked_pieces(
        marked, CARD, shape, window_ms=12.0, direction="negative", copies=2, seed=3
    )
    assert pieces.samples.shape[1:] == (PIECE,)
    labelled = pieces.labels.astype(bool)
    height = pieces.samples.reshape(len(pieces.samples), -1, HOP).max(axis=2)
    assert np.median(height[labelled]) > 3 * np.median(height[~labelled])
    assert (pieces.weights[labelled] == 1).all()
    assert (pieces.weights == 0).any()


def test_what_is_excluded_or_beyond_the_ends_has_no_weight() -> None:
    whole = Marked(trace=recording(), times_s=ONSETS_S)
    _, shape = settled([whole], -1, 12.0)
    cut = {"window_ms": 12.0, "direction": "negative", "copies": 1, "seed": 0}
    pieces = marked_pieces([whole], CARD, shape, **cut)  # type: ignore[arg-type]
    excluded = Marked(trace=recording().exclude([(0.6, 1.4)]), times_s=ONSETS_S)
    fewer = marked_pieces([excluded], CARD, shape, **cut)  # type: ignore[arg-type]
    assert fewer.labels[fewer.weights == 1].sum() < pieces.labels[pieces.weights == 1].sum()
    covered = 2.0 * 25e3 / HOP
    assert 0.9 * covered < pieces.weights.sum() < 1.5 * covered
    assert fewer.weights.sum() < 0.7 * pieces.weights.sum()


def test_the_end_of_a_sweep_is_held_back_with_its_events() -> None:
    marked = [Marked(trace=recording(), times_s=ONSETS_S)]
    [first], [last] = held_back(marked, 0.4)
    assert (len(first.times_s), len(last.times_s)) == (3, 3)
    assert first.trace.stop_s == pytest.approx(1.2) == last.trace.start_s

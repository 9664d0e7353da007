"""Scouts: averaged windows as NumPy makes them, levels by threshold, and what they spare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from quantal.model import SCOUT, Card, Model, load_model
from quantal.peaks import find_stretches
from quantal.scan import scan
from quantal.scout import Scout, averaged_windows, look, open_scout
from quantal.trace import Trace
from quantal.windows import cut_windows

Samples = NDArray[np.float32]
scan_room = import_module("quantal.scan")  # the module: quantal.scan itself is the function

FACTS: dict[str, Any] = {
    "hop_samples": 8,
    "bin_samples": 2,
    "felt": 0.1,
    "levels": [[0.25, 2.0], [0.5, 3.0]],
}
CARD = Card(
    name="stub",
    window_samples=60,
    window_ms=6.0,
    rate_hz=10_000.0,
    reference_sample=22,
    search_samples=8,
    stride=2,
    polarity="positive",
    direction="positive",
    graphs={"model.onnx": "", SCOUT: ""},
    scout=FACTS,
)


class Sees:
    """In a scout's place: a plain function of averaged windows."""

    def __init__(self, value: Callable[[Samples], Samples]) -> None:
        self.value = value

    def run(self, windows: Samples) -> Samples:
        return np.asarray(self.value(windows), np.float32)[:, None]


class Reads:
    """In the network's place: a plain function of windows, which it counts."""

    cutting = None

    def __init__(self, score: Callable[[Samples], Samples]) -> None:
        self.score, self.count = score, 0

    def run_windows(self, windows: Samples) -> Samples:
        self.count += len(windows)
        return np.asarray(self.score(windows), np.float32)


def scout(value: Callable[[Samples], Samples], **changes: Any) -> Scout:
    session: Any = Sees(value)
    return replace(
        Scout(session=session, hop=8, bin=2, felt=0.1, levels=((0.25, 2.0), (0.5, 3.0))), **changes
    )


@settings(max_examples=100, deadline=None)
@given(
    samples=arrays(np.float32, st.integers(1, 80), elements=st.integers(-9, 9).map(float)),
    start=st.integers(-100, 100),
    count=st.integers(1, 6),
    hop=st.sampled_from([2, 4, 10]),
    width=st.sampled_from([2, 10, 24]),
)
def test_averaged_windows_are_means_of_scaled_ones(
    samples: Samples, start: int, count: int, hop: int, width: int
) -> None:
    found, ranges = averaged_windows(samples, start, hop, count, width, 2)
    windows, states = cut_windows(samples, start, hop, count, width)
    expected = windows.reshape(count, -1, 2).mean(axis=2)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert ((ranges == 0) == (states == 1)).all()
    whole = np.pad(samples, 400, mode="symmetric")
    parts = [np.ptp(whole[k : k + width]) for k in 400 + start + hop * np.arange(count)]
    np.testing.assert_array_equal(ranges, parts)


@pytest.mark.parametrize("missing", [np.nan, np.inf, -np.inf])
def test_a_window_that_lacks_a_sample_has_no_range(missing: float) -> None:
    samples = np.random.default_rng(0).normal(size=40).astype(np.float32)
    samples[19] = missing
    found, ranges = averaged_windows(samples, 0, 10, 4, 10, 2)
    assert np.isnan(ranges).tolist() == [False, True, False, False]
    assert not found[1].any()


def test_a_level_is_that_of_the_next_lower_threshold() -> None:
    one = scout(lambda w: w[:, 0])
    assert [one.level(t) for t in (0.2, 0.25, 0.4, 0.5, 0.9)] == [None, 2.0, 2.0, 3.0, 3.0]


def test_many_windows_are_looked_at_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = np.random.default_rng(0).normal(size=2_000).astype(np.float32)
    one = scout(lambda w: w.sum(axis=1))
    whole = look(one, samples, -7, 200, 60)
    monkeypatch.setattr("quantal.scout._BLOCK", 17)
    for found, expected in zip(look(one, samples, -7, 200, 60), whole, strict=True):
        np.testing.assert_array_equal(found, expected)


def scanned(
    monkeypatch: pytest.MonkeyPatch, one: Scout, **options: Any
) -> tuple[Samples, Samples, int]:
    """Dense and screened scores of noise with ten bumps, and how many windows were screened."""
    samples = np.random.default_rng(1).normal(size=6_000)
    for at in range(300, 6_000, 600):
        samples[at : at + 40] += 12 * np.hanning(40)
    trace = Trace(samples=samples.astype(np.float32), rate_hz=10_000.0, unit="pA")

    def bump(windows: Samples) -> Samples:
        rest = np.r_[windows.T[:12], windows.T[48:]].mean(axis=0)
        contrast = windows[:, 16:44].mean(axis=1) - rest
        return np.asarray(1 / (1 + np.exp(-40 * (contrast - 0.35))))

    reads = Reads(bump)
    monkeypatch.setattr(scan_room, "open_session", lambda *_, **__: reads)
    monkeypatch.setattr(scan_room, "open_scout", lambda *_: one)
    model = Model(card=CARD, folder=Path("nowhere"))
    dense = scan(trace, model, method="dense", **options).values
    reads.count = 0
    return dense, scan(trace, model, method="screened", **options).values, reads.count


def contrast(windows: Samples) -> Samples:
    """A good scout: 10 where the middle stands out by half of the range."""
    rest = np.r_[windows.T[:6], windows.T[24:]].mean(axis=0)
    return np.asarray(20 * (windows[:, 8:22].mean(axis=1) - rest))


@pytest.mark.parametrize("threshold", [0.25, 0.5, 0.9])
def test_a_good_scout_spares_windows_and_no_events(
    monkeypatch: pytest.MonkeyPatch, threshold: float
) -> None:
    dense, found, count = scanned(monkeypatch, scout(contrast), threshold=threshold)
    a, b = (find_stretches(values, threshold) for values in (dense, found))
    assert len(a.position) == 10
    np.testing.assert_array_equal(a.left, b.left)
    np.testing.assert_array_equal(a.right, b.right)
    assert count < 0.4 * len(dense)


def test_with_a_scout_that_suspects_nothing_only_jumps_of_the_range_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blind = scout(lambda w: np.full(len(w), -99.0))
    dense, found, count = scanned(monkeypatch, blind)
    assert count < 0.2 * len(dense)
    assert len(find_stretches(found, 0.5).position) < 10


@pytest.mark.parametrize(
    ("changes", "options"),
    [({"levels": ((0.6, 1.0),)}, {"threshold": 0.5}), ({}, {"stride": 1}), ({}, {"stride": 4})],
)
def test_where_a_scout_was_not_calibrated_it_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], options: dict[str, Any]
) -> None:
    blind = scout(lambda w: np.full(len(w), -99.0), **changes)
    dense, found, _ = scanned(monkeypatch, blind, **options)
    a, b = (find_stretches(values, 0.5) for values in (dense, found))
    assert len(a.position) == 10
    np.testing.assert_array_equal(a.left, b.left)


def test_a_model_without_a_scout_has_none() -> None:
    assert open_scout(load_model("minis")) is None

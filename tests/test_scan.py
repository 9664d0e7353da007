"""Scan: scores with the right clock, whatever the stride, the rate, the ends and the gaps."""

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
from numpy.typing import NDArray

import naive
from quantal.errors import UsageError
from quantal.filters import resample
from quantal.model import Card, Model
from quantal.scan import Scores, scan
from quantal.trace import Trace

Samples = NDArray[np.float32]
room = import_module("quantal.scan")  # the module: quantal.scan itself is the function

SMALL = Card(
    name="stub",
    window_samples=60,
    window_ms=6.0,
    rate_hz=10_000.0,
    reference_sample=22,
    search_samples=8,
    stride=2,
    polarity="positive",
    direction="positive",
)


class Stub:
    """A session whose scores are some plain function of the windows, which it remembers."""

    def __init__(self, score: Callable[[Samples], NDArray[Any]]) -> None:
        self.score = score
        self.windows: list[Samples] = []

    cutting = None

    def run_windows(self, windows: Samples) -> Samples:
        self.windows.append(windows.copy())
        return np.asarray(self.score(windows), np.float32)


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Stub]:
    """Put a plain function in the network's place."""

    def put(score: Callable[[Samples], NDArray[Any]]) -> Stub:
        stub = Stub(score)
        monkeypatch.setattr(room, "open_session", lambda *_: stub)
        return stub

    return put


def model(**changes: Any) -> Model:
    return Model(card=replace(SMALL, **changes), folder=Path("nowhere"))


def at_reference(windows: Samples) -> Samples:
    """A network that sees one sample only: the one that its score speaks for."""
    return windows[:, SMALL.reference_sample]


def trace(samples: Any, rate_hz: float = 10_000.0, **changes: Any) -> Trace:
    return Trace(samples=np.asarray(samples, np.float32), rate_hz=rate_hz, unit="pA", **changes)


def spike(n: int, at: int) -> Trace:
    samples = np.zeros(n, np.float32)
    samples[at] = 1
    return trace(samples)


def noise(n: int, seed: int = 0) -> Samples:
    return np.random.default_rng(seed).normal(size=n).astype(np.float32)


def test_each_score_speaks_for_the_sample_that_its_clock_names(use: Callable[..., Stub]) -> None:
    use(at_reference)
    for at in (0, 1, 21, 22, 37, 100, 198, 199):
        found = scan(spike(200, at), model(), stride=1)
        assert len(found) == 200
        assert np.flatnonzero(found.values).tolist() == [at]
        assert found.time_s[at] == pytest.approx(at / 10_000)


@settings(max_examples=60, deadline=None)
@given(stride=st.integers(1, 60), n=st.integers(60, 150), data=st.data())
def test_with_any_stride_a_score_stands_where_its_clock_says(
    stride: int, n: int, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, n - 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "open_session", lambda *_: Stub(at_reference))
        found = scan(spike(n, at), model(), stride=stride)
    samples = found.first_sample + stride * np.arange(len(found))
    assert found.first_sample == SMALL.reference_sample % stride
    assert samples[0] < stride
    assert n - stride <= samples[-1] < n or not len(samples)  # none is left out at the end
    np.testing.assert_array_equal(found.values, (samples == at).astype(np.float32))


@pytest.mark.parametrize("stride", [1, 7, 20, 225, 226, 599, 600])
def test_the_papers_window_is_read_with_any_stride_up_to_its_length(
    use: Callable[..., Stub], stride: int
) -> None:
    stub = use(lambda windows: windows[:, 225])
    card = {"window_samples": 600, "reference_sample": 225, "window_ms": 12.0, "stride": 20}
    samples = noise(1_300)
    found = scan(trace(samples, 50_000.0), model(**card), stride=stride)
    first = 225 % stride
    count = len(range(first, 1_300, stride))
    windows = np.concatenate(stub.windows)
    expected = naive.scaled_windows(samples, first - 225, stride, count, 600)
    np.testing.assert_array_equal(windows, expected)
    np.testing.assert_array_equal(found.values, expected[:, 225])
    assert (found.first_sample, found.stride, found.rate_hz) == (first, stride, 50_000.0)


@pytest.mark.parametrize("window_ms", [3.0, 5.7, 6.0, 24.0])
def test_a_resampled_trace_keeps_its_clock(use: Callable[..., Stub], window_ms: float) -> None:
    use(at_reference)
    samples = np.exp(-0.5 * ((np.arange(3_000) - 1_700) / 60) ** 2)
    found = scan(trace(samples, start_s=5.0), model(), window_ms=window_ms, stride=1)
    assert found.rate_hz == 10_000.0 * 60 / round(10 * window_ms)
    rise = (found.values[1:] > 0.5) & (found.values[:-1] <= 0.5)
    assert rise.any()
    peak = found.time_s[len(found) // 3 :][np.abs(found.time_s[len(found) // 3 :] - 5.17).argmin()]
    assert peak == pytest.approx(5.17, abs=1 / found.rate_hz)
    assert found.time_s[0] == pytest.approx(5.0)
    assert found.time_s[-1] == pytest.approx(5.3, abs=2e-3)


@pytest.mark.parametrize("window_ms", [3.0, 5.7, 24.0])
def test_windows_of_a_resampled_trace_are_those_around_the_time_they_speak_for(
    use: Callable[..., Stub], window_ms: float
) -> None:
    # A narrow spike in a flat trace: the scores that see it at their reference are at its time.
    use(lambda windows: windows.argmax(axis=1) == SMALL.reference_sample)
    samples = np.exp(-0.5 * ((np.arange(3_000) - 1_700) / 6) ** 2)
    found = scan(trace(samples), model(), window_ms=window_ms, stride=1)
    times = found.time_s[(found.values > 0) & (np.abs(found.time_s - 0.17) < window_ms / 2_000)]
    assert times == pytest.approx([0.17], abs=1 / found.rate_hz)


def test_rates_are_not_rounded(use: Callable[..., Stub]) -> None:
    use(at_reference)
    found = scan(trace(noise(2_000), 100 / 3), model(), window_ms=1_800, stride=1)
    assert found.rate_hz == 100 / 3
    assert found.time_s[-1] == pytest.approx(1_999 * 3 / 100)


def test_windows_that_reach_beyond_the_ends_see_the_mirror_image(use: Callable[..., Stub]) -> None:
    stub = use(at_reference)
    samples = noise(61)
    found = scan(trace(samples), model(), stride=1)
    windows = np.concatenate(stub.windows)
    assert windows.shape == (61, 60)
    np.testing.assert_array_equal(windows, naive.scaled_windows(samples, -22, 1, 61, 60))
    assert len(found) == 61


@pytest.mark.parametrize("chunk", [1, 2, 7, 64])
@pytest.mark.parametrize("stride", [1, 3])
def test_it_does_not_matter_how_many_windows_are_cut_at_a_time(
    use: Callable[..., Stub], monkeypatch: pytest.MonkeyPatch, chunk: int, stride: int
) -> None:
    use(lambda windows: windows.mean(axis=1))
    samples = noise(150)
    samples[70] = np.nan
    expected = scan(trace(samples), model(), stride=stride)
    monkeypatch.setattr(room, "_CHUNK", chunk)
    found = scan(trace(samples), model(), stride=stride)
    np.testing.assert_array_equal(found.values, expected.values)


@pytest.mark.parametrize("missing", [np.nan, np.inf, -np.inf])
def test_windows_that_touch_missing_samples_have_no_score(
    use: Callable[..., Stub], missing: float
) -> None:
    use(lambda windows: np.ones(len(windows)))
    samples = noise(300)
    samples[150:155] = missing
    found = scan(trace(samples), model(), stride=1)
    unscored = np.flatnonzero(np.isnan(found.values))
    first, last = 150 - 59 + 22, 154 + 22
    assert unscored.tolist() == list(range(first, last + 1))
    assert np.nanmin(found.values) == 1


def test_the_network_never_sees_a_missing_sample(use: Callable[..., Stub]) -> None:
    stub = use(lambda windows: np.ones(len(windows)))
    samples = noise(300)
    samples[[40, 200]] = np.nan
    for window_ms in (6.0, 9.1):
        scan(trace(samples), model(), window_ms=window_ms)
    assert all(np.isfinite(windows).all() for windows in stub.windows)


def test_a_gap_in_a_resampled_trace_loses_no_more_than_the_filter_reaches(
    use: Callable[..., Stub],
) -> None:
    use(lambda windows: np.ones(len(windows)))
    samples = noise(1_000)
    samples[500] = np.nan
    found = scan(trace(samples), model(), window_ms=12.0, stride=1)
    unscored = found.time_s[np.isnan(found.values)]
    assert 0.05 - 0.012 < unscored.min() < 0.05 < unscored.max() < 0.05 + 0.012


def test_a_trace_of_missing_samples_only_has_no_score(use: Callable[..., Stub]) -> None:
    use(lambda windows: np.ones(len(windows)))
    assert np.isnan(scan(trace(np.full(200, np.nan)), model()).values).all()


def test_a_flat_trace_scores_nothing(use: Callable[..., Stub]) -> None:
    use(lambda windows: np.ones(len(windows)))
    assert (scan(trace(np.full(200, -70.0)), model()).values == 0).all()
    assert (scan(trace(np.full(200, -70.0)), model(), window_ms=9.1).values == 0).all()


@pytest.mark.parametrize("window_ms", [6.0, 9.1])
@pytest.mark.parametrize("polarity", ["negative", "positive"])
def test_a_trace_turned_over_scores_the_same_the_other_way(
    use: Callable[..., Stub], polarity: str, window_ms: float
) -> None:
    use(lambda windows: windows[:, 30:].mean(axis=1))
    samples = np.cumsum(noise(400)).astype(np.float32)
    options: dict[str, Any] = {"window_ms": window_ms, "stride": 1}
    both = model(polarity=polarity)
    up = scan(trace(samples), both, direction="positive", **options)
    down = scan(trace(-samples), both, direction="negative", **options)
    np.testing.assert_array_equal(up.values, down.values)
    other = scan(trace(samples), both, direction="negative", **options)
    assert np.abs(other.values - up.values).max() > 0.1


def test_events_reach_the_network_as_they_were_in_training(use: Callable[..., Stub]) -> None:
    stub = use(at_reference)
    samples = noise(60)
    for polarity in ("negative", "positive"):
        for direction in ("negative", "positive"):
            scan(trace(samples), model(polarity=polarity), direction=direction, stride=60)
            upright = polarity == direction
            expected = naive.scaled_windows(samples if upright else -samples, 0, 60, 1, 60)
            np.testing.assert_array_equal(stub.windows[-1], expected)


@pytest.mark.parametrize("window_ms", [6.0, 9.1])
@pytest.mark.parametrize(("factor", "offset"), [(2.0**-20, 0), (2.0**20, 0), (1, 256)])
def test_scores_do_not_depend_on_unit_and_offset(
    use: Callable[..., Stub], window_ms: float, factor: float, offset: float
) -> None:
    use(lambda windows: windows.mean(axis=1))
    samples = noise(400)
    expected = scan(trace(samples), model(), window_ms=window_ms).values
    found = scan(trace(samples * factor + offset), model(), window_ms=window_ms).values
    np.testing.assert_allclose(found, expected, atol=2e-4 if offset else 1e-6)


def test_the_cards_values_hold_where_none_is_given(use: Callable[..., Stub]) -> None:
    use(at_reference)
    found = scan(trace(noise(200)), model(stride=5, direction="negative"))
    assert (found.stride, found.rate_hz) == (5, 10_000.0)
    expected = scan(trace(noise(200)), model(), direction="negative", stride=5, window_ms=6.0)
    np.testing.assert_array_equal(found.values, expected.values)


@pytest.mark.parametrize("chunk", [10, 50, 4_096])
def test_progress_rises_and_ends_at_all(
    use: Callable[..., Stub], monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    use(at_reference)
    monkeypatch.setattr(room, "_CHUNK", chunk)
    seen: list[tuple[int, int]] = []
    found = scan(trace(noise(200)), model(), progress=lambda *step: seen.append(step))
    done = [step[0] for step in seen]
    assert done == sorted(set(done))
    assert {step[1] for step in seen} == {len(found)}
    assert done[-1] == len(found)


def test_the_trace_is_not_written(use: Callable[..., Stub]) -> None:
    use(at_reference)
    samples = noise(200)
    samples[100] = np.inf
    before = samples.copy()
    samples.setflags(write=False)
    for window_ms in (6.0, 7.0):
        scan(trace(samples), model(), direction="negative", window_ms=window_ms)
    np.testing.assert_array_equal(samples, before)


def test_scores_carry_their_clock() -> None:
    scores = Scores(
        values=np.zeros(3, np.float32), first_sample=5, stride=10, rate_hz=1_000.0, start_s=2.0
    )
    assert len(scores) == 3
    assert scores.time_s == pytest.approx([2.005, 2.015, 2.025])


@pytest.mark.parametrize("stride", [0, -1, 61, 720, 2.5, np.nan, np.inf, True, "20", [20], 1j])
def test_a_stride_outside_the_window_is_refused(use: Callable[..., Stub], stride: Any) -> None:
    use(at_reference)
    with pytest.raises(UsageError, match=r"1 to 60 samples \(the model's window\), got .*try 2"):
        scan(trace(noise(200)), model(), stride=stride)


@pytest.mark.parametrize("stride", [3.0, np.int16(3), np.float32(3)])
def test_a_stride_may_be_any_kind_of_whole_number(use: Callable[..., Stub], stride: Any) -> None:
    use(at_reference)
    assert scan(trace(noise(200)), model(), stride=stride).stride == 3


@pytest.mark.parametrize("window_ms", [0, -3, np.nan, np.inf, "12", True])
def test_a_window_that_is_no_time_is_refused(use: Callable[..., Stub], window_ms: Any) -> None:
    use(at_reference)
    with pytest.raises(UsageError, match="window_ms must be a positive number of milliseconds"):
        scan(trace(noise(200)), model(), window_ms=window_ms)


def test_a_window_may_be_any_kind_of_number(use: Callable[..., Stub]) -> None:
    use(at_reference)
    for window_ms in (6, np.float32(6), np.int64(6)):
        assert scan(trace(noise(200)), model(), window_ms=window_ms).rate_hz == 10_000.0


def test_a_window_of_too_few_samples_is_refused_and_the_error_says_what_would_do(
    use: Callable[..., Stub],
) -> None:
    use(at_reference)
    with pytest.raises(
        UsageError, match=r"1\.9 ms has 19 samples at 10000 Hz; it needs at least 20.*2 ms"
    ):
        scan(trace(noise(200)), model(), window_ms=1.9)


@pytest.mark.parametrize("n", [0, 1, 2, 59])
def test_a_trace_shorter_than_the_window_is_refused_and_the_error_says_what_to_do(
    use: Callable[..., Stub], n: int
) -> None:
    use(at_reference)
    with pytest.raises(
        UsageError,
        match=rf"6 ms is longer than the trace \({n / 10:g} ms, {n} samples\); try a shorter",
    ):
        scan(trace(noise(n)), model())


def test_a_trace_as_long_as_the_window_is_read(use: Callable[..., Stub]) -> None:
    use(at_reference)
    assert len(scan(trace(noise(60)), model(), stride=1)) == 60
    assert len(scan(trace(noise(20)), model(), window_ms=2.0, stride=1)) == 60


@pytest.mark.parametrize("direction", ["both", "up", "", 1])
def test_an_unknown_direction_is_refused(use: Callable[..., Stub], direction: Any) -> None:
    use(at_reference)
    with pytest.raises(UsageError, match="direction must be one of negative, positive, got"):
        scan(trace(noise(200)), model(), direction=direction)


def test_an_unknown_method_is_refused(use: Callable[..., Stub]) -> None:
    use(at_reference)
    with pytest.raises(UsageError, match=r"method must be one of .*dense.*, got 'sparse'"):
        scan(trace(noise(200)), model(), method="sparse")


def test_the_grid_is_the_resampled_trace() -> None:
    samples = noise(300)
    grid = room.on_grid(trace(samples), SMALL, 91, -1)
    np.testing.assert_array_equal(grid.samples, -resample(samples, 60, 91))
    assert grid.rate_hz == 10_000.0 * 60 / 91


# Trace networks ----------------------------------------------------------------------------------

TRACE = replace(
    SMALL,
    kind="trace",
    scaling="noise",
    window_samples=60,
    stride=10,
    margin_samples=160,
    reference_sample=5,
    search_samples=10,
)


class Blocks:
    """A session of a trace network that gives some plain function of each block's samples."""

    device, threads = "cpu", 2

    def __init__(self, score: Callable[[Samples], NDArray[Any]]) -> None:
        self.score = score
        self.lengths: list[int] = []

    def run_block(self, samples: Samples, stride: int) -> Samples:
        self.lengths.append(len(samples))
        return np.asarray(self.score(samples.reshape(-1, stride)), np.float32)


def wide(bins: Samples) -> Samples:
    """A network whose scores depend on 15 bins, 150 samples, either side."""
    return np.convolve(bins.mean(axis=1), np.hanning(31), mode="same").astype(np.float32)


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> Blocks:
    session = Blocks(wide)
    monkeypatch.setattr(room, "open_session", lambda *_: session)
    return session


@pytest.mark.parametrize("n", [60, 61, 159, 1_000, 4_001])
def test_a_trace_network_gives_a_score_for_every_stride(blocks: Blocks, n: int) -> None:
    found = scan(trace(noise(n)), Model(card=TRACE, folder=Path("nowhere")))
    assert len(found) == -(-n // 10)
    assert (found.first_sample, found.stride) == (5, 10)
    assert len(set(blocks.lengths)) == 1


@pytest.mark.parametrize(("n", "read"), [(60, 160), (161, 320), (1_000, 1_120)])
def test_a_short_trace_is_read_to_the_end_of_a_unit(blocks: Blocks, n: int, read: int) -> None:
    scan(trace(noise(n)), Model(card=TRACE, folder=Path("nowhere")))
    assert blocks.lengths == [read + 2 * TRACE.margin_samples]


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("longest", [160, 480, 100_000])
def test_scores_do_not_depend_on_where_blocks_are_cut(
    monkeypatch: pytest.MonkeyPatch, longest: int
) -> None:
    x = trace(noise(7_777))
    model = Model(card=TRACE, folder=Path("nowhere"))
    monkeypatch.setattr(room, "_BLOCK", 1_600)
    expected = scan(x, model).values
    monkeypatch.setattr(room, "_BLOCK", longest)
    np.testing.assert_allclose(scan(x, model).values, expected, atol=1e-5)


@pytest.mark.usefixtures("blocks")
def test_missing_samples_have_no_score_of_a_trace_network() -> None:
    samples = noise(2_000)
    samples[505:512] = np.nan
    found = scan(trace(samples), Model(card=TRACE, folder=Path("nowhere")))
    assert np.flatnonzero(np.isnan(found.values)).tolist() == [50, 51]


@pytest.mark.usefixtures("blocks")
def test_a_downward_event_of_a_trace_is_turned_over() -> None:
    x = noise(2_000)
    up = scan(trace(x), Model(card=TRACE, folder=Path("nowhere")), direction="positive")
    down = scan(trace(-x), Model(card=TRACE, folder=Path("nowhere")), direction="negative")
    np.testing.assert_array_equal(up.values, down.values)


@pytest.mark.usefixtures("blocks")
def test_a_trace_network_has_one_stride() -> None:
    model = Model(card=TRACE, folder=Path("nowhere"))
    with pytest.raises(UsageError, match="gives a score every 10 samples, got stride 5"):
        scan(trace(noise(2_000)), model, stride=5)
    assert scan(trace(noise(2_000)), model, stride=10).stride == 10

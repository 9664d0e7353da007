"""Online detection: the events of the whole trace, whatever the pieces, when promised."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import quantal
from quantal import Events, Trace
from quantal.early import Early
from quantal.errors import UsageError
from quantal.online import OnlineDetector
from quantal.simulate import add_at, biexponential, simulate_recording

Samples = NDArray[np.float32]
RATE_HZ = 50_000.0
MEASURE_MS = 12.0


def recording(seed: int, *, seconds: float = 3.0, frequency_hz: float = 12.0) -> Samples:
    trace, _ = simulate_recording(
        seconds=seconds, frequency_hz=frequency_hz, amplitude=-12, seed=seed
    )
    return trace.samples


def whole(samples: Samples, rate_hz: float = RATE_HZ, **options: Any) -> Events:
    trace = Trace(samples=samples, rate_hz=rate_hz, unit="pA")
    return quantal.detect(trace, measure_ms=MEASURE_MS, **options)


def fed(
    samples: Samples, sizes: list[int], rate_hz: float = RATE_HZ, **options: Any
) -> tuple[Events, list[tuple[int, float]]]:
    """Events of a trace in pieces, and (samples pushed, location) of each as it was reported."""
    detector = OnlineDetector(rate_hz=rate_hz, measure_ms=MEASURE_MS, **options)
    parts, told, at = [], [], 0
    while at < samples.shape[-1]:
        size = sizes[len(parts) % len(sizes)]
        parts.append(detector.push(samples[..., at : at + size]))
        at += size
        told += [(min(at, samples.shape[-1]), time) for time in parts[-1].location_s.tolist()]
    parts.append(detector.finish())
    return quantal.join(parts), told


def assert_same(found: Events, expected: Events) -> None:
    assert len(found) == len(expected)
    for name, column in expected.columns().items():
        own = getattr(found, name)
        if name == "score":  # the network's blocks are of another length
            np.testing.assert_allclose(own, column, atol=1e-5)
        else:
            np.testing.assert_array_equal(own, column, err_msg=name)


@settings(max_examples=12, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    seed=st.integers(0, 1_000),
    sizes=st.lists(st.integers(1, 100_000), min_size=1, max_size=6),
    frequency_hz=st.sampled_from([1.0, 12.0, 60.0]),
    block_ms=st.sampled_from([1.0, 25.0, 200.0]),
    gaps=st.lists(st.tuples(st.integers(0, 150_000), st.integers(1, 4_000)), max_size=2),
)
def test_events_of_pieces_are_those_of_the_whole(
    seed: int,
    sizes: list[int],
    frequency_hz: float,
    block_ms: float,
    gaps: list[tuple[int, int]],
) -> None:
    samples = recording(seed, frequency_hz=frequency_hz).copy()
    for start, length in gaps:
        samples[start : start + length] = np.nan
    sizes = [max(size, 50) for size in sizes]
    found, _ = fed(samples, sizes, block_ms=block_ms)
    expected = whole(samples)
    assert_same(found, expected)
    assert found.sweeps[0].analysed_s == pytest.approx(expected.sweeps[0].analysed_s)


@pytest.mark.parametrize("rate_hz", [20_000.0, 25_000.0, 44_100.0])
@pytest.mark.parametrize("options", [{}, {"window_ms": 20.0, "threshold": 0.2, "smooth_ms": 0.5}])
def test_any_rate_and_setting_gives_the_events_of_the_whole(
    rate_hz: float, options: dict[str, Any]
) -> None:
    samples = recording(5)
    expected = whole(samples, rate_hz, **options)
    assert len(expected) > 5
    assert_same(fed(samples, [777], rate_hz, **options)[0], expected)


def test_single_samples_may_be_pushed() -> None:
    samples = recording(6, seconds=0.3)
    assert_same(fed(samples, [1])[0], whole(samples))


@settings(max_examples=6, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(sizes=st.lists(st.integers(50, 40_000), min_size=1, max_size=6), seed=st.integers(0, 1_000))
@example(sizes=[4_588], seed=388)  # an event on a decay that began 13 windows before
def test_both_ways_up_are_found_in_one_pass(sizes: list[int], seed: int) -> None:
    samples = recording(seed) - recording(seed + 1)
    samples[60_000:62_000] = np.nan
    expected = whole(samples, direction="both")
    assert {-1, 1} == set(expected.polarity.tolist())
    assert_same(fed(samples, sizes, direction="both")[0], expected)


def test_a_piece_may_be_overwritten_once_it_has_been_pushed() -> None:
    samples = recording(14, seconds=2.0, frequency_hz=30.0)
    samples[::5_000] = np.nan
    detector, piece = OnlineDetector(rate_hz=RATE_HZ, measure_ms=MEASURE_MS), np.empty(500, "f4")
    found = []
    for start in range(0, len(samples), 500):
        piece[:] = samples[start : start + 500]
        found.append(detector.push(piece))
    assert_same(quantal.join([*found, detector.finish()]), whole(samples))


def test_a_signal_that_single_precision_would_lose_is_refused() -> None:
    samples = recording(15, seconds=2.0).astype(np.float64) + 1e8
    with pytest.raises(UsageError, match="subtract the offset first"):
        fed(samples, [5_000])


@pytest.mark.parametrize("beginning", [False, True])
def test_a_dead_channel_costs_no_memory(beginning: bool) -> None:
    detector = OnlineDetector(rate_hz=RATE_HZ, measure_ms=MEASURE_MS)
    parts = [np.full(400_000, np.nan, np.float32), recording(16, seconds=1.5)]
    if not beginning:
        parts = [recording(17, seconds=1.5), *parts]
    samples = np.concatenate(parts)
    found, most = [], 0
    for start in range(0, len(samples), 1_000):
        found.append(detector.push(samples[start : start + 1_000]))
        lane = detector._channels[0].lanes[0]
        most = max(most, len(lane._raw.values), len(lane._filled.values))
    assert_same(quantal.join([*found, detector.finish()]), whole(samples))
    assert most < 100_000


def test_channels_share_batches_and_keep_their_events_apart() -> None:
    channels = np.stack([recording(seed) for seed in (1, 2, 3)])
    found, _ = fed(channels, [2_500, 90], channels=["a", "b", "c"], threads=2)
    assert [sweep.channel for sweep in found.sweeps] == ["a", "b", "c"]
    for name, samples in zip("abc", channels, strict=True):
        own = found[found.channel == name]
        expected = whole(samples)
        np.testing.assert_array_equal(own.location_s, expected.location_s)
        np.testing.assert_array_equal(own.amplitude, expected.amplitude)
        np.testing.assert_array_equal(own.event, expected.event)


def test_events_are_reported_within_the_delay_that_is_promised() -> None:
    samples = recording(9, seconds=6.0, frequency_hz=4.0)
    _, told = fed(samples, [500])
    delay_s = OnlineDetector(rate_hz=RATE_HZ, measure_ms=MEASURE_MS).delay_s
    late = [pushed / RATE_HZ - time for pushed, time in told if time > 1.5]
    assert len(late) > 10
    assert max(late) < delay_s + 0.02
    assert delay_s < 0.25


def test_what_is_expected_is_what_would_come_if_the_trace_ended_and_changes_nothing() -> None:
    samples = recording(10, seconds=2.5)
    asked = OnlineDetector(rate_hz=RATE_HZ, measure_ms=MEASURE_MS)
    found = []
    for stop in (70_000, 90_000, 101_234):
        other = OnlineDetector(rate_hz=RATE_HZ, measure_ms=MEASURE_MS)
        other.push(samples[:stop])
        found.append(asked.push(samples[int(asked.now_s * RATE_HZ + 0.5) : stop]))
        expected, last = asked.provisional(), other.finish()
        assert_same(expected, last[last.location_s < stop / RATE_HZ - 0.006])
        assert_same(asked.provisional(), expected)
        assert len(expected) > 1
    found += [asked.push(samples[101_234:]), asked.finish()]
    assert_same(quantal.join(found), whole(samples))
    assert len(asked.provisional()) == 0


def test_an_event_is_told_early_once_and_withdrawn_if_nothing_comes_of_it() -> None:
    samples = recording(11, seconds=4.0, frequency_hz=4.0) + recording(12, seconds=4.0)
    detector = OnlineDetector(rate_hz=RATE_HZ, measure_ms=MEASURE_MS, threshold=0.2)
    early = Early(detector)
    told, found, gone = [], [], []
    for start in range(0, len(samples), 1_000):
        found.append(detector.push(samples[start : start + 1_000]))
        early.decided(found[-1])
        expected, withdrawn = early.look()
        told += [(time, detector.now_s) for time in expected.location_s.tolist()]
        gone += [one.location_s for one in withdrawn]
    found.append(detector.finish())
    early.decided(found[-1])
    gone += [one.location_s for one in early.told]
    at = quantal.join(found).location_s
    where, when = np.array(told).T
    near = np.abs(where[:, None] - at) < 1.2e-3
    assert near.any(axis=0).mean() > 0.95
    assert sorted(where[~near.any(axis=1)].tolist()) == sorted(gone)
    late = when - where
    assert np.median(late[where > 1.5]) < 0.03
    assert late.min() > 0.006


def test_memory_does_not_grow_with_the_recording() -> None:
    detector = OnlineDetector(rate_hz=RATE_HZ)
    samples = recording(10, seconds=4.0)
    held = []
    for _ in range(3):
        for start in range(0, len(samples), 5_000):
            detector.push(samples[start : start + 5_000])
        lane = detector._channels[0].lanes[0]
        tails = (lane._raw, lane._filled, lane.starts, lane._blocks._scaled, lane._finder._open)
        held.append(sum(len(tail.values) for tail in tails))
        assert len(lane._score) + len(lane._rises) + len(lane._points) < 10
    assert max(held) < 60_000  # 1.2 s


def test_a_flat_an_empty_and_a_missing_trace_hold_no_event() -> None:
    for samples in (np.zeros(30_000), np.empty(0), np.full(30_000, np.nan)):
        found, _ = fed(samples.astype(np.float32), [4_000])
        assert len(found) == 0
        assert len(found.sweeps) == 1
    assert found.sweeps[0].analysed_s == 0.0


def test_an_event_at_the_end_is_found_when_the_trace_has_ended() -> None:
    samples = np.random.default_rng(0).normal(0, 1, 150_000)
    add_at(samples, 149_500, 30 * biexponential(RATE_HZ, 2e-4, 2e-3))
    detector = OnlineDetector(rate_hz=RATE_HZ, direction="positive")
    assert len(detector.push(samples)) == 0
    last = detector.finish()
    assert last.location_s == pytest.approx([149_510 / RATE_HZ], abs=5e-4)
    assert len(detector.finish()) == 0


def test_the_clock_begins_where_it_is_told() -> None:
    samples = recording(11)
    found, _ = fed(samples, [9_999], start_s=100.0, unit="mV")
    np.testing.assert_allclose(found.location_s, 100 + whole(samples).location_s)
    assert set(found.unit.tolist()) == {"mV"}


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="reads windows"):
        OnlineDetector("cnn-lstm", rate_hz=RATE_HZ)
    for name, value in (("rate_hz", 0.0), ("rate_hz", np.nan), ("block_ms", -1.0)):
        with pytest.raises(UsageError, match=f"{name} must be a positive number"):
            OnlineDetector(**{"rate_hz": RATE_HZ, name: value})
    with pytest.raises(UsageError, match="at least 20"):
        OnlineDetector(rate_hz=500.0)
    for channels in (0, [], ["a", "a"]):
        with pytest.raises(UsageError, match="channels must"):
            OnlineDetector(rate_hz=RATE_HZ, channels=channels)


def test_a_piece_of_another_shape_or_kind_is_refused() -> None:
    one, two = OnlineDetector(rate_hz=RATE_HZ), OnlineDetector(rate_hz=RATE_HZ, channels=2)
    with pytest.raises(UsageError, match=r"shape \(n,\), got \(2, 5\)"):
        one.push(np.zeros((2, 5)))
    with pytest.raises(UsageError, match=r"shape \(2, n\), got \(5,\)"):
        two.push(np.zeros(5))
    with pytest.raises(UsageError, match="real numbers"):
        one.push(["a"])
    one.finish()
    with pytest.raises(UsageError, match="has ended"):
        one.push(np.zeros(5))


def test_what_is_missing_is_not_scored_and_no_batch_is_large() -> None:
    samples = recording(12, seconds=6.0)
    samples[100_000:200_000] = np.nan
    detector = OnlineDetector(rate_hz=RATE_HZ)
    run, sizes = detector._run, []

    def counted(blocks: Samples) -> Samples:
        sizes.append(blocks.shape)
        return run(blocks)

    detector._run = counted  # type: ignore[method-assign]
    detector.push(samples)
    detector.finish()
    grid_hz, margin = RATE_HZ / detector._plan.per_sample, detector._plan.card.margin_samples
    scored_s = sum(count * (size - 2 * margin) for count, size in sizes) / grid_hz
    core_s = detector._plan.core / grid_hz
    assert 4.0 - core_s <= scored_s <= 4.0 + 3 * core_s
    assert max(count * size for count, size in sizes) < 70_000

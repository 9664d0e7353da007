"""Trace: samples that keep their clock, and answers to samples that cannot be one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from quantal.errors import UsageError
from quantal.trace import Trace


def trace(n: int = 100, **changes: Any) -> Trace:
    given_: dict[str, Any] = {
        "samples": np.arange(n, dtype=np.float32),
        "rate_hz": 10.0,
        "unit": "pA",
    }
    return Trace(**{**given_, **changes})


def test_samples_become_float32_and_those_that_are_already_are_shared() -> None:
    samples = np.arange(5, dtype=np.float32)
    assert trace(samples=samples).samples is samples
    for kind in (np.int16, np.int64, np.uint8, np.float64, np.float16, ">f4"):
        found = trace(samples=np.arange(5).astype(kind)).samples
        assert found.dtype == np.float32
        assert found.tolist() == [0, 1, 2, 3, 4]
    assert trace(samples=[1, 2.5]).samples.tolist() == [1, 2.5]


def test_a_rate_or_a_unit_that_is_left_out_is_asked_for() -> None:
    with pytest.raises(UsageError, match=r"needs the unit of its samples: 'pA', or 'a\.u\.'"):
        Trace(samples=[1.0], rate_hz=50.0)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="needs its samples per second, such as rate_hz="):
        Trace(samples=[1.0], unit="pA")  # type: ignore[arg-type]


def test_samples_of_every_second_tick_are_made_contiguous() -> None:
    found = trace(samples=np.arange(10, dtype=np.float32)[::2]).samples
    assert found.flags.c_contiguous
    assert found.tolist() == [0, 2, 4, 6, 8]


def test_missing_samples_stay_missing() -> None:
    assert np.isnan(trace(samples=[1.0, np.nan, 2.0]).samples).tolist() == [False, True, False]
    assert np.isnan(trace(samples=[np.nan, np.nan]).samples).all()


@pytest.mark.parametrize("rate_hz", [49_999.7, 100 / 3, 1e6, 0.1, np.float32(0.5), 20_000])
def test_the_rate_is_kept_as_it_is(rate_hz: float) -> None:
    found = trace(rate_hz=rate_hz)
    assert found.rate_hz == rate_hz
    assert isinstance(found.rate_hz, float)
    assert found.duration_s == 100 / float(rate_hz)


@pytest.mark.parametrize("rate_hz", [0, -1.0, np.nan, np.inf, "50000", None, 1j, True])
def test_a_rate_that_is_not_positive_is_refused(rate_hz: Any) -> None:
    with pytest.raises(UsageError, match="rate_hz must be a positive number, got"):
        trace(rate_hz=rate_hz)


@pytest.mark.parametrize("start_s", [np.nan, np.inf, "0", None])
def test_a_start_that_is_no_time_is_refused(start_s: Any) -> None:
    with pytest.raises(UsageError, match="start_s must be a time in seconds, got"):
        trace(start_s=start_s)


@pytest.mark.parametrize("shape", [(), (2, 50), (100, 1)])
def test_samples_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"one-dimensional, got shape .*one Trace per channel"):
        trace(samples=np.zeros(shape))


@pytest.mark.parametrize(
    "samples",
    [["a", "b"], np.array([1j, 2]), np.array([None, 1]), np.array(["2020-01-01"], "M8[s]")],
)
def test_samples_that_are_not_real_numbers_are_refused(samples: Any) -> None:
    with pytest.raises(UsageError, match="samples must be real numbers, got dtype"):
        trace(samples=samples)


def test_an_offset_that_would_swallow_the_signal_is_refused() -> None:
    small = np.array([0.0, 1e-3, 2e-3])
    with pytest.raises(UsageError, match="subtract the offset first"):
        trace(samples=1e6 + small)
    with pytest.raises(UsageError, match="subtract the offset first"):
        trace(samples=-1e6 + small)
    assert len(trace(samples=small)) == 3
    assert len(trace(samples=np.full(3, 1e6))) == 3  # a flat trace has nothing to lose


def test_samples_beyond_single_precision_are_refused() -> None:
    with pytest.raises(UsageError, match="do not fit single precision"):
        trace(samples=np.array([0.0, 1e39]))
    with pytest.raises(UsageError, match="do not fit single precision"):
        trace(samples=np.array([0.0, -1e39]))


def test_infinite_samples_are_kept_and_hold_no_event() -> None:
    found = trace(samples=np.array([0.0, np.inf, 1.0, -np.inf, np.nan]))
    assert found.wanted().tolist() == [True, False, True, False, False]


def test_an_empty_trace_has_no_duration() -> None:
    empty = trace(samples=[])
    assert len(empty) == 0
    assert empty.duration_s == 0
    assert empty.stop_s == empty.start_s
    assert empty.wanted().shape == (0,)
    assert empty.index(3.0) == 0
    with pytest.raises(UsageError, match="nothing lies between"):
        empty.between()


def test_a_trace_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        trace().rate_hz = 1.0  # type: ignore[misc]


def test_times_are_on_the_sweeps_own_clock() -> None:
    found = trace(start_s=2.0)
    assert found.stop_s == 12.0
    assert found.index(2.0) == 0
    assert found.index(3.0) == 10
    assert found.index(3.01) == 11  # the first sample at or after
    assert found.index(-5.0) == 0
    assert found.index(100.0) == 100


@pytest.mark.parametrize(("time_s", "expected"), [(np.inf, 100), (-np.inf, 0), (1e300, 100)])
def test_a_time_beyond_every_sample_is_the_end(time_s: float, expected: int) -> None:
    assert trace().index(time_s) == expected


def test_a_time_that_is_nan_is_refused() -> None:
    with pytest.raises(UsageError, match="got nan"):
        trace().index(np.nan)
    with pytest.raises(UsageError, match="got nan"):
        trace().between(np.nan, 2)


@settings(max_examples=200, deadline=None)
@given(rate_hz=st.floats(0.1, 250_000), start_s=st.floats(0, 7_200), i=st.integers(0, 999))
def test_every_sample_is_found_at_its_own_time(rate_hz: float, start_s: float, i: int) -> None:
    found = trace(n=1_000, rate_hz=rate_hz, start_s=start_s)
    assert found.index(start_s + i / rate_hz) == i
    part = found.between(start_s + i / rate_hz)
    assert part.samples[0] == i
    assert part.index(part.start_s) == 0


@pytest.mark.parametrize("rate_hz", [49_999.7, 100 / 3, 1e5 / 7])
def test_samples_are_found_at_their_times_at_rates_that_are_no_whole_numbers(
    rate_hz: float,
) -> None:
    found = trace(n=5_000, rate_hz=rate_hz, start_s=1.7)
    for i in (0, 1, 777, 4_999):
        assert found.index(found.start_s + i / rate_hz) == i


def test_a_part_keeps_the_clock_and_shares_the_samples() -> None:
    whole = trace(start_s=2.0, sweep=3, recording="cell", excluded=((4.0, 5.0),))
    part = whole.between(3.0, 6.5)
    assert part.samples.tolist() == list(range(10, 45))
    assert np.shares_memory(part.samples, whole.samples)
    assert (part.start_s, part.stop_s) == (3.0, 6.5)
    assert (part.sweep, part.recording, part.excluded) == (3, "cell", ((4.0, 5.0),))
    assert part.wanted().sum() == 25


def test_a_part_starts_at_a_sample_even_if_its_start_lies_between_two() -> None:
    part = trace().between(0.94, 2.0)
    assert part.start_s == 1.0
    assert part.samples[0] == 10


@pytest.mark.parametrize(
    ("start_s", "stop_s", "n"),
    [(None, None, 100), (None, 1.0, 10), (9.0, None, 10), (-3, np.inf, 100), (-np.inf, 0.1, 1)],
)
def test_open_ends_mean_all_there_is(start_s: float | None, stop_s: float | None, n: int) -> None:
    assert len(trace().between(start_s, stop_s)) == n


@pytest.mark.parametrize(("start_s", "stop_s"), [(5, 5), (6, 5), (10, 20), (-5, 0), (3.01, 3.02)])
def test_a_part_with_nothing_in_it_is_refused_and_the_error_says_what_there_is(
    start_s: float, stop_s: float
) -> None:
    with pytest.raises(UsageError, match=r"nothing lies between .*sweep 0 spans 0 to 10 s"):
        trace().between(start_s, stop_s)


def test_excluded_stretches_are_put_in_order_and_joined() -> None:
    found = trace().exclude([(5, 6), (1, 2)]).exclude([(1.5, 3), (6, 7)])
    assert found.excluded == ((1.0, 3.0), (5.0, 7.0))
    assert np.flatnonzero(~found.wanted()).tolist() == [*range(10, 30), *range(50, 70)]


def test_excluding_makes_another_trace_of_the_same_samples() -> None:
    first = trace()
    second = first.exclude([(0, 1)])
    assert first.excluded == ()
    assert second.samples is first.samples


def test_stretches_beyond_the_trace_exclude_nothing_of_it() -> None:
    assert trace().exclude([(-5, -1), (20, 30)]).wanted().all()
    assert not trace().exclude([(-5, 30)]).wanted().any()


@pytest.mark.parametrize("stretch", [(2, 1), (1, 1), (np.nan, 1), (0, np.inf)])
def test_a_stretch_that_does_not_run_forward_is_refused(stretch: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="must run forward in time"):
        trace().exclude([stretch])


def test_a_stretch_outside_the_trace_is_told(caplog: pytest.LogCaptureFixture) -> None:
    trace().exclude([(1, 2), (9.5, 450)])
    assert not caplog.messages
    found = trace().exclude([(100, 450)])
    assert found.excluded == ((100.0, 450.0),)
    assert caplog.messages == [
        "nothing is excluded from 100 to 450 s: the recording spans 0 to 10 s, and times are in "
        "seconds"
    ]


def test_what_is_wanted_may_be_changed_without_changing_the_trace() -> None:
    found = trace()
    found.wanted()[:] = False
    assert found.wanted().all()


def test_masked_samples_are_missing() -> None:
    masked = np.ma.masked_array([1, 2, 3], mask=[False, True, False])
    trace = Trace(samples=masked, rate_hz=1.0, unit="pA")
    np.testing.assert_array_equal(trace.samples, [1, np.nan, 3])


@settings(max_examples=60, deadline=None)
@given(
    lost=arrays(np.bool_, st.integers(1, 40)),
    cuts=st.lists(st.tuples(st.integers(-3, 40), st.integers(1, 12)), max_size=4),
    looked_at=st.sampled_from([1, 7, 1_000]),
)
def test_unwanted_stretches_are_what_the_mask_leaves_out(
    lost: NDArray[np.bool_], cuts: list[tuple[int, int]], looked_at: int
) -> None:
    samples = np.where(lost, np.nan, 1.0)
    found = Trace(samples=samples, rate_hz=1.0, unit="pA")
    found = found.exclude([(a, a + length) for a, length in cuts])
    expected = ~lost
    for a, length in cuts:
        expected[max(a, 0) : max(a + length, 0)] = False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("quantal.trace._LOOKED_AT", looked_at)
        unwanted = found.unwanted()
        assert found.wanted().tolist() == expected.tolist()
    everywhere = np.arange(len(lost))
    assert unwanted.hold(everywhere).tolist() == (~expected).tolist()
    assert unwanted.total == (~expected).sum()
    assert (unwanted.starts[1:] > unwanted.stops[:-1]).all()
    begins = np.cumsum(np.diff(np.r_[0, ~expected]) == 1)
    assert unwanted.before(everywhere).tolist() == begins.tolist()


def test_a_nan_that_signals_is_missing_like_any_other() -> None:
    samples = np.array([0x7FF0000000000001, 0x3FF0000000000000], np.uint64).view(np.float64)
    trace = Trace(samples=samples, rate_hz=1.0, unit="pA")
    assert np.isnan(trace.samples).tolist() == [True, False]

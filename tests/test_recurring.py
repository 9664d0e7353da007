"""Events that recur at one time of every sweep are told, those that come by chance are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from quantal.events import COLUMNS, Events, Sweep, join, make_events
from quantal.recurring import repeated_times


def table_of(sweeps: list[NDArray[np.float64]], seconds: float, channel: str = "") -> Events:
    """Events at these times in as many sweeps of some seconds."""
    searched = [
        Sweep(recording="a", channel=channel, sweep=k, unit="pA", analysed_s=seconds)
        for k in range(len(sweeps))
    ]
    columns: dict[str, Any] = dict.fromkeys(COLUMNS, np.nan)
    columns |= {"sweep": np.repeat(np.arange(len(sweeps)), [len(times) for times in sweeps])}
    columns |= dict.fromkeys(("event", "polarity", "overlap", "edge"), 0)
    columns |= {"channel": channel}
    return make_events({**columns, "location_s": np.concatenate(sweeps)}, searched)


@pytest.mark.parametrize("jitter_s", [1e-5, 4e-4, 1.2e-3])
def test_what_a_stimulus_evokes_in_every_sweep_is_told(jitter_s: float) -> None:
    rng = np.random.default_rng(0)
    sweeps = [
        np.sort(np.r_[rng.uniform(0, 10, 200), 1.17 + jitter_s * rng.uniform(-2, 2)])
        for _ in range(8)
    ]
    ((time_s, count, of),) = repeated_times(table_of(sweeps, 10.0))
    assert time_s == pytest.approx(1.17, abs=4e-3)
    assert (count, of) == (8, 8)
    fewer = [
        times[np.abs(times - 1.17) > 0.01] if k < 2 else times for k, times in enumerate(sweeps)
    ]
    assert repeated_times(table_of(fewer, 10.0)) == []


@pytest.mark.parametrize("count", [4, 8])
def test_events_that_come_by_themselves_hardly_ever_seem_evoked(count: int) -> None:
    rng = np.random.default_rng(1)
    told = [
        repeated_times(table_of([rng.uniform(0, 10, 250) for _ in range(count)], 10.0))
        for _ in range(60)
    ]
    assert sum(map(bool, told)) <= 3


def test_each_channel_is_looked_at_by_itself() -> None:
    rng = np.random.default_rng(2)
    evoked = [np.sort(np.r_[rng.uniform(0, 10, 20), 1.17]) for _ in range(8)]
    others = [rng.uniform(0, 10, 20) for _ in range(8)]
    both = join([table_of(evoked, 10.0, "soma"), table_of(others, 10.0, "dendrite")])
    assert repeated_times(both) == [(pytest.approx(1.17), 8, 8)]

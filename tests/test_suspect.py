"""What speaks against samples being what they are said to be, and what does not."""

from __future__ import annotations

import numpy as np
import pytest

from quantal import Trace
from quantal.simulate import simulate_recording
from quantal.suspect import suspicions


@pytest.mark.parametrize("offset", [0.0, -20.0, 1_000.0])
def test_a_usual_recording_is_not_suspected(offset: float) -> None:
    samples = simulate_recording(seconds=2.0)[0].samples + np.float32(offset)
    assert suspicions([Trace(samples=samples, rate_hz=50_000.0, unit="pA")]) == []


def test_a_signal_far_from_zero_is_told() -> None:
    samples = simulate_recording(seconds=2.0)[0].samples + np.float32(1e7)
    told = suspicions([Trace(samples=samples, rate_hz=50_000.0, unit="fF")])
    assert any("subtract the offset first" in text for text in told)


def test_nothing_but_one_value_and_saturation_are_told() -> None:
    flat = Trace(samples=np.full(100, 3.0), rate_hz=1_000.0, unit="pA")
    assert "all samples are 3 pA" in suspicions([flat])[0]
    samples = np.random.default_rng(0).normal(0, 10, 10_000).clip(-12, None)
    told = suspicions([Trace(samples=samples, rate_hz=1_000.0, unit="pA")])
    assert any("have the lowest value, -12 pA" in text for text in told)

"""Screened scans of models that others trained: the events of a dense scan."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from quantal.detect import detect
from quantal.events import COLUMNS
from quantal.model import Model
from quantal.simulate import simulate_recording


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [0.25, 0.5, 0.9])
@pytest.mark.parametrize("file", ["GC_lstm_model.h5", "GC_mEPSP.h5"])
def test_a_public_model_finds_the_events_of_a_dense_scan(
    imported: Callable[[str], Model], file: str, threshold: float
) -> None:
    trace, _ = simulate_recording(seconds=3, frequency_hz=15, amplitude=-7, seed=5)
    dense, found = (
        detect(trace, model=imported(file), threshold=threshold, method=method)
        for method in ("dense", "screened")
    )
    assert len(dense) > 5
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(found, name), getattr(dense, name), err_msg=name)

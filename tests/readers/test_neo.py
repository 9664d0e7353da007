"""What neo reads: segments are sweeps, streams are data sets, and its failures are one error."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from neo_files import VALUES, brain_vision, win_wcp

from quantal.errors import ReadError
from quantal.readers import inspect, read


def test_other_formats_come_through_neo(tmp_path: Path) -> None:
    pytest.importorskip("neo", reason='needs neo: pip install "neo>=0.14"')
    path = brain_vision(tmp_path)
    current, voltage = read(path, channel="all")
    np.testing.assert_allclose(current.samples, VALUES * 0.5)
    np.testing.assert_allclose(voltage.samples, VALUES[::-1] * 0.1, rtol=1e-6)
    assert [(t.channel, t.unit, t.rate_hz) for t in (current, voltage)] == [
        ("Im", "pA", 2500.0),
        ("Vm", "mV", 2500.0),
    ]
    assert inspect(path).format == "BrainVision, through neo"
    with pytest.raises(ReadError, match="no data set '7'"):
        read(path, dataset="7")


def test_segments_are_sweeps_and_rates_are_those_meant(tmp_path: Path) -> None:
    pytest.importorskip("neo", reason='needs neo: pip install "neo>=0.14"')
    path = win_wcp(tmp_path)
    traces = read(path)
    assert [(len(t), t.unit, t.rate_hz) for t in traces] == [(512, "pA", 20_000.0)] * 3
    step = 10 / 32767 / 0.5
    for n, trace in enumerate(traces):
        np.testing.assert_allclose(trace.samples, (np.arange(512) + n) * step, rtol=1e-5)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(ReadError, match="cannot be read through neo"):
        read(path)


def test_what_neo_stumbles_over_is_one_error(tmp_path: Path) -> None:
    pytest.importorskip("neo", reason='needs neo: pip install "neo>=0.14"')
    path = brain_vision(tmp_path)
    path.write_text(path.read_text().replace("INT_16", "INT_77"))
    with pytest.raises(ReadError, match=r"cannot be read through neo.*BrainVisionRawIO"):
        read(path)


def test_without_neo_the_error_says_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "neo", None)
    with pytest.raises(ReadError, match=r"not supported.*python -m pip install .neo"):
        read(brain_vision(tmp_path))

"""Every real recording beside the project: rate, unit, length and number of sweeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantal.errors import ReadError
from quantal.readers import describe, inspect, read

# Rate, units of all channels, sweeps and their lengths, as far as they are known from the files'
# own documents or from the programs that wrote them.
RECORDINGS = {
    "abf/17o05026_vc_stim.abf": (20_000.0, ["pA"], [200_000] * 8),
    "abf/171116sh_0020.abf": (20_000.0, ["pA"], [200_000] * 7),
    "abf/18808025.abf": (20_000.0, ["pA"], [12_000] * 40),
    "abf/2020_06_16_0000.abf": (None, None, [3540, 70_040, 16_040]),
    "heka/190604s1c2r1.dat": (25_000.0, ["mV"] * 8, [15_050] + [17_600] * 9 + [16_500] * 2),
    "heka/load-heka-1.dat": (20_000.0, ["pA", "mV"], [7900] * 33 + [50_000]),
    "heka/test_singleFP.dat": (25_000.0, ["mV"], [25_000] * 50),
    "nwb/99111002.nwb": (10_000.0, ["mV"], [7168] * 16),
    "wavesurfer/29997_Hz_sampling_rate_0p913_0001.h5": (1e8 / 3333, ["V"], [30_003]),
    "wavesurfer/acquired_without_scaling_coeffs_0001.h5": (20_000.0, ["V"] * 5, [2000]),
    "wavesurfer/multiple_sweeps_multiple_channels_0001-0009.h5": (1e3, ["V"] * 2, [1000] * 9),
}


@pytest.mark.parametrize("name", RECORDINGS)
def test_rate_units_and_sweeps(shared: Path, name: str) -> None:
    path = shared / "data" / name
    rate_hz, units, lengths = RECORDINGS[name]
    traces = read(path, channel="all")
    channels = len(traces) // len(lengths)
    assert [len(trace) for trace in traces[::channels]] == lengths
    assert len(traces) == channels * len(lengths)
    assert {trace.rate_hz for trace in traces} == {rate_hz or traces[0].rate_hz}
    assert units is None or [trace.unit for trace in traces[:channels]] == units


def test_info_and_read_agree_on_every_file(shared: Path) -> None:
    files = [path for path in sorted((shared / "data").glob("*/*")) if path.is_file()]
    assert len(files) >= len(RECORDINGS)
    for path in files:
        found = inspect(path)
        assert str(path) in describe(found)
        unit = None if all(channel.unit for channel in found.channels) else "a.u."
        try:
            traces = read(path, channel="all", unit=unit)
        except ReadError as error:
            assert "gain" in str(error), path  # noqa: PT017
            continue
        assert len(traces) == found.sweeps * len(found.channels), path
        assert tuple(len(t) for t in traces[:: len(found.channels)]) == found.sweep_samples
        assert {t.rate_hz for t in traces} == {found.rate_hz}

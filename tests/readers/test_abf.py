"""ABF files: real ones against pyabf and raw counts, synthetic ones against what was put in."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pyabf
import pyabf.abfWriter
import pytest
from abf_files import abf1_bytes, abf2_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from quantal.errors import QuantalError, ReadError
from quantal.readers import inspect, read

REAL = [
    # file, rate_hz, channels, sweeps, samples of the first sweep, unit of channel 0
    ("05210017_vc_abf1.abf", 20000.0, 2, 6, 60_000, "pA"),
    ("16d22006_kim_gapfree.abf", 10000.0, 2, 1, 483_000, "dB"),
    ("171116sh_0020.abf", 20000.0, 1, 7, 200_000, "pA"),
    ("17o05024_vc_steps.abf", 20000.0, 1, 7, 70_000, "pA"),
    ("17o05026_vc_stim.abf", 20000.0, 1, 8, 200_000, "pA"),
    ("18808025.abf", 20000.0, 1, 40, 12_000, "pA"),
    ("2020_06_16_0000.abf", 10000.0, 1, 3, 3_540, "pA"),
    ("File_axon_7.abf", 1e6 / 2480, 1, 12, 1_615, "pA"),
    ("invalidDate-abf1.abf", 20000.0, 1, 50, 2_400, "pA"),
    ("invalidDate-abf2.abf", 20000.0, 1, 50, 2_400, "pA"),
    ("model_vc_step.abf", 20000.0, 1, 20, 10_000, "pA"),
    ("multichannelAbf1WithTags.abf", 20000.0, 2, 187, 1_653, "pA"),
    ("opto_aps_bad_units.abf", 20000.0, 1, 3, 400_000, "pA"),
    ("pclamp11_4ch.abf", 20000.0, 4, 10, 4_000, "pA"),
    ("pclamp11_4ch_abf1.abf", 20000.0, 4, 10, 4_000, "pA"),
    ("test_0001.abf", 10000.0, 16, 1, 12_896, "mV"),
    ("user-list-durations.abf", 2000.0, 2, 3, 51_612, "pA"),
]


@pytest.mark.parametrize(("name", "rate_hz", "channels", "sweeps", "samples", "unit"), REAL)
def test_reads_what_is_in_a_real_file(
    shared_abf: Path,
    name: str,
    rate_hz: float,
    channels: int,
    sweeps: int,
    samples: int,
    unit: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    traces = read(shared_abf / name, channel="all")
    assert len(traces) == channels * sweeps
    assert [trace.sweep for trace in traces[::channels]] == list(range(sweeps))
    first = traces[0]
    assert (len(first), first.unit, first.start_s) == (samples, unit, 0.0)
    assert first.rate_hz == pytest.approx(rate_hz, rel=1e-12)
    assert first.recording == Path(name).stem
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", [row[0] for row in REAL])
def test_samples_equal_those_of_pyabf(shared_abf: Path, name: str) -> None:
    oracle = pyabf.ABF(shared_abf / name)
    traces = read(shared_abf / name, channel="all")
    for i, trace in enumerate(traces):
        oracle.setSweep(i // oracle.channelCount, i % oracle.channelCount)
        np.testing.assert_array_equal(trace.samples, oracle.sweepY)


def test_samples_equal_raw_counts_times_the_gain(shared_abf: Path) -> None:
    # 10 V over 32768 counts, 0.0005 V/pA, telegraphed gain 5: 0.1220703 pA a count; data from 6656.
    raw = np.fromfile(shared_abf / "17o05026_vc_stim.abf", "<i2", count=1_600_000, offset=6656)
    gain = 10 / 32768 / 0.0005 / 5
    trace = read(shared_abf / "17o05026_vc_stim.abf", sweeps=3)[0]
    np.testing.assert_allclose(trace.samples, raw[600_000:800_000] * gain, rtol=1e-6)


def test_sweeps_of_different_length(shared_abf: Path) -> None:
    path = shared_abf / "2020_06_16_0000.abf"
    assert [len(trace) for trace in read(path)] == [3540, 70040, 16040]
    assert inspect(path).sweep_samples == (3540, 70040, 16040)
    raw = np.fromfile(path, "<i2", count=89_620, offset=5632)
    last = read(path, sweeps="2")[0]
    np.testing.assert_allclose(last.samples, raw[-16040:] * 0.30517577, rtol=1e-6)


def test_the_rate_is_not_rounded(shared_abf: Path) -> None:
    assert pyabf.ABF(shared_abf / "File_axon_7.abf", loadData=False).dataRate == 403
    assert read(shared_abf / "File_axon_7.abf")[0].rate_hz == 403.2258064516129


@pytest.mark.parametrize("name", ["invalidDate-abf1.abf", "invalidDate-abf2.abf"])
def test_an_impossible_date_is_no_date(shared_abf: Path, name: str) -> None:
    info = inspect(shared_abf / name)
    assert info.recorded is None
    assert any("impossible" in note for note in info.notes)


def test_settings_are_not_taken_from_the_samples_of_a_short_header(shared_abf: Path) -> None:
    info = inspect(shared_abf / "invalidDate-abf1.abf")
    assert (info.comment, info.channels[0].name) == ("", "channel 0")


def test_abf1_and_abf2_of_the_same_data_agree(shared_abf: Path) -> None:
    """The export to ABF1 cut negative samples towards zero, so they differ by one count."""
    count = 0.00030517578125
    new = read(shared_abf / "pclamp11_4ch.abf", channel="all")
    old = read(shared_abf / "pclamp11_4ch_abf1.abf", channel="all")
    for one, other in zip(new, old, strict=True):
        assert (one.channel, one.unit, one.rate_hz, one.sweep) == (
            other.channel,
            other.unit,
            other.rate_hz,
            other.sweep,
        )
        positive = one.samples >= 0
        np.testing.assert_array_equal(one.samples[positive], other.samples[positive])
        np.testing.assert_allclose(one.samples, other.samples, atol=1.01 * count, rtol=0)


def test_sixteen_channels_of_mixed_units(shared_abf: Path) -> None:
    traces = read(shared_abf / "test_0001.abf", channel=["I4", "Tmp", 3])
    assert [(trace.channel, trace.unit) for trace in traces] == [
        ("I4", "nA"),
        ("Tmp", "C"),
        ("I2", "nA"),
    ]


def test_tags_and_protocol(shared_abf: Path) -> None:
    info = inspect(shared_abf / "multichannelAbf1WithTags.abf")
    assert [(tag.time_s, tag.text) for tag in info.tags] == [
        (173.9776, "+TGOT"),
        (294.8608, "-TGOT"),
    ]
    assert info.protocol == "0402 VC 2s MT-50"
    assert info.recorded == datetime(2016, 12, 5, 12, 40, 20, 701_000)


def test_wrong_units_can_be_mended(shared_abf: Path) -> None:
    path = shared_abf / "opto_aps_bad_units.abf"
    stated, mended = read(path, sweeps=0)[0], read(path, sweeps=0, unit="mV", scale=0.05)[0]
    assert (stated.unit, mended.unit) == ("pA", "mV")
    np.testing.assert_allclose(mended.samples, stated.samples * 0.05, rtol=1e-6)


def test_the_writer_of_pyabf_is_understood(tmp_path: Path) -> None:
    wave = np.array([[0.0, 1.0, -2.0, 3.0], [4.0, 5.0, 6.0, 7.0]])
    pyabf.abfWriter.writeABF1(wave, str(tmp_path / "w.abf"), 10_000, units="mV")
    traces = read(tmp_path / "w.abf")
    assert [(trace.unit, trace.rate_hz) for trace in traces] == [("mV", 10_000.0)] * 2
    np.testing.assert_allclose([trace.samples for trace in traces], wave, atol=1e-3)


Writer = Callable[..., bytes]
COUNTS = np.arange(-20, 20, dtype=np.int16)


def test_counts_become_units(tmp_path: Path, abf_bytes: Writer) -> None:
    """Ten counts are one pA, and the offset is 1 pA."""
    (tmp_path / "a.abf").write_bytes(abf_bytes(COUNTS))
    trace = read(tmp_path / "a.abf")[0]
    np.testing.assert_allclose(trace.samples, COUNTS / 10 + 1, atol=1e-6)
    assert (trace.channel, trace.unit, trace.rate_hz) == ("Im", "pA", 20_000.0)


def test_channels_are_told_apart_in_unequal_sweeps(tmp_path: Path, abf_bytes: Writer) -> None:
    data = abf_bytes(
        COUNTS, names=("Im", "Vm"), units=(b"pA", b"mV"), sweeps=3, lengths=(4, 10, 26)
    )
    (tmp_path / "a.abf").write_bytes(data)
    traces = read(tmp_path / "a.abf", channel="all", sweeps="1,0")
    assert [(t.sweep, t.channel, len(t)) for t in traces] == [
        (1, "Im", 5),
        (1, "Vm", 5),
        (0, "Im", 2),
        (0, "Vm", 2),
    ]
    np.testing.assert_allclose(traces[1].samples, COUNTS[5:14:2] / 10 + 1, atol=1e-6)


def test_floats_are_kept_with_their_gaps(tmp_path: Path, abf_bytes: Writer) -> None:
    values = np.array([1.5, np.nan, -3.25, 4.0], np.float32)
    (tmp_path / "a.abf").write_bytes(abf_bytes(values))
    np.testing.assert_array_equal(read(tmp_path / "a.abf")[0].samples, values)


def test_an_interval_in_single_precision_gives_the_rate_that_was_set(
    tmp_path: Path, abf_bytes: Writer
) -> None:
    (tmp_path / "a.abf").write_bytes(abf_bytes(COUNTS, interval_us=12.8))
    assert read(tmp_path / "a.abf")[0].rate_hz == 78_125.0


def test_rates_below_one_hertz(tmp_path: Path, abf_bytes: Writer) -> None:
    (tmp_path / "a.abf").write_bytes(abf_bytes(COUNTS, interval_us=4e6))
    assert read(tmp_path / "a.abf")[0].rate_hz == 0.25


def test_abf1_rate_is_per_channel(tmp_path: Path) -> None:
    data = abf1_bytes(COUNTS, interval_us=6.25, names=("a", "b"), units=(b"pA", b"pA"))
    (tmp_path / "a.abf").write_bytes(data)
    assert read(tmp_path / "a.abf")[0].rate_hz == 80_000.0


def test_abf1_skips_the_samples_to_be_ignored(tmp_path: Path) -> None:
    (tmp_path / "a.abf").write_bytes(abf1_bytes(COUNTS, ignored=7))
    np.testing.assert_allclose(read(tmp_path / "a.abf")[0].samples, COUNTS / 10 + 1, atol=1e-6)


def test_abf1_reads_nothing_past_a_short_header(tmp_path: Path) -> None:
    """A sample of 1 where a long header has its telegraph switch must not change the gain."""
    counts = np.ones(3000, np.int16)
    (tmp_path / "a.abf").write_bytes(abf1_bytes(counts, header_blocks=4))
    np.testing.assert_allclose(read(tmp_path / "a.abf")[0].samples, 1.1, rtol=1e-6)


def test_a_micro_sign_is_not_lost(tmp_path: Path, abf_bytes: Writer) -> None:
    (tmp_path / "a.abf").write_bytes(abf_bytes(COUNTS, units=(b"\xb5A",)))
    assert read(tmp_path / "a.abf")[0].unit == "uA"


def test_a_blank_unit_must_be_given(tmp_path: Path) -> None:
    (tmp_path / "a.abf").write_bytes(abf1_bytes(COUNTS, units=(b"",)))
    with pytest.raises(ReadError, match=r"Im has no unit.*--unit pA"):
        read(tmp_path / "a.abf")
    assert read(tmp_path / "a.abf", unit="nA")[0].unit == "nA"


def test_tags_of_both_versions(tmp_path: Path, abf_bytes: Writer) -> None:
    (tmp_path / "a.abf").write_bytes(abf_bytes(COUNTS, tags=[(20_000, b"TTX 1 \xb5M")]))
    (tag,) = inspect(tmp_path / "a.abf").tags
    assert (tag.time_s, tag.text) == (1.0, "TTX 1 uM")


def test_no_date_is_not_the_date_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.abf").write_bytes(abf1_bytes(COUNTS, date=0))
    info = inspect(tmp_path / "a.abf")
    assert info.recorded is None
    assert not any("impossible" in note for note in info.notes)


def test_gap_free_is_one_sweep(tmp_path: Path) -> None:
    data = abf2_bytes(COUNTS, mode=3, sweeps=4, lengths=(20, 20))
    (tmp_path / "a.abf").write_bytes(data)
    assert inspect(tmp_path / "a.abf").sweep_samples == (40,)


def test_sweeps_that_do_not_fit_are_refused(tmp_path: Path, abf_bytes: Writer) -> None:
    (tmp_path / "a.abf").write_bytes(abf_bytes(COUNTS, sweeps=7))
    with pytest.raises(ReadError, match="do not divide into 7 sweeps"):
        read(tmp_path / "a.abf")


def test_a_file_without_samples_is_refused(tmp_path: Path, abf_bytes: Writer) -> None:
    (tmp_path / "a.abf").write_bytes(abf_bytes(COUNTS[:0]))
    with pytest.raises(ReadError, match="no samples"):
        read(tmp_path / "a.abf")


def test_every_truncation_is_refused(tmp_path: Path, abf_bytes: Writer) -> None:
    counts = np.arange(400, dtype=np.int16)
    whole = abf_bytes(counts, sweeps=2, lengths=(160, 240), tags=[(1, b"x")])
    path = tmp_path / "a.abf"
    last_needed = whole.rstrip(b"\0").rfind(b"x")
    for length in [*range(1, 60, 7), *range(64, last_needed, 97), last_needed]:
        path.write_bytes(whole[:length])
        with pytest.raises(ReadError):
            read(path)
    path.write_bytes(whole)
    assert [len(trace) for trace in read(path)] == [160, 240]


@pytest.mark.parametrize("part", [0.001, 0.1, 0.5, 0.999])
def test_a_truncated_real_file_says_how_much_is_missing(
    shared_abf: Path, tmp_path: Path, part: float
) -> None:
    whole = (shared_abf / "18808025.abf").read_bytes()
    (tmp_path / "cut.abf").write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(ReadError, match=r"ends early.*bytes.*copy it again"):
        read(tmp_path / "cut.abf")


def test_huge_declared_sizes_are_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    path = tmp_path / "a.abf"
    for position in (92, 220, 236, 252, 316):  # entry counts of the sections
        data = bytearray(abf2_bytes(COUNTS, lengths=(40,), tags=[(1, b"x")]))
        struct.pack_into("<q", data, position + 8, 2**31 - 1)
        path.write_bytes(data)
        with pytest.raises(ReadError, match="ends early"):
            read(path)
    for position in (10, 48, 96):  # samples, tags, sweep lengths
        data = bytearray(abf1_bytes(COUNTS, lengths=(40,), tags=[(1, b"x")]))
        struct.pack_into("<i", data, position, 2**31 - 1)
        path.write_bytes(data)
        with pytest.raises(ReadError, match="ends early"):
            read(path)


@pytest.mark.parametrize("factor", [0.0, np.nan, np.inf, 1e-38])
def test_an_impossible_gain_is_refused_for_that_channel_only(tmp_path: Path, factor: float) -> None:
    data = bytearray(abf1_bytes(COUNTS, names=("a", "b"), units=(b"pA", b"mV")))
    struct.pack_into("<f", data, 922, factor)
    (tmp_path / "a.abf").write_bytes(data)
    with pytest.raises(ReadError, match="no usable gain for a"):
        read(tmp_path / "a.abf")
    assert len(read(tmp_path / "a.abf", channel="b")[0]) == 20


@pytest.mark.parametrize("interval", [0.0, -50.0, np.nan, np.inf])
def test_an_impossible_interval_asks_for_the_rate(
    tmp_path: Path, abf_bytes: Writer, interval: float
) -> None:
    (tmp_path / "a.abf").write_bytes(abf_bytes(COUNTS, interval_us=interval))
    with pytest.raises(ReadError, match=r"no usable sampling interval.*--rate-hz"):
        read(tmp_path / "a.abf")
    assert read(tmp_path / "a.abf", rate_hz=20_000)[0].rate_hz == 20_000.0


@pytest.mark.parametrize("magic", [b"", b"ABF ", b"ABF2"])
def test_random_bytes_are_refused(tmp_path: Path, magic: bytes) -> None:
    rng = np.random.default_rng(1)
    for length in (10, 600, 3000, 20_000):
        (tmp_path / "a.abf").write_bytes(magic + rng.bytes(length))
        with pytest.raises(ReadError, match=r"a\.abf"):
            read(tmp_path / "a.abf")


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([abf1_bytes, abf2_bytes]),
    st.lists(st.tuples(st.integers(4, 2600), st.binary(min_size=1, max_size=8)), max_size=4),
)
def test_a_damaged_header_gives_traces_or_a_clear_error(
    tmp_path_factory: pytest.TempPathFactory, write: Writer, damage: list[tuple[int, bytes]]
) -> None:
    data = bytearray(write(np.arange(400, dtype=np.int16), sweeps=2, lengths=(160, 240)))
    for position, values in damage:
        data[position : position + len(values)] = values
    path = tmp_path_factory.getbasetemp() / "damaged.abf"
    path.write_bytes(data)
    try:
        traces = read(path, channel="all")
    except QuantalError:
        return
    assert sum(len(trace) for trace in traces) * 2 <= len(data)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.abf").write_bytes(abf1_bytes(COUNTS))
    (tmp_path / "a.abf").chmod(0)
    with pytest.raises(ReadError, match="cannot be read"):
        read(tmp_path / "a.abf")

"""Traces that no cell gives: what is found does not change, or it is said why nothing is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import quantal
from attacks import typed
from quantal import Events, OnlineDetector, QuantalError, Rois, Trace
from quantal.errors import UsageError
from quantal.simulate import simulate_recording

Samples = NDArray[np.float32]
RATE_HZ = 50_000.0
N = 75_000  # 1.5 s
DETECTORS = ("template", "deconvolution", "threshold", "matched")
WAYS = ("network", "online", *DETECTORS)


@pytest.fixture(scope="module")
def samples() -> Samples:
    trace, _ = simulate_recording(seconds=N / RATE_HZ, frequency_hz=8, amplitude=-25, seed=4)
    return trace.samples


def trace_of(samples: NDArray[np.generic]) -> Trace:
    return Trace(samples=samples, rate_hz=RATE_HZ, unit="pA")


def found(samples: NDArray[np.generic], way: str) -> Events:
    """Events of a trace by the network, in pieces or as a whole, or by a detector without one."""
    trace = trace_of(samples)
    if way != "online":
        return quantal.detect(trace, detector=way)
    online = OnlineDetector(rate_hz=RATE_HZ)
    pieces = np.array_split(trace.samples, 3)
    return quantal.join([*(online.push(piece) for piece in pieces), online.finish()])


@pytest.mark.parametrize("way", WAYS)
def test_no_unit_is_too_large_or_too_small(samples: Samples, way: str) -> None:
    usual = found(samples, way)
    assert len(usual) >= 5
    for factor in (1e30, 1e36, 1e-12, 1e-40):
        scaled = found(samples * np.float64(factor), way)
        assert len(scaled) == len(usual), factor
        np.testing.assert_allclose(scaled.location_s, usual.location_s, atol=2 / RATE_HZ)
        known = np.isfinite(usual.amplitude)  # denormal numbers have few digits
        np.testing.assert_allclose(scaled.amplitude[known] / factor, usual.amplitude[known], 0.02)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [np.int16, np.uint16])
def test_counts_of_a_converter_are_samples(
    samples: Samples, way: str, dtype: type[np.generic]
) -> None:
    counts = np.round(100 * samples - 100 * samples.min()).astype(dtype)
    usual, of_counts = found(counts.astype(np.float32), way), found(counts, way)
    np.testing.assert_array_equal(of_counts.location_s, usual.location_s)


def spoil(samples: Samples, how: str) -> tuple[Samples, NDArray[np.bool_]]:
    """The samples with some missing, and which."""
    lost = np.zeros(len(samples), np.bool_)
    if how in ("nan", "inf"):
        lost[:] = True
    elif how == "half":
        lost[: len(samples) // 2] = True
    elif how == "now and then":
        lost[:: len(samples) // 50] = True
    elif how == "every other":
        lost[::2] = True
    spoilt = samples.copy()
    spoilt[lost] = np.inf if how == "inf" else -np.inf if how == "half" else np.nan
    return spoilt, lost


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("how", ["nan", "inf", "half", "now and then", "every other"])
def test_no_event_is_where_samples_are_missing(samples: Samples, way: str, how: str) -> None:
    spoilt, lost = spoil(samples, how)
    events = found(spoilt, way)
    at = np.rint(events.location_s * RATE_HZ).astype(int)
    assert not lost[np.clip(at, 0, N - 1)].any()
    assert sum(sweep.analysed_s for sweep in events.sweeps) == pytest.approx(
        (~lost).sum() / RATE_HZ
    )
    if how == "half":
        usual = found(samples, way)
        late = usual.location_s[usual.location_s > 0.5 * N / RATE_HZ + 0.02]
        assert all(np.abs(events.location_s - time_s).min() < 1e-3 for time_s in late)


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_found_where_nothing_happens(samples: Samples, way: str) -> None:
    del samples
    for nothing in (np.zeros(N), np.full(N, -70.0), np.r_[np.zeros(N // 2), np.ones(N - N // 2)]):
        assert len(found(nothing, way)) <= (nothing.std() > 0)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("n", [0, 1, 2, 100])
def test_what_is_shorter_than_a_window_is_told_or_holds_nothing(
    samples: Samples, way: str, n: int
) -> None:
    if way == "online":  # what has come so far is short at first
        assert len(found(samples[:n], way)) == 0
        return
    with pytest.raises(UsageError, match="longer than the trace"):
        found(samples[:n], way)


@pytest.mark.parametrize("way", WAYS)
def test_artefacts_beyond_all_reason_hide_no_event_elsewhere(samples: Samples, way: str) -> None:
    usual, spoilt = found(samples, way), samples.copy()
    spoilt[30_000:30_010], spoilt[30_010:30_020] = 3e38, -3e38
    events = found(spoilt, way)
    far = usual.location_s[np.abs(usual.location_s - 0.6) > 0.15]
    assert all(np.abs(events.location_s - time_s).min() < 1e-3 for time_s in far)


@pytest.mark.parametrize("how", ["nan", "half", "every other", "huge", "flat"])
def test_fits_averages_and_summaries_of_them_are_sound(samples: Samples, how: str) -> None:
    changed = {"huge": samples * np.float32(1e30), "flat": np.zeros(N, np.float32)}
    trace = trace_of(changed.get(how, spoil(samples, how)[0]))
    events = quantal.detect(trace)
    fits = events.fit(trace)
    assert len(fits) == len(events)
    assert not np.isinf(fits.amplitude).any()
    assert events.summary()["events"] == len(events)
    assert events.average([trace]).n <= len(events)
    if how == "huge":
        assert np.isfinite(fits.amplitude).sum() >= 5


# Imaging -----------------------------------------------------------------------------------------


def test_a_spoilt_roi_spoils_no_other() -> None:
    rng = np.random.default_rng(3)
    good = rng.normal(0, 0.05, 2_000).astype(np.float32)
    for at in (300, 900, 1_500):
        good[at : at + 100] += np.exp(-np.arange(100) / 15).astype(np.float32)
    huge, spoilt = good * np.float32(1e30), good.copy()
    spoilt[::2] = np.inf
    rows = [good, np.full(2_000, np.nan), np.zeros(2_000), huge, spoilt, np.full(2_000, np.inf)]

    def searched(rows: list[NDArray[np.generic]]) -> Events:
        rois = Rois(samples=np.stack(rows).astype(np.float32), rate_hz=100.0, kind="dff")
        return quantal.detect_rois(rois, window_ms=600)

    alone, events = searched([good]), searched(rows)
    assert len(alone) >= 3
    np.testing.assert_array_equal(events[events.roi == 0].location_s, alone.location_s)
    np.testing.assert_allclose(events[events.roi == 3].location_s, alone.location_s, atol=0.02)
    assert set(events.roi.tolist()) <= {0, 3, 4}
    assert [sweep.analysed_s for sweep in events.sweeps] == [20, 0, 20, 20, 10, 0]


@pytest.mark.parametrize("n", [0, 1, 2, 10])
def test_rois_of_too_few_samples_are_told(n: int) -> None:
    with pytest.raises(QuantalError):
        quantal.detect_rois(
            Rois(samples=np.ones((2, n), np.float32), rate_hz=100.0, kind="dff"), window_ms=600
        )


# The command line --------------------------------------------------------------------------------


@pytest.fixture
def recording(tmp_path: Path) -> Callable[[NDArray[np.generic]], Path]:
    def write(samples: NDArray[np.generic]) -> Path:
        np.save(tmp_path / "cell.npy", samples)
        return tmp_path / "cell.npy"

    return write


def detected(path: Path, *options: object, unit: str = "pA") -> tuple[int, str]:
    result = typed(
        *("detect", path, "--rate-hz", RATE_HZ, "--unit", unit, "--out", path.parent),
        *("--no-picture", "--quiet", *options),
    )
    assert "Traceback" not in result.stderr
    return result.exit_code, result.stderr


@pytest.mark.parametrize(
    ("change", "unit", "words"),
    [
        (lambda x: x, "pA", ""),
        (lambda x: x * 1e-12, "pA", "add --unit A;"),  # amps, called pA
        (lambda x: x * 1e-3, "pA", "add --unit nA;"),
        (lambda x: x * 1e-12, "A", ""),
        (lambda x: x, "A", "add --unit pA;"),
        (lambda x: x / 20, "mV", ""),
        (lambda x: x / 20, "V", "add --unit mV;"),
        (lambda x: x, "parsec", "the unit 'parsec' is not known"),
        (lambda x: x, "PA", "the unit 'PA' is not known"),
        (lambda x: x / 20, "dF/F", ""),
        (lambda x: x.clip(-20.5, -19), "pA", "saturated"),
        (lambda x: x * 0 - 70, "mV", "all samples are -70 mV"),
        (lambda x: x * np.nan, "pA", "nothing was searched"),
        (lambda x: x * np.inf, "pA", "nothing was searched"),
    ],
)
def test_what_is_doubtful_is_told_in_one_warning(
    samples: Samples,
    recording: Callable[[NDArray[np.generic]], Path],
    change: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    unit: str,
    words: str,
) -> None:
    path = recording(change(samples.astype(np.float64) - 1e-9))
    code, stderr = detected(path, unit=unit)
    assert code == 0
    assert words in stderr
    warnings = [line for line in stderr.splitlines() if line]
    assert all(line.startswith("warning: cell.npy: ") for line in warnings)
    assert len(warnings) == (0 if not words else 2 if words == "saturated" else 1)  # at both ends


@pytest.mark.parametrize("n", [0, 1, 2, 100])
def test_a_short_file_is_one_line_and_no_traceback(
    samples: Samples, recording: Callable[[NDArray[np.generic]], Path], n: int
) -> None:
    code, stderr = detected(recording(samples[:n]))
    assert code in (2, 3)
    assert stderr.startswith("error: ")
    assert stderr.count("\n") == 1

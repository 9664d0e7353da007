"""Scores without a network: criterion, deconvolution, optimal filter, differences of means."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

import naive
from quantal.classical import template_criterion
from quantal.classical.deconvolution import deconvolving_weights, fitted_gaussian
from quantal.classical.detector import Shape
from quantal.classical.matched import matched_weights, noise_power
from quantal.classical.stretches import filtered, find_stretches, held, in_sds
from quantal.classical.threshold import amplitudes
from quantal.errors import UsageError
from quantal.noise import robust_sd
from quantal.simulate import biexponential, simulate_recording

Samples = NDArray[np.float32]
EVENT = np.r_[np.zeros(5), biexponential(1.0, 3.0, 12.0)[:45]]


def noise(n: int, seed: int = 0) -> Samples:
    return np.random.default_rng(seed).normal(size=n).astype(np.float32)


def least_squares(samples: Samples, template: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale over standard error of the best fit of a scaled template and an offset."""
    n = len(template)
    out = np.full(len(samples), np.nan)
    design = np.stack([template, np.ones(n)], axis=1)
    for i in range(len(samples) - n + 1):
        y = samples[i : i + n].astype(np.float64)
        if np.isfinite(y).all():
            best = np.linalg.lstsq(design, y, rcond=None)[0]
            error = np.sqrt(((y - design @ best) ** 2).sum() / (n - 1))
            out[i] = best[0] / error
    return out


@pytest.mark.parametrize("offset", [0.0, -70.0, 3_000.0])
def test_the_criterion_is_that_of_plain_least_squares(offset: float) -> None:
    samples = noise(400)
    samples[200:250] += np.float32(4) * EVENT.astype(np.float32)
    samples += np.float32(offset)
    found = template_criterion(samples, EVENT)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, least_squares(samples, EVENT), rtol=1e-4, atol=1e-5)
    assert np.nanargmax(found) in range(198, 203)


@settings(max_examples=60, deadline=None)
@given(
    samples=arrays(np.float32, st.integers(0, 60), elements=st.floats(-100, 100, width=32)),
    template=arrays(np.float64, st.integers(3, 12), elements=st.integers(-5, 5)),
)
def test_any_samples_and_template_agree_with_least_squares(
    samples: Samples, template: NDArray[np.float64]
) -> None:
    if np.ptp(template) == 0:
        return
    samples = samples + noise(len(samples))  # a perfect fit has no error to compare
    found, expected = template_criterion(samples, template), least_squares(samples, template)
    plain = ~(np.abs(expected) > 1e4)
    np.testing.assert_allclose(found[plain], expected[plain], rtol=2e-3, atol=1e-3)
    assert (np.abs(found[~plain]) > 1e3).all()


def test_a_long_trace_is_the_same_in_its_blocks() -> None:
    samples = noise(150_000) + np.linspace(0, 500, 150_000, dtype=np.float32)
    found = template_criterion(samples, EVENT)
    assert np.isfinite(found[: 1 - len(EVENT)]).all()
    for first in (0, 65_436, 131_000, 149_850):
        part = samples[first : first + 150]
        expected = least_squares(part, EVENT)[: 150 - len(EVENT) + 1]
        np.testing.assert_allclose(
            found[first : first + len(expected)], expected, rtol=1e-3, atol=1e-4
        )


def test_where_the_template_does_not_fit_or_a_sample_is_missing_there_is_no_criterion() -> None:
    samples = noise(300)
    samples[100], samples[200] = np.nan, np.inf
    found = template_criterion(samples, EVENT)
    n = len(EVENT)
    unknown = np.zeros(300, bool)
    unknown[100 - n + 1 : 101] = unknown[200 - n + 1 : 201] = unknown[300 - n + 1 :] = True
    np.testing.assert_array_equal(np.isnan(found), unknown)
    np.testing.assert_allclose(found, least_squares(samples, EVENT), rtol=1e-4, atol=1e-5)
    assert np.isnan(template_criterion(noise(n - 1), EVENT)).all()
    assert np.isnan(template_criterion(np.full(500, np.nan, np.float32), EVENT)).all()
    assert template_criterion(np.empty(0, np.float32), EVENT).shape == (0,)


@pytest.mark.parametrize("level", [0.0, -71.3, 1e6, 1e30])
def test_constant_stretches_fit_nothing(level: float) -> None:
    samples = np.full(400, level, np.float32)
    assert (template_criterion(samples, EVENT)[: 1 - len(EVENT)] == 0).all()


def test_a_constant_stretch_beside_a_huge_artefact_fits_nothing() -> None:
    samples = noise(5_000)
    samples[1_000:1_500] = 20_000.0
    samples[3_000:4_000] = -70.1
    found = template_criterion(samples, EVENT)
    assert (found[3_000 : 4_000 - len(EVENT) + 1] == 0).all()
    np.testing.assert_allclose(
        found[4_100:4_200], least_squares(samples[4_100:4_300], EVENT)[:100], rtol=1e-2, atol=1e-3
    )


def test_a_perfect_fit_is_large_and_finite() -> None:
    samples = np.r_[np.zeros(50), -3 * EVENT, np.zeros(50)].astype(np.float32)
    found = template_criterion(samples, EVENT)[: 1 - len(EVENT)]
    assert np.isfinite(found).all()
    assert found.argmin() == 50
    assert found[50] < -1e5


def test_the_criterion_turns_with_the_samples_and_knows_no_unit() -> None:
    samples = noise(500)
    found = template_criterion(samples, EVENT)
    np.testing.assert_allclose(template_criterion(-samples, EVENT), -found, rtol=1e-5)
    np.testing.assert_allclose(template_criterion(1e-9 * samples, EVENT), found, rtol=1e-4)
    np.testing.assert_allclose(template_criterion(samples, EVENT + 7), found, rtol=1e-4, atol=1e-6)


def test_in_white_noise_the_criterion_scatters_by_the_inverse_norm_of_the_template() -> None:
    found = template_criterion(noise(100_000), EVENT)
    expected = 1 / np.sqrt(((EVENT - EVENT.mean()) ** 2).sum())
    assert np.nanstd(found) == pytest.approx(expected, rel=0.05)


def test_simulated_events_stand_out_at_their_onsets() -> None:
    trace, truth = simulate_recording(seconds=4, frequency_hz=3, amplitude=-20, seed=1)
    before = 40
    template = np.r_[np.zeros(before), biexponential(trace.rate_hz, 2e-4, 1e-3)[:260]]
    found = np.nan_to_num(template_criterion(-trace.samples, template))
    noise_sd = 1.4826 * np.median(np.abs(found - np.median(found)))
    large = truth.onset_s[truth.amplitude < -10]
    assert len(large) > 5
    for start in np.round(large * trace.rate_hz).astype(int) - before:
        assert found[start - 20 : start + 40].max() > 8 * noise_sd


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (np.ones((2, 5)), "one dimension"),
        ([1.0, 2.0], "at least 3 samples"),
        ([], "at least 3 samples"),
        ([0.0, np.nan, 1.0], "missing"),
        ([4.0, 4.0, 4.0], "constant"),
    ],
)
def test_a_template_without_a_shape_is_refused(template: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        template_criterion(noise(50), template)  # type: ignore[arg-type]


SHAPE = Shape(rise=2.0, decay=10.0)


@pytest.mark.parametrize(("rise", "decay"), [(2.0, 10.0), (10.0, 50.0), (0.4, 2.0), (30.0, 20.0)])
def test_the_shape_has_unit_peak_where_it_says_and_the_spectrum_of_its_samples(
    rise: float, decay: float
) -> None:
    shape = Shape(rise=rise, decay=decay)
    t = np.linspace(0, 20 * decay, 200_001)
    fine = naive.event_shape(t, 0.0, 1.0, rise, decay, 1.0)
    assert t[fine.argmax()] == pytest.approx(shape.peak, abs=1e-3 * decay)
    found = shape.values(5, 300)
    expected = naive.event_shape(np.arange(-5.0, 300.0), 0.0, 1.0, rise, decay, 1.0) / fine.max()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    for cycles in (0.0, 0.003, 0.05):
        whole = np.trapezoid(fine * np.exp(-2j * np.pi * cycles * t), t) / fine.max()
        assert shape.spectrum(np.array([cycles]))[0] == pytest.approx(whole, rel=1e-4, abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(
    samples=arrays(np.float32, st.integers(1, 80), elements=st.floats(-50, 50, width=32)),
    weights=arrays(np.float64, st.integers(1, 30), elements=st.integers(-5, 5)),
    data=st.data(),
)
def test_filtering_is_a_plain_convolution_of_the_held_samples(
    samples: Samples, weights: NDArray[np.float64], data: st.DataObject
) -> None:
    centre = data.draw(st.integers(0, len(weights) - 1))
    level = data.draw(st.integers(1, 5))
    found = filtered(samples, weights, centre, level)
    assert found.dtype == np.float32
    expected = naive.held_filter(samples, weights, centre, level)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-2)


def test_a_long_trace_is_filtered_the_same_in_its_blocks() -> None:
    samples, weights = noise(300_000), np.array([1.0, 2.0, -4.0, 0.5])
    expected = naive.held_filter(samples, weights, 1, 5)
    np.testing.assert_allclose(filtered(samples, weights, 1, 5), expected, rtol=1e-4, atol=1e-4)


def test_beyond_its_ends_a_trace_is_held() -> None:
    samples = np.array([1, 3, 10, 4, 8], np.float32)
    assert held(samples, 2, 1, 2).tolist() == [2, 2, 1, 3, 10, 4, 8, 6]
    assert held(samples, 0, 0, 2).tolist() == samples.tolist()
    assert held(samples[:1], 1, 2, 9).tolist() == [1, 1, 1, 1]


@settings(max_examples=80, deadline=None)
@given(
    samples=st.lists(st.sampled_from([0.0, 1.0, 2.0, np.nan]), max_size=40),
    gap=st.integers(1, 4),
    flat=st.integers(2, 5),
)
def test_stretches_end_at_gaps_and_flat_runs(samples: list[float], gap: int, flat: int) -> None:
    missing = [np.isnan(v) for v in samples]
    gaps = naive.long_runs([m or None for m in missing], gap)
    runs = naive.long_runs([None if m else v for m, v in zip(missing, samples, strict=True)], flat)
    dead = np.array(gaps, bool) | np.array(runs, bool)
    found = find_stretches(np.array(samples, np.float32), gap, flat)
    kept = np.zeros(len(samples), bool)
    for start, stop in found:
        assert not kept[start - 1 : stop].any()  # in order, and parted
        kept[start:stop] = True
    np.testing.assert_array_equal(kept, ~dead)


@settings(max_examples=60, deadline=None)
@given(
    samples=arrays(np.float32, st.integers(1, 60), elements=st.floats(-50, 50, width=32)),
    before=st.integers(1, 8),
    lag=st.integers(0, 5),
    around=st.integers(1, 6),
)
def test_amplitudes_are_differences_of_means(
    samples: Samples, before: int, lag: int, around: int
) -> None:
    expected = naive.rises_above_baseline(samples.astype(np.float64), before, lag, around)
    found = amplitudes(samples, before, lag, around)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_amplitudes_of_a_long_trace_do_not_gather_rounding() -> None:
    samples = noise(20_000)
    samples[100] = 1e9  # what a running sum would never forget
    found = amplitudes(samples, 20, 3, 5)
    expected = naive.rises_above_baseline(samples.astype(np.float64), 20, 3, 5)
    np.testing.assert_allclose(found[5_000:], expected[5_000:], rtol=1e-4, atol=1e-5)


def test_an_amplitude_by_hand() -> None:
    samples = np.array([1, 1, 3, 9, 5, 5], np.float32)
    assert amplitudes(samples, 2, 1, 2).tolist() == [6.0, 3.0]  # 7 - 1, 5 - 2


@pytest.mark.parametrize("shape", [SHAPE, Shape(rise=10.0, decay=50.0)])
def test_deconvolution_turns_an_event_into_a_short_peak_of_its_size_at_its_onset(
    shape: Shape,
) -> None:
    weights, centre = deconvolving_weights(shape)
    at = 4 * round(100 * shape.decay)
    samples = np.zeros(2 * at)
    event = shape.values(0, at)
    samples[at:] += 3 * event
    samples[at + round(2 * shape.decay) :] += 6 * event[: -round(2 * shape.decay)]
    found = filtered((samples + 70).astype(np.float32), weights, centre, 5)
    assert found[: at - round(5 * shape.decay)] == pytest.approx(0, abs=0.02 * float(found.max()))
    first, second = at, at + round(2 * shape.decay)
    middle = (first + second) // 2
    assert found[:middle].argmax() == pytest.approx(first, abs=1)
    assert found.argmax() == pytest.approx(second, abs=1)
    assert found[:middle].max() == pytest.approx(0.5 * float(found.max()), rel=0.05)
    assert found[middle] < 0.3 * found[first]


def test_the_gaussian_of_the_histogram_is_that_of_the_noise_and_not_of_the_events() -> None:
    values = noise(50_000) * np.float32(3) + np.float32(2)
    assert fitted_gaussian(values) == pytest.approx((2, 3), rel=0.03)
    values[::10] += np.float32(40)
    assert fitted_gaussian(values) == pytest.approx((2, 3), rel=0.05)
    assert robust_sd(values) > 1.1 * 3


@pytest.mark.parametrize("values", [[], [4.0], [4.0] * 50, [0.0, 1.0] * 3, [1e30, -1e30] * 30])
def test_a_histogram_of_too_little_falls_back_on_the_robust_sd(values: list[float]) -> None:
    samples = np.array(values, np.float32)
    middle, sd = fitted_gaussian(samples)
    assert sd == pytest.approx(robust_sd(samples))
    assert np.isfinite(in_sds(samples, middle, sd)).all()


def coloured(n: int, seed: int, low: float = 0.9) -> Samples:
    """Noise with most of its power at low frequencies."""
    from scipy.signal import lfilter

    return lfilter([1.0], [1.0, -low], noise(n, seed)).astype(np.float32)


def test_the_noise_power_is_that_of_its_autoregression() -> None:
    segments = coloured(200_000, 1).astype(np.float64).reshape(-1, 400)
    power = noise_power(segments)[2:]
    expected = 1 / np.abs(1 - 0.9 * np.exp(-2j * np.pi * np.fft.rfftfreq(400)))[2:] ** 2
    relative = power / expected
    assert relative.std() / relative.mean() < 0.15
    loud = segments.copy()
    loud[::20] += 1_000 * EVENT.max() * np.sin(np.arange(400))
    np.testing.assert_allclose(noise_power(loud)[2:], power, rtol=0.3)


def test_the_matched_filter_beats_a_template_in_coloured_noise_and_is_one_in_white_noise() -> None:
    n, width = 200_000, 400
    event = SHAPE.values(0, 200).astype(np.float32)

    def separation(weights: NDArray[np.float64], background: Samples, at: int) -> float:
        """How many SDs of the filtered noise an event stands out by."""
        with_event = np.zeros(2_000, np.float32)
        with_event[1_000:1_200] = event
        scale = filtered(background, weights, at, 5).std()
        return float(filtered(with_event, weights, at, 5)[980:1_020].max() / scale)

    plain = np.zeros(width)
    plain[width // 2 - 199 : width // 2 + 1] = event[::-1]
    for background, least, most in ((noise(n, 3), 0.93, 1.01), (coloured(n, 3), 1.2, 10.0)):
        power = noise_power(background.astype(np.float64).reshape(-1, width))
        weights = matched_weights(power, SHAPE)
        gained = separation(weights, background, width // 2) / separation(
            plain, background, width // 2
        )
        assert least < gained < most


def test_the_matched_filter_sees_no_offset_and_copes_with_no_noise() -> None:
    power = noise_power(coloured(100_000, 2).astype(np.float64).reshape(-1, 400))
    for found in (matched_weights(power, SHAPE), matched_weights(np.zeros(201), SHAPE)):
        assert np.isfinite(found).all()
        assert found.sum() == pytest.approx(0, abs=1e-9 * np.abs(found).sum())
        assert np.abs(found).max() > 0

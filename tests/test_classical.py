"""Template matching: the criterion is that of plain least squares, wherever the template fits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from quantal.classical import template_criterion
from quantal.errors import UsageError
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

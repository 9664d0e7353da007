"""Simulated recordings: synaptic events of known truth on noise shaped like a rig's.

An event has the biexponential time course of Clements and Bekkers (1997),
(1 - exp(-t / tau_rise)) exp(-t / tau_decay), and passes the recording's own low-pass, as do the
artefacts; noise is white noise given the spectrum of a rig.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal.trace import Trace

Floats = NDArray[np.float64]
_LOGNORMAL_VARIANCE = 0.4  # of amplitudes around their mean (O'Neill et al., eLife)


@dataclass(frozen=True, kw_only=True)
class Rig:
    """What an amplifier and a digitiser do to a signal, and the noise that they add.

    cutoff_hz, order: the Bessel low-pass. band_hz: a sharper cut above it, as resampling leaves.
    pink: noise power 1/f^slope relative to white, equal to it at corner_hz.
    rising_hz: noise power that grows with f^2 and equals white there (the cell's capacitance).
    digitiser: white noise after the filter, as a fraction of the noise SD.
    hum, hum_hz: mains hum with harmonics, as a fraction of the noise SD.
    drift: a random walk, as a fraction of the noise SD.
    """

    rate_hz: float = 50_000.0
    cutoff_hz: float = 2_900.0
    order: int = 4
    band_hz: float = np.inf
    corner_hz: float = 0.0
    slope: float = 1.0
    rising_hz: float = np.inf
    digitiser: float = 0.05
    hum: float = 0.1
    hum_hz: float = 50.0
    drift: float = 0.25

    def response(self, n: int) -> NDArray[np.complex128]:
        """What the rig does to a signal of n samples: complex gain at the rfft frequencies."""
        frequencies = np.asarray(np.fft.rfftfreq(n, 1 / self.rate_hz), np.float64)
        gain = bessel_response(self.order, frequencies / self.cutoff_hz)
        if self.band_hz < frequencies[-1]:
            gain = gain * _soft_cut(frequencies, self.band_hz)
        return gain

    def noise_gain(self, n: int) -> Floats:
        """Gain at the rfft frequencies that turns white noise into the rig's, of SD about 1."""
        frequencies = np.asarray(np.fft.rfftfreq(n, 1 / self.rate_hz), np.float64)
        power = np.ones(len(frequencies))
        power[1:] += (self.corner_hz / frequencies[1:]) ** self.slope
        power += (frequencies / self.rising_hz) ** 2
        shaped = power * np.abs(self.response(n)) ** 2
        shaped[frequencies < 1.0 / _SLOWEST_S] = 0.0
        shaped /= shaped.mean()
        return np.asarray(np.sqrt(shaped + self.digitiser**2), np.float64)


_SLOWEST_S = 2.0  # noise has no part slower than this; drift does


@cache
def _bessel_prototype(order: int) -> tuple[Floats, Floats]:
    from scipy import signal

    b, a = signal.bessel(order, 1.0, analog=True, norm="mag")
    return np.asarray(b, np.float64), np.asarray(a, np.float64)


def bessel_response(order: int, relative: Floats) -> NDArray[np.complex128]:
    """Complex gain of a Bessel low-pass at frequencies relative to its -3 dB point."""
    b, a = _bessel_prototype(order)
    s = 1j * relative
    return np.asarray(np.polyval(b, s) / np.polyval(a, s), np.complex128)


def _soft_cut(frequencies: Floats, band_hz: float) -> Floats:
    """1 below the band's end, 0 above, with a roll-off of a tenth of it."""
    beyond = np.clip((frequencies / band_hz - 0.95) / 0.1, 0.0, 1.0)
    return np.asarray(0.5 * (1 + np.cos(np.pi * beyond)), np.float64)


def biexponential(rate_hz: float, tau_rise_s: float, tau_decay_s: float) -> Floats:
    """An event of unit peak before any filter, from its onset to twelve decay constants."""
    t = np.arange(max(int(12 * (tau_decay_s + tau_rise_s) * rate_hz), 2)) / rate_hz
    y = -np.expm1(-t / tau_rise_s) * np.exp(-t / tau_decay_s)
    peak_s = tau_rise_s * np.log1p(tau_decay_s / tau_rise_s)
    peak = -np.expm1(-peak_s / tau_rise_s) * np.exp(-peak_s / tau_decay_s)
    return np.asarray(y / peak, np.float64)


def add_at(signal: Floats, start: int, shape: Floats) -> None:
    """Add a shape into a signal from a sample on, cut at both ends."""
    first, last = max(start, 0), min(start + len(shape), len(signal))
    if first < last:
        signal[first:last] += shape[first - start : last - start]


def drift(n: int, rate_hz: float, rng: np.random.Generator) -> Floats:
    """A random walk held together by a 0.3 s leak, of unit SD, computed on a coarse grid."""
    step = max(int(0.002 * rate_hz), 1)
    coarse = n // step + 2
    walk = rng.standard_normal(coarse)
    leak = np.exp(-step / (0.3 * rate_hz))
    from scipy import signal

    walk = signal.lfilter([np.sqrt(1 - leak**2)], [1, -leak], walk)
    return np.asarray(np.interp(np.arange(n), np.arange(coarse) * step, walk), np.float64)


def mains_hum(n: int, rate_hz: float, hum_hz: float, rng: np.random.Generator) -> Floats:
    """Mains hum with its first harmonics, of unit amplitude."""
    t = np.arange(n) / rate_hz
    hum = np.zeros(n)
    for harmonic, size in ((1, 1.0), (2, 0.3), (3, 0.4), (5, 0.2)):
        phase = rng.uniform(0, 2 * np.pi)
        hum += size * rng.uniform(0, 1) * np.sin(2 * np.pi * hum_hz * harmonic * t + phase)
    return np.asarray(hum / max(np.abs(hum).max(), 1e-12), np.float64)


def record(signal: Floats, rig: Rig, noise_sd: float, rng: np.random.Generator) -> Floats:
    """A clean signal as the rig records it: low-passed, with noise, hum and drift added."""
    n = len(signal)
    # The Fourier transform joins the end to the start: room for the filter's tail in between.
    tail = 20 * rig.rate_hz / min(rig.cutoff_hz, rig.band_hz, rig.rate_hz)
    whole = fast_length(n + round(tail))
    spectrum = np.fft.rfft(signal, whole) * rig.response(whole)
    white = np.fft.rfft(rng.standard_normal(whole))
    recorded = np.fft.irfft(spectrum + noise_sd * rig.noise_gain(whole) * white, whole)[:n]
    if rig.drift:
        recorded += noise_sd * rig.drift * drift(n, rig.rate_hz, rng)
    if rig.hum:
        recorded += noise_sd * rig.hum * mains_hum(n, rig.rate_hz, rig.hum_hz, rng)
    return np.asarray(recorded, np.float64)


def fast_length(n: int) -> int:
    """A length of at least n that the Fourier transform likes."""
    from scipy.fft import next_fast_len

    return int(next_fast_len(n, real=True))


@dataclass(frozen=True, eq=False, kw_only=True)
class Truth:
    """Every simulated event: onset (s), signed peak before the filter, time constants (s)."""

    onset_s: Floats
    amplitude: Floats
    tau_rise_s: Floats
    tau_decay_s: Floats


def simulate_recording(
    *,
    seconds: float = 30.0,
    frequency_hz: float = 2.0,
    amplitude: float = -12.0,
    noise_sd: float = 1.0,
    tau_rise_s: float = 2e-4,
    tau_decay_s: float = 1e-3,
    rig: Rig | None = None,
    offset: float = -20.0,
    unit: str = "pA",
    seed: int = 0,
) -> tuple[Trace, Truth]:
    """A recording with Poisson events of log-normal amplitude and scattered kinetics; its truth.

    amplitude is the mean peak (its sign is the events'), noise_sd the SD of the noise, in unit;
    decays scatter by 25 %, rises by 10 %, and events keep 3 tau_decay of distance.
    """
    rng = np.random.default_rng(seed)
    rig = rig or Rig()
    n = round(seconds * rig.rate_hz)
    onset_s = _poisson_times(seconds, frequency_hz, 3 * tau_decay_s, rng)
    count = len(onset_s)
    sigma = np.sqrt(np.log1p(_LOGNORMAL_VARIANCE))
    truth = Truth(
        onset_s=onset_s,
        amplitude=amplitude * rng.lognormal(-(sigma**2) / 2, sigma, count),
        tau_rise_s=tau_rise_s * np.clip(rng.normal(1, 0.1, count), 0.3, None),
        tau_decay_s=tau_decay_s * np.clip(rng.normal(1, 0.25, count), 0.3, None),
    )
    clean = np.zeros(n)
    for start_s, size, rise, decay in zip(
        truth.onset_s, truth.amplitude, truth.tau_rise_s, truth.tau_decay_s, strict=True
    ):
        add_at(clean, round(start_s * rig.rate_hz), size * biexponential(rig.rate_hz, rise, decay))
    samples = record(clean, rig, noise_sd, rng) + offset
    trace = Trace(
        samples=samples.astype(np.float32),
        rate_hz=rig.rate_hz,
        unit=unit,
        recording="simulated",
        channel="0",
    )
    return trace, truth


def _poisson_times(
    seconds: float, frequency_hz: float, gap_s: float, rng: np.random.Generator
) -> Floats:
    times = np.sort(
        rng.uniform(0.01 * seconds, 0.99 * seconds, rng.poisson(frequency_hz * seconds))
    )
    kept = np.r_[True, np.diff(times) > gap_s][: len(times)]
    return np.asarray(times[kept], np.float64)


def matched(true_s: ArrayLike, found_s: ArrayLike, *, tolerance_s: float) -> int:
    """How many true times have a found one of their own within the tolerance, in order of time."""
    true, found = np.sort(np.asarray(true_s)), np.sort(np.asarray(found_s))
    hits = i = j = 0
    while i < len(true) and j < len(found):
        if abs(found[j] - true[i]) <= tolerance_s:
            hits, i, j = hits + 1, i + 1, j + 1
        elif found[j] < true[i]:
            j += 1
        else:
            i += 1
    return hits

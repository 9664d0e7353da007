"""Simulated recordings of known truth for the accuracy benchmark.

They are made as quantal.simulate makes them, but every event is drawn as the rig records it, so
that its true steepest rise and kinetics are known. Some of what is here (filters other than
Bessel's, telegraph noise, noise that doubles, amplitudes from a gamma distribution, alpha
functions) no model may be trained on: it stays out of the packages for that reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from ideal import Spectrum, spectrum
from numpy.typing import NDArray

from quantal.simulate import Rig, add_at, fast_length, record
from quantal.trace import Trace

Floats = NDArray[np.float64]

MEASURES = ("amplitude", "rise_10_90_ms", "half_decay_ms", "half_width_ms", "area")
TOLERANCE_S = 3e-3  # or the decay constant, where that is longer
_VARIANCE = 0.4  # of amplitudes around their mean (O'Neill et al., eLife)
_QUIET_S = 40.0  # of noise alone, from which the observer learns its spectrum
_SEGMENT_S = 0.3  # of noise at a time: tells hum from what is beside it


@dataclass(frozen=True, kw_only=True)
class OtherRig(Rig):
    """A rig whose filter is not Bessel's: "butterworth" of its order, or "gaussian"."""

    family: str = "butterworth"

    def response(self, n: int) -> NDArray[np.complex128]:
        """Complex gain at the rfft frequencies; the Gaussian filter has no delay."""
        relative = np.fft.rfftfreq(n, 1 / self.rate_hz) / self.cutoff_hz
        gain = FILTERS[self.family](np.asarray(relative, np.float64), self.order)
        return np.asarray(gain, np.complex128)


def butterworth(relative: Floats, order: int) -> NDArray[np.complex128]:
    """Complex gain of a Butterworth low-pass at frequencies relative to its -3 dB point."""
    from scipy.signal import buttap

    _, poles, gain = buttap(order)
    s = 1j * relative[:, None]
    return np.asarray(gain / np.prod(s - poles, axis=1), np.complex128)


def gaussian(relative: Floats, order: int) -> NDArray[np.complex128]:
    """Gain of a Gaussian filter at frequencies relative to its -3 dB point."""
    del order
    return np.asarray(np.exp(-0.5 * np.log(2) * relative**2), np.complex128)


FILTERS: dict[str, Callable[[Floats, int], NDArray[np.complex128]]] = {
    "butterworth": butterworth,
    "gaussian": gaussian,
}


def biexponential(t: Floats, rise_s: float, decay_s: float) -> Floats:
    """Time course of an event (Clements and Bekkers 1997), of any height."""
    return np.asarray(-np.expm1(-t / rise_s) * np.exp(-t / decay_s), np.float64)


def alpha(t: Floats, rise_s: float, decay_s: float) -> Floats:
    """Alpha function, of any height; the rise follows from the decay."""
    del rise_s
    return np.asarray(t / decay_s * np.exp(-t / decay_s), np.float64)


SHAPES = {"biexponential": biexponential, "alpha": alpha}


RIG = Rig()


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides a simulated recording. Amplitudes are multiples of the noise SD.

    amplitudes: "lognormal" or "gamma", of the same mean and variance. pair_s: every event has a
    companion so much later. artefacts: spikes and symmetric bumps a minute. telegraph: noise that
    jumps by so many SD. doubling: "no", "slowly" (over the recording) or "at once" (in its middle).
    """

    seconds: float = 30.0
    frequency_hz: float = 1.4
    amplitude: float = 6.0
    tau_rise_s: float = 2e-4
    tau_decay_s: float = 1e-3
    rig: Rig = RIG
    shape: str = "biexponential"
    amplitudes: str = "lognormal"
    closest_s: float = 3e-3
    pair_s: float = 0.0
    artefacts: float = 0.0
    telegraph: float = 0.0
    doubling: str = "no"
    seed: int = 0


@dataclass(frozen=True, eq=False, kw_only=True)
class Recorded:
    """An event of unit peak as recorded: samples from `lead` before its onset on, and measures.

    steepest_s: from its onset to its steepest rise. area: unit x s.
    """

    samples: Floats
    lead: int
    steepest_s: float
    rise_10_90_ms: float
    half_decay_ms: float
    half_width_ms: float
    area: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Known:
    """What a program found that is not run here: locations (s), and measures by name."""

    location_s: Floats
    measures: dict[str, Floats]


@dataclass(frozen=True, eq=False, kw_only=True)
class Scene:
    """A recording, what is true of it, and what the ideal observer is told.

    true_s: where found events should be. location_s: true steepest rises; measures: true kinetics,
    both where known. noise: the spectrum, waveform: the mean event from `lead` samples before its
    onset; swell: how the noise grows along the trace. twin: the same scene with events, for one
    without. miniml: what miniML 1.1 found, where that is on record.
    """

    trace: Trace
    true_s: Floats
    tolerance_s: float
    decay_s: float
    direction: str = "negative"
    location_s: Floats | None = None
    measures: dict[str, Floats] | None = None
    noise: Spectrum | None = None
    waveform: Floats | None = None
    lead: int = 0
    steepest_s: float = 0.0
    swell: Floats | None = None
    twin: Callable[[], Scene] | None = None
    miniml: Known | None = None

    def first(self, seconds: float) -> Scene:
        """The scene's beginning."""
        if seconds >= self.trace.duration_s:
            return self
        stop_s = self.trace.start_s + seconds
        kept = self.true_s < stop_s
        trace = self.trace.between(None, stop_s)
        return replace(
            self,
            trace=trace,
            true_s=self.true_s[kept],
            location_s=None if self.location_s is None else self.location_s[kept],
            measures=self.measures and {name: v[kept] for name, v in self.measures.items()},
            swell=None if self.swell is None else self.swell[: len(trace)],
        )


def as_recorded(
    rig: Rig, tau_rise_s: float, tau_decay_s: float, shape: str = "biexponential"
) -> Recorded:
    """An event as a rig records it, measured on a grid many times finer than the rig's."""
    up = int(np.clip(200 / (tau_rise_s * rig.rate_hz), 4, 100))
    fine = replace(rig, rate_hz=up * rig.rate_hz)
    lead = int(np.ceil(2 / rig.cutoff_hz * rig.rate_hz))
    wanted = (lead + int(12 * (tau_decay_s + tau_rise_s) * rig.rate_hz) + 2) * up
    whole = fast_length(wanted + 10 * lead * up)
    y = np.zeros(whole)
    t = np.arange(wanted - lead * up) / fine.rate_hz
    y[lead * up : wanted] = SHAPES[shape](t, tau_rise_s, tau_decay_s)
    y = np.fft.irfft(np.fft.rfft(y) * fine.response(whole), whole)[:wanted]
    y /= y.max()
    peak = int(y.argmax())
    ms = 1000 / fine.rate_hz
    half_s = falls(y, peak, 0.5)
    return Recorded(
        samples=y[::up],
        lead=lead,
        steepest_s=(int(np.diff(y[: peak + 1]).argmax()) + 0.5 - lead * up) / fine.rate_hz,
        rise_10_90_ms=(rises(y, peak, 0.9) - rises(y, peak, 0.1)) * ms,
        half_decay_ms=(half_s - peak) * ms,
        half_width_ms=(half_s - rises(y, peak, 0.5)) * ms,
        area=float(y.sum() / fine.rate_hz),
    )


def rises(y: Floats, peak: int, level: float) -> float:
    """Where y last rises through a level before its peak, between samples."""
    i = int(np.flatnonzero(y[:peak] < level)[-1])
    return float(i + (level - y[i]) / (y[i + 1] - y[i]))


def falls(y: Floats, peak: int, level: float) -> float:
    """Where y first falls through a level after its peak, between samples."""
    i = peak + int(np.flatnonzero(y[peak:] < level)[0])
    return float(i - 1 + (y[i - 1] - level) / (y[i - 1] - y[i]))


def simulate(recipe: Recipe) -> Scene:
    """The recording of a recipe (noise SD 1 pA, inward events) and its truth."""
    rng = np.random.default_rng(recipe.seed)
    rig = recipe.rig
    n = round(recipe.seconds * rig.rate_hz)
    swell = swelling(recipe, n)
    samples = swell * noise_alone(recipe, n, rng, recipe.artefacts) - 20.0
    onsets = np.round(onset_times(recipe, rng) * rig.rate_hz).astype(int)
    sizes = recipe.amplitude * draw_amplitudes(recipe.amplitudes, len(onsets), rng)
    events = draw_events(recipe, len(onsets), rng)
    for onset, size, event in zip(onsets, sizes, events, strict=True):
        add_at(samples, int(onset) - event.lead, -size * event.samples)
    mean = as_recorded(rig, recipe.tau_rise_s, recipe.tau_decay_s, recipe.shape)
    onset_s = onsets / rig.rate_hz
    location_s = onset_s + np.array([event.steepest_s for event in events])
    quiet = noise_alone(recipe, round(_QUIET_S * rig.rate_hz), np.random.default_rng(1), 0.0)
    return Scene(
        trace=Trace(samples=single(samples), rate_hz=rig.rate_hz, unit="pA", recording="simulated"),
        true_s=location_s,
        tolerance_s=tolerance(recipe),
        decay_s=recipe.tau_decay_s,
        location_s=location_s,
        measures=true_measures(-sizes, events),
        noise=spectrum([quiet], rig.rate_hz, round(_SEGMENT_S * rig.rate_hz)),
        waveform=-mean.samples,
        lead=mean.lead,
        steepest_s=mean.steepest_s,
        swell=None if recipe.doubling == "no" else swell,
        twin=None if recipe.frequency_hz else (lambda: simulate(with_events(recipe))),
    )


def single(samples: Floats) -> NDArray[np.float32]:
    """Samples as a trace keeps them."""
    return samples.astype(np.float32)


def with_events(recipe: Recipe) -> Recipe:
    """The same recording with the usual events in it."""
    return replace(recipe, frequency_hz=Recipe().frequency_hz, seed=recipe.seed + 1_000)


def tolerance(recipe: Recipe) -> float:
    """How far a found event may be from a true one; the two of a pair are not to be confused."""
    if recipe.pair_s:
        return min(TOLERANCE_S, recipe.pair_s / 2)
    return max(TOLERANCE_S, recipe.tau_decay_s)


def true_measures(sizes: Floats, events: list[Recorded]) -> dict[str, Floats]:
    """Kinetics of every event as recorded, by name."""
    columns = {
        name: np.array([getattr(event, name) for event in events])
        for name in MEASURES
        if name != "amplitude"
    }
    return {**columns, "amplitude": sizes, "area": sizes * columns["area"]}


def noise_alone(recipe: Recipe, n: int, rng: np.random.Generator, artefacts: float) -> Floats:
    """The rig's noise, of SD 1, with so many artefacts a minute."""
    rig = recipe.rig
    clean = np.zeros(n)
    if recipe.telegraph:
        jumps = rng.random(n) < 20 / rig.rate_hz  # a second
        clean += recipe.telegraph * (np.cumsum(jumps) % 2)
    for _ in range(rng.poisson(artefacts * n / rig.rate_hz / 60)):
        add_at(clean, int(rng.integers(n)), -artefact(rig.rate_hz, rng))
    return record(clean, rig, 1.0, rng)


def artefact(rate_hz: float, rng: np.random.Generator) -> Floats:
    """A pump's spike of 0.1 ms or a slow symmetric bump, as the paper has them."""
    if rng.random() < 0.5:
        return np.full(max(round(1e-4 * rate_hz), 1), rng.uniform(5, 25))
    width = round(rng.uniform(4e-3, 12e-3) * rate_hz)
    return np.asarray(rng.uniform(4, 15) * np.hanning(width), np.float64)


def swelling(recipe: Recipe, n: int) -> Floats:
    """How many times its first SD the noise has, at every sample."""
    t = np.linspace(0, 1, n)
    if recipe.doubling == "slowly":
        return np.asarray(2**t, np.float64)
    return np.where(t < 0.5, 1.0, 2.0) if recipe.doubling == "at once" else np.ones(n)


def onset_times(recipe: Recipe, rng: np.random.Generator) -> Floats:
    """Poisson times (s) away from both ends, none too close to the one before, or pairs of them."""
    count = rng.poisson(recipe.frequency_hz * recipe.seconds)
    margin_s = min(0.2 + 10 * recipe.tau_decay_s, 0.1 * recipe.seconds)
    times = np.sort(rng.uniform(margin_s, recipe.seconds - margin_s, count))
    closest_s = max(recipe.closest_s, 30e-3 + recipe.pair_s if recipe.pair_s else 0.0)
    kept: list[float] = []
    for time in times:
        if not kept or time - kept[-1] > closest_s:
            kept.append(float(time))
    alone = np.array(kept, np.float64)
    return np.sort(np.r_[alone, alone + recipe.pair_s]) if recipe.pair_s else alone


def draw_amplitudes(kind: str, count: int, rng: np.random.Generator) -> Floats:
    """Amplitudes of mean 1 and variance 0.4."""
    if kind == "gamma":
        return np.asarray(rng.gamma(1 / _VARIANCE, _VARIANCE, count), np.float64)
    sigma = np.sqrt(np.log1p(_VARIANCE))
    return np.asarray(rng.lognormal(-(sigma**2) / 2, sigma, count), np.float64)


def draw_events(recipe: Recipe, count: int, rng: np.random.Generator) -> list[Recorded]:
    """Events whose decays scatter by 25 % and rises by 10 %."""
    rises_s = recipe.tau_rise_s * np.clip(rng.normal(1, 0.1, count), 0.3, None)
    decays_s = recipe.tau_decay_s * np.clip(rng.normal(1, 0.25, count), 0.3, None)
    return [
        as_recorded(recipe.rig, float(rise), float(decay), recipe.shape)
        for rise, decay in zip(rises_s, decays_s, strict=True)
    ]

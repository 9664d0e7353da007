"""Bayesian event detection by sampling (Merel et al. 2016, J Neurosci Methods 269:21).

A recording is a baseline, events and noise. Events come at the times of a Poisson process; their
amplitudes, time constants and the baseline have flat priors; the noise is autoregressive. Sets of
events are drawn from the posterior by Markov chain Monte Carlo: events are born, die, move and
change their time constants by Metropolis-Hastings steps in which the amplitude, whose conditional
is a truncated normal, is integrated out, and amplitudes, baseline and noise are drawn from their
conditionals (Gibbs).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from quantal.classical.detector import Detector, Samples, Shape, silent
from quantal.errors import UsageError
from quantal.kernel import kernel
from quantal.noise import robust_sd
from quantal.scan import Progress
from quantal.trace import is_finite

Floats = NDArray[np.float64]

_CORE = 1_500  # samples that a chain is kept for
_MARGIN = 250  # and that it sees either side beyond them
_SHORTEST = 40  # samples that can tell noise from events
_SPREAD = 2.5  # time constants lie within this factor of those given
_NEAR = 0.4  # decay time constants: an event so near speaks for a sample
_BURNED = 0.6  # of the sweeps, while the chain finds its way
_COOL = 2.5  # SDs: noise is first taken for so much that the largest event stands out by this
_HIGHEST_ORDER = 4


@dataclass(frozen=True, kw_only=True)
class Bayesian(Detector):
    """Bayesian event detection (Merel et al. 2016): the posterior probability of an event nearby.

    The score of a sample is the share of draws in which an event begins within 0.4 tau_decay of
    it; 0.5 is more likely than not. It is given on the detector's own clock, ten samples per
    tau_decay (the trace's if that is slower), and found in overlapping stretches.

    frequency_hz: events per second that the Poisson prior expects. ar_order: order of the
    autoregressive noise, 0 (white) to 4; the paper's is 2. sweeps: through each stretch, of which
    the last three quarters count. seed: equal seeds give equal scores. Time constants are those
    of each event and lie within a factor of 2.5 of tau_rise_ms and tau_decay_ms.
    """

    name: ClassVar[str] = "bayesian"
    threshold: ClassVar[float] = 0.5
    highest: ClassVar[float] = 1.0
    resolution: ClassVar[int | None] = 10

    frequency_hz: float = 1.0
    ar_order: int = 2
    sweeps: int = 500
    seed: int = 0

    def fitted(self, window_ms: float) -> Self:
        """The detector with its time constants settled; raises UsageError if it makes no sense."""
        if not (is_finite(self.frequency_hz) and self.frequency_hz > 0):
            raise UsageError(f"frequency_hz must be above 0, got {self.frequency_hz!r}; try 1.")
        for name, lowest, highest in (
            ("ar_order", 0, _HIGHEST_ORDER),
            ("sweeps", 4, 1_000_000),
            ("seed", 0, 2**63 - 1),
        ):
            value = getattr(self, name)
            if not (isinstance(value, int | np.integer) and lowest <= value <= highest):
                raise UsageError(f"{name} must be {lowest} to {highest}, got {value!r}.")
        return super().fitted(window_ms)

    def _score(self, parts: Sequence[Samples], shape: Shape) -> list[Samples]:
        return self._scored(parts, shape, silent)

    def _scored(self, parts: Sequence[Samples], shape: Shape, progress: Progress) -> list[Samples]:
        scored = [np.zeros(len(part), np.float32) for part in parts]
        whole, done = sum(map(len, parts)), 0
        frequency = self.frequency_hz * self._taus()[1] / 1000 / shape.decay
        for number, part in enumerate(parts):
            for first in range(0, len(part), _CORE):
                last = min(first + _CORE, len(part))
                start, stop = max(first - _MARGIN, 0), min(last + _MARGIN, len(part))
                rng = np.random.default_rng((self.seed, number, first))
                draws = sample_events(
                    part[start:stop],
                    shape,
                    frequency=frequency,
                    ar_order=self.ar_order,
                    sweeps=self.sweeps,
                    rng=rng,
                )
                near = draws.probability(_NEAR * shape.decay)
                scored[number][first:last] = near[first - start : last - start]
                done += last - first
                progress(done, whole)
        return scored


@dataclass(frozen=True, eq=False, kw_only=True)
class Draws:
    """Draws from the posterior of one stretch; a row of `events` for every event of every draw.

    events: (rows, 5) draw, onset (samples), amplitude (unit of the samples), rise and decay
    (samples). noise: (draws, 6) baseline, SD of the innovations, the noise's coefficients.
    samples: how many the stretch has.
    """

    events: Floats
    noise: Floats
    samples: int

    @property
    def counts(self) -> NDArray[np.int64]:
        """Events in each draw."""
        return np.bincount(self.events[:, 0].astype(np.int64), minlength=len(self.noise))

    def probability(self, reach: float) -> Samples:
        """The share of draws with an event within `reach` samples, for each sample."""
        near: Samples = _share(self.events, len(self.noise), self.samples, reach)
        return near


def sample_events(
    samples: Samples,
    shape: Shape,
    *,
    frequency: float,
    ar_order: int,
    sweeps: int,
    rng: np.random.Generator,
    spread: float = _SPREAD,
    births: int = 30,
) -> Draws:
    """Draw sets of events from their posterior, given upward samples.

    shape: the middle of the time constants, which lie within a factor `spread` of it (1: fixed).
    frequency: events per sample that the Poisson prior expects. births: tries in each sweep to add
    or take out an event.
    """
    centre = float(np.median(samples)) if len(samples) else 0.0
    scale = robust_sd(samples)
    if len(samples) < _SHORTEST or not scale > 0:
        return Draws(events=np.empty((0, 5)), noise=np.zeros((1, 6)), samples=len(samples))
    y = (samples.astype(np.float64) - centre) / scale
    largest = float(y.max()) + 3
    noise = _first_noise(y, ar_order)
    events, drawn = _chain(
        y,
        noise,
        np.array([shape.rise, shape.decay, spread, largest, frequency]),
        ar_order,
        sweeps,
        births,
        rng,
    )
    events[:, 2] *= scale
    drawn[:, 0] = drawn[:, 0] * scale + centre
    drawn[:, 1] *= scale
    return Draws(events=events, noise=drawn, samples=len(samples))


def _first_noise(y: Floats, order: int) -> Floats:
    """A first guess: baseline, SD and coefficients of samples whose events are clipped."""
    clipped = np.clip(y, -3, 3)
    clipped -= clipped.mean()
    noise = np.zeros(2 + _HIGHEST_ORDER)
    lags = np.array([clipped[k:] @ clipped[: len(y) - k] for k in range(order + 1)]) / len(y)
    noise[1] = math.sqrt(lags[0])
    if order and lags[0] > 0:
        toeplitz = lags[np.abs(np.subtract.outer(np.arange(order), np.arange(order)))]
        toeplitz[np.diag_indices(order)] *= 1 + 1e-6
        noise[2 : 2 + order] = np.linalg.solve(toeplitz, lags[1:])
        left = lags[0] - noise[2 : 2 + order] @ lags[1:]
        noise[1] = math.sqrt(max(left, 1e-6 * lags[0]))
    return noise


@kernel
def _share(events, draws, n, reach):
    """Every draw counts once for a sample, however many events are near."""
    out = np.zeros(n, np.float32)
    last = np.full(n, -1, np.int64)
    for row in range(len(events)):
        draw, onset = int(events[row, 0]), events[row, 1]
        for i in range(max(math.ceil(onset - reach), 0), min(math.floor(onset + reach) + 1, n)):
            if last[i] != draw:
                last[i] = draw
                out[i] += 1
    return out / np.float32(draws)


@kernel
def _chain(y, noise, prior, order, sweeps, births, rng):
    """One Markov chain from a trace without events on; draws of its events and its noise."""
    n = len(y)
    noise = noise.copy()
    events = np.empty((n, 4), np.float64)  # onset, amplitude, rise, decay
    count = 0
    residual = y - noise[0]
    largest = prior[3]
    white = np.empty(n, np.float64)
    shape = np.empty(n, np.float64)
    _whiten(residual, noise, order, white)
    where = _promising(white, shape, noise, prior, order)
    burned = int(_BURNED * sweeps)
    hottest = max(largest / _COOL, 1.0)
    table = np.empty((1_024, 5), np.float64)
    rows = 0
    drawn = np.empty((sweeps - burned, len(noise)), np.float64)
    for sweep in range(sweeps):
        heat = hottest ** max(1 - 1.2 * sweep / burned, 0.0) if sweep < burned else 1.0
        noise[1] *= heat
        for turn in range(births):
            if count and turn % 3 == 0:
                k = min(int(rng.random() * count), count - 1)
                _change(residual, white, shape, events, k, noise, prior, order, rng)
            if rng.random() < 0.5:
                count = _birth(
                    residual, white, shape, events, count, noise, prior, order, where, rng
                )
            elif count:
                count = _death(
                    residual, white, shape, events, count, noise, prior, order, where, rng
                )
        for k in range(count):
            _change(residual, white, shape, events, k, noise, prior, order, rng)
        noise[1] /= heat
        _draw_noise(residual, white, noise, order, rng)
        if sweep < burned:
            continue
        drawn[sweep - burned] = noise
        if rows + count > len(table):
            longer = np.empty((2 * (rows + count), 5), np.float64)
            longer[:rows] = table[:rows]
            table = longer
        for k in range(count):
            table[rows, 0] = sweep - burned
            table[rows, 1:] = events[k]
            rows += 1
    return table[:rows].copy(), drawn


@kernel
def _birth(residual, white, shape, events, count, noise, prior, order, where, rng):
    """Try to add an event at a promising place, with time constants from their prior."""
    n = len(residual)
    if count == len(events):
        return count
    rise, decay, spread, largest, frequency = prior
    place = np.searchsorted(where, rng.random() * where[-1], side="right")
    place = min(place, n - 1)
    onset = place + rng.random()
    new_rise = _uniform(rise / spread, rise * spread, rng)
    new_decay = _uniform(decay / spread, decay * spread, rng)
    along, energy, _ = _fit(white, shape, onset, new_rise, new_decay, noise, order)
    evidence = _log_evidence(along, energy, largest)
    density = where[place] - (where[place - 1] if place > 0 else 0.0)
    if math.log(rng.random()) >= evidence + math.log(frequency / (density * (count + 1))):
        return count
    events[count, 0], events[count, 2], events[count, 3] = onset, new_rise, new_decay
    events[count, 1] = _amplitude(along, energy, largest, rng)
    _add(residual, white, shape, events, count, -1.0, noise, order)
    return count + 1


@kernel
def _death(residual, white, shape, events, count, noise, prior, order, where, rng):
    """Try to take out an event: the reverse of a birth."""
    largest, frequency = prior[3], prior[4]
    k = min(int(rng.random() * count), count - 1)
    _add(residual, white, shape, events, k, 1.0, noise, order)
    onset = events[k, 0]
    along, energy, _ = _fit(white, shape, onset, events[k, 2], events[k, 3], noise, order)
    evidence = _log_evidence(along, energy, largest)
    place = int(onset)
    density = where[place] - (where[place - 1] if place > 0 else 0.0)
    if math.log(rng.random()) >= math.log(density * count / frequency) - evidence:
        _add(residual, white, shape, events, k, -1.0, noise, order)
        return count
    events[k] = events[count - 1]
    return count - 1


@kernel
def _change(residual, white, shape, events, k, noise, prior, order, rng):
    """Try to move an event and to change its time constants, then draw its amplitude."""
    n = len(residual)
    rise, decay, spread, largest, _ = prior
    _add(residual, white, shape, events, k, 1.0, noise, order)
    onset, own_rise, own_decay = events[k, 0], events[k, 2], events[k, 3]
    along, energy, _ = _fit(white, shape, onset, own_rise, own_decay, noise, order)
    evidence = _log_evidence(along, energy, largest)
    for step in range(4):  # onset, rise, decay; all of them
        new_onset, new_rise, new_decay = onset, own_rise, own_decay
        width = 0.5 * 10 ** (-2 * rng.random())  # events far above the noise take small steps
        if step in (0, 3):
            new_onset += width * decay * rng.standard_normal()
        if step in (1, 3):
            new_rise += width * rise * rng.standard_normal()
        if step in (2, 3):
            new_decay += width * decay * rng.standard_normal()
        if not (0 <= new_onset < n):
            continue
        if step and not (
            rise / spread <= new_rise <= rise * spread
            and decay / spread <= new_decay <= decay * spread
        ):
            continue
        new_along, new_energy, _ = _fit(white, shape, new_onset, new_rise, new_decay, noise, order)
        new_evidence = _log_evidence(new_along, new_energy, largest)
        if math.log(rng.random()) < new_evidence - evidence:
            onset, own_rise, own_decay = new_onset, new_rise, new_decay
            along, energy, evidence = new_along, new_energy, new_evidence
    events[k, 0], events[k, 2], events[k, 3] = onset, own_rise, own_decay
    events[k, 1] = _amplitude(along, energy, largest, rng)
    _add(residual, white, shape, events, k, -1.0, noise, order)


@kernel
def _draw_noise(residual, white, noise, order, rng):
    """Draw coefficients, SD and baseline from their conditionals; residual and white follow."""
    n = len(residual)
    if order:
        _draw_coefficients(residual, noise, order, rng)
        _whiten(residual, noise, order, white)
    squares = 0.0
    for i in range(order, n):
        squares += white[i] ** 2
    noise[1] = math.sqrt(0.5 * squares / rng.standard_gamma(0.5 * (n - order)))
    gain = 1.0
    for j in range(order):
        gain -= noise[2 + j]
    along = 0.0
    for i in range(order, n):
        along += white[i] * gain
    energy = (n - order) * gain**2
    shift = along / energy + noise[1] / math.sqrt(energy) * rng.standard_normal()
    noise[0] += shift
    for i in range(n):
        residual[i] -= shift
        white[i] -= shift * gain if i >= order else 0.0


@kernel
def _draw_coefficients(residual, noise, order, rng):
    """Coefficients of the noise, normal around those of least squares; stationary or as before."""
    n = len(residual)
    products = np.zeros((order, order), np.float64)
    along = np.zeros(order, np.float64)
    for i in range(order, n):
        for a in range(order):
            along[a] += residual[i] * residual[i - 1 - a]
            for b in range(a + 1):
                products[a, b] += residual[i - 1 - a] * residual[i - 1 - b]
    for a in range(order):  # Cholesky, in place
        for b in range(a + 1):
            left = products[a, b]
            for c in range(b):
                left -= products[a, c] * products[b, c]
            if a > b:
                products[a, b] = left / products[b, b]
            elif left > 0:
                products[a, a] = math.sqrt(left)
            else:
                return
    for a in range(order):
        for c in range(a):
            along[a] -= products[a, c] * along[c]
        along[a] /= products[a, a]
    for a in range(order):
        along[a] += noise[1] * rng.standard_normal()
    for a in range(order - 1, -1, -1):
        for c in range(a + 1, order):
            along[a] -= products[c, a] * along[c]
        along[a] /= products[a, a]
    if _is_stationary(along):
        noise[2 : 2 + order] = along


@kernel
def _is_stationary(coefficients):
    """Whether all partial correlations lie within -1 and 1 (Levinson's recursion backwards)."""
    left = coefficients.copy()
    for order in range(len(left), 0, -1):
        last = left[order - 1]
        if not abs(last) < 1:
            return False
        shorter = left.copy()
        for j in range(order - 1):
            shorter[j] = (left[j] + last * left[order - 2 - j]) / (1 - last**2)
        left = shorter
    return True


@kernel
def _promising(white, shape, noise, prior, order):
    """Running sum of how often each sample is tried for a birth: half evenly, half where it pays.

    Any fixed choice is right, for the acceptance takes it into account; this one is quick.
    """
    n = len(white)
    rise, decay, _, largest, frequency = prior
    odds = np.empty(n, np.float64)
    for i in range(n):
        along, energy, _ = _fit(white, shape, i + 0.5, rise, decay, noise, order)
        odds[i] = 1 / (1 + math.exp(-_log_evidence(along, energy, largest)) / frequency)
    total = odds.sum()
    running = 0.0
    where = np.empty(n, np.float64)
    for i in range(n):
        running += 0.5 / n + (0.5 * odds[i] / total if total > 0 else 0.5 / n)
        where[i] = running
    return where


@kernel
def _uniform(low, high, rng):
    return low + (high - low) * rng.random()


@kernel
def _whiten(residual, noise, order, white):
    """Innovations of autoregressive noise; the first `order` samples are taken as given."""
    white[:order] = 0.0
    for i in range(order, len(residual)):
        value = residual[i]
        for j in range(order):
            value -= noise[2 + j] * residual[i - 1 - j]
        white[i] = value


@kernel
def _event(shape, n, onset, rise, decay):
    """Write an event of unit peak into shape[:count]; returns its first sample and count."""
    first = math.ceil(onset)
    count = min(n - first, math.ceil(8 * decay))
    peak = rise * math.log1p(decay / rise)
    scale = 1 / ((1 - math.exp(-peak / rise)) * math.exp(-peak / decay))
    slow, fast = math.exp(-(first - onset) / decay), math.exp(-(first - onset) / rise)
    slow_step, fast_step = math.exp(-1 / decay), math.exp(-1 / rise)
    for i in range(count):
        shape[i] = scale * (1 - fast) * slow
        slow *= slow_step
        fast *= fast_step
    return first, max(count, 0)


@kernel
def _innovation(shape, k, count, noise, order):
    """Sample k of an event as the noise's filter passes it."""
    value = shape[k] if k < count else 0.0
    for j in range(order):
        at = k - 1 - j
        if 0 <= at < count:
            value -= noise[2 + j] * shape[at]
    return value


@kernel
def _fit(white, shape, onset, rise, decay, noise, order):
    """Of an event in the innovations: its product with them and with itself, over the variance."""
    n = len(white)
    first, count = _event(shape, n, onset, rise, decay)
    along, energy = 0.0, 0.0
    for i in range(max(first, order), min(first + count + order, n)):
        value = _innovation(shape, i - first, count, noise, order)
        along += white[i] * value
        energy += value * value
    variance = noise[1] ** 2
    return along / variance, energy / variance, count


@kernel
def _add(residual, white, shape, events, k, sign, noise, order):
    """Add an event (sign 1) to the residual and its innovations, or take it off (-1)."""
    n = len(residual)
    first, count = _event(shape, n, events[k, 0], events[k, 2], events[k, 3])
    size = sign * events[k, 1]
    for i in range(first, first + count):
        residual[i] += size * shape[i - first]
    for i in range(max(first, order), min(first + count + order, n)):
        white[i] += size * _innovation(shape, i - first, count, noise, order)


@kernel
def _log_evidence(along, energy, largest):
    """Log of the likelihood ratio of an event and none, over a flat amplitude of 0 to largest."""
    if not energy > 0:
        return 0.0
    sd = 1 / math.sqrt(energy)
    mean = along / energy
    inside = _normal_between(-mean / sd, (largest - mean) / sd)
    if not inside > 0:
        return -np.inf
    return 0.5 * along * mean + math.log(math.sqrt(2 * math.pi) * sd * inside / largest)


@kernel
def _normal_between(low, high):
    """Probability that a standard normal number lies between two; from the tail they are in."""
    root = math.sqrt(2.0)
    if low > 0:
        return 0.5 * (math.erfc(low / root) - math.erfc(high / root))
    return 0.5 * (math.erfc(-high / root) - math.erfc(-low / root))


@kernel
def _amplitude(along, energy, largest, rng):
    """An amplitude from its conditional: normal, cut to 0 to largest."""
    if not energy > 0:
        return _uniform(0.0, largest, rng)
    sd = 1 / math.sqrt(energy)
    mean = along / energy
    low, high = -mean / sd, (largest - mean) / sd
    if high < 0:
        return mean - sd * _cut_normal(-high, -low, rng)
    return mean + sd * _cut_normal(low, high, rng)


@kernel
def _cut_normal(low, high, rng):
    """A standard normal number between two, of which high is not negative (Robert 1995)."""
    if low > 0:
        rate = 0.5 * (low + math.sqrt(low**2 + 4))
        if (high - low) * rate < 0.5:  # too narrow for the tail to matter
            return _flat_cut(low, high, low, rng)
        while True:
            value = low - math.log(1 - rng.random()) / rate
            if value <= high and rng.random() < math.exp(-0.5 * (value - rate) ** 2):
                return value
    if high - low < 2:
        return _flat_cut(low, high, 0.0, rng)
    while True:
        value = rng.standard_normal()
        if low <= value <= high:
            return value


@kernel
def _flat_cut(low, high, mode, rng):
    while True:
        value = _uniform(low, high, rng)
        if rng.random() < math.exp(0.5 * (mode**2 - value**2)):
            return value

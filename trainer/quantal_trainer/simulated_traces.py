"""Labelled stretches of simulated recordings for trace networks, drawn from a wide family of rigs.

Everything is in samples of the network's grid, 25 kHz at its usual time scale. Decays from 0.3 to
25 ms come in one set of stretches, for a trace network is told no window.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal.noise import scaled
from quantal.simulate import Rig, add_at, biexponential, drift, mains_hum

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RATE_HZ = 25_000.0
STRETCH = 65_536  # samples: 2.6 s
_MS = RATE_HZ / 1e3
_RIM = 2_000  # samples at the ends, where the Fourier transform wraps round, that are not used
_PIECES = 3  # cut from each stretch
PIECE = 19_200  # samples of one: 0.77 s
_UNSEEN = 2.5  # below this detectability (d' of an ideal observer) a label says nothing
_BURIED = 0.07  # an event smaller than this part of a neighbour neither
_HOP = 10
CLASSES = 8  # of events by their half-width
_EDGES = np.geomspace(0.6 * _MS, 12 * _MS, CLASSES - 1)  # between them


@dataclass(frozen=True, kw_only=True)
class Family:
    """How common the difficulties of recordings are: shares of stretches, unless said otherwise.

    artefacts, flicker: stretches with any. each: artefacts of a kind, at most. size: range of the
    largest artefact, in SDs of white noise. smallest: the least of them, as a part of that.
    coloured, rising, banded: noise with more power at low frequencies, at high ones, and with a
    sharp upper end.
    """

    artefacts: float
    each: int
    size: tuple[float, float]
    smallest: float
    flicker: float
    coloured: float
    rising: float
    banded: float


# As recordings are; and crowded with all that is hard to tell, to learn what events are not.
USUAL = Family(
    artefacts=0.5,
    each=4,
    size=(10, 200),
    smallest=0.3,
    flicker=0.08,
    coloured=0.4,
    rising=0.25,
    banded=0.35,
)
CROWDED = Family(
    artefacts=0.7,
    each=7,
    size=(4, 200),
    smallest=0.2,
    flicker=0.12,
    coloured=0.6,
    rising=0.4,
    banded=0.5,
)


class Pieces(NamedTuple):
    """Scaled samples float16 (n, PIECE); for every hop, labels and weights uint8 (n, PIECE / 10).

    labels: near the steepest rise of an event its class, 1 to CLASSES. weights: 0 where nothing can
    be said.
    """

    samples: NDArray[np.float16]
    labels: NDArray[np.uint8]
    weights: NDArray[np.uint8]

    def at(self, rows: Any) -> Pieces:
        """Some of them, by a slice, a mask or their numbers."""
        return Pieces(*(column[rows] for column in self))


def joined(parts: Iterable[Pieces]) -> Pieces:
    """Pieces one after the other."""
    return Pieces(*(np.concatenate(column) for column in zip(*parts, strict=True)))


@dataclass(frozen=True, eq=False, kw_only=True)
class Stretch:
    """A simulated recording: upward events, where each rises steepest, and how well it is seen.

    reach: samples around the steepest rise within which a detector should answer. width: samples
    for which an event, as recorded, is above half its height.
    """

    samples: NDArray[np.float32]
    rises: Ints
    detectability: Floats
    reach: Floats
    size: Floats
    width: Floats


def simulate_pieces(count: int, *, seed: int, family: Family = USUAL, workers: int = 1) -> Pieces:
    """At least `count` labelled pieces; the same seed gives the same, whatever the workers."""
    seeds = [(seed, i) for i in range(-(-count // _PIECES))]
    make = partial(_pieces_of, family)
    if workers == 1:
        return joined(map(make, seeds))
    with ProcessPoolExecutor(workers) as pool:
        return joined(pool.map(make, seeds, chunksize=64))


def _pieces_of(family: Family, seed: tuple[int, int]) -> Pieces:
    rng = np.random.default_rng(seed)
    stretch = simulate_stretch(rng, family)
    samples = scaled(stretch.samples, draw_gain(rng)).astype(np.float16)
    labels, weights = label_hops(stretch)
    firsts = rng.integers(_RIM // _HOP, (STRETCH - _RIM - PIECE) // _HOP, _PIECES)
    return Pieces(
        np.stack([samples[_HOP * f : _HOP * f + PIECE] for f in firsts]),
        np.stack([labels[f : f + PIECE // _HOP] for f in firsts]),
        np.stack([weights[f : f + PIECE // _HOP] for f in firsts]),
    )


def draw_gain(rng: np.random.Generator) -> float:
    """What scaled samples are multiplied by, as if their noise were a little other than it is."""
    return float(np.exp(np.clip(rng.normal(0, 0.25), -1.0, 1.0)))


def reach_of(rise: float, half_width: float) -> float:
    """How far from its steepest rise a high score is right, from an event's onset to peak and
    width at half height; all in samples."""
    return float(np.clip(0.35 * rise + 0.05 * half_width, 0.55 * _MS, 2.5 * _MS))


def label_hops(stretch: Stretch) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """1 within reach of an event that can be seen, and weights: 0 where it cannot be said."""
    hops = len(stretch.samples) // _HOP
    labels, weights = np.zeros(hops, np.uint8), np.ones(hops, np.uint8)
    middle = _HOP * np.arange(hops) + (_HOP - 1) / 2
    seen = (stretch.detectability >= _UNSEEN) & ~_buried(stretch)
    for rise, reach in zip(stretch.rises, stretch.reach, strict=True):
        a, b = np.searchsorted(middle, [rise - 1.5 * reach - _HOP, rise + 1.5 * reach + _HOP])
        weights[a:b] = 0
    kinds = class_of(stretch.width)
    for k in np.flatnonzero(seen):
        reach = stretch.reach[k]
        a, b = np.searchsorted(middle, [stretch.rises[k] - reach, stretch.rises[k] + reach])
        labels[a:b], weights[a:b] = kinds[k], 1
    return labels, weights


def class_of(width: Floats) -> NDArray[np.uint8]:
    """The class, 1 to CLASSES, of events by their half-width in samples."""
    return (1 + np.digitize(width, _EDGES)).astype(np.uint8)


def _buried(stretch: Stretch) -> NDArray[np.bool_]:
    """Whether an event is lost beside a much larger one, which rises within its reach and 2 ms."""
    apart = np.abs(stretch.rises[:, None] - stretch.rises[None, :])
    larger = stretch.size[:, None] < _BURIED * stretch.size[None, :]
    return np.asarray((larger & (apart < stretch.reach[None, :] + 2 * _MS)).any(axis=1))


# A stretch ---------------------------------------------------------------------------------------


def simulate_stretch(rng: np.random.Generator, family: Family = USUAL) -> Stretch:
    """One stretch of a recording as one of many rigs might give it."""
    rig = random_rig(rng, family)
    response, gain = rig.response(STRETCH), rig.noise_gain(STRETCH)
    clean = np.zeros(STRETCH)
    rises, size, seen, reach, width = _add_events(clean, rig, rng)
    if rng.random() < 0.2:  # events of the other polarity, which are none here
        other = np.zeros(STRETCH)
        _add_events(other, rig, rng)
        clean -= other
    if rng.random() < family.artefacts:
        _add_artefacts(clean, family, rng)
    if rng.random() < family.flicker:
        _add_flicker(clean, rng)
    noise = np.fft.irfft(gain * np.fft.rfft(rng.standard_normal(STRETCH)), STRETCH)
    if rng.random() < 0.15:
        noise *= _waxing(rng)
    samples = noise + np.fft.irfft(np.fft.rfft(clean) * response, STRETCH)
    samples += rig.drift * drift(STRETCH, RATE_HZ, rng)
    samples += rig.hum * mains_hum(STRETCH, RATE_HZ, rig.hum_hz, rng)
    samples, clipped = _digitised(samples, rng)
    lost = clipped[np.clip(rises, 0, STRETCH - 1)]
    return Stretch(
        samples=samples.astype(np.float32),
        rises=rises,
        detectability=np.where(lost, 0.0, seen),
        reach=reach,
        size=size,
        width=width,
    )


def random_rig(rng: np.random.Generator, family: Family = USUAL) -> Rig:
    """A rig from a family that contains, and reaches beyond, those measured in real recordings."""
    cutoff_hz = _log_uniform(rng, 800, 14_000)
    return Rig(
        rate_hz=RATE_HZ,
        cutoff_hz=cutoff_hz,
        order=int(rng.choice([2, 4, 8])),
        band_hz=_log_uniform(rng, 1_500, 12_500) if rng.random() < family.banded else np.inf,
        corner_hz=_log_uniform(rng, 5, 1_500) if rng.random() < family.coloured else 0.0,
        slope=rng.uniform(0.7, 2.0),
        rising_hz=_log_uniform(rng, 200, 8_000) if rng.random() < family.rising else np.inf,
        digitiser=rng.uniform(0.0, 0.2),
        hum=_log_uniform(rng, 0.05, 2.0) if rng.random() < 0.4 else 0.0,
        hum_hz=_log_uniform(rng, 10, 300),
        drift=_log_uniform(rng, 0.05, 5.0) if rng.random() < 0.7 else 0.0,
    )


def _waxing(rng: np.random.Generator) -> Floats:
    """Noise that grows or shrinks up to threefold, slowly or at once."""
    t = (np.arange(STRETCH) - rng.integers(STRETCH)) / _log_uniform(rng, 10, 20_000)
    return np.asarray(np.exp(rng.uniform(-1.1, 1.1) * 0.5 * (1 + np.tanh(t))))


def _digitised(samples: Floats, rng: np.random.Generator) -> tuple[Floats, NDArray[np.bool_]]:
    """Samples in steps of the digitiser, seldom clipped by it, and where they are clipped."""
    clipped = np.zeros(len(samples), np.bool_)
    if rng.random() < 0.05:
        limit = rng.uniform(0.5, 1.0) * samples.max()
        clipped = samples >= limit
        samples = np.minimum(samples, limit)
    if rng.random() < 0.2:
        step = _log_uniform(rng, 0.03, 0.6)
        samples = step * np.round(samples / step)
    return samples, clipped


# Events ------------------------------------------------------------------------------------------


def _add_events(
    clean: Floats, rig: Rig, rng: np.random.Generator
) -> tuple[Ints, Floats, Floats, Floats, Floats]:
    """Put events in; returns where each rises steepest, size, detectability, reach and width."""
    onsets = _onsets(rng)
    kinds = _kinds(rig, rng)
    chosen = rng.integers(len(kinds), size=len(onsets))
    median = _log_uniform(rng, 2.5, 40)
    wanted = median * np.exp(rng.uniform(0.2, 0.9) * rng.standard_normal(len(onsets)))
    size = np.array([w / kinds[k].unit for w, k in zip(wanted, chosen, strict=True)])
    for onset, k, a in zip(onsets, chosen, size, strict=True):
        add_at(clean, int(onset), a * kinds[k].shape)
    delay = np.array([kinds[k].delay for k in chosen], np.int64)
    reach = np.array([kinds[k].reach for k in chosen], np.float64)
    width = np.array([kinds[k].width for k in chosen], np.float64)
    return onsets + delay, size, wanted, reach, width


def _onsets(rng: np.random.Generator) -> Ints:
    """Poisson events of any rate or none, sometimes in pairs and bursts."""
    if rng.random() < 0.15:
        return np.empty(0, np.int64)
    expected = _log_uniform(rng, 0.3, 60) * STRETCH / RATE_HZ
    onsets = rng.integers(0, STRETCH, rng.poisson(expected))
    gap = _log_uniform(rng, 0.8 * _MS, 20 * _MS)
    share = rng.choice([0.05, 0.5])
    paired = onsets[rng.random(len(onsets)) < share]
    onsets = np.r_[onsets, paired + np.rint(rng.uniform(0.7, 1.5, len(paired)) * gap).astype(int)]
    if rng.random() < 0.1:  # a burst, as after a stimulus
        start, count = rng.integers(STRETCH), rng.integers(3, 20)
        burst = start + np.cumsum(rng.exponential(_log_uniform(rng, 2 * _MS, 30 * _MS), count))
        onsets = np.r_[onsets, burst.astype(int)]
    return np.sort(onsets[onsets < STRETCH]).astype(np.int64)


class _Kind(NamedTuple):
    """Events of one time course: shape of unit peak before the rig, and as recorded its
    detectability, the samples from onset to steepest rise, the reach of its label, and its
    half-width."""

    shape: Floats
    unit: float
    delay: int
    reach: float
    width: float


def _kinds(rig: Rig, rng: np.random.Generator) -> list[_Kind]:
    """Time courses of the events of one cell: one population, or two."""
    kinds: list[_Kind] = []
    for _ in range(1 if rng.random() < 0.75 else 2):
        fastest = max(0.3 * _MS, 0.5 * RATE_HZ / min(rig.cutoff_hz, rig.band_hz))
        decay = _log_uniform(rng, fastest, 25 * _MS)
        rise = _log_uniform(rng, 0.03 * _MS, min(4 * _MS, 0.5 * decay))
        slow_part = rng.uniform(0.1, 0.5) if rng.random() < 0.35 else 0.0
        spread = rng.uniform(0.05, 0.5)
        for _ in range(5):
            decays = decay * np.exp(np.clip(rng.normal(0, spread), -1, 1))
            rises = rise * np.exp(np.clip(rng.normal(0, 0.6 * spread), -1, 1))
            kinds.append(_kind(_shape(rises, decays, slow_part, rng), rig))
    return kinds


def _shape(rise: float, decay: float, slow_part: float, rng: np.random.Generator) -> Floats:
    shape = biexponential(1.0, rise, decay)
    if slow_part:
        tail = biexponential(1.0, rise, min(decay * rng.uniform(2, 6), 60 * _MS))
        tail *= slow_part / (1 - slow_part)
        add_at(tail, 0, shape)
        shape = tail / tail.max()
    if rng.random() < 0.3:  # a rise of higher order, as after a cable
        smear = np.exp(-np.arange(int(6 * rise) + 1) / max(rise, 1e-9))
        shape = np.convolve(shape, smear / smear.sum())
        shape /= shape.max()
    return shape


def _kind(shape: Floats, rig: Rig) -> _Kind:
    n = 1 << max(int(np.ceil(np.log2(len(shape) + 400))), 12)
    spectrum = np.fft.rfft(shape, n) * rig.response(n)
    recorded = np.fft.irfft(spectrum, n)
    peak = int(recorded.argmax())
    delay = int(np.gradient(recorded[: peak + 2]).argmax())
    spectrum[0] = 0.0  # what is constant says nothing about an event
    whitened = np.abs(spectrum / np.maximum(rig.noise_gain(n), 0.02))
    unit = float(np.sqrt(2 * (whitened**2).sum() / n))
    half = float(np.count_nonzero(recorded > 0.5 * recorded[peak]))
    return _Kind(shape, unit, delay, reach_of(peak, half), half)


# What is no event --------------------------------------------------------------------------------


def _add_artefacts(clean: Floats, family: Family, rng: np.random.Generator) -> None:
    makers = (_spike, _spike, _spikes, _bump, _bump, _step, _test_pulse, _backward, _slow, _ramp)
    for k in rng.choice(len(makers), size=int(rng.integers(1, 4)), replace=False):
        largest = _log_uniform(rng, *family.size)
        for start in rng.integers(0, STRETCH, int(rng.integers(1, family.each + 1))):
            size = _sign(rng) * rng.uniform(family.smallest, 1.0) * largest
            add_at(clean, int(start), size * makers[k](rng))


def _add_flicker(clean: Floats, rng: np.random.Generator) -> None:
    """Bursts of brief jumps to another level and back, as of single channels or a poor seal."""
    size = _sign(rng) * _log_uniform(rng, 1.5, 20)
    there, away = _log_uniform(rng, 0.3 * _MS, 5 * _MS), _log_uniform(rng, 2 * _MS, 60 * _MS)
    for start in rng.integers(0, STRETCH, int(rng.integers(1, 4))):
        count = int(_log_uniform(rng, 2, 60))
        waits = rng.exponential(away, count).astype(int) + 1
        for at in start + np.cumsum(waits):
            length = int(rng.exponential(there)) + 1
            add_at(clean, int(at), np.full(length, size * rng.uniform(0.7, 1.0)))


def _sign(rng: np.random.Generator) -> float:
    return 1.0 if rng.random() < 0.6 else -1.0


def _spike(rng: np.random.Generator) -> Floats:
    """A transient of a few samples, often with a rebound."""
    width = int(rng.integers(1, 5))
    spike = np.ones(width)
    if rng.random() < 0.5:
        spike = np.r_[spike, -rng.uniform(0.2, 1.0) * spike]
    return np.asarray(2.0 * spike, np.float64)


def _spikes(rng: np.random.Generator) -> Floats:
    """Spikes at a fixed interval, as from the mains or a stimulator."""
    gap, count = int(_log_uniform(rng, 5 * _MS, 200 * _MS)), int(rng.integers(2, 20))
    train = np.zeros(gap * count)
    for k in range(count):
        add_at(train, k * gap, 0.5 * _spike(rng))
    return train


def _bump(rng: np.random.Generator) -> Floats:
    """A bump with equal rise and decay."""
    return np.asarray(np.hanning(int(_log_uniform(rng, 1.5 * _MS, 100 * _MS))), np.float64)


def _step(rng: np.random.Generator) -> Floats:
    """A step of the baseline, there for the rest of the stretch or for a while."""
    length = STRETCH if rng.random() < 0.5 else int(_log_uniform(rng, 5 * _MS, 500 * _MS))
    settle = _log_uniform(rng, 0.3, 1 * _MS)
    return np.asarray(-np.expm1(-np.arange(1, length + 1) / settle), np.float64)


def _test_pulse(rng: np.random.Generator) -> Floats:
    """A voltage step: a capacitive transient at each end, with or without a change of level."""
    length = int(_log_uniform(rng, 4 * _MS, 600 * _MS))
    t = np.arange(STRETCH // 2)
    fast, slow = _log_uniform(rng, 0.03 * _MS, 1 * _MS), _log_uniform(rng, 0.3 * _MS, 10 * _MS)
    share = rng.uniform(0.7, 1.0)
    transient = share * np.exp(-t / fast) + (1 - share) * np.exp(-t / slow)
    pulse = np.r_[transient, np.zeros(length)]
    pulse[length : length + len(transient)] -= transient[: len(pulse) - length]
    pulse[:length] += rng.uniform(0.0, 0.5)
    return np.asarray(4.0 * pulse, np.float64)


def _backward(rng: np.random.Generator) -> Floats:
    """A slow onset with a fast end: an event backward in time."""
    decay = _log_uniform(rng, 1 * _MS, 20 * _MS)
    return biexponential(1.0, _log_uniform(rng, 0.1 * _MS, 0.5 * decay), decay)[::-1].copy()


def _slow(rng: np.random.Generator) -> Floats:
    """A wave too slow for an event."""
    return biexponential(1.0, _log_uniform(rng, 12 * _MS, 50 * _MS), rng.uniform(40, 200) * _MS)


def _ramp(rng: np.random.Generator) -> Floats:
    """A rise or fall of tens of milliseconds to another level."""
    t = np.arange(int(_log_uniform(rng, 20 * _MS, 300 * _MS)))
    return np.asarray(0.5 * (1 - np.cos(np.pi * t / len(t))), np.float64)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(max(high, low)))))

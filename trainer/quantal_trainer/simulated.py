"""Labelled windows from simulated stretches of recordings, drawn from a wide family of rigs.

Everything is in samples of the network's own grid: a window of 600 samples stands for about twelve
decay constants, whatever they are in seconds, so one set of windows serves every time scale.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from quantal.errors import UsageError
from quantal.simulate import Rig, add_at, biexponential, drift, mains_hum
from quantal.windows import SCORED, cut_windows

Floats = NDArray[np.float64]
_STRETCH = 16_384  # samples in one simulated stretch
_MARGIN = 1_500  # its ends, where the Fourier transform wraps round, are not used


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Which windows hold an event, by where in the window it starts (samples).

    positive: an event that starts within makes the window one of events.
    negative: a window without any event that starts within is one of noise.
    seen: the detectability (d' of an ideal observer) from which an event counts;
    unseen: below this it is noise, and between the two the window is left out.
    buried: an event smaller than this part of its window's range cannot be seen beside the rest.
    """

    positive: tuple[int, int] = (110, 310)
    negative: tuple[int, int] = (60, 360)
    seen: float = 5.0
    unseen: float = 3.0
    buried: float = 0.1


@dataclass(eq=False)
class Stretch:
    """A simulated stretch: upward events, their onsets and detectabilities, and other landmarks."""

    samples: Floats
    onsets: NDArray[np.int64]
    sizes: Floats
    detectability: Floats
    artefacts: list[int] = field(default_factory=list)


def simulate_stretch(rng: np.random.Generator) -> Stretch:
    """One stretch of a recording as one of many rigs might give it."""
    rig = random_rig(rng)
    onsets, wanted, shapes = _events(rng)
    response, noise_gain = rig.response(_STRETCH), rig.noise_gain(_STRETCH)
    clean = np.zeros(_STRETCH)
    sizes = np.array([w / _unit_detectability(s, rig) for w, s in zip(wanted, shapes, strict=True)])
    for onset, size, shape in zip(onsets, sizes, shapes, strict=True):
        add_at(clean, int(onset), size * shape)
    artefacts = _add_artefacts(clean, rng) if rng.random() < 0.7 else []
    white = np.fft.rfft(rng.standard_normal(_STRETCH))
    samples = np.fft.irfft(np.fft.rfft(clean) * response + noise_gain * white, _STRETCH)
    samples += rig.drift * drift(_STRETCH, rig.rate_hz, rng)
    samples += rig.hum * mains_hum(_STRETCH, rig.rate_hz, rig.hum_hz, rng)
    return Stretch(samples, onsets, sizes, wanted, artefacts)


def random_rig(rng: np.random.Generator) -> Rig:
    """A rig from a family that contains, and reaches beyond, those measured in real recordings."""
    cutoff_hz = _log_uniform(rng, 1_000, 12_000)
    return Rig(
        cutoff_hz=cutoff_hz,
        order=int(rng.choice([2, 4, 8])),
        band_hz=rng.uniform(1.0, 4.0) * cutoff_hz if rng.random() < 0.3 else np.inf,
        corner_hz=_log_uniform(rng, 10, 1_500) if rng.random() < 0.6 else 0.0,
        slope=rng.uniform(0.7, 2.0),
        rising_hz=_log_uniform(rng, 200, 8_000) if rng.random() < 0.4 else np.inf,
        digitiser=rng.uniform(0.0, 0.2),
        hum=rng.uniform(0.0, 0.6) if rng.random() < 0.4 else 0.0,
        hum_hz=_log_uniform(rng, 10, 200),
        drift=_log_uniform(rng, 0.05, 3.0) if rng.random() < 0.7 else 0.0,
    )


def simulate_windows(
    count: int,
    *,
    seed: int,
    where: str = "landmarks",
    labels: Labels = Labels(),
    window_samples: int = 600,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scaled windows float32 (count, window_samples) and labels float32 (count,), 1 an event.

    where: "landmarks" looks at events, their flanks, artefacts and noise, about a third of the
    windows being positive; "anywhere" looks at random places, as a scan does.
    The same seed gives the same windows. Raises UsageError for another `where`.
    """
    if where not in _PLACES:
        raise UsageError(f"where must be one of {', '.join(_PLACES)}, got {where!r}.")
    rng = np.random.default_rng(seed)
    windows = np.empty((count, window_samples), np.float32)
    truth = np.empty(count, np.float32)
    filled = 0
    while filled < count:
        stretch = simulate_stretch(rng)
        starts = _PLACES[where](stretch, labels, window_samples, rng)
        found = label_windows(stretch, starts, labels, window_samples)
        starts, found = starts[found >= 0], found[found >= 0]
        scaled, states = _scaled_at(stretch.samples.astype(np.float32), starts, window_samples)
        keep = np.flatnonzero(states == SCORED)[: count - filled]
        windows[filled : filled + len(keep)] = scaled[keep]
        truth[filled : filled + len(keep)] = found[keep]
        filled += len(keep)
    order = rng.permutation(count)
    return windows[order], truth[order]


def _scaled_at(
    samples: NDArray[np.float32], starts: NDArray[np.int64], width: int
) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    cuts = [cut_windows(samples, int(start), 1, 1, width) for start in starts]
    return np.concatenate([c[0] for c in cuts]), np.concatenate([c[1] for c in cuts])


def _landmarks(
    stretch: Stretch, labels: Labels, width: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Window starts that show events, their flanks, artefacts and noise."""
    seen = stretch.onsets[stretch.detectability >= labels.seen]
    middle = sum(labels.positive) // 2
    picked = [
        rng.integers(0, _STRETCH, 10),
        *(o - rng.integers(*labels.positive, 2) for o in rng.permutation(seen)[:8]),
        *(o - rng.integers(labels.negative[1], width, 1) for o in rng.permutation(seen)[:4]),
        *(o - rng.integers(-width, labels.negative[0], 1) for o in rng.permutation(seen)[:4]),
        *(a - middle + rng.integers(-200, 200, 2) for a in stretch.artefacts[:6]),
    ]
    return _usable(np.concatenate(picked), width)


def _anywhere(
    stretch: Stretch, labels: Labels, width: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Window starts spread over a stretch by chance."""
    del stretch, labels
    return _usable(rng.integers(0, _STRETCH, 40), width)


def _usable(starts: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    keep = (starts >= _MARGIN) & (starts < _STRETCH - _MARGIN - width)
    return starts[keep].astype(np.int64)


_PLACES = {"landmarks": _landmarks, "anywhere": _anywhere}


def label_windows(
    stretch: Stretch, starts: NDArray[np.int64], labels: Labels, width: int
) -> NDArray[np.int8]:
    """1 where an event starts in the window, 0 where none does, -1 where it cannot be said."""
    spans = np.array([np.ptp(stretch.samples[s : s + width]) for s in starts])
    relative = stretch.onsets[None, :] - starts[:, None]
    buried = stretch.sizes[None, :] < labels.buried * spans[:, None]
    seen = (stretch.detectability[None, :] >= labels.seen) & ~buried
    visible = stretch.detectability[None, :] >= labels.unseen
    inside = (relative >= labels.positive[0]) & (relative <= labels.positive[1])
    near = (relative >= labels.negative[0]) & (relative <= labels.negative[1])
    label = np.where((near & visible).any(axis=1), -1, 0)
    label[(inside & seen).any(axis=1)] = 1
    return label.astype(np.int8)


def _events(rng: np.random.Generator) -> tuple[NDArray[np.int64], Floats, list[Floats]]:
    """Onsets, detectabilities and shapes (unit peak) of the events of one stretch."""
    decay = _log_uniform(rng, 14, 250)
    rise = min(_log_uniform(rng, 3, 60), 0.7 * decay)
    slow_part = rng.uniform(0.1, 0.5) if rng.random() < 0.4 else 0.0
    spread = rng.uniform(0.1, 0.5)
    expected = _log_uniform(rng, 0.02, 0.8) * _STRETCH / 600
    onsets = rng.integers(0, _STRETCH, rng.poisson(expected))
    companions = onsets[rng.random(len(onsets)) < 0.1]  # compound events rise in steps
    onsets = np.sort(np.r_[onsets, companions + rng.integers(15, 150, len(companions))])
    wanted = _log_uniform(rng, 3, 200) * rng.lognormal(-0.17, 0.58, len(onsets))
    shapes = []
    for stretch in np.exp(np.clip(rng.normal(0, spread, len(onsets)), -1, 1)):
        shape = biexponential(1.0, rise * _scatter(rng, 0.15), decay * stretch)
        if slow_part:
            tail = biexponential(1.0, rise, decay * stretch * rng.uniform(2, 6))
            tail *= slow_part / (1 - slow_part)
            add_at(tail, 0, shape)
            shape = tail / tail.max()
        shapes.append(shape)
    return onsets, wanted, shapes


def _unit_detectability(shape: Floats, rig: Rig) -> float:
    """d' of a unit event for an observer who knows the noise: its norm once noise is whitened.

    Frequency 0 is left out: what is constant says nothing about an event.
    """
    n = 4_096
    event = np.fft.rfft(shape, n) * rig.response(n)
    event[0] = 0.0
    whitened = np.fft.irfft(event / np.maximum(rig.noise_gain(n), 0.02), n)
    return float(np.sqrt((whitened**2).sum()))


def _add_artefacts(clean: Floats, rng: np.random.Generator) -> list[int]:
    """Put what is no event into a clean stretch; returns where."""
    makers = (_spike, _spike, _bump, _bump, _step, _test_pulse, _backward, _upside_down, _slow)
    kinds = rng.choice(len(makers), size=int(rng.integers(1, 4)), replace=False)
    landmarks = []
    for kind in kinds:
        for start in rng.integers(_MARGIN, _STRETCH - 2 * _MARGIN, int(rng.integers(1, 6))):
            size = _log_uniform(rng, 4, 80)
            add_at(clean, int(start), size * makers[kind](rng))
            landmarks.append(int(start))
    return [int(a) for a in rng.permutation(landmarks)]


def _sign(rng: np.random.Generator) -> float:
    return 1.0 if rng.random() < 0.6 else -1.0


def _spike(rng: np.random.Generator) -> Floats:
    """A pump spike: a transient of a few samples, sometimes with a rebound."""
    width = int(rng.integers(1, 9))
    spike = _sign(rng) * np.ones(width)
    if rng.random() < 0.4:
        spike = np.r_[spike, -rng.uniform(0.2, 1.0) * spike]
    return np.asarray(3.0 * spike, np.float64)


def _bump(rng: np.random.Generator) -> Floats:
    """A slow bump with equal rise and decay."""
    width = int(_log_uniform(rng, 30, 900))
    return np.asarray(_sign(rng) * np.hanning(width), np.float64)


def _step(rng: np.random.Generator) -> Floats:
    """A step of the baseline, there for the rest of the stretch or for a while."""
    length = _STRETCH if rng.random() < 0.5 else int(rng.integers(100, 4_000))
    settle = _log_uniform(rng, 0.5, 30)
    return np.asarray(_sign(rng) * -np.expm1(-np.arange(1, length + 1) / settle), np.float64)


def _test_pulse(rng: np.random.Generator) -> Floats:
    """A voltage step: a capacitive transient at each end, with or without a change of level."""
    length = int(rng.integers(200, 6_000))
    t = np.arange(_STRETCH // 2)
    fast, slow = _log_uniform(rng, 1, 15), _log_uniform(rng, 10, 200)
    share = rng.uniform(0.8, 1.0)
    transient = share * np.exp(-t / fast) + (1 - share) * np.exp(-t / slow)
    pulse = np.r_[transient, np.zeros(length)]
    pulse[length : length + len(transient)] -= transient[: len(pulse) - length]
    pulse[:length] += rng.uniform(0.05, 0.5)
    return np.asarray(_sign(rng) * 4.0 * pulse, np.float64)


def _backward(rng: np.random.Generator) -> Floats:
    """A slow onset with a fast end: an event backward in time."""
    rise, decay = rng.uniform(3, 20), rng.uniform(30, 150)
    return biexponential(1.0, rise, decay)[::-1].copy()


def _upside_down(rng: np.random.Generator) -> Floats:
    """An event of the other polarity."""
    rise, decay = rng.uniform(3, 30), rng.uniform(20, 200)
    return -biexponential(1.0, rise, decay)


def _slow(rng: np.random.Generator) -> Floats:
    """A wave too slow for an event of this window."""
    rise, decay = rng.uniform(150, 500), rng.uniform(400, 2_000)
    return _sign(rng) * biexponential(1.0, rise, decay)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _scatter(rng: np.random.Generator, sd: float) -> float:
    return float(np.clip(rng.normal(1, sd), 0.4, 2.0))

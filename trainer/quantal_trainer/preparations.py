"""Simulated preparations: recordings and labelled windows of known truth, cell by cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from quantal import __version__
from quantal.errors import UsageError
from quantal.simulate import Rig, Truth, add_at, fast_length, record
from quantal.trace import Trace, is_finite
from quantal_trainer.datasets import EVENT, NOISE, Dataset
from quantal_trainer.simulated import Labels, Stretch, label_windows

Floats = NDArray[np.float64]
Starts = NDArray[np.int64]

# Of a window: where an event begins in one of events, and where none does in one of noise. The
# network of 600 samples fires for onsets from 110 to 310.
_POSITIVE, _NEGATIVE = (0.18, 0.52), (0.10, 0.60)
_SEEN, _UNSEEN = 6.0, 3.5  # d' from which an event counts, and below which it is noise
_BURIED = 0.2  # of a window's range: smaller events cannot be seen beside the rest
_NOISE_SHARES = {"quiet": 0.4, "flank": 0.3, "artefact": 0.3}  # what the noise windows show
_STRETCH = 200  # windows in one stretch of a simulated dataset
_EVERY = 4  # windows between its events, so that stretches are not simulated for nothing
_ARTEFACT = 3  # windows that an artefact lasts at most
_OVERLAP = 2.0  # decay constants between neighbouring events at least
_STREAMS = {"cell": 0, "recording": 1, "windows": 2}  # each has random numbers of its own


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What the recordings of a preparation are like: events, their rate, noise and artefacts.

    window_ms: a window that shows one event, about twelve decay constants.
    amplitude: mean peak before the rig's filter, in unit; its sign says which way events point.
    amplitude_cv: SD of the log-normal (skewed) amplitudes over their mean.
    rise_scatter, decay_scatter: SD of the logarithm of an event's time constants.
    noise_sd: SD of the noise, in unit. offset: the holding current or potential.
    frequency_hz, artefacts_hz: events and artefacts per second.
    between_cells: SD of the logarithm of a cell's amplitude, noise and frequency; kinetics half.

    Raises UsageError if a size, time or rate is not positive.
    """

    name: str
    window_ms: float
    tau_rise_s: float
    tau_decay_s: float
    amplitude: float
    noise_sd: float
    frequency_hz: float
    unit: str
    rig: Rig
    offset: float = 0.0
    amplitude_cv: float = 0.6
    rise_scatter: float = 0.1
    decay_scatter: float = 0.25
    artefacts_hz: float = 0.1
    between_cells: float = 0.2

    def __post_init__(self) -> None:
        for name in ("window_ms", "tau_rise_s", "tau_decay_s", "noise_sd", "frequency_hz"):
            if not (is_finite(getattr(self, name)) and getattr(self, name) > 0):
                raise UsageError(f"{name} must be positive, got {getattr(self, name)!r}.")
        if not is_finite(self.amplitude) or self.amplitude == 0:
            raise UsageError(f"amplitude must be above or below 0, got {self.amplitude!r}.")

    @property
    def rate_hz(self) -> float:
        """Sampling rate, that of the rig."""
        return self.rig.rate_hz

    @property
    def window_samples(self) -> int:
        """Samples in a window at the recording's own rate."""
        return round(self.window_ms * self.rate_hz / 1e3)


_KNOWN = (
    Preparation(
        name="mepsc",  # miniature currents of cerebellar granule cells
        window_ms=12.0,
        tau_rise_s=1.5e-4,
        tau_decay_s=9e-4,
        amplitude=-16.0,
        noise_sd=3.5,
        frequency_hz=1.0,
        unit="pA",
        offset=-20.0,
        rig=Rig(cutoff_hz=2_900.0, corner_hz=100.0),
    ),
    Preparation(
        name="epsp",  # slow potentials in current clamp: upward, on noise that the membrane slows
        window_ms=60.0,
        tau_rise_s=8e-4,
        tau_decay_s=5e-3,
        amplitude=1.2,
        noise_sd=0.2,
        frequency_hz=1.5,
        unit="mV",
        offset=-70.0,
        rig=Rig(cutoff_hz=5_000.0, corner_hz=250.0, slope=1.4, drift=0.6),
    ),
    Preparation(
        name="optical",  # minis of a glutamate indicator: few frames, shot noise, bleaching
        window_ms=600.0,
        tau_rise_s=0.01,
        tau_decay_s=0.06,
        amplitude=0.25,
        noise_sd=0.05,
        frequency_hz=0.2,
        unit="dF/F",
        rise_scatter=0.2,
        artefacts_hz=0.01,
        rig=Rig(rate_hz=100.0, cutoff_hz=200.0, corner_hz=1.0, hum=0.0, drift=0.5),
    ),
    Preparation(
        name="nmj",  # minis of an insect's neuromuscular junction in two-electrode voltage clamp
        window_ms=80.0,
        tau_rise_s=1e-3,
        tau_decay_s=6e-3,
        amplitude=-0.9,
        noise_sd=0.15,
        frequency_hz=3.0,
        unit="nA",
        offset=-8.0,
        amplitude_cv=0.8,
        rise_scatter=0.25,
        decay_scatter=0.45,
        rig=Rig(rate_hz=20_000.0, cutoff_hz=1_000.0, corner_hz=60.0, hum=0.3, drift=0.8),
    ),
)
PREPARATIONS: Mapping[str, Preparation] = MappingProxyType({p.name: p for p in _KNOWN})


def simulate_cells(
    preparation: Preparation, *, cells: int, seconds: float, seed: int
) -> list[tuple[Trace, Truth]]:
    """Recordings of several cells with the truth of each; the recordings are named cell_00 and on.

    Kinetics, amplitude, noise and its spectrum differ from cell to cell. Spikes, slow symmetric
    bumps and steps are added that are no events and not in the truth. One seed stands for the same
    cells here and in `simulate_dataset`, but not for the same events.
    Raises UsageError if cells or seconds are not positive.
    """
    if not (is_finite(seconds) and seconds * preparation.rate_hz >= preparation.window_samples):
        raise UsageError(
            f"a recording must last at least a window ({preparation.window_ms:g} ms), "
            f"got {seconds!r} s."
        )
    recorded = []
    for i, cell in enumerate(_cells(preparation, cells, seed)):
        rng = np.random.default_rng([seed, i, _STREAMS["recording"]])
        samples, truth, _ = _recording(cell, round(seconds * cell.rate_hz), rng)
        trace = Trace(
            samples=samples,
            rate_hz=cell.rate_hz,
            unit=cell.unit,
            recording=f"cell_{i:02d}",
            channel="0",
        )
        recorded.append((trace, truth))
    return recorded


def simulate_dataset(
    preparation: Preparation, *, windows: int, cells: int = 8, seed: int
) -> Dataset:
    """Windows of several cells, half of them events, scored by the truth.

    In a window of events, one begins at 0.18 to 0.52 of it that an ideal observer sees clearly
    (d' of 6). In one of noise, none that can be seen begins at 0.10 to 0.60: these show noise
    alone, flanks of events that begin outside, and artefacts. Every event is shown once.
    Raises UsageError for fewer than two windows a cell, or if noise hides nearly every event.
    """
    if windows < 2 * cells:
        raise UsageError(f"{cells} cells need at least {2 * cells} windows, got {windows}.")
    shares = np.diff(np.linspace(0, windows, cells + 1).astype(int))
    parts: list[tuple[NDArray[np.float32], int, str]] = []
    for i, cell in enumerate(_cells(preparation, cells, seed)):
        rng = np.random.default_rng([seed, i, _STREAMS["windows"]])
        name = f"seed {seed} cell_{i:02d}"  # another seed's first cell is another cell
        events = int(shares[i]) // 2
        found = _windows_of(cell, {"event": events, **_noise(int(shares[i]) - events)}, rng)
        parts += [(rows, EVENT if kind == "event" else NOISE, name) for kind, rows in found.items()]
    lengths = [len(rows) for rows, _, _ in parts]
    scores = np.repeat(np.array([score for _, score, _ in parts], np.int8), lengths)
    whole = Dataset(
        windows=np.concatenate([rows for rows, _, _ in parts]),
        scores=scores,
        rate_hz=preparation.rate_hz,
        unit=preparation.unit,
        cells=np.repeat([name for _, _, name in parts], lengths),
        kinds=np.where(scores == EVENT, "simulated event", "simulated noise"),
        provenance={
            "simulated": asdict(preparation),
            "windows": windows,
            "cells": cells,
            "seed": seed,
            "quantal": __version__,
        },
    )
    return whole[np.random.default_rng(seed).permutation(len(whole))]


# One cell ----------------------------------------------------------------------------------------


def _cells(preparation: Preparation, cells: int, seed: int) -> list[Preparation]:
    """The cells of one seed: the preparation with values of their own."""
    if cells < 1:
        raise UsageError(f"at least 1 cell is needed, got {cells}.")
    if seed < 0:
        raise UsageError(f"seed must be 0 or more, got {seed}.")
    streams = [np.random.default_rng([seed, i, _STREAMS["cell"]]) for i in range(cells)]
    return [_one_cell(preparation, rng) for rng in streams]


def _one_cell(preparation: Preparation, rng: np.random.Generator) -> Preparation:
    rig, wide = preparation.rig, preparation.between_cells
    kinetics = _spread(rng, wide / 2)
    return replace(
        preparation,
        tau_rise_s=preparation.tau_rise_s * kinetics * _spread(rng, wide / 4),
        tau_decay_s=preparation.tau_decay_s * kinetics,
        amplitude=preparation.amplitude * _spread(rng, wide),
        noise_sd=preparation.noise_sd * _spread(rng, wide),
        frequency_hz=preparation.frequency_hz * _spread(rng, 2 * wide),
        offset=preparation.offset * _spread(rng, wide / 2),
        rig=replace(
            rig,
            cutoff_hz=rig.cutoff_hz * _spread(rng, wide / 2),
            corner_hz=rig.corner_hz * _spread(rng, 2 * wide),
            slope=rig.slope * _spread(rng, wide / 2),
            hum=rig.hum * rng.uniform(0.0, 2.0),
            drift=rig.drift * _spread(rng, 2 * wide),
        ),
    )


def _recording(
    cell: Preparation, n: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], Truth, Starts]:
    """Samples, the truth about its events, and where its artefacts start."""
    truth = _events(cell, n / cell.rate_hz, rng)
    clean = np.zeros(n)
    artefacts = _add_artefacts(clean, cell, truth, rng)
    longest = np.arange(1 + round(12 * _longest_s(truth) * cell.rate_hz)) / cell.rate_hz
    for onset_s, size, rise_s, decay_s in zip(
        truth.onset_s, truth.amplitude, truth.tau_rise_s, truth.tau_decay_s, strict=True
    ):
        first = int(np.ceil(onset_s * cell.rate_hz))
        t = longest + (first / cell.rate_hz - onset_s)
        add_at(clean, first, size * event_shapes(t, rise_s, decay_s))
    samples = record(clean, cell.rig, cell.noise_sd, rng) + cell.offset
    return samples.astype(np.float32), truth, artefacts


def _events(cell: Preparation, seconds: float, rng: np.random.Generator) -> Truth:
    """Poisson events that keep some distance, of skewed amplitude and scattered kinetics."""
    times = np.sort(rng.uniform(0, seconds, rng.poisson(cell.frequency_hz * seconds)))
    times = times[np.diff(times, prepend=-np.inf) > _OVERLAP * cell.tau_decay_s]
    count = len(times)
    skewed = np.sqrt(np.log1p(cell.amplitude_cv**2))
    return Truth(
        onset_s=times,
        amplitude=cell.amplitude * rng.lognormal(-(skewed**2) / 2, skewed, count),
        tau_rise_s=cell.tau_rise_s * _spreads(rng, cell.rise_scatter, count),
        tau_decay_s=cell.tau_decay_s * _spreads(rng, cell.decay_scatter, count),
    )


def _add_artefacts(
    clean: Floats, cell: Preparation, truth: Truth, rng: np.random.Generator
) -> Starts:
    """Put artefacts into a clean recording, half a window away from any onset; returns where."""
    n, width = len(clean), cell.window_samples
    starts = rng.integers(0, n, rng.poisson(cell.artefacts_hz * n / cell.rate_hz))
    onsets = np.r_[-np.inf, truth.onset_s * cell.rate_hz, np.inf]
    after = np.searchsorted(onsets, starts)
    nearest = np.minimum(onsets[after] - starts, starts - onsets[after - 1])
    starts = np.asarray(starts[nearest > width / 2], np.int64)
    sizes = abs(cell.amplitude) * _log_uniform(rng, 0.5, 4.0, len(starts))
    t = np.arange(_ARTEFACT * width, dtype=np.float64)[None]
    for start, size in zip(starts, sizes, strict=True):
        add_at(clean, int(start), size * artefact_shapes(t, width, rng)[0])
    return starts


def _longest_s(truth: Truth) -> float:
    return float((truth.tau_rise_s + truth.tau_decay_s).max(initial=0.0))


# Windows of one cell -----------------------------------------------------------------------------


def _noise(count: int) -> dict[str, int]:
    """How many noise windows are to show what."""
    wanted = {kind: int(share * count) for kind, share in _NOISE_SHARES.items()}
    wanted["quiet"] += count - sum(wanted.values())
    return wanted


def _windows_of(
    cell: Preparation, wanted: dict[str, int], rng: np.random.Generator
) -> dict[str, NDArray[np.float32]]:
    """As many windows of each kind as wanted, from stretch after stretch of one cell."""
    every_s = _EVERY * cell.window_ms / 1e3
    busy = replace(
        cell,
        frequency_hz=max(cell.frequency_hz, 1 / every_s),
        artefacts_hz=max(cell.artefacts_hz, 1 / every_s),
    )
    width = cell.window_samples
    found: dict[str, list[NDArray[np.float32]]] = {kind: [] for kind in wanted}
    missing = dict(wanted)
    for _ in range(10 + sum(wanted.values())):
        samples, stretch = _labelled_stretch(busy, _STRETCH * width, rng)
        for kind, starts in _places(stretch, width, rng).items():
            starts = rng.permutation(starts)[: missing[kind]]
            found[kind].append(samples[starts[:, None] + np.arange(width)])
            missing[kind] -= len(starts)
        if not any(missing.values()):
            return {kind: np.concatenate(rows) for kind, rows in found.items()}
    raise UsageError(
        f"too few windows of {' and '.join(k for k in missing if missing[k])} come up: events of "
        f"{cell.amplitude:.3g} {cell.unit} cannot be told from noise of {cell.noise_sd:.3g}, or "
        "fill every window; give less noise or a lower frequency."
    )


def _labelled_stretch(
    cell: Preparation, n: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], Stretch]:
    samples, truth, artefacts = _recording(cell, n, rng)
    stretch = Stretch(
        samples=samples,
        onsets=np.rint(truth.onset_s * cell.rate_hz).astype(np.int64),
        sizes=np.abs(truth.amplitude),
        detectability=_detectability(truth, cell),
        rate_hz=cell.rate_hz,
        artefacts=tuple(artefacts.tolist()),
    )
    return samples, stretch


def _places(stretch: Stretch, width: int, rng: np.random.Generator) -> dict[str, Starts]:
    """Where windows of every kind start: events and their flanks, artefacts, anything else."""
    positive = (round(_POSITIVE[0] * width), round(_POSITIVE[1] * width))
    negative = (round(_NEGATIVE[0] * width), round(_NEGATIVE[1] * width))
    labels = Labels(
        positive=positive, negative=negative, seen=_SEEN, unseen=_UNSEEN, buried=_BURIED
    )
    seen = stretch.onsets[stretch.detectability >= labels.seen]
    late = rng.integers(negative[1] + 1, width - width // 20, len(seen))
    early = rng.integers(-width // 3, negative[0], len(seen))
    artefacts = np.array(stretch.artefacts, np.int64)
    candidates = {
        "event": seen - rng.integers(positive[0], positive[1] + 1, len(seen)),
        "flank": seen - np.where(rng.random(len(seen)) < 0.5, late, early),
        "artefact": artefacts - rng.integers(0, negative[1], len(artefacts)),
        "quiet": np.arange(rng.integers(width), len(stretch.samples), width),
    }
    places = {}
    for kind, starts in candidates.items():
        inside = starts[(starts >= 0) & (starts <= len(stretch.samples) - width)]
        label = label_windows(stretch, inside, labels, width)
        places[kind] = inside[label == (EVENT if kind == "event" else NOISE)]
    return places


def _detectability(truth: Truth, cell: Preparation) -> Floats:
    """d' of each event for an observer who knows its shape and the noise, but no baseline.

    The norm of the event once the noise is whitened. Frequency 0 is left out: what is constant over
    two windows says nothing about an event.
    """
    n = fast_length(2 * cell.window_samples)
    t = np.arange(n) / cell.rate_hz
    events = event_shapes(t, truth.tau_rise_s[:, None], truth.tau_decay_s[:, None])
    spectra = np.fft.rfft(events, axis=1)[:, 1:] * cell.rig.response(n)[1:]
    whitened = np.abs(spectra / (cell.noise_sd * cell.rig.noise_gain(n)[1:]))
    return np.asarray(np.abs(truth.amplitude) * np.sqrt(2 * (whitened**2).sum(axis=1) / n))


# Shapes ------------------------------------------------------------------------------------------


def event_shapes(t: Floats, tau_rise: Floats | float, tau_decay: Floats | float) -> Floats:
    """Biexponential events of unit peak at times t since their onset; 0 before it. Broadcasts."""
    s = np.maximum(t, 0.0)
    peak_at = tau_rise * np.log1p(tau_decay / tau_rise)
    peak = -np.expm1(-peak_at / tau_rise) * np.exp(-peak_at / tau_decay)
    return np.asarray(-np.expm1(-s / tau_rise) * np.exp(-s / tau_decay) / peak, np.float64)


def artefact_shapes(t: Floats, window: int, rng: np.random.Generator) -> Floats:
    """Spikes, slow symmetric bumps and steps of unit size, drawn by chance, up or down.

    t: samples since the start of each (n, samples). window: samples in a window, which sets how
    long they last: a spike up to a fiftieth of it, a bump a third and more, a step one and more.
    """
    n = len(t)
    narrow = np.maximum(_log_uniform(rng, 0.002, 0.02, (n, 1)) * window, 1.0)
    rebound = rng.uniform(0.3, 1.0, (n, 1)) * (rng.random((n, 1)) < 0.4)
    wide = _log_uniform(rng, 0.33, 1.5, (n, 1)) * window
    lasting = rng.uniform(1.0, _ARTEFACT - 1.0, (n, 1)) * window
    settling = _log_uniform(rng, 0.001, 0.03, (n, 1)) * window
    spikes = _hump(t, narrow) - rebound * _hump(t - np.ceil(narrow), narrow)
    back = np.clip((t - lasting) / window, 0.0, 1.0)  # slowly: a step is one sharp edge
    steps = (
        (t >= 0) * -np.expm1(-(np.maximum(t, 0) + 1) / settling) * np.cos(0.5 * np.pi * back) ** 2
    )
    kind = rng.integers(0, 3, n)
    shapes = np.stack([spikes, _hump(t, wide), steps])[kind, np.arange(n)]
    return np.asarray(rng.choice([-1.0, 1.0], (n, 1)) * shapes)


def _hump(t: Floats, width: Floats) -> Floats:
    """A raised cosine of unit height over `width` samples, with equal rise and decay."""
    wide = np.ceil(width)
    return np.asarray(((t >= 0) & (t < wide)) * np.sin(np.pi * (t + 1) / (wide + 1)) ** 2)


def _spread(rng: np.random.Generator, sd: float) -> float:
    """A factor around 1 whose logarithm has this SD, within three of them."""
    return float(_spreads(rng, sd, 1)[0])


def _spreads(rng: np.random.Generator, sd: float, count: int) -> Floats:
    return np.asarray(np.exp(sd * np.clip(rng.standard_normal(count), -3, 3)))


def _log_uniform(
    rng: np.random.Generator, low: float, high: float, shape: int | tuple[int, ...]
) -> Floats:
    return np.asarray(np.exp(rng.uniform(np.log(low), np.log(high), shape)))

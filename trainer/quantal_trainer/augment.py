"""More windows out of a lab's own: artefacts and events on its noise, and jittered copies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal import __version__
from quantal.errors import UsageError
from quantal.trace import is_finite
from quantal_trainer.datasets import EVENT, NOISE, UNKNOWN, Dataset, polarity
from quantal_trainer.preparations import artefact_shapes, event_shapes

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

_ENOUGH = 5  # events of a cell from which it has kinetics and amplitudes of its own
_DECAY, _RISE = 1 / 12, 1 / 60  # of the window: time constants where none can be fitted
_BEFORE, _AFTER = 1 / 10, 1 / 3  # of the window: what is fitted around an onset
_LOUD = 1.5  # times the median range of a cell's noise windows: no place for an event
_BULK = (0.1, 0.9)  # quantiles of the onsets; one beyond may be that of a neighbouring event
_AT_ONCE = 1_024  # windows jittered at a time
_LIMITS: dict[str, float] = {
    "artefacts": 10.0,
    "events": 10.0,
    "amplitude_jitter": 0.9,
    "time_jitter_ms": np.inf,
    "kinetics_stretch": 1.0,
    "copies": 100,
}


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What to add to a dataset; without anything given, nothing.

    artefacts, events: how many windows to add, as a share of the noise windows (1.0: as many).
    copies: jittered copies of every window. Only they are subject to the following:
    amplitude_jitter: an event grows or shrinks by up to this share, its noise does not.
    kinetics_stretch: time is stretched or squeezed around the onset by up to this share.
    time_jitter_ms: a window is shifted by up to this; at most a quarter of it, better a twentieth,
    for what lies at its edge moves too.

    Raises UsageError for values out of range, copies without jitter and jitter without copies.
    """

    artefacts: float = 0.0
    events: float = 0.0
    amplitude_jitter: float = 0.0
    time_jitter_ms: float = 0.0
    kinetics_stretch: float = 0.0
    copies: int = 0

    def __post_init__(self) -> None:
        for name, most in _LIMITS.items():
            value = getattr(self, name)
            if not (is_finite(value) and 0 <= value <= most):
                allowed = f"0 to {most:g}" if np.isfinite(most) else "0 or more"
                raise UsageError(f"{name} must be {allowed}, got {value!r}.")
        if self.copies != int(self.copies):
            raise UsageError(f"copies must be a whole number, got {self.copies!r}.")
        object.__setattr__(self, "copies", int(self.copies))
        jittered = self.amplitude_jitter or self.time_jitter_ms or self.kinetics_stretch
        if bool(jittered) != bool(self.copies):
            raise UsageError(
                "copies are what is jittered: give copies (1 or more) together with "
                "amplitude_jitter, time_jitter_ms or kinetics_stretch, or none of them."
            )

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Augmentation:
        """From a table of a TOML file; raises UsageError for names that are not known."""
        allowed = [f.name for f in fields(cls)]
        unknown = sorted(set(table) - set(allowed))
        if unknown:
            raise UsageError(
                f"augmentation knows no {', '.join(unknown)}; it knows {', '.join(allowed)}."
            )
        return cls(**table)


def augment(
    dataset: Dataset, config: Augmentation, *, direction: str | None = None, seed: int = 0
) -> Dataset:
    """The dataset and, after it, windows made from it; the same seed adds the same ones.

    For the training part only: split first, or validation sees its own windows again. A new window
    carries the cell of the window it was made from, so a split by cell stays honest nevertheless.
    Simulated events have the kinetics, amplitudes and places of the events of their cell (of all
    cells where it has fewer than five), and artefacts are of their size; both are put on noise
    windows of the same cell and point as the dataset's own events do. direction: "negative" or
    "positive", which way that is; None reads it from the windows.
    Raises UsageError without events, or without noise windows to put something on, and if the time
    jitter is over a quarter of the window.
    """
    if 4 * config.time_jitter_ms > dataset.window_ms:
        raise UsageError(
            f"time_jitter_ms must be at most {dataset.window_ms / 4:g}, a quarter of the window, "
            f"got {config.time_jitter_ms:g}."
        )
    if not (config.artefacts or config.events or config.copies):
        return dataset
    source = dataset.labelled()
    sign = 1.0 if (direction or polarity(source)) == "positive" else -1.0
    if (config.artefacts or config.events) and not (source.scores == NOISE).any():
        raise UsageError("no window is scored as noise, so there is nothing to put events on.")
    measured = _measured(source, sign)
    streams = [np.random.default_rng([seed, k]) for k in range(3)]
    added = [
        _with_artefacts(source, measured, config.artefacts, streams[0]),
        _with_events(source, measured, config.events, sign, streams[1]),
        _jittered(source, measured, config, sign, streams[2]),
    ]
    return _joined(dataset, added, {**asdict(config), "seed": seed, "quantal": __version__})


def _joined(dataset: Dataset, added: list[Dataset], facts: dict[str, Any]) -> Dataset:
    parts = [dataset, *added]
    return replace(
        dataset,
        windows=np.concatenate([part.windows for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        cells=np.concatenate([part.cells for part in parts]),
        raw_indices=np.concatenate([part.raw_indices for part in parts]),
        kinds=np.concatenate([part.kinds for part in parts]),
        provenance={**dataset.provenance, "augmented": facts},
    )


def _made(source: Dataset, rows: Rows, windows: Floats, kind: str, score: int | None) -> Dataset:
    """New windows in place of those they were made from, which keep cell and (None) score."""
    origin = source[rows]
    scores = origin.scores if score is None else np.full(len(rows), score, np.int8)
    return replace(
        origin,
        windows=windows.astype(np.float32),
        scores=scores,
        raw_indices=np.full(len(rows), UNKNOWN),
        kinds=np.full(len(rows), f"augmented {kind}"),
    )


# What is added -----------------------------------------------------------------------------------


def _with_artefacts(
    source: Dataset, measured: _Measured, share: float, rng: np.random.Generator
) -> Dataset:
    """Noise windows with a spike, slow bump or step of about the events' size."""
    noise = np.flatnonzero(source.scores == NOISE)
    rows = _drawn(noise, round(share * len(noise)), rng)
    donors = measured.donors(source.cells[rows], rng)
    sizes = measured.typical[donors] * np.exp(rng.uniform(np.log(0.5), np.log(4.0), len(rows)))
    starts = rng.integers(0, max(int(0.8 * source.length), 1), len(rows))
    t = np.arange(source.length, dtype=np.float64) - starts[:, None]
    shapes = artefact_shapes(np.asarray(t, np.float64), source.length, rng)
    windows = source.windows[rows] + np.asarray(sizes, np.float64)[:, None] * shapes
    return _made(source, rows, windows, "artefact", NOISE)


def _with_events(
    source: Dataset, measured: _Measured, share: float, sign: float, rng: np.random.Generator
) -> Dataset:
    """Noise windows with a biexponential event like those of the same cell."""
    noise = np.flatnonzero(source.scores == NOISE)
    rows = _drawn(_quiet(source, noise), round(share * len(noise)), rng)
    donors = measured.donors(source.cells[rows], rng)
    count = len(rows)
    onsets = np.clip(measured.onset[donors], *np.quantile(measured.onset, _BULK))
    onsets += rng.uniform(-0.02, 0.02, count) * source.length
    shapes = event_shapes(
        np.arange(source.length) - onsets[:, None],
        (measured.rise[donors] * np.exp(rng.normal(0, 0.1, count)))[:, None],
        (measured.decay[donors] * np.exp(rng.normal(0, 0.2, count)))[:, None],
    )
    sizes = sign * measured.amplitude[donors] * np.exp(rng.normal(0, 0.1, count))
    windows = source.windows[rows] + sizes[:, None] * shapes
    return _made(source, rows, windows, "event", EVENT)


def _quiet(source: Dataset, noise: Rows) -> Rows:
    """Noise windows without anything large that would hide an event."""
    spans = np.ptp(source.windows[noise], axis=1)
    names, cell = np.unique(source.cells[noise], return_inverse=True)
    usual = np.array([np.median(spans[cell == c]) for c in range(len(names))])
    return np.asarray(noise[spans <= _LOUD * usual[cell]], np.intp)


def _drawn(rows: Rows, count: int, rng: np.random.Generator) -> Rows:
    """Some of the rows by chance; each once before any comes twice."""
    rounds = -(-count // max(len(rows), 1))
    shuffled = [rng.permutation(rows) for _ in range(rounds)]
    return np.concatenate([np.empty(0, np.intp), *shuffled])[:count]


# Jittered copies ---------------------------------------------------------------------------------


def _jittered(
    source: Dataset,
    measured: _Measured,
    config: Augmentation,
    sign: float,
    rng: np.random.Generator,
) -> Dataset:
    """Copies of all windows with events scaled, time stretched and shifted."""
    rows = np.tile(np.arange(len(source)), config.copies)
    onset = np.full(len(source), source.length / 2)
    onset[measured.rows] = measured.onset
    extra = np.zeros(len(source))
    extra[measured.rows] = sign * measured.amplitude
    rise, decay = np.ones((2, len(source)))
    rise[measured.rows], decay[measured.rows] = measured.rise, measured.decay

    grown = config.amplitude_jitter * rng.uniform(-1, 1, len(rows))
    stretch = np.exp(np.log1p(config.kinetics_stretch) * rng.uniform(-1, 1, len(rows)))
    most = config.time_jitter_ms * source.rate_hz / 1e3
    shift = np.rint(most * rng.uniform(-1, 1, len(rows)))
    windows = np.empty((len(rows), source.length), np.float32)
    for first in range(0, len(rows), _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        row, t = rows[some], np.arange(source.length, dtype=np.float64)
        at, now = onset[row, None], source.windows[row].astype(np.float64)
        now += (grown[some] * extra[row])[:, None] * event_shapes(
            t - at, rise[row, None], decay[row, None]
        )
        windows[some] = _read_at(now, at + (t - shift[some, None] - at) / stretch[some, None])
    return _made(source, rows, windows.astype(np.float64), "copy", None)


def _read_at(windows: Floats, positions: Floats) -> Floats:
    """Each window (a row) at positions between its samples, by cubic splines.

    Straight lines would halve white noise between samples. Beyond its ends a window is continued
    by its mirror image, as a trace is in detection.
    """
    from scipy.ndimage import spline_filter1d

    length = windows.shape[1]
    weights = spline_filter1d(windows, order=3, axis=1, mode="reflect")
    first = np.floor(positions).astype(np.int64)
    f = positions - first
    parts = ((1 - f) ** 3, 4 - 6 * f**2 + 3 * f**3, 1 + 3 * f + 3 * f**2 - 3 * f**3, f**3)
    out = np.zeros_like(positions)
    for k, part in enumerate(parts):
        i = (first + k - 1) % (2 * length)
        out += part / 6 * np.take_along_axis(weights, np.minimum(i, 2 * length - 1 - i), axis=1)
    return out


# What the dataset's own events are like ----------------------------------------------------------


@dataclass(frozen=True, eq=False, kw_only=True)
class _Measured:
    """The dataset's events: row, cell, onset (samples), amplitude, and their cell's kinetics.

    Amplitudes are magnitudes; typical is the median one, and rise and decay (samples) the time
    constants, of the cell.
    """

    rows: Rows
    cells: NDArray[np.str_]
    onset: Floats
    amplitude: Floats
    typical: Floats
    rise: Floats
    decay: Floats

    def donors(self, cells: NDArray[np.str_], rng: np.random.Generator) -> Rows:
        """For each of these cells one of its events by chance; of all, where it has few."""
        chosen = np.empty(len(cells), np.intp)
        for cell in np.unique(cells):
            own = np.flatnonzero(self.cells == cell)
            pool = own if len(own) >= _ENOUGH else np.arange(len(self.cells))
            wanted = np.flatnonzero(cells == cell)
            chosen[wanted] = rng.choice(pool, len(wanted))
        return chosen


def _measured(source: Dataset, sign: float) -> _Measured:
    rows = np.flatnonzero(source.scores == EVENT)
    windows, cells = sign * source.windows[rows].astype(np.float64), source.cells[rows]
    onset, amplitude, typical, rise, decay = np.empty((5, len(rows)))
    for cell in np.unique(cells):
        own = np.flatnonzero(cells == cell)
        pool = own if len(own) >= _ENOUGH else np.arange(len(rows))
        rise[own], decay[own] = _kinetics(windows[pool])
        onset[own], fitted, _ = _fitted(windows[own], rise[own[0]], decay[own[0]])
        amplitude[own] = np.maximum(fitted, 0.0)
        typical[own] = np.median(amplitude[own])
    return _Measured(
        rows=rows,
        cells=cells,
        onset=onset,
        amplitude=amplitude,
        typical=typical,
        rise=rise,
        decay=decay,
    )


def _fitted(windows: Floats, rise: float, decay: float) -> tuple[Floats, Floats, Floats]:
    """Onset (samples), amplitude and baseline of each window's upward event, by least squares.

    An optimally scaled template slides over the window (Clements and Bekkers, 1997); less its
    mean, the place of its best correlation is that where it explains most.
    """
    from scipy.signal import fftconvolve

    length = windows.shape[1]
    before, after = round(_BEFORE * length), round(_AFTER * length)
    template = event_shapes(np.arange(-before, after, dtype=np.float64), rise, decay)
    centred = template - template.mean()
    middle = windows.mean(axis=1, keepdims=True)
    fit = fftconvolve(windows - middle, centred[None, ::-1], mode="valid", axes=1)
    place = fit.argmax(axis=1)
    amplitude = np.take_along_axis(fit, place[:, None], axis=1)[:, 0] / (centred @ centred)
    seen = np.take_along_axis(windows, place[:, None] + np.arange(len(template)), axis=1)
    baseline = seen.mean(axis=1) - amplitude * template.mean()
    return (place + before).astype(np.float64), amplitude, baseline


def _kinetics(windows: Floats) -> tuple[float, float]:
    """Rise and decay constants (samples) of the average upward event.

    Where they cannot be fitted: a sixtieth and a twelfth of the window.
    """
    length = windows.shape[1]
    usual = (_RISE * length, _DECAY * length)
    kinetics = usual
    for _ in range(2):  # the average is sharper once its own shape has aligned it
        onset, _, baseline = _fitted(windows, *kinetics)
        t, average = _average(windows - baseline[:, None], onset.astype(np.int64))
        kinetics = _time_constants(t, average, kinetics, length) or usual
    return kinetics


def _average(windows: Floats, onset: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """The mean of windows aligned at their onsets, and its time (samples) from the onset."""
    length = windows.shape[1]
    t = np.arange(-round(_BEFORE * length), round(_AFTER * length))
    aligned = np.take_along_axis(windows, onset[:, None] + t, axis=1)
    return t.astype(np.float64), np.asarray(aligned.mean(axis=0))


def _time_constants(
    t: Floats, average: Floats, first: tuple[float, float], length: int
) -> tuple[float, float] | None:
    """Rise and decay fitted to an average event of windows of this length, or None."""
    from scipy.optimize import least_squares

    height = max(float(average.max()), 1e-12)

    def left(p: Floats) -> Floats:
        start, size, base, rise, decay = p
        shape = event_shapes(t - start, np.exp(rise), np.exp(decay))
        return np.asarray(base + size * shape - average / height)

    low = (t[0], 0.0, -3.0, np.log(0.2), 0.0)
    high = (t[-1], 10.0, 3.0, np.log(length / 4), np.log(length))
    guess = np.clip((0.0, 1.0, 0.0, *np.log(first)), low, high)
    found = least_squares(left, guess, bounds=(low, high), x_scale=(length / 60, 1, 1, 1, 1))
    if not found.success:
        return None
    return float(np.exp(found.x[3])), float(np.exp(found.x[4]))

"""Labelled windows for networks that read windows, cut from the stretches that trace networks see.

A network that reads windows is told the time scale, so each stretch is resampled until a window of
600 samples stands for about twelve decay constants of its events, as a user would choose by eye.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantal.errors import UsageError
from quantal.filters import resample
from quantal.windows import SCORED, cut_windows
from quantal_trainer import simulated_traces
from quantal_trainer.simulated_traces import RATE_HZ, USUAL, Family

Floats = NDArray[np.float64]
_WINDOW = 600  # samples of the network's window
_LONGEST = 32_768  # samples, at its window, of the part of a stretch that is looked at
_MARGIN = 1_500  # its ends, where events may be cut, are not used
_WIDTHS = 14.0  # half-widths of an event in a window that suits it
_BY_EYE = 0.35  # SD of the logarithm of the windows that are chosen
_WINDOWS = (90, 7_500)  # the shortest and longest, in samples of a stretch: 3.6 to 300 ms
_PLACE = 100  # samples whose range tells whether there is something to see


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


@dataclass(frozen=True, eq=False)
class Stretch:
    """A simulated stretch at a window's own rate: upward events and other landmarks.

    onsets: the sample at which each event starts or, in stretches of trace networks, rises
    steepest. detectability: d' of an ideal observer. artefacts: where, as far as it is known.
    """

    samples: NDArray[np.float32]
    onsets: NDArray[np.int64]
    sizes: Floats
    detectability: Floats
    rate_hz: float = 50_000.0
    artefacts: tuple[int, ...] = ()


def simulate_stretch(rng: np.random.Generator, family: Family = USUAL) -> Stretch:
    """A part of a stretch of a recording, read at a window that suits its events."""
    whole = simulated_traces.simulate_stretch(rng, family)
    window = _suitable_window(whole, rng)
    size = min(_LONGEST * window // _WINDOW, len(whole.samples))
    first = int(rng.integers(len(whole.samples) - size + 1))
    inside = (whole.rises >= first) & (whole.rises < first + size)
    onsets = (whole.rises[inside] - first) * _WINDOW / window
    return Stretch(
        samples=resample(whole.samples[first : first + size], _WINDOW, window),
        onsets=np.rint(onsets).astype(np.int64),
        sizes=whole.size[inside],
        detectability=whole.detectability[inside],
        rate_hz=RATE_HZ * _WINDOW / window,
    )


def _suitable_window(whole: simulated_traces.Stretch, rng: np.random.Generator) -> int:
    """Samples of a stretch that fill a window; any where it holds no event."""
    if len(whole.width):
        suited = _WIDTHS * float(np.median(whole.width)) * np.exp(rng.normal(0, _BY_EYE))
    else:
        suited = np.exp(rng.uniform(*np.log(_WINDOWS)))
    return int(np.clip(suited, *_WINDOWS))


def simulate_windows(
    count: int,
    *,
    seed: int,
    where: str = "landmarks",
    labels: Labels = Labels(),
    family: Family = USUAL,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scaled windows float32 (count, 600) and labels float32 (count,), 1 an event.

    where: "landmarks" looks at events, their flanks, whatever else stands out, and noise, about a
    third of the windows being positive; "anywhere" looks at random places, as a scan does.
    The same seed gives the same windows. Raises UsageError for another `where`.
    """
    if where not in _PLACES:
        raise UsageError(f"where must be one of {', '.join(_PLACES)}, got {where!r}.")
    rng = np.random.default_rng(seed)
    windows = np.empty((count, _WINDOW), np.float32)
    truth = np.empty(count, np.float32)
    filled = 0
    while filled < count:
        stretch = simulate_stretch(rng, family)
        starts = _usable(_PLACES[where](stretch, labels, rng), stretch)
        found = label_windows(stretch, starts, labels, _WINDOW)
        starts, found = starts[found >= 0], found[found >= 0]
        scaled, states = _scaled_at(stretch.samples, starts)
        keep = np.flatnonzero(states == SCORED)[: count - filled]
        windows[filled : filled + len(keep)] = scaled[keep]
        truth[filled : filled + len(keep)] = found[keep]
        filled += len(keep)
    order = rng.permutation(count)
    return windows[order], truth[order]


def _scaled_at(
    samples: NDArray[np.float32], starts: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    cuts = [cut_windows(samples, int(start), 1, 1, _WINDOW) for start in starts]
    cuts.append(cut_windows(samples, 0, 1, 0, _WINDOW))
    return np.concatenate([c[0] for c in cuts]), np.concatenate([c[1] for c in cuts])


def _landmarks(stretch: Stretch, labels: Labels, rng: np.random.Generator) -> NDArray[np.int64]:
    """Window starts that show events, their flanks, whatever else stands out, and noise."""
    seen = stretch.onsets[stretch.detectability >= labels.seen]
    middle = sum(labels.positive) // 2
    picked = [
        rng.integers(0, len(stretch.samples), 10),
        *(o - rng.integers(*labels.positive, 2) for o in rng.permutation(seen)[:8]),
        *(o - rng.integers(labels.negative[1], _WINDOW, 1) for o in rng.permutation(seen)[:4]),
        *(o - rng.integers(-_WINDOW, labels.negative[0], 1) for o in rng.permutation(seen)[:4]),
        *(a - middle + rng.integers(-200, 200, 2) for a in _prominent(stretch, rng)),
    ]
    return np.concatenate(picked)


def _prominent(stretch: Stretch, rng: np.random.Generator) -> NDArray[np.int64]:
    """Six of the places where the samples range most, events or not."""
    places = len(stretch.samples) // _PLACE
    spans = np.ptp(stretch.samples[: places * _PLACE].reshape(places, _PLACE), axis=1)
    widest = np.argsort(spans)[-max(places // 10, 6) :]
    return np.asarray(rng.permutation(widest)[:6] * _PLACE + _PLACE // 2, np.int64)


def _anywhere(stretch: Stretch, labels: Labels, rng: np.random.Generator) -> NDArray[np.int64]:
    """Window starts spread over a stretch by chance."""
    del labels
    return rng.integers(0, len(stretch.samples), 40)


def _usable(starts: NDArray[np.int64], stretch: Stretch) -> NDArray[np.int64]:
    keep = (starts >= _MARGIN) & (starts < len(stretch.samples) - _MARGIN - _WINDOW)
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

"""Distillation of a scout: a small network that learns where a window network finds an event.

It learns from scores of the large network alone, on pieces of simulated stretches, half of them
around events. A run of scores that reaches a threshold is read whole if the scout suspects one of
its windows, so the scout learns to see each run somewhere, best where the large network is surest.
Its levels come from other stretches: for every run, the highest value of the scout that leads to
it; the level is the lowest of them, less a margin.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.errors import ModelError, UsageError
from quantal.model import SCOUT, Card, Model, load_model, sha256_of, shipped_models, write_card
from quantal.peaks import BRIDGED, QUIET
from quantal.runtime import Session, cores, open_session
from quantal.scan import SIGNS
from quantal.scout import averaged_windows, look, open_scout
from quantal.screen import FELT, LOWEST, at_jumps
from quantal.windows import SCORED, cut_windows_at
from quantal_trainer.backend import keras, tf
from quantal_trainer.export import check_replaceable, renamed_when_done, to_onnx
from quantal_trainer.simulated_traces import CROWDED, USUAL, simulate_stretch

Array = NDArray[np.float32]
Numbers = NDArray[np.int64]
Say = Callable[[str], None]

BINS, HOP_BINS = 120, 16  # averages in a window, and from one look to the next
THRESHOLDS = (LOWEST, 0.4, 0.5, 0.6, 0.75, 0.9)
FOLLOWED = (0.1, 0.02, FELT)  # of a threshold, the score from which a suspect leads to others
_FILTERS = ((24, 8, 4), (48, 5, 2), (48, 5, 2))  # of each convolution: how many, width, stride
_UNITS = 64
_PIECES, _WINDOWS = 2, 256  # pieces of a stretch, and windows of one
_TURNED = 0.15  # of the stretches, so that the events point the wrong way
_EASY = 0.005  # of windows that score less every second is learnt from
_CORE = 2  # windows either side of the highest of a run that the scout must see
_WEIGHT = 12.0  # of such a window beside one that scores 0
_RANGE = (0.001, 0.95)  # of scores that the scout tells apart
_OVER = 0.3  # of the loss by saying too little, that by saying too much
_BATCH, _RATE = 512, 3e-3
_USEFUL = 0.8  # of the windows around events: where it would suspect more, it is of little help


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a scout is made: stretches of 2.6 s to learn from, and twice as many to be calibrated on.

    calibration: stretches of each of two sets. margin: what is taken off a level, in logits, at
    least; more if the lowest values of the two sets differ by more.
    """

    stretches: int = 10_000
    epochs: int = 12
    calibration: int = 2_500
    margin: float = 0.5
    seed: int = 31


@dataclass(frozen=True, eq=False, kw_only=True)
class Piece:
    """Part of a stretch, as the network reads it, and the scores of all its windows."""

    samples: Array
    scores: Array


def distill(
    model: str | Path | Model, out: str | Path | None, plan: Plan, say: Say = lambda _: None
) -> Model:
    """Give a window network its scout; returns the model, in `out` or in the folder it had.

    Raises UsageError if the model is no window network of such a length, ModelError if the scout
    would be of no use.
    """
    model = load_model(model)
    card = model.card
    if card.kind != "windows" or card.window_samples % BINS:
        raise UsageError(
            f"{card.name} needs no scout: only a network that reads windows of a multiple of "
            f"{BINS} samples takes one."
        )
    if _hop(card) % card.stride:
        raise UsageError(
            f"{card.name} gives a score every {card.stride} samples; a scout, which looks every "
            f"{_hop(card)}, needs a stride that divides this."
        )
    if out is None and model.folder in shipped_models().values():
        raise UsageError(f"{card.name} came with quantal and stays as it is; give --out FOLDER.")
    target = Path(out).expanduser().resolve() if out is not None else model.folder
    check_replaceable(target)
    say(f"{plan.stretches} stretches to learn from ...")
    inputs, targets, weights = lessons(model, plan)
    say(f"{len(targets)} windows, {plan.epochs} epochs ...")
    network = taught(inputs, targets, weights, plan)
    with renamed_when_done(target) as fresh:
        shutil.copyfile(model.graph, fresh / model.graph.name)
        (fresh / SCOUT).write_bytes(to_onnx(network).SerializeToString(deterministic=True))
        graphs = {model.graph.name: card.graphs[model.graph.name], SCOUT: sha256_of(fresh / SCOUT)}
        blind = replace(card, graphs=graphs, scout=_facts(card, [(LOWEST, 0.0)]))
        say(f"twice {plan.calibration} other stretches to be calibrated on ...")
        write_card(calibrated(Model(card=blind, folder=fresh), plan), fresh)
    return load_model(target)


def _hop(card: Card) -> int:
    return HOP_BINS * (card.window_samples // BINS)


def _facts(card: Card, levels: list[tuple[float, float]], **more: Any) -> dict[str, Any]:
    facts = {"hop_samples": _hop(card), "bin_samples": card.window_samples // BINS}
    return {**facts, "felt": FELT, "levels": [list(pair) for pair in levels], **more}


# What it learns from -----------------------------------------------------------------------------


def pieces(model: Model, plan: Plan, kind: int, stretches: int, *, around: int) -> Iterator[Piece]:
    """Pieces of simulated stretches, of which one kind has none that another has.

    around: pieces of each that lie around an event, if there is any.
    """
    make = partial(_pieces_of, model.card, open_session(model, "cpu", 1), around)
    with ThreadPoolExecutor(cores()) as pool:
        for found in pool.map(make, ((plan.seed, kind, i) for i in range(stretches))):
            yield from found


def _pieces_of(
    card: Card, session: Session, around: int, seed: tuple[int, int, int]
) -> list[Piece]:
    rng = np.random.default_rng(seed)
    stretch = simulate_stretch(rng, CROWDED if seed[-1] % 2 else USUAL)
    sign = SIGNS[card.polarity] * (-1 if rng.random() < _TURNED else 1)
    length = (_WINDOWS - 1) * card.stride + card.window_samples
    last = len(stretch.samples) - length
    firsts = rng.integers(0, last, _PIECES)
    if len(stretch.rises):
        chosen = rng.choice(stretch.rises, around) - rng.integers(0, length, around)
        firsts[:around] = np.clip(chosen, 0, last)
    whole = np.float32(sign) * stretch.samples
    return [_scored(card, session, whole[first : first + length]) for first in firsts]


def _scored(card: Card, session: Session, samples: Array) -> Piece:
    starts = card.stride * np.arange(_WINDOWS)
    windows, states = cut_windows_at(samples, starts, card.window_samples)
    scores = session.run_windows(windows)
    scores[states != SCORED] = 0.0
    return Piece(samples=samples, scores=scores)


def lessons(model: Model, plan: Plan) -> tuple[NDArray[np.float16], Array, Array]:
    """Averaged windows (n, BINS), what the scout should say of them (n,), and weights (n,)."""
    card = model.card
    size = card.window_samples // BINS
    inputs, marks = [], []
    for piece in pieces(model, plan, 0, plan.stretches, around=1):
        windows, _ = averaged_windows(
            piece.samples, 0, card.stride, _WINDOWS, card.window_samples, size
        )
        target, weight = marked(piece.scores)
        used = (weight > 0) & ((target > _EASY) | (np.arange(_WINDOWS) % 2 == 0))
        inputs.append(windows[used].astype(np.float16))
        marks.append(np.stack([target[used], weight[used]]))
    targets, weights = np.concatenate(marks, axis=1)
    return np.concatenate(inputs), targets, weights


def marked(scores: Array) -> tuple[Array, Array]:
    """What a scout should say of windows that score so, and weights (n,).

    Around the highest of a run it should say what that is; elsewhere in the run it may say what it
    likes.
    """
    targets, weights = scores.copy(), np.ones_like(scores)
    for run in runs_of(scores, LOWEST):
        weights[run[0] : run[-1] + 1] = 0.0
        highest = int(run[scores[run].argmax()])
        core = slice(max(highest - _CORE, 0), highest + _CORE + 1)
        targets[core] = scores[highest]
        weights[core] = 1 + _WEIGHT * scores[highest]
    return targets, weights


def runs_of(scores: Array, threshold: float) -> list[Numbers]:
    """Numbers of the windows that are not quiet, of each run that reaches the threshold."""
    heard = np.flatnonzero(scores >= QUIET * threshold)
    runs = np.split(heard, np.flatnonzero(np.diff(heard) > BRIDGED) + 1)
    return [run for run in runs if len(run) and scores[run].max() >= threshold]


def scout_network() -> keras.Model:
    """A scout with fresh weights: averaged windows (n, BINS) to logits (n, 1)."""
    layers = keras.layers
    windows = keras.Input((BINS,))
    x = layers.Reshape((BINS, 1))(windows)
    for count, width, stride in _FILTERS:
        x = layers.Conv1D(count, width, stride, padding="same", activation="relu")(x)
    x = layers.Dense(_UNITS, activation="relu")(layers.Flatten()(x))
    return keras.Model(windows, layers.Dense(1)(x), name="scout")


def taught(inputs: NDArray[np.float16], targets: Array, weights: Array, plan: Plan) -> keras.Model:
    """A scout that foretells the targets of averaged windows, in logits, and too much if in doubt.

    The squares of its errors count, so that the worst count most: it is judged by these. Of a
    window that scores next to nothing it may say as little as it likes.
    """
    keras.utils.set_random_seed(plan.seed)
    network = scout_network()
    steps = max(plan.epochs * -(-len(targets) // _BATCH), 1)
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(_RATE, steps))
    optimizer.build(network.trainable_variables)
    clipped = np.clip(targets, *_RANGE)
    aims = np.log(clipped / (1 - clipped))
    lowest = float(np.log(_RANGE[0] / (1 - _RANGE[0]))) + 1e-3

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def learn(x: Any, aim: Any, weight: Any) -> None:
        with tf.GradientTape() as tape:
            missing = aim - network(tf.cast(x, tf.float32), training=True)[:, 0]
            saying_too_little = tf.where(aim > lowest, 1.0, 0.0)
            factor = tf.where(missing > 0, saying_too_little, _OVER)
            loss = tf.reduce_mean(weight * factor * missing**2)
        gradients = tape.gradient(loss, network.trainable_variables)
        optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))

    rng = np.random.default_rng(plan.seed)
    for _ in range(plan.epochs):
        order = rng.permutation(len(targets))
        for first in range(0, len(order), _BATCH):
            chosen = order[first : first + _BATCH]
            learn(inputs[chosen], aims[chosen], weights[chosen])
    return network


# Calibration -------------------------------------------------------------------------------------


def calibrated(model: Model, plan: Plan) -> Card:
    """The card with the levels of its scout and how they came about.

    Raises ModelError if there is no event to calibrate on, or if the scout would suspect half of
    all windows.
    """
    first, second = (found_by(model, plan, kind) for kind in (1, 2))
    if not all(runs.size for found in (first, second) for runs in found.runs.values()):
        raise ModelError("the simulated stretches held no event; take more of them.")
    return replace(model.card, scout=_levels(model.card, first, second, plan))


@dataclass(frozen=True, eq=False, kw_only=True)
class Found:
    """What a scout says on one set of stretches.

    runs: for each threshold, the highest value that leads to each run, if windows are followed from
    each of FOLLOWED on, shape (3, n). seen: all values.
    """

    runs: dict[float, Array]
    seen: Array


def found_by(model: Model, plan: Plan, kind: int) -> Found:
    """What the scout of a model says on stretches of one kind, beginning at each of a hop."""
    card = model.card
    scout = open_scout(model)
    assert scout is not None
    hop = scout.hop // card.stride
    found: dict[float, list[Array]] = {
        t: [np.empty((len(FOLLOWED), 0), np.float32)] for t in THRESHOLDS
    }
    seen = []
    for piece in pieces(model, plan, kind, plan.calibration, around=_PIECES):
        whole = {threshold: _whole_runs(piece.scores, threshold) for threshold in THRESHOLDS}
        for phase in range(hop):
            looked = np.arange(phase, _WINDOWS, hop)
            values, ranges = look(
                scout, piece.samples, phase * card.stride, len(looked), card.window_samples
            )
            seen.append(values)
            led = np.full(_WINDOWS, -np.inf, np.float32)
            led[looked] = values
            led[at_jumps(looked, ranges)] = np.inf
            for threshold in filter(whole.get, THRESHOLDS):
                found[threshold].append(leading(piece.scores, led, whole[threshold], threshold))
    runs = {threshold: np.concatenate(parts, axis=1) for threshold, parts in found.items()}
    return Found(runs=runs, seen=np.concatenate(seen))


def _whole_runs(scores: Array, threshold: float) -> list[Numbers]:
    """Those that do not go on beyond the scores' ends."""
    last = len(scores) - BRIDGED
    return [r for r in runs_of(scores, threshold) if r[0] >= BRIDGED and r[-1] < last]


def leading(scores: Array, led: Array, runs: list[Numbers], threshold: float) -> Array:
    """The highest value that leads to each run, for each of FOLLOWED (3, n).

    led: of each window, the value of the scout; -inf where it does not look, inf where the window
    is read whatever it says. So inf is a run that is read in any case, -inf one that is not found.
    """
    found = np.empty((len(FOLLOWED), len(runs)), np.float32)
    for k, run in enumerate(runs):
        near = slice(run[0] - BRIDGED, run[-1] + BRIDGED + 1)
        for i, felt in enumerate(FOLLOWED):
            followed = led[near][scores[near] >= felt * threshold]
            found[i, k] = followed.max(initial=-np.inf)
    return found


def _levels(card: Card, first: Found, second: Found, plan: Plan) -> dict[str, Any]:
    """Facts of the scout: the lowest value that leads to a run in either set, less a margin."""
    unseen = np.array(
        [[np.isneginf(found.runs[t]).sum(axis=1) for t in THRESHOLDS] for found in (first, second)]
    )  # (sets, thresholds, FOLLOWED)
    kind = int(unseen.sum(axis=(0, 1)).argmin())
    lowest = np.array(
        [[_lowest(found.runs[t][kind]) for t in THRESHOLDS] for found in (first, second)]
    )
    margins = np.maximum(plan.margin, np.abs(np.diff(lowest, axis=0)[0]))
    safe = lowest.min(axis=0) - margins
    rising = np.minimum.accumulate(safe[::-1])[::-1]  # none higher than that of a higher threshold
    seen = np.concatenate([first.seen, second.seen])
    shares = [float((seen >= level).mean()) for level in rising]
    usual = shares[max(i for i, t in enumerate(THRESHOLDS) if t <= max(card.threshold, LOWEST))]
    if usual > _USEFUL:
        raise ModelError(
            f"the scout would suspect {100 * usual:.0f} % of all windows so as to miss no event, "
            "and is of no use: let it learn from more stretches."
        )
    calibration = {
        **asdict(plan),
        "thresholds": list(THRESHOLDS),
        "runs": [[found.runs[t].shape[1] for t in THRESHOLDS] for found in (first, second)],
        "unseen": unseen[:, :, kind].tolist(),
        "lowest": np.round(lowest, 3).tolist(),
        "margins": np.round(margins, 3).tolist(),
        "suspect": shares,
    }
    levels = [
        (threshold, round(float(level), 3))
        for threshold, level, share in zip(THRESHOLDS, rising, shares, strict=True)
        if share <= _USEFUL
    ]
    return _facts(card, levels, felt=FOLLOWED[kind], calibration=calibration)


def _lowest(values: Array) -> float:
    return float(values[np.isfinite(values)].min(initial=0.0))

"""The parts of the accuracy benchmark: which recordings, and how what was found is judged."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from detectors import MINIML, Detector, Network, UnavailableError, measures_at
from reference_scenes import (
    MODEL_CELL,
    MODEL_SWEEPS,
    REAL,
    conformance_scene,
    model_cell,
    real_scene,
    sweep_rows,
    sweep_scene,
)
from scenes import MEASURES, Floats, Known, OtherRig, Recipe, Scene, simulate

from quantal.simulate import Rig, matched
from quantal.timescale import AUTO

Found = dict[str, Any]

PERCENTS = (5, 20, 35, 50, 75, 100, 125, 150, 175, 195)  # of the default threshold
LOW, HIGH = 0.1, 0.9  # thresholds between which a network should not care
FIXED_MS = (
    3.0,
    6.0,
    12.0,
    24.0,
    48.0,
    96.0,
    192.0,
    384.0,
)  # windows beside the one chosen by itself
AMPLITUDES_REAL = (4.0, 8.0)


@dataclass(frozen=True)
class Case:
    """A recording: its row in a table, how it is made, and a text that changes when that does.

    notes: what else a table wants to know of it. on_record: detectors whose results are on file.
    """

    row: str
    seed: int
    make: Callable[[], Scene]
    about: str
    notes: Mapping[str, Any] = field(default_factory=dict)
    on_record: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """Recordings, given the folder of the reference recordings and a number of seeds; a judge."""

    title: str
    cases: Callable[[Path | None, int], Iterable[Case]]
    judge: Callable[[Scene, Detector], Found]


# How what was found is judged -------------------------------------------------------------------


def counted(scene: Scene, found: Known) -> Found:
    """True events, found ones, and true ones that were found."""
    hits = matched(scene.true_s, found.location_s, tolerance_s=scene.tolerance_s)
    return {"true": len(scene.true_s), "found": len(found.location_s), "hits": hits}


def judge(scene: Scene, detector: Detector) -> Found:
    """Counts, and how far (median, ms) the found events are from the true steepest rises."""
    found = detector.find(scene)
    return {**counted(scene, found), "off_ms": off_ms(scene, found)}


def off_ms(scene: Scene, found: Known) -> float | None:
    """Median distance (ms) of found events from the true steepest rises; None without any."""
    if scene.location_s is None:
        return None
    pairs = nearest_pairs(scene.location_s, found.location_s, scene.tolerance_s)
    off = [abs(scene.location_s[i] - found.location_s[j]) for i, j in pairs]
    return round(1000 * float(np.median(off)), 4) if off else None


def judge_pairs(scene: Scene, detector: Detector) -> Found:
    """Counts, and of how many pairs both events were found."""
    found = detector.find(scene)
    first, second = scene.true_s[0::2], scene.true_s[1::2]
    near = [
        {i for i, _ in nearest_pairs(half, found.location_s, scene.tolerance_s)}
        for half in (first, second)
    ]
    return {**counted(scene, found), "pairs": len(first), "both": len(near[0] & near[1])}


def judge_thresholds(scene: Scene, detector: Detector) -> Found:
    """Counts at many thresholds; of networks also at a low and a high one."""
    found: Found = {"thresholds": []}
    for percent in PERCENTS:
        counts = counted(scene, detector.find(scene, float(percent)))
        found["thresholds"].append([counts["found"], counts["hits"]])
        found["true"] = counts["true"]
    if isinstance(detector, Network):
        for name, threshold in (("low", LOW), ("high", HIGH)):
            counts = counted(scene, detector.find(scene, detector.percent_of(threshold)))
            found[name] = [counts["found"], counts["hits"]]
    return found


def judge_windows(scene: Scene, detector: Detector) -> Found:
    """Counts of a network at the window that it finds itself; found and hits at fixed ones."""
    if not isinstance(detector, Network):
        raise UnavailableError("only networks find their time scale by themselves")
    fixed = [counted(scene, detector.find_at(scene, window_ms)) for window_ms in FIXED_MS]
    auto = counted(scene, detector.find_at(scene, AUTO))
    return {**auto, "fixed": [[counts["found"], counts["hits"]] for counts in fixed]}


def judge_kinetics(scene: Scene, detector: Detector) -> Found:
    """Counts, and every measure's relative errors: median and median absolute."""
    found = detector.find(scene)
    counts = {**counted(scene, found), "off_ms": off_ms(scene, found)}
    if scene.location_s is None or scene.measures is None:
        return counts
    pairs = list(nearest_pairs(scene.location_s, found.location_s, scene.tolerance_s))
    true, ours = ([pair[k] for pair in pairs] for k in (0, 1))
    measures = found.measures or measures_at(scene, found.location_s)
    errors = {
        name: summary(measures[name][ours] / scene.measures[name][true] - 1)
        for name in MEASURES
        if name in measures and pairs
    }
    return {**counts, "errors": errors}


def summary(errors: Floats) -> list[float] | None:
    """Median and median absolute error of those that could be measured."""
    errors = errors[np.isfinite(errors)]
    if not len(errors):
        return None
    return [round(float(np.median(errors)), 4), round(float(np.median(np.abs(errors))), 4)]


def nearest_pairs(true_s: Floats, found_s: Floats, tolerance_s: float) -> Iterator[tuple[int, int]]:
    """Positions of true and found times that are each other's nearest, within the tolerance."""
    if not len(true_s) or not len(found_s):
        return
    to_found, to_true = nearest(true_s, found_s), nearest(found_s, true_s)
    for i, j in enumerate(to_found):
        if to_true[j] == i and abs(true_s[i] - found_s[j]) <= tolerance_s:
            yield i, int(j)


def nearest(times: Floats, others: Floats) -> np.ndarray[Any, np.dtype[np.int64]]:
    """For each time the position of the nearest of the others, which are in order."""
    after = np.clip(np.searchsorted(others, times), 1, max(len(others) - 1, 1))
    after = np.minimum(after, len(others) - 1)
    before = np.maximum(after - 1, 0)
    closer = np.abs(others[before] - times) <= np.abs(others[after] - times)
    return np.where(closer, before, after)


# Which recordings -------------------------------------------------------------------------------

Rows = dict[str, Recipe]


def simulated(rows: Rows) -> Callable[[Path | None, int], Iterator[Case]]:
    """Cases of a table of recipes, with as many seeds as wanted."""

    def cases(shared: Path | None, seeds: int) -> Iterator[Case]:
        del shared
        for row, recipe in rows.items():
            for seed in range(seeds):
                drawn = replace(recipe, seed=seed + seed_of(row))
                yield Case(row, seed, partial(simulate, drawn), repr(drawn))

    return cases


def seed_of(row: str) -> int:
    """The first seed of a row: rows do not share their noise."""
    return 100 * (zlib.crc32(row.encode()) % 1_000_000)


def sweep_cases(shared: Path | None, seeds: int) -> Iterator[Case]:
    """The eleven recordings of the reference's table."""
    del seeds
    if shared is None:
        return
    for row in sweep_rows(shared):
        name = f"{row['tau_ms']:g} ms, {row['amp']:g}"
        notes = {"miniml_f1": row["miniml_f1"], "ideal_f1": row["ideal_f1"]}
        about = json.dumps(row["recording"])
        yield Case(name, 0, partial(sweep_scene, shared, row), about, notes)


def real_cases(shared: Path | None, seeds: int) -> Iterator[Case]:
    """Simulated events in quiet stretches of real recordings; a seed is a sweep."""
    if shared is None:
        return
    for name, (_, sweeps) in REAL.items():
        for amplitude in AMPLITUDES_REAL:
            for sweep in range(min(2 * seeds, sweeps)):
                make = partial(real_scene, shared, name, sweep, amplitude)
                yield Case(f"{name}, {amplitude:g}", sweep, make, f"{name} {amplitude} v1")


def false_cases(shared: Path | None, seeds: int) -> Iterator[Case]:
    """Recordings without any event."""
    yield from simulated(FALSE)(shared, seeds)
    if shared:
        yield conformance_case(shared, "silence")
        for sweep in range(MODEL_SWEEPS):
            yield Case(MODEL_CELL, sweep, partial(model_cell, shared, sweep), MODEL_CELL)


def kinetics_cases(shared: Path | None, seeds: int) -> Iterator[Case]:
    """Recordings like those of granule cells, ours and the reference's."""
    yield from simulated(KINETICS)(shared, seeds)
    for name in ("gc_minis", "busy_calyx") if shared else ():
        yield conformance_case(shared, name)


def conformance_case(shared: Path | None, name: str) -> Case:
    """A reference recording as it is on file."""
    assert shared is not None
    make = partial(conformance_scene, shared, name)
    return Case(name, 0, make, f"{name} v1", on_record=(MINIML,))


def decays(tau_ms: float, **others: Any) -> Recipe:
    """A recording whose events decay so fast and rise five times as fast."""
    return Recipe(tau_decay_s=tau_ms / 1000, tau_rise_s=tau_ms / 5000, **others)


SNR = {f"{a:g}": Recipe(amplitude=a) for a in (1.5, 2, 3, 4, 6, 10)}
DECAY = {f"{ms:g}": decays(ms) for ms in (0.5, 1, 2, 5, 10, 20)}
RISE = {f"{ms:g}": Recipe(tau_rise_s=ms / 1000) for ms in (0.1, 0.2, 0.5, 1.0)}
RATE = {f"{hz:g}": Recipe(frequency_hz=hz, seconds=20) for hz in (0.5, 2, 5, 10, 20)}
OVERLAP = {
    f"{ms:g}": Recipe(pair_s=ms / 1000, amplitude=10, frequency_hz=2, seconds=20)
    for ms in (1, 1.5, 2, 3, 5, 7, 10)
}
CONDITIONS = {
    "plain": Recipe(),
    "30 artefacts a minute": Recipe(artefacts=30),
    "120 artefacts a minute": Recipe(artefacts=120),
    "drift of 1 SD": Recipe(rig=Rig(drift=1.0)),
    "drift of 5 SD": Recipe(rig=Rig(drift=5.0)),
    "hum of 0.5 SD": Recipe(rig=Rig(hum=0.5)),
    "hum of 2 SD": Recipe(rig=Rig(hum=2.0)),
}
SPECTRA = {
    "2.9 kHz Bessel": Recipe(),
    "1 kHz Bessel": Recipe(rig=Rig(cutoff_hz=1_000)),
    "10 kHz Bessel": Recipe(rig=Rig(cutoff_hz=10_000)),
    "1/f below 500 Hz": Recipe(rig=Rig(corner_hz=500)),
    "rising from 1 kHz": Recipe(rig=Rig(rising_hz=1_000)),
    "sharp end at 2.5 kHz": Recipe(rig=Rig(cutoff_hz=5_000, band_hz=2_500)),
}
RATES = {
    f"{khz:g} kHz": Recipe(rig=Rig(rate_hz=1000 * khz), seconds=20) for khz in (10, 20, 50, 100)
}
APART = {
    "Butterworth, 8 poles, 2 kHz": Recipe(rig=OtherRig(order=8, cutoff_hz=2_000)),
    "Gaussian, 1 kHz": Recipe(rig=OtherRig(family="gaussian", cutoff_hz=1_000)),
    "telegraph noise of 1.5 SD": Recipe(telegraph=1.5),
    "12.5 kHz": Recipe(rig=Rig(rate_hz=12_500)),
    "33.3 kHz": Recipe(rig=Rig(rate_hz=100_000 / 3)),
    "gamma amplitudes": Recipe(amplitudes="gamma"),
    "alpha functions": Recipe(shape="alpha"),
    "noise doubles slowly": Recipe(doubling="slowly"),
    "noise doubles at once": Recipe(doubling="at once"),
    "all of these": Recipe(
        rig=OtherRig(order=8, cutoff_hz=2_000, rate_hz=100_000 / 3),
        telegraph=1.5,
        amplitudes="gamma",
        shape="alpha",
        doubling="at once",
    ),
}
FALSE = {
    "no artefacts": Recipe(frequency_hz=0, seconds=60),
    "30 artefacts a minute": Recipe(frequency_hz=0, seconds=60, artefacts=30),
}
WINDOWS = {f"{ms:g}": decays(ms, seconds=20, frequency_hz=2) for ms in (0.5, 1, 2, 5, 10, 20)}
THRESHOLD = {"6": Recipe(seconds=20)}
KINETICS = {"simulated, 10": Recipe(amplitude=10, frequency_hz=2)}

PARTS = {
    "sweep": Part("F1 between miniML and the ideal observer", sweep_cases, judge),
    "snr": Part("Mean amplitude over noise SD (decay 1 ms)", simulated(SNR), judge),
    "decay": Part("Decay constant in ms (rise a fifth of it)", simulated(DECAY), judge),
    "rise": Part("Rise constant in ms (decay 1 ms)", simulated(RISE), judge),
    "rate": Part("Events a second", simulated(RATE), judge),
    "overlap": Part("Pairs so many ms apart (decay 1 ms)", simulated(OVERLAP), judge_pairs),
    "conditions": Part("Artefacts, drift and hum", simulated(CONDITIONS), judge),
    "spectra": Part("Noise spectra and filters", simulated(SPECTRA), judge),
    "rates": Part("Sampling rates", simulated(RATES), judge),
    "apart": Part("Unlike anything that a model was trained on", simulated(APART), judge),
    "real": Part("Events added to quiet stretches of real recordings", real_cases, judge),
    "false": Part("Recordings without events", false_cases, judge),
    "auto": Part(
        "Time scale found by itself, decay constant in ms", simulated(WINDOWS), judge_windows
    ),
    "threshold": Part("Threshold dependence", simulated(THRESHOLD), judge_thresholds),
    "kinetics": Part("Kinetics", kinetics_cases, judge_kinetics),
}

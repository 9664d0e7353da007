"""Scenes from the reference recordings beside the project: simulated ones, and real ones with
simulated events in their quiet stretches."""

from __future__ import annotations

import importlib.util
import json
import os
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from ideal import Spectrum, spectrum
from numpy.typing import NDArray
from scenes import (
    TOLERANCE_S,
    Floats,
    Known,
    Recipe,
    Scene,
    as_recorded,
    draw_amplitudes,
    draw_events,
    single,
    true_measures,
)

from quantal.readers import read
from quantal.simulate import Rig, add_at
from quantal.trace import Trace

REAL = {  # recording: what in each sweep is no synaptic event, and sweeps used
    "17o05026_vc_stim": (((0.10, 0.45), (1.10, 1.35)), 6),
    "171116sh_0020": (((0.0, 0.40),), 6),
    "05210017_vc_abf1": (((0.0, 0.12),), 6),
}
MODEL_CELL, MODEL_SWEEPS, MODEL_DECAY_S = "model_vc_step", 20, 20e-3 / 12
_ADDED_HZ = 10.0  # simulated events a second of quiet stretch
_SHORTEST_S = 0.04  # of a quiet stretch
_MARGIN_S = 0.005  # at its ends that are kept free of events
_QUIET_S = 60.0
_SEGMENT_S = 0.3
_THEIRS = {  # our measure: its name in the truth and in miniML's results, theirs in our unit
    "amplitude": ("amplitude", "amplitudes", 1.0),
    "rise_10_90_ms": ("rise_10_90_s", "risetimes_s", 1e3),
    "half_decay_ms": ("half_decay_s", "half_decays_s", 1e3),
    "half_width_ms": ("half_width_s", "halfwidths_s", 1e3),
    "area": ("area", "charges", 1.0),
}


def shared_folder() -> Path | None:
    """Where the reference recordings are: QUANTAL_SHARED, or shared/ beside the project."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("QUANTAL_SHARED", beside))
    return folder if folder.is_dir() else None


@cache
def recipe_of(shared: Path) -> ModuleType:
    """The program that made the reference recordings."""
    path = shared / "conformance" / "simulate.py"
    spec = importlib.util.spec_from_file_location("reference_simulate", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sweep_rows(shared: Path) -> list[dict[str, Any]]:
    """The recordings of the reference's table, and how miniML and the ideal observer did."""
    rows: list[dict[str, Any]] = json.loads((shared / "conformance" / "sweep.json").read_text())
    return rows


def sweep_scene(shared: Path, row: dict[str, Any]) -> Scene:
    """A recording of the table, made anew; events are to be found within 3 ms of their onsets."""
    settings = row["recording"]
    samples, truth = recipe_of(shared).recording(**settings)
    trace = Trace(samples=samples, rate_hz=settings["fs"], unit="pA", recording="sweep")
    return Scene(
        trace=trace,
        true_s=truth["onset_s"],
        tolerance_s=TOLERANCE_S,
        decay_s=settings["tau_decay"],
        **told(shared, settings),
        **true_events(shared, truth),
    )


def told(shared: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """What the ideal observer knows of a recording: its noise and its mean event."""
    program, rate_hz = recipe_of(shared), float(settings["fs"])
    shaping = {k: settings[k] for k in ("cutoff", "drift", "hum") if k in settings}
    n = round(_QUIET_S * rate_hz)
    quiet = program.noise(n, rate_hz, settings["sd_noise"], np.random.default_rng(12345), **shaping)
    rise_s, decay_s = settings["tau_rise"], settings["tau_decay"]
    return {
        "noise": spectrum([quiet], rate_hz, round(_SEGMENT_S * rate_hz)),
        "waveform": settings.get("direction", -1) * program.measured(rise_s, decay_s, rate_hz)[0],
        "steepest_s": steepest(program, rise_s, decay_s),
    }


def true_events(shared: Path, truth: dict[str, Floats]) -> dict[str, Any]:
    """True steepest rises and kinetics, in our names and units."""
    program = recipe_of(shared)
    steepest_s = [
        steepest(program, float(rise_s), float(decay_s))
        for rise_s, decay_s in zip(truth["tau_rise_s"], truth["tau_decay_s"], strict=True)
    ]
    return {
        "location_s": truth["onset_s"] + np.array(steepest_s),
        "measures": {ours: unit * truth[name] for ours, (name, _, unit) in _THEIRS.items()},
    }


def steepest(program: ModuleType, rise_s: float, decay_s: float, rate_hz: float = 1e6) -> float:
    """From an event's onset to its steepest rise as recorded (s)."""
    shape = program.biexponential(round((rise_s + 2e-3) * rate_hz), rate_hz, rise_s, decay_s)
    return float((np.diff(program.amplifier(shape, rate_hz)).argmax() + 0.5) / rate_hz)


def conformance_scene(shared: Path, name: str) -> Scene:
    """A reference recording as it is on file, with what miniML 1.1 found in it."""
    folder = shared / "conformance"
    settings = json.loads((folder / f"{name}.json").read_text())
    truth = dict(np.load(folder / f"{name}.truth.npz"))
    theirs = dict(np.load(folder / f"{name}.miniml.npz"))
    events = true_events(shared, truth)
    return Scene(
        trace=read(folder / f"{name}.abf")[0],
        true_s=events["location_s"],
        tolerance_s=TOLERANCE_S,
        decay_s=settings["tau_decay"],
        miniml=Known(
            location_s=theirs["event_locations"] / theirs["fs"],
            measures={
                ours: unit * theirs[name]
                for ours, (_, name, unit) in _THEIRS.items()
                if name in theirs
            },
        ),
        twin=None if settings["rate"] else (lambda: eventful(shared, settings)),
        **told(shared, settings),
        **events,
    )


def eventful(shared: Path, settings: dict[str, Any]) -> Scene:
    """A recording like an event-free one, with events in it."""
    samples, truth = recipe_of(shared).recording(**recipe_settings(settings), rate=2)
    return Scene(
        trace=Trace(samples=samples, rate_hz=settings["fs"], unit="pA"),
        true_s=truth["onset_s"],
        tolerance_s=TOLERANCE_S,
        decay_s=settings["tau_decay"],
        **told(shared, settings),
    )


def recipe_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """What a recording's program takes of a recording's settings, less the rate of events."""
    return {name: value for name, value in settings.items() if name not in ("unit", "rate")}


def model_cell(shared: Path, sweep: int) -> Scene:
    """A sweep of a cell made of a resistor and a capacitor: there is no event in it."""
    path = shared / "data" / "abf" / f"{MODEL_CELL}.abf"
    return Scene(
        trace=read(path)[sweep],
        true_s=np.empty(0),
        tolerance_s=TOLERANCE_S,
        decay_s=MODEL_DECAY_S,
    )


def real_scene(shared: Path, name: str, sweep: int, amplitude: float) -> Scene:
    """A real sweep with simulated events (amplitude in SD of its noise) in its quiet stretches.

    All else is excluded. Small real events may be left in what seems quiet; they count as false.
    """
    excluded, _ = REAL[name]
    trace = read(shared / "data" / "abf" / f"{name}.abf")[sweep].exclude(excluded)
    samples, rate_hz = trace.samples.astype(np.float64), trace.rate_hz
    quiet = quiet_stretches(trace)
    rng = np.random.default_rng(100 * sweep + round(amplitude))
    sd = float(np.median([samples[a:b].std() for a, b in quiet]))
    recipe = Recipe(rig=Rig(rate_hz=rate_hz), tau_rise_s=4e-4, tau_decay_s=2e-3)
    onsets = onsets_within(quiet, rate_hz, rng)
    sizes = amplitude * sd * draw_amplitudes("lognormal", len(onsets), rng)
    events = draw_events(recipe, len(onsets), rng)
    noise = quiet_spectrum(samples, quiet, rate_hz)
    for onset, size, event in zip(onsets, sizes, events, strict=True):
        add_at(samples, int(onset) - event.lead, -size * event.samples)
    edges = [0, *(edge for stretch in quiet for edge in stretch), len(samples)]
    times = trace.start_s + np.array(edges) / rate_hz
    mean = as_recorded(recipe.rig, recipe.tau_rise_s, recipe.tau_decay_s)
    location_s = trace.start_s + onsets / rate_hz + np.array([e.steepest_s for e in events])
    return Scene(
        trace=Trace(
            samples=single(samples),
            rate_hz=rate_hz,
            unit=trace.unit,
            start_s=trace.start_s,
            recording=name,
        ).exclude((a, b) for a, b in times.reshape(-1, 2).tolist() if b > a),
        true_s=location_s,
        tolerance_s=TOLERANCE_S,
        decay_s=recipe.tau_decay_s,
        location_s=location_s,
        measures=true_measures(-sizes, events),
        noise=noise,
        waveform=-mean.samples,
        lead=mean.lead,
        steepest_s=mean.steepest_s,
    )


def quiet_stretches(trace: Trace) -> list[tuple[int, int]]:
    """Stretches (samples) in which nothing stands out of the noise, by no detector's means.

    The trace is averaged over 1 ms, less its running median of 100 ms; what is beyond 3 robust SD
    is left out with 10 ms before and 25 ms after it.
    """
    from scipy.ndimage import binary_dilation, median_filter, uniform_filter1d

    ms = trace.rate_hz / 1000
    smooth = uniform_filter1d(trace.samples.astype(np.float64), round(ms))
    coarse = smooth[:: round(ms)]
    slow = median_filter(coarse, 101)
    left = smooth - np.interp(np.arange(len(smooth)), np.arange(len(coarse)) * round(ms), slow)
    wanted = trace.wanted()
    sd = 1.4826 * np.median(np.abs(left[wanted]))
    loud = (np.abs(left) > 3 * sd) | ~wanted
    reach = np.zeros(2 * round(25 * ms) + 1, np.bool_)
    reach[len(reach) // 2 - round(10 * ms) :] = True
    calm = ~binary_dilation(loud, structure=reach)
    edges = np.flatnonzero(np.diff(np.r_[0, calm.astype(int), 0])).reshape(-1, 2)
    shortest = _SHORTEST_S * trace.rate_hz
    return [(int(a), int(b)) for a, b in edges if b - a >= shortest]


def onsets_within(
    quiet: list[tuple[int, int]], rate_hz: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Onsets (samples) by chance in quiet stretches, 10 ms apart and away from their ends."""
    margin, apart = round(_MARGIN_S * rate_hz), round(0.01 * rate_hz)
    onsets: list[int] = []
    for first, last in quiet:
        count = rng.poisson(_ADDED_HZ * (last - first) / rate_hz)
        for onset in np.sort(rng.integers(first + margin, last - 2 * margin, count)):
            if not onsets or onset - onsets[-1] >= apart:
                onsets.append(int(onset))
    return np.array(onsets, np.int64)


def quiet_spectrum(samples: Floats, quiet: list[tuple[int, int]], rate_hz: float) -> Spectrum:
    """The spectrum of what is in the quiet stretches."""
    pieces = [samples[first:last] for first, last in quiet]
    return spectrum(pieces, rate_hz, round(_SHORTEST_S * rate_hz))

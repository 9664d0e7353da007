"""The main job on reference recordings: agreement with miniML, events found, kinetics.

    python benchmarks/conformance.py --shared ../shared [--model NAME|FOLDER] [--out FOLDER]

Needs the reference recordings and the trainer (to import the public miniML models). Writes
conformance.md and conformance.png for the default model, conformance_NAME for another.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quantal.detect import analyse, detect, settle
from quantal.events import Events, join
from quantal.model import Card, Model, load_model
from quantal.readers import read
from quantal.runtime import cores, open_session
from quantal.scan import Scores
from quantal.simulate import matched, record
from quantal.timescale import AUTO
from quantal.trace import Trace

Floats = NDArray[np.float64]

SIMULATED = {  # recording: window in ms, direction
    "gc_minis": (12.0, "negative"),
    "busy_calyx": (12.0, "negative"),
    "low_snr": (12.0, "negative"),
    "slow_golgi": (24.0, "negative"),
    "gc_epsp": (60.0, "positive"),
    "optical_minis": (600.0, "positive"),
    "silence": (12.0, "negative"),
}


@dataclass(frozen=True)
class Recording:
    """A real recording: the window that suits its events, and what in it is no synaptic event."""

    window_ms: float
    sweeps: str = "all"
    excluded: tuple[tuple[float, float], ...] = ()


REAL = {
    "17o05026_vc_stim": Recording(20, excluded=((0.10, 0.45), (1.10, 1.35))),
    "171116sh_0020": Recording(40, excluded=((0.0, 0.40),)),
    "18808025": Recording(20, excluded=((0.0, 0.03), (0.19, 0.24))),
    "05210017_vc_abf1": Recording(20, excluded=((0.0, 0.12),)),
    "17o05024_vc_steps": Recording(20),
    "model_vc_step": Recording(20),
}
PUBLIC = {  # miniML's models: name in the reference results, file
    "GC": "GC_lstm_model.h5",
    "GC_mEPSP": "GC_mEPSP.h5",
    "NMJ_GluRIIA": "NMJ_GluRIIA.h5",
    "NMJ_wt": "NMJ_wt.h5",
    "iGluSnFR": "iGluSnFR.h5",
    "zebrafish": "zebrafish.h5",
}
MEASURES = {  # measure: its name in the truth, in miniML's results, and our unit in theirs
    "amplitude": ("amplitude", "amplitudes", 1.0),
    "rise": ("rise_10_90_s", "risetimes_s", 1e-3),
    "half-decay": ("half_decay_s", "half_decays_s", 1e-3),
    "half-width": ("half_width_s", "halfwidths_s", 1e-3),
    "area": ("area", "charges", 1.0),
}
COLUMNS = {
    "amplitude": "amplitude",
    "rise": "rise_10_90_ms",
    "half-decay": "half_decay_ms",
    "half-width": "half_width_ms",
    "area": "area",
}


def main() -> None:
    """Run everything and write the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--model", default=None)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    model = load_model(options.model)
    public = import_public(options.shared, options.out / "miniml")
    found = {name: simulated(options.shared, name, model) for name in SIMULATED}
    lines = [
        "# Conformance",
        "",
        f"Model `{model.card.name}`, {cores()} cores, {platform.machine()}.",
        *f1_table(options.shared, found),
        *real_table(options.shared, model, public["GC"]),
        *kinetics_table(options.shared, found),
        *noise_table(model),
        *(windows_table(options.shared, model) if model.card.kind == "windows" else ()),
        *agreement_table(options.shared, public),
    ]
    options.out.mkdir(parents=True, exist_ok=True)
    name = "conformance" if options.model is None else f"conformance_{model.card.name}"
    (options.out / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    draw(options.shared, found, options.out / f"{name}.png")


def import_public(shared: Path, out: Path) -> dict[str, Model]:
    """The public miniML models by their names in the reference results, as model folders."""
    from quantal_trainer.export import export_model
    from quantal_trainer.importer import import_keras

    return {
        name: export_model(
            import_keras(shared / "miniml" / "models" / file),
            out / name,
            card=Card(name=name, polarity="negative", licence="MIT"),
        )
        for name, file in PUBLIC.items()
    }


def simulated(shared: Path, name: str, model: Model) -> Events:
    """The events of a simulated recording; a trace network is not told the window."""
    window_ms, direction = SIMULATED[name]
    trace = read(shared / "conformance" / f"{name}.abf")[0]
    told = AUTO if model.card.kind == "trace" else window_ms
    return detect(trace, model=model, window_ms=told, direction=direction)


def load(shared: Path, name: str, kind: str) -> dict[str, Floats]:
    """Truth or miniML's results of a simulated recording."""
    return dict(np.load(shared / "conformance" / f"{name}.{kind}.npz"))


def f1_table(shared: Path, found: dict[str, Events]) -> list[str]:
    """F1 against the truth, beside miniML's."""
    lines = [
        "",
        "## Events found in simulated recordings",
        "",
        "| recording | true | miniML 1.1: F1 (found, false) | this: F1 (found, false) |",
        "| --- | --- | --- | --- |",
    ]
    for name, events in found.items():
        truth, miniml = load(shared, name, "truth"), load(shared, name, "miniml")
        theirs = miniml["event_locations"] / miniml["fs"]
        cells = [
            "{:.3f} ({}, {})".format(*score(truth, name, located))
            for located in (theirs, events.location_s)
        ]
        lines.append(f"| {name} | {len(truth['onset_s'])} | {cells[0]} | {cells[1]} |")
    return lines


def score(truth: dict[str, Floats], name: str, located_s: Floats) -> tuple[float, int, int]:
    """F1 (nan without events), detections, and those that are near no true rise."""
    true_s = truth["onset_s"] + truth.get("peak_delay_s", 0.0) / 2
    tolerance_s = max(3e-3, 0.08e-3 * SIMULATED[name][0])
    hits = matched(true_s, located_s, tolerance_s=tolerance_s)
    f1 = 2 * hits / (len(true_s) + len(located_s)) if len(true_s) else np.nan
    return f1, len(located_s), len(located_s) - hits


def real_table(shared: Path, model: Model, reference: Model) -> list[str]:
    """What both models find in real recordings."""
    lines = [
        "",
        "## Real recordings, beside the imported miniML GC model (threshold 0.5)",
        "",
        "| recording, window | GC finds | this finds | of GC's | besides |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, recording in REAL.items():
        path = shared / "data" / "abf" / f"{name}.abf"
        n, ours, hits = compare(path, recording, reference, model)
        share = f"{hits / n:.2f} | {(ours - hits) / n:.2f}" if n else "- | -"
        row = f"| {name}, {recording.window_ms:g} ms | {n} | {ours} | {share} |"
        lines.append(row)
        print(row, flush=True)
    return lines


def compare(
    path: Path, recording: Recording, reference: Model, model: Model
) -> tuple[int, int, int]:
    """Events that the reference finds, that the model finds, and that both find, within 3 ms."""
    theirs, ours = (real(path, recording, m) for m in (reference, model))
    hits = sum(
        matched(
            theirs.location_s[theirs.sweep == sweep],
            ours.location_s[ours.sweep == sweep],
            tolerance_s=3e-3,
        )
        for sweep in np.unique(np.r_[theirs.sweep, ours.sweep])
    )
    return len(theirs), len(ours), hits


def real(path: Path, recording: Recording, model: Model) -> Events:
    """The inward events of a real recording, all sweeps together."""
    told = None if model.card.kind == "trace" else recording.window_ms
    traces = [t.exclude(recording.excluded) for t in read(path, sweeps=recording.sweeps)]
    return join(
        detect(trace, model=model, window_ms=told, direction="negative") for trace in traces
    )


def kinetics_table(shared: Path, found: dict[str, Events]) -> list[str]:
    """Median relative errors of the measures, signed; absolute."""
    lines = [
        "",
        "## Kinetics of the events that both found: median relative error (signed; absolute),"
        " miniML 1.1 / this",
        "",
        "| recording | " + " | ".join(MEASURES) + " |",
        "| --- |" + " --- |" * len(MEASURES),
    ]
    for name, events in found.items():
        truth, miniml = load(shared, name, "truth"), load(shared, name, "miniml")
        if "amplitudes" not in miniml or not len(truth["onset_s"]):
            continue
        cells = []
        for measure in MEASURES:
            theirs, ours = both_errors(truth, miniml, events, measure, name)
            cells.append(f"{summary(theirs)} / {summary(ours)}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def noise_table(model: Model, rigs: int = 60, seconds: float = 3.0) -> list[str]:
    """False events a minute in noise alone, of rigs drawn as widely as for training."""
    from quantal_trainer.simulated_traces import CROWDED, random_rig

    rng = np.random.default_rng(99)
    scores: list[Floats] = []
    for _ in range(rigs):
        rig = random_rig(rng, CROWDED)
        samples = record(np.zeros(round(seconds * rig.rate_hz)), rig, 1.0, rng)
        trace = Trace(samples=samples, rate_hz=rig.rate_hz, unit="pA")
        scores.append(detect(trace, model=model, window_ms=12.0).score)
    minutes = rigs * seconds / 60
    lines = [
        "",
        f"## Noise alone: {rigs} simulated rigs, {seconds:g} s each",
        "",
        "| threshold | false events a minute | rigs without any |",
        "| --- | --- | --- |",
    ]
    for threshold in (0.5, 0.7, 0.8, 0.9):
        counts = np.array([(score >= threshold).sum() for score in scores])
        lines.append(f"| {threshold} | {counts.sum() / minutes:.1f} | {(counts == 0).sum()} |")
    return lines


def windows_table(shared: Path, model: Model) -> list[str]:
    """How the model scores real windows that others have labelled, as they are and moved.

    Their events rise earlier than those that the model was trained on.
    """
    from quantal_trainer.dataset_files import read_dataset
    from quantal_trainer.evaluate import evaluate

    lines = [
        "",
        "## Real windows labelled for miniML (score 0 or 1)",
        "",
        "| file, windows | place | accuracy at the threshold for windows | at the best | AUC |",
        "| --- | --- | --- | --- | --- |",
    ]
    for path in sorted((shared / "miniml").glob("*_training_data.h5")):
        dataset = read_dataset(path, rate_hz=50_000.0, unit="pA")
        for place in ("as-is", "reference"):
            found, scored = evaluate(model, dataset, place=place)
            lines.append(
                f"| {path.stem}, {len(scored.labels)} | {place} | {100 * found.accuracy:.1f} % | "
                f"{100 * found.best_accuracy:.1f} % | {found.auc:.4f} |"
            )
    return lines


def agreement_table(shared: Path, public: dict[str, Model]) -> list[str]:
    """miniML's own models here and there: scores of real windows, dense scores, events."""
    with np.load(shared / "miniml" / "scores.npz") as file:
        stored = dict(file)
    worst = max(
        float(np.abs(open_session(m).run_windows(stored["windows"]) - stored[name]).max())
        for name, m in public.items()
    )
    lines = [
        "",
        "## miniML's own models, run here and by miniML 1.1",
        "",
        f"Scores of {len(stored['windows'])} real windows by its six models differ by at most "
        f"{worst:.1g}.",
        "",
        "| recording | model | largest difference of dense scores | of miniML's events | "
        "besides, and not true |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in SIMULATED:
        miniml = load(shared, name, "miniml")
        model = str(miniml["model"])
        cells = agreement(shared, name, miniml, public[model])
        lines.append(f"| {name} | {model} | " + " | ".join(cells) + " |")
    return lines


def agreement(
    shared: Path, name: str, miniml: dict[str, Floats], model: Model
) -> tuple[str, str, str]:
    """Difference of dense scores, share of miniML's events, share of false ones besides."""
    window_ms, direction = SIMULATED[name]
    trace = read(shared / "conformance" / f"{name}.abf")[0]
    settings = settle(model.card, window_ms=window_ms, direction=direction, method="dense")
    by_direction: dict[str, Scores] = {}
    events = analyse(trace, model, settings, kept=by_direction)
    scores = by_direction[direction]
    difference = "(resampled)"
    if scores.rate_hz == trace.rate_hz:
        theirs = miniml["scores_per_window"]
        first = (model.card.reference_sample - scores.first_sample) // scores.stride
        ours = scores.values[first : first + len(theirs)]
        difference = f"{np.abs(ours - theirs[: len(ours)]).max():.1g}"
    located = np.sort(miniml["event_locations"]) / miniml["fs"]
    tolerance_s = max(0.5e-3, 2.01 / trace.rate_hz, 0.02e-3 * window_ms)
    hits = matched(located, events.location_s, tolerance_s=tolerance_s)
    truth = load(shared, name, "truth")
    rise_s = truth["onset_s"] + truth.get("peak_delay_s", 0.0) / 2
    near_s = max(3e-3, 0.08e-3 * window_ms)
    besides = events.location_s[distance(events.location_s, located) > tolerance_s]
    false = besides[distance(besides, rise_s) > near_s]
    return difference, f"{hits / len(located):.3f}", f"{len(false) / len(located):.3f}"


def distance(times: Floats, others: Floats) -> Floats:
    """From each time to the nearest of the others; infinite where there are none."""
    return np.abs(times[:, None] - others[None, :]).min(axis=1, initial=np.inf)


def both_errors(
    truth: dict[str, Floats], miniml: dict[str, Floats], events: Events, measure: str, name: str
) -> tuple[Floats, Floats]:
    """Relative errors of miniML's and our measure, over the true events that both found."""
    true_name, their_name, unit = MEASURES[measure]
    true_s = truth["onset_s"] + truth["peak_delay_s"] / 2
    tolerance_s = max(3e-3, 0.08e-3 * SIMULATED[name][0])
    theirs = dict(nearest_pairs(true_s, miniml["event_locations"] / miniml["fs"], tolerance_s))
    ours = dict(nearest_pairs(true_s, events.location_s, tolerance_s))
    both = sorted(theirs.keys() & ours.keys())
    true = truth[true_name][both]
    values = getattr(events, COLUMNS[measure]) * unit
    return (
        relative(miniml[their_name][[theirs[i] for i in both]], true),
        relative(values[[ours[i] for i in both]], true),
    )


def relative(measured: Floats, true: Floats) -> Floats:
    """Errors in parts of the truth, positive where too large; those not measured left out."""
    errors = (measured - true) / true
    return errors[np.isfinite(errors)]


def nearest_pairs(true_s: Floats, found_s: Floats, tolerance_s: float) -> Iterable[tuple[int, int]]:
    """True and found times that are each other's nearest, within the tolerance."""
    if not len(found_s):
        return []
    distance = np.abs(true_s[:, None] - found_s[None, :])
    pairs = [(i, int(j)) for i, j in enumerate(distance.argmin(axis=1))]
    return [
        (i, j) for i, j in pairs if distance[i, j] <= tolerance_s and distance[:, j].argmin() == i
    ]


def summary(relative: Floats) -> str:
    """Median error and median absolute error."""
    return f"{np.median(relative):+.2f}; {np.median(np.abs(relative)):.2f}"


def draw(shared: Path, found: dict[str, Events], path: Path) -> None:
    """F1 of both by recording, and absolute errors of both by measure, as bars."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = [name for name in found if name != "silence"]
    truths = {name: load(shared, name, "truth") for name in names}
    minimls = {name: load(shared, name, "miniml") for name in names}
    measured = [name for name in names if "amplitudes" in minimls[name]]
    for which, label, colour in ((0, "miniML 1.1", "#999999"), (1, "quantal", "#0072b2")):
        shift = 0.4 * which - 0.2
        located = [
            found[n].location_s if which else minimls[n]["event_locations"] / minimls[n]["fs"]
            for n in names
        ]
        scores = [score(truths[n], n, at)[0] for n, at in zip(names, located, strict=True)]
        left.bar(np.arange(len(names)) + shift, scores, 0.4, label=label, color=colour)
        pooled = [
            np.concatenate(
                [both_errors(truths[n], minimls[n], found[n], m, n)[which] for n in measured]
            )
            for m in MEASURES
        ]
        medians = [np.median(np.abs(errors)) for errors in pooled]
        right.bar(np.arange(len(MEASURES)) + shift, medians, 0.4, color=colour)
    left.set_xticks(range(len(names)), names, rotation=30, ha="right")
    left.set_ylabel("F1 against the truth")
    right.set_xticks(range(len(MEASURES)), list(MEASURES))
    right.set_ylabel("median absolute relative error")
    figure.legend(frameon=False, ncols=2, loc="outside upper center")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()

"""Training on a lab's own windows: transfer against full training, and how many windows it takes.

    python benchmarks/training.py [--parts speed,transfer,size] [--model NAME|FOLDER] [--out FOLDER]

Everything is simulated: three preparations unlike the base's, each with two amplitudes of noise.
Networks are compared on windows of other cells, and on whole recordings of known truth. Results
are kept in training.json, so that parts can be run one by one and a run that was interrupted goes
on; delete it to begin anew. training.md and training.png show what is there; the curve over the
number of windows is for the usual noise. All parts take more than an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from quantal.detect import detect
from quantal.model import Model, load_model
from quantal.runtime import cores
from quantal.simulate import matched
from quantal_trainer.datasets import Dataset
from quantal_trainer.evaluate import evaluate
from quantal_trainer.fit import SCHEDULES
from quantal_trainer.preparations import (
    PREPARATIONS,
    Preparation,
    simulate_cells,
    simulate_dataset,
)
from quantal_trainer.train import Plan, train
from quantal_trainer.transfer import TRANSFER

Results = dict[str, Any]

NOISES = (1.0, 2.0)  # times the preparation's own
NAMES = ("epsp", "optical", "nmj")
TRANSFER_SIZES = (50, 100, 200, 400, 1_000, 4_000)
FULL = 4_000
SIZES = (500, 1_000, 2_000, 5_000, 10_000, 30_000)
FEW = 400  # windows that are compared with the full training
REPEATS = 2  # of trainings on so few, drawn anew
STEPS = 1_000  # at least, in a full training, however few the windows
SIZE_STEPS = 2_500  # in each training of the curve over the number of windows
SECONDS = {"epsp": 100.0, "optical": 600.0, "nmj": 60.0}  # of each of four recordings


def main() -> None:
    """Run the parts that are asked for and write table and picture of all that is there."""
    parts = {"speed": speed, "transfer": transfer, "size": size}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default=",".join(parts), help="some of speed,transfer,size")
    parser.add_argument("--model", default="cnn-lstm", help="base of the transfer")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--note", help="kept with the results, such as what else the machine did")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    kept = options.out / "training.json"
    results: Results = json.loads(kept.read_text()) if kept.is_file() else {}
    if options.note:
        results["note"] = options.note
    for name in filter(None, options.parts.split(",")):
        for found in parts[name](options.model, results.get(name)):  # a little more each time
            results[name] = found
            results["machine"] = f"{cores()} cores, {platform.machine()}"
            kept.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    about = f"{results['machine']}. {results.get('note', '')}".strip()
    text = "\n".join(["# Training", "", about, *tables(results)]) + "\n"
    (options.out / "training.md").write_text(text, encoding="utf-8")
    print(text)
    draw(results, options.out / "training.png")


def prepared(name: str, noise: float) -> Preparation:
    """A preparation with so many times its usual noise."""
    usual = PREPARATIONS[name]
    return replace(usual, noise_sd=noise * usual.noise_sd)


def some(dataset: Dataset, count: int, seed: int) -> Dataset:
    """This many windows by chance, of all cells."""
    return dataset[np.sort(np.random.default_rng(seed).permutation(len(dataset))[:count])]


def full_plan(count: int) -> Plan:
    """A full training: the short schedule, longer where windows are few."""
    short = SCHEDULES["short"]
    return _plan(max(round(STEPS * short.batch / (0.75 * count)), short.epochs))


def equal_plan(count: int) -> Plan:
    """A full training of so many steps whatever the number of windows; the best epoch is kept."""
    short = SCHEDULES["short"]
    return _plan(max(round(SIZE_STEPS * short.batch / (0.75 * count)), 1))


def _plan(epochs: int) -> Plan:
    return Plan(settings=replace(SCHEDULES["short"], epochs=epochs, patience=epochs))


def trained(dataset: Dataset, plan: Plan, scratch: Path) -> tuple[Model, float]:
    """A model and the seconds that it took."""
    begin = time.perf_counter()
    model = train(dataset, scratch / "model", plan).model
    return model, time.perf_counter() - begin


def f1(model: Model, preparation: Preparation, seed: int, **told: Any) -> float:
    """F1 of detection in four recordings of other cells; what is not told is the model's own."""
    hits = found = true = 0
    tolerance_s = max(3e-3, 0.08e-3 * preparation.window_ms)
    seconds = SECONDS[preparation.name]
    for trace, truth in simulate_cells(preparation, cells=4, seconds=seconds, seed=seed):
        events = detect(trace, model=model, **told)
        hits += matched(truth.onset_s, events.location_s, tolerance_s=tolerance_s)
        found, true = found + len(events), true + len(truth.onset_s)
    return 2 * hits / (found + true)


def speed(base: str, known: Results | None) -> Iterator[Results]:
    """Seconds of a transfer with 400 windows, and of a full training with 30,000."""
    if known:
        yield known
        return
    few = some(simulate_dataset(PREPARATIONS["nmj"], windows=4_000, seed=1), 400, seed=0)
    many = simulate_dataset(PREPARATIONS["mepsc"], windows=30_000, cells=16, seed=2)
    with tempfile.TemporaryDirectory() as folder:
        quick = [
            trained(few, Plan(base=base, settings=replace(TRANSFER, seed=s)), Path(folder))[1]
            for s in range(3)
        ]
        full = trained(many, Plan(settings=SCHEDULES["short"]), Path(folder))[1]
    yield {"transfer_400_s": quick, "full_30000_s": full}


def transfer(base: str, known: list[Results] | None) -> Iterator[list[Results]]:
    """Transfer with few and many windows beside full training, for every preparation."""
    rows = list(known or [])
    done = {(row["preparation"], row["noise"]) for row in rows}
    for noise in NOISES:
        for name in NAMES:
            if (name, noise) in done:
                continue
            preparation = prepared(name, noise)
            pool = simulate_dataset(preparation, windows=FULL, seed=1)
            test = simulate_dataset(preparation, windows=2_000, seed=100)
            row: Results = {"preparation": name, "noise": noise, "transfer": []}
            untouched = load_model(base)
            direction = "positive" if preparation.amplitude > 0 else "negative"
            told = {"window_ms": preparation.window_ms, "direction": direction}
            row["base"] = score(untouched, test, preparation, **told)
            with tempfile.TemporaryDirectory() as folder:
                model, seconds = trained(pool, full_plan(FULL), Path(folder))
                row["full"] = {**score(model, test, preparation), "seconds": seconds}
                for count in TRANSFER_SIZES if noise == NOISES[0] else (FEW,):
                    for seed in range(REPEATS if count == FEW else 1):
                        plan = Plan(base=base, settings=replace(TRANSFER, seed=seed))
                        model, seconds = trained(some(pool, count, seed), plan, Path(folder))
                        found: Results = {"accuracy": evaluate(model, test)[0].accuracy}
                        if count == FEW:
                            found["f1"] = f1(model, preparation, seed=200)
                        row["transfer"].append({"windows": count, "seconds": seconds, **found})
            rows.append(row)
            print(json.dumps(row), flush=True)
            yield rows


def score(model: Model, test: Dataset, preparation: Preparation, **told: Any) -> Results:
    """Accuracy on the windows of other cells, and F1 of detection."""
    return {
        "accuracy": evaluate(model, test)[0].accuracy,
        "f1": f1(model, preparation, seed=200, **told),
    }


def size(base: str, known: list[Results] | None) -> Iterator[list[Results]]:
    """Accuracy of trainings of equal length over the number of windows."""
    del base
    preparation = PREPARATIONS["mepsc"]
    pool = simulate_dataset(preparation, windows=max(SIZES), cells=16, seed=2)
    test = simulate_dataset(preparation, windows=4_000, seed=101)
    rows = list(known or [])
    done = {row["windows"] for row in rows}
    with tempfile.TemporaryDirectory() as folder:
        for count in SIZES:
            if count in done:
                continue
            model, seconds = trained(some(pool, count, 0), equal_plan(count), Path(folder))
            accuracy = evaluate(model, test)[0].accuracy
            rows.append({"windows": count, "accuracy": accuracy, "seconds": seconds})
            print(rows[-1], flush=True)
            yield sorted(rows, key=lambda row: row["windows"])


# What is shown -----------------------------------------------------------------------------------


def at(row: Results, count: int, what: str) -> list[float]:
    """What the repeats of a transfer with this many windows gave."""
    return [one[what] for one in row["transfer"] if one["windows"] == count]


def sizes_of(rows: list[Results]) -> list[int]:
    """The numbers of windows that preparations were transferred with."""
    return sorted({one["windows"] for row in rows for one in row["transfer"]})


def label(row: Results) -> str:
    """A preparation and its noise in a word."""
    return f"{row['preparation']}, noise x{row['noise']:g}"


def tables(results: Results) -> list[str]:
    """All tables of what is there, as lines of Markdown."""
    lines: list[str] = []
    if "speed" in results:
        lines += speed_table(results["speed"])
    if "transfer" in results:
        lines += transfer_table(results["transfer"])
    if "size" in results:
        lines += size_table(results["size"])
    return lines


def speed_table(found: Results) -> list[str]:
    """Seconds of training."""
    return [
        "",
        "## Time",
        "",
        "| training | seconds |",
        "| --- | --- |",
        f"| transfer, 400 windows (median of 3) | {np.median(found['transfer_400_s']):.0f} |",
        f"| full, 30,000 windows, 16 epochs (the short schedule) | {found['full_30000_s']:.0f} |",
    ]


def transfer_table(rows: list[Results]) -> list[str]:
    """Transfer with 400 windows beside full training with 4,000."""
    lines = [
        "",
        f"## Transfer with {FEW} windows (mean of {REPEATS}), full training with {FULL:,}",
        "",
        "| preparation | accuracy: base, transfer, full | F1: base, transfer, full | "
        "points lost | F1 lost |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        accuracy, f1_found = (float(np.mean(at(row, FEW, w))) for w in ("accuracy", "f1"))
        base, full = row["base"], row["full"]
        lines.append(
            f"| {label(row)} | {100 * base['accuracy']:.1f}, {100 * accuracy:.1f}, "
            f"{100 * full['accuracy']:.1f} % | {base['f1']:.3f}, {f1_found:.3f}, "
            f"{full['f1']:.3f} | {100 * (full['accuracy'] - accuracy):+.1f} | "
            f"{full['f1'] - f1_found:+.3f} |"
        )
    sizes = sizes_of(rows)
    counts = " | ".join(f"{count:,}" for count in sizes)
    lines += ["", "Accuracy (%) of transfer by number of windows:", ""]
    lines += [f"| preparation | {counts} |", "| --- |" + " --- |" * len(sizes)]
    for row in rows:
        if row["noise"] != NOISES[0]:
            continue
        cells = [f"{100 * np.mean(at(row, count, 'accuracy')):.1f}" for count in sizes]
        lines.append(f"| {label(row)} | " + " | ".join(cells) + " |")
    return lines


def size_table(rows: list[Results]) -> list[str]:
    """Full training over the number of windows."""
    return [
        "",
        f"## Accuracy over the number of windows (mepsc, {SIZE_STEPS:,} steps of 64 each)",
        "",
        "| windows | accuracy | seconds |",
        "| --- | --- | --- |",
        *(
            f"| {row['windows']:,} | {100 * row['accuracy']:.2f} % | {row['seconds']:.0f} |"
            for row in rows
        ),
    ]


def draw(results: Results, path: Path) -> None:
    """Accuracy over windows: transfer of every preparation, and full training."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    rows = results.get("transfer", [])
    for row in rows:
        colour = f"C{NAMES.index(row['preparation'])}"
        style = "-" if row["noise"] == NOISES[0] else "--"
        mine = sizes_of([row])
        means = [100 * np.mean(at(row, count, "accuracy")) for count in mine]
        left.plot(mine, means, style, marker="o", ms=3, color=colour, label=label(row))
        fill = colour if style == "-" else "none"
        left.plot(1.25 * FULL, 100 * row["full"]["accuracy"], "s", ms=6, color=colour, mfc=fill)
    places = np.arange(len(rows))
    kinds = {
        "base": [row["base"]["f1"] for row in rows],
        f"transfer, {FEW} windows": [float(np.mean(at(row, FEW, "f1"))) for row in rows],
        f"full training, {FULL:,}": [row["full"]["f1"] for row in rows],
    }
    for k, (kind, values) in enumerate(kinds.items()):
        right.bar(places + 0.27 * (k - 1), values, 0.27, label=kind)
    right.set_xticks(places, [label(row) for row in rows], rotation=30, ha="right", fontsize=8)
    right.set_ylim(0, 1.15)
    right.legend(fontsize=8, frameon=False, loc="upper center", ncols=3)
    if "size" in results:
        counts, accuracies = zip(
            *((row["windows"], 100 * row["accuracy"]) for row in results["size"]), strict=True
        )
        left.plot(counts, accuracies, "k-s", ms=4, label="mepsc, full training")
    left.set_ylabel("accuracy on other cells (%)")
    right.set_ylabel("F1 of detection")
    left.set_xscale("log")
    left.set_xlabel("labelled windows (lines: transfer; squares: full training)")
    left.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()

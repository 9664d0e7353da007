"""Imaging: how fast thousands of ROIs are searched, and how well glutamate events are found.

    python benchmarks/rois.py [--parts speed,accuracy,keras] [--rois 1500] [--threads 1,2]
                               [--out FOLDER]

Results are written to rois.md in FOLDER (benchmarks/results), which shows those of an earlier run
for parts that are not run. Run it alone on the machine: what else was running is told. Every
command of `speed` is a process of its own, from start to written files; of five the one of median
time is shown. `keras` needs the train extra.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rows import Row, table

import quantal
from quantal.imaging import Rois
from quantal.model import load_model
from quantal.runtime import cores, processor
from quantal.scan import on_grid
from quantal.simulate import Rig, add_at, matched, record
from quantal.windows import cut_windows

SECONDS, RATE_HZ, EVENTS_HZ = 60.0, 100.0, 0.1
TAU_RISE_S, TAU_DECAY_S = 0.012, 0.06  # of the optical recording of the conformance set
TOLERANCE_S = 0.05
MODELS = ("minis", "optical-minis")
PEAKS = (3.0, 5.0, 7.0, 10.0)
NOISES = {
    "white": Rig(rate_hz=RATE_HZ, cutoff_hz=45.0, hum=0.0, drift=0.1),
    "white, with 1/f below 1 Hz and drift": Rig(
        rate_hz=RATE_HZ, cutoff_hz=200.0, corner_hz=1.0, hum=0.0, drift=0.5
    ),
}
_GAP_S, _FINE = 0.2, 20  # between events; parts of a frame
_RUNS = 5


def main() -> None:
    """Measure the parts asked for and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default="speed,accuracy")
    parser.add_argument("--rois", type=int, default=1_500)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    kept = options.out / "rois.json"
    results: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    for part in filter(None, options.parts.split(",")):
        load = os.getloadavg()[0]
        rows = list(PARTS[part](options.rois, [int(n) for n in options.threads.split(",")]))
        results[part] = {
            "machine": f"{processor()}, {cores()} cores",
            "load": load,
            "rows": rows,
        }
        kept.write_text(json.dumps(results, indent=1), encoding="utf-8")
    text = tables(results)
    (options.out / "rois.md").write_text(text, encoding="utf-8")
    print(text)


# Simulated imaging -------------------------------------------------------------------------------


def simulate(
    count: int, peak: float, rig: Rig, *, scattered: bool, seed: int = 0
) -> tuple[Rois, list[np.ndarray]]:
    """ROIs whose noise has SD 1, and when their events begin (s).

    An event is what a camera makes of rise and decay: means over frames, its largest one `peak`
    high, or with `scattered` on average (log-normal, as of the paper's benchmark). Decays scatter
    by a quarter, rises by a tenth.
    """
    rows, truth = [], []
    for k in range(count):
        rng = np.random.default_rng([seed, k])
        onset_s = np.sort(rng.uniform(1, SECONDS - 1, rng.poisson(EVENTS_HZ * SECONDS)))
        onset_s = onset_s[np.diff(onset_s, prepend=-np.inf) > _GAP_S]
        sigma = np.sqrt(np.log(1.4)) if scattered else 0.0
        sizes = peak * rng.lognormal(-(sigma**2) / 2, sigma, len(onset_s))
        clean = np.zeros(round(SECONDS * RATE_HZ))
        for start_s, size in zip(onset_s, sizes, strict=True):
            decay = TAU_DECAY_S * max(rng.normal(1, 0.25), 0.3)
            rise = TAU_RISE_S * max(rng.normal(1, 0.1), 0.3)
            add_at(clean, int(start_s * RATE_HZ), size * in_frames(start_s, rise, decay))
        rows.append(record(clean, rig, 1.0, rng))
        truth.append(onset_s)
    return Rois(samples=np.stack(rows), rate_hz=RATE_HZ, kind="dff", recording="field"), truth


def in_frames(start_s: float, tau_rise_s: float, tau_decay_s: float) -> np.ndarray:
    """An event of unit peak as frames see it, from the frame in which it begins."""
    first = int(start_s * RATE_HZ)
    frames = round(12 * tau_decay_s * RATE_HZ)
    t = (first + np.arange(frames * _FINE) / _FINE) / RATE_HZ - start_s
    shape = np.where(t > 0, -np.expm1(-np.maximum(t, 0) / tau_rise_s), 0) * np.exp(-t / tau_decay_s)
    means = shape.reshape(frames, _FINE).mean(axis=1)
    return np.asarray(means / means.max())


# Parts -------------------------------------------------------------------------------------------


def speed(count: int, threads: list[int]) -> Iterator[Row]:
    """The whole command, start to files: dF/F with a given window, and raw with one to be read."""
    with tempfile.TemporaryDirectory() as folder:
        rois, _ = simulate(count, 5.0, NOISES["white"], scattered=False)
        dff = 0.05 * rois.samples  # a noise SD of 5 %
        np.save(f"{folder}/dff.npy", dff)
        np.save(f"{folder}/raw.npy", 400 * (1 + dff))
        for name, given in {
            "dF/F, --window-ms 600": ("dff.npy", "--input", "dff", "--window-ms", "600"),
            "raw, window read from the ROIs": ("raw.npy", "--input", "raw"),
        }.items():
            for n in threads:
                options = (*given, "--rois-in", "rows", "--rate-hz", f"{RATE_HZ:g}", "--quiet")
                words = (*options, "--threads", str(n), "--out", f"{folder}/out")
                runs = [command(folder, *words) for _ in range(_RUNS)]
                median = sorted(runs, key=lambda run: run["seconds"])[_RUNS // 2]
                yield {"input": name, "ROIs": count, "threads": n, **median}


def command(folder: str, *words: str) -> Row:
    """Run `quantal rois` in a process of its own: wall and processor seconds, memory, speed."""
    code = "from quantal.cli import main; main()"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, "rois", *words], cwd=folder, check=True)
    seconds = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    summary = json.loads(next(Path(folder, "out").glob("*.summary.json")).read_text())
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "events": summary["events"],
        "seconds": seconds,
        "processor seconds": busy,
        "peak memory, MB": after.ru_maxrss / 1e3,
        "ROI x seconds per second": summary["analysed_s"] / seconds,
        "and per processor second": summary["analysed_s"] / busy,
    }


def accuracy(count: int, threads: list[int]) -> Iterator[Row]:
    """F1 over 150 ROIs, by noise and by the height of events, in noise SDs."""
    del count
    for noise, rig in NOISES.items():
        for scattered in (False, True):
            for peak in PEAKS:
                rois, truth = simulate(150, peak, rig, scattered=scattered, seed=1)
                row: Row = {
                    "noise": noise,
                    "dF/F peak / noise SD": f"{peak:g} on average" if scattered else f"{peak:g}",
                    "true": sum(map(len, truth)),
                }
                for model in MODELS:
                    row |= judged(rois, truth, model, max(threads))
                yield row


def judged(rois: Rois, truth: list[np.ndarray], model: str, threads: int) -> Row:
    """What a model finds, what of it is false, and F1."""
    events = quantal.detect_rois(rois, model=model, window_ms=600, threads=threads)
    hits = sum(
        matched(onset_s, events.location_s[events.roi == k], tolerance_s=TOLERANCE_S)
        for k, onset_s in enumerate(truth)
    )
    return {
        f"{model} found": hits,
        f"{model} false": len(events) - hits,
        f"{model} F1": 2 * hits / (sum(map(len, truth)) + len(events)),
    }


def keras(count: int, threads: list[int]) -> Iterator[Row]:
    """A few ROIs one after the other, as a Keras network of the paper scores them."""
    from quantal_trainer.restore import base_network

    del threads
    some = max(count // 300, 2)
    rois, _ = simulate(some, 5.0, NOISES["white"], scattered=False)
    network, card = base_network("cnn-lstm")
    scored = 0
    busy, begin = time.process_time(), time.perf_counter()
    for row in range(some):
        grid = on_grid(rois.trace(row), card, round(0.6 * RATE_HZ), 1)
        number = len(grid.samples) // card.stride
        windows, _ = cut_windows(grid.samples, 0, card.stride, number, card.window_samples)
        network.predict(windows[:, :, None], batch_size=128, verbose=0)
        scored += number
    seconds, busy = time.perf_counter() - begin, time.process_time() - busy
    yield {
        "ROIs": some,
        "windows": scored,
        "seconds": seconds,
        "processor seconds": busy,
        "ROI x seconds per second": some * SECONDS / seconds,
        "and per processor second": some * SECONDS / busy,
    }
    begin, busy = time.perf_counter(), time.process_time()
    quantal.detect_rois(rois, model=load_model("cnn-lstm"), window_ms=600)
    seconds, busy = time.perf_counter() - begin, time.process_time() - busy
    yield {
        "ROIs": f"{some}, quantal with cnn-lstm, measured too",
        "windows": scored,
        "seconds": seconds,
        "processor seconds": busy,
        "ROI x seconds per second": some * SECONDS / seconds,
        "and per processor second": some * SECONDS / busy,
    }


PARTS = {"speed": speed, "accuracy": accuracy, "keras": keras}
_TITLES = {
    "speed": "`quantal rois` with `minis`, from its start to the written files",
    "accuracy": "Simulated glutamate events, by model (window 600 ms, threshold 0.5)",
    "keras": "One ROI after the other, scored by the paper's network in Keras",
}


def tables(results: dict[str, Any]) -> str:
    """All parts that have been run, as Markdown."""
    parts = [
        "# Imaging\n",
        f"ROIs of {SECONDS:g} s at {RATE_HZ:g} Hz with {EVENTS_HZ:g} events/s each, decay "
        f"{1e3 * TAU_DECAY_S:g} ms, rise {1e3 * TAU_RISE_S:g} ms, averaged over frames.\n",
    ]
    for name, title in _TITLES.items():
        if name in results:
            one = results[name]
            parts.append(f"## {title}\n")
            parts.append(
                f"{one['machine']}; {one['load']:.1f} other processes wanted a core as it began.\n"
            )
            parts.append("\n".join(table(one["rows"])) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    main()

"""How fast events are found and measured, beside Keras and the machine's own limits.

    python benchmarks/throughput.py [--parts rates,keras,threads,kernels,durations,start]
                                    [--models minis,cnn-lstm] [--runs 5] [--out FOLDER]

Run it alone on the machine. Every figure is the median of several runs in a warm process, except
where a process is started for each (durations, start). Parts that are not run keep the figures of
an earlier run; throughput.md and throughput.png show them all. `keras` needs the train extra.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rows import Row, table

import quantal
from quantal.filters import resample
from quantal.kinetics import measure
from quantal.locate import slope_weights, steepest_rises
from quantal.model import load_model
from quantal.noise import scaled
from quantal.report import blank, save_figure
from quantal.runtime import cores, open_session, processor
from quantal.simulate import simulate_recording
from quantal.trace import Trace
from quantal.windows import cut_windows

SECONDS, RATE_HZ = 120.0, 50_000.0
EVENTS_HZ = (0.1, 0.7, 5.0, 10.0, 20.0)
DURATIONS_S = (10, 60, 600, 3_600, 7_200)
_SLOW_HZ = (0.7, 10.0)  # event rates at which models that read windows are timed
_SAMPLE = 20_000  # windows that Keras scores; its time grows with their number


def main() -> None:
    """Measure the parts asked for and write the tables and the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--models", default="minis,cnn-lstm")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    kept = options.out / "throughput.json"
    results: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    for part in filter(None, options.parts.split(",")):
        rows = PARTS[part](options.models.split(","), options.runs)
        results[part] = {"machine": f"{processor()}, {cores()} cores", "rows": rows}
        kept.write_text(json.dumps(results, indent=1), encoding="utf-8")
    text = tables(results)
    (options.out / "throughput.md").write_text(text, encoding="utf-8")
    draw(results, options.out / "throughput.png")
    print(text)


def timed(runs: int, work: Callable[..., Any], *given: Any, **named: Any) -> float:
    """Median seconds of some runs after one that warms up."""
    work(*given, **named)
    taken = []
    for _ in range(runs):
        begin = time.perf_counter()
        work(*given, **named)
        taken.append(time.perf_counter() - begin)
    return median(taken)


def recording(seconds: float = SECONDS, events_hz: float = 0.7) -> Trace:
    """A recording at 50 kHz with events of 1 ms decay, 12 noise SD high."""
    trace, _ = simulate_recording(seconds=seconds, frequency_hz=events_hz, seed=7)
    return trace


# Parts -------------------------------------------------------------------------------------------


def rates(models: list[str], runs: int) -> list[Row]:
    """Detection in two minutes of recording, by how many events there are."""
    rows = []
    for events_hz in EVENTS_HZ:
        trace = recording(events_hz=events_hz)
        for name in models:
            model = load_model(name)
            if model.card.kind == "windows" and events_hz not in _SLOW_HZ:
                continue
            seconds = timed(runs, quantal.detect, trace, model=model)
            rows.append(
                {
                    "model": name,
                    "events/s": events_hz,
                    "found": len(quantal.detect(trace, model=model)),
                    "seconds": seconds,
                    "times real time": SECONDS / seconds,
                }
            )
    return rows


def keras(models: list[str], runs: int) -> list[Row]:
    """What Keras takes for the same windows as a dense scan, and how detection compares."""
    import tensorflow as tf

    from quantal_trainer.restore import base_network

    rows = []
    network, card = base_network("cnn-lstm")
    for events_hz in _SLOW_HZ:
        trace = recording(events_hz=events_hz)
        samples = -trace.samples
        count = len(samples) // card.stride
        windows, _ = cut_windows(samples, 0, len(samples) // _SAMPLE, _SAMPLE, card.window_samples)
        batched = windows[:, :, None]
        graph = tf.function(network, jit_compile=False)
        scale = count / len(windows)
        predict = scale * timed(runs, network.predict, batched, batch_size=128, verbose=0)
        function = scale * timed(runs, by_graph, graph, batched)
        session = open_session(load_model("cnn-lstm"), "cpu")
        dense = scale * timed(runs, session.run_windows, windows)
        for name in models:
            detection = timed(runs, quantal.detect, trace, model=name)
            rows.append(
                {
                    "model": name,
                    "events/s": events_hz,
                    "Keras predict, s": predict,
                    "tf.function, s": function,
                    "ONNX Runtime, all windows, s": dense,
                    "detect, s": detection,
                    "predict / detect": predict / detection,
                }
            )
    return rows


def by_graph(graph: Any, windows: Any) -> None:
    """All windows through a compiled function, in batches."""
    for first in range(0, len(windows), 128):
        graph(windows[first : first + 128], training=False)


def threads(models: list[str], runs: int) -> list[Row]:
    """Detection with one thread and with all, and the network beside the machine's peak."""
    trace = recording()
    rows = []
    for name in models:
        model = load_model(name)
        if model.card.kind == "windows":
            continue
        for number in sorted({1, cores()}):
            seconds = timed(runs, quantal.detect, trace, model=model, threads=number)
            rows.append({"model": name, "threads": number, "seconds": seconds})
        peak = peak_multiply_adds(runs)
        needed = multiply_adds(name) * len(trace) * model.card.rate_hz / trace.rate_hz
        for row in rows[-len({1, cores()}) :]:
            row["10^9 multiply-adds"] = needed / 1e9
            row["times the time at the machine's peak"] = row["seconds"] / (
                needed / (peak * row["threads"] / cores())
            )
    return rows


def kernels(models: list[str], runs: int) -> list[Row]:
    """The steps of a detection with the first model that reads traces, one by one, one thread."""
    name = next(name for name in models if load_model(name).card.kind == "trace")
    model = load_model(name)
    trace = recording(events_hz=10.0)
    upward = -trace.samples
    grid = resample(upward, model.card.window_samples, 600)
    block = scaled(grid)[None, :32_000]
    session = open_session(model, "cpu", 1)
    location = np.rint(quantal.detect(trace, model=model).location_s * trace.rate_hz)
    at = np.unique(location.astype(np.int64))
    weights = slope_weights(600)

    def locate_and_measure() -> None:
        steepest_rises(upward, weights, at - 60, at + 60)
        measure(upward, trace.rate_hz, at, 600)

    steps: dict[str, tuple[float, str, float]] = {
        "resample": (timed(runs, resample, upward, 300, 600), "samples", len(upward)),
        "scale": (timed(runs, scaled, grid), "samples", len(grid)),
        "network": (timed(runs, session.run, block), "samples", block.size),
        "locate and measure": (timed(runs, locate_and_measure), "events", len(at)),
    }
    rows = []
    for step, (seconds, unit, size) in steps.items():
        rows.append({"step": step, "seconds": seconds, "per second": size / seconds, "of": unit})
    return rows


def durations(models: list[str], runs: int) -> list[Row]:
    """Time and memory by length, each in a process of its own."""
    name = next(name for name in models if load_model(name).card.kind == "trace")
    rows = []
    for seconds in DURATIONS_S:
        found = [json.loads(_process(_ONE_DURATION, str(seconds), name)) for _ in range(runs)]
        rows.append(sorted(found, key=lambda row: row["seconds"])[runs // 2])
    return rows


def start(models: list[str], runs: int) -> list[Row]:
    """Commands from the shell: seconds until they are done, and their peak memory."""
    commands = {
        "quantal --help": ["--help"],
        "quantal detect, 10 s": ["detect", "short.h5", "--quiet"],
        "quantal detect, 10 s, no picture": ["detect", "short.h5", "--quiet", "--no-picture"],
        "quantal detect, 120 s": ["detect", "long.h5", "--quiet"],
    }
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for path, seconds in (("short.h5", 10), ("long.h5", SECONDS)):
            _write(Path(folder) / path, recording(seconds))
        for label, arguments in commands.items():
            for name in models if "detect" in label else [""]:
                given = [*arguments, "--model", name] if name else arguments
                found = [_run_command(given, folder) for _ in range(runs + 1)][1:]
                rows.append(
                    {
                        "command": label,
                        "model": name,
                        "seconds": median(seconds for seconds, _ in found),
                        "peak memory, MB": median(peak for _, peak in found),
                    }
                )
    return rows


PARTS: dict[str, Callable[[list[str], int], list[Row]]] = {
    "rates": rates,
    "keras": keras,
    "threads": threads,
    "kernels": kernels,
    "durations": durations,
    "start": start,
}


# The machine -------------------------------------------------------------------------------------


def peak_multiply_adds(runs: int) -> float:
    """Multiply-adds a second of float32 that this machine reaches in a large matrix product."""
    a = np.ones((2_048, 2_048), np.float32)
    return float(2_048**3 / timed(runs, np.matmul, a, a))


def multiply_adds(name: str) -> float:
    """Multiply-adds of a network that reads traces for each sample, counted in its graph."""
    import onnx

    model = load_model(name)
    graph = onnx.load(model.graph).graph
    lengths = {value.name: value for value in graph.initializer}
    inferred = onnx.shape_inference.infer_shapes(_with_length(graph, 160 * 100))
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in inferred.graph.value_info
    }
    total = 0
    for node in graph.node:
        if node.op_type in ("Conv", "ConvTranspose"):
            kernel = list(lengths[node.input[1]].dims)
            along = shapes[node.input[0]] if node.op_type == "ConvTranspose" else None
            steps = (along or shapes[node.output[0]])[-1]
            total += int(np.prod(kernel)) * steps
    return total / (160 * 100)


def _with_length(graph: Any, length: int) -> Any:
    import onnx

    fixed = onnx.GraphProto()
    fixed.CopyFrom(graph)
    dims = fixed.input[0].type.tensor_type.shape.dim
    for dim, value in zip(dims, (1, length, 1), strict=True):
        dim.Clear()
        dim.dim_value = value
    for dim, value in zip(
        fixed.output[0].type.tensor_type.shape.dim, (1, length // 10), strict=True
    ):
        dim.Clear()
        dim.dim_value = value
    return onnx.helper.make_model(fixed, opset_imports=[onnx.helper.make_opsetid("", 17)])


_ONE_DURATION = """
import json, resource, sys, time
import numpy as np, quantal
seconds, name = int(sys.argv[1]), sys.argv[2]
part, _ = quantal.simulate.simulate_recording(seconds=min(seconds, 60), frequency_hz=0.7, seed=7)
samples = np.tile(part.samples, -(-seconds // 60))[: seconds * 50_000]
trace = quantal.Trace(samples=samples, rate_hz=50_000.0, unit="pA")
quantal.detect(part, model=name)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
begin = time.perf_counter()
events = quantal.detect(trace, model=name)
taken = time.perf_counter() - begin
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({
    "model": name, "recording, s": seconds, "found": len(events), "seconds": taken,
    "times real time": seconds / taken, "trace, MB": trace.samples.nbytes / 1e6,
    "peak memory besides, MB": peak / 1e3 - trace.samples.nbytes / 1e6,
}))
"""

_ONE_COMMAND = """
import resource, subprocess, sys, time
begin = time.perf_counter()
subprocess.run(sys.argv[2:], cwd=sys.argv[1], check=True, stdout=subprocess.DEVNULL)
taken = time.perf_counter() - begin
print(taken, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3)
"""


def _process(program: str, *arguments: str) -> str:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _run_command(arguments: list[str], folder: str) -> tuple[float, float]:
    """Seconds and peak memory (MB) of one command."""
    quantal_command = str(Path(sys.executable).with_name("quantal"))
    seconds, peak = _process(_ONE_COMMAND, folder, quantal_command, *arguments).split()
    return float(seconds), float(peak)


def _write(path: Path, trace: Trace) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        data = file.create_dataset("current", data=trace.samples)
        data.attrs.update({"rate_hz": trace.rate_hz, "unit": trace.unit})


# The report --------------------------------------------------------------------------------------


def tables(results: dict[str, Any]) -> str:
    """All parts as Markdown."""
    lines = ["# Throughput", "", f"{SECONDS:g} s at {RATE_HZ / 1000:g} kHz unless said otherwise."]
    for part, say in PARTS.items():
        if part in results:
            about = (say.__doc__ or "").splitlines()[0].rstrip(".")
            lines += ["", f"## {about}", "", f"{results[part]['machine']}.", ""]
            lines += table(results[part]["rows"])
    return "\n".join(lines) + "\n"


def draw(results: dict[str, Any], path: Path) -> None:
    """Times by event rate and by length as a picture, of the parts that are there."""
    drawing = blank(9.0, 3.5)
    left, right = drawing.subplots(1, 2)
    for axis, part, x in ((left, "rates", "events/s"), (right, "durations", "recording, s")):
        rows = results.get(part, {"rows": []})["rows"]
        for name in dict.fromkeys(row["model"] for row in rows):
            own = [row for row in rows if row["model"] == name]
            axis.plot([row[x] for row in own], [row["seconds"] for row in own], "o-", label=name)
        axis.set(xlabel=x, ylabel="seconds", xscale="log", yscale="log")
        axis.spines[["top", "right"]].set_visible(False)
        if rows:
            axis.legend(frameon=False)
    drawing.set_layout_engine("constrained")
    save_figure(drawing, path)


if __name__ == "__main__":
    main()

"""Detections in real recordings to be looked at one by one: a hundred of each, drawn by chance.

    python benchmarks/real.py --shared ../shared [--model NAME|FOLDER] [--names A,B] [--out FOLDER]

Writes a sheet for each recording, real_<name>.png, with test pulses and stimuli left out. Every
panel shows 40 ms around a detection, the trace and its smoothed course, the location (red), other
detections (grey) and the score. Nothing here says what is an event; that is for the eye.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from conformance import REAL, Recording
from numpy.typing import NDArray

from quantal.detect import detect
from quantal.filters import odd_width, smooth
from quantal.model import Model, load_model
from quantal.readers import read
from quantal.trace import Trace

PANELS = 100
SHOWN_S = 0.04  # of which a quarter lies before the event
SMOOTHED_S = 5e-4
SEED = 0


def main() -> None:
    """Search the recordings and draw their sheets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--model", default=None)
    parser.add_argument("--names", default=",".join(REAL))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    model = load_model(options.model)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.names.split(","):
        path = options.shared / "data" / "abf" / f"{name}.abf"
        found = search(path, REAL[name], model)
        picture = options.out / f"real_{name}.png"
        print(f"{name}: {sum(len(at) for _, at, _ in found)} events in {len(found)} sweeps")
        draw(found, f"{name}, {model.card.name}", picture)


def search(
    path: Path, recording: Recording, model: Model
) -> list[tuple[Trace, NDArray[np.float64], NDArray[np.float64]]]:
    """Every sweep with the times and scores of its events; a trace network is told no window."""
    window_ms = None if model.card.kind == "trace" else recording.window_ms
    found = []
    for sweep in read(path, sweeps=recording.sweeps):
        trace = sweep.exclude(recording.excluded)
        events = detect(trace, model=model, window_ms=window_ms)
        found.append((trace, events.location_s, events.score))
    return found


def draw(
    found: list[tuple[Trace, NDArray[np.float64], NDArray[np.float64]]], title: str, path: Path
) -> None:
    """Ten rows of ten detections, in order of time."""
    from matplotlib.figure import Figure
    from PIL import Image

    all_of_them = [(k, i) for k, (_, at, _) in enumerate(found) for i in range(len(at))]
    rng = np.random.default_rng(SEED)
    chosen = rng.permutation(len(all_of_them))[:PANELS]
    figure = Figure(figsize=(20, 20), layout="constrained")
    figure.suptitle(f"{title}: {len(chosen)} of {len(all_of_them)} detections")
    axes = figure.subplots(10, 10).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, row in zip(axes, sorted(chosen), strict=False):
        k, i = all_of_them[row]
        trace, times, scores = found[k]
        start = times[i] - 0.25 * SHOWN_S
        part = trace.between(max(start, trace.start_s), min(start + SHOWN_S, trace.stop_s))
        t = part.start_s + np.arange(len(part)) / part.rate_hz
        axis.plot(t, part.samples, color="#bbbbbb", lw=0.5)
        axis.plot(t, smooth(part.samples, odd_width(SMOOTHED_S * part.rate_hz)), "k", lw=0.8)
        for other in times[(times > t[0]) & (times < t[-1])]:
            axis.axvline(other, color="#888888", lw=0.5)
        axis.axvline(times[i], color="r", lw=0.8)
        height = np.ptp(part.samples)
        axis.set_title(f"{row}: {scores[i]:.2f}, {height:.0f} {part.unit}", fontsize=7, pad=1)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=60)
    Image.open(drawn).convert("RGB").quantize(24).save(path, optimize=True)  # a third of the size


if __name__ == "__main__":
    main()

"""What an LSTM in 8-bit integers gains a window network, and which events it changes.

    python benchmarks/precision.py [--model NAME|FOLDER] [--minutes 3]

The LSTM takes most of the time; convolutions are not faster in integers. Dense scans of the
simulated recordings of screened.py, 5 s of each; a row of the table of events is changed if any of
its columns but score and interval is. Times are CPU microseconds a window of one thread, medians,
taken in turn. Writes precision_MODEL.md. Needs the train extra for onnx.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
from screened import COMPARED, differing, simulated

from quantal.detect import analyse, settle
from quantal.model import GRAPH, Model, load_model, sha256_of, write_card
from quantal.runtime import load_runtime, open_session, processor
from quantal.scan import Scores
from quantal.windows import cut_windows

MEASURED = tuple(name for name in COMPARED if name not in ("score", "interval_s"))
RUNS, WINDOWS, SECONDS = 9, 512, 5.0


@dataclass(kw_only=True)
class Row:
    """Recordings of one kind, added up."""

    name: str
    seconds: float = 0.0
    events: int = 0
    moved: int = 0
    changed: int = 0
    largest: float = 0.0

    def line(self) -> str:
        """As a row of the table."""
        return (
            f"| {self.name} | {self.seconds:.0f} | {self.events} | {self.moved} | {self.changed} | "
            f"{self.largest:.4f} |"
        )


def main() -> None:
    """Compare both, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="cnn-lstm")
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    model = load_model(options.model)
    rows: dict[str, Row] = {}
    with tempfile.TemporaryDirectory() as folder:
        integers = in_integers(model, Path(folder) / "integers")
        plain_us, integers_us = timed(model, integers)
        for row in compared(model, integers, 60 * options.minutes, rows):
            print(row.line(), flush=True)
    lines = [
        f"# `{model.card.name}` with its LSTM in 8-bit integers",
        "",
        f"By `python benchmarks/precision.py`, {processor()}, one thread: {plain_us:.0f} "
        f"microseconds a window as it is, {integers_us:.0f} in integers "
        f"({plain_us / integers_us:.2f} times faster).",
        "",
        "| recordings | s | events | located elsewhere, lost or new | rows changed "
        "| largest change of a score |",
        "| --- | --- | --- | --- | --- | --- |",
        *(row.line() for row in rows.values()),
    ]
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"precision_{model.card.name}.md"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(path.read_text(encoding="utf-8"))


def in_integers(model: Model, folder: Path) -> Model:
    """The same model with the weights of its LSTM, and what it multiplies them with, in 8 bits."""
    load_runtime()
    from onnxruntime.quantization import QuantType, quantize_dynamic

    folder.mkdir()
    given = {"op_types_to_quantize": ["LSTM"], "weight_type": QuantType.QInt8}
    quantize_dynamic(model.graph, folder / GRAPH, **given)
    write_card(replace(model.card, graphs={GRAPH: sha256_of(folder / GRAPH)}), folder)
    return load_model(folder)


def timed(*models: Model) -> list[float]:
    """Median CPU microseconds a window of each, taken in turn."""
    width = models[0].card.window_samples
    noise = np.random.default_rng(0).normal(size=WINDOWS * 20 + width).astype(np.float32)
    windows, _ = cut_windows(noise, 0, 20, WINDOWS, width)
    sessions = [open_session(model, "cpu", 1) for model in models]
    taken: list[list[float]] = [[] for _ in models]
    for _ in range(RUNS + 1):
        for session, times in zip(sessions, taken, strict=True):
            begin = time.process_time()
            session.run_windows(windows)
            times.append(1e6 * (time.process_time() - begin) / WINDOWS)
    return [median(times[1:]) for times in taken]


def compared(model: Model, integers: Model, seconds: float, rows: dict[str, Row]) -> Iterator[Row]:
    """The row of each recording in turn, with it added."""
    for name, make, options in simulated(seconds, 5_000, SECONDS):
        for trace in make():
            found, scores = [], []
            for one in (model, integers):
                settings = settle(one, method="dense", threads=1, direction="negative", **options)
                kept: dict[str, Scores] = {}
                found.append(analyse(trace, one, settings, kept=kept))
                scores.append(kept["negative"].values)
            row = rows.setdefault(name, Row(name=name))
            row.seconds += SECONDS
            row.events += len(found[0])
            row.moved += differing(*found, ("location_s",))
            row.changed += differing(*found, MEASURED)
            row.largest = max(row.largest, float(np.abs(scores[0] - scores[1]).max()))
            yield row


if __name__ == "__main__":
    main()

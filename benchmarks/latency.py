"""How soon events are told while they are recorded, how many channels keep up, and at what cost.

    python benchmarks/latency.py [--parts answers,channels,memory,delay,early,idle] [--short]
                                 [--out FOLDER]

Run it alone on the machine. --short runs each part for a few seconds, to see that it works. Parts
that are not run keep the figures of an earlier run; latency.md and latency.png show them all.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rows import table

import quantal
from quantal.early import Early
from quantal.events import Events
from quantal.online import OnlineDetector
from quantal.report import blank, save_figure
from quantal.runtime import cores, processor
from quantal.simulate import simulate_recording

RATE_HZ = 50_000.0
PIECE = 500  # samples: 10 ms
WINDOW_MS = 12.0
Samples = NDArray[np.float32]


def main() -> None:
    """Measure the parts asked for and write the table and the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    kept = options.out / "latency.json"
    results: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    for part in filter(None, options.parts.split(",")):
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
        measured = PARTS[part](0.05 if options.short else 1.0)
        results[part] = {
            "machine": f"{processor()}, {cores()} cores; load {load:.1f} before",
            "short": options.short,
            **measured,
        }
        kept.write_text(json.dumps(results, indent=1), encoding="utf-8")
        print(part, measured["rows"], flush=True)
    (options.out / "latency.md").write_text(tables(results), encoding="utf-8")
    draw(results, options.out / "latency.png")


def recording(
    seconds: float, events_hz: float = 1.0, seed: int = 7, height: float = 12.0
) -> Samples:
    """One channel at 50 kHz with events of 1 ms decay, so many noise SD high on average."""
    trace, _ = simulate_recording(
        seconds=seconds, frequency_hz=events_hz, amplitude=-height, seed=seed
    )
    return trace.samples


def parts_of(values: NDArray[np.float64]) -> list[float]:
    """Their percentiles, half a percent apart."""
    spread: list[float] = np.percentile(values, np.linspace(0, 100, 201)).tolist()
    return spread


def running(block_ms: float, channels: Samples) -> OnlineDetector:
    """A detector beyond its beginning, where the first 1.2 s are judged at once."""
    detector = OnlineDetector(
        rate_hz=RATE_HZ,
        channels=len(channels),
        block_ms=block_ms,
        threads=1 if len(channels) == 1 else cores(),
    )
    for start in range(0, channels.shape[1], 5_000):
        detector.push(channels[:, start : start + 5_000])
    return detector


# Parts -------------------------------------------------------------------------------------------


def answers(part: float) -> dict[str, Any]:
    """One channel, pieces of 10 ms as they come: from a piece's arrival to its answer."""
    samples = recording(60.0)
    rows, spread = [], {}
    for block_ms in (25.0, 50.0, 100.0):
        detector = running(block_ms, samples[None, :150_000])
        count = round(max(part, 0.05) * 12_000)
        took = np.empty(count)
        used_s = time.process_time()
        begin = time.perf_counter()
        for k in range(count):  # as the rig sends them: caches are as cold as they would be
            time.sleep(max(begin + k * PIECE / RATE_HZ - time.perf_counter(), 0))
            start = k * PIECE % (len(samples) - PIECE)
            at = time.perf_counter()
            detector.push(samples[start : start + PIECE])
            took[k] = 1e3 * (time.perf_counter() - at)
        used_s = time.process_time() - used_s
        p50, p99 = np.percentile(took, [50, 99])
        spread[f"{block_ms:g}"] = parts_of(took)
        rows.append(
            {
                "block, ms": block_ms,
                "pieces": count,
                "p50, ms (goal 2)": p50,
                "p99, ms (goal 8)": p99,
                "longest, ms": took.max(),
                "CPU, % of a core": 100 * used_s / (count * PIECE / RATE_HZ),
            }
        )
    return {"rows": rows, "ms": spread}


def channels(part: float) -> dict[str, Any]:
    """Channels of 1 event/s, pieces of 100 ms, as fast as they are searched."""
    rows = []
    for count in (8, 16, 32, 64) if part == 1.0 else (4, 32):
        own = np.stack([recording(12.0, seed=seed) for seed in range(min(count, 8))])
        samples = np.tile(own, (-(-count // len(own)), 1))[:count]
        for block_ms in (25.0, 100.0, 400.0):
            detector = running(block_ms, samples[:, :100_000])
            took = []
            for start in range(100_000, samples.shape[1], 5_000):
                at = time.perf_counter()
                detector.push(samples[:, start : start + 5_000])
                took.append(time.perf_counter() - at)
            seconds = 5_000 * len(took) / RATE_HZ
            rows.append(
                {
                    "channels (goal 32)": count,
                    "block, ms": block_ms,
                    "times real time": seconds / sum(took),
                    "longest answer, ms": 1e3 * max(took),
                    "report after, s": detector.delay_s,
                }
            )
    return {"rows": rows}


def memory(part: float) -> dict[str, Any]:
    """One hour of one channel, as fast as it goes, in a process of its own."""
    seconds = round(3_600 * part)
    command = [sys.executable, "-c", _ONE_HOUR, str(seconds)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def delay(part: float) -> dict[str, Any]:
    """From an event's peak to its report, pieces of 10 ms, by recorded time."""
    samples = recording(max(300 * part, 30), events_hz=2.0)
    rows, spread = [], {}
    for block_ms in (1.0, 25.0, 100.0):
        detector = OnlineDetector(rate_hz=RATE_HZ, block_ms=block_ms)
        late = []
        for start in range(0, len(samples), PIECE):
            events = detector.push(samples[start : start + PIECE])
            pushed_s = min(start + PIECE, len(samples)) / RATE_HZ
            late += [
                pushed_s - at
                for at in events.peak_s.tolist()
                if at > 1.5  # before, the noise is not known yet
            ]
        ms = 1e3 * np.array(late)
        spread[f"{block_ms:g}"] = parts_of(ms)
        card = quantal.load_model().card
        rows.append(
            {
                "block, ms": block_ms,
                "events": len(ms),
                "median, ms": np.median(ms),
                "longest, ms": ms.max(),
                "promised, ms": 1e3 * detector.delay_s,
                "network looks ahead, ms": 1e3 * card.margin_samples / card.rate_hz,
                "one window and 50 ms (goal)": WINDOW_MS + 50,
            }
        )
    return {"rows": rows, "ms": spread}


def early(part: float) -> dict[str, Any]:
    """Expected events (`--provisional`), pieces of 10 ms: from a peak to the first word of it."""
    rows, spread = [], {}
    for height, events_hz in ((12.0, 2.0), (5.0, 2.0), (12.0, 10.0)):
        samples = recording(max(60 * part, 10), events_hz, height=height)
        detector = OnlineDetector(rate_hz=RATE_HZ)
        watch = Early(detector)
        took, told, found, withdrawn = [], [], [], 0
        for start in range(0, len(samples), PIECE):
            found.append(detector.push(samples[start : start + PIECE]))
            watch.decided(found[-1])
            at = time.perf_counter()
            expected, gone = watch.look()
            took.append(time.perf_counter() - at)
            told += [(time_s, detector.now_s) for time_s in expected.location_s.tolist()]
            withdrawn += len(gone)
        found.append(detector.finish())
        ms = first_words(quantal.join(found), told)
        spread[f"{height:g} SD, {events_hz:g} a second"] = parts_of(ms[np.isfinite(ms)])
        rows.append(
            {
                "height, SD": height,
                "events/s": events_hz,
                "events": len(ms),
                "median, ms": np.nanmedian(ms),
                "longest, ms": np.nanmax(ms),
                "goal, ms": WINDOW_MS + 50,
                "not told early": int(np.isnan(ms).sum()),
                "told and withdrawn": withdrawn,
                "a look takes, ms": 1e3 * np.median(took),
            }
        )
    return {"rows": rows, "ms": spread}


def first_words(events: Events, told: list[tuple[float, float]]) -> NDArray[np.float64]:
    """From each event's peak to when it was first told, in ms; nan where it was not."""
    where, when = np.array(told).reshape(-1, 2).T
    later = events[(events.location_s > 1.5) & (events.peak_s < where.max(initial=0.0))]
    return np.array(
        [
            1e3 * (when[near][0] - peak_s) if near.any() else np.nan
            for near, peak_s in (
                (np.abs(where - at) < WINDOW_MS / 10_000, peak_s)
                for at, peak_s in zip(later.location_s, later.peak_s, strict=True)
            )
        ]
    )


def idle(part: float) -> dict[str, Any]:
    """`quantal stream` connected to a publisher that sends nothing."""
    seconds = max(60 * part, 5.0)
    raw = recording(2.0).tobytes()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        command = [*_QUANTAL, "stream", address, "--rate-hz", "50000", "--unit", "pA"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            connection, _ = server.accept()
            with connection:
                connection.sendall(raw)
                time.sleep(3.0)
                before = _used_s(process.pid)
                time.sleep(seconds)
                used = _used_s(process.pid) - before
            process.wait(60)
    return {"rows": [{"seconds": seconds, "CPU, % of a core (goal 2)": 100 * used / seconds}]}


def _used_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


PARTS: dict[str, Callable[[float], dict[str, Any]]] = {
    "answers": answers,
    "channels": channels,
    "memory": memory,
    "delay": delay,
    "early": early,
    "idle": idle,
}

_QUANTAL = [sys.executable, "-c", "from quantal.cli import main; main(prog_name='quantal')"]
_ONE_HOUR = """
import json, sys, time
from pathlib import Path
import numpy as np, quantal
from quantal.simulate import simulate_recording
seconds, part_s = int(sys.argv[1]), 30
samples = simulate_recording(seconds=part_s, frequency_hz=1.0, seed=7)[0].samples
def held():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6
detector = quantal.OnlineDetector(rate_hz=50_000.0)
rows, found, begin = [], 0, time.perf_counter()
for done in range(0, seconds, part_s):
    for start in range(0, len(samples), 500):
        found += len(detector.push(samples[start : start + 500]))
    if done // part_s in {0, seconds // part_s // 2, seconds // part_s - 1}:
        rows.append({
            "recorded, s": done + part_s, "events": found,
            "memory, MB (goal 300)": held(),
            "times real time": (done + part_s) / (time.perf_counter() - begin),
        })
print(json.dumps({"rows": rows}))
"""


# The report --------------------------------------------------------------------------------------


def tables(results: dict[str, Any]) -> str:
    """All parts as Markdown."""
    lines = [
        "# Latency",
        "",
        "`minis` on samples at 50 kHz that come in pieces. A block is what the network reads at a "
        "time (`--block-ms`); the same events come out whatever it is.",
        "",
        "An event cannot be told at once. The network scores a moment by 96 ms either side of it, "
        "the baseline that it reads from is a median over 80 ms either side, and a decay must be "
        "over before it is measured. So the delay from peak to report is near 0.2 s, and not the "
        "window and 50 ms that were the goal. What is expected (`--provisional`) is told well "
        "within them.",
    ]
    for part, say in PARTS.items():
        if part in results:
            about = (say.__doc__ or "").splitlines()[0].rstrip(".")
            short = " A short run, to see that it works." if results[part]["short"] else ""
            lines += ["", f"## {about}", "", f"{results[part]['machine']}.{short}", ""]
            lines += table(results[part]["rows"])
    return "\n".join(lines) + "\n"


def draw(results: dict[str, Any], path: Path) -> None:
    """Answers and delays as cumulated parts, of what is there."""
    drawing = blank(9.0, 3.5)
    left, right = drawing.subplots(1, 2)
    for axis, part in ((left, "answers"), (right, "delay")):
        for block_ms, ms in results.get(part, {}).get("ms", {}).items():
            axis.plot(ms, np.linspace(0, 100, len(ms)), label=f"block of {block_ms} ms")
    left.axvline(2.0, color="0.7", lw=0.8, ls=":")
    left.axvline(8.0, color="0.7", lw=0.8, ls=":")
    left.set(xscale="log", xlabel="from a piece to its answer (ms)", ylabel="% of pieces of 10 ms")
    right.axvline(WINDOW_MS + 50, color="0.7", lw=0.8, ls=":")
    right.set(
        xlabel="from an event's peak to its report (ms)", ylabel="% of events", xlim=(0, None)
    )
    for axis in (left, right):
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=8)
    drawing.tight_layout()
    save_figure(drawing, path)


if __name__ == "__main__":
    main()

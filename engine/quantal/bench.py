"""`quantal bench`: how fast this machine finds events, and what to set so that it is fastest."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from quantal.detect import analyse, settle
from quantal.errors import MissingRuntimeError, UsageError
from quantal.model import Model, load_model
from quantal.runtime import cores, open_session, processor
from quantal.scan import Scores
from quantal.simulate import Rig, simulate_recording
from quantal.trace import Trace

_MOST_S = 3_600.0  # of a recording that is simulated in memory


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How long one model took, on one device with so many threads, to find and measure events.

    seconds: the median over runs. times_real_time: seconds of the recording in one second.
    scores_per_s: scores of the network (windows, or hops of a trace), all work counted.
    """

    model: str
    device: str
    threads: int
    events: int
    seconds: float
    times_real_time: float
    scores_per_s: float


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What was measured, on what machine and what recording."""

    machine: str
    cores: int
    recording_s: float
    rate_hz: float
    events_hz: float
    runs: int
    timings: tuple[Timing, ...]
    absent: tuple[str, ...]  # devices that were asked for and cannot be used, and why

    @property
    def fastest(self) -> dict[str, Timing]:
        """By model, the timing of least seconds."""
        by_model: dict[str, Timing] = {}
        for timing in sorted(self.timings, key=lambda timing: -timing.seconds):
            by_model[timing.model] = timing
        return by_model

    def to_dict(self) -> dict[str, Any]:
        """The same as plain numbers and text."""
        return {**asdict(self), "advice": advice(self)}


def run_bench(
    models: Sequence[str | Path],
    *,
    seconds: float = 60.0,
    rate_hz: float = 50_000.0,
    events_hz: float = 0.7,
    devices: Sequence[str] = ("cpu",),
    threads: Sequence[int] | None = None,
    runs: int = 3,
    progress: Callable[[Timing], None] | None = None,
) -> Bench:
    """Time `quantal.detect` in a warm process on a simulated recording in memory.

    seconds, rate_hz, events_hz: of the recording. threads: numbers of them to try on the CPU; None
    means 1, 2, 4 ... up to all cores. progress is called with each timing. Raises UsageError or
    ModelError, and MissingRuntimeError if no device can be used.
    """
    if not 1 <= seconds <= _MOST_S:
        raise UsageError(f"the recording must be 1 to {_MOST_S:g} s long, got {seconds!r}.")
    if not 100 <= rate_hz <= 1e6:
        raise UsageError(f"rate_hz must be 100 to 1,000,000, got {rate_hz!r}.")
    if not 0 <= events_hz <= 100:
        raise UsageError(f"there can be 0 to 100 events a second, got {events_hz!r}.")
    if runs < 1:
        raise UsageError(f"there must be 1 run or more, got {runs!r}.")
    tried = list(threads) if threads else doublings(cores())
    loaded = [load_model(model) for model in models]
    trace, _ = simulate_recording(
        seconds=seconds, frequency_hz=events_hz, rig=Rig(rate_hz=rate_hz), seed=1
    )
    timings: list[Timing] = []
    absent: dict[str, str] = {}
    for device, model in ((device, model) for device in devices for model in loaded):
        try:
            for timing in _timings(trace, model, device, tried, runs):
                timings.append(timing)
                if progress is not None:
                    progress(timing)
        except MissingRuntimeError as error:
            absent[device] = str(error)
    if not timings:
        raise MissingRuntimeError("; ".join(absent.values()))
    return Bench(
        machine=processor(),
        cores=cores(),
        recording_s=seconds,
        rate_hz=rate_hz,
        events_hz=events_hz,
        runs=runs,
        timings=tuple(timings),
        absent=tuple(f"{device}: {why}" for device, why in absent.items()),
    )


def _timings(
    trace: Trace, model: Model, device: str, threads: Sequence[int], runs: int
) -> Iterator[Timing]:
    for number in threads if device == "cpu" else [cores()]:
        settings = settle(model, device=device, threads=number)
        open_session(model, device, number)
        scores: dict[str, Scores] = {}
        events = analyse(trace, model, settings, kept=scores)  # warms up
        taken = []
        for _ in range(runs):
            begin = time.perf_counter()
            analyse(trace, model, settings)
            taken.append(time.perf_counter() - begin)
        seconds = median(taken)
        yield Timing(
            model=model.card.name,
            device=device,
            threads=number,
            events=len(events),
            seconds=seconds,
            times_real_time=trace.duration_s / seconds,
            scores_per_s=sum(map(len, scores.values())) / seconds,
        )


def doublings(most: int) -> list[int]:
    """1, 2, 4 and so on, and the most."""
    return [*(1 << k for k in range(most.bit_length()) if 1 << k < most), most]


def advice(bench: Bench) -> list[str]:
    """What to set, in sentences."""
    said = []
    for name, best in bench.fastest.items():
        on_cpu = best.device == "cpu"
        setting = f"--threads {best.threads}" if on_cpu else f"--device {best.device}"
        as_it_is = on_cpu and best.threads == bench.cores
        said.append(
            f"{name}: fastest as it is, with all {bench.cores} threads."
            if as_it_is
            else f"{name}: fastest with {setting}."
        )
    if len(bench.fastest) > 1:
        quick = min(bench.fastest.values(), key=lambda timing: timing.seconds)
        said.append(f"Of these models {quick.model} is the fastest.")
    return said


def counted(threads: int) -> str:
    """ "1 thread", "2 threads"."""
    return f"{threads} thread" if threads == 1 else f"{threads} threads"


def render(bench: Bench) -> str:
    """The table and the advice as text."""
    lines = [
        f"{bench.machine}, {bench.cores} cores, {platform.system()}; {bench.recording_s:g} s at "
        f"{bench.rate_hz / 1000:g} kHz, {bench.events_hz:g} events/s; median of {bench.runs}",
        "model                device threads  seconds  real time     scores/s",
        *(row(timing) for timing in bench.timings),
        *(f"not measured: {why}" for why in bench.absent),
        *advice(bench),
    ]
    return "\n".join(lines)


def row(timing: Timing) -> str:
    """One line of the table."""
    return (
        f"{timing.model:20} {timing.device:6} {timing.threads:7d} {timing.seconds:8.3g} "
        f"{timing.times_real_time:9.3g}x {timing.scores_per_s:12,.0f}"
    )


def draw_bench(bench: Bench, path: Path) -> None:
    """How many times faster than real time each was, as a picture."""
    from quantal.drawing import BARS, blank, save_figure

    drawing = blank(6.0, 1.2 + 0.3 * len(bench.timings))
    axis = drawing.add_subplot()
    labels = [f"{t.model}, {t.device}, {counted(t.threads)}" for t in bench.timings]
    bars = axis.barh(labels, [t.times_real_time for t in bench.timings], color=BARS)
    axis.bar_label(bars, fmt="{:.3g}", padding=3)
    axis.margins(x=0.15)
    axis.invert_yaxis()
    axis.set_xlabel("times faster than real time")
    axis.set_title(f"{bench.machine}: {bench.recording_s:g} s at {bench.rate_hz / 1000:g} kHz")
    axis.spines[["top", "right"]].set_visible(False)
    drawing.set_layout_engine("constrained")
    save_figure(drawing, path)

"""The picture: it is there whatever the recording, and shows what it should."""

from __future__ import annotations

import itertools
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantal import drawing, layout, report
from quantal.errors import SaveError, UsageError
from quantal.events import Events, Sweep, join, make_events, no_events
from quantal.kinetics import measure
from quantal.report import draw_report
from quantal.simulate import Rig, simulate_recording
from quantal.trace import Trace


def recording(*, seconds: float = 4.0, sweep: int = 0, **options: Any) -> tuple[Trace, Events]:
    """A simulated sweep and its true events, measured."""
    rig = options.setdefault("rig", Rig(rate_hz=20_000.0))
    trace, truth = simulate_recording(seconds=seconds, **options)
    trace = replace(trace, sweep=sweep)
    sign = 1 if options.get("amplitude", -12.0) > 0 else -1
    tau_s, rise_s = options.get("tau_decay_s", 1e-3), options.get("tau_rise_s", 2e-4)
    location = np.round((truth.onset_s + rise_s) * rig.rate_hz).astype(np.int64)
    return trace, table(trace, location, sign, int(12 * tau_s * rig.rate_hz))


def table(trace: Trace, location: Any, sign: int, window: int) -> Events:
    origin = {name: getattr(trace, name) for name in ("recording", "channel", "sweep", "unit")}
    m = measure(sign * trace.samples, trace.rate_hz, location, window)
    times = {"onset_s": m.onset, "peak_s": m.peak, "location_s": location}
    n = len(location)
    columns = {
        **origin,
        **{name: trace.start_s + value / trace.rate_hz for name, value in times.items()},
        **{name: sign * getattr(m, name) for name in ("amplitude", "baseline", "slope_per_ms")},
        **{name: getattr(m, f"{name}") for name in ("rise_10_90_ms", "half_decay_ms")},
        **{name: getattr(m, name) for name in ("half_width_ms", "tau_decay_ms", "overlap", "edge")},
        "area": sign * m.area,
        "event": np.arange(n),
        "score": np.linspace(1, 0.5, n),
        "interval_s": np.r_[np.nan, np.diff(location) / trace.rate_hz][:n],
        "polarity": sign,
        "status": "rejected",  # makes the column wide enough
    }
    events = make_events(columns, [Sweep(**origin, analysed_s=trace.duration_s)])
    events.status[:] = "found"
    return events


def size_of(path: Path) -> tuple[int, int]:
    """Width and height in a PNG's header."""
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def imaging() -> tuple[list[Trace], Events]:
    rig = Rig(rate_hz=100.0, cutoff_hz=45.0, hum=0.0)
    trace, events = recording(
        seconds=100,
        rig=rig,
        frequency_hz=0.3,
        amplitude=0.08,
        noise_sd=0.01,
        tau_decay_s=0.3,
        tau_rise_s=0.03,
        offset=0.1,
        unit="dF/F",
    )
    return [trace], events


def sweeps() -> tuple[list[Trace], Events]:
    parts = [recording(seconds=1, frequency_hz=20, sweep=k, seed=k) for k in range(5)]
    traces = [trace.exclude([(0.1, 0.3)]) for trace, _ in parts]
    return traces, join(events for _, events in parts)


def with_rejected() -> tuple[list[Trace], Events]:
    trace, events = recording(frequency_hz=10)
    events.status[::3] = "rejected"
    return [trace], events


def both_ways() -> tuple[list[Trace], Events]:
    trace, down = recording(frequency_hz=5)
    up = table(trace, np.arange(1000, 60_000, 7000), 1, 240)
    return [trace], join([down, up])


def with_holes() -> tuple[list[Trace], Events]:
    trace, events = recording(frequency_hz=5)
    samples = trace.samples.copy()
    samples[20_000:40_000] = np.nan
    samples[50_000:50_100] = np.inf
    samples[70_000:] = samples[70_000]
    return [replace(trace, samples=samples)], events


def one_event() -> tuple[list[Trace], Events]:
    trace, events = recording()
    return [trace], events[:1]


def not_measured() -> tuple[list[Trace], Events]:
    trace, events = recording()
    nothing = {name: np.nan for name, v in events.columns().items() if v.dtype.kind == "f"}
    return [trace], make_events(
        {**events.columns(), **nothing, "location_s": events.location_s}, events.sweeps
    )


def odd_names() -> tuple[list[Trace], Events]:
    trace, events = recording()
    name = "cell $x$ 日本\n_" + 300 * "y"
    trace = replace(trace, recording=name, unit="$µ$", channel="$c")
    return [trace], make_events({**events.columns(), "recording": name, "channel": "$c"}, [])


def nothing_found() -> tuple[list[Trace], Events]:
    traces, events = sweeps()
    return traces, no_events(events.sweeps)


def nothing_recorded() -> tuple[list[Trace], Events]:
    return [Trace(samples=np.full(500, np.nan), rate_hz=100.0, unit="pA")], no_events()


def one_sample() -> tuple[list[Trace], Events]:
    return [Trace(samples=np.ones(1), rate_hz=100.0, unit="")], no_events()


def other_channels() -> tuple[list[Trace], Events]:
    trace, events = recording()
    other = replace(trace, channel="1", unit="mV")
    return [trace, other, Trace(samples=np.empty(0), rate_hz=1.0, unit="pA")], events


CASES = [
    imaging, sweeps, with_rejected, both_ways, with_holes, one_event, not_measured, odd_names,
    nothing_found, nothing_recorded, one_sample, other_channels,
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_recording_has_its_picture(case: Any, tmp_path: Path) -> None:
    traces, events = case()
    draw_report(traces, events, tmp_path / "cell.png")
    assert size_of(tmp_path / "cell.png") == (1600, 1200)
    assert [path.name for path in tmp_path.iterdir()] == ["cell.png"]


@pytest.mark.parametrize("kept", [slice(None), slice(0, 1), slice(0, 0)])
def test_an_average_is_drawn(kept: slice, tmp_path: Path) -> None:
    trace, events = recording(seconds=8)
    kept_events = events[kept]
    average = kept_events.average([trace], window_ms=12.0)
    draw_report([trace], kept_events, tmp_path / "a.png", average=average, title="A")
    assert size_of(tmp_path / "a.png") == (1600, 1200)


def test_no_trace_and_no_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to draw"):
        draw_report([], no_events(), tmp_path / "a.png")
    traces, events = one_sample()
    with pytest.raises(SaveError, match="folder"):
        draw_report(traces, events, tmp_path)


def test_matplotlib_is_left_as_it_was(tmp_path: Path) -> None:
    script = f"""
import sys
import quantal.report
assert "matplotlib" not in sys.modules
from matplotlib import rcParams
names = [name for name in rcParams if name != "backend"]  # to read it is to import pyplot
before = [rcParams[name] for name in names]
import numpy as np
from quantal.events import no_events
from quantal.trace import Trace
trace = Trace(samples=np.arange(500.0), rate_hz=100.0, unit="pA")
quantal.report.draw_report([trace], no_events(), {str(tmp_path / "a.png")!r})
assert "matplotlib.pyplot" not in sys.modules
assert [rcParams[name] for name in names] == before
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    assert size_of(tmp_path / "a.png") == (1600, 1200)


# What it shows


def test_a_test_pulse_does_not_flatten_the_events() -> None:
    trace, events = recording(frequency_hz=5)
    samples = trace.samples.copy()
    samples[1000:3000] -= 2000
    low, high = layout.limits_of([replace(trace, samples=samples)], events)
    peaks = events.baseline + events.amplitude
    assert low < np.nanmin(peaks)
    assert high > np.median(trace.samples)
    assert high - low < 3 * (np.median(trace.samples) - np.nanmin(peaks))


def test_limits_of_nothing_and_of_one_level_are_a_range() -> None:
    for samples in (np.full(9, np.nan), np.full(9, 5.0), np.zeros(0)):
        low, high = layout.limits_of([Trace(samples=samples, rate_hz=1.0, unit="pA")], no_events())
        assert np.isfinite([low, high]).all()
        assert low < high


@pytest.mark.parametrize("columns", [1, 7, 100])
def test_pixels_hold_the_extremes_and_mean_of_their_samples(columns: int) -> None:
    rng = np.random.default_rng(1)
    samples = rng.normal(size=1003).astype(np.float32)
    samples[40:60] = np.nan
    trace = Trace(samples=samples, rate_hz=10.0, unit="pA", start_s=3.0)
    pixels = report._pixels(trace, columns)
    edges = [len(samples) * k // columns for k in range(columns + 1)]
    for k, (first, last) in enumerate(itertools.pairwise(edges)):
        part = samples[first:last]
        finite = part[np.isfinite(part)]
        low, high = (finite.min(), finite.max()) if len(finite) else (np.nan, np.nan)
        np.testing.assert_array_equal([pixels.low[k], pixels.high[k]], [low, high])
        np.testing.assert_allclose(pixels.mean[k], np.mean(part), rtol=1e-4, atol=1e-5)
        assert pixels.time_s[k] == pytest.approx(3.0 + (first + last - 1) / 2 / 10.0)


def test_sweeps_are_laid_end_to_end() -> None:
    traces, events = sweeps()
    strip = layout.lay_out(traces, events)
    assert strip.span == pytest.approx((0.0, 5.0))
    assert [piece.shift_s for piece in strip.pieces] == pytest.approx([0, 1, 2, 3, 4])
    assert len(strip.events) == len(events)
    assert all((piece.events.sweep == piece.trace.sweep).all() for piece in strip.pieces)


def test_a_single_sweep_keeps_its_clock() -> None:
    trace, events = recording()
    strip = layout.lay_out([trace.between(1.0, 3.0)], events)
    assert strip.span == pytest.approx((1.0, 3.0))
    assert ((strip.events.location_s >= 1.0) & (strip.events.location_s <= 3.0)).all()


def test_stretches_show_the_busiest_a_typical_and_the_least_certain() -> None:
    trace, events = recording(seconds=20, frequency_hz=5)
    strip = layout.lay_out([trace], events)
    stretches = layout.choose_stretches(strip)
    assert [stretch.why.split()[0] for stretch in stretches] == ["busiest", "typical", "least"]
    last = stretches[-1]
    inside = (events.location_s >= last.start_s) & (events.location_s < last.stop_s)
    assert events.score[inside].min() < np.quantile(events.score, 0.1)
    for a, b in itertools.pairwise(stretches):
        assert a.stop_s <= b.start_s + 1e-6 or b.stop_s <= a.start_s + 1e-6


def test_excluded_stretches_are_not_chosen() -> None:
    trace, events = recording(seconds=10, frequency_hz=5)
    strip = layout.lay_out([trace.exclude([(0.0, 5.0)])], events)
    for stretch in layout.choose_stretches(strip):
        assert stretch.stop_s > 5.0


def test_rejected_events_are_not_counted() -> None:
    traces, events = with_rejected()
    strip = layout.lay_out(traces, events)
    assert len(strip.found) == int((events.status == "found").sum())
    assert "rejected" in report._how_many(strip)


def test_the_lowest_scores_are_written_and_none_over_another() -> None:
    trace, events = recording(frequency_hz=40)
    axes = drawing.blank(9.0, 2.0).add_subplot()
    axes.set_xlim(0, trace.duration_s)
    report._write_scores(axes, events, f"{np.median(events.score):.2f}")
    assert 2 <= len(axes.texts) <= 6
    written = [float(text.get_text()) for text in axes.texts]
    assert max(written) < np.median(events.score)
    x = np.sort([text.xy[0] for text in axes.texts])
    assert np.diff(x).min() >= 0.02 * trace.duration_s
    axes = drawing.blank(9.0, 2.0).add_subplot()
    report._write_scores(axes, replace(events, score=np.ones(len(events))), "1.00")
    assert not axes.texts


def test_amplitudes_of_both_signs_have_a_median_each() -> None:
    axes = drawing.blank(4.0, 3.0).add_subplot()
    drawing.draw_amplitudes(axes, np.array([-10.0, -11.0, -12.0, 5.0]), "pA")
    assert axes.get_title(loc="left") == "n = 4: medians -11 and 5 pA"


@pytest.mark.parametrize("unit", ["pA", "dF/F", "arbitrary units", "\u96fb\u6d41"])
@pytest.mark.parametrize("size", [1e-5, 0.00123, 11.4, 1.23e6])
def test_no_title_reaches_the_next_panel(unit: str, size: float) -> None:
    figure = drawing.blank(*report._INCHES)
    _, _, bottom = report._make_axes(figure, 3)
    rng = np.random.default_rng(0)
    amplitude = size * rng.normal(0, 1, 123_456)
    amplitude[:5] *= 1e3
    drawing.draw_amplitudes(bottom[0], amplitude, unit)
    drawing.draw_amplitudes(bottom[1], np.abs(amplitude), unit)
    drawing.title_axes(bottom[2], "average of 12,345 isolated events, 100 in grey")
    for axes in bottom:
        title = axes._left_title
        assert title.get_fontsize() >= 5
        with drawing._unknown_letters():
            reaches = title.get_window_extent().x1
        # Letters are fitted to pixels, so that their width is not quite that of their size.
        assert reaches < axes.get_window_extent().x1 + 0.2 * drawing.DPI
    assert bottom[0].texts[0].get_text().endswith("off the axis")


def test_an_event_without_measures_is_marked(tmp_path: Path) -> None:
    trace, events = recording()
    unknown = {name: np.full(len(events), np.nan) for name in ("peak_s", "amplitude", "baseline")}
    strip = layout.lay_out([trace], replace(events, **unknown))
    stretch = layout.choose_stretches(strip)[0]
    axes = drawing.blank(9.0, 2.0).add_subplot()
    report._draw_stretch(axes, strip, stretch)
    (marks,) = [line for line in axes.lines if line.get_marker() == "D"]
    assert len(marks.get_xdata()) > 0
    assert set(marks.get_xdata()) <= set(events.location_s)
    assert np.isfinite(marks.get_ydata()).all()
    draw_report([trace], strip.events, tmp_path / "a.png")

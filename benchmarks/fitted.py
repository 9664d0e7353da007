"""How near the fits of events come to the truth: errors and honesty of their standard errors.

    python benchmarks/fitted.py --shared FOLDER [--out FOLDER]

Events of the reference recordings are found with the default model and fitted behind their filter;
fitted.md has the errors against what was simulated.
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from reference_scenes import recipe_of

import quantal
from quantal.events import Events
from quantal.fits import Fits
from quantal.runtime import cores
from quantal.simulate import Truth

Floats = NDArray[np.float64]

_WITHIN_S = 2e-3
_COLUMNS = {  # a column of the fits: its standard error, the truth, its unit in the fits'
    "onset_s": ("onset_se_s", "onset_s", 1.0),
    "amplitude": ("amplitude_se", "amplitude", 1.0),
    "tau_rise_ms": ("tau_rise_se_ms", "tau_rise_s", 1e3),
    "tau_decay_ms": ("tau_decay_se_ms", "tau_decay_s", 1e3),
}
_NAMES = ("gc_minis", "busy_calyx", "slow_golgi")
_LOWPASS_HZ = 2_900 / 1.514  # the recordings' program gives the frequency by phase


def main() -> None:
    """Fit the events of the reference recordings and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, required=True, help="the reference recordings")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    lines = [
        "# Fits",
        "",
        f"{cores()} cores, {platform.machine()}. Relative errors, of onset_s in seconds.",
        "",
        "| recording | fitted | n | median error | median absolute error | within one SE |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in _NAMES:
        trace = quantal.read(options.shared / "conformance" / f"{name}.abf")[0]
        events = quantal.detect(trace)
        fits = events.fit(trace, lowpass_hz=_LOWPASS_HZ)
        errors = fit_errors(events, fits, truth_before_filter(options.shared, name))
        for column, found in errors.items():
            lines.append(
                f"| {name} | {column} | {found['n']} | {found['bias']:+.3g} | "
                f"{found['absolute']:.3g} | {100 * found['within_one_se']:.0f} % |"
            )
    text = "\n".join(lines) + "\n"
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "fitted.md").write_text(text, encoding="utf-8")
    print(text)


def fit_errors(events: Events, fits: Fits, truth: Truth) -> dict[str, dict[str, float]]:
    """For each fitted column: n, median bias and median absolute error (relative; onset_s in
    seconds), and the part of fits that lie within one standard error of the truth.

    Events and true ones are paired that are each other's nearest, within 2 ms.
    """
    found, true = _paired(events.location_s, truth.onset_s)
    result = {}
    for name, (error, true_name, unit) in _COLUMNS.items():
        expected = unit * getattr(truth, true_name)[true]
        off = getattr(fits, name)[found] - expected
        z = off / getattr(fits, error)[found]
        off = off if name == "onset_s" else off / expected
        known = np.isfinite(z)
        result[name] = {
            "n": int(known.sum()),
            "bias": float(np.median(off[known])),
            "absolute": float(np.median(np.abs(off[known]))),
            "within_one_se": float(np.mean(np.abs(z[known]) < 1)),
        }
    return result


def truth_before_filter(shared: Path, name: str) -> Truth:
    """The truth of a reference recording, whose own amplitudes are those behind its filter."""
    program = recipe_of(shared)
    with np.load(shared / "conformance" / f"{name}.truth.npz") as file:
        truth = dict(file)
    peaks = []
    for rise_s, decay_s in zip(truth["tau_rise_s"], truth["tau_decay_s"], strict=True):
        shape = program.biexponential(int(12 * decay_s * 1e6), 1e6, rise_s, decay_s)
        peaks.append(program.amplifier(shape, 1e6).max())
    return Truth(
        onset_s=truth["onset_s"],
        amplitude=truth["amplitude"] / np.array(peaks),
        tau_rise_s=truth["tau_rise_s"],
        tau_decay_s=truth["tau_decay_s"],
    )


def _paired(found_s: Floats, true_s: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    apart = np.abs(found_s[:, None] - true_s)
    if not apart.size:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    nearest = apart.argmin(axis=1)
    rows = np.arange(len(found_s))
    own = (apart.argmin(axis=0)[nearest] == rows) & (apart[rows, nearest] <= _WITHIN_S)
    return rows[own], nearest[own]


if __name__ == "__main__":
    main()

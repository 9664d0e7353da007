"""The six public miniML models, run by this engine, against what miniML 1.1 did with them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from reference_scenes import conformance_scene

from quantal.detect import analyse, settle
from quantal.events import Events
from quantal.model import Model, load_model
from quantal.readers import read
from quantal.scan import Scores
from quantal.simulate import matched

RECORDINGS = {  # name: window in ms, direction, whether the window needs no resampling
    "gc_minis": (12.0, "negative", True),
    "busy_calyx": (12.0, "negative", True),
    "low_snr": (12.0, "negative", True),
    "silence": (12.0, "negative", True),
    "slow_golgi": (24.0, "negative", False),
    "gc_epsp": (60.0, "positive", False),
    "optical_minis": (600.0, "positive", False),
}


@dataclass(frozen=True)
class Case:
    """A simulated recording: its truth, what miniML found, and what we find with the same model."""

    name: str
    truth: dict[str, np.ndarray]
    miniml: dict[str, np.ndarray]
    events: Events
    scores: Scores
    rate_hz: float

    @property
    def tolerance_s(self) -> float:
        """Half a millisecond, two samples, or a fiftieth of the window, whichever is longest.

        miniML's filters of even length place an event half a sample late, and its smoothing, which
        is a share of the window, later still.
        """
        return max(0.5e-3, 2.01 / self.rate_hz, 0.02e-3 * RECORDINGS[self.name][0])


@pytest.fixture(scope="module")
def imported(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    """The miniML models that the reference results were made with, as model folders."""
    from quantal.model import Card
    from quantal_trainer.export import export_model
    from quantal_trainer.importer import import_keras

    folder = tmp_path_factory.mktemp("imported")
    files = {"GC": "GC_lstm_model", "GC_mEPSP": "GC_mEPSP", "iGluSnFR": "iGluSnFR"}
    for name, stem in files.items():
        network = import_keras(shared / "miniml" / "models" / f"{stem}.h5")
        export_model(network, folder / name, card=Card(name=name, polarity="negative"))
    return {name: load_model(folder / name) for name in files}


@pytest.fixture(scope="module", params=RECORDINGS)
def case(request: pytest.FixtureRequest, shared: Path, imported: dict[str, Model]) -> Case:
    """One recording, searched once for all tests of it."""
    name = request.param
    window_ms, direction, _ = RECORDINGS[name]
    folder = shared / "conformance"
    miniml = dict(np.load(folder / f"{name}.miniml.npz"))
    truth = dict(np.load(folder / f"{name}.truth.npz"))
    trace = read(folder / f"{name}.abf")[0]
    model = imported[str(miniml["model"])]
    settings = settle(model.card, window_ms=window_ms, direction=direction, method="dense")
    scores: dict[str, Scores] = {}
    events = analyse(trace, model, settings, kept=scores)
    return Case(name, truth, miniml, events, scores[direction], trace.rate_hz)


@pytest.mark.slow
def test_dense_scores_are_those_of_miniml_where_nothing_is_resampled(case: Case) -> None:
    if not RECORDINGS[case.name][2]:
        assert case.scores.rate_hz != case.rate_hz  # nothing to compare: its windows are resampled
        return
    theirs = case.miniml["scores_per_window"]
    skip = (225 - case.scores.first_sample) // case.scores.stride  # miniML starts a window later
    ours = case.scores.values[skip : skip + len(theirs)]
    np.testing.assert_allclose(ours, theirs[: len(ours)], atol=1e-3)
    assert len(ours) >= len(theirs) - 1


@pytest.mark.slow
def test_events_of_miniml_are_found_and_nothing_else(case: Case) -> None:
    theirs = np.sort(case.miniml["event_locations"]) / float(case.miniml["fs"])
    ours = case.events.location_s
    hits = matched(theirs, ours, tolerance_s=case.tolerance_s)
    assert hits >= 0.98 * len(theirs)

    rise_s = case.truth["onset_s"] + case.truth["peak_delay_s"] / 2
    near_s = max(3e-3, 0.08e-3 * RECORDINGS[case.name][0])
    besides = [x for x in ours if np.abs(theirs - x).min() > case.tolerance_s]
    false = [x for x in besides if not len(rise_s) or np.abs(rise_s - x).min() > near_s]
    assert len(false) <= 0.02 * len(theirs)


@pytest.mark.slow
def test_events_lie_no_farther_from_the_true_steepest_rise_than_miniml_has_them(
    case: Case, shared: Path
) -> None:
    true = conformance_scene(shared, case.name).location_s
    theirs = np.sort(case.miniml["event_locations"]) / float(case.miniml["fs"])
    if true is None or not len(true):
        assert case.name == "silence"
        return
    off = []
    for found in (theirs, case.events.location_s):
        nearest = np.abs(true[:, None] - found[None, :]).min(axis=1)
        off.append(np.median(nearest[nearest < case.tolerance_s]))
    assert off[1] <= off[0] + 1 / case.rate_hz

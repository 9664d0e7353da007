"""Transfer of a trace network, from windows and from event times, to a model detection takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quantal.detect import detect
from quantal.errors import UsageError
from quantal.model import Card, Model, load_model, sha256_of
from quantal.simulate import matched
from quantal_trainer import transfer_trace as room
from quantal_trainer.backend import keras
from quantal_trainer.commands import plan_from
from quantal_trainer.datasets import Dataset
from quantal_trainer.evaluate import known_shift
from quantal_trainer.export import export_model
from quantal_trainer.marked import Marked
from quantal_trainer.preparations import PREPARATIONS, simulate_cells, simulate_dataset
from quantal_trainer.trace_network import HOP, UNIT, margin, trace_network
from quantal_trainer.train import Plan, fingerprint
from quantal_trainer.transfer import MARKED_TRANSFER, TRACE_TRANSFER
from quantal_trainer.transfer_trace import transfer_marked, transfer_windows

QUICK = replace(TRACE_TRANSFER, epochs=2, batch=16)
EPSP = PREPARATIONS["epsp"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A small trace network that has learnt nothing, as a model folder."""
    keras.utils.set_random_seed(2)
    card = Card(
        name="tiny",
        kind="trace",
        scaling="noise",
        window_samples=300,
        rate_hz=25_000.0,
        polarity="positive",
        stride=HOP,
        margin_samples=margin(),
        reference_sample=HOP // 2,
        search_samples=25,
        training={"calibration": {"shift": 0.5}},
        licence="MIT",
    )
    samples = np.random.default_rng(0).standard_normal((4, 4 * UNIT)).astype(np.float32)
    folder = tmp_path_factory.mktemp("base") / "tiny"
    return export_model(trace_network((4, 6, 8)), folder, card=card, windows=samples)


@pytest.fixture(autouse=True)
def _few_simulations(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "tiny" in request.fixturenames:  # the shipped model learns as users do
        monkeypatch.setattr(room, "_SIMULATED", 3)
        monkeypatch.setattr(room, "_JUDGED", 3)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return simulate_dataset(EPSP, windows=64, cells=4, seed=7003)


@pytest.fixture(scope="module")
def recordings() -> list[Marked]:
    cells = simulate_cells(EPSP, cells=2, seconds=6.0, seed=7004)
    return [Marked(trace=t, times_s=truth.onset_s, steepest=False) for t, truth in cells]


def test_a_transferred_card_tells_detection_everything(
    tiny: Model, dataset: Dataset, tmp_path: Path
) -> None:
    said: list[dict[str, float]] = []
    plan = Plan(base=tiny.folder, settings=QUICK, frozen=())
    trained = transfer_windows(
        dataset, tmp_path / "mine", plan, progress=lambda _, values: said.append(values)
    )
    card = trained.model.card
    assert (card.name, card.kind, card.direction, card.polarity) == (
        *("mine", "trace", "positive", "positive"),
    )
    assert (card.window_ms, card.rate_hz, card.licence) == (12.0, 25_000.0, "MIT")
    training = card.training
    assert training["base"]["graphs"] == tiny.card.graphs
    assert training["data"]["sha256"] == fingerprint(dataset)
    assert training["plan"]["settings"]["seed"] == 0
    assert training["windows"] == {"training": 48, "validation": 16}
    assert known_shift(card) >= 0.0
    assert training["calibration"]["false_share"] <= 1.0
    assert [set(values) for values in said] == 2 * [{"loss", "val_loss", "val_accuracy"}]
    assert len(trained.held_out.scores) == 16
    [(trace, _)] = simulate_cells(EPSP, cells=1, seconds=2.0, seed=7005)
    detect(trace, model=trained.model)


@pytest.mark.slow
def test_the_same_seed_and_data_give_the_same_graph(
    tiny: Model, dataset: Dataset, tmp_path: Path
) -> None:
    few = dataset[:32]
    plan = Plan(base=tiny.folder, settings=replace(QUICK, epochs=1), by="window")
    one, other = (transfer_windows(few, tmp_path / name, plan, name="m").model for name in "ab")
    assert sha256_of(one.graph) == sha256_of(other.graph) != sha256_of(tiny.graph)


@pytest.mark.slow
def test_events_too_slow_for_the_network_are_read_at_their_own_time_scale(
    tiny: Model, tmp_path: Path
) -> None:
    optical = simulate_dataset(PREPARATIONS["optical"], windows=32, cells=2, seed=7006)
    plan = Plan(base=tiny.folder, settings=replace(QUICK, epochs=1))
    card = transfer_windows(optical, tmp_path / "optical", plan).model.card
    assert (card.window_ms, card.rate_hz) == (600.0, 500.0)
    card = transfer_windows(optical, tmp_path / "given", plan, window_ms=300).model.card
    assert card.window_ms == 300.0


@pytest.mark.slow
def test_recordings_with_all_events_listed_train_too(
    tiny: Model, recordings: list[Marked], tmp_path: Path
) -> None:
    plan = Plan(base=tiny.folder, settings=replace(QUICK, epochs=1, batch=4), frozen=())
    trained = transfer_marked(recordings, tmp_path / "mine", plan)
    card = trained.model.card
    assert (card.direction, card.window_ms) == ("positive", 12.0)
    facts = card.training["data"]
    assert facts["events"] == sum(len(one.times_s) for one in recordings)
    assert facts["seconds"] == 12.0
    assert len(facts["held_out"]) == 1
    held = next(one for one in recordings if one.trace.recording in facts["held_out"])
    assert trained.listed == len(held.times_s)
    assert 0 <= trained.hits <= min(trained.listed, trained.found)


def test_a_single_recording_is_split_in_time_only_when_told(
    tiny: Model, recordings: list[Marked], tmp_path: Path
) -> None:
    plan = Plan(base=tiny.folder, validation=0.4)
    with pytest.raises(UsageError, match="add another, or split by window"):
        transfer_marked(recordings[:1], tmp_path / "mine", plan)
    training, held = room._parted(recordings[:1], replace(plan, by="window"))
    assert training[0].trace.stop_s == pytest.approx(0.6 * 6.0) == held[0].trace.start_s
    assert len(training[0].times_s) + len(held[0].times_s) == len(recordings[0].times_s)


def test_what_makes_no_sense_is_refused_before_training(
    tiny: Model, recordings: list[Marked], dataset: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="cnn-lstm reads windows"):
        transfer_marked(recordings, tmp_path / "m", Plan(base="cnn-lstm"))
    with pytest.raises(UsageError, match="leave out freeze"):
        plan_from(str(tiny.folder), None, {"freeze": "none"})
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other things"):
        transfer_windows(dataset, tmp_path, Plan(base=tiny.folder))


def test_a_plan_has_the_settings_of_its_kind_of_base(tiny: Model) -> None:
    assert plan_from(str(tiny.folder), None, {}).settings == TRACE_TRANSFER
    assert plan_from(str(tiny.folder), None, {}, marked=True).settings == MARKED_TRANSFER
    given = plan_from("minis", None, {"epochs": 3, "direction": "positive"})
    assert (given.settings.epochs, given.frozen, given.direction) == (3, (), "positive")


@pytest.mark.slow
def test_transfer_of_the_shipped_model_finds_more_and_no_more_in_noise(tmp_path: Path) -> None:
    nmj = PREPARATIONS["nmj"]
    windows = simulate_dataset(nmj, windows=400, cells=8, seed=7100)
    plan = Plan(base="minis", settings=TRACE_TRANSFER, frozen=())
    mine = transfer_windows(windows, tmp_path / "nmj", plan).model
    recorded = simulate_cells(nmj, cells=4, seconds=30.0, seed=7500)

    def f1(model: Model) -> float:
        hits = found = true = 0
        for trace, truth in recorded:
            events = detect(trace, model=model, direction="negative")
            hits += matched(truth.onset_s, events.location_s, tolerance_s=6e-3)
            found, true = found + len(events), true + len(truth.onset_s)
        return 2 * hits / (found + true)

    assert f1(mine) > f1(load_model("minis")) + 0.01
    calibration = mine.card.training["calibration"]
    assert calibration["false_share"] <= 1.05 * calibration["false_share_of_base"]

"""Model folders: cards that survive a round trip, and those that are damaged or hostile."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantal import model as room
from quantal.errors import ModelError
from quantal.model import (
    CARD,
    GRAPH,
    Card,
    Model,
    load_model,
    read_card,
    sha256_of,
    shipped_models,
    stored_test,
    write_card,
)

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A model folder; its graph need not be one, as loading a model does not open it."""

    def folder(place: str = "mine", **changes: Any) -> Path:
        path = tmp_path / place
        path.mkdir()
        (path / GRAPH).write_bytes(b"a graph, as far as hashes go")
        hashes = {GRAPH: sha256_of(path / GRAPH)}
        content = {**asdict(Card(name=place, graphs=hashes)), **changes}
        (path / CARD).write_text(json.dumps(content), encoding="utf-8")
        return path

    return folder


@pytest.fixture
def ship(monkeypatch: pytest.MonkeyPatch, make: Make) -> Path:
    """One shipped model, so that the tests hold whatever is shipped."""
    folder = make("minis")
    (folder.parent / "notes").mkdir()  # a folder without a card is not a model
    monkeypatch.setattr(room, "_models_folder", lambda: folder.parent)
    monkeypatch.setattr(room, "DEFAULT_MODEL", "minis")
    return folder


def test_a_card_survives_being_written_and_read(tmp_path: Path) -> None:
    card = Card(
        name="größer",
        window_ms=1.5,
        polarity="positive",
        direction="both",
        graphs={GRAPH: "0" * 64},
        training={"loss": [0.5, 0.25], "note": "}\n]"},
        versions={"numpy": "2.4"},
        test_inputs=[[0.0, 0.1], [1.0, 1e-9]],
        test_scores=[0.25, 0.75],
    )
    write_card(card, tmp_path)
    assert read_card(tmp_path) == card
    first = (tmp_path / CARD).read_bytes()
    write_card(read_card(tmp_path), tmp_path)
    assert (tmp_path / CARD).read_bytes() == first


def test_numbers_of_a_test_vector_stand_in_one_line(tmp_path: Path) -> None:
    inputs = np.linspace(0, 1, 1_200).reshape(2, 600).tolist()
    write_card(Card(name="a", test_inputs=inputs, test_scores=[0.1, 0.2]), tmp_path)
    assert len((tmp_path / CARD).read_text(encoding="utf-8").splitlines()) < 40
    windows, scores = stored_test(read_card(tmp_path))
    assert windows.shape == (2, 600)
    assert scores.dtype == np.float32


def test_fields_that_are_not_known_are_passed_over(make: Make) -> None:
    assert read_card(make(colour="blue", outputs=[1, {"a": 2}])).name == "mine"


def test_a_model_is_found_by_name_folder_path_and_itself(ship: Path, make: Make) -> None:
    mine = make()
    assert load_model("minis").folder == ship
    assert load_model(None).folder == ship
    assert load_model().graph == ship / GRAPH
    assert load_model(str(mine)).card.name == "mine"
    loaded = load_model(mine)
    assert loaded.folder == mine
    assert load_model(loaded) is loaded


def test_a_path_is_never_taken_for_a_shipped_name(
    ship: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = make("here")
    (here / "minis").mkdir()
    monkeypatch.chdir(here)
    assert load_model("minis").folder == ship
    with pytest.raises(ModelError, match="holds no card"):
        load_model(Path("minis"))


def test_shipped_models_are_folders_with_a_card_by_name(ship: Path) -> None:
    assert shipped_models() == {"minis": ship}


def test_every_model_that_is_shipped_loads() -> None:
    for name, folder in shipped_models().items():
        found = load_model(name)
        assert found.card.name == name
        assert found.folder == folder


def test_where_no_models_are_shipped_there_are_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(room, "_models_folder", lambda: tmp_path / "none")
    assert shipped_models() == {}
    with pytest.raises(ModelError, match=r"no model 'cnn': .*\(none\)"):
        load_model("cnn")


@pytest.mark.usefixtures("ship")
@pytest.mark.parametrize(
    "wanted",
    ["minsi", "", "no/such/folder", "~nobody-of-this-name/x", "a\0b", "x" * 5_000, 3, ["minis"]],
)
def test_a_model_that_is_not_there_is_refused_and_the_error_lists_those_that_are(
    wanted: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"\(minis\)|holds no card\.json"):
        load_model(wanted)


def test_a_folder_without_a_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no card\.json; a model is a folder with"):
        load_model(tmp_path)


def test_a_file_is_not_a_model_folder(make: Make) -> None:
    with pytest.raises(ModelError, match="there is no model"):
        load_model(make() / GRAPH)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("task", "spikes", "task 'spikes'.*knows events"),
        ("kind", "images", "kind 'images'.*knows windows"),
        ("polarity", "up", "polarity 'up'.*knows negative, positive"),
        ("direction", "down", "direction 'down'.*knows negative, positive, both"),
        ("scaling", "zscore", "scaling 'zscore'.*knows minmax"),
        ("schema", 2, "newer kind; update quantal"),
        ("threshold", 0, "threshold 0, not 0 to 1"),
        ("threshold", 1.0, "threshold 1.0, not 0 to 1"),
        ("threshold", float("nan"), "threshold nan, not 0 to 1"),
        ("window_ms", 0, "window_ms 0; it must lie between 0 and 1e12"),
        ("window_ms", -1.5, "window_ms -1.5; it must lie between 0 and 1e12"),
        ("rate_hz", float("inf"), "rate_hz inf; it must lie between 0 and 1e12"),
        ("window_samples", 0, "window_samples 0; it must be 1 to"),
        ("window_samples", 10**12, "window_samples 1000000000000; it must be 1 to"),
        ("stride", 0, "stride 0; it must be 1 to 600 samples"),
        ("stride", 601, "stride 601; it must be 1 to 600 samples"),
        ("reference_sample", -1, "reference_sample -1; it must be 0 to 599"),
        ("reference_sample", 600, "reference_sample 600; it must be 0 to 599"),
        ("search_samples", -5, "search_samples -5; it must be 0 to 600"),
    ],
)
def test_a_card_that_makes_no_sense_is_refused(
    make: Make, field: str, value: Any, said: str
) -> None:
    with pytest.raises(ModelError, match=rf"model 'mine'.*{said}|{said}"):
        load_model(make(**{field: value}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("window_samples", "600"),
        ("window_samples", 600.0),
        ("stride", 20.5),
        ("stride", True),
        ("reference_sample", None),
        ("search_samples", "75"),
        ("threshold", "0.5"),
        ("window_ms", "12"),
        ("rate_hz", [50_000]),
        ("schema", "1"),
        ("name", ["cnn"]),
        ("name", None),
        ("task", ["events"]),
        ("graphs", [GRAPH]),
        ("graphs", GRAPH),
        ("graphs", None),
        ("training", "long"),
        ("test_inputs", "0 1 2"),
        ("test_scores", {"a": 1}),
        ("window_ms", 10**400),
    ],
    ids=lambda value: str(value)[:20],
)
def test_values_of_the_wrong_kind_are_refused(make: Make, field: str, value: Any) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(make(**{field: value}))
    assert field in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_card_without_a_name_is_refused(make: Make) -> None:
    folder = make()
    (folder / CARD).write_text("{}")
    with pytest.raises(ModelError, match="not a complete model card"):
        load_model(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\x80\x04\x95",  # a pickle
        b"\xff\xfe{",
        b"null",
        b"[]",
        b"7",
        b'"card"',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 10_000,
        b'{"name": "a", "window_ms": NaN}',
        b'{"name": "a", "graphs": {"model.onnx": {}}}',
        b"\xef\xbb\xbf{}",
    ],
    ids=lambda content: content[:12].decode("latin-1").strip(),
)
def test_what_is_not_a_card_is_refused(make: Make, content: bytes) -> None:
    folder = make()
    (folder / CARD).write_bytes(content)
    with pytest.raises(ModelError):
        load_model(folder)


def test_an_oversized_card_is_refused_before_it_is_read(make: Make) -> None:
    folder = make()
    with (folder / CARD).open("wb") as file:
        file.truncate(5_000_000_000)  # sparse: it takes no room
    with pytest.raises(ModelError, match="too large for a model card"):
        load_model(folder)


def test_a_card_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / CARD).mkdir()
    with pytest.raises(ModelError, match="cannot be read as a model card"):
        load_model(tmp_path)


def test_a_graph_that_is_not_the_one_of_the_card_is_refused(make: Make) -> None:
    folder = make()
    with (folder / GRAPH).open("ab") as file:
        file.write(b"!")
    with pytest.raises(ModelError, match=r"not the file that its card describes \(sha256 .*again"):
        load_model(folder)


def test_a_graph_that_is_not_there_is_refused(make: Make) -> None:
    folder = make()
    (folder / GRAPH).unlink()
    with pytest.raises(ModelError, match=r"names 'model\.onnx', which is not there"):
        load_model(folder)


def test_a_card_that_names_no_graph_is_refused(make: Make) -> None:
    with pytest.raises(ModelError, match=r"does not name model\.onnx"):
        load_model(make(graphs={}))


@pytest.mark.parametrize(
    "name", ["../secret", "../mine/model.onnx", "sub/x", ".", "..", "", "/etc/hostname", "./x"]
)
def test_graphs_outside_the_folder_are_never_opened(make: Make, name: str) -> None:
    folder = make()
    (folder.parent / "secret").write_bytes(b"secret")
    (folder / "sub").mkdir()
    for path in (folder / "sub" / "x", folder / "x"):
        path.write_bytes(b"secret")
    hashes = {GRAPH: sha256_of(folder / GRAPH), name: sha256_of(folder.parent / "secret")}
    content = {**json.loads((folder / CARD).read_text()), "graphs": hashes}
    (folder / CARD).write_text(json.dumps(content))
    with pytest.raises(ModelError, match="which is not there"):
        load_model(folder)


SCOUT_FACTS: dict[str, Any] = {
    "hop_samples": 80,
    "bin_samples": 10,
    "felt": 0.1,
    "levels": [[0.25, -5.0], [0.5, -4]],
}


@pytest.mark.parametrize(
    "changes",
    [
        {"hop_samples": 75},
        {"hop_samples": 0},
        {"hop_samples": "80"},
        {"hop_samples": 90},
        {"felt": 0.2},
        {"felt": 0},
        {"felt": None},
        {"bin_samples": 7},
        {"bin_samples": -10},
        {"bin_samples": 8.0},
        {"levels": []},
        {"levels": [[0.5, -4], [0.25, -5]]},
        {"levels": [[0.25, -4], [0.5, -5]]},
        {"levels": [[0.0, -4]]},
        {"levels": [[0.5, float("nan")]]},
        {"levels": [0.5, -4]},
        {"levels": None},
    ],
)
def test_a_scout_that_makes_no_sense_is_refused(changes: dict[str, Any]) -> None:
    whole: dict[str, Any] = {"name": "a", "graphs": {GRAPH: "0" * 64, "scout.onnx": "1" * 64}}
    assert Card(**whole, scout=SCOUT_FACTS).scout == SCOUT_FACTS
    with pytest.raises(ModelError, match="has a scout that makes no sense"):
        Card(**whole, scout={**SCOUT_FACTS, **changes})
    with pytest.raises(ModelError, match="has a scout that makes no sense"):
        Card(**whole)
    with pytest.raises(ModelError, match=r"has a scout, but no scout\.onnx"):
        Card(name="a", scout=SCOUT_FACTS)
    with pytest.raises(ModelError, match="has a scout that makes no sense"):
        Card(**whole, scout=SCOUT_FACTS, kind="trace", scaling="noise")


def test_every_graph_of_a_card_is_checked(make: Make) -> None:
    folder = make()
    (folder / "scout.onnx").write_bytes(b"scout")
    card = read_card(folder)
    whole = {**card.graphs, "scout.onnx": sha256_of(folder / "scout.onnx")}
    write_card(replace(card, graphs=whole, scout=SCOUT_FACTS), folder)
    assert load_model(folder).card.graphs == whole
    (folder / "scout.onnx").write_bytes(b"spy")
    with pytest.raises(ModelError, match=r"scout\.onnx is not the file"):
        load_model(folder)


def test_a_hash_of_another_kind_is_refused(make: Make) -> None:
    for sha256 in (7, None, ["0"], ""):
        folder = make(f"hash{sha256}", graphs={GRAPH: sha256})
        with pytest.raises(ModelError, match="not the file that its card describes"):
            load_model(folder)


@pytest.mark.skipif(
    not hasattr(os, "getuid") or os.getuid() == 0, reason="root may read every file"
)
def test_a_card_that_may_not_be_read_is_refused(make: Make) -> None:
    folder = make()
    (folder / CARD).chmod(0)
    with pytest.raises(ModelError, match="cannot be read as a model card"):
        load_model(folder)


def test_a_model_is_a_card_and_a_folder() -> None:
    found = Model(card=Card(name="a"), folder=Path("here"))
    assert found.graph == Path("here") / GRAPH


@pytest.mark.parametrize("place", ["weights.bin", "../weights.bin", "/etc/hostname"])
def test_weights_for_which_the_card_does_not_vouch_are_refused(tmp_path: Path, place: str) -> None:
    pytest.importorskip("onnx", reason="needs onnx to make small graphs")
    from graphs import graph_with_weights_elsewhere

    (tmp_path / "weights.bin").write_bytes(np.ones(1, np.float32).tobytes())
    (tmp_path / GRAPH).write_bytes(graph_with_weights_elsewhere(place))
    write_card(Card(name="split", graphs={GRAPH: sha256_of(tmp_path / GRAPH)}), tmp_path)
    with pytest.raises(ModelError, match=r"keeps weights in other files.*onnx\.save"):
        load_model(tmp_path)

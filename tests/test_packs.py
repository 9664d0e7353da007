"""Packed models: they come out as they went in, and nothing else ever gets in."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import quantal
from quantal import model as models_room
from quantal import packs
from quantal.cli import main
from quantal.errors import ModelError, SaveError, UsageError
from quantal.model import (
    CARD,
    GRAPH,
    SCOUT,
    Card,
    installed_models,
    known_models,
    load_model,
    read_card,
    sha256_of,
    shipped_models,
    user_folder,
    write_card,
)
from quantal.packs import add_model, pack_model, remove_model
from quantal.simulate import simulate_recording

SCOUT_FACTS = {"hop_samples": 80, "bin_samples": 5, "felt": 0.1, "levels": [[0.25, 0.0]]}
CONTENT = b"a graph, as far as hashes go " * 9
Pack = Callable[..., Path]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own models: a folder that is not there yet."""
    folder = tmp_path / "home" / "models"
    monkeypatch.setenv("QUANTAL_MODELS", str(folder))
    return folder


def write_model(folder: Path, content: bytes = CONTENT, **changes: Any) -> Path:
    """A model folder; its graphs need not be any, as adding a model does not open them."""
    folder.mkdir(parents=True)
    for name in changes.pop("files", [GRAPH]):
        (folder / name).write_bytes(content)
    hashes = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
    scout = SCOUT_FACTS if SCOUT in hashes else {}
    write_card(replace(Card(name=folder.name, graphs=hashes, scout=scout), **changes), folder)
    return folder


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A model folder of a lab, with what lies beside a model after training."""
    folder = write_model(tmp_path / "trained" / "mine", files=[GRAPH, "scout.onnx"])
    (folder / "notes.txt").write_text("not for others")
    return folder


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    """A zip file of a card and a graph, to which something is done."""

    def write(
        members: dict[str, bytes] | None = None,
        method: int = zipfile.ZIP_STORED,
        graphs: dict[str, Any] | None = None,
        **changes: Any,
    ) -> Path:
        known = asdict(Card(name="mine", graphs={GRAPH: hashlib.sha256(CONTENT).hexdigest()}))
        card = {**known, **({"graphs": graphs} if graphs is not None else {}), **changes}
        content = {CARD: json.dumps(card).encode(), GRAPH: CONTENT, **(members or {})}
        path = tmp_path / "foreign.quantal"
        with zipfile.ZipFile(path, "w", method) as file:
            for name, data in content.items():
                file.writestr(name, data)
        return path

    return write


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def left_in(home: Path) -> list[str]:
    return sorted(entry.name for entry in home.iterdir()) if home.exists() else []


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


# There and back


def test_a_model_comes_out_of_its_pack_as_it_went_in(
    mine: Path, tmp_path: Path, home: Path
) -> None:
    path = pack_model(mine, tmp_path)
    assert path == tmp_path / "mine.quantal"
    with zipfile.ZipFile(path) as file:
        assert file.namelist() == [CARD, GRAPH, "scout.onnx"]
    added = add_model(path)
    assert added.folder == home / "mine"
    wanted = {name: data for name, data in content_of(mine).items() if name != "notes.txt"}
    assert content_of(added.folder) == wanted
    assert left_in(home) == ["mine"]


def test_a_folder_is_added_as_its_pack_would_be(mine: Path, tmp_path: Path) -> None:
    from_folder = content_of(add_model(mine).folder)
    remove_model("mine")
    assert content_of(add_model(pack_model(mine, tmp_path)).folder) == from_folder


def test_the_same_model_gives_the_same_bytes_whenever_and_wherever(
    mine: Path, tmp_path: Path
) -> None:
    first = pack_model(mine, tmp_path / "first.quantal").read_bytes()
    other = tmp_path / "elsewhere"
    other.mkdir()
    for name in ("scout.onnx", GRAPH, CARD):  # in another order, at another time
        shutil.copyfile(mine / name, other / name)
        os.utime(other / name, (1e9, 1e9))
    (other / GRAPH).chmod(0o600)
    assert pack_model(str(other), tmp_path / "second.quantal").read_bytes() == first
    assert pack_model(add_model(mine), tmp_path / "third.quantal").read_bytes() == first


def test_a_pack_is_written_where_it_is_asked_for(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert pack_model(mine) == Path("mine.quantal")
    assert pack_model(mine, "new/a.quantal") == Path("new/a.quantal")
    for wrong in ("mine.zip", "folder"):
        with pytest.raises(UsageError, match=rf"got '{wrong}'; give {wrong}\.quantal, or a folder"):
            pack_model(mine, wrong)


def test_a_model_that_is_not_intact_is_not_packed(mine: Path, tmp_path: Path) -> None:
    loaded = load_model(mine)
    (mine / GRAPH).write_bytes(b"another")
    for model in (mine, loaded):
        with pytest.raises(ModelError, match="not the file that its card describes"):
            pack_model(model, tmp_path)
    assert not list(tmp_path.glob("*.quantal"))


def test_what_could_not_be_added_is_not_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = write_model(tmp_path / "odd", files=[GRAPH, "weights.bin"])
    with pytest.raises(ModelError, match=r"names 'weights\.bin'.*end in \.onnx"):
        pack_model(odd, tmp_path)
    named = write_model(tmp_path / "a", name="größer/als")
    with pytest.raises(ModelError, match=r"'größer/als' cannot be a file's name"):
        pack_model(named, tmp_path)
    assert add_model(pack_model(named, tmp_path / "a.quantal"), name="a").card.name == "a"
    monkeypatch.setattr(packs, "GRAPHS_BYTES", len(CONTENT) - 1)
    with pytest.raises(ModelError, match="a pack has room for"):
        pack_model(named, tmp_path / "b.quantal")


def test_a_model_that_was_added_detects_by_its_name(tmp_path: Path) -> None:
    if not shipped_models():
        pytest.skip("needs a shipped model")
    trace, _ = simulate_recording(seconds=1, frequency_hz=5, amplitude=-20, seed=3)
    expected = quantal.detect(trace, device="cpu")
    add_model(pack_model(load_model(), tmp_path), name="lab")
    assert load_model("lab").card == replace(load_model().card, name="lab")
    found = quantal.detect(trace, model="lab", device="cpu")
    assert len(found) > 0
    np.testing.assert_array_equal(found.location_s, expected.location_s)


# Names


def test_an_added_model_is_called_what_it_is_asked_to_be(
    mine: Path, tmp_path: Path, home: Path
) -> None:
    assert add_model(mine, name="gc-minis.v2").folder == home / "gc-minis.v2"
    again = add_model(mine)
    assert list(installed_models()) == ["gc-minis.v2", "mine"]
    assert load_model("gc-minis.v2").card == replace(again.card, name="gc-minis.v2")
    assert pack_model("gc-minis.v2", tmp_path).name == "gc-minis.v2.quantal"


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../up", "a/b", "a\\b", "/etc", ".hidden", "-rf", "a b", "a\0", "a\n"),
        *("größer", "C:", "a:b", "ends.", "x" * 101, "x" * 100_000),
    ],
    ids=lambda name: repr(name[:12]),
)
def test_a_name_that_is_no_plain_folders_is_refused(
    mine: Path, pack: Pack, home: Path, name: str
) -> None:
    for attempt in (lambda: add_model(mine, name=name), lambda: add_model(pack(name=name))):
        with pytest.raises(ModelError, match="cannot be a model's name") as caught:
            attempt()
        assert len(str(caught.value)) < 400
    assert left_in(home) == []
    assert left_in(home.parent) in ([], ["models"])


def test_a_shipped_model_is_never_hidden(
    mine: Path, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = write_model(tmp_path / "shipped" / "minis", b"shipped")
    monkeypatch.setattr(models_room, "_models_folder", lambda: shipped.parent)
    for name in ("minis", "MINIS"):
        with pytest.raises(ModelError, match="comes with quantal; give this one another --name"):
            add_model(mine, name=name)
    write_model(home / "minis", b"from before an update that brought minis")
    assert load_model("minis").folder == shipped
    assert known_models() == {"minis": shipped}
    remove_model("minis")
    assert left_in(home) == []
    with pytest.raises(ModelError, match="'minis' comes with quantal and stays"):
        remove_model("minis")
    assert load_model("minis").folder == shipped


def test_a_name_wins_over_a_folder_of_that_name_and_a_path_over_a_name(
    mine: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_model(mine)
    monkeypatch.chdir(mine.parent)
    assert load_model("mine").folder == home / "mine"
    assert load_model("./mine").folder == Path("mine")
    assert load_model(Path("mine")).folder == Path("mine")


def test_an_error_lists_the_models_of_both_kinds_and_tells_how_to_use_a_pack(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = write_model(tmp_path / "shipped" / "minis")
    monkeypatch.setattr(models_room, "_models_folder", lambda: shipped.parent)
    add_model(mine)
    with pytest.raises(ModelError, match=r"no model 'mini': .*\(minis, mine\)"):
        load_model("mini")
    path = pack_model(mine, tmp_path / "my pack.quantal")
    with pytest.raises(ModelError, match=r'packed model. Type: quantal models add ".*my pack\.q'):
        load_model(path)


def test_adding_again_changes_nothing_and_another_of_the_name_is_refused(
    mine: Path, tmp_path: Path, home: Path
) -> None:
    first = add_model(mine)
    before = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    for again in (mine, pack_model(mine, tmp_path), home / "mine"):
        assert add_model(again).folder == first.folder
    assert {path: path.stat().st_mtime_ns for path in first.folder.iterdir()} == before
    changes = ({"content": b"better"}, {"threshold": 0.9})
    for n, change in enumerate(changes):
        other = write_model(tmp_path / str(n) / "mine", files=[GRAPH, "scout.onnx"], **change)
        with pytest.raises(ModelError, match=r"taken by another .* type: quantal models remove m"):
            add_model(other)
    assert {path: path.stat().st_mtime_ns for path in first.folder.iterdir()} == before
    assert left_in(home) == ["mine"]


def test_a_damaged_model_is_not_taken_for_the_same_and_can_be_removed_and_added_anew(
    mine: Path, home: Path
) -> None:
    add_model(mine)
    (home / "mine" / GRAPH).write_bytes(b"cut")
    with pytest.raises(ModelError, match="first type: quantal models remove mine"):
        add_model(mine)
    (home / "mine" / CARD).write_text("{")
    remove_model("mine")
    assert content_of(add_model(mine).folder)[GRAPH] == CONTENT


def test_what_is_no_model_is_never_replaced(mine: Path, home: Path) -> None:
    (home / "mine").mkdir(parents=True)
    (home / "mine" / "thesis.txt").write_text("three years")
    with pytest.raises(ModelError, match=r"is taken by a file in .* or first delete"):
        add_model(mine)
    assert content_of(home / "mine") == {"thesis.txt": b"three years"}
    with pytest.raises(ModelError, match=r"'mine' is not a model that was added.*: none"):
        remove_model("mine")


# Removing


def test_a_model_is_removed_and_the_others_stay(mine: Path, home: Path) -> None:
    add_model(mine)
    add_model(mine, name="other")
    remove_model("mine")
    assert left_in(home) == ["other"]
    for name in ("mine", "", "..", "../home", "other/..", "."):
        with pytest.raises(ModelError, match=r"not a model that was added; .*removed: other"):
            remove_model(name)
    assert left_in(home) == ["other"]


def test_a_folder_that_holds_more_than_a_model_is_left_as_it_is(mine: Path, home: Path) -> None:
    shutil.copytree(mine, home / "mine")
    before = content_of(home / "mine")
    with pytest.raises(ModelError, match=r"holds other things than a model \(notes\.txt\)"):
        remove_model("mine")
    assert content_of(home / "mine") == before
    (home / "mine" / "notes.txt").unlink()
    (home / "mine" / ".DS_Store").touch()
    remove_model("mine")
    assert left_in(home) == []


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_of_a_linked_model_only_the_link_is_removed(mine: Path, home: Path) -> None:
    home.mkdir(parents=True)
    (home / "linked").symlink_to(mine)
    assert load_model("linked").card.name == "mine"
    before = content_of(mine)
    remove_model("linked")
    assert left_in(home) == []
    assert content_of(mine) == before


# What comes from elsewhere


def check_refused(path: Path, said: str, home: Path) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        add_model(path)
    assert len(str(caught.value)) < 600
    assert left_in(home) == []
    assert installed_models() == {}


def test_what_is_not_there_is_refused(tmp_path: Path, home: Path) -> None:
    for wrong in (tmp_path / "none", Path("~nobody-of-this-name/x"), Path("a\0b"), Path("x" * 300)):
        check_refused(wrong, "there is no file or folder", home)
    check_refused(tmp_path, r"holds no card\.json", home)


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"a graph", bytes(3_000_000), b"PK\5\6" + bytes(9)]
)
def test_what_is_no_zip_file_is_refused(tmp_path: Path, home: Path, content: bytes) -> None:
    path = tmp_path / "a.quantal"
    path.write_bytes(content)
    check_refused(path, r"cannot be read as a packed model: .*; fetch it again", home)


def test_an_empty_zip_file_is_refused(tmp_path: Path, home: Path) -> None:
    path = tmp_path / "a.quantal"
    with zipfile.ZipFile(path, "w"):
        pass
    check_refused(path, r"holds no card\.json at its top level", home)


@pytest.mark.parametrize(
    "name",
    [
        *("notes.txt", "extra.onnx", "../model.onnx", "../../evil", "/etc/evil", "a/model.onnx"),
        *(
            "folder/",
            "..",
            ".",
            "..\\evil.onnx",
            "C:\\evil.onnx",
            "CARD.JSON",
            ".hidden",
            "x" * 999,
        ),
    ],
    ids=lambda name: name[:16],
)
def test_a_pack_holds_nothing_that_its_card_does_not_name(
    pack: Pack, home: Path, tmp_path: Path, name: str
) -> None:
    check_refused(pack({name: b"evil"}), "which its card does not name", home)
    assert not [path for path in tmp_path.rglob("*") if "evil" in path.name]


def test_a_name_is_read_to_its_end(pack: Pack, home: Path) -> None:
    path = pack({"model.onnx_txt": b"evil"})  # zipfile cuts a name at a NUL
    path.write_bytes(path.read_bytes().replace(b"model.onnx_txt", b"model.onnx\0txt"))
    check_refused(path, "which its card does not name", home)


@pytest.mark.parametrize(
    "name",
    [
        *("../evil.onnx", "../../evil.onnx", "/tmp/evil.onnx", "a/evil.onnx", "..\\evil.onnx"),
        *(
            "C:evil.onnx",
            ".onnx",
            "evil",
            "evil.onnx.exe",
            "card.json",
            "a evil.onnx",
            "",
            "x" * 999,
        ),
    ],
    ids=lambda name: name[:16],
)
def test_graphs_that_are_no_plain_files_are_refused_even_if_the_card_names_them(
    pack: Pack, home: Path, tmp_path: Path, name: str
) -> None:
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    members = {} if name in ("", CARD) else {name: CONTENT}
    path = pack(members, graphs={GRAPH: sha256, name: sha256})
    check_refused(path, r"in a pack graphs have names of letters", home)
    assert not [found for found in tmp_path.rglob("*") if "evil" in found.name]


def test_graphs_that_are_one_file_on_some_systems_are_refused(pack: Pack, home: Path) -> None:
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    path = pack({"Model.onnx": CONTENT}, graphs={GRAPH: sha256, "Model.onnx": sha256})
    check_refused(path, "differ in upper and lower case only", home)


@pytest.mark.parametrize("name", [CARD, GRAPH])
def test_members_of_the_same_name_are_refused(pack: Pack, home: Path, name: str) -> None:
    path = pack()
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as file:
        file.writestr(name, b"{}")
    check_refused(path, "several files of one name", home)


def test_a_member_that_is_missing_is_told(pack: Pack, home: Path) -> None:
    path = pack(graphs={GRAPH: "0" * 64, "scout.onnx": "0" * 64}, scout=SCOUT_FACTS)
    check_refused(path, r"lacks scout\.onnx, which its card names", home)
    check_refused(pack(graphs={}), r"does not name model\.onnx", home)


@pytest.mark.parametrize("sha256", ["0" * 64, "", None, 7, ["0"]])
def test_a_hash_that_does_not_match_is_refused(pack: Pack, home: Path, sha256: Any) -> None:
    check_refused(
        pack(graphs={GRAPH: sha256}), r"in .*foreign\.quantal is not the file that its.*again", home
    )


@pytest.mark.parametrize(
    ("card", "said"),
    [
        (b"", "cannot be read as a model card"),
        (b"\x80\x04\x95", "cannot be read as a model card"),
        (b"[" * 100_000, "cannot be read as a model card"),
        (b"[]", "is not a model card"),
        (b"{}", "not a complete model card"),
        (b'{"name": "a", "schema": 2}', "newer kind; update quantal"),
        (b'{"name": "' + b"a" * 100_000 + b'", "stride": -1}', "it must be 1 to 600 samples"),
        (b'{"name": "a", "threshold": 2}', "threshold 2, not 0 to 1"),
    ],
    ids=range(8),
)
def test_a_card_that_does_not_load_is_refused_by_the_name_of_its_pack(
    pack: Pack, home: Path, card: bytes, said: str
) -> None:
    path = pack({CARD: card})
    check_refused(path, said, home)
    if b'"a"' not in card and b"aaa" not in card:
        check_refused(path, r"card\.json in .*foreign\.quantal", home)


def test_a_card_that_cannot_be_written_again_is_refused(pack: Pack, home: Path) -> None:
    path = pack(licence="\ud800")
    with pytest.raises(ModelError, match="makes no sense"):
        add_model(path, name="other")
    assert left_in(home) == []


def flagged(path: Path, flag: int) -> Path:
    """The same file with a flag set in every entry, here and in the table of contents."""
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = data.find(signature)
        while at >= 0:
            data[at + offset] |= flag
            at = data.find(signature, at + 4)
    path.write_bytes(data)
    return path


def test_an_encrypted_pack_is_refused(pack: Pack, home: Path) -> None:
    check_refused(flagged(pack(), 0x01), "is encrypted; unpack it", home)
    check_refused(flagged(pack(), 0x20), "cannot be read as a packed model", home)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressions_that_unpack_without_a_limit_are_refused(
    pack: Pack, home: Path, method: int
) -> None:
    check_refused(pack(method=method), "compressed in an unusual way", home)


def test_a_pack_that_was_zipped_by_hand_is_a_pack(pack: Pack) -> None:
    assert add_model(pack(method=zipfile.ZIP_DEFLATED)).graph.read_bytes() == CONTENT


def test_what_is_too_large_is_refused_before_it_is_unpacked(
    pack: Pack, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = pack({CARD: bytes(4_000_001)}, zipfile.ZIP_DEFLATED)
    check_refused(bomb, "too large for a model card", home)
    monkeypatch.setattr(packs, "GRAPHS_BYTES", 1_000_000)
    monkeypatch.setattr(packs, "_pieces", lambda *_: pytest.fail("it was read"))
    for members in ({GRAPH: bytes(1_000_001)}, {"a": bytes(600_000), "b": bytes(600_000)}):
        check_refused(pack(members, zipfile.ZIP_DEFLATED), "a pack has room for 1 MB", home)


def test_a_pack_that_lies_about_its_size_is_never_unpacked_beyond_it(
    pack: Pack, home: Path
) -> None:
    path = pack({GRAPH: bytes(50_000_000)}, zipfile.ZIP_DEFLATED)
    size = (50_000_000).to_bytes(4, "little")
    assert path.read_bytes().count(size) == 2
    path.write_bytes(path.read_bytes().replace(size, (10).to_bytes(4, "little")))
    tracemalloc.start()
    check_refused(path, "cannot be read as a packed model: Bad CRC", home)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


def test_a_table_of_contents_that_is_too_large_is_refused(tmp_path: Path, home: Path) -> None:
    path = tmp_path / "a.quantal"
    with zipfile.ZipFile(path, "w") as file:
        for n in range(20):
            file.writestr(f"{n:060000}", b"")
    check_refused(path, "its table of contents is too large", home)


def test_a_pack_that_is_damaged_anywhere_is_refused_or_gives_the_same_model(
    pack: Pack, home: Path
) -> None:
    path = pack()
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [whole[:n] for n in rng.integers(0, len(whole), 40)]
    for at in (*rng.integers(0, len(whole), 80), *range(len(whole) - 120, len(whole))):
        changed = bytearray(whole)
        changed[at] ^= 1 << rng.integers(8)
        damaged.append(bytes(changed))
    card = read_card(add_model(path).folder)
    remove_model("mine")
    refused = 0
    for data in damaged:
        path.write_bytes(data)
        try:
            added = add_model(path)
        except ModelError:
            refused += 1
            assert left_in(home) == []
            continue
        assert added.card == card
        assert added.graph.read_bytes() == CONTENT
        remove_model("mine")
    assert refused > 0.6 * len(damaged)


# Interrupted


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
@pytest.mark.parametrize("packed", [True, False])
def test_nothing_is_left_of_what_was_stopped_half_way(
    mine: Path,
    tmp_path: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
    packed: bool,
) -> None:
    source = pack_model(mine, tmp_path) if packed else mine
    add_model(source, name="before")
    half = []

    def stop(*_: Any) -> Any:
        half.extend(path.name for path in home.glob(".*/*"))
        raise error

    monkeypatch.setattr(packs, "_rename", stop)
    with pytest.raises(error):
        add_model(source, name="after")
    assert set(half) == {CARD, GRAPH, "scout.onnx"}
    assert left_in(home) == ["before"]
    monkeypatch.undo()
    monkeypatch.setenv("QUANTAL_MODELS", str(home))
    assert add_model(source, name="after").folder == home / "after"


def test_nothing_is_left_of_a_graph_that_was_written_in_part(
    mine: Path, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack_model(mine, tmp_path)
    whole = packs._pieces

    def half(pack: zipfile.ZipFile, entry: zipfile.ZipInfo, source: Path) -> Any:
        for piece in whole(pack, entry, source):
            yield piece[: len(piece) if entry.filename == CARD else 9]
            if entry.filename != CARD:
                raise KeyboardInterrupt

    monkeypatch.setattr(packs, "_pieces", half)
    with pytest.raises(KeyboardInterrupt):
        add_model(path)
    assert left_in(home) == []


def test_a_full_disk_is_told_as_such(
    mine: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(packs.shutil, "copyfile", full)
    with pytest.raises(SaveError, match="models cannot be written: the disk is full"):
        add_model(mine)
    assert left_in(home) == []


def test_what_a_killed_process_left_is_no_model_and_is_cleared_away(mine: Path, home: Path) -> None:
    old, young = (write_model(home / f".quantal-{n}.tmp", name="half") for n in (1, 2))
    os.utime(old, (time.time() - 86_400,) * 2)
    assert installed_models() == {}
    add_model(mine)
    assert left_in(home) == [young.name, "mine"]


# The user's folder


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, "~/.local/share/quantal/models"),
        ("linux", {"XDG_DATA_HOME": "/data"}, "/data/quantal/models"),
        ("linux", {"XDG_DATA_HOME": "data"}, "~/.local/share/quantal/models"),
        ("darwin", {"XDG_DATA_HOME": "/data"}, "~/Library/Application Support/quantal/models"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/quantal/models"),
        ("win32", {}, "~/AppData/Local/quantal/models"),
        ("linux", {"QUANTAL_MODELS": "/mine"}, "/mine"),
        ("win32", {"QUANTAL_MODELS": "/mine", "LOCALAPPDATA": "/local"}, "/mine"),
        ("darwin", {"QUANTAL_MODELS": ""}, "~/Library/Application Support/quantal/models"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="the paths here are not of this system")
def test_models_are_kept_where_the_platform_keeps_data(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    platform: str,
    variables: dict[str, str],
    expected: str,
) -> None:
    for name in ("QUANTAL_MODELS", "XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(sys, "platform", platform)
    found = user_folder()
    monkeypatch.undo()  # pytest itself asks for the platform
    assert found == Path(expected.replace("~", str(tmp_path)))


def test_a_folder_of_models_may_be_given_from_here(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QUANTAL_MODELS", "lab")
    assert add_model(mine).folder == tmp_path / "lab" / "mine"


def test_without_a_home_the_shipped_models_still_load(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = write_model(tmp_path / "shipped" / "minis")
    monkeypatch.setattr(models_room, "_models_folder", lambda: shipped.parent)
    monkeypatch.setenv("QUANTAL_MODELS", "~nobody-of-this-name/models")
    assert load_model("minis").folder == shipped
    assert installed_models() == {}
    with pytest.raises(ModelError, match="set the environment variable QUANTAL_MODELS"):
        add_model(mine)


def test_a_folder_of_models_that_cannot_be_written_is_told(mine: Path, home: Path) -> None:
    home.parent.mkdir()
    home.write_text("a file")
    assert installed_models() == {}
    with pytest.raises(SaveError, match="models cannot be written: a part of its path is a file"):
        add_model(mine)


# The command line


def test_models_are_packed_added_listed_and_removed_by_typing(mine: Path, tmp_path: Path) -> None:
    packed = run("models", "pack", mine, "--out", tmp_path)
    assert packed.exit_code == 0, packed.output
    assert "type: quantal models add mine.quantal" in packed.stdout
    added = run("models", "add", tmp_path / "mine.quantal", "--name", "lab")
    assert added.exit_code == 0, added.output
    assert added.stdout.startswith("lab is installed in ")
    assert added.stdout.endswith("Type: quantal detect cell.abf --model lab\n")
    assert "lab (installed): windows, 12 ms, negative events" in run("models", "list").stdout
    rows = json.loads(run("models", "list", "--json").stdout)["models"]
    assert [row["name"] for row in rows if row["installed"]] == ["lab"]
    assert json.loads(run("models", "show", "lab").stdout)["name"] == "lab"
    removed = run("models", "remove", "lab")
    assert (removed.exit_code, removed.stdout.count("\n")) == (0, 1)
    assert "lab" not in run("models", "list").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["add", "none.quantal"], "there is no file or folder none.quantal"),
        (["add", "{mine}", "--name", "../up"], "cannot be a model's name"),
        (["add", "{mine}", "--name", "cnn-lstm"], "comes with quantal"),
        (["pack", "none"], "there is no model 'none'"),
        (["pack", "{mine}", "--out", "mine.zip"], "a packed model ends in .quantal"),
        (["remove", "cnn-lstm"], "comes with quantal and stays"),
        (["remove", "none"], "is not a model that was added"),
    ],
)
def test_what_is_typed_wrongly_is_told_in_one_line(
    mine: Path, home: Path, arguments: list[str], words: str
) -> None:
    result = run("models", *(a.format(mine=mine) for a in arguments))
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert words in result.stderr
    assert left_in(home) == []


def test_a_damaged_model_hides_no_other_and_is_told_of(
    mine: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models_room, "_models_folder", lambda: tmp_path / "none")
    add_model(mine)
    add_model(mine, name="other")
    (home / "mine" / CARD).write_text("{")
    lines = run("models", "list").stdout.splitlines()
    assert lines[0].startswith("mine (installed) cannot be used: ")
    assert lines[1].startswith("other (installed): windows")
    verified = run("models", "verify")
    assert verified.exit_code == 2
    first, second = verified.stdout.splitlines()
    assert first.startswith("mine not verified: ")
    assert second == "other not verified: its card holds no test vector; export the model again."

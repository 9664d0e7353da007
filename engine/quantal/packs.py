"""Model folders -> packs and back: models shared as one file, added to the user's own, removed.

A pack is a zip file of card.json and the graphs that the card names, and of nothing else. One from
elsewhere is not trusted: only what the card names is read, up to a limit, and checked by its hash.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from quantal.disk import SCRATCH, replacing, scratch_folder
from quantal.errors import ModelError, UsageError
from quantal.model import (
    CARD,
    CARD_BYTES,
    GRAPH,
    PACK,
    Card,
    Model,
    installed_models,
    load_model,
    parse_card,
    shipped_models,
    user_folder,
    write_card,
)

GRAPHS_BYTES = 256_000_000  # of all graphs of a model together
_PIECE = 1 << 20  # bytes; nothing of a pack is read in larger pieces
_ABANDONED_S = 3600.0
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_ENCRYPTED = 1
# bzip2 and LZMA unpack without a limit to memory.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError),
    *(ValueError, OverflowError),
)


def pack_model(model: str | Path | Model, path: str | Path | None = None) -> Path:
    """Pack a model into one file to share, and say where it is.

    path: a file that ends in .quantal, or a folder for one named as the model; None is the current
    folder. The same model gives the same bytes, everywhere.
    Raises ModelError if the model is not intact, SaveError if the file cannot be written.
    """
    loaded = load_model(model.folder if isinstance(model, Model) else model)
    _check_graphs(loaded.card, f"the card in {loaded.folder}")
    _check_size(
        sum((loaded.folder / name).stat().st_size for name in loaded.card.graphs), loaded.folder
    )
    target = _pack_path(loaded.card, Path(os.path.expanduser(path or Path())))
    with (
        replacing(target) as temporary,
        # not compressed: weights hardly shrink, and zlib's output depends on its version
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as pack,
    ):
        for name in (CARD, *loaded.card.graphs):
            entry = zipfile.ZipInfo(name)  # of 1980, as the clock must not matter
            entry.create_system, entry.external_attr = 3, 0o644 << 16  # nor the system
            pack.writestr(entry, (loaded.folder / name).read_bytes())
    return target


def add_model(path: str | Path, *, name: str | None = None) -> Model:
    """Add a packed model, or a model folder, to the user's own models.

    name: what to call it from now on; None is the name in its card. To add the same model again
    changes nothing. Raises ModelError if it is no intact model, or its name is taken or cannot be
    the name of a folder; SaveError if the user's folder cannot be written.
    """
    source = Path(os.path.expanduser(path))
    if not os.path.isdir(source) and not os.path.isfile(source):
        raise ModelError(f"there is no file or folder {path}: give a packed model or its folder.")
    home = user_folder()
    _sweep(home)
    with scratch_folder(home) as fresh:
        card = _copy(source, fresh) if source.is_dir() else _unpack(source, fresh)
        called = checked_name(card.name if name is None else name)
        if called != card.name:
            _rename(card, called, fresh)
        card = load_model(fresh).card
        _install(fresh, home / called)
    return Model(card=card, folder=home / called)


def remove_model(name: str) -> None:
    """Remove a model from the user's own; raises ModelError if there is none of that name."""
    installed = installed_models()
    if name not in installed:
        reason = (
            "comes with quantal and stays"
            if name in shipped_models()
            else "is not a model that was added"
        )
        raise ModelError(
            f"{name!r} {reason}; those that can be removed: {', '.join(installed) or 'none'}."
        )
    folder = installed[name]
    with scratch_folder(folder.parent) as leaving:
        if not folder.is_symlink():  # of a link only the link goes
            _check_only_a_model(folder)
        os.rename(folder, leaving / name)


# Packing


def _pack_path(card: Card, path: Path) -> Path:
    if path.is_dir():
        if not _NAME.fullmatch(card.name):
            raise ModelError(
                f"the model's name {card.name[:60]!r} cannot be a file's name; give the pack "
                f"another one, such as {path / 'mine'}{PACK}."
            )
        return path / f"{card.name}{PACK}"
    if path.suffix != PACK:
        raise UsageError(
            f"a packed model ends in {PACK}, got {path.name!r}; give {path}{PACK}, or a folder "
            "that is there."
        )
    return path


# Adding


def _copy(source: Path, fresh: Path) -> Card:
    """Copy what makes a model from one folder to another."""
    card = load_model(source).card
    _check_graphs(card, f"the card in {source}")
    for name in (CARD, *card.graphs):
        shutil.copyfile(source / name, fresh / name)
    return card


def _unpack(source: Path, fresh: Path) -> Card:
    """Write the parts of a pack into a folder once it is known that it holds nothing else."""
    with _guarded(source) as file, _opened(file, source) as pack:
        members = _members(pack, source)
        text = b"".join(_pieces(pack, members[CARD], source))
        card = parse_card(text, f"{CARD} in {source}")
        _check_graphs(card, f"{CARD} in {source}")
        _check_members(members, card, source)
        (fresh / CARD).write_bytes(text)
        for name, sha256 in card.graphs.items():
            digest = hashlib.sha256()
            with (fresh / name).open("wb") as graph:
                for piece in _pieces(pack, members[name], source):
                    digest.update(piece)
                    graph.write(piece)
            if digest.hexdigest() != sha256:
                raise ModelError(
                    f"{name} in {source} is not the file that its card describes (sha256 "
                    f"{digest.hexdigest()[:12]}..., the card says {str(sha256)[:12]}...): fetch "
                    "the pack again."
                )
    return card


def _rename(card: Card, name: str, fresh: Path) -> None:
    try:
        write_card(replace(card, name=name), fresh)
    except (ValueError, RecursionError) as error:  # text that is none, or nested without end
        raise ModelError(f"the card of model {card.name[:60]!r} makes no sense: {error}.") from None


def _install(fresh: Path, target: Path) -> None:
    """Give a complete model folder its name, unless that is taken by another model."""
    if not os.path.lexists(target):
        os.rename(fresh, target)
    elif not _same(fresh, target):
        is_model = target.name in installed_models()
        remedy = f"type: quantal models remove {target.name}" if is_model else f"delete {target}"
        raise ModelError(
            f"the name {target.name!r} is taken by {'another model' if is_model else 'a file'} in "
            f"{target.parent}: give this model another --name, or first {remedy}"
        )


def _same(fresh: Path, target: Path) -> bool:
    """Whether an intact model is there already; equal cards name equal graphs."""
    try:
        load_model(target)
    except ModelError:
        return False
    return (fresh / CARD).read_bytes() == (target / CARD).read_bytes()


def checked_name(name: str) -> str:
    """A name that is a plain folder's on every system and hides no shipped model."""
    if plain_name(name).casefold() in {shipped.casefold() for shipped in shipped_models()}:
        raise ModelError(
            f"{name!r} is a model that comes with quantal; give this one another --name."
        )
    return name


def plain_name(name: str) -> str:
    """A name that is a plain folder's on every system."""
    if not _NAME.fullmatch(name) or name.endswith("."):
        raise ModelError(
            f"{name[:60]!r} cannot be a model's name: it takes 1 to 100 letters (a to z), digits, "
            ". _ and -, and begins with a letter or digit; give it another --name."
        )
    return name


def _sweep(home: Path) -> None:
    """Delete what a killed process left here."""
    for left in home.glob(SCRATCH):
        try:
            abandoned = time.time() - left.stat().st_mtime > _ABANDONED_S
        except OSError:
            continue  # another process was faster
        if abandoned:
            shutil.rmtree(left, ignore_errors=True)


# Removing


def _check_only_a_model(folder: Path) -> None:
    """Nothing else is deleted with a model, such as the notes and windows of its training."""
    others = sorted(entry.name for entry in folder.iterdir() if not _is_part(entry))
    if others:
        raise ModelError(
            f"{folder} holds other things than a model ({', '.join(others[:3])}) and is left as "
            "it is; move them away, or delete the folder yourself."
        )


def _is_part(entry: Path) -> bool:
    """Whether a file belongs to a model, or is what macOS leaves in every folder."""
    known = entry.name in (CARD, ".DS_Store") or entry.suffix == ".onnx"
    return known and not entry.is_dir()


# What may be in a pack


def _members(pack: zipfile.ZipFile, source: Path) -> dict[str, zipfile.ZipInfo]:
    """What a pack holds by name: each once, readable, not too large, one of them the card."""
    members = {entry.orig_filename: entry for entry in pack.infolist()}
    if len(members) != len(pack.infolist()):
        raise ModelError(f"{source} holds several files of one name, which no model does.")
    if CARD not in members:
        raise ModelError(f"{source} holds no {CARD} at its top level, so it is no packed model.")
    if any(entry.flag_bits & _ENCRYPTED for entry in members.values()):
        raise ModelError(f"{source} is encrypted; unpack it, and add the folder.")
    if any(entry.compress_type not in _METHODS for entry in members.values()):
        raise ModelError(f"{source} is compressed in an unusual way; unpack it, add the folder.")
    if members[CARD].file_size > CARD_BYTES:
        raise ModelError(f"{CARD} in {source} is too large for a model card.")
    graphs = sum(entry.file_size for entry in members.values()) - members[CARD].file_size
    _check_size(graphs, source)
    return members


def _check_members(members: Mapping[str, object], card: Card, source: Path) -> None:
    wanted = {CARD, *card.graphs}
    if missing := sorted(wanted - set(members)):
        raise ModelError(f"{source} lacks {missing[0]}, which its card names: fetch it again.")
    if strange := sorted(set(members) - wanted):
        raise ModelError(
            f"{source} holds {strange[0][:60]!r}, which its card does not name; a pack holds "
            "nothing but a model."
        )


def _check_size(graphs: int, where: Path) -> None:
    if graphs > GRAPHS_BYTES:
        raise ModelError(
            f"{where} holds graphs of {graphs / 1e6:,.0f} MB; a pack has room for "
            f"{GRAPHS_BYTES / 1e6:g} MB."
        )


def _check_graphs(card: Card, where: str) -> None:
    """Graphs have names that are plain files' on every system, and model.onnx is one of them."""
    if GRAPH not in card.graphs:
        raise ModelError(f"{where} does not name {GRAPH}, so there is no model.")
    for name in card.graphs:
        if not _NAME.fullmatch(name) or not name.endswith(".onnx"):
            raise ModelError(
                f"{where} names {name[:60]!r}; in a pack graphs have names of letters (a to z), "
                "digits, . _ and - that end in .onnx."
            )
    if len({name.casefold() for name in card.graphs}) < len(card.graphs):
        raise ModelError(f"{where} names graphs that differ in upper and lower case only.")


# Reading a zip file that may be hostile


class _Guarded(io.BufferedReader):
    """A file that is not read in large pieces, whatever its own table of contents asks for."""

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = _PIECE + 1 if size is None or size < 0 else size
        data = super().read(min(wanted, _PIECE + 1))
        if len(data) > _PIECE:
            raise zipfile.BadZipFile("its table of contents is too large")
        return data


def _guarded(source: Path) -> _Guarded:
    with _told(source):
        return _Guarded(io.FileIO(source))


def _opened(file: _Guarded, source: Path) -> zipfile.ZipFile:
    with _told(source):
        return zipfile.ZipFile(file)


def _pieces(pack: zipfile.ZipFile, entry: zipfile.ZipInfo, source: Path) -> Iterator[bytes]:
    """The content of a file in a pack; never more than the size that its entry states."""
    with _told(source), pack.open(entry) as member:
        while piece := member.read(_PIECE):
            yield piece


@contextmanager
def _told(source: Path) -> Iterator[None]:
    """Whatever can go wrong in reading a zip file, in one sentence."""
    try:
        yield
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(
            f"{source} cannot be read as a packed model: {reason}; fetch it again."
        ) from None

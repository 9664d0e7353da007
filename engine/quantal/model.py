"""A model folder -> Model: the card that says what goes in and comes out, and the graphs.

How models are packed, added and removed is told in packs.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.errors import ModelError

CARD, GRAPH, SCOUT = "card.json", "model.onnx", "scout.onnx"
CARD_BYTES = 4_000_000  # no honest card is larger
PACK = ".quantal"  # suffix of a model folder packed into one file
DEFAULT_MODEL = "minis"
_SCHEMA = 1
_KEPT_ELSEWHERE = b"\n\x08location"  # how ONNX says in which other file a tensor lies
_LONGEST_WINDOW = 1_000_000  # samples; nor does one ask for this much memory at a time
_KINDS = {"str": str, "int": int, "float": int | float, "dict": dict, "list": list}
_ALLOWED = {
    "task": ("events",),
    "kind": ("windows", "trace"),
    "scaling": ("minmax", "noise"),
    "polarity": ("negative", "positive"),
    "direction": ("negative", "positive", "both"),
}


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a network is for, what it takes and what it gives.

    task: what the outputs mean; "events" is the probability that an event is here.
    kind: "windows" scores one window at a time, "trace" the whole trace at once.
    window_samples, window_ms, rate_hz: the window as it was trained; to a trace network it is only
    the time scale.
    scaling: "minmax" maps each window to 0..1, "noise" a trace to multiples of its noise.
    polarity: which way events point in the windows that the network was trained on.
    direction: which way events point in a recording unless the user says otherwise.
    threshold: the score from which a stretch holds an event.
    stride: samples (of the network's input) between windows in a dense scan, or between the scores
    of a trace network.
    margin_samples: how far, either side, samples change the score of a trace network.
    unit_samples: what it reads may begin at any multiple of this, and is a multiple of it long; 0
    means the margin.
    reference_sample: the sample that a score speaks for, counted from its window's first or, in a
    trace network, from the first of its `stride` samples.
    search_samples: how far beyond a stretch of high scores its event can lie, either side.
    graphs: file name -> sha256 of its bytes.
    scout: how scout.onnx, if the folder has one, is read (samples from one look to the next and in
    an average), the part of a threshold that a window must score to lead to others, and levels:
    thresholds in order, and the value from which a window is suspect.
    test_inputs, test_scores: scaled windows and the scores that the graph must give for them.
    """

    name: str
    task: str = "events"
    kind: str = "windows"
    window_samples: int = 600
    window_ms: float = 12.0
    rate_hz: float = 50_000.0
    scaling: str = "minmax"
    polarity: str = "negative"
    direction: str = "negative"
    threshold: float = 0.5
    stride: int = 20
    margin_samples: int = 0
    unit_samples: int = 0
    reference_sample: int = 225
    search_samples: int = 75
    output: str = "probability that the window holds an event"
    graphs: dict[str, str] = field(default_factory=dict)
    scout: dict[str, Any] = field(default_factory=dict, repr=False)
    training: dict[str, Any] = field(default_factory=dict, repr=False)
    licence: str = ""
    citation: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    test_inputs: list[list[float]] = field(default_factory=list, repr=False)
    test_scores: list[float] = field(default_factory=list, repr=False)
    schema: int = _SCHEMA

    def __post_init__(self) -> None:
        _check_kinds(self)
        for name, allowed in _ALLOWED.items():
            if getattr(self, name) not in allowed:
                raise ModelError(
                    f"the card of model {_shown(self.name)} has {name} "
                    f"{_shown(getattr(self, name))}; "
                    f"this version of quantal knows {', '.join(allowed)}."
                )
        if self.schema > _SCHEMA:
            raise ModelError(
                f"the card of model {_shown(self.name)} is of a newer kind; update quantal."
            )
        _check_numbers(self)
        if SCOUT in self.graphs or self.scout:
            _check_scout(self)


@dataclass(frozen=True, eq=False, kw_only=True)
class Model:
    """A card and the folder that holds its graphs, whose hashes have been checked."""

    card: Card
    folder: Path

    @property
    def graph(self) -> Path:
        """The network itself."""
        return self.folder / GRAPH


def load_model(model: str | Path | Model | None = None) -> Model:
    """A shipped or installed model by name, any model by its folder; None is the default model.

    A text that is a name is never taken for a folder: ./minis is the folder, minis the name.
    Raises ModelError if there is no such model, or its files are not those the card names.
    """
    if isinstance(model, Model):
        return model
    folder = _find(DEFAULT_MODEL if model is None else model)
    card = read_card(folder)
    if GRAPH not in card.graphs:
        raise ModelError(f"the card in {folder} does not name {GRAPH}; the folder is not a model.")
    for name, sha256 in card.graphs.items():
        _check_graph(folder, name, sha256)
    return Model(card=card, folder=folder)


def shipped_models() -> dict[str, Path]:
    """The models that come with quantal: name -> folder."""
    return {
        folder.name: folder
        for folder in sorted(_models_folder().glob("*"))
        if (folder / CARD).is_file()
    }


def installed_models() -> dict[str, Path]:
    """The models in the user's own folder: name -> folder."""
    try:
        folders = sorted(user_folder().glob("*"))
    except (ModelError, OSError):
        return {}
    return {
        folder.name: folder
        for folder in folders
        if not folder.name.startswith(".") and os.path.isfile(folder / CARD)
    }


def known_models() -> dict[str, Path]:
    """All models that have a name here, the shipped ones first and never hidden by others."""
    shipped = shipped_models()
    return shipped | {n: folder for n, folder in installed_models().items() if n not in shipped}


def user_folder() -> Path:
    """Where the user's own models are: QUANTAL_MODELS, or the platform's place for user data."""
    try:
        if chosen := os.environ.get("QUANTAL_MODELS"):
            return Path(chosen).expanduser().absolute()
        if sys.platform == "win32":
            local = os.environ.get("LOCALAPPDATA")
            data = Path(local) if local else Path.home() / "AppData" / "Local"
        elif sys.platform == "darwin":
            data = Path.home() / "Library" / "Application Support"
        else:
            xdg = os.environ.get("XDG_DATA_HOME", "")  # to be passed over unless absolute
            data = Path(xdg) if os.path.isabs(xdg) else Path.home() / ".local" / "share"
    except RuntimeError:
        raise ModelError(
            "this user has no home folder to keep models in: set the environment variable "
            "QUANTAL_MODELS to a folder."
        ) from None
    return data / "quantal" / "models"


def read_card(folder: Path) -> Card:
    """The card of a model folder; raises ModelError if it is missing or makes no sense."""
    path = folder / CARD
    try:
        if path.stat().st_size > CARD_BYTES:
            raise ModelError(f"{path} is too large for a model card ({path.stat().st_size} bytes).")
        content = path.read_bytes()
    except FileNotFoundError:
        raise ModelError(
            f"{folder} holds no {CARD}; a model is a folder with {CARD} and {GRAPH}."
        ) from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read as a model card: {error}.") from None
    return parse_card(content, path)


def parse_card(content: bytes, where: str | Path) -> Card:
    """The card that a card.json of this content is; where: what errors call the file.

    Raises ModelError if it makes no sense.
    """
    try:
        values = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{where} cannot be read as a model card: {error}.") from None
    if not isinstance(values, dict):
        raise ModelError(f"{where} is not a model card.")
    known = {f.name for f in fields(Card)}
    try:
        return Card(**{name: value for name, value in values.items() if name in known})
    except TypeError as error:
        raise ModelError(f"{where} is not a complete model card: {error}.") from None


def write_card(card: Card, folder: Path) -> None:
    """Write card.json, readable and in a fixed order."""
    content = asdict(card)
    vectors = {name: content.pop(name) for name in ("test_inputs", "test_scores")}
    text = json.dumps(content, indent=1, ensure_ascii=False)
    for name, value in vectors.items():  # numbers in one line, or the card would be all vector
        text = text[:-2] + f",\n {json.dumps(name)}: {json.dumps(value)}\n}}"
    (folder / CARD).write_text(text + "\n", encoding="utf-8")


def sha256_of(path: Path) -> str:
    """The hash by which a card knows its graphs."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def stored_test(card: Card) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scaled inputs (n, samples) and the scores (n, or n x m in a row) that the graph must give."""
    with np.errstate(over="ignore"):
        inputs = np.asarray(card.test_inputs, np.float32)
        scores = np.asarray(card.test_scores, np.float32)
    if card.kind == "windows":
        inputs = inputs.reshape(-1, card.window_samples)
    return inputs, scores


def _models_folder() -> Path:
    """Beside the package in a wheel; at the top of the checkout in an editable install."""
    package = Path(__file__).resolve().parent
    inside = package / "models"
    return inside if inside.is_dir() else package.parents[1] / "models"


def _find(model: str | Path) -> Path:
    known = known_models()
    if isinstance(model, str) and model in known:
        return known[model]
    try:
        path = Path(model).expanduser()
        if path.is_dir():
            return path
        is_pack = path.suffix == PACK and path.is_file()
    except (OSError, RuntimeError, TypeError, ValueError):
        is_pack = False  # not a path that any system could have
    if is_pack:
        raise ModelError(f"{model} is a packed model. Type: quantal models add {as_typed(model)}")
    raise ModelError(
        f"there is no model {_shown(str(model))}: give a model folder, or one that is known by "
        f"its name ({', '.join(known) or 'none'})."
    )


def _check_graph(folder: Path, name: str, sha256: str) -> None:
    path = folder / name
    if Path(name).name != name or not path.is_file():
        raise ModelError(f"the card in {folder} names {name!r}, which is not there.")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ModelError(
            f"{path} is not the file that its card describes (sha256 {found[:12]}..., "
            f"the card says {str(sha256)[:12]}...): fetch the model folder again."
        )
    if _KEPT_ELSEWHERE in content:
        raise ModelError(
            f"{path} keeps weights in other files, for which its card does not vouch. Save it with "
            "all in one file: python -c \"import onnx; onnx.save(onnx.load('OLD.onnx'), "
            "'NEW.onnx')\", and export the model again."
        )


def _check_kinds(card: Card) -> None:
    for f in fields(card):
        value = getattr(card, f.name)
        kind = next(kind for word, kind in _KINDS.items() if str(f.type).startswith(word))
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ModelError(
                f"the card of model {_shown(card.name)} has {f.name} {_shown(value)}, "
                f"which is not {f.type}."
            )


def _check_numbers(card: Card) -> None:
    last = card.window_samples
    allowed = {
        "window_samples": (1, _LONGEST_WINDOW),
        "stride": (1, last),
        "reference_sample": (0, last - 1),
        "search_samples": (0, last),
        "margin_samples": (0, _LONGEST_WINDOW),
        "unit_samples": (0, _LONGEST_WINDOW),
    }
    for name, (low, high) in allowed.items():
        if not low <= getattr(card, name) <= high:
            raise ModelError(
                f"the card of model {_shown(card.name)} has {name} {_shown(getattr(card, name))}; "
                f"it must be {low} to {high} samples."
            )
    unit = card.unit_samples
    if unit and (card.margin_samples % unit or unit % card.stride):
        raise ModelError(
            f"the card of model {_shown(card.name)} has unit_samples {unit}; it must be a multiple "
            f"of the stride ({card.stride}) that divides the margin ({card.margin_samples})."
        )
    for name in ("window_ms", "rate_hz"):
        if not 0 < getattr(card, name) < 1e12:
            raise ModelError(
                f"the card of model {_shown(card.name)} has {name} {_shown(getattr(card, name))}; "
                "it must lie between 0 and 1e12."
            )
    if not 0 < card.threshold < 1:
        raise ModelError(
            f"the card of model {_shown(card.name)} has threshold {_shown(card.threshold)}, "
            "not 0 to 1."
        )


def _check_scout(card: Card) -> None:
    if SCOUT not in card.graphs:
        raise ModelError(f"the card of model {_shown(card.name)} has a scout, but no {SCOUT}.")
    if card.kind != "windows" or not _is_scout(card):
        raise ModelError(
            f"the card of model {_shown(card.name)} has a scout that makes no sense; it needs "
            "hop_samples (a multiple of the stride), bin_samples (of which hop and window are "
            "multiples), felt (above 0, at most 0.1) and levels, none lower than that of a lower "
            "threshold; the model must read windows."
        )


def _is_scout(card: Card) -> bool:
    """Whether averages fit hops and windows, and levels are pairs that rise with the threshold."""
    scout, window = card.scout, card.window_samples
    try:
        hop, size = scout["hop_samples"], scout["bin_samples"]
        levels = [(float(reached), float(level)) for reached, level in scout["levels"]]
        fits = isinstance(hop, int) and 1 <= size <= hop and hop % size == window % size == 0
        fits = fits and hop % card.stride == 0 and 0 < float(scout["felt"]) <= 0.1
    except (KeyError, TypeError, ValueError):
        return False
    finite = all(math.isfinite(level) and 0 < reached < 1 for reached, level in levels)
    rising = all(a < b and x <= y for (a, x), (b, y) in pairwise(levels))
    return isinstance(size, int) and fits and finite and rising and len(levels) > 0


def as_typed(path: str | Path) -> str:
    """A path as it is typed after a command."""
    return f'"{path}"' if " " in str(path) else str(path)


def _shown(value: object) -> str:
    """A value as an error shows it: short, whatever it is."""
    text = repr(value)
    return text if len(text) < 60 else text[:56] + " ..."

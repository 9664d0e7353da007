"""The public surface, and the rooms behind it: what is there, documented and who knows whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from inspect import getdoc, isclass, isfunction, signature
from pathlib import Path
from types import ModuleType

import pytest

import quantal

HOUSE = Path(quantal.__file__).parent
FILES = sorted(HOUSE.rglob("*.py"))
NAMES = {
    *("Events", "Model", "QuantalError", "Scores", "Trace", "detect", "join", "load_events"),
    *("load_model", "read", "scan", "OnlineDetector", "shipped_models", "__version__"),
    *("Rois", "read_rois", "detect_rois", "per_roi"),
}
# In the order in which data flow: a room imports only rooms above it.
ROOMS = (
    *(
        "errors",
        "kernel",
        "trace",
        "suspect",
        "imaging",
        "events",
        "readers",
        "tail",
        "filters",
        "windows",
    ),
    "model",
    *(
        "cutting",
        "runtime",
        "noise",
        "blocks",
        "peaks",
        "scout",
        "screen",
        "scan",
        "locate",
        "landmarks",
        "fitting",
        "waveform",
        "kinetics",
        "average",
        "joint",
        "groups",
        "fits",
        "classical",
        "timescale",
        "detect",
        "baseline",
        "rois",
        "tables",
        "disk",
        "save",
        "rejections",
        "miniml",
        "packs",
        "simulate",
    ),
    *("layout", "drawing", "report", "roi_report", "lanes", "online", "early", "sources", "rig"),
    *("ending", "claims", "sinks", "backlog", "outlets", "stream", "doctor"),
    *(
        "bench",
        "recurring",
        "commands",
        "lot",
        "watch",
        "roi_job",
        "workers",
        "batch",
        "stats",
        "cli",
    ),
)
# What only these rooms may import, so that the rest works without it.
ALONE = {
    "onnxruntime": ("runtime.py",),
    "pyabf": ("readers",),
    "neo": ("readers",),
    "pynwb": ("tables.py",),
    "openpyxl": ("tables.py",),
    "matplotlib": ("drawing.py", "report.py"),
    "zmq": ("sources.py",),
    "pylsl": ("sources.py",),
    "tensorflow": (),
    "keras": (),
    "onnx": ("cutting.py",),  # where a GPU is used
    "quantal_trainer": (),
}


def test_the_public_surface_is_exactly_this() -> None:
    assert set(quantal.__all__) == NAMES
    assert len(quantal.__all__) == len(NAMES)
    assert set(dir(quantal)) >= NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_public_name_is_there_and_says_what_it_is(name: str) -> None:
    found = getattr(quantal, name)
    if name == "__version__":
        assert isinstance(found, str)
        return
    assert isclass(found) or isfunction(found)
    assert getattr(quantal, name) is found  # the second time too
    assert len(getdoc(found) or "") > 20


@pytest.mark.parametrize("first", ["quantal.scan", "quantal.detect", "quantal.cli"])
def test_a_function_is_not_hidden_by_the_room_of_the_same_name(first: str) -> None:
    # Importing a module sets it as an attribute of its package, in place of what was there.
    code = (
        f"import importlib, quantal; importlib.import_module({first!r})\n"
        "for _ in range(2):\n"
        "    assert callable(quantal.scan) and callable(quantal.detect)\n"
        "from quantal import detect, scan\n"
        "assert callable(scan) and callable(detect)\n"
        "from quantal.scan import Scores\n"
        "assert callable(quantal.scan)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'detekt'"):
        quantal.detekt  # noqa: B018
    assert not hasattr(quantal, "EventDetection")


def test_everything_can_be_imported_at_once() -> None:
    names: dict[str, object] = {}
    exec("from quantal import *", names)
    assert set(names) >= NAMES - {"__version__"}
    assert not isinstance(names["scan"], ModuleType)


def test_detect_takes_what_is_promised() -> None:
    promised = (
        "trace model detector window_ms direction threshold stride method smooth_ms "
        "measure_ms device threads"
    )
    found = signature(quantal.detect).parameters
    assert list(found) == promised.split()
    assert all(p.kind is p.KEYWORD_ONLY for p in list(found.values())[1:])


def test_errors_meant_for_the_user_have_one_root_and_a_way_out() -> None:
    errors = import_module("quantal.errors")
    kinds = [kind for kind in vars(errors).values() if isclass(kind)]
    assert len(kinds) >= 6
    assert all(issubclass(kind, quantal.QuantalError) for kind in kinds)
    assert {kind.exit_code for kind in kinds} <= {2, 3, 4}
    assert issubclass(errors.UsageError, ValueError)


def public_parts(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Public functions, classes and their methods by name."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node
            for part in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(part, ast.FunctionDef) and not part.name.startswith("_"):
                    yield f"{node.name}.{part.name}", part


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_every_public_function_and_class_has_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "the module itself"
    silent = [name for name, node in public_parts(tree) if not ast.get_docstring(node)]
    assert silent == []


def imported(nodes: list[ast.stmt]) -> Iterator[str]:
    """Modules that statements import when they run, those meant for type checkers left out."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_a_room_imports_only_rooms_above_it(path: Path) -> None:
    own = path.relative_to(HOUSE).parts[0].removesuffix(".py")
    if own in ("__init__", "__main__"):
        return
    assert own in ROOMS, "a new room: give it its place in ROOMS"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    used = {name.split(".")[1] for name in imported(tree.body) if name.startswith("quantal.")}
    below = [room for room in used & set(ROOMS) if ROOMS.index(room) > ROOMS.index(own)]
    assert below == []


@pytest.mark.parametrize("module", sorted(ALONE))
def test_what_one_room_alone_may_import_no_other_does(module: str) -> None:
    for path in FILES:
        if path.relative_to(HOUSE).parts[0] in ALONE[module]:
            continue
        statements = [
            n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.stmt)
        ]
        roots = {name.split(".")[0] for name in imported(statements)}
        assert module not in roots, path.name

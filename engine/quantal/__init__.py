"""quantal finds and measures synaptic events in long traces."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

# ONNX Runtime reads this once, when it is first imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from quantal.detect import detect
    from quantal.errors import QuantalError
    from quantal.events import Events, join
    from quantal.model import Model, load_model, shipped_models
    from quantal.online import OnlineDetector
    from quantal.readers import read
    from quantal.save import load_events
    from quantal.scan import Scores, scan
    from quantal.trace import Trace

__version__ = "0.1.0"

__all__ = [
    "Events",
    "Model",
    "OnlineDetector",
    "QuantalError",
    "Scores",
    "Trace",
    "__version__",
    "detect",
    "join",
    "load_events",
    "load_model",
    "read",
    "scan",
    "shipped_models",
]

_ROOMS = {
    "Events": "events",
    "Model": "model",
    "OnlineDetector": "online",
    "QuantalError": "errors",
    "Scores": "scan",
    "Trace": "trace",
    "detect": "detect",
    "join": "events",
    "load_events": "save",
    "load_model": "model",
    "read": "readers",
    "scan": "scan",
    "shipped_models": "model",
}


def __getattr__(name: str) -> Any:
    """Open a room when something in it is first asked for, so that importing quantal is quick."""
    if name not in _ROOMS:
        raise AttributeError(f"module 'quantal' has no attribute {name!r}")
    return getattr(import_module(f"quantal.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return __all__


class _House(ModuleType):
    """Keeps quantal.scan and quantal.detect the functions once the rooms of that name are open.

    Python sets an imported room as an attribute of its package, in place of what was there.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _ROOMS and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _House

"""quantal finds and measures synaptic events in long traces."""

from __future__ import annotations

import os

# ONNX Runtime reads this once, when it is first imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"

"""The recipes of the shipped models run from nothing to models that detect."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from quantal.detect import detect
from quantal.model import load_model
from quantal.simulate import simulate_recording

_RECIPE = Path(__file__).resolve().parents[2] / "tools" / "make_models.py"


def seeds(training: dict[str, Any]) -> list[int]:
    """All that the card tells of the random numbers of a training."""
    found = []
    for name, value in training.items():
        if name == "seed":
            found.append(value)
        elif isinstance(value, dict):
            found += seeds(value)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "seed", "largest"),
    [("cnn-lstm", 11, 1.0e6), ("minis", 21, 1.4e6), ("optical-minis", 31, 1.4e6)],
)
def test_the_quick_recipe_makes_a_model_folder(
    tmp_path: Path, name: str, seed: int, largest: float
) -> None:
    done = subprocess.run(
        [sys.executable, str(_RECIPE), name, "--quick", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    model = load_model(tmp_path / name)
    assert seed in seeds(model.card.training)
    assert model.graph.stat().st_size < largest
    trace, _ = simulate_recording(seconds=4, seed=0)
    detect(trace, model=model)  # it need not be good, but it must run

"""The recipe of the shipped models runs from nothing to a model that detects."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from quantal.detect import detect
from quantal.model import load_model
from quantal.simulate import simulate_recording

_RECIPE = Path(__file__).resolve().parents[2] / "tools" / "make_models.py"


@pytest.mark.slow
def test_the_quick_recipe_makes_a_model_folder(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(_RECIPE), "cnn-lstm", "--quick", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    model = load_model(tmp_path / "cnn-lstm")
    assert model.card.training["recipe"]["seed"] == 11
    assert model.graph.stat().st_size < 1_000_000
    trace, _ = simulate_recording(seconds=1, seed=0)
    detect(trace, model=model)  # it need not be good, but it must run

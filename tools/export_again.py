"""Export models again, with the weights that they have: their graphs as they are written today.

    python tools/export_again.py models/cnn-lstm models/minis [FOLDER ...]

Needs the train extra. The card stays, but for the graph's hash, the versions and the test vector. A
scout stays as it is: the scores that it foretells are the same.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quantal.model import SCOUT, Model, load_model, write_card
from quantal_trainer.export import export_model, onnx_scores, simulated_windows
from quantal_trainer.restore import restore

Array = NDArray[np.float32]


def compared(model: Model) -> Array:
    """Windows on which old and new graph are compared; of a trace network its test vector."""
    if model.card.kind == "trace":
        return np.array(model.card.test_inputs, np.float32)
    return simulated_windows(model.card.window_samples, model.card.polarity)


def give_back(again: Model, scout: bytes, model: Model) -> None:
    """Put the scout that the model had into its new folder."""
    (again.folder / SCOUT).write_bytes(scout)
    graphs = {**again.card.graphs, SCOUT: model.card.graphs[SCOUT]}
    write_card(replace(again.card, graphs=graphs, scout=model.card.scout), again.folder)


def main() -> None:
    """Export each folder in its place, and say how far its scores moved."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    for folder in parser.parse_args().folders:
        model = load_model(folder)
        windows = compared(model)
        before = onnx_scores(model.graph, windows)
        scout = (folder / SCOUT).read_bytes() if SCOUT in model.card.graphs else None
        again = export_model(restore(model), folder, card=model.card, windows=windows)
        if scout is not None:
            give_back(again, scout, model)
        moved = abs(onnx_scores(again.graph, windows) - before).max()
        print(f"{folder}: scores moved by up to {moved:.1e}")


if __name__ == "__main__":
    main()

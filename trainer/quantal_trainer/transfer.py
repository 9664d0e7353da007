"""Transfer: a network that knows events already, trained further on a few of a lab's own."""

from __future__ import annotations

from dataclasses import replace

from quantal.errors import UsageError
from quantal_trainer.backend import keras
from quantal_trainer.fit import FitSettings
from quantal_trainer.network import BLOCKS

# The paper's batch, patience and dropout. Its learning rate (2e-8) changes next to nothing here.
TRANSFER = FitSettings(learning_rate=1e-4, batch=32, epochs=60, patience=15, dropout=0.5)
# Trace networks: every layer a little, each epoch a batch of simulated pieces beside every batch.
TRACE_TRANSFER = FitSettings(
    learning_rate=2e-4, decay="cosine", batch=32, epochs=12, patience=6, dropout=0.0
)
MARKED_TRANSFER = replace(TRACE_TRANSFER, batch=8)  # a piece is as long as ten windows
CONVOLUTIONS = tuple(f"conv_{i}" for i in range(1, len(BLOCKS) + 1))
LAYERS = (*CONVOLUTIONS, "lstm", "dense")
_PARTS: dict[str, tuple[str, ...]] = {
    name: (name, name.replace("conv", "norm")) for name in CONVOLUTIONS
}
_PARTS |= {"lstm": ("both_ways",), "dense": ("dense",)}


def frozen_layers(text: str) -> tuple[str, ...]:
    """Layers to keep as they are: "convolutions", "none", or names such as "conv_1,conv_2".

    Raises UsageError for a layer that the network does not have.
    """
    if text in ("convolutions", "none"):
        return CONVOLUTIONS if text == "convolutions" else ()
    names = tuple(name.strip() for name in text.split(","))
    strange = [name for name in names if name not in LAYERS]
    if strange:
        raise UsageError(
            f"the network has no layer {', '.join(strange)}: give convolutions, none, or some of "
            f"{','.join(LAYERS)}."
        )
    return names


def freeze(network: keras.Model, layers: tuple[str, ...]) -> None:
    """Keep these layers, and the batch norm of a convolution with it, as they are in training."""
    for layer in layers:
        for name in _PARTS[layer]:
            network.get_layer(name).trainable = False

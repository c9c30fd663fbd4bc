"""Pixels: the samples as they are, and a linear layer: what a network's features must beat.

    features(x) = x, flattened;        logits = W x + b

Trained, it is softmax regression. With `epochs = 0` and a read-out (`readout = "nearest-subspace"`) it is that read-out
on the raw inputs. W and b start at zero: any other start would only be a worse one.

B batch, D numbers in a sample, C classes.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from whitebench import ModelSpec, NoOptions, Shape


class Pixels(nn.Module):
    """One linear layer, from samples (B, …) to logits (B, C)."""

    def __init__(self, _: NoOptions, shape: Shape, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(math.prod(shape), classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits, (B, C)."""
        logits_BC: Tensor = self.head(inputs.flatten(1))
        return logits_BC


PIXELS = ModelSpec(
    name="pixels",
    summary="The samples as they are, and a linear layer: what features must beat",
    config=NoOptions,
    build=Pixels,
    head="head",
)

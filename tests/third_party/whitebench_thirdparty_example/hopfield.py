"""A Hopfield memory: "Hopfield Networks is All You Need" (Ramsauer et al., arXiv 2008.02217, section 2).

    features = softmax(beta LN(x W^T) K^T) V,    logits = features W_head^T + b_head

One query attends over M learned patterns: keys K (M, D), values V (M, D). x is the sample, flattened.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from whitebench import ModelSpec, Reference, Shape, WhitebenchError


class Hopfield(nn.Module):
    """The memory and its linear head, from samples of any shape to logits (B, C)."""

    def __init__(self, config: HopfieldConfig, shape: Shape, classes: int) -> None:
        super().__init__()
        self.beta = config.beta
        self.query = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), config.dim), nn.LayerNorm(config.dim))
        self.keys = nn.Parameter(torch.randn(config.patterns, config.dim) / config.dim**0.5)
        self.values = nn.Parameter(torch.randn(config.patterns, config.dim))
        self.head = nn.Linear(config.dim, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits, (B, C)."""
        attention_BM = (self.beta * self.query(inputs) @ self.keys.T).softmax(dim=-1)
        logits_BC: Tensor = self.head(attention_BM @ self.values)
        return logits_BC


@dataclass(frozen=True, kw_only=True)
class HopfieldConfig:
    """How large the memory is, and how sharply it recalls."""

    dim: int = 64
    """Width of a pattern."""
    patterns: int = 128
    """How many it stores."""
    beta: float = 1.0
    """Inverse temperature: the higher, the closer to recalling one single pattern."""

    def __post_init__(self) -> None:
        if min(self.dim, self.patterns) < 1 or self.beta <= 0:
            raise WhitebenchError(f"hopfield: sizes and beta must be above 0, got {self}")


HOPFIELD = ModelSpec(
    name="hopfield",
    summary="One query over a learned memory: attention as a modern Hopfield network",
    config=HopfieldConfig,
    build=Hopfield,
    head="head",
    reference=Reference(title="Hopfield Networks is All You Need", url="https://arxiv.org/abs/2008.02217"),
)

"""Draws: the random problems of token selection, each decided by its number alone.

As in the released experiments of "Transformers as Support Vector Machines" (Tarzanagh et al., arXiv 2308.16898):
tokens x_it, queries z_i and the linear head v are uniform on the unit sphere (normal, divided by their norm), labels
Y_i are +1 or -1. With them come two matrices as torch's linear layer starts them, uniform in [-1/sqrt(D), 1/sqrt(D)].

Token t of input i scores gamma_it = Y_i v^T x_it; the optimal token of an input has the largest score.

S draws, N inputs, T tokens of each, D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from whitebench_tasks.chance import Stream
from whitebench_tasks.normal import normal

_STREAM = "whitebench-token-selection-1"


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Some problems of one size, float64."""

    tokens: Tensor
    """x, (S, N, T, D)."""
    queries: Tensor
    """z, (S, N, D)."""
    labels: Tensor
    """Y, (S, N), +1 or -1."""
    head: Tensor
    """v, (S, D)."""
    starts: Tensor
    """(2, S, D, D), two matrices to start from, as torch starts a linear layer's."""

    def __len__(self) -> int:
        return len(self.head)

    @cached_property
    def values(self) -> Tensor:
        """v^T x_it, what the head makes of a token: (S, N, T)."""
        return (self.tokens @ self.head[:, None, :, None])[..., 0]

    @property
    def optimal(self) -> Tensor:
        """Each input's token with the largest score: (S, N)."""
        return (self.labels[..., None] * self.values).argmax(dim=-1)


def draw(numbers: Sequence[int], *, inputs: int, tokens: int, width: int) -> Draws:
    """Return the draws of these numbers: each the same whatever others stand beside it.

    The same on every machine but for the last digits of a logarithm, a square root and a cosine.
    """
    N, T, D = inputs, tokens, width
    rows = []
    for number in numbers:
        stream = Stream(f"{_STREAM}:{N}x{T}x{D}:{number}")
        drawn = normal(stream, 1, D + N * T * D + N * D)[0]
        rows.append(np.concatenate([drawn, 2 * stream.uniform(1, N + 2 * D * D)[0] - 1]))
    sizes = [D, N * T * D, N * D, N, 2 * D * D]
    head, sphere, queries, signs, starts = torch.split(torch.from_numpy(np.stack(rows)), sizes, dim=1)
    S = len(rows)
    return Draws(
        tokens=_normalised(sphere.reshape(S, N, T, D)),
        queries=_normalised(queries.reshape(S, N, D)),
        labels=torch.where(signs < 0, -1.0, 1.0).double(),
        head=_normalised(head),
        starts=(starts.reshape(S, 2, D, D) / math.sqrt(D)).transpose(0, 1).contiguous(),
    )


def _normalised(rows: Tensor) -> Tensor:
    unit: Tensor = rows / rows.norm(dim=-1, keepdim=True)
    return unit.contiguous()

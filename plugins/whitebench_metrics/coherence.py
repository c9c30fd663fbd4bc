"""Coherence: whether the heads' subspaces are apart, as the mixture that CRATE compresses against supposes.

For heads k = 1..K with bases U_k (D, P), their columns scaled to unit norm,

    |[U_1 .. U_K]^T [U_1 .. U_K]|,   K·P by K·P,

after the figures of Yu et al., "White-Box Transformers via Sparse Rate Reduction", arXiv 2306.01129. Its entries
between different heads are |cosines| of their directions: `largest` and `mean` are over these, and all zero where the
subspaces are orthogonal. The null is random directions of the same width and number, with a mean near sqrt(2 / (pi D)).

It is a measure of the weights: it comes with every batch, and only the first is kept. Traced are the rows of the
projection that takes tokens to the heads, U^T (K·P, D).

Legend: D width, K heads, P head width, M the K·P directions.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from whitebench import MetricSpec, Picture, Reading, Reference, WhitebenchError
from whitebench_metrics.keyed import KeyedMetric
from whitebench_metrics.layers import Profile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchmetrics import Metric

    from whitebench import MetricContext

NULL_NAME = "random subspaces"
NULL_DRAWS = 8
MOST_NUMBERS = 1_000_000
"""In one picture, of all layers: larger matrices are drawn by the largest entry of each block."""


def coherence_matrix(subspaces_MD: Tensor) -> Tensor:
    """Return the |cosine| of every two directions, (M, M); a direction of zeros has 0 with all."""
    unit_MD = F.normalize(subspaces_MD.double(), dim=-1)
    return (unit_MD @ unit_MD.T).abs()


def between_heads(matrix_MM: Tensor, heads: int) -> Tensor:
    """Return the entries between different heads, once each."""
    head_M = torch.arange(len(matrix_MM)) // (len(matrix_MM) // heads)
    return matrix_MM[head_M[:, None] < head_M[None, :]]


@lru_cache(maxsize=64)
def random_coherence(directions: int, width: int, heads: int) -> tuple[float, float]:
    """Return the largest and the mean entry between heads of random directions, each the mean of some draws."""
    generator = torch.Generator().manual_seed(0)
    largest, mean = 0.0, 0.0
    for _ in range(NULL_DRAWS):
        draw_MD = torch.randn(directions, width, generator=generator, dtype=torch.float64)
        entries = between_heads(coherence_matrix(draw_MD), heads)
        largest += float(entries.max()) / NULL_DRAWS
        mean += float(entries.mean()) / NULL_DRAWS
    return largest, mean


class Coherence(KeyedMetric):
    """Largest and mean |cosine| between heads, per layer; headlines are means over layers."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def update(self, layers: Sequence[Tensor]) -> None:
        """Take the subspaces (K·P, D) of each layer, and let it be where they are known.

        Raises:
            WhitebenchError: a tensor is no such weight.
        """
        known = self.places()
        for place, layer_MD in enumerate(layers):
            if layer_MD.ndim != 2 or layer_MD.shape[0] % self.heads:
                raise WhitebenchError(
                    f"subspaces are weights (directions, width), their number a multiple of {self.heads} heads; "
                    f"got a tensor of shape {tuple(layer_MD.shape)}"
                )
            if place not in known:
                shape = torch.tensor([layer_MD.shape[1]], dtype=torch.float64, device=layer_MD.device)
                self.keep(place, torch.cat([shape, layer_MD.detach().double().flatten()]))

    def compute(self) -> dict[str, Reading]:
        """Return `largest` and `mean` |cosine| between heads, in [0, 1]."""
        subspaces = [rows[0][1:].reshape(-1, int(rows[0][0])).cpu() for rows in self.found().values()]
        if self.heads == 1 or not subspaces:
            reason = "one head has no other beside it" if self.heads == 1 else "no layer was seen"
            return {part: Reading(value=None, unscored=reason) for part in ("largest", "mean")}
        matrices = [coherence_matrix(layer_MD) for layer_MD in subspaces]
        entries = [between_heads(matrix_MM, self.heads) for matrix_MM in matrices]
        nulls = [random_coherence(*layer_MD.shape, self.heads) for layer_MD in subspaces]
        drawn = Picture(
            kind="matrix",
            title="|cosine| between the directions of the heads' subspaces",
            x="direction",
            y="direction",
            series={
                f"layer {place}": _shrunk(matrix_MM, len(matrices)) for place, matrix_MM in enumerate(matrices, start=1)
            },
        )
        readings = {}
        for part, values, null in (
            ("largest", [float(one.max()) for one in entries], [largest for largest, _ in nulls]),
            ("mean", [float(one.mean()) for one in entries], [mean for _, mean in nulls]),
        ):
            pictures = {"matrices": drawn} if part == "largest" else {}
            readings[part] = _profile(values).reading(null=(NULL_NAME, _profile(null)), pictures=pictures)
        return readings


def _profile(values: list[float]) -> Profile:
    return Profile(means=tuple(values), stds=(), counts=(1,) * len(values))


def _shrunk(matrix_MM: Tensor, layers: int) -> Tensor:
    block = math.ceil(len(matrix_MM) / math.isqrt(MOST_NUMBERS // layers))
    return F.max_pool2d(matrix_MM[None], block, ceil_mode=True)[0] if block > 1 else matrix_MM


def _build(context: MetricContext) -> Metric:
    return Coherence(context.layout.heads)


METRICS = [
    MetricSpec(
        name="coherence",
        version=1,
        summary="|cosine| between the directions of different heads' subspaces: 0 where they are orthogonal",
        direction="lower",
        needs=("subspaces",),
        build=_build,
        untrained=True,
        reference=Reference(
            title="Yu et al., White-Box Transformers via Sparse Rate Reduction", url="https://arxiv.org/abs/2306.01129"
        ),
    )
]

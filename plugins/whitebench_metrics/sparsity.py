"""Sparsity: how few of a layer's codes are at work, by three measures, each the mean over a sample's tokens x in R^n.

nonzero           |{i : x_i != 0}| / n, CRATE's own (Yu et al., arXiv 2306.01129, section 3): exact zeros, as a
                  ReLU makes them; a GELU has some only where float32 rounds its tail to zero, below -5.55
above-threshold   |{i : |x_i| > 0.05 max|x|}| / n, which a smooth activation can lower too
hoyer             (sqrt(n) - |x|_1 / |x|_2) / (sqrt(n) - 1): 0 where all |x_i| are equal, 1 where one is alone
                  (Hoyer, "Non-negative Matrix Factorization with Sparseness Constraints", JMLR 5, 2004, section 3.1)

A token of zeros is as sparse as can be: 0, 0 and, by agreement with these, 1. The null is what codes of n independent
normal entries come to.
Legend: B batch, T tokens (all dimensions between, made one), n width of the codes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import torch

from whitebench import MetricSpec, Reading, Reference, WhitebenchError
from whitebench_metrics.layers import LayerStatistics, Profile

if TYPE_CHECKING:
    from torch import Tensor
    from torchmetrics import Metric

    from whitebench import MetricContext

THRESHOLD = 0.05
"""Of a token's largest magnitude."""
NULL_DRAWS = 1024
"""One code of width 64 has a share above the threshold that varies by 0.04: the mean of these by 0.001."""
NULL_NAME = "random codes"


def nonzero(codes_BTn: Tensor) -> Tensor:
    """Return the share of entries that are not exactly zero, per token (B, T), float64."""
    return (codes_BTn != 0).double().mean(dim=-1)


def above_threshold(codes_BTn: Tensor) -> Tensor:
    """Return the share of entries above 0.05 of the token's largest magnitude, per token (B, T), float64."""
    size_BTn = codes_BTn.double().abs()
    return (size_BTn > THRESHOLD * size_BTn.amax(dim=-1, keepdim=True)).double().mean(dim=-1)


def hoyer(codes_BTn: Tensor) -> Tensor:
    """Return Hoyer's measure per token (B, T), float64, in [0, 1]."""
    root = math.sqrt(codes_BTn.shape[-1])
    size_BTn = codes_BTn.double().abs()
    # The measure does not depend on scale: largest entry 1, so that no square under- or overflows.
    largest_BT1 = size_BTn.amax(dim=-1, keepdim=True)
    unit_BTn = size_BTn / largest_BT1.where(largest_BT1 > 0, 1.0)
    length_BT = unit_BTn.square().sum(dim=-1).sqrt()
    ratio_BT = unit_BTn.sum(dim=-1) / length_BT.where(length_BT > 0, 1.0)
    return ((root - ratio_BT) / (root - 1)).where(length_BT > 0, 1.0)


MEASURES = {"nonzero": nonzero, "above-threshold": above_threshold, "hoyer": hoyer}
SPARSER: Mapping[str, Literal["lower", "higher"]] = {"nonzero": "lower", "above-threshold": "lower", "hoyer": "higher"}
"""Which way is sparser."""


def sparsity_of(layer: Tensor) -> dict[str, Tensor]:
    """Return the three measures of one layer's codes (B, …, n), each sample's mean over its tokens: (B,), float64.

    Raises:
        WhitebenchError: these are no such codes.
    """
    if layer.ndim < 2 or layer.shape[-1] < 2:
        raise WhitebenchError(
            f"sparsity is of codes (B, …, n) with n of two or more; got a tensor of shape {tuple(layer.shape)}"
        )
    codes_BTn = layer.reshape(len(layer), math.prod(layer.shape[1:-1]), layer.shape[-1])
    return {name: measure(codes_BTn).mean(dim=1) for name, measure in MEASURES.items()}


@lru_cache(maxsize=64)
def random_sparsity(width: int) -> dict[str, float]:
    """Return the three measures of codes of independent normal entries, the mean of some draws."""
    draws_1Tn = torch.randn(1, NULL_DRAWS, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return {name: float(measure) for name, measure in sparsity_of(draws_1Tn).items()}


class Sparsity(LayerStatistics):
    """The three measures per layer of codes (B, …, n); headlines are means over layers."""

    quantities = (*MEASURES, *(f"random {name}" for name in MEASURES))

    def measure(self, *layers: Tensor) -> Mapping[str, Tensor]:
        """Return each sample's mean over its tokens, and that of random codes of the same width."""
        (layer,) = layers
        found = sparsity_of(layer)
        random = random_sparsity(layer.shape[-1])
        return found | {f"random {name}": torch.full_like(found[name], random[name]) for name in MEASURES}

    def read(self, profiles: Mapping[str, Profile]) -> dict[str, Reading]:
        """Return the three; sparser is what the layers claim to be, so each points to the sparser side."""
        return {
            name: profiles[name].reading(
                direction=SPARSER[name],
                null=(NULL_NAME, profiles[f"random {name}"]),
            )
            for name in MEASURES
        }


def _build(_: MetricContext) -> Metric:
    return Sparsity()


METRICS = [
    MetricSpec(
        name="sparsity",
        version=1,
        summary="how few of a layer's codes are at work: exact non-zeros, entries above a threshold, Hoyer's measure",
        direction="lower",
        needs=("codes",),
        build=_build,
        untrained=True,
        reference=Reference(
            title="Yu et al., White-Box Transformers via Sparse Rate Reduction", url="https://arxiv.org/abs/2306.01129"
        ),
    )
]

"""Head subspaces: whether each head's subspace is one of the true ones, as CRATE's mixture model supposes.

CRATE's heads U_k, k = 1..H, are to be the subspaces that tokens come from (Yu et al., arXiv 2306.01129, sections 2.2
and 2.3). Where attention sees the tokens, behind the layer's norm, the g-th true subspace has become S_g, the principal
subspace of true dimension of its tokens' moment M_g (token_subspaces.py). Heads and groups are matched one to one, so
that the sum over pairs of what is asked for is the largest there is (Kuhn 1955); either may be left over.

own      share of the energy that a head takes in which is its group's, tr(U_k^T M_g U_k) over the sum over groups: 1
         where each head sees one group and no other. It asks what attention computes with, however U_k is spread over
         directions in which there are no tokens
angle    between the span of U_k and S_g: the angle whose squared cosine is the mean over pairs of the mean squared
         cosine of the principal angles, |Q_k^T S_g|^2 / min(P, R) with an orthonormal basis Q_k. 0 where each head
         holds the whole of one group's subspace; a head of P dimensions can hold more than that

Two nulls know nothing of the true subspaces, each the mean of some draws: `random subspaces`, heads of the same number
and size in random directions; and `turned truth`, the heads as they are against the groups turned at random, all
alike, within the principal subspace of all tokens. Heads that lean to where tokens are, to all groups alike, beat the
first and not the second. Beside them stand `true heads`, the groups' own subspaces in the place of the heads: how large
`own` can be where a layer's norm or an embedding has brought the true subspaces nearer to each other.

Legend: D width, H heads, P head width, G groups, R dimensions of a true subspace, X of all of them together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from whitebench import MetricSpec, Reading, Reference, WhitebenchError
from whitebench_metrics.token_groups import TRUTH, Seen
from whitebench_metrics.token_subspaces import (
    NOTHING,
    NULL_DRAWS,
    RANDOM_SUBSPACES,
    TokenMoments,
    moments,
    principal_subspace,
)

if TYPE_CHECKING:
    from torchmetrics import Metric

    from whitebench import MetricContext


HEADS = "heads"
TURNED_TRUTH = "turned truth"
TRUE_HEADS = "true heads"


def matched(shares_HG: Tensor) -> float:
    """Return the mean over the pairs of heads and groups that have the largest sum, each in one pair at most."""
    heads, groups = linear_sum_assignment(shares_HG.numpy(), maximize=True)
    return float(shares_HG[heads, groups].mean())


def held_shares(heads_HPD: Tensor, subspaces: Sequence[Tensor]) -> Tensor:
    """Return the mean squared cosine of the principal angles of each head's span and each subspace (D, R): (H, G)."""
    bases = [_basis(head_PD) for head_PD in heads_HPD]
    held = [[_squared_cosine(basis_DP, one_DR) for one_DR in subspaces] for basis_DP in bases]
    return torch.tensor(held, dtype=torch.float64)


def energy_shares(heads_HPD: Tensor, moments_GDD: Tensor) -> Tensor:
    """Return of the energy that each head takes in the share of each group, (H, G); 0 where it takes in none."""
    energy_HG = torch.einsum("hpd,gde,hpe->hg", heads_HPD, moments_GDD, heads_HPD)
    total_H1 = energy_HG.sum(dim=1, keepdim=True)
    return (energy_HG / total_H1).where(total_H1 > 0, 0.0)


def turned(moments_GDD: Tensor, dim: int, generator: torch.Generator) -> Tensor:
    """Return the moments turned at random, all alike, within the `dim` directions that have most of their energy."""
    basis_DX = principal_subspace(moments_GDD.mean(dim=0), dim)
    D = len(basis_DX)
    # The polar factor of a random map: unlike a draw in this basis, it does not depend on which basis it is.
    drawn_DD = torch.randn(D, D, generator=generator, dtype=basis_DX.dtype)
    left_XX, _, right_XX = torch.linalg.svd(basis_DX.T @ drawn_DD @ basis_DX)
    turn_DD = torch.eye(D, dtype=basis_DX.dtype) - basis_DX @ basis_DX.T + basis_DX @ left_XX @ right_XX @ basis_DX.T
    turned_GDD: Tensor = turn_DD @ moments_GDD @ turn_DD.T
    return turned_GDD


def _basis(head_PD: Tensor) -> Tensor:
    _, singular_P, right_PD = torch.linalg.svd(head_PD, full_matrices=False)
    kept_XD: Tensor = right_PD[singular_P.square() > NOTHING * singular_P[0].square()]
    return kept_XD.T


def _squared_cosine(one_DP: Tensor, other_DR: Tensor) -> float:
    dimensions = min(one_DP.shape[1], other_DR.shape[1])
    return float((one_DP.T @ other_DR).square().sum()) / dimensions if dimensions else 0.0


def measure(heads_HPD: Tensor, moments_GDD: Tensor, dim: int) -> dict[str, float]:
    """Return `own` and `angle` in degrees of a layer's heads."""
    held_HG = held_shares(heads_HPD, [principal_subspace(one_DD, dim) for one_DD in moments_GDD])
    return {
        "own": matched(energy_shares(heads_HPD, moments_GDD)),
        "angle": math.degrees(math.acos(math.sqrt(min(matched(held_HG), 1.0)))),
    }


def beside(heads_HPD: Tensor, moments_GDD: Tensor, dim: int) -> dict[str, dict[str, float]]:
    """Return what stands beside a layer's heads, by its name: both nulls, and the groups' own subspaces as heads."""
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(NULL_DRAWS, *heads_HPD.shape, generator=generator, dtype=torch.float64)
    turns = [turned(moments_GDD, len(moments_GDD) * dim, generator) for _ in range(NULL_DRAWS)]
    own = [principal_subspace(one_DD, dim) for one_DD in moments_GDD]
    true_GDD = torch.stack([own_DR @ own_DR.T for own_DR in own])
    return {
        RANDOM_SUBSPACES: _mean([measure(draw_HPD, moments_GDD, dim) for draw_HPD in random]),
        TURNED_TRUTH: _mean([measure(heads_HPD, turned_GDD, dim) for turned_GDD in turns]),
        TRUE_HEADS: measure(true_GDD, moments_GDD, dim),
    }


def _mean(draws: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {part: fmean(draw[part] for draw in draws) for part in draws[0]}


class HeadSubspaces(TokenMoments):
    """Share of its energy and angle of each head's group, per layer; headlines are means over layers."""

    parts: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "own": {"direction": "higher"},
        "angle": {"direction": "lower", "unit": "degrees"},
    }

    def __init__(self, prefix_tokens: int, heads: int) -> None:
        super().__init__(prefix_tokens)
        self.heads = heads

    def update(
        self,
        layers: Sequence[Tensor],
        subspaces: Sequence[Tensor],
        index_B: Tensor,
        true_GQR: Tensor,
        groups_Nn: Tensor,
    ) -> None:
        """Add a batch of what attention sees (B, N, D), given its heads (H·P, D) and the truth of all samples.

        Raises:
            WhitebenchError: the heads are not those of the layers.
        """
        shapes = [(layer.shape[-1], tuple(heads.shape)) for layer, heads in zip(layers, subspaces, strict=True)]
        if strange := [heads for width, heads in shapes if heads[0] % self.heads or heads[1:] != (width,)]:
            raise WhitebenchError(
                f"subspaces are weights (directions, width), their number a multiple of {self.heads} heads; "
                f"got a tensor of shape {strange[0]}"
            )
        self.keep_weights(subspaces)
        self.add(self.patches(layers), index_B, true_GQR, groups_Nn)

    def read(self, seen: Seen) -> dict[str, Reading]:
        """Return `own` in [0, 1] and `angle` in degrees."""
        layers = []
        for layer_GV, weight in zip(seen.layers, seen.weights, strict=True):
            moments_GDD = moments(layer_GV, seen.tokens)
            heads_HPD = weight.reshape(self.heads, -1, moments_GDD.shape[-1])
            layers.append(
                {HEADS: measure(heads_HPD, moments_GDD, seen.dim), **beside(heads_HPD, moments_GDD, seen.dim)}
            )
        readings = {}
        for part in self.parts:
            profiles = {name: [layer[name][part] for layer in layers] for name in layers[0]}
            readings[part] = self.reading(part, profiles.pop(HEADS), profiles)
        return readings


def _build(context: MetricContext) -> Metric:
    return HeadSubspaces(context.layout.prefix_tokens, context.layout.heads)


METRICS = [
    MetricSpec(
        name="head-subspaces",
        version=1,
        summary="whether each head's subspace is one that tokens come from: its share of what it sees, and the angle",
        direction="higher",
        unit="share",
        needs=("attention-inputs", "subspaces", *TRUTH),
        build=_build,
        untrained=True,
        reference=Reference(
            title="Yu et al., White-Box Transformers via Sparse Rate Reduction", url="https://arxiv.org/abs/2306.01129"
        ),
    )
]

"""Token subspaces: whether the tokens of one true subspace stay in one of as few dimensions, apart from the others.

Tokens z of group g, those that come from the g-th true subspace, less what all tokens at their place have in common,

    M_g = E_g[(z - m_t)(z - m_t)^T],     m_t the mean of the tokens at place t, groups weighing alike,

which takes off a position embedding, and nothing of the true subspaces, whose signals come with both signs. CRATE says
that its layers compress tokens against a mixture of subspaces (Yu et al., arXiv 2306.01129, section 2.2): each M_g of
low rank, and any two apart.

rank       effective rank of M_g, exp(-sum_i p_i log p_i) with p_i its eigenvalues over their sum (Roy & Vetterli, "The
           effective rank", EUSIPCO 2007), over the true dimension: 1 where a group fills a subspace of that dimension,
           less where it has lost directions. Beside it `all groups`, the same of all tokens together
between    mean cosine of the principal angles between the principal subspaces of true dimension of two groups, the mean
           over pairs: 0 where they are orthogonal. Beside it `random subspaces` of the same width and dimension

Both stand beside the same of the patches themselves, `pixels`: where the task puts them, noise and all.

All follow from the second moments of [z e_t] by group, e_t the one-hot place, which add up.

Legend: B batch, n tokens of a sample, D their width, W of [z e_t], G groups, R dimensions of a true subspace.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from whitebench import MetricSpec, Reading, Reference
from whitebench_metrics.principles import cosines, effective_rank
from whitebench_metrics.token_groups import TRUTH, Seen, TokenGroups

if TYPE_CHECKING:
    from torchmetrics import Metric

    from whitebench import MetricContext

NOTHING = 1e-10
"""What has a smaller share of the largest energy is rounding."""
NULL_DRAWS = 8
RANDOM_SUBSPACES = "random subspaces"


class TokenMoments(TokenGroups):
    """The second moments of [z e_t] of each group."""

    def tally(self, tokens_XD: Tensor, places_Xn: Tensor) -> Tensor:
        """Return the sum of the outer products, (W W,)."""
        rows_XW = torch.cat([tokens_XD, places_Xn], dim=1)
        return (rows_XW.T @ rows_XW).flatten()


def moments(layer_GV: Tensor, tokens: int) -> Tensor:
    """Return M_g of each group, (G, D, D), from the mean outer products of [z e_t], flat; 0 where it is rounding."""
    W = math.isqrt(layer_GV.shape[1])
    table_GWW, D = layer_GV.reshape(-1, W, W), W - tokens
    all_WW = table_GWW.mean(dim=0)
    means_nD = all_WW[D:, :D] / all_WW[D:, D:].diagonal()[:, None]
    centre_WD = torch.cat([torch.eye(D, dtype=means_nD.dtype), -means_nD])
    moments_GDD = centre_WD.T @ table_GWW @ centre_WD
    energy_G, raw_G = (one.diagonal(dim1=1, dim2=2).sum(dim=1) for one in (moments_GDD, table_GWW[:, :D, :D]))
    return moments_GDD.where((energy_G > NOTHING * raw_G)[:, None, None], 0.0)


def principal_subspace(moment_DD: Tensor, dim: int) -> Tensor:
    """Return the `dim` directions of most energy, or as many as have any: (D, R), orthonormal."""
    values_D, vectors_DD = torch.linalg.eigh(moment_DD)
    kept_DX: Tensor = vectors_DD[:, values_D > NOTHING * values_D[-1]]
    return kept_DX[:, -dim:]


def rank_share(moment_DD: Tensor, dim: int) -> float:
    """Return the effective rank over the true dimension."""
    return effective_rank(torch.linalg.eigvalsh(moment_DD).clamp(min=0)) / dim


def mean_cosine(subspaces: Sequence[Tensor]) -> float | None:
    """Return the mean cosine between two of the subspaces (D, R), over pairs; None where no two have a direction."""
    pairs = list(combinations([one_DR for one_DR in subspaces if one_DR.shape[1]], 2))
    return fmean(float(cosines(one_DR, other_DR).mean()) for one_DR, other_DR in pairs) if pairs else None


@lru_cache(maxsize=64)
def random_cosine(groups: int, width: int, dim: int) -> float:
    """Return the mean cosine of random subspaces, the mean of some draws."""
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(NULL_DRAWS, groups, width, min(dim, width), generator=generator, dtype=torch.float64)
    return fmean(mean_cosine(list(frames_GDR)) or 0.0 for frames_GDR in torch.linalg.qr(draws).Q)


class TokenSubspaces(TokenMoments):
    """Rank and cosines of the groups, per layer; headlines are means over layers."""

    parts: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "rank": {"direction": "none"},  # 1 is best: what has lost directions has less
        "between": {"direction": "lower"},
    }

    def update(
        self, layers: Sequence[Tensor], inputs: Tensor, index_B: Tensor, true_GQR: Tensor, groups_Nn: Tensor
    ) -> None:
        """Add a batch of layers' tokens (B, N, D) and of images, given the truth of all samples."""
        pixels_BnD = patches_of(inputs, groups_Nn.shape[1])
        self.add([pixels_BnD, *self.patches(layers)], index_B, true_GQR, groups_Nn)

    def read(self, seen: Seen) -> dict[str, Reading]:
        """Return `rank`, in true dimensions, and `between` in [0, 1]."""
        ranks, together, between, chance = [], [], [], []
        for place, layer_GV in enumerate(seen.layers):
            moments_GDD = moments(layer_GV, seen.tokens)
            groups, width, _ = moments_GDD.shape
            cosine = mean_cosine([principal_subspace(one_DD, seen.dim) for one_DD in moments_GDD])
            if cosine is None:
                return self.unscored(f"in layer {place} no two groups have tokens that differ")
            ranks.append(fmean(rank_share(one_DD, seen.dim) for one_DD in moments_GDD))
            together.append(rank_share(moments_GDD.mean(dim=0), seen.dim))
            between.append(cosine)
            chance.append(random_cosine(groups, width, seen.dim))
        depth = len(seen.layers) - 1  # the first are the pixels
        ranks_beside = {"all groups": together[1:], "pixels": ranks[:1] * depth}
        between_beside = {RANDOM_SUBSPACES: chance[1:], "pixels": between[:1] * depth}
        return {
            "rank": self.reading("rank", ranks[1:], ranks_beside),
            "between": self.reading("between", between[1:], between_beside),
        }


def patches_of(images: Tensor, patches: int) -> Tensor:
    """Return the square patches of images (B, C, S, S), row by row: (B, n, numbers of a patch)."""
    B, C, S, _ = images.shape
    grid = math.isqrt(patches)
    rows = images.reshape(B, C, grid, S // grid, grid, S // grid)
    return rows.permute(0, 2, 4, 1, 3, 5).reshape(B, patches, C * (S // grid) ** 2)


def _build(context: MetricContext) -> Metric:
    return TokenSubspaces(context.layout.prefix_tokens)


METRICS = [
    MetricSpec(
        name="token-subspaces",
        version=1,
        summary="whether tokens of one true subspace stay in one of as few dimensions, apart from the others'",
        direction="none",
        needs=("tokens", "inputs", *TRUTH),
        build=_build,
        untrained=True,
        reference=Reference(
            title="Yu et al., White-Box Transformers via Sparse Rate Reduction", url="https://arxiv.org/abs/2306.01129"
        ),
    )
]

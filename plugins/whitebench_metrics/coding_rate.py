"""Coding rates: how many nats it takes to say where a sample's tokens are, up to a distortion.

For N tokens of width d in the rows of Z, and heads k = 1..K whose p-dimensional tokens are the rows of W_k:

    R(Z)      =        1/2 logdet(I + d / (N eps2) Z^T Z)
    R^c(Z; U) = sum_k  1/2 logdet(I + p / (N eps2) W_k^T W_k)        eps2 = 0.01, the squared distortion

after Yu et al., "White-Box Transformers via Sparse Rate Reduction", arXiv 2306.01129, section 2.2. Both are
the same sum, with one head of the whole width in the first. `raw` takes the tokens as they are. `normalised`
first scales each token (of each head) to unit norm; by the concavity of the logarithm each head is then at most

    r/2 log(1 + p / (r eps2)),   r = min(N, p),

and `share` is the rate over that bound. How low random directions of the same N, p, K come is its null.

Legend: B batch, N tokens, K heads, P head width, M the smaller of N and P,
X some of the B x K pairs.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from whitebench import MetricSpec, Reading, Reference, WhitebenchError
from whitebench_metrics.layers import LayerStatistics, Profile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torchmetrics import Metric

    from whitebench import MetricContext

EPS2 = 0.01
NULL_DRAWS = 16
"""One draw varies by some 0.2 % (65 tokens of width 64): the mean of 16 by 0.05 %."""
NULL_NAME = "random tokens"


def split_heads(layer: Tensor, heads: int) -> Tensor:
    """Return one layer's tokens (B, N, K·P) by heads, (B, K, N, P), float64.

    Raises:
        WhitebenchError: these are no such tokens.
    """
    if layer.ndim != 3 or layer.shape[2] % heads:
        raise WhitebenchError(
            f"coding rates are of tokens (B, N, width), the width a multiple of {heads} heads; "
            f"got a tensor of shape {tuple(layer.shape)}"
        )
    return layer.double().reshape(*layer.shape[:2], heads, layer.shape[2] // heads).transpose(1, 2)


def normalised_rate(heads_BKNP: Tensor) -> Tensor:
    """Return the coding rate of each sample's tokens scaled to unit norm, (B,); a zero token stays zero."""
    return rate(F.normalize(heads_BKNP, dim=-1))


def rate(heads_BKNP: Tensor) -> Tensor:
    """Return the coding rate of each sample in nats, summed over its heads: (B,), float64.

    The determinant is taken on the smaller side (both are equal by Sylvester's identity), from a Cholesky
    factor in float64: raw tokens of width 64 and norm 100 have eigenvalues from 1 to 6e7, where float32 rounds
    by 4. Not a number where a token is none.
    """
    tokens, width = heads_BKNP.shape[-2:]
    scaled_BKNP = heads_BKNP.double() * math.sqrt(width / (tokens * EPS2))  # float64, which autocast leaves alone
    gram_BKMM = scaled_BKNP.mT @ scaled_BKNP if width < tokens else scaled_BKNP @ scaled_BKNP.mT
    eye_MM = torch.eye(gram_BKMM.shape[-1], dtype=gram_BKMM.dtype, device=gram_BKMM.device)
    factor_BKMM, failures_BK = torch.linalg.cholesky_ex(gram_BKMM + eye_MM)
    rate_BK = factor_BKMM.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
    # Eigenvalues of 1 beside a sum of 1e10 are known to 1e-6 only, beside 1e16 not at all: singular values are.
    doubtful_BK = (failures_BK > 0) | (gram_BKMM.diagonal(dim1=-2, dim2=-1).sum(dim=-1) > 1e10)
    if bool(doubtful_BK.any()):
        doubtful_XNP = scaled_BKNP[doubtful_BK]
        singular_XM = torch.linalg.svdvals(doubtful_XNP.nan_to_num(0.0, 0.0, 0.0))
        is_number_X = doubtful_XNP.isfinite().flatten(1).all(dim=-1)
        rate_BK[doubtful_BK] = (singular_XM.square().log1p().sum(dim=-1) / 2).where(is_number_X, torch.nan)
    total_B: Tensor = rate_BK.sum(dim=-1)
    return total_B


def rate_bound(tokens: int, width: int) -> float:
    """Return the largest coding rate of `tokens` unit vectors of `width` in nats."""
    rank = min(tokens, width)
    return rank / 2 * math.log1p(width / (rank * EPS2))


@lru_cache(maxsize=64)
def random_rate(tokens: int, width: int) -> float:
    """Return the coding rate of `tokens` random unit vectors of `width` in nats, the mean of some draws."""
    generator = torch.Generator().manual_seed(0)
    draws_BKNP = torch.randn(NULL_DRAWS, 1, tokens, width, generator=generator, dtype=torch.float64)
    return float(rate(F.normalize(draws_BKNP, dim=-1)).mean())


class CodingRate(LayerStatistics):
    """Coding rate per layer of tokens (B, N, K·P); headlines are means over layers, for each claims to compress."""

    quantities = ("normalised", "share", "raw", "random", "random share")

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def measure(self, *layers: Tensor) -> Mapping[str, Tensor]:
        """Return the rates of one layer's tokens (B, N, K·P), and of random ones in their place."""
        (layer,) = layers
        heads_BKNP = split_heads(layer, self.heads)
        tokens, width = heads_BKNP.shape[2:]
        bound = self.heads * rate_bound(tokens, width)
        random = self.heads * random_rate(tokens, width)
        normalised_B = normalised_rate(heads_BKNP)
        return {
            "normalised": normalised_B,
            "share": normalised_B / bound,
            "raw": rate(heads_BKNP),
            "random": torch.full_like(normalised_B, random),
            "random share": torch.full_like(normalised_B, random / bound),
        }

    def read(self, profiles: Mapping[str, Profile]) -> dict[str, Reading]:
        """Return `share` in [0, 1], the headline, then `normalised` and `raw` in nats.

        The raw rate has no direction: it grows with the tokens' scale, and a step that compresses can raise it
        (arXiv 2411.17182).
        """
        return {
            "share": profiles["share"].reading(unit="", null=(NULL_NAME, profiles["random share"])),
            "normalised": profiles["normalised"].reading(null=(NULL_NAME, profiles["random"])),
            "raw": profiles["raw"].reading(direction="none"),
        }


def _whole(_: MetricContext) -> Metric:
    return CodingRate(heads=1)


def _per_head(context: MetricContext) -> Metric:
    return CodingRate(heads=context.layout.heads)


_CRATE = Reference(
    title="Yu et al., White-Box Transformers via Sparse Rate Reduction", url="https://arxiv.org/abs/2306.01129"
)

METRICS = [
    MetricSpec(
        name="coding-rate",
        version=1,
        summary="nats to code a sample's tokens, per layer, with the whole width as one space",
        direction="none",  # the theory wants it large beside a small subspace rate, and claims nothing for it alone
        unit="nats",
        needs=("tokens",),
        build=_whole,
        untrained=True,
        reference=_CRATE,
    ),
    MetricSpec(
        name="subspace-coding-rate",
        version=1,
        summary="nats to code a sample's tokens in the heads' subspaces, per layer: what compression lowers",
        direction="lower",
        unit="nats",
        needs=("projections",),
        build=_per_head,
        untrained=True,
        reference=_CRATE,
    ),
]

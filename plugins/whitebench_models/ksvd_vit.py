"""KSVD-ViT: "Primal-Attention" (Chen et al., arXiv 2305.19798), attention as an asymmetric kernel SVD.

A head's attention matrix is a kernel between queries and keys; its left and right singular vectors are had in the
primal, without a map of N x N numbers. With phi(u) = u / ||u|| and X' (n, P) a head's share of up to 10 s tokens,
spread evenly over the sequence (all of them where they are no more):

    e = phi(q) X'^T W_e,   r = phi(k) X'^T W_r        W_e, W_r (n, s) learned, per head
    MSA(X) = concat_k( [e; r] W_join + b_join ) W_out + b_out
    J      = mean ||e L||^2 / 2 + mean ||r L||^2 / 2 - mean_k tr(W_e^T W_r),    L (s) learned, per head

and eta J^2, averaged over layers, is added to the loss: J is zero at the solution of the SVD. This is the form of
the released code, as is the start: W_e and W_r orthogonal, L uniform on (0, 1). There are no values. The tokens meet
in X' alone: W_e and W_r by themselves would leave each token to itself, and the class token blind.

A kernel method without a margin, and no softmax: nothing is selected, and no `attention` can be traced.

B batch, N tokens, n of them in X', D width, H heads, P head width, s rank.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whitebench import ModelSpec, Reference, Shape, WhitebenchError
from whitebench_models.attention import (
    INPUTS_TRACE,
    Penalised,
    build_vit,
    check_vit,
    layout,
    own_term,
)
from whitebench_models.patches import count_patches
from whitebench_models.selection import join_heads, split_heads
from whitebench_models.vit import ViTConfig

if TYPE_CHECKING:
    from whitebench_models.vit import Attention, ViT

_SAMPLES_PER_RANK = 10


class PrimalAttention(Penalised):
    """The two sets of singular vectors of a kernel attention, joined."""

    def __init__(self, attention: Attention, tokens: int, rank: int, eta: float) -> None:
        super().__init__()
        dim, self.heads, self.eta = attention.out.in_features, attention.heads, eta
        self.samples = min(tokens, _SAMPLES_PER_RANK * rank)
        self.qk = nn.Linear(dim, 2 * dim)
        self.qk.load_state_dict({name: part[: 2 * dim] for name, part in attention.qkv.state_dict().items()})
        self.W_e = nn.Parameter(torch.empty(self.heads, self.samples, rank))
        self.W_r = nn.Parameter(torch.empty(self.heads, self.samples, rank))
        for weights in (*self.W_e.data, *self.W_r.data):
            nn.init.orthogonal_(weights)
        self.L = nn.Parameter(torch.rand(self.heads, rank))
        self.join = nn.Linear(2 * rank, dim // self.heads)
        nn.init.xavier_uniform_(self.join.weight)
        nn.init.zeros_(self.join.bias)
        self.out = attention.out

    def project(self, tokens_BND: Tensor, seen_BN: Tensor) -> tuple[Tensor, Tensor]:
        """Return e and r, (B, H, N, s)."""
        q, k = (split_heads(part, self.heads) for part in self.qk(tokens_BND).chunk(2, dim=-1))
        places_n = torch.arange(self.samples, device=q.device) * (tokens_BND.shape[1] - 1) // max(1, self.samples - 1)
        sample_BHPn = split_heads((tokens_BND * seen_BN[..., None])[:, places_n], self.heads).transpose(-2, -1)
        return F.normalize(q, dim=-1) @ (sample_BHPn @ self.W_e), F.normalize(k, dim=-1) @ (sample_BHPn @ self.W_r)

    def objective(self, e: Tensor, r: Tensor, seen_BN: Tensor) -> Tensor:
        """Return J over the tokens that are seen."""
        weights = seen_BN.expand(len(e), -1)[:, None, :]
        lengths_BHN = ((e * self.L[:, None]).square().sum(dim=-1) + (r * self.L[:, None]).square().sum(dim=-1)) / 2
        mean = (lengths_BHN * weights).sum() / (self.heads * weights.sum())
        return mean - (self.W_e * self.W_r).sum() / self.heads

    def forward(self, tokens_BND: Tensor, mask_BN: Tensor | None = None) -> Tensor:
        """Return the new tokens, (B, N, D); `mask_BN` has 0 for a token, or -inf to hide it from the others."""
        hidden = tokens_BND.new_zeros(1, tokens_BND.shape[1]) if mask_BN is None else mask_BN
        seen_BN = hidden > -math.inf
        e, r = self.project(tokens_BND, seen_BN)
        self.term = self.eta * self.objective(e, r, seen_BN).square() if self.training else None
        out: Tensor = self.out(join_heads(self.join(torch.cat([e, r], dim=-1))))
        return out


@dataclass(frozen=True, kw_only=True)
class KSVDViTConfig(ViTConfig):
    """A ViT's sizes, and the two numbers of the kernel SVD."""

    rank: int = 4
    """Singular vectors per head and side, the paper's s."""
    eta: float = 0.05
    """Weight of J^2 in the loss; the released code's for images."""

    def __post_init__(self) -> None:
        check_vit("ksvd-vit", self)
        if self.rank < 1:
            raise WhitebenchError(f"ksvd-vit[rank={self.rank}]: rank must be 1 or more")
        if self.eta < 0:
            raise WhitebenchError(f"ksvd-vit[eta={self.eta}]: the weight of J^2 must be 0 or more, e.g. eta=0.05")


def _build(config: KSVDViTConfig, shape: Shape, classes: int) -> ViT:
    tokens = count_patches("ksvd-vit", shape, config.patch) + 1
    return build_vit(
        "ksvd-vit", config, shape, classes, lambda plain: PrimalAttention(plain, tokens, config.rank, config.eta)
    )


KSVD_VIT = ModelSpec(
    name="ksvd-vit",
    summary="ViT with Primal-Attention: a kernel SVD in its primal form, no N x N map and no selection",
    config=KSVDViTConfig,
    build=_build,
    head="head",
    penalty=own_term,
    is_penalty_additive=False,  # J is a mean over samples, J^2 is not
    trace=INPUTS_TRACE,
    layout=layout,
    reference=Reference(
        title="Primal-Attention: Self-attention through Asymmetric Kernel SVD in Primal Representation",
        url="https://arxiv.org/abs/2305.19798",
        commit="c053879320aa295375c874cfcb5c1434b077ae22",
    ),
)

"""CRATE: "White-Box Transformers via Sparse Rate Reduction" (Yu et al., arXiv 2306.01129).

Each layer first compresses the tokens against K learned subspaces U_k (section 2.3, MSSA), then
codes them sparsely in a learned dictionary D (section 2.4, ISTA). With tokens as rows of Z (N, D):

    MSSA(Z) = concat_k( softmax(W_k W_k^T / sqrt(P)) W_k ) W_out^T + b_out,   W_k = Z U_k^T
    ISTA(x) = ReLU(x + eta (x D - x D^T D) - eta lambda)
    Z'      = Z + MSSA(LN(Z))
    Z+      = ISTA(LN(Z')),                                 without a residual
    logits  = LN(pool(Z_L)) W_head^T + b_head,              pool: the class token, or the mean of all tokens

This is the form of the released code: W_out is learned, where the paper ties it to U (section 2.3),
and the softmax has a temperature, where the paper has none. One projection U, without a bias, is query,
key and value at once. ISTA takes two products instead of three, since x D - x D^T D = (x - x D^T) D.
D starts kaiming uniform, class token and position embedding from N(0, 1), all else as torch starts it.

B batch, N tokens (class token first, then patches), D width, H heads (the paper's K), P head width,
C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whitebench import Layout, ModelSpec, Reference, Shape, WhitebenchError
from whitebench_models.patches import check_sizes, count_patches, cut_patches


class MSSA(nn.Module):
    """Multi-head subspace self-attention: each head pulls the tokens together within its subspace."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(dim, dim, bias=False)
        # One head as wide as the token needs no mixing, and the released code has none.
        self.out = nn.Linear(dim, dim) if heads > 1 else nn.Identity()

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """Return the step towards the subspaces, (B, N, D)."""
        w_BHNP = self.project(tokens_BND).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        mixed_BHNP = F.scaled_dot_product_attention(w_BHNP, w_BHNP, w_BHNP)
        out_BND: Tensor = self.out(mixed_BHNP.transpose(1, 2).flatten(2))
        return out_BND


class ISTA(nn.Module):
    """One proximal gradient step from x towards its sparse, non-negative code in the dictionary D."""

    def __init__(self, dim: int, eta: float, lam: float) -> None:
        super().__init__()
        self.eta = eta
        self.lam = lam
        self.dictionary = nn.Parameter(torch.empty(dim, dim))
        nn.init.kaiming_uniform_(self.dictionary)

    def forward(self, x_BND: Tensor) -> Tensor:
        """Return the codes, (B, N, D)."""
        D = self.dictionary
        residual_BND = x_BND - F.linear(x_BND, D)
        return F.relu(x_BND + self.eta * F.linear(residual_BND, D.T) - self.eta * self.lam)


class Block(nn.Module):
    """One layer: compress, then sparsify."""

    def __init__(self, dim: int, heads: int, eta: float, lam: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.mssa = MSSA(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.ista = ISTA(dim, eta, lam)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """Return the layer's tokens, (B, N, D), none of them negative."""
        compressed_BND = tokens_BND + self.mssa(self.norm1(tokens_BND))
        codes_BND: Tensor = self.ista(self.norm2(compressed_BND))
        return codes_BND


class CRATE(nn.Module):
    """The whole network, from images (B, channels, height, width) to logits (B, C)."""

    def __init__(self, config: CRATEConfig, shape: Shape, classes: int) -> None:
        super().__init__()
        patches = count_patches("crate", shape, config.patch)
        numbers = shape[0] * config.patch**2
        self.patch = config.patch
        self.pool = config.pool
        self.embed = nn.Sequential(nn.LayerNorm(numbers), nn.Linear(numbers, config.dim), nn.LayerNorm(config.dim))
        self.cls = nn.Parameter(torch.randn(1, 1, config.dim))
        self.position = nn.Parameter(torch.randn(1, patches + 1, config.dim))
        self.blocks = nn.Sequential(
            *(Block(config.dim, config.heads, config.eta, config.lam) for _ in range(config.depth))
        )
        self.norm = nn.LayerNorm(config.dim)
        self.head = nn.Linear(config.dim, classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return the logits, (B, C)."""
        patches_BND = self.embed(cut_patches(images_BCHW, self.patch))
        cls_B1D = self.cls.expand(len(images_BCHW), -1, -1)
        tokens_BND = self.blocks(torch.cat([cls_B1D, patches_BND], dim=1) + self.position)
        pooled_BD = tokens_BND[:, 0] if self.pool == "cls" else tokens_BND.mean(dim=1)
        logits_BC: Tensor = self.head(self.norm(pooled_BD))
        return logits_BC


@dataclass(frozen=True, kw_only=True)
class CRATEConfig:
    """How large the CRATE is, and its two constants; the default sizes are for images of 8 x 8 pixels."""

    dim: int = 64
    """Width of a token."""
    depth: int = 4
    """Number of layers."""
    heads: int = 4
    """Subspaces, which share the width evenly."""
    patch: int = 4
    """Side of a patch, in pixels."""
    eta: float = 0.1
    """Step size of ISTA."""
    lam: float = 0.1
    """Weight of the l1 norm in ISTA, the paper's lambda."""
    pool: Literal["cls", "mean"] = "cls"
    """What is classified: the class token, or the mean of all tokens."""

    def __post_init__(self) -> None:
        check_sizes("crate", dim=self.dim, heads=self.heads, depth=self.depth, patch=self.patch)
        if self.eta <= 0:
            raise WhitebenchError(f"crate[eta={self.eta}]: a step size must be above 0, e.g. eta=0.1")
        if self.lam < 0:
            raise WhitebenchError(f"crate[lam={self.lam}]: the l1 norm's weight must be 0 or more")
        if self.pool not in ("cls", "mean"):
            raise WhitebenchError(f"crate[pool={self.pool}]: choose pool=cls or pool=mean")


def _layout(config: CRATEConfig, _: Shape) -> Layout:
    scale = (config.dim // config.heads) ** -0.5
    return Layout(heads=config.heads, scale=scale, prefix_tokens=1, is_tied=True)


CRATE_SPEC = ModelSpec(
    name="crate",
    summary="CRATE: attention that compresses onto learned subspaces, then one sparse-coding step (ISTA)",
    config=CRATEConfig,
    build=CRATE,
    head="head",
    # No `search`: eta and lambda set the sparsity that the board measures, so tuning them for accuracy
    # would trade it away unseen. Both are 0.1 throughout the paper; eta 0.5 costs CRATE-B 4 points.
    trace={
        "tokens": "blocks.*",
        "projections": "blocks.*.mssa.project",
        "compressed": "blocks.*.norm2:in",
        "codes": "blocks.*.ista",
    },
    layout=_layout,
    reference=Reference(
        title="White-Box Transformers via Sparse Rate Reduction",
        url="https://arxiv.org/abs/2306.01129",
        published={
            "imagenet-1k top-1, T/16, %": 66.7,
            "imagenet-1k top-1, S/16, %": 69.2,
            "imagenet-1k top-1, B/16, %": 70.8,
            "imagenet-1k top-1, L/16, %": 71.3,
        },
    ),
)

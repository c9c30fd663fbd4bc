"""AoT: "Attention-Only Transformers via Unrolled Subspace Denoising" (Wang et al., arXiv 2506.03790).

Attention and a residual, nothing else: each layer pulls noisy tokens towards the subspaces U_k they came from.

    Z+     = Z + MSSA(LN(Z))                MSSA(Z) = concat_k( softmax(W_k W_k^T / sqrt(P)) W_k ) W_out^T + b_out
    logits = LN(pool(Z_L)) W_head^T + b_head        W_k = Z U_k^T

That is `attention=softmax`, the layer one trains. `attention=threshold` is the layer of which the paper proves what it
does: no norm, no temperature, W_out tied to U, a step size eta, and attention weights cut to zero or tau:

    Z+     = Z + eta sum_k phi(W_k W_k^T) W_k U_k,      phi(S) = tau 1[softmax(S) >= tau]

For tokens Z_k from orthogonal subspaces U_k, with little noise in the other subspaces, it multiplies the
signal-to-noise ratio |Z_k U_k^T U_k| / |Z_k (I - U_k^T U_k)| by exactly 1 + eta tau: in its own head a token selects
itself, and there becomes 1 + eta tau times what it was; in the others it selects nothing, and the noise stays.
As the signal grows so do the products with it, until some noise selects: a higher tau holds for more layers.
phi has no slope, so gradients pass through the values W_k alone; U starts orthogonal.

Embedding, pooling, head and all other initial weights are CRATE's (arXiv 2306.01129), whose layer this is without ISTA.

B batch, N tokens (class token first, then patches), D width, H heads (the paper's K), P head width, C classes.
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
    """Multi-head subspace self-attention, as it is trained."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(dim, dim, bias=False)
        # One head as wide as the token needs no mixing: as in CRATE.
        self.out = nn.Linear(dim, dim) if heads > 1 else nn.Identity()

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """Return the step towards the subspaces, (B, N, D)."""
        w_BHNP = self.project(tokens_BND).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        mixed_BHNP = F.scaled_dot_product_attention(w_BHNP, w_BHNP, w_BHNP)
        out_BND: Tensor = self.out(mixed_BHNP.transpose(1, 2).flatten(2))
        return out_BND


class ThresholdMSSA(nn.Module):
    """Multi-head subspace self-attention, as it is analysed: eta sum_k phi(W_k W_k^T) W_k U_k."""

    def __init__(self, dim: int, heads: int, eta: float, tau: float) -> None:
        super().__init__()
        self.heads = heads
        self.eta = eta
        self.tau = tau
        self.project = nn.Linear(dim, dim, bias=False)
        nn.init.orthogonal_(self.project.weight)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """Return the step towards the subspaces, (B, N, D)."""
        w_BHNP = self.project(tokens_BND).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        is_chosen_BHNN = (w_BHNP @ w_BHNP.mT).softmax(dim=-1) >= self.tau
        mixed_BHNP = self.tau * is_chosen_BHNN.to(w_BHNP.dtype) @ w_BHNP
        return self.eta * F.linear(mixed_BHNP.transpose(1, 2).flatten(2), self.project.weight.T)


class Block(nn.Module):
    """One layer: a step of denoising."""

    def __init__(self, config: AoTConfig) -> None:
        super().__init__()
        if config.attention == "softmax":
            self.norm: nn.Module = nn.LayerNorm(config.dim)
            self.attention: nn.Module = MSSA(config.dim, config.heads)
        else:
            self.norm = nn.Identity()
            self.attention = ThresholdMSSA(config.dim, config.heads, config.eta, config.tau)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """Return the layer's tokens, (B, N, D)."""
        step_BND: Tensor = self.attention(self.norm(tokens_BND))
        return tokens_BND + step_BND


class AoT(nn.Module):
    """The whole network, from images (B, channels, height, width) to logits (B, C)."""

    def __init__(self, config: AoTConfig, shape: Shape, classes: int) -> None:
        super().__init__()
        patches = count_patches("aot", shape, config.patch)
        numbers = shape[0] * config.patch**2
        self.patch = config.patch
        self.pool = config.pool
        self.embed = nn.Sequential(nn.LayerNorm(numbers), nn.Linear(numbers, config.dim), nn.LayerNorm(config.dim))
        self.cls = nn.Parameter(torch.randn(1, 1, config.dim))
        self.position = nn.Parameter(torch.randn(1, patches + 1, config.dim))
        self.blocks = nn.Sequential(*(Block(config) for _ in range(config.depth)))
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
class AoTConfig:
    """How large the AoT is, and which of its two layers it has; the defaults are for images of 8 x 8 pixels."""

    dim: int = 64
    """Width of a token."""
    depth: int = 4
    """Number of layers."""
    heads: int = 4
    """Subspaces, which share the width evenly."""
    patch: int = 4
    """Side of a patch, in pixels."""
    pool: Literal["cls", "mean"] = "cls"
    """What is classified: the class token, or the mean of all tokens."""
    attention: Literal["softmax", "threshold"] = "softmax"
    """The layer that is trained, or the one the theorem is about."""
    eta: float = 0.4
    """Step size of a layer; with attention=threshold only."""
    tau: float = 0.75
    """Attention weights below it are zero, all others are tau; with attention=threshold only."""

    def __post_init__(self) -> None:
        check_sizes("aot", dim=self.dim, heads=self.heads, depth=self.depth, patch=self.patch)
        if self.pool not in ("cls", "mean"):
            raise WhitebenchError(f"aot[pool={self.pool}]: choose pool=cls or pool=mean")
        if self.attention not in ("softmax", "threshold"):
            raise WhitebenchError(f"aot[attention={self.attention}]: choose attention=softmax or attention=threshold")
        if self.eta <= 0:
            raise WhitebenchError(f"aot[eta={self.eta}]: a step size must be above 0, e.g. eta=0.4")
        if not 0 < self.tau <= 1:
            raise WhitebenchError(f"aot[tau={self.tau}]: attention weights lie between 0 and 1; choose e.g. tau=0.75")


def _layout(config: AoTConfig, _: Shape) -> Layout:
    scale = (config.dim // config.heads) ** -0.5 if config.attention == "softmax" else 1.0
    return Layout(heads=config.heads, scale=scale, prefix_tokens=1, is_tied=True)


AOT = ModelSpec(
    name="aot",
    summary="AoT: attention and nothing else, each layer a step of denoising towards learned subspaces",
    config=AoTConfig,
    build=AoT,
    head="head",
    trace={"tokens": "blocks.*", "projections": "blocks.*.attention.project"},
    layout=_layout,
    reference=Reference(
        title="Attention-Only Transformers via Unrolled Subspace Denoising",
        url="https://arxiv.org/abs/2506.03790",
    ),
)

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

The layer one trains is CRATE's MSSA (arXiv 2306.01129); embedding, pooling, head and all other initial weights are
CRATE's too.

B batch, N tokens (class token first, then patches), D width, H heads (the paper's K), P head width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whitebench import Layout, ModelSpec, Reference, Shape, WhitebenchError
from whitebench_models.crate import MSSA
from whitebench_models.frame import Frame, FrameConfig
from whitebench_models.selection import TiedSelection, join_heads, selection_trace, split_heads, subspace_trace


class ThresholdMSSA(TiedSelection):
    """Multi-head subspace self-attention, as it is analysed: eta sum_k phi(W_k W_k^T) W_k U_k."""

    scale = 1.0

    def __init__(self, dim: int, heads: int, eta: float, tau: float) -> None:
        super().__init__()
        self.heads = heads
        self.eta = eta
        self.tau = tau
        self.project = nn.Linear(dim, dim, bias=False)
        nn.init.orthogonal_(self.project.weight)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """Return the step towards the subspaces, (B, N, D)."""
        w_BHNP = split_heads(self.project(tokens_BND), self.heads)
        mixed_BHNP = self._cut(w_BHNP @ w_BHNP.mT).to(w_BHNP.dtype) @ w_BHNP
        return self.eta * F.linear(join_heads(mixed_BHNP), self.project.weight.T)

    def _cut(self, logits_BHNN: Tensor) -> Tensor:
        """Return phi, tau where the softmax is tau or more, else 0."""
        return self.tau * (logits_BHNN.softmax(dim=-1) >= self.tau).to(logits_BHNN.dtype)

    def weights(self, tokens_BND: Tensor) -> Tensor:
        """Return phi (B, H, N, N), what every token (row) takes of every other: tau or nothing."""
        return self._cut(self.logits(tokens_BND))


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

    def compressed_projections(self, tokens_BND: Tensor) -> Tensor:
        """Return the layer's tokens where attention saw those before, in its own subspaces: LN(Z+) U^T."""
        projections_BND: Tensor = self.attention.get_submodule("project")(self.norm(self(tokens_BND)))
        return projections_BND

    def residual_projections(self, tokens_BND: Tensor) -> Tensor:
        """Return the tokens before and after attention in this layer's subspaces, past its norm: (B, 2, N, D)."""
        return torch.stack(
            [self.attention.get_submodule("project")(each) for each in (tokens_BND, self(tokens_BND))], dim=1
        )


class AoT(Frame):
    """The whole network, from images (B, channels, height, width) to logits (B, C)."""

    def __init__(self, config: AoTConfig, shape: Shape, classes: int) -> None:
        super().__init__(config, shape, classes, layer=lambda: Block(config))


@dataclass(frozen=True, kw_only=True)
class AoTConfig(FrameConfig):
    """How large the AoT is, and which of its two layers it has; the defaults are for images of 8 x 8 pixels."""

    name: ClassVar[str] = "aot"

    attention: Literal["softmax", "threshold"] = "softmax"
    """The layer that is trained, or the one the theorem is about."""
    eta: float = 0.4
    """Step size of a layer; with attention=threshold only."""
    tau: float = 0.75
    """Attention weights below it are zero, all others are tau; with attention=threshold only."""

    def __post_init__(self) -> None:
        super().__post_init__()
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
    trace={
        "tokens": "blocks.*",
        **subspace_trace("blocks.*", "attention"),
        **selection_trace("blocks.*.attention"),
    },
    layout=_layout,
    reference=Reference(
        title="Attention-Only Transformers via Unrolled Subspace Denoising",
        url="https://arxiv.org/abs/2506.03790",
    ),
)

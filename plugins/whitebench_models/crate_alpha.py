"""CRATE-alpha: "Scaling White-Box Transformers for Vision" (Yang et al., arXiv 2405.20299).

CRATE's compression, with three changes to its sparse coding: the dictionary D (D, E) is overcomplete, E = 4 D;
what it codes is decoded by another, D1 (D, E); and there is a residual. The code z2 of a token x is two
proximal gradient steps for 1/2 |x - D z|^2 + lambda |z|_1, z >= 0, from z = 0:

    z1 = ReLU(eta D^T x - eta lambda)
    z2 = ReLU(z1 - eta D^T (D z1 - x) - eta lambda)
    Z' = Z + MSSA(LN(Z))                    MSSA(Z) = concat_k( softmax(W_k W_k^T / sqrt(P)) W_k ) W_out^T
    Z+ = Z' + D1 z2(LN(Z'))                     W_k = Z U_k^T
    logits = LN(Z_L)[class] W_head^T + b_head

This is the released code, trained in JAX: no bias in attention, W_out also for one head, LayerNorm with eps 1e-6.
Its initial weights are ours: D and D1 uniform within sqrt(6 / D), both of variance 2 / D (the torch port of the
released code starts them with half that deviation), the patch embedding kaiming uniform, U, W_out, the
positions and the head N(0, 0.02), the class token N(0, 1e-6), biases zero.

B batch, N tokens (class token first, then patches), D width, E atoms, H heads (the paper's K), P head width,
C classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whitebench import Layout, ModelSpec, Reference, Shape, WhitebenchError
from whitebench_models.patches import check_sizes, count_patches, cut_patches
from whitebench_models.selection import TiedSelection, join_heads, selection_trace, split_heads, subspace_trace

_EPS = 1e-6
_STD = 0.02
_CLASS_STD = 1e-6


class MSSA(TiedSelection):
    """Multi-head subspace self-attention: each head pulls the tokens together within its subspace."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = 1 / math.sqrt(dim // heads)
        self.project = nn.Linear(dim, dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        nn.init.normal_(self.project.weight, std=_STD)
        nn.init.normal_(self.out.weight, std=_STD)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """Return the step towards the subspaces, (B, N, D)."""
        w_BHNP = split_heads(self.project(tokens_BND), self.heads)
        out_BND: Tensor = self.out(join_heads(F.scaled_dot_product_attention(w_BHNP, w_BHNP, w_BHNP)))
        return out_BND


class ISTA(nn.Module):
    """Two proximal gradient steps from zero towards the sparse, non-negative code in the dictionary D."""

    def __init__(self, dim: int, atoms: int, eta: float, lam: float) -> None:
        super().__init__()
        self.eta = eta
        self.lam = lam
        self.dictionary = nn.Parameter(torch.empty(dim, atoms))
        _spread_atoms(self.dictionary)

    def forward(self, x_BND: Tensor) -> Tensor:
        """Return the codes z2, (B, N, E)."""
        D, shrinkage = self.dictionary, self.eta * self.lam
        z1_BNE = F.relu(self.eta * F.linear(x_BND, D.T) - shrinkage)
        residual_BND = x_BND - F.linear(z1_BNE, D)
        return F.relu(z1_BNE + self.eta * F.linear(residual_BND, D.T) - shrinkage)


def _spread_atoms(dictionary_DE: Tensor) -> None:
    # Kaiming uniform as JAX counts it, with the rows as fan-in also in D1, whose inputs are the columns.
    bound = (6 / len(dictionary_DE)) ** 0.5
    nn.init.uniform_(dictionary_DE, -bound, bound)


class Block(nn.Module):
    """One layer: compress, then code sparsely and decode, each added to what came in."""

    def __init__(self, config: CRATEAlphaConfig) -> None:
        super().__init__()
        atoms = config.overcomplete * config.dim
        self.norm1 = nn.LayerNorm(config.dim, eps=_EPS)
        self.mssa = MSSA(config.dim, config.heads)
        self.norm2 = nn.LayerNorm(config.dim, eps=_EPS)
        self.ista = ISTA(config.dim, atoms, config.eta, config.lam)
        self.decode = nn.Linear(atoms, config.dim, bias=False)
        _spread_atoms(self.decode.weight)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """Return the layer's tokens, (B, N, D)."""
        compressed_BND = self.compress(tokens_BND)
        tokens_BND = compressed_BND + self.decode(self.ista(self.norm2(compressed_BND)))
        return tokens_BND

    def compress(self, tokens_BND: Tensor) -> Tensor:
        """Return the tokens between the two steps, (B, N, D)."""
        compressed_BND: Tensor = tokens_BND + self.mssa(self.norm1(tokens_BND))
        return compressed_BND

    def compressed_projections(self, tokens_BND: Tensor) -> Tensor:
        """Return the compressed tokens where attention saw the tokens, in this layer's subspaces: LN(Z') U^T."""
        projections_BND: Tensor = self.mssa.project(self.norm1(self.compress(tokens_BND)))
        return projections_BND

    def residual_projections(self, tokens_BND: Tensor) -> Tensor:
        """Return the tokens before and after attention in this layer's subspaces, past its norm: (B, 2, N, D)."""
        return torch.stack([self.mssa.project(each) for each in (tokens_BND, self.compress(tokens_BND))], dim=1)


class CRATEAlpha(nn.Module):
    """The whole network, from images (B, channels, height, width) to logits (B, C)."""

    def __init__(self, config: CRATEAlphaConfig, shape: Shape, classes: int) -> None:
        super().__init__()
        patches = count_patches("crate-alpha", shape, config.patch)
        self.patch = config.patch
        self.embed = nn.Linear(shape[0] * config.patch**2, config.dim)
        self.cls = nn.Parameter(_CLASS_STD * torch.randn(1, 1, config.dim))
        self.position = nn.Parameter(_STD * torch.randn(1, patches + 1, config.dim))
        self.blocks = nn.Sequential(*(Block(config) for _ in range(config.depth)))
        self.norm = nn.LayerNorm(config.dim, eps=_EPS)
        self.head = nn.Linear(config.dim, classes)
        nn.init.kaiming_uniform_(self.embed.weight)
        nn.init.normal_(self.head.weight, std=_STD)
        for layer in (self.embed, self.head):
            nn.init.zeros_(layer.bias)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return the logits, (B, C)."""
        patches_BND = self.embed(cut_patches(images_BCHW, self.patch))
        cls_B1D = self.cls.expand(len(images_BCHW), -1, -1)
        tokens_BND = self.blocks(torch.cat([cls_B1D, patches_BND], dim=1) + self.position)
        logits_BC: Tensor = self.head(self.norm(tokens_BND[:, 0]))
        return logits_BC


@dataclass(frozen=True, kw_only=True)
class CRATEAlphaConfig:
    """How large the CRATE-alpha is, and its two constants; the default sizes are for images of 8 x 8 pixels."""

    dim: int = 64
    """Width of a token."""
    depth: int = 4
    """Number of layers."""
    heads: int = 4
    """Subspaces, which share the width evenly."""
    patch: int = 4
    """Side of a patch, in pixels."""
    overcomplete: int = 4
    """Atoms of the dictionary, in widths of a token."""
    eta: float = 0.1
    """Step size of ISTA."""
    lam: float = 0.1
    """Weight of the l1 norm in ISTA, the paper's lambda."""

    def __post_init__(self) -> None:
        check_sizes(
            "crate-alpha",
            dim=self.dim,
            heads=self.heads,
            depth=self.depth,
            patch=self.patch,
            overcomplete=self.overcomplete,
        )
        if self.eta <= 0:
            raise WhitebenchError(f"crate-alpha[eta={self.eta}]: a step size must be above 0, e.g. eta=0.1")
        if self.lam < 0:
            raise WhitebenchError(f"crate-alpha[lam={self.lam}]: the l1 norm's weight must be 0 or more")


def _layout(config: CRATEAlphaConfig, _: Shape) -> Layout:
    scale = (config.dim // config.heads) ** -0.5
    return Layout(heads=config.heads, scale=scale, prefix_tokens=1, is_tied=True)


_TINY = {"dim": 192, "depth": 12, "heads": 3}
_SMALL = {"dim": 576, "depth": 12, "heads": 12}
_BASE = {"dim": 768, "depth": 12, "heads": 12}
_LARGE = {"dim": 1024, "depth": 24, "heads": 16}

CRATE_ALPHA = ModelSpec(
    name="crate-alpha",
    summary="CRATE-alpha: CRATE with an overcomplete dictionary, a second one to decode, and a residual",
    config=CRATEAlphaConfig,
    build=CRATEAlpha,
    head="head",
    # No `search`: as in CRATE, eta and lambda set the sparsity that the board measures; both are 0.1 at every size.
    trace={
        "tokens": "blocks.*",
        "compressed": "blocks.*.norm2:in",
        "codes": "blocks.*.ista",
        **subspace_trace("blocks.*", "mssa"),
        **selection_trace("blocks.*.mssa"),
    },
    layout=_layout,
    presets={
        "alpha-tiny-16": {**_TINY, "patch": 16},
        "alpha-small-16": {**_SMALL, "patch": 16},
        "alpha-base-32": {**_BASE, "patch": 32},
        "alpha-base-16": {**_BASE, "patch": 16},
        "alpha-base-8": {**_BASE, "patch": 8},
        "alpha-large-32": {**_LARGE, "patch": 32},
        "alpha-large-14": {**_LARGE, "patch": 14},
        "alpha-large-8": {**_LARGE, "patch": 8},
    },
    reference=Reference(
        title="Scaling White-Box Transformers for Vision",
        url="https://arxiv.org/abs/2405.20299",
        commit="227f6549cffa0b94758d147da148af769e94a95a",
        published={
            "imagenet-1k top-1 after imagenet-21k, B/32, %": 76.5,
            "imagenet-1k top-1 after imagenet-21k, B/16, %": 81.2,
            "imagenet-1k top-1 after imagenet-21k, B/8, %": 83.2,
            "imagenet-1k top-1 after imagenet-21k, L/32, %": 80.2,
            "imagenet-1k top-1 after imagenet-21k, L/14, %": 83.9,
            "imagenet-1k top-1 after imagenet-21k, L/8, %": 85.1,
        },
    ),
)

"""ToST: "Token Statistics Transformer: Linear-Time Attention via Variational Rate Reduction" (arXiv 2412.17810).

Attention as a gradient step on a variational form of MCR2's compression term (the paper's TSSA): it softly
assigns each token to a head's subspace, and shrinks it there along those directions in which the tokens
assigned to it have a large second moment. No token is compared with another, so nothing is N x N, there is no
softmax over tokens, and no token selects one. With w = Z U_k^T + b_k the projections (N, P) in head k:

    s_nk   = temperature_k  sum_p  w_np^2 / sum_m w_mp^2
    Pi_nk  = softmax over the heads k of s_nk                     (with one head Pi is 1: nothing is assigned)
    v_kp   = sum_n Pi_nk w_np^2 / (sum_n Pi_nk + 1e-8)
    TSSA   = concat_k( -Pi_nk w_np / (1 + v_kp) ) W_out^T + b_out
    Z'     = Z + g1 TSSA(LN(Z)),   Z+ = Z' + g2 MLP(LN(Z')),      g1, g2 learned scales of each channel

Cost of TSSA: 2 N D^2 multiplications in its two projections and about 5 N D beside them, O(N D) memory.

All around it is as in the released code, which took it from XCiT (arXiv 2106.09681): a stem that halves
the image by 3 x 3 convolutions of stride 2 with batch norm until a pixel is a patch; a Fourier encoding of row
and column, learned up to a linear map; LayerNorm with eps 1e-6; and two layers of class attention at the end:
only there a class token joins, asks the others (softmax attention) and is classified. Linear layers start
from N(0, 0.02) with zero biases, the class token too; convolutions and the map of the positions as torch starts them.

Two options leave the released code: `stem=linear`, one convolution as large as a patch, for small images;
`class_layers=0`, no class token, the mean of all tokens is classified.

B batch, N tokens (patches), D width, H heads (the paper's K), P head width, C classes.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whitebench import Layout, ModelSpec, Reference, Shape, WhitebenchError
from whitebench_models.patches import check_sizes, count_patches
from whitebench_models.selection import subspace_trace

_EPS = 1e-6
_STD = 0.02
_WAVES = 16
"""Wavelengths of the Fourier encoding, each with sine and cosine, for rows and for columns."""


class TSSA(nn.Module):
    """Token statistics self-attention: each head shrinks the tokens it is assigned, by their second moments."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(dim, dim)
        self.temperature = nn.Parameter(torch.ones(heads, 1))
        self.out = nn.Linear(dim, dim)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """Return the step towards the subspaces, (B, N, D)."""
        w_BHNP = self.project(tokens_BND).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        energy_BHNP = w_BHNP.square()
        # Where no token has any energy along a direction, each has a share of zero.
        share_BHNP = energy_BHNP / energy_BHNP.sum(dim=2, keepdim=True).clamp_min(1e-24)
        pi_BHN = (self.temperature * share_BHNP.sum(dim=-1)).softmax(dim=1)
        weight_BHN = pi_BHN / (pi_BHN.sum(dim=-1, keepdim=True) + 1e-8)
        moment_BH1P = weight_BHN.unsqueeze(2) @ energy_BHNP
        step_BHNP = -pi_BHN.unsqueeze(-1) * w_BHNP / (1 + moment_BH1P)
        out_BND: Tensor = self.out(step_BHNP.transpose(1, 2).flatten(2))
        return out_BND


class ClassAttention(nn.Module):
    """Softmax attention with the first token's query alone: linear in N too."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """Return what the class token hears, (B, 1, D)."""
        q_BH1P, k_BHNP, v_BHNP = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(tokens_BND[:, :1]), *self.key_value(tokens_BND).chunk(2, dim=-1))
        )
        heard_BH1P = F.scaled_dot_product_attention(q_BH1P, k_BHNP, v_BHNP)
        out_B1D: Tensor = self.out(heard_BH1P.transpose(1, 2).flatten(2))
        return out_B1D


def _mlp(dim: int, hidden: int) -> nn.Module:
    expand, contract = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
    return nn.Sequential(OrderedDict(expand=expand, activation=nn.GELU(), contract=contract))


class Block(nn.Module):
    """One layer: compress by TSSA, then MLP, each on normalised tokens, scaled, and with a residual."""

    def __init__(self, config: ToSTConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim, eps=_EPS)
        self.attention = TSSA(config.dim, config.heads)
        self.norm2 = nn.LayerNorm(config.dim, eps=_EPS)
        self.mlp = _mlp(config.dim, config.mlp_ratio * config.dim)
        self.scale1 = nn.Parameter(torch.full((config.dim,), config.layer_scale))
        self.scale2 = nn.Parameter(torch.full((config.dim,), config.layer_scale))

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """Return the layer's tokens, (B, N, D)."""
        compressed_BND = self.compress(tokens_BND)
        tokens_BND = compressed_BND + self.scale2 * self.mlp(self.norm2(compressed_BND))
        return tokens_BND

    def compress(self, tokens_BND: Tensor) -> Tensor:
        """Return the tokens between the two steps, (B, N, D)."""
        compressed_BND: Tensor = tokens_BND + self.scale1 * self.attention(self.norm1(tokens_BND))
        return compressed_BND

    def compressed_projections(self, tokens_BND: Tensor) -> Tensor:
        """Return the compressed tokens where attention saw the tokens, in this layer's subspaces: LN(Z') U^T + b."""
        projections_BND: Tensor = self.attention.project(self.norm1(self.compress(tokens_BND)))
        return projections_BND

    def residual_projections(self, tokens_BND: Tensor) -> Tensor:
        """Return the tokens before and after attention in this layer's subspaces, past its norm: (B, 2, N, D)."""
        return torch.stack([self.attention.project(each) for each in (tokens_BND, self.compress(tokens_BND))], dim=1)


class ClassBlock(nn.Module):
    """One layer of class attention, as the released code has it.

    The class token hears the patches and passes the MLP. The patches, though nothing is to happen to them, take the
    same residuals (their own norm added, norm2, then doubled): weights trained in the one form fail in another.
    """

    def __init__(self, config: ToSTConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim, eps=_EPS)
        self.attention = ClassAttention(config.dim, config.heads)
        self.norm2 = nn.LayerNorm(config.dim, eps=_EPS)
        self.mlp = _mlp(config.dim, config.mlp_ratio * config.dim)
        self.scale1 = nn.Parameter(torch.full((config.dim,), config.layer_scale))
        self.scale2 = nn.Parameter(torch.full((config.dim,), config.layer_scale))

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """Return the class token and the patches, (B, 1 + N, D)."""
        normed_BND = self.norm1(tokens_BND)
        heard_BND = torch.cat([self.attention(normed_BND), normed_BND[:, 1:]], dim=1)
        tokens_BND = self.norm2(tokens_BND + self.scale1 * heard_BND)
        cls_B1D = tokens_BND[:, :1]
        return torch.cat([cls_B1D + self.scale2 * self.mlp(cls_B1D), 2 * tokens_BND[:, 1:]], dim=1)


def halve(channels: int, dim: int, patch: int) -> nn.Module:
    """Return convolutions that halve an image's sides, twice as wide each, until a pixel is a patch."""
    halvings = patch.bit_length() - 1
    widths = [channels, *(dim >> later for later in reversed(range(halvings)))]
    layers: list[nn.Module] = []
    for narrow, wide in pairwise(widths):
        conv = nn.Conv2d(narrow, wide, kernel_size=3, stride=2, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(wide), nn.GELU()]
    return nn.Sequential(*layers[:-1])


def fourier_waves(rows: int, columns: int) -> Tensor:
    """Return sines and cosines of each patch's place, its row's before its column's: (N, 4 * wavelengths).

    A side is one turn of the shortest wave; the others are 10000^(i/16) times as long.
    """
    lengths = 10000 ** (torch.arange(_WAVES) / _WAVES)
    turns = [2 * math.pi * torch.arange(1, side + 1) / side for side in (rows, columns)]
    by_row, by_column = (torch.stack([(t[:, None] / lengths).sin(), (t[:, None] / lengths).cos()], -1) for t in turns)
    return torch.cat([by_row.flatten(1).repeat_interleave(columns, dim=0), by_column.flatten(1).repeat(rows, 1)], dim=1)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=_STD)
        nn.init.zeros_(module.bias)


class ToST(nn.Module):
    """The whole network, from images (B, channels, height, width) to logits (B, C)."""

    waves: Tensor

    def __init__(self, config: ToSTConfig, shape: Shape, classes: int) -> None:
        super().__init__()
        count_patches("tost", shape, config.patch)
        channels, height, width = shape
        patch = config.patch
        self.stem = (
            halve(channels, config.dim, patch)
            if config.stem == "conv"
            else nn.Conv2d(channels, config.dim, kernel_size=patch, stride=patch)
        )
        self.register_buffer("waves", fourier_waves(height // patch, width // patch), persistent=False)
        self.locate = nn.Linear(4 * _WAVES, config.dim)
        self.blocks = nn.Sequential(*(Block(config) for _ in range(config.depth)))
        self.class_blocks = nn.Sequential(*(ClassBlock(config) for _ in range(config.class_layers)))
        self.cls = nn.Parameter(_STD * torch.randn(1, 1, config.dim)) if config.class_layers else None
        self.norm = nn.LayerNorm(config.dim, eps=_EPS)
        self.head = nn.Linear(config.dim, classes)
        for part in (self.blocks, self.class_blocks, self.head):
            part.apply(_initialise)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return the logits, (B, C)."""
        patches_BND = self.stem(images_BCHW).flatten(2).transpose(1, 2).contiguous()
        tokens_BND = self.blocks(patches_BND + self.locate(self.waves))
        if self.cls is None:
            pooled_BD = tokens_BND.mean(dim=1)
        else:
            cls_B1D = self.cls.expand(len(images_BCHW), -1, -1)
            pooled_BD = self.class_blocks(torch.cat([cls_B1D, tokens_BND], dim=1))[:, 0]
        logits_BC: Tensor = self.head(self.norm(pooled_BD))
        return logits_BC


@dataclass(frozen=True, kw_only=True)
class ToSTConfig:
    """How large the ToST is; the defaults are for images of 8 x 8 pixels."""

    dim: int = 64
    """Width of a token."""
    depth: int = 4
    """Number of layers, those of class attention not counted."""
    heads: int = 4
    """Subspaces, which share the width evenly."""
    patch: int = 4
    """Side of a patch, in pixels; a power of two with stem=conv."""
    stem: Literal["linear", "conv"] = "linear"
    """How a patch becomes a token: by one linear map, or by convolutions with batch norm (the released code)."""
    class_layers: int = 2
    """Layers of class attention; with 0 the mean of all tokens is classified."""
    mlp_ratio: int = 4
    """Hidden width of the MLP, in widths of a token."""
    layer_scale: float = 1.0
    """Where the learned scales of the residual branches start; the released code has 1e-5 at depth 24."""

    def __post_init__(self) -> None:
        check_sizes(
            "tost",
            dim=self.dim,
            heads=self.heads,
            depth=self.depth,
            patch=self.patch,
            mlp_ratio=self.mlp_ratio,
        )
        if self.class_layers < 0:
            raise WhitebenchError(f"tost[class_layers={self.class_layers}]: class_layers must be 0 or more")
        if self.stem not in ("linear", "conv"):
            raise WhitebenchError(f"tost[stem={self.stem}]: choose stem=linear or stem=conv")
        if self.stem == "conv" and (self.patch < 2 or self.patch.bit_count() > 1):
            raise WhitebenchError(
                f"tost[stem=conv,patch={self.patch}]: convolutions that halve an image make patches of 2, 4, 8,"
                f" 16 and so on; choose one of these, or stem=linear"
            )
        if self.stem == "conv" and self.dim % (self.patch // 2):
            raise WhitebenchError(
                f"tost[stem=conv,dim={self.dim},patch={self.patch}]: the first convolution is dim / {self.patch // 2}"
                f" wide; choose a dim that is a multiple of {self.patch // 2}, or stem=linear"
            )


def _layout(config: ToSTConfig, _: Shape) -> Layout:
    # Not tied: there are no queries and keys that could be. No prefix: the class token comes after the layers.
    return Layout(heads=config.heads)


_RELEASED: Mapping[str, int | str] = {"depth": 12, "patch": 16, "stem": "conv", "class_layers": 2}

TOST = ModelSpec(
    name="tost",
    summary="ToST: attention by token statistics, linear in the number of tokens, then an MLP",
    config=ToSTConfig,
    build=ToST,
    head="head",
    trace={
        "tokens": "blocks.*",
        "compressed": "blocks.*.norm2:in",
        "codes": "blocks.*.mlp.activation",
        **subspace_trace("blocks.*", "attention"),
    },
    layout=_layout,
    presets={
        "tost-tiny": {**_RELEASED, "dim": 192, "heads": 4},
        "tost-small": {**_RELEASED, "dim": 384, "heads": 8},
    },
    reference=Reference(
        title="Token Statistics Transformer: Linear-Time Attention via Variational Rate Reduction",
        url="https://arxiv.org/abs/2412.17810",
        commit="253184be84e065bcfe07fad57c3bae7b3ba9745a",
    ),
)

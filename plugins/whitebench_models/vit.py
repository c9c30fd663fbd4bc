"""ViT: "An Image is Worth 16x16 Words" (Dosovitskiy et al., arXiv 2010.11929), the plain model.

Section 3.1, equations 1 to 4, with x_1 .. x_N the patches, each flattened:

    Z_0    = [x_class; x_1 E; ..; x_N E] + E_pos
    Z'_l   = Z_{l-1} + MSA(LN(Z_{l-1}))         MSA(Z) = concat_k softmax(Q_k K_k^T / sqrt(P)) V_k  W_out
    Z_l    = Z'_l + MLP(LN(Z'_l))               MLP(Z) = GELU(Z W_1) W_2, hidden width 4 D
    logits = LN(Z_L)[class] W_head

every linear layer with a bias. As in the released code, LayerNorm has eps 1e-6, weights start Xavier uniform
(queries, keys and values each on their own), biases and the class token from zero, the position embedding
from N(0, 0.02). Ours starts the patch embedding (there LeCun normal) and the head (there zero) like all
other weights, so that each has a gradient from the first step. The fixed 0.02 for weights that is common
elsewhere suits width 768; in 10 epochs on digits it costs 4 to 8 points at width 64.

Of the sizes T, S and B in common use the paper names only B. The presets are DeiT's (Touvron et al., arXiv
2012.12877, table 1), the same architecture at three widths; without its distillation token.

B batch, N tokens (class token first, then patches), D width, H heads, P head width, C classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whitebench import Layout, ModelSpec, Reference, Shape
from whitebench_models.patches import check_sizes, count_patches, cut_patches
from whitebench_models.selection import bilinear_forms, compare, join_heads, selection_trace, split_heads

STEPS_TRACE = {"tokens": "blocks.*", "compressed": "blocks.*.norm2:in", "codes": "blocks.*.mlp.activation"}
"""What a layer hands on, and the two ends of its second step."""

_EPS = 1e-6
_POSITION_STD = 0.02


class Attention(nn.Module):
    """MSA: every head mixes the tokens' values by the likeness of their queries and keys."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = 1 / math.sqrt(dim // heads)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def project(self, tokens_BND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, (B, H, N, P)."""
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(tokens_BND).chunk(3, dim=-1))
        return q, k, v

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """Return the mixed tokens, (B, N, D)."""
        mixed_BHNP = F.scaled_dot_product_attention(*self.project(tokens_BND))
        out_BND: Tensor = self.out(join_heads(mixed_BHNP))
        return out_BND

    def logits(self, tokens_BND: Tensor) -> Tensor:
        """Return what every query (row) makes of every key, (B, H, N, N)."""
        q_BHNP, k_BHNP, _ = self.project(tokens_BND)
        return compare(q_BHNP, k_BHNP, self.scale)

    def weights(self, tokens_BND: Tensor) -> Tensor:
        """Return the weight that every query (row) gives to every key, (B, H, N, N)."""
        return self.logits(tokens_BND).softmax(dim=-1)

    def forms(self, _: Tensor) -> Tensor:
        """Return the form behind each head's logits, (H, D, D + 1)."""
        query_DD, key_DD, _ = self.qkv.weight.chunk(3)
        return bilinear_forms(query_DD, key_DD, self.heads, self.scale, query_bias_D=self.qkv.bias.chunk(3)[0])


class MLP(nn.Module):
    """Two linear layers with a GELU between them, on each token alone."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, hidden)
        self.activation = nn.GELU()
        self.contract = nn.Linear(hidden, dim)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """Return the new tokens, (B, N, D)."""
        out_BND: Tensor = self.contract(self.activation(self.expand(tokens_BND)))
        return out_BND


class Block(nn.Module):
    """One layer: attention, then MLP, each on normalised tokens and with a residual."""

    def __init__(self, dim: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=_EPS)
        self.attention = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=_EPS)
        self.mlp = MLP(dim, mlp_ratio * dim)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """Return the layer's tokens, (B, N, D)."""
        tokens_BND = tokens_BND + self.attention(self.norm1(tokens_BND))
        tokens_BND = tokens_BND + self.mlp(self.norm2(tokens_BND))
        return tokens_BND


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
    if isinstance(module, Attention):
        for weight in module.qkv.weight.data.chunk(3):
            nn.init.xavier_uniform_(weight)


class ViT(nn.Module):
    """The whole network, from images (B, channels, height, width) to logits (B, C)."""

    def __init__(self, config: ViTConfig, shape: Shape, classes: int) -> None:
        super().__init__()
        patches = count_patches("vit", shape, config.patch)
        self.patch = config.patch
        self.embed = nn.Linear(shape[0] * config.patch**2, config.dim)
        self.cls = nn.Parameter(torch.zeros(1, 1, config.dim))
        self.position = nn.Parameter(_POSITION_STD * torch.randn(1, patches + 1, config.dim))
        self.blocks = nn.Sequential(*(Block(config.dim, config.heads, config.mlp_ratio) for _ in range(config.depth)))
        self.norm = nn.LayerNorm(config.dim, eps=_EPS)
        self.head = nn.Linear(config.dim, classes)
        self.apply(_initialise)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return the logits, (B, C)."""
        patches_BND = self.embed(cut_patches(images_BCHW, self.patch))
        cls_B1D = self.cls.expand(len(images_BCHW), -1, -1)
        tokens_BND = torch.cat([cls_B1D, patches_BND], dim=1) + self.position
        logits_BC: Tensor = self.head(self.norm(self.blocks(tokens_BND))[:, 0])
        return logits_BC


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """How large the ViT is; the defaults are for images of 8 x 8 pixels."""

    dim: int = 64
    """Width of a token."""
    depth: int = 4
    """Number of layers."""
    heads: int = 4
    """Attention heads, which share the width evenly."""
    patch: int = 4
    """Side of a patch, in pixels."""
    mlp_ratio: int = 4
    """Hidden width of the MLP, in widths of a token."""

    def __post_init__(self) -> None:
        check_sizes(
            "vit",
            dim=self.dim,
            heads=self.heads,
            depth=self.depth,
            patch=self.patch,
            mlp_ratio=self.mlp_ratio,
        )


def _layout(config: ViTConfig, _: Shape) -> Layout:
    return Layout(heads=config.heads, scale=(config.dim // config.heads) ** -0.5, prefix_tokens=1)


VIT = ModelSpec(
    name="vit",
    summary="Vision transformer with pre-norm and class token: the black box the others are judged against",
    config=ViTConfig,
    build=ViT,
    head="head",
    # No `projections` or `subspaces`: a head has three projections here, and no claim says which is its subspace.
    trace={**STEPS_TRACE, **selection_trace("blocks.*.attention")},
    layout=_layout,
    presets={
        "deit-tiny": {"dim": 192, "depth": 12, "heads": 3, "patch": 16},
        "deit-small": {"dim": 384, "depth": 12, "heads": 6, "patch": 16},
        "deit-base": {"dim": 768, "depth": 12, "heads": 12, "patch": 16},
    },
    reference=Reference(
        title="An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale",
        url="https://arxiv.org/abs/2010.11929",
    ),
)

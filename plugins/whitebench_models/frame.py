"""What stands around CRATE's layers: the embedding before them, pooling and head behind them.

Section 2.5 of "White-Box Transformers via Sparse Rate Reduction" (arXiv 2306.01129), as its released code has it,
with x_1 .. x_N the patches, each flattened:

    Z_1    = [z_class; LN(LN(x_1) W + b); ..; LN(LN(x_N) W + b)] + E_pos
    logits = LN(pool(Z_L)) W_head^T + b_head,      pool: the class token, or the mean of all tokens

Class token and position embedding start from N(0, 1), all else as torch starts it.

B batch, N tokens (class token first, then patches), D width, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn

from whitebench import Shape, WhitebenchError
from whitebench_models.patches import check_sizes, count_patches, cut_patches

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, kw_only=True)
class FrameConfig:
    """The options of every model in this frame; the default sizes are for images of 8 x 8 pixels."""

    name: ClassVar[str]
    """The model's, for what is said to people."""

    dim: int = 64
    """Width of a token."""
    depth: int = 4
    """Number of layers."""
    heads: int = 4
    """Attention heads (in CRATE: subspaces), which share the width evenly."""
    patch: int = 4
    """Side of a patch, in pixels."""
    pool: Literal["cls", "mean"] = "cls"
    """What is classified: the class token, or the mean of all tokens."""

    def __post_init__(self) -> None:
        check_sizes(self.name, dim=self.dim, heads=self.heads, depth=self.depth, patch=self.patch)
        if self.pool not in ("cls", "mean"):
            raise WhitebenchError(f"{self.name}[pool={self.pool}]: choose pool=cls or pool=mean")


class Frame(nn.Module):
    """The whole network, from images (B, channels, height, width) to logits (B, C), with the layers it is given."""

    def __init__(self, config: FrameConfig, shape: Shape, classes: int, layer: Callable[[], nn.Module]) -> None:
        super().__init__()
        patches = count_patches(config.name, shape, config.patch)
        numbers = shape[0] * config.patch**2
        self.patch = config.patch
        self.pool = config.pool
        self.embed = nn.Sequential(nn.LayerNorm(numbers), nn.Linear(numbers, config.dim), nn.LayerNorm(config.dim))
        self.cls = nn.Parameter(torch.randn(1, 1, config.dim))
        self.position = nn.Parameter(torch.randn(1, patches + 1, config.dim))
        self.blocks = nn.Sequential(*(layer() for _ in range(config.depth)))
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

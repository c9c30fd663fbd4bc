"""CRATE as its paper's released code computes it (arXiv 2306.01129): what ours is timed against, with the same weights.

Attention holds its map of tokens by tokens, softmax is a step of its own, and ISTA takes three products. As in the
released code one projection is query, key and value at once: another two would make this slower, and no one's CRATE.

B batch, N tokens, D width, H heads, P head width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whitebench import Shape
from whitebench_models.crate import CRATEConfig


class MSSA(nn.Module):
    def __init__(self, config: CRATEConfig) -> None:
        super().__init__()
        self.heads, self.width = config.heads, config.dim // config.heads
        self.project = nn.Linear(config.dim, config.dim, bias=False)
        self.out = nn.Linear(config.dim, config.dim)

    def forward(self, x_BND: Tensor) -> Tensor:
        B, N, D = x_BND.shape
        w_BHNP = self.project(x_BND).reshape(B, N, self.heads, self.width).permute(0, 2, 1, 3)
        dots_BHNN = torch.matmul(w_BHNP, w_BHNP.transpose(-1, -2)) * self.width**-0.5
        mixed_BHNP = torch.matmul(dots_BHNN.softmax(dim=-1), w_BHNP)
        out_BND: Tensor = self.out(mixed_BHNP.permute(0, 2, 1, 3).reshape(B, N, D))
        return out_BND


class ISTA(nn.Module):
    def __init__(self, config: CRATEConfig) -> None:
        super().__init__()
        self.eta, self.lam = config.eta, config.lam
        self.dictionary = nn.Parameter(torch.empty(config.dim, config.dim))

    def forward(self, x_BND: Tensor) -> Tensor:
        D = self.dictionary
        x_Dt = F.linear(x_BND, D)
        x_Dt_D = F.linear(x_Dt, D.t())
        x_D = F.linear(x_BND, D.t())
        return F.relu(x_BND + self.eta * (x_D - x_Dt_D) - self.eta * self.lam)


class Block(nn.Module):
    def __init__(self, config: CRATEConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim)
        self.mssa = MSSA(config)
        self.norm2 = nn.LayerNorm(config.dim)
        self.ista = ISTA(config)

    def forward(self, z_BND: Tensor) -> Tensor:
        z_BND = z_BND + self.mssa(self.norm1(z_BND))
        codes_BND: Tensor = self.ista(self.norm2(z_BND))
        return codes_BND


class TextbookCRATE(nn.Module):
    """The default form, with more than one head, of images (B, channels, height, width)."""

    def __init__(self, config: CRATEConfig, shape: Shape, classes: int) -> None:
        super().__init__()
        channels, height, width = shape
        self.patch = p = config.patch
        numbers = channels * p * p
        self.embed = nn.Sequential(nn.LayerNorm(numbers), nn.Linear(numbers, config.dim), nn.LayerNorm(config.dim))
        self.cls = nn.Parameter(torch.empty(1, 1, config.dim))
        self.position = nn.Parameter(torch.empty(1, (height // p) * (width // p) + 1, config.dim))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.dim)
        self.head = nn.Linear(config.dim, classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        B, C, H, W = images_BCHW.shape
        p = self.patch
        patches_BN = images_BCHW.reshape(B, C, H // p, p, W // p, p).permute(0, 2, 4, 3, 5, 1).reshape(B, -1, p * p * C)
        z_BND = torch.cat([self.cls.expand(B, -1, -1), self.embed(patches_BN)], dim=1) + self.position
        for block in self.blocks:
            z_BND = block(z_BND)
        logits_BC: Tensor = self.head(self.norm(z_BND[:, 0]))
        return logits_BC

"""SVR-ViT: "A Primal-Dual Framework for Transformers and Neural Networks" (Nguyen et al., arXiv 2406.13781).

Softmax attention is the support vector expansion of a regression from keys to values, read at the queries. Two
attentions follow from changing that regression. With q, k, v of one head and mu the mean of the keys it sees:

    Attention-BN   normalise its inputs:     softmax((q - beta mu)(k - beta mu)^T / sqrt(P)) v,   beta learned
    Attention-SH   fit it to fewer samples:  head h sees keys and values averaged over runs of s_h tokens

and `bn-sh` does both: pools, then centres. All else is ViT.

Ours: one beta per head, from 1 (full centring); the class token, which is read out, stays out of the pooling; runs
are of patches in the order of rows, the last one of those that are left.

No `attention-forms` are traced: centring takes beta mu from each query, which is another bias for every sample, and
pooling compares a query with runs and not with tokens. No one form makes the logits.

B batch, N tokens (class token first, then patches), M runs (the class token is one), D width, H heads, P head width.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whitebench import ModelSpec, Reference, Shape, WhitebenchError
from whitebench_models.attention import SELECTION_TRACE, build_vit, check_vit, layout
from whitebench_models.selection import exact, join_heads
from whitebench_models.vit import ViTConfig

if TYPE_CHECKING:
    from whitebench_models.vit import Attention, ViT


def run_sizes(seen_BN: Tensor, scale: int) -> Tensor:
    """Return how many of the tokens that are seen are in each run, (B, M)."""
    return torch.cat([seen_BN[:, :1].long(), _cut(seen_BN[:, 1:].long(), scale).sum(dim=2)], dim=1)


def pool_runs(rows_BNHP: Tensor, seen_BN: Tensor, scale: int) -> Tensor:
    """Return the class token, and of each run of `scale` patches the mean of what is seen, (B, M, H, P)."""
    sums_BMHP = _cut((rows_BNHP * seen_BN[..., None, None])[:, 1:], scale).sum(dim=2)
    sizes_BM = run_sizes(seen_BN, scale)[:, 1:].clamp(min=1)
    return torch.cat([rows_BNHP[:, :1], sums_BMHP / sizes_BM[..., None, None]], dim=1)


def _cut(patches: Tensor, scale: int) -> Tensor:
    """Return (B, M, scale, ..), the last run filled with zeros."""
    scale = min(scale, patches.shape[1])
    missing = -patches.shape[1] % scale
    filled = torch.cat([patches, patches.new_zeros(len(patches), missing, *patches.shape[2:])], dim=1)
    return filled.reshape(len(patches), -1, scale, *patches.shape[2:])


class SVRAttention(nn.Module):
    """MSA with keys centred, or keys and values pooled, or both."""

    def __init__(self, attention: Attention, scales: tuple[int, ...], *, is_centred: bool) -> None:
        super().__init__()
        self.heads = attention.heads
        self.scales = scales
        self.qkv = attention.qkv
        self.out = attention.out
        self.beta = nn.Parameter(torch.ones(self.heads)) if is_centred else None

    def regressions(self, tokens_BND: Tensor, seen_BN: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield queries (B, h, N, P), keys and values (B, h, M, P), for each scale of the h heads that have it."""
        parts = (part.unflatten(-1, (self.heads, -1)) for part in self.qkv(tokens_BND).chunk(3, dim=-1))
        shares = zip(*(part.tensor_split(len(self.scales), dim=2) for part in parts), strict=True)
        betas = [None] * len(self.scales) if self.beta is None else self.beta.tensor_split(len(self.scales))
        for scale, (q, k, v), beta in zip(self.scales, shares, betas, strict=True):
            keys, values = (part if scale == 1 else pool_runs(part, seen_BN, scale) for part in (k, v))
            shift = 0.0 if beta is None else beta[:, None] * _mean(keys, run_sizes(seen_BN, scale) > 0)
            yield (q - shift).transpose(1, 2), (keys - shift).transpose(1, 2), values.transpose(1, 2)

    def forward(self, tokens_BND: Tensor, mask_BN: Tensor | None = None) -> Tensor:
        """Return the mixed tokens, (B, N, D); `mask_BN` has 0 for a key, or -inf to hide it."""
        seen_BN = _seen(tokens_BND, mask_BN)
        mixed = []
        for scale, (q, k, v) in zip(self.scales, self.regressions(tokens_BND, seen_BN), strict=True):
            mask = None if mask_BN is None else (run_sizes(seen_BN, scale) > 0)[:, None, None, :]
            mixed.append(F.scaled_dot_product_attention(q, k, v, attn_mask=mask))
        out: Tensor = self.out(join_heads(torch.cat(mixed, dim=1)))
        return out

    def logits(self, tokens_BND: Tensor, mask_BN: Tensor | None = None) -> Tensor:
        """Return the logits (B, H, N, N) of the attention over tokens that comes to the same.

        A run's weight falls in equal parts to the tokens in it: each has the run's logit less the log of their number.
        """
        seen_BN = _seen(tokens_BND, mask_BN)
        logits = []
        for scale, (q, k, _) in zip(self.scales, self.regressions(tokens_BND, seen_BN), strict=True):
            logits_BhNM = exact(q @ k.transpose(-2, -1)) / math.sqrt(q.shape[-1])
            shares_BM = run_sizes(seen_BN, scale).to(logits_BhNM.dtype).log()
            runs_N = (torch.arange(seen_BN.shape[1], device=q.device) + scale - 1) // scale
            logits.append((logits_BhNM - shares_BM[:, None, None, :])[..., runs_N])
        return torch.cat(logits, dim=1).masked_fill(~seen_BN[:, None, None, :], -math.inf)

    def weights(self, tokens_BND: Tensor, mask_BN: Tensor | None = None) -> Tensor:
        """Return the weights (B, H, N, N) of that attention."""
        return self.logits(tokens_BND, mask_BN).softmax(dim=-1)


def _mean(keys_BMHP: Tensor, seen_BM: Tensor) -> Tensor:
    """Return the mean (B, 1, H, P) of the keys that are seen."""
    seen = seen_BM.to(keys_BMHP.dtype)[..., None, None]
    return (seen * keys_BMHP).sum(dim=1, keepdim=True) / seen.sum(dim=1, keepdim=True)


def _seen(tokens_BND: Tensor, mask_BN: Tensor | None) -> Tensor:
    if mask_BN is None:
        return torch.ones(1, tokens_BND.shape[1], dtype=torch.bool, device=tokens_BND.device)
    return mask_BN > -math.inf


@dataclass(frozen=True, kw_only=True)
class SVRViTConfig(ViTConfig):
    """A ViT's sizes, and which regression its attention is."""

    attention: Literal["bn", "sh", "bn-sh"] = "bn-sh"
    """Attention-BN, Attention-SH, or both."""
    scales: str = "1-2"
    """For sh: how many patches make a run, for equal shares of the heads in their order; 1 pools none."""

    def __post_init__(self) -> None:
        check_vit("svr-vit", self)
        if self.attention not in ("bn", "sh", "bn-sh"):
            raise WhitebenchError(f"svr-vit[attention={self.attention}]: choose bn, sh or bn-sh")
        if not re.fullmatch(r"[1-9][0-9]{0,8}(-[1-9][0-9]{0,8})*", self.scales):
            raise WhitebenchError(
                f"svr-vit[scales={self.scales}]: write numbers from 1 with - between, e.g. scales=1-2"
            )
        if len(self.run_lengths) > self.heads:
            raise WhitebenchError(
                f"svr-vit[scales={self.scales},heads={self.heads}]: there are more scales than heads; leave some out"
            )

    @property
    def run_lengths(self) -> tuple[int, ...]:
        """The lengths of runs, each for an equal share of the heads."""
        return tuple(map(int, self.scales.split("-"))) if "sh" in self.attention else (1,)


def _build(config: SVRViTConfig, shape: Shape, classes: int) -> ViT:
    is_centred = config.attention.startswith("bn")
    return build_vit(
        "svr-vit",
        config,
        shape,
        classes,
        lambda plain: SVRAttention(plain, config.run_lengths, is_centred=is_centred),
    )


SVR_VIT = ModelSpec(
    name="svr-vit",
    summary="ViT with attention as support vector regression: centred keys (Attention-BN), pooled keys (Attention-SH)",
    config=SVRViTConfig,
    build=_build,
    head="head",
    trace={kind: pattern for kind, pattern in SELECTION_TRACE.items() if kind != "attention-forms"},
    layout=layout,
    reference=Reference(
        title="A Primal-Dual Framework for Transformers and Neural Networks", url="https://arxiv.org/abs/2406.13781"
    ),
)

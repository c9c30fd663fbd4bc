"""What an attention that selects tokens shows to those who look: its logits, its weights, and the form behind them.

Such an attention has three methods beside its forward, each given the tokens it takes:

    logits(tokens)     (B, H, N, N), a row per query: what it makes of every key, but for a constant per row
    weights(tokens)    (B, H, N, N): what it gives to every key
    forms(tokens)      (H, D, D + 1), the same for any tokens: W_h with logit_st = x_t^T W_h [x_s; 1] + const(s)

since the kernels that training is fast with never hold the first two. For queries W_Q x + b_Q and keys W_K x + b_K

    W = W_K^T [W_Q, b_Q] scale                  (b_K adds the same to a whole row)

and where one projection U is query and key at once W = U^T [U, 0] scale.

B batch, N tokens, D width, H heads, P head width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def selection_trace(attention: str) -> dict[str, str]:
    """Return what to trace of the modules called `attention` that have the three methods."""
    return {
        "attention-inputs": f"{attention}:in",
        "attention-logits": f"{attention}:logits()",
        "attention": f"{attention}:weights()",
        "attention-forms": f"{attention}:forms()",
    }


def subspace_trace(block: str, attention: str) -> dict[str, str]:
    """Return what to trace of an attention within subspaces, whose `project` takes tokens there.

    `block` has two methods, given the tokens it takes: `compressed_projections(tokens)`, attention's outcome in the
    same subspaces through the same norm; and `residual_projections(tokens)`, what came in and that outcome past it.
    """
    return {
        "projections": f"{block}.{attention}.project",
        "compressed-projections": f"{block}:compressed_projections()",
        "residual-projections": f"{block}:residual_projections()",
        "subspaces": f"{block}.{attention}.project.weight:param",
    }


def split_heads(rows_BND: Tensor, heads: int) -> Tensor:
    """Return (B, H, N, P)."""
    rows_BHNP: Tensor = rows_BND.unflatten(-1, (heads, -1)).transpose(1, 2)  # type: ignore[no-untyped-call]
    return rows_BHNP


def join_heads(rows_BHNP: Tensor) -> Tensor:
    """Return (B, N, D)."""
    return rows_BHNP.transpose(1, 2).flatten(2)


def exact(numbers: Tensor) -> Tensor:
    """Return them in float32 at least: in bfloat16 gaps between logits, and sums over keys, are too coarse."""
    return numbers.to(torch.promote_types(numbers.dtype, torch.float32))


def compare(q_BHNP: Tensor, k_BHNP: Tensor, scale: float) -> Tensor:
    """Return what every query (row) makes of every key, (B, H, N, N), in float32 at least, as fast kernels sum it."""
    with torch.autocast(q_BHNP.device.type, enabled=False):
        return exact(q_BHNP) @ exact(k_BHNP).transpose(-2, -1) * scale


def bilinear_forms(
    query_DD: Tensor, key_DD: Tensor, heads: int, scale: float, *, query_bias_D: Tensor | None = None
) -> Tensor:
    """Return W = W_K^T [W_Q, b_Q] scale of each head, (H, D, D + 1), from projections with a head's rows together."""
    with torch.autocast(query_DD.device.type, enabled=False):
        bias_D1 = (query_DD.new_zeros(len(query_DD)) if query_bias_D is None else query_bias_D)[:, None]
        query_HPE = torch.cat([exact(query_DD), exact(bias_D1)], dim=1).reshape(heads, -1, query_DD.shape[1] + 1)
        key_HPD = exact(key_DD).reshape(heads, -1, key_DD.shape[1])
        return key_HPD.transpose(-2, -1) @ query_HPE * scale


class TiedSelection(nn.Module):
    """An attention in which one projection U is query and key at once, for those who look."""

    heads: int
    scale: float
    project: nn.Linear

    def logits(self, tokens_BND: Tensor) -> Tensor:
        """Return what every token (row) makes of every other, (B, H, N, N)."""
        w_BHNP = split_heads(self.project(tokens_BND), self.heads)
        return compare(w_BHNP, w_BHNP, self.scale)

    def weights(self, tokens_BND: Tensor) -> Tensor:
        """Return the weight that every token (row) gives to every other, (B, H, N, N)."""
        return self.logits(tokens_BND).softmax(dim=-1)

    def forms(self, _: Tensor) -> Tensor:
        """Return the form behind each head's logits, U_k^T U_k and no bias, (H, D, D + 1)."""
        return bilinear_forms(self.project.weight, self.project.weight, self.heads, self.scale)

"""What torch's own attention, `nn.MultiheadAttention`, shows to those who look: it has no methods for it itself.

    logits(tokens)     (B, H, N, N), a row per query: q_s . k_t / sqrt(P)
    weights(tokens)    (B, H, N, N): their softmax
    forms(tokens)      (H, D, D + 1): W_h = W_K^T [W_Q, b_Q] / sqrt(P), with logit_st = x_t^T W_h [x_s; 1] + const(s)

of self-attention, batch first, without masks, key biases or keys of another width.

B batch, N tokens, D width, H heads, P head width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from whitebench.errors import TraceError


def logits(attention: nn.MultiheadAttention, tokens: Tensor) -> Tensor:
    """Return what every query (row) makes of every key."""
    queries = nn.functional.pad(tokens, (0, 1), value=1.0)
    return torch.einsum("btd,hde,bse->bhst", tokens, forms(attention, tokens), queries)


def weights(attention: nn.MultiheadAttention, tokens: Tensor) -> Tensor:
    """Return the weight that every query (row) gives to every key."""
    return logits(attention, tokens).softmax(dim=-1)


def forms(attention: nn.MultiheadAttention, _: Tensor) -> Tensor:
    """Return the form behind each head's logits.

    Raises:
        TraceError: it is no self-attention of tokens (B, N, D) with one projection for queries, keys and values.
    """
    packed: Tensor | None = getattr(attention, "in_proj_weight", None)
    if not attention.batch_first or packed is None or attention.bias_k is not None:
        raise TraceError(
            "of torch's MultiheadAttention only self-attention with batch_first=True, without kdim, vdim and "
            "add_bias_kv, can be looked into; give the TraceSpec a trace function"
        )
    biases: Tensor | None = getattr(attention, "in_proj_bias", None)
    query, key, _values = packed.chunk(3)
    bias = torch.zeros_like(query[:, 0]) if biases is None else biases.chunk(3)[0]
    width = query.shape[1]
    queries = torch.cat([query, bias[:, None]], dim=1).reshape(attention.num_heads, -1, width + 1)
    keys = key.reshape(attention.num_heads, -1, width)
    form: Tensor = keys.mT @ queries / attention.head_dim**0.5
    return form


METHODS: Mapping[str, Callable[[nn.MultiheadAttention, Tensor], Tensor]] = {
    "logits": logits,
    "weights": weights,
    "forms": forms,
}

"""What models that are a ViT but for its attention share: the exchange, the look inside, an own term of the loss.

An attention that selects tokens has two methods for those who look, `logits(tokens)` and `weights(tokens)`, both
(B, H, N, N) with a row per query: the kernels that training is fast with never hold them.

B batch, N tokens (class token first, then patches), D width, H heads, P head width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from whitebench import Layout, Shape
from whitebench_models.patches import check_sizes, count_patches
from whitebench_models.vit import Attention, Block, ViT, ViTConfig

if TYPE_CHECKING:
    from collections.abc import Callable


INPUTS_TRACE = {
    "tokens": "blocks.*",
    "codes": "blocks.*.mlp.activation",
    "attention-inputs": "blocks.*.attention:in",
}
SELECTION_TRACE = {
    **INPUTS_TRACE,
    "attention-logits": "blocks.*.attention:logits()",
    "attention": "blocks.*.attention:weights()",
}


class Penalised(nn.Module):
    """An attention with an own term of the loss, kept from a training pass until `own_term` takes it."""

    term: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Torch copies no tensor that hangs on a graph, and no copy has a use for this one.
        return {**self.__dict__, "term": None}


def build_vit(model: str, config: ViTConfig, shape: Shape, classes: int, make: Callable[[Attention], nn.Module]) -> ViT:
    """Return a ViT with `make(attention)` in the place of every block's attention.

    `make` takes over what weights the two attentions share, and draws its own after all others are drawn: under
    one seed, whatever two such models share starts alike.

    Raises:
        WhitebenchError: the sample is no image that can be cut into patches; names `model`.
    """
    count_patches(model, shape, config.patch)
    vit = ViT(config, shape, classes)
    for block in vit.blocks:
        assert isinstance(block, Block)
        block.register_module("attention", make(block.attention))
    return vit


def check_vit(model: str, config: ViTConfig) -> None:
    """Refuse sizes that no ViT can have.

    Raises:
        WhitebenchError: names `model`, the option and what to give instead.
    """
    sizes = {name: getattr(config, name) for name in ("dim", "heads", "depth", "patch", "mlp_ratio")}
    check_sizes(model, **sizes)


def layout(config: ViTConfig, _: Shape) -> Layout:
    """Return how the traces of an attention with queries and keys per head are to be read."""
    return Layout(heads=config.heads, scale=(config.dim // config.heads) ** -0.5, prefix_tokens=1)


def split_heads(rows_BND: Tensor, heads: int) -> Tensor:
    """Return (B, H, N, P)."""
    rows_BHNP: Tensor = rows_BND.unflatten(-1, (heads, -1)).transpose(1, 2)  # type: ignore[no-untyped-call]
    return rows_BHNP


def join_heads(rows_BHNP: Tensor) -> Tensor:
    """Return (B, N, D)."""
    return rows_BHNP.transpose(1, 2).flatten(2)


def exact(logits: Tensor) -> Tensor:
    """Return logits in float32 at least: in bfloat16 the gaps between them, and sums over keys, are too coarse."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def own_term(model: nn.Module) -> Tensor:
    """Return the mean over layers of the terms that the last training pass left, and let go of them."""
    terms = []
    for module in model.modules():
        if isinstance(module, Penalised):
            assert module.term is not None, "the penalty is read off a training pass, once"
            terms.append(module.term)
            module.term = None
    return torch.stack(terms).mean()

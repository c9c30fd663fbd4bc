"""What models that are a ViT but for its attention share: the exchange, the look inside, an own term of the loss.

B batch, N tokens (class token first, then patches), D width, H heads, P head width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from whitebench import Layout, Shape
from whitebench_models.patches import check_sizes, count_patches
from whitebench_models.selection import selection_trace
from whitebench_models.vit import STEPS_TRACE, Attention, Block, ViT, ViTConfig

if TYPE_CHECKING:
    from collections.abc import Callable


SELECTION_TRACE = {**STEPS_TRACE, **selection_trace("blocks.*.attention")}
INPUTS_TRACE = {**STEPS_TRACE, "attention-inputs": SELECTION_TRACE["attention-inputs"]}


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


def own_term(model: nn.Module) -> Tensor:
    """Return the mean over layers of the terms that the last training pass left, and let go of them."""
    terms = []
    for module in model.modules():
        if isinstance(module, Penalised):
            assert module.term is not None, "the penalty is read off a training pass, once"
            terms.append(module.term)
            module.term = None
    return torch.stack(terms).mean()

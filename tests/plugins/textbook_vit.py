"""A ViT written out in float64, one sample at a time, with any attention in it; and what tests of those share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from tests.plugins.textbook import linear, norm, patches_of
from whitebench_models.vit import ViT, ViTConfig

Weights = Mapping[str, Tensor]
Attend = Callable[[Tensor, Weights], Tensor]
"""`(tokens (N, D), an attention's weights by name) -> (N, D)`, the output projection not yet done."""

_EPS = 1e-6

SHAPE, CLASSES = (2, 4, 6), 5
TOKENS = 7  # with patches of 2 x 2


def under(p: Weights, prefix: str) -> Weights:
    return {name.removeprefix(prefix): weight for name, weight in p.items() if name.startswith(prefix)}


def heads_of(p: Weights, tokens: Tensor, heads: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return q, k and v (N, P) of each head."""
    q, k, v = linear(tokens, p, "qkv").chunk(3, 1)
    width = q.shape[1] // heads
    own = [slice(head * width, (head + 1) * width) for head in range(heads)]
    return [(q[:, one], k[:, one], v[:, one]) for one in own]


def vit(image: Tensor, p: Weights, config: ViTConfig, attend: Attend) -> Tensor:
    """Return the logits (C,)."""
    z = torch.cat([p["cls"][0], linear(patches_of(image, config.patch), p, "embed")]) + p["position"][0]
    for layer in range(config.depth):
        block = under(p, f"blocks.{layer}.")
        attention = under(block, "attention.")
        z = z + linear(attend(norm(z, block, "norm1", eps=_EPS), attention), attention, "out")
        hidden = linear(norm(z, block, "norm2", eps=_EPS), block, "mlp.expand")
        z = z + linear(hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2))), block, "mlp.contract")
    return linear(norm(z, p, "norm", eps=_EPS)[0], p, "head")


def assert_same_logits_and_gradients(model: ViT, config: ViTConfig, attend: Attend) -> None:
    """Compare a model, every weight of which is drawn anew, with the textbook's."""
    scramble(model)
    images = torch.randn(3, *SHAPE, dtype=torch.float64, requires_grad=True)
    weights = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    theirs = torch.stack([vit(image, weights, config, attend) for image in images])
    ours = model(images)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    direction = torch.randn_like(ours)
    taking_part = [name for name in weights if not name.endswith(".L")]  # KSVD's L is in the penalty alone
    mine = torch.autograd.grad((ours * direction).sum(), [images, *(model.get_parameter(name) for name in taking_part)])
    textbook = torch.autograd.grad((theirs * direction).sum(), [images, *(weights[name] for name in taking_part)])
    torch.testing.assert_close(mine, textbook, rtol=1e-12, atol=1e-12)


def scramble(model: nn.Module) -> None:
    for parameter in model.parameters():  # zero biases and unit gains would hide a slip
        nn.init.normal_(parameter, std=0.5)


def hide(places: Sequence[int], tokens: int = TOKENS) -> Tensor:
    """Return a mask (tokens,) that hides the tokens at `places`."""
    mask = torch.zeros(tokens)
    mask[list(places)] = -math.inf
    return mask


def assert_hidden_tokens_have_no_part(attention: nn.Module, dim: int, mask_BN: Tensor) -> None:
    """See that what hidden tokens hold changes no result of the others, nor has a gradient from it."""
    tokens = torch.randn(len(mask_BN), mask_BN.shape[1], dim, requires_grad=True)
    others = tokens.detach().clone()
    hidden = mask_BN == -math.inf
    others[hidden] = 3 * torch.randn_like(others[hidden])
    seen = attention(tokens, mask_BN)[~hidden]
    assert torch.equal(seen, attention(others, mask_BN)[~hidden])
    assert not torch.allclose(seen, attention(others)[~hidden])  # without the mask they do
    (gradient, *rest) = torch.autograd.grad(
        seen.square().sum(), [tokens, *attention.parameters()], allow_unused=True, materialize_grads=True
    )
    assert not gradient[hidden].any()
    assert gradient[~hidden].any()
    assert all(one.isfinite().all() for one in (gradient, *rest))

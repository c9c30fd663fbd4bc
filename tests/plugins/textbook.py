<<<<<<< HEAD
"""The models' parts written out in float64 for one sample, one head and one exponential at a time.

Each takes a sample's tokens, one per row, and a model's parameters `p` by name; `name` is the part's own.
"""
=======
"""A ViT written out in float64, one sample at a time, with any attention in it; and what tests of those share."""
>>>>>>> ed5c077 (Train a ViT whose attention selects tokens by a margin: svm-vit, by sparsemax, entmax-1.5, a full W or a hinge)

from __future__ import annotations

import math
<<<<<<< HEAD
from collections.abc import Callable, Mapping
=======
from collections.abc import Callable, Mapping, Sequence
>>>>>>> ed5c077 (Train a ViT whose attention selects tokens by a margin: svm-vit, by sparsemax, entmax-1.5, a full W or a hinge)

import torch
from torch import Tensor, nn

<<<<<<< HEAD
Parameters = Mapping[str, Tensor]


def patches_of(image: Tensor, side: int) -> Tensor:
    _, height, breadth = image.shape
    return torch.stack(
        [
            image[:, i : i + side, j : j + side].permute(1, 2, 0).reshape(-1)
            for i in range(0, height, side)
            for j in range(0, breadth, side)
        ]
    )


def norm(x: Tensor, p: Parameters, name: str, *, eps: float = 1e-5) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / ((centred**2).mean(-1, keepdim=True) + eps).sqrt() * p[f"{name}.weight"] + p[f"{name}.bias"]


def linear(x: Tensor, p: Parameters, name: str) -> Tensor:
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def attend(q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Tensor:
    likeness = (q @ k.T * scale).exp()
    return likeness / likeness.sum(1, keepdim=True) @ v


def mhsa(z: Tensor, p: Parameters, name: str, heads: int) -> Tensor:
    q, k, v = linear(z, p, f"{name}.qkv").chunk(3, 1)
    width = z.shape[1] // heads
    mixed = []
    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        mixed.append(attend(q[:, own], k[:, own], v[:, own], scale=1 / math.sqrt(width)))
    return linear(torch.cat(mixed, 1), p, f"{name}.out")


def mssa(z: Tensor, p: Parameters, name: str, heads: int, *, scale: float) -> Tensor:
    """Mix in each subspace, and bring the heads back by a learned matrix unless there is only one."""
    mixed = []
    for U in p[f"{name}.project.weight"].chunk(heads):
        W = z @ U.T
        mixed.append(attend(W, W, W, scale=scale))
    together = torch.cat(mixed, 1)
    return linear(together, p, f"{name}.out") if heads > 1 else together


def ista(x: Tensor, D: Tensor, *, eta: float, lam: float) -> Tensor:
    return (x + eta * (x @ D - x @ D.T @ D) - eta * lam).clamp(min=0)


def mlp(x: Tensor, p: Parameters, name: str) -> Tensor:
    hidden = linear(x, p, f"{name}.expand")
    return linear(hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2))), p, f"{name}.contract")


def embed(image: Tensor, p: Parameters, side: int) -> Tensor:
    """Return CRATE's first tokens, the class token first."""
    patches = linear(norm(patches_of(image, side), p, "embed.0"), p, "embed.1")
    return torch.cat([p["cls"][0], norm(patches, p, "embed.2")]) + p["position"][0]


def classify(z: Tensor, p: Parameters, pool: str) -> Tensor:
    """Return CRATE's logits of the last tokens."""
    pooled = z[0] if pool == "cls" else z.sum(0) / len(z)
    return linear(norm(pooled, p, "norm"), p, "head")


def unsettle(model: nn.Module) -> None:
    """Draw every weight at random: zero biases and unit gains would hide a slip."""
    model.double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)


def check_against(model: nn.Module, images: Tensor, textbook: Callable[[Tensor, Parameters], Tensor]) -> None:
    """Compare logits, and the gradients of images and weights, with those of `textbook(image, parameters)`."""
    images = images.double().requires_grad_()
    parameters = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    theirs = torch.stack([textbook(image, parameters) for image in images])
    ours = model(images)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    direction = torch.randn_like(ours)
    mine = torch.autograd.grad((ours * direction).sum(), [images, *model.parameters()])
    textbooks = torch.autograd.grad((theirs * direction).sum(), [images, *parameters.values()])
    for name, one, other in zip(["images", *parameters], mine, textbooks, strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12), f"gradient of {name}"
=======
from whitebench_models.vit import ViT, ViTConfig

Weights = Mapping[str, Tensor]
Attend = Callable[[Tensor, Weights], Tensor]
"""`(tokens (N, D), an attention's weights by name) -> (N, D)`, the output projection not yet done."""

SHAPE, CLASSES = (2, 4, 6), 5
TOKENS = 7  # with patches of 2 x 2


def linear(x: Tensor, p: Weights, name: str) -> Tensor:
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def norm(x: Tensor, p: Weights, name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / ((centred**2).mean(-1, keepdim=True) + 1e-6).sqrt() * p[f"{name}.weight"] + p[f"{name}.bias"]


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
    side = config.patch
    patches = [
        image[:, i : i + side, j : j + side].permute(1, 2, 0).reshape(-1)
        for i in range(0, image.shape[1], side)
        for j in range(0, image.shape[2], side)
    ]
    z = torch.cat([p["cls"][0], linear(torch.stack(patches), p, "embed")]) + p["position"][0]
    for layer in range(config.depth):
        block = under(p, f"blocks.{layer}.")
        attention = under(block, "attention.")
        z = z + linear(attend(norm(z, block, "norm1"), attention), attention, "out")
        hidden = linear(norm(z, block, "norm2"), block, "mlp.expand")
        z = z + linear(hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2))), block, "mlp.contract")
    return linear(norm(z, p, "norm")[0], p, "head")


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
>>>>>>> ed5c077 (Train a ViT whose attention selects tokens by a margin: svm-vit, by sparsemax, entmax-1.5, a full W or a hinge)

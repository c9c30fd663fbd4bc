"""The models' parts written out in float64 for one sample, one head and one exponential at a time.

Each takes a sample's tokens, one per row, and a model's parameters `p` by name; `name` is the part's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

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

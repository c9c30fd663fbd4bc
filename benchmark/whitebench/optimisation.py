"""What a recipe means in formulas: its optimiser, its schedule, its targets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from lion_pytorch import Lion
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor, nn

    from whitebench.recipe import Recipe


def build_optimiser(
    recipe: Recipe, hyperparameters: Mapping[str, float | int | str], weights: list[nn.Parameter]
) -> torch.optim.Optimizer:
    """Return AdamW (Loshchilov & Hutter, arXiv 1711.05101) or Lion (Chen et al., arXiv 2302.06675).

    Weight decay is decoupled and spares biases, norms and every other weight of fewer than two dimensions.
    """
    rate, decay = float(hyperparameters["learning_rate"]), float(hyperparameters["weight_decay"])
    groups = [
        {"params": [weight for weight in weights if weight.ndim >= 2], "weight_decay": decay},
        {"params": [weight for weight in weights if weight.ndim < 2], "weight_decay": 0.0},
    ]
    kind: Any = torch.optim.AdamW if recipe.optimiser == "adamw" else Lion
    optimiser: torch.optim.Optimizer = kind(groups, lr=rate, betas=recipe.betas)
    return optimiser


def schedule_factor(step: int, *, schedule: str, warmup: float, total: int) -> float:
    """Return what the peak learning rate is multiplied by at `step`, counted from 0.

    It rises linearly over `warmup` steps, then stays, or falls to zero along half a cosine at `total`.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule == "constant":
        return 1.0
    progress = (step - warmup) / max(1.0, total - warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def mix_up(inputs: Tensor, targets: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Return inputs (B, …) and targets (B, C), each row mixed with that of another sample of the batch.

    x = lambda x_i + (1 - lambda) x_j, and so for the targets, with one lambda ~ Beta(alpha, alpha) a batch (Zhang,
    Cisse, Dauphin, Lopez-Paz, arXiv 1710.09412, section 2), drawn from torch's global generator.
    """
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    partner = torch.randperm(len(inputs)).to(inputs.device)
    mixed = share * inputs + (1 - share) * inputs[partner]
    return mixed, share * targets + (1 - share) * targets[partner]


def soft_targets(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """Return rows of class probabilities (B, C): one-hot, with `smoothing` spread evenly over all classes."""
    return F.one_hot(labels, classes).float() * (1 - smoothing) + smoothing / classes

"""Optimisers, schedules and targets against their formulas, written out in numpy."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from whitebench.optimisation import build_optimiser, mix_up, schedule_factor, soft_targets
from whitebench.recipe import Optimiser, Recipe, Tuned

Array = npt.NDArray[np.float64]
Formula = Callable[[Array, list[Array], float], Array]

RATE, DECAY, BETAS = 0.01, 0.1, (0.9, 0.99)
START = np.array([[1.0, -2.0], [0.5, 3.0]])
GRADIENTS = [
    np.array([[0.3, -0.1], [0.0, 2.0]]),
    np.array([[-0.5, -0.2], [0.1, 1.0]]),
    np.array([[0.2, 0.0], [-0.4, -3.0]]),
]


def steps(optimiser: Optimiser, start: Array, gradients: list[Array]) -> Array:
    weight = nn.Parameter(torch.tensor(start))
    recipe = Recipe(optimiser=optimiser, learning_rate=Tuned(value=1.0), betas=BETAS)
    one = build_optimiser(recipe, {"learning_rate": RATE, "weight_decay": DECAY}, [weight])
    for gradient in gradients:
        weight.grad = torch.tensor(gradient)
        one.step()
    found: Array = weight.detach().numpy()
    return found


def adamw(weight: Array, gradients: list[Array], decay: float) -> Array:
    """Algorithm 2 of arXiv 1711.05101, with the decay scaled by the learning rate as torch does."""
    mean = square = np.zeros_like(weight)
    for step, gradient in enumerate(gradients, start=1):
        mean = BETAS[0] * mean + (1 - BETAS[0]) * gradient
        square = BETAS[1] * square + (1 - BETAS[1]) * gradient**2
        update = (mean / (1 - BETAS[0] ** step)) / (np.sqrt(square / (1 - BETAS[1] ** step)) + 1e-8)
        weight = weight - RATE * decay * weight - RATE * update
    return weight


def lion(weight: Array, gradients: list[Array], decay: float) -> Array:
    """Algorithm 2 of arXiv 2302.06675."""
    momentum = np.zeros_like(weight)
    for gradient in gradients:
        update = np.sign(BETAS[0] * momentum + (1 - BETAS[0]) * gradient)
        weight = weight - RATE * (update + decay * weight)
        momentum = BETAS[1] * momentum + (1 - BETAS[1]) * gradient
    return weight


@pytest.mark.parametrize("count", [1, 3])
def test_adamw_steps_as_its_paper_says(count: int) -> None:
    np.testing.assert_allclose(
        steps("adamw", START, GRADIENTS[:count]), adamw(START, GRADIENTS[:count], DECAY), rtol=1e-12
    )


@pytest.mark.parametrize("count", [1, 3])
def test_lion_steps_as_its_paper_says(count: int) -> None:
    np.testing.assert_allclose(
        steps("lion", START, GRADIENTS[:count]), lion(START, GRADIENTS[:count], DECAY), rtol=1e-12
    )


@pytest.mark.parametrize(("optimiser", "formula"), [("adamw", adamw), ("lion", lion)])
def test_weights_of_fewer_than_two_dimensions_are_not_decayed(optimiser: Optimiser, formula: Formula) -> None:
    start, gradients = START[0], [gradient[0] for gradient in GRADIENTS]
    np.testing.assert_allclose(steps(optimiser, start, gradients), formula(start, gradients, 0.0), rtol=1e-12)


def test_every_weight_is_in_exactly_one_group() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Conv2d(1, 1, 2))
    recipe = Recipe(learning_rate=Tuned(value=1.0))
    optimiser = build_optimiser(recipe, {"learning_rate": RATE, "weight_decay": DECAY}, list(module.parameters()))
    decayed, spared = optimiser.param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (DECAY, 0.0)
    assert [len(decayed["params"]), len(spared["params"])] == [2, 4]


def test_the_learning_rate_rises_linearly_and_falls_along_half_a_cosine() -> None:
    factors = [schedule_factor(step, schedule="cosine", warmup=4, total=12) for step in range(13)]
    rising = [1 / 5, 2 / 5, 3 / 5, 4 / 5]
    falling = [(1 + math.cos(math.pi * t / 8)) / 2 for t in range(9)]
    assert factors == pytest.approx([*rising, *falling], abs=1e-12)
    assert factors[4] == 1.0


def test_a_constant_schedule_stays_at_its_peak() -> None:
    factors = [schedule_factor(step, schedule="constant", warmup=2, total=6) for step in range(6)]
    assert factors == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, 1])


@pytest.mark.parametrize("warmup", [0, 0.5, 2.5, 6, 100])
def test_whatever_the_warm_up_no_factor_leaves_zero_to_one(warmup: float) -> None:
    for schedule in ("cosine", "constant"):
        factors = [schedule_factor(step, schedule=schedule, warmup=warmup, total=6) for step in range(8)]
        assert all(0 <= factor <= 1 for factor in factors)
        assert factors[0] > 0


def test_targets_are_one_hot_or_smoothed_and_sum_to_one() -> None:
    labels = torch.tensor([1, 0])
    assert soft_targets(labels, 4, 0.0).tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]
    smoothed = soft_targets(labels, 4, 0.2)
    assert smoothed.tolist()[0] == pytest.approx([0.05, 0.85, 0.05, 0.05])
    assert smoothed.sum(dim=1).tolist() == pytest.approx([1.0, 1.0])


def test_mixup_gives_inputs_and_targets_the_same_share_of_the_same_partner() -> None:
    torch.manual_seed(3)
    inputs, targets = torch.eye(6), torch.eye(6)
    mixed, soft = mix_up(inputs, targets, 0.4)
    assert torch.equal(mixed, soft)
    torch.testing.assert_close(soft.sum(dim=1), torch.ones(6))
    shares = {round(float(one), 6) for one in mixed.flatten()} - {0.0, 1.0}
    assert len(shares) == 2
    assert sum(shares) == pytest.approx(1)


def test_mixup_s_shares_are_beta_distributed() -> None:
    """Beta(2, 2) has mean 1/2 and variance 1/20."""
    torch.manual_seed(0)
    marks = torch.tensor([[1.0], [0.0]])
    draws = torch.cat([mix_up(marks, marks, 2.0)[0][:1, 0] for _ in range(4000)])
    shares = draws[(draws > 0) & (draws < 1)]
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(shares.var()) == pytest.approx(1 / 20, abs=0.005)

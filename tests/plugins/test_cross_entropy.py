import math

import numpy as np
import pytest
import torch

from whitebench import NoOptions
from whitebench_objectives.cross_entropy import CROSS_ENTROPY


def test_each_sample_loses_what_numpy_says_for_one_hot_and_smoothed_targets() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(6, 4)), np.array([0, 1, 2, 3, 0, 1])
    for smoothing in (0.0, 0.1):
        targets = (1 - smoothing) * np.eye(4)[labels] + smoothing / 4
        shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        by_hand = -(targets * np.log(shares)).sum(1)
        losses = CROSS_ENTROPY.build(NoOptions(), 4, 8)(torch.from_numpy(logits), torch.from_numpy(targets))
        np.testing.assert_allclose(losses.numpy(), by_hand, rtol=1e-12)


def test_knowing_nothing_costs_the_logarithm_of_the_number_of_classes() -> None:
    losses = CROSS_ENTROPY.build(NoOptions(), 10, 8)(torch.zeros(2, 10), torch.eye(10)[:2])
    assert losses.tolist() == pytest.approx([math.log(10)] * 2)


def test_huge_logits_stay_finite() -> None:
    losses = CROSS_ENTROPY.build(NoOptions(), 2, 8)(torch.tensor([[1e4, -1e4]]), torch.tensor([[0.0, 1.0]]))
    assert losses.tolist() == [2e4]


def test_half_precision_logits_are_scored_in_float32() -> None:
    loss = CROSS_ENTROPY.build(NoOptions(), 3, 8)
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = loss(logits, torch.eye(3)[[0, 1, 2, 0]])
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, loss(logits.float(), torch.eye(3)[[0, 1, 2, 0]]))


def test_the_gradient_is_the_predicted_shares_less_the_targets() -> None:
    logits = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    targets = torch.full((5, 3), 1 / 3, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(CROSS_ENTROPY.build(NoOptions(), 3, 8)(logits, targets).sum(), logits)
    torch.testing.assert_close(gradient, logits.softmax(-1) - targets, rtol=1e-12, atol=1e-12)

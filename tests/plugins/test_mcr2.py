"""MCR2 against the formula written out with membership matrices in numpy, and against its known optimum."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from whitebench import WhitebenchError
from whitebench_objectives.mcr2 import MCR2, MCR2Options, class_grams, log_volume

NATS = pytest.approx


def textbook(Z: np.ndarray, y: np.ndarray, classes: int, config: MCR2Options) -> float:
    """Return the loss as the paper writes it: columns of unit norm, one diagonal membership matrix per class."""
    Z = (Z / np.linalg.norm(Z, axis=1, keepdims=True)).T
    d, m = Z.shape
    rate = np.linalg.slogdet(np.eye(d) + config.gamma1 * d / (m * config.eps2) * Z @ Z.T)[1] / 2
    within = 0.0
    for j in range(classes):
        Pi = np.diag((y == j).astype(float))
        m_j = np.trace(Pi)
        within += m_j / (2 * m) * np.linalg.slogdet(np.eye(d) + d / (m_j * config.eps2) * Z @ Pi @ Z.T)[1]
    return float(within - config.gamma2 * rate)


def hot(labels: Tensor, classes: int) -> Tensor:
    return torch.nn.functional.one_hot(labels, classes).double()


@pytest.mark.parametrize("config", [MCR2Options(), MCR2Options(eps2=0.1, gamma1=2.0, gamma2=0.7)])
def test_the_loss_is_the_textbook_s(config: MCR2Options) -> None:
    rng = np.random.default_rng(0)
    Z, y = rng.normal(size=(30, 7)), rng.integers(0, 4, size=30)
    labels = torch.from_numpy(y)
    loss = MCR2(config, 4, 7)(torch.from_numpy(Z), hot(labels, 4))
    assert loss.item() == NATS(textbook(Z, y, 4, config), rel=1e-12)


def test_its_gradient_is_the_slope_of_the_textbook() -> None:
    rng = np.random.default_rng(1)
    Z, y, step = rng.normal(size=(12, 5)), np.arange(12) % 3, 1e-6
    features = torch.from_numpy(Z).requires_grad_()
    MCR2(MCR2Options(), 3, 5)(features, hot(torch.from_numpy(y), 3)).backward()
    assert features.grad is not None
    for row, column in [(0, 0), (4, 2), (11, 4)]:
        nudge = np.zeros_like(Z)
        nudge[row, column] = step
        slope = (textbook(Z + nudge, y, 3, MCR2Options()) - textbook(Z - nudge, y, 3, MCR2Options())) / (2 * step)
        assert features.grad[row, column].item() == NATS(slope, rel=1e-6, abs=1e-9)


def test_the_features_scale_changes_nothing() -> None:
    features, targets = torch.randn(20, 6, dtype=torch.float64), hot(torch.arange(20) % 4, 4)
    lengths = torch.rand(20, 1, dtype=torch.float64) + 0.1
    objective = MCR2(MCR2Options(), 4, 6)
    assert objective(lengths * features, targets).item() == NATS(objective(features, targets).item(), rel=1e-12)


def test_label_smoothing_changes_nothing() -> None:
    features, targets = torch.randn(20, 6), hot(torch.arange(20) % 4, 4).float()
    objective = MCR2(MCR2Options(), 4, 6)
    assert torch.equal(objective(features, targets), objective(features, 0.9 * targets + 0.025))


def test_gradient_ascent_on_free_features_comes_within_one_percent_of_the_known_optimum() -> None:
    """For 10 balanced classes in 64 dimensions the largest Delta R is 25.413 nats."""
    torch.manual_seed(0)
    D, classes, eps2 = 64, 10, 0.5
    optimum = D / 2 * math.log(1 + 1 / eps2) - D / (2 * classes) * math.log(1 + classes / eps2)
    assert optimum == NATS(25.413, abs=5e-4)
    features = torch.randn(400, D, requires_grad=True)
    targets, objective = hot(torch.arange(400) % classes, classes), MCR2(MCR2Options(), classes, D)
    optimiser = torch.optim.Adam([features], lr=0.1)
    for _ in range(300):
        optimiser.zero_grad()
        loss = objective(features, targets)
        loss.backward()
        optimiser.step()
    assert 0.99 * optimum < -loss.item() < 1.0001 * optimum


def test_classes_on_orthogonal_lines_give_the_closed_form() -> None:
    """Every class on its own axis: R = 1/2 sum_j log(1 + D B_j / (B eps2)), R_c = 1/2 log(1 + D / eps2)."""
    counts, D, eps2 = [3, 5, 2], 4, 0.5
    labels = torch.tensor([j for j, count in enumerate(counts) for _ in range(count)])
    features = torch.eye(D, dtype=torch.float64)[labels]
    whole = sum(math.log(1 + D * count / (10 * eps2)) for count in counts) / 2
    within = math.log(1 + D / eps2) / 2
    assert MCR2(MCR2Options(), 3, D)(features, hot(labels, 3)).item() == NATS(within - whole, rel=1e-12)


def test_an_empty_a_collapsed_and_a_zero_class_give_a_number_with_finite_gradients() -> None:
    features = torch.randn(12, 5)
    features[:4] = 1.0  # collapsed to a point
    features[4:8] = 0.0
    features.requires_grad_()
    labels = torch.arange(12) // 4  # classes 3 and 4 are empty
    loss = MCR2(MCR2Options(), 5, 5)(features, hot(labels, 5))
    loss.backward()
    assert loss.isfinite()
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_under_autocast_it_computes_in_float32() -> None:
    features, targets = torch.randn(64, 16), hot(torch.arange(64) % 4, 4).float()
    objective = MCR2(MCR2Options(), 4, 16)
    with torch.autocast("cpu", torch.bfloat16):
        inside, half = objective(features, targets), objective(features.bfloat16(), targets)
    assert torch.equal(inside, objective(features, targets))
    assert half.dtype == torch.float32


def test_a_hundred_classes_and_a_batch_of_8192_need_no_membership_matrix() -> None:
    """A float32 matrix of 8192 x 8192 would take 268 MB for each class; the Grams take 6.6 MB."""
    features = torch.randn(8192, 128, requires_grad=True)
    loss = MCR2(MCR2Options(), 100, 128)(features, hot(torch.arange(8192) % 100, 100).float())
    loss.backward()
    assert loss.isfinite()


def test_class_grams_are_sums_of_outer_products() -> None:
    features, labels = torch.randn(6, 3, dtype=torch.float64), torch.tensor([2, 0, 2, 2, 0, 0])
    grams = class_grams(features, labels, 4)
    for j in range(4):
        expected = sum((torch.outer(z, z) for z in features[labels == j]), torch.zeros(3, 3, dtype=torch.float64))
        torch.testing.assert_close(grams[j], expected)


def test_the_log_volume_is_numpy_s() -> None:
    A = np.random.default_rng(2).normal(size=(3, 5, 5))
    grams = A @ A.transpose(0, 2, 1)
    expected = np.linalg.slogdet(np.eye(5) + grams)[1]
    np.testing.assert_allclose(log_volume(torch.from_numpy(grams)).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("options", [{"eps2": 0.0}, {"gamma1": -1.0}, {"gamma2": 0.0}])
def test_constants_that_make_no_sense_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(WhitebenchError, match="must be above 0"):
        MCR2Options(**options)

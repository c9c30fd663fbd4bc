"""Rate reduction against membership matrices in numpy, the objective of the same name, and its known optimum."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from tests.plugins.measured import (
    assert_batches_and_processes_do_not_matter,
    assert_rounded_numbers_are_measured_as_they_are,
    read,
)
from whitebench import Layout, MetricContext, Reading
from whitebench_metrics.class_grams import ClassGram
from whitebench_metrics.rate_reduction import EPS2, METRICS, balanced_optimum, even_volume, volume
from whitebench_objectives.mcr2 import MCR2, MCR2Options

PARTS = ("share", "delta", "rate", "class-rate")


def metric() -> Metric:
    return METRICS[0].build(MetricContext(classes=10, shape=(1,), layout=Layout()))


def readings(features: Tensor, labels: Tensor) -> dict[str, Reading]:
    return read(metric(), features, labels, torch.arange(len(labels)))


def values(features: Tensor, labels: Tensor) -> dict[str, float | None]:
    return {part: reading.value for part, reading in readings(features, labels).items()}


def some_features(samples: int = 40, width: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(samples, width, generator=torch.Generator().manual_seed(seed))


def orthogonal(width: int, classes: int, samples: int) -> tuple[Tensor, Tensor]:
    """Return features whose classes evenly fill orthogonal subspaces of width / classes dimensions."""
    room = width // classes
    labels = torch.arange(classes * samples) % classes
    places = labels * room + torch.arange(classes * samples) // classes % room
    return torch.eye(width)[places], labels


def by_membership_matrices(features: Tensor, labels: Tensor, eps2: float = EPS2) -> tuple[float, float]:
    Z = F.normalize(features.double(), dim=-1).numpy().T
    d, m = Z.shape
    rate = np.linalg.slogdet(np.eye(m) + d / (m * eps2) * Z.T @ Z)[1] / 2
    within = 0.0
    for j in sorted(set(labels.tolist())):
        Pi = np.diag((labels.numpy() == j).astype(float))
        m_j = np.trace(Pi)
        within += m_j / (2 * m) * np.linalg.slogdet(np.eye(d) + d / (m_j * eps2) * Z @ Pi @ Z.T)[1]
    return float(rate), float(within)


@pytest.mark.parametrize(("samples", "width"), [(40, 8), (6, 8)])
def test_the_rates_are_those_of_membership_matrices(samples: int, width: int) -> None:
    features, labels = some_features(samples, width), torch.arange(samples) % 3
    found, (rate, within) = values(features, labels), by_membership_matrices(features, labels)
    assert found["rate"] == pytest.approx(rate, rel=1e-12)
    assert found["class-rate"] == pytest.approx(within, rel=1e-12)
    assert found["delta"] == pytest.approx(rate - within, rel=1e-12)
    assert found["share"] == pytest.approx((rate - within) / balanced_optimum(width, 3), rel=1e-12)


def test_it_is_what_the_objective_of_mcr2_lowers() -> None:
    features, labels = some_features().double(), torch.arange(40) % 3
    loss = MCR2(MCR2Options(), 3, 8)(features, F.one_hot(labels, 3).double())
    assert values(features, labels)["delta"] == pytest.approx(-loss.item(), rel=1e-12)


def test_ten_classes_in_width_64_have_the_optimum_that_is_known() -> None:
    assert balanced_optimum(64, 10) == pytest.approx(25.413, abs=5e-4)


@pytest.mark.parametrize(("width", "classes"), [(12, 4), (12, 12), (6, 2), (64, 8)])
def test_orthogonal_classes_that_evenly_fill_their_part_reach_the_optimum(width: int, classes: int) -> None:
    found = values(*orthogonal(width, classes, 4 * width // classes))
    assert found["share"] == pytest.approx(1.0, abs=1e-12)
    assert found["rate"] == pytest.approx(width / 2 * math.log(1 + 1 / EPS2), rel=1e-12)


@pytest.mark.parametrize("sizes", [(10, 10, 10, 10), (16, 12, 8, 4)])
def test_no_features_found_by_ascent_exceed_the_optimum_and_balanced_ones_reach_it(sizes: tuple[int, ...]) -> None:
    labels = torch.repeat_interleave(torch.arange(4), torch.tensor(sizes))
    torch.manual_seed(0)
    features = torch.randn(40, 8, dtype=torch.float64).requires_grad_()
    optimiser = torch.optim.Adam([features], lr=0.05)
    objective, targets = MCR2(MCR2Options(), 4, 8), F.one_hot(labels, 4).double()
    for _ in range(400):
        optimiser.zero_grad()
        objective(features, targets).backward()
        optimiser.step()
    share = values(features.detach(), labels)["share"]
    assert share is not None
    assert 0.9 < share < 1 + 1e-9
    assert (share > 0.995) == (sizes[0] == sizes[-1])


def test_classes_that_share_one_isotropic_space_gain_nothing_from_being_told_apart() -> None:
    found = values(torch.eye(6).repeat(4, 1), torch.arange(4).repeat_interleave(6))
    assert found["delta"] == pytest.approx(0, abs=1e-12)
    assert found["rate"] == pytest.approx(3 * math.log(1 + 1 / EPS2), rel=1e-12)


def test_features_in_one_direction_have_the_rate_of_one_dimension() -> None:
    features = torch.tensor([1.0, -2.0, 5.0, 0.5]).outer(torch.tensor([3.0, 0.0, 4.0, 0.0]))
    found = values(features, torch.tensor([0, 0, 1, 1]))
    assert found["rate"] == pytest.approx(math.log(1 + 4 / EPS2) / 2, rel=1e-12)
    assert found["delta"] == pytest.approx(0, abs=1e-12)


def test_a_feature_of_zeros_counts_and_adds_nothing() -> None:
    features, labels = some_features(), torch.arange(40) % 3
    features[5] = 0
    rate, _ = by_membership_matrices(features, labels)
    assert values(features, labels)["rate"] == pytest.approx(rate, rel=1e-12)
    assert values(torch.zeros(4, 3), torch.tensor([0, 0, 1, 1])) == dict.fromkeys(PARTS, 0.0)


def test_scale_rotation_and_order_do_not_matter() -> None:
    features, labels = some_features().double(), torch.arange(40) % 3
    rotation = torch.linalg.qr(some_features(8, 8, seed=1).double()).Q
    lengths = some_features(40, 1, seed=2).double().exp()
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    expected = values(features, labels)
    for changed, theirs in (
        (features @ rotation, labels),
        (features * lengths, labels),
        (features[order], labels[order]),
    ):
        assert values(changed, theirs) == pytest.approx(expected, rel=1e-10)


def test_batches_and_processes_do_not_matter() -> None:
    labels = torch.cat([torch.zeros(50), torch.arange(80) % 7]).long()  # the first half sees one class alone
    for width in (8, 40):  # of both sides: more samples of a class than the width, and fewer
        assert_batches_and_processes_do_not_matter(metric, some_features(130, width), labels, torch.arange(130))


def test_bfloat16_features_are_measured_as_their_rounded_numbers() -> None:
    assert_rounded_numbers_are_measured_as_they_are(metric, some_features(), torch.arange(40) % 3, torch.arange(40))


def test_random_labels_gain_what_few_samples_feign_and_no_more() -> None:
    """Features that know their class well gain far more by it than by labels that say nothing."""
    features, labels = orthogonal(12, 4, 600)
    found = readings(features, labels)["share"]
    assert found.value == pytest.approx(1)
    assert found.nulls["random labels"] < 0.02
    strangers = readings(some_features(2400, 12), torch.arange(2400) % 10)["delta"]
    assert strangers.value == pytest.approx(strangers.nulls["random labels"], rel=0.2)


def test_random_features_come_to_their_null_which_falls_with_their_number() -> None:
    """Of many, each class's Gram matrix is off by 1/sqrt(m_j), whose square is what log det gains by concavity."""
    for samples, tolerance in ((36_000, 0.03), (3600, 0.06)):
        found = readings(some_features(samples, 64), torch.arange(samples) % 10)["delta"]
        steepness = 1 / EPS2 / (1 + 1 / EPS2)
        assert found.nulls["random features"] == pytest.approx(
            9 * 64 * 63 / (4 * samples) * steepness**2, rel=tolerance
        )
        assert found.value == pytest.approx(found.nulls["random features"], rel=0.03)
    few = readings(some_features(360, 64), torch.arange(360) % 10)["share"]
    assert 0.3 < few.nulls["random features"] < 0.5


def test_classes_that_are_not_seen_do_not_count_and_a_class_may_have_one_sample() -> None:
    features, labels = some_features(), torch.arange(40) % 3
    assert values(features, 4 * labels) == pytest.approx(values(features, labels))
    lonely = labels.clone()
    lonely[0] = 7
    _, within = by_membership_matrices(features, lonely)
    assert values(features, lonely)["class-rate"] == pytest.approx(within, rel=1e-12)


def test_what_has_no_value_says_why() -> None:
    one_class = readings(some_features(), torch.zeros(40, dtype=torch.int64))
    assert one_class["share"].unscored == "samples of one class alone were seen, and nothing to tell it from"
    assert one_class["delta"].value == pytest.approx(0, abs=1e-12)
    crowded = readings(some_features(40, 2), torch.arange(40) % 3)["share"]
    assert crowded.unscored == "3 classes have no room for orthogonal subspaces in width 2"
    broken = some_features()
    broken[3, 1] = torch.nan
    assert readings(broken, torch.arange(40) % 3)["delta"].unscored == "a feature is no finite number"
    nobody = readings(some_features(0), torch.arange(0))
    assert {one.unscored for one in nobody.values()} == {"no sample was seen"}


def test_log_det_is_a_volume_large_for_uncorrelated_features_and_small_for_correlated_ones() -> None:
    """Orthonormal features: D/2 log(1 + 1/eps2), in even steps. One direction: 1/2 log(1 + D/eps2), all at once."""
    width = 16
    square = torch.randn(width, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    basis = torch.linalg.qr(square)[0]
    even, one = volume(ClassGram.of(basis)), volume(ClassGram.of(basis[:1].expand(width, -1)))
    steps = torch.arange(width + 1, dtype=torch.float64)
    torch.testing.assert_close(even, steps / 2 * math.log1p(1 / EPS2))
    torch.testing.assert_close(one, (steps > 0).double() / 2 * math.log1p(width / EPS2))
    torch.testing.assert_close(even, even_volume(width, width))
    torch.testing.assert_close(one, even_volume(width, 1))
    assert even[-1] > 4 * one[-1]


def test_a_volume_ends_at_the_rate_itself() -> None:
    features = torch.randn(40, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for count in (10, 40):  # fewer features than dimensions, and more
        gram = ClassGram.of(torch.nn.functional.normalize(features[:count], dim=-1))
        assert float(volume(gram)[-1]) == pytest.approx(gram.half_log_det(16 / (count * EPS2)))
        assert len(volume(gram)) == 17

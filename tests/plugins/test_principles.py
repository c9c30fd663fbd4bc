"""The three principles of MCR2 against scipy's angles, numpy's singular values, and features made to keep them."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import scipy.linalg
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from tests.plugins.measured import (
    assert_batches_and_processes_do_not_matter,
    assert_rounded_numbers_are_measured_as_they_are,
    read,
)
from tests.plugins.test_rate_reduction import orthogonal, some_features
from whitebench import Layout, MetricContext, Reading
from whitebench_metrics.class_grams import ClassGram
from whitebench_metrics.principles import METRICS, MOST_PAIRS, _between, effective_rank, subspace

LABELS = torch.arange(60) % 3


def metric() -> Metric:
    return METRICS[0].build(MetricContext(classes=10, shape=(1,), layout=Layout()))


def readings(features: Tensor, labels: Tensor) -> dict[str, Reading]:
    return read(metric(), features, labels, torch.arange(len(labels)))


def values(features: Tensor, labels: Tensor) -> dict[str, float | None]:
    return {part: reading.value for part, reading in readings(features, labels).items()}


def in_subspaces(*ranks: int, noise: float = 0.0) -> Tensor:
    """Return 60 features of width 12, class j in a random subspace of ranks[j] dimensions."""
    generator = torch.Generator().manual_seed(0)
    features = torch.empty(60, 12, dtype=torch.float64)
    for label, rank in enumerate(ranks):
        basis = torch.randn(rank, 12, generator=generator, dtype=torch.float64)
        coordinates = torch.randn(60 // len(ranks), rank, generator=generator, dtype=torch.float64)
        features[label :: len(ranks)] = coordinates @ basis
    return features + noise * torch.randn(60, 12, generator=generator, dtype=torch.float64)


def test_angles_ranks_and_diversity_are_those_of_scipy_and_numpy() -> None:
    features = in_subspaces(1, 4, 8, noise=0.1)
    found = values(features, LABELS)
    unit = F.normalize(features, dim=-1).numpy()
    bases, ranks = [], []
    for label in range(3):
        _, singular, right = np.linalg.svd(unit[LABELS.numpy() == label], full_matrices=False)
        energy = np.cumsum(singular**2) / np.sum(singular**2)
        bases.append(right[: np.searchsorted(energy, 0.95) + 1].T)
        shares = singular / singular.sum()
        ranks.append(math.exp(-(shares * np.log(shares)).sum()))
    angles = [np.cos(scipy.linalg.subspace_angles(one, other)) for one, other in combinations(bases, 2)]
    assert len({base.shape[1] for base in bases}) == 3
    assert found["between-mean"] == pytest.approx(np.mean([one.mean() for one in angles]), rel=1e-9)
    assert found["between-largest"] == pytest.approx(np.mean([one.max() for one in angles]), rel=1e-9)
    assert found["within-rank"] == pytest.approx(np.mean(ranks), rel=1e-9)
    assert found["diversity"] == pytest.approx(np.mean(ranks) / 4, rel=1e-9)


def test_features_at_the_optimum_keep_all_three() -> None:
    found = values(*orthogonal(12, 4, 9))
    assert found == pytest.approx(
        {"between-mean": 0, "between-largest": 0, "within-rank": 3, "diversity": 1, "collapse": 0}, abs=1e-9
    )


def test_classes_in_one_direction_each_have_collapsed() -> None:
    found = values(in_subspaces(1, 1, 3).float(), LABELS)  # float32: its noise is no direction
    assert found["collapse"] == pytest.approx(2 / 3)
    assert values(in_subspaces(1, 1, 1).float(), LABELS)["within-rank"] == 1.0


def test_subspaces_that_meet_in_a_line_have_one_cosine_of_one() -> None:
    features = torch.eye(3, dtype=torch.float64)[[0, 1, 1, 2]].repeat(3, 1)
    found = values(features, torch.tensor([0, 0, 1, 1]).repeat(3))
    assert found["between-largest"] == pytest.approx(1)
    assert found["between-mean"] == pytest.approx(0.5)


@pytest.mark.parametrize(("singular", "rank"), [([2.0, 2.0, 2.0], 3.0), ([5.0, 0.0], 1.0), ([0.0, 0.0], 0.0)])
def test_the_effective_rank_of_equal_singular_values_is_their_number(singular: list[float], rank: float) -> None:
    assert effective_rank(torch.tensor(singular, dtype=torch.float64)) == pytest.approx(rank)


@pytest.mark.parametrize(
    ("energies", "rank"), [([1.0] * 20, 19), ([0.96, 0.04], 1), ([0.94, 0.06], 2), ([0.0, 0.0], 0)]
)
def test_a_class_s_subspace_carries_95_percent_of_its_energy(energies: list[float], rank: int) -> None:
    turn = torch.linalg.qr(some_features(len(energies), len(energies)).double()).Q
    gram = turn @ torch.tensor(energies, dtype=torch.float64).diag() @ turn.T
    assert subspace(ClassGram(count=1000, side=gram)).shape == (len(energies), rank)


def test_random_features_come_to_their_null_and_have_more_than_their_part() -> None:
    found = readings(some_features(360, 64), torch.arange(360) % 10)
    for part in ("between-mean", "between-largest", "within-rank", "diversity"):
        assert found[part].value == pytest.approx(found[part].nulls["random features"], rel=0.01)
    assert found["diversity"].nulls["random features"] > 5


def test_scale_rotation_and_order_do_not_matter() -> None:
    features = in_subspaces(1, 3, 5, noise=0.2)
    rotation = torch.linalg.qr(some_features(12, 12, seed=1).double()).Q
    lengths = some_features(60, 1, seed=2).double().exp()
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    expected = values(features, LABELS)
    for changed, labels in (
        (features @ rotation, LABELS),
        (features * lengths, LABELS),
        (features[order], LABELS[order]),
    ):
        assert values(changed, labels) == pytest.approx(expected, rel=1e-9)


def test_batches_and_processes_do_not_matter() -> None:
    labels = torch.cat([torch.zeros(50), torch.arange(80) % 7]).long()
    for width in (8, 40):  # of both sides: more samples of a class than the width, and fewer
        assert_batches_and_processes_do_not_matter(metric, some_features(130, width), labels, torch.arange(130))


def test_bfloat16_features_are_measured_as_their_rounded_numbers() -> None:
    assert_rounded_numbers_are_measured_as_they_are(metric, some_features(), torch.arange(40) % 3, torch.arange(40))


def test_a_class_of_one_sample_fills_its_part_and_is_not_called_collapsed() -> None:
    found = values(torch.eye(4).repeat(2, 1), torch.tensor([0, 0, 1, 1, 0, 0, 1, 2]))
    assert found["collapse"] == 0
    lonely = readings(torch.eye(4)[:2], torch.tensor([3, 5]))
    assert lonely["collapse"].unscored == "no class has two samples"
    assert lonely["diversity"].value == pytest.approx(1)
    assert lonely["between-mean"].value == 0


def test_what_has_no_value_says_why() -> None:
    alone = "there are no two classes with features other than zero"
    one_class = readings(some_features(), torch.zeros(40, dtype=torch.int64))
    assert one_class["between-mean"].unscored == one_class["between-largest"].unscored == alone
    assert one_class["within-rank"].value == pytest.approx(8, rel=0.05)
    zeros = readings(torch.zeros(6, 4), torch.arange(6) % 2)
    assert zeros["between-mean"].unscored == alone
    assert zeros["within-rank"].value == 0
    nobody = readings(some_features(0), torch.arange(0))
    assert {one.unscored for one in nobody.values()} == {"no sample was seen"}


def test_of_too_many_pairs_a_fixed_draw_is_measured() -> None:
    lines = list(torch.eye(3, dtype=torch.float64)[torch.arange(120) % 3][:, :, None])
    found = [float(cosine) for (cosine,) in _between(lines)]
    assert len(found) == MOST_PAIRS < 120 * 119 // 2
    assert np.mean(found) == pytest.approx(39 / 119, abs=0.02)  # of another line's 119, 39 are the same
    assert found == [float(cosine) for (cosine,) in _between(lines)]


def test_pictures_show_how_energy_is_spread_and_the_angles() -> None:
    found = readings(in_subspaces(1, 3, 5), LABELS)
    energy = found["within-rank"].pictures["energy"].series
    nulls = ["random features", "random labels"]
    assert list(energy) == ["mean over classes", "class of lowest rank", "class of highest rank", *nulls]
    assert energy["class of lowest rank"][:, 1].tolist() == pytest.approx([1.0] * 12)
    assert int((energy["class of highest rank"][:, 1] < 1 - 1e-9).sum()) == 4
    assert energy["mean over classes"][:, 0].tolist() == list(range(1, 13))
    assert (energy["random features"][:5, 1] < energy["class of highest rank"][:5, 1]).all()
    angles = found["between-mean"].pictures["angles"].series["features"]
    assert angles.shape == (3, 3)
    assert angles.triu(1).sum() / 3 == pytest.approx(found["between-mean"].value)

"""What is kept of a class's features says the same from either side, and random labels are as random as they can be."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from whitebench import Layout, MetricContext, WhitebenchError
from whitebench_metrics.class_grams import ClassGram, random_grams, random_label
from whitebench_metrics.rate_reduction import METRICS


def some_features(samples: int, width: int = 6, seed: int = 0) -> torch.Tensor:
    draws = torch.randn(samples, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(draws, dim=-1)


@pytest.mark.parametrize("samples", [1, 4, 6, 7, 20])
def test_the_smaller_side_is_kept_and_says_what_the_features_do(samples: int) -> None:
    features = some_features(samples)
    kept = ClassGram.of(features)
    assert kept.side.shape == (min(samples, 6), 6)
    torch.testing.assert_close(kept.gram(), features.T @ features)
    expected = np.linalg.slogdet(np.eye(6) + 3 * (features.T @ features).numpy())[1] / 2
    assert kept.half_log_det(3.0) == pytest.approx(expected, rel=1e-12)
    singular, directions = kept.spectrum
    assert singular.tolist() == pytest.approx(np.linalg.svd(features.numpy(), compute_uv=False).tolist(), abs=1e-7)
    torch.testing.assert_close((features @ directions).norm(dim=0), singular, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("cut", [1, 5, 8, 13])
def test_parts_add_up_to_the_whole_on_either_side(cut: int) -> None:
    for samples in (6, 14):
        features = some_features(samples)
        one, other = ClassGram.of(features[:cut]), ClassGram.of(features[cut:])
        whole = one + other if cut < samples else one
        assert whole.count == samples
        torch.testing.assert_close(whole.gram(), features.T @ features)


def test_singular_values_of_rounding_are_none() -> None:
    line = torch.arange(1.0, 31.0)[:, None] * torch.tensor([[0.1, 0.7, 0.3, 0.0, 1.1, 0.2]])  # float32
    for samples in (3, 30):
        singular, _ = ClassGram.of(F.normalize(line[:samples].double(), dim=-1)).spectrum
        assert (singular > 0).tolist() == [True] + [False] * (min(samples, 6) - 1)


def test_random_labels_depend_on_a_sample_s_place_alone_and_are_each_as_likely() -> None:
    labels = [random_label(index, 10) for index in range(5000)]
    assert labels[:3] == [random_label(index, 10) for index in range(3)]
    assert all(430 < count < 570 for count in Counter(labels).values())  # 500 give or take 3.3 standard deviations
    together = Counter(zip(labels, [index % 10 for index in range(5000)], strict=True))
    assert max(together.values()) < 80  # 50 give or take 4.2


def test_random_directions_have_the_same_counts_and_are_the_same_every_time() -> None:
    classes = [ClassGram.of(some_features(samples)) for samples in (3, 9000)]
    first, again = (list(random_grams(classes)) for _ in range(2))
    assert [[one.count for one in draw] for draw in first] == [[3, 9000]] * 4
    assert all(
        torch.equal(a.side, b.side)
        for one, two in zip(first, again, strict=True)
        for a, b in zip(one, two, strict=True)
    )
    torch.testing.assert_close(first[0][1].gram() / 1500, torch.eye(6, dtype=torch.float64), atol=0.05, rtol=0)


def test_features_that_are_no_vectors_or_fewer_than_labels_are_refused() -> None:
    metric = METRICS[0].build(MetricContext(classes=2, shape=(1,), layout=Layout()))
    for features in (torch.rand(4, 2, 3), torch.rand(3, 2)):
        with pytest.raises(WhitebenchError, match=r"features \(B, D\) and labels \(B,\) are needed"):
            metric.update(features, torch.zeros(4), torch.arange(4))

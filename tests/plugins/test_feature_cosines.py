"""Cosines between features against loops, from a sample that depends on nothing but how many there are."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchmetrics import Metric

from tests.plugins.measured import (
    assert_batches_and_processes_do_not_matter,
    assert_rounded_numbers_are_measured_as_they_are,
    read,
)
from tests.plugins.test_rate_reduction import orthogonal, some_features
from whitebench import Layout, MetricContext, Reading
from whitebench_metrics.feature_cosines import METRICS, SAMPLES, random_cosine
from whitebench_metrics.keyed import sampled


def metric() -> Metric:
    return METRICS[0].build(MetricContext(classes=10, shape=(1,), layout=Layout()))


def readings(features: Tensor, labels: Tensor) -> dict[str, Reading]:
    return read(metric(), features, labels, torch.arange(len(labels)))


def test_both_means_are_those_of_a_loop_over_pairs() -> None:
    features, labels = some_features().double(), torch.arange(40) % 3
    pairs: dict[bool, list[float]] = {True: [], False: []}
    for i in range(40):
        for j in range(i):
            cosine = float(features[i] @ features[j] / features[i].norm() / features[j].norm())
            pairs[bool(labels[i] == labels[j])].append(abs(cosine))
    found = readings(features, labels)
    assert found["within"].value == pytest.approx(sum(pairs[True]) / len(pairs[True]), rel=1e-12)
    assert found["between"].value == pytest.approx(sum(pairs[False]) / len(pairs[False]), rel=1e-12)


def test_orthogonal_classes_have_none_between_them_and_those_of_one_direction_all_within() -> None:
    found = readings(*orthogonal(4, 4, 9))
    assert (found["between"].value, found["within"].value) == (0, 1)


@pytest.mark.parametrize("width", [1, 2, 3, 64])
def test_random_directions_come_to_the_null(width: int) -> None:
    known = {1: 1.0, 2: 2 / math.pi, 3: 0.5, 64: math.sqrt(2 / (math.pi * 63.5))}
    assert random_cosine(width) == pytest.approx(known[width], rel=1e-4)
    found = readings(some_features(128, width), torch.arange(128) % 10)["between"]
    assert found.nulls["random features"] == random_cosine(width)
    assert found.value == pytest.approx(random_cosine(width), rel=0.05)


def test_the_sample_is_a_fixed_one_whatever_comes_first() -> None:
    sample = sampled(range(1000), SAMPLES)
    assert len(sample) == SAMPLES
    assert sample == sampled(reversed(range(1000)), SAMPLES)
    assert max(sample) > 900
    features, labels = some_features(1000), torch.arange(1000) % 7
    whole = readings(features, labels)
    only = read(metric(), features[sample], labels[sample], torch.tensor(sample))
    assert [one.value for one in only.values()] == [one.value for one in whole.values()]


def test_batches_processes_and_precision_do_not_matter() -> None:
    kinds = some_features(200), torch.arange(200) % 3, torch.arange(200)
    assert_batches_and_processes_do_not_matter(metric, *kinds)
    assert_rounded_numbers_are_measured_as_they_are(metric, *kinds)


def test_the_heat_map_is_sorted_by_class() -> None:
    features, labels = orthogonal(4, 4, 9)
    (picture,) = (picture for one in readings(features, labels).values() for picture in one.pictures.values())
    assert torch.equal(
        picture.series["features"], torch.eye(4).double().repeat_interleave(9, 0).repeat_interleave(9, 1)
    )


def test_what_has_no_value_says_why() -> None:
    one_class = readings(some_features(), torch.zeros(40, dtype=torch.int64))
    assert one_class["between"].unscored == "the sample is of one class alone"
    assert one_class["within"].pictures
    apart = readings(torch.eye(3), torch.arange(3))
    assert apart["within"].unscored == "the sample has no two of a class"
    assert apart["between"].value == 0
    assert {one.unscored for one in readings(some_features(0), torch.arange(0)).values()} == {"no sample was seen"}
    broken = readings(torch.full((4, 3), torch.nan), torch.arange(4) % 2)
    assert {one.unscored for one in broken.values()} == {"a feature is no finite number"}

"""Measures of predictions, against numpy and closed forms."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from whitebench import Layout, MetricContext, MetricSpec
from whitebench_metrics.classification import METRICS

if TYPE_CHECKING:
    from torch import Tensor

SAMPLES, CLASSES = 130, 4
CONTEXT = MetricContext(classes=CLASSES, shape=(1,), layout=Layout())
SPECS = {spec.name: spec for spec in METRICS}
each_metric = pytest.mark.parametrize("spec", METRICS, ids=lambda spec: spec.name)


def some_predictions() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(CLASSES, (SAMPLES,), generator=generator)
    logits = torch.randn(SAMPLES, CLASSES, generator=generator) * 2
    return logits + torch.nn.functional.one_hot(labels, CLASSES), labels


def value(spec: MetricSpec, logits: Tensor, labels: Tensor, batch: int = SAMPLES) -> float:
    metric = spec.build(CONTEXT)
    for part, part_labels in zip(torch.split(logits, batch), torch.split(labels, batch), strict=True):
        metric.update(part, part_labels)
    return float(metric.compute())


def probabilities(logits: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    powers = np.exp(logits.double().numpy())
    shares: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = powers / powers.sum(axis=1, keepdims=True)
    return shares


@each_metric
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_the_batch_size_does_not_matter(spec: MetricSpec, batch: int) -> None:
    logits, labels = some_predictions()
    assert value(spec, logits, labels, batch) == pytest.approx(value(spec, logits, labels), abs=1e-6)


@each_metric
def test_small_logits_are_not_taken_for_probabilities(spec: MetricSpec) -> None:
    logits, labels = some_predictions()
    logits = logits.sigmoid()
    assert value(spec, logits, labels, 1) == pytest.approx(value(spec, logits - 5, labels), abs=1e-6)


@each_metric
def test_two_halves_merge_into_the_whole(spec: MetricSpec) -> None:
    logits, labels = some_predictions()
    first, second = spec.build(CONTEXT), spec.build(CONTEXT)
    first.update(logits[:50], labels[:50])
    second.update(logits[50:], labels[50:])
    first.merge_state(second)
    assert float(first.compute()) == pytest.approx(value(spec, logits, labels), abs=1e-6)


@each_metric
def test_half_precision_logits_give_the_value_of_their_rounded_numbers(spec: MetricSpec) -> None:
    logits, labels = some_predictions()
    rounded = logits.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert value(spec, rounded, labels) == pytest.approx(value(spec, rounded.float(), labels), abs=1e-6)


@pytest.mark.parametrize("name", ["accuracy", "cross-entropy"])
def test_the_score_is_the_mean_of_its_per_sample_values(name: str) -> None:
    logits, labels = some_predictions()
    per_sample = SPECS[name].per_sample
    assert per_sample is not None
    each = per_sample(logits, labels)
    assert each.shape == (SAMPLES,)
    assert value(SPECS[name], logits, labels) == pytest.approx(float(each.mean()), abs=1e-12)


def test_accuracy_is_the_share_of_right_answers() -> None:
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 1.0]])
    assert value(SPECS["accuracy"], logits, torch.tensor([0, 1, 1])) == 2 / 3


def test_cross_entropy_is_log_of_the_classes_where_nothing_is_known() -> None:
    assert value(SPECS["cross-entropy"], torch.zeros(5, CLASSES), torch.arange(5) % CLASSES) == math.log(CLASSES)


def test_cross_entropy_agrees_with_numpy() -> None:
    logits, labels = some_predictions()
    expected = -np.log(probabilities(logits)[np.arange(SAMPLES), labels.numpy()]).mean()
    assert value(SPECS["cross-entropy"], logits, labels) == pytest.approx(expected, abs=1e-12)


def test_calibration_error_agrees_with_a_loop_over_fifteen_bins() -> None:
    logits, labels = some_predictions()
    logits[:20] *= 100  # a confidence of 1 to float32 belongs to the last bin, as any other
    shares = probabilities(logits)
    confidence, right = shares.max(axis=1), shares.argmax(axis=1) == labels.numpy()
    place = np.minimum((confidence * 15).astype(int), 14)
    expected = sum(
        abs(right[place == b].mean() - confidence[place == b].mean()) * (place == b).mean() for b in np.unique(place)
    )
    assert value(SPECS["calibration-error"], logits, labels) == pytest.approx(expected, abs=1e-6)


def test_a_metric_without_a_sample_has_no_number() -> None:
    metric = SPECS["accuracy"].build(CONTEXT)
    metric.update(torch.zeros(0, CLASSES), torch.zeros(0, dtype=torch.int64))
    assert math.isnan(float(metric.compute()))

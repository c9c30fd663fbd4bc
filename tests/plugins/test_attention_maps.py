"""Entropy and distance of attention against loops and closed forms."""

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
from whitebench import Layout, MetricContext, Reading, Shape, WhitebenchError
from whitebench_metrics.attention_maps import METRICS, grid_of

SPECS = {spec.name: spec for spec in METRICS}
SHAPE = (3, 4, 6)
"""Cut into patches of 2: a grid of 2 x 3."""


def metric(name: str, shape: Shape = SHAPE, prefix: int = 1) -> Metric:
    return SPECS[name].build(MetricContext(classes=2, shape=shape, layout=Layout(heads=2, prefix_tokens=prefix)))


def reading(name: str, *layers: Tensor, shape: Shape = SHAPE, prefix: int = 1) -> Reading:
    return read(metric(name, shape, prefix), list(layers))[""]


def some_weights(samples: int = 9, tokens: int = 7, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(samples, 2, tokens, tokens, generator=generator).double()).softmax(dim=-1)


def test_entropy_is_that_of_a_loop_over_rows() -> None:
    weights = some_weights()
    found = reading("attention-entropy", weights, some_weights(seed=1))
    rows = [-sum(a * math.log(a) for a in row) for row in weights.flatten(0, 2).tolist()]
    assert found.profile[0] == pytest.approx(sum(rows) / len(rows), rel=1e-9)
    samples = torch.tensor(rows).reshape(9, -1).mean(dim=1)
    assert found.spread[0] == pytest.approx(float(samples.std()), rel=1e-5)
    assert found.value == pytest.approx(sum(found.profile) / 2)


def test_distance_is_that_of_a_loop_over_pairs_of_patches() -> None:
    weights = some_weights()
    places = [(row, column) for row in range(2) for column in range(3)]
    rows = []
    for head in weights.flatten(0, 1):
        for s, here in enumerate(places, start=1):
            total = sum(float(head[s, t]) for t in range(1, 7))
            rows.append(
                sum(float(head[s, t]) * math.dist(here, there) for t, there in enumerate(places, start=1)) / total
            )
    assert reading("attention-distance", weights).value == pytest.approx(sum(rows) / len(rows), rel=1e-9)


def test_uniform_attention_comes_to_the_null() -> None:
    uniform = torch.full((3, 2, 7, 7), 1 / 7)
    entropy, distance = (reading(name, uniform) for name in SPECS)
    assert entropy.value == pytest.approx(math.log(7))
    assert entropy.nulls["uniform attention"] == pytest.approx(math.log(7))
    # On 2 x 3, of the 36 ordered pairs 6 are at 0, 14 at 1, 4 at 2, 8 at sqrt 2 and 4 at sqrt 5.
    by_hand = (14 + 2 * 4 + 8 * math.sqrt(2) + 4 * math.sqrt(5)) / 36
    assert distance.value == pytest.approx(by_hand)
    assert distance.nulls["uniform attention"] == pytest.approx(by_hand)
    assert distance.null_profiles["uniform attention"] == pytest.approx([by_hand])


def test_a_token_that_looks_at_one_other_has_no_entropy_and_that_distance() -> None:
    looks_right = torch.zeros(3, 2, 7, 7)
    looks_right[..., torch.arange(7), torch.tensor([0, 2, 3, 1, 5, 6, 4])] = 1  # the last of a row looks at its first
    assert reading("attention-entropy", looks_right).value == 0
    assert reading("attention-distance", looks_right).value == pytest.approx((1 + 1 + 2) / 3)
    at_itself = torch.eye(7).expand(3, 2, 7, 7)
    assert reading("attention-distance", at_itself).value == 0


def test_the_class_token_has_no_place() -> None:
    weights = some_weights()
    changed = weights.clone()
    changed[:, :, 0] = torch.eye(7)[3]
    changed[:, :, 1:, 0] += 2
    assert reading("attention-distance", changed).value == pytest.approx(
        reading("attention-distance", weights).value or 0
    )


def test_rows_are_scaled_to_one_and_those_without_any_weight_left_out() -> None:
    weights = some_weights()
    for name in SPECS:
        assert reading(name, 0.3 * weights).value == pytest.approx(reading(name, weights).value or 0)
        blank = weights.clone()
        blank[:, :, 2:] = 0
        blank[1:, :, 1] = 0
        found = reading(name, blank[:, :, :, :])
        kept = weights[:1, :, :2] if name == "attention-entropy" else weights[:1, :, 1:2]
        assert found.unscored is None
        if name == "attention-distance":
            only = torch.zeros(1, 2, 7, 7)
            only[:, :, 1] = kept[:, :, 0]
            assert found.value == pytest.approx(reading(name, only).value or 0)


def test_a_layer_in_which_nobody_gives_anything_is_unscored_and_says_so() -> None:
    blank = torch.zeros(3, 2, 7, 7)
    blank[..., 0] = 1  # everything goes to the class token
    found = reading("attention-distance", some_weights(3), blank)
    assert found.unscored == "in layer 2 no token gives any other a weight"
    assert reading("attention-entropy", some_weights(3), blank).value is not None


@pytest.mark.parametrize("name", SPECS)
def test_batches_processes_and_precision_do_not_matter(name: str) -> None:
    layers = [some_weights(130), some_weights(130, seed=1)]
    layers[1][3] = 0  # a sample without any
    assert_batches_and_processes_do_not_matter(lambda: metric(name), layers)
    assert_rounded_numbers_are_measured_as_they_are(lambda: metric(name), layers)


@pytest.mark.parametrize(
    ("shape", "patches", "grid"),
    [
        ((1, 8, 8), 4, (2, 2)),
        ((3, 224, 224), 196, (14, 14)),
        ((2, 4, 6), 6, (2, 3)),
        ((2, 4, 6), 24, (4, 6)),
        ((2, 4, 6), 5, None),
        ((2, 4, 6), 0, None),
        ((1, 8, 8), 3, None),
        ((64,), 4, None),
    ],
)
def test_patches_form_a_grid_if_squares_of_one_size_tile_the_image(
    shape: Shape, patches: int, grid: tuple[int, int] | None
) -> None:
    assert grid_of(shape, patches) == grid


def test_tokens_that_form_no_grid_have_an_entropy_and_no_distance() -> None:
    found = reading("attention-distance", some_weights(tokens=6), prefix=1)
    assert found.unscored == (
        "6 tokens, 1 of them before the patches, form no grid of square patches on samples of shape (3, 4, 6)"
    )
    assert reading("attention-entropy", some_weights(tokens=6)).value is not None
    assert reading("attention-distance", some_weights(tokens=6), prefix=0).value is not None
    assert reading("attention-distance", some_weights(0)).unscored == "no sample was seen"


def test_what_is_no_attention_is_refused() -> None:
    with pytest.raises(WhitebenchError, match="attention is"):
        reading("attention-entropy", torch.rand(3, 5, 7, 7))


def test_each_head_has_its_line_in_the_picture() -> None:
    weights = some_weights()
    series = reading("attention-entropy", weights, some_weights(seed=1)).pictures["heads"].series
    assert {name: len(line) for name, line in series.items()} == {"head 1": 2, "head 2": 2}
    alone = reading("attention-entropy", weights[:, 1:].expand(-1, 2, -1, -1)).value
    assert float(series["head 2"][0]) == pytest.approx(alone)

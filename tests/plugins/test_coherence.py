"""Coherence of the heads' subspaces against loops, and against subspaces that are apart or the same."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor
from torchmetrics import Metric

from tests.plugins.measured import assert_alike
from whitebench import Layout, MetricContext, Reading, WhitebenchError
from whitebench.gallery import checked
from whitebench_metrics.coherence import METRICS, random_coherence


def metric(heads: int = 3) -> Metric:
    return METRICS[0].build(MetricContext(classes=2, shape=(1,), layout=Layout(heads=heads)))


def readings(*layers: Tensor, heads: int = 3, batches: int = 1) -> dict[str, Reading]:
    coherence = metric(heads)
    for _ in range(batches):
        coherence.update(list(layers))
    found: dict[str, Reading] = coherence.compute()
    for reading in found.values():
        checked(reading.pictures)
    return found


def some_subspaces(seed: int = 0) -> Tensor:
    return torch.randn(12, 12, generator=torch.Generator().manual_seed(seed))


def test_entries_between_heads_are_those_of_a_loop_over_directions() -> None:
    layers = [some_subspaces(), 3 * some_subspaces(1)]
    found = readings(*layers)
    for layer, subspaces in enumerate(layers):
        entries = []
        for i, j in product(range(12), repeat=2):
            if i // 4 < j // 4:
                one, other = subspaces[i].double(), subspaces[j].double()
                entries.append(abs(float(one @ other)) / math.sqrt(float(one @ one) * float(other @ other)))
        assert len(entries) == 48
        assert found["largest"].profile[layer] == pytest.approx(max(entries), rel=1e-9)
        assert found["mean"].profile[layer] == pytest.approx(sum(entries) / 48, rel=1e-9)
    assert found["mean"].value == pytest.approx(sum(found["mean"].profile) / 2)


def test_orthogonal_subspaces_have_none_and_equal_ones_all() -> None:
    basis = torch.linalg.qr(some_subspaces()).Q
    apart, same = readings(basis), readings(basis[:4].repeat(3, 1))
    assert apart["largest"].value == pytest.approx(0, abs=1e-6)
    assert same["largest"].value == pytest.approx(1, abs=1e-6)
    assert same["mean"].value == pytest.approx(1 / 4, abs=1e-6)  # each direction is one of the other's four


def test_what_happens_within_a_head_does_not_count() -> None:
    basis = torch.linalg.qr(some_subspaces()).Q
    basis[1] = basis[0]
    assert readings(basis)["largest"].value == pytest.approx(0, abs=1e-6)


def test_scale_rotation_and_the_order_of_heads_do_not_matter() -> None:
    subspaces = some_subspaces().double()
    rotation = torch.linalg.qr(some_subspaces(1).double()).Q
    expected = readings(subspaces)
    for changed in (subspaces @ rotation, subspaces * torch.arange(1, 13)[:, None], subspaces.roll(4, dims=0)):
        assert_alike(readings(changed), expected)


def test_neither_the_number_of_batches_nor_of_processes_matters() -> None:
    layers = [some_subspaces(), some_subspaces(1)]
    expected = readings(*layers)
    assert_alike(readings(*layers, batches=9), expected)
    busy, other = metric(), metric()
    for _ in range(3):
        busy.update(layers)
    other.update(layers)
    for process in (metric(), other):
        busy.merge_state(process)
    assert_alike(busy.compute(), expected)


def test_random_directions_are_the_null_and_nearly_as_far_apart_as_their_width_says() -> None:
    largest, mean = random_coherence(384, 384, 6)
    assert mean == pytest.approx(math.sqrt(2 / (math.pi * 384)), rel=0.01)
    assert 0.2 < largest < 0.3
    found = readings(some_subspaces())
    assert found["mean"].nulls["random subspaces"] == random_coherence(12, 12, 3)[1]
    assert found["largest"].null_profiles["random subspaces"] == (random_coherence(12, 12, 3)[0],)


def test_a_direction_of_zeros_is_apart_from_all() -> None:
    subspaces = some_subspaces()
    subspaces[0] = 0
    assert math.isfinite(readings(subspaces)["mean"].value or math.nan)
    assert readings(torch.zeros(12, 12))["largest"].value == 0


def test_bfloat16_weights_are_measured_as_their_rounded_numbers() -> None:
    rounded = some_subspaces().bfloat16()
    assert_alike(readings(rounded), readings(rounded.double()))


def test_what_has_no_value_says_why() -> None:
    assert readings(some_subspaces(), heads=1)["mean"].unscored == "one head has no other beside it"
    assert readings()["largest"].unscored == "no layer was seen"
    with pytest.raises(WhitebenchError, match="a multiple of 5 heads"):
        readings(some_subspaces(), heads=5)


def test_its_picture_is_the_matrix_of_each_layer_and_of_wide_ones_by_blocks() -> None:
    drawn = readings(some_subspaces(), some_subspaces(1))["largest"].pictures["matrices"].series
    assert {name: tuple(one.shape) for name, one in drawn.items()} == {"layer 1": (12, 12), "layer 2": (12, 12)}
    assert drawn["layer 1"].diagonal().tolist() == pytest.approx([1] * 12)
    wide = readings(*[torch.randn(600, 60, generator=torch.Generator().manual_seed(0))] * 12)
    blocks = wide["largest"].pictures["matrices"].series
    assert {tuple(one.shape) for one in blocks.values()} == {(200, 200)}  # 12 of 600 x 600 would be 4.3 million
    heads = torch.arange(200) // (200 / 3)  # blocks of 3 lie within a head of 200 but for two of them
    apart = (heads[:, None] - heads[None, :]).abs() > 1
    assert float(blocks["layer 1"][apart].max()) <= (wide["largest"].value or 0) + 1e-12

"""How sharply attention selects, where the answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from whitebench import Layout, MetricContext, WhitebenchError
from whitebench.testing import check_metric
from whitebench_metrics.selection import MAPS, METRICS, Selection

B, H, N = 6, 2, 5
CONTEXT = MetricContext(classes=3, shape=(1, 4, 4), layout=Layout(heads=H, prefix_tokens=1))
IMAGES = torch.rand(B, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def profiles(weights: Tensor) -> dict[str, float]:
    metric = Selection(CONTEXT)
    metric.update([weights], torch.arange(len(weights)), IMAGES[: len(weights)])
    return {name: one.profile[0] for name, one in metric.compute().items()}


def test_attention_to_oneself_alone_leaves_nothing_off_and_all_others_zero() -> None:
    found = profiles(torch.eye(N).expand(B, H, N, N))
    assert found == {"off-mass": 0.0, "zeros": pytest.approx(1 - 1 / N), "self": 1.0}


def test_attention_to_the_next_token_selects_as_sharply_and_never_itself() -> None:
    found = profiles(torch.eye(N).roll(1, dims=1).expand(B, H, N, N))
    assert found == {"off-mass": 0.0, "zeros": pytest.approx(1 - 1 / N), "self": 0.0}


def test_uniform_attention_is_its_own_null() -> None:
    metric = Selection(CONTEXT)
    metric.update([torch.full((B, H, N, N), 1 / N)], torch.arange(B), IMAGES)
    found = metric.compute()["off-mass"]
    assert found.value == pytest.approx(0.8)
    assert found.nulls == {"uniform attention": pytest.approx(0.8)}


def test_rows_are_scaled_and_rows_without_weight_are_left_out() -> None:
    weights = torch.zeros(1, 1, N, N)
    weights[..., 0, 1], weights[..., 0, 2] = 0.3, 0.1  # three quarters and one, of a row that a threshold cut
    assert profiles(weights) == {"off-mass": pytest.approx(0.25), "zeros": pytest.approx(0.6), "self": 0.0}


def test_a_layer_in_which_nobody_looks_is_unscored_with_the_reason() -> None:
    metric = Selection(CONTEXT)
    metric.update([torch.zeros(B, H, N, N)], torch.arange(B), IMAGES)
    found = metric.compute()["zeros"]
    assert (found.value, found.unscored) == (None, "in layer 1 no token gives any other a weight")


def test_maps_show_what_the_class_token_gives_to_each_patch() -> None:
    weights = torch.rand(B, H, N, N, generator=torch.Generator().manual_seed(1)).softmax(dim=-1)
    metric = Selection(CONTEXT)
    for place in range(B):
        metric.update([weights[place : place + 1]] * 2, torch.tensor([place]), IMAGES[place : place + 1])
    pictures = metric.compute()["off-mass"].pictures
    assert [name for name in pictures if name.startswith("map")] == [f"map-{n}" for n in range(1, MAPS + 1)]
    picture = pictures["map-1"]
    sample = int(picture.title.rpartition(" ")[2])
    torch.testing.assert_close(picture.series["layer 2"].float(), weights[sample].mean(0)[0, 1:].reshape(2, 2))
    shown, image = picture.series["sample, scaled"].float(), IMAGES[sample, 0]
    torch.testing.assert_close(shown / shown.max(), (image - image.min()) / (image.max() - image.min()))


def test_patches_that_form_no_grid_have_no_maps() -> None:
    metric = Selection(CONTEXT)
    metric.update([torch.full((B, H, 4, 4), 0.25)], torch.arange(B), IMAGES)
    assert not [name for name in metric.compute()["off-mass"].pictures if name.startswith("map")]


def test_what_is_no_attention_is_refused() -> None:
    with pytest.raises(WhitebenchError, match=r"attention is \(B, heads, N, N\); got a tensor of shape \(3, 4\)"):
        Selection(CONTEXT).update([torch.ones(3, 4)], torch.arange(3), IMAGES[:3])


def test_batches_and_processes_do_not_matter() -> None:
    check_metric(METRICS[0])

"""Coding rates against numpy's determinant of the other side, closed forms and published bounds."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from whitebench import Layout, MetricContext, Reading, WhitebenchError
from whitebench_metrics.coding_rate import EPS2, METRICS, random_rate, rate, rate_bound

if TYPE_CHECKING:
    from torch import Tensor
    from torchmetrics import Metric

SPECS = {spec.name: spec for spec in METRICS}
PARTS = ("normalised", "share", "raw")


def some_tokens(samples: int = 9, tokens: int = 5, width: int = 12, seed: int = 0) -> Tensor:
    return torch.randn(samples, tokens, width, generator=torch.Generator().manual_seed(seed))


def subspace_rate(heads: int = 3) -> Metric:
    return SPECS["subspace-coding-rate"].build(MetricContext(classes=2, shape=(1, 4, 4), layout=Layout(heads=heads)))


def whole_rate() -> Metric:
    return SPECS["coding-rate"].build(MetricContext(classes=2, shape=(1, 4, 4), layout=Layout(heads=3)))


def readings(metric: Metric, *layers: Tensor, batch: int = 1000) -> dict[str, Reading]:
    for parts in zip(*(torch.split(layer, batch) for layer in layers), strict=True):
        metric.update(list(parts))
    found: dict[str, Reading] = metric.compute()
    return found


def rate_by_numpy(tokens: Tensor, heads: int, *, normalise: bool) -> list[float]:
    """Each sample's rate from the determinant on the other side than the one that is smaller."""
    rates = []
    for sample in tokens.double().numpy():
        total = 0.0
        for head in np.split(sample, heads, axis=1):
            rows = head / np.linalg.norm(head, axis=1, keepdims=True) if normalise else head
            number, width = rows.shape
            gram = rows @ rows.T if width < number else rows.T @ rows
            total += np.linalg.slogdet(np.eye(len(gram)) + width / (number * EPS2) * gram)[1] / 2
        rates.append(float(total))
    return rates


@pytest.mark.parametrize(("tokens", "width"), [(5, 12), (40, 12)])
@pytest.mark.parametrize("heads", [1, 3])
def test_mean_and_spread_over_samples_agree_with_numpy(tokens: int, width: int, heads: int) -> None:
    layers = [3 * some_tokens(9, tokens, width, seed) for seed in (0, 1)]
    found = readings(subspace_rate(heads), *layers)
    for part, normalise in (("normalised", True), ("raw", False)):
        expected = np.array([rate_by_numpy(layer, heads, normalise=normalise) for layer in layers])
        assert found[part].profile == pytest.approx(expected.mean(axis=1), rel=1e-10)
        assert found[part].spread == pytest.approx(expected.std(axis=1, ddof=1), rel=1e-6)
        assert found[part].value == pytest.approx(expected.mean(), rel=1e-10)


def test_the_whole_rate_is_that_of_one_head() -> None:
    tokens = some_tokens()
    assert readings(whole_rate(), tokens) == readings(subspace_rate(1), tokens)


@pytest.mark.parametrize(("width", "published"), [(384, 886), (576, 1329), (768, 1772), (1024, 2363)])
def test_the_bound_is_the_published_one_where_tokens_are_many(width: int, published: int) -> None:
    assert round(rate_bound(width, width)) == published


@pytest.mark.parametrize(("tokens", "width"), [(4, 6), (6, 6)])
def test_orthonormal_tokens_reach_the_bound(tokens: int, width: int) -> None:
    found = readings(whole_rate(), torch.eye(width)[:tokens].expand(2, tokens, width))
    assert found["share"].value == pytest.approx(1.0, abs=1e-12)
    assert found["normalised"].value == pytest.approx(rate_bound(tokens, width), rel=1e-12)


def test_tokens_in_one_direction_have_the_rate_of_one_dimension() -> None:
    tokens = torch.tensor([1.0, -2.0, 5.0]).outer(torch.tensor([3.0, 0.0, 4.0, 0.0])).expand(2, 3, 4)
    found = readings(whole_rate(), tokens)
    assert found["normalised"].value == pytest.approx(math.log1p(4 / EPS2) / 2, rel=1e-6)
    assert found["raw"].value == pytest.approx(math.log1p(4 / (3 * EPS2) * 25 * (1 + 4 + 25)) / 2, rel=1e-6)


def test_correlated_features_span_a_small_volume_and_uncorrelated_ones_a_large() -> None:
    """For two features of unit variance and correlation c: I + a C has determinant (1 + a)^2 - (a c)^2."""
    alpha, rates = 2 / EPS2, []
    for correlation in (0.0, 0.5, 0.99):
        factor = torch.linalg.cholesky(torch.tensor([[1.0, correlation], [correlation, 1.0]], dtype=torch.float64))
        tokens = math.sqrt(2) * factor.mT  # two rows whose Gram matrix over their number is the correlation's
        rates.append(float(rate(tokens.expand(1, 1, 2, 2))))
        assert rates[-1] == pytest.approx(math.log((1 + alpha) ** 2 - (alpha * correlation) ** 2) / 2, rel=1e-10)
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize(("heads", "published"), [(3, 486), (6, 734), (12, 832)])
def test_random_tokens_of_width_384_are_the_null_that_was_measured_before(heads: int, published: int) -> None:
    found = readings(subspace_rate(heads), some_tokens(4, 65, 384))["normalised"]
    assert found.nulls["random tokens"] == pytest.approx(published, rel=2e-3)
    assert found.value == pytest.approx(found.nulls["random tokens"], rel=5e-3)


def test_the_null_of_the_share_is_the_null_over_the_bound() -> None:
    found = readings(subspace_rate(3), some_tokens())
    assert found["share"].nulls["random tokens"] == pytest.approx(random_rate(5, 4) / rate_bound(5, 4))
    assert not found["raw"].nulls


def test_every_layer_has_its_null_beside_and_the_network_its_untrained_self() -> None:
    found = readings(subspace_rate(3), some_tokens(), some_tokens(tokens=7))
    expected = [3 * random_rate(5, 4), 3 * random_rate(7, 4)]
    assert found["normalised"].null_profiles["random tokens"] == pytest.approx(expected)
    bounds = [3 * rate_bound(5, 4), 3 * rate_bound(7, 4)]
    assert found["share"].null_profiles["random tokens"] == pytest.approx(
        [e / b for e, b in zip(expected, bounds, strict=True)]
    )
    assert not found["raw"].null_profiles
    assert all(spec.untrained for spec in METRICS)


def test_a_zero_token_adds_nothing() -> None:
    tokens = some_tokens()
    tokens[:, 2] = 0
    without = rate_by_numpy(torch.cat([tokens[:, :2], tokens[:, 3:]], dim=1) * math.sqrt(4 / 5), 1, normalise=False)
    assert readings(whole_rate(), tokens)["raw"].value == pytest.approx(np.mean(without), rel=1e-6)
    assert math.isfinite(readings(whole_rate(), tokens)["normalised"].value or math.nan)
    assert readings(subspace_rate(), torch.zeros(2, 5, 12))["normalised"].value == 0


def test_the_order_of_tokens_and_a_rotation_of_the_space_do_not_matter() -> None:
    tokens = some_tokens().double()
    rotation = torch.linalg.qr(some_tokens(1, 12, 12, seed=1).double()[0]).Q
    expected = readings(whole_rate(), tokens)
    for changed in (tokens[:, torch.randperm(5)], tokens @ rotation):
        found = readings(whole_rate(), changed)
        assert [found[part].value for part in PARTS] == pytest.approx([expected[part].value for part in PARTS])


def test_a_rotation_within_each_head_does_not_matter_but_one_across_heads_does() -> None:
    tokens = some_tokens().double()
    turn = torch.linalg.qr(some_tokens(1, 4, 4, seed=1).double()[0]).Q.contiguous()  # kron refuses columns first
    across = torch.linalg.qr(some_tokens(1, 12, 12, seed=1).double()[0]).Q
    expected = readings(subspace_rate(), tokens)["normalised"].value
    assert readings(subspace_rate(), tokens @ torch.kron(torch.eye(3), turn))["normalised"].value == pytest.approx(
        expected
    )
    assert readings(subspace_rate(), tokens @ across)["normalised"].value != pytest.approx(expected, rel=1e-3)


def test_normalised_rates_do_not_depend_on_scale() -> None:
    tokens, scale = some_tokens(), torch.tensor([1e-3, 1.0, 1e3, 7.0, 1e6])[:, None]
    expected, found = (readings(whole_rate(), each)["normalised"].value for each in (tokens, tokens * scale))
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("scale", [1e3, 1e5, 1e6, 1e12])
def test_tokens_too_large_for_a_cholesky_factor_still_have_their_rate(scale: float) -> None:
    flat = torch.zeros(1, 1, 30, 8, dtype=torch.float64)
    flat[..., :2] = some_tokens(1, 30, 2).double()
    turned = flat @ torch.linalg.qr(some_tokens(1, 8, 8, seed=1).double()[0]).Q * scale
    singular = np.linalg.svd(flat[0, 0].numpy(), compute_uv=False)[:2] * scale
    expected = np.log1p(8 / (30 * EPS2) * singular**2).sum() / 2
    assert float(rate(turned)) == pytest.approx(expected, rel=1e-6)


def test_tokens_that_are_no_numbers_give_no_number() -> None:
    assert math.isnan(float(rate(torch.full((1, 1, 4, 3), torch.nan))))


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_the_batch_size_does_not_matter(batch: int) -> None:
    layers = some_tokens(130), some_tokens(130, seed=1)
    expected, found = readings(subspace_rate(), *layers), readings(subspace_rate(), *layers, batch=batch)
    for part in PARTS:
        assert found[part].profile == pytest.approx(expected[part].profile, rel=1e-9)
        assert found[part].spread == pytest.approx(expected[part].spread, rel=1e-6)


def test_metrics_merge_into_one_also_with_one_that_saw_nothing() -> None:
    layers = some_tokens(20), some_tokens(20, seed=1)
    first, second = subspace_rate(), subspace_rate()
    second.update([layer[:6] for layer in layers])
    third = copy.deepcopy(subspace_rate())
    third.update([layer[6:] for layer in layers])
    first.update([])
    first.merge_state(second)
    first.merge_state(third)
    found, expected = first.compute(), readings(subspace_rate(), *layers)
    for part in PARTS:
        assert found[part].profile == pytest.approx(expected[part].profile, rel=1e-9)
        assert found[part].spread == pytest.approx(expected[part].spread, rel=1e-6)


def test_a_reset_metric_starts_again_with_another_depth() -> None:
    metric = subspace_rate()
    readings(metric, some_tokens(), some_tokens())
    metric.reset()
    assert readings(metric, some_tokens()) == readings(subspace_rate(), some_tokens())


def test_no_sample_gives_a_reason_and_one_sample_no_spread() -> None:
    assert readings(whole_rate(), some_tokens(0))["raw"].unscored == "no sample was seen"
    found = readings(whole_rate(), some_tokens(1))["raw"]
    assert found.value is not None
    assert found.spread == ()


def test_bfloat16_tokens_under_autocast_are_measured_exactly_as_their_rounded_numbers() -> None:
    tokens = some_tokens().bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = readings(subspace_rate(), tokens)
    assert found == readings(subspace_rate(), tokens.double())
    assert found["raw"].value == pytest.approx(np.mean(rate_by_numpy(tokens, 3, normalise=False)), rel=1e-10)


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(WhitebenchError, match="a multiple of 5 heads"):
        readings(subspace_rate(5), some_tokens())


def test_the_raw_rate_has_no_direction_and_the_share_no_unit() -> None:
    found = readings(subspace_rate(), some_tokens())
    assert found["raw"].direction == "none"
    assert found["share"].unit == ""

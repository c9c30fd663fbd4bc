"""Sparsity against hand-made codes and numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from whitebench import Layout, MetricContext, Reading, WhitebenchError
from whitebench_metrics.sparsity import METRICS

if TYPE_CHECKING:
    from torch import Tensor
    from torchmetrics import Metric

PARTS = ("nonzero", "above-threshold", "hoyer")


def sparsity() -> Metric:
    return METRICS[0].build(MetricContext(classes=2, shape=(1,), layout=Layout()))


def readings(*layers: Tensor, batch: int = 1000) -> dict[str, Reading]:
    metric = sparsity()
    for parts in zip(*(torch.split(layer, batch) for layer in layers), strict=True):
        metric.update(list(parts))
    found: dict[str, Reading] = metric.compute()
    return found


def values(*codes: Tensor) -> list[float | None]:
    found = readings(*codes)
    return [found[part].value for part in PARTS]


def some_codes(samples: int = 9, tokens: int = 5, width: int = 12, seed: int = 0) -> Tensor:
    return torch.randn(samples, tokens, width, generator=torch.Generator().manual_seed(seed)).relu()


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ([0.0, 0.0, -3.0, 0.0], [1 / 4, 1 / 4, 1.0]),
        ([2.0, -2.0, 2.0, 2.0], [1.0, 1.0, 0.0]),
        ([0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0]),
        ([1.0, 0.04, 0.06, 0.0], [3 / 4, 2 / 4, (2 - 1.1 / 1.0052**0.5) / (2 - 1)]),
    ],
)
def test_one_token_by_hand(token: list[float], expected: list[float]) -> None:
    assert values(torch.tensor([[token]])) == pytest.approx(expected, abs=1e-7)


def test_mean_and_spread_over_samples_agree_with_numpy() -> None:
    layers = [some_codes(), some_codes(seed=1)]
    found = readings(*layers)
    per_sample: dict[str, list[list[float]]] = {part: [] for part in PARTS}
    for layer in layers:
        x = np.abs(layer.double().numpy())
        root = np.sqrt(x.shape[-1])
        hoyer = (root - x.sum(-1) / np.sqrt((x**2).sum(-1))) / (root - 1)
        per_sample["nonzero"].append((x > 0).mean(axis=(1, 2)))
        per_sample["above-threshold"].append((x > 0.05 * x.max(-1, keepdims=True)).mean(axis=(1, 2)))
        per_sample["hoyer"].append(hoyer.mean(axis=1))
    for part in PARTS:
        expected = np.array(per_sample[part])
        assert found[part].profile == pytest.approx(expected.mean(axis=1), rel=1e-10)
        assert found[part].spread == pytest.approx(expected.std(axis=1, ddof=1), rel=1e-6)
        assert found[part].value == pytest.approx(expected.mean(), rel=1e-10)


def test_scale_and_order_do_not_matter() -> None:
    codes = some_codes()
    for changed in (codes * 1e-3, codes * -1e30, codes.flip(-1), codes.flip(1)):
        assert values(changed) == pytest.approx(values(codes), rel=1e-6)


def test_codes_without_tokens_are_taken_as_one_token() -> None:
    codes = some_codes(tokens=1)
    assert values(codes.squeeze(1)) == values(codes)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_the_batch_size_does_not_matter(batch: int) -> None:
    layers = some_codes(130), some_codes(130, seed=1)
    expected, found = readings(*layers), readings(*layers, batch=batch)
    for part in PARTS:
        assert found[part].profile == pytest.approx(expected[part].profile, rel=1e-9)
        assert found[part].spread == pytest.approx(expected[part].spread, rel=1e-6)


def test_two_halves_merge_into_the_whole() -> None:
    codes = some_codes(20)
    first, second = sparsity(), sparsity()
    first.update([codes[:6]])
    second.update([codes[6:]])
    first.merge_state(second)
    found, expected = first.compute(), readings(codes)
    for part in PARTS:
        assert found[part].profile == pytest.approx(expected[part].profile, rel=1e-9)


def test_bfloat16_codes_are_measured_as_their_rounded_numbers() -> None:
    codes = some_codes().bfloat16()
    assert values(codes) == values(codes.double())


def test_a_smooth_activation_has_no_exact_zero_but_can_be_sparse() -> None:
    codes = torch.nn.functional.gelu(some_codes() * 8 - 4)
    found = readings(codes)
    assert found["nonzero"].value == 1
    assert (found["above-threshold"].value or 1) < 0.9


def test_codes_of_normal_entries_come_to_the_null_which_depends_on_their_width() -> None:
    layers = [torch.randn(400, 5, width, generator=torch.Generator().manual_seed(7)) for width in (12, 256)]
    found = readings(*layers)
    for part in PARTS:
        null = found[part].null_profiles["random codes"]
        assert found[part].profile == pytest.approx(null, rel=0.02)
        assert found[part].nulls["random codes"] == pytest.approx(sum(null) / 2)
    # |x|_1 / |x|_2 of many normal entries is sqrt(2 n / pi).
    assert found["hoyer"].null_profiles["random codes"][1] == pytest.approx(
        (16 - 16 * (2 / 3.14159) ** 0.5) / 15, rel=0.01
    )
    assert found["nonzero"].nulls["random codes"] == 1
    assert METRICS[0].untrained


def test_each_part_points_to_the_sparser_side() -> None:
    found = readings(some_codes())
    assert [found[part].direction for part in PARTS] == ["lower", "lower", "higher"]


def test_codes_of_width_one_are_refused() -> None:
    with pytest.raises(WhitebenchError, match="n of two or more"):
        readings(some_codes(width=1))

"""Verdicts on layers made to obey, to disobey and to do neither."""

from __future__ import annotations

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
from tests.plugins.test_coding_rate import rate_by_numpy
from whitebench import Layout, MetricContext, Reading, WhitebenchError
from whitebench_metrics.verdicts import METRICS, verdict

SPECS = {spec.name: spec for spec in METRICS}


def metric(name: str) -> Metric:
    return SPECS[name].build(MetricContext(classes=2, shape=(1,), layout=Layout(heads=3)))


def past_the_norm(before: list[Tensor], after: list[Tensor]) -> list[Tensor]:
    return [torch.stack(pair, dim=1) for pair in zip(before, after, strict=True)]


def compression(before: list[Tensor], after: list[Tensor]) -> dict[str, Reading]:
    return read(metric("compression-verdicts"), before, after, past_the_norm(before, after))


def sparsification(before: list[Tensor], after: list[Tensor]) -> dict[str, Reading]:
    return read(metric("sparsification-verdicts"), before, after)


def some_tokens(samples: int = 20, tokens: int = 5, width: int = 12, seed: int = 0) -> Tensor:
    return torch.randn(samples, tokens, width, generator=torch.Generator().manual_seed(seed))


def test_changes_and_shares_of_samples_are_those_of_rates_by_numpy() -> None:
    before, after = some_tokens(), some_tokens(seed=1) * 1.02
    found = compression([before], [after])
    for form, normalise in (("normalised", True), ("raw", False)):
        old, new = (rate_by_numpy(tokens, 3, normalise=normalise) for tokens in (before, after))
        changes = torch.tensor([late - early for early, late in zip(old, new, strict=True)])
        assert found[f"{form}-change"].profile == pytest.approx([float(changes.mean())], rel=1e-4)
        assert found[f"{form}-change"].spread == pytest.approx([float(changes.std())], rel=1e-4)
        assert found[form].profile == pytest.approx([float((changes < 0).double().mean())])


def test_tokens_pulled_together_are_compressed_and_longer_ones_only_in_the_raw_form_expanded() -> None:
    tokens = some_tokens()
    together = tokens.mean(dim=1, keepdim=True) + 0.1 * tokens
    found = compression([tokens, together, tokens], [together, tokens, 2 * tokens])
    assert found["normalised"].value == pytest.approx(1 / 3)
    assert found["normalised"].profile == (1.0, 0.0, 0.0)
    assert found["normalised-undecided"].value == pytest.approx(1 / 3)  # a scale alone changes nothing
    assert found["raw"].value == pytest.approx(1 / 3)
    assert found["raw-undecided"].value == 0
    assert found["raw-change"].profile[2] > 0


def test_a_step_towards_known_subspaces_obeys_in_the_normalised_form_and_not_in_the_raw() -> None:
    """arXiv 2411.17182's dispute: attention within the true subspaces lengthens what lies in its own."""
    generator = torch.Generator().manual_seed(0)
    own = torch.arange(30) % 3
    noisy = 0.3 * torch.randn(20, 30, 3, 4, generator=generator)
    noisy[:, torch.arange(30), own] += torch.randn(20, 30, 4, generator=generator)
    heads = noisy.transpose(1, 2)
    step = F.scaled_dot_product_attention(heads, heads, heads, scale=4.0)
    before, after = noisy.flatten(2), (noisy + step.transpose(1, 2)).flatten(2)
    found = compression([before], [after])
    assert (found["normalised"].value, found["raw"].value) == (1, 0)


def test_past_the_norm_longer_tokens_disobey_whatever_the_norm_lets_through() -> None:
    tokens = some_tokens()
    closer = tokens.mean(dim=1, keepdim=True) + 0.5 * tokens
    found = read(metric("compression-verdicts"), [tokens], [closer], past_the_norm([tokens], [5 * closer]))
    assert [found[form].value for form in ("normalised", "raw", "residual")] == [1, 1, 0]
    expected = [rate_by_numpy(each, 3, normalise=False) for each in (5 * closer, tokens)]
    change = sum(late - early for late, early in zip(*expected, strict=True)) / 20
    assert found["residual-change"].value == pytest.approx(change, rel=1e-6)


def test_what_lies_within_two_standard_errors_of_nothing_is_undecided_and_does_not_obey() -> None:
    found = compression([some_tokens(200)], [some_tokens(200, seed=1)])
    assert abs(found["normalised-change"].profile[0]) < 2 * found["normalised-change"].spread[0] / 200**0.5
    assert found["normalised"].value == 0
    assert found["normalised-undecided"].value == 1
    assert found["normalised"].profile == pytest.approx([0.5], abs=0.1)


@pytest.mark.parametrize(
    ("mean", "expected"), [(-0.41, "obeys"), (-0.39, "undecided"), (0.39, "undecided"), (0.41, "disobeys")]
)
def test_a_verdict_needs_two_standard_errors(mean: float, expected: str) -> None:
    assert verdict((mean, 2.0, 100), "lower") == expected
    assert verdict((-mean, 2.0, 100), "higher") == expected
    assert verdict((0.0, 0.0, 100), "lower") == "undecided"


def test_shrinking_makes_tokens_sparser_and_a_smooth_map_of_them_less_so() -> None:
    tokens = some_tokens()
    shrunk = F.relu(tokens - 0.5)
    found = sparsification([tokens, tokens, shrunk], [shrunk, torch.tanh(3 * tokens), tokens])
    assert {part: found[part].profile for part in ("above-threshold", "hoyer", "nonzero")} == {
        "above-threshold": pytest.approx((1.0, 0.0, 0.0), abs=0.15),
        "hoyer": (1.0, 0.0, 0.0),
        "nonzero": (1.0, 0.0, 0.0),
    }
    assert found["hoyer"].value == pytest.approx(1 / 3)
    assert [found[f"{part}-change"].direction for part in ("above-threshold", "hoyer", "nonzero")] == [
        "lower",
        "higher",
        "lower",
    ]


def test_any_relu_obeys_by_exact_zeros_and_no_gelu_does() -> None:
    tokens = some_tokens()
    dense = 0.01 * tokens + 1  # nothing is sparse here, and nothing becomes so
    barely = dense.clone()
    barely[..., 0] = -1
    assert sparsification([barely], [F.relu(barely)])["nonzero"].value == 1
    assert sparsification([dense], [F.gelu(dense)])["nonzero"].value == 0


def test_codes_may_be_wider_than_tokens_but_layers_must_match() -> None:
    assert sparsification([some_tokens()], [some_tokens(width=48).relu()])["hoyer"].value == 1
    with pytest.raises(WhitebenchError, match=r"layer by layer; \[1, 2\] layers were traced"):
        sparsification([some_tokens()], [some_tokens(), some_tokens()])


@pytest.mark.parametrize("name", SPECS)
def test_batches_processes_and_precision_do_not_matter(name: str) -> None:
    before, after = ([some_tokens(130, seed=seed) for seed in seeds] for seeds in ((0, 1), (2, 3)))
    kinds = [before, after, past_the_norm(after, before)][: len(SPECS[name].needs)]
    assert_batches_and_processes_do_not_matter(lambda: metric(name), *kinds)
    assert_rounded_numbers_are_measured_as_they_are(lambda: metric(name), *kinds)


def test_the_order_of_tokens_does_not_matter() -> None:
    before, after, order = some_tokens(), some_tokens(seed=1), torch.randperm(5)
    expected, found = compression([before], [after]), compression([before[:, order]], [after[:, order]])
    assert found["raw-change"].profile == pytest.approx(expected["raw-change"].profile)


def test_one_sample_decides_nothing() -> None:
    found = compression([some_tokens(1)], [some_tokens(1, seed=1)])
    assert found["raw"].unscored == found["raw-undecided"].unscored == "one sample has no standard error"
    assert found["raw-change"].value is not None
    nobody = compression([some_tokens(0)], [some_tokens(0)])
    assert nobody["normalised"].unscored == nobody["raw-change"].unscored == "no sample was seen"


def test_the_headline_is_the_first_that_can_go_either_way() -> None:
    assert next(iter(compression([some_tokens()], [some_tokens()]))) == "normalised"
    assert next(iter(sparsification([some_tokens()], [some_tokens()]))) == "above-threshold"

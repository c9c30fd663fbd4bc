"""The margin metric: which samples it keeps, what it says of a layer, and when it says nothing."""

from __future__ import annotations

import hashlib

import pytest
import torch
from torch import Tensor

from whitebench import Layout, WhitebenchError
from whitebench.testing import check_metric
from whitebench_metrics.margin import DRAWS, METRICS, RANDOM, Margin, samples_kept
from whitebench_metrics.margins import angular_margins, choose, compare, gaps_of, logits_of

B, L, H, N, D = 70, 2, 2, 9, 8


@pytest.fixture
def inputs() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(B, N, D, generator=generator) for _ in range(L)]


@pytest.fixture
def forms() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(H, D, D + 1, generator=generator) for _ in range(L)]


def measured(inputs: list[Tensor], forms: list[Tensor], layout: Layout | None = None, batch: int = 100) -> Margin:
    metric = Margin(layout or Layout(heads=H))
    for start in range(0, B, batch):
        rows = slice(start, start + batch)
        metric.update(torch.arange(B)[rows], [layer[rows] for layer in inputs], forms)
    return metric


def kept_of(inputs: list[Tensor]) -> list[int]:
    order = sorted(range(B), key=lambda place: hashlib.sha256(str(place).encode()).digest())
    return sorted(order[: samples_kept(N)])


def test_a_layer_is_the_mean_over_its_heads_of_the_mean_over_draws(inputs: list[Tensor], forms: list[Tensor]) -> None:
    found = measured(inputs, forms).compute()
    rows = kept_of(inputs)
    assert len(rows) == 64
    for place in range(L):
        tokens = inputs[place][rows].double()
        rhos, kappas, angles, gaps = [], [], [], []
        for form in forms[place].double():
            chosen = [choose(tokens, form, draw=draw) for draw in range(DRAWS)]
            best = compare(form, chosen)
            rhos.append(float(best.rho.mean()))
            kappas.append(float(best.kappa.mean()))
            angles.append(float(angular_margins(tokens, form).median()))
            gaps.append(float(torch.quantile(gaps_of(logits_of(tokens, form)), 0.05)))
        for name, values in {"rho": rhos, "kappa": kappas, "angular": angles, "gap-p5": gaps}.items():
            assert found[name].profile[place] == pytest.approx(sum(values) / H), name
    assert found["rho"].value == pytest.approx(sum(found["rho"].profile) / L)
    assert found["separable"].value == 1.0
    assert found["duality-gap"].value is not None
    assert found["duality-gap"].value < 1e-6


def test_the_same_random_forms_stand_beside_it_every_time(inputs: list[Tensor], forms: list[Tensor]) -> None:
    first, second = (measured(inputs, forms, batch=batch).compute() for batch in (7, 100))
    assert first["rho"].nulls == second["rho"].nulls
    assert list(first["rho"].nulls) == [RANDOM]
    assert 0 < first["rho"].nulls[RANDOM] < 1
    assert len(first["rho"].null_profiles[RANDOM]) == L


def test_no_more_is_kept_than_the_fixed_sample(inputs: list[Tensor], forms: list[Tensor]) -> None:
    metric = measured(inputs, forms, batch=10)
    assert sorted(key for key in metric.places() if key >= 0) == kept_of(inputs)


@pytest.mark.parametrize(("tokens", "kept"), [(5, 64), (17, 64), (65, 20), (197, 16)])
def test_fewer_samples_are_kept_where_each_has_many_tokens(tokens: int, kept: int) -> None:
    assert samples_kept(tokens) == kept


def test_a_tied_projection_is_also_held_against_the_best_positive_semidefinite_form(inputs: list[Tensor]) -> None:
    projections = torch.randn(L, H, 4, D, generator=torch.Generator().manual_seed(2))
    tied = [torch.nn.functional.pad(layer.mT @ layer, (0, 1)) for layer in projections]
    found = measured(inputs, tied, Layout(heads=H, is_tied=True)).compute()
    assert found["rho-psd"].value is not None
    assert found["rho"].value is not None
    assert found["rho-psd"].value > found["rho"].value
    assert "rho-psd" not in measured(inputs, tied).compute()


def test_equal_tokens_leave_it_unscored_and_say_so(inputs: list[Tensor], forms: list[Tensor]) -> None:
    blank = [inputs[0], torch.ones(B, N, D)]
    found = measured(blank, forms).compute()
    for name in ("rho", "kappa"):
        assert found[name].value is None
        assert str(found[name].unscored).startswith("in layer 2, ")
    assert found["separable"].value == 0.5
    assert found["gap"].value is not None


def test_no_sample_is_no_score(forms: list[Tensor]) -> None:
    metric = Margin(Layout(heads=H))
    metric.update(torch.arange(0), [torch.empty(0, N, D)] * L, forms)
    assert metric.compute()["rho"].unscored == "no sample was seen"


@pytest.mark.parametrize(
    ("shapes", "form"), [([(3, N, D), (3, N, D + 1)], D), ([(3, N)], D), ([(3, 1, D)], D), ([(3, N, D)], D + 1)]
)
def test_traces_of_another_form_are_refused(shapes: list[tuple[int, ...]], form: int) -> None:
    metric = Margin(Layout(heads=H))
    with pytest.raises(WhitebenchError, match="a margin takes inputs"):
        metric.update(torch.arange(3), [torch.ones(shape) for shape in shapes], [torch.ones(H, form, form + 1)])


def test_batches_and_processes_do_not_matter() -> None:
    check_metric(METRICS[0])

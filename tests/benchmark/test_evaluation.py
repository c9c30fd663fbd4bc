"""Scoring: every metric on its own."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from whitebench.catalog import Catalog
from whitebench.evaluation import Subject, per_sample, predict, score, score_predictions, trace_sample, unmet_need
from whitebench.result import Score
from whitebench.specs import Layout, MetricContext, MetricSpec, Samples


@pytest.fixture
def subject(catalog: Catalog) -> Subject:
    spec = catalog.model("tiny").spec
    torch.manual_seed(0)
    context = MetricContext(classes=3, shape=(1, 2, 2), layout=Layout())
    return Subject(module=spec.build(spec.config(), (1, 2, 2), 3), spec=spec, context=context)


@pytest.fixture
def samples(catalog: Catalog) -> Samples:
    found: Samples = catalog.task("blobs").spec.data(None, "test")
    return found


def scores_of(subject: Subject, samples: Samples, catalog: Catalog, *names: str, batch_size: int = 7) -> list[Score]:
    logits = predict(subject, samples.inputs, batch_size=batch_size)
    return score(subject, samples, logits, [catalog.metric(name).spec for name in names], batch_size=batch_size)


def test_predictions_do_not_depend_on_the_batch_size(subject: Subject, samples: Samples) -> None:
    whole = predict(subject, samples.inputs, batch_size=100)
    torch.testing.assert_close(predict(subject, samples.inputs, batch_size=7), whole)
    assert whole.shape == (30, 3)


def test_scores_stand_in_the_order_of_the_metrics(subject: Subject, samples: Samples, catalog: Catalog) -> None:
    names = ("depths", "error", "depths-missing", "accuracy")
    assert tuple(one.name for one in scores_of(subject, samples, catalog, *names)) == names


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        ("depths-missing", "model tiny gives no trace of codes"),
        ("depths-raises", "the metric raised ValueError: no such layer"),
        ("depths-text", "the metric raised WhitebenchError: compute returned str"),
        ("depths-hole", "layer 2 is nan"),
        ("error-raises", "the metric raised ValueError: cannot take this"),
        ("error-nan", "the value is nan"),
    ],
)
def test_a_metric_that_gives_nothing_is_unscored_with_its_reason_and_costs_no_other_its_score(
    subject: Subject, samples: Samples, catalog: Catalog, metric: str, reason: str
) -> None:
    first, broken, last = scores_of(subject, samples, catalog, "error", metric, "depths")
    assert broken.value is None
    assert broken.unscored is not None
    assert broken.unscored.startswith(reason)
    assert (broken.profile, broken.spread) == ((), ())
    assert first.value is not None
    assert last.value is not None


def test_a_reading_becomes_plain_finite_numbers(subject: Subject, samples: Samples, catalog: Catalog) -> None:
    [found] = scores_of(subject, samples, catalog, "depths")
    assert [type(value) for value in (found.value, *found.profile)] == [float] * 3
    assert (dict(found.nulls), found.spread) == ({"noise": 1.5}, ())  # neither NaN nor infinity can be stored


def test_a_look_inside_sees_every_sample_once(subject: Subject, samples: Samples, catalog: Catalog) -> None:
    [found] = scores_of(subject, samples, catalog, "depths")
    hidden = subject.module.get_submodule("hidden")(samples.inputs.flatten(1)).detach()
    assert found.profile == pytest.approx([float(hidden.sum()), float(hidden.abs().sum())], rel=1e-5)


def test_a_metric_on_predictions_needs_no_model(subject: Subject, catalog: Catalog) -> None:
    logits = torch.tensor([[2.0, 1, 0], [0, 1, 2], [0, 2, 1], [2, 0, 1]])
    [found] = score_predictions(catalog.metric("error").spec, subject.context, logits, torch.tensor([0, 2, 2, 1]))
    assert found.value == 0.5


@pytest.mark.parametrize(("precision", "dtype"), [("32", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_every_look_at_a_model_computes_in_the_budgets_precision(
    subject: Subject, samples: Samples, catalog: Catalog, precision: str, dtype: torch.dtype
) -> None:
    seen: list[torch.dtype] = []
    subject.module.get_submodule("hidden").register_forward_hook(lambda _layer, _given, out: seen.append(out.dtype))
    logits = predict(subject, samples.inputs, batch_size=30, precision=precision)
    score(subject, samples, logits, [catalog.metric("depths").spec], batch_size=30, precision=precision)
    traces = trace_sample(subject, samples, frozenset({"hidden"}), precision=precision)
    assert seen == [dtype] * 3
    assert (logits.dtype, traces["hidden/0"].dtype) == (torch.float32, torch.float32)  # what is stored


def test_logits_in_bf16_are_near_those_in_float32_and_not_the_same(subject: Subject, samples: Samples) -> None:
    full, low = (predict(subject, samples.inputs, batch_size=7, precision=one) for one in ("32", "bf16-mixed"))
    assert torch.equal(low, low.bfloat16().float())  # every one a number that bf16 has
    assert 1e-4 < (full - low).abs().max() < 0.05


def test_a_model_whose_trace_is_a_function_is_asked_for_everything(subject: Subject, catalog: Catalog) -> None:
    functional = dataclasses.replace(subject.spec, trace=lambda module, inputs: {})
    assert unmet_need(catalog.metric("depths-missing").spec, functional) is None


def test_a_kind_that_a_trace_function_leaves_out_costs_no_other_metric_its_score(
    subject: Subject, samples: Samples, catalog: Catalog
) -> None:
    asked: list[int] = []

    def trace(module: nn.Module, inputs: torch.Tensor) -> dict[str, list[torch.Tensor]]:
        asked.append(len(inputs))
        return {"hidden": [module.get_submodule("hidden")(inputs.flatten(1))]}

    functional = dataclasses.replace(subject, spec=dataclasses.replace(subject.spec, trace=trace))
    [expected] = scores_of(subject, samples, catalog, "depths")
    error, missing, depths = scores_of(functional, samples, catalog, "error", "depths-missing", "depths")
    assert missing.unscored == "model tiny gives no trace of codes (it gives hidden)"
    assert error.value is not None
    assert depths.profile == pytest.approx(expected.profile, rel=1e-6)
    assert asked == [7, 7, 7, 7, 2]
    stored = trace_sample(functional, samples, frozenset({"hidden", "codes"}))
    assert set(stored) == {"index", "hidden/0"}


def test_a_model_is_looked_into_no_further_once_nobody_needs_it(
    subject: Subject, samples: Samples, catalog: Catalog
) -> None:
    asked: list[int] = []

    def trace(module: nn.Module, inputs: torch.Tensor) -> dict[str, list[torch.Tensor]]:
        asked.append(len(inputs))
        return {}

    blank = dataclasses.replace(subject, spec=dataclasses.replace(subject.spec, trace=trace))
    [missing] = scores_of(blank, samples, catalog, "depths-missing")
    assert missing.unscored == "model tiny gives no trace of codes (it gives none)"
    assert asked == [7]


def test_the_traced_sample_is_the_same_whatever_the_order_of_asking(subject: Subject, samples: Samples) -> None:
    small, large = (trace_sample(subject, samples, frozenset({"hidden"}), size=size) for size in (4, 8))
    assert set(small["index"].tolist()) < set(large["index"].tolist())
    hidden = subject.module.get_submodule("hidden")(samples.inputs[small["index"]].flatten(1))
    torch.testing.assert_close(small["hidden/0"], hidden.detach())


def test_a_metric_without_a_value_per_sample_adds_nothing_to_the_predictions(catalog: Catalog) -> None:
    logits, labels = torch.eye(3), torch.tensor([0, 1, 1])
    assert per_sample(catalog.metric("error-mute").spec, logits, labels) == {}
    assert per_sample(catalog.metric("error").spec, logits, labels)["primary"].tolist() == [0, 0, 1]


def test_a_value_per_sample_that_raises_costs_only_itself(catalog: Catalog) -> None:
    def broken(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        raise ValueError("no")

    spec: MetricSpec = dataclasses.replace(catalog.metric("error").spec, per_sample=broken)
    assert per_sample(spec, torch.eye(3), torch.tensor([0, 1, 2])) == {}

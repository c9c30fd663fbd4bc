"""What a model makes of samples: predictions, and what is kept of its inside."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from whitebench.catalog import Catalog
from whitebench.evaluation import Subject, per_sample, predict, trace_sample
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


def test_predictions_do_not_depend_on_the_batch_size(subject: Subject, samples: Samples) -> None:
    whole = predict(subject, samples.inputs, batch_size=100)
    torch.testing.assert_close(predict(subject, samples.inputs, batch_size=7), whole)
    assert whole.shape == (30, 3)


def test_logits_in_bf16_are_near_those_in_float32_and_not_the_same(subject: Subject, samples: Samples) -> None:
    full, low = (predict(subject, samples.inputs, batch_size=7, precision=one) for one in ("32", "bf16-mixed"))
    assert torch.equal(low, low.bfloat16().float())  # every one a number that bf16 has
    assert 1e-4 < (full - low).abs().max() < 0.05


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


def test_a_trace_that_is_a_weight_is_not_kept_a_second_time(subject: Subject, samples: Samples) -> None:
    both = dataclasses.replace(subject.spec, trace={"hidden": "hidden", "form": "hidden.weight:param"})
    stored = trace_sample(dataclasses.replace(subject, spec=both), samples, frozenset({"hidden", "form"}))
    assert set(stored) == {"index", "hidden/0"}

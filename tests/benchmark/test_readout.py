"""Read-outs of one fit: fitted once, on features and on samples as they are, none costing another its predictor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from whitebench import Layout, MetricContext, ModelSpec, NoOptions, ReadoutSpec, Samples
from whitebench.errors import MetricError
from whitebench.evaluation import Subject
from whitebench.readout import WIDEST_RAW, Reader, Readout


class Doubling(nn.Module):
    """Features are twice the inputs."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(2 * inputs)
        return logits


class Means(Metric):
    """The logit of a class: the features times its mean; `breaks` says where it raises."""

    sums: Tensor
    counts: Tensor

    def __init__(self, classes: int, width: int, *, breaks: str = "") -> None:
        super().__init__()
        self.breaks = breaks
        self.add_state("sums", torch.zeros(classes, width), dist_reduce_fx="sum")
        self.add_state("counts", torch.zeros(classes), dist_reduce_fx="sum")

    def update(self, features: Tensor, labels: Tensor) -> None:
        if self.breaks == "update":
            raise ValueError("cannot take this")
        self.sums.index_add_(0, labels, features)
        self.counts += torch.bincount(labels, minlength=len(self.counts))

    def compute(self) -> Callable[[Tensor], Tensor]:
        if self.breaks == "compute":
            raise ValueError("cannot say")
        means = self.sums / self.counts[:, None]
        if self.breaks == "predict":
            return lambda features: features @ means
        return lambda features: features @ means.T


def readout(breaks: str = "") -> Readout:
    def build(_config: Any, classes: int, width: int) -> Metric:
        return Means(classes, width, breaks=breaks)

    return Readout(spec=ReadoutSpec(name="means", version=1, summary="", build=build), config=NoOptions())


def reader(readouts: dict[str, Readout], *, width: int = 3, batch_size: int = 4) -> tuple[Reader, Samples]:
    spec = ModelSpec(name="doubling", summary="", config=NoOptions, build=lambda *_: Doubling(width), head="head")
    context = MetricContext(classes=2, shape=(width,), layout=Layout())
    torch.manual_seed(0)
    samples = Samples(inputs=torch.randn(10, width), labels=torch.arange(10) % 2)
    subject = Subject(module=Doubling(width), spec=spec, context=context)
    return Reader(subject, readouts, samples, batch_size=batch_size), samples


@pytest.mark.parametrize("batch_size", [1, 4, 10, 99])
def test_features_and_raw_samples_are_read_alike_whatever_the_batch(batch_size: int) -> None:
    found, samples = reader({"means": readout()}, batch_size=batch_size)
    means = torch.stack([samples.inputs[samples.labels == c].mean(dim=0) for c in range(2)])
    new = torch.randn(7, 3)
    torch.testing.assert_close(found.logits("means", new), 2 * new @ (2 * means).T)
    torch.testing.assert_close(found.raw_logits("means", new), new @ means.T)


@pytest.mark.parametrize("breaks", ["update", "compute", "predict"])
def test_one_that_raises_is_named_and_costs_no_other_its_predictor(breaks: str) -> None:
    found, samples = reader({"broken": readout(breaks), "means": readout()})
    for read in (found.logits, found.raw_logits):
        with pytest.raises(MetricError, match="readout 'broken' raised"):
            read("broken", samples.inputs)
        assert read("means", samples.inputs) is not None


def test_samples_too_wide_to_be_read_as_they_are_have_no_raw_logits() -> None:
    found, samples = reader({"means": readout()}, width=WIDEST_RAW + 1)
    assert found.raw_logits("means", samples.inputs) is None
    assert found.logits("means", samples.inputs).shape == (10, 2)

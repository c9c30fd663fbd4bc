"""Top-2 accuracy: the share of samples whose label is among the two largest logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchmetrics.classification import MulticlassAccuracy

from whitebench import MetricContext, MetricSpec

if TYPE_CHECKING:
    from torch import Tensor


def _build(context: MetricContext) -> MulticlassAccuracy:
    return MulticlassAccuracy(num_classes=context.classes, top_k=2, average="micro")


def _per_sample(logits_BC: Tensor, labels_B: Tensor) -> Tensor:
    return (logits_BC.topk(2).indices == labels_B[:, None]).any(dim=1).float()


TOP2_ACCURACY = MetricSpec(
    name="top-2-accuracy",
    version=1,
    summary="Share of samples whose label is among the two largest logits",
    direction="higher",
    needs=("logits", "labels"),
    build=_build,
    per_sample=_per_sample,
)

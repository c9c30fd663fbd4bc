"""How well classes are predicted, and how well the model knows it.

accuracy            the share of samples whose largest logit is that of their class
cross-entropy       the mean over samples of -log softmax(logits)[class], in nats
calibration error   sum over bins b of (n_b / n) |accuracy_b - confidence_b|, 15 bins of equal width over the
                    confidence of the prediction (Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern
                    Neural Networks", arXiv 1706.04599, section 2, equation 3)

Legend: B batch, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassCalibrationError

from whitebench import MetricSpec, Reference

if TYPE_CHECKING:
    from whitebench import MetricContext

BINS = 15


def is_correct(logits_BC: Tensor, labels_B: Tensor) -> Tensor:
    """Return 1 where the largest logit is the label's, else 0: (B,), float64."""
    return (logits_BC.argmax(dim=-1) == labels_B).double()


def surprise(logits_BC: Tensor, labels_B: Tensor) -> Tensor:
    """Return -log softmax(logits)[label] in nats: (B,), float64."""
    return F.cross_entropy(logits_BC.double(), labels_B, reduction="none")


class MeanOverSamples(Metric):
    """The mean over samples of `per_sample(logits, labels)`, from a sum and a count."""

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, per_sample: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.per_sample = per_sample
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits_BC: Tensor, labels_B: Tensor) -> None:
        """Add a batch."""
        self.total += self.per_sample(logits_BC, labels_B).sum()
        self.count += len(labels_B)

    def compute(self) -> Tensor:
        """Return the mean, a float64 scalar."""
        return self.total / self.count


class CalibrationError(MulticlassCalibrationError):
    """torchmetrics' calibration error, given confidences instead of logits.

    Given logits it would judge batch by batch whether they are logits (it takes a batch that lies within
    [0, 1] for probabilities), and put a confidence of exactly 1 into a sixteenth bin.
    """

    def __init__(self, classes: int) -> None:
        super().__init__(num_classes=classes, n_bins=BINS, norm="l1")

    def update(self, logits_BC: Tensor, labels_B: Tensor) -> None:
        """Add a batch."""
        below_one = 1 - 2**-24  # the largest float32 below 1
        super().update(logits_BC.float().softmax(dim=-1).clamp(max=below_one), labels_B)


def _accuracy(_: MetricContext) -> Metric:
    return MeanOverSamples(is_correct)


def _cross_entropy(_: MetricContext) -> Metric:
    return MeanOverSamples(surprise)


def _calibration_error(context: MetricContext) -> Metric:
    return CalibrationError(context.classes)


METRICS = [
    MetricSpec(
        name="accuracy",
        version=1,
        summary="share of samples whose class is predicted",
        direction="higher",
        unit="share",
        needs=("logits", "labels"),
        build=_accuracy,
        per_sample=is_correct,
    ),
    MetricSpec(
        name="cross-entropy",
        version=1,
        summary="mean negative log probability of the true class",
        direction="lower",
        unit="nats",
        needs=("logits", "labels"),
        build=_cross_entropy,
        per_sample=surprise,
    ),
    MetricSpec(
        name="calibration-error",
        version=1,
        summary="how far confidence is from accuracy, over 15 bins of confidence",
        direction="lower",
        unit="share",
        needs=("logits", "labels"),
        build=_calibration_error,
        reference=Reference(
            title="Guo et al., On Calibration of Modern Neural Networks", url="https://arxiv.org/abs/1706.04599"
        ),
    ),
]

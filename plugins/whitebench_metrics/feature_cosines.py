"""Cosines between features, sorted by class: the heat map of the MCR2 paper, and what it comes to in two numbers.

For a fixed sample of features z_i, the |cosines| |z_i^T z_j| / (|z_i| |z_j|) of every two: `between` is their mean over
pairs of different classes, `within` over pairs of the same (Yu et al., arXiv 2006.08558, section 3). The sample are the
128 whose place in the split has the smallest hash: which they are depends on nothing but how many there are. Random
directions have a mean of Gamma(D/2) / (sqrt(pi) Gamma((D+1)/2)), their null.

Legend: B batch, D width of the features, S samples.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from whitebench import MetricSpec, Picture, Reading, Reference
from whitebench_metrics.keyed import KeyedMetric, sampled

if TYPE_CHECKING:
    from torchmetrics import Metric

    from whitebench import MetricContext

SAMPLES = 128
NULL_NAME = "random features"


def random_cosine(width: int) -> float:
    """Return the mean |cosine| of two random directions."""
    return math.exp(math.lgamma(width / 2) - math.lgamma((width + 1) / 2)) / math.sqrt(math.pi)


class FeatureCosines(KeyedMetric):
    """Mean |cosine| between classes and within them, from a fixed sample of features."""

    def update(self, features_BD: Tensor, labels_B: Tensor, index_B: Tensor) -> None:
        """Add a batch, and let go of what is not in the sample so far."""
        batch = dict(zip(index_B.tolist(), range(len(index_B)), strict=True))
        sample = set(sampled([*self.places(), *batch], SAMPLES))
        self.drop(set(self.places()) - sample)
        for index in sample & set(batch):
            row_D = features_BD[batch[index]].detach().double()
            self.keep(index, torch.cat([labels_B[batch[index]][None].double(), row_D]))

    def compute(self) -> dict[str, Reading]:
        """Return `between` and `within`, in [0, 1]."""
        found = self.found()
        rows = [found[index][0].cpu() for index in sampled(found, SAMPLES)]
        if not rows:
            return self._unscored("no sample was seen", "no sample was seen")
        labels_S, features_SD = torch.stack(rows)[:, 0], torch.stack(rows)[:, 1:]
        if not features_SD.isfinite().all():
            return self._unscored("a feature is no finite number", "a feature is no finite number")
        order_S = labels_S.argsort(stable=True)
        labels_S, unit_SD = labels_S[order_S], F.normalize(features_SD[order_S], dim=-1)
        cosines_SS = (unit_SD @ unit_SD.T).abs()
        is_same_SS = labels_S[:, None] == labels_S[None, :]
        readings = self._unscored("the sample is of one class alone", "the sample has no two of a class")
        drawn = Picture(
            kind="matrix",
            title="|cosine| of every two features, sorted by class",
            x="sample",
            y="sample",
            series={"features": cosines_SS},
        )
        for part, is_meant_SS in (("between", ~is_same_SS), ("within", is_same_SS)):
            pairs = cosines_SS[is_meant_SS.triu(1)]
            if len(pairs):
                nulls = {NULL_NAME: random_cosine(unit_SD.shape[1])}
                direction = readings[part].direction
                readings[part] = Reading(value=float(pairs.mean()), nulls=nulls, direction=direction)
        first = next((one for one in readings.values() if one.value is not None), None)
        if first is not None:
            first.pictures = {"cosines": drawn}
        return readings

    def _unscored(self, between: str, within: str) -> dict[str, Reading]:
        return {
            "between": Reading(value=None, unscored=between, direction="lower"),
            "within": Reading(value=None, unscored=within, direction="none"),
        }


def _build(_: MetricContext) -> Metric:
    return FeatureCosines()


METRICS = [
    MetricSpec(
        name="feature-cosines",
        version=1,
        summary="mean |cosine| of two features of different classes and of the same, from a fixed sample of 128",
        direction="none",
        needs=("features", "labels", "index"),
        build=_build,
        untrained=True,
        reference=Reference(
            title="Yu et al., Learning Diverse and Discriminative Representations via the Principle of MCR2",
            url="https://arxiv.org/abs/2006.08558",
        ),
    )
]

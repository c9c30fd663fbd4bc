"""Rate reduction: how much more room the features take together than class by class, the quantity of MCR2.

With unit-norm features in the rows of Z (m, D), Z_j the m_j of class j, natural logarithms, eps2 = 0.5 the squared
distortion (Yu, Chan, You, Song, Ma, arXiv 2006.08558, section 2):

    R       = 1/2 logdet(I + D / (m eps2) Z^T Z)                            how much room all features take
    R^c     = sum_j m_j / (2 m) logdet(I + D / (m_j eps2) Z_j^T Z_j)        how much they take class by class
    Delta R = R - R^c

Unit norm is part of the definition, for Delta R grows with the features' scale. `share` is Delta R over the largest
that k balanced classes can have in width D,

    D/2 log(1 + 1/eps2) - D/(2k) log(1 + k/eps2),

which is reached where their subspaces are orthogonal, D/k wide each, and evenly filled. It supposes as many samples in
each class, enough of them to fill its subspace, and k <= D; unequal classes reach less.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from whitebench import MetricSpec, Reference
from whitebench_metrics.class_grams import ClassGram, ClassGrams, Number

if TYPE_CHECKING:
    from torchmetrics import Metric

    from whitebench import MetricContext

EPS2 = 0.5


def balanced_optimum(width: int, classes: int) -> float:
    """Return the largest Delta R of `classes` balanced classes in `width` dimensions, in nats."""
    return width / 2 * math.log1p(1 / EPS2) - width / (2 * classes) * math.log1p(classes / EPS2)


class RateReduction(ClassGrams):
    """Delta R and the two rates that it is made of."""

    parts: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "share": {"direction": "higher", "unit": ""},
        "delta": {"direction": "higher"},
        "rate": {"direction": "none"},
        "class-rate": {"direction": "none"},  # small where classes are told apart, and where all features are one
    }

    def measure(self, classes: Sequence[ClassGram]) -> Mapping[str, Number]:
        """Return `share` in [0, 1], then `delta`, `rate` and `class-rate` in nats."""
        width, total = classes[0].width, sum(one.count for one in classes)
        rate = sum(classes[1:], start=classes[0]).half_log_det(width / (total * EPS2))
        class_rate = math.fsum(one.count / total * one.half_log_det(width / (one.count * EPS2)) for one in classes)
        delta = rate - class_rate
        share: Number
        if len(classes) == 1:
            share = "samples of one class alone were seen, and nothing to tell it from"
        elif len(classes) > width:
            share = f"{len(classes)} classes have no room for orthogonal subspaces in width {width}"
        else:
            share = delta / balanced_optimum(width, len(classes))
        return {"share": share, "delta": delta, "rate": rate, "class-rate": class_rate}


def _build(context: MetricContext) -> Metric:
    return RateReduction(context.classes)


METRICS = [
    MetricSpec(
        name="rate-reduction",
        version=1,
        summary="how much more room features take together than class by class: MCR2's Delta R, share of the best",
        direction="higher",
        unit="nats",
        needs=("features", "labels", "index"),
        build=_build,
        untrained=True,
        reference=Reference(
            title="Yu et al., Learning Diverse and Discriminative Representations via the Principle of MCR2",
            url="https://arxiv.org/abs/2006.08558",
        ),
    )
]

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

import torch
from torch import Tensor

from whitebench import MetricSpec, Picture, Reference
from whitebench_metrics.class_grams import ClassGram, ClassGrams, Number, numbered

if TYPE_CHECKING:
    from torchmetrics import Metric

    from whitebench import MetricContext

EPS2 = 0.5


def balanced_optimum(width: int, classes: int) -> float:
    """Return the largest Delta R of `classes` balanced classes in `width` dimensions, in nats."""
    return width / 2 * math.log1p(1 / EPS2) - width / (2 * classes) * math.log1p(classes / EPS2)


def volume(gram: ClassGram) -> Tensor:
    """Return R of the first 0, 1, .. D directions of these features in nats, (D + 1,): half the log of a volume.

    log det is the sum over directions of log(1 + D lambda / (m eps2)), lambda the energy that lies in each: a box's
    volume from its sides.
    """
    energy_X = gram.spectrum[0].square()
    sides_D = torch.nn.functional.pad(energy_X, (0, gram.width - len(energy_X)))
    return _built_up(gram.width / (gram.count * EPS2) * sides_D)


def even_volume(width: int, directions: int) -> Tensor:
    """Return the same of unit features whose energy is even over some of the directions, (D + 1,)."""
    sides_D = torch.zeros(width, dtype=torch.float64)
    sides_D[:directions] = width / (directions * EPS2)
    return _built_up(sides_D)


def _built_up(sides_D: Tensor) -> Tensor:
    return torch.nn.functional.pad((sides_D.log1p() / 2).cumsum(dim=0), (1, 0))


class RateReduction(ClassGrams):
    """Delta R and the two rates that it is made of."""

    parts: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "share": {"direction": "higher", "unit": ""},
        "delta": {"direction": "higher"},
        "rate": {"direction": "none"},
        "class-rate": {"direction": "none"},  # small where classes are told apart, and where all features are one
    }

    def draw(
        self, classes: Mapping[int, ClassGram], nulls: Mapping[str, Sequence[ClassGram]]
    ) -> Mapping[str, dict[str, Picture]]:
        """Return how the volume that log det measures builds up: uncorrelated features fill it, correlated do not."""
        both = {"features": list(classes.values()), **nulls}
        curves = {name: volume(sum(these[1:], start=these[0])) for name, these in both.items()}
        largest = max(classes.values(), key=lambda one: one.count)
        curves |= {
            "features of one class": volume(largest),
            "uncorrelated: as much in every direction": even_volume(largest.width, largest.width),
            "correlated: all in one direction": even_volume(largest.width, 1),
        }
        drawn = Picture(
            kind="lines",
            title="log det as a volume: R from the leading directions alone",
            x="directions",
            y="nats",
            series={name: numbered(curve) for name, curve in curves.items()},
        )
        return {"rate": {"volume": drawn}}

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

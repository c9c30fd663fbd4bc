"""The three principles of MCR2 (Yu et al., arXiv 2006.08558, section 1) as measures of unit-norm features by class.

between-class discriminative    features of different classes lie in subspaces that are incoherent: the cosines of the
                                principal angles between two classes' subspaces, each that of its leading singular
                                vectors which carry 95 % of its energy; `between-mean` is the mean over pairs of classes
                                of the mean cosine, `between-largest` that of the largest
within-class compressible       each class lies in a subspace of few dimensions: `within-rank` is the mean over classes
                                of the effective rank of its features, exp(-sum_i p_i log p_i) with p_i their singular
                                values over the sum (Roy & Vetterli, "The effective rank", EUSIPCO 2007)
maximally diverse               and fills it: `diversity` is the mean of the effective rank over the room that there is,
                                min(D / k, m_j) for k classes of m_j samples. 1 is its part; random features take more

`collapse` is the share of classes with an effective rank below 1.5, of those with two samples or more. It is to be
read beside accuracy: a class in one direction is collapsed where classes are told apart, and unlearnt where not.

Legend: D width of the features, X the smaller of D and a class's samples, R directions of a subspace, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from whitebench import MetricSpec, Picture, Reference
from whitebench_metrics.class_grams import ClassGram, ClassGrams, Number, numbered

if TYPE_CHECKING:
    from torchmetrics import Metric

    from whitebench import MetricContext

ENERGY = 0.95
COLLAPSED = 1.5
MOST_PAIRS = 5000
"""Of more pairs of classes a fixed draw is measured; 100 classes have 4950."""
MOST_ROWS = 64
"""Classes in one picture."""


def effective_rank(singular_X: Tensor) -> float:
    """Return exp of the entropy of the normalised singular values; 0 where all are zero."""
    total = singular_X.sum()
    return float(torch.special.entr(singular_X / total).sum().exp()) if total > 0 else 0.0


def subspace(one: ClassGram) -> Tensor:
    """Return the leading singular vectors that carry 95 % of a class's energy, (D, R)."""
    singular_X, directions_DX = one.spectrum
    energy_X = singular_X.square().cumsum(0)
    # In exact numbers 19 of 20 equal directions are enough, whatever the sums round to.
    rank = int((energy_X < ENERGY * energy_X[-1] * (1 - 1e-9)).sum()) + 1 if energy_X[-1] > 0 else 0
    return directions_DX[:, :rank]


def cosines(one_DR: Tensor, other_DR: Tensor) -> Tensor:
    """Return the cosines of the principal angles between two subspaces, the largest first."""
    found: Tensor = torch.linalg.svdvals(one_DR.T @ other_DR).clamp(max=1.0)
    return found


class Principles(ClassGrams):
    """The three principles, from the classes' Gram matrices alone."""

    parts: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "between-mean": {"direction": "lower"},
        "between-largest": {"direction": "lower"},
        "within-rank": {"direction": "none"},
        "diversity": {"direction": "none"},  # 1 is best: random features have more
        "collapse": {"direction": "lower", "unit": "share"},
    }

    def measure(self, classes: Sequence[ClassGram]) -> Mapping[str, Number]:
        """Return the five quantities; cosines in [0, 1], ranks in dimensions, shares in [0, 1]."""
        ranks = [effective_rank(one.spectrum[0]) for one in classes]
        room = [min(one.width / len(classes), one.count) for one in classes]
        judged = [rank for rank, one in zip(ranks, classes, strict=True) if one.count > 1]
        means, largest = [], []
        for found in _between([subspace(one) for one in classes]):
            means.append(float(found.mean()))
            largest.append(float(found[0]))
        alone = "there are no two classes with features other than zero"
        return {
            "between-mean": sum(means) / len(means) if means else alone,
            "between-largest": sum(largest) / len(largest) if largest else alone,
            "within-rank": sum(ranks) / len(ranks),
            "diversity": sum(rank / most for rank, most in zip(ranks, room, strict=True)) / len(ranks),
            "collapse": sum(rank < COLLAPSED for rank in judged) / len(judged)
            if judged
            else "no class has two samples",
        }

    def draw(
        self, classes: Mapping[int, ClassGram], nulls: Mapping[str, Sequence[ClassGram]]
    ) -> Mapping[str, dict[str, Picture]]:
        """Return how the classes' energy is spread, and the cosines between all pairs where classes are few."""
        curves_CD = torch.stack([_energy(one) for one in classes.values()])
        by_rank_C = torch.tensor([effective_rank(one.spectrum[0]) for one in classes.values()]).argsort()
        curves = {
            "mean over classes": curves_CD.mean(dim=0),
            "class of lowest rank": curves_CD[by_rank_C[0]],
            "class of highest rank": curves_CD[by_rank_C[-1]],
            **{name: torch.stack([_energy(one) for one in null]).mean(dim=0) for name, null in nulls.items()},
        }
        drawn = Picture(
            kind="lines",
            title="energy of a class's features in its leading directions",
            x="directions",
            y="share of the energy",
            series={name: numbered(values_D, first=1) for name, values_D in curves.items()},
        )
        pictures = {"within-rank": {"energy": drawn}}
        if 1 < len(classes) <= MOST_ROWS:
            tables = {
                "features": list(classes.values()),
                **{name: null for name, null in nulls.items() if len(null) > 1},
            }
            drawn = Picture(
                kind="matrix",
                title="mean cosine of the principal angles between two classes",
                x="class",
                y="class",
                series={name: _table(these) for name, these in tables.items()},
            )
            pictures["between-mean"] = {"angles": drawn}
        return pictures


def _between(subspaces: Sequence[Tensor]) -> Iterator[Tensor]:
    """Yield the cosines of each pair of subspaces, or of a fixed draw of the pairs."""
    pairs = list(combinations([one for one in subspaces if one.shape[1]], 2))
    if len(pairs) > MOST_PAIRS:
        order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0))
        pairs = [pairs[place] for place in order[:MOST_PAIRS].tolist()]
    return (cosines(one, other) for one, other in pairs)


def _table(classes: Sequence[ClassGram]) -> Tensor:
    subspaces = [subspace(one) for one in classes]
    table_CC = torch.eye(len(classes), dtype=torch.float64)
    for i, j in combinations(range(len(classes)), 2):
        if subspaces[i].shape[1] and subspaces[j].shape[1]:
            table_CC[i, j] = table_CC[j, i] = cosines(subspaces[i], subspaces[j]).mean()
    return table_CC


def _energy(one: ClassGram) -> Tensor:
    """Return the share of the energy in the leading 1 .. D directions, (D,)."""
    energy_X = one.spectrum[0].square().cumsum(0)
    return F.pad(energy_X / energy_X[-1].clamp(min=1e-30), (0, one.width - len(energy_X)), value=1.0)


def _build(context: MetricContext) -> Metric:
    return Principles(context.classes)


METRICS = [
    MetricSpec(
        name="principles",
        version=1,
        summary="MCR2's three: classes apart (cosines), each of low rank, each filling its part; and how many collapse",
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

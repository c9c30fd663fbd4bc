"""Nearest subspace: a sample is of the class whose subspace leaves least of it over.

The read-out of the MCR2 paper (Yu et al., arXiv 2006.08558). With unit-norm features z and V_j (D, r) the r leading
right singular vectors of class j's features, not centred:

    residual_j(z) = || z - V_j V_j^T z ||^2 = ||z||^2 - || V_j^T z ||^2
    logit_j(z)    = - residual_j(z) / (2 s),      s = mean over training samples of their own class's residual / D

so that the class is the nearest, and the logits are those of Gaussian noise of variance s around each subspace, as
likely as the training samples make it. One pass over the training split sums the classes' Gram matrices, which hold all
that this needs.

B batch, C classes, D width of the features, R directions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from whitebench import ReadoutSpec, Reference, WhitebenchError
from whitebench_objectives.mcr2 import class_grams

_LEAST_VARIANCE = 1e-6
"""Of a residual per dimension: classes that lie in their subspaces exactly would make every logit infinite."""


class NearestSubspace(Metric):
    """The classes' Gram matrices of unit-norm features, and the subspaces that they span."""

    full_state_update = False
    grams: Tensor  # (C, D, D)

    def __init__(self, config: NearestSubspaceOptions, classes: int, width: int) -> None:
        super().__init__()
        self.config = config
        zeros = torch.zeros(classes, width, width, dtype=torch.float64)
        self.add_state("grams", zeros, dist_reduce_fx="sum")

    def update(self, features_BD: Tensor, labels_B: Tensor) -> None:
        """Add a batch of the training split."""
        unit_BD = F.normalize(features_BD.double(), dim=-1)
        self.grams += class_grams(unit_BD, labels_B, len(self.grams))

    def compute(self) -> Callable[[Tensor], Tensor]:
        """Return the function from features (B, D) to logits (B, C), float64."""
        values_CD, vectors_CDD = torch.linalg.eigh(self.grams)  # ascending
        rank = min(self.config.components, values_CD.shape[-1] - 1)
        left_over = values_CD[:, :-rank].clamp(min=0).sum() / values_CD.sum()
        variance = max(float(left_over) / values_CD.shape[-1], _LEAST_VARIANCE)
        bases_CDR = vectors_CDD[:, :, -rank:]

        def logits_of(features_BD: Tensor) -> Tensor:
            unit_BD = F.normalize(features_BD.double(), dim=-1)
            within_CBR = unit_BD @ bases_CDR
            residuals_BC: Tensor = unit_BD.square().sum(dim=-1, keepdim=True) - within_CBR.square().sum(dim=-1).T
            logits_BC: Tensor = -residuals_BC / (2 * variance)
            return logits_BC

        return logits_of


@dataclass(frozen=True, kw_only=True)
class NearestSubspaceOptions:
    """How many directions a class's subspace has."""

    components: int = 12
    """Of each class, one less than the width at most. On digits as they are 10 to 15 are best, and 30 worse."""

    def __post_init__(self) -> None:
        if self.components < 1:
            raise WhitebenchError(f"nearest-subspace[components={self.components}]: must be 1 or more")


NEAREST_SUBSPACE = ReadoutSpec(
    name="nearest-subspace",
    version=1,
    summary="the class whose subspace of the training features leaves least of a sample over",
    build=NearestSubspace,
    config=NearestSubspaceOptions,
    reference=Reference(
        title="Learning Diverse and Discriminative Representations via the Principle of Maximal Coding Rate Reduction",
        url="https://arxiv.org/abs/2006.08558",
    ),
)

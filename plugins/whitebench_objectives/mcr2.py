"""MCR2: maximal coding rate reduction (Yu, Chan, You, Song, Ma, arXiv 2006.08558).

Features should span as much as they can together and as little as they can within each class. With unit-norm
features as rows of Z (B, D), Z_j those of class j, B_j of them, natural logarithms:

    R(Z)      = 1/2 log det( I + gamma1 D / (B eps2) Z^T Z )
    R_c(Z, y) = sum_j B_j / (2 B) log det( I + D / (B_j eps2) Z_j^T Z_j )
    loss      = R_c - gamma2 R

Delta R = R - R_c grows with the features' scale, so the unit norm is part of the definition: it stands in here.
eps2 is the squared distortion. A negative loss is normal: for k balanced classes the least is
(D / 2k) log(1 + k / eps2) - (D / 2) log(1 + 1 / eps2).

Classes come from the largest entry of each target row, so that label smoothing changes nothing. Only the classes' Gram
matrices (C, D, D) are made, never a B x B membership matrix. Sums and Cholesky factors are float32 or finer, whatever
the precision around them; batched LU (torch.logdet) gave NaN on some CPUs.

B batch, C classes, D width of the features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whitebench import ObjectiveSpec, Reference, WhitebenchError

_LEAST_NORM = 1e-8
"""A feature vector shorter than this is not blown up to unit norm: zero stays zero."""


def class_grams(features_BD: Tensor, labels_B: Tensor, classes: int) -> Tensor:
    """Return the Gram matrix of each class's features, (C, D, D); zero for a class without samples."""
    order_B = labels_B.argsort(stable=True)
    sizes = torch.bincount(labels_B, minlength=classes).tolist()
    return torch.stack([part.T @ part for part in torch.split(features_BD[order_B], sizes)])


def log_volume(grams: Tensor) -> Tensor:
    """Return log det(I + G) for positive semidefinite G, (…, D, D) -> (…), from Cholesky factors."""
    eye = torch.eye(grams.shape[-1], dtype=grams.dtype, device=grams.device)
    factors: Tensor = torch.linalg.cholesky(eye + grams)
    return 2 * factors.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)


class MCR2(nn.Module):
    """R_c - gamma2 R of a batch, in nats."""

    def __init__(self, config: MCR2Options, classes: int, _width: int) -> None:
        super().__init__()
        self.config = config
        self.classes = classes

    def forward(self, features_BD: Tensor, targets_BC: Tensor) -> Tensor:
        """Return the loss, a scalar in float32 or the features' own precision where that is finer."""
        precision = torch.promote_types(features_BD.dtype, torch.float32)
        labels_B = targets_BC.argmax(dim=-1)
        with torch.autocast(features_BD.device.type, enabled=False):
            unit_BD = F.normalize(features_BD.to(precision), dim=-1, eps=_LEAST_NORM)
            grams_CDD = class_grams(unit_BD, labels_B, self.classes)
            counts_C = torch.bincount(labels_B, minlength=self.classes).to(precision)
            return self._loss(grams_CDD, counts_C)

    def _loss(self, grams_CDD: Tensor, counts_C: Tensor) -> Tensor:
        D, count, eps2 = grams_CDD.shape[-1], counts_C.sum(), self.config.eps2
        whole = log_volume(self.config.gamma1 * D / (count * eps2) * grams_CDD.sum(dim=0)) / 2
        # A class without samples has no Gram either: its volume is log det(I) = 0, whatever it is divided by.
        scales_C11 = (D / (counts_C.clamp(min=1) * eps2))[:, None, None]
        within = (counts_C / (2 * count) * log_volume(scales_C11 * grams_CDD)).sum()
        return within - self.config.gamma2 * whole


@dataclass(frozen=True, kw_only=True)
class MCR2Options:
    """The paper's three constants."""

    eps2: float = 0.5
    """The distortion, squared."""
    gamma1: float = 1.0
    """Weight of the features' spread within R."""
    gamma2: float = 1.0
    """Weight of R in the loss."""

    def __post_init__(self) -> None:
        for name in ("eps2", "gamma1", "gamma2"):
            if getattr(self, name) <= 0:
                raise WhitebenchError(f"mcr2[{name}={getattr(self, name)}]: must be above 0, e.g. {name}=0.5")


MCR2_SPEC = ObjectiveSpec(
    name="mcr2",
    version=1,
    summary="Maximal coding rate reduction of unit-norm features by class, in nats",
    needs=("features", "targets"),
    build=MCR2,
    config=MCR2Options,
    readout="nearest-subspace",
    is_additive=False,
    reference=Reference(
        title="Learning Diverse and Discriminative Representations via the Principle of Maximal Coding Rate Reduction",
        url="https://arxiv.org/abs/2006.08558",
    ),
)

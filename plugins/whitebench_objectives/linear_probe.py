"""Linear probe: the linear classifier of Gaussian classes that share one covariance (Fisher 1936).

With mean mu_j and share pi_j of class j, and S the covariance within classes over the training split (Hastie,
Tibshirani, Friedman, "The Elements of Statistical Learning", section 4.3, equation 4.10):

    logit_j(z) = z^T S^-1 mu_j - 1/2 mu_j^T S^-1 mu_j + log pi_j,     S = within-class scatter / N + ridge tr / D I

Unlike a probe that is trained by gradient descent it has no learning rate to choose, is fitted in one pass and merges
exactly over processes: its states are sums. For balanced classes its directions are those of least squares.

B batch, N samples, C classes, D width of the features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics import Metric

from whitebench import ReadoutSpec, Reference, WhitebenchError

_LEAST_VARIANCE = 1e-12
"""Added to the covariance, so that classes that have collapsed to points still have one."""


class LinearProbe(Metric):
    """Counts, sums and the Gram matrix of the features, and the classifier that they make."""

    full_state_update = False
    counts: Tensor  # (C,)
    sums: Tensor  # (C, D)
    gram: Tensor  # (D, D)

    def __init__(self, config: LinearProbeOptions, classes: int, width: int) -> None:
        super().__init__()
        self.config = config
        self.add_state("counts", torch.zeros(classes, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("sums", torch.zeros(classes, width, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("gram", torch.zeros(width, width, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, features_BD: Tensor, labels_B: Tensor) -> None:
        """Add a batch of the training split."""
        exact_BD = features_BD.double()
        self.counts += torch.bincount(labels_B, minlength=len(self.counts))
        self.sums.index_add_(0, labels_B, exact_BD)
        self.gram += exact_BD.T @ exact_BD

    def compute(self) -> Callable[[Tensor], Tensor]:
        """Return the function from features (B, D) to logits (B, C), float64; an unseen class has no chance."""
        means_CD = self.sums / self.counts.clamp(min=1)[:, None]
        count, width = self.counts.sum(), self.gram.shape[-1]
        within_DD = (self.gram - means_CD.T @ self.sums) / count
        floor = self.config.ridge * within_DD.diagonal().mean().clamp(min=0) + _LEAST_VARIANCE
        factor_DD = torch.linalg.cholesky(
            within_DD + floor * torch.eye(width, dtype=torch.float64, device=floor.device)
        )
        weights_DC = torch.cholesky_solve(means_CD.T, factor_DD)
        bias_C = (self.counts / count).log() - (means_CD.T * weights_DC).sum(dim=0) / 2

        def logits_of(features_BD: Tensor) -> Tensor:
            return features_BD.double() @ weights_DC + bias_C

        return logits_of


@dataclass(frozen=True, kw_only=True)
class LinearProbeOptions:
    """How much the covariance is evened out."""

    ridge: float = 1e-3
    """Added to every direction's variance, in mean variances: directions that never vary would count without end."""

    def __post_init__(self) -> None:
        if self.ridge <= 0:
            raise WhitebenchError(f"linear-probe[ridge={self.ridge}]: must be above 0, e.g. ridge=0.001")


LINEAR_PROBE = ReadoutSpec(
    name="linear-probe",
    version=1,
    summary="the linear classifier of Gaussian classes with one covariance, on frozen features",
    build=LinearProbe,
    config=LinearProbeOptions,
    reference=Reference(
        title="The Elements of Statistical Learning, section 4.3", url="https://hastie.su.domains/ElemStatLearn/"
    ),
)

"""The smallest Frobenius norm of a symmetric positive semidefinite W, such as a tied projection's W = U^T U.

    min_{W >= 0} ||W||_F^2 / 2   subject to   Delta_l^T W z_l >= 1

For any a >= 0 and feasible W, 1^T a <= <A*(a), W> <= ||[A*(a)]_+|| ||W||, with [.]_+ the positive semidefinite part of
the symmetric one: it stands for the dual norm. No semidefinite W separates where that part is nothing, which happens
where another W does: with two tokens that select each other, (x_u - x_s)^T W x_s + (x_s - x_u)^T W x_u < 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from whitebench_svm import frobenius, interior
from whitebench_svm.bounds import CANCELS, Bounds, prove
from whitebench_svm.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Callable


LARGE = 1e-3
"""Of the largest multiplier."""
NEAR = 1e-6
"""Of the terms' size: what cancels so far will probably cancel."""


def dual_norm(weight_BDD: Tensor) -> Tensor:
    """Return the Frobenius norm of the positive semidefinite part: (B,)."""
    norm_B: Tensor = torch.linalg.eigvalsh(interior.symmetric(weight_BDD)).clamp_min(0).norm(dim=-1)
    return norm_B


def solve(problem: Problem, _: Tensor) -> tuple[Tensor, Tensor]:
    """Return multipliers (B, N), which cancel where no W is found, and W (B, D, D).

    The smallest Frobenius norm without the condition should be 1.
    """
    weight_BDD, multipliers_BN = interior.solve(SemidefiniteForm(problem=problem))
    # Rays at the border of the cones are only neared. Tokens that select each other in a circle make one of equal
    # parts, and where no symmetric W separates, least squares find one.
    large_BN = multipliers_BN > LARGE * multipliers_BN.amax(dim=1, keepdim=True)
    for ray_BN in (multipliers_BN * large_BN, large_BN.double()):
        multipliers_BN = torch.where(_cancels(problem, ray_BN)[:, None], ray_BN, multipliers_BN)
    is_near_B = _cancels(problem, multipliers_BN, NEAR) & ~_cancels(problem, multipliers_BN)
    for item in is_near_B.nonzero()[:, 0].tolist():
        symmetric_XDD = interior.symmetric(problem.features(item))
        multipliers_BN[item, problem.mask[item]] = frobenius.least_squares(symmetric_XDD.flatten(1))
    return multipliers_BN, weight_BDD


def _cancels(problem: Problem, multipliers_BN: Tensor, limit: float = CANCELS / 2) -> Tensor:
    """Return where the semidefinite part of A*(a) is nothing beside its terms: (B,)."""
    terms_B = (multipliers_BN * problem.sizes()).sum(dim=1)
    return (dual_norm(problem.combine(multipliers_BN)) <= limit * terms_B) & (terms_B > 0)


@dataclass(frozen=True, kw_only=True)
class SemidefiniteForm:
    """X is W."""

    problem: Problem
    trace_cost: float = 0.0
    curvature: float = 1.0

    @property
    def mask(self) -> Tensor:
        """Which constraints there are: (B, N)."""
        return self.problem.mask

    @property
    def side(self) -> int:
        """Side of X, D."""
        return self.problem.differences.shape[2]

    def apply(self, X_BDD: Tensor) -> Tensor:
        """Return A(X): (B, N)."""
        return self.problem.margins(X_BDD).masked_fill(~self.mask, 0)

    def combine(self, multipliers_BN: Tensor) -> Tensor:
        """Return the symmetric part of A*(a): (B, D, D)."""
        return interior.symmetric(self.problem.combine(multipliers_BN))

    def linearise(self, scaling_BDD: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Return the matrix of a -> A K(S A*(a) S), (B, N, N), and K = (I + S (x) S)^-1.

        In the basis of S both scale each entry of a matrix.
        """
        values_BD, basis_BDD = torch.linalg.eigh(interior.usable(scaling_BDD))
        values_BD = values_BD.clamp_min(0)
        products_BDD = values_BD[:, :, None] * values_BD[:, None, :]
        left_BND, right_BND = self.problem.differences @ basis_BDD, self.problem.queries @ basis_BDD
        rows, columns = torch.triu_indices(self.side, self.side, device=scaling_BDD.device)
        features_BNX = left_BND[:, :, rows] * right_BND[:, :, columns]
        features_BNX += left_BND[:, :, columns] * right_BND[:, :, rows]
        # Entries off the diagonal stand for two.
        scales_BX = (products_BDD / (1 + products_BDD))[:, rows, columns] / torch.where(rows == columns, 4, 2)
        features_BNX *= scales_BX.sqrt()[:, None]

        def resolve(matrix_BDD: Tensor) -> Tensor:
            resolved_BDD: Tensor = (
                basis_BDD @ (basis_BDD.mT @ matrix_BDD @ basis_BDD / (1 + products_BDD)) @ basis_BDD.mT
            )
            return resolved_BDD

        return features_BNX @ features_BNX.mT, resolve

    def items(self, which_X: Tensor) -> SemidefiniteForm:
        """Return some of the batch."""
        return SemidefiniteForm(problem=self.problem.items(which_X))

    def prove(self, X_BDD: Tensor, multipliers_BN: Tensor) -> Bounds:
        """Return what X and multipliers prove."""
        return prove(self.problem, multipliers_BN, X_BDD, frobenius.norm, dual_norm)

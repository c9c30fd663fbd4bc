"""The smallest nuclear norm ||W||_*, whose dual is the largest singular value.

    ||W||_* = min (tr P + tr Q) / 2   over   X = [[P, W], [W^T, Q]] >= 0

makes it a semidefinite programme in X (Fazel, Hindi & Boyd, "A rank minimization heuristic", ACC 2001). What separates
at all separates in every norm, so that Frobenius's has told already.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from whitebench_svm import interior
from whitebench_svm.bounds import Bounds, prove
from whitebench_svm.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Callable


def norm(weight_BDE: Tensor) -> Tensor:
    """Return the sum of the singular values: (B,)."""
    norm_B: Tensor = torch.linalg.svdvals(weight_BDE).sum(dim=-1)
    return norm_B


def dual_norm(weight_BDE: Tensor) -> Tensor:
    """Return the largest singular value: (B,)."""
    norm_B: Tensor = torch.linalg.svdvals(weight_BDE)[:, 0]
    return norm_B


def solve(problem: Problem, _: Tensor) -> tuple[Tensor, Tensor]:
    """Return multipliers (B, N) and W (B, D, E) of problems whose smallest Frobenius norm is 1."""
    D = problem.differences.shape[2]
    X_BMM, multipliers_BN = interior.solve(NuclearForm(problem=problem))
    return multipliers_BN, X_BMM[:, :D, D:]


@dataclass(frozen=True, kw_only=True)
class NuclearForm:
    """X holds W in its upper right corner."""

    problem: Problem
    trace_cost: float = 0.5
    curvature: float = 0.0

    @property
    def mask(self) -> Tensor:
        """Which constraints there are: (B, N)."""
        return self.problem.mask

    @property
    def side(self) -> int:
        """Side of X, D + E."""
        return self.problem.differences.shape[2] + self.problem.queries.shape[2]

    def apply(self, X_BMM: Tensor) -> Tensor:
        """Return A(X): (B, N)."""
        D = self.problem.differences.shape[2]
        return self.problem.margins(X_BMM[:, :D, D:]).masked_fill(~self.mask, 0)

    def combine(self, multipliers_BN: Tensor) -> Tensor:
        """Return A*(a), half in each corner: (B, M, M)."""
        D = self.problem.differences.shape[2]
        combined_BDE = self.problem.combine(multipliers_BN) / 2
        X_BMM = combined_BDE.new_zeros(len(combined_BDE), self.side, self.side)
        X_BMM[:, :D, D:] = combined_BDE
        X_BMM[:, D:, :D] = combined_BDE.mT
        return X_BMM

    def linearise(self, scaling_BMM: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Return the matrix of a -> A(S A*(a) S): (B, N, N), and the identity."""
        differences_BND, queries_BNE = self.problem.differences, self.problem.queries
        D = differences_BND.shape[2]
        across_BNN = differences_BND @ scaling_BMM[:, :D, D:] @ queries_BNE.mT
        system_BNN = (differences_BND @ scaling_BMM[:, :D, :D] @ differences_BND.mT).mul_(
            queries_BNE @ scaling_BMM[:, D:, D:] @ queries_BNE.mT
        )
        return system_BNN.add_(across_BNN * across_BNN.mT).mul_(0.5), lambda matrix_BMM: matrix_BMM

    def items(self, which_X: Tensor) -> NuclearForm:
        """Return some of the batch."""
        return NuclearForm(problem=self.problem.items(which_X))

    def prove(self, X_BMM: Tensor, multipliers_BN: Tensor) -> Bounds:
        """Return what X's corner and multipliers prove."""
        D = self.problem.differences.shape[2]
        return prove(self.problem, multipliers_BN, X_BMM[:, :D, D:], norm, dual_norm)

"""The smallest Frobenius norm: a quadratic programme in the multipliers, whose blocks are exchanged until they fit.

    max_{a >= 0}  1^T a - a^T G a / 2,      G = A A*,      W = A*(a)

Block principal pivoting (Kim & Park, "Fast Nonnegative Matrix Factorization: An Active-Set-Like Method and
Comparisons", SIAM J. Sci. Comput. 33(6), 2011): with F the multipliers that may differ from zero, solve G_FF a_F = 1;
those of F that come out negative leave it, the constraints that W misses join it. G is singular where constraints are
redundant, so each solution c is the centre of another step,

    max_{a >= 0}  1^T a - a^T G a / 2 - sum_l ridge_l (a_l - c_l)^2 / 2,      ridge_l = 1e-12 G_ll,

whose fixed point has no ridge in it. It takes some ten rounds, or, where there are many more constraints than
dimensions, turns in circles. Then, and where the answer is no proof, the nonnegative least squares of Lawson & Hanson,

    min_{b >= 0}  ||A*(b)||^2 + (1^T b - 1)^2,

take their time, exact also where nothing separates: A*(b) = 0. Faster than libsvm on the Gram matrix, whose answers are
4e-7 off where these are 1e-12 (tests/perf/svm.py).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from whitebench_svm.bounds import CANCELS
from whitebench_svm.problem import Problem

RIDGE = 1e-12
FIRST_SHARE = 0.3
"""Of the constraints, to begin with: random data has .14 to .5 of them as supports."""
ROUNDS = 40
"""Random data takes 5 to 15; what takes more turns in circles."""
STEPS = 6
"""Proximal ones; the first is nearly always exact."""
GOAL = 1e-10
"""Relative gap at which no further step is taken."""
ENOUGH = 1e-8
"""Relative gap below which nonnegative least squares do no better."""


def norm(weight_BDE: Tensor) -> Tensor:
    """Return ||W||_F, its own dual: (B,)."""
    norm_B: Tensor = weight_BDE.flatten(1).norm(dim=1)
    return norm_B


def solve(problem: Problem, guess_BDE: Tensor) -> tuple[Tensor, Tensor]:
    """Return multipliers (B, N) >= 0 and W (B, D, E), each up to scale; multipliers that cancel where none is."""
    multipliers_BN = _multipliers(problem, guess_BDE)
    return multipliers_BN, problem.combine(multipliers_BN)


def _multipliers(problem: Problem, guess_BDE: Tensor) -> Tensor:
    multipliers_BN = torch.zeros_like(problem.sizes())
    is_proved_B = torch.zeros(len(problem), dtype=torch.bool, device=multipliers_BN.device)
    open_X = torch.arange(len(problem), device=multipliers_BN.device)
    exchange = _Exchange(problem, guess_BDE)
    for _ in range(ROUNDS):
        is_settled_X, is_proved_B[open_X] = exchange.advance()
        multipliers_BN[open_X] = exchange.multipliers
        if bool(is_settled_X.any()):
            open_X = open_X[~is_settled_X]
            if len(open_X) == 0:
                break
            exchange.keep(~is_settled_X)
    for item in (~is_proved_B).nonzero()[:, 0].tolist():
        multipliers_BN[item] = 0
        multipliers_BN[item, problem.mask[item]] = least_squares(problem.features(item).flatten(1))
    return multipliers_BN


def least_squares(features_NX: Tensor) -> Tensor:
    """Return multipliers (N,), up to scale, by nonnegative least squares, one constraint at a time; zero if in vain.

    A second time with the distance found as the unit, which the first loses digits of where it is small.
    """
    shares_N = _nearest(features_NX)
    distance = (features_NX.T @ shares_N).norm() / shares_N.sum()
    longest = features_NX.norm(dim=1).amax()
    return _nearest(features_NX / distance) if float(distance) > CANCELS * float(longest) else shares_N


def _nearest(features_NX: Tensor) -> Tensor:
    system_XN = np.vstack([features_NX.T.cpu().numpy(), np.ones(len(features_NX))])
    target_X = np.append(np.zeros(len(system_XN) - 1), 1.0)
    try:
        from scipy.optimize import nnls  # rarely needed, and every fit that measures a margin would wait for it

        solution_N, _ = nnls(system_XN, target_X, maxiter=10 * len(features_NX))
    except RuntimeError:  # more iterations than that
        solution_N = np.zeros(len(features_NX))
    return torch.from_numpy(solution_N).to(features_NX)


class _Exchange:
    """Block principal pivoting of a batch of problems that are not settled yet."""

    def __init__(self, problem: Problem, guess_BDE: Tensor) -> None:
        self.problem = problem
        self.sizes = problem.sizes()
        first_B = (FIRST_SHARE * problem.mask.sum(dim=1)).ceil()
        self.is_free = problem.hardest(guess_BDE, first_B)
        self.centre = torch.zeros_like(self.sizes)
        self.multipliers = torch.zeros_like(self.sizes)
        self.steps = torch.zeros_like(first_B)

    def keep(self, which_B: Tensor) -> None:
        """Go on with some of the batch."""
        self.problem = self.problem.items(which_B)
        for name in ("sizes", "is_free", "centre", "multipliers", "steps"):
            setattr(self, name, getattr(self, name)[which_B])

    def advance(self) -> tuple[Tensor, Tensor]:
        """Solve for the free multipliers, and exchange; return which problems are settled, and which proved: (B,)."""
        ridge_BN = RIDGE * self.sizes.square()
        free, places_BK = self.problem.restricted(self.is_free)
        solution_BK = _solved(free, ridge_BN.gather(1, places_BK), self.centre.gather(1, places_BK))
        weight_BDE = free.combine(solution_BK)
        solution_BN = self.problem.widened(solution_BK, places_BK)
        margins_BN = self.problem.margins(weight_BDE)

        missed_BN = 1 + ridge_BN * self.centre - margins_BN
        total_B1 = solution_BN.abs().sum(dim=1, keepdim=True)
        rounding_BN = 1e-13 * total_B1 * self.sizes * self.sizes.amax(dim=1, keepdim=True)
        is_wrong_BN = torch.where(self.is_free, solution_BN < 0, missed_BN > rounding_BN.clamp_min(1e-11))
        self.is_free = self.is_free ^ is_wrong_BN

        self.multipliers = solution_BN.clamp_min(0)
        fits_B = ~is_wrong_BN.any(dim=1)
        norm_B = norm(weight_BDE)
        gap_B = (norm_B.square() / (margins_BN.amin(dim=1) * solution_BN.sum(dim=1)) - 1).abs()
        cancelled_B = norm_B / (solution_BN * self.sizes).sum(dim=1)
        is_settled_B = fits_B & ((gap_B < GOAL) | (self.steps == STEPS))
        self.centre = torch.where(fits_B[:, None], self.multipliers, self.centre)
        self.steps = self.steps + fits_B
        return is_settled_B, is_settled_B & ((gap_B < ENOUGH) | (cancelled_B < CANCELS / 2))


def _solved(free: Problem, ridge_BK: Tensor, centre_BK: Tensor) -> Tensor:
    """Return the multipliers that meet every constraint exactly, whatever their sign: (B, K)."""
    system_BKK = free.gram()
    system_BKK.diagonal(dim1=1, dim2=2).add_(torch.where(free.mask, ridge_BK, 1))
    factor_BKK, _ = torch.linalg.cholesky_ex(system_BKK)
    target_BK = (1 + ridge_BK * centre_BK) * free.mask
    solution_BK: Tensor = torch.cholesky_solve(target_BK[..., None], factor_BKK)[..., 0]
    return solution_BK

"""A primal-dual interior-point method for a semidefinite matrix and rank-one constraints, batched.

    min_{X >= 0}  c tr X + q/2 ||X||_F^2   subject to   A(X)_l >= 1          (c, q) = (1/2, 0) or (0, 1)
    max_{a >= 0}  1^T a - q/2 ||X||_F^2    subject to   Z = c I + q X - A*(a) >= 0

Mehrotra's predictor and corrector along the direction of Nesterov & Todd (as in Toh, Todd & Tutuncu, "SDPT3", Optim.
Methods Softw. 11, 1999, section 2). With s = A(X) - 1, the scaling S = G G^T, G^-1 X G^-T = G^T Z G = diag(d), and
K(M) = (I + q S (x) S)^-1 M, a step solves

    (A K(S A*(da) S) + s/a da)  =  t/a - r_p - A K(G T G^T - S r_d S)

for N multipliers at a time. Started outside, at X = I: 13 to 20 iterations to a gap of 1e-9 on random data.

Legend: as in problem.py, and M the side of X.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from whitebench_svm.bounds import CANCELS

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from whitebench_svm.bounds import Bounds

ITERATIONS = 60
PATIENCE = 15
"""Iterations that may prove no more than the best, once something is proved."""
GOAL = 1e-9
"""Relative gap that is good enough."""
TINY = torch.finfo(torch.float64).tiny


class Form(Protocol):
    """What X is and how the constraints act on it."""

    @property
    def side(self) -> int:
        """Side of X."""

    @property
    def trace_cost(self) -> float:
        """What X's trace costs."""

    @property
    def curvature(self) -> float:
        """What half its squared norm costs."""

    @property
    def mask(self) -> Tensor:
        """Which constraints there are: (B, N)."""

    def apply(self, X_BMM: Tensor) -> Tensor:
        """Return A(X): (B, N)."""

    def combine(self, multipliers_BN: Tensor) -> Tensor:
        """Return A*(a), symmetric: (B, M, M)."""

    def linearise(self, scaling_BMM: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Return the matrix of a -> A K(S A*(a) S), (B, N, N), and K."""

    def items(self, which_X: Tensor) -> Self:
        """Return some of the batch."""

    def prove(self, X_BMM: Tensor, multipliers_BN: Tensor) -> Bounds:
        """Return what X and multipliers prove."""


@dataclass(frozen=True, kw_only=True)
class Iterate:
    """A point strictly inside the cones."""

    X: Tensor
    Z: Tensor
    multipliers: Tensor
    slack: Tensor
    """s, 1 where there is no constraint, as the multipliers are."""

    @classmethod
    def first(cls, form: Form) -> Iterate:
        """Return a point that meets no constraint and is far from every border."""
        ones_BN = torch.ones(form.mask.shape, dtype=torch.float64, device=form.mask.device)
        eye_BMM = torch.eye(form.side, dtype=torch.float64, device=form.mask.device).repeat(len(ones_BN), 1, 1)
        shares_BN = (ones_BN / form.mask.sum(dim=1, keepdim=True)).where(form.mask, 1)
        return cls(X=eye_BMM, Z=eye_BMM * (form.trace_cost or 1), multipliers=shares_BN, slack=ones_BN)

    def moved(self, step: Iterate, primal_B: Tensor, dual_B: Tensor) -> Iterate:
        """Return the point so far along a step."""
        return Iterate(
            X=self.X + primal_B[:, None, None] * step.X,
            Z=self.Z + dual_B[:, None, None] * step.Z,
            multipliers=self.multipliers + dual_B[:, None] * step.multipliers,
            slack=self.slack + primal_B[:, None] * step.slack,
        )

    def complementarity(self, mask_BN: Tensor) -> Tensor:
        """Return <X, Z> + a^T s: (B,)."""
        return (self.X * self.Z).sum(dim=(1, 2)) + (self.multipliers * self.slack * mask_BN).sum(dim=1)

    def items(self, which_X: Tensor) -> Iterate:
        """Return some of the batch."""
        return Iterate(**{field.name: getattr(self, field.name)[which_X] for field in fields(self)})


def solve(form: Form) -> tuple[Tensor, Tensor]:
    """Return X (B, M, M) and multipliers (B, N) that prove most: the optimum, or a ray that proves there is none."""
    mask_BN, now = form.mask, Iterate.first(form)
    X_BMM, multipliers_BN = now.X.clone(), now.multipliers.clone()
    doubt_B = torch.full_like(multipliers_BN[:, 0], torch.inf)
    waited_B = torch.zeros_like(doubt_B)
    open_X = torch.arange(len(X_BMM), device=X_BMM.device)
    for _ in range(ITERATIONS):
        now = _advance(form, now)
        form, now, open_X = _kept(form, now, open_X, _is_finite(now))
        bounds = form.prove(now.X, now.multipliers * form.mask)
        doubt_X = torch.where(bounds.gap < 1, bounds.gap, 1 + bounds.cancelled)
        is_better_X = doubt_X < doubt_B[open_X]
        better_X = open_X[is_better_X]
        doubt_B[better_X] = doubt_X[is_better_X]
        X_BMM[better_X], multipliers_BN[better_X] = now.X[is_better_X], now.multipliers[is_better_X]
        waited_B[open_X] = torch.where(is_better_X | (doubt_X >= 1), 0, waited_B[open_X] + 1)
        is_proved_X = (doubt_X <= GOAL) | (bounds.cancelled <= CANCELS / 2)
        form, now, open_X = _kept(form, now, open_X, ~is_proved_X & (waited_B[open_X] < PATIENCE))
        if len(open_X) == 0:
            break
    return X_BMM, multipliers_BN * mask_BN


def _kept(form: Form, now: Iterate, open_X: Tensor, which_X: Tensor) -> tuple[Form, Iterate, Tensor]:
    if bool(which_X.all()):
        return form, now, open_X
    return form.items(which_X), now.items(which_X), open_X[which_X]


def _is_finite(point: Iterate) -> Tensor:
    return torch.stack([getattr(point, field.name).flatten(1).isfinite().all(dim=1) for field in fields(point)]).all(0)


def _residuals(form: Form, point: Iterate) -> tuple[Tensor, Tensor]:
    """Return r_p = A(X) - s - 1 and r_d = c I + q X - A*(a) - Z."""
    primal_BN = (form.apply(point.X) - point.slack - 1) * form.mask
    dual_BMM = form.curvature * point.X - form.combine(point.multipliers * form.mask) - point.Z
    dual_BMM.diagonal(dim1=1, dim2=2).add_(form.trace_cost)
    return primal_BN, dual_BMM


def _advance(form: Form, now: Iterate) -> Iterate:
    """Return the next point; no numbers where rounding allows none."""
    newton = _Newton(form, now)
    mean_B = now.complementarity(form.mask) / newton.degree_B
    predicted = newton.step(-torch.diag_embed(newton.d_BM.square()), -now.multipliers * now.slack)
    reach = newton.reach(predicted)
    predicted_B = now.moved(predicted, *(far_B.clamp_max(1) for far_B in reach)).complementarity(form.mask)
    target_B = mean_B * (predicted_B / newton.degree_B / mean_B).clamp(0, 1) ** 3
    corrected = newton.step(
        target_B[:, None, None] * newton.eye_MM - torch.diag_embed(newton.d_BM.square()) - newton.product(predicted),
        target_B[:, None] - now.multipliers * now.slack - predicted.multipliers * predicted.slack,
    )
    reach = newton.reach(corrected)
    caution_B = 0.9 + 0.09 * torch.minimum(*reach).clamp_max(1)
    following = now.moved(corrected, *((caution_B * far_B).clamp_max(1) for far_B in reach))
    return replace(following, X=symmetric(following.X), Z=symmetric(following.Z))


class _Newton:
    """The linear system at a point, factored once for predictor and corrector."""

    def __init__(self, form: Form, now: Iterate) -> None:
        self.form, self.now = form, now
        self.degree_B = form.side + form.mask.sum(dim=1)
        self.eye_MM = torch.eye(form.side, dtype=torch.float64, device=form.mask.device)
        root_BMM, lost_B = torch.linalg.cholesky_ex(now.X)
        root_BMM = usable(root_BMM)
        squares_BM, basis_BMM = torch.linalg.eigh(usable(symmetric(root_BMM.mT @ now.Z @ root_BMM)))
        squares_BM = squares_BM.clamp_min(TINY)
        self.d_BM = squares_BM.sqrt()
        self.G_BMM = root_BMM @ basis_BMM * squares_BM.pow(-0.25)[:, None, :]
        self.inverse_BMM = torch.linalg.solve_triangular(
            root_BMM.mT, basis_BMM * squares_BM.pow(0.25)[:, None, :], upper=True
        ).mT
        self.scaling_BMM = self.G_BMM @ self.G_BMM.mT
        system_BNN, self.resolve = form.linearise(self.scaling_BMM)
        system_BNN.diagonal(dim1=1, dim2=2).add_((now.slack / now.multipliers).where(form.mask, 1))
        self.factor_BNN, failures_B = torch.linalg.cholesky_ex(system_BNN)
        self.factor_BNN[(failures_B > 0) | (lost_B > 0)] = torch.nan
        self.primal_BN, self.dual_BMM = _residuals(form, now)
        self.shift_BMM = self.scaling_BMM @ self.dual_BMM @ self.scaling_BMM

    def step(self, product_BMM: Tensor, products_BN: Tensor) -> Iterate:
        """Return the step that changes the scaled product of X and Z, and that of a and s, by these."""
        form, now = self.form, self.now
        means_BMM = (self.d_BM[:, :, None] + self.d_BM[:, None, :]) / 2
        base_BMM = self.resolve(self.G_BMM @ (product_BMM / means_BMM) @ self.G_BMM.mT - self.shift_BMM)
        right_BN = (products_BN / now.multipliers - self.primal_BN - form.apply(base_BMM)) * form.mask
        a_BN = torch.cholesky_solve(right_BN[..., None], self.factor_BNN)[..., 0]
        combined_BMM = form.combine(a_BN)
        X_BMM = symmetric(base_BMM + self.resolve(self.scaling_BMM @ combined_BMM @ self.scaling_BMM))
        return Iterate(
            X=X_BMM,
            Z=symmetric(form.curvature * X_BMM - combined_BMM + self.dual_BMM),
            multipliers=a_BN,
            slack=((products_BN - now.slack * a_BN) / now.multipliers) * form.mask,
        )

    def product(self, step: Iterate) -> Tensor:
        """Return the scaled product of a step's own X and Z: (B, M, M)."""
        return symmetric(self._scaled_x(step) @ self._scaled_z(step))

    def reach(self, step: Iterate) -> tuple[Tensor, Tensor]:
        """Return how far X and s, and how far Z and a, may go along a step: (B,) each."""
        root_BM = self.d_BM.rsqrt()
        low_X_B, low_Z_B = (
            torch.linalg.eigvalsh(usable(root_BM[:, :, None] * scaled_BMM * root_BM[:, None, :]))[:, 0]
            for scaled_BMM in (self._scaled_x(step), self._scaled_z(step))
        )
        low_s_B = (step.slack / self.now.slack).amin(dim=1)
        low_a_B = (step.multipliers / self.now.multipliers).amin(dim=1)
        primal_B = 1 / (-torch.minimum(low_X_B, low_s_B)).clamp_min(TINY)
        dual_B = 1 / (-torch.minimum(low_Z_B, low_a_B)).clamp_min(TINY)
        if self.form.curvature:  # Z depends on X: one length for both
            primal_B = dual_B = torch.minimum(primal_B, dual_B)
        return primal_B, dual_B

    def _scaled_x(self, step: Iterate) -> Tensor:
        return symmetric(self.inverse_BMM @ step.X @ self.inverse_BMM.mT)

    def _scaled_z(self, step: Iterate) -> Tensor:
        return symmetric(self.G_BMM.mT @ step.Z @ self.G_BMM)


def symmetric(matrix_BMM: Tensor) -> Tensor:
    """Return the symmetric part."""
    return (matrix_BMM + matrix_BMM.mT) / 2


def usable(matrix_BMM: Tensor) -> Tensor:
    """Return the identity in place of a matrix with entries that are no numbers, which eigendecompositions refuse."""
    eye_MM = torch.eye(matrix_BMM.shape[-1], dtype=matrix_BMM.dtype, device=matrix_BMM.device)
    return torch.where(matrix_BMM.isfinite().all(dim=(1, 2), keepdim=True), matrix_BMM, eye_MM)

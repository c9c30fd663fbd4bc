"""The smallest W that separates each selected token from its competitors, with a proof of how small it could be.

    W_mm = argmin ||W||   subject to   Delta_l^T W z_l >= 1 for all l        Delta_l = x_selected - x_t,  z_l the query

is what attention softmax(X W z) trained by gradient descent is said to tend to in direction: in the Frobenius norm
where W itself is trained, in the nuclear norm where W = K Q^T is by its factors (Tarzanagh, Li, Thrampoulidis & Oymak,
"Transformers as Support Vector Machines", arXiv 2308.16898).

Every answer is proved, whichever way it was found. With A*(a) = sum_l a_l Delta_l z_l^T, any a >= 0 and any feasible W

    1^T a  <=  sum_l a_l Delta_l^T W z_l  =  <A*(a), W>  <=  ||A*(a)||_dual ||W||,

so no norm is below 1^T a / ||A*(a)||_dual; and any W whose smallest margin is m > 0 is feasible as W / m. The gap is
between these two. Where A*(a) = 0, nothing separates.

Legend: as in problem.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from whitebench import WhitebenchError
from whitebench_svm.bounds import CANCELS, Bounds
from whitebench_svm.errors import InfeasibleError, UnconvergedError
from whitebench_svm.generation import bound
from whitebench_svm.norms import GEOMETRIES, Norm
from whitebench_svm.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class Separator:
    """The smallest W of each problem, in float64."""

    weight: Tensor
    """(..., D, E), scaled so that the smallest margin is 1."""
    norm: Tensor
    """(...), of `weight`, in the norm asked for."""
    gap: Tensor
    """(...), 1 - (a proved lower bound of the norm) / norm."""
    multipliers: Tensor
    """(..., N), a >= 0, scaled to sum to the square of that bound; zero where there is no constraint."""

    @property
    def margin(self) -> Tensor:
        """The largest min_l Delta_l^T W z_l that a W of norm 1 has: (...)."""
        return 1 / self.norm


def stable_rank(weight: Tensor) -> Tensor:
    """Return ||W||_F^2 / ||W||_op^2 of matrices (..., D, E): at most the rank, and blind to tiny singular values."""
    singular_values = torch.linalg.svdvals(weight.double())
    rank: Tensor = (singular_values / singular_values[..., :1]).square().sum(dim=-1)
    return rank


@torch.no_grad()
def separate(
    differences: Tensor,
    queries: Tensor,
    *,
    norm: Norm = "frobenius",
    mask: Tensor | None = None,
    tolerance: float = 1e-6,
    most_constraints: int = 4096,
    guess: Tensor | None = None,
) -> Separator:
    """Return the smallest W with Delta_l^T W z_l >= 1 for all l, of each problem of a batch.

    It is computed where the vectors are (on the CPU where these are on a device without float64), in float64.

    Args:
        differences: Delta (..., N, D), each the selected token minus a competitor.
        queries: z (..., N, E); the batch dimensions of both may differ by what broadcasts.
        norm: "frobenius"; "nuclear", the sum of the singular values; or "psd", the Frobenius norm of a symmetric
            positive semidefinite W, which takes D = E.
        mask: (..., N), which constraints there are; what stands in the places of others is not looked at.
        tolerance: the largest relative gap between the bounds of the norm.
        most_constraints: how many may be solved at a time. Of many, the hardest come first, and those still missed are
            added until none is.
        guess: W (..., D, E), of any scale: its hardest constraints are tried first. By default A*(1).

    Raises:
        InfeasibleError: a nonnegative combination of the constraints cancels.
        UnconvergedError: the gap stayed above the tolerance; margins below some 1e-6 of the vectors' size are lost in
            rounding.
        WhitebenchError: no such problem: shapes that do not fit, values that are no numbers, no constraint at all.
    """
    if norm not in GEOMETRIES:
        raise WhitebenchError(f"no norm {norm!r} (known: {', '.join(GEOMETRIES)})")
    if not 0 < tolerance < 1 or most_constraints < 1:
        raise WhitebenchError(
            f"a tolerance between 0 and 1 and at least one constraint at a time; got {tolerance} and {most_constraints}"
        )
    problem, batch, scale_B = _read(differences, queries, mask)
    if norm == "psd" and differences.shape[-1] != queries.shape[-1]:
        raise WhitebenchError(
            f"a positive semidefinite W takes differences and queries of one width; got {differences.shape[-1]} and "
            f"{queries.shape[-1]}"
        )
    guess_BDE = problem.combine(problem.mask.double())
    if guess is not None:
        if guess.shape[-2:] != guess_BDE.shape[1:]:
            raise WhitebenchError(
                f"a guess is W, (..., {guess_BDE.shape[1]}, {guess_BDE.shape[2]}); got {tuple(guess.shape)}"
            )
        guess_BDE = guess.to(guess_BDE.device).double().expand(*batch, *guess_BDE.shape[1:]).reshape(guess_BDE.shape)
    bounds = bound(problem, guess_BDE, GEOMETRIES["frobenius"], tolerance=tolerance, most=most_constraints)
    _refuse_unproved(bounds, scale_B, batch, tolerance, "frobenius")
    if norm != "frobenius":  # the same, scaled to a Frobenius norm of 1, and its hardest constraints known
        problem = replace(problem, differences=problem.differences * bounds.lower[:, None, None])
        scale_B = scale_B / bounds.lower
        bounds = bound(problem, bounds.weight, GEOMETRIES[norm], tolerance=tolerance, most=most_constraints)
        _refuse_unproved(bounds, scale_B, batch, tolerance, norm)
    return Separator(
        weight=(bounds.weight / scale_B[:, None, None]).reshape(*batch, *guess_BDE.shape[1:]),
        norm=(bounds.upper / scale_B).reshape(batch),
        gap=bounds.gap.reshape(batch),
        multipliers=(bounds.multipliers / scale_B[:, None].square()).reshape(*batch, -1),
    )


def _read(differences: Tensor, queries: Tensor, mask: Tensor | None) -> tuple[Problem, tuple[int, ...], Tensor]:
    """Return the problem with its longest vectors scaled to 1, the batch dimensions, and the scale taken out (B,)."""
    if differences.ndim < 2 or queries.ndim < 2 or differences.shape[-2] != queries.shape[-2]:
        raise WhitebenchError(
            "differences are (..., constraints, width) and queries (..., constraints, width), one for each constraint; "
            f"got {tuple(differences.shape)} and {tuple(queries.shape)}"
        )
    if mask is None:
        mask = torch.ones(differences.shape[:-1], dtype=torch.bool, device=differences.device)
    try:
        shape = torch.broadcast_shapes(  # type: ignore[no-untyped-call]
            differences.shape[:-1], queries.shape[:-1], mask.shape
        )
    except RuntimeError:
        raise WhitebenchError(
            f"differences {tuple(differences.shape)}, queries {tuple(queries.shape)} and mask {tuple(mask.shape)} "
            "are not of one batch"
        ) from None
    if 0 in shape:
        raise WhitebenchError(f"a batch without a problem or a constraint: {tuple(shape)}")
    mask_BN = mask.expand(shape).reshape(-1, shape[-1]).bool()
    if empty := _places(~mask_BN.any(dim=1), shape[:-1]):
        raise WhitebenchError(f"{_named(empty)} without a constraint: the smallest W is zero")
    device = torch.device("cpu") if differences.device.type == "mps" else differences.device
    vectors = []
    for table in (differences, queries):
        table_BNX = table.detach().to(device).double().expand(*shape, -1).reshape(-1, shape[-1], table.shape[-1])
        vectors.append(table_BNX.masked_fill(~mask_BN[..., None].to(device), 0))
    if not all(bool(table_BNX.isfinite().all()) for table_BNX in vectors):
        raise WhitebenchError("differences and queries must be finite numbers")
    longest = [table_BNX.norm(dim=-1).amax(dim=1) for table_BNX in vectors]
    differences_BND, queries_BNE = (
        table_BNX / longest_B.where(longest_B > 0, 1)[:, None, None]
        for table_BNX, longest_B in zip(vectors, longest, strict=True)
    )
    problem = Problem(differences=differences_BND, queries=queries_BNE, mask=mask_BN.to(device))
    if hopeless := _places(((problem.sizes() == 0) & problem.mask).any(dim=1), shape[:-1]):
        raise InfeasibleError(
            f"{_named(hopeless)} that no W separates: a competitor is equal to the selected token, or a query is zero",
            hopeless,
        )
    return problem, tuple(shape[:-1]), longest[0] * longest[1]


def _refuse_unproved(bounds: Bounds, scale_B: Tensor, batch: tuple[int, ...], tolerance: float, norm: Norm) -> None:
    kind = "positive semidefinite W" if norm == "psd" else "W"
    is_infeasible_B = bounds.cancelled <= CANCELS
    if infeasible := _places(is_infeasible_B, batch):
        raise InfeasibleError(
            f"{_named(infeasible)} that no {kind} separates: a nonnegative combination of the constraints cancels to "
            f"{float(bounds.cancelled[is_infeasible_B].max()):.0e} of its terms' size",
            infeasible,
        )
    if open_items := _places(~(bounds.gap <= tolerance), batch):
        worst = int(bounds.gap.argmax())
        lower, upper = (float(bound[worst] / scale_B[worst]) for bound in (bounds.lower, bounds.upper))
        raise UnconvergedError(
            f"{_named(open_items)} with a relative gap above {tolerance:g}: at most {float(bounds.gap[worst]):.1e}, "
            f"where the smallest {norm} norm is proved to lie between {lower:.6g} and {upper:.6g}",
            open_items,
        )


def _places(which_B: Tensor, batch: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [tuple(place) for place in which_B.reshape(batch).nonzero().tolist()]


def _named(items: Sequence[tuple[int, ...]]) -> str:
    """Return which problems of the batch these are, in words."""
    if items == [()]:
        return "a problem"
    shown = ", ".join(str(item[0] if len(item) == 1 else item) for item in items[:MOST_NAMED])
    more = f" and {len(items) - MOST_NAMED} more" if len(items) > MOST_NAMED else ""
    return f"{'problem' if len(items) == 1 else 'problems'} {shown}{more} of the batch"

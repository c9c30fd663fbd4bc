"""Maximum margins: what a direction is held against, and how near it comes.

    W_mm(alpha) = argmin ||W||   subject to   (x_i,alpha_i - x_it)^T W z_i >= 1   for all i and t != alpha_i

for a selection alpha of one token per input, in the Frobenius or the nuclear norm (arXiv 2308.16898: Att-SVM, and for
keys and queries trained apart Att-SVM*). The margin of a direction is the least (...)^T W z / ||W|| over all
constraints, and no direction has more than 1 / ||W_mm||. `whitebench_svm` solves for W_mm and proves how small it
could be.

S draws, N inputs, T tokens of each, L constraints, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from whitebench_svm import InfeasibleError, UnconvergedError, separate
from whitebench_tasks.token_selection.draws import Draws
from whitebench_tasks.token_selection.problem import logits_of

Norm: TypeAlias = Literal["frobenius", "nuclear"]

_ORDERS: dict[Norm, str] = {"frobenius": "fro", "nuclear": "nuc"}


@dataclass(frozen=True, kw_only=True)
class Target:
    """W_mm of every draw's selection; zero where there is none."""

    kind: Norm
    weights: Tensor
    """(S, D, D)."""
    norm: Tensor
    """(S,)."""
    gap: Tensor
    """(S,), 1 - (a proved lower bound of the norm) / norm."""
    is_infeasible: Tensor
    """(S,), whether it is proved that no W makes this selection."""
    is_open: Tensor
    """(S,), whether neither was found: margins that are lost in rounding."""

    @property
    def is_solved(self) -> Tensor:
        """Whether there is a W_mm, (S,)."""
        return ~(self.is_infeasible | self.is_open)


@dataclass(frozen=True, kw_only=True)
class Nearness:
    """How near weights come to a target; nan where there is none."""

    cosine: Tensor
    """(S,)."""
    margin_ratio: Tensor
    """(S,), margin achieved / best possible."""
    norm_ratio: Tensor
    """(S,), ||W|| / ||W_mm||."""

    def each(self) -> dict[str, Tensor]:
        """Return them by name."""
        return {"cosine": self.cosine, "margin ratio": self.margin_ratio, "norm ratio": self.norm_ratio}


def select(draws: Draws, weights_SDD: Tensor) -> Tensor:
    """Return each input's token with the largest logit, (S, N)."""
    return logits_of(draws, weights_SDD).argmax(dim=-1)


def target_of(draws: Draws, selected_SN: Tensor, norm: Norm, *, tolerance: float = 1e-6) -> Target:
    """Return W_mm of every draw; what has none is said, and holds up no other."""
    differences_SLD, queries_SLD = _constraints(draws, selected_SN)
    S, D = len(draws), draws.head.shape[1]
    weights_SDD = torch.zeros(S, D, D, dtype=torch.float64)
    norm_S, gap_S = torch.zeros(S, dtype=torch.float64), torch.zeros(S, dtype=torch.float64)
    outcome = {kind: torch.zeros(S, dtype=torch.bool) for kind in (InfeasibleError, UnconvergedError)}
    left = torch.arange(S)
    while len(left):
        try:
            found = separate(differences_SLD[left], queries_SLD[left], norm=norm, tolerance=tolerance)
        except (InfeasibleError, UnconvergedError) as error:
            lost = [item[0] for item in error.items]
            outcome[type(error)][left[lost]] = True
            left = left[[place for place in range(len(left)) if place not in lost]]
            continue
        weights_SDD[left], norm_S[left], gap_S[left] = found.weight, found.norm, found.gap
        break
    return Target(
        kind=norm,
        weights=weights_SDD,
        norm=norm_S,
        gap=gap_S,
        is_infeasible=outcome[InfeasibleError],
        is_open=outcome[UnconvergedError],
    )


def nearness(draws: Draws, selected_SN: Tensor, weights_SDD: Tensor, target: Target) -> Nearness:
    """Return how near `weights_SDD` come to the `target` of this selection."""
    differences_SLD, queries_SLD = _constraints(draws, selected_SN)
    margins_SL = ((differences_SLD @ weights_SDD) * queries_SLD).sum(dim=-1)
    size_S = torch.linalg.matrix_norm(weights_SDD, ord=_ORDERS[target.kind])
    alike_S = (weights_SDD * target.weights).sum(dim=(1, 2))
    lengths_S = weights_SDD.norm(dim=(1, 2)) * target.weights.norm(dim=(1, 2))
    none = torch.tensor(float("nan"), dtype=torch.float64)
    is_there_S = target.is_solved & (size_S > 0)
    return Nearness(
        cosine=torch.where(is_there_S, alike_S / lengths_S, none),
        margin_ratio=torch.where(is_there_S, margins_SL.amin(dim=1) / size_S * target.norm, none),
        norm_ratio=torch.where(is_there_S, size_S / target.norm, none),
    )


def _constraints(draws: Draws, selected_SN: Tensor) -> tuple[Tensor, Tensor]:
    """Return x_alpha - x_t for every input and t != alpha, and its query: (S, L, D) each."""
    S, N, T, D = draws.tokens.shape
    chosen_SN1D = draws.tokens.gather(2, selected_SN[..., None, None].expand(S, N, 1, D))
    is_other_SNT = torch.ones(S, N, T, dtype=torch.bool).scatter_(2, selected_SN[..., None], value=False)
    differences_SLD = (chosen_SN1D - draws.tokens)[is_other_SNT].reshape(S, N * (T - 1), D)
    return differences_SLD, draws.queries.repeat_interleave(T - 1, dim=1)

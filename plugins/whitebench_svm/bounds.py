"""What is proved of a batch: bounds of the smallest norm, from multipliers below and from a W above."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from whitebench_svm.problem import Problem


CANCELS = 1e-12
"""Of its terms' size: in float64 a sum of some thousand terms is no longer told from nothing."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Of each problem, the best W and multipliers found and what they prove."""

    multipliers: Tensor
    """(B, N), scaled to sum to the square of the lower bound."""
    weight: Tensor
    """(B, D, E), scaled to a smallest margin of 1, where it has one above zero."""
    lower: Tensor
    """(B,)."""
    upper: Tensor
    """(B,), infinite where W misses a constraint at any scale."""
    cancelled: Tensor
    """(B,), ||A*(a)||_dual over the sum of its terms' sizes: 0 where a proves that nothing separates."""

    @property
    def gap(self) -> Tensor:
        """1 - lower / upper, 0 where rounding has put the lower above: (B,)."""
        return (1 - self.lower / self.upper).clamp_min(0)

    def updated(self, index_X: Tensor, some: Bounds) -> Bounds:
        """Return the bounds with some problems' put in their places."""
        names = [field.name for field in fields(self)]
        return Bounds(**{name: getattr(self, name).index_copy(0, index_X, getattr(some, name)) for name in names})

    @classmethod
    def joined(cls, parts: Sequence[Bounds]) -> Bounds:
        """Return the bounds of several batches as one's."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def prove(
    problem: Problem,
    multipliers_BN: Tensor,
    weight_BDE: Tensor,
    norm: Callable[[Tensor], Tensor],
    dual_norm: Callable[[Tensor], Tensor],
) -> Bounds:
    """Return what any multipliers and any W prove."""
    shares_BN = multipliers_BN.clamp_min(0)
    shares_BN = shares_BN / shares_BN.sum(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    dual_B = dual_norm(problem.combine(shares_BN))
    lower_B = shares_BN.sum(dim=1) / dual_B
    margin_B = problem.margins(weight_BDE).amin(dim=1)
    scaled_BDE = weight_BDE / margin_B.where(margin_B > 0, 1)[:, None, None]
    return Bounds(
        multipliers=shares_BN * lower_B[:, None].square(),
        weight=scaled_BDE,
        lower=lower_B.nan_to_num(0),
        upper=norm(scaled_BDE).where(margin_B > 0, torch.inf),
        cancelled=dual_B / (shares_BN * problem.sizes()).sum(dim=1),
    )

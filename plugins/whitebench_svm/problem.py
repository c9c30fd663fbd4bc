"""What is to be separated: constraints Delta_l^T W z_l >= 1, whose D x E matrices Delta_l z_l^T are seldom built.

With A(W)_l = Delta_l^T W z_l and its adjoint A*(a) = sum_l a_l Delta_l z_l^T, the Gram matrix of the constraints is

    (A A*)_kl = (Delta_k . Delta_l) (z_k . z_l).

Legend: B problems, N constraints, K places for some of them, D width of differences, E width of queries, X any number.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A batch of problems of one shape, in float64."""

    differences: Tensor
    """(B, N, D)."""
    queries: Tensor
    """(B, N, E)."""
    mask: Tensor
    """(B, N), which constraints there are. The vectors of the others are zero."""

    def __len__(self) -> int:
        return len(self.mask)

    def margins(self, weight_BDE: Tensor) -> Tensor:
        """Return A(W): (B, N), infinite where there is no constraint."""
        margins_BN = ((self.differences @ weight_BDE) * self.queries).sum(dim=-1)
        return margins_BN.masked_fill(~self.mask, torch.inf)

    def combine(self, multipliers_BN: Tensor) -> Tensor:
        """Return A*(a): (B, D, E)."""
        return self.differences.mT @ (multipliers_BN[..., None] * self.queries)

    def gram(self) -> Tensor:
        """Return A A*: (B, N, N)."""
        return (self.differences @ self.differences.mT).mul_(self.queries @ self.queries.mT)

    def sizes(self) -> Tensor:
        """Return the Frobenius norms ||Delta_l|| ||z_l||: (B, N)."""
        sizes_BN: Tensor = self.differences.norm(dim=-1) * self.queries.norm(dim=-1)
        return sizes_BN

    def features(self, item: int) -> Tensor:
        """Return the matrices Delta_l z_l^T of the constraints that one problem has, for those few that need them."""
        mask_N = self.mask[item]
        return self.differences[item, mask_N, :, None] * self.queries[item, mask_N, None, :]

    def hardest(self, weight_BDE: Tensor, count_B: Tensor) -> Tensor:
        """Return which constraints are the hardest for W, so many of each problem: (B, N)."""
        order_BN = self.margins(weight_BDE).argsort(dim=1, stable=True)
        is_among_BN = torch.arange(order_BN.shape[1], device=order_BN.device) < count_B[:, None]
        return torch.zeros_like(self.mask).scatter(1, order_BN, is_among_BN) & self.mask

    def items(self, which_X: Tensor) -> Problem:
        """Return some of the batch, by number or by mask."""
        return Problem(
            differences=self.differences[which_X],
            queries=self.queries[which_X],
            mask=self.mask[which_X],
        )

    def restricted(self, chosen_BN: Tensor) -> tuple[Problem, Tensor]:
        """Return the problems with the chosen constraints alone, and where these stood: (B, K), as few as hold them."""
        rows_X, columns_X = chosen_BN.nonzero(as_tuple=True)
        slots_X = (chosen_BN.cumsum(dim=1) - 1)[rows_X, columns_X]
        places_BK = columns_X.new_zeros(len(self), int(chosen_BN.sum(dim=1).max()))
        places_BK[rows_X, slots_X] = columns_X
        mask_BK = torch.zeros_like(places_BK, dtype=torch.bool)
        mask_BK[rows_X, slots_X] = True
        narrow = Problem(
            differences=_rows(self.differences, places_BK) * mask_BK[..., None],
            queries=_rows(self.queries, places_BK) * mask_BK[..., None],
            mask=mask_BK,
        )
        return narrow, places_BK

    def widened(self, values_BK: Tensor, places_BK: Tensor) -> Tensor:
        """Return the chosen constraints' values where these stood, and zero elsewhere: (B, N)."""
        return values_BK.new_zeros(self.mask.shape).scatter_add(1, places_BK, values_BK)


def _rows(table_BNX: Tensor, places_BK: Tensor) -> Tensor:
    return table_BNX.gather(1, places_BK[..., None].expand(-1, -1, table_BNX.shape[-1]))

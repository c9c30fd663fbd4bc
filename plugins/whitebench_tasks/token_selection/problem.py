"""The problem that a token selector is given: attention with one query per input, under a linear head.

    f(X, z) = v^T X^T a(X W z),     minimise over W     1/N sum_i log(1 + exp(-Y_i f(X_i, z_i))) + ridge/2 ||W||_F^2

with a the softmax or the sparsemax, no 1/sqrt(D), and v fixed (arXiv 2308.16898, equation W-ERM; the ridge is ours).

S draws, N inputs, T tokens of each, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import Tensor

from whitebench_tasks.token_selection.draws import Draws

Attention: TypeAlias = Literal["softmax", "sparsemax"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is minimised, where W starts, and when it is looked at."""

    draws: Draws
    attention: Attention = "softmax"
    ridge: float = 0.0
    is_from_zero: bool = False
    """Whether W starts at zero; otherwise at `starts_2SDD[0]`. K and Q, which zero would hold, start at the two."""
    watch: tuple[int, ...]
    """After how many steps the weights are asked for, ascending; the last of them is where the descent ends."""


def logits_of(draws: Draws, weights_SDD: Tensor) -> Tensor:
    """Return X W z, (S, N, T)."""
    asked_SND = draws.queries @ weights_SDD.mT
    return (draws.tokens @ asked_SND[..., None])[..., 0]

"""The norms that W may be smallest in: each with its dual and its own way to solve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from whitebench_svm import frobenius, nuclear, psd

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from whitebench_svm.problem import Problem

Norm = Literal["frobenius", "nuclear", "psd"]


class Geometry(NamedTuple):
    """What a norm brings."""

    norm: Callable[[Tensor], Tensor]
    """From W (B, D, E) to (B,)."""
    dual_norm: Callable[[Tensor], Tensor]
    solve: Callable[[Problem, Tensor], tuple[Tensor, Tensor]]
    """From a problem and a first W to multipliers and W, each up to scale."""
    at_once: int
    """Constraints above which they are generated."""


GEOMETRIES: dict[Norm, Geometry] = {
    "frobenius": Geometry(frobenius.norm, frobenius.norm, frobenius.solve, 1024),
    "nuclear": Geometry(nuclear.norm, nuclear.dual_norm, nuclear.solve, 256),
    "psd": Geometry(frobenius.norm, psd.dual_norm, psd.solve, 256),
}

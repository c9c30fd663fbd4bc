"""The norms that W may be smallest in: each with its dual and its own way to solve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from whitebench_svm import frobenius

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from whitebench_svm.problem import Problem

Norm = Literal["frobenius"]


class Geometry(NamedTuple):
    """What a norm brings."""

    norm: Callable[[Tensor], Tensor]
    """From W (B, D, E) to (B,)."""
    dual_norm: Callable[[Tensor], Tensor]
    solve: Callable[[Problem, Tensor], tuple[Tensor, Tensor]]
    """From a problem and a first W to multipliers and W, each up to scale."""


GEOMETRIES: dict[Norm, Geometry] = {
    "frobenius": Geometry(frobenius.norm, frobenius.norm, frobenius.solve),
}

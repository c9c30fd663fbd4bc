"""Token selector: the weights of one attention layer, moved by a rule of descent. For tasks that solve themselves.

    W <- W - eta step(dL/dW)                  parameters = w
    K <- K - eta step(Q (dL/dW)^T),           parameters = kq, where W = K^T Q and each is stepped by itself
    Q <- Q - eta step(K dL/dW)

    step          of a gradient G
    normalised    G / ||G||_F, as in the released experiments (Tarzanagh et al., arXiv 2308.16898)
    plain         G
    adam          Adam (Kingma and Ba, arXiv 1412.6980), b1 = 0.9, b2 = 0.999, eps = 1e-8
    muon          U V^T, where G = U S V^T: what Muon's Newton-Schulz iteration aims at, without momentum
    none          nothing: the weights stay as they were drawn

G is that of `whitebench_models.token_gradient`: exact, or the textbook's, whose rounding the normalisation blows up.

S draws, D width, K terms of rank one.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from whitebench import ModelSpec, Reference, Shape, WhitebenchError, beat
from whitebench_models.token_gradient import Gradient, gradient_of

if TYPE_CHECKING:
    from whitebench_tasks.token_selection.problem import Problem

_BETAS, _EPS = (0.9, 0.999), 1e-8


@dataclass(frozen=True, kw_only=True)
class DescentOptions:
    """A rule of descent."""

    step: Literal["normalised", "plain", "adam", "muon", "none"] = "normalised"
    parameters: Literal["w", "kq"] = "w"
    gradient: Literal["exact", "textbook"] = "exact"
    precision: Literal["float64", "float32"] = "float64"
    learning_rate: float = 0.1
    schedule: Literal["constant", "linear"] = "constant"
    """`linear` goes down to zero at the last step."""

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise WhitebenchError(f"learning_rate={self.learning_rate}: choose one above 0, e.g. learning_rate=0.1")


class TokenSelector(nn.Module):
    """A rule of descent, waiting for a problem; has no weights of its own."""

    def __init__(self, rule: DescentOptions, _shape: Shape = (), _classes: int = 0) -> None:
        super().__init__()
        self.rule = rule

    def bias(self) -> Literal["frobenius", "nuclear"]:
        """Return the norm of W that such a descent is said to keep small."""
        return "nuclear" if self.rule.parameters == "kq" else "frobenius"

    @torch.no_grad()
    def descend(self, problem: Problem) -> list[Tensor]:
        """Return W (S, D, D), float64, at each of the steps that the problem names."""
        rule, problem = self.rule, _in_precision(problem, getattr(torch, self.rule.precision))
        first_SDD, second_SDD = problem.draws.starts
        if rule.parameters == "kq":
            parts = [first_SDD.clone(), second_SDD.clone()]
        else:
            is_zero = problem.is_from_zero and rule.step != "none"
            parts = [torch.zeros_like(first_SDD) if is_zero else first_SDD.clone()]
        moves = [_Move(rule) for _ in parts]
        last, seen = problem.watch[-1], []
        for step in range(last + 1):
            weights_SDD = parts[0] if len(parts) == 1 else parts[0].mT @ parts[1]
            if step in problem.watch:
                seen.append(weights_SDD.double().clone())
            if step % 100 == 0:
                beat()
            if step == last or rule.step == "none":
                continue
            rate = rule.learning_rate * (1 - step / last if rule.schedule == "linear" else 1.0)
            gradient = gradient_of(problem, weights_SDD, is_exact=rule.gradient == "exact")
            for part_SDD, move, along in zip(parts, moves, _by_part(gradient, parts), strict=True):
                part_SDD.sub_(move(along), alpha=rate)
        return seen


def _in_precision(problem: Problem, dtype: torch.dtype) -> Problem:
    arrays = {one.name: getattr(problem.draws, one.name).to(dtype) for one in dataclasses.fields(problem.draws)}
    return dataclasses.replace(problem, draws=dataclasses.replace(problem.draws, **arrays))


def _by_part(gradient: Gradient, parts: list[Tensor]) -> list[Gradient]:
    """Return the gradient of W, or by the product rule those of K and Q."""
    if len(parts) == 1:
        return [gradient]
    keys_SDD, queries_SDD = parts
    left_SKD, right_SKD, scale_S = gradient.left, gradient.right, gradient.log_scale
    return [
        Gradient(left=right_SKD @ queries_SDD.mT, right=left_SKD, log_scale=scale_S),
        Gradient(left=left_SKD @ keys_SDD.mT, right=right_SKD, log_scale=scale_S),
    ]


class _Move:
    """What one matrix is moved along, gradient after gradient."""

    def __init__(self, rule: DescentOptions) -> None:
        makers = {"normalised": _normalised, "plain": _plain, "adam": self._adam, "muon": _orthogonal, "none": _plain}
        self._make = makers[rule.step]
        self._mean = self._square = torch.zeros(())
        self._steps = 0

    def __call__(self, gradient: Gradient) -> Tensor:
        return self._make(gradient)

    def _adam(self, gradient: Gradient) -> Tensor:
        plain_SDD, (first, second) = _plain(gradient), _BETAS
        self._steps += 1
        self._mean = first * self._mean + (1 - first) * plain_SDD
        self._square = second * self._square + (1 - second) * plain_SDD.square()
        spread_SDD = (self._square / (1 - second**self._steps)).sqrt()
        step_SDD: Tensor = self._mean / (1 - first**self._steps) / (spread_SDD + _EPS)
        return step_SDD


def _normalised(gradient: Gradient) -> Tensor:
    dense_SDD = gradient.dense()
    norm_S11 = dense_SDD.norm(dim=(1, 2), keepdim=True)
    unit_SDD: Tensor = dense_SDD / norm_S11.clamp_min(torch.finfo(norm_S11.dtype).tiny)
    return unit_SDD


def _plain(gradient: Gradient) -> Tensor:
    return gradient.dense() * gradient.log_scale.exp()[:, None, None]


def _orthogonal(gradient: Gradient) -> Tensor:
    """Return U V^T of left^T right, from the factors: K terms cost less than D x D where they are few."""
    left_SDX, left_SXK = torch.linalg.qr(gradient.left.mT)
    right_SDX, right_SXK = torch.linalg.qr(gradient.right.mT)
    u_SXX, _, v_SXX = torch.linalg.svd(left_SXK @ right_SXK.mT, full_matrices=False)
    step_SDD: Tensor = left_SDX @ u_SXX @ v_SXX @ right_SDX.mT
    return step_SDD


TOKEN_SELECTOR = ModelSpec(
    name="token-selector",
    summary="One attention layer's W, or K and Q, moved by a rule of descent: for token-selection",
    config=DescentOptions,
    build=TokenSelector,
    head="",
    reference=Reference(
        title="Transformers as Support Vector Machines (Tarzanagh, Li, Thrampoulidis and Oymak 2023)",
        url="https://arxiv.org/abs/2308.16898",
    ),
)

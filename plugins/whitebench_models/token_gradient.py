"""The gradient of token selection, also where attention has become one-hot.

With logits u = X W z, attention s and the head's value of each token b_t = v^T x_t, the loss of one input is
l(Y f), f = sum_t s_t b_t, and the textbook says

    softmax      dL/dW = l' Y sum_t s_t (b_t - f) x_t z^T
    sparsemax    dL/dW = l' Y sum_{t in S} (b_t - mean_S b) x_t z^T,     S where attention is not zero

(Martins and Astudillo, arXiv 1602.02068, for the second). As the softmax saturates, s_alpha goes to one and what is
left of b_alpha - f, the difference of two numbers that agree, is rounding: at a margin near 37 nats in float64, 17 in
float32. Since sum_t s_t (b_t - f) = 0, the selected token's row may be taken off all of them, where nothing cancels:

    softmax      dL/dW = l' Y sum_{t != alpha} s_t (d_t - m) (x_t - x_alpha) z^T
                         with d_t = b_t - b_alpha, m = sum_t s_t d_t

and s_t = exp(log s_t - c) e^c, c the largest log s_t over all inputs and t != alpha: e^c is kept apart as a logarithm.
All of them are sums of N terms of rank one, and are handed on as such: the gradient is left^T right.

S draws, N inputs, T tokens of each, K terms of rank one, D width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from whitebench_tasks.token_selection.problem import Problem


@dataclass(frozen=True, kw_only=True)
class Gradient:
    """exp(log_scale) left^T right, for each draw."""

    left: Tensor
    """(S, K, D)."""
    right: Tensor
    """(S, K, D)."""
    log_scale: Tensor
    """(S,)."""

    def dense(self) -> Tensor:
        """Return left^T right, (S, D, D)."""
        return self.left.mT @ self.right


def gradient_of(problem: Problem, weights_SDD: Tensor, *, is_exact: bool) -> Gradient:
    """Return the gradient of the problem's objective with respect to W."""
    draws = problem.draws
    logits_SNT = (draws.tokens @ (draws.queries @ weights_SDD.mT)[..., None])[..., 0]
    if problem.attention == "sparsemax":
        pull_SNT, log_scale_S = _through_sparsemax(problem, logits_SNT), torch.zeros_like(weights_SDD[:, 0, 0])
    elif is_exact:
        pull_SNT, log_scale_S = _through_softmax(problem, logits_SNT)
    else:
        pull_SNT, log_scale_S = _by_the_textbook(problem, logits_SNT), torch.zeros_like(weights_SDD[:, 0, 0])
    left_SND = (pull_SNT[..., None, :] @ draws.tokens)[..., 0, :] / logits_SNT.shape[1]
    gradient = Gradient(left=left_SND, right=draws.queries, log_scale=log_scale_S)
    return _with_ridge(gradient, problem.ridge, weights_SDD) if problem.ridge else gradient


def sparsemax(logits_SNT: Tensor) -> Tensor:
    """Return the point of the simplex that is nearest to the logits (arXiv 1602.02068, algorithm 1)."""
    sorted_SNT = logits_SNT.sort(dim=-1, descending=True).values
    excess_SNT = sorted_SNT.cumsum(dim=-1) - 1
    count_T = torch.arange(1, logits_SNT.shape[-1] + 1, dtype=logits_SNT.dtype)
    size_SN1 = (count_T * sorted_SNT > excess_SNT).sum(dim=-1, keepdim=True)
    threshold_SN1 = excess_SNT.gather(-1, size_SN1 - 1) / size_SN1
    return (logits_SNT - threshold_SN1).clamp_min(0)


def _slope(problem: Problem, outputs_SN1: Tensor) -> Tensor:
    """Return l'(Y f) Y, with l the logistic loss: (S, N, 1)."""
    labels_SN1 = problem.draws.labels[..., None]
    return -torch.sigmoid(-labels_SN1 * outputs_SN1) * labels_SN1


def _by_the_textbook(problem: Problem, logits_SNT: Tensor) -> Tensor:
    attention_SNT, values_SNT = logits_SNT.softmax(dim=-1), problem.draws.values
    outputs_SN1 = (attention_SNT * values_SNT).sum(dim=-1, keepdim=True)
    return _slope(problem, outputs_SN1) * attention_SNT * (values_SNT - outputs_SN1)


def _through_softmax(problem: Problem, logits_SNT: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pull on each token, those on the selected one chosen so that all of an input's add up to nothing."""
    values_SNT, (largest_SN1, selected_SN1) = problem.draws.values, logits_SNT.max(dim=-1, keepdim=True)
    # As log_softmax, which takes four times as long on rows so short.
    log_SNT = logits_SNT - largest_SN1
    log_SNT = log_SNT - log_SNT.exp().sum(dim=-1, keepdim=True).log()
    better_SNT = values_SNT - values_SNT.gather(-1, selected_SN1)
    mean_SN1 = (log_SNT.exp() * better_SNT).sum(dim=-1, keepdim=True)
    others_SNT = log_SNT.scatter(-1, selected_SN1, -math.inf)
    log_scale_S = others_SNT.amax(dim=(1, 2))
    outputs_SN1 = values_SNT.gather(-1, selected_SN1) + mean_SN1
    scaled_SNT = (others_SNT - log_scale_S[:, None, None]).exp()
    pull_SNT = _slope(problem, outputs_SN1) * scaled_SNT * (better_SNT - mean_SN1)
    return pull_SNT.scatter(-1, selected_SN1, -pull_SNT.sum(dim=-1, keepdim=True)), log_scale_S


def _through_sparsemax(problem: Problem, logits_SNT: Tensor) -> Tensor:
    attention_SNT, values_SNT = sparsemax(logits_SNT), problem.draws.values
    support_SNT = (attention_SNT > 0).to(logits_SNT.dtype)
    outputs_SN1 = (attention_SNT * values_SNT).sum(dim=-1, keepdim=True)
    mean_SN1 = (support_SNT * values_SNT).sum(dim=-1, keepdim=True) / support_SNT.sum(dim=-1, keepdim=True)
    return _slope(problem, outputs_SN1) * support_SNT * (values_SNT - mean_SN1)


def _with_ridge(gradient: Gradient, ridge: float, weights_SDD: Tensor) -> Gradient:
    """Add ridge W, as D terms of rank one more."""
    axes_SDD = torch.eye(weights_SDD.shape[-1], dtype=weights_SDD.dtype).expand_as(weights_SDD)
    return Gradient(
        left=torch.cat([gradient.left, ridge * weights_SDD.mT], dim=1),
        right=torch.cat([gradient.right, axes_SDD], dim=1),
        log_scale=gradient.log_scale,
    )

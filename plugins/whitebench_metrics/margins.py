"""The margins of one attention head, and how near its W is to the maximum-margin one.

The logits of a head are, but for a constant per query, a bilinear form of its input tokens x and z = [x; 1]:

    logit_st = x_t^T W z_s                                        W (D, D + 1), its last column the query's bias

The token that query s selects is t* = argmax_t logit_st, and each other token is a constraint of "Transformers as
Support Vector Machines" (Tarzanagh et al., arXiv 2308.16898), with Delta_st = x_t* - x_t:

    W_mm = argmin ||W||_F   subject to   Delta_st^T W z_s >= 1   for all queries s and t != t*

    gap              logit_st* - the second largest logit of the row, in nats
    angular margin   min_t Delta_st^T W z_s / (||W|| ||Delta_st|| ||z_s||), in [-1, 1]
    rho              (min_st Delta_st^T W z_s / ||W||) / (1 / ||W_mm||), in [0, 1]: the margin of the best possible
    kappa            <W, W_mm> / (||W|| ||W_mm||)

In rho and kappa, W is first projected onto span(Delta) x span(z): what the constraints cannot see is nobody's margin.
Any W has a positive margin to its own selection, so both are positive for all of them, and mean nothing without their
nulls. Among positive semidefinite W, as W = U^T U of a tied projection is one, the best margin is smaller.

Legend: S samples, N tokens, D width, Q queries, C constraints, M queries at a time.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from whitebench_svm import separate

QUERIES = 32
"""At a time: each makes N - 1 constraints."""
SHARE = 0.1
"""Of all queries, those with the largest gaps are drawn from: an absolute gate would leave some networks without."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Queries of one head, with what they select."""

    differences: Tensor
    """Delta, (M, N - 1, D), float64."""
    queries: Tensor
    """z, (M, D + 1), float64."""

    @property
    def constraints(self) -> tuple[Tensor, Tensor]:
        """Delta (C, D) and z (C, D + 1), one row per constraint."""
        rows = self.differences.shape[1]
        return self.differences.flatten(0, 1), self.queries.repeat_interleave(rows, dim=0)


def with_one(tokens_SND: Tensor) -> Tensor:
    """Return z = [x; 1], (S, N, D + 1)."""
    return torch.nn.functional.pad(tokens_SND, (0, 1), value=1.0)


def logits_of(tokens_SND: Tensor, form_DE: Tensor) -> Tensor:
    """Return the logits of every query (row) for every key, (S, N, N), but for a constant per row."""
    logits_SNN: Tensor = with_one(tokens_SND) @ form_DE.mT @ tokens_SND.mT
    return logits_SNN


def gaps_of(logits_SNN: Tensor) -> Tensor:
    """Return each query's gap between its two largest logits, (S, N), in nats."""
    first_SN, second_SN = logits_SNN.topk(2, dim=-1).values.unbind(dim=-1)
    return first_SN - second_SN


def angular_margins(tokens_SND: Tensor, form_DE: Tensor) -> Tensor:
    """Return each query's smallest angular margin to the tokens it does not select, (S, N), in [-1, 1]."""
    logits_SNN = logits_of(tokens_SND, form_DE)
    selected_SN = logits_SNN.argmax(dim=-1)
    distances_SNN = torch.cdist(tokens_SND, tokens_SND, compute_mode="donot_use_mm_for_euclid_dist")
    best_SN1 = logits_SNN.gather(-1, selected_SN[..., None])
    lengths_SNN = distances_SNN.gather(1, selected_SN[..., None].expand_as(distances_SNN))
    sizes_SN1 = with_one(tokens_SND).norm(dim=-1, keepdim=True) * form_DE.norm()
    angles_SNN = (best_SN1 - logits_SNN) / (lengths_SNN * sizes_SN1)
    others_SNN = angles_SNN.scatter(-1, selected_SN[..., None], torch.inf)
    margins_SN: Tensor = others_SNN.nan_to_num(nan=0.0, posinf=torch.inf).amin(dim=-1)
    return margins_SN


def choose(tokens_SND: Tensor, form_DE: Tensor, *, draw: int) -> Chosen:
    """Return `QUERIES` of the tenth of queries with the largest gaps; which of them depends on nothing but `draw`.

    Every query has a place in an order that `draw` sets: a gap that rounding moves over the gate changes one query.
    """
    samples, tokens, _ = tokens_SND.shape
    logits_SNN = logits_of(tokens_SND, form_DE)
    gaps_Q = gaps_of(logits_SNN).flatten()
    gate = max(QUERIES, round(SHARE * len(gaps_Q)))
    candidates = gaps_Q.topk(min(gate, len(gaps_Q))).indices
    order_Q = priorities(samples * tokens, draw).to(candidates.device)
    drawn_M = candidates[order_Q[candidates].argsort()[:QUERIES]]
    sample_M, query_M = drawn_M // tokens, drawn_M % tokens
    selected_M = logits_SNN[sample_M, query_M].argmax(dim=-1)
    others_MC = torch.arange(tokens - 1, device=selected_M.device).expand(len(drawn_M), -1)
    others_MC = others_MC + (others_MC >= selected_M[:, None])
    keys_MND = tokens_SND[sample_M]
    return Chosen(
        differences=keys_MND[torch.arange(len(drawn_M)), selected_M][:, None]
        - keys_MND.gather(1, others_MC[..., None].expand(-1, -1, keys_MND.shape[-1])),
        queries=with_one(tokens_SND)[sample_M, query_M],
    )


@lru_cache(maxsize=64)
def priorities(count: int, draw: int) -> Tensor:
    """Return each query's place in the order of this draw, (count,)."""
    keys = [hashlib.sha256(f"{draw}/{query}".encode()).digest() for query in range(count)]
    order = torch.tensor(sorted(range(count), key=keys.__getitem__))
    return torch.empty_like(order).scatter_(0, order, torch.arange(count))


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A head's W beside the best there is for the same queries and selection; one number per draw."""

    rho: Tensor
    kappa: Tensor
    gap: Tensor
    """The certified relative duality gap of the best."""

    @property
    def means(self) -> tuple[float, float, float]:
        """Rho and kappa, each the mean over draws, and the largest gap."""
        return float(self.rho.mean()), float(self.kappa.mean()), float(self.gap.max())


def compare(form_DE: Tensor, chosen: list[Chosen], *, is_psd: bool = False) -> Comparison:
    """Return how near a head's W comes to the maximum margin, for each draw of queries.

    Args:
        form_DE: W (D, D + 1), float64.
        chosen: its own queries, a draw each.
        is_psd: whether the best is sought among positive semidefinite W, without the bias column.

    Raises:
        WhitebenchError: nothing separates, as where several tokens are equal, or the proof did not close.
    """
    pairs = [one.constraints for one in chosen]
    differences_RCD = torch.stack([differences for differences, _ in pairs])
    queries_RCE = torch.stack([queries for _, queries in pairs])
    if is_psd:
        queries_RCE, form_DE = queries_RCE[..., :-1], form_DE[:, :-1]
        seen_RDE = _projector(differences_RCD) @ form_DE @ _projector(queries_RCE)
        best = separate(differences_RCD, queries_RCE, norm="psd", guess=form_DE)
    else:
        # In coordinates of the queries' span, which few queries leave small: the same problem, with the same norms.
        basis_RKE = _basis(torch.stack([one.queries for one in chosen]))
        queries_RCE = queries_RCE @ basis_RKE.mT
        seen_RDE = _projector(differences_RCD) @ form_DE @ basis_RKE.mT
        best = separate(differences_RCD, queries_RCE, guess=seen_RDE)
    margins_RC = torch.einsum("rcd,rde,rce->rc", differences_RCD, seen_RDE, queries_RCE)
    norms_R = seen_RDE.flatten(1).norm(dim=1)
    products_R = (seen_RDE * best.weight).flatten(1).sum(dim=1)
    return Comparison(
        rho=margins_RC.amin(dim=1) / norms_R * best.norm,
        kappa=products_R / (norms_R * best.weight.flatten(1).norm(dim=1)),
        gap=best.gap,
    )


def random_form(form_DE: Tensor, *, is_psd: bool, generator: torch.Generator) -> Tensor:
    """Return a random form (D, D + 1) with the singular values of this one, and as this one positive semidefinite."""
    width = form_DE.shape[0]
    if is_psd:
        values_D = torch.linalg.eigvalsh(form_DE[:, :-1]).clamp(min=0)
        turn_DD = _rotation(width, generator)
        return torch.nn.functional.pad(turn_DD * values_D @ turn_DD.mT, (0, 1))
    values_D = torch.linalg.svdvals(form_DE)
    random_DE: Tensor = (_rotation(width, generator) * values_D) @ _rotation(width + 1, generator)[:width]
    return random_DE


def _rotation(width: int, generator: torch.Generator) -> Tensor:
    q, r = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64))
    rotation: Tensor = q * r.diagonal().sign()  # without the signs, not uniform over rotations
    return rotation


def _projector(rows_RCX: Tensor) -> Tensor:
    """Return the projector onto the span of the rows, (R, X, X)."""
    basis_RKX = _basis(rows_RCX)
    projector_RXX: Tensor = basis_RKX.mT @ basis_RKX
    return projector_RXX


def _basis(rows_RCX: Tensor) -> Tensor:
    """Return an orthonormal basis of the span of the rows, (R, K, X), with rows of zeros where the span is smaller."""
    _, values_RK, right_RKX = torch.linalg.svd(rows_RCX, full_matrices=False)
    bound_R1 = values_RK[:, :1] * max(rows_RCX.shape[1:]) * torch.finfo(rows_RCX.dtype).eps
    basis_RKX: Tensor = right_RKX * (values_RK > bound_R1)[..., None]
    return basis_RKX

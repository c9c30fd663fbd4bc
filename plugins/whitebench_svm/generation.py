"""Many constraints, of which few are met with equality: solve the hardest, add those still missed, until none is.

Any part of the constraints bounds the norm from below for all of them, so the gap of the last round is the whole's.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from whitebench_svm.bounds import CANCELS, Bounds, prove
from whitebench_svm.norms import Geometry
from whitebench_svm.problem import Problem

ROUNDS = 100
STEP = 256
"""Constraints that are tried first, and added at most."""
SUPPORT = 1e-7
"""Of the largest multiplier: smaller ones are zero but for what an interior point leaves."""
LARGEST = 2**25
"""Entries of the Gram and feature matrices of the problems solved together: 256 MiB."""


def bound(problem: Problem, guess_BDE: Tensor, geometry: Geometry, *, tolerance: float, most: int) -> Bounds:
    """Return the bounds of each problem, from never more than `most` constraints at a time."""
    at_once = min(geometry.at_once, most)
    constraints = problem.mask.shape[1]
    rows, features = min(constraints, at_once), guess_BDE[0].numel()
    together = max(1, LARGEST // (rows * max(rows, features)))
    parts = []
    for part_X in torch.split(torch.arange(len(problem), device=guess_BDE.device), together):
        part, part_guess_BDE = problem.items(part_X), guess_BDE[part_X]
        if constraints <= at_once:
            parts.append(prove(part, *geometry.solve(part, part_guess_BDE), geometry.norm, geometry.dual_norm))
        else:
            parts.append(_generate(part, part_guess_BDE, geometry, tolerance, most))
    return Bounds.joined(parts)


def _generate(problem: Problem, weight_BDE: Tensor, geometry: Geometry, tolerance: float, most: int) -> Bounds:
    step = min(STEP, most)
    chosen_BN = problem.hardest(weight_BDE, torch.full_like(problem.mask[:, 0], step, dtype=torch.long))
    open_X = torch.arange(len(problem), device=weight_BDE.device)
    found: Bounds | None = None
    for _ in range(ROUNDS):
        narrow, places_BK = problem.restricted(chosen_BN)
        multipliers_BK, weight_BDE = geometry.solve(narrow, weight_BDE)
        multipliers_BN = problem.widened(multipliers_BK, places_BK)
        bounds = prove(problem, multipliers_BN, weight_BDE, geometry.norm, geometry.dual_norm)
        found = bounds if found is None else found.updated(open_X, bounds)
        is_missed_BN = _missed(problem, bounds, chosen_BN, geometry, tolerance)
        following_BN = _following(problem, bounds, chosen_BN, is_missed_BN.sum(dim=1).clamp_max(step), most)
        goes_on_X = (following_BN != chosen_BN).any(dim=1)
        if not bool(goes_on_X.any()):
            break
        problem, weight_BDE, chosen_BN = problem.items(goes_on_X), weight_BDE[goes_on_X], following_BN[goes_on_X]
        open_X = open_X[goes_on_X]
    assert found is not None
    return found


def _missed(problem: Problem, bounds: Bounds, chosen_BN: Tensor, geometry: Geometry, tolerance: float) -> Tensor:
    """Return which constraints W misses; none where those chosen have no proved answer of their own: (B, N)."""
    margins_BN = problem.margins(bounds.weight)
    least_B = margins_BN.masked_fill(~chosen_BN, torch.inf).amin(dim=1)
    is_solved_B = bounds.lower * least_B >= (1 - tolerance) * geometry.norm(bounds.weight)
    is_open_B = is_solved_B & (bounds.gap > tolerance) & (bounds.cancelled > CANCELS)
    return (margins_BN < (1 - tolerance / 2) * least_B[:, None]) & is_open_B[:, None]


def _following(problem: Problem, bounds: Bounds, chosen_BN: Tensor, missed_B: Tensor, most: int) -> Tensor:
    """Return the supports and the hardest beside, as many as are missed and there is room for: (B, N)."""
    is_support_BN = bounds.multipliers > SUPPORT * bounds.multipliers.amax(dim=1, keepdim=True)
    room_B = torch.minimum(most - is_support_BN.sum(dim=1), missed_B).clamp_min(0)
    others = replace(problem, mask=problem.mask & ~is_support_BN)
    following_BN = is_support_BN | others.hardest(bounds.weight, room_B)
    return torch.where((missed_B == 0)[:, None], chosen_BN, following_BN)

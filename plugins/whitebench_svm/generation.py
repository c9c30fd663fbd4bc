"""Many constraints, of which few are met with equality: solve the hardest, add those still missed, until none is.

Any part of the constraints bounds the norm from below for all of them, so the gap of the last round is the whole's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from whitebench_svm.bounds import CANCELS, Bounds, prove
from whitebench_svm.norms import Geometry
from whitebench_svm.problem import Problem

ROUNDS = 50
FIRST_SHARE = 0.25
"""Of the most constraints at a time: so many are tried first, and so many added at most."""
LARGEST_GRAM = 2**25
"""Entries, over the problems solved together: 256 MiB."""


def bound(problem: Problem, guess_BDE: Tensor, geometry: Geometry, *, tolerance: float, most: int) -> Bounds:
    """Return the bounds of each problem: many together where they are small, one after the other where not."""
    constraints = problem.mask.shape[1]
    together = max(1, LARGEST_GRAM // constraints**2) if constraints <= most else 1
    parts = []
    every_B = torch.arange(len(problem), device=guess_BDE.device)
    for part_X in torch.split(every_B, together):
        part, part_guess_BDE = problem.items(part_X), guess_BDE[part_X]
        if constraints <= most:
            parts.append(prove(part, *geometry.solve(part, part_guess_BDE), geometry.norm, geometry.dual_norm))
        else:
            parts.append(_generate(part, part_guess_BDE, geometry, tolerance, most))
    return Bounds.joined(parts)


def _generate(problem: Problem, weight_1DE: Tensor, geometry: Geometry, tolerance: float, most: int) -> Bounds:
    """Return the bounds of one problem, never with more than `most` constraints at a time."""
    step = max(1, int(FIRST_SHARE * most))
    chosen_1N = problem.hardest(weight_1DE, torch.tensor([step], device=weight_1DE.device))
    for _ in range(ROUNDS):
        narrow, places_1K = problem.restricted(chosen_1N)
        multipliers_1K, weight_1DE = geometry.solve(narrow, weight_1DE)
        multipliers_1N = problem.widened(multipliers_1K, places_1K)
        bounds = prove(problem, multipliers_1N, weight_1DE, geometry.norm, geometry.dual_norm)
        missed = int((problem.margins(weight_1DE) < narrow.margins(weight_1DE).amin() * (1 - tolerance / 2)).sum())
        if missed == 0 or float(bounds.gap) <= tolerance or float(bounds.cancelled) <= CANCELS:
            break
        is_support_1N = multipliers_1N > 0
        count_1 = (is_support_1N.sum(dim=1) + min(step, missed)).clamp_max(most)
        rest = Problem(
            differences=problem.differences,
            queries=problem.queries,
            mask=problem.mask & ~is_support_1N,
        )
        chosen_1N = is_support_1N | rest.hardest(weight_1DE, count_1 - is_support_1N.sum(dim=1))
    return bounds

"""Pictures of a descent: how near it is after each step, and the way of W z towards the maximum-margin ray.

S draws, N inputs, T tokens of each, P steps that were looked at, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from whitebench import Picture
from whitebench_tasks.token_selection.draws import Draws
from whitebench_tasks.token_selection.margins import Target

_FEW = 2
"""Inputs of the first draw whose ways are shown."""


def pictures_of(
    draws: Draws, selected_SN: Tensor, steps: Sequence[int], path_PSDD: Tensor, target: Target
) -> Mapping[str, Picture]:
    """Return what a block's descent is to be drawn from; nothing where no draw has a target."""
    if not bool(target.is_solved.any()):
        return {}
    first = int(target.is_solved.nonzero()[0, 0])
    few = range(min(_FEW, draws.queries.shape[1]))
    ways = {f"way-{i + 1}": _way(draws, selected_SN, path_PSDD, target, first, i) for i in few}
    return {"nearness": _nearness(steps, path_PSDD, target), **ways}


def _nearness(steps: Sequence[int], path_PSDD: Tensor, target: Target) -> Picture:
    path_PSX = path_PSDD[:, target.is_solved].flatten(2)
    mm_SX = target.weights[target.is_solved].flatten(1)
    lengths_PS = path_PSX.norm(dim=2) * mm_SX.norm(dim=1)
    cosine_PS = (path_PSX * mm_SX).sum(dim=2) / lengths_PS.clamp_min(torch.finfo(torch.float64).tiny)
    at_P = torch.tensor(steps, dtype=torch.float64)
    bands = {"mean": cosine_PS.mean(dim=1), "least": cosine_PS.amin(dim=1), "largest": cosine_PS.amax(dim=1)}
    return Picture(
        kind="lines",
        title=f"cosine to the maximum margin of the final selection, {target.kind} norm",
        x="steps of descent",
        y="cosine",
        series={name: torch.stack([at_P, values], dim=1) for name, values in bands.items()},
    )


def _way(  # noqa: PLR0917  # what, then which
    draws: Draws, selected_SN: Tensor, path_PSDD: Tensor, target: Target, s: int, i: int
) -> Picture:
    """Return the way of W z of one input, in the plane of the ray and of where the way leaves it most."""
    asked_D = draws.queries[s, i]
    way_PD, ray_D = path_PSDD[:, s] @ asked_D, target.weights[s] @ asked_D
    along_D = ray_D / ray_D.norm()
    beside_PD = way_PD - (way_PD @ along_D)[:, None] * along_D
    across_D = torch.linalg.svd(beside_PD, full_matrices=False).Vh[0]
    plane_D2 = torch.stack([along_D, across_D], dim=1)
    way_P2 = way_PD @ plane_D2 / way_PD[-1].norm()
    tokens_T2 = draws.tokens[s, i] @ plane_D2
    is_good_T = torch.arange(len(tokens_T2)) == selected_SN[s, i]
    solution_12 = torch.tensor([[float(way_P2.norm(dim=1).max()), 0.0]])
    return Picture(
        kind="paths",
        title=f"the way of W z, input {i + 1} of draw {s}",
        x="along W_mm z (W z in units of its last length)",
        y="across, where the way leaves the ray most",
        series={
            "maximum-margin ray": torch.cat([_spokes(solution_12), solution_12]),
            "W z": way_P2,
            "selected token": _spokes(tokens_T2[is_good_T]),
            "other tokens": _spokes(tokens_T2[~is_good_T]),
        },
    )


def _spokes(points_T2: Tensor) -> Tensor:
    """Return a way from the origin to each point, each followed by a gap."""
    ways_T32 = torch.stack([torch.zeros_like(points_T2), points_T2, torch.full_like(points_T2, torch.nan)], dim=1)
    return ways_T32.flatten(0, 1)

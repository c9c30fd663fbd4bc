"""The task: a block of draws, solved by a contestant's rule of descent and held against the claim."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, cast

import torch
from torch import Tensor, nn

from whitebench import Reading, Reference, Solution, TaskSpec, WhitebenchError
from whitebench_tasks.token_selection.claims import CLAIMS, Claim, ClaimName, Finding, verdict
from whitebench_tasks.token_selection.draws import Draws, draw
from whitebench_tasks.token_selection.margins import Norm, Target, nearness, select, target_of
from whitebench_tasks.token_selection.pictures import pictures_of
from whitebench_tasks.token_selection.problem import Problem

_Direction: TypeAlias = Literal["higher", "lower", "none"]

_PAPER = Reference(
    title="Transformers as Support Vector Machines (Tarzanagh, Li, Thrampoulidis and Oymak 2023)",
    url="https://arxiv.org/abs/2308.16898",
)


@dataclass(frozen=True, kw_only=True)
class TokenSelectionOptions:
    """Which claim is tried, on how many problems of which size."""

    claim: ClaimName = "w-frobenius"
    draws: int = 100
    """Problems in a block."""
    inputs: int = 6
    tokens: int = 8
    """Of each input."""
    width: int = 10
    """Of a token and a query."""
    steps: int = 0
    """Of descent; 0 for the claim's own."""
    ridge: float = 0.0
    """lambda of `sparsemax-ridge`; 0 for the claim's own, 3e-4."""

    def __post_init__(self) -> None:
        least = {"draws": 1, "inputs": 1, "tokens": 2, "width": 1, "steps": 0, "ridge": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise WhitebenchError(f"token-selection[{name}={getattr(self, name)}]: it must be {bound} or more")
        if self.ridge and not CLAIMS[self.claim].ridge:
            raise WhitebenchError(f"token-selection[ridge={self.ridge}]: claim {self.claim} has no ridge: leave it out")


class Contestant(Protocol):
    """What the task asks of a contestant's module."""

    def descend(self, problem: Problem) -> list[Tensor]:
        """Return W (S, D, D), float64, at each of the steps that the problem names."""

    def bias(self) -> Norm:
        """Return the norm that its descent is said to keep small."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Weights held against the claim."""

    found: Finding
    targets: Mapping[Norm, Target]
    accepted: Tensor
    """(S,), bool."""
    is_optimal: Tensor
    """(S, N), whether an input's optimal token is selected."""


def solve(options: TokenSelectionOptions, module: nn.Module, block: int) -> Solution:
    """Solve one block of draws: number `draws * block` and those that follow it."""
    contestant, claim = cast("Contestant", module), CLAIMS[options.claim]
    numbers = range(options.draws * block, options.draws * (block + 1))
    draws = draw(numbers, inputs=options.inputs, tokens=options.tokens, width=options.width)
    own, last = contestant.bias(), options.steps or claim.steps
    norms = claim.norms(own)
    problem = Problem(
        draws=draws,
        attention=claim.attention,
        ridge=options.ridge or claim.ridge,
        is_from_zero=claim.is_from_zero,
        watch=_watched(last) if norms else (last,),
    )
    path_PSDD = torch.stack(contestant.descend(problem))
    judged = judge(claim, draws, path_PSDD[-1], own)
    first_SDD, second_SDD = draws.starts
    null = judge(claim, draws, first_SDD.mT @ second_SDD if own == "nuclear" else first_SDD, own)
    found, accepted_S = judged.found, judged.accepted
    scores = {
        "accepted": Reading(value=_share(accepted_S), nulls={"random weights": _share(null.accepted)}),
        "verdict": _verdict(claim, found, accepted_S),
        "best-tokens/all": Reading(value=_share(found.is_optimal)),
        "best-tokens/each": Reading(value=_share(judged.is_optimal)),
    }
    each = {"accepted": accepted_S.double(), "optimal": found.is_optimal.double()}
    if norms:
        scores |= _max_margin(judged, norms, has_ridge=claim.ridge > 0)
        pictures = pictures_of(draws, select(draws, path_PSDD[-1]), problem.watch, path_PSDD, judged.targets[norms[0]])
        scores["max-margin/cosine"].pictures = pictures
        each |= {f"{norm} {what}": value for norm in norms for what, value in found.near[norm].each().items()}
    else:
        is_infeasible_S = target_of(draws, draws.optimal, "frobenius").is_infeasible
        scores["best-tokens/infeasible"] = Reading(value=_share(is_infeasible_S), direction="none")
        each["infeasible"] = is_infeasible_S.double()
    return Solution(draws=len(draws), scores=scores, per_sample=each)


def judge(claim: Claim, draws: Draws, weights_SDD: Tensor, own: Norm) -> Judged:
    """Hold weights against a claim; `own` is the norm that their descent is said to keep small."""
    selected_SN = select(draws, weights_SDD)
    targets = {norm: target_of(draws, selected_SN, norm) for norm in claim.norms(own)}
    near = {norm: nearness(draws, selected_SN, weights_SDD, target) for norm, target in targets.items()}
    is_optimal_SN = selected_SN == draws.optimal
    found = Finding(own=own, near=near, is_optimal=is_optimal_SN.all(dim=1))
    return Judged(found=found, targets=targets, accepted=claim.accepts(found), is_optimal=is_optimal_SN)


def _watched(last: int) -> tuple[int, ...]:
    """Return some 60 steps up to the last, ever farther apart."""
    return tuple(sorted({round(last ** (k / 60)) for k in range(61)} | {last}))


def _verdict(claim: Claim, found: Finding, accepted_S: Tensor) -> Reading:
    times = verdict(claim, found, accepted_S)
    if times is None:
        return Reading(value=None, unscored="this claim is not about one width: the share is to rise with it")
    return Reading(value=times)


def _share(is_so: Tensor) -> float:
    return float(is_so.double().mean())


def _max_margin(judged: Judged, norms: tuple[Norm, ...], *, has_ridge: bool) -> dict[str, Reading]:
    """Return how near a block comes to the target that its claim is about, and to the other norm's where it has one."""
    near, *others = (judged.found.near[norm] for norm in norms)
    is_solved_S = torch.stack([target.is_solved for target in judged.targets.values()]).all(dim=0)
    gap = max(float(target.gap.max()) for target in judged.targets.values())
    scores = {
        "cosine": _over_solved(near.cosine, torch.mean),
        "worst-cosine": _over_solved(near.cosine, torch.amin),
        "margin-ratio": _over_solved(near.margin_ratio, torch.mean),
        "median-margin-ratio": _over_solved(near.margin_ratio, torch.median),
        **({"other-cosine": _over_solved(others[0].cosine, torch.mean, direction="none")} if others else {}),
        **({"median-norm-ratio": _over_solved(near.norm_ratio, torch.median, direction="none")} if has_ridge else {}),
        "gap": Reading(value=gap, direction="lower"),
        "unsolved": Reading(value=_share(~is_solved_S), direction="lower", unit="share"),
    }
    return {f"max-margin/{name}": score for name, score in scores.items()}


def _over_solved(values_S: Tensor, how: Callable[[Tensor], Tensor], direction: _Direction | None = None) -> Reading:
    values_X = values_S[~values_S.isnan()]
    if len(values_X) == 0:
        return Reading(value=None, unscored="no draw of the block has a maximum margin")
    return Reading(value=float(how(values_X)), direction=direction)


TOKEN_SELECTION = TaskSpec(
    name="token-selection",
    version=1,
    summary="Does attention trained by gradient descent find the maximum margin? Random problems with a known answer",
    solve=solve,
    asks=("descend", "bias"),
    config=TokenSelectionOptions,
    reference=_PAPER,
)

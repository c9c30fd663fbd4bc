"""The claims: what is run, when a draw is accepted, and how far the accepted draws are above the bar.

    claim             runs                              a draw is accepted where            the bar
    w-frobenius       W from zero, 2000 steps           cosine to W_mm >= .99               95 % of draws, and a mean
                                                                                            margin ratio of .93
    kq-nuclear        linear init, 5000 steps           nuclear margin ratio >= .98, and    median ratio of .98, and
                                                        nearer to the nuclear W_mm          nearer in the mean
    geometry          linear init, 1000 steps           nearer to the W_mm of its own norm  sign test over draws, 5 %
    global-vs-d       linear init, 2000 steps           each optimal token is selected      none: it rises with width
    sparsemax-ridge   sparsemax from zero, 2000 steps   cosine >= .99, norm within 5 %      95 % of draws

W_mm is that of the selection which the final W makes. A direct W has the Frobenius norm for its own, K and Q the
nuclear. A draw whose W_mm cannot be had is not accepted, and is counted under `max-margin/unsolved`. The verdict is how
many times its bar a claim is met, the least where there are two: it holds from 1 upwards.

S draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from scipy.special import bdtrc
from torch import Tensor

from whitebench_tasks.token_selection.margins import Nearness, Norm
from whitebench_tasks.token_selection.problem import Attention

ClaimName: TypeAlias = Literal["w-frobenius", "kq-nuclear", "geometry", "global-vs-d", "sparsemax-ridge"]

OTHER: Mapping[Norm, Norm] = {"frobenius": "nuclear", "nuclear": "frobenius"}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What became of a block of draws."""

    own: Norm
    """The norm that the contestant's descent is said to keep small."""
    near: Mapping[Norm, Nearness]
    is_optimal: Tensor
    """(S,), whether every input's optimal token is selected."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim of the paper, or of ours about sparsemax."""

    steps: int
    is_from_zero: bool = False
    attention: Attention = "softmax"
    ridge: float = 0.0
    norms: Callable[[Norm], tuple[Norm, ...]]
    """Which W_mm are solved for, given the contestant's own norm; the first is the one that scores are about."""
    accepts: Callable[[Finding], Tensor]
    """Whether each draw is accepted (S,), bool."""
    times_its_bar: Callable[[Finding, Tensor], tuple[float, ...]]
    """How many times each of its bars it meets, given the accepted draws; none where it has no bar."""


def _share(accepted_S: Tensor) -> float:
    return float(accepted_S.double().mean())


def _is_nearer(found: Finding, norm: Norm) -> Tensor:
    return found.near[norm].cosine > found.near[OTHER[norm]].cosine


def sign_test_bar(draws: int) -> int:
    """Return the least number of accepted draws that chance, one in two, makes in 5 % of cases or less."""
    return next(k for k in range(draws + 2) if k > draws or (bdtrc(k - 1, draws, 0.5) if k else 1.0) <= 0.05)


def _w_frobenius(found: Finding, accepted_S: Tensor) -> tuple[float, ...]:
    return _share(accepted_S) / 0.95, float(found.near["frobenius"].margin_ratio.nanmean()) / 0.93


def _kq_nuclear(found: Finding, _: Tensor) -> tuple[float, ...]:
    nuclear, frobenius = found.near["nuclear"], found.near["frobenius"]
    nearer = float(nuclear.cosine.nanmean() / frobenius.cosine.nanmean())
    return float(nuclear.margin_ratio.nanmedian()) / 0.98, nearer


CLAIMS: Mapping[ClaimName, Claim] = {
    "w-frobenius": Claim(
        steps=2000,
        is_from_zero=True,
        norms=lambda _: ("frobenius",),
        accepts=lambda found: found.near["frobenius"].cosine >= 0.99,
        times_its_bar=_w_frobenius,
    ),
    "kq-nuclear": Claim(
        steps=5000,
        norms=lambda _: ("nuclear", "frobenius"),
        accepts=lambda found: (found.near["nuclear"].margin_ratio >= 0.98) & _is_nearer(found, "nuclear"),
        times_its_bar=_kq_nuclear,
    ),
    "geometry": Claim(
        steps=1000,
        norms=lambda own: (own, OTHER[own]),
        accepts=lambda found: _is_nearer(found, found.own),
        times_its_bar=lambda _, accepted_S: (int(accepted_S.sum()) / sign_test_bar(len(accepted_S)),),
    ),
    "global-vs-d": Claim(
        steps=2000,
        norms=lambda _: (),
        accepts=lambda found: found.is_optimal,
        times_its_bar=lambda _, __: (),
    ),
    "sparsemax-ridge": Claim(
        steps=2000,
        is_from_zero=True,
        attention="sparsemax",
        ridge=3e-4,
        norms=lambda _: ("frobenius",),
        accepts=lambda found: (
            (found.near["frobenius"].cosine >= 0.99) & ((found.near["frobenius"].norm_ratio - 1).abs() <= 0.05)
        ),
        times_its_bar=lambda _, accepted_S: (_share(accepted_S) / 0.95,),
    ),
}


def verdict(claim: Claim, found: Finding, accepted_S: Tensor) -> float | None:
    """Return how many times its bar the claim is met, at worst; None where it has none."""
    times = claim.times_its_bar(found, accepted_S)
    return float(torch.tensor(times, dtype=torch.float64).min()) if times else None

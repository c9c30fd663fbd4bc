"""What tuning bought: the validation score to be expected of the best of k trials, for each k that was paid for.

Of n trials, sorted from worst to best, the best of k drawn without replacement is the i-th with probability

    P_k(i) = C(i - 1, k - 1) / C(n, k),        sum over i <= j of P_k(i) = C(j, k) / C(n, k),

so that sum_i v_i P_k(i) is the unbiased estimate of the best of k ("Showing Your Work Doesn't Always Work", Tang et al.
2020, arXiv 2004.13705, on "Show Your Work", Dodge et al. 2019, arXiv 1909.03004). A trial that was pruned or failed has
no score of its own and counts as the worst of those that have: it was spent, and would not have been chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from whitebench.tags import StoredStudy
from whitebench_leaderboards.board import Board

BAND = (0.05, 0.95)
"""Quantiles of the best of k trials that a band spans."""


@dataclass(frozen=True, kw_only=True)
class TuningCurve:
    """A contestant's tuning on a task; the k-th number of each is for k trials, from one on."""

    contestant: str
    task: str
    expected: tuple[float, ...]
    """Validation score to be expected of the best."""
    low: tuple[float, ...]
    high: tuple[float, ...]
    """Where the best of k lies in 90 of 100 draws."""
    trials: int
    lost: int
    """Of these, pruned or failed."""


def tuning_curve(
    contestant: str, task: str, validation: Sequence[float], *, lost: int = 0, is_lower_better: bool = False
) -> TuningCurve | None:
    """Return what k trials would have bought, given the scores of those that ran to their end; None if none did."""
    if not validation:
        return None
    sign = -1.0 if is_lower_better else 1.0
    scores = np.sort(sign * np.asarray(validation, dtype=np.float64))
    scores = np.concatenate([np.full(lost, scores[0]), scores])
    n = len(scores)
    expected, low, high = [], [], []
    for k in range(1, n + 1):
        reached = np.exp(_log_choose(np.arange(1, n + 1), k) - _log_choose(np.array([n]), k))
        expected.append(float(scores @ np.diff(reached, prepend=0.0)))
        first, last = (float(scores[np.searchsorted(reached, quantile - 1e-12)]) for quantile in BAND)
        low.append(first)
        high.append(last)
    if is_lower_better:
        low, high = high, low
    return TuningCurve(
        contestant=contestant,
        task=task,
        expected=tuple(sign * value for value in expected),
        low=tuple(sign * value for value in low),
        high=tuple(sign * value for value in high),
        trials=n,
        lost=lost,
    )


def curves_of(board: Board, studies: Sequence[StoredStudy]) -> dict[str, list[TuningCurve]]:
    """Return the curves of a board's entries by task, in its order: of the studies whose choice they use."""
    curves: dict[str, list[TuningCurve]] = {}
    by_choice = {(study.contestant, study.task, study.choice): study for study in studies}
    for entry in board.entries:
        study = by_choice.get((entry.contestant, entry.task, entry.choice))
        if study is None or entry.spent is None:
            continue
        curve = tuning_curve(
            entry.contestant,
            entry.task,
            list(study.validation.values()),
            lost=max(entry.spent.trials - len(study.validation), 0),
            is_lower_better=board.heading.direction == "lower",
        )
        if curve is not None:
            curves.setdefault(entry.task, []).append(curve)
    return curves


def leaders_by_budget(curves: Sequence[TuningCurve], *, is_lower_better: bool = False) -> list[tuple[range, str]]:
    """Return who would be expected to score best on validation, by the trials that everyone may spend.

    Of the curves of one task, as far as all of them reach; adjoining budgets with the same leader come as one.
    """
    best = min if is_lower_better else max
    least = min((one.trials for one in curves), default=0)
    leaders = [best(curves, key=lambda one: one.expected[k]).contestant for k in range(least)]
    runs = [[k for k, _ in group] for _, group in groupby(enumerate(leaders, start=1), key=lambda pair: pair[1])]
    return [(range(ks[0], ks[-1] + 1), leaders[ks[0] - 1]) for ks in runs]


def does_ranking_depend_on_budget(curves: Mapping[str, Sequence[TuningCurve]], *, is_lower_better: bool) -> list[str]:
    """Return a sentence for each task whose leader on validation changes with the number of trials."""
    sentences = []
    for task, of_task in curves.items():
        leaders = leaders_by_budget(of_task, is_lower_better=is_lower_better)
        if len(leaders) > 1:
            told = [f"{name} with {_trials(budget)}" for budget, name in leaders]
            sentences.append(f"On {task} the best validation score to be expected is that of {', '.join(told)}.")
    return sentences


def _trials(budget: range) -> str:
    first, last = budget[0], budget[-1]
    return f"{first} trial{'s' if first > 1 else ''}" if first == last else f"{first} to {last} trials"


def _log_choose(n: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """Return log C(n, k), minus infinity where n < k."""
    is_enough = n >= k
    safe = np.where(is_enough, n, k)
    found = gammaln(safe + 1) - gammaln(k + 1) - gammaln(safe - k + 1)
    return np.where(is_enough, found, -np.inf)

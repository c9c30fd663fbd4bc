"""A suite of several tasks as a whole: mean ranks, and from five tasks on what repeats over tasks tell.

Only entries that are ranked on every task of the suite take part; the others are named with the tasks that they lack.

    mean rank             of the task's mean scores, ties sharing the mean of their ranks
    interquartile mean    of the scores of all tasks and seeds, the lowest and highest quarter left out, with a 95 %
                          interval by bootstrapping the seeds within each task (Agarwal et al. 2021, arXiv 2108.13264)
    improvement           how likely a seed of the one scores above a seed of the other on the same task, ties
                          counting half (Mann and Whitney), the mean over tasks (the same paper)
    critical difference   mean ranks of k entries over T tasks that differ by less than
                          q sqrt(k (k + 1) / (6 T)),     q = studentized range quantile / sqrt(2),
                          are not told apart (Nemenyi; Demsar 2006, JMLR 7:1)

Scores of different tasks are averaged as they are: that has a meaning where all have one scale, as accuracies do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata, studentized_range, trim_mean

from whitebench_leaderboards.board import Board
from whitebench_leaderboards.entry import Entry

FEWEST_TASKS = 5
"""From which on the spread over tasks says anything."""
DRAWS = 2000


@dataclass(frozen=True, kw_only=True)
class OverallEntry:
    """One contestant over all tasks."""

    contestant: str
    mean_rank: float
    interquartile_mean: float | None
    """None below five tasks."""
    interval: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class Overall:
    """A suite of several tasks as a whole."""

    tasks: tuple[str, ...]
    entries: tuple[OverallEntry, ...]
    """Best mean rank first."""
    lacking: tuple[tuple[str, tuple[str, ...]], ...]
    """Contestants that are not ranked everywhere, with the tasks they lack."""
    critical_difference: float | None
    """Of mean ranks; None below five tasks or two entries."""
    improvement: tuple[tuple[float, ...], ...]
    """How likely the row's entry beats the column's, entries in order; empty below five tasks."""

    @property
    def joined(self) -> list[tuple[int, int]]:
        """Return the longest stretches of entries, first and last, whose mean ranks are not told apart."""
        ranks, apart = [one.mean_rank for one in self.entries], self.critical_difference or 0.0
        places = range(len(ranks))
        ends = [max(j for j in places[i:] if ranks[j] - ranks[i] < apart or j == i) for i in places]
        return [(i, j) for i, j in enumerate(ends) if j > i and (i == 0 or ends[i - 1] < j)]

    @property
    def coverage(self) -> str:
        """Return how many contestants stand on every task."""
        return (
            f"{len(self.entries)} of {len(self.entries) + len(self.lacking)} contestants on all {len(self.tasks)} tasks"
        )


def overall(board: Board, *, seed: int = 0) -> Overall | None:
    """Return a board's suite as a whole; None where it has a single task."""
    tasks = tuple(dict.fromkeys(entry.task for entry in board.entries))
    if len(tasks) < 2:
        return None
    ranked = {(entry.contestant, entry.task): entry for entry in board.entries if entry.rank}
    everyone = tuple(dict.fromkeys(entry.contestant for entry in board.entries))
    lacks = {name: tuple(task for task in tasks if (name, task) not in ranked) for name in everyone}
    names = [name for name in everyone if not lacks[name]]
    sign = -1.0 if board.heading.direction == "lower" else 1.0
    entries = [[ranked[name, task] for task in tasks] for name in names]
    ranks = _mean_ranks(entries, sign)
    order = sorted(range(len(names)), key=lambda i: ranks[i])
    is_enough = len(tasks) >= FEWEST_TASKS
    scores = np.array([[list(one.primary.values.values()) for one in entries[i]] for i in order])  # all have all seeds
    means = _interquartile(scores, seed) if is_enough and order else [(None, None)] * len(order)
    return Overall(
        tasks=tasks,
        entries=tuple(
            OverallEntry(contestant=names[i], mean_rank=float(ranks[i]), interquartile_mean=mean, interval=interval)
            for i, (mean, interval) in zip(order, means, strict=True)
        ),
        lacking=tuple((name, missing) for name, missing in lacks.items() if missing),
        critical_difference=_critical(len(names), len(tasks), board.confidence) if is_enough else None,
        improvement=_improvement(scores, sign) if is_enough and order else (),
    )


def _mean_ranks(entries: list[list[Entry]], sign: float) -> NDArray[np.float64]:
    """Return each contestant's rank, 1 the best, as the mean over tasks."""
    if not entries:
        return np.zeros(0)
    means = np.array([[entry.primary.estimate.mean for entry in row] for row in entries], dtype=np.float64)
    ranks: NDArray[np.float64] = rankdata(-sign * means, axis=0).mean(axis=1)
    return ranks


def _interquartile(scores: NDArray[np.float64], seed: int) -> list[tuple[float, tuple[float, float]]]:
    """Return each contestant's interquartile mean with its percentile interval, seeds drawn anew within each task.

    Of scores (contestants, tasks, seeds); all contestants with the same draws.
    """
    _, tasks, seeds = scores.shape
    places = np.random.default_rng(seed).integers(seeds, size=(DRAWS, tasks, seeds))
    found = []
    for own in scores:
        drawn = np.take_along_axis(own[None], places, axis=2).reshape(DRAWS, -1)
        low, high = np.quantile(trim_mean(drawn, 0.25, axis=1), (0.025, 0.975))
        found.append((float(trim_mean(own.ravel(), 0.25)), (float(low), float(high))))
    return found


def _improvement(scores: NDArray[np.float64], sign: float) -> tuple[tuple[float, ...], ...]:
    """Return how likely each contestant beats each other, of scores (contestants, tasks, seeds)."""
    is_above = [np.sign(sign * (own[:, :, None] - scores[:, :, None, :])).mean(axis=(1, 2, 3)) for own in scores]
    return tuple(tuple(float(chance) for chance in (1 + row) / 2) for row in is_above)


def _critical(k: int, tasks: int, confidence: float) -> float | None:
    if k < 2:
        return None
    return float(studentized_range.ppf(confidence, k, np.inf) / math.sqrt(2) * math.sqrt(k * (k + 1) / (6 * tasks)))

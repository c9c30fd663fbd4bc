"""Quality against cost, or against what a layer does: who is dominated, and how sure that is.

Entry j dominates i where it is at least as good in both. Each side has its own chance, from the paired differences:

    P(j at least as good as i) = 1 - p / 2 where j's mean is better, p / 2 where it is worse,     p two-sided,

which is the posterior probability under a flat prior (Student's t over seeds; of the primary metric with its share of
test samples, statistics.py). Both are taken as independent, and multiplied. Numbers that no seed changes, such as
parameters, are compared as they are: 1 or 0. An entry is dominated with the probability of its strongest rival: no
hard line, which would count a difference of chance for a whole one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from whitebench.reading import Direction
from whitebench_leaderboards.board import Board
from whitebench_leaderboards.comparison import Comparisons
from whitebench_leaderboards.entry import Entry, Summary
from whitebench_leaderboards.statistics import Estimate, p_values, spread_of


@dataclass(frozen=True, kw_only=True)
class Point:
    """One entry between two measures."""

    contestant: str
    x: Estimate
    y: Estimate
    dominated: float
    """How likely somebody is at least as good in both: of the strongest rival."""
    by: str
    """That rival; empty where there is none."""


@dataclass(frozen=True, kw_only=True)
class Tradeoff:
    """The primary metric of a task's ranked entries against another score or cost."""

    task: str
    x: str
    x_direction: Direction
    x_unit: str
    y: str
    y_direction: Direction
    y_unit: str
    points: tuple[Point, ...]
    """In the board's order; of entries that have both."""


def measures(board: Board, task: str) -> list[str]:
    """Return the scores and costs that have a better direction and that at least two ranked entries of a task have."""
    ranked = [entry for entry in board.of_task(task) if entry.rank]
    found: dict[str, int] = {}
    for entry in ranked:
        for summary in (*entry.costs, *entry.scores):
            if summary.direction != "none" and summary.estimate.mean is not None:
                found[summary.name] = found.get(summary.name, 0) + 1
    return [name for name, count in found.items() if count > 1]


def tradeoff(board: Board, task: str, x: str) -> Tradeoff | None:
    """Return a task's ranked entries between the score or cost `x` and the primary metric; None where none has both."""
    sides = [(entry, side) for entry in board.of_task(task) if entry.rank and (side := _side(entry, x)) is not None]
    if not sides:
        return None
    is_better = _on_primary(board.compared[task], is_lower_better=board.heading.direction == "lower")
    is_cheaper = _on_cost([side for _, side in sides])
    points = []
    for place, (entry, side) in enumerate(sides):
        rivals = [
            (is_better(other.contestant, entry.contestant) * float(is_cheaper[rival, place]), other.contestant)
            for rival, (other, _) in enumerate(sides)
            if other is not entry
        ]
        dominated, by = max(rivals, default=(0.0, ""))
        points.append(
            Point(
                contestant=entry.contestant,
                x=side.estimate,
                y=entry.primary.estimate,
                dominated=dominated,
                by=by if dominated > 0 else "",
            )
        )
    first = sides[0][1]
    return Tradeoff(
        task=task,
        x=x,
        x_direction=first.direction,
        x_unit=first.unit,
        y=board.heading.primary,
        y_direction=board.heading.direction,
        y_unit=board.heading.unit,
        points=tuple(points),
    )


def _side(entry: Entry, name: str) -> Summary | None:
    found = (one for one in (*entry.costs, *entry.scores) if one.name == name and one.estimate.mean is not None)
    return next(found, None)


def _on_primary(compared: Comparisons, *, is_lower_better: bool) -> Callable[[str, str], float]:
    def is_better(first: str, second: str) -> float:
        difference = compared.difference(first, second)
        if difference is None or difference.value is None:
            return 0.5
        value = -difference.value if is_lower_better else difference.value
        if value == 0:
            return 1.0 if difference.smallest is None or difference.smallest == 0 else 0.5
        p_value = difference.p_value
        return 0.5 if p_value is None else 1 - p_value / 2 if value > 0 else p_value / 2

    return is_better


def _on_cost(sides: Sequence[Summary]) -> NDArray[np.float64]:
    """Return how likely each is at least as good as each other, (k, k), over the seeds that both have."""
    k = len(sides)
    mean, error, seeds = np.zeros((k, k)), np.zeros((k, k)), np.zeros((k, k), dtype=np.int64)
    for i, j in combinations(range(k), 2):
        first, second = sides[i], sides[j]
        shared = first.values.keys() & second.values.keys()
        each = [first.values[seed] - second.values[seed] for seed in shared]
        seeds[i, j] = len(each)
        mean[i, j] = math.fsum(each) / len(each) if each else np.nan
        error[i, j] = spread_of(each) / math.sqrt(len(each)) if len(each) > 1 else 0.0
    if sides[0].direction == "lower":
        mean = -mean
    mean, error, seeds = mean - mean.T, error + error.T, seeds + seeds.T
    p_value = p_values(mean, error, 0.0, seeds=np.maximum(seeds, 2))
    chance = np.where(mean > 0, 1 - p_value / 2, p_value / 2)
    chance = np.where(error == 0, mean >= 0, chance)  # what no seed changes is compared as it is
    return np.where(np.isnan(mean), 0.5, chance)


def undominated(points: Sequence[Point], *, at_most: float = 0.5) -> list[str]:
    """Return the entries that are more likely than not dominated by nobody, in their order."""
    return [point.contestant for point in points if point.dominated <= at_most]

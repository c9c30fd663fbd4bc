"""The ranked rows of one suite: cell records in, Board out, without store, torch or screen."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from whitebench.result import CellRecord
from whitebench_leaderboards.entry import Entry, distinct, make_entry, outcome_of
from whitebench_leaderboards.heading import Heading
from whitebench_leaderboards.statistics import CONFIDENCE, Difference, Outcome, paired_difference

__all__ = ["Board", "Comparison", "Entry", "Heading", "make_board"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two ranked entries of one task, better mean first."""

    task: str
    first: str
    second: str
    difference: Difference


@dataclass(frozen=True, kw_only=True)
class Board:
    """The ranked rows of one suite."""

    heading: Heading
    confidence: float
    """Of every interval and of every comparison of two entries."""
    entries: tuple[Entry, ...]
    """By task in the suite's order; ranked ones first, best mean first."""
    comparisons: tuple[Comparison, ...]
    """Every pair of ranked entries of a task."""

    def of_task(self, task: str) -> tuple[Entry, ...]:
        """Return the entries of `task`, in the board's order."""
        return tuple(entry for entry in self.entries if entry.task == task)

    def compare(self, task: str, first: str, second: str) -> Difference | None:
        """Return `first` minus `second`, for the order they stand in on the board; None where one is unranked."""
        wanted = (task, first, second)
        found = (c for c in self.comparisons if (c.task, c.first, c.second) == wanted)
        return next((comparison.difference for comparison in found), None)

    @property
    def is_empty(self) -> bool:
        """Return whether no entry has a single number."""
        return all(entry.primary.estimate.mean is None for entry in self.entries)


def make_board(records: Sequence[CellRecord], heading: Heading, *, confidence: float = CONFIDENCE) -> Board:
    """Return the board of every planned square of a suite's grid, guests included.

    An entry is ranked where every planned seed is finished and has the primary metric.
    """
    entries: list[Entry] = []
    comparisons: list[Comparison] = []
    tasks = distinct([*heading.tasks, *(record.cell.task for record in records)])
    for task in tasks:
        of_task = [record for record in records if record.cell.task == task]
        rows: list[tuple[Entry, Outcome]] = []
        for contestant in distinct(record.cell.contestant for record in of_task):
            own = [record for record in of_task if record.cell.contestant == contestant]
            rows.append((make_entry(own, heading, confidence), outcome_of(own, heading.primary)))
        ranked, found = _ranked(rows, heading, confidence)
        unranked = sorted((entry for entry, _ in rows if entry.unranked), key=_unranked_order(heading))
        entries += [*ranked, *unranked]
        comparisons += found
    return Board(heading=heading, confidence=confidence, entries=tuple(entries), comparisons=tuple(comparisons))


def _ranked(
    rows: Sequence[tuple[Entry, Outcome]], heading: Heading, confidence: float
) -> tuple[list[Entry], list[Comparison]]:
    """Return the rankable entries, best mean first, with rank ranges, and all their comparisons.

    The best rank an entry may have is one more than the number of entries shown to be better, the worst
    is their total less the number shown to be worse.
    """
    order = _order(heading)
    rankable = sorted((row for row in rows if not row[0].unranked), key=lambda row: order(row[0]))
    better, worse = [0] * len(rankable), [0] * len(rankable)
    comparisons = []
    for i, j in combinations(range(len(rankable)), 2):
        (first, ours), (second, theirs) = rankable[i], rankable[j]
        difference = paired_difference(ours, theirs, confidence=confidence)
        comparisons.append(
            Comparison(task=first.task, first=first.contestant, second=second.contestant, difference=difference)
        )
        if difference.is_shown:
            better[j] += 1
            worse[i] += 1
    ranked = [
        dataclasses.replace(entry, rank=(1 + better[i], len(rankable) - worse[i]), is_leader=i == 0)
        for i, (entry, _) in enumerate(rankable)
    ]
    return ranked, comparisons


def _order(heading: Heading) -> Callable[[Entry], float]:
    sign = 1.0 if heading.direction == "lower" else -1.0
    return lambda entry: sign * entry.primary.estimate.mean if entry.primary.estimate.mean is not None else math.inf


def _unranked_order(heading: Heading) -> Callable[[Entry], tuple[bool, bool, float]]:
    order = _order(heading)
    return lambda entry: (entry.primary.estimate.mean is None, entry.is_stale, order(entry))

"""The ranked rows of one suite: cell records in, Board out, without store, torch or screen."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from whitebench.result import CellRecord
from whitebench_leaderboards.comparison import Comparisons, compare_all
from whitebench_leaderboards.entry import Entry, make_entry, outcome_of
from whitebench_leaderboards.heading import Heading
from whitebench_leaderboards.statistics import CONFIDENCE, Difference, Outcome

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
    compared: Mapping[str, Comparisons]
    """By task, every pair of ranked entries; tasks in the suite's order."""
    sources: Mapping[str, Mapping[str, Sequence[CellRecord]]] = field(repr=False)
    """By task and contestant, the cells it was made of."""

    def of_task(self, task: str) -> tuple[Entry, ...]:
        """Return the entries of `task`, in the board's order."""
        return tuple(entry for entry in self.entries if entry.task == task)

    def compare(self, task: str, first: str, second: str) -> Difference | None:
        """Return `first` minus `second`; None where one is unranked."""
        return self.compared[task].difference(first, second) if task in self.compared else None

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Every pair of ranked entries of a task, better mean first."""
        return tuple(
            Comparison(task=task, first=first, second=second, difference=difference)
            for task, compared in self.compared.items()
            for first, second in combinations(compared.names, 2)
            if (difference := compared.difference(first, second)) is not None
        )

    @property
    def ended(self) -> str:
        """Return when the last of its cells was done: UTC, ISO 8601; empty where none is."""
        return max((entry.ended for entry in self.entries), default="")

    @property
    def is_empty(self) -> bool:
        """Return whether no entry has a single number."""
        return all(entry.primary.estimate.mean is None for entry in self.entries)


def make_board(
    records: Sequence[CellRecord], heading: Heading, *, confidence: float = CONFIDENCE, last: Board | None = None
) -> Board:
    """Return the board of every planned square of a suite's grid, guests included.

    An entry is ranked where every planned seed is finished and has the primary metric. Of the `last` board of the same
    suite the tasks whose cells are still the same are taken over.
    """
    entries: list[Entry] = []
    compared: dict[str, Comparisons] = {}
    sources: dict[str, dict[str, list[CellRecord]]] = {task: {} for task in heading.tasks}
    for record in records:
        sources.setdefault(record.cell.task, {}).setdefault(record.cell.contestant, []).append(record)
    is_alike = last is not None and (last.heading, last.confidence) == (heading, confidence)
    for task, by_contestant in sources.items():
        if last is not None and is_alike and last.sources.get(task) == by_contestant:
            entries += last.of_task(task)
            compared[task] = last.compared[task]
            continue
        rows: list[tuple[Entry, Outcome]] = [
            (make_entry(own, heading, confidence), outcome_of(own, heading.primary)) for own in by_contestant.values()
        ]
        ranked, compared[task] = _ranked(rows, heading, confidence)
        unranked = sorted((entry for entry, _ in rows if entry.unranked), key=_unranked_order(heading))
        entries += [*ranked, *unranked]
    return Board(heading=heading, confidence=confidence, entries=tuple(entries), compared=compared, sources=sources)


def _ranked(
    rows: Sequence[tuple[Entry, Outcome]], heading: Heading, confidence: float
) -> tuple[list[Entry], Comparisons]:
    """Return the rankable entries, best mean first, with rank ranges, and all their comparisons."""
    order, is_lower_better = _order(heading), heading.direction == "lower"
    rankable = sorted((row for row in rows if not row[0].unranked), key=lambda row: order(row[0]))
    compared = compare_all({entry.contestant: outcome for entry, outcome in rankable}, confidence=confidence)
    ranks = compared.ranks(is_lower_better=is_lower_better)
    ranked = [
        dataclasses.replace(
            entry,
            rank=rank,
            is_leader=place == 0,
            p_best=compared.against_better(entry.contestant, is_lower_better=is_lower_better),
        )
        for place, ((entry, _), rank) in enumerate(zip(rankable, ranks, strict=True))
    ]
    return ranked, compared


def _order(heading: Heading) -> Callable[[Entry], float]:
    sign = 1.0 if heading.direction == "lower" else -1.0
    return lambda entry: sign * entry.primary.estimate.mean if entry.primary.estimate.mean is not None else math.inf


def _unranked_order(heading: Heading) -> Callable[[Entry], tuple[bool, bool, float]]:
    order = _order(heading)
    return lambda entry: (entry.primary.estimate.mean is None, entry.is_stale, order(entry))

"""Contestants side by side: their paired differences on every task, and every number beside the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from whitebench_leaderboards.board import Board
from whitebench_leaderboards.entry import distinct
from whitebench_leaderboards.notation import SHARE, Quantity, percent, plus_minus
from whitebench_leaderboards.sheet import Field, Sheet
from whitebench_leaderboards.statistics import Difference

MOST_RIVALS = 5
"""Contestants, each the best of a task, that another one is compared with."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two contestants on one task, first minus second."""

    first: str
    second: str
    difference: Difference | None
    """None where one of the two has no rank."""
    quantity: Quantity | None
    """The difference ± the smallest that the data can show."""
    is_noise: bool = False
    """Whether it is below the suite's noise floor."""


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """What is side by side on one task."""

    task: str
    labels: tuple[str, ...]
    """In the board's order."""
    pairs: tuple[Pair, ...]
    sheet: Sheet
    fields: tuple[tuple[Field, ...], ...]
    """A row per column of the sheet, a field per contestant."""


def pair_up(board: Board, labels: Sequence[str], sheets: Sequence[Sheet]) -> list[Pairing]:
    """Return how the contestants `labels` stand to each other, task by task; `sheets` are those of the board."""
    pairings = []
    for sheet, task in zip(sheets, distinct(entry.task for entry in board.entries), strict=True):
        rows = zip(board.of_task(task), sheet.rows, strict=True)
        found = [(entry.contestant, row) for entry, row in rows if entry.contestant in labels]
        ordered = tuple(label for label, _ in found)
        pairings.append(
            Pairing(
                task=sheet.task,
                labels=ordered,
                pairs=tuple(_pair(board, task, first, second) for first, second in combinations(ordered, 2)),
                sheet=sheet,
                fields=tuple(tuple(row.fields[index] for _, row in found) for index in range(len(sheet.columns))),
            )
        )
    return pairings


def rivals_of(board: Board, label: str) -> dict[str, tuple[str, str]]:
    """Return whom a contestant is to be compared with, each with both of them in the board's order.

    On every task that is the best; whom the best is compared with is the next. Of many tasks' best the first few.
    """
    order = distinct(entry.contestant for entry in board.entries)
    rivals = []
    for task in distinct(entry.task for entry in board.entries if entry.contestant == label):
        ranked = [entry.contestant for entry in board.of_task(task) if entry.rank]
        rivals += [one for one in ranked[:2] if one != label][:1]
    first = distinct(rivals)[:MOST_RIVALS]
    return {one: (min(one, label, key=order.index), max(one, label, key=order.index)) for one in first}


def _pair(board: Board, task: str, first: str, second: str) -> Pair:
    difference = board.compare(task, first, second)
    write = percent if board.heading.unit == SHARE else plus_minus
    if difference is not None and difference.value is not None:
        return Pair(
            first=first,
            second=second,
            difference=difference,
            quantity=write(difference.value, difference.smallest, is_signed=True),
            is_noise=board.heading.is_noise(difference.value),
        )
    return Pair(first=first, second=second, difference=difference, quantity=None)

"""Several tasks as a whole, against numbers of the literature and of other libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from whitebench.result import CellRecord
from whitebench_leaderboards.board import Board, make_board
from whitebench_leaderboards.overall import Overall, OverallEntry, overall
from whitebench_leaderboards.render import render

if TYPE_CHECKING:
    from tests.leaderboards.conftest import World

TASKS = tuple(f"task-{i}" for i in range(6))


def scores(shift: float, seed: int) -> list[float]:
    return [0.8 + shift + 0.01 * float(noise) for noise in np.random.default_rng(seed).normal(size=3)]


def records_of_six(world: World, tasks: tuple[str, ...] = TASKS) -> list[CellRecord]:
    """Return three entries of which `best` leads everywhere but on the last task, and one that lacks two tasks."""
    shifts = {"best": 0.1, "middle": 0.05, "low": 0.0}
    records = [
        record
        for place, (name, shift) in enumerate(shifts.items())
        for number, task in enumerate(tasks)
        for record in world.entry(
            name, scores(-0.1 if (name, task) == ("best", TASKS[-1]) else shift, 10 * number + place), task=task
        )
    ]
    records += [record for task in tasks[:-2] for record in world.entry("partial", scores(0.2, 99), task=task)]
    return records


def board(world: World, tasks: tuple[str, ...] = TASKS) -> Board:
    return make_board(records_of_six(world, tasks), world.heading(tasks=tasks))


def whole(made: Board) -> Overall:
    found = overall(made)
    assert found is not None
    return found


def test_mean_ranks_are_over_entries_that_stand_on_every_task_and_the_others_are_named(world: World) -> None:
    found = whole(board(world))
    assert {one.contestant: one.mean_rank for one in found.entries} == pytest.approx(
        {"best": (5 * 1 + 3) / 6, "middle": (5 * 2 + 1) / 6, "low": (5 * 3 + 2) / 6}
    )
    assert found.lacking == (("partial", TASKS[-2:]),)
    assert found.coverage == "3 of 4 contestants on all 6 tasks"


def test_bars_join_the_longest_stretches_of_mean_ranks_that_are_not_told_apart() -> None:
    def joined(ranks: list[float], apart: float | None) -> list[tuple[int, int]]:
        entries = tuple(
            OverallEntry(contestant=f"{rank}", mean_rank=rank, interquartile_mean=None, interval=None) for rank in ranks
        )
        return Overall(tasks=(), entries=entries, lacking=(), critical_difference=apart, improvement=()).joined

    assert joined([1.0, 2.0, 2.5, 4.0], 1.6) == [(0, 2), (2, 3)]
    assert joined([1.0, 1.5, 2.0], 5.0) == [(0, 2)]
    assert joined([1.0, 2.0], 0.5) == joined([1.0, 2.0], None) == []


def test_one_task_is_no_whole_and_below_five_there_are_mean_ranks_alone(world: World) -> None:
    assert overall(board(world, TASKS[:1])) is None
    few = whole(board(world, TASKS[:4]))
    assert few.critical_difference is None
    assert few.improvement == ()
    assert all(one.interquartile_mean is None for one in few.entries)


def test_the_interquartile_mean_leaves_out_the_lowest_and_the_highest_quarter(world: World) -> None:
    made = board(world)
    (best,) = [one for one in whole(made).entries if one.contestant == "best"]
    every = sorted(v for entry in made.entries if entry.contestant == "best" for v in entry.primary.values.values())
    assert len(every) == 18
    assert best.interquartile_mean == pytest.approx(np.mean(every[4:14]))
    assert best.interval is not None
    assert best.interquartile_mean is not None
    assert best.interval[0] <= best.interquartile_mean <= best.interval[1]


def test_the_probability_of_improvement_is_mann_and_whitneys(world: World) -> None:
    made = board(world)
    found = whole(made)
    names = [one.contestant for one in found.entries]
    rows = {(e.contestant, e.task): list(e.primary.values.values()) for e in made.entries}
    for i, first in enumerate(names):
        for j, second in enumerate(names):
            each = [mannwhitneyu(rows[first, t], rows[second, t]).statistic / 9 for t in TASKS]
            assert found.improvement[i][j] == pytest.approx(np.mean(each))
    assert found.improvement[0][0] == 0.5


def test_the_critical_difference_is_that_of_demsars_table(world: World) -> None:
    # Demsar 2006, table 5: q at 0.05 is 2.343 for three classifiers.
    found = whole(board(world))
    assert found.critical_difference == pytest.approx(2.343 * np.sqrt(3 * 4 / (6 * 6)), abs=1e-3)


def test_the_board_prints_the_whole_below_its_tasks(world: World) -> None:
    text = render(board(world), "table", width=80)
    part = text[text.index("All 6 tasks") :]
    assert part.splitlines()[1].split()[:3] == ["contestant", "mean", "rank"]
    assert part.splitlines()[3].split()[:2] == ["best", "1.33"]
    assert "partial is not ranked on task-4, task-5." in " ".join(part.split())
    assert "### All 6 tasks" in render(board(world), "markdown")
    assert '"critical_difference"' in render(board(world), "json")
    assert "All 1 tasks" not in render(board(world, TASKS[:1]), "table", width=80)

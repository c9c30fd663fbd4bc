"""The charts of several tasks as a whole: the numbers of the printed board, place by place."""

from __future__ import annotations

import pytest

from tests.leaderboards.conftest import World
from tests.leaderboards.test_overall import TASKS, board
from whitebench_leaderboards.overall import overall
from whitebench_leaderboards.server.whole import whole_charts


def test_mean_ranks_stand_by_name_and_bars_join_what_is_not_told_apart(world: World) -> None:
    made = board(world)
    chart, *_ = whole_charts(made)
    whole = overall(made)
    assert whole is not None
    assert chart.rows == ("best", "middle", "low")
    assert [(one.name, one.x, one.y) for one in chart.spots] == [
        (one.contestant, one.mean_rank, place) for place, one in enumerate(whole.entries)
    ]
    assert [list(line.x) for line in chart.lines] == [
        [whole.entries[first].mean_rank, whole.entries[last].mean_rank] for first, last in whole.joined
    ]
    assert chart.title == "Mean rank over 6 tasks; bars join what differs by less than 1.35 (Nemenyi, 95 %)"


def test_interquartile_means_are_in_per_cent_with_their_intervals(world: World) -> None:
    made = board(world)
    _, chart, _ = whole_charts(made)
    whole = overall(made)
    assert whole is not None
    for spot, one in zip(chart.spots, whole.entries, strict=True):
        assert one.interquartile_mean is not None
        assert one.interval is not None
        assert spot.x == pytest.approx(100 * one.interquartile_mean)
        assert spot.x_interval == pytest.approx(tuple(100 * bound for bound in one.interval))
    assert chart.x == "accuracy (%) ↑"


def test_who_beats_whom_is_a_matrix_whose_halves_add_up_and_says_who_takes_part(world: World) -> None:
    _, _, chart = whole_charts(board(world))
    for row, values in enumerate(chart.matrix):
        for column, value in enumerate(values):
            other = chart.matrix[column][row]
            assert (value is None and row == column) or value + other == pytest.approx(100)  # type: ignore[operator]
    assert chart.title.endswith("3 of 4 contestants on all 6 tasks")


def test_few_tasks_have_mean_ranks_alone_and_one_has_nothing(world: World) -> None:
    [chart] = whole_charts(board(world, TASKS[:4]))
    assert (chart.title, chart.lines) == ("Mean rank over 4 tasks", ())
    assert whole_charts(board(world, TASKS[:1])) == []

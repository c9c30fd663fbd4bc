"""What is drawn of a board, and that hostile names and few entries do no harm."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.leaderboards.test_overall import board
from whitebench.tags import StoredStudy
from whitebench_leaderboards.board import make_board
from whitebench_leaderboards.charts import draw_board
from whitebench_leaderboards.tuning import curves_of

if TYPE_CHECKING:
    from tests.leaderboards.conftest import World


def test_a_board_has_a_chart_of_each_measure_with_a_direction_and_one_of_its_tuning(
    world: World, tmp_path: Path
) -> None:
    made = make_board(world.full(), world.heading())
    studies = [
        StoredStudy(contestant=entry.contestant, task="digits", choice=entry.choice, validation={0: 0.9, 2: 0.95})
        for entry in made.entries[:2]
    ]
    curves = curves_of(made, studies)
    assert [(one.contestant, one.trials, one.lost) for one in curves["digits"]] == [
        ("vit", 3, 1),
        ("crate[dim=64,depth=4]", 3, 1),
    ]
    files = draw_board(made, curves, tmp_path)
    assert {file.stem for file in files} == {
        "tradeoff-digits-cross-entropy", "tradeoff-digits-calibration-error", "tuning-digits",
    }  # fmt: skip
    assert all(file.stat().st_size > 2000 for file in files)
    assert "best of k trials" in (tmp_path / "tuning-digits.svg").read_text().lower()


def test_a_study_that_chose_something_else_is_not_the_entrys(world: World) -> None:
    made = make_board(world.full(), world.heading())
    other = StoredStudy(contestant="vit", task="digits", choice="another", validation={0: 0.9})
    assert curves_of(made, [other]) == {}


def test_many_tasks_have_a_chart_of_mean_ranks(world: World, tmp_path: Path) -> None:
    files = draw_board(board(world), {}, tmp_path)
    assert "mean-ranks" in {file.stem for file in files}


def test_a_board_with_one_entry_or_none_has_no_chart(world: World, tmp_path: Path) -> None:
    assert draw_board(make_board(world.entry("a", [0.9, 0.8, 0.7]), world.heading()), {}, tmp_path) == []
    assert draw_board(make_board([], world.heading()), {}, tmp_path) == []

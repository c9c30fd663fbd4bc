"""A board as one table, and a square for every cell."""

from __future__ import annotations

from tests.leaderboards.conftest import World
from tests.leaderboards.server.conftest import Held
from whitebench_leaderboards.board import make_board
from whitebench_leaderboards.server.grid import MOST_COLUMNS, MOST_SQUARES, grid_of, matrix_of, reasons_of
from whitebench_leaderboards.server.reader import Reader


def test_footnotes_are_numbered_through_all_tasks(world: World) -> None:
    records = [world.record("vit", 0, 0.9, task=task, edges=[task]) for task in ("digits", "faces")]
    grid = grid_of(make_board(records, world.heading(seeds=[0], tasks=["digits", "faces"])))
    first, second = grid.groups
    assert first.sheet.notes != second.sheet.notes
    numbers = [
        grid.number(group.sheet, place) for group in grid.groups for place in range(1, len(group.sheet.notes) + 1)
    ]
    assert [grid.notes[number - 1] for number in numbers] == [*first.sheet.notes, *second.sheet.notes]


def test_before_anybody_chooses_the_columns_that_say_something_are_shown_up_to_a_number(world: World) -> None:
    many = [world.score(f"metric-{place:02}", 0.5) for place in range(30)]
    silent = world.score("a-silent-one", None, unscored="")
    records = [world.record("vit", seed, 0.9, scores=[silent, *many]) for seed in range(3)]
    grid = grid_of(make_board(records, world.heading()))
    keys = [column.key for column in grid.columns]
    assert keys[:3] == ["rank", "contestant", "score/accuracy"]
    assert "values" not in keys
    assert len(keys) == MOST_COLUMNS
    assert grid.has_interval


def test_whoever_chooses_gets_what_he_chose_beside_rank_and_name(world: World) -> None:
    grid = grid_of(make_board(world.full(), world.heading()), ["values", "nonsense"])
    assert [column.key for column in grid.columns] == ["rank", "contestant", "values"]
    assert not grid.has_interval
    assert "score/cross-entropy" in {column.key for column in grid.offered}


def test_every_cell_has_its_square(held: Held, reader: Reader) -> None:
    matrix = matrix_of(reader.ledger("tiny"))
    assert matrix.contestants == ("vit", "crate[dim=64,depth=4]", "slow", "partial", "old", "never")
    assert [record.state for record in matrix.squares["partial", "digits"].cells] == ["finished", "finished", "failed"]
    assert dict(matrix.counts) == {"finished": 11, "failed": 1, "stale": 3, "missing": 3}
    assert not matrix.is_whole


def test_too_many_seeds_are_counted(world: World, held: Held, reader: Reader) -> None:
    held.records = [world.absent("vit", seed, "missing") for seed in range(MOST_SQUARES + 1)]
    square = matrix_of(reader.ledger("tiny")).squares["vit", "digits"]
    assert square.cells == ()
    assert square.counts == (("missing", MOST_SQUARES + 1),)


def test_cells_without_a_current_result_stand_by_their_reason(held: Held, reader: Reader) -> None:
    reasons = reasons_of(reader.ledger("tiny"))
    assert [len(records) for records in reasons.values()] == [1, 3, 3]
    assert ("failed", "oom: needs 3 GiB more") in reasons

"""What a row says of its scores since they were reported."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from typing import TYPE_CHECKING

import pytest

from whitebench.result import CellRecord
from whitebench.verification import Standing, Verification
from whitebench_leaderboards.board import Board, make_board
from whitebench_leaderboards.column import columns_of
from whitebench_leaderboards.export import to_csv, to_json

if TYPE_CHECKING:
    from tests.leaderboards.conftest import World


def verified(record: CellRecord, standing: Standing | None, day: int = 1) -> CellRecord:
    """Return the record as it stands since it was verified on that day; None for as reported."""
    if standing is None:
        return record
    found = Verification(
        is_repeated=standing == "reproduced",
        when=f"2026-01-{day:02}T00:00:00.000Z",
        device="a processor",
        threads=1,
        versions={},
        num_scores=3,
        differences=["accuracy: differs"] if standing == "differs" else [],
    )
    return dataclasses.replace(record, verification=found)


def board_of(world: World, *standings: Standing | None) -> Board:
    seeds = range(len(standings))
    records = [
        verified(record, standing, day)
        for day, (record, standing) in enumerate(zip(world.entry("vit", [0.9] * len(seeds)), standings, strict=True), 1)
    ]
    return make_board(records, world.heading(seeds=seeds))


@pytest.mark.parametrize(
    ("standings", "weakest"),
    [
        ((None, None), "as reported"),
        (("recomputed", None), "as reported"),
        (("recomputed", "reproduced"), "recomputed"),
        (("reproduced", "reproduced"), "reproduced"),
        (("reproduced", "differs"), "differs"),
        ((None, "differs"), "differs"),
    ],
)
def test_an_entry_is_verified_as_far_as_its_weakest_seed(
    world: World, standings: tuple[Standing | None, ...], weakest: str
) -> None:
    board = board_of(world, *standings)
    assert board.entries[0].verified == weakest
    assert json.loads(to_json(board))["entries"][0]["verified"] == weakest
    [row] = csv.DictReader(io.StringIO(to_csv(board)))
    assert row["verified"] == weakest


def test_a_seed_that_differs_is_flagged(world: World) -> None:
    [entry] = board_of(world, "differs", "reproduced", "differs").entries
    assert entry.flags == ("computed again, scores of seeds 0, 2 are not those reported",)


def test_the_column_says_when_and_on_what_and_is_there_once_anything_was_verified(world: World) -> None:
    assert "verified" not in {column.key for column in columns_of(board_of(world, None, None))}
    board = board_of(world, "recomputed", "recomputed", "reproduced")
    [column] = [column for column in columns_of(board) if column.key == "verified"]
    cell = column.write(board.entries[0])
    assert cell.text == "recomputed"
    assert cell.notes == ("recomputed 2026-01-02 on a processor", "reproduced 2026-01-03 on a processor")


def test_json_says_of_each_seed_what_came_out(world: World) -> None:
    cells = json.loads(to_json(board_of(world, "differs", None)))["entries"][0]["cells"]
    assert cells[0]["verification"]["differences"] == ["accuracy: differs"]
    assert cells[1]["verification"] is None

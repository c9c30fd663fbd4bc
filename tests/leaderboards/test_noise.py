"""A difference that one cell shows from itself is no difference: it is greyed wherever the board is shown."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from whitebench_leaderboards.board import Board, make_board
from whitebench_leaderboards.render import render
from whitebench_leaderboards.sheet import legend
from whitebench_leaderboards.table import print_table

if TYPE_CHECKING:
    from tests.leaderboards.conftest import World

FLOOR = 0.004
"""Between the gap of crate, .0028, and that of slow, .125."""


@pytest.fixture
def board(world: World) -> Board:
    return make_board(world.full(), replace(world.heading(), noise_floor={"accuracy": FLOOR, "cross-entropy": 9.0}))


def test_on_a_terminal_the_gap_within_the_noise_is_faint_and_the_larger_one_is_not(board: Board) -> None:
    text = io.StringIO()
    print_table(board, Console(file=text, width=80, force_terminal=True, color_system="truecolor"))
    assert re.search(r"\x1b\[2m *−0.3 ± 1.9", text.getvalue())
    assert not re.search(r"\x1b\[2m *−12.5 ± 5.8", text.getvalue())


def test_in_markdown_it_stands_in_brackets(board: Board) -> None:
    text = render(board, "markdown")
    assert "| (−0.3 ± 1.9) |" in text
    assert "| −12.5 ± 5.8 |" in text


def test_programs_are_told_the_floor_and_which_pairs_are_within_it(board: Board) -> None:
    document = json.loads(render(board, "json"))
    assert document["suite"]["noise_floor"]["accuracy"] == FLOOR
    assert {(one["first"], one["second"]): one["is_noise"] for one in document["comparisons"]} == {
        ("vit", "crate[dim=64,depth=4]"): True,
        ("vit", "slow"): False,
        ("crate[dim=64,depth=4]", "slow"): False,
    }


def test_the_legend_says_how_large_the_floor_is_and_where_it_comes_from(board: Board, world: World) -> None:
    assert "Greyed where it is within the noise floor, 0.4 points: as much as one cell differs from itself" in legend(
        board
    )
    assert "noise" not in legend(make_board(world.full(), world.heading()))
    exact = make_board(world.full(), replace(world.heading(), noise_floor={"accuracy": 0.0}))
    assert "Noise floor 0.0 points: one cell repeated in other settings gave the same value" in legend(exact)

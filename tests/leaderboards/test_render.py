"""Every format, by its name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, get_args

import pytest

from whitebench.ledger import Published
from whitebench_leaderboards.board import make_board
from whitebench_leaderboards.render import Format, render

if TYPE_CHECKING:
    from tests.leaderboards.conftest import World


@pytest.mark.parametrize("wanted", get_args(Format))
def test_every_format_names_suite_contestant_and_value_and_ends_its_line(world: World, wanted: Format) -> None:
    text = render(make_board(world.entry("vit", [0.9, 0.8, 0.7]), world.heading()), wanted, width=80)
    assert "tiny" in text
    assert "vit" in text
    assert ("0.8" if wanted in {"csv", "json"} else "80") in text
    assert text.endswith("\n")


@pytest.mark.parametrize("wanted", get_args(Format))
def test_every_format_can_print_a_board_without_entries(world: World, wanted: Format) -> None:
    assert render(make_board([], world.heading()), wanted, width=80)


def test_what_papers_state_for_the_task_stands_below_the_rows_with_its_source(world: World) -> None:
    stated = Published(
        model="vit", task="digits", what="top-1, T/16, %", value=99.1, title="A <b>paper</b>", url="https://example.org"
    )
    other = replace(stated, task="glyphs", value=777.25)
    board = make_board(world.full(), replace(world.heading(), published=(stated, other)))
    formats: tuple[Format, ...] = ("table", "markdown", "latex")
    for wanted in formats:
        text = " ".join(render(board, wanted, width=80).split())
        assert "Published elsewhere, under other budgets and unranked:" in text
        assert "99.1" in text
        assert "777" not in text
    assert '"published": [' in render(board, "json")
    assert "<b>" not in render(board, "markdown")
    ranked = make_board(world.full(), world.heading())
    assert [(one.contestant, one.rank) for one in board.entries] == [
        (one.contestant, one.rank) for one in ranked.entries
    ]

"""Every format, by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import pytest

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

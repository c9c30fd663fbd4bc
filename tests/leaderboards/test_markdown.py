"""The board as GitHub's Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whitebench_leaderboards.board import make_board
from whitebench_leaderboards.markdown import escape, to_markdown

if TYPE_CHECKING:
    from tests.leaderboards.conftest import World


def test_each_row_has_as_many_cells_as_the_head(world: World) -> None:
    text = to_markdown(make_board(world.full(), world.heading()))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 6
    assert len({row.count(" | ") for row in rows}) == 1
    assert set(rows[1].replace(" ", "").strip("|").split("|")) == {":--", "--:"}


def test_the_best_mean_is_bold_and_footnotes_are_numbered(world: World) -> None:
    text = to_markdown(make_board(world.full(), world.heading()))
    assert "| 1–2 | vit <sup>1</sup> | **96.0 ± 1.7** | best | – | 3/3 |" in text
    assert text.count("**") == 2
    assert "| *95.7 ± 1.4* |" in text  # tied with it
    assert "<sup>1</sup> chosen on the edge of its space" in text
    assert "- never, seeds 0, 1, 2: missing: not run yet" in text


def test_hostile_names_stay_text(world: World) -> None:
    text = to_markdown(make_board(world.entry("<script>|x", [0.9, 0.8, 0.7]), world.heading()))
    assert "<script>" not in text
    assert "&lt;script&gt;\\|x" in text
    assert escape("a*b`c\\") == "a\\*b\\`c\\\\"

"""The board as a LaTeX table, checked by its structure: LaTeX itself is no dependency."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from whitebench_leaderboards.board import make_board
from whitebench_leaderboards.latex import escape, to_latex

if TYPE_CHECKING:
    from tests.leaderboards.conftest import World


def unescaped(character: str, text: str) -> int:
    return len(re.findall(rf"(?<!\\){re.escape(character)}", text))


def test_it_is_one_booktabs_table_with_a_cell_for_every_column(world: World) -> None:
    text = to_latex(make_board(world.full(), world.heading()))
    assert re.findall(r"\\(?:begin|end)\{\w+\}", text) == [
        r"\begin{table}",
        r"\begin{tabular}",
        r"\end{tabular}",
        r"\end{table}",
    ]
    assert re.findall(r"\\(?:top|mid|bottom)rule", text) == [r"\toprule", r"\midrule", r"\bottomrule"]
    found = re.search(r"\\begin\{tabular\}\{@\{\}([lr]+)@\{\}\}", text)
    assert found
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 3 + 6  # a head of three lines
    assert {unescaped("&", row) for row in rows} == {len(found[1]) - 1}


def test_braces_and_dollars_are_balanced(world: World) -> None:
    text = to_latex(make_board(world.full(), world.heading()))
    assert unescaped("{", text) == unescaped("}", text)
    assert all(unescaped("$", line) % 2 == 0 for line in text.splitlines())
    assert text.isascii()


def test_the_best_mean_is_bold_and_the_caption_names_suite_and_version(world: World) -> None:
    text = to_latex(make_board(world.full(), world.heading()))
    assert text.count(r"\mathbf") == 1
    assert r"$\mathbf{96.0} \pm 1.7$" in text
    assert r"\caption{\textsc{tiny}, version 1 on digits: 3 seeds; 10 epochs" in text
    assert r"\label{tab:tiny}" in text
    assert r"learning\_rate" in text


def test_two_tasks_are_two_blocks_that_share_footnotes(world: World) -> None:
    records = world.entry("a", [0.9], task="one") + world.entry("a", [0.8], task="two")
    text = to_latex(make_board(records, world.heading(tasks=("one", "two"), seeds=(0,))))
    assert text.count(r"\midrule") == 2
    assert text.count(r"\emph{") == 2
    assert text.count("no interval") == 1
    assert text.count(r"\textsuperscript{1}") == 3


def test_special_characters_are_literal() -> None:
    assert escape("50% of a_b & #1 {x} $y ~^\\") == (
        r"50\% of a\_b \& \#1 \{x\} \$y \textasciitilde{}\textasciicircum{}\textbackslash{}"
    )
    assert escape("1–2 ± −3") == r"1--2 $\pm$ $-$3"


def test_the_caption_says_suite_version_date_and_where_the_board_is(world: World) -> None:
    text = to_latex(make_board(world.full(), world.heading()), "https://example.org/suite/tiny_1")
    (caption,) = [line for line in text.splitlines() if line.startswith(r"\caption")]
    assert caption.startswith(r"\caption{\textsc{tiny}, version 1 on digits: ")
    assert caption.endswith(r"Results as of 2026-01-01. https://example.org/suite/tiny\_1}")


def test_what_is_tied_with_the_best_is_underlined(world: World) -> None:
    text = to_latex(make_board(world.full(), world.heading()))
    assert text.count(r"\mathbf{96.0} \pm 1.7") == 1
    assert text.count(r"\underline{95.7} \pm 1.4") == 1
    assert "underlined what the data do not tell from the best" in text

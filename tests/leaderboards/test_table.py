"""The board in a terminal of 80 and of 200 columns."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from rich.cells import cell_len
from rich.console import Console

from whitebench.result import CellRecord
from whitebench_leaderboards.board import make_board
from whitebench_leaderboards.render import render
from whitebench_leaderboards.table import print_table

if TYPE_CHECKING:
    from tests.leaderboards.conftest import World

NARROW = """\
tiny, version 1
Two small models on small images.
3 seeds; 10 epochs, 3 tuning trials, batches of 64, precision 32, 1 thread a fit

digits
                             accuracy ↑          gap
rank  contestant                      %       points  seeds  parameters  trials
───────────────────────────────────────────────────────────────────────────────
1–2   vit ¹                  96.0 ± 1.7         best    3/3      41.2 k     3/3
1–2   crate[dim=64,depth=4]  95.7 ± 1.4   −0.3 ± 1.9    3/3      28.9 k     3/3
3     slow ² ³               83.5 ± 3.1  −12.5 ± 5.8    3/3         3 M     3/3
– ⁴   partial                90.5 ± 6.4            –    2/3        10 k     3/3
–     old ⁵                  81.0 ± 2.5            –    3/3        10 k     3/3
–     never                           –            –    0/3           –       –
 ¹ chosen on the edge of its space, the optimum may lie outside: learning_rate
 ² guest: added on the command line, not in the suite's file
 ³ test split opened 6 times in this store for 3 seeds
 ⁴ unranked: 2 of 3 seeds
 ⁵ stale and unranked, numbers from before a change: the model's source has
   changed
Between neighbours, 3 shared seeds and 360 shared test samples can show a
difference from 1.9 to 4.9 points upwards (95 % per pair). A rank is a range
that holds with 95 %, an entry's 2 comparisons corrected by Holm.
Cells without a current result:
 - partial, seed 2: failed: oom: needs 3 GiB more
 - never, seeds 0, 1, 2: missing: not run yet

"""


def test_a_narrow_table_shows_what_matters_most(world: World) -> None:
    assert render(make_board(world.full(), world.heading()), "table", width=80).startswith(NARROW)


def test_a_narrow_table_names_what_it_leaves_out_and_how_to_see_it(world: World) -> None:
    text = " ".join(render(make_board(world.full(), world.heading()), "table", width=80).split())
    assert "Left out at 80 columns: seeds needed, cross-entropy, calibration-error" in text
    assert "--format csv shows them" in text


def test_a_wide_table_has_every_score_and_the_unscored_reason(world: World) -> None:
    lines = render(make_board(world.full(), world.heading()), "table", width=200).splitlines()
    (crate,) = [line for line in lines if "crate[" in line]
    assert crate.split()[:8] == ["1–2", "crate[dim=64,depth=4]", "95.7", "±", "1.4", "−0.3", "±", "1.9"]
    assert "0.410 ± 0.025" in crate
    assert any("sparsity/nonzero unscored: the model offers no trace 'codes'" in line for line in lines)
    assert not any("sparsity" in line for line in lines if line.startswith("Left out"))


@pytest.mark.parametrize("width", [60, 80, 120, 200, 400])
def test_no_line_is_wider_than_the_terminal(world: World, width: int) -> None:
    text = render(make_board(world.full(), world.heading()), "table", width=width)
    assert max(map(cell_len, text.splitlines())) <= width


def test_a_long_name_is_folded_and_costs_no_other_column_its_place(world: World) -> None:
    label = "crate[" + ",".join(f"option_{i}={i}" for i in range(8)) + "]"
    text = render(make_board(world.entry(label, [0.9, 0.8, 0.7]), world.heading()), "table", width=80)
    body = text.partition("───\n")[2].partition("\n\n")[0].splitlines()
    assert "".join(line[6:32].strip() for line in body) == label
    assert "80 ± 25" in body[0]
    assert "3/3" in body[0]


def test_brackets_in_names_are_no_markup(world: World) -> None:
    text = render(
        make_board(world.entry("[bold]vit[/bold]", [0.9, 0.8]), world.heading(seeds=(0, 1))), "table", width=80
    )
    assert "[bold]vit[/bold]" in text


def test_columns_that_say_nothing_are_not_shown(world: World) -> None:
    text = render(make_board([world.absent("a", 0, "missing")], world.heading()), "table", width=200)
    assert "validation" not in text
    assert "Left out" not in text


def test_without_a_terminal_there_is_no_escape_code(world: World) -> None:
    assert "\x1b" not in render(make_board(world.full(), world.heading()), "table", width=80)


def test_on_a_terminal_no_colour_is_named(world: World) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=80)
    with console.capture() as capture:
        print_table(make_board(world.full(), world.heading()), console)
    codes = {part.partition("m")[0] for part in capture.get().split("\x1b[")[1:]}
    assert codes <= {"0", "1", "2", "1;2", "4"}  # bold, faint, underlined, and back
    assert {"1", "4"} <= codes


def test_a_metric_in_parts_has_no_column_of_its_own_where_a_model_lacks_it(world: World) -> None:
    lacking = world.score("coding-rate", None, unscored="model plain gives no trace of tokens")
    parts = [world.score("coding-rate/share", 0.5), world.score("coding-rate/raw", 9.0)]
    records = [world.record("whole", seed, 0.9, scores=parts) for seed in (0, 1, 2)]
    records += [world.record("plain", seed, 0.8, scores=[lacking]) for seed in (0, 1, 2)]
    text = render(make_board(records, world.heading()), "csv", width=200)
    table = render(make_board(records, world.heading()), "markdown", width=200)
    assert "| coding-rate/share | coding-rate/raw |" in table
    assert "| coding-rate |" not in table
    assert table.count("coding-rate unscored: model plain gives no trace of tokens") == 1
    assert "no trace of tokens" in text


def test_the_command_suggested_names_the_suite_as_it_was_asked_for(world: World) -> None:
    heading = replace(world.heading(overrides=["budget.epochs=3"]), source="my suites/tiny.toml")
    text = render(make_board([world.record("a", 0, 0.9)], heading), "table", width=200)
    assert "whitebench show 'my suites/tiny.toml/a/digits/0' --set budget.epochs=3" in text


def test_a_suite_that_solves_itself_speaks_of_draws_and_of_nothing_that_is_trained(world: World) -> None:
    records = [
        world.record(label, block, right / 25, per_sample=[1.0] * right + [0.0] * (25 - right), test_openings=0)
        for label, rights in (("normalised", (25, 24)), ("adam", (0, 1)))
        for block, right in enumerate(rights)
    ]
    solved = [
        replace(one, result=replace(one.result, validation=None, epochs_allowed=0)) for one in records if one.result
    ]
    heading = replace(world.heading(seeds=(0, 1), trials=0), epochs=0, is_solved=True)
    text = render(make_board(solved, heading), "table", width=300)
    assert "draws in 2 blocks; the tasks solve themselves, nothing is trained; 1 thread a cell" in text
    assert "2 shared blocks of 25 draws can show a difference" in text
    for word in ("trials", "epoch", "validation", "scored as it stands", "batches"):
        assert word not in text


def test_what_a_score_comes_to_where_its_claim_cannot_hold_stands_beside_it_where_there_is_room(world: World) -> None:
    def records(label: str, value: float) -> list[CellRecord]:
        score = world.score("coding-rate/share", value, unit="share", nulls={"untrained": 0.96, "random tokens": 0.99})
        return [world.record(label, seed, 0.9, scores=[score]) for seed in range(3)]

    board = make_board([*records("vit", 0.8), *records("crate", 0.9)], world.heading())
    wide = render(board, "table", width=200)
    assert "96.0" in wide
    assert "untrained" in wide
    narrow = " ".join(render(board, "table", width=60).split())
    assert "the nulls of scores" in narrow
    assert "coding-rate/share untrained" not in narrow
    row = next(csv.DictReader(io.StringIO(render(board, "csv"))))
    assert float(row["coding-rate/share.null.untrained"]) == 0.96
    assert "random tokens" not in render(board, "markdown")

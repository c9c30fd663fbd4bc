"""A board as pandas frames, for a notebook."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import whitebench
from tests.leaderboards.conftest import World
from whitebench.result import Score
from whitebench.store import Store
from whitebench_leaderboards.board import make_board
from whitebench_leaderboards.frames import COMPARISONS, LAYERS, SCORES, frames_of


def test_entries_stand_in_the_boards_order_with_their_ranks(world: World) -> None:
    records = world.full()
    board = make_board(records, world.heading())
    entries = frames_of(board, records).entries
    assert list(entries.contestant) == [entry.contestant for entry in board.entries]
    by_name = entries.set_index("contestant")
    assert [(low, high) for low, high in zip(entries.rank_low, entries.rank_high, strict=True)][:3] == [
        entry.rank for entry in board.entries[:3]
    ]
    assert by_name.loc["vit", "mean"] == pytest.approx((346 + 348 + 343) / 3 / 360)
    assert by_name.loc["never", ["rank_low", "mean"]].isna().all()
    assert by_name.loc["partial", "unranked"] == "2 of 3 seeds"


def test_every_score_and_cost_of_every_cell_is_a_row(world: World) -> None:
    records = world.full()
    scores = frames_of(make_board(records, world.heading()), records).scores
    mine = scores[(scores.contestant == "vit") & (scores.seed == 1)].set_index("score")
    assert mine.loc["accuracy", "value"] == 348 / 360
    assert mine.loc["parameters", "value"] == 41_234.0
    assert (mine.loc["sparsity/nonzero", "unscored"], scores.task.unique().tolist()) == (
        "the model offers no trace 'codes'", ["digits"],
    )  # fmt: skip
    assert scores[scores.contestant == "old"].state.unique().tolist() == ["stale"]


def test_every_layer_stands_beside_its_nulls(world: World) -> None:
    layered = Score(
        name="rate", metric="rate", version=1, direction="none", unit="", value=1.0, profile=(3.0, 2.0),
        spread=(0.5, 0.25), null_profiles={"untrained": (3.0, 4.0)},
    )  # fmt: skip
    bare = Score(name="bare", metric="bare", version=1, direction="none", unit="", value=1.0, profile=(7.0,))
    records = [world.record("vit", 0, 0.9, scores=[layered, bare])]
    layers = frames_of(make_board(records, world.heading()), records).layers
    rate = layers[layers.score == "rate"]
    assert rate[["layer", "value", "spread", "null/untrained"]].values.tolist() == [[1, 3, 0.5, 3], [2, 2, 0.25, 4]]
    assert layers[layers.score == "bare"][["spread", "null/untrained"]].isna().all(axis=None)


def test_every_two_ranked_entries_of_a_task_are_compared(world: World) -> None:
    records = world.entry("low", [0.50, 0.51, 0.52]) + world.entry("high", [0.90, 0.92, 0.91])
    [row] = frames_of(make_board(records, world.heading()), records).comparisons.to_dict("records")
    assert (row["first"], row["second"], row["is_shown"], row["seeds"]) == ("high", "low", True, 3)
    assert row["value"] == pytest.approx(0.4)


def test_a_suite_that_was_not_run_gives_frames_without_numbers(
    tmp_path: Path, new_store: Callable[[Path], Store], write_suite: Callable[..., Path], plugin: Path
) -> None:
    uri = new_store(tmp_path).tracking.uri
    board = whitebench.load_board(str(write_suite("tiny", "searching")), store=uri, plugins=[plugin])
    assert board.entries.contestant.tolist() == ["tiny", "searching"]
    assert board.entries["mean"].isna().all()
    assert [list(frame) for frame in (board.scores, board.layers, board.comparisons)] == [
        list(SCORES), list(LAYERS), list(COMPARISONS),
    ]  # fmt: skip


def test_where_nothing_makes_boards_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whitebench.frames.entry_points", lambda group: [])
    with pytest.raises(whitebench.WhitebenchError, match="nothing is installed that makes boards"):
        whitebench.load_board("digits")

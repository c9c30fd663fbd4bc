"""The board for programs."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from whitebench_leaderboards.board import make_board
from whitebench_leaderboards.export import to_csv, to_json

if TYPE_CHECKING:
    from tests.leaderboards.conftest import World


def test_json_keeps_every_digit_and_the_reason_where_a_number_is_missing(world: World) -> None:
    document = json.loads(to_json(make_board(world.full(), world.heading())))
    assert document["format"] == 1
    assert document["suite"]["suite"] == "tiny"
    vit, *_, never = document["entries"]
    assert vit["primary"]["values"]["1"] == 348 / 360
    assert vit["rank"] == [1, 2]
    assert vit["cells"][1]["run_id"] == "run-vit-digits-1"
    (sparsity,) = [score for score in vit["scores"] if score["name"] == "sparsity/nonzero"]
    assert sparsity["mean"] is None
    assert sparsity["unscored"]["0"] == "the model offers no trace 'codes'"
    assert (never["rank"], never["unranked"], never["primary"]["mean"]) == (None, "no result", None)
    assert [cell["reason"] for cell in never["cells"]] == ["not run yet"] * 3


def test_json_has_every_pair_with_the_smallest_difference_it_could_show(world: World) -> None:
    document = json.loads(to_json(make_board(world.full(), world.heading())))
    pairs = [(one["first"], one["second"], one["is_shown"]) for one in document["comparisons"]]
    crate = "crate[dim=64,depth=4]"
    assert pairs == [("vit", crate, False), ("vit", "slow", True), (crate, "slow", True)]
    assert document["comparisons"][0]["smallest"] > document["comparisons"][0]["value"]


def test_csv_has_a_row_per_entry_with_shares_and_not_percent(world: World) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(make_board(world.full(), world.heading())))))
    assert [row["contestant"] for row in rows] == ["vit", "crate[dim=64,depth=4]", "slow", "partial", "old", "never"]
    assert float(rows[0]["accuracy"]) == pytest.approx((346 + 348 + 343) / 3 / 360, rel=1e-15)
    assert (rows[0]["rank_low"], rows[0]["rank_high"], rows[0]["accuracy.n"]) == ("1", "2", "3")
    assert rows[0]["sparsity/nonzero"] == ""
    assert rows[0]["sparsity/nonzero.reason"] == "the model offers no trace 'codes'"
    assert rows[0]["runs"].startswith("0=run-vit-digits-0;")
    assert rows[5]["absent"].startswith("0=missing: not run yet;")


def test_csv_reads_into_a_frame_with_numbers(world: World) -> None:
    frame = pd.read_csv(io.StringIO(to_csv(make_board(world.full(), world.heading()))))
    assert frame["accuracy"].dtype == float
    assert frame["parameters"].max() == 3e6
    assert frame["accuracy"].isna().tolist() == [False] * 5 + [True]

"""What charts show, in plain values."""

from __future__ import annotations

import dataclasses

from tests.leaderboards.conftest import World
from whitebench.result import Result, Score
from whitebench_leaderboards.board import make_board
from whitebench_leaderboards.server.chart import (
    curve_charts,
    overlaid_curves,
    overlaid_profiles,
    profile_chart,
    tradeoff_chart,
    tuning_chart,
)
from whitebench_leaderboards.tuning import TuningCurve

PROFILE = Score(
    name="coding-rate/share", metric="coding-rate", version=1, direction="none", unit="nats", value=0.5,
    profile=(0.5, 0.25), spread=(0.25, 0.125), nulls={"random": 1.0, "untrained": 0.75},
    null_profiles={"untrained": (0.75, 0.5)},
)  # fmt: skip


def result_of(world: World, seed: int, profile: list[float]) -> Result:
    score = dataclasses.replace(PROFILE, profile=tuple(profile))
    record = world.record("vit", seed, 0.9, scores=[score])
    assert record.result is not None
    return record.result


def test_a_score_over_the_layers_stands_in_its_spread_beside_its_nulls() -> None:
    network, *nulls = profile_chart(PROFILE).lines
    assert (network.x, network.y, network.low, network.high) == ([1, 2], (0.5, 0.25), [0.25, 0.125], [0.75, 0.375])
    assert [(one.name, list(one.y)) for one in nulls] == [("untrained", [0.75, 0.5]), ("random", [1.0, 1.0])]
    assert profile_chart(PROFILE).y == "share (nats)"


def test_train_and_validation_share_a_chart() -> None:
    curves = {"train/loss": [(1, 2.0)], "validation/loss": [(1, 3.0)], "train/learning_rate": [(1, 0.1)]}
    loss, rate = curve_charts(curves)
    assert [line.name for line in loss.lines] == ["train", "validation"]
    assert rate.title == "learning rate"


def test_side_by_side_are_means_over_seeds_and_the_seeds_themselves(world: World) -> None:
    results = {"vit": [result_of(world, 0, [1.0, 2.0]), result_of(world, 1, [3.0, 4.0])], "none": []}
    [chart] = overlaid_profiles(results)
    assert [(line.kind, list(line.y)) for line in chart.lines] == [
        ("main", [2.0, 3.0]), ("seed", [1.0, 2.0]), ("seed", [3.0, 4.0]), ("own null", [0.75, 0.5]),
    ]  # fmt: skip


def test_a_seed_that_is_still_running_shortens_the_mean_to_what_all_have() -> None:
    whole, begun = {"train/loss": [(1, 2.0), (2, 1.0)]}, {"train/loss": [(1, 4.0)]}
    [chart] = overlaid_curves({"vit": [whole, begun, {}]})
    main = next(line for line in chart.lines if line.kind == "main")
    assert (main.x, main.y) == ([1], [3.0])


def test_a_trade_off_is_the_boards_own(world: World) -> None:
    directed = World(directions={**world.directions, "parameters": "lower"})
    records = [
        directed.record(label, seed, accuracy + seed / 1000, costs=[directed.score("parameters", parameters)])
        for label, accuracy, parameters in (("good", 0.9, 10.0), ("bad", 0.5, 1000.0))
        for seed in range(3)
    ]
    made = make_board(records, directed.heading())
    chart = tradeoff_chart(made, "digits", "parameters")
    assert chart is not None
    assert tradeoff_chart(made, "digits", "macs") is None
    good, bad = chart.spots
    assert (good.name, good.x, good.is_hollow, good.note) == ("good", 10.0, False, "")
    assert (bad.name, bad.is_hollow, bad.note) == ("bad", True, "100 % dominated by good")
    assert chart.is_log
    assert (chart.x, chart.y) == ("parameters ↓", "accuracy (%) ↑")


def test_what_tuning_bought_is_in_the_units_that_people_read(world: World) -> None:
    curve = TuningCurve(
        contestant="vit", task="digits", expected=(0.5, 0.75), low=(0.25, 0.5), high=(0.75, 0.75), trials=2, lost=1
    )
    chart = tuning_chart([curve], make_board(world.full(), world.heading()))
    assert list(chart.lines[0].y) == [50.0, 75.0]
    assert chart.lines[0].name == "vit (2 trials, 1 pruned or failed)"
    assert chart.y == "accuracy (%) ↑"

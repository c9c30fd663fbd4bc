"""Who is dominated, and how sure that is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from whitebench.result import CellRecord
from whitebench_leaderboards.board import Board, make_board
from whitebench_leaderboards.tradeoff import _on_cost, measures, tradeoff, undominated

if TYPE_CHECKING:
    from tests.leaderboards.conftest import World


def board(world: World, entries: dict[str, tuple[list[float], list[float]]], cost: str = "parameters") -> Board:
    """Return the board of entries with their accuracies and costs by seed; less of a cost is better."""
    directed = type(world)(directions={**world.directions, cost: "lower"})
    records: list[CellRecord] = [
        directed.record(label, seed, accuracy, costs=[directed.score(cost, price)])
        for label, (accuracies, prices) in entries.items()
        for seed, (accuracy, price) in enumerate(zip(accuracies, prices, strict=True))
    ]
    return make_board(records, directed.heading(seeds=range(len(next(iter(entries.values()))[0]))))


def test_of_a_better_and_cheaper_entry_the_worse_is_dominated_almost_surely_and_the_better_is_not(world: World) -> None:
    made = board(world, {"good": ([0.95, 0.96, 0.97], [10.0] * 3), "bad": ([0.50, 0.52, 0.51], [20.0] * 3)})
    found = tradeoff(made, "digits", "parameters")
    assert found is not None
    good, bad = found.points
    assert (good.contestant, good.dominated, good.by) == ("good", 0.0, "")
    assert bad.by == "good"
    assert bad.dominated > 0.99
    assert undominated(found.points) == ["good"]


def test_a_better_and_dearer_entry_leaves_both_undominated(world: World) -> None:
    made = board(world, {"good": ([0.95, 0.96, 0.97], [20.0] * 3), "cheap": ([0.50, 0.52, 0.51], [10.0] * 3)})
    found = tradeoff(made, "digits", "parameters")
    assert found is not None
    assert undominated(found.points) == ["good", "cheap"]
    assert max(point.dominated for point in found.points) < 0.01


def test_the_chance_is_that_of_students_posterior_on_either_side(world: World) -> None:
    accuracies = {"a": [0.90, 0.93, 0.91, 0.92], "b": [0.89, 0.92, 0.915, 0.90]}
    seconds = {"a": [3.0, 3.5, 3.2, 3.1], "b": [3.1, 3.4, 3.6, 3.3]}
    made = board(world, {label: (accuracies[label], seconds[label]) for label in accuracies}, cost="training-time")
    found = tradeoff(made, "digits", "training-time")
    assert found is not None
    dominated = {point.contestant: point.dominated for point in found.points}["b"]
    random = np.random.default_rng(0)

    def posterior(first: list[float], second: list[float]) -> NDArray[np.float64]:
        each = np.subtract(first, second)
        drawn: NDArray[np.float64] = each.mean() + each.std(ddof=1) / 2 * random.standard_t(3, 400_000)
        return drawn

    better = posterior(accuracies["a"], accuracies["b"]) > 0
    cheaper = posterior(seconds["a"], seconds["b"]) < 0
    assert dominated == pytest.approx(better.mean() * cheaper.mean(), abs=3e-3)


def test_only_what_has_a_better_direction_and_stands_in_two_entries_can_be_traded(world: World) -> None:
    made = make_board(world.full(), world.heading())
    assert measures(made, "digits") == ["cross-entropy", "calibration-error"]
    assert tradeoff(made, "digits", "unknown") is None


def test_a_cost_is_compared_over_the_seeds_that_both_have_and_each_pair_by_itself(world: World) -> None:
    costs: dict[str, list[float | None]] = {"a": [0.10, 0.30, 0.20], "b": [0.20, None, 0.31], "c": [0.15, 0.25, None]}
    records = [
        world.record(label, seed, 0.9, scores=[world.score("cross-entropy", value)])
        for label, values in costs.items()
        for seed, value in enumerate(values)
        if value is not None
    ]
    made = make_board(records, world.heading())
    sides = [next(one for one in entry.scores) for entry in made.entries]
    chances = dict(zip([entry.contestant for entry in made.entries], _on_cost(sides), strict=True))
    order = [entry.contestant for entry in made.entries]
    for first, second, each in (("a", "b", [0.10, 0.11]), ("a", "c", [0.05, -0.05]), ("b", "c", [-0.05])):
        expected = scipy.stats.ttest_1samp(each, 0.0, alternative="greater").pvalue if len(each) > 1 else 1.0
        assert chances[first][order.index(second)] == pytest.approx(1 - expected)
        assert chances[second][order.index(first)] == pytest.approx(expected)

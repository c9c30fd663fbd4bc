"""Which entries are ranked, what a rank may say, and what stands where a number is missing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from whitebench.result import CellRecord
from whitebench_leaderboards.board import Board, Entry, make_board

if TYPE_CHECKING:
    from tests.leaderboards.conftest import World


def ranks(board: Board) -> dict[str, tuple[int, int] | None]:
    return {entry.contestant: entry.rank for entry in board.entries}


def only(board: Board) -> Entry:
    (entry,) = board.entries
    return entry


def test_an_entry_keeps_every_seeds_value_and_run(world: World) -> None:
    entry = only(make_board(world.entry("vit", [0.9, 0.8, 0.7]), world.heading()))
    assert entry.primary.values == {0: 0.9, 1: 0.8, 2: 0.7}
    assert entry.primary.estimate.mean is not None
    assert abs(entry.primary.estimate.mean - 0.8) < 1e-12
    assert entry.run_ids == {seed: f"run-vit-digits-{seed}" for seed in range(3)}


def test_entries_far_apart_have_single_ranks_best_first(world: World) -> None:
    records = world.entry("low", [0.50, 0.51, 0.52]) + world.entry("high", [0.90, 0.92, 0.91])
    board = make_board(records, world.heading())
    assert [entry.contestant for entry in board.entries] == ["high", "low"]
    assert ranks(board) == {"high": (1, 1), "low": (2, 2)}
    assert [entry.is_leader for entry in board.entries] == [True, False]


def test_entries_closer_than_the_smallest_difference_share_a_range(world: World) -> None:
    records = (
        world.entry("a", [0.90, 0.92, 0.91])
        + world.entry("b", [0.91, 0.90, 0.91])
        + world.entry("far", [0.50, 0.51, 0.53])
    )
    board = make_board(records, world.heading())
    assert ranks(board) == {"a": (1, 2), "b": (1, 2), "far": (3, 3)}
    pair = board.compare("digits", "a", "b")
    assert pair is not None
    assert pair.value is not None
    assert pair.smallest is not None
    assert abs(pair.value) < pair.smallest


def test_test_samples_widen_what_seeds_alone_would_separate(world: World) -> None:
    # on 20 samples one sample is 5 points; seeds agree closely
    first = [1.0] * 18 + [0.0] * 2
    second = [1.0] * 17 + [0.0] * 3
    records = [
        world.record(label, seed, value + seed * spread, per_sample=samples)
        for label, value, samples, spread in (("a", 0.9, first, 0.001), ("b", 0.85, second, 0.0))
        for seed in range(3)
    ]
    assert ranks(make_board(records, world.heading())) == {"a": (1, 2), "b": (1, 2)}
    blind = [world.record(r.cell.contestant, r.cell.seed, r.result.scores[0].value) for r in records if r.result]
    assert ranks(make_board(blind, world.heading())) == {"a": (1, 1), "b": (2, 2)}


def test_lower_is_better_where_the_primary_metric_says_so(world: World) -> None:
    def records(label: str, losses: list[float]) -> list[CellRecord]:
        return [
            world.record(label, seed, 0.5, scores=[world.score("cross-entropy", loss)])
            for seed, loss in enumerate(losses)
        ]

    rows = records("bad", [2.0, 2.1, 2.2]) + records("good", [0.1, 0.2, 0.15])
    board = make_board(rows, world.heading(primary="cross-entropy"))
    assert ranks(board) == {"good": (1, 1), "bad": (2, 2)}


def test_a_metric_without_a_better_direction_ranks_nobody(world: World) -> None:
    records = [world.record("a", seed, 0.5, scores=[world.score("rate", 1.0)]) for seed in range(3)]
    entry = only(make_board(records, world.heading(primary="rate")))
    assert entry.rank is None
    assert "no better direction" in entry.unranked


def test_one_seed_cannot_be_compared_so_everybody_shares_all_ranks(world: World) -> None:
    board = make_board(world.entry("a", [0.99]) + world.entry("b", [0.1]), world.heading(seeds=(0,)))
    assert ranks(board) == {"a": (1, 2), "b": (1, 2)}
    assert "one shared seed" in board.comparisons[0].difference.reason


def test_an_entry_with_a_missing_seed_is_shown_and_unranked(world: World) -> None:
    records = [*world.entry("a", [0.9, 0.8]), world.absent("a", 2, "failed", "oom: no memory")]
    entry = only(make_board(records, world.heading()))
    assert (entry.rank, entry.unranked) == (None, "2 of 3 seeds")
    assert entry.primary.estimate.n == 2
    assert (entry.cells[2].state, entry.cells[2].reason) == ("failed", "oom: no memory")


def test_stale_numbers_are_shown_flagged_and_unranked(world: World) -> None:
    records = [world.record("a", seed, 0.9, state="stale", reason="recipe changed") for seed in range(3)]
    entry = only(make_board(records, world.heading()))
    assert entry.is_stale
    assert entry.rank is None
    assert entry.primary.estimate.mean == 0.9
    assert any("recipe changed" in flag for flag in entry.flags)


def test_stale_and_fresh_numbers_are_never_averaged(world: World) -> None:
    records = [*world.entry("a", [0.9, 0.9]), world.record("a", 2, 0.1, state="stale", reason="code changed")]
    entry = only(make_board(records, world.heading()))
    assert entry.primary.values == {0: 0.9, 1: 0.9}
    assert entry.unranked == "2 of 3 seeds"
    assert not entry.is_stale


def test_an_unscored_primary_metric_leaves_the_entry_unranked_with_its_reason(world: World) -> None:
    records = [*world.entry("a", [0.9, 0.8]), world.record("a", 2, None)]
    entry = only(make_board(records, world.heading()))
    assert entry.unranked == "accuracy unscored on 1 of 3 seeds"
    assert entry.primary.unscored == {2: "no logits"}


def test_an_unscored_score_is_neither_zero_nor_nan(world: World) -> None:
    score = world.score("sparsity", None, unscored="the model offers no codes")
    entry = only(make_board([world.record("a", s, 0.9, scores=[score]) for s in range(3)], world.heading()))
    (sparsity,) = entry.scores
    assert sparsity.estimate.mean is None
    assert set(sparsity.unscored.values()) == {"the model offers no codes"}


def test_a_guest_is_ranked_and_marked(world: World) -> None:
    records = [world.record("mine", seed, 0.9 + 0.01 * seed, is_guest=True) for seed in range(3)]
    entry = only(make_board(records, world.heading()))
    assert entry.rank == (1, 1)
    assert any(flag.startswith("guest") for flag in entry.flags)


def test_weights_that_were_trained_elsewhere_are_marked(world: World) -> None:
    records = [replace(world.record("given", seed, 0.9), is_trained_elsewhere=True) for seed in range(3)]
    entry = only(make_board(records, world.heading()))
    assert entry.flags == ("trained elsewhere: scored with the weights of a file, as they are",)


def test_a_test_split_opened_more_often_than_there_are_seeds_is_flagged(world: World) -> None:
    often = [world.record("a", seed, 0.9, test_openings=seed + 3) for seed in range(3)]
    fair = [world.record("b", seed, 0.9, test_openings=seed + 1) for seed in range(3)]
    flags = {entry.contestant: entry.flags for entry in make_board(often + fair, world.heading()).entries}
    assert flags == {"a": ("test split opened 5 times in this store for 3 seeds",), "b": ()}


def test_a_choice_on_the_edge_of_its_space_is_flagged_once(world: World) -> None:
    records = [world.record("a", seed, 0.9, edges=["learning_rate"]) for seed in range(3)]
    (flag,) = only(make_board(records, world.heading())).flags
    assert flag.endswith(": learning_rate")


def test_what_a_finished_cell_has_to_say_is_flagged(world: World) -> None:
    records = [world.record("a", seed, 0.9, reason="its own code was not compared") for seed in range(3)]
    assert only(make_board(records, world.heading())).flags == ("its own code was not compared",)


def test_pruned_and_failed_trials_count_as_spent(world: World) -> None:
    records = [world.record("a", seed, 0.9, trials=(8, 5, 2, 1)) for seed in range(3)]
    spent = only(make_board(records, world.heading())).spent
    assert spent is not None
    assert (spent.trials, spent.trials_allowed, spent.trials_pruned, spent.trials_failed) == (8, 8, 2, 1)


def test_tasks_are_ranked_apart_in_the_suites_order(world: World) -> None:
    records = [
        *world.entry("a", [0.90, 0.92, 0.91], task="second"),
        *world.entry("a", [0.10, 0.12, 0.11], task="first"),
        *world.entry("b", [0.50, 0.52, 0.51], task="second"),
        *world.entry("b", [0.50, 0.53, 0.51], task="first"),
    ]
    board = make_board(records, world.heading(tasks=("first", "second")))
    order = [(entry.task, entry.contestant) for entry in board.entries]
    assert order == [("first", "b"), ("first", "a"), ("second", "a"), ("second", "b")]


def test_entries_without_any_number_stand_last(world: World) -> None:
    board = make_board(world.full(), world.heading())
    assert [entry.contestant for entry in board.entries][-3:] == ["partial", "old", "never"]
    assert not board.is_empty


def test_a_board_with_nothing_finished_is_empty(world: World) -> None:
    assert make_board([world.absent("a", 0, "missing", "not run yet")], world.heading()).is_empty


def test_seeds_that_were_fitted_with_different_hyperparameters_are_not_ranked(world: World) -> None:
    same = [world.record("a", seed, 0.9 + seed / 100) for seed in range(3)]
    odd, *rest = [world.record("b", seed, 0.8 + seed / 100) for seed in range(3)]
    assert odd.result is not None
    chosen = replace(odd.result.chosen, hyperparameters={"learning_rate": 1.0}, digest="another")
    entries = make_board(
        [*same, replace(odd, result=replace(odd.result, chosen=chosen)), *rest], world.heading()
    ).entries
    unranked = {entry.contestant: entry.unranked for entry in entries}
    assert unranked == {"a": "", "b": "its seeds were fitted with different hyperparameters"}


def test_seeds_that_ran_under_different_conditions_are_flagged(world: World) -> None:
    crowded, *rest = [world.record("a", seed, 0.9) for seed in range(3)]
    assert crowded.result is not None
    provenance = replace(crowded.result.provenance, parallel=4)
    board = make_board(
        [replace(crowded, result=replace(crowded.result, provenance=provenance)), *rest], world.heading()
    )
    (flag,) = board.entries[0].flags
    assert flag.startswith("its seeds ran under different conditions: ")
    assert "4 fits at a time" in flag
    assert "1 fit at a time" in flag


def test_tasks_whose_cells_are_as_they_were_are_taken_over_from_the_last_board_and_nothing_else_is(
    world: World,
) -> None:
    heading = world.heading(tasks=["digits", "faces"])
    faces = [*world.entry("vit", [0.9, 0.8, 0.7], task="faces"), *world.entry("crate", [0.9, 0.91, 0.92], task="faces")]
    last = make_board([*world.full(), *faces], heading)
    changed = [*world.full(), replace(faces[0], state="stale", reason="its model changed"), *faces[1:]]
    now, anew = make_board(changed, heading, last=last), make_board(changed, heading)
    assert all(one is other for one, other in zip(now.of_task("digits"), last.of_task("digits"), strict=True))
    assert (now.entries, now.comparisons) == (anew.entries, anew.comparisons)
    assert ranks(now) != ranks(last)
    of_two_seeds = world.heading(tasks=["digits", "faces"], seeds=[0, 1])
    assert make_board(changed, of_two_seeds, last=last).entries == make_board(changed, of_two_seeds).entries

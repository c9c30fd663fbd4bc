"""Intervals and seeds on one scale."""

from __future__ import annotations

from tests.leaderboards.conftest import World
from whitebench_leaderboards.board import make_board
from whitebench_leaderboards.server.strip import MARGIN, WIDTH, strips_of


def test_the_outermost_places_of_a_task_reach_the_margins(world: World) -> None:
    entries = make_board(world.full(), world.heading()).of_task("digits")
    strips = [strip for strip in strips_of(entries) if strip]
    lows = [strip.interval[0] for strip in strips if strip.interval]
    highs = [strip.interval[1] for strip in strips if strip.interval]
    assert min(lows) == MARGIN
    assert max(highs) == WIDTH - MARGIN


def test_a_seed_lies_where_its_value_does(world: World) -> None:
    records = [*world.entry("a", [0.0, 0.5, 1.0]), *world.entry("b", [0.5, 0.5, 0.5])]
    first, second = strips_of(make_board(records, world.heading()).of_task("digits"))
    assert first is not None
    assert second is not None
    (_, low), (_, middle), (_, high) = first.seeds
    assert middle - low == high - middle > 0
    assert second.interval is None
    assert second.mean == middle


def test_who_has_no_number_has_no_strip(world: World) -> None:
    entries = make_board([world.absent("vit", 0, "missing")], world.heading()).of_task("digits")
    assert strips_of(entries) == [None]


def test_a_single_value_stands_in_the_middle(world: World) -> None:
    [strip] = strips_of(make_board([world.record("vit", 0, 0.5)], world.heading(seeds=[0])).of_task("digits"))
    assert strip is not None
    assert strip.mean == WIDTH / 2

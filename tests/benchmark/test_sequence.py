"""The points at which every contestant is tried."""

from __future__ import annotations

import math

import pytest

from whitebench.sequence import edges, quasi_random_point
from whitebench.space import Choice, FloatRange, IntRange, Space

RATE = FloatRange(low=1e-4, high=1e-1, log=True)
DECAY = FloatRange(low=0.0, high=0.2)


def test_a_point_depends_on_seed_and_number_alone() -> None:
    search = {"rate": RATE, "decay": DECAY}
    forwards = [quasi_random_point(search, seed=3, number=number) for number in range(8)]
    backwards = [quasi_random_point(search, seed=3, number=number) for number in reversed(range(8))]
    assert forwards == backwards[::-1]
    assert forwards != [quasi_random_point(search, seed=4, number=number) for number in range(8)]


def test_the_recipes_coordinates_are_the_same_whatever_the_model_searches_beside_them() -> None:
    recipe = {"rate": RATE, "decay": DECAY}
    own: dict[str, Space] = {"model.depth": IntRange(low=1, high=9), "model.kind": Choice(options=("a", "b"))}
    for number in range(16):
        alone = quasi_random_point(recipe, seed=0, number=number)
        beside = quasi_random_point({**recipe, **own}, seed=0, number=number)
        assert {name: beside[name] for name in recipe} == alone


def test_eight_points_fill_each_eighth_of_a_range_once() -> None:
    # What makes the sequence better than chance: in base 2 each coordinate is stratified.
    points = [quasi_random_point({"rate": RATE, "decay": DECAY}, seed=7, number=number) for number in range(8)]
    assert sorted(math.floor(float(one["decay"]) / 0.2 * 8) for one in points) == list(range(8))
    assert sorted(math.floor((math.log10(float(one["rate"])) + 4) / 3 * 8) for one in points) == list(range(8))


@pytest.mark.parametrize(
    ("space", "value", "is_on_edge"),
    [
        (RATE, 1.3e-4, True),
        (RATE, 1e-3, False),
        (RATE, 9e-2, True),
        (DECAY, 0.005, True),
        (DECAY, 0.1, False),
        (IntRange(low=1, high=4), 4, True),
        (IntRange(low=1, high=4), 2, False),
        (Choice(options=("a", "b")), "a", False),
    ],
)
def test_a_choice_near_the_end_of_its_range_is_on_the_edge(
    space: Space, value: float | str, *, is_on_edge: bool
) -> None:
    assert edges({"it": space}, {"it": value}) == (("it",) if is_on_edge else ())

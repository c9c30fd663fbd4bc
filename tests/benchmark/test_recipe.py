"""A recipe's values, its space, and what makes no sense in it."""

from __future__ import annotations

from typing import Any

import pytest

from whitebench import FloatRange
from whitebench.recipe import RandAugment, Recipe, Tuned

RATE = Tuned(value=1e-3, low=1e-4, high=1e-2, log=True)


def test_what_has_a_range_is_searched_and_what_has_none_is_fixed() -> None:
    recipe = Recipe(learning_rate=RATE, weight_decay=Tuned(value=0.1))
    assert recipe.search == {"learning_rate": FloatRange(low=1e-4, high=1e-2, log=True)}
    assert recipe.stated == {"learning_rate": 1e-3, "weight_decay": 0.1}


def test_the_recipe_s_hyperparameters_come_in_a_fixed_order() -> None:
    recipe = Recipe(weight_decay=Tuned(value=0.1, low=0.01, high=1.0), learning_rate=RATE)
    assert list(recipe.search) == ["learning_rate", "weight_decay"]


def test_the_stated_value_may_lie_outside_the_range() -> None:
    assert Recipe(learning_rate=Tuned(value=1.0, low=0.1, high=0.2)).stated["learning_rate"] == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label_smoothing": 1.0}, r"label_smoothing: must be in \[0, 1\)"),
        ({"label_smoothing": -0.1}, r"label_smoothing: must be in \[0, 1\)"),
        ({"crop": -1}, "crop: must be 0 to 1000 pixels"),
        ({"erasing": 1.5}, r"erasing: must be in \[0, 1\]"),
        ({"mixup": -0.1}, "mixup: must be 0 to 100"),
        ({"clip_norm": -1.0}, "clip_norm: must not be negative"),
        ({"warmup_epochs": -1.0}, "warmup_epochs: must not be negative"),
        ({"betas": (0.9, 1.0)}, r"betas: must be in \[0, 1\)"),
        ({"learning_rate": Tuned(value=0.0)}, "learning_rate.value: must be above zero"),
        ({"learning_rate": Tuned(value=0.1, low=-1.0, high=1.0)}, "learning_rate.low: must be above zero"),
        ({"weight_decay": Tuned(value=-0.1)}, "weight_decay.value: must not be negative"),
        ({"weight_decay": Tuned(value=0.1, low=-1.0, high=1.0)}, "weight_decay.low: must not be negative"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**{"learning_rate": RATE, **change})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"low": 0.1}, "a range needs both low and high"),
        ({"high": 0.1}, "a range needs both low and high"),
        ({"log": True}, "log: needs a range"),
        ({"low": 0.2, "high": 0.1}, "low < high"),
        ({"low": 0.0, "high": 0.1, "log": True}, "logarithmic range needs low > 0"),
    ],
)
def test_half_a_range_is_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tuned(value=0.1, **table)


@pytest.mark.parametrize("change", [{"operations": 0}, {"magnitude": 0}, {"magnitude": 30}])
def test_randaugment_without_strength_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be 1 to"):
        RandAugment(**change)

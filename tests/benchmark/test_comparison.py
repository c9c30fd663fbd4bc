"""Scores and predictions beside the same computed again."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from whitebench.comparison import Comparison, compare, differences_in_predictions
from whitebench.result import Score

STORED = Score(
    name="depth", metric="depth", version=1, direction="none", unit="", value=2.0, profile=(1.0, 3.0),
    spread=(0.1, 0.2), nulls={"noise": 0.5}, null_profiles={"noise": (0.4, 0.6)},
)  # fmt: skip


def beside(again: Score | None, *, stored: Score | None = STORED, tolerance: float = 0.0, **noise: float) -> Comparison:
    [found] = compare(
        [one for one in (stored,) if one],
        [one for one in (again,) if one],
        tolerance_of=lambda _: tolerance,
        noise_floor=noise,
    )
    return found


def changed(**fields: Any) -> Score:
    return dataclasses.replace(STORED, **fields)


def test_the_same_numbers_are_equal() -> None:
    found = beside(changed())
    assert (found.agrees, str(found), found.stored, found.again) == (True, "equal", 2.0, 2.0)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"value": 2.5}, "differs in its value by 2.0e-01"),
        ({"profile": (1.0, 4.0)}, "differs in its layers by 2.5e-01"),
        ({"profile": (1.0,)}, "differs in its layers by 1.0e+00"),
        ({"spread": (0.1, 0.4)}, "differs in the spread of its layers by 5.0e-01"),
        ({"nulls": {"noise": 1.0}}, "differs in its null noise by 5.0e-01"),
        ({"nulls": {}}, "differs in its null noise by 1.0e+00"),
        ({"null_profiles": {"noise": (0.4, 0.8)}}, "differs in the layers of its null noise by 2.5e-01"),
    ],
)
def test_every_part_of_a_score_is_compared(fields: dict[str, Any], says: str) -> None:
    found = beside(changed(**fields))
    assert (found.agrees, str(found)) == (False, says)


def test_a_difference_within_the_tolerance_passes_and_is_said() -> None:
    found = beside(changed(value=2.0 + 2e-6), tolerance=1e-5)
    assert (found.agrees, str(found)) == (True, "within 1e-05: 1.0e-06")
    assert not beside(changed(value=2.0 + 2e-6), tolerance=1e-7).agrees


def test_a_small_layer_is_held_against_the_largest() -> None:
    assert beside(changed(profile=(1.0 + 3e-6, 3.0)), tolerance=1.1e-6).agrees


def test_a_value_within_the_noise_floor_passes_whatever_its_layers_do() -> None:
    found = beside(changed(value=2.2, profile=(1.0, 4.0)), depth=0.25)
    assert (found.agrees, str(found)) == (True, "within the noise floor: 2.5e-01")
    assert not beside(changed(value=2.3), depth=0.25).agrees


def test_unscored_both_times_agrees_and_once_does_not() -> None:
    unscored = changed(value=None, unscored="no trace", profile=(), spread=(), nulls={}, null_profiles={})
    assert str(beside(unscored, stored=unscored)) == "unscored both times"
    assert str(beside(unscored)) == "unscored again: no trace"
    assert str(beside(STORED, stored=unscored)) == "was unscored: no trace"


def test_a_score_that_only_one_side_has_is_said() -> None:
    assert str(beside(None)) == "does not come out again"
    assert str(beside(STORED, stored=None)) == "was not stored"


def test_predictions_are_compared_array_by_array_whole_numbers_exactly() -> None:
    stored = {"labels": np.array([0, 1]), "logits": np.array([[2.0, 0.0], [1.0, 4.0]]), "draws/more": np.ones(2)}
    again = {name: stored[name].copy() for name in ("labels", "logits")}
    assert differences_in_predictions(stored, again, tolerance=0.0) == []
    again["logits"][1, 1] = 5.0
    assert differences_in_predictions(stored, again, tolerance=0.2) == []
    assert differences_in_predictions(stored, again, tolerance=0.1) == [
        "predictions: logits of the stored weights differ from the stored by 2.0e-01"
    ]
    again = {"labels": np.array([0, 0]), "primary": np.ones(2), "logits": np.ones((3, 2))}
    found = differences_in_predictions(stored, again, tolerance=9)
    assert [line.split()[1] for line in found] == ["labels", "primary", "logits"]


def test_what_is_no_number_differs() -> None:
    stored = {"logits": np.array([[1.0, np.nan]])}
    assert differences_in_predictions(stored, stored, tolerance=1.0)

"""Shares of a range and the values they stand for, by hand."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whitebench import Choice, FloatRange, IntRange
from whitebench.space import Space

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("space", "share", "value"),
    [
        (FloatRange(low=2.0, high=4.0), 0.25, 2.5),
        (FloatRange(low=1e-4, high=1e-2, log=True), 0.5, 1e-3),
        (FloatRange(low=-1.0, high=1.0), 0.0, -1.0),
        (IntRange(low=1, high=4), 0.49, 2),
        (IntRange(low=1, high=4), 1.0, 4),
        (Choice(options=("a", "b", "c")), 0.34, "b"),
        (Choice(options=("a", "b", "c")), 1.0, "c"),
    ],
)
def test_a_share_stands_for_the_value_that_far_along(space: Space, share: float, value: float | str) -> None:
    found = space.at(share)
    assert found == (pytest.approx(value) if isinstance(value, float) else value)
    assert type(found) is type(value)


def test_equal_shares_of_a_whole_range_fall_to_every_number() -> None:
    numbers = Counter(IntRange(low=0, high=4).at(share / 1000) for share in range(1000))
    assert numbers == dict.fromkeys(range(5), 200)


@given(st.floats(1e-8, 1e3), st.floats(1.001, 1e6), st.floats(0, 1))
def test_no_rounding_carries_a_value_out_of_its_range(low: float, factor: float, share: float) -> None:
    for log in (False, True):
        space = FloatRange(low=low, high=low * factor, log=log)
        assert space.low <= space.at(share) <= space.high


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.floats(0, 1), st.booleans())
def test_whole_numbers_stay_within_their_range(low: int, length: int, share: float, log: bool) -> None:
    space = IntRange(low=low, high=low + length, log=log)
    assert low <= space.at(share) <= low + length


@given(st.floats(0, 1), st.booleans())
def test_share_of_is_the_inverse_of_at(share: float, log: bool) -> None:
    space = FloatRange(low=0.01, high=10.0, log=log)
    assert space.share_of(space.at(share)) == pytest.approx(share, abs=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FloatRange(low=2.0, high=1.0), "low < high"),
        (lambda: FloatRange(low=1.0, high=1.0), "low < high"),
        (lambda: FloatRange(low=math.nan, high=1.0), "low < high"),
        (lambda: FloatRange(low=0.0, high=math.inf), "low < high"),
        (lambda: FloatRange(low=0.0, high=1.0, log=True), "logarithmic range needs low > 0"),
        (lambda: IntRange(low=3, high=3), "low < high"),
        (lambda: IntRange(low=1.5, high=3), "whole ends"),  # type: ignore[arg-type]
        (lambda: Choice(options=("a",)), "two or more different"),
        (lambda: Choice(options=(1, 1)), "two or more different"),
    ],
)
def test_a_space_that_is_none_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()

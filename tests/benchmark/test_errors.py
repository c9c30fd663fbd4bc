"""What people read when a name is wrong."""

import pytest

from whitebench import errors
from whitebench.errors import UnknownNameError, WhitebenchError, near_misses


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("crat", ", did you mean 'crate'?"),
        ("CRATE", ", did you mean 'crate'?"),
        ("vitt", ", did you mean 'vit'?"),
        ("budget.epoch", ", did you mean 'budget.epochs'?"),
        ("zebra", ""),
    ],
)
def test_the_closest_known_names_are_suggested_whatever_their_case(name: str, expected: str) -> None:
    assert near_misses(name, ["crate", "vit", "budget.epochs"]) == expected


def test_several_close_names_are_all_suggested() -> None:
    assert near_misses("token", ["tokens", "taken"]) == ", did you mean 'tokens' or 'taken'?"


def test_an_unknown_name_says_kind_name_near_misses_and_what_is_known() -> None:
    error = UnknownNameError("model", "crat", ["vit", "crate"])
    assert str(error) == "unknown model 'crat', did you mean 'crate'? (known: crate, vit)"


def test_where_nothing_is_known_the_message_says_so() -> None:
    assert str(UnknownNameError("task", "x", [])) == "unknown task 'x' (known: none)"


def test_what_people_can_mend_is_a_value_error_and_what_happens_to_a_fit_is_not() -> None:
    kinds = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, Exception)]
    assert issubclass(WhitebenchError, ValueError)
    for kind in kinds:
        assert issubclass(kind, WhitebenchError) != issubclass(kind, RuntimeError)

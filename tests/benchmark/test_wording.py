"""How a person is told: in one line, printable, of bounded length."""

from __future__ import annotations

import pytest

from whitebench.errors import UnknownNameError, WhitebenchError
from whitebench.wording import MOST_SAID, count, is_plain, listed, plain, shown


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("as it is", "as it is"),
        ("two\nlines,\ta tab", "two lines, a tab"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("a\0b", r"a\x00b"),
        ("half \ud800", r"half \ud800"),
        ("turned \u202e round", r"turned \u202e round"),
        ("größer ≥ 2 %", "größer ≥ 2 %"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text: str, line: str) -> None:
    assert plain(text) == line


def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    line = plain("first " + "x" * 10**7 + " last")
    assert len(line) <= MOST_SAID
    assert line.startswith("first x")
    assert line.endswith("x last")
    assert " … " in line


def test_every_message_for_a_person_is_plain_whatever_went_into_it() -> None:
    assert str(WhitebenchError("a\x1bb\n" + "c" * 9_000)).startswith(r"a\x1bb ccc")
    assert len(str(UnknownNameError("model", "x" * 10**6, [f"model-{i}" for i in range(9_000)]))) < 2_000


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (3, "3"),
        ("a", "'a'"),
        ([1, 2], "[1, 2]"),
        ("x" * 10**6, "'" + "x" * 56 + "..."),
    ],
)
def test_a_value_is_shown_as_it_is_written_and_cut(value: object, text: str) -> None:
    assert shown(value) == text


def test_what_python_itself_cannot_write_is_named() -> None:
    assert shown(1 << 20_000) == "a int too large to be shown"
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    assert shown(nested) == "a list too large to be shown"


def test_names_are_listed_up_to_a_number() -> None:
    assert listed([]) == "none"
    assert listed(["a", "b"]) == "a, b"
    assert listed(map(str, range(1_000)), 2) == "0, 1 and 998 more"


def test_a_text_is_plain_where_every_character_is_seen() -> None:
    assert is_plain("2\u00a0% ≥ ü, 5\u202f000 × 3")
    assert not any(map(is_plain, ["\n", "\t", "\x85", "\x1b", "\0", "\u2028", "\u202e", "\ud800"]))


def test_one_cell_is_not_cells() -> None:
    assert (count(1, "cell"), count(0, "cell")) == ("1 cell", "0 cells")

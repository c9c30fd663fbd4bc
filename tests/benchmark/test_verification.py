"""What a verification says of a cell, and that a tag holds it."""

from __future__ import annotations

from typing import Any

import pytest

from whitebench.verification import Verification, standing_of


def made(**changes: Any) -> Verification:
    known: dict[str, Any] = {
        "is_repeated": False, "when": "2026-01-01T00:00:00.000Z", "device": "a processor", "threads": 1,
        "versions": {"torch": "2.13"}, "num_scores": 3, "tolerance": 1e-6,
    }  # fmt: skip
    return Verification(**{**known, **changes})


def test_it_reads_back_from_its_tag() -> None:
    one = made(differences=["depth: differs"], changes=["threads: 1 -> 2"])
    assert Verification.from_tag(one.to_tag()) == one


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"when": "now"}', '{"strange": 1}'])
def test_a_tag_that_is_none_is_no_verification(text: str) -> None:
    assert Verification.from_tag(text) is None


def test_a_thousand_differences_fit_into_a_tag_of_8000_characters() -> None:
    tag = made(differences=["ä" * 5000] * 1000, changes=["ß" * 5000] * 1000).to_tag()
    assert len(tag) < 8000
    found = Verification.from_tag(tag)
    assert found is not None
    assert found.differences[-1] == "and 990 more"


def test_its_standing_is_what_was_repeated_unless_something_differs() -> None:
    assert made().standing == "recomputed"
    assert made(is_repeated=True).standing == "reproduced"
    assert made(is_repeated=True, differences=["depth: differs"]).standing == "differs"


def test_of_the_latest_of_both_kinds_one_that_differs_counts_else_the_fit_repeated() -> None:
    recomputed, repeated = made(), made(is_repeated=True)
    wrong, strange = made(differences=["a"]), made(is_repeated=True, differences=["b"])
    assert standing_of(None, None) is None
    assert standing_of(recomputed, None) is recomputed
    assert standing_of(recomputed, repeated) is repeated
    assert standing_of(wrong, repeated) is wrong
    assert standing_of(recomputed, strange) is strange
    assert standing_of(wrong, strange) is strange

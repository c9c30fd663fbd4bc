"""Every door is documented, and somebody goes through it."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from whitebench import hookspecs
from whitebench.catalog import load_catalog
from whitebench.plugin import HOOKS, SPEC_TYPE_BY_KIND

ROOT = Path(__file__).parents[2]
DOORS = [name for name, one in vars(hookspecs).items() if hasattr(one, "whitebench_spec")]


def test_the_doors_are_those_that_plugins_are_asked_at() -> None:
    assert sorted(DOORS) == sorted(HOOKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_in_the_readme(hook: str) -> None:
    assert hook in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", SPEC_TYPE_BY_KIND)
def test_every_hook_that_registers_something_is_used_by_a_first_party_plugin(kind: str) -> None:
    entries = load_catalog().entries[kind]  # type: ignore[index]  # the keys are the kinds
    assert any(entry.owner.distribution == "whitebench" for entry in entries.values())


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_says_what_it_is_for_and_takes_nothing_but_an_event(hook: str) -> None:
    door = getattr(hookspecs, hook)
    assert inspect.getdoc(door)
    assert list(inspect.signature(door).parameters) == (["event"] if hook == "observe" else [])

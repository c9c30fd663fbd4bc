"""Signs of life reach whoever listens, and are free where nobody does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from whitebench import pulse


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    before = list(pulse._listeners)
    yield
    pulse._listeners[:] = before


def test_a_beat_that_nobody_hears_does_nothing() -> None:
    pulse._listeners.clear()
    pulse.beat()


def test_the_last_listener_hears_every_beat_and_the_one_before_it_none() -> None:
    first: list[int] = []
    second: list[int] = []
    pulse.on_beat(lambda: first.append(1))
    pulse.on_beat(lambda: second.append(1))
    pulse.beat()
    pulse.beat()
    assert (first, second) == ([], [1, 1])

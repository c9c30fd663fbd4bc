"""Killed ten times at random moments, in every way, `smoke` ends as if nobody had touched it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture import torture


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_kills_lose_double_and_change_nothing(tmp_path: Path) -> None:
    damage = torture(tmp_path, times=10, seed=2023)
    assert damage.kills.total() == 10
    assert damage.lost == []
    assert damage.doubled == []
    assert damage.different == []
    assert damage.left == []

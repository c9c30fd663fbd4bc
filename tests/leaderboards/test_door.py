"""A door leads to the store that is there now."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from whitebench.store import Store
from whitebench_leaderboards.door import Door

NewStore = Callable[[Path], Store]


def test_there_is_no_store_until_there_is_one_and_then_it_stays_the_same(tmp_path: Path, new_store: NewStore) -> None:
    door = Door(f"sqlite:///{tmp_path / 'whitebench.db'}", patience=0.0)
    assert door.store() is None
    assert not (tmp_path / "whitebench.db").exists()
    new_store(tmp_path)
    store = door.store()
    assert store is not None
    assert door.store() is store


def test_a_store_that_is_deleted_and_made_anew_is_another(tmp_path: Path, new_store: NewStore) -> None:
    new_store(tmp_path)
    door = Door(f"sqlite:///{tmp_path / 'whitebench.db'}", patience=0.0)
    first = door.store()
    assert first is not None
    first.claims.living()  # a connection is open, as to a store that is in use
    (tmp_path / "whitebench.db").unlink()
    assert door.store() is None
    new_store(tmp_path)
    second = door.store()
    assert second is not None
    assert second is not first
    assert second.cells("smoke", "") == []


def test_one_that_another_is_put_in_the_place_of_is_another(tmp_path: Path, new_store: NewStore) -> None:
    new_store(tmp_path)
    door = Door(f"sqlite:///{tmp_path / 'whitebench.db'}", patience=0.0)
    first = door.store()
    new_store(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "whitebench.db").replace(tmp_path / "whitebench.db")
    assert door.store() is not first

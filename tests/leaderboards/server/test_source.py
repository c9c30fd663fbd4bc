"""What the server asks a real store, and how seldom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from whitebench.identity import CellName
from whitebench.result import Chosen
from whitebench.store import Store
from whitebench.suite import Contestant
from whitebench_leaderboards.server.reader import open_reader

PARTS: dict[str, Any] = {
    "contestant": {"model": "vit", "options": {}, "objective": "cross-entropy", "readout": "head"}, "seed": 0,
}  # fmt: skip


def open_cell(store: Store, seed: int, overrides: str = "", suite: str = "smoke") -> str:
    return store.open_cell(
        CellName(suite=suite, contestant="vit", task="digits", seed=seed),
        contestant=Contestant(model="vit[dim=64,depth=4,heads=4,patch=4]", label="vit"),
        overrides=overrides,
        identity="1" * 64,
        parts=PARTS,
        chosen=Chosen(hyperparameters={}, trial=None, validation=None),
        is_guest=False,
        claim="",
    )


@pytest.mark.slow
def test_a_store_is_read_when_it_appears_and_again_when_something_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whitebench_leaderboards.server.reader.PAUSE", 0.0)
    uri = f"sqlite:///{tmp_path / 'whitebench.db'}"
    reader = open_reader(uri)
    reader.refresh()
    assert not any(shelf.is_stored for shelf in reader.shelves())
    assert not (tmp_path / "whitebench.db").exists()  # a reader makes nothing
    assert {record.state for record in reader.ledger("smoke").records} == {"missing"}
    assert reader.past("smoke", "", "vit") == []

    store = Store(uri)
    run_id = open_cell(store, 0)
    first = reader.generation("smoke")
    reader.refresh()
    assert reader.generation("smoke") != first
    assert [shelf.suite for shelf in reader.shelves() if shelf.is_stored] == ["smoke"]
    assert [(one.run_id, one.state) for one in reader.past("smoke", "", "vit")] == [(run_id, "interrupted")]

    open_cell(store, 0, "budget.epochs=3")
    second = reader.generation("smoke")
    reader.refresh()
    assert reader.generation("smoke") == second
    assert reader.board("smoke", "budget.epochs=3").heading.epochs == 3

"""What the server asks a real store, and how seldom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from whitebench.catalog import Catalog
from whitebench.identity import CellName
from whitebench.result import Chosen
from whitebench.store import Store
from whitebench.suite import Contestant
from whitebench_leaderboards.server.source import StoreSource, split_overrides

PARTS: dict[str, Any] = {
    "contestant": {"model": "vit", "options": {}, "objective": "cross-entropy", "readout": "head"}, "seed": 0,
}  # fmt: skip


def open_cell(store: Store, seed: int, overrides: str = "") -> str:
    return store.open_cell(
        CellName(suite="smoke", contestant="vit", task="digits", seed=seed),
        contestant=Contestant(model="vit[dim=64,depth=4,heads=4,patch=4]", label="vit"),
        overrides=overrides,
        identity="1" * 64,
        parts=PARTS,
        chosen=Chosen(hyperparameters={}, trial=None, validation=None),
        is_guest=False,
        claim="",
    )


@pytest.mark.slow
def test_a_store_is_read_when_it_appears_and_again_when_something_is_written(tmp_path: Path, catalog: Catalog) -> None:
    uri = f"sqlite:///{tmp_path / 'whitebench.db'}"
    source = StoreSource(uri, catalog)
    assert source.refresh() == frozenset()
    assert source.suites() == []
    assert not (tmp_path / "whitebench.db").exists()  # a reader makes nothing
    assert {record.state for record in source.ledger("smoke").records} == {"missing"}

    store = Store(uri)
    first = open_cell(store, 0)
    assert source.refresh() == {("smoke", "")}
    assert source.suites() == [("smoke", "")]
    assert source.refresh() == frozenset()

    open_cell(store, 0, "budget.epochs=3")
    assert source.refresh() == {("smoke", "budget.epochs=3")}

    store.interrupt(first)
    source.refresh()
    states = {record.cell.seed: record.state for record in source.ledger("smoke").records if record.run_id}
    assert states == {0: "missing"}  # not run since it changed: the identity above is made up


@pytest.mark.slow
def test_a_file_that_nobody_wrote_into_is_not_asked(
    tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(f"sqlite:///{tmp_path / 'whitebench.db'}")
    open_cell(store, 0)
    source = StoreSource(store.tracking.uri, catalog)
    source.refresh()
    assert source.store is not None

    def refuse() -> Any:
        raise AssertionError("asked again")

    monkeypatch.setattr(source.store, "suites", refuse)
    assert source.refresh() == frozenset()


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("", ()),
        ("budget.epochs=3", ("budget.epochs=3",)),
        ("budget.epochs=3 budget.trials=0", ("budget.epochs=3", "budget.trials=0")),
        ("budget.epochs=3 seeds=[0, 1]", ("budget.epochs=3", "seeds=[0, 1]")),
        ("tuning.sampler=’tpe’", ("tuning.sampler='tpe'",)),
        ("nonsense", None),
    ],
)
def test_overrides_are_taken_apart_as_they_were_typed(text: str, typed: tuple[str, ...] | None) -> None:
    assert split_overrides(text) == typed


def test_a_source_is_what_an_index_will_be() -> None:
    """The three methods that the reader needs of whoever takes this one's place."""
    assert {"refresh", "suites", "ledger"} <= set(vars(StoreSource))

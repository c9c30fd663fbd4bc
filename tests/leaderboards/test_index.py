"""An index says what its store says, from the first look on, and reads nothing twice."""

from __future__ import annotations

import gc
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from safetensors.numpy import save_file

from tests.leaderboards.conftest import World
from whitebench.catalog import Catalog
from whitebench.ledger import PlannedCell, canonical_overrides, overrides_of, read_ledger, select
from whitebench.provenance import now
from whitebench.result import CellRecord, Chosen, Failure, FailureKind, digest
from whitebench.store import Store
from whitebench.suite import load_suite
from whitebench.tags import Tag
from whitebench.verification import Verification
from whitebench_leaderboards.index import Index

NewStore = Callable[[Path], Store]
WriteSuite = Callable[..., Path]
CHOSEN = Chosen(hyperparameters={}, trial=None, validation=None)
BLOBS = ("blobs", "")


class Lab:
    """A store, a suite of four cells in it, and an index of the store."""

    def __init__(self, folder: Path, store: Store, suite: Path, plugin: Path, catalog: Catalog) -> None:
        self.folder, self.store, self.suite, self.plugin, self.catalog = folder, store, suite, plugin, catalog
        self.index = self.new_index()

    def new_index(self) -> Index:
        return Index(self.store.tracking.uri, self.folder / "cache")

    def planned(self, overrides: Sequence[str] = (), guests: Sequence[str] = ()) -> list[PlannedCell]:
        _, cells = select(load_suite(str(self.suite), overrides), self.catalog, models=guests)
        return cells

    def open(self, cell: PlannedCell, **changes: Any) -> str:
        known: dict[str, Any] = {
            "contestant": cell.contestant, "overrides": "", "identity": cell.identity.digest, "is_guest": cell.is_guest,
            "parts": cell.identity.parts, "chosen": CHOSEN, "claim": f"cell/{cell.name}",
        }  # fmt: skip
        return self.store.open_cell(cell.name, **{**known, **changes})

    def finish(self, cell: PlannedCell, value: float = 0.5, **changes: Any) -> str:
        run_id = self.open(cell, **changes)
        self.store.record_opening(run_id, "e" * 64)
        fit = self.folder / "fit"
        fit.mkdir(exist_ok=True)
        save_file({"primary": np.array([value, 1 - value])}, fit / "predictions.safetensors")
        result = World().record(cell.name.contestant, cell.name.seed, value).result
        assert result is not None
        self.store.finish_cell(run_id, result, fit)
        return run_id

    def said_by_store(self, overrides: Sequence[str] = ()) -> Any:
        return read_ledger(str(self.suite), store=self.store.tracking.uri, plugins=[self.plugin], overrides=overrides)

    def said_by(self, index: Index, overrides: Sequence[str] = ()) -> Any:
        return index.ledger(str(self.suite), overrides, [self.plugin])

    def record(self) -> CellRecord:
        record: CellRecord = self.said_by(self.index).records[0]
        return record

    @property
    def kept(self) -> Path:
        [file] = (self.folder / "cache").glob("*.db")
        return file


@pytest.fixture
def lab(tmp_path: Path, new_store: NewStore, write_suite: WriteSuite, plugin: Path, catalog: Catalog) -> Lab:
    return Lab(tmp_path, new_store(tmp_path), write_suite("tiny", "searching", seeds=2), plugin, catalog)


def test_an_index_says_of_every_kind_of_cell_what_the_store_says(lab: Lab) -> None:
    first, second, third, fourth = lab.planned()
    lab.finish(first, 0.25)
    lab.finish(first, 0.75)
    lab.finish(second, identity="0" * 64, parts={**second.identity.parts, "seed": 7})
    lab.store.fail_cell(lab.open(third), Failure(kind=FailureKind.OOM, message="too big"))
    lab.store.tracking.delete_run(lab.finish(fourth))
    lab.open(fourth)
    lab.store.claims.take(f"cell/{fourth.name}")
    for guest in lab.planned(guests=["tiny[width=4]"]):
        lab.finish(guest)
    lab.open(first, overrides="budget.epochs=3")
    lab.index.refresh()
    ledger = lab.said_by(lab.index)
    assert ledger == lab.said_by_store()
    assert [record.state for record in ledger.records] == [
        "finished", "stale", "failed", "running", "finished", "finished",
    ]  # fmt: skip
    assert ledger.records[1].reason == "seed: 7 -> 1"
    assert lab.said_by(lab.index, ["budget.epochs = 3"]) == lab.said_by_store(["budget.epochs = 3"])
    assert lab.index.suites() == [BLOBS, ("blobs", "budget.epochs=3")]


def test_a_look_tells_which_suites_have_changed(lab: Lab) -> None:
    first, second, third, _ = lab.planned()
    assert lab.index.refresh() == frozenset()
    run_id = lab.finish(first)
    assert lab.index.refresh() == {BLOBS}
    assert lab.index.refresh() == frozenset()
    other = lab.open(third, overrides="budget.epochs=3")
    assert lab.index.refresh() == {("blobs", "budget.epochs=3")}
    lab.open(second, overrides="budget.epochs=4")
    lab.index.refresh()
    lab.store.record_opening(other, "e" * 64)
    assert lab.index.refresh() == {("blobs", "budget.epochs=3")}
    lab.finish(second, overrides="budget.epochs=4")  # the contestant of `first`: its openings are counted
    assert lab.index.refresh() == {BLOBS, ("blobs", "budget.epochs=4")}
    lab.store.tracking.delete_run(run_id)
    assert lab.index.refresh() == {BLOBS}
    assert lab.record().state == "missing"
    MlflowClient(lab.store.tracking.uri).restore_run(run_id)
    assert lab.index.refresh() == {BLOBS}
    assert (lab.record().state, lab.record().test_openings) == ("finished", 2)


def test_tuning_that_is_under_way_is_told_before_there_is_a_cell(lab: Lab) -> None:
    lab.store.claims.take("study/s/somebody")
    study = lab.store.open_study("blobs", "tiny", "blobs", overrides="a=it's", name="s" * 64, claim="study/s/")
    assert lab.index.refresh() == frozenset()  # no cell has changed
    assert lab.index.suites() == [("blobs", "a=it’s")]
    [found] = lab.index.open_studies("blobs", "a=it's")
    assert (found.contestant, found.task, found.ended) == ("tiny", "blobs", 0)
    lab.store.close_study(study, None)
    lab.index.refresh()
    assert lab.index.suites() == []
    assert lab.index.open_studies("blobs", "a=it's") == []


def test_a_cell_done_once_more_shows_its_newest_result(lab: Lab) -> None:
    first = lab.planned()[0]
    for value in (0.25, 0.75):
        lab.finish(first, value)
        lab.index.refresh()
        assert list(lab.record().per_sample or ()) == [value, 1 - value]
    assert [one.state for one in lab.index.cells("blobs", "")] == ["superseded", "finished"]


def test_a_result_is_there_only_when_all_of_it_is(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    first = lab.planned()[0]
    tag = lab.store.tracking.tag
    monkeypatch.setattr(lab.store.tracking, "tag", lambda run_id, tags: None)  # the last tag never comes
    monkeypatch.setattr(lab.store, "_supersede", lambda run_id: None)
    run_id = lab.finish(first)
    monkeypatch.undo()
    tag(run_id, {Tag.STATE: "finished"})
    lab.index.refresh()
    assert lab.record().state == "interrupted"
    text = lab.store.tracking.read_file(run_id, "result.json")
    assert text is not None
    tag(run_id, {Tag.RESULT: digest(text)})
    assert lab.index.refresh() == {BLOBS}
    assert lab.record().state == "finished"


def test_what_was_read_once_is_never_read_again(lab: Lab) -> None:
    lab.finish(lab.planned()[0])
    lab.index.refresh()
    before = lab.said_by(lab.index)
    shutil.rmtree(lab.folder / "whitebench-artifacts")
    again = lab.new_index()
    assert again.refresh() == {BLOBS}
    assert lab.said_by(again) == before


@pytest.mark.parametrize("damage", ["garbage", "a row", "another version", "no rows", "nowhere to keep"])
def test_a_cache_that_cannot_be_used_costs_only_time(lab: Lab, damage: str) -> None:
    lab.finish(lab.planned()[0])
    lab.index.refresh()
    before = lab.said_by(lab.index)
    lab.index._cache.close()
    if damage == "garbage":
        lab.kept.write_bytes(b"x" * 8192)
    elif damage == "nowhere to keep":
        shutil.rmtree(lab.folder / "cache")
        (lab.folder / "cache").write_text("a file", encoding="utf-8")
    else:
        change = {"a row": "UPDATE kept SET content = x'00'", "another version": "PRAGMA user_version = 99",
                  "no rows": "DROP TABLE kept"}  # fmt: skip
        with closing(sqlite3.connect(lab.kept)) as cache, cache:
            cache.execute(change[damage])
    again = lab.new_index()
    again.refresh()
    assert lab.said_by(again) == before


def test_two_may_share_a_cache(lab: Lab) -> None:
    lab.finish(lab.planned()[0])
    other = lab.new_index()
    assert lab.index.refresh() == other.refresh() == {BLOBS}
    lab.finish(lab.planned()[1])
    assert lab.index.refresh() == other.refresh() == {BLOBS}
    assert lab.said_by(other) == lab.said_by(lab.index)


def test_a_result_that_was_lost_before_it_was_read_is_said_to_be(lab: Lab) -> None:
    lab.finish(lab.planned()[0])
    shutil.rmtree(lab.folder / "whitebench-artifacts")
    lab.index.refresh()
    assert lab.record().state == "missing"
    assert lab.record().reason.endswith("is gone: run it again")
    assert lab.said_by(lab.index) == lab.said_by_store()


def look(index: Index) -> tuple[set[tuple[str, str]], list[tuple[str, str]]]:
    return set(index.refresh()), index.suites()


def test_a_store_may_come_later_go_away_and_be_replaced(lab: Lab, new_store: NewStore) -> None:
    file = lab.folder / "whitebench.db"
    elsewhere = Index(f"sqlite:///{lab.folder}/later/whitebench.db", lab.folder / "cache")
    assert look(elsewhere) == (set(), [])
    assert not (lab.folder / "later").exists()
    lab.finish(lab.planned()[0])
    (lab.folder / "later").mkdir()
    with closing(sqlite3.connect(file)) as full, closing(sqlite3.connect(lab.folder / "later" / file.name)) as copy:
        full.backup(copy)
    assert look(elsewhere) == ({BLOBS}, [BLOBS])
    new_store(lab.folder / "empty")
    (lab.folder / "empty" / file.name).replace(lab.folder / "later" / file.name)
    assert look(elsewhere) == ({BLOBS}, [])
    shutil.rmtree(lab.folder / "later")
    assert look(elsewhere) == (set(), [])


def test_a_cell_that_is_verified_is_news(lab: Lab) -> None:
    run_id = lab.finish(lab.planned()[0])
    lab.index.refresh()
    assert lab.record().verification is None
    found = Verification(is_repeated=True, when=now(), device="a processor", threads=1, versions={}, num_scores=3)
    lab.store.record_verification(run_id, found)
    assert lab.index.refresh() == {BLOBS}
    told = lab.record().verification
    assert told is not None
    assert (told.standing, told.when) == ("reproduced", found.when)
    assert told == lab.said_by_store().records[0].verification


def test_results_are_in_memory_as_long_as_somebody_holds_their_ledger(lab: Lab) -> None:
    lab.finish(lab.planned()[0])
    lab.index.refresh()
    ledger = lab.said_by(lab.index)
    assert lab.said_by(lab.index).records[0].result is ledger.records[0].result
    del ledger
    gc.collect()
    assert len(lab.index._results) == 0


def test_the_overrides_of_a_suite_in_the_store_lead_back_to_it(lab: Lab) -> None:
    given = ["budget.epochs=3", 'summary="two words"', "seeds=[0, 1]"]
    lab.finish(lab.planned(given)[0], overrides=canonical_overrides(given))
    lab.index.refresh()
    [(suite, overrides)] = lab.index.suites()
    typed = overrides_of(overrides)
    assert typed == ("budget.epochs=3", "seeds=[0, 1]", 'summary="two words"')
    assert lab.said_by(lab.index, typed).records[0].state == "finished"
    assert (suite, overrides_of("")) == ("blobs", ())

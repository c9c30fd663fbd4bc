"""Runs read from MLflow's tables instead of by its own search."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from whitebench import tables
from whitebench.identity import CellName
from whitebench.result import Chosen
from whitebench.store import Store
from whitebench.suite import Contestant
from whitebench.tables import Tables
from whitebench.tags import Tag
from whitebench.tracking import Tracking

NewStore = Callable[[Path], Store]
KEYS = (Tag.STATE, Tag.OPENINGS)


def open_cell(store: Store, suite: str, seed: int) -> str:
    return store.open_cell(
        CellName(suite=suite, contestant="tiny", task="blobs", seed=seed),
        contestant=Contestant(model="tiny"), overrides="a=it's", identity="1" * 64, parts={
            "contestant": {"model": "tiny", "options": {}, "objective": "cross-entropy", "readout": "head"}},
        chosen=Chosen(hyperparameters={"rate": 0.5}, trial=None, validation=None), is_guest=False, claim=f"cell/{seed}",
    )  # fmt: skip


def make_runs(store: Store, suite: str) -> list[str]:
    """Make three cells, the second with a curve, interrupted, the third deleted, a study, and another suite's cell."""
    runs = [open_cell(store, suite, seed) for seed in range(3)]
    store.record_opening(runs[0], "f" * 64)
    store.interrupt(runs[1])
    for loss, step in ((4.0, 1), (2.0, 2), (3.0, 1)):
        store.tracking.log_points(runs[1], [("loss", loss, step)])
        time.sleep(0.002)  # MLflow tells milliseconds apart
    store.tracking.delete_run(runs[2])
    store.open_study(suite, "tiny", "blobs", overrides="", name="s" * 64, claim="study/s/")
    open_cell(store, f"{suite}-other", 0)
    return runs


def assert_tables_agree(store: Store, suite: str) -> None:
    """See that the tables say what MLflow's own search says."""
    by_search = Tracking(store.tracking.uri)
    by_search._tables = None
    for where in ({}, {Tag.KIND: "cell"}, {Tag.KIND: "cell", Tag.SEED: "1"}, {Tag.KIND: "CELL"}, {Tag.STATE: "none"}):
        for experiment in (suite, f"{suite}/tuning", "nowhere"):
            assert store.tracking.runs(experiment, where) == by_search.runs(experiment, where)
        assert store.tracking.runs_anywhere(where) == by_search.runs_anywhere(where)
    assert store.tracking.open_runs(suite) == by_search.open_runs(suite)
    for run in store.tracking.runs_anywhere({}):
        assert store.tracking.curve(run.run_id, "loss") == by_search.curve(run.run_id, "loss")
    cells = {Tag.KIND: "cell"}
    marks, news = store.tracking.changed_runs(cells, KEYS, {})
    expected, all_cells = by_search.changed_runs(cells, KEYS, {})
    assert marks == expected
    assert {run.run_id: run for run in news} == {run.run_id: run for run in all_cells}
    assert [store.tracking.run(run_id) for run_id in marks] == [by_search.run(run_id) for run_id in marks]
    study = {Tag.KIND: "study"}
    assert store.tracking.open_runs_anywhere(study) == by_search.open_runs_anywhere(study) != []


@pytest.mark.parametrize("few", [0, 1, tables.FEW])
def test_the_tables_say_of_runs_what_mlflows_own_search_says(
    tmp_path: Path, new_store: NewStore, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(tables, "FEW", few)
    store = new_store(tmp_path)
    make_runs(store, "rows")
    assert_tables_agree(store, "rows")


def test_more_runs_than_are_read_at_once_are_all_read(
    tmp_path: Path, new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = new_store(tmp_path)
    make_runs(store, "rows")
    monkeypatch.setattr("whitebench.tables.PIECE", 2)
    assert_tables_agree(store, "rows")


def test_news_is_what_is_open_and_what_has_changed_since_it_was_seen(tmp_path: Path, new_store: NewStore) -> None:
    store = new_store(tmp_path)
    opened, interrupted, deleted = make_runs(store, "rows")
    seen, _ = store.tracking.changed_runs({Tag.KIND: "cell", Tag.SUITE: "rows"}, KEYS, {})
    assert seen.keys() == {opened, interrupted, deleted}

    def news() -> set[str]:
        return {one.run_id for one in store.tracking.changed_runs({Tag.SUITE: "rows", Tag.KIND: "cell"}, KEYS, seen)[1]}

    assert news() == {opened, deleted}  # MLflow has the deleted one as open still
    store.tracking.tag(interrupted, {Tag.STATE: "superseded"})
    assert news() == {opened, deleted, interrupted}
    store.tracking.tag(interrupted, {Tag.STATE: "interrupted"})
    store.tracking.delete_run(interrupted)
    assert news() == {opened, deleted, interrupted}


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_reader_waits_for_no_writer_and_no_writer_for_a_reader(
    tmp_path: Path, new_store: NewStore, journal: str
) -> None:
    make_runs(new_store(tmp_path), "rows")
    file = tmp_path / "copy.db"
    with closing(sqlite3.connect(tmp_path / "whitebench.db")) as original, closing(sqlite3.connect(file)) as copy:
        original.backup(copy)
        copy.execute(f"PRAGMA journal_mode={journal}")
    tables = Tables(f"sqlite:///{file}")
    with closing(sqlite3.connect(file, timeout=0)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("DELETE FROM tags WHERE key = ?", (Tag.SEED,))
        assert len(tables.find({Tag.SEED: "0"})) == 2
        writer.commit()  # raises where anybody still reads
        assert tables.find({Tag.SEED: "0"}) == []


def test_a_reader_makes_no_file_and_writes_into_none(tmp_path: Path, new_store: NewStore) -> None:
    with pytest.raises(OperationalError, match="unable to open"):
        Tables(f"sqlite:///{tmp_path}/none.db").find({})
    assert list(tmp_path.iterdir()) == []
    new_store(tmp_path)
    tables = Tables(f"sqlite:///{tmp_path}/whitebench.db")
    with tables._engine.connect() as database, pytest.raises(OperationalError, match="readonly"):
        database.exec_driver_sql("DELETE FROM tags")


def test_a_database_without_mlflows_tables_has_no_runs(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as database:
        database.execute("CREATE TABLE cooks (name TEXT)")
    tables = Tables(f"sqlite:///{tmp_path}/other.db")
    assert (tables.find({}), tables.marks({}, ())) == ([], {})

"""The one door through which the server reads."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from tests.leaderboards.conftest import World
from tests.leaderboards.server.conftest import TINY, Held
from whitebench.catalog import Catalog
from whitebench.errors import BusyStoreError, StoreError, WhitebenchError
from whitebench.store import Store
from whitebench_leaderboards.server.reader import NotHereError, Reader
from whitebench_leaderboards.server.source import Key


def test_a_board_is_made_once_until_its_cells_change(world: World, held: Held, reader: Reader) -> None:
    first = reader.board("tiny")
    reader.refresh()
    assert reader.board("tiny") is first
    held.change(world.entry("newcomer", [0.9, 0.8, 0.9]))
    reader.refresh()
    assert [entry.contestant for entry in reader.board("tiny").entries] == ["newcomer"]
    assert held.asked == 2


def test_the_store_is_looked_at_once_a_moment_however_many_ask(
    held: Held, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []

    def look() -> frozenset[Key]:
        looks.append(1)
        return frozenset()

    monkeypatch.setattr(held, "refresh", look)
    monkeypatch.setattr("whitebench_leaderboards.server.reader.PAUSE", 60.0)
    for _ in range(5):
        reader.refresh()
    assert len(looks) == 1


def test_of_all_who_ask_while_the_store_is_away_one_waits_for_it(
    held: Held, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    def wait_in_vain() -> frozenset[Key]:
        tries.append(1)
        raise BusyStoreError("it does not answer")

    monkeypatch.setattr(held, "refresh", wait_in_vain)
    monkeypatch.setattr("whitebench_leaderboards.server.reader.PAUSE", 60.0)
    for _ in range(5):
        with pytest.raises(StoreError, match="it does not answer"):
            reader.refresh()
    assert len(tries) == 1
    monkeypatch.undo()
    monkeypatch.setattr("whitebench_leaderboards.server.reader.PAUSE", 0.0)
    reader.refresh()


def test_overrides_that_the_store_has_no_cells_of_are_refused(held: Held, reader: Reader) -> None:
    with pytest.raises(NotHereError, match=r"no cells of suite tiny with seeds=9999"):
        reader.board("tiny", "seeds=9999")
    held.keys.append(("tiny", "seeds=2"))
    assert reader.board("tiny", "seeds=2").heading.seeds == (0, 1)


def test_an_unknown_suite_is_told_the_near_ones(reader: Reader) -> None:
    with pytest.raises(NotHereError, match=r"unknown suite 'smok', did you mean 'smoke'"):
        reader.board("smok")


def test_a_suite_that_comes_along_can_be_shown_before_it_is_run(reader: Reader) -> None:
    shelf = next(one for one in reader.shelves() if one.suite == "smoke")
    assert shelf.is_known
    assert not shelf.is_stored


def test_a_file_goes_before_the_suite_of_the_same_name_and_two_files_do_not(
    held: Held, catalog: Catalog, tmp_path: Path
) -> None:
    for name in ("one.toml", "two.toml"):
        (tmp_path / name).write_text(TINY.replace('"tiny"', '"smoke"'), encoding="utf-8")
    store = cast("Store", held)
    reader = Reader(held, lambda: store, catalog, files=[str(tmp_path / "one.toml")])
    assert {one.suite: one.summary for one in reader.shelves()}["smoke"] == "Two small models on small images."
    with pytest.raises(WhitebenchError, match="are both called smoke"):
        Reader(held, lambda: store, catalog, files=[str(tmp_path / "one.toml"), str(tmp_path / "two.toml")])


def test_without_a_store_a_cell_has_no_curves_and_no_past(held: Held, catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY, encoding="utf-8")
    reader = Reader(held, lambda: None, catalog, files=[str(tmp_path / "tiny.toml")])
    record = reader.record("tiny", "", "vit", "digits", 0)
    assert reader.curves(record, "accuracy") == {}
    assert reader.pictures(record) == {}
    assert reader.past("tiny", "", "vit") == []
    assert reader.studies("tiny", "") == []

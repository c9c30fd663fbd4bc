"""Where the files of a store go: beside it, or where WHITEBENCH_ARTIFACTS says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.benchmark.test_conductor import World, world
from whitebench import address
from whitebench.address import files_of, home_of, see_that_it_can_be_written
from whitebench.errors import StoreError

__all__ = ["world"]

WriteSuite = Callable[..., Path]


def test_they_lie_beside_the_store_unless_it_is_said_otherwise_and_a_server_knows_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WHITEBENCH_ARTIFACTS", raising=False)
    sqlite, postgres = f"sqlite:///{tmp_path}/a.db", "postgresql://host/bench"
    assert files_of(sqlite) == f"file://{tmp_path}/whitebench-artifacts"
    assert files_of(postgres) == (home_of(postgres) / "whitebench-artifacts").as_uri()
    assert files_of("http://host:5000") is None


def test_a_folder_or_an_address_that_mlflow_knows_can_be_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHITEBENCH_ARTIFACTS", f"{tmp_path}/shared files/")
    assert files_of("postgresql://host/bench") == f"file://{tmp_path}/shared%20files"
    monkeypatch.setattr(address, "find_spec", lambda name: object())
    monkeypatch.setenv("WHITEBENCH_ARTIFACTS", "s3://bucket/path/")
    assert files_of("postgresql://host/bench") == "s3://bucket/path"


def test_object_storage_without_its_library_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(address, "find_spec", lambda name: None)
    monkeypatch.setenv("WHITEBENCH_ARTIFACTS", "s3://bucket/path")
    with pytest.raises(StoreError, match=r"WHITEBENCH_ARTIFACTS=s3://bucket/path needs boto3: pip install boto3"):
        see_that_it_can_be_written(f"sqlite:///{tmp_path}/a.db")


def test_what_a_cell_leaves_goes_there_and_is_read_from_there(
    world: World, write_suite: WriteSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHITEBENCH_ARTIFACTS", str(tmp_path / "shared files"))
    suite = write_suite(trials=0, seeds=1)
    assert world.run(suite).finished == 1
    assert len(list((tmp_path / "shared files" / "blobs").rglob("result.json"))) == 1
    assert not list(tmp_path.glob("whitebench-artifacts/blobs/*"))
    [record] = world.ledger(suite).records
    assert record.result is not None

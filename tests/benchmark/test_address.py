"""Where the files of a store go: beside it, or where WHITEBENCH_ARTIFACTS says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.benchmark.test_conductor import World, world
from whitebench import address
from whitebench.address import claims_url, files_of, home_of, see_that_it_can_be_written
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


@pytest.mark.parametrize("spellings", [
    ("http://h:5000", "http://h:5000/", "http://me:pw@H:5000"),
    ("https://h", "https://h:443/"),
    ("postgresql://u@h/d", "postgresql://u:pw@h:5432/d", "postgresql://H/d?sslmode=require", "postgresql+psycopg://h/d"),
])  # fmt: skip
def test_one_server_has_one_home_however_it_is_spelt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spellings: tuple[str, ...]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert len({home_of(uri) for uri in spellings}) == 1
    assert len({claims_url(uri) for uri in spellings if uri.startswith("http")}) <= 1


def test_other_servers_databases_and_schemas_have_other_homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    schema = "postgresql://h/d?options=-csearch_path%3Da"
    every = [
        "http://h:5000",
        "http://h",
        "https://h",
        "postgresql://h/d",
        "postgresql://h/e",
        "postgresql://g/d",
        schema,
    ]
    assert len({home_of(uri) for uri in every}) == len(every)


def test_what_was_begun_in_the_home_of_one_spelling_is_gone_on_with_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    old = tmp_path / "whitebench" / hashlib.sha256(b"postgresql://u@h/d").hexdigest()[:16]
    old.mkdir(parents=True)
    assert home_of("postgresql://u@h/d") == old


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

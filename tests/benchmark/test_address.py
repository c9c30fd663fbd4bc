"""What a store's URI may say and what of it is shown; where files go: beside it, or where WHITEBENCH_ARTIFACTS says."""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.benchmark.test_conductor import World, world
from whitebench import address
from whitebench.address import (
    claims_url,
    files_of,
    home_of,
    printed,
    resolve_uri,
    see_that_it_can_be_written,
    without_password,
)
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


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://me:p%40ss@host:5432/db", "postgresql://***@host:5432/db"),
        ("http://token@host:5000", "http://***@host:5000"),
        ("postgresql://u:a/b@h/d", "postgresql://***@h/d"),
        ("postgresql://u:a@b@h/d", "postgresql://***@h/d"),
        ("postgresql://h/d?user=u&password=sekret1", "postgresql://h/d?user=u&password=***"),
        ("postgresql://h:5432/d?password=a@b&sslmode=require", "postgresql://h:5432/d?password=***&sslmode=require"),
        ("postgresql://h/d?sslpassword=x&SSLkey=k", "postgresql://h/d?sslpassword=***&SSLkey=k"),
        ("mysql://u:x@h/d?ssl_passwd=y", "mysql://***@h/d?ssl_passwd=***"),
        ("mssql://?odbc_connect=DSN%3Dd%3BPWD%3Dx", "mssql://?odbc_connect=***"),
        ("no answer from http://u:x@h:1 or http://u:y@h:2", "no answer from http://***@h:1 or http://***@h:2"),
        ("sqlite:////home/a:b/me@work/whitebench.db", "sqlite:////home/a:b/me@work/whitebench.db"),
        ("s3://bucket/path@1?versions=password", "s3://bucket/path@1?versions=password"),
    ],
)
def test_a_password_is_not_shown_wherever_it_stands_in_a_uri(uri: str, shown: str) -> None:
    assert without_password(uri) == shown


def test_a_uri_that_holds_no_password_is_printed_so_that_it_can_be_used_again() -> None:
    assert printed("postgresql://me@host:5432/db?sslmode=require") == "postgresql://me@host:5432/db?sslmode=require"
    assert printed("sqlite:////home/me/whitebench.db") == "sqlite:////home/me/whitebench.db"
    assert printed("postgresql://me:secret@host/db") == "postgresql://***@host/db"
    assert printed("postgresql://host/db?user=me&password=secret") == "postgresql://host/db?user=me&password=***"


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("postgresql://t@127.0.0.1:abc/w1", "names a port that is none (0-65535)"),
        ("mysql://t@127.0.0.1:99999/w1", "names a port that is none (0-65535)"),
        ("http://host:x", "names a port that is none (0-65535)"),
        ("postgresql://me@h1:5432,h2:5433/w1", "names several hosts, each with a port, where one can stand"),
        ("postgresql://u:secr/et@h/d", "in a user's name and password write @ as %40, : as %3A, / as %2F"),
        ("postgresql://u:12/secret@h/d", "in a user's name and password write @ as %40, : as %3A, / as %2F"),
        ("postgresql://u:secret#1@h/d", "in a user's name and password write @ as %40"),
        ("postgresql://u:a@secret@h/d", "in a user's name and password write @ as %40, : as %3A, / as %2F"),
    ],
)
def test_an_address_with_a_part_that_is_none_is_refused_in_a_sentence_without_its_password(uri: str, told: str) -> None:
    with pytest.raises(StoreError) as refused:
        resolve_uri(uri)
    assert f"--store {without_password(uri)}: {told}" in str(refused.value)
    assert "secr" not in "".join(traceback.format_exception_only(refused.value))
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None  # nor in a traceback


def test_several_hosts_with_one_port_are_left_to_the_driver() -> None:
    assert resolve_uri("postgresql://me@h1,h2:5433/w1") == "postgresql://me@h1,h2:5433/w1"

"""A SQLite file is made whole, and a place where it could not be trusted is refused with the reason."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from whitebench.address import resolve_uri
from whitebench.database import check_place, check_server, filesystem_of, make_whole
from whitebench.errors import StoreError


class Mount(NamedTuple):
    mountpoint: str
    fstype: str


def fill(url: str) -> None:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
        database.execute("CREATE TABLE things (x)")
        database.commit()


def test_a_database_appears_with_its_tables_in_write_ahead_mode(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "a.db"
    make_whole(file, fill)
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("things",)]
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert [one.name for one in file.parent.iterdir()] == ["a.db"]


def test_a_database_that_is_there_or_comes_in_the_meantime_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.db"

    def be_late(url: str) -> None:
        fill(url)
        file.write_bytes(b"another's")

    make_whole(file, be_late)
    make_whole(file, fill)
    assert file.read_bytes() == b"another's"


WRITE_AND_LEAVE = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute("INSERT INTO things VALUES (1)")
database.commit()
database.close()
"""


def test_to_look_at_an_address_takes_no_database_from_under_those_who_have_it_open(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    make_whole(file, fill)
    with closing(sqlite3.connect(file)) as database:
        database.execute("SELECT * FROM things").fetchall()
        resolve_uri(f"sqlite:///{file}")
        subprocess.run([sys.executable, "-c", WRITE_AND_LEAVE, str(file)], check=True)
        # Who leaves last folds the log into the database: our locks must have told the other that we are still here.
        assert (tmp_path / "a.db-wal").exists()
        assert database.execute("SELECT * FROM things").fetchall() == [(1,)]


def test_filling_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(_: str) -> None:
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        make_whole(tmp_path / "a.db", fail)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "lustre", "fuse.sshfs"])
def test_a_network_file_system_is_refused_with_the_reason_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    mounts = [Mount("/", "ext4"), Mount(str(tmp_path), kind), Mount(str(tmp_path / "local"), "tmpfs")]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: mounts)  # noqa: A006  # psutil's own name
    told = rf"network file system \({kind}\), where SQLite's locks are not reliable.*--store postgresql://"
    with pytest.raises(StoreError, match=told):
        check_place(tmp_path / "folder" / "whitebench.db")
    check_place(tmp_path / "local" / "whitebench.db")
    assert filesystem_of(Path("/etc")) == "ext4"


def test_the_file_system_of_a_real_place_is_known(tmp_path: Path) -> None:
    assert filesystem_of(Path("/proc/self")) == "proc"
    assert filesystem_of(tmp_path / "not" / "there") not in ("unknown", "proc")


def test_several_hosts_are_not_looked_at_for_the_driver_takes_one_after_another() -> None:
    check_server("postgresql://me@no-such-host.invalid,neither.invalid:5433/db")
    check_server("postgresql://me@/db?host=no-such-host.invalid:5432&host=neither.invalid:5433")

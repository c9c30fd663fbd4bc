"""Databases before a library opens them: files made whole or not at all, places and servers looked at first."""

from __future__ import annotations

import os
import socket
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse
from urllib.request import getproxies

import psutil

from whitebench.address import PORTS, sqlite_file
from whitebench.errors import BusyStoreError, StoreError

if TYPE_CHECKING:
    from sqlalchemy import Engine

NETWORKED = frozenset({"afs", "afpfs", "beegfs", "ceph", "cifs", "davfs", "fuse.ceph", "fuse.glusterfs", "fuse.rclone",
                       "fuse.s3fs", "fuse.sshfs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "orangefs",
                       "pvfs2", "smb2", "smb3", "smbfs", "sshfs", "webdav"})  # fmt: skip
"""File systems that machines share: SQLite's locks are not reliable there, and its write-ahead log needs memory that
all writers share (sqlite.org/wal.html, section 2.2)."""

KEEPALIVE = {"connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "tcp_user_timeout": 30_000}
"""For PostgreSQL (libpq): a server that falls silent is given up within half a minute."""

SQLITE_TIMEOUT = 2.0
"""Seconds that SQLite itself waits for a lock, deaf to Ctrl-C; between two tries we wait ourselves."""

PATIENCE = 60.0
"""Seconds that a write waits for another process to let go of a file."""


def make_whole(file: Path, fill: Callable[[str], object]) -> None:
    """Make a database elsewhere and put it in its place whole: a kill in between would spoil it for good.

    Args:
        file: where it is to lie; left alone where it exists, and when another process is quicker.
        fill: makes the tables behind the URL that it is given.
    """
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".whitebench-", dir=file.parent) as folder:
        new, whole = Path(folder) / "new.db", Path(folder) / "whole.db"
        fill(f"sqlite:///{new}")
        with closing(sqlite3.connect(new)) as made, closing(sqlite3.connect(whole)) as copy:
            made.backup(copy)
            # Write-ahead mode stays with the file: four writers then wait half as long for each other.
            copy.execute("PRAGMA journal_mode=WAL")
        with suppress(FileExistsError):
            os.link(whole, file)


def check_place(file: Path) -> None:
    """Refuse a place that SQLite could not be trusted with.

    Raises:
        StoreError: it lies on a network file system.
    """
    kind = filesystem_of(file)
    if kind in NETWORKED:
        raise StoreError(
            f"the store {file} lies on a network file system ({kind}), where SQLite's locks are not reliable: results "
            "could be lost. Use a local disk (--store sqlite:////tmp/whitebench.db) or a server "
            "(--store postgresql://HOST/DATABASE, or http://HOST:5000 of an MLflow server)"
        )


DRIVERS = {"psycopg": "'psycopg[binary]'", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}
"""Distributions by the module that SQLAlchemy asks for."""


def check_server(uri: str, seconds: float = 5.0) -> None:
    """Refuse a server that nobody answers at: libraries would try for minutes, or an hour.

    Raises:
        BusyStoreError: there is no connection within `seconds`.
    """
    parsed = urlparse(uri)
    scheme = parsed.scheme.partition("+")[0]
    # A socket of this machine, or hosts that only the driver knows to take one after another; a proxy answers for it.
    if not parsed.hostname or "," in parsed.hostname or scheme in getproxies():
        return
    port = parsed.port or PORTS[scheme]
    try:
        socket.create_connection((parsed.hostname, port), timeout=seconds).close()
    except OSError as error:
        raise BusyStoreError(
            f"the store at {parsed.hostname}:{port} does not answer ({error.strerror or error}): is the server "
            "running, and is the address right?"
        ) from error


def check_database(url: str) -> set[str]:
    """Connect once, and let go: what is wrong is said before a library tries over and over.

    Return the names of its tables.

    Raises:
        StoreError: the driver of that kind of database is not installed.
        sqlalchemy.exc.SQLAlchemyError: there is no connection.
    """
    file = sqlite_file(url)
    if file is not None and not file.exists():
        return set()
    import sqlalchemy

    engine = open_engine(url)
    with engine.connect() as connection:
        tables = set(sqlalchemy.inspect(connection).get_table_names())
    engine.dispose()
    return tables


def open_engine(url: str, *, is_reader: bool = False) -> Engine:
    """Return a way to a database that waits for neither lock nor server for long; nothing is connected yet.

    A reader's makes no SQLite file and writes into none, and holds no transaction open.

    Raises:
        StoreError: the driver of that kind of database is not installed.
    """
    import sqlalchemy

    file = sqlite_file(url)
    if file is not None and is_reader:
        return sqlalchemy.create_engine(
            "sqlite://",
            creator=lambda: _open_to_read(file),
            poolclass=sqlalchemy.NullPool,
            isolation_level="AUTOCOMMIT",
        )
    arguments: dict[str, Any] = {"timeout": SQLITE_TIMEOUT} if file else {}
    if url.startswith("postgresql"):
        arguments = dict(KEEPALIVE)
    level: dict[str, Any] = {"isolation_level": "AUTOCOMMIT"} if is_reader else {}
    try:
        return sqlalchemy.create_engine(url, pool_pre_ping=True, connect_args=arguments, **level)
    except ImportError as error:
        package = DRIVERS.get(error.name or "", error.name)
        raise StoreError(
            f"the driver of {urlparse(url).scheme} is not installed: `python -m pip install {package}`"
        ) from error


def _open_to_read(file: Path) -> sqlite3.Connection:
    # Not mode=ro: whoever is the last to close a file in write-ahead mode tidies up behind all others.
    address = f"{file.as_uri()}?mode=rw"
    connection = sqlite3.connect(address, uri=True, timeout=SQLITE_TIMEOUT, check_same_thread=False)
    connection.execute("PRAGMA query_only = ON")
    return connection


def filesystem_of(path: Path) -> str:
    """Return the type of the file system that `path` lies on or would lie on, as the system calls it (`ext4`)."""
    place = path.absolute()
    mounts = {Path(one.mountpoint): one.fstype for one in psutil.disk_partitions(all=True)}
    return next((mounts[folder].lower() for folder in (place, *place.parents) if folder in mounts), "unknown")

"""SQLite's files: made whole or not at all, and looked at before a library opens them."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import psutil

from whitebench.errors import StoreError

NETWORKED = frozenset({"afs", "afpfs", "beegfs", "ceph", "cifs", "davfs", "fuse.ceph", "fuse.glusterfs", "fuse.rclone",
                       "fuse.s3fs", "fuse.sshfs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "orangefs",
                       "pvfs2", "smb2", "smb3", "smbfs", "sshfs", "webdav"})  # fmt: skip
"""File systems that machines share: SQLite's locks are not reliable there, and its write-ahead log needs memory that
all writers share (sqlite.org/wal.html, section 2.2)."""

PATIENCE = 60.0
"""Seconds that a write waits for another process to let go of a file."""


def make_whole(file: Path, fill: Callable[[str], None]) -> None:
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


def check_file(file: Path) -> None:
    """Refuse a place or a file that SQLite could not be trusted with.

    Raises:
        StoreError: it lies on a network file system, is a folder, or holds something else than a database.
    """
    kind = filesystem_of(file)
    if kind in NETWORKED:
        raise StoreError(
            f"the store {file} lies on a network file system ({kind}), where SQLite's locks are not reliable: results "
            "could be lost. Use a local disk (--store sqlite:////tmp/whitebench.db) or a server "
            "(--store postgresql://HOST/DATABASE, or http://HOST:5000 of an MLflow server)"
        )
    if file.is_dir():
        raise StoreError(f"the store {file} is a folder: name a file, as in --store sqlite:///{file}/whitebench.db")
    if not file.exists():
        return
    try:
        with file.open("rb") as content:
            start = content.read(16)
    except OSError as error:
        raise StoreError(f"the store {file} cannot be read: {error.strerror}") from error
    if start not in (b"SQLite format 3\0", b""):
        raise StoreError(f"the store {file} is no SQLite database: name another file with --store")


def filesystem_of(path: Path) -> str:
    """Return the type of the file system that `path` lies on or would lie on, as the system calls it (`ext4`)."""
    place = path.absolute()
    mounts = {Path(one.mountpoint): one.fstype for one in psutil.disk_partitions(all=True)}
    return next((mounts[folder].lower() for folder in (place, *place.parents) if folder in mounts), "unknown")

"""Cache: what was read from a store, in one SQLite file of the user's cache folder.

A row is a file of a run, or what was taken from one, with the sha256 of its bytes: what is damaged counts as not kept.
A file that is damaged as a whole, or was made by another version of this room, is thrown away. Where nothing can be
kept nothing is: whoever asks reads the store again.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

VERSION = 1
"""Raised whenever the rows mean something else."""

PATIENCE = 2.0
"""Seconds to wait for another process that writes into the same file."""

_ROWS = """
CREATE TABLE IF NOT EXISTS kept (
    run_id TEXT, name TEXT, sha256 TEXT, content BLOB, PRIMARY KEY (run_id, name)
)
"""

Found = TypeVar("Found")


class Cache:
    """Bytes by run and name; several processes may share one file. Without a file nothing is kept."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self._database: sqlite3.Connection | None = None
        self._try(self._open)

    def get(self, run_id: str, name: str) -> bytes | None:
        """Return what is kept of a run under a name, or None."""
        query = "SELECT sha256, content FROM kept WHERE run_id = ? AND name = ?"
        found = self._try(lambda: self._opened.execute(query, (run_id, name)).fetchone())
        if found is None or hashlib.sha256(found[1]).hexdigest() != found[0]:
            return None
        return bytes(found[1])

    def run_ids(self, name: str) -> set[str]:
        """Return the runs of which something is kept under a name."""
        query = "SELECT run_id FROM kept WHERE name = ?"
        return {row[0] for row in self._try(lambda: self._opened.execute(query, (name,)).fetchall()) or ()}

    def keep(self, rows: Iterable[tuple[str, str, bytes]]) -> None:
        """Keep contents, each with its run and name; all of them or none."""
        hashed = [(run_id, name, hashlib.sha256(content).hexdigest(), content) for run_id, name, content in rows]

        def insert() -> None:
            with self._opened as database:
                database.executemany("INSERT OR REPLACE INTO kept VALUES (?, ?, ?, ?)", hashed)

        self._try(insert)

    def forget(self, run_ids: Iterable[str]) -> None:
        """Drop all that is kept of some runs."""
        gone = [(run_id,) for run_id in run_ids]

        def delete() -> None:
            with self._opened as database:
                database.executemany("DELETE FROM kept WHERE run_id = ?", gone)

        self._try(delete)

    def close(self) -> None:
        """Let go of the file."""
        if self._database is not None:
            self._database.close()
            self._database = None

    @property
    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            raise sqlite3.OperationalError("it could not be opened")
        return self._database

    def _open(self) -> None:
        if self.file is None:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(self.file, timeout=PATIENCE, check_same_thread=False)
        found = self._database.execute("PRAGMA user_version").fetchone()[0]
        if found not in (0, VERSION):
            raise sqlite3.DatabaseError(f"version {found}")
        # What is lost when the machine fails is read again.
        self._database.executescript(
            f"PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; {_ROWS}; PRAGMA user_version={VERSION}"
        )

    def _try(self, do: Callable[[], Found]) -> Found | None:
        """Return what `do` returns, or None where the file cannot be used; one that is damaged is made anew."""
        try:
            return do()
        except (OSError, sqlite3.OperationalError):  # the folder cannot be written to, the disk is full, it is locked
            return None
        except sqlite3.DatabaseError:
            self.close()
            with suppress(OSError, sqlite3.Error):
                for end in ("", "-wal", "-shm"):
                    Path(f"{self.file}{end}").unlink(missing_ok=True)
                self._open()
            return None

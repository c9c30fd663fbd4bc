"""A database, a server or a disk that cannot be used: said in one sentence, and whether waiting may help."""

from __future__ import annotations

import errno
import functools
import logging
import re
import shlex
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from whitebench.address import sqlite_file, without_password
from whitebench.errors import BusyStoreError, StoreError

VENDORS = ("mlflow", "optuna", "psycopg", "psycopg2", "requests", "sqlalchemy", "sqlite3", "urllib3")
"""The libraries whose exceptions are a store's."""

LONGEST_PAUSE = 5.0
"""Seconds between two tries at most."""

LEAST_ROOM = 1_000_000
"""Bytes that must be free for SQLite to work: the memory that its writers share and some pages of its log."""

_log = logging.getLogger(__name__)

_REFUSED = {
    r"permission denied (for (schema|database|table|sequence|relation|function)|to (create|set))|must be owner of|"
    r"command denied to user|access denied for user .* to database": "the user in its address lacks rights: make it "
    "the database's owner (ALTER DATABASE … OWNER TO …), or grant them to it",
    r'database "(?P<name>[^"]+)" does not exist': "there is no such database: createdb {name}",
    r"unknown database": "there is no such database: make it there",
    r'role "(?P<name>[^"]+)" does not exist': "it has no such user: see the user in its address, or createuser {name}",
    r"no pg_hba.conf entry|pg_hba.conf rejects": "its pg_hba.conf has no line that lets this user in from this machine",
    r"authentication failed|no password supplied|access denied|is not permitted to log in": "it does not let us in: "
    "see user and password in its address",
}
"""What a server answers for as long as nobody changes something: asked first, for it is said of a connection, too."""
_BUSY = {
    r"database (table )?is locked": "it is locked by another process",
    r"connection refused|could not connect|connection to server|connection reset|server closed the connection|"
    r"max retries exceeded|timed out|temporary failure in name resolution|name or service not known|"
    r"terminating connection|ssl syscall error|ssl connection has been closed|the connection is closed|"
    r"connection aborted|connection broken|remote end closed connection|broken pipe|"
    r"consuming input failed|connection timeout expired|deadlock detected|"
    r"the database system is (starting up|shutting down)": "it does not answer",
    r"error code (429|502|503|504)|too many (connections|clients)": "it is overloaded",
}
_LASTING = {
    r"must be in the 'active' (lifecycle_stage|state)": "one of its runs was deleted in MLflow meanwhile: the same "
    "command goes on",
    r"no space left|disk is full|disk quota exceeded|disk full": "the disk is full: free some space",
    r"readonly database|read-only file system|permission denied|unable to open database file": "it cannot be written: "
    "see who owns its file and folder, and whether their file system is mounted read-only",
    r"malformed|not a database|disk i/o error": "its file is damaged or was taken away: try `sqlite3 FILE .recover`, "
    "or use another --store",
}

_of_thread = threading.local()
"""Which objects the thread is waiting for: their stores are shared by threads, their patience is not."""

Method = TypeVar("Method", bound=Callable[..., Any])


@contextmanager
def said_plainly(place: str) -> Iterator[None]:
    """Turn what libraries and the system raise about the store at `place` into StoreError.

    Raises:
        BusyStoreError: waiting may help.
        StoreError: it will not.
    """
    try:
        yield
    except (StoreError, ImportError):
        raise
    except Exception as error:
        if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in VENDORS:
            raise explain(error, place) from error
        raise


def explain(error: BaseException, place: str) -> StoreError:
    """Return what an exception means for the store at `place`, with what to do."""
    said = without_password(" ".join(str(error).split()).partition(" [SQL:")[0])
    said = re.sub(r"^\(raised as a result of .*?\) ", "", said)[:300]  # SQLAlchemy's advice to its own users
    words = f"{said} {error.__cause__ or ''}"
    if meaning := _meaning(words, _REFUSED):
        return StoreError(f"the store {place} could not be used: {meaning} ({said})")
    if meaning := _meaning(words, _BUSY):
        return BusyStoreError(f"the store {place} could not be used: {meaning} ({said})")
    is_out_of_room = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if is_out_of_room or ("disk i/o error" in words.lower() and _is_full(place)):
        words += " no space left"
    if meaning := _meaning(words, _LASTING):
        return StoreError(f"the store {place} could not be used: {meaning} ({said})")
    return StoreError(f"the store {place} could not be used: {said}")


def _is_full(place: str) -> bool:
    """Return whether the disk of a store's file has no room: SQLite calls that, too, an I/O error."""
    file = sqlite_file(place)
    try:
        return file is not None and shutil.disk_usage(file.parent).free < LEAST_ROOM
    except OSError:
        return False


def _meaning(words: str, meanings: Mapping[str, str]) -> str:
    """Return the first meaning whose pattern is found, with the name that it names; nothing where none is."""
    for pattern, meaning in meanings.items():
        if found := re.search(pattern, words, re.IGNORECASE):
            return meaning.format(**{key: shlex.quote(name) for key, name in found.groupdict("").items()})
    return ""


def patient(method: Method) -> Method:
    """Let a method say plainly what is wrong with the store, and try it again while the store is busy.

    The object it belongs to has a `place`, how people call its store, and a `patience` in seconds.
    """

    @functools.wraps(method)
    def wrapped(self: Any, *arguments: Any, **options: Any) -> Any:
        waited_for = _of_thread.__dict__.setdefault("waited_for", set())
        if id(self) in waited_for:  # called by one that is patient already
            return method(self, *arguments, **options)
        waited_for.add(id(self))
        try:
            return wait_for_it(self, *arguments, **options)
        finally:
            waited_for.discard(id(self))

    def wait_for_it(self: Any, *arguments: Any, **options: Any) -> Any:
        deadline, pause = time.monotonic() + self.patience, 0.1
        is_told = False
        while True:
            try:
                with said_plainly(self.place):
                    return method(self, *arguments, **options)
            except BusyStoreError as error:
                if time.monotonic() + pause > deadline:
                    raise
                if not is_told:
                    _log.warning("%s; it is waited for, up to %g s", error, self.patience)
                is_told = True
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    return cast("Method", wrapped)

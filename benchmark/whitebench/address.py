"""Where results live: what `--store` may say, and the folder beside it."""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import sys
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, quote, urlsplit

from whitebench.errors import StoreError
from whitebench.wording import plain

ARTIFACTS = "WHITEBENCH_ARTIFACTS"
"""The environment variable that says where files go."""

DEFAULT_URI = "sqlite:///whitebench.db"
UNWRITABLE = ("/proc", "/sys")
"""Folders of Linux in which the system's own user is told that it may write, and cannot."""
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
"""The servers that a store may lie on, and where each listens if nothing is said."""


EXAMPLES = "give a database or server, as in sqlite:///whitebench.db or http://host:5000"

PLACING = {"host", "hostaddr", "port", "dbname", "service", "options"}
"""What in a PostgreSQL URI's query says which server, database or schema is meant."""

BESIDE = "whitebench-artifacts"
"""The folder beside a store's file for the files of its runs."""


def resolve_uri(uri: str | None, said_by: str = "--store") -> str:
    """Return the store's URI with its path absolute: what `--store` says, or the file in the working folder.

    Raises:
        StoreError: the URI is of a kind that MLflow does not know, or names a file that can be no store; names
            what it was `said_by`.
    """
    uri = DEFAULT_URI if uri is None else uri
    if uri.startswith("sqlite:///"):
        return f"sqlite:///{_checked_file(uri, said_by)}"
    refusal = f"{said_by} {plain(without_password(uri), 200)}"
    # What the library says of a part repeats it, and it may be a piece of a password: it is said here, and not chained.
    try:
        parts = urlsplit(uri)
    except ValueError:
        raise StoreError(f"{refusal}: names a host that is none: {EXAMPLES}") from None
    if parts.scheme.partition("+")[0] not in PORTS:
        raise StoreError(f"{refusal}: {EXAMPLES}{_near_uri(uri, parts)}")
    if parts.netloc.count("@") > 1 or "@" in parts.path + parts.fragment:
        raise StoreError(f"{refusal}: in a user's name and password write @ as %40, : as %3A, / as %2F and # as %23")
    try:
        port = parts.port
    except ValueError:
        raise StoreError(f"{refusal}: {_no_port(parts)}") from None
    if parts.scheme in ("http", "https") and (not parts.hostname or port == 0):
        raise StoreError(f"{refusal}: names no host: {EXAMPLES}")
    return uri


def _no_port(parts: SplitResult) -> str:
    if "," in parts.netloc.rpartition("@")[2]:
        several = "?host=HOST1:PORT&host=HOST2:PORT"
        return f"names several hosts, each with a port, where one can stand: postgresql:///DATABASE{several}"
    return f"names a port that is none (0-65535): {EXAMPLES}"


def _near_uri(uri: str, parts: SplitResult) -> str:
    if parts.scheme == "sqlite":
        return "; three strokes stand before a file's path"
    if not parts.scheme and uri.strip():
        return f"; did you mean sqlite:///{plain(without_password(uri), 200)}?"
    return ""


def _checked_file(uri: str, said_by: str) -> Path:
    """Return the absolute path of a SQLite store's file, having seen that there is one or that one can be made."""
    refusal = f"{said_by} {plain(uri, 200)}"
    if uri in ("sqlite:///", "sqlite:///:memory:"):
        raise StoreError(f"{refusal}: nothing would be kept: {EXAMPLES}")
    try:
        file = Path(uri.removeprefix("sqlite:///")).resolve()
        if file.exists() and not file.is_file():
            raise StoreError(f"{refusal}: that is {'a folder' if file.is_dir() else 'no file'}: give a file's path")
        if file.is_file() and _is_something_else(file):
            raise StoreError(f"{refusal}: that file is no SQLite database: give another path")
        above = next(folder for folder in file.parents if folder.exists())
    except (OSError, RuntimeError, ValueError, sqlite3.Error) as error:
        if isinstance(error, StoreError):
            raise
        why = getattr(error, "strerror", None) or str(error)
        raise StoreError(f"{refusal}: cannot be opened ({why}): give a path that you may read and write") from error
    if not above.is_dir():
        raise StoreError(f"{refusal}: {plain(str(above), 200)} is no folder: give a path inside one")
    return file


def _is_something_else(file: Path) -> bool:
    """Return whether a file that is there is no SQLite database; an empty one is to become one."""
    if not os.access(file, os.R_OK):
        file.open("rb").close()  # raises, and says why
    # SQLite looks by itself: a file that we opened and closed would take along every lock that this process has on it
    # (sqlite.org/howtocorrupt.html, 2.2), and whoever closed the database next would take its log from under us.
    with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, timeout=0)) as database:
        try:
            database.execute("PRAGMA schema_version")
        except sqlite3.DatabaseError as error:
            return error.sqlite_errorcode == sqlite3.SQLITE_NOTADB
    return False


def see_that_it_can_be_written(uri: str) -> None:
    """See that a run could write its store and what stands beside it; nothing is made where there is nothing yet.

    Raises:
        StoreError: it could not; names the folder.
    """
    files_of(uri)
    home = home_of(uri)
    own = home / ".whitebench"
    if own.exists() and not own.is_dir():
        raise StoreError(f"{plain(str(own), 200)} is no folder, and what a run keeps must go into one: move it away")
    above = next((folder for folder in (home, *home.parents) if folder.exists()), home)
    file = sqlite_file(uri)
    wanted = [above] + ([file] if file is not None and file.exists() else [])
    for path in wanted:
        if not os.access(path, os.W_OK) or str(path).startswith(UNWRITABLE):
            raise StoreError(
                f"{plain(str(path), 200)} cannot be written: give another place with --store sqlite:///PATH"
            )


def sqlite_file(uri: str) -> Path | None:
    """Return the absolute path of a SQLite store's file, or None for another kind of store."""
    return Path(uri.removeprefix("sqlite:///")).resolve() if uri.startswith("sqlite:///") else None


def exists(uri: str) -> bool:
    """Return whether there is a store to read; one on a server is taken to be there."""
    file = sqlite_file(uri)
    return file is None or file.exists()


def home_of(uri: str) -> Path:
    """Return the folder for what stands beside the store (trials, logs, fits under way, results that wait).

    That of its file; for a store on a server a folder of the user's own, the same wherever a command is given and
    however the server is spelt.
    """
    file = sqlite_file(uri)
    if file is not None:
        return file.parent
    as_typed, one = (
        state_folder() / hashlib.sha256(text.encode()).hexdigest()[:16] for text in (uri, _server_and_place(uri))
    )
    return as_typed if as_typed.is_dir() else one  # what an earlier version began is gone on with


def _server_and_place(uri: str) -> str:
    """Return a server's address in one spelling: which host, port, database and schema, and not who asks and how."""
    parts = urlsplit(uri)
    scheme = parts.scheme.partition("+")[0]
    port = parts.port or PORTS[scheme]
    more = "".join(f"?{key}={value}" for key, value in sorted(parse_qsl(parts.query)) if key in PLACING)
    return f"{scheme}://{(parts.hostname or '').lower()}:{port}{parts.path.rstrip('/')}{more}"


def files_of(uri: str) -> str | None:
    """Return the URI below which the files of a store's experiments go; None for a server, which knows by itself.

    What WHITEBENCH_ARTIFACTS says, a folder or what MLflow knows (`s3://bucket/path`), or else a folder in the store's
    home. It counts when an experiment begins: the files of one that is there stay where they are.

    Raises:
        StoreError: nothing could be written there.
    """
    if urlsplit(uri).scheme in ("http", "https"):
        return None
    said = os.environ.get(ARTIFACTS, "").strip().rstrip("/")
    if not said:
        return (home_of(uri) / BESIDE).as_uri()
    scheme, found, _ = said.partition("://")
    if not found:
        return Path(said).resolve().as_uri()
    if scheme == "s3" and find_spec("boto3") is None:
        raise StoreError(f"{ARTIFACTS}={plain(without_password(said), 200)} needs boto3: pip install boto3")
    return said


def state_folder() -> Path:
    """Return the folder of the user's own in which whitebench keeps what is no result (XDG Base Directory, 0.8).

    A relative path in `XDG_STATE_HOME` is ignored, as that specification says.
    """
    stated = Path(os.environ.get("XDG_STATE_HOME", ""))
    return (stated if stated.is_absolute() else Path.home() / ".local" / "state") / "whitebench"


def cache_folder() -> Path:
    """Return the folder of the user's own for what can be made again (XDG Base Directory 0.8; macOS: Library/Caches).

    A relative path in `XDG_CACHE_HOME` is ignored, as that specification says. Raises RuntimeError: there is no home.
    """
    stated = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if stated.is_absolute():
        return stated / "whitebench"
    return Path.home().joinpath(*(["Library", "Caches"] if sys.platform == "darwin" else [".cache"])) / "whitebench"


def claims_url(uri: str) -> str:
    """Return the database for the claims of a store: its own, or a file of this machine where it has none (HTTP)."""
    return f"sqlite:///{home_of(uri) / 'claims.db'}" if urlsplit(uri).scheme in ("http", "https") else uri


HIDDEN = "***"
"""What stands where a password stood."""

_IN_QUERY = re.compile(r"(?<=[?&;])((?:[\w-]*(?:password|passwd|pwd)|odbc_connect)=)[^&\s]+", re.IGNORECASE)
# After a colon it reaches over strokes: somebody may have written a password that holds some as it is.
_IN_FRONT = re.compile(r"(?<=://)[^/@\s:]*:\S{0,1000}@")
_USER = re.compile(r"(?<=://)[^/@\s]*@")


def without_password(text: str) -> str:
    """Return a URI, or a text with URIs in it, as it may be shown: who it lets in, and passwords, become `***`."""
    text = _IN_QUERY.sub(rf"\1{HIDDEN}", text)
    return _USER.sub(f"{HIDDEN}@", _IN_FRONT.sub(f"{HIDDEN}@", text))


def printed(uri: str) -> str:
    """Return the URI as it is printed for use: as it is, or `without_password` where it holds one."""
    return without_password(uri) if _IN_QUERY.search(uri) or _IN_FRONT.search(uri) else uri

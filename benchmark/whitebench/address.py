"""Where results live: what `--store` may say, and the folder beside it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from urllib.parse import urlparse

from whitebench.errors import StoreError

DEFAULT_URI = "sqlite:///whitebench.db"
SCHEMES = ("http", "https", "postgresql", "mysql", "mssql")


def resolve_uri(uri: str | None) -> str:
    """Return the store's URI with its path absolute: what `--store` says, or the file in the working folder.

    Raises:
        StoreError: the URI is of a kind that MLflow does not know.
    """
    uri = uri or DEFAULT_URI
    file = sqlite_file(uri)
    if file is not None:
        return f"sqlite:///{file}"
    if urlparse(uri).scheme.partition("+")[0] not in SCHEMES:
        raise StoreError(f"--store {uri}: give a database or server, as in sqlite:///whitebench.db or http://host:5000")
    return uri


def sqlite_file(uri: str) -> Path | None:
    """Return the absolute path of a SQLite store's file, or None for another kind of store."""
    return Path(uri.removeprefix("sqlite:///")).resolve() if uri.startswith("sqlite:///") else None


def exists(uri: str) -> bool:
    """Return whether there is a store to read; one on a server is taken to be there."""
    file = sqlite_file(uri)
    return file is None or file.exists()


def home_of(uri: str) -> Path:
    """Return the folder for what stands beside the store (lock, trials, logs, fits under way).

    That of its file; for a store on a server a folder of the user's own, the same wherever a command is given.
    """
    file = sqlite_file(uri)
    if file is not None:
        return file.parent
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "whitebench" / hashlib.sha256(uri.encode()).hexdigest()[:16]


def claims_url(uri: str) -> str:
    """Return the database for the claims of a store: its own, or a file of this machine where it has none (HTTP)."""
    return f"sqlite:///{home_of(uri) / 'claims.db'}" if urlparse(uri).scheme in ("http", "https") else uri


def without_password(uri: str) -> str:
    """Return the URI as it may be shown: a password in it becomes `***`."""
    parsed = urlparse(uri)
    if parsed.password is None:
        return uri
    return parsed._replace(netloc=parsed.netloc.replace(f":{parsed.password}@", ":***@", 1)).geturl()

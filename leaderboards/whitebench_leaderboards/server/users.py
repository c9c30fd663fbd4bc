"""Who MLflow's basic auth knows: let in by the names and passwords that MLflow's own server takes.

MLflow's library reads them (`mlflow.server.auth`). A try costs the same whether there is such a user or not, at most
`AT_A_TIME` are looked at at a time, and one that fails is not answered before `PENALTY` is over: that tells nobody who
there is, and guessing is slow. No password is kept, logged or said.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import secrets
import time
import warnings
from pathlib import Path
from typing import Protocol

from starlette.concurrency import run_in_threadpool
from werkzeug.security import check_password_hash, generate_password_hash

from whitebench.address import sqlite_file, without_password
from whitebench.errors import WhitebenchError
from whitebench.wording import plain

KNOWN = 60.0
"""Seconds for which whoever was let in is not looked up again: a password's hash takes 0.1 s of a core, on purpose."""

PENALTY = 1.0
"""Seconds after which a try that fails is answered, at the earliest."""

AT_A_TIME = 2

LONGEST = 2048
"""Characters of a header that is looked at."""

PUBLIC = "password1234"
"""The administrator's in every MLflow of former times (GHSA-gq3w-7jj3-x7gr): MLflow refuses it too."""

NEEDED = "`mlflow server --app-name basic-auth` makes them, MLFLOW_AUTH_CONFIG_PATH says in which database"


class UserStore(Protocol):
    """What is asked of MLflow's `SqlAlchemyStore`."""

    def has_user(self, username: str) -> bool:
        """Return whether there is such a user."""

    def authenticate_user(self, username: str, password: str) -> bool:
        """Return whether the password is that of the user."""


class Users:
    """The users of MLflow's basic auth; asked by one event loop."""

    def __init__(self, store: UserStore) -> None:
        """Ask `store`."""
        self._store = store
        self._nobody = generate_password_hash(secrets.token_hex())
        self._secret = secrets.token_bytes()
        self._known: dict[bytes, float] = {}
        self._turns = asyncio.Semaphore(AT_A_TIME)

    async def know(self, header: str) -> bool:
        """Return whether an Authorization header names a user with its password; any exception is the store's."""
        given = credentials_of(header)
        if given is None:
            return False
        mark, began = hmac.new(self._secret, "\0".join(given).encode(), hashlib.sha256).digest(), time.monotonic()
        if self._known.get(mark, 0.0) > began:
            return True
        async with self._turns:
            is_user = await run_in_threadpool(self._is_user, *given)
        if not is_user:
            await asyncio.sleep(max(0.0, began + PENALTY - time.monotonic()))
            return False
        self._known = {one: until for one, until in self._known.items() if until > began} | {mark: began + KNOWN}
        return True

    def _is_user(self, name: str, password: str) -> bool:
        if not self._store.has_user(name):
            check_password_hash(self._nobody, password)
            return False
        return self._store.authenticate_user(name, password) and password != PUBLIC


def credentials_of(header: str) -> tuple[str, str] | None:
    """Return the name and the password in an Authorization header (RFC 7617); None where there are none."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic" or len(encoded) > LONGEST:
        return None
    try:
        name, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (name, password) if colon and "\0" not in name else None


def open_users() -> Users:
    """Return the users of the database that MLflow's configuration names; nothing is made or changed in it.

    Raises:
        WhitebenchError: what MLflow needs for it is not installed, or there are no users, or they are those of another
            version of MLflow.
    """
    # MLflow 3.17 against starlette 1.
    warnings.filterwarnings("ignore", message="starlette.middleware.wsgi is deprecated")
    try:
        from mlflow.server.auth.config import read_auth_config
        from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore
    except ImportError as error:
        raise WhitebenchError(
            f"--auth mlflow needs what MLflow's basic auth needs ({plain(str(error), 200)}): "
            "`python -m pip install 'whitebench[auth]'`"
        ) from error
    except (KeyError, ValueError) as error:  # it reads its configuration as it is imported
        raise WhitebenchError(
            f"--auth mlflow: MLflow's configuration cannot be read ({plain(repr(error), 200)}): see the file that "
            "MLFLOW_AUTH_CONFIG_PATH names"
        ) from error
    uri = str(read_auth_config().database_uri)
    _check_database(uri)
    store = SqlAlchemyStore()
    store.init_db(uri)  # type: ignore[no-untyped-call]  # MLflow says no types
    if not store.list_users():
        raise WhitebenchError(f"--auth mlflow: there are no users in {without_password(uri)}: {NEEDED}")
    return Users(store)


def _check_database(uri: str) -> None:
    """Refuse a database that MLflow would make, or bring up to date, when it is opened."""
    import sqlalchemy as sql
    from alembic.script import ScriptDirectory
    from mlflow.server.auth import db

    place, file = without_password(uri), sqlite_file(uri)
    if file is not None and not file.is_file():
        raise WhitebenchError(f"--auth mlflow: there are no users: {place} is not there: {NEEDED}")
    wanted = ScriptDirectory(str(Path(db.__path__[0]) / "migrations")).get_current_head()
    engine = sql.create_engine(uri)
    try:
        with engine.connect() as database:
            is_made = sql.inspect(database).has_table("alembic_version_auth")
            query = sql.text("SELECT version_num FROM alembic_version_auth")
            found = database.execute(query).scalar() if is_made else None
    except sql.exc.SQLAlchemyError as error:
        raise WhitebenchError(f"--auth mlflow: {place} cannot be read ({type(error).__name__}): {NEEDED}") from error
    finally:
        engine.dispose()
    if found != wanted:
        raise WhitebenchError(
            f"--auth mlflow: the users in {place} are not those of the MLflow that is installed here: use the version "
            "of the server that made them, or start `mlflow server --app-name basic-auth` once with this one"
        )

"""Who is at work on what: a claim is one row with lease and heartbeat in the store's own database.

A claim is taken by one conditional statement, so that of several conductors exactly one gets it. That of an owner who
is dead (its process is gone, or its heartbeat is older than the lease) can be taken over.
"""

from __future__ import annotations

import functools
import logging
import os
import platform
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sql
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError

from whitebench.address import sqlite_file, without_password
from whitebench.database import PATIENCE, open_engine
from whitebench.errors import StoreError
from whitebench.outage import patient

LEASE = 60
"""Seconds after which a claim whose owner has not been heard of is free: an owner on another machine may be dead."""

HEARTBEAT = 15.0
"""Seconds between two signs of life of an owner."""

_log = logging.getLogger(__name__)

_claims = sql.Table(
    "whitebench_claims",
    sql.MetaData(),
    sql.Column("name", sql.String(200), primary_key=True),
    sql.Column("owner", sql.String(64), nullable=False, index=True),
    sql.Column("host", sql.String(200), nullable=False),
    sql.Column("pid", sql.Integer, nullable=False),
    sql.Column("born", sql.Float, nullable=False),
    sql.Column("beat", sql.BigInteger, nullable=False),
)

_NOW = {
    "sqlite": "CAST(strftime('%s', 'now') AS INTEGER)",
    "postgresql": "CAST(EXTRACT(EPOCH FROM CURRENT_TIMESTAMP) AS BIGINT)",
    "mysql": "UNIX_TIMESTAMP()",
    "mssql": "DATEDIFF_BIG(second, '1970-01-01', SYSUTCDATETIME())",
}
"""The database's own clock in seconds since 1970: those of the machines that share it may differ."""


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A process that holds claims."""

    token: str
    """Its own, new in every life."""
    host: str
    """Names the machine as it is booted, and the space in which `pid` counts."""
    pid: int
    born: float
    """When the process began, see `born_of`: a pid comes again."""

    @classmethod
    def me(cls) -> Owner:
        """Return this process, under a token of its own."""
        return cls(token=uuid.uuid4().hex, host=_host(), pid=os.getpid(), born=born_of(os.getpid()))

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host.partition('/')[0]}"


class Claims:
    """The claims in one database, as one owner sees them; every method may raise StoreError."""

    def __init__(self, url: str, owner: Owner | None = None, *, patience: float = PATIENCE) -> None:
        self.owner, self.patience = owner or Owner.me(), patience
        self._engine = open_engine(url)
        self.place = without_password(url)
        self._file = sqlite_file(url)
        self._is_made = False
        self._stop = threading.Event()
        self._heart: threading.Thread | None = None

    @patient
    def take(self, name: str) -> bool:
        """Take a claim that is free, or whose owner is dead; return whether it is ours now."""
        self._make()
        with self._engine.begin() as database:
            found = database.execute(
                sql.select(_claims, self._clock().label("now")).where(_claims.c.name == name)
            ).one_or_none()
        if found is None:
            return self._insert(name)
        if found.owner == self.owner.token:
            return True
        return not _is_alive(found, found.now) and self._take_over(name, found)

    @patient
    def release(self, name: str) -> None:
        """Give a claim back, if it is ours."""
        with self._engine.begin() as database:
            database.execute(_claims.delete().where(_claims.c.name == name, _claims.c.owner == self.owner.token))

    @patient
    def holds(self, name: str) -> bool:
        """Return whether a claim is still ours, its lease begun anew: asked before what it guards is written."""
        with self._engine.begin() as database:
            renewed = database.execute(
                _claims.update()
                .where(_claims.c.name == name, _claims.c.owner == self.owner.token)
                .values(beat=self._clock())
            )
            return bool(renewed.rowcount == 1)

    @patient
    def living(self, prefix: str = "") -> dict[str, Owner]:
        """Return the claims whose owner is alive, by name, of those that begin with `prefix`."""
        if not self._exists():
            return {}
        with self._engine.begin() as database:
            rows = database.execute(sql.select(_claims).where(_claims.c.name.startswith(prefix, autoescape=True))).all()
            now = self._now(database) if rows else 0
        return {
            row.name: Owner(token=row.owner, host=row.host, pid=row.pid, born=row.born)
            for row in rows
            if _is_alive(row, now)
        }

    @contextmanager
    def alone(self, name: str, patience: float = LEASE + HEARTBEAT) -> Iterator[None]:
        """Hold a claim for the length of the body, waiting for it if need be.

        Raises:
            StoreError: somebody else has held it for longer than `patience` seconds; says who.
        """
        deadline = time.monotonic() + patience
        while not self.take(name):
            if time.monotonic() > deadline:
                holder = self.living(name).get(name)
                raise StoreError(f"{name} has been held for more than {patience:g} s by {holder or 'somebody'}")
            time.sleep(0.05)
        try:
            yield
        finally:
            self.release(name)

    def keep(self) -> None:
        """Give signs of life from a thread of their own until `close`."""
        if self._heart is None:
            self._heart = threading.Thread(target=self._beat_on, name="whitebench-claims", daemon=True)
            self._heart.start()

    def close(self) -> None:
        """Give everything back and fall silent."""
        self._stop.set()
        if self._heart is not None:
            self._heart.join(5.0)  # it may be waiting for a server that does not answer
            self._heart = None
        self._stop.clear()
        try:
            if self._exists():
                with self._engine.begin() as database:
                    database.execute(_claims.delete().where(_claims.c.owner == self.owner.token))
        except SQLAlchemyError:  # perhaps what brought us here; our end frees them as well
            _log.exception("claims were not given back")
        self._engine.dispose()

    # Inside

    def _make(self) -> None:
        if self._is_made:
            return
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
        # Of two processes that both find no table, one is told that there is one now.
        with suppress(OperationalError, ProgrammingError, IntegrityError):
            _claims.create(self._engine, checkfirst=True)
        if not self._exists():
            _claims.create(self._engine)
        self._is_made = True

    def _exists(self) -> bool:
        if not self._is_made:
            if self._file is not None and not self._file.exists():
                return False  # to look would make the file
            self._is_made = sql.inspect(self._engine).has_table(_claims.name)
        return self._is_made

    def _insert(self, name: str) -> bool:
        try:
            with self._engine.begin() as database:
                database.execute(_claims.insert().values(name=name, **self._mine()))
        except IntegrityError:  # somebody was quicker
            return False
        return True

    def _take_over(self, name: str, found: sql.Row[Any]) -> bool:
        same = (_claims.c.name == name, _claims.c.owner == found.owner, _claims.c.beat == found.beat)
        with self._engine.begin() as database:
            return bool(database.execute(_claims.update().where(*same).values(**self._mine())).rowcount == 1)

    def _mine(self) -> dict[str, Any]:
        me = self.owner
        return {"owner": me.token, "host": me.host, "pid": me.pid, "born": me.born, "beat": self._clock()}

    def _clock(self) -> sql.ColumnElement[int]:
        return sql.literal_column(_NOW[self._engine.dialect.name], sql.BigInteger)

    def _now(self, database: sql.Connection) -> int:
        return int(database.execute(sql.select(self._clock())).scalar_one())

    def _beat_on(self) -> None:
        while not self._stop.wait(HEARTBEAT):
            try:
                with self._engine.begin() as database:
                    mine = _claims.c.owner == self.owner.token
                    database.execute(_claims.update().where(mine).values(beat=self._clock()))
            except SQLAlchemyError:  # a store that is away for a moment; what is written later asks first
                _log.warning("no sign of life could be given", exc_info=True)


def _is_alive(row: sql.Row[Any], now: int) -> bool:
    """Return whether a claim's owner is alive: on this machine its process is asked after, elsewhere its heartbeat."""
    is_fresh = bool(now - row.beat <= LEASE)
    if row.host != _host():
        return is_fresh
    try:
        if abs(born_of(row.pid) - row.born) > 1.0:  # another process under the same number
            return False
        status = psutil.Process(row.pid).status()
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return is_fresh
    if status in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
        return False
    # A busy machine may delay a heartbeat, and one that slept has none: only one that was stopped is given up.
    return is_fresh or status not in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)


def born_of(pid: int) -> float:
    """Return when a process began: on Linux in ticks since the machine did, which setting its clock does not change.

    Elsewhere in seconds since 1970. Raises psutil.NoSuchProcess.
    """
    stat = Path(f"/proc/{pid}/stat")
    try:
        return float(stat.read_text(encoding="utf-8").rpartition(")")[2].split()[19])  # proc_pid_stat(5), field 22
    except OSError:
        return psutil.Process(pid).create_time()


@functools.cache
def _host() -> str:
    """Return what two processes share that can ask after each other by pid: name, boot, and space of pids."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    space = Path("/proc/self/ns/pid")
    parts = [
        socket.gethostname() or platform.node(),
        boot.read_text(encoding="ascii").strip() if boot.exists() else str(int(psutil.boot_time())),
        str(space.stat().st_ino) if space.exists() else "",
    ]
    return "/".join(parts)[:200]

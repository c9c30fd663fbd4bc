"""What a database says of itself without being changed: its tables' version, what is in it, whether it is locked."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import quote

from whitebench.address import sqlite_file
from whitebench.tags import Tag

if TYPE_CHECKING:
    from sqlalchemy import Connection

Age: TypeAlias = Literal["empty", "foreign", "current", "older", "newer"]
"""`foreign`: tables, but not of this vendor."""


@dataclass(frozen=True, kw_only=True)
class Vendor:
    """A library with tables of its own."""

    package: str
    changes: str
    """The folder in it that has a file for every change of its tables."""
    table: str
    """One that it always has."""
    upgrade: str
    """The command that brings its tables up to date."""
    count: Callable[[Connection], dict[str, int]]
    """Returns how many there are of what people call by a noun."""


SECONDS = 3
"""For a server to answer."""


def _count_cells(connection: Connection) -> dict[str, int]:
    from sqlalchemy import text

    query = (
        "select count(*), count(distinct runs.experiment_id) from runs join tags on tags.run_uuid = runs.run_uuid "
        "where tags.key = :key and tags.value = 'cell' and runs.lifecycle_stage = 'active'"
    )
    runs, suites = connection.execute(text(query), {"key": Tag.KIND}).one()
    return {"suite": int(suites), "cell run": int(runs)}


def _count_trials(connection: Connection) -> dict[str, int]:
    from sqlalchemy import text

    query = "select (select count(*) from studies), (select count(*) from trials)"
    studies, trials = connection.execute(text(query)).one()
    return {"study": int(studies), "trial": int(trials)}


MLFLOW = Vendor(
    package="mlflow",
    changes="store/db_migrations/versions",
    table="experiments",
    upgrade="mlflow db upgrade {uri}",
    count=_count_cells,
)
OPTUNA = Vendor(
    package="optuna",
    changes="storages/_rdb/alembic/versions",
    table="studies",
    upgrade="optuna storage upgrade --storage {uri}",
    count=_count_trials,
)


@contextmanager
def reading(uri: str) -> Iterator[Connection]:
    """Connect to read: no file is made or changed, also not beside the database.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: it cannot be reached, or is no database.
    """
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    file = sqlite_file(uri)
    given = {} if file or not re.match("postgresql|mysql", uri) else {"connect_timeout": SECONDS}
    engine = create_engine(_read_only(file) if file else uri, poolclass=NullPool, connect_args=given)
    with engine.connect() as connection:
        yield connection


def age_of(connection: Connection, vendor: Vendor) -> Age:
    """Return how the tables compare with what the vendor's installed library makes."""
    from sqlalchemy import inspect, text

    tables = set(inspect(connection).get_table_names())
    if not {vendor.table, "alembic_version"} <= tables:
        return "foreign" if tables else "empty"
    revision = connection.execute(text("select version_num from alembic_version")).scalar()
    known, heads = _revisions(vendor)
    if revision in heads:
        return "current"
    return "older" if revision in known else "newer"


def is_locked(file: Path, seconds: float = 2.0) -> bool:
    """Return whether another process keeps a SQLite file from being written for longer than `seconds`."""
    address = f"file:{quote(str(file))}?mode=rw"
    with closing(sqlite3.connect(address, uri=True, timeout=seconds, isolation_level=None)) as database:
        try:
            database.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                return True
            raise
        database.execute("ROLLBACK")
    return False


def _read_only(file: Path) -> str:
    # One that nobody has open in write-ahead mode is read as if it could not change: SQLite would else
    # make two files beside it for as long as we look.
    still = "" if Path(f"{file}-wal").exists() else "&immutable=1"
    return f"sqlite:///file:{quote(str(file))}?mode=ro{still}&uri=true"


def _revisions(vendor: Vendor) -> tuple[set[str], set[str]]:
    """Return the revisions that a library knows, and those that no other follows, read as text: imports are slow."""
    spec = find_spec(vendor.package)
    assert spec is not None, f"{vendor.package} is not installed"
    assert spec.submodule_search_locations is not None
    files = (Path(spec.submodule_search_locations[0]) / vendor.changes).glob("*.py")
    texts = [file.read_text(encoding="utf-8") for file in files]
    known = {found for text in texts for found in re.findall(r'^revision\s*=\s*["\'](.+?)["\']', text, re.MULTILINE)}
    before = {
        one
        for text in texts
        for line in re.findall(r"^down_revision\s*=\s*(.+)$", text, re.MULTILINE)
        for one in re.findall(r'["\'](.+?)["\']', line)
    }
    return known, known - before

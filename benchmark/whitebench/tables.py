"""MLflow's tables of runs, tags and curves, read straight from the database: its own search brings every metric along.

Of 10,000 runs with 40 metrics each, `search_runs` takes half a minute; their tags are here in less than a second.
Nothing is written, no transaction is held open, and a SQLite file is read in pieces that a writer hardly waits for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import sqlalchemy as sql

from whitebench.database import open_engine

PIECE = 500
"""Runs whose tags are read at once: some milliseconds."""

FEW = PIECE
"""Runs that are looked at one by one."""

Mark: TypeAlias = tuple[bool | int | str | None, ...]
"""What tells that a run has changed: whether it is open, when it ended, whether it is deleted, and some tags."""

Item = TypeVar("Item")

_experiments = sql.table("experiments", sql.column("experiment_id"), sql.column("name"))
_runs = sql.table(
    "runs",
    *map(
        sql.column,
        ("run_uuid", "experiment_id", "status", "start_time", "end_time", "lifecycle_stage", "artifact_uri"),
    ),
)
_metrics = sql.table("metrics", *map(sql.column, ("run_uuid", "key", "value", "step", "timestamp")))
_tags = sql.table("tags", sql.column("run_uuid"), sql.column("key"), sql.column("value"))


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """A run as MLflow has it."""

    run_id: str
    experiment: str
    tags: Mapping[str, str]
    started: int
    """Milliseconds since 1970."""
    ended: int | None
    """The same; None while it is open."""
    is_open: bool
    """Whether MLflow has it as RUNNING."""
    is_deleted: bool
    files: str
    """The address under which its files are."""

    def mark(self, keys: Sequence[str]) -> Mark:
        """Return what tells that it has changed, the tags called `keys` included."""
        return (self.is_open, self.ended, self.is_deleted, *map(self.tags.get, keys))


class Tables:
    """The runs in one database of MLflow's; every method may raise what SQLAlchemy does."""

    def __init__(self, url: str) -> None:
        self._engine = open_engine(url, is_reader=True)
        self._is_made = False

    def find(
        self,
        where: Mapping[str, str],
        *,
        experiment: str | None = None,
        is_open: bool = False,
        with_deleted: bool = False,
    ) -> list[TrackedRun]:
        """Return the runs that carry all of these tags, the latest first.

        Args:
            where: values of tags by name, the most telling one last.
            experiment: the name of the one to look in; None for all.
            is_open: only those that MLflow has as RUNNING.
            with_deleted: also those that were deleted in MLflow.
        """
        query = sql.select(_runs).order_by(_runs.c.start_time.desc(), _runs.c.run_uuid)
        if experiment is not None:
            same = (_experiments.c.experiment_id == _runs.c.experiment_id, _experiments.c.name == experiment)
            query = query.where(sql.exists().where(*same))
        if is_open:
            query = query.where(_runs.c.status == "RUNNING")
        if not with_deleted:
            query = query.where(_runs.c.lifecycle_stage == "active")
        with self._engine.connect() as database:
            few = self._few(database, where)
            query = query.where(*_carrying(where)) if few is None else query.where(_runs.c.run_uuid.in_(few))
            found = self._with_tags(database, query)
            # Of a few not each carries all of them; and a database may take capitals for small letters.
            return [run for run in found if all(run.tags.get(name) == where[name] for name in where)]

    def of(self, run_ids: Sequence[str]) -> list[TrackedRun]:
        """Return those of the runs that are there, deleted ones included."""
        with self._engine.connect() as database:
            return [
                run
                for piece in _pieces(run_ids)
                for run in self._with_tags(database, sql.select(_runs).where(_runs.c.run_uuid.in_(piece)))
            ]

    def marks(self, where: Mapping[str, str], keys: Sequence[str]) -> dict[str, Mark]:
        """Return the marks of the runs that carry all of these tags, deleted ones included, by the run's id.

        Args:
            where: values of tags by name.
            keys: the tags whose values belong to a mark.
        """
        kept = [_tags.alias() for _ in keys]
        query = sql.select(
            _runs.c.run_uuid, _runs.c.status, _runs.c.end_time, _runs.c.lifecycle_stage, *(tag.c.value for tag in kept)
        )
        joined: sql.FromClause = _runs
        for key, tag in zip(keys, kept, strict=True):
            joined = joined.outerjoin(tag, sql.and_(tag.c.run_uuid == _runs.c.run_uuid, tag.c.key == key))
        with self._engine.connect() as database:
            rows = self._rows(database, query.select_from(joined).where(*_carrying(where)))
        return {
            run_id: (status == "RUNNING", ended, stage == "deleted", *values)
            for run_id, status, ended, stage, *values in rows
        }

    def curve(self, run_id: str, name: str) -> list[tuple[int, float]]:
        """Return all that was logged of a curve as steps and values, in the order in which it was."""
        query = sql.select(_metrics.c.step, _metrics.c.value).order_by(_metrics.c.timestamp)
        with self._engine.connect() as database:
            rows = self._rows(database, query.where(_metrics.c.run_uuid == run_id, _metrics.c.key == name))
        return [tuple(row) for row in rows]

    def _few(self, database: sql.Connection, where: Mapping[str, str]) -> list[str] | None:
        """Return the runs that carry the last tag, if they are few: MLflow's tables have no index by values.

        A database then looks through that tag's values once, where it would ask each run for each of them.
        """
        if not where:
            return None
        name, value = list(where.items())[-1]
        query = sql.select(_tags.c.run_uuid).where(_tags.c.key == name, _tags.c.value == value).limit(FEW + 1)
        found = [run_id for (run_id,) in self._rows(database, query)]
        return found if len(found) <= FEW else None

    def _with_tags(self, database: sql.Connection, query: sql.Select[Any]) -> Iterator[TrackedRun]:
        for piece in _pieces(self._rows(database, query)):
            tags: dict[str, dict[str, str]] = {row.run_uuid: {} for row in piece}
            theirs = sql.select(_tags).where(_tags.c.run_uuid.in_(list(tags)))
            for run_id, key, value in self._rows(database, theirs):
                tags[run_id][key] = value
            yield from (_tracked(row, tags[row.run_uuid]) for row in piece)

    def _rows(self, database: sql.Connection, query: sql.Select[Any]) -> Sequence[Any]:
        self._is_made = self._is_made or sql.inspect(database).has_table(_runs.name)
        return database.execute(query).all() if self._is_made else []


def _carrying(where: Mapping[str, str]) -> list[sql.ColumnElement[bool]]:
    """Return the conditions that a run carries all of these tags."""
    same = (_tags.c.run_uuid == _runs.c.run_uuid,)
    return [sql.exists().where(*same, _tags.c.key == name, _tags.c.value == value) for name, value in where.items()]


def _pieces(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    return (items[start : start + PIECE] for start in range(0, len(items), PIECE))


def _tracked(row: Any, tags: Mapping[str, str]) -> TrackedRun:
    return TrackedRun(
        run_id=str(row.run_uuid),
        experiment=str(row.experiment_id),
        tags=tags,
        started=int(row.start_time),
        ended=row.end_time,
        is_open=row.status == "RUNNING",
        is_deleted=row.lifecycle_stage == "deleted",
        files=str(row.artifact_uri),
    )

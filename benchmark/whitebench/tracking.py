"""MLflow in plain words: experiments, runs, tags, curves and files. The only room that imports MLflow."""

from __future__ import annotations

import math
import os
import posixpath
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import quote, unquote, urlparse

from whitebench.address import BESIDE, files_of, sqlite_file, without_password
from whitebench.database import PATIENCE, check_database, check_place, check_server, make_whole
from whitebench.errors import StoreError
from whitebench.outage import patient
from whitebench.tables import Mark, Tables, TrackedRun

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run
    from mlflow.tracking import MlflowClient

Status: TypeAlias = Literal["FINISHED", "FAILED", "KILLED"]
"""How a run ended, in MLflow's words; until then it is RUNNING."""

Point: TypeAlias = tuple[str, float, int]
"""Name, value and step."""

BATCH = 1000
"""Points that MLflow takes at once."""

WHOLE_LOOK = 30.0
"""Seconds between two looks at all runs of a server, at least."""

OVERLAP = 60_000
"""Milliseconds before the latest end that was seen, from which on it is asked what has ended: a run gets its last tags
after its end, and the clocks of those who end runs may differ."""

RUNNING = "attributes.status = 'RUNNING'"


class Tracking:
    """Runs behind one MLflow tracking URI.

    Every method raises StoreError, in one sentence, for whatever MLflow, its database or the file
    system raises; while the store is busy it is tried again for `patience` seconds.

    Tags and curves are read from MLflow's tables where there is a database. A reader's then needs MLflow, which takes
    two seconds to import, only for files that are not on a disk of this machine; it makes no tables.
    """

    def __init__(self, uri: str, *, patience: float = PATIENCE, is_reader: bool = False) -> None:
        self.uri, self.patience = uri, patience
        self.place = without_password(uri)
        self._ids: dict[str, str] = {}
        self._file = sqlite_file(uri)
        self._tables = None if _is_served(uri) else Tables(uri)
        self._mlflow = None if is_reader and self._tables else self._connect()
        self._inode = _inode(self._file) if self._file else 0
        self._whole_look = 0.0

    @patient
    def open_run(self, experiment: str, name: str, tags: Mapping[str, str], *, parent: str | None = None) -> str:
        """Open a run in an experiment, which is made where there is none, and return its id."""
        ours = {"mlflow.runName": name} | ({"mlflow.parentRunId": parent} if parent else {})
        return str(self._client.create_run(self._experiment(experiment), tags={**tags, **ours}).info.run_id)

    @patient
    def reopen_run(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Go on with a run that had ended."""
        self._client.update_run(run_id, status="RUNNING")
        self.tag(run_id, tags)

    @patient
    def close_run(self, run_id: str, status: Status, tags: Mapping[str, str]) -> None:
        """Tag a run, then end it."""
        self.tag(run_id, tags)
        self._client.set_terminated(run_id, status)

    @patient
    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags, all of them or none."""
        from mlflow.entities import RunTag

        self._client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])

    @patient
    def run(self, run_id: str) -> TrackedRun:
        """Return one run."""
        if not (tables := self._readable):
            return _tracked(self._client.get_run(run_id))
        if found := tables.of([run_id]):
            return found[0]
        raise StoreError(f"the store {self.place} has no run {run_id}: it was deleted for good in the meantime")

    @patient
    def runs(self, experiment: str, where: Mapping[str, str]) -> list[TrackedRun]:
        """Return the runs of an experiment that carry all of these tags, the latest first."""
        if tables := self._readable:
            return tables.find(where, experiment=experiment)
        found = self._client.get_experiment_by_name(experiment)
        return self._search([found.experiment_id], where) if found else []

    @patient
    def open_runs(self, experiment: str) -> list[TrackedRun]:
        """Return the runs of an experiment that have not been ended, the latest first."""
        if tables := self._readable:
            return tables.find({}, experiment=experiment, is_open=True)
        found = self._client.get_experiment_by_name(experiment)
        return self._search([found.experiment_id], {}, also=RUNNING) if found else []

    @patient
    def open_runs_anywhere(self, where: Mapping[str, str]) -> list[TrackedRun]:
        """Return the runs that carry all of these tags and have not been ended, whatever their experiment."""
        if tables := self._readable:
            return tables.find(where, is_open=True)
        return self._search(self._experiments(), where, also=RUNNING)

    @patient
    def end_run(self, run_id: str, status: Status) -> None:
        """End a run whose tags say already what became of it."""
        self._client.set_terminated(run_id, status)

    @patient
    def runs_anywhere(self, where: Mapping[str, str]) -> list[TrackedRun]:
        """Return the runs that carry all of these tags, whatever their experiment, deleted ones included."""
        if tables := self._readable:
            return tables.find(where, with_deleted=True)
        from mlflow.entities import ViewType

        return self._search(self._experiments(), where, view=ViewType.ALL)

    @patient
    def marks(self, where: Mapping[str, str], keys: Sequence[str]) -> dict[str, Mark]:
        """Return the marks of the runs that carry all of these tags, deleted ones included, by the run's id."""
        if tables := self._readable:
            return tables.marks(where, keys)
        return {run.run_id: run.mark(keys) for run in self.runs_anywhere(where)}

    @patient
    def changed_runs(
        self, where: Mapping[str, str], keys: Sequence[str], seen: Mapping[str, Mark]
    ) -> tuple[dict[str, Mark], list[TrackedRun]]:
        """Return the marks of the runs that carry all of these tags, by id, and those of them that are news.

        Deleted ones are included. News is what is open, and what has not the mark under which it was `seen`. A server
        sends every run with all its metrics: between two looks at all runs, which take no more than a twentieth of the
        time, it is asked for those that are open or have just ended. What happens to older ones (they are superseded,
        verified, deleted) is then seen with the next look at all.

        Args:
            where: values of tags by name.
            keys: the tags that belong to a mark.
            seen: the marks that an earlier call returned.
        """
        if tables := self._readable:
            marks = tables.marks(where, keys)
            news = {run_id for run_id, mark in marks.items() if mark[0] or seen.get(run_id) != mark}
            return marks, tables.of(sorted(news))
        latest = self._look_at_latest(where, seen) if seen and time.monotonic() < self._whole_look else None
        runs = self._look_at_all(where) if latest is None else latest
        marks = {**({} if latest is None else seen), **{run.run_id: run.mark(keys) for run in runs}}
        return marks, [run for run in runs if run.is_open or seen.get(run.run_id) != marks[run.run_id]]

    @patient
    def log_params(self, run_id: str, values: Mapping[str, object]) -> None:
        """Store parameters; they cannot be changed later."""
        from mlflow.entities import Param

        self._client.log_batch(run_id, params=[Param(name, str(value)) for name, value in values.items()])

    def log_points(self, run_id: str, points: Iterable[Point]) -> None:
        """Add points to a run's curves; what is not a finite number is left out (MLflow would store 1.8e308)."""
        from mlflow.entities import Metric

        moment = int(time.time() * 1000)
        metrics = [
            Metric(_curve_name(name), value, moment, step) for name, value, step in points if math.isfinite(value)
        ]
        for start in range(0, len(metrics), BATCH):
            self._log_metrics(run_id, metrics[start : start + BATCH])

    @patient
    def log_file(self, run_id: str, file: Path) -> None:
        """Store a copy of a file with a run."""
        self._client.log_artifact(run_id, str(file))

    @patient
    def log_text(self, run_id: str, name: str, text: str) -> None:
        """Store a text with a run as a file called `name`."""
        self._client.log_text(run_id, text, name)

    @patient
    def read_file(self, run_id: str, name: str, files: str = "") -> bytes | None:
        """Return a file stored with a run, or None where it is gone; `files` is their address, if it is known."""
        parsed = urlparse(files or self.run(run_id).files)
        if parsed.scheme in ("", "file"):
            places = self._places(Path(unquote(parsed.path)) / name)
            return next((file.read_bytes() for file in places if file.exists()), None)
        if name not in {file.path for file in self._client.list_artifacts(run_id)}:
            return None
        with tempfile.TemporaryDirectory() as folder:
            return Path(self._client.download_artifacts(run_id, name, folder)).read_bytes()

    @patient
    def curve(self, run_id: str, name: str) -> list[tuple[int, float]]:
        """Return a run's curve as steps and values, by step; of several values at one step the last that was logged."""
        if tables := self._readable:
            return sorted(dict(tables.curve(run_id, _curve_name(name))).items())
        history = sorted(self._client.get_metric_history(run_id, _curve_name(name)), key=lambda point: point.timestamp)
        return sorted({point.step: point.value for point in history}.items())

    @patient
    def delete_run(self, run_id: str) -> None:
        """Take a run off the lists; MLflow keeps it as deleted."""
        self._client.delete_run(run_id)

    def _places(self, file: Path) -> Iterator[Path]:
        """Yield where a run's file may lie: where it was written, or beside the store, if both were moved since."""
        yield file
        if self._file is not None and BESIDE in file.parts:
            tail = file.parts[file.parts.index(BESIDE) + 1 :]
            yield self._file.parent.joinpath(BESIDE, *tail)

    @property
    def _client(self) -> MlflowClient:
        self._see_that_it_is_there()
        if self._mlflow is None:
            self._mlflow = _connect(self.uri)
        return self._mlflow

    @property
    def _readable(self) -> Tables | None:
        """MLflow's tables, where the store is a database."""
        self._see_that_it_is_there()
        return self._tables

    def _see_that_it_is_there(self) -> None:
        # A database that is deleted while it is open swallows what is written into it.
        if self._file is not None and _inode(self._file) != self._inode:
            raise StoreError(
                f"the store's file {self._file} is gone: it was deleted, moved or replaced in the meantime"
            )

    @patient
    def _log_metrics(self, run_id: str, metrics: Sequence[Metric]) -> None:
        self._client.log_batch(run_id, metrics=metrics)

    @patient
    def _connect(self) -> MlflowClient:
        return _connect(self.uri)

    def _experiment(self, name: str) -> str:
        if name not in self._ids:
            found = self._client.get_experiment_by_name(name)
            if found is not None and found.lifecycle_stage == "deleted":
                raise StoreError(f"experiment {name!r} was deleted in MLflow: restore it, or use another --store")
            self._ids[name] = found.experiment_id if found else self._create_experiment(name)
        return self._ids[name]

    def _create_experiment(self, name: str) -> str:
        # A server knows where; MLflow's own place for a database's files would be below the working folder.
        files = files_of(self.uri)
        where = None if files is None else f"{files}/{quote(name)}"
        try:
            return str(self._client.create_experiment(name, artifact_location=where))
        except Exception:
            found = self._client.get_experiment_by_name(name)  # another process was quicker
            if found is None:
                raise
            return str(found.experiment_id)

    def _look_at_all(self, where: Mapping[str, str]) -> list[TrackedRun]:
        began = time.monotonic()
        runs = self.runs_anywhere(where)
        ended = time.monotonic()
        self._whole_look = ended + max(WHOLE_LOOK, 19 * (ended - began))
        return runs

    def _look_at_latest(self, where: Mapping[str, str], seen: Mapping[str, Mark]) -> list[TrackedRun] | None:
        """Return the runs that are open and those that have just ended; None where one that was open is neither."""
        experiments = self._experiments()
        latest = max(int(ended or 0) for _, ended, *_ in seen.values())
        found = self._search(experiments, where, also=RUNNING)
        found += self._search(experiments, where, also=f"attributes.end_time >= {latest - OVERLAP}")
        runs = {run.run_id: run for run in found}  # of one that ended in between the end counts
        were_open = {run_id for run_id, (is_open, _, is_deleted, *_) in seen.items() if is_open and not is_deleted}
        return list(runs.values()) if were_open <= runs.keys() else None

    def _experiments(self) -> list[str]:
        """Return the ids of all experiments, deleted ones included."""
        from mlflow.entities import ViewType

        ids: list[str] = []
        token: str | None = None
        while True:
            page = self._client.search_experiments(view_type=ViewType.ALL, max_results=1000, page_token=token)
            ids += [one.experiment_id for one in page]
            token = page.token
            if not token:
                return ids

    def _search(
        self, experiments: Sequence[str], where: Mapping[str, str], *, view: int = 1, also: str = ""
    ) -> list[TrackedRun]:
        wanted = [f"tags.`{name}` = '{value}'" for name, value in where.items()]
        query = " and ".join([*wanted, *([also] if also else [])])
        runs: list[TrackedRun] = []
        token: str | None = None
        while True:
            page = self._client.search_runs(
                list(experiments), query, run_view_type=view, max_results=1000, page_token=token
            )
            runs += map(_tracked, page)
            token = page.token
            if not token:
                return runs


def _curve_name(name: str) -> str:
    """Return a name that MLflow takes: letters, digits and `_ - . : /`, and no path that leads elsewhere."""
    plain = posixpath.normpath(re.sub(r"[^\w\-. :/]", "_", name)).lstrip("./")
    return plain[:250] or "_"


def _tracked(run: Run) -> TrackedRun:
    return TrackedRun(
        run_id=str(run.info.run_id),
        experiment=str(run.info.experiment_id),
        tags=dict(run.data.tags),
        started=int(run.info.start_time),
        ended=run.info.end_time,
        is_open=run.info.status == "RUNNING",
        is_deleted=run.info.lifecycle_stage == "deleted",
        files=str(run.info.artifact_uri),
    )


def _is_served(uri: str) -> bool:
    return urlparse(uri).scheme in ("http", "https")


def _inode(file: Path) -> int:
    try:
        return file.stat().st_ino
    except OSError:
        return -1


def _connect(uri: str) -> MlflowClient:
    # Read by MLflow when it is imported: no message home, no progress bars, no chatter of migrations; and of a server
    # that does not answer we say so ourselves, sooner.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    file = sqlite_file(uri)
    if file is None:
        check_server(uri)
    else:
        check_place(file)
    if not uri.startswith("http"):
        check_database(uri)
    from mlflow.tracking import MlflowClient

    if file is not None:
        make_whole(file, lambda url: MlflowClient(url).search_experiments(max_results=1))
    try:
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
    except Exception as error:
        if schema := re.search(r"found version (\w+), but expected", str(error)):
            raise _other_schema(uri, schema[1]) from error
        raise
    return client


def _other_schema(uri: str, found: str) -> StoreError:
    """Return what to do about a database of another version of MLflow, older or newer than the one installed."""
    from importlib.metadata import version

    import mlflow.store.db_migrations

    known = {file.name.partition("_")[0] for file in Path(mlflow.store.db_migrations.__path__[0]).glob("versions/*.py")}
    mine, place = version("mlflow"), without_password(uri)
    if found in known:
        return StoreError(
            f"the store {place} was made by an MLflow older than {mine}: copy it for safety, then bring it up to date "
            f"with `mlflow db upgrade {place}`"
        )
    return StoreError(
        f"the store {place} was made by an MLflow newer than {mine}, the one installed: "
        "`python -m pip install --upgrade mlflow`, or use another --store"
    )

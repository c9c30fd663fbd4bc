"""MLflow in plain words: experiments, runs, tags, curves and files. The only room with MLflow."""

from __future__ import annotations

import math
import os
import posixpath
import re
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import unquote, urlparse

from whitebench.address import sqlite_file
from whitebench.database import check_file, make_whole
from whitebench.errors import StoreError

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

Status: TypeAlias = Literal["FINISHED", "FAILED", "KILLED"]
"""How a run ended, in MLflow's words; until then it is RUNNING."""

Point: TypeAlias = tuple[str, float, int]
"""Name, value and step."""

BATCH = 1000
"""Points that MLflow takes at once."""


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """A run as MLflow has it."""

    run_id: str
    experiment: str
    tags: Mapping[str, str]
    started: int
    """Milliseconds since 1970."""


class Tracking:
    """Runs behind one MLflow tracking URI.

    Every method raises StoreError, in one sentence, for whatever MLflow, its database or the file
    system raises.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._ids: dict[str, str] = {}
        with self._said_plainly():
            self._client = _connect(uri)

    def open_run(self, experiment: str, name: str, tags: Mapping[str, str], *, parent: str | None = None) -> str:
        """Open a run in an experiment, which is made where there is none, and return its id."""
        ours = {"mlflow.runName": name} | ({"mlflow.parentRunId": parent} if parent else {})
        with self._said_plainly():
            return str(self._client.create_run(self._experiment(experiment), tags={**tags, **ours}).info.run_id)

    def reopen_run(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Go on with a run that had ended."""
        with self._said_plainly():
            self._client.update_run(run_id, status="RUNNING")
            self.tag(run_id, tags)

    def close_run(self, run_id: str, status: Status, tags: Mapping[str, str]) -> None:
        """Tag a run, then end it."""
        with self._said_plainly():
            self.tag(run_id, tags)
            self._client.set_terminated(run_id, status)

    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags one after the other, in their order."""
        with self._said_plainly():
            for name, value in tags.items():
                self._client.set_tag(run_id, name, value)

    def run(self, run_id: str) -> TrackedRun:
        """Return one run."""
        with self._said_plainly():
            return _tracked(self._client.get_run(run_id))

    def runs(self, experiment: str, where: Mapping[str, str]) -> list[TrackedRun]:
        """Return the runs of an experiment that carry all of these tags, the latest first."""
        with self._said_plainly():
            found = self._client.get_experiment_by_name(experiment)
            return self._search([found.experiment_id], where) if found else []

    def runs_anywhere(self, where: Mapping[str, str]) -> list[TrackedRun]:
        """Return the runs that carry all of these tags, whatever their experiment, deleted ones included."""
        from mlflow.entities import ViewType

        with self._said_plainly():
            ids: list[str] = []
            token: str | None = None
            while True:
                page = self._client.search_experiments(view_type=ViewType.ALL, max_results=1000, page_token=token)
                ids += [one.experiment_id for one in page]
                token = page.token
                if not token:
                    return self._search(ids, where, view=ViewType.ALL)

    def log_params(self, run_id: str, values: Mapping[str, object]) -> None:
        """Store parameters; they cannot be changed later."""
        from mlflow.entities import Param

        with self._said_plainly():
            self._client.log_batch(run_id, params=[Param(name, str(value)) for name, value in values.items()])

    def log_points(self, run_id: str, points: Iterable[Point]) -> None:
        """Add points to a run's curves; what is not a finite number is left out (MLflow would store 1.8e308)."""
        from mlflow.entities import Metric

        moment = int(time.time() * 1000)
        metrics = [
            Metric(_curve_name(name), value, moment, step) for name, value, step in points if math.isfinite(value)
        ]
        with self._said_plainly():
            for start in range(0, len(metrics), BATCH):
                self._client.log_batch(run_id, metrics=metrics[start : start + BATCH])

    def log_file(self, run_id: str, file: Path) -> None:
        """Store a copy of a file with a run."""
        with self._said_plainly():
            self._client.log_artifact(run_id, str(file))

    def log_text(self, run_id: str, name: str, text: str) -> None:
        """Store a text with a run as a file called `name`."""
        with self._said_plainly():
            self._client.log_text(run_id, text, name)

    def read_file(self, run_id: str, name: str) -> bytes | None:
        """Return a file stored with a run, or None where it is gone."""
        with self._said_plainly():
            parsed = urlparse(self._client.get_run(run_id).info.artifact_uri)
            if parsed.scheme in ("", "file"):
                file = Path(unquote(parsed.path)) / name
                return file.read_bytes() if file.exists() else None
            with tempfile.TemporaryDirectory() as folder:
                return Path(self._client.download_artifacts(run_id, name, folder)).read_bytes()

    def _experiment(self, name: str) -> str:
        if name not in self._ids:
            found = self._client.get_experiment_by_name(name)
            if found is not None and found.lifecycle_stage == "deleted":
                raise StoreError(f"experiment {name!r} was deleted in MLflow: restore it, or use another --store")
            self._ids[name] = found.experiment_id if found else self._create_experiment(name)
        return self._ids[name]

    def _create_experiment(self, name: str) -> str:
        file = sqlite_file(self.uri)
        where = (file.parent / "whitebench-artifacts" / name).as_uri() if file else None
        return str(self._client.create_experiment(name, artifact_location=where))

    def _search(self, experiments: Sequence[str], where: Mapping[str, str], *, view: int = 1) -> list[TrackedRun]:
        query = " and ".join(f"tags.`{name}` = '{value}'" for name, value in where.items())
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

    @contextmanager
    def _said_plainly(self) -> Iterator[None]:
        try:
            yield
        except (StoreError, ImportError):
            raise
        except Exception as error:
            from mlflow.exceptions import MlflowException
            from sqlalchemy.exc import SQLAlchemyError

            if isinstance(error, MlflowException | SQLAlchemyError | sqlite3.Error | OSError):
                text = " ".join(str(error).split()).partition(" [SQL:")[0][:300]
                raise StoreError(f"the store {self.uri} could not be used: {text}") from error
            raise


def queryable(text: str) -> str:
    """Return `text` as a tag that runs can be found by: MLflow's queries know no escape for a quote."""
    return text.replace("'", "’")


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
    )


def _connect(uri: str) -> MlflowClient:
    # Read by MLflow when it is imported: no message home, no progress bars, no chatter of migrations.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    from mlflow.tracking import MlflowClient

    file = sqlite_file(uri)
    if file is not None:
        check_file(file)
        make_whole(file, lambda url: MlflowClient(url).search_experiments(max_results=1))
    client = MlflowClient(uri)
    client.search_experiments(max_results=1)
    return client

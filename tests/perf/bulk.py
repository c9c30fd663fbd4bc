"""A store of many finished cells, made quickly: its own code writes them, but all rows go in at once."""

from __future__ import annotations

import random
import shutil
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlparse

import numpy as np
import sqlalchemy as sql
from safetensors.numpy import save_file

from whitebench.ledger import PlannedCell
from whitebench.provenance import Provenance
from whitebench.result import Chosen, Result, Score
from whitebench.store import Store
from whitebench.tables import Mark, TrackedRun
from whitebench.tracking import Point, Status, Tracking

SAMPLES, LAYERS = 359, 4
"""Of the test split of `digits`, and of its contestants."""

CHOSEN = Chosen(
    hyperparameters={"learning_rate": 4e-3, "weight_decay": 0.05}, trial=3, validation=0.9, digest="c" * 64,
    trials_allowed=8, trials_complete=6, trials_pruned=2,
)  # fmt: skip
PROVENANCE = Provenance(
    commit="c" * 40, is_dirty=False, distributions={"whitebench": "0.1.0", "torch": "2.13.0"}, python="3.11",
    torch="2.13", cuda=None, platform="Linux", device="a processor", threads=1, precision="32", seed=0, started="",
)  # fmt: skip


def add_cells(store: Store, cells: Sequence[PlannedCell], folder: Path) -> None:
    """Store a finished run for each of the cells, of 40 metrics, with predictions like those of `digits`.

    Args:
        store: on a database, with its artifacts on this machine.
        cells: as planned; all of one suite.
        folder: an empty one for what a fit leaves, used again and again.
    """
    gathered = Gathered(store.tracking, cells[0].name.suite)
    store.tracking, tracking = cast("Tracking", gathered), store.tracking
    try:
        for cell in cells:
            _add(store, cell, folder)
        gathered.write()
    finally:
        store.tracking = tracking


class Gathered:
    """Takes what a store says to MLflow of runs that are opened and ended, and writes it at once."""

    def __init__(self, tracking: Tracking, experiment: str) -> None:
        from mlflow.tracking import MlflowClient  # after the store has told it to be quiet

        self.uri = tracking.uri
        self.experiment = tracking._experiment(experiment)
        address = MlflowClient(self.uri).get_experiment(self.experiment).artifact_location
        self.home = Path(unquote(urlparse(address).path))
        self.now = int(time.time() * 1000)
        self.rows: dict[str, dict[str, Any]] = {}
        self.tags: dict[str, dict[str, str]] = {}
        self.params: list[dict[str, object]] = []
        self.points: list[dict[str, object]] = []

    def open_run(self, _experiment: str, name: str, tags: Mapping[str, str], *, parent: str | None = None) -> str:
        run_id = uuid.uuid4().hex
        self.now += 1
        self.rows[run_id] = {
            "run_uuid": run_id, "name": name, "experiment_id": int(self.experiment), "source_type": "UNKNOWN",
            "source_name": "", "entry_point_name": "", "user_id": "perf", "source_version": "", "status": "RUNNING",
            "start_time": self.now, "end_time": None, "lifecycle_stage": "active",
            "artifact_uri": (self.home / run_id / "artifacts").as_uri(),
        }  # fmt: skip
        self.tags[run_id] = {**tags, "mlflow.runName": name}
        (self.home / run_id / "artifacts").mkdir(parents=True)
        return run_id

    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        self.tags[run_id] |= tags

    def close_run(self, run_id: str, status: Status, tags: Mapping[str, str]) -> None:
        self.tag(run_id, tags)
        self.rows[run_id] |= {"status": status, "end_time": self.now}

    def run(self, run_id: str) -> TrackedRun:
        return TrackedRun(
            run_id=run_id, experiment=self.experiment, tags=self.tags[run_id], started=0, ended=None, is_open=False,
            is_deleted=False, files="",
        )  # fmt: skip

    def runs(self, _experiment: str, _where: Mapping[str, str]) -> list[TrackedRun]:
        return []

    def marks(self, _where: Mapping[str, str], _keys: Sequence[str]) -> dict[str, Mark]:
        return {}

    def log_params(self, run_id: str, values: Mapping[str, object]) -> None:
        self.params += [{"run_uuid": run_id, "key": key, "value": str(value)} for key, value in values.items()]

    def log_points(self, run_id: str, points: Iterable[Point]) -> None:
        self.points += [
            {"run_uuid": run_id, "key": key, "value": value, "step": step, "timestamp": self.now, "is_nan": False}
            for key, value, step in points
        ]

    def log_text(self, run_id: str, name: str, text: str) -> None:
        (self.home / run_id / "artifacts" / name).write_text(text, encoding="utf-8")

    def log_file(self, run_id: str, file: Path) -> None:
        shutil.copy(file, self.home / run_id / "artifacts" / file.name)

    def write(self) -> None:
        """Insert all rows in one transaction."""
        import mlflow.store.tracking.dbmodels.models as tables

        latest = {(point["run_uuid"], point["key"]): point for point in self.points}
        tags = [{"run_uuid": run, "key": key, "value": tag} for run, all_of_it in self.tags.items()
                for key, tag in all_of_it.items()]  # fmt: skip
        rows: dict[Any, Sequence[Mapping[str, object]]] = {
            tables.SqlRun: list(self.rows.values()), tables.SqlTag: tags, tables.SqlParam: self.params,
            tables.SqlMetric: self.points, tables.SqlLatestMetric: list(latest.values()),
        }  # fmt: skip
        engine = sql.create_engine(self.uri)
        with engine.begin() as database:
            for model, of_it in rows.items():
                database.execute(sql.insert(model.__table__), of_it)
        engine.dispose()


def _add(store: Store, cell: PlannedCell, folder: Path) -> None:
    draw = random.Random(str(cell.name))
    right = [float(draw.random() < 0.9) for _ in range(SAMPLES)]
    arrays: dict[str, np.ndarray[Any, Any]] = {
        "logits": np.zeros((SAMPLES, 10), np.float32), "labels": np.zeros(SAMPLES, np.int64),
        "index": np.arange(SAMPLES), "primary": np.array(right),
    }  # fmt: skip
    save_file(arrays, folder / "predictions.safetensors")
    run_id = store.open_cell(
        cell.name, contestant=cell.contestant, overrides="", identity=cell.identity.digest, parts=cell.identity.parts,
        chosen=CHOSEN, is_guest=False, claim=f"cell/{cell.identity.digest}",
    )  # fmt: skip
    store.record_opening(run_id, "e" * 64)
    store.finish_cell(run_id, _result(cell, draw, sum(right) / SAMPLES), folder)


def _result(cell: PlannedCell, draw: random.Random, accuracy: float) -> Result:
    """Return a result that MLflow has 40 metrics of: 24 scores, the layers of 8 of them, and 8 costs."""
    layered = [f"inside/{number}" for number in range(8)]
    scores = [score("accuracy", accuracy), *(score(f"outside/{number}", draw.random()) for number in range(15))]
    scores += [score(name, draw.random(), [draw.random() for _ in range(LAYERS)]) for name in layered]
    return Result(
        cell=cell.name, identity=cell.identity.digest, primary="accuracy", scores=scores,
        costs=[score(f"cost-{number}", draw.random()) for number in range(8)], chosen=CHOSEN, epochs_allowed=15,
        reported_epoch=15, validation=accuracy, test_samples=SAMPLES, test_openings=1, predictions_sha256="d" * 64,
        weights_sha256="e" * 64, provenance=PROVENANCE,
    )  # fmt: skip


def score(name: str, value: float, profile: Sequence[float] = ()) -> Score:
    """Return a score, with a null and a spread where it has layers."""
    null = tuple(value / 2 for _ in profile)
    return Score(
        name=name, metric=name.partition("/")[0], version=1, direction="higher", unit="share", value=value,
        profile=tuple(profile), spread=null, nulls={"untrained": value / 2} if profile else {},
        null_profiles={"untrained": null} if profile else {},
    )  # fmt: skip

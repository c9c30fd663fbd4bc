"""The store: results in our own words, over MLflow's. Two experiments a suite: its cells, and its tuning.

A cell's run opens when its fit starts, receives its curves, and is *finished* only once its last tags, written at once,
say so and name the sha256 of its result.json: whoever reads never meets half a result.
"""

from __future__ import annotations

import json
import tempfile
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whitebench.address import claims_url, sqlite_file, without_password
from whitebench.calibration import Calibration
from whitebench.claims import Claims
from whitebench.database import PATIENCE, check_database, check_server
from whitebench.errors import LostResultError
from whitebench.events import EpochEnded
from whitebench.fit import DELIVERY, PICTURES, PREDICTIONS
from whitebench.identity import CellName, Parts, canonical
from whitebench.outage import said_plainly
from whitebench.result import Chosen, Failure, Result, digest, result_from_json, to_json
from whitebench.suite import Contestant
from whitebench.tables import Mark, TrackedRun
from whitebench.tags import VERIFICATIONS, OpenStudy, StoredCell, StoredStudy, Tag, contestant_key, queryable, read_cell
from whitebench.tracking import Point, Status, Tracking
from whitebench.verification import Verification

if TYPE_CHECKING:
    from whitebench.reading import Picture

RESULT = "result.json"
IDENTITY = "identity.json"
FAILURE = "failure.json"
CHOICE = "choice.json"
CALIBRATION = "calibration.json"

MAKING = "open/store"
"""The claim under which MLflow's tables are made on a server."""

TRIAL_ENDS = ("complete", "pruned", "failed")
"""The states of a trial that has ended."""

STATUSES: Mapping[str, Status] = {
    "complete": "FINISHED",
    "failed": "FAILED",
    "finished": "FINISHED",
    "interrupted": "KILLED",
    "pruned": "KILLED",
    "superseded": "KILLED",
}
"""How MLflow calls the end of a run of ours in a state."""


class Store:
    """Results behind one MLflow tracking URI; every method may raise StoreError.

    A reader's makes no tables, and where there is a database it is open in a moment: nothing needs MLflow.
    """

    def __init__(self, uri: str, *, patience: float = PATIENCE, is_reader: bool = False) -> None:
        is_shared, is_made = sqlite_file(claims_url(uri)) is None, True
        if is_shared:
            check_server(uri)
            with said_plainly(without_password(uri)):
                is_made = "experiments" in check_database(uri)
        self.claims = Claims(claims_url(uri), patience=patience)
        # Two that find a server's database empty would both make MLflow's tables, or use them half made.
        is_in_the_making = is_shared and not is_reader and (not is_made or bool(self.claims.living(MAKING)))
        with self.claims.alone(MAKING) if is_in_the_making else nullcontext():
            self.tracking = Tracking(uri, patience=patience, is_reader=is_reader)

    def hurry(self) -> None:
        """Wait for the store no more: it has been waited for long enough."""
        self.tracking.patience = self.claims.patience = 0.0

    # Cells

    def open_cell(
        self,
        cell: CellName,
        *,
        contestant: Contestant,
        overrides: str,
        identity: str,
        parts: Parts,
        chosen: Chosen,
        is_guest: bool,
        claim: str,
    ) -> str:
        """Open the run of a cell that is claimed and whose choice is frozen, and return its id."""
        tags = {
            Tag.KIND: "cell",
            Tag.STATE: "running",
            Tag.CLAIM: claim,
            Tag.IDENTITY: identity,
            Tag.SUITE: cell.suite,
            Tag.OVERRIDES: queryable(overrides),
            Tag.CONTESTANT: cell.contestant,
            Tag.CONTESTANT_SPEC: canonical(asdict(contestant)),
            Tag.KEY: contestant_key(parts, contestant),
            Tag.TASK: queryable(cell.task),
            Tag.SEED: str(cell.seed),
            Tag.IS_GUEST: str(is_guest).lower(),
            Tag.CHOICE: chosen.digest,
            Tag.OPENINGS: "0",
        }
        run_id = self.tracking.open_run(cell.suite, f"{cell.contestant}/{cell.task}/{cell.seed}", tags)
        self.tracking.log_text(run_id, IDENTITY, canonical(parts))
        self.tracking.log_params(run_id, {**chosen.hyperparameters, "model": contestant.model, "seed": cell.seed})
        return run_id

    def log_epoch(self, run_id: str, event: EpochEnded, primary: str) -> None:
        """Add an epoch to a run's curves."""
        self.tracking.log_points(run_id, _curves([event], primary))

    def record_opening(self, run_id: str, weights_sha256: str) -> int:
        """Record that a cell's test split is being opened; return how often it has been, this time included."""
        tags = self.tracking.run(run_id).tags
        count = str(int(tags[Tag.OPENINGS]) + 1)
        self.tracking.tag(run_id, {Tag.OPENINGS: count, Tag.WEIGHTS: weights_sha256})
        return self.openings(tags[Tag.KEY], tags[Tag.TASK])

    def openings(self, key: str, task: str) -> int:
        """Return how often the contestant's test split of the task has been opened in this store up to now.

        Counted per contestant (model with options, objective and recipe, whatever its label) and task over every
        experiment of the store: overridden suites, repeats, failures and runs deleted in MLflow too.
        """
        same = self.tracking.marks({Tag.KEY: key, Tag.TASK: queryable(task)}, (Tag.OPENINGS,))
        return sum(int(openings or 0) for *_, openings in same.values())

    def all_openings(self) -> Counter[tuple[str, str]]:
        """Return how often each test split has been opened up to now, by contestant and task as in `openings`."""
        counted: Counter[tuple[str, str]] = Counter()
        for mark in self.tracking.marks({Tag.KIND: "cell"}, (Tag.KEY, Tag.TASK, Tag.OPENINGS)).values():
            *_, key, task, openings = mark
            counted[str(key), str(task)] += int(openings or 0)
        return counted

    def finish_cell(self, run_id: str, result: Result, folder: Path) -> None:
        """Store a cell's result with what its fit left in `folder`, and mark the cell's older runs."""
        text = to_json(result)
        self.keep_files(run_id, folder)
        self.tracking.log_text(run_id, RESULT, text.decode())
        self.tracking.log_points(run_id, _scores(result))
        self.tracking.close_run(run_id, "FINISHED", {Tag.STATE: "finished", Tag.RESULT: digest(text)})
        self._supersede(run_id)

    def keep_files(self, run_id: str, folder: Path) -> None:
        """Store what a fit left in `folder`, its checkpoints left out."""
        for file in sorted(folder.iterdir()) if folder.exists() else ():
            if file.is_file() and file.name != DELIVERY and not file.name.startswith("."):
                self.tracking.log_file(run_id, file)

    def fail_cell(self, run_id: str, failure: Failure) -> None:
        """Store why a cell yielded nothing, with its traceback and log."""
        self.tracking.log_text(run_id, FAILURE, to_json(failure).decode())
        if Path(failure.log).is_file():
            self.tracking.log_file(run_id, Path(failure.log))
        why = {Tag.FAILURE: failure.kind.value, Tag.MESSAGE: failure.message[:4000], Tag.STATE: "failed"}
        self.tracking.close_run(run_id, "FAILED", why)
        self._supersede(run_id)

    def interrupt(self, run_id: str) -> None:
        """Mark a run whose fit was stopped before its end."""
        self.tracking.close_run(run_id, "KILLED", {Tag.STATE: "interrupted"})

    def close_orphans(self, suite: str) -> None:
        """End the runs of a suite that owners who are dead by now left open; a stranger's run is not ours to end."""
        runs = [run for experiment in (suite, _tuning(suite)) for run in self.tracking.open_runs(experiment)]
        orphans = [run for run in runs if Tag.KIND in run.tags]
        living = self.claims.living() if orphans else {}
        for run in orphans:
            if not _is_held(run.tags.get(Tag.CLAIM, ""), living):
                self.close_orphan(run.run_id)

    def close_orphan(self, run_id: str) -> None:
        """End a run whose owner is dead, as far as it came."""
        # Looked at again: its owner may have ended it, and then given its claim back, since it was found open.
        run = self.tracking.run(run_id)
        state = run.tags.get(Tag.STATE, "")
        if state == "running":
            self.interrupt(run_id)
        elif run.is_open:  # its owner was killed between the last tag and the end
            self.tracking.end_run(run_id, STATUSES.get(state, "KILLED"))

    # Studies

    def open_study(self, suite: str, contestant: str, task: str, *, overrides: str, name: str, claim: str) -> str:
        """Return the run under which a study's trials stand: that of an earlier life, or a new one.

        `claim` is what the claims of all who work on the study begin with.
        """
        same = {Tag.KIND: "study", Tag.IDENTITY: name, Tag.OVERRIDES: queryable(overrides)}
        with self.claims.alone(f"open/{claim}"):
            for run in self.tracking.runs(_tuning(suite), same):
                if run.tags[Tag.STATE] == "interrupted":
                    self.tracking.reopen_run(run.run_id, {Tag.STATE: "running"})
                    return run.run_id
                if run.tags[Tag.STATE] in ("finished", "running", "failed"):
                    return run.run_id
            tags = same | {
                Tag.STATE: "running",
                Tag.CLAIM: claim,
                Tag.SUITE: suite,
                Tag.CONTESTANT: contestant,
                Tag.TASK: queryable(task),
            }
            return self.tracking.open_run(_tuning(suite), f"{contestant}/{task}", tags)

    def supersede_study(self, suite: str, *, overrides: str, name: str) -> None:
        """Mark the run of a study that begins anew: its trials then stand under another one."""
        for run in self.tracking.runs(_tuning(suite), {Tag.IDENTITY: name, Tag.OVERRIDES: queryable(overrides)}):
            self.tracking.tag(run.run_id, {Tag.STATE: "superseded"})

    def leave_study(self, study_run: str) -> None:
        """Mark a study's run as interrupted, unless it is closed or somebody else still works on it."""
        tags = self.tracking.run(study_run).tags
        if tags[Tag.STATE] == "running" and not _is_held(tags[Tag.CLAIM], self.claims.living()):
            self.interrupt(study_run)

    def log_trial(
        self,
        study_run: str,
        *,
        number: int,
        hyperparameters: Mapping[str, object],
        state: str,
        epochs: Sequence[EpochEnded],
        primary: str,
        validation: float | None,
        reason: str,
        claim: str,
    ) -> None:
        """Store a trial that has ended as a child of its study's run, which gets a point per trial."""
        study = self.tracking.run(study_run).tags
        kept = (Tag.SUITE, Tag.OVERRIDES, Tag.CONTESTANT, Tag.TASK)
        tags = {name: study[name] for name in kept}
        tags |= {Tag.KIND: "trial", Tag.STATE: "running", Tag.NUMBER: str(number), Tag.CLAIM: claim}
        name = f"{study['mlflow.runName']}/trial-{number}"
        run_id = self.tracking.open_run(_tuning(study[Tag.SUITE]), name, tags, parent=study_run)
        self.tracking.log_params(run_id, hyperparameters)
        self.tracking.log_points(run_id, _curves(epochs, primary))
        if validation is not None:
            self.tracking.log_points(run_id, [(f"validation/{primary}/chosen_by", validation, 0)])
            if number not in dict(
                self.tracking.curve(study_run, f"trials/{primary}")
            ):  # of a life that was killed here
                self.tracking.log_points(study_run, [(f"trials/{primary}", validation, number)])
        why = {Tag.MESSAGE: reason[:4000]} if reason else {}
        self.tracking.close_run(run_id, STATUSES[state], {**why, Tag.STATE: state})

    def logged_trials(self, study_run: str) -> set[int]:
        """Return the numbers of the trials stored under a study's run; what a dead owner half stored is taken off."""
        study = self.tracking.run(study_run).tags
        living = self.claims.living("trial/")  # read first: one that is given back afterwards is whole by then
        children = self.tracking.runs(_tuning(study[Tag.SUITE]), {"mlflow.parentRunId": study_run})
        half = [run for run in children if run.tags[Tag.STATE] in ("running", "interrupted")]
        for run in half:
            if not _is_held(run.tags[Tag.CLAIM], living):
                self.tracking.delete_run(run.run_id)
        return {int(run.tags[Tag.NUMBER]) for run in children if run not in half}

    def close_study(self, study_run: str, chosen: Chosen | None) -> None:
        """Store a study's choice, or that it has none; of several who do, one does."""
        claim = self.tracking.run(study_run).tags[Tag.CLAIM]
        with self.claims.alone(f"open/{claim}"):
            if self.tracking.run(study_run).tags[Tag.STATE] in ("finished", "failed"):
                return
            if chosen is None:
                self.tracking.close_run(study_run, "FAILED", {Tag.STATE: "failed"})
                return
            self.tracking.log_text(study_run, CHOICE, json.dumps(asdict(chosen), indent=1))
            self.tracking.log_params(study_run, chosen.hyperparameters)
            self.tracking.close_run(study_run, "FINISHED", {Tag.CHOICE: chosen.digest, Tag.STATE: "finished"})

    def studies(self, suite: str, overrides: str, primary: str) -> list[StoredStudy]:
        """Return every study of `suite` that made its choice under exactly these overrides, with its trials' scores."""
        chosen = {Tag.KIND: "study", Tag.OVERRIDES: queryable(overrides), Tag.STATE: "finished"}
        return [
            StoredStudy(
                contestant=run.tags[Tag.CONTESTANT],
                task=run.tags[Tag.TASK],
                choice=run.tags.get(Tag.CHOICE, ""),
                validation=dict(self.tracking.curve(run.run_id, f"trials/{primary}")),
            )
            for run in self.tracking.runs(_tuning(suite), chosen)
        ]

    def open_studies(self) -> list[OpenStudy]:
        """Return the studies of all suites that somebody is at, with how many of their trials have ended."""
        runs = self.tracking.open_runs_anywhere({Tag.KIND: "study", Tag.STATE: "running"})
        living = self.claims.living("study/") if runs else {}
        return [
            OpenStudy(
                suite=run.tags[Tag.SUITE],
                overrides=run.tags[Tag.OVERRIDES],
                contestant=run.tags[Tag.CONTESTANT],
                task=run.tags[Tag.TASK],
                ended=self._ended_trials(run.run_id),
            )
            for run in runs
            if _is_held(run.tags[Tag.CLAIM], living)
        ]

    # What is read

    def cells(self, suite: str, overrides: str) -> list[StoredCell]:
        """Return every run of a cell of `suite` under exactly these overrides, oldest first."""
        return self._cells(suite, {Tag.OVERRIDES: queryable(overrides)})

    def changed_cells(self, seen: Mapping[str, Mark], suite: str = "") -> tuple[dict[str, Mark], list[StoredCell]]:
        """Return the marks of the runs of all cells, or of a suite's, by id, and those that are news, oldest first.

        Deleted ones are included. News is what is open, and what has not the mark under which it was `seen`: a cell
        that was finished, superseded, verified, deleted or restored since then.
        """
        keys = (Tag.STATE, Tag.RESULT, Tag.OPENINGS, *VERIFICATIONS)
        where = {Tag.KIND: "cell"} | ({Tag.SUITE: suite} if suite else {})
        marks, news = self.tracking.changed_runs(where, keys, seen)
        return marks, self._as_they_stand(news)

    def runs_of(self, cell: CellName, overrides: str) -> list[StoredCell]:
        """Return every run of one cell under exactly these overrides, oldest first."""
        same = {Tag.TASK: queryable(cell.task), Tag.SEED: str(cell.seed), Tag.CONTESTANT: cell.contestant}
        return self._cells(cell.suite, {Tag.OVERRIDES: queryable(overrides), **same})

    def result(self, stored: StoredCell) -> Result:
        """Return a finished cell's result.

        Raises:
            LostResultError: its result.json is gone, or not the one that was stored, or of another form.
        """
        return read_result(stored, self.result_text(stored))

    def result_text(self, stored: StoredCell) -> bytes:
        """Return a finished cell's result.json.

        Raises:
            LostResultError: it is gone, or not the one that was stored.
        """
        text = self.artifact(stored, RESULT)
        if digest(text) != stored.result_sha256:
            raise LostResultError(f"{stored.cell}: result.json of run {stored.run_id} is not what was stored")
        return text

    def identity_text(self, stored: StoredCell) -> bytes:
        """Return the identity.json of a cell: the parts of its identity as canonical JSON.

        Raises:
            LostResultError: it is gone.
        """
        return self.artifact(stored, IDENTITY)

    def per_sample(self, stored: StoredCell) -> array[float] | None:
        """Return the primary metric on each test sample of a finished cell, where it is a mean over samples.

        Raises:
            LostResultError: the predictions are gone or damaged.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            arrays = load(self.artifact(stored, PREDICTIONS))
        except SafetensorError as error:
            raise LostResultError(f"{stored.cell}: {PREDICTIONS} of run {stored.run_id} is damaged") from error
        return array("d", arrays["primary"].astype("float64").tobytes()) if "primary" in arrays else None

    def pictures(self, run_id: str) -> dict[str, Picture]:
        """Return what a finished cell's readings are drawn from; empty where it has none.

        Raises:
            WhitebenchError: they are damaged.
        """
        content = self.tracking.read_file(run_id, PICTURES)
        if content is None:
            return {}
        from whitebench.gallery import load_pictures  # torch

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / PICTURES
            file.write_bytes(content)
            return load_pictures(file)

    def curves(self, run_id: str, primary: str) -> dict[str, list[tuple[int, float]]]:
        """Return the curves of a cell's run by name, each as epochs and values; of a running one as far as it is."""
        curves = {name: self.tracking.curve(run_id, name) for name in _curve_names(primary)}
        return {name: points for name, points in curves.items() if points}

    def artifact(self, stored: StoredCell, name: str) -> bytes:
        """Return a file that a cell's fit left.

        Raises:
            LostResultError: it is gone.
        """
        content = self.tracking.read_file(stored.run_id, name, stored.files)
        if content is None:
            raise LostResultError(f"{stored.cell}: {name} of run {stored.run_id} is gone")
        return content

    def parts(self, stored: StoredCell) -> Parts:
        """Return the parts of the identity that a cell was run with."""
        parts: Parts = self._json(stored, IDENTITY)
        return parts

    def failure(self, stored: StoredCell) -> Failure:
        """Return why a failed cell yielded nothing."""
        return Failure(**self._json(stored, FAILURE))

    # What is computed again

    def record_verification(self, run_id: str, verification: Verification) -> None:
        """Record what a finished cell's scores were when computed again, in place of the last of its kind."""
        kind = Tag.REPRODUCED if verification.is_repeated else Tag.RECOMPUTED
        self.tracking.tag(run_id, {kind: verification.to_tag()})

    def record_calibration(self, cell: CellName, overrides: str, calibration: Calibration) -> str:
        """Store how much a cell differs from itself beside its suite's tuning, and return the run's id."""
        claim = f"calibration/{self.claims.owner.token}"
        tags = {
            Tag.KIND: "calibration",
            Tag.STATE: "running",
            Tag.CLAIM: claim,
            Tag.IDENTITY: calibration.identity,
            Tag.SUITE: cell.suite,
            Tag.OVERRIDES: queryable(overrides),
            Tag.CONTESTANT: cell.contestant,
            Tag.TASK: queryable(cell.task),
            Tag.SEED: str(cell.seed),
        }
        with self.claims.alone(claim):  # an open run without one would be taken for a dead conductor's
            name = f"{cell.contestant}/{cell.task}/{cell.seed}/calibration"
            run_id = self.tracking.open_run(_tuning(cell.suite), name, tags)
            self.tracking.log_text(run_id, CALIBRATION, calibration.to_json())
            self.tracking.close_run(run_id, "FINISHED", {Tag.STATE: "finished"})
        return run_id

    def calibrations(self, suite: str, overrides: str) -> list[Calibration]:
        """Return the latest calibration of each cell of a suite; one that is damaged is left out."""
        same = {Tag.KIND: "calibration", Tag.STATE: "finished", Tag.OVERRIDES: queryable(overrides)}
        latest = {
            (run.tags[Tag.CONTESTANT], run.tags[Tag.TASK], run.tags[Tag.SEED]): run
            for run in reversed(self.tracking.runs(_tuning(suite), same))
        }
        found = []
        for run in latest.values():
            with suppress(ValueError):
                found.append(Calibration.from_json(self.tracking.read_file(run.run_id, CALIBRATION) or b""))
        return found

    # Inside

    def _ended_trials(self, study_run: str) -> int:
        children = self.tracking.marks({"mlflow.parentRunId": study_run}, (Tag.STATE,)).values()
        return sum(state in TRIAL_ENDS and not is_deleted for _, _, is_deleted, state in children)

    def _cells(self, suite: str, where: Mapping[str, str]) -> list[StoredCell]:
        """Return runs of cells, oldest first; one that is open though its owner is dead counts as interrupted."""
        return self._as_they_stand(self.tracking.runs(suite, {Tag.KIND: "cell", **where}))

    def _as_they_stand(self, runs: Iterable[TrackedRun]) -> list[StoredCell]:
        cells = sorted(map(read_cell, runs), key=lambda one: one.started)
        living = self.claims.living("cell/") if any(one.state == "running" for one in cells) else {}
        return [
            replace(one, state="interrupted") if one.state == "running" and not _is_held(one.claim, living) else one
            for one in cells
        ]

    def _json(self, stored: StoredCell, name: str) -> Any:
        try:
            return json.loads(self.artifact(stored, name))
        except ValueError as error:
            raise LostResultError(f"{stored.cell}: {name} of run {stored.run_id} is damaged") from error

    def _supersede(self, run_id: str) -> None:
        tags = self.tracking.run(run_id).tags
        same = (Tag.OVERRIDES, Tag.TASK, Tag.SEED, Tag.CONTESTANT)
        for other in self.tracking.runs(tags[Tag.SUITE], {name: tags[name] for name in same}):
            if other.run_id == run_id or other.tags.get(Tag.STATE) == "superseded":
                continue
            self.close_orphan(other.run_id)
            self.tracking.tag(other.run_id, {Tag.STATE: "superseded"})


def read_result(stored: StoredCell, text: bytes) -> Result:
    """Return the result that a finished cell's result.json says.

    Raises:
        LostResultError: it is of another form.
    """
    try:
        return result_from_json(text)
    except ValueError as error:
        raise LostResultError(f"{stored.cell}: result.json of run {stored.run_id} cannot be read: {error}") from error


def _is_held(claim: str, living: Collection[str]) -> bool:
    """Return whether a claim is among the living, or for one that ends in `/` any that begins so."""
    return any(one.startswith(claim) for one in living) if claim.endswith("/") else claim in living


def _tuning(suite: str) -> str:
    return f"{suite}/tuning"


def _curve_names(primary: str) -> tuple[str, ...]:
    return ("train/loss", "train/learning_rate", "train/gradient_norm", "validation/loss", f"validation/{primary}")


def _curves(events: Sequence[EpochEnded], primary: str) -> list[Point]:
    return [
        (name, value, event.epoch)
        for event in events
        for name, value in zip(
            _curve_names(primary),
            (event.train_loss, event.learning_rate, event.gradient_norm, event.validation_loss, event.validation),
            strict=True,
        )
    ]


def _scores(result: Result) -> list[Point]:
    headlines = [(one.name, one.value, 0) for one in result.scores if one.value is not None]
    costs = [(f"cost/{one.name}", one.value, 0) for one in result.costs if one.value is not None]
    profiles = [
        (f"layers/{one.name}", value, layer)
        for one in result.scores
        for layer, value in enumerate(one.profile, start=1)
    ]
    return [*headlines, *costs, *profiles]

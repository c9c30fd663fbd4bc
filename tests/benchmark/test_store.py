"""Results in a real MLflow store on SQLite."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from safetensors.numpy import save_file

from whitebench.address import home_of, resolve_uri, sqlite_file
from whitebench.errors import LostResultError, StoreError
from whitebench.events import EpochEnded
from whitebench.identity import CellName
from whitebench.provenance import Provenance
from whitebench.result import Chosen, Failure, FailureKind, Result, Score, to_json
from whitebench.store import Store
from whitebench.suite import Contestant
from whitebench.tags import Tag

NewStore = Callable[[Path], Store]
PARTS: dict[str, Any] = {
    "contestant": {"model": "tiny", "options": {"width": 8}, "objective": "cross-entropy", "readout": "head"},
    "seed": 0,
}
CHOSEN = Chosen(hyperparameters={"learning_rate": 0.01}, trial=1, validation=0.9, digest="c" * 64)
PROVENANCE = Provenance(
    commit=None, is_dirty=None, distributions={}, python="", torch="", cuda=None, platform="", device="", threads=1,
    precision="32", seed=0, started="",
)  # fmt: skip


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, new_store: NewStore) -> Store:
    """One store for tests that use suites of their own."""
    return new_store(tmp_path_factory.mktemp("store"))


def client(store: Store) -> MlflowClient:
    return MlflowClient(store.tracking.uri)


def name(suite: str, seed: int = 0) -> CellName:
    return CellName(suite=suite, contestant="tiny", task="blobs", seed=seed)


def open_cell(store: Store, suite: str, *, seed: int = 0, overrides: str = "", **changes: Any) -> str:
    known: dict[str, Any] = {
        "contestant": Contestant(model="tiny"),
        "overrides": overrides,
        "identity": "1" * 64,
        "parts": PARTS,
        "chosen": CHOSEN,
        "is_guest": False,
        "claim": f"cell/{suite}/{seed}",
    }
    return store.open_cell(name(suite, seed), **{**known, **changes})


def score(value: float | None, *, called: str = "error", **more: Any) -> Score:
    unscored = "no" if value is None else None
    return Score(
        name=called, metric="error", version=1, direction="lower", unit="", value=value, unscored=unscored, **more
    )


def result(suite: str, *, seed: int = 0, scores: tuple[Score, ...] = (), value: float = 0.25) -> Result:
    return Result(
        cell=name(suite, seed), identity="1" * 64, primary="error", scores=(score(value), *scores),
        costs=(score(7.0, called="parameters"),), chosen=CHOSEN, epochs_allowed=2, reported_epoch=2, validation=0.3,
        test_samples=30, test_openings=1, predictions_sha256="", weights_sha256="", provenance=PROVENANCE,
    )  # fmt: skip


def left_by_a_fit(folder: Path) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").write_bytes(b"large")
    (folder / "fit.log").write_text("said\n", encoding="utf-8")
    save_file({"primary": np.array([0.0, 1.0])}, folder / "predictions.safetensors")
    return folder


def epoch(number: int, **changes: float) -> EpochEnded:
    known: dict[str, Any] = {
        "fit": "", "purpose": "cell", "epoch": number, "epochs": 9, "validation": 0.5, "train_loss": 1.0,
        "validation_loss": 1.0, "learning_rate": 0.1, "gradient_norm": 1.0, "seconds": 1.0,
    }  # fmt: skip
    return EpochEnded(**{**known, **changes})


def test_a_finished_cell_is_read_back_as_it_was_written(shared: Store, tmp_path: Path) -> None:
    run_id = open_cell(shared, "whole")
    shared.finish_cell(run_id, result("whole"), left_by_a_fit(tmp_path / "fit"))
    [stored] = shared.cells("whole", "")
    assert (stored.cell, stored.state, stored.run_id) == (name("whole"), "finished", run_id)
    assert to_json(shared.result(stored)) == to_json(result("whole"))
    assert shared.per_sample(stored) == array("d", [0.0, 1.0])
    assert shared.parts(stored) == PARTS
    files = {file.path for file in client(shared).list_artifacts(run_id)}
    assert files == {"identity.json", "result.json", "fit.log", "predictions.safetensors"}


def test_a_reader_never_sees_half_a_result(shared: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the moment at which the writer dies, the cell is not finished before all of its result is there."""
    folder = left_by_a_fit(tmp_path / "fit")
    calls: list[str] = []
    writing = ("log_file", "log_text", "log_points", "tag", "close_run")

    def count_to(last: int) -> None:
        calls.clear()
        for method in writing:
            original = getattr(type(shared.tracking), method)

            def counted(*args: Any, original: Any = original, method: str = method) -> None:
                if len(calls) == last:
                    raise KeyboardInterrupt
                calls.append(method)
                original(shared.tracking, *args)

            monkeypatch.setattr(shared.tracking, method, counted)

    states = set()
    for last in range(40):
        suite = f"half-{last}"
        run_id = open_cell(shared, suite)
        count_to(last)
        try:
            shared.finish_cell(run_id, result(suite), folder)
        except KeyboardInterrupt:
            monkeypatch.undo()
            [stored] = shared.cells(suite, "")
            states.add(stored.state)
            continue
        monkeypatch.undo()
        break
    assert states == {"interrupted"}  # nobody holds its claim
    assert last > 5
    assert to_json(shared.result(shared.cells(suite, "")[0])) == to_json(result(suite))


def test_the_latest_result_of_a_cell_supersedes_the_others(shared: Store, tmp_path: Path) -> None:
    folder = left_by_a_fit(tmp_path / "fit")
    old, new = open_cell(shared, "twice"), open_cell(shared, "twice")
    other = open_cell(shared, "twice", overrides="budget.epochs=3")
    for run_id, value in ((old, 0.5), (new, 0.25)):
        shared.finish_cell(run_id, result("twice", value=value), folder)
    assert [(one.run_id, one.state) for one in shared.cells("twice", "")] == [(old, "superseded"), (new, "finished")]
    assert client(shared).get_run(old).data.tags[Tag.STATE] == "superseded"
    assert client(shared).get_run(other).data.tags[Tag.STATE] == "running"


def test_a_failed_cell_keeps_its_kind_its_message_and_its_log(shared: Store, tmp_path: Path) -> None:
    folder = left_by_a_fit(tmp_path / "fit")
    failure = Failure(kind=FailureKind.OOM, message="too big", traceback="here", log=str(folder / "fit.log"))
    run_id = open_cell(shared, "failing")
    shared.fail_cell(run_id, failure)
    [stored] = shared.cells("failing", "")
    assert (stored.state, stored.failure) == ("failed", "oom: too big")
    assert shared.failure(stored) == failure
    assert "fit.log" in {file.path for file in client(shared).list_artifacts(run_id)}
    assert client(shared).get_run(run_id).info.status == "FAILED"


def opening(store: Store, run_id: str) -> int:
    return store.record_opening(run_id, weights_sha256="e" * 64)


def test_openings_are_counted_over_the_whole_store(shared: Store) -> None:
    parts = {**PARTS, "contestant": {**PARTS["contestant"], "options": {"width": 99}}}
    assert opening(shared, open_cell(shared, "opened", parts=parts)) == 1
    interrupted = open_cell(shared, "opened", parts=parts, seed=1)
    assert opening(shared, interrupted) == 2
    shared.interrupt(interrupted)
    deleted = open_cell(shared, "opened", parts=parts, overrides="budget.epochs=3")
    assert opening(shared, deleted) == 3
    client(shared).delete_run(deleted)
    assert opening(shared, open_cell(shared, "another", parts=parts, contestant=Contestant(model="x"))) == 4
    other = Contestant(model="x", recipe="lion")
    assert opening(shared, open_cell(shared, "another", parts=parts, contestant=other)) == 1
    assert opening(shared, open_cell(shared, "opened", parts={**parts, "contestant": PARTS["contestant"]})) == 1
    counted = shared.all_openings()
    assert counted["tiny[width=99]+cross-entropy+plain", "blobs"] == 4
    assert {who: shared.openings(*who) for who in counted} == counted


def test_news_is_told_of_every_run_once_and_of_open_ones_always(tmp_path: Path, new_store: NewStore) -> None:
    store = new_store(tmp_path)
    first, second = open_cell(store, "news"), open_cell(store, "news", claim="nobody")
    store.claims.take("cell/news/0")
    seen, cells = store.changed_cells({})
    assert {one.run_id: one.state for one in cells} == {first: "running", second: "interrupted"}
    for run_id in (first, second):
        store.finish_cell(run_id, result("news"), left_by_a_fit(tmp_path / run_id))
    seen, cells = store.changed_cells(seen)
    assert {one.run_id: one.state for one in cells} == {first: "superseded", second: "finished"}
    assert store.changed_cells(seen) == (seen, [])
    client(store).delete_run(second)
    seen, [deleted] = store.changed_cells(seen)
    assert (deleted.run_id, deleted.is_deleted) == (second, True)
    store.claims.close()


def test_whoever_only_reads_a_database_does_not_wait_for_mlflow(shared: Store, tmp_path: Path) -> None:
    run_id = open_cell(shared, "read")
    shared.finish_cell(run_id, result("read"), left_by_a_fit(tmp_path / "fit"))
    reading = f"""
import sys
from whitebench.store import Store
store = Store({shared.tracking.uri!r}, is_reader=True)
[cell] = store.cells("read", "")
print(cell.run_id, store.result(cell).score("error").value, store.per_sample(cell), store.parts(cell)["seed"])
assert store.all_openings() and store.pictures(cell.run_id) == dict()
assert "mlflow" not in sys.modules
"""
    said = subprocess.run([sys.executable, "-c", reading], capture_output=True, text=True, check=False, timeout=120)
    assert said.stdout == f"{run_id} 0.25 array('d', [0.0, 1.0]) 0\n", said.stderr


def test_the_choice_stands_in_a_cells_run_before_its_test_split_can_be_opened(shared: Store) -> None:
    tags = client(shared).get_run(open_cell(shared, "frozen")).data.tags
    assert (tags[Tag.CHOICE], tags[Tag.OPENINGS]) == ("c" * 64, "0")


def test_nothing_but_finite_numbers_under_names_mlflow_takes_is_logged(shared: Store, tmp_path: Path) -> None:
    run_id = open_cell(shared, "names")
    shared.log_epoch(run_id, epoch(1, gradient_norm=math.inf, validation_loss=math.nan), "error")
    odd = score(1.0, called="error/head=1, α:β|γ", profile=(0.5, math.nan, 1.5))
    shared.finish_cell(
        run_id, result("names", scores=(odd, score(2.0, called="../up"))), left_by_a_fit(tmp_path / "fit")
    )
    metrics = client(shared).get_run(run_id).data.metrics
    assert set(metrics) == {
        "train/loss", "train/learning_rate", "validation/error", "error", "cost/parameters", "error/head_1_ α:β_γ",
        "layers/error/head_1_ α:β_γ", "up",
    }  # fmt: skip
    layers = client(shared).get_metric_history(run_id, "layers/error/head_1_ α:β_γ")
    assert [(point.step, point.value) for point in layers] == [(1, 0.5), (3, 1.5)]


def test_the_curves_of_a_run_that_is_under_way_are_read_as_far_as_they_go(shared: Store) -> None:
    run_id = open_cell(shared, "curves")
    assert shared.curves(run_id, "error") == {}
    for number in (2, 1):
        shared.log_epoch(run_id, epoch(number, train_loss=1 / number, validation_loss=math.nan), "error")
    assert shared.curves(run_id, "error") == {
        "train/loss": [(1, 1.0), (2, 0.5)],
        "train/learning_rate": [(1, 0.1), (2, 0.1)],
        "train/gradient_norm": [(1, 1.0), (2, 1.0)],
        "validation/error": [(1, 0.5), (2, 0.5)],
    }


def test_an_epoch_that_was_trained_again_after_a_kill_stands_once_in_a_curve(shared: Store) -> None:
    run_id = open_cell(shared, "again-and-again")
    for loss in (2.0, 1.0):
        shared.log_epoch(run_id, epoch(1, train_loss=loss), "error")
    assert shared.curves(run_id, "error")["train/loss"] == [(1, 1.0)]


def test_more_points_than_mlflow_takes_at_once_are_all_stored(shared: Store) -> None:
    study = shared.open_study("long", "tiny", "blobs", overrides="", name="s" * 64, claim="study/s/")
    epochs = [epoch(number) for number in range(1, 301)]  # 1,500 points
    shared.log_trial(
        study, number=0, hyperparameters={}, state="complete", epochs=epochs, primary="error", validation=0.5,
        reason="", claim="trial/s/0",
    )  # fmt: skip
    [trial] = shared.tracking.runs("long/tuning", {Tag.KIND: "trial"})
    assert len(client(shared).get_metric_history(trial.run_id, "train/loss")) == 300


def test_what_a_dead_conductor_left_open_is_closed_whatever_its_overrides(shared: Store) -> None:
    opened = [open_cell(shared, "dead"), open_cell(shared, "dead", overrides="budget.epochs=3")]
    study = shared.open_study("dead", "tiny", "blobs", overrides="", name="d" * 64, claim="study/d/")
    elsewhere = open_cell(shared, "alive")
    shared.close_orphans("dead")
    statuses = [client(shared).get_run(run_id).info.status for run_id in (*opened, study, elsewhere)]
    assert statuses == ["KILLED", "KILLED", "KILLED", "RUNNING"]
    assert [one.state for one in shared.cells("dead", "")] == ["interrupted"]


def test_a_run_that_somebody_logs_under_a_suite_s_name_is_left_to_them(shared: Store) -> None:
    open_cell(shared, "stranger")
    [experiment] = [one for one in client(shared).search_experiments() if one.name == "stranger"]
    theirs = client(shared).create_run(experiment.experiment_id).info.run_id
    shared.close_orphans("stranger")
    assert client(shared).get_run(theirs).info.status == "RUNNING"


def test_a_run_whose_owner_died_between_its_last_tag_and_its_end_is_ended_as_what_it_is(
    shared: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    study = shared.open_study("late", "tiny", "blobs", overrides="", name="t" * 64, claim="study/t/")
    cell = open_cell(shared, "late")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shared.tracking._mlflow, "set_terminated", die)
    with pytest.raises(KeyboardInterrupt):
        shared.log_trial(
            study, number=0, hyperparameters={}, state="pruned", epochs=[], primary="error", validation=None,
            reason="", claim="trial/t/0",
        )  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        shared.finish_cell(cell, result("late"), left_by_a_fit(tmp_path / "fit"))
    monkeypatch.undo()
    shared.close_orphans("late")
    [trial] = shared.tracking.runs("late/tuning", {Tag.KIND: "trial"})
    ended = {client(shared).get_run(run_id).info.status for run_id in (trial.run_id, cell)}
    assert ended == {"KILLED", "FINISHED"}
    assert [one.state for one in shared.cells("late", "")] == ["finished"]  # and its result is whole
    assert to_json(shared.result(shared.cells("late", "")[0])) == to_json(result("late"))


def test_what_a_living_conductor_has_open_is_left_to_it(shared: Store) -> None:
    cell = open_cell(shared, "living", claim="cell/living")
    study = shared.open_study("living", "tiny", "blobs", overrides="", name="v" * 64, claim="study/v/")
    assert [one.state for one in shared.cells("living", "")] == ["interrupted"]
    for claim in ("cell/living", "study/v/somebody"):
        shared.claims.take(claim)
    shared.close_orphans("living")
    shared.leave_study(study)
    assert {client(shared).get_run(run_id).info.status for run_id in (cell, study)} == {"RUNNING"}
    assert [one.state for one in shared.cells("living", "")] == ["running"]
    shared.claims.close()
    shared.leave_study(study)
    assert client(shared).get_run(study).info.status == "KILLED"


def test_how_far_a_study_is_is_told_while_somebody_is_at_it(shared: Store) -> None:
    study = shared.open_study("far", "tiny", "blobs", overrides="a=it's", name="r" * 64, claim="study/r/")
    known: dict[str, Any] = {"hyperparameters": {}, "epochs": [], "primary": "error", "validation": None, "reason": ""}
    for number, state in enumerate(("complete", "pruned", "failed")):
        shared.log_trial(study, number=number, state=state, claim=f"trial/r/{number}", **known)
    assert [one for one in shared.open_studies() if one.suite == "far"] == []  # nobody is
    shared.claims.take("study/r/somebody")
    [found] = [one for one in shared.open_studies() if one.suite == "far"]
    assert (found.contestant, found.task, found.overrides, found.ended) == ("tiny", "blobs", "a=it’s", 3)
    shared.close_study(study, None)
    assert [one for one in shared.open_studies() if one.suite == "far"] == []
    shared.claims.close()


def test_a_trial_that_was_half_stored_is_taken_off_unless_its_owner_lives(shared: Store) -> None:
    study = shared.open_study("half", "tiny", "blobs", overrides="", name="f" * 64, claim="study/f/")
    known: dict[str, Any] = {
        "hyperparameters": {}, "state": "complete", "epochs": [], "primary": "error", "validation": 0.5, "reason": "",
    }  # fmt: skip
    for number in (0, 1):
        shared.log_trial(study, number=number, claim=f"trial/f/{number}", **known)
    half = next(run for run in shared.tracking.runs("half/tuning", {Tag.NUMBER: "1"}))
    shared.tracking.tag(half.run_id, {Tag.STATE: "running"})
    shared.claims.take("trial/f/1")
    assert shared.logged_trials(study) == {0}
    assert len(shared.tracking.runs("half/tuning", {Tag.KIND: "trial"})) == 2
    shared.claims.close()
    assert shared.logged_trials(study) == {0}
    assert len(shared.tracking.runs("half/tuning", {Tag.KIND: "trial"})) == 1


def test_the_trials_of_all_lives_of_a_study_stand_under_one_run(shared: Store) -> None:
    def study() -> str:
        return shared.open_study("lives", "tiny", "blobs", overrides="", name="l" * 64, claim="study/l/")

    def log(run_id: str, number: int) -> None:
        shared.log_trial(
            run_id, number=number, hyperparameters={"learning_rate": 0.1}, state="failed", epochs=[], primary="error",
            validation=None, reason="oom: too big", claim=f"trial/l/{number}",
        )  # fmt: skip

    first = study()
    log(first, 0)
    shared.interrupt(first)
    second = study()
    assert second == first
    log(second, 1)
    shared.close_study(second, CHOSEN)
    assert study() == first
    shared.close_study(first, CHOSEN)  # a third life with nothing to add
    runs = shared.tracking.runs("lives/tuning", {})
    assert sorted(run.tags[Tag.KIND] for run in runs) == ["study", "trial", "trial"]
    assert {run.tags.get("mlflow.parentRunId") for run in runs} == {None, first}
    assert {client(shared).get_run(run.run_id).info.status for run in runs} == {"FINISHED", "FAILED"}
    tags = shared.tracking.run(first).tags
    assert (tags[Tag.CHOICE], tags[Tag.STATE]) == (CHOSEN.digest, "finished")


def test_a_study_shows_what_each_of_its_trials_came_to(shared: Store) -> None:
    study = shared.open_study("history", "tiny", "blobs", overrides="", name="h" * 64, claim="study/h/")
    for number, validation in ((1, 0.25), (0, 0.5), (2, None)):
        shared.log_trial(
            study, number=number, hyperparameters={"learning_rate": 0.1}, state="complete" if validation else "pruned",
            epochs=[epoch(1)], primary="error", validation=validation, reason="", claim="",
        )  # fmt: skip
    points = client(shared).get_metric_history(study, "trials/error")
    assert sorted((point.step, point.value) for point in points) == [(0, 0.5), (1, 0.25)]


def test_studies_that_chose_are_read_with_the_scores_of_their_trials(shared: Store) -> None:
    study = shared.open_study("read", "tiny", "blobs", overrides="", name="r" * 64, claim="study/r/")
    for number, (state, validation) in enumerate([("complete", 0.5), ("pruned", None), ("complete", 0.7)]):
        shared.log_trial(
            study, number=number, hyperparameters={}, state=state, epochs=[], primary="error", validation=validation,
            reason="", claim=f"trial/r/{number}",
        )  # fmt: skip
    assert shared.studies("read", "", "error") == []  # it goes on
    shared.close_study(study, Chosen(hyperparameters={}, trial=2, validation=0.7, digest="d"))
    [found] = shared.studies("read", "", "error")
    assert (found.contestant, found.task, found.choice) == ("tiny", "blobs", "d")
    assert found.validation == {0: 0.5, 2: 0.7}
    assert shared.studies("read", "budget.epochs=3", "error") == []


def test_a_study_that_had_no_choice_keeps_its_run_until_it_begins_anew(shared: Store) -> None:
    def study() -> str:
        return shared.open_study("again", "tiny", "blobs", overrides="", name="a" * 64, claim="study/a/")

    first = study()
    shared.close_study(first, None)
    assert study() == first
    shared.close_study(first, CHOSEN)  # another conductor has said already that there is none
    assert shared.tracking.run(first).tags[Tag.STATE] == "failed"
    shared.supersede_study("again", overrides="", name="a" * 64)
    assert study() != first


def test_overrides_with_quotes_are_kept_apart_like_any_other(shared: Store) -> None:
    quoted = 'summary=it\'s "new"'
    open_cell(shared, "quotes", overrides=quoted)
    assert len(shared.cells("quotes", quoted)) == 1
    assert shared.cells("quotes", "") == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.unlink(), "result.json of run .* is gone"),
        (lambda file: file.write_text("{}"), "result.json of run .* is not what was stored"),
    ],
)
def test_a_result_that_was_lost_is_said_to_be(shared: Store, tmp_path: Path, damage: Any, message: str) -> None:
    run_id = open_cell(shared, "damaged")
    shared.finish_cell(run_id, result("damaged"), left_by_a_fit(tmp_path / "fit"))
    root = home_of(shared.tracking.uri) / "whitebench-artifacts" / "damaged" / run_id / "artifacts"
    damage(root / "result.json")
    stored = shared.cells("damaged", "")[-1]
    with pytest.raises(LostResultError, match=message):
        shared.result(stored)
    (root / "predictions.safetensors").write_bytes(b"half")
    with pytest.raises(LostResultError, match=r"predictions\.safetensors of run .* is damaged"):
        shared.per_sample(stored)


def test_a_store_that_was_moved_with_its_files_is_read_where_it_lies(tmp_path: Path, new_store: NewStore) -> None:
    store = new_store(tmp_path / "here")
    store.finish_cell(open_cell(store, "moved"), result("moved"), left_by_a_fit(tmp_path / "fit"))
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    shutil.rmtree(tmp_path / "here")
    there = Store(f"sqlite:///{tmp_path}/there/whitebench.db")
    [stored] = there.cells("moved", "")
    assert to_json(there.result(stored)) == to_json(result("moved"))
    assert there.tracking.read_file(stored.run_id, "fit.log") == b"said\n"


def test_a_deleted_experiment_is_refused_with_what_to_do(tmp_path: Path, new_store: NewStore) -> None:
    store = new_store(tmp_path)
    open_cell(store, "gone")
    gone = client(store).get_experiment_by_name("gone")
    assert gone is not None
    client(store).delete_experiment(gone.experiment_id)
    with pytest.raises(StoreError, match="experiment 'gone' was deleted in MLflow: restore it, or use another --store"):
        open_cell(Store(store.tracking.uri), "gone")


def test_a_new_store_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def killed(*_: object) -> None:
        seen.append((tmp_path / "whitebench.db").exists())
        raise KeyboardInterrupt

    monkeypatch.setattr("os.link", killed)
    with pytest.raises(KeyboardInterrupt):
        Store(f"sqlite:///{tmp_path}/whitebench.db")
    assert (seen, list(tmp_path.iterdir())) == ([False], [])
    monkeypatch.undo()
    assert open_cell(Store(f"sqlite:///{tmp_path}/whitebench.db"), "new")
    assert [file.name for file in tmp_path.glob("*.db")] == ["whitebench.db"]


def test_what_a_store_keeps_is_json_and_safetensors_never_pickle(shared: Store, tmp_path: Path) -> None:
    run_id = open_cell(shared, "plain")
    shared.finish_cell(run_id, result("plain"), left_by_a_fit(tmp_path / "fit"))
    root = home_of(shared.tracking.uri) / "whitebench-artifacts" / "plain" / run_id / "artifacts"
    json.loads((root / "result.json").read_text(encoding="utf-8"))
    assert {file.suffix for file in root.iterdir()} == {".json", ".log", ".safetensors"}


def test_a_stores_address_is_absolute_and_its_home_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_uri(None) == f"sqlite:///{tmp_path}/whitebench.db"
    assert resolve_uri("sqlite:///sub/x.db") == f"sqlite:///{tmp_path}/sub/x.db"
    assert resolve_uri("postgresql+psycopg://host/db") == "postgresql+psycopg://host/db"
    assert home_of("sqlite:///sub/x.db") == tmp_path / "sub"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert sqlite_file("http://host:5000") is None
    elsewhere = home_of("http://host:5000")  # the same from every folder: its lock holds
    assert elsewhere.parent == tmp_path / "state" / "whitebench"
    assert elsewhere not in {home_of("http://host:5001"), tmp_path}
    with pytest.raises(StoreError, match="--store mlruns: give a database or server"):
        resolve_uri("mlruns")

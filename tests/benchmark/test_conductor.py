"""Cell by cell: tune, freeze, fit, test, store; stopped at any moment, begun again, shared between fits."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow.tracking import MlflowClient

from whitebench import events
from whitebench.address import home_of
from whitebench.catalog import Catalog, load_catalog
from whitebench.claims import Claims, Owner
from whitebench.conductor import Conductor, Summary
from whitebench.errors import StoreError
from whitebench.events import (
    CellFailed,
    EpochEnded,
    Event,
    FitStarted,
    SuiteStarted,
    TrialEnded,
)
from whitebench.launch import Launcher
from whitebench.ledger import Ledger, ledger_of, select
from whitebench.provenance import usable_cores
from whitebench.result import CellRecord
from whitebench.spool import Spool, deliver
from whitebench.store import Store
from whitebench.suite import load_suite
from whitebench.tags import Tag

WriteSuite = Callable[..., Path]
NewStore = Callable[[Path], Store]
PRUNED = 'pruning = "median"\npruning_from_trial = 1\npruning_from_epoch = 1'


@dataclass(kw_only=True)
class World:
    """A store of its own, and what a conductor told while it worked on it."""

    store: Store
    catalog: Catalog
    launcher: Launcher
    plugins: Sequence[Path]
    told: list[Event] = field(default_factory=list)
    react: Callable[[Event], None] = lambda _: None

    def run(
        self,
        suite: Path,
        *,
        parallel: int = 2,
        overrides: Sequence[str] = (),
        models: Sequence[str] = (),
        retry: bool = False,
        max_failures: int | None = None,
    ) -> Summary:
        whole, cells = select(load_suite(str(suite), overrides), self.catalog, models=models)
        self.told.clear()

        def tell(event: Event) -> None:
            self.told.append(event)
            self.react(event)

        conductor = Conductor(
            suite=whole,
            catalog=self.catalog,
            store=self.store,
            launcher=self.launcher,
            home=home_of(self.store.tracking.uri),
            plugins=self.plugins,
            overrides=overrides,
            parallel=parallel,
            tell=tell,
            max_failures=max_failures,
        )
        ledger = ledger_of(whole, self.catalog, self.store, overrides=overrides)
        return conductor.run(ledger, cells, retry=retry)

    def ledger(self, suite: Path, *, overrides: Sequence[str] = ()) -> Ledger:
        return ledger_of(load_suite(str(suite), overrides), self.catalog, self.store, overrides=overrides)

    def states(self, suite: Path) -> list[str]:
        return [record.state for record in self.ledger(suite).records]

    def statuses(self) -> set[str]:
        """What MLflow itself says of every run."""
        client = MlflowClient(self.store.tracking.uri)
        ids = [one.experiment_id for one in client.search_experiments()]
        return {run.info.status for run in client.search_runs(ids)}

    def tags(self, **where: str) -> list[Mapping[str, str]]:
        return [run.tags for run in self.store.tracking.runs_anywhere({getattr(Tag, k): v for k, v in where.items()})]

    @property
    def spool(self) -> Spool:
        return Spool(home_of(self.store.tracking.uri))

    def pids(self) -> list[int]:
        return [event.pid for event in self.told if isinstance(event, FitStarted) and event.pid is not None]


@pytest.fixture
def world(tmp_path: Path, catalog: Catalog, launcher: Launcher, plugin: Path, new_store: NewStore) -> World:
    return World(store=new_store(tmp_path), catalog=catalog, launcher=launcher, plugins=[plugin])


def numbers(ledger: Ledger) -> dict[str, Any]:
    """Every number of every cell that must not depend on how the suite was run."""
    return {
        str(record.cell): (
            [(score.name, score.value, tuple(score.profile)) for score in record.result.scores],
            dict(record.result.chosen.hyperparameters),
            record.result.chosen.trial,
            record.result.chosen.validation,
            record.result.validation,
            record.result.predictions_sha256,
            record.result.weights_sha256,
        )
        for record in ledger.records
        if record.result
    }


def refuse(*_: object, **__: object) -> None:
    raise StoreError("the disk is full")


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_suite_is_tuned_fitted_tested_and_stored(world: World, write_suite: WriteSuite) -> None:
    suite = write_suite("tiny", "searching")
    summary = world.run(suite)
    assert (summary.finished, summary.failed, summary.is_interrupted) == (4, 0, False)
    assert world.states(suite) == ["finished"] * 4
    assert world.statuses() == {"FINISHED"}
    assert all(map(is_gone, world.pids()))
    assert not list((home_of(world.store.tracking.uri) / ".whitebench" / "fits").iterdir())
    [record, *_] = world.ledger(suite).records
    assert record.result is not None
    assert record.result.test_openings in (1, 2)  # of the contestant's two cells, whichever came first
    assert record.result.chosen.trials_complete == 2
    assert (len(world.tags(KIND="trial")), len(world.tags(KIND="study"))) == (4, 2)


def test_the_same_command_again_has_nothing_to_do(world: World, write_suite: WriteSuite) -> None:
    suite = write_suite(trials=1, seeds=1)
    world.run(suite)
    assert world.run(suite).finished == 0
    assert [type(event).__name__ for event in world.told] == ["SuiteStarted", "SuiteEnded"]


def test_the_choice_is_stored_before_the_test_split_is_opened(world: World, write_suite: WriteSuite) -> None:
    seen: list[tuple[str, str]] = []

    def look(event: Event) -> None:
        if isinstance(event, EpochEnded) and event.purpose == "cell":
            [study], [cell] = world.tags(KIND="study"), world.tags(KIND="cell")
            assert study[Tag.CHOICE] == cell[Tag.CHOICE] != ""
            seen.append((cell[Tag.CHOICE], cell[Tag.OPENINGS]))

    world.react = look
    suite = write_suite(seeds=1)
    world.run(suite)
    [record] = world.ledger(suite).records
    assert record.result is not None
    assert seen == [(record.result.chosen.digest, "0")] * 2
    kinds = [type(event).__name__ for event in world.told]
    assert kinds.index("TestOpened") > max(place for place, kind in enumerate(kinds) if kind == "EpochEnded")


def test_openings_of_an_overridden_suite_count_too(world: World, write_suite: WriteSuite) -> None:
    suite = write_suite(trials=0, seeds=1)
    world.run(suite)
    world.run(suite, overrides=["budget.epochs=1"])
    openings = [
        record.result.test_openings
        for overrides in ((), ("budget.epochs=1",))
        for record in world.ledger(suite, overrides=overrides).records
        if record.result
    ]
    assert openings == [1, 2]


@pytest.mark.parametrize("changes", [{"trials": 3}, {"trials": 4, "tuning": PRUNED}])
def test_one_fit_at_a_time_or_three_give_the_same_numbers(
    world: World, write_suite: WriteSuite, tmp_path: Path, new_store: NewStore, changes: dict[str, Any]
) -> None:
    suite = write_suite("searching", seeds=2, **changes)
    world.run(suite, parallel=1)
    alone = numbers(world.ledger(suite))
    states = {event.fit: event.state for event in world.told if isinstance(event, TrialEnded)}
    world.store = new_store(tmp_path / "other")
    world.run(suite, parallel=3)
    assert numbers(world.ledger(suite)) == alone
    assert {event.fit: event.state for event in world.told if isinstance(event, TrialEnded)} == states
    assert ("pruned" in states.values()) is ("tuning" in changes)


def test_neither_the_order_of_cells_nor_a_busy_machine_changes_a_number(
    world: World, write_suite: WriteSuite, tmp_path: Path, new_store: NewStore
) -> None:
    forwards = write_suite("tiny", "searching", seeds=[0, 1])
    world.run(forwards)
    expected = numbers(world.ledger(forwards))
    world.store = new_store(tmp_path / "other")
    (tmp_path / "backwards").mkdir()
    backwards = write_suite("searching", "tiny", seeds=[1, 0], folder=tmp_path / "backwards")
    with ExitStack() as stack:
        for _ in range(usable_cores()):
            busy = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(busy.kill)
        world.run(backwards, parallel=3)
    assert numbers(world.ledger(backwards)) == expected


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, Any]:
    """Filled once with the numbers of a suite that nobody stopped."""
    return {}


@pytest.mark.parametrize("moment", [0, 1, 3, 5, 7, 9, 12, 15])
def test_stopped_at_any_moment_nothing_is_left_behind_and_the_same_command_ends_the_same(
    world: World,
    write_suite: WriteSuite,
    undisturbed: dict[str, Any],
    new_store: NewStore,
    tmp_path: Path,
    moment: int,
) -> None:
    suite = write_suite()
    if not undisturbed:
        world.run(suite)
        undisturbed |= numbers(world.ledger(suite))
        world.store = new_store(tmp_path / "another")

    def stop(_: Event) -> None:
        if len(world.told) == moment + 1:
            os.kill(os.getpid(), signal.SIGTERM if moment % 2 else signal.SIGINT)

    world.react = stop
    assert world.run(suite).is_interrupted
    assert "RUNNING" not in world.statuses()
    assert all(map(is_gone, world.pids()))
    world.react = lambda _: None
    assert world.run(suite).failed == 0
    assert numbers(world.ledger(suite)) == undisturbed
    assert (len(world.tags(KIND="trial")), len(world.tags(KIND="study"))) == (2, 1)
    assert len(world.tags(KIND="cell", STATE="finished")) == 2


def test_a_contestant_whose_every_trial_failed_fails_with_that_kind_and_a_retry_tunes_it_anew(
    world: World, write_suite: WriteSuite
) -> None:
    suite = write_suite("faulty[how=nan]", "tiny")
    for retry, (finished, failed) in ((False, (2, 2)), (True, (0, 2))):
        summary = world.run(suite, retry=retry)
        assert (summary.finished, summary.failed) == (finished, failed)
        failures = [event for event in world.told if isinstance(event, CellFailed)]
        assert [event.kind for event in failures] == ["nan", "nan"]
        assert "none of the 2 tuning trials completed; the first said: nan: the loss is nan" in failures[0].message
        trials = [event for event in world.told if isinstance(event, TrialEnded) and "faulty" in event.fit]
        assert [trial.state for trial in trials] == ["failed", "failed"]
    assert world.states(suite) == ["failed"] * 2 + ["finished"] * 2


def test_failed_cells_are_left_alone_until_they_are_retried(world: World, write_suite: WriteSuite) -> None:
    suite = write_suite("faulty[how=raise]", "tiny", trials=0, seeds=1)
    world.run(suite)
    summary = world.run(suite)
    assert (summary.finished, summary.failed, world.pids()) == (0, 0, [])
    [started, _] = world.told
    assert isinstance(started, SuiteStarted)
    assert (started.cells, started.failed) == ((), ("blobs/faulty[how=raise]/blobs/0",))
    assert world.run(suite, retry=True).failed == 1
    assert world.states(suite) == ["failed", "finished"]
    assert len(world.tags(KIND="cell", STATE="failed")) == 1  # the first is superseded


def test_so_many_failures_end_a_run_early_and_the_same_command_goes_on(world: World, write_suite: WriteSuite) -> None:
    suite = write_suite("faulty[how=raise]", "tiny", trials=0, seeds=3)
    summary = world.run(suite, parallel=1, max_failures=2)
    assert (summary.finished, summary.failed, summary.is_cut_short) == (0, 2, True)
    assert world.states(suite) == ["failed"] * 2 + ["missing"] * 4
    assert "RUNNING" not in world.statuses()
    summary = world.run(suite)
    assert (summary.finished, summary.failed, summary.is_cut_short) == (3, 1, False)


@pytest.mark.parametrize(
    ("how", "kind"), [("raise", "error"), ("kill", "killed"), ("segfault", "crashed"), ("exit", "exit"), ("oom", "oom")]
)
def test_a_cell_that_fails_says_why_and_the_suite_goes_on(
    world: World, write_suite: WriteSuite, how: str, kind: str
) -> None:
    suite = write_suite(f"faulty[how={how}]", "tiny", trials=0, seeds=1)
    summary = world.run(suite)
    assert (summary.finished, summary.failed) == (1, 1)
    failed, finished = world.ledger(suite).records
    assert (failed.state, finished.state) == ("failed", "finished")
    assert failed.reason.startswith(f"{kind}: ")
    [stored] = [one for one in world.store.cells("blobs", "") if one.state == "failed"]
    assert "misbehave" in world.store.failure(stored).traceback or how == "kill"


def test_a_fit_that_takes_too_long_fails_and_the_suite_goes_on(world: World, write_suite: WriteSuite) -> None:
    suite = write_suite("faulty[how=hang]", "tiny", trials=0, seeds=1, budget="\n[limits]\nfit_minutes = 0.1")
    world.run(suite)
    assert [record.reason.partition(":")[0] for record in world.ledger(suite).records] == ["timeout", ""]
    assert all(map(is_gone, world.pids()))


def test_a_metric_that_fails_on_the_test_split_keeps_the_training(
    world: World, write_suite: WriteSuite, tmp_path: Path
) -> None:
    file = tmp_path / "fussy.py"
    file.write_text(FUSSY, encoding="utf-8")
    world.plugins = [*world.plugins, file]
    world.catalog = load_catalog(world.plugins)
    suite = write_suite(primary="fussy", trials=0, seeds=1)
    world.run(suite)
    [record] = world.ledger(suite).records
    assert record.reason == "metric: fussy: the metric raised ValueError: not on the test split"
    assert record.run_id is not None
    kept = {file.path for file in MlflowClient(world.store.tracking.uri).list_artifacts(record.run_id)}
    assert {"predictions.safetensors", "weights.safetensors", "fit.log", "failure.json"} <= kept


FUSSY = """
import torch, torchmetrics
from whitebench import MetricSpec, hookimpl
from whitebench_tasks import digits

class Fussy(torchmetrics.Metric):
    def __init__(self):
        super().__init__()
        self.add_state("count", torch.tensor(0.0), dist_reduce_fx="sum")
    def update(self, logits, labels):
        self.count += len(labels)
        if len(labels) == 30:  # the whole test split at once; validation comes in batches of 16
            raise ValueError("not on the test split")
    def compute(self):
        return self.count

@hookimpl
def register_metrics():
    return [MetricSpec(name="fussy", version=1, summary="", direction="lower", needs=("logits", "labels"),
                       build=lambda context: Fussy())]
"""


def test_stale_cells_are_run_again_and_guests_join_without_touching_the_others(
    world: World, write_suite: WriteSuite
) -> None:
    world.run(write_suite(trials=0, seeds=1))
    suite = write_suite(trials=0, seeds=1, epochs=3)  # another budget: another identity under the same name
    assert world.states(suite) == ["stale"]
    assert world.ledger(suite).records[0].reason == "budget.epochs: 2 -> 3"
    world.run(suite, models=["penalised"])
    assert world.states(suite) == ["stale", "finished"]
    world.run(suite)
    assert world.states(suite) == ["finished", "finished"]
    assert [record.is_guest for record in world.ledger(suite).records] == [False, True]


def test_a_result_that_was_lost_is_missing_and_run_again(world: World, write_suite: WriteSuite) -> None:
    suite = write_suite(trials=0, seeds=1)
    world.run(suite)
    before = numbers(world.ledger(suite))
    for file in home_of(world.store.tracking.uri).glob("whitebench-artifacts/blobs/*/artifacts/result.json"):
        file.write_text("{}", encoding="utf-8")
    [record] = world.ledger(suite).records
    assert record.state == "missing"
    assert record.reason.endswith("is not what was stored: run it again")
    assert world.run(suite).finished == 1
    assert numbers(world.ledger(suite)) == before


def test_a_store_that_breaks_in_the_middle_stops_the_run_and_leaves_no_process(
    world: World, write_suite: WriteSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = write_suite(trials=0, seeds=3)

    monkeypatch.setattr(world.store, "finish_cell", refuse)
    with pytest.raises(StoreError, match="the disk is full"):
        world.run(suite)
    monkeypatch.undo()
    assert "RUNNING" not in world.statuses()
    assert all(map(is_gone, world.pids()))
    [folder] = world.spool.kept.iterdir()
    assert {"delivery.json", "predictions.safetensors", "weights.safetensors"} <= {one.name for one in folder.iterdir()}
    [delivery] = deliver(world.spool, world.store)
    assert list(world.spool.kept.iterdir()) == []
    assert world.run(suite).finished == 2
    records = {str(record.cell): record for record in world.ledger(suite).records}
    delivered = records[str(delivery.cell)]
    assert (delivered.state, delivered.result) == ("finished", delivery.result)
    assert len(world.tags(KIND="cell", STATE="finished")) == 3
    assert delivered.run_id is not None
    curve = MlflowClient(world.store.tracking.uri).get_metric_history(delivered.run_id, "train/loss")
    assert [point.step for point in curve] == [1, 2]


def test_a_result_that_waits_is_not_stored_twice_nor_while_its_conductor_lives(
    world: World, write_suite: WriteSuite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    suite = write_suite(trials=0, seeds=1)
    monkeypatch.setattr(world.store, "finish_cell", refuse)
    with pytest.raises(StoreError, match=r"Nothing is lost: the result of blobs/tiny/blobs/0 waits in .*/spool/"):
        world.run(suite)
    monkeypatch.undo()
    [folder] = world.spool.kept.iterdir()
    shutil.copytree(folder, tmp_path / "copy")
    [(_, delivery)] = world.spool.waiting()
    other = Claims(f"sqlite:///{tmp_path}/whitebench.db")
    assert other.take(delivery.claim)
    assert deliver(world.spool, world.store) == []
    other.close()
    assert len(deliver(world.spool, world.store)) == 1
    shutil.copytree(tmp_path / "copy", folder)  # a kill came between storing it and clearing it away
    assert deliver(world.spool, world.store) == []
    assert list(world.spool.kept.iterdir()) == []
    assert len(world.tags(KIND="cell", STATE="finished")) == 1


def test_a_result_that_waits_and_is_damaged_is_put_aside(world: World) -> None:
    folder = world.spool.kept / "some-cell"
    folder.mkdir(parents=True)
    (folder / "delivery.json").write_text('{"result": ')
    assert world.spool.waiting() == []
    assert [one.name for one in folder.iterdir()] == ["delivery.json.damaged"]


def test_a_fit_that_was_done_when_its_conductor_was_killed_is_neither_fitted_nor_tested_again(
    world: World, write_suite: WriteSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = write_suite(trials=0, seeds=1)

    def die(*_: object) -> None:
        raise SystemExit("as good as killed")

    monkeypatch.setattr(world.store, "finish_cell", die)
    with pytest.raises(SystemExit):
        world.run(suite)
    monkeypatch.undo()
    assert len(deliver(world.spool, world.store)) == 1
    summary = world.run(suite)
    assert (summary.finished, world.pids()) == (0, [])
    [record] = world.ledger(suite).records
    assert (record.state, record.test_openings) == ("finished", 1)


def test_a_result_that_its_owner_left_while_another_conductor_worked_is_stored_by_that_one(
    world: World, write_suite: WriteSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = write_suite("tiny", "searching", trials=0, seeds=1)

    def die(*_: object) -> None:
        raise SystemExit("as good as killed")

    monkeypatch.setattr(world.store, "finish_cell", die)
    with pytest.raises(SystemExit):
        world.run(suite, parallel=1)
    monkeypatch.undo()
    summary = world.run(suite)  # it had begun before that, and never looked what was waiting
    assert (summary.finished, len(world.pids())) == (2, 1)
    done = {record.cell.contestant: record.test_openings for record in world.ledger(suite).records}
    assert done == {"tiny": 1, "searching": 1}
    assert not list(world.spool.fits.iterdir())


def test_a_cell_that_another_conductor_took_over_is_left_to_it(world: World, write_suite: WriteSuite) -> None:
    suite = write_suite(trials=0, seeds=1)
    far = dataclasses.replace(Owner.me(), token="far")

    def rob(event: Event) -> None:
        # As if this process had been stopped for longer than the lease.
        if isinstance(event, events.TestOpened) and event.openings == 1:
            with closing(sqlite3.connect(world.store.tracking.uri.removeprefix("sqlite:///"))) as database:
                database.execute("UPDATE whitebench_claims SET owner = 'far' WHERE name LIKE 'cell/%'")
                database.commit()
            threading.Timer(3.0, Claims(world.store.tracking.uri, far).close).start()

    world.react = rob
    summary = world.run(suite)
    assert (summary.finished, summary.failed) == (1, 0)  # done anew, once the other one had given it back
    assert sum(isinstance(event, events.TestOpened) for event in world.told) == 2
    assert sorted(tags[Tag.STATE] for tags in world.tags(KIND="cell")) == ["finished", "superseded"]
    assert [Tag.RESULT in tags for tags in world.tags(KIND="cell", STATE="superseded")] == [False]
    assert world.states(suite) == ["finished"]
    assert "RUNNING" not in world.statuses()


def test_a_trial_that_another_conductor_took_over_is_not_recorded_by_the_first(
    world: World, write_suite: WriteSuite
) -> None:
    suite = write_suite(trials=1, seeds=1)
    far = dataclasses.replace(Owner.me(), token="far")

    def rob(event: Event) -> None:
        if isinstance(event, EpochEnded) and event.epoch == 2 and event.purpose == "trial" and len(world.told) < 6:
            with closing(sqlite3.connect(world.store.tracking.uri.removeprefix("sqlite:///"))) as database:
                database.execute("UPDATE whitebench_claims SET owner = 'far' WHERE name LIKE 'trial/%'")
                database.commit()
            threading.Timer(3.0, Claims(world.store.tracking.uri, far).close).start()

    world.react = rob
    assert world.run(suite).finished == 1
    assert len([event for event in world.told if isinstance(event, FitStarted) and event.purpose == "trial"]) == 2
    assert len([event for event in world.told if isinstance(event, TrialEnded)]) == 1
    assert len(world.tags(KIND="trial")) == 1


def test_a_retry_that_is_stopped_is_gone_on_with_by_either_command(world: World, write_suite: WriteSuite) -> None:
    suite = write_suite("faulty[how=raise]", trials=0, seeds=1)

    def stop(event: Event) -> None:
        if isinstance(event, FitStarted):
            os.kill(os.getpid(), signal.SIGINT)

    for retry in (True, False):
        world.react = lambda _: None
        world.run(suite, retry=world.states(suite) == ["failed"])
        world.react = stop
        assert world.run(suite, retry=True).is_interrupted
        assert world.states(suite) == ["interrupted"]
        world.react = lambda _: None
        assert world.run(suite, retry=retry).failed == 1
        assert len(world.pids()) == 1  # it was fitted
        assert world.states(suite) == ["failed"]


def test_a_study_without_a_choice_is_written_down_once_however_often_it_is_met(
    world: World, write_suite: WriteSuite
) -> None:
    suite = write_suite("faulty[how=nan]", trials=2, seeds=3)
    assert world.run(suite, max_failures=1).is_cut_short
    assert world.run(suite).failed == 2
    assert (len(world.tags(KIND="study")), len(world.tags(KIND="trial"))) == (1, 2)


def test_a_trial_that_its_runner_did_not_write_down_is_written_down_by_the_next(
    world: World, write_suite: WriteSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = write_suite()
    monkeypatch.setattr(world.store, "log_trial", refuse)
    with pytest.raises(StoreError, match="the disk is full"):
        world.run(suite)
    monkeypatch.undo()
    world.run(suite)
    trials = world.tags(KIND="trial")
    assert sorted(trial[Tag.NUMBER] for trial in trials) == ["0", "1"]
    [study] = world.tags(KIND="study")
    assert study[Tag.STATE] == "finished"


def test_a_run_told_to_end_by_sigterm_lets_its_fits_end_their_epoch(world: World, write_suite: WriteSuite) -> None:
    suite = write_suite(trials=0, seeds=1, epochs=200)

    def stop(event: Event) -> None:
        if isinstance(event, EpochEnded) and event.epoch == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    world.react = stop
    assert world.run(suite).is_interrupted
    told = [event.epoch for event in world.told if isinstance(event, EpochEnded)]
    [folder] = world.spool.fits.iterdir()
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert 4 <= told[-1] <= len(checkpoint["history"]) < 200
    assert world.store.claims.living() == {}
    assert (world.statuses(), world.states(suite)) == ({"KILLED"}, ["interrupted"])


@pytest.mark.parametrize("who_is_first", ["fit", "conductor"])
def test_a_job_whose_processes_are_all_told_to_end_counts_nothing_as_failed(
    world: World, write_suite: WriteSuite, tmp_path: Path, new_store: NewStore, who_is_first: str
) -> None:
    suite = write_suite("searching", trials=1, seeds=1, epochs=40)
    world.run(suite)
    whole = numbers(world.ledger(suite))
    world.store = new_store(tmp_path / "other")
    ends: list[threading.Timer] = []

    def stop(event: Event) -> None:
        if isinstance(event, FitStarted) and not ends:
            assert event.pid is not None
            both = [event.pid, os.getpid()] if who_is_first == "fit" else [os.getpid(), event.pid]
            ends.append(threading.Timer(0.3, end_all, [both]))
            ends[0].start()

    def end_all(pids: Sequence[int]) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):  # the conductor may have been quick
                os.kill(pid, signal.SIGTERM)
            time.sleep(0.1)

    world.react = stop
    assert world.run(suite, parallel=1).is_interrupted
    ends[0].join()
    assert not [event for event in world.told if isinstance(event, TrialEnded) and event.state == "failed"]
    world.react = lambda _: None
    world.run(suite, parallel=1)
    assert numbers(world.ledger(suite)) == whole


def test_tpe_runs_its_trials_one_after_the_other_and_the_same_after_a_stop(
    world: World, write_suite: WriteSuite, tmp_path: Path, new_store: NewStore
) -> None:
    suite = write_suite("searching", tuning='sampler = "tpe"', trials=3, seeds=1)
    world.run(suite, parallel=3)
    whole = numbers(world.ledger(suite))
    world.store = new_store(tmp_path / "other")

    def stop(event: Event) -> None:
        if isinstance(event, TrialEnded):
            os.kill(os.getpid(), signal.SIGTERM)

    world.react = stop
    assert world.run(suite).is_interrupted
    world.react = lambda _: None
    world.run(suite)
    assert [event.fit[-1] for event in world.told if isinstance(event, TrialEnded)] == ["1", "2"]
    assert numbers(world.ledger(suite)) == whole


def test_a_cell_stopped_in_its_second_epoch_goes_on_from_there(world: World, write_suite: WriteSuite) -> None:
    suite = write_suite(trials=0, seeds=1, epochs=4)

    def stop(event: Event) -> None:
        if isinstance(event, EpochEnded) and event.epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)

    world.react = stop
    assert world.run(suite, parallel=1).is_interrupted
    world.react = lambda _: None
    world.run(suite)
    [record] = world.ledger(suite).records
    assert record.result is not None
    assert record.result.provenance.resumed_from_epoch in (2, 3)  # it trained on while the conductor was told
    assert record.run_id is not None
    curve = MlflowClient(world.store.tracking.uri).get_metric_history(record.run_id, "train/loss")
    assert [point.step for point in curve] == [1, 2, 3, 4]


@pytest.fixture
def typed(tmp_path: Path, plugin: Path) -> Callable[..., subprocess.Popen[str]]:
    """Return a function that starts `whitebench run` in a process of its own."""

    def start(suite: Path, *options: str) -> subprocess.Popen[str]:
        command = [
            str(Path(sys.executable).with_name("whitebench")),
            "run",
            str(suite),
            "--plugin",
            str(plugin),
            *options,
        ]
        return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    return start


def pids_in(lines: Sequence[str]) -> list[int]:
    return [int(line.partition("(process ")[2].partition(")")[0]) for line in lines if "(process " in line]


def read_until(process: subprocess.Popen[str], text: str, times: int = 1) -> list[str]:
    assert process.stdout is not None
    lines: list[str] = []
    while sum(text in line for line in lines) < times:
        line = process.stdout.readline()
        assert line, "".join(lines)
        lines.append(line)
    return lines


@pytest.mark.slow
def test_killed_stopped_and_refused_on_the_command_line(
    typed: Callable[..., subprocess.Popen[str]], world: World, write_suite: WriteSuite
) -> None:
    """One story, because a cold server takes seconds: SIGKILL, a second run beside a first, then Ctrl-C."""
    suite = write_suite("faulty[how=hang]", seeds=2, trials=0)
    with typed(suite, "--parallel", "2") as process:
        fits = pids_in(read_until(process, "started (process", times=2))
        assert not any(map(is_gone, fits))
        process.kill()
        process.wait()
        started = time.monotonic()
        while not all(map(is_gone, fits)):
            assert time.monotonic() - started < 5.0
            time.sleep(0.02)
    assert world.statuses() == {"RUNNING"}  # a killed conductor cannot close its runs; the next one does
    assert set(world.states(suite)) <= {"interrupted", "missing"}  # but everybody sees that its owner is dead

    with typed(suite, "--parallel", "2") as process:
        fits = pids_in(read_until(process, "started (process", times=2))
        with typed(suite) as second:
            assert second.stdout is not None
            read_until(second, f"process {process.pid} on", times=2)  # it waits for what the first is at
            second.send_signal(signal.SIGINT)
            assert second.wait(60) == 130
        assert not any(map(is_gone, fits))
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stdout is not None
        assert "interrupted" in process.stdout.read()
    assert all(map(is_gone, fits))
    assert world.statuses() == {"KILLED"}
    assert world.states(suite) == ["interrupted"] * 2


@pytest.mark.slow
def test_four_conductors_two_of_them_killed_do_each_trial_and_each_cell_once(
    typed: Callable[..., subprocess.Popen[str]],
    world: World,
    write_suite: WriteSuite,
    tmp_path: Path,
    new_store: NewStore,
) -> None:
    suite = write_suite("tiny", "searching", seeds=4, trials=4)
    with ExitStack() as stack:
        runs = [stack.enter_context(typed(suite, "--parallel", "1")) for _ in range(4)]
        for run in runs:
            stack.callback(run.kill)
        for victim, sign in zip(runs, ("complete", "started (process"), strict=False):
            read_until(victim, sign)  # one is killed amid its trials, the other amid a cell
            victim.kill()
        ends = [run.communicate(timeout=240)[0] for run in runs[2:]]
        assert [run.wait(60) for run in runs] == [-9, -9, 0, 0], ends
    assert world.states(suite) == ["finished"] * 8
    assert len(world.tags(KIND="cell", STATE="finished")) == 8
    trials = [(tags["mlflow.parentRunId"], tags[Tag.NUMBER]) for tags in world.tags(KIND="trial", STATE="complete")]
    assert len(trials) == len(set(trials)) == 8
    assert len(world.tags(KIND="study")) == 2
    assert "RUNNING" not in world.statuses()
    assert world.store.claims.living() == {}
    assert [one for end in ends for one in end.splitlines() if "elsewhere" in one]
    shared = numbers(world.ledger(suite))
    world.store = new_store(tmp_path / "other")
    world.run(suite)  # alone
    assert numbers(world.ledger(suite)) == shared


SOLVING = """
name = "coins"
version = 1
summary = "Coins."
primary = "right"
tasks = ["coins", "coins[how=kill]", "coins[how=nan]"]
seeds = 2
metrics = ["right", "right-parts"]

[[contestants]]
label = "half"
model = "guesser[rate=0.5]"

[[contestants]]
label = "most"
model = "guesser[rate=0.9]"
"""


def test_tasks_that_solve_themselves_are_run_stored_failed_and_skipped_like_any_other(
    world: World, tmp_path: Path
) -> None:
    file = tmp_path / "coins.toml"
    file.write_text(SOLVING, encoding="utf-8")
    summary = world.run(file)
    assert (summary.finished, summary.failed) == (4, 8)
    assert not [event for event in world.told if isinstance(event, TrialEnded | events.TestOpened)]
    by_task: dict[str, list[CellRecord]] = {}
    for record in world.ledger(file).records:
        by_task.setdefault(record.cell.task, []).append(record)
    for record in by_task["coins"]:
        assert record.result is not None
        assert record.per_sample is not None
        right = record.result.score("right")
        assert right is not None
        assert right.value == pytest.approx(sum(record.per_sample) / 10)
        assert (record.state, record.result.is_solved, record.result.test_samples) == ("finished", True, 10)
        assert (dict(record.result.chosen.hyperparameters), record.test_openings) == ({}, 0)
        assert [cost.name for cost in record.result.costs] == ["solving-time", "peak-memory"]
    assert {one.reason.partition(":")[0] for one in by_task["coins[how=kill]"]} == {"killed"}
    assert {one.reason for one in by_task["coins[how=nan]"]} == {"metric: right: the value is nan"}
    assert world.statuses() == {"FINISHED", "FAILED"}
    first = numbers(world.ledger(file))
    assert world.run(file).finished == 0
    assert not world.pids()
    assert world.run(file, retry=True, parallel=1).failed == 8
    assert numbers(world.ledger(file)) == first

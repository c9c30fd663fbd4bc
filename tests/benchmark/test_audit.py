"""Finished cells put to the test, in a store that somebody may have tampered with."""

from __future__ import annotations

import dataclasses
import json
import platform
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from mlflow.tracking import MlflowClient
from safetensors.torch import load_file, save_file

from whitebench import cli
from whitebench.address import home_of
from whitebench.audit import Audit, Verdict
from whitebench.catalog import Catalog, load_catalog
from whitebench.conductor import Conductor
from whitebench.events import Event
from whitebench.fit import PREDICTIONS, WEIGHTS
from whitebench.launch import Launcher
from whitebench.ledger import Ledger, ledger_of, select
from whitebench.result import digest
from whitebench.store import RESULT, Store
from whitebench.suite import load_suite
from whitebench.tags import StoredCell, Tag

WriteSuite = Callable[..., Path]
NewStore = Callable[[Path], Store]

COINS = """
name = "coins"
version = 1
summary = "Coins."
primary = "right"
tasks = ["coins"]
seeds = 1
metrics = ["right", "right-parts"]

[[contestants]]
model = "guesser[rate=0.5]"
"""


@dataclass(kw_only=True)
class World:
    """A store of its own in which a suite is run, and its cells verified."""

    store: Store
    catalog: Catalog
    launcher: Launcher
    plugins: Sequence[Path]
    told: list[Event] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return home_of(self.store.tracking.uri)

    def run(self, suite: Path, *, models: Sequence[str] = (), overrides: Sequence[str] = ()) -> None:
        whole, cells = select(load_suite(str(suite), overrides), self.catalog, models=models)
        conductor = Conductor(
            suite=whole, catalog=self.catalog, store=self.store, launcher=self.launcher, home=self.home,
            plugins=self.plugins, overrides=overrides, parallel=1, tell=self.told.append,
        )  # fmt: skip
        assert conductor.run(ledger_of(whole, self.catalog, self.store, overrides=overrides), cells).failed == 0

    def verify(self, suite: Path, *, is_repeated: bool = False, overrides: Sequence[str] = ()) -> list[Verdict]:
        audit = Audit(
            load_suite(str(suite), overrides), self.catalog, self.store, overrides=overrides, plugins=self.plugins,
            work=self.home / "work", is_repeated=is_repeated,
        )  # fmt: skip
        verdicts = list(audit.verdicts(audit.exhibits(), self.launcher, parallel=2))
        assert not (self.home / "work").exists() or not list((self.home / "work").iterdir())
        return verdicts

    def ledger(self, suite: Path) -> Ledger:
        return ledger_of(load_suite(str(suite)), self.catalog, self.store)

    def stored(self) -> StoredCell:
        [one] = self.store.cells("blobs", "")
        return one

    def file(self, name: str) -> Path:
        client = MlflowClient(self.store.tracking.uri)
        return Path(client.get_run(self.stored().run_id).info.artifact_uri.removeprefix("file://")) / name


@pytest.fixture
def world(tmp_path: Path, catalog: Catalog, launcher: Launcher, plugin: Path, new_store: NewStore) -> World:
    return World(store=new_store(tmp_path), catalog=catalog, launcher=launcher, plugins=[plugin])


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which `suite` is run by whoever needs it first."""
    return tmp_path_factory.mktemp("once")


@pytest.fixture
def suite(world: World, write_suite: WriteSuite, once: Path, new_store: NewStore) -> Path:
    """A suite of one finished cell, with a metric that looks inside and has the untrained network as its null."""
    file = write_suite("tiny", trials=0, seeds=1)
    inside = 'metrics = ["error", "accuracy", "depths", "depths-null", "depths-missing"]\nreadouts = ["means"]'
    file.write_text(file.read_text().replace('metrics = ["error", "accuracy"]', inside))
    if not any(once.iterdir()):
        dataclasses.replace(world, store=new_store(once)).run(file)
    copy_store(once, world.home)
    return file


def copy_store(source: Path, target: Path) -> None:
    """Fill the store in a folder with that of another, whose files lie in the new place."""
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("whitebench.db*"))
    full, empty = (sqlite3.connect(folder / "whitebench.db") for folder in (source, target))
    with closing(full), closing(empty):
        full.backup(empty)
        moved = (str(source), str(target))
        empty.execute("UPDATE experiments SET artifact_location = replace(artifact_location, ?, ?)", moved)
        empty.execute("UPDATE runs SET artifact_uri = replace(artifact_uri, ?, ?)", moved)
        empty.commit()


def test_every_score_comes_out_again_from_predictions_and_weights(world: World, suite: Path) -> None:
    [verdict] = world.verify(suite)
    assert (verdict.standing, verdict.why) == ("recomputed", "")
    says = {one.name: str(one) for one in verdict.comparisons}
    assert says == {
        "error": "equal", "accuracy": "equal", "depths": "equal", "depths-null": "equal",
        "depths-missing": "unscored both times", "error/means": "equal", "parameters": "equal", "macs": "equal",
    }  # fmt: skip
    found = verdict.verification
    assert found is not None
    assert (found.num_scores, found.differences, found.changes, found.threads) == (8, (), (), 1)


def test_a_fit_repeated_comes_out_to_the_last_byte_and_opens_no_cell_and_counts_no_opening(
    world: World, suite: Path
) -> None:
    before = world.ledger(suite).records[0]
    [verdict] = world.verify(suite, is_repeated=True)
    assert verdict.standing == "reproduced"
    assert verdict.verification is not None
    assert verdict.verification.tolerance == 0.0
    after = world.ledger(suite).records[0]
    assert after == dataclasses.replace(before, verification=after.verification)
    assert after.test_openings == 1


def test_what_came_out_stays_with_the_cell_and_the_latest_of_a_kind_counts(world: World, suite: Path) -> None:
    def standings() -> list[str | None]:
        return [one.verification.standing if one.verification else None for one in world.ledger(suite).records]

    assert standings() == [None]
    world.verify(suite)
    assert standings() == ["recomputed"]
    world.verify(suite, is_repeated=True)
    assert standings() == ["reproduced"]
    world.verify(suite)
    assert standings() == ["reproduced"]


@pytest.mark.parametrize("is_repeated", [False, True])
@pytest.mark.parametrize("name", [PREDICTIONS, WEIGHTS, RESULT])
def test_a_file_that_was_tampered_with_differs_whatever_its_scores_are(
    world: World, suite: Path, name: str, is_repeated: bool
) -> None:
    file = world.file(name)
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    [verdict] = world.verify(suite, is_repeated=is_repeated)
    assert verdict.standing == "differs"
    assert verdict.verification is not None
    [difference] = verdict.verification.differences
    assert difference.startswith(f"{name} of run {world.stored().run_id} is not what was stored: its sha256 is ")
    assert f"that of the record {digest(content)[:12]}…" in difference


def forge(world: World, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a result and its hash in the record, as somebody would who knows the store."""
    file = world.file(RESULT)
    result = json.loads(file.read_bytes())
    change(result)
    content = json.dumps(result).encode()
    file.write_bytes(content)
    world.store.tracking.tag(world.stored().run_id, {Tag.RESULT: digest(content)})


@pytest.mark.parametrize("is_repeated", [False, True])
def test_a_score_that_was_forged_with_its_hash_differs(world: World, suite: Path, is_repeated: bool) -> None:
    def flatter(result: dict[str, Any]) -> None:
        result["scores"][0]["value"] = 0.0

    forge(world, flatter)
    [verdict] = world.verify(suite, is_repeated=is_repeated)
    assert verdict.standing == "differs"
    assert verdict.verification is not None
    assert verdict.verification.differences == ("error: differs in its value by 1.0e+00",)
    [record] = world.ledger(suite).records
    assert record.verification is not None
    assert record.verification.standing == "differs"


def test_predictions_that_were_forged_with_all_their_hashes_are_not_those_of_the_weights(
    world: World, suite: Path
) -> None:
    file = world.file(PREDICTIONS)
    arrays = load_file(file)
    arrays["logits"] *= 2.0  # the same classes, and so the same error and accuracy
    save_file(arrays, file)

    def sign(result: dict[str, Any]) -> None:
        result["predictions_sha256"] = digest(file.read_bytes())

    forge(world, sign)
    [verdict] = world.verify(suite)
    assert verdict.verification is not None
    assert verdict.verification.differences == (
        "predictions: logits of the stored weights differ from the stored by 5.0e-01",
    )


def test_what_a_killed_verification_left_on_this_machine_is_removed_by_the_next(world: World, suite: Path) -> None:
    left = world.home / "work" / f"verify-{platform.node()}-{2**30}-abc"  # no process has such a number
    left.mkdir(parents=True)
    (left / WEIGHTS).write_bytes(b"large")
    assert [one.standing for one in world.verify(suite)] == ["recomputed"]
    assert not left.exists()


def test_a_cell_without_its_weights_cannot_be_recomputed_and_its_fit_can_be_repeated(world: World, suite: Path) -> None:
    world.file(WEIGHTS).unlink()
    [verdict] = world.verify(suite)
    assert (verdict.standing, verdict.verification) == ("unverified", None)
    assert f"{WEIGHTS} of run {world.stored().run_id} is gone: `whitebench verify --retrain` repeats" in verdict.why
    assert world.ledger(suite).records[0].verification is None
    [verdict] = world.verify(suite, is_repeated=True)
    assert verdict.standing == "reproduced"


def test_a_metric_whose_code_changed_is_not_called_recomputed(
    world: World, suite: Path, plugin: Path, tmp_path: Path
) -> None:
    text = plugin.read_text()
    edited = tmp_path / plugin.name
    edited.write_text(text.replace("return self.wrong / self.count", "return self.wrong / self.count + 0.0"))
    world.catalog, world.plugins = load_catalog([edited]), [edited]
    [verdict] = world.verify(suite)
    assert verdict.standing == "unverified"
    assert verdict.why.startswith("it is stale, and what would be computed is not what was: ")
    assert "sources.metric error: " in verdict.why


def test_a_metric_of_a_new_version_is_not_called_recomputed(
    world: World, suite: Path, plugin: Path, tmp_path: Path
) -> None:
    edited = tmp_path / plugin.name
    edited.write_text(
        plugin.read_text().replace("MetricSpec(name=name, version=1,", "MetricSpec(name=name, version=2,")
    )
    world.catalog, world.plugins = load_catalog([edited]), [edited]
    [verdict] = world.verify(suite)
    assert verdict.standing == "unverified"
    assert "metrics.error: 1 -> 2" in verdict.why


def test_a_cell_that_is_stale_only_in_how_it_learnt_is_recomputed_and_not_repeated(world: World, suite: Path) -> None:
    suite.write_text(suite.read_text().replace("epochs = 2", "epochs = 3"))
    [record] = world.ledger(suite).records
    assert record.state == "stale"
    [verdict] = world.verify(suite)
    assert verdict.standing == "recomputed"
    [verdict] = world.verify(suite, is_repeated=True)
    assert verdict.standing == "unverified"
    assert verdict.why == "it is stale, and what would be computed is not what was: budget.epochs: 2 -> 3"


def test_other_circumstances_are_named_and_the_last_digit_is_not_asked_for(world: World, suite: Path) -> None:
    def elsewhere(result: dict[str, Any]) -> None:
        result["provenance"]["device"] = "another processor"
        result["scores"][2]["value"] *= 1 + 1e-5

    forge(world, elsewhere)
    [verdict] = world.verify(suite)
    assert verdict.standing == "recomputed"
    assert verdict.verification is not None
    [change] = verdict.verification.changes
    assert change.startswith("device: another processor -> ")
    assert {one.name: str(one) for one in verdict.comparisons}["depths"] == "within 0.001: 1.0e-05"


def test_a_fit_elsewhere_may_differ_by_the_suites_noise_floor(world: World, suite: Path) -> None:
    from whitebench.calibration import Calibration, Repetition

    def elsewhere(result: dict[str, Any]) -> None:
        result["provenance"]["device"] = "another processor"
        result["scores"][0]["value"] += 0.1

    forge(world, elsewhere)
    [verdict] = world.verify(suite, is_repeated=True)
    assert verdict.standing == "differs"
    apart = [Repetition(setting="", device="", threads=1, values={"error": value}) for value in (0.1, 0.3)]
    calibration = Calibration(cell="", identity="", when="", repetitions=apart)
    world.store.record_calibration(world.stored().cell, "", calibration)
    [verdict] = world.verify(suite, is_repeated=True)
    assert verdict.standing == "reproduced"
    assert str(verdict.comparisons[0]).startswith("within the noise floor: ")


def test_a_cell_whose_fit_fails_this_time_is_unverified_with_the_reason(
    world: World, suite: Path, tmp_path: Path
) -> None:
    def forget(result: dict[str, Any]) -> None:
        result["weights_sha256"] = digest(world.file(WEIGHTS).read_bytes())

    save_file({"hidden.weight": load_file(world.file(WEIGHTS))["hidden.weight"]}, world.file(WEIGHTS))
    forge(world, forget)
    [verdict] = world.verify(suite)
    assert verdict.standing == "unverified"
    assert verdict.why.startswith("config: the stored weights are not those of this model: ")
    assert "hidden.bias" in verdict.why
    assert "recount" in verdict.traceback


def test_a_task_that_solves_itself_is_solved_again(world: World, tmp_path: Path) -> None:
    file = tmp_path / "coins.toml"
    file.write_text(COINS)
    world.run(file)
    [verdict] = world.verify(file)
    assert verdict.standing == "reproduced"
    assert {one.name: str(one) for one in verdict.comparisons} == {"right": "equal", "right-parts/draws": "equal"}


def test_cells_of_guests_and_of_overridden_suites_are_verified(world: World, write_suite: WriteSuite) -> None:
    file = write_suite("tiny", trials=0, seeds=1)
    overrides = ["budget.epochs=1"]
    world.run(file, models=["tiny[width=4]"], overrides=overrides)
    assert world.verify(file) == []
    [verdict] = world.verify(file, overrides=overrides)
    assert (str(verdict.cell), verdict.standing) == ("blobs/tiny[width=4]/blobs/0", "recomputed")


@pytest.mark.slow
def test_a_suite_is_verified_while_it_runs(world: World, write_suite: WriteSuite, tmp_path: Path) -> None:
    file = write_suite("tiny", "searching", trials=1, seeds=2)
    whitebench = Path(sys.executable).with_name("whitebench")
    command = [str(whitebench), "run", str(file), "--plugin", *map(str, world.plugins)]
    verdicts: list[Verdict] = []
    seen = 0
    with subprocess.Popen([*command, "--store", world.store.tracking.uri], cwd=tmp_path) as running:
        while running.poll() is None:
            finished = sum(one.state == "finished" for one in world.store.cells("blobs", ""))
            if finished > seen:  # there is something new to be verified
                seen, verdicts = finished, [*verdicts, *world.verify(file)]
            time.sleep(0.1)
    assert running.returncode == 0
    verdicts += world.verify(file)
    assert len(verdicts) >= 4
    assert {one.standing for one in verdicts} == {"recomputed"}
    assert [one.state for one in world.ledger(file).records] == ["finished"] * 4
    assert {run.tags[Tag.STATE] for run in world.store.tracking.runs("blobs", {})} == {"finished"}


def typed(world: World, *words: str, code: int = 0) -> str:
    """Return what a command prints that is given to the command line here, where the server of fits is warm."""
    given = ("--store", world.store.tracking.uri, *(word for path in world.plugins for word in ("--plugin", str(path))))
    done = CliRunner().invoke(cli.cli, [*words, *given], standalone_mode=False)
    assert (done.return_value or 0) == code, done.output
    return done.output if done.exception is None else str(done.exception)


def test_verify_prints_each_score_and_its_exit_code_says_whether_all_agree(world: World, suite: Path) -> None:
    cell = f"{suite}/tiny/blobs/0"
    first, *lines = typed(world, "verify", cell).splitlines()
    assert first == "blobs/tiny/blobs/0: recomputed: 8 of 8 scores agree"
    assert [line.split()[0] for line in lines[1:-1]] == [
        "error", "accuracy", "depths", "depths-null", "depths-missing", "error/means", "parameters", "macs",
    ]  # fmt: skip
    assert lines[-1].startswith("verified: recomputed from stored predictions and weights, ")
    assert typed(world, "verify", str(suite), "--retrain").splitlines()[-1] == "1 cell: 1 reproduced"
    assert json.loads(typed(world, "show", cell, "--json"))["verification"]["standing"] == "reproduced"
    world.file(PREDICTIONS).write_bytes(b"nonsense")
    first, second, last = typed(world, "verify", str(suite), code=1).splitlines()
    assert (first, last) == ("blobs/tiny/blobs/0: differs", "1 cell: 1 differs")
    assert second.startswith(f"  {PREDICTIONS} of run ")
    [told] = json.loads(typed(world, "verify", cell, "--json", code=1))["cells"]
    assert (told["standing"], told["scores"]) == ("differs", [])


def test_a_cell_that_is_not_finished_or_unknown_is_refused_with_what_to_do(
    world: World, write_suite: WriteSuite, tmp_path: Path
) -> None:
    suite = write_suite("tiny", trials=0, seeds=2)
    assert "has no finished cell: `whitebench status " in typed(world, "verify", str(suite))
    assert f"{suite}/tiny/blobs/1 is not finished: `whitebench show " in typed(world, "verify", f"{suite}/tiny/blobs/1")
    assert "unknown cell " in typed(world, "verify", f"{suite}/tinny/blobs/1")
    done = CliRunner().invoke(
        cli.cli, ["verify", "smoke", "--store", f"sqlite:///{tmp_path}/nowhere.db"], standalone_mode=False
    )
    assert "smoke has no results, for there is no store at " in str(done.exception)
    assert not (tmp_path / "nowhere.db").exists()

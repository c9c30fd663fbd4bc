"""How much one cell differs from itself."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from whitebench import cli
from whitebench.address import home_of
from whitebench.audit import Audit
from whitebench.budget import Budget
from whitebench.catalog import Catalog
from whitebench.conductor import Conductor
from whitebench.fit import FitPlan
from whitebench.gauge import calibrate, settings_of
from whitebench.launch import Launcher, RunningFit
from whitebench.ledger import ledger_of, select
from whitebench.store import Store
from whitebench.suite import load_suite
from whitebench.tags import Tag

WriteSuite = Callable[..., Path]
NewStore = Callable[[Path], Store]


def names(cores: int, *, is_solved: bool = False, **changes: Any) -> list[str]:
    budget = dataclasses.replace(Budget(epochs=1, batch_size=1, trials=0), **changes)
    return [one.name for one in settings_of(budget, cores, is_solved=is_solved)]


def test_the_settings_are_one_two_and_all_threads_and_the_other_precision_but_not_the_suites_own() -> None:
    assert names(8) == ["threads=2", "threads=8", "precision=bf16-mixed"]
    assert names(8, threads=2) == ["threads=1", "threads=8", "precision=bf16-mixed"]
    assert names(2, precision="bf16-mixed") == ["threads=2", "precision=32"]
    assert names(1) == ["precision=bf16-mixed"]


def test_a_task_that_solves_itself_has_no_other_precision() -> None:
    assert names(2, is_solved=True) == ["threads=2"]


def test_a_suite_is_calibrated_and_its_board_can_read_the_noise_floor(
    write_suite: WriteSuite, plugin: Path, tmp_path: Path, catalog: Catalog, launcher: Launcher, new_store: NewStore
) -> None:
    suite, store = str(write_suite("tiny", trials=0, seeds=1)), new_store(tmp_path / "store")
    uri = store.tracking.uri

    def typed(*words: str) -> str:
        """Return what the command prints here, where the server of fits is warm."""
        words = ("calibrate", suite, "--plugin", str(plugin), "--store", uri, *words)
        done = CliRunner().invoke(cli.cli, words, standalone_mode=False)
        return done.output if done.exception is None else str(done.exception)

    assert "has no finished cell that could be repeated: `whitebench run " in typed()
    whole, cells = select(load_suite(suite), catalog)
    conductor = Conductor(
        suite=whole, catalog=catalog, store=store, launcher=launcher, home=home_of(uri), plugins=[plugin], overrides=(),
        parallel=1, tell=lambda _: None,
    )  # fmt: skip
    conductor.run(ledger_of(whole, catalog, store), cells)
    before = ledger_of(whole, catalog, store)
    assert before.noise_floor == {}
    found = json.loads(typed("--json"))
    settings = [one["setting"] for one in found["repetitions"]]
    assert settings[:3] == ["", "", ""]  # the stored result, and two repetitions
    assert settings[-2:] == ["precision=bf16-mixed", "devices=2"]
    assert found["at_equal_settings"] == {"error": 0.0, "accuracy": 0.0}
    after = ledger_of(whole, catalog, store)
    assert after.noise_floor == found["across_settings"]
    assert after.records == before.records
    [run] = store.tracking.runs("blobs/tuning", {})
    assert (run.run_id, run.tags[Tag.KIND], run.is_open) == (found["run_id"], "calibration", False)
    assert not list((home_of(uri) / ".whitebench" / "fits").iterdir())
    printed = typed("--repeats", "1")
    assert printed.startswith("blobs/tiny/blobs/0, as the suite says: done\n")
    assert "blobs/tiny/blobs/0, precision=bf16-mixed: done\n" in printed
    assert "The noise floor of blobs is kept as MLflow run " in printed
    assert "unknown contestant of suite blobs 'tinny', did you mean 'tiny'" in typed("-m", "tinny")


def test_a_setting_in_which_the_cell_fails_is_left_out_and_said(
    write_suite: WriteSuite, plugin: Path, tmp_path: Path, catalog: Catalog, launcher: Launcher, new_store: NewStore
) -> None:
    store, told = new_store(tmp_path / "store"), list[tuple[str, str]]()
    whole, cells = select(load_suite(str(write_suite("tiny", trials=0, seeds=1))), catalog)
    conductor = Conductor(
        suite=whole, catalog=catalog, store=store, launcher=launcher, home=tmp_path, plugins=[plugin], overrides=(),
        parallel=1, tell=lambda _: None,
    )  # fmt: skip
    conductor.run(ledger_of(whole, catalog, store), cells)
    audit = Audit(whole, catalog, store, overrides=(), plugins=[plugin], work=tmp_path, is_repeated=True)
    [exhibit] = audit.exhibits()

    class Clumsy(Launcher):
        """Fails every fit in another precision."""

        def start(self, plan: FitPlan) -> RunningFit:
            broken = dataclasses.replace(plan.contestant, model="faulty[how=raise]")
            return super().start(
                plan if plan.budget.precision == "32" else dataclasses.replace(plan, contestant=broken)
            )

    found = calibrate(
        whole, catalog, store, Clumsy(threads=1), exhibit, plugins=[plugin], work=tmp_path, cores=1, repeats=1,
        tell=lambda setting, why: told.append((setting, why)),
    )  # fmt: skip
    assert [one.setting for one in found.repetitions] == ["", "", "devices=2"]
    assert [setting for setting, why in told if not why] == ["", "devices=2"]
    assert told[1][0] == "precision=bf16-mixed"
    assert told[1][1].startswith("error: RuntimeError: the model broke")

"""What cannot be run is said before anything is: each contestant is built on each task it is to take."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from whitebench.catalog import load_catalog
from whitebench.errors import SuiteError
from whitebench.feasibility import impossible, reasons, refuse_impossible
from whitebench.fit import FitPlan
from whitebench.launch import Launcher
from whitebench.ledger import PlannedCell, ledger_of, plan_cells
from whitebench.result import Failure, FailureKind
from whitebench.suite import Suite, load_suite

MakePlan = Callable[..., FitPlan]

PLUGIN = """
import os, signal, time
from dataclasses import replace, dataclass
import torch
from torch import nn
from whitebench import MetricSpec, ModelSpec, ObjectiveSpec, Samples, TaskSpec, WhitebenchError, hookimpl


@dataclass(frozen=True, kw_only=True)
class Fault:
    how: str = "none"


@dataclass(frozen=True, kw_only=True)
class Nothing:
    pass


class Model(nn.Sequential):
    def __init__(self, config, shape, classes):
        self.how = config.how
        if self.how == "raise":
            raise RuntimeError("sizes do not match")
        if self.how == "config":
            raise WhitebenchError("patches of 3 do not fit")
        if self.how == "exit":
            raise SystemExit(3)
        if self.how == "square" and shape[1] != shape[2]:
            raise WhitebenchError("only squares")
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "hang":
            time.sleep(600)
        super().__init__(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], classes))

    def forward(self, x):
        print("noise")
        logits = super().forward(x)
        return logits[:, :1] if self.how == "one" else logits


class Loss(nn.Module):
    def __init__(self, config, classes, width):
        super().__init__()
        raise RuntimeError("no loss for so many classes")


@hookimpl
def register_models():
    return [ModelSpec(name="model", summary="", config=Fault, build=Model, head="1")]


def task(name, shape):
    return TaskSpec(name=name, version=1, summary="", shape=shape, classes=3, config=Nothing,
                    data=lambda config, split: Samples(inputs=torch.zeros(3, *shape), labels=torch.arange(3)))


@hookimpl
def register_tasks():
    return [task("square", (1, 2, 2)), task("wide", (1, 2, 4))]


@hookimpl
def register_objectives():
    return [ObjectiveSpec(name="broken", version=1, summary="", needs=("logits", "targets"), build=Loss)]
"""

SUITE = """
name = "sizes"
version = 1
summary = "Sizes."
primary = "accuracy"
tasks = {tasks}
seeds = 2
metrics = ["accuracy"]
[budget]
epochs = 1
batch_size = 3
trials = 0
[recipes.plain]
learning_rate = {{ value = 0.01 }}
{contestants}
"""

World = tuple[Suite, list[PlannedCell], Path]


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., World]:
    """Return a function that plans a suite of contestants, each a fault, on some tasks."""
    plugin = tmp_path / "sizes.py"
    plugin.write_text(PLUGIN, encoding="utf-8")

    def make(*faults: str, tasks: str = '["square"]', more: str = "") -> World:
        contestants = "".join(f'[[contestants]]\nlabel = "{how}"\nmodel = "model[how={how}]"\n{more}' for how in faults)
        file = tmp_path / "sizes.toml"
        file.write_text(SUITE.format(tasks=tasks, contestants=contestants), encoding="utf-8")
        suite = load_suite(str(file))
        return suite, plan_cells(suite, load_catalog([plugin])), plugin

    return make


def ask(world: World, launcher: Launcher) -> dict[tuple[str, str], Failure | None]:
    suite, cells, plugin = world
    return reasons(suite, cells, launcher=launcher, plugins=[plugin], at_a_time=2)


def test_each_pair_is_tried_once_and_what_is_raised_is_the_reason(
    plan: Callable[..., World], launcher: Launcher
) -> None:
    found = ask(plan("none", "raise", "config", "one", "exit"), launcher)
    assert list(found) == [(how, "square") for how in ("none", "raise", "config", "one", "exit")]
    said = {how: why.message if why else None for (how, _), why in found.items()}
    assert said["none"] is None
    assert str(said["raise"]).startswith("RuntimeError: sizes do not match (")
    line = PLUGIN[: PLUGIN.index("raise RuntimeError")].count("\n") + 1
    assert f"sizes.py:{line} in __init__" in str(said["raise"])
    assert said["config"] == "model model[how=config] on task square: patches of 3 do not fit"
    assert "for 2 samples its forward gave (2, 1); it must return logits (2, 3)" in str(said["one"])
    assert said["exit"] == "the fit called sys.exit(3)"
    assert all("Traceback" in why.traceback for why in found.values() if why)


def test_an_objective_that_cannot_be_built_is_a_reason_too(plan: Callable[..., World], launcher: Launcher) -> None:
    found = ask(plan("none", more='objective = "broken"\n'), launcher)[("none", "square")]
    assert found is not None
    assert "no loss for so many classes" in found.message


def test_a_model_that_kills_its_process_is_left_to_its_fit(plan: Callable[..., World], launcher: Launcher) -> None:
    assert ask(plan("kill", "none"), launcher) == {("kill", "square"): None, ("none", "square"): None}


def sleep(plan: FitPlan) -> None:
    time.sleep(600)


def leave(plan: FitPlan) -> None:
    os._exit(7)


def test_a_question_that_hangs_or_leaves_has_no_answer_and_its_process_is_ended(
    launcher: Launcher, make_plan: MakePlan
) -> None:
    started = time.monotonic()
    assert launcher.ask(sleep, [make_plan()], seconds=1.0) == [None]
    assert launcher.ask(leave, [make_plan()] * 3, seconds=60.0, at_a_time=2) == [None] * 3
    assert launcher.ask(leave, [], seconds=60.0) == []
    assert time.monotonic() - started < 60


def failure(message: str) -> Failure:
    return Failure(kind=FailureKind.CONFIG, message=message, traceback="", log="")


def test_only_who_fits_no_task_at_all_is_impossible() -> None:
    a, b = failure("a"), failure("b")
    assert impossible({("x", "1"): a, ("x", "2"): b, ("y", "1"): a, ("y", "2"): None, ("z", "1"): None}) == {
        "x": {"1": a, "2": b}
    }
    assert impossible({}) == {}


def refuse(world: World, launcher: Launcher, *, finished: Sequence[str] = ()) -> None:
    suite, cells, plugin = world
    ledger = ledger_of(suite, load_catalog([plugin]), None)
    if finished:
        done = [replace(one, state="finished") if one.cell.task in finished else one for one in ledger.records]
        ledger = replace(ledger, records=tuple(done))
    refuse_impossible(suite, cells, ledger, launcher=launcher, plugins=[plugin], at_a_time=2)


def test_a_contestant_that_fits_no_task_refuses_the_run_by_name_task_and_reason(
    plan: Callable[..., World], launcher: Launcher, tmp_path: Path
) -> None:
    world = plan("none", "config", tasks='["square", "wide"]')
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SuiteError) as refused:
        refuse(world, launcher)
    assert str(refused.value) == (
        "suite sizes: contestant config fits none of the tasks to be run: square: patches of 3 do not fit, "
        "wide: patches of 3 do not fit. Change it or leave it out; nothing was started"
    )
    assert all("patches of 3 do not fit" in note for note in refused.value.__notes__)
    assert sorted(tmp_path.rglob("*")) == before


def test_one_that_fits_some_tasks_is_let_through(
    plan: Callable[..., World], launcher: Launcher, tmp_path: Path
) -> None:
    refuse(plan("square", tasks='["square", "wide"]'), launcher)
    refuse(plan("square", tasks='["square", "wide"]'), launcher, finished=["square"])  # a run that goes on
    with pytest.raises(SuiteError, match="contestant square fits none of the tasks to be run: wide: only squares"):
        refuse(plan("square", tasks='["wide"]'), launcher)

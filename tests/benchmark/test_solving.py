"""A task that solves itself: one block of draws for each cell, by what the contestant's model builds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from whitebench.catalog import Catalog
from whitebench.errors import SuiteError, TaskDataError, WhitebenchError
from whitebench.feasibility import refuse_impossible
from whitebench.fit import PICTURES, PREDICTIONS, WEIGHTS, FitPlan, Fitted
from whitebench.fitting import run_fit
from whitebench.gallery import load_pictures
from whitebench.identity import identify
from whitebench.launch import Launcher
from whitebench.ledger import ledger_of, plan_cells
from whitebench.suite import Contestant, Suite, load_suite
from whitebench.vetting import vet

MakePlan = Callable[..., FitPlan]

SUITE = """
name = "coins"
version = 1
summary = "Coins."
primary = "right"
tasks = ["coins"]
seeds = 2
metrics = ["right", "right-parts"]

[[contestants]]
label = "half"
model = "guesser[rate=0.5]"
"""


def plan_of(make_plan: MakePlan, model: str = "guesser[rate=0.5]", **changes: Any) -> FitPlan:
    known = {"task": "coins", "primary": "right", "metrics": ("right", "right-parts", "error"), "recipe": None}
    plan = make_plan(model, **{key: one for key, one in {**known, **changes}.items() if key != "recipe"})
    return dataclasses.replace(plan, recipe=None, hyperparameters={})


def solved(plan: FitPlan, catalog: Catalog) -> Fitted:
    def hear(message: object) -> Any:
        raise AssertionError(f"there is nothing to ask for, but it said {message}")

    outcome = run_fit(plan, catalog, hear)
    assert isinstance(outcome, Fitted)
    return outcome


def draws_of(block: int) -> torch.Tensor:
    return torch.rand(10, generator=torch.Generator().manual_seed(block))


@pytest.mark.parametrize("block", [0, 3])
def test_a_cell_scores_what_its_task_yields_for_its_block(make_plan: MakePlan, catalog: Catalog, block: int) -> None:
    plan = plan_of(make_plan, seed=block)
    outcome = solved(plan, catalog)
    scores = {one.name: one for one in outcome.scores}
    taken = (draws_of(block) < 0.5).double()
    assert scores["right"].value == taken.mean().item()
    assert (scores["right"].unit, scores["right"].direction) == ("share", "higher")
    assert (scores["right-parts/draws"].value, scores["right-parts/draws"].direction) == (10.0, "none")
    assert scores["error"].unscored == "task coins solves itself, and yields no error"
    assert (outcome.test_samples, outcome.reported_epoch, outcome.validation) == (10, 0, None)
    assert {one.name for one in outcome.costs} == {"solving-time", "peak-memory"}


def test_every_draw_is_kept_and_what_is_to_be_drawn_of_them(make_plan: MakePlan, catalog: Catalog) -> None:
    plan = plan_of(make_plan)
    solved(plan, catalog)
    kept = load_file(plan.folder / PREDICTIONS)
    assert set(kept) == {"index", "primary", "draws/right", "draws/draws"}
    assert torch.equal(kept["primary"], (draws_of(0) < 0.5).double())
    assert torch.equal(kept["draws/draws"], draws_of(0).double())
    assert list(load_pictures(plan.folder / PICTURES)) == ["right/draws"]
    assert not (plan.folder / WEIGHTS).exists()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("text", "task 'coins': solve returned a str; it must return a Solution"),
        ("short", r"task 'coins': 'right' per sample is \(9,\); it must be one number a draw, \(10,\)"),
        ("number", "task 'coins': its score 'right' is a float; it must be a Reading"),
    ],
)
def test_what_is_no_solution_is_said(make_plan: MakePlan, catalog: Catalog, how: str, message: str) -> None:
    with pytest.raises(TaskDataError, match=message):
        solved(plan_of(make_plan, task=f"coins[how={how}]"), catalog)


@pytest.mark.parametrize(
    ("how", "why"), [("mute", "task coins solves itself, and yields no right"), ("nan", "the value is nan")]
)
def test_a_score_that_it_does_not_yield_is_unscored(make_plan: MakePlan, catalog: Catalog, how: str, why: str) -> None:
    scores = {one.name: one for one in solved(plan_of(make_plan, task=f"coins[how={how}]"), catalog).scores}
    assert (scores["right"].value, scores["right"].unscored) == (None, why)
    assert scores["right-parts/draws"].value == 10.0


def test_a_contestant_without_the_method_is_told(make_plan: MakePlan, catalog: Catalog) -> None:
    message = "model silent on task coins: it has no method guess, which the task asks of its contestants"
    with pytest.raises(WhitebenchError, match=message):
        solved(plan_of(make_plan, "silent"), catalog)


def suite_of(tmp_path: Path, text: str = SUITE) -> Suite:
    (tmp_path / "coins.toml").write_text(text, encoding="utf-8")
    return load_suite(str(tmp_path / "coins.toml"))


def test_a_contestant_without_the_method_refuses_the_run(
    tmp_path: Path, catalog: Catalog, launcher: Launcher, plugin: Path
) -> None:
    suite = suite_of(tmp_path, f'{SUITE}\n[[contestants]]\nmodel = "silent"\n')
    cells = plan_cells(suite, catalog)
    with pytest.raises(SuiteError, match=r"contestant silent fits none .* coins: it has no method guess"):
        refuse_impossible(
            suite, cells, ledger_of(suite, catalog, None), launcher=launcher, plugins=[plugin], at_a_time=1
        )


def test_a_metric_of_predictions_and_one_that_tasks_yield_stay_apart(make_plan: MakePlan, catalog: Catalog) -> None:
    outcome = run_fit(make_plan(metrics=("error", "right")), catalog, lambda _: "go")
    assert isinstance(outcome, Fitted)
    [right] = [one for one in outcome.scores if one.name == "right"]
    assert right.unscored == "this task does not solve itself: it is learnt, and yields no solution"


DIFFERENT: dict[str, tuple[str, str]] = {
    "a model's option": ("rate=0.5", "rate=0.4"),
    "a task's option": ('["coins"]', '["coins[mark=x]"]'),
    "metrics": ('["right", "right-parts"]', '["right"]'),
    "threads": ("seeds = 2\n", "seeds = 2\nbudget = { epochs = 0, batch_size = 1, trials = 0, threads = 2 }\n"),
}
ALIKE: dict[str, tuple[str, str]] = {
    "label": ('label = "half"', 'label = "other"'),
    "batch size": ("seeds = 2\n", "seeds = 2\nbudget = { epochs = 0, batch_size = 64, trials = 0 }\n"),
    "tuning": ("[[contestants]]", "[tuning]\nseed = 9\n[[contestants]]"),
    "limits": ("[[contestants]]", "[limits]\nfit_minutes = 1.0\n[[contestants]]"),
}


@pytest.mark.parametrize("change", DIFFERENT.values(), ids=DIFFERENT)
def test_what_can_change_its_numbers_changes_its_identity(
    tmp_path: Path, catalog: Catalog, change: tuple[str, str]
) -> None:
    assert digest(suite_of(tmp_path, SUITE.replace(*change)), catalog) != digest(suite_of(tmp_path), catalog)


@pytest.mark.parametrize("change", ALIKE.values(), ids=ALIKE)
def test_what_belongs_to_training_does_not(tmp_path: Path, catalog: Catalog, change: tuple[str, str]) -> None:
    assert SUITE.replace(*change) != SUITE
    assert digest(suite_of(tmp_path, SUITE.replace(*change)), catalog) == digest(suite_of(tmp_path), catalog)


def test_each_block_is_a_cell_of_its_own(tmp_path: Path, catalog: Catalog) -> None:
    cells = plan_cells(suite_of(tmp_path), catalog)
    assert [cell.name.seed for cell in cells] == [0, 1]
    assert cells[0].identity.digest != cells[1].identity.digest


def digest(suite: Suite, catalog: Catalog) -> str:
    return identify(suite, suite.contestants[0], suite.tasks[0], 0, catalog).digest


def test_a_suite_ranks_by_what_its_tasks_yield(tmp_path: Path, catalog: Catalog) -> None:
    vet(suite_of(tmp_path), catalog)
    wrong = dataclasses.replace(suite_of(tmp_path), primary="error", metrics=("error",))
    with pytest.raises(SuiteError, match="primary 'error' cannot rank: task coins solves itself, and has no logits"):
        vet(wrong, catalog)


def test_a_guest_joins_without_a_recipe(tmp_path: Path, catalog: Catalog) -> None:
    suite = dataclasses.replace(suite_of(tmp_path), guests=(Contestant(model="guesser[rate=0.9]"),))
    assert len(plan_cells(suite, catalog)) == 4

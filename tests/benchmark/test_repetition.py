"""Fits beside any conductor."""

from __future__ import annotations

import dataclasses
import multiprocessing
from collections.abc import Callable, Iterator

import pytest

from whitebench.fit import FitPlan, Fitted
from whitebench.launch import Launcher
from whitebench.repetition import outcomes
from whitebench.result import Failure

MakePlan = Callable[..., FitPlan]


@pytest.mark.parametrize("parallel", [1, 3])
def test_every_plan_ends_in_an_outcome_whatever_becomes_of_another(
    make_plan: MakePlan, launcher: Launcher, parallel: int
) -> None:
    hows = ["none", "raise", "kill"]
    plans = [make_plan(f"faulty[how={how}]", how, name=how) for how in hows]
    found = {plan.name: outcome for plan, outcome in outcomes(launcher, plans, parallel=parallel)}
    assert {name: type(outcome) for name, outcome in found.items()} == {
        "none": Fitted, "raise": Failure, "kill": Failure,
    }  # fmt: skip


def test_a_fit_that_takes_too_long_is_ended(make_plan: MakePlan, launcher: Launcher) -> None:
    plan = make_plan("faulty[how=hang]")
    limits = dataclasses.replace(plan.limits, fit_minutes=0.05)
    [(_, outcome)] = outcomes(launcher, [dataclasses.replace(plan, limits=limits)])
    assert isinstance(outcome, Failure)
    assert outcome.kind == "timeout"


def test_a_plan_is_asked_for_only_when_there_is_room_for_its_fit(make_plan: MakePlan, launcher: Launcher) -> None:
    asked: list[str] = []

    def plans() -> Iterator[FitPlan]:
        for name in ("one", "two", "three"):
            asked.append(name)
            yield make_plan(folder=name, name=name)

    seen = [list(asked) for _ in outcomes(launcher, plans())]
    assert [len(one) for one in seen] == [1, 2, 3]


def test_nothing_at_all_ends_at_once(launcher: Launcher) -> None:
    assert list(outcomes(launcher, [])) == []


def test_fits_under_way_are_ended_where_nobody_listens_any_more(make_plan: MakePlan, launcher: Launcher) -> None:
    plans = [make_plan(folder="quick", name="quick"), make_plan("faulty[how=hang]", "slow", name="slow")]
    listening = outcomes(launcher, plans, parallel=2)
    assert next(listening)[0].name == "quick"
    listening.close()
    assert "slow" not in {process.name for process in multiprocessing.active_children()}

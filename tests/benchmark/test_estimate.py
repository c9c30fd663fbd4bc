"""What the rest of a suite takes: told from a few real steps, added up by hand here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Type
from whitebench import report
from whitebench.catalog import Catalog
from whitebench.estimate import Estimate, Share, estimate
from whitebench.launch import Launcher
from whitebench.ledger import plan_cells
from whitebench.suite import load_suite

WriteSuite = Callable[..., Path]


def share(**changes: Any) -> Share:
    known = {"contestant": "tiny", "task": "blobs", "trials": 3, "cells": 2, "trial_seconds": 10.0,
             "cell_seconds": 20.0, "memory": 5 * 2**20}  # fmt: skip
    return Share(**{**known, **changes})


def costs(*shares: Share, parallel: int = 2, is_pruned: bool = False) -> Estimate:
    return Estimate(shares=shares, parallel=parallel, is_pruned=is_pruned)


LOST = share(contestant="lost", trial_seconds=None, cell_seconds=None, memory=None, reason="oom: it did not fit")


def test_every_trial_and_every_cell_counts_once() -> None:
    assert share().seconds == 3 * 10 + 2 * 20
    cost = costs(share(), share(trials=0, cells=1, memory=7 * 2**20))
    assert (cost.fits, cost.seconds) == (6, 90.0)


def test_fits_at_a_time_share_the_hours_and_add_up_their_memory() -> None:
    cost = costs(share(), share(trials=0, cells=1, memory=7 * 2**20))
    assert cost.wall_seconds == 45.0
    assert cost.memory == 12 * 2**20
    assert costs(share(trials=0, cells=1), parallel=8).memory == 5 * 2**20  # there is one fit


def test_no_number_of_fits_at_a_time_makes_a_cell_start_before_its_trials_have_ended() -> None:
    assert costs(share(), parallel=100).wall_seconds == 30.0


def test_what_could_not_be_timed_is_left_out_of_the_sums_and_says_why() -> None:
    cost = costs(share(), LOST)
    assert (cost.fits, cost.seconds) == (5, 70.0)
    lost, whole = report.estimate_lines(cost)
    assert lost == "lost/blobs could not be timed, and is not counted: oom: it did not fit"
    assert whole == "In all 5 fits: 0.0194 device-hours; about 35 s with 2 at a time, which take up to 10 MiB"


def test_where_trials_may_be_pruned_it_is_an_upper_bound() -> None:
    [line] = report.estimate_lines(costs(share(), is_pruned=True))
    assert line == (
        "In all 5 fits: at most 0.0194 device-hours, fewer where trials are pruned; at most 35 s with 2 at a time, "
        "which take up to 10 MiB"
    )


SLOW = """
import time
from dataclasses import dataclass
import torch
from torch import nn
from whitebench import ModelSpec, Samples, TaskSpec, WhitebenchError, hookimpl


@dataclass(frozen=True, kw_only=True)
class Wait:
    step: float = 0.0
    how: str = "none"


class Slow(nn.Sequential):
    def __init__(self, config, shape, classes):
        if config.how == "raise":
            raise WhitebenchError("a width of 7 cannot be had")
        super().__init__(nn.Flatten(), nn.Linear(4, classes))
        self.wait = config.step

    def forward(self, x):
        if self.training:
            time.sleep(self.wait)
        return super().forward(x)


def data(config, split):
    if split == "test":
        raise RuntimeError("the test split is not to be opened")
    size = {"train": 640, "validation": 32}[split]
    return Samples(inputs=torch.randn(size, 1, 2, 2), labels=torch.arange(size) % 3)


@hookimpl
def register_models():
    return [ModelSpec(name="slow", summary="", config=Wait, build=Slow, head="1")]


@hookimpl
def register_tasks():
    return [TaskSpec(name="sealed", version=1, summary="", shape=(1, 2, 2), classes=3, data=data, config=Wait)]
"""


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    file = tmp_path / "slow.py"
    file.write_text(SLOW, encoding="utf-8")
    return file


def sealed(suite: Path) -> Path:
    suite.write_text(suite.read_text(encoding="utf-8").replace('["blobs"]', '["sealed"]'), encoding="utf-8")
    return suite


@pytest.mark.slow
def test_the_steps_of_a_whole_fit_are_told_from_ten_and_the_test_split_stays_closed(
    write_suite: WriteSuite, plugin: Path, slow: Path, launcher: Launcher, tmp_path: Path
) -> None:
    from whitebench.catalog import load_catalog

    suite = load_suite(str(sealed(write_suite("slow[step=0.02]", "slow[how=raise]", epochs=3))))
    catalog = load_catalog([plugin, slow])
    cost = estimate(
        suite,
        plan_cells(suite, catalog),
        {"slow[step=0.02]/sealed": 2},
        launcher=launcher,
        plugins=[plugin, slow],
        parallel=1,
    )
    slowly, never = cost.shares
    assert (slowly.trials, slowly.cells, slowly.reason) == (2, 2, "")
    assert slowly.trial_seconds is not None
    assert slowly.cell_seconds is not None
    assert slowly.trial_seconds >= 3 * 40 * 0.02  # 3 epochs of 40 batches of 16; sleep may take longer, never less
    assert slowly.cell_seconds > slowly.trial_seconds
    assert slowly.memory is not None
    assert never.reason == "config: model slow[how=raise] on task sealed: a width of 7 cannot be had"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["blobs.toml", "slow.py"]  # nothing is left


@pytest.mark.slow
def test_a_model_that_is_not_trained_is_timed_too(
    write_suite: WriteSuite, plugin: Path, catalog: Catalog, launcher: Launcher
) -> None:
    contestants = '[[contestants]]\nmodel = "tiny"\nepochs = 0'
    suite = load_suite(str(write_suite(contestants=contestants)))
    [asis] = estimate(suite, plan_cells(suite, catalog), {}, launcher=launcher, plugins=[plugin], parallel=1).shares
    assert (asis.trials, asis.cells, asis.reason) == (0, 2, "")
    assert asis.cell_seconds is not None
    assert asis.cell_seconds > 0


COINS = """
name = "coins"
version = 1
summary = "Guessing."
primary = "right"
tasks = ["coins"]
seeds = 2
metrics = ["right"]

[[contestants]]
model = "guesser"
"""


@pytest.mark.slow
def test_a_task_that_solves_itself_is_solved_once_and_nothing_is_trained(
    plugin: Path, catalog: Catalog, launcher: Launcher, tmp_path: Path
) -> None:
    (tmp_path / "coins.toml").write_text(COINS, encoding="utf-8")
    suite = load_suite(str(tmp_path / "coins.toml"))
    [solved] = estimate(suite, plan_cells(suite, catalog), {}, launcher=launcher, plugins=[plugin], parallel=1).shares
    assert (solved.trials, solved.cells, solved.reason) == (0, 2, "")
    assert solved.cell_seconds is not None
    assert solved.cell_seconds > 0


def test_nothing_to_do_takes_nothing(launcher: Launcher, write_suite: WriteSuite) -> None:
    cost = estimate(load_suite(str(write_suite())), [], {}, launcher=launcher, plugins=[], parallel=2)
    assert (cost.fits, cost.seconds, cost.wall_seconds, cost.memory) == (0, 0.0, 0.0, 0)


@pytest.mark.slow
def test_plan_tells_device_hours_and_memory_and_creates_nothing(
    write_suite: WriteSuite, plugin: Path, type_here: Type, tmp_path: Path
) -> None:
    suite = write_suite("tiny", trials=2, seeds=2)
    command = ("whitebench", "plan", str(suite), "--plugin", str(plugin), "--estimate", "--parallel", "1")
    told = type_here(*command)
    assert told.returncode == 0, told.stderr
    assert "In all 4 fits: " in told.stdout
    cost = json.loads(type_here(*command, "--json").stdout)["estimate"]
    assert (cost["fits"], cost["parallel"], cost["is_at_most"]) == (4, 1, False)
    [one] = cost["contestants"]
    assert cost["device_hours"] == pytest.approx((2 * one["trial_seconds"] + 2 * one["cell_seconds"]) / 3600)
    assert [file.name for file in tmp_path.iterdir()] == ["blobs.toml"]

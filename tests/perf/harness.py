"""How fast the harness is, as ratios measured in one run: the first half of `make perf`. It fails nothing.

Each ratio is that of two medians over repeats that take turns, so that what else the machine does meets both.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import pickle
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.perf import bare, conductor
from tests.perf.line import Line, in_turns, print_each
from whitebench.events import EpochEnded
from whitebench.fit import FitPlan, Fitted
from whitebench.launch import Launcher, RunningFit, wait_for
from whitebench.suite import load_suite

REPEATS, FEW = 7, 3
"""Of what takes a second, and of what takes ten."""

EPOCHS = {"crate": 100, "vit": 40}
"""By contestant of `smoke`: some ten seconds each."""


def main() -> None:
    """Measure one line after the other, and print each as soon as it is known."""
    launcher = Launcher(threads=1)
    launcher.warm()
    with tempfile.TemporaryDirectory(prefix="whitebench-perf-") as name:
        folder = Path(name)
        measures = (
            measure_help, measure_start, measure_training, measure_parallel, measure_devices, measure_conductor
        )  # fmt: skip
        print_each(partial(measure, launcher, folder) for measure in measures)
    launcher.close()


def measure_help(_launcher: Launcher, _folder: Path) -> list[Line]:
    """Time `whitebench --help` against a process that imports torch."""
    command = [str(Path(sys.executable).parent / "whitebench"), "--help"]
    ours, torch = in_turns(
        REPEATS,
        lambda: _seconds_of(command),
        lambda: _seconds_of([sys.executable, "-c", "import torch"]),
    )
    return [Line(what="whitebench --help / python -c 'import torch'", aim=0.25, first=ours, second=torch)]


def measure_start(launcher: Launcher, folder: Path) -> list[Line]:
    """Time a fit until it says something, from the warm server and from a fresh process."""
    plan = plan_of("start", folder, label="crate", epochs=1)
    warm, fresh = in_turns(
        FEW + 2,
        lambda: _first_words(launcher, _cleared(plan)),
        lambda: _alone_in(FRESH, _cleared(plan)),
    )
    what = "a fit's first epoch told, from the warm server / from a fresh process"
    return [Line(what=what, aim=0.25, first=warm, second=fresh)]


def measure_training(_launcher: Launcher, folder: Path) -> list[Line]:
    """Time fits by the harness against the same training as a bare loop, and see that it is the same."""
    return [line for label in EPOCHS for line in _against_a_loop(label, folder)]


def _against_a_loop(label: str, folder: Path) -> list[Line]:
    plans = [plan_of(f"{label}-{how}", folder, label=label, epochs=EPOCHS[label]) for how in ("harness", "bare")]
    pairs = [
        (_forked(bare.by_harness, _cleared(plans[0])), _forked(bare.by_hand, _cleared(plans[1]))) for _ in range(FEW)
    ]
    ours, theirs = zip(*pairs, strict=True)
    apart = bare.difference(plans[0].folder, plans[1].folder)
    cpu = statistics.median(one.cpu for one in ours) / statistics.median(one.cpu for one in theirs)
    whole = (
        f"{label}, the harness / a bare loop: a fit of {EPOCHS[label]} epochs with validation, ours with checkpoints"
    )
    return [
        Line(
            what=f"{label}, the harness / a bare loop: an epoch's training",
            aim=1.05,
            first=[one.epoch for one in ours],
            second=[one.epoch for one in theirs],
            note="; the same weights bit for bit" if apart == 0 else f"; weights differ by up to {apart:.1e}",
        ),
        Line(
            what=whole,
            aim=1.05,
            first=[one.whole for one in ours],
            second=[one.whole for one in theirs],
            note=f"; in CPU time {cpu:.3f}",
        ),
    ]


def measure_parallel(launcher: Launcher, folder: Path) -> list[Line]:
    """Time two fits one after the other against two at a time."""
    plans = [plan_of(f"parallel-{number}", folder, label="vit", epochs=15) for number in range(2)]
    apart, together = in_turns(
        FEW,
        lambda: _whole(launcher, plans, at_a_time=1),
        lambda: _whole(launcher, plans, at_a_time=2),
    )
    return [
        Line(what="two fits one after the other / two at a time", aim=1.8, is_least=True, first=apart, second=together)
    ]


def measure_devices(launcher: Launcher, folder: Path) -> list[Line]:
    """Time one fit on one processor and on two, whole and by an epoch's training."""
    plans = [
        dataclasses.replace(plan_of(f"devices-{number}", folder, label="vit", epochs=15), devices=number)
        for number in (1, 2)
    ]
    seconds: dict[int, list[float]] = {1: [], 2: []}
    one, two = in_turns(
        FEW, *(partial(_whole, launcher, [plan], at_a_time=1, seconds=seconds[plan.devices]) for plan in plans)
    )
    return [
        Line(what="a fit's training on one device / on two (processes on the processor, vit of smoke): an epoch",
             aim=1.5, is_least=True, first=seconds[1], second=seconds[2]),
        Line(what="the same: the whole fit, with the start of two processes", aim=None, first=one, second=two),
    ]  # fmt: skip


def measure_conductor(_launcher: Launcher, folder: Path) -> list[Line]:
    """Run `smoke` once and see what its conductor takes of it."""
    home = folder / "suite"
    home.mkdir()
    share = conductor.share_of(["smoke", "--parallel", "2"], home, "smoke")
    what = "whitebench run smoke --parallel 2, first fit to end:"
    return [
        Line(what=f"{what} the conductor's CPU time / wall time", aim=0.05,
             first=[share.cpu_seconds], second=[share.seconds]),
        Line(what=f"{what} wall time in which no fit computed / wall time", aim=0.05,
             first=[share.idle_seconds], second=[share.seconds],
             note=f"; {share.at_work:.2f} fits computing on average"),
    ]  # fmt: skip


def plan_of(name: str, folder: Path, *, label: str, epochs: int) -> FitPlan:
    """Return the plan of a trial as `smoke` would run it at the stated hyperparameters, but for `epochs`."""
    suite = load_suite("smoke")
    contestant = next(one for one in suite.contestants if one.label == label)
    recipe = suite.recipes[contestant.recipe]
    return FitPlan(
        name=f"perf/{name}/digits/0",
        purpose="trial",
        contestant=contestant,
        task="digits",
        primary=suite.primary,
        metrics=(),
        budget=dataclasses.replace(suite.budget, epochs=epochs, trials=0),
        recipe=recipe,
        hyperparameters=recipe.stated,
        seed=0,
        plugins=(),
        folder=folder / name,
    )


FRESH = """
import sys, pickle, pathlib
from whitebench.catalog import load_catalog
from whitebench.fitting import run_fit
plan = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())
import torch
torch.set_num_threads(plan.budget.threads)
run_fit(plan, load_catalog(), lambda message: sys.exit())
"""
"""A fit without a server, which ends when it has something to say."""


def _alone_in(program: str, plan: FitPlan) -> float:
    file = plan.folder / "plan.pickle"
    file.write_bytes(pickle.dumps(plan))
    return _seconds_of([sys.executable, "-c", program, str(file)])


def _seconds_of(command: Sequence[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def _first_words(launcher: Launcher, plan: FitPlan) -> float:
    began = time.perf_counter()
    fit = launcher.start(plan)
    while fit.receive() is None:
        wait_for([fit], 10.0)
    seconds = time.perf_counter() - began
    fit.end()
    return seconds


def _whole(
    launcher: Launcher, plans: Sequence[FitPlan], *, at_a_time: int, seconds: list[float] | None = None
) -> float:
    """Return how long all fits take; `seconds` gets each epoch's but the first, which pays for warming up."""
    began = time.perf_counter()
    waiting, running = [_cleared(plan) for plan in plans], list[RunningFit]()
    while waiting or running:
        while waiting and len(running) < at_a_time:
            running.append(launcher.start(waiting.pop(0)))
        for fit in wait_for(running, 10.0):
            said = fit.receive()
            if isinstance(said, EpochEnded):
                if seconds is not None and said.epoch > 1:
                    seconds.append(said.seconds)
                fit.answer("go")
            elif said is not None:
                assert isinstance(said, Fitted), said
                fit.end()
                running.remove(fit)
    return time.perf_counter() - began


def _forked(train: Callable[[FitPlan], bare.Times], plan: FitPlan) -> bare.Times:
    """Train in a child of the warm server."""
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_train_and_tell, args=(train, plan, theirs))
    process.start()
    theirs.close()
    times: bare.Times = ours.recv()
    process.join()
    return times


def _train_and_tell(train: Callable[[FitPlan], bare.Times], plan: FitPlan, channel: Connection[Any, Any]) -> None:
    import torch

    torch.set_num_threads(plan.budget.threads)
    log = os.open(plan.folder / "said.log", os.O_WRONLY | os.O_CREAT)  # for what Lightning has to say
    os.dup2(log, 1)
    os.dup2(log, 2)
    channel.send(train(plan))


def _cleared(plan: FitPlan) -> FitPlan:
    """Return the plan, its folder empty: a fit goes on from a checkpoint that it finds there."""
    shutil.rmtree(plan.folder, ignore_errors=True)
    plan.folder.mkdir(parents=True)
    return plan


if __name__ == "__main__":
    main()

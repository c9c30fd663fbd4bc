"""One process group per fit: whatever a fit does, it is told apart and takes nothing with it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from whitebench.budget import Limits
from whitebench.child import kind_of
from whitebench.fit import LOG, FitPlan, Fitted, Outcome, Pruned
from whitebench.launch import GRACE, Launcher, RunningFit, wait_for
from whitebench.result import Failure, FailureKind
from whitebench.suite import Contestant

MakePlan = Callable[..., FitPlan]


def is_gone(pid: int) -> bool:
    """Return whether a process is no more, or only a name that nobody has asked after yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> float:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds
        time.sleep(0.02)
    return time.monotonic() - started


def outcome_of(fit: RunningFit) -> Outcome:
    """Answer everything with go and return how the fit ended; its group is ended then."""
    while True:
        wait_for([fit], 1.0)
        said = fit.receive()
        if isinstance(said, Fitted | Pruned | Failure):
            fit.end()
            return said
        if said is not None:
            fit.answer("go")


def failure_of(fit: RunningFit) -> Failure:
    outcome = outcome_of(fit)
    assert isinstance(outcome, Failure)
    return outcome


def test_a_fit_says_its_epochs_asks_for_the_test_and_ends_fitted(launcher: Launcher, make_plan: MakePlan) -> None:
    fit = launcher.start(make_plan())
    said: list[str] = []
    while "Fitted" not in said:
        wait_for([fit], 1.0)
        message = fit.receive()
        if message is not None:
            said.append(type(message).__name__)
            fit.answer("go")
    fit.end()
    assert said == ["EpochEnded", "EpochEnded", "AskTest", "Fitted"]
    assert is_gone(fit.pid)


def test_a_fit_that_is_told_to_prune_says_that_it_was(launcher: Launcher, make_plan: MakePlan) -> None:
    fit = launcher.start(make_plan(purpose="trial"))
    wait_until(lambda: bool(wait_for([fit], 1.0)))
    fit.receive()
    fit.answer("prune")
    assert outcome_of(fit) == Pruned(epoch=1)


@pytest.mark.parametrize(
    ("how", "kind", "message", "in_traceback"),
    [
        ("raise", "error", "RuntimeError: the model broke", "in misbehave"),
        ("config", "config", "a width of 7 cannot be had", "in misbehave"),
        ("nan", "nan", "the loss is nan in epoch 1, step 2 (last finite loss:", "_check_finite"),
        ("oom", "oom", "RuntimeError: [enforce fail at alloc_cpu", "in misbehave"),
        ("import", "import", "ModuleNotFoundError: No module named 'a_library_nobody_has'", "in misbehave"),
        ("exit", "error", "the fit called sys.exit(3)", "in misbehave"),
        ("os-exit", "error", "the fit's process exited with code 4 before it was done", ""),
        ("kill", "killed", "the fit's process was ended by SIGKILL (the system ends processes this way", "last words"),
        ("segfault", "killed", "the fit's process was ended by SIGSEGV", "in misbehave"),
    ],
)
def test_every_way_to_fail_has_its_kind_its_message_and_where_it_happened(
    launcher: Launcher, make_plan: MakePlan, how: str, kind: str, message: str, in_traceback: str
) -> None:
    failure = failure_of(launcher.start(make_plan(f"faulty[how={how}]")))
    assert (failure.kind, failure.message[: len(message)]) == (FailureKind(kind), message)
    assert in_traceback in failure.traceback
    assert Path(failure.log).name == LOG


COUNTING = """
from dataclasses import dataclass
import torch
from whitebench import ModelSpec, hookimpl


@dataclass(frozen=True, kw_only=True)
class Mark:
    mark: str = ""


def build(config, shape, classes):
    with open(config.mark, "w") as file:
        file.write(str(torch.get_num_threads()))
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, classes))


@hookimpl
def register_models():
    return [ModelSpec(name="counting", summary="counts its threads", config=Mark, build=build, head="1")]
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_a_fit_has_the_threads_of_its_budget_whatever_its_server_has(
    launcher: Launcher, make_plan: MakePlan, plugin: Path, tmp_path: Path, threads: int
) -> None:
    file = tmp_path / "counting.py"
    file.write_text(COUNTING, encoding="utf-8")
    contestant = Contestant(label="counting", model=f"counting[mark={tmp_path}/threads]")
    plan = make_plan(contestant=contestant, plugins=[plugin, file], budget={"threads": threads})
    outcome = outcome_of(launcher.start(plan))
    assert isinstance(outcome, Fitted)
    assert int((tmp_path / "threads").read_text(encoding="utf-8")) == threads
    assert outcome.provenance.threads == threads


def test_a_metric_that_cannot_rank_is_a_failure_of_its_own_kind(launcher: Launcher, make_plan: MakePlan) -> None:
    failure = failure_of(launcher.start(make_plan(primary="error-mute")))
    assert (failure.kind, failure.message) == (
        FailureKind.METRIC,
        "metric 'error-mute' raised ValueError: cannot say",
    )


def test_a_plugin_that_loads_only_for_the_conductor_is_an_import_failure(
    launcher: Launcher, make_plan: MakePlan, tmp_path: Path
) -> None:
    file = tmp_path / "shy.py"
    file.write_text("import multiprocessing\nassert multiprocessing.parent_process() is None, 'not here'\n")
    failure = failure_of(launcher.start(make_plan("shy", plugins=[file])))
    assert failure.kind is FailureKind.IMPORT
    assert "unknown model 'shy'" in failure.message
    assert "AssertionError: not here" in failure.message


@pytest.mark.parametrize("how", ["hang", "grab"])
def test_a_fit_that_takes_too_long_is_ended_and_says_where_it_was(
    launcher: Launcher, make_plan: MakePlan, how: str
) -> None:
    fit = launcher.start(make_plan(f"faulty[how={how}]", limits=Limits(fit_minutes=0.5 / 60)))
    wait_until(lambda: fit.is_overdue)
    failure = fit.timed_out()
    fit.end()
    assert failure.kind is FailureKind.TIMEOUT
    assert failure.message.startswith("took longer than the 0.00833333 minutes of limits.fit_minutes")
    assert "in misbehave" in failure.traceback
    assert is_gone(fit.pid)


def test_time_spent_waiting_for_an_answer_does_not_count(launcher: Launcher, make_plan: MakePlan) -> None:
    fit = launcher.start(make_plan())
    wait_until(lambda: bool(wait_for([fit], 1.0)))
    fit.receive()
    before = fit.seconds
    time.sleep(0.3)
    assert fit.seconds - before < 0.25
    fit.answer("go")
    assert fit.seconds - before < 0.25
    fit.end()


def test_what_a_fit_leaves_running_ends_with_it(launcher: Launcher, make_plan: MakePlan, tmp_path: Path) -> None:
    model = f"faulty[how=orphan,mark={tmp_path}/pid]"
    outcome = outcome_of(launcher.start(make_plan(contestant=Contestant(label="orphan", model=model))))
    assert isinstance(outcome, Fitted)
    orphan = int((tmp_path / "pid").read_text(encoding="utf-8"))
    wait_until(lambda: is_gone(orphan))


def test_a_fit_may_have_processes_of_its_own(launcher: Launcher, make_plan: MakePlan) -> None:
    assert isinstance(outcome_of(launcher.start(make_plan("faulty[how=workers]"))), Fitted)


def test_messages_sent_before_a_fit_ended_are_all_received(launcher: Launcher, make_plan: MakePlan) -> None:
    fit = launcher.start(make_plan(budget={"epochs": 1}))
    for expected in ("EpochEnded", "AskTest", "Fitted"):
        if expected == "Fitted":
            time.sleep(1.0)  # the fit has spoken and its process is gone before anybody looks
        wait_until(lambda: bool(wait_for([fit], 1.0)))
        said = fit.receive()
        assert type(said).__name__ == expected
        fit.answer("go")
    fit.end()


def test_a_fit_can_be_ended_at_any_moment_and_twice(launcher: Launcher, make_plan: MakePlan) -> None:
    for delay in (0.0, 0.01, 0.1, 0.3):
        fit = launcher.start(make_plan(folder=f"after-{delay}"))
        time.sleep(delay)
        started = time.monotonic()
        fit.end()
        assert is_gone(fit.pid)
        assert time.monotonic() - started < GRACE / 2  # it went at once, nobody waited the grace out
        fit.end()


def test_what_a_fit_prints_goes_to_its_log(
    launcher: Launcher, make_plan: MakePlan, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = make_plan("faulty[how=kill]")
    outcome_of(launcher.start(plan))
    assert "last words" in (plan.folder / LOG).read_text(encoding="utf-8")
    assert "last words" not in "".join(capfd.readouterr())


def test_a_fit_from_the_warm_server_is_under_way_many_times_sooner_than_from_a_fresh_process(
    launcher: Launcher, make_plan: MakePlan
) -> None:
    took = []
    for number in range(3):
        plan = make_plan("no-such-model", folder=str(number))  # refused at the first line that looks at the plan
        started = time.monotonic()
        fit = launcher.start(plan)
        wait_for([fit], 30.0)
        took.append(time.monotonic() - started)
        failure_of(fit)
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", "import whitebench.fitting"], check=True)
    fresh = time.monotonic() - started
    assert min(took) < fresh / 4  # measured: 0.12 s against 4.6 s


CONDUCTOR = """
import sys, time
from pathlib import Path
from whitebench.budget import Budget
from whitebench.fit import FitPlan
from whitebench.launch import Launcher
from whitebench.recipe import Recipe, Tuned
from whitebench.suite import Contestant

if __name__ == "__main__":
    plugin, folder = map(Path, sys.argv[1:])
    launcher, fits = Launcher(threads=1), []  # a fit that nobody holds any more is ended
    for how in ("hang", "grab"):
        fit = launcher.start(FitPlan(
            name=how, purpose="trial", contestant=Contestant(model=f"faulty[how={how}]"), task="blobs", primary="error",
            metrics=(), budget=Budget(epochs=1, batch_size=16, trials=0), recipe=Recipe(learning_rate=Tuned(value=0.1)),
            hyperparameters={"learning_rate": 0.1, "weight_decay": 0.0}, seed=0, plugins=[plugin], folder=folder / how,
        ))
        fits.append(fit)
        print(fit.pid, flush=True)
    from multiprocessing import forkserver
    print(forkserver._forkserver._forkserver_pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_when_the_conductor_is_killed_its_fits_and_its_server_go_too(plugin: Path, tmp_path: Path) -> None:
    script = tmp_path / "conductor.py"
    script.write_text(CONDUCTOR, encoding="utf-8")
    command = [sys.executable, str(script), str(plugin), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as conductor:
        assert conductor.stdout is not None
        try:
            pids = [int(conductor.stdout.readline()) for _ in range(3)]
            time.sleep(1.0)  # the fits are deep in what they hang in
            assert not any(map(is_gone, pids))
        finally:
            conductor.send_signal(signal.SIGKILL)
        conductor.wait(30)
        wait_until(lambda: all(map(is_gone, pids)), 5.0)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), "oom"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), "oom"),
        (OSError(12, "Cannot allocate memory"), "oom"),
        (ImportError("libfoo.so"), "import"),
        (ZeroDivisionError(), "error"),
    ],
)
def test_kinds_of_exceptions(error: BaseException, kind: str) -> None:
    assert kind_of(error) is FailureKind(kind)

"""One process group per fit: whatever a fit does, it is told apart and takes nothing with it."""

from __future__ import annotations

import fcntl
import multiprocessing
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from whitebench.budget import Limits
from whitebench.child import run_child
from whitebench.fit import LOG, FitPlan, Fitted, Outcome, Pruned
from whitebench.launch import GRACE, Launcher, RunningFit, wait_for
from whitebench.result import Failure, FailureKind, to_json
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
    """Answer everything with go and return how the fit ended, also by crossing a limit; its group is ended then."""
    while True:
        wait_for([fit], 1.0)
        said = fit.receive()
        outcome = said if isinstance(said, Fitted | Pruned | Failure) else fit.fault()
        if outcome is not None:
            fit.end()
            return outcome
        if said is not None:
            fit.answer("go")


def caught(fit: RunningFit) -> Failure:
    """Wait until the fit crosses a limit and return what that is called."""
    started = time.monotonic()
    while (failure := fit.fault()) is None:
        assert time.monotonic() - started < 30.0
        time.sleep(0.02)
    return failure


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


CULPRIT = '''
import ctypes, os, re, signal, subprocess, sys, threading, time
from dataclasses import dataclass
import torch
from torch import nn
from whitebench import ModelSpec, WhitebenchError, hookimpl


@dataclass(frozen=True, kw_only=True)
class Fault:
    how: str = "none"
    mark: str = ""


def bring_up(mark):
    """A child in our group, and a grandchild that left it (setsid) and lost its parent (a double fork)."""
    daemon = "import os, subprocess\\nif not os.fork():\\n os.setsid()\\n "
    daemon += "print(subprocess.Popen(['sleep', '600'], stdout=2).pid, flush=True)"
    child = subprocess.Popen(["sleep", "600"])
    grandchild = subprocess.run([sys.executable, "-c", daemon], stdout=subprocess.PIPE, text=True).stdout.strip()
    with open(f"{mark}~", "w") as file:
        file.write(f"{child.pid} {grandchild}")
    os.replace(f"{mark}~", mark)


def misbehave(how):
    if how == "raise":
        raise RuntimeError("the model broke")
    if how == "config":
        raise WhitebenchError("a width of 7 cannot be had")
    if how == "import":
        import a_library_nobody_has
    if how == "exit":
        sys.exit(3)
    if how == "os-exit":
        os._exit(4)
    if how == "kill":
        print("last words")
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "term":
        os.kill(os.getpid(), signal.SIGTERM)
    if how == "segfault":
        ctypes.string_at(0)
    if how == "abort":
        os.abort()
    if how == "bad-alloc":  # as C++ says it when nobody catches it
        os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\\n")
        os.abort()
    if how == "oom":
        torch.empty(10**15)
    if how == "hoard":
        hoard = [torch.empty(2**22) for _ in range(256)]  # 4 GiB, never touched
    if how == "hoard-bytes":
        hoard = [bytearray(2**24) for _ in range(256)]
    if how == "full":
        with open("/dev/full", "w") as file:
            file.write("a checkpoint")
    if how == "flood":
        while True:
            print("all work and no play" * 50)
    if how == "hang":
        time.sleep(600)
    if how == "busy":  # and its other threads call and return all the time
        sys.setswitchinterval(1e-5)
        for _ in range(4):
            threading.Thread(target=dive, daemon=True).start()
        time.sleep(600)
    if how == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if how == "grab":  # a regular expression gone wild holds the interpreter's lock
        re.match(r"(a+)+$", "a" * 60 + "b")
    if how == "mute":
        raise Mute
    if how == "half":
        raise RuntimeError("half a character: \\ud800")


def dive():
    def deeper(depth):
        return depth and deeper(depth - 1)

    while True:
        deeper(400)


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("and so is its text")


class Culprit(nn.Sequential):
    def __init__(self, fault, shape, classes):
        super().__init__(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, classes))
        self.fault, self.steps = fault, 0

    def forward(self, x):
        self.steps += self.training
        if self.fault.how == "slow":
            time.sleep(0.2)
        if self.training and self.steps == 2:  # not the first: there shall be a finite loss before
            if self.fault.mark:
                bring_up(self.fault.mark)
            misbehave(self.fault.how)
        faulty = self.training and self.fault.how == "nan" and self.steps >= 2
        return super().forward(x * float("nan") if faulty else x)


@hookimpl
def register_models():
    return [ModelSpec(name="culprit", summary="misbehaves as told", config=Fault, build=Culprit, head="3")]
'''


@pytest.fixture
def culprit(tmp_path: Path) -> Path:
    """A local plugin file: a model that goes wrong as told, after it has brought up a child and a daemon."""
    file = tmp_path / "culprit.py"
    file.write_text(CULPRIT, encoding="utf-8")
    return file


@pytest.fixture
def accuse(make_plan: MakePlan, plugin: Path, culprit: Path, tmp_path: Path) -> MakePlan:
    """Return a function that plans a fit of that model."""

    def make(how: str, mark: str = "pids", **changes: Any) -> FitPlan:
        contestant = Contestant(label="culprit", model=f"culprit[how={how},mark={tmp_path}/{mark}]")
        return make_plan(contestant=contestant, plugins=[plugin, culprit], **changes)

    return make


def brought_up(file: Path) -> list[int]:
    return [int(pid) for pid in file.read_text(encoding="utf-8").split()]


FAULTS: list[tuple[str, str, str, str, dict[str, float]]] = [
    ("raise", "error", "RuntimeError: the model broke", "in misbehave", {}),
    ("mute", "error", "Mute: <Mute, whose __str__ raised ", "in misbehave", {}),
    ("half", "error", r"RuntimeError: half a character: \ud800", "in misbehave", {}),
    ("config", "config", "a width of 7 cannot be had", "in misbehave", {}),
    ("import", "import", "ModuleNotFoundError: No module named 'a_library_nobody_has'", "in misbehave", {}),
    ("exit", "exit", "the fit called sys.exit(3)", "in misbehave", {}),
    ("os-exit", "exit", "the fit's process exited with code 4 before it was done", "", {}),
    ("kill", "killed", "the fit's process was ended by SIGKILL (the system ends processes this", "last words", {}),
    ("term", "killed", "the fit's process was ended by SIGTERM", "in misbehave", {}),
    ("segfault", "crashed", "the fit's process crashed with SIGSEGV", "in misbehave", {}),
    ("abort", "crashed", "the fit's process crashed with SIGABRT", "in misbehave", {}),
    ("bad-alloc", "oom", "the fit's process crashed with SIGABRT, because memory ran out", "in misbehave", {}),
    ("oom", "oom", "RuntimeError: [enforce fail at alloc_cpu", "in misbehave", {}),
    ("full", "disk", "OSError: [Errno 28] No space left on device", "in misbehave", {}),
    ("nan", "nan", "the loss is nan in epoch 1, step 2 (last finite loss: ", "in training_step", {}),
    ("flood", "output", "printed more than the 1 MiB of limits.log_mib", "in misbehave", {"log_mib": 1.0}),
    ("hang", "timeout", "took longer than the 0.05 minutes of limits.fit_minutes", "in misbehave",
     {"fit_minutes": 0.05}),
    ("busy", "timeout", "took longer than the 0.05 minutes of limits.fit_minutes", "in misbehave",
     {"fit_minutes": 0.05}),
    ("hang", "stalled", "gave no sign of life for the 0.05 minutes of limits.stall_minutes", "in misbehave",
     {"stall_minutes": 0.05}),
    ("stop", "stalled", "gave no sign of life for the 0.05 minutes of limits.stall_minutes", "",
     {"stall_minutes": 0.05}),
    ("grab", "stalled", "gave no sign of life for the 0.05 minutes of limits.stall_minutes", "in misbehave",
     {"stall_minutes": 0.05}),
]  # fmt: skip
if sys.platform == "linux":
    FAULTS += [
        ("hoard", "oom", "RuntimeError: [enforce fail at alloc_cpu", "in misbehave", {"memory_gib": 0.25}),
        ("hoard-bytes", "oom", "MemoryError: ", "in misbehave", {"memory_gib": 0.25}),
    ]


@pytest.mark.parametrize(("how", "kind", "message", "in_traceback", "limits"), FAULTS)
def test_every_way_to_fail_has_its_kind_its_message_where_it_happened_and_leaves_no_process(
    launcher: Launcher, accuse: MakePlan, tmp_path: Path, how: str, kind: str, message: str, in_traceback: str,
    limits: dict[str, Any],
) -> None:  # fmt: skip
    fit = launcher.start(accuse(how, limits=Limits(**limits)))
    failure = failure_of(fit)
    gone_after = time.monotonic()
    pids = [fit.pid, *brought_up(tmp_path / "pids")]
    assert len(pids) == 3
    wait_until(lambda: all(map(is_gone, pids)), 10.0)
    assert time.monotonic() - gone_after < 10.0
    assert (failure.kind, failure.message[: len(message)]) == (FailureKind(kind), message)
    assert in_traceback in failure.traceback
    assert Path(failure.log).name == LOG
    to_json(failure)
    if "memory_gib" in limits:
        assert failure.message.endswith("; limits.memory_gib allows 0.25 GiB")


def test_the_kinds_that_no_table_row_has_are_those_that_say_nothing_of_the_process() -> None:
    assert set(FailureKind) - {FailureKind(kind) for _, kind, *_ in FAULTS} == {FailureKind.METRIC}


def test_a_flood_ends_before_it_fills_the_disk_also_while_the_conductor_is_busy(
    launcher: Launcher, accuse: MakePlan
) -> None:
    plan = accuse("flood", limits=Limits(log_mib=1.0))
    fit = launcher.start(plan)
    wait_until(lambda: bool(wait_for([fit], 1.0)), 60.0)  # nobody asks for its faults, and it ends all the same
    said = fit.receive()
    fit.end()
    assert isinstance(said, Failure)
    assert said.kind is FailureKind.OUTPUT
    assert "in misbehave" in said.traceback
    log = (plan.folder / LOG).read_text(encoding="utf-8")
    assert len(log) < 2 * 512 * 1024 + 1024
    assert "bytes left out: of a long log its first and last 512 KiB are kept" in log


def test_a_fit_that_works_is_not_taken_for_one_that_hangs(launcher: Launcher, accuse: MakePlan) -> None:
    # Four steps an epoch, each 0.2 s: longer than the limit, and never still for so long.
    plan = accuse("slow", budget={"epochs": 6}, limits=Limits(stall_minutes=3 / 60), purpose="trial")
    fit = launcher.start(plan)
    assert isinstance(outcome_of(fit), Fitted)
    assert fit.seconds > 4.0


def test_waiting_for_an_answer_is_no_stall(launcher: Launcher, make_plan: MakePlan) -> None:
    fit = launcher.start(make_plan(limits=Limits(stall_minutes=2 / 60)))
    wait_until(lambda: bool(wait_for([fit], 1.0)), 60.0)
    time.sleep(2.5)  # the conductor is busy
    assert fit.fault() is None
    fit.receive()
    time.sleep(2.5)  # the conductor waits for other trials
    assert fit.fault() is None
    fit.answer("go")
    assert fit.fault() is None
    assert isinstance(outcome_of(fit), Fitted)


def test_what_a_fit_leaves_behind_when_it_is_done_is_ended_and_its_result_stands(
    launcher: Launcher, accuse: MakePlan, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = outcome_of(launcher.start(accuse("none")))
    assert isinstance(outcome, Fitted)
    child, grandchild = brought_up(tmp_path / "pids")
    assert is_gone(child)
    assert is_gone(grandchild)
    assert "blobs/tiny/blobs/0 left running, now ended: " in caplog.text
    assert f"sleep ({child})" in caplog.text
    assert f"sleep ({grandchild})" in caplog.text


def test_the_end_of_one_fit_touches_no_process_of_another(launcher: Launcher, accuse: MakePlan, tmp_path: Path) -> None:
    other = launcher.start(accuse("hang", mark="others", folder="other"))
    wait_until((tmp_path / "others").exists, 60.0)
    failure_of(launcher.start(accuse("segfault")))
    assert all(map(is_gone, brought_up(tmp_path / "pids")))
    still = [other.pid, *brought_up(tmp_path / "others")]
    assert not any(map(is_gone, still))
    other.end()
    assert all(map(is_gone, still))


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


@pytest.mark.parametrize(("how", "kind"), [("segfault", "crashed"), ("hang", "stalled"), ("term", "killed")])
def test_a_fit_that_goes_wrong_while_it_is_tested_says_where_too(
    launcher: Launcher, make_plan: MakePlan, plugin: Path, culprit: Path, how: str, kind: str
) -> None:
    culprit.write_text(CULPRIT + WICKED, encoding="utf-8")
    plan = make_plan(metrics=("error", how), plugins=[plugin, culprit], limits=Limits(stall_minutes=0.05))
    failure = failure_of(launcher.start(plan))
    assert failure.kind is FailureKind(kind)
    assert "in misbehave" in failure.traceback


WICKED = """
import torchmetrics
from whitebench import MetricSpec


class Wicked(torchmetrics.Metric):
    def __init__(self, how):
        super().__init__()
        self.how = how

    def update(self, logits):
        misbehave(self.how)

    def compute(self):
        return 0.0


@hookimpl
def register_metrics():
    return [MetricSpec(name=how, version=1, summary="", direction="lower", needs=("logits",),
                       build=lambda context, how=how: Wicked(how)) for how in ("segfault", "hang", "term")]
"""


def test_two_fits_of_one_seed_with_two_threads_give_the_same_digits(launcher: Launcher, make_plan: MakePlan) -> None:
    # Wide enough that torch shares the work out: from 32,768 elements upwards.
    digests = set()
    for folder in ("a", "b", "c"):
        plan = make_plan("tiny[width=20000]", folder=folder, budget={"threads": 2, "epochs": 1})
        outcome = outcome_of(launcher.start(plan))
        assert isinstance(outcome, Fitted)
        assert outcome.provenance.threads == 2
        digests.add((outcome.weights_sha256, outcome.predictions_sha256))
    assert len(digests) == 1


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
    fit = launcher.start(make_plan(f"faulty[how={how}]", limits=Limits(fit_minutes=3 / 60)))
    failure = caught(fit)
    fit.end()
    assert failure.kind is FailureKind.TIMEOUT
    assert failure.message.startswith("took longer than the 0.05 minutes of limits.fit_minutes")
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


def test_a_fit_waits_until_an_earlier_life_of_it_has_let_go_of_its_folder(
    launcher: Launcher, make_plan: MakePlan
) -> None:
    plan = make_plan()
    with (plan.folder / ".held").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        fit = launcher.start(plan)
        assert wait_for([fit], 1.0) == []
    assert isinstance(outcome_of(fit), Fitted)


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


def test_a_fit_whose_log_cannot_be_opened_fails_without_a_word_on_the_terminal(
    make_plan: MakePlan, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = make_plan()
    (plan.folder / LOG).mkdir()
    context = multiprocessing.get_context("fork")  # of this process, whose terminal is watched here
    ours, channel = context.Pipe()
    _hold, lifeline = context.Pipe()

    def run() -> None:
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__  # pytest's own write past the file descriptors
        run_child(plan, channel, lifeline, context.Value("d", 0.0, lock=False))

    fit = context.Process(target=run)
    fit.start()
    assert ours.poll(10.0)
    _moment, failure = ours.recv()
    fit.join()
    assert failure.kind == "error"
    assert str(plan.folder / LOG) in failure.message
    assert "IsADirectoryError" in failure.traceback
    assert "".join(capfd.readouterr()) == ""


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
import os, signal, sys, time
from pathlib import Path
from whitebench.budget import Budget
from whitebench.fit import FitPlan
from whitebench.launch import Launcher, wait_for
from whitebench.recipe import Recipe, Tuned
from whitebench.suite import Contestant

if __name__ == "__main__":
    ending, (*plugins, folder) = sys.argv[1], map(Path, sys.argv[2:])
    launcher, fits = Launcher(threads=1), []  # a fit that nobody holds any more is ended
    for how in ("hang", "grab"):
        fit = launcher.start(FitPlan(
            name=how, purpose="trial", task="blobs", primary="error", metrics=(),
            contestant=Contestant(label="culprit", model=f"culprit[how={how},mark={folder}/{how}-pids]"),
            budget=Budget(epochs=1, batch_size=16, trials=0), recipe=Recipe(learning_rate=Tuned(value=0.1)),
            hyperparameters={"learning_rate": 0.1, "weight_decay": 0.0}, seed=0, plugins=plugins, folder=folder / how,
        ))
        fits.append(fit)
        print(fit.pid, flush=True)
    from multiprocessing import forkserver
    server = forkserver._forkserver._forkserver_pid
    print(server, flush=True)
    if ending == "killed":
        time.sleep(600)
    while not all((folder / f"{how}-pids").exists() for how in ("hang", "grab")):
        time.sleep(0.02)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(server, number)
    print("fits that ended with signals to all:", len(wait_for(fits, 0.5)), flush=True)
    os.kill(server, signal.SIGKILL)
    for fit in fits:
        wait_for([fit], 30.0)
        failure = fit.receive()
        fit.end()
        print(failure.kind, failure.message, flush=True)
    launcher.warm()  # a new one
    print("warm", flush=True)
"""


@pytest.mark.slow
def test_the_server_outlives_signals_to_all_and_where_it_is_killed_its_fits_say_so_and_the_next_has_a_new_one(
    plugin: Path, culprit: Path, tmp_path: Path
) -> None:
    script = tmp_path / "conductor.py"
    script.write_text(CONDUCTOR, encoding="utf-8")
    command = [sys.executable, str(script), "goes on", str(plugin), str(culprit), str(tmp_path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=120)
    *pids, ended, first, second, last = done.stdout.splitlines()
    assert ended == "fits that ended with signals to all: 0"
    assert first == second == "killed the server that starts fits was ended, and its fits with it"
    assert last == "warm"
    everybody = [*map(int, pids), *brought_up(tmp_path / "hang-pids"), *brought_up(tmp_path / "grab-pids")]
    assert len(everybody) == 7
    wait_until(lambda: all(map(is_gone, everybody)))


@pytest.mark.slow
def test_when_the_conductor_is_killed_its_fits_what_they_brought_up_and_its_server_go_too(
    plugin: Path, culprit: Path, tmp_path: Path
) -> None:
    script = tmp_path / "conductor.py"
    script.write_text(CONDUCTOR, encoding="utf-8")
    command = [sys.executable, str(script), "killed", str(plugin), str(culprit), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as conductor:
        assert conductor.stdout is not None
        try:
            pids = [int(conductor.stdout.readline()) for _ in range(3)]
            for file in (tmp_path / "hang-pids", tmp_path / "grab-pids"):
                wait_until(file.exists, 60.0)
                pids += brought_up(file)
            time.sleep(0.5)  # the fits are deep in what they hang in
            assert len(pids) == 7
            assert not any(map(is_gone, pids))
        finally:
            conductor.send_signal(signal.SIGKILL)
        conductor.wait(30)
        wait_until(lambda: all(map(is_gone, pids)), 5.0)

"""One process group per fit, forked from a server that has torch and Lightning loaded already.

A fit that leaks, hangs, segfaults or is killed takes nothing with it. The server is asked to start
before anything slow happens here, so that it loads its libraries in the meantime.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import logging
import multiprocessing
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing import connection
from multiprocessing.forkserver import _forkserver, ensure_running
from typing import Any, TypeVar, cast

from whitebench import interruption, kin
from whitebench.child import DUMP, MIB, run_child, run_question
from whitebench.fault import kind_of_exit
from whitebench.fit import Answer, FitPlan, Fitted, Message, Outcome, Pruned
from whitebench.gpus import least_used, visible_gpus
from whitebench.provenance import usable_cores
from whitebench.result import Failure, FailureKind
from whitebench.transcript import shorten, size, tail

PRELOADED = (
    "whitebench.cradle",
    "whitebench.fitting",
    "sklearn.datasets",
)
"""What the server imports once for all fits: 4 to 11 s cold, after which a fit starts in 0.1 s."""

GRACE = 5.0
"""Seconds a process is given to be gone after it was killed, or after it hung up."""

SERVER_GONE = 255
"""The exit code that multiprocessing gives to the children of a server that is no more."""

DUMP_TIME = 1.0
"""Seconds a fit is given to write down where it is."""

TAIL = 16_000
"""Bytes of a log that tell how a fit died: faulthandler writes some 80 frames, the last call first, and
the names of 170 extension modules after them."""

Told = TypeVar("Told")

_log = logging.getLogger(__name__)


class RunningFit:
    """A fit under way, as the conductor holds it."""

    def __init__(self, context: Any, plan: FitPlan) -> None:
        self.plan, self._file = plan, plan.log
        shorten(self._file)  # of an earlier life, whose conductor was killed
        self._log_start = size(self._file)
        self._channel, theirs = context.Pipe()
        # The child holds the other end; when this process is gone, however it went, the child's whole
        # group is ended. PR_SET_PDEATHSIG alone was not enough.
        lifeline, self._lifeline = context.Pipe(duplex=False)
        self._beat = context.RawValue("d", 0.0)
        given = (plan, theirs, lifeline, self._beat)
        self._process = context.Process(target=run_child, args=given, name=plan.name)
        self._process.start()
        self._server = _server()
        theirs.close()
        lifeline.close()
        self._started = self._answered = time.monotonic()
        self._idle = 0.0
        self._asked: float | None = None
        self.is_over = self._ended_well = False

    @property
    def pid(self) -> int:
        """The process, and the process group, of the fit."""
        return int(self._process.pid)

    @property
    def seconds(self) -> float:
        """How long the fit has been at work: time spent waiting for an answer is not counted."""
        until = time.monotonic() if self._asked is None else self._asked
        return until - self._started - self._idle

    @property
    def seconds_quiet(self) -> float:
        """How long the fit has shown no sign of life; waiting for an answer is none of its doing."""
        until = time.monotonic() if self._asked is None else self._asked
        return until - max(self._answered, float(self._beat.value))

    @property
    def signs(self) -> tuple[Any, Any]:
        """What becomes ready when the fit says something or ends."""
        return self._channel, self._process.sentinel

    def receive(self) -> Message | Outcome | None:
        """Return what the fit said next, or how it ended; None where there is nothing yet."""
        is_alive = self._process.is_alive()  # looked at first: what a fit said before it ended is then in the pipe
        try:
            if self._channel.poll():
                said: Message | Outcome
                self._asked, said = self._channel.recv()  # with the moment it was said: we may have been busy
                self._ended_well = isinstance(said, Fitted | Pruned)
                return said
        except (EOFError, OSError):
            self._process.join(GRACE)
            return self._death()
        return None if is_alive else self._death()

    def attend(self, heard: Callable[[RunningFit, Message | Outcome], None], _idle: Callable[[], None]) -> None:
        """Tell `heard` what the fit has to say, if it has something."""
        if (said := self.receive()) is not None:
            heard(self, said)

    def answer(self, answer: Answer) -> None:
        """Answer what the fit said last."""
        if self._asked is not None:
            self._answered = time.monotonic()
            self._idle, self._asked = self._idle + self._answered - self._asked, None
        with contextlib.suppress(OSError):  # a fit that has ended in the meantime says so itself
            self._channel.send(answer)

    def fault(self) -> Failure | None:
        """Return which limit the fit has crossed, its log saying where it was; None where it may go on.

        A fit of which this returned a Failure is to be ended.
        """
        if not self._process.is_alive() or self._channel.poll():  # it has something to say, which comes first
            return None
        limits = self.plan.limits
        if self._is_flooding:
            return self._caught(FailureKind.OUTPUT, self._flood)
        if self.seconds > limits.fit_minutes * 60:
            return self._caught(
                FailureKind.TIMEOUT,
                f"took longer than the {limits.fit_minutes:g} minutes of limits.fit_minutes: raise it, or make the "
                "fit smaller",
            )
        if self.seconds_quiet > limits.stall_minutes * 60:
            return self._caught(
                FailureKind.STALLED,
                f"gave no sign of life for the {limits.stall_minutes:g} minutes of limits.stall_minutes: where it "
                "was stands in its log; raise the limit if that may take so long",
            )
        return None

    def end(self) -> None:
        """End every process of the fit and wait until they are gone; harmless where it was ended before."""
        if self.is_over:
            return
        # Without its server a fit passes for dead, and lives.
        may_live = self._process.is_alive() or kin.is_gone(self._server)
        ended = kin.end(kin.descendants(self.pid) if may_live else [])
        self._process.kill()
        self._process.join(GRACE)
        ended += _end_orphans(self._server)
        kin.end_group(self.pid)  # last, so that what it held has been named
        if self._ended_well and ended:
            _log.warning("%s left running, now ended: %s", self.plan.name, ", ".join(dict.fromkeys(ended)))
        if not _comes_true(lambda: kin.is_group_gone(self.pid), GRACE):
            _log.error("%s: process group %d is still there, %g s after SIGKILL", self.plan.name, self.pid, GRACE)
        shorten(self._file)
        self._channel.close()
        self._lifeline.close()
        self.is_over = True

    def _caught(self, kind: FailureKind, message: str) -> Failure:
        # Its ranks too, who know where the fit is. One after the other: what several write at once cannot be read.
        deadline = time.monotonic() + 2 * DUMP_TIME
        for pid in (self.pid, *(one.pid for one in kin.descendants(self.pid))):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, DUMP)
            _comes_true(partial(self._is_gone, pid), min(DUMP_TIME, deadline - time.monotonic()))
        return self._failure(kind, message)

    def _is_gone(self, pid: int) -> bool:
        return not self._process.is_alive() if pid == self.pid else kin.is_gone(pid)

    @property
    def _is_flooding(self) -> bool:
        return size(self._file) - self._log_start > self.plan.limits.log_mib * MIB

    @property
    def _flood(self) -> str:
        return f"printed more than the {self.plan.limits.log_mib:g} MiB of limits.log_mib: its log holds both ends"

    def _death(self) -> Failure:
        if self._is_flooding:
            return self._failure(FailureKind.OUTPUT, self._flood)
        code = self._process.exitcode
        if code is None:
            return self._failure(FailureKind.ERROR, "the fit closed its line to the conductor before it was done")
        # Its end of the pipes closes some milliseconds before the system calls a dying process dead.
        if code == SERVER_GONE and _comes_true(lambda: kin.is_gone(self._server), 1.0):
            return self._failure(FailureKind.KILLED, "the server that starts fits was ended, and its fits with it")
        return self._failure(*kind_of_exit(code, self._last_words))

    def _failure(self, kind: FailureKind, message: str) -> Failure:
        return Failure(kind=kind, message=message, traceback=self._last_words, log=str(self._file))

    @property
    def _last_words(self) -> str:
        return tail(self._file, TAIL, since=self._log_start)


class _Asked:
    """A question about a plan, in a process of its own."""

    def __init__(self, context: Any, question: Callable[[FitPlan], object], plan: FitPlan, seconds: float) -> None:
        self.plan = plan
        self._channel, theirs = context.Pipe()
        lifeline, self._lifeline = context.Pipe(duplex=False)
        self._process = context.Process(target=run_question, args=(question, plan, theirs, lifeline), name=plan.name)
        self._process.start()
        theirs.close()
        lifeline.close()
        self._deadline = time.monotonic() + seconds
        self.signs = (self._channel, self._process.sentinel)

    @property
    def is_over(self) -> bool:
        """Whether there is an answer, or will be none."""
        return bool(connection.wait(self.signs, timeout=0)) or time.monotonic() > self._deadline

    def answer(self) -> Any:
        """Return the answer, or what the question raised, if it came so far, and end its process group."""
        try:
            said = self._channel.recv() if self._channel.poll() else None
        except (EOFError, OSError):
            said = None
        kin.end_group(int(self._process.pid))
        self._process.kill()  # for one that has not come so far as to lead its group
        self._process.join(GRACE)
        self._channel.close()
        self._lifeline.close()
        return said


class Launcher:
    """Starts fits, each in a process group of its own on this machine."""

    keeps_checkpoints = True
    is_in_process = False
    is_here = True

    def __init__(self, *, threads: int, devices: int = 1) -> None:
        self._threads = threads * devices
        # The server inherits these; set before it starts, they hold for every library in every fit.
        os.environ["OMP_NUM_THREADS"] = str(threads)
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        os.environ["PYTHONSAFEPATH"] = "1"  # else the server's `import torch` finds a torch.py in the working folder
        os.environ.setdefault("PYTHONHASHSEED", "0")  # a set of names comes in the same order in every run
        self._fits: weakref.WeakSet[RunningFit] = weakref.WeakSet()
        self._gpus: list[str] | None = None
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(PRELOADED))
        with _deaf():  # the server is born so: Ctrl-C, or a scheduler's SIGTERM to all, is for the conductor to handle
            ensure_running()
        atexit.register(self.close)  # before multiprocessing's own, which would wait for fits to end by themselves

    @property
    def places(self) -> int:
        """How many fits can run at a time: each device of each has its threads."""
        return max(1, usable_cores() // self._threads)

    def warm(self) -> None:
        """Wait until the server has loaded its libraries."""
        process = self._context.Process(target=_do_nothing)
        process.start()
        process.join()

    def start(self, plan: FitPlan) -> RunningFit:
        """Start a fit; the first waits until the server is warm.

        Where several fits run at a time and there are several GPUs, it sees as many of them as it has devices: those
        that the fewest others use.
        """
        plan.folder.mkdir(parents=True, exist_ok=True)
        fit = self._run(self._pinned(plan))
        self._fits.add(fit)
        return fit

    def _run(self, plan: FitPlan) -> RunningFit:
        return RunningFit(self._context, plan)

    def wait(self, fits: Sequence[Any], seconds: float) -> Sequence[Any]:
        """Return those of `fits` that have something to say or have ended, after at most `seconds`."""
        return wait_for(fits, seconds)

    def ask(
        self, question: Callable[[FitPlan], Told], plans: Sequence[FitPlan], *, seconds: float, at_a_time: int = 1
    ) -> list[Told | Failure | None]:
        """Ask `question` about each of `plans`, in a process of its own each; return its answers, or what it raised.

        None where its process died or took longer than `seconds`. It sees the GPUs that a fit of its plan would.
        """
        answers: dict[int, Told | Failure | None] = {}
        asked: dict[int, _Asked] = {}
        try:
            while len(answers) < len(plans):
                for number in range(len(answers) + len(asked), min(len(plans), len(answers) + at_a_time)):
                    plan = self._pinned(plans[number], [one.plan for one in asked.values()])
                    asked[number] = _Asked(self._context, question, plan, seconds)
                connection.wait([sign for one in asked.values() for sign in one.signs], timeout=1.0)
                for number in [number for number, one in asked.items() if one.is_over]:
                    answers[number] = asked.pop(number).answer()
        finally:
            for one in asked.values():
                one.answer()
        return [answers[number] for number in range(len(plans))]

    def _pinned(self, plan: FitPlan, beside: Sequence[FitPlan] = ()) -> FitPlan:
        if plan.parallel == 1 or plan.is_on_cpu or plan.gpus is not None:
            return plan
        if self._gpus is None:
            self._gpus = visible_gpus()
        if len(self._gpus) < 2:
            return plan
        beside = [*beside, *(fit.plan for fit in self._fits if not fit.is_over)]
        taken = [one.gpus for one in beside if one.gpus]
        return dataclasses.replace(plan, gpus=least_used(self._gpus, taken, plan.devices))

    def close(self) -> None:
        """End every fit that is still under way."""
        for fit in list(self._fits):
            fit.end()
        self._fits.clear()


def wait_for(fits: Sequence[RunningFit], seconds: float) -> list[RunningFit]:
    """Return those of `fits` that have something to say or have ended, after at most `seconds`."""
    ready = set(connection.wait([sign for fit in fits for sign in fit.signs], timeout=seconds))
    return [fit for fit in fits if not ready.isdisjoint(fit.signs)]


def _server() -> int:
    return int(cast("Any", _forkserver)._forkserver_pid)  # multiprocessing offers no other way to know it


def _end_orphans(server: int) -> list[str]:
    """End what fits that are gone have left to the server of fits, and return it.

    A fit adopts its own orphans while it lives; so whatever else is the server's child belongs to none that does.
    """
    living = {process.pid for process in multiprocessing.active_children() if process.pid is not None}
    return kin.end_descendants(server, seconds=GRACE, but=living)


def _comes_true(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not (is_true := condition()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return is_true


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say what a signal does
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in interruption.SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _do_nothing() -> None:
    """Show that the server can fork."""

"""One process group per fit, forked from a server that has torch and Lightning loaded already.

A fit that leaks, hangs, segfaults or is killed takes nothing with it. The server is asked to start
before anything slow happens here, so that it loads its libraries in the meantime.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection
from multiprocessing.forkserver import ensure_running
from typing import Any

from whitebench.child import end_group, run_child, run_question
from whitebench.fit import LOG, Answer, FitPlan, Message, Outcome
from whitebench.result import Failure, FailureKind

PRELOADED = (
    "whitebench.fitting",
    "sklearn.datasets",
)
"""What the server imports once for all fits: 4 to 11 s cold, after which a fit starts in 0.1 s."""

GRACE = 5.0
"""Seconds a process is given to be gone after it was killed, or after it hung up."""

TAIL = 16_000
"""Characters of a log that tell how a fit died: faulthandler writes some 80 frames, the last call first, and
the names of 170 extension modules after them."""


class RunningFit:
    """A fit under way, as the conductor holds it."""

    def __init__(self, context: Any, plan: FitPlan) -> None:
        self.plan = plan
        self._channel, theirs = context.Pipe()
        # The child holds the other end; when this process is gone, however it went, the child's whole
        # group is ended. PR_SET_PDEATHSIG alone was not enough.
        lifeline, self._lifeline = context.Pipe(duplex=False)
        self._process = context.Process(target=run_child, args=(plan, theirs, lifeline), name=plan.name)
        self._process.start()
        theirs.close()
        lifeline.close()
        self._started = time.monotonic()
        self._idle = 0.0
        self._asked: float | None = None

    @property
    def pid(self) -> int:
        """The process, and the process group, of the fit."""
        return int(self._process.pid)

    @property
    def seconds(self) -> float:
        """How long the fit has been at work: time spent waiting for an answer is not counted."""
        now = time.monotonic()
        waiting = now - self._asked if self._asked is not None else 0.0
        return now - self._started - self._idle - waiting

    @property
    def is_overdue(self) -> bool:
        """Whether the fit has taken longer than its limits allow."""
        return self.seconds > self.plan.limits.fit_minutes * 60

    @property
    def signs(self) -> tuple[Any, Any]:
        """What becomes ready when the fit says something or ends."""
        return self._channel, self._process.sentinel

    def receive(self) -> Message | Outcome | None:
        """Return what the fit said next, or how it ended; None where there is nothing yet."""
        is_alive = self._process.is_alive()  # looked at first: what a fit said before it ended is then in the pipe
        try:
            if self._channel.poll():
                said: Message | Outcome = self._channel.recv()
                self._asked = time.monotonic()
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
            self._idle, self._asked = self._idle + time.monotonic() - self._asked, None
        with contextlib.suppress(OSError):  # a fit that has ended in the meantime says so itself
            self._channel.send(answer)

    def end(self) -> None:
        """End the fit's whole process group and wait until it is gone; harmless where it is gone already."""
        end_group(self.pid)
        self._process.kill()  # for one that has not come so far as to lead its group
        self._process.join(GRACE)
        self._channel.close()
        self._lifeline.close()

    def timed_out(self) -> Failure:
        """Return the failure of a fit that is about to be ended because it took too long."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGUSR1)  # faulthandler writes to the log where the fit is
            time.sleep(0.2)
        minutes = self.plan.limits.fit_minutes
        return self._failure(
            FailureKind.TIMEOUT,
            f"took longer than the {minutes:g} minutes of limits.fit_minutes: raise it, or make the fit smaller",
        )

    def _death(self) -> Failure:
        code = self._process.exitcode
        if code is None:
            return self._failure(FailureKind.ERROR, "the fit closed its line to the conductor before it was done")
        if code < 0:
            name = signal.Signals(-code).name
            hint = " (the system ends processes this way when memory runs out)" if name == "SIGKILL" else ""
            return self._failure(FailureKind.KILLED, f"the fit's process was ended by {name}{hint}")
        return self._failure(FailureKind.ERROR, f"the fit's process exited with code {code} before it was done")

    def _failure(self, kind: FailureKind, message: str) -> Failure:
        log = self.plan.folder / LOG
        tail = log.read_text(errors="replace")[-TAIL:] if log.exists() else ""
        return Failure(kind=kind, message=message, traceback=tail, log=str(log))


class _Asked:
    """A question about a plan, in a process of its own."""

    def __init__(self, context: Any, question: Callable[[FitPlan], object], plan: FitPlan, seconds: float) -> None:
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

    def answer(self) -> Failure | None:
        """Return what the question raised, if it came so far, and end its process group."""
        try:
            said: Failure | None = self._channel.recv() if self._channel.poll() else None
        except (EOFError, OSError):
            said = None
        end_group(int(self._process.pid))
        self._process.kill()  # for one that has not come so far as to lead its group
        self._process.join(GRACE)
        self._channel.close()
        self._lifeline.close()
        return said


class Launcher:
    """Starts fits, each in a process of its own."""

    def __init__(self, *, threads: int) -> None:
        # The server inherits these; set before it starts, they hold for every library in every fit.
        os.environ["OMP_NUM_THREADS"] = str(threads)
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        os.environ.setdefault("PYTHONHASHSEED", "0")  # a set of names comes in the same order in every run
        self._fits: weakref.WeakSet[RunningFit] = weakref.WeakSet()
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(PRELOADED))
        with _deaf_to_ctrl_c():  # the server is born deaf to it: Ctrl-C is for the conductor to handle
            ensure_running()
        atexit.register(self.close)  # before multiprocessing's own, which would wait for fits to end by themselves

    def warm(self) -> None:
        """Wait until the server has loaded its libraries."""
        process = self._context.Process(target=_do_nothing)
        process.start()
        process.join()

    def start(self, plan: FitPlan) -> RunningFit:
        """Start a fit; the first waits until the server is warm."""
        plan.folder.mkdir(parents=True, exist_ok=True)
        fit = RunningFit(self._context, plan)
        self._fits.add(fit)
        return fit

    def wait(self, fits: Sequence[Any], seconds: float) -> Sequence[Any]:
        """Return those of `fits` that have something to say or have ended, after at most `seconds`."""
        return wait_for(fits, seconds)

    def ask(
        self, question: Callable[[FitPlan], object], plans: Sequence[FitPlan], *, seconds: float, at_a_time: int = 1
    ) -> list[Failure | None]:
        """Ask `question` about each of `plans`, in a process of its own each; return what it raised.

        None where it raised nothing, and where its process died or took longer than `seconds`.
        """
        answers: dict[int, Failure | None] = {}
        asked: dict[int, _Asked] = {}
        try:
            while len(answers) < len(plans):
                for number in range(len(answers) + len(asked), min(len(plans), len(answers) + at_a_time)):
                    asked[number] = _Asked(self._context, question, plans[number], seconds)
                connection.wait([sign for one in asked.values() for sign in one.signs], timeout=1.0)
                for number in [number for number, one in asked.items() if one.is_over]:
                    answers[number] = asked.pop(number).answer()
        finally:
            for one in asked.values():
                one.answer()
        return [answers[number] for number in range(len(plans))]

    def close(self) -> None:
        """End every fit that is still under way."""
        for fit in list(self._fits):
            fit.end()
        self._fits.clear()


def wait_for(fits: Sequence[RunningFit], seconds: float) -> list[RunningFit]:
    """Return those of `fits` that have something to say or have ended, after at most `seconds`."""
    ready = set(connection.wait([sign for fit in fits for sign in fit.signs], timeout=seconds))
    return [fit for fit in fits if not ready.isdisjoint(fit.signs)]


@contextlib.contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say what a signal does
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _do_nothing() -> None:
    """Show that the server can fork."""

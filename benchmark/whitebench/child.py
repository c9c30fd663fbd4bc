"""The inside of a fit's process: its group, its lifeline, its log, and its end put into words."""

from __future__ import annotations

import bdb
import contextlib
import errno
import faulthandler
import fcntl
import logging
import os
import signal
import site
import sys
import sysconfig
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from whitebench.errors import DivergedError, MetricError, UnknownNameError, WhitebenchError
from whitebench.fit import LOG, Answer, FitPlan, Fitted, Message, Outcome, Pruned
from whitebench.result import Failure, FailureKind


def run_child(plan: FitPlan, channel: Connection[Any, Any], lifeline: Connection[Any, Any]) -> None:
    """Run a fit in its own process: everything it prints goes to its log, how it ended to the conductor."""
    os.setpgid(0, 0)
    # Lightning handles SIGTERM by taking note of it. What a fit forks (a pool's workers) would inherit that and
    # outlive `terminate()`.
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    _hold(lifeline)
    _log_to(plan)
    outcome = _outcome(plan, channel)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # the conductor ends the group as soon as it has the outcome
    channel.send(outcome)


def run_question(
    question: Callable[[FitPlan], object],
    plan: FitPlan,
    channel: Connection[Any, Any],
    lifeline: Connection[Any, Any],
) -> None:
    """Ask `question` about a plan in its own process: what it raised goes to the conductor, what it printed nowhere."""
    os.setpgid(0, 0)
    _hold(lifeline)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    try:
        question(plan)
        raised = None
    except BaseException as error:  # whatever a stranger's model does, it is a Failure
        raised = Failure(kind=kind_of(error), message=_message(error), traceback=traceback.format_exc(), log="")
    channel.send(raised)


def _hold(lifeline: Connection[Any, Any]) -> None:
    """End the whole group once the conductor's end of `lifeline` is closed, however that came about."""
    group = os.getpgid(0)
    if hasattr(fcntl, "F_SETSIG"):
        # Linux does it by itself. A thread has to wait for the interpreter's lock, and a fit may hold
        # that for ever (a regular expression gone wild).
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -group)
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    threading.Thread(target=_wait_and_end, args=(lifeline, group), daemon=True).start()


def _wait_and_end(lifeline: Connection[Any, Any], group: int) -> None:
    with contextlib.suppress(EOFError, OSError):
        lifeline.recv_bytes()
    end_group(group)


def _log_to(plan: FitPlan) -> None:
    log = os.open(plan.folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # what a fit said before it was killed counts
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    logging.basicConfig(level=logging.INFO, force=True, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.captureWarnings(capture=True)


def _outcome(plan: FitPlan, channel: Connection[Any, Any]) -> Outcome:
    def hear(message: Message) -> Answer:
        channel.send(message)
        answer: Answer = channel.recv()
        return answer

    try:
        return _run(plan, hear)
    except BaseException as error:  # whatever a stranger's model does, it is a Failure
        traceback.print_exc()
        return Failure(
            kind=kind_of(error),
            message=_message(error),
            traceback=traceback.format_exc(),
            log=str(plan.folder / LOG),
        )


def outcome_here(plan: FitPlan, hear: Callable[[Message], Answer]) -> Outcome:
    """Run a fit in the process that asks for it, and return how it ended; only who debugs it may stop it.

    Raises:
        KeyboardInterrupt: it was stopped, by Ctrl-C or from a debugger.
    """
    try:
        return _run(plan, hear)
    except BaseException as error:
        if _is_stopped(error):
            raise KeyboardInterrupt from error
        traceback.print_exc()
        return Failure(kind=kind_of(error), message=_message(error), traceback=traceback.format_exc())


def _is_stopped(error: BaseException | None) -> bool:
    """Return whether an exception comes of Ctrl-C (which Lightning makes a SystemExit of) or of leaving a debugger."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt | bdb.BdbQuit):
            return True
        error = error.__cause__ or error.__context__
    return False


def _run(plan: FitPlan, hear: Any) -> Fitted | Pruned:
    from whitebench.catalog import load_catalog
    from whitebench.fitting import run_fit

    catalog = load_catalog(plan.plugins)
    try:
        return run_fit(plan, catalog, hear)
    except UnknownNameError as error:
        if catalog.quarantined:  # the conductor knew the name, so its plugin loads there and not here
            raise ImportError(str(error)) from error
        raise


def kind_of(error: BaseException) -> FailureKind:
    """Return the kind of failure that an exception in a fit is."""
    if isinstance(error, DivergedError):
        return FailureKind.NAN
    if isinstance(error, MetricError):
        return FailureKind.METRIC
    if isinstance(error, ImportError):
        return FailureKind.IMPORT
    if isinstance(error, WhitebenchError):
        return FailureKind.CONFIG
    # torch says it in words: OutOfMemoryError is a RuntimeError, and so is what RLIMIT_AS leads to.
    words = str(error)
    is_system = isinstance(error, OSError) and error.errno == errno.ENOMEM
    if isinstance(error, MemoryError) or is_system or "out of memory" in words or "can't allocate memory" in words:
        return FailureKind.OOM
    return FailureKind.ERROR


def _message(error: BaseException) -> str:
    text = " ".join(str(error).split())[:500]
    if isinstance(error, SystemExit):
        return f"the fit called sys.exit({text})"
    if isinstance(error, WhitebenchError | DivergedError | MetricError):
        return text
    return f"{type(error).__name__}: {text}{_place(error)}"


def _place(error: BaseException) -> str:
    """Return the last line of a plugin's own code that an error passed through, ` (FILE:LINE in FUNCTION)`."""
    libraries = tuple({*site.getsitepackages(), sysconfig.get_path("stdlib"), str(Path(__file__).parent)})
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(libraries)]
    return f" ({frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name})" if frames else ""


def end_group(group: int) -> None:
    """End every process of a group, if it is still there."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)

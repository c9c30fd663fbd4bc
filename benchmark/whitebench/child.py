"""The inside of a fit's process: its group, its lifeline, its log, its limits, and how it came out."""

from __future__ import annotations

import bdb
import contextlib
import faulthandler
import fcntl
import gc
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from whitebench import memory, pulse
from whitebench.errors import StoreError, UnknownNameError
from whitebench.fault import failure_of
from whitebench.fit import Answer, FitPlan, Fitted, Message, Outcome, Pruned
from whitebench.kin import adopt_orphans, end_group
from whitebench.ranks import run_ranks
from whitebench.transcript import size

MIB = 2**20

GLANCE = 0.2
"""Seconds between two looks at the log: a loop of prints makes some 100 MB in each second."""

FOLDER_PATIENCE = 10.0
"""Seconds to wait for an earlier life of a fit, which is ended within one."""

DUMP = signal.SIGUSR1
"""The signal at which a fit writes to its log where it is, and ends."""


OUTSIDE = (signal.SIGTERM, signal.SIGHUP, signal.SIGXCPU)
"""Signals from outside that end a fit, and what it starts."""


def run_child(plan: FitPlan, channel: Connection[Any, Any], lifeline: Connection[Any, Any], beats: Any) -> None:
    """Run a fit in its own process: everything it prints goes to its log, how it ended to the conductor.

    What it says goes through `channel` with the moment at which it was said; `beats` holds the moment of its
    last sign of life.
    """
    _collect_own_garbage()
    os.setpgid(0, 0)
    os.environ.pop("PYTHONSAFEPATH", None)  # for the server alone, not for what a fit starts
    adopt_orphans()
    _hold(lifeline, plan)
    _beat_into(beats)
    if plan.is_first:
        _hold_folder(plan.folder)
    outcome = _outcome(plan, channel)
    with contextlib.suppress(Exception):  # the disk may be full, and a stranger may have closed them
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # the conductor ends the group as soon as it has the outcome
    channel.send((time.monotonic(), outcome))


def _collect_own_garbage() -> None:
    """Collect garbage as Python does, but never look through what the server has imported: that stays."""
    gc.freeze()
    gc.enable()


def run_question(
    question: Callable[[FitPlan], object],
    plan: FitPlan,
    channel: Connection[Any, Any],
    lifeline: Connection[Any, Any],
) -> None:
    """Ask `question` about a plan in its own process: its answer, or what it raised, goes to the conductor.

    What it prints goes nowhere.
    """
    _collect_own_garbage()
    os.setpgid(0, 0)
    for number in OUTSIDE:
        signal.signal(number, signal.SIG_DFL)  # the server is deaf to them
    _hold(lifeline, plan)
    _silence()
    _choose_device(plan)
    try:
        answer = question(plan)
    except BaseException as error:  # whatever a stranger's model does, it is a Failure
        memory.lift_limit()
        answer = failure_of(error, plan)
    channel.send(answer)


def _hold(lifeline: Connection[Any, Any], plan: FitPlan) -> None:
    """End the whole group once the conductor's end of `lifeline` is closed, however that came about."""
    group = os.getpgid(0)
    if hasattr(fcntl, "F_SETSIG"):
        # Linux does it by itself. A thread has to wait for the interpreter's lock, and a fit may hold
        # that for ever (a regular expression gone wild).
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -group)
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    threading.Thread(target=_watch_and_end, args=(lifeline, group, plan), daemon=True).start()


def _watch_and_end(lifeline: Connection[Any, Any], group: int, plan: FitPlan) -> None:
    log = plan.log
    most = size(log) + plan.limits.log_mib * MIB
    with contextlib.suppress(EOFError, OSError):
        while not lifeline.poll(GLANCE):
            if size(log) > most:  # the conductor looks too, but it may be busy storing
                os.kill(os.getpid(), DUMP)
    end_group(group)


def _hold_folder(folder: Path) -> None:
    """Wait until an earlier life of this fit, whose conductor was killed a moment ago, writes to its folder no more."""
    deadline = time.monotonic() + FOLDER_PATIENCE
    with contextlib.suppress(OSError):  # a full disk is heard of by what needs room on it
        held = os.open(folder / ".held", os.O_RDWR | os.O_CREAT, 0o644)  # let go by the system when this process ends
        while time.monotonic() < deadline:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.05)
            else:
                return


def _beat_into(beats: Any) -> None:
    def note() -> None:
        beats.value = time.monotonic()

    pulse.on_beat(note)
    pulse.beat()


def _silence() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def _log_to(file: Path) -> None:
    try:
        log = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError:  # its folder is gone, or the disk is full: a fit never writes to the conductor's terminal
        _silence()
        raise
    os.dup2(log, 1)
    os.dup2(log, 2)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # what a fit said before it was killed counts
    _say_where_on_the_way_out(log)
    logging.basicConfig(level=logging.INFO, force=True, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.captureWarnings(capture=True)


def _say_where_on_the_way_out(log: int) -> None:
    """Let every signal that can be caught write to the log where the fit is, then end it.

    Asked from outside, the main thread alone says where it is: the others go on meanwhile, and their frames may be
    freed while they are read. With one busy thread every second dump of all of them died of that, before it came to
    the main thread, which stands last.
    """
    faulthandler.enable(file=log)
    for number in (DUMP, *OUTSIDE):
        signal.signal(number, signal.SIG_DFL)
        faulthandler.register(number, file=log, all_threads=False, chain=True)
    # What a fit forks (a pool's workers) shall end at `terminate()` without a word.
    os.register_at_fork(after_in_child=lambda: [signal.signal(number, signal.SIG_DFL) for number in OUTSIDE])


def _outcome(plan: FitPlan, channel: Connection[Any, Any]) -> Outcome:
    def hear(message: Message) -> Answer:
        channel.send((time.monotonic(), message))
        answer: Answer = channel.recv()
        return answer

    try:
        _log_to(plan.log)
        if plan.limits.memory_gib is not None:
            memory.limit_memory(plan.limits.memory_gib)
        _choose_device(plan)
        if plan.devices > 1 or plan.seat is not None:
            return run_ranks(plan, partial(_run, plan), hear)
        return _run(plan, hear)
    except BaseException as error:  # whatever a stranger's model does, it is a Failure
        memory.lift_limit()
        with contextlib.suppress(Exception):  # the disk may be full
            traceback.print_exc()
        return failure_of(error, plan)


def outcome_here(plan: FitPlan, hear: Callable[[Message], Answer]) -> Outcome:
    """Run a fit in the process that asks for it, and return how it ended; only who debugs it may stop it.

    Raises:
        KeyboardInterrupt: it was stopped, by Ctrl-C or from a debugger.
    """
    try:
        _choose_device(plan)
        return _run(plan, hear)
    except StoreError:  # of the conductor, to whom the fit was just speaking
        raise
    except BaseException as error:
        if _is_stopped(error):
            raise KeyboardInterrupt from error
        traceback.print_exc()
        return failure_of(error, plan)


def _is_stopped(error: BaseException | None) -> bool:
    """Return whether an exception comes of Ctrl-C (which Lightning makes a SystemExit of) or of leaving a debugger."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt | bdb.BdbQuit):
            return True
        error = error.__cause__ or error.__context__
    return False


def _choose_device(plan: FitPlan) -> None:
    if plan.is_on_cpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # read when CUDA is first used, which nothing has done yet
    elif plan.gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(plan.gpus)


def _run(plan: FitPlan, hear: Any) -> Fitted | Pruned:
    from whitebench.catalog import load_catalog
    from whitebench.fitting import run_fit
    from whitebench.recount import recount

    catalog = load_catalog(plan.plugins, owners=plan.owners, is_vetted=False)
    try:
        return recount(plan, catalog) if plan.purpose == "recount" else run_fit(plan, catalog, hear)
    except UnknownNameError as error:
        if catalog.quarantined:  # the conductor knew the name, so its plugin loads there and not here
            raise ImportError(str(error)) from error
        raise

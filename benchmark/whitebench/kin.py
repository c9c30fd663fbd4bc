"""The processes that come from a process: those it started, those they started, and those that ran away.

A daemon leaves its group (setsid) and loses its parent (a double fork). On Linux an ancestor may adopt such
orphans (PR_SET_CHILD_SUBREAPER, prctl(2)); elsewhere they are found only while their parent lives.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Collection, Sequence

import psutil

PR_SET_CHILD_SUBREAPER = 36
"""From linux/prctl.h."""


def adopt_orphans() -> None:
    """Become the parent of every descendant that loses its own; children do not inherit this."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(pid: int, but: Collection[int] = ()) -> list[psutil.Process]:
    """Return all processes that descend from `pid` now, without the children named in `but` and theirs."""
    with contextlib.suppress(psutil.Error):
        children = [child for child in psutil.Process(pid).children() if child.pid not in but]
        return [one for child in children for one in (child, *_below(child))]
    return []


def end(processes: Sequence[psutil.Process]) -> list[str]:
    """End processes; return those that were not gone yet, as people know them: `sleep (12)`."""
    ended = []
    for one in processes:
        with contextlib.suppress(psutil.Error):
            name = f"{one.name()} ({one.pid})"
            is_dead = one.status() == psutil.STATUS_ZOMBIE  # nobody has asked after it yet
            one.kill()
            ended += [] if is_dead else [name]
    return ended


def end_descendants(pid: int, *, seconds: float, but: Collection[int] = ()) -> list[str]:
    """End all that descends from `pid`, what comes up meanwhile too; return them, as `end` does, once they are gone.

    After `seconds` it gives up on what is left.
    """
    deadline = time.monotonic() + seconds
    ended: list[str] = []
    while (left := descendants(pid, but)) and time.monotonic() < deadline:
        ended += end(left)
        if pid == os.getpid():
            _bury()
        time.sleep(0.01)
    return list(dict.fromkeys(ended))


def is_gone(pid: int) -> bool:
    """Return whether a process has ended, be it that nobody has asked after it yet."""
    try:
        return str(psutil.Process(pid).status()) == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True


def end_group(group: int) -> None:
    """End every process of a group, if it is still there."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def is_group_gone(group: int) -> bool:
    """Return whether a group has no process left."""
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):  # the latter is macOS's word for a group of dead ones
        return True
    return False


def _below(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return process.children(recursive=True)
    return []


def _bury() -> None:
    """Take note of every child of ours that has ended, so that the system forgets it."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass

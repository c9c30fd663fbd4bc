"""A place for one fit at a time on a node: inside a Ray worker, fits run as they do on the conductor's own machine.

Each is a process group of its own, forked from a server that stays warm between fits. A worker that dies, however that
came about, takes its server and its fit with it. Its methods are called one after the other.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from whitebench.launching import Answer, Failure, FitPlan, Launcher, Message, Outcome
from whitebench_ray.likeness import differences, installation
from whitebench_ray.parcel import Heard, Parcel, left_in, unpack

PREFIX = f"whitebench-ray-{os.getuid()}-"
"""How the folders in which fits work begin, in a node's folder for temporary files."""

BREAKPOINT = "PYTHONBREAKPOINT"
"""The variable in which Ray names a debugger of its own, which waits for somebody to attach it."""

Told = TypeVar("Told")


def put_back_breakpoint(name: str | None) -> None:
    """Let `breakpoint()` be what it was."""
    os.environ.pop(BREAKPOINT, None)
    if name is not None:
        os.environ[BREAKPOINT] = name


class Berth:
    """Runs the fits that the conductor hands it."""

    def __init__(self, threads: int, node: str, gpus: Sequence[str] | None) -> None:
        # A fit would import the worker's own script, and Ray with it, before it begins.
        vars(sys.modules["__main__"]).pop("__file__", None)
        put_back_breakpoint(None)
        self._node, self._gpus = node, None if gpus is None else tuple(gpus)
        self._folder, self._held = _own_folder()
        self._launcher = Launcher(threads=threads)
        self._fit: Any = None
        self._complaint = ""

    def start(self, parcel: Parcel, installed: dict[str, str]) -> None:
        """Start a fit, unless what is installed here is not what is `installed` on the conductor's machine."""
        self.end()
        other = differences(installed, installation(parcel.plan.owners))
        self._complaint = f"what is installed on {os.uname().nodename} is not what is installed here: {other}"
        if not other:
            self._complaint = ""
            plan = dataclasses.replace(unpack(parcel, self._folder), gpus=self._gpus)
            self._fit = self._launcher.start(plan)

    def hear(self, seconds: float) -> Heard:
        """Return what the fit says next, or how it ended; after so many seconds that it has said nothing."""
        if self._complaint:
            return Heard(node=self._node, complaint=self._complaint)
        said = self._fit.fault() or self._said(seconds)
        heard = Heard(node=self._node, seconds=self._fit.seconds, said=said)
        if said is None or isinstance(said, Message):
            return heard
        self._fit.end()
        files = left_in(self._fit.plan.folder)
        self.end()
        return dataclasses.replace(heard, files=files)

    def answer(self, answer: Answer) -> None:
        """Answer what the fit said last."""
        self._fit.answer(answer)

    def end(self) -> None:
        """End the fit, where one is under way, and remove what it wrote."""
        if self._fit is not None:
            self._fit.end()
            self._fit = None
        for place in (self._folder / "fit", self._folder / "plugins"):
            shutil.rmtree(place, ignore_errors=True)

    def ask(
        self, question: Callable[[FitPlan], Told], parcels: Sequence[Parcel], seconds: float
    ) -> list[Told | Failure | None]:
        """Ask `question` about each plan in a process of its own; return its answers, or what it raised."""
        plans = [unpack(parcel, self._folder) for parcel in parcels]
        try:
            return self._launcher.ask(question, plans, seconds=seconds)
        finally:
            self.end()

    def _said(self, seconds: float) -> Message | Outcome | None:
        told: list[Message | Outcome] = []
        deadline = time.monotonic() + seconds
        while not told and (left := deadline - time.monotonic()) > 0:
            for fit in self._launcher.wait([self._fit], left):
                fit.attend(lambda _, said: told.append(said), lambda: None)
        return told[0] if told else None


def _own_folder() -> tuple[Path, int]:
    """Return a new folder, held by a lock for as long as this process lives; remove those whose holders are dead."""
    root = Path(tempfile.gettempdir())
    for old in root.glob(f"{PREFIX}*"):
        lock = _lock(old)
        if lock is not None:
            shutil.rmtree(old, ignore_errors=True)
            os.close(lock)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    lock = _lock(folder)
    assert lock is not None
    return folder, lock


def _lock(folder: Path) -> int | None:
    """Return the lock of a folder, or None where somebody else holds it."""
    try:
        lock = os.open(folder, os.O_RDONLY)
    except OSError:  # somebody else has just removed it
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock

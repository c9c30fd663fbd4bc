"""A stranger's plugin tried in a process of its own, so that what it does on import is done there.

A fork: torch and whatever else is loaded is there already, and the trial costs the plugin's own import. In a
process with threads a fork may hang on a lock that another thread held; the trial is then ended and the plugin
turned away by its time limit, with the place where it hung.
"""

from __future__ import annotations

import faulthandler
import fcntl
import gc
import json
import multiprocessing
import os
import re
import signal
import sys
import time
import warnings
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from whitebench.door import Quarantined, let_in, place_of, too_long
from whitebench.plugin import Loader, Owner
from whitebench.quotation import readable, told

MOST_PRINTED = 2**20
"""Bytes that a plugin may print while it is loaded."""

GRACE = 2.0
"""Seconds after its time in which a plugin says itself where it is; one that holds the interpreter's lock cannot."""

_LOOK = 0.05
"""Seconds between two looks at how much was printed."""


def is_possible() -> bool:
    """Return whether this process bears a fork; where it does not, the door alone stands guard.

    The libraries of macOS do not, and neither does CUDA once it is in use.
    """
    torch = sys.modules.get("torch")
    return sys.platform == "linux" and not (torch is not None and torch.cuda.is_initialized())


def vet(owner: Owner, load: Loader, *, seconds: float) -> Quarantined | None:
    """Load a plugin in a process that is ended afterwards, and return what is wrong with it, if anything is."""
    places = _places(owner)
    try:
        trial = _Trial(owner, load, seconds=seconds)
    except OSError:  # no process to be had: the door stands guard alone
        return None
    try:
        fault = trial.verdict()
        return _deleted(owner, places) or fault
    finally:
        trial.end()


class _Trial:
    """The process, as its parent holds it."""

    def __init__(self, owner: Owner, load: Loader, *, seconds: float) -> None:
        self._owner, self._seconds = owner, seconds
        self._channel, theirs = multiprocessing.Pipe(duplex=False)
        lifeline, self._lifeline = os.pipe()
        self._printed = os.memfd_create("whitebench-plugin")
        # Ctrl-C between the fork and the child's first line would be two interrupted command lines.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: there may be threads
                self._process = os.fork()
            if self._process == 0:
                self._be_tried(load, theirs, lifeline)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        os.close(lifeline)

    def _be_tried(self, load: Loader, channel: Connection[Any, Any], lifeline: int) -> NoReturn:
        """Load the plugin, say what came of it, and end without a word more: what the parent holds stays its own."""
        try:
            os.setsid()  # a group to be ended; Ctrl-C is typed to the parent; and no terminal to ask questions on
            os.close(self._lifeline)
            _end_with_parent(lifeline)
            _speak_into(self._printed)
            gc.freeze()  # what would be tidied up here is still in use there
            if "torch" in sys.modules:
                sys.modules["torch"].set_num_threads(1)  # more would wait for threads that a fork does not take along
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
            channel.send_bytes(json.dumps(_fault_of(self._owner, load, self._seconds)).encode())
        finally:
            os._exit(0)

    def verdict(self) -> Quarantined | None:
        """Wait for the trial's end; return what is wrong, None where nothing is."""
        deadline = time.monotonic() + self._seconds + GRACE
        while time.monotonic() < deadline:
            is_gone = self._has_ended()
            if self._channel.poll(0 if is_gone else _LOOK):
                try:
                    fault = json.loads(self._channel.recv_bytes())
                except (EOFError, OSError):  # it closed what it did not open, and may go on
                    time.sleep(_LOOK)
                else:
                    return self._printed_too_much() or (Quarantined(owner=self._owner, **fault) if fault else None)
            if too_much := self._printed_too_much():
                return too_much
            if is_gone:
                return self._death()
        return self._hang()

    def end(self) -> None:
        """End the process and what it has started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.kill(self._process, signal.SIGKILL)  # for one that has not come so far as to lead its group
        with suppress(ChildProcessError):
            os.waitpid(self._process, 0)
        self._channel.close()
        os.close(self._lifeline)
        os.close(self._printed)

    def _has_ended(self) -> bool:
        # Its number stays taken until `end`, so that no other process's group is ended in its place.
        return os.waitid(os.P_PID, self._process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _death(self) -> Quarantined:
        end = os.waitid(os.P_PID, self._process, os.WEXITED | os.WNOWAIT)
        assert end is not None
        if end.si_code == os.CLD_EXITED:
            return self._fault(f"it ended the process with exit code {end.si_status} while being loaded")
        names = {number.value: number.name for number in signal.Signals}
        name = names.get(end.si_status, f"signal {end.si_status}")
        hint = " (the system ends processes this way when memory runs out)" if name == "SIGKILL" else ""
        return self._fault(f"its process was ended by {name} while it was being loaded{hint}")

    def _hang(self) -> Quarantined:
        with suppress(ProcessLookupError):
            os.kill(self._process, signal.SIGUSR1)  # faulthandler writes where it is
        time.sleep(0.2)
        frames = re.findall(r'^  File "(.*)", line (\d+) in', self._text(), re.MULTILINE)
        return self._fault(too_long(self._seconds, place_of([(file, int(line)) for file, line in frames], self._owner)))

    def _printed_too_much(self) -> Quarantined | None:
        if os.fstat(self._printed).st_size <= MOST_PRINTED:
            return None
        return self._fault(f"it printed more than {MOST_PRINTED // 2**20} MiB while being loaded")

    def _fault(self, reason: str) -> Quarantined:
        return Quarantined(owner=self._owner, reason=reason, traceback=readable(self._text()))

    def _text(self) -> str:
        size = os.fstat(self._printed).st_size
        return os.pread(self._printed, 64_000, max(0, size - 64_000)).decode(errors="replace")


def _fault_of(owner: Owner, load: Loader, seconds: float) -> dict[str, str]:
    files = _open_files()
    try:
        outcome = let_in(owner, load, seconds=seconds)
    except BaseException as error:  # a Ctrl-C that it has sent itself
        return {"reason": told(error), "traceback": ""}
    if files - _open_files():
        return {"reason": "while being loaded it closed files that it had not opened", "traceback": ""}
    return {"reason": outcome.reason, "traceback": outcome.traceback} if isinstance(outcome, Quarantined) else {}


def _open_files() -> set[tuple[int, int, int]]:
    """Return the files that this process has open, each by its number and what that stands for."""
    found = set()
    for number in (int(entry.name) for entry in Path("/proc/self/fd").iterdir()):
        with suppress(OSError):  # the one that was open for looking
            status = os.fstat(number)
            found.add((number, status.st_dev, status.st_ino))
    return found


def _end_with_parent(lifeline: int) -> None:
    """End the whole group once the parent is gone and with it its end of the pipe."""
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def _speak_into(printed: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDONLY)
    for number, other in ((0, nowhere), (1, printed), (2, printed)):
        os.dup2(other, number)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    faulthandler.enable(file=printed)
    faulthandler.register(signal.SIGUSR1, file=printed, all_threads=False)


def _places(owner: Owner) -> list[Path]:
    """Return what is there to be deleted: the working folder, a local file, and the folder it lies in."""
    file = Path(owner.plugin)
    own = [file.parent, file] if file.is_absolute() else []
    with suppress(FileNotFoundError):
        own.insert(0, Path.cwd())
    return [place for place in own if place.exists()]


def _deleted(owner: Owner, places: list[Path]) -> Quarantined | None:
    gone = [place for place in places if not place.exists()]
    reason = f"while being loaded it deleted {gone[0]}" if gone else ""
    return Quarantined(owner=owner, reason=reason, traceback="") if gone else None

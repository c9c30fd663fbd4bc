"""One plugin let in, or turned away: waited for within limits, its output out of the way, what it changed put back."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from whitebench.errors import PluginError, WhitebenchError
from whitebench.patience import FalseAlarmError, TooLongError, at_most, only_typed
from whitebench.plugin import Loader, Owner, Plugin, admit
from whitebench.quotation import quote, said, told, traceback_of
from whitebench.surroundings import kept

SECONDS = "WHITEBENCH_PLUGIN_SECONDS"
"""The environment variable that says how long a plugin may take to load."""

USUAL_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """A plugin that failed to load: nothing of it is used, everything else works."""

    owner: Owner
    reason: str
    traceback: str


def seconds_allowed() -> float:
    """Return how many seconds a plugin may take to load.

    Raises:
        WhitebenchError: the environment says something that is no number above 0.
    """
    text = os.environ.get(SECONDS, "")
    with suppress(ValueError):
        seconds = float(text or USUAL_SECONDS)
        if 0 < seconds < float("inf"):
            return seconds
    raise WhitebenchError(f"{SECONDS}={quote(text)}: must be a number of seconds above 0")


def let_in(owner: Owner, load: Loader, *, seconds: float) -> Plugin | Quarantined:
    """Load one plugin in this process; raises KeyboardInterrupt if somebody types Ctrl-C meanwhile."""
    process = os.getpid()
    try:
        with only_typed(), _out_of_the_way() as closed, kept() as changed, at_most(seconds):
            plugin = admit(owner, load)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a stranger's module does
        reason = _reason(error, owner, seconds=seconds)
        return Quarantined(owner=owner, reason=reason, traceback=traceback_of(error))
    finally:
        if os.getpid() != process:  # the module has forked, and this is the copy
            os._exit(0)
    if deeds := [*changed, *closed]:
        reason = f"while being loaded it {' and '.join(deeds)}, which all that runs in the process would feel"
        return Quarantined(owner=owner, reason=reason, traceback="")
    return plugin


def too_long(seconds: float, place: str) -> str:
    """Return why a plugin that takes too long is turned away; `place` is where it was."""
    where = f" ({place})" if place else ""
    return f"it was not loaded after {seconds:g} s{where}: if it needs longer, set {SECONDS}"


def place_of(frames: list[tuple[str, int]], owner: Owner) -> str:
    """Return `FILE:LINE` of the innermost of `frames`, innermost first, that is the plugin's own, or of any."""
    top = owner.plugin.partition(":")[0].partition(".")[0]
    own = [frame for frame in frames if frame[0] == owner.plugin or {top, f"{top}.py"} & set(Path(frame[0]).parts)]
    return ":".join(map(str, (own or frames)[0])) if frames else ""


def _reason(error: BaseException, owner: Owner, *, seconds: float) -> str:
    if isinstance(error, SystemExit):
        return f"it called sys.exit({said(error)}) while being loaded"
    if isinstance(error, TooLongError):
        frames = [(one.filename, one.lineno or 0) for one in traceback.extract_tb(error.__traceback__)]
        return too_long(seconds, place_of(frames[::-1], owner))
    return said(error) if isinstance(error, PluginError | FalseAlarmError) else told(error)


@contextmanager
def _out_of_the_way() -> Iterator[list[str]]:
    """Send what the body prints to stderr, as stdout may be read by a program; say whether it closed either."""
    deeds: list[str] = []
    streams = sys.stdin, sys.stdout, sys.stderr
    kept_open = [_copy(number) for number in (1, 2)]
    with suppress(Exception):  # a stream that is closed has nothing to flush
        sys.stdout.flush()
    _replace(1, 2)
    sys.stdout = sys.stderr
    try:
        yield deeds
    finally:
        sys.stdin, sys.stdout, sys.stderr = streams
        for number, copy in enumerate(kept_open, start=1):
            if copy is not None:
                _replace(number, copy)
                os.close(copy)
        if any(getattr(stream, "closed", False) for stream in streams[1:]):
            deeds.append("closed stdout or stderr")


def _copy(number: int) -> int | None:
    try:
        return os.dup(number)
    except OSError:  # nobody gave us one
        return None


def _replace(number: int, other: int) -> None:
    with suppress(OSError):
        os.dup2(other, number)

"""How long a stranger's code is waited for, and whose Ctrl-C a KeyboardInterrupt is.

Both take signals, which only the main thread may do: in another thread a stranger is waited for as long as it takes.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from typing import Any

AGAIN = 1.0
"""Seconds after which one that caught the first TooLongError gets another."""


class TooLongError(BaseException):
    """Patience has run out; no Exception, so that a stranger's `except Exception` does not catch it."""


class FalseAlarmError(RuntimeError):
    """A KeyboardInterrupt that nobody typed."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise TooLongError in a body that takes longer than `seconds`, unless it holds the interpreter's lock."""
    if seconds == inf or threading.current_thread() is not threading.main_thread():
        yield
        return
    is_running, began = True, time.monotonic()

    def ring(*_: object) -> None:
        if is_running:
            raise TooLongError(f"longer than {seconds:g} s")

    handler = signal.signal(signal.SIGALRM, ring)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        try:
            yield
        finally:
            is_running = False  # a ring from here on would hit the harness
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler if handler is not None else signal.SIG_DFL)
        if left:  # somebody else was waiting too, a test's own time limit
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - began), 0.001), interval)


@contextmanager
def only_typed() -> Iterator[None]:
    """Let Ctrl-C through, whatever the body made of it; any other KeyboardInterrupt is a FalseAlarmError.

    Raises:
        KeyboardInterrupt: somebody typed Ctrl-C.
        FalseAlarmError: the body raised KeyboardInterrupt by itself.
    """
    is_typed = False
    handler: Any = signal.getsignal(signal.SIGINT)

    def hear(*arguments: Any) -> None:
        nonlocal is_typed, handler
        try:
            handler(*arguments)
        except KeyboardInterrupt:
            is_typed = True
            raise
        finally:
            # Of the conductor's two signals the first is kept for later, and it hands over to who hears the second.
            if (now := signal.getsignal(signal.SIGINT)) is not hear:
                handler = now
                if callable(handler):
                    signal.signal(signal.SIGINT, hear)

    is_ours = threading.current_thread() is threading.main_thread() and callable(handler)
    if is_ours:
        signal.signal(signal.SIGINT, hear)
    try:
        yield
    except KeyboardInterrupt as error:
        if is_typed:
            raise
        raise FalseAlarmError("it raised KeyboardInterrupt, and nobody typed Ctrl-C") from error
    except BaseException as error:  # some library swallowed it while half loaded, and broke of that
        if is_typed:
            raise KeyboardInterrupt from error
        raise
    finally:
        if is_ours:
            signal.signal(signal.SIGINT, handler)
    if is_typed:
        raise KeyboardInterrupt

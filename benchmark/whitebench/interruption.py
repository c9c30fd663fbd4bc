"""Ctrl-C, and what else asks a process to stop, heard only where nothing is half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """While entered, keeps the first signal to stop until a moment that welcomes it; the second acts at once."""

    def __init__(self) -> None:
        self.is_wanted = False
        self.is_gentle = False
        """Whether it was asked for by SIGTERM, which leaves time to put things down."""
        self._is_welcome = False
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` stays `nohup`
                    self._handlers[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    @contextmanager
    def welcome(self) -> Iterator[None]:
        """Let a signal, also one that came earlier, raise KeyboardInterrupt in the body."""
        self._is_welcome = True
        try:
            if self.is_wanted:
                raise KeyboardInterrupt
            yield
        finally:
            self._is_welcome = False

    def _hear(self, number: int, _frame: object) -> None:
        self.is_wanted, self.is_gentle = True, number == signal.SIGTERM
        self.__exit__()
        if self._is_welcome:
            raise KeyboardInterrupt

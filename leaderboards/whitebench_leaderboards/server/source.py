"""Where the server's ledgers come from, and the store that tells the details of a cell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from whitebench.address import exists
from whitebench.ledger import Ledger
from whitebench.store import Store

PATIENCE = 2.0
"""Seconds that a page waits for a store that is busy; the next look is soon."""

Key = tuple[str, str]
"""A suite's name and its overrides as one text, `budget.epochs=3 budget.trials=0`; empty for the suite as it stands."""


class Source(Protocol):
    """What the server needs of whoever reads the store; `whitebench_leaderboards.index.Index` is one."""

    def refresh(self) -> frozenset[Key]:
        """Look at the store again, and return what has changed since the last time."""

    def suites(self) -> list[Key]:
        """Return what the store has cells of."""

    def ledger(self, suite: str, overrides: Sequence[str] = (), plugins: Sequence[Path] = ()) -> Ledger:
        """Return what the store has of a suite, given by its name or the path of its file."""


class Door:
    """The store at an address, opened for reading once there is one."""

    def __init__(self, uri: str) -> None:
        """Name the store, which need not exist yet."""
        self.uri = uri
        self._store: Store | None = None

    def store(self) -> Store | None:
        """Return the store; None while there is none."""
        if self._store is None and exists(self.uri):
            self._store = Store(self.uri, patience=PATIENCE, is_reader=True)
        return self._store

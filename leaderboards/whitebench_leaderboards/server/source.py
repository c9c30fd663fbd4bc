"""Where the server's ledgers come from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from whitebench.ledger import Ledger
from whitebench.tags import OpenStudy

Key = tuple[str, str]
"""A suite's name and its overrides as one text, `budget.epochs=3 budget.trials=0`; empty for the suite as it stands."""


class Source(Protocol):
    """What the server needs of whoever reads the store; `whitebench_leaderboards.index.Index` is one."""

    def refresh(self) -> frozenset[Key]:
        """Look at the store again, and return what has changed since the last time."""

    def suites(self) -> list[Key]:
        """Return what the store has cells of, or is to have soon."""

    def open_studies(self, suite: str, overrides: str) -> Sequence[OpenStudy]:
        """Return the tuning of a suite that was under way at the last look."""

    def ledger(self, suite: str, overrides: Sequence[str] = (), plugins: Sequence[Path] = ()) -> Ledger:
        """Return what the store has of a suite, given by its name or the path of its file."""

"""Where the server's ledgers come from: asked for what changed, so that nothing is read twice."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from whitebench.address import exists, sqlite_file
from whitebench.catalog import Catalog
from whitebench.ledger import Ledger, canonical_overrides, ledger_of
from whitebench.store import Store
from whitebench.suite import load_suite

PATIENCE = 2.0
"""Seconds that a page waits for a store that is busy; the next look is soon."""

Key = tuple[str, str]
"""A suite's name and its overrides as one text, `budget.epochs=3 budget.trials=0`; empty for the suite as it stands."""


class Source(Protocol):
    """What the server needs of whoever reads the store."""

    def refresh(self) -> frozenset[Key]:
        """Look at the store again, and return what has changed since the last time."""

    def suites(self) -> list[Key]:
        """Return what the store has cells of."""

    def ledger(self, suite: str, overrides: Sequence[str] = (), plugins: Sequence[Path] = ()) -> Ledger:
        """Return what the store has of a suite, given by its name or the path of its file."""


class StoreSource:
    """A source that asks the store itself each time; one that does not exist yet is empty."""

    def __init__(self, uri: str, catalog: Catalog) -> None:
        self.uri, self.catalog = uri, catalog
        self._store: Store | None = None
        self._seen: dict[Key, object] = {}
        self._file_seen: object = None

    @property
    def store(self) -> Store | None:
        """The store, once there is one."""
        if self._store is None and exists(self.uri):
            self._store = Store(self.uri, patience=PATIENCE)
        return self._store

    def refresh(self) -> frozenset[Key]:
        """See `Source`."""
        if self.store is None:
            return frozenset()
        # A file that nobody wrote into says the same again, unless somebody who was at work has died since.
        written = self._written()
        if written is not None and written == self._file_seen and not self._is_at_work():
            return frozenset()
        self._file_seen = written
        now: dict[Key, object] = {key: self._fingerprint(self.store, key) for key in self.store.suites()}
        changed = {key for key in {*now, *self._seen} if now.get(key) != self._seen.get(key)}
        self._seen = now
        return frozenset(changed)

    def suites(self) -> list[Key]:
        """See `Source`."""
        return sorted(key for key, cells in self._seen.items() if cells)

    def ledger(self, suite: str, overrides: Sequence[str] = (), plugins: Sequence[Path] = ()) -> Ledger:
        """See `Source`; the plugins are those of the catalog."""
        del plugins
        planned = load_suite(suite, overrides)
        return ledger_of(planned, self.catalog, self.store, overrides=overrides, uri=self.uri, source=suite)

    def _written(self) -> tuple[tuple[int, int], ...] | None:
        """Return what tells whether a SQLite store has been written into; None for another kind of store."""
        file = sqlite_file(self.uri)
        if file is None:
            return None
        facts = [path.stat() for path in (file, file.with_name(f"{file.name}-wal")) if path.exists()]
        return tuple((one.st_mtime_ns, one.st_size) for one in facts)

    def _is_at_work(self) -> bool:
        return any("running" in str(cells) for cells in self._seen.values())

    @staticmethod
    def _fingerprint(store: Store, key: Key) -> tuple[tuple[str, str, str], ...]:
        return tuple((one.run_id, one.state, one.result_sha256) for one in store.cells(*key))


def split_overrides(text: str) -> tuple[str, ...] | None:
    """Return overrides as they would be typed, from the one text that the store knows them by; None where it cannot be.

    The store cannot hold an apostrophe in them and has a typographic one in its place.
    """
    typed = tuple(part for part in re.split(r" (?=[a-z_][\w.-]*=)", text.replace("’", "'")) if part)
    return typed if canonical_overrides(typed) == text.replace("’", "'") else None

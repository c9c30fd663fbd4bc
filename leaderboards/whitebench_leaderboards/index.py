"""Index: what a store holds of cells, read piece by piece, and kept for the next who asks.

A look at the store asks for a mark of every run and for the tags of those whose mark is another than before. What a
finished run has stored never changes: it is read once, and kept in a cache on this machine.
"""

from __future__ import annotations

import hashlib
import json
import threading
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from whitebench.address import cache_folder, resolve_uri
from whitebench.calibration import Calibration
from whitebench.catalog import Catalog, load_catalog
from whitebench.errors import LostResultError
from whitebench.identity import Parts
from whitebench.ledger import Ledger, PlannedCell, ledger_of, plan_cells
from whitebench.result import Result, digest
from whitebench.store import IDENTITY, RESULT, Store, read_result
from whitebench.suite import Suite, load_suite
from whitebench.tags import OpenStudy, StoredCell, queryable
from whitebench_leaderboards.cache import Cache
from whitebench_leaderboards.door import Door
from whitebench_leaderboards.garbage import collecting_nothing

if TYPE_CHECKING:
    from whitebench.tables import Mark

SAMPLES = "per-sample"
"""Under this name the primary metric on each test sample is kept, as float64; no bytes where it is no mean."""

PIECE = 200
"""Cells whose files are read between two writes into the cache."""

PATIENCE = 5.0
"""Seconds that a store which is locked or away is waited for."""


class Index:
    """The cells in one store, as of the last `refresh`; threads may share it.

    A store that does not exist is empty. Results are in memory for as long as somebody holds a ledger they are in:
    whoever keeps the last one gets the next in a fraction of the time.
    """

    def __init__(
        self,
        uri: str | None,
        cache: Path | None = None,
        *,
        catalogs: Mapping[tuple[Path, ...], Catalog] | None = None,
    ) -> None:
        """Name a store.

        Args:
            uri: None for the store in the working folder.
            cache: the folder of the cache, None for the user's own.
            catalogs: those that are loaded already, by their plugin files. Where threads share the index they must be:
                a plugin beside whose loading a thread begins is taken to have begun it, and turned away.

        Raises:
            StoreError: the URI names no store.
        """
        self.uri = resolve_uri(uri)
        folder = cache or _folder()
        name = f"{hashlib.sha256(self.uri.encode()).hexdigest()[:16]}.db"
        self._cache = Cache(folder / name if folder else None)
        self._lock = threading.RLock()
        self._door = Door(self.uri, PATIENCE)
        self._store: Store | None = None
        self._marks: dict[str, Mark] = {}
        self._cells: dict[str, StoredCell] = {}
        self._studies: list[OpenStudy] = []
        self._results: WeakValueDictionary[str, Result] = WeakValueDictionary()
        self._samples: WeakValueDictionary[str, array[float]] = WeakValueDictionary()
        self._catalogs = dict(catalogs or {})
        self._plans: dict[tuple[str, ...], tuple[Suite, Catalog, list[PlannedCell]]] = {}

    def refresh(self) -> frozenset[tuple[str, str]]:
        """Look at the store, and return the suites, each with its overrides, whose cells have changed since.

        Raises:
            StoreError: the store cannot be read.
        """
        with self._lock, collecting_nothing():
            store = self._open()
            marks, news = store.changed_cells(self._marks) if store else ({}, [])
            before, after = self._cells, {one.run_id: one for one in news}
            after |= {run_id: one for run_id, one in before.items() if run_id in marks and run_id not in after}
            if store:
                self._fill_cache(store, news)
            self._cache.forget(before.keys() - after.keys())
            self._marks, self._cells = marks, after
            self._studies = store.open_studies() if store else []
            return frozenset((one.cell.suite, one.overrides) for one in _changed(before, after))

    def suites(self) -> list[tuple[str, str]]:
        """Return the suites, each with its overrides on one line, that the store has cells of or is to have soon."""
        with self._lock:
            begun = {(one.suite, one.overrides) for one in self._studies}
            cells = (one for one in self._cells.values() if not one.is_deleted)
            return sorted(begun | {(one.cell.suite, one.overrides) for one in cells})

    def open_studies(self, suite: str, overrides: str) -> list[OpenStudy]:
        """Return the tuning of a suite that was under way at the last look; its changes are no news to `refresh`."""
        with self._lock:
            return [one for one in self._studies if (one.suite, one.overrides) == (suite, queryable(overrides))]

    def ledger(self, suite: str, overrides: Sequence[str] = (), plugins: Sequence[Path] = ()) -> Ledger:
        """Return what the store had of a suite at the last look, as `whitebench.ledger.read_ledger` does.

        Args:
            suite: a suite's name or the path of its file.
            overrides: texts like `budget.epochs=3`; `whitebench.ledger.overrides_of` makes them of a line.
            plugins: local plugin files.

        Raises:
            WhitebenchError: the suite cannot be planned, or what is not in the cache cannot be read from the store.
        """
        with self._lock, collecting_nothing():
            files = tuple(plugins)
            if files not in self._catalogs:
                self._catalogs[files] = load_catalog(files)
            catalog, loaded = self._catalogs[files], load_suite(suite, overrides)
            planned = self._plan((suite, *overrides), loaded, catalog)
            return ledger_of(loaded, catalog, self, overrides=overrides, uri=self.uri, source=suite, planned=planned)

    # What cells are judged by

    def cells(self, suite: str, overrides: str) -> list[StoredCell]:
        """Return every run of a cell of `suite` under exactly these overrides, oldest first."""
        wanted = (suite, queryable(overrides))
        mine = [one for one in self._cells.values() if (one.cell.suite, one.overrides) == wanted and not one.is_deleted]
        return sorted(mine, key=lambda one: (one.started, one.run_id))

    def all_openings(self) -> Counter[tuple[str, str]]:
        """Return how often each test split has been opened up to now, by the contestant's key and the task."""
        return _openings(self._cells.values())

    def calibrations(self, suite: str, overrides: str) -> list[Calibration]:
        """Return how much one cell of a suite was found to differ from itself; asked of the store, there are few."""
        return self._store.calibrations(suite, overrides) if self._store else []

    def result(self, stored: StoredCell) -> Result:
        """Return a finished cell's result; raises LostResultError."""
        found = self._results.get(stored.run_id)
        if found is None:
            found = read_result(stored, self._text(stored, RESULT, stored.result_sha256))
            self._results[stored.run_id] = found
        return found

    def per_sample(self, stored: StoredCell) -> array[float] | None:
        """Return its primary metric on each test sample, where it is a mean over them; raises LostResultError."""
        found = self._samples.get(stored.run_id)
        if found is None:
            content = self._cache.get(stored.run_id, SAMPLES)
            if content is None:
                content = _bytes(self._reader.per_sample(stored))
                self._cache.keep([(stored.run_id, SAMPLES, content)])
            if not content:
                return None
            found = self._samples[stored.run_id] = array("d", content)
        return found

    def parts(self, stored: StoredCell) -> Parts:
        """Return the parts of the identity that a cell was run with; raises LostResultError."""
        parts: Parts = json.loads(self._text(stored, IDENTITY, stored.identity))
        return parts

    # Inside

    def _open(self) -> Store | None:
        store = self._door.store()
        if store is not self._store:  # it was made since the last look, or another took its place
            self._store, self._marks = store, {}
        return store

    @property
    def _reader(self) -> Store:
        assert self._store is not None, "cells come from a store"
        return self._store

    def _plan(self, asked: tuple[str, ...], suite: Suite, catalog: Catalog) -> list[PlannedCell]:
        """Return the suite's cells: those of the last time where nothing can have changed, for code is loaded once."""
        known = self._plans.get(asked)
        is_free = not suite.paths and not any(one.weights for one in suite.contestants)  # of files that may change
        if known and known[:2] == (suite, catalog) and is_free and not any(one.identity.unknown for one in known[2]):
            return known[2]
        planned = plan_cells(suite, catalog)
        self._plans[asked] = (suite, catalog, planned)
        return planned

    def _fill_cache(self, store: Store, news: Sequence[StoredCell]) -> None:
        kept = self._cache.run_ids(SAMPLES)
        fresh = [one for one in news if one.state == "finished" and not one.is_deleted and one.run_id not in kept]
        for start in range(0, len(fresh), PIECE):
            self._cache.keep(row for one in fresh[start : start + PIECE] for row in _rows(store, one))

    def _text(self, stored: StoredCell, name: str, sha256: str) -> bytes:
        """Return a file of a run whose sha256 is known, from the cache or else from the store."""
        content = self._cache.get(stored.run_id, name)
        if content is None or digest(content) != sha256:
            read = {RESULT: self._reader.result_text, IDENTITY: self._reader.identity_text}
            content = read[name](stored)
            self._cache.keep([(stored.run_id, name, content)])
        return content


def read_ledger(
    suite: str, *, store: str | None, plugins: Sequence[Path] = (), overrides: Sequence[str] = ()
) -> Ledger:
    """Return what a store has of a suite, as `whitebench.ledger.read_ledger` does, and sooner when asked again.

    Raises:
        WhitebenchError: the suite cannot be planned or the store cannot be read.
    """
    index = Index(store)
    index.refresh()
    return index.ledger(suite, overrides, plugins)


def _rows(store: Store, stored: StoredCell) -> list[tuple[str, str, bytes]]:
    """Return what is kept of a finished cell; nothing of one whose files are lost, which its ledger says."""
    try:
        result, samples = store.result_text(stored), _bytes(store.per_sample(stored))
    except LostResultError:
        return []
    return [(stored.run_id, RESULT, result), (stored.run_id, SAMPLES, samples)]


def _bytes(samples: array[float] | None) -> bytes:
    return b"" if samples is None else samples.tobytes()


def _openings(cells: Iterable[StoredCell]) -> Counter[tuple[str, str]]:
    counted: Counter[tuple[str, str]] = Counter()
    for one in cells:
        counted[one.key, one.cell.task] += one.openings
    return counted


def _changed(before: Mapping[str, StoredCell], after: Mapping[str, StoredCell]) -> Iterator[StoredCell]:
    """Yield the cells that are other than before, those that are gone, and those whose test split was opened."""
    for run_id in before.keys() | after.keys():
        if before.get(run_id) != after.get(run_id):
            yield from (cells[run_id] for cells in (before, after) if run_id in cells)
    earlier, now = _openings(before.values()), _openings(after.values())
    yield from (one for one in after.values() if earlier[one.key, one.cell.task] != now[one.key, one.cell.task])


def _folder() -> Path | None:
    try:
        return cache_folder() / "index"
    except RuntimeError:  # there is no home
        return None

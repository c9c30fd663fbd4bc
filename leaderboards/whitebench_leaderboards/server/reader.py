"""The one door through which the server reads: boards, cells and what belongs to them, all as they may be shown."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from whitebench.catalog import Catalog, load_catalog
from whitebench.errors import LostResultError, StoreError, UnknownNameError, WhitebenchError, near_misses
from whitebench.identity import CellName
from whitebench.ledger import Ledger, overrides_of
from whitebench.result import CellRecord
from whitebench.store import Store
from whitebench.suite import Contestant, Suite, load_suite, suite_names
from whitebench.tags import OpenStudy, StoredCell, StoredStudy
from whitebench.wording import listed, shown
from whitebench_leaderboards.board import Board
from whitebench_leaderboards.commands import board_of
from whitebench_leaderboards.door import Door
from whitebench_leaderboards.garbage import keeping
from whitebench_leaderboards.index import Index
from whitebench_leaderboards.server.discretion import discreet, discreet_ledger
from whitebench_leaderboards.server.source import Key, Source
from whitebench_leaderboards.sheet import Sheet, sheets_of

if TYPE_CHECKING:
    from whitebench.reading import Picture

PAUSE = 1.0
"""Seconds between two looks at the store, however many pages ask."""

PATIENCE = 2.0
"""Seconds that a page waits for a store that is busy; the next look is soon."""

Curves = Mapping[str, Sequence[tuple[int, float]]]
"""Epochs and values by the curve's name."""


Found = TypeVar("Found")


class NotHereError(WhitebenchError):
    """A page about something that this server does not have."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A contestant's tuning on a task that is under way."""

    contestant: str
    task: str
    ended: int
    """Trials that are complete, pruned or failed."""
    allowed: int
    """Trials that there are to be."""


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """A board that the server can show, or would like to."""

    suite: str
    overrides: str
    """As one text; empty for the suite as it stands."""
    is_known: bool
    """Whether its plan is known; that of a suite in a file of its own must be given to the server."""
    is_stored: bool
    """Whether the store has cells of it, or is to have soon."""
    summary: str = ""
    tuning: tuple[Progress, ...] = ()
    """What is under way of it."""


@dataclass(frozen=True, kw_only=True)
class Past:
    """A run of a cell, current or not."""

    cell: CellName
    contestant: Contestant
    state: str
    started: int
    """Milliseconds since 1970."""
    identity: str
    value: float | None
    """The primary metric."""
    run_id: str


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """A board as it was last read."""

    read: Ledger
    """As the source gave it."""
    ledger: Ledger
    """As it may be shown."""
    board: Board

    @cached_property
    def sheets(self) -> tuple[Sheet, ...]:
        """The board in writing."""
        return sheets_of(self.board)

    @cached_property
    def records(self) -> Mapping[CellName, CellRecord]:
        """Every cell by its name."""
        return {record.cell: record for record in self.ledger.records}


class Reader:
    """What a store has, by suites that are known by name or by the files given; may be asked by several threads."""

    def __init__(
        self,
        source: Source,
        open_store: Callable[[], Store | None],
        catalog: Catalog,
        *,
        files: Sequence[str] = (),
        plugins: Sequence[Path] = (),
    ) -> None:
        """Begin to read.

        Args:
            source: where ledgers come from.
            open_store: where the details of a cell come from; None while there is no store.
            catalog: what is registered.
            files: suites of the user's own.
            plugins: local plugin files.

        Raises:
            WhitebenchError: a file is no suite, or two have the same name.
        """
        self.catalog = catalog
        self._source, self._open_store, self._plugins = source, open_store, tuple(plugins)
        self._suites = _suites(files)
        self._lock = threading.RLock()
        self._looked = float("-inf")
        self._held: tuple[Shelf, ...] | None = None
        self._trouble = ""
        self._told: dict[Hashable, Any] = {}
        self._kept: dict[Key, _Kept] = {}
        self._changed: set[Key] = set()
        self._generations: Counter[Key] = Counter()

    def refresh(self) -> None:
        """Look at the store again, unless that was done a moment ago; what has changed is read anew when asked for.

        Raises:
            StoreError: it cannot be read, or could not a moment ago: of all who ask one alone waits for it.
        """
        with self._lock:
            if time.monotonic() - self._looked >= PAUSE:
                self._trouble = ""
                try:
                    self._changed |= self._source.refresh()
                except StoreError as error:
                    self._trouble = str(error)
                    raise
                finally:
                    self._looked = time.monotonic()
            elif self._trouble:
                raise StoreError(self._trouble)

    def hold(self, shelves: Sequence[Shelf]) -> None:
        """From now on show these boards only, and look at the store no more for what has changed; once for a detail."""
        with self._lock:
            self._held, self._looked = tuple(shelves), float("inf")

    def shelves(self) -> tuple[Shelf, ...]:
        """Return every board: first what the store has, then the suites that have not been run."""
        if self._held is not None:
            return self._held
        with self._lock:
            stored = self._source.suites()
        return (
            *(self._shelf(key, is_stored=True) for key in stored),
            *(self._shelf((name, ""), is_stored=False) for name in self._suites if (name, "") not in stored),
        )

    def ledger(self, suite: str, overrides: str = "") -> Ledger:
        """Return what the store has of a suite.

        Raises:
            NotHereError: neither the suites nor the store have it.
            WhitebenchError: the suite cannot be planned or the store cannot be read.
        """
        return self._read((suite, overrides)).ledger

    def board(self, suite: str, overrides: str = "") -> Board:
        """Return the ranked rows of a suite; raises as `ledger` does."""
        return self._read((suite, overrides)).board

    def sheets(self, suite: str, overrides: str = "") -> tuple[Sheet, ...]:
        """Return the board in writing; raises as `ledger` does."""
        return self._read((suite, overrides)).sheets

    def generation(self, suite: str, overrides: str = "") -> int:
        """Return a number that is another one whenever a board or one of its cells is; raises as `ledger` does."""
        self._read((suite, overrides))
        return self._generations[suite, overrides]

    def progress(self, suite: str, overrides: str = "") -> tuple[Progress, ...]:
        """Return the tuning of a suite that is under way; raises as `ledger` does."""
        studies = self._source.open_studies(suite, overrides)
        planned = self.ledger(suite, overrides).suite if studies else None
        return tuple(_progress(one, planned) for one in studies if planned)

    def record(self, suite: str, overrides: str, contestant: str, task: str, seed: int) -> CellRecord:
        """Return one cell; raises as `ledger` does, and NotHereError where the suite has no such cell."""
        name = CellName(suite=suite, contestant=contestant, task=task, seed=seed)
        found = self._read((suite, overrides)).records.get(name)
        if found is None:
            raise NotHereError(f"suite {suite} has no cell {name}")
        return found

    def records(self, suite: str, overrides: str, contestant: str) -> list[CellRecord]:
        """Return a contestant's cells; raises as `ledger` does, and NotHereError where the suite has none of it."""
        ledger = self.ledger(suite, overrides)
        labels = {record.cell.contestant for record in ledger.records}
        if contestant not in labels:
            near = near_misses(contestant, labels) or f" (contestants: {listed(sorted(labels))})"
            raise NotHereError(f"suite {suite} has no contestant {shown(contestant)}{near}")
        return [record for record in ledger.records if record.cell.contestant == contestant]

    def curves(self, record: CellRecord, primary: str) -> Curves:
        """Return what a cell's run logged of each epoch; of a running one as far as it is."""
        store, run_id = self._open_store(), record.run_id
        return self._once(("curves", run_id), lambda: store.curves(run_id, primary)) if store and run_id else {}

    def pictures(self, record: CellRecord) -> Mapping[str, Picture]:
        """Return what a cell's readings are drawn from."""
        store = self._open_store()
        return store.pictures(record.run_id) if store and record.result and record.run_id else {}

    def studies(self, suite: str, overrides: str) -> list[StoredStudy]:
        """Return the tuning behind a suite's cells: every study that has made its choice."""
        store, primary = self._open_store(), self.board(suite, overrides).heading.primary
        return store.studies(suite, overrides, primary) if store else []

    def past(self, suite: str, overrides: str, contestant: str) -> list[Past]:
        """Return every run of a contestant's cells, the latest first."""
        store, primary = self._open_store(), self.board(suite, overrides).heading.primary
        stored = self._once(("cells", suite, overrides), lambda: store.cells(suite, overrides)) if store else []
        return [
            Past(
                cell=one.cell,
                contestant=one.contestant,
                state=one.state,
                started=one.started,
                identity=one.identity,
                value=_value(store, one, primary) if store and one.result_sha256 else None,
                run_id=one.run_id,
            )
            for one in reversed(stored)
            if one.cell.contestant == contestant
        ]

    def _once(self, key: Hashable, ask: Callable[[], Found]) -> Found:
        """Return what the store answers, and while boards are held the same whenever it is asked again."""
        if self._held is None:
            return ask()
        if key not in self._told:
            self._told[key] = ask()
        found: Found = self._told[key]
        return found

    def _shelf(self, key: Key, *, is_stored: bool) -> Shelf:
        suite, overrides = key
        is_known = suite in self._suites and overrides_of(overrides) is not None
        return Shelf(
            suite=suite,
            overrides=overrides,
            is_known=is_known,
            is_stored=is_stored,
            summary=self._suites[suite][1] if suite in self._suites else "",
            tuning=self.progress(*key) if is_known and is_stored else (),
        )

    def _read(self, key: Key) -> _Kept:
        with self._lock:
            if key not in self._kept or key in self._changed:
                self._kept[key] = self._read_anew(key)  # the last one is held until then: they share most cells
                self._generations[key] += 1
                self._changed.discard(key)
            return self._kept[key]

    def _read_anew(self, key: Key) -> _Kept:
        suite, overrides = key
        typed = overrides_of(overrides)
        # Whoever may ask for any overrides may ask for a grid of any size.
        is_stored = key in self._source.suites()
        if not is_stored and (overrides or suite not in self._suites):
            raise NotHereError(_not_here(key, [*self._suites, *(name for name, _ in self._source.suites())]))
        if suite not in self._suites or typed is None:
            raise NotHereError(
                f"the store has cells of suite {suite}, whose plan is not known here: "
                f"start the server with its file, whitebench serve {suite}.toml"
            )
        last = self._kept.get(key)
        with keeping():
            read = self._source.ledger(self._suites[suite][0], typed, self._plugins)
            ledger = discreet_ledger(read)
            return _Kept(read=read, ledger=ledger, board=board_of(ledger, last.board if last else None))


def _suites(files: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return how to load each suite, and its summary, by name; a file goes before what comes along."""
    found: dict[str, tuple[str, str]] = {}
    for file in files:
        suite = load_suite(file)
        if suite.name in found:
            raise WhitebenchError(f"{file} and {found[suite.name][0]} are both called {suite.name}: leave one out")
        found[suite.name] = (file, suite.summary)
    for name in suite_names():
        found.setdefault(name, (name, load_suite(name).summary))
    return found


def _progress(study: OpenStudy, suite: Suite) -> Progress:
    contestant = suite.contestant(study.contestant)  # a guest of the run that goes on is not in the plan
    allowed = suite.trials_of(contestant) if contestant else suite.budget.trials
    return Progress(contestant=study.contestant, task=study.task, ended=study.ended, allowed=allowed)


def _not_here(key: Key, known: Sequence[str]) -> str:
    suite, overrides = key
    if suite in known:
        return f"the store has no cells of suite {suite} with {discreet(overrides)}"
    return str(UnknownNameError("suite", suite, known))


def _value(store: Store, stored: StoredCell, primary: str) -> float | None:
    try:
        score = store.result(stored).score(primary)
    except LostResultError:
        return None
    return score.value if score else None


def open_reader(uri: str, *, files: Sequence[str] = (), plugins: Sequence[Path] = ()) -> Reader:
    """Return a reader of the store at `uri`, which need not exist yet; raises as `Reader` does."""
    catalog = load_catalog(plugins)
    index = Index(uri, catalogs={tuple(plugins): catalog})
    return Reader(index, Door(uri, PATIENCE).store, catalog, files=files, plugins=plugins)

"""The plan against the store: what is done, what is owed, what has gone stale, and why."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeAlias, cast

from whitebench import address
from whitebench.calibration import Calibration, noise_floor
from whitebench.catalog import Catalog, load_catalog
from whitebench.errors import LostResultError, SuiteError, UnknownNameError
from whitebench.identity import CellName, Identity, Parts, identify, identify_suite, unknown_data
from whitebench.matching import match_width
from whitebench.names import parse_name, without_path
from whitebench.reading import Direction
from whitebench.result import CellRecord, CellState, Result
from whitebench.specs import PATH
from whitebench.store import Store
from whitebench.suite import Contestant, Suite, load_suite, with_guests
from whitebench.tags import StoredCell, StoredStudy
from whitebench.vetting import vet
from whitebench.wording import listed

APART = ("limits", "paths")
"""The tables of a suite that change no number, wherever they are given."""

NOT_COMPARED = "its data are not known on this machine: their bytes were not compared"

Openings: TypeAlias = Mapping[tuple[str, str], int]
"""How often each test split has been opened, by the contestant's key and the task."""


class Archive(Protocol):
    """What cells are judged by: a store, or an index of one."""

    def cells(self, suite: str, overrides: str) -> Sequence[StoredCell]:
        """Return every run of a cell of `suite` under exactly these overrides, oldest first."""
        ...

    def all_openings(self) -> Openings:
        """Return how often each test split has been opened up to now."""
        ...

    def calibrations(self, suite: str, overrides: str) -> Sequence[Calibration]:
        """Return how much one cell of `suite` was found to differ from itself under exactly these overrides."""
        ...

    def result(self, stored: StoredCell) -> Result:
        """Return a finished cell's result; raises LostResultError."""
        ...

    def per_sample(self, stored: StoredCell) -> Sequence[float] | None:
        """Return its primary metric on each test sample, where it is a mean over them; raises LostResultError."""
        ...

    def parts(self, stored: StoredCell) -> Parts:
        """Return the parts of the identity that a cell was run with; raises LostResultError."""
        ...


@dataclass(frozen=True, kw_only=True)
class PlannedCell:
    """One square of a suite's grid, with everything that can change its numbers."""

    name: CellName
    contestant: Contestant
    identity: Identity
    is_guest: bool


@dataclass(frozen=True, kw_only=True)
class Published:
    """A number that a model's paper states for a task: nobody's cell here, and never ranked."""

    model: str
    task: str
    what: str
    """As the Spec's reference says it after the task's name, e.g. `top-1, T/16, %`."""
    value: float
    title: str
    url: str


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """A suite as it stands now, and what the store has of it."""

    suite: Suite
    overrides: tuple[str, ...]
    """As given, `budget.epochs=3`; a suite with overrides keeps its results apart."""
    direction: Direction
    """Of the primary metric."""
    unit: str
    records: tuple[CellRecord, ...]
    """Every square of the grid in the suite's order, then those of guests."""
    store_uri: str
    source: str = ""
    """The suite as it was asked for: its name, or the path of its file."""
    published: tuple[Published, ...] = ()
    """What the contestants' papers state for the suite's tasks."""
    matched: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """By contestant and task, the model with the width that the suite's `match` gives it."""
    failures: Mapping[str, CellName] = field(default_factory=dict)
    """The cells of runs that failed, by the run's id; a later one may have been interrupted."""
    noise_floor: Mapping[str, float] = field(default_factory=dict)
    """By score, the difference that one cell shows from itself, with other threads, devices and precisions too; empty
    where the suite was not calibrated."""


def plan_cells(suite: Suite, catalog: Catalog) -> list[PlannedCell]:
    """Return every cell of `suite` in its order: by contestant, task and seed.

    Raises:
        WhitebenchError: the suite names something unknown or disputed, gives it options it does not take, ranks by
            a metric of which neither more nor less is better, or asks for a size that a contestant cannot have.
    """
    vet(suite, catalog)
    unknown = {task: unknown_data(suite, task, catalog) for task in suite.tasks}
    pairs = {(task, contestant.recipe) for task in suite.tasks for contestant in suite.everyone}
    parts = {(task, recipe): identify_suite(suite, task, recipe, catalog) for task, recipe in pairs}
    return [
        PlannedCell(
            name=CellName(suite=suite.name, contestant=contestant.label, task=task, seed=seed),
            contestant=sized,
            identity=Identity(parts={**shared.parts, "seed": seed}, unknown=unknown[task]),
            is_guest=contestant in suite.guests,
        )
        for contestant in suite.everyone
        for task in suite.tasks
        for sized in (match_width(suite, contestant, task, catalog),)
        for shared in (identify(suite, sized, task, 0, catalog, shared=parts[task, contestant.recipe]),)
        for seed in suite.seeds
    ]


def canonical_overrides(overrides: Sequence[str]) -> str:
    """Return the overrides that can change a number as one text, whatever their order or spacing."""
    sides = [override.partition("=") for override in overrides]
    values = {key.strip(): value.strip() for key, _, value in sides}  # the last of two counts, as in the suite
    return " ".join(f"{key}={value}" for key, value in sorted(values.items()) if key.partition(".")[0] not in APART)


def overrides_of(text: str) -> tuple[str, ...] | None:
    """Return the overrides that `canonical_overrides` made one text of, as `load_suite` takes them.

    None where it made no such text. The store cannot hold an apostrophe in them and has a typographic one in its place.
    """
    text = text.replace("’", "'")
    typed = tuple(part for part in re.split(r" (?=[a-z_][\w.-]*=)", text) if part)
    return typed if canonical_overrides(typed) == text else None


def read_ledger(
    suite: str, *, store: str | None, plugins: Sequence[Path] = (), overrides: Sequence[str] = ()
) -> Ledger:
    """Return what the store has of a suite, guests of earlier runs included.

    Args:
        suite: a suite's name or the path of its file.
        store: a tracking URI; None for the one in the working folder. Nothing is created.
        plugins: local plugin files.
        overrides: texts like `budget.epochs=3`.

    Raises:
        WhitebenchError: the suite cannot be planned or the store cannot be read.
    """
    catalog = load_catalog(plugins)
    planned = load_suite(suite, overrides)
    uri = address.resolve_uri(store)
    opened = Store(uri, is_reader=True) if address.exists(uri) else None
    return ledger_of(planned, catalog, opened, overrides=overrides, uri=uri, source=suite)


def read_studies(ledger: Ledger) -> list[StoredStudy]:
    """Return the tuning behind a ledger's cells: every study that has made its choice.

    Raises:
        StoreError: the store cannot be read.
    """
    if not address.exists(ledger.store_uri):
        return []
    suite = ledger.suite
    return Store(ledger.store_uri).studies(suite.name, canonical_overrides(ledger.overrides), suite.primary)


def ledger_of(
    suite: Suite,
    catalog: Catalog,
    archive: Archive | None,
    *,
    overrides: Sequence[str] = (),
    uri: str = "",
    source: str = "",
    planned: Sequence[PlannedCell] | None = None,
) -> Ledger:
    """Return what `archive` (None where there is none yet) has of `suite`.

    Args:
        suite: as it stands now.
        catalog: where its names are looked up.
        archive: the store, or an index of it.
        overrides: those that `suite` was loaded with.
        uri: the store's, for people.
        source: the suite as it was asked for.
        planned: its cells, if they are known.
    """
    stored = archive.cells(suite.name, canonical_overrides(overrides)) if archive else []
    by_name: dict[CellName, list[StoredCell]] = {}
    for one in stored:
        by_name.setdefault(one.cell, []).append(one)
    openings = archive.all_openings() if archive else {}
    planned = plan_cells(suite, catalog) if planned is None else planned
    records = [judge(cell, pick(by_name.get(cell.name, ()), cell), archive, openings) for cell in planned]
    known = {cell.name for cell in planned}
    latest = {one.cell: one for one in stored if one.state != "superseded"}
    guests = [one for one in latest.values() if one.is_guest and one.cell not in known]
    records += [_judge_guest(one, suite, catalog, archive, openings) for one in guests if archive]
    metric = catalog.metric(suite.primary).spec
    return Ledger(
        suite=suite,
        overrides=tuple(overrides),
        source=source or suite.name,
        direction=metric.direction,
        unit=metric.unit,
        records=tuple(records),
        store_uri=uri,
        published=published_of(suite, catalog),
        matched={(one.name.contestant, one.name.task): one.contestant.model for one in planned
                 if one.contestant not in suite.everyone and not one.identity.unknown},
        failures={one.run_id: one.cell for one in stored if one.state == "failed"},
        noise_floor=noise_floor(archive.calibrations(suite.name, canonical_overrides(overrides))) if archive else {},
    )  # fmt: skip


def published_of(suite: Suite, catalog: Catalog) -> tuple[Published, ...]:
    """Return the published numbers of a suite's models that begin with the name of one of its tasks."""
    models = dict.fromkeys(parse_name(one.model)[0] for one in suite.everyone)
    tasks = {parse_name(task)[0]: task for task in suite.tasks}
    return tuple(
        Published(model=name, task=tasks[task], what=what, value=value, title=reference.title, url=reference.url)
        for name in models
        if (reference := catalog.model(name).spec.reference) is not None
        for told, value in reference.published.items()
        for task, _, what in (told.partition(" "),)
        if task in tasks
    )


def owed_cells(ledger: Ledger, selected: Sequence[PlannedCell], *, retry: bool = False) -> list[PlannedCell]:
    """Return those of the `selected` cells that are to be done: neither finished nor failed; with `retry` the failed.

    One whose repetition was stopped still counts as failed once, and is owed by either command.
    """
    states = {record.cell: record.state for record in ledger.records}
    if not retry:
        return [cell for cell in selected if states.get(cell.name) not in ("finished", "failed")]
    failed = set(ledger.failures.values())
    return [
        cell
        for cell in selected
        if states.get(cell.name) == "failed" or (states.get(cell.name) == "interrupted" and cell.name in failed)
    ]


def pick(stored: Sequence[StoredCell], planned: PlannedCell) -> StoredCell | None:
    """Return the run that speaks for a planned cell, given all runs, oldest first: the latest.

    One that finished under the very identity that is planned goes before it, even where another took its
    place in the meantime: an edit undone finds its results again.
    """
    mine = [one for one in stored if one.cell == planned.name]
    whole = [one for one in mine if one.result_sha256 and one.identity == planned.identity.digest]
    if whole:
        return replace(whole[-1], state="finished")
    return next((one for one in reversed(mine) if one.state != "superseded"), None)


def judge(planned: PlannedCell, stored: StoredCell | None, archive: Archive | None, openings: Openings) -> CellRecord:
    """Return what `archive` has of one planned cell, judged by the plan."""
    if stored is None or archive is None:
        return CellRecord(cell=planned.name, state="missing", reason="not run yet", is_guest=planned.is_guest)
    try:
        identity = planned.identity.as_stored(archive.parts(stored)) if planned.identity.unknown else planned.identity
        is_current = stored.identity == identity.digest
        if stored.state != "finished":
            return _unfinished(stored) if is_current else _missing(stored, "not run since it changed")
        changes = [] if is_current else identity.differences(archive.parts(stored))
        reason = "; ".join(changes) or (NOT_COMPARED if planned.identity.unknown else "")
        return _finished(stored, archive, openings, is_stale=not is_current, reason=reason)
    except LostResultError as error:
        return _missing(stored, f"{error}: run it again")


def _judge_guest(
    stored: StoredCell, suite: Suite, catalog: Catalog, archive: Archive, openings: Openings
) -> CellRecord:
    """Judge a cell whose contestant is only in the store, by as much of the plan as can be known."""
    cell, contestant = stored.cell, stored.contestant
    is_planned = cell.task in suite.tasks and (contestant.recipe in suite.recipes or not suite.recipes)
    unknown = unknown_data(suite, cell.task, catalog) if is_planned else ""
    if is_planned:
        with suppress(UnknownNameError):
            identity = replace(identify(suite, contestant, cell.task, cell.seed, catalog), unknown=unknown)
            planned = PlannedCell(name=cell, contestant=contestant, identity=identity, is_guest=True)
            return judge(planned, stored, archive, openings)
    if stored.state != "finished":
        return _unfinished(stored)
    try:
        if not is_planned:
            why = "its task or recipe has left the suite"
            return _finished(stored, archive, openings, is_stale=True, reason=why)
        parts = archive.parts(stored)
        shared = Identity(parts=identify_suite(suite, cell.task, contestant.recipe, catalog), unknown=unknown)
        changes = shared.as_stored(parts).differences(_restricted(parts, shared))
        note = f"the plugin of {parse_name(contestant.model)[0]} is not loaded: its own code was not compared"
        return _finished(stored, archive, openings, is_stale=bool(changes), reason="; ".join(changes) or note)
    except LostResultError as error:
        return _missing(stored, f"{error}: run it again")


def _restricted(parts: Parts, shared: Identity) -> Parts:
    """Return those of `parts` that a suite knows without knowing the contestant."""
    kept = {key: value for key, value in parts.items() if key in shared.parts}
    for table in ("sources", "packages"):
        kept[table] = {key: value for key, value in parts[table].items() if key in shared.parts[table]}
    return kept


def _finished(stored: StoredCell, archive: Archive, openings: Openings, *, is_stale: bool, reason: str) -> CellRecord:
    return CellRecord(
        cell=stored.cell,
        state="stale" if is_stale else "finished",
        reason=reason,
        result=archive.result(stored),
        per_sample=archive.per_sample(stored),
        test_openings=openings.get((stored.key, stored.cell.task), 0),
        run_id=stored.run_id,
        is_guest=stored.is_guest,
        is_trained_elsewhere=bool(stored.contestant.weights) and stored.contestant.epochs == 0,
        verification=stored.verification,
    )


def _unfinished(stored: StoredCell) -> CellRecord:
    state: CellState = "interrupted"
    if stored.state in ("failed", "running"):
        state = cast("CellState", stored.state)
    return CellRecord(
        cell=stored.cell,
        state=state,
        reason=stored.failure or state,
        run_id=stored.run_id,
        is_guest=stored.is_guest,
    )


def _missing(stored: StoredCell, reason: str) -> CellRecord:
    return CellRecord(cell=stored.cell, state="missing", reason=reason, run_id=stored.run_id, is_guest=stored.is_guest)


def select(
    suite: Suite,
    catalog: Catalog,
    *,
    models: Sequence[str] = (),
    tasks: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
) -> tuple[Suite, list[PlannedCell]]:
    """Return the suite with any guests, and those of its cells that the selection names.

    Args:
        suite: as loaded.
        catalog: where guests are looked up.
        models: labels of contestants, or models, with options, that join as guests.
        tasks: tasks of the suite.
        seeds: seeds of the suite.

    Raises:
        UnknownNameError: a label that is neither a contestant nor a model, or a task that the suite has not.
        SuiteError: a seed that the suite has not.
    """
    if strange := [seed for seed in seeds or () if seed not in suite.seeds]:
        raise SuiteError(
            f"--seeds: {listed(map(str, strange), 10)} not among the seeds of suite {suite.name} "
            f"({listed(map(str, suite.seeds), 10)}); more seeds make another suite: --set seeds={max(strange) + 1}"
        )
    tasks = [without_path(task)[0] if PATH in task else task for task in tasks]
    for task in tasks:
        if task not in suite.tasks:
            raise UnknownNameError(f"task of suite {suite.name}", task, suite.tasks)
    guests = [_guest(model, suite, catalog) for model in models if suite.contestant(model) is None]
    whole = with_guests(suite, guests)
    cells = [
        cell
        for cell in plan_cells(whole, catalog)
        if (not models or cell.name.contestant in models)
        and (not tasks or cell.name.task in tasks)
        and (seeds is None or cell.name.seed in seeds)
    ]
    return whole, cells


def _guest(model: str, suite: Suite, catalog: Catalog) -> Contestant:
    name, _ = parse_name(model)
    if name not in catalog.entries["model"] and ("model", name) not in catalog.disputed:
        labels = [one.label for one in suite.contestants]
        raise UnknownNameError(
            f"contestant of suite {suite.name}, or model,", model, [*labels, *catalog.entries["model"]]
        )
    first = suite.contestants[0]
    return Contestant(model=model, objective=first.objective, readout=first.readout, recipe=first.recipe)

"""The plan against the store."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from whitebench import Reference
from whitebench.catalog import Catalog
from whitebench.errors import StoreError, SuiteError, TaskDataError, UnknownNameError
from whitebench.identity import identify
from whitebench.ledger import (
    Published,
    canonical_overrides,
    ledger_of,
    overrides_of,
    pick,
    plan_cells,
    published_of,
    read_ledger,
    select,
)
from whitebench.result import Chosen, Failure, FailureKind
from whitebench.store import Store
from whitebench.suite import Suite, load_suite
from whitebench.tags import StoredCell

WriteSuite = Callable[..., Path]
CHOSEN = Chosen(hyperparameters={}, trial=None, validation=None)


@pytest.fixture
def suite(write_suite: WriteSuite) -> Suite:
    return load_suite(str(write_suite("tiny", "searching", seeds=2)))


@pytest.fixture
def store(tmp_path: Path, new_store: Callable[[Path], Store]) -> Store:
    return new_store(tmp_path)


def open_run(store: Store, suite: Suite, catalog: Catalog, place: int, **changes: Any) -> str:
    cell = plan_cells(suite, catalog)[place]
    known: dict[str, Any] = {
        "contestant": cell.contestant,
        "overrides": "",
        "identity": cell.identity.digest,
        "parts": cell.identity.parts,
        "chosen": CHOSEN,
        "is_guest": cell.is_guest,
        "claim": f"cell/{place}",
    }
    return store.open_cell(cell.name, **{**known, **changes})


def test_cells_stand_in_the_suites_order(suite: Suite, catalog: Catalog) -> None:
    assert [str(cell.name) for cell in plan_cells(suite, catalog)] == [
        "blobs/tiny/blobs/0",
        "blobs/tiny/blobs/1",
        "blobs/searching/blobs/0",
        "blobs/searching/blobs/1",
    ]


def test_a_cell_planned_among_others_is_the_cell_alone(suite: Suite, catalog: Catalog) -> None:
    for cell in plan_cells(suite, catalog):
        alone = identify(suite, cell.contestant, cell.name.task, cell.name.seed, catalog)
        assert alone.digest == cell.identity.digest


def test_without_a_store_everything_is_missing(suite: Suite, catalog: Catalog) -> None:
    ledger = ledger_of(suite, catalog, None)
    assert {(record.state, record.reason) for record in ledger.records} == {("missing", "not run yet")}
    assert (ledger.direction, len(ledger.records)) == ("lower", 4)


def test_a_cell_whose_data_are_not_known_here_is_judged_by_all_the_rest(
    suite: Suite, catalog: Catalog, store: Store
) -> None:
    """Where its data lie it is what it was; elsewhere it is not taken for stale, nor for missing."""
    known: list[dict[str, str]] = [{"train": "1" * 64}]

    def manifest(_: object) -> Any:
        if not known:
            raise TaskDataError("blobs: not read on this machine")
        return known[0]

    entry = catalog.task("blobs")
    spec = replace(entry.spec, manifest=manifest, prepare=lambda _: [])
    tasks = {**catalog.entries["task"], "blobs": replace(entry, spec=spec)}
    ours = replace(catalog, entries={**catalog.entries, "task": tasks})
    failure = Failure(kind=FailureKind.OOM, message="too big")
    store.fail_cell(open_run(store, suite, ours, 0), failure)
    assert ledger_of(suite, ours, store).records[0].state == "failed"
    known[0] = {"train": "2" * 64}
    assert ledger_of(suite, ours, store).records[0].reason == "not run since it changed"
    known.clear()
    assert [cell.identity.unknown for cell in plan_cells(suite, ours)] == ["blobs: not read on this machine"] * 4
    assert ledger_of(suite, ours, store).records[0].state == "failed"
    assert ledger_of(suite, ours, None).records[0].state == "missing"


def test_a_model_s_published_numbers_for_the_suite_s_tasks_come_with_their_source(
    suite: Suite, catalog: Catalog
) -> None:
    published = {"blobs top-1, %": 99.0, "imagenet top-1": 1.0}
    paper = Reference(title="Tiny", url="https://example.org", published=published)
    entry = catalog.model("tiny")
    models = {**catalog.entries["model"], "tiny": replace(entry, spec=replace(entry.spec, reference=paper))}
    told = published_of(suite, replace(catalog, entries={**catalog.entries, "model": models}))
    assert told == (
        Published(model="tiny", task="blobs", what="top-1, %", value=99.0, title="Tiny", url="https://example.org"),
    )


def test_every_state_of_a_cell_is_told_apart(suite: Suite, catalog: Catalog, store: Store) -> None:
    open_run(store, suite, catalog, 0)
    store.claims.take("cell/0")
    store.interrupt(open_run(store, suite, catalog, 1))
    failure = Failure(kind=FailureKind.OOM, message="too big")
    store.fail_cell(open_run(store, suite, catalog, 2), failure)
    store.fail_cell(open_run(store, suite, catalog, 3, identity="0" * 64), failure)
    assert [(record.state, record.reason) for record in ledger_of(suite, catalog, store).records] == [
        ("running", "running"),
        ("interrupted", "interrupted"),
        ("failed", "oom: too big"),
        ("missing", "not run since it changed"),
    ]


def test_an_edit_undone_finds_its_results_again(suite: Suite, catalog: Catalog) -> None:
    planned = plan_cells(suite, catalog)[0]

    def run(number: int, state: str, identity: str, result_sha256: str) -> StoredCell:
        return StoredCell(
            cell=planned.name, run_id=f"run-{number}", state=state, identity=identity, key="", is_guest=False,
            contestant=planned.contestant, failure="", started=number, result_sha256=result_sha256, claim="",
        )  # fmt: skip

    as_planned, other = planned.identity.digest, "0" * 64
    before = run(1, "superseded", as_planned, "a")
    edited = run(2, "finished", other, "b")
    found = pick([before, edited], planned)
    assert found is not None
    assert (found.run_id, found.state) == ("run-1", "finished")
    assert pick([run(1, "superseded", other, "a"), edited], planned) == edited
    assert pick([run(1, "superseded", as_planned, ""), edited], planned) == edited  # it never finished
    assert pick([before, edited], plan_cells(suite, catalog)[1]) is None


def test_runs_under_other_overrides_are_not_this_suites(suite: Suite, catalog: Catalog, store: Store) -> None:
    open_run(store, suite, catalog, 0, overrides="budget.epochs=3")
    store.claims.take("cell/0")
    assert ledger_of(suite, catalog, store).records[0].state == "missing"
    assert ledger_of(suite, catalog, store, overrides=["budget.epochs = 3"]).records[0].state == "running"


def test_overrides_are_the_same_whatever_their_order_and_spacing() -> None:
    assert canonical_overrides(["b=2", " a = 1"]) == canonical_overrides(["a=1", "b=2"]) == "a=1 b=2"
    assert canonical_overrides(["a=1", "a=2"]) == "a=2"
    assert canonical_overrides([]) == ""


def test_an_override_that_changes_no_number_makes_no_other_suite_of_it() -> None:
    assert canonical_overrides(["limits.fit_minutes=60", "paths.blobs=/data", "a=1"]) == "a=1"


def test_a_guest_of_an_earlier_run_stays_in_the_ledger(suite: Suite, catalog: Catalog, store: Store) -> None:
    whole, cells = select(suite, catalog, models=["tiny[width=4]"])
    assert [str(cell.name) for cell in cells] == ["blobs/tiny[width=4]/blobs/0", "blobs/tiny[width=4]/blobs/1"]
    open_run(store, whole, catalog, 4)
    store.claims.take("cell/4")
    *_, guest = ledger_of(suite, catalog, store).records
    assert (str(guest.cell), guest.is_guest, guest.state) == ("blobs/tiny[width=4]/blobs/0", True, "running")


def test_a_selection_narrows_to_contestants_tasks_and_seeds(suite: Suite, catalog: Catalog) -> None:
    whole, cells = select(suite, catalog, models=["searching"], tasks=["blobs"], seeds=[1])
    assert [str(cell.name) for cell in cells] == ["blobs/searching/blobs/1"]
    assert whole == suite  # what is run is narrower, what is planned is not


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"models": ["tinny"]}, "unknown contestant of suite blobs, or model, 'tinny', did you mean 'tiny'"),
        ({"tasks": ["blob"]}, "unknown task of suite blobs 'blob', did you mean 'blobs'"),
        ({"seeds": [1, 7]}, r"--seeds: 7 not among the seeds of suite blobs \(0, 1\); .*: --set seeds=8"),
    ],
)
def test_a_selection_of_what_is_not_there_is_refused(
    suite: Suite, catalog: Catalog, selection: dict[str, Any], message: str
) -> None:
    with pytest.raises((UnknownNameError, SuiteError), match=message):
        select(suite, catalog, **selection)


def test_a_suite_cannot_rank_by_what_has_no_better_direction(suite: Suite, catalog: Catalog) -> None:
    with pytest.raises(SuiteError, match="suite blobs: primary 'depths' cannot rank"):
        plan_cells(dataclasses.replace(suite, primary="depths", metrics=("depths",)), catalog)


def test_reading_a_store_that_is_not_there_makes_none(write_suite: WriteSuite, plugin: Path, tmp_path: Path) -> None:
    file = tmp_path / "elsewhere" / "whitebench.db"
    ledger = read_ledger(str(write_suite()), store=f"sqlite:///{file}", plugins=[plugin])
    assert ledger.store_uri == f"sqlite:///{file}"
    assert not file.parent.exists()
    with pytest.raises(StoreError, match="--store mlruns"):
        read_ledger(str(write_suite()), store="mlruns", plugins=[plugin])


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("", ()),
        ("budget.epochs=3", ("budget.epochs=3",)),
        ("budget.epochs=3 budget.trials=0", ("budget.epochs=3", "budget.trials=0")),
        ("budget.epochs=3 seeds=[0, 1]", ("budget.epochs=3", "seeds=[0, 1]")),
        ("tuning.sampler=’tpe’", ("tuning.sampler='tpe'",)),
        ("nonsense", None),
    ],
)
def test_overrides_are_taken_apart_as_they_were_typed(text: str, typed: tuple[str, ...] | None) -> None:
    assert overrides_of(text) == typed

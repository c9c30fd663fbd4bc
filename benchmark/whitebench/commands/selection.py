"""What a command is about: the catalog, the suite with its guests, and the cells that the options name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import click

from whitebench.errors import WhitebenchError
from whitebench.wording import plain

if TYPE_CHECKING:
    from whitebench.catalog import Catalog
    from whitebench.ledger import PlannedCell
    from whitebench.suite import Suite


Chosen: TypeAlias = "tuple[Catalog, Suite, list[PlannedCell]]"
"""The cells of a suite."""


def select_cells(
    suite: str,
    plugins: Sequence[Path],
    overrides: Sequence[str],
    *,
    models: Sequence[str],
    tasks: Sequence[str],
    seeds: str | None,
) -> Chosen:
    """Load plugins and suite, and narrow to what the options name; say which plugins could not be loaded."""
    from whitebench.catalog import load_catalog
    from whitebench.ledger import select
    from whitebench.suite import load_suite, parse_seeds

    catalog = load_catalog(plugins)
    for lost in catalog.quarantined:
        click.echo(plain(f"whitebench: not loaded: {lost.owner}: {lost.reason}"), err=True)
    loaded = load_suite(suite, overrides)
    wanted = None if seeds is None else parse_seeds(seeds)
    whole, cells = select(loaded, catalog, models=list(dict.fromkeys(models)), tasks=tasks, seeds=wanted)
    return catalog, whole, cells


def with_data(choose: Callable[[], Chosen], chosen: Chosen) -> Chosen:
    """Return what was chosen, planned once more if data had to be read for it.

    Raises:
        TaskDataError: they cannot be had; says what to fetch and where to put it.
    """
    catalog, suite, cells = chosen
    if not any(cell.identity.unknown for cell in cells):
        return chosen
    _prepare(suite, cells, catalog)
    return choose()


def _prepare(suite: Suite, cells: Sequence[PlannedCell], catalog: Catalog) -> None:
    """Fetch and read the data that are not known on this machine yet."""
    from whitebench.names import configured_task, parse_name

    for task in dict.fromkeys(cell.name.task for cell in cells if cell.identity.unknown):
        spec = catalog.task(parse_name(task)[0]).spec
        click.echo(f"Reading the data of {task}: once, then they are known.", err=True)
        assert spec.prepare is not None
        for remark in spec.prepare(configured_task(task, spec.config, suite.path_of(task))):
            click.echo(plain(f"{task}: {remark}"), err=True)


def open_finished(
    suite: str, plugins: Sequence[Path], overrides: Sequence[str], store: str | None
) -> tuple[Catalog, Suite, str]:
    """Load plugins and suite, and return them with the URI of the store in which its results must be.

    Raises:
        WhitebenchError: there is no store, or it could not be written.
    """
    from whitebench.address import exists, resolve_uri, see_that_it_can_be_written, without_password
    from whitebench.catalog import load_catalog
    from whitebench.suite import load_suite

    catalog, loaded, uri = load_catalog(plugins), load_suite(suite, overrides), resolve_uri(store)
    if not exists(uri):
        place = without_password(uri)
        raise WhitebenchError(f"{suite} has no results, for there is no store at {place}: `whitebench run` makes one")
    see_that_it_can_be_written(uri)
    return catalog, loaded, uri

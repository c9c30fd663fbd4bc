"""What a command is about: the catalog, the suite with its guests, and the cells that the options name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from whitebench.wording import plain

if TYPE_CHECKING:
    from whitebench.catalog import Catalog
    from whitebench.ledger import PlannedCell
    from whitebench.suite import Suite


def select_cells(
    suite: str,
    plugins: Sequence[Path],
    overrides: Sequence[str],
    *,
    models: Sequence[str],
    tasks: Sequence[str],
    seeds: str | None,
) -> tuple[Catalog, Suite, list[PlannedCell]]:
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

"""The commands that do the work of a suite."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from whitebench.commands.selection import select_cells
from whitebench.commands.terminal import open_console, say_that_it_starts
from whitebench.errors import WhitebenchError
from whitebench.options import selection_options, suite_options, work_options

if TYPE_CHECKING:
    from rich.console import Console

    from whitebench.catalog import Catalog
    from whitebench.events import Event
    from whitebench.ledger import PlannedCell
    from whitebench.screen import Screen
    from whitebench.store import Store

FAILED, INTERRUPTED = 1, 130
"""Exit codes: some cells failed; stopped by Ctrl-C or a signal."""


@click.command(
    short_help="Run what is not done of a suite.",
    epilog="\b\nExamples:\n  whitebench run smoke\n  whitebench run smoke --plugin my_model.py -m my-model",
)
@suite_options
@selection_options
@work_options
def run(suite: str, **options: Any) -> int:
    """Run the cells of SUITE that are not done; the same command again goes on where it stopped.

    Given several times at once, the runs share the work. Cells that failed are left alone: see `retry`.

    Exits with 0 when all went well, 1 when cells failed, 2 on wrong use or when the store cannot be used,
    130 when interrupted.
    """
    return _work(suite, retry=False, **options)


@click.command(
    short_help="Run the failed cells of a suite once more.",
    epilog="\b\nExample:\n  whitebench retry smoke -m crate",
)
@suite_options
@selection_options
@work_options
def retry(suite: str, **options: Any) -> int:
    """Run the cells of SUITE that failed once more; a study of which every trial failed begins anew."""
    return _work(suite, retry=True, **options)


def _work(
    suite: str,
    *,
    retry: bool,
    plugins: Sequence[Path],
    overrides: Sequence[str],
    store: str | None,
    models: Sequence[str],
    tasks: Sequence[str],
    seeds: str | None,
    parallel: int | None,
    max_failures: int | None,
    in_process: bool,
) -> int:
    from whitebench import report
    from whitebench.address import exists, home_of, resolve_uri, see_that_it_can_be_written
    from whitebench.ledger import ledger_of, owed_cells
    from whitebench.provenance import usable_cores

    catalog, whole, cells = select_cells(suite, plugins, overrides, models=models, tasks=tasks, seeds=seeds)
    if in_process:
        _need_one(cells)
    uri = resolve_uri(store)
    see_that_it_can_be_written(uri)
    at_a_time = 1 if in_process else parallel or max(1, usable_cores() // whole.budget.threads)
    home = home_of(uri)
    console = open_console()
    say_that_it_starts(console)
    from whitebench.here import Here
    from whitebench.launch import Launcher  # its server loads torch while MLflow is imported here

    launcher = Here() if in_process else Launcher(threads=whole.budget.threads)
    from whitebench.conductor import Conductor
    from whitebench.feasibility import refuse_impossible
    from whitebench.progress import Progress
    from whitebench.screen import watch
    from whitebench.store import Store

    opened = Store(uri) if exists(uri) else None
    if opened is not None:
        _deliver(console, opened, home)
    ledger = ledger_of(whole, catalog, opened, overrides=overrides, uri=uri, source=suite)
    if retry and not owed_cells(ledger, cells, retry=True):
        report.print_lines(console, [f"No cell of {whole.name} has failed: there is nothing to do once more."])
    if isinstance(launcher, Launcher):
        refuse_impossible(whole, cells, ledger, launcher=launcher, plugins=plugins, at_a_time=at_a_time, retry=retry)
    log = _log_to(home, whole.name)
    logging.getLogger("whitebench.outage").addHandler(_Spoken(console))
    if overrides:
        console.print(f"Overridden: {', '.join(overrides)}. Results are kept apart from those of {whole.name}.")
    selected = {cell.name for cell in cells}
    failed_before = sum(record.state == "failed" and record.cell in selected for record in ledger.records)
    progress = Progress(
        trials=whole.budget.trials, epochs=whole.budget.epochs, parallel=at_a_time, direction=ledger.direction
    )
    complaints: dict[str, None] = {}
    heading = report.heading(ledger)
    with watch(progress, console, primary=whole.primary, heading=heading, is_live=not in_process) as screen:
        summary = Conductor(
            suite=whole,
            catalog=catalog,
            store=opened or Store(uri),
            launcher=launcher,
            home=home,
            plugins=plugins,
            overrides=overrides,
            parallel=at_a_time,
            tell=_teller(screen, catalog, complaints),
            max_failures=max_failures,
        ).run(ledger, cells, retry=retry)
    again = report.options_again(suite, plugins=plugins, overrides=overrides, store=_typed("store", store))
    left = 0 if retry else failed_before
    report.print_end(console, summary, again, log, complaints=list(complaints), failed_before=left)
    if summary.is_interrupted:
        return INTERRUPTED
    return FAILED if summary.failed or left else 0


def _teller(screen: Screen, catalog: Catalog, complaints: dict[str, None]) -> Callable[[Event], None]:
    """Return what takes an event to the log, to the screen and to every plugin that observes."""
    from whitebench.events import CellFinished

    def tell(event: Event) -> None:
        logging.getLogger("whitebench").info("%s", event)
        screen.hear(event)
        if isinstance(event, CellFinished):
            complaints.update(dict.fromkeys(event.complaints))
        for complaint in catalog.tell(event):
            logging.getLogger("whitebench").warning(complaint)

    return tell


class _Spoken(logging.Handler):
    """Says on the terminal what would else look as if nothing happened."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(record.getMessage(), highlight=False, markup=False, soft_wrap=True)


def _need_one(cells: Sequence[PlannedCell]) -> None:
    if len(cells) != 1:
        one = cells[0].name
        raise WhitebenchError(
            f"--in-process trains one cell, and this selects {len(cells)}: narrow it, "
            f"as in -m {one.contestant} -t {one.task} --seeds {one.seed}-{one.seed}"
        )


def _deliver(console: Console, store: Store, home: Path) -> None:
    """Store what earlier runs could not."""
    from whitebench import report
    from whitebench.spool import Spool, deliver

    for delivery in deliver(Spool(home), store):
        report.print_lines(console, [f"{delivery.cell}: its result had waited for the store and is in it now"])


def _typed(name: str, value: str | None) -> str | None:
    """Return an option's value if it was typed: one from the environment may hold a password."""
    source = click.get_current_context().get_parameter_source(name)
    return value if source is click.core.ParameterSource.COMMANDLINE else None


def _log_to(home: Path, suite: str) -> Path:
    """Send everything that libraries say to a log file, out of the way of the screen."""
    path = home / ".whitebench" / "logs" / f"{suite}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    logging.raiseExceptions = False  # a log on a full disk is no reason to fill the screen
    logging.basicConfig(
        filename=path, level=logging.INFO, force=True, format="%(asctime)s %(name)s %(levelname)s %(message)s"
    )
    logging.captureWarnings(capture=True)
    return path

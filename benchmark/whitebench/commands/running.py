"""The commands that do the work of a suite."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from whitebench.address import without_password
from whitebench.commands.launchers import (
    how_to_start,
    launcher_of,
    launcher_text,
    need_one_cell,
    need_one_machine,
    refuse_missing_devices,
)
from whitebench.commands.selection import select_cells, with_data
from whitebench.commands.terminal import open_console, say_that_it_starts
from whitebench.errors import WhitebenchError
from whitebench.options import selection_options, suite_options, work_options

if TYPE_CHECKING:
    from rich.console import Console

    from whitebench.catalog import Catalog
    from whitebench.crew import Crew
    from whitebench.events import Event
    from whitebench.launching import Accelerator
    from whitebench.ledger import PlannedCell
    from whitebench.screen import Screen
    from whitebench.store import Store
    from whitebench.suite import Suite

FAILED, INTERRUPTED = 1, 130
"""Exit codes: some cells failed; stopped by Ctrl-C or a signal."""

CLAIMS_HERE = (
    "The claims of a store behind an MLflow server are kept on this machine: runs here share the work, while one on "
    "another machine would do it again. From several machines use a database, --store postgresql://HOST/DATABASE"
)


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
    plugins: Sequence[Path],
    overrides: Sequence[str],
    models: Sequence[str],
    tasks: Sequence[str],
    seeds: str | None,
    devices: int | None,
    num_nodes: int | None,
    launcher: str,
    ray_address: str | None,
    in_process: bool,
    **options: Any,
) -> int:
    from whitebench.muster import Muster

    launcher = launcher_text(launcher, ray_address)
    muster = Muster.read(os.environ)
    if not in_process:
        need_one_machine(launcher, num_nodes or 1, muster.members if muster else 1)
    if muster is None and (num_nodes or 1) > 1:
        raise WhitebenchError(how_to_start(num_nodes or 1, devices or 1))
    each = muster.devices_each(devices, num_nodes) if muster else devices or 1
    choose = partial(select_cells, suite, plugins, overrides, models=models, tasks=tasks, seeds=seeds)
    chosen = choose()
    _, whole, cells = chosen
    if in_process:
        need_one_cell(cells, devices=each * (muster.members if muster else 1))
    given: Any = {"plugins": plugins, "overrides": overrides, "devices": each, "launcher": launcher, **options}
    given["in_process"] = in_process
    if muster is None:
        return _conduct(suite, *with_data(choose, chosen), crew=None, **given)
    from whitebench.crew import Crew
    from whitebench.launching import Launcher, LaunchOptions

    crew = Crew(muster)
    if not crew.is_conductor:
        asked = LaunchOptions(threads=whole.budget.threads, devices=each, accelerator=options["accelerator"])
        refuse_missing_devices(asked, crew, whole)
        follower = Launcher(threads=whole.budget.threads)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # who ends a job tells all: the conductor lets the epoch end, then us
        crew.follow(follower)
        return 0
    try:
        return _conduct(suite, *with_data(choose, chosen), crew=crew, **given)
    finally:
        crew.disband()


def _conduct(
    suite: str,
    catalog: Catalog,
    whole: Suite,
    cells: Sequence[PlannedCell],
    *,
    crew: Crew | None,
    retry: bool,
    plugins: Sequence[Path],
    overrides: Sequence[str],
    store: str | None,
    parallel: int | None,
    devices: int,
    accelerator: Accelerator,
    launcher: str,
    max_failures: int | None,
    in_process: bool,
) -> int:
    from whitebench import report
    from whitebench.address import claims_url, exists, home_of, resolve_uri, see_that_it_can_be_written
    from whitebench.ledger import canonical_overrides, ledger_of, owed_cells

    uri = resolve_uri(store)
    see_that_it_can_be_written(uri)
    home = home_of(uri)
    console = open_console()
    say_that_it_starts(console)
    from whitebench.launching import LaunchOptions

    asked = LaunchOptions(threads=whole.budget.threads, devices=devices, accelerator=accelerator)
    # The local one's server loads torch while MLflow is imported here.
    launched = launcher_of(launcher, catalog, asked, crew, in_process=in_process)
    at_a_time = 1 if in_process or crew else parallel or launched.places
    from whitebench.conductor import Conductor
    from whitebench.feasibility import refuse_impossible
    from whitebench.progress import Progress
    from whitebench.screen import watch
    from whitebench.store import Store

    everywhere = refuse_missing_devices(asked, crew, whole, is_here=launched.is_here)
    opened = Store(uri) if exists(uri) else None
    if opened is not None:
        _deliver(console, opened, home)
    ledger = ledger_of(whole, catalog, opened, overrides=overrides, uri=uri, source=suite)
    if retry and not owed_cells(ledger, cells, retry=True):
        report.print_lines(console, [f"No cell of {whole.name} has failed: there is nothing to do once more."])
    given: Any = {"plugins": plugins, "at_a_time": at_a_time, "devices": everywhere, "retry": retry}
    refuse_impossible(whole, cells, ledger, launcher=launched, **given)
    log = _log_to(home, whole.name)
    logging.getLogger("whitebench.outage").addHandler(_Spoken(console))
    if claims_url(uri) != uri:
        report.print_lines(console, [CLAIMS_HERE])
    if counted := [one for one in overrides if canonical_overrides([one])]:
        console.print(f"Overridden: {', '.join(counted)}. Results are kept apart from those of {whole.name}.")
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
            launcher=launched,
            home=home,
            plugins=plugins,
            overrides=overrides,
            parallel=at_a_time,
            tell=_teller(screen, catalog, complaints),
            max_failures=max_failures,
            devices=devices,
            is_on_cpu=accelerator == "cpu",
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


class _Discreet(logging.Formatter):
    """Leaves out the passwords in what libraries say."""

    def format(self, record: logging.LogRecord) -> str:
        return without_password(super().format(record))


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
    handler = logging.FileHandler(path)
    handler.setFormatter(_Discreet("%(asctime)s %(name)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, force=True, handlers=[handler])
    logging.captureWarnings(capture=True)
    return path

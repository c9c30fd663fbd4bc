"""The commands: what each takes, whom it asks, what it prints. Rooms are imported inside their bodies."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from whitebench import __version__
from whitebench.options import cell_options, json_option, plugin_options, selection_options, suite_options

if TYPE_CHECKING:
    from rich.console import Console

    from whitebench.catalog import Catalog
    from whitebench.ledger import PlannedCell
    from whitebench.plugin import Kind
    from whitebench.suite import Suite

FAILED, INTERRUPTED = 1, 130
"""Exit codes: some cells failed; stopped by Ctrl-C or a signal."""

KINDS = ("models", "tasks", "metrics", "objectives", "suites")


@click.command(
    "list",
    short_help="What is registered, by whom, and what failed to load.",
    epilog="\b\nExample:\n  whitebench list models",
)
@click.argument("kinds", nargs=-1, type=click.Choice(KINDS), metavar="[models|tasks|metrics|objectives|suites]")
@plugin_options
@json_option
def list_items(kinds: Sequence[str], plugins: Sequence[Path], *, as_json: bool) -> None:
    """Show what is registered, who owns it, and which plugins failed to load."""
    from whitebench import report
    from whitebench.catalog import listing, load_catalog
    from whitebench.suite import load_suite, suite_names

    catalog = load_catalog(plugins)
    wanted = kinds or KINDS
    rows = listing(catalog, [_kind(kind) for kind in wanted if kind != "suites"])
    if "suites" in wanted:
        rows += [
            {"kind": "suite", "name": name, "summary": load_suite(name).summary, "distribution": "whitebench",
             "version": __version__, "plugin": "whitebench.suites"}
            for name in suite_names()
        ]  # fmt: skip
    if as_json:
        _print_json({"items": rows, "disputed": report.disputed(catalog), "quarantined": report.quarantined(catalog)})
        return
    console = _console()
    console.print(report.items_table(rows))
    for one in report.disputed(catalog):
        owners = " and by ".join(one["owners"])
        report.print_lines(console, [f"disputed: {one['kind']} {one['name']} is registered by {owners}"], style="red")
    for lost in report.quarantined(catalog):
        report.print_lines(console, [f"not loaded: {lost['owner']}: {lost['reason']}"], style="red")


@click.command(
    short_help="What a run would do: cells to do, stale, failed; trials owed.",
    epilog="\b\nExample:\n  whitebench plan smoke --set budget.epochs=3",
)
@suite_options
@selection_options
@json_option
def plan(
    suite: str,
    *,
    plugins: Sequence[Path],
    overrides: Sequence[str],
    store: str | None,
    models: Sequence[str],
    tasks: Sequence[str],
    seeds: str | None,
    as_json: bool,
) -> None:
    """Show what `run` would do: cells to do, done, stale and why, failed; trials owed."""
    from whitebench import report
    from whitebench.address import exists, home_of, resolve_uri
    from whitebench.contest import trials_owed
    from whitebench.ledger import ledger_of
    from whitebench.store import Store

    catalog, whole, selected = _select(suite, plugins, overrides, models=models, tasks=tasks, seeds=seeds)
    uri = resolve_uri(store)
    ledger = ledger_of(whole, catalog, Store(uri) if exists(uri) else None, overrides=overrides, uri=uri)
    finished = {record.cell for record in ledger.records if record.state == "finished"}
    cells = [cell for cell in selected if cell.name not in finished]
    owed = trials_owed(whole, cells, catalog, home_of(uri))
    if as_json:
        _print_json({**report.status_values(ledger), "to_do": len(cells), "trials_owed": owed})
        return
    console = _console()
    report.print_lines(console, [report.heading(ledger)], style="bold")
    states = ", ".join(f"{count} {state}" for state, count in report.counts(ledger).items())
    lines = [f"{report.count(len(cells), 'cell')} to do (of the whole suite: {states})"]
    lines += [f"  {contest}: {count} of {whole.budget.trials} trials owed" for contest, count in owed.items() if count]
    report.print_lines(console, [*lines, *(f"  {reason}" for reason in report.reasons(ledger))])


@click.command(
    short_help="Run what is not done of a suite.",
    epilog="\b\nExamples:\n  whitebench run smoke\n  whitebench run smoke --plugin my_model.py -m my-model",
)
@suite_options
@selection_options
@click.option(
    "--parallel",
    type=click.IntRange(min=1),
    help="Fits at a time.  [default: as many as cores allow at the suite's threads per fit]",
)
def run(
    suite: str,
    *,
    plugins: Sequence[Path],
    overrides: Sequence[str],
    store: str | None,
    models: Sequence[str],
    tasks: Sequence[str],
    seeds: str | None,
    parallel: int | None,
) -> int:
    """Run the cells of SUITE that are not done; the same command again goes on where it stopped.

    Exits with 0 when all went well, 1 when cells failed, 2 on wrong use, 130 when interrupted.
    """
    from whitebench import report
    from whitebench.address import home_of, resolve_uri
    from whitebench.ledger import ledger_of
    from whitebench.provenance import usable_cores

    catalog, whole, cells = _select(suite, plugins, overrides, models=models, tasks=tasks, seeds=seeds)
    uri = resolve_uri(store)
    at_a_time = parallel or max(1, usable_cores() // whole.budget.threads)
    home = home_of(uri)
    log = _log_to(home, whole.name)
    console = _console()
    if console.is_terminal:
        console.print("Starting: loading torch, Lightning and MLflow …", style="dim", highlight=False)
    from whitebench.launch import Launcher  # its server loads torch while MLflow is imported here

    launcher = Launcher(threads=whole.budget.threads)
    from whitebench.conductor import Conductor
    from whitebench.events import CellFinished
    from whitebench.lock import only_one
    from whitebench.progress import Progress
    from whitebench.screen import watch
    from whitebench.store import Store

    with only_one(whole.name, home):
        if overrides:
            console.print(f"Overridden: {', '.join(overrides)}. Results are kept apart from those of {whole.name}.")
        opened = Store(uri)
        ledger = ledger_of(whole, catalog, opened, overrides=overrides, uri=uri, source=suite)
        progress = Progress(
            trials=whole.budget.trials, epochs=whole.budget.epochs, parallel=at_a_time, direction=ledger.direction
        )
        complaints: dict[str, None] = {}
        with watch(progress, console, primary=whole.primary, heading=report.heading(ledger)) as screen:

            def tell(event: Any) -> None:
                logging.getLogger("whitebench").info("%s", event)
                screen.hear(event)
                if isinstance(event, CellFinished):
                    complaints.update(dict.fromkeys(event.complaints))
                for complaint in catalog.tell(event):
                    logging.getLogger("whitebench").warning(complaint)

            summary = Conductor(
                suite=whole,
                catalog=catalog,
                store=opened,
                launcher=launcher,
                home=home,
                plugins=plugins,
                overrides=overrides,
                parallel=at_a_time,
                tell=tell,
            ).run(ledger, cells)
    again = report.options_again(suite, plugins=plugins, overrides=overrides, store=_typed("store", store))
    report.print_end(console, summary, again, log, complaints=list(complaints))
    if summary.is_interrupted:
        return INTERRUPTED
    return FAILED if summary.failed else 0


@click.command(short_help="The state of every cell.", epilog="\b\nExample:\n  whitebench status smoke")
@suite_options
@json_option
def status(suite: str, *, plugins: Sequence[Path], overrides: Sequence[str], store: str | None, as_json: bool) -> None:
    """Show the state of every cell of SUITE."""
    from whitebench import report
    from whitebench.ledger import read_ledger

    ledger = read_ledger(suite, store=store, plugins=plugins, overrides=overrides)
    if as_json:
        _print_json(report.status_values(ledger))
        return
    _console().print(report.status_table(ledger))


@click.command(short_help="Everything about one cell.", epilog="\b\nExample:\n  whitebench show smoke/crate/digits/0")
@cell_options
@json_option
def show(cell: str, *, plugins: Sequence[Path], overrides: Sequence[str], store: str | None, as_json: bool) -> None:
    """Show everything about one CELL: scores, layer profiles, costs, choice, provenance, its MLflow run."""
    from whitebench import report
    from whitebench.result import to_json

    ledger, record = _record_of(cell, plugins, store, overrides)
    if as_json:
        stored = json.loads(to_json(record.result)) if record.result else None
        _print_json({"cell": cell, "state": record.state, "reason": record.reason, "run_id": record.run_id,
                     "store": ledger.store_uri, "result": stored})  # fmt: skip
        return
    console = _console()
    title = f"{cell}: {record.state}" + (f" ({record.reason})" if record.reason else "")
    report.print_lines(console, [title], style="bold")
    if record.result is not None:
        console.print(report.scores_table(record.result))
        report.print_lines(console, report.result_lines(record.result))
    if record.run_id:
        report.print_lines(console, [f"MLflow run {record.run_id} in {ledger.store_uri}"])


@click.command(
    "why-stale",
    short_help="Which part of a cell has changed since it was run.",
    epilog="\b\nExample:\n  whitebench why-stale smoke/crate/digits/0",
)
@cell_options
@json_option
def why_stale(
    cell: str, *, plugins: Sequence[Path], overrides: Sequence[str], store: str | None, as_json: bool
) -> None:
    """Show which part of a CELL's identity has changed since it was run."""
    _, record = _record_of(cell, plugins, store, overrides)
    changes = record.reason.split("; ") if record.state == "stale" else []
    if as_json:
        _print_json({"cell": cell, "state": record.state, "changes": changes})
        return
    if record.state == "stale":
        click.echo(f"{cell} is stale; since it was run these have changed:")
        for change in changes:
            click.echo(f"  {change}")
        return
    click.echo(f"{cell} is not stale: it is {record.state}" + (f" ({record.reason})" if record.reason else ""))


def _select(
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
        click.echo(f"whitebench: not loaded: {lost.owner}: {lost.reason}", err=True)
    loaded = load_suite(suite, overrides)
    whole, cells = select(loaded, catalog, models=models, tasks=tasks, seeds=parse_seeds(seeds) if seeds else None)
    return catalog, whole, cells


def _typed(name: str, value: str | None) -> str | None:
    """Return an option's value if it was typed: one from the environment may hold a password."""
    source = click.get_current_context().get_parameter_source(name)
    return value if source is click.core.ParameterSource.COMMANDLINE else None


def _kind(plural: str) -> Kind:
    kinds: dict[str, Kind] = {
        "models": "model",
        "tasks": "task",
        "metrics": "metric",
        "objectives": "objective",
    }
    return kinds[plural]


def _record_of(cell: str, plugins: Sequence[Path], store: str | None, overrides: Sequence[str]) -> Any:
    """Return the ledger and the record of a cell, whose suite may be given by the path of its file."""
    from whitebench.errors import UnknownNameError
    from whitebench.identity import CellName
    from whitebench.ledger import read_ledger

    suite, *rest = cell.rsplit("/", 3)
    CellName.parse("/".join(["suite", *rest]) if rest else cell)
    ledger = read_ledger(suite, store=store, plugins=plugins, overrides=overrides)
    known = {f"{suite}{str(record.cell).removeprefix(ledger.suite.name)}": record for record in ledger.records}
    if cell not in known:
        raise UnknownNameError("cell", cell, known)
    return ledger, known[cell]


def _log_to(home: Path, suite: str) -> Path:
    """Send everything that libraries say to a log file, out of the way of the screen."""
    path = home / ".whitebench" / "logs" / f"{suite}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        filename=path, level=logging.INFO, force=True, format="%(asctime)s %(name)s %(levelname)s %(message)s"
    )
    logging.captureWarnings(capture=True)
    return path


def _console() -> Console:
    from rich.console import Console

    return Console()


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2))

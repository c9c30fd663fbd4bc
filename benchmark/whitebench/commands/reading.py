"""The commands that only read: what is registered, and what the store has."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from whitebench import __version__
from whitebench.commands.terminal import open_console, print_json
from whitebench.errors import WhitebenchError
from whitebench.options import cell_options, json_option, plugin_options, suite_options
from whitebench.wording import count, plain

if TYPE_CHECKING:
    from whitebench.plugin import Kind

KINDS = ("models", "tasks", "metrics", "objectives", "readouts", "launchers", "suites")


@click.command(
    "list",
    short_help="What is registered, by whom, and what failed to load.",
    epilog="\b\nExample:\n  whitebench list models",
)
@click.argument("kinds", nargs=-1, type=click.Choice(KINDS), metavar=f"[{'|'.join(KINDS)}]")
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
        print_json({"items": rows, "disputed": report.disputed(catalog), "quarantined": report.quarantined(catalog)})
        return
    console = open_console()
    console.print(report.items_table(rows))
    for one in report.disputed(catalog):
        owners = " and by ".join(one["owners"])
        report.print_lines(console, [f"disputed: {one['kind']} {one['name']} is registered by {owners}"], style="red")
    for lost in report.quarantined(catalog):
        report.print_lines(console, [plain(f"not loaded: {lost['owner']}: {lost['reason']}")], style="red")


@click.command(short_help="The state of every cell.", epilog="\b\nExample:\n  whitebench status smoke")
@suite_options
@json_option
def status(suite: str, *, plugins: Sequence[Path], overrides: Sequence[str], store: str | None, as_json: bool) -> None:
    """Show the state of every cell of SUITE."""
    from whitebench import report
    from whitebench.ledger import read_ledger

    ledger = read_ledger(suite, store=store, plugins=plugins, overrides=overrides)
    if as_json:
        print_json(report.status_values(ledger))
        return
    open_console().print(report.status_table(ledger))


@click.command(short_help="Everything about one cell.", epilog="\b\nExample:\n  whitebench show smoke/crate/digits/0")
@cell_options
@click.option(
    "--figures",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Draw its layers beside their nulls, and all its metrics' pictures, into DIR (PNG and SVG).",
)
@json_option
def show(
    cell: str,
    *,
    plugins: Sequence[Path],
    overrides: Sequence[str],
    store: str | None,
    figures: Path | None,
    as_json: bool,
) -> None:
    """Show everything about one CELL: scores, layer profiles, costs, choice, provenance, its MLflow run."""
    from whitebench import report
    from whitebench.address import printed
    from whitebench.result import to_json

    ledger, record = _record_of(cell, plugins, store, overrides)
    drawn = _draw(cell, ledger, record, figures) if figures else None
    if as_json:
        stored = json.loads(to_json(record.result)) if record.result else None
        found = record.verification
        verified = {"standing": found.standing, **asdict(found)} if found else None
        print_json(
            {
                "cell": cell,
                "state": record.state,
                "reason": record.reason,
                "run_id": record.run_id,
                "store": printed(ledger.store_uri),
                "result": stored,
                "verification": verified,
                "figures": drawn,
            }
        )
        return
    console = open_console()
    title = f"{cell}: {record.state}" + (f" ({record.reason})" if record.reason else "")
    report.print_lines(console, [title], style="bold")
    if record.result is not None:
        console.print(report.scores_table(record.result))
        report.print_lines(console, report.result_lines(record.result))
    if record.verification is not None:
        report.print_lines(console, report.verification_lines(record.verification))
    if record.run_id:
        report.print_lines(console, [f"MLflow run {record.run_id} in {printed(ledger.store_uri)}"])
    if drawn is not None:
        report.print_lines(console, [f"{count(len(drawn), 'file')} drawn into {figures}"])


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
        print_json({"cell": cell, "state": record.state, "changes": changes})
        return
    if record.state == "stale":
        click.echo(f"{cell} is stale; since it was run these have changed:")
        for change in changes:
            click.echo(f"  {change}")
        return
    click.echo(f"{cell} is not stale: it is {record.state}" + (f" ({record.reason})" if record.reason else ""))


def _kind(plural: str) -> Kind:
    kinds: dict[str, Kind] = {
        "models": "model",
        "tasks": "task",
        "metrics": "metric",
        "objectives": "objective",
        "readouts": "readout",
        "launchers": "launcher",
    }
    return kinds[plural]


def _draw(cell: str, ledger: Any, record: Any, folder: Path) -> list[str]:
    """Draw a cell's figures with whatever is installed to draw them, and return the files."""
    from importlib.metadata import entry_points

    from whitebench.store import Store

    if record.result is None:
        raise WhitebenchError(f"{cell} has no figures: it is {record.state}; whitebench run makes its result")
    pictures = Store(ledger.store_uri, is_reader=True).pictures(record.run_id)
    drawers = [point.load() for point in entry_points(group="whitebench.figures")]
    return [str(file) for draw in drawers for file in draw(record.result, pictures, folder)]


def _record_of(cell: str, plugins: Sequence[Path], store: str | None, overrides: Sequence[str]) -> Any:
    """Return the ledger and the record of a cell, whose suite may be given by the path of its file."""
    from whitebench.errors import UnknownNameError
    from whitebench.identity import CellName
    from whitebench.ledger import read_ledger

    suite, *rest = cell.rsplit("/", 3)
    CellName.parse("/".join(["suite", *rest]) if rest else cell, typed=cell)
    ledger = read_ledger(suite, store=store, plugins=plugins, overrides=overrides)
    known = {f"{suite}{str(record.cell).removeprefix(ledger.suite.name)}": record for record in ledger.records}
    if cell not in known:
        raise UnknownNameError("cell", cell, known)
    return ledger, known[cell]

"""The command that says what a run would do, and what that would cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from whitebench.commands.selection import select_cells, with_data
from whitebench.commands.terminal import open_console, print_json
from whitebench.options import json_option, parallel_option, selection_options, suite_options
from whitebench.wording import count

if TYPE_CHECKING:
    from rich.console import Console

    from whitebench.estimate import Estimate
    from whitebench.ledger import PlannedCell
    from whitebench.suite import Suite


@click.command(
    short_help="What a run would do: cells to do, stale, failed; trials owed.",
    epilog="\b\nExamples:\n  whitebench plan smoke --set budget.epochs=3\n  whitebench plan smoke --estimate",
)
@suite_options
@selection_options
@click.option(
    "--estimate",
    "is_estimated",
    is_flag=True,
    help="Time a few real steps of each contestant, and tell device-hours and memory before anyone spends them.",
)
@parallel_option
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
    is_estimated: bool,
    parallel: int | None,
    as_json: bool,
) -> None:
    """Show what `run` would do: cells to do, done, stale and why, failed; trials owed.

    With `--estimate` also what that takes: device-hours and memory, by contestant and in all, as many fits at a time as
    `--parallel` says.
    """
    from whitebench import report
    from whitebench.address import exists, resolve_uri
    from whitebench.contest import trials_owed
    from whitebench.ledger import ledger_of
    from whitebench.provenance import usable_cores
    from whitebench.store import Store
    from whitebench.tuning import Storage

    choose = partial(select_cells, suite, plugins, overrides, models=models, tasks=tasks, seeds=seeds)
    catalog, whole, selected = with_data(choose, choose()) if is_estimated else choose()
    uri = resolve_uri(store)
    opened = Store(uri, is_reader=True) if exists(uri) else None
    ledger = ledger_of(whole, catalog, opened, overrides=overrides, uri=uri)
    finished = {record.cell for record in ledger.records if record.state == "finished"}
    cells = [cell for cell in selected if cell.name not in finished]
    owed = trials_owed(whole, cells, catalog, Storage.of_store(uri))
    console = open_console()
    cost = None
    if is_estimated:
        at_a_time = parallel or max(1, usable_cores() // whole.budget.threads)
        if not as_json:
            _say_that_it_times(console, cells, at_a_time)
        cost = _estimate(whole, cells, owed, plugins=plugins, parallel=at_a_time)
    if as_json:
        told = {"estimate": report.estimate_values(cost)} if cost else {}
        told["matched"] = {f"{label}/{task}": model for (label, task), model in ledger.matched.items()}
        print_json({**report.status_values(ledger), "to_do": len(cells), "trials_owed": owed, **told})
        return
    report.print_lines(console, [report.heading(ledger)], style="bold")
    states = ", ".join(f"{number} {state}" for state, number in report.counts(ledger).items())
    lines = [f"{count(len(cells), 'cell')} to do (of the whole suite: {states})"]
    lines += [
        f"  {contest}: {number} of {whole.budget.trials} trials owed" for contest, number in owed.items() if number
    ]
    lines += [f"  {label}/{task}: matched as {model}" for (label, task), model in ledger.matched.items()]
    lines += [f"  {reason}" for reason in dict.fromkeys(cell.identity.unknown for cell in cells) if reason]
    report.print_lines(console, [*lines, *(f"  {reason}" for reason in report.reasons(ledger))])
    if cost and cost.shares:
        console.print(report.estimate_table(cost))
        report.print_lines(console, report.estimate_lines(cost))


def _say_that_it_times(console: Console, cells: Sequence[PlannedCell], at_a_time: int) -> None:
    """Tell a person who waits why nothing is seen yet."""
    pairs = {(cell.name.contestant, cell.name.task) for cell in cells}
    if console.is_terminal and pairs:
        said = f"Timing a few steps of {count(len(pairs), 'contestant')}, {at_a_time} at a time …"
        console.print(said, style="dim", highlight=False)


def _estimate(
    suite: Suite, cells: Sequence[PlannedCell], owed: Mapping[str, int], *, plugins: Sequence[Path], parallel: int
) -> Estimate:
    from whitebench.estimate import estimate
    from whitebench.launch import Launcher

    launcher = Launcher(threads=suite.budget.threads)
    try:
        launcher.warm()
        return estimate(suite, cells, owed, launcher=launcher, plugins=plugins, parallel=parallel)
    finally:
        launcher.close()

"""The command that says below which difference a suite's scores say nothing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from whitebench.commands.selection import open_finished
from whitebench.commands.terminal import open_console, print_json, say_that_it_starts
from whitebench.errors import UnknownNameError, WhitebenchError
from whitebench.options import json_option, suite_options

if TYPE_CHECKING:
    from rich.table import Table

    from whitebench.audit import Audit, Exhibit
    from whitebench.calibration import Calibration


@click.command(
    short_help="How much one cell differs from itself: a suite's noise floor.",
    epilog="\b\nExamples:\n  whitebench calibrate smoke\n  whitebench calibrate smoke -m crate --repeats 3",
)
@suite_options
@click.option("-m", "--model", help="Repeat a cell of this contestant.  [default: the first with a finished cell]")
@click.option(
    "--repeats", type=click.IntRange(min=1, max=100), default=2, show_default=True, help="Fits as the suite says."
)
@json_option
def calibrate(
    suite: str,
    *,
    plugins: Sequence[Path],
    overrides: Sequence[str],
    store: str | None,
    model: str | None,
    repeats: int,
    as_json: bool,
) -> int:
    """Repeat one finished cell of SUITE with the same seed, and say how far its scores lie apart.

    First as the suite says, then with one, two and all threads, the other precision, two devices, and without the GPU
    where there is one. The largest difference is the suite's noise floor: smaller ones on its board say nothing.
    Nothing is ranked by what comes out, and no opening of the test split is counted.
    """
    from whitebench.address import home_of, printed
    from whitebench.interruption import Interruption
    from whitebench.launch import Launcher  # its server loads torch while MLflow is imported here
    from whitebench.provenance import usable_cores
    from whitebench.spool import Spool

    console = open_console()
    if not as_json:
        say_that_it_starts(console)
    catalog, loaded, uri = open_finished(suite, plugins, overrides, store)
    launcher = Launcher(threads=loaded.budget.threads)
    from whitebench import gauge, report
    from whitebench.audit import Audit
    from whitebench.ledger import canonical_overrides
    from whitebench.store import Store

    opened, work = Store(uri), Spool(home_of(uri)).fits
    audit = Audit(loaded, catalog, opened, overrides=overrides, plugins=plugins, work=work, is_repeated=True)
    exhibit = _first_of(audit, suite, model)
    name = exhibit.planned.name

    def tell(setting: str, why: str) -> None:
        if not as_json:
            said = f"not computed: {why}" if why else "done"
            report.print_lines(console, [f"{name}, {setting or 'as the suite says'}: {said}"])

    with closing(launcher), Interruption() as interruption, interruption.welcome():
        found = gauge.calibrate(
            audit.suite,
            catalog,
            opened,
            launcher,
            exhibit,
            plugins=[path.resolve() for path in plugins],
            work=work,
            cores=usable_cores(),
            repeats=repeats,
            tell=tell,
        )
    run_id = opened.record_calibration(name, canonical_overrides(overrides), found)
    if as_json:
        floors = {"at_equal_settings": found.at_equal_settings, "across_settings": found.across_settings}
        print_json({**asdict(found), **floors, "run_id": run_id, "store": printed(uri)})
        return 0
    console.print(_floors(found))
    report.print_lines(console, [f"The noise floor of {loaded.name} is kept as MLflow run {run_id} in {printed(uri)}"])
    return 0


def _first_of(audit: Audit, suite: str, model: str | None) -> Exhibit:
    labels = [one.label for one in audit.suite.everyone]
    if model is not None and model not in labels:
        raise UnknownNameError(f"contestant of suite {audit.suite.name}", model, labels)
    found = [one for one in audit.exhibits() if model in (None, one.planned.name.contestant)]
    if not found:
        who = f"contestant {model} of {suite}" if model else suite
        raise WhitebenchError(f"{who} has no finished cell that could be repeated: `whitebench run {suite}` makes them")
    return found[0]


def _floors(found: Calibration) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("score", "value", "same\nsettings", "any\nsettings", "farthest"):
        table.add_column(column, justify="left" if column in ("score", "farthest") else "right", overflow="fold")
    equal, across = found.at_equal_settings, found.across_settings
    for name, value in found.repetitions[0].values.items():
        floors = [f"{one[name]:.3g}" if name in one else "" for one in (equal, across)]
        table.add_row(name, f"{value:.6g}", *floors, found.farthest(name) if across.get(name) else "")
    return table

"""The command that computes again what is finished: are the scores those that were reported?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from whitebench.commands.selection import open_finished
from whitebench.commands.terminal import open_console, print_json, say_that_it_starts
from whitebench.errors import UnknownNameError, WhitebenchError
from whitebench.options import json_option, parallel_option, target_options
from whitebench.wording import count

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from whitebench.audit import Audit, Exhibit, Verdict

OTHERWISE = 1
"""Exit code: something differs, or could not be verified."""
STYLE_BY_STANDING = {"recomputed": "green", "reproduced": "green", "differs": "bold red", "unverified": "yellow"}


@click.command(
    short_help="Whether the scores of finished cells come out again.",
    epilog="\b\nExamples:\n  whitebench verify smoke\n  whitebench verify smoke/crate/digits/0 --retrain",
)
@target_options
@click.option("--retrain", "is_repeated", is_flag=True, help="Repeat the whole fit, with its frozen hyperparameters.")
@parallel_option
@json_option
def verify(
    target: str,
    *,
    plugins: Sequence[Path],
    overrides: Sequence[str],
    store: str | None,
    is_repeated: bool,
    parallel: int | None,
    as_json: bool,
) -> int:
    """Compute every score of a finished CELL, or of all of a SUITE, once more and compare it with the one stored.

    Files are held against the sha256 in the record; scores of predictions are made of the stored predictions, the
    others of a model with the stored weights. What comes out stands on the board; the reported numbers stay, and no
    opening of the test split is counted. A task that solves itself is solved again.

    Exits with 0 when everything agrees, 1 when something differs or could not be verified, 2 on wrong use.
    """
    from whitebench.address import home_of, printed
    from whitebench.interruption import Interruption
    from whitebench.launch import Launcher  # its server loads torch while MLflow is imported here
    from whitebench.provenance import usable_cores
    from whitebench.spool import Spool

    console = open_console()
    if not as_json:
        say_that_it_starts(console)
    suite, cell = _parted(target)
    catalog, loaded, uri = open_finished(suite, plugins, overrides, store)
    launcher = Launcher(threads=loaded.budget.threads)
    from whitebench.audit import Audit
    from whitebench.store import Store

    work = Spool(home_of(uri)).fits
    audit = Audit(loaded, catalog, Store(uri), overrides=overrides, plugins=plugins, work=work, is_repeated=is_repeated)
    exhibits = _chosen(audit, suite, cell)
    at_a_time = parallel or max(1, usable_cores() // loaded.budget.threads)
    verdicts = []
    with (
        closing(launcher),
        Interruption() as interruption,
        interruption.welcome(),
        closing(audit.verdicts(exhibits, launcher, parallel=at_a_time)) as found,
    ):
        for verdict in found:
            verdicts.append(verdict)
            if not as_json:
                _print_verdict(console, verdict, is_alone=bool(cell))
    if as_json:
        print_json({"suite": loaded.name, "store": printed(uri), "cells": [_values(verdict) for verdict in verdicts]})
    elif not cell:
        _print_end(console, verdicts, unfinished=len(audit.names()) - len(exhibits))
    return 0 if all(one.verification and not one.verification.differences for one in verdicts) else OTHERWISE


def _parted(target: str) -> tuple[str, str]:
    """Return the suite that is named, and `/CONTESTANT/TASK/SEED` where a cell is."""
    found = re.fullmatch(r"(?P<suite>.+)(?P<cell>/[^/]+/[^/]+/[0-9]{1,10})", target)
    return (found["suite"], found["cell"]) if found else (target, "")


def _chosen(audit: Audit, suite: str, cell: str) -> list[Exhibit]:
    """Return the finished cells that are meant: one, or all."""
    exhibits, own = audit.exhibits(), audit.suite.name
    if not cell:
        if not exhibits:
            raise WhitebenchError(f"{suite} has no finished cell: `whitebench status {suite}` says what became of each")
        return exhibits
    known = audit.names()
    if f"{own}{cell}" not in known:
        raise UnknownNameError("cell", f"{suite}{cell}", [f"{suite}{one.removeprefix(own)}" for one in known])
    chosen = [one for one in exhibits if str(one.planned.name) == f"{own}{cell}"]
    if not chosen:
        raise WhitebenchError(f"{suite}{cell} is not finished: `whitebench show {suite}{cell}` says what became of it")
    return chosen


def _print_verdict(console: Console, verdict: Verdict, *, is_alone: bool) -> None:
    from whitebench import report

    found = verdict.verification
    said = f": {verdict.why}" if verdict.why else ""
    if found and found.num_scores:
        agree = sum(one.agrees for one in verdict.comparisons)
        said = f": {agree} of {count(found.num_scores, 'score')} agree"
    report.print_lines(
        console, [f"{verdict.cell}: {verdict.standing}{said}"], style=STYLE_BY_STANDING[verdict.standing]
    )
    if is_alone and verdict.comparisons:
        console.print(_comparisons(verdict))
    if found:
        lines = report.verification_lines(found)
        report.print_lines(console, lines if is_alone else [f"  {line}" for line in found.differences])


def _comparisons(verdict: Verdict) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in ("score", "stored", "again", ""):
        table.add_column(column, justify="right" if column in ("stored", "again") else "left", overflow="fold")
    for one in verdict.comparisons:
        stored, again = ("" if value is None else f"{value:.6g}" for value in (one.stored, one.again))
        table.add_row(Text(one.name), stored, again, Text(str(one), style="" if one.agrees else "bold red"))
    return table


def _print_end(console: Console, verdicts: Sequence[Verdict], *, unfinished: int) -> None:
    from whitebench import report

    standings = [one.standing for one in verdicts]
    parts = [f"{standings.count(one)} {one}" for one in STYLE_BY_STANDING if one in standings]
    parts += [f"{unfinished} not finished"] if unfinished else []
    report.print_lines(console, [f"{count(len(verdicts), 'cell')}: {', '.join(parts)}"])


def _values(verdict: Verdict) -> dict[str, Any]:
    return {
        "cell": str(verdict.cell),
        "standing": verdict.standing,
        "why": verdict.why or None,
        "traceback": verdict.traceback or None,
        "verification": asdict(verdict.verification) if verdict.verification else None,
        "scores": [{**asdict(one), "agrees": one.agrees, "says": str(one)} for one in verdict.comparisons],
    }

"""What the read commands print: a ledger, a catalog or a result as tables and lines, or as plain values for JSON."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from whitebench.address import HIDDEN, printed
from whitebench.origin import origin_of
from whitebench.screen import duration
from whitebench.wording import count

if TYPE_CHECKING:
    from rich.console import Console

    from whitebench.catalog import Catalog
    from whitebench.conductor import Summary
    from whitebench.estimate import Estimate, Share
    from whitebench.ledger import Ledger
    from whitebench.result import Result
    from whitebench.verification import Verification


def heading(ledger: Ledger) -> str:
    """Return the suite's name, version, overrides and summary in one line."""
    overridden = f" (overridden: {', '.join(ledger.overrides)})" if ledger.overrides else ""
    return f"Suite {ledger.suite.name} version {ledger.suite.version}{overridden}: {ledger.suite.summary}"


def items_table(rows: Iterable[dict[str, str]]) -> Table:
    """Return the registered items, one a row, with their owners."""
    return _table(
        ("kind", "name", "what it is", "owner"),
        ((row["kind"], row["name"], row["summary"], _owner(row)) for row in rows),
        whole=("kind", "name"),
    )


def disputed(catalog: Catalog) -> list[dict[str, Any]]:
    """Return the names that have more than one owner."""
    return [
        {"kind": kind, "name": name, "owners": [str(owner) for owner in owners]}
        for (kind, name), owners in catalog.disputed.items()
    ]


def quarantined(catalog: Catalog) -> list[dict[str, str]]:
    """Return the plugins that failed to load, with their reasons."""
    return [{"owner": str(one.owner), "reason": one.reason, "traceback": one.traceback} for one in catalog.quarantined]


def counts(ledger: Ledger) -> dict[str, int]:
    """Return how many cells there are in each state."""
    states = [record.state for record in ledger.records]
    return {state: states.count(state) for state in dict.fromkeys(states)}


def status_table(ledger: Ledger) -> Table:
    """Return every cell with its state and its primary score."""
    rows = []
    for record in ledger.records:
        score = record.result.score(ledger.suite.primary) if record.result else None
        value = "" if score is None or score.value is None else f"{score.value:.4f}"
        rows.append((str(record.cell), record.state, value, "" if record.state == "finished" else record.reason))
    primary = ledger.suite.primary
    return _table(("cell", "state", primary, "why"), rows, title=heading(ledger), right=(primary,))


def status_values(ledger: Ledger) -> dict[str, Any]:
    """Return every cell with its state, for JSON."""
    return {
        "suite": ledger.suite.name,
        "version": ledger.suite.version,
        "overrides": list(ledger.overrides),
        "store": printed(ledger.store_uri),
        "cells": [
            {
                "cell": str(record.cell),
                "state": record.state,
                "reason": record.reason,
                "run_id": record.run_id,
                "is_guest": record.is_guest,
            }
            for record in ledger.records
        ],
    }


def reasons(ledger: Ledger) -> list[str]:
    """Return why cells that were run do not count, a line for each reason with the cells it holds for."""
    cells_by_reason: dict[tuple[str, str], list[str]] = {}
    for record in ledger.records:
        if record.state in ("stale", "failed", "interrupted"):
            cells_by_reason.setdefault((record.state, record.reason), []).append(str(record.cell))
    return [f"{', '.join(cells)}: {state}: {reason}" for (state, reason), cells in cells_by_reason.items()]


def estimate_table(cost: Estimate) -> Table:
    """Return what each contestant's fits take on each task."""
    columns = ("contestant/task", "trials", "cells", "a fit", "device-hours", "memory")
    rows = [
        (f"{share.contestant}/{share.task}", str(share.trials), str(share.cells), *_costs(share))
        for share in cost.shares
    ]
    return _table(columns, rows, right=columns[1:])


def estimate_lines(cost: Estimate) -> list[str]:
    """Return why some fits could not be timed, and what all the others take."""
    lines = [
        f"{one.contestant}/{one.task} could not be timed, and is not counted: {one.reason}" for one in cost.untimed
    ]
    most, why = ("at most ", ", fewer where trials are pruned") if cost.is_pruned else ("", "")
    lines.append(
        f"In all {count(cost.fits, 'fit')}: {most}{cost.seconds / 3600:.3g} device-hours{why}; {most or 'about '}"
        f"{duration(cost.wall_seconds)} with {cost.parallel} at a time, which take up to {_bytes(cost.memory)}"
    )
    return lines


def estimate_values(cost: Estimate) -> dict[str, Any]:
    """Return what each contestant's fits take on each task, and all of them, for JSON."""
    return {
        "fits": cost.fits,
        "device_hours": cost.seconds / 3600,
        "wall_seconds": cost.wall_seconds,
        "parallel": cost.parallel,
        "memory_bytes": cost.memory,
        "is_at_most": cost.is_pruned,
        "contestants": [{**asdict(share), "seconds": share.seconds} for share in cost.shares],
    }


def _costs(share: Share) -> tuple[str, str, str]:
    if share.seconds is None or share.cell_seconds is None:
        return "", "", ""
    fit = share.cell_seconds
    hours = f"{share.seconds / 3600:.3g}"
    return f"{fit:.2g} s" if fit < 10 else duration(fit), hours, _bytes(share.memory or 0)


def _bytes(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB" if size < 2**30 else f"{size / 2**30:.1f} GiB"


def scores_table(result: Result) -> Table:
    """Return a result's scores and costs, with their layers and nulls."""
    rows: list[tuple[str, str, str]] = []
    metric = ""
    for score in (*result.scores, *result.costs):
        first, _, part = score.name.partition("/")
        # The parts of a metric stand below its name: written whole, they leave no room for the rest at 80 columns.
        if part and first != metric:
            rows.append((first, "", ""))
        metric = first if part else ""
        value = "unscored" if score.value is None else f"{score.value:.6g} {score.unit}".strip()
        layers = " ".join(f"{value:.4g}" for value in score.profile)
        nulls = ", ".join(f"{name}: {value:.4g}" for name, value in score.nulls.items())
        told = score.unscored or " | ".join(filter(None, (layers, nulls)))
        rows.append((f"  {part}" if part else first, value, told))
    return _table(("score", "value", "by layer, or why there is none"), rows, right=("value",))


def result_lines(result: Result) -> list[str]:
    """Return where a result's numbers come from: choice, epoch, test split, code, machine, moment."""
    return [f"{term}: {told}" for term, told in origin_of(result)]


def verification_lines(found: Verification) -> list[str]:
    """Return what came of computing a cell's scores again: when, on what, and what came out otherwise."""
    how = {
        "recomputed": "recomputed from stored predictions and weights",
        "reproduced": "reproduced by a fit repeated",
        "differs": f"differs from {'a fit repeated' if found.is_repeated else 'stored predictions and weights'}",
    }[found.standing]
    near = "to the last digit" if found.tolerance == 0 else f"to {found.tolerance:g} of each number where not equal"
    compared = f", {count(found.num_scores, 'score')} compared {near}" if found.num_scores else ""
    return [
        f"verified: {how}, {found.when}, {found.device}, {count(found.threads, 'thread')}{compared}",
        *([f"since the fit, other circumstances: {'; '.join(found.changes)}"] if found.changes else []),
        *(f"differs: {line}" for line in found.differences),
    ]


def options_again(suite: str, *, plugins: Sequence[Path], overrides: Sequence[str], store: str | None) -> str:
    """Return the words that name the same results in another command; a password is left out of the store's URI."""
    options = [("--plugin", str(path)) for path in plugins] + [("--set", override) for override in overrides]
    options += [("--store", printed(store))] if store else []
    return shlex.join([suite, *(word for option in options for word in option)])


def print_end(
    console: Console,
    summary: Summary,
    again: str,
    log: Path,
    *,
    complaints: Sequence[str],
    failed_before: int = 0,
) -> None:
    """Print what a run did, which metrics raised, and what to type next."""
    parts = [f"{count(summary.finished, 'cell')} done"]
    if summary.elsewhere:
        parts.append(f"{summary.elsewhere} by another run")
    if summary.failed:
        parts.append(f"{summary.failed} failed (why: whitebench status {again})")
    if failed_before:
        parts.append(f"{failed_before} failed earlier (once more: whitebench retry {again})")
    if summary.is_cut_short:
        parts.append("given up for its failures (the same command goes on)")
    if summary.is_interrupted:
        parts.append("interrupted (the same command goes on)")
    lines = [f"unscored: {complaint}" for complaint in complaints]
    lines.append(f"{', '.join(parts)} in {duration(summary.seconds)}. Log: {log}")
    if not summary.is_interrupted:
        lines.append(f"See: whitebench board {again}")
    if HIDDEN in again:
        lines.append(
            f"{HIDDEN} stands for what lets you in, which is not printed; MLFLOW_TRACKING_URI can hold the whole URI"
        )
    print_lines(console, lines)


def print_lines(console: Console, lines: Iterable[str], *, style: str | None = None) -> None:
    """Print lines as they are: nothing in them is markup, and none is cut."""
    for line in lines:
        console.print(line, style=style, **_PLAIN)


_PLAIN: dict[str, Any] = {"highlight": False, "soft_wrap": True, "markup": False}


def _table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    title: str | None = None,
    right: Sequence[str] = (),
    whole: Sequence[str] = (),
) -> Table:
    table = Table(title=title and Text(title, style="bold"), title_justify="left", box=None, pad_edge=False)
    for column in columns:
        justify: Any = "right" if column in right else "left"
        table.add_column(column, justify=justify, no_wrap=column in whole, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # Text, because `crate[dim=64]` would be read as markup
    return table


def _owner(row: dict[str, str]) -> str:
    return row["plugin"] if row["distribution"] == "local file" else f"{row['distribution']} {row['version']}"

"""The command that says what works here, and what mends what does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from whitebench.commands.terminal import open_console, print_json
from whitebench.options import json_option, plugin_options, store_options

if TYPE_CHECKING:
    from rich.table import Table

    from whitebench.doctor import Finding

STYLE_BY_STATE = {"ok": "green", "hint": "cyan", "warning": "yellow", "broken": "bold red"}


@click.command(short_help="What works here, and what mends what does not.", epilog="\b\nExample:\n  whitebench doctor")
@store_options
@plugin_options
@json_option
def doctor(*, store: str | None, plugins: Sequence[Path], as_json: bool) -> int:
    """Look at versions, devices, store, plugins, disk and memory; name what is missing and the command that mends it.

    Looking makes nothing. Exits with 0 when everything needed works, 1 when something is broken.
    """
    from whitebench.doctor import examine

    if as_json:
        findings = list(examine(store, plugins))
        print_json({"findings": [dataclasses.asdict(one) for one in findings]})
        return _exit_code(findings)
    try:
        console = open_console()
    except ImportError:  # rich is one of the libraries that may be missing
        findings = list(examine(store, plugins))
        click.echo("\n".join([*(f"{one.what}: {one.state}: {one.detail}" for one in findings), *_ending(findings)]))
        return _exit_code(findings)
    with console.status("Looking; the longest part is loading torch …"):
        findings = list(examine(store, plugins))
    console.print(_table(findings))
    for line in _ending(findings):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return _exit_code(findings)


def _exit_code(findings: Sequence[Finding]) -> int:
    return int(any(one.state == "broken" for one in findings))


def _table(findings: Sequence[Finding]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("what", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("found", overflow="fold")
    for one in findings:
        table.add_row(one.what, Text(one.state, style=STYLE_BY_STATE[one.state]), Text(one.detail))
    return table


def _ending(findings: Sequence[Finding]) -> list[str]:
    """Return the commands that mend, each whole on one line to be copied, and what it all comes to."""
    mends = [
        line
        for one in findings
        if one.state != "ok" and one.mend
        for line in (f"{one.what} ({one.state}):", f"  {one.mend}")
    ]
    faults = [f"{number} {state}" for state in ("broken", "warning", "hint")
              if (number := sum(one.state == state for one in findings))]  # fmt: skip
    whole = "Everything that is needed works" if not _exit_code(findings) else "Something that is needed does not work"
    return ["", *(["What to type:", *mends, ""] if mends else []), f"{whole}{': ' * bool(faults)}{', '.join(faults)}."]

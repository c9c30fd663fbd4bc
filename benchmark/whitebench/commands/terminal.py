"""The terminal that commands print to."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console


def open_console() -> Console:
    """Return the terminal, as wide as it is."""
    from rich.console import Console

    return Console()


def say_that_it_starts(console: Console) -> None:
    """Tell a person who waits why nothing is seen yet."""
    if console.is_terminal:
        console.print("Starting: loading torch, Lightning and MLflow …", style="dim", highlight=False)


def print_json(value: object) -> None:
    """Print a plain value for programs."""
    click.echo(json.dumps(value, indent=2))

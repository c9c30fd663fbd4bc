"""The options that every command about a suite takes, said once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

_PLUGIN = click.option(
    "--plugin",
    "plugins",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="WHITEBENCH_PLUGINS",
    help="A local file with hooks, as if it were an installed plugin; may be given more than once.",
)
_STORE = click.option(
    "--store",
    metavar="URI",
    envvar="MLFLOW_TRACKING_URI",
    help="Where results live: any MLflow tracking URI.  [default: sqlite:///whitebench.db]",
)
_SET = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key of the suite, e.g. budget.epochs=3; makes it another suite and says so.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


_MODEL = click.option(
    "-m", "--model", "models", multiple=True, help="Only this contestant; or a model that joins as a guest."
)
_TASK = click.option("-t", "--task", "tasks", multiple=True, help="Only this task of the suite.")
_SEEDS = click.option("--seeds", help="Only these seeds of the suite: 2 (the first two), 0,2 or 1-2.")


_PARALLEL = click.option(
    "--parallel",
    type=click.IntRange(min=1),
    help="Fits at a time.  [default: as many as cores allow at the suite's threads per fit]",
)
_MAX_FAILURES = click.option(
    "--max-failures", type=click.IntRange(min=1), metavar="N", help="Stop once N cells have failed."
)


_IN_PROCESS = click.option(
    "--in-process",
    is_flag=True,
    help="Train the one cell that is selected in this very process, so that breakpoint() works in it.",
)


def plugin_options(command: Command) -> Command:
    """Add `--plugin`."""
    return _PLUGIN(command)


def json_option(command: Command) -> Command:
    """Add `--json`."""
    return _JSON(command)


def suite_options(command: Command) -> Command:
    """Add the argument SUITE and the options `--set`, `--store`, `--plugin`."""
    for decorate in (_PLUGIN, _STORE, _SET, click.argument("suite")):
        command = decorate(command)
    return command


def selection_options(command: Command) -> Command:
    """Add `-m`, `-t` and `--seeds`."""
    for decorate in (_SEEDS, _TASK, _MODEL):
        command = decorate(command)
    return command


def work_options(command: Command) -> Command:
    """Add the options of the commands that train: `--parallel`, `--max-failures`, `--in-process`."""
    for decorate in (_IN_PROCESS, _MAX_FAILURES, _PARALLEL):
        command = decorate(command)
    return command


def cell_options(command: Command) -> Command:
    """Add the argument CELL and the options `--set`, `--store`, `--plugin`."""
    for decorate in (_PLUGIN, _STORE, _SET, click.argument("cell")):
        command = decorate(command)
    return command

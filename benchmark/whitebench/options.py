"""The options that every command about a suite takes, said once."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from whitebench.address import resolve_uri, sqlite_file
from whitebench.errors import PluginError, near_misses
from whitebench.wording import plain

MOST_PARALLEL = 1_024
MOST_DEVICES = 1_024
MOST_BYTES = 5_000_000
"""Of a plugin file."""

Command = TypeVar("Command", bound=Callable[..., Any])


class _Files(click.Path):
    """Paths, with `:` between them in an environment variable, where an empty one is none."""

    def split_envvar_value(self, rv: str) -> list[str]:
        return [path for path in rv.split(os.pathsep) if path.strip()]


def _said_by(ctx: click.Context, param: click.Parameter) -> str:
    """Return how a person gave an option: by its name, or by an environment variable's."""
    is_typed = ctx.get_parameter_source(param.name or "") is not ParameterSource.ENVIRONMENT
    return param.opts[0] if is_typed else str(param.envvar)


def _check_plugins(ctx: click.Context, param: click.Parameter, paths: tuple[Path, ...]) -> tuple[Path, ...]:
    for path in paths:
        if why := _no_plugin(path):
            raise PluginError(f"{_said_by(ctx, param)} {plain(str(path), 200)}: {why}")
    return paths


def _no_plugin(path: Path) -> str:
    """Return why a path can be no plugin file, or nothing; what it says is for the catalog to judge."""
    try:
        if path.is_dir():
            return "is a folder: give the path of a .py file"
        if not path.exists():
            return _missing(path)
        if path.suffix != ".py" or not path.is_file():
            return "is no Python file: its name must end in .py"
        if path.stat().st_size > MOST_BYTES:
            return f"is longer than {MOST_BYTES // 1_000_000} MB: is this the right file?"
        has_nul = b"\0" in path.read_bytes()
    except (OSError, RuntimeError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        return f"cannot be read ({why}): give the path of a .py file that you may read"
    return "is no Python file: it holds bytes that no text has" if has_nul else ""


def _missing(path: Path) -> str:
    if path.is_symlink():
        return "is a link that leads to no file: give the path of a .py file"
    near = near_misses(path.name, [one.name for one in islice(path.parent.glob("*.py"), 1_000)])
    return f"no such file{near or ': give the path of a .py file'}"


def _check_store(ctx: click.Context, param: click.Parameter, uri: str | None) -> str | None:
    if uri is not None and sqlite_file(resolve_uri(uri, _said_by(ctx, param))) is None:
        from whitebench.database import check_server

        check_server(uri)  # before anything slow happens
    return uri


_PLUGIN = click.option(
    "--plugin",
    "plugins",
    multiple=True,
    type=_Files(path_type=Path, readable=False),
    envvar="WHITEBENCH_PLUGINS",
    callback=_check_plugins,
    help="A local file with hooks, as if it were an installed plugin; may be given more than once.",
)
_STORE = click.option(
    "--store",
    metavar="URI",
    envvar="MLFLOW_TRACKING_URI",
    callback=_check_store,
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
    type=click.IntRange(min=1, max=MOST_PARALLEL),
    help="Fits at a time.  [default: as many as cores allow at the suite's threads per fit and device]",
)
_DEVICES = click.option(
    "--devices",
    type=click.IntRange(min=1, max=MOST_DEVICES),
    metavar="N",
    help="Devices of one machine that share each fit: the same numbers, up to rounding.  [default: 1]",
)
_NUM_NODES = click.option(
    "--num-nodes",
    type=click.IntRange(min=1, max=MOST_DEVICES),
    metavar="M",
    help="Machines that share each fit: torchrun or srun starts the same command on each.  [default: as started]",
)
_ACCELERATOR = click.option(
    "--accelerator",
    type=click.Choice(["auto", "cpu", "gpu"]),
    default="auto",
    help="What fits compute on; auto takes a GPU where there is one.  [default: auto]",
)
_MAX_FAILURES = click.option(
    "--max-failures", type=click.IntRange(min=1), metavar="N", help="Stop once N cells have failed."
)


_LAUNCHER = click.option(
    "--launcher",
    metavar="NAME",
    default="local",
    envvar="WHITEBENCH_LAUNCHER",
    help="What starts the fits, with its options, e.g. ray[gpus=0.5]; see: whitebench list launchers.  "
    "[default: local]",
)
_RAY_ADDRESS = click.option(
    "--ray-address",
    metavar="ADDRESS",
    help="The cluster of --launcher ray, e.g. 10.0.0.1:6379: short for ray[address=10.0.0.1:6379].",
)
_IN_PROCESS = click.option(
    "--in-process",
    is_flag=True,
    help="Train the one cell that is selected in this very process, so that breakpoint() works in it.",
)


def target_options(command: Command) -> Command:
    """Add the argument CELL|SUITE and the options `--set`, `--store`, `--plugin`."""
    for decorate in (_PLUGIN, _STORE, _SET, click.argument("target", metavar="CELL|SUITE")):
        command = decorate(command)
    return command


def parallel_option(command: Command) -> Command:
    """Add `--parallel`."""
    return _PARALLEL(command)


def plugin_options(command: Command) -> Command:
    """Add `--plugin`."""
    return _PLUGIN(command)


def store_options(command: Command) -> Command:
    """Add `--store`."""
    return _STORE(command)


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
    """Add the options of the commands that train.

    `--parallel`, `--devices`, `--num-nodes`, `--accelerator`, `--launcher`, `--ray-address`, `--max-failures`,
    `--in-process`.
    """
    for decorate in (
        _IN_PROCESS,
        _MAX_FAILURES,
        _RAY_ADDRESS,
        _LAUNCHER,
        _ACCELERATOR,
        _NUM_NODES,
        _DEVICES,
        _PARALLEL,
    ):
        command = decorate(command)
    return command


def cell_options(command: Command) -> Command:
    """Add the argument CELL and the options `--set`, `--store`, `--plugin`."""
    for decorate in (_PLUGIN, _STORE, _SET, click.argument("cell")):
        command = decorate(command)
    return command

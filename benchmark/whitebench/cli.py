"""The command line as a whole: its commands, those that other packages bring, and what mistakes look like."""

from __future__ import annotations

import errno
import gc
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import click

from whitebench import __version__
from whitebench.address import without_password
from whitebench.commands import calibrating, doctor, planning, reading, running, verifying, weights
from whitebench.commands.running import INTERRUPTED
from whitebench.errors import WhitebenchError, near_misses
from whitebench.faultlog import keep_traceback
from whitebench.quotation import told
from whitebench.wording import plain, shown

MISUSED, BROKEN = 2, 70
"""Exit codes: a mistake of the user's; a bug of ours."""

COLLECTED = 100_000, 20, 50
"""Python's thresholds for collecting garbage: at its own, a sixth of a command's time goes into looking through the
objects of libraries that are being imported, of which none is garbage."""


class _Commands(click.Group):
    """Our commands, then those of the entry-point group `whitebench.commands`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *(point.name for point in _further())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        found = next((point for point in _further() if point.name == cmd_name), None)
        return _load(found) if found else None

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None:
            known = self.list_commands(ctx)
            near = near_misses(args[0], known) or f" (commands: {', '.join(known)})"
            ctx.fail(f"no such command {shown(args[0])}{near}")
        return super().resolve_command(ctx, args)


def _further() -> list[EntryPoint]:
    return sorted(entry_points(group="whitebench.commands"), key=lambda point: point.name)


def _load(point: EntryPoint) -> click.Command:
    """Return the command, or one that says why it could not be loaded: the others go on working."""
    try:
        command: click.Command = point.load()
    except Exception as error:
        why = f"could not be loaded from {point.value}: {told(error)}"

        def refuse() -> None:
            raise WhitebenchError(f"command {point.name!r} {why}")

        return click.Command(point.name, callback=refuse, short_help=why)
    return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="whitebench")
def cli() -> None:
    """Train, tune, measure and rank transformers whose layers claim to do something.

    \b
    Start here:
      whitebench run smoke        two models on real data in half a minute
      whitebench board smoke      who is ahead, and how sure we are
      whitebench list             every model, task, metric, objective and suite
    """  # noqa: D301  # click wants the character that \b stands for


for _command in (
    reading.list_items,
    planning.plan,
    running.run,
    running.retry,
    reading.status,
    reading.show,
    reading.why_stale,
    doctor.doctor,
    weights.weights,
    verifying.verify,
    calibrating.calibrate,
):
    cli.add_command(_command)


def main() -> None:
    """Run the command line: a mistake becomes one sentence and exit code 2, a bug one sentence and 70."""
    if sys.platform == "win32":
        click.echo("whitebench runs on Linux and macOS; on Windows install and run it inside WSL.", err=True)
        sys.exit(MISUSED)
    gc.set_threshold(*COLLECTED)
    try:
        _see_where_we_are()
        status = cli.main(standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        status = INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        status = MISUSED
    except click.ClickException as error:
        status = _refuse(_usage(error), error)
    except WhitebenchError as error:
        status = _refuse(str(error), error)
    except Exception as error:
        status = _report(error)
    sys.exit(status if isinstance(status, int) else 0)


def _see_where_we_are() -> None:
    """Refuse a working folder that was deleted: libraries would say what they like of it."""
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise WhitebenchError("the folder you are in was deleted: change to another one") from error


def _report(error: Exception) -> int:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _refuse(f"something could not be written ({told(error)}): free some space, or write elsewhere", error)
    click.echo(
        f"whitebench: this is a bug in whitebench or a plugin: {without_password(told(error))}\n"
        f"Nothing that was stored is lost. Please report it with {_kept(error)}",
        err=True,
    )
    return BROKEN


def _refuse(message: str, error: Exception) -> int:
    click.echo(f"whitebench: {without_password(message)}\nThe traceback is in {_kept(error)}", err=True)
    return MISUSED


def _usage(error: click.ClickException) -> str:
    """Return what click says of wrong words on the command line, and where to read what is right."""
    context = getattr(error, "ctx", None)
    asked = context.command_path if context else "whitebench"
    return plain(f"{error.format_message().rstrip('.')} (see: {asked} --help)")


def _kept(error: Exception) -> str:
    log = keep_traceback(error, ["whitebench", *sys.argv[1:]])
    return "no file: there is no room for one" if log is None else str(log)

"""The commands `whitebench board`, `whitebench serve` and `whitebench bundle`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
from click.core import ParameterSource

from whitebench.options import json_option, plugin_options, store_options, suite_options

if TYPE_CHECKING:
    from whitebench.ledger import Ledger
    from whitebench_leaderboards.board import Board
    from whitebench_leaderboards.render import Format
    from whitebench_leaderboards.server.serving import Auth

_EPILOG = """\b
Examples:
  whitebench board smoke
  whitebench board smoke --format latex > smoke.tex
  whitebench board smoke --format html > smoke.html
  whitebench board smoke --figures charts
  whitebench board smoke --json | jq '.entries[] | [.contestant, .rank]'
"""


@click.command(epilog=_EPILOG, short_help="The ranked rows of a suite.")
@suite_options
@click.option(
    "--format",
    "wanted",
    type=click.Choice(["table", "markdown", "csv", "json", "latex", "html"]),
    help="How to print it; html is a page of its own that opens from a disk.  [default: table]",
)
@click.option(
    "--figures",
    type=click.Path(file_okay=False, path_type=Path),
    help="Draw the board's charts into this folder, as PNG and SVG.",
)
@click.option("--link", metavar="URL", default="", help="The board's address, for the caption of a LaTeX table.")
@json_option
def board(
    suite: str,
    overrides: tuple[str, ...],
    store: str | None,
    plugins: tuple[Path, ...],
    *,
    wanted: Format | Literal["html"] | None,
    figures: Path | None,
    link: str,
    as_json: bool,
) -> None:
    """Show the ranked rows of SUITE, as far as it has been run.

    A rank is a range where the data do not tell entries apart. A cell without a result stands below
    its table with the reason.
    """
    if as_json and wanted not in {None, "json"}:
        raise click.UsageError(f"--json and --format {wanted} contradict each other: give one")
    from whitebench_leaderboards.index import read_ledger
    from whitebench_leaderboards.render import render

    ledger = read_ledger(suite, store=store, plugins=plugins, overrides=overrides)
    made = board_of(ledger)
    chosen = "json" if as_json else wanted or "table"
    if chosen == "html":
        from whitebench_leaderboards.server.handout import to_html

        text = to_html(ledger, command=_again(suite, overrides, plugins))
    else:
        text = render(made, chosen, link=link)
    click.echo(text, nl=False)
    if figures is not None:
        _draw(made, ledger, figures)
    if made.is_empty:
        source = click.get_current_context().get_parameter_source("store")
        stated = store if source is ParameterSource.COMMANDLINE else None  # an environment's URI may hold a password
        click.echo(_how_to_begin(ledger, suite, stated, plugins), err=chosen != "table")


def _draw(made: Board, ledger: Ledger, folder: Path) -> None:
    """Draw the board's charts, and say where they are and what they cannot say by themselves."""
    from whitebench.ledger import read_studies
    from whitebench_leaderboards.charts import draw_board
    from whitebench_leaderboards.tuning import curves_of, does_ranking_depend_on_budget

    curves = curves_of(made, read_studies(ledger))
    files = draw_board(made, curves, folder)
    for sentence in does_ranking_depend_on_budget(curves, is_lower_better=made.heading.direction == "lower"):
        click.echo(sentence, err=True)
    count = len({file.stem for file in files})
    click.echo(f"{count} figures in {folder}" if count else "There is nothing to draw yet.", err=True)


@click.command(
    short_help="The boards in a browser.",
    epilog="\b\nExamples:\n  whitebench serve\n  whitebench serve my_suite.toml --plugin my_model.py --port 8080",
)
@click.argument("suites", nargs=-1, metavar="[FILE.toml]...")
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0 for any that is free.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Where to listen; others may ask with a token or a password only.",
)
@click.option(
    "--auth",
    type=click.Choice(["token", "mlflow"]),
    default="token",
    show_default=True,
    help="Whom to let in: who knows the token, or the users of MLflow's basic auth.",
)
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file that holds the token which opens the server to others; or set WHITEBENCH_TOKEN.",
)
@store_options
@plugin_options
def serve(
    suites: tuple[str, ...],
    *,
    port: int,
    host: str,
    auth: Auth,
    token_file: Path | None,
    store: str | None,
    plugins: tuple[Path, ...],
) -> None:
    """Show the boards of a store in a browser, as far as they have been run; new results appear by themselves.

    Suites that come with whitebench are known; those in files of your own are to be given. The server only reads.
    """
    from whitebench_leaderboards.server.serving import serve as begin

    begin(suites, port=port, host=host, auth=auth, token_file=token_file, store=store, plugins=plugins)


@click.command(
    short_help="The boards as files for a web host.",
    epilog="\b\nExamples:\n  whitebench bundle site\n  whitebench bundle site smoke my_suite.toml --plugin my_model.py",
)
@click.argument("folder", metavar="DIR")  # looked at by who writes into it
@click.argument("suites", nargs=-1, metavar="[SUITE]...")
@click.option("--force", "is_forced", is_flag=True, help="Write into DIR though it holds other files; they stay.")
@store_options
@plugin_options
def bundle(
    folder: str,
    suites: tuple[str, ...],
    *,
    is_forced: bool,
    store: str | None,
    plugins: tuple[Path, ...],
) -> None:
    """Write the pages of `whitebench serve` into DIR as files, for any web host; they open from a disk too.

    Without SUITE all suites that the store has cells of and that come with whitebench; those in files of
    your own are to be given. An earlier bundle in DIR is replaced.
    """
    from rich.console import Console
    from rich.progress import Progress

    from whitebench_leaderboards.server.bundle import bundle as begin

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("Writing")
        done = begin(
            Path(folder), suites, store=store, plugins=plugins, is_forced=is_forced,
            told=lambda written, known: progress.update(bar, completed=written, total=known),
        )  # fmt: skip
    size = f"{done.num_pages:,} pages, {done.num_files:,} files, {done.num_bytes / 1e6:,.1f} MB"
    click.echo(f"{size}: {Path(folder) / 'index.html'}")
    for one in done.left_out:
        click.echo(f"Left out: {one}, whose plan is not known here: give its file, too", err=True)


def _again(suite: str, overrides: tuple[str, ...], plugins: tuple[Path, ...]) -> str:
    """Return the command that makes a board's page, without a place of this machine."""
    import shlex

    options = [*(("--set", one) for one in overrides), *(("--plugin", one.name) for one in plugins)]
    words = ["whitebench", "board", Path(suite).name, "--format", "html"]
    return shlex.join([*words, *(word for option in options for word in option)])


def board_of(ledger: Ledger, last: Board | None = None) -> Board:
    """Return the board of what the store holds of a suite, in less time where its `last` board is at hand."""
    from whitebench_leaderboards.board import Heading, make_board
    from whitebench_leaderboards.garbage import collecting_nothing

    suite, budget = ledger.suite, ledger.suite.budget
    heading = Heading(
        suite=suite.name,
        version=suite.version,
        summary=suite.summary,
        primary=suite.primary,
        direction=ledger.direction,
        unit=ledger.unit,
        tasks=suite.tasks,
        seeds=suite.seeds,
        epochs=budget.epochs,
        trials=budget.trials,
        batch_size=budget.batch_size,
        precision=budget.precision,
        threads=budget.threads,
        is_solved=not suite.recipes,
        sizes=_sizes(ledger),
        published=ledger.published,
        noise_floor=ledger.noise_floor,
        overrides=ledger.overrides,
        source=ledger.source,
    )
    with collecting_nothing():
        return make_board(ledger.records, heading, last=last)


def _sizes(ledger: Ledger) -> str:
    """Return what a suite's `match` asks for and which widths that are, in words; nothing where it asks for nothing."""
    match = ledger.suite.match
    if match is None:
        return ""
    several = len(ledger.suite.tasks) > 1
    widths = [
        f"{label}{f' on {task}' if several else ''} {model.rpartition(',')[2].strip('[]')}"
        for (label, task), model in ledger.matched.items()
    ]
    return f"{match.parameters:,.0f} parameters each, ± {match.tolerance:.1%}" + (
        f": {', '.join(widths)}" if widths else ""
    )


def _how_to_begin(ledger: Ledger, suite: str, store: str | None, plugins: tuple[Path, ...]) -> str:
    """Say that nothing is finished yet, and the command that changes it."""
    import shlex

    from whitebench.address import printed

    words = ["whitebench", "run", suite]
    for option, values in (("--set", ledger.overrides), ("--plugin", map(str, plugins))):
        words += [word for value in values for word in (option, value)]
    words += ["--store", printed(store)] if store else []
    return f"\nNothing is finished yet: 0 of {len(ledger.records)} cells. Run: {shlex.join(words)}"

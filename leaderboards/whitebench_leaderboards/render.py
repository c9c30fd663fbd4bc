"""Every way of printing a board, by its name."""

from __future__ import annotations

from typing import Literal, TypeAlias

from whitebench_leaderboards.board import Board

Format: TypeAlias = Literal["table", "markdown", "csv", "json", "latex"]


def render(board: Board, wanted: Format, *, width: int | None = None, link: str = "") -> str:
    """Return `board` in writing; `width` is a table's, in columns, and the terminal's own where not given.

    `link` is the board's address, for LaTeX's caption.

    A table comes out with the terminal's styles where standard output is one, and plain otherwise or
    under `NO_COLOR`.
    """
    if wanted == "table":
        return _table(board, width)
    if wanted == "markdown":
        from whitebench_leaderboards.markdown import to_markdown

        return to_markdown(board)
    if wanted == "latex":
        from whitebench_leaderboards.latex import to_latex

        return to_latex(board, link)
    from whitebench_leaderboards.export import to_csv, to_json

    return to_csv(board) if wanted == "csv" else to_json(board) + "\n"


def _table(board: Board, width: int | None) -> str:
    from rich.console import Console

    from whitebench_leaderboards.table import print_table

    console = Console(width=width, highlight=False)
    with console.capture() as capture:
        print_table(board, console)
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())

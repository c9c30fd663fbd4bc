"""The board as GitHub's Markdown."""

from __future__ import annotations

import re

from whitebench_leaderboards.board import Board
from whitebench_leaderboards.column import Column
from whitebench_leaderboards.notation import ARROWS, plain
from whitebench_leaderboards.overview import Overview, overview
from whitebench_leaderboards.sheet import PUBLISHED, Field, Row, Sheet, budget, legend, sheets_of, title


def to_markdown(board: Board) -> str:
    """Return the board as Markdown, a pipe table per task; the best mean is bold, what is tied with it in italics."""
    lines = [f"## {escape(title(board.heading))}", ""]
    if board.heading.summary:
        lines += [escape(plain(board.heading.summary)), ""]
    lines += [f"{escape(budget(board.heading))}.", ""]
    for sheet in sheets_of(board):
        lines += _sheet(sheet.select({one.key for one in sheet.columns if one.key != "values" and not one.is_null}))
    whole = overview(board)
    lines += _overview(whole) if whole else []
    return "\n".join([*lines, legend(board, ("bold", "in italics", "In brackets")), ""])


def escape(text: str) -> str:
    """Return `text` with everything that Markdown or HTML would read as markup made literal."""
    return re.sub(r"([\\`*|\[\]])", r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def _sheet(sheet: Sheet) -> list[str]:
    rules = [":--" if column.is_text else "--:" for column in sheet.columns]
    lines = [
        f"### {escape(sheet.task)}",
        "",
        _line([_head(column) for column in sheet.columns]),
        _line(rules),
        *(_line(_row(row, sheet.columns)) for row in sheet.rows),
        "",
        *(f"<sup>{number}</sup> {escape(note)}<br>" for number, note in enumerate(sheet.notes, start=1)),
    ]
    if sheet.notes:
        lines.append("")
    if sheet.ranking:
        lines += [escape(sheet.ranking), ""]
    if sheet.absent:
        lines += ["Cells without a current result:", "", *(f"- {escape(line)}" for line in sheet.absent), ""]
    if sheet.published:
        lines += [PUBLISHED, "", *(f"- {escape(line)}" for line in sheet.published), ""]
    return lines


def _overview(whole: Overview) -> list[str]:
    return [
        f"### {escape(whole.title)}",
        "",
        _line([escape(head) for head in whole.head]),
        _line([":--", *["--:"] * (len(whole.head) - 1)]),
        *(_line([escape(text) for text in row]) for row in whole.rows),
        "",
        escape(" ".join(whole.sentences)),
        "",
    ]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _head(column: Column) -> str:
    unit = f" ({column.unit})" if column.unit else ""
    return escape(f"{column.name} {ARROWS[column.direction]}".rstrip() + unit)


def _row(row: Row, columns: tuple[Column, ...]) -> list[str]:
    return [
        _field(one, _mark(row) if column.is_primary else "") for one, column in zip(row.fields, columns, strict=True)
    ]


def _mark(row: Row) -> str:
    return "**" if row.is_leader else "*" if row.is_tied else ""


def _field(one: Field, mark: str) -> str:
    text = escape(f"({one.cell})" if one.cell.is_noise else str(one.cell))
    marks = "".join(f" <sup>{number}</sup>" for number in one.notes)
    return f"{mark}{text}{mark}{marks}"

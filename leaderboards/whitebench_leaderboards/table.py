"""The board in a terminal: the columns that fit, and a word on those that do not."""

from __future__ import annotations

import shlex

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from whitebench_leaderboards.board import Board
from whitebench_leaderboards.column import ESSENTIAL, NOTHING, Column, head_of
from whitebench_leaderboards.heading import Heading
from whitebench_leaderboards.notation import plain
from whitebench_leaderboards.overview import Overview, overview
from whitebench_leaderboards.sheet import PUBLISHED, Field, Row, Sheet, budget, legend, sheets_of, title

# No colour is named: bold and faint read on dark and light terminals, and without colour.
_FAINT = "dim"
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_GAP = 2


def print_table(board: Board, console: Console) -> None:
    """Print the board on `console`, no wider than it is."""
    console.print(_table(board, console.width), highlight=False)


def _table(board: Board, width: int) -> Group:
    heading = board.heading
    parts: list[RenderableType] = [Text(title(heading), style="bold")]
    if heading.summary:
        parts.append(Text(plain(heading.summary)))
    parts.append(Text(budget(heading), style=_FAINT))
    left_out: dict[str, None] = {}
    for sheet in sheets_of(board):
        keys = fitting(sheet, width)
        hidden = [one for one in sheet.columns if one.key not in keys and not _is_blank(sheet, one)]
        left_out.update((column.name.partition("/")[0], None) for column in hidden if not column.is_null)
        left_out.update({"the nulls of scores": None} if any(column.is_null for column in hidden) else {})
        parts += _sheet(sheet.select(keys), width)
    whole = overview(board)
    parts += _overview(whole) if whole else []
    parts += [Text(), Text(legend(board), style=_FAINT)]
    if left_out:
        how = f"{'' if width >= 200 else 'A wider terminal, COLUMNS=200 or '}--format csv shows them."
        parts.append(Text(f"Left out at {width} columns: {', '.join(left_out)}. {how}", style=_FAINT))
    cell = next((cell.name for entry in board.entries for cell in entry.cells if cell.value is not None), None)
    if cell:
        parts.append(Text(f"Where a number comes from: {_show(cell, heading)}", style=_FAINT))
    return Group(*parts)


def _show(cell: str, heading: Heading) -> str:
    """Return the command that shows a cell, with the suite as it was asked for."""
    place = cell.removeprefix(heading.suite)
    options = [word for override in heading.overrides for word in ("--set", override)]
    return shlex.join(["whitebench", "show", plain(f"{heading.source or heading.suite}{place}"), *options])


def fitting(sheet: Sheet, width: int) -> set[str]:
    """Return the keys of the columns that fit into `width`, those of the lowest priority first; blank ones do not."""
    left = width + _GAP
    keys: set[str] = set()
    for column in sorted(sheet.columns, key=lambda one: one.priority):
        needed = min(_width(sheet, column), _most(column, width)) + _GAP
        if column.priority == ESSENTIAL or (needed <= left and not _is_blank(sheet, column)):
            keys.add(column.key)
            left -= needed
    return keys


def _most(column: Column, width: int) -> int:
    """Return how wide a column may be; names are folded, numbers are not."""
    return max(18, width // 3) if column.key == "contestant" else width


def _is_blank(sheet: Sheet, column: Column) -> bool:
    fields = [row.fields[sheet.columns.index(column)] for row in sheet.rows]
    return all(str(one.cell) == NOTHING and not one.notes for one in fields)


def _sheet(sheet: Sheet, width: int) -> list[RenderableType]:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0))
    for column in sheet.columns:
        head = Text("\n".join(head_of(column, _body_width(sheet, column))), style="bold")
        table.add_column(
            head,
            justify="left" if column.is_text else "right",
            no_wrap=column.key != "contestant",
            overflow="fold",
            max_width=_most(column, width),
        )
    notes_width = [0 if column.is_text else _notes_width(sheet, i) for i, column in enumerate(sheet.columns)]
    for row in sheet.rows:
        fields = zip(row.fields, notes_width, sheet.columns, strict=True)
        table.add_row(
            *(_write(one, marks, style=_mark(row) if column.is_primary else "") for one, marks, column in fields),
            style="" if row.is_ranked else _FAINT,
        )
    below: list[RenderableType] = [
        *(_hanging(_superscript(number), note) for number, note in enumerate(sheet.notes, start=1)),
        *([Text(sheet.ranking)] if sheet.ranking else []),
        *([Text("Cells without a current result:")] if sheet.absent else []),
        *(_hanging("-", line) for line in sheet.absent),
        *([Text(PUBLISHED)] if sheet.published else []),
        *(_hanging("-", line) for line in sheet.published),
    ]
    return [Text(), Text(sheet.task, style="bold"), table, *below]


def _overview(whole: Overview) -> list[RenderableType]:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0))
    for place, head in enumerate(whole.head):
        table.add_column(Text(head, style="bold"), justify="right" if place else "left", overflow="fold")
    for row in whole.rows:
        table.add_row(*map(Text, row))
    return [Text(), Text(whole.title, style="bold"), table, Text(" ".join(whole.sentences))]


def _hanging(mark: str, text: str) -> RenderableType:
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(Text(mark), Text(text))
    return Padding(grid, (0, 0, 0, 1))


def _mark(row: Row) -> str:
    return "bold" if row.is_leader else "underline" if row.is_tied else ""


def _write(one: Field, notes_width: int, *, style: str) -> Text:
    style = f"{style} {_FAINT}".strip() if one.cell.is_noise else style
    return Text(str(one.cell), style=style) + Text(_marks(one).ljust(notes_width))


def _marks(one: Field) -> str:
    return " " + " ".join(_superscript(number) for number in one.notes) if one.notes else ""


def _superscript(number: int) -> str:
    return str(number).translate(_SUPERSCRIPTS)


def _notes_width(sheet: Sheet, index: int) -> int:
    return max((len(_marks(row.fields[index])) for row in sheet.rows), default=0)


def _body_width(sheet: Sheet, column: Column) -> int:
    index = sheet.columns.index(column)
    notes = 0 if column.is_text else _notes_width(sheet, index)
    return max(
        (cell_len(str(row.fields[index].cell)) + max(notes, len(_marks(row.fields[index]))) for row in sheet.rows),
        default=0,
    )


def _width(sheet: Sheet, column: Column) -> int:
    body = _body_width(sheet, column)
    return max(body, *(cell_len(line) for line in head_of(column, body)))

"""A suite's board and its cells as a page lays them out: rows by task, and a square for every cell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from whitebench.ledger import Ledger
from whitebench.result import CellRecord, CellState
from whitebench_leaderboards.board import Board
from whitebench_leaderboards.column import NOTHING, Cell, Column, columns_of
from whitebench_leaderboards.entry import Entry, distinct
from whitebench_leaderboards.server.strip import Strip, strips_of
from whitebench_leaderboards.sheet import Row, Sheet, sheets_of

SHOWN = 5
"""The highest priority of a column that is shown before anybody chooses."""
MOST_COLUMNS = 14
"""Columns that are shown before anybody chooses: of more the least important give way."""
INTERVAL = "interval"
"""The key of the column in which intervals and seeds are drawn."""
ALWAYS = frozenset({"rank", "contestant"})
MOST_SQUARES = 60
"""Seeds of a contestant on a task that are drawn one by one; of more only the states are counted."""
MOST_DOTS = 2_000
"""The same for all cells of a suite together."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One entry: its fields, and what is drawn of it."""

    entry: Entry
    row: Row
    strip: Strip | None


@dataclass(frozen=True, kw_only=True)
class Group:
    """One task's lines, and what stands below them."""

    sheet: Sheet
    lines: tuple[Line, ...]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A board as one table; footnotes are numbered through all of it."""

    offered: tuple[Column, ...]
    """All there are to choose from."""
    columns: tuple[Column, ...]
    """Those that are shown."""
    has_interval: bool
    """Whether intervals and seeds are drawn."""
    hidden: frozenset[str] = frozenset()
    """Keys of the columns that are there, and not to be seen before somebody chooses them."""
    usual: frozenset[str]
    """Keys of what is shown before anybody chooses."""
    widths: tuple[int, ...]
    """Per column, the characters of its longest half width."""
    groups: tuple[Group, ...]
    notes: tuple[str, ...]
    numbers: Mapping[str, int]
    """Of each footnote."""

    def number(self, sheet: Sheet, local: int) -> int:
        """Return the number in this table of what is footnote `local` of a sheet."""
        return self.numbers[sheet.notes[local - 1]]


@dataclass(frozen=True, kw_only=True)
class Square:
    """One contestant on one task: its cells, or how many there are in each state where they are too many."""

    cells: tuple[CellRecord, ...]
    counts: tuple[tuple[CellState, int], ...]


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Every cell of a suite by contestant and task."""

    contestants: tuple[str, ...]
    tasks: tuple[str, ...]
    squares: dict[tuple[str, str], Square]
    counts: tuple[tuple[CellState, int], ...]
    """How many cells there are in each state, the most frequent first."""

    @property
    def is_whole(self) -> bool:
        """Whether every cell is finished."""
        return all(state == "finished" for state, _ in self.counts)


def grid_of(board: Board, asked: Collection[str] | None = None) -> Grid:
    """Return the board as one table, with the columns whose keys are `asked` for, or the usual ones."""
    offered = columns_of(board)
    usual = _usual(board, offered)
    keys = usual if asked is None else frozenset(asked)
    columns = tuple(one for one in offered if one.key in keys or one.key in ALWAYS)
    sheets = sheets_of(board, columns)
    rows = [row for sheet in sheets for row in sheet.rows]
    groups = []
    for sheet, task in zip(sheets, distinct(entry.task for entry in board.entries), strict=True):
        entries = board.of_task(task)
        lines = zip(entries, sheet.rows, strips_of(entries), strict=True)
        groups.append(
            Group(sheet=sheet, lines=tuple(Line(entry=entry, row=row, strip=strip) for entry, row, strip in lines))
        )
    notes = distinct(note for sheet in sheets for note in sheet.notes)
    return Grid(
        offered=offered,
        columns=columns,
        has_interval=INTERVAL in keys,
        usual=usual,
        widths=tuple(max((_half_width(row, index) for row in rows), default=0) for index in range(len(columns))),
        groups=tuple(groups),
        notes=notes,
        numbers={note: number for number, note in enumerate(notes, start=1)},
    )


def whole_grid(board: Board) -> Grid:
    """Return the board as one table with all its columns, those that are not usual hidden."""
    every = frozenset({INTERVAL, *(one.key for one in columns_of(board))})
    grid = grid_of(board, every)
    return replace(grid, hidden=every - grid.usual - ALWAYS)


def _usual(board: Board, offered: Sequence[Column]) -> frozenset[str]:
    """Return the keys of the columns that say something and matter most, and that of the interval."""
    candidates = sorted((one for one in offered if one.priority <= SHOWN), key=lambda one: one.priority)
    telling = [one for one in candidates if any(_says_something(one.write(entry)) for entry in board.entries)]
    return frozenset({INTERVAL, *(one.key for one in telling[:MOST_COLUMNS])})


def _says_something(cell: Cell) -> bool:
    return str(cell) != NOTHING or bool(cell.notes)


def matrix_of(ledger: Ledger) -> Matrix:
    """Return every cell of a suite by contestant and task."""
    cells: dict[tuple[str, str], list[CellRecord]] = {}
    for record in ledger.records:
        cells.setdefault((record.cell.contestant, record.cell.task), []).append(record)
    has_dots = len(ledger.records) <= MOST_DOTS
    return Matrix(
        contestants=distinct(contestant for contestant, _ in cells),
        tasks=distinct(task for _, task in cells),
        squares={place: _square(records, has_dots=has_dots) for place, records in cells.items()},
        counts=tuple(Counter(record.state for record in ledger.records).most_common()),
    )


def reasons_of(ledger: Ledger) -> dict[tuple[CellState, str], list[CellRecord]]:
    """Return the cells that have no current result, by state and reason."""
    found: dict[tuple[CellState, str], list[CellRecord]] = {}
    for record in ledger.records:
        if record.state != "finished":
            found.setdefault((record.state, record.reason), []).append(record)
    return found


def _square(records: list[CellRecord], *, has_dots: bool) -> Square:
    counts = tuple(Counter(record.state for record in records).most_common())
    return Square(cells=tuple(records) if has_dots and len(records) <= MOST_SQUARES else (), counts=counts)


def _half_width(row: Row, index: int) -> int:
    quantity = row.fields[index].cell.quantity
    return len(quantity.half_width) if quantity and quantity.half_width else 0

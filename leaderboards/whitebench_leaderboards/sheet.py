"""The board as text, one sheet per task: what every way of printing it shares."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from whitebench.wording import count
from whitebench_leaderboards.board import Board
from whitebench_leaderboards.column import Cell, Column, columns_of
from whitebench_leaderboards.entry import Entry
from whitebench_leaderboards.heading import Heading
from whitebench_leaderboards.notation import SHARE, percent, plain, plus_minus

PUBLISHED = "Published elsewhere, under other budgets and unranked:"


@dataclass(frozen=True, kw_only=True)
class Field:
    """What stands where a row and a column meet."""

    cell: Cell
    notes: tuple[int, ...] = ()
    """Numbers of the footnotes it refers to, from 1."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One entry in writing, a field per column."""

    fields: tuple[Field, ...]
    is_ranked: bool
    is_leader: bool
    is_tied: bool
    """Whether the data do not tell it from the best."""


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """One task's part of the board."""

    task: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    """Footnotes, the first is number 1."""
    ranking: str
    """What the ranks rest on: the smallest difference the data can show."""
    absent: tuple[str, ...]
    """Cells without a fresh result, with their reasons."""
    published: tuple[str, ...]
    """What papers state for the task, with their source."""

    def select(self, keys: set[str]) -> Sheet:
        """Return the sheet with the columns `keys` only; footnotes that nothing refers to any more go."""
        kept = [index for index, column in enumerate(self.columns) if column.key in keys]
        rows = [[row.fields[index] for index in kept] for row in self.rows]
        used = list(dict.fromkeys(number for fields in rows for one in fields for number in one.notes))
        renumbered = {old: new for new, old in enumerate(used, start=1)}
        return Sheet(
            task=self.task,
            columns=tuple(self.columns[index] for index in kept),
            rows=tuple(
                Row(
                    fields=tuple(
                        Field(cell=one.cell, notes=tuple(sorted(renumbered[n] for n in one.notes))) for one in fields
                    ),
                    is_ranked=row.is_ranked,
                    is_leader=row.is_leader,
                    is_tied=row.is_tied,
                )
                for row, fields in zip(self.rows, rows, strict=True)
            ),
            notes=tuple(self.notes[number - 1] for number in used),
            ranking=self.ranking,
            absent=self.absent,
            published=self.published,
        )


@dataclass
class _Footnotes:
    """Each footnote once, numbered as they come."""

    texts: list[str] = field(default_factory=list)

    def number(self, text: str) -> int:
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text) + 1


def sheets_of(board: Board, columns: tuple[Column, ...] | None = None) -> tuple[Sheet, ...]:
    """Return the board's sheets, tasks in the suite's order; all have the same columns: these, or all there are."""
    columns = columns_of(board) if columns is None else columns
    tasks = dict.fromkeys(entry.task for entry in board.entries)
    return tuple(_sheet(board, task, columns) for task in tasks)


def title(heading: Heading) -> str:
    """Return which suite this is, and how it was overridden."""
    name = f"{plain(heading.suite)}, version {heading.version}"
    return f"{name}, overridden: {', '.join(map(plain, heading.overrides))}" if heading.overrides else name


def budget(heading: Heading) -> str:
    """Return what every contestant may spend, in words."""
    if heading.is_solved:
        blocks, threads = count(len(heading.seeds), "block"), count(heading.threads, "thread")
        return f"draws in {blocks}; the tasks solve themselves, nothing is trained; {threads} a cell"
    parts = [
        count(heading.epochs, "epoch"),
        f"{count(heading.trials, 'tuning trial')}" if heading.trials else "no tuning",
        f"batches of {heading.batch_size}",
        f"precision {heading.precision}",
        f"{count(heading.threads, 'thread')} a fit",
    ]
    sizes = f"; {plain(heading.sizes)}" if heading.sizes else ""
    return f"{count(len(heading.seeds), 'seed')}; {', '.join(parts)}{sizes}"


def legend(board: Board, marks: tuple[str, str, str] = ("bold", "underlined", "Greyed")) -> str:
    """Return how the numbers are to be read; `marks` says how the best, those tied with it and noise are marked."""
    level = f"{100 * board.confidence:g} %"
    text = f"Mean over seeds ± half the {level} Student-t interval. ↑ higher is better, ↓ lower is better."
    if any(entry.is_tied for entry in board.entries):
        text += f" Best mean {marks[0]}, what the data do not tell from the best {marks[1]}."
    if any(len(one.names) > 1 for one in board.compared.values()):
        text += " Gap: paired difference to the best mean ± the smallest that the data can show." + noise(
            board, marks[2]
        )
    return text


def noise(board: Board, mark: str) -> str:
    """Return how large a difference has to be to say anything, and how a smaller one is marked; empty where unknown."""
    floor = board.heading.noise_floor.get(board.heading.primary)
    if floor is None:
        return ""
    is_share = board.heading.unit == SHARE
    size = f"{(percent if is_share else plus_minus)(floor, None)}{' points' if is_share else ''}"
    if floor == 0:
        return f" Noise floor {size}: one cell repeated in other settings gave the same value."
    return f" {mark} where it is within the noise floor, {size}: as much as one cell differs from itself when repeated."


def _sheet(board: Board, task: str, columns: tuple[Column, ...]) -> Sheet:
    footnotes = _Footnotes()
    entries = board.of_task(task)
    rows = []
    for entry in entries:
        cells = [column.write(entry) for column in columns]
        rows.append(
            Row(
                fields=tuple(
                    Field(cell=cell, notes=tuple(footnotes.number(plain(note)) for note in cell.notes))
                    for cell in cells
                ),
                is_ranked=entry.rank is not None,
                is_leader=entry.is_leader,
                is_tied=entry.is_tied,
            )
        )
    return Sheet(
        task=plain(task),
        columns=columns,
        rows=tuple(rows),
        notes=tuple(footnotes.texts),
        ranking=_ranking(board, task),
        absent=tuple(line for entry in entries for line in _absent(entry)),
        published=tuple(
            f"{plain(one.model)}: {plain(one.what)}: {one.value:g} ({plain(one.title)}, {plain(one.url)})"
            for one in board.heading.published
            if one.task == task
        ),
    )


def _ranking(board: Board, task: str) -> str:
    """Return what the ranks rest on, in one or two sentences."""
    ranked = [entry.contestant for entry in board.of_task(task) if entry.rank]
    if len(ranked) < 2:
        return ""
    neighbours = [board.compare(task, *pair) for pair in pairwise(ranked)]
    compared = [one for one in neighbours if one is not None and one.smallest is not None]
    reasons = dict.fromkeys(one.reason for one in neighbours if one is not None and one.reason)
    sentences = []
    if compared:
        smallest = [one.smallest for one in compared if one.smallest is not None]
        first = compared[0]
        data = count(first.seeds, "shared seed")
        if board.heading.is_solved:
            data = f"{count(first.seeds, 'shared block')} of {count(first.samples, 'draw')}"
        elif any(one.sample_part is None for one in compared):
            data += " (on these test samples only: the metric is not a mean over samples)"
        else:
            data += f" and {first.samples:,} shared test samples"
        level, others = f"{100 * board.confidence:g} %", len(ranked) - 1
        sentences.append(
            f"Between neighbours, {data} can show a difference from {_span(smallest, board.heading)} upwards "
            f"({level} per pair). A rank is a range that holds with {level}"
            + (f", an entry's {others} comparisons corrected by Holm." if others > 1 else ".")
        )
    if reasons:
        sentences.append(f"Neighbours that cannot be compared share a rank: {'; '.join(map(plain, reasons))}.")
    return " ".join(sentences)


def _span(values: list[float], heading: Heading) -> str:
    """Write the range of `values` in the primary metric's unit, each to two digits."""
    share = heading.unit == SHARE
    unit = "points" if share else heading.unit
    write = percent if share else plus_minus
    texts = [write(value, value).mean for value in (min(values), max(values))]
    span = texts[0] if texts[0] == texts[1] else f"{texts[0]} to {texts[1]}"
    return f"{span} {unit}".rstrip()


def _absent(entry: Entry) -> list[str]:
    """Return a line for each reason why seeds of `entry` have no fresh result; a stale entry has its own footnote."""
    seeds_by_reason: dict[tuple[str, str], list[int]] = {}
    for cell in entry.cells:
        if cell.state != "finished" and not (entry.is_stale and cell.state == "stale"):
            seeds_by_reason.setdefault((cell.state, plain(cell.reason)), []).append(cell.seed)
    return [
        f"{plain(entry.contestant)}, {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}: "
        + (f"{state}: {reason}" if reason else state)
        for (state, reason), seeds in seeds_by_reason.items()
    ]

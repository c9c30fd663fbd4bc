"""A board's columns: what each says of an entry, and how soon it gives way where there is no room."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from whitebench.reading import Direction
from whitebench_leaderboards.board import Board
from whitebench_leaderboards.entry import Entry, Summary
from whitebench_leaderboards.notation import ARROWS, SHARE, Quantity, has_own_unit, human, percent, plain, plus_minus
from whitebench_leaderboards.statistics import seeds_needed

NOTHING = "–"
ESSENTIAL = 0
_COST_PRIORITY = {
    "parameters": 2,
    "training-time": 4,
    "macs": 6,
    "inference-rate": 6,
    "peak-memory": 7,
    "measuring-time": 8,
    "measuring-memory": 9,
}
_COST_HEADS = {"macs": ("MACs", "per sample")}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What a column says of an entry: words or a number, and the footnotes that belong to it."""

    text: str = ""
    quantity: Quantity | None = None
    value: float | None = None
    """What a reader may sort by, no digit cut; None where there is nothing to compare."""
    notes: tuple[str, ...] = ()
    is_noise: bool = False
    """Whether it is a difference below the suite's noise floor, which is greyed."""

    def __str__(self) -> str:
        return self.text if self.quantity is None else str(self.quantity)


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a board."""

    key: str
    name: str
    unit: str = ""
    direction: Direction = "none"
    priority: int
    """0 is always shown; the higher, the sooner it is left out."""
    is_text: bool = False
    """Whether it reads from the left, as words do."""
    is_primary: bool = False
    """Whether the board is ranked by it."""
    in_paper: bool = True
    """Whether it belongs into a paper's table."""
    is_null: bool = False
    """Whether it says what the score before it comes to where its claim cannot hold."""
    write: Callable[[Entry], Cell]


def head_of(column: Column, width: int) -> list[str]:
    """Return the lines of a column's head, its name broken after `-`, `/` and spaces where it is wider than `width`."""
    words = re.findall(r"[^-/ ]+[-/ ]*", column.name) or [column.name]
    if column.direction != "none":
        words[-1] += f" {ARROWS[column.direction]}"
    limit = max(width, *(len(word.rstrip()) for word in words))
    lines = [""]
    for word in words:
        if lines[-1] and len((lines[-1] + word).rstrip()) > limit:
            lines.append("")
        lines[-1] += word
    lines = [line.rstrip() for line in lines]
    return [*lines, column.unit] if column.unit else lines


def columns_of(board: Board) -> tuple[Column, ...]:
    """Return the columns of a board, from left to right; scores and costs in the order they first appear."""
    heading = board.heading
    scores = _measured(_first_by_name(summary for entry in board.entries for summary in entry.scores))
    headlines = {summary.name.partition("/")[0]: summary.name for summary in reversed(scores)}
    costs = _first_by_name(summary for entry in board.entries for summary in entry.costs)
    primary_unit = "%" if heading.unit == SHARE else heading.unit
    columns = [
        Column(key="rank", name="rank", priority=ESSENTIAL, is_text=True, write=_rank),
        Column(key="contestant", name="contestant", priority=ESSENTIAL, is_text=True, write=_contestant),
        Column(
            key=f"score/{heading.primary}",
            name=plain(heading.primary),
            unit=primary_unit,
            direction=heading.direction,
            priority=ESSENTIAL,
            is_primary=True,
            write=lambda entry: _score(entry.primary, is_primary=True),
        ),
        Column(key="gap", name="gap", unit=_points(primary_unit), priority=3, in_paper=False, write=_gap(board)),
        Column(key="needed", name="seeds needed", priority=7, in_paper=False, write=_needed(board)),
        Column(key="seeds", name="seeds", priority=1, in_paper=False, write=_seeds),
        *(
            column
            for summary in scores
            for column in (
                _score_column(summary, is_headline=summary.name in headlines.values()),
                *(_null_column(summary, null) for null in _nulls(board, summary.name)),
            )
        ),
        *(_cost_column(summary) for summary in costs),
        Column(key="trials", name="trials", priority=2, in_paper=False, write=_trials),
        Column(key="verified", name="verified", priority=4, is_text=True, in_paper=False, write=_verified),
        Column(key="epochs", name="epoch", priority=7, in_paper=False, write=_epochs),
        Column(
            key="validation",
            name="validation",
            unit=primary_unit,
            direction=heading.direction,
            priority=8,
            in_paper=False,
            write=lambda entry: _score(entry.validation),
        ),
        Column(key="values", name="each seed", unit=primary_unit, priority=9, in_paper=False, write=_values),
    ]
    if all(entry.verified == "as reported" for entry in board.entries):
        columns = [column for column in columns if column.key != "verified"]
    if len(heading.seeds) < 2:
        columns = [column for column in columns if column.key != "values"]
    if not any(entry.rank and not entry.is_leader for entry in board.entries):
        columns = [column for column in columns if column.key not in ("gap", "needed")]
    return tuple(columns)


def _first_by_name(summaries: Iterable[Summary]) -> list[Summary]:
    """Return one summary per name, preferring one that has a value and so knows its unit best."""
    found: dict[str, Summary] = {}
    for summary in summaries:
        if summary.name not in found or (summary.values and not found[summary.name].values):
            found[summary.name] = summary
    return list(found.values())


def _measured(summaries: list[Summary]) -> list[Summary]:
    """Leave out a metric that some entries have in parts: one in which it is unscored says so under every part."""
    in_parts = {summary.name.partition("/")[0] for summary in summaries if "/" in summary.name}
    return [summary for summary in summaries if summary.name not in in_parts]


def _score_column(summary: Summary, *, is_headline: bool) -> Column:
    """Return a score's column; of a metric with several parts the first is its headline and stays the longest."""
    name = summary.name
    return Column(
        key=f"score/{name}",
        name=plain(name),
        unit="%" if summary.unit == SHARE else plain(summary.unit),
        direction=summary.direction,
        priority=5 if is_headline else 8,
        in_paper=is_headline,
        write=lambda entry: _score(_named(entry.scores, name) or _named(entry.scores, name.partition("/")[0])),
    )


def _nulls(board: Board, name: str) -> list[str]:
    """Return the nulls that stand beside a score in any entry."""
    found = (_named(entry.scores, name) for entry in board.entries)
    return list(dict.fromkeys(null for summary in found if summary for null in summary.nulls))


def _null_column(summary: Summary, null: str) -> Column:
    """Return the column of what a score comes to where its claim cannot hold."""
    name = summary.name

    def write(entry: Entry) -> Cell:
        own = _named(entry.scores, name)
        found = own.nulls.get(null) if own else None
        if found is None or found.mean is None:
            return Cell(text=NOTHING)
        form = percent if summary.unit == SHARE else plus_minus
        return Cell(quantity=form(found.mean, found.half_width))

    return Column(
        key=f"null/{name}/{null}",
        name=f"{plain(name)} {plain(null)}",
        unit="%" if summary.unit == SHARE else plain(summary.unit),
        priority=10,
        in_paper=False,
        is_null=True,
        write=write,
    )


def _cost_column(summary: Summary) -> Column:
    name, unit = _COST_HEADS.get(summary.name, (summary.name, "" if has_own_unit(summary.unit) else summary.unit))
    key = summary.name
    return Column(
        key=f"cost/{key}",
        name=plain(name),
        unit=plain(unit),
        direction=summary.direction,
        priority=_COST_PRIORITY.get(key, 8),
        in_paper=key in {"parameters", "macs", "training-time"},
        write=lambda entry: _cost(_named(entry.costs, key)),
    )


def _named(summaries: Iterable[Summary], name: str) -> Summary | None:
    return next((summary for summary in summaries if summary.name == name), None)


def _rank(entry: Entry) -> Cell:
    if entry.rank is None:
        needs_reason = entry.primary.values and not entry.is_stale  # the others say why at their name or below
        return Cell(text=NOTHING, notes=(f"unranked: {entry.unranked}",) if needs_reason else ())
    low, high = entry.rank
    return Cell(text=str(low) if low == high else f"{low}–{high}", value=low)


def _contestant(entry: Entry) -> Cell:
    return Cell(text=plain(entry.contestant), notes=entry.flags)


def _score(summary: Summary | None, *, is_primary: bool = False) -> Cell:
    if summary is None:
        return Cell(text=NOTHING)
    notes = _unscored(summary)
    mean, half_width = summary.estimate.mean, summary.estimate.half_width
    if mean is None:
        return Cell(text=NOTHING, notes=notes)
    if is_primary and half_width is None:
        notes = (*notes, f"no interval: {summary.estimate.reason}")
    write = percent if summary.unit == SHARE else plus_minus
    return Cell(quantity=write(mean, half_width), value=mean, notes=notes)


def _unscored(summary: Summary) -> tuple[str, ...]:
    seeds_by_reason: dict[str, list[int]] = {}
    for seed, reason in summary.unscored.items():
        seeds_by_reason.setdefault(reason, []).append(seed)
    total = len(summary.unscored) + len(summary.values)
    return tuple(
        f"{summary.name} unscored"
        + ("" if len(seeds) == total else f" on {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}")
        + f": {reason}"
        for reason, seeds in seeds_by_reason.items()
    )


def _cost(summary: Summary | None) -> Cell:
    if summary is None:
        return Cell(text=NOTHING)
    if summary.estimate.mean is None:
        return Cell(text=NOTHING, notes=_unscored(summary))
    mean = summary.estimate.mean
    return Cell(quantity=human(mean, summary.unit), value=mean, notes=_unscored(summary))


def _gap(board: Board) -> Callable[[Entry], Cell]:
    """Return how to write an entry's paired difference to the best mean, ± the smallest that could be shown."""
    leaders = {entry.task: entry.contestant for entry in board.entries if entry.is_leader}
    write = percent if board.heading.unit == SHARE else plus_minus

    def gap(entry: Entry) -> Cell:
        if entry.is_leader or entry.rank is None:
            return Cell(text="best", value=0.0) if entry.is_leader else Cell(text=NOTHING)
        difference = board.compare(entry.task, leaders[entry.task], entry.contestant)
        if difference is None or difference.value is None:
            return Cell(text=NOTHING)
        notes = (f"cannot be compared: {difference.reason}",) if difference.reason else ()
        quantity = write(-difference.value, difference.smallest, is_signed=True)
        is_noise = board.heading.is_noise(difference.value)
        return Cell(quantity=quantity, value=-difference.value, notes=notes, is_noise=is_noise)

    return gap


def _needed(board: Board) -> Callable[[Entry], Cell]:
    """Return how to write the seeds that would show an entry's gap, if seeds went on to vary as they did."""
    leaders = {entry.task: entry.contestant for entry in board.entries if entry.is_leader}

    def needed(entry: Entry) -> Cell:
        if entry.rank is None or entry.is_leader:
            return Cell(text=NOTHING)
        difference = board.compare(entry.task, leaders[entry.task], entry.contestant)
        if difference is None or difference.smallest is None or difference.value == 0:
            return Cell(text=NOTHING)
        number = seeds_needed(difference, confidence=board.confidence)
        why = "no number of seeds would show the gap to the best: it takes more test samples"
        return Cell(text=f"{number:,}", value=number) if number else Cell(text="∞", notes=(why,))

    return needed


def _seeds(entry: Entry) -> Cell:
    done = entry.primary.estimate.n
    return Cell(text=f"{done}/{entry.seeds_planned}", value=done)


def _trials(entry: Entry) -> Cell:
    if entry.spent is None or entry.spent.is_solved:
        return Cell(text=NOTHING)
    if entry.spent.epochs_allowed == 0:
        notes = () if entry.is_trained_elsewhere else ("not trained here: scored as it stands",)
        return Cell(text="none", notes=notes)
    if entry.spent.trials_allowed == 0:
        return Cell(text="none", notes=("not tuned: the recipe's stated values",))
    lost = [
        f"{number} {state}"
        for number, state in ((entry.spent.trials_pruned, "pruned"), (entry.spent.trials_failed, "failed"))
        if number
    ]
    notes = (f"of {entry.spent.trials} trials {' and '.join(lost)}",) if lost else ()
    trials = entry.spent.trials
    return Cell(text=f"{trials}/{entry.spent.trials_allowed}", value=trials, notes=notes)


def _verified(entry: Entry) -> Cell:
    """Return the weakest over the seeds, with when and on what each way of verifying it was last done."""
    found = [cell.verification for cell in entry.cells if cell.verification]
    latest = {one.standing: one for one in sorted(found, key=lambda one: one.when)}
    notes = tuple(f"{how} {one.when[:10]} on {one.device}" for how, one in latest.items())
    return Cell(text=entry.verified if entry.primary.values else NOTHING, notes=notes)


def _epochs(entry: Entry) -> Cell:
    if entry.spent is None or entry.spent.is_solved:
        return Cell(text=NOTHING)
    low, high = entry.spent.epochs
    epochs = f"{low}" if low == high else f"{low}–{high}"
    return Cell(text=f"{epochs}/{entry.spent.epochs_allowed}", value=high)


def _values(entry: Entry) -> Cell:
    share = entry.primary.unit == SHARE
    write = percent if share else plus_minus
    return Cell(text=" ".join(write(value, None).mean for value in entry.primary.values.values()) or NOTHING)


def _points(unit: str) -> str:
    return "points" if unit == "%" else unit

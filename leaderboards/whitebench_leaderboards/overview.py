"""The tasks of a suite as a whole, in writing: what every way of printing it shares."""

from __future__ import annotations

from dataclasses import dataclass

from whitebench_leaderboards.board import Board
from whitebench_leaderboards.notation import SHARE, percent, plain, plus_minus
from whitebench_leaderboards.overall import Overall, OverallEntry, overall


@dataclass(frozen=True, kw_only=True)
class Overview:
    """A table of words, the contestants' column first, and what is to be said below it."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    sentences: tuple[str, ...]


def overview(board: Board) -> Overview | None:
    """Return the suite as a whole; None where it has one task, or nobody stands on all."""
    found = overall(board)
    if found is None or not found.entries:
        return None
    unit = " %" if board.heading.unit == SHARE else ""
    more = (f"interquartile mean{unit} (95 %)", "beats the others %") if found.improvement else ()
    return Overview(
        title=f"All {len(found.tasks)} tasks",
        head=("contestant", "mean rank ↓", *more),
        rows=tuple(_row(found, place, board) for place in range(len(found.entries))),
        sentences=tuple(_sentences(found, board)),
    )


def _row(found: Overall, place: int, board: Board) -> tuple[str, ...]:
    one = found.entries[place]
    row = (plain(one.contestant), f"{one.mean_rank:.2f}")
    if not found.improvement:
        return row
    others = [chance for other, chance in enumerate(found.improvement[place]) if other != place]
    beats = f"{100 * sum(others) / len(others):.0f}" if others else "–"
    return (*row, _interquartile(one, board), beats)


def _interquartile(one: OverallEntry, board: Board) -> str:
    if one.interquartile_mean is None or one.interval is None:
        return "–"
    write = percent if board.heading.unit == SHARE else plus_minus
    mean, low, high = (write(value, None).mean for value in (one.interquartile_mean, *one.interval))
    return f"{mean} ({low} to {high})"


def _sentences(found: Overall, board: Board) -> list[str]:
    sentences = [f"Mean ranks are over those that are ranked on every task: {found.coverage}."]
    if found.critical_difference is not None:
        sentences.append(
            f"Mean ranks that differ by less than {found.critical_difference:.2f} are not told apart "
            f"({100 * board.confidence:g} %, Nemenyi)."
        )
    if found.improvement:
        sentences.append("Beats the others: how often a seed of it scores above a seed of another on the same task.")
    sentences += [f"{plain(name)} is not ranked on {', '.join(map(plain, tasks))}." for name, tasks in found.lacking]
    return sentences

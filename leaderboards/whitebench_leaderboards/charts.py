"""The charts of a board: quality against cost, what tuning bought, mean ranks over tasks.

A chart shows what the board knows; nothing is computed that a table could not say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.ticker import MaxNLocator

from whitebench_leaderboards.board import Board
from whitebench_leaderboards.figures import CYCLE, STYLE, canvas, legend, save
from whitebench_leaderboards.notation import ARROWS, SHARE, plain
from whitebench_leaderboards.overall import Overall, overall
from whitebench_leaderboards.tradeoff import Tradeoff, measures, tradeoff
from whitebench_leaderboards.tuning import TuningCurve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from whitebench.reading import Direction

MARKERS = "osD^vPX*<>ph"


def draw_board(board: Board, curves: Mapping[str, Sequence[TuningCurve]], folder: Path) -> list[Path]:
    """Draw every chart of a board into `folder`, which is made, as PNG and SVG; return the files.

    Args:
        board: the ranked rows.
        curves: what tuning bought, by task.
        folder: where the files go.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    with mpl.rc_context(fname=STYLE):
        for task in board.compared:
            for name in measures(board, task):
                found = tradeoff(board, task, name)
                if found is not None and len(found.points) > 1:
                    files += save(draw_tradeoff(found, board.heading.suite), folder, f"tradeoff-{task}-{name}")
        for task, of_task in curves.items():
            if of_task:
                files += save(draw_tuning(of_task, board), folder, f"tuning-{task}")
        whole = overall(board)
        if whole is not None and whole.critical_difference is not None:
            files += save(draw_ranks(whole, board.heading.suite), folder, "mean-ranks")
    return files


def draw_tradeoff(found: Tradeoff, suite: str) -> Figure:
    """Return entries between a cost and the primary metric: hollow where somebody is likely as good in both."""
    figure, axes = canvas(f"{found.y} against {found.x}", f"{plain(suite)}, {plain(found.task)}")
    figure.set_size_inches(6.4, 4.0)
    scale = 100.0 if found.y_unit == SHARE else 1.0
    for place, point in enumerate(found.points):
        x, y = point.x.mean, point.y.mean
        if x is None or y is None:
            continue
        colour, half_width = f"C{place % len(CYCLE)}", point.y.half_width
        axes.errorbar(
            x, scale * y, xerr=point.x.half_width, yerr=None if half_width is None else scale * half_width,
            fmt=MARKERS[place % len(MARKERS)], color=colour, markersize=6, elinewidth=0.8, capsize=0,
            markerfacecolor=colour if point.dominated <= 0.5 else "none",
            label=plain(point.contestant) + (f" ({_chance(point.dominated)} dominated by {plain(point.by)})"
                                             if point.dominated > 0.05 else ""),
        )  # fmt: skip
    xs = [point.x.mean for point in found.points if point.x.mean is not None]
    if min(xs) > 0 and max(xs) / min(xs) > 20:
        axes.set_xscale("log")
    axes.set_xlabel(_label(found.x, found.x_unit, found.x_direction))
    axes.set_ylabel(_label(found.y, found.y_unit, found.y_direction))
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def draw_tuning(curves: Sequence[TuningCurve], board: Board) -> Figure:
    """Return the validation score to be expected of the best of k trials, with the band of 90 of 100 draws."""
    heading = board.heading
    where = f"{plain(heading.suite)}, {plain(curves[0].task)}"
    figure, axes = canvas(f"Best of k trials: validation {heading.primary} to expect", where)
    figure.set_size_inches(6.4, 4.0)
    scale = 100.0 if heading.unit == SHARE else 1.0
    for place, curve in enumerate(curves):
        trials = np.arange(1, curve.trials + 1)
        style = CYCLE[place % len(CYCLE)]
        lost = f", {curve.lost} pruned or failed" if curve.lost else ""
        (line,) = axes.plot(
            trials, scale * np.array(curve.expected), color=f"C{place % len(CYCLE)}", linestyle=style, marker="o",
            markersize=3.5, label=f"{plain(curve.contestant)} ({curve.trials} trials{lost})",
        )  # fmt: skip
        if len(curves) <= len(CYCLE):
            low, high = scale * np.array(curve.low), scale * np.array(curve.high)
            axes.fill_between(trials, low, high, color=line.get_color(), alpha=0.12, linewidth=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("trials")
    axes.set_ylabel(_label(heading.primary, heading.unit, heading.direction))
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def draw_ranks(whole: Overall, suite: str) -> Figure:
    """Return mean ranks on a line with the critical difference: what a bar joins is not told apart (Demsar 2006)."""
    figure, axes = canvas("Mean rank over tasks, 1 is best", f"{plain(suite)}, {whole.coverage}")
    figure.set_size_inches(6.4, 0.9 + 0.32 * len(whole.entries))
    ranks = [one.mean_rank for one in whole.entries]
    rows = np.arange(len(ranks))
    axes.plot(ranks, rows, "o", color="C0", markersize=6)
    for first, last in whole.joined:
        at = (first + last) / 2
        axes.plot([ranks[first], ranks[last]], [at, at], color="0.45", linewidth=3, solid_capstyle="butt", zorder=0)
    axes.set_yticks(rows, [plain(one.contestant) for one in whole.entries])
    axes.invert_yaxis()
    axes.set_xlim(0.8, len(ranks) + 0.2)
    axes.set_xlabel(f"mean rank; bars join what differs by less than {whole.critical_difference:.2f} (Nemenyi, 95 %)")
    legend(axes)
    return figure


def _chance(share: float) -> str:
    return f"{100 * share:.0f} %"


def _label(name: str, unit: str, direction: Direction) -> str:
    unit = "%" if unit == SHARE else unit
    return f"{plain(name)}{f' ({plain(unit)})' if unit else ''} {ARROWS[direction]}".rstrip()

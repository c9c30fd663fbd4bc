"""The charts of a suite's tasks as a whole: mean ranks, interquartile means, and who beats whom how often."""

from __future__ import annotations

from whitebench_leaderboards.board import Board
from whitebench_leaderboards.notation import SHARE, plain
from whitebench_leaderboards.overall import Overall, overall
from whitebench_leaderboards.server.chart import Chart, Line, Spot, axis_of


def whole_charts(board: Board) -> list[Chart]:
    """Return the charts of a suite as a whole; none where it has one task, or fewer than two stand on all.

    Below five tasks there are mean ranks alone, without a critical difference.
    """
    found = overall(board)
    if found is None or len(found.entries) < 2:
        return []
    charts = [rank_chart(found, board.confidence)]
    if found.improvement:
        charts += [mean_chart(found, board), improvement_chart(found)]
    return charts


def rank_chart(whole: Overall, confidence: float) -> Chart:
    """Return mean ranks, with bars that join what the critical difference does not tell apart (Demsar 2006)."""
    spots = tuple(
        Spot(name=plain(one.contestant), series=0, x=one.mean_rank, y=place) for place, one in enumerate(whole.entries)
    )
    # Below the row of the first that it joins: so no bar lies on a point or on another bar.
    joints = tuple(
        Line(name="not told apart", kind="joint", series=0, x=[spots[first].x, spots[last].x],
             y=[first + 0.5, first + 0.5])
        for first, last in whole.joined
    )  # fmt: skip
    limit = whole.critical_difference
    bars = f"; bars join what differs by less than {limit:.2f} (Nemenyi, {100 * confidence:g} %)" if limit else ""
    return Chart(
        title=f"Mean rank over {len(whole.tasks)} tasks{bars}",
        x="mean rank ↓",
        y="contestant",
        spots=spots,
        lines=joints,
        rows=_names(whole),
    )


def mean_chart(whole: Overall, board: Board) -> Chart:
    """Return interquartile means over tasks and seeds, with their intervals."""
    heading = board.heading
    scale = 100.0 if heading.unit == SHARE else 1.0
    spots = tuple(
        Spot(
            name=plain(one.contestant),
            series=0,
            x=scale * one.interquartile_mean,
            y=place,
            x_interval=(scale * one.interval[0], scale * one.interval[1]) if one.interval else None,
        )
        for place, one in enumerate(whole.entries)
        if one.interquartile_mean is not None
    )
    return Chart(
        title=f"Interquartile mean over {len(whole.tasks)} tasks and their seeds, 95 % intervals",
        x=axis_of(heading.primary, heading.unit, heading.direction),
        y="contestant",
        spots=spots,
        rows=_names(whole),
    )


def improvement_chart(whole: Overall) -> Chart:
    """Return how likely a seed of the row scores above one of the column on the same task, in per cent."""
    shares = tuple(
        tuple(None if row == column else 100 * chance for column, chance in enumerate(chances))
        for row, chances in enumerate(whole.improvement)
    )
    return Chart(
        title=f"How often a seed of the row beats one of the column, in %: {whole.coverage}",
        x="beaten",
        y="beats",
        rows=_names(whole),
        matrix=shares,
    )


def _names(whole: Overall) -> tuple[str, ...]:
    return tuple(plain(one.contestant) for one in whole.entries)

"""What a chart shows, in plain values: which lines over which axis. How they are drawn is the browser's business."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from whitebench.reading import Direction
from whitebench.result import Result, Score
from whitebench_leaderboards.board import Board
from whitebench_leaderboards.notation import ARROWS, SHARE, plain
from whitebench_leaderboards.tradeoff import Tradeoff, measures, tradeoff
from whitebench_leaderboards.tuning import TuningCurve

MOST_BANDS = 4
"""Bands that can be told apart in one chart."""
WIDE = 20
"""The ratio of the largest to the smallest from which on an abscissa is logarithmic."""

Kind = Literal["main", "seed", "null", "own null", "joint"]
"""A line that the chart is about; one seed of it, drawn thin; what it is compared with, dashed in grey; the same where
there are several lines, dashed in the colour of its own; a grey bar that joins points."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a chart."""

    name: str
    kind: Kind
    series: int
    """Lines with the same number have the same colour."""
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    """The lower edge of a band around it; empty for none."""
    high: Sequence[float] = ()


@dataclass(frozen=True, kw_only=True)
class Spot:
    """One point of a chart, with half the widths of its intervals."""

    name: str
    series: int
    """Points with the same number have the same colour."""
    x: float
    y: float
    x_half_width: float | None = None
    y_half_width: float | None = None
    x_interval: tuple[float, float] | None = None
    """In place of half a width, where it is not as wide on both sides."""
    is_hollow: bool = False
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Lines over one axis, points between two, or a matrix."""

    title: str
    x: str
    y: str
    lines: tuple[Line, ...] = ()
    spots: tuple[Spot, ...] = ()
    is_log: bool = False
    """Whether the abscissa is logarithmic."""
    rows: tuple[str, ...] = ()
    """Names along the ordinate, from its top, where it has names: a point's `y` is then a place among them."""
    matrix: tuple[tuple[float | None, ...], ...] = ()
    """What stands between each row and each column, whose names are those of the rows; from 0 to 100."""


def plain_values(charts: Sequence[Chart]) -> list[dict[str, Any]]:
    """Return charts as what a page can hand over to the browser."""
    return [asdict(chart) for chart in charts]


def profile_chart(score: Score) -> Chart:
    """Return a score over the layers with a band of one standard deviation over samples, beside its nulls."""
    layers = list(range(1, len(score.profile) + 1))
    low = [value - spread for value, spread in zip(score.profile, score.spread, strict=False)]
    high = [value + spread for value, spread in zip(score.profile, score.spread, strict=False)]
    lines = [Line(name="this network", kind="main", series=0, x=layers, y=score.profile, low=low, high=high)]
    lines += [
        Line(name=plain(name), kind="null", series=index, x=layers, y=null)
        for index, (name, null) in enumerate(_nulls(score, len(layers)).items(), start=1)
    ]
    return Chart(title=plain(score.name), x="layer", y=_axis(score), lines=tuple(lines))


def profile_charts(result: Result) -> list[Chart]:
    """Return a chart for every score of a result that has one number per layer."""
    return [profile_chart(score) for score in result.scores if len(score.profile) > 1]


def curve_charts(curves: Mapping[str, Sequence[tuple[int, float]]]) -> list[Chart]:
    """Return the curves of one fit: what train and validation have in common in one chart."""
    by_name: dict[str, list[Line]] = {}
    for name, points in curves.items():
        split, _, what = name.partition("/")
        lines = by_name.setdefault(what, [])
        x, y = [float(epoch) for epoch, _ in points], [value for _, value in points]
        lines.append(Line(name=split, kind="main", series=len(lines), x=x, y=y))
    return [
        Chart(title=plain(what.replace("_", " ")), x="epoch", y=plain(what.replace("_", " ")), lines=tuple(lines))
        for what, lines in by_name.items()
    ]


def overlaid_profiles(results: Mapping[str, Sequence[Result]]) -> list[Chart]:
    """Return a chart per score over the layers, with each contestant's mean over seeds and its seeds."""
    scores: dict[str, Score] = {}
    for result in (one for seeds in results.values() for one in seeds):
        scores |= {score.name: score for score in result.scores if len(score.profile) > 1}
    charts = []
    for name, sample in scores.items():
        lines: list[Line] = []
        for series, (label, seeds) in enumerate(results.items()):
            found = [score for result in seeds if (score := result.score(name)) and len(score.profile) > 1]
            lines += _mean_and_seeds(label, series, [list(enumerate(one.profile, start=1)) for one in found])
            untrained = [one.null_profiles["untrained"] for one in found if "untrained" in one.null_profiles]
            lines += _mean_line(
                f"{label}, untrained", "own null", series, [list(enumerate(one, 1)) for one in untrained]
            )
        charts.append(Chart(title=plain(name), x="layer", y=_axis(sample), lines=tuple(lines)))
    return charts


def overlaid_curves(curves: Mapping[str, Sequence[Mapping[str, Sequence[tuple[int, float]]]]]) -> list[Chart]:
    """Return a chart per curve, with each contestant's mean over seeds and its seeds."""
    names = dict.fromkeys(name for seeds in curves.values() for one in seeds for name in one)
    charts = []
    for name in names:
        lines: list[Line] = []
        for series, (label, seeds) in enumerate(curves.items()):
            lines += _mean_and_seeds(label, series, [one[name] for one in seeds if name in one])
        title = plain(name.replace("_", " ").replace("/", ": "))
        charts.append(
            Chart(title=title, x="epoch", y=plain(name.partition("/")[2].replace("_", " ")), lines=tuple(lines))
        )
    return charts


def tradeoff_chart(board: Board, task: str, x: str) -> Chart | None:
    """Return the primary metric against a cost or score; hollow is who is more likely than not dominated.

    None where fewer than two ranked entries have it.
    """
    found = tradeoff(board, task, x) if x in measures(board, task) else None
    if found is None:
        return None
    return _tradeoff_chart(found, [entry.contestant for entry in board.of_task(task)])


def tuning_chart(curves: Sequence[TuningCurve], board: Board) -> Chart:
    """Return the validation score to be expected of the best of k trials; the band holds 90 of 100 draws."""
    scale = 100.0 if board.heading.unit == SHARE else 1.0
    lines = []
    for series, curve in enumerate(curves):
        lost = f", {curve.lost} pruned or failed" if curve.lost else ""
        has_band = len(curves) <= MOST_BANDS
        lines.append(
            Line(
                name=f"{plain(curve.contestant)} ({curve.trials} trials{lost})",
                kind="main",
                series=series,
                x=list(range(1, curve.trials + 1)),
                y=[scale * value for value in curve.expected],
                low=[scale * value for value in curve.low] if has_band else (),
                high=[scale * value for value in curve.high] if has_band else (),
            )
        )
    heading = board.heading
    axis = axis_of(heading.primary, heading.unit, heading.direction)
    return Chart(title=f"Best of k trials: validation {plain(heading.primary)}", x="trials", y=axis, lines=tuple(lines))


def _tradeoff_chart(found: Tradeoff, everyone: Sequence[str]) -> Chart:
    scale = 100.0 if found.y_unit == SHARE else 1.0
    spots = [
        Spot(
            name=plain(point.contestant),
            series=everyone.index(point.contestant),
            x=point.x.mean,
            y=scale * point.y.mean,
            x_half_width=point.x.half_width,
            y_half_width=None if point.y.half_width is None else scale * point.y.half_width,
            is_hollow=point.dominated > 0.5,
            note=f"{100 * point.dominated:.0f} % dominated by {plain(point.by)}" if point.dominated > 0.05 else "",
        )
        for point in found.points
        if point.x.mean is not None and point.y.mean is not None
    ]
    places = [spot.x for spot in spots]
    return Chart(
        title=f"{plain(found.y)} against {plain(found.x)}",
        x=axis_of(found.x, found.x_unit, found.x_direction),
        y=axis_of(found.y, found.y_unit, found.y_direction),
        spots=tuple(spots),
        is_log=bool(places) and min(places) > 0 and max(places) / min(places) > WIDE,
    )


def axis_of(name: str, unit: str, direction: Direction) -> str:
    """Return what stands at an axis: a score's or cost's name, unit and better direction."""
    unit = "%" if unit == SHARE else unit
    return f"{plain(name)}{f' ({plain(unit)})' if unit else ''} {ARROWS[direction]}".rstrip()


_Points = Sequence[tuple[int, float]]


def _mean_and_seeds(label: str, series: int, seeds: Sequence[_Points]) -> list[Line]:
    lines = _mean_line(label, "main", series, seeds)
    if len(seeds) > 1:
        lines += [
            Line(name=plain(label), kind="seed", series=series, x=[x for x, _ in one], y=[y for _, y in one])
            for one in seeds
        ]
    return lines


def _mean_line(label: str, kind: Kind, series: int, seeds: Sequence[_Points]) -> list[Line]:
    """Return the mean over seeds, where all of them have a point; no line where there is none."""
    shared = sorted(set.intersection(*(set(dict(one)) for one in seeds))) if seeds else []
    if not shared:
        return []
    tables = [dict(one) for one in seeds]
    means = [sum(table[x] for table in tables) / len(tables) for x in shared]
    return [Line(name=plain(label), kind=kind, series=series, x=shared, y=means)]


def _nulls(score: Score, layers: int) -> dict[str, Sequence[float]]:
    flat = {name: [value] * layers for name, value in score.nulls.items() if name not in score.null_profiles}
    return {**score.null_profiles, **flat}


def _axis(score: Score) -> str:
    name = plain(score.name.rpartition("/")[2])
    return f"{name} ({plain(score.unit)})" if score.unit else name

"""The figures of one cell: its layer profiles beside their nulls, and what its metrics are to be drawn from.

Everything is drawn from stored numbers; nothing is computed again.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from whitebench_leaderboards.notation import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from whitebench.reading import Picture, PictureKind
    from whitebench.result import Result, Score

STYLE = Path(__file__).with_name("whitebench.mplstyle")
FORMATS = ("png", "svg")
BINS = 40
TITLE_WIDTH = 56
"""Characters that the narrowest figure takes in a line of its title."""
MOST_ACROSS = 4
"""Matrices side by side before a new row begins."""
CYCLE: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
"""The dash patterns of the style file, one for each of its colours."""
NULL_COLOUR, NULL_DASHES = "0.45", ("--", ":", "-.", (0, (1, 3)))


def draw_cell(result: Result, pictures: Mapping[str, Picture], folder: Path) -> list[Path]:
    """Draw every figure of a cell into `folder`, which is made, as PNG and SVG; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    where = f"{plain(result.cell.contestant)} on {plain(result.cell.task)}, seed {result.cell.seed}"
    files = []
    with mpl.rc_context(fname=STYLE):
        for score in result.scores:
            if len(score.profile) > 1:
                files += save(draw_profile(score, where), folder, f"layers-{score.name}")
        for name, picture in pictures.items():
            files += save(draw_picture(picture, where), folder, name)
    return files


def draw_profile(score: Score, where: str = "") -> Figure:
    """Return a score over the layers: a band of one standard deviation over samples, and its nulls in grey."""
    figure, axes = canvas(score.name, where)
    layers = np.arange(1, len(score.profile) + 1)
    values = np.asarray(score.profile)
    (line,) = axes.plot(layers, values, marker="o", label="this network")
    if score.spread:
        spread = np.asarray(score.spread)
        axes.fill_between(layers, values - spread, values + spread, color=line.get_color(), alpha=0.18, linewidth=0)
    flat = {name: [value] * len(layers) for name, value in score.nulls.items() if name not in score.null_profiles}
    for place, (name, null) in enumerate({**score.null_profiles, **flat}.items()):
        dashes = NULL_DASHES[place % len(NULL_DASHES)]
        marker = "s" if name in score.null_profiles else None
        axes.plot(layers, null, color=NULL_COLOUR, linestyle=dashes, marker=marker, label=name, linewidth=1.2)
    axes.margins(y=0.2)  # room for the legend
    axes.set_xlabel("layer")
    axes.set_ylabel(f"{plain(score.name.rpartition('/')[2])}{f' ({plain(score.unit)})' if score.unit else ''}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(axes)
    return figure


def draw_picture(picture: Picture, where: str = "") -> Figure:
    """Return the figure of a metric's own picture."""
    series = {plain(name): np.asarray(array, dtype=float) for name, array in picture.series.items()}
    figure, axes = canvas(picture.title, where)
    _DRAW[picture.kind](figure, axes, picture, series)
    return figure


def _lines(_: Figure, axes: Axes, picture: Picture, series: Mapping[str, NDArray[Any]]) -> None:
    many = mpl.colormaps["viridis"](np.linspace(0, 0.9, len(series))) if len(series) > len(CYCLE) else None
    for place, (name, array) in enumerate(series.items()):
        x, y = (array[:, 0], array[:, 1]) if array.ndim == 2 else (np.arange(1, len(array) + 1), array)
        style: dict[str, Any] = {"marker": "o"} if len(x) <= 32 else {}
        if many is not None:
            style |= {"color": many[place], "linestyle": CYCLE[place % len(CYCLE)]}
        axes.plot(x, y, label=name, **style)
    if all(array.ndim == 1 for array in series.values()):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _label(axes, picture)
    legend(axes)


def _histogram(_: Figure, axes: Axes, picture: Picture, series: Mapping[str, NDArray[Any]]) -> None:
    finite = {name: array[np.isfinite(array)] for name, array in series.items()}
    edges = np.histogram_bin_edges(np.concatenate(list(finite.values())), bins=BINS)
    for name, array in finite.items():
        shares = np.histogram(array, bins=edges)[0] / max(len(array), 1)
        label = f"{name} ({len(array):,})"
        (line,) = axes.step(edges, np.append(shares, shares[-1]), where="post", label=label)
        axes.fill_between(edges, np.append(shares, shares[-1]), step="post", alpha=0.12, color=line.get_color())
    axes.set_ylim(bottom=0)
    _label(axes, picture, y=f"share of {picture.y}")
    legend(axes)


def _matrix(figure: Figure, axes: Axes, picture: Picture, series: Mapping[str, NDArray[Any]]) -> None:
    axes.remove()
    across = min(len(series), MOST_ACROSS)
    down = math.ceil(len(series) / across)
    figure.set_size_inches(max(1.0 + 2.4 * across, 4.6), 0.9 + 2.4 * down)
    everything = np.concatenate([array.ravel() for array in series.values()])
    everything = everything[np.isfinite(everything)]
    low, high = (everything.min(), everything.max()) if len(everything) else (0.0, 1.0)
    is_signed = low < 0
    if is_signed:
        high = max(-low, high)
        low = -high
    grid: list[Axes] = list(figure.subplots(down, across, squeeze=False).flat)
    image = None
    for place, (name, array) in enumerate(series.items()):
        one = grid[place]
        image = one.imshow(array, vmin=low, vmax=high, cmap="RdBu_r" if is_signed else None)
        one.set_title(name, fontsize=8, loc="center")
        one.grid(visible=False)
        one.set_xlabel(plain(picture.x) if place >= len(series) - across else "")
        one.set_ylabel(plain(picture.y) if place % across == 0 else "")
        for axis in (one.xaxis, one.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    for one in grid[len(series) :]:
        one.remove()
    if image is not None:
        figure.colorbar(image, ax=grid[: len(series)], shrink=0.8)


def _paths(figure: Figure, axes: Axes, picture: Picture, series: Mapping[str, NDArray[Any]]) -> None:
    figure.set_size_inches(4.6, 4.4)
    for place, (name, array) in enumerate(series.items()):
        colour, dashes, label = f"C{place}", CYCLE[place % len(CYCLE)], name
        for piece in _pieces(array):
            if len(piece) == 1:
                axes.plot(*piece[0], "*", color=colour, label=label, markersize=11, zorder=3)
            else:
                axes.plot(piece[:, 0], piece[:, 1], color=colour, linestyle=dashes, label=label)
                axes.plot(*piece[-1], "o", color=colour, markersize=3.5)
            label = "_"
    axes.set_aspect("equal", adjustable="datalim")
    _label(axes, picture)
    legend(axes)


_Draw = Callable[[Figure, "Axes", "Picture", "Mapping[str, NDArray[Any]]"], None]
_DRAW: Mapping[PictureKind, _Draw] = {"lines": _lines, "histogram": _histogram, "matrix": _matrix, "paths": _paths}


def _pieces(array: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the ways that rows of NaN part a series into."""
    gaps = np.flatnonzero(~np.isfinite(array).all(axis=1))
    parts = np.split(array, gaps)
    return [kept for part in parts if len(kept := part[np.isfinite(part).all(axis=1)])]


def canvas(title: str, where: str) -> tuple[Figure, Axes]:
    """Return an empty figure with its title, and what it is of on lines of its own."""
    figure = Figure()
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    lines = [line for text in (plain(title), where) for line in textwrap.wrap(text, TITLE_WIDTH)]
    figure.suptitle("\n".join(lines), fontsize=10, x=0.01, ha="left")
    return figure, axes


def _label(axes: Axes, picture: Picture, y: str | None = None) -> None:
    axes.set_xlabel(plain(picture.x))
    axes.set_ylabel(plain(picture.y if y is None else y))


def legend(axes: Axes) -> None:
    """Put a legend where there is room: beside the axes for many lines."""
    _, labels = axes.get_legend_handles_labels()
    if len(labels) > len(CYCLE):
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    elif labels:
        axes.legend(loc="best")


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as PNG and SVG under a name that every file system takes; return the files."""
    stem = re.sub(r"[^a-z0-9.+=-]+", "-", name.lower()).strip("-.") or "figure"
    files = [folder / f"{stem}.{kind}" for kind in FORMATS]
    for file in files:
        # No moment of making in the file: the same numbers give the same bytes.
        figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else {"Software": None})
    return files

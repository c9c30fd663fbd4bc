"""Figures of a cell: what is drawn is what is stored, named so that a file system takes it."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.lines import Line2D

from tests.leaderboards.conftest import World
from whitebench import Picture
from whitebench.result import Result, Score
from whitebench_leaderboards import figures
from whitebench_leaderboards.figures import draw_cell, draw_picture, draw_profile

NAN = torch.full((1, 2), math.nan)
PICTURES = {
    "margin/gap": Picture(
        kind="histogram", title="gap", x="gap (nats)", y="queries",
        series={"trained": torch.linspace(0, 8, 50), "untrained": torch.linspace(0, 2, 20)},
    ),
    "rates/spectra": Picture(kind="lines", title="spectra", x="rank", y="value", series={"a": torch.rand(5)}),
    "coherence/heads": Picture(
        kind="matrix", title="heads", x="direction", y="direction",
        series={f"layer {i}": torch.rand(4, 4) for i in "123456"},
    ),
    "selection/ways": Picture(
        kind="paths", title="ways", x="first", y="second",
        series={
            "W z": torch.cat([torch.rand(9, 2), NAN, torch.rand(7, 2)]),
            "solution": torch.cat([torch.rand(1, 2), NAN, torch.rand(1, 2)]),
        },
    ),
}  # fmt: skip


def points(line: Line2D) -> tuple[list[float], list[float]]:
    x, y = (np.asarray(values, dtype=float).tolist() for values in line.get_data())
    return x, y


@pytest.fixture
def rate(world: World) -> Score:
    return dataclasses.replace(
        world.score("coding-rate/normalised", 7.0, unit="nats"),
        profile=(9.0, 7.0, 5.0),
        spread=(1.0, 0.5, 0.25),
        nulls={"untrained": 9.0, "random tokens": 11.0},
        null_profiles={"untrained": (9.5, 9.0, 8.5)},
    )


@pytest.fixture
def result(world: World, rate: Score) -> Result:
    found = world.record("crate", 0, 0.9, scores=(rate,)).result
    assert found is not None
    return found


def test_a_profile_stands_beside_its_nulls_with_a_band_over_samples(rate: Score) -> None:
    with mpl.rc_context(fname=figures.STYLE):
        [axes] = draw_profile(rate, "crate on digits, seed 0").axes
    lines = {line.get_label(): points(line) for line in axes.get_lines()}
    assert lines == {
        "this network": ([1.0, 2.0, 3.0], [9.0, 7.0, 5.0]),
        "untrained": ([1.0, 2.0, 3.0], [9.5, 9.0, 8.5]),
        "random tokens": ([1.0, 2.0, 3.0], [11.0, 11.0, 11.0]),
    }
    [band] = axes.collections
    corners = {(round(x), y) for x, y in np.asarray(band.get_paths()[0].vertices, dtype=float).tolist()}
    assert corners >= {(1, 10.0), (1, 8.0), (3, 5.25), (3, 4.75)}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("layer", "normalised (nats)")


def test_histograms_are_shares_in_the_same_bins() -> None:
    [axes] = draw_picture(PICTURES["margin/gap"]).axes
    lines = axes.get_lines()
    assert [line.get_label() for line in lines] == ["trained (50)", "untrained (20)"]
    (edges, shares), (same_edges, other_shares) = map(points, lines)
    assert edges == same_edges
    assert [sum(shares[:-1]), sum(other_shares[:-1])] == pytest.approx([1.0, 1.0])
    assert axes.get_ylabel() == "share of queries"


def test_matrices_share_one_scale_which_is_symmetric_where_they_have_signs() -> None:
    signed = dataclasses.replace(
        PICTURES["coherence/heads"], series={"a": torch.tensor([[-3.0, 1.0]]), "b": torch.tensor([[0.0, 2.0]])}
    )
    for picture, limits in ((signed, (-3.0, 3.0)), (PICTURES["coherence/heads"], None)):
        axes = draw_picture(picture).axes[:-1]
        assert len(axes) == len(picture.series)
        scales = {one.get_images()[0].get_clim() for one in axes}
        assert len(scales) == 1
        assert limits is None or scales == {limits}


def test_a_way_of_one_point_is_a_star_and_rows_of_nan_part_ways() -> None:
    [axes] = draw_picture(PICTURES["selection/ways"]).axes
    ways = [len(points(line)[0]) for line in axes.get_lines() if line.get_marker() == "None"]
    stars = [line for line in axes.get_lines() if line.get_marker() == "*"]
    assert (ways, len(stars)) == ([9, 7], 2)
    assert len({line.get_color() for line in stars}) == 1
    legend = axes.get_legend()
    assert legend is not None
    assert len(legend.get_texts()) == 2


def test_every_figure_of_a_cell_is_drawn_as_png_and_svg_and_twice_the_same(result: Result, tmp_path: Path) -> None:
    files = draw_cell(result, PICTURES, tmp_path / "new" / "figures")
    stems = {"layers-coding-rate-normalised", "margin-gap", "rates-spectra", "coherence-heads", "selection-ways"}
    assert {file.name for file in files} == {f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")}
    again = draw_cell(result, PICTURES, tmp_path / "again")
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in again]


def test_no_line_of_a_title_leaves_the_figure() -> None:
    where = "normalised on token-selection[claim=w-frobenius,draws=34], seed 0, which is long"
    with mpl.rc_context(fname=figures.STYLE):
        alone = dataclasses.replace(PICTURES["coherence/heads"], series={"layer 1": torch.rand(4, 4)})
        for picture in (alone, *PICTURES.values()):
            figure = draw_picture(dataclasses.replace(picture, title="a title of many words " * 4), where)
            figure.canvas.draw()
            [title] = [text for text in figure.texts if "normalised" in text.get_text()]
            assert title.get_window_extent().x1 <= figure.bbox.x1


def test_a_name_from_a_stranger_cannot_leave_the_folder(result: Result, tmp_path: Path) -> None:
    odd = {"../../up/<script>": PICTURES["rates/spectra"], "\x1b[31m": PICTURES["rates/spectra"]}
    files = draw_cell(dataclasses.replace(result, scores=()), odd, tmp_path / "figures")
    assert {file.name for file in files if file.suffix == ".png"} == {"up-script.png", "31m.png"}
    assert {file.parent for file in files} == {tmp_path / "figures"}


def test_more_series_than_colours_are_told_apart_all_the_same() -> None:
    many = dataclasses.replace(PICTURES["rates/spectra"], series={f"class {i}": torch.rand(5) for i in range(10)})
    [axes] = draw_picture(many).axes
    styles = {(tuple(line.get_color()), str(line.get_linestyle())) for line in axes.get_lines()}
    assert len(styles) == 10

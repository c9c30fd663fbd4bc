"""Characters as masks."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.ft2font import FT2Font
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from whitebench import TaskDataError
from whitebench_tasks.faces import CANVAS, CAP, CHARACTERS, curve, digest, file_of, fill, masks
from whitebench_tasks.glyphs import KNOWN_FACES, UNSEEN_FACES

FACES = KNOWN_FACES + UNSEEN_FACES


def test_characters_are_the_digits_then_capitals_then_small_letters() -> None:
    assert CHARACTERS == "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize("face", FACES)
def test_every_face_has_all_characters_as_text_whole_on_the_canvas(face: str) -> None:
    assert set(map(ord, CHARACTERS)) <= set(FT2Font(str(file_of(face))).get_charmap())
    of_face = masks(face)
    assert of_face.shape == (62, CANVAS, CANVAS)
    twins = "Il" if face == "cmss10" else ""
    others = [mask.tobytes() for character, mask in zip(CHARACTERS, of_face, strict=True) if character not in twins]
    assert len({*others, *(of_face[CHARACTERS.index(twin)].tobytes() for twin in twins)}) == 62 - len(twins) // 2
    assert (of_face.sum(axis=(1, 2)) > CAP).all()  # no glyph is blank: a 1 of one cell's width would have as much
    assert not of_face[:, [0, -1]].any()
    assert not of_face[:, :, [0, -1]].any()


@pytest.mark.parametrize("face", FACES)
def test_capitals_are_64_cells_high_and_lie_around_the_middle_small_letters_lie_on_the_same_line(face: str) -> None:
    def rows(character: str) -> tuple[int, int]:
        found = np.flatnonzero(masks(face)[CHARACTERS.index(character)].any(axis=1))
        return int(found[0]), int(found[-1])

    assert rows("H") == (32, 95)
    top, bottom = rows("x")
    assert abs(bottom - 95) <= 2
    assert 0.6 < (bottom - top + 1) / 64 < 0.8  # the height by which a person tells x from X


@pytest.mark.parametrize("face", ["DejaVuSans", "DejaVuSerif-Italic", "STIXGeneralBol", "cmr10", "cmtt10"])
def test_masks_are_what_freetype_draws_as_well(face: str) -> None:
    for character, mask in zip(CHARACTERS, masks(face), strict=True):
        drawn = by_freetype(face, character)
        rows, columns = np.nonzero(mask)
        ours = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        best = min(
            np.abs(placed(drawn, ours.shape, down, right) - placed(ours.astype(float), ours.shape, 0, 0)).sum()
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
        )
        # They may differ by hinting and in the grey of a cell that the outline crosses: half a cell along the edge.
        edge = (
            np.abs(np.diff(np.pad(mask.astype(int), 1), axis=0)).sum()
            + np.abs(np.diff(np.pad(mask.astype(int), 1), axis=1)).sum()
        )
        assert best < 0.6 * edge, character


def by_freetype(face: str, character: str) -> NDArray[np.float64]:
    """Return the character's ink as Pillow and its FreeType draw it, with an H of 64 pixels, cut to its bounds."""
    size = next(s for s in range(60, 140) if height_of_h(face, s) >= 64)
    image = Image.new("L", (256, 256))
    font = ImageFont.truetype(str(file_of(face)), size, layout_engine=ImageFont.Layout.BASIC)
    ImageDraw.Draw(image).text((64, 64), character, fill=255, font=font)
    ink = np.asarray(image) / 255
    rows, columns = np.nonzero(ink >= 0.5)
    return ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def height_of_h(face: str, size: int) -> int:
    font = ImageFont.truetype(str(file_of(face)), size, layout_engine=ImageFont.Layout.BASIC)
    _, top, _, bottom = font.getbbox("H")
    return int(bottom - top)


def placed(ink: NDArray[np.float64], shape: tuple[int, ...], down: int, right: int) -> NDArray[np.float64]:
    whole = np.zeros((shape[0] + 8, shape[1] + 8))
    height, width = min(ink.shape[0], shape[0] + 4), min(ink.shape[1], shape[1] + 4)
    whole[2 + down : 2 + down + height, 2 + right : 2 + right + width] = ink[:height, :width]
    return whole


def square(left: float, bottom: float, side: float, *, is_clockwise: bool) -> NDArray[np.float64]:
    corners = np.array([[0, 0], [0, 1], [1, 1], [1, 0]]) * side + [left, bottom]
    return corners if is_clockwise else corners[::-1]


def test_a_square_covers_the_cells_whose_centres_it_contains() -> None:
    mask = fill([square(0, 0, 10, is_clockwise=True)], scale=2.0)
    rows, columns = np.nonzero(mask)
    # 20 cells wide around the middle, and 20 high on the line on which an H stands.
    assert (rows.min(), rows.max(), columns.min(), columns.max(), mask.sum()) == (76, 95, 54, 73, 400)


def test_a_line_that_runs_the_other_way_cuts_a_hole_and_one_that_runs_the_same_way_does_not() -> None:
    outer = square(0, 0, 30, is_clockwise=True)
    assert fill([outer, square(10, 10, 10, is_clockwise=False)], scale=1.0).sum() == 900 - 100
    assert fill([outer, square(10, 10, 10, is_clockwise=True)], scale=1.0).sum() == 900


def test_a_triangle_is_filled_as_a_textbook_s_cross_products_say() -> None:
    corners = np.array([[0.0, 0.0], [13.3, 41.7], [37.9, 5.2]])
    mask = fill([corners], scale=1.0)
    middle = (corners[:, 0].min() + corners[:, 0].max()) / 2
    for row in range(CANVAS):
        for column in range(CANVAS):
            point = np.array([column + 0.5 - 64 + middle, 96 - row - 0.5])
            turns = []
            for i in range(3):
                a, b = corners[i], corners[(i + 1) % 3]
                turns.append((b[0] - a[0]) * (point[1] - a[1]) - (b[1] - a[1]) * (point[0] - a[0]))
            assert mask[row, column] == (max(turns) < 0 or min(turns) > 0)


def test_a_curve_s_points_lie_where_de_casteljau_puts_them() -> None:
    start, control, end = np.array([0.0, 0.0]), np.array([1.0, 2.0]), np.array([4.0, 0.0])
    points = list(curve(start, control, end))
    assert len(points) == 8
    for piece, point in enumerate(points, start=1):
        t = piece / 8
        one, two = start + t * (control - start), control + t * (end - control)
        np.testing.assert_allclose(point, one + t * (two - one), atol=1e-15)
    np.testing.assert_array_equal(points[-1], end)


def test_the_digest_is_of_the_files_bytes_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert digest(("cmr10", "cmss10")) != digest(("cmss10", "cmr10"))
    fonts = tmp_path / "fonts" / "ttf"
    fonts.mkdir(parents=True)
    (fonts / "a.ttf").write_bytes(b"abc")
    monkeypatch.setattr(mpl, "get_data_path", lambda: str(tmp_path))
    # FIPS 180-2, appendix B.1: the sha256 of "abc".
    assert digest(("a",)) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_matplotlib_without_its_fonts_is_said_to_be_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(mpl, "get_data_path", lambda: str(tmp_path))
    with pytest.raises(TaskDataError, match=r"cmr10.ttf is missing.*install matplotlib from PyPI"):
        file_of("cmr10")

"""Ink looked up at any place of any glyph."""

from __future__ import annotations

import numpy as np
import pytest

from whitebench_tasks.atlas import Atlas, count_around
from whitebench_tasks.faces import CHARACTERS, masks


@pytest.mark.parametrize("width", [1, 2, 4, 5])
def test_ink_is_counted_in_the_square_around_it(width: int) -> None:
    mask = np.random.default_rng(0).random((2, 9, 11)) < 0.5
    counts = count_around(mask, width)
    for i in range(2):
        for row in range(9):
            for column in range(11):
                count = 0
                for r in range(row - width // 2, row - width // 2 + width):
                    for c in range(column - width // 2, column - width // 2 + width):
                        count += 0 <= r < 9 and 0 <= c < 11 and bool(mask[i, r, c])
                assert counts[i, row, column] == count


FACES = ("DejaVuSans", "cmr10")
CAP = 12.8
"""Pixels: five cells to a pixel."""


def test_what_a_pixel_sees_is_the_ink_around_its_place() -> None:
    atlas = Atlas(FACES, CAP)
    x, y = np.random.default_rng(0).uniform(-9, 9, (2, 2, 1, 300)).astype(np.float32)
    ink = atlas.look(np.array([1, 0]), np.array([CHARACTERS.index(c) for c in "gW"]), x, y)
    for i, (face, character) in enumerate([("cmr10", "g"), ("DejaVuSans", "W")]):
        mask = masks(face)[CHARACTERS.index(character)]
        for j in range(300):
            column, row = int(5 * x[i, 0, j] + 64), int(5 * y[i, 0, j] + 64)
            assert ink[i, 0, j] == np.float32(mask[row - 2 : row + 3, column - 2 : column + 3].sum() / 25)
    assert len(np.unique(ink)) > 10


def test_beyond_the_canvas_there_is_no_ink() -> None:
    atlas = Atlas(FACES, CAP)
    far = np.array([[[-1e6, -13.0, 13.0, 1e6]]], dtype=np.float32)
    for x, y in [(far, 0 * far), (0 * far, far), (far, far)]:
        assert (atlas.look(np.array([0]), np.array([CHARACTERS.index("W")]), x, y) == 0).all()


def test_a_glyph_s_width_is_that_of_its_ink_in_pixels() -> None:
    atlas = Atlas(FACES, CAP)
    for face in range(2):
        for character, mask in enumerate(masks(FACES[face])):
            columns = np.flatnonzero(mask.any(axis=0))
            # No glyph falls apart into pieces side by side, so that columns with ink are all between first and last.
            assert atlas.width[face, character] * 5 == pytest.approx(columns[-1] - columns[0] + 1, rel=1e-6)

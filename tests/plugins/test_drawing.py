"""Characters bent, crowded and noisy."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.interpolate import BSpline

from whitebench_tasks.atlas import Atlas
from whitebench_tasks.chance import Stream
from whitebench_tasks.drawing import (
    CAP_SHARE,
    Hardness,
    Numbers,
    draw,
    noise,
    places,
    shades,
    stroke,
    surface,
)
from whitebench_tasks.faces import CHARACTERS, masks

SIDE = 24
NONE = Hardness(turn=0, shear=0, size=0, shift=0, bend=0, neighbour=0, stroke=0, contrast=1, blotch=0, noise=0)
FACES = ("DejaVuSerif", "cmr10")
LABELS = np.arange(62)
known = functools.cache(masks)


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    return Atlas(FACES, CAP_SHARE * SIDE)


def only(**change: float) -> Hardness:
    return dataclasses.replace(NONE, **change)


def drawn(atlas: Atlas, hardness: Hardness, labels: NDArray[np.int64] = LABELS, name: str = "s") -> NDArray[np.uint8]:
    return draw(atlas, Stream(name), labels, SIDE, hardness)


def upright(face: str, label: int) -> NDArray[np.float64]:
    """Return the ink that each pixel of an undistorted image covers: counted in the mask's cells."""
    mask, cells = known(face)[label], 64 / (CAP_SHARE * SIDE)
    ink = np.zeros((SIDE, SIDE))
    for i in range(SIDE):
        for j in range(SIDE):
            row, column = (int(64 + (k - (SIDE - 1) / 2) * cells) for k in (i, j))
            ink[i, j] = mask[row - 2 : row + 3, column - 2 : column + 3].mean()
    return ink


def test_without_distortion_an_image_is_the_ink_in_each_pixel_white_on_black(atlas: Atlas) -> None:
    images = drawn(atlas, NONE)
    assert images.shape == (62, SIDE, SIDE)
    assert images.dtype == np.uint8
    faces = []
    for label, image in enumerate(images):
        off_by = {face: float(np.abs(image - 255 * upright(face, label)).max()) for face in FACES}
        faces.append(min(off_by, key=lambda face: off_by[face]))
        assert off_by[faces[-1]] <= 0.51, CHARACTERS[label]
    assert set(faces) == set(FACES)


def test_a_small_letter_stays_smaller_than_any_capital(atlas: Atlas) -> None:
    def height(images: NDArray[np.uint8]) -> NDArray[np.int64]:
        rows = images.max(axis=2) > 127
        heights: NDArray[np.int64] = rows.sum(axis=1)
        return heights

    hardness = only(size=Hardness.size)
    for pair in ("cC", "oO", "sS", "vV", "wW", "xX", "zZ"):
        small, capital = (np.full(200, CHARACTERS.index(character)) for character in pair)
        assert height(drawn(atlas, hardness, small)).max() < height(drawn(atlas, hardness, capital)).min()


def test_places_are_the_inverse_of_shear_then_size_then_turn_then_shift() -> None:
    hardness = dataclasses.replace(Hardness(), bend=0.0)
    table = Stream("places").uniform(20, 60)
    x, y = places(Numbers(table), SIDE, hardness)
    # Numbers are taken in this order: 25 controls, shift; 25 controls, shift; turn; height; width; shear.
    around = 2 * table[:, [25, 51, 52, 53, 54, 55]] - 1
    for i in range(20):
        right, down = around[i, :2] * hardness.shift * SIDE
        angle = 2 * math.atan(around[i, 2] * hardness.turn)
        height = 1 + around[i, 3] * hardness.size
        width = height * (1 + around[i, 4] * hardness.size)
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        A = turn @ np.diag([width, height]) @ np.array([[1, -around[i, 5] * hardness.shear], [0, 1]])
        glyph = np.stack([x[i].ravel(), y[i].ravel()]).astype(np.float64)
        image = A @ glyph + np.array([[right], [down]])
        along = np.arange(SIDE) - (SIDE - 1) / 2
        np.testing.assert_allclose(image[0].reshape(SIDE, SIDE), np.tile(along, (SIDE, 1)), atol=1e-4)
        np.testing.assert_allclose(image[1].reshape(SIDE, SIDE), np.tile(along[:, None], (1, SIDE)), atol=1e-4)


def test_the_elastic_distortion_is_added_before_all_else() -> None:
    table = Stream("places").uniform(3, 60)
    x, y = places(Numbers(table), SIDE, only(bend=0.1))
    along = np.arange(SIDE) - (SIDE - 1) / 2
    for moved, controls, centres in [(x, table[:, :25], along), (y, table[:, 26:51], along[:, None])]:
        bend = surface(((controls * 2 - 1) * 0.1 * SIDE).reshape(3, 5, 5).astype(np.float32), SIDE)
        np.testing.assert_allclose(moved, bend + centres, atol=1e-5)
        assert np.abs(bend).max() > 0.3


@pytest.mark.parametrize("side", [24, 32])
def test_surfaces_are_the_tensor_product_of_textbook_b_splines(side: int) -> None:
    controls = np.random.default_rng(0).uniform(-1, 1, (4, 5, 5))
    knots = np.arange(-3, 6) / 2  # two spans over [0, 1], three more knots on each side
    at = (np.arange(side) + 0.5) / side
    basis = np.stack([BSpline(knots, np.eye(5)[i], 3)(at) for i in range(5)])
    expected = np.einsum("nij,ih,jw->nhw", controls, basis, basis)
    np.testing.assert_allclose(surface(controls.astype(np.float32), side), expected, atol=1e-6)


def test_neighbours_stand_left_and_right_in_the_same_face_with_a_gap_and_leave_the_character_alone() -> None:
    atlas = Atlas(["DejaVuSerif"], CAP_SHARE * SIDE)
    labels = np.full(300, CHARACTERS.index("i"))
    alone, beside = (drawn(atlas, only(neighbour=chance), labels).astype(int) for chance in (0, 1))
    assert (beside >= alone).all()
    added = (beside - alone).max(axis=1) > 0  # by column
    ink = np.flatnonzero(alone[0].any(axis=0))
    gap = int(SIDE * Hardness.gap) - 1  # the pixels at its ends are partly inked
    near = slice(ink[0] - gap + 1, ink[-1] + gap)
    assert not added[:, near].any()
    assert added[:, : ink[0]].any(axis=1).mean() > 0.99
    assert added[:, ink[-1] + 1 :].any(axis=1).mean() > 0.99


def test_half_of_the_samples_have_a_neighbour_on_a_side_where_the_chance_is_a_half() -> None:
    atlas = Atlas(["DejaVuSerif"], CAP_SHARE * SIDE)
    labels = np.full(1000, CHARACTERS.index("i"))
    alone, beside = (drawn(atlas, only(neighbour=chance), labels) for chance in (0, 0.5))
    for half in (np.s_[..., :12], np.s_[..., 12:]):
        assert abs((alone[half] != beside[half]).any(axis=(1, 2)).mean() - 0.5) < 4 * 0.5 / 1000**0.5


def test_a_stroke_is_ink_within_a_pixel_of_a_straight_line() -> None:
    table = Stream("stroke").uniform(200, 8)
    ink = stroke(Numbers(table), SIDE, only(stroke=1))
    for i in range(200):
        strength = 0.4 + 0.6 * table[i, 1]
        across, down = 2 * table[i, 2:4] - 1
        offset = (2 * table[i, 4] - 1) * SIDE / 3
        for row, column in [(0, 0), (5, 17), (12, 12), (23, 3)]:
            x, y = column - 11.5, row - 11.5
            distance = abs((x * across + y * down) / math.hypot(across, down, 1e-3) - offset)
            assert ink[i, row, column] == pytest.approx(max(0, 1 - distance) * strength, abs=1e-4)
    assert (stroke(Numbers(table), SIDE, only(stroke=0)) == 0).all()


def test_the_pen_is_lighter_than_the_paper_by_the_least_contrast_or_more() -> None:
    paper, pen = shades(Numbers(Stream("shades").uniform(2000, 2)), only(contrast=0.3))
    assert (paper.min(), pen.max()) == (pytest.approx(0, abs=0.01), pytest.approx(1, abs=0.01))
    assert paper.min() >= 0
    assert pen.max() <= 1
    assert (pen - paper).min() == pytest.approx(0.3, abs=1e-3)


def test_noise_has_mean_0_and_standard_deviation_1_and_no_two_pixels_share_it() -> None:
    drawn = noise(Stream("noise"), 100, SIDE).reshape(100, -1)
    n = drawn.size
    assert abs(drawn.mean()) < 4 / n**0.5
    assert abs(drawn.var() - 1) < 4 * (2 / n) ** 0.5
    assert abs(np.mean(drawn[:, 1:] * drawn[:, :-1])) < 4 / n**0.5
    assert abs(np.mean(drawn[1:] * drawn[:-1])) < 4 / n**0.5


def test_values_stay_in_range_and_use_it(atlas: Atlas) -> None:
    images = drawn(atlas, Hardness(noise=0.5))
    assert (images.min(), images.max()) == (0, 255)


def test_the_random_numbers_of_a_sample_suffice(atlas: Atlas) -> None:
    with pytest.raises(AssertionError):
        Numbers(Stream("s").uniform(1, 3)).square(1)
    drawn(atlas, Hardness())


DIGEST = """
import hashlib
import numpy as np
from whitebench_tasks.atlas import Atlas
from whitebench_tasks.chance import Stream
from whitebench_tasks.drawing import CAP_SHARE, draw
image = draw(Atlas(["DejaVuSerif", "cmr10"], CAP_SHARE * 24), Stream("s"), np.arange(620) % 62, 24)
print(hashlib.sha256(image.tobytes()).hexdigest())
"""


def test_a_processor_without_vector_instructions_draws_the_same_bytes(atlas: Atlas) -> None:
    built: Any = np.show_config(mode="dicts")
    extra = built["SIMD Extensions"]["found"]
    plain = subprocess.run(
        [sys.executable, "-c", DIGEST],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "NPY_DISABLE_CPU_FEATURES": " ".join(extra)},
        capture_output=True,
        text=True,
        check=True,
    )
    here = draw(atlas, Stream("s"), np.arange(620) % 62, SIDE)
    assert plain.stdout.strip() == hashlib.sha256(here.tobytes()).hexdigest()

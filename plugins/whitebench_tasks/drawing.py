"""Drawing: how a character becomes a small image that is bent, crowded and noisy.

For every pixel centre p, in pixels from the image's centre,

    q     = A^-1 (p + e(p) - t)                        where on the upright glyph the pixel looks
    ink   = max( glyph(q), left(q), right(q), stroke(p) )
    value = paper + (pen - paper) ink + blotches(p) + noise,       clipped to [0, 1] and rounded to k / 255

with A a shear, then a change of width and height, then a turn; t a shift; e, the elastic distortion, and the
blotches cubic B-splines with 5 x 5 random controls; left and right neighbours in the same line and face; the stroke
a straight line. Sizes keep their meaning: a small c stays smaller than a capital C of any size.

Only sums, products, quotients, roots and comparisons of single numbers take part, each rounded as IEEE 754 says:
no sine, no matrix product, no sum whose order a processor may choose.

B batch, G controls along an axis, H height, W width, K random numbers of a sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from whitebench_tasks.faces import CHARACTERS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from whitebench_tasks.atlas import Atlas, Floats, Whole
    from whitebench_tasks.chance import Stream

CAP_SHARE = 13 / 24
"""Height of an H, in image sides."""

_CONTROLS = 5
_NUMBERS = 96
"""Random numbers of a sample; not all are used."""


@dataclass(frozen=True, kw_only=True)
class Hardness:
    """How far each distortion goes at most; each sample draws its own, evenly."""

    turn: float = 0.08
    """Tangent of half the angle."""
    shear: float = 0.15
    size: float = 0.1
    """Change of the height as a share, and of the width against the height."""
    shift: float = 1 / 24
    """Along each axis, in image sides."""
    bend: float = 1 / 20
    """Of each control of the elastic distortion along each axis, in image sides."""
    neighbour: float = 0.3
    """Chance of a neighbour, on each side."""
    gap: float = 1 / 12
    """From a glyph's ink to its neighbour's, in image sides."""
    stroke: float = 0.3
    """Chance of a stroke."""
    contrast: float = 0.4
    """Least difference between pen and paper."""
    blotch: float = 0.08
    """Of each control of the blotches."""
    noise: float = 0.08
    """Standard deviation."""


class Numbers:
    """The random numbers of a batch of samples, taken one after the other."""

    def __init__(self, table_BK: NDArray[np.float64]) -> None:
        self._table_BK, self._taken = table_BK, 0

    def share(self) -> Floats:
        """Take numbers in [0, 1], (B, 1, 1)."""
        return self._take(1)[:, :, None].astype(np.float32)

    def around(self, most: float) -> Floats:
        """Take numbers in [-most, most], (B, 1, 1)."""
        return (self.share() * 2 - 1) * np.float32(most)

    def whole(self, below: int) -> Whole:
        """Take whole numbers in [0, below), (B,)."""
        return (self._take(1)[:, 0] * below).astype(np.int64)

    def square(self, most: float) -> Floats:
        """Take controls in [-most, most], (B, G, G)."""
        return (self._take(_CONTROLS**2).astype(np.float32).reshape(-1, _CONTROLS, _CONTROLS) * 2 - 1) * np.float32(
            most
        )

    def _take(self, count: int) -> NDArray[np.float64]:
        start, self._taken = self._taken, self._taken + count
        assert self._taken <= self._table_BK.shape[1]
        return self._table_BK[:, start : self._taken]


def draw(
    atlas: Atlas, stream: Stream, labels_B: Whole, side: int, hardness: Hardness = Hardness()
) -> NDArray[np.uint8]:
    """Draw an image of each label with the stream's next numbers, (B, H, W)."""
    B = len(labels_B)
    numbers = Numbers(stream.uniform(B, _NUMBERS))
    face_B = numbers.whole(atlas.faces)
    x_BHW, y_BHW = places(numbers, side, hardness)
    ink_BHW = atlas.look(face_B, labels_B, x_BHW, y_BHW)
    for direction in (np.float32(-1), np.float32(1)):
        is_there_B11, other_B = numbers.share() < hardness.neighbour, numbers.whole(len(CHARACTERS))
        widths_B = atlas.width[face_B, labels_B] + atlas.width[face_B, other_B]
        away_B = direction * (widths_B * np.float32(0.5) + np.float32(hardness.gap * side))
        beside_BHW = atlas.look(face_B, other_B, x_BHW - away_B[:, None, None], y_BHW)
        ink_BHW = np.maximum(ink_BHW, beside_BHW * is_there_B11)
    ink_BHW = np.maximum(ink_BHW, stroke(numbers, side, hardness))
    paper_B11, pen_B11 = shades(numbers, hardness)
    value_BHW = paper_B11 + (pen_B11 - paper_B11) * ink_BHW
    value_BHW += surface(numbers.square(hardness.blotch), side)
    value_BHW += noise(stream, B, side) * (numbers.share() * np.float32(hardness.noise))
    return (np.clip(value_BHW, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def centres(side: int) -> tuple[Floats, Floats]:
    """Return how far pixel centres lie to the right of and below the image's centre, (W,) and (H, 1)."""
    along = np.arange(side, dtype=np.float32) - np.float32((side - 1) / 2)
    return along, along[:, None]


def places(numbers: Numbers, side: int, hardness: Hardness) -> tuple[Floats, Floats]:
    """Return where on the upright glyph each pixel looks: to the right and down, in pixels, two of (B, H, W)."""
    x_W, y_H1 = centres(side)
    x_BHW = x_W + surface(numbers.square(hardness.bend * side), side) - numbers.around(hardness.shift * side)
    y_BHW = y_H1 + surface(numbers.square(hardness.bend * side), side) - numbers.around(hardness.shift * side)
    t = numbers.around(hardness.turn)  # a turn without sine and cosine, which no two libraries round alike
    cos, sin = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    height = 1 + numbers.around(hardness.size)
    width = height * (1 + numbers.around(hardness.size))
    x_BHW, y_BHW = (x_BHW * cos + y_BHW * sin) / width, (y_BHW * cos - x_BHW * sin) / height
    return x_BHW + y_BHW * numbers.around(hardness.shear), y_BHW


def surface(controls_BGG: Floats, side: int) -> Floats:
    """Return the uniform cubic B-spline surface with these controls at the pixel centres, (B, H, W)."""
    weights = _weights(side)
    rows_BGW: Floats = controls_BGG[:, :, :1] * weights[0]
    for column in range(1, _CONTROLS):
        rows_BGW += controls_BGG[:, :, column : column + 1] * weights[column]
    surface_BHW: Floats = rows_BGW[:, :1] * weights[0][:, None]
    for row in range(1, _CONTROLS):
        surface_BHW += rows_BGW[:, row : row + 1] * weights[row][:, None]
    return surface_BHW


def _weights(side: int) -> Floats:
    """Return how much each control counts at each pixel centre, (G, side): the first lies one step outside."""
    step = (np.arange(side) + 0.5) / side * (_CONTROLS - 3)
    d = abs(step - (np.arange(_CONTROLS)[:, None] - 1))
    near, far = (4 - 6 * d * d + 3 * d * d * d) / 6, (2 - d) * (2 - d) * (2 - d) / 6
    return np.where(d < 1, near, np.where(d < 2, far, 0)).astype(np.float32)


def stroke(numbers: Numbers, side: int, hardness: Hardness) -> Floats:
    """Return the ink of a straight line across some of the images, (B, H, W): a twelfth of the side wide, or less."""
    x_W, y_H1 = centres(side)
    is_there, strength = numbers.share() < hardness.stroke, numbers.share() * np.float32(0.6) + np.float32(0.4)
    across, down, offset = numbers.around(1), numbers.around(1), numbers.around(side / 3)
    length = np.sqrt(across * across + down * down + np.float32(1e-6))
    distance_BHW = abs((x_W * across + y_H1 * down) / length - offset)
    ink_BHW: Floats = np.clip(np.float32(side / 24) - distance_BHW, 0, 1) * (strength * is_there)
    return ink_BHW


def shades(numbers: Numbers, hardness: Hardness) -> tuple[Floats, Floats]:
    """Return the grey of the paper and that of the pen, which is lighter, (B, 1, 1) each in [0, 1]."""
    room = np.float32(1 - hardness.contrast)
    paper_B11 = numbers.share() * room
    pen_B11 = paper_B11 + np.float32(hardness.contrast) + numbers.share() * (room - paper_B11)
    return paper_B11, pen_B11


def noise(stream: Stream, B: int, side: int) -> Floats:
    """Return noise of mean 0 and standard deviation 1, the sum of four even numbers, (B, H, W)."""
    parts_BHW4 = stream.bytes(B, side * side * 4).reshape(B, side, side, 4).astype(np.float32)
    total_BHW = parts_BHW4[..., 0] + parts_BHW4[..., 1] + parts_BHW4[..., 2] + parts_BHW4[..., 3]
    return (total_BHW - np.float32(4 * 255 / 2)) / np.float32((4 * (256**2 - 1) / 12) ** 0.5)

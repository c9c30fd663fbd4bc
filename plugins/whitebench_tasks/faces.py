"""Faces: the letters and digits of the fonts that matplotlib ships, as masks, the same bits on every machine.

A glyph is an outline of lines and quadratic curves in whole font units; FreeType only reads it, unscaled and
unhinted, and draws nothing. A cell of the mask is ink where the outline winds around its centre a number of
times other than zero, the rule of TrueType. Every step is one IEEE operation per number, so neither FreeType's
version nor the processor changes a bit; matplotlib's font files do (they are part of `digest`).

Each face is scaled so that its H is `CAP` cells high. Within a face the sizes keep their proportions, which is
how a person tells c from C; and every face has its capitals in the same place.

P points of an outline, R rows, X columns.
"""

from __future__ import annotations

import hashlib
import string
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from whitebench import TaskDataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.ft2font import FT2Font
    from numpy.typing import NDArray

Mask: TypeAlias = "NDArray[np.bool_]"

CHARACTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase
CAP = 64
"""Height of an H, in cells."""
CANVAS = 128
"""Side of a mask, in cells; the middle of an H's height and the middle of a glyph's ink lie at its centre."""

_CURVE_PIECES = 8
"""Lines that stand for one curve: at this size off by less than a tenth of a cell."""
_MOVE, _LINE, _CURVE, _CLOSE = 1, 2, 3, 79


def masks(face: str) -> Mask:
    """Return the masks of all characters in a face, (62, CANVAS, CANVAS), top row first.

    Raises:
        TaskDataError: matplotlib's folder of fonts lacks the face.
    """
    from matplotlib.ft2font import FT2Font

    font = FT2Font(str(file_of(face)))
    outlines = {character: _outline(font, character) for character in "H" + CHARACTERS}
    cap = max(point[1] for line in outlines["H"] for point in line)
    return np.stack([fill(outlines[character], CAP / cap) for character in CHARACTERS])


def file_of(face: str) -> Path:
    """Return the file of a face.

    Raises:
        TaskDataError: there is none.
    """
    import matplotlib as mpl

    file = Path(mpl.get_data_path(), "fonts", "ttf", f"{face}.ttf")
    if not file.is_file():
        raise TaskDataError(
            f"{file} is missing, from which characters are drawn: this matplotlib comes without its fonts;"
            " install matplotlib from PyPI"
        )
    return file


def digest(faces: tuple[str, ...]) -> str:
    """Return the sha256 of the faces' files, one after the other."""
    found = hashlib.sha256()
    for face in faces:
        found.update(file_of(face).read_bytes())
    return found.hexdigest()


def _outline(font: FT2Font, character: str) -> list[NDArray[np.float64]]:
    """Return closed lines of points (P, 2), x to the right and y upwards, in 1/64 font units."""
    from matplotlib.ft2font import LoadFlags

    font.load_char(ord(character), flags=LoadFlags.NO_SCALE)
    vertices, codes = font.get_path()
    lines: list[list[NDArray[np.float64]]] = []
    at = 0
    while at < len(codes):
        if codes[at] == _MOVE:
            lines.append([vertices[at]])
        elif codes[at] == _LINE:
            lines[-1].append(vertices[at])
        elif codes[at] == _CURVE:
            lines[-1] += curve(lines[-1][-1], vertices[at], vertices[at + 1])
            at += 1
        at += 1
    return [np.array(line) for line in lines]


def curve(
    start: NDArray[np.float64], control: NDArray[np.float64], end: NDArray[np.float64]
) -> Iterator[NDArray[np.float64]]:
    """Yield points of the curve (1-t)^2 start + 2 t (1-t) control + t^2 end, the end last."""
    for piece in range(1, _CURVE_PIECES + 1):
        t = piece / _CURVE_PIECES
        yield (1 - t) * (1 - t) * start + 2 * t * (1 - t) * control + t * t * end


def fill(outline: list[NDArray[np.float64]], scale: float) -> Mask:
    """Return which cells' centres lie inside an outline that is scaled and put on the canvas."""
    x_from = np.concatenate([line[:, 0] for line in outline]) * scale
    y_from = np.concatenate([line[:, 1] for line in outline]) * scale
    x_to = np.concatenate([np.roll(line[:, 0], -1) for line in outline]) * scale
    y_to = np.concatenate([np.roll(line[:, 1], -1) for line in outline]) * scale
    left = CANVAS / 2 - (x_from.min() + x_from.max()) / 2
    rows_R = CANVAS / 2 + CAP / 2 - 0.5 - np.arange(CANVAS)  # height of a row's centre above the baseline
    is_up_RP = (y_from <= rows_R[:, None]) & (rows_R[:, None] < y_to)
    is_down_RP = (y_to <= rows_R[:, None]) & (rows_R[:, None] < y_from)
    row, piece = np.nonzero(is_up_RP | is_down_RP)
    share = (rows_R[row] - y_from[piece]) / (y_to[piece] - y_from[piece])
    crossing = x_from[piece] + share * (x_to[piece] - x_from[piece]) + left
    # A crossing changes the winding number of every cell whose centre lies to its right.
    column = np.clip(np.ceil(crossing - 0.5), 0, CANVAS).astype(np.int64)
    change_RX = np.zeros((CANVAS, CANVAS + 1), dtype=np.int64)
    np.add.at(change_RX, (row, column), np.where(is_up_RP[row, piece], 1, -1))
    mask: Mask = change_RX.cumsum(axis=1)[:, :CANVAS] != 0
    return mask

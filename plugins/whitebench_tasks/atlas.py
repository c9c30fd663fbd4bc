"""Atlas: the masks of several faces as one table, in which the ink at any place of any glyph is looked up.

What a pixel sees of a glyph is the share of ink in a square of a pixel's size around its place, which is how a
camera sees an edge. The squares are summed once per face: a look-up is then one number from a table.

B batch, F faces, H height, W width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from whitebench_tasks.faces import CANVAS, CAP, CHARACTERS, masks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Floats: TypeAlias = "NDArray[np.float32]"
Whole: TypeAlias = "NDArray[np.int64]"


class Atlas:
    """All characters of some faces, for pixels of one size."""

    def __init__(self, faces: Sequence[str], cap: float) -> None:
        """Take the faces, and the height of an H in pixels."""
        self.faces = len(faces)
        self._cells = np.float32(CAP / cap)
        self._square = round(CAP / cap)
        sharp = [masks(face) for face in faces]
        self.width = np.stack([mask.any(axis=1).sum(axis=1) for mask in sharp]).astype(np.float32) / self._cells
        """(F, 62), how wide each glyph's ink is, in pixels."""
        self._ink = np.stack([count_around(mask, self._square) for mask in sharp]).reshape(-1)

    def look(self, face_B: Whole, character_B: Whole, x_BHW: Floats, y_BHW: Floats) -> Floats:
        """Return the ink, in [0, 1], at places in pixels to the right of and below a glyph's centre, (B, H, W)."""
        column = np.clip(x_BHW * self._cells + np.float32(CANVAS / 2), 0, CANVAS - 1).astype(np.int32)
        row = np.clip(y_BHW * self._cells + np.float32(CANVAS / 2), 0, CANVAS - 1).astype(np.int32)
        glyph_B = (face_B * len(CHARACTERS) + character_B).astype(np.int32)
        count_BHW: NDArray[np.uint8] = self._ink[(glyph_B[:, None, None] * CANVAS + row) * CANVAS + column]
        ink_BHW: Floats = count_BHW.astype(np.float32) / np.float32(self._square**2)
        return ink_BHW


def count_around(masks: NDArray[np.bool_], width: int) -> NDArray[np.uint8]:
    """Return for each cell of masks (..., H, W) how many are ink in the square of `width` cells around it.

    A square of even width reaches one cell further up and to the left; beyond the mask there is no ink. The width
    is 15 at most, so that a byte holds the number.
    """
    before = width // 2 + 1  # the sum to a row takes that row in: one row of zeros stands before the first
    edge = [(0, 0)] * (masks.ndim - 2) + [(before, width - before)] * 2
    total = np.pad(masks, edge).cumsum(axis=-2, dtype=np.int32).cumsum(axis=-1, dtype=np.int32)
    rows = total[..., width:, :] - total[..., :-width, :]
    count: NDArray[np.uint8] = (rows[..., width:] - rows[..., :-width]).astype(np.uint8)
    return count

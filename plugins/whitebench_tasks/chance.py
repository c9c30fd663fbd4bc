"""Chance: random numbers that are the same on every machine and with every version of numpy.

Philox 4x64 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011) is fixed by its paper, and
numpy promises its raw stream (NEP 19: bit generators keep theirs; what `Generator` makes of one may change). A
stream is named by a text whose sha256 is the key. Rows are drawn in order, so that the first n rows of a longer
table are the table of n rows.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Stream:
    """An endless row of numbers that its name alone decides."""

    def __init__(self, name: str) -> None:
        self._bits = np.random.Philox(key=int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little"))

    def uniform(self, rows: int, columns: int) -> NDArray[np.float64]:
        """Draw the next (rows, columns) numbers, multiples of 2^-53 in [0, 1)."""
        words: NDArray[np.uint64] = self._bits.random_raw(rows * columns)
        return (words >> np.uint64(11)).astype(np.float64).reshape(rows, columns) * 2.0**-53

    def bytes(self, rows: int, columns: int) -> NDArray[np.uint8]:
        """Draw the next (rows, columns) whole numbers in [0, 256); `columns` is a multiple of 8."""
        return (
            self._bits.random_raw(rows * columns // 8).astype("<u8", copy=False).view(np.uint8).reshape(rows, columns)
        )

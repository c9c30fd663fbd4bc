"""Normal: standard normal numbers out of a stream's even ones (Box and Muller 1958).

    sqrt(-2 log(1 - u)) cos(2 pi v)

The same on every machine but for the last digits of a logarithm, a square root and a cosine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from whitebench_tasks.chance import Stream


def normal(stream: Stream, rows: int, columns: int) -> NDArray[np.float64]:
    """Draw (rows, columns) numbers, from the next twice as many of `stream`."""
    radius, angle = stream.uniform(2, rows * columns)
    drawn: NDArray[np.float64] = np.sqrt(-2 * np.log1p(-radius)) * np.cos(2 * np.pi * angle)
    return drawn.reshape(rows, columns)

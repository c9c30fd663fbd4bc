"""Frames: orthonormal bases of subspaces of which any two are at the same angle, in every direction.

With frames C and V_1 .. V_K that are orthonormal and orthogonal to each other,

    U_j = sqrt(cos angle) C + sqrt(1 - cos angle) V_j,     U_i^T U_j = cos(angle) I.

P pixels, R dimensions of a subspace, K subspaces, X directions drawn.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from whitebench_tasks.chance import Stream
from whitebench_tasks.normal import normal


@lru_cache(maxsize=4)
def equiangular_frames(name: str, *, count: int, pixels: int, dim: int, angle: float) -> NDArray[np.float64]:
    """Return the frames of `count` subspaces that the stream called `name` decides, (K, P, R); `angle` in degrees."""
    drawn_PX = normal(Stream(name), pixels, min((count + 1) * dim, pixels))
    q_PX, r_XX = np.linalg.qr(drawn_PX)
    basis_PX = q_PX * np.sign(np.diag(r_XX))  # which sign is free, and libraries choose it differently
    parts = [basis_PX[:, j * dim : (j + 1) * dim] for j in range(count + 1)]
    shared = math.cos(math.radians(angle)) if angle < 90 else 0.0
    own, common = parts[:count], parts[count]
    return np.stack([math.sqrt(1 - shared) * one + (math.sqrt(shared) * common if shared else 0) for one in own])

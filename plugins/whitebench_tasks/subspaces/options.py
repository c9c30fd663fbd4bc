"""What the subspaces are, what lies in them, and how many samples there are."""

from __future__ import annotations

import math
from dataclasses import dataclass

from whitebench import WhitebenchError

CLASSES = 10
TOKEN_SUBSPACES = 5
"""Whose pairs are the ten classes."""


@dataclass(frozen=True, kw_only=True)
class SubspacesOptions:
    """The subspaces, and how many samples lie in them."""

    side: int = 8
    """Of an image, in pixels."""
    tokens: int = 1
    """Square patches of an image that lie in a subspace each, a square number of them; 1 is the image as a whole."""
    dim: int = 4
    """Dimensions of each subspace."""
    angle: float = 90.0
    """Between any two of them, in degrees: every principal angle."""
    noise: float = 0.1
    """Its length, as a share of the signal's."""
    train: int = 2000
    validation: int = 1000
    test: int = 2000
    seed: int = 0
    """Of everything random in the data."""

    def __post_init__(self) -> None:
        for name in ("side", "tokens", "dim", "train", "validation", "test"):
            least = CLASSES if name in ("train", "validation", "test") else 1
            if getattr(self, name) < least:
                raise WhitebenchError(f"subspaces[{name}={getattr(self, name)}]: it must be {least} or more")
        if self.grid**2 != self.tokens:
            raise WhitebenchError(
                f"subspaces[tokens={self.tokens}]: the patches are as many across as down; choose "
                f"tokens={self.grid**2} or tokens={(self.grid + 1) ** 2}"
            )
        if self.side % self.grid:
            raise WhitebenchError(
                f"subspaces[side={self.side},tokens={self.tokens}]: {self.side} pixels do not divide into {self.grid} "
                f"patches; choose a multiple of {self.grid}, e.g. side={-(-self.side // self.grid) * self.grid}"
            )
        if not 0 < self.angle <= 90:
            raise WhitebenchError(
                f"subspaces[angle={self.angle}]: an angle between subspaces lies above 0 and up to 90"
            )
        if self.noise < 0 or self.seed < 0:
            raise WhitebenchError(f"subspaces: noise={self.noise} and seed={self.seed} must be 0 or more")
        frames = self.subspaces + (self.angle < 90)
        if frames * self.dim > self.patch**2:
            most = self.patch**2 // frames
            mend = f"dim={most} or less, or a larger side" if most else "a larger side"
            raise WhitebenchError(
                f"subspaces[dim={self.dim}]: {frames} frames of {self.dim} directions do not fit into {self.patch**2} "
                f"pixels{'' if self.tokens == 1 else ' of a patch'}; choose {mend}"
            )

    @property
    def grid(self) -> int:
        """Patches across an image, and down."""
        return math.isqrt(self.tokens)

    @property
    def patch(self) -> int:
        """Side in pixels of what lies in one subspace."""
        return self.side // self.grid

    @property
    def subspaces(self) -> int:
        """How many there are."""
        return CLASSES if self.tokens == 1 else TOKEN_SUBSPACES

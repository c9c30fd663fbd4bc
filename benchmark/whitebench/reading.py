"""What a metric reads off a network: a number with what is needed to judge it, and what it is to be drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

Direction: TypeAlias = Literal["higher", "lower", "none"]
"""Which way is better; `none` where neither is."""

PictureKind: TypeAlias = Literal["lines", "histogram", "matrix", "paths"]
"""How a picture's series are drawn:

lines       each (L,) over the layers 1 .. L, or (L, 2), abscissa first
histogram   each (n,) raw values, all in the same bins
matrix      each (n, m), side by side on one scale
paths       each (points, 2), a way through the plane from its first point to its last; rows of NaN part it into
            several, and a way of a single point is a star
"""


@dataclass(kw_only=True)  # not frozen: torchmetrics takes what `compute` returns apart and sets it anew
class Picture:
    """What a reading is to be drawn from: arrays that the store keeps, and what their axes are."""

    kind: PictureKind
    title: str
    x: str
    """What the abscissa is, with its unit."""
    y: str
    """What the ordinate is, with its unit; of a matrix, what its rows are."""
    series: Mapping[str, Tensor]
    """The arrays by what they are called in the legend."""


@dataclass(kw_only=True)
class Reading:
    """One number, or one number per layer, that a metric's `compute` returns with what it needs to be read."""

    value: float | None
    """The headline; None with a reason in `unscored`."""
    profile: Sequence[float] = ()
    """One number per layer, first layer first."""
    nulls: Mapping[str, float] = field(default_factory=dict)
    """The same number where the claim cannot hold, by the null's name, e.g. `{"random tokens": 0.83}`."""
    null_profiles: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """The same per layer."""
    spread: Sequence[float] = ()
    """Per layer, the unbiased standard deviation over samples."""
    direction: Direction | None = None
    """The metric's own where not given."""
    unit: str | None = None
    """The metric's own where not given."""
    unscored: str | None = None
    """Why there is no value."""
    pictures: Mapping[str, Picture] = field(default_factory=dict)
    """What it is to be drawn from, by a name of lower-case letters, digits and `-`."""

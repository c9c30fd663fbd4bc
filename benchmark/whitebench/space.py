"""Where one hyperparameter may lie: a range or a choice, and the way from a share in [0, 1] to a value in it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, kw_only=True)
class FloatRange:
    """Real numbers from `low` to `high`, spread evenly or, with `log`, evenly in their logarithm."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        _check_range(self.low, self.high, log=self.log)

    def at(self, share: float) -> float:
        """Return the value `share` of the way along, for a share in [0, 1]."""
        if not self.log:
            return min(self.low + share * (self.high - self.low), self.high)
        low, high = math.log(self.low), math.log(self.high)
        # exp(log(x)) may miss x by its last digit, and a value outside its range is refused downstream.
        return min(max(math.exp(low + share * (high - low)), self.low), self.high)

    def share_of(self, value: float) -> float:
        """Return how far along `value` lies, in [0, 1]: the inverse of `at`."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True, kw_only=True)
class IntRange:
    """Whole numbers from `low` to `high`, both included, spread evenly or, with `log`, evenly in their logarithm."""

    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        ends: tuple[object, ...] = (self.low, self.high)
        if not all(isinstance(end, int) for end in ends):
            raise ValueError(f"a range of whole numbers needs whole ends, got low={self.low!r}, high={self.high!r}")
        _check_range(self.low, self.high, log=self.log)

    def at(self, share: float) -> int:
        """Return the value `share` of the way along, for a share in [0, 1]: n owns the stretch from n to n + 1."""
        edges = FloatRange(low=self.low, high=self.high + 1, log=self.log)
        return min(int(edges.at(share)), self.high)

    def share_of(self, value: int) -> float:
        """Return how far along `value` lies: 0 for the lowest, 1 for the highest."""
        return FloatRange(low=self.low, high=self.high, log=self.log).share_of(value)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One of several values without an order."""

    options: tuple[float | int | str, ...]

    def __post_init__(self) -> None:
        if len(set(self.options)) != len(self.options) or len(self.options) < 2:
            raise ValueError(f"a choice needs two or more different options, got {self.options!r}")

    def at(self, share: float) -> float | int | str:
        """Return the option `share` of the way along; each has an equal part."""
        return self.options[min(int(share * len(self.options)), len(self.options) - 1)]


Space: TypeAlias = FloatRange | IntRange | Choice
"""Where one hyperparameter may lie."""


def _check_range(low: float, high: float, *, log: bool) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"a range needs low < high, got low={low!r}, high={high!r}")
    if log and low <= 0:
        raise ValueError(f"a logarithmic range needs low > 0, got low={low!r}")

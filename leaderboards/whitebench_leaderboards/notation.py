"""How a number is written: no more digits than its interval justifies, units that people read."""

from __future__ import annotations

import math
from dataclasses import dataclass

from whitebench.reading import Direction

ARROWS: dict[Direction, str] = {"higher": "↑", "lower": "↓", "none": ""}
MINUS = "−"

SHARE = "share"
"""The unit of a score in [0, 1] that people read as percent."""
_MOST_DECIMALS = 6
_PREFIXES = ("", "k", "M", "G", "T", "P", "E")
_BYTES = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A number in writing, with its half width where there is one."""

    mean: str
    half_width: str | None = None
    exponent: int | None = None
    """The power of ten that both are to be multiplied by, for the very large and the very small."""
    unit: str = ""
    """A unit that stands behind the number, because its column has none of its own."""

    def __str__(self) -> str:
        both = self.mean if self.half_width is None else f"{self.mean} ± {self.half_width}"
        if self.exponent is not None:
            both = f"({both})e{self.exponent}" if self.half_width is not None else f"{both}e{self.exponent}"
        return f"{both} {self.unit}" if self.unit else both


def plus_minus(mean: float, half_width: float | None, *, is_signed: bool = False) -> Quantity:
    """Write `mean ± half_width`, both to the second significant digit of the half width.

    Without a half width three significant digits stand. A wide interval cuts no mean below two digits.
    """
    largest = max(abs(mean), half_width or 0.0)
    if largest and not 1e-4 <= largest < 1e6:
        exponent = _exponent(largest, 3)
        scale = 10.0**-exponent
        small = plus_minus(mean * scale, None if half_width is None else half_width * scale, is_signed=is_signed)
        return Quantity(mean=small.mean, half_width=small.half_width, exponent=exponent)
    if half_width:
        decimals = 1 - _exponent(half_width, 2)
        if decimals < 0:
            decimals = max(decimals, min(0, 1 - _exponent(mean, 2)))
    else:
        decimals = 2 - _exponent(mean, 3) if mean else 0
        decimals = max(decimals, 0)
    decimals = min(decimals, _MOST_DECIMALS)
    return Quantity(
        mean=_fixed(mean, decimals, is_signed=is_signed),
        half_width=None if half_width is None else _half_width(half_width, decimals),
    )


def percent(mean: float, half_width: float | None, *, is_signed: bool = False) -> Quantity:
    """Write shares as percent, without an interval to one decimal."""
    if half_width is None:
        return Quantity(mean=_fixed(100 * mean, 1, is_signed=is_signed))
    return plus_minus(100 * mean, 100 * half_width, is_signed=is_signed)


def human(value: float, unit: str) -> Quantity:
    """Write a cost to three digits: `41.2 k`, `84.0 MiB`, `12.3 s`, `4.20 min`."""
    if unit == "bytes":
        scaled, prefix = _scaled(value, 1024.0, _BYTES)
        return Quantity(mean=_three_digits(scaled), unit=prefix)
    if unit == "s":
        return _duration(value)
    scaled, prefix = _scaled(value, 1000.0, _PREFIXES)
    return Quantity(mean=_three_digits(scaled), unit=prefix)


def has_own_unit(unit: str) -> bool:
    """Return whether `human` writes the unit behind each number, so that the column's head needs none."""
    return unit in {"bytes", "s"}


def plain(text: str) -> str:
    """Return `text` on one line without control characters: names and reasons come from strangers."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _duration(seconds: float) -> Quantity:
    if 0 < abs(seconds) < 0.9995:
        return Quantity(mean=_three_digits(seconds * 1000), unit="ms")
    for size, unit in ((1.0, "s"), (60.0, "min")):
        if abs(seconds) / size < 99.95:
            return Quantity(mean=_three_digits(seconds / size), unit=unit)
    return Quantity(mean=_three_digits(seconds / 3600), unit="h")


def _scaled(value: float, step: float, prefixes: tuple[str, ...]) -> tuple[float, str]:
    for prefix in prefixes[:-1]:
        if abs(value) < min(999.5, step):
            return value, prefix
        value /= step
    return value, prefixes[-1]


def _three_digits(value: float) -> str:
    if value == int(value) and abs(value) < 1000:
        return _fixed(value, 0)
    return _fixed(value, min(max(2 - _exponent(value, 3), 0), 3))


def _exponent(value: float, digits: int) -> int:
    """Return the power of ten of the first digit after rounding to `digits` digits, so that 9.96 counts as 10."""
    return int(f"{abs(value):.{digits - 1}e}".partition("e")[2])


def _fixed(value: float, decimals: int, *, is_signed: bool = False) -> str:
    text = f"{abs(round(value, decimals)):.{max(decimals, 0)}f}"
    is_zero = not float(text)
    sign = MINUS if value < 0 and not is_zero else "+" if is_signed and not is_zero else ""
    return sign + text


def _half_width(half_width: float, decimals: int) -> str:
    if 0 < half_width < 0.5 * 10.0**-decimals or not math.isfinite(half_width):
        return f"{half_width:.1e}"
    return _fixed(half_width, decimals)

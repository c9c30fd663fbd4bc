"""An entry's interval and seeds as a strip: where on the scale of its task they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from whitebench_leaderboards.entry import Entry

WIDTH = 160.0
"""Of a strip, in the units in which its places are said."""
MARGIN = 6.0
"""Left and right of the outermost place."""


@dataclass(frozen=True, kw_only=True)
class Strip:
    """One entry on its task's scale, from 0 to WIDTH."""

    mean: float
    interval: tuple[float, float] | None
    """None where there is none."""
    seeds: tuple[tuple[int, float], ...]
    """Each seed's place."""


def strips_of(entries: Sequence[Entry]) -> list[Strip | None]:
    """Return a strip for each of a task's entries, all on one scale; None for one without a number."""
    places = [place for entry in entries for place in _extent(entry)]
    low, high = (min(places), max(places)) if places else (0.0, 0.0)
    stretch = (WIDTH - 2 * MARGIN) / (high - low) if high > low else 0.0

    def at(value: float) -> float:
        return round(MARGIN + (value - low) * stretch if stretch else WIDTH / 2, 1)

    strips: list[Strip | None] = []
    for entry in entries:
        mean, half_width = entry.primary.estimate.mean, entry.primary.estimate.half_width
        if mean is None:
            strips.append(None)
            continue
        interval = None if half_width is None else (at(mean - half_width), at(mean + half_width))
        seeds = tuple((seed, at(value)) for seed, value in entry.primary.values.items())
        strips.append(Strip(mean=at(mean), interval=interval, seeds=seeds))
    return strips


def _extent(entry: Entry) -> list[float]:
    mean, half_width = entry.primary.estimate.mean, entry.primary.estimate.half_width or 0.0
    return [] if mean is None else [mean - half_width, mean + half_width, *entry.primary.values.values()]

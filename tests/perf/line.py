"""Two things measured in turns: what a line of `make perf` says of them, and how it comes to be printed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, kw_only=True)
class Line:
    """Two things measured in turns, and what their ratio should be."""

    what: str
    aim: float | None
    """None where the ratio is there to be looked at, and none is wanted."""
    is_least: bool = False
    """Whether the aim is the least that the ratio should be, not the most."""
    first: Sequence[float]
    second: Sequence[float]
    """The ratio is first to second."""
    unit: str = "s"
    note: str = ""

    @property
    def ratio(self) -> float:
        """The ratio of the medians."""
        return statistics.median(self.first) / statistics.median(self.second)

    def __str__(self) -> str:
        figures = f"{self._spread(self.first)} / {self._spread(self.second)}"
        return f"{self.what}\n    {self.ratio:.3f}{self._verdict()}  {figures}{self.note}"

    def _verdict(self) -> str:
        if self.aim is None:
            return ""
        is_met = self.ratio >= self.aim if self.is_least else self.ratio <= self.aim
        return f"  (aim {'≥' if self.is_least else '≤'} {self.aim:g}){'' if is_met else '  NOT MET'}"

    def _spread(self, values: Sequence[float]) -> str:
        middle = f"{statistics.median(values):.3g} {self.unit}"
        return middle if len(values) == 1 else f"{middle} ({min(values):.3g} to {max(values):.3g}, {len(values)} times)"


def print_each(measures: Iterable[Callable[[], Sequence[Line | str]]]) -> None:
    """Measure one after the other, and print what each gives as soon as it is known, with how busy the machine was."""
    for measure in measures:
        busy, began = psutil.cpu_percent(interval=0.5), time.monotonic()
        lines = measure()
        print(*lines, sep="\n")
        seconds = time.monotonic() - began
        print(f"    measured in {seconds:.0f} s; others kept {busy:.0f} % of the cores busy before\n", flush=True)


def in_turns(times: int, *measures: Callable[[], float]) -> list[list[float]]:
    """Return what each gives, measured in turns."""
    rounds = [[measure() for measure in measures] for _ in range(times)]
    return [list(values) for values in zip(*rounds, strict=True)]

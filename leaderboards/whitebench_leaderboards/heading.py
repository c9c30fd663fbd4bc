"""What stands above a board's rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from whitebench.ledger import Published
from whitebench.reading import Direction


@dataclass(frozen=True, kw_only=True)
class Heading:
    """What stands above the rows: which suite, ranked by what, under which budget."""

    suite: str
    version: int | str
    summary: str
    primary: str
    """The name of the score that ranks."""
    direction: Direction
    unit: str
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    epochs: int
    trials: int
    batch_size: int
    precision: str
    threads: int
    is_solved: bool = False
    """Whether the tasks solve themselves: a seed is then a block of draws, and nothing is trained."""
    source: str = ""
    """The suite as it was asked for, its name or its file: what a command that is suggested must say."""
    sizes: str = ""
    """How large everybody is where that is the same, and by which widths, in words."""
    published: tuple[Published, ...] = ()
    """What papers state for these tasks: shown below the rows, unranked."""
    noise_floor: Mapping[str, float] = field(default_factory=dict)
    """By score, how much one cell differs from itself; empty where the suite was not calibrated."""
    overrides: tuple[str, ...] = ()
    """What was changed on the command line, e.g. `budget.epochs=3`: makes it another suite."""

    def is_noise(self, difference: float) -> bool:
        """Return whether a difference in the primary metric is smaller than one cell's from itself."""
        return self.primary in self.noise_floor and abs(difference) < self.noise_floor[self.primary]

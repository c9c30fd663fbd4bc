"""What stands above a board's rows."""

from __future__ import annotations

from dataclasses import dataclass

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
    published: tuple[Published, ...] = ()
    """What papers state for these tasks: shown below the rows, unranked."""
    overrides: tuple[str, ...] = ()
    """What was changed on the command line, e.g. `budget.epochs=3`: makes it another suite."""

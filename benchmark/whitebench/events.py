"""What happens while a suite runs, told to the screen, to the log and to every plugin that observes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

FitPurpose: TypeAlias = Literal["trial", "cell", "recount"]
"""A tuning trial; a cell's own fit; a finished cell of which only the scores are counted again."""


@dataclass(frozen=True, kw_only=True)
class SuiteStarted:
    """A `run` has planned its work."""

    suite: str
    cells: tuple[str, ...]
    """Names of the cells still to do, `SUITE/CONTESTANT/TASK/SEED`."""
    done: tuple[str, ...]
    """Names of the cells that the store already holds."""
    failed: tuple[str, ...] = ()
    """Names of the cells that failed earlier and are left alone."""
    trials_owed: Mapping[str, int]
    """How many tuning trials are still to run, by `SUITE/CONTESTANT/TASK`."""


@dataclass(frozen=True, kw_only=True)
class FitStarted:
    """A fit has been handed to its launcher: a tuning trial, or the fit of a cell."""

    fit: str
    """`SUITE/CONTESTANT/TASK/trial-2` or a cell's name."""
    purpose: FitPurpose
    pid: int | None
    """None where that process is not on the conductor's machine."""


@dataclass(frozen=True, kw_only=True)
class FitLost:
    """What a fit ran on is gone: it is started again from its beginning."""

    fit: str
    purpose: FitPurpose
    reason: str


@dataclass(frozen=True, kw_only=True)
class EpochEnded:
    """One epoch of a fit has been trained and validated."""

    fit: str
    purpose: FitPurpose
    epoch: int
    """Counted from 1."""
    epochs: int
    validation: float
    """The suite's primary metric on the validation split."""
    train_loss: float
    """Mean over the epoch's steps, the model's penalty included."""
    validation_loss: float
    """Mean over samples, against hard labels and without penalty."""
    learning_rate: float
    """What the next step would take: zero after the last epoch of a cosine."""
    gradient_norm: float
    """Mean over the epoch's steps of the global norm before clipping."""
    seconds: float
    """Wall time of the epoch's training, validation left out."""


@dataclass(frozen=True, kw_only=True)
class TestOpened:
    """A cell's fit is done, its choice is stored, and the test split is being read."""

    cell: str
    openings: int
    """How often this contestant's test split of this task has been opened in the whole store."""


@dataclass(frozen=True, kw_only=True)
class TrialEnded:
    """A tuning trial has ended."""

    fit: str
    state: Literal["complete", "pruned", "failed"]
    validation: float | None
    reason: str = ""
    is_elsewhere: bool = False
    """Whether another conductor ran it."""


@dataclass(frozen=True, kw_only=True)
class CellFinished:
    """A cell's result is in the store."""

    cell: str
    primary: float | None
    """The suite's primary metric on the test split."""
    run_id: str
    complaints: tuple[str, ...] = ()
    """Metrics that raised, each with what it said."""
    is_elsewhere: bool = False
    """Whether another conductor, or an earlier life of this one, fitted it."""


@dataclass(frozen=True, kw_only=True)
class CellFailed:
    """A cell yielded nothing; the suite goes on."""

    cell: str
    kind: str
    message: str
    is_elsewhere: bool = False
    """Whether another conductor ran it."""


@dataclass(frozen=True, kw_only=True)
class CellHeld:
    """Another conductor is at work on a cell of this one's."""

    cell: str
    by: str
    """`process 4711 on HOST`."""


@dataclass(frozen=True, kw_only=True)
class SuiteEnded:
    """A `run` has nothing left to do, or was interrupted."""

    suite: str
    finished: int
    failed: int
    is_interrupted: bool
    seconds: float
    elsewhere: int = 0
    """Cells that another conductor finished in the meantime."""
    is_cut_short: bool = False
    """Whether so many cells failed that it was given up."""


Event: TypeAlias = (
    SuiteStarted
    | FitStarted
    | FitLost
    | EpochEnded
    | TrialEnded
    | TestOpened
    | CellHeld
    | CellFinished
    | CellFailed
    | SuiteEnded
)

"""What the API answers, field by field: the JSON of `whitebench board --json`, and what belongs to one cell."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from whitebench.reading import Direction
from whitebench.result import CellState


class Reply(BaseModel):
    """Anything that is answered; what a later version adds is kept."""

    model_config = ConfigDict(extra="allow", from_attributes=True)


class ProgressReply(Reply):
    """A contestant's tuning on a task that is under way."""

    contestant: str
    task: str
    ended: int = Field(description="Trials that are complete, pruned or failed.")
    allowed: int = Field(description="Trials that there are to be.")


class SuiteReply(Reply):
    """A board that can be asked for."""

    suite: str
    overrides: str = Field(description="As one text; empty for the suite as it stands.")
    summary: str
    is_known: bool = Field(description="Whether its plan is known, so that its board can be asked for.")
    is_stored: bool = Field(description="Whether the store has cells of it, or is to have soon.")
    tuning: list[ProgressReply] = Field(description="What is under way of it.")


class HeadingReply(Reply):
    """What stands above a board's rows."""

    suite: str
    version: int | str
    summary: str
    primary: str = Field(description="The name of the score that ranks.")
    direction: Direction
    unit: str
    tasks: list[str]
    seeds: list[int]


class SummaryReply(Reply):
    """A score or cost over an entry's seeds; a number that is not there is null beside its reason."""

    name: str
    direction: Direction
    unit: str
    mean: float | None
    half_width: float | None = Field(description="Half the Student-t interval.")
    n: int
    reason: str | None
    values: dict[str, float] = Field(description="By seed.")
    unscored: dict[str, str] = Field(description="By seed, why there is no value.")


class EntryCellReply(Reply):
    """One seed of an entry."""

    name: str
    seed: int
    state: CellState
    reason: str
    value: float | None
    run_id: str | None


class EntryReply(Reply):
    """A contestant's row on one task."""

    contestant: str
    task: str
    rank: tuple[int, int] | None = Field(description="The best and the worst rank that the data allow.")
    unranked: str | None
    is_leader: bool
    is_tied: bool = Field(description="Whether the data do not tell it from the best.")
    p_best: float | None
    is_guest: bool
    is_stale: bool
    flags: list[str]
    primary: SummaryReply
    scores: list[SummaryReply]
    costs: list[SummaryReply]
    validation: SummaryReply
    cells: list[EntryCellReply]


class ComparisonReply(Reply):
    """Two ranked entries of one task, first minus second."""

    task: str
    first: str
    second: str
    value: float | None
    smallest: float | None = Field(description="The smallest difference that the data can show.")
    seeds: int
    samples: int
    p_value: float | None
    reason: str
    is_shown: bool


class BoardReply(Reply):
    """A suite's board, as `whitebench board --json` prints it."""

    format: int
    suite: HeadingReply
    confidence: float
    entries: list[EntryReply]
    comparisons: list[ComparisonReply]


class CellReply(Reply):
    """One cell with everything that was stored of it."""

    cell: str
    state: CellState
    reason: str
    run_id: str | None
    is_guest: bool
    result: dict[str, Any] | None = Field(description="As in result.json; null where it has none.")
    curves: dict[str, list[tuple[int, float]]] = Field(description="Epochs and values by the curve's name.")


class ErrorReply(BaseModel):
    """Why there is no answer."""

    detail: str

"""A contestant's row on one task: its cells gathered over seeds, before anybody ranks it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np

from whitebench.reading import Direction
from whitebench.result import CellRecord, CellState, Result, Score
from whitebench.verification import Verification
from whitebench_leaderboards.heading import Heading
from whitebench_leaderboards.statistics import Estimate, Outcome, estimate


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A score or cost over an entry's seeds; its estimates are made when they are asked for."""

    name: str
    direction: Direction
    unit: str
    values: Mapping[int, float]
    """By seed."""
    unscored: Mapping[int, str]
    """By seed, why there is no value."""
    null_values: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """What it comes to where its claim cannot hold, by the null's name, for the seeds that have it."""
    confidence: float
    """Of the intervals."""

    @cached_property
    def estimate(self) -> Estimate:
        """Return the mean of its values with its interval."""
        return estimate(tuple(self.values.values()), confidence=self.confidence)

    @cached_property
    def nulls(self) -> Mapping[str, Estimate]:
        """Return the same of each null."""
        return {null: estimate(values, confidence=self.confidence) for null, values in self.null_values.items()}


@dataclass(frozen=True, kw_only=True)
class EntryCell:
    """One seed of an entry."""

    name: str
    """`SUITE/CONTESTANT/TASK/SEED`."""
    seed: int
    state: CellState
    reason: str
    value: float | None
    """The primary metric, of a stale cell too."""
    run_id: str | None
    """The MLflow run the seed's numbers come from."""
    verification: Verification | None = None
    """What came of computing its scores again; None where nobody has."""


Verified: TypeAlias = Literal["as reported", "recomputed", "reproduced", "differs"]
"""What is known of an entry's scores since they were reported."""

STRENGTH: Sequence[Verified] = ("differs", "as reported", "recomputed", "reproduced")
"""The weakest first."""


@dataclass(frozen=True, kw_only=True)
class Spent:
    """How much of the budget an entry used."""

    trials: int
    """Complete, pruned and failed."""
    trials_pruned: int
    trials_failed: int
    trials_allowed: int
    epochs: tuple[int, int]
    """First and last epoch that was tested, over the seeds."""
    epochs_allowed: int
    is_solved: bool = False
    """Whether the task solved itself: there was nothing to train or tune."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A contestant's row on one task, over its seeds."""

    contestant: str
    task: str
    is_guest: bool
    is_trained_elsewhere: bool
    """Whether it was scored with weights from a file, as they are."""
    is_stale: bool
    """Whether its numbers come from stale cells, because it has no others."""
    cells: tuple[EntryCell, ...]
    primary: Summary
    validation: Summary
    spent: Spent | None
    choice: str
    """sha256 of the hyperparameters; empty where there is no result, or seeds differ."""
    edges: tuple[str, ...]
    """Hyperparameters whose choice lies on the edge of its space."""
    test_samples: int
    test_openings: int
    machines: tuple[str, ...]
    """The device, and how many fits shared it, of each seed; more than one where they differ."""
    ended: str
    """When its last cell was done: UTC, ISO 8601; empty where none is."""
    unranked: str
    """Why it has no rank; empty where it has one."""
    verified: Verified = "as reported"
    """The weakest over the seeds its numbers come from."""
    rank: tuple[int, int] | None = None
    """The best and the worst rank that the data allow."""
    is_leader: bool = False
    """Whether its mean is the best of the ranked entries of its task."""
    p_best: float | None = None
    """How likely the data would look so much worse than somebody's if it were the best, corrected by Holm."""
    seeds_planned: int
    results: Mapping[int, Result] = field(repr=False)
    """What its numbers come from, by seed."""

    @cached_property
    def scores(self) -> tuple[Summary, ...]:
        """Return every score but the primary one; made when they are asked for, as the costs are."""
        names = distinct(score.name for result in self.results.values() for score in result.scores)
        return tuple(self._summary(name) for name in names if name != self.primary.name)

    @cached_property
    def costs(self) -> tuple[Summary, ...]:
        """Return what it cost."""
        names = distinct(cost.name for result in self.results.values() for cost in result.costs)
        return tuple(self._summary(name) for name in names)

    def _summary(self, name: str) -> Summary:
        return _summary(name, self.results, self.primary.confidence)

    @property
    def is_tied(self) -> bool:
        """Return whether it is not distinguishable from the best, without having the best mean."""
        return self.rank is not None and self.rank[0] == 1 and not self.is_leader

    @property
    def run_ids(self) -> dict[int, str]:
        """Return the MLflow run of each seed that has one."""
        return {cell.seed: cell.run_id for cell in self.cells if cell.run_id}

    @property
    def flags(self) -> tuple[str, ...]:
        """Return what a reader should know before trusting the row."""
        flags = []
        if self.is_guest:
            flags.append("guest: added on the command line, not in the suite's file")
        if self.is_trained_elsewhere:
            flags.append("trained elsewhere: scored with the weights of a file, as they are")
        if self.is_stale:
            reasons = distinct(cell.reason for cell in self.cells if cell.state == "stale" and cell.reason)
            flags.append(": ".join(["stale and unranked, numbers from before a change", *reasons]))
        if self.edges:
            flags.append(f"chosen on the edge of its space, the optimum may lie outside: {', '.join(self.edges)}")
        if self.test_openings > self.seeds_planned:
            flags.append(f"test split opened {self.test_openings} times in this store for {self.seeds_planned} seeds")
        if len(self.machines) > 1:
            flags.append(f"its seeds ran under different conditions: {'; '.join(self.machines)}")
        differing = [str(cell.seed) for cell in self.cells if cell.verification and cell.verification.differences]
        if differing:
            seeds = f"{'seed' if len(differing) == 1 else 'seeds'} {', '.join(differing)}"
            flags.append(f"computed again, scores of {seeds} are not those reported")
        flags += distinct(cell.reason for cell in self.cells if cell.state == "finished" and cell.reason)
        return tuple(flags)


def make_entry(records: Sequence[CellRecord], heading: Heading, confidence: float) -> Entry:
    """Return one contestant's row, not yet ranked: over its finished cells, or over stale ones if it has no others."""
    finished = [record for record in records if record.state == "finished" and record.result]
    stale = [record for record in records if record.state == "stale" and record.result]
    results = {record.cell.seed: record.result for record in finished or stale if record.result}
    primary = _summary(heading.primary, results, confidence, heading.direction, heading.unit)
    validation = {seed: result.validation for seed, result in results.items()}
    return Entry(
        contestant=records[0].cell.contestant,
        task=records[0].cell.task,
        is_guest=any(record.is_guest for record in records),
        is_trained_elsewhere=any(record.is_trained_elsewhere for record in records),
        is_stale=bool(stale) and not finished,
        cells=tuple(_cell(record, heading.primary) for record in records),
        primary=primary,
        validation=Summary(
            name="validation",
            direction=heading.direction,
            unit=heading.unit,
            values={seed: v for seed, v in validation.items() if v is not None},
            unscored={
                seed: "no validation split"
                for seed, v in validation.items()
                if v is None and not results[seed].is_solved
            },
            confidence=confidence,
        ),
        spent=_spent(list(results.values())),
        choice=_only(result.chosen.digest for result in results.values()),
        edges=distinct(edge for result in results.values() for edge in result.chosen.edges),
        test_samples=max((result.test_samples for result in results.values()), default=0),
        test_openings=max((record.test_openings for record in records), default=0),
        machines=distinct(_machine(result) for result in results.values()),
        ended=max((one.provenance.ended or one.provenance.started for one in results.values()), default=""),
        verified=_verified(finished or stale),
        unranked=_why_unranked(finished, stale, primary, heading),
        seeds_planned=len(heading.seeds),
        results=results,
    )


def _machine(result: Result) -> str:
    source = result.provenance
    several = f", {source.devices} devices" if source.devices > 1 else ""
    return f"{source.device}{several}, {source.parallel} {'fit' if source.parallel == 1 else 'fits'} at a time"


def _verified(records: Sequence[CellRecord]) -> Verified:
    found: list[Verified] = [one.verification.standing if one.verification else "as reported" for one in records]
    return min(found, key=STRENGTH.index, default="as reported")


def _why_unranked(
    finished: Sequence[CellRecord], stale: Sequence[CellRecord], primary: Summary, heading: Heading
) -> str:
    planned = len(heading.seeds)
    if heading.direction == "none":
        return f"{heading.primary} has no better direction"
    if not finished:
        return "stale" if stale else "no result"
    if len(finished) < planned:
        return f"{len(finished)} of {planned} seeds"
    if len({record.result.chosen.digest for record in finished if record.result}) > 1:
        return "its seeds were fitted with different hyperparameters"
    if primary.unscored:
        return f"{heading.primary} unscored on {len(primary.unscored)} of {planned} seeds"
    return ""


def outcome_of(records: Sequence[CellRecord], primary: str) -> Outcome:
    """Return what comparisons need of one contestant's finished cells."""
    values: dict[int, float] = {}
    per_sample = {}
    for record in records:
        score = record.result.score(primary) if record.state == "finished" and record.result else None
        if score is not None and score.value is not None:
            values[record.cell.seed] = score.value
            if record.per_sample is not None:
                per_sample[record.cell.seed] = np.asarray(record.per_sample, dtype=np.float64)
    return Outcome(values=values, per_sample=per_sample)


def _summary(
    name: str,
    results: Mapping[int, Result],
    confidence: float,
    direction: Direction = "none",
    unit: str = "",
) -> Summary:
    """Return the score or cost `name` over seeds; direction and unit are its own where any seed has it."""
    values: dict[int, float] = {}
    unscored: dict[int, str] = {}
    nulls: dict[str, list[float]] = {}
    score: Score | None = None
    for seed, result in results.items():
        found = result.score(name)
        if found is None:
            unscored[seed] = "not measured"
            continue
        score = found
        if score.value is None:
            unscored[seed] = score.unscored or "no reason given"
        else:
            values[seed] = score.value
            for null, value in score.nulls.items():
                nulls.setdefault(null, []).append(value)
    return Summary(
        name=name,
        direction=score.direction if score else direction,
        unit=score.unit if score else unit,
        values=values,
        unscored=unscored,
        null_values=nulls,
        confidence=confidence,
    )


def _cell(record: CellRecord, primary: str) -> EntryCell:
    score = record.result.score(primary) if record.result else None
    return EntryCell(
        name=str(record.cell),
        seed=record.cell.seed,
        state=record.state,
        reason=record.reason,
        value=score.value if score else None,
        run_id=record.run_id,
        verification=record.verification,
    )


def _spent(results: Sequence[Result]) -> Spent | None:
    if not results:
        return None
    chosen = max((result.chosen for result in results), key=lambda one: one.trials_allowed)
    epochs = [result.reported_epoch for result in results]
    return Spent(
        trials=chosen.trials_complete + chosen.trials_pruned + chosen.trials_failed,
        trials_pruned=chosen.trials_pruned,
        trials_failed=chosen.trials_failed,
        trials_allowed=chosen.trials_allowed,
        epochs=(min(epochs), max(epochs)),
        epochs_allowed=max(result.epochs_allowed for result in results),
        is_solved=all(result.is_solved for result in results),
    )


def _only(items: Iterable[str]) -> str:
    found = distinct(items)
    return found[0] if len(found) == 1 else ""


def distinct(items: Iterable[str]) -> tuple[str, ...]:
    """Return the items without repeats, in the order of their first appearance."""
    return tuple(dict.fromkeys(items))

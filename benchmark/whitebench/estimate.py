"""What the rest of a suite will take, from a few real steps of each contestant on each of its tasks."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from whitebench.feasibility import plan_of
from whitebench.fit import STEPS, FitPlan, Timed
from whitebench.launch import Launcher
from whitebench.ledger import PlannedCell
from whitebench.result import Failure
from whitebench.suite import Suite

PATIENCE = 300.0
"""Seconds for a fit in small: two epochs of it at least."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one contestant still has to do on one task, and what that takes."""

    contestant: str
    task: str
    trials: int
    cells: int
    trial_seconds: float | None = None
    """Of one trial that nobody prunes; None where it could not be timed, as in all that follows."""
    cell_seconds: float | None = None
    memory: int | None = None
    """Bytes of one fit at its peak, above what its process holds when it starts."""
    reason: str = ""
    """Why there is nothing to tell."""

    @property
    def seconds(self) -> float | None:
        """All its trials and cells one after the other."""
        if self.trial_seconds is None or self.cell_seconds is None:
            return None
        return self.trials * self.trial_seconds + self.cells * self.cell_seconds

    @property
    def longest(self) -> float:
        """A trial and a cell, which nobody can do at the same time."""
        trial = (self.trial_seconds or 0.0) if self.trials else 0.0
        return trial + ((self.cell_seconds or 0.0) if self.cells else 0.0)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What the rest of a suite takes; shares that could not be timed are left out of the sums."""

    shares: Sequence[Share]
    parallel: int
    """Fits at a time, in the estimate as in the run."""
    is_pruned: bool
    """Whether trials may end before their last epoch: it takes this much at most."""

    @property
    def fits(self) -> int:
        """Trials and cells."""
        return sum(share.trials + share.cells for share in self.shares if share.seconds is not None)

    @property
    def seconds(self) -> float:
        """All fits one after the other: what they take of a device in all."""
        return sum(share.seconds or 0.0 for share in self.shares)

    @property
    def wall_seconds(self) -> float:
        """As many fits at a time as `parallel` says."""
        return max([self.seconds / self.parallel, *(share.longest for share in self.shares)])

    @property
    def memory(self) -> int:
        """Bytes that `parallel` of the largest fits take together."""
        every = sorted(
            (share.memory or 0 for share in self.shares for _ in range(share.trials + share.cells)), reverse=True
        )
        return sum(every[: self.parallel])

    @property
    def untimed(self) -> list[Share]:
        """The shares of which nothing could be told."""
        return [share for share in self.shares if share.seconds is None]


def estimate(
    suite: Suite,
    cells: Sequence[PlannedCell],
    trials_owed: Mapping[str, int],
    *,
    launcher: Launcher,
    plugins: Sequence[Path],
    parallel: int,
) -> Estimate:
    """Time a few real steps of each contestant on each task among `cells`, each in a process of its own.

    Args:
        suite: that the cells are of.
        cells: those to do.
        trials_owed: tuning trials still to run, by `CONTESTANT/TASK`.
        launcher: starts the processes.
        plugins: local plugin files.
        parallel: fits at a time; as many are timed at a time, for they slow each other down.
    """
    of_pair: dict[tuple[str, str], list[PlannedCell]] = {}
    for cell in cells:
        of_pair.setdefault((cell.name.contestant, cell.name.task), []).append(cell)
    with tempfile.TemporaryDirectory(prefix="whitebench-estimate-") as folder:
        plans = [
            replace(plan_of(suite, own[0], plugins, folder=Path(folder) / str(number)), parallel=parallel)
            for number, own in enumerate(of_pair.values())
        ]
        for plan in plans:
            plan.folder.mkdir()
        told = launcher.ask(_try_out, plans, seconds=PATIENCE, at_a_time=parallel)
    shares = [
        _share(plan, len(own), trials_owed.get(f"{label}/{task}", 0), said)
        for ((label, task), own), plan, said in zip(of_pair.items(), plans, told, strict=True)
    ]
    is_pruned = suite.tuning.pruning != "off" and any(share.trials for share in shares)
    return Estimate(shares=shares, parallel=parallel, is_pruned=is_pruned)


def _try_out(plan: FitPlan) -> Timed:
    from whitebench.tryout import try_out  # Lightning, which the process has loaded already

    return try_out(plan)


def _share(plan: FitPlan, cells: int, trials: int, told: Timed | Failure | None) -> Share:
    owed = Share(contestant=plan.contestant.label, task=plan.task, trials=trials, cells=cells)
    if told is None:
        return replace(owed, reason=f"its process died, or twice {STEPS} steps took longer than {PATIENCE:g} s")
    if isinstance(told, Failure):
        return replace(owed, reason=f"{told.kind}: {told.message}")
    trained = told.start + plan.epochs * told.epoch
    return replace(owed, trial_seconds=trained, cell_seconds=trained + told.exam, memory=told.memory)

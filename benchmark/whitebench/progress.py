"""How far every cell is, and how long the rest will take: hears events, shows nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from whitebench.events import (
    CellFailed,
    CellFinished,
    CellHeld,
    EpochEnded,
    Event,
    FitLost,
    FitStarted,
    SuiteEnded,
    SuiteStarted,
    TestOpened,
    TrialEnded,
)

if TYPE_CHECKING:
    from whitebench.reading import Direction


@dataclass(kw_only=True)
class Line:
    """How far one cell is."""

    state: str = "waiting"
    """`waiting`, `tuning 2/3`, `tuned, waiting`, `epoch 7/10`, `testing`, `done`, `failed: oom`."""
    best: float | None = None
    """The best validation score so far, of its trials and its own fit."""
    test: float | None = None
    began: float | None = None
    seconds: float | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether its own fit is still to come."""
        return self.state.startswith(("waiting", "tuning", "tuned"))


class Progress:
    """The state of a suite that is being run."""

    def __init__(self, *, trials: int, epochs: int, parallel: int, direction: Direction) -> None:
        self.trials, self.epochs, self.parallel, self.direction = trials, epochs, parallel, direction
        self.lines: dict[str, Line] = {}
        """By the cell's name."""
        self.started = time.monotonic()
        self.is_over = False
        self._trials_ended: dict[str, int] = {}
        self._epochs_left: dict[str, int] = {}
        """By the fit's name; trials that have not started count under their contest's."""
        self._epochs_seen = 0

    def hear(self, event: Event) -> None:
        """Take in what happened."""
        match event:
            case SuiteStarted():
                self._suite_started(event)
            case FitStarted():
                self._fit_started(event)
            case FitLost():
                self._fit_lost(event)
            case EpochEnded():
                self._epoch_ended(event)
            case TrialEnded():
                self._trial_ended(event.fit)
            case TestOpened():
                self.lines[event.cell].state = "testing"
            case CellHeld():
                self.lines[event.cell].state = "elsewhere"
            case CellFinished() if event.cell in self.lines:
                self._cell_ended(event.cell, "done", event.primary)
            case CellFailed():
                self._cell_ended(event.cell, f"failed: {event.kind}", None)
            case SuiteEnded():
                self.is_over = True

    @property
    def seconds_left(self) -> float | None:
        """How long the rest takes at the speed so far, or None while that cannot be said."""
        if not self._epochs_seen:
            return None
        return (time.monotonic() - self.started) * sum(self._epochs_left.values()) / self._epochs_seen

    def _suite_started(self, event: SuiteStarted) -> None:
        self.started = time.monotonic()
        self.lines = {name: Line(state="done") for name in event.done} | {name: Line() for name in event.cells}
        self.lines |= {name: Line(state="failed earlier") for name in event.failed}
        self._trials_ended = {contest: self.trials - owed for contest, owed in event.trials_owed.items()}
        self._epochs_left = dict.fromkeys(event.cells, self.epochs)
        self._epochs_left |= {contest: owed * self.epochs for contest, owed in event.trials_owed.items()}

    def _fit_started(self, event: FitStarted) -> None:
        if event.purpose == "cell":
            line = self.lines[event.fit]
            line.state, line.began = f"epoch 0/{self.epochs}", time.monotonic()
            return
        contest = _contest(event.fit)
        self._epochs_left[contest] -= self.epochs
        self._epochs_left[event.fit] = self.epochs
        self._tuning(contest)

    def _fit_lost(self, event: FitLost) -> None:
        if event.purpose == "cell":
            line = self.lines[event.fit]
            line.state, line.began = "waiting", None
            self._epochs_left[event.fit] = self.epochs
            return
        del self._epochs_left[event.fit]
        self._epochs_left[_contest(event.fit)] += self.epochs

    def _epoch_ended(self, event: EpochEnded) -> None:
        self._epochs_seen += 1
        self._epochs_left[event.fit] = event.epochs - event.epoch
        lines: Iterable[Line] = self._lines_of(_contest(event.fit))
        if event.purpose == "cell":
            line = self.lines[event.fit]
            line.state, lines = f"epoch {event.epoch}/{event.epochs}", [line]
        for line in lines:
            if line.best is None or self._is_better(event.validation, line.best):
                line.best = event.validation

    def _trial_ended(self, fit: str) -> None:
        contest = _contest(fit)
        self._trials_ended[contest] += 1
        if fit in self._epochs_left:
            del self._epochs_left[fit]
        else:  # another conductor ran it
            self._epochs_left[contest] -= self.epochs
        self._tuning(contest)

    def _cell_ended(self, cell: str, state: str, test: float | None) -> None:
        line = self.lines[cell]
        line.state, line.test = state, test
        self._epochs_left.pop(cell, None)
        if line.began is not None:
            line.seconds = time.monotonic() - line.began

    def _tuning(self, contest: str) -> None:
        ended = self._trials_ended[contest]
        for line in self._lines_of(contest):
            if line.is_waiting:
                line.state = f"tuning {ended}/{self.trials}" if ended < self.trials else "tuned, waiting"

    def _is_better(self, new: float, old: float) -> bool:
        return new < old if self.direction == "lower" else new > old

    def _lines_of(self, contest: str) -> list[Line]:
        return [line for name, line in self.lines.items() if _contest(name) == contest]


def _contest(fit: str) -> str:
    """Return `SUITE/CONTESTANT/TASK` of a cell's or a trial's name."""
    return fit.rpartition("/")[0]

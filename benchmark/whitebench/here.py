"""Fits in the conductor's own process, for one cell and a debugger: nothing is isolated, and nothing ended by force."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from whitebench.child import outcome_here
from whitebench.fit import Answer, FitPlan, Fitted, Message, Outcome
from whitebench.result import Failure, Score

Told = TypeVar("Told")

MEASURED = ("samples/s", "bytes", "s", "h")
"""Units of the costs that say nothing where a debugger may wait, and where the conductor's own memory counts."""


class FitHere:
    """A fit that runs while it is attended to."""

    def __init__(self, plan: FitPlan) -> None:
        self.plan, self.pid = plan, os.getpid()
        self._started = time.monotonic()
        self._answers: list[Answer] = []

    @property
    def seconds(self) -> float:
        """How long ago it was started."""
        return time.monotonic() - self._started

    def attend(self, heard: Callable[[FitHere, Message | Outcome], None], idle: Callable[[], None]) -> None:
        """Run it from its beginning to its end, telling `heard` all it says; `idle` while an answer is owed."""

        def hear(message: Message) -> Answer:
            heard(self, message)
            while not self._answers:
                idle()
                time.sleep(0.05)
            return self._answers.pop()

        heard(self, _without_measurements(outcome_here(self.plan, hear)))

    def answer(self, answer: Answer) -> None:
        """Answer what the fit said last."""
        self._answers.append(answer)

    def fault(self) -> None:
        """No limit holds: a debugger takes its time."""

    def end(self) -> None:
        """Nothing is left to end: it has run, or an exception is on its way out of it."""


class Here:
    """A launcher of which what it starts runs in this process."""

    keeps_checkpoints = False
    """A debugger that is left does not wait for the end of an epoch."""
    is_in_process = True
    is_here = True
    places = 1

    def warm(self) -> None:
        """Nothing is to be loaded beforehand."""

    def start(self, plan: FitPlan) -> FitHere:
        """Start a fit."""
        plan.folder.mkdir(parents=True, exist_ok=True)
        return FitHere(plan)

    def wait(self, fits: Sequence[Any], seconds: float) -> Sequence[Any]:
        """Return `fits`, which are always ready to be attended to."""
        if not fits:
            time.sleep(seconds)
        return fits

    def ask(
        self, _: Callable[[FitPlan], Told], plans: Sequence[FitPlan], *, seconds: float, at_a_time: int = 1
    ) -> list[Told | Failure | None]:
        """Leave every question to the fit, which a debugger looks into; `seconds` and `at_a_time` bound nothing."""
        del seconds, at_a_time
        return [None] * len(plans)

    def close(self) -> None:
        """Nothing is left to end."""


def _without_measurements(outcome: Outcome) -> Outcome:
    if not isinstance(outcome, Fitted):
        return outcome
    return replace(outcome, costs=[_unscored(one) if one.unit in MEASURED else one for one in outcome.costs])


def _unscored(cost: Score) -> Score:
    return replace(cost, value=None, unscored="not measured with --in-process, where a debugger may have waited")

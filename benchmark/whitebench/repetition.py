"""Fits beside any conductor: nothing is claimed, nothing chosen, no run opened and no opening of a test split counted.

A cell that is finished has been looked at already. What a repetition finds is compared with that, and never takes its
place: there is nothing that it could help to choose.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable

from whitebench.events import EpochEnded
from whitebench.fit import AskTest, FitPlan, Message, Outcome
from whitebench.launch import Launcher, RunningFit

POLL = 1.0
"""Seconds between two looks at the limits of the fits under way."""


def outcomes(
    launcher: Launcher, plans: Iterable[FitPlan], *, parallel: int = 1
) -> Generator[tuple[FitPlan, Outcome], None, None]:
    """Yield how the fit of each plan ended, as they end; a plan is asked for when there is room for its fit."""
    waiting, living = iter(plans), list[RunningFit]()
    ended: list[tuple[RunningFit, Outcome]] = []

    def heard(fit: RunningFit, said: Message | Outcome) -> None:
        if isinstance(said, EpochEnded | AskTest):
            fit.answer("go")
        else:
            ended.append((fit, said))

    def start() -> bool:
        plan = next(waiting, None)
        if plan is not None:
            living.append(launcher.start(plan))
        return plan is not None

    try:
        while living or start():
            while len(living) < parallel and start():
                pass
            for fit in launcher.wait(living, POLL):
                fit.attend(heard, lambda: None)
            heard_of = [fit for fit, _ in ended]
            ended += [(fit, fault) for fit in living if fit not in heard_of and (fault := fit.fault()) is not None]
            for fit, outcome in ended:
                fit.end()
                living.remove(fit)
                yield fit.plan, outcome
            ended.clear()
    finally:
        for fit in living:
            fit.end()

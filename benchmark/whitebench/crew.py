"""One command in several processes that others started, torchrun or SLURM: one of them conducts, the others follow.

Each process of the crew has its own child for each fit, and the children of one fit make up its group. The conductor
posts what is to be done where all meet, at MASTER_ADDR and MASTER_PORT; a follower starts its child, says if it failed,
and ends it when the conductor is done with the fit. Nobody but the conductor opens the store.
"""

from __future__ import annotations

import base64
import contextlib
import os
import pickle
import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

from torch.distributed import DistError, PrefixStore, TCPStore  # type: ignore[attr-defined]  # torch lists not all

from whitebench.errors import WhitebenchError
from whitebench.fit import FitPlan, Seat
from whitebench.launch import Launcher, RunningFit, wait_for
from whitebench.muster import Muster
from whitebench.result import Failure

POLL = 0.1
"""Seconds between two looks at what the conductor has posted."""

MEETING = timedelta(minutes=10)
"""How long the processes of a crew wait for each other at the start: machines of a cluster may take their time."""

GOODBYE = 10.0
"""Seconds in which followers hear that all is done before the place where they meet is closed."""


class Crew:
    """The processes of one command, as each of them sees it."""

    def __init__(self, muster: Muster) -> None:
        self.muster = muster
        is_host = muster.member == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"  # torchrun hosts it
        try:
            store = TCPStore(muster.address, muster.port, is_master=is_host, timeout=MEETING)
            self._store = PrefixStore("whitebench", store)
            self._store.set(f"here/{muster.member}", "")
            self._store.wait([f"here/{member}" for member in range(muster.members)], MEETING)
        except DistError as error:
            raise WhitebenchError(
                f"the {muster.members} processes of this command did not meet at {muster.address}:{muster.port} within "
                f"{MEETING.seconds // 60} minutes: see that all were started and that this port is free and reachable"
            ) from error
        self._number = -1

    @property
    def is_conductor(self) -> bool:
        """Whether this one plans and stores."""
        return self.muster.member == 0

    def seat(self, number: int) -> Seat:
        """Return this process's place in the group of fit `number`."""
        one = self.muster
        return Seat(
            member=one.member,
            members=one.members,
            local_member=one.local_member,
            address=one.address,
            port=one.port,
            fit=number,
        )

    def post(self, plan: FitPlan) -> FitPlan:
        """Let everybody begin a fit; return the conductor's own part in it."""
        self._number += 1
        self._store.set(f"plan/{self._number}", _packed(plan))
        return replace(plan, seat=self.seat(self._number))

    def end(self, number: int) -> None:
        """Let everybody end a fit."""
        self._store.set(f"end/{number}", "")

    def report(self, number: int, failure: Failure) -> None:
        """Tell the conductor that this process's part of a fit has failed."""
        self._store.set(f"failure/{number}", _packed(failure))

    def failure(self, number: int) -> Failure | None:
        """Return how another's part of a fit has failed, if it has."""
        if not self._store.check([f"failure/{number}"]):
            return None
        failure: Failure = _unpacked(self._store.get(f"failure/{number}"))
        return failure

    def follow(self, launcher: Launcher) -> None:
        """Do what the conductor posts until it says that all is done.

        Raises:
            WhitebenchError: it has gone without a word.
        """
        try:
            while posted := self._posted(number := self._number + 1):
                self._number = number
                self._take_part(number, replace(_unpacked(posted), seat=self.seat(number)), launcher)
            self._store.set(f"bye/{self.muster.member}", "")
        except DistError as error:
            raise WhitebenchError("the process that conducts is gone: what it printed says why") from error

    def _posted(self, number: int) -> bytes:
        while not self._store.check([f"plan/{number}"]):
            time.sleep(POLL)
        posted: bytes = self._store.get(f"plan/{number}")
        return posted

    def _take_part(self, number: int, plan: FitPlan, launcher: Launcher) -> None:
        fit = launcher.start(plan)
        is_over = False
        try:
            while not self._store.check([f"end/{number}"]):
                if is_over:
                    time.sleep(POLL)
                elif wait_for([fit], POLL) and (said := fit.receive()) is not None:
                    is_over = True  # of its own part a follower says nothing but how it ended
                    if isinstance(said, Failure):
                        self.report(number, said)
        finally:
            fit.end()

    def disband(self) -> None:
        """Say that all is done, and wait until the others have heard it."""
        with contextlib.suppress(DistError):  # they are gone already
            self._store.set(f"plan/{self._number + 1}", "")
            others = [f"bye/{member}" for member in range(1, self.muster.members)]
            self._store.wait(others, timedelta(seconds=GOODBYE))


def _packed(value: object) -> str:
    """Return a value as the text in which it travels."""
    return base64.b64encode(pickle.dumps(value)).decode()


def _unpacked(text: bytes) -> Any:
    return pickle.loads(base64.b64decode(text))


class _SharedFit(RunningFit):
    """The conductor's part of a fit in which the whole crew takes part."""

    def __init__(self, context: Any, plan: FitPlan, crew: Crew) -> None:
        assert plan.seat is not None
        self._crew, self._number = crew, plan.seat.fit
        super().__init__(context, plan)

    def fault(self) -> Failure | None:
        """Return which limit the fit has crossed, or how another's part failed; None where it may go on."""
        return self._crew.failure(self._number) or super().fault()

    def end(self) -> None:
        """End the conductor's part, and let the others end theirs."""
        self._crew.end(self._number)
        super().end()


class CrewLauncher(Launcher):
    """Starts fits in which the whole crew takes part."""

    def __init__(self, crew: Crew, *, threads: int) -> None:
        super().__init__(threads=threads)
        self._crew = crew

    def _run(self, plan: FitPlan) -> RunningFit:
        if plan.recipe is None:  # a task that solves itself has nothing to share
            return super()._run(plan)
        return _SharedFit(self._context, self._crew.post(plan), self._crew)

"""What is to do, and who does it: hands out trials and cells that nobody else is at, and sees what others have done."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from whitebench.contest import Contest, cell_claim, trial_claim
from whitebench.errors import LostResultError
from whitebench.events import CellFailed, CellFinished, CellHeld, Event, TrialEnded
from whitebench.identity import CellName
from whitebench.ledger import PlannedCell
from whitebench.store import Store
from whitebench.tables import Mark
from whitebench.tags import StoredCell, queryable

POLL = 1.0
"""Seconds after which is asked again for what somebody else is at."""

NOBODY, AT_WORK, HAVING_DONE_IT = "nobody", "at work", "having done it"
"""How another conductor was met at a cell."""


@dataclass(frozen=True, kw_only=True)
class TrialWork:
    """A trial that is claimed."""

    contest: Contest
    number: int
    claim: str


@dataclass(frozen=True, kw_only=True)
class CellWork:
    """A cell that is claimed."""

    contest: Contest
    cell: PlannedCell
    claim: str


Work: TypeAlias = TrialWork | CellWork


class Roster:
    """The work of a suite as several conductors share it."""

    def __init__(
        self,
        contests: Sequence[Contest],
        store: Store,
        overrides: str,
        *,
        failed_before: Collection[str],
        tell: Callable[[Event], None],
    ) -> None:
        self.contests, self._store, self._overrides, self._tell = contests, store, overrides, tell
        self._failed_before = failed_before
        """The runs that had failed when the work was planned: they are to be done again."""
        self._begin = 0
        """Where in `contests` the next work is looked for."""
        self._met: str = NOBODY
        """Whether a cell was just found to be another conductor's."""
        self._seen: dict[str, Mark] = {}
        """What was last known of every run of a cell; empty until another conductor's work was met."""
        self._turn = random.Random(store.claims.owner.token)
        self._ask_again: dict[str, float] = {}
        """When to ask again for the claims that somebody else has."""
        self._caught_up = time.monotonic()
        self.elsewhere = self.failed = 0
        """Cells that others have finished, and that have failed at others'."""

    @property
    def has_work(self) -> bool:
        """Whether something is still to be done, by whomever."""
        return any(contest.has_work for contest in self.contests)

    def next(self) -> Work | None:
        """Claim the next thing to do, or return None where all is done, held by others or waits for something."""
        while True:
            self._met = NOBODY
            for contest in self._in_turn():
                if work := self._of(contest):
                    return work
                if self._met != NOBODY:
                    break
            else:
                return None
            self._step_aside()

    def next_below(self, stuck: Sequence[tuple[Contest, int]]) -> Work | None:
        """Claim a trial that one of the `stuck` trials waits for: its owner may be dead."""
        for contest, above in stuck:
            for number in contest.startable_trials:
                if number < above and (work := self._trial(contest, number)):
                    return work
        return None

    def catch_up(self) -> None:
        """Look, once in a while, what others have done of what this conductor could not have."""
        if not self._ask_again or time.monotonic() - self._caught_up < POLL:
            return
        for contest in self.contests:
            if contest.waiting_trials or contest.undecided():
                self._catch_up(contest)
        self._caught_up = time.monotonic()

    def _in_turn(self) -> Iterator[Contest]:
        for contest in (*self.contests[self._begin :], *self.contests[: self._begin]):
            if contest.has_work:
                yield contest

    def _of(self, contest: Contest) -> Work | None:
        for number in contest.startable_trials:
            if trial := self._trial(contest, number):
                return trial
        for planned in contest.startable_cells:
            if cell := self._cell(contest, planned):
                return cell
            if self._met != NOBODY:
                return None
        return None

    def _step_aside(self) -> None:
        """Look for work elsewhere, for another conductor is or was here: side by side each asks after every cell."""
        if self._met == HAVING_DONE_IT:
            self._strike_out()
        self._begin = self._turn.randrange(len(self.contests))

    def _strike_out(self) -> None:
        """Take off the list what others have done since the last look: to claim each cell to see that takes longer."""
        self._seen, news = self._store.changed_cells(self._seen, self.contests[0].suite.name)
        runs: dict[tuple[CellName, str], list[StoredCell]] = {}
        for one in news:
            if one.overrides == queryable(self._overrides) and not one.is_deleted:
                runs.setdefault((one.cell, one.identity), []).append(one)
        for contest in self.contests:
            for cell in contest.startable_cells:
                if self._is_done_elsewhere(runs.get((cell.name, cell.identity.digest), ())):
                    contest.waiting_cells.remove(cell)

    def _trial(self, contest: Contest, number: int) -> TrialWork | None:
        claim = trial_claim(contest.study.name, number)
        if not self._take(claim):
            return None
        self._catch_up(contest)
        if number not in contest.waiting_trials:  # somebody had just done it
            self._store.claims.release(claim)
            return None
        contest.begin_trial(number)
        return TrialWork(contest=contest, number=number, claim=claim)

    def _catch_up(self, contest: Contest) -> None:
        for trial in contest.catch_up():
            name = f"{contest.name}/trial-{trial.number}"
            self._tell(
                TrialEnded(
                    fit=name,
                    state=trial.state,
                    validation=trial.validation,
                    reason=trial.reason,
                    is_elsewhere=True,
                )
            )

    def _cell(self, contest: Contest, cell: PlannedCell) -> CellWork | None:
        claim = cell_claim(cell, self._overrides)
        if not self._take(claim, cell):
            return None
        contest.waiting_cells.remove(cell)
        runs = self._store.runs_of(cell.name, self._overrides)
        same = [one for one in runs if one.identity == cell.identity.digest]
        if self._is_done_elsewhere(same):
            self._store.claims.release(claim)
            self._met = HAVING_DONE_IT
            return None
        for one in runs:
            if one.state == "interrupted" or one.claim == claim:  # which nobody else has
                self._store.close_orphan(one.run_id)
        return CellWork(contest=contest, cell=cell, claim=claim)

    def _is_done_elsewhere(self, runs: Sequence[StoredCell]) -> bool:
        for one in reversed(runs):
            if one.result_sha256:
                try:
                    result = self._store.result(one)
                except LostResultError:  # its square is empty: it is done anew
                    continue
                primary = result.score(result.primary)
                value = primary.value if primary else None
                self.elsewhere += 1
                self._tell(CellFinished(cell=str(one.cell), primary=value, run_id=one.run_id, is_elsewhere=True))
                return True
            if one.state == "failed" and one.run_id not in self._failed_before:
                kind, _, message = one.failure.partition(": ")
                self.failed += 1
                self._tell(CellFailed(cell=str(one.cell), kind=kind, message=message, is_elsewhere=True))
                return True
        return False

    def _take(self, claim: str, cell: PlannedCell | None = None) -> bool:
        if time.monotonic() < self._ask_again.get(claim, 0.0):
            return False
        if self._store.claims.take(claim):
            self._ask_again.pop(claim, None)
            return True
        if cell is not None and claim not in self._ask_again:
            holder = self._store.claims.living(claim).get(claim)
            self._tell(CellHeld(cell=str(cell.name), by=str(holder or "another conductor")))
        if cell is not None:
            self._met = AT_WORK
        self._ask_again[claim] = time.monotonic() + POLL
        return False

"""The one process that plans, tunes and stores; it never trains. Cell by cell: tune, freeze, fit, test, store."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whitebench.catalog import Catalog
from whitebench.contest import Contest, cell_folder, open_contests, trial_folder
from whitebench.errors import StoreError, WhitebenchError
from whitebench.events import (
    EpochEnded,
    Event,
    FitLost,
    FitStarted,
    SuiteEnded,
    SuiteStarted,
    TestOpened,
    TrialEnded,
)
from whitebench.fit import AskTest, FitPlan, Fitted, Lost, Message, Outcome, Pruned
from whitebench.harvest import CellFit, Harvest
from whitebench.interruption import Interruption
from whitebench.launching import AnyFit, AnyLauncher
from whitebench.ledger import Ledger, PlannedCell, canonical_overrides, owed_cells
from whitebench.logbook import Logbook
from whitebench.outage import said_plainly
from whitebench.result import Chosen, Failure, FailureKind
from whitebench.roster import POLL, Roster, TrialWork, Work
from whitebench.spool import Spool
from whitebench.store import Store
from whitebench.suite import Suite
from whitebench.tuning import Storage

_log = logging.getLogger(__name__)

Tell = Callable[[Event], None]

EPOCH_GRACE = 20.0
"""Seconds in which fits may end their epoch, and so leave a checkpoint of it, when the conductor is told to end."""

OWN_STOP = 0.5
"""Seconds in which a conductor hears that it is to end, too, after a fit was ended: who ends a job ends all of it."""

MOST_LOSSES = 3
"""How often a fit is started again because what it ran on was lost: after that it may be what brings it down."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a run did."""

    finished: int
    failed: int
    """Whoever ran them."""
    elsewhere: int
    """Cells that another conductor finished in the meantime."""
    is_interrupted: bool
    is_cut_short: bool
    """Whether so many cells failed that it was given up."""
    seconds: float


class Conductor:
    """Runs the cells of a suite that are not done, beside any other conductor on the same store."""

    def __init__(
        self,
        *,
        suite: Suite,
        catalog: Catalog,
        store: Store,
        launcher: AnyLauncher,
        home: Path,
        plugins: Sequence[Path],
        overrides: Sequence[str],
        parallel: int,
        tell: Tell,
        max_failures: int | None = None,
        devices: int = 1,
        is_on_cpu: bool = False,
    ) -> None:
        self.suite, self.catalog, self.launcher, self.store = suite, catalog, launcher, store
        self.plugins, self.parallel, self.tell = [path.resolve() for path in plugins], parallel, tell
        self.overrides, self.max_failures = canonical_overrides(overrides), max_failures
        self.devices, self.is_on_cpu = devices, is_on_cpu
        self.logbook = Logbook(store, suite, self.overrides)
        self.storage = Storage.of_store(store.tracking.uri)
        self.spool = Spool(home)
        self.fits: dict[AnyFit, TrialWork | CellFit] = {}
        self.losses: Counter[str] = Counter()
        """How often each fit was lost, by its name."""
        self.roster: Roster | None = None
        self._interruption = Interruption()
        self.harvest = Harvest(suite, store, self.logbook, self.spool, overrides=self.overrides, tell=tell)

    def run(self, ledger: Ledger, selected: Sequence[PlannedCell], *, retry: bool = False) -> Summary:
        """Run those of the `selected` cells that `ledger` has neither finished nor failed; with `retry` the failed.

        Ctrl-C, SIGTERM and SIGHUP leave the rest for the same command given again; SIGTERM lets every fit end the
        epoch that it is in, if that takes no longer than EPOCH_GRACE.
        """
        started = time.monotonic()
        is_interrupted = False
        with Interruption() as interruption:
            self._interruption = interruption
            try:
                self.store.claims.keep()
                self.roster = self._open(ledger, selected, retry=retry)
                self._work_through(self.roster, interruption)
            except StoreError:
                self.store.hurry()
                raise
            except KeyboardInterrupt:
                is_interrupted = True
                if interruption.is_gentle and self.launcher.keeps_checkpoints:
                    self._end_epochs()
            finally:
                self._stop_everything()
        summary = Summary(
            finished=self.harvest.finished,
            failed=self.harvest.failed + (self.roster.failed if self.roster else 0),
            elsewhere=self.roster.elsewhere if self.roster else 0,
            is_interrupted=is_interrupted,
            is_cut_short=self._is_cut_short and not is_interrupted,
            seconds=time.monotonic() - started,
        )
        self.tell(SuiteEnded(suite=self.suite.name, **dataclasses.asdict(summary)))
        return summary

    def _open(self, ledger: Ledger, selected: Sequence[PlannedCell], *, retry: bool) -> Roster:
        done, failed = (
            {record.cell for record in ledger.records if record.state == state} for state in ("finished", "failed")
        )
        owed = owed_cells(ledger, selected, retry=retry)
        contests = open_contests(
            self.suite, owed, self.catalog, self.storage, ledger.direction, overrides=self.overrides
        )
        if retry:
            for contest in contests:
                self._start_over_if_broken(contest)
        self._sweep(ledger, selected, contests)
        self.tell(
            SuiteStarted(
                suite=self.suite.name,
                cells=tuple(str(cell.name) for cell in owed),
                done=tuple(str(cell.name) for cell in selected if cell.name in done),
                failed=tuple(str(cell.name) for cell in selected if cell.name in failed and not retry),
                trials_owed={contest.name: len(contest.waiting_trials) for contest in contests},
            )
        )
        return Roster(contests, self.store, self.overrides, failed_before=ledger.failures.keys(), tell=self.tell)

    def _start_over_if_broken(self, contest: Contest) -> None:
        """Forget a study that ended without one complete trial: what broke it may be mended."""
        with self.store.claims.alone(f"over/{contest.study.name}"):
            contest.study.read_again()
            trials = contest.study.trials
            if trials and not contest.study.owed and not any(trial.state == "complete" for trial in trials):
                contest.study.start_over()
                self.store.supersede_study(self.suite.name, overrides=self.overrides, name=contest.study.name)
        contest.waiting_trials = contest.study.owed

    def _sweep(self, ledger: Ledger, selected: Sequence[PlannedCell], contests: Sequence[Contest]) -> None:
        """Remove what fits left that were stored, and whose conductor was killed before it could clean up."""
        results = {record.cell: record.result for record in ledger.records if record.state == "finished"}
        done = [(cell, result) for cell in selected if (result := results.get(cell.name))]
        folders = [cell_folder(cell, self.overrides, result.chosen) for cell, result in done]
        folders += [trial_folder(one.study, trial.number) for one in contests for trial in one.study.trials]
        for folder in folders:
            shutil.rmtree(self.spool.fits / folder, ignore_errors=True)

    def _work_through(self, roster: Roster, interruption: Interruption) -> None:
        if roster.has_work:
            with interruption.welcome():
                self.launcher.warm()  # up to 11 s in which nothing has begun that could be lost
        while not self._is_cut_short:
            for contest in roster.contests:
                self._choose_when_tuned(contest)
            while not interruption.is_wanted and (work := self._next(roster)):
                self._start(work)
            if not self.fits and not roster.has_work:
                return
            with interruption.welcome():
                ready = self.launcher.wait(list(self.fits), POLL)
            for fit in ready:
                with interruption.welcome() if self.launcher.is_in_process else nullcontext():
                    fit.attend(self._heard, roster.catch_up)
            for fit in list(self.fits):
                if (failure := fit.fault()) is not None:
                    self._ended(fit, failure)
            roster.catch_up()

    def _next(self, roster: Roster) -> Work | None:
        if self._is_cut_short:
            return None
        if len(self.fits) < self.parallel:
            return roster.next()
        stuck = [(work.contest, work.number) for work in self.fits.values() if isinstance(work, TrialWork)]
        stuck = [(contest, number) for contest, number in stuck if number in contest.undecided()]
        # Every slot waits for trials of lower numbers: if their owners died, nobody else would do them.
        return roster.next_below(stuck) if len(stuck) == len(self.fits) else None

    @property
    def _is_cut_short(self) -> bool:
        return self.max_failures is not None and self.harvest.failed >= self.max_failures

    def _start(self, work: Work) -> None:
        contest = work.contest
        given: Any = {
            "plugins": self.plugins, "work": self.spool.fits,
            "parallel": self.parallel, "devices": self.devices, "is_on_cpu": self.is_on_cpu,
        }  # fmt: skip
        if isinstance(work, TrialWork):
            self.fits[self._launch(contest.trial_plan(work.number, **given))] = work
            self.logbook.study(contest)
        elif contest.broken is not None:
            run_id = self.logbook.open_cell(
                work.cell, Chosen(hyperparameters={}, trial=None, validation=None), work.claim
            )
            self.harvest.fail(work, run_id, contest.broken)
        else:
            assert contest.chosen is not None
            plan = contest.cell_plan(work.cell, **given)
            if self.harvest.deliver(work):
                return
            self.spool.reserve(plan.folder)
            # The fit loads its data while its run is opened: it cannot ask for the test split before that.
            fit = self._launch(plan)
            run_id = self.logbook.open_cell(work.cell, contest.chosen, work.claim)
            self.fits[fit] = CellFit(work=work, chosen=contest.chosen, run_id=run_id)

    def _launch(self, plan: FitPlan) -> AnyFit:
        with said_plainly(str(self.spool.fits)):
            fit: AnyFit = self.launcher.start(plan)
        self.tell(FitStarted(fit=plan.name, purpose=plan.purpose, pid=fit.pid))
        return fit

    def _choose_when_tuned(self, contest: Contest) -> None:
        if contest.chosen or contest.broken or not contest.is_tuned or not contest.waiting_cells:
            return
        try:
            contest.chosen = contest.study.choose()
        except WhitebenchError as error:
            kind = FailureKind(next((t.reason.partition(":")[0] for t in contest.study.trials if t.reason), "error"))
            contest.broken = Failure(kind=kind, message=str(error))
        if contest.study.allowed:
            self.logbook.choose(contest)

    def _heard(self, fit: AnyFit, said: Message | Outcome | Lost) -> None:
        work = self.fits[fit]
        match said:
            case EpochEnded() if isinstance(work, TrialWork):
                self.tell(said)
                work.contest.trial_told(work.number, said, fit.answer)
            case EpochEnded():
                assert isinstance(work, CellFit)
                fit.answer("go")  # it trains on while the store writes
                self.tell(said)
                work.epochs.append(said)
                self.logbook.epoch(work.run_id, said)
            case AskTest():
                assert isinstance(work, CellFit)
                if not self.store.claims.holds(work.work.claim):  # the test split is not ours to open any more
                    self._drop(fit)
                    self.harvest.leave(work.work, work.run_id)
                    return
                work.openings = self.logbook.opening(work.run_id, said.weights_sha256)
                self.tell(TestOpened(cell=fit.plan.name, openings=work.openings))
                fit.answer("go")
            case Fitted() | Pruned() | Failure():
                self._ended(fit, said)
            case Lost():
                self._lost(fit, said)

    def _lost(self, fit: AnyFit, lost: Lost) -> None:
        """Put back what a fit was to do, unless it was lost so often that it fails."""
        name = fit.plan.name
        self.losses[name] += 1
        if self.losses[name] > MOST_LOSSES:
            message = f"it was lost {self.losses[name]} times with what it ran on, the last time: {lost.reason}"
            self._ended(fit, Failure(kind=FailureKind.KILLED, message=message))
            return
        work = self.fits[fit]
        self._drop(fit)
        self.tell(FitLost(fit=name, purpose=fit.plan.purpose, reason=lost.reason))
        if isinstance(work, TrialWork):
            work.contest.forget_trial(work.number)
            self.store.claims.release(work.claim)
        else:
            self.harvest.put_back(work.work, work.run_id)

    def _ended(self, fit: AnyFit, outcome: Outcome) -> None:
        if isinstance(outcome, Failure) and outcome.kind is FailureKind.KILLED:
            with self._interruption.welcome():
                time.sleep(OWN_STOP)
        seconds = fit.seconds
        fit.end()
        work = self.fits.pop(fit)
        if isinstance(work, TrialWork):
            self._trial_ended(work, fit.plan, outcome, seconds=seconds)
        elif isinstance(outcome, Fitted):
            self.harvest.fitted(work, fit.plan, outcome)
        else:
            assert isinstance(outcome, Failure)
            self.harvest.fail(work.work, work.run_id, outcome)

    def _trial_ended(self, work: TrialWork, plan: FitPlan, outcome: Outcome, *, seconds: float) -> None:
        if not self.store.claims.holds(work.claim):
            _log.warning("%s was taken over by another conductor", plan.name)
            work.contest.forget_trial(work.number)
            return
        trial = work.contest.trial_ended(work.number, plan, outcome, seconds=seconds)
        self.logbook.trial(work.contest, trial)
        self.store.claims.release(work.claim)
        self.tell(TrialEnded(fit=plan.name, state=trial.state, validation=trial.validation, reason=trial.reason))
        shutil.rmtree(plan.folder, ignore_errors=True)

    def _end_epochs(self) -> None:
        """Hear the fits until each has ended the epoch it is in, or as long as there is time for it."""
        for fit, work in list(self.fits.items()):
            if isinstance(work, TrialWork) and work.number in work.contest.undecided():  # it has ended one and waits
                self._drop(fit)
        deadline = time.monotonic() + EPOCH_GRACE
        while self.fits and (left := deadline - time.monotonic()) > 0:
            for fit in self.launcher.wait(list(self.fits), left):
                fit.attend(self._heard_last, lambda: None)

    def _heard_last(self, fit: AnyFit, said: Message | Outcome | Lost) -> None:
        if isinstance(said, Failure | Lost):  # by what ends us too, as like as not: what is its own fault comes again
            self._drop(fit)
            return
        self._heard(fit, said)
        if isinstance(said, EpochEnded):  # its checkpoint was written before it was told
            self._drop(fit)

    def _drop(self, fit: AnyFit) -> None:
        fit.end()
        self.fits.pop(fit)

    def _stop_everything(self) -> None:
        self.launcher.close()
        self.fits.clear()
        self.logbook.close()
        self.store.claims.close()

"""The one process that plans, tunes and stores; it never trains. Cell by cell: tune, freeze, fit, test, store."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from whitebench.catalog import Catalog
from whitebench.contest import Contest, cell_folder, open_contests, trial_folder
from whitebench.errors import LostClaimError, StoreError, WhitebenchError
from whitebench.events import (
    CellFailed,
    CellFinished,
    EpochEnded,
    Event,
    FitStarted,
    SuiteEnded,
    SuiteStarted,
    TestOpened,
    TrialEnded,
)
from whitebench.fit import LOG, AskTest, FitPlan, Fitted, Message, Outcome, Pruned
from whitebench.here import FitHere, Here
from whitebench.interruption import Interruption
from whitebench.launch import Launcher, RunningFit
from whitebench.ledger import Ledger, PlannedCell, canonical_overrides, owed_cells
from whitebench.logbook import Logbook
from whitebench.outage import said_plainly
from whitebench.result import Chosen, Failure, FailureKind, Result, Score
from whitebench.roster import POLL, CellWork, Roster, TrialWork, Work
from whitebench.spool import Delivery, Spool, store_delivery
from whitebench.store import Store
from whitebench.suite import Suite
from whitebench.tuning import Storage

_log = logging.getLogger(__name__)

Tell = Callable[[Event], None]

Fit = RunningFit | FitHere

EPOCH_GRACE = 20.0
"""Seconds in which fits may end their epoch, and so leave a checkpoint of it, when the conductor is told to end."""


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


@dataclass(kw_only=True)
class _CellFit:
    """A cell under way: its fit runs and its run in the store is open."""

    work: CellWork
    chosen: Chosen
    run_id: str
    openings: int = 0
    epochs: list[EpochEnded] = field(default_factory=list)


class Conductor:
    """Runs the cells of a suite that are not done, beside any other conductor on the same store."""

    def __init__(
        self,
        *,
        suite: Suite,
        catalog: Catalog,
        store: Store,
        launcher: Launcher | Here,
        home: Path,
        plugins: Sequence[Path],
        overrides: Sequence[str],
        parallel: int,
        tell: Tell,
        max_failures: int | None = None,
    ) -> None:
        self.suite, self.catalog, self.launcher, self.store = suite, catalog, launcher, store
        self.plugins, self.parallel, self.tell = [path.resolve() for path in plugins], parallel, tell
        self.overrides, self.max_failures = canonical_overrides(overrides), max_failures
        self.logbook = Logbook(store, suite, self.overrides)
        self.storage = Storage.of_store(store.tracking.uri)
        self.spool = Spool(home)
        self.fits: dict[Fit, TrialWork | _CellFit] = {}
        self.roster: Roster | None = None
        self.finished = self.failed = 0

    def run(self, ledger: Ledger, selected: Sequence[PlannedCell], *, retry: bool = False) -> Summary:
        """Run those of the `selected` cells that `ledger` has neither finished nor failed; with `retry` the failed.

        Ctrl-C, SIGTERM and SIGHUP leave the rest for the same command given again; SIGTERM lets every fit end the
        epoch that it is in, if that takes no longer than EPOCH_GRACE.
        """
        started = time.monotonic()
        is_interrupted = False
        with Interruption() as interruption:
            try:
                self.store.claims.keep()
                self.roster = self._open(ledger, selected, retry=retry)
                self._work_through(self.roster, interruption)
            except StoreError:
                self.store.hurry()
                raise
            except KeyboardInterrupt:
                is_interrupted = True
                if interruption.is_gentle and isinstance(self.launcher, Launcher):
                    self._end_epochs()
            finally:
                self._stop_everything()
        summary = Summary(
            finished=self.finished,
            failed=self.failed + (self.roster.failed if self.roster else 0),
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
                with interruption.welcome() if isinstance(fit, FitHere) else nullcontext():
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
        return self.max_failures is not None and self.failed >= self.max_failures

    def _start(self, work: Work) -> None:
        contest = work.contest
        if isinstance(work, TrialWork):
            plan = contest.trial_plan(work.number, plugins=self.plugins, parallel=self.parallel, work=self.spool.fits)
            self.fits[self._launch(plan)] = work
            self.logbook.study(contest)
        elif contest.broken is not None:
            run_id = self.logbook.open_cell(
                work.cell, Chosen(hyperparameters={}, trial=None, validation=None), work.claim
            )
            self._fail(work, run_id, contest.broken)
        else:
            assert contest.chosen is not None
            plan = contest.cell_plan(work.cell, plugins=self.plugins, parallel=self.parallel, work=self.spool.fits)
            if self._deliver(work):
                return
            self.spool.reserve(plan.folder)
            # The fit loads its data while its run is opened: it cannot ask for the test split before that.
            fit = self._launch(plan)
            run_id = self.logbook.open_cell(work.cell, contest.chosen, work.claim)
            self.fits[fit] = _CellFit(work=work, chosen=contest.chosen, run_id=run_id)

    def _launch(self, plan: FitPlan) -> Fit:
        with said_plainly(str(self.spool.fits)):
            fit = self.launcher.start(plan)
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

    def _heard(self, fit: Fit, said: Message | Outcome) -> None:
        work = self.fits[fit]
        match said:
            case EpochEnded() if isinstance(work, TrialWork):
                self.tell(said)
                work.contest.trial_told(work.number, said, fit.answer)
            case EpochEnded():
                assert isinstance(work, _CellFit)
                fit.answer("go")  # it trains on while the store writes
                self.tell(said)
                work.epochs.append(said)
                self.logbook.epoch(work.run_id, said)
            case AskTest():
                assert isinstance(work, _CellFit)
                if not self.store.claims.holds(work.work.claim):  # the test split is not ours to open any more
                    self._drop(fit)
                    self._leave(work.work, work.run_id)
                    return
                work.openings = self.logbook.opening(work.run_id, said.weights_sha256)
                self.tell(TestOpened(cell=fit.plan.name, openings=work.openings))
                fit.answer("go")
            case Fitted() | Pruned() | Failure():
                self._ended(fit, said)

    def _ended(self, fit: Fit, outcome: Outcome) -> None:
        seconds = fit.seconds
        fit.end()
        work = self.fits.pop(fit)
        if isinstance(work, TrialWork):
            self._trial_ended(work, fit.plan, outcome, seconds=seconds)
        elif isinstance(outcome, Fitted):
            self._cell_fitted(work, fit.plan, outcome)
        else:
            assert isinstance(outcome, Failure)
            self._fail(work.work, work.run_id, outcome)

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

    def _cell_fitted(self, fit: _CellFit, plan: FitPlan, fitted: Fitted) -> None:
        result = self._result(fit, fitted)
        primary = result.score(self.suite.primary)
        if primary is None or primary.value is None:
            why = primary.unscored if primary else "the fit did not score it"
            self.logbook.keep_files(fit.run_id, plan.folder)  # a metric that fails never loses the training
            failure = Failure(
                kind=FailureKind.METRIC, message=f"{self.suite.primary}: {why}", log=str(plan.folder / LOG)
            )
            self._fail(fit.work, fit.run_id, failure)
            return
        try:
            self._store_result(fit, plan.folder, result)
        except LostClaimError:
            self._leave(fit.work, fit.run_id)
            return
        self.finished += 1
        self.store.claims.release(fit.work.claim)
        complaints = tuple(f"{one.name}: {one.unscored}" for one in result.scores if one.is_raised)
        self.tell(CellFinished(cell=plan.name, primary=primary.value, run_id=fit.run_id, complaints=complaints))
        shutil.rmtree(plan.folder, ignore_errors=True)

    def _store_result(self, fit: _CellFit, folder: Path, result: Result) -> None:
        cell, contest = fit.work.cell, fit.work.contest
        delivery = Delivery(
            result=result,
            contestant=contest.contestant,
            overrides=self.overrides,
            parts=dict(cell.identity.parts),
            is_guest=cell.is_guest,
            claim=fit.work.claim,
            epochs=fit.epochs,
        )
        self.logbook.check(fit.work.claim)
        self.spool.describe(folder, delivery)
        try:
            self.logbook.finish(fit.run_id, fit.work.claim, result, folder)
        except LostClaimError:
            raise
        except StoreError as error:
            place = self.spool.keep(folder)
            raise StoreError(
                f"{error}. Nothing is lost: the result of {cell.name} waits in {place}, and the next `whitebench run` "
                "on this store puts it there"
            ) from error

    def _deliver(self, work: CellWork) -> bool:
        """Store the result that an earlier owner of the cell could not, if there is one."""
        for folder, delivery in self.spool.waiting():
            if delivery.claim == work.claim:
                store_delivery(self.store, delivery, folder)
                self.store.claims.release(work.claim)
                self.finished += 1
                primary = delivery.result.score(self.suite.primary)
                value, run_id = primary.value if primary else None, ""
                self.tell(CellFinished(cell=str(delivery.cell), primary=value, run_id=run_id, is_elsewhere=True))
                return True
        return False

    def _leave(self, work: CellWork, run_id: str) -> None:
        """Leave a cell to the conductor that has taken it over, and wait for what comes of it."""
        _log.warning("%s was taken over by another conductor", work.cell.name)
        self.logbook.drop(run_id)
        work.contest.waiting_cells.append(work.cell)

    def _result(self, fit: _CellFit, fitted: Fitted) -> Result:
        tuning_time = Score(
            name="tuning-time",
            metric="tuning-time",
            version=1,
            direction="lower",
            unit="s",
            value=fit.chosen.tuning_seconds,
        )
        return Result(
            cell=fit.work.cell.name,
            identity=fit.work.cell.identity.digest,
            primary=self.suite.primary,
            scores=fitted.scores,
            costs=(*fitted.costs, tuning_time),
            chosen=fit.chosen,
            epochs_allowed=self.suite.budget.epochs,
            reported_epoch=fitted.reported_epoch,
            validation=fitted.validation,
            test_samples=fitted.test_samples,
            test_openings=fit.openings,
            predictions_sha256=fitted.predictions_sha256,
            weights_sha256=fitted.weights_sha256,
            provenance=fitted.provenance,
        )

    def _fail(self, work: CellWork, run_id: str, failure: Failure) -> None:
        try:
            self.logbook.fail(run_id, work.claim, failure)
        except LostClaimError:
            self._leave(work, run_id)
            return
        self.store.claims.release(work.claim)
        self.failed += 1
        self.tell(CellFailed(cell=str(work.cell.name), kind=failure.kind.value, message=failure.message))

    def _end_epochs(self) -> None:
        """Hear the fits until each has ended the epoch it is in, or as long as there is time for it."""
        for fit, work in list(self.fits.items()):
            if isinstance(work, TrialWork) and work.number in work.contest.undecided():  # it has ended one and waits
                self._drop(fit)
        deadline = time.monotonic() + EPOCH_GRACE
        while self.fits and (left := deadline - time.monotonic()) > 0:
            for fit in self.launcher.wait(list(self.fits), left):
                fit.attend(self._heard_last, lambda: None)

    def _heard_last(self, fit: Fit, said: Message | Outcome) -> None:
        self._heard(fit, said)
        if isinstance(said, EpochEnded):  # its checkpoint was written before it was told
            self._drop(fit)

    def _drop(self, fit: Fit) -> None:
        fit.end()
        self.fits.pop(fit)

    def _stop_everything(self) -> None:
        self.launcher.close()
        self.fits.clear()
        self.logbook.close()
        self.store.claims.close()

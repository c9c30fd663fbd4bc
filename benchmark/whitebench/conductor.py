"""The one process that plans, tunes and stores; it never trains. Cell by cell: tune, freeze, fit, test, store."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from whitebench.catalog import Catalog
from whitebench.contest import Contest, open_contests
from whitebench.errors import WhitebenchError
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
from whitebench.interruption import Interruption
from whitebench.launch import Launcher, RunningFit, wait_for
from whitebench.ledger import Ledger, PlannedCell, canonical_overrides
from whitebench.logbook import Logbook
from whitebench.result import Chosen, Failure, FailureKind, Result, Score
from whitebench.store import Store
from whitebench.suite import Suite
from whitebench.tuning import Storage

Tell = Callable[[Event], None]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a run did."""

    finished: int
    failed: int
    is_interrupted: bool
    seconds: float


@dataclass(frozen=True, kw_only=True)
class _TrialFit:
    """A trial under way."""

    contest: Contest
    number: int


@dataclass(kw_only=True)
class _CellFit:
    """A cell under way: its fit runs and its run in the store is open."""

    contest: Contest
    cell: PlannedCell
    chosen: Chosen
    run_id: str
    openings: int = 0


class Conductor:
    """Runs the cells of a suite that are not done."""

    def __init__(
        self,
        *,
        suite: Suite,
        catalog: Catalog,
        store: Store,
        launcher: Launcher,
        home: Path,
        plugins: Sequence[Path],
        overrides: Sequence[str],
        parallel: int,
        tell: Tell,
    ) -> None:
        self.suite, self.catalog, self.launcher = suite, catalog, launcher
        self.plugins, self.parallel, self.tell = [path.resolve() for path in plugins], parallel, tell
        self.logbook = Logbook(store, suite, canonical_overrides(overrides))
        self.storage = Storage.in_folder(home)
        self.work = home / ".whitebench" / "fits"
        self.fits: dict[RunningFit, _TrialFit | _CellFit] = {}
        self.finished = self.failed = 0

    def run(self, ledger: Ledger, selected: Sequence[PlannedCell]) -> Summary:
        """Run those of the `selected` cells that `ledger` does not have as finished.

        Ctrl-C, SIGTERM and SIGHUP leave the rest for the same command given again.
        """
        started = time.monotonic()
        with Interruption() as interruption:
            is_interrupted = False
            try:
                self._work_through(self._open(ledger, selected), interruption)
            except KeyboardInterrupt:
                is_interrupted = True
            finally:
                self._stop_everything()
        summary = Summary(
            finished=self.finished,
            failed=self.failed,
            is_interrupted=is_interrupted,
            seconds=time.monotonic() - started,
        )
        self.tell(SuiteEnded(suite=self.suite.name, **dataclasses.asdict(summary)))
        return summary

    def _open(self, ledger: Ledger, selected: Sequence[PlannedCell]) -> list[Contest]:
        done = {record.cell for record in ledger.records if record.state == "finished"}
        owed = [cell for cell in selected if cell.name not in done]
        contests = open_contests(self.suite, owed, self.catalog, self.storage, ledger.direction)
        self.tell(
            SuiteStarted(
                suite=self.suite.name,
                cells=tuple(str(cell.name) for cell in owed),
                done=tuple(str(cell.name) for cell in selected if cell.name in done),
                trials_owed={contest.name: len(contest.waiting_trials) for contest in contests},
            )
        )
        return contests

    def _work_through(self, contests: Sequence[Contest], interruption: Interruption) -> None:
        if contests:
            with interruption.welcome():
                self.launcher.warm()  # up to 11 s in which nothing has begun that could be lost
        while True:
            for contest in contests:
                self._choose_when_tuned(contest)
            while len(self.fits) < self.parallel and not interruption.is_wanted and self._start_next(contests):
                pass
            if not self.fits:
                if interruption.is_wanted and any(contest.waiting_cells for contest in contests):
                    raise KeyboardInterrupt
                return
            with interruption.welcome():
                ready = wait_for(list(self.fits), 1.0)
            for fit in ready:
                if (said := fit.receive()) is not None:
                    self._heard(fit, said)
            for fit in [fit for fit in self.fits if fit.is_overdue]:
                self._ended(fit, fit.timed_out())

    def _start_next(self, contests: Sequence[Contest]) -> bool:
        for contest in contests:
            if (number := contest.next_trial()) is not None:
                self._start_trial(contest, number)
                return True
            if (cell := contest.next_cell()) is not None:
                self._start_cell(contest, cell)
                return True
        return False

    def _start_trial(self, contest: Contest, number: int) -> None:
        fit = self._start(contest.trial_plan(number, plugins=self.plugins, parallel=self.parallel, work=self.work))
        self.fits[fit] = _TrialFit(contest=contest, number=number)
        self.logbook.study(contest)

    def _start_cell(self, contest: Contest, cell: PlannedCell) -> None:
        assert contest.chosen is not None
        # The fit loads its data while its run is opened: it cannot ask for the test split before that.
        fit = self._start(contest.cell_plan(cell, plugins=self.plugins, parallel=self.parallel, work=self.work))
        run_id = self.logbook.open_cell(cell, contest.chosen)
        self.fits[fit] = _CellFit(contest=contest, cell=cell, chosen=contest.chosen, run_id=run_id)

    def _start(self, plan: FitPlan) -> RunningFit:
        fit = self.launcher.start(plan)
        self.tell(FitStarted(fit=plan.name, purpose=plan.purpose, pid=fit.pid))
        return fit

    def _choose_when_tuned(self, contest: Contest) -> None:
        if contest.chosen is not None or not contest.is_tuned or not contest.waiting_cells:
            return
        try:
            contest.chosen = contest.study.choose()
        except WhitebenchError as error:
            kind = FailureKind(next((t.reason.partition(":")[0] for t in contest.study.trials if t.reason), "error"))
            for cell in contest.waiting_cells:
                run_id = self.logbook.open_cell(cell, Chosen(hyperparameters={}, trial=None, validation=None))
                self._fail(cell, run_id, Failure(kind=kind, message=str(error)))
            contest.waiting_cells = []
        if contest.study.allowed:
            self.logbook.choose(contest)

    def _heard(self, fit: RunningFit, said: Message | Outcome) -> None:
        work = self.fits[fit]
        match said:
            case EpochEnded() if isinstance(work, _TrialFit):
                self.tell(said)
                work.contest.trial_told(work.number, said, fit.answer)
            case EpochEnded():
                assert isinstance(work, _CellFit)
                fit.answer("go")  # it trains on while the store writes
                self.tell(said)
                self.logbook.epoch(work.run_id, said)
            case AskTest():
                assert isinstance(work, _CellFit)
                work.openings = self.logbook.opening(work.run_id, said.weights_sha256)
                self.tell(TestOpened(cell=fit.plan.name, openings=work.openings))
                fit.answer("go")
            case Fitted() | Pruned() | Failure():
                self._ended(fit, said)

    def _ended(self, fit: RunningFit, outcome: Outcome) -> None:
        seconds = fit.seconds
        fit.end()
        work = self.fits.pop(fit)
        if isinstance(work, _TrialFit):
            self._trial_ended(work, fit.plan, outcome, seconds=seconds)
        elif isinstance(outcome, Fitted):
            self._cell_fitted(work, fit.plan, outcome)
        else:
            assert isinstance(outcome, Failure)
            self._fail(work.cell, work.run_id, outcome)

    def _trial_ended(self, work: _TrialFit, plan: FitPlan, outcome: Outcome, *, seconds: float) -> None:
        trial, epochs = work.contest.trial_ended(work.number, plan, outcome, seconds=seconds)
        self.logbook.trial(work.contest, trial, epochs)
        self.tell(TrialEnded(fit=plan.name, state=trial.state, validation=trial.validation, reason=trial.reason))
        shutil.rmtree(plan.folder, ignore_errors=True)

    def _cell_fitted(self, work: _CellFit, plan: FitPlan, fitted: Fitted) -> None:
        result = self._result(work, fitted)
        primary = result.score(self.suite.primary)
        if primary is None or primary.value is None:
            why = primary.unscored if primary else "the fit did not score it"
            self.logbook.keep_files(work.run_id, plan.folder)  # a metric that fails never loses the training
            failure = Failure(
                kind=FailureKind.METRIC, message=f"{self.suite.primary}: {why}", log=str(plan.folder / LOG)
            )
            self._fail(work.cell, work.run_id, failure)
            return
        self.logbook.finish(work.run_id, result, plan.folder)
        self.finished += 1
        complaints = tuple(f"{one.name}: {one.unscored}" for one in result.scores if one.is_raised)
        self.tell(CellFinished(cell=plan.name, primary=primary.value, run_id=work.run_id, complaints=complaints))
        shutil.rmtree(plan.folder, ignore_errors=True)

    def _result(self, work: _CellFit, fitted: Fitted) -> Result:
        tuning_time = Score(
            name="tuning-time",
            metric="tuning-time",
            version=1,
            direction="lower",
            unit="s",
            value=work.chosen.tuning_seconds,
        )
        return Result(
            cell=work.cell.name,
            identity=work.cell.identity.digest,
            primary=self.suite.primary,
            scores=fitted.scores,
            costs=(*fitted.costs, tuning_time),
            chosen=work.chosen,
            epochs_allowed=self.suite.budget.epochs,
            reported_epoch=fitted.reported_epoch,
            validation=fitted.validation,
            test_samples=fitted.test_samples,
            test_openings=work.openings,
            predictions_sha256=fitted.predictions_sha256,
            weights_sha256=fitted.weights_sha256,
            provenance=fitted.provenance,
        )

    def _fail(self, cell: PlannedCell, run_id: str, failure: Failure) -> None:
        self.logbook.fail(run_id, failure)
        self.failed += 1
        self.tell(CellFailed(cell=str(cell.name), kind=failure.kind.value, message=failure.message))

    def _stop_everything(self) -> None:
        self.launcher.close()
        self.fits.clear()
        self.logbook.close()

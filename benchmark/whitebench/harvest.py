"""What becomes of a cell that has ended: its result is stored, its failure written down, or it is another's now."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from whitebench.errors import LostClaimError, StoreError
from whitebench.events import CellFailed, CellFinished, EpochEnded, Event
from whitebench.fit import LOG, FitPlan, Fitted
from whitebench.logbook import Logbook
from whitebench.result import Chosen, Failure, FailureKind, Result, Score
from whitebench.roster import CellWork
from whitebench.spool import Delivery, Spool, store_delivery
from whitebench.store import Store
from whitebench.suite import Suite

_log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class CellFit:
    """A cell under way: its fit runs and its run in the store is open."""

    work: CellWork
    chosen: Chosen
    run_id: str
    openings: int = 0
    epochs: list[EpochEnded] = field(default_factory=list)


class Harvest:
    """Takes in the cells of one conductor as they end."""

    def __init__(
        self,
        suite: Suite,
        store: Store,
        logbook: Logbook,
        spool: Spool,
        *,
        overrides: str,
        tell: Callable[[Event], None],
    ) -> None:
        self.suite, self.store, self.logbook, self.spool = suite, store, logbook, spool
        self.overrides, self.tell = overrides, tell
        self.finished = self.failed = 0

    def fitted(self, fit: CellFit, plan: FitPlan, fitted: Fitted) -> None:
        """Store the result of a fit that ran to its end."""
        result = self._result(fit, fitted)
        primary = result.score(self.suite.primary)
        if primary is None or primary.value is None:
            why = primary.unscored if primary else "the fit did not score it"
            self.logbook.keep_files(fit.run_id, plan.folder)  # a metric that fails never loses the training
            failure = Failure(
                kind=FailureKind.METRIC, message=f"{self.suite.primary}: {why}", log=str(plan.folder / LOG)
            )
            self.fail(fit.work, fit.run_id, failure)
            return
        try:
            self._store_result(fit, plan.folder, result)
        except LostClaimError:
            self.leave(fit.work, fit.run_id)
            return
        self.finished += 1
        self.store.claims.release(fit.work.claim)
        complaints = tuple(f"{one.name}: {one.unscored}" for one in result.scores if one.is_raised)
        self.tell(CellFinished(cell=plan.name, primary=primary.value, run_id=fit.run_id, complaints=complaints))
        shutil.rmtree(plan.folder, ignore_errors=True)

    def fail(self, work: CellWork, run_id: str, failure: Failure) -> None:
        """Write down why a cell yielded nothing."""
        try:
            self.logbook.fail(run_id, work.claim, failure)
        except LostClaimError:
            self.leave(work, run_id)
            return
        self.store.claims.release(work.claim)
        self.failed += 1
        self.tell(CellFailed(cell=str(work.cell.name), kind=failure.kind.value, message=failure.message))

    def leave(self, work: CellWork, run_id: str) -> None:
        """Leave a cell to the conductor that has taken it over, and wait for what comes of it."""
        _log.warning("%s was taken over by another conductor", work.cell.name)
        self.logbook.drop(run_id)
        work.contest.waiting_cells.append(work.cell)

    def put_back(self, work: CellWork, run_id: str) -> None:
        """Put a cell whose fit was lost back to those that wait; whoever is free may take it."""
        self.logbook.drop(run_id)
        work.contest.waiting_cells.insert(0, work.cell)
        self.store.claims.release(work.claim)

    def deliver(self, work: CellWork) -> bool:
        """Store the result that an earlier owner of the cell could not, if there is one."""
        for folder, delivery in self.spool.waiting():
            if delivery.claim == work.claim:
                run_id = store_delivery(self.store, delivery, folder)
                self.store.claims.release(work.claim)
                self.finished += 1
                primary = delivery.result.score(self.suite.primary)
                value = primary.value if primary else None
                self.tell(CellFinished(cell=str(delivery.cell), primary=value, run_id=run_id, is_elsewhere=True))
                return True
        return False

    def _store_result(self, fit: CellFit, folder: Path, result: Result) -> None:
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

    def _result(self, fit: CellFit, fitted: Fitted) -> Result:
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
            costs=(*fitted.costs, *([tuning_time] if self.suite.recipes else [])),  # where tasks solve themselves: none
            chosen=fit.chosen,
            epochs_allowed=fit.work.cell.contestant.epochs_of(self.suite.budget),
            reported_epoch=fitted.reported_epoch,
            validation=fitted.validation,
            test_samples=fitted.test_samples,
            test_openings=fit.openings,
            predictions_sha256=fitted.predictions_sha256,
            weights_sha256=fitted.weights_sha256,
            provenance=fitted.provenance,
            facts=fitted.facts,
        )

"""What a conductor writes into the store while it runs; however it ends, no run is left open."""

from __future__ import annotations

import logging
from pathlib import Path

from whitebench.contest import Contest, trial_claim
from whitebench.errors import LostClaimError, StoreError
from whitebench.events import EpochEnded
from whitebench.identity import digest_of
from whitebench.ledger import PlannedCell
from whitebench.result import Chosen, Failure, Result
from whitebench.store import Store
from whitebench.suite import Suite
from whitebench.tuning import Trial

_log = logging.getLogger(__name__)


class Logbook:
    """The runs of one conductor, each open until it is finished, failed or interrupted, under a claim of its own."""

    def __init__(self, store: Store, suite: Suite, overrides: str) -> None:
        self._store, self._suite, self._overrides = store, suite, overrides
        self._open: set[str] = set()
        self._studies: dict[str, str] = {}
        """The run of each study, by the study's name."""
        store.close_orphans(suite.name)

    def open_cell(self, cell: PlannedCell, chosen: Chosen, claim: str) -> str:
        """Open the run of a cell whose choice is frozen, and return its id."""
        run_id = self._store.open_cell(
            cell.name,
            contestant=cell.contestant,
            overrides=self._overrides,
            identity=cell.identity.digest,
            parts=cell.identity.parts,
            chosen=chosen,
            is_guest=cell.is_guest,
            claim=claim,
        )
        self._open.add(run_id)
        return run_id

    def epoch(self, run_id: str, event: EpochEnded) -> None:
        """Add an epoch to a cell's curves."""
        self._store.log_epoch(run_id, event, self._suite.primary)

    def opening(self, run_id: str, weights_sha256: str) -> int:
        """Write down that a cell's test split is being opened; return how often it has been in this store."""
        return self._store.record_opening(run_id, weights_sha256)

    def keep_files(self, run_id: str, folder: Path) -> None:
        """Keep what a fit left in `folder`, whatever becomes of its cell."""
        self._store.keep_files(run_id, folder)

    def finish(self, run_id: str, claim: str, result: Result, folder: Path) -> None:
        """Close the run of a cell with its result.

        Raises:
            LostClaimError: another conductor has taken the cell over in the meantime.
        """
        self.check(claim)
        self._store.finish_cell(run_id, result, folder)
        self._open.discard(run_id)

    def fail(self, run_id: str, claim: str, failure: Failure) -> None:
        """Close the run of a cell with the reason why there is no result; raises LostClaimError."""
        self.check(claim)
        self._store.fail_cell(run_id, failure)
        self._open.discard(run_id)

    def drop(self, run_id: str) -> None:
        """Close the run of a cell that is not this conductor's any more."""
        self._store.close_orphan(run_id)
        self._open.discard(run_id)

    def trial(self, contest: Contest, trial: Trial) -> None:
        """Write down a trial that has ended, under its study."""
        self._store.log_trial(
            self.study(contest),
            number=trial.number,
            hyperparameters=trial.hyperparameters,
            state=trial.state,
            epochs=trial.epochs,
            primary=self._suite.primary,
            validation=trial.validation,
            reason=trial.reason,
            claim=trial_claim(contest.study.name, trial.number),
        )

    def study(self, contest: Contest) -> str:
        """Return the run under which the contest's trials stand, opened where it is not yet."""
        name = contest.study.name
        if name not in self._studies:
            everybody = self._everybody(name)
            self._store.claims.take(self._presence(name))
            self._studies[name] = self._store.open_study(
                self._suite.name,
                contest.contestant.label,
                contest.task,
                overrides=self._overrides,
                name=name,
                claim=everybody,
            )
        return self._studies[name]

    def choose(self, contest: Contest) -> None:
        """Close the run of the contest's study with the choice, or without one, all of its trials written down."""
        run_id = self.study(contest)
        self._complete(contest, run_id)
        self._store.close_study(run_id, contest.chosen)

    def close(self) -> None:
        """Mark what is still open as interrupted, and end what owners left open who are dead by now."""
        try:
            for name, run_id in self._studies.items():
                self._store.claims.release(self._presence(name))
                self._store.leave_study(run_id)
            for run_id in self._open:
                self._store.close_orphan(run_id)
            self._store.close_orphans(self._suite.name)
        except StoreError:  # perhaps what brought us here; the next conductor ends what stays open
            _log.exception("some runs stay open")
        self._studies.clear()
        self._open.clear()

    def check(self, claim: str) -> None:
        """Raise LostClaimError where another conductor has taken a cell over."""
        if not self._store.claims.holds(claim):
            raise LostClaimError(f"{claim} was taken over by another conductor")

    # Inside

    def _complete(self, contest: Contest, run_id: str) -> None:
        """Write down the trials that somebody ran and, killed, did not write down."""
        logged = self._store.logged_trials(run_id)
        for trial in contest.study.trials:
            claim = trial_claim(contest.study.name, trial.number)
            if trial.number in logged or not self._store.claims.take(claim):
                continue
            if trial.number not in self._store.logged_trials(run_id):  # asked again once nobody else can be at it
                self.trial(contest, trial)
            self._store.claims.release(claim)

    def _everybody(self, study: str) -> str:
        return f"study/{digest_of([study, self._overrides])[:32]}/"

    def _presence(self, study: str) -> str:
        return f"{self._everybody(study)}{self._store.claims.owner.token}"

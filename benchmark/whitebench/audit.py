"""Finished cells put to the test: their files against the record, then every score computed again and compared.

Either the scores alone are counted again, from stored predictions and weights, or the whole fit is repeated. What comes
out is recorded with the cell's run; the reported numbers stay as they are, whatever it is.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from whitebench.calibration import noise_floor
from whitebench.catalog import Catalog
from whitebench.comparison import Comparison
from whitebench.contest import owners_of
from whitebench.errors import LostResultError
from whitebench.fit import PREDICTIONS, WEIGHTS, FitPlan, Fitted, Outcome
from whitebench.identity import CellName, Parts
from whitebench.judgement import judge
from whitebench.launch import Launcher
from whitebench.ledger import PlannedCell, canonical_overrides, pick, plan_cells
from whitebench.names import parse_name
from whitebench.provenance import now, processor_name
from whitebench.repetition import outcomes
from whitebench.result import Failure, Result, digest, result_from_json
from whitebench.store import RESULT, Store
from whitebench.suite import Contestant, Suite, with_guests
from whitebench.tags import StoredCell
from whitebench.verification import Verification

SETTLED = ("packages.", "tuning.", "budget.trials")
"""Parts of an identity that a frozen choice depends on no more; versions of libraries are compared as circumstances."""
LEARNT_BY = (
    "recipe.", "budget.epochs", "budget.compile", "budget.report", "sources.objective ", "contestant.weights",
    "contestant.is_trained",
)  # fmt: skip
"""Parts that decide what is learnt, and not how it is measured."""


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """A finished cell, and the run that speaks for it."""

    planned: PlannedCell
    stored: StoredCell


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of one exhibit."""

    cell: CellName
    verification: Verification | None = None
    """As it is recorded; None where the cell could not be verified."""
    why: str = ""
    """Why it could not be."""
    traceback: str = ""
    comparisons: Sequence[Comparison] = ()

    @property
    def standing(self) -> str:
        """`recomputed`, `reproduced`, `differs` or `unverified`."""
        return self.verification.standing if self.verification else "unverified"


class _UnverifiableError(Exception):
    """Scores that cannot be computed again; says why."""


class _TamperedError(Exception):
    """Files that are not those of the record; says which."""


class Audit:
    """The verification of a suite's cells in one store."""

    def __init__(
        self,
        suite: Suite,
        catalog: Catalog,
        store: Store,
        *,
        overrides: Sequence[str],
        plugins: Sequence[Path],
        work: Path,
        is_repeated: bool,
    ) -> None:
        self._catalog, self._store, self._work, self._is_repeated = catalog, store, work, is_repeated
        self._plugins = [path.resolve() for path in plugins]
        overridden = canonical_overrides(overrides)
        self._runs = store.cells(suite.name, overridden)
        self._noise = noise_floor(store.calibrations(suite.name, overridden))
        guests = {one.contestant.label: one.contestant for one in self._runs if one.is_guest}
        known = [one for one in guests.values() if suite.contestant(one.label) is None and self._is_known(one, suite)]
        self.suite = with_guests(suite, known)
        self._under_way: dict[Path, tuple[Exhibit, Result]] = {}
        """By the folder of its fit."""

    def names(self) -> list[str]:
        """Return the names of all cells, `SUITE/CONTESTANT/TASK/SEED`, whatever has become of them."""
        return [str(cell.name) for cell in plan_cells(self.suite, self._catalog)]

    def exhibits(self) -> list[Exhibit]:
        """Return the suite's finished cells, stale ones included, and those of guests whose plugin is loaded."""
        found = [(cell, pick(self._runs, cell)) for cell in plan_cells(self.suite, self._catalog)]
        return [Exhibit(planned=cell, stored=one) for cell, one in found if one and one.state == "finished"]

    def verdicts(
        self, exhibits: Sequence[Exhibit], launcher: Launcher, *, parallel: int = 1
    ) -> Generator[Verdict, None, None]:
        """Verify cells, record what comes out with their runs, and yield it as they are done."""
        early: list[Verdict] = []
        _sweep(self._work)
        try:
            for plan, outcome in outcomes(launcher, self._plans(exhibits, early), parallel=parallel):
                while early:
                    yield early.pop(0)
                exhibit, result = self._under_way[plan.folder]
                yield self._recorded(exhibit, self._judged(exhibit, result, plan, outcome))
                del self._under_way[plan.folder]
                shutil.rmtree(plan.folder, ignore_errors=True)
            yield from early
        finally:
            for folder in self._under_way:
                shutil.rmtree(folder, ignore_errors=True)

    # Inside

    def _is_known(self, guest: Contestant, suite: Suite) -> bool:
        is_planned = not suite.recipes or guest.recipe in suite.recipes
        return is_planned and parse_name(guest.model)[0] in self._catalog.entries["model"]

    def _plans(self, exhibits: Sequence[Exhibit], early: list[Verdict]) -> Iterator[FitPlan]:
        """Yield what is to be computed; verdicts on cells for which that is nothing go to `early`."""
        for exhibit in exhibits:
            cell = exhibit.planned.name
            try:
                result, files = self._evidence(exhibit)
            except (LostResultError, _UnverifiableError) as error:
                early.append(Verdict(cell=cell, why=str(error)))
            except _TamperedError as error:
                early.append(self._recorded(exhibit, Verdict(cell=cell, verification=self._tampered(str(error)))))
            else:
                self._work.mkdir(parents=True, exist_ok=True)
                folder = Path(tempfile.mkdtemp(prefix=f"{_mark()}{os.getpid()}-", dir=self._work))
                self._under_way[folder] = (exhibit, result)
                for name, content in files.items():
                    (folder / name).write_bytes(content)
                yield plan_again(
                    self.suite,
                    exhibit.planned,
                    result,
                    self._catalog,
                    plugins=self._plugins,
                    folder=folder,
                    is_fit=self._is_fit(result),
                )

    def _is_fit(self, result: Result) -> bool:
        return self._is_repeated or result.is_solved

    def _evidence(self, exhibit: Exhibit) -> tuple[Result, dict[str, bytes]]:
        """Return a cell's result and the files that its scores are counted from, all of them as the record says.

        Raises:
            LostResultError: something that is needed is gone.
            _TamperedError: something is not what was stored.
            _UnverifiableError: what would be computed is not what was computed.
        """
        stored = exhibit.stored
        text = self._store.artifact(stored, RESULT)
        _see(RESULT, stored, stored.result_sha256, text)
        try:
            result = result_from_json(text)
        except ValueError as error:
            raise _UnverifiableError(f"{RESULT} of run {stored.run_id} cannot be read: {error}") from error
        files = {}
        for name, sha256 in ((PREDICTIONS, result.predictions_sha256), (WEIGHTS, result.weights_sha256)):
            content = self._file(stored, name, is_needed=not self._is_fit(result)) if sha256 else None
            if content is not None:
                _see(name, stored, sha256, content)
                files[name] = content
        if why := spoilers(exhibit.planned, self._store.parts(stored), is_fit=self._is_fit(result)):
            raise _UnverifiableError(f"it is stale, and what would be computed is not what was: {why}")
        return result, {} if self._is_fit(result) else files

    def _file(self, stored: StoredCell, name: str, *, is_needed: bool) -> bytes | None:
        try:
            return self._store.artifact(stored, name)
        except LostResultError as error:
            if is_needed:
                raise _UnverifiableError(f"{error}: `whitebench verify --retrain` repeats the fit instead") from error
            return None

    def _tampered(self, fault: str) -> Verification:
        """Return the verification that found a stored file changed, for which nothing had to be computed."""
        return Verification(
            is_repeated=self._is_repeated, when=now(), device=processor_name(), threads=self.suite.budget.threads,
            versions={}, num_scores=0, differences=(fault,),
        )  # fmt: skip

    def _recorded(self, exhibit: Exhibit, verdict: Verdict) -> Verdict:
        if verdict.verification is not None:
            self._store.record_verification(exhibit.stored.run_id, verdict.verification)
        return verdict

    def _judged(self, exhibit: Exhibit, result: Result, plan: FitPlan, outcome: Outcome) -> Verdict:
        cell = exhibit.planned.name
        if isinstance(outcome, Failure):
            return Verdict(cell=cell, why=f"{outcome.kind}: {outcome.message}", traceback=outcome.traceback)
        assert isinstance(outcome, Fitted)
        found = judge(result, outcome, plan, self._catalog, noise_floor=self._noise)
        return Verdict(cell=cell, verification=found.verification, comparisons=found.comparisons)


def plan_again(
    suite: Suite,
    cell: PlannedCell,
    result: Result,
    catalog: Catalog,
    *,
    plugins: Sequence[Path],
    folder: Path,
    is_fit: bool,
) -> FitPlan:
    """Return what repeats the fit of a finished cell with its frozen hyperparameters, or only counts its scores."""
    return FitPlan(
        name=str(cell.name),
        purpose="cell" if is_fit else "recount",
        contestant=cell.contestant,
        task=cell.name.task,
        path=suite.path_of(cell.name.task),
        manifest=cell.identity.parts["task"].get("manifest") or {},
        primary=suite.primary,
        metrics=suite.metrics,
        readouts=suite.readouts,
        budget=suite.budget,
        limits=suite.limits,
        recipe=suite.recipe_of(cell.contestant),
        hyperparameters=result.chosen.hyperparameters,
        seed=cell.name.seed,
        plugins=plugins,
        owners=owners_of(suite, cell, catalog),
        folder=folder,
    )


def spoilers(cell: PlannedCell, stored: Parts, *, is_fit: bool) -> str:
    """Return what has changed since a cell was run and makes other scores of it, computed again; empty if nothing."""
    harmless = SETTLED if is_fit else (*SETTLED, *LEARNT_BY)
    identity = cell.identity.as_stored(stored)
    return "; ".join(line for line in identity.differences(stored) if not line.startswith(harmless))


def _mark() -> str:
    """Return how the folders of this machine begin in which something is computed again; the process follows."""
    return f"verify-{platform.node()}-"


def _sweep(work: Path) -> None:
    """Remove the folders of processes of this machine that were killed."""
    for folder in work.glob("verify-*"):
        pid = folder.name.removeprefix(_mark()).partition("-")[0]
        if folder.name.startswith(_mark()) and pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _see(name: str, stored: StoredCell, sha256: str, content: bytes) -> None:
    """See that a file is the one of the record."""
    if (found := digest(content)) != sha256:
        raise _TamperedError(
            f"{name} of run {stored.run_id} is not what was stored: its sha256 is {found[:12]}…, "
            f"that of the record {sha256[:12]}…"
        )

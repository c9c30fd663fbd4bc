"""One contestant on one task: its trials, its choice, then its cells. Knows no process and no store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from whitebench.catalog import Catalog
from whitebench.events import EpochEnded
from whitebench.fit import Answer, FitPlan, Fitted, Outcome
from whitebench.identity import digest_of, study_parts
from whitebench.ledger import PlannedCell
from whitebench.names import parse_name
from whitebench.result import Chosen, Failure
from whitebench.space import Space
from whitebench.specs import Direction
from whitebench.suite import Contestant, Suite
from whitebench.tuning import Storage, Study, Trial, verdict


@dataclass(kw_only=True)
class Contest:
    """What is done and what is to do for one contestant on one task."""

    suite: Suite
    contestant: Contestant
    task: str
    study: Study
    direction: Direction
    waiting_trials: list[int]
    waiting_cells: list[PlannedCell]
    """In order of seed; none of them starts before there is a choice."""
    chosen: Chosen | None = None
    _told: dict[int, list[EpochEnded]] = field(default_factory=dict)
    """The epochs of the trials under way, by number."""
    _undecided: dict[int, Callable[[Answer], None]] = field(default_factory=dict)
    """How to answer the trials that wait to hear whether they are pruned."""

    @property
    def name(self) -> str:
        """`SUITE/CONTESTANT/TASK`."""
        return f"{self.suite.name}/{self.contestant.label}/{self.task}"

    @property
    def is_tuned(self) -> bool:
        """Whether every trial has ended."""
        return not self.waiting_trials and not self._told

    def next_trial(self) -> int | None:
        """Take the next trial that can start now, if there is one."""
        if self.waiting_trials and self.study.is_ready(self.waiting_trials[0]):
            number = self.waiting_trials.pop(0)
            self._told[number] = []
            return number
        return None

    def next_cell(self) -> PlannedCell | None:
        """Take the next cell that can start now, if there is one."""
        return self.waiting_cells.pop(0) if self.chosen is not None and self.waiting_cells else None

    def trial_plan(self, number: int, *, plugins: Sequence[Path], work: Path, parallel: int = 1) -> FitPlan:
        """Return what the fit of trial `number` is to do; its folder lies in `work`."""
        return FitPlan(
            name=f"{self.name}/trial-{number}",
            purpose="trial",
            contestant=self.contestant,
            task=self.task,
            primary=self.suite.primary,
            metrics=(),
            budget=self.suite.budget,
            recipe=self.suite.recipes[self.contestant.recipe],
            hyperparameters=self.study.hyperparameters(number),
            seed=self.suite.tuning.seed,
            parallel=parallel,
            plugins=plugins,
            folder=work / f"{self.study.name[:24]}-trial-{number}",
        )

    def cell_plan(self, cell: PlannedCell, *, plugins: Sequence[Path], work: Path, parallel: int = 1) -> FitPlan:
        """Return what the fit of `cell` is to do; its folder lies in `work`."""
        assert self.chosen is not None
        everything = digest_of([str(cell.name), cell.identity.digest, self.chosen.digest])
        return FitPlan(
            name=str(cell.name),
            purpose="cell",
            contestant=self.contestant,
            task=self.task,
            primary=self.suite.primary,
            metrics=self.suite.metrics,
            budget=self.suite.budget,
            recipe=self.suite.recipes[self.contestant.recipe],
            hyperparameters=self.chosen.hyperparameters,
            seed=cell.name.seed,
            parallel=parallel,
            plugins=plugins,
            folder=work / everything[:32],
        )

    def trial_told(self, number: int, event: EpochEnded, answer: Callable[[Answer], None]) -> None:
        """Take in an epoch of a trial, and answer every trial whose verdict is now known."""
        self._told[number].append(event)
        self._undecided[number] = answer
        self._decide()

    def trial_ended(
        self, number: int, plan: FitPlan, outcome: Outcome, *, seconds: float
    ) -> tuple[Trial, list[EpochEnded]]:
        """Take in how a trial ended and return it with its epochs; others may get their verdict from it."""
        epochs = self._told.pop(number)
        self._undecided.pop(number, None)
        trial = _trial(number, plan, outcome, epochs, seconds=seconds)
        self.study.record(trial)
        self._decide()
        return trial, epochs

    def _decide(self) -> None:
        ended = {trial.number: trial.curve for trial in self.study.trials}
        under_way = {number: _curve(epochs) for number, epochs in self._told.items()}
        for number, answer in list(self._undecided.items()):
            known = verdict(
                self.suite.tuning,
                direction=self.direction,
                number=number,
                epoch=self._told[number][-1].epoch,
                curves=ended | under_way,
                ended=ended.keys(),
            )
            if known is not None:
                del self._undecided[number]
                answer(known)


def open_contests(
    suite: Suite, cells: Sequence[PlannedCell], catalog: Catalog, storage: Storage, direction: Direction
) -> list[Contest]:
    """Return a contest for each contestant and task among `cells`, with the trials that it still owes.

    A study that ended without one complete trial starts over: what broke it may be mended.
    """
    by_pair: dict[tuple[str, str], list[PlannedCell]] = {}
    for cell in cells:
        by_pair.setdefault((cell.name.contestant, cell.name.task), []).append(cell)
    contests = []
    for first, *rest in by_pair.values():
        study = open_study(suite, first, catalog, storage)
        if not study.owed and study.trials and not any(trial.state == "complete" for trial in study.trials):
            study.start_over()
        contests.append(
            Contest(
                suite=suite,
                contestant=first.contestant,
                task=first.name.task,
                study=study,
                direction=direction,
                waiting_trials=study.owed,
                waiting_cells=[first, *rest],
            )
        )
    return contests


def open_study(suite: Suite, cell: PlannedCell, catalog: Catalog, storage: Storage) -> Study:
    """Return the study that decides what `cell` is fitted with: what its name pins is not searched."""
    recipe = suite.recipes[cell.contestant.recipe]
    name, pinned = parse_name(cell.contestant.model)
    search = catalog.model(name).spec.search
    own: dict[str, Space] = {f"model.{option}": space for option, space in search.items() if option not in pinned}
    return Study(
        storage,
        # By label as well: two contestants that differ in nothing else would run each other's trials.
        digest_of({**study_parts(cell.identity.parts), "label": cell.name.contestant}),
        search={**recipe.search, **own},
        stated=recipe.stated,
        tuning=suite.tuning,
        direction=catalog.metric(suite.primary).spec.direction,
        allowed=suite.budget.trials,
    )


def trials_owed(suite: Suite, cells: Sequence[PlannedCell], catalog: Catalog, home: Path) -> dict[str, int]:
    """Return, for each contestant and task among `cells`, how many tuning trials are still to run."""
    storage = Storage.in_folder(home)
    firsts = {f"{cell.name.contestant}/{cell.name.task}": cell for cell in reversed(cells)}
    return {pair: len(open_study(suite, cell, catalog, storage).owed) for pair, cell in reversed(firsts.items())}


def _trial(number: int, plan: FitPlan, outcome: Outcome, epochs: Sequence[EpochEnded], *, seconds: float) -> Trial:
    trial = Trial(
        number=number,
        hyperparameters=plan.hyperparameters,
        state="pruned",
        curve=_curve(epochs),
        seconds=seconds,
    )
    if isinstance(outcome, Failure):
        return replace(trial, state="failed", reason=f"{outcome.kind}: {outcome.message}")
    if isinstance(outcome, Fitted):
        loss = outcome.validation_loss
        return replace(trial, state="complete", validation=outcome.validation, validation_loss=loss)
    return trial


def _curve(epochs: Sequence[EpochEnded]) -> dict[int, float]:
    return {one.epoch: one.validation for one in epochs}

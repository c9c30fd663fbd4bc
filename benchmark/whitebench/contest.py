"""One contestant on one task: its trials, its choice, then its cells. Knows no process and no store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from whitebench.catalog import Catalog
from whitebench.events import EpochEnded
from whitebench.fit import Answer, FitPlan, Fitted, Outcome
from whitebench.identity import digest_of, study_parts
from whitebench.ledger import PlannedCell
from whitebench.names import parse_name, with_preset
from whitebench.reading import Direction
from whitebench.result import Chosen, Failure
from whitebench.space import Space
from whitebench.specs import HEAD
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
    overrides: str
    """Of the suite, as one text."""
    waiting_trials: list[int]
    waiting_cells: list[PlannedCell]
    """In order of seed; none of them starts before there is a choice."""
    path: str
    """Where the task's data lie on this machine; empty where nothing is said."""
    manifest: Mapping[str, str]
    """The sha256 of the task's splits, as far as they are known."""
    owners: Sequence[str]
    """The plugins that bring what is fitted and measured: what others do on import shall not reach these numbers."""
    chosen: Chosen | None = None
    broken: Failure | None = None
    """Why there is no choice, where every trial failed."""
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

    @property
    def startable_trials(self) -> list[int]:
        """The trials that can start now, unless somebody else is at them."""
        return [number for number in self.waiting_trials if self.study.is_ready(number)]

    @property
    def startable_cells(self) -> list[PlannedCell]:
        """The cells that can start, or fail, now, unless somebody else is at them."""
        return list(self.waiting_cells) if self.chosen is not None or self.broken is not None else []

    @property
    def has_work(self) -> bool:
        """Whether something is still to be done, by whomever."""
        return bool(self.waiting_trials or self.waiting_cells)

    def begin_trial(self, number: int) -> None:
        """Note that a trial starts."""
        self.waiting_trials.remove(number)
        self._told[number] = []

    def forget_trial(self, number: int) -> None:
        """Note that a trial under way was taken over: what becomes of it is read like any other's."""
        self._told.pop(number)
        self._undecided.pop(number, None)
        self.waiting_trials = sorted([*self.waiting_trials, number])

    def undecided(self) -> list[int]:
        """Return the trials under way that wait to hear whether they are pruned."""
        return sorted(self._undecided)

    def catch_up(self) -> list[Trial]:
        """Look what others have done; return the trials that have ended elsewhere since."""
        self.study.read_again()
        others = [trial for trial in self.study.trials if trial.number in self.waiting_trials]
        for trial in others:
            self.waiting_trials.remove(trial.number)
        self._decide()
        return others

    def trial_plan(
        self,
        number: int,
        *,
        plugins: Sequence[Path],
        work: Path,
        parallel: int = 1,
        devices: int = 1,
        is_on_cpu: bool = False,
    ) -> FitPlan:
        """Return what the fit of trial `number` is to do; its folder lies in `work`."""
        return FitPlan(
            name=f"{self.name}/trial-{number}",
            purpose="trial",
            contestant=self.contestant,
            task=self.task,
            path=self.path,
            manifest=self.manifest,
            primary=self.suite.primary,
            metrics=(),
            budget=self.suite.budget,
            limits=self.suite.limits,
            recipe=self.suite.recipe_of(self.contestant),
            hyperparameters=self.study.hyperparameters(number),
            seed=self.suite.tuning.seed,
            parallel=parallel,
            devices=devices if self.suite.recipe_of(self.contestant) else 1,  # what solves itself trains nothing
            is_on_cpu=is_on_cpu,
            plugins=plugins,
            owners=self.owners,
            folder=work / trial_folder(self.study, number),
        )

    def cell_plan(
        self,
        cell: PlannedCell,
        *,
        plugins: Sequence[Path],
        work: Path,
        parallel: int = 1,
        devices: int = 1,
        is_on_cpu: bool = False,
    ) -> FitPlan:
        """Return what the fit of `cell` is to do; its folder lies in `work`."""
        assert self.chosen is not None
        return FitPlan(
            name=str(cell.name),
            purpose="cell",
            contestant=self.contestant,
            task=self.task,
            path=self.path,
            manifest=self.manifest,
            primary=self.suite.primary,
            metrics=self.suite.metrics,
            readouts=self.suite.readouts,
            budget=self.suite.budget,
            limits=self.suite.limits,
            recipe=self.suite.recipe_of(self.contestant),
            hyperparameters=self.chosen.hyperparameters,
            seed=cell.name.seed,
            parallel=parallel,
            devices=devices if self.suite.recipe_of(self.contestant) else 1,  # what solves itself trains nothing
            is_on_cpu=is_on_cpu,
            plugins=plugins,
            owners=self.owners,
            folder=work / cell_folder(cell, self.overrides, self.chosen),
        )

    def trial_told(self, number: int, event: EpochEnded, answer: Callable[[Answer], None]) -> None:
        """Take in an epoch of a trial, and answer every trial whose verdict is now known."""
        self._told[number].append(event)
        self._undecided[number] = answer
        self._decide()

    def trial_ended(self, number: int, plan: FitPlan, outcome: Outcome, *, seconds: float) -> Trial:
        """Take in how a trial ended and record it; others may get their verdict from it."""
        epochs = self._told.pop(number)
        self._undecided.pop(number, None)
        trial = _trial(number, plan, outcome, epochs, seconds=seconds)
        self.study.record(trial)
        self._decide()
        return trial

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


def cell_claim(cell: PlannedCell, overrides: str) -> str:
    """Return the name under which a cell is claimed."""
    return f"cell/{digest_of([str(cell.name), overrides, cell.identity.digest])[:32]}"


def trial_claim(study: str, number: int) -> str:
    """Return the name under which a trial is claimed."""
    return f"trial/{study}/{number}"


def cell_folder(cell: PlannedCell, overrides: str, chosen: Chosen) -> str:
    """Return the name of the folder in which a cell's fit works."""
    return digest_of([str(cell.name), overrides, cell.identity.digest, chosen.digest])[:32]


def trial_folder(study: Study, number: int) -> str:
    """Return the name of the folder in which a trial's fit works."""
    return f"{study.name[:24]}-trial-{number}"


def open_contests(
    suite: Suite,
    cells: Sequence[PlannedCell],
    catalog: Catalog,
    storage: Storage,
    direction: Direction,
    *,
    overrides: str = "",
) -> list[Contest]:
    """Return a contest for each contestant and task among `cells`, with the trials that it still owes."""
    by_pair: dict[tuple[str, str], list[PlannedCell]] = {}
    for cell in cells:
        by_pair.setdefault((cell.name.contestant, cell.name.task), []).append(cell)
    contests = []
    for first, *rest in by_pair.values():
        study = open_study(suite, first, catalog, storage)
        contests.append(
            Contest(
                suite=suite,
                contestant=first.contestant,
                task=first.name.task,
                path=suite.path_of(first.name.task),
                manifest=first.identity.parts["task"].get("manifest") or {},
                study=study,
                direction=direction,
                overrides=overrides,
                waiting_trials=study.owed,
                waiting_cells=[first, *rest],
                owners=owners_of(suite, first, catalog),
            )
        )
    return contests


def owners_of(suite: Suite, cell: PlannedCell, catalog: Catalog) -> list[str]:
    """Return the plugins that bring what a cell is fitted and measured with, by `Owner.plugin`."""
    one = cell.contestant
    objective = catalog.objective(parse_name(one.objective)[0])
    readouts = {one.readout or objective.spec.readout, *suite.readouts} - {HEAD}
    owners = [
        catalog.model(parse_name(one.model)[0]).owner,
        catalog.task(parse_name(cell.name.task)[0]).owner,
        objective.owner,
        *(catalog.metric(name).owner for name in suite.metrics),
        *(catalog.readout(parse_name(readout)[0]).owner for readout in readouts),
    ]
    return sorted({owner.plugin for owner in owners})


def open_study(suite: Suite, cell: PlannedCell, catalog: Catalog, storage: Storage) -> Study:
    """Return the study that decides what `cell` is fitted with: what its name pins is not searched."""
    recipe = suite.recipe_of(cell.contestant)
    name, options = parse_name(cell.contestant.model)
    spec = catalog.model(name).spec
    pinned, search = with_preset(f"model {cell.contestant.model}", spec.presets, options), spec.search
    own: dict[str, Space] = {f"model.{option}": space for option, space in search.items() if option not in pinned}
    return Study(
        storage,
        # By label as well: two contestants that differ in nothing else would run each other's trials.
        digest_of({**study_parts(cell.identity.parts), "label": cell.name.contestant}),
        search={**recipe.search, **own} if recipe else {},
        stated=recipe.stated if recipe else {},
        tuning=suite.tuning,
        direction=catalog.metric(suite.primary).spec.direction,
        allowed=suite.trials_of(cell.contestant),
    )


def trials_owed(suite: Suite, cells: Sequence[PlannedCell], catalog: Catalog, storage: Storage) -> dict[str, int]:
    """Return, for each contestant and task among `cells`, how many tuning trials are still to run."""
    firsts = {f"{cell.name.contestant}/{cell.name.task}": cell for cell in reversed(cells)}
    return {pair: len(open_study(suite, cell, catalog, storage).owed) for pair, cell in reversed(firsts.items())}


def _trial(number: int, plan: FitPlan, outcome: Outcome, epochs: Sequence[EpochEnded], *, seconds: float) -> Trial:
    trial = Trial(
        number=number,
        hyperparameters=plan.hyperparameters,
        state="pruned",
        curve=_curve(epochs),
        seconds=seconds,
        epochs=epochs,
    )
    if isinstance(outcome, Failure):
        return replace(trial, state="failed", reason=f"{outcome.kind}: {outcome.message}")
    if isinstance(outcome, Fitted):
        loss = outcome.validation_loss
        return replace(trial, state="complete", validation=outcome.validation, validation_loss=loss)
    return trial


def _curve(epochs: Sequence[EpochEnded]) -> dict[int, float]:
    return {one.epoch: one.validation for one in epochs}

"""Tuning: the only room with Optuna. Which trials, which are pruned, which choice.

Trial i is point i of one seeded quasi-random sequence, so that any interruption and any number of
fits at a time give the same trials. The recipe's hyperparameters take the sequence's first dimensions
and the model's own the ones after them: every contestant is tried at the same points of the recipe.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Literal, Self, TypeAlias

import optuna
import sqlalchemy
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from whitebench.address import home_of, sqlite_file, without_password
from whitebench.budget import Tuning
from whitebench.database import KEEPALIVE, PATIENCE, SQLITE_TIMEOUT, make_whole
from whitebench.errors import StoreError, WhitebenchError
from whitebench.events import EpochEnded
from whitebench.identity import digest_of
from whitebench.outage import patient
from whitebench.reading import Direction
from whitebench.result import Chosen
from whitebench.sequence import DIMENSIONS, edges, quasi_random_point
from whitebench.space import Choice, FloatRange, Space
from whitebench.specs import Hyperparameters

optuna.logging.set_verbosity(optuna.logging.WARNING)

Curve: TypeAlias = Mapping[int, float]
"""The validation score after each epoch, counted from 1."""

State: TypeAlias = Literal["complete", "pruned", "failed"]
_EPOCH = [one.name for one in fields(EpochEnded)]
_STATES: Mapping[State, TrialState] = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One tuning trial that has ended."""

    number: int
    hyperparameters: Hyperparameters
    state: State
    validation: float | None = None
    validation_loss: float | None = None
    curve: Curve = field(default_factory=dict)
    seconds: float = 0.0
    reason: str = ""
    """Why it failed."""
    epochs: Sequence[EpochEnded] = ()


SCHEMA = "whitebench_optuna"
"""Where Optuna's tables lie in a PostgreSQL store: it cannot share MLflow's, both own a table `alembic_version`."""


class Storage:
    """Optuna's own tables: a file beside the store, or a schema in it. Reading makes none."""

    def __init__(self, url: str, *, patience: float = PATIENCE) -> None:
        self.url, self.patience = url, patience
        self.place = without_password(url)
        self.file = sqlite_file(url)

    @classmethod
    def of_store(cls, uri: str, *, patience: float = PATIENCE) -> Self:
        """Return the storage that belongs to the store at `uri`."""
        is_shared = uri.startswith("postgresql")
        return cls(uri if is_shared else f"sqlite:///{home_of(uri) / 'whitebench.optuna.db'}", patience=patience)

    @patient
    def find(self, name: str) -> optuna.Study | None:
        """Return the study called `name`, if there is one."""
        if not self._is_there:
            return None
        try:
            return optuna.load_study(study_name=name, storage=self._opened)
        except KeyError:
            return None

    @patient
    def trials(self, name: str) -> list[FrozenTrial]:
        """Return the trials of the study called `name`; none where there is no such study."""
        study = self.find(name)
        return study.get_trials(deepcopy=False) if study else []

    @patient
    def add(self, name: str, direction: Literal["minimize", "maximize"], trial: FrozenTrial) -> None:
        """Add a trial to the study called `name`, made where there is none."""
        study = optuna.create_study(study_name=name, storage=self._opened, direction=direction, load_if_exists=True)
        study.add_trial(trial)

    @patient
    def delete(self, name: str) -> None:
        """Delete the study called `name`."""
        with suppress(KeyError):  # somebody has, or an earlier try that was not answered
            optuna.delete_study(study_name=name, storage=self._opened)

    @property
    def _is_there(self) -> bool:
        """Whether anybody has made the tables."""
        if self.file is not None:
            return self.file.exists()
        if "_opened" in self.__dict__:
            return True
        engine = sqlalchemy.create_engine(self.url)
        try:
            return sqlalchemy.inspect(engine).has_schema(SCHEMA)
        finally:
            engine.dispose()

    @cached_property
    def _opened(self) -> optuna.storages.RDBStorage:
        try:
            if self.file is None:
                return self._in_schema()
            make_whole(self.file, optuna.storages.RDBStorage)
            return self._storage({"timeout": SQLITE_TIMEOUT})
        except RuntimeError as error:  # tables of another version of Optuna, in its own words
            raise StoreError(f"the trials in {self.place}: {error}") from error

    def _in_schema(self) -> optuna.storages.RDBStorage:
        """Open, or make, the tables in a PostgreSQL store; of two who find none, one makes them."""
        turn = int(digest_of(SCHEMA)[:8], 16)
        engine = sqlalchemy.create_engine(self.url, isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as database:
                database.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_lock(turn)))
                if not sqlalchemy.inspect(database).has_schema(SCHEMA):  # only its maker needs the right to make it
                    database.execute(sqlalchemy.schema.CreateSchema(SCHEMA))
                return self._storage({"options": f"-csearch_path={SCHEMA}", **KEEPALIVE})
        finally:
            engine.dispose()  # which disconnects, and so lets the next one in

    def _storage(self, arguments: Mapping[str, object]) -> optuna.storages.RDBStorage:
        return optuna.storages.RDBStorage(
            self.url, engine_kwargs={"connect_args": dict(arguments), "pool_pre_ping": True}
        )


class Study:
    """The trials of one contestant on one task, kept in Optuna's own file.

    A trial is written once, when it has ended: an interruption leaves nothing half-done.
    """

    def __init__(
        self,
        storage: Storage,
        name: str,
        *,
        search: Mapping[str, Space],
        stated: Hyperparameters,
        tuning: Tuning,
        direction: Direction,
        allowed: int,
    ) -> None:
        if len(search) > DIMENSIONS:
            raise WhitebenchError(f"{name}: {len(search)} hyperparameters are searched, at most {DIMENSIONS} can be")
        self.name, self.search, self.stated, self.tuning = name, dict(search), dict(stated), tuning
        self.direction: Literal["minimize", "maximize"] = "minimize" if direction == "lower" else "maximize"
        self.allowed = allowed
        self._storage = storage

    @cached_property
    def _ended(self) -> dict[int, Trial]:
        recorded = self._storage.trials(self.name) if self.allowed else []
        return {trial.number: trial for trial in map(_read, reversed(recorded))}  # of two records the first counts

    def read_again(self) -> None:
        """Look what trials others have recorded in the meantime."""
        self.__dict__.pop("_ended", None)

    @property
    def trials(self) -> list[Trial]:
        """The trials that have ended, by number, each once."""
        return [self._ended[number] for number in sorted(self._ended)]

    @property
    def owed(self) -> list[int]:
        """The numbers of the trials still to run."""
        return [number for number in range(self.allowed) if number not in self._ended]

    def is_ready(self, number: int) -> bool:
        """Return whether the trial's hyperparameters can be known yet."""
        return self.tuning.sampler == "quasi-random" or all(number <= lower for lower in self.owed)

    def hyperparameters(self, number: int) -> Hyperparameters:
        """Return what trial `number` is run with."""
        if self.tuning.sampler == "tpe":
            drawn = self._suggested(number)
        else:
            drawn = quasi_random_point(self.search, seed=self.tuning.seed, number=number)
        return {**self.stated, **drawn}

    def record(self, trial: Trial) -> None:
        """Keep a trial that has ended."""
        self._storage.add(
            self.name,
            self.direction,
            create_trial(
                state=_STATES[trial.state],
                value=trial.validation if trial.state == "complete" else None,
                params={name: trial.hyperparameters[name] for name in self.search},
                distributions=distributions(self.search),
                intermediate_values=dict(trial.curve),
                user_attrs={
                    "number": trial.number,
                    "hyperparameters": dict(trial.hyperparameters),
                    "validation": trial.validation,
                    "validation_loss": trial.validation_loss,
                    "seconds": trial.seconds,
                    "reason": trial.reason,
                    "epochs": [list(asdict(epoch).values()) for epoch in trial.epochs],
                },
            ),
        )
        self._ended[trial.number] = trial

    def start_over(self) -> None:
        """Forget every trial."""
        self._storage.delete(self.name)
        self._ended.clear()

    def choose(self) -> Chosen:
        """Freeze the choice: the best on validation; of equals the lower validation loss, then the lower number.

        Raises:
            WhitebenchError: trials were allowed and none of them completed; says why the first failed.
        """
        trials = self.trials
        complete = [trial for trial in trials if trial.state == "complete"]
        if self.allowed and not complete:
            why = next((trial.reason for trial in trials if trial.reason), "all were pruned")
            raise WhitebenchError(f"none of the {len(trials)} tuning trials completed; the first said: {why}")
        best = min(complete, key=self._order) if complete else None
        chosen = best.hyperparameters if best else self.stated
        return Chosen(
            hyperparameters=chosen,
            trial=best.number if best else None,
            validation=best.validation if best else None,
            edges=edges(self.search, chosen) if best else (),
            trials_allowed=self.allowed,
            trials_complete=len(complete),
            trials_pruned=sum(trial.state == "pruned" for trial in trials),
            trials_failed=sum(trial.state == "failed" for trial in trials),
            tuning_seconds=sum(trial.seconds for trial in trials),
            digest=digest_of(dict(chosen)),
        )

    def _order(self, trial: Trial) -> tuple[float, float, int]:
        value = trial.validation or 0.0
        return (
            value if self.direction == "minimize" else -value,
            trial.validation_loss if trial.validation_loss is not None else 0.0,
            trial.number,
        )

    def _suggested(self, number: int) -> Hyperparameters:
        """Return what TPE suggests given the trials of lower number: the same after any interruption."""
        sampler = optuna.samplers.TPESampler(seed=_seed_of(self.tuning.seed, number))
        view = optuna.create_study(direction=self.direction, sampler=sampler)
        for trial in self.trials:
            if trial.number < number and trial.state == "complete":
                view.add_trial(
                    create_trial(
                        value=trial.validation,
                        params={name: trial.hyperparameters[name] for name in self.search},
                        distributions=distributions(self.search),
                    )
                )
        return dict(view.ask(fixed_distributions=distributions(self.search)).params)


def verdict(
    tuning: Tuning,
    *,
    direction: Direction,
    number: int,
    epoch: int,
    curves: Mapping[int, Curve],
    ended: Collection[int],
) -> Literal["go", "prune"] | None:
    """Return whether trial `number` goes on after `epoch`, or None while that cannot be known yet.

    Optuna's median rule over the trials of lower number only, each as far as `epoch`: what the answer
    is depends neither on how many fits run at a time nor on which is quicker.
    """
    if tuning.pruning == "off" or number < tuning.pruning_from_trial or epoch < tuning.pruning_from_epoch:
        return "go"
    lower = range(number)
    if any(epoch not in curves.get(one, {}) and one not in ended for one in lower):
        return None
    pruner = optuna.pruners.MedianPruner(n_startup_trials=1, n_warmup_steps=0)
    view = optuna.create_study(direction="minimize" if direction == "lower" else "maximize", pruner=pruner)
    for one in lower:
        reached = {step: value for step, value in curves.get(one, {}).items() if step <= epoch}
        if epoch in reached:
            view.add_trial(create_trial(value=reached[epoch], intermediate_values=reached))
    mine = {step: value for step, value in curves[number].items() if step <= epoch}
    asking = create_trial(state=TrialState.RUNNING, intermediate_values=mine)
    return "prune" if pruner.prune(view, asking) else "go"


def _seed_of(seed: int, number: int) -> int:
    return int(digest_of([seed, number])[:8], 16)  # numpy takes seeds below 2^32


def distributions(search: Mapping[str, Space]) -> dict[str, BaseDistribution]:
    """Return the spaces in Optuna's words."""
    return {name: _distribution(space) for name, space in search.items()}


def _distribution(space: Space) -> BaseDistribution:
    if isinstance(space, Choice):
        return CategoricalDistribution(list(space.options))
    kind = FloatDistribution if isinstance(space, FloatRange) else IntDistribution
    return kind(space.low, space.high, log=space.log)  # type: ignore[arg-type]  # each takes its own numbers


def _read(trial: FrozenTrial) -> Trial:
    known = trial.user_attrs
    states = {state: name for name, state in _STATES.items()}
    return Trial(
        number=known["number"],
        hyperparameters=known["hyperparameters"],
        state=states[trial.state],
        validation=known["validation"],
        validation_loss=known["validation_loss"],
        curve=dict(trial.intermediate_values),
        seconds=known["seconds"],
        reason=known["reason"],
        epochs=tuple(EpochEnded(**dict(zip(_EPOCH, values, strict=True))) for values in known["epochs"]),
    )

"""A suite against the catalog: every name known, every option taken, no task named twice in other words."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from whitebench.catalog import Catalog
from whitebench.errors import SuiteError, WhitebenchError
from whitebench.matching import configured_for_match
from whitebench.names import configured, configured_task, parse_name
from whitebench.needs import why_no_rank
from whitebench.specs import HEAD, ModelSpec, TaskSpec
from whitebench.suite import NOTHING, Contestant, Suite
from whitebench.wording import plain


def vet(suite: Suite, catalog: Catalog) -> None:
    """See that everything `suite` names is there and takes the options it is given.

    Raises:
        WhitebenchError: something is unknown, disputed or given options it does not take, two tasks are one in
            other words, or the suite ranks by a metric that looks inside or of which neither more nor less is
            better; says where in the suite.
    """
    with _at(suite, "metrics"):
        for name in suite.metrics:
            catalog.metric(name)
    with _at(suite, "tasks"):
        tasks = _vet_tasks(suite, catalog)
    _vet_primary(suite, catalog, tasks)
    is_solved = tasks[0].solve is not None
    _vet_keys(suite, tasks[0], is_solved=is_solved)
    for one in suite.everyone:
        with _at(suite, f"contestant {plain(one.label, 60)}"):
            model = catalog.model(parse_name(one.model)[0]).spec
            if suite.match is None or one.epochs == 0:
                configured("model", one.model, model.config, model.presets)
            else:
                configured_for_match(one.model, model)
            _vet_kind(one, model, tasks[0], is_solved=is_solved)
            objective = catalog.objective(parse_name(one.objective)[0]).spec
            configured("objective", one.objective, objective.config)
            if (readout := one.readout or objective.readout) != HEAD:
                _vet_readout(readout, catalog)
            if one.readout == HEAD and "logits" not in objective.needs:
                raise SuiteError(
                    f"readout head: objective {one.objective} leaves the head untrained; "
                    f"leave it out ({objective.readout} is taken), or name another"
                )
    with _at(suite, "readouts"):
        for readout in suite.readouts:
            _vet_readout(readout, catalog)


def _vet_primary(suite: Suite, catalog: Catalog, tasks: Sequence[TaskSpec]) -> None:
    primary = catalog.metric(suite.primary).spec
    whys = [f": {why}" for task in tasks if (why := why_no_rank(primary, task))]
    why = ", it has no better direction" if primary.direction == "none" else next(iter(whys), "")
    if why:
        raise SuiteError(f"suite {suite.name}: primary {suite.primary!r} cannot rank{why}: choose another metric")


def _vet_keys(suite: Suite, task: TaskSpec, *, is_solved: bool) -> None:
    """Refuse keys that would say nothing, and see that none is missing."""
    given = {
        "budget": suite.budget.epochs or suite.budget.trials,
        "recipes": suite.recipes,
        "readouts": suite.readouts,
    }
    if is_solved and (idle := [key for key, value in given.items() if value]):
        raise SuiteError(
            f"suite {suite.name}: {', '.join(idle)}: task {task.name} solves itself, nothing is trained or tuned: "
            "leave it out"
        )
    lacking = [key for key, is_lacking in {"budget": suite.budget is NOTHING, "recipes": not suite.recipes}.items()
               if is_lacking]  # fmt: skip
    if lacking and not is_solved:
        raise SuiteError(f"suite {suite.name}: {lacking[0]}: missing: task {task.name} is learnt")


def _vet_kind(one: Contestant, model: ModelSpec, task: TaskSpec, *, is_solved: bool) -> None:
    """Refuse a contestant that learns where nothing is learnt, or the other way round."""
    if bool(model.head) == is_solved:
        raise SuiteError(
            f"model {model.name} learns from samples, and task {task.name} has none, it solves itself: name a model "
            "without a head"
            if is_solved
            else f"model {model.name} has no head to learn with, and task {task.name} is learnt: name another, or a "
            "task that solves itself"
        )
    blank = Contestant(model=one.model)
    keys = ("objective", "readout", "recipe", "weights", "epochs")
    idle = [key for key in keys if getattr(one, key) != getattr(blank, key)]
    if is_solved and idle:
        raise SuiteError(f"{', '.join(idle)}: task {task.name} solves itself, nothing is trained: leave it out")


def _vet_readout(text: str, catalog: Catalog) -> None:
    configured("readout", text, catalog.readout(parse_name(text)[0]).spec.config)


def _vet_tasks(suite: Suite, catalog: Catalog) -> list[TaskSpec]:
    seen: dict[tuple[str, str], str] = {}
    specs = [catalog.task(parse_name(task)[0]).spec for task in suite.tasks]
    for task in suite.tasks:
        name, _ = parse_name(task)
        config = configured_task(task, catalog.task(name).spec.config, suite.path_of(task))
        first = seen.setdefault((name, repr(dataclasses.asdict(config))), task)
        if first != task:
            raise SuiteError(f"{first} and {task} are one task in other words: leave one out")
    solved, learnt = ([spec.name for spec in specs if (spec.solve is None) == is_learnt] for is_learnt in (False, True))
    if solved and learnt:
        raise SuiteError(f"{solved[0]} solves itself and {learnt[0]} is learnt: give each a suite of its own")
    return specs


@contextmanager
def _at(suite: Suite, place: str) -> Iterator[None]:
    """Say where in the suite a name stands that is refused."""
    try:
        yield
    except WhitebenchError as error:
        error.args = (f"suite {suite.name}: {place}: {error}",)
        raise

"""A suite against the catalog: every name known, every option taken, no task named twice in other words."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

from whitebench.catalog import Catalog
from whitebench.errors import SuiteError, WhitebenchError
from whitebench.names import configured, parse_name
from whitebench.scoring import PREDICTION_NEEDS
from whitebench.specs import HEAD
from whitebench.suite import Suite
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
    primary = catalog.metric(suite.primary).spec
    why = ", it has no better direction" if primary.direction == "none" else ""
    inside = [need for need in primary.needs if need not in PREDICTION_NEEDS]
    if inside and not why:
        why = f": it needs {', '.join(inside)}, and what chooses among trials may look at logits and labels alone"
    if why:
        raise SuiteError(f"suite {suite.name}: primary {suite.primary!r} cannot rank{why}: choose another metric")
    with _at(suite, "tasks"):
        _vet_tasks(suite, catalog)
    for one in suite.everyone:
        with _at(suite, f"contestant {plain(one.label, 60)}"):
            model = catalog.model(parse_name(one.model)[0]).spec
            configured("model", one.model, model.config, model.presets)
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


def _vet_readout(text: str, catalog: Catalog) -> None:
    configured("readout", text, catalog.readout(parse_name(text)[0]).spec.config)


def _vet_tasks(suite: Suite, catalog: Catalog) -> None:
    seen: dict[tuple[str, str], str] = {}
    for task in suite.tasks:
        name, _ = parse_name(task)
        config = configured("task", task, catalog.task(name).spec.config)
        first = seen.setdefault((name, repr(dataclasses.asdict(config))), task)
        if first != task:
            raise SuiteError(f"{first} and {task} are one task in other words: leave one out")


@contextmanager
def _at(suite: Suite, place: str) -> Iterator[None]:
    """Say where in the suite a name stands that is refused."""
    try:
        yield
    except WhitebenchError as error:
        error.args = (f"suite {suite.name}: {place}: {error}",)
        raise

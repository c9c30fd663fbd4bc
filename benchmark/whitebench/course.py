"""A fit's plan with every name looked up, every option checked, and the model built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from whitebench import evaluation
from whitebench.errors import TraceError, WhitebenchError
from whitebench.evaluation import Subject
from whitebench.fit import FitPlan, model_options
from whitebench.names import configure, parse_name, with_preset
from whitebench.specs import Layout, MetricContext, MetricSpec, ModelSpec, ObjectiveSpec, TaskSpec
from whitebench.trace import observe

if TYPE_CHECKING:
    from whitebench.catalog import Catalog
    from whitebench.plugin import Owner


@dataclass(frozen=True, kw_only=True)
class Course:
    """A FitPlan with every name in it looked up and every option checked."""

    plan: FitPlan
    model: ModelSpec
    model_config: Any
    task: TaskSpec
    task_config: Any
    objective: ObjectiveSpec
    primary: MetricSpec
    metrics: list[MetricSpec]
    distributions: Mapping[str, str]
    """Versions of the distributions that they all come from."""


def resolve(plan: FitPlan, catalog: Catalog) -> Course:
    """Look up and check every name in `plan`; raises WhitebenchError for what is unknown or unfit."""
    model_name, options = parse_name(plan.contestant.model)
    task_name, task_options = parse_name(plan.task)
    model, task = catalog.model(model_name), catalog.task(task_name)
    objective, primary = catalog.objective(plan.contestant.objective), catalog.metric(plan.primary)
    if not set(primary.spec.needs) <= evaluation.PREDICTION_NEEDS:
        raise WhitebenchError(
            f"metric {plan.primary!r} cannot rank a suite: it needs {', '.join(primary.spec.needs)}, "
            "and what chooses among trials may look at logits and labels alone"
        )
    if "logits" not in objective.spec.needs:
        raise WhitebenchError(
            f"objective {plan.contestant.objective!r} never sees the logits: the head that classes are read from would "
            "stay untrained; read-outs from features alone are not here yet"
        )
    metrics = [catalog.metric(name) for name in plan.metrics]
    owners = [model.owner, task.owner, objective.owner, *(metric.owner for metric in (primary, *metrics))]
    who = f"model {plan.contestant.model}"
    chosen = {**with_preset(who, model.spec.presets, options), **model_options(plan.hyperparameters)}
    return Course(
        plan=plan,
        model=model.spec,
        model_config=configure(who, model.spec.config, chosen),
        task=task.spec,
        task_config=configure(f"task {plan.task}", task.spec.config, task_options),
        objective=objective.spec,
        primary=primary.spec,
        metrics=[entry.spec for entry in metrics],
        distributions=dict(map(_origin, owners)),
    )


def _origin(owner: Owner) -> tuple[str, str]:
    """Return a distribution and its version, or the name of a local file and that it is one."""
    return (owner.distribution, owner.version) if owner.version else (Path(owner.plugin).name, owner.distribution)


def build(course: Course) -> Subject:
    """Return the model, its weights drawn from torch's global generator.

    Raises:
        WhitebenchError: the model cannot be built on this task; names both.
    """
    try:
        module = course.model.build(course.model_config, course.task.shape, course.task.classes)
    except WhitebenchError as error:
        raise WhitebenchError(f"model {course.plan.contestant.model} on task {course.plan.task}: {error}") from error
    layout = course.model.layout
    return Subject(
        module=module,
        spec=course.model,
        context=MetricContext(
            classes=course.task.classes,
            shape=course.task.shape,
            layout=layout(course.model_config, course.task.shape) if layout else Layout(),
        ),
    )


def feature_width(course: Course, subject: Subject) -> int:
    """Return how wide the features are, and see that everything the metrics will look at can be seen.

    Raises:
        TraceError: the head or a traced module is not where the model's Spec says.
    """
    kinds = evaluation.traced_kinds(course.metrics, course.model)
    subject.module.eval()
    # Not in inference mode: a table that the model makes on its first pass could never be trained with.
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        blank = torch.zeros(2, *subject.context.shape)
        seen = observe(subject.module, blank, head=subject.spec.head, trace=subject.spec.trace, kinds=kinds)
    if tuple(seen.logits.shape) != (2, subject.context.classes):
        raise TraceError(
            f"model {course.plan.contestant.model} on task {course.plan.task}: for 2 samples its forward gave "
            f"{tuple(seen.logits.shape)}; it must return logits {(2, subject.context.classes)}, one for each class"
        )
    subject.module.train()
    return seen.features.shape[-1]

"""A fit's plan with every name looked up, every option checked, and the model built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm  # what all of torch's, and timm's, are

from whitebench import group, needs
from whitebench.errors import TraceError, WhitebenchError
from whitebench.evaluation import Subject
from whitebench.fit import FitPlan, model_options
from whitebench.names import configure, configured, configured_task, parse_name, with_preset
from whitebench.readout import Readout
from whitebench.specs import (
    HEAD,
    Layout,
    MetricContext,
    MetricSpec,
    ModelSpec,
    ObjectiveSpec,
    TaskSpec,
)
from whitebench.tracing import observe
from whitebench.weights import load_weights

if TYPE_CHECKING:
    from torch import nn

    from whitebench.catalog import Catalog
    from whitebench.plugin import Entry, Owner


@dataclass(frozen=True, kw_only=True)
class Course:
    """A FitPlan with every name in it looked up and every option checked."""

    plan: FitPlan
    model: ModelSpec
    model_config: Any
    task: TaskSpec
    task_config: Any
    classes: int
    """How many the task has with its options; 0 where it solves itself."""
    objective: ObjectiveSpec
    objective_config: Any
    reads_by: str
    """How classes are read off the features: `head`, or one of `readouts`."""
    readouts: Mapping[str, Readout]
    """By name with options: the contestant's own, and those that its suite scores every contestant with besides."""
    primary: MetricSpec
    metrics: list[MetricSpec]
    distributions: Mapping[str, str]
    """Versions of the distributions that they all come from."""

    @property
    def readout(self) -> Readout | None:
        """The read-out that ranks this contestant; None for the model's own head."""
        return self.readouts.get(self.reads_by)

    def build_objective(self, width: int) -> nn.Module:
        """Return the objective for features of this width."""
        return self.objective.build(self.objective_config, self.classes, width)


def resolve(plan: FitPlan, catalog: Catalog) -> Course:
    """Look up and check every name in `plan`; raises WhitebenchError for what is unknown or unfit."""
    model_name, options = parse_name(plan.contestant.model)
    model, task = catalog.model(model_name), catalog.task(parse_name(plan.task)[0])
    objective = catalog.objective(parse_name(plan.contestant.objective)[0])
    readout, primary = plan.contestant.readout or objective.spec.readout, catalog.metric(plan.primary)
    if why := needs.why_no_rank(primary.spec, task.spec):
        raise WhitebenchError(f"metric {plan.primary!r} cannot rank a suite: {why}")
    metrics = [catalog.metric(name) for name in plan.metrics]
    wanted = [name for name in dict.fromkeys((readout, *plan.readouts)) if name != HEAD]
    readouts = {name: catalog.readout(parse_name(name)[0]) for name in wanted}
    read = {name: Readout(spec=entry.spec, config=configured("readout", name, entry.spec.config))
            for name, entry in readouts.items()}  # fmt: skip
    items: list[Entry[Any]] = [model, task, objective, primary, *metrics, *readouts.values()]
    task_config = configured_task(plan.task, task.spec.config, plan.path)
    who = f"model {plan.contestant.model}"
    chosen = {**with_preset(who, model.spec.presets, options), **model_options(plan.hyperparameters)}
    return Course(
        plan=plan,
        model=model.spec,
        model_config=configure(who, model.spec.config, chosen),
        task=task.spec,
        task_config=task_config,
        classes=task.spec.classes_of(task_config),
        objective=objective.spec,
        objective_config=configured("objective", plan.contestant.objective, objective.spec.config),
        reads_by=readout,
        readouts=read,
        primary=primary.spec,
        metrics=[entry.spec for entry in metrics],
        distributions=dict(_origin(item.owner) for item in items),
    )


def _origin(owner: Owner) -> tuple[str, str]:
    """Return a distribution and its version, or the name of a local file and that it is one."""
    return (owner.distribution, owner.version) if owner.version else (Path(owner.plugin).name, owner.distribution)


def build(course: Course, *, is_blank: bool = False) -> Subject:
    """Return the model, its weights drawn from torch's global generator, and where not blank, loaded.

    Raises:
        WhitebenchError: the model cannot be built on this task; names both.
    """
    shape, classes = course.task.shape_of(course.task_config), course.classes
    try:
        module = course.model.build(course.model_config, shape, classes)
    except WhitebenchError as error:
        raise WhitebenchError(f"model {course.plan.contestant.model} on task {course.plan.task}: {error}") from error
    for method in course.task.asks:
        if not callable(getattr(module, method, None)):
            raise WhitebenchError(
                f"model {course.plan.contestant.model} on task {course.plan.task}: it has no method {method}, "
                "which the task asks of its contestants"
            )
    if course.plan.contestant.weights and not is_blank:
        _load(course, module)
    group.make_equal(module)  # whatever a model draws its weights from
    layout = course.model.layout
    return Subject(
        module=module,
        spec=course.model,
        context=MetricContext(
            classes=classes,
            shape=shape,
            layout=layout(course.model_config, shape) if layout else Layout(),
        ),
        scaling=course.task.scaling(course.task_config) if course.task.scaling else None,
    )


def refuse_shares(course: Course, module: nn.Module) -> None:
    """Refuse a contestant whose training cannot be shared: what it learns from a batch is no sum over its samples.

    Raises:
        WhitebenchError: says what needs the whole batch, and what to do.
    """
    normed = [name for name, part in module.named_modules() if isinstance(part, BatchNorm)]
    why = f"{normed[0]!r} normalises by the statistics of the whole batch" if normed else ""
    if course.model.penalty is not None and not course.model.is_penalty_additive:
        why = "its penalty is of the whole batch and no mean over samples"
    if why and course.plan.epochs:
        raise WhitebenchError(
            f"model {course.plan.contestant.model} on task {course.plan.task}: {why}, so that several devices would "
            f"train another model: run it with --devices 1, and the others with -m"
        )


def _load(course: Course, module: nn.Module) -> None:
    file, spec = course.plan.contestant.weights, course.model
    drawn = load_weights(Path(file), module, spec.released, head=spec.head)
    is_read = course.readout is None and course.plan.epochs == 0
    if drawn and is_read:
        raise WhitebenchError(
            f"weights {file}: its head is not one of {course.classes} classes, and nothing here would train one: "
            "give the contestant a readout, or epochs"
        )


def feature_width(course: Course, subject: Subject) -> int:
    """Return how wide the features are, and see that everything the metrics will look at can be seen.

    Raises:
        TraceError: the head or a traced module is not where the model's Spec says.
    """
    kinds = needs.traced_kinds(course.metrics, course.model)
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

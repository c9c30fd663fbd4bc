"""The one look at the test split: how predictions are read off a model, and every score that is made of them.

A fit sits it with the model it has trained; a recount sits it again with stored weights and predictions.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from whitebench import cost, evaluation, footing, group, scoring
from whitebench.course import Course, build
from whitebench.errors import TaskDataError
from whitebench.evaluation import Subject
from whitebench.feed import Inputs, arrange
from whitebench.memory import GIB
from whitebench.pulse import beat
from whitebench.readout import RAW, Reader
from whitebench.result import Score
from whitebench.samples import load_samples
from whitebench.seeds import seed_everything
from whitebench.specs import Samples, Split

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from whitebench.reading import Picture


@dataclass(frozen=True, kw_only=True)
class Marks:
    """What a model got."""

    scores: list[Score]
    """The metrics' in their order, then the primary metric by each of the suite's read-outs."""
    pictures: Mapping[str, Picture]
    seconds: float
    """That the metrics took."""
    memory: int
    """Bytes that they took at most above what was in use before."""


def load(course: Course, split: Split, ground: footing.Footing) -> tuple[Samples[Any], str]:
    """Return a split of the course's task, held or streamed, with the sha256 of its bytes.

    Raises:
        TaskDataError: the data are not what the Spec says, not those that the fit was planned with, or fewer samples
            than there are devices.
    """
    plan = course.plan
    samples, fingerprint = load_samples(course.task, course.task_config, split)
    if plan.manifest.get(split, fingerprint) != fingerprint:
        raise TaskDataError(
            f"task {plan.task}, split {split!r}: the data have changed since the fit was planned (sha256 "
            f"{plan.manifest[split][:12]}…, now {fingerprint[:12]}…): run it again"
        )
    if len(samples) < group.size():
        raise TaskDataError(
            f"task {plan.task} serves {len(samples)} samples for {split}, fewer than the {group.size()} devices: take "
            "fewer"
        )
    arranged = arrange(samples, most_bytes=plan.limits.data_gib * GIB, workers=plan.limits.workers)
    footing.check(ground, f"task {plan.task}")
    beat()
    return arranged, fingerprint


def reader_of(course: Course, subject: Subject, training: Samples[Any]) -> Reader:
    """Return every read-out of this fit, fitted; a trial that was trained has had its own already."""
    is_needed = course.plan.purpose != "trial" or course.plan.epochs == 0
    budget = course.plan.budget
    readouts = course.readouts if is_needed else {}
    return Reader(subject, readouts, training, batch_size=budget.batch_size, precision=budget.precision)


def predict(course: Course, subject: Subject, inputs: Inputs, reader: Reader | None) -> Tensor:
    """Return the logits (N, C) by which the contestant is ranked; without read-outs no reader is needed."""
    budget = course.plan.budget
    if course.readout is None:
        return evaluation.predict(subject, inputs, batch_size=budget.batch_size, precision=budget.precision)
    assert reader is not None
    return reader.logits(course.reads_by, inputs)


def mark(course: Course, subject: Subject, test: Samples[Any], logits: Tensor, reader: Reader | None) -> Marks:
    """Return every score, given the logits (N, C) of the test split; without read-outs no reader is needed."""
    budget = course.plan.budget
    memory, started = cost.PeakMemory(subject.device), time.monotonic()
    found = scoring.score(
        subject,
        test,
        logits,
        course.metrics,
        batch_size=budget.batch_size,
        precision=budget.precision,
        untrained=lambda: _untrained(course, subject),
    )
    seconds, peak = time.monotonic() - started, memory.above_start()
    controls = [] if reader is None else _controls(course, subject, test, reader)
    return Marks(scores=[*found.scores, *controls], pictures=found.pictures, seconds=seconds, memory=peak)


def _untrained(course: Course, subject: Subject) -> Subject:
    """Return the network as the cell's seed draws it: what it was before it learnt, or loaded, anything."""
    seed_everything(course.plan.seed)
    blank = build(course, is_blank=True)
    blank.module.to(subject.device)
    return blank


def _controls(course: Course, subject: Subject, test: Samples[Any], reader: Reader) -> list[Score]:
    """Return the primary metric with each read-out of the suite: on the features and, as its null, on raw inputs."""

    def score(name: str, logits_of: Callable[[str, Inputs], Tensor | None]) -> Score | None:
        try:
            logits = logits_of(name, test.inputs)
            if logits is None:
                return None
            found = scoring.score_predictions(course.primary, subject.context, logits, test.labels)
            scored = next(one for one in found if one.name == course.primary.name)
        except (Exception, SystemExit) as error:
            scored = scoring.unscored(course.primary, error)
        return dataclasses.replace(scored, name=f"{course.primary.name}/{name}")

    scores = []
    for name in course.plan.readouts:
        scored, null = score(name, reader.logits), score(name, reader.raw_logits)
        assert scored is not None
        nulls = {RAW: null.value} if null is not None and null.value is not None else {}
        scores.append(dataclasses.replace(scored, nulls=nulls))
    return scores

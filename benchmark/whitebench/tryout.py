"""A fit in small: a few of its real steps are timed, so that its cost is known before anyone spends it.

Data, model, steps, validation, checkpoint and metrics are those of the fit itself; the test split stays closed.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from math import ceil
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from whitebench import cost, exam, footing, memory
from whitebench.catalog import load_catalog
from whitebench.course import Course, build, resolve
from whitebench.events import EpochEnded
from whitebench.fit import STEPS, WEIGHTS, Answer, FitPlan, Message, Timed
from whitebench.fitting import counted, state_of
from whitebench.seeds import seed_everything
from whitebench.solving import solve
from whitebench.specs import Samples, Stream
from whitebench.training import train

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whitebench.evaluation import Subject

EPOCHS = 6
"""Epochs in small; the first warms up and does not count."""

STEPS_EACH = 5
"""Further steps for each loader process."""

SECONDS = 20.0
"""After which no further epoch in small is begun, once there is one that counts."""


def try_out(plan: FitPlan) -> Timed:
    """Time a few steps of what `plan` describes, and say what a whole fit of it would take; raises what a fit raises.

    A task that solves itself is solved, for there is no part of it to time.
    """
    began = time.perf_counter()
    course = resolve(plan, load_catalog(plan.plugins, is_vetted=False))
    ground = footing.take(plan.budget.threads)
    if plan.limits.memory_gib is not None:
        memory.limit_memory(plan.limits.memory_gib)
    if course.task.solve is not None:
        return _solved(course, began)
    training, _ = exam.load(course, "train", ground)
    validation, _ = exam.load(course, "validation", ground)
    peak = cost.PeakMemory("cuda" if torch.cuda.is_available() else "cpu")
    seed_everything(plan.seed)
    subject = build(course)
    few, some = (_first(samples, plan.budget.batch_size) for samples in (training, validation))
    steps, few_steps, batches, some_batches = (_batches(one, plan) for one in (training, few, validation, some))
    watch = _Watch()
    train(_in_small(course), subject, few, some, watch.hear)
    trained_peak = peak.above_start()
    seconds, took = watch.seconds, watch.took
    step, rest = (statistics.median(seconds[1:]) / few_steps, _rest(watch)) if seconds else (0.0, 0.0)
    exam_seconds, forward, exam_memory = _examine(
        course, subject, few, some, growth=(steps / few_steps, batches / some_batches)
    )
    if isinstance(validation.inputs, Stream):  # a batch of which may take longer to read than to pass through
        forward = max(forward, step)
    more = forward * (batches - some_batches)
    if course.readout is not None:  # every validation reads out the whole training split before
        more += forward * (steps - few_steps)
    return Timed(
        start=watch.began - began + (max(0.0, took[0] - statistics.median(took[1:])) if took else 0.0),
        epoch=steps * step + rest + more if took else 0.0,
        exam=exam_seconds,
        memory=max(trained_peak, exam_memory),
    )


class _Watch:
    """Hears the epochs of a fit in small, and ends it when it has heard enough."""

    def __init__(self) -> None:
        self.began = self._last = time.perf_counter()
        self.seconds: list[float] = []
        """Of each epoch's training."""
        self.took: list[float] = []
        """By each epoch in all; by the first also what comes before it."""

    def hear(self, message: Message) -> Answer:
        now = time.perf_counter()
        assert isinstance(message, EpochEnded)
        self.seconds.append(message.seconds)
        self.took.append(now - self._last)
        self._last = now
        return "prune" if len(self.took) > 1 and now - self.began > SECONDS else "go"


def _rest(watch: _Watch) -> float:
    """Return what an epoch takes beside its steps: validation and checkpoint."""
    return statistics.median(took - own for took, own in zip(watch.took[1:], watch.seconds[1:], strict=True))


def _examine(
    course: Course, subject: Subject, training: Samples[Any], validation: Samples[Any], *, growth: Sequence[float]
) -> tuple[float, float, int]:
    """Return what comes after the last epoch of a cell in seconds, a forward pass of one batch, and bytes at the peak.

    The validation split stands for the test split; `growth` is how much larger the whole splits are than these.
    """
    plan = course.plan
    began = time.perf_counter()
    save_file(state_of(subject.module), plan.folder / WEIGHTS)
    counted(subject)
    rows = subject.take(training.inputs[: plan.budget.batch_size])
    rate = cost.inference_rate(subject.module, rows)
    saved = time.perf_counter()
    reader = exam.reader_of(course, subject, training)
    read = time.perf_counter()
    marks = exam.mark(course, subject, validation, exam.predict(course, subject, validation.inputs, reader), reader)
    marked = time.perf_counter()
    seconds = saved - began + (read - saved) * growth[0] + (marked - read) * growth[1]
    return seconds, len(rows) / rate, marks.memory


def _solved(course: Course, began: float) -> Timed:
    peak = cost.PeakMemory()
    seed_everything(course.plan.seed)
    subject = build(course)
    started = time.perf_counter()
    solve(course, subject)
    return Timed(start=started - began, epoch=0.0, exam=time.perf_counter() - started, memory=peak.above_start())


def _in_small(course: Course) -> Course:
    plan = course.plan
    return dataclasses.replace(
        course,
        plan=dataclasses.replace(plan, budget=dataclasses.replace(plan.budget, epochs=EPOCHS if plan.epochs else 0)),
    )


def _first(samples: Samples[Any], batch_size: int) -> Samples[Any]:
    """Return a few batches; of what is streamed more, since loader processes have some ready when an epoch starts."""
    inputs = samples.inputs
    steps = STEPS + (STEPS_EACH * inputs.workers if isinstance(inputs, Stream) else 0)
    size = min(steps * batch_size, len(samples))
    return dataclasses.replace(
        samples,
        inputs=dataclasses.replace(inputs, size=size) if isinstance(inputs, Stream) else inputs[:size],
        labels=samples.labels[:size],
        truth={name: tensor[:size] for name, tensor in samples.truth.items()},
    )


def _batches(samples: Samples[Any], plan: FitPlan) -> int:
    return ceil(len(samples) / plan.budget.batch_size)

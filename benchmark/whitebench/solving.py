"""A task that solves itself, asked for one block of draws: what it yields, checked and scored."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from whitebench.course import Course
from whitebench.errors import TaskDataError
from whitebench.evaluation import Subject
from whitebench.reading import Reading
from whitebench.scoring import Scored, score_solution
from whitebench.specs import Solution


@dataclass(frozen=True, kw_only=True)
class Solved:
    """What became of one block."""

    scored: Scored
    draws: int
    arrays: Mapping[str, Tensor]
    """What is kept for each draw."""
    seconds: float


def solve(course: Course, subject: Subject) -> Solved:
    """Let the task solve itself with what the contestant's model builds; the block is the plan's seed.

    Raises:
        TaskDataError: it yields what is no solution; says what.
    """
    assert course.task.solve is not None
    started = time.monotonic()
    solution = checked(
        f"task {course.task.name!r}", course.task.solve(course.task_config, subject.module, course.plan.seed)
    )
    seconds = time.monotonic() - started
    each = {name: values.detach().cpu().double().contiguous() for name, values in solution.per_sample.items()}
    primary = {"primary": each[course.primary.name].clone()} if course.primary.name in each else {}
    return Solved(
        scored=score_solution(course.metrics, course.task.name, solution.scores),
        draws=solution.draws,
        arrays={
            "index": torch.arange(solution.draws),
            **primary,
            **{f"draws/{name}": one for name, one in each.items()},
        },
        seconds=seconds,
    )


def checked(who: str, solution: object) -> Solution:
    """Return what a task has yielded; `who` is what an error calls it.

    Raises:
        TaskDataError: it is no Solution, or its parts are not what they should be.
    """
    if not isinstance(solution, Solution):
        raise TaskDataError(f"{who}: solve returned a {type(solution).__name__}; it must return a Solution")
    if solution.draws < 1:
        raise TaskDataError(f"{who}: solve drew {solution.draws} problems; it must draw one or more")
    scores: Mapping[str, object] = solution.scores
    for name, reading in scores.items():
        if not isinstance(reading, Reading):
            raise TaskDataError(f"{who}: its score {name!r} is a {type(reading).__name__}; it must be a Reading")
    per_sample: Mapping[str, object] = solution.per_sample
    for name, values in per_sample.items():
        shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        if shape != (solution.draws,):
            raise TaskDataError(
                f"{who}: {name!r} per sample is {shape}; it must be one number a draw, ({solution.draws},)"
            )
    return solution

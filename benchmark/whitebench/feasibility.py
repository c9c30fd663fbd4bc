"""What cannot be run is said before anything is: each contestant is built, for real, on each task it is to take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from whitebench.augmentation import build_augmentation
from whitebench.catalog import load_catalog
from whitebench.course import build, feature_width, refuse_shares, resolve
from whitebench.errors import SuiteError
from whitebench.fit import FitPlan
from whitebench.launching import AnyLauncher
from whitebench.ledger import Ledger, PlannedCell, owed_cells
from whitebench.result import Failure
from whitebench.suite import Suite
from whitebench.wording import plain

NOWHERE = Path()
"""For a question that writes nothing."""

PATIENCE = 120.0
"""Seconds for building one model and one pass through it; a fit that hangs has a limit of its own."""


def refuse_impossible(
    suite: Suite,
    cells: Sequence[PlannedCell],
    ledger: Ledger,
    *,
    launcher: AnyLauncher,
    plugins: Sequence[Path],
    at_a_time: int,
    devices: int = 1,
    retry: bool = False,
) -> None:
    """Refuse a run in which a contestant fits none of the tasks it still owes a cell of.

    One that fits some of them runs on those, and its other cells fail by themselves.

    Raises:
        SuiteError: names each such contestant, its tasks and why; carries the tracebacks as notes.
    """
    asked = [cell for cell in owed_cells(ledger, cells, retry=retry) if cell.name.contestant not in _proven(ledger)]
    found = reasons(suite, asked, launcher=launcher, plugins=plugins, at_a_time=at_a_time, devices=devices)
    lost = impossible(found)
    if not lost:
        return
    said = "; ".join(
        f"contestant {label} fits none of the tasks to be run: "
        + ", ".join(f"{task}: {plain(_without_names(why.message), 400)}" for task, why in tasks.items())
        for label, tasks in lost.items()
    )
    refusal = SuiteError(f"suite {suite.name}: {said}. Change it or leave it out; nothing was started")
    for tasks in lost.values():
        for why in tasks.values():
            refusal.add_note(why.traceback)
    raise refusal


def reasons(
    suite: Suite,
    cells: Sequence[PlannedCell],
    *,
    launcher: AnyLauncher,
    plugins: Sequence[Path],
    at_a_time: int = 1,
    devices: int = 1,
) -> dict[tuple[str, str], Failure | None]:
    """Return, for each contestant and task among `cells`, why its model cannot be built and run there.

    None where nothing speaks against it; so too where the attempt hung, crashed or was killed: the fit will tell.
    """
    firsts = {(cell.name.contestant, cell.name.task): cell for cell in reversed(cells)}
    pairs = dict(reversed(firsts.items()))
    plans = [plan_of(suite, cell, plugins, devices=devices) for cell in pairs.values()]
    limits = suite.limits
    seconds = min(PATIENCE, limits.stall_minutes * 60, limits.fit_minutes * 60)
    return dict(zip(pairs, launcher.ask(attempt, plans, seconds=seconds, at_a_time=at_a_time), strict=True))


def impossible(reason_by_pair: dict[tuple[str, str], Failure | None]) -> dict[str, dict[str, Failure]]:
    """Return the contestants that fit no task at all, with the reason by task."""
    by_label: dict[str, dict[str, Failure | None]] = {}
    for (label, task), why in reason_by_pair.items():
        by_label.setdefault(label, {})[task] = why
    return {
        label: {task: why for task, why in tasks.items() if why is not None}
        for label, tasks in by_label.items()
        if all(why is not None for why in tasks.values())
    }


def attempt(plan: FitPlan) -> None:
    """Build everything that `plan` names, and pass two blank samples through its model; raises what that raises.

    Of the metrics only the one that ranks is built: whatever another raises costs no cell.
    """
    course = resolve(plan, load_catalog(plan.plugins))
    subject = build(course)
    if course.task.solve is not None:
        return
    assert plan.recipe is not None
    course.build_objective(feature_width(course, subject))
    if plan.devices > 1:
        refuse_shares(course, subject.module)
    course.primary.build(subject.context)
    build_augmentation(plan.recipe, subject.context.shape, course.task.permits)


def _proven(ledger: Ledger) -> set[str]:
    """Return the contestants that have finished a cell: they fit something, whatever else they still owe."""
    return {record.cell.contestant for record in ledger.records if record.state == "finished"}


def plan_of(
    suite: Suite, cell: PlannedCell, plugins: Sequence[Path], *, devices: int = 1, folder: Path = NOWHERE
) -> FitPlan:
    """Return the plan of a cell at its recipe's stated values: for a question about it, not to be run."""
    recipe = suite.recipe_of(cell.contestant)
    return FitPlan(
        name=str(cell.name),
        purpose="cell",
        contestant=cell.contestant,
        task=cell.name.task,
        path=suite.path_of(cell.name.task),
        primary=suite.primary,
        metrics=suite.metrics,
        readouts=suite.readouts,
        budget=suite.budget,
        recipe=recipe,
        hyperparameters=recipe.stated if recipe else {},
        seed=cell.name.seed,
        devices=devices,
        plugins=[path.resolve() for path in plugins],
        folder=folder,
        limits=suite.limits,
    )


def _without_names(message: str) -> str:
    """Return a reason without `model M on task T: `, which is said already."""
    head, found, tail = message.partition(": ")
    return tail if found and head.startswith("model ") and " on task " in head else message

"""How much one cell differs from itself: its fit repeated with the same seed, as the suite says and in other settings.

The settings are numbers of threads, the other precision, two devices, and the processor where there is a GPU.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from whitebench.audit import Exhibit, plan_again, spoilers
from whitebench.budget import Budget
from whitebench.calibration import Calibration, Repetition
from whitebench.catalog import Catalog
from whitebench.errors import WhitebenchError
from whitebench.fit import FitPlan, Fitted
from whitebench.launch import Launcher
from whitebench.provenance import Provenance, changes, now
from whitebench.repetition import outcomes
from whitebench.result import Failure, Score
from whitebench.store import Store
from whitebench.suite import Suite


@dataclass(frozen=True, kw_only=True)
class Setting:
    """In what a fit is computed otherwise than the suite says."""

    name: str = ""
    """`threads=2`; empty where in nothing."""
    budget: Budget
    devices: int = 1
    is_on_cpu: bool = False


def settings_of(budget: Budget, cores: int, *, is_solved: bool) -> list[Setting]:
    """Return the settings, beside the suite's own, in which numbers come out otherwise and none is meant to.

    Args:
        budget: the suite's.
        cores: how many this process may use.
        is_solved: whether the task solves itself, in a precision of its own.
    """
    threads = [number for number in sorted({1, 2, cores}) if number <= cores and number != budget.threads]
    found = [Setting(name=f"threads={number}", budget=replace(budget, threads=number)) for number in threads]
    if is_solved:
        return found
    if budget.precision == "32":
        return [*found, Setting(name="precision=bf16-mixed", budget=replace(budget, precision="bf16-mixed"))]
    return [*found, Setting(name="precision=32", budget=replace(budget, precision="32"))]


def _elsewhere(budget: Budget, own: Provenance, *, is_solved: bool) -> list[Setting]:
    """Return the settings in which as much is computed on other devices: on two, and on the processor."""
    is_on_gpu = not own.is_deterministic
    has_two = torch.cuda.device_count() > 1 if is_on_gpu else True
    two = has_two and budget.batch_size > 1 and not is_solved
    return [
        *([Setting(name="devices=2", budget=budget, devices=2)] if two else []),
        *([Setting(name="device=cpu", budget=budget, is_on_cpu=True)] if is_on_gpu else []),
    ]


def calibrate(
    suite: Suite,
    catalog: Catalog,
    store: Store,
    launcher: Launcher,
    exhibit: Exhibit,
    *,
    plugins: Sequence[Path],
    work: Path,
    cores: int,
    repeats: int,
    tell: Callable[[str, str], None],
) -> Calibration:
    """Repeat a finished cell, one fit at a time, and return how it came out each time, the stored result included.

    Args:
        suite: with the cell's contestant.
        catalog: where its names are looked up.
        store: has the cell's result.
        launcher: starts the fits.
        exhibit: the cell.
        plugins: local plugin files.
        work: the folder in which fits leave what they need while they run.
        cores: how many may be used.
        repeats: fits as the suite says, one or more.
        tell: hears of each fit that has ended: its setting, and why it yielded nothing, empty where it did.

    Raises:
        WhitebenchError: the cell is stale, or cannot be repeated as the suite says; says why.
    """
    name, result = exhibit.planned.name, store.result(exhibit.stored)
    if why := spoilers(exhibit.planned, store.parts(exhibit.stored), is_fit=True):
        raise WhitebenchError(f"{name} is stale, and repeated it would be something else: {why}; run it again first")
    own = Setting(budget=suite.budget)
    others = settings_of(suite.budget, cores, is_solved=result.is_solved)
    found: list[Repetition] = []
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="calibrate-", dir=work) as folder:
        plan = plan_again(suite, exhibit.planned, result, catalog, plugins=plugins, folder=Path(folder), is_fit=True)
        for setting, outcome in _repeated(plan, launcher, [own] * repeats):
            if isinstance(outcome, Failure):
                raise WhitebenchError(f"{name} cannot be repeated: {outcome.kind}: {outcome.message}")
            if not found:
                found.append(_stored(result.scores, result.provenance, outcome.provenance))
                others += _elsewhere(suite.budget, outcome.provenance, is_solved=result.is_solved)
            found.append(_repetition(setting.name, outcome.scores, outcome.provenance))
            tell(setting.name, "")
        for setting, outcome in _repeated(plan, launcher, others):
            if isinstance(outcome, Failure):
                tell(setting.name, f"{outcome.kind}: {outcome.message}")
            else:
                found.append(_repetition(setting.name, outcome.scores, outcome.provenance))
                tell(setting.name, "")
    return Calibration(cell=str(name), identity=exhibit.stored.identity, when=now(), repetitions=found)


def _repeated(
    plan: FitPlan, launcher: Launcher, settings: Sequence[Setting]
) -> Iterator[tuple[Setting, Fitted | Failure]]:
    for number, setting in enumerate(settings):
        folder = plan.folder / f"{number}-{setting.name or 'own'}"
        again = replace(
            plan, budget=setting.budget, devices=setting.devices, is_on_cpu=setting.is_on_cpu, folder=folder
        )
        for _, outcome in outcomes(launcher, [again]):
            assert isinstance(outcome, Fitted | Failure)
            yield setting, outcome


def _stored(scores: Sequence[Score], then: Provenance, since: Provenance) -> Repetition:
    """Return the stored result as a repetition, in a setting of its own where machine or versions were others."""
    return _repetition(f"as stored ({'; '.join(others)})" if (others := changes(then, since)) else "", scores, then)


def _repetition(setting: str, scores: Sequence[Score], source: Provenance) -> Repetition:
    values = {one.name: one.value for one in scores if one.value is not None}
    return Repetition(setting=setting, device=source.device, threads=source.threads, values=values)

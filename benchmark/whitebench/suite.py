"""The plan of a benchmark: contestants x tasks x seeds, with recipes, metrics and budget; one TOML file."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from whitebench.budget import MOST, Budget, Limits, Tuning
from whitebench.document import parse_document, parse_value, read_document
from whitebench.errors import OptionError, SuiteError, near_misses
from whitebench.names import parse_name, without_path
from whitebench.recipe import Recipe
from whitebench.settings import MOST_LEVELS, STRICT, SettingError, need, read_settings
from whitebench.specs import PATH
from whitebench.wording import is_plain, listed, plain, shown

NOTHING = Budget(epochs=0, batch_size=1, trials=0)
"""What contestants may spend where a suite's tasks solve themselves."""
MOST_SEEDS = 10_000
MOST_CELLS = 100_000
MOST_THREADS = 1_024
MOST_SUMMARY = 200
"""Characters."""
MOST_PARAMETERS = 1e12


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One row of a board: a model with its options, objective, read-out and recipe, under one label."""

    __pydantic_config__ = STRICT

    model: str
    """A name with options, `crate[dim=64,depth=4]`."""
    label: str = ""
    """How the board calls it; the model's text where not given."""
    objective: str = "cross-entropy"
    """A name with options, `mcr2[eps2=0.5]`."""
    readout: str = ""
    """How classes are read off the features: `head`, or a read-out with options; the objective's own where not
    given."""
    recipe: str = "plain"
    weights: str = ""
    """A file with the weights it starts from, its path as seen from the suite's file; drawn by the seed where not
    given."""
    epochs: Literal[0] | None = None
    """0 to be scored as it stands, without training or tuning. No other number: the budget is everyone's."""

    def epochs_of(self, budget: Budget) -> int:
        """Return how many epochs a fit of this contestant has; 0 where it is scored as it stands."""
        return budget.epochs if self.epochs is None else self.epochs

    def __post_init__(self) -> None:
        if not self.label:
            object.__setattr__(self, "label", self.model)
        for name in ("model", "objective", *(["readout"] if self.readout else [])):
            _check_name(name, getattr(self, name))
        hint = "" if self.label != self.model else ": give the contestant a label"
        need(
            re.fullmatch(r"[A-Za-z0-9][\w.+=,\[\]-]{0,119}", self.label, re.ASCII) is not None,
            "label",
            f"{shown(self.label)} must be up to 120 letters, digits and . + = , [ ] _ -, "
            f"beginning with a letter or digit{hint}",
        )


@dataclass(frozen=True, kw_only=True)
class Match:
    """How large every contestant is to be: its width is scaled until it is that."""

    __pydantic_config__ = STRICT

    parameters: float
    """How many each is to have, 5e6."""
    tolerance: float = 0.02
    """By what share of that it may miss them; one that cannot be brought so near is refused."""

    def __post_init__(self) -> None:
        need(1 <= self.parameters <= MOST_PARAMETERS, "parameters", f"must be 1 to {MOST_PARAMETERS:g}")
        need(0 < self.tolerance <= 0.5, "tolerance", "must be above 0 and at most 0.5, a share of the parameters")


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A named, versioned grid of cells."""

    __pydantic_config__ = STRICT

    name: str
    version: int
    summary: str
    primary: str
    """The metric that chooses, and that the board ranks by."""
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    """Which; the file may say how many instead, counted from 0 up."""
    metrics: tuple[str, ...]
    readouts: tuple[str, ...] = ()
    """Read-outs that the primary metric is scored with besides, on every contestant's features and, as a control, on
    the samples as they are."""
    budget: Budget = NOTHING
    """Left out where tasks solve themselves, as are the recipes."""
    limits: Limits = field(default_factory=Limits)
    tuning: Tuning = field(default_factory=Tuning)
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    match: Match | None = None
    """How many parameters contestants have, whose widths are then not given."""
    paths: Mapping[str, str] = field(default_factory=dict)
    """Where on this machine the data of tasks lie, by the task as it stands in `tasks` or by its name alone."""
    contestants: tuple[Contestant, ...]
    guests: tuple[Contestant, ...] = field(default=(), metadata={"is_in_file": False})
    """Contestants added on the command line."""

    def __post_init__(self) -> None:
        need(re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", self.name) is not None, "name",
             f"{shown(self.name)} must be up to 64 lower-case letters, digits and -")  # fmt: skip
        need(1 <= self.version <= MOST, "version", "must be at least 1 and below 2^31")
        need(len(self.summary) <= MOST_SUMMARY and is_plain(self.summary), "summary",
             f"must be one line of up to {MOST_SUMMARY} characters")  # fmt: skip
        for name in ("tasks", "seeds", "metrics", "readouts"):
            values = getattr(self, name)
            twice = _twice(values)
            need(len(values) > 0 or name == "readouts", name, "must not be empty")
            need(not twice, name, f"{listed(map(str, twice))} is given twice: leave one out")
        need(len(self.seeds) <= MOST_SEEDS, "seeds", f"must be {MOST_SEEDS} at most")
        strange = [seed for seed in self.seeds if not 0 <= seed <= MOST]
        need(not strange, "seeds", f"must be in [0, 2^31), got {listed(map(str, strange), 5)}")
        for task in self.tasks:
            _check_name("tasks", task)
            need("/" not in task, "tasks", f"{shown(task)} holds a /, which stands between the parts of a cell's name")
        named = {*self.tasks, *(parse_name(task)[0] for task in self.tasks)}
        for task in self.paths:
            near = near_misses(task, named) or f" (tasks: {listed(self.tasks)})"
            need(task in named, "paths", f"{shown(task)} is no task of this suite{near}")
        for readout in self.readouts:
            _check_name("readouts", readout)
        near = near_misses(self.primary, self.metrics) or f" (metrics: {listed(self.metrics)}): add it to them"
        need(self.primary in self.metrics, "primary", f"{shown(self.primary)} is not among metrics{near}")
        need(len(self.everyone) > 0, "contestants", "must not be empty")
        twice = _twice([one.label for one in self.everyone])
        need(not twice, "contestants", f"label {listed(map(str, twice))} is given twice: give each its own label")
        for one in self.everyone if self.recipes else ():
            near = near_misses(one.recipe, self.recipes) or f" (known: {listed(self.recipes)})"
            need(one.recipe in self.recipes, "contestants", f"{one.label}: unknown recipe {shown(one.recipe)}{near}")
        need(self.budget.threads <= MOST_THREADS, "budget.threads", f"must be {MOST_THREADS:,} at most")
        cells = len(self.everyone) * len(self.tasks) * len(self.seeds)
        need(cells <= MOST_CELLS, "", f"contestants x tasks x seeds are {cells:,} cells: {MOST_CELLS:,} at most")

    @property
    def everyone(self) -> tuple[Contestant, ...]:
        """The file's contestants, then the guests."""
        return (*self.contestants, *self.guests)

    def trials_of(self, contestant: Contestant) -> int:
        """Return how many tuning trials `contestant` has per task: none where there is nothing to train."""
        return self.budget.trials if contestant.epochs_of(self.budget) else 0

    def recipe_of(self, contestant: Contestant) -> Recipe | None:
        """Return how `contestant` is trained; None where tasks solve themselves."""
        return self.recipes[contestant.recipe] if self.recipes else None

    def path_of(self, task: str) -> str:
        """Return where the data of `task` lie on this machine; empty where nothing is said."""
        return self.paths.get(task) or self.paths.get(parse_name(task)[0], "")

    def contestant(self, label: str) -> Contestant | None:
        """Return the contestant called `label`, if there is one."""
        return next((one for one in self.everyone if one.label == label), None)


def _twice(values: Sequence[object]) -> list[object]:
    return [value for value, count in Counter(values).items() if count > 1]


def _check_name(setting: str, text: str) -> None:
    try:
        parse_name(text)
    except OptionError as error:
        raise SettingError(setting, str(error)) from error


def suite_names() -> list[str]:
    """Return the names of the suites that come with whitebench."""
    folder = resources.files("whitebench") / "suites"
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))


def load_suite(name_or_path: str, overrides: Sequence[str] = ()) -> Suite:
    """Read a suite by the name of one that comes along, or from a `.toml` file.

    Args:
        name_or_path: `smoke`, or `path/to/suite.toml`.
        overrides: texts like `budget.epochs=3`, with values as in TOML.

    Raises:
        SuiteError: there is no such suite, or it does not say a benchmark; says where and what to do.
    """
    source, content = _read(name_or_path)
    for override in overrides:
        _apply(content, override)
    if "guests" in content:
        raise SuiteError(f"{source}: guests: unknown (guests come by --model; a file has contestants)")
    if "seeds" in content:
        content["seeds"] = _counted(content["seeds"], source)
    _take_paths(content, Path(name_or_path).parent, source)
    return _with_whole_paths(read_settings(Suite, content, source), Path(name_or_path).parent)


def _with_whole_paths(suite: Suite, folder: Path) -> Suite:
    """Return the suite with the paths of its weights as seen from anywhere."""
    if not any(one.weights for one in suite.contestants):
        return suite
    whole = [
        dataclasses.replace(one, weights=_whole(one.weights, folder)) if one.weights else one
        for one in suite.contestants
    ]
    return dataclasses.replace(suite, contestants=tuple(whole))


def _take_paths(content: dict[str, Any], folder: Path, source: str) -> None:
    """Move the `path` out of each task into `paths`, whole; what is of a wrong type is left for `Suite` to judge."""
    tasks, paths = content.get("tasks"), content.get("paths", {})
    if not isinstance(tasks, list) or not isinstance(paths, dict):
        return
    moved: list[object] = []
    for task in tasks:
        left, path = without_path(task) if isinstance(task, str) and PATH in task and _is_name(task) else (task, "")
        if path and left in moved:
            name, _ = parse_name(left)
            raise SuiteError(
                f"{source}: tasks: {shown(left)} stands for two paths: give each a name that boards can tell it by, "
                f"as in {name}[name=pets,path={plain(path, 60)}]"
            )
        moved.append(left)
        paths = {**paths, **({left: path} if path else {})}
    content["tasks"] = moved
    if paths:
        whole = {task: _whole(path, folder) for task, path in paths.items()}
        content["paths"] = whole


def _forget_paths(content: dict[str, Any], name: str) -> None:
    """Take out of a suite's file where the data of tasks called `name` lie: something else was typed."""
    paths, tasks = content["paths"], content.get("tasks")
    for task in [one for one in paths if _is_name(one) and parse_name(one)[0] == name]:
        del paths[task]
    if isinstance(tasks, list):
        content["tasks"] = [
            without_path(task)[0] if isinstance(task, str) and _is_name(task) and parse_name(task)[0] == name else task
            for task in tasks
        ]


def _whole(path: Any, folder: Path) -> Any:
    """Return a path as seen from anywhere; what is none is left for `Suite` to judge."""
    if not isinstance(path, str) or not path:
        return path
    seen = folder / Path(path).expanduser()
    try:
        return str(seen.absolute())
    except FileNotFoundError:  # the working folder was deleted: that is said where the file is wanted
        return str(seen)


def _is_name(text: str) -> bool:
    try:
        parse_name(text)
    except OptionError:  # for `Suite` to judge
        return False
    return True


def with_guests(suite: Suite, guests: Sequence[Contestant]) -> Suite:
    """Return the suite with guests."""
    return dataclasses.replace(suite, guests=(*suite.guests, *guests))


def parse_seeds(text: str) -> tuple[int, ...]:
    """Read seeds as people write them: `3` (the first three), `0,2,5`, `5-9`.

    Raises:
        SuiteError: the text is none of these.
    """
    if re.fullmatch(r"[0-9]{1,5}", text) and 0 < int(text) <= MOST_SEEDS:
        return tuple(range(int(text)))
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", part.strip())
        low, high = (int(found[1]), int(found[2] or found[1])) if found and text != "0" else (0, -1)
        if high < low or high - low >= MOST_SEEDS or len(seeds) > MOST_SEEDS:  # also where they are the same ones again
            raise SuiteError(
                f"--seeds {plain(text, 60)}: write 3 (the first three), 0,2,5 or 5-9, {MOST_SEEDS:,} at most"
            )
        seeds += range(low, high + 1)
    return tuple(dict.fromkeys(seeds))


def _counted(seeds: Any, source: str) -> Any:
    """Return `seeds = 3` as the first three; what is no whole number is left for `Suite` to judge."""
    if not isinstance(seeds, int) or isinstance(seeds, bool):
        return seeds
    if not 1 <= seeds <= MOST_SEEDS:
        raise SuiteError(f"{source}: seeds: {shown(seeds)} must be 1 to {MOST_SEEDS}, or a list of seeds")
    return list(range(seeds))


def _read(name_or_path: str) -> tuple[str, dict[str, Any]]:
    """Return whom an error names, and what the suite's file holds."""
    path, names = Path(name_or_path), suite_names()
    known = ", ".join(names)
    if path.suffix == ".toml":
        return str(path), read_document(path)
    if path.suffix or len(path.parts) > 1 or name_or_path in (".", ".."):
        raise SuiteError(f"{plain(name_or_path, 200)} is no suite: give the name of one ({known}) or a .toml file")
    if name_or_path not in names:
        file = f", did you mean '{name_or_path}.toml'?" if _is_file(Path(f"{name_or_path}.toml")) else ""
        raise SuiteError(
            f"unknown suite {shown(name_or_path)}{file or near_misses(name_or_path, names)} "
            f"(known: {known}; or give the path of a .toml file)"
        )
    source = f"suite {name_or_path}"
    text = (resources.files("whitebench") / "suites" / f"{name_or_path}.toml").read_text(encoding="utf-8")
    return source, parse_document(text, source)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _apply(content: dict[str, Any], override: str) -> None:
    said = f"--set {plain(override, 80)}"
    key, equals, value = (side.strip() for side in override.partition("="))
    *path, last = parts = [part.strip() for part in key.split(".")]
    if not (equals and all(parts) and value) or len(parts) > MOST_LEVELS:
        raise SuiteError(f"{said}: write KEY=VALUE, as in budget.epochs=3")
    if not is_plain(override):
        raise SuiteError(f"{said}: holds a character that cannot be seen: leave it out")
    table: Any = content
    for part in path:
        table = table.setdefault(part, {}) if isinstance(table, dict) else None
    if not isinstance(table, dict):
        raise SuiteError(f"{said}: {plain(key, 80)} does not name a key of a table")
    try:
        meant = parse_value(value)
    except ValueError as error:
        raise SuiteError(f"{said}: {error}: write a shorter value") from error
    if path == ["paths"]:
        _forget_paths(content, last)
        meant = _whole(meant, Path())  # as typed: seen from the working folder, not from the suite's file
    table[last] = meant

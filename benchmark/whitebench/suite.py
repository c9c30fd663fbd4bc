"""The plan of a benchmark: contestants x tasks x seeds, with recipes, metrics and budget; one TOML file."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from whitebench.budget import MOST, Budget, Tuning
from whitebench.errors import SuiteError, near_misses
from whitebench.recipe import Recipe
from whitebench.settings import STRICT, need, read_settings

MOST_SEEDS = 10_000


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One row of a board: a model with its options, objective and recipe, under one label."""

    __pydantic_config__ = STRICT

    model: str
    """A name with options, `crate[dim=64,depth=4]`."""
    label: str = ""
    """How the board calls it; the model's text where not given."""
    objective: str = "cross-entropy"
    recipe: str = "plain"

    def __post_init__(self) -> None:
        if not self.label:
            object.__setattr__(self, "label", self.model)
        need(
            re.fullmatch(r"[A-Za-z0-9][\w.+=,\[\]-]{0,119}", self.label, re.ASCII) is not None,
            "label",
            f"{self.label!r} must be up to 120 letters, digits and . + = , [ ] _ -, beginning with a letter or digit",
        )


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
    budget: Budget
    tuning: Tuning = field(default_factory=Tuning)
    recipes: Mapping[str, Recipe]
    contestants: tuple[Contestant, ...]
    guests: tuple[Contestant, ...] = ()
    """Contestants added on the command line."""

    def __post_init__(self) -> None:
        need(re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", self.name) is not None, "name",
             f"{self.name!r} must be up to 64 lower-case letters, digits and -")  # fmt: skip
        need(self.version >= 1, "version", "must be at least 1")
        for name in ("tasks", "seeds", "metrics"):
            values = getattr(self, name)
            twice = _twice(values)
            need(len(values) > 0, name, "must not be empty")
            need(not twice, name, f"{', '.join(map(str, twice))} is given twice")
        need(len(self.seeds) <= MOST_SEEDS, "seeds", f"must be {MOST_SEEDS} at most")
        need(all(0 <= seed <= MOST for seed in self.seeds), "seeds", "must be in [0, 2^31)")
        near = near_misses(self.primary, self.metrics)
        need(self.primary in self.metrics, "primary", f"{self.primary!r} is not among metrics{near}")
        need(len(self.everyone) > 0, "contestants", "must not be empty")
        twice = _twice([one.label for one in self.everyone])
        need(not twice, "contestants", f"label {', '.join(map(str, twice))} is given twice: give each its own label")
        for one in self.everyone:
            near = near_misses(one.recipe, self.recipes) or f" (known: {', '.join(self.recipes) or 'none'})"
            need(one.recipe in self.recipes, "contestants", f"{one.label}: unknown recipe {one.recipe!r}{near}")

    @property
    def everyone(self) -> tuple[Contestant, ...]:
        """The file's contestants, then the guests."""
        return (*self.contestants, *self.guests)

    def contestant(self, label: str) -> Contestant | None:
        """Return the contestant called `label`, if there is one."""
        return next((one for one in self.everyone if one.label == label), None)


def _twice(values: Sequence[object]) -> list[object]:
    return [value for value in dict.fromkeys(values) if values.count(value) > 1]


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
    source, text = _read(name_or_path)
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SuiteError(f"{source} is not TOML: {error}") from error
    for override in overrides:
        _apply(content, override)
    if "guests" in content:
        raise SuiteError(f"{source}: guests: unknown (guests come by --model; a file has contestants)")
    if "seeds" in content:
        content["seeds"] = _counted(content["seeds"], source)
    return read_settings(Suite, content, source)


def with_guests(suite: Suite, guests: Sequence[Contestant]) -> Suite:
    """Return the suite with guests."""
    return dataclasses.replace(suite, guests=(*suite.guests, *guests))


def parse_seeds(text: str) -> tuple[int, ...]:
    """Read seeds as people write them: `3` (the first three), `0,2,5`, `5-9`.

    Raises:
        SuiteError: the text is none of these.
    """
    if re.fullmatch(r"[0-9]{1,4}", text) and int(text) > 0:
        return tuple(range(int(text)))
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", part.strip())
        low, high = (int(found[1]), int(found[2] or found[1])) if found else (0, -1)
        if high < low or high - low >= MOST_SEEDS or text == "0":
            raise SuiteError(f"--seeds {text}: write 3 (the first three), 0,2,5 or 5-9")
        seeds += range(low, high + 1)
    return tuple(dict.fromkeys(seeds))


def _counted(seeds: Any, source: str) -> Any:
    """Return `seeds = 3` as the first three; what is no whole number is left for `Suite` to judge."""
    if not isinstance(seeds, int) or isinstance(seeds, bool):
        return seeds
    if not 1 <= seeds <= MOST_SEEDS:
        raise SuiteError(f"{source}: seeds: {seeds} must be 1 to {MOST_SEEDS}, or a list of seeds")
    return list(range(seeds))


def _read(name_or_path: str) -> tuple[str, str]:
    path = Path(name_or_path)
    if path.suffix or len(path.parts) > 1:
        if path.suffix != ".toml":
            raise SuiteError(f"{path} is no suite: give the name of one ({', '.join(suite_names())}) or a .toml file")
        try:
            return str(path), path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SuiteError(f"{path}: cannot be read as a suite ({error})") from error
    names = suite_names()
    if name_or_path not in names:
        raise SuiteError(
            f"unknown suite {name_or_path!r}{near_misses(name_or_path, names)} "
            f"(known: {', '.join(names)}; or give the path of a .toml file)"
        )
    file = resources.files("whitebench") / "suites" / f"{name_or_path}.toml"
    return f"suite {name_or_path}", file.read_text(encoding="utf-8")


def _apply(content: dict[str, Any], override: str) -> None:
    key, equals, value = (side.strip() for side in override.partition("="))
    if not (equals and key and value):
        raise SuiteError(f"--set {override}: write KEY=VALUE, as in budget.epochs=3")
    *path, last = key.split(".")
    table: Any = content
    for part in path:
        table = table.setdefault(part, {}) if isinstance(table, dict) else None
    if not isinstance(table, dict):
        raise SuiteError(f"--set {override}: {key} does not name a key of a table")
    try:
        table[last] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:  # a text need not be quoted on a command line
        table[last] = value

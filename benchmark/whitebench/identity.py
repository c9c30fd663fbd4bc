"""What a cell is: its name, and the digest of everything that can change its numbers."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Self, TypeAlias

from whitebench.catalog import Catalog
from whitebench.errors import TaskDataError, WhitebenchError
from whitebench.names import configure, configured, configured_task, parse_name, with_preset
from whitebench.plugin import Entry
from whitebench.recipe import Recipe
from whitebench.source import Source, source_of, versions_of
from whitebench.specs import HEAD, PATH, MetricSpec, ModelSpec, ObjectiveSpec, ReadoutSpec, TaskSpec
from whitebench.suite import Contestant, Suite
from whitebench.wording import shown

RULES_VERSION = 2
"""Raised whenever the harness itself changes what a cell's numbers would be."""

CROPS_VERSION = 2
"""Raised instead where only those of recipes with crops would be others."""

ENGINES = frozenset({"lightning", "lion_pytorch", "numpy", "optuna", "scipy", "torch", "torchmetrics"})
"""The libraries in which the harness trains, tunes and measures, by import name: their versions change numbers."""

SOLVERS = frozenset({"numpy", "scipy", "torch"})
"""Those of them that a task which solves itself may stand on without naming them."""

Parts: TypeAlias = Mapping[str, Any]
"""What goes into a digest, by name: plain JSON values."""


@dataclass(frozen=True, kw_only=True, order=True)
class CellName:
    """The name of a cell as people write it: `SUITE/CONTESTANT/TASK/SEED`."""

    suite: str
    contestant: str
    task: str
    seed: int

    def __str__(self) -> str:
        return f"{self.suite}/{self.contestant}/{self.task}/{self.seed}"

    @classmethod
    def parse(cls, text: str, *, typed: str | None = None) -> Self:
        """Read a name; an error shows what was `typed`, where that is not `text`.

        Raises:
            WhitebenchError: `text` is not `SUITE/CONTESTANT/TASK/SEED`.
        """
        found = re.fullmatch(r"(?P<suite>[^/]+)/(?P<contestant>[^/]+)/(?P<task>[^/]+)/(?P<seed>[0-9]{1,10})", text)
        if not found:
            raise WhitebenchError(
                f"{shown(typed or text, 120)} is no cell: write SUITE/CONTESTANT/TASK/SEED, as in smoke/vit/digits/0"
            )
        return cls(suite=found["suite"], contestant=found["contestant"], task=found["task"], seed=int(found["seed"]))


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The parts that can change a cell's numbers, and their digest."""

    parts: Parts
    unknown: str = ""
    """Why the bytes of the data are not known on this machine; empty where they are."""

    @cached_property
    def digest(self) -> str:
        """The sha256 of the parts as canonical JSON."""
        return digest_of(self.parts)

    def as_stored(self, stored: Parts) -> Identity:
        """Return the identity with the data that a cell was run with, where those of this machine are not known."""
        if not self.unknown:
            return self
        manifest = stored.get("task", {}).get("manifest")
        return Identity(parts={**self.parts, "task": {**self.parts["task"], "manifest": manifest}})

    def differences(self, stored: Parts) -> list[str]:
        """Return a line for each part in which `stored` differs from this identity: `where: stored -> now`."""
        now, before = _flat(self.parts), _flat(stored)
        return [
            f"{where}: {_show(before.get(where))} -> {_show(now.get(where))}"
            for where in sorted({*now, *before})
            if now.get(where) != before.get(where)
        ]


def digest_of(value: object) -> str:
    """Return the sha256 of `value` as canonical JSON (sorted keys, no spaces)."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def canonical(value: object) -> str:
    """Return `value` as JSON with sorted keys and no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def identify_suite(suite: Suite, task: str, recipe: str, catalog: Catalog) -> Parts:
    """Return the parts of an identity that every contestant of `suite` with `recipe` shares on `task`."""
    name, _ = parse_name(task)
    entry = catalog.task(name)
    options = configured_task(task, entry.spec.config, suite.path_of(task))
    metrics = [catalog.metric(metric) for metric in suite.metrics]
    if entry.spec.solve is not None:
        return _identify_solving(suite, name, entry, options, metrics)
    engines = ENGINES | ({"kornia"} if suite.recipes[recipe].is_for_images else set())
    readouts = {text: catalog.readout(parse_name(text)[0]) for text in suite.readouts}
    sources = {f"task {name}": source_of(entry)}
    sources |= {f"metric {one.spec.name}": source_of(one) for one in metrics}
    sources |= {f"control {one.spec.name}": source_of(one) for one in readouts.values()}
    return {
        "rules": RULES_VERSION,
        "budget": dataclasses.asdict(suite.budget),
        "recipe": _told_recipe(suite.recipes[recipe]),
        "tuning": dataclasses.asdict(suite.tuning),
        "primary": suite.primary,
        "metrics": {one.spec.name: one.spec.version for one in metrics},
        "readouts": [_item("readout", text, one.spec) for text, one in sorted(readouts.items())],
        "task": {
            "name": name,
            "version": entry.spec.version,
            "options": _told(options),
            "manifest": _manifest_of(entry.spec, options)[0],
        },
        "sources": {item: digest_of(source.code) for item, source in sources.items()},
        "packages": {**versions_of(engines), **_versions(sources.values())},
    }


def unknown_data(suite: Suite, task: str, catalog: Catalog) -> str:
    """Return why the bytes that `task` serves are not known on this machine; empty where they are."""
    spec = catalog.task(parse_name(task)[0]).spec
    if spec.solve is not None or spec.prepare is None:
        return ""
    return _manifest_of(spec, configured_task(task, spec.config, suite.path_of(task)))[1]


def _manifest_of(spec: TaskSpec, options: Any) -> tuple[Parts | None, str]:
    """Return the sha256 of each split as far as it is known, or None and why they cannot be had."""
    try:
        return {str(split): sha for split, sha in spec.manifest_of(options).items()}, ""
    except TaskDataError as error:
        return None, str(error)


def _told_recipe(recipe: Recipe) -> Parts:
    """Return a recipe's settings; later ones where they are used alone, so that cells of before are what they were."""
    told = dataclasses.asdict(recipe)
    if not recipe.resized_crop:
        del told["resized_crop"]
    return {**told, **({"crops": CROPS_VERSION} if recipe.crop else {})}


def _told(options: Any) -> Parts:
    """Return a task's options without that which says where its data lie: their bytes say what they are."""
    return {name: value for name, value in dataclasses.asdict(options).items() if name != PATH}


def _identify_solving(
    suite: Suite, name: str, entry: Entry[TaskSpec], options: Any, metrics: Sequence[Entry[MetricSpec]]
) -> Parts:
    """Return what contestants share on a task that solves itself: nothing of training and tuning touches it.

    What it yields is computed by the task: of metrics only the version counts.
    """
    source = source_of(entry)
    return {
        "rules": RULES_VERSION,
        "budget": {"threads": suite.budget.threads},
        "primary": suite.primary,
        "metrics": {one.spec.name: one.spec.version for one in metrics},
        "task": {"name": name, "version": entry.spec.version, "options": _told(options)},
        "sources": {f"task {name}": digest_of(source.code)},
        "packages": {**versions_of(SOLVERS), **_versions([source])},
    }


def identify(
    suite: Suite, contestant: Contestant, task: str, seed: int, catalog: Catalog, *, shared: Parts | None = None
) -> Identity:
    """Return the identity of one cell of `suite`; `shared` are the parts from `identify_suite`, if they are known.

    Raises:
        WhitebenchError: the contestant, the task or a metric names something unknown or disputed.
    """
    shared = shared or identify_suite(suite, task, contestant.recipe, catalog)
    name, given = parse_name(contestant.model)
    if catalog.task(parse_name(task)[0]).spec.solve is not None:
        return _identify_solver(shared, contestant, seed, catalog.model(name))
    model, objective = catalog.model(name), catalog.objective(parse_name(contestant.objective)[0])
    readout = contestant.readout or objective.spec.readout
    entries: dict[str, Entry[Any]] = {f"model {name}": model, f"objective {objective.spec.name}": objective}
    read: Any = readout
    if readout != HEAD:
        entry = catalog.readout(parse_name(readout)[0])
        entries[f"readout {entry.spec.name}"] = entry
        read = _item("readout", readout, entry.spec)
    sources = {item: source_of(entry) for item, entry in entries.items()}
    options = with_preset(f"model {contestant.model}", model.spec.presets, given)
    return Identity(
        parts={
            **shared,
            "contestant": {
                "model": name,
                "options": dataclasses.asdict(configure(f"model {contestant.model}", model.spec.config, options)),
                "pinned": sorted(set(options) & set(model.spec.search)),
                "objective": _item("objective", contestant.objective, objective.spec),
                "readout": read,
                "is_trained": contestant.epochs is None,
                "weights": file_digest(Path(contestant.weights)) if contestant.weights else None,
            },
            "seed": seed,
            "sources": {**shared["sources"], **{item: digest_of(source.code) for item, source in sources.items()}},
            "packages": {**shared["packages"], **_versions(sources.values())},
        }
    )


def _identify_solver(shared: Parts, contestant: Contestant, seed: int, model: Entry[ModelSpec]) -> Identity:
    spec, source = model.spec, source_of(model)
    options = configured("model", contestant.model, spec.config, spec.presets)
    return Identity(
        parts={
            **shared,
            "contestant": {"model": spec.name, "options": dataclasses.asdict(options)},
            "seed": seed,
            "sources": {**shared["sources"], f"model {spec.name}": digest_of(source.code)},
            "packages": {**shared["packages"], **_versions([source])},
        }
    )


def study_parts(cell: Parts) -> Parts:
    """Return the parts of a cell's identity that its study depends on.

    The trials never see the cell's seed, nor any metric or read-out but those that rank.
    """
    primary = cell["primary"]
    kept = {key: value for key, value in cell.items() if key not in ("seed", "metrics", "readouts")}
    sources = {
        item: digest
        for item, digest in cell["sources"].items()
        if not item.startswith(("metric ", "control ")) or item == f"metric {primary}"
    }
    return {**kept, "metrics": {primary: cell["metrics"][primary]}, "sources": sources}


def file_digest(path: Path) -> str:
    """Return the sha256 of a file's bytes; `missing` where it cannot be read."""
    try:
        facts = path.stat()
        return _digest_of_file(path, facts.st_mtime_ns, facts.st_size)
    except OSError:
        return "missing"


@cache
def _digest_of_file(path: Path, _changed: int, _size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _item(kind: str, text: str, spec: ObjectiveSpec | ReadoutSpec) -> Parts:
    options = dataclasses.asdict(configured(kind, text, spec.config))
    return {"name": spec.name, "version": spec.version, "options": options}


def _versions(sources: Iterable[Source]) -> dict[str, str]:
    return versions_of(frozenset().union(*(source.packages for source in sources)))


def _flat(value: object, where: str = "") -> dict[str, object]:
    if isinstance(value, Mapping):
        flat: dict[str, object] = {}
        for key, inner in value.items():
            flat |= _flat(inner, f"{where}.{key}" if where else str(key))
        return flat
    is_plain = isinstance(value, str | int | float | None)
    return {where: value if is_plain else json.loads(canonical(value))}


def _show(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value):
        return value[:8]
    return "none" if value is None else canonical(value)

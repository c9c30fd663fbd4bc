"""Who is at home: every Spec by name with its owner, and the plugins that were turned away at the door."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from whitebench.errors import DuplicateNameError, PluginError, UnknownNameError
from whitebench.events import Event
from whitebench.plugin import SPEC_TYPE_BY_KIND, Entry, Kind, Owner, admit, installed, local
from whitebench.specs import MetricSpec, ModelSpec, ObjectiveSpec, TaskSpec

GROUP = "whitebench"
"""The entry-point group in which every distribution, ours too, names its plugins."""


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """A plugin that failed to load: nothing of it is used, everything else works."""

    owner: Owner
    reason: str
    traceback: str


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """Every registered item by kind and name."""

    entries: Mapping[Kind, Mapping[str, Entry[Any]]]
    disputed: Mapping[tuple[Kind, str], tuple[Owner, ...]]
    """Names that were registered more than once; using one is an error that names every owner."""
    quarantined: tuple[Quarantined, ...] = ()
    observers: tuple[tuple[Owner, Callable[..., None]], ...] = field(default=(), repr=False)

    def model(self, name: str) -> Entry[ModelSpec]:
        """Return the model called `name`; raises UnknownNameError or DuplicateNameError."""
        return self._find("model", name)

    def task(self, name: str) -> Entry[TaskSpec]:
        """Return the task called `name`; raises UnknownNameError or DuplicateNameError."""
        return self._find("task", name)

    def metric(self, name: str) -> Entry[MetricSpec]:
        """Return the metric called `name`; raises UnknownNameError or DuplicateNameError."""
        return self._find("metric", name)

    def objective(self, name: str) -> Entry[ObjectiveSpec]:
        """Return the objective called `name`; raises UnknownNameError or DuplicateNameError."""
        return self._find("objective", name)

    def tell(self, event: Event) -> list[str]:
        """Tell every observing plugin about `event`; return a line for each that raised."""
        complaints = []
        for owner, observer in self.observers:
            try:
                observer(event=event)
            except (Exception, SystemExit) as error:  # an observer may not stop a suite
                complaints.append(f"observer {owner} raised {type(error).__name__}: {error}")
        return complaints

    def _find(self, kind: Kind, name: str) -> Entry[Any]:
        if owners := self.disputed.get((kind, name)):
            raise DuplicateNameError(_dispute(kind, name, owners))
        try:
            return self.entries[kind][name]
        except KeyError:
            raise self._unknown(kind, name) from None

    def _unknown(self, kind: Kind, name: str) -> UnknownNameError:
        error = UnknownNameError(kind, name, self.entries[kind])
        if self.quarantined:
            lost = "; ".join(f"{one.owner}: {one.reason}" for one in self.quarantined)
            error.args = (f"{error} — plugins that failed to load: {lost}",)
        return error


def _dispute(kind: Kind, name: str, owners: Sequence[Owner]) -> str:
    if len(set(owners)) == 1:
        return f"{kind} {name!r} is registered {len(owners)} times by {owners[0]}: rename all but one"
    listing = " and ".join(map(str, dict.fromkeys(owners)))
    return f"{kind} {name!r} has {len(set(owners))} owners, {listing}: uninstall one of them or rename its {kind}"


def load_catalog(files: Sequence[Path] = ()) -> Catalog:
    """Load every installed plugin and the local plugin `files`, each on its own.

    A plugin that fails to import, hands over something that is no Spec, or implements a hook that
    does not exist is quarantined with its reason; the others are not touched.

    Raises:
        PluginError: a file in `files` does not exist.
    """
    loaders = [installed(point) for point in sorted(entry_points(group=GROUP), key=lambda point: point.value)]
    loaders += [local(path) for path in dict.fromkeys(path.resolve() for path in files)]
    found: dict[Kind, dict[str, list[Entry[Any]]]] = {kind: {} for kind in SPEC_TYPE_BY_KIND}
    quarantined: list[Quarantined] = []
    observers: list[tuple[Owner, Callable[..., None]]] = []
    for owner, load in loaders:
        try:
            plugin = admit(owner, load)
        except (Exception, SystemExit) as error:  # whatever a stranger's module does
            quarantined.append(Quarantined(owner=owner, reason=_one_line(error), traceback=traceback.format_exc()))
            continue
        for kind, entry in plugin.entries:
            found[kind].setdefault(entry.spec.name, []).append(entry)
        if plugin.observer is not None:
            observers.append((owner, plugin.observer))
    return Catalog(
        entries={
            kind: {name: owned[0] for name, owned in sorted(names.items()) if len(owned) == 1}
            for kind, names in found.items()
        },
        disputed={
            (kind, name): tuple(entry.owner for entry in owned)
            for kind, names in found.items()
            for name, owned in names.items()
            if len(owned) > 1
        },
        quarantined=tuple(quarantined),
        observers=tuple(observers),
    )


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())[:500]
    if isinstance(error, SystemExit):
        return f"it called sys.exit({text}) while being loaded"
    return text if isinstance(error, PluginError) else f"{type(error).__name__}: {text}".removesuffix(": ")


def listing(catalog: Catalog, kinds: Iterable[Kind]) -> list[dict[str, str]]:
    """Return a row for each item of `kinds`: kind, name, summary, owner's distribution, version and plugin."""
    return [
        {
            "kind": kind,
            "name": name,
            "summary": entry.spec.summary,
            "distribution": entry.owner.distribution,
            "version": entry.owner.version,
            "plugin": entry.owner.plugin,
        }
        for kind in kinds
        for name, entry in catalog.entries[kind].items()
    ]

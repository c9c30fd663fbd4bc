"""Who is at home: every Spec by name with its owner, and the plugins that were turned away at the door."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from math import inf
from pathlib import Path
from typing import Any

from whitebench.door import Quarantined, let_in, seconds_allowed
from whitebench.errors import DuplicateNameError, UnknownNameError
from whitebench.events import Event
from whitebench.patience import TooLongError, at_most, only_typed
from whitebench.plugin import SPEC_TYPE_BY_KIND, Entry, Kind, Loader, Owner, installed, local
from whitebench.probation import is_possible, vet
from whitebench.quotation import told
from whitebench.specs import LauncherSpec, MetricSpec, ModelSpec, ObjectiveSpec, ReadoutSpec, TaskSpec

GROUP = "whitebench"
"""The entry-point group in which every distribution, ours too, names its plugins."""


DISTRIBUTION = "whitebench"
"""Our own distribution; whoever is in another is a stranger."""

PATIENCE = 5.0
"""Seconds that an observer may take over one event."""


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """Every registered item by kind and name."""

    entries: Mapping[Kind, Mapping[str, Entry[Any]]]
    disputed: Mapping[tuple[Kind, str], tuple[Owner, ...]]
    """Names that were registered more than once; using one is an error that names every owner."""
    quarantined: tuple[Quarantined, ...] = ()
    observers: tuple[tuple[Owner, Callable[..., None]], ...] = field(default=(), repr=False)
    _slow: set[Owner] = field(default_factory=set, repr=False, compare=False)
    """Whose observers took too long and are told nothing more."""

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

    def readout(self, name: str) -> Entry[ReadoutSpec]:
        """Return the read-out called `name`; raises UnknownNameError or DuplicateNameError."""
        return self._find("readout", name)

    def launcher(self, name: str) -> Entry[LauncherSpec]:
        """Return the launcher called `name`; raises UnknownNameError or DuplicateNameError."""
        return self._find("launcher", name)

    def tell(self, event: Event) -> list[str]:
        """Tell every observing plugin about `event`; return a line for each that raised or took too long."""
        complaints = []
        for owner, observer in self.observers:
            if owner in self._slow:
                continue
            try:
                with only_typed(), at_most(PATIENCE):
                    observer(event=event)
            except TooLongError:
                self._slow.add(owner)
                complaints.append(f"observer {owner} took more than {PATIENCE:g} s and is told nothing more")
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # an observer may not stop a suite
                complaints.append(f"observer {owner} raised {told(error)}")
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


def load_catalog(
    files: Sequence[Path] = (), *, owners: Collection[str] | None = None, is_vetted: bool = True
) -> Catalog:
    """Load every installed plugin and the local plugin `files`, each on its own.

    A plugin that fails to import, takes too long, changes what others share, hands over something that is no
    Spec, or implements a hook that does not exist is quarantined with its reason; the others are not touched.

    Args:
        files: local plugin files.
        owners: the plugins to load, by `Owner.plugin`; None for all.
        is_vetted: whether a stranger's plugin is tried in a process of its own before it is loaded in this one.

    Raises:
        PluginError: a file in `files` does not exist.
    """
    # Resolved before anything is imported: a module may change the working folder.
    paths = [path for path in dict.fromkeys(path.resolve() for path in files) if owners is None or str(path) in owners]
    loaders = [one for one in _installed() if owners is None or one[0].plugin in owners] + list(map(local, paths))
    seconds = seconds_allowed()
    found: dict[Kind, dict[str, list[Entry[Any]]]] = {kind: {} for kind in SPEC_TYPE_BY_KIND}
    quarantined: list[Quarantined] = []
    observers: list[tuple[Owner, Callable[..., None]]] = []
    for owner, load in loaders:
        is_ours = owner.distribution == DISTRIBUTION
        fault = vet(owner, load, seconds=seconds) if is_vetted and not is_ours and is_possible() else None
        outcome = fault or let_in(owner, load, seconds=inf if is_ours else seconds)  # torch alone may take minutes
        if isinstance(outcome, Quarantined):
            quarantined.append(outcome)
            continue
        for kind, entry in outcome.entries:
            found[kind].setdefault(entry.spec.name, []).append(entry)
        if outcome.observer is not None:
            observers.append((owner, outcome.observer))
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


def _installed() -> list[tuple[Owner, Loader]]:
    """Return the installed plugins, ours first: what they import need not be imported at a stranger's trial."""
    found = [installed(point) for point in entry_points(group=GROUP)]
    return sorted(found, key=lambda one: (one[0].distribution != DISTRIBUTION, one[0].plugin))


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

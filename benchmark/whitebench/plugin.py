"""One plugin: who owns it, how it is loaded, and what is checked of what it hands over."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from types import FunctionType, MappingProxyType, ModuleType
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import pluggy

from whitebench import hookspecs
from whitebench.errors import OptionError, PluginError, near_misses
from whitebench.names import configure
from whitebench.quotation import quote, readable, type_name
from whitebench.specs import LauncherSpec, MetricSpec, ModelSpec, ObjectiveSpec, ReadoutSpec, Spec, TaskSpec

LOCAL_PREFIX = "whitebench_local_"
"""How the modules of local plugin files are called."""

Kind: TypeAlias = Literal["model", "task", "metric", "objective", "readout", "launcher"]

SPEC_TYPE_BY_KIND: Mapping[Kind, type[Spec]] = MappingProxyType(
    {
        "model": ModelSpec,
        "task": TaskSpec,
        "metric": MetricSpec,
        "objective": ObjectiveSpec,
        "readout": ReadoutSpec,
        "launcher": LauncherSpec,
    }
)

MOST_SPECS = 10_000
"""What one hook may return: every command looks at each of them."""

HOOKS = (*(f"register_{kind}s" for kind in SPEC_TYPE_BY_KIND), "observe")

S = TypeVar("S", bound=Spec)


@dataclass(frozen=True, kw_only=True)
class Owner:
    """The plugin that hands over a Spec."""

    plugin: str
    """The full module path, or the path of a local file."""
    distribution: str
    version: str

    def __str__(self) -> str:
        return readable(f"{self.distribution} {self.version}".strip() + f" ({self.plugin})")


@dataclass(frozen=True, kw_only=True)
class Entry(Generic[S]):
    """One Spec and who owns it."""

    spec: S
    owner: Owner
    modules: tuple[str, ...]
    """The importable modules of the plugin's own package that define what the Spec is made of."""


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """A plugin that may come in: what it brings, and who is to be told what happens."""

    entries: tuple[tuple[Kind, Entry[Any]], ...]
    observer: Callable[..., None] | None


Loader: TypeAlias = Callable[[], Any]


def installed(point: EntryPoint) -> tuple[Owner, Loader]:
    """Return who owns an entry point, and what imports it."""
    name = version = None
    if point.dist is not None:
        with suppress(Exception):  # where its metadata is gone, some finders say None and others raise
            name, version = point.dist.name, point.dist.version
    return Owner(plugin=point.value, distribution=name or "unknown", version=version or ""), point.load


def local(path: Path) -> tuple[Owner, Loader]:
    """Return the owner that a local plugin file is to itself, and what imports it.

    Raises:
        PluginError: there is no such file.
    """
    if not path.is_file():
        raise PluginError(f"--plugin {path}: no such file")
    return Owner(plugin=str(path), distribution="local file", version=""), lambda: import_file(path)


def import_file(path: Path) -> ModuleType:
    """Import a local plugin file under a name of its own, once per process.

    Raises:
        PluginError: it is no Python file.
    """
    stem = re.sub(r"\W", "_", path.stem)
    name = f"{LOCAL_PREFIX}{stem}_{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError("it is no Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def admit(owner: Owner, load: Loader) -> Plugin:
    """Load one plugin in a manager of its own, so that its mistakes cannot reach the others.

    Raises:
        PluginError: it implements no hook or one that does not exist, or hands over what is no Spec.
        Exception: whatever its module raises when it is imported.
    """
    manager = pluggy.PluginManager("whitebench")
    manager.add_hookspecs(hookspecs)
    plugin = load()
    manager.register(plugin, name=owner.plugin)
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(_misspelt(manager) or str(error)) from error
    implemented = {name for name in HOOKS if getattr(manager.hook, name).get_hookimpls()}
    _check_marks(plugin, implemented)
    entries: list[tuple[Kind, Entry[Any]]] = []
    for kind in SPEC_TYPE_BY_KIND:
        for implementation in getattr(manager.hook, f"register_{kind}s").get_hookimpls():
            entries += [(kind, entry) for entry in _entries(kind, owner, implementation)]
    return Plugin(entries=tuple(entries), observer=manager.hook.observe if "observe" in implemented else None)


def _misspelt(manager: pluggy.PluginManager) -> str:
    strange = sorted(set(vars(manager.hook)) - set(HOOKS))
    return "; ".join(f"there is no hook {name!r}{near_misses(name, HOOKS)}" for name in strange)


def _check_marks(plugin: Any, implemented: set[str]) -> None:
    """Refuse a plugin whose hooks pluggy cannot see: those that `@hookimpl` does not mark."""
    own = [
        name
        for name, value in getattr(plugin, "__dict__", {}).items()
        if isinstance(value, FunctionType) and value.__module__ == getattr(plugin, "__name__", None)
    ]
    unmarked = [name for name in own if name in HOOKS and name not in implemented]
    if unmarked:
        raise PluginError(f"{' and '.join(unmarked)} is not marked as a hook: write @hookimpl above it")
    if not implemented:
        close = [f"{name} looks like one{near}" for name in own if (near := near_misses(name, HOOKS))]
        hint = f"; {'; '.join(close)}" if close else ""
        raise PluginError(f"it implements no hook (hooks: {', '.join(HOOKS)}){hint}")


def _entries(kind: Kind, owner: Owner, implementation: pluggy.HookImpl) -> list[Entry[Any]]:
    hook, wanted = f"register_{kind}s", SPEC_TYPE_BY_KIND[kind]
    specs: Any = implementation.function()
    if type(specs) not in (list, tuple):
        raise PluginError(f"{hook} returned a {type_name(specs)}: it must return a list of {wanted.__name__}")
    if len(specs) > MOST_SPECS:
        raise PluginError(f"{hook} returned {len(specs):,} Specs: at most {MOST_SPECS:,} are taken")
    home = implementation.function.__module__
    taken = [_taken(hook, kind, spec) for spec in specs]
    return [Entry(spec=spec, owner=owner, modules=_modules(spec, home)) for spec in taken]


def _taken(hook: str, kind: Kind, spec: Any) -> Spec:
    """Return a copy of a Spec, checked once more: whoever holds the original may change it behind our back."""
    wanted = SPEC_TYPE_BY_KIND[kind]
    if type(spec) is not wanted:
        is_child = issubclass(type(spec), wanted)
        what = f"a subclass of {wanted.__name__}: make it one itself" if is_child else f"which is no {wanted.__name__}"
        raise PluginError(f"{hook} returned a list with a {type_name(spec)}, {what}")
    parts = {field.name: getattr(spec, field.name) for field in dataclasses.fields(wanted)}
    own: dict[str, Any] = {name: dict(part) for name, part in parts.items() if isinstance(part, Mapping)}
    copy: Spec = dataclasses.replace(spec, **own)
    _check_defaults(kind, copy)
    return copy


def _check_defaults(kind: Kind, spec: Spec) -> None:
    if not isinstance(spec, MetricSpec):
        try:
            configure(f"{kind} {quote(spec.name)} with its defaults", spec.config, {})
            for name, options in spec.presets.items() if isinstance(spec, ModelSpec) else ():
                configure(f"{kind} {quote(spec.name)} with its preset {name}", spec.config, options)
        except OptionError as error:
            raise PluginError(str(error)) from error


def _modules(spec: Spec, home: str) -> tuple[str, ...]:
    """Return the modules that define the Spec's parts; `home`, the hook's own, where all come from elsewhere."""
    parts = [getattr(spec, field.name) for field in dataclasses.fields(spec)]
    while any(isinstance(part, functools.partial) for part in parts):
        parts = [part.func if isinstance(part, functools.partial) else part for part in parts]
    found = {str(getattr(part, "__module__", home)) for part in parts if callable(part)}
    package = home.partition(".")[0]
    return tuple(sorted(name for name in found if name.partition(".")[0] == package)) or (home,)

"""The code of an item: what can change its numbers, read from its syntax trees, and the packages it stands on."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from whitebench.plugin import LOCAL_PREFIX, Entry

_SAYS_NOTHING = (
    "summary", "reference", "unit", "presets", "released", "width", "solve", "asks", "scaling", "prepare",
    "is_penalty_additive",
)  # fmt: skip
"""Fields of a Spec that are for people and change no number; what a preset stands for and what a width is set to count
as options, the weights in a file by their bytes, what solves, scales or prepares by its code, and how many devices
share a fit not at all."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """The code of one item."""

    code: Mapping[str, Any]
    """What its Spec states, and its modules' code by name without comments, docstrings and layout."""
    packages: frozenset[str]
    """Top-level names of the third-party packages those modules import."""


def source_of(entry: Entry[Any]) -> Source:
    """Return the source of an item: what its Spec states, and the code that defines it.

    That code is the modules its Spec's parts come from, and those they import that lie beside them (of the
    same distribution, or in the same folder as a local file). The harness itself is left out:
    `RULES_VERSION` stands for it.
    """
    code = _source(entry.modules, entry.owner.distribution)
    return Source(code={"spec": _stated(entry.spec), "modules": code.code}, packages=code.packages)


def _stated(value: object) -> Any:
    """Return the plain values in a Spec or a part of one; functions and classes count by their code."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value) if field.name not in _SAYS_NOTHING]
        return {name: _stated(getattr(value, name)) for name in fields}
    if isinstance(value, Mapping):
        return {str(key): _stated(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_stated(inner) for inner in value]
    return value if isinstance(value, str | int | float | bool | None) else None


@cache
def _source(modules: tuple[str, ...], distribution: str) -> Source:
    trees: dict[str, str] = {}
    packages: set[str] = set()
    waiting = list(modules)
    roots = {_root_of(module) for module in modules}
    while waiting:
        name = waiting.pop()
        path = _path_of(name)
        if name in trees or path is None:
            continue
        tree = ast.parse(path.read_bytes())
        trees[name] = normal_form(tree)
        for imported in _imports(tree, name, is_package=path.name == "__init__.py"):
            top = imported.partition(".")[0]
            if top == "whitebench" or top in sys.stdlib_module_names:
                continue
            owners = _distributions_of(top)
            # An editable install provides nothing that importlib.metadata could tell: where it lies must do.
            if distribution in owners or (not owners and _root_of(imported) in roots):
                waiting.append(imported)
            else:
                packages.add(top)
    # A local file's module is named after its path: where it lies says nothing about its numbers.
    code = {"" if name.startswith(LOCAL_PREFIX) else name: tree for name, tree in trees.items()}
    return Source(code=code, packages=frozenset(packages))


def _root_of(module: str) -> Path | None:
    """Return the folder that holds the module's top-level package."""
    top = module.partition(".")[0]
    path = _path_of(top)
    return None if path is None else path.parent.parent if path.name == "__init__.py" else path.parent


def normal_form(tree: ast.Module) -> str:
    """Return the code of `tree` without comments, docstrings and layout."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [statement for statement in body if not _is_text(statement)]  # type: ignore[attr-defined]
    return ast.unparse(tree)


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _imports(tree: ast.Module, module: str, *, is_package: bool) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = module.split(".")[: len(module.split(".")) - node.level + is_package]
                base = ".".join([*parent, *([base] if base else [])])
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)} - {""}
    return names


def _path_of(module: str) -> Path | None:
    loaded = sys.modules.get(module)
    try:
        spec = loaded.__spec__ if loaded is not None else importlib.util.find_spec(module)
    except Exception:  # looking for a part imports the packages above it, which may raise what they like
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin)


def versions_of(packages: frozenset[str]) -> dict[str, str]:
    """Return the versions of the distributions that provide these top-level `packages`.

    A build tag (`+cpu`, `+cu126`) is cut off: the device is recorded on its own.
    """
    found = {name: version for package in packages for name, version in _distributions_of(package).items()}
    return {name: version.partition("+")[0] for name, version in sorted(found.items())}


@cache
def _distributions_of(package: str) -> Mapping[str, str]:
    """Return the versions of the distributions that provide a top-level package, by their names."""
    told = [one.metadata for one in reversed(_providers().get(package, ()))]  # 1 ms each: it reads the file
    return {one["Name"]: one["Version"] for one in told}  # of several of one name the first, which is imported


@cache
def _providers() -> Mapping[str, Sequence[Distribution]]:
    """Return the distributions by the top-level packages they provide.

    As `importlib.metadata.packages_distributions` does, which makes a path of every file that is installed: 0.2 s here,
    0.5 where its backport is loaded, as by MLflow; this takes 0.02.
    """
    found: dict[str, list[Distribution]] = {}
    for one in distributions():
        for package in (one.read_text("top_level.txt") or "").split() or _packages_in(one.read_text("RECORD") or ""):
            found.setdefault(package, []).append(one)
    return found


def _packages_in(record: str) -> set[str]:
    """Return the top-level packages and modules among the files that were installed."""
    files = (line.split(",", 1)[0] for line in record.splitlines())
    return {file.partition("/")[0].removesuffix(".py") for file in files if file.endswith(".py")}

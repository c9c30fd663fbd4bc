"""Whether a node would compute the same: what is installed there, compared with the conductor's machine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

LIBRARIES = ("torch", "lightning", "torchmetrics", "numpy", "scipy", "scikit-learn", "kornia", "pillow")
"""Distributions whose version can change a number."""


def installation(owners: Sequence[str] | None) -> dict[str, str]:
    """Return what a fit computes with: the code of whitebench and of the plugins `owners`, and libraries' versions.

    A build for other hardware (`2.13.0+cpu`) is the same version.
    """
    installed = [owner.partition(":")[0].partition(".")[0] for owner in owners or () if not owner.endswith(".py")]
    packages = sorted({"whitebench", *installed})
    return {name: _code_of(name) for name in packages} | {name: _version_of(name) for name in LIBRARIES}


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> str:
    """Return in words what is another there than here, nothing where all is the same."""
    return ", ".join(
        f"{name} is {there.get(name, 'not installed')} there and {value} here"
        for name, value in here.items()
        if there.get(name) != value
    )


def _version_of(distribution: str) -> str:
    try:
        return version(distribution).partition("+")[0]
    except PackageNotFoundError:
        return "not installed"


@cache
def _code_of(package: str) -> str:
    """Return a digest of a package's Python files."""
    spec = find_spec(package)
    if spec is None:
        return "not installed"
    roots = [Path(root) for root in spec.submodule_search_locations or ()]
    files = [(str(file.relative_to(root)), file) for root in roots for file in root.rglob("*.py")]
    if not files and spec.origin is not None:
        files = [(package, Path(spec.origin))]
    total = hashlib.sha256()
    for name, file in sorted(files):
        total.update(name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return f"code {total.hexdigest()[:12]}"

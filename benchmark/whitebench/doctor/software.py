"""The installation: Python, the system, whitebench, and the libraries it stands on against what it asks for."""

from __future__ import annotations

import json
import platform
import shlex
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path

from whitebench import __version__
from whitebench.doctor.finding import Finding
from whitebench.provenance import CODE, commit_of

NAME = "whitebench"

DRIVERS = {"psycopg": "psycopg[binary]>=3.1", "psycopg2": "psycopg2-binary>=2.9"}
"""What is installed to have a driver, where that is not called as the driver is."""


def look_at_python() -> Iterator[Finding]:
    """Compare this Python with what whitebench is made for."""
    from packaging.specifiers import SpecifierSet

    wanted, have = SpecifierSet(distribution(NAME).metadata["Requires-Python"] or ""), platform.python_version()
    found = f"{have} ({sys.executable})"
    if wanted.contains(have, prereleases=True):
        yield Finding(what="Python", state="ok", detail=found)
        return
    mend = f"python3.11 -m venv .venv && .venv/bin/{reinstall()}"
    yield Finding(what="Python", state="broken", detail=f"{found}; whitebench needs {wanted}", mend=mend)


def look_at_platform() -> Iterator[Finding]:
    """Say which system this is."""
    name = platform.platform()
    if sys.platform not in ("linux", "darwin"):
        yield Finding(what="platform", state="warning", detail=f"{name}: made for Linux, macOS and WSL")
        return
    within = " (WSL)" if "microsoft" in platform.release().lower() else ""
    yield Finding(what="platform", state="ok", detail=f"{name}{within}")


def look_at_whitebench() -> Iterator[Finding]:
    """Say which whitebench runs, and from where."""
    commit, is_dirty = commit_of(CODE)
    changed = ", with uncommitted changes" if is_dirty else ""
    at = f"commit {commit[:12]}{changed}" if commit else "no commit known: not run from a checkout"
    found = f"{__version__}, {at} ({CODE.parent})"
    try:
        installed = version(NAME)
    except PackageNotFoundError:
        detail = f"{found}; it is not installed, so that none of its plugins is found"
        yield Finding(what="whitebench", state="broken", detail=detail, mend=reinstall())
        return
    if installed == __version__:
        yield Finding(what="whitebench", state="ok", detail=found)
        return
    detail = f"{found}; what was installed calls itself {installed}"
    yield Finding(what="whitebench", state="warning", detail=detail, mend=reinstall())


def look_at_libraries() -> Iterator[Finding]:
    """Compare each library with the least version that whitebench relies on."""
    from packaging.requirements import Requirement

    asked = [Requirement(text) for text in distribution(NAME).requires or []]
    needed = [one for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})]
    good = []
    for one in sorted(needed, key=lambda one: one.name):
        have = _version_of(one.name)
        if have is not None and one.specifier.contains(have, prereleases=True):
            good.append(f"{one.name} {have}")
            continue
        detail = f"{one.name} is not installed" if have is None else f"{one.name} {have} is not {one.specifier}"
        yield Finding(what="libraries", state="broken", detail=detail, mend=_install(str(one)))
    yield Finding(what="libraries", state="ok", detail=", ".join(good))


def look_at_git() -> Iterator[Finding]:
    """See whether results can say which commit they come from."""
    path = shutil.which("git")
    if path:
        yield Finding(what="git", state="ok", detail=path)
        return
    mend = "brew install git" if sys.platform == "darwin" else "sudo apt install git"
    yield Finding(what="git", state="hint", detail="not here: results will name no commit", mend=mend)


def look_at_postgresql(uri: str) -> Iterator[Finding]:
    """See whether a store on PostgreSQL could be opened; needed only where `uri` is one."""
    from sqlalchemy import make_url

    is_needed = uri.startswith("postgresql")
    # Which driver `postgresql://` means depends on SQLAlchemy: psycopg2 up to 2.0, psycopg from 2.1.
    driver = make_url(uri if is_needed else "postgresql://").get_dialect().driver
    if find_spec(driver) is not None:
        yield Finding(what="PostgreSQL", state="ok", detail=f"{driver} is installed")
        return
    what_for = "the store is on PostgreSQL" if is_needed else "needed only for a store on PostgreSQL"
    yield Finding(
        what="PostgreSQL",
        state="broken" if is_needed else "hint",
        detail=f"{driver} is not installed: {what_for}",
        mend=_install(DRIVERS.get(driver, driver)),
    )


def reinstall() -> str:
    """Return the command that installs whitebench again from where it came."""
    try:
        origin = json.loads(distribution(NAME).read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        origin = {}
    folder = str(origin.get("url", "")).removeprefix("file://")
    root = CODE.parents[2]
    if not origin.get("dir_info", {}).get("editable") and (root / "pyproject.toml").exists():
        folder = str(root)
    if folder and Path(folder).is_dir():
        return f"python -m pip install --editable {shlex.quote(folder)}"
    return f"python -m pip install --force-reinstall {NAME}"


def _install(requirement: str) -> str:
    return f"python -m pip install {shlex.quote(requirement)}"


def _version_of(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
